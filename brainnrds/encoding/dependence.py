"""By how much dependence, in time and between folds, widens the null distribution of a score."""

import numpy as np

from brainnrds._checks import check_labels

__all__ = ["dependence_inflation", "integrated_autocorrelation_time", "null_inflation"]

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
    series = series - series.mean(0)
    runs = check_labels(runs, len(series))
    parts = [series[runs == run] for run in np.unique(runs)]
    longest = max(len(part) for part in parts)
    n_lags = max(1, longest // 2)
    products, counts = np.zeros(n_lags), np.zeros(n_lags)
    for part in parts:
        spectrum = np.fft.rfft(part, n=2 * longest, axis=0)
        products += np.fft.irfft((np.abs(spectrum) ** 2).sum(1), n=2 * longest)[:n_lags]
        counts += np.maximum(len(part) - np.arange(n_lags), 0)
    if products[0] <= 0:
        return 1.0
    correlation = (products / np.maximum(counts, 1)) / (products[0] / counts[0])
    time = 1.0
    for lag in range(1, n_lags):
        if lag > 5 * time:
            break
        time += 2 * correlation[lag]
    return float(max(time, 1.0))


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


def dependence_inflation(y, contrast, groups, *, permuted):
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
    groups : list of arrays of int of shape (n_blocks, length)
        Samples of the blocks that belong together: of each film of a run where they are permuted,
        of each run where their signs are flipped.
    permuted : bool
        Whether the test permutes blocks or flips their signs.

    Returns
    -------
    inflation : float
        Mean square of the moved sums over that of rearranged blocks, pooled over films and voxels;
        counted as far as it exceeds 1 by more than its standard error.
    """
    moved, rearranged, n_sums = 0.0, 0.0, 0
    for rows in groups:
        n_blocks = len(rows)
        # of two blocks, both orders are equally far from their mean
        if n_blocks < (FEWEST_ORDERED_BLOCKS if permuted else 2):
            continue
        products = block_products(y, contrast, rows)
        block = np.arange(n_blocks)
        shifted = np.stack([products[block, (block + j) % n_blocks] for j in range(1, n_blocks)])
        sums = shifted.sum(1)  # [shift, voxel]
        if permuted:
            mean = products.mean((0, 1)) * n_blocks
            centred = products - products.mean(0) - products.mean(1, keepdims=True)
            centred += products.mean((0, 1))
            # the variance of a sum over random permutations (Hoeffding 1951)
            rearranged += np.sum(centred**2)
            moved += np.sum((sums - mean) ** 2)
        else:
            rearranged += np.sum(shifted**2)
            moved += np.sum(sums**2)
        n_sums += sums.size
    if rearranged == 0:
        return 1.0
    return float(1 + max(moved / rearranged - 1 - np.sqrt(2 / n_sums), 0))


def block_products(y, prediction, rows):
    """Sums of y * prediction, any block of y on any block of the prediction.

    `rows` is (n_blocks, length); the result (n_blocks of the prediction, n_blocks of y, n_voxels).
    """
    # [voxel, block, time] @ [voxel, time, block]
    products = prediction[rows].transpose(2, 0, 1) @ y[rows].transpose(2, 1, 0)
    return products.transpose(1, 2, 0)
