"""Features of films: decode once, feed many extractors, keep what was computed.

A film is cut into chunks of clips. A chunk is decoded once, by a worker process, and every frame is
given to all extractors that look at it. Features go to a `FeatureStore`, so that an interrupted
extraction goes on where it was and a second participant who saw the same film costs nothing.
"""

import math
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import clone
from sklearn.utils import Bunch
from tqdm import tqdm

from brainnrds._files import hash_file, hash_files
from brainnrds._processes import passing_folder, start_processes
from brainnrds.analyses.looks import (
    Clips,
    is_network,
    look,
    look_into_files,
    read_files,
    view_of,
)
from brainnrds.features.encoders import encode_layers, release_networks
from brainnrds.features.sampling import distinct_clips, place_features
from brainnrds.features.store import FeatureStore
from brainnrds.io import InputError
from brainnrds.io.sound import read_sound
from brainnrds.io.video import check_clip_times, probe_video

__all__ = [
    "clip_duration",
    "clip_features",
    "describe_extractor",
    "extract_features",
    "find_entry",
    "frame_features",
    "loading_networks",
    "movie_features",
]

# parameters that say how to compute, not what
_NOT_IN_THE_KEY = {"device", "n_jobs", "verbose", "batch_size"}
# s; moving filters and networks need some frames
_SHORTEST_CLIP = 1.0
# chunks per decoding process, at least: to start one takes as long as a few of them
_LEAST_CHUNKS = 4
# chunks that a device's networks have, or that wait for them
_AT_NETWORKS = 4
_LOCAL_BACKENDS = ("LokyBackend", "SequentialBackend", "ThreadingBackend", "MultiprocessingBackend")


def describe_extractor(extractor):
    """Say everything that determines an extractor's features.

    Parameters
    ----------
    extractor : transformer
        Its own ``describe()`` is used where it has one (pretrained networks: hub id, revision,
        hashes of the weights, layers, ...); else its class and parameters.

    Returns
    -------
    description : dict

    Raises
    ------
    InputError
        A pretrained network's files are missing or damaged.
    TypeError
        It is no transformer.
    """
    if not hasattr(extractor, "get_params"):
        raise TypeError(
            "An extractor must be a transformer, such as MotionEnergy() or "
            f"VideoEncoder('videomae-base'); got {extractor!r}."
        )
    if hasattr(extractor, "extractor"):
        own = extractor.get_params(deep=False)
        described = describe_extractor(own.pop("extractor"))
        return {"class": type(extractor).__name__, **own, "of": described}
    if hasattr(extractor, "describe"):
        try:
            return extractor.describe()
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error
    parameters = extractor.get_params(deep=True)
    return {
        "class": f"{type(extractor).__module__}.{type(extractor).__qualname__}",
        "parameters": {k: v for k, v in parameters.items() if k not in _NOT_IN_THE_KEY},
    }


def movie_features(
    data,
    extractors,
    *,
    store_dir,
    n_jobs=1,
    progress=True,
    film_reader="pyav",
    may_be_constant=False,
):
    """Compute, or read from the store, the features of every sample of a participant's data.

    Parameters
    ----------
    data : MovieData
        From `load_runs`. Films of which no sample can be used are left out.
    extractors : dict of str to transformer
        Feature-space name to extractor, as in `extract_features`.
    store_dir, n_jobs, progress, film_reader
        As in `extract_features`.
    may_be_constant : bool, default=False
        Whether a space may be the same in every clip: nothing can be fitted to it.

    Returns
    -------
    X : array of float32 of shape (n_samples, n_features)
        The clip of each sample begins at its volume and lasts a repetition time. Clips are at least
        1 s long, around the same middle: less is a still to a video network. Samples at rest
        have the mean over all clips: 0 when features are standardised. A trial has the features of
        its clip, the mean over stretches as long as the shortest clip.
    spaces : dict of str to slice
        Columns of each feature space, for `VideoEncodingModel`.

    Raises
    ------
    InputError
        As `extract_features`; a feature space that is the same in every clip, unless it may be.
    """
    duration = clip_duration(data.clip_duration)
    looks, sample = _stretches(data)
    features, _, index = clip_features(
        looks,
        extractors,
        duration,
        store_dir=store_dir,
        n_jobs=n_jobs,
        progress=progress,
        film_reader=film_reader,
    )
    blocks, spaces, start = [], {}, 0
    for name, per_film in features.items():
        block = place_features(per_film, index)
        if sample is not None:
            starts = np.searchsorted(sample, np.arange(len(data.films)))
            block = np.add.reduceat(block, starts, axis=0) / np.bincount(sample)[:, np.newaxis]
            block = block.astype(np.float32)
        if not may_be_constant and np.ptp(block, axis=0).max() == 0:
            raise InputError(
                f"Feature space {name} must vary over the films; got the same value in every clip."
            )
        blocks.append(block)
        spaces[name] = slice(start, start + block.shape[1])
        start += block.shape[1]
    return np.concatenate(blocks, axis=1), spaces


def clip_duration(seconds):
    """Return how long a sample's clip is: as long as the sample's own, at least 1 s."""
    return max(seconds, _SHORTEST_CLIP)


def _stretches(data):
    """What is looked at for each sample: of trials one clip or several, and whose they are."""
    if data.design == "continuous":
        return data, None
    lasts = np.asarray(data.film_durations)[data.films]
    n_looks = np.maximum(1, np.round(lasts / data.clip_duration)).astype(int)
    sample = np.repeat(np.arange(len(lasts)), n_looks)
    which = np.arange(len(sample)) - np.repeat(np.cumsum(n_looks) - n_looks, n_looks)
    # evenly from the clip's beginning to its end
    step = (lasts - data.clip_duration) / np.maximum(n_looks - 1, 1)
    looks = Bunch(
        on_screen=data.on_screen[sample],
        film_times=data.film_times[sample] + which * step[sample],
        clip_duration=data.clip_duration,
        film_durations=data.film_durations,
        film_starts=data.film_starts,
        stim_files=data.stim_files,
    )
    return looks, sample


def clip_features(data, extractors, duration, **options):
    """Compute the features of each clip that a participant's data need, once per film time.

    Parameters
    ----------
    data : MovieData
    extractors : dict of str to transformer
    duration : float
        Of a clip in s; its middle is that of the sample's own.
    **options
        Of `extract_features`.

    Returns
    -------
    features : dict of str to list of arrays
        One array (n_clips, n_features) per film of `data` that is shown.
    times : list of arrays
        Onsets of these clips, s from the film's first frame.
    index : array of int of shape (n_samples,)
        As from :func:`brainnrds.features.distinct_clips`.
    """
    times, index = distinct_clips(
        data.on_screen,
        data.film_times - (duration - data.clip_duration) / 2,
        clip_duration=duration,
        film_durations=data.film_durations,
        film_starts=data.film_starts,
    )
    # parts of one film share what both show
    by_file = {}
    for path, t in zip(data.stim_files, times, strict=True):
        if len(t):
            by_file.setdefault(path, []).append(t)
    films = [(path, np.unique(np.concatenate(parts)), duration) for path, parts in by_file.items()]
    extracted = extract_features(films, extractors, **options)
    place = {path: (i, t) for i, (path, t, _) in enumerate(films)}
    features = {name: [] for name in extracted}
    for path, t in zip(data.stim_files, times, strict=True):
        if len(t):
            i, of_file = place[path]
            for name, per_file in extracted.items():
                features[name].append(per_file[i][np.searchsorted(of_file, t)])
    return features, times, index


def extract_features(
    films,
    extractors,
    *,
    store_dir,
    n_jobs=1,
    progress=True,
    devices=None,
    chunk_size=32,
    film_reader="pyav",
):
    """Compute, or read from the store, the features of films by several extractors.

    Parameters
    ----------
    films : list of (path, times, duration)
        `times` in s from the film's first frame, ascending, one clip each; `duration` of a clip
        in s.
    extractors : dict of str to transformer
        Feature-space name to an object with `fps`, `size` and ``transform(clips)``, such as
        `MotionEnergy`, or to a `VideoEncoder` or `ImageEncoder`; or to one with `rate` and
        ``modality = "sound"``, such as `Loudness` or `SoundEncoder`, whose ``transform`` gets
        waves; or to `brainnrds.io.WordEmbeddings` of the films' transcripts; or to one that reads
        a file per film, such as `brainnrds.io.FeatureFiles`: nothing of it is stored.
    store_dir : path-like
        Folder of the `FeatureStore`. Features are found there by the film's content, the times and
        what the extractor is, not by the film's name.
    n_jobs : int, default=1
        Processes that decode films and run the extractors without a network; networks run in this
        process. -1 takes all cores; a process is started for every four chunks at most, and at a
        lower priority than this one, so that a GPU does not wait for a core. With a
        cluster as joblib's backend (``joblib.parallel_config("dask")``) whole chunks, networks
        included, go to its workers instead: they must see the films and the weights; only this
        process writes to the store.
    progress : bool, default=True
        Show a bar with rate and remaining time on stderr.
    devices : sequence of str or None, default=None
        Devices that share the networks' work evenly, such as ("cuda:0", "cuda:1"). None leaves
        every encoder on its own device, and "auto" takes all GPUs.
    chunk_size : int, default=32
        Clips that are decoded and stored together: with the frames of a clip it sets the memory
        that is needed, whatever the film's length.
    film_reader : {"pyav", "torchcodec"}, default="pyav"
        "torchcodec" decodes on the GPU where there is one, in this process whatever `n_jobs`. Its
        colours may differ by a rounding, so that its features are kept apart in the store.

    Returns
    -------
    features : dict of str to list of arrays
        One array of float32 (n_times_of_that_film, n_features) per film, in the order of `films`.

    Raises
    ------
    InputError
        A film is missing, cannot be decoded or ends before a clip begins; a network's files are
        missing or damaged.
    """
    order = list(extractors)
    read = {
        name: [extractor.features_of(*film) for film in films]
        for name, extractor in extractors.items()
        if _is_read(extractor)
    }
    extractors = {name: e for name, e in extractors.items() if name not in read}
    devices = _find_devices(extractors, devices)
    if devices:
        extractors = {name: _moved(e, devices[0]) for name, e in extractors.items()}
    store = FeatureStore(store_dir, chunk_size=chunk_size)
    descriptions = {name: describe_extractor(e) for name, e in extractors.items()}
    # "auto" is decided here: a worker with another device must compute what the key says
    extractors = {
        name: clone(e).set_params(precision=descriptions[name]["precision"]) if is_network(e) else e
        for name, e in extractors.items()
    }
    # films are gigabytes; what is missing or no file is told below
    paths = {path for path, *_ in films}
    if extractors and all(Path(path).is_file() for path in paths):
        hash_files(paths, joblib.effective_n_jobs(n_jobs))
    entries, tasks, promised, to_decode, to_hear = {}, [], set(), [], []
    for i_film, (path, times, duration) in enumerate(films):
        path, times = Path(path), check_clip_times(times, duration)
        if not path.is_file():
            raise InputError(f"Film not found: {path}.")
        missing = {}
        for name in extractors:
            described = descriptions[name]
            if hasattr(extractors[name], "describe_film"):
                described = {**described, **extractors[name].describe_film(path)}
            entry = find_entry(store, path, times, duration, described, film_reader=film_reader)
            entries[i_film, name] = entry
            # a film that is listed twice is computed once
            for chunk in [] if entry.key in promised else entry.missing_chunks():
                missing.setdefault(chunk, []).append(name)
            promised.add(entry.key)
        if missing:
            to_decode.append((path, times))
        for chunk, names in sorted(missing.items()):
            rows = entry.rows(chunk)
            clips = Clips(path, times[rows], float(duration), film_reader)
            seen = {n: extractors[n] for n in names if not _is_heard(extractors[n])}
            heard = {n: extractors[n] for n in names if _is_heard(extractors[n])}
            for some, listed in ((seen, tasks), (heard, to_hear)):
                if some:
                    listed.append(_Task(clips, some, i_film, chunk))
    n_processes = max(1, min(joblib.effective_n_jobs(n_jobs), len(tasks) // _LEAST_CHUNKS))
    # several processes would share one GPU's decoders, each with a context in its memory
    if film_reader == "torchcodec" or not _is_local():
        n_processes = 1
    with loading_networks(tasks[0].extractors.values() if tasks else (), devices):
        size = _check_lengths(to_decode, n_processes)
        _hear(to_hear, entries)
        _compute(tasks, entries, n_processes, devices, progress, size)
    made = {n: [entries[i_film, n].read() for i_film in range(len(films))] for n in extractors}
    return {name: (read | made)[name] for name in order}


def frame_features(extractor, frames):
    """Describe frames that are no film's, as `extract_features` describes those of a film.

    Parameters
    ----------
    extractor : transformer
        Of initial frames, such as `FrameGrid`, or `ImageEncoder` with ``sampling="first"``.
    frames : array of shape (n_clips, 3, height, width)
        In [0, 1].

    Returns
    -------
    features : array of float32 of shape (n_clips, ...)
    """
    view = view_of(extractor, 1.0)
    images = np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    prepared = np.stack([view.prepare(np.ascontiguousarray(image))[None] for image in images])
    if view.is_network:
        return np.asarray(extractor.encode(prepared), dtype=np.float32)
    return np.asarray(extractor.transform(prepared.astype(np.float32) / 255), dtype=np.float32)


def find_entry(store, path, times, duration, description, *, film_reader="pyav"):
    """Return where a store keeps the features of one film by one extractor.

    Parameters
    ----------
    store : FeatureStore
    path : path-like
        The film; its content counts.
    times : array-like of shape (n_clips,)
        Seconds from the film's first frame.
    duration : float
        Of a clip, s.
    description : dict
        From `describe_extractor`.
    film_reader : {"pyav", "torchcodec"}, default="pyav"

    Returns
    -------
    entry : FeatureEntry
    """
    digest = hash_file(path)
    whole = {"film_sha256": digest, "duration": float(duration), "extractor": description}
    if film_reader != "pyav":
        whole["decoder"] = film_reader
    # the same content and extractor have the same file name, whatever the caller calls them
    who = description.get("hub_id") or description["class"].rsplit(".", 1)[-1]
    return store.entry(whole, times, label=f"{who}_{digest[:8]}")


def _find_devices(extractors, devices):
    """Return the devices that share the networks; all GPUs where every network is on "auto"."""
    networks = [e for e in extractors.values() if is_network(e)]
    if devices is not None or any(e.device != "auto" for e in networks) or not networks:
        return devices
    if not _is_local():  # the workers' devices are their own
        return None
    import torch

    n_devices = torch.cuda.device_count()
    return [f"cuda:{i}" for i in range(n_devices)] if n_devices > 1 else None


def _is_local():
    backend, _ = joblib.parallel.get_active_backend()
    return type(backend).__name__ in _LOCAL_BACKENDS


def _is_read(extractor):
    return getattr(extractor, "modality", "frames") == "file"


def _is_heard(extractor):
    return getattr(extractor, "modality", "frames") in ("sound", "words")


def _on(extractor, device):
    return extractor if device is None else _moved(extractor, device)


def _moved(extractor, device):
    if not is_network(extractor):
        return extractor
    names = [name for name in extractor.get_params() if name.split("__")[-1] == "device"]
    return clone(extractor).set_params(**dict.fromkeys(names, device))


def _check_lengths(films, n_processes):
    """Refuse films that end before a clip begins, as decoding their ends tells.

    Returns
    -------
    size : (height, width)
        Of the largest film.
    """
    largest = 0, 0
    run = map if n_processes == 1 else start_processes(n_processes).map
    for (path, times), video in zip(films, run(probe_video, [f[0] for f in films]), strict=True):
        if times[-1] > video.duration + 1e-3:
            raise InputError(
                f"Film {path} lasts {video.duration:.2f} s; a clip at {times[-1]:.2f} s was asked "
                "for."
            )
        largest = max(largest, (video.height, video.width), key=math.prod)
    return largest


@dataclass(frozen=True)
class _Task:
    """A chunk of a film and the extractors that lack it."""

    clips: Clips
    extractors: dict
    i_film: int
    chunk: int


def _hear(tasks, entries):
    """Compute what is made from sound or words: a film's sound is read once for each rate."""
    read = lru_cache(maxsize=1)(read_sound)
    for task in tasks:
        for name, extractor in task.extractors.items():
            clips = task.clips
            if extractor.modality == "words":
                features = extractor.features_of(clips.path, clips.times, clips.duration)
            else:
                wave = read(clips.path, rate=extractor.rate)
                features = extractor.transform(_waves_of(clips, wave, extractor))
            entries[task.i_film, name].write_chunk(task.chunk, features)


def _waves_of(clips, wave, extractor):
    """The sound of each clip, and of so many seconds before it as the extractor wants."""
    n_samples = max(1, round(clips.duration * extractor.rate))
    n_before = round(getattr(extractor, "context", 0.0) * extractor.rate)
    # silence before the film; a clip may end after it
    wave = np.pad(wave, (n_before, n_samples))
    first = np.round(clips.times * extractor.rate).astype(int)
    return wave[first[:, None] + np.arange(n_before + n_samples)]


# running ------------------------------------------------------------------------------------------


def _compute(tasks, entries, n_processes, devices, progress, size):
    if not tasks:
        return
    views = {}
    for task in tasks:
        for name, extractor in task.extractors.items():
            if (name, task.clips.duration) not in views:
                views[name, task.clips.duration] = view_of(extractor, task.clips.duration)
    jobs = []
    for task in tasks:
        mine = {name: views[name, task.clips.duration] for name in task.extractors}
        jobs.append((task.clips, task.extractors, mine))
    n_clips = sum(len(task.clips.times) for task in tasks)
    has_networks = any(view.is_network for view in views.values())
    with tqdm(total=n_clips, unit="clip", desc="features", disable=not progress) as bar:

        def keep(index, features):
            for name, values in features.items():
                task = tasks[index]
                entries[task.i_film, name].write_chunk(task.chunk, values)
            bar.update(len(tasks[index].clips.times))

        if not _is_local():
            _run_on_cluster(jobs, keep)
        else:
            with _Networks(devices, keep) if has_networks else nullcontext() as networks:
                _run_here(jobs, n_processes, networks, keep, size)


def _run_on_cluster(jobs, keep):
    """Give whole chunks to the workers of joblib's backend."""
    run = joblib.Parallel(n_jobs=-1, return_as="generator_unordered")
    for index, features in run(joblib.delayed(_run_job)(i, job) for i, job in enumerate(jobs)):
        keep(index, features)


def _run_job(index, job):
    clips, extractors, views = job
    features, frames = look(clips, extractors, views)
    return index, {**features, **_encode(extractors, views, frames)}


def _run_here(jobs, n_processes, networks, keep, size):
    """Decode in this process or in others, run the networks in this one."""
    if n_processes == 1:
        decoded = _decode_here(jobs)
    else:
        decoded = _decode_in_processes(jobs, n_processes, _bytes_of_chunk(jobs, size))
    for index, (features, frames) in decoded:
        if frames:
            networks.submit(index, jobs[index], features, frames)
        else:
            keep(index, features)


def _decode_here(jobs):
    for index, job in enumerate(jobs):
        yield index, look(*job)


def _bytes_of_chunk(jobs, size):
    """What a chunk of the largest film has in frames for networks."""
    frame = np.zeros((*size, 3), dtype=np.uint8)
    of_view = lru_cache(None)(lambda view: len(view.moments) * view.prepare(frame).nbytes)
    return max(
        len(clips.times) * sum(of_view(view) for view in set(views.values()) if view.is_network)
        for clips, _, views in jobs
    )


def _decode_in_processes(jobs, n_processes, n_bytes=0):
    """Yield decoded chunks, of `n_bytes` at most, from processes: two more than these at a time."""
    executor = start_processes(n_processes)
    waiting, running = deque(enumerate(jobs)), {}
    # those that wait, and those that networks hold
    with passing_folder((n_processes + 2 + 2 * _AT_NETWORKS) * n_bytes) as folder:
        try:
            while waiting or running:
                while waiting and len(running) < n_processes + 2:
                    index, job = waiting.popleft()
                    future = executor.submit(look_into_files, _without_networks(job), folder, index)
                    running[future] = index
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                # one, so that the next begins before this is encoded: else all wait for the GPU,
                # and then it for all
                future = done.pop()
                features, files = future.result()
                yield running.pop(future), (features, read_files(files))
        except TerminatedWorkerError as error:
            raise RuntimeError(
                "A decoding process was killed (out of memory?). What was computed is kept: run "
                "again, with fewer processes or a smaller `chunk_size`."
            ) from error
        finally:
            for future in running:
                future.cancel()
            wait(running)  # nobody writes into the folder while it is removed


def _without_networks(job):
    """What a process gets that runs none: it need not know them."""
    clips, extractors, views = job
    return clips, {n: e for n, e in extractors.items() if not is_network(e)}, views


@contextmanager
def loading_networks(extractors, devices=None):
    """Load networks beside the block, and let them go at its end.

    What fails here fails again with the first chunk. A cluster's networks are its workers'.

    Parameters
    ----------
    extractors : iterable of transformer
    devices : sequence of str or None, default=None
        None leaves every encoder on its own device.
    """
    networks = [e for e in extractors if is_network(e)]
    if not networks or not _is_local():
        yield
        return
    thread = ThreadPoolExecutor(1)
    try:
        for device in [None] if devices is None else devices:
            for extractor in networks:
                if hasattr(extractor, "load"):  # others load with the first chunk
                    thread.submit(_on(extractor, device).load)
        yield
    finally:
        thread.shutdown(cancel_futures=True)
        release_networks()


class _Networks:
    """Networks on one or several devices, each fed by three threads.

    While one thread stacks the first frames of a chunk, and another waits for its last features,
    the third one's chunk keeps the device busy; meanwhile further chunks are being decoded.
    """

    def __init__(self, devices, keep):
        self._devices = [None] if devices is None else list(devices)
        self._keep = keep
        self._running = deque()
        self._n_submitted = 0

    def __enter__(self):
        self._stack = ExitStack()
        self._threads = [
            self._stack.enter_context(ThreadPoolExecutor(max_workers=3)) for _ in self._devices
        ]
        return self

    def submit(self, index, job, features, frames):
        """Encode the frames of a chunk and keep all its features."""
        turn = self._n_submitted % len(self._devices)
        self._n_submitted += 1
        _, extractors, views = job
        encode = partial(_encode, extractors, views, frames, self._devices[turn])
        self._running.append((index, features, self._threads[turn].submit(encode)))
        self._drain(_AT_NETWORKS * len(self._devices) - 1)

    def _drain(self, n_left):
        while len(self._running) > n_left:
            index, features, future = self._running.popleft()
            self._keep(index, {**features, **future.result()})

    def __exit__(self, kind, error, traceback):
        with self._stack:
            if kind is None:
                self._drain(0)
            for _, _, future in self._running:
                future.cancel()


def _encode(extractors, views, frames, device=None):
    """Features of all networks; the layers of one network come from one pass."""
    passes, features = {}, {}
    for name, view in views.items():
        if view.is_network:
            encoder = _on(extractors[name], device)
            passes.setdefault(_pass(name, encoder), {})[name] = encoder
    for encoders in passes.values():
        images = frames[views[next(iter(encoders))]]
        if len(encoders) > 1:
            found = encode_layers(list(encoders.values()), images)
            features |= zip(encoders, found, strict=True)
        else:
            features |= {name: encoder.encode(images) for name, encoder in encoders.items()}
    return features


def _pass(name, encoder):
    """What encoders share that need one pass: everything but their layers."""
    parameters = encoder.get_params(deep=False)
    if "layers" not in parameters or parameters.get("pooling") == "grid":
        return name  # grids of layers may differ in size
    return type(encoder), *sorted((k, v) for k, v in parameters.items() if k != "layers")
