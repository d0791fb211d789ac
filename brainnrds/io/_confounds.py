"""Confounds of a run: nilearn's choice of columns, from the table that belongs to the run."""

import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from brainnrds._checks import InputError
from brainnrds._files import load_json
from brainnrds.io._texts import read_table

__all__ = ["read_confounds"]

# beyond this a confound is damaged: squares and products of such numbers overflow
_LARGEST_CONFOUND = 1e15


def read_confounds(run, strategy, options):
    """Read the confounds of a run, and which of its volumes to use.

    Parameters
    ----------
    run : Run
    strategy : tuple of str
        As `nilearn.interfaces.fmriprep.load_confounds` takes it; empty: no confounds.
    options : dict
        Its other arguments.

    Returns
    -------
    confounds : array of shape (n_volumes, n_confounds) or None
    keep : array of bool of shape (n_volumes,)
        False for non-steady-state and scrubbed volumes.
    counts : dict
        What was handled.

    Raises
    ------
    InputError
        The table is missing, damaged, of another length, or lacks what was asked for.
    """
    keep = np.ones(run.n_volumes, dtype=bool)
    counts = {"non_steady_state_volumes": 0, "scrubbed_volumes": 0, "leading_nan_confounds": 0}
    if run.confounds is None:
        if len(strategy):
            raise InputError(f"No confounds file for {run.bold[0]}; expected *_desc-confounds_*.")
        return None, keep, counts
    if not len(strategy) and run.confounds.is_file() and not run.confounds.stat().st_size:
        return None, keep, counts  # nothing was asked of it
    raw = read_table(run.confounds, "Confounds table", na_values="n/a")
    if len(raw) != run.n_volumes:
        raise InputError(
            f"{run.confounds} must have one row per volume: {run.n_volumes}; got {len(raw)}."
        )
    outliers = raw.filter(like="non_steady_state_outlier")
    if outliers.shape[1]:
        if any(outliers[name].dtype.kind not in "fiub" for name in outliers):
            raise InputError(f"{run.confounds} must flag non-steady-state volumes by 0 and 1.")
        # everything up to the last flagged volume goes, so that the rest is contiguous
        flagged = np.flatnonzero(outliers.to_numpy().any(axis=1))
        n_cut = int(flagged.max()) + 1 if len(flagged) else 0
        keep[:n_cut] = False
        counts["non_steady_state_volumes"] = n_cut
        if not keep.any():
            raise InputError(f"{run.confounds} must leave volumes; all are non-steady-state.")
    if not len(strategy):
        return None, keep, counts
    text = next((name for name in raw if raw[name].dtype.kind not in "fiub"), None)
    try:
        table, used = _chosen_confounds(run, strategy, options)
    except InputError as error:
        if text is None or not isinstance(error.__cause__, TypeError):
            raise
        raise InputError(f"{run.confounds} must hold numbers; column {text} has text.") from error
    if used is not None:
        scrubbed = keep.copy()
        scrubbed[np.asarray(used)] = False
        keep &= ~scrubbed
        counts["scrubbed_volumes"] = int(scrubbed.sum())
    columns = [name for name in table.columns if name in raw]
    first = raw[columns].isna().iloc[0] if columns else pd.Series(dtype=bool)
    counts["leading_nan_confounds"] = int(first.sum())
    if text in table:
        raise InputError(f"{run.confounds} must hold numbers; column {text} has text.")
    values = table.bfill(limit_area="outside").to_numpy(dtype=float)
    usable = (np.abs(values[keep]) <= _LARGEST_CONFOUND).all(axis=0)  # False for NaN
    if not usable.all():
        raise InputError(
            f"{run.confounds} must be finite after its first rows; {table.columns[~usable][0]} is "
            f"not, or beyond {_LARGEST_CONFOUND:g}."
        )
    n_free = int(keep.sum()) - values.shape[1] - 2
    if n_free < 1:
        raise InputError(
            f"{run.confounds.name}: {values.shape[1]} confounds leave nothing of {keep.sum()} "
            "volumes; choose fewer."
        )
    return values, keep, counts


def _chosen_confounds(run, strategy, options):
    """nilearn's choice from the table that belongs to the run, and the volumes it would keep.

    nilearn looks for a table by the image's name, and finds another one, none or two where names
    have more entities than it expects: it is given a folder with this table alone.
    """
    from nilearn.interfaces.fmriprep import load_confounds

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "sub-0_desc-preproc_bold.nii.gz"  # only its name is looked at
        table = Path(folder) / "sub-0_desc-confounds_timeseries.tsv"
        shutil.copyfile(run.confounds, table)
        described = run.confounds.with_suffix(".json")
        if described.exists():
            load_json(described)
            shutil.copyfile(described, table.with_suffix(".json"))
        if {"ica_aroma", "tedana"} & set(strategy):
            image = run.bold[0]  # these read, or ask for, files of their own
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return load_confounds(str(image), strategy=tuple(strategy), demean=False, **options)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{run.confounds.name} cannot be used: {reason}") from error
