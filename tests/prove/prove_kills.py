"""Does the App end in the same results whatever happens to its processes and places?

1. Kills: SIGKILL, SIGTERM and Ctrl-C at random moments over the three analyses, of one process or
   of all that it started, until a hundred have hit; every file under its final name is read after
   each, and the finished results are those of a calm run, to the bit.
2. Two processes at once on one output and one work folder.
3. Disks that fill up: file systems of a tenth to nine tenths of what output or work folder need;
   once there is room the same command ends in the same results. Needs a root user.
4. Places: read-only output, read-only work, no home, an ASCII locale, another user, a temporary
   folder that is not there. Processes are started as users start them.

    python tests/prove/prove_kills.py --output doc/proofs/kills.json [--quick]

Finished rounds are kept beside the output, so that an interrupted run continues.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import brainnrds

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "analyses"), str(TESTS / "prove")]
import disturbed  # noqa: E402
from disturbed import arguments, begin, differences  # noqa: E402
from finished import add_finished, read_finished  # noqa: E402

ANALYSES = tuple(disturbed.OPTIONS)
SIGNALS = {"SIGKILL": 0.6, "SIGTERM": 0.2, "SIGINT": 0.2}  # share of all kills
SHARES = (0.1, 0.5, 0.9)


class Stage:
    """Data, calm runs to compare with, and places for disturbed ones."""

    def __init__(self, folder):
        self.folder = folder
        self.bids_dir = disturbed.make_data(folder / "data")
        self.seconds, self.bytes, self.calm = {}, {}, {}
        for analysis in ANALYSES:
            place = self.calm[analysis] = begin(folder / f"calm-{analysis}", self.before(analysis))
            begun = time.monotonic()
            code, lines = disturbed.run(self.arguments(place, analysis), folder / "said.txt")
            if code:
                raise SystemExit(f"The calm {analysis} ended with {code}: {lines[-1:]}")
            self.seconds[analysis] = time.monotonic() - begun
            self.bytes[analysis] = {
                which: sum(p.stat().st_size for p in (place / which).rglob("*") if p.is_file())
                for which in ("out", "work")
            }

    def before(self, analysis):
        """Reanimation starts from decoded flow."""
        return self.calm["decode"] if analysis == "reanimate" else None

    def place(self, analysis, name="place"):
        return begin(self.folder / name, self.before(analysis))

    def arguments(self, place, analysis, **folders):
        return arguments(self.bids_dir, place, analysis, **folders)

    def different(self, place, analysis):
        return differences(self.calm[analysis] / "out", place / "out")


def prove_kills(stage, analysis, name, number, rng):
    place = stage.place(analysis)
    all_of_it = bool(number % 2)
    outcome = disturbed.kill_until_finished(
        stage.arguments(place, analysis),
        place,
        0.9 * stage.seconds[analysis],
        signal.Signals[name],
        rng,
        all_of_it=all_of_it,
        marker=f"kills-{os.getpid()}-{number}",
    )
    different = stage.different(place, analysis)
    expected = {"SIGKILL": {-9}, "SIGTERM": {-15}, "SIGINT": {130}}[name]
    good = set(outcome["codes"]) <= expected and outcome["last_code"] == 0 and not different
    good &= not (outcome["broken"] or outcome["orphans"] or outcome["tracebacks"])
    # what is hidden goes with the next write of its file, or after a day
    return outcome | {"all_of_it": all_of_it, "different": different, "passed": good}


def prove_two(stage, analysis, gap):
    place = stage.place(analysis)
    said = [stage.folder / f"said{i}.txt" for i in range(2)]
    pids = []
    for path in said:
        pids.append(disturbed.start(stage.arguments(place, analysis), path))
        time.sleep(gap)
    codes = [disturbed.ended(pid, 900) for pid in pids]
    different = stage.different(place, analysis)
    lines = [path.read_text(errors="replace").splitlines()[-1:] for path in said]
    return {
        "codes": codes,
        "said": [line for line, code in zip(lines, codes, strict=True) if code],
        "different": different,
        "passed": codes == [0, 0] and not different,
    }


@contextlib.contextmanager
def disk(folder, n_bytes, options="rw"):
    """A file system of its own at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes},{options}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def prove_full_disk(stage, analysis, which, share):
    place = stage.place(analysis)
    before = {w: sum(p.stat().st_size for p in (place / w).rglob("*") if p.is_file())
              for w in ("out", "work")}  # fmt: skip
    more = stage.bytes[analysis][which] - before[which]
    moved = place / "moved"
    if (place / which).exists():
        (place / which).rename(moved)
    # pages of 4 KiB: the files that are there take more than their bytes
    room = round(1.3 * before[which]) + round(share * more) + 2**16
    said = stage.folder / "said.txt"
    with disk(place / which, room):
        if moved.exists():
            subprocess.run(["cp", "-a", f"{moved}/.", str(place / which)], check=True)
        code, lines = disturbed.run(stage.arguments(place, analysis), said)
        broken = disturbed.broken(place / "out")
        hidden = [str(p.name) for w in ("out", "work") for p in (place / w).rglob(".tmp-*")]
        subprocess.run(["mount", "-o", "remount,size=1g", str(place / which)], check=True)
        again, _ = disturbed.run(stage.arguments(place, analysis), said)
        different = stage.different(place, analysis)
    told = [line for line in lines if line.startswith("brainnrds: ") and "No space" in line]
    good = code == 2 and len(told) == 1 and not any("Traceback" in line for line in lines)
    return {
        "bytes": room,
        "code": code,
        "said": told or lines[-1:],
        "broken": broken,
        "hidden": hidden,
        "again": again,
        "different": different,
        "passed": (good or code == 0) and again == 0 and not (broken or hidden or different),
    }


def as_user(command, **changes):
    """Run a command as users do: exit code and what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    environment = {key: value for key, value in environment.items() if value is not None}
    done = subprocess.run(
        command, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stderr.decode(errors="replace").splitlines()


def prove_place(stage, analysis, name):
    place = stage.place(analysis)
    app = [sys.executable, "-m", "brainnrds"]
    read_only = name.startswith("read-only")
    if read_only:
        which = name.split()[1]
        folder = place / "disk"
        with disk(folder, 2**20):
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            there = {"out": folder / "x"} if which == "output" else {"work": folder / "x"}
            code, lines = as_user([*app, *stage.arguments(place, analysis, **there)])
        other = place / ("work" if which == "output" else "out")
        known = stage.before(analysis)
        written = list(other.rglob("*")) if other.exists() and not known else []
        told = [line for line in lines if line.startswith("brainnrds: ")]
        good = code == 2 and len(told) == 1 and not written
        return {"code": code, "said": told, "passed": good}
    command = [*app, *stage.arguments(place, analysis)]
    changes = {}
    if name == "no HOME":
        changes = {"HOME": None}
    elif name == "ASCII locale":
        changes = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    elif name == "no temporary folder":
        changes = {"TMPDIR": "/nowhere"}
    elif name == "another user":
        changes = {"HOME": "/nonexistent"}
        subprocess.run(["chown", "-R", "65534:65534", str(place)], check=True)
        os.chmod(stage.folder, 0o755)
        user = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        command = ["setpriv", *user, *command]
    code, lines = as_user(command, **changes)
    different = stage.different(place, analysis) if code == 0 else []
    good = code == 0 and not different and not any("Traceback" in line for line in lines)
    return {
        "code": code,
        "said": lines[-1:] if code else [],
        "different": different,
        "passed": good,
    }


def rounds(quick, is_root):
    """Yield (part, function, arguments) of every round but the kills."""
    analyses = ANALYSES[:1] if quick else ANALYSES
    for analysis in analyses:
        for gap in (0.0, 1.0):
            yield "two", prove_two, (analysis, gap)
    names = ["no HOME", "ASCII locale", "no temporary folder"]
    names += ["another user", "read-only output", "read-only work"] if is_root else []
    for name in names:
        for analysis in analyses:
            yield "places", prove_place, (analysis, name)
    if is_root:
        for analysis in analyses:
            for which in ("out", "work"):
                for share in SHARES[:1] if quick else SHARES:
                    yield "disks", prove_full_disk, (analysis, which, share)


def run_rounds(stage, path, n_kills, quick):
    """Do what is not done yet; every round's result is a line of the file at `path`."""
    done = read_finished(path)

    def keep(part, key, outcome):
        result = {"part": part, "key": list(key), **outcome}
        add_finished(path, result)
        done.append(result)
        print(part, *key, "passed" if outcome["passed"] else f"FAILED {outcome}", flush=True)

    for part, prove, key in rounds(quick, os.geteuid() == 0):
        if not any(r["part"] == part and r["key"] == list(key) for r in done):
            keep(part, key, prove(stage, *key))
    for analysis in ANALYSES:
        for name, share in SIGNALS.items():
            mine = [r for r in done if r["part"] == "kills" and r["key"][:2] == [analysis, name]]
            n_hits, number = sum(len(r["moments"]) for r in mine), len(mine)
            while n_hits < share * n_kills / len(ANALYSES):
                key = (analysis, name, number)
                rng = np.random.default_rng([ANALYSES.index(analysis), len(name), number])
                outcome = prove_kills(stage, analysis, name, number, rng)
                keep("kills", key, outcome)
                n_hits, number = n_hits + len(outcome["moments"]), number + 1
    return done


def summarise(done):
    """Counts of what was tried, by part."""
    kills = [r for r in done if r["part"] == "kills"]
    signals = Counter()
    for result in kills:
        signals[result["key"][1]] += len(result["moments"])
    return {
        "kills": {
            "n": sum(signals.values()),
            "by_signal": dict(signals),
            "by_analysis": {
                a: sum(len(r["moments"]) for r in kills if r["key"][0] == a) for a in ANALYSES
            },
            "rounds": len(kills),
            "identical": sum(not r["different"] and r["last_code"] == 0 for r in kills),
            "broken_files": sum(len(r["broken"]) for r in kills),
            "orphans": sum(r["orphans"] for r in kills),
            "tracebacks": sum(r["tracebacks"] for r in kills),
            "left_over": max(r["left_over"] for r in kills),
        },
        **{
            part: {
                "n": sum(r["part"] == part for r in done),
                "passed": sum(r["passed"] for r in done if r["part"] == part),
            }
            for part in ("two", "disks", "places")
        },
        "refused_for_want_of_space": sum(r["part"] == "disks" and r["code"] == 2 for r in done),
        "failed": [r for r in done if not r["passed"]],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--n-kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="nine kills, one analysis elsewhere")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_suffix(".partial.jsonl")
    begun = time.monotonic()
    disturbed.import_all()
    with tempfile.TemporaryDirectory(prefix="brainnrds-kills-") as folder:
        os.chmod(folder, 0o755)
        stage = Stage(Path(folder))
        done = run_rounds(stage, partial, 9 if options.quick else options.n_kills, options.quick)
        calm = {analysis: round(seconds, 1) for analysis, seconds in stage.seconds.items()}
    result = {
        "passed": all(r["passed"] for r in done),
        "quick": options.quick,
        **summarise(done),
        "calm_seconds": calm,
        "rounds": done,
        "seconds_of_last_start": round(time.monotonic() - begun),
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "device": f"cpu, {os.cpu_count()} cores, {platform.machine()}",
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    partial.unlink()
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
