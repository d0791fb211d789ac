"""Does banded ridge lose where feature spaces say nothing different, and gain where they do?

Data sets of two feature spaces and few training films are fitted with one space alone, with both at
one penalty, and with a mixture per voxel, chosen in four ways: on left-out films or on ten parts of
the films, each voxel by its own scores alone or with a prior that is pooled over voxels. What
counts is the mean correlation in three new films.

Kinds of voxels: "same" (the second space holds mixtures of the first space's columns), "one" (only
the first space matters, the second is noise), "either" (each voxel follows one of the two), "both".

    python tests/prove/prove_mixtures.py --output doc/proofs/mixtures.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import argparse
import itertools
import json
import platform
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from prove_null import autoregressive

import brainnrds
from brainnrds.encoding import VideoEncodingModel, correlation_score
from brainnrds.features import delay

KINDS = ("same", "one", "either", "both")
N_FILMS = (2, 4, 8, 20)
N_COLUMNS = (30, 20)
N_VOXELS = 40
N_DATA_SETS = 200  # of each kind, signal and number of films
N_VOLUMES = 400  # of all training films
SIGNALS = (0.5, 0.25)  # standard deviations, of noise of 1
DELAYS = (1, 2, 3, 4)
ALPHAS = tuple(10.0**exponent for exponent in range(5))
WAYS = {
    "own, films": {"mixture_prior": None, "cv": "films"},
    "own, parts": {"mixture_prior": None, "cv": None},
    "pooled, films": {"cv": "films"},
    "default": {},
}


def simulate(kind, n_films, signal, seed):
    """Features, responses, films, and which films train."""
    rng = np.random.default_rng([2027, seed, n_films])
    films = np.repeat(np.arange(n_films + 3), max(N_VOLUMES // n_films, 20))
    X = autoregressive(rng, len(films), sum(N_COLUMNS), 0.7)
    if kind == "same":
        X[:, N_COLUMNS[0] :] = X[:, : N_COLUMNS[0]] @ rng.standard_normal(N_COLUMNS)
        X /= X.std(0)
    share = {"same": 0.5, "one": 1.0, "both": 0.5}.get(kind, np.arange(N_VOXELS) % 2)
    y = autoregressive(rng, len(films), N_VOXELS, 0.4)
    for columns, part in zip((slice(0, 30), slice(30, 50)), (share, 1 - share), strict=True):
        delayed = delay(X[:, columns], DELAYS, runs=films)
        heard = delayed @ rng.standard_normal((delayed.shape[1], N_VOXELS))
        y += signal * np.sqrt(part) * heard / heard.std(0)
    return X.astype(np.float32), y.astype(np.float32), films, films < n_films


def measure(kind, n_films, signal, seed):
    """Mean correlation in new films, by way."""
    X, y, films, train = simulate(kind, n_films, signal, seed)
    spaces = {"first": slice(0, 30), "second": slice(30, 50)}
    models = {
        "first space": (X[:, :30], VideoEncodingModel(delays=DELAYS, alphas=ALPHAS)),
        "one penalty": (X, VideoEncodingModel(spaces, delays=DELAYS, alphas=ALPHAS, n_iter=1)),
    }
    for way, options in WAYS.items():
        model = VideoEncodingModel(spaces, delays=DELAYS, alphas=ALPHAS, n_iter=11, **options)
        models[way] = X, model
    scores = {}
    for name, (columns, model) in models.items():
        model.fit(columns[train], y[train], runs=films[train])
        predictions = model.predict(columns[~train], runs=films[~train])
        scores[name] = float(correlation_score(y[~train], predictions, runs=films[~train]).mean())
    return scores


def analyse(kind, n_films, signal, seed):
    """What is kept of one data set."""
    row = {"kind": kind, "n_films": n_films, "signal": signal, "seed": seed}
    return {**row, "scores": measure(kind, n_films, signal, seed)}


def summarize(results):
    """One row per kind, signal and number of films, with the difference that counts."""
    rows = []
    for kind, n_films, signal in dict.fromkeys(
        (result["kind"], result["n_films"], result["signal"]) for result in results
    ):
        sets = [
            result["scores"]
            for result in results
            if (result["kind"], result["n_films"], result["signal"]) == (kind, n_films, signal)
        ]
        means = {way: float(np.mean([scores[way] for scores in sets])) for way in sets[0]}
        gains = [scores["default"] - scores["first space"] for scores in sets]
        rows.append(
            {
                "kind": kind,
                "n_films": n_films,
                "signal": signal,
                "n_data_sets": len(sets),
                **means,
                "gain_on_first_space": float(np.mean(gains)),
                "standard_error": float(np.std(gains) / np.sqrt(len(gains))),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="3 data sets of each")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="data sets at a time")
    options = parser.parse_args()
    kept = options.output.with_suffix(".partial.jsonl")
    results = read_finished(kept)
    done = {(r["kind"], r["n_films"], r["signal"], r["seed"]) for r in results}
    n_sets = 3 if options.quick else N_DATA_SETS
    designs = itertools.product(range(n_sets), N_FILMS, KINDS, SIGNALS)
    jobs = (
        joblib.delayed(analyse)(kind, n_films, signal, seed)
        for seed, n_films, kind, signal in designs
        if (kind, n_films, signal, seed) not in done
    )
    results += run_and_keep(kept, jobs, options.n_jobs)
    results = [result for result in results if result["seed"] < n_sets]
    # in the order of the seeds, whichever process was first
    results.sort(key=lambda r: (r["seed"], r["n_films"], r["kind"], r["signal"]))
    report = {
        "proof": "banded ridge does not lose where spaces say nothing different",
        "rows": summarize(results),
        "device": f"{platform.machine()} CPU, {options.n_jobs} data sets at a time",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    report["passed"] = all(
        row["gain_on_first_space"] > -max(0.01, 2 * row["standard_error"])
        for row in report["rows"]
        if row["kind"] in ("same", "one")
    ) and all(
        row["gain_on_first_space"] > 0
        for row in report["rows"]
        if row["kind"] in ("either", "both") and row["signal"] == max(SIGNALS)
    )
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in report["rows"]:
        print(json.dumps(row))
    print("passed" if report["passed"] else "FAILED")


if __name__ == "__main__":
    main()
