"""The files of a BIDS data set by their labels: which there are, and which apply to a recording.

Only names inside the data set are read. pybids' index takes labels from the folders above it too,
knows no ``.bidsignore`` and no other entities than its own: hence this listing.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, load_json

__all__ = ["BidsFile", "applicable", "describe", "list_files", "matches", "same_label"]

# BIDS' short keys -> the entities' names; others are named as they are written
_NAMES = {
    "sub": "subject",
    "ses": "session",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
    "mod": "modality",
}
_KEYS = {name: key for key, name in _NAMES.items()}
_EXTENSIONS = (".dtseries.nii", ".func.gii", ".nii.gz", ".nii", ".json", ".tsv")
_IMAGES = _EXTENSIONS[:4]
_SUFFIXES = frozenset(("bold", "events", "mask", "timeseries", "regressors"))
# folders without BOLD or events
_SKIPPED = frozenset("anat beh dwi eeg figures fmap ieeg log logs meg perf pet".split())
_DEEPEST = 4  # sub-/ses-/func/ and one more; loops of links end here


@dataclass(frozen=True)
class BidsFile:
    """A file and what its name and folders say.

    Attributes
    ----------
    path : Path
    folder : tuple of str
        From the data set's root.
    entities : dict
        Entity -> label as written, with "suffix" and "extension".
    labels : dict
        Entities without these two.
    """

    path: Path
    folder: tuple[str, ...]
    entities: dict

    @cached_property
    def labels(self):
        return {k: v for k, v in self.entities.items() if k not in ("suffix", "extension")}


def _extension(name):
    return next((e for e in _EXTENSIONS if name.endswith(e)), None)


@lru_cache(100_000)
def _parse(name):
    """Entities of a file name, or None where it is not a name of the kind looked for."""
    extension = _extension(name)
    if extension is None:
        return None
    *pairs, suffix = name[: -len(extension)].split("_")
    if suffix not in _SUFFIXES:
        return None
    entities = {}
    for pair in pairs:
        key, dash, label = pair.partition("-")
        key = _NAMES.get(key, key)
        if not (key and dash and label) or key in entities:
            return None
        entities[key] = label
    return {**entities, "suffix": suffix, "extension": extension}


def _walk(root, folder, depth, skipped=_SKIPPED):
    """Relative paths below a folder, in no order; folders that cannot matter are left out."""
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        raise InputError(f"Folder {root / folder} cannot be read: {error.strerror}.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself: who opens it says so
            is_folder = False
        if not is_folder:
            yield folder / entry.name
        elif depth and entry.name not in skipped:
            yield from _walk(root, folder / entry.name, depth - 1, skipped)


def list_files(root, *, subjects=None, bidsignore=False, database=None, pattern=None):
    """List the files of a data set that have to do with BOLD.

    Parameters
    ----------
    root : Path
    subjects : list of str or None, default=None
        Look into these participants' folders only.
    bidsignore : bool, default=False
        Leave out what ``.bidsignore`` names. Derivatives list there what the validator does not
        know, which are the very files to be read.
    database : Path or None, default=None
        JSON file that keeps the list, of all participants, for later calls.
    pattern : PathPattern or None, default=None
        What paths of BOLD are like; other images are none.

    Returns
    -------
    files : dict
        Folder (tuple of str, from the root) -> list of BidsFile.

    Raises
    ------
    InputError
        A folder cannot be read; the database is out of date or of another data set; a name
        contradicts its folder; a pattern that no image matches.
    """
    if database is not None and database.exists():
        names = _from_database(root, database, pattern)
    else:
        names = _names(root, None if database is not None else subjects, pattern)
        if database is not None:
            _to_database(root, database, names, pattern)
    ignored = _ignored(root) if bidsignore else None
    files = {}
    for name in names:
        if ignored is None or not ignored(name):
            *folder, last = name.split("/")
            entities = _by_pattern(name, pattern) if pattern else _by_name(root, folder, last)
            if entities is not None:
                folder = tuple(folder)
                files.setdefault(folder, []).append(BidsFile(root / name, folder, entities))
    if pattern is not None:
        _check_pattern(root, files, names, pattern)
    return files


def _names(root, subjects, pattern):
    """Paths, relative to the root, of the files of a data set that may matter."""
    if pattern is not None:
        names = _walk(root, Path(), max(pattern.depth, _DEEPEST), skipped=())
        return sorted(
            name.as_posix() for name in names if _may_be_bold(name.name) or _parse(name.name)
        )
    names = []
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise InputError(f"Folder {root} cannot be read: {error.strerror}.") from error
    for entry in entries:
        if not entry.is_dir():
            names.append(Path(entry.name))
        elif entry.name.startswith("sub-") and (subjects is None or entry.name[4:] in subjects):
            names += _walk(root, Path(entry.name), _DEEPEST)
    return sorted(name.as_posix() for name in names if _parse(name.name))


def _may_be_bold(name):
    """Whether a name could be an image's or its sidecar's, whatever it is called."""
    return _extension(name) not in (None, ".tsv")


def _is_image(name):
    return _extension(name) not in (None, ".json", ".tsv")


def _by_name(root, folder, name):
    """Entities by a name and the folders that it lies in."""
    entities = dict(_parse(name))
    for part, key, entity in zip(folder, ("sub-", "ses-"), _NAMES.values(), strict=False):
        if part.startswith(key):
            label = part[len(key) :]
            if not same_label(entities.setdefault(entity, label), label):
                path = root.joinpath(*folder, name)
                raise InputError(f"{path} must be named as its folder {part}/ is.")
    return entities


def _by_pattern(path, pattern):
    """Entities by a path pattern and, besides, by the name; None of an image that is no BOLD."""
    name = path.rpartition("/")[2]
    by_name = _parse(name)
    # the sidecar of an image is named as the image
    stem = name[: -len(_extension(name))]
    paths = [path] if _is_image(name) else [path[: -len(name)] + stem + e for e in _IMAGES]
    found = next((labels for p in paths if (labels := pattern.read(p)) is not None), None)
    if found is None or name.endswith(".tsv"):
        return dict(by_name) if by_name and by_name["suffix"] != "bold" else None
    return {**(by_name or {}), **found, "suffix": "bold", "extension": _extension(name)}


def _check_pattern(root, files, names, pattern):
    bold = [f for found in files.values() for f in found if f.entities["suffix"] == "bold"]
    if not any(_is_image(file.path.name) for file in bold):
        images = [name for name in names if _is_image(name)]
        there = f"there is for example {images[0]}" if images else "there are no images"
        raise InputError(
            f"`derivatives_pattern` must match BOLD in {root}; {pattern.text} matches nothing: "
            f"{there}."
        )


def _to_database(root, database, names, pattern):
    import json

    text = None if pattern is None else pattern.text
    content = {"root": str(root.resolve()), "pattern": text, "files": names}
    with atomic_path(database) as temporary:
        temporary.write_text(json.dumps(content))


def _from_database(root, database, pattern):
    content = load_json(database)
    if content.get("root") != str(root.resolve()):
        raise InputError(f"Database {database} is of {content.get('root')}; expected {root}.")
    if content.get("pattern") != (None if pattern is None else pattern.text):
        raise InputError(f"Database {database} is of another `derivatives_pattern`; remove it.")
    names = content.get("files")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"Database {database} must list files; remove it.")
    for name in names:
        last = name.rpartition("/")[2]
        known = _parse(last) or (pattern is not None and _may_be_bold(last))
        if name.startswith("/") or ".." in name.split("/") or not known:
            raise InputError(f"Database {database} must list files of the data set; got {name}.")
        if not os.path.lexists(f"{root}/{name}"):
            raise InputError(f"Database {database} is out of date: {name} is gone; remove it.")
    return names


def _ignored(root):
    """Tell whether ``.bidsignore`` (gitignore's patterns) names a path; the last match decides."""
    path = root / ".bidsignore"
    if not path.is_file():
        return None
    rules = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keeps, pattern = pattern.startswith("!"), pattern.lstrip("!").rstrip("/")
        anywhere = "" if "/" in pattern else "(?:.*/)?"
        rules.append((re.compile(anywhere + _glob(pattern.lstrip("/")) + "(?:/.*)?"), keeps))

    def is_ignored(name):
        found = [keeps for rule, keeps in rules if rule.fullmatch(name)]
        return bool(found) and not found[-1]

    return is_ignored


def _glob(pattern):
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        wild.get(part) or re.escape(part) for part in re.split(r"(\*\*/?|[*?])", pattern)
    )


def same_label(value, label):
    """Compare two labels; run-1 is run-01."""
    value, label = str(value), str(label)
    if value == label:
        return True
    both = value + label
    return both.isascii() and both.isdigit() and value.lstrip("0") == label.lstrip("0")


def matches(entities, key, wanted):
    """Whether an entity has one of the labels wanted; None among them: it may be absent."""
    wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(
        key not in entities
        if label is None
        else key in entities and same_label(entities[key], label)
        for label in wanted
    )


def applicable(files, labels, folder, **wanted):
    """Paths that apply to a recording by BIDS' inheritance, the nearest last.

    A file applies if it lies in the recording's folder or above it, and all of its labels are
    among the recording's.

    Parameters
    ----------
    files : dict
        As `list_files` gives them.
    labels : dict
        Of the recording.
    folder : tuple of str
        Where the recording lies, from the root.
    **wanted
        Labels that the file must have besides, with `suffix` and extension.

    Returns
    -------
    paths : list of Path
    """
    found = []
    above = [folder[:depth] for depth in range(len(folder) + 1)]
    suffixes, task = np.atleast_1d(wanted["suffix"]).tolist(), labels.get("task")
    for file in (file for parts in above for file in files.get(parts, ())):
        # what most of the many files at a root differ in
        if file.entities["suffix"] not in suffixes:
            continue
        if task is not None and not same_label(file.entities.get("task", task), task):
            continue
        if not all(matches(file.entities, key, value) for key, value in wanted.items()):
            continue
        others = file.labels.keys() - wanted.keys()
        if all(_stands_for(labels, key, file.labels[key]) for key in others):
            found.append((len(file.folder), len(others), file.path))
    return [path for _, _, path in sorted(found)]


def _stands_for(labels, key, value):
    if key in labels:
        return same_label(labels[key], value)
    # what is combined to one image: its magnitude, and the timing of its first echo
    return (key, value.lstrip("0")) in (("part", "mag"), ("echo", "1"))


def describe(labels):
    """Labels as a file's name has them, for messages."""
    return "_".join(f"{_KEYS.get(key, key)}-{label}" for key, label in labels.items())
