"""Clips as pictures: strips of frames, and clips side by side."""

import matplotlib.pyplot as plt
import numpy as np

from brainnrds._checks import InputError, check_clips

__all__ = ["plot_clip_strips", "side_by_side"]


def _check_named(clips):
    if not clips:
        raise InputError("`clips` must name at least one clip; got none.")
    checked = {}
    for name, clip in clips.items():
        checked[name] = check_clips(np.asarray(clip)[None], name=f"clips[{name!r}]")[0]
    shapes = {clip.shape[2:] for clip in checked.values()}
    if len(shapes) > 1:
        raise InputError(f"`clips` must have frames of one size; got {sorted(shapes)}.")
    return checked


def plot_clip_strips(clips, *, n_columns=5, fps=None, title=None):
    """Show clips as strips of frames, one row each.

    Parameters
    ----------
    clips : dict of str to array of shape (n_frames, 3, height, width)
        Row label to clip, in [0, 1], frames of one size.
    n_columns : int, default=5
        Frames shown at most, evenly spaced from the first to the last.
    fps : float or None, default=None
        Frames per second; with it the columns are headed by their time in s.
    title : str or None, default=None

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    clips = _check_named(clips)
    height, width = next(iter(clips.values())).shape[2:]
    n_columns = min(n_columns, max(len(clip) for clip in clips.values()))
    cell = 1.7
    figure = plt.figure(
        figsize=(cell * n_columns + 1.1, cell * height / width * len(clips) + 0.5),
        layout="constrained",
    )
    axes = figure.subplots(len(clips), n_columns, squeeze=False)
    for n_above, (row, (name, clip)) in enumerate(zip(axes, clips.items(), strict=True)):
        shown = np.linspace(0, len(clip) - 1, n_columns).round().astype(int)
        for axis, frame in zip(row, shown, strict=True):
            axis.imshow(clip[frame].transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if n_above == 0:
                time = f"{frame / fps:.2f} s" if fps else f"frame {frame}"
                axis.set_title(time, fontsize=8)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return figure


def side_by_side(clips, *, n_columns=None, gap=4):
    """Put clips beside each other in one, each under its name.

    Parameters
    ----------
    clips : dict of str to array of shape (n_frames, 3, height, width)
        Name to clip, in [0, 1], of one size; a shorter clip waits at its last frame.
    n_columns : int or None, default=None
        Clips per row; None: all in one.
    gap : int, default=4
        Pixels between clips.

    Returns
    -------
    clip : array of float32 of shape (n_frames, 3, height, width)
        White between and above the clips; even sides, as video formats want.
    """
    import cv2

    clips = _check_named(clips)
    height, width = next(iter(clips.values())).shape[2:]
    n_frames = max(len(clip) for clip in clips.values())
    n_columns = len(clips) if n_columns is None else min(n_columns, len(clips))
    n_rows = -(-len(clips) // n_columns)
    scale = max(0.3, min(0.6, width / 260))
    label = int(26 * scale) + 4
    full_height = n_rows * (height + label + gap)
    full_width = n_columns * (width + gap)
    canvas = np.ones(
        (n_frames, 3, full_height + full_height % 2, full_width + full_width % 2), dtype=np.float32
    )
    for place, (name, clip) in enumerate(clips.items()):
        top = (place // n_columns) * (height + label + gap)
        left = (place % n_columns) * (width + gap)
        text = np.full((label, width, 3), 255, dtype=np.uint8)
        cv2.putText(
            text, name, (2, label - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA
        )
        canvas[:, :, top : top + label, left : left + width] = text.transpose(2, 0, 1) / 255
        held = np.concatenate([clip, clip[-1:].repeat(n_frames - len(clip), axis=0)])
        canvas[:, :, top + label : top + label + height, left : left + width] = held
    return canvas
