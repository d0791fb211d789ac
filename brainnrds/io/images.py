"""BOLD images in volume, surface and CIFTI space: headers, maskers, arrays.

The maskers are nilearn's; CIFTI, which nilearn does not read, has a small one here with the same
``transform`` and ``inverse_transform``.
"""

import gzip
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from brainnrds._checks import InputError

__all__ = [
    "CiftiMasker",
    "make_masker",
    "read_bold",
    "read_header",
    "read_maps",
    "read_mask",
]

_GIFTI_TAIL = b"</GIFTI>"
_BLOCK_VOLUMES = 64


def _is_cifti(path):
    return path.name.endswith((".dtseries.nii", ".dscalar.nii", ".dlabel.nii"))


def _is_gifti(path):
    return path.name.endswith(".gii")


def _load(path):
    try:
        if _is_gifti(path):
            return nib.load(path)
        # keep_file_open: reading a .nii.gz block by block goes forward instead of starting again;
        # no mmap: a file that shrinks meanwhile would kill the process
        return nib.load(path, mmap=False, keep_file_open=True)
    except Exception as error:  # nibabel raises many types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"Image {path} cannot be read (damaged or truncated): {reason}") from error


def read_header(bold):
    """Read the size and grid of a BOLD image, and make sure that its files are whole.

    Parameters
    ----------
    bold : tuple of Path
        One NIfTI or CIFTI file, or the left and the right GIFTI.

    Returns
    -------
    n_volumes : int
    grid : tuple
        Equal for images of the same grid; the last entry describes it in words.
    t_r : float or None
        Repetition time in s as the header has it.

    Raises
    ------
    InputError
        A file is missing, damaged or truncated, or has no time axis.
    """
    for path in bold:
        if not path.is_file():
            raise InputError(f"Image not found: {path}.")
    if _is_gifti(bold[0]):
        sizes = [_gifti_size(path) for path in bold]
        if len({n_volumes for n_volumes, _ in sizes}) != 1:
            raise InputError(
                f"Both hemispheres must have the same number of volumes; got "
                f"{sizes[0][0]} in {bold[0]} and {sizes[1][0]} in {bold[1].name}."
            )
        n_vertices = tuple(n for _, n in sizes)
        return sizes[0][0], ("surface", *n_vertices, f"{n_vertices} vertices"), None
    image = _load(bold[0])
    _check_whole(bold[0], image)
    if _is_cifti(bold[0]):
        series, models = _cifti_axes(bold[0], image)
        fingerprint = zlib.crc32(np.ascontiguousarray(models.vertex).tobytes())
        fingerprint = zlib.crc32(np.ascontiguousarray(models.voxel).tobytes(), fingerprint)
        words = f"{len(models)} grayordinates"
        t_r = float(series.step) if series.unit.upper() == "SECOND" else None
        return len(series), ("cifti", len(models), fingerprint, words), t_r
    if len(image.shape) != 4:
        raise InputError(f"BOLD image {bold[0]} must be 4-D; got shape {image.shape}.")
    affine = tuple(np.round(image.affine, 3).ravel().tolist())
    words = f"{image.shape[:3]} voxels, affine {[list(affine[i : i + 4]) for i in (0, 4, 8)]}"
    units = image.header.get_xyzt_units()[1]
    scale = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}.get(units, 1.0)
    t_r = float(image.header.get_zooms()[3]) * scale
    return image.shape[3], ("volume", image.shape[:3], affine, words), t_r or None


def _cifti_axes(path, image):
    if not isinstance(image, nib.Cifti2Image):
        raise InputError(f"{path} must be a CIFTI-2 file; got {type(image).__name__}.")
    series, models = image.header.get_axis(0), image.header.get_axis(1)
    if not isinstance(series, nib.cifti2.SeriesAxis) or not isinstance(
        models, nib.cifti2.BrainModelAxis
    ):
        raise InputError(
            f"{path} must be a CIFTI dense time series; got axes "
            f"{type(series).__name__}, {type(models).__name__}."
        )
    return series, models


def _gifti_size(path):
    """Number of volumes and vertices from the first kilobytes; the end must be there too."""
    with open(path, "rb") as file:
        head = file.read(65536).decode("utf-8", errors="replace")
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        tail = file.read()
    if _GIFTI_TAIL not in tail:
        raise InputError(f"Image {path} is truncated: it does not end in {_GIFTI_TAIL.decode()}.")

    def attribute(name):
        found = re.search(rf'\b{name}\s*=\s*"(\d+)"', head)
        return int(found.group(1)) if found else None

    n_arrays, n_vertices = attribute("NumberOfDataArrays"), attribute("Dim0")
    if not n_arrays or not n_vertices:
        raise InputError(f"Image {path} must be GIFTI with data arrays; got none.")
    n_columns = attribute("Dim1") if attribute("Dimensionality") == 2 else 1
    return n_arrays * (n_columns or 1), n_vertices


def _check_whole(path, image):
    """Compare the file's length with what the header promises."""
    proxy = image.dataobj
    expected = proxy.offset + int(np.prod(proxy.shape)) * proxy.dtype.itemsize
    if not path.name.endswith(".gz"):
        size = path.stat().st_size
        if size < expected:
            raise InputError(f"Image {path} is truncated: {size} of {expected} bytes.")
        return
    # a whole .gz ends in the length of its content, modulo 2**32
    with open(path, "rb") as file:
        file.seek(-4, 2)
        length = int.from_bytes(file.read(4), "little")
    if length == expected % 2**32:
        return
    read = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 24):
                read += len(block)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"Image {path} is truncated or damaged: {error}.") from error
    if read < expected:
        raise InputError(f"Image {path} is truncated: {read} of {expected} bytes.")


class CiftiMasker:
    """Between CIFTI images and arrays, as nilearn's maskers are for volumes and surfaces.

    Parameters
    ----------
    brain_models : nibabel.cifti2.BrainModelAxis
        The grayordinates.
    """

    def __init__(self, brain_models):
        self.brain_models = brain_models

    def transform(self, image):
        """Read a CIFTI image.

        Parameters
        ----------
        image : nibabel.Cifti2Image

        Returns
        -------
        values : array of float32 of shape (n_maps, n_voxels)
        """
        models = image.header.get_axis(1)
        if models != self.brain_models:
            raise InputError(
                f"CIFTI image must have the {len(self.brain_models)} grayordinates of the data; "
                f"got {len(models)} others."
            )
        return np.asarray(image.dataobj, dtype=np.float32)

    def inverse_transform(self, values):
        """Make a CIFTI image of maps.

        Parameters
        ----------
        values : array of shape (n_voxels,) or (n_maps, n_voxels)

        Returns
        -------
        image : nibabel.Cifti2Image
            Dense scalars.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float32))
        if values.shape[1] != len(self.brain_models):
            raise ValueError(
                f"`values` must have {len(self.brain_models)} columns; got {values.shape}."
            )
        names = nib.cifti2.ScalarAxis([f"map {i}" for i in range(len(values))])
        return nib.Cifti2Image(values, header=(names, self.brain_models))


def make_masker(bold, mask=None):
    """Make the fitted masker of an image's grid.

    Parameters
    ----------
    bold : tuple of Path
    mask : bool array, Nifti1Image or None, default=None
        The brain mask of a volume; surfaces and CIFTI keep every vertex and grayordinate.

    Returns
    -------
    masker : NiftiMasker, SurfaceMasker or CiftiMasker
        ``inverse_transform`` gives images.
    """
    if _is_cifti(bold[0]):
        return CiftiMasker(_load(bold[0]).header.get_axis(1))
    if _is_gifti(bold[0]):
        from nilearn.maskers import SurfaceMasker
        from nilearn.surface import SurfaceImage

        n_left, n_right = (_gifti_size(path)[1] for path in bold)
        everywhere = {"left": np.ones(n_left, bool), "right": np.ones(n_right, bool)}
        mask_image = SurfaceImage(_mesh(n_left, n_right), everywhere)
        return SurfaceMasker(mask_image, reports=False, dtype=np.float32, standardize=None).fit()
    from nilearn.maskers import NiftiMasker

    return NiftiMasker(mask, reports=False, dtype=np.float32, standardize=None).fit()


def _mesh(n_left, n_right):
    """Meshes that nilearn ships; any other gets placeholders, which maskers never look at."""
    from nilearn.datasets import load_fsaverage
    from nilearn.surface import InMemoryMesh, PolyMesh

    if (n_left, n_right) == (10242, 10242):
        return load_fsaverage("fsaverage5")["pial"]
    faces = np.array([[0, 1, 2]])
    return PolyMesh(
        left=InMemoryMesh(np.zeros((n_left, 3), np.float32), faces),
        right=InMemoryMesh(np.zeros((n_right, 3), np.float32), faces),
    )


def read_mask(path, grid):
    """Read a brain mask and check that it lies on the grid of the data.

    Parameters
    ----------
    path : Path
    grid : tuple
        As `read_header` gives it.

    Returns
    -------
    mask : Nifti1Image
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Mask not found: {path}.")
    image = _load(path)
    _check_whole(path, image)
    shape = image.shape[:3] if image.shape[3:] in ((), (1,)) else image.shape
    affine = tuple(np.round(image.affine, 3).ravel().tolist())
    if grid[:3] != ("volume", shape, affine):
        raise InputError(f"Mask {path} must lie on the grid of the data: {grid[-1]}; got {shape}.")
    inside = np.asarray(image.dataobj).reshape(shape) > 0
    if not inside.any():
        raise InputError(f"Mask {path} must have voxels inside; got none.")
    return nib.Nifti1Image(inside.astype(np.uint8), image.affine)


def read_bold(bold, masker):
    """Read a run as an array, block by block.

    Parameters
    ----------
    bold : tuple of Path
    masker : fitted masker

    Returns
    -------
    values : array of float32 of shape (n_volumes, n_voxels)
        As stored: not cleaned, NaN where the image has NaN.

    Raises
    ------
    InputError
        The data cannot be read.
    """
    if _is_gifti(bold[0]):
        return np.concatenate([_gifti_values(path) for path in bold], axis=1)
    image = _load(bold[0])
    try:
        if _is_cifti(bold[0]):
            return masker.transform(image)
        inside = np.asarray(masker.mask_img_.dataobj) > 0
        n_volumes = image.shape[3]
        values = np.empty((n_volumes, int(inside.sum())), dtype=np.float32)
        for start in range(0, n_volumes, _BLOCK_VOLUMES):
            stop = min(start + _BLOCK_VOLUMES, n_volumes)
            # apply_mask turns NaN into 0 only on request: they are to be counted here
            block = np.asarray(image.dataobj[..., start:stop], dtype=np.float32)
            values[start:stop] = block[inside].T
        return values
    except (EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Image {bold[0]} is truncated or damaged: {error}.") from error


def read_maps(paths, masker):
    """Read maps in the space of a masker; NaN stays, which nilearn's ``transform`` makes 0.

    Parameters
    ----------
    paths : tuple of Path
        One NIfTI or CIFTI file, or the left and the right GIFTI.
    masker : fitted masker

    Returns
    -------
    values : array of float32 of shape (n_maps, n_voxels)

    Raises
    ------
    InputError
        A file is missing, damaged or on another grid.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"Image not found: {path}.")
    if isinstance(masker, CiftiMasker):
        return masker.transform(_load(paths[0]))
    if hasattr(masker.mask_img_, "mesh"):
        parts = [_gifti_values(path) for path in paths]
        sizes = tuple(part.shape[1] for part in parts)
        expected = tuple(len(part) for part in masker.mask_img_.data.parts.values())
        if sizes != expected:
            raise InputError(
                f"{paths[0]} and its other hemisphere must have {expected} vertices; got {sizes}."
            )
        return np.concatenate(parts, axis=1)
    inside = np.asarray(masker.mask_img_.dataobj) > 0
    image = _load(paths[0])
    if image.shape[:3] != inside.shape or not np.allclose(
        image.affine, masker.mask_img_.affine, atol=1e-3
    ):
        raise InputError(
            f"{paths[0]} must lie on the grid of the data, {inside.shape}; got {image.shape[:3]}."
        )
    return np.atleast_2d(np.asarray(image.dataobj, dtype=np.float32)[inside].T)


def _gifti_values(path):
    image = _load(path)
    columns = [array.data for array in image.darrays]
    values = np.stack(columns) if columns[0].ndim == 1 else np.concatenate(columns, axis=1).T
    return np.ascontiguousarray(values, dtype=np.float32)
