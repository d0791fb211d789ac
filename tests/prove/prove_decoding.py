"""Is the brain gain honest where there is no brain in it, and found where there is?

Three kinds of small planted data sets (BOLD that carries patches of motion and camera pans, frame
features that hold a part of the motion, AR(1) noise):

* null: the BOLD of other runs, with all its autocorrelation. The p-values of the brain gain must be
  uniform (Kolmogorov-Smirnov p > .01), at most 6 of 50 below .05; and the decoder trained
  on permuted BOLD must not gain anything over the image-only control.
* planted: gain > 0 with p < .01, and less error than every control.
* predictable: motion can be told from the frame, BOLD holds little: the image-only control
  must be able to win.

    python tests/prove/prove_decoding.py --output doc/proofs/decoding.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues. Every data set
is computed by one thread, so that the numbers do not depend on the number of processes.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from finished import read_finished, run_and_keep
from scipy.stats import kstest

import brainnrds
from brainnrds.decoding import MotionDecoder, compare_to_controls

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "decoding"))
from planted import plant_motion  # noqa: E402

N_RUNS, N_TEST_RUNS, N_PER_RUN, T_R = 14, 6, 60, 2.0
CASES = {
    # name: (data sets, snr, share of motion that the frame holds)
    "null": (50, 1.0, 0.4),
    "planted": (10, 1.0, 0.4),
    "predictable": (10, 0.05, 1.5),
}
N_PERMUTATIONS = 1000


def analyse(case, seed, *, n_permutations=N_PERMUTATIONS, n_epochs=15):
    """Fit a decoder and its controls on one data set; return the numbers that count."""
    start = time.perf_counter()
    _, snr, predictable = CASES[case]
    bold, flow, features, runs = plant_motion(
        [2026, list(CASES).index(case), seed],
        n_runs=N_RUNS,
        n_per_run=N_PER_RUN,
        snr=snr,
        predictable=predictable,
    )
    test = runs >= N_RUNS - N_TEST_RUNS
    if case == "null":  # every run gets the BOLD of the next one, training and test apart
        for part in (~test, test):
            bold[part] = np.roll(bold[part], N_PER_RUN, axis=0)
    decoder = MotionDecoder(
        12,
        n_bold_channels=48,
        n_channels=32,
        n_blocks=2,
        n_frequencies=2,
        n_epochs=n_epochs,
        batch_size=32,
        learning_rate=3e-3,
        validation_share=0.15,
        random_state=seed,
    )
    decoder.fit(
        bold[~test],
        flow[~test],
        image_features=features[~test],
        runs=runs[~test],
        films=runs[~test],
    )
    comparison = compare_to_controls(
        decoder,
        bold,
        flow,
        test=test,
        t_r=T_R,
        image_features=features,
        runs=runs,
        films=runs,
        n_permutations=n_permutations,
        random_state=seed,
    )
    gain = comparison.gain.loc["all"]
    errors = comparison.table["end_point_error_px"]
    return {
        "case": case,
        "seed": seed,
        "gain_px": float(gain["gain_px"]),
        "low": float(gain["low"]),
        "high": float(gain["high"]),
        "p": float(gain["p"]),
        "p_paired": float(gain["p_paired"]),
        "n_blocks": int(gain["n_blocks"]),
        "smallest_p": float(gain["smallest_p"]),
        "retrained_gain_px": float(comparison.table.loc["retrained_on_permuted_bold", "gain_px"]),
        "errors_px": {name: float(error) for name, error in errors.items()},
        "beats_every_control": bool(errors.idxmin() == "decoder"),
        "seconds": time.perf_counter() - start,
    }


def summarise(results):
    """One entry per case: figures, bounds, whether they are met."""
    summary = {}
    for case in CASES:
        sets = [result for result in results if result["case"] == case]
        if not sets:
            continue
        p = np.array([result["p"] for result in sets])
        gain = np.array([result["gain_px"] for result in sets])
        retrained = np.array([result["retrained_gain_px"] for result in sets])
        entry = {
            "n_data_sets": len(sets),
            "gain_px_mean": float(gain.mean()),
            "gain_px_range": [float(gain.min()), float(gain.max())],
            "p_sorted": sorted(p.tolist()),
            "n_p_below_05": int((p < 0.05).sum()),
            "retrained_gain_px_mean": float(retrained.mean()),
            "retrained_gain_px_range": [float(retrained.min()), float(retrained.max())],
            "n_beats_every_control": sum(result["beats_every_control"] for result in sets),
            "seconds_per_data_set": float(np.mean([result["seconds"] for result in sets])),
        }
        if case == "null":
            entry["ks_p"] = float(kstest(p, "uniform").pvalue)
            entry["bounds"] = {"ks_p": "> 0.01", "n_p_below_05": "<= 6 of 50 (12 %)"}
            # no gain: the mean is not above 0 by more than two standard errors
            margin = 2 * retrained.std(ddof=1) / np.sqrt(len(sets)) if len(sets) > 1 else 0.0
            entry["bounds"]["retrained_gain_px_mean"] = f"<= {margin:.4g} (two standard errors)"
            entry["passed"] = bool(
                entry["ks_p"] > 0.01
                and entry["n_p_below_05"] <= max(1, 0.12 * len(sets))
                and retrained.mean() <= margin
            )
        elif case == "planted":
            entry["bounds"] = {"p": "< .01 in all", "gain": "> 0 in all", "beats": "every control"}
            entry["passed"] = bool(
                (p < 0.01).all()
                and (gain > 0).all()
                and entry["n_beats_every_control"] == len(sets)
            )
        else:
            won = sum(
                result["errors_px"]["image_only"] < result["errors_px"]["decoder"]
                and result["errors_px"]["image_only"] < 0.9 * result["errors_px"]["zero_flow"]
                for result in sets
            )
            entry["n_image_only_wins"] = int(won)
            entry["bounds"] = {"n_image_only_wins": "at least half"}
            entry["passed"] = bool(won >= len(sets) / 2)
        summary[case] = entry
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="3 data sets per case")
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="data sets at a time, one thread each"
    )
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {(result["case"], result["seed"]) for result in results}
    jobs = (
        joblib.delayed(analyse)(case, seed)
        for case, (n_sets, *_) in CASES.items()
        for seed in range(3 if arguments.quick else n_sets)
        if (case, seed) not in done
    )
    for result in run_and_keep(partial, jobs, arguments.n_jobs):
        results.append(result)
        print(
            f"{result['case']} {result['seed']}: "
            f"gain {result['gain_px']:.4f} px, p {result['p']:.3f}",
            flush=True,
        )
    # in the order of the seeds, whichever process was first
    results.sort(key=lambda result: (list(CASES).index(result["case"]), result["seed"]))
    summary = summarise(results)

    record = {
        "what": __doc__.splitlines()[0],
        "passed": all(entry["passed"] for entry in summary.values()),
        "cases": summary,
        "data_sets": results,
        "n_permutations": N_PERMUTATIONS,
        "quick": arguments.quick,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "brainnrds": brainnrds.__version__,
        },
        "device": f"CPU, {arguments.n_jobs} data sets at a time, one thread each",
    }
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1))
    os.replace(temporary, arguments.output)
    partial.unlink(missing_ok=True)
    for case, entry in summary.items():
        print(case, "passed" if entry["passed"] else "FAILED", json.dumps(entry, indent=1))
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
