"""Which voxels the decoder reads: by their reliability, or by what they share with the flow."""

import numpy as np

from brainnrds._checks import InputError
from brainnrds.features.delays import delay

__all__ = ["select_voxels"]


def select_voxels(X, y, *, counted, runs, films, delays, method, n_voxels, n_components=10):
    """Choose voxels by their reliability over repeats, or by what they share with the flow.

    Parameters
    ----------
    X : array of shape (n_samples, n_voxels)
        Standardised BOLD of the training set.
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

    Returns
    -------
    kept : int array
        Columns of X, ascending.
    """
    if method == "reliability":
        value = _repeat_reliability(X, counted, runs, films)
        value = np.where(value > 0, value, -np.inf)
    else:
        flow = y[counted].reshape(int(counted.sum()), -1).astype(np.float64)
        flow -= flow.mean(axis=0)
        gram = flow @ flow.T
        power, vectors = np.linalg.eigh(gram)
        n_used = min(n_components, int((power > 1e-9 * max(power[-1], 1e-30)).sum()))
        if n_used == 0:
            return np.empty(0, dtype=int)
        components = vectors[:, ::-1][:, :n_used]  # orthonormal: squared projections are R2
        value = np.zeros(X.shape[1])
        index = delay(np.arange(1, len(X) + 1)[:, None], list(delays), runs=runs)[counted] - 1
        padded = np.concatenate([X, np.zeros((1, X.shape[1]), dtype=X.dtype)])
        for column in index.T:
            moved = padded[column].astype(np.float64)
            moved -= moved.mean(axis=0)
            scale = np.sqrt((moved**2).sum(axis=0))
            projected = components.T @ moved
            value += np.divide(
                (projected**2).sum(axis=0), scale**2, out=np.zeros_like(scale), where=scale > 0
            )
    order = np.argsort(-value, kind="stable")[:n_voxels]
    return np.sort(order[np.isfinite(value[order])])


def _repeat_reliability(X, counted, runs, films):
    """Correlation of odd with even presentations of the same film, over films with repeats."""
    halves = [[], []]
    for film in np.unique(films[counted]):
        presentations = [
            X[rows]
            for run in np.unique(runs[counted & (films == film)])
            if len(rows := np.flatnonzero((films == film) & (runs == run)))
        ]
        if len(presentations) < 2:
            continue
        length = min(len(p) for p in presentations)
        for half in (0, 1):
            halves[half].append(np.mean([p[:length] for p in presentations[half::2]], axis=0))
    if not halves[0]:
        raise InputError(
            "`voxel_selection`='reliability' needs films shown more than once among the training "
            "samples (repeats concatenated, not averaged); got none: use 'best'."
        )
    first, second = (np.concatenate(half).astype(np.float64) for half in halves)
    first -= first.mean(axis=0)
    second -= second.mean(axis=0)
    scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return np.divide((first * second).sum(axis=0), scale, out=np.zeros(X.shape[1]), where=scale > 0)
