"""Tables of the group level of encode: participants, parcels, encoders."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from brainnrds.analyses.encode import FDR_LEVEL, MODELS
from brainnrds.analyses.encoders import ENCODER_COLUMNS, SMALLEST_CEILING
from brainnrds.encoding.pooling import q_values_by_side
from brainnrds.group import fixed_effects, homologous_parcels, laterality, sign_flip_test
from brainnrds.group.inference import FEWEST_SUBJECTS
from brainnrds.io import load_table
from brainnrds.plotting import plot_grouped_bars

__all__ = [
    "add_shared_ceiling",
    "participant_table",
    "read_tables",
    "save_group_encoders",
    "save_group_parcels",
]

_DRAWN_PARTICIPANTS = 11
_SIDES = {
    "parcel": "Name of the parcel without its side",
    "score": "Held-out r of a model, or the difference of two",
    "difference": "Mean over participants of left minus right",
    "difference_low": "Lower end of its 95 % interval over people",
    "difference_high": "Its upper end",
    "index": "(L - R) / (|L| + |R|) of the means: 1 is left alone, -1 right alone",
    "index_low": "Lower end of its 95 % interval over people",
    "index_high": "Its upper end",
    "p_values": "Of the difference, two-sided, by sign flips of people",
    "q_values": "Its false discovery rate over parcels",
}


def read_tables(paper, records, index, **entities):
    """Read one kind of table of each participant: label to table, empty unless all have one."""
    paths = {
        label: paper.path("table", subject=label, task=record["Entities"]["task"], **entities)
        for label, record in records.items()
    }
    if not all(path.exists() for path in paths.values()):
        return {}
    return {label: load_table(path).set_index(index) for label, path in paths.items()}


def participant_table(paper, records):
    """One row per participant, the mean in the last; and what the columns are."""
    rows = []
    for subject, record in records.items():
        path = paper.path("table", subject=subject, task=record["Entities"]["task"])
        table = load_table(path).set_index("model")
        rows.append(
            {
                "participant": f"sub-{subject}",
                **{name: table.loc[name, "mean_all"] for name in (*MODELS, "video - image")},
                "n_significant": table.loc["video - image", "n_significant"],
            }
        )
    columns = {
        "participant": "Label, or 'mean'",
        **{name: f"Mean over all voxels of held-out r, {name} model" for name in MODELS},
        "video - image": "Mean over all voxels of r, video minus image",
        "n_significant": f"Voxels with q < {FDR_LEVEL}, video ahead",
    }
    frame = pd.DataFrame(rows)
    mean = frame.mean(numeric_only=True).to_dict() | {"participant": "mean"}
    return pd.concat([frame, pd.DataFrame([mean])], ignore_index=True), columns


def add_shared_ceiling(table, shared, relative):
    """Add to the participants' table what they share; return what the columns are.

    `relative` has each model's scores relative to it: model -> (n_participants, n_voxels).
    """
    added = {"shared_ceiling": np.nanmean(shared.ceiling, axis=1)}
    columns = {"shared_ceiling": "Mean over all voxels of the inter-subject ceiling, R2"}
    for model, scores in relative.items():
        added[f"{model}_relative"] = np.nanmedian(scores, axis=1)
        columns[f"{model}_relative"] = (
            f"Median of r / sqrt(inter-subject ceiling), {model} model, where the "
            f"ceiling is above {SMALLEST_CEILING}"
        )
    for name, values in added.items():
        table[name] = [*values, np.nanmean(values)]
    return columns


def save_group_encoders(paper, tables):
    """Write table and chart of the encoders that all participants have; nothing without any."""
    if not tables:
        return
    tables = {f"sub-{label}": table for label, table in tables.items()}
    region = "responsive" if all("mean_responsive" in t for t in tables.values()) else "all"
    scores = pd.DataFrame({name: t[f"mean_{region}"] for name, t in tables.items()}).dropna()
    if scores.empty:
        return
    scores.insert(0, "mean", scores.mean(axis=1))
    first = next(iter(tables.values()))
    groups = first["group"].reindex(scores.index)
    rank = groups.map(list(dict.fromkeys(first["group"])).index)
    scores = scores.iloc[np.lexsort([-scores["mean"], rank])]
    groups = groups[scores.index]
    ceilings = {
        name: table[f"ceiling_{region}"].iloc[0]
        for name, table in tables.items()
        if f"ceiling_{region}" in table
    }
    where = f"voxels with a ceiling above {SMALLEST_CEILING} (R2)"
    about = (
        f"Mean held-out r over {'all voxels' if region == 'all' else where} of each participant, "
        f"and the mean of {len(tables)} participants."
    )
    paper.save_table(
        scores.rename_axis("encoder").reset_index().assign(group=groups.to_numpy()),
        columns={
            "encoder": ENCODER_COLUMNS["encoder"],
            "mean": "Mean of the participants",
            **dict.fromkeys(tables, "Mean r of this participant"),
            "group": ENCODER_COLUMNS["group"],
        },
        description=about,
        desc="encodeEncoders",
    )
    if len(ceilings) == len(tables):
        ceilings["mean"] = float(np.mean(list(ceilings.values())))
    figure = plot_grouped_bars(
        {name: scores[name].to_dict() for name in list(scores)[: 1 + _DRAWN_PARTICIPANTS]},
        groups=groups.to_dict(),
        ceilings=ceilings,
        label="mean held-out r",
    )
    paper.save_figure(figure, "bar", desc="encodeEncoders", description=about)


def save_group_parcels(paper, tables, options):
    """Write the means of parcels with their tests; nothing unless all participants have a table."""
    if not tables:
        return
    tables = list(tables.values())
    every = tables[0].index
    for table in tables[1:]:
        every = every.union(table.index, sort=False)
    tables = [table.reindex(every) for table in tables]
    scores = [name for name in tables[0] if f"{name}_low" in tables[0]]
    found = pd.DataFrame({"n_participants": sum(t[scores[0]].notna() for t in tables)}, index=every)
    columns = {"n_participants": "Participants who have the parcel"}
    sides = None
    if all("side" in table for table in tables):
        found["side"] = (
            pd.concat([table["side"] for table in tables], axis=1).bfill(axis=1).iloc[:, 0]
        )
        columns["side"] = "Hemisphere, L or R"
        sides = found["side"].fillna("").to_numpy(str)
    for name in scores:
        values, low, high = (
            np.array([table[f"{name}{end}"] for table in tables]) for end in ("", "_low", "_high")
        )
        test = _test_parcels(values, low, high, name == "difference", options)
        found[name] = np.nanmean(values, axis=0)
        found[f"{name}_p"] = test.p_values
        found[f"{name}_q"] = q_values_by_side(test.p_values, sides)
        columns |= {
            name: f"Mean over participants of held-out r, {name}",
            f"{name}_p": f"p-value of {name}",
            f"{name}_q": f"q-value of {name}, false discovery rate over parcels"
            + ("" if sides is None else " of a hemisphere"),
        }
    paper.save_table(
        found.reset_index(),
        columns={"parcel": "Number of the parcel", "name": "Name of the parcel", **columns},
        description=f"Mean held-out r per parcel of {len(tables)} participants. "
        + (
            "Tests: sign flips of participants."
            if len(tables) >= FEWEST_SUBJECTS
            else "Tests: fixed effects, of these participants and no others."
        ),
        seg="atlas",
    )
    values = {name: np.array([table[name] for table in tables]) for name in scores}
    _save_laterality(paper, values, every.get_level_values("name"), options)


def _save_laterality(paper, scores, names, options):
    """Write left against right of parcels whose names differ in the side alone, if any do."""
    names = [str(name) for name in names]
    pairs = homologous_parcels(names) if len(set(names)) == len(names) else {}
    if not pairs:
        return
    left, right = np.transpose(list(pairs.values()))
    parts, reason = [], None
    for name, values in scores.items():
        sides = laterality(
            values[:, left],
            values[:, right],
            n_permutations=options.n_permutations,
            random_state=options.random_state,
        )
        reason = sides.pop("reason")
        parts.append(pd.DataFrame({"parcel": list(pairs), "score": name, **sides}))
    table = pd.concat(parts, ignore_index=True)
    paper.save_table(
        table[list(_SIDES)],
        columns=_SIDES,
        description="Left against right of homologous parcels, over participants. "
        + (f"{reason[0].upper()}{reason[1:]}." if reason else "Tests: sign flips."),
        seg="atlas",
        feat="laterality",
    )


def _test_parcels(values, low, high, two_sided, options):
    """Test scores (n_subjects, n_parcels); few people by their intervals of 95 %."""
    if len(values) >= FEWEST_SUBJECTS:
        return sign_flip_test(
            values,
            two_sided=two_sided,
            n_permutations=options.n_permutations,
            random_state=options.random_state,
        )
    error = (high - low) / (2 * norm.isf(0.025))
    return fixed_effects(norm.sf(values / error), two_sided=two_sided)
