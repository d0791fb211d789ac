"""A film table names films where events.tsv does not, and corrects it where it does."""

import re
import shlex
import warnings

import numpy as np
import pandas as pd
import pytest
from tiny_bids import (
    FILM_SECONDS,
    N_VOLUMES,
    T_R,
    film_content,
    make_tree,
    n_voxels,
    write_bold,
    write_json,
)

import brainnrds.io as io
from brainnrds.analyses import Selection
from brainnrds.analyses.extract import movie_features
from brainnrds.analyses.record import Record
from brainnrds.cli import main_validate
from brainnrds.features import Luminance
from brainnrds.films import film_folds
from brainnrds.io import write_clip
from brainnrds.io.film_parts import cut_only_film

SCAN = N_VOLUMES * T_R


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path, subjects=("01", "02"))


@pytest.fixture
def nameless(tree):
    """Events with titles, as many data sets have them: no stim_file."""
    for subject in ("01", "02"):
        for run, titles in (("1", "ab"), ("2", "ac")):
            # the second person saw everything a second later
            later = float(subject == "02")
            rows = {
                "onset": [6.0 + later, 30.0, 40.0 + later],
                "duration": [FILM_SECONDS, 2.0, FILM_SECONDS],
                "title": [titles[0], "rest", titles[1]],
            }
            pd.DataFrame(rows).to_csv(tree.events(run, subject), sep="\t", index=False)
    (tree.bids_dir / "stimuli" / "clips" / "c.mp4").rename(tree.bids_dir / "stimuli" / "c.mp4")
    return tree


def write(path, text):
    """A table with blanks for tabs."""
    lines = [line.split() for line in text.strip().splitlines()]
    path.write_text("\n".join("\t".join(cells) for cells in lines) + "\n")
    return path


def shown(runs):
    return {
        (run.subject, run.run): [(f.film, f.onset, round(f.duration, 6)) for f in run.films]
        for run in runs
    }


def refused(match, bids_dir, films, **arguments):
    with pytest.raises(io.InputError, match=match) as error:
        io.find_runs(bids_dir, films=films, **arguments)
    assert "\n" not in str(error.value)


def quietly(bids_dir, films, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return io.find_runs(bids_dir, films=films, **arguments)


TITLES = """
    title stim_file
    a     a.mp4
    b     b.mp4
    c     c.mp4
"""


def test_one_line_per_title(nameless, tmp_path):
    """Times are the events' own, person by person; a path and a DataFrame say the same."""
    films = write(tmp_path / "films.tsv", TITLES)
    with pytest.warns(UserWarning, match=r"4 events match no row of .*films.tsv .*: title rest"):
        runs = io.find_runs(nameless.bids_dir, films=films)
    assert shown(runs) == {
        (subject, run): [("a.mp4", 6.0 + later, 20.0), (second, 40.0 + later, 20.0)]
        for subject, later in (("01", 0.0), ("02", 1.0))
        for run, second in (("1", "b.mp4"), ("2", "c.mp4"))
    }
    assert runs[0].events == nameless.events("1")
    with pytest.warns(UserWarning, match="title rest"):
        again = io.find_runs(nameless.bids_dir, films=pd.read_csv(films, sep="\t"))
    assert again == runs


def test_one_line_per_run_without_events(tree, tmp_path):
    """Without a time a film begins with the run and lasts as long as it can."""
    for path in tree.bids_dir.rglob("*_events.tsv"):
        path.unlink()
    films = write(tmp_path / "films.tsv", "run stim_file\n01 a.mp4\nrun-2 b.mp4")
    runs = quietly(tree.bids_dir, films)
    assert [run.events for run in runs] == [None] * 4
    assert shown(runs)["02", "2"] == [("b.mp4", 0.0, FILM_SECONDS)]
    late = {"run": [1, None], "onset": [SCAN - 8, 3], "stim_file": ["a.mp4", "b.mp4"]}
    assert shown(quietly(tree.bids_dir, pd.DataFrame(late), run=1))["01", "1"] == [
        ("b.mp4", 3.0, FILM_SECONDS),
        ("a.mp4", SCAN - 8, 8.0),
    ]
    data = io.load_runs(tree.bids_dir, subject="01", films=films, confounds=())
    assert data.film_names == ["a.mp4", "b.mp4"]


def test_a_row_corrects_one_run_and_leaves_the_others(tree, tmp_path):
    before = shown(io.find_runs(tree.bids_dir))
    films = write(
        tmp_path / "films.tsv",
        "subject run onset duration stim_file\nsub-02 2 8 15 a.mp4\nsub-02 2 41 n/a b.mp4",
    )
    after = shown(quietly(tree.bids_dir, films))
    assert after.pop(("02", "2")) == [("a.mp4", 8.0, 15.0), ("b.mp4", 41.0, FILM_SECONDS)]
    del before["02", "2"]
    assert after == before
    # who is not asked for is not missed
    assert shown(quietly(tree.bids_dir, films, subject="01"))["01", "2"] == before["01", "2"]


def test_the_only_event_of_a_run_needs_no_column(tree, tmp_path):
    for path in tree.bids_dir.rglob("*_events.tsv"):
        path.write_text("onset\tduration\n7.5\t12\n")
    films = write(tmp_path / "films.tsv", "task stim_file\nmovie a.mp4")
    assert set(map(tuple, shown(quietly(tree.bids_dir, films)).values())) == {
        (("a.mp4", 7.5, 12.0),)
    }
    tree.events("1").write_text("onset\tduration\n7.5\t12\n30\t12\n")
    refused(r"Row 2 of .* must give an onset or select an event .* has 2", tree.bids_dir, films)


def test_values_of_events_are_compared_as_text_or_numbers(tree, tmp_path):
    for path in tree.bids_dir.rglob("*_events.tsv"):
        path.write_text("onset\tduration\tcode\n6\t20\t1.0\n40\t20\tn/a\n")
    films = pd.DataFrame({"code": [1], "stim_file": ["a.mp4"]})
    with pytest.warns(UserWarning, match=r"4 events match no row of films .* code n/a \(4\)"):
        runs = io.find_runs(tree.bids_dir, films=films)
    assert shown(runs)["01", "1"] == [("a.mp4", 6.0, 20.0)]


def test_rows_that_match_nothing_are_listed(nameless, tmp_path):
    films = write(
        tmp_path / "films.tsv",
        "task subject title stim_file\nmovie n/a a a.mp4\nmovie n/a d b.mp4\nrest n/a n/a c.mp4\n"
        "movie 02 e b.mp4",
    )
    match = r"2 rows of .* match no run or event: 3 \(task-movie, title d, b.mp4\), 4 \(task-rest"
    with pytest.warns(UserWarning, match=match):
        io.find_runs(nameless.bids_dir, films=films, subject="01")
    other = write(tmp_path / "other.tsv", "task stim_file\nrest c.mp4")
    refused(
        "No row of .*other.tsv matches a run or its events: there are", nameless.bids_dir, other
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("title film\na a.mp4", "must have a column stim_file; got title, film"),
        ("title stim_file", "must have at least one row"),
        ("remark stim_file\nx a.mp4", "Columns of .* or columns of events.tsv; got remark"),
        ("title stim_file\na a.wav", r"Row 2 of .* must name a film in stim_file, .* 'a.wav'"),
        ("title onset stim_file\na soon a.mp4", "Row 2 .* a number or n/a in column onset.*'soon'"),
        ("title duration stim_file\na nan a.mp4", "Row 2 .* in column duration; got 'nan'"),
        ("run stim_file\n1_2 a.mp4", "Row 2 .* a run label has letters and digits only"),
        ("title stim_file\na a.mp4\na b.mp4", "Rows 2 and 3 .* contradict .* a.mp4 and b.mp4"),
        ("title stim_file\na x.mp4", "Film not found: .*x.mp4; films.tsv names it"),
        ("title onset stim_file\nrest 100 a.mp4", "No film was scanned: a.mp4 at 100 s"),
        ("title duration stim_file\na 50 a.mp4", "shorter than films.tsv says: .* expected 50.00"),
    ],
)
def test_tables_that_cannot_be(nameless, tmp_path, text, match):
    refused(match, nameless.bids_dir, write(tmp_path / "films.tsv", text))


def test_tables_that_are_no_tables(tree, tmp_path):
    refused("Film table not found", tree.bids_dir, tmp_path / "none.tsv")
    refused("must be the path of a film table, or a DataFrame; got 3", tree.bids_dir, 3)
    (tmp_path / "films.tsv").write_text("run\tonset\tstim_file\n1\t\ta.mp4\n")
    refused("Row 2 .* must be filled in: onset is empty", tree.bids_dir, tmp_path / "films.tsv")


def test_two_rows_for_one_event(nameless, tmp_path):
    films = write(tmp_path / "films.tsv", "run title stim_file\n1 a a.mp4\nn/a a b.mp4")
    refused(r"Rows 2 and 3 .* both name a film for an event at 6.0 s", nameless.bids_dir, films)
    films = write(tmp_path / "films.tsv", "title onset stim_file\na 3 a.mp4")
    events = pd.read_csv(nameless.events("1"), sep="\t").assign(title="a")
    events.to_csv(nameless.events("1"), sep="\t", index=False)
    refused("gives one onset for 3 events of", nameless.bids_dir, films)
    films = write(tmp_path / "films.tsv", "title stim_file\na a.mp4")
    events.assign(onset=["1", "n/a", "2"]).to_csv(nameless.events("1"), sep="\t", index=False)
    refused(
        "must have a number in column onset for every film; got 'n/a'", nameless.bids_dir, films
    )


def test_events_that_are_named_otherwise(nameless, tmp_path):
    for subject in ("01", "02"):
        for run in ("1", "2"):
            path = nameless.events(run, subject)
            path.rename(path.with_name(f"sub-{subject}_task-scan_acq-movie{run}_events.tsv"))
    name = "sub-{subject}_task-scan_acq-{task}{run}_events.tsv"
    films = pd.DataFrame({"events": [name] * 3, "title": list("abc")})
    films["stim_file"] = films["title"] + ".mp4"
    with pytest.warns(UserWarning, match="title rest"):
        runs = io.find_runs(nameless.bids_dir, films=films)
    assert shown(runs)["02", "2"] == [("a.mp4", 7.0, 20.0), ("c.mp4", 41.0, 20.0)]
    for wrong, match in (
        ("{session}_events.tsv", "with labels of the run in braces; got '{session}_events.tsv'"),
        ("../x_events.tsv", "must name a file in column events, which ends in _events.tsv"),
        ("other_events.tsv", "Columns of films must be .* or columns of events.tsv; got title"),
    ):
        refused(match, nameless.bids_dir, films.assign(events=wrong))
    films["events"] = ["x_events.tsv", "y_events.tsv", "x_events.tsv"]
    refused("they name the events x_events.tsv and y_events.tsv", nameless.bids_dir, films)


def test_a_folder_of_films_that_the_user_names(tree, tmp_path):
    """Its links lead where they like; names do not leave it."""
    elsewhere, films = tmp_path / "disk", tmp_path / "films"
    elsewhere.mkdir()
    films.mkdir()
    (elsewhere / "first.mp4").write_bytes(film_content(5))
    (films / "a.mp4").symlink_to(elsewhere / "first.mp4")
    table = pd.DataFrame({"onset": [6], "stim_file": ["a.mp4"]})
    runs = quietly(tree.bids_dir, table, stimuli=films)
    assert {film.stim_file for run in runs for film in run.films} == {films / "a.mp4"}
    (tree.bids_dir / "stimuli" / "a.mp4").unlink()
    (tree.bids_dir / "stimuli" / "a.mp4").symlink_to(elsewhere / "first.mp4")
    refused("stim_file must lie in", tree.bids_dir, table)
    table["stim_file"] = ["../disk/first.mp4"]
    refused("stim_file must lie in", tree.bids_dir, table, stimuli=films)
    refused("No such directory: .*none", tree.bids_dir, table, stimuli=tmp_path / "none")
    (tree.bids_dir / "stimuli").rename(tmp_path / "elsewhere")
    refused("say with `stimuli` in which folder the films lie", tree.bids_dir, None)


def test_films_of_a_submodule(tree):
    """git keeps a submodule's annex in the data set around it."""
    stimuli = tree.bids_dir / "stimuli"
    objects = tree.bids_dir / ".git" / "modules" / "stimuli" / "annex" / "objects" / "X"
    objects.mkdir(parents=True)
    (stimuli / "a.mp4").rename(objects / "a.mp4")
    (stimuli / ".git").symlink_to("../.git/modules/stimuli")
    (stimuli / "a.mp4").symlink_to(".git/annex/objects/X/a.mp4")
    assert len(quietly(tree.bids_dir, None)) == 4


def test_what_is_shown_when_is_in_the_key(tree, tmp_path):
    """Another onset in the table is another analysis; another name of the table is not."""

    def key(text, name="films.tsv"):
        films = write(tmp_path / name, text)
        selection = Selection(bids_dir=tree.bids_dir, films=films)
        return Record.of_participant("encode", selection, tmp_path / "out", "01").data_key

    first = key("onset stim_file\n6 a.mp4")
    assert key("onset stim_file\n6.0 a.mp4", "other.tsv") == first
    assert key("onset stim_file\n6.5 a.mp4") != first
    assert key("onset duration stim_file\n6 19 a.mp4") != first


def test_on_the_command_line(nameless, tmp_path, capsys):
    films = write(tmp_path / "films.tsv", TITLES)
    assert main_validate([str(nameless.bids_dir)]) == 2
    assert "a film table can name films" in capsys.readouterr().err
    assert main_validate([str(nameless.bids_dir), "--films", str(films)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"task-movie_run-2 .*a.mp4 \(6 \+ 20\); c.mp4 \(40 \+ 20\)", text)
    assert "4 events match no row" in text
    write_json(films, {})
    assert main_validate([str(nameless.bids_dir), "--films", str(films)]) == 2


def test_a_draft_needs_films_alone(nameless, tmp_path, capsys):
    """One row per title, per task, or per run: filled in, it is a film table."""
    path = tmp_path / "films.tsv"
    assert main_validate([str(nameless.bids_dir), "--write-films", str(path)]) == 0
    assert "4 rows. Fill in what is empty" in capsys.readouterr().out
    assert path.read_text() == "title\tstim_file\na\t\nrest\t\nb\t\nc\t\n"
    refused("Row 2 .* must be filled in: stim_file is empty", nameless.bids_dir, path)
    assert main_validate([str(nameless.bids_dir), "--write-films", str(path)]) == 2
    assert "--write-films must name a new file" in capsys.readouterr().err
    draft = io.draft_film_table(nameless.bids_dir)
    draft = draft[draft["title"] != "rest"].assign(stim_file=lambda d: d["title"] + ".mp4")
    with pytest.warns(UserWarning, match="title rest"):
        assert len(io.find_runs(nameless.bids_dir, films=draft)) == 4
    # a column that calls all of them alike has no titles, wherever it stands
    for file in nameless.bids_dir.rglob("*_events.tsv"):
        table = pd.read_csv(file, sep="\t")
        table.insert(2, "trial_type", "film")
        table.to_csv(file, sep="\t", index=False)
    assert list(io.draft_film_table(nameless.bids_dir)["title"]) == ["a", "rest", "b", "c"]
    # several events without titles: an onset is asked for
    for file in nameless.bids_dir.rglob("*_events.tsv"):
        rows = "6\t20\n" if "run-1" in file.name else "6\t20\n40\t20\n"
        file.write_text("onset\tduration\n" + rows)
    draft = io.draft_film_table(nameless.bids_dir, subject="01")
    assert draft.to_dict("list") == {
        "task": ["movie"] * 2, "run": ["1", "2"], "onset": ["n/a", ""], "stim_file": ["", ""],
    }  # fmt: skip
    for file in nameless.bids_dir.rglob("*_events.tsv"):
        file.unlink()
    draft = io.draft_film_table(nameless.bids_dir, subject="01")
    assert draft.to_dict("list") == {
        "task": ["movie"] * 2, "run": ["1", "2"], "onset": ["", ""], "stim_file": ["", ""],
    }  # fmt: skip


# BIDS' extension proposal for stimuli ------------------------------------------------------------


@pytest.fixture
def by_stim_id(nameless):
    """Films and events as BEP044 has them; a picture between the films is no film."""
    stimuli = nameless.bids_dir / "stimuli"
    for letter, kind in (("a", "video"), ("b", "audiovideo"), ("c", "video")):
        folder = stimuli / ("more" if letter == "c" else "")
        folder.mkdir(exist_ok=True)
        (stimuli / f"{letter}.mp4").rename(folder / f"stim-{letter}_{kind}.mp4")
    for path in nameless.bids_dir.rglob("*_events.tsv"):
        events = pd.read_csv(path, sep="\t").rename(columns={"title": "stim_id"})
        events["stim_id"] = "stim-" + events["stim_id"]
        events.to_csv(path, sep="\t", index=False)
    write(
        stimuli / "stimuli.tsv",
        "stimulus_id type\nstim-a video\nstim-rest image\nstim-b audiovideo\nstim-c video\n"
        "stim-unused video",
    )
    return nameless


def test_events_that_name_stimuli_by_their_id(by_stim_id):
    runs = io.find_runs(by_stim_id.bids_dir, subject="01")
    a, b, c = "stim-a_video.mp4", "stim-b_audiovideo.mp4", "more/stim-c_video.mp4"
    assert shown(runs) == {
        ("01", "1"): [(a, 6.0, FILM_SECONDS), (b, 40.0, FILM_SECONDS)],
        ("01", "2"): [(a, 6.0, FILM_SECONDS), (c, 40.0, FILM_SECONDS)],
    }
    # a film table of one's own comes first
    films = pd.DataFrame({"stim_id": ["stim-b"], "stim_file": [a]})
    with pytest.warns(UserWarning, match="match no row"):
        [run, _] = io.find_runs(by_stim_id.bids_dir, subject="01", films=films)
    assert [film.film for film in run.films] == [a]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: (d / "stim-b_audiovideo.mp4").unlink(),
            "stim-b_audiovideo.mp4.*stimuli.tsv nam",
        ),
        (
            lambda d: write(d / "stimuli.tsv", "name type\nstim-a video"),
            "have a column stimulus_id",
        ),
        (
            lambda d: (d / "stim-a_part-1_video.mp4").write_bytes(b""),
            "stim-a_part-1_video.mp4 and stim-a_video.mp4 must not be one stimulus",
        ),
        (lambda d: (d / "stimuli.tsv").unlink(), "have a column stim_file|in a column stim_file"),
    ],
)
def test_stimuli_that_cannot_be(by_stim_id, change, message):
    change(by_stim_id.bids_dir / "stimuli")
    refused(message, by_stim_id.bids_dir, None)


def test_the_command_that_is_told_drafts_the_table(nameless, tmp_path, monkeypatch):
    """What a refusal says can be pasted, and drafts the table for the same data."""
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "my derivatives"
    nameless.derivatives.rename(moved)
    with pytest.raises(io.InputError) as error:
        io.find_runs(nameless.bids_dir, derivatives=moved, space="fsaverage5")
    program, *words = shlex.split(re.search("`(.*)`", str(error.value))[1])
    assert program == "brainnrds-validate" and main_validate(words) == 0
    assert (tmp_path / "films.tsv").read_text().startswith("title\tstim_file\na\t\n")


# parts of films: a film of impulses of light, and BOLD that shows them when they were shown

LONG_FILM = 130.0
_RANDOM = np.random.default_rng(3)
IMPULSES = np.cumsum(_RANDOM.uniform(1.5, 5.0, 45))


def light(seconds):
    """Luminance of the film of impulses."""
    apart = np.asarray(seconds)[..., None] - IMPULSES
    return 0.1 + 0.6 * np.exp(-0.5 * (apart / 0.4) ** 2).max(axis=-1)


def seen(film_times):
    """Mean luminance over a repetition time."""
    return light(np.asarray(film_times)[:, None] + np.linspace(0, T_R, 41)[:-1]).mean(axis=1)


@pytest.fixture(scope="module")
def film_of_impulses(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "long.mp4"
    brightness = light((np.arange(round(LONG_FILM * 10)) + 0.5) / 10)
    shape = len(brightness), 3, 24, 32
    write_clip(path, np.broadcast_to(brightness[:, None, None, None], shape), fps=10)
    return path


# (run, onset, duration, film_start) as they were shown
ARRANGEMENTS = {
    "one film over two runs": [("1", 6.3, 55.0, 0.0), ("2", 9.9, 55.0, 55.0)],
    "several parts in a run": [("1", 5.1, 25.0, 10.0), ("1", 40.7, 30.0, 70.0)],
    "parts back to back, the second first": [("1", 4.0, 30.0, 60.4), ("1", 34.0, 30.0, 5.0)],
    "parts that overlap between runs": [("1", 5.5, 60.0, 0.0), ("2", 7.2, 60.0, 48.0)],
    "a part shown twice": [("1", 5.5, 40.0, 33.3), ("2", 7.5, 40.0, 33.3)],
    "a film and a part of it": [("1", 3.0, 80.0, 0.0), ("2", 7.2, 40.0, 30.0)],
}


def show(root, film, rows):
    """A data set without events, BOLD that follows the film's light, and its film table."""
    tree = make_tree(root, runs={run: [] for run in sorted({row[0] for row in rows})})
    for path in tree.bids_dir.rglob("*_events.tsv"):
        path.unlink()
    (tree.bids_dir / "stimuli").mkdir()
    (tree.bids_dir / "stimuli" / "long.mp4").symlink_to(film)
    times = np.arange(N_VOLUMES) * T_R
    for run in {row[0] for row in rows}:
        values = np.full(N_VOLUMES, light(-9.0))
        for _, onset, duration, start in (row for row in rows if row[0] == run):
            on = (times >= onset) & (times < onset + duration)
            values[on] = seen(times[on] - onset + start)
        series = 1000 + 100 * values[:, None] * np.ones(n_voxels("fsaverage5"))
        stem = f"sub-01_task-movie_run-{run}"
        write_bold(tree.derivatives / "sub-01" / "func", stem, "fsaverage5", series)
    table = pd.DataFrame(rows, columns=["run", "onset", "duration", "film_start"])
    return tree, table.assign(stim_file="long.mp4")


def loaded(tree, table, **options):
    how = {"confounds": (), "trim_onset": 0.0, "stimuli": tree.bids_dir / "stimuli", **options}
    return io.load_runs(tree.bids_dir, films=table, **how)


def lag(data):
    """Seconds by which film times are late, from BOLD alone; runs have scales of their own."""
    shifts = np.arange(-4.0, 4.01, 0.05)
    agreement = np.zeros(len(shifts))
    for run in np.unique(data.presentations):
        rows = (data.presentations == run) & (data.on_screen >= 0)
        for i, shift in enumerate(shifts):
            agreement[i] += np.corrcoef(seen(data.film_times[rows] + shift), data.bold[rows, 0])[
                0, 1
            ]
    return shifts[agreement.argmax()], agreement.max() / len(np.unique(data.presentations))


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_an_impulse_is_found_where_the_film_has_it(film_of_impulses, tmp_path, name):
    """In film time to 0.1 s, and in the features; with a table off by a volume it is not."""
    tree, table = show(tmp_path, film_of_impulses, ARRANGEMENTS[name])
    data = loaded(tree, table, repeats="concatenate")
    late, agreement = lag(data)
    assert abs(late) < 0.1 and agreement > 0.9  # a linear trend was removed
    X, _ = movie_features(data, {"light": Luminance()}, store_dir=tmp_path / "f", progress=False)
    for run in np.unique(data.presentations):
        rows = (data.presentations == run) & (data.on_screen >= 0)
        # the last clip of a part ends with it
        rows &= data.film_times < data.film_times[rows].max() - T_R
        shown = seen(data.film_times[rows])
        assert np.corrcoef(X[rows, 0], shown)[0, 1] > 0.99
    # features are computed once per film time
    assert len(list((tmp_path / "f").rglob("*.h5"))) == 1
    wrong = table.assign(film_start=(table["film_start"] + T_R), duration=table["duration"] - T_R)
    late, _ = lag(loaded(tree, wrong, repeats="concatenate"))
    assert abs(late + T_R) < 0.1


def test_repeats_are_found_by_film_time(film_of_impulses, tmp_path):
    """A part that begins alike is a repeat; what two parts share counts once."""
    tree, table = show(tmp_path, film_of_impulses, ARRANGEMENTS["a part shown twice"])
    data = loaded(tree, table)
    assert data.film_names == ["long.mp4#t=33.3"] and data.film_starts == [33.3]
    assert set(data.n_repeats[data.on_screen >= 0]) == {2}
    assert data.shows("long").any() and (data.shows("long.mp4") == data.shows("long")).all()


def counted(data):
    rows = (data.films >= 0) & (data.on_screen >= 0)
    return {
        data.film_names[film]: np.round(data.film_times[rows & (data.films == film)], 3)
        for film in np.unique(data.films[rows])
    }


def test_shared_footage_counts_once(film_of_impulses, tmp_path):
    tree, table = show(
        tmp_path / "1", film_of_impulses, ARRANGEMENTS["parts that overlap between runs"]
    )
    first, second = counted(loaded(tree, table)).values()
    # the first part counts, but for its trimmed onset; the second from where the first ends
    assert first.max() > 57 and second.min() >= 60
    first, second = counted(loaded(tree, table, trim_onset=10.0)).values()
    assert first.min() >= 10 and second.min() >= 60
    # a clip of a film that is shown twice has the repeats: it counts, and the film around it
    rows = [*ARRANGEMENTS["a film and a part of it"], ("3", 7.2, 40.0, 30.0)]
    tree, table = show(tmp_path / "2", film_of_impulses, rows)
    data = loaded(tree, table)
    film, clip = counted(data)["long.mp4"], counted(data)["long.mp4#t=30"]
    assert not ((film >= 30) & (film < 70)).any() and film.min() < 30 and film.max() > 70
    assert clip.min() < 32 and clip.max() > 67
    assert set(data.n_repeats[data.films == 1]) == {2}


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (
            ("1", 3.0, 20.0, 200.0),
            r"film_start of long.mp4 must lie within the film, which lasts 130",
        ),
        (("1", 3.0, 20.0, -1.0), "film_start of long.mp4 must lie within the film.* got -1.00 s"),
        (
            ("1", 3.0, 70.0, 80.0),
            r"shorter than films says: it lasts 130\.00 s, expected 150\.00 s",
        ),
    ],
)
def test_parts_beyond_the_film(film_of_impulses, tmp_path, row, match):
    tree, table = show(tmp_path, film_of_impulses, ARRANGEMENTS["a part shown twice"])
    table = pd.DataFrame([row], columns=table.columns[:4]).assign(stim_file="long.mp4")
    refused(match, tree.bids_dir, table, stimuli=tree.bids_dir / "stimuli")


@pytest.mark.parametrize("name", ["a film over one run", "parts that overlap between runs"])
def test_the_only_film_is_split_in_time(film_of_impulses, tmp_path, name):
    """Time is right in every part; 18 s lie between training and test, in runs and in the film."""
    rows = ARRANGEMENTS.get(name, [("1", 3.3, 84.0, 0.0)])
    rows = [*rows, ("3", 5.0, 80.0, 48.0)]
    tree, table = show(tmp_path, film_of_impulses, rows)
    runs = io.find_runs(tree.bids_dir, films=table, stimuli=tree.bids_dir / "stimuli")
    with pytest.warns(UserWarning, match="There is only one film, long.mp4: it is cut into parts"):
        runs = cut_only_film(runs)
    data = io.load_runs(runs, confounds=(), trim_onset=0.0)
    late, _ = lag(data)
    assert abs(late) < 0.1
    folds = film_folds(data.runs, data.groups, gap=4)
    assert len(folds) == len(np.unique(data.groups[data.films >= 0])) >= 2
    for train, test in folds:
        assert len(train) and len(test)
        showing = data.on_screen >= 0
        tested, trained = (data.film_times[rows[showing[rows]]] for rows in (test, train))
        assert np.abs(tested[:, None] - trained).min() >= 18.0
        assert not set(data.groups[test]) & set(data.groups[train])
