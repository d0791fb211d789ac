"""Areas of a Venn diagram against planted shares of independent sources."""

from itertools import combinations

import numpy as np
import pytest

from brainnrds.encoding import (
    VideoEncodingModel,
    held_out_predictions,
    partition_variance,
    r2_score,
    unique_variance,
)
from brainnrds.io import InputError


def subsets(names):
    return [s for size in range(1, len(names) + 1) for s in combinations(names, size)]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_areas_are_the_planted_shares(names):
    """A source for each area: a model predicts the sources that one of its spaces can see."""
    rng = np.random.default_rng(0)
    areas = subsets(names)
    sources = np.linalg.qr(rng.normal(size=(400, len(areas) + 1)))[0]
    sources -= sources.mean(0)
    sources = np.linalg.qr(sources)[0]  # uncorrelated, of the same size
    shares = rng.dirichlet(np.ones(len(areas) + 1), size=20)  # the last is noise
    y = sources @ np.sqrt(shares).T
    held_out = {}
    for model in areas:
        seen = [bool(set(area) & set(model)) for area in areas]
        held_out[model] = sources[:, :-1][:, seen] @ np.sqrt(shares[:, :-1][:, seen]).T
    found = partition_variance(y, held_out)
    for i, area in enumerate(areas):
        np.testing.assert_allclose(found[area], shares[:, i], atol=1e-10)
    joint = r2_score(y, held_out[names])
    np.testing.assert_allclose(sum(found.values()), joint, atol=1e-10)
    unique = unique_variance(y, held_out[names], held_out[names[1:]])
    np.testing.assert_allclose(found[names[:1]], unique, atol=1e-12)


def test_control_spaces_are_taken_off():
    """What a control explains is in no area, wherever it stands."""
    rng = np.random.default_rng(1)
    sources = np.linalg.qr(rng.normal(size=(300, 4)))[0]
    sources = np.linalg.qr(sources - sources.mean(0))[0]
    y = sources @ np.sqrt([[0.3, 0.2, 0.4, 0.1]]).T
    parts = sources * np.sqrt([0.3, 0.2, 0.4, 0.1])
    a, b, control = parts[:, :1], parts[:, 1:2], parts[:, 2:3]
    models = {("a",): a + control, ("b",): b + control, ("b", "a"): a + b + control}
    beyond = partition_variance(y, {**models, (): control})
    assert beyond["a",][0] == pytest.approx(0.3) and beyond["b",][0] == pytest.approx(0.2)
    assert beyond["b", "a"][0] == pytest.approx(0, abs=1e-10)
    assert partition_variance(y, models)["b", "a"][0] == pytest.approx(0.4)


def test_fitted_models_find_what_spaces_share():
    rng = np.random.default_rng(2)
    runs = np.repeat(np.arange(6), 100)
    common, own, other = rng.normal(size=(3, 600, 4))
    X = np.hstack([common, own, common + 0.01 * rng.normal(size=common.shape), other])
    spaces = {"a": slice(0, 8), "b": slice(8, 16)}
    weights = rng.normal(size=(3, 4, 30)) * np.array([[1.0, 2.0, 0.0]]).T[:, :, None]
    y = sum(part @ w for part, w in zip((common, own, other), weights, strict=True))
    y = np.roll(y, 1, axis=0) / y.std(0) + 0.5 * rng.normal(size=y.shape)
    held_out, folds = {}, None
    for used in subsets(tuple(spaces)):
        columns = {name: spaces[name] for name in used}
        start = min(s.start for s in columns.values())
        stop = max(s.stop for s in columns.values())
        shifted = {n: slice(s.start - start, s.stop - start) for n, s in columns.items()}
        model = VideoEncodingModel(shifted, delays=(1,), n_iter=5)
        result = held_out_predictions(model, X[:, start:stop], y, runs=runs, n_folds=3)
        held_out[used], folds = result.predictions, result.folds
    areas = partition_variance(y, held_out, runs=runs, folds=folds)
    shared, only_a, only_b = (np.mean(areas[k]) for k in (("a", "b"), ("a",), ("b",)))
    assert shared == pytest.approx(0.8 / 5, abs=0.05) and only_a == pytest.approx(0.64, abs=0.06)
    assert abs(only_b) < 0.02


def test_missing_models_and_too_many_spaces_are_refused():
    y = np.random.default_rng(0).normal(size=(20, 2))
    for models, match in (
        ([("a",), ("a", "b")], "every subset of"),
        ([("a",), ("b",), ("a", "b"), ("c",)], "and no other"),
        ([("a",)], "two or three spaces; got"),
        (subsets(("a", "b", "c", "d")), "two or three spaces"),
        ([], "two or three spaces"),
    ):
        with pytest.raises(InputError, match=match):
            partition_variance(y, dict.fromkeys(models, y))
