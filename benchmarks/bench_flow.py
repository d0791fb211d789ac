"""Frame pairs per second of the flow estimators, fed from a video file.

    python benchmarks/bench_flow.py --device cuda            # RAFT large and small, DIS
    python benchmarks/bench_flow.py                          # DIS on the CPU

A film of moving noise is written first, then decoded, resized to 256 px and estimated: what is
timed is the whole way from the file to flow on the grid. Flow is composed of short ways: a pair is
two frames that the estimator sees, several to a field. Beside RAFT stands torchvision's own network
on pairs that lie on the device already, in the same run. RAFT has random weights (the time does not
depend on them). Results go to doc/benchmarks/flow_<device>.json.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from brainnrds.features import OpticalFlow
from brainnrds.io import iter_clips, write_clip

SIDE, FPS, N_STEPS, DURATION = 256, 8, 3, 2.0


def write_film(path, seconds):
    """A film of a coarse random texture that drifts."""
    random = np.random.default_rng(0)
    texture = np.kron(random.random((3, 96, 96)), np.ones((8, 8))).astype(np.float32)
    frames = [
        texture[:, 2 * (t % 200) : 2 * (t % 200) + SIDE, t % 400 : t % 400 + SIDE]
        for t in range(int(seconds * FPS))
    ]
    write_clip(path, np.stack(frames), fps=FPS)


def save_random_weights(folder, method):
    """RAFT's state dict with random weights, so that nothing is downloaded."""
    from torchvision.models import optical_flow

    build = optical_flow.raft_small if method == "raft-small" else optical_flow.raft_large
    torch.manual_seed(0)
    path = Path(folder) / f"{method}.pth"
    torch.save(build(weights=None).state_dict(), path)
    return path


def measure(method, device, film, weights, n_clips, batch_size):
    """Pairs per second from the file to the grid; the first clips warm up."""
    extractor = OpticalFlow(
        (32, 32), N_STEPS, method=method, weights=weights, device=device, batch_size=batch_size
    )
    times = np.arange(n_clips) * DURATION

    def run(count):
        clips = iter_clips(film, times[:count], DURATION, fps=FPS, size=(SIDE, SIDE))
        start = time.perf_counter()
        extractor.transform(clips)
        return time.perf_counter() - start

    n_pairs = -(-(int(DURATION * FPS) - 1) // extractor.max_gap)  # of 5 frames a step
    run(max(4, 2 * batch_size // n_pairs))
    seconds = run(n_clips)
    return {
        "method": method,
        "device": device if method != "dis" else "cpu",
        "batch_size": batch_size,
        "pairs_per_clip": n_pairs,
        "pairs_per_s": round(n_clips * n_pairs / seconds, 1),
        "seconds": round(seconds, 2),
    }


def measure_stock(method, device, batch_size, n_batches=10):
    """Pairs per second of torchvision's network alone, pairs on the device, float32."""
    from torchvision.models import optical_flow

    build = optical_flow.raft_small if method == "raft-small" else optical_flow.raft_large
    network = build(weights=None).to(device).eval()
    pair = torch.rand(2, batch_size, 3, SIDE, SIDE, device=device) * 2 - 1

    def run():
        with torch.inference_mode():
            network(*pair, num_flow_updates=12)
        torch.cuda.synchronize()

    run()
    start = time.perf_counter()
    for _ in range(n_batches):
        run()
    seconds = time.perf_counter() - start
    return {
        "method": f"{method}, torchvision's network alone",
        "device": device,
        "batch_size": batch_size,
        "pairs_per_s": round(n_batches * batch_size / seconds, 1),
        "seconds": round(seconds, 2),
    }


def show(row):
    rate = f"{row['pairs_per_s']:.1f} pairs/s"
    print(f"{row['method']}, batch {row['batch_size']}: {rate}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-clips", type=int, default=120, help="for RAFT; a tenth for DIS")
    parser.add_argument("--networks", nargs="*", default=["raft", "raft-small"], help="on a GPU")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    kind = torch.device(arguments.device).type
    n_clips = arguments.n_clips
    name = torch.cuda.get_device_name(arguments.device) if kind == "cuda" else platform.machine()
    print(f"device: {name}, torch {torch.__version__}, {SIDE} x {SIDE} px")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, n_clips * DURATION + 1)
        methods = [("dis", None, 16)]
        if kind == "cuda":
            for method in arguments.networks:
                weights = save_random_weights(folder, method)
                methods += [(method, weights, size) for size in (16, 48)]
                rows.append(measure_stock(method, arguments.device, 16))
                show(rows[-1])
        for method, weights, batch_size in methods:
            count = n_clips if method != "dis" else max(2, n_clips // 10)
            rows.append(measure(method, arguments.device, film, weights, count, batch_size))
            show(rows[-1])
    output = arguments.output or Path("doc/benchmarks") / f"flow_{kind}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")
    temporary.write_text(
        json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1)
    )
    os.replace(temporary, output)


if __name__ == "__main__":
    main()
