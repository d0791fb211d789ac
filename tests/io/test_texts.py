"""JSON and TSV: a plain file of the right kind is read, anything else is refused in one line."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds import _files, io
from brainnrds.io import _texts


def refused(read, path, match):
    with pytest.raises(io.InputError, match=match) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [io.load_json, io.load_table])
def test_what_is_no_plain_file_is_not_opened(tmp_path, read):
    refused(read, tmp_path / "none", "not found")
    refused(read, tmp_path, "must be a file; got a folder")
    os.mkfifo(tmp_path / "fifo")
    refused(read, tmp_path / "fifo", "FIFO, socket or device")
    (tmp_path / "zero").symlink_to("/dev/zero")
    refused(read, tmp_path / "zero", "FIFO, socket or device")
    (tmp_path / "loop").symlink_to("loop")
    refused(read, tmp_path / "loop", "cannot be opened: Too many levels")
    (tmp_path / "gone").symlink_to("nowhere")
    refused(read, tmp_path / "gone", "is a link without content")
    (tmp_path / "annexed").symlink_to(".git/annex/objects/x/y")
    refused(read, tmp_path / "annexed", "`datalad get` fetches it")
    refused(read, tmp_path / "a\0b", "cannot be opened")
    refused(read, tmp_path / ("x" * 5000), "cannot be opened")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "readable JSON"),
        (b"{", "readable JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "readable JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "readable JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "readable JSON"),
        (b"[1, 2]", "must hold a JSON object; got list"),
        (b"7", "got int"),
        (b"null", "got NoneType"),
        ('{"Name": "ü"}'.encode("latin-1"), "must be UTF-8"),
        ('{"Name": "x"}'.encode("utf-16"), "must be UTF-8"),
    ],
)
def test_no_json(tmp_path, content, match):
    (tmp_path / "a.json").write_bytes(content)
    refused(io.load_json, tmp_path / "a.json", match)


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert io.load_json(tmp_path / "a.json") == {"a": 1}


def test_huge_texts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_LARGEST_TEXT", 2**20)
    monkeypatch.setattr(_texts, "_LARGEST_TABLE", 2**20)
    (tmp_path / "a").write_bytes(b" " * (2**20 + 1))
    refused(io.load_json, tmp_path / "a", "at most 1 MiB")
    refused(io.load_table, tmp_path / "a", "at most 1 MiB")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty file"),
        (b"\n \n", "empty file"),
        (b"a\tb\n1\t2\n\0\0\0", "zero bytes"),
        (b"a\tb\ta\n1\t2\t3\n", "'a' is there twice"),
        (b"a\tb\n1\t2\n1\t2\t3\n", "2 fields in every row, as its header; row 3 has 3"),
        # a tab too many at every end: pandas alone would shift the columns by one
        (b"a\tb\n1\t2\t\n3\t4\t\n", "row 2 has 3"),
        (b"a\tb\n1\n", "row 2 has 1"),
        ("a\tb\n1\t2\n".encode("utf-16"), "must be UTF-8"),
        (b'a\tb\n1\t"2\n', "readable TSV"),
    ],
)
def test_no_table(tmp_path, content, match):
    (tmp_path / "a.tsv").write_bytes(content)
    refused(io.load_table, tmp_path / "a.tsv", match)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa\tb\r\n1\tn/a\r\n", b"a\tb\n1\tn/a"])
def test_tables_of_other_systems(tmp_path, content):
    (tmp_path / "a.tsv").write_bytes(content)
    table = io.load_table(tmp_path / "a.tsv")
    assert list(table) == ["a", "b"]
    assert table["a"].tolist() == [1]
    assert table["b"].isna().tolist() == [True]


def damage(content, draw):
    """Bytes of a file after one of the accidents that happen to files."""
    start = draw(st.integers(0, len(content)))
    new = draw(st.binary(max_size=8))
    kind = draw(st.sampled_from(["replaced", "put in", "cut", "doubled"]))
    if kind == "cut":
        return content[:start]
    if kind == "doubled":
        return content[:start] + content
    return content[:start] + new + content[start + (len(new) if kind == "replaced" else 0) :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    table = {"a": np.arange(4), "b": ["x", "n/a", '"', "ü"]}
    return io.save_table(tmp_path_factory.mktemp("texts") / "a.tsv", table, columns={"a": "number"})


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_damaged_texts_are_read_or_refused(whole, data):
    for read, path in ((io.load_table, whole), (io.load_json, whole.with_suffix(".json"))):
        spoilt = path.with_stem("spoilt")
        spoilt.write_bytes(damage(path.read_bytes(), data.draw))
        try:
            content = read(spoilt)
        except io.InputError as error:
            assert str(error).startswith(("Table", "JSON", str(spoilt)))
        else:
            assert isinstance(content, pd.DataFrame if read is io.load_table else dict)
