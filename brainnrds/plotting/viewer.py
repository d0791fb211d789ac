"""A brain to turn: maps on the inflated cortex as one HTML page that needs nothing else."""

import base64
import html
import json
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt
import nilearn
import numpy as np

from brainnrds._checks import InputError
from brainnrds.plotting.maps import _GYRUS, _SULCUS, _limits, _load_map

__all__ = ["view_maps"]

_GAP = 4.0  # mm between the inflated hemispheres


def view_maps(
    images, *, p_values=None, parcels=None, signed=(), title="Brain maps", significance="p"
):
    """Show maps on a cortex that can be turned, in a web page without server or network.

    The reader chooses the map and the view, sets thresholds, and reads the values of all maps where
    the pointer is. plotly.js (MIT licence), as nilearn ships it, is embedded.

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

    Returns
    -------
    page : str
        HTML; its scripts can load nothing. About 2 MB, and .35 MB per map on fs_LR 32k.

    Raises
    ------
    InputError
        When there is no map, maps lie in different spaces, or a name is not one of a map.
    """
    if not images:
        raise InputError("`images` must have one map at least; got none.")
    p_values = p_values or {}
    for argument, names in (("p_values", p_values), ("signed", signed)):
        unknown = sorted(set(names) - set(images))
        if unknown:
            raise InputError(
                f"`{argument}` must name maps of `images`, {list(images)}; got {unknown}."
            )
    maps, templates = [], {}
    for name, image in images.items():
        values, templates[name] = _load_map(image, f"images[{name!r}]")
        vmin, vmax = _limits(values, None, None, symmetric=name in signed)
        cmap = plt.get_cmap("RdBu_r" if name in signed else "inferno")
        p = None
        if name in p_values:
            p, templates[f"p-values of {name}"] = _load_map(p_values[name], f"p_values[{name!r}]")
        maps.append(
            {
                "name": name,
                "values": _encode(values, "<f4"),
                "p": None if p is None else _encode(p, "<f4"),
                "vmin": vmin,
                "vmax": vmax,
                "colors": _encode(np.rint(255 * cmap(np.arange(256) / 255)[:, :3]), "u1"),
            }
        )
    spaces = {name: template.name for name, template in templates.items()}
    if len(set(spaces.values())) > 1:
        raise InputError(f"All maps must lie in one space; got {spaces}.")
    template = next(iter(templates.values()))
    data = {
        "maps": maps,
        "meshes": _meshes(template),
        "gyri": _encode(
            np.concatenate([template.curvature[s] > 0 for s in ("left", "right")]), "u1"
        ),
        "gyrus": _grey(_GYRUS),
        "sulcus": _grey(_SULCUS),
        "significance": significance,
        "parcels": None,
    }
    if parcels is not None:
        parcels = np.asarray(parcels, dtype=str)
        if parcels.shape != (sum(template.n_vertices),):
            raise InputError(
                f"`parcels` must have shape ({sum(template.n_vertices)},); got {parcels.shape}."
            )
        names, index = np.unique(parcels, return_inverse=True)
        data["parcelNames"] = names.tolist()
        data["parcels"] = _encode(np.where(parcels == "", -1, index), "<i4")
    return _fill_page(title, data)


def _encode(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def _grey(shade):
    level = round(255 * shade)
    return f"rgb({level},{level},{level})"


def _meshes(template):
    """The inflated hemispheres side by side."""
    meshes = {}
    for side in ("left", "right"):
        xyz, faces = template.surfaces["inflated"][side]
        inner = xyz[:, 0].max() if side == "left" else xyz[:, 0].min()
        shift = -inner + (-_GAP / 2 if side == "left" else _GAP / 2)
        meshes[side] = {
            "n_vertices": len(xyz),
            "xyz": _encode(xyz + (shift, 0, 0), "<f4"),
            "faces": _encode(faces, "<i4"),
        }
    return meshes


def _fill_page(title, data):
    page = (files("brainnrds.plotting") / "viewer.html").read_text(encoding="utf-8")
    # its folder differs between versions of nilearn
    library = next(Path(nilearn.__file__).parent.rglob("plotly-gl3d-latest.min.js"))
    # "<" may not stand in a script: it could end it
    content = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = page.replace("@TITLE@", html.escape(title)).replace("@DATA@", content)
    return page.replace("@PLOTLY@", library.read_text(encoding="utf-8"))
