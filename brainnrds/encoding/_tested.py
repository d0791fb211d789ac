"""What is tested: which samples, whether they can be, and who shares the voxels."""

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np

from brainnrds._checks import InputError, check_labels
from brainnrds.encoding._arrays import one_blas_thread, own_stream, rows_of, stream_of
from brainnrds.encoding.scores import runs_by_fold

__all__ = ["Sharing", "check_shown_once", "check_tested", "predictions_and_folds", "tested_labels"]

# no power of two: what is done column by column would meet in the same few lines of the cache
_VOXELS_PER_BATCH = 500
# on a GPU: of one array of a batch, of which there are several in memory
_BATCH_BYTES = 2**27


class Sharing:
    """Threads that share batches of voxels; on a GPU two, so that one copies meanwhile."""

    def __init__(self, n_voxels, n_rows, n_jobs, device):
        size, self._device = _VOXELS_PER_BATCH, device
        self._n_threads = joblib.effective_n_jobs(n_jobs)
        if device != "cpu":
            size, self._n_threads = max(size, _BATCH_BYTES // (8 * n_rows)), 2
        self._batches = [slice(start, start + size) for start in range(0, n_voxels, size)]

    def __call__(self, function):
        """Results of a function of a slice of voxels, in order."""
        if self._n_threads == 1:
            return [function(batch) for batch in self._batches]
        of_caller = stream_of(self._device)

        def beside_others(batch):
            with own_stream(self._device, of_caller):
                return function(batch)

        # NumPy lets go of the interpreter in what takes long here; its products need no own threads
        with one_blas_thread(), ThreadPoolExecutor(self._n_threads) as threads:
            return list(threads.map(beside_others, self._batches))


def predictions_and_folds(predictions, folds):
    """Arrays of predictions, and the folds they came with."""
    carried = [p.folds for p in predictions if hasattr(p, "folds")]
    arrays = [np.asarray(p.predictions if hasattr(p, "folds") else p) for p in predictions]
    if folds is None and len(carried) < len(predictions):
        raise InputError(
            "`folds` must say in which fold each sample was predicted, as folds that train each "
            "other widen the null distribution; got None. Give the result of "
            "`held_out_predictions` as it is, or its `folds`; one label for one model."
        )
    folds = carried[0] if folds is None else np.asarray(folds)
    for other in carried:
        if not np.array_equal(other, folds) and len(other) == len(folds):
            raise InputError("predictions must come from the same `folds`; got different ones.")
    return arrays, folds


def check_tested(y, predictions, kept, n_jobs=1):
    """Refuse shapes that differ, and values that are not finite in tested samples."""
    share, tested = Sharing(y.shape[1], len(y), n_jobs, "cpu"), rows_of(kept, y)
    for name, array in [("y", y), *(("predictions", p) for p in predictions)]:
        if array.shape != y.shape:
            raise InputError(f"`{name}` must have the shape of `y`, {y.shape}; got {array.shape}.")

        # a sum is not finite where any of its terms is not; per run of rows without a copy
        def has_holes(batch, array=array):
            return ~np.isfinite(array[:, batch][tested]).all(0)

        holes = np.flatnonzero(np.concatenate(share(has_holes)))
        if len(holes):
            raise InputError(
                f"`{name}` must be finite in tested samples; got NaN or infinity in {len(holes)} "
                f"of {y.shape[1]} voxels, the first {holes[0]}: leave these voxels out."
            )


def check_shown_once(runs, films, kept):
    """Refuse films that are tested in several presentations."""
    for film in np.unique(films[kept]):
        rows = kept & (films == film)
        n_showings = 0
        for run in np.unique(runs[rows]):
            shown = films[(runs == run) & kept] == film
            n_showings += int(np.sum(np.diff(shown.astype(int), prepend=0) == 1))
        if n_showings > 1:
            raise InputError(
                f"every film must be tested once; got {n_showings} presentations of film {film}. "
                "Responses to one film are not independent: average them first "
                "(`brainnrds.io.average_repeats`), and their predictions."
            )


def tested_labels(n_samples, runs, films, folds):
    """Fill in missing labels; no film: fold -1. Parts of a run in different folds are runs here."""
    runs = check_labels(runs, n_samples)
    films = runs if films is None else check_labels(films, n_samples, name="films")
    folds = check_labels(folds, n_samples, name="folds")
    folds = np.where(films >= 0, folds, -1)
    if not (folds >= 0).any():
        raise InputError("`folds` must mark some samples with a film as predicted; got none.")
    return runs_by_fold(runs, folds), films, folds
