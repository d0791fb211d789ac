"""What brainnrds-validate says about good and incomplete data sets."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_bids import make_tree

from brainnrds.analyses import (
    DecodeOptions,
    EncodeOptions,
    ReanimateOptions,
    Selection,
    decode_participant,
    encode,
    encode_participant,
)
from brainnrds.analyses.validate import _remarks, validate_dataset
from brainnrds.datasets import make_movie_dataset
from brainnrds.films import film_folds
from brainnrds.io import InputError, bold, find_runs, load_runs
from brainnrds.io.bids import Presentation


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_movie_dataset(
        tmp_path_factory.mktemp("validate") / "bids",
        n_runs=2,
        n_films_per_run=2,
        n_repeats=2,
        n_test_films=1,
        n_test_repeats=3,
        film_duration=12,
        space="MNI152NLin2009cAsym",
    )


def test_says_what_is_used(dataset):
    text = validate_dataset(dataset.bids_dir)
    assert "7 runs, space MNI152NLin2009cAsym" in text
    assert text.count("task-train_run-") == 4
    # 5 lead-in volumes, 2 films of 6 volumes with 6 after each; the films start at 11 s and 35 s
    row = next(line for line in text.splitlines() if "task-train_run-01" in line).split()
    assert row[1:5] == ["29", "12", "2", "1"]
    assert "(11 + 12)" in text and "(35 + 12)" in text
    assert "films: 4 films shown 2 times, 1 film shown 3 times; 1.0 min" in text
    assert "film groups, the units of every split: 3" in text
    assert "train01.mp4, train02.mp4" in text
    # 5 films of 12 s
    assert "1.0 min of different footage make about 1 of the 12 blocks of 40 s" in text


def test_says_what_is_missing(dataset, tmp_path):
    copy = tmp_path / "bids"
    shutil.copytree(dataset.bids_dir, copy)
    func = copy / "derivatives/fmriprep/sub-01/func"
    for path in func.glob("*confounds_timeseries.tsv"):
        table = pd.read_csv(path, sep="\t", na_values="n/a").filter(like="cosine")
        table["cosine00"] = 0.0
        table.to_csv(path, sep="\t", index=False)
    text = validate_dataset(copy, task="train", subject="01")
    assert "4 of 4 confounds tables lack what strategy motion needs" in text
    assert "two film groups" in text
    for path in func.glob("*confounds_timeseries.tsv"):
        path.unlink()
    assert "4 of 4 runs have no confounds table" in validate_dataset(copy, task="train")
    for path in func.glob("*desc-brain_mask.nii.gz"):
        path.unlink()
    assert "without a brain mask" in validate_dataset(copy)
    (copy / "stimuli" / "train01.mp4").unlink()
    with pytest.raises(InputError, match="train01.mp4"):
        validate_dataset(copy)


def test_confounds_and_masks_that_are_asked_for_are_read_as_the_analysis_would(dataset, tmp_path):
    """What is refused is refused in the words of `load_runs`."""
    from brainnrds.io import load_runs

    copy = tmp_path / "bids"
    shutil.copytree(dataset.bids_dir, copy)
    func = copy / "derivatives/fmriprep/sub-01/func"
    text = validate_dataset(copy, task="train", confounds=("motion",))
    assert "--confounds" not in text

    def both(match, **options):
        lines = []
        for function in (validate_dataset, load_runs):
            with pytest.raises(InputError, match=match) as error:
                function(copy, task="train", **options)
            lines.append(str(error.value))
        assert lines[0] == lines[1]

    both("cannot be used", confounds=("ica_aroma",))
    both("Mask not found", confounds=(), mask=tmp_path / "none.nii.gz")
    [table] = func.glob("*train_run-01*confounds_timeseries.tsv")
    table.write_text("")
    both("empty file", confounds=("motion",))
    # nothing was asked of it
    assert "runs, space" in validate_dataset(copy, task="train", confounds=())
    for path in func.glob("*train_run-01*desc-brain_mask.nii.gz"):
        path.unlink()
    both("No brain mask for", confounds=())


def test_enough_footage_is_not_remarked_on(dataset, monkeypatch):
    monkeypatch.setattr("brainnrds.analyses.validate.SHORTEST_BLOCK", 5.0)
    assert "nothing is missing for these runs" in validate_dataset(dataset.bids_dir)


def test_blocks_do_not_reach_over_the_borders_of_one_film():
    """Of 6 min in six parts, 18 s after each of five borders do not count: 270 s."""
    film = Presentation("a", Path("a"), 0.0, 360.0, 0.0)
    run = SimpleNamespace(
        films=(film,), start_time=0.0, n_volumes=200, t_r=2.0, bold=[Path("sub-01_bold.nii")]
    )
    whole = _remarks([run], {"a": 1}, [{"a"}])
    assert "make about 9 of the 12 blocks" in whole[0]
    parts = [
        replace(film, film=f"a#t={s}", onset=s, duration=60.0, film_start=s)
        for s in np.arange(0.0, 360.0, 60.0)
    ]
    run.films = tuple(parts)
    cut = _remarks([run], {part.film: 1 for part in parts}, [{p.film} for p in parts])
    assert "make about 6 of the 12 blocks" in cut[0]
    # of the last two, tested, two borders: 84 s
    tested = [part.film for part in parts[-2:]]
    named = _remarks([run], {p.film: 1 for p in parts}, [{p.film} for p in parts], tested)
    assert "2.0 min of different footage in test films make about 2 of the 12" in named[0]


def test_films_for_testing_are_the_one_split(dataset, monkeypatch):
    """Said is what `film_folds` does: of a film group, what is not tested trains."""

    def told(*films, analysis=EncodeOptions, repeats="concatenate"):
        options = analysis(test_films=films, repeats=repeats)
        return validate_dataset(dataset.bids_dir, options=options)

    for analysis in (EncodeOptions, DecodeOptions):
        text = told("test*", analysis=analysis)
        assert "\ntest films: test01.mp4; all 4 others train\n" in text
        assert "\nfilm groups: 3\n" in text and "units of every split" not in text
        assert "0.2 min of different footage in test films make about 0 of the 12 blocks" in text
        assert "film group trains" not in text
    # train01 and train02 are one film group, in the same runs; averaged they are runs of their own
    assert "; all 4 others train\n" in told("train01", repeats="average")
    beside = ", without the volumes beside a test film in its run\n"
    assert f"\ntest films: train01.mp4; all 4 others train{beside}" in told("train01")
    assert "; all 4 others train\n" in told("train01", analysis=DecodeOptions)
    text = told("train01", "train02", "test01")
    assert "test films: test01.mp4, train01.mp4, train02.mp4; all 2 others train\n" in text
    assert "one film group trains: penalties are chosen inside it" in text
    assert f"; the other one trains{beside}" in told("train01", "train02", "train03", "test01")
    # blocks of all films would be enough: 5 of 12 s
    monkeypatch.setattr("brainnrds.analyses.validate.SHORTEST_BLOCK", 5.0)
    assert "make about 2 of the 12 blocks of 5 s" in told("test01")


@pytest.mark.parametrize("repeats", ["average", "concatenate"])
def test_what_encoding_trains_on_beside_test_films_is_what_is_said(dataset, repeats):
    """Of what shares a run with a tested film, volumes next to it are left out, and no film is."""
    data = load_runs(find_runs(dataset.bids_dir), confounds=(), repeats=repeats)
    for film, is_beside in (("test01", False), ("train01", repeats == "concatenate")):
        options = EncodeOptions(test_films=(film,), repeats=repeats)
        splits = encode._splits(data, options)
        [(train, _)] = film_folds(
            data.runs, splits.units, test_films=splits.test_units, gap=max(data.delays)
        )
        others = (data.films >= 0) & (data.films != splits.test_films[0])
        assert (len(train) < others.sum()) == is_beside
        assert set(data.films[train]) == set(data.films[others])
        text = validate_dataset(dataset.bids_dir, options=options)
        assert ("beside a test film" in text) == is_beside


def test_no_repeats(dataset):
    text = validate_dataset(dataset.bids_dir, task="test")
    assert "one film group" in text


@pytest.mark.parametrize(
    ("analyse", "options"),
    [(decode_participant, DecodeOptions()), (encode_participant, EncodeOptions())],
)
def test_without_a_film_to_hold_out_it_is_refused_before_bold_is_read(
    analyse, options, dataset, tmp_path
):
    with pytest.raises(InputError, match="A film must be held out") as refused:
        validate_dataset(dataset.bids_dir, task="test", options=options)
    selection = Selection(bids_dir=dataset.bids_dir, task=("test",))
    where = {"work_dir": tmp_path / "work", "verbose": 0}
    with pytest.raises(InputError) as by_app:
        analyse(selection, tmp_path / "out", "01", options, **where)
    assert str(by_app.value) == str(refused.value)
    assert not (tmp_path / "out").exists()


def test_more_folds_than_film_groups_are_refused_before_bold_is_read(tmp_path, monkeypatch):
    """A film that is in every run ties them all; averaged it is a run of its own, and ties none."""
    rows = [(4.0, 12.0, "{}a.mp4"), (26.0, 12.0, "{}b.mp4"), (48.0, 12.0, "v.mp4")]
    tree = make_tree(
        tmp_path,
        runs={
            str(i): [(onset, seconds, name.format(i)) for onset, seconds, name in rows]
            for i in range(3)
        },
    )
    runs, found = find_runs(tree.bids_dir), {}
    for repeats, n_units in (("average", 4), ("concatenate", 7)):
        data = load_runs(runs, confounds=(), repeats=repeats)
        with pytest.raises(InputError) as late:
            encode._splits(data, EncodeOptions(n_folds=9))
        assert f"between 2 and the number of film groups, {n_units}; got 9." in str(late.value)
        assert encode._splits(data, EncodeOptions(n_folds=n_units)).n_folds == n_units
        found[repeats] = str(late.value)
    monkeypatch.setattr(bold, "read_bold", None)
    for repeats, expected in found.items():
        options = EncodeOptions(n_folds=9, repeats=repeats, confounds=())
        with pytest.raises(InputError) as refused:
            validate_dataset(tree.bids_dir, options=options)
        where = {"work_dir": tmp_path / "work", "verbose": 0}
        with pytest.raises(InputError) as by_app:
            encode_participant(tree.bids_dir, tmp_path / "out", "01", options, **where)
        assert str(by_app.value) == str(refused.value) == expected
    # of named test films there is one fold, whatever is asked for
    named = replace(options, test_films=("v",))
    assert "estimate for encode" in validate_dataset(tree.bids_dir, options=named)
    assert not (tmp_path / "out").exists()


def test_folds_are_checked_by_what_is_shown_whatever_the_masks(dataset, tmp_path):
    """Film groups are counted without a mask: one may be given, and not in the options."""
    copy = tmp_path / "bids"
    shutil.copytree(dataset.bids_dir, copy)
    mask = next(copy.rglob("*_task-train_run-01*_desc-brain_mask.nii.gz"))
    image = nib.load(mask)
    inside = np.asarray(image.dataobj).copy()
    inside[tuple(np.argwhere(inside)[0])] = 0
    nib.save(nib.Nifti1Image(inside, image.affine), mask)
    with pytest.raises(InputError, match="Runs must share a mask"):
        load_runs(find_runs(copy), confounds=())
    text = validate_dataset(copy, mask="intersection", options=EncodeOptions(n_folds=3))
    # as `load_runs` would count them
    data = load_runs(find_runs(copy), confounds=(), mask="intersection")
    assert f"samples x {data.bold.shape[1]:,} voxels, " in text
    with pytest.raises(InputError, match="number of film groups, 3; got 4"):
        validate_dataset(copy, mask="intersection", options=EncodeOptions(n_folds=4))
    with pytest.raises(InputError, match="Runs must share a mask"):
        validate_dataset(copy, options=EncodeOptions(n_folds=3))


def test_films_for_testing_and_the_atlas_are_checked_before_bold_is_read(dataset, tmp_path):
    """What an analysis would refuse after minutes of loading is refused here with the same line."""

    def told(**options):
        return validate_dataset(dataset.bids_dir, options=EncodeOptions(**options))

    with pytest.raises(InputError, match=r"must be named as in the data .*; got 'train99'"):
        told(test_films=("train99",))
    [mask] = list(dataset.bids_dir.rglob("*_desc-brain_mask.nii.gz"))[:1]
    image = nib.load(mask)
    atlas = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), atlas)
    with pytest.raises(InputError, match="must label voxels of the data; all are 0"):
        told(atlas=str(atlas))
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), atlas)
    text = told(atlas=str(atlas), test_films=("train01",))
    with pytest.raises(InputError, match="--pycortex-subject: pycortex subject nowhere must be a"):
        told(pycortex_subject="nowhere")
    inside = int((np.asarray(image.dataobj) > 0).sum())
    assert text.splitlines()[-1].startswith("estimate for encode, good to a factor of 4: ")
    assert f"samples x {inside:,} voxels, " in text
    assert "estimate" not in validate_dataset(dataset.bids_dir)
    decoding = validate_dataset(dataset.bids_dir, options=DecodeOptions())
    assert decoding.splitlines()[-1].startswith("estimate for decode, good to a factor of 4: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"renderer": "dragnuwa"}, "--renderer dragnuwa: needs --video-model"),
        ({"stock_model": "/no/such/folder"}, "--renderer image-to-video: No such model folder"),
    ],
)
def test_renderers_without_weights_are_refused(dataset, changes, message):
    with pytest.raises(InputError, match=message):
        validate_dataset(dataset.bids_dir, options=ReanimateOptions(**changes))
