"""Which of several feature spaces predicts a voxel best, as the training films tell it."""

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError

__all__ = ["preferred_space"]


def preferred_space(held_out):
    """Find the preferred feature space of each voxel, and what it predicts of held-out films.

    Of the layers of a network, say. In each outer fold a voxel takes the space whose model has the
    best score of the inner cross-validation, which knows training films only; the tested films are
    then predicted by that model. The best held-out score of several spaces would be the best partly
    by chance, and so would a preference that is read from it.

    Parameters
    ----------
    held_out : sequence of Bunch
        Of each space, from :func:`brainnrds.encoding.held_out_predictions` with
        ``training_scores=True``, with the same folds.

    Returns
    -------
    preference : Bunch
        ``preferred`` : array of float of shape (n_voxels,), index of the space with the best
        training score, averaged over folds; NaN where all are equal. ``in_fold`` : array of int of
        shape (n_folds, n_voxels), the index that each fold took. ``agreement`` : array of shape
        (n_voxels,), share of the folds that took `preferred`. ``predictions`` : array of float32 of
        shape (n_samples, n_voxels) and ``folds``, as of one model.

    Notes
    -----
    Folds share most of their training films, so that they agree by chance as well. Where no space
    predicts a voxel, its preference says nothing: look where ``predictions`` are tested to match.
    """
    first = held_out[0]
    for other in held_out[1:]:
        if not np.array_equal(other.folds, first.folds):
            raise InputError("`held_out` must come from the same folds; got different ones.")
    scores = np.stack([np.asarray(one.training_scores, dtype=np.float64) for one in held_out])
    in_fold = scores.argmax(0)
    mean = scores.mean(1)
    preferred = np.where(np.ptp(mean, axis=0) > 0, mean.argmax(0), np.nan)
    predictions = np.full(first.predictions.shape, np.nan, dtype=np.float32)
    for fold, chosen in enumerate(in_fold):
        rows = np.flatnonzero(first.folds == fold)
        for i, one in enumerate(held_out):
            voxels = np.flatnonzero(chosen == i)
            place = np.ix_(rows, voxels)
            predictions[place] = one.predictions[place]
    return Bunch(
        preferred=preferred,
        in_fold=in_fold,
        agreement=np.mean(in_fold == preferred, axis=0),
        predictions=predictions,
        folds=first.folds,
    )
