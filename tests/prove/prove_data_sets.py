"""Do the public data sets go in, from their names to the report?

Each data set for which there is a recipe is laid out by its published names and texts (a folder
``shared/skeletons`` beside the clone, not shipped), with small images of noise and small films in
place of those that nobody may copy. `brainnrds-validate` reads it with the recipe and what the
recipe says is to be typed, then `brainnrds --analysis encode` analyses its first participant, with
options that make it quick.

    python tests/prove/prove_data_sets.py --output doc/proofs/data_sets.json [--only NAME ...]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import argparse
import contextlib
import io
import json
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "datasets")]
import skeletons  # noqa: E402
from finished import add_finished, read_finished  # noqa: E402
from public_sets import QUICK, SETS, lay_out  # noqa: E402

import brainnrds  # noqa: E402
from brainnrds.analyses.options import EncodeOptions  # noqa: E402
from brainnrds.cli import main as run_app  # noqa: E402
from brainnrds.cli import main_validate  # noqa: E402
from brainnrds.datasets import load_recipe  # noqa: E402

HAS_TRIALS = "design" in EncodeOptions.__dataclass_fields__


def called(command, arguments):
    """Exit status of a command, its last line on stderr, what it printed, and seconds."""
    out, err, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command(arguments)
        except BaseException:  # what the proof is there to find
            code, _ = "traceback", err.write(traceback.format_exc())
    lines = [line for line in err.getvalue().splitlines() if "it/s" not in line]
    last = lines[-1] if lines else ""
    return code, last.removeprefix("brainnrds: "), out.getvalue(), time.perf_counter() - start


def try_one(name, root):
    """Lay a data set out, validate and encode it; what is typed is told without places."""
    public = SETS[name]
    (bids_dir, *typed), besides = lay_out(name, root)
    short = {str(root / place): place for place in ("bids", "derivatives", "films", "mask.nii.gz")}

    def told(text):
        for long, word in short.items():
            text = text.replace(long, word)
        return text

    result = {
        "data_set": name,
        "title": load_recipe(name).title,
        "typed": told(" ".join(typed)),
        "besides": told(" ".join(besides)),
        "by_hand": load_recipe(name).by_hand,
    }
    code, reason, out, seconds = called(main_validate, [bids_dir, *typed])
    result |= {"validate": code, "validate_seconds": seconds}
    if code == 0:
        person = next(line for line in out.splitlines() if line.startswith("sub-"))
        result["participant"] = person
        if public.trials and not HAS_TRIALS:
            return {**result, "encode": None, "reason": "clips of a few seconds are trials"}
        arguments = [bids_dir, str(root / "out"), "participant", "--participant-label", person]
        arguments += [*typed, *besides, *QUICK, "--work-dir", str(root / "work")]
        code, reason, _, result["encode_seconds"] = called(run_app, arguments)
        if code == 0 and not (root / "out" / f"{person}.html").is_file():
            code, reason = "no report", ""
        result["encode"] = code
    return {**result, "reason": told(reason) if code else ""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", nargs="+", choices=list(SETS), metavar="NAME")
    arguments = parser.parse_args()
    if not skeletons.ROOT.is_dir():
        parser.error(f"the names of the data sets must be in {skeletons.ROOT}")
    kept = arguments.output.with_suffix(".partial.jsonl")
    results = {result["data_set"]: result for result in read_finished(kept)}
    for name in arguments.only or SETS:
        if name not in results:
            with tempfile.TemporaryDirectory() as folder:
                results[name] = try_one(name, Path(folder))
            add_finished(kept, results[name])
            print(f"{name}: validate {results[name]['validate']}, {results[name]}", flush=True)
    rows = [results[name] for name in SETS if name in results]
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
        "device": "CPU, one process",
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{len(accepted)} of {len(rows)} accepted, {len(analysed)} analysed to their report")


if __name__ == "__main__":
    main()
