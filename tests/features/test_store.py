"""The feature store: what was written is read, what is damaged is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds._checks import InputError
from brainnrds._files import hash_file
from brainnrds._hdf5 import text_attribute
from brainnrds.features.store import FeatureStore


@pytest.fixture
def entry(tmp_path):
    store = FeatureStore(tmp_path / "store", chunk_size=3)
    return store.entry({"film": "a", "extractor": {"layers": (1, 2)}}, np.arange(8.0), label="a b")


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)


def _write(entry, features, chunks=None):
    for chunk in entry.missing_chunks() if chunks is None else chunks:
        entry.write_chunk(chunk, features[entry.rows(chunk)])


def test_round_trip_and_self_description(entry, features):
    assert entry.missing_chunks() == [0, 1, 2]
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)
    np.testing.assert_array_equal(entry.read(), features)
    assert entry.missing_chunks() == []
    assert [path.name for path in entry.path.parent.iterdir()] == [f"a-b_{entry.key}.h5"]
    with h5py.File(entry.path) as file:
        assert set(file) == {"features", "times", "sha256"}
        assert '"layers": [1, 2]' in text_attribute(file, "description")
        np.testing.assert_array_equal(file["times"], np.arange(8.0))
        assert file["features"].chunks == (3, 5)


def test_features_with_a_grid(tmp_path):
    features = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    entry = FeatureStore(tmp_path, chunk_size=3).entry({}, np.arange(4))
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


def test_key_follows_everything_that_matters(tmp_path):
    store = FeatureStore(tmp_path)
    times = np.arange(3.0)
    key = store.entry({"a": 1, "b": [1, 2]}, times).key
    assert store.entry({"b": (1, 2), "a": 1}, times, label="other").key == key
    assert store.entry({"a": 1, "b": [1, 2]}, times + 1e-9).key == key
    assert store.entry({"a": 1, "b": [2, 1]}, times).key != key
    assert store.entry({"a": 1, "b": [1, 2]}, times + 1e-3).key != key
    assert FeatureStore(tmp_path, chunk_size=2).entry({"a": 1, "b": [1, 2]}, times).key != key


def test_missing_chunks_are_named(entry, features):
    _write(entry, features, [0, 2])
    assert entry.missing_chunks() == [1]
    with pytest.raises(KeyError, match=r"Chunks \[1\]"):
        entry.read()


@pytest.mark.parametrize("what", ["byte", "truncated", "empty", "text"])
def test_damaged_chunks_are_found(entry, features, what):
    _write(entry, features)
    path = next(entry.path.parent.glob("*.parts")) / "00001.h5"
    _damage(path, features[3:6], what)
    assert entry.missing_chunks() == [1]
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


@pytest.mark.parametrize("what", ["byte", "truncated", "empty", "text"])
def test_damage_of_the_finished_file_costs_the_damaged_chunk_only(entry, features, what):
    _write(entry, features)
    entry.read()
    _damage(entry.path, features[3:6], what)
    assert entry.missing_chunks() == ([1] if what == "byte" else [0, 1, 2])
    with pytest.raises(KeyError, match="missing or damaged"):
        entry.read()
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


def _put(path, what):
    """Something else in the place of a dataset of a file, or of the file itself."""
    if what in ("fifo", "link"):
        path.unlink()
        os.mkfifo(path) if what == "fifo" else path.symlink_to(path.name)
        return
    name, thing = what
    with h5py.File(path, "r+") as file:
        del file[name]
        if thing == "group":
            file.create_group(name)
        elif thing == "huge":
            file.create_dataset(name, (10**12, 10**6), "f4", chunks=(1, 10**6))
        else:
            file[name] = thing


@pytest.mark.parametrize(
    "what",
    [
        "fifo",
        "link",
        ("features", "group"),
        ("features", "huge"),
        ("features", np.float32(1)),
        ("features", [b"x"] * 8),
        ("sha256", "group"),
        ("sha256", [0, 1, 2]),
        ("sha256", np.bytes_(b"x")),
    ],
    ids=str,
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_no_store_is_made_again(entry, features, what, finished):
    _write(entry, features)
    if finished:
        entry.read()
    path = entry.path if finished else entry.path.with_suffix(".parts") / "00001.h5"
    _put(path, what)
    assert entry.missing_chunks() == ([0, 1, 2] if finished else [1])
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


def test_a_file_in_the_place_of_the_parts_is_replaced(entry, features):
    entry.path.parent.mkdir()
    entry.path.with_suffix(".parts").write_text("x")
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


def test_a_folder_in_the_place_of_features_is_refused(entry):
    entry.path.mkdir(parents=True)
    with pytest.raises(InputError, match="must be a file; got a folder"):
        entry.missing_chunks()


def _damage(path, features, what):
    content = path.read_bytes()
    if what == "byte":
        place = content.index(features[0].tobytes())
        changed = bytearray(content)
        changed[place + 1] ^= 4
        path.write_bytes(changed)
    else:
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "empty": b"", "text": b"x" * 999}[what]
        )


@settings(derandomize=True, max_examples=30, deadline=None, database=None)
@given(data=st.data())
def test_damage_anywhere_is_found_or_changes_nothing(tmp_path_factory, data):
    features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    store = FeatureStore(tmp_path_factory.mktemp("store"), chunk_size=3)
    entry = store.entry({"film": "a"}, np.arange(8.0))
    _write(entry, features)
    if data.draw(st.booleans()):
        entry.read()
        path = entry.path
    else:
        path = entry.path.with_suffix(".parts") / "00001.h5"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    missing = entry.missing_chunks()
    if not missing:
        np.testing.assert_array_equal(entry.read(), features)
    _write(entry, features)
    np.testing.assert_array_equal(entry.read(), features)


def test_input_that_is_refused(entry, features, tmp_path):
    with pytest.raises(ValueError, match="must have 3 rows"):
        entry.write_chunk(0, features)
    features[0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        entry.write_chunk(0, features[:3])
    with pytest.raises(ValueError, match="`chunk_size` must be a positive int"):
        FeatureStore(tmp_path, chunk_size=0)
    with pytest.raises(ValueError, match="`times` must have shape"):
        FeatureStore(tmp_path).entry({}, [])


def test_hash_is_that_of_the_content(tmp_path):
    import hashlib

    path = tmp_path / "film"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert hash_file(path) == hashlib.sha256(content).hexdigest()


def test_kills_at_every_step_and_two_writers(tmp_path):
    """SIGKILL before and after every call that touches the disk; two processes on one store."""
    script = Path(__file__).with_name("store_kills.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], check=True, capture_output=True, text=True
    )
    outcome = json.loads(done.stdout)
    assert outcome["two_writers"] == [0, 0], done.stderr
    for kill in outcome["kills"]:
        assert kill["n_kills"] >= 1 and kill["identical"], kill
        assert not kill["left_over"] or kill["step"] == "rmtree", kill
