"""Which volumes of which runs show what, and which of them may be averaged."""

import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import brainnrds.io as io
from brainnrds.encoding import (
    VideoEncodingModel,
    explainable_variance,
    noise_ceiling,
    stack_repeats,
)
from brainnrds.io.samples import (
    MovieData,
    _warn_of_blur,
    cut_run,
    join_samples,
    plan_samples,
    sample_arrays,
)

NAMES = ["a", "b", "c"]


def a_run(*films, n_volumes=100, t_r=2.0, start_time=0.0):
    """Make a run with films given as (onset, duration, name)."""
    films = [io.Presentation(name, Path(name), o, d) for o, d, name in films]
    return SimpleNamespace(films=films, n_volumes=n_volumes, t_r=t_r, start_time=start_time)


def volumes_of(runs, *, tail=16.0, trim_onset=0.0):
    parts = [
        cut_run(run, np.ones(run.n_volumes, bool), NAMES, tail, trim_onset).assign(run=i)
        for i, run in enumerate(runs)
    ]
    return pd.concat(parts, ignore_index=True)


def movie_data(runs, series, **options):
    """Data of single presentations from the series of every run, (n_volumes, n_voxels)."""
    volumes = volumes_of(runs, **options)
    samples, place = plan_samples(volumes, runs[0].t_r, average=False)
    assert place.tolist() == list(range(len(volumes)))
    bold = np.concatenate(
        [values[volumes["volume"][volumes["run"] == i]] for i, values in enumerate(series)]
    )
    return MovieData(
        bold=bold.astype(np.float32),
        **sample_arrays(samples, volumes["kept"].to_numpy().astype(int)),
        film_names=NAMES,
        stim_files=[None] * 3,
        film_starts=[0.0] * 3,
        film_durations=[12.0] * 3,
        film_groups=np.arange(3),
        t_r=runs[0].t_r,
        masker=None,
        voxels=np.ones(bold.shape[1], bool),
        subject="01",
        space=None,
        repeats="concatenate",
    )


def averaged(runs, **options):
    volumes = volumes_of(runs, **options)
    samples, place = plan_samples(volumes, runs[0].t_r, average=True)
    return samples, np.bincount(place[place >= 0], minlength=len(samples))


def test_short_films_are_averaged_only_after_the_same():
    same = [a_run((0, 12, "a"), (12, 12, "b"))] * 2
    samples, n = averaged(same)
    assert set(n) == {2}
    assert set(samples["run"]) == {0}  # b still follows a
    other = [a_run((0, 12, "a"), (12, 12, "b")), a_run((0, 12, "b"), (12, 12, "a"))]
    samples, n = averaged(other)
    assert set(n) == {1}
    assert samples["run"].nunique() == 2


def test_rest_or_a_trimmed_onset_make_films_independent_of_what_was_before():
    rest = [a_run((0, 12, "a"), (22, 12, "b")), a_run((0, 12, "b"), (22, 12, "a"))]
    samples, n = averaged(rest)
    # five volumes of rest between, which both have; after the scan's last film there are more
    assert set(n) == {2}
    assert samples.groupby("film").size().tolist() == [11, 11]
    long = [a_run((0, 60, "a"), (60, 60, "b")), a_run((0, 60, "b"), (60, 60, "a"))]
    assert set(averaged(long)[1]) == {1}
    samples, n = averaged(long, trim_onset=10.0)
    assert set(n) == {2}
    # 10 s after each onset do not count, and remain as context
    assert samples["on_screen"].tolist() == [0] * 30 + [1] * 30
    assert samples["film"].tolist() == [-1] * 5 + [0] * 25 + [-1] * 5 + [1] * 25


def test_nothing_is_trimmed_from_short_films():
    volumes = volumes_of([a_run((0, 58, "a"))], trim_onset=10.0)
    assert volumes["counts"].all()


@pytest.mark.parametrize(("trim_onset", "expected"), [(0.0, 0.49), (10.0, 0.31), (20.0, 0.04)])
def test_a_response_to_the_onset_alone_leaves_the_ceiling_as_it_is_trimmed(trim_onset, expected):
    """The screen comes on, and 24 s later nothing is left of it: the default halves its ceiling."""
    rng = np.random.default_rng(0)
    since = np.arange(60) * 2.0
    transient = 2 * (since / 6) * np.exp(1 - since / 6) * (since < 24)
    runs = [a_run((0, 120, name), n_volumes=60) for name in NAMES for _ in range(3)]
    bold = transient[:, None] + rng.normal(size=(9, 60, 300))
    data = movie_data(runs, bold, trim_onset=trim_onset)
    repeats = stack_repeats(
        data.bold, runs=data.presentations, films=data.films, film_times=data.film_times
    )
    assert len(repeats) == 3 and repeats[0].shape == (3, 60 - trim_onset / 2, 300)
    ceiling = noise_ceiling(explainable_variance(repeats), n_repeats=3)
    assert np.median(ceiling) == pytest.approx(expected, abs=0.03)


def test_a_hole_ends_a_run():
    volumes = volumes_of([a_run((0, 12, "a"), (60, 12, "b"), n_volumes=50)])
    samples, _ = plan_samples(volumes, 2.0, average=False)
    assert samples.groupby("run").size().tolist() == [14, 14]


@pytest.mark.parametrize("t_r", [2.0, 0.7])
def test_averages_equal_sums_over_presentations(t_r):
    """In the memory of the data, over contexts, and of what was averaged before: one mean."""
    rng = np.random.default_rng(0)
    runs = [
        a_run((0, 12, "a"), (12, 12, "b"), (40, 12, "c"), t_r=t_r),
        a_run((0, 12, "b"), (12, 12, "a"), (40, 12, "c"), t_r=t_r),
        a_run((0, 12, "a"), (12, 12, "b"), (40, 12, "c"), t_r=t_r),
    ]
    series = rng.normal(size=(3, 100, 4))
    data = movie_data(runs, series)
    by_context = io.average_repeats(data)
    assert data.has_repeats and by_context.has_repeats
    assert {f: sorted(set(by_context.n_repeats[by_context.films == f])) for f in range(3)} == {
        0: [1, 2],
        1: [1, 2],
        2: [3],
    }
    all_of_them = io.average_repeats(data, context=False)
    assert not all_of_them.has_repeats
    n = int(np.ceil(12 / t_r))
    rows = [np.arange(100) * t_r - onset for onset in (0.0, 12.0, 0.0)]
    first = [np.flatnonzero(times > -1e-3)[0] for times in rows]
    expected = np.mean([values[k : k + n - 1] for values, k in zip(series, first, strict=True)], 0)
    on_a = np.flatnonzero(all_of_them.on_screen == 0)[: n - 1]
    if t_r == 2.0:
        np.testing.assert_allclose(all_of_them.bold[on_a], expected, atol=1e-6)
    again = io.average_repeats(by_context, context=False)
    in_place = io.average_repeats(movie_data(runs, series), context=False, copy=False, n_jobs=2)
    for other in (again, in_place):
        order = np.lexsort((other.film_times, other.films))
        as_first = np.lexsort((all_of_them.film_times, all_of_them.films))
        np.testing.assert_allclose(other.bold[order], all_of_them.bold[as_first], atol=1e-6)
        assert other.n_repeats[order].tolist() == all_of_them.n_repeats[as_first].tolist()


def test_scrubbed_volumes_give_context_and_do_not_count():
    run = a_run((0, 12, "a"))
    keep = np.arange(run.n_volumes) != 2
    volumes = cut_run(run, keep, NAMES, 16.0, 0.0).assign(run=0)
    samples, place = plan_samples(volumes, 2.0, average=True)
    arrays = sample_arrays(samples, volumes["kept"].to_numpy().astype(int)[place])
    assert arrays["on_screen"][:6].tolist() == [0] * 6
    assert arrays["films"][:6].tolist() == [0, 0, -1, 0, 0, 0]


def response(X, t_r):
    """Noise-free BOLD of one run: each feature drives a voxel 2 to 6 s later."""
    lags = [round(s / t_r) for s in (2.0, 4.0, 6.0)]
    return sum(np.r_[np.zeros((lag, X.shape[1])), X[: len(X) - lag]] for lag in lags)


@pytest.mark.parametrize("t_r", [2.0, 0.7])
def test_short_films_back_to_back_are_predicted_to_their_borders(t_r):
    """Films of 12 s and clips of 4 s with rest: no response is cut off, and none is lost."""
    rng = np.random.default_rng(1)
    for length, rest in ((12.0, 0.0), (4.0, 8.0)):
        X, bold, runs = [], [], []
        for i in range(6):
            n = round(120 / t_r)
            times = np.arange(n) * t_r
            shown = times % (length + rest) < length - 1e-6
            x = rng.normal(size=(n, 3)) * shown[:, None]
            films = [(k * (length + rest), length, NAMES[i % 3]) for k in range(10)]
            runs.append(a_run(*films, n_volumes=n, t_r=t_r))
            X.append(x)
            bold.append(response(x, t_r))
        data = movie_data(runs, bold)
        volumes = volumes_of(runs)
        features = np.stack(
            [X[r][v] for r, v in zip(volumes["run"], volumes["volume"], strict=True)]
        )
        assert len(features) == len(data.runs)
        assert data.delays == ([1, 2, 3, 4] if t_r == 2.0 else list(range(2, 13)))
        delays = sorted({round(s / t_r) for s in (2.0, 4.0, 6.0)})
        model = VideoEncodingModel(delays=delays, alphas=[1e-6], cv=3)
        model.fit(features, data.bold, **data.labels)
        assert model.score(features, data.bold, **data.labels) > 0.999


def test_the_largest_difference_of_offsets_equals_that_of_all_pairs():
    """Offsets lie on a circle: 0.1 s and TR - 0.1 s are 0.2 s apart."""
    random = np.random.default_rng(0)
    for n in (2, 3, 7, 40, 3000):
        offsets = random.random(n) ** 3 * 2.0
        between = np.abs((offsets[:, None] - offsets + 1.0) % 2.0 - 1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _warn_of_blur([offsets], 2.0)
        assert [f"up to {between.max():.2f} s apart" in str(w.message) for w in caught] == (
            [True] if between.max() > 0.5 + 1e-3 else []
        )


def test_averages_in_place_need_no_second_copy():
    rng = np.random.default_rng(0)
    runs = [a_run((0, 100, "a"), (120, 60, NAMES[1 + i % 2])) for i in range(4)]
    tracemalloc.start()  # before the data are made: what is given back is of known size
    data = movie_data(runs, rng.normal(size=(4, 100, 40000)))
    n_bytes = data.bold.nbytes
    expected = io.average_repeats(data).bold[:, ::5000]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    in_place = io.average_repeats(data, copy=False)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(in_place.bold[:, ::5000], expected)
    assert peak - before < 0.4 * n_bytes
    assert before - after > 0.9 * (n_bytes - in_place.bold.nbytes)


@pytest.mark.parametrize("hold", [lambda bold: bold, lambda bold: bold[-40:]])
def test_views_that_somebody_keeps_stay_whole_when_averages_are_in_place(hold):
    rng = np.random.default_rng(0)
    runs = [a_run((0, 100, "a"), (120, 60, NAMES[1 + i % 2])) for i in range(4)]
    data = movie_data(runs, rng.normal(size=(4, 100, 40000)))
    expected = io.average_repeats(data).bold
    kept = hold(data.bold)
    shape, tail = kept.shape, kept[-40:].copy()
    assert len(expected) <= len(data.bold) - 40  # averages do not reach the last rows
    in_place = io.average_repeats(data, copy=False, n_jobs=4)
    del data
    np.testing.assert_array_equal(in_place.bold, expected)
    assert kept.shape == shape
    np.testing.assert_array_equal(kept[-40:], tail)


def test_two_films_of_two_runs_are_split_by_run():
    """Whatever a split leaves out, no delay reaches over the hole."""
    runs = [a_run((0, 12, "a"), (12, 12, "b")), a_run((0, 12, "b"), (12, 12, "a"))]
    data = movie_data(runs, np.zeros((2, 100, 1)))
    left = data[~data.shows("b")]
    assert set(left.films) == {0}
    assert left.runs.tolist() == [0] * 6 + [1] * 14
    joined = join_samples(left, data[data.shows("b")])
    assert len(np.unique(joined.runs)) == 4
    assert joined.films.tolist() == [0] * 20 + [1] * 20
    assert len(np.unique(joined.presentations)) == 4


def test_data_are_told_in_a_line():
    told = repr(movie_data([a_run((0, 12, NAMES[0]))], [np.zeros((100, 7))]))
    assert "samples x 7 voxels, 3 films, T_R 2 s" in told and "\n" not in told
