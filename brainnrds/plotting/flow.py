"""Flow as pictures: the standard colour wheel, fields, strips, and the decoder's charts."""

import matplotlib.pyplot as plt
import numpy as np

from brainnrds._checks import InputError
from brainnrds.flow import flow_to_colors

__all__ = [
    "flow_to_colors",
    "plot_controls",
    "plot_flow_strips",
    "plot_flow_wheel",
    "plot_gain_curve",
    "plot_learning_curve",
    "plot_null_gain",
]

_BRAIN, _CONTROL = "#D55E00", "#8A8A8A"


def _draw_wheel(axes, max_motion, unit):
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    colors = flow_to_colors(np.stack([x, y]), max_motion=1.0)
    outside = np.hypot(x, y) > 1
    axes.imshow(
        np.concatenate([colors, ~outside[..., None]], axis=2).astype(float), extent=(-1, 1, 1, -1)
    )
    axes.set_axis_off()
    axes.set_title(f"rim: {max_motion:.2g}\n{unit}", fontsize=8)


def plot_flow_wheel(*, max_motion=1.0, unit="px per step"):
    """Draw the colour wheel: a point's colour is that of motion from the centre to it.

    Parameters
    ----------
    max_motion : float, default=1.0
        Speed at the rim.
    unit : str, default="px per step"

    Returns
    -------
    figure : matplotlib Figure
    """
    figure, axes = plt.subplots(figsize=(2, 2.2), layout="constrained")
    _draw_wheel(axes, max_motion, unit)
    return figure


def _scale_of(flow):
    """A speed that one stray cell cannot set: the 99th percentile of the true flow."""
    speed = np.hypot(flow[..., 0, :, :], flow[..., 1, :, :])
    return max(float(np.nanpercentile(speed, 99)), 1e-6)


def plot_flow_strips(
    flow,
    *,
    initial_frames=None,
    row_labels=None,
    max_motion=None,
    unit="grid px per step",
    title="",
):
    """Draw clips as rows: initial frame, then the flow of every predictor, step by step.

    Parameters
    ----------
    flow : dict of str -> array of shape (n_clips, n_steps, 2, height, width)
        Predictor -> flow of the clips to draw; the first entry sets the colour scale.
    initial_frames : array of shape (n_clips, 3, frame_height, frame_width), default=None
        In [0, 1].
    row_labels : list of str, default=None
        One per clip.
    max_motion : float, default=None
        Full saturation; None = the 99th percentile of the first entry's speed.
    unit : str, default="grid px per step"
    title : str, default=""

    Returns
    -------
    figure : matplotlib Figure
    """
    arrays = {name: np.asarray(array) for name, array in flow.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if not arrays or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 5:
        raise InputError(
            "`flow` must hold arrays of one shape (n_clips, n_steps, 2, height, width); "
            f"got {shapes}."
        )
    first = next(iter(arrays.values()))
    n_clips, n_steps, _, height, width = first.shape
    max_motion = _scale_of(first) if max_motion is None else max_motion
    n_columns = (initial_frames is not None) + len(arrays)
    ratios = [1.0] * (initial_frames is not None) + [float(n_steps)] * len(arrays)
    side = min(1.5, 12 / sum(ratios))
    figure, axes = plt.subplots(
        n_clips,
        n_columns,
        figsize=(side * sum(ratios) + 2.2, side * height / width * n_clips + 0.9),
        width_ratios=ratios,
        squeeze=False,
        layout="constrained",
    )
    for row in range(n_clips):
        cells = list(axes[row])
        if initial_frames is not None:
            frame = cells.pop(0)
            frame.imshow(
                np.moveaxis(np.asarray(initial_frames[row]), 0, 2),
                extent=(0, width, height, 0),
                aspect="equal",
            )
            frame.set_title("first frame" if row == 0 else "", fontsize=9)
        for cell, (name, array) in zip(cells, arrays.items(), strict=True):
            colors = flow_to_colors(array[row], max_motion=max_motion)  # [steps, h, w, 3]
            gap = np.full((n_steps, height, max(1, width // 16), 3), 0.6)
            strip = np.concatenate([colors, gap], axis=2).swapaxes(0, 1).reshape(height, -1, 3)
            cell.imshow(strip[:, : -gap.shape[2]], interpolation="nearest")
            cell.set_title(name.replace("_", " ") if row == 0 else "", fontsize=9)
        for cell in axes[row]:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_color("0.6")
        if row_labels is not None:
            axes[row, 0].set_ylabel(
                row_labels[row], rotation=0, ha="right", va="center", fontsize=8
            )
    figure.suptitle(title, fontsize=10)
    # the wheel gets a place of its own, beside the strips
    figure.get_layout_engine().set(rect=(0, 0, 1 - 1.3 / figure.get_size_inches()[0], 1))
    inches = figure.get_size_inches()
    wheel = figure.add_axes(
        (1 - 1.15 / inches[0], 0.5 - 0.5 / inches[1], 1 / inches[0], 1 / inches[1])
    )
    wheel.set_in_layout(False)
    _draw_wheel(wheel, max_motion, unit)
    return figure


def plot_controls(table, *, score="end_point_error_px", label="end-point error (grid px per step)"):
    """Draw the control table: one bar per predictor, with its interval.

    Parameters
    ----------
    table : DataFrame
        Of `brainnrds.decoding.compare_to_controls`: one row per predictor, a column of the score,
        and if there are intervals columns with ``_low`` and ``_high``.
    score : str, default="end_point_error_px"
        Column to draw.
    label : str, default="end-point error (grid px per step)"

    Returns
    -------
    figure : matplotlib Figure
    """
    if score not in table:
        raise InputError(f"`score` must be a column of `table`, {list(table)}; got {score!r}.")
    shown = table[table[score].notna()]
    places = np.arange(len(shown))[::-1]
    figure, axes = plt.subplots(figsize=(6, 0.6 + 0.35 * len(shown)), layout="constrained")
    colors = [_BRAIN if name == "decoder" else _CONTROL for name in shown.index]
    values = shown[score].to_numpy(float)
    axes.barh(places, values, color=colors)
    if f"{score}_low" in shown:
        low, high = (shown[f"{score}_{end}"].to_numpy(float) for end in ("low", "high"))
        axes.hlines(places, low, high, color="black", linewidth=1.2)
    if "unrelated_bold" in shown.index:
        axes.axvline(shown.loc["unrelated_bold", score], color="black", linestyle=":", linewidth=1)
    axes.set_yticks(places, [str(name).replace("_", " ") for name in shown.index])
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_learning_curve(history, *, best_epoch=None, control=None):
    """Draw loss and held-out error over epochs.

    Parameters
    ----------
    history : dict of list
        ``MotionDecoder.history_``.
    best_epoch : int, default=None
        Marked.
    control : dict of list, default=None
        History of the control, trained with BOLD of other films, drawn grey.

    Returns
    -------
    figure : matplotlib Figure
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    for curve, color, name in ((history, _BRAIN, "decoder"), (control, _CONTROL, "control")):
        if curve is None:
            continue
        epochs = np.arange(1, len(curve["train_loss"]) + 1)
        left.plot(epochs, curve["train_loss"], color=color, label=f"{name}, training")
        left.plot(epochs, curve["validation_loss"], "--", color=color, label=f"{name}, held out")
        right.plot(epochs, curve["validation_error"], "--", color=color, label=name)
    if best_epoch is not None:
        right.axvline(best_epoch + 1, color="black", linestyle=":", linewidth=1)
    left.set(xlabel="epoch", ylabel="cross-entropy\n(nats per cell and step)")
    right.set(xlabel="epoch", ylabel="held-out end-point error\n(grid px per step)")
    left.legend(frameon=False, fontsize=7)
    right.legend(frameon=False, fontsize=7)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_gain_curve(curve, *, label="brain gain (grid px per step)"):
    """Draw the brain gain of a new person's decoders against the minutes that they had.

    Parameters
    ----------
    curve : DataFrame
        Of :func:`brainnrds.decoding.transfer_curve`.
    label : str, default="brain gain (grid px per step)"

    Returns
    -------
    figure : matplotlib Figure
        Bars: 95 % intervals.
    """
    figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
    colors = {"from scratch": _CONTROL, "adapted": _BRAIN}
    for i, (kind, rows) in enumerate(curve.groupby("kind", sort=False)):
        rows = rows.sort_values("minutes")
        ends = np.array([rows["gain_px"] - rows["low"], rows["high"] - rows["gain_px"]])
        # beside each other where they would hide each other
        axes.errorbar(
            rows["minutes"] * (1 + 0.02 * (i - 1)), rows["gain_px"], yerr=np.nan_to_num(ends),
            marker="o", markersize=4, capsize=2, color=colors.get(kind, "black"), label=kind,
        )  # fmt: skip
    axes.axhline(0, color="black", linestyle=":", linewidth=1)
    minutes = np.unique(curve["minutes"])
    axes.set_xticks(minutes, [f"{m:.3g}" for m in minutes])
    axes.set(xlabel="minutes of the person's own data", ylabel=label.replace(" (", "\n(", 1))
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_null_gain(null_gain, gain, *, p=None, label="brain gain (grid px per step)"):
    """Draw the brain gain against its distribution under permuted BOLD.

    Parameters
    ----------
    null_gain : array of shape (n_permutations,)
    gain : float
    p : float, default=None
        Written beside the line; NaN = none.
    label : str, default="brain gain (grid px per step)"

    Returns
    -------
    figure : matplotlib Figure
    """
    null_gain = np.asarray(null_gain, dtype=float)
    if null_gain.ndim != 1 or not null_gain.size:
        raise InputError(f"`null_gain` must have shape (n_permutations,); got {null_gain.shape}.")
    figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
    axes.hist(null_gain, bins=40, color=_CONTROL, label="permuted BOLD")
    axes.axvline(0, color="black", linestyle=":", linewidth=1, label="BOLD of other films")
    known = p is not None and np.isfinite(p)
    axes.axvline(
        gain, color=_BRAIN, linewidth=2, label=f"decoder, p = {p:.2g}" if known else "decoder"
    )
    axes.set(xlabel=label, ylabel="permutations")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
