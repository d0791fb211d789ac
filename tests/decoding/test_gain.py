"""The brain gain against tests that are known, and its words."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

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


def test_without_spread_of_clips_it_is_a_t_test_over_trainings():
    ours, theirs = np.array([1.0, 1.1, 1.3, 1.2]), np.array([1.5, 1.2, 1.4])
    scores = _scores(np.tile(ours[:, None], 24), np.tile(theirs[:, None], 24))
    gain = brain_gain(scores, None, np.arange(24) // 2, confidence=0.9).loc["all"]
    known = ttest_ind(theirs, ours, alternative="greater")
    assert gain["p_paired"] == pytest.approx(known.pvalue)
    interval = ttest_ind(theirs, ours).confidence_interval(0.9)
    np.testing.assert_allclose([gain["low"], gain["high"]], interval)
    assert gain["n_seeds"] == 4 and gain["n_draws"] == 3


def test_intervals_cover_the_gain_with_both_kinds_of_noise():
    random = np.random.default_rng(1)
    n_sets, covered, found = 1000, 0, 0
    for _ in range(n_sets):
        clips = random.normal(0, 0.3, size=14)
        sides = [1 + random.normal(0, 0.1, size=(3, 1)) + np.zeros((3, 14)) for _ in range(2)]
        gain = brain_gain(_scores(sides[0], sides[1] + clips), None, np.arange(14)).loc["all"]
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
    assert gain["note"] == note


def test_a_gain_below_zero_is_not_supported():
    random = np.random.default_rng(0)
    scores = _scores(random.normal(2, 0.01, size=(3, 24)), random.normal(1, 0.01, size=(3, 24)))
    gain = brain_gain(scores, _null(np.full(99, 3.0)), np.arange(24)).loc["all"]
    assert gain["p"] == 0.01 and gain["high"] < 0 and not gain["supported"]
