"""Variance partitioning: what two or three feature spaces explain alone, and what they share."""

from itertools import combinations

import numpy as np

from brainnrds._checks import InputError
from brainnrds.encoding.scores import r2_score

__all__ = ["partition_variance"]


def partition_variance(y, held_out, *, runs=None, folds=None):
    """Divide the variance that feature spaces explain together among the areas of a Venn diagram.

    Of an area that some spaces share and the others lack, the variance is what is lost when those
    spaces leave the joint model together, less what is lost when fewer of them leave [1]_:
    inclusion and exclusion over models with every subset of the spaces.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    held_out : dict of tuple of str to array of shape (n_samples, n_voxels)
        Held-out predictions by the spaces, or groups of spaces, of each model: of every subset of
        two or three, such as ``{("video",): ..., ("image",): ..., ("video", "image"): ...}``. Where
        every model has control spaces besides, ``()`` is the model of these alone, and all areas
        are beyond them.
    runs, folds
        As in :func:`brainnrds.encoding.r2_score`.

    Returns
    -------
    areas : dict of tuple of str to array of float64 of shape (n_voxels,)
        R2 by the spaces that share it; the areas sum to the R2 of the joint model (less that of the
        control spaces). Noise makes small areas negative; where spaces suppress each other's noise,
        what they share is negative, too.

    Raises
    ------
    InputError
        A subset is missing, or there are not two or three spaces.

    References
    ----------
    .. [1] Lescroart MD, Stansbury DE, Gallant JL (2015). Fourier power, subjective distance, and
       object categories all provide plausible models of BOLD responses in scene-selective visual
       areas. Frontiers in Computational Neuroscience 9, 135.
    """
    names = max(held_out, key=len, default=())
    if len(names) not in (2, 3):
        raise InputError(f"variance is divided among two or three spaces; got {list(names)}.")
    subsets = [s for size in range(1, len(names) + 1) for s in combinations(names, size)]
    given = {frozenset(spaces): predictions for spaces, predictions in held_out.items()}
    missing = [subset for subset in subsets if frozenset(subset) not in given]
    if missing or len(given) != len(subsets) + (frozenset() in given):
        raise InputError(
            f"`held_out` must have a model of every subset of {list(names)} and no other; got "
            f"{[list(spaces) for spaces in held_out]}."
        )
    explained = {s: r2_score(y, p, runs=runs, folds=folds) for s, p in given.items()}
    explained.setdefault(frozenset(), np.zeros(np.shape(y)[1]))
    areas = {}
    for subset in subsets:
        others = frozenset(names) - frozenset(subset)
        areas[subset] = sum(
            (-1) ** (size + 1) * explained[others | frozenset(inside)]
            for size in range(len(subset) + 1)
            for inside in combinations(subset, size)
        )
    return areas
