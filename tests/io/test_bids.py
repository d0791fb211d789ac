import gzip
import json
import shutil
import subprocess
import sys
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_bids import (
    FILM_SECONDS,
    N_VOLUMES,
    T_R,
    make_tree,
    moving_bar,
    write_bold,
    write_events,
    write_json,
)

import brainnrds.io as io

SPACES = ["MNI152NLin2009cAsym", "fsaverage5", "fsLR"]


@pytest.fixture(params=SPACES)
def tree(request, tmp_path):
    return make_tree(tmp_path, request.param)


@pytest.fixture
def surface(tmp_path):
    return make_tree(tmp_path, "fsaverage5")


def refused(match, bids_dir, **kwargs):
    """find_runs must refuse in one line, and write nothing."""
    before = sorted(bids_dir.parent.rglob("*"))
    with pytest.raises(io.InputError, match=match) as error:
        io.find_runs(bids_dir, **kwargs)
    assert "\n" not in str(error.value)
    assert sorted(bids_dir.parent.rglob("*")) == before


def test_runs_are_found(tree):
    runs = io.find_runs(tree.bids_dir)
    assert [(run.subject, run.task, run.run, run.session) for run in runs] == [
        ("01", "movie", "1", None),
        ("01", "movie", "2", None),
    ]
    run = runs[1]
    assert run.space == tree.space
    assert run.t_r == T_R
    assert run.start_time == 0.0
    assert run.n_volumes == N_VOLUMES
    assert run.events == tree.events("2")
    assert run.confounds.name.endswith("run-2_desc-confounds_timeseries.tsv")
    assert (run.mask is not None) == tree.space.startswith("MNI")
    assert [path.name.count("run-2") for path in run.bold] == [1] * len(run.bold)
    assert len(run.bold) == (2 if tree.space == "fsaverage5" else 1)
    assert [(film.film, film.onset, film.duration) for film in run.films] == [
        ("a.mp4", 6.0, FILM_SECONDS),
        ("clips/c.mp4", 40.0, FILM_SECONDS),
    ]
    assert run.films[1].stim_file == tree.bids_dir / "stimuli" / "clips" / "c.mp4"


def test_filters(tmp_path):
    tree = make_tree(tmp_path, subjects=("01", "02"))
    assert len(io.find_runs(tree.bids_dir)) == 4
    assert len(io.find_runs(tree.bids_dir, subject="sub-02")) == 2
    assert len(io.find_runs(tree.bids_dir, subject=["01", "02"], run="02")) == 2
    assert len(io.find_runs(tree.bids_dir, run=1, bids_filter={"subject": "01"})) == 1
    refused(r"No run matches subject 03: .* has 01, 02", tree.bids_dir, subject="03")
    refused("No run matches task rest", tree.bids_dir, task="rest")
    refused("No run matches session 1", tree.bids_dir, session="1")
    refused("No run matches run 7", tree.bids_dir, run="7")
    refused(
        r"No run matches space fsLR: there are fsaverage5 \(4 runs\)", tree.bids_dir, space="fsLR"
    )


def test_database_is_reused(surface, tmp_path):
    first = io.find_runs(surface.bids_dir, database_path=tmp_path / "db")
    assert {path.name for path in (tmp_path / "db").iterdir()} == {"raw", "derivatives"}
    assert io.find_runs(surface.bids_dir, database_path=tmp_path / "db") == first
    surface.events("2").unlink()
    with pytest.raises(io.InputError, match="out of date"):
        io.find_runs(surface.bids_dir, database_path=tmp_path / "db")


def test_metadata_is_inherited(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    # the image's own header disagrees with no sidecar; the nearest file wins
    folder = tree.bids_dir / "sub-01" / "func"
    write_json(folder / "sub-01_task-movie_run-2_bold.json", {"SliceTiming": [0.0, 0.5, 1.0]})
    for sidecar in tree.derivatives.glob("sub-01/func/*_bold.json"):
        sidecar.unlink()
    with pytest.warns(UserWarning, match="1 of 2 runs have neither StartTime nor SliceTiming"):
        first, second = io.find_runs(tree.bids_dir)
    assert (first.has_timing, second.has_timing) == (False, True)
    assert first.start_time == T_R / 2
    assert second.start_time == 0.5
    write_json(tree.derivatives / "task-movie_bold.json", {"StartTime": 0.9})
    assert [run.start_time for run in io.find_runs(tree.bids_dir)] == [0.9, 0.9]


def test_repetition_time_from_the_header(tmp_path):
    for space in ("MNI152NLin2009cAsym", "fsLR"):
        tree = make_tree(tmp_path / space, space)
        (tree.bids_dir / "task-movie_bold.json").unlink()
        assert io.find_runs(tree.bids_dir)[0].t_r == T_R
    tree = make_tree(tmp_path / "surface")
    (tree.bids_dir / "task-movie_bold.json").unlink()
    refused("RepetitionTime of", tree.bids_dir)


def test_events_inherited_and_sorted(surface):
    for run in ("1", "2"):
        surface.events(run).unlink()
    write_events(
        surface.bids_dir / "task-movie_events.tsv",
        [(40.0, 20.0, "b.mp4"), (2.0, 1.0, None), (6.0, 20.0, "a.mp4"), (70.0, 1.0, "x.png")],
    )
    runs = io.find_runs(surface.bids_dir)
    assert [[film.film for film in run.films] for run in runs] == [["a.mp4", "b.mp4"]] * 2


def test_old_confounds_name(surface):
    for path in surface.derivatives.rglob("*_timeseries.*"):
        path.rename(path.with_name(path.name.replace("timeseries", "regressors")))
    runs = io.find_runs(surface.bids_dir)
    assert runs[0].confounds.name.endswith("desc-confounds_regressors.tsv")
    data = io.load_runs(runs, confound_options={"motion": "basic"})
    assert np.isfinite(data.bold).all()


def test_tasks_without_films_are_left_out(surface):
    folder = surface.derivatives / "sub-01" / "func"
    write_bold(folder, "sub-01_task-rest", "fsaverage5", surface.values["01", "1"])
    with pytest.warns(UserWarning, match="show no film .* sub-01_task-rest"):
        assert len(io.find_runs(surface.bids_dir)) == 2
    refused(r"No events\.tsv for sub-01_task-rest", surface.bids_dir, task="rest")


def test_no_directory_not_bids_no_derivatives(surface, tmp_path):
    refused("No such directory", tmp_path / "nothing")
    (tmp_path / "plain").mkdir()
    refused("Not a BIDS data set: .*plain", tmp_path / "plain")
    write_json(tmp_path / "plain" / "dataset_description.json", {"Name": "x"})
    refused("has no BIDSVersion", tmp_path / "plain")
    write_json(tmp_path / "plain" / "dataset_description.json", {"Name": "x", "BIDSVersion": "1"})
    refused("No derivatives", tmp_path / "plain")
    refused(r"No such directory: .*nowhere", surface.bids_dir, derivatives=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("holds no preprocessed BOLD", surface.bids_dir, derivatives=tmp_path / "empty")
    (surface.bids_dir / "dataset_description.json").write_text("{")
    refused("readable JSON", surface.bids_dir)


def test_derivatives_elsewhere(surface, tmp_path):
    shutil.move(surface.derivatives, tmp_path / "prep")
    refused("No derivatives", surface.bids_dir)
    assert len(io.find_runs(surface.bids_dir, derivatives=tmp_path / "prep")) == 2
    for name in ("one", "two"):
        shutil.copytree(tmp_path / "prep", surface.bids_dir / "derivatives" / name)
    refused("Several derivatives have BOLD: one, two", surface.bids_dir)
    shutil.rmtree(surface.bids_dir / "derivatives" / "two")
    assert len(io.find_runs(surface.bids_dir)) == 2


def test_films_missing_truncated_or_short(surface):
    film = surface.bids_dir / "stimuli" / "b.mp4"
    content = film.read_bytes()
    film.unlink()
    refused(r"Film not found: .*b\.mp4", surface.bids_dir)
    film.write_bytes(content[: len(content) // 2])
    refused(r"Film .*b\.mp4", surface.bids_dir)
    film.write_bytes(b"")
    refused(r"Film .*b\.mp4 cannot be decoded", surface.bids_dir)
    io.write_clip(film, moving_bar(60), fps=5)
    refused(r"b\.mp4 is shorter .* lasts 12\.00 s, expected 20\.00 s", surface.bids_dir)


@pytest.mark.parametrize("name", ["../secret.mp4", "clips/../../secret.mp4", "/{}/secret.mp4"])
def test_stim_file_outside_stimuli(surface, name):
    shutil.copy(surface.bids_dir / "stimuli" / "a.mp4", surface.bids_dir / "secret.mp4")
    name = name.format(surface.bids_dir)
    write_events(surface.events("1"), [(6.0, 20.0, name)])
    refused(r"stim_file must lie in .*stimuli", surface.bids_dir)


def test_links_out_of_stimuli(surface, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    film = surface.bids_dir / "stimuli" / "a.mp4"
    shutil.move(film, outside / "a.mp4")
    film.symlink_to(outside / "a.mp4")
    refused(r"stim_file must lie in .*stimuli", surface.bids_dir)
    film.unlink()
    (surface.bids_dir / "stimuli" / "folder").symlink_to(outside)
    write_events(surface.events("1"), [(6.0, 20.0, "folder/a.mp4")])
    refused(r"stim_file must lie in .*stimuli", surface.bids_dir)


def test_links_within_the_data_set(surface, tmp_path):
    # git-annex keeps the content of a file under .git and links to it
    film = surface.bids_dir / "stimuli" / "a.mp4"
    annex = surface.bids_dir / ".git" / "annex" / "objects" / "X" / "key"
    annex.mkdir(parents=True)
    shutil.move(film, annex / "key.mp4")
    film.symlink_to("../.git/annex/objects/X/key/key.mp4")
    assert len(io.find_runs(surface.bids_dir)) == 2
    # stimuli itself may lie on another disk
    shutil.move(surface.bids_dir / "stimuli", tmp_path / "disk")
    (tmp_path / "disk" / "a.mp4").unlink()
    shutil.move(annex / "key.mp4", tmp_path / "disk" / "a.mp4")
    (surface.bids_dir / "stimuli").symlink_to(tmp_path / "disk")
    assert len(io.find_runs(surface.bids_dir)) == 2


def test_films_beyond_the_scan(surface):
    scan = N_VOLUMES * T_R
    write_events(surface.events("1"), [(scan - 20.0 + T_R, 20.0, "a.mp4")])
    assert len(io.find_runs(surface.bids_dir)) == 2
    write_events(surface.events("1"), [(scan - 20.0 + T_R + 0.1, 20.0, "a.mp4")])
    refused(
        r"a\.mp4 ends at 92\.10 s, more than one TR after the scan of 90\.00 s", surface.bids_dir
    )
    write_events(surface.events("1"), [(-5.0, 20.0, "a.mp4")])
    refused("before the scan", surface.bids_dir)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([("n/a", 20.0, "a.mp4")], "number in column onset"),
        ([(6.0, None, "a.mp4")], "number in column duration"),
        ([(6.0, 0.0, "a.mp4")], "must be positive"),
        ([(6.0, 20.0, "a.mp4"), (20.0, 20.0, "b.mp4")], r"must not overlap; .* by 6\.00 s"),
    ],
)
def test_bad_events(surface, rows, match):
    write_events(surface.events("1"), rows)
    refused(match, surface.bids_dir)


def test_events_without_films(surface):
    surface.events("1").write_text("onset\tduration\n1.0\t2.0\n")
    refused("must name films in a column stim_file", surface.bids_dir, task="movie")
    surface.events("2").write_text("onset\tduration\n1.0\t2.0\n")
    refused("No run shows a film", surface.bids_dir)


def test_truncated_image(tree):
    path = io.find_runs(tree.bids_dir)[1].bold[-1]
    content = path.read_bytes()
    for share in (0.001, 0.98):
        path.write_bytes(content[: int(len(content) * share)])
        refused(rf"Image .*{path.name}", tree.bids_dir)


def test_run_that_was_not_preprocessed(surface):
    write_events(surface.events("3"), [(6.0, 20.0, "a.mp4")])
    with pytest.warns(UserWarning, match=r"no preprocessed BOLD: sub-01_task-movie_run-3\."):
        assert len(io.find_runs(surface.bids_dir)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(io.find_runs(surface.bids_dir, run="2")) == 1


def test_damaged_gzip(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    path = tree.func("*run-2*_bold.nii.gz")
    # a whole gzip stream of too few values
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-400]))
    refused("is truncated: .* bytes", tree.bids_dir)


def test_image_that_is_not_4d(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3)), np.eye(4)), tree.func("*run-2*_bold.nii.gz"))
    refused("must be 4-D", tree.bids_dir)


def test_space_for_some_runs_only(surface):
    tree, other = surface, "T1w"
    folder = tree.derivatives / "sub-01" / "func"
    first = io.find_runs(tree.bids_dir)[0].bold[0]
    shutil.copy(first, folder / f"sub-01_task-movie_run-1_space-{other}_desc-preproc_bold.nii.gz")
    refused(r"Several spaces have BOLD: .*T1w \(1 runs\)", tree.bids_dir)
    refused(r"Space T1w is there for some runs only: .*run-2 has none", tree.bids_dir, space="T1w")
    assert len(io.find_runs(tree.bids_dir, space=tree.space)) == 2


def test_hemisphere_missing(surface):
    surface.func("*run-2_hemi-R*.func.gii").unlink()
    refused("run-2 has no hemi-R in space fsaverage5", surface.bids_dir)


def test_hemispheres_of_different_length(surface):
    path = surface.func("*run-2_hemi-R*.func.gii")
    image = nib.load(path)
    nib.save(nib.gifti.GiftiImage(darrays=image.darrays[:-1]), path)
    refused("same number of volumes; got 45 .* and 44", surface.bids_dir)


def test_different_grids(tree):
    run = io.find_runs(tree.bids_dir)[1]
    image = nib.load(run.bold[0])
    if tree.space == "fsaverage5":
        arrays = [nib.gifti.GiftiDataArray(array.data[:-1]) for array in image.darrays]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), run.bold[0])
    elif tree.space == "fsLR":
        models = image.header.get_axis(1)[1:]
        data = np.array(image.dataobj)[:, 1:]
        nib.save(nib.Cifti2Image(data, header=(image.header.get_axis(0), models)), run.bold[0])
    else:
        affine = image.affine.copy()
        affine[0, 3] += 1
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine, image.header), run.bold[0])
    refused("Runs must share a grid", tree.bids_dir)


def test_different_repetition_times(surface):
    write_json(
        surface.bids_dir / "sub-01/func/sub-01_task-movie_run-2_bold.json", {"RepetitionTime": 1.5}
    )
    write_events(surface.events("2"), [(6.0, 20.0, "a.mp4")])
    refused("share a repetition time", surface.bids_dir)


def test_two_resolutions_are_ambiguous(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    path = tree.func("*run-1*_bold.nii.gz")
    shutil.copy(path, path.with_name(path.name.replace("_desc", "_res-2_desc")))
    refused("Several files fit sub-01_task-movie_run-1", tree.bids_dir)
    assert len(io.find_runs(tree.bids_dir, bids_filter={"res": None})) == 2


def test_masks(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    options = {"confound_options": {"motion": "basic"}}
    path = tree.func("*run-2*_mask.nii.gz")
    image = nib.load(path)
    inside = np.asarray(image.dataobj).copy()
    inside[3, 4, 2] = 0
    nib.save(nib.Nifti1Image(inside, image.affine), path)
    with pytest.raises(io.InputError, match="Runs must share a mask: .* differ in 1 voxels"):
        io.load_runs(tree.bids_dir, **options)
    data = io.load_runs(tree.bids_dir, mask="intersection", **options)
    assert data.bold.shape[1] == inside.sum()
    data = io.load_runs(tree.bids_dir, mask=tree.func("*run-1*_mask.nii.gz"), **options)
    assert data.bold.shape[1] == inside.sum() + 1
    # another grid
    nib.save(nib.Nifti1Image(inside[:-1], image.affine), path)
    with pytest.raises(io.InputError, match="must lie on the grid of the data"):
        io.load_runs(tree.bids_dir, **options)
    path.unlink()
    with pytest.raises(io.InputError, match="No brain mask for"):
        io.load_runs(tree.bids_dir, **options)


def test_list_subjects(tmp_path):
    tree = make_tree(tmp_path, subjects=("01", "02"))
    (tree.derivatives / "sub-03" / "figures").mkdir(parents=True)
    assert io.list_subjects(tree.bids_dir) == ["01", "02"]


def test_import_is_light():
    script = "import sys, brainnrds.io; print({'torch', 'bids', 'cortex'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.mark.shared_data
def test_bold_moments_events(shared_data, tmp_path):
    """Real events and confounds (ds005165); images and films stand in."""
    source = shared_data / "bold-moments-ds005165"
    bids = tmp_path / "bids"
    stem = "sub-01_ses-02_task-test_run-1"
    raw, prep = bids / "sub-01/ses-02/func", bids / "derivatives/fmriprep/sub-01/ses-02/func"
    raw.mkdir(parents=True)
    prep.mkdir(parents=True)
    shutil.copy(source / "dataset_description.json", bids)
    for suffix in ("events.tsv", "bold.json"):
        shutil.copy(source / f"sub-01/ses-02/func/{stem}_{suffix}", raw)
    confounds = f"{stem}_desc-confounds_timeseries.tsv"
    shutil.copy(source / f"derivatives/versionB/fmriprep/sub-01/ses-02/func/{confounds}", prep)
    events = pd.read_csv(raw / f"{stem}_events.tsv", sep="\t")
    first = None
    for name in events["stim_file"].dropna().unique():
        path = bids / "stimuli" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            first = io.write_clip(path, moving_bar(15), fps=5)
        else:
            shutil.copy(first, path)
    n_volumes = len(pd.read_csv(prep / confounds, sep="\t"))
    values = np.random.default_rng(0).normal(size=(n_volumes, 55)) + 100
    write_bold(prep, stem, "fsaverage5", values)
    (prep / f"{stem}_desc-confounds_timeseries.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = io.load_runs(bids, repeats="concatenate")
        averaged = io.average_repeats(data)
    assert data.t_r == 1.75
    n_shown = events["stim_file"].notna().sum()
    assert len(np.unique(data.runs)) == n_shown
    # every clip of 3 s holds one or two volumes of 1.75 s
    assert set(np.bincount(data.runs[data.films >= 0])) <= {1, 2}
    assert averaged.n_repeats.sum() <= len(data.bold)
    assert np.isfinite(averaged.bold).all()
    assert json.loads((raw / f"{stem}_bold.json").read_text())["RepetitionTime"] == 1.75
