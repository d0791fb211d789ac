"""Video > Image of several participants in a common space: maps, tables and a report."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.analyses.drawing import draw_map
from brainnrds.analyses.encode import FDR_LEVEL, MODELS
from brainnrds.analyses.encoders import ENCODER_COLUMNS, SMALLEST_CEILING
from brainnrds.analyses.options import GroupOptions
from brainnrds.analyses.record import Record
from brainnrds.encoding import group_maps
from brainnrds.io import load_group_maps, load_json, load_table
from brainnrds.plotting import plot_bars, plot_grouped_bars

__all__ = ["encode_group"]

_DRAWN_PARTICIPANTS = 11


def encode_group(output_dir, options=None, *, subjects=None, space=None):
    """Summarise the maps of several participants in a common space.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`encode_participant` wrote.
    options : GroupOptions or None, default=None
        None: the defaults. Signs are flipped at random from 13 participants on; up to 12 all
        patterns are enumerated.
    subjects : list of str or None, default=None
        None: all that are there.
    space : str or None, default=None
        None: the only one there is.

    Returns
    -------
    result : Bunch
        With ``report``, ``table`` and ``note``, why there is no p-value or None.

    Raises
    ------
    InputError
        No participant was analysed, or they lie in different spaces.
    """
    options = options or GroupOptions()
    output_dir = Path(output_dir)
    records = {}
    for path in sorted(output_dir.glob("sub-*/*_desc-encode_provenance.json")):
        label = path.parent.name.removeprefix("sub-")
        record = load_json(path)
        here = record["Parameters"]["space"]
        if (subjects is None or label in subjects) and (space is None or here == space):
            if label in records:
                raise InputError(
                    f"sub-{label} must have one set of encoding results in {output_dir}; got "
                    f"{path.name} and others: choose with --space, or use one output folder each."
                )
            records[label] = record
    missing = sorted(set(subjects or []) - set(records))
    if missing or not records:
        raise InputError(
            f"{output_dir} must hold the encoding results of "
            f"{', '.join(missing) if missing else 'at least one participant'}; run the participant "
            "level first."
        )
    spaces = {record["Parameters"]["space"] for record in records.values()}
    if len(spaces) > 1:
        raise InputError(f"Participants must share one space; got {', '.join(map(str, spaces))}.")

    def stack(name):
        return load_group_maps(
            [[output_dir / path for path in record["Maps"][name]] for record in records.values()]
        )

    difference, masker = stack("videoMinusImage_difference")
    has_p = all("videoMinusImage_q" in record["Maps"] for record in records.values())
    q_values = stack("videoMinusImage_q")[0] if has_p else None
    group = group_maps(
        difference,
        q_values=q_values,
        n_permutations=options.n_permutations,
        random_state=options.random_state,
    )
    means = {name: np.nanmean(stack(f"{name}_r")[0], axis=0) for name in MODELS}
    paper = Record("encode", output_dir, {"space": spaces.pop()})
    paper.open({"subjects": list(records), "n_subjects": len(records), "reason": group.reason})
    feat = "videoMinusImage"
    significant = f"Participants with q < {FDR_LEVEL}"
    images = [
        (feat, "difference", group.mean, "Mean of video minus image", "r"),
        (feat, "nSignificant", group.n_significant, f"{significant}, video ahead", "number"),
        (
            feat,
            "nSignificantNegative",
            group.n_significant_negative,
            f"{significant}, image ahead",
            "number",
        ),
        (feat, "pmax", group.p_max, "p-value, corrected by the maximum", "probability"),
        *(
            (name, "r", values, f"Mean held-out correlation, {name} model", "r")
            for name, values in means.items()
        ),
    ]
    for feat, stat, values, description, unit in images:
        if values is not None:
            paper.save_map(
                np.asarray(values, dtype=np.float32),
                masker,
                description=description,
                unit=unit,
                feat=feat,
                stat=stat,
            )
    table = _group_table(paper, records)
    _group_figures(paper, group, difference, list(records), masker, table)
    _group_encoders(paper, records)
    about = "Each participant's mean scores; the group's mean in the last row."
    paper.save_table(
        table,
        columns={
            "participant": "Label, or 'mean'",
            **{name: f"Mean over all voxels of held-out r, {name} model" for name in MODELS},
            "video - image": "Mean over all voxels of r, video minus image",
            "n_significant": f"Voxels with q < {FDR_LEVEL}, video ahead",
        },
        description=f"{about} {group.reason or ''}".strip(),
    )
    summary = {"participants": len(records)}
    if group.p_max is None or group.reason:
        summary["no group p-value"] = group.reason
    else:
        summary["voxels where video beats image (p < .05, corrected)"] = int(
            ((group.p_max < FDR_LEVEL) & (group.mean > 0)).sum()
        )
    if group.n_significant is not None:
        summary["voxels significant in every participant (q < .05)"] = int(
            (group.n_significant == len(records)).sum()
        )
    report = paper.close(summary, random_state=options.random_state)
    return Bunch(report=report, table=table, told=[table], note=group.reason)


def _group_table(paper, records):
    rows = []
    for subject, record in records.items():
        path = paper.path("table", subject=subject, task=_task_of(record))
        table = load_table(path).set_index("model")
        rows.append(
            {
                "participant": f"sub-{subject}",
                **{name: table.loc[name, "mean_all"] for name in (*MODELS, "video - image")},
                "n_significant": table.loc["video - image", "n_significant"],
            }
        )
    frame = pd.DataFrame(rows)
    mean = frame.mean(numeric_only=True).to_dict() | {"participant": "mean"}
    return pd.concat([frame, pd.DataFrame([mean])], ignore_index=True)


def _group_encoders(paper, records):
    """Table and chart of the encoders that every participant's table has; nothing without any."""
    tables = {}
    for subject, record in records.items():
        names = {"subject": subject, "task": _task_of(record), "desc": "encodeEncoders"}
        path = paper.path("table", **names)
        if not path.exists():
            return
        tables[f"sub-{subject}"] = load_table(path).set_index("encoder")
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


def _task_of(record):
    name = Path(record["Maps"]["video_r"][0]).name
    return next((p[5:] for p in name.split("_") if p.startswith("task-")), None)


def _group_figures(paper, group, difference, subjects, masker, table):
    limit = float(np.nanpercentile(np.abs(difference), 99))

    def draw(drawn, feat=None, stat=None, description=""):
        if drawn is not None:
            suffix, figure = drawn
            paper.save_figure(figure, suffix, feat=feat, stat=stat, description=description)

    def draw_values(values, feat, stat, description="", **options):
        drawn = draw_map(masker, values, paper.entities["space"], **options)
        draw(drawn, feat, stat, description)

    shown = {"signed": True, "label": "difference of held-out r", "vmax": limit}
    draw_values(
        group.mean,
        "videoMinusImage",
        "difference",
        f"No group p-value: {group.reason}." if group.reason else "",
        p_values=None if group.reason else group.p_max,
        title="mean Video > Image",
        **shown,
    )
    if group.n_significant is not None:
        draw_values(
            np.where(group.n_significant > 0, group.n_significant, np.nan),
            "videoMinusImage",
            "nSignificant",
            title="participants in whom video beats image (q < .05)",
            label="number of participants",
            vmax=len(subjects),
        )
    for subject, values in zip(subjects, difference, strict=True):
        draw_values(
            values,
            f"sub{subject}",
            "difference",
            "One participant, without regard to significance.",
            title=f"sub-{subject}",
            **shown,
        )
    people = table.iloc[:-1]
    figure = plot_bars(
        dict(zip(people["participant"], people["video - image"], strict=True)),
        label="mean difference of held-out r, video - image",
        chance=0.0,
    )
    draw(("bar", figure))
