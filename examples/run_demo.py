"""
The main job on sample data with a planted truth
================================================

What ``make demo`` runs: it makes a small BIDS data set of a simulated participant who watched cuts
of real footage, runs the BIDS App on it as a user would, and prints the result table and the
report's path. Run again, it finds the finished steps and only reads them.
"""

# sphinx_gallery_thumbnail_path = "images/video_vs_image.png"
import sys
import time
from pathlib import Path

from brainnrds.cli import main
from brainnrds.datasets import make_movie_dataset

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
bids_dir, output_dir, work_dir = folder / "bids", folder / "output", folder / "work"

start = time.perf_counter()
if not (bids_dir / "dataset_description.json").exists():
    print(f"Making the sample data set in {bids_dir} ...")
    make_movie_dataset(bids_dir)

arguments = [str(bids_dir), str(output_dir), "participant", "--analysis", "encode"]
arguments += ["-w", str(work_dir)]
print(f"\n$ brainnrds {' '.join(arguments)}", flush=True)
code = main(arguments)
print(f"\nDone in {time.perf_counter() - start:.0f} s.")
sys.exit(code)
