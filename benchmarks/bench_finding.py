"""Seconds and memory to find and validate a data set of the size of CNeuroMod's.

    python benchmarks/bench_finding.py [--n-runs 3000] [--n-tasks 200] [--n-people 6]

A data set is written first: people who saw every film of the same tasks in many sessions, events at
the root, CIFTI of 91,282 grayordinates (real headers; values are a hole in the file) and confounds
tables. It is found without a database, then with one, and validated with it, each in a process of
its own. Images are links to a few files, so that headers come from the page cache: a slow disk is
not measured. Results go to doc/benchmarks/finding.json.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from brainnrds.io import find_runs, write_clip

T_R, N_VOLUMES, FILM_SECONDS = 1.49, 410, 600
# grayordinates of HCP's standard space on the mesh of 32k vertices: left, right, below the cortex
N_LEFT, N_RIGHT, N_BELOW, N_MESH = 29696, 29716, 31870, 32492


def grayordinates():
    """Brain models of 91,282 grayordinates, the voxels in a block."""
    left = nib.cifti2.BrainModelAxis.from_surface(np.arange(N_LEFT), N_MESH, name="CortexLeft")
    right = nib.cifti2.BrainModelAxis.from_surface(np.arange(N_RIGHT), N_MESH, name="CortexRight")
    voxels = np.stack(np.unravel_index(np.arange(N_BELOW), (91, 109, 91)), axis=1)
    below = nib.cifti2.BrainModelAxis(
        "CIFTI_STRUCTURE_THALAMUS_LEFT",
        voxel=voxels,
        affine=np.diag([-2.0, 2, 2, 1]),
        volume_shape=(91, 109, 91),
    )
    return left + right + below


def write_image(path):
    """A CIFTI file with a real header and a hole in place of its values."""
    models = grayordinates()
    series = nib.cifti2.SeriesAxis(0, T_R, 1)
    small = path.with_name("small.dtseries.nii")
    nib.save(nib.Cifti2Image(np.zeros((1, len(models)), np.float32), (series, models)), small)
    image = nib.load(small)
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, T_R, N_VOLUMES), models))
    nifti = nib.Nifti2Header.from_header(image.nifti_header)
    nifti.set_data_shape((1, 1, 1, 1, N_VOLUMES, len(models)))
    content = header.to_xml()
    nifti.extensions[:] = [nib.nifti1.Nifti1Extension(32, content)]
    nifti["vox_offset"] = 0
    with open(path, "wb") as file:
        nifti.write_to(file)
        file.truncate(file.tell() + 4 * N_VOLUMES * len(models))
    small.unlink()


def make_data_set(root, n_runs, n_tasks, n_people):
    """Write the data set: people x tasks, each shown as often as it takes."""
    derivatives = root / "derivatives" / "fmriprep"
    stimuli = root / "stimuli"
    for folder in (derivatives, stimuli):
        folder.mkdir(parents=True)
        about = {"Name": "the size of CNeuroMod", "BIDSVersion": "1.8.0"}
        (folder / "dataset_description.json").write_text(json.dumps(about))
    (root / "dataset_description.json").write_text(json.dumps(about))
    image, table = root / "image.dtseries.nii", root / "confounds.tsv"
    write_image(image)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + ["csf"]
    rows = "\n".join("\t".join(["0.1"] * len(names)) for _ in range(N_VOLUMES))
    table.write_text("\t".join(names) + "\n" + rows + "\n")
    film = root / "film.mp4"
    frames = np.random.default_rng(0).random((FILM_SECONDS, 3, 16, 16), np.float32)
    write_clip(film, frames, fps=1)
    for task in range(n_tasks):
        # a box that no reader looks into makes other films of the same one
        box = (8 + task).to_bytes(4, "big") + b"free" + bytes(task)
        (stimuli / f"film{task:03d}.mp4").write_bytes(film.read_bytes() + box)
        label = f"s{task // 48 + 1:02d}e{task % 48 // 2 + 1:02d}{'ab'[task % 2]}"
        (root / f"task-{label}_bold.json").write_text(json.dumps({"RepetitionTime": T_R}))
        (root / f"task-{label}_events.tsv").write_text(
            f"onset\tduration\tstim_file\n0\t{FILM_SECONDS}\tfilm{task:03d}.mp4\n"
        )
    for i in range(n_runs):
        person, shown = i % n_people + 1, i // n_people
        task, run = shown % n_tasks, shown // n_tasks + 1
        label = f"s{task // 48 + 1:02d}e{task % 48 // 2 + 1:02d}{'ab'[task % 2]}"
        session = f"{shown // 4 + 1:03d}"
        stem = f"sub-{person:02d}_ses-{session}_task-{label}_run-{run}"
        for home in (root, derivatives):
            func = home / f"sub-{person:02d}" / f"ses-{session}" / "func"
            func.mkdir(parents=True, exist_ok=True)
        (root / func.relative_to(derivatives) / f"{stem}_bold.json").write_text("{}")
        bold = func / f"{stem}_space-fsLR_den-91k_bold"
        os.link(image, bold.with_name(f"{bold.name}.dtseries.nii"))
        bold.with_name(f"{bold.name}.json").write_text(json.dumps({"StartTime": T_R / 2}))
        os.link(table, func / f"{stem}_desc-confounds_timeseries.tsv")


def measure(what, root):
    """Time one look at the data set in this process."""
    from brainnrds.analyses.validate import validate_dataset

    database = None if what == "find" else root.parent / "database"
    start, start_processor = time.perf_counter(), time.process_time()
    if what == "validate":
        validate_dataset(root, database_path=database)
        n_runs = None
    else:
        n_runs = len(find_runs(root, database_path=database))
    row = {
        "what": what,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - start_processor,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "n_runs": n_runs,
    }
    print(json.dumps(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-runs", type=int, default=3000)
    parser.add_argument("--n-tasks", type=int, default=200)
    parser.add_argument("--n-people", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/finding.json"))
    parser.add_argument("--data-set", type=Path, help="where it is kept (a temporary folder)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.data_set)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.data_set or Path(folder) / "bids"
        if not root.exists():
            make_data_set(root, arguments.n_runs, arguments.n_tasks, arguments.n_people)
        rows = []
        # the second look with a database finds it made
        for what in ("find", "find, database made", "find, database read", "validate"):
            command = [sys.executable, __file__, "--measure", what, "--data-set", str(root)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(said))
            seconds, processor, peak = list(rows[-1].values())[1:4]
            print(
                f"{what}: {seconds:.1f} s ({processor:.1f} of a core), {peak:.0f} MiB", flush=True
            )
    report = {
        "benchmark": "finding and validating a large data set",
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "size": {
            "n_runs": arguments.n_runs,
            "n_tasks": arguments.n_tasks,
            "n_people": arguments.n_people,
            "n_grayordinates": N_LEFT + N_RIGHT + N_BELOW,
        },
        "rows": rows,
        "python": platform.python_version(),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
