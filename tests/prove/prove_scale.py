"""Does an encoding model of the whole brain fit and score in under 12 GiB of host memory?

18 films of 240 volumes each (4,320 volumes) x 59,412 grayordinates x 2 feature spaces of 1,000
columns with 4 delays: `VideoEncodingModel` is fitted on 14 films and scored on the other 4, in a
process of its own whose peak resident memory is read from the kernel. A third of the voxels carries
signal of the features; the others must score nothing. Three mixtures of the spaces are tried (equal
shares, each alone): more take more time, but no more memory than their scores.

    python tests/prove/prove_scale.py --output doc/proofs/scale.json [--quick] [--threads 1]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import sklearn

import brainnrds
import brainnrds.io as io
from brainnrds.encoding import VideoEncodingModel, correlation_score

N_RUNS, N_TEST_RUNS, N_VOLUMES = 18, 4, 240
N_GRAYORDINATES = 59412
N_FEATURES, DELAYS = 1000, (1, 2, 3, 4)
N_LATENT = 10  # per feature space: what voxels answer to
SIGNAL_SHARE = 0.3  # of the variance of planted voxels
BOUND_GIB = 12.0


def peak_gib():
    """Peak resident memory of this process, by the kernel."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def make_features(random, runs):
    """Two spaces of noisy mixtures of few latent series, and the delayed latent series."""
    spaces, delayed = [], []
    for _ in range(2):
        latent = random.standard_normal((len(runs), N_LATENT), dtype=np.float32)
        mixing = random.standard_normal((N_LATENT, N_FEATURES), dtype=np.float32)
        noise = random.standard_normal((len(runs), N_FEATURES), dtype=np.float32)
        spaces.append(latent @ mixing / np.float32(np.sqrt(N_LATENT)) + noise)
        for d in DELAYS:
            shifted = np.zeros_like(latent)
            shifted[d:] = latent[:-d]
            shifted[np.arange(len(runs)) % N_VOLUMES < d] = 0
            delayed.append(shifted)
    return np.hstack(spaces), np.hstack(delayed)


def measure(n_voxels, n_iter, seed=0):
    """Fit and score; return memory after each step, seconds and scores."""
    random = np.random.default_rng(seed)
    runs = np.repeat(np.arange(N_RUNS), N_VOLUMES)
    X, delayed = make_features(random, runs)
    planted = np.arange(n_voxels) % 3 == 0
    test = runs >= N_RUNS - N_TEST_RUNS
    y = np.empty((len(runs), n_voxels), dtype=np.float32)
    oracle = np.full(n_voxels, np.nan)
    # in slices: what the proof itself holds must not count against the model
    for start in range(0, n_voxels, 1024):
        some = slice(start, min(start + 1024, n_voxels))
        noise = random.standard_normal((len(runs), some.stop - some.start), dtype=np.float32)
        weights = random.standard_normal((delayed.shape[1], noise.shape[1]), dtype=np.float32)
        signal = delayed @ weights / np.float32(np.sqrt(delayed.shape[1]))
        share = np.where(planted[some], SIGNAL_SHARE, 0).astype(np.float32)
        y[:, some] = np.sqrt(share) * signal + np.sqrt(1 - share) * noise
        oracle[some] = correlation_score(y[test, some], signal[test], runs=runs[test])
    X_train, X_test, y_train, y_test = X[~test], X[test], y[~test], y[test]
    memory = {"data": peak_gib()}
    # as a user would hold them: the whole series beside its training and test parts
    model = VideoEncodingModel(
        {"one": slice(0, N_FEATURES), "two": slice(N_FEATURES, 2 * N_FEATURES)},
        delays=DELAYS,
        n_iter=n_iter,
        random_state=seed,
    )
    start = time.perf_counter()
    model.fit(X_train, y_train, runs=runs[~test], films=runs[~test])
    fitted = time.perf_counter()
    memory["fit"] = peak_gib()
    scores = model.score_map(X_test, y_test, runs=runs[test], films=runs[test])
    scored = time.perf_counter()
    memory["score_map"] = peak_gib()
    return {
        "n_voxels": n_voxels,
        "n_iter": n_iter,
        "n_alphas": len(model.alphas),
        "solver": model.solver_,
        "y_gib": y.nbytes / 2**30,
        "peak_gib_after": memory,
        "peak_gib": memory["score_map"],
        "seconds_to_fit": fitted - start,
        "seconds_to_score": scored - fitted,
        "cpu_seconds": time.process_time(),  # wall-clock counts what else the machine does
        "mean_r_planted": float(scores[planted].mean()),
        "mean_r_planted_oracle": float(oracle[planted].mean()),
        "mean_r_elsewhere": float(scores[~planted].mean()),
        "seed": seed,
    }


def measure_apart(n_voxels, n_iter, n_threads):
    """Run `measure` in a fresh process with so many threads."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(n_voxels), str(n_iter)],
        env={**os.environ, **dict.fromkeys(threads, str(n_threads))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main():
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="1/16 of the voxels")
    parser.add_argument("--n-voxels", type=int, help="so many voxels")
    parser.add_argument("--n-iter", type=int, default=3, help="mixtures of the two spaces")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    n_voxels = options.n_voxels or N_GRAYORDINATES // (16 if options.quick else 1)
    result = measure_apart(n_voxels, options.n_iter, options.threads)
    bounds = {
        "peak_gib": f"< {BOUND_GIB:g}",
        "mean_r_planted": "> 0.8 of the oracle's (the signal itself, against the response)",
        "mean_r_elsewhere": "within 0.01 of 0",
    }
    passed = (
        result["peak_gib"] < BOUND_GIB
        and result["mean_r_planted"] > 0.8 * result["mean_r_planted_oracle"]
        and abs(result["mean_r_elsewhere"]) < 0.01
    )
    import torch

    record = {
        "description": __doc__.splitlines()[0],
        "quick": options.quick,
        "n_volumes": N_RUNS * N_VOLUMES,
        "n_training_volumes": (N_RUNS - N_TEST_RUNS) * N_VOLUMES,
        "n_features": [N_FEATURES, N_FEATURES],
        "delays": DELAYS,
        "signal_share": SIGNAL_SHARE,
        **result,
        "bounds": bounds,
        "whole_brain": n_voxels == N_GRAYORDINATES,
        "passed": passed,
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
        "device": f"CPU, {options.threads} of {os.cpu_count()} cores",
    }
    io.save_json(options.output, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
