"""Brain maps: flatmaps, inflated views and slices, drawn from images without a screen.

A map is an image, as a masker returns it, or an array with one value per vertex, left hemisphere
first: 20,484 values on fsaverage5, 64,984 on fs_LR 32k.
"""

import importlib.util

import matplotlib.pyplot as plt
import nibabel
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator
from nilearn import plotting as nilearn_plotting
from nilearn.datasets import load_mni152_template
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

from brainnrds._checks import InputError
from brainnrds.plotting._pycortex import lend_pycortex
from brainnrds.plotting.surfaces import load_map

__all__ = [
    "plot_difference_map",
    "plot_flatmap",
    "plot_rgb_map",
    "plot_surface_views",
    "plot_volume_map",
    "significance_to_opacity",
]

# two shades of grey for gyri and sulci, light enough that any colour map stands out
_GYRUS, _SULCUS = 0.78, 0.62
_HEIGHT = 512


def _limits(values, vmin, vmax, symmetric):
    """Fill in limits: the 98th percentile, around 0 for differences, from 0 for scores."""
    finite = values[np.isfinite(values)]
    if vmax is None:
        size = np.abs(finite) if symmetric else finite
        vmax = float(np.percentile(size, 98)) if finite.size else 1.0
        vmax = vmax if vmax > 0 else 1.0
    if vmin is None:
        vmin = -vmax if symmetric else 0.0 if vmax > 0 else 2 * vmax - 1
    if not vmin < vmax:
        raise InputError(f"`vmin` must be below `vmax`; got vmin={vmin:g}, vmax={vmax:g}.")
    return vmin, vmax


def significance_to_opacity(p_values, *, alpha=0.05, fade=0.5):
    """Opacity of a map from its p-values (or FDR-corrected q-values).

    Opaque where ``p <= alpha``, invisible where ``p >= fade``, linear in log(p) between:
    a reader sees what is significant without losing what is nearly so.

    Parameters
    ----------
    p_values : array of shape (n_voxels,)
        NaN (nothing was tested) is invisible.
    alpha : float, default=0.05
    fade : float, default=0.5

    Returns
    -------
    opacity : array of shape (n_voxels,)
        In [0, 1].
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if not 0 < alpha < fade <= 1:
        raise InputError(f"0 < alpha < fade <= 1 must hold; got alpha={alpha:g}, fade={fade:g}.")
    finite = p_values[np.isfinite(p_values)]
    if finite.size and (finite.min() < 0 or finite.max() > 1):
        raise InputError(
            f"`p_values` must lie in [0, 1]; got values in [{finite.min():g}, {finite.max():g}]."
        )
    with np.errstate(divide="ignore"):
        opacity = (np.log(fade) - np.log(p_values)) / (np.log(fade) - np.log(alpha))
    return np.clip(np.nan_to_num(opacity, nan=0.0, posinf=1.0), 0, 1)


def plot_flatmap(
    image,
    *,
    title="",
    label="",
    cmap="inferno",
    vmin=None,
    vmax=None,
    engine="auto",
    pycortex_subject=None,
):
    """Draw a map on the flattened cortex.

    Both hemispheres are seen from outside with the occipital poles in the middle and dorsal up:
    left hemisphere left, right hemisphere right.

    Parameters
    ----------
    image : SurfaceImage, Cifti2Image, NIfTI image or array of shape (n_vertices,)
        One map, read as in :func:`image_to_vertices`; an array has one value per vertex of
        fsaverage5 (20,484) or fs_LR 32k (64,984), left hemisphere first. Of fsaverage6 (81,924)
        and fsaverage (327,684) the vertices are drawn that fsaverage5 has. Vertices without value
        show the curvature: light gyri, dark sulci.
    title : str, default=""
    label : str, default=""
        What the values are, with the unit: stands at the colour bar.
    cmap : str, default="inferno"
        Name of a matplotlib colour map.
    vmin, vmax : float or None, default=None
        Limits of the colours. None: from 0 to the 98th percentile of the values.
    engine : {"auto", "pycortex", "matplotlib"}, default="auto"
        "auto" takes pycortex where it is installed.
    pycortex_subject : path-like or None, default=None
        Folder of a subject in a pycortex store, on whose surfaces the map is drawn: see
        :func:`load_pycortex_subject`. An array has one value for each of its vertices.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    values, template = load_map(image, pycortex_subject=pycortex_subject)
    vmin, vmax = _limits(values, vmin, vmax, symmetric=False)
    figure, axes, bar = _flatmap_figure(template, title)
    if _choose_engine(engine) == "pycortex":
        _draw_pycortex(axes, template, values, None, cmap, vmin, vmax)
    else:
        _draw_flat_mesh(axes, template, values, np.ones(len(values)), cmap, vmin, vmax)
    _add_colorbar(figure, bar, cmap, vmin, vmax, label, values)
    return figure


def plot_difference_map(
    image,
    p_values=None,
    *,
    alpha=0.05,
    significance="p",
    title="",
    label="",
    positive="video",
    negative="image",
    vmax=None,
    engine="auto",
    pycortex_subject=None,
):
    """Draw a difference on the flattened cortex, its significance as opacity.

    Red where the difference is positive, blue where it is negative; opaque where
    ``p <= alpha``, fading out to the curvature at p = .5 (:func:`significance_to_opacity`).

    Parameters
    ----------
    image : SurfaceImage, Cifti2Image, NIfTI image or array of shape (n_vertices,)
        The difference, as in :func:`plot_flatmap`.
    p_values : image or array in the same space, or None, default=None
        p-values, or better q-values corrected over the map. Where an image is 0 or NaN it says
        nothing, and the difference is invisible. None: significance is not known, and every value
        is drawn opaque.
    alpha : float, default=0.05
    significance : str, default="p"
        What `p_values` are: stands at the colour bar.
    title : str, default=""
    label : str, default=""
        What the difference is, with the unit: stands at the colour bar.
    positive, negative : str or None, default="video", "image"
        What wins where the difference is positive or negative. None: nothing does, as in a map of
        unique variance.
    vmax : float or None, default=None
        The colours span -vmax to vmax. None: 98th percentile of the absolute difference.
    engine, pycortex_subject
        As in :func:`plot_flatmap`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    difference, template = load_map(image, pycortex_subject=pycortex_subject)
    opacity = np.ones(len(difference))
    if p_values is not None:
        p_values, _ = load_map(p_values, "p_values", pycortex_subject)
        if p_values.shape != difference.shape:
            raise InputError(
                f"`p_values` must lie in the space of `image`, {difference.shape}; "
                f"got {p_values.shape}."
            )
        opacity = significance_to_opacity(p_values, alpha=alpha)
    vmin, vmax = _limits(difference, None, vmax, symmetric=True)
    cmap = "RdBu_r"
    figure, axes, bar = _flatmap_figure(template, title)
    if _choose_engine(engine) == "pycortex":
        _draw_pycortex(axes, template, difference, opacity, cmap, vmin, vmax)
    else:
        _draw_flat_mesh(axes, template, difference, opacity, cmap, vmin, vmax)
    if positive and negative:
        label = f"{label}\n← {negative} better      {positive} better →"
    if p_values is None:
        _add_colorbar(figure, bar, cmap, vmin, vmax, label, difference)
    else:
        _add_difference_colorbar(bar, cmap, vmin, vmax, label, alpha, significance)
    return figure


def plot_rgb_map(
    images,
    *,
    title="",
    labels=("1", "2", "3"),
    limits=(2, 98),
    engine="auto",
    pycortex_subject=None,
):
    """Draw three maps at once on the flattened cortex: as red, green and blue.

    Parameters
    ----------
    images : sequence of three images or arrays of shape (n_vertices,)
        As in :func:`plot_flatmap`, such as components of weights
        (:func:`brainnrds.encoding.weight_components`). Where one has no value, all show the
        curvature.
    title : str, default=""
    labels : sequence of three str, default=("1", "2", "3")
        What is red, green and blue.
    limits : tuple of two float, default=(2, 98)
        Percentiles of each map at which its colour is off and full.
    engine, pycortex_subject
        As in :func:`plot_flatmap`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    if len(images) != 3 or len(labels) != 3:
        raise InputError(
            f"`images` and `labels` must be three each; got {len(images)} and {len(labels)}."
        )
    loaded = [load_map(image, "images", pycortex_subject) for image in images]
    if len({len(values) for values, _ in loaded}) > 1:
        raise InputError("`images` must lie in the same space.")
    maps, template = np.stack([values for values, _ in loaded]), loaded[0][1]
    shown = np.isfinite(maps).all(0)
    colors = np.zeros((len(shown), 3))
    if shown.any():
        low, high = np.percentile(maps[:, shown], limits, axis=1)[..., None]
        span = np.where(high > low, high - low, 1)
        colors[shown] = ((maps[:, shown] - low) / span).clip(0, 1).T
    figure, axes, bar = _flatmap_figure(template, title)
    if _choose_engine(engine) == "pycortex":
        _draw_pycortex_rgb(axes, template, colors, shown)
    else:
        _draw_flat_colors(axes, template, colors, shown.astype(float))
    bar.axis("off")
    for x, color, label in zip((0.0, 0.5, 1.0), ("red", "green", "blue"), labels, strict=True):
        align = {0.0: "left", 0.5: "center", 1.0: "right"}[x]
        # under the names of the hemispheres, over the whole width
        place = {"x": 3 * x - 1, "y": -2.5, "ha": align, "transform": bar.transAxes}
        bar.text(s=f"{color}: {label}", color=f"dark{color}", **place)
    return figure


def plot_surface_views(
    image,
    *,
    title="",
    label="",
    cmap="inferno",
    vmin=None,
    vmax=None,
    threshold=None,
    pycortex_subject=None,
):
    """Draw a map on the inflated cortex: lateral and medial view of both hemispheres (nilearn).

    Parameters
    ----------
    image : SurfaceImage, Cifti2Image, NIfTI image or array of shape (n_vertices,)
        As in :func:`plot_flatmap`.
    title, label, cmap, vmin, vmax, pycortex_subject
        As in :func:`plot_flatmap`.
    threshold : float or None, default=None
        Absolute values below it show the curvature.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    values, template = load_map(image, pycortex_subject=pycortex_subject)
    vmin, vmax = _limits(values, vmin, vmax, symmetric=False)
    meshes = {side: InMemoryMesh(*template.meshes["inflated"][side]) for side in ("left", "right")}
    mesh = PolyMesh(**meshes)
    n_left = template.n_vertices[0]
    image = SurfaceImage(mesh, {"left": values[:n_left], "right": values[n_left:]})
    background = SurfaceImage(
        mesh,
        {
            # nilearn draws 0 white and 1 black
            side: np.where(template.curvature[side] > 0, 1 - _GYRUS, 1 - _SULCUS)
            for side in ("left", "right")
        },
    )
    figure = plt.figure(figsize=(12, 3.9), dpi=100)
    figure.suptitle(title)
    views = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
    for i, (side, view) in enumerate(views):
        axes = figure.add_axes((0.25 * i, 0.16, 0.25, 0.74), projection="3d")
        nilearn_plotting.plot_surf_stat_map(
            stat_map=image,
            hemi=side,
            view=view,
            bg_map=background,
            cmap=cmap,
            vmin=vmin,
            vmax=vmax,
            threshold=threshold,
            colorbar=False,
            symmetric_cbar=False,
            axes=axes,
            figure=figure,
        )
        axes.set_title(f"{side}, {view}", fontsize=10, y=0.96)
    _add_colorbar(figure, figure.add_axes((0.35, 0.11, 0.3, 0.03)), cmap, vmin, vmax, label, values)
    return figure


def plot_volume_map(
    image,
    *,
    title="",
    label="",
    cmap="inferno",
    vmin=None,
    vmax=None,
    threshold=None,
    background=None,
):
    """Draw a volume map on slices in three directions (nilearn).

    Parameters
    ----------
    image : nibabel NIfTI image
        One map; zeros and NaN are not drawn.
    title, label, cmap, vmin, vmax
        As in :func:`plot_flatmap`.
    threshold : float or None, default=None
        Absolute values below it are not drawn.
    background : nibabel NIfTI image or None, default=None
        Anatomy under the map, in the same space, or a mask, which is grey; None is the MNI152
        template.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    if len(image.shape) > 3 and image.shape[3] != 1:
        raise InputError(f"`image` must hold one map; got shape {image.shape}.")
    data = np.squeeze(np.asarray(image.get_fdata(), dtype=np.float64))
    finite = np.where(np.isfinite(data) & (data != 0), data, np.nan)
    vmin, vmax = _limits(finite, vmin, vmax, symmetric=False)
    image = nibabel.Nifti1Image(np.nan_to_num(finite).astype(np.float32), image.affine)
    figure = plt.figure(figsize=(12, 6.2), dpi=100)
    figure.suptitle(title)
    if background is None:
        background = load_mni152_template(resolution=2)
    shades = np.unique(np.nan_to_num(background.get_fdata(dtype=np.float32)))
    is_mask = len(shades) <= 2 and shades[-1] > 0
    for i, mode in enumerate(("z", "x")):
        slices = nilearn_plotting.plot_stat_map(
            image,
            bg_img=None if is_mask else background,
            display_mode=mode,
            cut_coords=7,
            cmap=cmap,
            vmin=vmin,
            vmax=vmax,
            threshold=1e-12 if threshold is None else threshold,
            colorbar=False,
            black_bg=False,
            axes=figure.add_axes((0.01, 0.54 - 0.38 * i, 0.98, 0.36)),
            figure=figure,
        )
        if is_mask:  # nilearn would draw it white on white
            gray = {"cmap": "gray", "vmin": 0, "vmax": shades[-1] / _GYRUS}
            slices.add_overlay(background, threshold=1e-12, zorder=-1, **gray)
    _add_colorbar(figure, figure.add_axes((0.35, 0.1, 0.3, 0.02)), cmap, vmin, vmax, label, finite)
    return figure


# figures ---------------------------------------------------------------------------------------


def _flat_extent(template):
    """Place the two flat hemispheres side by side: offsets of x and the whole extent."""
    left, right = (template.meshes["flat"][side] for side in ("left", "right"))
    used = [xyz[np.unique(faces)] for xyz, faces in (left, right)]
    gap = 0.04 * np.ptp(used[0][:, 0])
    offsets = (-used[0][:, 0].max() - gap / 2, -used[1][:, 0].min() + gap / 2)
    x = [u[:, 0] + offset for u, offset in zip(used, offsets, strict=True)]
    y = [u[:, 1] for u in used]
    return offsets, (
        min(map(np.min, x)),
        max(map(np.max, x)),
        min(map(np.min, y)),
        max(map(np.max, y)),
    )


def _flatmap_figure(template, title):
    if "flat" not in template.meshes:
        raise InputError(
            f"A flatmap needs surfaces/flat_lh.gii and flat_rh.gii; {template.name} has none."
        )
    _, (left, right, bottom, top) = _flat_extent(template)
    width = 10.0
    map_height = width * (top - bottom) / (right - left)
    above, below = 0.45, 1.0  # inches for the title and for the colour bar
    height = above + map_height + below
    figure = plt.figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((0, below / height, 1, map_height / height), label="flatmap")
    axes.axis("off")
    bar = figure.add_axes((0.35, 0.68 / height, 0.3, 0.16 / height), label="colorbar")
    figure.suptitle(title, y=1 - 0.12 / height, va="top")
    for x, text in ((0.02, "left hemisphere"), (0.98, "right hemisphere")):
        figure.text(
            x, 0.7 / height, text, ha="left" if x < 0.5 else "right", color="0.35", fontsize=10
        )
    return figure, axes, bar


def _add_colorbar(figure, bar, cmap, vmin, vmax, label, values):
    finite = values[np.isfinite(values)]
    low = bool(finite.size) and finite.min() < vmin
    high = bool(finite.size) and finite.max() > vmax
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[low, high]
    colorbar = figure.colorbar(
        ScalarMappable(Normalize(vmin, vmax), cmap),
        cax=bar,
        orientation="horizontal",
        extend=extend,
    )
    colorbar.set_label(label)


def _add_difference_colorbar(bar, cmap, vmin, vmax, label, alpha, significance):
    """A colour bar with two dimensions: the difference, and its significance as opacity."""
    opacity = np.linspace(0, 1, 32)[:, None, None]
    colors = plt.get_cmap(cmap)(np.linspace(0, 1, 256))[None, :, :3]
    gray = (_GYRUS + _SULCUS) / 2
    bar.imshow(
        opacity * colors + (1 - opacity) * gray,
        extent=(vmin, vmax, 0, 1),
        aspect="auto",
        origin="lower",
    )
    most = f"{alpha:g}".removeprefix("0")
    bar.set_yticks([0, 1], [f"{significance} ≥ .5", f"{significance} ≤ {most}"], fontsize=7)
    bar.xaxis.set_major_locator(MaxNLocator(4))
    bar.set_xlabel(label)
    box = bar.get_position()
    bar.set_position((box.x0, box.y0 - 0.3 * box.height, box.width, 1.6 * box.height))


def _choose_engine(engine):
    if engine not in ("auto", "pycortex", "matplotlib"):
        raise InputError(f"`engine` must be 'auto', 'pycortex' or 'matplotlib'; got {engine!r}.")
    installed = importlib.util.find_spec("cortex") is not None
    if engine == "pycortex" and not installed:
        raise ImportError(
            "engine='pycortex' needs pycortex: pip install 'brainnrds[flatmap]', or draw with "
            "engine='matplotlib'."
        )
    if engine == "auto":
        return "pycortex" if installed else "matplotlib"
    return engine


def _draw_flat_mesh(axes, template, values, opacity, cmap, vmin, vmax):
    """Draw values on the flat mesh: the way without pycortex."""
    colors = plt.get_cmap(cmap)(Normalize(vmin, vmax)(np.nan_to_num(values)))[:, :3]
    _draw_flat_colors(axes, template, colors, np.where(np.isfinite(values), opacity, 0.0))


def _draw_flat_colors(axes, template, vertex_colors, opacity):
    """Draw colours on the flat mesh face by face, over the curvature."""
    offsets, (left, right, bottom, top) = _flat_extent(template)
    start = 0
    for side, offset in zip(("left", "right"), offsets, strict=True):
        xyz, faces = template.meshes["flat"][side]
        part = slice(start, start + len(xyz))
        start += len(xyz)
        gray = np.where(template.curvature[side] > 0, _GYRUS, _SULCUS)[:, None]
        weight = opacity[part, None]
        colors = weight * vertex_colors[part] + (1 - weight) * gray
        corners = xyz[faces][:, :, :2] + (offset, 0)
        axes.add_collection(
            PolyCollection(
                corners,
                facecolors=np.clip(colors[faces].mean(axis=1), 0, 1),
                edgecolors="face",
                linewidths=0.2,
                rasterized=True,
            )
        )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")


def _draw_pycortex(axes, template, values, opacity, cmap, vmin, vmax):
    with lend_pycortex(template) as (cortex, subject):
        if opacity is None:
            view = cortex.Vertex(values, subject, cmap=cmap, vmin=vmin, vmax=vmax)
        else:
            view = cortex.Vertex2D(
                values,
                np.where(np.isfinite(values), opacity, np.nan),
                subject,
                cmap="RdBu_r_alpha",
                vmin=vmin,
                vmax=vmax,
                vmin2=0.0,
                vmax2=1.0,
            )
        _make_pycortex_figure(cortex, view, axes)


def _draw_pycortex_rgb(axes, template, colors, shown):
    with lend_pycortex(template) as (cortex, subject):
        channels = (255 * colors).round().astype(np.uint8).T
        view = cortex.VertexRGB(*channels, subject, alpha=shown.astype(np.float32))
        _make_pycortex_figure(cortex, view, axes)


def _make_pycortex_figure(cortex, view, axes):
    cortex.quickflat.make_figure(
        view,
        height=_HEIGHT,
        with_curvature=True,
        curvature_brightness=(_GYRUS + _SULCUS) / 2,
        curvature_contrast=_GYRUS - _SULCUS,
        curvature_threshold=True,
        with_rois=False,
        with_labels=False,
        with_colorbar=False,
        fig=axes,
    )
