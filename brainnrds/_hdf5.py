"""Named arrays in one HDF5 file: written whole, read only as they were written.

Text has a fixed length. HDF5 keeps other text in a heap without a checksum, and where that is
damaged it looks there for ever.
"""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, check_file, plain, provenance

__all__ = ["load_arrays", "load_datasets", "save_arrays", "text_attribute"]

_IN_MEMORY_BYTES = 256 * 2**20
# gzip makes data at most 1,032 times smaller
_BEST_COMPRESSION = 1032


def save_arrays(path, arrays, *, metadata=None, chunk_rows=1, compressed=True):
    """Write named arrays as HDF5, chunked by rows, compressed and with a checksum.

    Parameters
    ----------
    path : path-like
        Ends in .h5.
    arrays : dict
        Name -> numeric or bool array, or list of str.
    metadata : dict or None, default=None
        Stored in the file's attribute "metadata" as JSON.
    chunk_rows : int, default=1
        Entries of the first axis per chunk, for arrays of two and more dimensions.
    compressed : bool, default=True
        False writes arrays as they are: what looks like noise, as weights do, takes half a minute a
        GB to make a tenth smaller.

    Returns
    -------
    path : Path
    """
    import h5py

    path = Path(path)
    arrays = {key: _storable(key, array) for key, array in arrays.items()}
    described = json.dumps(plain(provenance(metadata)))
    n_bytes = sum(array.nbytes for array in arrays.values() if not isinstance(array, list))
    with atomic_path(path) as temporary:
        # HDF5 brings the process down when the disk is full: small files are made in memory and
        # written as plain bytes, for large ones the room is asked for first
        small = n_bytes <= _IN_MEMORY_BYTES
        if not small and hasattr(os, "posix_fallocate"):  # macOS has none
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        driver = {"driver": "core", "backing_store": False} if small else {}
        # of this format, structures have checksums, and attributes may be long
        with h5py.File(temporary, "w", libver="v110", **driver) as file:
            for key, array in arrays.items():
                _store(file, key, array, chunk_rows if compressed else None)
            file.attrs["metadata"] = np.bytes_(described)
            file.attrs["sha256"] = np.bytes_(_digest(arrays, described))
            if small:
                file.flush()
                image = file.id.get_file_image()
        if small:
            temporary.write_bytes(image)
    return path


def _storable(key, array):
    if isinstance(array, (list, tuple)) and all(isinstance(item, str) for item in array):
        return list(array)
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"Array {key!r} must be numeric, bool or text; got {array.dtype}.")
    return array


def _store(file, key, array, chunk_rows):
    import h5py

    if isinstance(array, list):
        texts = [text.encode() for text in array]
        kind = h5py.string_dtype("utf-8", max([1, *map(len, texts)]))
        file.create_dataset(key, data=np.array(texts, dtype=kind))
        return
    if chunk_rows is None or array.ndim < 2 or 0 in array.shape:
        file.create_dataset(key, data=array)
        return
    rows = min(chunk_rows, len(array))
    file.create_dataset(
        key,
        data=array,
        chunks=(rows, *array.shape[1:]),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
        fletcher32=True,
    )


def _digest(arrays, metadata):
    """SHA-256 of names, types, shapes, values and metadata."""
    digest = hashlib.sha256(metadata.encode())
    for key, array in sorted(arrays.items()):
        if isinstance(array, list):
            digest.update(json.dumps([key, array]).encode())
            continue
        array = np.ascontiguousarray(array)
        digest.update(json.dumps([key, array.dtype.str, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def load_arrays(path):
    """Read what `save_arrays` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    arrays : dict
        Name -> array or list of str.
    metadata : dict

    Raises
    ------
    InputError
        The file is missing, truncated, damaged, not of this kind, or takes its data from elsewhere.
    """
    import h5py

    path = check_file(path, "HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            arrays = {key: _load(file, key, path.stat().st_size) for key in file}
            described = text_attribute(file, "metadata")
            if _digest(arrays, described) != text_attribute(file, "sha256"):
                raise ValueError("its content does not fit its checksum")
            return arrays, json.loads(described)
    except Exception as error:  # h5py raises many types for a damaged file
        reason = " ".join(str(error).split())
        raise InputError(f"{path} must be a whole HDF5 file of brainnrds: {reason}.") from error


def load_datasets(path, names, what="HDF5 file"):
    """Read some arrays of an HDF5 file from elsewhere.

    Parameters
    ----------
    path : path-like
    names : sequence of str
    what : str, default="HDF5 file"
        First words of the message.

    Returns
    -------
    arrays : list of arrays

    Raises
    ------
    InputError
        As `load_arrays`, and where one of them is not there.
    """
    import h5py

    path = check_file(path, what)
    try:
        with h5py.File(path, "r") as file:
            return [_load(file, name, path.stat().st_size) for name in names]
    except Exception as error:  # h5py raises many types for a damaged file
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} {path} must be an HDF5 file with {' and '.join(names)}: {reason}."
        ) from error


def text_attribute(file, name):
    """Read the text of an attribute.

    Parameters
    ----------
    file : h5py.File
    name : str

    Returns
    -------
    text : str

    Raises
    ------
    KeyError, ValueError
        It is not there, or is no text of fixed length.
    """
    if not _has_fixed_text(file.attrs.get_id(name).dtype):
        raise ValueError(f"attribute {name} is no text of fixed length")
    return file.attrs[name].decode()


def _has_fixed_text(dtype):
    import h5py

    text = h5py.check_string_dtype(dtype)
    return text is not None and text.length is not None


def _load(file, key, size):
    import h5py

    dataset = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise ValueError(f"{key} is no array of this file")
    is_text = _has_fixed_text(dataset.dtype)
    if dataset.dtype.kind not in "fiub" and not is_text:
        raise ValueError(f"{key} must hold numbers or text of fixed length; got {dataset.dtype}")
    if math.prod(dataset.shape) * dataset.dtype.itemsize > _BEST_COMPRESSION * size:
        raise ValueError(f"{key} of shape {dataset.shape} does not fit in it")
    return dataset.asstr()[()].tolist() if is_text else dataset[()]
