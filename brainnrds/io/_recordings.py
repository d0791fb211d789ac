"""Which preprocessed recordings there are: labels that are asked for, spaces, files."""

import fnmatch
import re

import numpy as np

from brainnrds._checks import InputError
from brainnrds.io._places import deeper, is_minimal, minimal_level
from brainnrds.io._search import describe, matches, same_label
from brainnrds.io.derivatives import specification

__all__ = [
    "all_files",
    "bold_files",
    "check_filter",
    "is_pattern",
    "labels_wanted",
    "matching_bold",
    "order_of",
    "tasks_wanted",
]

# how an image was processed; whatever else a name says tells one recording from another
_PROCESSING = frozenset(
    "space res den desc hemi cohort atlas seg label smooth suffix extension".split()
)
_LABEL = re.compile(r"[0-9a-zA-Z+]+")
_LONGEST_LABEL = 200  # no file name is much longer


def labels_wanted(**labels):
    """The labels asked for: entity -> list of str without prefix, or None."""
    prefixes = {"subject": "sub-", "session": "ses-"}
    wanted = {}
    for key, value in labels.items():
        if value is not None:
            value = [value] if isinstance(value, (str, int, np.integer)) else list(value)
            value = [str(item).removeprefix(prefixes.get(key, f"{key}-")) for item in value]
            for label in value:
                plain = re.sub(r"[*?]", "x", label) if key == "task" else label
                if not _LABEL.fullmatch(plain) or len(label) > _LONGEST_LABEL:
                    raise InputError(
                        f"A {key} label has letters and digits only; got {label[:80]!r}."
                    )
        wanted[key] = value
    return wanted


def is_pattern(task):
    """Whether one of the labels of tasks that are asked for is a pattern."""
    return any("*" in str(label) or "?" in str(label) for label in np.atleast_1d(task))


def tasks_wanted(tasks, files):
    """Labels of tasks that are asked for, with those of BOLD that is there for patterns.

    Parameters
    ----------
    tasks : list of str or None
        Labels or patterns ("*": any letters, "?": one).
    files : dict
        As `list_files` gives them.

    Returns
    -------
    tasks : list of str or None

    Raises
    ------
    InputError
        A pattern that matches nothing.
    """
    if tasks is None or not is_pattern(tasks):
        return tasks
    bold = (file.entities for file in all_files(files) if file.entities["suffix"] == "bold")
    there = sorted({entities["task"] for entities in bold if "task" in entities})
    wanted = []
    for pattern in tasks:
        found = fnmatch.filter(there, pattern) if is_pattern(pattern) else [pattern]
        if not found:
            raise InputError(f"No run matches task {pattern}: there are {', '.join(there)}.")
        wanted += found
    return wanted


def check_filter(bids_filter):
    """Entities that the BOLD files must have besides, checked."""
    bids_filter = {} if bids_filter is None else bids_filter
    if not isinstance(bids_filter, dict):
        raise InputError(f"`bids_filter` must map entities to labels; got {bids_filter!r}.")
    known = specification()["queries"]["bold"]["extension"]
    for key, value in bids_filter.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        right = [
            item is None or isinstance(item, (str, int)) and not isinstance(item, bool)
            for item in values
        ]
        if not values or not all(right):
            raise InputError(
                f"`bids_filter` must give one label or several for {key!r}, or None; got "
                f"{value!r:.80}."
            )
        labels = [str(item) for item in values if item is not None and key != "extension"]
        if not all(_LABEL.fullmatch(label) and len(label) <= _LONGEST_LABEL for label in labels):
            raise InputError(
                f"`bids_filter` labels have letters and digits only; got {value!r:.80} for {key!r}."
            )
        if key == "suffix" and values != ["bold"]:
            raise InputError(f"`bids_filter` is for files of BOLD; got suffix {value!r}.")
        if key == "extension" and not set(values) <= set(known):
            raise InputError(f"`bids_filter` extension must be of {known}; got {value!r}.")
    return bids_filter


def _recording(entities):
    """What identifies the recording: labels as they are written."""
    return {key: label for key, label in entities.items() if key not in _PROCESSING}


def order_of(labels):
    """The same for run-1 and run-01; numbers in their order."""
    return tuple(
        (key, int(label[:18]) if label.isdecimal() else -1, label.lstrip("0"))
        for key, label in labels.items()
    )


def all_files(files):
    return (file for in_folder in files.values() for file in in_folder)


def matching_bold(look):
    """The preprocessed BOLD files that have the labels asked for."""
    files, derivatives = look.preprocessed, look.derivatives
    wanted, bids_filter = look.wanted, look.bids_filter
    query = {**specification()["queries"]["bold"], "part": ["mag", None], **bids_filter}
    if look.pattern is not None and "desc" not in bids_filter:
        del query["desc"]  # the pattern has chosen
    any_bold = [
        file
        for file in all_files(files)
        if file.entities["suffix"] == "bold" and {"subject", "task"} <= set(file.entities)
    ]
    bold = [
        file
        for file in any_bold
        if all(matches(file.entities, key, value) for key, value in query.items())
        and ("echo" not in file.entities or "echo" in bids_filter)
    ]
    if not bold:
        # with labels of subjects only their folders were looked into
        there = sorted(path.name[4:] for path in derivatives.glob("sub-*") if path.is_dir())
        subjects = wanted.get("subject")
        if subjects and there and not set(subjects) & set(there):
            raise InputError(
                f"No run matches subject {', '.join(subjects)}: {derivatives} has "
                f"{', '.join(there)}."
            )
        if is_minimal(derivatives):
            raise InputError(minimal_level(derivatives))
        images = [f for f in any_bold if f.entities["extension"] in query["extension"]]
        if images:
            asked = ", ".join(f"{key} {value}" for key, value in bids_filter.items())
            raise InputError(
                f"No derivatives: {derivatives} holds no preprocessed BOLD file"
                f"{f' of {asked}' if asked else ''}; there is for example {images[0].path.name}: "
                f"{_what_differs(images, query)}; say with `bids_filter` which to use."
            )
        raise InputError(
            f"No derivatives: {derivatives} holds no preprocessed BOLD file in sub-<label>/"
            + (
                f"; there are some in {deeper(derivatives)[0]}."
                if deeper(derivatives)
                else "; `derivatives_pattern` reads names that BIDS does not know."
            )
        )
    for key, labels in wanted.items():
        present = sorted({f.entities[key] for f in bold if key in f.entities})
        for label in labels or []:
            if not any(same_label(value, label) for value in present):
                raise InputError(
                    f"No run matches {key} {label}: {derivatives} has "
                    f"{', '.join(present) or f'no {key}'}."
                )
    asked_for = [
        file
        for file in bold
        if all(matches(file.entities, key, labels) for key, labels in wanted.items() if labels)
    ]
    if not asked_for:
        asked = ", ".join(f"{key} {labels}" for key, labels in wanted.items() if labels)
        raise InputError(f"No run matches {asked} in {derivatives}.")
    return asked_for


def _what_differs(images, query):
    """Which entities keep the images from being what is looked for, and what they are."""
    told = []
    for key in (*(key for key in query if key not in ("suffix", "extension")), "echo"):
        fitting = [f for f in images if matches(f.entities, key, query.get(key))]
        if not fitting:
            labels = sorted({f.entities[key] for f in images if key in f.entities})
            told.append(f"their {key} is {', '.join(labels) or 'absent'}")
    return " and ".join(told) or "no image has all that is asked for"


def bold_files(look, space):
    """Return [(labels, [file])] of the space, one or two files for each recording."""
    recordings, labels_of = {}, {}
    for file in matching_bold(look):
        labels = _recording(file.entities)
        key = order_of(labels)
        labels_of[key] = labels
        in_spaces = recordings.setdefault(key, {})
        in_spaces.setdefault(file.entities.get("space"), []).append(file)
    space = _choose_space(recordings, space)
    return [
        (labels_of[key], _choose_files(labels_of[key], recordings[key], space))
        for key in sorted(recordings)
    ]


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


def _choose_files(labels, in_spaces, space):
    """The one volume or CIFTI file, or both hemispheres, of a recording."""
    if space not in in_spaces:
        raise InputError(
            f"Space {space} is there for some runs only: {describe(labels)} has none (it has "
            f"{', '.join(str(label) for label in in_spaces)})."
        )
    found = in_spaces[space]
    extensions = specification()["queries"]["bold"]["extension"]
    extension = next(e for e in extensions if any(f.entities["extension"] == e for f in found))
    by_hemi = {}
    for file in found:
        if file.entities["extension"] == extension:
            by_hemi.setdefault(file.entities.get("hemi"), []).append(file)
    for files in by_hemi.values():
        if len(files) > 1:
            names = ", ".join(file.path.name for file in files)
            keys = {key for file in files for key in file.labels}
            differ = [k for k in sorted(keys) if len({f.labels.get(k) for f in files}) > 1]
            raise InputError(
                f"Several files fit {describe(labels)}: {names}; choose by "
                f"{' and '.join(differ) or 'folder'} with `bids_filter`."
            )
    if extension == ".func.gii":
        missing = [hemi for hemi in ("L", "R") if hemi not in by_hemi]
        if missing:
            raise InputError(
                f"Both hemispheres must be there: {describe(labels)} has no hemi-{missing[0]} in "
                f"space {space}."
            )
        return [by_hemi["L"][0], by_hemi["R"][0]]
    return next(iter(by_hemi.values()))
