import gzip
import json
import os
import re
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


def test_runs_that_are_looked_into_at_once(tmp_path):
    tree = make_tree(tmp_path, "fsLR", subjects=("01", "02"))
    assert io.find_runs(tree.bids_dir, n_jobs=3) == io.find_runs(tree.bids_dir)
    for name in ("a.mp4", "clips/c.mp4"):
        (tree.bids_dir / "stimuli" / name).unlink()
    # the first run's, whichever thread met one first
    for _ in range(5):
        refused(r"Film not found: .*a\.mp4.*run-1", tree.bids_dir, n_jobs=3)


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
    assert {path.name for path in (tmp_path / "db").iterdir()} == {"raw.json", "derivatives.json"}
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
    assert len(unnoted(surface.bids_dir, strict=True)) == 2
    # 18 s of 20 s, 9 s of 20 s
    write_events(surface.events("1"), [(scan - 17.0, 20.0, "a.mp4")])
    match = r"a\.mp4 ends at 93\.00 s, more than one TR after the scan of 90\.00 s"
    refused(match, surface.bids_dir, strict=True)
    match = r"1 of 2 runs end .*, which is cut .*a\.mp4 at .* s of .*ends at 90\.00 s\.$"
    for left in (17.0, 9.0):
        write_events(surface.events("1"), [(scan - left, 20.0, "a.mp4")])
        [film] = noted(match, surface.bids_dir)[0].films
        assert (film.onset, film.duration) == (scan - left, left)
    # less than a response lasts: the film before it remains
    write_events(surface.events("1"), [(6.0, 20.0, "b.mp4"), (scan - 8.9, 20.0, "a.mp4")])
    match = "1 of 2 runs end before a film of which too little was scanned, and which is left out"
    assert [f.film for f in noted(match, surface.bids_dir)[0].films] == ["b.mp4"]
    # a run of which nothing is left
    write_events(surface.events("1"), [(scan + 50.0, 20.0, "a.mp4")])
    assert [run.run for run in noted(match, surface.bids_dir)] == ["2"]
    refused(
        r"No film was scanned: a\.mp4 at 140 s of .*run-1.* ends at 90", surface.bids_dir, run="1"
    )


def test_films_before_the_scan(surface):
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
    shutil.rmtree(tree.derivatives / "sub-02")
    folder = tree.derivatives / "sub-02" / "func"
    write_bold(folder, "sub-02_task-rest", "fsaverage5", tree.values["01", "1"])
    assert io.list_subjects(tree.bids_dir) == ["01", "02"]
    assert io.list_subjects(tree.bids_dir, task="rest") == ["02"]
    assert io.list_subjects(tree.bids_dir, bids_filter={"run": "2"}) == ["01"]
    with pytest.raises(io.InputError, match="No run matches task other"):
        io.list_subjects(tree.bids_dir, task="other")


def test_import_is_light():
    script = "import sys, brainnrds.io; print({'torch', 'bids', 'cortex'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def edit(path, **changes):
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in content.items() if value is not None})


def rename(folder, old, new):
    for path in sorted(folder.rglob(f"*{old}*")):
        path.rename(path.with_name(path.name.replace(old, new)))


def noted(match, *args, **kwargs):
    """Runs, and exactly one warning that says something."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = io.find_runs(*args, **kwargs)
    assert [bool(re.search(match, str(w.message))) for w in caught] == [True], caught
    return runs


def unnoted(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return io.find_runs(*args, **kwargs)


def write_raw(tree, run, n_volumes=N_VOLUMES, t_r=T_R):
    image = nib.Nifti1Image(np.zeros((2, 2, 3, n_volumes), np.uint8), np.eye(4))
    image.header.set_zooms((1, 1, 1, t_r))
    path = tree.bids_dir / f"sub-01/func/sub-01_task-movie_run-{run}_bold.nii.gz"
    nib.save(image, path)
    return path


def test_a_folder_beside_the_participants_is_not_read(surface):
    copy = surface.bids_dir / "old" / "sub-01" / "func"
    copy.mkdir(parents=True)
    write_events(copy / surface.events("1").name, [(0.0, FILM_SECONDS, "a.mp4")])
    assert unnoted(surface.bids_dir)[0].films[0].onset == 6.0


def test_bidsignore_is_respected_in_the_raw_data_alone(surface):
    (surface.bids_dir / ".bidsignore").write_text("*_run-2_*\n")
    # fMRIPrep's own lists the very files that are to be read
    (surface.derivatives / ".bidsignore").write_text("*_bold.func.gii\n*_timeseries.tsv\n")
    assert [run.run for run in noted("1 runs have BOLD but show no film", surface.bids_dir)] == [
        "1"
    ]


def test_folders_above_the_data_set_are_no_entities(tmp_path):
    tree = make_tree(tmp_path / "sub-lab" / "task-rest" / "ses-2024" / "high-res-study")
    run = unnoted(tree.bids_dir)[0]
    assert (run.subject, run.session, run.task) == ("01", None, "movie")


def test_run_labels_may_be_padded_on_one_side(surface):
    rename(surface.derivatives, "_run-", "_run-0")
    runs = unnoted(surface.bids_dir)
    assert [run.run for run in runs] == ["01", "02"]
    assert all(run.confounds for run in runs)
    write_events(surface.events("10"), [(6.0, FILM_SECONDS, "a.mp4")])
    noted(r"no preprocessed BOLD: sub-01_task-movie_run-10\.", surface.bids_dir)


def test_magnitude_is_what_is_meant_without_a_part(surface):
    rename(surface.derivatives, "_run-1", "_run-1_part-mag")
    for part in ("mag", "phase"):
        path = surface.events("2")
        shutil.copy(path, path.with_name(path.name.replace("_events", f"_part-{part}_events")))
    surface.events("2").unlink()
    runs = unnoted(surface.bids_dir)
    assert [run.confounds is not None for run in runs] == [True, True]
    assert runs[1].events.name.endswith("part-mag_events.tsv")
    assert io.load_runs(runs, confound_options={"motion": "basic"}).n_repeats.max() == 2


def test_the_table_that_was_found_is_the_one_that_is_read(tmp_path):
    """Names with more entities than nilearn looks for, .nii, and two acquisitions in a folder."""
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    reference = io.load_runs(tree.bids_dir, confound_options={"motion": "basic"})
    rename(tree.bids_dir, "_run-2", "_acq-mb4_run-1")
    for path in list(tree.derivatives.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    runs = unnoted(tree.bids_dir)
    assert ["acq-mb4" in run.confounds.name for run in runs] == [True, False]
    data = io.load_runs(runs[::-1], confound_options={"motion": "basic"})
    np.testing.assert_array_equal(data.bold, reference.bold)


def test_derivatives_one_folder_deeper(surface):
    deeper = surface.derivatives / "fmriprep"
    surface.derivatives.rename(surface.bids_dir / "moved")
    surface.derivatives.mkdir()
    (surface.bids_dir / "moved").rename(deeper)
    match = "there are some in .*derivatives/fmriprep/fmriprep"
    refused(match, surface.bids_dir)
    with pytest.raises(io.InputError, match=match):
        io.list_subjects(surface.bids_dir)
    assert io.list_subjects(surface.bids_dir, derivatives=deeper) == ["01"]


def test_derivatives_without_images_are_no_candidates(surface):
    """mriqc writes JSON with the names of BOLD, and reports beside the participants."""
    surface.derivatives.rename(surface.derivatives.with_name("preprocessing"))
    mriqc = surface.bids_dir / "derivatives" / "mriqc"
    write_json(mriqc / "sub-01" / "func" / "sub-01_task-movie_run-1_bold.json", {"fd_mean": 0.1})
    (mriqc / "sub-01_task-movie_run-1_bold.html").write_text("")
    assert len(unnoted(surface.bids_dir)) == 2


def test_the_minimal_level_of_fmriprep_is_recognised(surface):
    """References and transforms, no BOLD: the command that makes the rest is named."""
    for path in surface.derivatives.rglob("*_bold.*"):
        path.unlink()
    stem = surface.derivatives / "sub-01" / "func" / "sub-01_task-movie_run-1"
    for name in ("desc-hmc_boldref.nii.gz", "from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"):
        stem.with_name(f"{stem.name}_{name}").write_text("")
    match = "is of fMRIPrep's minimal level, .* --level full --derivatives minimal=.*fmriprep "
    refused(match, surface.bids_dir)
    elsewhere = surface.derivatives.rename(surface.derivatives.with_name("ds003017-fmriprep"))
    refused(match.replace("fmriprep ", "ds003017-fmriprep "), surface.bids_dir)
    refused(
        match.replace("fmriprep ", "ds003017-fmriprep "), surface.bids_dir, derivatives=elsewhere
    )


def test_several_tasks_and_patterns(surface):
    for path in [*surface.bids_dir.rglob("*run-2*"), *surface.bids_dir.rglob("*run-1*")]:
        task = "task-s01e01b" if "run-2" in path.name else "task-s01e01a"
        path.rename(path.with_name(path.name.replace("task-movie", task)))
    write_json(surface.bids_dir / "bold.json", {"RepetitionTime": T_R})

    def tasks(task):
        return [run.task for run in unnoted(surface.bids_dir, task=task)]

    assert tasks("s01*") == tasks(["task-s01e01a", "s01e01b"]) == ["s01e01a", "s01e01b"]
    assert tasks("s01e??b") == tasks(["*b"]) == ["s01e01b"]
    assert io.list_subjects(surface.bids_dir, task="s01*") == ["01"]
    refused(r"No run matches task s02\*: there are s01e01a, s01e01b", surface.bids_dir, task="s02*")
    refused("A task label has letters and digits only", surface.bids_dir, task="s/*")


def test_a_derivative_in_place_of_the_data_set(surface):
    refused("is a derivative itself: give the raw data set", surface.derivatives)


def test_annexed_films_of_a_data_set_inside_the_data_set(surface):
    original = surface.bids_dir / "sourcedata" / "original"
    objects = original / ".git" / "annex" / "objects" / "X"
    objects.mkdir(parents=True)
    (surface.bids_dir / "stimuli").rename(original / "stimuli")
    (surface.bids_dir / "stimuli").symlink_to("sourcedata/original/stimuli")
    film = original / "stimuli" / "a.mp4"
    film.rename(objects / "a.mp4")
    film.symlink_to("../.git/annex/objects/X/a.mp4")
    assert len(unnoted(surface.bids_dir)) == 2
    (objects / "a.mp4").unlink()
    refused(r"a\.mp4 is a link without content: `datalad get`", surface.bids_dir)
    film.unlink()
    film.symlink_to("../.git/config")
    (original / ".git" / "config").write_text("")
    refused(r"stim_file must lie in", surface.bids_dir)


def test_one_film_under_several_names_is_one_film(surface):
    stimuli = surface.bids_dir / "stimuli"
    shutil.copy(stimuli / "a.mp4", stimuli / "z copy.mp4")
    (stimuli / "z link.mp4").symlink_to("a.mp4")
    (stimuli / "again").symlink_to(".")
    rows = [(6.0, FILM_SECONDS, "z copy.mp4"), (40.0, FILM_SECONDS, "z link.mp4")]
    write_events(surface.events("2"), rows)
    match = "2 films have the content of another .* z copy.mp4 is a.mp4, z link.mp4 is a.mp4"
    first, second = noted(match, surface.bids_dir)
    assert [film.film for film in second.films] == ["a.mp4", "a.mp4"]
    assert {film.stim_file for film in second.films} == {first.films[0].stim_file}
    write_events(surface.events("2"), [(6.0, FILM_SECONDS, "again/a.mp4")])
    assert noted("1 films have", surface.bids_dir)[1].films[0].film == "a.mp4"


def test_rows_inside_one_showing_of_a_film(surface):
    rows = [(6.0, 5.0, "a.mp4"), (12.0, 5.0, "a.mp4"), (20.0, 5.0, "a.mp4")]
    write_events(surface.events("1"), rows)
    refused(r"rows of a\.mp4 at 6 and 12 s lie within one showing of it", surface.bids_dir)
    # shown whole, twice
    rows = [(6.0, FILM_SECONDS, "a.mp4"), (30.0, FILM_SECONDS, "a.mp4")]
    write_events(surface.events("1"), rows)
    assert len(unnoted(surface.bids_dir)) == 2


def test_a_duration_much_shorter_than_film_and_scan(surface):
    write_events(surface.events("1"), [(6.0, 3.0, "a.mp4")])
    noted(r"1 of 2 runs show a film for much less time .* says 3 s of a\.mp4", surface.bids_dir)
    # the next film is what ends it
    write_events(surface.events("1"), [(6.0, 3.0, "a.mp4"), (10.0, FILM_SECONDS, "b.mp4")])
    unnoted(surface.bids_dir)


def test_no_volume_on_any_film(surface):
    for run in ("1", "2"):
        write_events(surface.events(run), [(6.5, 1.0, "a.mp4")])
    # clips between volumes are trials; volume by volume there is nothing to load
    runs = io.find_runs(surface.bids_dir)
    assert io.find_design(runs) == ("trials", 1.0)
    with pytest.raises(io.InputError, match="No volume of sub-01 that is used lies on any film"):
        io.load_runs(runs, confounds=())
    write_events(surface.events("1"), [(6.0, FILM_SECONDS, "a.mp4"), (30.0, FILM_SECONDS, "b.mp4")])
    write_events(surface.events("2"), [(6.5, 1.0, "a.mp4")])
    with pytest.warns(UserWarning, match="1 of 2 runs have no volume on any film: .*run-2"):
        io.find_runs(surface.bids_dir)


def test_repetition_time_of_headers_is_told_once(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    edit(tree.bids_dir / "task-movie_bold.json", RepetitionTime=2.2)
    runs = noted(r"2 of 2 runs have another RepetitionTime .* 2\.2 s in the sidecar", tree.bids_dir)
    assert runs[0].t_r == 2.2


def test_volumes_that_the_derivatives_lack(surface):
    write_raw(surface, 1, N_VOLUMES + 2)
    refused(f"must have the {N_VOLUMES + 2} volumes of .*; got {N_VOLUMES}", surface.bids_dir)
    for path in surface.derivatives.rglob("*run-1*_bold.json"):
        edit(path, NumberOfVolumesDiscardedByUser=2)
    run = noted("1 of 2 runs lack first volumes", surface.bids_dir)[0]
    assert run.start_time == 2 * T_R


def test_raw_images_that_cannot_be_compared_are_not(surface):
    path = write_raw(surface, 1)
    for content in (b"", b"no image", path.read_bytes()[:20]):
        path.write_bytes(content)
        assert len(unnoted(surface.bids_dir)) == 2
    path.unlink()
    path.symlink_to(".git/annex/objects/nothing")
    assert len(unnoted(surface.bids_dir)) == 2


def test_slice_times_are_checked(surface):
    for path in surface.derivatives.rglob("*_bold.json"):
        edit(path, StartTime=None)
    edit(surface.bids_dir / "task-movie_bold.json", SliceTiming=[0, 500, 1000, 1500])
    refused(r"SliceTiming of .* in \[0, 2\] s.*\(in ms\?\)", surface.bids_dir)


def test_affines_may_differ_by_rounding(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    for run, x in (("1", -72.45651), ("2", -72.45649)):
        for path in tree.derivatives.rglob(f"*run-{run}*.nii.gz"):
            image = nib.load(path)
            affine = image.affine.copy()
            affine[0, 3] = x
            image = nib.Nifti1Image(np.asarray(image.dataobj), affine, image.header)
            nib.save(image, path)
    runs = unnoted(tree.bids_dir)
    assert io.load_runs(runs, confounds=()).bold.shape[1]


def test_grayordinates_in_another_order(tmp_path):
    tree = make_tree(tmp_path, "fsLR")
    path = tree.func("*run-2*.dtseries.nii")
    image = nib.load(path)
    models = image.header.get_axis(1)
    left, right = (part for _, _, part in models.iter_structures())
    data = np.asarray(image.dataobj)
    data = np.hstack([data[:, len(left) :], data[:, : len(left)]])
    nib.save(nib.Cifti2Image(data, header=(image.header.get_axis(0), right + left)), path)
    match = "order: CORTEX_RIGHT 25, CORTEX_LEFT 30, .* order: CORTEX_LEFT 30, CORTEX_RIGHT 25"
    refused(match, tree.bids_dir)


def test_events_that_name_no_film(surface):
    for run in ("1", "2"):
        write_events(surface.events(run), [(6.0, 2.0, "face.png")])
    refused(r"names 'face\.png', and films end in \.3gp \.asf", surface.bids_dir)
    for run in ("1", "2"):
        write_events(surface.events(run), [(6.0, 2.0, None)])
    refused("run-1_events.tsv names none", surface.bids_dir)
    for run in ("1", "2"):
        path = surface.events(run)
        path.rename(path.with_name(path.name.replace("_task", "_ses-a_task")))
    refused("No events.tsv for sub-01_task-movie_run-1 .*which says ses-a", surface.bids_dir)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a\x1b[31m.mp4", "must be a path"),
        ("x" * 5000 + ".mp4", "must be a path"),
        ("x/" * 400 + "a.mp4", "not found"),
        ("x" * 300 + ".mp4", "not found|cannot be opened"),
        ("http://127.0.0.1:9/film.mp4", "not found"),
        ("~/a.mp4", "not found"),
        ("clips.mp4", "got a folder"),
        ("fifo.mp4", "FIFO"),
        ("zero.mp4", "must lie in"),
        ("loop.mp4", "cannot be opened|not found"),
    ],
)
def test_hostile_film_names(surface, name, match):
    stimuli = surface.bids_dir / "stimuli"
    (stimuli / "clips.mp4").mkdir()
    os.mkfifo(stimuli / "fifo.mp4")
    (stimuli / "zero.mp4").symlink_to("/dev/zero")
    (stimuli / "loop.mp4").symlink_to("loop.mp4")
    write_events(surface.events("1"), [(6.0, FILM_SECONDS, name)])
    refused(match, surface.bids_dir)


@pytest.mark.parametrize("value", ["inf", "-inf", "True", "4+1j", "1,000", "0x4", "soon", "n/a"])
@pytest.mark.parametrize("column", [0, 1])
def test_times_that_are_no_numbers(surface, value, column):
    row = ["6.0", "20.0", "a.mp4"]
    row[column] = value
    surface.events("1").write_text("onset\tduration\tstim_file\n" + "\t".join(row) + "\n")
    refused(f"number in column {['onset', 'duration'][column]}", surface.bids_dir)


@pytest.mark.parametrize(
    "bids_filter",
    [
        [1],
        {"extension": None},
        {"extension": []},
        {"extension": ".json"},
        {"suffix": "events"},
        {"run": {"a": 1}},
        {"run": [[1]]},
        {"run": True},
        {"run": float("nan")},
        {"run": []},
        {"run": ".*"},
        {"run": "²"},
        {"run": "9" * 5000},
        {"colour": "red"},
        {"hemi": "L"},
    ],
)
def test_filters_that_cannot_be(surface, bids_filter):
    match = "bids_filter|holds no preprocessed BOLD file of|no hemi-R"
    refused(match, surface.bids_dir, bids_filter=bids_filter)


@pytest.mark.parametrize("label", ["../x", "a/b", "(", "", "$(x)", "01\n02", "0\x001"])
def test_labels_are_letters_and_digits(surface, label):
    refused("letters and digits only", surface.bids_dir, subject=label)
    refused("letters and digits only", surface.bids_dir, task=label)


@pytest.mark.parametrize("key", ["Name", "BIDSVersion"])
def test_descriptions_are_text(surface, key):
    edit(surface.bids_dir / "dataset_description.json", **{key: {"a": 1}})
    refused(f"has no {key}", surface.bids_dir)


@pytest.mark.parametrize(
    "header",
    ["onset,duration,stim_file", "Onset\tDuration\tStim_File", "onset\tduration\tstim_file "],
)
def test_headers_that_are_nearly_right(surface, header):
    comma = "," if "," in header else "\t"
    surface.events("1").write_text(f"{header}\n" + comma.join(["6", "20", "a.mp4"]) + "\n")
    refused("must have tab-separated columns, one of them stim_file; got", surface.bids_dir)


def test_files_that_are_no_files(surface):
    events, sidecar = surface.events("1"), surface.bids_dir / "task-movie_bold.json"
    image = surface.func("*run-1*hemi-L*.func.gii")
    for path in (events, sidecar, image):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        refused("FIFO", surface.bids_dir)
        path.unlink()
        path.symlink_to("/dev/zero")
        refused("device", surface.bids_dir)
        path.unlink()
        path.symlink_to(path.name)
        refused("Too many levels", surface.bids_dir)
        path.unlink()
        path.symlink_to(".git/annex/objects/nothing")
        refused("datalad get", surface.bids_dir)
        path.unlink()
        path.write_bytes(content)
    assert len(io.find_runs(surface.bids_dir)) == 2


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
    assert len(np.unique(data.presentations)) == n_shown
    # every clip of 3 s holds one or two volumes of 1.75 s
    assert set(np.bincount(data.presentations[data.on_screen >= 0])) <= {1, 2}
    assert averaged.n_repeats.sum() <= len(data.bold)
    assert np.isfinite(averaged.bold).all()
    assert json.loads((raw / f"{stem}_bold.json").read_text())["RepetitionTime"] == 1.75
