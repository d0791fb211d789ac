"""How much of the response the film explains, from repeats, and scores relative to that."""

import warnings

import numpy as np
from scipy.sparse import csr_array

from brainnrds._checks import InputError, check_labels
from brainnrds.encoding._arrays import namespace, to_numpy

__all__ = [
    "explainable_variance",
    "noise_ceiling",
    "normalized_score",
    "stack_repeats",
    "stack_trials",
]


def stack_repeats(bold, *, runs, films, film_times, tolerance=0.05):
    """Gather the repeats of every film that was shown more than once.

    Parameters
    ----------
    bold : array of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,)
        Label of the presentation that a sample belongs to.
    films : array of int of shape (n_samples,)
        Film label, -1 where no film is shown.
    film_times : array of shape (n_samples,)
        Seconds from the film's onset.
    tolerance : float, default=0.05
        Samples of two presentations are repeats of each other if their film times differ by less
        than this, in seconds.

    Returns
    -------
    repeats : list of arrays of shape (n_repeats, n_positions, n_voxels)
        One per film with at least 2 presentations; positions that are missing in a presentation
        are left out.
    """
    bold = np.asarray(bold)
    runs = check_labels(runs, len(bold))
    films = check_labels(films, len(bold), name="films")
    film_times = np.asarray(film_times, dtype=np.float64)
    if film_times.shape != (len(bold),):
        raise InputError(f"`film_times` must have shape ({len(bold)},); got {film_times.shape}.")
    repeats = []
    for film in np.unique(films[films >= 0]):
        presentations = np.unique(runs[films == film])
        if len(presentations) < 2:
            continue
        first, *others = (np.flatnonzero((films == film) & (runs == r)) for r in presentations)
        kept = [[row] for row in first]
        for rows in others:
            nearest = np.abs(film_times[rows][None] - film_times[first][:, None]).argmin(1)
            for position, row in zip(kept, rows[nearest], strict=True):
                if abs(film_times[row] - film_times[position[0]]) < tolerance:
                    position.append(row)
        rows = np.array([position for position in kept if len(position) == len(presentations)])
        if len(rows):
            repeats.append(bold[rows.T])
    return repeats


def stack_trials(bold, *, runs, films):
    """Gather the trials of all clips that were shown in several scanner runs.

    Trials of one run share its noise: those of a clip are averaged within the run first, and runs
    are what is repeated.

    Parameters
    ----------
    bold : array of shape (n_trials, n_voxels)
    runs : array of int of shape (n_trials,)
        Scanner run.
    films : array of int of shape (n_trials,)
        Label of the clip, -1 for trials that do not count.

    Returns
    -------
    repeats : list of arrays of shape (n_runs, n_clips, n_voxels)
        Of all clips that were shown in 2 runs, in 3, ...; in the order of first showings. Where
        only one clip was shown in so many runs, it is left out.
    """
    bold, runs, films = np.asarray(bold), np.asarray(runs), np.asarray(films)
    counted = np.flatnonzero(films >= 0)
    pairs, place = np.unique(np.stack([films, runs])[:, counted], axis=1, return_inverse=True)
    place = place.ravel()
    share = 1.0 / np.bincount(place)[place]
    mean = csr_array((share, (place, counted)), shape=(pairs.shape[1], len(bold))) @ bold
    clips, first = np.unique(films[counted], return_index=True)
    clips = clips[np.argsort(first)]
    n_runs = np.bincount(pairs[0], minlength=1)[clips] if len(clips) else clips
    repeats = []
    for n in np.unique(n_runs[n_runs > 1]):
        alike = clips[n_runs == n]
        if len(alike) > 1:
            rows = np.stack([np.flatnonzero(pairs[0] == clip) for clip in alike], axis=1)
            repeats.append(mean[rows.ravel()].reshape(*rows.shape, -1))
    return repeats


def explainable_variance(repeats):
    """Estimate the share of a single presentation's variance that the film explains.

    With :math:`\\sigma^2_{within}` the variance between repeats of the same position and
    :math:`\\sigma^2` the total variance of a single presentation, it is
    :math:`1 - \\sigma^2_{within} / \\sigma^2`. Both are unbiased estimates (the within variance has
    n_repeats - 1 degrees of freedom per position), so that noise has 0 on average and single
    voxels can be negative [1]_ [2]_.

    Parameters
    ----------
    repeats : array of shape (n_repeats, n_samples, n_voxels), or list of such arrays
        A list has one array per film; films may differ in length and in number of repeats. The
        mean of each presentation is removed. Tensors are computed with where they are.

    Returns
    -------
    explainable_variance : array of float64 of shape (n_voxels,)
        NaN for constant voxels.

    References
    ----------
    .. [1] Hsu A, Borst A, Theunissen FE (2004). Quantifying variability in neural responses and
       its application for the validation of model predictions. Network 15, 91-109.
    .. [2] Schoppe O, et al. (2016). Measuring the performance of neural models. Frontiers in
       Computational Neuroscience 10, 10.
    """
    films = repeats if isinstance(repeats, list) else [repeats]
    if not films:
        raise InputError("`repeats` must hold a film that is shown at least twice; got none.")
    xp = namespace(films[0])
    films = [xp.asarray(film) for film in films]
    within, within_df, total, total_df = 0.0, 0, 0.0, 0
    for film in films:
        if film.ndim != 3 or film.shape[0] < 2 or film.shape[1] < 2:
            raise InputError(
                "`repeats` must have shape (n_repeats, n_samples, n_voxels) with at least 2 "
                f"repeats and 2 samples; got {film.shape}."
            )
        n_repeats, n_positions = film.shape[:2]
        centred = film - film.mean(1, keepdims=True, dtype=xp.float64)
        within = within + ((centred - centred.mean(0)) ** 2).sum((0, 1))
        within_df += (n_repeats - 1) * (n_positions - 1)
        total = total + (centred**2).sum((0, 1))
        total_df += n_repeats * (n_positions - 1)
    total = xp.where(total > 1e-12 * total_df, total, np.nan)
    return to_numpy(1 - (within / within_df) / (total / total_df))


def noise_ceiling(explainable_variance, n_repeats=1):
    """Return the largest share of the averaged response's variance that a model can predict.

    Averaging n repeats divides the noise variance by n. With explainable variance e of a single
    presentation the ceiling is :math:`e / (e + (1 - e) / n)`, the Spearman-Brown formula [1]_.

    Parameters
    ----------
    explainable_variance : array of shape (n_voxels,)
        Of a single presentation. Negative estimates give a ceiling of 0.
    n_repeats : int or array of int of shape (n_samples,), default=1
        Presentations in the average, one number or one per sample of the tested series.

    Returns
    -------
    ceiling : array of float64 of shape (n_voxels,)
        In units of R2; the largest attainable correlation is its square root.

    References
    ----------
    .. [1] Spearman C (1910). Correlation calculated from faulty data. British Journal of
       Psychology 3, 271-295.
    """
    n_repeats = np.asarray(n_repeats)
    if n_repeats.dtype.kind not in "iu" or n_repeats.size == 0 or n_repeats.min() < 1:
        raise InputError(f"`n_repeats` must be ints of at least 1; got {n_repeats!r}.")
    signal = np.clip(np.asarray(explainable_variance, dtype=np.float64), 0, 1)
    return signal / (signal + (1 - signal) * np.mean(1.0 / n_repeats) + 1e-300)


def normalized_score(score, ceiling, *, metric="r", smallest_ceiling=0.1, name="scores"):
    """Divide scores by what is attainable.

    Parameters
    ----------
    score : array of shape (n_voxels,)
        Held-out scores.
    ceiling : array of shape (n_voxels,)
        From :func:`noise_ceiling`, in units of R2.
    metric : {"r", "r2"}, default="r"
        What `score` is. Correlations are divided by the ceiling's square root.
    smallest_ceiling : float, default=0.1
        Below it, the ratio is dominated by the ceiling's own error and is NaN.
    name : str, default="scores"
        What the warning calls them.

    Returns
    -------
    normalised : array of float64 of shape (n_voxels,)
        Not clipped: values above 1 stay, and are counted in a warning.
    """
    if metric not in ("r", "r2"):
        raise InputError(f"`metric` must be 'r' or 'r2'; got {metric!r}.")
    score = np.asarray(score, dtype=np.float64)
    ceiling = np.asarray(ceiling, dtype=np.float64)
    if score.shape != ceiling.shape:
        raise InputError(
            f"`ceiling` must have the shape of `score`, {score.shape}; got {ceiling.shape}."
        )
    usable = ceiling > smallest_ceiling
    attainable = np.where(usable, ceiling, np.nan)
    normalised = score / (np.sqrt(attainable) if metric == "r" else attainable)
    n_above = int(np.sum(normalised > 1))
    if n_above:
        warnings.warn(
            f"{n_above} of {int(usable.sum())} normalised {name} exceed 1 (the ceiling is an "
            "estimate); they are kept.",
            RuntimeWarning,
            stacklevel=2,
        )
    return normalised
