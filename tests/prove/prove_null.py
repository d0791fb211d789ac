"""Are p-values honest where nothing can be predicted?

Data sets of noise go through the whole analysis: two feature spaces of 100 and 20 columns, each
alone and both in banded ridge with its inner cross-validation, held-out predictions of every film,
the tests with their default blocks. Noise and features are AR(1) in time, and each data set has its
own. The designs:

- long films of unequal length, with noise of three degrees of autocorrelation;
- four films of 80 s in every scanner run;
- clips of 4 s with 12 s of rest, when features are 0;
- repetition times of 0.72 and 1 s (at the others it is 2 s);
- one film in one run, cut into parts of which the first 18 s do not count;
- one film in four runs, each of which begins with the last 20 s of the one before, cut likewise:
  what was shown twice counts once;
- films that were shown 2, 4 and 10 times: the response to the film is the same every time, but no
  feature describes it. Models are fitted to all presentations; responses and predictions are
  averaged before they are tested, as tests ask for.

    python tests/prove/prove_null.py --output doc/proofs/null.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues. Every data set
is computed by one thread, so that the numbers do not depend on the number of processes.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from scipy.signal import lfilter
from scipy.stats import beta

import brainnrds
from brainnrds.encoding import (
    VideoEncodingModel,
    compare_feature_spaces,
    held_out_predictions,
    models_of,
    select_feature_spaces,
)
from brainnrds.features import response_delays

SPACES = {"video": slice(0, 100), "image": slice(100, 120)}
FEATURE_RHO = 0.7  # between neighbouring volumes
ALPHAS = tuple(10.0**exponent for exponent in range(6))
N_MIXTURES = 7
N_PERMUTATIONS = 2000
N_VOXELS = 200
TESTS = ("video", "image", "difference", "unique video", "unique image")
RATE_BOUNDS = (0.04, 0.06)
SLOW_BOUNDS = (0.03, 0.07)  # with noise of AR(1) 0.9 few blocks are independent


@dataclass(frozen=True)
class Design:
    """What is shown, and the noise."""

    runs: tuple = (220, 280, 320, 380)  # volumes of each scanner run
    film: int | None = None  # volumes of a film, rest included; None: one film a run
    rest: int = 0  # the last volumes of each film, with features of 0
    border: int = 0  # the first volumes of each film, which do not count
    overlap: int = 0  # the last volumes of a run that the next one begins with, where they don't
    rho: float = 0.6  # of the noise
    t_r: float = 2.0  # s
    n_repeats: int = 1
    locked: float = 0.0  # standard deviation of what every presentation evokes; that of noise is 1

    @property
    def bounds(self):
        return SLOW_BOUNDS if self.rho > 0.8 else RATE_BOUNDS


DESIGNS = {
    "long films, noise .3": Design(rho=0.3),
    "long films, noise .6": Design(),
    "long films, noise .9": Design(rho=0.9),
    "short films, noise .3": Design((160,) * 5, film=40, rho=0.3),
    "short films, noise .6": Design((160,) * 5, film=40),
    "short films, noise .9": Design((160,) * 5, film=40, rho=0.9),
    "clips with rest": Design((160,) * 5, film=8, rest=6),
    "repetition time 1 s": Design((240,) * 5, t_r=1.0),
    "repetition time 0.72 s": Design((280,) * 5, t_r=0.72),
    "2 presentations": Design((120,) * 4, n_repeats=2, locked=0.5),
    "4 presentations": Design((120,) * 4, n_repeats=4, locked=0.5),
    "10 presentations": Design((120,) * 4, n_repeats=10, locked=0.5),
    "one film in parts": Design((800,), film=80, border=9),
    "overlapping parts": Design((200, 210, 210, 210), film=80, border=9, overlap=10),
}


def autoregressive(rng, n_samples, n_series, rho):
    """Stationary AR(1) series of unit variance, (n_samples, n_series)."""
    innovations = rng.standard_normal((n_samples, n_series)) * np.sqrt(1 - rho**2)
    innovations[0] = rng.standard_normal(n_series)
    return lfilter([1], [1, -rho], innovations, axis=0)


def null_data_set(design, seed, *, n_voxels=N_VOXELS):
    """Features and unrelated responses: X, y (n_repeats, n_samples, n_voxels), and labels.

    Labels are runs, films, and what is held out together, of one presentation. Responses are
    z-scored in each presentation.
    """
    name = next(i for i, d in enumerate(DESIGNS.values()) if d == design)
    rng = np.random.default_rng([2026, name, seed])
    n_columns = max(columns.stop for columns in SPACES.values())
    X = np.concatenate([autoregressive(rng, n, n_columns, FEATURE_RHO) for n in design.runs])
    runs = np.repeat(np.arange(len(design.runs)), design.runs)
    # volumes of the film, in which each run after the first goes back by the overlap
    shown = np.arange(len(runs)) - design.overlap * runs
    films = runs if design.film is None else shown // design.film
    if design.border:
        films = np.where(shown % design.film < design.border, -1, films)
    groups = films
    if design.overlap:
        again = np.r_[False, np.maximum.accumulate(shown)[:-1] >= shown[1:]]
        X[again] = X[~again][shown[again]]
        # a part that a run's end divides is two presentations, which are held out together
        groups = np.where(again, -1, films)
        films = np.where(groups < 0, -1, len(runs) * runs + films)
    if design.rest:
        X[np.arange(len(runs)) % design.film >= design.film - design.rest] = 0
    locked = np.concatenate([autoregressive(rng, n, n_voxels, 0.6) for n in design.runs])
    y = np.empty((design.n_repeats, len(runs), n_voxels), np.float32)
    for repeat in y:
        noise = [autoregressive(rng, n, n_voxels, design.rho) for n in design.runs]
        repeat[:] = design.locked * locked + np.concatenate(noise)
        for run in range(len(design.runs)):
            repeat[runs == run] -= repeat[runs == run].mean(0)
            repeat[runs == run] /= repeat[runs == run].std(0)
    return X.astype(np.float32), y, runs, films, groups


def analyse(name, seed, *, n_voxels=N_VOXELS, n_permutations=N_PERMUTATIONS):
    """Run all tests on one data set of a design; numbers of false positives per test."""
    start = time.perf_counter()
    design = DESIGNS[name]
    X, y, runs, films, groups = null_data_set(design, seed, n_voxels=n_voxels)
    n_repeats, n_samples = y.shape[:2]
    presentations = np.concatenate([runs + len(design.runs) * i for i in range(n_repeats)])
    held_out = {}
    for model, used in models_of(SPACES).items():
        columns, spaces = select_feature_spaces(X, SPACES, used)
        predicted = held_out_predictions(
            VideoEncodingModel(
                spaces, delays=response_delays(design.t_r), alphas=ALPHAS, n_iter=N_MIXTURES
            ),
            np.tile(columns, (n_repeats, 1)),
            y.reshape(-1, n_voxels),
            runs=presentations,
            films=np.tile(groups, n_repeats),
        )
        # all presentations of a film are predicted in one fold
        held_out[model] = predicted.predictions.reshape(y.shape).mean(0)
        folds = predicted.folds[:n_samples]
    compared = compare_feature_spaces(
        y.mean(0),
        held_out,
        t_r=design.t_r,
        runs=runs,
        films=films,
        folds=folds,
        n_permutations=n_permutations,
        random_state=seed,
    )
    tests = {**compared.tests, **{f"unique {s}": t for s, t in compared.unique_tests.items()}}
    result = {"design": name, "seed": seed, "n_voxels": n_voxels}
    result |= {test: false_positives(tests[test]) for test in TESTS}
    result["seconds"] = time.perf_counter() - start
    return result


def false_positives(test):
    """Numbers of p-values below some limits, and what else a proof reports of a test."""
    p_values = test.p_values
    return {
        "below_05": int(np.sum(p_values < 0.05)),
        "below_01": int(np.sum(p_values < 0.01)),
        "below_001": int(np.sum(p_values < 0.001)),
        "histogram": np.histogram(p_values, bins=20, range=(0, 1))[0].tolist(),
        "any_discovery": bool(np.any(test.q_values < 0.05)),
        "any_family_wise": bool(np.any(test.p_max < 0.05)),
        "n_blocks": test.n_blocks,
        "dependence_inflation": test.dependence_inflation,
        "z_variance": float(np.var(test.z)),
    }


def exact_interval(n_hits, n_trials, confidence=0.95):
    """Clopper-Pearson interval of a share."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, n_hits, n_trials - n_hits + 1) if n_hits else 0.0
    high = beta.ppf(1 - tail, n_hits + 1, n_trials - n_hits) if n_hits < n_trials else 1.0
    return float(low), float(high)


def summarise(results, designs=DESIGNS):
    """One row per design and test, with bounds and whether they are met."""
    rows = []
    for name, design in designs.items():
        sets = [result for result in results if result["design"] == name]
        if not sets:
            continue
        for test in TESTS:
            tested = [result[test] for result in sets]
            shares = np.array([result[test]["below_05"] / result["n_voxels"] for result in sets])
            n_voxels = sum(result["n_voxels"] for result in sets)
            rate, error = shares.mean(), shares.std() / np.sqrt(len(sets))
            n_discoveries = sum(t["any_discovery"] for t in tested)
            n_family_wise = sum(t["any_family_wise"] for t in tested)
            interval = exact_interval(n_discoveries, len(sets))
            low, high = design.bounds
            rows.append(
                {
                    "design": name,
                    "test": test,
                    "n_data_sets": len(sets),
                    "n_voxels_per_data_set": sets[0]["n_voxels"],
                    "rate_below_05": float(rate),
                    "rate_standard_error": float(error),
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
                    "mean_z_variance": float(np.mean([t["z_variance"] for t in tested])),
                    "p_histogram": np.sum([t["histogram"] for t in tested], axis=0).tolist(),
                    "passed": bool(low <= rate <= high and interval[0] <= 0.05),
                }
            )
    return rows


def read_arguments(about):
    """Arguments of a proof of false positives."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="6 data sets of each design")
    parser.add_argument("--n-data-sets", type=int, default=200, help="of each design (200)")
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="data sets at a time, one thread each"
    )
    parser.add_argument(
        "--most-seconds", type=float, metavar="S", help="begin no data set later; the next run does"
    )
    return parser.parse_args()


def prove(about, report, analyse, designs):
    """Analyse the data sets of each design that are not finished; write the report, print rows.

    `analyse` takes a design's name and a seed; `report` says what was proved, and by what.
    """
    arguments = read_arguments(about)
    n_data_sets = 6 if arguments.quick else arguments.n_data_sets
    partial = arguments.output.with_suffix(".quick.jsonl" if arguments.quick else ".partial.jsonl")
    results = read_finished(partial)
    done = {(result["design"], result["seed"]) for result in results}
    jobs = (
        joblib.delayed(analyse)(name, seed)
        for seed in range(n_data_sets)
        for name in designs
        if (name, seed) not in done
    )
    results.extend(run_and_keep(partial, jobs, arguments.n_jobs, arguments.most_seconds))
    # in the order of the seeds, whichever process was first
    results = sorted((r for r in results if r["seed"] < n_data_sets), key=lambda r: r["seed"])
    rows = summarise(results, designs)
    report = {
        **report,
        "designs": {name: asdict(design) for name, design in designs.items()},
        "n_permutations": N_PERMUTATIONS,
        "seeds": [0, max(result["seed"] for result in results)],
        "versions": {
            "brainnrds": brainnrds.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": f"CPU, {arguments.n_jobs} data sets at a time, one thread each",
        "seconds": sum(result["seconds"] for result in results),
        "passed": all(row["passed"] for row in rows),
        "tests": rows,
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        low, high = row["share_any_discovery_interval"]
        print(
            f"{row['design']:<28} {row['test']:<13} p < .05: {row['rate_below_05']:.4f} "
            f"(+- {row['rate_standard_error']:.4f})  any discovery: "
            f"{row['share_any_discovery']:.3f} [{low:.3f}, {high:.3f}]  "
            f"{'passed' if row['passed'] else 'FAILED'}"
        )


if __name__ == "__main__":
    about = {
        "proof": "false positives where nothing can be predicted",
        "columns": {name: columns.stop - columns.start for name, columns in SPACES.items()},
        "feature_rho": FEATURE_RHO,
    }
    prove(__doc__, about, analyse, DESIGNS)
