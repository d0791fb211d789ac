"""Memory and seconds of the inter-subject ceiling, of many people who are read in batches.

    python benchmarks/bench_shared_ceiling.py [--output doc/benchmarks/shared_ceiling.json]
        [--n-people 30] [--n-voxels 91282] [--n-volumes 5000] [--n-permutations 100]

As files of all people would be 55 GB, their responses are made when a batch of voxels is read;
making them counts in the seconds.
"""

import argparse
import functools
import json
import platform
import threading
import time
from pathlib import Path

import numpy as np

import brainnrds
from brainnrds.group import inter_subject_correlation

N_FILMS = 10


class Person:
    """Responses that are shared in part, voxel by voxel, made when they are read."""

    def __init__(self, number, shape):
        self.number, self.shape = number, shape

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        _, columns = index
        first, stop, _ = columns.indices(self.shape[1])
        shared, noise = drawn(len(self), first, stop - first)
        # it is white: another stretch of it at each moment is noise of one's own
        return shared + noise[self.number : self.number + len(self)]


@functools.lru_cache(maxsize=1)
def drawn(n_volumes, first, n_voxels):
    """What a batch of voxels shares, and the noise of all people."""
    rng = np.random.default_rng(first)
    shape = (3 * n_volumes, n_voxels)
    shared, noise = np.split(rng.standard_normal(shape, dtype=np.float32), [n_volumes])
    return shared, noise


class Memory(threading.Thread):
    """The most that the process holds, in GiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    self.peak = max(self.peak, int(line.split()[1]) / 2**20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/shared_ceiling.json"))
    parser.add_argument("--n-people", type=int, default=30)
    parser.add_argument("--n-voxels", type=int, default=91282)
    parser.add_argument("--n-volumes", type=int, default=5000)
    parser.add_argument("--n-permutations", type=int, default=100)
    options = parser.parse_args()
    shape = options.n_volumes, options.n_voxels
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    shared = inter_subject_correlation(
        [Person(number, shape) for number in range(options.n_people)],
        t_r=1.0,
        films=np.arange(options.n_volumes) * N_FILMS // options.n_volumes,
        n_permutations=options.n_permutations,
    )
    seconds = time.perf_counter() - start
    memory.done.set()
    report = {
        "what": "inter-subject ceiling, people read in batches of voxels",
        "people": options.n_people,
        "voxels": options.n_voxels,
        "volumes": options.n_volumes,
        "permutations": options.n_permutations,
        "data_GB": round(4e-9 * options.n_people * options.n_voxels * options.n_volumes, 2),
        "seconds": round(seconds, 1),
        "peak_GiB": round(memory.peak, 2),
        "mean_ceiling_R2": round(float(np.nanmean(shared.ceiling)), 3),
        "planted_R2": 0.5,
        "device": f"cpu ({platform.machine()})",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
