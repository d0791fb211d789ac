"""Short version of tests/prove/prove_null.py, and its check that the check can fail."""

import numpy as np
import prove_null
import pytest

from brainnrds.encoding import difference_significance, prediction_significance


@pytest.mark.parametrize("rho, short_films", [(0.3, False), (0.9, False), (0.6, True)])
def test_whole_analysis_of_pure_noise(rho, short_films):
    results = [
        prove_null.analyse(rho, seed, n_permutations=1000, short_films=short_films)
        for seed in range(900, 903)
    ]
    for row in prove_null.summarise(results):
        assert 0.025 < row["rate_below_05"] < 0.08, row["test"]
        assert row["share_any_discovery_interval"][0] <= 0.05
        assert row["n_blocks"][0] >= 12


def cross_validated_noise(rho, seed):
    """Noise, and its held-out ridge predictions from 60 and from 10 columns, 5 unequal films."""
    rng = np.random.default_rng([seed, round(100 * rho)])
    lengths = (110, 120, 120, 120, 130)
    runs = np.repeat(np.arange(5), lengths)
    y = np.concatenate([prove_null.autoregressive(rng, n, 100, rho) for n in lengths])
    X = np.concatenate([prove_null.autoregressive(rng, n, 70, 0.7) for n in lengths])
    y = np.concatenate([y[runs == r] - y[runs == r].mean(0) for r in range(5)])
    predictions = []
    for columns in (slice(0, 60), slice(60, 70)):
        prediction = np.empty_like(y)
        for run in range(5):
            train, Z = runs != run, X[:, columns]
            gram = Z[train].T @ Z[train] + 300 * np.eye(Z.shape[1])
            prediction[~train] = Z[~train] @ np.linalg.solve(gram, Z[train].T @ y[train])
        predictions.append(prediction)
    return y, *predictions, runs


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_many_data_sets_of_noise(rho):
    rates, discoveries, uncorrected = [], [], []
    for seed in range(60):
        y, large, small, runs = cross_validated_noise(rho, seed)
        options = {"t_r": 2.0, "runs": runs, "n_permutations": 500, "random_state": seed}
        tests = [
            prediction_significance(y, large, folds=runs, **options),
            prediction_significance(y, small, folds=runs, **options),
            difference_significance(y, large, small, folds=runs, **options),
        ]
        rates.append([np.mean(test.p_values < 0.05) for test in tests])
        discoveries.append([np.any(test.q_values < 0.05) for test in tests])
        # as if the predictions did not come from folds that train each other
        uncorrected.append(
            np.mean(prediction_significance(y, large, folds=0 * runs, **options).p_values < 0.05)
        )
    rates = np.mean(rates, axis=0)
    assert ((0.035 < rates) & (rates < 0.07)).all(), rates
    assert np.mean(discoveries, axis=0).max() <= 0.15
    assert np.mean(uncorrected) > 0.09
