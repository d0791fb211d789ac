"""Do many people on a cluster come out as one after the other, even where a worker dies?

The App encodes simulated people of three films each and takes them together: here one after the
other; on a Dask cluster of local processes; and on one of whose workers one is killed at work.

    python tests/prove/prove_cluster.py --output doc/proofs/cluster.json [--quick] [--n-workers N]
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
from distributed import Client, LocalCluster

import brainnrds
from brainnrds.cli import main as run_app
from brainnrds.datasets import make_movie_dataset

N_FILMS, FILM_DURATION = 3, 80  # s
FAST = ["--n-iter", "1", "--n-folds", "2", "--n-permutations", "100", "--n-cpus", "1"]
LARGEST_DIFFERENCE = 1e-4  # of any value of any map, relative to the largest value of the map


def make_people(folder, n_people):
    return make_movie_dataset(
        folder / "bids",
        n_subjects=n_people,
        n_runs=N_FILMS,
        n_films_per_run=1,
        n_test_films=0,
        film_duration=FILM_DURATION,
        n_repeats=1,
        space="MNI152NLin2009cAsym",
        random_state=0,
    )


def analyse(bids_dir, out, *cluster):
    """Exit status and seconds of the participants, and of the group."""
    start = time.perf_counter()
    work = ["-w", str(out.parent / f"work-{out.name}")]
    status = run_app([str(bids_dir), str(out), "participant", *work, *FAST, *cluster])
    status = status or run_app([str(bids_dir), str(out), "group", *work, "--n-permutations", "100"])
    return status, time.perf_counter() - start


@contextmanager
def cluster(n_workers, should_kill=None):
    """Address of a scheduler and the processes that were killed: one, when that says so."""
    killed, over = [], threading.Event()
    workers = LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)
    with workers, Client(workers) as client:
        processes = client.run(os.getpid)

        def kill_at_work():
            while not over.wait(0.05):
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                if should_kill() and busy:
                    os.kill(processes[busy[0]], signal.SIGKILL)
                    killed.append(processes[busy[0]])
                    return

        killer = threading.Thread(target=kill_at_work, daemon=True)
        if should_kill is not None:
            killer.start()
        yield client.scheduler.address, killed
        over.set()
        if should_kill is not None:
            killer.join()


def largest_difference(out, reference):
    """Over all maps, with the map's name; infinite where files or missing values are others.

    Relative to each map's largest value: a t of 6 is known to as many digits as an r of .1.
    """
    names = [sorted(p.relative_to(d) for p in d.rglob("*.nii.gz")) for d in (out, reference)]
    if names[0] != names[1] or not names[0]:
        return float("inf"), None, len(names[0])
    largest, where = 0.0, None
    for name in names[0]:
        found, expected = (nib.load(folder / name).get_fdata() for folder in (out, reference))
        if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
            return float("inf"), name.name, len(names[0])
        scale = np.nanmax(np.abs(expected), initial=0.0) or 1.0
        here = float(np.nanmax(np.abs(found - expected), initial=0.0) / scale)
        if here > largest:
            largest, where = here, name.name
    return largest, where, len(names[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="4 people")
    parser.add_argument("--n-workers", type=int, default=2, metavar="N")
    options = parser.parse_args()
    n_people = 4 if options.quick else 30
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        bids_dir = make_people(folder, n_people).bids_dir
        status, seconds = analyse(bids_dir, folder / "alone")
        rows.append({"run": "one after the other", "exit_status": status, "seconds": seconds})
        for run, out in (("cluster", "cluster"), ("cluster, a worker killed", "killed")):
            should_kill = (folder / out / "sub-01.html").exists if out == "killed" else None
            with cluster(options.n_workers, should_kill) as (address, killed):
                scheduler = ["--dask-scheduler", address]
                status, seconds = analyse(bids_dir, folder / out, *scheduler)
            largest, where, n_maps = largest_difference(folder / out, folder / "alone")
            row = {"run": run, "exit_status": status, "seconds": seconds}
            row |= {"n_killed": len(killed), "n_maps": n_maps, "largest_difference": largest}
            row["largest_difference_in"] = where
            rows.append(row)
    for row in rows:
        row["seconds"] = round(row["seconds"], 1)
    report = {
        "proof": "many people on a cluster come out as one after the other",
        "passed": all(row["exit_status"] == 0 for row in rows)
        and all(row["largest_difference"] <= LARGEST_DIFFERENCE for row in rows[1:])
        and rows[2]["n_killed"] == 1,
        "quick": options.quick,
        "n_people": n_people,
        "n_films": N_FILMS,
        "n_workers": options.n_workers,
        "runs": rows,
        "largest_difference_allowed": LARGEST_DIFFERENCE,
        "device": f"{joblib.cpu_count()} cores",
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
