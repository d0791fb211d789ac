"""Small films and extractors, and processes that are killed while they extract.

As a script (run by test_extract.py and prove_extraction.py) it kills forks of itself: a process
without threads can be forked safely, and does not import everything again each time.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from brainnrds.analyses.extract import describe_extractor, extract_features, find_entry
from brainnrds.features import MotionEnergy, StaticEnergy
from brainnrds.features.store import FeatureStore
from brainnrds.io.video import write_clip


def make_film(path, *, seconds=8, fps=12, random_state=0):
    """Write a film of drifting smooth noise, 48 x 64 px."""
    rng = np.random.default_rng(random_state)
    texture = rng.uniform(size=(3, 48, 64))
    for axis in (1, 2):
        texture = sum(np.roll(texture, shift, axis) for shift in range(-3, 4)) / 7
    texture = (texture - texture.min()) / np.ptp(texture)
    frames = [np.roll(texture, (i // 2, i), (1, 2)) for i in range(round(seconds * fps))]
    return write_clip(path, np.stack(frames).astype(np.float32), fps=fps)


def small_extractors():
    """Return two extractors without weights that want different frames."""
    return {
        "motion": MotionEnergy(size=(16, 24), fps=12, spatial_frequencies=(2,)),
        "static": StaticEnergy(size=(16, 24), fps=6, spatial_frequencies=(0, 2)),
    }


def small_films(folder):
    """Write two films and return them with their times, as `extract_features` takes them."""
    return [
        (make_film(folder / "one.mp4"), np.arange(7.0), 1.0),
        (make_film(folder / "two.mp4", seconds=5, random_state=1), np.arange(0.5, 4, 0.8), 1.0),
    ]


def extract(films, store_dir):
    return extract_features(
        films, small_extractors(), store_dir=store_dir, chunk_size=1, progress=False
    )


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


def same(first, second):
    return all(
        np.array_equal(a, b)
        for name in first
        for a, b in zip(first[name], second[name], strict=True)
    )


def kill_at_random(folder, *, n_kills, random_state):
    """Extract in processes that are killed (SIGKILL) at random moments until `n_kills` have hit.

    A run that gets through before its kill empties the store, so that every kill hits work.

    Returns
    -------
    outcome : dict
    """
    films = small_films(folder)
    expected = extract(films, folder / "calm")
    # the time of a run that starts as the killed ones do
    started = time.monotonic()
    os.waitpid(run_in_child(extract, films, folder / "timed"), 0)
    longest = time.monotonic() - started
    rng = np.random.default_rng(random_state)
    store_dir = folder / "killed"
    n_chunks = sum(entry.n_chunks for entry in _entries(films, store_dir))
    kills, n_identical, n_finished = [], 0, 0
    while len(kills) < n_kills:
        pid = run_in_child(extract, films, store_dir)
        moment = rng.uniform(0, 0.6 * longest)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        n_sound = sum(e.n_chunks - len(e.missing_chunks()) for e in _entries(films, store_dir))
        if killed:
            kills.append({"seconds": round(moment, 3), "chunks_kept": n_sound})
        if n_sound == n_chunks or len(kills) == n_kills:
            n_finished += 1
            n_identical += same(expected, extract(films, store_dir))
            shutil.rmtree(store_dir)
    return {
        "n_chunks": n_chunks,
        "kills": kills,
        "finished_after_kills": n_finished,
        "identical_to_uninterrupted": n_identical,
    }


def two_at_once(folder):
    """Return the exit statuses of two processes that extract into one store, and the agreement."""
    films = small_films(folder)
    pids = [run_in_child(extract, films, folder / "both") for _ in range(2)]
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    identical = same(extract(films, folder / "alone"), extract(films, folder / "both"))
    return {"statuses": statuses, "identical": identical}


def _entries(films, store_dir):
    store = FeatureStore(store_dir, chunk_size=1)
    for film in films:
        for extractor in small_extractors().values():
            yield find_entry(store, *film, describe_extractor(extractor))


def main(folder, n_kills, random_state):
    outcome = kill_at_random(folder, n_kills=n_kills, random_state=random_state)
    outcome["two_at_once"] = two_at_once(folder)
    print(json.dumps(outcome))  # noqa: T201 : the result


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
