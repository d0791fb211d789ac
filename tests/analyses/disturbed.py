"""The App on data of a few voxels, disturbed: killed, interrupted, and what it leaves behind.

For test_disturbed.py and prove_kills.py. As a script it kills forks of itself: a process without
threads can be forked safely, and does not import everything again each time, so that kills hit
work and not imports.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import av
import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "io"))
from tiny_bids import make_tree  # noqa: E402

# a decoder that has learnt nothing: what is written is all that counts
SMALL = ("--n-permutations", "100", "--confounds", "--n-cpus", "1")
# two runs for testing: reanimation needs two blocks of 40 s
_TEST_FILMS = ("--test-films", *(f"film{i}.mp4" for i in range(4)))
_TINY = ("--n-epochs", "2", "--grid", "4", "4", "--n-steps", "1", "--n-codes", "3")
DECODER = (*SMALL, *_TINY, *_TEST_FILMS)
OPTIONS = {
    "encode": (*SMALL, "--n-iter", "1"),
    "decode": DECODER,
    "reanimate": (*DECODER, "--n-frames", "3", "--size", "24", "32"),
}
# in the environment of a run and of all that it starts
MARKER = "BRAINNRDS_DISTURBED"
# what a record says of its run, and not of the result
_OF_THE_RUN = {"Checksum", "Command", "Seconds", "Versions", "Warnings"}


def make_data(folder):
    """Write three runs of two films each; return the folder of the raw data."""
    runs = {
        str(i): [(6.0, 20.0, f"film{2 * i}.mp4"), (40.0, 20.0, f"film{2 * i + 1}.mp4")]
        for i in range(3)
    }
    return make_tree(folder, runs=runs).bids_dir


def arguments(bids_dir, place, analysis, **folders):
    """Return the App's arguments for output and work folders in `place`, or as given."""
    out, work = folders.get("out", place / "out"), folders.get("work", place / "work")
    paths = [str(bids_dir), str(out), "participant", "-w", str(work)]
    return [*paths, "--analysis", analysis, *OPTIONS[analysis]]


def import_all():
    """Import what the analyses import, once for all forks."""
    import brainnrds.analyses.decode
    import brainnrds.analyses.encode
    import brainnrds.analyses.reanimate
    import brainnrds.cli  # noqa: F401


def start(app_arguments, said, *, marker="calm"):
    """Start the App in a fork with a session of its own; stderr goes to the file `said`."""
    pid = os.fork()
    if pid:
        while os.getsid(pid) != pid:  # until then a signal to its session would reach nobody
            time.sleep(0.001)
        return pid
    code = 1
    try:
        os.setsid()
        # a shell's job in the background ignores it, and so would its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ[MARKER] = marker
        for number in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        from brainnrds.cli import main

        code = main(app_arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def ended(pid, seconds):
    """Wait for a process; return its exit code (minus the signal's number), or None if it runs."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


def run(app_arguments, said, seconds=900):
    """Run the App to its end; return exit code and lines; one that hangs is killed: None."""
    pid = start(app_arguments, said)
    code = ended(pid, seconds)
    if code is None:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return code, said.read_text(errors="replace").splitlines()


def orphans(marker, seconds):
    """Wait until nothing that a marked run has started runs; return what still does."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if f"{MARKER}={marker}".encode() in environment and state != "Z":
                found.append(int(folder.name))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def begin(place, prepared=None):
    """Make a place anew, with the folders of an earlier run where there are any."""
    shutil.rmtree(place, ignore_errors=True)
    if prepared is None:
        place.mkdir(parents=True)
    else:
        shutil.copytree(prepared, place)
    return place


def final_files(folder):
    """Files under their final names, relative to a folder."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [p for p in paths if not p.name.startswith(".") and "logs" not in p.parts]


def left_over(*folders):
    """Hidden temporary files below folders, and frames on their way in shared memory."""
    hidden = [path for folder in folders for path in folder.rglob(".tmp-*")]
    return hidden + list(Path("/dev/shm").glob("brainnrds-frames-*"))


def content(path):
    """What a file says, as something that can be compared; raises where it is not whole."""
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind == ".gii":
        return [array.data for array in nib.load(path).darrays]
    if kind == ".h5":
        with h5py.File(path) as file:
            return [file[name][()] for name in sorted(file)]
    if kind == ".tsv":
        return pd.read_csv(path, sep="\t", na_values="n/a").to_dict("list")
    if kind == ".json":
        return _of_the_result(json.loads(path.read_text()))
    if kind in (".png", ".gif"):
        with Image.open(path) as image:
            image.load()
            return [np.asarray(image.convert("RGB"))]
    if kind == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if kind == ".html":
        if not path.read_text().rstrip().endswith("</html>"):
            raise ValueError("a page without an end")
        return None  # it tells how long the analysis took
    return path.read_bytes()


def _of_the_result(value):
    if isinstance(value, dict):
        return {k: _of_the_result(v) for k, v in value.items() if k not in _OF_THE_RUN}
    return [_of_the_result(item) for item in value] if isinstance(value, list) else value


def broken(folder):
    """Files under final names that cannot be read to their end."""
    found = []
    for name in final_files(folder) if folder.is_dir() else []:
        try:
            content(folder / name)
        except Exception as error:  # whatever a reader of a truncated file raises
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def differences(calm, other):
    """Files that one folder lacks, or whose content is not the same to the bit."""
    first, second = set(final_files(calm)), set(final_files(other))
    found = [str(name) for name in sorted(first ^ second)]
    for name in sorted(first & second):
        try:
            np.testing.assert_equal(content(other / name), content(calm / name))
        except Exception as error:
            found.append(f"{name}: {' '.join(str(error).split())[:200]}")
    return found


def kill_until_finished(app_arguments, place, seconds, number, rng, *, all_of_it, marker):
    """Send a signal at random moments until a run gets through.

    Parameters
    ----------
    app_arguments : list of str
    place : Path
        With the folders ``out`` and ``work``.
    seconds : float
        A calm run takes.
    number : signal.Signals
    rng : numpy.random.Generator
    all_of_it : bool
        The signal goes to all processes of the session, as Ctrl-C does.
    marker : str

    Returns
    -------
    outcome : dict
    """
    outcome = {"moments": [], "codes": [], "broken": [], "orphans": 0, "tracebacks": 0, "slow": 0}
    said = place / "said.txt"
    while True:
        pid = start(app_arguments, said, marker=marker)
        # whoever is killed early every time never gets through
        patience = 1 if len(outcome["moments"]) < 4 else 3
        moment = float(rng.uniform(0, seconds * patience))
        code = ended(pid, moment)
        if code is not None:
            break
        (os.killpg if all_of_it else os.kill)(pid, number)
        code = ended(pid, 30)
        if code is None:
            outcome["slow"] += 1
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        outcome["moments"].append(round(moment, 2))
        outcome["codes"].append(code)
        outcome["orphans"] += len(orphans(marker, 5))
        outcome["tracebacks"] += "Traceback" in said.read_text(errors="replace")
        outcome["broken"] += broken(place / "out")
    outcome["last_code"] = code
    outcome["left_over"] = len(left_over(place / "out", place / "work"))
    return outcome


def main(folder, n_rounds, random_state):
    """Kill the encoding until it gets through, a few times; print how it went."""
    import_all()
    bids_dir = make_data(folder / "data")
    calm = begin(folder / "calm")
    begun = time.monotonic()
    code, lines = run(arguments(bids_dir, calm, "encode"), folder / "said.txt")
    seconds = time.monotonic() - begun
    rng = np.random.default_rng(random_state)
    outcomes = []
    for i, number in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGINT][:n_rounds]):
        place = begin(folder / f"round{i}")
        outcome = kill_until_finished(
            arguments(bids_dir, place, "encode"), place, 0.8 * seconds, number, rng,
            all_of_it=bool(i % 2), marker=f"{os.getpid()}-{i}",
        )  # fmt: skip
        outcomes.append(outcome | {"different": differences(calm / "out", place / "out")})
    print(json.dumps({"calm": [code, lines[-1:]], "rounds": outcomes}))  # noqa: T201 : the result


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
