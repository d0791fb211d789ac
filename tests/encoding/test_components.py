"""Components of weights: those that were planted, found again in other films and other people."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from brainnrds._checks import InputError
from brainnrds.encoding import VideoEncodingModel, weight_components

N_FEATURES, N_VOXELS, N_SAMPLES = 10, 300, 400


def planted_components(rng):
    """Three orthogonal directions with one-sided loadings, so that their signs are plain."""
    drawn = rng.exponential(size=(N_FEATURES, 3)) ** 2 * (rng.random((N_FEATURES, 3)) < 0.6)
    return np.linalg.qr(drawn)[0].T


def responses(rng, components, *, noise=1.0):
    """Films and responses of voxels whose weights differ along the components: 5 to 3 to 2."""
    X = rng.standard_normal((N_SAMPLES, N_FEATURES)).astype(np.float32)
    amounts = np.array([[5.0], [3.0], [2.0]]) ** 0.5 * rng.standard_normal((3, N_VOXELS))
    y = np.roll(X, 1, axis=0) @ (components.T @ amounts)
    y += noise * y.std() * rng.standard_normal(y.shape)
    return X, y.astype(np.float32), amounts


def fitted(X, y):
    return VideoEncodingModel(delays=(1, 2), alphas=(1, 10, 100), cv=2).fit(
        X, y, runs=np.repeat([0, 1], len(X) // 2)
    )


def alike(a, b):
    """Cosines of components, signs and order included."""
    return np.sum(a * b, axis=1)


def test_components_are_those_of_a_plain_analysis():
    rng = np.random.default_rng(0)
    X, y, _ = responses(rng, planted_components(rng))
    model = fitted(X, y)
    voxels = rng.random(N_VOXELS) < 0.8
    found = weight_components(model, voxels=voxels)
    weights = model.weights().sum(0)[:, voxels]
    weights /= np.linalg.norm(weights, axis=0)
    plain = PCA(3).fit(weights.T)
    np.testing.assert_allclose(np.abs(alike(found.components, plain.components_)), 1, atol=1e-5)
    np.testing.assert_allclose(found.explained, plain.explained_variance_ratio_, rtol=1e-4)
    signs = alike(found.components, plain.components_)[:, None]
    np.testing.assert_allclose(
        found.scores[:, voxels], signs * plain.transform(weights.T).T, atol=1e-5
    )
    assert np.isnan(found.scores[:, ~voxels]).all()
    assert (np.sum(found.components**3, axis=1) > 0).all()


def test_components_of_half_of_the_films_are_found_in_the_other_half():
    """With their order and sign; and not where noise takes the place of the responses."""
    rng = np.random.default_rng(1)
    planted = planted_components(rng)
    X, y, amounts = responses(rng, planted)
    half = N_SAMPLES // 2
    first, second = (
        weight_components(fitted(X[h], y[h])) for h in (slice(half), slice(half, None))
    )
    assert alike(first.components, second.components).min() > 0.9
    assert np.abs(alike(first.components, planted)).min() > 0.85
    for a, b in zip(first.scores, second.scores, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.7
    noise = rng.standard_normal(y.shape).astype(np.float32)
    nothing = weight_components(fitted(X[half:], noise[half:]))
    assert np.abs(alike(first.components, nothing.components)).mean() < 0.6
    assert nothing.explained[0] < 0.3 < first.explained[0]
    for a, b in zip(first.scores, nothing.scores, strict=True):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.25


def test_people_count_alike_and_share_their_components():
    rng = np.random.default_rng(2)
    planted = planted_components(rng)
    people = [fitted(*responses(rng, planted)[:2]) for _ in range(2)]
    own = [weight_components(person) for person in people]
    common = weight_components(people)
    assert len(common.scores) == 2
    for one in own:
        assert alike(one.components, common.components).min() > 0.8
    twice = weight_components([people[0], people[0]])
    np.testing.assert_allclose(twice.components, own[0].components, atol=1e-8)
    np.testing.assert_allclose(twice.scores[1], own[0].scores, atol=1e-8)


def test_what_has_no_components_is_refused():
    rng = np.random.default_rng(3)
    X, y, _ = responses(rng, planted_components(rng))
    model = fitted(X, y)
    with pytest.raises(InputError, match="bool of shape"):
        weight_components(model, voxels=np.arange(3))
    with pytest.raises(InputError, match="more voxels with weights; got .* 3 voxels"):
        weight_components(model, voxels=np.arange(N_VOXELS) < 3)
    with pytest.raises(InputError, match="same features"):
        weight_components([model, fitted(X[:, :6], y)])
