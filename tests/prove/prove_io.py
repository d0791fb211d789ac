"""Are files whole after a kill, and does loading a long data set stay within its memory?

1. Kills: a process writes tables, flow, clips and maps of all three kinds over and over; 100
   SIGKILLs at random moments; every file under a final name must open and be complete.
2. Memory: 18 runs of 240 volumes x 59,412 grayordinates (CIFTI), every film shown twice, loaded as
   averages and as separate presentations; the peak of the process against the size of the result.

    python tests/prove/prove_io.py --output doc/proofs/io.json [--quick]

Finished parts are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

import brainnrds
import brainnrds.io as io

T_R = 2.0
N_GRAYORDINATES = 59412

WRITER = """
import itertools, sys
from pathlib import Path
import numpy as np
import nibabel as nib
import brainnrds.io as io
from brainnrds.io.images import make_masker
folder = Path(sys.argv[1])
random = np.random.default_rng(0)
flow = random.normal(size=(20, 3, 2, 16, 16)).astype("f4")
models = nib.cifti2.BrainModelAxis.from_mask(np.ones(5000, bool), name="CortexLeft")
volume = nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), np.eye(4))
from nilearn.maskers import NiftiMasker
maskers = [io.CiftiMasker(models), NiftiMasker(volume, standardize=None, reports=False).fit()]
print("ready", flush=True)
for i in itertools.count():
    io.save_flow(folder / "a_flow.h5", flow, arrays={"i": np.full(1000, i)})
    io.save_table(folder / "a_table.tsv", {"a": np.full(5000, i)})
    io.write_clip(folder / "a_clip.mp4", np.full((10, 3, 32, 32), 0.5), fps=5)
    for masker, n in zip(maskers, (5000, 8000)):
        io.save_map(folder, np.full(n, i), masker, {"subject": "01", "space": "x", "stat": "r"})
"""


def is_whole(path):
    if path.name.endswith(".h5"):
        flow, arrays, _ = io.load_flow(path)
        return flow.shape == (20, 3, 2, 16, 16) and np.ptp(arrays["i"]) == 0
    if path.name.endswith(".tsv"):
        table = io.load_table(path)
        return len(table) == 5000 and table["a"].nunique() == 1
    if path.name.endswith(".mp4"):
        return io.read_clip(path).shape[0] == 10
    if path.name.endswith((".nii.gz", ".dscalar.nii")):
        return np.ptp(np.asarray(nib.load(path).dataobj)) == 0
    return bool(io.load_json(path))


def prove_kills(n_kills, seed=0):
    random = np.random.default_rng(seed)
    n_checked, broken, left_over = 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(n_kills):
            command = [sys.executable, "-c", WRITER, folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(1.5 * random.random())
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            for path in Path(folder).rglob("*"):
                if path.is_dir():
                    continue
                if path.name.startswith(".tmp-"):
                    left_over += 1
                    path.unlink()
                    continue
                n_checked += 1
                try:
                    whole = is_whole(path)
                except Exception as error:  # whatever a truncated file raises counts
                    whole, path = False, f"{path.name}: {error}"
                if not whole:
                    broken.append(str(path))
    return {
        "n_kills": n_kills,
        "n_files_checked": n_checked,
        "n_broken": len(broken),
        "broken": broken[:10],
        "hidden_files_left_by_kills": left_over,
        "seed": seed,
        "passed": not broken and n_checked > n_kills,
    }


def write_data_set(folder, n_runs, n_volumes):
    """Noise in CIFTI format; runs 2k and 2k + 1 show the same film."""
    bids = folder / "bids"
    prep = bids / "derivatives" / "fmriprep" / "sub-01" / "func"
    raw = bids / "sub-01" / "func"
    for part in (prep, raw, bids / "stimuli"):
        part.mkdir(parents=True)
    description = json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    (bids / "dataset_description.json").write_text(description)
    (bids / "task-movie_bold.json").write_text(json.dumps({"RepetitionTime": T_R}))
    seconds = n_volumes * T_R - 20
    gray = np.linspace(0, 1, round(seconds))[:, None, None, None]
    film = io.write_clip(bids / "film.mp4", np.broadcast_to(gray, (len(gray), 3, 16, 16)), fps=1)
    axis = nib.cifti2.BrainModelAxis.from_mask(np.ones(N_GRAYORDINATES, bool), name="CortexLeft")
    series = nib.cifti2.SeriesAxis(0, T_R, n_volumes)
    random = np.random.default_rng(0)
    for run in range(1, n_runs + 1):
        values = random.standard_normal((n_volumes, N_GRAYORDINATES), dtype=np.float32)
        stem = f"sub-01_task-movie_run-{run:02d}"
        name = f"{stem}_space-fsLR_den-91k_bold"
        nib.save(nib.Cifti2Image(values, header=(series, axis)), prep / f"{name}.dtseries.nii")
        confounds = random.normal(size=(n_volumes, 6))
        header = "\t".join(f"{kind}_{a}" for kind in ("trans", "rot") for a in "xyz")
        path = prep / f"{stem}_desc-confounds_timeseries.tsv"
        np.savetxt(path, confounds, delimiter="\t", header=header, comments="")
        path.with_suffix(".json").write_text("{}")
        stimulus = bids / "stimuli" / f"film{(run - 1) // 2}.mp4"
        stimulus.write_bytes(film.read_bytes())
        (raw / f"{stem}_events.tsv").write_text(
            f"onset\tduration\tstim_file\n4.0\t{seconds}\t{stimulus.name}\n"
        )
    return bids


LOADER = """
import json, resource, sys, time
import brainnrds.io as io
start = time.perf_counter()
runs = io.find_runs(sys.argv[1])
found = time.perf_counter()
options = {"confounds": ("motion",), "confound_options": {"motion": "basic"}}
data = io.load_runs(runs, repeats=sys.argv[2], **options)
print(json.dumps({
    "shape": data.bold.shape,
    "result_gib": data.bold.nbytes / 2**30,
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "seconds_to_find": found - start,
    "seconds_to_load": time.perf_counter() - found,
}))
"""


def prove_memory(n_runs, n_volumes):
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        bids = write_data_set(Path(folder), n_runs, n_volumes)
        run_gib = n_volumes * N_GRAYORDINATES * 4 / 2**30
        for repeats in ("average", "concatenate"):
            done = subprocess.run(
                [sys.executable, "-c", LOADER, str(bids), repeats],
                capture_output=True,
                text=True,
                check=True,
            )
            result = json.loads(done.stdout)
            # the result, one run read and one copy of it, and 1 GiB for Python and its packages
            result["bound_gib"] = result["result_gib"] + 3 * run_gib + 1
            result["passed"] = result["peak_gib"] < result["bound_gib"]
            results[repeats] = result
    results |= {"n_runs": n_runs, "n_volumes": n_volumes, "n_grayordinates": N_GRAYORDINATES}
    results["passed"] = all(results[key]["passed"] for key in ("average", "concatenate"))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="fewer kills, fewer runs")
    options = parser.parse_args()
    partial = options.output.with_suffix(".partial.json")
    kept = json.loads(partial.read_text()) if partial.exists() else {}
    parts = {
        "kills": lambda: prove_kills(10 if options.quick else 100),
        "memory": lambda: prove_memory(4 if options.quick else 18, 60 if options.quick else 240),
    }
    for name, prove in parts.items():
        key = f"{name}{'-quick' if options.quick else ''}"
        if key not in kept:
            start = time.perf_counter()
            kept[key] = {**prove(), "seconds": time.perf_counter() - start}
            io.save_json(partial, kept)
        print(name, json.dumps(kept[key]))
    results = {name: kept[f"{name}{'-quick' if options.quick else ''}"] for name in parts}
    io.save_json(
        options.output,
        {
            "description": __doc__.splitlines()[0],
            "quick": options.quick,
            **results,
            "passed": all(part["passed"] for part in results.values()),
            "versions": {
                "brainnrds": brainnrds.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "nibabel": nib.__version__,
            },
            "device": f"CPU, {os.cpu_count()} cores",
        },
    )
    partial.unlink()


if __name__ == "__main__":
    main()
