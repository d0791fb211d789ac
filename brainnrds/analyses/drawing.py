"""Brain maps in the way that their space allows."""

import warnings

import numpy as np

from brainnrds._checks import InputError
from brainnrds.io import CiftiMasker
from brainnrds.plotting import (
    image_to_vertices,
    load_pycortex_subject,
    plot_difference_map,
    plot_flatmap,
    plot_rgb_map,
    plot_surface_views,
    plot_volume_map,
    view_maps,
    view_slices,
)

__all__ = [
    "draw_chart",
    "draw_components",
    "draw_map",
    "draw_surface",
    "draw_viewers",
    "find_pycortex_subject",
    "note_on_figures",
    "untested",
]

# vertices of a hemisphere
_FSAVERAGE5, _FS_LR = 10242, 32492
_DENSER = {40962: "fsaverage6", 163842: "fsaverage"}  # of which fsaverage5's are the first


def find_pycortex_subject(given, subject, masker, space):
    """Find the surfaces that figures are drawn on, and refuse those that the data do not lie on.

    Parameters
    ----------
    given : str
        ``--pycortex-subject``.
    subject : str or None
        The participant's label; None of a group.
    masker : fitted masker
    space : str or None

    Returns
    -------
    folder : str
    """
    folder = str(given) if subject is None else str(given).replace("{subject}", subject)
    name = "--pycortex-subject"
    try:
        sizes = load_pycortex_subject(folder).n_vertices
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    expected = _sizes(masker)
    if expected is not None and expected != sizes:
        raise InputError(
            f"{name} must have the vertices of the data, {expected[0]} and {expected[1]} in the "
            f"hemispheres; got {sizes[0]} and {sizes[1]} in {folder}."
        )
    if expected is None and _is_mni(space):
        raise InputError(
            f"{name} is for surfaces, and for volumes in a participant's own space; the data are "
            f"volumes in {space}."
        )
    if expected is None and _vertices(masker, masker.mask_img_, space, folder) is None:
        raise InputError(
            f"{name} must lie where the data are, in mm; no vertex of {folder} is in the mask."
        )
    return folder


def note_on_figures(masker, space, pycortex_subject):
    """Warn, so that the report says it, of what the figures do not show."""
    sizes = _sizes(masker)
    if pycortex_subject is not None:
        if "flat" not in load_pycortex_subject(pycortex_subject).meshes:
            warnings.warn(
                "No flatmaps: the surfaces of --pycortex-subject have none that is flat.",
                stacklevel=2,
            )
    elif sizes is not None and not _has_template(masker, space):
        warnings.warn(
            f"No map is drawn and there is no brain to turn: no mesh of {sizes[0]} and {sizes[1]} "
            "vertices is at hand; --pycortex-subject says where yours is.",
            stacklevel=2,
        )
    elif sizes is not None and sizes[0] in _DENSER:
        warnings.warn(
            f"Figures of {_DENSER[sizes[0]]} show the vertices that fsaverage5 has, {_FSAVERAGE5} "
            f"of {sizes[0]} in a hemisphere; the maps themselves have all.",
            stacklevel=2,
        )


def _is_mni(space):
    return str(space).startswith("MNI")


def _sizes(masker):
    """Vertices of the left and the right hemisphere; None of volumes."""
    if isinstance(masker, CiftiMasker):
        sizes = masker.brain_models.nvertices
        other = max(sizes.values(), default=_FS_LR)  # of a hemisphere that is not there
        return tuple(sizes.get(f"CIFTI_STRUCTURE_CORTEX_{s}", other) for s in ("LEFT", "RIGHT"))
    if hasattr(masker.mask_img_, "mesh"):
        parts = masker.mask_img_.data.parts
        return len(parts["left"]), len(parts["right"])
    return None


def _has_template(masker, space):
    """Whether the mesh of the data is at hand, or for volumes one in their space."""
    sizes = _sizes(masker)
    if sizes is None:
        return _is_mni(space)
    if isinstance(masker, CiftiMasker):
        return sizes == (_FS_LR, _FS_LR)
    # fs_LR has a mesh of 163,842 vertices too
    known = {_FSAVERAGE5, _FS_LR} | (set(_DENSER) if str(space).startswith("fsaverage") else set())
    return sizes[0] == sizes[1] and sizes[0] in known


def _vertices(masker, image, space, pycortex_subject):
    """Values of both hemispheres, or None on a mesh that has no drawing, or off the cortex."""
    if pycortex_subject is None and not _has_template(masker, space):
        return None
    with warnings.catch_warnings():  # vertices outside a volume, which may be all of them
        warnings.simplefilter("ignore", RuntimeWarning)
        vertices = image_to_vertices(image, pycortex_subject)
    return vertices if _sizes(masker) or np.isfinite(vertices).any() else None


def _can_be_flat(pycortex_subject):
    return pycortex_subject is None or "flat" in load_pycortex_subject(pycortex_subject).meshes


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
    pycortex_subject=None,
):
    """Draw a map in the way its space allows: (suffix, figure), or None where there is no way.

    Meshes of fsaverage, fs_LR 32k, MNI volumes and what lies on the surfaces of `pycortex_subject`
    become flatmaps, other volumes, and those that hold nothing of the cortex, slices. A signed map
    is opaque where `p_values` are small; `significance` says what they are. In a `contest` of video
    against image the colour bar says who wins where. `vmin` and `cmap` are of maps without sign.
    """
    image = masker.inverse_transform(np.asarray(values, dtype=np.float32))
    vertices = None
    if _can_be_flat(pycortex_subject):
        vertices = _vertices(masker, image, space, pycortex_subject)
    if vertices is None and hasattr(image, "affine"):
        limits = {"vmin": -vmax, "vmax": vmax, "cmap": "RdBu_r"} if signed and vmax else {}
        plain = {"vmin": vmin, "vmax": vmax, "cmap": cmap}
        limits = limits or (plain if not signed else {"cmap": "RdBu_r"})
        return "image", plot_volume_map(
            image, title=title, label=label, background=_anatomy(masker, space), **limits
        )
    if vertices is None:
        return None
    how = {"title": title, "label": label, "vmax": vmax, "pycortex_subject": pycortex_subject}
    if not signed:
        return "flatmap", plot_flatmap(vertices, vmin=vmin, cmap=cmap, **how)
    if p_values is not None:
        filled = np.nan_to_num(p_values, nan=1.0)
        p_values = image_to_vertices(masker.inverse_transform(filled), pycortex_subject)
    winners = {} if contest else {"positive": None, "negative": None}
    figure = plot_difference_map(
        vertices,
        p_values,
        significance=significance,
        **how,
        **winners,
    )
    return "flatmap", figure


def untested(test):
    """What a caption says of a map whose test was not made, else nothing."""
    return f"No significance is shown: {test.reason}." if test.reason else ""


def draw_chart(suffix, plot, *arguments, **options):
    """Draw what is no map: (suffix, figure)."""
    return suffix, plot(*arguments, **options)


def draw_components(masker, components, space, *, title, labels, pycortex_subject=None):
    """Draw three maps as red, green and blue: (suffix, figure), or None without a flatmap."""
    if not _can_be_flat(pycortex_subject):
        return None
    images = [masker.inverse_transform(np.asarray(c, dtype=np.float32)) for c in components]
    vertices = [_vertices(masker, image, space, pycortex_subject) for image in images]
    if any(values is None for values in vertices):
        return None
    how = {"title": title, "labels": labels, "pycortex_subject": pycortex_subject}
    return "flatmap", plot_rgb_map(vertices, **how)


def draw_surface(masker, values, space, *, title, pycortex_subject=None):
    """Draw a difference on the inflated surface: (suffix, figure), or None."""
    image = masker.inverse_transform(np.asarray(values, dtype=np.float32))
    vertices = _vertices(masker, image, space, pycortex_subject)
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
        pycortex_subject=pycortex_subject,
    )
    return "surface", figure


def draw_viewers(
    masker, values, space, *, q_values, signed, parcels=None, title="", pycortex_subject=None
):
    """Make the pages that a reader turns or cuts: list of (suffix, page), empty without a mesh.

    What `draw_map` draws as a flatmap is a brain to turn, all volumes have slices. `values` and
    `q_values` are dicts by the names of maps; `parcels` are labels of voxels and their names.
    """

    def to_image(values):
        return masker.inverse_transform(np.asarray(values, dtype=np.float32))

    how = {"signed": signed, "title": title, "significance": "q"}
    images = {name: to_image(map_) for name, map_ in values.items()}
    q_images = {name: to_image(np.nan_to_num(q, nan=1.0)) for name, q in q_values.items()}
    is_volume = _sizes(masker) is None

    def to_vertices(image):
        return _vertices(masker, image, space, pycortex_subject)

    pages = []
    maps = {name: to_vertices(image) for name, image in images.items()}
    maps = {name: map_ for name, map_ in maps.items() if map_ is not None}
    if maps:
        names = None
        if parcels is not None and not is_volume:  # between voxels there is no label
            labels, known = parcels
            names = [known.get(int(x), "") for x in np.nan_to_num(to_vertices(to_image(labels)))]
        q_maps = {name: to_vertices(image) for name, image in q_images.items() if name in maps}
        page = view_maps(
            maps, p_values=q_maps, parcels=names, pycortex_subject=pycortex_subject, **how
        )
        pages.append(("viewer", page))
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
    return None if _is_mni(space) else masker.mask_img_
