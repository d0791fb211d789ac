"""Gains over people: tables that were written by hand, and what follows from them alone."""

import numpy as np
import pytest
from scipy import stats
from written_people import measured

from brainnrds.analyses.group_gains import combine_gains
from brainnrds.analyses.options import GroupOptions

OPTIONS = GroupOptions()


def test_few_people_are_combined_by_their_intervals():
    gain, low, high, p = measured(1.0, 3, np.random.default_rng(0))
    row = combine_gains(gain, low, high, p, OPTIONS)
    z = gain.sum() / np.sqrt(3)
    half = stats.norm.isf(0.025) / np.sqrt(3)
    assert row["gain"] == pytest.approx(gain.mean())
    np.testing.assert_allclose([row["low"], row["high"]], gain.mean() + np.array([-half, half]))
    assert row["p"] == pytest.approx(stats.norm.sf(z))
    assert row["p_every"] == pytest.approx(p.max())
    assert row["n_significant"] == np.sum(p < 0.05)


def test_many_people_are_a_sample():
    gain, low, high, p = measured(1.0, 8, np.random.default_rng(0))
    row = combine_gains(gain, low, high, p, OPTIONS)
    interval = stats.ttest_1samp(gain, 0).confidence_interval()
    np.testing.assert_allclose([row["low"], row["high"]], interval)
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    assert row["p"] == pytest.approx(np.mean(signs @ gain >= gain.sum() - 1e-9))
    assert "p_every" not in row


@pytest.mark.parametrize(("n_people", "spread"), [(3, 0.0), (8, 0.0), (8, 1.0)])
def test_intervals_hold_the_truth_and_p_values_are_honest(n_people, spread):
    """Few people: the mean of these people. Many: the mean of all, who differ."""
    rng = np.random.default_rng(n_people)
    covered, below = [], []
    for _ in range(400):
        own = spread * rng.standard_normal(n_people)
        row = combine_gains(*measured(own, n_people, rng), OPTIONS)
        covered.append(row["low"] <= 0 <= row["high"])
        below.append(row["p"] < 0.05)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.033)
    assert np.mean(below) == pytest.approx(0.05, abs=0.033)


def test_without_p_values_there_is_a_mean_alone():
    gain = np.array([0.1, np.nan, 0.3])
    row = combine_gains(gain, gain, gain, np.full(3, np.nan), OPTIONS)
    assert row["gain"] == pytest.approx(0.2) and row["n_participants"] == 2
    assert "p" not in row and "prevalence" not in row and np.isnan(row["low"])
    many = np.r_[np.nan, np.arange(6.0)]
    assert set(combine_gains(many, many, many, many, OPTIONS)) == {"gain", "n_participants"}
