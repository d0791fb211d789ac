"""Processor time of a clip in one epoch of the motion decoder, by the size of its flow.

    python benchmarks/bench_epochs.py [--output doc/benchmarks/decoding_epochs.json]

Networks of the default width learn random data on one thread. What does not grow with the epochs is
taken off: trainings of one epoch and of three are compared. The estimates of
`brainnrds-validate` rest on it.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from brainnrds.decoding import MotionDecoder

N_CLIPS, N_VOXELS, CLIPS_PER_RUN = 384, 2000, 96
DELAYS = (-4, -3, -2, -1, 0)
FLOWS = (((12, 12), 1), ((32, 32), 3))  # grid, steps


def measure(grid, n_steps):
    """Milliseconds of a clip in one epoch."""
    random = np.random.default_rng(0)
    bold = random.standard_normal((N_CLIPS, N_VOXELS), dtype=np.float32)
    flow = random.standard_normal((N_CLIPS, n_steps, 2, *grid), dtype=np.float32)
    features = random.standard_normal((N_CLIPS, 3, 16, 16), dtype=np.float32)
    runs = np.arange(N_CLIPS) // CLIPS_PER_RUN
    seconds = {}
    for n_epochs in (1, 3):
        decoder = MotionDecoder(
            40,
            delays=DELAYS,
            n_epochs=n_epochs,
            batch_size=64,
            validation_share=0.0,
            device="cpu",
            random_state=0,
        )
        start = time.process_time()
        decoder.fit(bold, flow, image_features=features, runs=runs)
        seconds[n_epochs] = time.process_time() - start
    return 1000 * (seconds[3] - seconds[1]) / 2 / N_CLIPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks/decoding_epochs.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for grid, n_steps in FLOWS:
        of_clip = measure(grid, n_steps)
        rows.append({"grid": list(grid), "n_steps": n_steps, "ms_per_clip": round(of_clip, 2)})
        print(rows[-1], flush=True)
    record = {
        "what": "processor time of a clip in one epoch of the motion decoder",
        "device": f"one core ({platform.machine()})",
        "torch": torch.__version__,
        "size": {"n_clips": N_CLIPS, "n_voxels": N_VOXELS},
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
