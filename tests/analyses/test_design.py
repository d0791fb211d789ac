"""Decisions before the computing: delays and test films."""

import pytest

from brainnrds.analyses.design import find_test_films, round_delays
from brainnrds.io import InputError


def test_delays_round_to_volumes_and_say_so():
    assert round_delays([-8.0, 0.0], 2.0) == [-4, 0]
    with pytest.warns(UserWarning, match="rounded"):
        assert round_delays([2.0, 5.0], 2.0) == [1, 2]


def test_test_films_are_found_by_name():
    films = ["a.mp4", "b.mp4"]
    assert find_test_films(None, films) is None
    assert find_test_films(["b"], films) == [1]
    with pytest.raises(InputError, match=r"a\.mp4, b\.mp4"):
        find_test_films(["c"], films)
    with pytest.raises(InputError, match="all of them"):
        find_test_films(["a", "b"], films)
