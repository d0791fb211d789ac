"""What an analysis will cost: sizes counted by hand.

Against runs that were measured: tests/prove/prove_data_sets.py.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bids import make_tree

from brainnrds import VideoEncodingModel, load_runs
from brainnrds.analyses import (
    DecodeOptions,
    EncodeOptions,
    ReanimateOptions,
    encode,
    held_out,
)
from brainnrds.analyses import estimate as module
from brainnrds.analyses.design import plan_samples_of
from brainnrds.analyses.estimate import estimate, estimate_encode, seconds_of_footage
from brainnrds.encoding import solvers
from brainnrds.io import find_runs
from brainnrds.io.bids import Presentation

# of a run, beside what is shown when
NAMED = {"subject": "01", "space": None, "bold": []}


def a_run(*films):
    """A run of 200 volumes, 2 s apart, on 100 vertices a side."""
    shown = tuple(
        Presentation(name, Path(name), onset, duration, start)
        for name, onset, duration, start in films
    )
    return SimpleNamespace(
        films=shown, n_volumes=200, t_r=2.0, start_time=1.0, grid=("surface", 100, 100, ""), **NAMED
    )


def test_sizes_are_those_that_were_shown():
    # 100 s and its tail of 16 s; a film that the next one ends; the same film once more
    runs = [
        a_run(("a", 10, 100, 0), ("b", 200, 60, 0)),
        a_run(("a", 10, 100, 0), ("c", 120, 50, 0)),
    ]
    found = estimate_encode(runs, EncodeOptions())
    # volumes at 1, 3, 5 ... s: of a 58 (55 in the second run, where c follows in 10 s, and these
    # are averaged), b 38, c 33
    assert (found.n_samples, found.n_voxels, found.n_clips) == (55 + 38 + 33, 200, 105)
    both = estimate_encode(runs, EncodeOptions(repeats="concatenate"))
    assert both.n_samples == 58 + 38 + 55 + 33
    # where c follows at once, its response depends on a, and repeats of a are not averaged
    runs[1] = a_run(("a", 10, 100, 0), ("c", 110, 50, 0))
    assert estimate_encode(runs, EncodeOptions()).n_samples == 58 + 38 + 50 + 33
    assert seconds_of_footage([a_run(("a", 0, 60, 0), ("a", 100, 60, 40))]) == 100


def test_trials_are_counted_not_their_volumes():
    # 30 clips of 2 s, each once in either run: of 8 s from one to the next, four volumes are one
    runs = [a_run(*((f"c{i}", 8 * i, 2, 0) for i in range(30)))] * 2
    found = estimate_encode(runs, EncodeOptions())
    assert (found.n_samples, found.n_clips) == (30, 30)
    assert estimate_encode(runs, EncodeOptions(repeats="concatenate")).n_samples == 60
    # volume by volume: those on a clip and until the next, the last and its tail
    continuous = estimate_encode(runs, EncodeOptions(design="continuous"))
    assert continuous.n_samples == 29 * 4 + 9 and continuous.n_clips == 30
    # two networks' files of every clip are more than their numbers
    assert found.disk > 2 * 30 * 8e3 + 4 * 30 * (1134 + 315)


def test_what_makes_it_dearer():
    runs = [a_run(("a", 10, 100, 0), ("b", 200, 60, 0))]
    plain = estimate_encode(runs, EncodeOptions())
    mixtures = estimate_encode(runs, EncodeOptions(n_iter=100))
    assert mixtures.seconds > plain.seconds and mixtures.disk == plain.disk
    spaces = estimate_encode(runs, EncodeOptions(feature_spaces=("sound=loudness",)))
    assert spaces.disk > plain.disk and spaces.memory > plain.memory
    large = estimate_encode(runs, EncodeOptions(), n_voxels=100_000)
    assert large.memory > plain.memory and large.seconds > plain.seconds
    network = estimate_encode(runs, EncodeOptions(video_encoders=("videomae-large",)))
    assert network.seconds is None and "time is not known" in str(network)
    assert replace(plain, seconds=7200.0).seconds == 7200 and "2.0 h" in str(
        replace(plain, seconds=7200.0)
    )


@pytest.mark.parametrize(
    ("test_films", "asked", "n_folds"), [(("test*",), None, None), (None, 2, 2), (None, None, 4)]
)
@pytest.mark.parametrize(
    "spaces",
    [
        {},
        {"feature_spaces": ("a=luminance", "b=cuts"), "control_spaces": ("c=loudness",)},
        {"video_encoders": ("motion-energy", "luminance"), "video_control": "frozen"},
    ],
)
def test_fits_are_those_that_an_encoding_makes(
    short_movies, tmp_path, monkeypatch, spaces, test_films, asked, n_folds
):
    """Against the analysis itself, of a few voxels: mixtures, training samples, what is kept.

    Of four film groups there are no five folds.
    """
    n_voxels, rng = 3, np.random.default_rng(0)
    options = EncodeOptions(n_folds=asked, test_films=test_films, **spaces)
    runs = find_runs(short_movies.bids_dir, subject="01")
    data = load_runs(runs, confounds=())
    data = replace(data, bold=data.bold[:, :n_voxels], voxels=data.voxels[:n_voxels])
    models = {name: used for part in held_out.models_to_fit(options) for name, used in part.items()}
    names = sorted({space for used in models.values() for space in used})
    X = rng.normal(size=(len(data.bold), len(names)))
    columns = {name: slice(i, i + 1) for i, name in enumerate(names)}
    monkeypatch.setattr(held_out, "features_of_films", lambda *_: (X, columns))
    tried, trained, kept = [], [], {}
    sample, fit = solvers.sample_mixtures, VideoEncodingModel.fit

    def sample_and_count(n_mixtures, *arguments, **keywords):
        tried.append(n_mixtures)
        return sample(n_mixtures, *arguments, **keywords)

    def fit_and_count(model, X, y, *, runs, films):
        trained.append((films >= 0).sum())
        return fit(model, X, y, runs=runs, films=films)

    def step(name, compute, *, title):
        kept[name] = compute()
        return kept[name]

    monkeypatch.setattr(solvers, "sample_mixtures", sample_and_count)
    monkeypatch.setattr(VideoEncodingModel, "fit", fit_and_count)
    record = SimpleNamespace(
        options=options, work=tmp_path, verbose=0, step=step, say=lambda line: None
    )
    splits = encode._splits(data, options)
    held_out.predict_held_out(record, data, splits, names, {}, {}, "cpu")

    assert set(kept) == set(models)
    assert len(tried) == (len(models) if test_films else n_folds * len(models) + 1)
    assert module._count_mixtures(models, options, n_folds) == sum(tried)
    found, n_training, _ = module._split(plan_samples_of(runs, options), options)
    # folds are of equal size, as the films are
    assert found == n_folds and np.median(trained) == n_training
    # of a voxel more its predictions and parts are kept; without the model, no weights
    without = replace(options, keep=())
    found = [estimate_encode(runs, without, n_voxels=n).disk for n in (1, 2)]
    n_values = sum(a.size for arrays in kept.values() for k, a in arrays.items() if k != "folds")
    assert found[1] - found[0] == pytest.approx(4 * n_values / n_voxels, rel=0.2)


@pytest.mark.parametrize("repeats", ["average", "concatenate"])
@pytest.mark.parametrize(
    ("shown", "tested"),
    [
        # a film of every run: averaged it is a run of its own, and the others need not be kept
        ([("a", "b", "v"), ("c", "d", "v"), ("e", "f", "v")], "v"),
        # runs that are repeated as wholes are averaged as such
        ([("a", "b"), ("a", "b"), ("c", "d")], "b"),
    ],
)
def test_with_test_films_is_kept_what_the_analysis_keeps(tmp_path, shown, tested, repeats):
    tree = make_tree(
        tmp_path,
        runs={
            str(i): [(4.0 + 22 * j, 12.0, f"{film}.mp4") for j, film in enumerate(films)]
            for i, films in enumerate(shown)
        },
    )
    runs, options = find_runs(tree.bids_dir), EncodeOptions(test_films=(tested,), repeats=repeats)
    data = load_runs(runs, confounds=(), repeats=repeats)
    splits = encode._splits(data, options)
    rows = held_out._rows_of_tested_runs(data, splits)
    n_training = ((splits.units >= 0) & ~np.isin(splits.units, splits.test_units)).sum()
    found = module._split(plan_samples_of(runs, options), options)
    assert found == (None, n_training, np.arange(len(data.bold))[rows].size)
    assert estimate_encode(runs, options).n_samples == len(data.bold)


def test_encoding_with_test_films_costs_what_was_measured():
    # doc/benchmarks/whole_two_cores.json: 18 films shown twice, 5 test films ten times, 1,507 s
    names = [f"train{i}" for i in range(18)] * 2 + [f"test{i}" for i in range(5)] * 10
    runs = [
        SimpleNamespace(
            films=(Presentation(name, Path(name), 0, 480, 0),),
            n_volumes=246, t_r=2.0, start_time=0.0, grid=("cifti", 59412), **NAMED,
        )
        for name in names
    ]  # fmt: skip
    found = estimate_encode(runs, EncodeOptions(test_films=("test*",)))
    assert 0.5 < found.seconds / 1507 < 2
    # six times the time, if these films were held out in folds
    assert estimate_encode(runs, EncodeOptions()).seconds > 5 * found.seconds


def test_decoding_and_reanimation_cost_what_was_measured():
    # doc/proofs/memory.json: 18 runs of 240 volumes x 91,282, of noise: 4.9 GiB
    runs = [
        SimpleNamespace(
            films=(Presentation(f"f{i}", Path(f"f{i}"), 0, 480, 0),),
            n_volumes=240, t_r=2.0, start_time=0.0, grid=("cifti", 91282),
        )
        for i in range(18)
    ]  # fmt: skip
    small = {"grid": (8, 8), "n_epochs": 2}
    found = estimate(runs, DecodeOptions(**small))
    assert found.analysis == "decode" and found.n_clips == found.n_samples == 4320
    assert 0.8 < found.memory / 2**30 / 4.94 < 1.25
    # one network's weights are 44 MB: two of the decoder, four controls, image alone
    assert found.disk == 7 * 44.3e6 + 4 * 4320 * (2 * 3 * 8 * 8 + 768)
    assert estimate(runs, DecodeOptions(**small, n_draws=2)).disk < found.disk
    longer = estimate(runs, DecodeOptions(grid=(8, 8), n_epochs=20))
    assert longer.seconds > 5 * (found.seconds - 100) and longer.memory == found.memory
    rendered = estimate(runs, ReanimateOptions(**small, max_clips=60))
    assert rendered.analysis == "reanimate" and rendered.seconds > found.seconds
    assert estimate(runs, ReanimateOptions(**small)).seconds > rendered.seconds
    assert estimate(runs, ReanimateOptions(**small, renderer="dragnuwa")).seconds is None
    assert estimate(runs, DecodeOptions(image_encoder="dinov2-base")).seconds is None
