import numpy as np
import pytest

from brainnrds.features.delays import LATEST_RESPONSE
from brainnrds.films import BORDER_SECONDS, block_folds, film_folds, film_groups, trial_units


def labels(*runs):
    """Run and film labels from lists of (film, n_volumes), one list per run."""
    run_labels, film_labels = [], []
    for run, segments in enumerate(runs):
        for film, n_volumes in segments:
            run_labels += [run] * n_volumes
            film_labels += [film] * n_volumes
    return np.array(run_labels), np.array(film_labels)


def test_groups_are_connected_sets_of_runs():
    # 0 - 2 share film 1, 2 - 4 share film 5: one group; 1 and 3 stand alone
    runs, films = labels([(0, 3), (1, 2)], [(2, 4)], [(1, 2), (5, 3)], [(3, 4)], [(5, 1), (-1, 2)])
    groups = film_groups(runs, films)
    assert [groups[runs == run][0] for run in range(5)] == [0, 1, 0, 2, 0]
    assert all(len(np.unique(groups[runs == run])) == 1 for run in range(5))


def test_tail_volumes_connect_nothing():
    runs, films = labels([(0, 3), (-1, 2)], [(1, 3), (-1, 2)])
    assert len(np.unique(film_groups(runs, films))) == 2


@pytest.mark.parametrize("n_folds", [None, 2, 3])
def test_folds_share_no_film_and_no_run(n_folds):
    rng = np.random.default_rng(0)
    runs, films = labels(
        *[[(film, int(rng.integers(5, 20))), (-1, 2)] for film in (0, 1, 2, 0, 3, 4, 2, 5)]
    )
    folds = film_folds(runs, films, n_folds=n_folds)
    assert len(folds) == (n_folds or 6)
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested) == np.flatnonzero(films >= 0).tolist()
    for train, test in folds:
        assert not set(films[train]) & set(films[test])
        assert not set(runs[train]) & set(runs[test])
        assert len(train) + len(test) == np.sum(films >= 0)


def test_films_are_spread_evenly():
    runs, films = labels(*[[(film, n)] for film, n in enumerate((50, 10, 40, 20, 30, 30))])
    sizes = [len(test) for _, test in film_folds(runs, films, n_folds=3)]
    assert sizes == [60, 60, 60]


def test_films_of_one_run_are_split_with_a_gap():
    runs, films = labels([(0, 10), (1, 10), (-1, 2), (2, 10)])
    folds = film_folds(runs, films, gap=4)
    train, test = folds[1]
    assert test.tolist() == list(range(10, 20))
    # 4 volumes before the tested film; after it 2 without a film and 2 of the next
    assert train.tolist() == [*range(0, 6), *range(24, 32)]


def test_given_test_films_are_one_fold():
    runs, films = labels([(0, 5)], [(1, 5)], [(2, 5)], [(1, 5)])
    ((train, test),) = film_folds(runs, films, test_films=[1])
    assert set(films[test]) == {1} and set(films[train]) == {0, 2}
    with pytest.raises(ValueError, match=r"`test_films` must be films of the data.*got \[7\]"):
        film_folds(runs, films, test_films=[7])


def test_fewer_groups_than_folds_are_refused():
    runs, films = labels([(0, 5)], [(1, 5)], [(0, 5)])
    with pytest.raises(ValueError, match="between 2 and the number of film groups, 2; got 3"):
        film_folds(runs, films, n_folds=3)
    with pytest.raises(ValueError, match="at least 2 films"):
        film_folds(runs[:5], films[:5])


def test_parts_of_films_never_hold_another_showing_of_what_is_tested():
    runs, films = labels([(0, 47), (1, 30), (-1, 5)], [(1, 28), (0, 47)], [(2, 60), (-1, 3)])
    folds = block_folds(runs, films, n_folds=6, gap=3)
    tested = np.concatenate([test for _, test in folds])
    np.testing.assert_array_equal(np.sort(tested), np.flatnonzero(films >= 0))
    position = np.zeros(len(runs), dtype=int)
    for run, film in {*zip(runs.tolist(), films.tolist(), strict=True)}:
        rows = (runs == run) & (films == film)
        position[rows] = np.arange(rows.sum())
    moment = films * 1000 + position
    sizes = [len(np.unique(moment[test])) for _, test in folds]
    assert max(sizes) - min(sizes) <= 1  # 137 moments of three films, in six parts
    for train, test in folds:
        assert not np.isin(moment[test], moment[train]).any()
        same_run = runs[train][:, None] == runs[test][None]
        assert (np.abs(train[:, None] - test[None])[same_run] > 3).all()
        assert (films[train] >= 0).all()


def test_runs_of_trials_that_share_no_clip_are_units():
    runs = np.repeat(np.arange(6), 10)
    units, kept, kind = trial_units(runs, np.arange(60), spacing=4.0)
    assert kind == "runs" and kept.all() and (units == runs).all()
    # runs 0 and 1 show the same clips: five units are left
    films = np.where(runs == 1, np.arange(60) - 10, np.arange(60))
    units, _, kind = trial_units(runs, films, spacing=4.0)
    assert kind == "runs" and len(np.unique(units[films])) == 5


def test_clips_in_other_orders_are_units():
    rng = np.random.default_rng(0)
    films = np.concatenate([rng.permutation(30) for _ in range(6)])
    units, kept, kind = trial_units(np.repeat(np.arange(6), 30), films, spacing=4.0)
    assert kind == "clips" and kept.all() and len(np.unique(units)) == 30
    pairs = np.arange(30) // 2
    units, _, _ = trial_units(np.repeat(np.arange(6), 30), films, spacing=4.0, groups=pairs)
    assert (units == pairs).all()


@pytest.mark.parametrize("n_showings", [1, 4])
def test_clips_in_one_order_are_held_out_in_stretches(n_showings):
    n_runs, n = 2, 60
    order = np.arange(n_runs * n)
    films = np.tile(order, n_showings)
    runs = np.repeat(np.arange(n_runs * n_showings), n)
    units, kept, kind = trial_units(runs, films, spacing=4.0)
    assert kind == "stretches"
    of_clip = units[order].reshape(n_runs, n)
    for run in of_clip:
        # four stretches of 60 s, and 18 s after each border are gone
        borders = np.flatnonzero(np.diff(run)) + 1
        assert len(borders) == 3 and (np.diff([0, *borders, n]) * 4.0 >= 60).all()
        for border in borders:
            lost = ~kept.reshape(n_showings, n_runs, n)[:, 0, border : border + 5]
            assert lost.all()
    assert kept.sum() == n_showings * n_runs * (n - 3 * 5)
    assert len(np.unique(units)) == 8


def test_borders_are_as_wide_as_the_response_and_the_delays():
    assert BORDER_SECONDS == 2 * LATEST_RESPONSE


def test_few_clips_in_one_order_are_warned_of():
    with pytest.warns(UserWarning, match="neighbours of a tested clip are in training"):
        units, kept, kind = trial_units(np.zeros(8, int), np.arange(8), spacing=4.0)
    assert kind == "clips" and kept.all() and len(np.unique(units)) == 8
