"""What participants share of their responses to the same films: the ceiling of a group."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.analyses.design import choose_design
from brainnrds.analyses.encoders import SMALLEST_CEILING
from brainnrds.analyses.options import EncodeOptions, Selection
from brainnrds.encoding import normalized_score
from brainnrds.group import inter_subject_correlation, match_films
from brainnrds.io import find_runs, load_runs

__all__ = ["ceiling_maps", "common_films", "relative_to_shared", "shared_ceiling"]

_N_PERMUTATIONS = 1000


def shared_ceiling(selection, records, masker, *, work_dir, random_state=0):
    """Correlate the responses of participants to the films that all of them saw.

    One participant after the other is read, as the participant level did, and kept in a file of
    the work folder for the time of the computation.

    Parameters
    ----------
    selection : Selection or path-like
        Which data; a path is the BIDS folder.
    records : dict of str to dict
        Of the participant level, by label.
    masker : fitted masker
        Of the group's maps.
    work_dir : path-like
    random_state : int, default=0

    Returns
    -------
    shared : Bunch
        Of :func:`brainnrds.group.inter_subject_correlation`, and ``film_names``.

    Raises
    ------
    InputError
        One participant, no common film, or films of different length; a trial design.
    """
    with common_films(selection, records, masker, work_dir) as (people, matched):
        shared = inter_subject_correlation(
            [person.bold for person in people],
            t_r=people[0].t_r,
            rows=matched.rows,
            films=matched.films,
            n_permutations=_N_PERMUTATIONS,
            random_state=random_state,
        )
    return Bunch(**shared, film_names=matched.film_names)


@contextmanager
def common_films(selection, records, masker, work_dir):
    """Participants' data with BOLD in files, for the time of a block, and what all of them saw.

    Yields a list of MovieData and the result of :func:`brainnrds.group.match_films`.
    """
    if not isinstance(selection, Selection):
        selection = Selection(bids_dir=Path(selection))
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="shared-", dir=work_dir) as folder:
        people = [
            _load(selection, label, record["Options"], masker, Path(folder) / f"{label}.npy")
            for label, record in records.items()
        ]
        yield people, match_films(people)
        people.clear()  # arrays in files, which go now


def _load(selection, label, options, masker, path):
    """A participant's data with BOLD in a file, voxel by voxel, at the voxels of the group."""
    runs = find_runs(selection.bids_dir, subject=label, **selection.keywords())
    options = EncodeOptions(**options)
    if choose_design(runs, options)[0] == "trials":
        raise InputError(
            "What participants share is read from volumes in time: not of a trial design."
        )
    data = load_runs(runs, **options.keywords())
    voxels = np.arange(data.bold.shape[1])
    n_voxels = len(voxels)
    if hasattr(data.masker, "mask_img_") and not hasattr(data.masker.mask_img_, "mesh"):
        # in volumes participants have masks of their own
        inside, own = (np.asarray(m.mask_img_.dataobj) > 0 for m in (masker, data.masker))
        number = np.full(own.shape, -1)
        number[own] = voxels
        voxels = number[inside]
        n_voxels = len(voxels)
    bold = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(len(data.bold), n_voxels), fortran_order=True
    )
    for column, voxel in enumerate(voxels):
        bold[:, column] = data.bold[:, voxel] if voxel >= 0 else 0.0
    bold.flush()
    return replace(data, bold=np.load(path, mmap_mode="r"))


def ceiling_maps(shared):
    """Maps of what is shared: stat -> (values, description, unit)."""
    maps = {
        "sharedVariance": (
            shared.shared_variance,
            "Mean correlation over pairs of participants: the share of variance that is common",
            "R2",
        ),
        "leaveOneOut": (
            shared.leave_one_out.mean(axis=0),
            "Correlation of a participant with the mean of the others, mean over participants",
            "r",
        ),
        "groupCeiling": (
            shared.group_ceiling,
            "Inter-subject ceiling of the average response of all participants",
            "R2",
        ),
    }
    if shared.n_people > 2:
        maps["sharedCeiling"] = (
            shared.ceiling.mean(axis=0),
            "Inter-subject ceiling of one participant, mean over participants",
            "R2",
        )
    if shared.q_values is not None:
        about = "q-value of what is shared, blocks permuted in time"
        maps["qShared"] = (shared.q_values, about, "probability")
    return maps


def relative_to_shared(scores, shared, model):
    """Scores r of participants divided by their largest attainable ones, by what people share."""
    return normalized_score(
        scores,
        shared.ceiling,
        smallest_ceiling=SMALLEST_CEILING,
        name=f"scores of the {model} model (by the inter-subject ceiling, all participants)",
    )
