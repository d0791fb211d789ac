"""Does the encoding model give himalaya's own results?

`VideoEncodingModel` is compared with himalaya called directly on the same kernels, mixtures,
penalties and folds: in the primal and with kernels, one and two feature spaces, equal and unequal
films, by both solvers. Where a CUDA device is there, it is compared with the CPU as well.

    python tests/prove/prove_himalaya.py --output doc/proofs/himalaya.json [--quick]

Cases that are finished are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import himalaya
import numpy as np
import torch
from finished import add_finished, read_finished
from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
from himalaya.ridge import solve_group_ridge_random_search

import brainnrds
from brainnrds.encoding import VideoEncodingModel, correlation_score
from brainnrds.encoding._himalaya import himalaya_backend

DELAYS = (1, 2, 3, 4)
ALPHAS = tuple(10.0**exponent for exponent in range(6))
MIXTURES = 8
BOUND = 1e-4
CUDA_BOUND = 1e-3
# name: film lengths, columns of the feature spaces, voxels
CASES = {
    "primal, one space": ((150, 150, 150, 150), (40,), 500),
    "primal, two spaces": ((150, 150, 150, 150), (40, 20), 500),
    "primal, unequal films": ((100, 130, 170, 200), (40, 20), 500),
    "kernels, two spaces": ((150, 150, 150, 150), (200, 20), 500),
    "kernels, unequal films": ((100, 130, 170, 200), (200, 50), 500),
    "kernels, 1000 columns": ((300, 300, 300), (1000, 100), 2000),
}
CUDA_CASE = ((432,) * 5, (500, 500), 20000)


def simulate(film_lengths, n_columns, n_voxels, seed):
    """Features and responses that half of the voxels owe to the features."""
    rng = np.random.default_rng(seed)
    runs = np.repeat(np.arange(len(film_lengths)), film_lengths)
    X = rng.standard_normal((len(runs), sum(n_columns))).astype(np.float32)
    weights = rng.standard_normal((sum(n_columns), n_voxels)) / np.sqrt(sum(n_columns))
    weights[:, n_voxels // 2 :] = 0
    y = np.zeros((len(runs), n_voxels))
    y[2:] = X[:-2] @ weights
    y += rng.standard_normal(y.shape) * 1.5
    starts = np.cumsum((0, *n_columns))
    spaces = {
        f"space{i}": slice(int(a), int(b))
        for i, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True))
    }
    return X, y.astype(np.float32), runs, spaces


def directly(X, y, runs, spaces, in_primal):
    """himalaya in float64 on delayed features, kernels and folds that are made here."""
    Z = (X.astype(np.float64) - X.mean(0, dtype=np.float64)) / X.std(0, dtype=np.float64)
    Zs = []
    for columns in spaces.values():
        delayed = []
        for d in DELAYS:
            part = np.zeros_like(Z[:, columns])
            for run in np.unique(runs):
                rows = np.flatnonzero(runs == run)
                part[rows[d:]] = Z[rows[:-d], columns]
            delayed.append(part)
        space = np.concatenate(delayed, axis=1)
        Zs.append((space - space.mean(0)) / np.sqrt(space.shape[1]))
    n_spaces = len(Zs)
    share = np.linspace(0, 1, MIXTURES)
    # himalaya divides by the weights
    mixtures = np.maximum(np.stack([share, 1 - share], axis=1), 1e-5)
    mixtures = mixtures / mixtures.sum(1, keepdims=True) if n_spaces > 1 else np.ones((1, 1))
    folds = [(np.flatnonzero(runs != run), np.flatnonzero(runs == run)) for run in np.unique(runs)]
    offset = y.mean(0, dtype=np.float64)
    options = {
        "n_iter": mixtures,
        "alphas": np.array(ALPHAS),
        "cv": folds,
        "progress_bar": False,
        "n_targets_batch": 500,
    }
    with himalaya_backend("cpu"):
        if in_primal:
            deltas, weights, cv_scores = solve_group_ridge_random_search(
                Zs, y - offset, return_weights=True, warn=False, **options
            )
            return np.concatenate(Zs, axis=1) @ weights + offset, cv_scores, deltas
        Ks = np.stack([space @ space.T for space in Zs])
        deltas, dual, cv_scores = solve_multiple_kernel_ridge_random_search(
            Ks, y - offset, return_weights="dual", **options
        )
    weighted = [K @ (dual * np.exp(delta)) for K, delta in zip(Ks, deltas, strict=True)]
    return np.sum(weighted, axis=0) + offset, cv_scores, deltas


def fit(X, y, runs, spaces, solver, device="cpu"):
    model = VideoEncodingModel(
        spaces,
        delays=DELAYS,
        alphas=ALPHAS,
        n_iter=MIXTURES,
        cv="films",
        mixture_prior=None,
        solver=solver,
        device=device,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(X, y, runs=runs)
    return model, time.perf_counter() - start


def run_case(name):
    film_lengths, n_columns, n_voxels = CASES[name]
    X, y, runs, spaces = simulate(film_lengths, n_columns, n_voxels, seed=len(name))
    in_primal = len(DELAYS) * sum(n_columns) < len(runs)
    start = time.perf_counter()
    expected, cv_scores, deltas = directly(X, y, runs, spaces, in_primal)
    row = {"case": name, "bound": BOUND, "seconds_directly": time.perf_counter() - start}
    score = correlation_score(y, expected, runs=runs)
    scale = y.std(0)
    for solver in ("auto", "himalaya"):
        model, seconds = fit(X, y, runs, spaces, solver)
        predictions = model.predict(X, runs=runs)
        worst_cv = np.max(np.abs(model.cv_scores_ - cv_scores) / np.abs(cv_scores))
        difference = np.max(np.abs(predictions - expected) / scale, axis=0)
        # noise takes the largest penalty, and then all mixtures are equally good to 6 digits:
        # rounding decides between them. `worst_cv_score` holds for these voxels, too
        shares = np.maximum(model.mixtures_, 1e-5)
        selected = np.log(shares / shares.sum(0) / model.alphas_)
        same = np.max(np.abs(selected - deltas), axis=0) < 1e-3
        found = correlation_score(y, predictions, runs=runs)
        row[solver] = {
            "solver": model.solver_,
            "worst_cv_score": float(worst_cv),
            "worst_prediction": float(difference[same].max()),
            "worst_score": float(np.abs(found - score)[same].max()),
            "share_same_selection": float(same.mean()),
            "seconds": seconds,
        }
    row["passed"] = all(
        max(row[s]["worst_cv_score"], row[s]["worst_prediction"], row[s]["worst_score"]) < BOUND
        and row[s]["share_same_selection"] >= 0.9
        for s in ("auto", "himalaya")
    )
    return row


def run_cuda(quick):
    if not torch.cuda.is_available():
        return {"case": "CUDA against CPU", "measured": False, "reason": "no CUDA device"}
    film_lengths, n_columns, n_voxels = CUDA_CASE
    X, y, runs, spaces = simulate(film_lengths, n_columns, n_voxels // (10 if quick else 1), seed=0)
    row = {"case": "CUDA against CPU", "measured": True, "bound": CUDA_BOUND}
    row["device"] = torch.cuda.get_device_name()
    for solver in ("auto", "himalaya"):
        models, scores = {}, {}
        for device in ("cpu", "cuda"):
            torch.cuda.reset_peak_memory_stats()
            models[device], seconds = fit(X, y, runs, spaces, solver, device)
            scores[device] = models[device].score_map(X, y, runs=runs)
            row[f"{solver}_{device}_seconds"] = seconds
        row[f"{solver}_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        cpu, cuda = models["cpu"], models["cuda"]
        # rounding, which on CUDA is that of TF32, decides between mixtures that are equally good:
        # no voxel's best score differs by more than `worst_cv_score`, whatever it selects
        same = (cpu.alphas_ == cuda.alphas_) & (cpu.mixtures_ == cuda.mixtures_).all(0)
        row[f"{solver}_worst_r"] = float(np.abs(scores["cpu"] - scores["cuda"])[same].max())
        row[f"{solver}_worst_cv_score"] = float(
            np.max(np.abs(cpu.cv_scores_ - cuda.cv_scores_) / np.abs(cpu.cv_scores_))
        )
        row[f"{solver}_share_same_selection"] = float(same.mean())
    row["passed"] = all(
        max(row[f"{s}_worst_r"], row[f"{s}_worst_cv_score"]) < CUDA_BOUND
        for s in ("auto", "himalaya")
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="without the largest case")
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".quick.jsonl" if arguments.quick else ".partial.jsonl")
    rows = read_finished(partial)
    names = [name for name in CASES if not (arguments.quick and "1000" in name)]
    for name in names:
        if name in {row["case"] for row in rows}:
            continue
        rows.append(run_case(name))
        add_finished(partial, rows[-1])
        print(json.dumps(rows[-1]), flush=True)
    rows.append(run_cuda(arguments.quick))
    print(json.dumps(rows[-1]), flush=True)
    report = {
        "proof": "equality with himalaya called directly",
        "passed": all(row["passed"] for row in rows if "passed" in row),
        "cases": rows,
        "versions": {
            "brainnrds": brainnrds.__version__,
            "himalaya": himalaya.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": rows[-1].get("device", "cpu"),
        "seconds": sum(row.get("seconds_directly", 0) for row in rows)
        + sum(row[s]["seconds"] for row in rows for s in ("auto", "himalaya") if s in row),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print("passed" if report["passed"] else "FAILED")


if __name__ == "__main__":
    main()
