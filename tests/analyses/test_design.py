"""Decisions before the computing: delays, units of splits, test films."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds.analyses.design import find_test_films, fingerprint, group_of_film, round_delays
from brainnrds.io import InputError

DEFAULT = (2.0, 4.0, 6.0, 8.0)


class Shown:
    """A run of which only the films matter."""

    def __init__(self, *films):
        self.films = [type("Presentation", (), {"film": film}) for film in films]


def test_delays_round_to_volumes_and_say_so():
    assert round_delays(None, 2.0, default=DEFAULT) == ([1, 2, 3, 4], [2.0, 4.0, 6.0, 8.0])
    assert round_delays([-8.0, 0.0], 2.0, default=DEFAULT) == ([-4, 0], [-8.0, 0.0])
    with pytest.warns(UserWarning, match="rounded"):
        delays, seconds = round_delays([2.0, 5.0], 2.0, default=DEFAULT)
    assert delays == [1, 2] and seconds == [2.0, 4.0]


def test_a_changed_film_is_another_run(tmp_path):
    paths = [tmp_path / name for name in ("bold.nii.gz", "events.tsv", "film.mp4")]
    for path in paths:
        path.write_bytes(b"some")
    run = Bunch(
        bold=paths[:1],
        events=paths[1],
        confounds=None,
        mask=None,
        films=[Bunch(stim_file=paths[2])],
    )
    before = fingerprint(run)
    assert fingerprint(run) == before
    for path in paths:
        path.write_bytes(b"others")
        after = fingerprint(run)
        assert after != before
        before = after


def test_films_of_one_scanner_run_are_never_apart():
    runs = [Shown("a", "b"), Shown("c"), Shown("b", "a"), Shown("d", "c")]
    groups = group_of_film(runs, ["a", "b", "c", "d"])
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_films_are_the_units_where_everything_hangs_together():
    groups = group_of_film([Shown("a", "b"), Shown("b", "c")], ["a", "b", "c"])
    assert len(np.unique(groups)) == 3


def test_test_films_are_found_by_name():
    films = ["a.mp4", "b.mp4"]
    assert find_test_films(None, films) is None
    assert find_test_films(["b"], films) == [1]
    with pytest.raises(InputError, match=r"a\.mp4, b\.mp4"):
        find_test_films(["c"], films)
    with pytest.raises(InputError, match="all of them"):
        find_test_films(["a", "b"], films)
