"""A film table: which films were shown when, where events.tsv does not say or says otherwise."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd

from brainnrds._checks import InputError
from brainnrds.io._presentations import VIDEO_EXTENSIONS
from brainnrds.io._search import describe, matches, same_label
from brainnrds.io._texts import read_table

__all__ = ["FilmTable", "draft_rows", "read_film_table", "read_stimuli_table"]

_RUN_COLUMNS = {
    "subject": "sub-",
    "session": "ses-",
    "task": "task-",
    "acquisition": "acq-",
    "direction": "dir-",
    "run": "run-",
}
_NUMBERS = ("onset", "duration", "film_start")
_ABSENT = {"onset": 0.0, "duration": np.nan, "film_start": 0.0}
_ANY = "n/a"
_MOST_LISTED = 10


@dataclass
class FilmTable:
    """Rows that select runs and events, and name films.

    Attributes
    ----------
    source : Path
        For messages.
    rows : DataFrame of str
        "n/a" where nothing is said; the index counts lines of the file, the header being 1.
    of_runs, matched : set of int
        Rows that were of a run so far, and of these such as found an event or need none.
    columns_seen : set of str
        Columns of the events files that were looked into.
    left_over : Counter
        Events that no row selected, in runs where rows select events.
    """

    source: Path
    rows: pd.DataFrame
    of_runs: set = field(default_factory=set)
    matched: set = field(default_factory=set)
    columns_seen: set = field(default_factory=set)
    left_over: Counter = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def event_columns(self):
        """Columns that select events."""
        named = {"stim_file", "film_group", "events", *_RUN_COLUMNS, *_NUMBERS}
        return [column for column in self.rows if column not in named]

    def events_of(self, labels):
        """Name of the events file of a run, where a row says it, or None.

        Raises
        ------
        InputError
            Rows of the run name different files, or a label that the run lacks.
        """
        if "events" not in self.rows:
            return None
        names = {row["events"] for row in self._rows_of(labels).values()} - {_ANY}
        if len(names) > 1:
            raise InputError(
                f"Rows of {self.source} contradict each other: for {describe(labels)} they name "
                f"the events {' and '.join(sorted(names))}."
            )
        for name in names:
            try:
                return name.format(**labels)
            except (KeyError, IndexError, ValueError) as error:
                raise InputError(
                    f"events of {self.source} must name a file, with labels of the run in braces; "
                    f"got {name!r} for {describe(labels)}."
                ) from error
        return None

    def shown_in(self, labels, events_path):
        """Find the films of a run.

        Parameters
        ----------
        labels : dict
            Entity -> label.
        events_path : Path or None
            Its events.tsv.

        Returns
        -------
        shown : DataFrame or None
            ``stim_file``, ``onset``, ``duration`` (s; NaN: not said), ``film_start`` and
            ``film_group``, by onset. None: no row is of this run.

        Raises
        ------
        InputError
            Two rows name a film for one event; it is open which event a row means; onset or
            duration of an event are no numbers.
        """
        mine = self._rows_of(labels)
        if not mine:
            return None
        events = None
        if events_path is not None:
            events = read_table(events_path, "Events file", dtype=str, keep_default_na=False)
        shown, taken, of_use = [], {}, set()
        for i, row in mine.items():
            wanted = {c: row[c] for c in self.event_columns if row[c] != _ANY}
            chosen = self._events_of(i, row, wanted, events, events_path)
            if row.get("onset", _ANY) != _ANY and len(chosen) > 1:
                raise InputError(
                    f"{self._row(i)} gives one onset for {len(chosen)} events of "
                    f"{events_path.name}: leave it out, or select one event."
                )
            for event in chosen:
                other = taken.setdefault(event, i) if event is not None else i
                if other != i:
                    raise InputError(
                        f"Rows {other} and {i} of {self.source} contradict each other: both name "
                        f"a film for an event at {events['onset'][event]} s of {events_path.name}."
                    )
                told = {} if event is None else events.loc[event]
                shown.append(self._times(row, told, events_path))
            of_use |= {i} if chosen else set()
        with self._lock:  # runs are looked into in parallel
            self.of_runs |= set(mine)
            self.matched |= of_use
            if events is not None:
                self._count_left_over(events, taken)
        return pd.DataFrame(shown).sort_values("onset", kind="stable") if shown else None

    def _row(self, i):
        return f"Row {i} of {self.source}"

    @cached_property
    def _records(self):
        return dict(zip(self.rows.index, self.rows.to_dict("records"), strict=True))

    def _rows_of(self, labels):
        """Rows that select a run: index -> cells."""
        columns = [column for column in _RUN_COLUMNS if column in self.rows]
        return {
            i: row
            for i, row in self._records.items()
            if all(row[c] == _ANY or matches(labels, c, row[c]) for c in columns)
        }

    def _events_of(self, i, row, wanted, events, events_path):
        """Events that a row means: their indices; None is a film without an event."""
        if not wanted:
            if row.get("onset", _ANY) != _ANY or events is None or events.empty:
                return [None]
            if len(events) > 1:
                raise InputError(
                    f"{self._row(i)} must give an onset or select an event by a column of "
                    f"{events_path.name}, which has {len(events)}."
                )
            return [0]
        if events is None or not set(wanted) <= set(events):
            return []
        same = [
            [_is_same(value, text) for text in events[column]] for column, value in wanted.items()
        ]
        return np.flatnonzero(np.all(same, axis=0)).tolist()

    @staticmethod
    def _times(row, event, events_path):
        """Name and times of a film; a row's own come before its event's."""
        group = row.get("film_group", _ANY)
        group = event.get("film_group", _ANY) if group == _ANY else group
        film = {"stim_file": row["stim_file"], "film_group": None if group == _ANY else group}
        for column in _NUMBERS:
            text = row.get(column, _ANY)
            text = event.get(column, _ANY) if text == _ANY else text
            if text == _ANY and (column != "onset" or not len(event)):
                film[column] = _ABSENT[column]
                continue
            film[column] = _number(text)
            if film[column] is None:
                raise InputError(
                    f"{events_path} must have a number in column {column} for every film; got "
                    f"{text[:80]!r}."
                )
        return film

    def _count_left_over(self, events, taken):
        self.columns_seen |= set(events)
        columns = [column for column in self.event_columns if column in events]
        if not columns or not taken:
            return
        for _, event in events.drop(index=list(taken)).iterrows():
            self.left_over[", ".join(f"{column} {event[column]}" for column in columns)] += 1

    def check_columns(self):
        """Refuse columns that select nothing, once all runs were looked at."""
        unknown = [c for c in self.event_columns if c not in self.columns_seen]
        if self.of_runs and unknown:
            raise InputError(
                f"Columns of {self.source} must be stim_file, {', '.join(_NUMBERS)}, film_group, "
                f"events, {', '.join(_RUN_COLUMNS)} or columns of events.tsv; got "
                f"{', '.join(unknown)}."
            )

    def remarks(self, wanted):
        """Say which rows and events match nothing.

        Parameters
        ----------
        wanted : dict
            Entity -> list of labels that were asked for, or None: rows of others are no matter.

        Returns
        -------
        remarks : list of str
        """
        remarks = []
        idle = [
            f"{i} ({self._describe(row)})"
            for i, row in self.rows.iterrows()
            if i not in self.matched and _is_asked_for(row, wanted)
        ]
        if idle:
            remarks.append(
                f"{len(idle)} rows of {self.source} match no run or event: {_listed(idle)}."
            )
        if self.left_over:
            events = [f"{text} ({n})" for text, n in self.left_over.most_common()]
            remarks.append(
                f"{self.left_over.total()} events match no row of {self.source} and show no film: "
                f"{_listed(events)}."
            )
        return remarks

    def _describe(self, row):
        labels = {c: row[c] for c in _RUN_COLUMNS if c in row and row[c] != _ANY}
        events = [f"{c} {row[c]}" for c in self.event_columns if row[c] != _ANY]
        return ", ".join([describe(labels)] * bool(labels) + events + [row["stim_file"]])


def _listed(texts):
    more = len(texts) - _MOST_LISTED
    return ", ".join(texts[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _is_asked_for(row, wanted):
    return all(
        labels is None
        or row.get(column, _ANY) == _ANY
        or any(same_label(row[column], label) for label in labels)
        for column, labels in wanted.items()
    )


def _is_same(value, text):
    """Compare a cell with an event's: as text, or as numbers."""
    return value == text or (_number(value) is not None and _number(value) == _number(text))


def _number(text):
    """A finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def read_film_table(films, *, source=Path("films")):
    """Read and check a film table.

    Parameters
    ----------
    films : path-like, DataFrame or None
        As in `find_runs`. Missing values of a DataFrame are "n/a".
    source : Path, default=Path("films")
        What messages call a DataFrame.

    Returns
    -------
    table : FilmTable or None

    Raises
    ------
    InputError
        It cannot be read, has no column ``stim_file``, no row or an empty cell; a label, number
        or film that cannot be; two rows that select the same.
    """
    if films is None:
        return None
    if isinstance(films, (str, os.PathLike)):
        source = Path(films)
        rows = read_table(source, "Film table", dtype=str, keep_default_na=False)
    elif isinstance(films, pd.DataFrame):
        rows = films.map(_text).rename(columns=str)
    else:
        raise InputError(
            f"`films` must be the path of a film table, or a DataFrame; got {films!r:.80}."
        )
    if "stim_file" not in rows:
        raise InputError(
            f"Film table {source} must have a column stim_file; got {', '.join(rows)[:200]}."
        )
    if rows.empty:
        raise InputError(f"Film table {source} must have at least one row; got none.")
    rows = rows.map(str.strip)
    rows.index = range(2, 2 + len(rows))
    for column, prefix in _RUN_COLUMNS.items():
        if column in rows:
            rows[column] = rows[column].str.removeprefix(prefix)
    table = FilmTable(source, rows)
    for i, row in rows.iterrows():
        _check_row(table, i, row)
    _check_contradictions(table)
    return table


def read_stimuli_table(folder):
    """Read the film table that ``stimuli.tsv`` and the names beside it make.

    By BIDS' extension proposal for stimuli (BEP044), events name films as ``stim_id``, films are
    called ``stim-<label>_video`` or ``_audiovideo``, and ``stimuli.tsv`` lists what there is.

    Parameters
    ----------
    folder : Path
        Of the films.

    Returns
    -------
    table : FilmTable or None
        With the columns ``stim_id`` and ``stim_file``. None: there is no ``stimuli.tsv``, or no
        film in it.

    Raises
    ------
    InputError
        It cannot be read, names no ``stimulus_id``, or several files are one film.
    """
    source = folder / "stimuli.tsv"
    if not source.is_file():
        return None
    listed = read_table(source, "Table of stimuli", dtype=str, keep_default_na=False)
    column = next((c for c in ("stimulus_id", "stim_id") if c in listed), None)
    if column is None:
        raise InputError(f"{source} must have a column stimulus_id; got {', '.join(listed)[:200]}.")
    names = {}
    for path in sorted(folder.rglob("stim-*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            other = names.setdefault(path.name.partition("_")[0], name)
            if other != name:
                raise InputError(f"{source}: {other} and {name} must not be one stimulus.")
    for stimulus, kind in zip(listed[column], listed.get("type", [""] * len(listed)), strict=True):
        if kind in ("video", "audiovideo"):  # a film that is not there is asked for by this name
            names.setdefault(stimulus, f"{stimulus}_{kind}.mp4")
    rows = [(name, names[name]) for name in dict.fromkeys(listed[column]) if name in names]
    if not rows:
        return None
    return read_film_table(pd.DataFrame(rows, columns=["stim_id", "stim_file"]), source=source)


def _text(value):
    """A value as a cell would have it; a missing one makes whole numbers floats."""
    if pd.isna(value):
        return _ANY
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_row(table, i, row):
    empty = [column for column, text in row.items() if not text]
    if empty:
        raise InputError(
            f"Row {i} of {table.source} must be filled in: {', '.join(empty)} is empty ({_ANY} "
            "says: any, or as in events.tsv)."
        )
    for column in _RUN_COLUMNS:
        label = row.get(column, _ANY)
        if label != _ANY and not re.fullmatch("[0-9a-zA-Z+]+", label):
            raise InputError(
                f"Row {i} of {table.source}: a {column} label has letters and digits only; got "
                f"{label[:80]!r}."
            )
    for column in _NUMBERS:
        text = row.get(column, _ANY)
        if text != _ANY and _number(text) is None:
            raise InputError(
                f"Row {i} of {table.source} must have a number or {_ANY} in column {column}; got "
                f"{text[:80]!r}."
            )
    events = row.get("events", _ANY)
    if events != _ANY and not re.fullmatch(r"[\w{}-]+_events\.tsv", events):
        raise InputError(
            f"Row {i} of {table.source} must name a file in column events, which ends in "
            f"_events.tsv; got {events[:80]!r}."
        )
    if Path(row["stim_file"]).suffix.lower() not in VIDEO_EXTENSIONS:
        raise InputError(
            f"Row {i} of {table.source} must name a film in stim_file, which ends in "
            f"{' '.join(sorted(VIDEO_EXTENSIONS))}; got {row['stim_file'][:80]!r}."
        )


def _check_contradictions(table):
    """Refuse rows that select the same: one film would be shown twice, or two at once."""
    said = ["stim_file", "duration", "film_start", "film_group"]
    selecting = table.rows.drop(columns=said, errors="ignore")
    first = {}
    for i, row in selecting.iterrows():
        other = first.setdefault(tuple(row), i)
        if other != i:
            raise InputError(
                f"Rows {other} and {i} of {table.source} contradict each other: they select the "
                f"same and name {table.rows['stim_file'][other]} and {table.rows['stim_file'][i]}."
            )


def draft_rows(recordings, events):
    """Draft a film table for recordings: see :func:`brainnrds.io.draft_film_table`.

    Parameters
    ----------
    recordings : list of dict
        Entity -> label.
    events : list of DataFrame of str or None
        Of each recording; None: it has no events file.

    Returns
    -------
    films : DataFrame of str
    """
    there = [table for table in events if table is not None]
    shared = set.intersection(*map(set, there)) if len(there) == len(recordings) else set()
    titles = {
        column: list(dict.fromkeys(pd.concat([table[column] for table in there]).dropna()))
        for column in (there[0] if there else ())
        if column in shared and _has_titles(there, column)
    }
    if titles:
        # `trial_type` may say "film" of all of them: the column that tells most apart has titles
        column = max(titles, key=lambda column: len(titles[column]))
        return pd.DataFrame({column: titles[column], "stim_file": ""})
    rows = {}
    for labels, table in zip(recordings, events, strict=True):
        key = labels["task"], labels.get("run", _ANY)
        # without events nobody says when the film began
        is_asked = table is None or len(table) > 1
        rows[key] = "" if is_asked or rows.get(key) == "" else _ANY
    draft = pd.DataFrame(list(rows), columns=["task", "run"])
    draft = draft.assign(onset=list(rows.values()), stim_file="")
    return draft.loc[:, [c for c in draft if c == "stim_file" or not (draft[c] == _ANY).all()]]


def _has_titles(tables, column):
    """Whether a column of events holds words, as titles are, and not numbers or films."""
    values = pd.concat([table[column] for table in tables]).dropna()
    words = [value for value in values if _number(value) is None]
    return len(words) == len(values) > 0 and column not in ("stim_file", *_NUMBERS)
