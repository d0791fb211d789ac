"""Does Video > Image find what was planted, at default settings?

For each seed a default sample data set is made and goes through the App's own steps: loading,
features, three models, tests. Only what costs time for nothing is left out: of the pure-noise
voxels 2,000 are drawn, and each stands for several in the false discovery rate.

    python tests/prove/prove_planted.py --output doc/proofs/planted.json [--quick]

Finished seeds are kept beside the output, so that an interrupted run continues.

Two limits say how well a map of unique shares can match the planted shares on these data:

``unique_limit_true_features``
    What the noise and the amount of data leave to learn. The same responses, folds, delays,
    solver and measure, but in place of `MotionEnergy` and `StaticEnergy` the channels that the
    planted responses are linear in. Weights must still be learnt from few noisy films, which no
    choice of features spares anyone. The bound for unique shares refers to it.
``unique_limit_perfect_model``
    What the noise alone leaves to measure, were nothing to be learnt: predictions are the planted
    response and the planted response without the space, drawn for each voxel with its true
    variances and as much noise and as many samples as the data have. It is not shrunk as a learnt
    model is, so that it need not lie above the other. Where the two agree, learning costs next to
    nothing, and what a map lacks is first of all due to its features.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch

import brainnrds
from brainnrds.analyses import encode, movie_features
from brainnrds.analyses.held_out import predict_model
from brainnrds.analyses.options import EncodeOptions
from brainnrds.analyses.record import Record
from brainnrds.datasets import footage, make_movie_dataset, movie, planted
from brainnrds.encoding import (
    benjamini_hochberg,
    models_of,
    noise_ceiling,
    unique_variance,
)
from brainnrds.features import (
    MotionEnergy,
    StaticEnergy,
    distinct_clips,
    place_features,
    response_delays,
)
from brainnrds.io import atomic_path, find_runs

N_SEEDS = 10
SEEING = ("motion", "static", "mixed", "flow")  # hearing voxels are another proof's
N_NOISE_VOXELS = 2000
LIMITS = ("true_features", "perfect_model")
UNIQUE = {"video": "unique_motion", "image": "unique_static"}
BOUNDS = {
    "auc": 0.95,
    "sign_right": 0.95,
    "unique_correlation": 0.9,
    "unique_share_of_limit": 0.95,
}


def analyse(seed, work_dir, *, n_iter=7, n_noise=N_NOISE_VOXELS, **dataset_options):
    """One data set from making to measuring."""
    start = time.perf_counter()
    dataset = make_movie_dataset(
        Path(work_dir) / f"seed-{seed}", random_state=seed, **dataset_options
    )
    runs = find_runs(dataset.bids_dir, subject="01")
    options = EncodeOptions(n_iter=n_iter, random_state=seed, n_jobs=1)
    data, repeated = encode._load_bold(runs, options, 0)
    truth = dataset.truth["01"]
    rng = np.random.default_rng(seed)
    noise = np.flatnonzero(truth.label == "none")
    drawn = rng.choice(noise, min(n_noise, len(noise)), replace=False)
    voxels = np.sort(np.concatenate([np.flatnonzero(np.isin(truth.label, SEEING)), drawn]))
    data = replace(data, bold=data.bold[:, voxels], voxels=data.voxels[voxels])
    repeated = Bunch(**{k: None if v is None else v[voxels] for k, v in repeated.items()})
    truth = {name: np.asarray(values)[voxels] for name, values in truth.items()}
    stands_for = np.where(truth["label"] == "none", len(noise) / len(drawn), 1.0)

    splits = encode._splits(data, options)
    extractors = {"video": MotionEnergy(), "image": StaticEnergy()}
    X, spaces = movie_features(
        data, extractors, store_dir=Path(work_dir) / "features", progress=False
    )
    folder = Path(work_dir) / f"seed-{seed}"
    held_out = _predict(folder / "fitted", X, spaces, data, splits, options)
    results = encode._compare(data, held_out, repeated, options)
    usable = _usable(results.ceiling, truth)
    true_X, true_spaces = _true_features(dataset, data)
    shown = replace(data, bold=data.bold[:, usable], voxels=data.voxels[usable])
    held_out = _predict(folder / "true", true_X, true_spaces, shown, splits, options)
    best = {
        "true_features": _unique(shown, held_out),
        "perfect_model": {
            space: _perfect_model(truth, share, data, rng)[usable]
            for space, share in UNIQUE.items()
        },
    }
    return {"seed": seed, **measure(results, truth, stands_for, best), "seconds": round(
        time.perf_counter() - start, 1)}  # fmt: skip


def _predict(folder, X, spaces, data, splits, options):
    """Held-out predictions of the three models, as the App makes them."""
    record = Record("encode", folder, {}, verbose=0)
    record.work, record.options = folder, options
    delays = response_delays(data.t_r)
    return {
        name: predict_model(record, name, used, X, spaces, data, splits, delays, "cpu", {})
        for name, used in models_of(["video", "image"]).items()
    }


def _true_features(dataset, data):
    """The channels that the planted responses are linear in, placed in time as features are."""
    settings = json.loads((dataset.bids_dir / "sourcedata/truth/settings.json").read_text())
    planned = {name: clips for name, (_, clips) in movie._plan_films(settings).items()}
    times, index = distinct_clips(
        data.on_screen,
        data.film_times,
        clip_duration=data.t_r,
        film_durations=data.film_durations,
    )
    motion, static = [], []
    for name, onsets in zip(data.film_names, times, strict=True):
        channels = planted._flatten(planted.clip_responses(planned[Path(name).name]))
        # volumes are taken where clips begin
        rows = np.round(onsets / footage.CLIP_DURATION).astype(int)
        for blocks, block in zip((motion, static), channels, strict=True):
            blocks.append(block[rows])
    motion, static = place_features(motion, index), place_features(static, index)
    n_motion, n_static = motion.shape[1], static.shape[1]
    spaces = {"video": slice(0, n_motion), "image": slice(n_motion, n_motion + n_static)}
    return np.concatenate([motion, static], axis=1), spaces


def _unique(data, held_out):
    """Unique variance of both spaces, as the App computes it."""
    labels = {"runs": data.runs, "folds": held_out["joint"].folds}
    return {
        space: unique_variance(
            data.bold, held_out["joint"].predictions, held_out[other].predictions, **labels
        )
        for space, other in (("video", "image"), ("image", "video"))
    }


def _usable(ceiling, truth):
    # "flow" voxels are planted for decoding: neither fitted space holds what they answer to
    return (ceiling > encode.SMALLEST_CEILING) & (truth["label"] != "flow")


def measure(results, truth, stands_for, best):
    """The figures of one data set."""
    label, difference = truth["label"], results.scores["difference"]
    test = results.tests["difference"]
    figures = {
        "n_voxels": len(label),
        "median_single_run_ev": float(np.median(truth["explainable_variance"][label != "none"])),
        "share_of_noise_voxels": float(stands_for[label == "none"].sum() / stands_for.sum()),
        "auc": float(roc_auc_score(label == "motion", difference, sample_weight=stands_for)),
        "n_blocks": test.n_blocks,
        "n_significant": 0,
        "sign_right": None,
    }
    if test.p_values is not None:
        times = np.round(stands_for).astype(int)
        q = benjamini_hochberg(np.repeat(test.p_values, times))
        q = q[np.concatenate([[0], np.cumsum(times)[:-1]])]
        found = (q < encode.FDR_LEVEL) & (label != "none")
        # where both spaces are planted neither sign is wrong
        truly = np.sign(truth["unique_motion"] - truth["unique_static"])
        figures["n_significant"] = int(found.sum())
        figures["n_significant_noise"] = int(((q < encode.FDR_LEVEL) & (label == "none")).sum())
        if found.any():
            figures["sign_right"] = float(np.mean(np.sign(difference[found]) == truly[found]))
    usable = _usable(results.ceiling, truth)
    ceiling = results.ceiling[usable]
    for space, share in UNIQUE.items():
        planted_share = truth[share][usable]
        maps = {"unique_correlation": results.unique[space][usable]}
        maps |= {f"unique_limit_{kind}": values[space] for kind, values in best.items()}
        for name, values in maps.items():
            figures[f"{name}_{space}"] = float(np.corrcoef(values / ceiling, planted_share)[0, 1])
    figures["n_usable"] = int(usable.sum())
    return figures


def _perfect_model(truth, share, data, rng):
    """Unique variance that a perfect model would measure at this noise and number of samples."""
    shown = data.films >= 0
    n = int(shown.sum())
    signal = np.clip(truth["explainable_variance"], 0, None)
    ceiling = noise_ceiling(signal, data.n_repeats[shown])
    unique = np.sqrt(truth[share])[None] * rng.standard_normal((n, len(signal)))
    rest = np.sqrt(1 - truth[share])[None] * rng.standard_normal((n, len(signal)))
    noise = np.sqrt(1 - ceiling)[None] * rng.standard_normal((n, len(signal)))
    scale = np.sqrt(ceiling)[None]
    y = scale * (unique + rest) + noise
    without, joint = (y - scale * rest) ** 2, (y - scale * (unique + rest)) ** 2
    return (without.mean(0) - joint.mean(0)) / y.var(0)


def summarise(seeds):
    """Median over seeds with the worst, against the bounds."""
    figures = {}
    names = ["auc", "sign_right", "n_significant", "median_single_run_ev", "share_of_noise_voxels"]
    for space in UNIQUE:
        names += [f"unique_correlation_{space}", *(f"unique_limit_{k}_{space}" for k in LIMITS)]
    for name in names:
        values = [seed[name] for seed in seeds if seed.get(name) is not None]
        if values:
            figures[name] = {"median": float(np.median(values)), "worst": float(np.min(values))}
    return figures


def judge(figures):
    """What passed, and in words against which bound the unique shares did or did not."""
    passed = {
        name: figures.get(name, {"median": 0})["median"] >= BOUNDS[name]
        for name in ("auc", "sign_right")
    }
    verdicts = {}
    for space in UNIQUE:
        measured = figures[f"unique_correlation_{space}"]["median"]
        limit = figures[f"unique_limit_true_features_{space}"]["median"]
        bound, share = BOUNDS["unique_correlation"], BOUNDS["unique_share_of_limit"]
        absolute, relative = measured >= bound, measured >= share * limit
        passed[f"unique_correlation_{space}"] = absolute or relative
        verdicts[space] = (
            f"The median {measured:.3f} {'reaches' if absolute else 'is below'} {bound:g}, and "
            f"{'reaches' if relative else 'is below'} {share:g} x {limit:.3f}, the limit that "
            "noise and amount of data set: what the pipeline reaches on the same data with the "
            "features in which the planted responses are linear."
        )
    return passed, verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer mixtures")
    parser.add_argument("--n-seeds", type=int, default=N_SEEDS)
    options = parser.parse_args()
    partial = options.output.with_suffix(".seeds.json")
    done = json.loads(partial.read_text()) if partial.exists() else {}
    n_seeds, n_iter = (2, 3) if options.quick else (options.n_seeds, 7)
    for seed in range(n_seeds):
        if str(seed) in done:
            continue
        with tempfile.TemporaryDirectory() as work_dir:
            done[str(seed)] = analyse(seed, work_dir, n_iter=n_iter)
        print(done[str(seed)], flush=True)
        with atomic_path(partial) as temporary:
            temporary.write_text(json.dumps(done))
    figures = summarise([done[str(seed)] for seed in range(n_seeds)])
    passed, verdicts = judge(figures)
    result = {
        "what": "Planted truth at default settings",
        "figures": figures,
        "bounds": BOUNDS,
        "passed": passed,
        "unique_shares_in_words": verdicts,
        "n_seeds": n_seeds,
        "seeds": [done[str(seed)] for seed in range(n_seeds)],
        "versions": {"brainnrds": brainnrds.__version__, "Python": platform.python_version()},
        "device": f"cpu ({platform.machine()})",
    }
    with atomic_path(options.output) as temporary:
        temporary.write_text(json.dumps(result, indent=2))
    # fewer seeds than asked for by default: the rest can follow
    if options.quick or n_seeds >= N_SEEDS:
        partial.unlink()
    print(json.dumps({"figures": figures, "passed": passed, "words": verdicts}, indent=2))


if __name__ == "__main__":
    main()
