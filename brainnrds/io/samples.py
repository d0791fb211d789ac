"""The samples of one subject: what they show, from which volumes, and averages of repeats."""

import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from scipy.sparse import csr_array

from brainnrds._checks import InputError
from brainnrds.features.delays import LATEST_RESPONSE, response_delays
from brainnrds.films import BORDER_SECONDS
from brainnrds.io.film_parts import continues, file_of

__all__ = [
    "MovieData",
    "average_repeats",
    "find_films",
    "join_samples",
]

_VOXELS_PER_BLOCK = 4096
# each sums a block of voxels of its own
_MOST_THREADS = 4
# a volume this close to a film's onset or end counts as on it: clocks are noted to milliseconds
_CLOCK_SECONDS = 1e-3
# the response to an onset is left out of films that are longer than this many times of it
_SHORT_FILM = 6
_PER_SAMPLE = ("films", "on_screen", "film_times", "n_repeats")
# of trials alone
_PER_TRIAL = ("scanner_runs",)


@dataclass(eq=False)
class MovieData:
    """BOLD of one subject around the films, volume by volume or trial by trial, or averaged.

    Attributes
    ----------
    bold : array of float32 of shape (n_samples, n_voxels)
        Detrended, confounds removed, z-scored per scanner run.
    runs : array of int of shape (n_samples,)
        Label of the scanner run, or of the average of such: samples with the same label follow each
        other without a hole. Delays look back at what was shown before in the same run.
    presentations : array of int of shape (n_samples,)
        Label of the presentation of a film, or of the average of presentations: its volumes and
        those after its end.
    films : array of int of shape (n_samples,)
        What a sample counts as in fits, scores and ceilings: index into `film_names`, from the
        film's onset to `tail` s after its end. -1: not counted (after an onset, long after a film,
        or scrubbed); the sample gives others their context only.
    on_screen : array of int of shape (n_samples,)
        What was to be seen: index into `film_names`, -1 at rest.
    film_times : array of float of shape (n_samples,)
        s from the film's first frame to what the volume saw of it; beyond its end at rest.
    n_repeats : array of int of shape (n_samples,)
        Presentations behind the sample; 0 where all were scrubbed (`bold` is 0 there).
    film_names : list of str
    stim_files : list of Path
    film_starts : list of float
        In s from the film's first frame to what is shown first; above 0 for parts of films.
    film_durations : list of float
        In s, as events.tsv says (the longest presentation).
    film_groups : array of int of shape (n_films,)
        Films that no split may separate have the same label: of one scanner run, parts of one
        film, or grouped (`find_runs`).
    t_r : float
        In s.
    masker : fitted masker
        ``inverse_transform`` gives images.
    voxels : array of bool of shape (n_voxels,)
        False where a voxel was constant or not finite in any run; `bold` is 0 there.
    subject, space : str or None
    repeats : {"average", "concatenate"}
        As they were loaded, see `load_runs`.
    sources : list of str
        Names of the BOLD files.
    counts : dict
        What was handled, for sidecars.
    design : {"continuous", "trials"}
        Whether a sample is a volume, or the response to one showing of a clip (`load_trials`).
    clip_duration : float
        Of what a sample is a response to, in s: a repetition time; of trials, the shortest clip.
    spacing : float
        From sample to sample, in s: a repetition time; of trials, the median from trial to trial.
    scanner_runs : array of int of shape (n_samples,) or None
        Of single trials.
    """

    bold: np.ndarray
    runs: np.ndarray
    presentations: np.ndarray
    films: np.ndarray
    on_screen: np.ndarray
    film_times: np.ndarray
    n_repeats: np.ndarray
    film_names: list
    stim_files: list
    film_starts: list
    film_durations: list
    film_groups: np.ndarray
    t_r: float
    masker: object
    voxels: np.ndarray
    subject: str
    space: str | None
    repeats: str
    sources: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    design: str = "continuous"
    clip_duration: float | None = None
    spacing: float | None = None
    scanner_runs: np.ndarray | None = None

    def __post_init__(self):
        self.clip_duration = self.t_r if self.clip_duration is None else self.clip_duration
        self.spacing = self.t_r if self.spacing is None else self.spacing

    def __repr__(self):
        n_samples, n_voxels = self.bold.shape
        kind = "trials" if self.design == "trials" else "samples"
        return (
            f"<MovieData: subject {self.subject}, space {self.space}, {n_samples:,} {kind} x "
            f"{n_voxels:,} voxels, {len(self.film_names)} films, T_R {self.t_r:g} s, "
            f"repeats: {self.repeats}>"
        )

    @property
    def groups(self):
        """Film group of each sample, -1 where it does not count: the unit of every split."""
        return np.where(self.films >= 0, self.film_groups[self.films], -1)

    @property
    def labels(self):
        """Keywords for `fit`, `score` and `held_out_predictions`: `runs`, and `films` by group."""
        return {"runs": self.runs, "films": self.groups}

    @property
    def delays(self):
        """Delays that cover the response, for `VideoEncodingModel`: in volumes; of trials, 0."""
        return [0] if self.design == "trials" else response_delays(self.t_r)

    @property
    def has_repeats(self):
        """Whether a film is there more than once: such samples are not independent in tests.

        ``average_repeats(data, context=False)`` averages them, when predictions are made.
        """
        counted = self.films >= 0
        pairs = np.unique(np.stack([self.films, self.presentations])[:, counted], axis=1)
        return pairs.shape[1] > len(np.unique(pairs[0]))

    def shows(self, *film_names):
        """Find the samples of some films.

        Parameters
        ----------
        *film_names : str
            With or without extension; the name of a file stands for all of its parts.

        Returns
        -------
        shown : array of bool of shape (n_samples,)
            True in every presentation of the films, from its first sample to its last.
        """
        films = find_films(film_names, self.film_names)
        return np.isin(self.presentations, self.presentations[np.isin(self.films, films)])

    def __getitem__(self, rows):
        """Return some samples; what is no longer contiguous gets run labels of its own.

        So delays never reach over a hole: there they find the run's border.
        """
        index = np.arange(len(self.runs))[rows]
        if index.ndim != 1:
            raise ValueError(f"`rows` must be a mask, a slice or a list of ints; got {rows!r}.")
        border = (np.diff(index) != 1) | (np.diff(self.runs[index]) != 0)
        names = ("bold", "presentations", *_PER_SAMPLE, *_PER_TRIAL)
        per_sample = {name: _taken(getattr(self, name), index) for name in names}
        if self.design == "trials":  # none follows another
            return replace(self, runs=self.runs[index], **per_sample)
        return replace(self, runs=np.cumsum(np.r_[0, border])[: len(index)], **per_sample)

    def to_image(self, values):
        """Put one value per voxel, or one row of them per image, into the space of the data.

        Parameters
        ----------
        values : array of shape (n_voxels,) or (n_images, n_voxels)

        Returns
        -------
        image : SurfaceImage, NIfTI or CIFTI image
            NaN in voxels without usable data.
        """
        values = np.where(self.voxels, values, np.nan).astype(np.float32)
        return self.masker.inverse_transform(values)


def _taken(values, index):
    return None if values is None else values[index]


def find_films(names, film_names):
    """Find films by name, with or without extension.

    Parameters
    ----------
    names : sequence of str
        Or patterns, such as "test/*".
    film_names : sequence of str

    Returns
    -------
    films : list of int
        Indices into `film_names`, ascending.

    Raises
    ------
    InputError
        A name that is none of the films.
    """
    found = set()
    for name in names:
        matches = [
            i
            for i, film in enumerate(film_names)
            for file in [file_of(film)]
            if name in (film, file, file.rsplit(".", 1)[0])
            or (("*" in name or "?" in name) and fnmatchcase(file, name))
        ]
        if not matches:
            more = f" and {len(film_names) - 20} more" if len(film_names) > 20 else ""
            raise InputError(
                f"Films must be named as in the data ({', '.join(film_names[:20])}{more}); got "
                f"{name!r}."
            )
        found.update(matches)
    return sorted(found)


def join_samples(*parts):
    """Put samples of one participant one after the other, as runs and presentations of their own.

    Parameters
    ----------
    *parts : MovieData
        Of the same films and voxels, such as single training presentations and averaged test films.

    Returns
    -------
    data : MovieData
        All but its samples as in the last part.
    """
    labels = {}
    for name in ("runs", "presentations"):
        shifted, start = [], 0
        for part in parts:
            values = getattr(part, name)
            shifted.append(values + start)
            start = 1 + int(shifted[-1].max(initial=start - 1))
        labels[name] = np.concatenate(shifted)
    for name in ("bold", *_PER_SAMPLE, *_PER_TRIAL):
        values = [getattr(part, name) for part in parts]
        labels[name] = None if any(v is None for v in values) else np.concatenate(values)
    return replace(parts[-1], **labels)


def cut_run(run, keep, names, tail, trim_onset):
    """Find the volumes of a run that belong to presentations of films.

    Parameters
    ----------
    run : Run
    keep : array of bool of shape (n_volumes,)
        False where a volume is not used.
    names : list of str
        Films.
    tail, trim_onset : float
        In s, as in `load_runs`.

    Returns
    -------
    volumes : DataFrame
        One row per volume, in order: ``volume`` (into the run), ``presentation`` (0, 1, ... in the
        run), ``film`` (of the presentation), ``on_screen`` (film, or -1), ``time`` (s from the
        film's first frame), ``counts`` and ``kept`` (bool).
    """
    # the kept volumes begin where the non-steady-state ones end
    first = int(np.argmax(keep))
    times = run.start_time + run.t_r * np.arange(run.n_volumes)
    parts = []
    for i, film in enumerate(run.films):
        end = film.onset + film.duration
        following = run.films[i + 1].onset if i + 1 < len(run.films) else np.inf
        # rest is context of what follows, whether it counts or not
        until = min(following, end + max(tail, LATEST_RESPONSE))
        on_film = (times > film.onset - _CLOCK_SECONDS) & (times < end - _CLOCK_SECONDS)
        after = (times >= end - _CLOCK_SECONDS) & (times < until)
        rows = np.flatnonzero(on_film | after)
        rows = rows[rows >= first]
        if not on_film[rows].any():
            continue
        since = np.maximum(times[rows] - film.onset, 0.0)
        goes_on = continues(film, run.films[i - 1] if i else None)
        trimmed = trim_onset if _shown_for(run.films, i) >= _SHORT_FILM * trim_onset else 0.0
        trimmed = BORDER_SECONDS if goes_on else trimmed
        index = names.index(film.film)
        part = {
            "volume": rows,
            "presentation": len(parts),
            "film": index,
            "on_screen": np.where(on_film[rows], index, -1),
            "time": film.film_start + since,
            "counts": (since >= trimmed - _CLOCK_SECONDS) & (times[rows] < end + tail),
            "kept": keep[rows],
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _shown_for(films, i):
    """Seconds from a film's onset to its end, over parts that follow each other."""
    last = i
    while last + 1 < len(films) and continues(films[last + 1], films[last]):
        last += 1
    return films[last].onset + films[last].duration - films[i].onset


def count_footage_once(volumes, runs, names):
    """Let footage that several parts of a film show count in one of them, in place.

    The part that was shown most often counts, of these the one that was shown first; in the others
    the shared stretch is context. Otherwise a moment would be tested twice. Rest after a showing
    does not count as long as a longer showing of the part goes on: they are no repeats.

    Parameters
    ----------
    volumes : DataFrame
        As from `cut_run`.
    runs : list of Run
    names : list of str
        Films and parts of films.
    """
    parts = [p for run in runs for p in run.films]
    files = {p.film: p.stim_file for p in parts}
    showings = Counter(p.film for p in parts)
    film, time = volumes["on_screen"].to_numpy(), volumes["time"].to_numpy()
    rest = np.where(film < 0, volumes["film"].to_numpy(), -1)
    counts, counted = volumes["counts"].to_numpy().copy(), {}
    for name in sorted(names, key=lambda name: -showings[name]):
        rows, end = film == names.index(name), max(p.footage[1] for p in parts if p.film == name)
        counts[(rest == names.index(name)) & (time < end - _CLOCK_SECONDS)] = False
        for start, until in counted.get(files[name], ()):
            shared = (time > start - _CLOCK_SECONDS) & (time < until - _CLOCK_SECONDS)
            counts[rows & shared] = False
        if counts[rows].any():
            counted.setdefault(files[name], []).append((time[rows & counts].min(), end))
    volumes["counts"] = counts


def plan_samples(volumes, t_r, *, average, context=True):
    """Say which samples there are, and which volumes go into each.

    Parameters
    ----------
    volumes : DataFrame
        As from `cut_run`, with ``run`` (int), of all runs in order. Presentations of a run have
        different numbers.
    t_r : float
    average : bool
        Whether repeats are averaged.
    context : bool, default=True
        Average only what was preceded by the same.

    Returns
    -------
    samples : DataFrame
        With ``run``, ``presentation``, ``film`` (-1: does not count), ``on_screen`` and ``time``.
    place : array of int of shape (n_volumes,)
        Sample of each volume, -1 for none.
    """
    starts = np.flatnonzero(_differs(volumes, "run") | _differs(volumes, "presentation"))
    presentations = np.split(np.arange(len(volumes)), starts[1:])
    pieces = _pieces(volumes, presentations, t_r, joins=not average or context)
    groups = _alike(volumes, pieces, t_r) if average else [[piece] for piece in pieces]
    _warn_of_blur([[volumes["time"].iat[p[0][0]] for p in group] for group in groups], t_r)
    parts, place, before = [], np.full(len(volumes), -1), None
    n_samples = n_runs = n_presentations = 0
    for group in groups:
        rows = [np.concatenate(piece) for piece in group]
        part, at = _merge(volumes, rows, t_r)
        part["presentation"] += n_presentations
        n_presentations = 1 + part["presentation"].max()
        for own, to in zip(rows, at, strict=True):
            place[own[to >= 0]] = n_samples + to[to >= 0]
        n_samples += len(part)
        used = [own[to >= 0] for own, to in zip(rows, at, strict=True)]
        if before is not None and not _follows(volumes, before, used):
            n_runs += 1
        part["run"], before = n_runs, used
        parts.append(part)
    return pd.concat(parts, ignore_index=True), place


def _differs(volumes, column):
    """True in rows whose value differs from that of the row before, and in the first."""
    return np.append(True, np.diff(volumes[column]) != 0)


def _pieces(volumes, presentations, t_r, *, joins):
    """Join presentations of a run whose response depends on the one before.

    It does not after rest or a trimmed onset that is as long as the response.
    """
    rest = volumes["on_screen"].to_numpy() < 0
    counts, time = volumes["counts"].to_numpy(), volumes["time"].to_numpy()
    pieces = []
    for rows in presentations:
        previous = pieces[-1][-1] if pieces else None
        if joins and previous is not None and _follows(volumes, [previous], [rows]):
            counted = rows[counts[rows]]
            trimmed = time[counted[0]] - time[rows[0]] if len(counted) else np.inf
            if rest[previous].sum() * t_r + trimmed < LATEST_RESPONSE:
                pieces[-1].append(rows)
                continue
        pieces.append([rows])
    return pieces


def _follows(volumes, before, after):
    """Say whether each of some stretches of runs goes on, without a hole, in another."""
    if len(before) != len(after):
        return False
    run, volume = volumes["run"].to_numpy(), volumes["volume"].to_numpy()
    return all(
        run[a[-1]] == run[b[0]] and volume[a[-1]] + 1 == volume[b[0]]
        for a, b in zip(before, after, strict=True)
    )


def _alike(volumes, pieces, t_r):
    """Gather pieces that show the same films at the same times, in order of first occurrence."""
    film = volumes["film"].to_numpy()
    onset = volumes["volume"].to_numpy() * t_r - volumes["time"].to_numpy()
    groups = {}
    for piece in pieces:
        starts = np.array([rows[0] for rows in piece])
        since = onset[starts] - onset[starts[0]]
        same_films = groups.setdefault(tuple(film[starts].tolist()), [])
        for first, group in same_films:
            if np.abs(since - first).max() < t_r / 2 + _CLOCK_SECONDS:
                group.append(piece)
                break
        else:
            same_films.append((since, [piece]))
    found = [group for alike in groups.values() for _, group in alike]
    return sorted(found, key=lambda group: group[0][0][0])


def _mean_offset(times, t_r):
    """Mean on the circle of a repetition time: 0.1 s and t_r - 0.1 s are 0.2 s apart."""
    mean = np.exp(2j * np.pi * (np.asarray(times) % t_r) / t_r).mean()
    return np.angle(mean) * t_r / (2 * np.pi)


def _warn_of_blur(first_times, t_r):
    """Warn once where what is averaged differs by more than a quarter of a TR."""
    worst = 0.0
    for times in first_times:
        values = np.sort(np.asarray(times) % t_r)
        # farthest from a value is what lies next to its opposite: no table of all pairs
        opposite = np.searchsorted(values, (values + t_r / 2) % t_r)
        for near in (values[opposite - 1], values[opposite % len(values)]):
            apart = np.abs((values - near + t_r / 2) % t_r - t_r / 2)
            worst = max(worst, float(apart.max()))
    if worst > t_r / 4 + _CLOCK_SECONDS:
        warnings.warn(
            f"Presentations of a film begin up to {worst:.2f} s apart relative to the volumes (TR "
            f"{t_r:g} s): they are matched by the nearest volume, and averages blur.",
            stacklevel=4,
        )


def _positions(times, volumes, reference, t_r):
    """Volume index on the film's own grid, the same for all presentations."""
    # rounded once: half-way cases would otherwise fall to both sides within a presentation
    first = int(np.floor((times[0] - reference) / t_r + 0.5))
    return first + volumes - volumes[0]


def _merge(volumes, members, t_r):
    """Average the volumes of pieces that show the same.

    Returns
    -------
    samples : DataFrame
        From the first volume on a film that any piece has to the last, and what all have after it.
    places : list of arrays of int
        For each piece, the sample of each of its volumes, or -1.
    """
    columns = {name: volumes[name].to_numpy() for name in volumes}
    reference = _mean_offset([columns["time"][rows[0]] for rows in members], t_r)
    positions = [
        _positions(columns["time"][rows], columns["volume"][rows], reference, t_r)
        for rows in members
    ]
    low = min(int(p[0]) for p in positions)
    length = 1 + max(int(p[-1]) for p in positions) - low
    positions = [p - low for p in positions]
    screen = np.full(length, -1)
    for rows, p in zip(members, positions, strict=True):
        shown = columns["on_screen"][rows]
        here = (shown >= 0) & (screen[p] < 0)
        screen[p[here]] = shown[here]
    # a volume at rest does not join those of others that are on the film, nor the reverse
    joins = [
        columns["on_screen"][rows] == screen[p] for rows, p in zip(members, positions, strict=True)
    ]
    n_members = np.zeros(length, dtype=int)
    for p, ok in zip(positions, joins, strict=True):
        n_members[p[ok]] += 1
    last = int(np.flatnonzero(screen >= 0)[-1])
    after = np.flatnonzero(n_members[last + 1 :] < len(members))
    end = last + 1 + int(after[0]) if len(after) else length
    taken = (n_members > 0) & (np.arange(length) < end)
    sample = np.where(taken, np.cumsum(taken) - 1, -1)
    n_samples = int(taken.sum())
    table = {
        "on_screen": screen[taken],
        "time": np.zeros(n_samples),
        "film": np.full(n_samples, -1),
        "presentation": np.zeros(n_samples, dtype=int),
    }
    for rows, p, ok in zip(reversed(members), reversed(positions), reversed(joins), strict=True):
        used = ok & (sample[p] >= 0)
        rows, to = rows[used], sample[p[used]]
        table["time"][to] += columns["time"][rows]
        own = columns["presentation"][rows]
        table["presentation"][to] = np.cumsum(np.diff(own, prepend=own[0]) != 0)
        counts = columns["counts"][rows]
        table["film"][to[counts]] = columns["film"][rows[counts]]
    table["time"] /= n_members[taken]
    places = [np.where(ok, sample[p], -1) for p, ok in zip(positions, joins, strict=True)]
    return pd.DataFrame(table), places


def _volumes_of(data):
    """Loaded data as the volumes of further samples."""
    film = pd.Series(np.maximum(data.films, data.on_screen)).groupby(data.presentations)
    return pd.DataFrame(
        {
            "run": data.runs,
            "volume": np.arange(len(data.runs)),
            "presentation": data.presentations,
            "film": film.transform("max").to_numpy(),
            "on_screen": data.on_screen,
            "time": data.film_times,
            "counts": data.films >= 0,
            "kept": data.n_repeats > 0,
        }
    )


def average_repeats(data, *, context=True, copy=True, n_jobs=1):
    """Average presentations of a film, position by position.

    A sample is the mean of the presentations that have it (`n_repeats`). After a film's end as
    many volumes stay as every presentation has.

    Parameters
    ----------
    data : MovieData
        Loaded with ``repeats="concatenate"``.
    context : bool, default=True
        Average only presentations whose counted samples were preceded by the same films, so that
        delayed features are right for all of them. With False all presentations of a film: for
        responses and predictions that are compared afterwards.
    copy : bool, default=True
        False averages in the memory of `data`, which cannot be used any more. What is not needed
        of it is given back, unless views of it are still held.
    n_jobs : int, default=1
        Threads, up to four; -1 takes all cores. Trials take one.

    Returns
    -------
    data : MovieData
    """
    if data.design == "trials":
        return _average_trials(data)
    if context:
        _check_separate(data)
    samples, place = plan_samples(_volumes_of(data), data.t_r, average=True, context=context)
    shape = len(samples), data.bold.shape[1]
    bold = np.empty(shape, dtype=np.float32) if copy else data.bold[: len(samples)]
    used = place >= 0
    n_repeats = np.bincount(place[used], data.n_repeats[used], len(samples)).astype(int)
    presentations = [rows[used[rows]] for rows in map(np.flatnonzero, _masks(data.presentations))]

    def average(start):
        block = slice(start, start + _VOXELS_PER_BLOCK)
        sums = np.zeros((shape[0], bold[:, block].shape[1]), dtype=np.float32)
        for rows in presentations:
            # a position occurs once in a presentation: no sample is added to twice
            sums[place[rows]] += data.bold[rows, block] * data.n_repeats[rows, np.newaxis]
        bold[:, block] = sums / np.maximum(n_repeats, 1)[:, np.newaxis]

    with ThreadPoolExecutor(min(effective_n_jobs(n_jobs), _MOST_THREADS)) as threads:
        list(threads.map(average, range(0, shape[1], _VOXELS_PER_BLOCK)))
    if not copy and data.bold.flags.c_contiguous:
        del bold
        # the memory behind the averages goes back, unless somebody else still looks at it
        with suppress(ValueError):
            data.bold.resize(shape)
        bold = data.bold[: len(samples)]
    return replace(
        data,
        bold=bold,
        repeats="average",
        counts={**data.counts, "samples_without_bold": int((n_repeats == 0).sum())},
        **sample_arrays(samples, n_repeats),
    )


def _average_trials(data):
    """Average the trials of each clip, in the order of first showings."""
    films, first, sample = np.unique(data.films, return_index=True, return_inverse=True)
    order = np.argsort(first)
    sample, first = np.argsort(order)[sample.ravel()], first[order]
    summed = csr_array(
        (data.n_repeats.astype(np.float32), (sample, np.arange(len(sample)))),
        shape=(len(films), len(sample)),
    )
    n_repeats = np.bincount(sample, data.n_repeats, len(films)).astype(int)
    return replace(
        data[first],
        bold=(summed @ data.bold / n_repeats[:, np.newaxis]).astype(np.float32),
        presentations=np.arange(len(films)),
        n_repeats=n_repeats,
        repeats="average",
        scanner_runs=None,
    )


def _masks(labels):
    return (labels == label for label in np.unique(labels))


def sample_arrays(samples, n_repeats):
    """Give the labels of planned samples as `MovieData` holds them.

    Parameters
    ----------
    samples : DataFrame
        From `plan_samples`.
    n_repeats : array of int of shape (n_samples,)

    Returns
    -------
    arrays : dict
    """
    return {
        "runs": samples["run"].to_numpy(),
        "presentations": samples["presentation"].to_numpy(),
        "films": np.where(n_repeats > 0, samples["film"], -1),
        "on_screen": samples["on_screen"].to_numpy(),
        "film_times": samples["time"].to_numpy(),
        "n_repeats": n_repeats,
    }


def _check_separate(data):
    if data.repeats != "concatenate":
        raise ValueError("`data` must be loaded with repeats='concatenate'; they are averages.")
