"""Features that come from elsewhere: a folder with a file for each film, and transcripts.

Both are on the clock of the film and are averaged to clips like our own features of frames. They
are extractors to :func:`brainnrds.movie_features`, of the modality "file", or "words" where a
network reads a transcript: what they are given is the film's path, and they find the file that has
its name.
"""

import gzip
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, check_file, hash_file, load_json, read_text
from brainnrds._hdf5 import load_datasets, save_arrays
from brainnrds.features import frames_to_volumes
from brainnrds.flow import resize_flow
from brainnrds.io._texts import read_table, sidecar_path

__all__ = [
    "FeatureFiles",
    "FlowFiles",
    "WordEmbeddings",
    "WordRate",
    "read_feature_file",
    "read_transcript",
    "write_feature_file",
]

_SUFFIXES = (".h5", ".npy", ".parquet", "_stim.tsv.gz", "_stim.tsv", ".tsv")
_TRANSCRIPTS = (".tsv", ".srt", ".vtt")
_TIME_COLUMNS = ("time", "onset")
_CUE = re.compile(
    r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})\s*-->\s*(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
)
# s: up to this far from each other clips are the same
_SAME_CLIP = 1e-3
_LARGEST_ARRAY = 4 * 2**30  # bytes
_NEAR = 0.1  # s


def read_feature_file(path):
    """Read features that have a time each.

    Parameters
    ----------
    path : path-like
        ``.h5`` with the arrays `features` (n_times, n_features) and `times` (n_times,); ``.npy``
        with the features, beside ``<name>_times.npy``; ``.tsv`` or ``.parquet`` with a column
        `time` or `onset` and a column for each feature; or a BIDS recording ``_stim.tsv.gz``, whose
        sidecar has `SamplingFrequency`, `StartTime` and `Columns`. Features of whole clips have
        a second column of times, or a column `duration` beside `onset`: how long each clip lasts.

    Returns
    -------
    times : array of shape (n_times,)
        Seconds from the film's first frame, ascending.
    features : array of shape (n_times, n_features)

    Raises
    ------
    InputError
        It cannot be read, is of another shape, not finite, or its times do not ascend.
    """
    times, _, features = _read(path)
    return times, features


def write_feature_file(path, times, features, *, duration):
    """Write features of clips, for :func:`read_feature_file`, `FeatureFiles` and others.

    Parameters
    ----------
    path : path-like
        Ends in ``.h5``, ``.npy``, ``.tsv`` or ``.parquet`` (pyarrow).
    times : array of shape (n_clips,)
        Onsets, s from the film's first frame, ascending.
    features : array of shape (n_clips, n_features)
    duration : float
        Of a clip, s.

    Returns
    -------
    path : Path
    """
    path = Path(path)
    clips = np.column_stack([times, np.full(len(times), float(duration))])
    features = np.asarray(features, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".h5":
        return save_arrays(path, {"features": features, "times": clips}, chunk_rows=64)
    if path.suffix == ".npy":
        # the times first: features without them would be half a file
        for array, name in ((clips, f"{path.stem}_times.npy"), (features, path.name)):
            with atomic_path(path.with_name(name)) as temporary, open(temporary, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
        return path
    columns = [f"feature{i}" for i in range(features.shape[1])]
    table = pd.DataFrame(features, columns=columns)
    table.insert(0, "onset", clips[:, 0])
    table.insert(1, "duration", clips[:, 1])
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            try:
                table.to_parquet(temporary)
            except ImportError as error:
                raise InputError(f"{path.name} needs pyarrow: pip install pyarrow.") from error
        else:
            table.to_csv(temporary, sep="\t", index=False)
    return path


def _read(path):
    """Times, durations or None, and features of a file."""
    path = check_file(path, "Feature file")
    name = path.name
    durations = None
    if name.endswith(".h5"):
        times, features = load_datasets(path, ("times", "features"), "Feature file")
    elif name.endswith(".npy"):
        features = _load_npy(path)
        times = _load_npy(path.with_name(f"{path.stem}_times.npy"))
    elif name.endswith(("_stim.tsv.gz", "_stim.tsv")):
        times, features = _from_recording(path)
    else:
        times, durations, features = _from_table(path)
    times = np.asarray(times)
    if times.ndim == 2 and times.shape[1] == 2:
        times, durations = times.T
    return _checked(path, times, durations, features)


def _load_npy(path):
    check_file(path, "Feature file")
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"Feature file {path} must be a whole NPY file: {error}.") from error
    if array.nbytes > _LARGEST_ARRAY:
        raise InputError(
            f"Feature file {path} must have at most {_LARGEST_ARRAY // 2**30} GiB; got "
            f"{array.nbytes / 2**30:.0f}."
        )
    return np.array(array)


def _from_table(path):
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except Exception as error:  # pyarrow's own kinds
            raise InputError(
                f"Feature file {path} must be a Parquet file: {str(error).splitlines()[0]}."
            ) from error
    else:
        table = read_table(path, "Feature file")
    clock = [name for name in _TIME_COLUMNS if name in table]
    if not clock:
        raise InputError(
            f"Feature file {path} must have a column 'time' or 'onset'; got "
            f"{', '.join(map(str, table.columns[:8]))}."
        )
    columns = [name for name in table.columns if name not in (*_TIME_COLUMNS, "duration")]
    durations = table["duration"].to_numpy() if "duration" in table else None
    return table[clock[0]].to_numpy(), durations, table[columns].to_numpy()


def _from_recording(path):
    sidecar = sidecar_path(path)
    about = load_json(sidecar)
    rate, start, columns = (about.get(k) for k in ("SamplingFrequency", "StartTime", "Columns"))
    is_known = all(isinstance(x, (int, float)) and np.isfinite(x) for x in (rate, start))
    if not is_known or rate <= 0 or not isinstance(columns, list) or not columns:
        raise InputError(
            f"{sidecar} must have SamplingFrequency above 0, StartTime and Columns; got {rate!r}, "
            f"{start!r} and {columns!r}."
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(_LARGEST_ARRAY + 1)
        if len(content) > _LARGEST_ARRAY:
            raise ValueError(f"it has more than {_LARGEST_ARRAY / 2**30:.0f} GiB")
        table = pd.read_csv(io.BytesIO(content), sep="\t", header=None)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"Feature file {path} must be a readable TSV file: {error}.") from error
    if table.shape[1] != len(columns):
        raise InputError(
            f"Feature file {path} must have the {len(columns)} columns of its sidecar; got "
            f"{table.shape[1]}."
        )
    return start + np.arange(len(table)) / rate, table.to_numpy()


def _checked(path, times, durations, features):
    times, features = np.asarray(times), np.asarray(features)
    if features.ndim == 1:
        features = features[:, None]
    if features.dtype.kind not in "fiub" or times.dtype.kind not in "fiu":
        raise InputError(
            f"Feature file {path} must hold numbers; got features of {features.dtype} and times of "
            f"{times.dtype}."
        )
    if features.ndim != 2 or times.shape != (len(features),) or len(times) < 2 or features.size < 2:
        raise InputError(
            f"Feature file {path} must have one row for each of at least 2 times; got features "
            f"{features.shape} and times {times.shape}."
        )
    if not (np.isfinite(times).all() and np.isfinite(features).all()):
        raise InputError(f"Feature file {path} must be finite; got NaN or infinite values.")
    if not (np.diff(times) > 0).all():
        raise InputError(f"Feature file {path} must have times that ascend; some do not.")
    if durations is not None and durations.dtype.kind not in "fiu":
        durations = None  # "n/a" of events
    return times.astype(np.float64), durations, features.astype(np.float32)


class _ByFilm(BaseEstimator):
    """An extractor that finds a film's file in a folder by the film's name."""

    modality = "file"
    _suffixes = ()

    def __init__(self, folder):
        self.folder = folder

    def describe(self):
        """Say everything that determines the features: the content of each file.

        Returns
        -------
        description : dict
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputError(f"{type(self).__name__}: no such folder: {folder}.")
        # ".json": the sidecars of recordings
        known = (*self._suffixes, ".json")
        files = sorted(path for path in folder.iterdir() if path.name.endswith(known))
        if not files:
            raise InputError(
                f"{type(self).__name__}: {folder} must hold files that end in "
                f"{', '.join(self._suffixes)}; got none."
            )
        content = {path.name: hash_file(path) for path in files}
        return {"class": type(self).__name__, "files": content}

    def find(self, film):
        """Return the file of a film.

        Parameters
        ----------
        film : path-like
            ``name.mp4`` is looked for as ``name`` with each suffix that can be read.

        Returns
        -------
        path : Path

        Raises
        ------
        InputError
            There is none, or more than one.
        """
        stem, folder = Path(film).stem, Path(self.folder)
        found = [path for s in self._suffixes if (path := folder / f"{stem}{s}").exists()]
        if len(found) != 1:
            got = ", ".join(path.name for path in found) or "none"
            raise InputError(
                f"{folder} must hold one file {stem} with one of {', '.join(self._suffixes)} for "
                f"the film {Path(film).name}; got {got}."
            )
        return found[0]


class FeatureFiles(_ByFilm):
    """Features of films that were computed elsewhere: one file per film in a folder.

    Parameters
    ----------
    folder : path-like
        Files are named as the films, with another suffix: see :func:`read_feature_file`.

    See Also
    --------
    brainnrds.features.frames_to_volumes : how they are averaged over clips.
    """

    _suffixes = _SUFFIXES

    def features_of(self, film, times, duration):
        """Average the features of a film over clips, or find those of the same clips.

        Parameters
        ----------
        film : path-like
        times : array of shape (n_clips,)
            Onsets of the clips, s from the film's first frame.
        duration : float
            Of a clip, s.

        Returns
        -------
        features : array of float32 of shape (n_clips, n_features)
            Where the file has features of clips that last as long and begin when these do, they
            are taken as they are.

        Raises
        ------
        InputError
            A clip lies before the first or after the last time of the file.
        """
        path = self.find(film)
        clock, durations, features = _read(path)
        if durations is not None:
            row = np.abs(clock - np.asarray(times)[:, None]).argmin(1)
            away = np.maximum(np.abs(clock[row] - times), np.abs(durations[row] - duration))
            if (away <= _SAME_CLIP).all():
                return features[row]
        end = 2 * clock[-1] - clock[-2]
        if times[0] < clock[0] - duration / 2 or times[-1] + duration / 2 > end:
            raise InputError(
                f"Feature file {path} must cover the film from {times[0]:g} to "
                f"{times[-1] + duration:g} s; got {clock[0]:g} to {end:g} s."
            )
        averaged = frames_to_volumes(features, clock, times, duration=duration)
        return averaged.astype(np.float32)


class FlowFiles(_ByFilm):
    """Films as another system reconstructed them, or the flow in them: one file per film.

    Parameters
    ----------
    folder : path-like
        Files are named as the films: a video of the whole film, or ``.h5`` with the arrays `flow`
        (n_clips, n_steps, 2, height, width), in pixels of its grid per step, and `times`
        (n_clips,), the clips' onsets in s from the film's first frame.
    """

    _suffixes = (".h5", ".mp4", ".mkv", ".mov", ".avi", ".webm")

    def flow_of(self, film, times, shape):
        """Read the flow of some clips of a film, on a grid.

        Parameters
        ----------
        film : path-like
            Its file must be an ``.h5``.
        times : array of shape (n_clips,)
            Onsets, s from the film's first frame.
        shape : tuple (n_steps, 2, height, width)
            Wanted; flow on another grid is brought to it, with its unit.

        Returns
        -------
        flow : array of float32 of shape (n_clips, n_steps, 2, height, width)

        Raises
        ------
        InputError
            Arrays that are no flow or not finite, or no clip within .1 s of a wanted one.
        """
        path = self.find(film)
        clock, flow = load_datasets(path, ("times", "flow"), "Flow file")
        clock, flow = np.asarray(clock), np.asarray(flow)
        is_flow = flow.ndim == 5 and flow.shape[2] == 2 and flow.size and flow.dtype.kind == "f"
        if not is_flow or clock.shape != (len(flow),) or clock.dtype.kind not in "fiu":
            raise InputError(
                f"Flow file {path} must hold `flow` (n_clips, n_steps, 2, height, width) and "
                f"`times` (n_clips,); got {flow.shape} and {clock.shape}."
            )
        if not (np.isfinite(flow).all() and np.isfinite(clock).all()):
            raise InputError(f"Flow file {path} must be finite; got NaN or infinite values.")
        away = np.abs(clock - np.asarray(times)[:, None])
        nearest = away.argmin(axis=1)
        missing = np.flatnonzero(away.min(axis=1) > _NEAR)
        if len(missing):
            raise InputError(
                f"Flow file {path} must have a clip within {_NEAR} s of each tested one; got none "
                f"at {times[missing[0]]:g} s ({len(missing)} of {len(nearest)} are missing)."
            )
        return resize_flow(flow[nearest].astype(np.float32), shape[2:], n_steps=shape[0])


def read_transcript(path):
    """Read when which words are spoken.

    Parameters
    ----------
    path : path-like
        A TSV file with `onset` and `duration` in s and `word`, without rows where nobody speaks; or
        subtitles, SRT or WebVTT, whose words are spread evenly over the time of their caption.

    Returns
    -------
    words : pandas.DataFrame
        With `onset`, `duration` (s) and `word`, in order.

    Raises
    ------
    InputError
        It cannot be read, or times are negative, not finite or not in order.
    """
    path = check_file(path, "Transcript")
    if path.suffix == ".tsv":
        words = read_table(path, "Transcript")
        missing = [name for name in ("onset", "duration", "word") if name not in words]
        if missing:
            raise InputError(
                f"Transcript {path} must have the columns onset, duration and word; got no "
                f"{', '.join(missing)}."
            )
        words = words[["onset", "duration", "word"]]
    else:
        words = _words_of_captions(read_text(path, "Transcript"))
    times = words[["onset", "duration"]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    is_empty = not len(words) and path.suffix != ".tsv"
    if is_empty or not np.isfinite(times).all() or (times < 0).any():
        raise InputError(
            f"Transcript {path} must have words with an onset and a duration of at least 0 s; got "
            f"{len(words)} words."
        )
    if (np.diff(times[:, 0]) < 0).any():
        raise InputError(f"Transcript {path} must have words in order; some begin too early.")
    return words.assign(onset=times[:, 0], duration=times[:, 1])


def _words_of_captions(text):
    rows, span, spoken = [], None, []
    for line in [*text.splitlines(), ""]:
        cue = _CUE.search(line)
        if cue:
            span, spoken = _span(cue), []
        elif line.strip() and span:
            spoken += re.sub(r"<[^>]*>", " ", line).split()
        elif span:
            onset, end = span
            step = (end - onset) / max(len(spoken), 1)
            rows += [(onset + i * step, step, word) for i, word in enumerate(spoken)]
            span = None
    return pd.DataFrame(rows, columns=["onset", "duration", "word"])


def _span(cue):
    def seconds(hours, minutes, whole, part):
        return int(hours or 0) * 3600 + int(minutes) * 60 + int(whole) + float(f"0.{part}")

    return seconds(*cue.groups()[:4]), seconds(*cue.groups()[4:])


class WordRate(_ByFilm):
    """Words per second in each clip, from transcripts or subtitles.

    Parameters
    ----------
    folder : path-like
        One file per film, named as the film: see :func:`read_transcript`.
    """

    _suffixes = _TRANSCRIPTS

    def features_of(self, film, times, duration):
        """Count the words that begin in each clip.

        Parameters
        ----------
        film, times, duration
            As in :meth:`FeatureFiles.features_of`.

        Returns
        -------
        rates : array of float32 of shape (n_clips, 1)
            Per second.
        """
        onsets = read_transcript(self.find(film))["onset"].to_numpy()
        first, last = np.searchsorted(onsets, [times, np.asarray(times) + duration])
        return ((last - first) / duration).astype(np.float32)[:, None]


class WordEmbeddings(_ByFilm):
    """What is said in each clip, as a network of text reads the films' transcripts.

    Parameters
    ----------
    folder : path-like
        One file per film, named as the film: see :func:`read_transcript`.
    encoder : WordEncoder
        Of :mod:`brainnrds.features`.

    Notes
    -----
    A word counts in the clip in which it begins, as in :class:`WordRate`, with its embedding in
    place of 1: the features of a clip are the sum of the embeddings of these words, per second.
    Between words, and where nobody speaks, they are 0. How many words there are is therefore part
    of them: take the word rate as a control space to ask for what they mean.
    """

    modality = "words"
    _suffixes = _TRANSCRIPTS

    def __init__(self, folder, encoder):
        self.folder = folder
        self.encoder = encoder

    def describe(self):
        """Say what determines the features of every film, but for its transcript.

        Returns
        -------
        description : dict
        """
        super().describe()
        return {**self.encoder.describe(), "class": type(self).__name__, "words": "sum per s"}

    def describe_film(self, film):
        """Say what of one film determines its features besides.

        Parameters
        ----------
        film : path-like

        Returns
        -------
        description : dict
        """
        return {"transcript_sha256": hash_file(self.find(film))}

    def features_of(self, film, times, duration):
        """Sum the embeddings of the words that begin in each clip.

        Parameters
        ----------
        film, times, duration
            As in :meth:`FeatureFiles.features_of`.

        Returns
        -------
        features : array of float32 of shape (n_clips, n_features)
            Per second.
        """
        words = read_transcript(self.find(film))
        times = np.asarray(times)
        first, last = np.searchsorted(words["onset"].to_numpy(), [times, times + duration])
        which = np.unique(
            np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        )
        embeddings = self.encoder.transform(words["word"], which.astype(int))
        sums = np.concatenate([np.zeros((1, embeddings.shape[1])), embeddings.cumsum(axis=0)])
        first, last = np.searchsorted(which, [first, last])
        return ((sums[last] - sums[first]) / duration).astype(np.float32)
