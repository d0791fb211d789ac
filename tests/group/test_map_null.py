"""Maps that have nothing to do with each other agree too often; the nulls know it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr

from brainnrds._checks import InputError
from brainnrds.group import map_correlation, spin_orders, variogram_surrogates
from brainnrds.group.map_null import _make_variogram

N = 250  # vertices of a hemisphere


def sphere(n=N):
    """Points spread evenly over a sphere (a Fibonacci lattice)."""
    i = np.arange(n) + 0.5
    polar, around = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    return 100 * np.stack(
        [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1
    )


def smooth_maps(rng, points, n_maps, width):
    """Gaussian noise smoothed over the points."""
    weights = np.exp(-((cdist(points, points) / width) ** 2) / 2)
    maps = rng.standard_normal((n_maps, len(points))) @ weights
    return (maps - maps.mean(axis=1, keepdims=True)) / maps.std(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def spun():
    left = sphere()
    right = left * [-1, 1, 1]
    return left, spin_orders(left, right, n_permutations=200, random_state=0)


def test_a_spin_turns_each_hemisphere_and_mirrors_the_other(spun):
    left, orders = spun
    n = len(left)
    assert orders.shape == (200, 2 * n)
    assert (orders[:, :n] < n).all() and (orders[:, n:] >= n).all()
    # the hemispheres are mirror images, and so are their turns
    np.testing.assert_array_equal(orders[:, n:] - n, orders[:, :n])
    for order in orders[:5, :n]:
        # a rotation: nearly all distances stay
        before, after = cdist(left, left), cdist(left[order], left[order])
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98
        assert np.linalg.norm(left[order] - left, axis=1).mean() > 5
    # uniform over rotations: a vertex comes from everywhere
    assert np.abs(left[orders[:, 0]].mean(axis=0)).max() < 20


def rates(pairs, test):
    """Share of p below .05 with the null, and of p that take places to be independent."""
    pairs = list(pairs)
    p = np.array([test(*pair) for pair in pairs])
    naive = np.array([pearsonr(*pair)[1] for pair in pairs])
    return np.mean(p < 0.05), np.mean(naive < 0.05)


def test_spins_hold_the_level_where_the_naive_test_does_not(spun):
    left, orders = spun
    rng = np.random.default_rng(1)
    n_pairs = 400
    first, second = (
        np.hstack([smooth_maps(rng, left, n_pairs, 30) for _ in range(2)]) for _ in range(2)
    )
    found, naive = rates(
        zip(first, second, strict=True),
        lambda a, b: map_correlation(a, b, orders=orders).p_value,
    )
    assert 0.025 < found < 0.075 and naive > 0.4


def test_variograms_hold_the_level_better_than_the_naive_test():
    points = np.random.default_rng(0).uniform(size=(120, 3)) * 100
    rng = np.random.default_rng(2)
    first, second = (smooth_maps(rng, points, 40, 20) for _ in range(2))

    def test(a, b):
        null = variogram_surrogates(a, points, n_permutations=39, random_state=0)
        return map_correlation(a, b, surrogates=null).p_value

    found, naive = rates(zip(first, second, strict=True), test)
    assert found < 0.15 and naive > 0.3


def test_surrogates_have_the_variogram_of_the_map():
    points = np.random.default_rng(0).uniform(size=(300, 3)) * 100
    distances = cdist(points, points)
    [values] = smooth_maps(np.random.default_rng(3), points, 1, 20)
    null = variogram_surrogates(values, points, n_permutations=40, random_state=0)
    same = variogram_surrogates(values, distances, n_permutations=40, random_state=0)
    np.testing.assert_allclose(null, same)
    variogram = _make_variogram(distances)
    target, found = variogram(values), np.mean([variogram(row) for row in null], axis=0)
    shuffled = variogram(np.random.default_rng(0).permutation(values))
    assert np.abs(found - target).max() < 0.25 * np.abs(shuffled - target).max()


def test_what_two_maps_share_is_found(spun):
    left, orders = spun
    rng = np.random.default_rng(4)
    first, noise = (np.hstack([smooth_maps(rng, left, 1, 15)[0] for _ in "lr"]) for _ in "ab")
    second = first + noise
    test = map_correlation(first, second, orders=orders)
    assert test.p_value < 0.01 and test.r == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert test.null.shape == (200,)
    # places without a value do not count, wherever they are spun
    second[:40] = np.nan
    assert map_correlation(first, second, orders=orders).r == pytest.approx(
        np.corrcoef(first[40:], second[40:])[0, 1]
    )


def test_what_is_no_sphere_or_no_map_is_refused(spun):
    left, orders = spun
    with pytest.raises(InputError, match="inflated or pial"):
        spin_orders(left * [1, 1, 0.5])
    with pytest.raises(InputError, match=r"shape \(n_vertices, 3\)"):
        spin_orders(left[:, :2])
    values = np.arange(2.0 * N)
    with pytest.raises(InputError, match="one of both"):
        map_correlation(values, values)
    with pytest.raises(InputError, match="one number of places"):
        map_correlation(values[1:], values[1:], orders=orders)
    with pytest.raises(InputError, match="must vary"):
        map_correlation(values, values * 0, orders=orders)
    with pytest.raises(InputError, match="20 to 5000 finite numbers"):
        variogram_surrogates(values[:5], left[:5])
    with pytest.raises(InputError, match="coordinates"):
        variogram_surrogates(values[:30], left)
