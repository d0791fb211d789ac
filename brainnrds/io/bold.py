"""BOLD of runs that show films: read, cleaned and put into samples."""

import warnings
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds._processes import fit_processes, map_in_processes
from brainnrds.encoding._arrays import as_slice
from brainnrds.io._confounds import read_confounds
from brainnrds.io.bids import find_runs
from brainnrds.io.film_parts import groups_of_films
from brainnrds.io.images import make_masker, read_bold, read_mask
from brainnrds.io.samples import (
    MovieData,
    count_footage_once,
    cut_run,
    plan_samples,
    sample_arrays,
)

__all__ = [
    "common_mask",
    "fill_samples",
    "load_runs",
    "loading_processes",
    "plan_runs",
    "plan_shown",
]

_BLOCK_VOXELS = 4096
# what is left of a voxel that the confounds explain fully is rounding error
_RELATIVE_ROUNDING = 1e-5
# to start a process takes as long as to load this many bytes of images
_BYTES_A_PROCESS = 200 * 2**20
# what loading an image needs: compressed images are three times as large in memory
_MEMORY_OF_A_BYTE = 5


def load_runs(
    runs,
    *,
    confounds=("motion", "high_pass", "wm_csf"),
    confound_options=None,
    high_pass=None,
    repeats="average",
    tail=16.0,
    trim_onset=10.0,
    mask=None,
    n_jobs=1,
    verbose=0,
    **search,
):
    """Load the BOLD of one subject's runs, cleaned, z-scored per run and cut to the films.

    Per scanner run: non-steady-state volumes are cut, then trend and confounds are removed and
    voxels z-scored over the volumes that were kept. One run per process is in memory at a time,
    besides the result.

    Parameters
    ----------
    runs : list of Run, or path-like
        What `find_runs` gave; or the BIDS data set, in which they are searched for.
    confounds : tuple of str, default=("motion", "high_pass", "wm_csf")
        Strategies of `nilearn.interfaces.fmriprep.load_confounds`; empty: no confounds.
    confound_options : dict or None, default=None
        Its other arguments, e.g. ``{"motion": "basic", "fd_threshold": 0.3}``.
    high_pass : float or None, default=None
        Cut-off in Hz of cosine drift regressors made here; instead of the strategy "high_pass".
    repeats : {"average", "concatenate"}, default="average"
        Average the presentations of a film that were preceded by the same, or keep each. Where
        films follow each other without 9 s of rest or trimmed onset between them, in different
        orders, the response to each presentation is its own, and they stay apart
        (`MovieData.has_repeats`).
    tail : float, default=16.0
        So many s after a film's end count as samples of it, which show rest: the response goes on.
    trim_onset : float, default=10.0
        So many s after a film's onset do not count, because all of the cortex responds to a
        screen that comes on. They remain as context of the delays. Nothing is left out of films
        shorter than six times this.
    mask : path-like, "intersection" or None, default=None
        Brain mask for volumes; None: the runs' own, which must be equal; "intersection": the
        voxels in all of them.
    n_jobs : int, default=1
        Processes that read and clean runs, -1 for one a core; the result is the same. There are
        fewer where runs are few or small, as starting one takes seconds, or where memory is short.
    verbose : int, default=0
        1 shows a progress bar.
    **search
        Of a data set: arguments of `find_runs`, such as ``subject``, ``derivatives``, ``films``,
        ``film_groups`` or ``strict``.

    Returns
    -------
    data : MovieData

    Raises
    ------
    InputError
        As `find_runs`; several subjects; different masks; confounds that are missing or do not
        fit; data that cannot be read; a run with which a process was killed twice.
    """
    if isinstance(runs, (str, Path)):
        runs = find_runs(runs, n_jobs=n_jobs, **search)
    elif search:
        raise ValueError(f"{', '.join(search)} are for a data set; `runs` are found already.")
    plan = plan_runs(
        runs,
        confounds=confounds,
        confound_options=confound_options,
        high_pass=high_pass,
        repeats=repeats,
        tail=tail,
        trim_onset=trim_onset,
        mask=mask,
    )
    return fill_samples(plan, n_jobs=n_jobs, verbose=verbose)


def plan_runs(
    runs,
    *,
    confounds=("motion", "high_pass", "wm_csf"),
    confound_options=None,
    high_pass=None,
    repeats="average",
    tail=16.0,
    trim_onset=10.0,
    mask=None,
):
    """Say which samples `load_runs` makes of some runs, before any image is read.

    Parameters
    ----------
    runs : list of Run
    confounds, confound_options, high_pass, repeats, tail, trim_onset, mask
        As in `load_runs`.

    Returns
    -------
    plan : Bunch
        For `fill_samples`, with ``data``: MovieData without a voxel.

    Raises
    ------
    InputError
        As `load_runs`, but for images that cannot be read.
    """
    if repeats not in ("average", "concatenate"):
        raise ValueError(f"`repeats` must be 'average' or 'concatenate'; got {repeats!r}.")
    if high_pass is not None and "high_pass" in confounds:
        raise ValueError("`high_pass` and the strategy 'high_pass' exclude each other.")
    subjects = sorted({run.subject for run in runs})
    if len(subjects) != 1:
        raise InputError(f"`subject` must name one subject; there are {', '.join(subjects)}.")
    masker = make_masker(runs[0].bold, common_mask(runs, mask))
    nuisance = [read_confounds(run, confounds, confound_options or {}) for run in runs]
    plan = plan_shown(
        runs,
        [keep for _, keep, _ in nuisance],
        repeats=repeats,
        tail=tail,
        trim_onset=trim_onset,
    )
    data = replace(plan.data, masker=masker)
    return Bunch(runs=runs, nuisance=nuisance, used=plan.used, high_pass=high_pass, data=data)


def plan_shown(runs, kept=None, *, repeats="average", tail=16.0, trim_onset=10.0):
    """Say which samples some runs give by what they show, before any file of theirs is read.

    Parameters
    ----------
    runs : list of Run
        Of one subject.
    kept : list of arrays of bool of shape (n_volumes,), or None, default=None
        Volumes of each run that are used; None: all.
    repeats, tail, trim_onset
        As in `load_runs`.

    Returns
    -------
    plan : Bunch
        ``data``: MovieData without a voxel or masker. ``used``: DataFrame, the volumes that go into
        its samples.

    Raises
    ------
    InputError
        No volume that is used lies on a film.
    """
    kept = [np.ones(run.n_volumes, dtype=bool) for run in runs] if kept is None else kept
    names = _film_names(runs)
    parts = [
        cut_run(run, keep, names, tail, trim_onset).assign(run=i)
        for i, (run, keep) in enumerate(zip(runs, kept, strict=True))
    ]
    volumes = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if not len(volumes):
        raise InputError(f"No volume of sub-{runs[0].subject} that is used lies on any film.")
    count_footage_once(volumes, runs, names)
    t_r = runs[0].t_r
    samples, volumes["place"] = plan_samples(volumes, t_r, average=repeats == "average")
    used = volumes[volumes["kept"] & (volumes["place"] >= 0)]
    n_repeats = np.bincount(used["place"], minlength=len(samples))
    presentations = {p.film: p for run in runs for p in run.films}
    data = MovieData(
        bold=np.empty((len(samples), 0), dtype=np.float32),
        **sample_arrays(samples, n_repeats),
        film_names=names,
        stim_files=[presentations[name].stim_file for name in names],
        film_starts=[presentations[name].film_start for name in names],
        film_durations=[
            max(p.duration for run in runs for p in run.films if p.film == name) for name in names
        ],
        film_groups=groups_of_films(runs, names),
        t_r=t_r,
        masker=None,
        voxels=np.empty(0, dtype=bool),
        subject=runs[0].subject,
        space=runs[0].space,
        repeats=repeats,
        sources=[path.name for run in runs for path in run.bold],
    )
    return Bunch(data=data, used=used)


def _film_names(runs):
    """Films in the order in which they are first shown."""
    return list(dict.fromkeys(film.film for run in runs for film in run.films))


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


def fill_samples(plan, *, n_jobs=1, verbose=0):
    """Read planned runs and add their volumes, run after run, to their samples.

    Parameters
    ----------
    plan : Bunch
        Of `plan_runs`.
    n_jobs, verbose
        As in `load_runs`.

    Returns
    -------
    data : MovieData
    """
    from tqdm import tqdm

    runs, n_repeats = plan.runs, plan.data.n_repeats
    bold = usable = None
    counts = {}
    jobs = [
        (run, confounds, keep, plan.data.masker, plan.high_pass)
        for run, (confounds, keep, _) in zip(runs, plan.nuisance, strict=True)
    ]
    cleaned = map_in_processes(
        _clean, jobs, loading_processes(runs, n_jobs), name=lambda run, *_: f"Image {run.bold[0]}"
    )
    steps = tqdm(cleaned, total=len(runs), desc=f"sub-{runs[0].subject} BOLD", disable=not verbose)
    for i, (values, good, n_bad) in enumerate(steps):
        handled = plan.nuisance[i][2]
        for key, n in {**handled, **n_bad}.items():
            counts[key] = counts.get(key, 0) + n
        if bold is None:
            bold = np.zeros((len(n_repeats), values.shape[1]), dtype=np.float32)
            usable = np.ones(values.shape[1], dtype=bool)
        usable &= good
        for _, shown in plan.used[plan.used["run"] == i].groupby("presentation"):
            # a position occurs once in a presentation: no row is added to twice
            place = as_slice(shown["place"].to_numpy())
            bold[place] += values[as_slice(shown["volume"].to_numpy())]
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
    return replace(plan.data, bold=bold, voxels=usable, counts=counts)


def loading_processes(runs, n_jobs):
    """How many processes are worth starting for some runs, and fit into the free memory."""
    sizes = [sum(path.stat().st_size for path in run.bold) for run in runs]
    n_processes = min(joblib.effective_n_jobs(n_jobs), len(runs), sum(sizes) // _BYTES_A_PROCESS)
    if n_processes < 2:
        return 1
    needed = _MEMORY_OF_A_BYTE * max(sizes)
    return fit_processes(n_processes, needed, what=f"BOLD of sub-{runs[0].subject}")


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
    kept = values[as_slice(rows)]
    finite = np.isfinite(kept).all(axis=0)
    constant = finite & (np.ptp(kept, axis=0) == 0)
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
