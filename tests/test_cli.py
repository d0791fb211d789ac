"""The command line itself: what it reads, refuses and says, without running an analysis."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from sklearn.utils import Bunch

import brainnrds.analyses.encode
from brainnrds import cli
from brainnrds.analyses.options import (
    DecodeOptions,
    EncodeGroupOptions,
    EncodeOptions,
    GroupOptions,
    ReanimateOptions,
    Selection,
    flags,
)
from brainnrds.io import InputError

PLACES = ["bids", "out", "participant"]


@pytest.fixture
def bids_dir(tmp_path):
    (tmp_path / "bids" / "sub-01").mkdir(parents=True)
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Name": "x"}')
    return tmp_path / "bids"


def test_every_option_reaches_its_field():
    parsed, options, selection = cli.parse(
        [
            *PLACES, "--analysis", "decode", "--participant-label", "sub-01", "02",
            "--task-id", "task-film", "--space", "fsLR", "--n-cpus", "3", "--random-state", "7",
            "--confounds", "--repeats", "concatenate", "--test-films", "a.mp4", "b.mp4",
            "--delays-seconds", "-4", "0", "--grid", "8", "16", "--precision", "bfloat16",
        ]
    )  # fmt: skip
    assert parsed.participant_label == ["01", "02"]
    assert selection == Selection(bids_dir=parsed.bids_dir, task=("film",), space="fsLR")
    assert options == DecodeOptions(
        n_jobs=3,
        random_state=7,
        confounds=(),
        repeats="concatenate",
        test_films=("a.mp4", "b.mp4"),
        delays_seconds=(-4.0, 0.0),
        grid=(8, 16),
        precision="bfloat16",
    )


@pytest.mark.parametrize("analysis", cli.OPTIONS)
def test_nothing_given_is_the_defaults_of_python(analysis):
    parsed, options, selection = cli.parse([*PLACES, "--analysis", analysis])
    assert options == cli.OPTIONS[analysis]()
    assert selection == Selection(bids_dir=parsed.bids_dir)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--control-space", "light=luminence"], "must name one of"),
        (["--video-encoder", "videomae-larg"], "Did you mean videomae-large"),
        (["--atlas", "nosuch.dlabel.nii"], "--atlas must be a file; got nosuch.dlabel.nii"),
    ],
)
def test_a_dry_run_looks_at_extractors_and_the_atlas(arguments, expected, tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    places = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--dry-run"]
    assert cli.main([*places, *arguments]) == cli.EXIT_BAD_INPUT
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("analysis", cli.OPTIONS)
def test_help_is_of_one_analysis(analysis, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--analysis", analysis, "--help"])
    told = capsys.readouterr().out
    own = set(flags(cli.OPTIONS[analysis]).values())
    own |= set(flags(cli.GROUP_OPTIONS[analysis]).values())
    foreign = {flag for kind in cli.OPTIONS.values() for flag in flags(kind).values()} - own
    words = set(told.replace("[", " ").split())
    assert own <= words
    assert not foreign & words


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--renderer", "dragnuwa"], "--renderer is an option of --analysis reanimate, not of enc"),
        (
            ["--n-codes=10"],
            "--n-codes is an option of --analysis decode, transfer and reanimate, not of enco",
        ),
        (["--n-codez", "10"], "--n-codez is no option"),
        (["--contrl-space", "a=cuts"], "--contrl-space is no option; did you mean --control-space"),
        (["--n-permutations", "0"], "--n-permutations must be at least 100; got 0"),
        (["--n-folds", "two"], "--n-folds"),
        (["--n-cpus", "0"], "--n-cpus must be -1 (one process a core) or at least 1; got 0"),
        (["--delays-seconds", "nan"], "--delays-seconds must be finite"),
        (["--solver", "magic"], "--solver"),
        (["--participant-label", "01/../../x"], "--participant-label"),
        (["--session-label", "a_b"], "--session-label"),
        (["--n-iter", "-1"], "--n-iter must be at least 1"),
        (["--random-state", "9" * 20], "--random-state must be at most 4294967295"),
        (["--analysis", "decode", "--grid", "4", "100000"], "--grid must be at most 256"),
        (["--analysis", "decode", "--n-steps", "1000000"], "--n-steps must be at most 256"),
        (["--analysis", "reanimate", "--size", "24", "100000"], "--size must be at most 4096"),
    ],
)
def test_bad_arguments_are_one_line(arguments, expected, capsys):
    assert cli.main([*PLACES, *arguments]) == cli.EXIT_BAD_INPUT
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("brainnrds: ") and expected in line


def test_the_group_level_takes_its_own_options_alone():
    places = ["bids", "out", "group"]
    _, options, _ = cli.parse([*places, "--random-state", "3", "--n-cpus", "2"])
    assert options == EncodeGroupOptions(random_state=3, n_jobs=2)
    with pytest.raises(InputError, match="--n-iter is no option of the group level"):
        cli.parse([*places, "--n-iter", "3"])
    assert cli.parse([*places, "--inter-subject-ceiling"])[1].inter_subject
    assert cli.parse([*places, "--analysis", "decode"])[1] == GroupOptions()
    with pytest.raises(InputError, match="--inter-subject-ceiling is an option of the group level"):
        cli.parse(["bids", "out", "participant", "--inter-subject-ceiling"])


@pytest.mark.parametrize(
    "content",
    ["[1]", '{"Bold": {"run": 1}}', "{}", '{"run": 1}', "[" * 100_000, "not json"],
)
def test_a_filter_file_that_would_be_ignored_is_refused(bids_dir, tmp_path, capsys, content):
    path = tmp_path / "filter.json"
    path.write_text(content)
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01"]
    assert cli.main([*arguments, "--bids-filter-file", str(path), "-w", str(tmp_path / "w")]) == 2
    assert "--bids-filter-file must" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--work-dir", "--bids-database-dir"])
def test_nothing_is_written_into_the_data_set(bids_dir, tmp_path, capsys, option):
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant"]
    assert cli.main([*arguments, option, str(bids_dir / "sub-01" / "work")]) == 2
    assert option in capsys.readouterr().err
    assert [path.name for path in (bids_dir / "sub-01").iterdir()] == []


def _place(tmp_path, kind):
    """A folder of that name cannot be, or nothing can be written there."""
    if kind == "loop":
        (tmp_path / "loop").symlink_to("loop")
    if kind == "under a file":
        (tmp_path / "file").write_text("x")
    names = {
        "loop": "loop",
        "zero byte": "a\0b",
        "long": "o" * 300,
        "under a file": "file/out",
        "no file system for it": "/proc/out",
    }
    return str(tmp_path / names[kind])


KINDS = ["loop", "zero byte", "long", "under a file", "no file system for it"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["output", "--work-dir", "input"])
def test_places_that_cannot_be_are_refused_first(bids_dir, tmp_path, capsys, kind, which):
    if kind.startswith("no file system") and sys.platform != "linux":
        pytest.skip("/proc is Linux'")
    arguments = {"input": str(bids_dir), "output": str(tmp_path / "out"), "--work-dir": "w"}
    arguments[which] = _place(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    code = cli.main(
        [
            *(arguments["input"], arguments["output"], "participant"),
            *("--work-dir", arguments["--work-dir"], "--participant-label", "01"),
        ]
    )
    assert code == cli.EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("brainnrds: ") and len(line) < 400
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_written_inside_other_programs_data(bids_dir, tmp_path, capsys):
    other = bids_dir / "derivatives" / "other"
    (other / "sub-01").mkdir(parents=True)
    (other / "dataset_description.json").write_text('{"Name": "theirs"}')
    arguments = ["participant", "--participant-label", "01", "-w", str(tmp_path / "w")]
    assert (
        cli.main([str(bids_dir), str(other / "sub-01" / "out"), *arguments]) == cli.EXIT_BAD_INPUT
    )
    assert "is of theirs" in capsys.readouterr().err


def _answer(monkeypatch, answer):
    """The analysis of a participant does as `answer` says."""

    def encode(selection, output_dir, subject, options, *, work_dir):
        return answer(subject)

    monkeypatch.setattr(brainnrds.analyses.encode, "encode_participant", encode)


def _fail(error):
    def answer(subject):
        raise error

    return answer


def test_what_cannot_be_written_is_no_crash(bids_dir, tmp_path, monkeypatch, capsys):
    _answer(monkeypatch, _fail(OSError(5, "Cannot write work/a.h5: Input/output error")))
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01"]
    assert cli.main([*arguments, "-w", str(tmp_path / "w")]) == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == "brainnrds: Cannot write work/a.h5: Input/output error\n"


class OutOfMemoryError(RuntimeError):
    """As torch calls a GPU's."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            MemoryError("Unable to allocate 74.5 GiB"),
            "Not enough memory: Unable to allocate 74.5 GiB",
        ),
        (OutOfMemoryError("CUDA out of memory"), "Not enough memory: CUDA out of memory"),
        (ImportError("X needs y: pip install y"), "X needs y: pip install y"),
    ],
)
def test_what_the_user_can_mend_is_no_crash(bids_dir, tmp_path, monkeypatch, capsys, error, line):
    _answer(monkeypatch, _fail(error))
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01"]
    assert cli.main([*arguments, "-w", str(tmp_path / "w")]) == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == f"brainnrds: {line}\n"
    assert not (tmp_path / "out" / "logs").exists()


def test_a_bug_is_a_crash_with_its_file(bids_dir, tmp_path, monkeypatch, capsys):
    """An error of ours that NumPy reports as a ValueError is not the user's fault."""
    _answer(monkeypatch, _fail(ValueError("operands could not be broadcast")))
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01"]
    assert cli.main([*arguments, "-w", str(tmp_path / "w")]) == cli.EXIT_CRASH
    (crash,) = (tmp_path / "out" / "logs").iterdir()
    assert "operands could not be broadcast" in crash.read_text()
    assert str(crash) in capsys.readouterr().err


def test_a_crash_file_that_cannot_be_written_is_printed(bids_dir, tmp_path, monkeypatch, capsys):
    def crash(subject):
        (tmp_path / "out").write_text("a file in the way")
        raise RuntimeError("planted")

    _answer(monkeypatch, crash)
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--participant-label", "01"]
    assert cli.main([*arguments, "-w", str(tmp_path / "w")]) == cli.EXIT_CRASH
    told = capsys.readouterr().err
    assert "Traceback" in told and "it could not be written" in told.splitlines()[-1]


def test_one_refused_participant_does_not_stop_the_others(bids_dir, tmp_path, monkeypatch, capsys):
    (bids_dir / "sub-02").mkdir()

    def answer(subject):
        if subject == "01":
            raise InputError("of 01")
        table = pd.DataFrame({"model": ["video", "a"], "n_voxels": pd.array([3, None], "Int64")})
        return Bunch(report="page.html", table=table, told=[table], note=None)

    _answer(monkeypatch, answer)
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")]
    assert cli.main([*arguments, "--participant-label", "01", "02"]) == cli.EXIT_BAD_INPUT
    told = capsys.readouterr()
    assert told.err == "brainnrds: of 01\n"
    assert "sub-02" in told.out and "report: page.html" in told.out and "NA" not in told.out
    assert cli.main([*arguments, "--participant-label", "01", "02", "--stop-on-first-crash"]) == 2
    assert "sub-02" not in capsys.readouterr().out


def test_interrupted_and_broken_pipes_are_no_crash(bids_dir, tmp_path, monkeypatch, capsys):
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")]
    arguments += ["--participant-label", "01"]
    monkeypatch.setattr(cli, "_participants", lambda *given: _fail(KeyboardInterrupt())(None))
    assert cli.main(arguments) == cli.EXIT_INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    stdout = sys.stdout
    monkeypatch.undo()
    gone = _fail(BrokenPipeError())
    monkeypatch.setattr(cli, "_function", lambda *names: lambda *given, **more: gone(None))
    try:
        assert cli.main(arguments) == cli.EXIT_CRASH
    finally:
        sys.stdout = stdout
    assert "standard output was closed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reanimate_takes_the_options_of_decode():
    assert set(flags(DecodeOptions)) <= set(flags(ReanimateOptions))
    assert not set(flags(EncodeOptions)) <= set(flags(ReanimateOptions))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"MPLBACKEND": "nonsense"}, ""),
        ({"OMP_NUM_THREADS": "x"}, "OMP_NUM_THREADS must be a number of threads; got 'x'"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS must be a number of threads; got '0'"),
        ({"HOME": "/dev/null/closed"}, ""),
    ],
)
def test_an_environment_that_cannot_be_is_settled(changes, told):
    look = (
        "import brainnrds.cli, matplotlib, bids, os; "
        "print(matplotlib.get_backend(), os.environ.get('OMP_NUM_THREADS'), os.environ['HOME'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", look],
        env={**os.environ, "OMP_NUM_THREADS": "1", **changes},
        capture_output=True,
        text=True,
    )
    backend, threads, home = done.stdout.split()
    assert backend == "agg" and told in done.stderr
    assert threads == ("None" if "OMP_NUM_THREADS" in changes else "1")
    assert (home == "/nonexistent") == ("HOME" in changes)


def test_arguments_that_are_not_utf8_are_refused(bids_dir, capsys):
    name = os.fsdecode(b"out-\xff")
    assert cli.main([str(bids_dir), name, "participant"]) == cli.EXIT_BAD_INPUT
    assert "Arguments must be UTF-8" in capsys.readouterr().err


def test_reports_of_nothing_are_refused(bids_dir, tmp_path, capsys):
    arguments = [str(bids_dir), str(tmp_path / "out"), "participant", "--reports-only"]
    assert cli.main(arguments) == cli.EXIT_BAD_INPUT
    assert "No outputs to report" in capsys.readouterr().err


def test_readers_parameters_are_told_as_they_are_typed(capsys):
    error = InputError("`film_groups` must match every film and `bids_filter` the BOLD;\n got `n`.")
    assert cli._refuse(error) == cli.EXIT_BAD_INPUT
    told = "--film-groups must match every film and --bids-filter-file the BOLD; got `n`."
    assert capsys.readouterr().err == f"brainnrds: {told}\n"
