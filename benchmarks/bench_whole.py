"""Seconds, processor seconds and peak memory of each step of `encode` on one participant.

    python benchmarks/bench_whole.py                         # the sample data, two threads
    python benchmarks/bench_whole.py --device cuda --n-cpus 16
    python benchmarks/bench_whole.py --bids-dir bids         # your own data

Nothing is in the work folder before. Processor seconds are of this process and those that it
starts: on a machine with other work they say more than the clock. Peak memory is of all of them
together, without what they map from files. Results go to doc/benchmarks/whole_<device>.json, which
the documentation shows.
"""

import argparse
import functools
import json
import os
import platform
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from brainnrds.analyses import EncodeOptions, encode, encode_participant, held_out, record
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import find_runs, list_subjects

# what is done in a step: (where it is called, name)
STEPS = {
    "finding runs": [(record, "find_runs")],
    "loading BOLD": [(encode, "_load_bold")],
    "features": [(held_out, "movie_features")],
    "fits": [(record.Record, "step")],
    "tests": [(encode, "_compare"), (encode, "divide_variance")],
    "maps": [(encode, "_save_maps")],
    "figures": [(encode, "_save_figures")],
    "report": [(record.Record, "close")],
}


class Meter:
    """What steps cost, each called once or several times."""

    def __init__(self):
        self.rows = {}
        self.peak = 0
        self._process = psutil.Process()

    @contextmanager
    def watching(self):
        """Look at the memory in use every tenth of a second."""
        over = threading.Event()

        def look():
            while not over.wait(0.1):
                self.peak = max(self.peak, sum(self._of_each(_private_bytes)))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _of_each(self, ask):
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                yield ask(process)
            except psutil.Error:  # it has ended
                continue

    def processor_seconds(self):
        # of those that ended, and of those that still wait for work
        ended = self._process.cpu_times()
        ended = ended.children_user + ended.children_system
        return ended + sum(self._of_each(_own_seconds))

    @contextmanager
    def step(self, name):
        """Add the block to a step."""
        self.peak, start = 0, (time.perf_counter(), self.processor_seconds())
        try:
            yield
        finally:
            row = self.rows.setdefault(
                name, {"seconds": 0.0, "processor_seconds": 0.0, "peak_gib": 0.0}
            )
            row["seconds"] += time.perf_counter() - start[0]
            row["processor_seconds"] += self.processor_seconds() - start[1]
            peak = max(self.peak, sum(self._of_each(_private_bytes)))
            row["peak_gib"] = max(row["peak_gib"], peak / 2**30)

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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-cpus", type=int, default=2, help="threads and processes")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.n_cpus)
    kind = torch.device(arguments.device).type
    name = _name_of(kind)
    options = EncodeOptions(device=arguments.device, n_jobs=arguments.n_cpus)
    warnings.simplefilter("ignore")
    meter = Meter()
    for step, parts in STEPS.items():
        for where, attribute in parts:
            meter.measure(where, attribute, step)
    with tempfile.TemporaryDirectory() as folder, meter.watching():
        bids_dir = arguments.bids_dir or Path(folder) / "bids"
        if arguments.bids_dir is None:
            make_movie_dataset(bids_dir)
        subject = list_subjects(bids_dir)[0]
        size = describe_size(bids_dir, subject, options)
        start, used = time.perf_counter(), meter.processor_seconds()
        encode_participant(
            bids_dir, Path(folder) / "out", subject, options, work_dir=Path(folder) / "work"
        )
        seconds = time.perf_counter() - start
        used = meter.processor_seconds() - used
    meter.rows["all"] = {
        "seconds": seconds,
        "processor_seconds": used,
        "peak_gib": max(row["peak_gib"] for row in meter.rows.values()),
    }
    for step, row in meter.rows.items():
        row.update({key: round(value, 2) for key, value in row.items()})
        print(f"{step:>14}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    output = arguments.output or Path("doc/benchmarks") / f"whole_{kind}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "device": name,
        "n_cores": arguments.n_cpus,
        "load_average": round(os.getloadavg()[0], 1),
        "size": size,
        "rows": meter.rows,
    }
    temporary = output.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1))
    os.replace(temporary, output)


if __name__ == "__main__":
    main()
