"""Files on the ground floor: written whole or not at all, known by their content and kind."""

import glob
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

import brainnrds
from brainnrds._checks import InputError

__all__ = [
    "atomic_path",
    "check_file",
    "check_replaceable",
    "check_writable",
    "hash_file",
    "hash_files",
    "load_json",
    "plain",
    "provenance",
    "read_sealed",
    "read_text",
    "to_json",
    "write_sealed",
]

_LEFT_OVER_SECONDS = 24 * 3600.0
# sidecars, configurations and transcripts have kilobytes
_LARGEST_TEXT = 16 * 2**20
_SEAL_BYTES = hashlib.sha256().digest_size
_umask_lock = threading.Lock()


@contextmanager
def atomic_path(path, *, folder=None):
    """Give a temporary path beside `path`; what was written there becomes `path` at the end.

    If the block raises, the temporary file is removed and an older `path` stays as it was. A
    killed process leaves at most a hidden ``.tmp-*`` file, never a truncated one under the final
    name; the next write of the same file removes it when it is older than a day.

    Parameters
    ----------
    path : path-like
        Its folder is made where it is missing.
    folder : path-like or None, default=None
        Where the temporary file lies, on the same file system; None: beside `path`.

    Yields
    ------
    temporary : Path
        With the same extensions.

    Raises
    ------
    InputError
        A folder lies in its place.
    OSError
        No space, no permission; the message names the final path.
    """
    path = check_replaceable(path)
    folder = path.parent if folder is None else Path(folder)
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f".tmp-*-{glob.escape(path.name)}"):
            with suppress(FileNotFoundError):  # another process may finish its file just now
                if time.time() - left_over.stat().st_mtime > _LEFT_OVER_SECONDS:
                    left_over.unlink()
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=f"-{path.name}", dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp is private to the user; the file is to have the rights of any other new file
        with _umask_lock:  # it can be read only by changing it
            mask = os.umask(0)
            os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"Cannot write {path}: {reason}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_file(path, what="File"):
    """Refuse what is no plain file before it is opened: a FIFO would wait, a device never end.

    Parameters
    ----------
    path : path-like
    what : str, default="File"
        First word of the message: "Image", "Film", ...

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        It is missing, a link without content, a folder, a FIFO or a device, or may not be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            # git-annex links to where the content will lie once it is fetched
            fetch = ": `datalad get` fetches it" if "annex" in os.readlink(path) else ""
            raise InputError(f"{what} {path} is a link without content{fetch}.") from None
        raise InputError(f"{what} not found: {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{what} {str(path)[:200]!r} cannot be opened: {reason}.") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a FIFO, socket or device"
        raise InputError(f"{what} {path} must be a file; got {kind}.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{what} {path} may not be read: permission denied.")
    return path


def check_replaceable(path):
    """Refuse a folder in the place of a file that shall be written, or a file in its folder's."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} must be a file; got a folder: remove it.")
    above = next((folder for folder in path.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise InputError(f"{path} must lie in a folder; {above} is a file: remove it.")
    return path


def check_writable(folder):
    """Refuse a folder in which nothing can be written, or that cannot be made; leaves nothing."""
    folder = Path(folder)
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        os.rmdir(tempfile.mkdtemp(prefix=".tmp-", dir=existing))
    except OSError as error:
        raise InputError(f"{str(folder)[:200]} cannot be written: {error.strerror}.") from error


def write_sealed(path, content):
    """Write bytes, and their SHA-256 behind them, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content + hashlib.sha256(content).digest())


def read_sealed(path):
    """Return the bytes that `write_sealed` wrote, or None where they are missing or damaged.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    content : bytes or None

    Raises
    ------
    InputError
        A folder lies in its place.
    """
    path = check_replaceable(path)
    try:
        content = check_file(path).read_bytes()
    except (OSError, InputError):
        return None
    content, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    return content if hashlib.sha256(content).digest() == seal else None


@lru_cache(maxsize=4096)
def _hash_unchanged_file(path, size, modified):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def hash_file(path):
    """Return the SHA-256 of a file's content; an unchanged file is read once per process.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    digest : str
        64 hexadecimal digits.

    Raises
    ------
    InputError
        As `check_file`.
    """
    state = check_file(path).stat()
    return _hash_unchanged_file(os.path.abspath(path), state.st_size, state.st_mtime_ns)


def hash_files(paths, n_threads=1):
    """Return the SHA-256 of several files, which threads read at once: see `hash_file`.

    Parameters
    ----------
    paths : iterable of path-like
    n_threads : int, default=1

    Returns
    -------
    digests : list of str
    """
    with ThreadPoolExecutor(n_threads) as threads:  # hashing leaves the interpreter to others
        return list(threads.map(hash_file, paths))


def read_text(path, what, largest=_LARGEST_TEXT):
    """Return the content of a plain UTF-8 file of bounded size (bytes)."""
    path = check_file(path, what)
    size = path.stat().st_size
    with open(path, "rb") as file:
        content = file.read(min(size, largest) + 1)
    if len(content) > largest:
        raise InputError(f"{what} {path} must have at most {largest // 2**20} MiB; it has more.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} must be UTF-8 text: {error}.") from error


def load_json(path):
    """Read a JSON file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    content : dict

    Raises
    ------
    InputError
        It is missing, no plain file, larger than 16 MiB, no JSON, nested too deeply, or holds
        something else than an object.
    """
    text = read_text(path, "JSON file", _LARGEST_TEXT)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise InputError(
            f"{path} must be a readable JSON file: it is nested too deeply."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} must be a readable JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object; got {type(content).__name__}.")
    return content


def to_json(value):
    """Turn what JSON does not know into lists and text, the same way every time.

    For ``json.dumps(..., default=to_json)``.
    """
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def plain(value):
    """Turn NumPy's types into JSON's; what JSON has no word for becomes text or null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


def provenance(metadata):
    """The fields of a sidecar, with what wrote it."""
    return {
        "GeneratedBy": {"Name": "brainnrds", "Version": brainnrds.__version__},
        **(metadata or {}),
    }
