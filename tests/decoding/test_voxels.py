"""The choice of voxels: planted voxels are found, in film time, from training clips alone."""

import tracemalloc

import numpy as np
import pytest
from planted import autocorrelated, plant_motion
from sklearn.decomposition import PCA

from brainnrds.decoding import MotionDecoder, select_voxels

SMALL = dict(
    n_codes=8, n_bold_channels=32, n_channels=24, n_blocks=2, n_epochs=1,
    batch_size=32, learning_rate=3e-3, random_state=0,
)  # fmt: skip


@pytest.mark.parametrize("method", ["best", "reliability"])
def test_voxels_with_signal_are_selected(method):
    X, y, _, runs = plant_motion(3, n_runs=4, snr=2.0)
    random = np.random.default_rng(0)
    X = np.concatenate([X, random.normal(size=(len(X), 60)).astype(np.float32)], axis=1)
    again = X.copy()
    again[:, :60] += random.normal(size=(len(X), 60))
    again[:, 60:] = random.normal(size=(len(X), 60))
    X, y = np.concatenate([X, again]), np.concatenate([y, y])
    films, runs = np.concatenate([runs, runs]), np.concatenate([runs, runs + 4])
    kept = select_voxels(
        X, y, counted=np.ones(len(X), bool), runs=runs, films=films, delays=[-3, -2],
        method=method, n_voxels=60,
    )  # fmt: skip
    assert (kept < 60).mean() > 0.95
    decoder = MotionDecoder(**SMALL, voxel_selection=method, n_voxels=30)
    decoder.fit(X, y, runs=runs, films=films)
    assert len(decoder.voxels_[0]) == 30


def test_selection_never_sees_held_out_films():
    """A leak planted in the validation films must not be selected."""
    X, y, _, runs = plant_motion(4, n_runs=10, snr=0.0)
    decoder = MotionDecoder(**SMALL, validation_share=0.3)
    decoder.set_params(voxel_selection="best", n_voxels=10)
    held_out = decoder.fit(X, y, runs=runs, films=runs).validation_films_
    leaky = X.copy()
    leak = np.isin(runs, held_out)
    leaky[leak, :10] = y[leak].mean(axis=(1, 3, 4))[:, :1] * 5
    chosen = decoder.fit(leaky, y, runs=runs, films=runs).voxels_[0]
    clean = decoder.fit(X, y, runs=runs, films=runs).voxels_[0]
    np.testing.assert_array_equal(chosen, clean)


def test_best_is_the_variance_that_components_of_the_flow_explain():
    """Against a regression on the eight components there are; columns span several blocks."""
    X, y, _, runs = plant_motion(6, n_runs=3, n_per_run=30, n_voxels=3000)
    X[:, 7] = 5.0
    scores = PCA(8).fit_transform(y.reshape(90, -1))
    design = np.column_stack([np.ones(90), scores])
    explained = 0
    for d in (-2, -1):
        moved = np.tile(X.mean(axis=0), (90, 1))
        for run in range(3):
            rows = np.flatnonzero(runs == run)
            moved[rows[:d]] = X[rows[-d:]]
        residual = moved - design @ np.linalg.lstsq(design, moved, rcond=None)[0]
        spread = moved.var(axis=0)
        explained += np.where(spread > 1e-9, 1 - residual.var(axis=0) / (spread + 1e-30), 0)
    kept = select_voxels(
        X, y, counted=np.ones(90, bool), runs=runs, films=runs, delays=[-2, -1],
        method="best", n_voxels=50,
    )  # fmt: skip
    np.testing.assert_array_equal(kept, np.sort(np.argsort(-explained)[:50]))
    everything = select_voxels(
        X, y, counted=np.ones(90, bool), runs=runs, films=runs, delays=[-2, -1],
        method="best", n_voxels=3000,
    )  # fmt: skip
    assert len(everything) == 2999 and 7 not in everything


def _repeats(missing):
    """Two presentations of six films, the second without its first volumes; 20 of 200 answer."""
    random = np.random.default_rng(0)
    X, runs, films, times = [], [], [], []
    for film in range(6):
        answer = autocorrelated(random, 60, 20, 0.3)
        for repeat in (0, 1):
            bold = autocorrelated(random, 60, 200, 0.3)
            bold[:, :20] += answer
            first = missing * repeat
            X.append(bold[first:])
            runs.append(np.full(60 - first, 2 * film + repeat))
            films.append(np.full(60 - first, film))
            times.append(2.0 * np.arange(first, 60) + 0.3 * repeat)
    return [np.concatenate(parts) for parts in (X, runs, films, times)]


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_repeats_are_paired_by_film_time(missing):
    X, runs, films, times = _repeats(missing)
    y = np.random.default_rng(1).normal(size=(len(X), 1, 2, 2, 2)).astype(np.float32)
    call = dict(counted=np.ones(len(X), bool), runs=runs, films=films, delays=[0], n_voxels=20)
    kept = select_voxels(X, y, method="reliability", film_times=times, **call)
    assert (kept < 20).sum() >= 19
    decoder = MotionDecoder(**SMALL, voxel_selection="reliability", n_voxels=20)
    decoder.fit(X, y, runs=runs, films=films, film_times=times)
    assert (decoder.voxels_[0] < 20).sum() >= 18
    if missing:
        with pytest.raises(ValueError, match="must be of one length"):
            select_voxels(X, y, method="reliability", **call)
    else:
        np.testing.assert_array_equal(select_voxels(X, y, method="reliability", **call), kept)


def test_selection_takes_little_memory():
    X = np.random.default_rng(0).normal(size=(300, 40_000)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(300, 1, 2, 2, 2)).astype(np.float32)
    runs = np.repeat(np.arange(3), 100)
    decoder = MotionDecoder(**SMALL, voxel_selection="best", n_voxels=100)
    tracemalloc.start()
    decoder.fit(X, y, runs=runs, films=runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * X.nbytes
