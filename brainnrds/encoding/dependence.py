"""By how much dependence, in time and between folds, widens the null distribution of a score."""

import numpy as np
from scipy import fft

from brainnrds._checks import check_labels
from brainnrds.blocks import block_sums
from brainnrds.encoding._arrays import like, namespace, rows_of

__all__ = [
    "border_inflation",
    "dependence_inflation",
    "films_with_signs",
    "integrated_autocorrelation_time",
    "null_inflation",
    "shared_training_inflation",
    "voxel_inflation",
]

# with fewer there are too few pairs
_FEWEST_PAIRED_VOXELS = 64
# of two blocks, half of all orders are the measured one: with a random sign they tell more
FEWEST_ORDERED_BLOCKS = 3


def integrated_autocorrelation_time(series, *, runs=None):
    """Estimate how many volumes count as one independent observation.

    The sum of the autocorrelation over all lags, :math:`1 + 2 \\sum_k \\rho_k`, cut at the first
    lag that exceeds 5 times the sum so far [1]_. Autocorrelations are averaged over voxels,
    weighted by variance. The mean over all runs is removed, not each run's own, which would hide
    part of the dependence in short runs.

    Parameters
    ----------
    series : array of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,), default=None
        Products of lagged samples never cross a run border.

    Returns
    -------
    time : float
        In volumes, at least 1.

    References
    ----------
    .. [1] Sokal A (1997). Monte Carlo methods in statistical mechanics. In: Functional
       Integration, NATO ASI Series 361, 131-192.
    """
    series = np.asarray(series, dtype=np.float64)
    products = _lagged_products(series - series.mean(0), check_labels(runs, len(series)))
    return float(_sum_to_cut(products.sum(1, keepdims=True))[0])


def _lagged_products(series, runs):
    """Mean product of samples 0, 1, 2, ... volumes apart, within runs: (n_lags, n_voxels)."""
    of = fft if namespace(series) is np else namespace(series).fft
    parts = [series[rows_of(runs == run, series)] for run in np.unique(runs)]
    longest = max(len(part) for part in parts)
    n_lags = max(1, longest // 2)
    products = like(np.zeros((n_lags, series.shape[1])), series)
    counts = np.zeros((n_lags, 1))
    length = fft.next_fast_len(2 * longest, real=True)
    for part in parts:
        spectrum = of.rfft(part, length, 0)
        products += of.irfft(abs(spectrum) ** 2, length, 0)[:n_lags]
        counts[:, 0] += np.maximum(len(part) - np.arange(n_lags), 0)
    return products / like(np.maximum(counts, 1), series)


def _sum_to_cut(products):
    """Integrated autocorrelation time of each column, from lagged products."""
    xp, (n_lags, n_columns) = namespace(products), products.shape
    size = xp.where(products[0] > 0, products[0], np.inf)
    times = 1 + 2 * (products[1:] / size).cumsum(0)
    times = xp.concatenate([xp.ones_like(products[:1]), times])
    beyond = like(np.arange(n_lags)[:, None], products) > 5 * xp.roll(times, 1, 0)
    beyond[0] = False
    last = xp.where(beyond.any(0), (1 * beyond).argmax(0) - 1, n_lags - 1)
    return times[last, like(np.arange(n_columns), products)].clip(min=1.0)


def null_inflation(folds):
    """Return by how much folds that train each other widen the null distribution.

    For predictions scaled to unit variance within folds, fold f of size :math:`n_f` of n samples
    has a chance sum of variance proportional to :math:`n_f`, of which the share
    :math:`n_g / (n - n_f)` comes from training on fold g; the same products come back in fold g,
    trained on f. The sum over folds has the variance of independent folds times

    .. math:: 1 + \\frac{1}{n} \\sum_{f \\neq g} \\frac{n_f n_g}{\\sqrt{(n - n_f) (n - n_g)}}

    which is 2 for folds of equal size, whatever their number, and 1 for a single fold.

    Parameters
    ----------
    folds : array of int of shape (n_samples,)
        Fold of each sample; -1 are not counted. Each fold is taken to be predicted from a model
        trained on all others.

    Returns
    -------
    inflation : float
        Factor of the variance, between 1 and 2.

    Notes
    -----
    The two products are equal if both models weight the features alike, that is for equal ridge
    penalties; with different ones the factor is an upper bound.
    """
    folds = np.asarray(folds)
    sizes = np.unique(folds[folds >= 0], return_counts=True)[1].astype(np.float64)
    if len(sizes) < 2:
        return 1.0
    n = sizes.sum()
    weights = sizes / np.sqrt(n - sizes)
    return float(1 + (weights.sum() ** 2 - np.sum(weights**2)) / n)


def shared_training_inflation(y, contrast, folds, *, blocks=None):
    """Return by how much folds that train each other widen the null distribution, as data show it.

    :func:`null_inflation` takes every fold to weight the features alike. Models that choose among
    many penalties and mixtures do not, and then less comes back. How much does is seen between
    voxels: if fold f is predicted by :math:`H_{fg} y_g` from fold g, the match of voxel v with
    what was predicted for w in fold f, and that of w with what was predicted for v in fold g, hold
    the same product of :math:`y_f` of v and :math:`y_g` of w, in which no voxel meets its own
    response. Two voxels differ in their penalties more than two folds of one voxel do, so that
    this is a lower estimate; what is returned is the geometric mean of it and of the upper bound.
    Voxels that respond would say what they have in common, and not how folds agree by chance.

    Parameters
    ----------
    y, contrast : arrays of shape (n_samples, n_voxels)
        As in :func:`dependence_inflation`.
    folds : array of int of shape (n_samples,)
        Fold of each sample.
    blocks : array of int of shape (n_samples,), default=None
        Independent stretches of time, -1 for samples in none. With them, voxels whose match is
        beyond what chance gives are left out.

    Returns
    -------
    inflation : float
        Factor of the variance. The upper bound itself where fewer than 64 voxels are too few to
        tell, and where what voxels have in common leaves no room below it.
    """
    bound = null_inflation(folds)
    if blocks is not None:
        silent = ~_matched(y, contrast, blocks, bound)
        y, contrast = y[:, silent], contrast[:, silent]
    if bound == 1 or y.shape[1] < _FEWEST_PAIRED_VOXELS:
        return bound
    total, in_fold, own = 0.0, 0.0, 0.0
    for fold in np.unique(folds[folds >= 0]):
        rows = folds == fold
        matches = y[rows].T @ contrast[rows]
        np.fill_diagonal(matches, 0)
        total = total + matches
        in_fold += np.sum(matches * matches.T)
        own += np.sum(matches**2)
    if own == 0:
        return bound
    shown = 1 + (np.sum(total * total.T) - in_fold) / own
    return float(np.sqrt(bound * np.clip(shown, 1, bound)))


def _matched(y, contrast, blocks, inflation):
    """Voxels whose sum over blocks is over twice its standard error, widened by an inflation."""
    sums = block_sums(y * contrast, blocks, int(blocks.max()) + 1)
    return sums.sum(0) ** 2 > 4 * inflation * np.sum(sums**2, axis=0)


def dependence_inflation(y, contrast, *, permuted=(), flipped=()):
    """Return by how much dependence between blocks widens the null distribution.

    Rearranging blocks breaks the dependence across their borders, and flipping signs also that
    which comes from removing the mean of each run. How much variance is lost is seen where there
    is no effect: with the response moved against the prediction by 1, 2, ... whole blocks, in a
    circle within each group. The sum over such a group keeps its neighbours.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        Responses, centred within runs.
    contrast : array of shape (n_samples, n_voxels)
        Prediction, or difference of two, on the common scale.
    permuted, flipped : lists of arrays of int of shape (n_blocks, length), default=()
        Samples of the blocks that belong together: of each film of a run where blocks are
        permuted, of each run where their signs are flipped.

    Returns
    -------
    inflation : float
        Mean square of the moved sums over that of rearranged blocks, pooled over groups and
        voxels; counted as far as it exceeds 1 by more than its standard error.
    """
    moved, rearranged, n_sums = 0.0, 0.0, 0
    # of two blocks, both orders are equally far from their mean
    for rows in (rows for rows in permuted if len(rows) >= FEWEST_ORDERED_BLOCKS):
        products = block_products(y, contrast, rows)
        sums = _moved_sums(products) - products.mean((0, 1)) * len(rows)
        centred = products - products.mean(0) - products.mean(1, keepdims=True)
        centred += products.mean((0, 1))
        # the variance of a sum over random permutations (Hoeffding 1951), for each of the shifts
        rearranged += np.sum(centred**2)
        moved += np.sum(sums**2)
        n_sums += sums.size
    for rows in (rows for rows in flipped if len(rows) > 1):
        products = block_products(y, contrast, rows)
        sums = _moved_sums(products)
        in_place = np.arange(len(rows))
        rearranged += np.sum(products**2) - np.sum(products[in_place, in_place] ** 2)
        moved += np.sum(sums**2)
        n_sums += sums.size
    if rearranged == 0:
        return 1.0
    return float(1 + max(moved / rearranged - 1 - np.sqrt(2 / n_sums), 0))


def films_with_signs(groups, runs):
    """Return the films of one or two blocks, which take part with one sign each.

    Parameters
    ----------
    groups : list of arrays of int of shape (n_blocks, length)
        Samples of the blocks of each film of a run.
    runs : array of int of shape (n_samples,)

    Returns
    -------
    flipped : list of arrays of int of shape (n_films, length)
        Samples of the films of each run that has such films, cut to the shortest.
    """
    films = {}
    for rows in groups:
        if len(rows) < FEWEST_ORDERED_BLOCKS:
            films.setdefault(runs[rows[0, 0]], []).append(rows.ravel())
    return [
        np.stack([rows[: min(len(other) for other in of_run)] for rows in of_run])
        for of_run in films.values()
    ]


def _moved_sums(products):
    """Sums over blocks with the response moved by 1, 2, ... blocks: (n_blocks - 1, n_voxels)."""
    n_blocks = len(products)
    block = np.arange(n_blocks)
    return np.stack([products[block, (block + j) % n_blocks].sum(0) for j in range(1, n_blocks)])


def border_inflation(time, block_length):
    """Return by how much dependence across the borders of blocks widens the variance of a mean.

    Blocks that are drawn independently lose it. For products that decay exponentially, with the
    integrated autocorrelation time tau and so the correlation rho = (tau - 1) / (tau + 1) of
    neighbours, blocks of L samples show tau - 2 rho (1 - rho^L) / (L (1 - rho)^2) of tau.

    Parameters
    ----------
    time : float or array
        In samples, at least 1.
    block_length : float
        In samples.

    Returns
    -------
    inflation : float or array
    """
    rho = (time - 1) / (time + 1)
    lost = 2 * rho * (1 - rho**block_length) / (block_length * (1 - rho) ** 2)
    return time / (time - lost)


def voxel_inflation(y, contrast, *, runs, block_length):
    """Return by how much dependence across the borders of blocks widens each voxel's sum.

    :func:`dependence_inflation` is one number for all voxels, as the shifts of one voxel are too
    few. Voxels that are slower than the others lose more: how much more is seen in the
    autocorrelation of both series, whose product is that of their products where there is no
    effect.

    Parameters
    ----------
    y, contrast : arrays of shape (n_samples, n_voxels)
        As in :func:`dependence_inflation`.
    runs : array of int of shape (n_samples,)
    block_length : float
        Mean length of a block, in samples.

    Returns
    -------
    inflation : array of shape (n_voxels,)
        :func:`border_inflation` of each voxel.
    """
    float32 = namespace(y).float32
    y, contrast = (namespace(y).asarray(series, dtype=float32) for series in (y, contrast))
    products = _lagged_products(y, runs) * _lagged_products(contrast, runs)
    return border_inflation(_sum_to_cut(products), block_length)


def block_products(y, prediction, rows):
    """Sums of y * prediction, any block of y on any block of the prediction.

    `rows` is (n_blocks, length); the result (n_blocks of the prediction, n_blocks of y, n_voxels).
    """
    xp, rows = namespace(y), like(rows, y)
    # [voxel, block, time] @ [voxel, time, block]
    first, second = xp.moveaxis(prediction[rows], 2, 0), xp.moveaxis(y[rows], 2, 0)
    return xp.moveaxis(first @ second.swapaxes(1, 2), 0, 2)
