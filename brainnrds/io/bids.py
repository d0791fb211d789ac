"""Which runs of a BIDS data set show films, and whether they can be used.

`find_runs` reads names, sidecars, events and headers, and looks into every film and image just
far enough to know that it is whole: what it returns can be loaded.
"""

import os
import shlex
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np

from brainnrds._checks import InputError
from brainnrds._files import hash_file, load_json
from brainnrds.io._metadata import read_timing
from brainnrds.io._path_patterns import PathPattern
from brainnrds.io._places import check_bids, derivatives_dir
from brainnrds.io._presentations import (
    VIDEO_EXTENSIONS,
    FilmFolder,
    Presentation,
    cut_to_scan,
    film_events,
    presentations,
)
from brainnrds.io._recordings import (
    all_files,
    bold_files,
    check_filter,
    is_pattern,
    labels_wanted,
    matching_bold,
    order_of,
    tasks_wanted,
)
from brainnrds.io._search import applicable, describe, list_files, matches, same_label
from brainnrds.io._texts import read_table
from brainnrds.io.derivatives import specification
from brainnrds.io.film_parts import group_parts, name_parts
from brainnrds.io.film_table import draft_rows, read_film_table, read_stimuli_table
from brainnrds.io.images import read_header, read_recorded, same_grid

__all__ = ["Presentation", "Run", "draft_film_table", "find_design", "find_runs", "list_subjects"]

#: s: films that are shorter on average are trials.
SHORT_FILM_SECONDS = 12.0
# what tells one recording of a task from another, in raw data and derivatives alike
_OF_RECORDINGS = ("subject", "task", "acquisition", "direction", "run")
_REMARKS = {
    "dropped": "{n} lack first volumes, as the sidecars say, and are timed accordingly: {example}.",
    "RepetitionTime": "{n} have another RepetitionTime in a header than in the sidecar, which is "
    "used: {example}.",
    "SliceTiming": "{n} have a SliceTiming that cannot be; StartTime is used: {example}",
    "short": "{n} show a film for much less time than film and scan last: {example}.",
    "cut": "{n} end before a film does, which is cut to what was scanned: {example}.",
    "left out": "{n} end before a film of which too little was scanned, and which is left out: "
    "{example}.",
    "no volume": "{n} have no volume on any film: {example}.",
}


@dataclass(frozen=True)
class Run:
    """One scanner run: its files, timing and films.

    Attributes
    ----------
    subject, session, task, run, space : str or None
        Labels without their prefix.
    bold : tuple of Path
        One NIfTI or CIFTI file, or the left and the right GIFTI.
    events, confounds, mask : Path or None
    t_r : float
        Repetition time in s.
    start_time : float
        Time in s from the start of the run that volume 0 stands for: the reference slice where
        slices were aligned, else the middle of the volume.
    n_volumes : int
    films : tuple of Presentation
        In order of onset.
    grid : tuple
        Equal for runs on the same grid.
    has_timing : bool
        False where no sidecar says when slices were taken, and `start_time` is half a `t_r`.
    """

    subject: str
    session: str | None
    task: str
    run: str | None
    space: str | None
    bold: tuple[Path, ...]
    events: Path | None
    confounds: Path | None
    mask: Path | None
    t_r: float
    start_time: float
    n_volumes: int
    films: tuple[Presentation, ...]
    grid: tuple
    has_timing: bool = True


def find_runs(
    bids_dir,
    *,
    derivatives=None,
    subject=None,
    session=None,
    task=None,
    run=None,
    space=None,
    bids_filter=None,
    derivatives_pattern=None,
    database_path=None,
    films=None,
    stimuli=None,
    film_groups="film",
    strict=False,
    n_jobs=1,
):
    """Find the preprocessed runs in which films were shown.

    Parameters
    ----------
    bids_dir : path-like
        BIDS data set with events.tsv and stimuli/: `stim_file` names the films, or `stim_id` does
        by ``stimuli/stimuli.tsv``.
    derivatives : path-like or None, default=None
        fMRIPrep-style derivatives; None: ``derivatives/fmriprep``, or the only data set in
        ``derivatives/`` that has BOLD.
    subject, session, task, run : str, int, list of them or None, default=None
        Labels to keep, with or without prefix; None keeps all. Those of tasks may be patterns:
        ``"s01*"``.
    space : str or None, default=None
        Space of the BOLD files; None: the only one there is.
    bids_filter : dict or None, default=None
        More entities that the BOLD files must have, e.g. ``{"res": "2", "desc": "preproc"}``;
        None as a value: the file must not have the entity.
    derivatives_pattern : str or None, default=None
        Path pattern of the BOLD files below `derivatives`, as pybids has them, for names that
        differ from BIDS: ``"sub-{subject}/sub-{subject}_task-{task}[_run-{run}]_bold.nii.gz"``. A
        session that it does not name is that of the raw data, where it is clear.
    database_path : path-like or None, default=None
        Folder for lists of the files of both data sets, made there when absent; not renewed
        when files change: remove the folder then.
    films : path-like, DataFrame or None, default=None
        Film table (TSV): which films were shown when, beside events.tsv or over it. Columns named
        ``subject``, ``session``, ``task``, ``acquisition``, ``direction``, ``run`` select runs, any
        other column that events.tsv has selects its events; "n/a" there is any. ``stim_file`` names
        the film; ``onset`` and ``duration`` (s, in the run) and ``film_start`` (s, in the film) are
        the event's where they are absent or "n/a". A row that selects no event has the run's only
        event; without events.tsv it begins at 0. A missing duration is the film's, or what is left
        of the scan; a missing start is 0. ``events`` names the run's events file where that is
        called otherwise, such as ``sub-{subject}_task-scan_acq-{task}_events.tsv``. Runs of which
        no row speaks are read from events.tsv alone.
    stimuli : path-like or None, default=None
        Folder of the films, in which links may lead anywhere; None: ``stimuli/`` of the data set,
        where links may lead into it or into its git-annex.
    film_groups : str, default="film"
        What no split may separate besides the films of a scanner run: "film": what the film table
        gives as ``film_group``, else all parts of a film; or a regular expression, such as
        ``r"s\\d+e\\d+"``, of which the match in a film's name, or the first group of it, is the
        label.
    strict : bool, default=False
        Refuse films that end more than a repetition time after the scan. False cuts them to what
        was scanned, or leaves them out where that is less than a tenth or 9 s, and says so.
    n_jobs : int, default=1
        Runs that are looked into at once, -1 for one a core: it helps where files are far away.

    Returns
    -------
    runs : list of Run
        In order of subject, session, task and run.

    Raises
    ------
    InputError
        With one line that names the file or entity: no such directory, not BIDS, no derivatives,
        no run that matches, a film that is missing, damaged, too short or outside stimuli/, no
        film that was scanned, a truncated image, different grids, a space or hemisphere that only
        some runs have; a film table that cannot be read or contradicts itself.
    """
    bids_dir = Path(bids_dir)
    check_bids(bids_dir)
    table, folder = read_film_table(films), _film_folder(bids_dir, stimuli)
    look = _look(
        bids_dir,
        derivatives,
        database_path,
        bids_filter,
        derivatives_pattern,
        subject=subject,
        session=session,
        task=task,
        run=run,
    )
    stimuli_table = read_stimuli_table(folder.path)
    raw, candidates = look.raw, _in_sessions(look, bold_files(look, space))
    if not look.bids_filter:
        _warn_left_out(raw, candidates, look.wanted)
    found, without_film = [], []
    # of what lies at the root for all runs
    events_of, metadata_of = lru_cache(None)(film_events), lru_cache(None)(load_json)

    def make(candidate):
        labels, files = candidate
        shown, source, events = _shown(labels, raw, table, stimuli_table, events_of)
        if shown is None:
            return None
        return _make_run(
            labels, files, look, folder, shown, source, events, metadata_of, strict=strict
        )

    with ThreadPoolExecutor(joblib.effective_n_jobs(n_jobs)) as threads:
        for (labels, _), made in zip(candidates, threads.map(make, candidates), strict=True):
            if made is None:
                without_film.append(labels)
            else:
                found.append(made)
    if table is not None:
        table.check_columns()
    is_one = without_film and task is not None and not is_pattern(task)
    if is_one or not found:
        given = {"derivatives": derivatives, "space": space}
        given["derivatives-pattern"] = derivatives_pattern
        raise InputError(_why_no_film(look, without_film[: 1 if is_one else None], table, given))
    if table is not None:
        for remark in table.remarks(look.wanted):
            warnings.warn(remark, stacklevel=2)
    if without_film:
        warnings.warn(
            f"{len(without_film)} runs have BOLD but show no film (no events.tsv, or none with "
            f"stim_file; a film table can name it) and are left out: "
            f"{', '.join(describe(x) for x in without_film)}.",
            stacklevel=2,
        )
    remarks = [remark for _, remarks in found for remark in remarks]
    runs = [run for run, _ in found if run is not None]
    if not runs:
        raise InputError(f"No film was scanned: {dict(remarks)['left out']}.")
    runs = group_parts(name_parts(_unite_films(runs)), film_groups)
    _check_alike(runs)
    _warn_remarks(runs, remarks, len(found))
    return runs


def find_design(runs):
    """Say whether runs show films that go on, or clips that are trials.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    design : {"continuous", "trials"}
        Trials where films are shown for less than 12 s on average.
    seconds : float
        That average.
    """
    seconds = float(np.mean([film.duration for run in runs for film in run.films]))
    return ("trials" if seconds < SHORT_FILM_SECONDS else "continuous"), seconds


def list_subjects(
    bids_dir,
    *,
    derivatives=None,
    session=None,
    task=None,
    space=None,
    bids_filter=None,
    derivatives_pattern=None,
    database_path=None,
):
    """List the participants that have preprocessed data.

    Parameters
    ----------
    bids_dir : path-like
    derivatives, session, task, space, bids_filter, derivatives_pattern, database_path
        As in `find_runs`.

    Returns
    -------
    subjects : list of str
        Labels without "sub-".

    Raises
    ------
    InputError
        As `find_runs`, where it looks for BOLD.
    """
    look = _look(
        bids_dir,
        derivatives,
        database_path,
        bids_filter,
        derivatives_pattern,
        only_derivatives=True,
        session=session,
        task=task,
    )
    files = matching_bold(look)
    if space is not None:
        files = [file for file in files if file.entities.get("space") == space] or files
    return sorted({file.entities["subject"] for file in files})


@dataclass(frozen=True)
class _Look:
    """The files of a data set and of its derivatives, and which of them are asked for.

    `raw` and `preprocessed` are as `list_files` gives them, `wanted` and `bids_filter` are checked.
    """

    bids_dir: Path
    derivatives: Path
    raw: dict
    preprocessed: dict
    wanted: dict
    bids_filter: dict
    pattern: PathPattern | None


def _look(
    bids_dir,
    derivatives,
    database_path,
    bids_filter,
    derivatives_pattern,
    *,
    only_derivatives=False,
    **labels,
):
    """Look which files there are: what all that is public here begins with."""
    bids_dir = Path(bids_dir)
    check_bids(bids_dir)
    pattern = None if derivatives_pattern is None else PathPattern(derivatives_pattern)
    derivatives = derivatives_dir(bids_dir, derivatives)
    wanted, bids_filter = labels_wanted(**labels), check_filter(bids_filter)
    database = None if database_path is None else Path(database_path)
    if database is not None and database.exists() and not database.is_dir():
        raise InputError(f"`database_path` must be a folder; got a file: {database}.")
    raw, subjects = {}, wanted.get("subject")
    if not only_derivatives:
        kept = None if database is None else database / "raw.json"
        raw = list_files(bids_dir, subjects=subjects, bidsignore=True, database=kept)
    kept = None if database is None else database / "derivatives.json"
    preprocessed = list_files(derivatives, subjects=subjects, database=kept, pattern=pattern)
    wanted["task"] = tasks_wanted(wanted["task"], preprocessed)
    return _Look(bids_dir, derivatives, raw, preprocessed, wanted, bids_filter, pattern)


def _in_sessions(look, candidates):
    """Give recordings whose path pattern names no session that of the raw data, if it is clear."""
    if look.pattern is None:
        return candidates
    recorded = {}
    for file in all_files(look.raw):
        if "session" in file.labels:
            recorded.setdefault(file.labels["subject"], []).append(file.labels)
    found = []
    for labels, files in candidates:
        if "session" not in labels:
            sessions = {
                other["session"]
                for other in recorded.get(labels["subject"], ())
                if _within({k: v for k, v in labels.items() if k in _OF_RECORDINGS}, other)
            }
            if len(sessions) > 1:
                raise InputError(
                    f"`derivatives_pattern` must name the session: {describe(labels)} was recorded "
                    f"in {', '.join(sorted(sessions))}."
                )
            labels = {**labels, "session": sessions.pop()} if sessions else labels
        found.append((labels, files))
    return found


def _warn_left_out(raw, candidates, wanted):
    """Say which runs of the same subjects and tasks were recorded but not preprocessed."""
    known = {}
    for labels, _ in candidates:
        known.setdefault((labels["subject"], labels["task"]), []).append(labels)
    missing = {}
    for file in all_files(raw):
        labels = dict(file.labels)
        alike = known.get((labels.get("subject"), labels.get("task")))
        if file.entities["suffix"] != "events" or alike is None:
            continue
        if labels.pop("part", "mag") != "mag" or not all(
            matches(labels, key, value) for key, value in wanted.items() if value
        ):
            continue
        if not any(_within(labels, other) for other in alike):
            missing[order_of(labels)] = labels
    if missing:
        names = ", ".join(describe(missing[key]) for key in sorted(missing))
        warnings.warn(f"Left out, as they have no preprocessed BOLD: {names}.", stacklevel=3)


def _within(labels, others):
    return all(key in others and same_label(others[key], label) for key, label in labels.items())


def _metadata(files, labels, folder, metadata_of):
    content = {}
    for path in applicable(files, labels, folder, suffix="bold", extension=".json"):
        content.update(metadata_of(path))
    return content


def draft_film_table(
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
):
    """Draft a film table, to be filled in.

    Parameters
    ----------
    bids_dir : path-like
    derivatives, subject, session, task, space, bids_filter, derivatives_pattern, database_path
        As in `find_runs`.

    Returns
    -------
    films : DataFrame of str
        Where all events files have a column of titles, such as ``trial_type``, a row for each
        title; else one for each task, or each task and run. ``stim_file`` is empty, and ``onset``
        where a run has several events. Rows that show no film are to be removed.

    Raises
    ------
    InputError
        As `find_runs`, where it looks for BOLD.
    """
    look = _look(
        bids_dir,
        derivatives,
        database_path,
        bids_filter,
        derivatives_pattern,
        subject=subject,
        session=session,
        task=task,
    )
    candidates = _in_sessions(look, bold_files(look, space))
    recordings, events = [labels for labels, _ in candidates], []
    for labels in recordings:
        path = _shown_in_events(labels, look.raw)
        events.append(None if path is None else read_table(path, "Events file", dtype=str))
    return draft_rows(recordings, events)


def _shown_in_events(labels, raw):
    """The events.tsv of a recording, or None."""
    found = applicable(raw, labels, _raw_folder(labels), **specification()["queries"]["events"])
    return found[-1] if found else None


def _film_folder(bids_dir, stimuli):
    if stimuli is None:
        return FilmFolder(bids_dir / "stimuli")
    if not Path(stimuli).is_dir():
        raise InputError(f"No such directory: {stimuli} (stimuli).")
    return FilmFolder(Path(stimuli), is_named=True)


def _raw_folder(labels):
    """Where the raw data of a recording lie, and what their names may say."""
    return tuple(
        f"{key}-{labels[entity]}"
        for key, entity in (("sub", "subject"), ("ses", "session"))
        if entity in labels
    ) + ("func",)


def _shown(labels, raw, table, stimuli_table, events_of):
    """Rows of films that a run shows or None, which file says so, and the run's events.tsv."""
    events = _shown_in_events(labels, raw)
    name = None if table is None else table.events_of(labels)
    if name is not None:
        files = raw.get(_raw_folder(labels), ())
        events = next((file.path for file in files if file.path.name == name), None)
    shown = None if table is None else table.shown_in(labels, events)
    if shown is not None:
        return shown, table.source, events
    if events is None:
        return None, None, None
    shown = events_of(events)
    if shown is None and stimuli_table is not None:  # events that name a stim_id alone
        return stimuli_table.shown_in(labels, events), stimuli_table.source, events
    return shown, events, events


def _make_run(labels, files, look, film_folder, shown, source, events, metadata_of, *, strict):
    """Make a Run, or None where no film was scanned, and remarks.

    `shown`: rows of its films, as `source` names them; `metadata_of` reads a sidecar.
    """
    raw, preprocessed = look.raw, look.preprocessed
    bold = tuple(file.path for file in files)
    folder, name = files[0].folder, bold[0].name
    raw_folder, queries = _raw_folder(labels), specification()["queries"]
    n_volumes, grid, header_t_r = read_header(bold)
    images = applicable(raw, labels, raw_folder, suffix="bold", extension=[".nii.gz", ".nii"])
    timing = read_timing(
        name,
        n_volumes,
        header_t_r,
        _metadata(raw, labels, raw_folder, metadata_of),
        _metadata(preprocessed, files[0].labels, folder, metadata_of),
        read_recorded(images[-1]) if images else None,
    )
    t_r = timing.t_r
    scan = timing.begin + n_volumes * t_r
    films, remarks = presentations(film_folder, source, shown, scan)
    films, cut = cut_to_scan(films, scan, t_r, source, bold[0], strict=strict)
    remarks += cut
    if not films:
        return None, remarks
    times = timing.start_time + t_r * np.arange(n_volumes)
    if not any(((times > f.onset) & (times < f.onset + f.duration)).any() for f in films):
        remarks += (("no volume", name),)
    confounds = applicable(preprocessed, labels, folder, **queries["confounds"])
    masks = applicable(
        preprocessed, {**files[0].labels, "desc": "brain"}, folder, **queries["mask"]
    )
    run = Run(
        subject=labels["subject"],
        session=labels.get("session"),
        task=labels["task"],
        run=labels.get("run"),
        space=files[0].entities.get("space"),
        bold=bold,
        events=events,
        confounds=confounds[-1] if confounds else None,
        mask=masks[-1] if masks and grid[0] == "volume" else None,
        t_r=t_r,
        start_time=timing.start_time,
        n_volumes=n_volumes,
        films=films,
        grid=grid,
        has_timing=timing.is_known,
    )
    return run, (*timing.remarks, *remarks)


def _warn_remarks(runs, remarks, n_runs):
    """Say once what was found in one run or many."""
    counts = Counter(kind for kind, _ in remarks)
    if find_design(runs)[0] == "trials":
        del counts["no volume"]  # the response to a clip comes after it
    for kind, count in counts.items():
        example = next(text for other, text in remarks if other == kind)
        example = example if kind == "SliceTiming" else example.rstrip(".")
        n = f"{count} of {n_runs} runs"
        warnings.warn(_REMARKS[kind].format(n=n, example=example), stacklevel=3)
    n_guessed = sum(not run.has_timing for run in runs)
    if n_guessed:
        warnings.warn(
            f"{n_guessed} of {len(runs)} runs have neither StartTime nor SliceTiming in a sidecar: "
            "their volumes are taken to stand for the middle of the repetition time.",
            stacklevel=3,
        )


def _why_no_film(look, without_film, table, given):
    """One line on why the runs show no film, with the command that drafts a film table."""
    if table is not None:
        table.check_columns()
        there = ", ".join(describe(labels) for labels in without_film[:5])
        return f"No row of {table.source} matches a run or its events: there are {there}."
    options = [(f"--{name}", str(value)) for name, value in given.items() if value is not None]
    words = [str(look.bids_dir), *(word for pair in options for word in pair)]
    command = shlex.join(["brainnrds-validate", *words, "--write-films", "films.tsv"])
    return (
        f"{_why_events_name_none(look.bids_dir, look.raw, without_film)}; a film table can name "
        f"films: `{command}` drafts it."
    )


def _why_events_name_none(bids_dir, raw, without_film):
    labels = without_film[0]
    events = applicable(raw, labels, _raw_folder(labels), suffix="events", extension=".tsv")
    tasks = ", ".join(sorted({labels["task"] for labels in without_film}))
    begin = f"No run shows a film: events.tsv of task {tasks} in {bids_dir}"
    if not events:
        alike = {
            describe(file.labels): [
                (key, label)
                for key, label in file.labels.items()
                if not same_label(labels.get(key, ""), label)
            ]
            for file in all_files(raw)
            if file.entities["suffix"] == "events"
            and file.labels.get("subject") == labels["subject"]
            and file.labels.get("task") == labels["task"]
        }
        nearest = min(sorted(alike), key=lambda name: len(alike[name]), default=None)
        differ = [describe(dict([pair])) for pair in alike.get(nearest, ())]
        there = f", but one for {nearest}, which says {', '.join(differ)}" if differ else ""
        if differ and not any(key in labels for key, _ in alike[nearest]):
            there += ": `derivatives_pattern` reads derivatives whose names lack it"
        return f"No events.tsv for {describe(labels)} in {bids_dir}{there}"
    table = read_table(events[-1], "Events file", na_values="n/a", dtype={"stim_file": str})
    if "stim_file" not in table:
        return f"{begin} must name films in a column stim_file; {events[-1].name} has none"
    named = table["stim_file"].dropna().unique()
    if not len(named):
        return f"{begin} must name films in its column stim_file; {events[-1].name} names none"
    return (
        f"{begin} must name films in its column stim_file; {events[-1].name} names "
        f"{named[0][:80]!r}, and films end in {' '.join(sorted(VIDEO_EXTENSIONS))}"
    )


def _unite_films(runs):
    """Call the same film by one name: what its file holds decides, not what it is called."""
    paths = {film.film: film.stim_file for run in runs for film in run.films}
    by_size = {}
    for name, path in sorted(paths.items()):
        by_size.setdefault(path.stat().st_size, []).append(name)
    names = {}
    for alike in by_size.values():
        by_content = {}
        for name in alike if len(alike) > 1 else ():
            by_content.setdefault(hash_file(os.path.realpath(paths[name])), []).append(name)
        for same in by_content.values():
            names |= dict.fromkeys(same[1:], same[0])
    if not names:
        return runs
    told = ", ".join(f"{other} is {name}" for other, name in sorted(names.items())[:5])
    warnings.warn(
        f"{len(names)} films have the content of another film and are taken for it: {told}.",
        stacklevel=3,
    )
    united = []
    for run in runs:
        films = tuple(
            replace(film, film=names[film.film], stim_file=paths[names[film.film]])
            if film.film in names
            else film
            for film in run.films
        )
        united.append(replace(run, films=films))
    return united


def _check_alike(runs):
    """Runs of a subject must share grid and repetition time."""
    first = {}
    for run in runs:
        other = first.setdefault(run.subject, run)
        if not same_grid(run.grid, other.grid):
            raise InputError(
                f"Runs must share a grid: {run.bold[0].name} has {run.grid[-1]}, "
                f"{other.bold[0].name} has {other.grid[-1]}."
            )
        if abs(run.t_r - other.t_r) > 1e-3:
            raise InputError(
                f"Runs must share a repetition time: {run.bold[0].name} has {run.t_r:g} s, "
                f"{other.bold[0].name} has {other.t_r:g} s."
            )
