"""A Venn diagram of what feature spaces explain."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np

from brainnrds._checks import InputError

__all__ = ["plot_variance_partition"]

_CENTRES = {
    2: ((-0.55, 0.0), (0.55, 0.0)),
    3: ((-0.55, 0.32), (0.55, 0.32), (0.0, -0.63)),
}
_EDGE = 2.0
_N_PIXELS = 401


def plot_variance_partition(areas, *, names=None, label="R2", title=""):
    """Draw the areas of two or three feature spaces, coloured by what each explains.

    Circles have one size, whatever the numbers: in a diagram whose areas were to scale, small ones
    could not be read, and negative ones not be drawn.

    Parameters
    ----------
    areas : dict of tuple of str to float
        Mean over voxels of :func:`brainnrds.encoding.partition_variance`: a value for each
        combination of spaces.
    names : dict of str to str or None, default=None
        What spaces are called.
    label : str, default="R2"
        What the values are, with the unit: stands at the colour bar.
    title : str, default=""

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    spaces = list(dict.fromkeys(name for area in areas for name in area))
    expected = [
        frozenset(area) for size in range(1, len(spaces) + 1) for area in combinations(spaces, size)
    ]
    values = {frozenset(area): float(value) for area, value in areas.items()}
    if len(spaces) not in _CENTRES or set(values) != set(expected):
        raise InputError(
            "`areas` must hold a value for each combination of two or three spaces; got "
            f"{[list(area) for area in areas]}."
        )
    line = np.linspace(-_EDGE, _EDGE, _N_PIXELS)
    x, y = np.meshgrid(line, line)
    inside = np.array([(x - a) ** 2 + (y - b) ** 2 < 1 for a, b in _CENTRES[len(spaces)]])
    image = np.full(x.shape, np.nan)
    figure, axes = plt.subplots(figsize=(5.2, 4.6), dpi=100, layout="constrained")
    for area in expected:
        here = np.all([disc == (s in area) for s, disc in zip(spaces, inside, strict=True)], axis=0)
        image[here] = values[area]
        axes.text(
            x[here].mean(),
            y[here].mean(),
            f"{values[area]:.3f}",
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.2", "color": "white", "alpha": 0.75, "linewidth": 0},
        )
    limit = max(np.nanmax(np.abs(list(values.values()))), np.finfo(float).tiny)
    extent = (-_EDGE, _EDGE, -_EDGE, _EDGE)
    shown = axes.imshow(
        image, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, origin="lower"
    )
    for space, (a, b) in zip(spaces, _CENTRES[len(spaces)], strict=True):
        axes.add_patch(plt.Circle((a, b), 1, fill=False, color="0.2", linewidth=1.4))
        is_below = b < 0
        axes.text(
            a * 1.5 if not is_below else a,
            b + (-1.08 if is_below else 1.08),
            (names or {}).get(space, space),
            ha="center",
            va="top" if is_below else "bottom",
            fontsize="large",
        )
    axes.set(xlim=(-1.8, 1.8), ylim=(-1.95, 1.7), title=title)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label=label, shrink=0.7)
    return figure
