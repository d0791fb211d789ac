"""Do the public data sets go in, from their names to the report?

Each data set for which there is a recipe is laid out by its published names and texts (a folder
``shared/skeletons`` beside the clone, not shipped), with small images of noise and small films in
place of those that nobody may copy. `brainnrds-validate` reads it with the recipe and what the
recipe says is to be typed, then `brainnrds --analysis encode` analyses its first participant, with
options that make it quick; what it costs stands beside what was estimated.

    python tests/prove/prove_data_sets.py --output doc/proofs/data_sets.json [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "datasets")]
import skeletons  # noqa: E402
from finished import read_finished, run_and_keep  # noqa: E402
from public_sets import BEFORE, QUICK, SETS, lay_out  # noqa: E402

import brainnrds  # noqa: E402
from brainnrds.analyses.estimate import estimate_encode  # noqa: E402
from brainnrds.cli import parse  # noqa: E402
from brainnrds.datasets import load_recipe  # noqa: E402
from brainnrds.io import find_runs  # noqa: E402


def called(program, arguments):
    """Run a program: exit status, last line on stderr, what it printed, seconds, peak bytes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = [sys.executable, "-c", f"import brainnrds.cli as c, sys; sys.exit(c.{program}())"]
        process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said = [line for line in err.read().splitlines() if "it/s" not in line]
        last = said[-1].removeprefix("brainnrds: ") if said else ""
        seconds = time.perf_counter() - start
        return process.returncode, last, out.read(), seconds, used.ru_maxrss * 2**10


def try_one(name):
    """Lay a data set out, validate and encode it; what is typed is told without places."""
    with tempfile.TemporaryDirectory() as folder:
        return _try_one(name, Path(folder))


def _try_one(name, root):
    public = SETS[name]
    bids_dir, *typed = lay_out(name, root)
    own = str(Path(brainnrds.__file__).parent / "datasets")
    short = {own: "brainnrds/datasets"} | {
        str(root / place): place for place in ("bids", "derivatives", "films", "mask.nii.gz")
    }

    def told(text):
        for long, word in short.items():
            text = text.replace(long, word)
        return text

    result = {
        "data_set": name,
        "title": load_recipe(name).title,
        "typed": told(" ".join(typed)),
        "by_hand": load_recipe(name).by_hand,
    }
    code, reason, out, seconds, _ = called("main_validate", [bids_dir, *typed])
    result |= {"validate": code, "validate_seconds": seconds}
    if code == 0:
        result["said"] = told(out)
        person = next(line for line in out.splitlines() if line.startswith("sub-"))
        result["participant"] = person
        with warnings.catch_warnings(action="ignore"):  # validate has said it
            runs = find_runs(bids_dir, subject=person[4:], **_search(bids_dir, typed))
        _, options, _ = parse([bids_dir, "out", "participant", *typed, *public.quick])
        estimated = estimate_encode(runs, options, n_voxels=int(np.prod(skeletons.SHAPE)))
        result["estimated"] = {k: getattr(estimated, k) for k in ("seconds", "memory", "disk")}
        arguments = [bids_dir, str(root / "out"), "participant", "--participant-label", person]
        arguments += [*typed, *public.quick, "--work-dir", str(root / "work")]
        code, reason, _, seconds, peak = called("main", arguments)
        if code == 0 and not (root / "out" / f"{person}.html").is_file():
            code, reason = "no report", ""
        kept = [path.stat().st_size for path in (root / "work").rglob("*") if path.is_file()]
        result["measured"] = {"seconds": seconds, "memory": peak, "disk": sum(kept)}
        result["encode"] = code
    return {**result, "reason": told(reason) if code else ""}


def _search(bids_dir, typed):
    """Arguments of `find_runs` that the command line makes."""
    selection = parse([bids_dir, "out", "participant", *typed])[2]
    return {k: v for k, v in selection.keywords().items() if v is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", nargs="+", choices=list(SETS), metavar="NAME")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="data sets at a time")
    arguments = parser.parse_args()
    if not skeletons.ROOT.is_dir():
        parser.error(f"the names of the data sets must be in {skeletons.ROOT}")
    kept = arguments.output.with_suffix(".partial.jsonl")
    results = {result["data_set"]: result for result in read_finished(kept)}
    left = [name for name in arguments.only or SETS if name not in results]
    jobs = (joblib.delayed(try_one)(name) for name in left)
    for result in run_and_keep(kept, jobs, arguments.n_jobs):
        results[result["data_set"]] = result
        print(result["data_set"], result["validate"], result.get("encode"), result["reason"])
    rows = [{**results[name], "before": BEFORE[name]} for name in SETS if name in results]
    accepted = [row["data_set"] for row in rows if row["validate"] == 0]
    analysed = [row["data_set"] for row in rows if row.get("encode") == 0]
    report = {
        "proof": "public data sets go in",
        "passed": len(analysed) >= 12
        and all(row["validate"] in (0, 2) and row.get("encode") in (0, 2, None) for row in rows)
        and all((row["validate"] == 0) == (SETS[row["data_set"]].refused is None) for row in rows),
        "data_sets": rows,
        "n_accepted": len(accepted),
        "n_analysed": len(analysed),
        "options_that_make_it_quick": " ".join(QUICK),
        "versions": {"brainnrds": brainnrds.__version__, "python": platform.python_version()},
        "device": f"CPU, {arguments.n_jobs} data sets at a time, one process each",
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{len(accepted)} of {len(rows)} accepted, {len(analysed)} analysed to their report")


if __name__ == "__main__":
    main()
