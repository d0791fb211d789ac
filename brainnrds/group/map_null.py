"""Do two maps agree more than any two smooth maps? Nulls that keep the smoothness."""

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError

__all__ = ["map_correlation", "spin_orders", "variogram_surrogates"]

_N_BINS = 25
_SHARES = np.linspace(0.1, 0.9, 9)  # of all places: neighbourhoods that are tried
_NEAR = 25  # percentile of distances up to which variograms are compared
_VALUES_PER_BATCH = 2**20
_MOST_PLACES = 5000  # whose distances are held at once


def map_correlation(first, second, *, orders=None, surrogates=None):
    """Correlate two maps, with a p-value that knows how smooth they are.

    Neighbouring places of a map are alike, so that two maps that have nothing to do with each other
    correlate by far more than as many independent numbers would. The null is made of maps as smooth
    as `first`: spun (:func:`spin_orders`) or matched by variogram (:func:`variogram_surrogates`).

    Parameters
    ----------
    first, second : arrays of shape (n_voxels,)
        NaN does not count, nor what is spun onto it.
    orders : array of int of shape (n_permutations, n_voxels), default=None
        Of :func:`spin_orders`.
    surrogates : array of shape (n_permutations, n_voxels), default=None
        Of `first`. Either these or `orders`.

    Returns
    -------
    test : Bunch
        ``r``, Pearson correlation; ``p_value``, two-sided; ``null`` (n_permutations,).

    Raises
    ------
    InputError
        Both or none of the nulls, other lengths, or fewer than three places with values.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if (orders is None) == (surrogates is None):
        raise InputError("Give `orders` of spins or `surrogates` of the first map, one of both.")
    null = orders if surrogates is None else surrogates
    if first.ndim != 1 or first.shape != second.shape or np.shape(null)[1:] != first.shape:
        raise InputError(
            "`first`, `second` and the null must have one number of places; got "
            f"{first.shape}, {second.shape} and {np.shape(null)}."
        )
    r = _correlation(first[None], second)[0]
    if not np.isfinite(r):
        raise InputError("`first` and `second` must vary in at least three common places.")
    batches = np.array_split(np.asarray(null), -(-np.size(null) // _VALUES_PER_BATCH))
    spread = np.concatenate(
        [_correlation(first[some] if surrogates is None else some, second) for some in batches]
    )
    as_large = np.sum(np.abs(spread) >= np.abs(r) - 1e-12)
    return Bunch(r=float(r), p_value=float((1 + as_large) / (1 + len(spread))), null=spread)


def _correlation(maps, other):
    """Pearson correlation of maps (n, n_voxels) with another, over the places that both have."""
    if np.isfinite(other).all() and np.isfinite(maps).all():
        other = other - other.mean()
        spread = np.linalg.norm(maps - maps.mean(axis=1, keepdims=True), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return maps @ other / (spread * np.linalg.norm(other))
    both = np.isfinite(maps) & np.isfinite(other)
    n = both.sum(axis=1)
    a, b = np.where(both, maps, 0), np.where(both, other, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = np.where(both, a - a.sum(axis=1, keepdims=True) / n[:, None], 0)
        b = np.where(both, b - b.sum(axis=1, keepdims=True) / n[:, None], 0)
        r = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.where(n > 2, r, np.nan)


def spin_orders(left, right=None, *, n_permutations=1000, random_state=None):
    """Turn the spheres of the hemispheres at random: which vertex comes where.

    Both hemispheres turn alike, mirrored at the midline [1]_.

    Parameters
    ----------
    left, right : arrays of shape (n_vertices, 3)
        Vertices on the spheres of the hemispheres, as "sphere" surfaces have them; `right` may be
        None.
    n_permutations : int, default=1000
    random_state : int, RandomState or None, default=None

    Returns
    -------
    orders : array of int of shape (n_permutations, n_vertices)
        ``values[orders[i]]`` is a spun map: every vertex has the value of that which is nearest
        to its place before the turn. Left hemisphere first.

    References
    ----------
    .. [1] Alexander-Bloch AF, et al. (2018). On testing for spatial correspondence between maps of
       human brain structure and function. NeuroImage 178, 540-551.
    """
    spheres = [_check_sphere(side) for side in (left, right) if side is not None]
    trees = [cKDTree(sphere) for sphere in spheres]
    rng = check_random_state(random_state)
    mirror = np.diag([-1.0, 1.0, 1.0])
    orders = []
    for _ in range(n_permutations):
        turn = _rotation(rng)
        parts, start = [], 0
        for sphere, tree, own in zip(spheres, trees, (turn, mirror @ turn @ mirror), strict=False):
            parts.append(start + tree.query(sphere @ own)[1])
            start += len(sphere)
        orders.append(np.concatenate(parts))
    return np.array(orders)


def _check_sphere(coordinates):
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 3:
        raise InputError(f"A sphere must have shape (n_vertices, 3); got {coordinates.shape}.")
    radius = np.linalg.norm(coordinates, axis=1)
    if not radius.max() < 1.01 * radius.min():
        raise InputError(
            "A sphere's vertices must lie at one distance from 0 (inflated or pial surfaces do "
            f"not); got {radius.min():.3g} to {radius.max():.3g}."
        )
    return coordinates / radius[:, None]


def _rotation(rng):
    """A rotation, uniform over all [Stewart 1980, SIAM J Numer Anal 17]."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q


def variogram_surrogates(values, places, *, n_permutations=1000, random_state=None):
    """Make random maps whose variogram is that of a map: for places that lie on no sphere.

    After [1]_ values are shuffled, smoothed over neighbourhoods of several sizes, and mixed with
    white noise so that their variogram is nearest to the map's; the size that comes nearest is
    kept.

    Parameters
    ----------
    values : array of shape (n_places,)
        A map, of parcels or voxels, without NaN.
    places : array of shape (n_places, 3) or (n_places, n_places)
        Coordinates, or distances (geodesic ones, for instance) as a symmetric matrix.
    n_permutations : int, default=1000
    random_state : int, RandomState or None, default=None

    Returns
    -------
    surrogates : array of shape (n_permutations, n_places)

    Raises
    ------
    InputError
        Fewer than 20 or more than 5,000 places, or values that are not finite.

    References
    ----------
    .. [1] Burt JB, Helmer M, Shinn M, Anticevic A, Murray JD (2020). Generative modeling of brain
       maps with spatial autocorrelation. NeuroImage 220, 117038.
    """
    values, places = (np.asarray(array, dtype=np.float64) for array in (values, places))
    n = len(values)
    if values.ndim != 1 or not 20 <= n <= _MOST_PLACES or not np.isfinite(values).all():
        raise InputError(
            f"`values` must be 20 to {_MOST_PLACES} finite numbers; got shape {values.shape}: take "
            "parcels, or some of the voxels."
        )
    if places.shape not in ((n, 3), (n, n)):
        raise InputError(
            f"`places` must be coordinates ({n}, 3) or distances ({n}, {n}); got {places.shape}."
        )
    distances = places if places.shape == (n, n) else cdist(places, places)
    rng = check_random_state(random_state)
    variogram = _make_variogram(distances)
    target = variogram(values)
    kernels = _make_kernels(distances)
    surrogates = np.empty((n_permutations, n))
    for row in surrogates:
        shuffled = rng.permutation(values)
        best = np.inf
        for kernel in kernels:
            smooth = kernel(shuffled)
            design = np.stack([np.ones_like(target), variogram(smooth)], axis=1)
            (white, share), *_ = np.linalg.lstsq(design, target, rcond=None)
            apart = np.sum((design @ [white, share] - target) ** 2)
            if apart < best:
                best, chosen = apart, (smooth, white, share)
        smooth, white, share = chosen
        row[:] = np.sqrt(np.abs(share)) * smooth
        row += np.sqrt(np.abs(white)) * rng.standard_normal(n)
    return surrogates


def _make_variogram(distances):
    """Half of mean squared differences by distance, smoothed by a Gaussian over distance."""
    first, second = np.triu_indices(len(distances), k=1)
    apart = distances[first, second]
    near = apart <= np.percentile(apart, _NEAR)
    first, second, apart = first[near], second[near], apart[near]
    centres = np.linspace(apart.min(), apart.max(), _N_BINS)
    width = 3 * (centres[1] - centres[0])
    weights = np.exp(-((2.68 * (apart - centres[:, None]) / width) ** 2) / 2)
    weights /= weights.sum(axis=1, keepdims=True)

    def variogram(values):
        return weights @ ((values[first] - values[second]) ** 2 / 2)

    return variogram


def _make_kernels(distances):
    """Smoothers over the nearest places, with weights that fall exponentially with distance."""
    n = len(distances)
    nearest = np.argsort(distances, axis=1, kind="stable")
    kernels = []
    for share in _SHARES:
        k = max(2, int(share * n))
        rows = nearest[:, :k]
        apart = np.take_along_axis(distances, rows, axis=1)
        weights = np.exp(-apart / apart[:, -1:])
        weights /= weights.sum(axis=1, keepdims=True)
        kernels.append(lambda values, w=weights, r=rows: np.einsum("ij,ij->i", w, values[r]))
    return kernels
