"""Arrays in HDF5: what comes back is what was written, or one line."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainnrds.io as io

ARRAYS = {
    "a": np.random.default_rng(0).normal(size=(12, 9)),
    "times": np.arange(5.0),
    "names": ["ü"],
}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "missing", "folder"])
def test_damaged_arrays_are_refused(tmp_path, damage):
    path = tmp_path / "a.h5"
    io.save_arrays(path, {"a": np.random.default_rng(0).normal(size=(50, 40))})
    with h5py.File(path) as file:
        place = file["a"].id.get_chunk_info(7).byte_offset + 20
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[place] ^= 0xFF
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("text")
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(io.InputError, match=r"a\.h5( must be a whole|\.| must be a file)"):
        io.load_arrays(path)


def test_large_arrays_go_to_disk_directly(tmp_path, monkeypatch):
    monkeypatch.setattr("brainnrds._hdf5._IN_MEMORY_BYTES", 1000)
    values = np.random.default_rng(0).normal(size=(50, 40))
    path = io.save_arrays(tmp_path / "a.h5", {"a": values, "names": ["x", "y"]})
    arrays, _ = io.load_arrays(path)
    np.testing.assert_array_equal(arrays["a"], values)
    assert arrays["names"] == ["x", "y"]


def test_objects_are_not_stored(tmp_path):
    with pytest.raises(ValueError, match="numeric, bool or text"):
        io.save_arrays(tmp_path / "a.h5", {"a": np.array([{}, None], dtype=object)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.float32(2),
        np.ones((2, 3, 4)),
        [],
    ],
)
def test_any_array_comes_back(tmp_path, array):
    loaded, metadata = io.load_arrays(io.save_arrays(tmp_path / "a.h5", {"x": array}))
    np.testing.assert_array_equal(loaded["x"], array)
    assert metadata["GeneratedBy"]["Name"] == "brainnrds"


@pytest.mark.parametrize(
    "kind", ["external link", "soft link", "group", "external data", "virtual"]
)
def test_data_from_elsewhere_are_refused(tmp_path, kind):
    secret = io.save_arrays(tmp_path / "secret.h5", {"a": np.arange(4)})
    path = io.save_arrays(tmp_path / "a.h5", {"a": np.arange(4)})
    with h5py.File(path, "r+") as file:
        del file["a"]
        if kind == "external link":
            file["a"] = h5py.ExternalLink(str(secret), "/a")
        elif kind == "soft link":
            file["a"] = h5py.SoftLink("/b")
        elif kind == "group":
            file.create_group("a")
        elif kind == "external data":
            file.create_dataset("a", (4,), "i8", external=[(str(secret), 0, 32)])
        else:
            layout = h5py.VirtualLayout((4,), "i8")
            layout[:] = h5py.VirtualSource(str(secret), "a", (4,))
            file.create_virtual_dataset("a", layout)
    with pytest.raises(io.InputError, match="a is no array of this file"):
        io.load_arrays(path)


def test_more_than_fits_into_the_file_is_not_allocated(tmp_path):
    path = io.save_arrays(tmp_path / "a.h5", {"a": np.arange(4)})
    with h5py.File(path, "r+") as file:
        file.create_dataset("huge", (10**6, 10**6), "f8", chunks=(1, 10**6))
    with pytest.raises(io.InputError, match="does not fit in it"):
        io.load_arrays(path)


def test_text_is_kept_out_of_the_heap(tmp_path):
    names = ["a", "", "longer", "\u6f22"]
    path = io.save_arrays(tmp_path / "a.h5", {"names": names}, metadata={"b": "x" * 10**5})
    assert b"GCOL" not in path.read_bytes()
    arrays, metadata = io.load_arrays(path)
    assert arrays["names"] == names and metadata["b"] == "x" * 10**5


@pytest.mark.parametrize("place", ["array", "attribute"])
def test_text_in_a_damaged_heap_is_not_looked_for(tmp_path, place):
    path = io.save_arrays(tmp_path / "a.h5", {"names": ["a"]})
    with h5py.File(path, "r+") as file:
        if place == "array":
            del file["names"]
            file.create_dataset("names", data=["a", "b"], dtype=h5py.string_dtype())
        else:
            file.attrs["metadata"] = "{}"
    content = bytearray(path.read_bytes())
    # objects of size 0 without a number: each would be followed by itself
    heap = content.index(b"GCOL") + 16
    content[heap : heap + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(io.InputError, match="fixed length"):
        io.load_arrays(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return io.save_arrays(tmp_path_factory.mktemp("h5") / "a.h5", ARRAYS, metadata={"b": [1, None]})


@settings(derandomize=True, max_examples=250, deadline=None, database=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_is_noticed_or_changes_nothing(whole, place, bit, cut):
    content = bytearray(whole.read_bytes())
    place = int(place * len(content))
    content[place] ^= 1 << bit
    spoilt = whole.with_stem("spoilt")
    spoilt.write_bytes(content[:place] if cut else content)
    try:
        arrays, metadata = io.load_arrays(spoilt)
    except io.InputError as error:
        assert "\n" not in str(error)
        return
    assert arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(arrays[key], ARRAYS[key]) for key in ARRAYS)
    assert json.dumps(metadata["b"]) == "[1, null]"
