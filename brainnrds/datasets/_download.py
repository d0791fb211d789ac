"""Download and unpack files: resumed, verified, never outside the folder they belong in."""

import errno
import http.client
import lzma
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from brainnrds._files import hash_file
from brainnrds.io import InputError

__all__ = ["data_home", "download", "unpack"]

_CHUNK = 1 << 20
# slower than the slowest line: the server does not mean to send the file
_LEAST_BYTES_PER_SECOND = 100
_LENGTH = re.compile("[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
# archives of data unpack to a few times their size; what says more than both is made to fill a disk
_LARGEST_RATIO = 100
_LARGEST_UNSUSPECTED = 1 << 30


def data_home(data_dir=None):
    """Folder for data: `data_dir`, else the variable BRAINNRDS_DATA, else ~/brainnrds_data."""
    if data_dir is None:
        data_dir = os.environ.get("BRAINNRDS_DATA") or Path.home() / "brainnrds_data"
    return Path(data_dir)


def download(
    url, path, *, sha256=None, n_bytes=None, n_retries=4, timeout=30.0, wait=1.0, verbose=1
):
    """Download a file, continuing what an earlier call began.

    What has arrived is kept in ``<path>.part``; the final name appears when the file is whole.

    Parameters
    ----------
    url : str
        http or https.
    path : path-like
        An existing file is kept, if its checksum (where known) is right.
    sha256 : str or None, default=None
        Expected checksum.
    n_bytes : int or None, default=None
        Expected size; None: what the server says.
    n_retries : int, default=4
        Further tries after a cut connection or a server error (5xx).
    timeout : float, default=30.0
        Seconds without data, or with less than 100 bytes a second, after which a try is given up.
    wait : float, default=1.0
        Seconds before the second try, doubled each time.
    verbose : int, default=1
        1 shows a progress bar.

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        Not found, wrong checksum or size, no connection after all tries.
    OSError
        No space left, with what is needed.
    """
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"`path` must be a file's name; got {str(path)!r}.")
    try:
        _ = urllib.parse.urlsplit(url).port  # read: a wrong one is seen only then
    except ValueError as error:
        raise InputError(f"`url` must be a valid address; got {url!r}: {error}.") from error
    if not url.startswith(("http://", "https://")):
        raise InputError(f"`url` must be http or https; got {url}.")
    if path.is_file():
        if sha256 is None or hash_file(path) == sha256:
            return path
        raise InputError(f"{path} is there, but its checksum is not {sha256}: remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for trial in range(n_retries + 1):
        if trial:
            time.sleep(wait * 2 ** (trial - 1))
        try:
            _receive(url, part, n_bytes, timeout, verbose)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file: it is of another file
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise InputError(f"{url} cannot be had: {error.code} {error.reason}.") from error
            last = f"{error.code} {error.reason}"
        except (http.client.InvalidURL, ValueError) as error:
            if isinstance(error, InputError):
                raise
            # of the server's, where it sends on to another one
            raise InputError(
                f"`url` must be, and lead to, valid addresses; got {url!r}: {error}."
            ) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
            _CutError,
        ) as error:
            last = str(getattr(error, "reason", error))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                free = shutil.disk_usage(path.parent).free
                raise OSError(
                    errno.ENOSPC,
                    f"No space left for {path.name} in {path.parent}: {free / 1e6:.0f} MB free; "
                    "what has arrived is kept",
                ) from error
            raise
    else:
        raise InputError(f"{url} did not arrive in {n_retries + 1} tries: {last}.")
    if sha256 is not None and (found := hash_file(part)) != sha256:
        part.unlink()
        raise InputError(
            f"{path.name} must have the checksum {sha256}; got {found}: it was removed."
        )
    os.replace(part, path)
    return path


class _CutError(Exception):
    """The connection ended before the file did, or the answer makes no sense."""


class _RangeError(_CutError):
    """The answer holds another part of the file."""


def _promised_bytes(headers, done):
    """How long the whole file is by a server's answer; None where it does not say."""
    length = headers.get("Content-Length")
    if length is not None and not _LENGTH.fullmatch(length.strip()):
        raise _CutError(f"the server says that {length[:40]!r} bytes follow")
    total = None if length is None else done + int(length)
    sent = headers.get("Content-Range")
    if sent is not None:
        matched = _RANGE.fullmatch(sent.strip())
        if matched is None or int(matched[1]) != done:
            raise _RangeError(f"the server sent {sent[:60]} where byte {done} was next")
        total = total if matched[2] == "*" else int(matched[2])
    return total


def _receive(url, part, n_bytes, timeout, verbose):
    if part.is_symlink():  # what it leads to is not ours
        part.unlink()
    done = part.stat().st_size if part.is_file() else 0
    if n_bytes is not None and done == n_bytes:
        return
    headers = {"User-Agent": "brainnrds"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.status not in (200, 206):
            raise InputError(f"{url} must answer with a file; got status {response.status}.")
        if done and response.status != 206:  # the server starts again
            done = 0
        try:
            total = _promised_bytes(response.headers, done)
        except _RangeError:
            part.unlink(missing_ok=True)  # the next try asks for the whole file
            raise
        total = n_bytes if total is None else total
        if n_bytes is not None and total != n_bytes:
            raise InputError(f"{url} must have {n_bytes} bytes; the server offers {total}.")
        needed = (total or 0) - done
        folder = part.parent
        if needed > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, "No space left on device")
        progress = tqdm(
            total=total,
            initial=done,
            unit="B",
            unit_scale=True,
            desc=part.name.removesuffix(".part"),
            disable=not verbose,
            file=sys.stderr,
        )
        with progress, open(part, "ab" if done else "wb") as file:
            since, before = time.monotonic(), done
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress.update(len(chunk))
                if total is not None and done > total:
                    break
                if (seconds := time.monotonic() - since) > timeout:
                    if done - before < _LEAST_BYTES_PER_SECOND * seconds:
                        raise _CutError(f"{done - before} bytes came in {seconds:.0f} s")
                    since, before = time.monotonic(), done
    if total is not None and done > total:
        part.unlink()
        raise InputError(f"{url} must have {total} bytes; the server sent more: removed.")
    if total is not None and done < total:
        raise _CutError(f"the connection was cut after {done} of {total} bytes")


def _check_member(name, archive):
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name:
        raise InputError(f"{archive} must hold named files; it holds {name!r}: refused.")
    if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
        raise InputError(f"{archive} must stay in its folder; it holds {name!r}: refused.")


def unpack(archive, folder):
    """Unpack a zip or tar archive into a folder that appears when all of it is there.

    Parameters
    ----------
    archive : path-like
        ``.zip``, ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or ``.tar.xz``.
    folder : path-like
        Must not exist.

    Returns
    -------
    folder : Path

    Raises
    ------
    InputError
        A damaged or truncated archive; a member that is a link, a device, or lies outside.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise InputError(f"{folder} must not exist yet: {archive.name} is unpacked there.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, work)
        else:
            _unpack_tar(archive, work)
        work.chmod(0o755)
        os.replace(work, folder)
    except InputError:
        raise
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,  # encrypted, or a compression that is not known
        ValueError,  # a name or number that no archive has
    ) as error:
        raise InputError(f"{archive} is damaged or truncated: {error}.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"No space left to unpack {archive} in {folder}") from error
        # None: gzip's own for a damaged file; EINVAL: a place before the file's beginning
        if error.errno in (None, errno.EINVAL):
            raise InputError(f"{archive} is damaged or truncated: {error}.") from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _check_space(n_bytes, archive, folder):
    """Refuse before writing what cannot fit: a small archive may announce any size."""
    packed = archive.stat().st_size
    if n_bytes > max(_LARGEST_UNSUSPECTED, _LARGEST_RATIO * packed):
        raise InputError(
            f"{archive} must unpack to at most {_LARGEST_RATIO} times its {packed:,} bytes; it "
            f"announces {n_bytes:,}."
        )
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise InputError(
            f"{archive} must fit on the disk; it announces {n_bytes / 1e6:.0f} MB, "
            f"{free / 1e6:.0f} MB are free."
        )


def _unpack_zip(archive, work):
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check_member(member.orig_filename, archive)  # `filename` ends at a zero byte
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise InputError(f"{archive} must hold no links; {member.filename!r} is one.")
        _check_space(sum(member.file_size for member in file.infolist()), archive, work)
        for member in file.infolist():  # no member gets longer than announced
            target = work / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)  # checks the CRC at its end


def _unpack_tar(archive, work):
    try:
        stream = tarfile.open(archive, "r:*")
    except tarfile.ReadError as error:
        raise InputError(f"{archive} must be a whole zip or tar archive: {error}.") from error
    with stream as file:
        n_bytes = 0
        for member in file:
            _check_member(member.name, archive)
            target = work / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                n_bytes += member.size
                _check_space(n_bytes, archive, work)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.extractfile(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
                if target.stat().st_size != member.size:
                    raise InputError(f"{archive} is truncated: {member.name} is not whole.")
            else:
                raise InputError(
                    f"{archive} must hold plain files only; {member.name!r} is a link or device."
                )
        _read_to_the_end(file.fileobj, archive)


def _read_to_the_end(stream, archive):
    """Compressed streams carry their checksum at the end, behind the last member."""
    n_read = 0
    while block := stream.read(_CHUNK):
        n_read += len(block)
        if n_read > _CHUNK:
            raise InputError(f"{archive} must end with its last member; it goes on.")
