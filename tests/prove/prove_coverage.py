"""Do 95 % intervals of parcels hold the true score 95 times in 100?

Data sets of five films are predicted in five folds that train each other, or five films train a
model once and five others test it; with noise alone, and with a planted signal. The true score of a
parcel is 0 in noise. With a signal it is what the interval speaks of: under folds the mean over all
data sets, what the same analysis would find on average with other films and other noise; for a
model that was fitted once, the score of this very model in fifty further films.

    python tests/prove/prove_coverage.py --output doc/proofs/coverage.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import platform
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from prove_null import autoregressive

import brainnrds
from brainnrds.encoding import (
    VideoEncodingModel,
    correlation_score,
    held_out_predictions,
    parcel_table,
)
from brainnrds.features import delay

N_FILMS = 5  # tested
N_FURTHER = 50  # films in which a model fitted once has its true score
FILM_LENGTH = 160  # volumes
N_COLUMNS = 60
N_PARCELS, N_VOXELS = 6, 10  # voxels in each
T_R = 2.0  # s
DELAYS = (1, 2, 3, 4)
ALPHAS = tuple(10.0**exponent for exponent in range(6))
SIGNALS = (0.0, 0.35)  # standard deviation, of noise of 1
FOLDS = (5, 1)
BOUNDS = (0.93, 0.97)


def simulate(n_films, signal, seed):
    """Features, standardised responses and films."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(1).standard_normal((4 * N_COLUMNS, N_PARCELS * N_VOXELS))
    X = [autoregressive(rng, FILM_LENGTH, N_COLUMNS, 0.7) for _ in range(n_films)]
    y = [autoregressive(rng, FILM_LENGTH, N_PARCELS * N_VOXELS, 0.4) for _ in range(n_films)]
    films = np.repeat(np.arange(n_films), FILM_LENGTH)
    X, y = np.concatenate(X), np.concatenate(y)
    heard = delay(X, DELAYS, runs=films) @ weights
    y += signal * heard / heard.std()
    for film in np.unique(films):
        y[films == film] -= y[films == film].mean(0)
        y[films == film] /= y[films == film].std(0)
    return X.astype(np.float32), y.astype(np.float32), films


def analyse(n_folds, signal, seed):
    """Score, ends of the interval and true score (None under folds) of each voxel and parcel."""
    once = n_folds == 1
    n_films = N_FILMS + once * (N_FILMS + N_FURTHER)
    X, y, films = simulate(n_films, signal, [2028, n_folds, seed])
    held_out = held_out_predictions(
        VideoEncodingModel(delays=DELAYS, alphas=ALPHAS),
        X,
        y,
        runs=films,
        test_films=np.arange(N_FILMS, n_films) if once else None,
    )
    result = {"n_folds": n_folds, "signal": signal, "seed": seed}
    numbers = np.arange(N_PARCELS * N_VOXELS)
    further = films >= 2 * N_FILMS
    tested = ~further
    for unit, labels in (("voxel", 1 + numbers), ("parcel", 1 + numbers // N_VOXELS)):
        columns = parcel_table(
            y[tested],
            {"r": held_out.predictions[tested]},
            labels,
            t_r=T_R,
            runs=films[tested],
            folds=held_out.folds[tested],
            random_state=seed,
            n_resamples=500,
        )[["r", "r_low", "r_high"]].to_numpy()
        if once:
            scores = correlation_score(
                y[further], held_out.predictions[further], runs=films[further]
            )
            true = np.bincount(labels, scores)[1:] / np.bincount(labels)[1:]
            columns = np.column_stack([columns, true])
        result[unit] = columns.round(5).tolist()
    return result


def summarize(results):
    """Coverage by kind of data set, for single voxels and for parcels."""
    rows = []
    for n_folds in FOLDS:
        for signal in SIGNALS:
            sets = [r for r in results if (r["n_folds"], r["signal"]) == (n_folds, signal)]
            for unit in ("voxel", "parcel"):
                score, low, high, *own = np.array([r[unit] for r in sets]).transpose(2, 0, 1)
                truth = 0 if not signal else own[0] if own else score.mean(0)
                covered = ((low <= truth) & (truth <= high)).mean(1)
                rows.append(
                    {
                        "n_folds": n_folds,
                        "signal": signal,
                        "unit": unit,
                        "n_data_sets": len(sets),
                        "mean_r": float(score.mean()),
                        "standard_deviation": float(score.std(0).mean()),
                        "mean_half_width": float((high - low).mean() / 2),
                        "coverage": float(covered.mean()),
                        "standard_error": float(covered.std() / np.sqrt(len(sets))),
                    }
                )
                rows[-1]["passed"] = BOUNDS[0] <= rows[-1]["coverage"] <= BOUNDS[1]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="10 data sets of each kind")
    parser.add_argument("--n-data-sets", type=int, default=200, help="of each kind (200)")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="data sets at a time")
    options = parser.parse_args()
    n_sets = 10 if options.quick else options.n_data_sets
    partial = options.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {(r["n_folds"], r["signal"], r["seed"]) for r in results}
    jobs = (
        joblib.delayed(analyse)(n_folds, signal, seed)
        for seed in range(n_sets)
        for n_folds in FOLDS
        for signal in SIGNALS
        if (n_folds, signal, seed) not in done
    )
    results += run_and_keep(partial, jobs, options.n_jobs)
    rows = summarize([result for result in results if result["seed"] < n_sets])
    report = {
        "proof": "95 % intervals of parcels hold the true score",
        "passed": all(row["passed"] for row in rows),
        "coverage": rows,
        "bounds": BOUNDS,
        "design": {
            "tested_films": N_FILMS,
            "further_films": N_FURTHER,
            "film_length_volumes": FILM_LENGTH,
            "t_r_s": T_R,
            "voxels_per_parcel": N_VOXELS,
        },
        "device": f"{platform.machine()} CPU, {options.n_jobs} data sets at a time",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
