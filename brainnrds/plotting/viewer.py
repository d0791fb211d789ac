"""Maps as one HTML page that needs nothing else: a brain to turn, and slices of volumes."""

import base64
import html
import json
from importlib.resources import files

import matplotlib.pyplot as plt
import nibabel
import numpy as np
from nilearn.datasets import load_mni152_template
from nilearn.image import resample_to_img

from brainnrds._checks import InputError
from brainnrds.plotting.maps import _GYRUS, _SULCUS, _limits
from brainnrds.plotting.surfaces import drawn_vertices, load_map

__all__ = ["view_maps", "view_slices"]

_GAP = 4.0  # mm between the inflated hemispheres
_STEP = 0.01  # mm; coordinates are whole numbers of it
_LARGEST_PAGE = 14e6  # bytes; a report holds its page
_LARGEST_HALF = 65504.0  # of half precision


def view_maps(
    images,
    *,
    p_values=None,
    parcels=None,
    signed=(),
    title="Brain maps",
    significance="p",
    pycortex_subject=None,
):
    """Show maps on a cortex that can be turned, in a web page without server or network.

    The reader chooses the map and the view, sets thresholds, and reads the values of all maps where
    the pointer is. The cortex is drawn by WebGL 2, which browsers have had since 2021.

    Parameters
    ----------
    images : dict of str -> image or array of shape (n_vertices,)
        Name of a map, with its unit -> one map as in :func:`plot_flatmap`; all in one space.
    p_values : dict of str -> image or array, or None, default=None
        p-values or q-values of some of the maps, by their names.
    parcels : array of str of shape (n_vertices,) or None, default=None
        Name of each vertex's parcel; "" where there is none.
    signed : sequence of str, default=()
        Maps whose colours are centred on 0: red above, blue below. The colours of the others begin
        at 0.
    title : str, default="Brain maps"
    significance : str, default="p"
        What `p_values` are.
    pycortex_subject : path-like or None, default=None
        As in :func:`plot_flatmap`.

    Returns
    -------
    page : str
        HTML; its scripts can load nothing. About 1 MB on fs_LR 32k, and .2 MB for each map and each
        of `p_values`: values have half precision (three digits), and p-values are rounded up. Maps
        beyond 14 MB are left out, the last first, and the page names them.

    Raises
    ------
    InputError
        When there is no map, maps lie in different spaces, or a name is not one of a map.
    """
    p_values = p_values or {}
    _check_names(images, p_values, signed)
    loaded, templates = {}, {}
    for name, image in images.items():
        values, templates[name] = load_map(image, f"images[{name!r}]", pycortex_subject)
        p = None
        if name in p_values:
            p, templates[f"p-values of {name}"] = load_map(
                p_values[name], f"p_values[{name!r}]", pycortex_subject
            )
        loaded[name] = values, p
    spaces = {name: template.name for name, template in templates.items()}
    if len(set(spaces.values())) > 1:
        raise InputError(f"All maps must lie in one space; got {spaces}.")
    template = next(iter(templates.values()))
    data = {
        **_mesh(template),
        "gyri": _encode(
            np.packbits(np.concatenate([template.curvature[s] > 0 for s in ("left", "right")])),
            "u1",
        ),
        "gyrus": round(255 * _GYRUS),
        "sulcus": round(255 * _SULCUS),
        "significance": significance,
        "parcels": None,
    }
    if parcels is not None:
        parcels = drawn_vertices(np.asarray(parcels, dtype=str), pycortex_subject)
        if parcels.shape != (sum(template.n_vertices),):
            raise InputError(
                f"`parcels` must have shape ({sum(template.n_vertices)},); got {parcels.shape}."
            )
        names, index = np.unique(parcels, return_inverse=True)
        data["parcelNames"] = names.tolist()
        data["parcels"] = _encode(np.where(parcels == "", -1, index), "<i4")
    return _fill_page(title, data, loaded, signed, "viewer_surface.js")


def view_slices(
    images,
    *,
    p_values=None,
    parcels=None,
    anatomy=None,
    signed=(),
    title="Brain maps",
    significance="p",
):
    """Show maps of a volume on three slices, in a web page without server or network.

    The reader moves the slices, and does all else as in :func:`view_maps`.

    Parameters
    ----------
    images : dict of str -> NIfTI image
        Name of a map, with its unit -> one map; all on one grid. Zeros and NaN are no value.
    p_values : dict of str -> NIfTI image, or None, default=None
        p-values or q-values of some of the maps, by their names.
    parcels : tuple of NIfTI image and dict of int -> str, or None, default=None
        Label of each voxel, and the labels' names.
    anatomy : NIfTI image or None, default=None
        What lies under the maps; None is the MNI152 template.
    signed, title, significance
        As in :func:`view_maps`.

    Returns
    -------
    page : str
        HTML; its scripts can load nothing. About .5 MB for each map and each of `p_values` of
        200,000 voxels, in half precision and within 14 MB as in :func:`view_maps`.

    Raises
    ------
    InputError
        When there is no map or no value, grids differ, or a name is not one of a map.
    """
    p_values = p_values or {}
    _check_names(images, p_values, signed)
    grid = nibabel.as_closest_canonical(next(iter(images.values())))

    def load(image, name):
        values = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
        values = np.squeeze(values)
        if values.shape != grid.shape[:3] or not np.allclose(image.affine, first.affine):
            raise InputError(
                f"`{name}` must be one map on the grid of the first, {first.shape[:3]}; got "
                f"{image.shape} or another affine."
            )
        return np.where(np.isfinite(values) & (values != 0), values, np.nan)

    first = next(iter(images.values()))
    loaded = {
        name: (
            load(image, f"images[{name!r}]"),
            load(p_values[name], f"p_values[{name!r}]") if name in p_values else None,
        )
        for name, image in images.items()
    }
    has_value = np.any([np.isfinite(values) for values, _ in loaded.values()], axis=0)
    if not has_value.any():
        raise InputError("`images` must have a value somewhere; got zeros and NaN.")
    shades = _shades(anatomy, grid)
    box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(has_value | (shades > 0)))
    affine = grid.affine @ nibabel.affines.from_matvec(np.eye(3), [part.start for part in box])
    inside = has_value[box].ravel(order="F")
    data = {
        "shape": list(has_value[box].shape),
        "affine": affine[:3].tolist(),
        "spacing": nibabel.affines.voxel_sizes(affine).tolist(),
        "anatomy": _encode(shades[box].ravel(order="F"), "u1"),
        "voxels": _encode(np.flatnonzero(inside), "<i4"),
        "significance": significance,
        "parcels": None,
    }

    def take(values):
        return None if values is None else values[box].ravel(order="F")[inside]

    if parcels is not None:
        labels, index = np.unique(
            np.nan_to_num(take(load(parcels[0], "parcels"))).astype(int), return_inverse=True
        )
        names = [parcels[1].get(int(label), "") for label in labels]
        data["parcelNames"] = names
        data["parcels"] = _encode(np.where(np.array(names)[index] == "", -1, index), "<i4")
    loaded = {name: (take(values), take(p)) for name, (values, p) in loaded.items()}
    return _fill_page(title, data, loaded, signed, "viewer_slices.js")


def _check_names(images, p_values, signed):
    if not images:
        raise InputError("`images` must have one map at least; got none.")
    for argument, names in (("p_values", p_values), ("signed", signed)):
        unknown = sorted(set(names) - set(images))
        if unknown:
            raise InputError(
                f"`{argument}` must name maps of `images`, {list(images)}; got {unknown}."
            )


def _encode(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def _halves(values, *, up=False):
    """Half precision; where rounding is `up`, no p-value passes a threshold by it."""
    halves = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
    if up:
        halves = np.where(halves < values, np.nextafter(halves, np.float16(np.inf)), halves)
    return _encode(halves, "<f2")


def _mesh(template):
    """The inflated hemispheres side by side, the left one's vertices and faces first."""
    places, corners = [], []
    for side in ("left", "right"):
        xyz, faces = template.meshes["inflated"][side]
        inner = xyz[:, 0].max() if side == "left" else xyz[:, 0].min()
        shift = -inner + (-_GAP / 2 if side == "left" else _GAP / 2)
        corners.append(faces + sum(map(len, places)))
        places.append(xyz + (shift, 0, 0))
    return {
        "step": _STEP,
        "xyz": _encode(np.rint(np.concatenate(places) / _STEP), "<i2"),
        "faces": _encode(_pack(np.concatenate(corners)), "u1"),
        "nFaces": sum(map(len, corners)),
        "nLeft": len(places[0]),
        "nLeftFaces": len(corners[0]),
    }


def _pack(faces):
    """Faces in few bytes, as a native cortex has 600,000: steps between corners, 7 bits a byte.

    The smallest corner of a face comes first and the faces in their order, so that no step is below
    0: from the first corner of the face before to the first, and from there to the two others.
    """
    turned = faces.argmin(axis=1)[:, None] + np.arange(3)
    faces = np.take_along_axis(faces, turned % 3, axis=1)
    faces = faces[np.lexsort(faces.T[::-1])]
    first = faces[:, 0]
    steps = np.column_stack([np.diff(first, prepend=0), faces[:, 1:] - first[:, None]]).ravel()
    size = 1 + (steps >= 1 << 7) + (steps >= 1 << 14)
    digits = np.stack([steps & 127, steps >> 7 & 127, steps >> 14], axis=1)
    digits |= np.where(np.arange(3) < size[:, None] - 1, 128, 0)  # another byte follows
    return digits[np.arange(3) < size[:, None]]


def _shades(anatomy, grid):
    """Anatomy on a grid, as shades of grey: 0 where there is none."""
    if anatomy is None:
        anatomy = load_mni152_template(resolution=2)
    elif anatomy.shape[:3] == grid.shape[:3]:
        anatomy = nibabel.as_closest_canonical(anatomy)
    if anatomy.shape[:3] != grid.shape[:3] or not np.allclose(anatomy.affine, grid.affine):
        anatomy = resample_to_img(anatomy, grid, force_resample=True, copy_header=True)
    values = np.nan_to_num(np.squeeze(anatomy.get_fdata(dtype=np.float32))).clip(0)
    inside = values[values > 0]
    if not inside.size:
        return np.zeros(values.shape, np.uint8)
    return np.rint(230 * (values / np.percentile(inside, 99)).clip(0, 1)).astype(np.uint8)


def _fill_page(title, data, loaded, signed, script):
    """Make the page of `loaded`: name -> values, p-values or None."""
    room = _LARGEST_PAGE - sum(len(v) for v in data.values() if isinstance(v, str))
    maps = []
    for name, (values, p) in loaded.items():
        vmin, vmax = _limits(values, None, None, symmetric=name in signed)
        cmap = plt.get_cmap("RdBu_r" if name in signed else "inferno")
        encoded = {"values": _halves(values), "p": None if p is None else _halves(p, up=True)}
        room -= sum(len(text or "") for text in encoded.values())
        if maps and room < 0:
            break
        colors = _encode(np.rint(255 * cmap(np.arange(256) / 255)[:, :3]), "u1")
        maps.append({"name": name, "vmin": vmin, "vmax": vmax, "colors": colors, **encoded})
    left_out = ", ".join(list(loaded)[len(maps) :])
    note = f"\nLeft out, for the size of the page: {left_out}." if left_out else ""
    folder = files("brainnrds.plotting")
    page, stage = ((folder / name).read_text(encoding="utf-8") for name in ("viewer.html", script))
    # "<" may not stand in a script: it could end it
    content = json.dumps(data | {"maps": maps, "note": note}, allow_nan=False)
    content = content.replace("<", "\\u003c")
    page = page.replace("@STAGE@", stage.strip()).replace("@TITLE@", html.escape(title))
    return page.replace("@DATA@", content)
