"""Seconds and peak memory of the banded-ridge search, ours against himalaya's in the same run.

    python benchmarks/bench_banded_ridge.py                    # the CPU row, two threads
    python benchmarks/bench_banded_ridge.py --device cuda      # a whole brain on a GPU
    python benchmarks/bench_banded_ridge.py --device cuda --n-targets 327684 --ours-only

Contestants take turns, and the fastest of their repetitions counts: other work on the machine then
disturbs all of them alike. Processor seconds leave out the waiting on a busy machine; on one thread
(``--threads 1``) they compare the searches even there. himalaya's batch sizes, and its backend on a
CPU, are tuned first on one mixture. Results go to doc/benchmarks/banded_ridge_<device>.json, which
the documentation shows.
"""

import argparse
import json
import os
import platform
import resource
import threading
import time
import warnings
from pathlib import Path

import himalaya
import numpy as np
import psutil
import torch
from himalaya.backend import get_backend, set_backend
from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
from himalaya.ridge import GroupRidgeCV
from threadpoolctl import threadpool_limits

from brainnrds.encoding.solvers import solve_banded_ridge

SIZES = {
    "cpu": dict(n_samples=1000, n_features=500, n_targets=5000),
    "cuda": dict(n_samples=4320, n_features=3000, n_targets=59412),
}


class Meter:
    """Wall-clock and processor seconds of a block, and its peak memory above the start in GB."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        self._over = threading.Event()
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            self._before = self._peak = psutil.Process().memory_info().rss
            self._watch = threading.Thread(target=self._look)
            self._watch.start()
        self._start = time.perf_counter(), time.process_time()
        return self

    def _look(self):
        while not self._over.wait(0.05):
            self._peak = max(self._peak, psutil.Process().memory_info().rss)

    def __exit__(self, *error):
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start[0]
        self.processor_seconds = time.process_time() - self._start[1]
        if self.device == "cuda":
            self.gigabytes = torch.cuda.max_memory_reserved() / 1e9
        else:
            self._over.set()
            self._watch.join()
            self.gigabytes = (self._peak - self._before) / 1e9


def make_data(n_samples, n_features, n_targets, device, n_spaces=2, seed=0):
    """Feature spaces and unit-variance targets, a fifth of whose variance they explain.

    Made on `device`, in slices of targets, and returned as NumPy arrays.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, device=device, generator=generator)

    Xs = [normal(n_samples, n_features) for _ in range(n_spaces)]
    Y = np.empty((n_samples, n_targets), dtype=np.float32)
    for start in range(0, n_targets, 20_000):
        some = slice(start, min(start + 20_000, n_targets))
        n_some = some.stop - start
        share = torch.rand((n_spaces, n_some), device=device, generator=generator)
        y = 2 * normal(n_samples, n_some)
        for X, part in zip(Xs, share / share.sum(0), strict=True):
            y += (part / n_features).sqrt() * (X @ normal(n_features, n_some))
        Y[:, some] = ((y - y.mean(0)) / y.std(0)).cpu()
    Xs = [((X - X.mean(0)) / X.std(0)) for X in Xs]
    Ks = torch.stack([X @ X.T for X in Xs]).cpu().numpy()
    return [X.cpu().numpy() for X in Xs], Ks, Y


def run_ours(Ks, Y, setting, device, products):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve_banded_ridge(Ks, Y, products=products, device=device, **setting).cv_scores


def run_kernel_search(Ks, Y, setting, backend, n_targets_batch, n_alphas_batch, tf32):
    backend = set_backend(backend)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, _, scores = solve_multiple_kernel_ridge_random_search(
                backend.asarray(Ks),
                backend.asarray(Y),
                n_iter=backend.asarray(setting["mixtures"].astype(np.float32)),
                alphas=backend.asarray(setting["alphas"].astype(np.float32)),
                cv=setting["cv"],
                return_weights="dual",
                n_targets_batch=n_targets_batch,
                n_alphas_batch=n_alphas_batch,
                progress_bar=False,
            )
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    return np.asarray(scores)


def run_group_ridge(Xs, Y, setting, backend):
    backend = set_backend(backend)
    options = dict(n_iter=setting["mixtures"].astype(np.float32), progress_bar=False)
    options["alphas"] = setting["alphas"].astype(np.float32)
    for name in ("n_iter", "alphas"):
        options[name] = backend.asarray(options[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GroupRidgeCV(groups="input", cv=setting["cv"], solver_params=options)
        model.fit([backend.asarray(X) for X in Xs], backend.asarray(Y))
    return np.asarray(backend.to_numpy(model.cv_scores_))


def tune_kernel_search(Ks, Y, setting, device, tf32):
    """Return the fastest backend and batch sizes on one mixture; None stands for all at once."""
    one = setting | dict(mixtures=setting["mixtures"][:1])
    n_targets = Y.shape[1]
    candidates = [
        (backend, targets, alphas)
        for backend in (("torch_cuda",) if device == "cuda" else ("numpy", "torch"))
        for targets in ((n_targets,) if device == "cuda" else (n_targets, n_targets // 5))
        for alphas in (None, 5)
    ]
    best, fastest = None, np.inf
    for candidate in candidates:
        try:
            with Meter(device) as meter:
                run_kernel_search(Ks, Y, one, *candidate, tf32)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        # a shared CPU's waiting is no property of the search
        seconds = meter.seconds if device == "cuda" else meter.processor_seconds
        print(f"  tuning {candidate}: {seconds:.2f} s", flush=True)
        if seconds < fastest:
            best, fastest = candidate, seconds
    return best


def profile_ours(Ks, Y, setting, device, products):
    """Seconds by step. On a GPU steps overlap; the sum exceeds the total."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        run_ours(Ks, Y, setting, device, products)
    steps = ("eigendecomposition", "fold blocks", "products", "refit")
    seconds = {}
    for event in profiler.key_averages():
        if event.key in steps:
            spent = event.device_time_total if device == "cuda" else event.cpu_time_total
            seconds[event.key] = max(seconds.get(event.key, 0), spent / 1e6)
    return seconds


def name_of(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or "CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((ln.split(":")[1].strip() for ln in lines if "model name" in ln), model)
    return f"{model}, {torch.get_num_threads()} threads"


def table(report):
    """The report's rows as lines of text."""
    ours = report["rows"]["ours"]
    lines = [f"{report['device']}, {report['size']}"]
    header = ("", "seconds", "x ours", "processor s", "x ours", "peak GB")
    lines.append("{:42}{:>9}{:>9}{:>13}{:>9}{:>9}".format(*header))
    for name, row in report["rows"].items():
        cells = [row["seconds"], row["seconds"] / ours["seconds"]]
        cells += [row["processor_seconds"], row["processor_seconds"] / ours["processor_seconds"]]
        lines.append("{:42}{:9.1f}{:9.2f}{:13.1f}{:9.2f}".format(name, *cells))
        lines[-1] += f"{row['gigabytes']:9.1f}"
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads on a CPU")
    parser.add_argument("--n-samples", type=int)
    parser.add_argument("--n-features", type=int, help="of each of the two spaces")
    parser.add_argument("--n-targets", type=int)
    parser.add_argument("--n-mixtures", type=int, default=20)
    parser.add_argument("--n-alphas", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument(
        "--products", nargs="*", default=[], help="other precisions of ours: float32, bf16"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    size = SIZES[device] | {
        name: getattr(options, name)
        for name in ("n_samples", "n_features", "n_targets")
        if getattr(options, name) is not None
    }
    Xs, Ks, Y = make_data(**size, device=device)
    setting = dict(
        # no pure space: GroupRidgeCV fails on a mixture with a weight of 0
        mixtures=np.random.default_rng(1).dirichlet([1, 1], options.n_mixtures),
        alphas=np.logspace(1, 6, options.n_alphas),
        cv=5,
    )

    # himalaya is tuned first, which warms it up
    run_ours(Ks, Y, setting | dict(mixtures=setting["mixtures"][:1]), device, "auto")
    contestants = {"ours": lambda: run_ours(Ks, Y, setting, device, "auto")}
    n_gpus = torch.cuda.device_count() if device == "cuda" else 1
    if n_gpus > 1:
        contestants[f"ours, {n_gpus} GPUs"] = lambda: run_ours(Ks, Y, setting, "auto", "auto")
    tuned = {}
    for products in options.products:
        contestants[f"ours, {products} products"] = lambda products=products: run_ours(
            Ks, Y, setting, device, products
        )
    if not options.ours_only:
        for tf32 in (False, True) if device == "cuda" else (False,):
            name = "himalaya kernel random search, tuned" + (", TF32" if tf32 else "")
            tuned[name] = tune_kernel_search(Ks, Y, setting, device, tf32)
            contestants[name] = lambda name=name, tf32=tf32: run_kernel_search(
                Ks, Y, setting, *tuned[name], tf32
            )
        if device == "cpu":
            contestants["himalaya GroupRidgeCV, defaults"] = lambda: run_group_ridge(
                Xs, Y, setting, "numpy"
            )

    rows = {
        name: dict(repetitions=[], processor_repetitions=[], gigabytes=0.0) for name in contestants
    }
    scores = {}
    before = get_backend()
    try:
        for repetition in range(options.repetitions):
            for name, run in contestants.items():
                with Meter(device) as meter:
                    scores[name] = run()
                row = rows[name]
                row["repetitions"].append(meter.seconds)
                row["seconds"] = min(row["repetitions"])
                row["processor_repetitions"].append(meter.processor_seconds)
                row["processor_seconds"] = min(row["processor_repetitions"])
                row["gigabytes"] = max(row["gigabytes"], meter.gigabytes)
                print(
                    f"repetition {repetition}, {name}: {meter.seconds:.1f} s, "
                    f"{meter.processor_seconds:.1f} s of processor time",
                    flush=True,
                )
    finally:
        set_backend(before)
    for name, row in rows.items():
        if name in tuned:
            row["backend"], row["n_targets_batch"], row["n_alphas_batch"] = tuned[name]
        row["largest_score_difference"] = float(np.abs(scores[name] - scores["ours"]).max())
        row["same_mixture"] = float((scores[name].argmax(0) == scores["ours"].argmax(0)).mean())
    report = dict(
        device=name_of(device),
        size=size
        | dict(n_mixtures=options.n_mixtures, n_alphas=options.n_alphas, n_folds=setting["cv"]),
        alphas=[float(setting["alphas"][0]), float(setting["alphas"][-1])],
        rows=rows,
        seconds_by_step=profile_ours(Ks, Y, setting, device, "auto"),
        host_peak_gigabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        load_average=os.getloadavg(),
        n_cores=os.cpu_count(),
        versions=dict(torch=torch.__version__, himalaya=himalaya.__version__, numpy=np.__version__),
    )
    folder = Path(__file__).resolve().parents[1] / "doc" / "benchmarks"
    output = options.output or folder / f"banded_ridge_{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    print(table(report))


if __name__ == "__main__":
    main()
