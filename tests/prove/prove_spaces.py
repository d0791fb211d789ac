"""Four feature spaces with a planted truth: motion, single frames, sound and words.

The sound goes with the motion, as in films. Some voxels hear one space only, some several, some
nothing. Unique variance must be what was planted, significant in its own voxels and nowhere else;
and voxels that hear nothing but sound must be Video > Image without, and not with, sound as a
control space.

    python tests/prove/prove_spaces.py --output doc/proofs/spaces.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from prove_null import autoregressive
from scipy.stats import rankdata

import brainnrds
from brainnrds.encoding import (
    VideoEncodingModel,
    compare_feature_spaces,
    difference_significance,
    held_out_predictions,
    models_of,
    select_feature_spaces,
)
from brainnrds.features import delay

N_FILMS, FILM_LENGTH, N_FOLDS = 10, 120, 5  # volumes
T_R = 2.0  # s
DELAYS = (1, 2, 3, 4)
SIZES = {"video": 40, "image": 40, "sound": 20, "words": 4}
COUPLING = 0.7  # of sound to motion, as a correlation
N_MIXTURES = 10
RESPONSE = np.array([0.3, 1.0, 0.8, 0.3])  # at the delays
N_VOXELS = 30  # that hear one space, for each; as many hear several; noise has four times as many
SIGNAL = (0.15, 0.5)  # share of variance
N_LONG = 30_000  # volumes in which the planted unique variance is measured
BOUNDS = {
    "unique_correlation": [0.9, 1.0],
    "auc": [0.95, 1.0],
    "false_positives": [0.04, 0.06],
    "confound_without_control": [0.5, 1.0],
    "confound_with_control": [0.0, 0.06],
}


def spaces_of(sizes):
    stops = np.cumsum(list(sizes.values())).tolist()
    return {n: slice(stop - sizes[n], stop) for n, stop in zip(sizes, stops, strict=True)}


SPACES = spaces_of(SIZES)
GROUPS = np.repeat([*SIZES, "several", "none"], [N_VOXELS] * 5 + [4 * N_VOXELS])


def features(rng, n_volumes, mixing):
    """Columns of all spaces; sound is a mixture of motion and what only it has."""
    X = autoregressive(rng, n_volumes, sum(SIZES.values()), 0.5)
    X /= X.std(0)
    sound = SPACES["sound"]
    X[:, sound] = COUPLING * X[:, SPACES["video"]] @ mixing + np.sqrt(1 - COUPLING**2) * X[:, sound]
    return X


def plant(seed):
    """Weights of the delayed columns (n_columns, n_voxels), and how sound mixes motion."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((SIZES["video"], SIZES["sound"]))
    mixing /= np.linalg.norm(mixing, axis=0)
    weights = np.zeros((sum(SIZES.values()), len(GROUPS)))
    for name, columns in SPACES.items():
        strength = (GROUPS == name).astype(float)
        strength[GROUPS == "several"] = rng.dirichlet(np.ones(N_VOXELS)) * N_VOXELS
        drawn = rng.standard_normal((SIZES[name], len(GROUPS)))
        weights[columns] = drawn / np.linalg.norm(drawn, axis=0) * np.sqrt(strength)
    delayed = np.concatenate([weights * share for share in RESPONSE])
    share = rng.uniform(*SIGNAL, len(GROUPS)) * (GROUPS != "none")
    return delayed, mixing, share


def planted_unique(rng, weights, mixing, share):
    """R2 that each space adds to all others, by regression of the signal in a long film."""
    X = features(rng, N_LONG, mixing)
    delayed = delay(X, DELAYS)
    signal = delayed @ weights
    scale = np.where(share > 0, signal.std(0), 1)
    signal = signal / scale
    unique = {}
    for name, columns in SPACES.items():
        kept = np.ones(X.shape[1], dtype=bool)
        kept[columns] = False
        others = delay(X[:, kept], DELAYS)
        others -= others.mean(0)
        fit = others @ np.linalg.solve(others.T @ others, others.T @ signal)
        unique[name] = share * (signal - fit).var(0)
    return unique, scale


def analyse(seed):
    """What one data set found."""
    start = time.perf_counter()
    weights, mixing, share = plant([seed, 1])
    rng = np.random.default_rng([seed, 2])
    truth, scale = planted_unique(rng, weights, mixing, share)
    runs = np.repeat(np.arange(N_FILMS), FILM_LENGTH)
    X = np.concatenate([features(rng, FILM_LENGTH, mixing) for _ in range(N_FILMS)])
    noise = [autoregressive(rng, FILM_LENGTH, len(GROUPS), 0.4) for _ in range(N_FILMS)]
    noise = np.concatenate(noise)
    signal = delay(X, DELAYS, runs=runs) @ weights / scale
    y = np.sqrt(share) * signal + np.sqrt(1 - share) * noise / noise.std(0)
    X, y = X.astype(np.float32), y.astype(np.float32)

    def predict(used):
        chosen, columns = select_feature_spaces(X, SPACES, used)
        model = VideoEncodingModel(columns, delays=DELAYS, n_iter=N_MIXTURES, random_state=seed)
        return held_out_predictions(model, chosen, y, runs=runs, n_folds=N_FOLDS)

    how = {"t_r": T_R, "runs": runs, "n_permutations": 1000, "random_state": seed}
    compared = compare_feature_spaces(
        y, {name: predict(used) for name, used in models_of(SPACES).items()}, **how
    )
    controlled = models_of(["video", "image", "sound"], control_spaces=["sound"])
    beyond = difference_significance(
        y, predict(controlled["video"]), predict(controlled["image"]), **how
    )
    result = {"seed": seed, "spaces": {}}
    for name, test in compared.unique_tests.items():
        own, nothing = GROUPS == name, GROUPS == "none"
        elsewhere = ~nothing & (truth[name] < 1e-3)
        ranks = rankdata(test.score[own | nothing | elsewhere])
        n_own, n_other = own.sum(), (nothing | elsewhere).sum()
        above = ranks[own[own | nothing | elsewhere]].sum() - n_own * (n_own + 1) / 2
        result["spaces"][name] = {
            "unique_correlation": np.corrcoef(test.score, truth[name])[0, 1],
            "auc": above / (n_own * n_other),
            "null_inflation": test.null_inflation,
            "found": (test.p_values[own] < 0.05).mean(),
            "false_positives": (test.p_values[nothing] < 0.05).mean(),
            "false_positives_elsewhere": (test.p_values[elsewhere] < 0.05).mean(),
        }
    for key, test in (("without", compared.tests["difference"]), ("with", beyond)):
        wins = (test.p_values < 0.05) & (test.score > 0)
        result[f"confound_{key}_control"] = wins[GROUPS == "sound"].mean()
        result[f"motion_{key}_control"] = wins[GROUPS == "video"].mean()
    result["seconds"] = round(time.perf_counter() - start, 1)
    return json.loads(json.dumps(result, default=float))


def summarize(results):
    """Means over data sets with their standard errors, each against its bounds."""

    def row(values, key):
        mean, error = np.mean(values), np.std(values) / np.sqrt(len(values))
        low, high = BOUNDS.get(key, (-np.inf, np.inf))
        return {
            "mean": float(mean),
            "standard_error": float(error),
            "passed": bool(low <= mean <= high),
        }

    spaces = {
        name: {
            key: row([r["spaces"][name][key] for r in results], key)
            for key in results[0]["spaces"][name]
        }
        for name in SIZES
    }
    contrast = {
        key: row([r[key] for r in results], key)
        for key in results[0]
        if key.startswith(("confound", "motion"))
    }
    return spaces, contrast


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="3 data sets")
    parser.add_argument("--n-data-sets", type=int, default=40, help="(40)")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="data sets at a time")
    parser.add_argument(
        "--most-seconds", type=float, metavar="S", help="begin no data set later; the next run does"
    )
    options = parser.parse_args()
    n_sets = 3 if options.quick else options.n_data_sets
    partial = options.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {result["seed"] for result in results}
    jobs = (joblib.delayed(analyse)(seed) for seed in range(n_sets) if seed not in done)
    results += run_and_keep(partial, jobs, options.n_jobs, options.most_seconds)
    results = [result for result in results if result["seed"] < n_sets]
    spaces, contrast = summarize(results)
    rows = [*(row for found in spaces.values() for row in found.values()), *contrast.values()]
    report = {
        "proof": "Four feature spaces: unique variance is what was planted, and a control works",
        "passed": all(row["passed"] for row in rows),
        "n_data_sets": len(results),
        "spaces": spaces,
        "contrast": contrast,
        "bounds": BOUNDS,
        "design": {
            "columns": SIZES,
            "coupling": COUPLING,
            "films": N_FILMS,
            "film_length_volumes": FILM_LENGTH,
            "t_r_s": T_R,
            "folds": N_FOLDS,
            "voxels_per_space": N_VOXELS,
            "signal": SIGNAL,
        },
        "device": f"{platform.machine()} CPU, {options.n_jobs} data sets at a time",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({"spaces": spaces, "contrast": contrast}, indent=1))


if __name__ == "__main__":
    main()
