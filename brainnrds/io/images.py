"""BOLD images in volume, surface and CIFTI space: headers, maskers, arrays.

The maskers are nilearn's; CIFTI, which nilearn does not read, has a small one here with the same
``transform`` and ``inverse_transform``.
"""

import gzip
import math
import re
import threading
import zlib
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

from brainnrds._checks import InputError
from brainnrds._files import check_file
from brainnrds.io._cifti import CiftiImage, grayordinate_map, make_image
from brainnrds.io._metadata import Recorded

__all__ = [
    "CiftiMasker",
    "make_masker",
    "on_grid",
    "open_image",
    "read_bold",
    "read_header",
    "read_maps",
    "read_mask",
    "read_recorded",
    "same_grid",
]

_GIFTI_TAIL = b"</GIFTI>"
_BLOCK_VOLUMES = 64
# what may follow the data that a header announces
_SLACK = 2**20
# what announces extensions of a header, and the smallest of them, in bytes
_SMALLEST_EXTENDED = 4 + 16
# zlib makes data at most 1,032 times smaller
_BEST_COMPRESSION = 1032
# scanners give values up to thousands: beyond this a file is damaged or wrongly scaled
_LARGEST_VALUE = 1e15
# share of a voxel by which places may differ: affines are stored as float32 and as quaternions
_PLACE_TOLERANCE = 0.01


def _is_cifti(path):
    return path.name.endswith((".dtseries.nii", ".dscalar.nii", ".dlabel.nii"))


def _is_gifti(path):
    return path.name.endswith(".gii")


def _load(path, what="Image"):
    """Open an image: its header is read, its data are not."""
    path = check_file(path, what)
    try:
        # no mmap: a file that shrinks meanwhile would kill the process
        if CiftiImage.path_maybe_image(path)[0]:
            image = CiftiImage.from_filename(path, mmap=False)
        else:
            image = nib.load(path) if _is_gifti(path) else nib.load(path, mmap=False)
        if isinstance(image, nib.Cifti2Image):
            _ = [image.header.get_axis(i) for i in range(image.ndim)]  # damage shows here
    except Exception as error:  # nibabel raises many types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{what} {path} cannot be read (damaged or truncated): {reason}"
        ) from error
    if isinstance(image, (nib.Nifti1Image, nib.Cifti2Image)):
        if image.get_data_dtype().kind not in "fiu":
            raise InputError(f"{what} {path} must hold real numbers; got {image.get_data_dtype()}.")
        if 0 in image.shape or min(image.shape) < 0:
            raise InputError(f"{what} {path} must not be empty; got shape {image.shape}.")
        _check_head(path, image, what)
    elif not isinstance(image, nib.gifti.GiftiImage):
        raise InputError(
            f"{what} {path} must be NIfTI, CIFTI or GIFTI; got {type(image).__name__}."
        )
    return image


def _check_head(path, image, what):
    """Refuse what a header cannot say of its data: nibabel passes over it."""
    nifti = image.nifti_header if isinstance(image, nib.Cifti2Image) else image.header
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
        header = type(nifti)(file.read(nifti.sizeof_hdr), check=False)
        extended = file.read(4)[:1] not in (b"", b"\0")
    for field in ("scl_slope", "scl_inter"):
        if np.isinf(header[field]):
            raise InputError(f"{what} {path} must have a finite {field}; got {header[field]}.")
    begin = int(image.dataobj.offset)
    if extended and begin < nifti.sizeof_hdr + _SMALLEST_EXTENDED:
        raise InputError(
            f"{what} {path} is damaged: extensions of its header are announced, but its data begin "
            f"at byte {begin}, in their place."
        )


@contextmanager
def open_image(path, what="Image"):
    """Open a NIfTI or CIFTI image to read its data once, in order.

    The data of a .nii.gz are read from one stream, whose checksum is verified at the end.

    Parameters
    ----------
    path : Path
    what : str, default="Image"
        First word of messages.

    Yields
    ------
    image : nibabel.Nifti1Image, nibabel.Nifti2Image or nibabel.Cifti2Image

    Raises
    ------
    InputError
        It cannot be read, is truncated, damaged or longer than its header says.
    """
    image = _load(path, what)
    _check_whole(path, image)
    try:
        if not path.name.endswith(".gz"):
            yield image
            return
        with gzip.open(path) as stream:
            yield type(image).from_file_map({"image": FileHolder(fileobj=stream)})
            # the checksum stands behind the last byte
            stream.seek(_announced(image))
            if len(stream.read(_SLACK)) == _SLACK:
                raise InputError(f"{what} {path} is much longer than its header says.")
    except InputError:
        raise
    except (EOFError, OSError, ValueError, OverflowError, MemoryError, zlib.error) as error:
        raise InputError(f"{what} {path} is truncated or damaged: {error}.") from error


def _announced(image):
    """Bytes that a NIfTI or CIFTI file must have by its header."""
    proxy = image.dataobj
    return int(proxy.offset) + math.prod(proxy.shape) * proxy.dtype.itemsize


def read_recorded(path):
    """Read what the header of a raw image says of the recording.

    Parameters
    ----------
    path : Path

    Returns
    -------
    recorded : Recorded or None
        None where the image is not there (data sets come without), or is none of four dimensions.
    """
    if not path.is_file():
        return None
    try:
        header = _raw_header(path)
        shape, t_r = header.get_data_shape(), _header_t_r(header)
    except Exception:  # it is not an input: what cannot be compared is not compared
        return None
    return Recorded(path.name, shape[3], shape[:3], t_r) if len(shape) == 4 else None


def _raw_header(path):
    """Header of an image; of NIfTI-1, as most are, by its first bytes alone."""
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
        start = file.read(nib.Nifti1Header.sizeof_hdr)
    if start[-4:] == b"n+1\0":
        return nib.Nifti1Header(start, check=False)
    return nib.load(path).header


def _header_t_r(header):
    """Repetition time in s, or None."""
    scale = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}.get(header.get_xyzt_units()[1], 1.0)
    t_r = float(header.get_zooms()[3]) * scale
    return t_r if math.isfinite(t_r) and t_r > 0 else None


def same_grid(first, second):
    """Whether two grids of `read_header` are one, affines up to rounding."""
    if first[0] != "volume" or second[0] != "volume":
        return first == second
    return first[1] == second[1] and _same_places(first[1], first[2], second[2])


def _same_places(shape, affine, other):
    """Whether all voxels of a grid lie at the same places under two affines."""
    affine, other = np.reshape(affine, (4, 4)), np.reshape(other, (4, 4))
    if not (np.isfinite(affine).all() and np.isfinite(other).all()):
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    smallest = np.linalg.norm(affine[:3, :3], axis=0).min()
    return bool((np.abs((affine - other) @ corners) <= _PLACE_TOLERANCE * smallest).all())


def on_grid(image, like):
    """Whether an image of voxels has the shape and, up to rounding, the affine of another."""
    shape = image.shape[:3]
    return shape == like.shape[:3] and _same_places(shape, image.affine, like.affine)


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
        check_file(path, "Image")
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
        t_r = float(series.step) if series.unit.upper() == "SECOND" and series.step > 0 else None
        return len(series), _cifti_grid(models), t_r
    if len(image.shape) != 4:
        raise InputError(f"BOLD image {bold[0]} must be 4-D; got shape {image.shape}.")
    if not np.isfinite(image.affine).all():
        raise InputError(f"Image {bold[0]} must have a finite affine; got {image.affine.tolist()}.")
    affine = tuple(image.affine.ravel().tolist())
    rows = np.round(image.affine[:3], 4).tolist()
    words = f"{image.shape[:3]} voxels, affine {rows}"
    return image.shape[3], ("volume", image.shape[:3], affine, words), _header_t_r(image.header)


_GRIDS = deque(maxlen=8)  # what was described lately, with its axis
_describing = threading.Lock()


def _cifti_grid(models):
    """Grid of grayordinates: their places, in their order."""
    # images share the axis of what is alike in their headers
    with _describing:
        known = next((grid for other, grid in _GRIDS if other is models), None)
        if known is None:
            known = _describe_grayordinates(models)
            _GRIDS.append((models, known))
    return known


def _describe_grayordinates(models):
    begins = np.flatnonzero(np.append(True, models.name[1:] != models.name[:-1]))
    sizes = np.diff(begins, append=len(models))
    parts = [
        f"{name.removeprefix('CIFTI_STRUCTURE_')} {size}"
        for name, size in zip(models.name[begins], sizes, strict=True)
    ]
    # off the multiples of a tenth, where rounding errors would decide
    places = np.round(10 * _millimetres(models) + 0.123).astype(np.int64)
    content = (models.name.astype("U").tobytes(), models.vertex.tobytes(), places.tobytes())
    words = f"{len(models)} grayordinates in this order: {', '.join(parts)}"
    return "cifti", len(models), zlib.crc32(b"".join(content)), words


def _millimetres(models):
    """Places of grayordinates in mm, (n, 3); 0 where they are vertices."""
    if models.affine is None:
        return np.zeros((len(models), 3))
    in_volume = models.vertex < 0
    return nib.affines.apply_affine(models.affine, models.voxel) * in_volume[:, np.newaxis]


def _same_models(first, second):
    """Whether grayordinates are the same places in the same order, however voxels are counted."""
    return first is second or _cifti_grid(first) == _cifti_grid(second) or first == second


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
        found = re.search(rf'\b{name}\s*=\s*"(\d{{1,12}})"', head)
        return int(found.group(1)) if found else None

    n_arrays, n_vertices = attribute("NumberOfDataArrays"), attribute("Dim0")
    if not n_arrays or not n_vertices:
        raise InputError(f"Image {path} must be GIFTI with data arrays; got none.")
    n_columns = (attribute("Dim1") if attribute("Dimensionality") == 2 else 1) or 1
    if n_arrays * n_columns * n_vertices > _BEST_COMPRESSION * path.stat().st_size:
        raise InputError(f"Image {path} is truncated: {n_vertices} vertices do not fit in it.")
    return n_arrays * n_columns, n_vertices


def _check_whole(path, image):
    """Compare the file's length with what the header promises."""
    expected, size = _announced(image), path.stat().st_size
    if not path.name.endswith(".gz"):
        if size < expected:
            raise InputError(f"Image {path} is truncated: {size} of {expected} bytes.")
        return
    if expected > _BEST_COMPRESSION * size + _SLACK:
        raise InputError(f"Image {path} is truncated: {expected} bytes do not fit in it.")
    # a whole .gz ends in the length of its content, modulo 2**32
    with open(path, "rb") as file:
        file.seek(-4, 2)
        length = int.from_bytes(file.read(4), "little")
    if length == expected % 2**32:
        return
    read = 0
    try:
        with gzip.open(path) as file:
            while read <= expected + _SLACK and (block := file.read(1 << 24)):
                read += len(block)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"Image {path} is truncated or damaged: {error}.") from error
    if read < expected:
        raise InputError(f"Image {path} is truncated: {read} of {expected} bytes.")
    if read > expected + _SLACK:
        raise InputError(f"Image {path} is much longer than its header says, {expected} bytes.")


class CiftiMasker:
    """Between CIFTI images and arrays, as nilearn's maskers are for volumes and surfaces.

    Parameters
    ----------
    brain_models : nibabel.cifti2.BrainModelAxis
        The grayordinates.
    """

    def __init__(self, brain_models):
        self.brain_models = brain_models
        self._columns = None

    def __getstate__(self):
        # what nibabel makes of the columns changes while maps are written; a process on its way to
        # which the masker is pickled then makes its own
        return {**self.__dict__, "_columns": None}

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
        if not _same_models(models, self.brain_models):
            raise InputError(
                f"CIFTI image must have the {len(self.brain_models)} grayordinates of the data; "
                f"got {len(models)} others."
            )
        with np.errstate(over="ignore"):
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
        return self._make_image(
            values, nib.cifti2.ScalarAxis([f"map {i}" for i in range(len(values))])
        )

    def make_series(self, values, t_r):
        """Make a CIFTI image of time series.

        Parameters
        ----------
        values : array of shape (n_volumes, n_voxels)
        t_r : float
            In s.

        Returns
        -------
        image : nibabel.Cifti2Image
            A dense series.
        """
        return self._make_image(values, nib.cifti2.SeriesAxis(0, t_r, len(values)))

    def _make_image(self, values, rows):
        with _describing:  # threads that write maps would all describe the grayordinates
            if self._columns is None:
                self._columns = grayordinate_map(self.brain_models)
        return make_image(values, rows, self.brain_models, self._columns)


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
        return make_surface_masker(*(_gifti_size(path)[1] for path in bold))
    from nilearn.maskers import NiftiMasker

    return NiftiMasker(mask, reports=False, dtype=np.float32, standardize=None).fit()


def make_surface_masker(n_left, n_right):
    """Make the fitted masker of all vertices of two hemispheres."""
    from nilearn.maskers import SurfaceMasker
    from nilearn.surface import SurfaceImage

    everywhere = {"left": np.ones(n_left, bool), "right": np.ones(n_right, bool)}
    mask_image = SurfaceImage(_mesh(n_left, n_right), everywhere)
    return SurfaceMasker(mask_image, reports=False, dtype=np.float32, standardize=None).fit()


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
    with open_image(path, "Mask") as image:
        shape = image.shape[:3] if image.shape[3:] in ((), (1,)) else image.shape
        affine = tuple(image.affine.ravel().tolist())
        if not same_grid(grid, ("volume", shape, affine)):
            raise InputError(
                f"Mask {path} must lie on the grid of the data: {grid[-1]}; got {shape}."
            )
        values = np.asarray(image.dataobj).reshape(shape)
    inside = values > 0
    if not inside.any():
        raise InputError(f"Mask {path} must have voxels inside; got none.")
    if (values[inside] != np.round(values[inside])).any():
        raise InputError(
            f"Mask {path} must hold whole numbers, 0 outside; got fractions from "
            f"{values[inside].min():g}."
        )
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
        parts = [_gifti_values(path) for path in bold]
        if len(parts[0]) != len(parts[-1]):
            raise InputError(f"{bold[0]} and {bold[-1].name} must have equally many volumes.")
        return np.concatenate(parts, axis=1)
    with open_image(bold[0]) as image:
        if _is_cifti(bold[0]):
            _cifti_axes(bold[0], image)
            values = masker.transform(image)
        else:
            values = _volume_values(bold[0], image, np.asarray(masker.mask_img_.dataobj) > 0)
    return _check_size(values, bold[0])


def _volume_values(path, image, inside):
    if image.shape[:3] != inside.shape or len(image.shape) != 4:
        raise InputError(f"{path} must have {inside.shape} voxels and volumes; got {image.shape}.")
    n_volumes = image.shape[3]
    values = np.empty((n_volumes, int(inside.sum())), dtype=np.float32)
    for start in range(0, n_volumes, _BLOCK_VOLUMES):
        stop = min(start + _BLOCK_VOLUMES, n_volumes)
        # apply_mask turns NaN into 0 only on request: they are to be counted here
        with np.errstate(over="ignore"):
            block = np.asarray(image.dataobj[..., start:stop], dtype=np.float32)
        values[start:stop] = block[inside].T
    return values


def _check_size(values, path):
    """Refuse values that no scanner gives; NaN and infinity are masked and counted later."""
    # fmin and fmax go over the values without a copy, and leave NaN out
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if not (low >= -_LARGEST_VALUE and high <= _LARGEST_VALUE):
        largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
        if largest > _LARGEST_VALUE:
            raise InputError(
                f"Image {path} must hold values below {_LARGEST_VALUE:g}; got {largest:g}: it is "
                "damaged or wrongly scaled."
            )
    return values


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
        check_file(path, "Image")
    if isinstance(masker, CiftiMasker):
        with open_image(paths[0]) as image:
            if not isinstance(image, nib.Cifti2Image):
                raise InputError(f"{paths[0]} must be CIFTI, as the data are grayordinates.")
            return masker.transform(image)
    if hasattr(masker.mask_img_, "mesh"):
        parts = [_gifti_values(path) for path in paths]
        sizes = tuple(part.shape[1] for part in parts)
        expected = tuple(len(part) for part in masker.mask_img_.data.parts.values())
        if sizes != expected or len(parts[0]) != len(parts[1]):
            raise InputError(
                f"{paths[0]} and its other hemisphere must have {expected} vertices; got {sizes}."
            )
        return np.concatenate(parts, axis=1)
    inside = np.asarray(masker.mask_img_.dataobj) > 0
    with open_image(paths[0]) as image:
        if not on_grid(image, masker.mask_img_):
            raise InputError(
                f"{paths[0]} must lie on the grid of the data, {inside.shape}; got "
                f"{image.shape[:3]}."
            )
        return np.atleast_2d(np.asarray(image.dataobj, dtype=np.float32)[inside].T)


def _gifti_values(path):
    image = _load(path)
    if not isinstance(image, nib.gifti.GiftiImage) or not image.darrays:
        raise InputError(f"Image {path} must be GIFTI with data arrays; got none.")
    columns = [np.atleast_2d(np.asarray(array.data).T) for array in image.darrays]
    if any(array.ext_fname for array in image.darrays):
        raise InputError(f"Image {path} must hold its data itself; it names another file.")
    if len({column.shape[1:] for column in columns}) != 1 or columns[0].ndim != 2:
        raise InputError(
            f"Image {path} must have arrays of one length; got "
            f"{sorted({column.shape for column in columns})}."
        )
    if any(column.dtype.kind not in "fiu" for column in columns):
        raise InputError(f"Image {path} must hold real numbers; got {columns[0].dtype}.")
    with np.errstate(over="ignore"):
        values = np.concatenate(columns, dtype=np.float32, casting="unsafe")
    return _check_size(np.ascontiguousarray(values), path)
