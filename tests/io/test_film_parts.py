"""Which parts of films hang together, and how the only film is cut."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from brainnrds.io import InputError, Presentation, Run
from brainnrds.io.film_parts import cut_only_film, group_parts, groups_of_films, name_parts
from brainnrds.io.samples import count_footage_once, cut_run


def runs_of(*rows, **more):
    """Runs from rows (run, file, onset, film_start, duration)."""
    runs = []
    for i in range(1 + max(row[0] for row in rows)):
        films = tuple(
            Presentation(file, Path(file), onset, duration, start, **more)
            for run, file, onset, start, duration in rows
            if run == i
        )
        about = dict.fromkeys(f for f in Run.__dataclass_fields__ if f != "films")
        runs.append(Run(**{**about, "subject": "01", "films": films}))
    return name_parts(runs)


def groups(*rows):
    runs = runs_of(*((run, file, 0.0, start, duration) for run, file, start, duration in rows))
    names = list(dict.fromkeys(part.film for run in runs for part in run.films))
    return dict(zip(names, groups_of_films(runs, names).tolist(), strict=True))


def test_parts_that_share_footage_are_never_separated():
    # parts of one film belong together, overlapping or not, where there are others
    found = groups((0, "a", 0, 60), (1, "a", 50, 60), (2, "a", 200, 60), (3, "b", 0, 60))
    assert found["a"] == found["a#t=50"] == found["a#t=200"] != found["b"]
    # all runs hang together by a film that all show: films are the groups, not their parts
    shared = [(i, "c", 0, 60) for i in range(3)]
    found = groups((0, "a", 0, 60), (1, "a", 50, 60), (2, "b", 0, 60), *shared)
    assert found["a"] == found["a#t=50"] and len(set(found.values())) == 3
    # one film alone: stretches of footage, those of a run together
    found = groups((0, "a", 0, 60), (1, "a", 50, 60), (2, "a", 110, 60), (3, "a", 169, 60))
    assert found["a"] == found["a#t=50"] != found["a#t=110"] == found["a#t=169"]
    found = groups((0, "a", 0, 60), (0, "a", 60, 60), (1, "a", 120, 60), (1, "a", 200, 60))
    assert found["a"] == found["a#t=60"] != found["a#t=120"] == found["a#t=200"]
    assert len(set(groups((0, "a", 0, 60), (0, "a", 60, 60)).values())) == 2
    assert set(groups((0, "a", 0, 60), (1, "a", 50, 60)).values()) == {0}


def test_films_are_grouped_by_their_names():
    rows = [(i, f"s0{s}e0{e}{half}.mkv", 0.0, 0.0, 60.0) for i, (s, e, half) in enumerate(
        [(1, 1, "a"), (1, 1, "b"), (1, 2, "a"), (2, 1, "a"), (2, 1, "b")]
    )]  # fmt: skip
    runs = runs_of(*rows)
    names = [row[1] for row in rows]

    def labels(pattern):
        return groups_of_films(group_parts(runs, pattern), names).tolist()

    assert labels("film") == [0, 1, 2, 3, 4]
    assert labels(r"s\d+e\d+") == [0, 0, 1, 2, 2]
    assert labels(r"s(\d+)e") == [0, 0, 0, 1, 1]
    with pytest.raises(InputError, match=r"must match the name of every film; 'e01' does not"):
        group_parts(runs, "e01")
    for wrong in ("s(", 3):
        with pytest.raises(InputError, match="must be 'film' or a regular expression"):
            group_parts(runs, wrong)


def test_groups_that_separate_shared_footage():
    rows = [(0, "a", 0.0, 0.0, 60.0), (1, "a", 0.0, 50.0, 60.0)]
    one, other = (runs_of(*rows, film_group=label) for label in ("x", "y"))
    assert group_parts(one, "film") == one
    with pytest.raises(InputError, match="separate shared footage; a is of x, a#t=50 of y"):
        group_parts([one[0], other[1]], "film")


def quietly(runs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cut_only_film(runs)


def test_the_only_film_is_cut():
    """The same parts in every run and person, whatever the onset."""
    runs = runs_of((0, "a", 3.0, 0.0, 300.0), (1, "a", 9.0, 0.04, 298.0))
    with pytest.warns(
        UserWarning, match="one film, a: it is cut into parts of 60 s, .* 18 s after"
    ):
        first, second = cut_only_film(runs)
    names = ["a", *(f"a#t={start}" for start in (60, 120, 180, 240))]
    assert [part.film for part in first.films] == names
    assert [part.film for part in second.films] == ["a#t=0.04", *names[1:]]
    assert [part.onset for part in first.films] == [3.0, 63.0, 123.0, 183.0, 243.0]
    np.testing.assert_allclose([part.onset - part.film_start for part in second.films], 8.96)
    assert sum(part.duration for part in second.films) == pytest.approx(298.0)


def test_what_is_not_cut():
    two = runs_of((0, "a", 0.0, 0.0, 300.0), (1, "b", 0.0, 0.0, 300.0))
    assert quietly(two) == two
    # parts that share nothing, in runs of their own, can be held out as they are
    apart = runs_of((0, "a", 0.0, 0.0, 300.0), (1, "a", 0.0, 300.0, 300.0))
    assert quietly(apart) == apart
    short = runs_of((0, "a", 0.0, 0.0, 119.0))
    assert quietly(short) == short


def test_what_follows_a_border_does_not_count():
    run = SimpleNamespace(
        films=[
            Presentation("a", Path("a"), 10.0, 40.0),
            Presentation("a#t=40", Path("a"), 50.0, 60.0, 40.0),
            Presentation("b", Path("b"), 110.0, 30.0),
        ],
        n_volumes=80,
        t_r=2.0,
        start_time=0.0,
    )
    names = [part.film for part in run.films]
    for trim in (0.0, 10.0):
        volumes = cut_run(run, np.ones(80, bool), names, 16.0, trim)
        first = volumes[volumes["counts"]].groupby("film")["volume"].min() * 2
        # of 100 s in two parts the onset is trimmed, of 30 s it is not
        assert first.tolist() == [10 + trim, 50 + 18, 110]


def test_rest_is_no_repeat_of_a_film_that_goes_on():
    """A showing that was cut short ends in rest, which does not count where the film went on."""
    films = [[Presentation("a", Path("a"), 10.0, duration)] for duration in (60.0, 40.0)]
    runs = [SimpleNamespace(films=f, n_volumes=60, t_r=2.0, start_time=0.0) for f in films]
    parts = [
        cut_run(run, np.ones(60, bool), ["a"], 16.0, 0.0).assign(run=i)
        for i, run in enumerate(runs)
    ]
    volumes = pd.concat(parts, ignore_index=True)
    count_footage_once(volumes, runs, ["a"])
    counted = volumes[volumes["counts"]].groupby("run")["time"].max()
    assert counted.tolist() == [60 + 16 - 2, 40 - 2]
