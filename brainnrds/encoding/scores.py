"""How well predictions match responses: correlation, its shares, R2 and unique variance."""

import numpy as np

from brainnrds._checks import InputError, check_labels
from brainnrds.encoding._arrays import namespace, rows_of, to_float64

__all__ = [
    "correlation_score",
    "correlation_shares",
    "r2_score",
    "runs_by_fold",
    "standardized_series",
    "unique_variance",
]

_VOXELS_PER_BATCH = 1024


def correlation_score(y, predictions, *, runs=None, folds=None):
    """Correlate predictions and responses in each voxel.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions : array of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,), default=None
        Both series are centred within what of a run one fold predicted, so that no score comes from
        differences between the means of runs, or of the parts of one.
    folds : array of int of shape (n_samples,), default=None
        Predictions of different folds come from different models, with their own penalty and so
        their own scale: they are scaled to unit variance within each fold. Samples with fold -1
        are left out.

    Returns
    -------
    scores : array of float64 of shape (n_voxels,)
        0 for a constant prediction, NaN for a constant response.
    """
    return _correlations(y, [predictions], runs, folds, scale_by_sum=False)[0]


def correlation_shares(y, parts, *, runs=None, folds=None):
    """Split the correlation of response and prediction among the parts of the prediction.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
    parts : array of shape (n_spaces, n_samples, n_voxels)
        They sum to the prediction, up to a constant.
    runs, folds : as in :func:`correlation_score`

    Returns
    -------
    shares : array of float64 of shape (n_spaces, n_voxels)
        They sum to :func:`correlation_score` of the whole prediction.
    """
    return _correlations(y, parts, runs, folds, scale_by_sum=True)


def r2_score(y, predictions, *, runs=None, folds=None):
    """Return the share of the response's variance that is predicted, in each voxel.

    Parameters
    ----------
    y, predictions : arrays of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,), default=None
        Both series are centred within what of a run one fold predicted.
    folds : array of int of shape (n_samples,), default=None
        Samples with fold -1 are left out.

    Returns
    -------
    scores : array of float64 of shape (n_voxels,)
        1 - (sum of squared errors) / (sum of squares of y); negative where the prediction is worse
        than the mean, NaN for a constant response.
    """
    n_samples = len(y)
    folds = check_labels(folds, n_samples, name="folds")
    counted = np.flatnonzero(folds >= 0)
    runs = runs_by_fold(check_labels(runs, n_samples)[counted], folds[counted])
    errors, total = 0.0, 0.0
    for run in np.unique(runs):
        rows = counted[runs == run]
        y_run = np.asarray(y[rows], dtype=np.float64)
        y_run = y_run - y_run.mean(0)
        p_run = np.asarray(predictions[rows], dtype=np.float64)
        errors = errors + np.sum((y_run - p_run + p_run.mean(0)) ** 2, axis=0)
        total = total + np.sum(y_run**2, axis=0)
    total = np.where(total > 1e-12 * len(counted), total, np.nan)
    return 1 - errors / total


def unique_variance(y, joint, without, *, runs=None, folds=None):
    """Return the share of variance that only one feature space predicts.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    joint : array of shape (n_samples, n_voxels)
        Held-out predictions of the model with all feature spaces.
    without : array of shape (n_samples, n_voxels)
        Held-out predictions of a model fitted on the other feature spaces only.
    runs, folds
        As in :func:`brainnrds.encoding.r2_score`.

    Returns
    -------
    unique : array of float64 of shape (n_voxels,)
        R2 of the joint model minus R2 without the space, by variance partitioning [1]_. Negative
        where the space adds nothing but noise.

    References
    ----------
    .. [1] Lescroart MD, Stansbury DE, Gallant JL (2015). Fourier power, subjective distance, and
       object categories all provide plausible models of BOLD responses in scene-selective visual
       areas. Frontiers in Computational Neuroscience 9, 135.
    """
    return r2_score(y, joint, runs=runs, folds=folds) - r2_score(y, without, runs=runs, folds=folds)


def _correlations(y, predictions, runs, folds, *, scale_by_sum):
    """Correlate series (n_samples, n_voxels), in batches of voxels: float64 copies are large."""
    y = np.asarray(y)
    predictions = [np.asarray(prediction) for prediction in predictions]
    for prediction in predictions:
        if prediction.shape != y.shape:
            raise InputError(
                f"`predictions` must have the shape of `y`, {y.shape}; got {prediction.shape}."
            )
    scores = np.empty((len(predictions), y.shape[1]))
    for start in range(0, y.shape[1], _VOXELS_PER_BATCH):
        batch = slice(start, start + _VOXELS_PER_BATCH)
        centred, scaled = standardized_series(
            y[:, batch],
            [prediction[:, batch] for prediction in predictions],
            runs=runs,
            folds=folds,
            scale_by_sum=scale_by_sum,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(np.einsum("tv,tv->v", centred, centred) * len(centred))
            for row, prediction in zip(scores, scaled, strict=True):
                row[batch] = np.einsum("tv,tv->v", centred, prediction) / scale
    return scores


def runs_by_fold(runs, folds):
    """Label what of a run one fold predicted.

    A model that is tested on a part of a run was trained on its rest, whose mean is on the other
    side of the run's: predictions centred within the run would keep that.

    Parameters
    ----------
    runs, folds : arrays of int of shape (n_samples,)

    Returns
    -------
    labels : array of int of shape (n_samples,)
        In the order of the runs.
    """
    # numbers sort ten times faster than pairs, and every batch of voxels asks
    names, folds = np.unique(folds, return_inverse=True)
    runs = np.unique(runs, return_inverse=True)[1]
    return np.unique(len(names) * runs + folds, return_inverse=True)[1]


def standardized_series(y, predictions, *, runs=None, folds=None, scale_by_sum=False):
    """Centre responses and predictions within runs and folds, and scale predictions within folds.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
    predictions : sequence of arrays of shape (n_samples, n_voxels)
    runs, folds : as in :func:`correlation_score`
    scale_by_sum : bool, default=False
        Scale all predictions by the standard deviation of their sum, not each by its own.

    Returns
    -------
    y : array of float64 of shape (n_counted_samples, n_voxels)
    predictions : list of arrays of the same shape
        Their variance is 1 in each fold, or 0 where a prediction is constant.
    """
    xp, n_samples = namespace(y), len(y)
    y = xp.asarray(y)
    runs = check_labels(runs, n_samples)
    folds = check_labels(folds, n_samples, name="folds")
    for prediction in predictions:
        if np.shape(prediction) != y.shape:
            raise InputError(
                f"`predictions` must have the shape of `y`, {y.shape}; got {np.shape(prediction)}."
            )
    counted = folds >= 0
    folds = folds[counted]
    runs = runs_by_fold(runs[counted], folds)
    series = [to_float64(array[rows_of(counted, y)]) for array in (y, *predictions)]
    for run in np.unique(runs):
        rows = rows_of(runs == run, y)
        for array in series:
            array[rows] -= array[rows].mean(0)
    y, *predictions = series
    tiny = np.finfo(np.float32).tiny
    for fold in np.unique(folds):
        rows = rows_of(folds == fold, y)
        total = sum(prediction[rows] for prediction in predictions) if scale_by_sum else None
        for prediction in predictions:
            size = (prediction[rows] if total is None else total) ** 2
            scale = xp.sqrt(size.mean(0))
            prediction[rows] /= xp.where(scale > tiny, scale, np.inf)
    constant = xp.einsum("tv,tv->v", y, y) <= 1e-12 * len(y)
    y[:, constant] = 0
    return y, predictions
