"""Video > Image of several participants in a common space: maps, tables and a report."""

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.analyses.drawing import draw_map, draw_viewers, note_on_figures
from brainnrds.analyses.encode import FDR_LEVEL
from brainnrds.analyses.group_tables import (
    add_shared_ceiling,
    participant_table,
    read_tables,
    save_group_encoders,
    save_group_parcels,
)
from brainnrds.analyses.left_out import left_out_maps, left_out_people, save_left_out
from brainnrds.analyses.options import EncodeGroupOptions
from brainnrds.analyses.people import (
    find_records,
    map_neighbours,
    maps_of_people,
    mean_of_people,
    without_results,
)
from brainnrds.analyses.record import Record
from brainnrds.analyses.shared_ceiling import ceiling_maps, relative_to_shared, shared_ceiling
from brainnrds.io import load_group_maps
from brainnrds.plotting import plot_bars

__all__ = ["encode_group"]


def encode_group(
    output_dir, options=None, *, subjects=None, space=None, selection=None, work_dir="work"
):
    """Summarise the maps of several participants in a common space.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`encode_participant` wrote.
    options : EncodeGroupOptions or None, default=None
        None: the defaults. Signs are flipped at random from 13 participants on; up to 12 all
        patterns are enumerated.
    subjects : list of str or None, default=None
        None: all that are there.
    space : str or None, default=None
        None: the only one there is.
    selection : Selection, path-like or None, default=None
        Which data; a path is the BIDS folder. For what reads BOLD again: the inter-subject ceiling,
        and participants who are left out.
    work_dir : path-like, default="work"
        Where BOLD is kept meanwhile, and features.

    Returns
    -------
    result : Bunch
        With ``report``, ``table``, ``told`` (what a terminal shows) and ``note``, why there is no
        p-value of the population, or no cluster enhancement, or None.

    Raises
    ------
    InputError
        No participant was analysed, or they lie in different spaces or were analysed with different
        settings; for the inter-subject ceiling, they have no film in common.
    """
    options = options or EncodeGroupOptions()
    output_dir = Path(output_dir)
    records = find_records(output_dir, "encode", subjects=subjects, space=space)
    _check_options(options, records, selection)
    space = next(iter(records.values()))["Entities"]["space"]
    paper = Record("encode", output_dir, {"space": space}, work_dir=work_dir)
    # all is read before anything is written
    table, columns = participant_table(paper, records)
    encoders = read_tables(paper, records, "encoder", desc="encodeEncoders")
    parcels = read_tables(paper, records, ["parcel", "name"], seg="atlas")
    effects, masker, reason = _test_effects(output_dir, records, options)
    if options.pycortex_subject is not None:
        paper.draw_on(options.pycortex_subject, masker)
    with paper.watching():
        note_on_figures(masker, space, paper.pycortex_subject)
    shared = None
    left_out = None
    if options.inter_subject:
        shared = shared_ceiling(
            selection, records, masker, work_dir=work_dir, random_state=options.random_state
        )
    if options.align:
        left_out = left_out_people(selection, records, masker, options, work_dir=Path(work_dir))
    missing = without_results("encode", output_dir, records, subjects, selection)
    parameters = _group_parameters(records, effects, shared, reason)
    if left_out is not None:
        parameters |= {"align": options.align, "left_out_films": left_out.test_films}
    paper.open({**parameters, "without_results": missing})
    relative = {} if shared is None else _relative_scores(shared, effects)
    maps = _maps_of_effects(effects) + ([] if shared is None else _shared_maps(shared, relative))
    maps += [] if left_out is None else left_out_maps(left_out)
    for feat, stat, values, description, unit in maps:
        values = np.asarray(values, dtype=np.float32)
        paper.save_map(values, masker, description=description, unit=unit, feat=feat, stat=stat)
    if shared is not None and shared.n_people > 2:
        columns |= add_shared_ceiling(table, shared, relative)
    _group_figures(paper, effects, list(records), masker, table, reason)
    if shared is not None:
        _shared_figures(paper, shared, relative, masker)
    told = [table]
    if left_out is not None:
        told.append(save_left_out(paper, left_out, list(records)))
    save_group_encoders(paper, encoders)
    save_group_parcels(paper, parcels, options)
    about = "Each participant's mean scores; the group's mean in the last row."
    described = f"{about} {_sentence(reason)}".strip()
    paper.save_table(table, columns=columns, description=described)
    summary = _group_summary(next(e for e in effects if e.stat == "difference"), records, reason)
    if missing:
        summary[f"without results: {len(missing)}"] = ", ".join(missing)
    report = paper.close(summary, random_state=options.random_state)
    return Bunch(report=report, table=table, told=told, note=reason)


def _check_options(options, records, selection):
    """Refuse before BOLD is read what needs more participants, or BOLD that is not known."""
    if selection is None and (options.inter_subject or options.align):
        raise InputError("`selection` must say where the BOLD is; got None.")
    for option, is_asked, fewest in (
        ("--inter-subject-ceiling", options.inter_subject, 2),
        ("--align", options.align, 3),
    ):
        if is_asked and len(records) < fewest:
            raise InputError(
                f"{option} needs at least {fewest} participants with results; got "
                f"{', '.join(f'sub-{label}' for label in records)}."
            )


def _group_parameters(records, effects, shared, reason):
    tests = effects[0].tests
    kinds = {"t": "sign flips", "zFixed": "fixed effects"}
    return {
        "subjects": list(records),
        "n_subjects": len(records),
        "group_test": next((kind for stat, kind in kinds.items() if stat in tests), None),
        "enhanced": "ptfce" in tests,
        "reason": reason,
        "shared_films": None if shared is None else shared.film_names,
        "no_shared_p_values_because": None if shared is None else shared.reason,
    }


def _maps_of_effects(effects):
    """What is written of means and tests: (feat, stat, values, description, unit)."""
    maps = []
    for effect in effects:
        described = f"Mean over participants: {effect.about}"
        maps.append((effect.feat, effect.stat, effect.mean, described, effect.unit))
        maps += [
            (effect.tested, stat, values, f"{effect.about}. {about}", unit)
            for stat, (values, about, unit) in effect.tests.items()
        ]
    return maps


def _shared_maps(shared, relative):
    """What is written of the inter-subject ceiling, and scores relative to it."""
    maps = [(None, stat, *about) for stat, about in ceiling_maps(shared).items()]
    about = "Mean over participants of r / sqrt(inter-subject ceiling)"
    return maps + [
        (model, "normalisedShared", mean_of_people(scores), f"{about}, {model} model", "ratio")
        for model, scores in relative.items()
    ]


def _relative_scores(shared, effects):
    """Each model's scores relative to what people share, from three people on."""
    models = [effect for effect in effects if effect.stat == "r"] if shared.n_people > 2 else []
    return {e.feat: relative_to_shared(e.scores, shared, e.feat) for e in models}


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
        effect.mean = mean_of_people(effect.scores)
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
    if reason and not any("prevalence" in effect.tests for effect in effects):
        reason += "; nor fixed effects and prevalence: not every participant has p-values"
    return effects, masker, reason or unknown


def _sentence(reason):
    return f"{reason[0].upper()}{reason[1:]}." if reason else ""


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


def _group_figures(paper, effects, subjects, masker, table, reason):
    difference = next(effect for effect in effects if effect.stat == "difference")
    limit = float(np.nanpercentile(np.abs(difference.scores), 99))
    space = paper.entities["space"]

    def draw_values(values, feat, stat, description="", person=None, **options):
        options |= {"pycortex_subject": paper.pycortex_subject}
        drawn = draw_map(masker, values, space, **options)
        paper.save_drawn(drawn, feat=feat, stat=stat, description=description, person=person)

    highest = max(np.nanpercentile(e.mean, 99) for e in effects if e.stat == "r")
    for effect in effects:
        stat, said = _shown_significance(effect.tests)
        draw_values(
            effect.mean,
            effect.feat,
            effect.stat,
            said or _sentence(reason),
            p_values=None if stat is None else effect.tests[stat][0],
            significance="q" if stat == "qFixed" else "p",
            signed=effect.stat != "r",
            contest=effect.stat == "difference",
            vmax={"r": highest, "difference": limit}.get(effect.stat),
            title="mean Video > Image" if effect is difference else f"mean {effect.about}",
            label=f"mean {'difference of ' if effect is difference else ''}{effect.unit}",
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
            difference.feat,
            difference.stat,
            "One participant, without regard to significance.",
            subject,
            signed=True,
            vmax=limit,
            title=f"sub-{subject}",
            label="difference of held-out r",
        )
    maps = {"mean of the participants": difference.mean}
    maps |= {f"sub-{s}": values for s, values in zip(subjects, difference.scores, strict=True)}
    pages = draw_viewers(
        masker,
        maps,
        space,
        q_values={},
        signed=tuple(maps),
        title="Video > Image (difference of r)",
        pycortex_subject=paper.pycortex_subject,
    )
    for suffix, page in pages:
        paper.save_page(page, suffix)
    people = table.iloc[:-1]
    figure = plot_bars(
        dict(zip(people["participant"], people["video - image"], strict=True)),
        label="mean difference of held-out r, video - image",
        chance=0.0,
    )
    paper.save_figure(figure, "bar", stat="difference")


def _shared_figures(paper, shared, relative, masker):
    """Draw the ceiling of what is shared, and what a model reaches of it."""

    def draw(values, feat, stat, description="", **options):
        options |= {"pycortex_subject": paper.pycortex_subject}
        drawn = draw_map(masker, values, paper.entities["space"], **options)
        paper.save_drawn(drawn, feat=feat, stat=stat, description=description)

    maps = ceiling_maps(shared)
    stat = "sharedCeiling" if "sharedCeiling" in maps else "sharedVariance"
    values, said = maps[stat][0], _sentence(shared.reason)
    draw(values, None, stat, said, title="what participants share", label="R2")
    for model, scores in relative.items():
        title, mean = f"{model} model relative to what participants share", mean_of_people(scores)
        draw(mean, model, "normalisedShared", title=title, label="ratio", vmax=1)


def _shown_significance(tests):
    """Which of the tests decides what is opaque, and what is said of it."""
    if "ptfce" in tests:
        return "ptfce", "Significance by threshold-free cluster enhancement, family-wise."
    if "pmax" in tests:
        return "pmax", "Significance by the maximum over voxels, family-wise."
    if "qFixed" in tests:
        return "qFixed", "Fixed effects: of these participants taken together, and of no others."
    return None, None
