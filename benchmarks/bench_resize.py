"""Milliseconds to resize and crop one frame for a network: ours against PIL, the same bytes.

    python benchmarks/bench_resize.py

One thread. Each row is the fastest of many repetitions, of processor time, which other work on the
machine disturbs little; both take turns. A row whose bytes differ from PIL's ends the benchmark.
Results go to doc/benchmarks/resize_cpu.json.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

from brainnrds.features._resize import resize_as_pil

# of the film (height, width), and the square that the network takes: px
SHAPES = [((360, 480), 224), ((360, 480), 448), ((480, 640), 448), ((720, 1280), 224)]


def by_pil(image, size, *, rows, columns, resample):
    resample = Image.Resampling[resample.upper()]
    resized = Image.fromarray(image).resize(size[::-1], resample=resample)
    return np.asarray(resized)[slice(*rows), slice(*columns)]


def measure(shape, side, resample, n_repetitions):
    """Fastest milliseconds of both for one frame, whose shorter side becomes the network's."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    size = side, side * shape[1] // shape[0]
    margin = (size[1] - side) // 2
    how = {"rows": (0, side), "columns": (margin, margin + side), "resample": resample}
    functions = {"ours": resize_as_pil, "pil": by_pil}
    results = {name: function(image, size, **how) for name, function in functions.items()}
    if not np.array_equal(results["ours"], results["pil"]):
        raise SystemExit(f"{shape} to {side} px, {resample}: the bytes are not PIL's")
    fastest = dict.fromkeys(functions, np.inf)
    for _ in range(n_repetitions):
        for name, function in functions.items():
            start = time.process_time_ns()
            function(image, size, **how)
            fastest[name] = min(fastest[name], (time.process_time_ns() - start) / 1e6)
    return {
        "film": f"{shape[1]} x {shape[0]}",
        "network": f"{side} x {side}",
        "filter": resample,
        "ours_ms": round(fastest["ours"], 2),
        "pil_ms": round(fastest["pil"], 2),
        "times_as_fast": round(fastest["pil"] / fastest["ours"], 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/resize_cpu.json"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for resample in ("bilinear", "bicubic"):
        for shape, side in SHAPES:
            rows.append(measure(shape, side, resample, arguments.repetitions))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    content = {
        "device": f"{(names or [platform.machine()])[0]}, one core",
        "load_average": round(os.getloadavg()[0], 1),
        "pil": PIL.__version__,
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
