"""Is the brain gain 0 where BOLD knows nothing of the film, also where training has not ended?

Films with many still and few fast moments (the cube of a sum of pans and patches), image features
that tell nothing. A data set is one decoder with all its controls (seven networks): small ones, and
those of `MotionDecoder` by default.

* rest: BOLD like that of somebody at rest, with power of 1 / f and networks in common. Stopped
  early (6 epochs) and trained to the end; films shared by all data sets, and films anew. Of each
  kind at most 5 % may have an interval above 0, a paired p or a permutation p below .05 (bounds:
  what a fair test exceeds in one of a hundred proofs). The gain over the image-only control, which
  learns at another rate, is counted beside it.
* planted: BOLD answers to the motion. The gain must be found in every data set, the decoder must
  err less than every control, and the gain must be supported wherever training had ended.
* predictable: the frame tells the motion, BOLD next to nothing: image-only must be able to win.

    python tests/prove/prove_brain_gain.py --output doc/proofs/brain_gain.json [--quick]
        [--n-sets N] [--n-jobs N] [--most-seconds S]

Finished data sets are kept beside the output, so that an interrupted run continues. Every data set
is computed by one thread, so that the numbers do not depend on the number of processes.
"""

import argparse
import json
import os
import platform
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from finished import read_finished, run_and_keep
from scipy.stats import binom

import brainnrds
from brainnrds.blocks import block_bootstrap_interval
from brainnrds.datasets import make_flow_samples
from brainnrds.decoding import MotionDecoder, compare_to_controls

N_FILMS, N_TEST, N_CLIPS = 12, 6, 40
N_PERMUTATIONS = 200
EARLY = {"n_epochs": 6, "learning_rate": 1e-3}
TO_THE_END = {"n_epochs": 60, "patience": 6, "learning_rate": 3e-3}
SMALL = {"n_codes": 12, "n_bold_channels": 48, "n_channels": 32, "n_blocks": 2, "batch_size": 32}
DEFAULT = {}  # of 40 codes, 256 and 128 channels
CASES = {
    # name: (data sets, films shared, network and training); their order is part of the seeds
    "rest, stopped early, films shared": (50, True, SMALL | EARLY),
    "rest, stopped early, films anew": (50, False, SMALL | EARLY),
    "rest, to the end, films shared": (50, True, SMALL | TO_THE_END),
    "rest, to the end, films anew": (50, False, SMALL | TO_THE_END),
    "planted": (10, False, SMALL | TO_THE_END),
    "predictable": (10, False, SMALL | TO_THE_END),
    "rest, default network, stopped early, films shared": (50, True, DEFAULT | {"n_epochs": 6}),
    "rest, default network, stopped early, films anew": (50, False, DEFAULT | {"n_epochs": 6}),
    "rest, default network, to the end, films shared": (50, True, DEFAULT),
    "rest, default network, to the end, films anew": (50, False, DEFAULT),
    "planted, default network": (10, False, DEFAULT),
}


def resting_bold(random, n_voxels=60, n_networks=5):
    """Runs of 1 / f noise, half of it in networks that voxels share; z-scored by run."""
    frequency = np.fft.rfftfreq(N_CLIPS, 2.0)
    frequency[0] = frequency[1]

    def noise(n):
        spectrum = random.normal(size=(2, len(frequency), n)) / np.sqrt(frequency)[:, None]
        series = np.fft.irfft(spectrum[0] + 1j * spectrum[1], N_CLIPS, axis=0)
        return (series - series.mean(axis=0)) / series.std(axis=0)

    runs = []
    for _ in range(N_FILMS):
        shared = noise(n_networks) @ random.normal(size=(n_networks, n_voxels))
        run = noise(n_voxels) + shared / np.sqrt(n_networks)
        runs.append((run - run.mean(axis=0)) / run.std(axis=0))
    return np.concatenate(runs).astype(np.float32)


def make_data(case, seed):
    """BOLD, flow, image features, films."""
    i_case = list(CASES).index(case)
    _, shared, _ = CASES[case]
    films_seed = 0 if shared else 1000 * i_case + seed
    parameters = {"snr": 0.05, "frame_share": 1.5} if case == "predictable" else {}
    samples = make_flow_samples(
        n_films=N_FILMS, n_clips=N_CLIPS, grid=(4, 4), random_state=films_seed, **parameters
    )
    bold, flow, features = samples.bold, samples.flow, samples.image_features
    if case.startswith("rest"):
        random = np.random.default_rng([2026, i_case, seed])
        flow = 3 * flow**3
        # one draw for all data sets with the same films
        tell_nothing = np.random.default_rng([2026, films_seed])
        features = tell_nothing.normal(size=(len(flow), 8, 2, 2)).astype(np.float32)
        bold = resting_bold(random)
    return bold, flow, features, samples.films


def analyse(case, seed):
    """Fit a decoder and its controls on one data set; return the numbers that count."""
    start = time.perf_counter()
    bold, flow, features, films = make_data(case, seed)
    test = films >= N_FILMS - N_TEST
    decoder = MotionDecoder(validation_share=0.15, random_state=seed, **CASES[case][2])
    labels = {"image_features": features, "runs": films, "films": films}
    decoder.fit(bold[~test], flow[~test], **{name: x[~test] for name, x in labels.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that training had not ended is what is looked at
        comparison = compare_to_controls(
            decoder,
            bold,
            flow,
            test=test,
            t_r=2.0,
            permute_within=np.zeros_like(films),  # short films: blocks change places between them
            n_permutations=N_PERMUTATIONS,
            random_state=seed,
            **labels,
        )
    gain = comparison.gain.loc["all"]
    error = {name: score["end_point_error_px"] for name, score in comparison.per_clip.items()}
    over_image_only = error["image_only"] - error["decoder"]
    low, _ = block_bootstrap_interval(over_image_only, comparison.blocks, random_state=seed)
    errors = comparison.table["end_point_error_px"]
    return {
        "case": case,
        "seed": seed,
        **{name: float(gain[name]) for name in ("gain_px", "low", "high", "p", "p_paired")},
        "sd_training_px": float(gain["sd_training_px"]),
        "n_blocks": int(gain["n_blocks"]),
        "n_networks": sum(map(len, comparison.fitted.values())),
        "converged": bool(gain["converged"]),
        "supported": bool(gain["supported"]),
        "gain_over_image_only_px": float(over_image_only.mean()),
        "gain_over_image_only_low": float(low),
        "errors_px": {name: float(value) for name, value in errors.items()},
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
        entry = {
            "n_data_sets": len(sets),
            "gain_px_mean": float(np.mean([s["gain_px"] for s in sets])),
            "gain_px_range": [f(s["gain_px"] for s in sets) for f in (min, max)],
            "n_interval_above_0": sum(s["low"] > 0 for s in sets),
            "n_p_below_05": sum(s["p"] < 0.05 for s in sets),
            "n_p_paired_below_05": sum(s["p_paired"] < 0.05 for s in sets),
            "n_converged": sum(s["converged"] for s in sets),
            "n_supported": sum(s["supported"] for s in sets),
            "n_image_only_interval_above_0": sum(s["gain_over_image_only_low"] > 0 for s in sets),
            "n_beats_every_control": sum(s["beats_every_control"] for s in sets),
            "seconds_per_data_set": float(np.mean([s["seconds"] for s in sets])),
        }
        if case.startswith("rest"):
            # 5 %, and what a fair test exceeds in one of a hundred proofs
            most = int(binom.ppf(0.99, len(sets), 0.05))
            names = ("n_interval_above_0", "n_p_below_05", "n_p_paired_below_05", "n_supported")
            entry["bounds"] = {name: f"<= {most} of {len(sets)}" for name in names}
            entry["passed"] = all(entry[name] <= most for name in names)
            if "early" in case:
                entry["bounds"]["n_supported"] = "0"
                entry["passed"] = entry["passed"] and entry["n_supported"] == 0
        elif case.startswith("planted"):
            # where the default number of epochs did not reach the end, nothing is to be claimed
            entry["bounds"] = {
                "n_interval_above_0, n_p_below_05, n_beats_every_control": "all",
                "n_supported": "all whose training had ended",
                "n_converged": "at least 80 %",
            }
            names = ("n_interval_above_0", "n_p_below_05", "n_beats_every_control")
            entry["passed"] = all(entry[name] == len(sets) for name in names) and entry[
                "n_supported"
            ] == entry["n_converged"] >= 0.8 * len(sets)
        else:
            won = sum(s["errors_px"]["image_only"] < s["errors_px"]["decoder"] for s in sets)
            entry["n_image_only_wins"] = int(won)
            entry["bounds"] = {"n_image_only_wins": "at least half"}
            entry["passed"] = bool(won >= len(sets) / 2)
        summary[case] = entry
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="2 data sets per case")
    parser.add_argument("--n-sets", type=int, help="at most so many data sets per case")
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="data sets at a time, one thread each"
    )
    parser.add_argument(
        "--most-seconds", type=float, metavar="S", help="begin no data set later; the next run does"
    )
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {(result["case"], result["seed"]) for result in results}
    most = 2 if arguments.quick else arguments.n_sets or 10**6
    # case after case in turn, so that a run that is stopped has some of each
    order = [
        (case, seed)
        for seed in range(most if most < 10**6 else max(n for n, *_ in CASES.values()))
        for case, (n_sets, *_) in CASES.items()
        if seed < n_sets
    ]
    jobs = (joblib.delayed(analyse)(*job) for job in order if job not in done)
    for result in run_and_keep(partial, jobs, arguments.n_jobs, arguments.most_seconds):
        results.append(result)
        print(
            f"{result['case']} {result['seed']}: gain {result['gain_px']:.4f} px "
            f"({result['low']:.4f} to {result['high']:.4f}), p {result['p']:.3f}",
            flush=True,
        )
    # in the order of the seeds, whichever process was first
    results = [result for result in results if (result["case"], result["seed"]) in set(order)]
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
    if not arguments.n_sets:
        partial.unlink(missing_ok=True)
    for case, entry in summary.items():
        print(case, "passed" if entry["passed"] else "FAILED", json.dumps(entry, indent=1))
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
