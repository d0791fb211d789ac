"""Which clips are held out while the decoder trains."""

import numpy as np
import pytest

from brainnrds.decoding._inputs import split_groups


def apart(runs, train, validation):
    """Volumes between training and validation in the same run, at the nearest."""
    same = runs[train][:, None] == runs[validation]
    return np.where(same, np.abs(train[:, None] - validation), len(runs)).min()


@pytest.mark.parametrize("seed", range(5))
def test_film_groups_are_never_split(seed):
    runs = np.repeat(np.arange(10), 20)
    films = np.repeat([0, 1, 2, 3, 4, 4, 3, 5, 6, 7], 20)  # two are shown twice
    shown = np.arange(200) % 7 > 0
    train, validation = split_groups(runs, films, shown, 0.2, np.random.RandomState(seed), gap=4)
    assert not set(films[train]) & set(films[validation])
    assert len(np.unique(films[validation])) == 2
    assert sorted([*train, *validation]) == np.flatnonzero(shown).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_films_of_one_run_are_held_out_with_gaps(seed):
    runs, films = np.zeros(200, dtype=int), np.repeat(np.arange(10), 20)
    shown = np.arange(200) % 7 > 0
    train, validation = split_groups(runs, films, shown, 0.2, np.random.RandomState(seed), gap=4)
    assert len(np.unique(films[validation])) == 2
    assert not set(films[train]) & set(films[validation])
    assert apart(runs, train, validation) > 4
    assert shown[train].all() and shown[validation].all()


@pytest.mark.parametrize("n_runs", [1, 3])
def test_of_one_film_the_same_stretch_of_all_showings_is_held_out(n_runs):
    runs, place = np.repeat(np.arange(n_runs), 100), np.tile(np.arange(100), n_runs)
    films, shown = np.zeros(100 * n_runs, dtype=int), place % 9 > 0
    train, validation = split_groups(runs, films, shown, 0.2, np.random.RandomState(0), gap=4)
    held_out = np.unique(place[validation])
    assert np.ptp(held_out) < 20 and 15 <= len(held_out) <= 20
    assert apart(runs, train, validation) > 4
    assert not set(place[train]) & set(held_out)


def test_few_clips_of_one_film_all_train():
    runs = films = np.zeros(30, dtype=int)
    shown = np.ones(30, dtype=bool)
    for share, gap in ((0.1, 4), (0, 0)):
        train, validation = split_groups(
            runs, films, shown, share, np.random.RandomState(0), gap=gap
        )
        assert len(train) == 30 and not len(validation)
