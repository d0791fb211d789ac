"""The main job end to end, on a small data set with a planted truth."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from pycortex_store import write_pycortex_subject
from sklearn.utils import Bunch

from brainnrds import VideoEncodingModel, load_runs
from brainnrds._files import hash_file
from brainnrds.analyses import encode, looks, movie_features
from brainnrds.analyses.held_out import features_of_films
from brainnrds.analyses.options import EncodeOptions
from brainnrds.cli import main
from brainnrds.datasets.planted import haemodynamic_design
from brainnrds.encoding import noise_ceiling, significance
from brainnrds.features import (
    CutScores,
    Luminance,
    MotionEnergy,
    distinct_clips,
    place_features,
)
from brainnrds.io import FeatureFiles, find_runs, iter_clips, load_json, load_table
from brainnrds.plotting import surfaces

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

FAST = ["--n-iter", "2", "--n-folds", "2", "--n-permutations", "200", "--n-cpus", "1"]


@pytest.fixture(scope="module")
def dataset(planted_movies):
    return planted_movies


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    code = main(
        [str(dataset.bids_dir), str(folder / "out"), "participant", "-w", str(folder / "work")]
        + FAST
    )
    assert code == 0
    code = main(
        [str(dataset.bids_dir), str(folder / "out"), "group", "-w", str(folder / "work")]
        + ["--inter-subject-ceiling"]
    )
    assert code == 0
    return folder


def _group_map(out, name):
    parts = [
        nib.load(
            out / f"group/group_hemi-{hemi}_space-fsaverage5_{name}_desc-encode_statmap.func.gii"
        )
        for hemi in "LR"
    ]
    return np.concatenate([part.darrays[0].data for part in parts])


def _map(out, name, subject="01"):
    parts = [
        nib.load(
            out / f"sub-{subject}/func/sub-{subject}_hemi-{hemi}_space-fsaverage5_{name}"
            "_desc-encode_statmap.func.gii"
        )
        for hemi in "LR"
    ]
    return np.concatenate([part.darrays[0].data for part in parts])


def test_finds_what_was_planted(dataset, finished):
    label = dataset.truth["01"].label
    difference = _map(finished / "out", "feat-videoMinusImage_stat-difference")
    assert np.median(difference[label == "motion"]) > 0.05
    assert np.median(difference[label == "static"]) < -0.02
    assert abs(np.median(difference[label == "none"])) < 0.02
    video = _map(finished / "out", "feat-video_stat-r")
    assert np.median(video[label == "motion"]) > 0.2
    unique = _map(finished / "out", "feat-video_stat-uniqueR2")
    assert np.median(unique[label == "motion"]) > 0.03 > np.median(unique[label == "static"])


def test_loading_beside_features_changes_nothing(dataset, tmp_path, monkeypatch):
    def on_a_card(array, device):
        return array if device == "cpu" else torch.tensor(array)

    for module in (encode, significance):
        monkeypatch.setattr(module, "place", on_a_card)
    runs, extractors = find_runs(dataset.bids_dir, subject="01"), {"video": Luminance()}
    options = EncodeOptions(n_jobs=2, repeats="average")
    record = Bunch(runs=runs, options=options, work_dir=tmp_path, verbose=0)
    beside, ours = encode._load_beside_features(record, extractors, "a card")
    alone, theirs = encode._load_bold(runs, options, 0)
    for name, values in vars(alone).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(getattr(beside, name), values, err_msg=name)
    np.testing.assert_allclose(ours.ev, theirs.ev, atol=1e-9)
    monkeypatch.setattr(looks, "_decode", None)  # all that is needed was stored
    features_of_films(record, beside, extractors)


def test_bold_follows_the_film_by_the_planted_delay_to_the_volume(dataset, finished):
    """From events and films to volumes: one volume early or late would show here."""
    runs = find_runs(dataset.bids_dir, subject="01")
    options = EncodeOptions(n_jobs=1)
    data, _ = encode._load_bold(runs, options, 0)
    store = finished / "work" / "features"
    X, _ = movie_features(data, {"video": MotionEnergy()}, store_dir=store, progress=False)
    energy = X.mean(1)
    bold = data.bold[:, dataset.truth["01"].label == "motion"].mean(1)

    def correlation(lag):
        parts = []
        for run in np.unique(data.runs):
            rows = np.flatnonzero(data.runs == run)
            before, after = rows[: len(rows) - lag], rows[lag:]
            shown = (data.films[before] >= 0) & (data.films[after] >= 0)
            pair = np.stack([energy[before[shown]], bold[after[shown]]])
            parts.append(pair - pair.mean(1, keepdims=True))
        return np.corrcoef(np.concatenate(parts, axis=1))[0, 1]

    lags = np.arange(7)
    planted = haemodynamic_design(lags * data.t_r, [0.0])[:, 0]
    assert np.argmax([correlation(lag) for lag in lags]) == np.argmax(planted)


def test_seven_lines_equal_the_long_way(dataset, tmp_path):
    """`movie_features`, `shows`, `labels` and `to_image` say shortly what arrays say at length."""
    data = load_runs(dataset.bids_dir, subject="01")
    X, spaces = movie_features(data, {"motion": MotionEnergy()}, store_dir=tmp_path, progress=False)
    test = data.shows(data.film_names[0])
    model = VideoEncodingModel(spaces, delays=data.delays)
    model.fit(X[~test], data.bold[~test], **data[~test].labels)
    score = model.score_map(X[test], data.bold[test], **data[test].labels)

    extractor = MotionEnergy()
    times, index = distinct_clips(
        data.on_screen, data.film_times, clip_duration=2.0, film_durations=data.film_durations
    )
    clips = [
        iter_clips(path, t, 2.0, fps=extractor.fps, size=extractor.size)
        for path, t in zip(data.stim_files, times, strict=True)
    ]
    long_X = place_features([extractor.transform(clip) for clip in clips], index)
    np.testing.assert_array_equal(X, long_X)
    chosen = np.isin(data.presentations, np.unique(data.presentations[data.films == 0]))
    groups = np.where(data.films < 0, -1, data.film_groups[data.films])
    train = {"runs": data.runs[~chosen], "films": groups[~chosen]}
    model = VideoEncodingModel(delays=(1, 2, 3, 4)).fit(
        long_X[~chosen], data.bold[~chosen], **train
    )
    labels = {"runs": data.runs[chosen], "films": data.films[chosen]}
    expected = model.score_map(long_X[chosen], data.bold[chosen], **labels)
    np.testing.assert_array_equal(score, expected)
    image = data.to_image(score).data.parts
    shown = np.concatenate([image["left"].ravel(), image["right"].ravel()])
    np.testing.assert_array_equal(shown, np.where(data.voxels, expected, np.nan).astype("f4"))


def test_control_at_the_wrong_moment_scores_nothing(finished):
    table = load_table(
        finished / "out/sub-01/func/sub-01_space-fsaverage5_desc-encode_table.tsv"
    ).set_index("model")
    right = table.loc["video", "mean_responsive"]
    late = table.loc["video, half a film late", "mean_responsive"]
    assert right > 0.02  # with so few volumes most voxels above the ceiling are noise
    assert abs(late) < right / 2  # of a few noisy voxels


def test_few_blocks_give_no_p_value_and_say_so(finished):
    record = load_json(finished / "out/sub-01/sub-01_space-fsaverage5_desc-encode_provenance.json")
    assert "blocks" in record["Parameters"]["no_p_values_because"]
    assert not list((finished / "out").rglob("*stat-q_*"))
    assert record["Seeds"] == {"random_state": 0}
    assert {"numpy", "himalaya", "torch"} <= set(record["Versions"])


def test_outputs_are_a_bids_derivative_with_complete_sidecars(finished):
    out = finished / "out"
    description = load_json(out / "dataset_description.json")
    assert description["DatasetType"] == "derivative"
    maps = sorted(out.glob("sub-01/func/*_statmap.func.gii"))
    assert len(maps) >= 2 * 10
    for path in maps:
        sidecar = load_json(path.with_name(path.name.replace(".func.gii", ".json")))
        assert {"Description", "Units", "delays", "feature_spaces", "repeats"} <= set(sidecar)
    for path in out.rglob("*_table.tsv"):
        described = load_json(path.with_suffix(".json"))
        assert set(load_table(path)) <= set(described), path.name
    report = (out / "sub-01.html").read_text()
    assert "Video &gt; Image" in report
    assert "http" not in report.split("<body", 1)[1].split('src="', 1)[1][:4]
    assert (out / "group.html").exists()


def test_second_run_does_not_repeat_finished_steps(dataset, finished, capsys):
    maps = sorted((finished / "out").glob("sub-01/func/*_statmap.func.gii"))
    before = [path.stat().st_mtime_ns for path in maps]
    code = main(
        [str(dataset.bids_dir), str(finished / "out"), "participant", "--participant-label",
         "sub-01", "-w", str(finished / "work"), *FAST]
    )  # fmt: skip
    assert code == 0
    assert [path.stat().st_mtime_ns for path in maps] == before
    assert "video - image" in capsys.readouterr().out


def test_other_surfaces_change_the_figures_and_nothing_else(dataset, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    meshes = {
        name: {side: (1.2 * xyz, faces) for side, (xyz, faces) in sides.items()}
        for name, sides in surfaces.load_fsaverage5().meshes.items()
    }
    meshes["flat"] = {side: (xyz * (1, 2, 1), f) for side, (xyz, f) in meshes["flat"].items()}
    write_pycortex_subject(tmp_path / "store" / "S01", meshes)

    def content(pattern):
        paths = sorted((folder / "out" / "sub-01").glob(pattern))
        assert paths
        return [hash_file(path) for path in paths]

    patterns = ("figures/*_flatmap.png", "figures/*_viewer.html", "func/*.gii", "figures/*_bar.png")
    before = [content(pattern) for pattern in patterns]
    command = [str(dataset.bids_dir), str(folder / "out"), "participant", "-w"]
    command += [str(folder / "work"), "--participant-label", "01", *FAST]
    assert main([*command, "--pycortex-subject", str(tmp_path / "store" / "S{subject}")]) == 0
    assert "fitting" not in capsys.readouterr().out
    flat, viewers, maps, bars = (content(pattern) for pattern in patterns)
    assert not set(flat) & set(before[0]) and not set(viewers) & set(before[1])
    assert [maps, bars] == before[2:]
    assert main([*command, "--pycortex-subject", str(tmp_path / "store" / "S2")]) == 2
    error = capsys.readouterr().err
    assert "--pycortex-subject: pycortex subject" in error and error.count("\n") == 1


def test_group_of_two_has_no_p_value(finished):
    record = load_json(finished / "out/group/group_space-fsaverage5_desc-encode_provenance.json")
    assert "6" in record["Summary"]["no group p-values"]
    mean = _group_map(finished / "out", "feat-video_stat-r")
    both = [_map(finished / "out", "feat-video_stat-r", s) for s in ("01", "02")]
    np.testing.assert_allclose(mean, np.mean(both, axis=0), atol=1e-6)


def test_what_two_people_share_is_where_their_responses_repeat(finished):
    ev = np.mean([_map(finished / "out", "stat-ev", s) for s in ("01", "02")], axis=0)
    shared, alone = (
        _group_map(finished / "out", f"stat-{name}") for name in ("sharedVariance", "leaveOneOut")
    )
    signal, none = ev > np.quantile(ev, 0.95), ev < np.quantile(ev, 0.5)
    assert shared[signal].mean() == pytest.approx(ev[signal].mean(), rel=0.4)
    assert shared[signal].mean() > 5 * abs(shared[none].mean())
    assert np.corrcoef(shared, ev)[0, 1] > 0.25
    np.testing.assert_allclose(alone, shared, atol=1e-5)  # of two, the other is the mean
    assert not list((finished / "out/group").glob("*sharedCeiling*"))
    assert not list((finished / "work").glob("shared-*"))


def test_concatenated_repeats_are_tested_on_averages(dataset, tmp_path):
    options = EncodeOptions(repeats="concatenate", n_iter=1, n_folds=2, n_permutations=200)
    result = encode.encode_participant(
        dataset.bids_dir, tmp_path / "out", "01", options, work_dir=tmp_path / "work", verbose=0
    )
    table = result.table.set_index("model")
    assert table.loc["video", "mean_responsive"] > 0.02
    assert result.report.exists()


@pytest.mark.parametrize(
    "change, expected",
    [
        (["--participant-label", "77"], "77"),
        (["--test-films", "nothing.mp4"], "nothing.mp4"),
        (["--n-folds", "50"], "50"),
        (["--delays-seconds", "4000"], "delay"),
        (["--derivatives", "nowhere"], "nowhere"),
        (["--space", "T1w"], "T1w"),
        (["--atlas", "nowhere.label.gii"], "nowhere.label.gii"),
        (["--bids-filter-file", "nowhere.json"], "nowhere.json"),
        (["--n-components", "0"], "--n-components must be at least 1"),
        (["--video-encoder", "motion-energy", "motion-energy"], "each encoder once"),
        (["--video-encoder", "motion-energy", "videomae-larg:3"], "Did you mean videomae-large"),
    ],
)
def test_bad_input_is_refused_in_one_line(dataset, finished, tmp_path, capsys, change, expected):
    arguments = [str(dataset.bids_dir), str(tmp_path / "out"), "participant"]
    arguments += ["--participant-label", "01", "-w", str(finished / "work")]
    code = main(arguments + (FAST if "--n-folds" not in change else []) + change)
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("brainnrds: ")
    ]
    assert code == 2
    assert len(lines) == 1 and expected in lines[0]
    assert not (tmp_path / "out").exists()


def test_output_may_not_be_the_input(dataset, capsys):
    for folder in (dataset.bids_dir, dataset.bids_dir / "sub-01"):
        assert main([str(dataset.bids_dir), str(folder), "participant"]) == 2
        assert "Output directory" in capsys.readouterr().err


def test_a_crash_leaves_a_crash_file(dataset, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr(encode, "encode_participant", fail)
    code = main([str(dataset.bids_dir), str(tmp_path / "out"), "participant"])
    assert code == 1
    crashes = list((tmp_path / "out").glob("logs/crash*.txt"))
    assert crashes and "planted" in crashes[0].read_text()
    assert capsys.readouterr().err.count("planted") >= 1


def test_killed_run_leaves_nothing_truncated_and_continues(dataset, finished, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    command = [sys.executable, "-m", "brainnrds", str(dataset.bids_dir), str(out)]
    command += ["participant", "--participant-label", "01", "-w", str(work), *FAST]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    deadline = time.monotonic() + 300
    while not list(work.glob("sub-01/*/video.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in work.rglob("*.npy"):
        np.load(path, allow_pickle=False)
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    np.testing.assert_allclose(
        _map(out, "feat-video_stat-r"),
        _map(finished / "out", "feat-video_stat-r"),
        atol=1e-4,  # float32: another process may round otherwise
    )
    unfinished = [p for p in Path(out).rglob("*") if p.name.startswith(".tmp-")]
    assert not unfinished


def test_features_from_files_equal_those_that_were_computed(dataset, tmp_path):
    """What our own extractor found, written to files, comes back to the same volumes."""
    data = load_runs(dataset.bids_dir, subject="01")
    X, _ = movie_features(
        data, {"light": Luminance()}, store_dir=tmp_path / "store", progress=False
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    for i_film, film in enumerate(data.stim_files):
        times, first = np.unique(data.film_times[data.on_screen == i_film], return_index=True)
        np.save(folder / f"{Path(film).stem}_times.npy", times)
        np.save(folder / f"{Path(film).stem}.npy", X[data.on_screen == i_film][first])
    read, spaces = movie_features(
        data,
        {"mine": FeatureFiles(folder), "cut": CutScores()},
        store_dir=tmp_path / "store",
        progress=False,
    )
    assert list(spaces) == ["mine", "cut"]
    shown = data.on_screen >= 0
    np.testing.assert_allclose(read[shown, spaces["mine"]], X[shown], atol=1e-5)


def test_spaces_and_controls_go_through_the_app(dataset, tmp_path, capsys):
    """Each space has its maps and rows; a control space is in every model and in no row."""
    transcripts = tmp_path / "words"
    transcripts.mkdir()
    for i, film in enumerate(sorted(dataset.bids_dir.glob("stimuli/*"))):
        onsets = np.sort(np.random.default_rng(i).uniform(0, 80, 120))
        words = pd.DataFrame({"onset": onsets, "duration": 0.1, "word": "word"})
        words.to_csv(transcripts / f"{film.stem}.tsv", sep="\t", index=False)
    code = main(
        [str(dataset.bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01",
         "-w", str(tmp_path / "work"), "--feature-space", "cut=cuts", "--control-space",
         "light=luminance", "words=word-rate", "--transcript", str(transcripts), *FAST]
    )  # fmt: skip
    assert code == 0
    (path,) = (tmp_path / "out").rglob("*_desc-encode_table.tsv")
    models = load_table(path)["model"].tolist()
    assert models[:4] == ["video", "image", "cut", "joint"]
    assert {"unique to video", "unique to image", "unique to cut"} <= set(models)
    shares = [model for model in models if model.startswith("share of")]
    assert shares == [f"share of {name}" for name in ("video", "image", "cut", "light", "words")]
    scored = [model for model in models if model not in shares]
    assert not any(part in model for model in scored for part in ("light", "words", "without"))
    assert list((tmp_path / "out").rglob("*feat-cut_stat-uniqueR2*statmap*"))
    assert load_json(path.with_suffix(".json"))["control_spaces"] == ["light", "words"]
    [areas] = (tmp_path / "out").rglob("*encodePartition_table.tsv")
    assert len(load_table(areas)) == 7 and list((tmp_path / "out").rglob("*_venn.png"))
    assert list((tmp_path / "out").rglob("*feat-videoAndCut_stat-sharedR2*statmap*"))
    said = capsys.readouterr().out
    assert "fitting the model: withoutvideo" in said


def shown_repeatedly(shares, n_repeats, rng, n_volumes=150, n_voxels=60):
    """Presentations of films as `load_runs` keeps them; `shares` of variance are the film's."""
    bold, films, presentations = [], [], []
    for film, (share, n) in enumerate(zip(shares, n_repeats, strict=True)):
        evoked = np.sqrt(share) * rng.normal(size=(n_volumes, n_voxels))
        for _ in range(n):
            bold.append(evoked + np.sqrt(1 - share) * rng.normal(size=evoked.shape))
            films.append(np.full(n_volumes, film))
            presentations.append(np.full(n_volumes, len(presentations)))
    return SimpleNamespace(
        bold=np.concatenate(bold),
        films=np.concatenate(films),
        presentations=np.concatenate(presentations),
        film_times=np.tile(2.0 * np.arange(n_volumes), len(films)),
        film_names=[f"film{film}.mp4" for film in range(len(shares))],
        voxels=np.ones(n_voxels, bool),
        t_r=2.0,
        design="continuous",
        spacing=2.0,
    )


@pytest.mark.parametrize(("trained", "tested"), [(0.1, 0.2), (0.2, 0.1)])
def test_the_ceiling_is_that_of_the_tested_films(trained, tested):
    """Of all repeated films together it was .67 where .71 was right, and .59 where .53 was."""
    rng = np.random.default_rng(0)
    data = shown_repeatedly([trained] * 6 + [tested] * 3, [2] * 6 + [10] * 3, rng)
    named = EncodeOptions(test_films=("film6", "film7", "film8"))
    ev = encode._explainable_variance(data, named).ev
    truth = tested / (tested + (1 - tested) / 10)
    assert np.mean(noise_ceiling(ev, n_repeats=10)) == pytest.approx(truth, abs=0.02)
    # all films are tested in turn, or those that are named were shown once
    of_all = encode._explainable_variance(data, EncodeOptions()).ev
    assert abs(np.mean(of_all) - np.mean(ev)) > 0.01
    once = data.films < 8
    once[np.flatnonzero(data.films == 8)[:150]] = True
    for name in ("bold", "films", "presentations", "film_times"):
        setattr(data, name, getattr(data, name)[once])
    alone = encode._explainable_variance(data, EncodeOptions(test_films=("film8",))).ev
    np.testing.assert_array_equal(alone, encode._explainable_variance(data, EncodeOptions()).ev)


def test_every_tested_map_of_the_brain_to_turn_has_its_q_values(monkeypatch):
    def test_of(value):
        return Bunch(q_values=None if value is None else np.full(3, value))

    results = Bunch(
        models=["video", "joint"],
        scores={"difference": np.zeros(3), "video": np.ones(3), "joint": np.full(3, 2.0)},
        tests={"difference": test_of(0.01), "video": test_of(0.02), "joint": test_of(None)},
        unique={"image": np.full(3, 0.5)},
        unique_tests={"image": test_of(0.03)},
        ceiling=np.full(3, 0.25),
    )
    drawn = {}

    def draw(masker, maps, space, *, q_values, **options):
        drawn.update(maps=maps, q_values=q_values)
        return []

    monkeypatch.setattr(encode, "draw_viewers", draw)
    record = Bunch(subject="01", pycortex_subject=None)
    encode._save_viewers(record, results, Bunch(masker=None, space="fsLR"), None)
    values = {name: values[0] for name, values in drawn["maps"].items()}
    assert values == {
        "Video > Image (difference of r)": 0,
        "video model (held-out r)": 1,
        "joint model (held-out r)": 2,
        "unique to image (R2)": 0.5,
        "noise ceiling (R2)": 0.25,
    }
    assert {name: q[0] for name, q in drawn["q_values"].items()} == {
        "Video > Image (difference of r)": 0.01,
        "video model (held-out r)": 0.02,
        "unique to image (R2)": 0.03,
    }
