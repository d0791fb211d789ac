"""Say what the App would use of a data set, run by run, before anything is computed."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._files import check_file
from brainnrds.analyses.design import (
    check_folds,
    check_test_films,
    choose_design,
    find_test_films,
    plan_samples_of,
)
from brainnrds.analyses.drawing import find_pycortex_subject
from brainnrds.analyses.estimate import estimate, seconds_of_footage
from brainnrds.analyses.options import DecodeOptions, EncodeOptions, Preparation, ReanimateOptions
from brainnrds.analyses.renderers import check_renderer
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK
from brainnrds.features.delays import LATEST_RESPONSE
from brainnrds.films import BORDER_SECONDS
from brainnrds.io import find_runs, load_atlas
from brainnrds.io._confounds import read_confounds
from brainnrds.io.bold import common_mask
from brainnrds.io.film_parts import continues, cut_only_film, groups_of_films
from brainnrds.io.images import make_masker
from brainnrds.io.trials import plan_trials, trials_of

__all__ = ["validate_dataset"]

_LONGEST_HEADER = 2**20
_MOST_LISTED = 20  # film groups and test films
# what is held out of a trial design
_UNITS = {
    "runs": "Runs that share no clip are held out as wholes",
    "clips": "Clips come in different orders and are held out with all of their trials",
    "stretches": "Clips come in one order and are held out in stretches of a run",
}


def validate_dataset(
    bids_dir,
    *,
    derivatives=None,
    subject=None,
    session=None,
    task=None,
    space=None,
    bids_filter=None,
    derivatives_pattern=None,
    database_path=None,
    films=None,
    stimuli=None,
    film_groups="film",
    strict=False,
    confounds=None,
    mask=None,
    options=None,
):
    """Describe the runs, films, timing, repeats and folds that an analysis would see.

    Nothing is computed or written. Whatever makes the App refuse a data set is refused here with
    the same line.

    Parameters
    ----------
    bids_dir : path-like
    derivatives, subject, session, task, space, bids_filter, derivatives_pattern, database_path,
    films, stimuli, film_groups, strict
        As in :func:`brainnrds.io.find_runs`.
    confounds : tuple of str or None, default=None
        As in :func:`brainnrds.io.load_runs`: every table is read as it would be. None: said is
        only what the default needs and a table lacks.
    mask : path-like, "intersection" or None, default=None
        As in :func:`brainnrds.io.load_runs`, whatever `options` say. Masks are read where this or
        `confounds` are given, where `options` name an atlas or surfaces, and, if every run has one,
        for the estimate of what the analysis will cost.
    options : instance of a dataclass of options, or None, default=None
        Of the analysis asked for: its design, its test films, its folds, its atlas and the surfaces
        of figures are checked, and the text ends with what encoding, decoding or reanimating will
        cost. None: the design is that of the films.

    Returns
    -------
    text : str
        For each participant a table with one line per run (films, onsets and durations, or how
        many clips of a trial design; volumes, repetition time, confounds, mask), then films with
        their repeats, the film groups, the films for testing where `options` name them, and
        remarks on what is missing or unusual.

    Raises
    ------
    InputError
        The data set cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = find_runs(
            bids_dir,
            derivatives=derivatives,
            subject=subject,
            session=session,
            task=task,
            space=space,
            bids_filter=bids_filter,
            derivatives_pattern=derivatives_pattern,
            database_path=database_path,
            films=films,
            stimuli=stimuli,
            film_groups=film_groups,
            strict=strict,
        )
        people = [
            cut_only_film([run for run in runs if run.subject == label])
            for label in dict.fromkeys(run.subject for run in runs)
        ]
    for of_subject in people:
        if confounds is not None or mask is not None:
            common_mask(of_subject, mask)
        for run in of_subject if confounds is not None else ():
            read_confounds(run, tuple(confounds), {})
    if isinstance(options, Preparation):
        for of_subject in people:
            _check_choices(of_subject, options, mask)
    parts = [f"{bids_dir}: {len(runs)} runs, space {runs[0].space or 'not named'}."]
    for of_subject in people:
        preparation = options if isinstance(options, Preparation) else Preparation()
        design = choose_design(of_subject, preparation)[0]
        is_read = confounds is not None
        parts.append(_describe_participant(of_subject, design, preparation, is_read))
    notes = [f"note: {w.message}" for w in caught if issubclass(w.category, UserWarning)]
    parts += dict.fromkeys(notes)  # what holds for several people is said once
    if isinstance(options, EncodeOptions | DecodeOptions):
        largest = max(people, key=lambda runs: sum(run.n_volumes for run in runs))
        each = " for each participant" if len(people) > 1 else ""
        parts.append(f"{estimate(largest, options, n_voxels=_voxels(largest, mask))}{each}.")
    return "\n\n".join(parts)


def _check_choices(runs, options, mask):
    """Refuse what the analysis would refuse: films for testing, folds, the atlas, surfaces."""
    check_test_films(runs, options)
    if isinstance(options, EncodeOptions):
        check_folds(runs, options)
    if isinstance(options, ReanimateOptions):
        check_renderer(options.renderer, options)
        if options.stock_model is not None:
            check_renderer("image-to-video", replace(options, video_model=options.stock_model))
    atlas, surfaces = getattr(options, "atlas", None), options.pycortex_subject
    if atlas is None and surfaces is None:
        return
    masker = make_masker(runs[0].bold, common_mask(runs, mask))
    if atlas is not None:
        load_atlas(atlas, Bunch(masker=masker))
    if surfaces is not None:
        find_pycortex_subject(surfaces, runs[0].subject, masker, runs[0].space)


def _voxels(runs, mask):
    """Voxels of the brain mask, or None where there is none to read."""
    if runs[0].grid[0] != "volume" or (mask is None and any(run.mask is None for run in runs)):
        return None
    return int(np.count_nonzero(np.asarray(common_mask(runs, mask).dataobj)))


def _describe_participant(runs, design, options, is_read):
    is_trials = design == "trials"
    lines = [f"sub-{runs[0].subject}", _run_table(runs, is_trials).to_string(index=False), ""]
    films = Counter(film.film for run in runs for film in run.films)
    repeats = Counter(films.values())
    shown = ", ".join(
        f"{count} {'film' if count == 1 else 'films'} shown "
        f"{'once' if times == 1 else f'{times} times'}"
        for times, count in sorted(repeats.items())
    )
    lines.append(f"films: {shown}; {seconds_of_footage(runs) / 60:.1f} min of different footage")
    names = list(films)
    tested = {names[film] for film in find_test_films(options.test_films, names) or ()}
    if is_trials:
        plan = plan_trials(trials_of(runs))
        n_units = len(np.unique(plan.units))
        line = (
            f"a trial design: {len(plan.kept)} trials, one every {plan.spacing:.3g} s; a sample is "
            "the response to one clip. "
        )
        units = f"{_UNITS[plan.kind]}: {n_units} units of every split"
        lines.append(line + (f"Units: {n_units}" if tested else units))
        remarks = _remarks_on_trials(films, plan, tested)
    else:
        groups = _groups(runs, names)
        sizes = [", ".join(sorted(group)) for group in groups]
        lines.append(f"film groups{'' if tested else ', the units of every split'}: {len(groups)}")
        lines += [f"  {index}: {group}" for index, group in enumerate(sizes[:_MOST_LISTED], 1)]
        if len(sizes) > _MOST_LISTED:
            lines.append(f"  and {len(sizes) - _MOST_LISTED} more")
        remarks = _remarks(runs, films, groups, tested)
    if tested:
        lines.append(_say_what_is_tested(runs, options, sorted(tested), len(names)))
    remarks += [] if is_read else _lacking(runs)
    if len(remarks) > 12:
        remarks = remarks[:12] + [f"and {len(remarks) - 12} more of this kind"]
    lines += [f"note: {remark}" for remark in remarks] or [
        "note: nothing is missing for these runs"
    ]
    return "\n".join(lines)


def _say_what_is_tested(runs, options, tested, n_films):
    """Films for testing in a line: film groups do not matter, what is beside them in a run does."""
    more = len(tested) - _MOST_LISTED
    n_others = n_films - len(tested)
    line = (
        f"test films: {', '.join(tested[:_MOST_LISTED])}{f' and {more} more' if more > 0 else ''}; "
        f"{'the other one trains' if n_others == 1 else f'all {n_others} others train'}"
    )
    if not isinstance(options, EncodeOptions) or choose_design(runs, options)[0] == "trials":
        return line
    plan = plan_samples_of(runs, options)
    is_tested = np.isin(plan.films, find_test_films(options.test_films, plan.film_names))
    trains = (plan.films >= 0) & ~is_tested
    if np.isin(plan.runs[trains], plan.runs[is_tested]).any():
        line += ", without the volumes beside a test film in its run"
    return line


def _run_table(runs, is_trials):
    rows = []
    for run in runs:
        name = f"task-{run.task}" + (f"_run-{run.run}" if run.run is not None else "")
        if run.session is not None:
            name = f"ses-{run.session}_{name}"
        times = run.start_time + run.t_r * np.arange(run.n_volumes)
        used = sum(
            int(((times >= film.onset) & (times < film.onset + film.duration)).sum())
            for film in run.films
        )
        rows.append(
            {
                "run": name,
                "volumes": run.n_volumes,
                "on film": used,
                "TR (s)": f"{run.t_r:g}",
                "start (s)": f"{run.start_time:g}",
                **(_clips_of(run) if is_trials else _films_of(run)),
                "confounds": "yes" if run.confounds else "no",
                "mask": "yes" if run.mask else ("no" if run.grid[0] == "volume" else "-"),
            }
        )
    return pd.DataFrame(rows)


def _films_of(run):
    films = (f"{film.film} ({film.onset:g} + {film.duration:g})" for film in run.films)
    return {"films (onset + duration, s)": "; ".join(films)}


def _clips_of(run):
    """A run of trials in a line: each clip would be one of hundreds."""
    different = len({film.film for film in run.films})
    onsets = [film.onset for film in run.films]
    return {
        "trials": len(onsets),
        "clips": different,
        "onsets (s)": f"{onsets[0]:.2f} to {onsets[-1]:.2f}",
        "length (s)": f"{np.mean([film.duration for film in run.films]):.2f}",
    }


def _groups(runs, names):
    """Sets of films that no split separates, as the analyses form them."""
    groups = groups_of_films(runs, names)
    return [
        {name for name, g in zip(names, groups, strict=True) if g == group}
        for group in dict.fromkeys(groups.tolist())
    ]


def _remarks_on_trials(films, plan, tested):
    remarks = []
    n_tested = len(tested or films)
    if n_tested < FEWEST_BLOCKS:
        clips = f"{n_tested} {'test ' if tested else ''}{'clip' if n_tested == 1 else 'clips'}"
        remarks.append(f"{clips}, and a test needs {FEWEST_BLOCKS}: no p-values")
    n_training = len(np.unique(plan.units[~np.isin(plan.names, list(tested))]))
    if tested and n_training < 2:
        remarks.append("one unit trains: penalties are chosen inside it; more is better")
    elif not tested and n_training < 3:
        remarks.append("two units or fewer: penalties are chosen inside one; more is better")
    if max(films.values()) < 2:
        remarks.append("no clip is repeated: no noise ceiling, so no normalised scores")
    if not plan.kept.all():
        remarks.append(
            f"clips follow each other in one order: {(~plan.kept).sum()} trials at borders of "
            "stretches are left out"
        )
    return remarks


def _remarks(runs, films, groups, tested=()):
    remarks, counted = [], set(tested or films)
    # what is tested: all films in turn, or those that are named
    shown = [film for run in runs for film in run.films if film.film in counted]
    seconds = seconds_of_footage([Bunch(films=shown)])
    # what follows the border of a part does not count
    bordered = {
        film.film
        for run in runs
        for before, film in zip((None, *run.films), run.films, strict=False)
        if film.film in counted and continues(film, before)
    }
    n_blocks = int((seconds - BORDER_SECONDS * len(bordered)) // SHORTEST_BLOCK)
    if n_blocks < FEWEST_BLOCKS:
        remarks.append(
            f"{seconds / 60:.1f} min of different footage{' in test films' if tested else ''} make "
            f"about {n_blocks} of the {FEWEST_BLOCKS} blocks of {SHORTEST_BLOCK:g} s that a test "
            "needs: no p-values"
        )
    if tested:
        if sum(not group <= counted for group in groups) < 2:
            remarks.append("one film group trains: penalties are chosen inside it; more is better")
    elif len(groups) < 2:
        remarks.append("one film group: nothing can be held out; more films are needed")
    elif len(groups) < 3:
        remarks.append("two film groups: penalties are chosen inside one group; more is better")
    if max(films.values()) < 2:
        remarks.append("no film is repeated: no noise ceiling, so no normalised scores")
    for run in runs:
        scan = run.start_time + run.n_volumes * run.t_r
        for film in run.films:
            name = f"{run.bold[0].name}: {film.film}"
            if film.onset < run.start_time - 1e-6:
                remarks.append(f"{name} begins {run.start_time - film.onset:.2f} s before volume 0")
            if scan - film.onset - film.duration < LATEST_RESPONSE - 1e-6:
                left = scan - film.onset - film.duration
                remarks.append(f"{name} ends {left:.1f} s before the scan: late responses are cut")
    return remarks


def _columns(path):
    """Names of a table's columns; its rows are read when they are used."""
    with open(check_file(path, "Confounds table"), encoding="utf-8-sig", errors="replace") as file:
        return set(file.readline(_LONGEST_HEADER).rstrip("\n").split("\t"))


def _lacking(runs):
    """What the defaults need and the runs lack."""
    remarks = []
    without = [run for run in runs if run.confounds is None]
    if without:
        remarks.append(
            f"{len(without)} of {len(runs)} runs have no confounds table: give `--confounds` "
            "without a strategy, or add the tables"
        )
    else:
        tables = [_columns(run.confounds) for run in runs]
        lacking = {
            strategy: count
            for strategy, column in (("motion", "trans_x"), ("wm_csf", "csf"))
            if (count := sum(column not in columns for columns in tables))
        }
        for strategy, count in lacking.items():
            remarks.append(
                f"{count} of {len(runs)} confounds tables lack what strategy {strategy} needs: "
                "leave it out of `--confounds`"
            )
    if runs[0].grid[0] == "volume" and any(run.mask is None for run in runs):
        remarks.append(
            "volumes without a brain mask: *_desc-brain_mask.nii.gz or `--mask` is needed"
        )
    return remarks
