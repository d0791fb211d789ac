"""The brain gain against tests that are known, and its words."""

import numpy as np
import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from brainnrds.decoding import brain_gain


def _scores(ours, theirs):
    return {
        name: {"end_point_error_px": np.asarray(errors), "masked_error_px": np.nan * errors}
        for name, errors in (("decoder", ours), ("unrelated_bold", theirs))
    }


def _null(errors, n_blocks=12):
    return {"end_point_error_px": np.asarray(errors), "n_blocks": n_blocks, "n_orders": 1e9}


def test_without_spread_of_training_it_is_a_t_test_over_blocks():
    random = np.random.default_rng(0)
    difference = np.repeat(random.normal(0.1, 0.3, size=15), 4)
    scores = _scores(np.ones((2, 60)), np.ones((2, 60)) + difference)
    # the same clips in every training: its spread is 0
    gain = brain_gain(scores, None, np.arange(60) // 4).loc["all"]
    known = ttest_1samp(difference[::4], 0, alternative="greater")
    assert gain["gain_px"] == pytest.approx(difference.mean())
    assert gain["p_paired"] == pytest.approx(known.pvalue)
    interval = ttest_1samp(difference[::4], 0).confidence_interval(0.95)
    np.testing.assert_allclose([gain["low"], gain["high"]], interval)


def test_without_spread_of_clips_it_is_a_paired_t_test_over_seeds():
    ours, theirs = np.array([1.0, 2.1, 3.3, 4.2]), np.array([1.5, 2.2, 3.4, 4.9])
    scores = _scores(np.tile(ours[:, None], 24), np.tile(theirs[:, None], 24))
    gain = brain_gain(scores, None, np.arange(24) // 2, confidence=0.9).loc["all"]
    known = ttest_1samp(theirs - ours, 0, alternative="greater")
    assert gain["p_paired"] == pytest.approx(known.pvalue)
    interval = ttest_1samp(theirs - ours, 0).confidence_interval(0.9)
    np.testing.assert_allclose([gain["low"], gain["high"]], interval)


def test_several_draws_for_each_seed_are_a_regression_on_side_and_seed():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(3, 1)), random.normal(size=(6, 1))
    scores = _scores(np.tile(ours, 24), np.tile(theirs, 24))
    gain = brain_gain(scores, None, np.arange(24) // 2).loc["all"]
    side = np.repeat([0, 1], [3, 6])
    design = np.column_stack([side, np.arange(9)[:, None] % 3 == np.arange(3)]).astype(float)
    errors = np.concatenate([ours, theirs])[:, 0]
    slopes, residual, *_ = np.linalg.lstsq(design, errors, rcond=None)
    error = np.sqrt(residual[0] / 5 * np.linalg.inv(design.T @ design)[0, 0])
    assert gain["gain_px"] == pytest.approx(slopes[0])
    reach = student_t.ppf(0.975, 5) * error
    np.testing.assert_allclose([gain["low"], gain["high"]], slopes[0] + np.array([-1, 1]) * reach)


def test_one_seed_is_a_test_of_the_decoder_among_its_controls():
    theirs = np.array([1.5, 1.2, 1.4, 1.7])
    scores = _scores(np.full((1, 24), 0.6), np.tile(theirs[:, None], 24))
    gain = brain_gain(scores, None, np.arange(24) // 2).loc["all"]
    error = theirs.std(ddof=1) * np.sqrt(1 + 1 / 4)
    p = student_t.sf((theirs.mean() - 0.6) / error, 3)
    assert gain["p_paired"] == pytest.approx(p)
    with pytest.raises(ValueError, match="must be a multiple of `n_seeds`"):
        brain_gain(_scores(np.ones((2, 24)), np.ones((3, 24))), None, np.arange(24))


def test_intervals_cover_the_gain_with_both_kinds_of_noise():
    random = np.random.default_rng(1)
    n_sets, covered, found = 1000, 0, 0
    for _ in range(n_sets):
        clips = random.normal(0, 0.3, size=14)
        seeds = random.normal(1, 0.3, size=(2, 1))
        ours = seeds + random.normal(0, 0.1, size=(2, 1)) + np.zeros((2, 14))
        theirs = np.tile(seeds, (2, 1)) + random.normal(0, 0.1, size=(4, 1)) + clips
        gain = brain_gain(_scores(ours, theirs), None, np.arange(14)).loc["all"]
        covered += gain["low"] <= 0 <= gain["high"]
        found += gain["p_paired"] < 0.05
    # four standard errors of 1,000 draws
    assert abs(covered / n_sets - 0.95) < 0.028
    assert abs(found / n_sets - 0.05) < 0.028


def test_p_counts_permutations_that_err_as_little():
    scores = _scores(np.full((1, 24), 0.5), np.ones((2, 24)))
    null = _null([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2])
    assert brain_gain(scores, null, np.arange(24)).loc["all", "p"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("converged", "n_blocks", "supported", "note"),
    [
        (True, 12, True, ""),
        ("training had not ended", 12, False, "not supported: training had not ended"),
        (True, 11, False, "no p-value: 11 blocks can change places, 12 are needed"),
    ],
)
def test_a_gain_is_claimed_only_with_everything(converged, n_blocks, supported, note):
    random = np.random.default_rng(0)
    scores = _scores(random.normal(1, 0.01, size=(3, 24)), random.normal(2, 0.01, size=(3, 24)))
    null = _null(np.full(99, 2.0), n_blocks)
    gain = brain_gain(scores, null, np.arange(24), converged=converged).loc["all"]
    assert gain["supported"] == supported
    assert gain["note"].removesuffix(": test more films") == note


def test_a_gain_below_zero_is_not_supported():
    random = np.random.default_rng(0)
    scores = _scores(random.normal(2, 0.01, size=(3, 24)), random.normal(1, 0.01, size=(3, 24)))
    gain = brain_gain(scores, _null(np.full(99, 3.0)), np.arange(24)).loc["all"]
    assert gain["p"] == 0.01 and gain["high"] < 0 and not gain["supported"]
    assert gain["note"].startswith("not supported: the interval is not above 0")
    gain = brain_gain(scores, None, np.arange(24)).loc["all"]
    assert gain["note"].startswith("not supported: the interval is not above 0")


def test_a_gain_of_a_decoder_that_ignores_the_brain_is_not_supported():
    random = np.random.default_rng(0)
    scores = _scores(random.normal(1, 0.01, size=(3, 24)), random.normal(2, 0.01, size=(3, 24)))
    gain = brain_gain(scores, _null(np.full(99, 1.0)), np.arange(24)).loc["all"]
    assert gain["low"] > 0 and not gain["supported"]
    assert gain["note"].startswith("not supported: permuted BOLD does as well")
    one = brain_gain(_scores(np.ones((1, 24)), np.full((1, 24), 2.0)), None, np.arange(24))
    assert one.loc["all", "note"].startswith("not supported: no interval")
