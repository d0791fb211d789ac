"""Short version of tests/prove/prove_group.py, and its check that the check can fail."""

import numpy as np
import prove_group
import pytest
from prove_group import smooth_maps

from brainnrds.group import sign_flip_test


@pytest.fixture(scope="module")
def rows():
    results = [
        prove_group.analyse_people(30 if effect else 6, effect, seed)
        for effect, n_groups in ((None, 50), ("extended", 3))
        for seed in range(900, 900 + n_groups)
    ]
    results += [prove_group.analyse_few(None, seed) for seed in range(900, 920)]
    return prove_group.summarize(results, n_people=(6,), power_of=[("extended", 30)])


def test_family_wise_errors_and_power(rows):
    errors, power, _ = rows
    for row in errors:
        # three standard errors of a binomial
        distance = abs(row["family_wise_error"] - row["attainable_level"])
        assert distance < 3 * row["standard_error"], row
    [row] = power
    assert row["p_tfce"] > 1.5 * row["p_max"] and row["p_tfce_outside"] < 0.05


def test_uncorrected_p_values_would_fail():
    found = []
    for seed in range(20):
        test = sign_flip_test(smooth_maps(np.random.default_rng(seed), 7), random_state=0)
        found.append((test.p_values < 0.05).any())
    assert np.mean(found) > 0.8


def test_fixed_effects_of_three_people(rows):
    for row in rows[2]:
        assert 0.03 < row["below_05"] < 0.07 and row["conjunction_below_05"] < 0.01, row
