"""Decisions before the computing: delays and test films."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.utils import Bunch

from brainnrds.analyses.design import (
    check_test_films,
    choose_delays,
    choose_design,
    decoding_block,
    find_test_films,
    labels_for_tests,
    round_delays,
    trial_block,
)
from brainnrds.analyses.options import DecodeOptions, EncodeOptions
from brainnrds.io import InputError
from brainnrds.io.bids import Presentation


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
    assert find_test_films(["b*"], films) == [1]


def runs_of(*durations):
    return [Bunch(films=[Bunch(duration=seconds) for seconds in durations])]


def test_short_films_are_trials_unless_said_otherwise():
    design, line = choose_design(runs_of(2.0, 3.0), EncodeOptions())
    assert design == "trials" and "shown for 2.5 s on average" in line
    assert choose_design(runs_of(2.0, 60.0), EncodeOptions()) == ("continuous", None)
    assert choose_design(runs_of(2.0), DecodeOptions(design="continuous")) == ("continuous", None)
    with pytest.raises(InputError, match="--trial-model is for a trial design; this is a contin"):
        choose_design(runs_of(60.0), DecodeOptions(trial_model="lsa"))
    with pytest.raises(InputError, match="--delays-seconds is for a continuous design"):
        choose_design(runs_of(2.0), DecodeOptions(delays_seconds=(2.0,)))


def test_trials_of_one_clip_leave_nothing_to_hold_out():
    """Of two clips one can be held out; of one, however often it was shown, nothing can."""

    def shown(*names):
        films = [Presentation(n, Path(n), 8.0 * i, 2.0, 0.0) for i, n in enumerate(names)]
        return [SimpleNamespace(films=tuple(films))] * 2

    for options in (EncodeOptions(), DecodeOptions()):
        with pytest.raises(InputError, match=r"at least two .* are needed; got one .* \(a\.mp4\)"):
            check_test_films(shown(*["a.mp4"] * 4), options)
        check_test_films(shown("a.mp4", "b.mp4", "b.mp4", "a.mp4"), options)
        with pytest.raises(InputError, match="two trials or more in a run, .*; got 2 in 2 runs"):
            check_test_films(shown("a.mp4"), options)


def test_blocks_of_trials_are_as_long_as_what_is_tested_is_correlated():
    rng = np.random.default_rng(0)
    white, runs = rng.standard_normal((600, 50)), np.repeat(np.arange(6), 100)
    assert trial_block(white, runs) == 1
    slow = lfilter([1], [1, -0.6], rng.standard_normal((600, 50)), axis=0)
    # (1 + .6) / (1 - .6) = 4: four times 3 trials
    assert 9 <= trial_block(slow, runs) <= 13
    # no table of all pairs of thousands of clips
    assert trial_block(rng.standard_normal((1000, 5)), np.zeros(1000, int)) == 10


def test_trials_of_a_fold_change_places():
    rng = np.random.default_rng(0)
    bold, folds = rng.standard_normal((40, 300)), np.arange(40) % 4
    data = Bunch(design="trials", bold=bold, runs=np.zeros(40, int), spacing=4.0, t_r=2.0)
    labels = labels_for_tests(data, [bold + rng.standard_normal(bold.shape)], folds)
    assert labels["t_r"] == 4.0 and labels["block_duration"] == 4.0
    assert (labels["films"] == labels["runs"]).all()
    assert len(np.unique(np.stack([labels["runs"], folds]), axis=1)[0]) == 4
    assert decoding_block(data, np.ones(40, bool)) == 4.0
    data = Bunch(design="continuous", bold=bold, runs=folds, films=folds, t_r=2.0, delays=[1, 2])
    labels = labels_for_tests(data, [bold], folds)
    assert labels["block_duration"] is None and labels["t_r"] == 2.0
    assert decoding_block(data, np.ones(40, bool)) == 40.0
    assert choose_delays(data, None) == [1, 2] and choose_delays(data, (4.0,)) == [2]
