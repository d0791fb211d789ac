"""Brain maps in the way that their space allows."""

import warnings

import numpy as np

from brainnrds._checks import InputError
from brainnrds.plotting import (
    image_to_vertices,
    plot_difference_map,
    plot_flatmap,
    plot_rgb_map,
    plot_surface_views,
    plot_volume_map,
    view_maps,
    view_slices,
)

__all__ = ["draw_chart", "draw_components", "draw_map", "draw_surface", "draw_viewers"]

_DRAWN_VERTICES = (20484, 64984)  # fsaverage5 and fs_LR 32k, both hemispheres


def _vertices(image):
    """Values of both hemispheres, or None on a mesh that has no drawing, or off the cortex."""
    if hasattr(image, "affine"):
        with warnings.catch_warnings():  # vertices outside the image, which are all of them here
            warnings.simplefilter("ignore", RuntimeWarning)
            vertices = image_to_vertices(image)
        return vertices if np.isfinite(vertices).any() else None
    try:
        vertices = image_to_vertices(image)
    except InputError:  # grayordinates of another mesh, such as 59k
        return None
    return vertices if len(vertices) in _DRAWN_VERTICES else None


def draw_map(
    masker,
    values,
    space,
    *,
    title,
    label,
    p_values=None,
    significance="p",
    signed=False,
    contest=True,
    vmin=0,
    vmax=None,
    cmap="inferno",
):
    """Draw a map in the way its space allows: (suffix, figure), or None where there is no way.

    fsaverage5, fs_LR 32k and MNI volumes become flatmaps, other volumes, and those that hold
    nothing of the cortex, slices. A signed map is opaque where `p_values` are small; `significance`
    says what they are. In a `contest` of video against image the colour bar says who wins where.
    `vmin` and `cmap` are of maps without sign.
    """
    image = masker.inverse_transform(np.asarray(values, dtype=np.float32))
    is_volume = hasattr(image, "affine")
    vertices = None
    if not is_volume or str(space).startswith("MNI"):
        vertices = _vertices(image)
    if vertices is None and is_volume:
        limits = {"vmin": -vmax, "vmax": vmax, "cmap": "RdBu_r"} if signed and vmax else {}
        plain = {"vmin": vmin, "vmax": vmax, "cmap": cmap}
        limits = limits or (plain if not signed else {"cmap": "RdBu_r"})
        return "image", plot_volume_map(
            image, title=title, label=label, background=_anatomy(masker, space), **limits
        )
    if vertices is None:
        return None
    if not signed:
        limits = {"vmin": vmin, "vmax": vmax, "cmap": cmap}
        return "flatmap", plot_flatmap(vertices, title=title, label=label, **limits)
    if p_values is not None:
        filled = np.nan_to_num(p_values, nan=1.0)
        p_values = image_to_vertices(masker.inverse_transform(filled))
    winners = {} if contest else {"positive": None, "negative": None}
    figure = plot_difference_map(
        vertices,
        p_values,
        significance=significance,
        title=title,
        label=label,
        vmax=vmax,
        **winners,
    )
    return "flatmap", figure


def draw_chart(suffix, plot, *arguments, **options):
    """Draw what is no map: (suffix, figure)."""
    return suffix, plot(*arguments, **options)


def draw_components(masker, components, *, title, labels):
    """Draw three maps as red, green and blue: (suffix, figure), or None without a flatmap."""
    images = [masker.inverse_transform(np.asarray(c, dtype=np.float32)) for c in components]
    vertices = [_vertices(image) for image in images]
    if any(values is None for values in vertices):
        return None
    return "flatmap", plot_rgb_map(vertices, title=title, labels=labels)


def draw_surface(masker, values, space, *, title):
    """Draw a difference on the inflated surface: (suffix, figure), or None."""
    image = masker.inverse_transform(np.asarray(values, dtype=np.float32))
    if hasattr(image, "affine") and not str(space).startswith("MNI"):
        return None
    vertices = _vertices(image)
    if vertices is None:
        return None
    limit = np.nanpercentile(np.abs(vertices), 99)
    figure = plot_surface_views(
        vertices,
        title=title,
        label="difference of held-out r",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    return "surface", figure


def draw_viewers(masker, values, space, *, q_values, signed, parcels=None, title=""):
    """Make the pages that a reader turns or cuts: list of (suffix, page), empty without a mesh.

    Surfaces and MNI volumes have a brain to turn, all volumes slices. `values` and `q_values` are
    dicts by the names of maps; `parcels` are labels of voxels and their names.
    """

    def to_image(values):
        return masker.inverse_transform(np.asarray(values, dtype=np.float32))

    how = {"signed": signed, "title": title, "significance": "q"}
    images = {name: to_image(map_) for name, map_ in values.items()}
    q_images = {name: to_image(np.nan_to_num(q, nan=1.0)) for name, q in q_values.items()}
    is_volume = hasattr(next(iter(images.values())), "affine")
    pages = []
    maps = {}
    if not is_volume or str(space).startswith("MNI"):
        maps = {name: _vertices(image) for name, image in images.items()}
        maps = {name: map_ for name, map_ in maps.items() if map_ is not None}
    if maps:
        names = None
        if parcels is not None and not is_volume:  # between voxels there is no label
            labels, known = parcels
            names = [known.get(int(x), "") for x in np.nan_to_num(_vertices(to_image(labels)))]
        q_maps = {name: _vertices(image) for name, image in q_images.items() if name in maps}
        pages.append(("viewer", view_maps(maps, p_values=q_maps, parcels=names, **how)))
    if is_volume and any(np.any(np.nan_to_num(map_)) for map_ in values.values()):
        labelled = None if parcels is None else (to_image(parcels[0]), parcels[1])
        page = view_slices(
            images,
            p_values=q_images,
            parcels=labelled,
            anatomy=_anatomy(masker, space),
            **how,
        )
        pages.append(("slices", page))
    return pages


def _anatomy(masker, space):
    """What lies under the slices of a volume: the template in its space, elsewhere the mask."""
    return None if str(space).startswith("MNI") else masker.mask_img_
