"""Do encode and decode hold on sample data unlike the default ones?

Repetition times of 0.7 s, films of 16 s, two films in all, repeats that are not averaged: each kind
of data is made anew for every seed, and goes through the App as it is, and with its films
exchanged, so that BOLD has nothing to do with them (`prove_sample`).

* planted: voxels that answer to motion are told from all others by *Video > Image*; the decoder has
  a brain gain.
* null: p < .05 in no more than 5 % of voxels (6 % over the few seeds) for each model, the
  difference and unique variance; no brain gain is claimed.

    python tests/prove/prove_other_data.py --output doc/proofs/other_data.json
        [--quick] [--n-seeds N] [--n-jobs N] [--device cuda] [--most-seconds S]

What is finished is kept beside the output, so that an interrupted run continues. With several GPUs
the data sets of one run share them.
"""

import argparse
import json
import platform
import tempfile
import warnings
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
import torch
from finished import read_finished, run_and_keep
from prove_sample import exchange_films
from sklearn.metrics import roc_auc_score

import brainnrds
from brainnrds.analyses import (
    DecodeOptions,
    EncodeOptions,
    decode_participant,
    encode_participant,
)
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import load_table, save_json

QUICK = {
    "n_runs": 3,
    "n_films_per_run": 1,
    "n_repeats": 2,
    "n_test_films": 1,
    "n_test_repeats": 2,
    "film_duration": 56,
}
# 126 s: whole volumes of 0.7 s, and whole clips of 2 s. A p-value of the brain gain needs twelve
# blocks: six test films of 2 min, two of 10; there is none for four of 2 min and films of 16 s.
KINDS = {
    "repetition time 0.7 s": ({"t_r": 0.7, "film_duration": 126, "n_test_films": 6}, {}),
    "films of 16 s": ({"film_duration": 16, "n_films_per_run": 6, "n_test_films": 16}, {}),
    "two films": ({"film_duration": 600, "n_runs": 2, "n_films_per_run": 1, "n_test_films": 0}, {}),
    "repeats apart": ({"n_test_films": 4}, {"repeats": "concatenate"}),
}
CASES = ("planted", "null")
SMALL = {"grid": (12, 12), "n_steps": 1, "n_epochs": 60}  # of decoding: minutes
TESTS = ("video", "image", "joint", "videoMinusImage", "videoUnique", "imageUnique")
RATE_BOUND = 0.06  # of p < .05, over seeds


def analyse(kind, case, seed, *, quick, device):
    """Encode and decode one data set; the figures of both."""
    data, options = KINDS[kind]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        data = {**data, **QUICK, **{k: data[k] for k in ("t_r",) if k in data}} if quick else data
        dataset = make_movie_dataset(folder / "planted", random_state=seed, **data)
        bids_dir, truth = dataset.bids_dir, dataset.truth["01"]
        if case == "null":
            bids_dir = folder / "null"
            exchange_films(dataset.bids_dir, bids_dir)
        where = {"work_dir": folder / "work", "verbose": 0}
        common = {"random_state": seed, "device": device, "n_jobs": 1}
        quickly = {"n_permutations": 200, "n_iter": 2} if quick else {}
        encode_participant(
            bids_dir, folder / "out", "01", EncodeOptions(**common, **quickly), **where
        )
        quickly = {"n_epochs": 2, "n_permutations": 100} if quick else {}
        decode_participant(
            bids_dir,
            folder / "out",
            "01",
            DecodeOptions(**common, **{**SMALL, **options, **quickly}),
            **where,
        )
        result = {"kind": kind, "case": case, "seed": seed}
        result |= encoded(folder / "out", truth, case)
        return result | decoded(folder / "out")


def encoded(out, truth, case):
    """Shares of p below .05, and how well the difference tells voxels of motion from others."""
    quiet = np.ones(len(truth.label), bool) if case == "null" else truth.label == "none"
    figures = {}
    for test in TESTS:
        p = read_map(out, test, "p")
        if p is not None:
            figures[f"below_05_{test}"] = float(np.mean(p[quiet & np.isfinite(p)] < 0.05))
    difference = read_map(out, "videoMinusImage", "difference")
    seen = np.isfinite(difference)
    figures["auc"] = float(roc_auc_score(truth.label[seen] == "motion", difference[seen]))
    q = read_map(out, "videoMinusImage", "q")
    if q is not None:
        found = (q < 0.05) & (truth.label != "none")
        figures["n_found"] = int(found.sum())
        figures["n_found_of_noise"] = int(((q < 0.05) & (truth.label == "none")).sum())
    return figures


def read_map(out, feat, stat):
    """Both hemispheres of a map, or None where there is none."""
    paths = sorted(out.rglob(f"*_feat-{feat}_stat-{stat}_desc-encode_statmap.func.gii"))
    return np.concatenate([nib.load(path).agg_data() for path in paths]) if paths else None


def decoded(out):
    """The brain gain as its table says it."""
    (path,) = out.rglob("*_feat-gain_desc-decode_table.tsv")
    table = load_table(path)
    row = table[table["cells"] == "all"].iloc[0]
    names = ("gain_px", "low", "high", "p", "n_blocks", "converged", "supported")
    return {
        name: None if row.get(name) is None or row[name] != row[name] else row[name].item()
        if hasattr(row[name], "item") else row[name]
        for name in names
    }  # fmt: skip


def summarise(results):
    """A row for each kind of data and case."""
    rows = []
    for kind in KINDS:
        for case in CASES:
            sets = [r for r in results if (r["kind"], r["case"]) == (kind, case)]
            if not sets:
                continue
            row = {"kind": kind, "case": case, "n_data_sets": len(sets)}
            for test in TESTS:
                rates = [r[f"below_05_{test}"] for r in sets if f"below_05_{test}" in r]
                if rates:
                    row[f"below_05_{test}"] = float(np.mean(rates))
                    row[f"error_{test}"] = float(np.std(rates) / np.sqrt(len(rates)))
            row["auc"] = [r["auc"] for r in sets]
            row["n_found"] = [r.get("n_found") for r in sets]
            row["n_found_of_noise"] = [r.get("n_found_of_noise") for r in sets]
            row |= {name: [r[name] for r in sets] for name in ("gain_px", "low", "p", "n_blocks")}
            row["n_gain_above_0"] = sum(r["low"] > 0 for r in sets)
            row["n_supported"] = sum(bool(r["supported"]) for r in sets)
            row["passed"] = passed(row)
            rows.append(row)
    return rows


def passed(row):
    """Whether a row is as it must be."""
    if row["case"] == "planted":
        return bool(np.median(row["auc"]) >= 0.9 and row["n_gain_above_0"] == row["n_data_sets"])
    rates = [row[f"below_05_{test}"] for test in TESTS if f"below_05_{test}" in row]
    return max(rates) <= RATE_BOUND and row["n_supported"] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="tiny data: runs, proves nothing")
    parser.add_argument("--n-seeds", type=int, default=3, metavar="N", help="of each kind and case")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="data sets at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--most-seconds", type=float, metavar="S", help="begin none later")
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".quick.jsonl" if arguments.quick else ".partial.jsonl")
    results = read_finished(partial)
    done = {(r["kind"], r["case"], r["seed"]) for r in results}
    n_gpus = max(torch.cuda.device_count(), 1)
    missing = [
        (kind, case, seed)
        for seed in range(1 if arguments.quick else arguments.n_seeds)
        for kind in KINDS
        for case in CASES
        if (kind, case, seed) not in done
    ]
    jobs = (
        joblib.delayed(analyse)(
            *which,
            quick=arguments.quick,
            device=f"cuda:{i % n_gpus}" if arguments.device == "cuda" else arguments.device,
        )
        for i, which in enumerate(missing)
    )
    for result in run_and_keep(partial, jobs, arguments.n_jobs, arguments.most_seconds):
        print(json.dumps(result), flush=True)
        results.append(result)
    rows = summarise(sorted(results, key=lambda r: r["seed"]))
    record = {
        "description": __doc__.splitlines()[0],
        "passed": all(row["passed"] for row in rows),
        "quick": arguments.quick,
        "options of decoding": SMALL,
        "rate_bound": RATE_BOUND,
        "rows": rows,
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
        "device": f"{arguments.device}, {arguments.n_jobs} data sets at a time",
    }
    save_json(arguments.output, record)
    for row in rows:
        print(row["kind"], row["case"], "passed" if row["passed"] else "FAILED")
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
