"""Time alignment between films and volumes, in seconds.

A volume at film time t belongs to the clip [t, t + duration); the delay of the response is left
to :class:`brainnrds.features.Delayer`.
"""

import numpy as np

from brainnrds._checks import InputError, check_labels

__all__ = ["distinct_clips", "frames_to_volumes", "place_features"]


def distinct_clips(
    films, film_times, *, clip_duration, film_durations, film_starts=None, resolution=0.01
):
    """List each clip that is needed once, however often its film was shown.

    Parameters
    ----------
    films : array of int of shape (n_samples,)
        Index of the film that a volume shows, -1 for none.
    film_times : array of shape (n_samples,)
        Seconds from the film's first frame to the volume.
    clip_duration : float
        Seconds, usually the repetition time.
    film_durations : sequence of float of length n_films
        Seconds. A clip that would reach beyond its film ends with the film, one that would start
        before the film starts with it.
    film_starts : sequence of float of length n_films or None, default=None
        Seconds from the film's first frame to what is shown first; None: 0. Clips keep to the part
        that is shown.
    resolution : float, default=0.01
        Clips whose onsets round to the same multiple of this (s) are one clip.

    Returns
    -------
    times : list of n_films arrays
        Onsets of the distinct clips of each film, ascending, in s; empty if it is not shown.
    index : array of int of shape (n_samples,)
        Row of each sample in the concatenation of all films' clips, -1 for none.

    Raises
    ------
    ValueError
        If a film is shorter than a clip, or a volume lies more than a clip outside its film.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import distinct_clips
    >>> times, index = distinct_clips(
    ...     np.array([0, 0, 1, -1, 0]), np.array([0.0, 2.0, 0.0, 0.0, 2.0]),
    ...     clip_duration=2.0, film_durations=[4.0, 3.0],
    ... )
    >>> [t.tolist() for t in times], index.tolist()
    ([[0.0, 2.0], [0.0]], [0, 1, 2, -1, 1])
    """
    film_times = np.asarray(film_times, dtype=np.float64)
    films = check_labels(films, len(film_times), name="films")
    if not clip_duration > 0:
        raise InputError(f"`clip_duration` must be positive, in s; got {clip_duration}.")
    if films.max(initial=-1) >= len(film_durations):
        raise InputError(
            f"`film_durations` must have one duration per film, {films.max() + 1}; got "
            f"{len(film_durations)}."
        )
    if film_starts is None:
        film_starts = np.zeros(len(film_durations))
    times, index, n_before = [], np.full(len(films), -1, dtype=np.int64), 0
    for film, (start, duration) in enumerate(zip(film_starts, film_durations, strict=True)):
        rows = films == film
        if not rows.any():
            times.append(np.empty(0))
            continue
        if duration < clip_duration:
            raise InputError(
                f"film {film} must be at least as long as a clip, {clip_duration:g} s; got "
                f"{duration:g} s."
            )
        shown = film_times[rows] - start
        if shown.min() <= -clip_duration or shown.max() >= duration:
            raise InputError(
                f"volumes of film {film} must lie within its {duration:g} s; got film times from "
                f"{shown.min():g} to {shown.max():g} s."
            )
        last = start + duration - clip_duration
        onsets = np.clip(film_times[rows], start, last)
        steps, inverse = np.unique(np.round(onsets / resolution), return_inverse=True)
        # rounding must not push the last clip over the film's end
        times.append(np.clip(steps * resolution, start, last))
        index[rows] = n_before + inverse.reshape(-1)
        n_before += len(steps)
    return times, index


def place_features(features, index):
    """Put the features of distinct clips in the order of the volumes.

    Parameters
    ----------
    features : sequence of arrays of shape (n_clips_of_the_film, n_features)
        One per film, rows as in the `times` of :func:`distinct_clips`.
    index : array of int of shape (n_samples,)
        From :func:`distinct_clips`.

    Returns
    -------
    X : array of float32 of shape (n_samples, n_features)
        Samples without a clip have the mean over all distinct clips: they say nothing.
    """
    rows = np.concatenate([np.asarray(part) for part in features if len(part)])
    index = check_labels(np.asarray(index), len(index), name="index")
    if index.max(initial=-1) >= len(rows) or index.min(initial=0) < -1:
        raise InputError(
            f"`index` must lie between -1 and the number of clips less 1, {len(rows) - 1}; got "
            f"values from {index.min()} to {index.max()}."
        )
    X = rows[np.maximum(index, 0)].astype(np.float32)
    X[index < 0] = rows.mean(0)
    return X


def frames_to_volumes(features, frame_times, volume_times, *, duration):
    """Average features of frames over the time of each volume.

    Parameters
    ----------
    features : array of shape (n_frames, n_features)
    frame_times : array of shape (n_frames,)
        Seconds, ascending, when each frame appears; rates may vary.
    volume_times : array of shape (n_volumes,)
        Seconds, on the clock of `frame_times`.
    duration : float
        Seconds of film per volume, usually the repetition time.

    Returns
    -------
    averaged : array of float of shape (n_volumes, n_features)
        Mean over [t, t + duration), each frame weighted by the time for which it is seen in it.
        The last frame is seen as long as the one before it. NaN where no frame is seen.
    """
    features = np.asarray(features)
    frame_times = np.asarray(frame_times, dtype=np.float64)
    volume_times = np.asarray(volume_times, dtype=np.float64)
    if frame_times.shape != (len(features),) or len(features) < 2:
        raise InputError(
            f"`frame_times` must have one time for each of at least 2 frames, {len(features)}; "
            f"got shape {frame_times.shape}."
        )
    if not (np.diff(frame_times) > 0).all():
        raise InputError("`frame_times` must ascend; got times that do not.")
    if not duration > 0:
        raise InputError(f"`duration` must be positive, in s; got {duration}.")
    borders = np.append(frame_times, 2 * frame_times[-1] - frame_times[-2])
    # integral of the piecewise constant features up to any time
    integral = np.zeros((len(borders), features.shape[1]))
    np.cumsum(features * np.diff(borders)[:, None], axis=0, out=integral[1:])

    def integrate_to(times):
        times = np.clip(times, borders[0], borders[-1])
        frame = np.minimum(np.searchsorted(borders, times, side="right") - 1, len(features) - 1)
        return integral[frame] + features[frame] * (times - borders[frame])[:, None], times

    until, end = integrate_to(volume_times + duration)
    before, start = integrate_to(volume_times)
    seen = (end - start)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(seen > 0, (until - before) / seen, np.nan)
