"""Features on disk: one self-describing HDF5 file per film and extractor, written chunk by chunk.

A chunk is written to a temporary file, flushed to the disk and renamed, so that a process killed at
any point leaves whole chunks only, and two processes that compute the same features overwrite each
other with the same bytes. When all chunks are there they become one file::

    <path>/<label>_<key>.parts/00000.h5, 00001.h5, ...     while the film is being worked on
    <path>/<label>_<key>.h5                                afterwards

The file holds `features` (n_samples, ...), `times` (s), the SHA-256 of every chunk and, as JSON in
its attributes, the description that the key was made from and the versions that wrote it.
"""

import hashlib
import json
import platform
import re
import shutil
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from brainnrds._files import atomic_path, check_file, check_replaceable, to_json
from brainnrds._hdf5 import text_attribute

__all__ = ["FeatureEntry", "FeatureStore"]

_FORMAT = 1
# in how many ways HDF5 says that a file is none of ours
_DAMAGED = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
)


def _checksum(array):
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


class FeatureStore:
    """A folder of features, found by what they were computed from.

    Parameters
    ----------
    path : path-like
        Folder; made when the first features are written.
    chunk_size : int, default=64
        Samples per chunk: what is lost at most, per process, when it is killed.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from brainnrds.features.store import FeatureStore
    >>> store = FeatureStore(tempfile.mkdtemp(), chunk_size=2)
    >>> entry = store.entry({"film": "abc", "extractor": "mean"}, times=[0.0, 1.0, 2.0])
    >>> for chunk in entry.missing_chunks():
    ...     rows = entry.rows(chunk)
    ...     entry.write_chunk(chunk, np.ones((rows.stop - rows.start, 4)))
    >>> entry.read().shape
    (3, 4)
    """

    def __init__(self, path, *, chunk_size=64):
        if int(chunk_size) != chunk_size or chunk_size < 1:
            raise ValueError(f"`chunk_size` must be a positive int; got {chunk_size!r}.")
        self.path = Path(path)
        self.chunk_size = int(chunk_size)

    def entry(self, description, times, *, label="features"):
        """Return the entry of these features, whether it exists already or not.

        Parameters
        ----------
        description : dict
            Everything that determines the features, in JSON's types: the key is its hash.
        times : array-like of shape (n_samples,)
            Seconds from the film's onset, one per sample; part of the key.
        label : str, default="features"
            Beginning of the file's name, for people. The same description needs the same label.

        Returns
        -------
        entry : FeatureEntry
        """
        return FeatureEntry(self, description, times, label)


class FeatureEntry:
    """The features of one film by one extractor; made by `FeatureStore.entry`.

    Attributes
    ----------
    key : str
        16 hexadecimal digits, from the description, the times and the chunk size.
    path : Path
        The finished file.
    n_chunks : int
    """

    def __init__(self, store, description, times, label):
        times = np.ascontiguousarray(times, dtype=np.float64)
        if times.ndim != 1 or len(times) == 0:
            raise ValueError(f"`times` must have shape (n_samples,), not empty; got {times.shape}.")
        self.times = times
        self.chunk_size = store.chunk_size
        self.n_chunks = -(-len(times) // self.chunk_size)
        # a microsecond of jitter between two participants' events is the same film position
        ticks = np.round(times * 1e6).astype(np.int64)
        self._description = json.dumps(
            {
                "format": _FORMAT,
                "chunk_size": self.chunk_size,
                "times_sha256": hashlib.sha256(ticks.tobytes()).hexdigest(),
                "description": description,
            },
            sort_keys=True,
            default=to_json,
        )
        self.key = hashlib.sha256(self._description.encode()).hexdigest()[:16]
        label = re.sub(r"[^A-Za-z0-9_-]+", "-", label)
        self.path = store.path / f"{label}_{self.key}.h5"
        self._parts = store.path / f"{label}_{self.key}.parts"

    def rows(self, chunk):
        """Return the slice of samples that a chunk holds."""
        start = chunk * self.chunk_size
        return slice(start, min(start + self.chunk_size, len(self.times)))

    def _part(self, chunk):
        return self._parts / f"{chunk:05d}.h5"

    def _write(self, path, features, checksums):
        # what a killed process leaves behind lies among the parts, which go away in the end
        try:
            with atomic_path(path, folder=self._parts) as temporary:
                self._fill(temporary, features, checksums)
        except FileNotFoundError:
            # another process finished these features and removed the parts under our hands
            if not self.path.exists():
                raise

    def _fill(self, path, features, checksums):
        rows = min(self.chunk_size, len(features))
        # HDF5 aborts the process when the disk is full: the file is made in memory and written as
        # plain bytes, whose failure is an error like any other
        with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
            file.attrs["description"] = np.bytes_(self._description.encode())
            versions = {"python": platform.python_version(), "h5py": h5py.__version__}
            file.attrs["versions"] = np.bytes_(json.dumps(versions))
            file["sha256"] = np.array(checksums, dtype="S64")
            file.create_dataset("features", data=features, chunks=(rows, *features.shape[1:]))
            if len(features) == len(self.times):
                file["times"] = self.times
            file.flush()
            path.write_bytes(file.id.get_file_image())

    def write_chunk(self, chunk, features):
        """Write one chunk; atomic, and harmless when it is there already.

        Parameters
        ----------
        chunk : int
        features : array of shape (n_rows_of_the_chunk, ...)
            Stored as float32.
        """
        features = np.ascontiguousarray(features, dtype=np.float32)
        rows = self.rows(chunk)
        if features.ndim < 2 or len(features) != rows.stop - rows.start:
            raise ValueError(
                f"`features` of chunk {chunk} must have {rows.stop - rows.start} rows, "
                f"(n_samples, n_features); got {features.shape}."
            )
        if not np.isfinite(features).all():
            raise ValueError(f"`features` of chunk {chunk} must be finite ({self.path.stem}).")
        self._write(self._part(chunk), features, [_checksum(features)])

    def _read_part(self, chunk):
        """Return a chunk, or None where it is missing or damaged."""
        return self._read_sound(self._part(chunk), [chunk]).get(chunk)

    def _read_finished(self):
        """Return a dict chunk -> features of the chunks of the finished file that are sound."""
        return self._read_sound(self.path, range(self.n_chunks))

    def _read_sound(self, path, chunks):
        """Return a dict chunk -> features: those of a file with these chunks that are sound."""
        sound = {}
        with suppress(*_DAMAGED):
            with h5py.File(check_file(path), "r", locking=False) as file:
                if text_attribute(file, "description") != self._description:
                    return sound
                first = self.rows(chunks[0]).start
                checksums = file["sha256"][: len(chunks)].astype("U")
                for chunk, checksum in zip(chunks, checksums, strict=True):
                    rows = self.rows(chunk)
                    with suppress(OSError, RuntimeError):
                        features = file["features"][rows.start - first : rows.stop - first]
                        if _checksum(features) == checksum:
                            sound[chunk] = features
        return sound

    def missing_chunks(self):
        """Return the chunks that still have to be computed; damaged ones are among them.

        Every chunk that is there is compared with its checksum. A finished file with a damaged
        chunk is taken apart, so that its sound chunks are kept.

        Returns
        -------
        chunks : list of int

        Raises
        ------
        InputError
            A folder lies in the place of a file.
        """
        is_there = check_replaceable(self.path).exists()
        if self._parts.is_symlink() or not self._parts.is_dir():
            self._parts.unlink(missing_ok=True)
        if is_there:
            sound = self._read_finished()
            if len(sound) == self.n_chunks:
                return []
            for chunk, features in sound.items():
                self._write(self._part(chunk), features, [_checksum(features)])
            self.path.unlink(missing_ok=True)
        return [chunk for chunk in range(self.n_chunks) if self._read_part(chunk) is None]

    def read(self):
        """Return the features; the first time, chunks are joined into the finished file.

        Returns
        -------
        features : array of float32 of shape (n_samples, ...)

        Raises
        ------
        KeyError
            Chunks are missing or damaged: see `missing_chunks`.
        """
        # a second process may join and remove the parts between our two looks: look again
        for _ in range(2):
            chunks = self._read_finished()
            if len(chunks) == self.n_chunks:
                shutil.rmtree(self._parts, ignore_errors=True)
                return np.concatenate([chunks[chunk] for chunk in range(self.n_chunks)])
            parts = {chunk: self._read_part(chunk) for chunk in range(self.n_chunks)}
            if all(features is not None for features in parts.values()):
                features = np.concatenate([parts[chunk] for chunk in range(self.n_chunks)])
                checksums = [_checksum(parts[chunk]) for chunk in range(self.n_chunks)]
                self._write(self.path, features, checksums)
                shutil.rmtree(self._parts, ignore_errors=True)
                return features
        missing = [chunk for chunk, features in parts.items() if features is None]
        raise KeyError(f"Chunks {missing} of {self.path.name} are missing or damaged.")
