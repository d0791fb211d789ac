"""Is Dynamic Natural Vision converted on time, whole, and in little memory?

Alignment: an impulse at 100 s of film time is planted in every kind of run (245 and 246 volumes) of
a small copy of the release, and found again after conversion, with and without the release's crop.
The same with the scan starts swapped must fail. Scale: the full tree (3 subjects, 86 runs each,
small images), then runs of the full MNI grid, cropped; peak memory of the process.

    python tests/prove/prove_wen2018.py --output doc/proofs/wen2018.json [--quick]
"""

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np

import brainnrds
from brainnrds.datasets import wen2018, wen2018_to_bids
from brainnrds.io import load_runs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "datasets"))
from wen2018_release import make_release, run_course, write_film, write_run  # noqa: E402

IMPULSE = 100.0  # s of film time
BOUND_SECONDS = 0.1
BOUND_GIB = 2.0


def impulse(time):
    """A triangle 8 s wide, so that its centre can be measured between volumes."""
    height = max(0.0, 1 - abs(time - IMPULSE) / 4.0)
    return np.array([200.0 * height, 0.0, 5 * np.sin(time / 9), 5 * np.cos(time / 13)])


def measure(dataset, space):
    """Kind of run -> centre of the impulse in film time, s, for every run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load_runs(
            dataset.bids_dir, subject="01", space=space, confounds=(), repeats="concatenate"
        )
    found = {}
    for run in np.unique(data.presentations):
        rows = np.flatnonzero(data.presentations == run)
        times, course = data.film_times[rows], data.bold[rows, 0].astype(float)
        course = course - np.median(course)
        weights = np.clip(course - 0.2 * course.max(), 0, None)
        weights[np.abs(times - IMPULSE) > 30] = 0
        film = data.film_names[data.films[rows].max()]
        n_volumes = 246 if film == "test2.mp4" else 245
        found.setdefault(n_volumes, []).append(float((weights * times).sum() / weights.sum()))
    return found


def prove_alignment(folder):
    release = make_release(folder, films=("seg1", "test1", "test2"), response=impulse)
    rows = []
    for swapped in (False, True):
        start = {245: 0.0, 246: 2.0} if swapped else {245: 2.0, 246: 0.0}
        first = {245: 2, 246: 3} if swapped else {245: 1, 246: 2}
        with (
            mock.patch.object(wen2018, "_SCAN_START", start),
            mock.patch.object(wen2018, "_CROP_START", first),
        ):
            for crop in (False, True):
                done = wen2018_to_bids(
                    release,
                    folder / f"bids-{swapped}-{crop}",
                    subjects=(1,),
                    crop=crop,
                    missing="skip",
                    verbose=0,
                )
                for space in ("fsLR", "MNI152NLin6Asym"):
                    for n_volumes, centres in measure(done, space).items():
                        miss = max(abs(centre - IMPULSE) for centre in centres)
                        within = miss < BOUND_SECONDS
                        rows.append(
                            {
                                "rules": "one volume off" if swapped else "as documented",
                                "volumes": n_volumes,
                                "crop": crop,
                                "space": space,
                                "runs": len(centres),
                                "planted_s": IMPULSE,
                                "found_s": round(float(np.mean(centres)), 3),
                                "worst_miss_s": round(miss, 3),
                                "passed": within != swapped,
                            }
                        )
    return rows


def make_full_tree(folder):
    """Every run and film of the release under its name, with small images and one film linked."""
    root = folder / "video_fmri_dataset"
    rng = np.random.default_rng(0)
    films = [f"seg{index}" for index in range(1, 19)] + [f"test{index}" for index in range(1, 6)]
    write_film(root / "stimuli" / "seg1.mp4")
    for film in films:
        if film != "seg1":
            os.link(root / "stimuli" / "seg1.mp4", root / "stimuli" / f"{film}.mp4")
        n_volumes = 246 if film in films[19:] else 245
        course = run_course(n_volumes, impulse, rng)
        for subject in (1, 2, 3):
            for repeat in range(1, (2 if film.startswith("seg") else 10) + 1):
                write_run(root, subject, film, repeat, course, dot_mni=film == "test1")
    return root


def write_large_runs(root, shape, n_runs):
    """Replace the MNI volumes of the first training films by volumes of the given grid."""
    volume = np.zeros(shape, dtype=np.float32)
    volume[2:-2, 2:-2, 2:-2] = 1000
    header = nib.Nifti1Image(np.zeros((*shape, 1), np.float32), np.diag([2.0, 2, 2, 1])).header
    header.set_data_shape((*shape, 245))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for index in range(n_runs):
        film, repeat = f"seg{index // 2 + 1}", index % 2 + 1
        path = root / f"subject1/fmri/{film}/mni/{film}_{repeat}_mni.nii.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.binaryblock + b"\0" * 4)
            for volume_index in range(245):
                volume[5, 5, 5] = volume_index
                file.write(volume.tobytes(order="F"))


def convert_large(root, output, queue):
    start = time.perf_counter()
    done = wen2018_to_bids(
        root, output, subjects=(1,), what=("mni",), crop=True, verbose=0, missing="skip"
    )
    name = "sub-01_task-train_run-01_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
    image = nib.load(done.derivatives_dir / "sub-01/func" / name)
    first, last = (float(image.dataobj[5, 5, 5, index]) for index in (0, 239))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put({"seconds": time.perf_counter() - start, "peak_gib": peak, "kept": [first, last]})


def prove_scale(folder, quick):
    root = make_full_tree(folder)
    start = time.perf_counter()
    whole = wen2018_to_bids(root, folder / "whole", verbose=0)
    seconds = time.perf_counter() - start
    converted = whole.runs[whole.runs["converted"]]
    tree = {
        "case": "3 subjects x 86 runs, cifti and mni, linked",
        "converted": len(converted),
        "expected": 2 * (3 * 86 - 1),  # without the run that lags
        "seconds": round(seconds, 1),
    }
    tree["passed"] = tree["converted"] == tree["expected"]
    shape, n_runs = ((30, 36, 30), 2) if quick else ((91, 109, 91), 2)
    for film in range(2, 19):  # only the large runs take part
        for path in (root / f"subject1/fmri/seg{film}/mni").glob("*.nii.gz"):
            if film > n_runs // 2:
                path.unlink()
    for film in range(1, 6):
        for path in (root / f"subject1/fmri/test{film}/mni").glob("*.nii.gz"):
            path.unlink()
    write_large_runs(root, shape, n_runs)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=convert_large, args=(root, folder / "large", queue))
    process.start()
    large = queue.get()
    process.join()
    large |= {"case": f"{n_runs} runs of {shape} x 245, cropped", "bound_gib": BOUND_GIB}
    large["passed"] = large["peak_gib"] < BOUND_GIB and large["kept"] == [1.0, 240.0]
    return [tree, large]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a small grid")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        alignment = prove_alignment(Path(folder) / "alignment")
        scale = prove_scale(Path(folder) / "scale", arguments.quick)
    report = {
        "proof": "Dynamic Natural Vision converted on time, whole, in little memory",
        "passed": all(row["passed"] for row in alignment + scale),
        "alignment": alignment,
        "bound_s": BOUND_SECONDS,
        "scale": scale,
        "quick": arguments.quick,
        "seeds": [0],
        "versions": {
            "brainnrds": brainnrds.__version__,
            "nibabel": nib.__version__,
            "python": platform.python_version(),
        },
        "device": "cpu",
        "seconds": round(time.perf_counter() - start, 1),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in alignment + scale:
        print(row)


if __name__ == "__main__":
    main()
