"""Kill writers of a feature store at every step they take; run by test_store.py.

A process of its own, without threads, so that forking it is safe.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

from brainnrds.features.store import FeatureStore

FEATURES = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
STEPS = {"write_bytes": Path, "fsync": os, "replace": os, "rmtree": shutil}


def write(entry, features, chunks=None):
    for chunk in entry.missing_chunks() if chunks is None else chunks:
        entry.write_chunk(chunk, features[entry.rows(chunk)])


def run_in_child(function, *arguments):
    """Return the pid of a forked child that runs a function and exits with 0, or 1 on an error."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def die_at(step, n_calls, after):
    """Make this process kill itself before or after its n-th call of a step."""
    owner = STEPS[step]
    original = getattr(owner, step)
    calls = iter(range(1, 1000))

    def deadly(*args, **kwargs):
        dies = next(calls) == n_calls
        if dies and not after:
            if step == "write_bytes":
                original(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, step, deadly)


def write_and_die(entry, *when):
    die_at(*when)
    write(entry, FEATURES)
    entry.read()


def kill_at_every_call(folder, step, after):
    """Kill at the first call of a step, then at the second, ..., until a writer gets through."""
    entry = FeatureStore(folder, chunk_size=3).entry({}, np.arange(8.0))
    n_kills = 0
    while True:
        pid = run_in_child(write_and_die, entry, step, n_kills + 1, after)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            break
        n_kills += 1
        assert set(entry.missing_chunks()) <= {0, 1, 2}  # opens, whatever happened
    identical = os.WEXITSTATUS(status) == 0 and np.array_equal(entry.read(), FEATURES)
    left_over = [str(path) for path in folder.iterdir() if path != entry.path]
    return {"step": step, "after": after, "n_kills": n_kills, "identical": identical} | {
        "left_over": left_over
    }


def write_all(store, order):
    for i in range(15):
        entry = store.entry({"i": i}, np.arange(8.0))
        write(entry, FEATURES + np.float32(i), order)
        assert np.array_equal(entry.read(), FEATURES + np.float32(i))


def main(folder):
    kills = [
        kill_at_every_call(folder / f"{step}-{after}", step, after)
        for step in STEPS
        for after in (False, True)
    ]
    store = FeatureStore(folder / "two", chunk_size=1)
    pids = [run_in_child(write_all, store, order) for order in (range(8), range(7, -1, -1))]
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    print(json.dumps({"kills": kills, "two_writers": statuses}))  # noqa: T201 : the result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
