"""Features of films: decode once, feed many extractors, keep what was computed.

A film is cut into chunks of clips. A chunk is decoded once, by a worker process, and given to every
extractor that lacks it; its features go to a `FeatureStore`, so that an interrupted extraction goes
on where it was and a second participant who saw the same film costs nothing.
"""

from pathlib import Path

import joblib
import numpy as np
from tqdm import tqdm

from brainnrds.features.store import FeatureStore, hash_file
from brainnrds.io import InputError
from brainnrds.io.video import iter_clips

__all__ = ["describe_extractor", "extract_features"]

# parameters that say how to compute, not what
_NOT_IN_THE_KEY = {"device", "n_jobs", "verbose", "batch_size"}


def describe_extractor(extractor):
    """Say everything that determines an extractor's features.

    Parameters
    ----------
    extractor : transformer
        Its own ``describe()`` is used where it has one (pretrained networks: hub id, revision,
        weights' hashes, layers, ...); else its class and parameters.

    Returns
    -------
    description : dict
    """
    if hasattr(extractor, "describe"):
        return extractor.describe()
    parameters = extractor.get_params(deep=True)
    return {
        "class": f"{type(extractor).__module__}.{type(extractor).__qualname__}",
        "parameters": {k: v for k, v in parameters.items() if k not in _NOT_IN_THE_KEY},
    }


def _frame_rate(extractor, duration):
    """Frames per second to decode; a network with a fixed number of frames spreads them."""
    if extractor.fps is not None:
        return float(extractor.fps)
    return extractor.n_frames / duration


def _chunk_features(path, times, duration, extractors):
    """Return the features of some clips of one film: dict name -> (n_clips, n_features).

    Extractors that want the same frames share one decoding.
    """
    groups = {}
    for name, extractor in extractors.items():
        wanted = (_frame_rate(extractor, duration), extractor.size)
        groups.setdefault(wanted, []).append(name)
    features = {}
    for (fps, size), names in groups.items():
        clips = list(iter_clips(path, times, duration, fps=fps, size=size))
        for name in names:
            features[name] = np.asarray(extractors[name].transform(clips), dtype=np.float32)
    return features


def _run(tasks, n_jobs):
    """Yield (task index, features) as tasks finish."""
    backend, _ = joblib.parallel.get_active_backend()
    is_local = type(backend).__name__ in ("LokyBackend", "SequentialBackend", "ThreadingBackend")
    if is_local and (n_jobs == 1 or len(tasks) == 1):
        for index, task in enumerate(tasks):
            yield index, _chunk_features(*task)
        return
    if not is_local:
        run = joblib.Parallel(n_jobs=-1, return_as="generator_unordered")
        yield from run(joblib.delayed(_numbered)(index, task) for index, task in enumerate(tasks))
        return
    run = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    yield from run(joblib.delayed(_numbered)(index, task) for index, task in enumerate(tasks))


def _numbered(index, task):
    return index, _chunk_features(*task)


def extract_features(films, extractors, *, store_dir, n_jobs=1, progress=True, chunk_size=64):
    """Compute, or read from the store, the features of films by several extractors.

    Parameters
    ----------
    films : list of (path, times, duration)
        `times` in s from the film's first frame, ascending, one clip each; `duration` of a clip
        in s.
    extractors : dict of str to transformer
        Feature-space name to an object with `fps`, `size` and ``transform(clips)``, such as
        `MotionEnergy`, `VideoEncoder` or `ImageEncoder`.
    store_dir : path-like
        Folder of the `FeatureStore`. Features are found there by the film's content, the times and
        what the extractor is, not by the film's name.
    n_jobs : int, default=1
        Processes that decode. With ``joblib.parallel_config("dask")`` chunks go to the cluster's
        workers instead; they must see the films, the store is written by this process alone.
    progress : bool, default=True
        Show a bar with rate and remaining time on stderr.
    chunk_size : int, default=64
        Clips that are decoded and stored together.

    Returns
    -------
    features : dict of str to list of arrays
        One array of float32 (n_times_of_that_film, n_features) per film, in the order of `films`.

    Raises
    ------
    InputError
        A film is missing or cannot be decoded.
    """
    store = FeatureStore(store_dir, chunk_size=chunk_size)
    promised = set()  # a film that is listed twice is computed once
    descriptions = {name: describe_extractor(e) for name, e in extractors.items()}
    entries, tasks, owners = {}, [], []
    for i_film, (path, times, duration) in enumerate(films):
        path = Path(path)
        if not path.is_file():
            raise InputError(f"Film not found: {path}.")
        digest = hash_file(path)
        wanted = {}
        for name in extractors:
            description = {
                "film_sha256": digest,
                "duration": float(duration),
                "extractor": descriptions[name],
            }
            entry = store.entry(description, times, label=f"{path.stem}_{name}")
            entries[i_film, name] = entry
            for chunk in [] if entry.key in promised else entry.missing_chunks():
                wanted.setdefault(chunk, []).append(name)
            promised.add(entry.key)
        for chunk, names in sorted(wanted.items()):
            rows = entry.rows(chunk)
            task = (path, entry.times[rows], duration, {n: extractors[n] for n in names})
            tasks.append(task)
            owners.append((i_film, chunk))
    _compute(tasks, owners, entries, n_jobs, progress)
    return {
        name: [entries[i_film, name].read() for i_film in range(len(films))] for name in extractors
    }


def _compute(tasks, owners, entries, n_jobs, progress):
    n_clips = sum(len(task[1]) for task in tasks)
    with tqdm(
        total=n_clips, unit="clip", desc="features", disable=not progress or not tasks
    ) as bar:
        for index, features in _run(tasks, n_jobs):
            i_film, chunk = owners[index]
            for name, values in features.items():
                entries[i_film, name].write_chunk(chunk, values)
            bar.update(len(tasks[index][1]))
