"""Conversion of Dynamic Natural Vision: alignment is proved, bad input is refused."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from test_movie import validator_errors
from wen2018_release import make_release, run_course, write_film, write_run

import brainnrds.datasets.wen2018 as wen2018
from brainnrds.datasets import (
    fetch_wen2018,
    wen2018_splits,
    wen2018_timing,
    wen2018_to_bids,
)
from brainnrds.features import Delayer
from brainnrds.io import InputError, find_runs, load_runs

FILMS = ("seg1", "seg2", "test1", "test2")
IMPULSE = 100.0  # s of film time


def _impulse(time):
    """A pulse one volume long whose middle lies at IMPULSE + 1 s: known to far below 0.1 s."""
    # triangle: volumes beside it are hit in proportion, so that its centre can be measured
    height = np.maximum(0, 1 - abs(time - IMPULSE) / 4.0)
    return np.array([200.0 * height, 0.0, 5 * np.sin(time / 9), 5 * np.cos(time / 13)])


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("release"), films=FILMS, response=_impulse)


def _convert(release, output, **options):
    return wen2018_to_bids(release, output, subjects=(1,), missing="skip", verbose=0, **options)


@pytest.fixture(scope="module")
def converted(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    return {crop: _convert(release, folder / f"crop{crop}", crop=crop) for crop in (False, True)}


def test_splits_share_nothing():
    splits = wen2018_splits()
    assert len(splits.train) == 18 and len(splits.test) == 5
    assert not set(splits.train) & set(splits.test)
    assert splits.train[0] == "seg1.mp4" and splits.test[-1] == "test5.mp4"


def test_timing_of_both_kinds_of_runs():
    # the release's own script: 1-based volumes st ... end-4, st = 2 of 245, 3 of 246
    for n_volumes, st in ((245, 2), (246, 3)):
        kept = np.arange(1, n_volumes + 1)[st - 1 : n_volumes - 4]
        timing = wen2018_timing(n_volumes, crop=True)
        np.testing.assert_array_equal(np.arange(timing.start, timing.stop), kept - 1)
        np.testing.assert_allclose(timing.volume_times, 4 + 2 * np.arange(240))
        whole = wen2018_timing(n_volumes).volume_times
        assert whole[0] == {245: 2, 246: 0}[n_volumes]
        assert whole[-1] == 490  # the last volume ends 12 s after the film
    with pytest.raises(InputError, match="245 or 246 volumes; got 250"):
        wen2018_timing(250)


def _measured_impulse(data, run):
    """Centre of the pulse in film time, s."""
    rows = np.flatnonzero(data.runs == run)
    times, course = data.film_times[rows], data.bold[rows, 0].astype(float)
    near = np.abs(times - IMPULSE) < 30
    course = course - np.median(course)
    weights = np.clip(course, 0.2 * course.max(), None) - 0.2 * course.max()
    return (weights * times)[near].sum() / weights[near].sum()


def _alignment(dataset, space):
    data = load_runs(
        dataset.bids_dir, subject="01", space=space, confounds=(), repeats="concatenate"
    )
    rows = []
    for run in np.unique(data.runs):
        of_run = data.runs == run
        film = data.film_names[data.films[of_run].max()]
        rows.append((film, int(of_run.sum()), _measured_impulse(data, run)))
    return pd.DataFrame(rows, columns=["film", "n_rows", "impulse"])


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("space", ["fsLR", "MNI152NLin6Asym"])
def test_impulse_lies_where_it_was_planted(converted, crop, space):
    table = _alignment(converted[crop], space)
    assert set(table["film"]) == {f"{film}.mp4" for film in FILMS}
    assert len(table) == 2 + 2 + 10 + 10
    assert (table["impulse"] - IMPULSE).abs().max() < 0.1


@pytest.mark.parametrize("crop", [False, True])
def test_one_volume_off_is_seen(release, tmp_path, monkeypatch, crop):
    """The test above can fail: with the two scan starts swapped, it does."""
    monkeypatch.setattr(wen2018, "_SCAN_START", {245: 0.0, 246: 2.0})
    if crop:
        monkeypatch.setattr(wen2018, "_CROP_START", {245: 2, 246: 3})
    dataset = _convert(release, tmp_path / "bids", crop=crop, what=("cifti",))
    table = _alignment(dataset, "fsLR")
    assert ((table["impulse"] - IMPULSE).abs() > 1.5).all()


def test_crop_and_plain_timing_give_the_same_design(converted):
    """Volume k of the crop under delay 0 is what film time says under delay 2 (4 s)."""
    rng = np.random.default_rng(0)
    feature = {f"{film}.mp4": rng.standard_normal((240, 3)) for film in FILMS}
    designs = {}
    for crop, dataset in converted.items():
        data = load_runs(dataset.bids_dir, subject="01", space="fsLR", confounds=())
        X = np.zeros((len(data.films), 3))
        for index, name in enumerate(data.film_names):
            shown = data.on_screen == index
            clip = (data.film_times[shown] // 2).astype(int)  # in which the volume's middle lies
            X[shown] = feature[name][clip]
        delayed = Delayer((2, 3)).fit(X).transform(X, runs=data.runs)
        for index, name in enumerate(data.film_names):
            rows = (data.on_screen == index) & (data.film_times >= 12)
            designs[crop, name] = delayed[rows]
            if crop:
                # the release's convention: volume k of the crop beside clip k, no delay
                k = np.round((data.film_times[rows] - 5) / 2).astype(int)
                np.testing.assert_allclose(delayed[rows][:, :3], feature[name][k], atol=1e-6)
                np.testing.assert_allclose(delayed[rows][:, 3:], feature[name][k - 1], atol=1e-6)
    for name in feature:
        np.testing.assert_allclose(designs[True, name], designs[False, name], atol=1e-6)


def test_bids(converted, release):
    for crop, dataset in converted.items():
        assert validator_errors(dataset.bids_dir) == []
        runs = find_runs(dataset.bids_dir, subject="01", space="fsLR")
        assert {run.t_r for run in runs} == {2.0}  # the headers say 1 s
        assert {run.start_time for run in runs} == ({3.0, 5.0} if crop else {1.0})
        assert {run.n_volumes for run in runs} == ({240} if crop else {245, 246})
        onsets = {run.films[0].film: run.films[0].onset for run in runs}
        expected = dict.fromkeys(("seg1.mp4", "seg2.mp4", "test1.mp4"), -2.0)
        assert onsets == {**expected, "test2.mp4": 0.0}
        assert dataset.rules
    assert sorted(converted[False].runs["bids_name"].unique())[:2] == [
        "sub-01_task-test_run-01",
        "sub-01_task-test_run-02",
    ]
    mask = nib.load(
        converted[False].derivatives_dir
        / "sub-01/func/sub-01_space-MNI152NLin6Asym_desc-brain_mask.nii.gz"
    ).get_fdata()
    assert not mask[0].any() and mask[1:].all()


def test_links_not_copies(converted, release):
    source = release / "subject1/fmri/seg1/cifti/seg1_1_Atlas.dtseries.nii"
    target = (
        converted[False].derivatives_dir
        / "sub-01/func/sub-01_task-train_run-01_space-fsLR_bold.dtseries.nii"
    )
    assert os.path.samefile(source, target)
    film = converted[False].bids_dir / "stimuli" / "seg1.mp4"
    assert os.path.samefile(release / "stimuli" / "seg1.mp4", film) and not film.is_symlink()


def test_cropped_volumes_are_the_released_ones(converted, release):
    func = converted[True].derivatives_dir / "sub-01" / "func"
    ending = "space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
    for film, start, name in (("seg1", 1, "train_run-01"), ("test2", 2, "test_run-11")):
        whole = nib.load(release / f"subject1/fmri/{film}/mni/{film}_1_mni.nii.gz")
        cut = nib.load(func / f"sub-01_task-{name}_{ending}")
        np.testing.assert_array_equal(cut.get_fdata(), whole.get_fdata()[..., start : start + 240])
        assert cut.header.get_zooms()[3] == 2.0


def test_idempotent_and_other_versions_refused(release, converted, monkeypatch):
    output = converted[False].bids_dir
    before = sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*"))
    _convert(release, output)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*"))
    with pytest.raises(InputError, match="holds another conversion .*crop"):
        _convert(release, output, crop=True)
    monkeypatch.setattr(wen2018, "_VERSION", 99)
    with pytest.raises(InputError, match="holds another conversion .*version"):
        _convert(release, output)


def test_dry_run_writes_nothing(release, tmp_path):
    plan = _convert(release, tmp_path / "bids", dry_run=True)
    assert plan.runs["converted"].sum() == 2 * 24
    assert list(tmp_path.iterdir()) == []


def test_faulty_run_is_left_out_and_marked(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "video_fmri_dataset"
    write_film(root / "stimuli" / "test2.mp4")
    for repeat in range(1, 11):
        write_run(root, 3, "test2", repeat, run_course(246, _impulse, rng), kinds=("cifti",))
    options = {"subjects": (3,), "what": ("cifti",), "missing": "skip", "verbose": 0}
    default = wen2018_to_bids(root, tmp_path / "default", **options)
    assert len(find_runs(default.bids_dir)) == 9
    scans = pd.read_csv(default.derivatives_dir / "sub-03" / "sub-03_scans.tsv", sep="\t")
    marked = scans[~scans["usable"]]
    assert list(marked["film"]) == ["test2"] and list(marked["repeat"]) == [9]
    assert "10 s" in marked["problem"].iloc[0]
    kept = wen2018_to_bids(root, tmp_path / "kept", include_faulty=True, **options)
    assert len(find_runs(kept.bids_dir)) == 10


def _copy(release, tmp_path):
    root = tmp_path / "video_fmri_dataset"
    shutil.copytree(release, root)
    return root


def test_partial_release_says_what_is_missing(release, tmp_path):
    with pytest.raises(InputError, match=r"files of the release are missing: .*encode, decode"):
        wen2018_to_bids(release, tmp_path / "bids", subjects=(1,), verbose=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("renamed", r"images fit no name of the release.*seg1_first"),
        ("count", r"must have 245 or 246 volumes .*; got 250"),
        ("kind", r"must have 245 volumes as all runs of seg1; got 246"),
        ("short film", r"seg1.mp4 must last 480 s; got 100"),
        ("damaged", r"cannot be read \(damaged or truncated\)"),
    ],
)
def test_bad_releases(release, tmp_path, damage, message):
    root = _copy(release, tmp_path / "source")
    folder = root / "subject1/fmri/seg1/cifti"
    rng = np.random.default_rng(0)
    if damage == "renamed":
        (folder / "seg1_1_Atlas.dtseries.nii").rename(folder / "seg1_first.dtseries.nii")
    elif damage == "count":
        write_run(root, 1, "seg1", 1, rng.standard_normal((250, 4)), kinds=("cifti",))
    elif damage == "kind":
        write_run(root, 1, "seg1", 1, rng.standard_normal((246, 4)), kinds=("cifti",))
    elif damage == "short film":
        write_film(root / "stimuli" / "seg1.mp4", seconds=100)
    else:
        (folder / "seg1_1_Atlas.dtseries.nii").write_bytes(b"\0" * 1000)
    with pytest.raises(InputError, match=message):
        _convert(root, tmp_path / "bids")
    assert not (tmp_path / "bids").exists()


def test_missing_film_is_named(release, tmp_path):
    root = _copy(release, tmp_path / "source")
    (root / "stimuli" / "test1.mp4").unlink()
    with pytest.raises(InputError, match="missing"):
        wen2018_to_bids(root, tmp_path / "bids", subjects=(1,), verbose=0)
    left = _convert(root, tmp_path / "bids")
    assert "test1" not in set(left.runs.loc[left.runs["converted"], "film"])


def test_interrupted_conversion_goes_on(release, tmp_path, monkeypatch):
    whole = wen2018._write_scans

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(wen2018, "_write_scans", stop)
    with pytest.raises(KeyboardInterrupt):
        _convert(release, tmp_path / "bids", crop=True, what=("cifti",))
    assert not (tmp_path / "bids").exists()
    first = next((tmp_path / "bids.partial").rglob("*run-01*.dtseries.nii"))
    made = first.stat().st_mtime_ns
    monkeypatch.setattr(wen2018, "_write_scans", whole)
    done = _convert(release, tmp_path / "bids", crop=True, what=("cifti",))
    kept = done.bids_dir / first.relative_to(tmp_path / "bids.partial")
    assert kept.stat().st_mtime_ns == made
    assert not (tmp_path / "bids.partial").exists()


def test_output_inside_the_release(release):
    with pytest.raises(InputError, match="`output` must lie outside the release"):
        _convert(release, release / "bids")


def test_read_only_source(release, tmp_path):
    root = _copy(release, tmp_path / "source")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = _convert(root, tmp_path / "bids")
        assert done.derivatives_dir.is_dir()
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_fetch_from_archives_of_the_user(release, tmp_path):
    archives = tmp_path / "downloads"
    archives.mkdir()
    shutil.make_archive(
        str(archives / "subject1"), "zip", release.parent, "video_fmri_dataset/subject1"
    )
    shutil.make_archive(
        str(archives / "stimuli"), "gztar", release.parent, "video_fmri_dataset/stimuli"
    )
    found = fetch_wen2018(tmp_path / "data", subjects=(1,), archive_dir=archives, verbose=0)
    assert found.licence.startswith("CC0") and "bhx268" in found.citation
    assert len(found.films) == 4
    assert "files of the release are missing" in found.missing
    assert found.runs["path"].notna().sum() == 48
    again = fetch_wen2018(tmp_path / "data", subjects=(1,), verbose=0)
    assert again.source == found.source
    bids = _convert(found.source, tmp_path / "bids", what=("cifti",))
    assert len(find_runs(bids.bids_dir)) == 24
    direct = fetch_wen2018(tmp_path / "none", subjects=(1,), archive_dir=release.parent)
    assert Path(direct.source) == release


def test_fetch_without_anything(tmp_path):
    with pytest.raises(InputError, match=r"download its archives from https://purr"):
        fetch_wen2018(tmp_path, verbose=0)
    with pytest.raises(ValueError, match=r"`subjects` must be among \(1, 2, 3\); got \(4,\)"):
        fetch_wen2018(tmp_path, subjects=(4,))


def test_sidecar_states_the_rules(converted):
    for crop, dataset in converted.items():
        sidecar = next(dataset.derivatives_dir.rglob("*train_run-01*bold.json"))
        content = json.loads(sidecar.read_text())
        assert content["FirstVolumeFromFilmOnset"] == (4.0 if crop else 2.0)
        assert len(content["ConversionRules"]) >= 7


def test_the_mask_is_what_the_data_set_says_of_it(tmp_path):
    """A voxel that is 0 in a single run is outside."""
    rows = []
    for i in range(2):
        data = np.zeros((2, 2, 1, 3), np.float32)
        data[0, 0], data[i, 1] = 1, 1
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{i}.nii.gz")
        rows.append({"path": tmp_path / f"{i}.nii.gz"})
    wen2018._write_mask(tmp_path, 1, pd.DataFrame(rows))
    mask = nib.load(next(tmp_path.rglob("*_mask.nii.gz"))).get_fdata()
    assert mask[..., 0].tolist() == [[1, 0], [0, 0]]
    (said,) = [rule for rule in wen2018._rules(False, False) if "mask" in rule]
    assert "every converted run" in said
