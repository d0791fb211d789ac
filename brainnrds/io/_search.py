"""The files of a BIDS data set by their labels: which there are, and which apply to a recording.

Only names inside the data set are read. pybids' index takes labels from the folders above it too,
knows no ``.bidsignore`` and no other entities than its own: hence this listing.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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


def _parse(name):
    """Entities of a file name, or None where it is not a name of the kind looked for."""
    extension = next((e for e in _EXTENSIONS if name.endswith(e)), None)
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


def _walk(root, folder, depth):
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
        elif depth and entry.name not in _SKIPPED:
            yield from _walk(root, folder / entry.name, depth - 1)


def list_files(root, *, subjects=None, bidsignore=False, database=None):
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

    Returns
    -------
    files : dict
        Folder (tuple of str, from the root) -> list of BidsFile.

    Raises
    ------
    InputError
        A folder cannot be read; the database is out of date or of another data set; a name
        contradicts its folder.
    """
    if database is not None and database.exists():
        names = _from_database(root, database)
    else:
        names = []
        try:
            entries = sorted(root.iterdir())
        except OSError as error:
            raise InputError(f"Folder {root} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if not entry.is_dir():
                names.append(Path(entry.name))
            elif entry.name.startswith("sub-") and (
                subjects is None or database is not None or entry.name[4:] in subjects
            ):
                names += _walk(root, Path(entry.name), _DEEPEST)
        names = sorted(name for name in names if _parse(name.name))
        if database is not None:
            _to_database(root, database, names)
    ignored = _ignored(root) if bidsignore else None
    files = {}
    for name in names:
        if ignored is None or not ignored(name.as_posix()):
            folder = name.parts[:-1]
            file = BidsFile(root / name, folder, _entities(root, name))
            files.setdefault(folder, []).append(file)
    return files


def _entities(root, name):
    entities = _parse(name.name)
    for part, key, entity in zip(name.parts[:-1], ("sub-", "ses-"), _NAMES.values(), strict=False):
        if part.startswith(key):
            label = part[len(key) :]
            if not same_label(entities.setdefault(entity, label), label):
                raise InputError(f"{root / name} must be named as its folder {part}/ is.")
    return entities


def _to_database(root, database, names):
    import json

    content = {"root": str(root.resolve()), "files": [name.as_posix() for name in names]}
    with atomic_path(database) as temporary:
        temporary.write_text(json.dumps(content))


def _from_database(root, database):
    content = load_json(database)
    if content.get("root") != str(root.resolve()):
        raise InputError(f"Database {database} is of {content.get('root')}; expected {root}.")
    listed = content.get("files")
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"Database {database} must list files; remove it.")
    names = [Path(name) for name in listed]
    for name in names:
        if name.is_absolute() or ".." in name.parts or not _parse(name.name):
            raise InputError(f"Database {database} must list files of the data set; got {name}.")
        if not os.path.lexists(root / name):
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
        Labels that the file must have besides, with suffix and extension.

    Returns
    -------
    paths : list of Path
    """
    found = []
    above = [folder[:depth] for depth in range(len(folder) + 1)]
    for file in (file for parts in above for file in files.get(parts, ())):
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
