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
- two models: the sign of each block's difference;
- a model and the same without one feature space: the sign of each block's match with what the
  first predicts beyond a multiple of the second.

Held-out predictions of several folds are not independent of each other under the null hypothesis:
fold f is predicted from a model that was trained on fold g, and the other way round. With linear
models both products hold the same chance match of the two folds, which is thus counted twice. The
variance of the sum over folds is up to twice what rearranging blocks shows when all folds have the
same size [1]_ (`null_inflation` of the module `dependence`), and less where folds choose different
penalties (`shared_training_inflation`). With the data set's own test films there is one fold, and
nothing to correct. Likewise, rearranging blocks breaks what dependence
there is across their borders: `dependence_inflation`. The null distributions are widened by both.

References
----------
.. [1] Bengio Y, Grandvalet Y (2004). No unbiased estimator of the variance of K-fold
   cross-validation. Journal of Machine Learning Research 5, 1089-1105.
"""

import functools
from math import exp, lgamma, log

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK, block_labels, block_sums
from brainnrds.encoding._arrays import like, namespace, place, rows_of, to_numpy
from brainnrds.encoding._tested import (
    Sharing,
    check_shown_once,
    check_tested,
    predictions_and_folds,
    tested_labels,
)
from brainnrds.encoding.dependence import (
    FEWEST_ORDERED_BLOCKS,
    block_products,
    dependence_inflation,
    films_with_signs,
    integrated_autocorrelation_time,
    shared_training_inflation,
    voxel_inflation,
)
from brainnrds.encoding.noise_ceiling import explainable_variance
from brainnrds.encoding.scores import (
    correlation_score,
    standardized_series,
    unique_variance,
)

__all__ = [
    "benjamini_hochberg",
    "difference_significance",
    "explainable_variance_significance",
    "prediction_significance",
    "unique_variance_significance",
]

_N_TAIL = 250
# of the squares of float32 predictions that differ by rounding alone
_ROUNDING = 1e-10
_VOXELS_PER_BATCH = 512
# of permuted blocks: above, a product with zeros is faster than a sparse one
_LEAST_DENSITY = 1 / 32


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
    n_jobs=1,
    device="cpu",
):
    """Test whether held-out predictions match the responses better than chance.

    The blocks of the response are permuted within each film of a run against the fixed
    predictions. A film of one or two blocks takes part with a random sign, too.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions : array of shape (n_samples, n_voxels), or Bunch
        From :func:`brainnrds.encoding.held_out_predictions`: its result, which holds the folds, or
        its ``predictions``, with `folds`.
    t_r : float
        Repetition time, s.
    runs : array of int of shape (n_samples,), default=None
        Run label of each sample; None is one run.
    films : array of int of shape (n_samples,), default=None
        Film label of each sample; samples with -1 are left out. None: every run is a film.
    folds : array of int of shape (n_samples,), default=None
        Fold in which a sample was predicted, -1 for samples that were not. None: those of
        `predictions`.
    block_duration : float, default=None
        Seconds; None is max(40 s, 4 x the integrated autocorrelation time of the tested series).
    n_permutations : int, default=5000
        The first of them is the arrangement that was measured.
    random_state : int, RandomState or None, default=None
    n_jobs : int, default=1
        Threads that share the voxels; -1 takes all cores. The result is the same.
    device : str, default="cpu"
        Where blocks are rearranged, in float64: the same permutations on every device.

    Returns
    -------
    test : Bunch
        With ``score`` (n_voxels,) the tested correlation, ``z`` (n_voxels,) its distance from
        chance in standard deviations, ``p_values`` (n_voxels,) one-sided, ``q_values``
        (n_voxels,) for the false discovery rate, ``p_max`` (n_voxels,) corrected for the family
        of voxels by the largest z, ``n_blocks``, ``block_duration`` (s), ``n_permutations``,
        ``smallest_p`` that could have been reached, ``null_inflation`` and
        ``dependence_inflation``, by which the variance under the null hypothesis is widened (the
        latter on average: slow voxels get more than fast ones), and ``reason``, a line that says
        why there are no p-values (then they are None) or None.

    Raises
    ------
    InputError
        Without folds, for values that are not finite in tested samples, and for films that are
        tested in several presentations: responses to the same film are not independent, and are
        averaged first, as are their predictions.
    """
    return _test(
        "match",
        y,
        [predictions],
        t_r=t_r,
        runs=runs,
        films=films,
        folds=folds,
        block_duration=block_duration,
        n_permutations=n_permutations,
        random_state=random_state,
        n_jobs=n_jobs,
        device=device,
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
    n_jobs=1,
    device="cpu",
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
    t_r, runs, films, folds, block_duration, n_permutations, random_state, n_jobs, device
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
        "difference",
        y,
        [predictions_a, predictions_b],
        t_r=t_r,
        runs=runs,
        films=films,
        folds=folds,
        block_duration=block_duration,
        n_permutations=n_permutations,
        random_state=random_state,
        n_jobs=n_jobs,
        device=device,
    )


def unique_variance_significance(
    y,
    joint,
    without,
    *,
    t_r,
    runs=None,
    films=None,
    folds=None,
    block_duration=None,
    n_permutations=5000,
    random_state=None,
    n_jobs=1,
    device="cpu",
):
    """Test whether one feature space predicts variance that the others do not.

    The drop in squared error is no fair test: the joint model shrinks the other spaces differently,
    which changes the error whether or not the space says something. What is tested is whether the
    response follows the joint prediction where that departs from any multiple of the other one,
    fold by fold: the joint coefficient in a regression of the response on both [1]_. What departs
    has unit variance in each fold, as predictions have in the other tests.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    joint : array of shape (n_samples, n_voxels), or Bunch
        Held-out predictions of the model with all feature spaces.
    without : array of shape (n_samples, n_voxels), or Bunch
        Held-out predictions of a model fitted on the other feature spaces only, in the same folds.
    t_r, runs, films, folds, block_duration, n_permutations, random_state, n_jobs, device
        As in :func:`prediction_significance`.

    Returns
    -------
    test : Bunch
        As in :func:`prediction_significance`; ``score`` is
        :func:`brainnrds.encoding.unique_variance`, and the p-values are one-sided.

    References
    ----------
    .. [1] Fair RC, Shiller RJ (1990). Comparing information in forecasts from econometric models.
       American Economic Review 80, 375-389.
    """
    return _test(
        "unique",
        y,
        [joint, without],
        t_r=t_r,
        runs=runs,
        films=films,
        folds=folds,
        block_duration=block_duration,
        n_permutations=n_permutations,
        random_state=random_state,
        n_jobs=n_jobs,
        device=device,
    )


def explainable_variance_significance(
    repeats,
    *,
    t_r,
    block_duration=None,
    n_permutations=5000,
    random_state=None,
    n_jobs=1,
    device="cpu",
):
    """Test whether repeats of a film evoke the same response.

    Explainable variance grows with the sum of products of all pairs of presentations. The blocks
    of the first of each pair are permuted against the second, within films: which voxels are
    *responsive* is then a matter of evidence, not of a ceiling that noise reaches as well.

    Parameters
    ----------
    repeats : array of shape (n_repeats, n_samples, n_voxels), or list of such arrays
        As in :func:`brainnrds.encoding.explainable_variance`.
    t_r : float
        Repetition time, s.
    block_duration, n_permutations, random_state, n_jobs, device
        As in :func:`prediction_significance`.

    Returns
    -------
    test : Bunch
        As in :func:`prediction_significance`; ``score`` is the explainable variance of one
        presentation, and the p-values are one-sided.
    """
    films = [np.asarray(r) for r in repeats] if isinstance(repeats, list) else [np.asarray(repeats)]
    explainable_variance([film[..., :1] for film in films])  # it says what is wrong with them
    if not all(np.isfinite(film).all() for film in films):
        raise InputError("`repeats` must be finite; got values that are not.")
    n_voxels = films[0].shape[2]
    n_rows = sum((len(film) - 1) * film.shape[1] for film in films)
    share = Sharing(n_voxels, max(n_rows, n_permutations), n_jobs, device)

    def batch_score(batch):
        return explainable_variance([place(film[..., batch], device) for film in films])

    def pairs(voxels, device="cpu"):
        """Presentation r, and the sum of those after it: every pair once, moment by moment."""
        y, contrast = [], []
        for film in films:
            some = place(film[..., voxels], device)
            centred = some - some.mean(1, keepdims=True)
            later = [centred[-1]]
            for presentation in range(len(film) - 2, 0, -1):
                later.insert(0, later[0] + centred[presentation])
            later = namespace(some).stack(later, 1)
            y.append(centred[:-1].swapaxes(0, 1).reshape(-1, some.shape[2]))
            contrast.append(later.reshape(-1, some.shape[2]))
        return namespace(some).concatenate(y), namespace(some).concatenate(contrast)

    score = np.concatenate(share(batch_score))
    runs, moments = [], []
    for i_film, film in enumerate(films):
        runs.append(1000 * i_film + np.tile(np.arange(len(film) - 1), film.shape[1]))
        moments.append(np.full(film.shape[1], i_film))
    runs = np.concatenate(runs)
    y_some, contrast_some = pairs(_spread(n_voxels))
    length = _block_length(block_duration, y_some * contrast_some, runs, t_r)
    of_moment = np.concatenate(moments)
    blocks = block_labels(of_moment, of_moment, length)
    # a block holds the same seconds of all presentations
    n_pairs = np.concatenate([np.full(film.shape[1], len(film) - 1) for film in films])
    labels = np.repeat(blocks, n_pairs)
    of_film = np.repeat(of_moment, n_pairs)
    test = _empty_test(score, int(blocks.max()) + 1, length * t_r, n_permutations)
    if _too_few_blocks(test):
        return test
    groups = _exchangeable_blocks(labels, of_film, of_film)
    test.dependence_inflation = dependence_inflation(y_some, contrast_some, permuted=groups)
    rng = check_random_state(random_state)
    statistics, _, log_n_orders = _block_permutations(groups, n_permutations, rng, device)
    of_voxels = _voxel_widening(test, y_some, contrast_some, runs, len(blocks))

    def batch_statistics(batch):
        y, contrast = pairs(batch, device)
        z = statistics(y, contrast)
        z[0] /= of_voxels(y, contrast) ** 0.5
        z[:, like(~np.isfinite(score[batch]), z)] = np.nan
        return z

    return _fill_test(test, batch_statistics, exp(-log_n_orders), share, two_sided=False)


def _test(
    kind,
    y,
    predictions,
    *,
    t_r,
    runs,
    films,
    folds,
    block_duration,
    n_permutations,
    random_state,
    n_jobs,
    device,
):
    """Test one prediction ("match"), two ("difference"), or what one adds ("unique")."""
    y = np.asarray(y)
    n_samples, n_voxels = y.shape
    if not t_r > 0:
        raise InputError(f"`t_r` must be positive, in s; got {t_r}.")
    if n_permutations < 100:
        raise InputError(f"`n_permutations` must be at least 100; got {n_permutations}.")
    predictions, folds = predictions_and_folds(predictions, folds)
    runs, films, folds = tested_labels(n_samples, runs, films, folds)
    kept, tested = folds >= 0, rows_of(folds >= 0, y)
    share = Sharing(n_voxels, max(int(kept.sum()), n_permutations), n_jobs, device)
    check_tested(y, predictions, kept, n_jobs)
    check_shown_once(runs, films, kept)
    films_kept, runs_kept, folds_kept = films[kept], runs[kept], folds[kept]
    rng = check_random_state(random_state)

    def series(voxels, device="cpu"):
        y_some, *parts = (place(array[:, voxels][tested], device) for array in (y, *predictions))
        y_some, scaled = standardized_series(y_some, parts, runs=runs_kept, folds=folds_kept)
        if kind == "match":
            return y_some, scaled[0]
        if kind == "difference":
            return y_some, scaled[0] - scaled[1]
        joint, without = (standardized_series(part, [], runs=runs_kept)[0] for part in parts)
        xp = namespace(joint)
        for fold in np.unique(folds_kept):
            rows = rows_of(folds_kept == fold, joint)
            size = (without[rows] ** 2).sum(0)
            multiple = (joint[rows] * without[rows]).sum(0) / xp.where(size > 0, size, 1)
            size = (joint[rows] ** 2).sum(0)
            joint[rows] -= multiple * without[rows]
            # folds weigh alike, as null_inflation takes them to; what rounding leaves is nothing
            left = (joint[rows] ** 2).sum(0)
            real = left > _ROUNDING * size
            joint[rows] /= xp.where(real, (left / len(joint[rows])) ** 0.5, np.inf)
        return y_some, joint

    y_some, contrast_some = series(_spread(n_voxels))
    length = _block_length(block_duration, y_some * contrast_some, runs_kept, t_r)
    blocks = block_labels(runs_kept, films_kept, length)
    flipped = kind != "match"

    def batch_score(batch):
        parts = [p[:, batch] for p in predictions]
        if kind == "unique":
            return unique_variance(y[:, batch], *parts, runs=runs, folds=folds)
        scores = [correlation_score(y[:, batch], p, runs=runs, folds=folds) for p in parts]
        return scores[0] if kind == "match" else scores[0] - scores[1]

    # on the host, where with a GPU all threads are free
    score = np.concatenate(Sharing(n_voxels, n_samples, n_jobs, "cpu")(batch_score))
    test = _empty_test(score, int(blocks.max()) + 1, length * t_r, n_permutations)
    test.null_inflation = fold_inflation = shared_training_inflation(
        y_some, contrast_some, folds_kept, blocks=blocks
    )
    # blocks change places within films; signs also break what ties the films of a run together
    groups = _exchangeable_blocks(blocks, runs_kept, runs_kept if flipped else films_kept)
    test.dependence_inflation = dependence_inflation(
        y_some,
        contrast_some,
        permuted=[] if flipped else groups,
        flipped=groups if flipped else films_with_signs(groups, runs_kept),
    )
    if _too_few_blocks(test):
        return test
    if flipped:
        statistics = _sign_flips(blocks, n_permutations, rng, device)
        rarest = (2 if kind == "difference" else 1) * 0.5**test.n_blocks
    else:
        statistics, left_in_place, log_n_orders = _block_permutations(
            groups, n_permutations, rng, device
        )
        rarest = exp(-log_n_orders)
        # permutations leave some blocks in place: the measured sum is in their mean, too
        fold_inflation -= (fold_inflation - 1) * left_in_place

    of_voxels = _voxel_widening(test, y_some, contrast_some, runs_kept, len(blocks))

    def batch_statistics(batch):
        y_batch, contrast = series(batch, device)
        z = statistics(y_batch, contrast)
        # what was measured comes from a wider null distribution than the rearranged sums
        z[0] /= (fold_inflation * of_voxels(y_batch, contrast)) ** 0.5
        z[:, like(~np.isfinite(score[batch]), z)] = np.nan
        return z

    return _fill_test(test, batch_statistics, rarest, share, two_sided=kind == "difference")


def _spread(n_voxels):
    """A batch of voxels from everywhere, on which dependence is measured."""
    return np.unique(np.linspace(0, n_voxels - 1, _VOXELS_PER_BATCH).astype(int))


def _block_length(block_duration, series, runs, t_r):
    if block_duration is None:
        time = integrated_autocorrelation_time(series, runs=runs)
        block_duration = max(SHORTEST_BLOCK, 4 * time * t_r)
    return max(1, int(np.ceil(block_duration / t_r - 1e-9)))


def _empty_test(score, n_blocks, block_duration, n_permutations):
    return Bunch(
        score=score,
        z=None,
        p_values=None,
        q_values=None,
        p_max=None,
        n_blocks=n_blocks,
        block_duration=block_duration,
        n_permutations=n_permutations,
        smallest_p=None,
        null_inflation=1.0,
        dependence_inflation=1.0,
        reason=None,
    )


def _too_few_blocks(test):
    if test.n_blocks < FEWEST_BLOCKS:
        test.reason = (
            f"no p-values: {test.n_blocks} blocks of {test.block_duration:g} s, and a test needs "
            f"at least {FEWEST_BLOCKS}"
        )
    return test.reason is not None


def _fill_test(test, batch_statistics, rarest, share, *, two_sided):
    """Fill in z and the p-values; `rarest` is the smallest p that the arrangements allow."""

    def of_batch(batch):
        z_batch = batch_statistics(batch)
        xp, measured = namespace(z_batch), np.array(to_numpy(z_batch[0]))
        if two_sided:
            xp.abs(z_batch, out=z_batch)
        finite = np.isfinite(measured)
        largest = -np.inf
        if finite.any():
            some = z_batch if finite.all() else z_batch[:, like(finite, z_batch)]
            largest = to_numpy(xp.amax(some, 1))
        return measured, _p_values(z_batch), largest

    z, p_values, largest = zip(*share(of_batch), strict=True)
    test.z = z = np.concatenate(z)
    largest = functools.reduce(np.maximum, largest, np.full(test.n_permutations, -np.inf))
    test.smallest_p = max(1e-3 / test.n_permutations, rarest)
    test.p_values = np.maximum(np.concatenate(p_values), test.smallest_p)
    test.q_values = benjamini_hochberg(test.p_values)
    test.p_max = share_at_least(np.sort(largest), np.abs(z) if two_sided else z)
    return test


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


def _voxel_widening(test, y_some, contrast_some, runs, n_volumes):
    """Return a function to each voxel's share in the inflation by dependence."""
    options = {"runs": runs, "block_length": n_volumes / test.n_blocks}
    average = voxel_inflation(y_some, contrast_some, **options).mean()

    def of_voxels(y, contrast):
        share = voxel_inflation(y, contrast, **options) / average
        return (test.dependence_inflation * share).clip(min=1)

    return of_voxels


def _sign_flips(blocks, n_permutations, rng, device):
    """Return a function to the t statistics of y * contrast with random signs of the blocks.

    Its result is (n_permutations, n_voxels); the first row is what was measured. Signs do not
    change the sum of squares, so that t orders the rows as the sums do. But t, unlike the sum, has
    a spread that does not grow with the measured effect, which counts once the measured value is
    scaled to a wider null distribution.
    """
    n_blocks = int(blocks.max()) + 1
    signs = rng.choice([-1.0, 1.0], size=(n_permutations, n_blocks))
    signs[0] = 1
    signs = place(signs, device)
    is_of = place(1.0 * (blocks == np.arange(n_blocks)[:, None]), device)

    def statistics(y, contrast):
        xp, products = namespace(y), y * contrast
        sums = block_sums(products, blocks, n_blocks) if xp is np else is_of @ products
        squares = (sums**2).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = signs @ (sums / xp.sqrt(squares))
            # t = z * sqrt((n_blocks - 1) / (n_blocks - z**2)), in few arrays of this size
            rest = xp.square(z)
            xp.negative(rest, out=rest)
            rest += n_blocks
            xp.clip(rest, 1e-9, None, out=rest)
            rest /= n_blocks - 1
            z /= xp.sqrt(rest, out=rest)
        # two predictions that are equal do not differ
        z[:, squares == 0] = 0
        return z

    return statistics


def _block_permutations(groups, n_permutations, rng, device):
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
        if n_blocks < FEWEST_ORDERED_BLOCKS:
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

    is_dense = columns.shape[1] > _LEAST_DENSITY * offset
    if is_dense:
        rearrange = place(rearrange.toarray(), device)

    def statistics(y, prediction):
        xp = namespace(y)
        products = [block_products(y, prediction, rows).reshape(-1, y.shape[1]) for rows in groups]
        products = xp.asarray(xp.concatenate(products), dtype=xp.float64)
        # SciPy's product, which is on the host, where nearly all are zeros
        z = rearrange @ products if is_dense else like(rearrange @ to_numpy(products), y)
        z -= z[1:].mean(0)
        scale = xp.sqrt(xp.einsum("pv,pv->v", z[1:], z[1:]) / (n_permutations - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            z /= scale
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
    n_permutations, first = len(z), to_numpy(z[0])
    n_beyond = to_numpy((z >= z[0] - 1e-12).sum(0))
    p_values = np.where(np.isnan(first), np.nan, n_beyond / n_permutations)
    far = np.flatnonzero((n_beyond < 10) & np.isfinite(first) & (first > 0))
    if len(far) == 0:
        return p_values
    n_tail = min(_N_TAIL, (n_permutations - 1) // 4)
    tail = _largest(z[1:], far, n_tail + 1)
    squares = np.sign(tail) * tail**2
    threshold = squares[0]
    excess = squares[1:] - threshold
    mean = excess.mean(0)
    rank = (np.arange(1, n_tail + 1) - 0.35) / n_tail
    weighted = np.mean((1 - rank)[:, None] * excess, axis=0)
    shape = np.minimum(mean / (mean - 2 * weighted) - 2, 0)
    # with an exponential tail the scale is the mean excess; else Hosking and Wallis's
    scale = np.where(shape == 0, mean, mean * (1 + shape))
    beyond = first[far] ** 2 - threshold
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        survival = np.where(
            shape == 0,
            np.exp(-beyond / scale),
            np.maximum(1 - shape * beyond / scale, 1e-300) ** (1 / np.where(shape == 0, 1, shape)),
        )
    refined = n_tail / (n_permutations - 1) * survival
    p_values[far] = np.where(beyond > 0, refined, p_values[far])
    return p_values


def _largest(z, columns, n_rows):
    """The largest values of some columns, ascending: an array (n_rows, n_columns)."""
    if namespace(z) is np:
        some = z.take(columns, axis=1)  # ten times faster than z[:, columns]
        some.partition(len(z) - n_rows, axis=0)
        largest = some[-n_rows:].copy("F")
        largest.sort(axis=0)
        return largest
    return to_numpy(z[:, like(columns, z)].topk(n_rows, dim=0).values.flip(0))


def share_at_least(ordered, values):
    """Return the share of sorted numbers that are at least each value; NaN stays."""
    n_above = len(ordered) - np.searchsorted(ordered, values - 1e-9, side="left")
    return np.where(np.isnan(values), np.nan, np.maximum(n_above, 1) / len(ordered))
