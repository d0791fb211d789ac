"""What the checks of input cost, as a share of finding and loading a participant's data.

    python benchmarks/bench_checks.py                  # sample data in volumes, surfaces, CIFTI
    python benchmarks/bench_checks.py --bids-dir bids  # your own data

Processor seconds of one process: on a machine with other work they say more than the clock. The
files have been read once before. What counts as a check is listed in `CHECKS`; what reading alone
takes is the rest, the checksum of gzip included, which every reader computes. Results go to
doc/benchmarks/checks.json, which the documentation shows.
"""

import argparse
import functools
import json
import os
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from bench_whole import _name_of

import brainnrds._files as files
from brainnrds.analyses.record import Record
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import (
    _metadata,
    _presentations,
    bids,
    find_runs,
    images,
    list_subjects,
    load_runs,
)

# what is checked: (where it is called, name)
CHECKS = {
    "lengths of files against headers": [(images, "_check_whole")],
    "kinds of files": [(images, "check_file"), (_presentations, "check_file")],
    "raw images against preprocessed ones": [(bids, "read_recorded")],
    "timing": [(bids, "read_timing"), (_metadata, "_against_headers")],
    "grids, masks and films of runs": [(bids, "_check_alike"), (_presentations, "_check_parts")],
    "values": [(images, "_check_size")],
}
SPACES = ("MNI152NLin2009cAsym", "fsaverage5", "fsLR")
SIZE = {"n_runs": 3, "n_films_per_run": 2, "n_test_films": 1, "film_duration": 60}


class Clock:
    """Processor seconds by step; what a step calls counts to the innermost."""

    def __init__(self):
        self.seconds, self._steps, self._last = {}, ["all else"], time.process_time()

    @contextmanager
    def step(self, name):
        self._take()
        self._steps.append(name)
        try:
            yield
        finally:
            self._take()
            self._steps.pop()

    def _take(self):
        now = time.process_time()
        step = self._steps[-1]
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now

    @contextmanager
    def measuring(self):
        """Count every call of a check in the block."""
        before = []
        for name, parts in CHECKS.items():
            for where, attribute in parts:
                function = getattr(where, attribute)
                before.append((where, attribute, function))
                setattr(where, attribute, self._measured(function, name))
        try:
            yield
        finally:
            for part in before:
                setattr(*part)

    def _measured(self, function, name):
        @functools.wraps(function)
        def measured(*args, **kwargs):
            with self.step(name):
                return function(*args, **kwargs)

        return measured


def measure(bids_dir, subject):
    """Find and load a participant once, warm, and return seconds by check."""
    clock = Clock()
    with clock.measuring(), clock.step("finding and loading"):
        runs = find_runs(bids_dir, subject=subject)
        data = load_runs(runs)
    record = Record.of_participant("encode", bids_dir, bids_dir.parent / "out", subject)
    files._hash_unchanged_file.cache_clear()
    with clock.step("SHA-256 of every input, for the record"):
        record._hash_inputs()
    seconds = {step: taken for step, taken in clock.seconds.items() if step != "all else"}
    reading = seconds.pop("finding and loading")
    size = {
        "space": runs[0].space,
        "n_runs": len(runs),
        "n_volumes": sum(run.n_volumes for run in runs),
        "n_voxels": data.bold.shape[1],
        "megabytes": round(sum(p.stat().st_size for run in runs for p in run.bold) / 1e6, 1),
    }
    return size, reading, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bids-dir", type=Path, help="without it, sample data are made")
    parser.add_argument("--repetitions", type=int, default=3, help="the least of each counts")
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/checks.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        places = [arguments.bids_dir]
        if arguments.bids_dir is None:
            places = [Path(folder) / space / "bids" for space in SPACES]
            for space, place in zip(SPACES, places, strict=True):
                make_movie_dataset(place, space=space, **SIZE)
        for place in places:
            subject = list_subjects(place)[0]
            measured = [measure(place, subject) for _ in range(arguments.repetitions + 1)][1:]
            size = measured[0][0]
            reading = min(reading for _, reading, _ in measured)
            checks = {k: min(seconds[k] for *_, seconds in measured) for k in measured[0][2]}
            total = sum(checks.values())
            row = {
                **size,
                "seconds": round(reading + total, 3),
                "seconds_of_checks": {k: round(v, 4) for k, v in checks.items()},
                "share_of_checks": round(total / (reading + total), 4),
            }
            rows.append(row)
            print(json.dumps(row, indent=1), flush=True)
    content = {
        "device": _name_of("cpu"),
        "load_average": round(os.getloadavg()[0], 1),
        "largest_share": max(row["share_of_checks"] for row in rows),
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, arguments.output)


if __name__ == "__main__":
    main()
