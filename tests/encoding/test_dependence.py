"""Dependence in time and between folds, against closed forms."""

import numpy as np
import pytest

from brainnrds.encoding.dependence import (
    border_inflation,
    dependence_inflation,
    integrated_autocorrelation_time,
    null_inflation,
    shared_training_inflation,
    voxel_inflation,
)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_ar1(rho):
    # 1 + 2 sum rho^k = (1 + rho) / (1 - rho)
    rng = np.random.default_rng(0)
    series = np.zeros((4000, 50))
    series[0] = rng.standard_normal(50)
    for t in range(1, len(series)):
        series[t] = rho * series[t - 1] + np.sqrt(1 - rho**2) * rng.standard_normal(50)
    time = integrated_autocorrelation_time(series)
    assert time == pytest.approx((1 + rho) / (1 - rho), rel=0.1)
    assert integrated_autocorrelation_time(np.zeros((10, 2))) == 1


def test_two_blocks_say_how_far_flipped_signs_are_from_dependent_blocks():
    # each film is centred, and slower than its blocks: the two halves cancel
    rng = np.random.default_rng(0)
    y, q = (np.repeat(rng.standard_normal((200, 2, 50)), 10, axis=1) for _ in range(2))
    y, q = (series - series.mean(1, keepdims=True) for series in (y, q))
    rows = [np.arange(20 * film, 20 * film + 20).reshape(2, 10) for film in range(200)]
    y, q = (series.reshape(-1, 50) for series in (y, q))
    # both halves have the same product: twice the variance of random signs
    assert dependence_inflation(y, q, flipped=rows) == pytest.approx(2, rel=0.05)
    assert dependence_inflation(y, q, permuted=rows) == 1


def test_inflation_of_equal_unequal_and_single_folds():
    assert null_inflation(np.zeros(10, int)) == 1
    for n_folds in (2, 3, 10):
        assert null_inflation(np.repeat(np.arange(n_folds), 12)) == pytest.approx(2)
    unequal = null_inflation(np.repeat([0, 1, -1], [30, 10, 99]))
    # two folds of 30 and 10: each is all of the other's training set
    assert unequal == pytest.approx(1 + 2 * 30 * 10 / np.sqrt(10 * 30) / 40)


@pytest.mark.parametrize("sizes", [(60, 60, 60, 60), (120, 40, 40, 40)])
def test_inflation_is_the_variance_of_cross_validated_chance_scores(sizes):
    # ridge with a large penalty predicts fold f by X_f X_train' y_train: closed form, many noises
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(len(sizes)), sizes)
    ratios = []
    for _ in range(20):
        X = rng.standard_normal((len(folds), 40))
        y = rng.standard_normal((len(folds), 200))
        total, conditional = 0.0, 0.0
        for fold in range(len(sizes)):
            rows = folds == fold
            prediction = X[rows] @ (X[~rows].T @ y[~rows])
            prediction /= np.sqrt(np.mean(prediction**2, axis=0))
            total = total + np.sum(y[rows] * prediction, axis=0)
            conditional += rows.sum()
        ratios.append(np.mean(total**2) / conditional)
    assert np.mean(ratios) == pytest.approx(null_inflation(folds), abs=0.12)


@pytest.mark.parametrize("permuted", [True, False])
def test_dependence_between_blocks_is_measured(permuted):
    # known weights: the variance of the sum of y q over y of known autocovariance, in closed form
    rng = np.random.default_rng(0)
    length, n_blocks, rho = 10, 12, 0.8
    n_samples = length * n_blocks
    time = np.arange(n_samples)
    covariance = rho ** np.abs(time[:, None] - time)
    centring = np.eye(n_samples) - 1 / n_samples
    covariance = centring @ covariance @ centring
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(n_samples))
    y = np.stack([root @ rng.standard_normal((n_samples, 400)) for _ in range(10)])
    q = np.stack([root @ rng.standard_normal((n_samples, 400)) for _ in range(10)])
    rows = [np.arange(n_samples).reshape(n_blocks, length)]
    found = np.mean(
        [
            dependence_inflation(*pair, **{"permuted" if permuted else "flipped": rows})
            for pair in zip(y, q, strict=True)
        ]
    )
    total = np.sum(covariance**2)
    blocks = covariance.reshape(n_blocks, length, n_blocks, length)
    products = np.einsum("aibj,aibj->ab", blocks, blocks)
    if permuted:
        # E[C_ab C_cd] = sum over i, j of S_q[ai, cj] S_y[bi, dj]
        full = np.einsum("aicj,bidj->abcd", blocks, blocks).reshape(n_blocks**2, -1)
        centre = np.eye(n_blocks) - 1 / n_blocks
        twice = np.kron(centre, centre)
        rearranged = np.trace(twice @ full) / (n_blocks - 1)
        expected = total / rearranged
    else:
        expected = total / np.trace(products)
    assert expected > 1.05
    # the circle breaks one border of twelve, and the standard error is subtracted
    assert 1 + 0.6 * (expected - 1) < found < 1 + 1.15 * (expected - 1)


def test_blocks_that_are_independent_are_not_widened():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        y, q = rng.standard_normal((2, 200, 100))
        rows = [np.arange(200).reshape(10, 20)]
        found.append(dependence_inflation(y, q, flipped=rows))
    assert np.mean(found) < 1.02


@pytest.mark.parametrize(("rho", "length"), [(0.0, 10), (0.4, 20), (0.8, 20)])
def test_border_inflation_is_that_of_a_decaying_correlation(rho, length):
    lags = np.abs(np.subtract.outer(np.arange(20 * length), np.arange(20 * length)))
    covariance = rho**lags
    in_blocks = sum(
        covariance[start : start + length, start : start + length].sum()
        for start in range(0, 20 * length, length)
    )
    expected = covariance.sum() / in_blocks  # 20 blocks: all but one in twenty borders
    found = border_inflation((1 + rho) / (1 - rho), length)
    assert found - 1 == pytest.approx((expected - 1) * 20 / 19, abs=0.02)


def test_slow_voxels_are_told_from_fast_ones():
    rng = np.random.default_rng(0)
    runs, length = np.repeat(np.arange(8), 300), 20
    rho = np.repeat([0.3, 0.9], 50)
    noise = rng.standard_normal((2, len(runs), 100))
    for t in range(1, len(runs)):
        noise[0, t] = rho * noise[0, t - 1] + np.sqrt(1 - rho**2) * noise[0, t]
        noise[1, t] = 0.9 * noise[1, t - 1] + np.sqrt(0.19) * noise[1, t]
    found = voxel_inflation(*noise, runs=runs, block_length=length)
    # the product of two such series decays with the product of their correlations
    expected = border_inflation((1 + 0.9 * rho) / (1 - 0.9 * rho), length)
    np.testing.assert_allclose(found.reshape(2, 50).mean(1), expected[[0, -1]], rtol=0.05)
    assert found[:50].max() < found[50:].min()


def chance_matches(penalties, seed, n_voxels=300, sizes=(60, 60, 60, 60), signal=0.0):
    """Responses, held-out ridge predictions with a penalty for each fold and voxel, and folds."""
    rng = np.random.default_rng(seed)
    folds = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.standard_normal((len(folds), 40)) * np.geomspace(1, 0.05, 40)
    weights = rng.standard_normal((40, 1)) * signal
    y = rng.standard_normal((len(folds), n_voxels)) + X @ weights
    predictions = np.empty_like(y)
    for fold in range(len(sizes)):
        test = folds == fold
        values, vectors = np.linalg.eigh(X[~test].T @ X[~test])
        into = vectors.T @ X[~test].T @ y[~test]
        shrunk = into / (values[:, None] + penalties(rng, n_voxels))
        predictions[test] = X[test] @ vectors @ shrunk
        predictions[test] /= predictions[test].std(0)
    return y, predictions, folds


def one_penalty(rng, n_voxels):
    return np.full(n_voxels, 10.0)


def any_penalty(rng, n_voxels):
    return 10.0 ** rng.choice([-2, 5], n_voxels)


@pytest.mark.parametrize(("penalties", "most"), [(one_penalty, 2.01), (any_penalty, 1.8)])
def test_shared_training_is_seen_between_voxels(penalties, most):
    """The variance of the sum over folds, with which the sums of folds do not agree alone."""
    sums, alone, found = 0.0, 0.0, []
    for seed in range(30):
        y, predictions, folds = chance_matches(penalties, seed)
        by_fold = np.stack([(y * predictions)[folds == f].sum(0) for f in range(4)])
        sums += np.mean(by_fold.sum(0) ** 2)
        alone += np.mean((by_fold**2).sum(0))
        found.append(shared_training_inflation(y, predictions, folds))
    assert sums / alone < most
    # between the truth and the bound: on the safe side, and nearer than the bound
    assert sums / alone - 0.1 < np.mean(found) < 0.5 * (sums / alone + 2) + 0.05


def test_voxels_that_respond_do_not_hide_that_folds_disagree():
    y, predictions, folds = chance_matches(any_penalty, 0)
    alone = shared_training_inflation(y, predictions, folds)
    blocks = np.arange(len(folds)) // 5
    assert shared_training_inflation(y, predictions, folds, blocks=blocks) == pytest.approx(
        alone, abs=0.03
    )
    heard, of_heard, _ = chance_matches(any_penalty, 0, signal=2.0, n_voxels=60)
    y, predictions = np.hstack([y, heard]), np.hstack([predictions, of_heard])
    assert shared_training_inflation(y, predictions, folds) == pytest.approx(2)
    assert shared_training_inflation(y, predictions, folds, blocks=blocks) == pytest.approx(
        alone, abs=0.03
    )


def test_without_evidence_the_bound_stands():
    y, predictions, folds = chance_matches(any_penalty, 0)
    bound = pytest.approx(2)
    assert shared_training_inflation(y[:, :63], predictions[:, :63], folds) == bound
    assert shared_training_inflation(y, 0 * predictions, folds) == bound
    assert shared_training_inflation(y, predictions, 0 * folds) == 1
    # what all voxels follow is no sign of folds that disagree
    y, predictions, folds = chance_matches(any_penalty, 0, signal=0.5)
    assert shared_training_inflation(y, predictions, folds) == bound
