"""Path patterns: what pybids builds by them is read back; data of other names are found."""

import json
import shutil

import pytest
from bids.layout.writing import build_path
from hypothesis import given
from hypothesis import strategies as st
from tiny_bids import make_tree

from brainnrds import io
from brainnrds.io import InputError
from brainnrds.io._path_patterns import PathPattern

FLAT = "sub-{subject}/sub-{subject}_task-{task}[_run-{run}]_desc-preproc_bold.nii.gz"
DEEP = (
    "sub-{subject}[/ses-{session}]/{datatype<func>|func}/sub-{subject}[_ses-{session}]_task-{task}"
    "[_acq-{acquisition}][_run-{run}][_space-{space<MNI|T1w>}]_bold{extension<.nii.gz|.nii>|.nii}"
)
LABEL = st.from_regex("[0-9a-zA-Z]{1,4}", fullmatch=True)


@given(
    entities=st.fixed_dictionaries(
        {"subject": LABEL, "task": LABEL},
        optional={
            "session": LABEL,
            "acquisition": LABEL,
            "run": LABEL,
            "space": st.sampled_from(["MNI", "T1w"]),
        },
    ),
    extension=st.sampled_from([".nii", ".nii.gz"]),
)
def test_what_pybids_builds_is_read_back(entities, extension):
    path = build_path({**entities, "datatype": "func", "extension": extension}, [DEEP])
    # an optional part that names what is absent before it cannot be there a second time
    assert PathPattern(DEEP).read(path) == entities


def test_other_paths_are_not_read():
    pattern = PathPattern(FLAT)
    name = "sub-1/sub-1_task-x_run-2_desc-preproc_bold.nii.gz"
    assert pattern.read(name) == {"subject": "1", "task": "x", "run": "2"}
    for other in (
        name.replace("sub-1_", "sub-2_"),
        name.replace(".nii", "xnii"),
        f"more/{name}",
        name.replace("_run-2", "_run-"),
        f"{name}.old",
    ):
        assert pattern.read(other) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("sub-{subject}_bold.nii.gz", r"must have \{task\} in it"),
        ("bold.nii.gz", r"must have \{subject\} and \{task\} in it"),
        ("sub-{subject}_task-{task}[_run-{run}_bold.nii", "pairs of brackets"),
        ("sub-{subject}_task-{task}]_bold.nii", "pairs of brackets"),
        ("sub-{subject}_task-{task}_{run_bold.nii", "pairs of braces"),
        ("", "must be a path pattern"),
        (3, "must be a path pattern"),
        ("sub-{subject}_task-{task}" * 100, "must be a path pattern"),
    ],
)
def test_patterns_that_cannot_be(pattern, reason):
    with pytest.raises(InputError, match=reason):
        PathPattern(pattern)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A data set as BIDS has it."""
    return make_tree(tmp_path_factory.mktemp("plain"), "MNI152NLin2009cAsym")


@pytest.fixture
def renamed(tmp_path, plain):
    """The same with sessions in the raw data, and derivatives without, in another folder."""
    bids = tmp_path / "bids"
    shutil.copytree(plain.bids_dir, bids)
    func = bids / "sub-01" / "ses-a" / "func"
    func.parent.mkdir()
    (bids / "sub-01" / "func").rename(func)
    for path in sorted(func.iterdir()):
        path.rename(func / path.name.replace("_task", "_ses-a_task").replace("run-", "run-0"))
    folder = bids / "derivatives" / "fmriprep" / "sub-01"
    for path in sorted((folder / "func").iterdir()):
        path.rename(folder / path.name.replace("_space-MNI152NLin2009cAsym", ""))
    (folder / "func").rmdir()
    (bids / "derivatives" / "fmriprep" / "dataset_description.json").unlink()
    return bids


def test_without_a_pattern_the_reason_names_what_differs(renamed):
    message = (
        "No events.tsv for sub-01_task-movie_run-1 in .*, but one for "
        "sub-01_ses-a_task-movie_run-01, which says ses-a: `derivatives_pattern` reads"
    )
    with pytest.warns(UserWarning), pytest.raises(InputError, match=message):
        io.find_runs(renamed)


def test_names_without_session_space_and_folder_are_read(renamed, plain, tmp_path):
    """Timing, masks, confounds and values are those of the same data under BIDS' names."""
    options = {"derivatives_pattern": FLAT, "database_path": tmp_path / "db"}
    for _ in range(2):  # from the folders, then from the database
        runs = io.find_runs(renamed, **options)
    expected = io.find_runs(plain.bids_dir)
    assert [(run.session, run.run, run.space) for run in runs] == [
        ("a", "1", None),
        ("a", "2", None),
    ]
    for run, other in zip(runs, expected, strict=True):
        assert (run.t_r, run.start_time, run.has_timing) == (other.t_r, other.start_time, True)
        assert [f.onset for f in run.films] == [f.onset for f in other.films]
        assert run.mask.name == other.mask.name.replace("_space-MNI152NLin2009cAsym", "")
        assert run.confounds.name == other.confounds.name
    cleaned = {"confounds": ("wm_csf",)}
    data, same = (io.load_runs(some, **cleaned) for some in (runs, expected))
    assert (data.bold == same.bold).all()
    assert io.list_subjects(renamed, **options) == ["01"]
    assert len(io.draft_film_table(renamed, **options)) == 2
    with pytest.raises(InputError, match="of another `derivatives_pattern`; remove it"):
        io.find_runs(renamed, database_path=tmp_path / "db")


def test_patterns_that_fit_badly(renamed):
    wrong = "sub-{subject}/func/sub-{subject}_task-{task}_bold.nii.gz"
    with pytest.raises(
        InputError, match="matches nothing: there is for example sub-01/sub-01_task"
    ):
        io.find_runs(renamed, derivatives_pattern=wrong)
    second = renamed / "sub-01" / "ses-b" / "func"
    shutil.copytree(renamed / "sub-01" / "ses-a" / "func", second)
    for path in sorted(second.iterdir()):
        path.rename(second / path.name.replace("ses-a", "ses-b"))
    with pytest.raises(InputError, match="must name the session: sub-01_task-movie_run-1 .* a, b"):
        io.find_runs(renamed, derivatives_pattern=FLAT)


def test_names_that_are_no_bids_at_all(renamed, plain):
    """One image a person, named by somebody: its sidecar is named alike; a film table says what."""
    folder = renamed / "derivatives" / "fmriprep"
    place = folder / "people" / "01" / "results"
    place.mkdir(parents=True)
    [bold] = folder.glob("sub-01/*_run-1_*_bold.nii.gz")
    shutil.copy(bold, place / "movie.smooth.nii.gz")
    (place / "movie.smooth.json").write_text(json.dumps({"StartTime": 0.75}))
    (place / "notes.nii.gz").touch()
    pattern = "people/{subject}/results/{task<movie>}.smooth.nii.gz"
    films = io.draft_film_table(renamed, derivatives_pattern=pattern).assign(
        stim_file="a.mp4", onset=6
    )
    [run] = io.find_runs(renamed, derivatives_pattern=pattern, films=films)
    assert (run.subject, run.task, run.run, run.mask) == ("01", "movie", None, None)
    assert run.bold[0].name == "movie.smooth.nii.gz" and run.start_time == 0.75
    assert [film.film for film in run.films] == ["a.mp4"]
