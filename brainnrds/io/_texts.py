"""JSON and TSV in and out: plain files of bounded size are read, whole ones are written."""

import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, plain, provenance, read_text

__all__ = [
    "load_table",
    "read_table",
    "save_json",
    "save_table",
    "sidecar_path",
]

# a confounds table of 2,000 volumes and 1,000 columns has 40 MB
_LARGEST_TABLE = 256 * 2**20


def read_table(path, what="Table", **options):
    """Read a TSV file with one header row and rows of the same length.

    Parameters
    ----------
    path : path-like
    what : str, default="Table"
        First word of the message.
    **options
        For `pandas.read_csv`.

    Returns
    -------
    table : pandas.DataFrame

    Raises
    ------
    InputError
        As `load_table`.
    """
    text = read_text(path, what, _LARGEST_TABLE)
    lines = re.split("\r\n|\n|\r", text)
    if "\0" in text or not text.strip():
        got = "an empty file" if not text.strip("\0 \t\r\n") else "zero bytes in it"
        raise InputError(f"{what} {path} must be a readable TSV file; got {got}.")
    names = [name.strip('"') for name in lines[0].split("\t")]
    twice = min((name for name, n in Counter(names).items() if n > 1), default=None)
    if twice is not None:
        raise InputError(f"{what} {path} must name each column once; {twice!r} is there twice.")
    for number, line in enumerate(lines[1:], start=2):
        # pandas would take the first column of longer rows for an index
        if line and line.count("\t") != len(names) - 1:
            raise InputError(
                f"{what} {path} must have {len(names)} fields in every row, as its header; row "
                f"{number} has {line.count(chr(9)) + 1}."
            )
    try:
        return pd.read_csv(path, sep="\t", index_col=False, encoding="utf-8-sig", **options)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{what} {path} must be a readable TSV file: {error}.") from error


def load_table(path):
    """Read a TSV file in which "n/a" says that there is no value.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    table : pandas.DataFrame

    Raises
    ------
    InputError
        It is missing, no plain file, larger than 256 MiB or not UTF-8; it is empty, names a column
        twice, or has rows of another length than its header.
    """
    return read_table(path, na_values="n/a", keep_default_na=False)


def _suffix(path):
    """All extensions: ".nii.gz", ".func.gii", ".dtseries.nii"."""
    name = Path(path).name
    return name[name.index(".") :] if "." in name else ""


def sidecar_path(path):
    path = Path(path)
    return path.with_name(path.name[: len(path.name) - len(_suffix(path))] + ".json")


def save_json(path, content):
    """Write JSON atomically; arrays become lists, non-finite numbers null.

    Parameters
    ----------
    path : path-like
    content : dict

    Returns
    -------
    path : Path
    """
    path = Path(path)
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def save_table(path, table, *, columns=None, metadata=None):
    """Write a table as TSV ("n/a" where there is no value), with a JSON sidecar.

    Parameters
    ----------
    path : path-like
        Ends in .tsv.
    table : pandas.DataFrame or dict or list of dict
        The index is not written.
    columns : dict or None, default=None
        Column -> description (str, or dict with "Description", "Units", ...).
    metadata : dict or None, default=None

    Returns
    -------
    path : Path
    """
    path = Path(path)
    table = pd.DataFrame(table)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    described = {
        key: {"Description": text} if isinstance(text, str) else text
        for key, text in (columns or {}).items()
    }
    save_json(sidecar_path(path), {**described, **provenance(metadata)})
    return path
