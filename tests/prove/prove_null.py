"""Are p-values honest where nothing can be predicted?

Data sets of pure noise go through the whole analysis: two feature spaces of 200 and 20 columns,
banded ridge with its inner cross-validation, held-out predictions of every film, the tests with
their default blocks. Noise is AR(1) in time, features are autocorrelated too, films differ in
length, and each data set has its own noise and its own features.

    python tests/prove/prove_null.py --output doc/proofs/null.json [--quick] [--n-jobs N]
    python tests/prove/prove_null.py --output doc/proofs/null_short_films.json --short-films

With ``--short-films`` every run shows four films of two blocks each.

Finished data sets are kept beside the output, so that an interrupted run continues. Every data set
is computed by one thread, so that the numbers do not depend on the number of processes.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from scipy.signal import lfilter
from scipy.stats import beta

import brainnrds
from brainnrds.encoding import (
    VideoEncodingModel,
    difference_significance,
    held_out_predictions,
    prediction_significance,
)

RHOS = (0.3, 0.6, 0.9)
SPACES = {"video": slice(0, 200), "image": slice(200, 220)}
# volumes of each run, and of each film in them
FILM_LENGTHS = (220, 280, 320, 380)
SHORT_FILMS = ((160,) * 5, 40)
T_R = 2.0  # s
FEATURE_RHO = 0.7
ALPHAS = tuple(10.0**exponent for exponent in range(6))
N_PERMUTATIONS = 2000
TESTS = ("video", "image", "difference")
RATE_BOUNDS = {0.3: (0.04, 0.06), 0.6: (0.04, 0.06), 0.9: (0.03, 0.07)}


def autoregressive(rng, n_samples, n_series, rho):
    """Stationary AR(1) series of unit variance, (n_samples, n_series)."""
    innovations = rng.standard_normal((n_samples, n_series)) * np.sqrt(1 - rho**2)
    innovations[0] = rng.standard_normal(n_series)
    return lfilter([1], [1, -rho], innovations, axis=0)


def null_data_set(rho, seed, *, n_voxels=200, film_lengths=FILM_LENGTHS):
    """Features and unrelated responses: X, y (z-scored per run), runs."""
    rng = np.random.default_rng([2026, round(100 * rho), seed])
    n_columns = max(columns.stop for columns in SPACES.values())
    X = [autoregressive(rng, length, n_columns, FEATURE_RHO) for length in film_lengths]
    y = [autoregressive(rng, length, n_voxels, rho) for length in film_lengths]
    y = [(part - part.mean(0)) / part.std(0) for part in y]
    runs = np.repeat(np.arange(len(film_lengths)), film_lengths)
    return np.concatenate(X).astype(np.float32), np.concatenate(y).astype(np.float32), runs


def analyse(rho, seed, *, n_voxels=200, n_permutations=N_PERMUTATIONS, short_films=False):
    """Run all tests on one data set; numbers of false positives per test."""
    start = time.perf_counter()
    films = None
    if short_films:
        run_lengths, film_length = SHORT_FILMS
        X, y, runs = null_data_set(rho, seed, n_voxels=n_voxels, film_lengths=run_lengths)
        films = np.arange(len(y)) // film_length
    else:
        X, y, runs = null_data_set(rho, seed, n_voxels=n_voxels)
    held_out = {
        name: held_out_predictions(
            VideoEncodingModel(alphas=ALPHAS), X[:, columns], y, runs=runs, films=films
        )
        for name, columns in SPACES.items()
    }
    folds = held_out["video"].folds
    predictions = {name: result.predictions for name, result in held_out.items()}
    labels = {"t_r": T_R, "runs": runs, "films": films, "folds": folds}
    options = {**labels, "n_permutations": n_permutations, "random_state": seed}
    tests = {name: prediction_significance(y, predictions[name], **options) for name in SPACES}
    tests["difference"] = difference_significance(
        y, predictions["video"], predictions["image"], **options
    )
    result = {"rho": rho, "seed": seed, "n_voxels": n_voxels}
    for name, test in tests.items():
        p_values = test.p_values
        result[name] = {
            "below_05": int(np.sum(p_values < 0.05)),
            "below_01": int(np.sum(p_values < 0.01)),
            "below_001": int(np.sum(p_values < 0.001)),
            "histogram": np.histogram(p_values, bins=20, range=(0, 1))[0].tolist(),
            "any_discovery": bool(np.any(test.q_values < 0.05)),
            "any_family_wise": bool(np.any(test.p_max < 0.05)),
            "smallest_p": float(p_values.min()),
            "n_blocks": test.n_blocks,
            "z_variance": float(np.var(test.z)),
        }
    result["seconds"] = time.perf_counter() - start
    return result


def exact_interval(n_hits, n_trials, confidence=0.95):
    """Clopper-Pearson interval of a share."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, n_hits, n_trials - n_hits + 1) if n_hits else 0.0
    high = beta.ppf(1 - tail, n_hits + 1, n_trials - n_hits) if n_hits < n_trials else 1.0
    return float(low), float(high)


def summarise(results):
    """One row per rho and test, with bounds and whether they are met."""
    rows = []
    for rho in RHOS:
        sets = [result for result in results if result["rho"] == rho]
        if not sets:
            continue
        for name in TESTS:
            tested = [result[name] for result in sets]
            shares = np.array([result[name]["below_05"] / result["n_voxels"] for result in sets])
            n_voxels = sum(result["n_voxels"] for result in sets)
            rate = sum(t["below_05"] for t in tested) / n_voxels
            n_discoveries = sum(t["any_discovery"] for t in tested)
            n_family_wise = sum(t["any_family_wise"] for t in tested)
            interval = exact_interval(n_discoveries, len(sets))
            low, high = RATE_BOUNDS[rho]
            rows.append(
                {
                    "rho": rho,
                    "test": name,
                    "n_data_sets": len(sets),
                    "n_voxels_per_data_set": sets[0]["n_voxels"],
                    "rate_below_05": rate,
                    "rate_standard_error": float(shares.std() / np.sqrt(len(sets))),
                    "rate_bounds": [low, high],
                    "rate_below_01": sum(t["below_01"] for t in tested) / n_voxels,
                    "rate_below_001": sum(t["below_001"] for t in tested) / n_voxels,
                    "share_any_discovery": n_discoveries / len(sets),
                    "share_any_discovery_interval": interval,
                    "share_any_family_wise": n_family_wise / len(sets),
                    "share_any_family_wise_interval": exact_interval(n_family_wise, len(sets)),
                    "n_blocks": [
                        min(t["n_blocks"] for t in tested),
                        max(t["n_blocks"] for t in tested),
                    ],
                    "p_histogram": np.sum([t["histogram"] for t in tested], axis=0).tolist(),
                    "passed": bool(low <= rate <= high and interval[0] <= 0.05),
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="6 data sets per rho")
    parser.add_argument("--short-films", action="store_true", help="films of 80 s, four in a run")
    parser.add_argument("--n-data-sets", type=int, default=200, help="per rho (default: 200)")
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="data sets at a time, one thread each"
    )
    arguments = parser.parse_args()
    n_data_sets = 6 if arguments.quick else arguments.n_data_sets
    partial = arguments.output.with_suffix(".quick.jsonl" if arguments.quick else ".partial.jsonl")
    results = read_finished(partial)
    done = {(result["rho"], result["seed"]) for result in results}
    jobs = (
        joblib.delayed(analyse)(rho, seed, short_films=arguments.short_films)
        for seed in range(n_data_sets)
        for rho in RHOS
        if (rho, seed) not in done
    )
    for result in run_and_keep(partial, jobs, arguments.n_jobs):
        results.append(result)
        print(f"rho {result['rho']}, seed {result['seed']} of {n_data_sets}", flush=True)
    results = [result for result in results if result["seed"] < n_data_sets]
    # in the order of the seeds, whichever process was first
    results.sort(key=lambda result: (result["rho"], result["seed"]))
    rows = summarise(results)
    report = {
        "proof": "false positives where nothing can be predicted",
        "passed": all(row["passed"] for row in rows),
        "tests": rows,
        "design": {
            **(
                {"run_lengths_volumes": SHORT_FILMS[0], "film_length_volumes": SHORT_FILMS[1]}
                if arguments.short_films
                else {"film_lengths_volumes": FILM_LENGTHS}
            ),
            "t_r_s": T_R,
            "columns": {name: columns.stop - columns.start for name, columns in SPACES.items()},
            "feature_rho": FEATURE_RHO,
            "n_permutations": N_PERMUTATIONS,
            "seeds": [0, n_data_sets - 1],
        },
        "versions": {
            "brainnrds": brainnrds.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": f"CPU, {arguments.n_jobs} data sets at a time, one thread each",
        "seconds": sum(result["seconds"] for result in results),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        low, high = row["share_any_discovery_interval"]
        print(
            f"rho {row['rho']} {row['test']:<10} p < .05: {row['rate_below_05']:.4f} "
            f"(+- {row['rate_standard_error']:.4f})  any discovery: "
            f"{row['share_any_discovery']:.3f} [{low:.3f}, {high:.3f}]  "
            f"{'passed' if row['passed'] else 'FAILED'}"
        )


if __name__ == "__main__":
    main()
