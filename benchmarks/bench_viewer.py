"""Size of the brain to turn, seconds until it is drawn, and what it asks of the network.

    python benchmarks/bench_viewer.py [--n-maps 6] [--n-opened 5]

Maps of noise on fs_LR 32k, 2 x 32,492 vertices, each with q-values: the page alone, and the report
that holds it. Headless Chromium draws without a GPU. Each page is opened in a browser that has just
started; seconds are those until its canvas is painted, the reading of the file included, of the
report until its text is there. Results go to doc/benchmarks/viewer.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from brainnrds.io import derivative_path
from brainnrds.plotting import view_maps
from brainnrds.reporting import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chromium import CHROMIUM, Chromium  # noqa: E402

N_VERTICES = 2 * 32492


def open_often(path, n_opened, ready):
    """Seconds to open a page, each in a new browser, and the addresses it asked for."""
    seconds, requests = [], []
    for _ in range(n_opened):
        with Chromium() as browser:
            seconds.append(browser.open(path, ready=ready))
            time.sleep(1)  # what comes late would be heard
            requests += browser.requests
    return seconds, requests


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-maps", type=int, default=6)
    parser.add_argument("--n-opened", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/viewer.json"))
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    maps = {f"map {i}": random.normal(size=N_VERTICES) for i in range(arguments.n_maps)}
    q_values = {name: random.uniform(size=N_VERTICES) for name in maps}
    parcels = np.char.add("parcel ", (np.arange(N_VERTICES) // 180).astype(str))
    start = time.perf_counter()
    page = view_maps(maps, p_values=q_values, signed=[*maps], parcels=parcels, significance="q")
    seconds_to_make = time.perf_counter() - start
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        entities = {"subject": "01", "space": "fsLR", "desc": "encode", "suffix": "viewer"}
        path = derivative_path(folder, "figure", {**entities, "extension": ".html"})
        path.parent.mkdir(parents=True)
        path.write_text(page, encoding="utf-8")
        report = write_report(folder, "01")
        drawn = "document.body && document.body.dataset.drawn"
        for what, file, ready in (
            ("page", path, drawn),
            ("report", report, "document.readyState === 'complete'"),
        ):
            seconds, requests = open_often(file, arguments.n_opened, ready)
            rows.append(
                {
                    "what": what,
                    "megabytes": file.stat().st_size / 1e6,
                    "seconds": statistics.median(seconds),
                    "slowest_seconds": max(seconds),
                    "n_requests": len(requests),
                }
            )
            print(rows[-1], flush=True)
    version = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True).stdout
    written = {
        "benchmark": "a brain to turn, in headless Chromium",
        "device": f"{platform.machine()}, {os.cpu_count()} cores, software renderer",
        "browser": " ".join(version.split()[:2]),
        "size": {"n_maps": arguments.n_maps, "n_vertices": N_VERTICES, "with_q_values": True},
        "n_opened": arguments.n_opened,
        "seconds_to_make": seconds_to_make,
        "rows": rows,
        "load_average": round(os.getloadavg()[0], 1),
    }
    arguments.output.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
