"""Left against right: which hemisphere a score is higher in, over people."""

import re

import numpy as np
from scipy import stats
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.group.inference import FEWEST_SUBJECTS, sign_flip_test

__all__ = ["homologous_parcels", "laterality"]

# what tells sides apart at the beginning, inside or at the end of a parcel's name
_SIDE = re.compile(r"(?<![^\W_])(left|right|lh|rh|l|r)(?![^\W_])", re.IGNORECASE)


def laterality(left, right, *, confidence=0.95, n_permutations=5000, random_state=None):
    """Compare homologous places of the hemispheres over people.

    Parameters
    ----------
    left, right : arrays of shape (n_subjects, n_pairs)
        Scores of homologous parcels or vertices.
    confidence : float, default=0.95
    n_permutations : int, default=5000
        As in :func:`brainnrds.group.sign_flip_test`.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    sides : Bunch
        Of the pairs, each (n_pairs,): ``difference``, mean of left minus right, with the ends
        ``difference_low``, ``difference_high`` of its interval; ``index``, (L - R) / (\\|L\\| +
        \\|R\\|) of the means L and R: 1 is left alone, -1 right alone, with ``index_low`` and
        ``index_high``; ``p_values`` and ``q_values`` of the difference, two-sided, by sign flips
        of people. Intervals and p-values need six people, else they are NaN; ``reason`` says so,
        or is None. A pair without a value in a person has none.

    Notes
    -----
    The index is a ratio of means over people; its standard error is that of the residuals
    :math:`d_i - I s_i` over the mean of :math:`s_i` [1]_, with Student's t. It means little where
    both sides are near 0: there its interval is wide.

    References
    ----------
    .. [1] Cochran WG (1977). Sampling techniques, 3rd ed., section 2.11. Wiley.
    """
    left, right = (np.asarray(side, dtype=np.float64) for side in (left, right))
    if left.ndim != 2 or left.shape != right.shape or not left.size:
        raise InputError(
            "`left` and `right` must have one shape (n_subjects, n_pairs); got "
            f"{left.shape} and {right.shape}."
        )
    n = len(left)
    difference = left - right
    mean = difference.mean(axis=0)
    # of the means |L| + |R|: signs as the means have them
    size = np.sign(left.mean(axis=0)) * left + np.sign(right.mean(axis=0)) * right
    total = size.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        index = np.where(total > 0, mean / total, np.nan)
    sides = Bunch(difference=mean, index=index)
    nothing = np.full(left.shape[1], np.nan)
    if n < FEWEST_SUBJECTS:
        names = ("difference_low", "difference_high", "index_low", "index_high")
        sides.update({name: nothing for name in (*names, "p_values", "q_values")})
        sides.reason = (
            f"no test of sides: {n} participants, and it needs at least {FEWEST_SUBJECTS}"
        )
        return sides
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) / np.sqrt(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_index = (difference - index * size).std(axis=0, ddof=1) / total
    for name, centre, error in (
        ("difference", mean, difference.std(axis=0, ddof=1)),
        ("index", index, of_index),
    ):
        sides[f"{name}_low"], sides[f"{name}_high"] = centre - reach * error, centre + reach * error
    test = sign_flip_test(difference, n_permutations=n_permutations, random_state=random_state)
    sides.p_values, sides.q_values, sides.reason = test.p_values, test.q_values, None
    return sides


def homologous_parcels(names):
    """Find pairs of parcels whose names differ in the side alone.

    Parameters
    ----------
    names : sequence of str
        Such as "L_V1_ROI" and "R_V1_ROI", "lh.MT" and "rh.MT", "Left V1" and "Right V1".

    Returns
    -------
    pairs : dict of str to (int, int)
        Name without its side -> places of the left and the right parcel. Parcels without a
        partner are left out.

    Raises
    ------
    InputError
        Several parcels have the same name.
    """
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        again = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"`names` must differ; got {', '.join(again)} several times.")
    found = {}
    for place, name in enumerate(names):
        side = _SIDE.search(name)
        if side is not None:
            rest = f"{name[: side.start()]}{name[side.end() :]}".strip("_-. ")
            found.setdefault(rest, {})[side[0][0].lower()] = place
    return {rest: (both["l"], both["r"]) for rest, both in found.items() if len(both) == 2}
