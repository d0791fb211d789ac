"""Short version of tests/prove/prove_null.py, and its check that the check can fail."""

import numpy as np
import prove_coverage
import prove_null
import prove_trials
import pytest

from brainnrds.encoding import difference_significance, prediction_significance


@pytest.mark.parametrize(
    "name",
    [
        "long films, noise .3",
        "long films, noise .9",
        "short films, noise .6",
        "clips with rest",
        "2 presentations",
        "one film in parts",
        "overlapping parts",
    ],
)
def test_whole_analysis_of_pure_noise(name):
    results = [prove_null.analyse(name, seed, n_permutations=1000) for seed in range(900, 903)]
    for row in prove_null.summarise(results):
        # one model under several folds is tested too conservatively
        assert 0.02 < row["rate_below_05"] < 0.08, row["test"]
        # where folds do not weigh alike, unique variance is tested too conservatively: .7
        assert 0.8 < row["mean_z_variance"] < 1.35, row["test"]
        assert row["share_any_discovery_interval"][0] <= 0.05
        assert row["n_blocks"][0] >= 12


@pytest.mark.parametrize("name", ["shown in every run, lss", "in one order, lss"])
def test_trials_of_pure_noise(name):
    results = [prove_trials.analyse(name, seed, n_permutations=500) for seed in range(900, 903)]
    for row in prove_null.summarise(results, prove_trials.DESIGNS):
        assert 0.01 < row["rate_below_05"] < 0.085, row["test"]
        assert row["share_any_discovery_interval"][0] <= 0.05


def test_neighbours_of_a_tested_trial_in_training_are_seen(monkeypatch):
    """Where clips come in one order, to hold out single clips is no test."""
    units = prove_trials.trial_units

    def each_clip(runs, films, **options):
        _, kept, _ = units(runs, films, **options)
        return np.arange(films.max() + 1), np.ones_like(kept), "clips"

    monkeypatch.setattr(prove_trials, "trial_units", each_clip)
    result = prove_trials.analyse("in one order, lss", 900, n_permutations=500)
    assert result["video"]["below_05"] > 0.2 * result["n_voxels"]


def test_coverage_of_pure_noise():
    results = [prove_coverage.analyse(5, 0.0, seed) for seed in range(900, 910)]
    score, low, high = np.array([result["voxel"] for result in results]).transpose(2, 0, 1)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.85 < covered < 1
    # without what folds tell each other, intervals are too narrow
    narrow = np.sqrt(2)
    low, high = (score + (end - score) / narrow for end in (low, high))
    assert ((low <= 0) & (high >= 0)).mean() < covered - 0.05


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
