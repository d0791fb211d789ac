"""The grid of the data as text, so that images can be made where the data are not."""

import base64
import zlib

import numpy as np

from brainnrds._checks import InputError
from brainnrds.io.images import CiftiMasker, make_surface_masker

__all__ = ["describe_grid", "masker_of"]


def describe_grid(masker):
    """Describe where the voxels of a masker lie.

    Parameters
    ----------
    masker : fitted NiftiMasker, SurfaceMasker or CiftiMasker
        As `load_runs` returns it.

    Returns
    -------
    grid : dict
        In JSON's types, for :func:`masker_of`.
    """
    if isinstance(masker, CiftiMasker):
        import nibabel as nib

        names = nib.cifti2.ScalarAxis(["map"])
        header = nib.cifti2.Cifti2Header.from_axes((names, masker.brain_models))
        return {"kind": "grayordinates", "header": _pack(header.to_xml())}
    mask = masker.mask_img_
    if not hasattr(mask, "affine"):
        return {
            "kind": "surface",
            "n_vertices": [len(mask.data.parts[s]) for s in ("left", "right")],
        }
    inside = np.asarray(mask.dataobj) > 0
    return {
        "kind": "volume",
        "shape": list(inside.shape),
        "affine": mask.affine.tolist(),
        "mask": _pack(np.packbits(inside).tobytes()),
    }


def masker_of(grid):
    """Make the fitted masker that `describe_grid` described.

    Parameters
    ----------
    grid : dict

    Returns
    -------
    masker : NiftiMasker, SurfaceMasker or CiftiMasker

    Raises
    ------
    InputError
        It is no description of a grid.
    """
    import nibabel as nib

    try:
        if grid["kind"] == "grayordinates":
            parser = nib.cifti2.parse_cifti2.Cifti2Parser()
            parser.parse(string=_unpack(grid["header"]))
            return CiftiMasker(parser.header.get_axis(1))
        if grid["kind"] == "surface":
            return make_surface_masker(*grid["n_vertices"])
        from nilearn.maskers import NiftiMasker

        shape = tuple(grid["shape"])
        bits = np.frombuffer(_unpack(grid["mask"]), dtype=np.uint8)
        inside = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
        mask = nib.Nifti1Image(inside, np.asarray(grid["affine"]))
        return NiftiMasker(mask, reports=False, dtype=np.float32, standardize=None).fit()
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"`grid` must describe where voxels lie; got another: {error}.") from error


def _pack(content):
    return base64.b64encode(zlib.compress(content)).decode()


def _unpack(text):
    return zlib.decompress(base64.b64decode(text))
