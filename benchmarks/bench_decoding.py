"""Seconds and peak memory of training the motion decoder, at the size of a whole data set.

    python benchmarks/bench_decoding.py --device cuda    # 4,320 clips, 13,447 voxels x 5 volumes
    python benchmarks/bench_decoding.py                  # the gallery's case on the CPU

Data are random: time and memory do not depend on what they mean. Early stopping is off, so that all
epochs are trained. The permutation test is timed too. Results go to
doc/benchmarks/decoding_<device>.json.
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch

from brainnrds.blocks import permutation_blocks, permute_blocks
from brainnrds.decoding import MotionDecoder

SIZES = {
    "cpu": dict(
        n_clips=480, n_voxels=90, grid=(8, 8), n_steps=1, n_image_channels=2, patches=2,
        n_epochs=20, batch_size=32, n_bold_channels=64, n_channels=32, n_codes=16,
    ),
    "cuda": dict(
        n_clips=4320, n_voxels=13447, grid=(32, 32), n_steps=3, n_image_channels=768, patches=16,
        n_epochs=50, batch_size=128, n_bold_channels=256, n_channels=128, n_codes=40,
    ),
}  # fmt: skip
DELAYS = (-4, -3, -2, -1, 0)
CLIPS_PER_RUN = 240


def random_data(size, seed=0):
    """BOLD, flow, image features and runs of the given size."""
    random = np.random.default_rng(seed)
    n = size["n_clips"]
    bold = random.standard_normal((n, size["n_voxels"]), dtype=np.float32)
    flow = random.standard_normal((n, size["n_steps"], 2, *size["grid"]), dtype=np.float32)
    shape = (n, size["n_image_channels"], size["patches"], size["patches"])
    features = random.standard_normal(shape, dtype=np.float32)
    return bold, flow, features, np.arange(n) // min(CLIPS_PER_RUN, n // 4)


def measure(size, device, precision):
    """Train once to warm up (2 epochs), then in full; seconds and peak GiB."""
    bold, flow, features, runs = random_data(size)

    def decoder(n_epochs):
        return MotionDecoder(
            size["n_codes"],
            delays=DELAYS,
            n_bold_channels=size["n_bold_channels"],
            n_channels=size["n_channels"],
            batch_size=size["batch_size"],
            n_epochs=n_epochs,
            validation_share=0.0,
            precision=precision,
            device=device,
            random_state=0,
        )

    seconds = {}
    for name, n_epochs in (("warm-up", 2), ("training", size["n_epochs"])):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        fitted = decoder(n_epochs).fit(bold, flow, image_features=features, runs=runs)
        seconds[name] = time.perf_counter() - start
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if device.startswith("cuda")
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    start = time.perf_counter()
    fitted.predict(bold, image_features=features, runs=runs)
    seconds["prediction"] = time.perf_counter() - start

    blocks = permutation_blocks(runs, runs, 20)
    start = time.perf_counter()
    orders = permute_blocks(blocks, 1000, random_state=0)[:, : CLIPS_PER_RUN * 5]
    keys = np.unique(orders.astype(np.int64) * len(bold) + np.arange(orders.shape[1]))
    swaps = np.stack([keys // len(bold), keys % len(bold)], axis=1)
    for _ in fitted.predict_swapped(bold, swaps, image_features=features, runs=runs):
        pass
    seconds["1,000 permutations of 1,200 test clips, decoding"] = time.perf_counter() - start
    return {
        "precision": precision,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_gib": round(peak, 2),
        "epochs_per_s": round(size["n_epochs"] / seconds["training"], 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    kind = torch.device(arguments.device).type
    if kind == "cpu":
        torch.set_num_threads(arguments.threads)
    name = torch.cuda.get_device_name(arguments.device) if kind == "cuda" else platform.machine()
    print(f"device: {name}, torch {torch.__version__}")
    size = SIZES[kind]
    print(", ".join(f"{key} {value}" for key, value in size.items()))
    rows = []
    for precision in ("float32", "bfloat16") if kind == "cuda" else ("float32",):
        rows.append(measure(size, arguments.device, precision))
        print(f"{precision:>9}: peak {rows[-1]['peak_gib']:.2f} GiB", end="")
        for step, seconds in rows[-1]["seconds"].items():
            print(f" | {step} {seconds:.2f} s", end="")
        print(flush=True)
    output = arguments.output or Path("doc/benchmarks") / f"decoding_{kind}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")
    record = {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "size": size,
        "rows": rows,
    }
    temporary.write_text(json.dumps(record, indent=1))
    os.replace(temporary, output)


if __name__ == "__main__":
    main()
