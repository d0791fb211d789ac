"""Which films a run shows and when: rows of events.tsv, checked against films and scan."""

import os
import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds._files import check_file
from brainnrds.features.delays import LATEST_RESPONSE
from brainnrds.io._texts import read_table
from brainnrds.io.video import probe_video

__all__ = [
    "VIDEO_EXTENSIONS",
    "FilmFolder",
    "Presentation",
    "cut_to_scan",
    "film_events",
    "presentations",
]

VIDEO_EXTENSIONS = frozenset(
    ".3gp .asf .avi .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogm .ogv "
    ".ts .vob .webm .wmv".split()
)
_TEXT = {"stim_file": str, "film_group": str}
# events.tsv and the film's own clock may differ by a frame or a scanner tick
_FILM_TOLERANCE_SECONDS = 0.5
# a film that is shown for less than this share of the time that it and the scan would allow, and
# this many s less, is remarked on
_SHORT_SHARE, _SHORT_SECONDS = 0.5, 10.0
# a film of which less than this share was scanned, or less than one response lasts, is left out
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Presentation:
    """One film, or a part of it, shown once.

    Attributes
    ----------
    film : str
        `stim_file` as events.tsv or the film table has it: relative to the folder of films, with
        "/" and its extension. A part that begins later than the film has its first second behind
        it, as media fragments have: "film.mp4#t=886".
    stim_file : Path
    onset, duration : float
        In s from the start of the run.
    film_start : float, default=0.0
        What is shown first, in s from the film's first frame.
    film_group : str or None, default=None
        Label of what no split may separate; None: the film.
    variable_rate : bool
        The film's frames do not follow each other at equal intervals.
    """

    film: str
    stim_file: Path
    onset: float
    duration: float
    film_start: float = 0.0
    film_group: str | None = None
    variable_rate: bool = False

    @property
    def footage(self):
        """What is shown of the film: from, until, in s from its first frame."""
        return self.film_start, self.film_start + self.duration


@dataclass
class FilmFolder:
    """Where films lie.

    Attributes
    ----------
    path : Path
    is_named : bool, default=False
        Named by the user: links in it may lead anywhere. In a data set's own stimuli/ they lead
        into it or into a git-annex only: whoever shares a data set must not choose what is read.
    probed : dict
        Film -> Video, of those that were looked into.
    """

    path: Path
    is_named: bool = False
    probed: dict = field(default_factory=dict)
    _locks: dict = field(default_factory=lambda: defaultdict(threading.Lock))

    def probe(self, stim_file):
        """Look into a film once, however many threads ask."""
        with self._locks[stim_file]:
            if stim_file not in self.probed:
                self.probed[stim_file] = probe_video(stim_file)
            return self.probed[stim_file]


def film_events(path):
    """Rows of events.tsv that show a film, or None."""
    events = read_table(path, "Events file", na_values="n/a", dtype=_TEXT)
    if "stim_file" not in events:
        alike = next((name for name in events if "stim_file" in name.lower()), None)
        if alike is not None:
            raise InputError(
                f"Events file {path} must have tab-separated columns, one of them stim_file; got "
                f"{alike[:80]!r}."
            )
        return None
    is_film = [
        isinstance(name, str) and Path(name).suffix.lower() in VIDEO_EXTENSIONS
        for name in events["stim_file"]
    ]
    events = events[is_film]
    if events.empty:
        return None
    if "film_start" not in events:
        events["film_start"] = 0.0
    if "film_group" not in events:
        events["film_group"] = None
    for column in ("onset", "duration", "film_start"):
        values = events[column] if column in events else None
        if values is None or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{path} must have a number in column {column} for every film.")
    return events.sort_values("onset", kind="stable")


def presentations(folder, events_path, events, scan):
    """The films of a run in order, and remarks on them; a missing duration is what is left."""
    films = []
    for row in events.itertuples():
        stim_file = _stim_file(folder, row.stim_file, events_path)
        video = folder.probe(stim_file)
        start, duration = float(row.film_start), row.duration
        if not 0 <= start < video.duration:
            raise InputError(
                f"{events_path}: film_start of {row.stim_file} must lie within the film, which "
                f"lasts {video.duration:.2f} s; got {start:.2f} s."
            )
        rest = video.duration - start
        if np.isnan(duration):
            left = scan - row.onset
            duration = min(rest, left) if left > 0 else rest
        if duration > rest + _FILM_TOLERANCE_SECONDS:
            raise InputError(
                f"Film {stim_file} is shorter than {events_path.name} says: it lasts "
                f"{video.duration:.2f} s, expected {start + duration:.2f} s."
            )
        if duration <= 0:
            raise InputError(f"{events_path}: duration of {row.stim_file} must be positive.")
        films.append(
            Presentation(
                Path(row.stim_file).as_posix(),
                stim_file,
                float(row.onset),
                min(float(duration), rest),
                start,
                row.film_group if isinstance(row.film_group, str) else None,
                video.variable_rate,
            )
        )
    for first, second in zip(films, films[1:], strict=False):
        overlap = first.onset + first.duration - second.onset
        if overlap > _FILM_TOLERANCE_SECONDS:
            raise InputError(
                f"{events_path}: films must not overlap; {first.film} and {second.film} do by "
                f"{overlap:.2f} s."
            )
    _check_parts(films, events_path, folder.probed)
    ends = [film.onset for film in films[1:]] + [scan]
    for film, end in zip(films, ends, strict=True):
        rest = folder.probe(film.stim_file).duration - film.film_start
        possible = min(rest, end - film.onset)
        # the length of a part is what somebody chose
        if film.film_start == 0 and film.duration < min(
            _SHORT_SHARE * possible, possible - _SHORT_SECONDS
        ):
            text = f"{events_path.name} says {film.duration:g} s of {film.film}"
            return tuple(films), (("short", f"{text}, {possible:.1f} s are there"),)
    return tuple(films), ()


def _check_parts(films, events_path, probed):
    """Refuse rows that cut one showing of a film into parts that would begin alike."""
    by_file = {}
    for film in films:
        by_file.setdefault((film.stim_file, film.film_start), []).append(film)
    for (stim_file, start), rows in by_file.items():
        whole = probed[stim_file].duration - start
        cut = [film for film in rows if film.duration < whole - _FILM_TOLERANCE_SECONDS]
        for first, second in zip(cut, cut[1:], strict=False):
            if second.onset + second.duration - first.onset <= whole + _FILM_TOLERANCE_SECONDS:
                raise InputError(
                    f"{events_path}: the rows of {first.film} at {first.onset:g} and "
                    f"{second.onset:g} s lie within one showing of it ({whole:.2f} s), and both "
                    f"begin at {start:g} s of it: give one row for the showing, or the film_start "
                    "of each part."
                )


def _stim_file(folder, name, events_path):
    """Path of a film below the folder of films."""
    stimuli = folder.path
    path = stimuli / name
    if any(ord(character) < 32 for character in name) or len(name) > 1000:
        raise InputError(f"stim_file must be a path in {stimuli}; {events_path} has {name[:80]!r}.")
    home = stimuli.resolve()
    try:
        resolved = Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise InputError(f"Film {str(path)[:200]!r} cannot be opened: {error}.") from error
    written_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    leads_inside = folder.is_named or resolved.is_relative_to(home) or _in_annex(resolved, home)
    if not (written_inside and leads_inside):
        raise InputError(f"stim_file must lie in {stimuli}; {events_path} names {name}.")
    if not folder.is_named and not stimuli.is_dir():
        raise InputError(
            f"There is no {stimuli}, and {events_path.name} names the film {name}: say with "
            "`stimuli` in which folder the films lie."
        )
    try:
        return check_file(path, "Film")
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; {events_path.name} names it.") from error


def _in_annex(path, stimuli):
    """Whether a path lies where git-annex keeps the content of the data sets around stimuli/.

    Of a submodule that is in ``.git/modules`` of the data set around it.
    """
    for above in (stimuli, *stimuli.parents):
        if path.is_relative_to(above / ".git"):
            return "/annex/objects/" in path.as_posix()
    return False


def cut_to_scan(films, scan, t_r, source, bold_path, *, strict):
    """Cut films to what was scanned, and leave out those of which too little was.

    Parameters
    ----------
    films : tuple of Presentation
    scan : float
        End of the scan in s; a film may end up to a repetition time later.
    t_r : float
    source, bold_path : Path
        For messages.
    strict : bool
        Refuse instead.

    Returns
    -------
    films : tuple of Presentation
    remarks : tuple of (str, str)

    Raises
    ------
    InputError
        A film begins more than a repetition time before the scan; with `strict`, one ends later.
    """
    kept, cut, left_out = [], [], []
    for film in films:
        end, left = film.onset + film.duration, scan - film.onset
        if film.onset < -t_r:
            raise InputError(
                f"{source}: {film.film} begins at {film.onset:.2f} s, before the scan."
            )
        if end <= scan + t_r:
            kept.append(film)
        elif strict:
            raise InputError(
                f"{source}: {film.film} ends at {end:.2f} s, more than one TR after the scan "
                f"of {scan:.2f} s ({bold_path.name})."
            )
        elif left < max(_LEAST_SHARE * film.duration, LATEST_RESPONSE):
            left_out.append(film)
        else:
            cut.append(film)
            kept.append(replace(film, duration=left))
    remarks = []
    for kind, some in (("cut", cut), ("left out", left_out)):
        if some:
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            text = (
                f"{some[0].film} at {some[0].onset:g} s{more} of {bold_path.name}, which ends at "
                f"{scan:.2f} s"
            )
            remarks.append((kind, text))
    return tuple(kept), tuple(remarks)
