"""Left against right over people: pairs by name, the index, its interval and its test."""

import numpy as np
import pytest

from brainnrds._checks import InputError
from brainnrds.group import homologous_parcels, laterality


def test_parcels_pair_by_the_rest_of_their_names():
    names = ["L_V1_ROI", "R_V2_ROI", "R_V1_ROI", "lh.MT", "rh.MT", "Left Hippocampus"]
    names += ["Right Hippocampus", "LO_left", "LO_right", "vermis", "L_V2_ROI", "R_only"]
    assert homologous_parcels(names) == {
        "V1_ROI": (0, 2),
        "V2_ROI": (10, 1),
        "MT": (3, 4),
        "Hippocampus": (5, 6),
        "LO": (7, 8),
    }
    with pytest.raises(InputError, match="got a several times"):
        homologous_parcels(["a", "a"])


def test_index_and_difference_are_those_of_the_means():
    rng = np.random.default_rng(0)
    left, right = 0.3 + 0.02 * rng.standard_normal((2, 12, 4))
    right[:, 1] = 0.1 + 0.02 * rng.standard_normal(12)
    right[:, 2] *= -1
    sides = laterality(left, right)
    l, r = left.mean(axis=0), right.mean(axis=0)
    np.testing.assert_allclose(sides.index, (l - r) / (np.abs(l) + np.abs(r)))
    assert sides.index[2] == pytest.approx(1) and sides.index[1] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(sides.difference, l - r)
    assert (sides.q_values[1:3] < 0.01).all() and (sides.p_values[[0, 3]] > 0.01).all()
    turned = laterality(right, left)
    np.testing.assert_allclose(turned.index, -sides.index)
    np.testing.assert_allclose(turned.index_high, -sides.index_low)
    np.testing.assert_array_equal(turned.p_values, sides.p_values)
    # an interval of 95 % that leaves 0 out, and t with p below .05, are one
    outside = (sides.difference_low > 0) | (sides.difference_high < 0)
    np.testing.assert_array_equal(outside, (sides.index_low > 0) | (sides.index_high < 0))


def test_intervals_cover_and_noise_has_no_side():
    rng = np.random.default_rng(0)
    n = 10
    # what is a person's own in both sides makes no error of their difference
    own = 0.1 * rng.standard_normal((n, 3000))
    left, right = 0.4 + own, 0.2 + own
    left, right = (side + 0.05 * rng.standard_normal(side.shape) for side in (left, right))
    sides = laterality(left, right)
    for name, truth in (("difference", 0.2), ("index", 0.2 / 0.6)):
        covered = (sides[f"{name}_low"] < truth) & (truth < sides[f"{name}_high"])
        assert covered.mean() == pytest.approx(0.95, abs=0.015), name
    null = laterality(right + 0.05 * rng.standard_normal(right.shape), right)
    assert np.mean(null.p_values < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean((null.index_low > 0) | (null.index_high < 0)) == pytest.approx(0.05, abs=0.015)


def test_few_people_have_an_index_and_no_test():
    left = np.full((3, 2), 0.3) + [[0.0], [0.1], [0.2]]
    sides = laterality(left, left / 2)
    np.testing.assert_allclose(sides.index, 1 / 3)
    assert np.isnan(sides.p_values).all() and "3 participants" in sides.reason
    with pytest.raises(InputError, match=r"one shape .*\(3, 2\) and \(2, 2\)"):
        laterality(left, left[:2])
