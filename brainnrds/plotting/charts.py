"""Charts of scores: histograms, one model against another, noise ceilings, bars."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from brainnrds._checks import InputError

__all__ = [
    "plot_bars",
    "plot_grouped_bars",
    "plot_noise_ceiling",
    "plot_score_comparison",
    "plot_score_histograms",
]

# Okabe and Ito's colours, told apart by colour-blind readers; the names that recur keep theirs
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_NAMED = {"video": "#D55E00", "image": "#0072B2", "joint": "#009E73"}
_CONTROL = "#8A8A8A"


def _colors(names, controls=()):
    free = iter([c for c in _COLORS if c not in {_NAMED.get(n) for n in names}] * len(names))
    return [_CONTROL if n in controls else _NAMED.get(n) or next(free) for n in names]


def _check_scores(scores, name):
    if not isinstance(scores, dict) or not scores:
        raise InputError(f"`{name}` must be a dict of name -> array, not empty; got {scores!r}.")
    arrays = {key: np.asarray(value, dtype=np.float64) for key, value in scores.items()}
    shapes = {key: value.shape for key, value in arrays.items()}
    if any(len(shape) != 1 or not shape[0] for shape in shapes.values()) or (
        len(set(shapes.values())) > 1
    ):
        raise InputError(f"`{name}` must hold arrays of one shape (n_voxels,); got {shapes}.")
    return arrays


def _check_pair(first, second, names):
    first, second = (np.asarray(a, dtype=np.float64) for a in (first, second))
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise InputError(
            f"`{names[0]}` and `{names[1]}` must have one shape (n_voxels,); "
            f"got {first.shape} and {second.shape}."
        )
    return first, second


def _clean(axes):
    axes.spines[["top", "right"]].set_visible(False)


def plot_score_histograms(scores, *, label="held-out Pearson r", title="", controls=()):
    """Draw how the scores of all voxels are spread, one line per model or feature space.

    Parameters
    ----------
    scores : dict of str -> array of shape (n_voxels,)
        Voxels that are NaN are left out and counted in the legend.
    label : str, default="held-out Pearson r"
        What the scores are, with the unit.
    title : str, default=""
    controls : collection of str, default=()
        Names of `scores` that are controls: drawn grey and dashed.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    scores = _check_scores(scores, "scores")
    finite = {name: values[np.isfinite(values)] for name, values in scores.items()}
    everything = np.concatenate(list(finite.values()))
    low, high = (everything.min(), everything.max()) if everything.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 81)
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=100, layout="constrained")
    for name, color in zip(scores, _colors(list(scores), controls), strict=True):
        values = finite[name]
        missing = len(scores[name]) - len(values)
        median = f", median {round(np.median(values), 3) + 0.0:.3f}" if values.size else ""
        without = f" ({missing:,} without value)" if missing else ""
        axes.hist(
            values,
            bins=edges,
            histtype="step",
            linewidth=1.8,
            linestyle="--" if name in controls else "-",
            color=color,
            label=f"{name}{median}{without}",
        )
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=0)
    axes.set(xlabel=label, ylabel="voxels", title=title)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    _clean(axes)
    return figure


def plot_score_comparison(
    image_scores,
    video_scores,
    *,
    significant=None,
    label="held-out Pearson r",
    names=("image", "video"),
    title="",
):
    """Draw every voxel's score under one model against its score under the other.

    Parameters
    ----------
    image_scores, video_scores : array of shape (n_voxels,)
        Horizontal and vertical.
    significant : bool array of shape (n_voxels,) or None, default=None
        Voxels where the difference is significant; they are drawn as points, coloured by the
        side that wins, over the density of all.
    label : str, default="held-out Pearson r"
    names : tuple of two str, default=("image", "video")
    title : str, default=""

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    x, y = _check_pair(image_scores, video_scores, ("image_scores", "video_scores"))
    both = np.isfinite(x) & np.isfinite(y)
    figure, axes = plt.subplots(figsize=(5.6, 5.4), dpi=100, layout="constrained")
    values = np.concatenate([x[both], y[both], [0.0]])
    margin = 0.05 * (np.ptp(values) or 1.0)
    limits = (values.min() - margin, values.max() + margin)
    density = axes.hexbin(
        x[both],
        y[both],
        gridsize=60,
        extent=(*limits, *limits),
        cmap="Greys",
        norm=LogNorm(),
        mincnt=1,
    )
    figure.colorbar(density, ax=axes, label="voxels per cell", shrink=0.8)
    axes.plot(limits, limits, color="0.3", linewidth=0.8)
    if significant is not None:
        significant = np.asarray(significant)
        if significant.shape != x.shape or significant.dtype != bool:
            raise InputError(
                f"`significant` must be bool with shape {x.shape}; "
                f"got {significant.dtype} {significant.shape}."
            )
        for name, wins in zip(names, (x > y, y > x), strict=True):
            chosen = both & significant & wins
            axes.scatter(
                x[chosen],
                y[chosen],
                s=5,
                linewidths=0,
                color=_NAMED.get(name, _COLORS[0]),
                label=f"{name} better: {chosen.sum():,}",
            )
        figure.legend(
            *axes.get_legend_handles_labels(),
            frameon=False,
            title="significant difference",
            loc="outside lower center",
            ncols=2,
            markerscale=3,
        )
    axes.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=f"{names[0]}: {label}",
        ylabel=f"{names[1]}: {label}",
        title=title,
    )
    _clean(axes)
    return figure


def plot_noise_ceiling(noise_ceiling, score, *, threshold=0.1, label="Pearson r", title=""):
    """Draw the noise ceiling of all voxels and how near to it the scores come.

    Parameters
    ----------
    noise_ceiling : array of shape (n_voxels,)
        Highest score that a perfect model could reach, in the unit of `score`: for correlations
        the square root of :func:`brainnrds.encoding.noise_ceiling`.
    score : array of shape (n_voxels,)
    threshold : float, default=0.1
        Ceiling below which no normalised score is given: a dotted line.
    label : str, default="Pearson r"
        Unit of both.
    title : str, default=""

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    ceiling, score = _check_pair(noise_ceiling, score, ("noise_ceiling", "score"))
    both = np.isfinite(ceiling) & np.isfinite(score)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=100, layout="constrained")
    figure.suptitle(title)
    finite = ceiling[np.isfinite(ceiling)]
    left.hist(finite, bins=60, color="#56B4E9")
    above = int((finite > threshold).sum())
    left.axvline(threshold, color="0.3", linestyle=":")
    left.set(
        xlabel=f"noise ceiling ({label})",
        ylabel="voxels",
        title=f"{above:,} of {len(ceiling):,} voxels above {threshold:.3g}",
    )
    high = max(1e-3, *(np.max(v[both], initial=0) for v in (ceiling, score))) * 1.05
    low = min(0.0, np.min(score[both], initial=0)) * 1.05
    density = right.hexbin(
        ceiling[both],
        score[both],
        gridsize=50,
        extent=(0, high, low, high),
        cmap="cividis",
        norm=LogNorm(),
        mincnt=1,
    )
    figure.colorbar(density, ax=right, label="voxels per cell")
    right.plot([0, high], [0, high], color="#D55E00", linewidth=1.2, label="score = ceiling")
    right.axvline(threshold, color="0.3", linestyle=":", label=f"ceiling = {threshold:.3g}")
    right.set(xlabel=f"noise ceiling ({label})", ylabel=f"score ({label})")
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        _clean(axes)
    return figure


def plot_bars(values, *, intervals=None, label="", title="", controls=(), chance=None):
    """Draw one bar per name, with intervals, controls in grey and chance as a line.

    Parameters
    ----------
    values : dict of str -> float
        Drawn from top to bottom in this order.
    intervals : dict of str -> (low, high) or None, default=None
        Drawn as error bars; names may be missing.
    label : str, default=""
        What the values are, with the unit.
    title : str, default=""
    controls : collection of str, default=()
        Names that are controls: drawn grey.
    chance : float or None, default=None

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    if not isinstance(values, dict) or not values:
        raise InputError(f"`values` must be a dict of name -> float, not empty; got {values!r}.")
    intervals = intervals or {}
    unknown = sorted(set(intervals) - set(values))
    if unknown:
        raise InputError(f"`intervals` must name keys of `values`; got {unknown}.")
    names = list(values)
    heights = np.array([float(values[name]) for name in names])
    figure, axes = plt.subplots(figsize=(7, 1.3 + 0.38 * len(names)), dpi=100, layout="constrained")
    places = np.arange(len(names))
    axes.barh(places, heights, color=_colors(names, controls), height=0.7)
    for place, name, value in zip(places, names, heights, strict=True):
        low, high = intervals.get(name, (value, value))
        if name in intervals:
            axes.plot([low, high], [place, place], color="0.1", linewidth=1.6)
        # right of the bar even where it points left: there stand the names
        axes.annotate(
            f"{value:.3g}",
            (max(value, high, 0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    if chance is not None:
        axes.axvline(chance, color="0.3", linestyle=":", label=f"chance = {chance:.3g}")
        figure.legend(frameon=False, loc="outside upper right")  # beside no bar and no number
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set(xlabel=label, title=title)
    _clean(axes)
    return figure


def plot_grouped_bars(panels, *, groups, intervals=None, ceilings=None, label="", title=""):
    """Draw the same bars for several regions, coloured by group, with the noise ceiling as a line.

    Parameters
    ----------
    panels : dict of str -> dict of str -> float
        Region to name to value; one panel each, in this order. Names that a region lacks are left
        empty there.
    groups : dict of str -> str
        Name to group, from top to bottom; the group "control" is drawn grey.
    intervals : dict of str -> dict of str -> (low, high) or None, default=None
        Region to name to error bar; both may be missing.
    ceilings : dict of str -> float or None, default=None
        Region to noise ceiling, in the unit of the values; may be missing.
    label : str, default=""
        What the values are, with the unit.
    title : str, default=""

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    unknown = sorted({name for values in panels.values() for name in values} - set(groups))
    if not panels or unknown:
        raise InputError(
            f"`panels` must hold values of names of `groups`, not empty; got {unknown or panels!r}."
        )
    names = list(groups)
    kinds = list(dict.fromkeys(groups.values()))
    colors = dict(zip(kinds, _colors(kinds, controls=("control",)), strict=True))
    # half a bar of space between groups
    steps = [1 + 0.5 * (groups[a] != groups[b]) for a, b in zip(names, names[1:], strict=False)]
    places = dict(zip(names, np.cumsum([0, *steps]).tolist(), strict=True))
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, all_axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.2 + 3.2 * n_columns, 0.8 + n_rows * (0.8 + 0.26 * len(names))),
        dpi=100,
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    figure.suptitle(title)
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (region, values) in zip(all_axes.flat, panels.items(), strict=False):
        for name, value in values.items():
            axes.barh(places[name], value, color=colors[groups[name]], height=0.75)
            low, high = (intervals or {}).get(region, {}).get(name, (value, value))
            axes.plot([low, high], [places[name]] * 2, color="0.1", linewidth=1.4)
        if region in (ceilings or {}):
            axes.axvline(ceilings[region], color="0.3", linestyle="--", linewidth=1.0)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_title(region, fontsize="medium")
        _clean(axes)
    for axes in all_axes.flat[max(0, len(panels) - n_columns) : len(panels)]:
        axes.set_xlabel(label)
        axes.tick_params(labelbottom=True)
    all_axes[0, 0].set_yticks(list(places.values()), names)
    all_axes[0, 0].invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.values()]
    if ceilings:
        handles.append(plt.Line2D([], [], color="0.3", linestyle="--"))
        kinds = [*kinds, "noise ceiling"]
    figure.legend(handles, kinds, frameon=False, loc="outside lower center", ncols=len(kinds))
    return figure
