"""The sample data set: valid BIDS, as fMRIPrep lays it out, with the truth it states."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds

import brainnrds.datasets.movie as movie
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import load_runs, probe_video, read_sound, read_transcript

SPACES = ("fsaverage5", "MNI152NLin2009cAsym", "fsLR")
N_VOXELS = {"fsaverage5": 20484, "fsLR": 91282}


def validator_errors(bids_dir):
    """Errors of the official validator (bids-validator-deno)."""
    command = Path(sys.executable).parent / "bids-validator-deno"
    found = subprocess.run(
        [str(command), str(bids_dir), "--json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(found.stdout)["issues"]["issues"]
    return [
        (issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error"
    ]


@pytest.mark.parametrize("space", SPACES)
def test_valid_bids(movie_datasets, space):
    assert validator_errors(movie_datasets[space].bids_dir) == []


def test_the_validator_sees_errors(movie_datasets, tmp_path):
    """The check above means something: a broken copy is refused."""
    broken = tmp_path / "broken"
    shutil.copytree(
        movie_datasets["fsaverage5"].bids_dir,
        broken,
        ignore=shutil.ignore_patterns("derivatives", "sourcedata"),
    )
    (broken / "dataset_description.json").unlink()
    assert validator_errors(broken)


@pytest.mark.parametrize("space", SPACES)
def test_files_have_the_shapes_that_the_events_need(movie_datasets, space):
    dataset = movie_datasets[space]
    func = dataset.derivatives_dir / "sub-01" / "func"
    # 5 lead-in volumes, per film 10 volumes and 6 after it
    for stem, n_volumes in (("task-train_run-01", 37), ("task-test_run-02", 21)):
        events = pd.read_csv(
            dataset.bids_dir / "sub-01" / "func" / f"sub-01_{stem}_events.tsv", sep="\t"
        )
        np.testing.assert_allclose(events.onset, 11 + 32 * np.arange(len(events)))
        assert (events.duration == 20).all()
        for name in events.stim_file:
            video = probe_video(dataset.bids_dir / "stimuli" / name)
            assert video.duration == pytest.approx(20)
        confounds = pd.read_csv(func / f"sub-01_{stem}_desc-confounds_timeseries.tsv", sep="\t")
        assert len(confounds) == n_volumes
        assert np.isnan(confounds.trans_x_derivative1[0])
        assert np.isfinite(confounds.trans_x_derivative1[1:]).all()
        if space == "fsaverage5":
            for hemi in "LR":
                image = nib.load(func / f"sub-01_{stem}_hemi-{hemi}_space-fsaverage5_bold.func.gii")
                assert image.agg_data("NIFTI_INTENT_TIME_SERIES").shape == (10242, n_volumes)
        elif space == "fsLR":
            image = nib.load(func / f"sub-01_{stem}_space-fsLR_den-91k_bold.dtseries.nii")
            assert image.shape == (n_volumes, 91282)
            series, models = (image.header.get_axis(index) for index in range(2))
            assert (series.start, series.step, series.unit) == (1.0, 2.0, "SECOND")
            assert models.nvertices == {
                "CIFTI_STRUCTURE_CORTEX_LEFT": 32492,
                "CIFTI_STRUCTURE_CORTEX_RIGHT": 32492,
            }
            assert len(list(models.iter_structures())) == 21
        else:
            image = nib.load(func / f"sub-01_{stem}_space-{space}_desc-preproc_bold.nii.gz")
            mask = nib.load(func / f"sub-01_{stem}_space-{space}_desc-brain_mask.nii.gz")
            assert image.shape == (*mask.shape, n_volumes)
            np.testing.assert_array_equal(image.affine, mask.affine)
            assert image.header.get_zooms()[3] == 2.0
            assert mask.get_fdata().sum() == len(dataset.truth["01"].label)
    sidecars = list(func.glob("*bold.json"))
    for sidecar in sidecars:
        content = json.loads(sidecar.read_text())
        assert (content["RepetitionTime"], content["StartTime"]) == (2.0, 1.0)


@pytest.mark.parametrize("space", SPACES)
def test_loads_with_film_times_on_the_clips(movie_datasets, space):
    dataset = movie_datasets[space]
    with pytest.warns(UserWarning, match="non-steady-state"):
        data = load_runs(dataset.bids_dir, subject="01", confound_options={"motion": "basic"})
    assert data.bold.shape[1] == len(dataset.truth["01"].label)
    assert data.bold.shape[1] == N_VOXELS.get(space, data.bold.shape[1])
    assert sorted(data.film_names) == sorted(
        str(Path(name)) for name in dataset.train_films + dataset.test_films
    )
    shown = data.on_screen >= 0
    np.testing.assert_allclose(data.film_times[shown] % 2.0, 0, atol=1e-6)
    assert shown.sum() == 10 * len(data.film_names)


def test_confounds_load_with_nilearn(movie_datasets):
    dataset = movie_datasets["MNI152NLin2009cAsym"]
    image = next(
        (dataset.derivatives_dir / "sub-01" / "func").glob("*train_run-01*preproc_bold.nii.gz")
    )
    for strategy, options in (
        (("motion", "high_pass", "wm_csf"), {}),
        (("motion", "high_pass", "compcor"), {"compcor": "anat_combined", "n_compcor": 3}),
        (("motion", "scrub", "global_signal"), {"scrub": 0, "fd_threshold": 0.5}),
    ):
        table, kept = load_confounds(str(image), strategy=strategy, **options)
        assert len(table) == 37
        assert 0 not in kept  # the volume before the steady state


def test_most_voxels_are_noise(movie_datasets):
    for dataset in movie_datasets.values():
        assert np.mean(dataset.truth["01"].label == "none") >= 0.4


def _explainable_variance(data):
    """Mean over films of 1 - noise / total variance of one presentation, from repeats."""
    noise = total = 0
    for film in range(len(data.film_names)):
        rows = np.flatnonzero(data.films == film)
        series = np.stack(
            [
                data.bold[rows[data.presentations[rows] == p]]
                for p in np.unique(data.presentations[rows])
            ]
        )
        series = series - series.mean(axis=1, keepdims=True)
        noise = noise + ((series - series.mean(axis=0)) ** 2).sum(axis=(0, 1)) / (len(series) - 1)
        total = total + (series**2).mean(axis=0).sum(axis=0)
    return 1 - noise / total


@pytest.mark.filterwarnings("ignore:.*non-steady-state:UserWarning")
def test_explainable_variance_of_one_run(repeated_volumes):
    truth = repeated_volumes.truth["01"]
    cleaned = _explainable_variance(
        load_runs(
            repeated_volumes.bids_dir,
            subject="01",
            repeats="concatenate",
            confound_options={"motion": "basic"},
        )
    )
    responsive = truth.label != "none"
    assert 0.10 < np.median(cleaned[responsive]) < 0.20
    assert abs(np.median(cleaned[~responsive])) < 0.01
    raw = _explainable_variance(
        load_runs(repeated_volumes.bids_dir, subject="01", repeats="concatenate", confounds=())
    )
    # the confounds matter
    assert np.median(raw[responsive]) < 0.75 * np.median(cleaned[responsive])


def test_known_motion_of_a_film(movie_datasets):
    dataset = movie_datasets["fsaverage5"]
    film = dataset.films["train01.mp4"]
    assert film.flow.shape == (10, 1, 2, 24, 32)
    np.testing.assert_array_equal(film.onset, 2.0 * np.arange(10))
    no_patch = np.isnan(film.patch_x)
    middle = film.flow[no_patch][:, 0, :, 11:13, 15:17].mean(axis=(2, 3))
    np.testing.assert_allclose(
        middle, 32 * np.stack([film.pan_x, film.pan_y], axis=1)[no_patch], atol=1e-5
    )


def test_films_have_the_sound_and_the_words_that_the_truth_says(movie_datasets):
    dataset = movie_datasets["fsaverage5"]
    for name in dataset.train_films + dataset.test_films:
        path, film = dataset.bids_dir / "stimuli" / name, dataset.films[name]
        words = read_transcript(path.with_suffix(".tsv"))
        counted = np.bincount((words.onset // 2).astype(int), minlength=len(film.onset))
        np.testing.assert_array_equal(counted, film.n_words)
        loudness = np.sqrt(np.mean(read_sound(path).reshape(len(film.onset), -1) ** 2, axis=1))
        planned = np.sqrt((film.tones**2).sum(1) + (film.noise**2).sum(1))
        quiet = film.n_syllables == 0
        np.testing.assert_allclose(loudness[quiet], np.hypot(planned, 0.002)[quiet], rtol=0.25)


def test_same_arguments_same_data(movie_datasets, tmp_path, monkeypatch):
    from small_movies import SMALL

    first = movie_datasets["MNI152NLin2009cAsym"]
    again = make_movie_dataset(tmp_path / "again", space="MNI152NLin2009cAsym", **SMALL)
    files = sorted(
        path.relative_to(first.bids_dir) for path in first.bids_dir.rglob("*") if path.is_file()
    )
    assert files == sorted(
        path.relative_to(again.bids_dir) for path in again.bids_dir.rglob("*") if path.is_file()
    )
    for name in files:
        if name.suffix in (".tsv", ".json", ".md"):
            assert (first.bids_dir / name).read_bytes() == (again.bids_dir / name).read_bytes()
        elif name.name.endswith("bold.nii.gz"):
            one, two = (np.asarray(nib.load(d.bids_dir / name).dataobj) for d in (first, again))
            np.testing.assert_array_equal(one, two)

    def refuse(*args):
        raise AssertionError("made anew")

    monkeypatch.setattr(movie, "_write_dataset", refuse)
    kept = make_movie_dataset(tmp_path / "again", space="MNI152NLin2009cAsym", **SMALL)
    np.testing.assert_array_equal(kept.truth["01"].label, again.truth["01"].label)
    with pytest.raises(ValueError, match=r"`path` must .* made with other values of snr"):
        make_movie_dataset(tmp_path / "again", space="MNI152NLin2009cAsym", snr=9, **SMALL)


def test_an_interrupted_call_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(movie, "_write_top_level", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_movie_dataset(
            tmp_path / "bids", n_runs=1, n_films_per_run=1, n_test_films=0, film_duration=4
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "MNI"}, r"`space` must be one of .*; got 'MNI'"),
        ({"n_runs": 0}, r"`n_runs` must be at least 1; got 0"),
        ({"snr": -1}, r"`snr` must be positive; got -1"),
        ({"film_duration": 7}, r"`film_duration` must be a multiple of 2 s; got 7 s"),
        ({"n_runs": 40}, r"`n_films` must be between 1 and 60; got 82"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_movie_dataset(tmp_path / "bids", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"`path` must be a new or an empty folder"):
        make_movie_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
