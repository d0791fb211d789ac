"""Arithmetic of optical flow: compose, warp, resize, cuts, dominant motion.

Flow has one layout and one unit in this package: ``(n_clips, n_steps, 2, height, width)``, channel
0 is dx (right), channel 1 is dy (down), in **pixels of that grid per step**. A vector stands where
the motion starts: a point at ``x`` before step ``t`` is at ``x + flow[t](x)`` after it. Pixel
centres lie at integer coordinates, and the image covers ``[-0.5, width - 0.5]``.

There is one clock. A clip lasts `duration` s; its frame k of n is shown at ``k * duration / n``, so
that the last frame comes one interval before the end; step i of its flow lasts from
``i * duration / n_steps`` to ``(i + 1) * duration / n_steps``.
"""

from functools import reduce
from itertools import pairwise

import numpy as np

from brainnrds._checks import InputError, check_clips, check_flow

__all__ = [
    "accumulate_flow",
    "compose_flow",
    "cut_scores",
    "detect_cuts",
    "dominant_motion",
    "in_frame",
    "motion_masks",
    "resampling_matrix",
    "resize_flow",
    "step_shares",
    "warp",
]

# hues from red over yellow, green, cyan, blue and magenta back to red, and the number of colours
# between one and the next
_HUES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
_N_BETWEEN = (15, 6, 4, 11, 13, 6)


def _pixel_grid(height, width):
    """Return x and y of the pixel centres, each (height, width)."""
    y, x = np.meshgrid(
        np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij"
    )
    return x, y


def _sample_bilinear(images, x, y):
    """Read images (n, c, h, w) at x, y (n, h', w'); coordinates outside take the border's value."""
    n_images, n_channels, height, width = images.shape
    x = np.clip(x, 0, width - 1)
    y = np.clip(y, 0, height - 1)
    left = np.minimum(x.astype(np.int64), max(width - 2, 0))
    top = np.minimum(y.astype(np.int64), max(height - 2, 0))
    right = np.minimum(left + 1, width - 1)
    bottom = np.minimum(top + 1, height - 1)
    fx = (x - left).astype(images.dtype)[:, None]
    fy = (y - top).astype(images.dtype)[:, None]
    index = np.arange(n_images)[:, None, None, None]
    channel = np.arange(n_channels)[None, :, None, None]

    def corner(row, column):
        return images[index, channel, row[:, None], column[:, None]]

    upper = corner(top, left) * (1 - fx) + corner(top, right) * fx
    lower = corner(bottom, left) * (1 - fx) + corner(bottom, right) * fx
    return upper * (1 - fy) + lower * fy


def _check_single_flow(flow, name):
    flow = np.asarray(flow, dtype=np.float32)
    if flow.ndim != 4 or flow.shape[1] != 2 or 0 in flow.shape:
        raise InputError(
            f"`{name}` must have shape (n_images, 2, height, width); got {flow.shape}."
        )
    if not np.isfinite(flow).all():
        raise InputError(f"`{name}` must be finite; got NaN or infinity.")
    return flow


def warp(images, flow):
    """Warp images backward: read each output pixel where the flow points.

    ``output(x) = images(x + flow(x))``, bilinear. With ``flow`` from frame A to frame B and
    ``images`` = B the result looks like A.

    Parameters
    ----------
    images : array of shape (n_images, n_channels, height, width)
    flow : array of shape (n_images, 2, height, width)
        Pixels of the images' grid.

    Returns
    -------
    warped : array of float32 of shape (n_images, n_channels, height, width)
        Where the flow points outside the image, the border's value is repeated (see `in_frame`).
    """
    flow = _check_single_flow(flow, "flow")
    images = np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or images.shape[0] != flow.shape[0] or images.shape[2:] != flow.shape[2:]:
        raise InputError(
            "`images` must have shape (n_images, n_channels, height, width) on the flow's grid; "
            f"got images {images.shape} and flow {flow.shape}."
        )
    x, y = _pixel_grid(*flow.shape[2:])
    return _sample_bilinear(images, x + flow[:, 0], y + flow[:, 1])


def in_frame(flow):
    """Tell which pixels' motion ends inside the image.

    Parameters
    ----------
    flow : array of shape (n_images, 2, height, width)
        Pixels of its own grid.

    Returns
    -------
    inside : bool array of shape (n_images, height, width)
    """
    flow = _check_single_flow(flow, "flow")
    height, width = flow.shape[2:]
    x, y = _pixel_grid(height, width)
    x, y = x + flow[:, 0], y + flow[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def compose_flow(first, second):
    """Chain two flows: the displacement of ``first`` followed by ``second``.

    ``composed(x) = first(x) + second(x + first(x))``; outside the image the border's motion
    continues.

    Parameters
    ----------
    first, second : array of shape (n_images, 2, height, width)
        Pixels of their common grid.

    Returns
    -------
    composed : array of float32, same shape
    """
    first = _check_single_flow(first, "first")
    second = _check_single_flow(second, "second")
    if first.shape != second.shape:
        raise InputError(
            f"`first` and `second` must have one shape; got {first.shape} and {second.shape}."
        )
    return first + warp(second, first)


def accumulate_flow(flow):
    """Accumulate stepwise flow into displacements from the initial frame.

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, height, width)
        Pixels per step.

    Returns
    -------
    displacement : array of float32, same shape
        Entry t is where each pixel of the initial frame has gone after step t, in pixels.
    """
    flow = check_flow(flow)
    displacement = np.empty_like(flow)
    displacement[:, 0] = flow[:, 0]
    for step in range(1, flow.shape[1]):
        displacement[:, step] = compose_flow(displacement[:, step - 1], flow[:, step])
    return displacement


def resampling_matrix(n_new, n_old):
    """Return the weights that resample one axis: area mean when shrinking, bilinear when growing.

    Parameters
    ----------
    n_new, n_old : int
        Numbers of pixels.

    Returns
    -------
    weights : array of float32 of shape (n_new, n_old)
        Each row sums to 1; pixel centres as in the module's docstring.
    """
    if n_new == n_old:
        return np.eye(n_old, dtype=np.float32)
    weights = np.zeros((n_new, n_old))
    if n_new < n_old:
        edges = np.arange(n_new + 1) * (n_old / n_new)
        pixels = np.arange(n_old)
        low = np.maximum(edges[:-1, None], pixels)
        high = np.minimum(edges[1:, None], pixels + 1)
        weights = np.maximum(high - low, 0)
        weights /= weights.sum(axis=1, keepdims=True)
    else:
        centre = np.clip((np.arange(n_new) + 0.5) * (n_old / n_new) - 0.5, 0, n_old - 1)
        left = np.minimum(centre.astype(int), max(n_old - 2, 0))
        fraction = centre - left
        rows = np.arange(n_new)
        weights[rows, left] += 1 - fraction
        weights[rows, np.minimum(left + 1, n_old - 1)] += fraction
    return weights.astype(np.float32)


def step_shares(borders, n_steps):
    """Say which parts of which stretches of time make up each of `n_steps` equal steps.

    Parameters
    ----------
    borders : array of shape (n_stretches + 1,)
        Ascending; stretch j lasts from ``borders[j]`` to ``borders[j + 1]``.
    n_steps : int
        Equal steps from the first to the last border.

    Returns
    -------
    shares : list of list of (stretch, share)
        For every step the stretches that it overlaps, in order, and the share of each stretch
        that lies in it. The shares of a stretch sum to 1.
    """
    borders = np.asarray(borders, dtype=np.float64)
    steps = np.linspace(borders[0], borders[-1], n_steps + 1)
    shares = []
    for start, stop in pairwise(steps):
        overlap = np.minimum(stop, borders[1:]) - np.maximum(start, borders[:-1])
        share = overlap / np.diff(borders)
        shares.append([(int(j), float(share[j])) for j in np.flatnonzero(share > 1e-9)])
    return shares


def _resize_steps(flow, n_steps):
    resized = np.empty((flow.shape[0], n_steps, *flow.shape[2:]), dtype=np.float32)
    for step, shares in enumerate(step_shares(np.arange(flow.shape[1] + 1), n_steps)):
        parts = (flow[:, old] * np.float32(share) for old, share in shares)
        resized[:, step] = reduce(compose_flow, parts)
    return resized


def resize_flow(flow, size=None, *, n_steps=None):
    """Bring flow to another grid or another number of steps, and rescale its vectors to match.

    The only function of the package that changes a flow's grid or steps. The film's duration stays:
    fewer steps are longer ones.

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, height, width)
    size : tuple (height, width), default=None
        The new grid; None keeps it. Shrinking averages over areas, growing is bilinear between
        pixel centres. dx is multiplied by new width / old width, dy by new height / old height.
    n_steps : int, default=None
        The new number of steps over the same time; None keeps it. Motion is taken as constant
        within a step: a part of a step moves by that part of its vector, and parts are composed
        along the path (`compose_flow`).

    Returns
    -------
    flow : array of float32 of shape (n_clips, n_steps, 2, height, width)
        Pixels of the new grid per new step.
    """
    flow = check_flow(flow)
    if n_steps is not None and n_steps != flow.shape[1]:
        if int(n_steps) != n_steps or n_steps < 1:
            raise InputError(f"`n_steps` must be a positive int; got {n_steps!r}.")
        flow = _resize_steps(flow, int(n_steps))
    if size is not None and tuple(size) != flow.shape[3:]:
        if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
            raise InputError(f"`size` must be (height, width), both positive ints; got {size!r}.")
        (new_height, new_width), (height, width) = size, flow.shape[3:]
        rows = resampling_matrix(int(new_height), height)
        columns = resampling_matrix(int(new_width), width)
        scale = np.array([new_width / width, new_height / height], dtype=np.float32)
        flow = (rows @ flow @ columns.T) * scale[:, None, None]
    return flow.astype(np.float32, copy=False)


def _colour_histogram(frame, n_bins):
    bins = np.minimum((frame * n_bins).astype(np.int64), n_bins - 1)
    joint = (bins[0] * n_bins + bins[1]) * n_bins + bins[2]
    counts = np.bincount(joint.ravel(), minlength=n_bins**3).astype(np.float64)
    # one bin's width of blur: a slight change of exposure must not empty every bin
    counts = counts.reshape(n_bins, n_bins, n_bins)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        counts = (
            np.take(padded, range(n_bins), axis)
            + 2 * np.take(padded, range(1, n_bins + 1), axis)
            + np.take(padded, range(2, n_bins + 2), axis)
        )
    return counts / counts.sum()


def _block_means(frame, n_blocks=16):
    luminance = np.tensordot(np.array([0.299, 0.587, 0.114], dtype=np.float32), frame, axes=1)
    rows = resampling_matrix(min(n_blocks, luminance.shape[0]), luminance.shape[0])
    columns = resampling_matrix(min(n_blocks, luminance.shape[1]), luminance.shape[1])
    return rows @ luminance @ columns.T


def cut_scores(clips):
    """Score every pair of successive frames for a cut between them.

    The score is the smaller of two distances, each in [0, 1]: one minus the intersection of the
    colour histograms (large at a cut, small under fast motion) and one minus the correlation of the
    coarse luminance layout (large at a cut, small under a flash or a change of exposure). Slow
    dissolves score low; they are not found.

    Parameters
    ----------
    clips : array of shape (n_clips, n_frames, 3, height, width)

    Returns
    -------
    scores : array of float32 of shape (n_clips, n_frames - 1)
    """
    clips = np.clip(check_clips(clips), 0, 1)
    n_clips, n_frames = clips.shape[:2]
    scores = np.zeros((n_clips, max(n_frames - 1, 0)), dtype=np.float32)
    for i, clip in enumerate(clips):
        previous = None
        for j, frame in enumerate(clip):
            histogram = _colour_histogram(frame, 8)
            layout = _block_means(frame)
            layout = layout - layout.mean()
            if previous is not None:
                colour = 1 - np.minimum(histogram, previous[0]).sum()
                power = np.sqrt((layout**2).sum() * (previous[1] ** 2).sum())
                # an even frame has no layout: colour alone decides
                likeness = (layout * previous[1]).sum() / power if power > 1e-6 else 0.0
                scores[i, j - 1] = min(colour, 1 - max(likeness, 0.0))
            previous = histogram, layout
    return scores


def detect_cuts(clips, *, threshold=0.2):
    """Flag clips that hold a cut: flow across a cut means nothing.

    Parameters
    ----------
    clips : array of shape (n_clips, n_frames, 3, height, width)
    threshold : float, default=0.2
        A clip is flagged if any of its `cut_scores` exceeds this.

    Returns
    -------
    has_cut : bool array of shape (n_clips,)
    """
    if not 0 < threshold < 1:
        raise InputError(f"`threshold` must lie between 0 and 1; got {threshold!r}.")
    return (cut_scores(clips) > threshold).any(axis=1)


def dominant_motion(flow, *, model="affine", n_iter=15):
    """Fit the motion that most of the image shares, usually the camera's.

    Iteratively reweighted least squares with Tukey's biweight, whose scale is the median absolute
    deviation of the residuals, from the median vector on (robust parametric motion: Odobez &
    Bouthemy 1995, doi:10.1006/jvci.1995.1029).

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, height, width)
        True or decoded.
    model : {"affine", "translation"}, default="affine"
        Affine: each component is linear in x and y (pan, zoom, roll). Translation: one vector.
    n_iter : int, default=15

    Returns
    -------
    dominant : array of float32, same shape
    """
    flow = check_flow(flow)
    if model not in ("affine", "translation"):
        raise InputError(f"`model` must be 'affine' or 'translation'; got {model!r}.")
    height, width = flow.shape[3:]
    x, y = _pixel_grid(height, width)
    columns = [np.ones(height * width)]
    if model == "affine":
        for axis in (x, y):
            centred = axis.ravel() - axis.mean()
            if centred.any():
                columns.append(centred / np.abs(centred).max())
    design = np.stack(columns, axis=1)
    products = design[:, :, None] * design[:, None, :]  # (n_cells, n_terms, n_terms)
    ridge = 1e-9 * height * width * np.eye(design.shape[1])
    dominant = np.empty_like(flow)
    for i, fields in enumerate(flow):
        fields = fields.reshape(len(fields), 2, -1).astype(np.float64)
        fitted = np.median(fields, axis=2, keepdims=True) + np.zeros_like(fields)
        for _ in range(n_iter):
            residual = np.sqrt(((fields - fitted) ** 2).sum(axis=1))
            scale = 1.4826 * np.median(residual, axis=1, keepdims=True)
            ratio = residual / (4.685 * scale + 1e-6)
            weights = np.where(ratio < 1, (1 - ratio**2) ** 2, 0)
            gram = np.tensordot(weights, products, axes=1) + ridge
            moment = np.einsum("sn,scn,nk->skc", weights, fields, design, optimize=True)
            fitted = np.einsum("nk,skc->scn", design, np.linalg.solve(gram, moment))
        dominant[i] = fitted.reshape(len(fields), 2, height, width)
    return dominant


def motion_masks(flow, *, min_motion=0.1, n_deviations=3.0, model="affine"):
    """Mask what moves against the dominant motion: objects, by motion alone.

    Works on decoded flow as well as on true flow, so no oracle is needed at test time.

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, height, width)
    min_motion : float, default=0.1
        Least motion against the dominant one, in pixels of this grid per step.
    n_deviations : float, default=3.0
        And at least this many robust standard deviations (1.4826 x median absolute deviation) of
        the residual in its field, so that the noise of an estimate is not an object.
    model : {"affine", "translation"}, default="affine"
        See `dominant_motion`.

    Returns
    -------
    mask : bool array of shape (n_clips, n_steps, height, width)
        May be empty for a clip without an object.
    """
    flow = check_flow(flow)
    if min_motion < 0 or n_deviations < 0:
        raise InputError(
            "`min_motion` and `n_deviations` must not be negative; got "
            f"{min_motion!r} and {n_deviations!r}."
        )
    residual = flow - dominant_motion(flow, model=model)
    # the scale of each component's noise, joined: a vector's length has no zero median
    deviation = 1.4826 * np.median(np.abs(residual), axis=(3, 4), keepdims=True)
    spread = np.sqrt((deviation**2).mean(axis=2))
    return np.linalg.norm(residual, axis=2) > np.maximum(min_motion, n_deviations * spread)


def _wheel():
    parts = []
    for n, start, stop in zip(_N_BETWEEN, _HUES[:-1], _HUES[1:], strict=True):
        share = np.floor(255 * np.arange(n) / n)[:, None] / 255
        parts.append((1 - share) * np.array(start) + share * np.array(stop))
    return np.concatenate(parts)


def flow_to_colors(flow, *, max_motion=None):
    """Colour flow by the standard wheel: hue is direction, saturation is speed, white is still.

    The wheel of Baker et al. 2011, doi:10.1007/s11263-010-0390-2.

    Parameters
    ----------
    flow : array of shape (..., 2, height, width)
        dx (right) and dy (down).
    max_motion : float, default=None
        Speed of full saturation, px per step; what is faster is drawn darker. None = the largest
        speed in `flow`.

    Returns
    -------
    colors : array of float of shape (..., height, width, 3)
        In [0, 1]; unknown (NaN) flow is black.
    """
    flow = np.asarray(flow, dtype=np.float64)
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise InputError(f"`flow` must have shape (..., 2, height, width); got {flow.shape}.")
    dx, dy = flow[..., 0, :, :], flow[..., 1, :, :]
    speed = np.hypot(dx, dy)
    if max_motion is None:
        max_motion = np.nanmax(speed) if np.isfinite(speed).any() else 1.0
    if max_motion < 0:
        raise InputError(f"`max_motion` must not be negative; got {max_motion!r}.")
    known = np.isfinite(speed)
    scale = max(float(max_motion), 1e-12)
    dx, dy, speed = (np.where(known, a, 0) / scale for a in (dx, dy, speed))
    wheel = _wheel()
    place = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(place).astype(int)
    share = (place - low)[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    speed = speed[..., None]
    colors = np.where(speed <= 1 + 1e-9, 1 - np.minimum(speed, 1) * (1 - hue), 0.75 * hue)
    return np.where(known[..., None], colors, 0.0)
