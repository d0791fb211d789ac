"""Do encode, decode and reanimate stay under 16 GiB of host memory, at the size of a whole brain?

18 runs of 240 volumes (4,320) x 91,282 grayordinates of noise in CIFTI files, 18 films of noise,
small features: each analysis of the App runs in a process of its own, at its default settings but
for what takes time alone (fewer permutations, folds, mixtures, epochs, cells and components; the
predictions of all folds are held in any case). Every 50 ms the
memory of that process and of all that it has started is added up: private memory, without what is
mapped from files. At each new peak the line of the package that was running is noted.

    python tests/prove/prove_memory.py --output doc/proofs/memory.json [--n-jobs N]
        [--n-runs 18] [--n-volumes 240] [--device cuda]

Analyses that are finished are kept beside the output: an interrupted run goes on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import av
import nibabel as nib
import numpy as np
import psutil
from finished import add_finished, read_finished

import brainnrds
import brainnrds.io as io
from brainnrds.analyses import (
    DecodeOptions,
    EncodeOptions,
    ReanimateOptions,
    decode_participant,
    encode_participant,
    reanimate_participant,
)

N_RUNS, N_VOLUMES, T_R = 18, 240, 2.0
# left and right cortex, and voxels below it, of the grayordinates of HCP and fMRIPrep
CORTEX, N_VERTICES, N_VOXELS = (29696, 29716), 32492, 31870
FILM_SIZE, FILM_FPS = (24, 32), 4
BOUND_GIB = 16.0
ANALYSES = {
    "encode": (
        encode_participant,
        EncodeOptions,
        {"n_permutations": 100, "n_components": 10, "n_folds": 2, "n_iter": 2},
    ),
    "decode": (
        decode_participant,
        DecodeOptions,
        {"n_permutations": 100, "n_epochs": 2, "grid": (8, 8)},
    ),
    # frames decoded from BOLD: the way that holds most of it
    "reanimate": (
        reanimate_participant,
        ReanimateOptions,
        {
            "n_permutations": 100,
            "n_epochs": 2,
            "grid": (8, 8),
            "initial_frames": "decoded",
            "n_frames": 4,
            "size": FILM_SIZE,
            "max_clips": 60,
        },
    ),
}


def brain_axis():
    """The grayordinates."""
    axes = [
        nib.cifti2.BrainModelAxis.from_surface(np.arange(n), N_VERTICES, name=name)
        for name, n in zip(("CortexLeft", "CortexRight"), CORTEX, strict=True)
    ]
    inside = np.zeros((91, 109, 91), dtype=bool)
    inside.ravel()[:N_VOXELS] = True
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    below = nib.cifti2.BrainModelAxis.from_mask(inside, name="Cerebellum_Left", affine=affine)
    return axes[0] + axes[1] + below


def write_film(path, seconds, random):
    """Noise, encoded frame by frame."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FILM_FPS)
        stream.height, stream.width = FILM_SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "threads": "1"}
        for _ in range(round(seconds * FILM_FPS)):
            image = random.integers(0, 256, (*FILM_SIZE, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_data_set(bids, n_runs, n_volumes):
    """BIDS data of one participant."""
    prep = bids / "derivatives" / "fmriprep" / "sub-01" / "func"
    raw = bids / "sub-01" / "func"
    for folder in (prep, raw, bids / "stimuli"):
        folder.mkdir(parents=True)
    description = json.dumps({"Name": "noise", "BIDSVersion": "1.10.0"})
    (bids / "dataset_description.json").write_text(description)
    (bids / "task-movie_bold.json").write_text(json.dumps({"RepetitionTime": T_R}))
    axis, series = brain_axis(), nib.cifti2.SeriesAxis(0, T_R, n_volumes)
    random = np.random.default_rng(0)
    for run in range(1, n_runs + 1):
        film = bids / "stimuli" / f"film{run:02d}.mp4"
        write_film(film, n_volumes * T_R, random)
        values = random.standard_normal((n_volumes, len(axis)), dtype=np.float32)
        stem = f"sub-01_task-movie_run-{run:02d}"
        image = nib.Cifti2Image(values, header=(series, axis))
        nib.save(image, prep / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii")
        (raw / f"{stem}_events.tsv").write_text(
            f"onset\tduration\tstim_file\n0.0\t{n_volumes * T_R}\t{film.name}\n"
        )


class Watch:
    """Peak of the private memory of this process and its children, and where it was reached."""

    def __init__(self):
        self.peak, self.where = 0, None
        self._process, self._of = psutil.Process(), threading.get_ident()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        while True:
            used = sum(map(_private_bytes, self._all()))
            if used > self.peak:
                self.peak, self.where = used, self._line()
            time.sleep(0.05)

    def _all(self):
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return [self._process]

    def _line(self):
        package = str(Path(brainnrds.__file__).parent)
        stack = traceback.extract_stack(sys._current_frames()[self._of])
        ours = [frame for frame in stack if frame.filename.startswith(package)]
        return " > ".join(
            f"{Path(frame.filename).relative_to(package).with_suffix('')}.{frame.name}"
            for frame in ours[-4:]
        )


def _private_bytes(process):
    try:
        memory = process.memory_info()
        return memory.rss - memory.shared
    except psutil.Error:  # it has ended
        return 0


def measure(analysis, folder, n_jobs, device):
    """Run one analysis; print what it took as a line of JSON."""
    run, options, settings = ANALYSES[analysis]
    settings = {**settings, "n_jobs": n_jobs, "device": device, "confounds": ()}
    before, watch, start = _private_bytes(psutil.Process()), Watch(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = {"work_dir": folder / "work", "verbose": 0}
        run(folder / "bids", folder / "out", "01", options(**settings), **places)
    result = {
        "analysis": analysis,
        "settings": {k: v for k, v in settings.items() if k != "n_jobs"},
        "before_gib": before / 2**30,
        "peak_gib": watch.peak / 2**30,
        "reached_in": watch.where,
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(result))


def main():
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--n-runs", type=int, default=N_RUNS)
    parser.add_argument("--n-volumes", type=int, default=N_VOLUMES, help="of a run")
    parser.add_argument("--n-jobs", type=int, default=2, metavar="N", help="processes of the App")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--analyses", nargs="+", choices=ANALYSES, default=list(ANALYSES))
    parser.add_argument("--folder", type=Path, help="for data and results (a temporary one)")
    arguments = parser.parse_args()
    size = [arguments.n_runs, arguments.n_volumes]
    partial = arguments.output.with_suffix(".partial.jsonl")
    results = [r for r in read_finished(partial) if r["size"] == size]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        missing = [a for a in arguments.analyses if a not in {r["analysis"] for r in results}]
        if missing:
            write_data_set(folder / "bids", *size)
        for analysis in missing:
            command = [sys.executable, __file__, "--measure", analysis, str(folder)]
            done = subprocess.run(
                [*command, str(arguments.n_jobs), arguments.device],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            result = json.loads(done.stdout.splitlines()[-1]) | {"size": size}
            add_finished(partial, result)
            results.append(result)
            print(f"{analysis}: {result['peak_gib']:.2f} GiB in {result['reached_in']}", flush=True)
    n_volumes, n_grayordinates = int(np.prod(size)), sum(CORTEX) + N_VOXELS
    record = {
        "description": __doc__.splitlines()[0],
        "passed": all(result["peak_gib"] < BOUND_GIB for result in results),
        "n_volumes": n_volumes,
        "n_grayordinates": n_grayordinates,
        "bold_gib": n_volumes * n_grayordinates * 4 / 2**30,
        "bound_gib": BOUND_GIB,
        "analyses": results,
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "device": f"CPU, {arguments.n_jobs} processes of {os.cpu_count()} cores",
    }
    io.save_json(arguments.output, record)
    if set(ANALYSES) <= {result["analysis"] for result in results}:
        partial.unlink(missing_ok=True)
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
