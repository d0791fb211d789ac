"""Which runs of a BIDS data set show films, and whether they can be used.

`find_runs` reads names, sidecars, events and headers, and looks into every film and image just
far enough to know that it is whole: what it returns can be loaded.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from brainnrds._checks import InputError
from brainnrds.io.derivatives import load_json, specification
from brainnrds.io.images import read_header
from brainnrds.io.video import probe_video

__all__ = ["Presentation", "Run", "find_runs", "list_subjects"]

_VIDEO_EXTENSIONS = frozenset(
    ".avi .gif .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .ts .webm .wmv".split()
)
# what tells one recording from another: not how it was processed
_RECORDING = ("subject", "session", "task", "acquisition", "ceagent", "reconstruction")
_RECORDING += ("direction", "run")
_NOT_LABELS = ("suffix", "extension", "datatype")
# folders without BOLD or events: indexing them would take most of the time
_IGNORED = re.compile(
    r"^/(code|models|sourcedata|stimuli|derivatives|log|logs)(/|$)"
    r"|/(anat|dwi|eeg|figures|fmap|meg|perf|pet)(/|$)|/\."
)
# events.tsv and the film's own clock may differ by a frame or a scanner tick
_FILM_TOLERANCE_SECONDS = 0.5


@dataclass(frozen=True)
class Presentation:
    """One film shown once.

    Attributes
    ----------
    film : str
        `stim_file` as events.tsv has it: relative to stimuli/, with "/" and its extension.
    stim_file : Path
    onset, duration : float
        In s from the start of the run.
    variable_rate : bool
        The film's frames do not follow each other at equal intervals.
    """

    film: str
    stim_file: Path
    onset: float
    duration: float
    variable_rate: bool = False


@dataclass(frozen=True)
class Run:
    """One scanner run: its files, timing and films.

    Attributes
    ----------
    subject, session, task, run, space : str or None
        Labels without their prefix.
    bold : tuple of Path
        One NIfTI or CIFTI file, or the left and the right GIFTI.
    events : Path
    confounds, mask : Path or None
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
    events: Path
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
    database_path=None,
):
    """Find the preprocessed runs in which films were shown.

    Parameters
    ----------
    bids_dir : path-like
        BIDS data set with events.tsv (`stim_file` names the films) and stimuli/.
    derivatives : path-like or None, default=None
        fMRIPrep-style derivatives; None: ``derivatives/fmriprep``, or the only data set in
        ``derivatives/`` that has BOLD.
    subject, session, task, run : str, int, list of them or None, default=None
        Labels to keep, with or without prefix; None keeps all.
    space : str or None, default=None
        Space of the BOLD files; None: the only one there is.
    bids_filter : dict or None, default=None
        More entities that the BOLD files must have, e.g. ``{"res": "2", "desc": "preproc"}``;
        None as a value: the file must not have the entity.
    database_path : path-like or None, default=None
        Folder for pybids' index of the two data sets, made there when absent. It is not renewed
        when files change: remove the folder then.

    Returns
    -------
    runs : list of Run
        In order of subject, session, task and run.

    Raises
    ------
    InputError
        With one line that names the file or entity: no such directory, not BIDS, no derivatives,
        no run that matches, a film that is missing, damaged, too short or outside stimuli/, events
        beyond the end of the scan, a truncated image, different grids, a space or hemisphere that
        only some runs have.
    """
    bids_dir = Path(bids_dir)
    _check_bids(bids_dir)
    derivatives = _derivatives_dir(bids_dir, derivatives)
    wanted = {
        "subject": _labels(subject, "sub"),
        "session": _labels(session, "ses"),
        "task": _labels(task, "task"),
        "run": _labels(run, "run"),
    }
    raw = _index(bids_dir, database_path, "raw", wanted["subject"])
    preprocessed = _index(derivatives, database_path, "derivatives", wanted["subject"])
    candidates = _bold_files(preprocessed, derivatives, wanted, space, bids_filter or {})
    if not bids_filter:
        _warn_left_out(raw, candidates, wanted)
    runs = []
    without_film = []
    probed = {}
    for key, files in candidates:
        found = _make_run(bids_dir, key, files, raw, preprocessed, probed, wanted["task"])
        if found is None:
            without_film.append(_describe(key))
        else:
            runs.append(found)
    if not runs:
        tasks = sorted({dict(key)["task"] for key, _ in candidates})
        raise InputError(
            f"No run shows a film: the events.tsv of task {', '.join(tasks)} in {bids_dir} must "
            "name films in a column stim_file."
        )
    if without_film:
        warnings.warn(
            f"{len(without_film)} runs have BOLD but show no film (no events.tsv, or none with "
            f"stim_file) and are left out: {', '.join(without_film)}.",
            stacklevel=2,
        )
    n_guessed = sum(not run.has_timing for run in runs)
    if n_guessed:
        warnings.warn(
            f"{n_guessed} of {len(runs)} runs have neither StartTime nor SliceTiming in a sidecar: "
            "their volumes are taken to stand for the middle of the repetition time.",
            stacklevel=2,
        )
    _check_alike(runs)
    return runs


def list_subjects(bids_dir, *, derivatives=None):
    """List the participants that have preprocessed data.

    Parameters
    ----------
    bids_dir : path-like
    derivatives : path-like or None, default=None
        As in `find_runs`.

    Returns
    -------
    subjects : list of str
        Labels without "sub-".

    Raises
    ------
    InputError
        No such directory, not BIDS, no derivatives.
    """
    bids_dir = Path(bids_dir)
    _check_bids(bids_dir)
    folder = _derivatives_dir(bids_dir, derivatives)
    subjects = sorted(
        path.name.removeprefix("sub-")
        for path in folder.glob("sub-*")
        if path.is_dir() and any(path.glob("**/func/*_bold.*"))
    )
    if not subjects:
        raise InputError(f"No derivatives: {folder} holds no participant with BOLD.")
    return subjects


def _check_bids(bids_dir):
    if not bids_dir.is_dir():
        raise InputError(f"No such directory: {bids_dir}.")
    path = bids_dir / "dataset_description.json"
    if not path.is_file():
        raise InputError(f"Not a BIDS data set: {bids_dir} has no dataset_description.json.")
    content = load_json(path)
    missing = [key for key in ("Name", "BIDSVersion") if key not in content]
    if missing:
        raise InputError(f"Not a BIDS data set: {path} has no {' and no '.join(missing)}.")


def _derivatives_dir(bids_dir, derivatives):
    if derivatives is not None:
        derivatives = Path(derivatives)
        if not derivatives.is_dir():
            raise InputError(f"No such directory: {derivatives} (derivatives).")
        return derivatives
    folder = bids_dir / "derivatives"
    if (folder / "fmriprep").is_dir():
        return folder / "fmriprep"
    datasets = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.is_dir() and any(path.glob("sub-*/**/func/*_bold.*"))
    ]
    if len(datasets) == 1:
        return datasets[0]
    if not datasets:
        raise InputError(
            f"No derivatives: {folder} must hold preprocessed BOLD (fMRIPrep); give `derivatives` "
            "if they lie elsewhere."
        )
    names = ", ".join(path.name for path in datasets)
    raise InputError(f"Several derivatives have BOLD: {names}; choose one with `derivatives`.")


def _labels(value, prefix):
    """The labels asked for as a list of str without prefix, or None."""
    if value is None:
        return None
    if isinstance(value, (str, int, np.integer)):
        value = [value]
    return [str(item).removeprefix(f"{prefix}-") for item in value]


def _index(folder, database_path, name, subjects):
    """Return [(entities, path)] of the files of a data set that matter here."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignore = [_IGNORED]
    if database_path is not None:
        # a database serves every later call: it holds all subjects
        database_path = Path(database_path) / name
        database_path.mkdir(parents=True, exist_ok=True)
    elif subjects is not None:
        others = "|".join(re.escape(label) for label in subjects)
        ignore.append(re.compile(rf"^/sub-(?!({others})(/|$))[^/]+(/|$)"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pybids' own on derivatives without PipelineDescription
        layout = BIDSLayout(
            folder,
            validate=False,
            is_derivative=True,  # only adds the entities of derivatives
            config=["bids", "derivatives"],
            database_path=database_path,
            indexer=BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=False),
        )
    if Path(layout.root).resolve() != folder.resolve():
        raise InputError(f"Database {database_path} is of {layout.root}; expected {folder}.")
    suffixes = ["bold", "events", "mask", "timeseries", "regressors"]
    files = [(file.get_entities(), Path(file.path)) for file in layout.get(suffix=suffixes)]
    gone = next((path for _, path in files if not path.exists() and not path.is_symlink()), None)
    if gone is not None:
        raise InputError(f"Database {database_path} is out of date: {gone} is gone; remove it.")
    return files


def _same(value, label):
    """Compare an entity with a label; run-1 is run-01."""
    if value is None:
        return False
    value, label = str(value), str(label)
    return value == label or (value.isdigit() and label.isdigit() and int(value) == int(label))


def _matches(entities, key, wanted):
    if wanted is None:
        return key not in entities
    wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(
        key not in entities if label is None else _same(entities.get(key), label)
        for label in wanted
    )


def _recording(entities):
    """What identifies the recording, as a sortable and hashable key."""
    return tuple((key, str(entities[key])) for key in _RECORDING if key in entities)


def _bold_files(files, derivatives, wanted, space, bids_filter):
    """Return [(recording, [(entities, path)])] of the space, one or two files for each."""
    query = {**specification()["queries"]["bold"], **bids_filter}
    extensions = query["extension"]
    extensions = extensions if isinstance(extensions, list) else [extensions]
    bold = [
        (entities, path)
        for entities, path in files
        if all(_matches(entities, key, value) for key, value in query.items())
        and ("echo" not in entities or "echo" in bids_filter)
        and {"subject", "task"} <= set(entities)
    ]
    if not bold:
        # with labels of subjects only their folders were looked into
        there = sorted(path.name[4:] for path in derivatives.glob("sub-*") if path.is_dir())
        if wanted["subject"] and there and not set(wanted["subject"]) & set(there):
            raise InputError(
                f"No run matches subject {', '.join(wanted['subject'])}: {derivatives} has "
                f"{', '.join(there)}."
            )
        raise InputError(f"No derivatives: {derivatives} holds no preprocessed BOLD file.")
    for key, labels in wanted.items():
        present = sorted({str(entities[key]) for entities, _ in bold if key in entities})
        for label in labels or []:
            if not any(_same(value, label) for value in present):
                raise InputError(
                    f"No run matches {key} {label}: {derivatives} has "
                    f"{', '.join(present) or f'no {key}'}."
                )
    bold = [
        (entities, path)
        for entities, path in bold
        if all(_matches(entities, key, labels) for key, labels in wanted.items() if labels)
    ]
    if not bold:
        asked = ", ".join(f"{key} {labels}" for key, labels in wanted.items() if labels)
        raise InputError(f"No run matches {asked} in {derivatives}.")
    recordings = {}
    for entities, path in bold:
        in_spaces = recordings.setdefault(_recording(entities), {})
        in_spaces.setdefault(entities.get("space"), []).append((entities, path))
    space = _choose_space(recordings, space)
    return [
        (key, _choose_files(key, in_spaces, space, extensions))
        for key, in_spaces in sorted(recordings.items(), key=lambda item: item[0])
    ]


def _warn_left_out(raw, candidates, wanted):
    """Say which runs of the same subjects and tasks were recorded but not preprocessed."""
    found = {key for key, _ in candidates}
    known = {(dict(key)["subject"], dict(key)["task"]) for key in found}
    missing = {
        _recording(entities)
        for entities, _ in raw
        if entities["suffix"] == "events"
        and (entities.get("subject"), entities.get("task")) in known
        and all(_matches(entities, key, labels) for key, labels in wanted.items() if labels)
    } - found
    if missing:
        names = ", ".join(_describe(key) for key in sorted(missing))
        warnings.warn(f"Left out, as they have no preprocessed BOLD: {names}.", stacklevel=3)


def _describe(key):
    names = {"subject": "sub", "session": "ses", "acquisition": "acq", "reconstruction": "rec"}
    names |= {"direction": "dir", "ceagent": "ce"}
    return "_".join(f"{names.get(name, name)}-{label}" for name, label in key)


def _choose_space(recordings, space):
    counts = {}
    for in_spaces in recordings.values():
        for label in in_spaces:
            counts[label] = counts.get(label, 0) + 1
    listed = ", ".join(f"{label or 'none'} ({n} runs)" for label, n in counts.items())
    if space is None:
        if len(counts) > 1:
            raise InputError(f"Several spaces have BOLD: {listed}; choose one with `space`.")
        return next(iter(counts))
    if space not in counts:
        raise InputError(f"No run matches space {space}: there are {listed}.")
    return space


def _choose_files(key, in_spaces, space, extensions):
    """The one volume or CIFTI file, or both hemispheres, of a recording."""
    if space not in in_spaces:
        raise InputError(
            f"Space {space} is there for some runs only: {_describe(key)} has none (it has "
            f"{', '.join(str(label) for label in in_spaces)})."
        )
    found = in_spaces[space]
    extension = next(e for e in extensions if any(f["extension"] == e for f, _ in found))
    found = [(f, path) for f, path in found if f["extension"] == extension]
    by_hemi = {}
    for entities, path in found:
        by_hemi.setdefault(entities.get("hemi"), []).append((entities, path))
    for files in by_hemi.values():
        if len(files) > 1:
            names = ", ".join(path.name for _, path in files)
            raise InputError(f"Several files fit {_describe(key)}: {names}; narrow `bids_filter`.")
    if extension == ".func.gii":
        missing = [hemi for hemi in ("L", "R") if hemi not in by_hemi]
        if missing:
            raise InputError(
                f"Both hemispheres must be there: {_describe(key)} has no hemi-{missing[0]} in "
                f"space {space}."
            )
        return [by_hemi["L"][0], by_hemi["R"][0]]
    return found


def _inherited(files, entities, **wanted):
    """Paths that apply to a file by BIDS' inheritance, the nearest last.

    A file applies if all of its labels are among those of `entities`.
    """
    labels = {key: value for key, value in entities.items() if key not in _NOT_LABELS}
    found = []
    for other, path in files:
        if not all(_matches(other, key, value) for key, value in wanted.items()):
            continue
        others = {k: v for k, v in other.items() if k not in _NOT_LABELS and k not in wanted}
        if all(_same(labels.get(key), value) for key, value in others.items()):
            found.append((len(others), len(path.parts), path))
    return [path for _, _, path in sorted(found)]


def _metadata(files, entities):
    content = {}
    for path in _inherited(files, entities, suffix="bold", extension=".json"):
        content.update(load_json(path))
    return content


def _make_run(bids_dir, key, files, raw, preprocessed, probed, tasks):
    """Make a Run, or None where the task shows no films and was not asked for by name."""
    entities = files[0][0]
    recording = dict(key)
    bold = tuple(path for _, path in files)
    events = _inherited(raw, recording, suffix="events", extension=".tsv")
    if not events:
        if tasks is None:
            return None
        raise InputError(f"No events.tsv for {_describe(key)} in {bids_dir}.")
    shown = _film_events(events[-1])
    if shown is None:
        if tasks is None:
            return None
        raise InputError(f"{events[-1]} must name films in a column stim_file; got none.")
    n_volumes, grid, header_t_r = read_header(bold)
    # derivatives know what was done to the image, the raw data how it was recorded
    metadata = {**_metadata(raw, recording), **_metadata(preprocessed, entities)}
    t_r = _repetition_time(metadata, header_t_r, bold[0])
    start_time = _start_time(metadata)
    films = _presentations(bids_dir, events[-1], shown, probed)
    _check_timing(films, n_volumes * t_r, t_r, events[-1], bold[0])
    queries = specification()["queries"]
    confounds = _inherited(preprocessed, recording, **queries["confounds"])
    masks = _inherited(preprocessed, {**entities, "desc": "brain"}, **queries["mask"])
    return Run(
        subject=recording["subject"],
        session=recording.get("session"),
        task=recording["task"],
        run=recording.get("run"),
        space=entities.get("space"),
        bold=bold,
        events=events[-1],
        confounds=confounds[-1] if confounds else None,
        mask=masks[-1] if masks and grid[0] == "volume" else None,
        t_r=t_r,
        start_time=t_r / 2 if start_time is None else start_time,
        n_volumes=n_volumes,
        films=films,
        grid=grid,
        has_timing=start_time is not None,
    )


def _repetition_time(metadata, header_t_r, path):
    t_r = metadata.get("RepetitionTime", header_t_r)
    if not isinstance(t_r, (int, float)) or not 0 < t_r < 60:
        raise InputError(f"RepetitionTime of {path} must be given in s in its sidecar; got {t_r}.")
    return float(t_r)


def _start_time(metadata):
    """Time in s of volume 0: fMRIPrep's StartTime, else the mean slice time; None if unknown."""
    start_time = metadata.get("StartTime")
    if isinstance(start_time, (int, float)):
        return float(start_time)
    slices = metadata.get("SliceTiming")
    if slices and not metadata.get("SliceTimingCorrected"):
        return float(np.mean(slices))
    return None


def _film_events(path):
    """Rows of events.tsv that show a film, or None."""
    try:
        events = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"stim_file": str})
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a readable TSV file: {error}.") from error
    if "stim_file" not in events:
        return None
    is_film = [
        isinstance(name, str) and Path(name).suffix.lower() in _VIDEO_EXTENSIONS
        for name in events["stim_file"]
    ]
    events = events[is_film]
    if events.empty:
        return None
    for column in ("onset", "duration"):
        values = events[column] if column in events else None
        if values is None or not pd.api.types.is_numeric_dtype(values) or values.isna().any():
            raise InputError(f"{path} must have a number in column {column} for every film.")
    return events.sort_values("onset", kind="stable")


def _presentations(bids_dir, events_path, events, probed):
    films = []
    for row in events.itertuples():
        stim_file = _stim_file(bids_dir, row.stim_file, events_path)
        if stim_file not in probed:
            probed[stim_file] = probe_video(stim_file)
        video = probed[stim_file]
        if row.duration > video.duration + _FILM_TOLERANCE_SECONDS:
            raise InputError(
                f"Film {stim_file} is shorter than {events_path.name} says: it lasts "
                f"{video.duration:.2f} s, expected {row.duration:.2f} s."
            )
        if row.duration <= 0:
            raise InputError(f"{events_path}: duration of {row.stim_file} must be positive.")
        name = Path(row.stim_file).as_posix()
        duration = min(float(row.duration), video.duration)
        films.append(Presentation(name, stim_file, float(row.onset), duration, video.variable_rate))
    for first, second in zip(films, films[1:], strict=False):
        overlap = first.onset + first.duration - second.onset
        if overlap > _FILM_TOLERANCE_SECONDS:
            raise InputError(
                f"{events_path}: films must not overlap; {first.film} and {second.film} do by "
                f"{overlap:.2f} s."
            )
    return tuple(films)


def _stim_file(bids_dir, name, events_path):
    """Path of a film, which may be a link only into stimuli/ or the data set's git-annex."""
    stimuli = bids_dir / "stimuli"
    path = stimuli / name
    resolved, home = path.resolve(), stimuli.resolve()
    annex = bids_dir.resolve() / ".git" / "annex" / "objects"
    written_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    if not written_inside or not (resolved.is_relative_to(home) or resolved.is_relative_to(annex)):
        raise InputError(f"stim_file must lie in {stimuli}; {events_path} names {name}.")
    if not resolved.is_file():
        raise InputError(f"Film not found: {path}, named by {events_path.name}.")
    return path


def _check_timing(films, scan, t_r, events_path, bold_path):
    for film in films:
        end = film.onset + film.duration
        if end > scan + t_r:
            raise InputError(
                f"{events_path}: {film.film} ends at {end:.2f} s, more than one TR after the scan "
                f"of {scan:.2f} s ({bold_path.name})."
            )
        if film.onset < -t_r:
            raise InputError(
                f"{events_path}: {film.film} begins at {film.onset:.2f} s, before the scan."
            )


def _check_alike(runs):
    """Runs of a subject must share grid and repetition time."""
    first = {}
    for run in runs:
        other = first.setdefault(run.subject, run)
        if run.grid != other.grid:
            raise InputError(
                f"Runs must share a grid: {run.bold[0].name} has {run.grid[-1]}, "
                f"{other.bold[0].name} has {other.grid[-1]}."
            )
        if abs(run.t_r - other.t_r) > 1e-3:
            raise InputError(
                f"Runs must share a repetition time: {run.bold[0].name} has {run.t_r:g} s, "
                f"{other.bold[0].name} has {other.t_r:g} s."
            )
