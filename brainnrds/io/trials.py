"""Trials: short clips, and one response to each by a general linear model of its run.

Where clips last a few seconds, BOLD of neighbouring clips overlaps and a volume belongs to several
of them. A sample is then a trial: the amplitude of the response to one presentation of one clip,
estimated with nilearn's design of the run. Samples need no delays.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import orth
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds._processes import map_in_processes
from brainnrds.films import trial_units
from brainnrds.io._confounds import read_confounds
from brainnrds.io._presentations import VIDEO_EXTENSIONS
from brainnrds.io._texts import read_table
from brainnrds.io.bold import common_mask, loading_processes
from brainnrds.io.images import make_masker, read_bold
from brainnrds.io.samples import MovieData, average_repeats

__all__ = ["clip_seconds", "load_trials", "plan_trials", "single_trial_betas", "trials_of"]

# s after its onset at which a response has ended
_RESPONSE_SECONDS = 32.0
# a trial of whose response less than this share was scanned, or is its own, has no beta
_LEAST_RESPONSE = 0.5
_LEAST_OWN = 1e-3
# events of these types are what the model's constant stands for
_REST = frozenset("rest fixation fix baseline blank iti isi null none n/a".split())
_BLOCK_VOXELS = 4096
_RELATIVE_ROUNDING = 1e-5


def clip_seconds(runs):
    """Say how long the shortest clip is shown: what features and motion of a trial are of.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    seconds : float
        To hundredths: events differ by milliseconds, and features are found by it.
    """
    shortest = min(film.duration for run in runs for film in run.films)
    return float(np.floor(100 * shortest + 1e-6) / 100)


def single_trial_betas(bold, trials, nuisance, *, model="lss"):
    """Estimate the response to each trial by least squares.

    Parameters
    ----------
    bold : array of shape (n_volumes, n_voxels)
        One run.
    trials : array of shape (n_volumes, n_trials)
        Regressor of each trial.
    nuisance : array of shape (n_volumes, n_nuisance)
        All else that is in every model: drift, confounds, other events, the constant.
    model : {"lss", "lsa"}, default="lss"
        "lss": a model for each trial, in which all other trials are one regressor (least squares -
        separate) [1]_. "lsa": one model with all trials (least squares - all).

    Returns
    -------
    betas : array of float32 of shape (n_trials, n_voxels)

    Raises
    ------
    InputError
        Volumes are too few for the model, or a trial is what the others and the nuisance are.

    Notes
    -----
    The same as nilearn's ordinary least squares with each of the designs; what all designs share is
    taken out of trials and BOLD once, which leaves two regressors for each trial (Frisch, Waugh and
    Lovell). Where responses overlap, betas of all trials at once are as noisy as the overlap is
    large; separate ones trade this for betas of neighbours that resemble each other [2]_.

    References
    ----------
    .. [1] Mumford JA, Turner BO, Ashby FG, Poldrack RA (2012). Deconvolving BOLD activation in
       event-related designs for multivoxel pattern classification analyses. NeuroImage 59,
       2636-2643.
    .. [2] Mumford JA, Davis T, Poldrack RA (2014). The impact of study design on pattern estimation
       for single-trial multivariate pattern analysis. NeuroImage 103, 130-138.
    """
    if model not in ("lss", "lsa"):
        raise InputError(f"`model` must be 'lss' or 'lsa'; got {model!r}.")
    basis = _basis(nuisance)
    n_left = len(bold) - basis.shape[1] - (trials.shape[1] if model == "lsa" else 2)
    if n_left < 1:
        hint = "; 'lss' fits them one by one" if model == "lsa" else ""
        raise InputError(
            f"`bold` must have more volumes than the {model} model of {trials.shape[1]} trials has "
            f"regressors; got {len(bold)}{hint}."
        )
    trials = trials - basis @ (basis.T @ trials)
    bold = bold - basis @ (basis.T @ bold)
    gram, products = trials.T @ trials, trials.T @ bold
    if model == "lsa":
        if np.linalg.matrix_rank(gram) < len(gram):
            raise InputError("trials must differ from each other; got some that do not.")
        return np.linalg.solve(gram, products).astype(np.float32)
    own = np.diag(gram)
    with_others = gram.sum(0) - own
    of_others = gram.sum() - 2 * gram.sum(0) + own
    determinant = own * of_others - with_others**2
    if len(gram) == 1:
        return (products / own[:, None]).astype(np.float32)
    if (determinant <= 1e-9 * own * of_others).any():
        raise InputError("trials must differ from each other; got one that is all others.")
    others = products.sum(0) - products
    betas = of_others[:, None] * products - with_others[:, None] * others
    return (betas / determinant[:, None]).astype(np.float32)


def _basis(nuisance):
    """Orthonormal columns that span the nuisance."""
    size = np.sqrt(np.sum(np.square(nuisance), axis=0))
    return orth(nuisance[:, size > 0] / size[size > 0])


@dataclass(frozen=True)
class _Design:
    """Regressors of a run over all of its volumes."""

    trials: np.ndarray
    nuisance: np.ndarray
    used: np.ndarray  # of each film of the run, whether it has a beta


def _make_design(run, confounds, keep, high_pass, hrf_model):
    from nilearn.glm.first_level import make_first_level_design_matrix

    shown = [[(film.onset, film.duration)] for film in run.films]
    times = run.start_time + run.t_r * np.arange(run.n_volumes)
    trials = _regressors(shown, times, hrf_model)
    others = _regressors(_other_events(run), times, hrf_model)
    # until every response has ended: how much of it was scanned
    end = max(run.n_volumes * run.t_r, run.films[-1].onset + run.films[-1].duration)
    n_volumes = int(np.ceil((end + _RESPONSE_SECONDS) / run.t_r))
    whole = _regressors(shown, run.start_time + run.t_r * np.arange(n_volumes), hrf_model)
    drift = make_first_level_design_matrix(
        times,
        drift_model="polynomial" if high_pass is None else "cosine",
        drift_order=1,
        high_pass=high_pass,
    ).to_numpy()
    trend = np.linspace(-1, 1, run.n_volumes)[:, None]  # as for continuous designs
    nuisance = np.hstack([others, drift, trend])
    if confounds is not None:
        nuisance = np.hstack([nuisance, np.nan_to_num(confounds)])
    seen = np.sum(trials[keep] ** 2, axis=0)
    basis = _basis(nuisance[keep])
    own = trials[keep] - basis @ (basis.T @ trials[keep])
    used = (seen > _LEAST_RESPONSE * np.sum(whole**2, axis=0)) & (
        np.sum(own**2, axis=0) > _LEAST_OWN * seen
    )
    # what has no beta of its own is still in the data
    left = trials[:, ~used].sum(axis=1, keepdims=True)
    return _Design(trials[:, used], np.hstack([nuisance, left]), used)


def _regressors(events, times, hrf_model):
    """Expected response to each list of (onset, duration): (n_times, n_lists)."""
    from nilearn.glm.first_level import compute_regressor

    columns = np.empty((len(times), len(events)))
    for column, rows in zip(columns.T, events, strict=True):
        onsets, durations = np.transpose(rows)
        condition = onsets, durations, np.ones(len(onsets))
        column[:] = compute_regressor(condition, hrf_model, times)[0][:, 0]
    return columns


def _other_events(run):
    """Events without a film, such as oddballs: (onset, duration) of each type; rest is none."""
    if run.events is None:
        return []
    table = read_table(run.events, "Events file", na_values="n/a", dtype={"trial_type": str})
    if "onset" not in table or "duration" not in table:
        return []
    rows = {}
    for row in table.to_dict("records"):
        onset, duration, kind = row["onset"], row["duration"], str(row.get("trial_type", "other"))
        name = str(row.get("stim_file", ""))
        is_film = any(name.lower().endswith(end) for end in VIDEO_EXTENSIONS)
        shown = any(f.onset - 0.5 < onset < f.onset + f.duration for f in run.films)
        numbers = isinstance(onset, (int, float)) and isinstance(duration, (int, float))
        if is_film or shown or kind.lower() in _REST or not numbers:
            continue
        if np.isfinite(onset) and np.isfinite(duration) and duration >= 0:
            rows.setdefault(kind, []).append((float(onset), float(duration)))
    return list(rows.values())


def load_trials(
    runs,
    *,
    confounds=("motion", "high_pass", "wm_csf"),
    confound_options=None,
    high_pass=None,
    model="lss",
    hrf_model="glover",
    repeats="average",
    mask=None,
    n_jobs=1,
    verbose=0,
):
    """Load one response for each trial of one subject's runs, z-scored per run.

    Per scanner run one general linear model of the volumes that are kept: the trials, other events
    (by `trial_type`; rest and fixation are what the constant stands for), a trend, and the
    confounds. Trials of which less than half of the response was scanned are left out and counted.

    Parameters
    ----------
    runs : list of Run
        What :func:`brainnrds.io.find_runs` gave.
    confounds, confound_options, high_pass, mask, n_jobs, verbose
        As in :func:`brainnrds.io.load_runs`.
    model : {"lss", "lsa"}, default="lss"
        As in :func:`single_trial_betas`. Clips that follow each other every few seconds overlap in
        BOLD: there betas of all trials at once are mostly noise. Where clips are 10 s apart and
        more, both agree.
    hrf_model : {"glover", "spm"}, default="glover"
        Haemodynamic response, as nilearn names it.
    repeats : {"average", "concatenate"}, default="average"
        Average the trials of a clip, or keep each.

    Returns
    -------
    data : MovieData
        With ``design="trials"``: a sample is a trial, or the average of a clip's; ``clip_duration``
        is that of the shortest clip and ``spacing`` the median time from trial to trial, in s. A
        trial stands at the beginning of its clip (`film_times`). What no split may separate
        (`film_groups`) is what :func:`brainnrds.films.trial_units` finds: runs, stretches of runs,
        or clips; `runs` are these units, or 0 throughout where they are clips.

    Raises
    ------
    InputError
        As `load_runs`; volumes that are too few for the model; no trial of which enough was
        scanned.
    """
    if repeats not in ("average", "concatenate"):
        raise ValueError(f"`repeats` must be 'average' or 'concatenate'; got {repeats!r}.")
    if high_pass is not None and "high_pass" in confounds:
        raise ValueError("`high_pass` and the strategy 'high_pass' exclude each other.")
    if hrf_model not in ("glover", "spm"):
        raise InputError(f"`hrf_model` must be 'glover' or 'spm'; got {hrf_model!r}.")
    subjects = sorted({run.subject for run in runs})
    if len(subjects) != 1:
        raise InputError(f"`runs` must be of one subject; there are {', '.join(subjects)}.")
    masker = make_masker(runs[0].bold, common_mask(runs, mask))
    nuisance = [read_confounds(run, confounds, confound_options or {}) for run in runs]
    designs = [
        _make_design(run, regressors, keep, high_pass, hrf_model)
        for run, (regressors, keep, _) in zip(runs, nuisance, strict=True)
    ]
    # the betas of a run are z-scored: one alone is nothing
    usable = [i for i, design in enumerate(designs) if design.used.sum() > 1]
    if not usable:
        raise InputError(
            f"No trial of sub-{subjects[0]} can be estimated: of none was enough of the response "
            "scanned that confounds do not explain."
        )
    jobs = [(runs[i], designs[i], nuisance[i][1], masker, model) for i in usable]
    betas, voxels, counts = _estimate_all(jobs, n_jobs, verbose)
    for _, _, handled in nuisance:
        for key, n in handled.items():
            counts[key] = counts.get(key, 0) + n
    n_shown = sum(len(run.films) for run in runs)
    counts |= {"n_runs": len(runs), "trials": len(betas), "trials_left_out": n_shown - len(betas)}
    if not voxels.any():
        raise InputError(f"No voxel of sub-{subjects[0]} varies and is finite in every run.")
    shown = [(i, film) for i in usable for film in np.array(runs[i].films, object)[designs[i].used]]
    data = _samples(runs, shown, betas, masker, voxels, counts)
    if model == "lsa" and plan_trials(shown).kind == "stretches":
        warnings.warn(
            "Clips come in one order, and betas of neighbours by lsa depend on each other beyond "
            "what a split leaves out: of noise, p < .05 comes up in up to 8 % (lss: 3 to 5 %).",
            stacklevel=2,
        )
    _warn_handled(subjects[0], data.counts)
    return average_repeats(data, copy=False) if repeats == "average" else data


def _samples(runs, shown, betas, masker, voxels, counts):
    """Put trials, (run, presentation) each, and their betas together."""
    plan = plan_trials(shown)
    counts = counts | {"trials_at_borders": int((~plan.kept).sum())}
    shown = [trial for trial, keep in zip(shown, plan.kept, strict=True) if keep]
    # where stretches are apart, clips may be gone with their trials
    scanner_runs, names, films, parts = _labels(shown)
    units = np.array([plan.units[plan.names.index(name)] for name in names])
    durations = [max(film.duration for _, film in shown if film.film == name) for name in names]
    n_trials = len(shown)
    return MovieData(
        bold=betas if plan.kept.all() else betas[plan.kept],
        runs=np.zeros(n_trials, dtype=int) if plan.kind == "clips" else units[films],
        presentations=np.arange(n_trials),
        films=films,
        on_screen=films.copy(),
        film_times=np.array([film.film_start for _, film in shown]),
        n_repeats=np.ones(n_trials, dtype=int),
        film_names=names,
        stim_files=[parts[name].stim_file for name in names],
        film_starts=[parts[name].film_start for name in names],
        film_durations=durations,
        film_groups=units,
        t_r=runs[0].t_r,
        masker=masker,
        voxels=voxels,
        subject=runs[0].subject,
        space=runs[0].space,
        repeats="concatenate",
        sources=[path.name for run in runs for path in run.bold],
        counts=counts,
        design="trials",
        clip_duration=clip_seconds(runs),
        spacing=plan.spacing,
        scanner_runs=scanner_runs,
    )


def trials_of(runs):
    """All trials in order, as (number of the run, presentation), before BOLD says which are kept.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    shown : list of (int, Presentation)
    """
    return [(index, film) for index, run in enumerate(runs) for film in run.films]


def plan_trials(shown):
    """Say what a split may not separate, before BOLD is read.

    Parameters
    ----------
    shown : list of (int, Presentation)
        Trials in order, each with the number of its scanner run.

    Returns
    -------
    plan : Bunch
        ``names`` : list of str, clips. ``units`` : array (n_films,), ``kept`` : array of bool
        (n_trials,) and ``kind``, as from :func:`brainnrds.films.trial_units`. ``spacing`` : float,
        the median time from trial to trial, s.

    Raises
    ------
    InputError
        No run has two trials.
    """
    scanner_runs, names, films, parts = _labels(shown)
    apart = np.diff([film.onset for _, film in shown])[np.diff(scanner_runs) == 0]
    if not len(apart):
        raise InputError(
            "A trial design needs two trials or more in a run, as responses are z-scored in each; "
            f"got {len(shown)} in {len(np.unique(scanner_runs))} runs. Films of less than 12 s are "
            "trials, unless --design continuous says otherwise."
        )
    spacing = round(float(np.median(apart)), 2)
    groups = [parts[name].film_group or str(parts[name].stim_file) for name in names]
    units, kept, kind = trial_units(
        scanner_runs,
        films,
        spacing=spacing,
        groups=np.unique(groups, return_inverse=True)[1],
    )
    return Bunch(names=names, units=units, kept=kept, kind=kind, spacing=spacing)


def _labels(shown):
    """Scanner run of each trial, names of clips, clip of each trial, presentations by name."""
    parts = {film.film: film for _, film in shown}
    index = {name: i for i, name in enumerate(parts)}
    films = np.array([index[film.film] for _, film in shown])
    return np.array([i for i, _ in shown]), list(parts), films, parts


def _estimate_all(jobs, n_jobs, verbose):
    """Betas of all runs (n_trials, n_voxels), usable voxels, and what was found."""
    from tqdm import tqdm

    parts, voxels, counts = [], None, {}
    runs = [job[0] for job in jobs]
    estimated = map_in_processes(
        _estimate,
        jobs,
        loading_processes(runs, n_jobs),
        name=lambda run, *_: f"Image {run.bold[0]}",
    )
    steps = tqdm(estimated, total=len(jobs), desc=f"sub-{runs[0].subject}", disable=not verbose)
    for betas, good, found in steps:
        parts.append(betas)
        voxels = good if voxels is None else voxels & good
        for key, n in found.items():
            counts[key] = counts.get(key, 0) + n
    betas = np.concatenate(parts)
    betas[:, ~voxels] = 0
    return betas, voxels, counts | {"n_voxels": len(voxels), "masked_voxels": int((~voxels).sum())}


def _estimate(run, design, keep, masker, model):
    """Betas of a run, z-scored (0 in voxels that are not usable), bool of usable ones, counts."""
    values = read_bold(run.bold, masker)
    if len(values) != run.n_volumes:
        raise InputError(f"{run.bold[0]} must have {run.n_volumes} volumes; got {len(values)}.")
    values = values[keep]
    finite = np.isfinite(values).all(axis=0)
    constant = finite & (np.ptp(values, axis=0) == 0)
    good = finite & ~constant
    trials, nuisance = design.trials[keep], design.nuisance[keep]
    basis = _basis(nuisance)
    betas = np.zeros((trials.shape[1], values.shape[1]), dtype=np.float32)
    columns = np.flatnonzero(good)
    for start in range(0, len(columns), _BLOCK_VOXELS):
        block = columns[start : start + _BLOCK_VOXELS]
        raw = values[:, block].astype(float)
        raw -= raw.mean(axis=0)
        left = raw - basis @ (basis.T @ raw)
        try:
            some = single_trial_betas(raw, trials, nuisance, model=model)
        except InputError as error:
            raise InputError(f"{run.bold[0].name}: {error}") from error
        some -= some.mean(axis=0)
        scale = some.std(axis=0)
        # what is left of a voxel that the confounds explain fully is rounding error
        empty = (left.std(axis=0) <= _RELATIVE_ROUNDING * raw.std(axis=0)) | ~(scale > 0)
        good[block[empty]] = False
        betas[:, block] = np.where(empty, 0, some / np.where(empty, 1, scale))
    found = {"constant_voxels": int(constant.sum()), "non_finite_voxels": int((~finite).sum())}
    return betas, good, found


def _warn_handled(subject, counts):
    words = {
        "masked_voxels": "constant or non-finite voxels masked",
        "non_steady_state_volumes": "non-steady-state volumes cut",
        "scrubbed_volumes": "volumes scrubbed",
        "trials_left_out": "trials left out, as less than half of their response is there",
        "trials_at_borders": "trials left out, as clips in one order are held out in stretches",
    }
    said = [f"{counts[key]} {text}" for key, text in words.items() if counts.get(key)]
    if said:
        warnings.warn(f"sub-{subject}: {', '.join(said)}.", stacklevel=3)
