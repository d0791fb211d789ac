"""Decisions before the computing: delays, units of splits, test films."""

import numpy as np
import pytest

from brainnrds.analyses.design import find_test_films, group_of_film, round_delays
from brainnrds.analyses.options import EncodeOptions
from brainnrds.io import InputError


class Shown:
    """A run of which only the films matter."""

    def __init__(self, *films):
        self.films = [type("Presentation", (), {"film": film}) for film in films]


def test_delays_round_to_volumes_and_say_so():
    defaults = EncodeOptions()
    assert round_delays(defaults.delays_seconds, 2.0, defaults) == [1, 2, 3, 4]
    assert round_delays([-8.0, 0.0], 2.0, defaults) == [-4, 0]
    with pytest.warns(UserWarning, match="rounded"):
        assert round_delays([2.0, 5.0], 2.0, defaults) == [1, 2]


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
