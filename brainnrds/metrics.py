"""Scores of flow and video, each a pure function that says how it averages.

No function here trains, reads files or knows an encoder; embeddings come in as arrays. Flow scores
take ``average``, which has no default on purpose: the field prints numbers an order of magnitude
apart under one name.
"""

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.special import gammaln

from brainnrds._checks import InputError, check_clips, check_flow, check_mask
from brainnrds.flow import in_frame, warp

__all__ = [
    "direction_accuracy",
    "embedding_cosine",
    "end_point_error",
    "flicker",
    "flow_cosine",
    "identification_accuracy",
    "pairwise_end_point_error",
    "structural_similarity",
]

_AVERAGES = ("cells", "clips", "none")


def _check_pair(flow, flow_true):
    flow = check_flow(flow, name="flow")
    flow_true = check_flow(flow_true, name="flow_true")
    if flow.shape != flow_true.shape:
        raise InputError(
            f"`flow` must have the shape of `flow_true`, {flow_true.shape}; got {flow.shape}."
        )
    return flow, flow_true


def _counted_cells(flow_true, mask, min_motion, needs_direction=False):
    """Return the bool array of the cells that count, (n_clips, n_steps, height, width)."""
    n_clips, n_steps, _, height, width = flow_true.shape
    if min_motion < 0:
        raise InputError(f"`min_motion` must not be negative; got {min_motion!r}.")
    counted = np.ones((n_clips, n_steps, height, width), dtype=bool)
    if mask is not None:
        counted &= check_mask(mask, counted.shape)
    if min_motion > 0 or needs_direction:
        speed = np.linalg.norm(flow_true, axis=2)
        counted &= (speed >= min_motion) & (speed > 0) if needs_direction else speed >= min_motion
    return counted


def _average(values, counted, average):
    if average not in _AVERAGES:
        raise InputError(f"`average` must be one of {_AVERAGES}; got {average!r}.")
    axes = tuple(range(1, values.ndim))
    n_counted = counted.sum(axis=axes)
    total = np.where(counted, values, 0).sum(axis=axes, dtype=np.float64)
    if average == "cells":
        return float(total.sum() / n_counted.sum()) if n_counted.any() else float("nan")
    per_clip = np.full(len(values), np.nan)
    np.divide(total, n_counted, out=per_clip, where=n_counted > 0)
    if average == "none":
        return per_clip
    return float(np.nanmean(per_clip)) if n_counted.any() else float("nan")


def end_point_error(flow, flow_true, *, average, mask=None, min_motion=0.0):
    """Length of the difference between flow and true flow, averaged.

    Parameters
    ----------
    flow, flow_true : array of shape (n_clips, n_steps, 2, height, width)
        Pixels of their common grid per step.
    average : {"cells", "clips", "none"}
        "cells": all counted cells of all clips weigh the same. "clips": the mean of each clip, then
        the mean over clips with at least one counted cell. "none": the mean of each clip.
    mask : bool array of shape (n_clips, n_steps, height, width), default=None
        True = counted; None counts all.
    min_motion : float, default=0.0
        Only cells whose *true* motion is at least this long count ("thresholded"), px of this grid
        per step.

    Returns
    -------
    error : float, or array of shape (n_clips,) with ``average="none"``
        Pixels of the grid per step; NaN where nothing counts. Lower is better.
    """
    flow, flow_true = _check_pair(flow, flow_true)
    counted = _counted_cells(flow_true, mask, min_motion)
    return _average(np.linalg.norm(flow - flow_true, axis=2), counted, average)


def flow_cosine(flow, flow_true, *, average, mask=None, min_motion=0.0):
    """Cosine between flow and true flow, cell by cell, averaged.

    Parameters
    ----------
    flow, flow_true : array of shape (n_clips, n_steps, 2, height, width)
    average : {"cells", "clips", "none"}
        As in `end_point_error`.
    mask : bool array of shape (n_clips, n_steps, height, width), default=None
    min_motion : float, default=0.0
        As in `end_point_error`. Cells without true motion have no direction and never count.

    Returns
    -------
    cosine : float, or array of shape (n_clips,) with ``average="none"``
        In [-1, 1]; a cell predicted to be still contributes 0, which is chance.
    """
    flow, flow_true = _check_pair(flow, flow_true)
    counted = _counted_cells(flow_true, mask, min_motion, needs_direction=True)
    lengths = np.linalg.norm(flow, axis=2) * np.linalg.norm(flow_true, axis=2)
    dots = (flow * flow_true).sum(axis=2)
    cosine = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return _average(cosine, counted, average)


def direction_accuracy(flow, flow_true, *, average, n_directions=8, mask=None, min_motion=0.0):
    """Share of cells whose direction falls into the right one of equal sectors.

    Sectors are centred on 0 degrees (right), 360 / n_directions, ...; chance is 1 / n_directions
    for directions that are uniform, and more for a predictor that knows which direction is
    frequent.

    Parameters
    ----------
    flow, flow_true : array of shape (n_clips, n_steps, 2, height, width)
    average : {"cells", "clips", "none"}
        As in `end_point_error`.
    n_directions : int, default=8
    mask : bool array of shape (n_clips, n_steps, height, width), default=None
    min_motion : float, default=0.0
        As in `end_point_error`. Cells without true motion never count.

    Returns
    -------
    accuracy : float, or array of shape (n_clips,) with ``average="none"``
        A cell predicted to be still is wrong.
    """
    if int(n_directions) != n_directions or n_directions < 2:
        raise InputError(f"`n_directions` must be an int of at least 2; got {n_directions!r}.")
    flow, flow_true = _check_pair(flow, flow_true)
    counted = _counted_cells(flow_true, mask, min_motion, needs_direction=True)

    def sector(field):
        angle = np.arctan2(field[:, :, 1], field[:, :, 0])
        return np.round(angle / (2 * np.pi / n_directions)).astype(int) % n_directions

    right = (sector(flow) == sector(flow_true)) & (np.abs(flow).max(axis=2) > 0)
    return _average(right.astype(np.float32), counted, average)


def pairwise_end_point_error(flow, flow_true, *, mask=None):
    """End-point error between every prediction and every true clip.

    Parameters
    ----------
    flow, flow_true : array of shape (n_clips, n_steps, 2, height, width)
    mask : bool array of shape (n_clips, n_steps, height, width), default=None
        Cells of the *predicted* clip that count (a mask of the true clip would tell the clips apart
        by itself). Clips without a counted cell use all their cells.

    Returns
    -------
    errors : array of float32 of shape (n_clips, n_clips)
        Row: prediction; column: true clip. Mean over counted cells, px of the grid per step.
    """
    flow, flow_true = _check_pair(flow, flow_true)
    n_clips = len(flow)
    predicted = np.moveaxis(flow, 2, 1).reshape(n_clips, 2, -1)
    true = np.moveaxis(flow_true, 2, 1).reshape(n_clips, 2, -1)
    counted = (
        None if mask is None else check_mask(mask, np.delete(flow.shape, 2)).reshape(n_clips, -1)
    )
    errors = np.empty((n_clips, n_clips), dtype=np.float32)
    for i in range(n_clips):
        cells = slice(None)
        if counted is not None and counted[i].any():
            cells = np.flatnonzero(counted[i])
        dx = predicted[i, 0, cells] - true[:, 0, cells]
        dy = predicted[i, 1, cells] - true[:, 1, cells]
        errors[i] = np.sqrt(dx * dx + dy * dy).mean(axis=1)
    return errors


def _log_choose(n, k):
    valid = (k >= 0) & (k <= n)
    n, k = np.where(valid, n, 0), np.where(valid, k, 0)
    value = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return np.where(valid, value, -np.inf)


def identification_accuracy(similarity, *, n_way=None, candidates=None):
    """Probability that a prediction picks out its own clip among n_way, exactly.

    Instead of drawing distractors, the probability over all draws without replacement is computed
    from how many clips are less similar, and how many tie (a tie is broken at random).

    Parameters
    ----------
    similarity : array of shape (n_clips, n_clips)
        Row: prediction; column: true clip; the right one is on the diagonal. Larger = more similar
        (pass minus an error).
    n_way : int, default=None
        The true clip and ``n_way - 1`` distractors; None = all candidates.
    candidates : bool array of shape (n_clips, n_clips), default=None
        Which clips may be distractors of which prediction (for example only other films); None =
        all.

    Returns
    -------
    accuracy : array of float64 of shape (n_clips,)
        Chance is ``1 / n_way``; NaN where a clip has fewer than ``n_way - 1`` distractors.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    n_clips = len(similarity)
    if similarity.shape != (n_clips, n_clips) or n_clips < 2 or not np.isfinite(similarity).all():
        raise InputError(
            "`similarity` must be finite with shape (n_clips, n_clips), n_clips >= 2; got shape "
            f"{similarity.shape}."
        )
    if candidates is None:
        allowed = np.ones_like(similarity, dtype=bool)
    else:
        allowed = check_mask(candidates, similarity.shape, name="candidates").copy()
    np.fill_diagonal(allowed, False)
    n_distractors = allowed.sum(axis=1)
    if n_way is None:
        n_drawn = n_distractors
    else:
        if int(n_way) != n_way or not 2 <= n_way <= n_clips:
            raise InputError(
                f"`n_way` must be an int from 2 to n_clips = {n_clips}; got {n_way!r}."
            )
        n_drawn = np.full(n_clips, int(n_way) - 1)
    own = np.diag(similarity)[:, None]
    n_worse = (allowed & (similarity < own)).sum(axis=1)
    n_tied = (allowed & (similarity == own)).sum(axis=1)
    accuracy = np.zeros(n_clips)
    total = _log_choose(n_distractors, n_drawn)
    for tied in range(int(n_tied.max()) + 1):
        drawn = _log_choose(n_tied, np.full(n_clips, tied)) + _log_choose(n_worse, n_drawn - tied)
        with np.errstate(invalid="ignore"):
            accuracy += np.where(np.isfinite(drawn), np.exp(drawn - total), 0) / (tied + 1)
    return np.where((n_drawn > n_distractors) | (n_drawn < 1), np.nan, accuracy)


def structural_similarity(images, images_true, *, data_range=1.0, window=7):
    """Structural similarity (SSIM) of images, channel by channel, then averaged.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861, with a square window of equal weights, the
    unbiased variance, K1 = .01, K2 = .03; the mean leaves out a border of half a window: what
    scikit-image's function of this name computes by default.

    Parameters
    ----------
    images, images_true : array of shape (..., n_channels, height, width)
    data_range : float, default=1.0
        Largest minus smallest possible value.
    window : int, default=7
        Odd side length of the window, px.

    Returns
    -------
    similarity : array of float64 of shape (...)
        1 = identical.
    """
    images = np.asarray(images)
    images_true = np.asarray(images_true)
    if images.shape != images_true.shape or images.ndim < 3:
        raise InputError(
            "`images` and `images_true` must have one shape (..., n_channels, height, width); got "
            f"{images.shape} and {images_true.shape}."
        )
    if window % 2 != 1 or window < 3 or window > min(images.shape[-2:]):
        raise InputError(
            f"`window` must be odd, at least 3 and fit in {images.shape[-2:]}; got {window!r}."
        )
    if not data_range > 0:
        raise InputError(f"`data_range` must be positive; got {data_range!r}.")
    leading = images.shape[:-3]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    unbiased = window**2 / (window**2 - 1)
    half = window // 2
    similarity = np.empty(int(np.prod(leading)))
    pairs = zip(
        images.reshape(-1, *images.shape[-3:]),
        images_true.reshape(-1, *images.shape[-3:]),
        strict=True,
    )
    for i, (a, b) in enumerate(pairs):
        a, b = a.astype(np.float64), b.astype(np.float64)

        def local_mean(array):
            return uniform_filter(array, size=(1, window, window))[:, half:-half, half:-half]

        mean_a, mean_b = local_mean(a), local_mean(b)
        var_a = unbiased * (local_mean(a * a) - mean_a**2)
        var_b = unbiased * (local_mean(b * b) - mean_b**2)
        covariance = unbiased * (local_mean(a * b) - mean_a * mean_b)
        ratio = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        ratio /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        similarity[i] = ratio.mean()
    return similarity.reshape(leading)


def embedding_cosine(embeddings, embeddings_true):
    """Cosine between embeddings, row by row.

    Parameters
    ----------
    embeddings, embeddings_true : array of shape (..., n_features)

    Returns
    -------
    cosine : array of float64 of shape (...)
        0 where one of the two is all zero.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    embeddings_true = np.asarray(embeddings_true, dtype=np.float64)
    if embeddings.shape != embeddings_true.shape or embeddings.ndim < 1:
        raise InputError(
            "`embeddings` and `embeddings_true` must have one shape (..., n_features); got "
            f"{embeddings.shape} and {embeddings_true.shape}."
        )
    lengths = np.linalg.norm(embeddings, axis=-1) * np.linalg.norm(embeddings_true, axis=-1)
    dots = (embeddings * embeddings_true).sum(axis=-1)
    return np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)


def flicker(clips, *, flow=None):
    """Mean absolute change between successive frames that motion does not explain.

    The warping error of Lai et al. 2018 (arXiv:1808.00449) with the absolute difference: frame t +
    1, warped back along the flow, minus frame t, over pixels whose motion stays in the frame.

    Parameters
    ----------
    clips : array of shape (n_clips, n_frames, 3, height, width)
        In [0, 1].
    flow : array of shape (n_clips, n_frames - 1, 2, height, width), default=None
        Pixels of the clips' grid per frame; None = no motion.

    Returns
    -------
    flicker : array of float64 of shape (n_clips,)
        In [0, 1], lower is steadier. A frozen picture scores 0 without flow: never read it alone.
    """
    clips = check_clips(clips)
    n_clips, n_frames, _, height, width = clips.shape
    if n_frames < 2:
        raise InputError(f"`clips` must have at least two frames; got shape {clips.shape}.")
    if flow is None:
        return np.abs(np.diff(clips, axis=1)).mean(axis=(1, 2, 3, 4), dtype=np.float64)
    flow = check_flow(flow)
    if flow.shape != (n_clips, n_frames - 1, 2, height, width):
        raise InputError(
            f"`flow` must have shape {(n_clips, n_frames - 1, 2, height, width)} for clips "
            f"{clips.shape}; got {flow.shape}."
        )
    change = np.empty(n_clips)
    for i in range(n_clips):
        back = warp(clips[i, 1:], flow[i])
        inside = in_frame(flow[i])
        difference = np.abs(back - clips[i, :-1]).mean(axis=1, dtype=np.float64)
        change[i] = difference[inside].mean() if inside.any() else np.nan
    return change
