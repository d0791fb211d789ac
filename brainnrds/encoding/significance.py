"""Is a prediction better than chance, and is one better than another?

What is tested is the score that is reported, :func:`brainnrds.encoding.correlation_score`. With
responses y centred within runs and predictions p centred within runs and scaled to unit variance
within folds, the score of a voxel is proportional to the sum over samples of y p, and the
difference of two scores to the sum of y (p_a - p_b). Since both predictions have the same
variance, that is also half the difference of their squared errors. Without this common scale the
difference of squared errors is no fair test: where nothing can be predicted, the larger feature
space has the larger error, because its prediction has the larger variance.

Samples are dependent in time, so they are summed in blocks that are long against the dependence.
The tests differ in what is random under the null hypothesis:

- one model: the order of the response's blocks against the fixed predictions;
- two models: the sign of each block's difference.

Held-out predictions of several folds are not independent of each other under the null hypothesis:
fold f is predicted from a model that was trained on fold g, and the other way round. With linear
models both products hold the same chance match of the two folds, which is thus counted twice. The
variance of the sum over folds is twice what rearranging blocks shows when all folds have the same
size [1]_, and :func:`null_inflation` in general. With the data set's own test films there is one
fold, and nothing to correct. Likewise, rearranging blocks breaks what dependence there is across
their borders: :func:`dependence_inflation`. The null distributions are widened by both.

References
----------
.. [1] Bengio Y, Grandvalet Y (2004). No unbiased estimator of the variance of K-fold
   cross-validation. Journal of Machine Learning Research 5, 1089-1105.
"""

from math import exp, lgamma, log

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError, check_labels
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK, block_labels, block_sums
from brainnrds.encoding.scores import standardized_series

__all__ = [
    "benjamini_hochberg",
    "dependence_inflation",
    "difference_significance",
    "integrated_autocorrelation_time",
    "null_inflation",
    "prediction_significance",
]

# of two blocks, half of all orders are the measured one: with a random sign they tell more
_FEWEST_ORDERED_BLOCKS = 3
_N_TAIL = 250
_VOXELS_PER_BATCH = 512


def prediction_significance(
    y,
    predictions,
    *,
    t_r,
    runs=None,
    films=None,
    folds=None,
    block_duration=None,
    n_permutations=5000,
    random_state=None,
):
    """Test whether held-out predictions match the responses better than chance.

    The blocks of the response are permuted within each film of a run against the fixed
    predictions. A film of one or two blocks takes part with a random sign, too.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions : array of shape (n_samples, n_voxels)
        From :func:`brainnrds.encoding.held_out_predictions`.
    t_r : float
        Repetition time, s.
    runs : array of int of shape (n_samples,), default=None
        Run label of each sample; None is one run.
    films : array of int of shape (n_samples,), default=None
        Film label of each sample; samples with -1 are left out. None: every run is a film.
    folds : array of int of shape (n_samples,), default=None
        Fold in which a sample was predicted, -1 for samples that were not. None: one fold.
    block_duration : float, default=None
        Seconds; None is max(40 s, 4 x the integrated autocorrelation time of the tested series).
    n_permutations : int, default=5000
        The first of them is the arrangement that was measured.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    test : Bunch
        With ``score`` (n_voxels,) the tested correlation, ``z`` (n_voxels,) its distance from
        chance in standard deviations, ``p_values`` (n_voxels,) one-sided, ``q_values``
        (n_voxels,) for the false discovery rate, ``p_max`` (n_voxels,) corrected for the family
        of voxels by the largest z, ``n_blocks``, ``block_duration`` (s), ``n_permutations``,
        ``smallest_p`` that could have been reached, ``null_inflation`` and
        ``dependence_inflation``, by which the variance under the null hypothesis is widened, and
        ``reason``, a line that says why there are no p-values (then they are None) or None.
    """
    return _test(
        y,
        [predictions],
        t_r=t_r,
        runs=runs,
        films=films,
        folds=folds,
        block_duration=block_duration,
        n_permutations=n_permutations,
        random_state=random_state,
    )


def difference_significance(
    y,
    predictions_a,
    predictions_b,
    *,
    t_r,
    runs=None,
    films=None,
    folds=None,
    block_duration=None,
    n_permutations=5000,
    random_state=None,
):
    """Test whether one prediction matches the responses better than another.

    The null hypothesis is that both correlate with the response equally. The sign of each block's
    difference of (standardised) errors is flipped.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions_a, predictions_b : arrays of shape (n_samples, n_voxels)
        For Video > Image: of the video and of the image feature space. Both from the same folds.
    t_r, runs, films, folds, block_duration, n_permutations, random_state
        As in :func:`prediction_significance`.

    Returns
    -------
    test : Bunch
        As in :func:`prediction_significance`; ``score`` is the difference of the correlations,
        a minus b, and the p-values are two-sided.

    Notes
    -----
    What differs is how well the fitted models predict, not how much the feature spaces could
    tell: where both carry the same signal, the smaller space is learnt better from few data, and
    is ahead. Where nothing can be predicted neither is, whatever their sizes.
    """
    return _test(
        y,
        [predictions_a, predictions_b],
        t_r=t_r,
        runs=runs,
        films=films,
        folds=folds,
        block_duration=block_duration,
        n_permutations=n_permutations,
        random_state=random_state,
    )


def _test(y, predictions, *, t_r, runs, films, folds, block_duration, n_permutations, random_state):
    """Test the score of one prediction, or the difference of the scores of two."""
    y = np.asarray(y)
    n_samples, n_voxels = y.shape
    if not t_r > 0:
        raise InputError(f"`t_r` must be positive, in s; got {t_r}.")
    if n_permutations < 100:
        raise InputError(f"`n_permutations` must be at least 100; got {n_permutations}.")
    runs, films, folds = tested_labels(n_samples, runs, films, folds)
    predictions = [np.asarray(prediction) for prediction in predictions]
    for prediction in predictions:
        if prediction.shape != y.shape:
            raise InputError(
                f"`predictions` must have the shape of `y`, {y.shape}; got {prediction.shape}."
            )
    kept = folds >= 0
    films_kept, runs_kept = films[kept], runs[kept]
    two_sided = len(predictions) == 2
    rng = check_random_state(random_state)

    def series(voxels):
        y_some, scaled = standardized_series(
            y[:, voxels], [p[:, voxels] for p in predictions], runs=runs, folds=folds
        )
        return y_some, scaled[0] - scaled[1] if two_sided else scaled[0]

    some = np.unique(np.linspace(0, n_voxels - 1, _VOXELS_PER_BATCH).astype(int))
    y_some, contrast_some = series(some)
    if block_duration is None:
        time = integrated_autocorrelation_time(y_some * contrast_some, runs=runs_kept)
        block_duration = max(SHORTEST_BLOCK, 4 * time * t_r)
    block_length = max(1, int(np.ceil(block_duration / t_r - 1e-9)))
    blocks = block_labels(runs_kept, films_kept, block_length)
    n_blocks = int(blocks.max()) + 1
    inflation = null_inflation(folds)
    # blocks change places within films; signs also break what ties the films of a run together
    groups = _exchangeable_blocks(blocks, runs_kept, runs_kept if two_sided else films_kept)
    dependence = dependence_inflation(y_some, contrast_some, groups, permuted=not two_sided)
    test = Bunch(
        score=np.empty(n_voxels),
        z=None,
        p_values=None,
        q_values=None,
        p_max=None,
        n_blocks=n_blocks,
        block_duration=block_length * t_r,
        n_permutations=n_permutations,
        smallest_p=None,
        null_inflation=inflation,
        dependence_inflation=dependence,
        reason=None,
    )
    fold_inflation = inflation
    if n_blocks < FEWEST_BLOCKS:
        test.reason = (
            f"no p-values: {n_blocks} blocks of {block_length * t_r:g} s, and a test needs at "
            f"least {FEWEST_BLOCKS}"
        )
        statistics = None
    elif two_sided:
        statistics = _sign_flips(blocks, n_permutations, rng)
    else:
        permutations = _block_permutations(groups, n_permutations, rng)
        statistics, left_in_place, log_n_orders = permutations
        # permutations leave some blocks in place: the measured sum is in their mean, too
        fold_inflation -= (inflation - 1) * left_in_place

    z, p_values = np.full(n_voxels, np.nan), np.full(n_voxels, np.nan)
    largest = np.full(n_permutations, -np.inf)
    for start in range(0, n_voxels, _VOXELS_PER_BATCH):
        batch = slice(start, start + _VOXELS_PER_BATCH)
        y_batch, contrast = series(batch)
        power = np.einsum("tv,tv->v", y_batch, y_batch)
        with np.errstate(invalid="ignore", divide="ignore"):
            test.score[batch] = np.einsum("tv,tv->v", y_batch, contrast) / np.sqrt(
                power * len(y_batch)
            )
        if statistics is None:
            continue
        z_batch = statistics(y_batch, contrast)
        # what was measured comes from a wider null distribution than the rearranged sums
        z_batch[0] /= np.sqrt(fold_inflation * dependence)
        z_batch[:, power == 0] = np.nan
        z[batch] = z_batch[0]
        if two_sided:
            z_batch = np.abs(z_batch)
        p_values[batch] = _p_values(z_batch)
        if not np.isnan(z_batch[0]).all():
            largest = np.maximum(largest, np.nanmax(z_batch, axis=1))
    if statistics is None:
        return test
    test.z = z
    rarest = 2 * 0.5**n_blocks if two_sided else exp(-log_n_orders)
    test.smallest_p = max(1e-3 / n_permutations, rarest)
    test.p_values = np.maximum(p_values, test.smallest_p)
    test.q_values = benjamini_hochberg(test.p_values)
    observed = np.abs(z) if two_sided else z
    test.p_max = share_at_least(np.sort(largest), observed)
    return test


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
        if n_blocks < (_FEWEST_ORDERED_BLOCKS if permuted else 2):
            continue
        products = _block_products(y, contrast, rows)
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


def benjamini_hochberg(p_values):
    """Adjust p-values for the false discovery rate.

    Parameters
    ----------
    p_values : array of any shape
        NaN where nothing was tested.

    Returns
    -------
    q_values : array of the same shape
        The smallest false discovery rate at which a value is significant [1]_; NaN stays.

    References
    ----------
    .. [1] Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate. Journal of the
       Royal Statistical Society B 57, 289-300.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    q_values = np.full(p_values.shape, np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        q_values[tested] = false_discovery_control(p_values[tested], method="bh")
    return q_values


def tested_labels(n_samples, runs, films, folds):
    """Fill in missing labels; samples without a film get fold -1."""
    runs = check_labels(runs, n_samples)
    films = runs if films is None else check_labels(films, n_samples, name="films")
    folds = check_labels(folds, n_samples, name="folds")
    folds = np.where(films >= 0, folds, -1)
    if not (folds >= 0).any():
        raise InputError("`folds` must mark some samples with a film as predicted; got none.")
    return runs, films, folds


def _exchangeable_blocks(blocks, runs, films):
    """Samples (n_blocks, length) of the blocks of each film of a run, cut to the shortest."""
    groups = {}
    for block in range(int(blocks.max()) + 1):
        rows = np.flatnonzero(blocks == block)
        # a block that joins several short films belongs to the first of them
        groups.setdefault((runs[rows[0]], films[rows[0]]), []).append(rows)
    return [
        np.stack([rows[: min(len(other) for other in group)] for rows in group])
        for group in groups.values()
    ]


def _block_products(y, prediction, rows):
    """Sums of y * prediction, any block of y on any block of the prediction.

    `rows` is (n_blocks, length); the result (n_blocks of the prediction, n_blocks of y, n_voxels).
    """
    # [voxel, block, time] @ [voxel, time, block]
    products = prediction[rows].transpose(2, 0, 1) @ y[rows].transpose(2, 1, 0)
    return products.transpose(1, 2, 0)


def _sign_flips(blocks, n_permutations, rng):
    """Return a function to the t statistics of y * contrast with random signs of the blocks.

    Its result is (n_permutations, n_voxels); the first row is what was measured. Signs do not
    change the sum of squares, so that t orders the rows as the sums do. But t, unlike the sum, has
    a spread that does not grow with the measured effect, which counts once the measured value is
    scaled to a wider null distribution.
    """
    n_blocks = int(blocks.max()) + 1
    signs = rng.choice([-1.0, 1.0], size=(n_permutations, n_blocks))
    signs[0] = 1

    def statistics(y, contrast):
        sums = block_sums(y * contrast, blocks, n_blocks)
        squares = np.sum(sums**2, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (signs @ sums) / np.sqrt(squares)
            t = z * np.sqrt((n_blocks - 1) / np.maximum(n_blocks - z**2, 1e-9))
        # two predictions that are equal do not differ
        t[:, squares == 0] = 0
        return t

    return statistics


def _block_permutations(groups, n_permutations, rng):
    """Return a function to z values of y * prediction with blocks of y permuted.

    Its result is (n_permutations, n_voxels); the first row is what was measured. Returned are also
    the share of blocks that a random permutation leaves in place, and the logarithm of the number
    of permutations that there are.
    """
    columns, values = [], []
    offset = n_ordered = 0
    log_n_orders = 0.0
    for rows in groups:
        n_blocks = len(rows)
        order = np.tile(np.arange(n_blocks), (n_permutations, 1))
        order[1:] = np.argsort(rng.random_sample(order[1:].shape), axis=1)
        columns.append(offset + np.arange(n_blocks) * n_blocks + order)
        sign = np.ones((n_permutations, n_blocks))
        log_n_orders += lgamma(n_blocks + 1)
        if n_blocks < _FEWEST_ORDERED_BLOCKS:
            sign[1:] = rng.choice([-1.0, 1.0], size=(n_permutations - 1, 1))
            log_n_orders += log(2)
        else:
            n_ordered += 1
        values.append(sign)
        offset += n_blocks**2
    columns, values = np.concatenate(columns, axis=1), np.concatenate(values, axis=1)
    rearrange = csr_array(
        (values.ravel(), columns.ravel(), np.arange(n_permutations + 1) * columns.shape[1]),
        shape=(n_permutations, offset),
    )

    def statistics(y, prediction):
        products = [_block_products(y, prediction, rows).reshape(-1, y.shape[1]) for rows in groups]
        sums = rearrange @ np.concatenate(products)
        mean, scale = sums[1:].mean(0), sums[1:].std(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (sums - mean) / scale
        # a constant prediction is no better than chance
        z[:, scale == 0] = 0
        return z

    # one block of each ordered group stays in place on average; random signs leave none
    return statistics, n_ordered / sum(len(rows) for rows in groups), log_n_orders


def _p_values(z):
    """Return the p-value of each column's first row among all rows, with its tail refined.

    Where fewer than 10 values lie beyond, the tail of z^2 is fitted by a generalised Pareto
    distribution [1]_ with probability-weighted moments [2]_. In z^2 the tail of a sum of
    many blocks is close to exponential; a fitted end point is not trusted, as it would give
    p-values of 0.

    .. [1] Knijnenburg TA, et al. (2009). Fewer permutations, more accurate P-values.
       Bioinformatics 25, i161-i168.
    .. [2] Hosking JRM, Wallis JR (1987). Parameter and quantile estimation for the generalized
       Pareto distribution. Technometrics 29, 339-349.
    """
    n_permutations = len(z)
    n_beyond = np.sum(z >= z[0] - 1e-12, axis=0)
    p_values = np.where(np.isnan(z[0]), np.nan, n_beyond / n_permutations)
    far = np.flatnonzero((n_beyond < 10) & np.isfinite(z[0]) & (z[0] > 0))
    if len(far) == 0:
        return p_values
    n_tail = min(_N_TAIL, (n_permutations - 1) // 4)
    tail = np.sort(z[1:, far], axis=0)[-n_tail - 1 :]
    squares = np.sign(tail) * tail**2
    threshold = squares[0]
    excess = squares[1:] - threshold
    mean = excess.mean(0)
    rank = (np.arange(1, n_tail + 1) - 0.35) / n_tail
    weighted = np.mean((1 - rank)[:, None] * excess, axis=0)
    shape = np.minimum(mean / (mean - 2 * weighted) - 2, 0)
    # with an exponential tail the scale is the mean excess; else Hosking and Wallis's
    scale = np.where(shape == 0, mean, mean * (1 + shape))
    beyond = z[0, far] ** 2 - threshold
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        survival = np.where(
            shape == 0,
            np.exp(-beyond / scale),
            np.maximum(1 - shape * beyond / scale, 1e-300) ** (1 / np.where(shape == 0, 1, shape)),
        )
    refined = n_tail / (n_permutations - 1) * survival
    p_values[far] = np.where(beyond > 0, refined, p_values[far])
    return p_values


def share_at_least(ordered, values):
    """Return the share of sorted numbers that are at least each value; NaN stays."""
    n_above = len(ordered) - np.searchsorted(ordered, values - 1e-9, side="left")
    return np.where(np.isnan(values), np.nan, np.maximum(n_above, 1) / len(ordered))
