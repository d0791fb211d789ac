"""Which voxels the decoder reads: by their reliability, or by what they share with the flow."""

import numpy as np

from brainnrds._checks import InputError
from brainnrds.features.delays import delay

__all__ = ["column_blocks", "mean_and_scale", "select_voxels"]

_BLOCK = 2048  # voxels at a time, so that a step over all voxels holds a part of them twice


def column_blocks(X):
    """Slices of the columns of an array, some thousand at a time."""
    return [slice(start, start + _BLOCK) for start in range(0, X.shape[1], _BLOCK)]


def mean_and_scale(X, rows):
    """Mean and standard deviation of every voxel, over some samples.

    Parameters
    ----------
    X : array of shape (n_samples, n_voxels)
    rows : int array

    Returns
    -------
    mean, scale : arrays of float64 of shape (n_voxels,)
    """
    mean, scale = np.empty(X.shape[1]), np.empty(X.shape[1])
    for columns in column_blocks(X):
        part = X[rows, columns]
        mean[columns] = part.mean(axis=0, dtype=np.float64)
        scale[columns] = part.std(axis=0, dtype=np.float64)
    return mean, scale


def select_voxels(
    X,
    y,
    *,
    counted,
    runs,
    films,
    delays,
    method,
    n_voxels,
    n_components=10,
    film_times=None,
    window_order=None,
    mean=None,
):
    """Choose voxels by their reliability over repeats, or by what they share with the flow.

    Parameters
    ----------
    X : array of shape (n_samples, n_voxels)
        BOLD.
    y : array of shape (n_samples, n_steps, 2, height, width)
        Used by "best" only.
    counted : bool array of shape (n_samples,)
        Samples that show a training clip.
    runs, films : int array of shape (n_samples,)
    delays : sequence of int
        Window of the decoder, in volumes; used by "best" only.
    method : {"reliability", "best"}
        "reliability": correlation between the first and the second half of a film's repeats (mean
        of the odd and of the even ones), over all films shown more than once; only positive values
        are kept. "best": summed over the window's delays, the variance explained by the flow's
        first principal components.
    n_voxels : int
        At most this many.
    n_components : int, default=10
        Principal components of the flow, for "best".
    film_times : array of shape (n_samples,), default=None
        Seconds from the film's onset, for "reliability": volumes of two presentations are paired
        that lie nearest in film time, within half of the smallest step between volumes. None:
        by their place in the presentation, which must then be of one length.
    window_order : int array of shape (n_samples,), default=None
        Sample whose window each sample has, for controls; used by "best" only.
    mean : array of shape (n_voxels,), default=None
        What stands for volumes outside the run, for "best"; None = the mean over all samples.

    Returns
    -------
    kept : int array
        Columns of X, ascending. Constant voxels are never among them.
    """
    if method == "reliability":
        value = _repeat_reliability(X, counted, runs, films, film_times)
        value[~(value > 0)] = -np.inf
    else:
        index = delay(np.arange(1, len(X) + 1)[:, None], list(delays), runs=runs) - 1
        index = index if window_order is None else index[window_order]
        mean = X.mean(axis=0, dtype=np.float64) if mean is None else mean
        value = _shared_variance(X, y[counted], index[counted], mean, n_components)
    order = np.argsort(-value, kind="stable")[:n_voxels]
    return np.sort(order[np.isfinite(value[order])])


def _shared_variance(X, flow, index, mean, n_components):
    """Variance of each voxel that the flow's components explain, summed over delays."""
    flow = flow.reshape(len(flow), -1).astype(np.float64)
    flow -= flow.mean(axis=0)
    power, vectors = np.linalg.eigh(flow @ flow.T)
    n_used = min(n_components, int((power > 1e-9 * max(power[-1], 1e-30)).sum()))
    value = np.full(X.shape[1], -np.inf)
    if n_used == 0:
        return value
    components = vectors[:, ::-1][:, :n_used]  # orthonormal: squared projections are R2
    for columns in column_blocks(X):
        total, varies = 0.0, False
        for rows in index.T:
            moved = X[rows, columns] - mean[columns]
            moved[rows < 0] = 0  # no source in the run
            moved -= moved.mean(axis=0)
            power = (moved**2).sum(axis=0)
            enough = power > len(moved) * (1e-6 * (1 + np.abs(mean[columns]))) ** 2
            projected = ((components.T @ moved) ** 2).sum(axis=0)
            total += np.divide(projected, power, out=np.zeros_like(power), where=enough)
            varies = varies | enough
        value[columns] = np.where(varies, total, -np.inf)
    return value


def _repeat_reliability(X, counted, runs, films, film_times):
    """Correlation of odd with even presentations of the same film, over films with repeats."""
    repeats = []
    for film in np.unique(films[counted]):
        presentations = [
            np.flatnonzero((films == film) & (runs == run))
            for run in np.unique(runs[counted & (films == film)])
        ]
        if len(presentations) > 1:
            repeats.append(_paired(presentations, film_times, film))
    repeats = [rows for rows in repeats if rows.shape[1]]
    if not repeats:
        raise InputError(
            "`voxel_selection`='reliability' needs films shown more than once among the training "
            "samples (repeats concatenated, not averaged); got none: use 'best'."
        )
    value = np.empty(X.shape[1])
    for columns in column_blocks(X):
        first, second = (
            np.concatenate(
                [X[rows[half::2], columns].mean(axis=0, dtype=np.float64) for rows in repeats]
            )
            for half in (0, 1)
        )
        first -= first.mean(axis=0)
        second -= second.mean(axis=0)
        scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
        product = (first * second).sum(axis=0)
        varies = scale > 1e-12 * (first**2 + second**2).sum(axis=0)
        value[columns] = np.divide(product, scale, out=np.zeros(len(scale)), where=varies)
    return value


def _paired(presentations, film_times, film):
    """Rows of the same moments in every presentation, (n_presentations, n_moments)."""
    if film_times is None:
        lengths = [len(rows) for rows in presentations]
        if len(set(lengths)) > 1:
            raise InputError(
                f"presentations of film {film} must be of one length where `film_times` does not "
                f"say which volumes show the same moment; got {lengths} volumes."
            )
        return np.stack(presentations)
    times = [np.asarray(film_times, dtype=np.float64)[rows] for rows in presentations]
    steps = np.concatenate([np.diff(np.sort(t)) for t in times])
    within = steps.min() / 2 if len(steps) else 0.0
    first = times[0]
    nearest = np.stack([np.abs(t[:, None] - first).argmin(axis=0) for t in times])
    apart = np.stack([np.abs(t[near] - first) for t, near in zip(times, nearest, strict=True)])
    rows = np.stack([p[near] for p, near in zip(presentations, nearest, strict=True)])
    return rows[:, (apart < within + 1e-9).all(axis=0)]
