"""Memory and seconds of the inter-subject ceiling, with BOLD of many people in files.

    python benchmarks/bench_shared_ceiling.py --output doc/benchmarks/shared_ceiling.json
        [--n-people 30] [--n-voxels 91282] [--n-volumes 5000] [--n-permutations 0]

Files of all people lie in a temporary folder (``TMPDIR``): n_people x n_voxels x n_volumes x 4 B,
55 GB by default. Memory is what the process holds itself; pages of files that are mapped are the
system's to drop, and are given beside it.
"""

import argparse
import json
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import brainnrds
from brainnrds.group import inter_subject_correlation

_VOXELS = 1024  # written at a time
N_FILMS = 10


def write_people(folder, n_people, n_volumes, n_voxels):
    """Files of responses that are shared in part, voxel by voxel; return what is mapped."""
    paths = [Path(folder) / f"{i}.npy" for i in range(n_people)]
    shape = (n_volumes, n_voxels)
    files = [
        np.lib.format.open_memmap(path, "w+", np.float32, shape, fortran_order=True)
        for path in paths
    ]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2 * n_volumes, _VOXELS), dtype=np.float32)
    for start in range(0, n_voxels, _VOXELS):
        part = slice(start, min(start + _VOXELS, n_voxels))
        shared = rng.standard_normal((n_volumes, part.stop - start), dtype=np.float32)
        for file in files:
            # of each person another stretch of the same noise: quick, and of no one else's
            first = rng.integers(n_volumes)
            file[:, part] = shared + noise[first : first + n_volumes, : part.stop - start]
    del files
    return [np.load(path, mmap_mode="r") for path in paths]


class Memory(threading.Thread):
    """The most that the process holds: its own, and with mapped files, in GiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = {"RssAnon": 0.0, "VmRSS": 0.0}, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(value.split()[0]) / 2**20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--n-people", type=int, default=30)
    parser.add_argument("--n-voxels", type=int, default=91282)
    parser.add_argument("--n-volumes", type=int, default=5000)
    parser.add_argument("--n-permutations", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bold = write_people(folder, options.n_people, options.n_volumes, options.n_voxels)
        memory = Memory()
        memory.start()
        start = time.perf_counter()
        shared = inter_subject_correlation(
            bold,
            t_r=1.0,
            films=np.arange(options.n_volumes) * N_FILMS // options.n_volumes,
            n_permutations=options.n_permutations,
        )
        seconds = time.perf_counter() - start
        memory.done.set()
        del bold
    report = {
        "what": "inter-subject ceiling, people read in batches of voxels from files",
        "people": options.n_people,
        "voxels": options.n_voxels,
        "volumes": options.n_volumes,
        "permutations": options.n_permutations,
        "data_GB": round(4e-9 * options.n_people * options.n_voxels * options.n_volumes, 2),
        "seconds": round(seconds, 1),
        "peak_GiB": round(memory.peak["RssAnon"], 2),
        "peak_with_mapped_files_GiB": round(memory.peak["VmRSS"], 2),
        "mean_ceiling_R2": round(float(np.nanmean(shared.ceiling)), 3),
        "planted_R2": 0.5,
        "device": f"cpu ({platform.machine()})",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
