"""Tests over people: of these few (2 to 5), or of the population that 6 and more come from."""

import joblib
import numpy as np
from scipy import stats
from scipy.special import ndtri, stdtr
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError
from brainnrds.encoding.significance import benjamini_hochberg, share_at_least
from brainnrds.group.cluster_enhancement import tfce

__all__ = [
    "FEWEST_SUBJECTS",
    "conjunction",
    "count_significant",
    "fixed_effects",
    "one_sided_p",
    "prevalence",
    "sign_flip_test",
]

#: With fewer there is no statement about a population.
FEWEST_SUBJECTS = 6
_MOST_ENUMERATED = 12
_VOXELS_PER_BATCH = 512
_VALUES_PER_BATCH = 2**20
# permutations cannot tell p-values from 1 where nothing is predicted: a single one of them would
# outweigh all other people
_LARGEST_P = 1 - 1e-4


def one_sided_p(p_values, scores):
    """Turn two-sided p-values into one-sided ones for scores above 0.

    Parameters
    ----------
    p_values, scores : arrays of one shape

    Returns
    -------
    p_values : array of float64 of the same shape
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    return np.where(np.asarray(scores) > 0, p_values / 2, 1 - p_values / 2)


def fixed_effects(p_values, *, two_sided=True):
    """Test whether these very people, taken together, show an effect.

    Each person's p-value, of blocks in time, becomes a standard normal z; the sum of n of them over
    :math:`\\sqrt{n}` is standard normal again [1]_. It is a statement about these people and none
    about others: a single one with a strong effect is enough.

    Parameters
    ----------
    p_values : array of shape (n_subjects, n_voxels)
        One-sided (:func:`one_sided_p`), as they were tested in each participant.
    two_sided : bool, default=True
        Whether effects below 0 are looked for as well.

    Returns
    -------
    test : Bunch
        ``z``, ``p_values`` and ``q_values`` for the false discovery rate, each (n_voxels,). NaN
        where a participant has no value.

    References
    ----------
    .. [1] Stouffer SA, et al. (1949). The American soldier, vol. 1. Princeton University Press.
    """
    p_values = _check_people(p_values, "p_values")
    largest = 1 - 1e-16 if two_sided else _LARGEST_P
    z = stats.norm.isf(np.clip(p_values, 1e-300, largest)).sum(axis=0) / np.sqrt(len(p_values))
    combined = 2 * stats.norm.sf(np.abs(z)) if two_sided else stats.norm.sf(z)
    return Bunch(z=z, p_values=combined, q_values=benjamini_hochberg(combined))


def conjunction(p_values):
    """Test whether every single one of these people shows the effect.

    Parameters
    ----------
    p_values : array of shape (n_subjects, n_voxels)
        One-sided.

    Returns
    -------
    test : Bunch
        ``p_values`` (n_voxels,), the largest of each voxel: valid against the null hypothesis that
        at least one participant has no effect [1]_; ``q_values`` (n_voxels,). NaN where a
        participant has no value.

    References
    ----------
    .. [1] Nichols T, Brett M, Andersson J, Wager T, Poline JB (2005). Valid conjunction inference
       with the minimum statistic. NeuroImage 25, 653-660.
    """
    largest = _check_people(p_values, "p_values").max(axis=0)
    return Bunch(p_values=largest, q_values=benjamini_hochberg(largest))


def prevalence(p_values, *, level=0.05, bound=0.95):
    """Estimate in which share of people such a test would find the effect.

    With k of n participants significant, and a uniform prior for the prevalence [1]_. Effects that
    a test misses count as absent, so that it is a lower estimate.

    Parameters
    ----------
    p_values : array of shape (n_subjects, n_voxels)
        One-sided, not corrected over voxels. NaN does not count.
    level : float, default=0.05
        At which a participant is significant: the rate of those without an effect who are, too.
    bound : float, default=0.95
        Posterior probability that the prevalence lies above the lower bound.

    Returns
    -------
    prevalence : Bunch
        ``estimate`` and ``lower`` (n_voxels,): the most probable value and the bound, in [0, 1];
        ``n_significant`` (n_voxels,). NaN where nobody has a value.

    References
    ----------
    .. [1] Ince RAA, Paton AT, Kay JW, Schyns PG (2021). Bayesian inference of population
       prevalence. eLife 10, e62461.
    """
    p_values = _check_people(p_values, "p_values")
    if not 0 < level < 1 or not 0 < bound < 1:
        raise InputError(f"`level` and `bound` must lie between 0 and 1; got {level}, {bound}.")
    n = np.isfinite(p_values).sum(axis=0)
    with np.errstate(invalid="ignore"):
        k = np.sum(p_values < level, axis=0)
        share = k / n
    # the rate of significant tests, level + (1 - level) prevalence, is above level: a beta
    # posterior that is cut there
    posterior = stats.beta(k + 1, n - k + 1)
    rate = posterior.isf(bound * posterior.sf(level))
    return Bunch(
        estimate=np.clip((share - level) / (1 - level), 0, 1),
        lower=np.where(n > 0, np.clip((rate - level) / (1 - level), 0, 1), np.nan),
        n_significant=k,
    )


def count_significant(scores, q_values, *, level=0.05):
    """Count the participants in whom a voxel is significant by itself.

    Parameters
    ----------
    scores, q_values : arrays of shape (n_subjects, n_voxels)
    level : float, default=0.05

    Returns
    -------
    positive, negative : arrays of int of shape (n_voxels,)
        Participants with a significant score above, and below, 0.
    """
    scores, q_values = np.asarray(scores), np.asarray(q_values)
    if q_values.shape != scores.shape:
        raise InputError(
            f"`q_values` must have the shape of `scores`, {scores.shape}; got {q_values.shape}."
        )
    with np.errstate(invalid="ignore"):
        found = q_values < level
        return np.sum(found & (scores > 0), axis=0), np.sum(found & (scores < 0), axis=0)


def sign_flip_test(
    scores, *, neighbours=None, two_sided=True, n_permutations=5000, random_state=None, n_jobs=None
):
    """Test whether the mean of the population differs from 0, by the signs of people.

    Under the null hypothesis the scores of a person are as likely with the opposite sign: the t
    statistic over people is compared with those after random changes of sign.

    Parameters
    ----------
    scores : array of shape (n_subjects, n_voxels)
        Held-out scores, differences or unique variances of each participant, in a common space.
    neighbours : sparse array of shape (n_voxels, n_voxels) or None, default=None
        For threshold-free cluster enhancement (:func:`tfce`); None: without.
    two_sided : bool, default=True
        Whether effects below 0 are looked for as well.
    n_permutations : int, default=5000
        Sign flips from 13 participants on; up to 12 all 2^n_subjects are enumerated.
    random_state : int, RandomState or None, default=None
    n_jobs : int or None, default=None
        Processes for the enhancement, as in joblib.

    Returns
    -------
    test : Bunch
        ``t`` (n_voxels,), ``p_values`` uncorrected, ``q_values`` for the false discovery rate,
        ``p_max`` corrected for the family of voxels by the largest t [1]_, ``p_tfce`` likewise
        after enhancement, each (n_voxels,), NaN in voxels that a participant lacks, or None;
        ``n_permutations``, ``smallest_p`` and ``reason``, a line that says why there is no p-value,
        or None.

    Raises
    ------
    InputError
        Wrong shapes, or no voxel of which all participants have a value.

    Notes
    -----
    What is enhanced is the z with the p-value that t has under normal theory. Few people have
    t values without a bound, which z has, and z means the same for any number of people.

    References
    ----------
    .. [1] Nichols TE, Holmes AP (2002). Nonparametric permutation tests for functional
       neuroimaging: a primer with examples. Human Brain Mapping 15, 1-25.
    """
    scores = _check_people(scores, "scores")
    n_subjects, n_voxels = scores.shape
    names = ("t", "p_values", "q_values", "p_max", "p_tfce")
    test = Bunch(**dict.fromkeys(names), n_permutations=None, smallest_p=None, reason=None)
    if n_subjects < FEWEST_SUBJECTS:
        who = "1 participant has" if n_subjects == 1 else f"{n_subjects} participants have"
        test.reason = (
            f"no group p-values: {who} {2**n_subjects} sign flips, and "
            f"a test needs at least {FEWEST_SUBJECTS} participants"
        )
        return test
    signs = _signs(n_subjects, n_permutations, check_random_state(random_state))
    test.n_permutations = len(signs)
    test.smallest_p = (1 + (two_sided and n_subjects <= _MOST_ENUMERATED)) / len(signs)
    # where all people have one value, t has none
    complete = np.isfinite(scores).all(axis=0)
    complete &= np.ptp(np.where(complete, scores, 0), axis=0) > 0
    if not complete.any():
        raise InputError("`scores` must have a voxel with values of all participants; got none.")
    kept = scores[:, complete]
    size = np.abs if two_sided else np.asarray

    largest = np.full(len(signs), -np.inf)
    found = {name: np.empty(kept.shape[1]) for name in ("t", "p_values")}
    for start in range(0, kept.shape[1], _VOXELS_PER_BATCH):
        batch = slice(start, start + _VOXELS_PER_BATCH)
        t = _t(signs, kept[:, batch])
        found["t"][batch] = t[0]
        found["p_values"][batch] = np.mean(size(t) >= size(t[0]) - 1e-9, axis=0)
        largest = np.maximum(largest, size(t).max(axis=1))
    found["q_values"] = benjamini_hochberg(found["p_values"])
    found["p_max"] = share_at_least(np.sort(largest), size(found["t"]))
    if neighbours is not None:
        neighbours = _check_neighbours(neighbours, n_voxels)[complete][:, complete]
        found["p_tfce"] = _enhanced_p(signs, kept, neighbours, two_sided, n_jobs)
    for name, values in found.items():
        test[name] = np.full(n_voxels, np.nan)
        test[name][complete] = values
    return test


def _check_people(values, name):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 1:
        raise InputError(f"`{name}` must have shape (n_subjects, n_voxels); got {values.shape}.")
    return values


def _check_neighbours(neighbours, n_voxels):
    if neighbours.shape != (n_voxels, n_voxels):
        raise InputError(
            f"`neighbours` must have shape ({n_voxels}, {n_voxels}), as `scores` have {n_voxels} "
            f"voxels; got {neighbours.shape}."
        )
    return neighbours.tocsr()


def _signs(n_subjects, n_permutations, rng):
    """Patterns (n_permutations, n_subjects); the first is what was measured."""
    if n_subjects <= _MOST_ENUMERATED:
        return 1.0 - 2.0 * ((np.arange(2**n_subjects)[:, None] >> np.arange(n_subjects)) & 1)
    signs = rng.choice([-1.0, 1.0], size=(n_permutations, n_subjects))
    signs[0] = 1
    return signs


def _t(signs, scores):
    """t statistics (n_permutations, n_voxels): the sum of squares does not change with signs."""
    n_subjects = len(scores)
    sums = signs @ scores
    squares = np.sum(scores**2, axis=0)
    error = np.sqrt(np.maximum(squares - sums**2 / n_subjects, 0) * n_subjects / (n_subjects - 1))
    return sums / np.maximum(error, 1e-12 * np.sqrt(squares))


def _z(signs, scores):
    """Standard normal statistics with the p-values of t."""
    t = _t(signs, scores)
    return -np.sign(t) * ndtri(np.maximum(stdtr(len(scores) - 1, -np.abs(t)), 1e-300))


def _enhanced_p(signs, scores, neighbours, two_sided, n_jobs):
    """p-values of enhanced z, corrected by the largest of each pattern of signs."""
    if two_sided and len(scores) <= _MOST_ENUMERATED:
        signs = signs[: len(signs) // 2]  # the other half are the same with the sign turned
    n_maps = max(1, _VALUES_PER_BATCH // scores.shape[1])

    def enhance(some):
        enhanced = tfce(_z(some, scores), neighbours, two_sided=two_sided)
        return np.abs(enhanced) if two_sided else enhanced

    def largest(some):
        return enhance(some).max(axis=1)

    batches = [signs[start : start + n_maps] for start in range(0, len(signs), n_maps)]
    # a single batch is done before a process has started
    maxima = joblib.Parallel(n_jobs if len(batches) > 1 else 1)(
        joblib.delayed(largest)(some) for some in batches
    )
    return share_at_least(np.sort(np.concatenate(maxima)), enhance(signs[:1])[0])
