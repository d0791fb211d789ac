"""Video > Image of several participants in a common space: maps, tables and a report."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds.analyses.drawing import draw_map, draw_viewer
from brainnrds.analyses.encode import FDR_LEVEL, MODELS
from brainnrds.analyses.encoders import ENCODER_COLUMNS, SMALLEST_CEILING
from brainnrds.analyses.options import GroupOptions
from brainnrds.analyses.people import find_records, map_neighbours, maps_of_people
from brainnrds.analyses.record import Record
from brainnrds.io import load_group_maps, load_table
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
        With ``report``, ``table`` and ``note``, why there is no p-value of the population, or no
        cluster enhancement, or None.

    Raises
    ------
    InputError
        No participant was analysed, or they lie in different spaces or were analysed with different
        settings.
    """
    options = options or GroupOptions()
    output_dir = Path(output_dir)
    records = find_records(output_dir, "encode", subjects=subjects, space=space)
    space = next(iter(records.values()))["Parameters"]["space"]
    paper = Record("encode", output_dir, {"space": space})
    effects, masker, reason = _test_effects(output_dir, records, options)
    tests = effects[0].tests
    kinds = {"t": "sign flips", "zFixed": "fixed effects"}
    paper.open(
        {
            "subjects": list(records),
            "n_subjects": len(records),
            "group_test": next((kind for stat, kind in kinds.items() if stat in tests), None),
            "enhanced": "ptfce" in tests,
            "reason": reason,
        }
    )
    for effect in effects:
        described = f"Mean over participants: {effect.about}"
        paper.save_map(
            effect.mean.astype(np.float32),
            masker,
            description=described,
            unit=effect.unit,
            feat=effect.feat,
            stat=effect.stat,
        )
        for stat, (values, about, unit) in effect.tests.items():
            paper.save_map(
                np.asarray(values, dtype=np.float32),
                masker,
                description=f"{effect.about}. {about}",
                unit=unit,
                feat=effect.tested,
                stat=stat,
            )
    table = _group_table(paper, records)
    _group_figures(paper, effects, list(records), masker, table, reason)
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
        description=f"{about} {reason or ''}".strip(),
    )
    summary = _group_summary(next(e for e in effects if e.stat == "difference"), records, reason)
    report = paper.close(summary, random_state=options.random_state)
    return Bunch(report=report, table=table, told=[table], note=reason)


def _test_effects(output_dir, records, options):
    """Means and tests of every map that all participants have, their masker, and why no p-value."""
    masker, effects = None, []

    def read(name):
        files = [[output_dir / path for path in r["Maps"][name]] for r in records.values()]
        return load_group_maps(files, masker=masker)

    common = [name for name in next(iter(records.values()))["Maps"] if _all_have(records, name)]
    for name in common:
        effect = _effect(*name.rpartition("_")[::2])
        if effect is None:
            continue
        effect.scores, masker = read(name)
        if not effects:
            neighbours, unknown = map_neighbours(masker)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no participant is NaN
            effect.mean = np.nanmean(effect.scores, axis=0)
        tested = {stat: f"{effect.tested}_{stat}" for stat in ("p", "q")}
        has_p = all(_all_have(records, file) for file in tested.values())
        p_values, q_values = (read(file)[0] if has_p else None for file in tested.values())
        effect.tests, reason = maps_of_people(
            effect.scores,
            p_values,
            q_values,
            two_sided=effect.stat == "difference",
            neighbours=neighbours,
            options=options,
        )
        effects.append(effect)
    return effects, masker, reason or unknown


def _all_have(records, name):
    return all(name in record["Maps"] for record in records.values())


def _effect(feat, stat):
    """What a participant's map shows, or None where it is nothing to test."""
    about = {
        "r": (f"held-out correlation, {feat} model", "r", feat),
        "difference": ("video minus image", "r", feat),
        "uniqueR2": (f"R2 that only {feat} features add", "R2", f"{feat}Unique"),
    }
    if stat not in about:
        return None
    return Bunch(
        feat=feat, stat=stat, **dict(zip(("about", "unit", "tested"), about[stat], strict=True))
    )


def _group_summary(difference, records, reason):
    summary, tests = {"participants": len(records)}, {k: v[0] for k, v in difference.tests.items()}
    ahead = difference.mean > 0
    for stat, how in (
        ("ptfce", "p < .05, cluster enhancement"),
        ("pmax", "p < .05, corrected by the maximum"),
        ("qFixed", "in these participants, fixed effects, q < .05"),
    ):
        if stat in tests:
            found = int(((tests[stat] < FDR_LEVEL) & ahead).sum())
            summary[f"voxels where video beats image ({how})"] = found
    if reason:
        what, _, why = reason.partition(": ")
        summary[what] = why
    if "nSignificant" in tests:
        summary["voxels significant in every participant (q < .05)"] = int(
            (tests["nSignificant"] == len(records)).sum()
        )
    return summary


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


def _group_figures(paper, effects, subjects, masker, table, reason):
    difference = next(effect for effect in effects if effect.stat == "difference")
    limit = float(np.nanpercentile(np.abs(difference.scores), 99))
    space = paper.entities["space"]

    def draw_values(values, feat, stat, description="", **options):
        drawn = draw_map(masker, values, space, **options)
        if drawn is not None:
            suffix, figure = drawn
            paper.save_figure(figure, suffix, feat=feat, stat=stat, description=description)

    highest = max(np.nanpercentile(e.mean, 99) for e in effects if e.stat == "r")
    for effect in effects:
        stat, said = _shown_significance(effect.tests)
        draw_values(
            effect.mean,
            effect.feat,
            effect.stat,
            said or f"{reason[0].upper()}{reason[1:]}.",
            p_values=None if stat is None else effect.tests[stat][0],
            significance="q" if stat == "qFixed" else "p",
            signed=effect.stat != "r",
            contest=effect.stat == "difference",
            vmax={"r": highest, "difference": limit}.get(effect.stat),
            title="mean Video > Image" if effect is difference else f"mean {effect.about}",
            label=f"mean {effect.unit}",
        )
    for stat, title, most in (
        ("nSignificant", "participants in whom video beats image (q < .05)", len(subjects)),
        ("prevalenceLow", "in which share of people video beats image, at least", 1),
    ):
        if stat in difference.tests:
            values, about, unit = difference.tests[stat]
            shown = np.where(values > 0, values, np.nan)
            draw_values(shown, difference.feat, stat, about, title=title, label=unit, vmax=most)
    for subject, values in zip(subjects, difference.scores, strict=True):
        draw_values(
            values,
            f"sub{subject}",
            "difference",
            "One participant, without regard to significance.",
            signed=True,
            vmax=limit,
            title=f"sub-{subject}",
            label="difference of held-out r",
        )
    maps = {"mean of the participants": difference.mean}
    maps |= {f"sub-{s}": values for s, values in zip(subjects, difference.scores, strict=True)}
    page = draw_viewer(
        masker,
        maps,
        space,
        q_values={},
        signed=tuple(maps),
        title="Video > Image (difference of r)",
    )
    if page is not None:
        paper.save_page(page, "viewer")
    people = table.iloc[:-1]
    figure = plot_bars(
        dict(zip(people["participant"], people["video - image"], strict=True)),
        label="mean difference of held-out r, video - image",
        chance=0.0,
    )
    paper.save_figure(figure, "bar")


def _shown_significance(tests):
    """Which of the tests decides what is opaque, and what is said of it."""
    if "ptfce" in tests:
        return "ptfce", "Significance by threshold-free cluster enhancement, family-wise."
    if "pmax" in tests:
        return "pmax", "Significance by the maximum over voxels, family-wise."
    if "qFixed" in tests:
        return "qFixed", "Fixed effects: of these participants taken together, and of no others."
    return None, None
