"""Each participant from a model of all others: maps, table and chart at the group level."""

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError, check_device
from brainnrds.analyses.design import find_test_films
from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.extract import movie_features
from brainnrds.analyses.fit import make_model
from brainnrds.analyses.named_spaces import named_spaces
from brainnrds.analyses.options import EncodeOptions
from brainnrds.analyses.people import mean_of_people
from brainnrds.analyses.shared_ceiling import common_films
from brainnrds.encoding import select_feature_spaces
from brainnrds.group import FunctionalAlignment, predict_left_out_people
from brainnrds.io import load_atlas
from brainnrds.plotting import plot_bars

__all__ = ["left_out_maps", "left_out_people", "save_left_out"]

_EVERY = 5  # of the groups of films that all saw, one in five is for testing
_VOXELS_PER_BATCH = 4096


def left_out_people(selection, records, masker, options, *, work_dir):
    """Predict each participant's test films from the joint model of all others.

    Parameters
    ----------
    selection, records, masker, work_dir
        As of :func:`brainnrds.analyses.shared_ceiling.shared_ceiling`.
    options : EncodeGroupOptions
        Its `align`, `atlas`, `minutes`.

    Returns
    -------
    scores : Bunch
        Of :func:`brainnrds.group.predict_left_out_people`, and ``test_films``, their names.

    Raises
    ------
    InputError
        Fewer than three participants, one film, no atlas, or features that were projected.
    """
    first = next(iter(records.values()))
    made = EncodeOptions(**first["Options"])
    if made.n_components:
        raise InputError("--align takes features as they are; participants have --n-components.")
    alignment, parcels = None, None
    if options.align != "anatomical":
        if options.atlas is None:
            raise InputError(f"--align {options.align} needs --atlas: what is aligned is a parcel.")
        parcels, _ = load_atlas(options.atlas, Bunch(masker=masker))
    named, controls = named_spaces(made)
    device = check_device(options.device)
    with common_films(selection, records, masker, work_dir) as (people, matched):
        test = _find_tested(made.test_films, people[0], matched.film_names)
        available = (~np.isin(matched.films, test)).sum() * people[0].t_r / 60
        minutes = sorted({min(wanted, available) for wanted in options.minutes})
        X, spaces = movie_features(
            people[0],
            make_extractors(made, device)[0],
            store_dir=work_dir / "features",
            n_jobs=options.n_processes,
            progress=False,
            film_reader=made.film_reader,
        )
        X, columns = select_feature_spaces(X, spaces, ["video", "image", *named, *controls])
        parts = []
        batches = _batches(people[0].bold.shape[1], parcels)
        for batch in batches:
            if parcels is not None:
                alignment = FunctionalAlignment(options.align, parcels=parcels[batch])
            parts.append(
                predict_left_out_people(
                    make_model(made, columns, first["Parameters"]["delays"], device),
                    X[matched.rows[0]],
                    [p.bold[:, batch][r] for p, r in zip(people, matched.rows, strict=True)],
                    t_r=people[0].t_r,
                    films=matched.films,
                    test_films=test,
                    alignment=alignment,
                    minutes=minutes,
                )
            )
    back = np.argsort(np.concatenate(batches))
    scores = Bunch(minutes=parts[0].minutes, test_films=[matched.film_names[i] for i in test])
    for name in ("anatomical", "aligned", "own"):
        whole = [part[name] for part in parts]
        scores[name] = None if whole[0] is None else np.concatenate(whole, axis=-1)[..., back]
    return scores


def _find_tested(named, person, film_names):
    """Films for testing, with all films of their groups: parts of one film may share footage."""
    groups = person.film_groups[[person.film_names.index(name) for name in film_names]]
    films = find_test_films(named, film_names)
    tested = np.unique(groups)[::_EVERY] if films is None else groups[films]
    is_tested = np.isin(groups, tested)
    if is_tested.all():
        raise InputError(
            "--align needs films for training in other groups than those for testing; got "
            f"{', '.join(film_names)}, all for testing, among the films that all participants saw."
        )
    return np.flatnonzero(is_tested).tolist()


def _batches(n_voxels, parcels):
    """Voxels that are computed together: no parcel is divided."""
    if parcels is None:
        return np.array_split(np.arange(n_voxels), -(-n_voxels // _VOXELS_PER_BATCH))
    order = np.argsort(parcels, kind="stable")
    batches, taken = [], []
    for voxels in np.split(order, np.flatnonzero(np.diff(parcels[order])) + 1):
        if taken and sum(map(len, taken)) + len(voxels) > _VOXELS_PER_BATCH:
            batches.append(np.concatenate(taken))
            taken = []
        taken.append(voxels)
    return [*batches, np.concatenate(taken)]


def left_out_maps(scores):
    """What is written: (feat, stat, values, description, unit)."""
    about = "Held-out correlation of a participant with the model of all others, mean"
    maps = [("joint", "leftOut", mean_of_people(scores.anatomical), f"{about}, by place", "r")]
    if scores.aligned is not None:
        how = f"{about}, aligned with {scores.minutes[-1]:g} minutes"
        maps.append(("joint", "leftOutAligned", mean_of_people(scores.aligned[-1]), how, "r"))
    return maps


def save_left_out(paper, scores, subjects):
    """Write the table of participants and minutes, and the chart of its means; return these."""
    kinds = [("anatomical", 0.0, scores.anatomical)]
    for name in ("aligned", "own"):
        if scores[name] is not None:
            kinds += [(name, m, r) for m, r in zip(scores.minutes, scores[name], strict=True)]
    table = pd.DataFrame(
        [
            {"participant": f"sub-{subject}", "model": name, "minutes": m, "mean_r": np.nanmean(r)}
            for name, m, people in kinds
            for subject, r in zip(subjects, people, strict=True)
        ]
    )
    about = f"Joint model; tested on {', '.join(scores.test_films)}."
    paper.save_table(
        table,
        columns={
            "participant": "Who was left out",
            "model": "anatomical: of all others, by place; aligned: the same, functionally aligned "
            "to the participant; own: of the participant's own minutes alone",
            "minutes": "Of the participant's own data, in training films",
            "mean_r": "Mean over all voxels of held-out r",
        },
        description=about,
        feat="leftOut",
    )
    means = table.groupby(["model", "minutes"], sort=False)["mean_r"].mean()
    bars = {f"{name}, {m:g} min" if m else name: r for (name, m), r in means.items()}
    figure = plot_bars(bars, label="mean held-out r", controls=["anatomical"], chance=0.0)
    paper.save_figure(figure, "bar", feat="leftOut", description=f"{about} Grey: the control.")
    return means.reset_index()
