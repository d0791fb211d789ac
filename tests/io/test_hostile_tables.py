"""Whatever events, film tables and filters say: films within their scans, or one line."""

import json
import math
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bids import FILM_SECONDS, N_VOLUMES, T_R, make_tree

import brainnrds.io as io
from brainnrds.io.film_table import read_film_table

SCAN = N_VOLUMES * T_R
HOSTILE = settings(
    derandomize=True,
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_TIMES = st.one_of(
    st.floats(-20, 120).map(lambda value: f"{value:.3g}"),
    st.sampled_from(["6", "40", "20", "n/a", "nan", "inf", "-inf", "1e300", "-1e9", "1e-9", "0"]),
    st.sampled_from(["", "soon", "True", "0x4", "1,5", "4+1j", "9" * 400, "6 s", "１２"]),
)
_FILMS = st.one_of(
    st.sampled_from(["a.mp4", "b.mp4", "clips/c.mp4", "n/a", "", "none.mp4", "picture.png"]),
    st.sampled_from(["../a.mp4", "/etc/passwd.mp4", "a.mp4/..", "file:///a.mp4", ".mp4"]),
    st.text(max_size=12).map(lambda name: f"{name}.mp4"),
)
_HEADERS = st.sampled_from(
    [
        ["onset", "duration", "stim_file"],
        ["onset", "duration", "stim_file", "film_start"],
        ["onset", "duration", "stim_file", "film_group"],
        ["duration", "stim_file"],
        ["onset", "stim_file", "duration", "onset"],
        ["Onset", "duration", "stim_file"],
    ]
)
_CELLS = {"stim_file": _FILMS, "film_group": st.text(max_size=6)}


@st.composite
def tables(draw, headers=_HEADERS, cells=_CELLS, other=_TIMES):
    """Text of a table of a few rows; some rows are longer or shorter than the header."""
    header = draw(headers)
    lines = ["\t".join(header)]
    for _ in range(draw(st.integers(0, 4))):
        row = [draw(cells.get(name, other)) for name in header]
        if draw(st.integers(0, 15)) == 0:
            row = row[:-1] if draw(st.booleans()) else [*row, "1"]
        lines.append("\t".join(row))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + "\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("hostile"))


def found(tree, **options):
    """Runs, or None where one line says why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return io.find_runs(tree.bids_dir, **options)
        except io.InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 5000
            return None


def check_films(runs, tree):
    """Films are files of the data set, and lie in the scan and in themselves."""
    for run in runs:
        for film in run.films:
            assert film.stim_file.resolve().is_relative_to(tree.bids_dir.resolve() / "stimuli")
            numbers = film.onset, film.duration, film.film_start
            assert all(math.isfinite(number) for number in numbers)
            assert film.duration > 0 and film.onset >= -T_R
            assert film.onset < SCAN and film.film_start >= 0
            assert film.film_start + film.duration <= FILM_SECONDS + 0.5


@HOSTILE
@given(text=tables())
def test_any_events_give_films_within_the_scan_or_one_line(tree, text):
    path = tree.events("1")
    before = path.read_bytes()
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
        check_films(found(tree) or [], tree)
    finally:
        path.write_bytes(before)


@HOSTILE
@given(
    text=tables(
        headers=st.sampled_from(
            [
                ["task", "run", "onset", "duration", "stim_file"],
                ["run", "stim_file", "film_start"],
                ["trial_type", "stim_file"],
                ["subject", "run", "onset", "stim_file", "duration"],
                ["stim_file"],
                ["run", "onset"],
            ]
        ),
        cells={
            "stim_file": _FILMS,
            "run": st.sampled_from(["1", "2", "01", "run-1", "n/a", "x y", "-1", ""]),
            "task": st.sampled_from(["movie", "task-movie", "rest", "n/a", "*"]),
            "subject": st.sampled_from(["01", "sub-01", "n/a", "../01"]),
            "trial_type": st.text(max_size=4),
        },
    )
)
def test_any_film_table_is_read_or_refused_in_one_line(tree, tmp_path, text):
    path = tmp_path / "films.tsv"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        read_film_table(path)
    except io.InputError as error:
        assert "\n" not in str(error)
        assert found(tree, films=path) is None
    else:
        check_films(found(tree, films=path) or [], tree)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@HOSTILE
@given(
    content=st.one_of(
        _JSON,
        st.dictionaries(
            st.sampled_from(["bold", "events", "Bold", "mask"]),
            st.dictionaries(st.sampled_from(["run", "space", "acquisition", "x"]), _JSON),
        ),
    )
)
def test_any_filter_selects_runs_or_is_refused(tree, tmp_path, content):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps(content))
    runs = found(tree, bids_filter=path)
    assert runs is None or {run.run for run in runs} <= {"1", "2"}
