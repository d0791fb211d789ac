"""Parts of films: their names, what no split may separate, and the only film of a data set."""

import re
import warnings
from dataclasses import replace

import numpy as np

from brainnrds._checks import InputError
from brainnrds.films import BORDER_SECONDS, film_groups

__all__ = [
    "continues",
    "cut_only_film",
    "file_of",
    "group_parts",
    "groups_of_films",
    "name_parts",
]

# of the only film: s of a part at least, of which the border is lost, and the most parts
_SHORTEST_PART, _MOST_PARTS = 60.0, 10
_CLOCK_SECONDS = 1e-3
_PART_SIGN = "#t="  # of media fragments: film.mp4#t=886


def _map_parts(runs, change):
    return [replace(run, films=tuple(change(part) for part in run.films)) for run in runs]


def name_parts(runs):
    """Name parts of films by their first second: parts that begin alike are repeats.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    runs : list of Run
    """

    def named(part):
        if part.film_start <= 0:
            return part
        start = f"{part.film_start:.3f}".rstrip("0").rstrip(".")
        return replace(part, film=f"{file_of(part.film)}{_PART_SIGN}{start}")

    return _map_parts(runs, named)


def file_of(name):
    """Name of the film of which a name is a part's."""
    return name.partition(_PART_SIGN)[0]


def continues(part, previous):
    """Whether a presentation goes on, in the run and in the film, where the one before ended."""
    return (
        previous is not None
        and part.stim_file == previous.stim_file
        and abs(previous.onset + previous.duration - part.onset) < _CLOCK_SECONDS
        and abs(previous.footage[1] - part.film_start) < _CLOCK_SECONDS
    )


def group_parts(runs, groups):
    """Say which film group a presentation belongs to.

    Parameters
    ----------
    runs : list of Run
        Film groups of a film table stand in their presentations.
    groups : str
        "film": those of the table, else each film is its own. Else a regular expression: what of
        it matches a film's name, or its first group does, names the film group.

    Returns
    -------
    runs : list of Run

    Raises
    ------
    InputError
        No regular expression, or a film that it does not match; parts of different groups that
        share footage.
    """
    if groups != "film":
        try:
            pattern = re.compile(groups)
        except (re.error, TypeError) as error:
            raise InputError(
                f"`film_groups` must be 'film' or a regular expression; got {groups!r}: {error}."
            ) from error

        def grouped(part):
            found = pattern.search(file_of(part.film))
            if found is None:
                raise InputError(
                    f"`film_groups` must match the name of every film; {groups!r} does not match "
                    f"{part.film}."
                )
            return replace(part, film_group=found.group(1 if pattern.groups else 0))

        runs = _map_parts(runs, grouped)
    first = {}
    for stretch, part in _shared_footage(runs):
        other = first.setdefault(stretch, part)
        if other.film_group != part.film_group:
            raise InputError(
                f"Film groups must not separate shared footage; {other.film} is of "
                f"{other.film_group or 'no group'}, {part.film} of {part.film_group or 'no group'}."
            )
    return runs


def groups_of_films(runs, film_names):
    """Give the film group of each film: what no split may separate.

    Films of one scanner run belong together, and so do parts of one film, or what was grouped. If
    everything hangs together, runs do not count, and gaps at borders keep films apart; if there is
    but one film, parts of it that share no footage are apart.

    Parameters
    ----------
    runs : list of Run
    film_names : list of str

    Returns
    -------
    groups : array of int of shape (n_films,)
    """
    index = {name: i for i, name in enumerate(film_names)}
    of_runs = [(f"run {i}", part) for i, run in enumerate(runs) for part in run.films]
    parts = [part for _, part in of_runs]
    of_groups = [(f"group {p.film_group or p.stim_file}", p) for p in parts]
    footage = _shared_footage(runs)
    levels = [of_runs + of_groups, of_groups]
    if all(part.film_group is None for part in parts):
        levels += [of_runs + footage, footage]
    for ties in levels:
        what = np.unique([tie for tie, _ in ties], return_inverse=True)[1]
        films = np.array([index[part.film] for _, part in ties])
        groups = np.arange(len(film_names))
        groups[films] = film_groups(what, films)
        if len(np.unique(groups)) > 1:
            break
    return groups


def _shared_footage(runs):
    """Parts of films with a label of the stretch of footage that they belong to."""
    parts = sorted(
        (p for run in runs for p in run.films), key=lambda p: (str(p.stim_file), p.film_start)
    )
    ties, n_stretches, end = [], 0, -np.inf
    for before, part in zip([None, *parts], parts, strict=False):
        new = before is None or before.stim_file != part.stim_file
        if new or part.film_start > end - _CLOCK_SECONDS:
            n_stretches, end = n_stretches + 1, -np.inf
        end = max(end, part.footage[1])
        ties.append((f"stretch {n_stretches}", part))
    return ties


def cut_only_film(runs):
    """Cut the only film of a participant into parts, so that some can be held out.

    Parts are contiguous in film time, and the same in every run. What follows a border by less than
    18 s does not count: 9 s of delays, and 9 s of response to what was shown before.

    Parameters
    ----------
    runs : list of Run
        Of one participant.

    Returns
    -------
    runs : list of Run
        Unchanged where there is something to hold out, or too little to cut: less than 2 min.
    """
    names = list(dict.fromkeys(part.film for run in runs for part in run.films))
    if len(np.unique(groups_of_films(runs, names))) > 1:
        return runs
    parts = [part for run in runs for part in run.films]
    if len({part.stim_file for part in parts}) > 1 or parts[0].film_group is not None:
        return runs
    start = min(part.film_start for part in parts)
    length = max(part.footage[1] for part in parts) - start
    n_parts = min(_MOST_PARTS, int(length // _SHORTEST_PART))
    if n_parts < 2:
        return runs
    # round, so that people whose onsets differ by a little have the same parts
    step = 10 * np.ceil(length / n_parts / 10)
    borders = 10 * np.floor(start / 10) + step * np.arange(1, n_parts)
    warnings.warn(
        f"There is only one film, {file_of(parts[0].film)}: it is cut into parts of {step:g} s, "
        f"which are held out in turn. {BORDER_SECONDS:g} s after each border do not count.",
        stacklevel=2,
    )
    cut = [
        replace(run, films=tuple(p for part in run.films for p in _cut(part, borders)))
        for run in runs
    ]
    return name_parts(cut)


def _cut(part, borders):
    start, end = part.footage
    edges = [start, *(b for b in borders if start + 1 < b < end - 1), end]
    for begin, until in zip(edges, edges[1:], strict=False):
        onset = part.onset + begin - start
        yield replace(part, onset=onset, duration=until - begin, film_start=float(begin))
