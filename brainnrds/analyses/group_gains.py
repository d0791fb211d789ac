"""Gains of several participants, side by side and together: for decode and reanimate."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils import Bunch

from brainnrds.analyses.options import GroupOptions
from brainnrds.analyses.people import find_records, without_results
from brainnrds.analyses.record import Record
from brainnrds.group import conjunction, fixed_effects, prevalence, sign_flip_test
from brainnrds.group.inference import FEWEST_SUBJECTS
from brainnrds.io import InputError, load_table
from brainnrds.plotting import plot_bars

__all__ = ["combine_gains", "group_gains"]

TOGETHER = "together"
_COLUMNS = {
    "participant": f"Label; '{TOGETHER}': the mean of the participants",
    "gain": "{}; positive: better than without",
    "low": "Lower end of its 95 % interval; together: over these participants below "
    f"{FEWEST_SUBJECTS}, over people from {FEWEST_SUBJECTS} on",
    "high": "Its upper end",
    "p": "One-sided p-value; together: fixed effects of these participants below "
    f"{FEWEST_SUBJECTS}, sign flips from {FEWEST_SUBJECTS} on",
    "n_participants": "Participants with a gain",
    "n_significant": "Participants with p < .05",
    "prevalence": "Share of people in whom such a test would find a gain, the most probable one",
    "prevalence_low": "Its lower bound of 95 %",
    "p_every": "p-value that every one of these participants gains",
}


def combine_gains(gain, low, high, p_values, options):
    """Combine a gain of several participants, as their number allows.

    Parameters
    ----------
    gain, low, high, p_values : arrays of shape (n_subjects,)
        Each participant's gain, its 95 % interval and its one-sided p-value; NaN where there is
        none.
    options : GroupOptions

    Returns
    -------
    combined : dict
        The columns of the table. Below six participants the interval is that of their mean, from
        theirs; from six on it is that of the mean of people, by Student's t.
    """
    n = int(np.isfinite(gain).sum())
    row = {"gain": np.nanmean(gain), "n_participants": n}
    tested = np.isfinite(p_values).all()
    if tested:
        shares = prevalence(p_values[:, None])
        row |= {
            "n_significant": int(shares.n_significant[0]),
            "prevalence": shares.estimate[0],
            "prevalence_low": shares.lower[0],
        }
    if len(gain) >= FEWEST_SUBJECTS and n == len(gain):
        error = stats.sem(gain) * stats.t.isf(0.025, n - 1)
        test = sign_flip_test(
            gain[:, None],
            two_sided=False,
            n_permutations=options.n_permutations,
            random_state=options.random_state,
        )
        row["p"] = test.p_values[0]
    elif len(gain) < FEWEST_SUBJECTS:
        error = np.sqrt(np.sum((high - low) ** 2)) / (2 * len(gain))
        if tested:
            row["p"] = fixed_effects(p_values[:, None], two_sided=False).p_values[0]
            row["p_every"] = conjunction(p_values[:, None]).p_values[0]
    else:
        return row
    return row | {"low": row["gain"] - error, "high": row["gain"] + error}


def group_gains(
    analysis,
    output_dir,
    options=None,
    *,
    keys,
    names,
    what,
    feat=None,
    drawn=0,
    subjects=None,
    space=None,
    selection=None,
):
    """Write the table and the chart of gains of several participants.

    Participants may lie in spaces of their own.

    Parameters
    ----------
    analysis : str
        "decode", "transfer" or "reanimate".
    output_dir : path-like
    options : GroupOptions or None
    keys : list of str
        Columns of the participants' tables that say what a gain is of.
    names : dict of str to str
        Their columns of "gain", "low", "high" and "p".
    what : str
        What a gain is, with its unit.
    feat : str or None, default=None
        Of the tables' names.
    drawn : int, default=0
        Which of what gains are of is drawn and stands in the summary, in the order of the table.
    subjects, space, selection
        As in :func:`brainnrds.analyses.encode_group`.

    Returns
    -------
    result : Bunch
        With ``report``, ``table``, ``told`` and ``note``.
    """
    options = options or GroupOptions()
    output_dir = Path(output_dir)
    records = find_records(output_dir, analysis, subjects=subjects, space=space, one_space=False)
    paper = Record(analysis, output_dir, {"space": space})
    people, unsupported = [], []
    for label, record in records.items():
        path = paper.path("table", subject=label, feat=feat, **record["Entities"])
        table = load_table(path)
        table = table[table[names["gain"]].notna()]
        if "supported" in table and not table["supported"].astype(bool).any():
            unsupported.append(f"sub-{label}")
        rows = table[keys].assign(participant=f"sub-{label}")
        people.append(rows.assign(**{name: table[column] for name, column in names.items()}))
    people = pd.concat(people, ignore_index=True)
    if people.empty:
        raise InputError(f"Participants must have a gain of {analysis}; got none.")
    table = _with_combined(people, list(records), keys, options)
    n = len(records)
    combined = table[table["participant"] == TOGETHER]
    test, note = _how_combined(n, combined["p"].notna().any())
    if unsupported:
        note += f" By their own tables, no gain may be claimed of {', '.join(unsupported)}."
    paper.open(
        {
            "subjects": list(records),
            "n_subjects": n,
            "group_test": test,
        }
    )
    columns = {name: about.format(what) for name, about in _COLUMNS.items()}
    described = {key: "What the gain is of, as in the participants' tables" for key in keys}
    paper.save_table(table, columns={**described, **columns}, description=note, feat=feat)
    shown = combined.iloc[drawn]
    of = ", ".join(_told(key, shown[key]) for key in keys)
    rows = table[(table[keys] == shown[keys]).all(axis=1)].set_index("participant")
    _save_chart(paper, rows, what, f"Of {of}. {note}")
    summary = {
        "participants": n,
        f"gain, {of}": round(float(shown["gain"]), 4),
        "its 95 % interval": f"{shown['low']:.4f} to {shown['high']:.4f}",
    }
    missing = without_results(analysis, output_dir, records, subjects, selection)
    if missing:
        summary[f"without results: {len(missing)}"] = ", ".join(missing)
    report = paper.close(summary, random_state=options.random_state)
    return Bunch(report=report, table=table, told=[table], note=note)


def _how_combined(n, tested):
    """Which test combined the gains of `n` participants, if any did, and a sentence about it."""
    if n >= FEWEST_SUBJECTS:
        return "sign flips", f"Together: the mean of people, by sign flips of {n} participants."
    who = f"of {n} participant{'s' * (n > 1)}, of these and of no others"
    if tested:
        return "fixed effects", f"Together: fixed effects {who}."
    return None, f"Together: the mean {who}. No p-values: not every participant has one."


def _told(key, value):
    return f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"


def _with_combined(people, labels, keys, options):
    """Rows of participants, and below those of each key the combined one."""
    parts = []
    for key, rows in people.groupby(keys, sort=False):
        every = rows.set_index("participant").reindex([f"sub-{label}" for label in labels])
        values = (every[name].to_numpy(float) for name in ("gain", "low", "high", "p"))
        combined = combine_gains(*values, options)
        here = dict(zip(keys, key, strict=True))
        parts += [rows, pd.DataFrame([{**here, "participant": TOGETHER, **combined}])]
    table = pd.concat(parts, ignore_index=True).reindex(columns=[*keys, *_COLUMNS])
    return table.astype(dict.fromkeys(("n_participants", "n_significant"), "Int64"))


def _save_chart(paper, rows, what, about):
    """Participants and their mean."""
    figure = plot_bars(
        rows["gain"].to_dict(),
        intervals={
            name: (row["low"], row["high"])
            for name, row in rows.iterrows()
            if np.isfinite([row["low"], row["high"]]).all()
        },
        label=what,
        chance=0.0,
    )
    paper.save_figure(figure, "bar", stat="gain", description=about)
