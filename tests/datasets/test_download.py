"""Downloads against a real server on the loopback interface, and unpacking of bad archives."""

import errno
import gzip
import hashlib
import io
import os
import random
import shutil
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import brainnrds.datasets._download as module
from brainnrds.datasets import fetch_wen2018
from brainnrds.datasets._download import download, unpack
from brainnrds.io import InputError

BODY = random.Random(0).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/empty":
            self.send_response(204)
            self.end_headers()
            return
        if self.path == "/chunked":  # cut within a chunk
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\nshort")
            self.close_connection = True
            return
        if self.path == "/longer":  # no length is said
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BODY + b"more")
            self.close_connection = True
            return
        if self.path == "/many":
            self.send_response(200)
            self.send_header("Content-Length", "many")
            self.end_headers()
            self.wfile.write(BODY)
            self.close_connection = True
            return
        if self.path == "/first":  # a part, though all was asked for
            self.send_response(206)
            self.send_header("Content-Length", "100")
            self.send_header("Content-Range", f"bytes 0-99/{len(BODY)}")
            self.end_headers()
            self.wfile.write(BODY[:100])
            return
        if self.path == "/trickle":  # a byte now and then, as long as somebody listens
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            for place in range(100):
                self.wfile.write(BODY[place : place + 1])
                time.sleep(0.05)
            return
        if self.path == "/lies":
            self._lie(server.lies.pop(0) if server.lies else {})
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://[::1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/busy" and len(server.requests) < 3:
            self.send_error(503)
            return
        body, start = server.files.get(self.path, BODY), 0
        wanted = self.headers.get("Range")
        if wanted and self.path != "/no-ranges":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            if self.path == "/other-range":
                start = 7
                self.send_header("Content-Range", f"bytes 7-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start:]
        if self.path.startswith("/cut") and server.cuts > 0:
            server.cuts -= 1
            part = part[:100_000]
        self.wfile.write(part)
        self.wfile.flush()
        self.close_connection = True

    def _lie(self, lie):
        """Answer in any way; without a lie with the part that was asked for."""
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = BODY[lie.get("start", start) :][: lie.get("length")] + lie.get("more", b"")
        self.send_response(lie.get("status", 206 if wanted else 200))
        for name, value in {
            "Content-Length": len(body),
            "Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}" if wanted else None,
            **lie.get("headers", {}),
        }.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.cuts, server.files, server.lies = [], 0, {}, []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()
        thread.join(5)


def _get(server, name, path, **options):
    return download(f"{server.url}/{name}", path, wait=0.01, verbose=0, timeout=5, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "status 204"),
        ("chunked", "in 3 tries"),
        ("longer", "sent more"),
        ("many", "in 3 tries: the server says that 'many' bytes follow"),
        ("first", "in 3 tries: the connection was cut after 100 of 300000"),
        ("elsewhere", "must be, and lead to, valid addresses"),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_no_file_under_its_name_when_the_server_lies(server, tmp_path, name, message, is_known):
    if name == "longer" and not is_known:
        return  # nobody can know
    n_bytes = len(BODY) if is_known else None
    with pytest.raises(InputError, match=message):
        _get(server, name, tmp_path / "file.zip", n_bytes=n_bytes, n_retries=2)
    assert not (tmp_path / "file.zip").exists()


def test_a_server_that_trickles_is_given_up(server, tmp_path):
    address = f"{server.url}/trickle"
    with pytest.raises(InputError, match="in 1 tries: [0-9]+ bytes came in"):
        download(address, tmp_path / "file", n_retries=0, timeout=0.5, verbose=0)
    assert os.listdir(tmp_path) == ["file.part"]


_NUMBERS = st.sampled_from([0, 1, 99, len(BODY) - 1, len(BODY), len(BODY) + 1, 10**17])
_LENGTHS = st.one_of(_NUMBERS, st.sampled_from([None, "many", "-5", "1e5", "9" * 30, "0x10"]))
_RANGES = st.one_of(
    st.none(),
    st.sampled_from(["bytes", "bytes */*", "lines 1-2/3", "bytes 0-0/0"]),
    st.builds("bytes {}-{}/{}".format, _NUMBERS, _NUMBERS, st.one_of(_NUMBERS, st.just("*"))),
)
LIES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([200, 204, 206, 301, 403, 416, 500, 503, 600]),
        "start": st.integers(0, len(BODY)),
        "length": st.integers(0, len(BODY)),
        "more": st.binary(max_size=9),
        "headers": st.fixed_dictionaries(
            {}, optional={"Content-Length": _LENGTHS, "Content-Range": _RANGES}
        ),
    },
)


@settings(
    derandomize=True,
    max_examples=80,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lies=st.lists(LIES, min_size=1, max_size=4), n_bytes=st.sampled_from([None, len(BODY)]))
def test_whatever_servers_answer_the_file_is_right_or_refused(server, tmp_path, lies, n_bytes):
    """One of several lies, each in status, range, length or content; the checksum is known."""
    path = tmp_path / "file"
    server.lies[:] = lies
    options = {"sha256": SHA, "n_bytes": n_bytes, "n_retries": 2, "wait": 0.0, "timeout": 0.3}
    try:
        download(f"{server.url}/lies", path, verbose=0, **options)
    except InputError as error:
        assert "\n" not in str(error) and not path.exists()
    except OSError as error:  # 10**17 bytes
        assert error.errno == errno.ENOSPC and not path.exists()
    else:
        assert path.read_bytes() == BODY
    for left in tmp_path.iterdir():
        assert left.name in ("file", "file.part")
        left.unlink()


def test_a_part_that_is_a_link_is_not_written_through(server, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "file.part").symlink_to("mine")
    assert _get(server, "file", tmp_path / "file").read_bytes() == BODY
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "file").is_symlink()


def test_a_name_that_no_file_can_have(server, tmp_path):
    with pytest.raises(InputError, match="`path` must be a file's name"):
        _get(server, "file", tmp_path / "a\0b")
    assert server.requests == []


def test_another_range_than_asked_for(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY[:1000])
    path = _get(server, "other-range", tmp_path / "file.zip")
    assert path.read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("url", ["http://a b/c", "http://[::1", "http://x:port/", "ftp://x/y"])
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(InputError, match="`url` must be"):
        download(url, tmp_path / "file.zip", n_retries=0, verbose=0)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_announces_more_than_the_disk_holds(tmp_path, monkeypatch, kind):
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros", bytes(10_000_000))
    else:
        _tar(archive, [(tarfile.TarInfo("zeros"), bytes(10_000_000))])
    free = type("Usage", (), {"free": 9_000_000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(InputError, match="announces 10 MB, 9 MB are free"):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == [archive.name]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "sparse"])
def test_an_archive_that_announces_a_hundredfold(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "_LARGEST_UNSUSPECTED", 1_000_000)
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("one", bytes(900_000))
            file.writestr("two", bytes(900_000))
    elif kind == "tar.gz":
        members = [(tarfile.TarInfo(name), bytes(900_000)) for name in ("one", "two")]
        _tar(archive, members)
    else:
        member = tarfile.TarInfo("holes")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "holes",
            "GNU.sparse.realsize": "4000000000",
        }
        _tar(archive, [(member, b"1\n0\n4\n".ljust(512, b"\0") + b"abcd")], "w")
    with pytest.raises(InputError, match="must unpack to at most 100 times its"):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == [archive.name]


def test_the_checksum_of_a_compressed_tar_is_read(tmp_path):
    """Wherever a bit flips behind gzip's header: refused, or what was packed."""
    archive = tmp_path / "a.tar.gz"
    content = BODY[:2000]
    _tar(archive, [(tarfile.TarInfo("x"), content)])
    whole = archive.read_bytes()
    n_refused = 0
    for place in range(10, len(whole), 23):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            folder = unpack(archive, tmp_path / f"out{place}")
        except InputError:
            n_refused += 1
        else:
            assert (folder / "x").read_bytes() == content
    assert n_refused > 80
    archive.write_bytes(whole)
    assert (unpack(archive, tmp_path / "out") / "x").read_bytes() == content


def test_a_tar_that_goes_on_behind_its_end(tmp_path):
    archive = tmp_path / "a.tar.gz"
    _tar(archive, [(tarfile.TarInfo("x"), b"x")])
    archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(3_000_000)))
    with pytest.raises(InputError, match="must end with its last member"):
        unpack(archive, tmp_path / "out")


def test_members_need_names_that_files_can_have(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("aXb", "x")
    whole = archive.read_bytes()
    empty = whole.replace(b"aXb", b"").replace(b"\x03\0\0\0", b"\0\0\0\0")
    for bad in (whole.replace(b"aXb", b"a\0b"), empty):
        archive.write_bytes(bad)
        with pytest.raises(InputError):
            unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.zip"]
    # the folder itself is listed where all that is in it was packed
    _tar(tmp_path / "b.tar", [(_folder("./"), None), (tarfile.TarInfo("./x"), b"x")], "w")
    assert (unpack(tmp_path / "b.tar", tmp_path / "out") / "x").read_bytes() == b"x"


def _folder(name):
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


@pytest.mark.parametrize("method", ["ZIP_DEFLATED", "ZIP_LZMA", "ZIP_BZIP2"])
def test_one_flipped_byte_in_a_zip(tmp_path, method):
    """Whatever byte of the data it is: one line, or what was packed."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", getattr(zipfile, method)) as file:
        file.writestr("x", BODY[:200])
    whole = archive.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        archive.write_bytes(damaged)
        try:
            unpack(archive, tmp_path / f"out{place}")
        except InputError:
            assert os.listdir(tmp_path).count(f"out{place}") == 0
        else:
            (found,) = (tmp_path / f"out{place}").iterdir()
            assert found.read_bytes() == BODY[:200]


def test_whole_file(server, tmp_path):
    path = _get(server, "file", tmp_path / "a" / "file.zip", sha256=SHA, n_bytes=len(BODY))
    assert path.read_bytes() == BODY
    _get(server, "file", path, sha256=SHA)
    assert len(server.requests) == 1  # kept
    assert os.listdir(path.parent) == ["file.zip"]


@pytest.mark.parametrize("name", ["cut", "cut-no-length"])
def test_cut_connection_is_resumed(server, tmp_path, name):
    server.cuts = 2
    path = _get(server, name, tmp_path / "file", sha256=SHA)
    assert path.read_bytes() == BODY
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_resume_in_a_later_call(server, tmp_path):
    server.cuts = 1
    with pytest.raises(InputError, match="did not arrive in 1 tries: the connection was cut"):
        _get(server, "cut", tmp_path / "file", n_retries=0)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size == 100_000
    assert _get(server, "cut", tmp_path / "file", sha256=SHA).read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=100000-"


def test_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert _get(server, "no-ranges", tmp_path / "file", sha256=SHA).read_bytes() == BODY


def test_part_of_another_file(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 400_000)
    assert _get(server, "file", tmp_path / "file", sha256=SHA).read_bytes() == BODY


def test_busy_server(server, tmp_path):
    assert _get(server, "busy", tmp_path / "file").read_bytes() == BODY
    assert len(server.requests) == 3


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(InputError, match=rf"must have the checksum {'0' * 64}; got {SHA}"):
        _get(server, "file", tmp_path / "file", sha256="0" * 64)
    assert os.listdir(tmp_path) == []


def test_not_found_is_not_tried_again(server, tmp_path):
    with pytest.raises(InputError, match="404"):
        _get(server, "missing", tmp_path / "file")
    assert len(server.requests) == 1


def test_wrong_size_is_seen_before_the_download(server, tmp_path):
    with pytest.raises(InputError, match="must have 5 bytes; the server offers 300000"):
        _get(server, "file", tmp_path / "file", n_bytes=5)


def test_nobody_answers(tmp_path):
    with pytest.raises(InputError, match="did not arrive in 2 tries"):
        download("http://127.0.0.1:9/x", tmp_path / "x", n_retries=1, wait=0.01, verbose=0)
    with pytest.raises(InputError, match="must be http or https"):
        download("file:///etc/hostname", tmp_path / "x")


def test_no_space(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="No space left for file") as caught:
        _get(server, "file", tmp_path / "file")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "file").exists()


def _tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            if content is not None:
                member.size = len(content)
            archive.addfile(member, None if content is None else io.BytesIO(content))


def _link(kind):
    member = tarfile.TarInfo("data/link")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_unpack(tmp_path, ending):
    archive = tmp_path / f"a{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("data/x.txt", "hello")
    else:
        _tar(
            archive, [(tarfile.TarInfo("data/x.txt"), b"hello")], "w:gz" if "gz" in ending else "w"
        )
    assert (unpack(archive, tmp_path / "out") / "data" / "x.txt").read_text() == "hello"
    assert sorted(os.listdir(tmp_path)) == [archive.name, "out"]


@pytest.mark.parametrize("name", ["../evil.txt", "data/../../evil.txt", "/tmp/evil.txt", "C:/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_are_refused(tmp_path, name, kind):
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("good.txt", "fine")
            file.writestr(name, "bad")
    else:
        _tar(
            archive, [(tarfile.TarInfo("good.txt"), b"fine"), (tarfile.TarInfo(name), b"bad")], "w"
        )
    with pytest.raises(InputError, match="must stay in its folder.*refused"):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == [archive.name]


def test_links_and_devices_are_refused(tmp_path):
    for index, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)):
        archive = tmp_path / f"{index}.tar"
        _tar(archive, [(_link(kind), None)], "w")
        with pytest.raises(InputError, match="plain files only"):
            unpack(archive, tmp_path / "out")
    archive = tmp_path / "link.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="must hold no links"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize("keep", [0.5, 0.02])
def test_truncated_archives(tmp_path, ending, keep):
    archive = tmp_path / f"a{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("x.bin", BODY)
    else:
        _tar(archive, [(tarfile.TarInfo("x.bin"), BODY)], "w:gz" if "gz" in ending else "w")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"truncated|must be a whole zip or tar"):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == [archive.name]


def test_no_space_to_unpack(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar"
    _tar(archive, [(tarfile.TarInfo("x.bin"), BODY)], "w")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left to unpack"):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.tar"]


def test_fetch_downloads_and_unpacks(server, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("video_fmri_dataset/stimuli/seg1.mp4", "film")
    server.files["/stimuli.zip"] = stream.getvalue()
    entry = {"url": f"{server.url}/stimuli.zip", "n_bytes": len(stream.getvalue())}
    found = fetch_wen2018(
        tmp_path, what=("stimuli",), archives={"stimuli.zip": entry}, n_retries=0, verbose=0
    )
    assert [film.name for film in found.films] == ["seg1.mp4"]
    assert "22 files of the release are missing" in found.missing


def _content(folder):
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The same files in archives of every kind that has a checksum."""
    folder = tmp_path_factory.mktemp("archives")
    members = {"data/a.txt": BODY[:700], "data/b/c.bin": bytes(3000)}
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    for kind in ("gz", "bz2", "xz"):
        entries = [(tarfile.TarInfo(name), content) for name, content in members.items()]
        _tar(folder / f"a.tar.{kind}", entries, f"w:{kind}")
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_damaged_archives_are_unpacked_right_or_refused(archives, data):
    path = data.draw(st.sampled_from(list(archives)))
    content = bytearray(archives[path])
    where = st.integers(0, len(content) - 1)
    kind = data.draw(st.sampled_from(["flipped", "replaced", "cut", "doubled", "left out"]))
    place, size = data.draw(where), data.draw(st.integers(1, 40))
    if kind == "flipped":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "replaced":
        content[place : place + size] = data.draw(st.binary(min_size=size, max_size=size))
    elif kind == "cut":
        del content[place:]
    elif kind == "doubled":
        content[place:place] = content[place : place + size]
    else:
        del content[place : place + size]
    damaged, folder = path.with_stem(f"damaged-{path.stem}"), path.parent / "out"
    damaged.write_bytes(content)
    try:
        unpack(damaged, folder)
    except InputError as error:
        assert damaged.name in str(error) and not folder.exists()
    else:
        found = _content(folder)
        assert {found[name] for name in found} - {None} == {BODY[:700], bytes(3000)}
        if path.suffix != ".zip":  # names of members have no checksum there
            assert set(found) == {"data", "data/a.txt", "data/b", "data/b/c.bin"}
        shutil.rmtree(folder)
    finally:
        damaged.unlink()
    assert not [p for p in path.parent.iterdir() if p not in archives]
