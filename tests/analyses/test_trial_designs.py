"""Trial designs end to end, in the layouts of three public data sets."""

import re

import nibabel as nib
import numpy as np
import pytest
from trial_sets import make_trial_set

from brainnrds.cli import main, main_validate
from brainnrds.io import bold, load_json, load_table, trials

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

COMMON = ["--confounds", "wm_csf", "--n-cpus", "1"]
DECODING = ["--grid", "8", "8", "--n-codes", "8", "--n-epochs", "25", "--n-seeds", "1"]
DECODING += ["--n-draws", "1", "--n-permutations", "100"]


def run(made, folder, *options, recipe=None):
    places = [str(made.bids_dir), str(folder / "out"), "participant", "-w", str(folder / "work")]
    return main([*places, *made.options(recipe), *COMMON, *options])


def record_of(folder, analysis):
    [path] = folder.glob(f"out/sub-01/**/*desc-{analysis}_provenance.json")
    return load_json(path)


def errors_of(folder):
    paths = folder.glob("out/sub-01/func/*desc-decode_table.tsv")
    [path] = [path for path in paths if "feat-gain" not in path.name]
    return load_table(path).set_index("predictor")["end_point_error_px"]


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return make_trial_set(tmp_path_factory.mktemp("animals"), "animal-clips")


def test_encode_finds_the_voxels_that_follow_motion(animals, tmp_path, capsys):
    options = ["--n-iter", "2", "--n-permutations", "100", "--keep"]
    assert run(animals, tmp_path, *options) == 0
    assert "shown for 2 s on average: a trial design" in capsys.readouterr().out
    out = tmp_path / "out" / "sub-01"
    [path] = out.glob("func/*feat-videoMinusImage_stat-q_*.nii.gz")
    q = np.asarray(nib.load(path).dataobj).ravel()
    assert (q[animals.moves] < 0.05).mean() > 0.5 and (q[~animals.moves] < 0.05).mean() < 0.1
    [path] = out.glob("func/*_stat-ceiling_*.nii.gz")
    ceiling = np.asarray(nib.load(path).dataobj).ravel()
    assert np.median(ceiling[animals.moves]) > 0.6 > 0.3 > np.median(ceiling[~animals.moves])
    [table] = out.glob("func/*desc-encode_table.tsv")
    table = load_table(table).set_index("model")
    assert abs(table.loc["video, another clip", "mean_all"]) < 0.15
    said = record_of(tmp_path, "encode")["Parameters"]
    assert said["design"] == "trials" and said["trial_model"] == "lss"
    assert said["delays"] == [0] and said["held_out_together"] == "clips"
    report = re.sub(r"\s+", " ", (tmp_path / "out" / "sub-01.html").read_text())
    assert "amplitude in a general linear model" in report and "Mumford" in report
    assert "Features are those of the whole clip" in report


def test_reanimate_decodes_motion_of_bold_moments(tmp_path):
    made = make_trial_set(tmp_path / "bids", "bold-moments")
    options = ["--analysis", "reanimate", "--max-clips", "4", "--test-films", "test/*", *DECODING]
    assert run(made, tmp_path, *options, recipe="bold-moments") == 0
    said = record_of(tmp_path, "decode")["Parameters"]
    assert said["clip_duration"] == 3.0 and said["step_seconds"] == 1.0
    assert said["delays"] == [0] and said["n_clips"]["test"] == 16
    assert all(name.startswith("test/") for name in said["test_films"])
    errors = errors_of(tmp_path)
    assert "permuted_within_scene" not in errors  # there is one moment to a clip
    assert errors["decoder"] < 0.9 * errors["unrelated_bold"]
    assert errors["decoder"] < 0.9 * errors["permuted_bold"]
    assert record_of(tmp_path, "reanimate")["Parameters"]["fps"] == pytest.approx(14 / 3.0)
    # motion is decoded already; frames are now, too
    options += ["--initial-frames", "decoded"]
    assert run(made, tmp_path, *options, recipe="bold-moments") == 0
    assert record_of(tmp_path, "reanimate")["Parameters"]["initial_frames"] == "decoded"


def test_decode_of_noise_is_its_control(animals, tmp_path):
    """The same with BOLD replaced by noise: nothing is left of the gain."""
    made = make_trial_set(tmp_path / "bids", "animal-clips", signal=0.0)
    assert run(made, tmp_path, "--analysis", "decode", *DECODING) == 0
    errors = errors_of(tmp_path)
    assert errors["decoder"] > 0.93 * errors["unrelated_bold"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--delays-seconds", "2"], "--delays-seconds is for a continuous design"),
        (["--trim-onset", "4"], "--trim-onset is for a continuous design"),
        (["--design", "continuous", "--trial-model", "lsa"], "--trial-model is for a trial design"),
        (["--test-films", "nothing*"], "Films must be named as in the data"),
        (["--n-folds", "25"], "between 2 and the number of film groups, 24; got 25"),
        (["--analysis", "transfer"], "--analysis transfer is for continuous designs"),
    ],
)
def test_what_makes_no_sense_is_refused_before_bold_is_read(
    animals, tmp_path, capsys, monkeypatch, options, error
):
    for module in (bold, trials):
        monkeypatch.setattr(module, "read_bold", None)
    assert run(animals, tmp_path, *options) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*desc-encode*"))


def test_validate_has_a_line_for_each_run(animals, tmp_path, capsys):
    assert main_validate([str(animals.bids_dir), *animals.options()]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("task-")]
    assert len(lines) == 6 and ".mp4" not in said
    assert "a trial design: 144 trials, one every 4 s" in said and "24 units of every split" in said
    places = [str(animals.bids_dir), str(tmp_path / "out"), "participant", *animals.options()]
    name = sorted(path.name for path in animals.bids_dir.rglob("*.mp4"))[0]
    assert main([*places, *COMMON, "--dry-run", "--test-films", name]) == 0
    said = capsys.readouterr().out
    assert "Units: 24\n" in said and f"test films: {name}; all 23 others train\n" in said
    assert "note: 1 test clip, and a test needs 12: no p-values" in said
    assert main([*places, *COMMON, "--dry-run", "--design", "continuous"]) == 0
    assert "a trial design" not in capsys.readouterr().out
