"""The record of an analysis: what is finished, what is done again, what is kept."""

import hashlib
import json
import os
import threading
import warnings
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from brainnrds._checks import InputError
from brainnrds.analyses import record as record_module
from brainnrds.analyses.drawing import draw_chart
from brainnrds.analyses.options import EncodeOptions
from brainnrds.analyses.record import _FEWEST_TO_DRAW, Record, read_record
from brainnrds.io import load_json
from brainnrds.plotting import plot_bars


class OnPaper(Record):
    """A record without a data set."""

    data_key = "some data"

    def report(self):
        return None


def make(tmp_path, options=None, **inputs):
    record = OnPaper(
        "encode",
        tmp_path / "out",
        {"subject": "01"},
        work_dir=tmp_path / "work",
        verbose=1,
    )
    record.settle(options or EncodeOptions(), **inputs)
    return record


def finish(record, parameters=None):
    record.parameters = parameters or {"n_iter": 7}
    table = pd.DataFrame({"model": ["video"]})
    record.save_table(table, columns={"model": "Which"}, description="A table")
    record.close({"voxels": 3}, random_state=0)


def test_finished_is_what_is_whole_and_was_decided_alike(tmp_path, capsys):
    record = make(tmp_path)
    assert not record.is_finished
    finish(record)
    assert make(tmp_path).is_finished and capsys.readouterr().out == ""
    assert not make(tmp_path, EncodeOptions(n_iter=8)).is_finished
    assert "of other options, inputs or another version: done again" in capsys.readouterr().out
    assert not make(tmp_path, feature_spaces={"video": 1}).is_finished
    assert make(tmp_path, EncodeOptions(device="cuda")).is_finished  # as fast, not another result


def test_other_surfaces_are_another_run_with_the_same_steps(tmp_path, monkeypatch):
    """Figures are drawn again; what was computed lies in the same work folder."""
    monkeypatch.setattr(record_module, "make_masker", lambda bold, mask: None)
    monkeypatch.setattr(record_module, "common_mask", lambda runs, mask: None)
    monkeypatch.setattr(
        record_module, "find_pycortex_subject", lambda given, subject, *data: given + subject
    )
    monkeypatch.setattr(OnPaper, "runs", [SimpleNamespace(bold=None)], raising=False)
    plain = make(tmp_path)
    finish(plain)
    own = make(tmp_path, EncodeOptions(pycortex_subject="store/S"))
    assert own.pycortex_subject == "store/S01" and plain.pycortex_subject is None
    assert own.work == plain.work and not own.is_finished
    finish(own)
    assert own.is_finished and not make(tmp_path).is_finished


@pytest.mark.parametrize("suffix", [".tsv", ".json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "folder"])
def test_a_damaged_result_is_not_finished(tmp_path, capsys, suffix, damage):
    finish(make(tmp_path))
    (path,) = (tmp_path / "out").rglob(f"*_table{suffix}")
    content = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "folder":
        path.mkdir()
    assert not make(tmp_path).is_finished
    assert "missing or damaged: done again" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"Key": 1, "Files": 3}', "\x00"])
def test_a_record_that_says_nothing_is_not_finished(tmp_path, content):
    record = make(tmp_path)
    finish(record)
    record.path("provenance").write_text(content)
    assert read_record(record.path("provenance"), tmp_path / "out") is None
    assert not make(tmp_path).is_finished


@pytest.mark.parametrize(
    "change", [{"Parameters": "x"}, {"Summary": [1, 2]}, {"Analysis": "../../x"}, {"Seconds": None}]
)
def test_a_record_that_was_changed_is_not_finished(tmp_path, change):
    finish(make(tmp_path))
    path = make(tmp_path).path("provenance")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content))  # laid out otherwise, it says the same
    assert make(tmp_path).is_finished
    path.write_text(json.dumps(content | change))
    assert not make(tmp_path).is_finished


def test_steps_are_computed_once_and_again_where_damaged(tmp_path):
    record, computed = make(tmp_path), []

    def compute():
        computed.append(1)
        return {"predictions": np.arange(6.0), "folds": np.array([0, 1])}

    first = record.step("video", compute)
    np.testing.assert_array_equal(first["predictions"], np.arange(6.0))
    assert set(record.step("video", compute)) == {"predictions", "folds"} and len(computed) == 1
    record.seal()
    (path,) = (tmp_path / "work").rglob("video.predictions.npy")
    content = path.read_bytes()
    for n, bad in enumerate((content[:-8], b"", content[:-1] + b"\x01", b"\x80\x04K\x01."), 2):
        path.write_bytes(bad)
        again = record.step("video", compute)
        record.seal()
        np.testing.assert_array_equal(again["predictions"], np.arange(6.0))
        assert len(computed) == n
    (path,) = (tmp_path / "work").rglob("video.json")
    path.write_text("[")
    record.step("video", compute)
    assert len(computed) == 6


def test_a_step_is_hashed_beside_the_next_one(tmp_path, monkeypatch):
    record, hashing = make(tmp_path), threading.Event()
    original = record_module._seal_step

    def slowly(*arguments):
        assert hashing.wait(30)
        original(*arguments)

    monkeypatch.setattr(record_module, "_seal_step", slowly)
    record.step("video", lambda: {"folds": np.arange(3)})
    assert not (record.work / "video.json").exists()

    def compute():
        hashing.set()  # it waits for this
        return {"folds": np.arange(2)}

    record.step("image", compute)
    record.seal()
    assert {path.name for path in record.work.glob("*.json")} == {"video.json", "image.json"}
    # what could not be hashed is told
    monkeypatch.setattr(record_module, "_seal_step", mock.Mock(side_effect=OSError("no room")))
    record.step("joint", compute)
    with pytest.raises(OSError, match="no room"):
        record.open({})


@pytest.mark.parametrize("kind", ["provenance", "step", "array"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything(tmp_path, kind):
    record = make(tmp_path)
    places = {"provenance": record.path("provenance"), "step": record.work / "video.json"}
    places.get(kind, record.work / "video.folds.npy").mkdir(parents=True)
    with pytest.raises(InputError, match="must be a file; got a folder"):
        record.is_finished or record.step("video", lambda: pytest.fail("computed"))


@pytest.fixture
def with_inputs(tmp_path, monkeypatch):
    """A record of one run with its files, one of them outside the data set."""
    names = ["bids/sub-01/events.tsv", "bids/stimuli/a/film.mp4", "prep/bold.nii.gz", "x/film.mp4"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(path.as_posix())
    events, film, bold, elsewhere = paths
    shown = {
        "film": "film.mp4",
        "onset": 0.0,
        "duration": 9.0,
        "film_start": 0.0,
        "film_group": None,
    }
    films = tuple(SimpleNamespace(stim_file=path, **shown) for path in (film, elsewhere, film))
    run = SimpleNamespace(bold=(bold,), events=events, confounds=None, mask=None, films=films)
    monkeypatch.setattr(record_module, "write_dataset_description", lambda *a, **k: None)
    record = Record("encode", tmp_path / "out", {"subject": "01"}, work_dir=tmp_path / "work")
    record.runs = [run]
    record.selection = SimpleNamespace(
        bids_dir=tmp_path / "bids", derivatives=tmp_path / "prep", stimuli=None
    )
    monkeypatch.setattr(Record, "report", lambda self: None)
    record.settle(EncodeOptions())
    return record, paths


def test_every_input_is_hashed(with_inputs):
    record, paths = with_inputs
    record.open({"n_iter": 7})
    finish(record, record.parameters)
    names = ["sub-01/events.tsv", "stimuli/a/film.mp4", "bold.nii.gz", "film.mp4"]
    expected = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in zip(names, paths, strict=True)
    }
    written = load_json(record.path("provenance"))
    assert written["Inputs"] == expected
    text = json.dumps(expected, sort_keys=True)
    sidecar = load_json(record.path("table").with_suffix(".json"))
    assert sidecar["inputs_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert sidecar["n_iter"] == 7 and written["Parameters"]["inputs_sha256"]


def test_a_film_of_which_one_bit_changed_is_another_input(with_inputs):
    """No frame need be unreadable: what was done with the film before is done again."""
    record, paths = with_inputs
    record.open({})
    finish(record, record.parameters)
    assert record.is_finished
    before = load_json(record.path("table").with_suffix(".json"))["inputs_sha256"]
    film, content = paths[1], bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    modified = film.stat().st_mtime_ns
    film.write_bytes(content)
    os.utime(film, ns=(modified, modified + 1))
    record.settle(EncodeOptions())
    assert not record.is_finished
    record.open({})
    finish(record, record.parameters)
    assert load_json(record.path("table").with_suffix(".json"))["inputs_sha256"] != before
    assert record.is_finished


def test_inputs_that_change_meanwhile_are_refused(with_inputs):
    record, paths = with_inputs
    paths[2].write_text("another scan")
    with pytest.raises(InputError, match="changed while they were analysed"):
        record.open({})


def test_what_is_not_written_again_goes_when_the_new_stands(tmp_path):
    finish(make(tmp_path))
    old = make(tmp_path, EncodeOptions(n_iter=8))
    old.parameters = {}
    table = pd.DataFrame({"encoder": ["a"]})
    old.save_table(table, columns={"encoder": "x"}, description="x", desc="encodeEncoders")
    assert len(list((tmp_path / "out").rglob("*_table.tsv"))) == 2  # nothing was removed yet
    old.close({}, random_state=0)
    (left,) = (tmp_path / "out").rglob("*_table.tsv")
    assert "encodeEncoders" in left.name
    written = load_json(old.path("provenance"))
    assert sorted(written["Files"]) == sorted(
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*_table.*")
    )


def test_our_warnings_are_counted_and_passed_on(tmp_path):
    record = make(tmp_path)
    with pytest.warns(UserWarning) as told, record.watching():
        import warnings

        warnings.warn_explicit("of ours", UserWarning, "/x/brainnrds/io/bold.py", 3)
        warnings.warn_explicit("of theirs", UserWarning, "/x/nilearn/a.py", 3)
    assert sorted(str(w.message) for w in told) == ["of ours", "of theirs"]
    assert record.warned == {"of ours": 1}


def test_the_record_is_json_and_comes_last(tmp_path):
    record = make(tmp_path)
    record.parameters = {}
    assert not record.path("provenance").exists()
    finish(record)
    content = json.loads(record.path("provenance").read_text())
    assert content["Summary"] == {"voxels": 3} and content["Analysis"] == "encode"
    assert content["Seeds"] == {"random_state": 0} and "numpy" in content["Versions"]


def draw_bars(height):
    if height is None:
        return None
    warnings.warn(f"bars of {height}", UserWarning, stacklevel=1)
    return draw_chart("bar", plot_bars, {"video": height}, label="r")


def test_figures_of_other_processes_are_those_drawn_here(tmp_path):
    drawn = []
    for n_jobs in (1, _FEWEST_TO_DRAW):
        record = make(tmp_path / str(n_jobs))
        record._n_jobs = n_jobs
        with pytest.warns(UserWarning, match="bars of 2"):
            for name, height in (("video", 1.0), ("image", 2.0), ("joint", None)):
                record.draw(partial(draw_bars, height), feat=name, description=name)
            finish(record)
        paths = sorted((tmp_path / str(n_jobs)).rglob("*_bar.*"))
        drawn.append([(path.name, path.read_bytes()) for path in paths])
        assert read_record(record.path("provenance"), record.output_dir) is not None
    assert len(drawn[0]) == 4, "two figures and their sidecars"
    assert drawn[0] == drawn[1]
