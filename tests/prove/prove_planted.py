"""Does Video > Image find what was planted, at default settings?

For each seed a default sample data set is made and goes through the App's own steps: loading,
features, three models, tests. Only what costs time for nothing is left out: of the pure-noise
voxels 2,000 are drawn, and each stands for several in the false discovery rate.

    python tests/prove/prove_planted.py --output doc/proofs/planted.json [--quick]

Finished seeds are kept beside the output, so that an interrupted run continues.

The limit that the noise sets on the map of unique shares is what a perfect model would reach: its
predictions are the planted response and the planted response without the space, drawn for each
voxel with its true variances and as much noise and as many samples as the data have.
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

import brainnrds
from brainnrds.analyses import encode
from brainnrds.analyses.design import group_of_film, round_delays
from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import VideoEncodingModel, benjamini_hochberg, noise_ceiling
from brainnrds.features import MotionEnergy, StaticEnergy
from brainnrds.io import atomic_path, find_runs

N_SEEDS = 10
N_NOISE_VOXELS = 2000
UNIQUE = {"video": "unique_motion", "image": "unique_static"}
BOUNDS = {"auc": 0.95, "sign_right": 0.95, "unique_correlation": 0.9}


def analyse(seed, work_dir, *, n_iter=7, n_noise=N_NOISE_VOXELS, **dataset_options):
    """One data set from making to measuring."""
    start = time.perf_counter()
    dataset = make_movie_dataset(
        Path(work_dir) / f"seed-{seed}", random_state=seed, **dataset_options
    )
    runs = find_runs(dataset.bids_dir, subject="01")
    data, ev = encode._load_bold(runs, ("motion", "high_pass", "wm_csf"), "average", False)
    truth = dataset.truth["01"]
    rng = np.random.default_rng(seed)
    noise = np.flatnonzero(truth.label == "none")
    drawn = rng.choice(noise, min(n_noise, len(noise)), replace=False)
    voxels = np.sort(np.concatenate([np.flatnonzero(truth.label != "none"), drawn]))
    data = encode._without_scrubbed(
        replace(data, bold=data.bold[:, voxels], voxels=data.voxels[voxels])
    )
    ev = ev[voxels]
    truth = {name: np.asarray(values)[voxels] for name, values in truth.items()}
    stands_for = np.where(truth["label"] == "none", len(noise) / len(drawn), 1.0)

    groups = group_of_film(runs, data.film_names)
    units = np.where(data.films >= 0, groups[data.films], -1)
    extractors = {"video": MotionEnergy(), "image": StaticEnergy()}
    X, spaces = encode._features(data, extractors, Path(work_dir), 1, False)
    delays, _ = round_delays(None, data.t_r, default=encode._DEFAULT_DELAYS_SECONDS)
    n_folds = min(encode.MOST_FOLDS, len(np.unique(units[data.films >= 0])))
    held_out = {}
    for name, parts in encode._MODELS.items():
        columns = np.r_[tuple(spaces[part] for part in parts)]
        stops = np.cumsum([spaces[part].stop - spaces[part].start for part in parts])
        starts = np.concatenate([[0], stops[:-1]])
        names = {p: slice(int(a), int(b)) for p, a, b in zip(parts, starts, stops, strict=True)}
        model = VideoEncodingModel(names, delays=delays, n_iter=n_iter, random_state=seed)
        held_out[name] = encode._predict(
            Path(work_dir) / f"seed-{seed}-{name}", model, X[:, columns], data, units, None,
            n_folds, False,
        )  # fmt: skip
    results = encode._compare(data, held_out, ev, 5000, seed, False)
    return {"seed": seed, **measure(results, truth, stands_for, data), "seconds": round(
        time.perf_counter() - start, 1)}  # fmt: skip


def measure(results, truth, stands_for, data):
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
    # "flow" voxels are planted for decoding: neither fitted space holds what they answer to
    usable = (results.ceiling > encode.SMALLEST_CEILING) & (label != "flow")
    rng = np.random.default_rng(0)
    for space, share in UNIQUE.items():
        with np.errstate(divide="ignore"):  # such voxels are not usable
            measured = results.unique[space] / results.ceiling
        limit = _perfect_model(truth, share, data, rng) / results.ceiling
        figures[f"unique_correlation_{space}"] = _correlate(measured, truth[share], usable)
        figures[f"unique_limit_{space}"] = _correlate(limit, truth[share], usable)
    figures["n_usable"] = int(usable.sum())
    return figures


def _correlate(a, b, where):
    return float(np.corrcoef(a[where], b[where])[0, 1])


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
    for name in ("auc", "sign_right", "unique_correlation_video", "unique_correlation_image",
                 "unique_limit_video", "unique_limit_image", "n_significant",
                 "median_single_run_ev", "share_of_noise_voxels"):  # fmt: skip
        values = [seed[name] for seed in seeds if seed.get(name) is not None]
        if values:
            figures[name] = {"median": float(np.median(values)), "worst": float(np.min(values))}
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer mixtures")
    options = parser.parse_args()
    partial = options.output.with_suffix(".seeds.json")
    done = json.loads(partial.read_text()) if partial.exists() else {}
    n_seeds, n_iter = (2, 3) if options.quick else (N_SEEDS, 7)
    for seed in range(n_seeds):
        if str(seed) in done:
            continue
        with tempfile.TemporaryDirectory() as work_dir:
            done[str(seed)] = analyse(seed, work_dir, n_iter=n_iter)
        print(done[str(seed)], flush=True)
        with atomic_path(partial) as temporary:
            temporary.write_text(json.dumps(done))
    figures = summarise([done[str(seed)] for seed in range(n_seeds)])
    limit = {
        space: max(
            0.0, min(BOUNDS["unique_correlation"], figures[f"unique_limit_{space}"]["median"])
        )
        for space in UNIQUE
    }
    passed = {
        "auc": figures["auc"]["median"] >= BOUNDS["auc"],
        "sign_right": figures.get("sign_right", {"median": 0})["median"] >= BOUNDS["sign_right"],
        **{
            f"unique_correlation_{space}": figures[f"unique_correlation_{space}"]["median"]
            >= BOUNDS["unique_correlation"]
            for space in UNIQUE
        },
    }
    result = {
        "what": "Planted truth at default settings",
        "figures": figures,
        "bounds": BOUNDS,
        "limit_set_by_noise": limit,
        "passed": passed,
        "seeds": [done[str(seed)] for seed in range(n_seeds)],
        "versions": {"brainnrds": brainnrds.__version__, "Python": platform.python_version()},
        "device": f"cpu ({platform.machine()})",
    }
    with atomic_path(options.output) as temporary:
        temporary.write_text(json.dumps(result, indent=2))
    partial.unlink()
    print(json.dumps({"figures": figures, "passed": passed}, indent=2))


if __name__ == "__main__":
    main()
