"""The preferred layer: planted, unknown to the tested films, and nothing where there is nothing."""

import numpy as np
import pytest
from scipy.stats import binom

from brainnrds._checks import InputError
from brainnrds.encoding import (
    VideoEncodingModel,
    correlation_score,
    held_out_predictions,
    prediction_significance,
    preferred_space,
)

N_LAYERS, N_COLUMNS, N_VOXELS = 3, 12, 40
RUNS = np.repeat(np.arange(8), 90)
GROUPS = np.repeat(np.arange(N_LAYERS + 1), [N_VOXELS] * N_LAYERS + [5 * N_VOXELS])


def layers_of_a_network(rng):
    """Each layer is the one before, mixed, and something of its own; columns of unit variance."""
    layer, layers = 0.0, []
    for _ in range(N_LAYERS):
        mixing = rng.standard_normal((N_COLUMNS, N_COLUMNS)) / np.sqrt(N_COLUMNS)
        layer = 0.6 * layer @ mixing if layers else 0.0
        layer = layer + 0.8 * rng.standard_normal((len(RUNS), N_COLUMNS))
        layer /= layer.std(0)
        layers.append(layer)
    return layers


def planted(seed, strength=0.6):
    """Layers, and responses of voxels each of which hears one layer; the last hear nothing."""
    rng = np.random.default_rng(seed)
    layers = layers_of_a_network(rng)
    y = rng.standard_normal((len(RUNS), len(GROUPS)))
    for k, layer in enumerate(layers):
        mine = GROUPS == k
        late = np.roll(layer, 1, axis=0)
        y[:, mine] += strength * late @ rng.standard_normal((N_COLUMNS, mine.sum())) / 2
    return layers, y


def held_out_of(layers, y):
    model = VideoEncodingModel(delays=(1,), alphas=(1, 10, 100, 1000), cv=4)
    how = {"runs": RUNS, "n_folds": 4, "training_scores": True}
    return [held_out_predictions(model, X.astype("f4"), y.astype("f4"), **how) for X in layers]


@pytest.fixture(scope="module")
def data():
    layers, y = planted(0)
    held_out = held_out_of(layers, y)
    return layers, y, held_out, preferred_space(held_out)


def test_voxels_prefer_the_layer_that_they_were_planted_on(data):
    _, y, held_out, found = data
    for k in range(N_LAYERS):
        assert np.mean(found.preferred[GROUPS == k] == k) > 0.95
        assert found.agreement[GROUPS == k].mean() > 0.95
    score = correlation_score(y, found.predictions, runs=RUNS, folds=found.folds)
    alone = [correlation_score(y, h.predictions, runs=RUNS, folds=h.folds) for h in held_out]
    right = np.choose(np.minimum(GROUPS, N_LAYERS - 1), alone)
    heard = GROUPS < N_LAYERS
    np.testing.assert_allclose(score[heard].mean(), right[heard].mean(), atol=0.01)


def test_voxels_that_hear_nothing_prefer_no_layer_beyond_chance(data):
    """Shares within what a coin of three sides gives; and no gain in the tested films."""
    _, y, _, found = data
    nothing = GROUPS == N_LAYERS
    counts = np.bincount(found.preferred[nothing].astype(int), minlength=N_LAYERS)
    low, high = binom.interval(0.998, nothing.sum(), 1 / N_LAYERS)
    assert (counts >= low).all() and (counts <= high).all()
    test = prediction_significance(
        y, found.predictions, t_r=2.0, runs=RUNS, folds=found.folds, n_permutations=500
    )
    assert (test.p_values[nothing] < 0.05).mean() < 0.1
    assert (test.q_values[GROUPS < N_LAYERS] < 0.05).mean() > 0.95
    # the layer that is best in the tested films themselves would be chosen by chance
    assert abs(test.score[nothing].mean()) < 0.02


def test_tested_films_do_not_choose(data):
    """Noise in place of the tested responses of one fold leaves that fold's choice as it was."""
    layers, y, _, found = data
    other = y.copy()
    tested = found.folds == 0
    other[tested] = np.random.default_rng(1).standard_normal(other[tested].shape)
    again = preferred_space(held_out_of(layers, other))
    np.testing.assert_array_equal(again.in_fold[0], found.in_fold[0])
    assert (again.in_fold[1] != found.in_fold[1]).any()


def test_noise_in_place_of_a_layer_leaves_its_voxels_without_it(data):
    layers, y, _, found = data
    noise = np.random.default_rng(2).standard_normal(layers[1].shape)
    again = preferred_space(held_out_of([layers[0], noise, layers[2]], y))
    mine = GROUPS == 1
    assert (found.preferred[mine] == 1).mean() > 0.95 > 0.2 > (again.preferred[mine] == 1).mean()
    others = (GROUPS == 0) | (GROUPS == 2)
    assert (again.preferred == found.preferred)[others].mean() > 0.95


def test_voxels_without_variance_and_other_folds(data):
    layers, y, held_out, _ = data
    constant = np.zeros_like(y[:, :2])
    assert np.isnan(preferred_space(held_out_of(layers, constant)).preferred).all()
    other = type(held_out[1])(**{**held_out[1], "folds": held_out[1].folds[::-1]})
    with pytest.raises(InputError, match="same folds"):
        preferred_space([held_out[0], other])
