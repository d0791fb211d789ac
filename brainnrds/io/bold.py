"""BOLD of runs that show films, as arrays cut to the films."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from brainnrds._checks import InputError
from brainnrds.films import film_groups
from brainnrds.io._confounds import read_confounds
from brainnrds.io.bids import find_runs
from brainnrds.io.images import make_masker, read_bold, read_mask

__all__ = [
    "MovieData",
    "average_repeats",
    "find_films",
    "groups_of_films",
    "join_samples",
    "load_runs",
    "repeats_of",
]

_BLOCK_VOXELS = 4096
# a volume this close to a film's onset or end counts as on it: clocks are noted to milliseconds
_CLOCK_SECONDS = 1e-3
# what is left of a voxel that the confounds explain fully is rounding error
_RELATIVE_ROUNDING = 1e-5


@dataclass(eq=False)
class MovieData:
    """BOLD of one subject, cut to films.

    Attributes
    ----------
    bold : array of float32 of shape (n_samples, n_voxels)
        Detrended, confounds removed, z-scored per scanner run.
    runs : array of int of shape (n_samples,)
        Label of the contiguous segment: one presentation of a film, or the average of them.
    presentations : array of int of shape (n_samples,)
        Label of the presentation of a film, or of the average of them.
    films : array of int of shape (n_samples,)
        Index into `film_names`; -1 for volumes after the film's end.
    film_times : array of float of shape (n_samples,)
        s from the film's onset to the volume's time.
    n_repeats : array of int of shape (n_samples,)
        Presentations behind the sample; 0 where all were scrubbed (`bold` is 0 there: leave
        these samples out of fits and scores).
    film_names : list of str
    stim_files : list of Path
    film_durations : list of float
        In s, as events.tsv says (the longest presentation).
    film_groups : array of int of shape (n_films,)
        Films that no split may separate, because they were shown in the same scanner run, have
        the same label. If that holds for all films, each is a group of its own.
    t_r : float
        In s.
    masker : fitted masker
        ``inverse_transform`` gives images.
    voxels : array of bool of shape (n_voxels,)
        False where a voxel was constant or not finite in any run; `bold` is 0 there.
    subject, space : str or None
    repeats : {"average", "concatenate"}
    sources : list of str
        Names of the BOLD files.
    counts : dict
        What was handled, for sidecars.
    """

    bold: np.ndarray
    runs: np.ndarray
    presentations: np.ndarray
    films: np.ndarray
    film_times: np.ndarray
    n_repeats: np.ndarray
    film_names: list
    stim_files: list
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

    @property
    def groups(self):
        """Film group of each sample, -1 where no film is shown: the unit of every split."""
        return np.where(self.films >= 0, self.film_groups[self.films], -1)

    @property
    def labels(self):
        """Keywords for `fit`, `score` and `held_out_predictions`: `runs`, and `films` by group."""
        return {"runs": self.runs, "films": self.groups}

    def shows(self, *film_names):
        """Find the samples of some films.

        Parameters
        ----------
        *film_names : str
            With or without extension.

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
        per_sample = {
            name: getattr(self, name)[index]
            for name in ("bold", "presentations", "films", "film_times", "n_repeats")
        }
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


@dataclass
class _Segment:
    """The volumes of one presentation: what is known before any BOLD is read."""

    film: int
    volumes: np.ndarray  # int (n,): into the scanner run
    times: np.ndarray  # float (n,): s from the film's onset
    on_film: np.ndarray  # bool (n,): False in the tail
    kept: np.ndarray  # bool (n,): False where scrubbed


def load_runs(
    runs,
    *,
    derivatives=None,
    subject=None,
    session=None,
    task=None,
    run=None,
    space=None,
    bids_filter=None,
    database_path=None,
    confounds=("motion", "high_pass", "wm_csf"),
    confound_options=None,
    high_pass=None,
    repeats="average",
    tail=16.0,
    mask=None,
    verbose=0,
):
    """Load the BOLD of one subject's runs, cleaned, z-scored per run and cut to the films.

    Per scanner run: non-steady-state volumes are cut, then trend and confounds are removed and
    voxels z-scored over the volumes that were kept. One run is in memory at a time, besides the
    result.

    Parameters
    ----------
    runs : list of Run, or path-like
        What `find_runs` gave; or the BIDS data set, searched with the next eight arguments.
    derivatives, subject, session, task, run, space, bids_filter, database_path
        As in `find_runs`.
    confounds : tuple of str, default=("motion", "high_pass", "wm_csf")
        Strategies of `nilearn.interfaces.fmriprep.load_confounds`; empty: no confounds.
    confound_options : dict or None, default=None
        Its other arguments, e.g. ``{"motion": "basic", "fd_threshold": 0.3}``.
    high_pass : float or None, default=None
        Cut-off in Hz of cosine drift regressors made here; instead of the strategy "high_pass".
    repeats : {"average", "concatenate"}, default="average"
        Average the presentations of a film, or keep each as a segment of its own.
    tail : float, default=16.0
        Keep at most this many s after a film's end, while no other film is shown.
    mask : path-like, "intersection" or None, default=None
        Brain mask for volumes; None: the runs' own, which must be equal; "intersection": the
        voxels in all of them.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    data : MovieData

    Raises
    ------
    InputError
        As `find_runs`; several subjects; different masks; confounds that are missing or do not
        fit; data that cannot be read.
    """
    if repeats not in ("average", "concatenate"):
        raise ValueError(f"`repeats` must be 'average' or 'concatenate'; got {repeats!r}.")
    if high_pass is not None and "high_pass" in confounds:
        raise ValueError("`high_pass` and the strategy 'high_pass' exclude each other.")
    if isinstance(runs, (str, Path)):
        runs = find_runs(
            runs,
            derivatives=derivatives,
            subject=subject,
            session=session,
            task=task,
            run=run,
            space=space,
            bids_filter=bids_filter,
            database_path=database_path,
        )
    subjects = sorted({run.subject for run in runs})
    if len(subjects) != 1:
        raise InputError(f"`subject` must name one subject; there are {', '.join(subjects)}.")
    masker = make_masker(runs[0].bold, common_mask(runs, mask))
    nuisance = [read_confounds(run, confounds, confound_options or {}) for run in runs]
    names = _film_names(runs)
    segments = [
        _cut(run, keep, names, tail) for run, (_, keep, _) in zip(runs, nuisance, strict=True)
    ]
    if not any(segments):
        raise InputError(f"No volume of sub-{subjects[0]} that is used lies on any film.")
    references = _reference_offsets([s for per_run in segments for s in per_run], runs[0].t_r)
    rows = _average_rows if repeats == "average" else _separate_rows
    table, places = rows(segments, references, runs[0].t_r)
    bold, n_repeats, voxels, counts = _fill(
        runs, nuisance, segments, places, len(table), masker, high_pass, verbose
    )
    presentations = {p.film: p for run in runs for p in run.films}
    return MovieData(
        bold=bold,
        runs=table["run"].to_numpy(),
        presentations=table["run"].to_numpy(),
        films=table["film"].to_numpy(),
        film_times=table["time"].to_numpy(),
        n_repeats=n_repeats,
        film_names=names,
        stim_files=[presentations[name].stim_file for name in names],
        film_durations=[
            max(p.duration for run in runs for p in run.films if p.film == name) for name in names
        ],
        film_groups=groups_of_films(runs, names),
        t_r=runs[0].t_r,
        masker=masker,
        voxels=voxels,
        subject=runs[0].subject,
        space=runs[0].space,
        repeats=repeats,
        sources=[path.name for run in runs for path in run.bold],
        counts=counts,
    )


def _film_names(runs):
    """Films in the order in which they are first shown."""
    return list(dict.fromkeys(film.film for run in runs for film in run.films))


def find_films(names, film_names):
    """Find films by name, with or without extension.

    Parameters
    ----------
    names, film_names : sequence of str

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
        matches = [i for i, f in enumerate(film_names) if name in (f, f.rsplit(".", 1)[0])]
        if not matches:
            raise InputError(
                f"Films must be named as in the data ({', '.join(film_names)}); got {name!r}."
            )
        found.update(matches)
    return sorted(found)


def groups_of_films(runs, film_names):
    """Give the film group of each film: films of one scanner run belong together.

    If everything hangs together, each film is a group, and gaps at their borders keep them apart.

    Parameters
    ----------
    runs : list of Run
    film_names : list of str

    Returns
    -------
    groups : array of int of shape (n_films,)
    """
    index = {name: i for i, name in enumerate(film_names)}
    pairs = np.array([(i, index[p.film]) for i, run in enumerate(runs) for p in run.films])
    groups = np.arange(len(film_names))
    groups[pairs[:, 1]] = film_groups(pairs[:, 0], pairs[:, 1])
    return groups if len(np.unique(groups)) > 1 else np.arange(len(film_names))


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
    for name in ("bold", "films", "film_times", "n_repeats"):
        labels[name] = np.concatenate([getattr(part, name) for part in parts])
    return replace(parts[-1], **labels)


def common_mask(runs, mask=None):
    """The brain mask of all runs.

    Parameters
    ----------
    runs : list of Run
    mask : path-like, "intersection" or None, default=None
        As in `load_runs`.

    Returns
    -------
    mask : Nifti1Image or None
        None where the space needs none.

    Raises
    ------
    InputError
        A mask is missing, damaged or on another grid; the runs' masks differ; they are empty.
    """
    if runs[0].grid[0] != "volume":
        if mask is not None:
            raise InputError(f"`mask` is for volumes; the data are {runs[0].grid[0]}.")
        return None
    if mask is not None and mask != "intersection":
        return read_mask(mask, runs[0].grid)
    common = None
    for run in runs:
        if run.mask is None:
            raise InputError(f"No brain mask for {run.bold[0].name}; give one with `mask`.")
        image = read_mask(run.mask, run.grid)
        inside = np.asarray(image.dataobj) > 0
        if common is None:
            common, first = inside, run
        elif mask == "intersection":
            common &= inside
        elif not np.array_equal(common, inside):
            raise InputError(
                f"Runs must share a mask: {run.mask.name} and {first.mask.name} differ in "
                f"{int((common != inside).sum())} voxels; give one with `mask`, or "
                "'intersection'."
            )
    if not common.any():
        raise InputError("Masks of the runs must overlap; their intersection is empty.")
    return type(image)(common.astype(np.uint8), image.affine)


def _cut(run, keep, names, tail):
    """Find the volumes of each presentation in a run."""
    # the kept volumes begin where the non-steady-state ones end
    first = int(np.argmax(keep))
    times = run.start_time + run.t_r * np.arange(run.n_volumes)
    segments = []
    for i, film in enumerate(run.films):
        end = film.onset + film.duration
        following = run.films[i + 1].onset if i + 1 < len(run.films) else np.inf
        on_film = (times > film.onset - _CLOCK_SECONDS) & (times < end - _CLOCK_SECONDS)
        after = (times >= end - _CLOCK_SECONDS) & (times < min(following, end + tail))
        volumes = np.flatnonzero(on_film | after)
        volumes = volumes[volumes >= first]
        if not on_film[volumes].any():
            continue
        segments.append(
            _Segment(
                film=names.index(film.film),
                volumes=volumes,
                times=np.maximum(times[volumes] - film.onset, 0.0),
                on_film=on_film[volumes],
                kept=keep[volumes],
            )
        )
    return segments


def _reference_offsets(segments, t_r):
    """Where the volumes of a film lie between multiples of the TR: the mean over presentations.

    Warns once where presentations of a film differ by more than a quarter of a TR. Offsets live
    on a circle: 0.1 s and t_r - 0.1 s are 0.2 s apart.
    """
    offsets = {}
    for segment in segments:
        offsets.setdefault(segment.film, []).append(segment.times[0] % t_r)
    references = {}
    worst = 0.0
    for film, values in offsets.items():
        values = np.sort(values)
        mean = np.exp(2j * np.pi * values / t_r).mean()
        references[film] = np.angle(mean) * t_r / (2 * np.pi)
        # farthest from a value is what lies next to its opposite: no table of all pairs
        opposite = np.searchsorted(values, (values + t_r / 2) % t_r)
        for near in (values[opposite - 1], values[opposite % len(values)]):
            apart = np.abs((values - near + t_r / 2) % t_r - t_r / 2)
            worst = max(worst, float(apart.max()))
    if worst > t_r / 4 + _CLOCK_SECONDS:
        warnings.warn(
            f"Presentations of a film begin up to {worst:.2f} s apart relative to the volumes (TR "
            f"{t_r:g} s): they are matched by the nearest volume, and averages blur.",
            stacklevel=3,
        )
    return references


def _positions(times, reference, t_r):
    """Volume index on the film's own grid, the same for all presentations."""
    # rounded once: half-way cases would otherwise fall to both sides within a presentation
    first = int(np.floor((times[0] - reference) / t_r + 0.5))
    return first + np.round((times - times[0]) / t_r).astype(int)


def _separate_rows(segments, references, t_r):
    """One segment per presentation; returns the table of samples and the place of each volume."""
    parts, places, start = [], [], 0
    for per_run in segments:
        places.append([])
        for segment in per_run:
            n = len(segment.volumes)
            film = np.where(segment.on_film, segment.film, -1)
            parts.append(pd.DataFrame({"film": film, "time": segment.times, "run": len(parts)}))
            places[-1].append(np.arange(start, start + n))
            start += n
    return pd.concat(parts, ignore_index=True), places


def _average_rows(segments, references, t_r):
    """One segment per film; the place of a volume that is not averaged is -1."""
    flat = [segment for per_run in segments for segment in per_run]
    by_film = {}
    for i, segment in enumerate(flat):
        by_film.setdefault(segment.film, []).append(i)
    parts, places, start = [], {}, 0
    for label, (film, members) in enumerate(sorted(by_film.items())):
        positions = [_positions(flat[i].times, references[film], t_r) for i in members]
        shown = [p[flat[i].on_film] for p, i in zip(positions, members, strict=True)]
        shown = np.unique(np.concatenate(shown))
        after = [p[~flat[i].on_film] for p, i in zip(positions, members, strict=True)]
        # the tail is what every presentation has, as far as it is contiguous
        common = set(after[0].tolist()).intersection(*(p.tolist() for p in after[1:]))
        last = shown.max()
        rest = []
        while last + 1 + len(rest) in common:
            rest.append(last + 1 + len(rest))
        order = np.concatenate([shown, np.array(rest, dtype=int)])
        row_of = {(position, k >= len(shown)): k for k, position in enumerate(order.tolist())}
        times, weights = np.zeros(len(order)), np.zeros(len(order))
        for i, position in zip(members, positions, strict=True):
            tails = (~flat[i].on_film).tolist()
            rows = np.array([row_of.get(k, -1) for k in zip(position.tolist(), tails, strict=True)])
            used = rows >= 0
            np.add.at(times, rows[used], flat[i].times[used])
            np.add.at(weights, rows[used], 1)
            places[i] = np.where(used, rows + start, -1)
        films = np.where(np.arange(len(order)) < len(shown), film, -1)
        parts.append(pd.DataFrame({"film": films, "time": times / weights, "run": label}))
        start += len(order)
    ordered, i = [], 0
    for per_run in segments:
        ordered.append([places[i + k] for k in range(len(per_run))])
        i += len(per_run)
    return pd.concat(parts, ignore_index=True), ordered


def _fill(runs, nuisance, segments, places, n_samples, masker, high_pass, verbose):
    """Read run after run and add its volumes to their samples."""
    from tqdm import tqdm

    bold = n_repeats = usable = None
    counts = {}
    steps = zip(runs, nuisance, segments, places, strict=True)
    for run, (confounds, keep, handled), in_run, to in tqdm(
        steps, total=len(runs), desc=f"sub-{runs[0].subject} BOLD", disable=not verbose
    ):
        values, good, n_bad = _clean(run, confounds, keep, masker, high_pass)
        for key, n in {**handled, **n_bad}.items():
            counts[key] = counts.get(key, 0) + n
        if bold is None:
            bold = np.zeros((n_samples, values.shape[1]), dtype=np.float32)
            n_repeats = np.zeros(n_samples, dtype=int)
            usable = np.ones(values.shape[1], dtype=bool)
        usable &= good
        for segment, rows in zip(in_run, to, strict=True):
            used = segment.kept & (rows >= 0)
            # a position occurs once in a presentation: no row is added to twice
            bold[rows[used]] += values[segment.volumes[used]]
            n_repeats[rows[used]] += 1
        del values
    bold /= np.maximum(n_repeats, 1)[:, np.newaxis]
    bold[:, ~usable] = 0
    counts["n_runs"] = len(runs)
    counts["n_voxels"] = len(usable)
    counts["masked_voxels"] = int((~usable).sum())
    counts["samples_without_bold"] = int((n_repeats == 0).sum())
    uneven = {film.film for run in runs for film in run.films if film.variable_rate}
    counts["variable_rate_films"] = len(uneven)
    _warn_handled(runs[0].subject, counts)
    if not usable.any():
        raise InputError(f"No voxel of sub-{runs[0].subject} varies and is finite in every run.")
    return bold, n_repeats, usable, counts


def _warn_handled(subject, counts):
    words = {
        "masked_voxels": "constant or non-finite voxels masked",
        "non_steady_state_volumes": "non-steady-state volumes cut",
        "scrubbed_volumes": "volumes scrubbed",
        "leading_nan_confounds": "confounds with leading NaN filled",
        "variable_rate_films": "films of variable frame rate, sampled by their timestamps",
    }
    said = [f"{counts[key]} {text}" for key, text in words.items() if counts.get(key)]
    if said:
        warnings.warn(f"sub-{subject}: {', '.join(said)}.", stacklevel=4)


def _clean(run, confounds, keep, masker, high_pass):
    """Return z-scored BOLD (0 where not kept), bool of usable voxels, and what was found."""
    from nilearn import signal

    values = read_bold(run.bold, masker)
    if len(values) != run.n_volumes:
        raise InputError(f"{run.bold[0]} must have {run.n_volumes} volumes; got {len(values)}.")
    first = int(np.argmax(keep))
    rows = np.flatnonzero(keep)
    finite = np.isfinite(values[rows]).all(axis=0)
    constant = finite & (np.ptp(values[rows], axis=0) == 0)
    good = finite & ~constant
    columns = np.flatnonzero(good)
    # the trend runs over time: nilearn's own detrending would close the gaps of scrubbed volumes
    nuisance = np.arange(run.n_volumes - first, dtype=float)[:, np.newaxis]
    if confounds is not None:
        nuisance = np.hstack([nuisance, np.nan_to_num(confounds[first:])])
    for start in range(0, len(columns), _BLOCK_VOXELS):
        block = columns[start : start + _BLOCK_VOXELS]
        raw = values[first:, block].astype(float)
        raw[~keep[first:]] = 0  # may be NaN; not used
        spread = raw[rows - first].std(axis=0)
        clean = signal.clean(
            raw,
            detrend=False,
            standardize=None,
            sample_mask=rows - first,
            confounds=nuisance,
            filter="cosine" if high_pass is not None else False,
            high_pass=high_pass,
            t_r=run.t_r,
        )
        clean -= clean.mean(axis=0)
        left = clean.std(axis=0)
        empty = left <= _RELATIVE_ROUNDING * spread
        good[block[empty]] = False
        clean /= np.where(empty, 1, left)
        values[np.ix_(rows, block)] = clean
    values[~keep] = 0
    values[:, ~good] = 0
    found = {"constant_voxels": int(constant.sum()), "non_finite_voxels": int((~finite).sum())}
    return values, good, found


def _presentations(data):
    """Return [_Segment] of loaded data, with rows of `data` as volumes."""
    segments = []
    for label in np.unique(data.runs):
        rows = np.flatnonzero(data.runs == label)
        on_film = data.films[rows] >= 0
        film = int(data.films[rows][on_film][0])
        times, kept = data.film_times[rows], data.n_repeats[rows] > 0
        segments.append(_Segment(film, rows, times, on_film, kept))
    return segments


def average_repeats(data):
    """Average the presentations of each film, position by position.

    A sample is the mean of the presentations that have it (`n_repeats`). After a film's end as
    many volumes stay as every presentation has.

    Parameters
    ----------
    data : MovieData
        Loaded with ``repeats="concatenate"``.

    Returns
    -------
    data : MovieData
        A new one; the argument is not changed.
    """
    _check_separate(data)
    segments = _presentations(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once when the data were loaded
        references = _reference_offsets(segments, data.t_r)
    table, [places] = _average_rows([segments], references, data.t_r)
    bold = np.zeros((len(table), data.bold.shape[1]), dtype=np.float32)
    n_repeats = np.zeros(len(table), dtype=int)
    for segment, rows in zip(segments, places, strict=True):
        used = segment.kept & (rows >= 0)
        bold[rows[used]] += data.bold[segment.volumes[used]]
        n_repeats[rows[used]] += 1
    bold /= np.maximum(n_repeats, 1)[:, np.newaxis]
    return replace(
        data,
        bold=bold,
        runs=table["run"].to_numpy(),
        presentations=table["run"].to_numpy(),
        films=table["film"].to_numpy(),
        film_times=table["time"].to_numpy(),
        n_repeats=n_repeats,
        repeats="average",
        counts={**data.counts, "samples_without_bold": int((n_repeats == 0).sum())},
    )


def repeats_of(data, film):
    """Give the single presentations of a film, for its noise ceiling.

    Parameters
    ----------
    data : MovieData
        Loaded with ``repeats="concatenate"``.
    film : str or int
        Name, or index into `film_names`.

    Returns
    -------
    repeats : array of float32 of shape (n_repeats, n_volumes, n_voxels)
        The volumes on the film that every presentation has.
    """
    _check_separate(data)
    if isinstance(film, str):
        if film not in data.film_names:
            raise ValueError(f"`film` must be one of {data.film_names}; got {film!r}.")
        film = data.film_names.index(film)
    segments = [segment for segment in _presentations(data) if segment.film == film]
    if not segments:
        raise ValueError(f"`film` must be shown in the data; got {film}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once when the data were loaded
        reference = _reference_offsets(segments, data.t_r)[film]
    rows = []
    for segment in segments:
        used = segment.on_film & segment.kept
        positions = _positions(segment.times[used], reference, data.t_r)
        rows.append(dict(zip(positions.tolist(), segment.volumes[used], strict=True)))
    common = sorted(set(rows[0]).intersection(*rows[1:]))
    return np.stack([data.bold[[of[position] for position in common]] for of in rows])


def _check_separate(data):
    if data.repeats != "concatenate":
        raise ValueError("`data` must be loaded with repeats='concatenate'; they are averages.")
