"""Seconds, processor seconds and peak memory of each step of `encode` on one participant.

    python benchmarks/bench_whole.py                         # the sample data, two threads
    python benchmarks/bench_whole.py --paper-size --device cuda --n-cpus 16
    python benchmarks/bench_whole.py --paper-size --default-features --output two_cores.json
    python benchmarks/bench_whole.py --bids-dir bids         # your own data

At the paper's size, the networks are VideoMAE-Large and DINOv2-Base at 448 px with random weights,
unless the default features are asked for, and five films are for testing alone. Nothing is in the
work folder before. Processor seconds are of this process and those that it starts: on a machine
with other work they say more than the clock. Peak memory is of all of them together, without what
they map from files; a second process looks. What is measured within a step as a step of its own is
not counted in it, and what a thread does beside the steps is told apart. Results go to
doc/benchmarks/whole_<device>.json, which the documentation shows.
"""

import argparse
import cProfile
import functools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import torch
from paper_size import TEST_FILMS, make_paper_size

from brainnrds.analyses import EncodeOptions, encode, encode_participant, held_out, record
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import find_runs, list_subjects

# what is done in a step: (where it is called, name)
STEPS = {
    "finding runs": [(record, "find_runs")],
    "loading BOLD": [(encode, "_load_bold")],
    "explainable variance": [(encode, "_explainable_variance")],
    "features": [(held_out, "movie_features")],
    "held-out fits": [(record.Record, "step")],
    "fit that is kept": [
        (held_out, "fit_training_films"),
        (encode, "describe_fit"),
        (encode, "save_fit"),
    ],
    "tests": [
        (encode, "_compare"),
        (encode, "shares_of_joint"),
        (encode, "divide_variance"),
    ],
    "hashes of inputs": [(record.Record, "open")],
    "maps": [(record.Record, "save_maps")],
    "figures": [(encode, "_save_figures")],
    "report": [(record.Record, "close")],
}


class Meter:
    """What steps cost, each called once or several times."""

    def __init__(self):
        self.rows, self.beside = {}, {}
        self._last, self._steps = {}, ["all else"]
        self._process, self._watcher = psutil.Process(), None
        self._peak = multiprocessing.Value("d", 0.0)

    @contextmanager
    def watching(self):
        """Look at the memory in use every tenth of a second: not here, where it takes time."""
        self._watcher = multiprocessing.get_context("fork").Process(target=self._look, daemon=True)
        self._watcher.start()
        try:
            yield
        finally:
            self._watcher.kill()
            self._watcher.join()

    def _look(self):
        while True:
            now = sum(self._of_each(_private_bytes, besides=os.getpid()))
            with self._peak.get_lock():
                self._peak.value = max(self._peak.value, now)
            time.sleep(0.1)

    def _of_each(self, ask, besides):
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                if process.pid != besides:
                    yield ask(process)
            except psutil.Error:  # it has ended
                continue

    def processor_seconds(self):
        # of those that ended, and of those that still wait for work
        ended = self._process.cpu_times()
        ended = ended.children_user + ended.children_system
        return ended + sum(self._of_each(_own_seconds, besides=self._watcher.pid))

    @contextmanager
    def step(self, name):
        """Add the block to a step, and what it takes to no step around it."""
        if threading.current_thread() is not threading.main_thread():
            start = time.perf_counter()
            yield
            self.beside[name] = self.beside.get(name, 0) + time.perf_counter() - start
            print(f"{name:>20}: beside, {self.beside[name]:.1f} s", file=sys.stderr, flush=True)
            return
        self._take_time()
        self._steps.append(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._take_time()
            self._steps.pop()
            # a run that does not end shows how far it came
            print(f"{name:>20}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    def _take_time(self):
        """Count what has passed to the innermost step."""
        now = {"seconds": time.perf_counter(), "processor_seconds": self.processor_seconds()}
        with self._peak.get_lock():
            peak, self._peak.value = self._peak.value / 2**30, 0.0
        row = self.rows.setdefault(
            self._steps[-1], {"seconds": 0.0, "processor_seconds": 0.0, "peak_gib": 0.0}
        )
        for key, value in now.items():
            row[key] += value - self._last.get(key, value)
        row["peak_gib"] = max(row["peak_gib"], peak)
        self._last = now

    def measure(self, where, attribute, step):
        """Count every call of a function from now on."""
        function = getattr(where, attribute)

        @functools.wraps(function)
        def measured(*args, **kwargs):
            with self.step(step):
                return function(*args, **kwargs)

        setattr(where, attribute, measured)


def _private_bytes(process):
    memory = process.memory_info()
    return memory.rss - memory.shared


def _own_seconds(process):
    times = process.cpu_times()
    return times.user + times.system


def _name_of(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores"


def describe_size(bids_dir, subject, options):
    """Say what is computed: numbers of runs, volumes, voxels or vertices, films and seconds."""
    runs = find_runs(bids_dir, subject=subject)
    films = {film.film: film.duration for run in runs for film in run.films}
    kind, *shape, _ = runs[0].grid
    places = {"surface": sum(shape[:2]), "cifti": shape[0]}
    return {
        "n_runs": len(runs),
        "n_volumes": sum(run.n_volumes for run in runs),
        "n_places": places.get(kind) or functools.reduce(int.__mul__, shape[0]),
        "n_films": len(films),
        "film_seconds": round(sum(films.values())),
        "n_permutations": options.n_permutations,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bids-dir", type=Path, help="without it, sample data are made")
    parser.add_argument("--paper-size", action="store_true", help="make data of that size")
    parser.add_argument("--default-features", action="store_true", help="no networks")
    parser.add_argument("--film-seconds", type=int, default=480, help="of the paper's size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-cpus", type=int, default=2, help="threads and processes")
    parser.add_argument("--profile", type=Path, help="write a profile of this process there")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.n_cpus)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        options = {"device": arguments.device, "n_jobs": arguments.n_cpus}
        bids_dir = arguments.bids_dir or folder / "bids"
        start = time.perf_counter()
        if arguments.paper_size:
            if not arguments.default_features:
                options |= make_networks(folder, small=arguments.device == "cpu")
            options["test_films"] = TEST_FILMS
            how = {"film_seconds": arguments.film_seconds, "n_processes": arguments.n_cpus}
            make_paper_size(bids_dir, **how)
        elif arguments.bids_dir is None:
            make_movie_dataset(bids_dir)
        print(f"{'data':>20}: made in {time.perf_counter() - start:.0f} s", flush=True)
        options = EncodeOptions(**options)
        subject = list_subjects(bids_dir)[0]
        size = describe_size(bids_dir, subject, options)
        rows, beside = measure(bids_dir, folder, subject, options, arguments.profile)
    for step, row in rows.items():
        row.update({key: round(value, 2) for key, value in row.items()})
        print(f"{step:>20}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    kind = torch.device(arguments.device).type
    output = arguments.output or Path("doc/benchmarks") / f"whole_{kind}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "device": _name_of(kind),
        "n_cores": arguments.n_cpus,
        "load_average": round(os.getloadavg()[0], 1),
        "size": size,
        "rows": rows,
        "beside": {step: round(seconds, 2) for step, seconds in beside.items()},
    }
    temporary = output.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1))
    os.replace(temporary, output)


def make_networks(folder, *, small):
    """Save a video and an image network of random weights; return the options that name them."""
    from bench_features import save_network  # it needs transformers

    options = {}
    for kind, network in (("video", "VideoMAE-Large"), ("image", "DINOv2-Base 448 px")):
        save_network(folder / kind, network, small)
        options[f"{kind}_encoders"] = (str(folder / kind),)
    return options


def measure(bids_dir, folder, subject, options, profile):
    """Run the analysis; return what each step and all took, and seconds beside them."""
    meter = Meter()
    for step, parts in STEPS.items():
        for where, attribute in parts:
            meter.measure(where, attribute, step)
    profiler = cProfile.Profile()
    with meter.watching(), profiler if profile else nullcontext(), meter.step("all else"):
        encode_participant(bids_dir, folder / "out", subject, options, work_dir=folder / "work")
    if profile:
        profiler.dump_stats(profile)
    rows = {step: meter.rows[step] for step in (*STEPS, "all else") if step in meter.rows}
    columns = {key: [row[key] for row in rows.values()] for key in rows["all else"]}
    rows["all"] = {key: (max if key == "peak_gib" else sum)(v) for key, v in columns.items()}
    return rows, meter.beside


if __name__ == "__main__":
    main()
