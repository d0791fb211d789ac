"""Movies of the Human Connectome Project at 7 T: the release, converted to BIDS.

People watched four films of several clips each, with rest between the clips, in one run a film; the
clip at the end is the same in all four. Runs are called as the release calls them, and so are the
films:

===  ==================  ===============  ========================
run  in the release      film, version 1  film, version 2
===  ==================  ===============  ========================
1    tfMRI_MOVIE1_7T_AP  7T_MOVIE1_CC1    7T_MOVIE1_CC1_v2
2    tfMRI_MOVIE2_7T_PA  7T_MOVIE2_HO1    7T_MOVIE2_HO1_v2
3    tfMRI_MOVIE3_7T_PA  7T_MOVIE3_CC2    7T_MOVIE3_CC2_v2
4    tfMRI_MOVIE4_7T_AP  7T_MOVIE4_HO2    7T_MOVIE4_HO2_v2
===  ==================  ===============  ========================

People who were scanned before 22 August 2014 saw version 1 [2]_. When each clip begins is in a
table of the project [2]_, which is not repeated here: give it.

References
----------
.. [1] Human Connectome Project, Young Adult 7T imaging protocol overview (repetition time 1 s;
   films; the clip that validates).
.. [2] Human Connectome Project, public wiki: 7T movie watching task clip info, timing, versions
   shown per individual subject.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from tqdm import tqdm

from brainnrds.datasets._conversion import (
    begin_conversion,
    count_volumes,
    finish_conversion,
    holds_conversion,
    link,
    write_json,
    write_table,
)
from brainnrds.io import InputError, load_table, probe_video

__all__ = ["hcp7t_to_bids"]

_VERSION = 1  # of the conversion: raise it when the same release gives other files
_T_R = 1.0
_RUNS = {
    1: ("tfMRI_MOVIE1_7T_AP", "7T_MOVIE1_CC1"),
    2: ("tfMRI_MOVIE2_7T_PA", "7T_MOVIE2_HO1"),
    3: ("tfMRI_MOVIE3_7T_PA", "7T_MOVIE3_CC2"),
    4: ("tfMRI_MOVIE4_7T_AP", "7T_MOVIE4_HO2"),
}
# mesh -> how the release names it, and its density in BIDS
_MESHES = {"59k": ("_1.6mm", "170k"), "32k": ("", "91k")}
_COLUMNS = ("movie", "clip", "onset", "duration")
_CLOCK_SECONDS = 0.5
_RULES = [
    "The repetition time is 1 s, whatever the headers say.",
    "A volume stands for the middle of its acquisition (no slice times are released): StartTime is "
    "0.5 s.",
    "Onsets are those of the table that was given, in s from the start of the run. Where it has no "
    "film_start, the film began with the run.",
    "A clip of the same name in several films is the same footage: it is written as a part of the "
    "first of them, so that its showings are repeats.",
    "Each clip is a film group of its own.",
]


def hcp7t_to_bids(
    source,
    output,
    *,
    films,
    clips,
    version,
    mesh="59k",
    subjects=None,
    missing="error",
    dry_run=False,
    verbose=1,
):
    """Convert the films of the Human Connectome Project at 7 T to BIDS.

    The result is a raw-like data set (films, events.tsv with the clips) and
    ``derivatives/hcp7t`` with the runs that FIX has cleaned, under their BIDS names: give the App
    ``--recipe hcp-7t``, which takes no confounds.

    Parameters
    ----------
    source : path-like
        Folder of the people's folders: ``<subject>/MNINonLinear/Results/tfMRI_MOVIE1_7T_AP/`` with
        ``tfMRI_MOVIE1_7T_AP_Atlas_1.6mm_MSMAll_hp2000_clean.dtseries.nii``, or without ``_1.6mm``
        on the mesh of 32k. It is only read.
    output : path-like
        A folder of its own. If it holds the same conversion, nothing is done. An interrupted
        conversion goes on in ``<output>.partial``; the final name appears at the end.
    films : path-like
        Folder that holds the mp4 files of the films, or folders with them.
    clips : path-like or DataFrame
        A row for each clip: ``movie`` (1 to 4), ``clip`` (its name; that of the clip which ends all
        four films is the same in each), ``onset`` and ``duration`` (s, in the run); where it has
        them, ``film_start`` (s into the mp4; the onset where there is none) and ``version``.
    version : {1, 2} or mapping of subject to it
        Of the films that were shown. There is no default: it differs between people.
    mesh : {"59k", "32k"}, default="59k"
    subjects : sequence of str or None, default=None
        Labels of people; None: all that have a run.
    missing : {"error", "skip"}, default="error"
        Whether to go on where a person lacks one of the four runs.
    dry_run : bool, default=False
        Check everything, write nothing.
    verbose : int, default=1

    Returns
    -------
    conversion : Bunch
        ``bids_dir``, ``derivatives_dir`` : Path; ``runs`` : DataFrame with one row for each run
        (subject, movie, version, path, n_volumes, bids_name); ``rules`` : list of str, every rule
        applied.

    Raises
    ------
    InputError
        Missing runs or films, several files for one run, a table that lacks a column or a film, or
        has clips that overlap or lie outside film or scan, an `output` that holds something else.

    Notes
    -----
    Runs are linked (hard links, else symbolic links, else copies); films are hard links or
    copies, since a film must lie inside ``stimuli/``.
    """
    if mesh not in _MESHES:
        raise InputError(f"`mesh` must be one of {', '.join(_MESHES)}; got {mesh!r}.")
    if missing not in ("error", "skip"):
        raise InputError(f"`missing` must be 'error' or 'skip'; got {missing!r}.")
    source, output = Path(source), Path(output)
    if not source.is_dir():
        raise InputError(f"No such directory: {source}.")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"`output` must lie outside the release; got {output}.")
    runs = _find_runs(source, subjects, mesh, version, missing)
    table = _read_clips(clips)
    places = _find_films(
        Path(films), sorted({(row.movie, row.version) for row in runs.itertuples()})
    )
    events = {shown: _events(table, *shown, places) for shown in places}
    for row in runs.itertuples():
        _check_scan(events[row.movie, row.version], row)
    record = {
        "version": _VERSION,
        "mesh": mesh,
        "runs": sorted(runs["bids_name"] + ", version " + runs["version"].astype(str)),
        "events": [events[shown].to_dict("list") for shown in sorted(events)],
        "rules": _RULES,
    }
    result = Bunch(
        bids_dir=output,
        derivatives_dir=output / "derivatives" / "hcp7t",
        runs=runs,
        rules=list(_RULES),
    )
    if holds_conversion(output, record) or dry_run:
        return result
    partial = begin_conversion(output, record)
    _write(partial, runs, places, events, mesh, verbose)
    finish_conversion(partial, output, record)
    return result


def _find_runs(source, subjects, mesh, version, missing):
    """Table of the runs of the release that there are."""
    if subjects is None:
        results = source.glob("*/MNINonLinear/Results/tfMRI_MOVIE?_7T_*")
        subjects = sorted({path.parents[2].name for path in results})
    rows, lacking = [], []
    for subject in map(str, subjects):
        for movie, (name, _) in _RUNS.items():
            folder = source / subject / "MNINonLinear" / "Results" / name
            pattern = f"{name}_Atlas{_MESHES[mesh][0]}_MSMAll_*clean*.dtseries.nii"
            found = sorted(folder.glob(pattern))
            if len(found) > 1:
                raise InputError(
                    f"One file must be there for {name} of {subject}; got "
                    f"{', '.join(path.name for path in found)}."
                )
            if not found:
                lacking.append(folder / pattern)
                continue
            shown = version.get(subject) if isinstance(version, Mapping) else version
            if shown not in (1, 2):
                raise InputError(f"`version` must say 1 or 2 for {subject}; got {shown!r}.")
            rows.append(
                {
                    "subject": subject,
                    "movie": movie,
                    "version": int(shown),
                    "path": found[0],
                    "n_volumes": count_volumes(found[0]),
                    "bids_name": f"sub-{subject}_task-movie_run-{movie}",
                }
            )
    if not rows or (lacking and missing == "error"):
        go_on = " Go on with missing='skip'." if rows else ""
        what = lacking[0] if lacking else source / "<subject>/MNINonLinear/Results"
        raise InputError(f"{max(1, len(lacking))} runs are missing, the first {what}.{go_on}")
    return pd.DataFrame(rows)


def _read_clips(clips):
    """The table of clips, checked, with film_start and version."""
    if isinstance(clips, pd.DataFrame):
        table, name = clips.copy(), "`clips`"
    else:
        table, name = load_table(clips), str(clips)
    lacking = [column for column in _COLUMNS if column not in table]
    if lacking or table.empty:
        raise InputError(
            f"{name} must have rows and the columns {', '.join(_COLUMNS)}; got "
            f"{', '.join(map(str, table))[:200]}."
        )
    if "film_start" not in table:
        table["film_start"] = np.nan
    for column in ("movie", "onset", "duration", "film_start"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        if column != "film_start" and not np.isfinite(table[column]).all():
            raise InputError(f"{name} must have a number in column {column} of every row.")
    table["film_start"] = table["film_start"].fillna(table["onset"])
    table["clip"] = table["clip"].astype(str)
    wrong = sorted(set(table["movie"]) - set(_RUNS))
    if wrong:
        raise InputError(f"{name} must have movies 1 to 4; got {wrong[0]:g}.")
    if not (table["duration"] > 0).all() or (table[["onset", "film_start"]] < 0).any(axis=None):
        raise InputError(f"{name} must have onsets and film_starts of 0 at least, and durations.")
    return table


def _of_version(table, version):
    """Rows of the clips of a version of the films."""
    if "version" not in table:
        return table
    return table[pd.to_numeric(table["version"], errors="coerce").isin([version])]


def _film_name(movie, version):
    return f"{_RUNS[movie][1]}{'_v2' if version == 2 else ''}.mp4"


def _find_films(folder, shown):
    """The mp4 file of each (movie, version)."""
    if not folder.is_dir():
        raise InputError(f"No such directory: {folder} (films).")
    places = {}
    for movie, version in shown:
        name = _film_name(movie, version)
        found = sorted(folder.rglob(name))
        if len(found) != 1:
            raise InputError(
                f"{folder} must hold the film {name} once; got {len(found) or 'none'}."
            )
        places[movie, version] = found[0]
    return places


def _events(table, movie, version, places):
    """Rows of events.tsv of a film; a clip that an earlier film has too is that one's."""
    of_version = _of_version(table, version).sort_values(["movie", "onset"])
    rows = of_version[of_version["movie"] == movie]
    name = _film_name(movie, version)
    if rows.empty:
        raise InputError(f"`clips` must have rows for movie {movie}, version {version}; got none.")
    ends = (rows["onset"] + rows["duration"]).to_numpy()
    if (ends[:-1] > rows["onset"].to_numpy()[1:] + _CLOCK_SECONDS).any():
        raise InputError(f"Clips of {name} must not overlap in `clips`.")
    seconds = probe_video(places[movie, version]).duration
    late = rows["film_start"] + rows["duration"] > seconds + _CLOCK_SECONDS
    if late.any():
        raise InputError(
            f"Clips must lie within their film: {rows['clip'][late].iloc[0]} ends after "
            f"{name}, which lasts {seconds:.2f} s."
        )
    events = []
    for row in rows.itertuples():
        same = of_version[of_version["clip"] == row.clip]
        there = [(m, v) for m, v in places if v == version]
        first = next(s for s in same.itertuples() if (s.movie, version) in there)
        events.append(
            {
                "onset": row.onset,
                "duration": min(row.duration, same["duration"].min()),
                "trial_type": row.clip,
                "stim_file": _film_name(int(first.movie), version),
                "film_start": first.film_start,
                "film_group": row.clip,
            }
        )
    return pd.DataFrame(events)


def _check_scan(events, row):
    end = (events["onset"] + events["duration"]).max()
    if end > (row.n_volumes + 1) * _T_R:
        raise InputError(
            f"Clips must have been scanned: the last of run {row.movie} ends at {end:g} s, "
            f"{row.path} has {row.n_volumes} volumes of {_T_R:g} s."
        )


def _write(output, runs, places, events, mesh, verbose):
    for shown, path in places.items():
        link(path, output / "stimuli" / _film_name(*shown), inside=True)
    derivatives = output / "derivatives" / "hcp7t"
    generated = [{"Name": "brainnrds.datasets.hcp7t_to_bids", "Version": str(_VERSION)}]
    for folder, kind in ((output, "raw"), (derivatives, "derivative")):
        about = {
            "Name": "HCP 7T movies" + (", runs as released" if kind == "derivative" else ""),
            "BIDSVersion": "1.10.0",
            "DatasetType": kind,
            "License": "Open Access Data Use Terms of the WU-Minn Human Connectome Project",
            "GeneratedBy": generated,
        }
        write_json(folder / "dataset_description.json", about)
    write_table(
        output / "participants.tsv",
        pd.DataFrame({"participant_id": "sub-" + runs["subject"].drop_duplicates()}),
    )
    progress = tqdm(
        runs.itertuples(), total=len(runs), desc="runs", disable=not verbose, unit="run"
    )
    for row in progress:
        person = f"sub-{row.subject}"
        write_table(
            output / person / "func" / f"{row.bids_name}_events.tsv",
            events[row.movie, row.version],
        )
        stem = f"{row.bids_name}_space-fsLR_den-{_MESHES[mesh][1]}_bold"
        func = derivatives / person / "func"
        link(row.path, func / f"{stem}.dtseries.nii")
        write_json(
            func / f"{stem}.json",
            {
                "RepetitionTime": _T_R,
                "StartTime": _T_R / 2,
                "SliceTimingCorrected": False,
                "TaskName": "movie",
                "Sources": [row.path.name],
                "FilmVersion": row.version,
                "ConversionRules": _RULES,
            },
        )
