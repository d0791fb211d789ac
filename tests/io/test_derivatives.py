import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_bids import N_LEFT, N_RIGHT, SHAPE, brain_mask, make_tree, n_voxels, write_json

import brainnrds.io as io
from brainnrds.io.derivatives import find_results
from brainnrds.io.images import make_masker

SPACES = ["MNI152NLin2009cAsym", "fsaverage5", "fsLR"]


def test_atomic_path_is_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with io.atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith("a.txt")
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError, match="boom"), io.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert path.read_text() == "one"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


def test_what_a_kill_left_is_removed_later(tmp_path):
    old, new = tmp_path / ".tmp-abc-a.txt", tmp_path / ".tmp-def-a.txt"
    other = tmp_path / ".tmp-abc-b.txt"
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (0, 0))
    with io.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", new.name, other.name}


def test_file_rights_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with io.atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "atomic").stat().st_mode


def test_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    # a limit on file sizes fails as a full disk does: in the middle of a write
    script = f"""
import resource, signal, sys
import numpy as np
import brainnrds.io as io
from brainnrds import _hdf5
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
random = np.random.default_rng(0)
def large():
    _hdf5._IN_MEMORY_BYTES = 1000
    io.save_arrays({str(tmp_path / "g.h5")!r}, {{"a": random.normal(size=(99, 99))}})
for save in (
    lambda: io.save_table({str(tmp_path / "t.tsv")!r}, {{"a": random.normal(size=9999)}}),
    lambda: io.save_flow({str(tmp_path / "f.h5")!r}, random.normal(size=(9, 2, 2, 32, 32))),
    large,
    lambda: io.write_clip({str(tmp_path / "c.mp4")!r}, random.random((40, 3, 64, 64)), fps=10),
):
    try:
        save()
    except OSError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout + done.stderr
    for line, name in zip(lines, ("t.tsv", "f.h5", "g.h5", "c.mp4"), strict=True):
        assert f"Cannot write {tmp_path / name}" in line
    assert list(tmp_path.iterdir()) == []


def test_kill_leaves_no_truncated_file(tmp_path):
    # the writer overwrites one file of each kind over and over; it is killed at random points
    script = f"""
import itertools
import numpy as np
import brainnrds.io as io
flow = np.random.default_rng(0).normal(size=(20, 3, 2, 16, 16)).astype("f4")
print("ready", flush=True)
for i in itertools.count():
    io.save_flow({str(tmp_path / "a_flow.h5")!r}, flow, arrays={{"i": np.arange(20) + i}})
    io.save_table({str(tmp_path / "a_table.tsv")!r}, {{"a": np.full(2000, i)}})
    io.write_clip({str(tmp_path / "a_clip.mp4")!r}, np.full((10, 3, 16, 16), 0.5), fps=5)
"""
    random = np.random.default_rng(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.02 + 0.3 * random.random())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in tmp_path.iterdir():
            if path.name.startswith("."):
                path.unlink()
            elif path.suffix == ".h5":
                flow, arrays, _ = io.load_flow(path)
                assert flow.shape == (20, 3, 2, 16, 16)
                assert np.ptp(arrays["i"]) == 19
            elif path.suffix == ".tsv":
                assert len(io.load_table(path)) == 2000
            elif path.suffix == ".mp4":
                assert io.read_clip(path).shape[0] == 10
            else:
                io.load_json(path)
    assert (tmp_path / "a_flow.h5").exists()


@pytest.mark.parametrize(
    ("name", "entities", "expected"),
    [
        (
            "map",
            {
                "subject": "01",
                "task": "movie",
                "hemi": "L",
                "space": "fsaverage5",
                "feat": "video",
                "stat": "r",
                "extension": ".func.gii",
            },
            "sub-01/func/sub-01_task-movie_hemi-L_space-fsaverage5_feat-video_stat-r"
            "_statmap.func.gii",
        ),
        (
            "map",
            {"task": "movie", "space": "fsLR", "stat": "t", "extension": ".dscalar.nii"},
            "group/group_task-movie_space-fsLR_stat-t_statmap.dscalar.nii",
        ),
        (
            "table",
            {"subject": "01", "session": "2", "seg": "mmp", "desc": "parcels"},
            "sub-01/ses-2/func/sub-01_ses-2_seg-mmp_desc-parcels_table.tsv",
        ),
        ("report", {"subject": "01"}, "sub-01.html"),
        ("report", {}, "group.html"),
        (
            "figure",
            {"subject": "01", "desc": "encode", "suffix": "flatmap", "space": None},
            "sub-01/figures/sub-01_desc-encode_flatmap.png",
        ),
    ],
)
def test_derivative_path(tmp_path, name, entities, expected):
    assert io.derivative_path(tmp_path, name, entities) == tmp_path / expected


@pytest.mark.parametrize(
    "label", ["../../etc", "a/b", "..", "/abs", "a b", "a_b", "", "a\x00", "a\n"]
)
def test_no_label_leaves_the_folder(tmp_path, label):
    for key in ("subject", "desc", "suffix", "seg"):
        entities = {"subject": "01", "desc": "x", "suffix": "flatmap", key: label}
        with pytest.raises(ValueError, match="letters and digits"):
            io.derivative_path(tmp_path, "figure", entities)
    with pytest.raises(ValueError, match="No pattern"):
        io.derivative_path(tmp_path, "report", {"subject": "01", "extension": f"/{label}"})


def test_derivative_path_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="must be one of"):
        io.derivative_path(tmp_path, "nothing", {})
    with pytest.raises(ValueError, match="No pattern"):
        io.derivative_path(tmp_path, "report", {"subject": "01", "flavour": "x"})
    with pytest.raises(ValueError, match="No pattern"):
        io.derivative_path(tmp_path, "map", {"subject": "01", "space": "x"})


def test_to_label():
    assert io.to_label("clips/big-bunny_01") == "clipsbigbunny01"
    # names that differ in letters of other alphabets have labels that differ
    names = ["фильм1", "кино1", "映画", "__", "--"]
    labels = [io.to_label(name) for name in names]
    assert len(set(labels)) == len(names)
    assert all(re.fullmatch("[0-9a-zA-Z]{8,}", label) for label in labels)
    with pytest.raises(ValueError, match="letters or digits"):
        io.to_label(" ")


PROGRAMS = [{"Name": "me"}, "me", None, ["me"], [None], [], {"a": 1}]


@pytest.mark.parametrize("programs", PROGRAMS)
def test_descriptions_that_others_wrote(tmp_path, programs):
    """GeneratedBy is a list of objects by the standard; what else it may be crashes nothing."""
    description = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": programs}
    write_json(tmp_path / "bids" / "dataset_description.json", description)
    path = io.write_dataset_description(tmp_path / "out", tmp_path / "bids")
    [source] = io.load_json(path)["SourceDatasets"]
    assert source == {"URL": "../bids"}
    with pytest.raises(io.InputError, match="must be empty or brainnrds' own"):
        io.write_dataset_description(tmp_path / "bids", tmp_path / "bids")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("n_maps", [None, 3])
def test_maps_open_in_nibabel_and_come_back(tmp_path, space, n_maps):
    tree = make_tree(tmp_path, space, runs={"1": [(6.0, 20.0, "a.mp4")]})
    [run] = io.find_runs(tree.bids_dir)
    mask = nib.load(run.mask) if run.mask else None
    masker = make_masker(run.bold, mask)
    shape = (n_voxels(space),) if n_maps is None else (n_maps, n_voxels(space))
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    entities = {"subject": "01", "task": "movie", "space": space, "stat": "r"}
    metadata = {"Alphas": np.array([1.0, np.nan]), "Seed": np.int64(3), "Film": run.films[0].film}
    paths = io.save_map(tmp_path / "out", values, masker, entities, metadata=metadata)
    image = nib.load(paths[0])
    if space == "fsLR":
        np.testing.assert_array_equal(np.squeeze(image.get_fdata(dtype=np.float32)), values)
        assert image.header.get_axis(1) == masker.brain_models
    elif space == "fsaverage5":
        right = nib.load(paths[1])
        both = np.concatenate(
            [np.stack([array.data for array in part.darrays]) for part in (image, right)], axis=1
        )
        np.testing.assert_array_equal(np.squeeze(both), values)
        assert [part.darrays[0].dims for part in (image, right)] == [[N_LEFT], [N_RIGHT]]
        assert right.meta["AnatomicalStructurePrimary"] == "CortexRight"
    else:
        data = image.get_fdata(dtype=np.float32)
        assert data.shape[:3] == SHAPE
        np.testing.assert_array_equal(data[brain_mask() > 0].T, values)
        assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(io.load_map(paths, masker), values)
    for path in paths:
        sidecar = json.loads((path.parent / (path.name.split(".")[0] + ".json")).read_text())
        assert sidecar["Alphas"] == [1.0, None]
        assert sidecar["GeneratedBy"]["Name"] == "brainnrds"


def test_maps_keep_nan(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym", runs={"1": [(6.0, 20.0, "a.mp4")]})
    [run] = io.find_runs(tree.bids_dir)
    masker = make_masker(run.bold, nib.load(run.mask))
    values = np.ones(n_voxels(tree.space), np.float32)
    values[3] = np.nan
    [path] = io.save_map(
        tmp_path / "out", values, masker, {"subject": "01", "space": tree.space, "stat": "r"}
    )
    assert np.isnan(nib.load(path).get_fdata()).sum() == 1
    np.testing.assert_array_equal(io.load_map(path, masker), values)


def test_flow_opens_without_our_code(tmp_path):
    flow = np.random.default_rng(0).normal(size=(4, 3, 2, 8, 9)).astype(np.float32)
    path = tmp_path / "sub-01_flow.h5"
    io.save_flow(path, flow, arrays={"films": ["a", "b"], "mask": flow[:, :, 0] > 0})
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["flow"][2], flow[2])
        assert file["flow"].chunks == (1, 3, 2, 8, 9)
        assert file["flow"].fletcher32
        assert "pixels" in json.loads(file.attrs["metadata"])["Units"]
    loaded, arrays, metadata = io.load_flow(path)
    np.testing.assert_array_equal(loaded, flow)
    assert arrays["films"] == ["a", "b"]
    assert arrays["mask"].dtype == bool
    assert metadata["GeneratedBy"]["Name"] == "brainnrds"
    assert json.loads((tmp_path / "sub-01_flow.json").read_text())["Axes"][0] == "clip"
    with pytest.raises(ValueError, match=r"`flow` must have shape .* got \(4, 2, 3"):
        io.save_flow(path, flow.transpose(0, 2, 1, 3, 4))
    with pytest.raises(io.InputError, match="must hold clips"):
        io.load_clips(path)


def test_clips_come_back(tmp_path):
    clips = np.random.default_rng(0).random((3, 4, 3, 6, 7)).astype(np.float32)
    path = io.save_clips(tmp_path / "a_clips.h5", clips, fps=7, arrays={"i": np.arange(3)})
    loaded, arrays, metadata = io.load_clips(path)
    assert np.abs(loaded - clips).max() <= 0.5 / 255 + 1e-6
    assert metadata["FrameRate"] == 7
    assert arrays["i"].tolist() == [0, 1, 2]
    # a second round trip changes nothing: scores after a resume are the same
    io.save_clips(path, loaded, fps=7)
    np.testing.assert_array_equal(io.load_clips(path)[0], loaded)


def test_tables(tmp_path):
    table = pd.DataFrame({"parcel": ["MT", "n/a"], "r": [0.25, np.nan], "n": [1, 2]})
    path = io.save_table(
        tmp_path / "a_table.tsv", table, columns={"r": {"Description": "score", "Units": "1"}}
    )
    assert path.read_text().splitlines() == ["parcel\tr\tn", "MT\t0.25\t1", "n/a\tn/a\t2"]
    loaded = io.load_table(path)
    assert loaded["r"].isna().tolist() == [False, True]
    assert json.loads((tmp_path / "a_table.json").read_text())["r"]["Units"] == "1"
    with pytest.raises(io.InputError, match="Table not found"):
        io.load_table(tmp_path / "none.tsv")


def test_dataset_description(tmp_path):
    bids = tmp_path / "bids"
    write_json(bids / "dataset_description.json", {"Name": "x", "DatasetDOI": "doi:10.1/x"})
    out = bids / "derivatives" / "brainnrds"
    path = io.write_dataset_description(out, bids)
    content = json.loads(path.read_text())
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "brainnrds"
    assert content["SourceDatasets"] == [{"URL": "../..", "DOI": "doi:10.1/x"}]
    assert "*_statmap.*" in (out / ".bidsignore").read_text()
    io.write_dataset_description(out, bids)
    write_json(path, {"Name": "fMRIPrep", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    with pytest.raises(io.InputError, match="is of fMRIPrep"):
        io.write_dataset_description(out, bids)


def test_output_dir(tmp_path):
    bids = tmp_path / "bids"
    fmriprep = bids / "derivatives" / "fmriprep"
    fmriprep.mkdir(parents=True)
    (bids / "file").write_text("")
    (tmp_path / "link").symlink_to(bids)
    good = [bids / "derivatives" / "brainnrds", tmp_path / "out", tmp_path / "bids2"]
    for path in good:
        assert io.check_output_dir(path, bids, derivatives=fmriprep) == path
    bad = [
        bids,
        bids / "sub-01",
        bids / "derivatives",
        bids / "derivatives" / ".." / "out",
        fmriprep,
        fmriprep / "x",
        bids / "file",
        tmp_path / "link",
        tmp_path / "link" / "out",
    ]
    for path in bad:
        with pytest.raises(io.InputError, match="Output directory") as error:
            io.check_output_dir(path, bids, derivatives=fmriprep)
        assert "\n" not in str(error.value)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bids", "link"]
    write_json(fmriprep / "dataset_description.json", {"GeneratedBy": [{"Name": "fMRIPrep"}]})
    with pytest.raises(io.InputError, match="is of fMRIPrep"):
        io.check_output_dir(fmriprep, bids)


def test_results_of_an_earlier_run_are_removed_and_no_others(tmp_path):
    entities = {"subject": "01", "task": "movie", "space": "fsLR"}
    own = [
        io.derivative_path(tmp_path, "table", entities | {"desc": "encode"}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encodeEncoders"}),
        io.derivative_path(tmp_path, "provenance", entities | {"desc": "encode"}),
        io.derivative_path(
            tmp_path, "figure", entities | {"desc": "encode", "stat": "r", "suffix": "flatmap"}
        ),
        io.derivative_path(tmp_path, "map", entities | {"desc": "encode", "stat": "r", "hemi": "L",
                                                        "extension": ".func.gii"}),
    ]  # fmt: skip
    others = [
        io.derivative_path(tmp_path, "table", entities | {"desc": "decode"}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encodedotherwise"}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encode", "task": "rest"}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encode", "task": None}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encode", "space": None}),
        io.derivative_path(tmp_path, "table", entities | {"desc": "encode", "subject": "02"}),
        tmp_path / "sub-01" / "notes.txt",
        # another process writes this one just now
        own[0].with_name(f".tmp-x1-{own[0].name}"),
    ]
    for path in own + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert set(find_results(tmp_path, entities, "encode")) == set(own)


def test_native_space_has_no_label(tmp_path):
    path = io.derivative_path(
        tmp_path, "map", {"subject": "01", "stat": "r", "extension": ".nii.gz"}
    )
    assert path.name == "sub-01_stat-r_statmap.nii.gz"
