"""Results of several participants: found, compared in their settings, tested by their number."""

import warnings
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds.group import (
    conjunction,
    count_significant,
    fixed_effects,
    grayordinate_neighbours,
    mesh_neighbours,
    one_sided_p,
    prevalence,
    sign_flip_test,
    volume_neighbours,
)
from brainnrds.group.inference import FEWEST_SUBJECTS
from brainnrds.io import CiftiMasker, load_json
from brainnrds.plotting import template_faces

__all__ = [
    "find_records",
    "map_neighbours",
    "maps_of_people",
    "mean_of_people",
    "without_results",
]

_CORTEX = "CIFTI_STRUCTURE_CORTEX_"
_MOST_NAMED = 20  # in a line; the record has all
_LONGEST_VALUES = 80  # characters
# of a participant's record: what must be the same in all
_SETTINGS = (
    "feature_spaces",
    "control_spaces",
    "n_components",
    "projection",
    "delays_seconds",
    "confounds",
    "repeats",
    "grid",
    "n_steps",
    "renderer",
    "initial_frames",
    "size",
    "image_encoder",
    "video_encoder",
)


def find_records(output_dir, analysis, *, subjects=None, space=None, one_space=True):
    """Find the records of the participants of an analysis, made with the same settings.

    Parameters
    ----------
    output_dir, subjects, space
        As in :func:`brainnrds.analyses.encode_group`.
    analysis : str
        "encode", "decode" or "reanimate".
    one_space : bool, default=True
        Whether participants must share a space.

    Returns
    -------
    records : dict of str to dict
        By label, in their order; with ``Entities``, task and space of the names of files.

    Raises
    ------
    InputError
        A participant has none, or several; spaces or settings differ.
    """
    output_dir, records = Path(output_dir), {}
    for path in sorted(output_dir.glob(f"sub-*/*_desc-{analysis}_provenance.json")):
        label = path.parent.name.removeprefix("sub-")
        labels = dict(pair.split("-", 1) for pair in path.stem.split("_")[:-1])
        entities = {name: labels.get(name) for name in ("task", "space")}
        record, here = {**load_json(path), "Entities": entities}, entities["space"]
        if (subjects is None or label in subjects) and (space is None or here == space):
            if label in records:
                raise InputError(
                    f"sub-{label} must have one set of results of {analysis} in {output_dir}; got "
                    f"{path.name} and others: choose with --space, or use one output folder each."
                )
            lacking = [name for name in ("Parameters", "Versions") if name not in record]
            if lacking:
                raise InputError(
                    f"{path} must be the record of a finished analysis; got one without "
                    f"{' and '.join(lacking)}: run the participant level again."
                )
            records[label] = record
    missing = [f"sub-{label}" for label in sorted(set(subjects or []) - set(records))]
    if missing or not records:
        raise InputError(
            f"{output_dir} must hold the results of {analysis} of "
            f"{', '.join(missing) or 'at least one participant'}"
            f"{'' if space is None else f' in space {space}'}; run the participant level first."
        )
    if one_space:
        _check_space(records)
    first, *others = records
    for label in others:
        for name, value in _settings(records[first]).items():
            found = _settings(records[label])[name]
            if found != value:
                values = f", {found} and {value}"
                raise InputError(
                    f"Participants must be analysed alike; {name} of sub-{label} and sub-{first} "
                    f"differ{values if len(values) <= _LONGEST_VALUES else ''}: run them with the "
                    "same options, or choose with --participant-label."
                )
    return records


def _check_space(records):
    who = {}
    for label, record in records.items():
        who.setdefault(str(record["Entities"]["space"]), []).append(f"sub-{label}")
    if len(who) > 1:
        told = "; ".join(f"{space} of {', '.join(names)}" for space, names in who.items())
        raise InputError(f"Participants must share one space, or choose with --space; got {told}.")


def without_results(analysis, output_dir, records, subjects=None, selection=None):
    """Name the participants, of the data set or its results, who lack this analysis in this space.

    They are warned of, too: the group level is that of the others. Where `subjects` were chosen
    nobody lacks.
    """
    if subjects is not None:
        return []
    folders = [output_dir, getattr(selection, "bids_dir", selection)]
    paths = [path for f in folders if f is not None for path in Path(f).glob("sub-*")]
    names = {path.name for path in paths if path.is_dir()}
    missing = sorted(names - {f"sub-{label}" for label in records})
    if missing:
        named = [*missing[:_MOST_NAMED], *["..."][: len(missing) > _MOST_NAMED]]
        warnings.warn(
            f"{len(missing)} of {len(names)} participants are left out, without results of "
            f"{analysis} in this space: {', '.join(named)}",
            stacklevel=2,
        )
    return missing


def _settings(record):
    parameters = record["Parameters"]
    return {
        "version": record["Versions"]["brainnrds"],
        **{name: parameters.get(name) for name in _SETTINGS},
    }


def map_neighbours(masker):
    """Which voxels of a map are neighbours: (neighbours, None), or (None, reason).

    Volumes have them by faces, surfaces by the template's mesh, grayordinates by both.
    """
    if isinstance(masker, CiftiMasker):
        models = masker.brain_models
        sizes = list(models.nvertices.values())
    elif hasattr(masker.mask_img_, "mesh"):
        models = None
        sizes = [len(part) for part in masker.mask_img_.data.parts.values()]
    else:
        return volume_neighbours(np.asarray(masker.mask_img_.dataobj) > 0), None
    try:
        faces = template_faces(2 * sizes[0] if sizes else 0)
    except InputError:
        if sizes:
            return None, "no cluster enhancement: the mesh of this surface is not known"
        faces = (None, None)
    if models is None:
        return mesh_neighbours(*faces, n_vertices=sizes), None
    names = (f"{_CORTEX}LEFT", f"{_CORTEX}RIGHT")
    return grayordinate_neighbours(models, dict(zip(names, faces, strict=True))), None


def mean_of_people(values):
    """Mean over those who have a value; NaN where nobody has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0)


def maps_of_people(scores, p_values, q_values, *, two_sided, neighbours, options):
    """Test one map over people, in the way that their number allows.

    Parameters
    ----------
    scores : array of shape (n_subjects, n_voxels)
    p_values, q_values : arrays of the same shape, or None
        Of each participant; None where some have none.
    two_sided : bool
    neighbours : sparse array or None
    options : GroupOptions

    Returns
    -------
    maps : dict of str to (values, description, unit)
        By the names of statistics in files.
    reason : str or None
        Why there is no p-value of the population.
    """
    maps = {}

    def add(stat, values, description, unit="probability"):
        maps[stat] = values, description, unit

    if p_values is not None:
        upper, lower = count_significant(scores, q_values)
        add("nSignificant", upper, "Participants with q < .05, score above 0", "number")
        if two_sided:
            add("nSignificantNegative", lower, "Participants with q < .05, below 0", "number")
            p_values = one_sided_p(p_values, scores)
        shares = prevalence(p_values)
        about = "Share of people in whom such a test would find it (p < .05, score above 0)"
        add("prevalence", shares.estimate, f"{about}, most probable", "share")
        add("prevalenceLow", shares.lower, f"{about}, lower bound of 95 %", "share")
    test = sign_flip_test(
        scores,
        neighbours=neighbours,
        two_sided=two_sided,
        n_permutations=options.n_permutations,
        random_state=options.random_state,
        n_jobs=options.n_jobs,
    )
    if test.reason is None:
        sides = "two-sided" if two_sided else "one-sided"
        add("t", test.t, "t of the mean over participants", "t")
        add("p", test.p_values, f"p-value of the mean, {sides}, uncorrected")
        add("q", test.q_values, "q-value of the mean, false discovery rate")
        add("pmax", test.p_max, "p-value of the mean, corrected by the maximum")
        if test.p_tfce is not None:
            about = "p-value of the mean, threshold-free cluster enhancement, corrected"
            add("ptfce", test.p_tfce, about)
    elif p_values is not None and 2 <= len(scores) < FEWEST_SUBJECTS:
        fixed = fixed_effects(p_values, two_sided=two_sided)
        add("zFixed", fixed.z, "Fixed effects: of these participants, none about others", "z")
        add("qFixed", fixed.q_values, "q-value of the fixed effects")
        add("qConjunction", conjunction(p_values).q_values, "q-value: in every participant above 0")
    return maps, test.reason
