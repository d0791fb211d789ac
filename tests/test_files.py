"""Files on the ground floor: sealed, replaced or refused, never half."""

import os

import pytest

from brainnrds._checks import InputError
from brainnrds._files import (
    atomic_path,
    check_replaceable,
    check_writable,
    hash_file,
    read_sealed,
    write_sealed,
)


def test_a_sealed_file_gives_what_was_written_or_nothing(tmp_path):
    path = tmp_path / "a.bin"
    assert read_sealed(path) is None
    for content in (b"", b"some content"):
        write_sealed(path, content)
        assert read_sealed(path) == content
    sealed = path.read_bytes()
    for place in range(len(sealed)):  # every byte counts, and every length
        path.write_bytes(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        assert read_sealed(path) is None
        path.write_bytes(sealed[:place])
        assert read_sealed(path) is None


def test_a_fifo_or_a_link_to_itself_holds_nothing_and_is_replaced(tmp_path):
    path = tmp_path / "a.bin"
    for put in (os.mkfifo, lambda path: path.symlink_to(path.name)):
        put(path)
        assert read_sealed(path) is None  # a FIFO that is opened waits for ever
        write_sealed(path, b"x")
        assert read_sealed(path) == b"x" and path.is_file() and not path.is_symlink()
        path.unlink()


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.mkdir()
    for use in (check_replaceable, read_sealed, lambda path: write_sealed(path, b"")):
        with pytest.raises(InputError, match="must be a file; got a folder: remove it"):
            use(path)
    assert list(tmp_path.iterdir()) == [path] and not list(path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for use in (check_replaceable, read_sealed, lambda path: write_sealed(path, b"")):
        with pytest.raises(InputError, match="must lie in a folder; .*file is a file"):
            use(tmp_path / "file" / "a" / "b.bin")


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        check_writable(tmp_path / "file" / "b")


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)

        def noted(*given, step=step, original=original):
            steps.append(step)
            return original(*given)

        monkeypatch.setattr(os, step, noted)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert steps == ["fsync", "replace"]


def test_nothing_but_a_file_is_hashed(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="must be a file; got a FIFO"):
        hash_file(tmp_path / "fifo")
