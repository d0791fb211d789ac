import numpy as np
import pytest
from himalaya.scoring import correlation_score as himalaya_correlation
from himalaya.scoring import correlation_score_split

from brainnrds.encoding import correlation_score, correlation_shares, r2_score, unique_variance
from brainnrds.encoding.scores import runs_by_fold


def test_correlations_equal_himalaya_in_one_run():
    rng = np.random.default_rng(0)
    y, parts = rng.standard_normal((100, 5)), rng.standard_normal((3, 100, 5))
    parts += 0.3 * y
    np.testing.assert_allclose(
        correlation_score(y, parts.sum(0)), himalaya_correlation(y, parts.sum(0)), rtol=1e-10
    )
    np.testing.assert_allclose(
        correlation_shares(y, parts), correlation_score_split(y, parts), rtol=1e-10
    )


def test_scores_ignore_run_means_and_fold_scales():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((90, 5))
    prediction = y + rng.standard_normal((90, 5))
    runs = np.repeat([0, 1, 2], 30)
    reference = correlation_score(y, prediction, runs=runs, folds=runs)
    shifted = prediction * np.array([1.0, 100.0, 0.01])[runs, None] + 5.0 * runs[:, None]
    np.testing.assert_allclose(
        correlation_score(y + runs[:, None], shifted, runs=runs, folds=runs), reference
    )
    per_run = [np.corrcoef(y[runs == r, 0], prediction[runs == r, 0])[0, 1] for r in range(3)]
    assert min(per_run) < reference[0] < max(per_run)


def test_samples_outside_the_folds_do_not_count():
    rng = np.random.default_rng(0)
    y, prediction = rng.standard_normal((2, 60, 3))
    folds = np.repeat([0, -1], 30)
    prediction[30:] = np.nan
    for score in (correlation_score, r2_score):
        np.testing.assert_allclose(
            score(y, prediction, folds=folds), score(y[:30], prediction[:30])
        )


def test_r2_of_the_truth_the_mean_and_a_constant():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 3))
    y[:, 2] = 4
    np.testing.assert_allclose(r2_score(y, y), [1, 1, np.nan])
    np.testing.assert_allclose(r2_score(y, np.zeros_like(y)), [0, 0, np.nan])
    np.testing.assert_array_equal(correlation_score(y, np.zeros_like(y)), [0, 0, np.nan])


def test_unique_variance_of_independent_parts():
    rng = np.random.default_rng(0)
    first, second, noise = rng.standard_normal((3, 5000, 4))
    y = first * np.sqrt(0.3) + second * np.sqrt(0.2) + noise * np.sqrt(0.5)
    joint = first * np.sqrt(0.3) + second * np.sqrt(0.2)
    unique = unique_variance(y, joint, first * np.sqrt(0.3))
    np.testing.assert_allclose(unique, 0.2, atol=0.03)
    np.testing.assert_allclose(unique, r2_score(y, joint) - r2_score(y, first * np.sqrt(0.3)))


def test_parts_of_a_run_in_different_folds_are_centred_apart():
    """A mean of the training part, which is the tested part's with the other sign, is no score."""
    rng = np.random.default_rng(0)
    folds = np.repeat([0, 1], 100)
    y = rng.normal(size=(200, 500)) + np.where(folds == 0, 1.0, -1.0)[:, None]
    noise = 0.1 * rng.normal(size=(200, 500))
    of_the_others = noise - np.where(folds == 0, 1.0, -1.0)[:, None]
    runs = np.zeros(200, int)
    for score in (correlation_score, r2_score):
        means = score(y, of_the_others, runs=runs, folds=folds).mean()
        none = score(y, noise, runs=runs, folds=folds).mean()
        assert means == pytest.approx(none, abs=1e-9)
    # what one fold predicted of a run stays together
    label = runs_by_fold(np.array([3, 3, 3, 5, 5]), np.array([0, 0, 1, 1, 1]))
    assert label.tolist() == [0, 0, 1, 2, 2]
