"""How much of one person's response to a film others share: a ceiling without repeats."""

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError, check_labels
from brainnrds.encoding.noise_ceiling import noise_ceiling
from brainnrds.encoding.significance import (
    benjamini_hochberg,
    explainable_variance_significance,
)

__all__ = ["inter_subject_correlation", "match_films"]

# below this mean correlation among the others, what is shared cannot be told from noise
_SMALLEST_SHARED = 0.05


def match_films(people, *, tolerance=None):
    """Find the samples in which several people saw the same moment of the same film.

    Parameters
    ----------
    people : list of MovieData
        At least two, with repeats averaged: each shows a film once. Films are known by their name.
    tolerance : float or None, default=None
        Samples match if their film times differ by at most this, in s; None is half a `t_r`.

    Returns
    -------
    matched : Bunch
        With ``rows``, for each person an int array (n_samples,) of the samples that match, in one
        order; ``films``, int array (n_samples,), index into ``film_names``, the list of films that
        all saw.

    Raises
    ------
    InputError
        One person, no common film, different repetition times or spaces, a film shown twice, or
        of different length (by more than a tenth).
    """
    if len(people) < 2:
        raise InputError(f"`people` must hold at least two; got {len(people)}.")
    for name in ("t_r", "space"):
        found = list(dict.fromkeys(getattr(person, name) for person in people))
        if len(found) > 1:
            raise InputError(f"`people` must share one {name}; got {', '.join(map(str, found))}.")
    if tolerance is None:
        tolerance = people[0].t_r / 2
    common = set.intersection(*(set(person.film_names) for person in people))
    names = [name for name in people[0].film_names if name in common]
    if not names:
        first = [", ".join(person.film_names[:3]) for person in people]
        saw = "; ".join(f"sub-{p.subject} saw {f}" for p, f in zip(people, first, strict=True))
        raise InputError(f"`people` must have a film in common; got none: first {saw}.")
    rows, films = [[] for _ in people], []
    for number, name in enumerate(names):
        of_film = [_rows_of_film(person, name) for person in people]
        lengths = [len(found) for found in of_film]
        if max(lengths) > 1.1 * min(lengths) + 1:
            who = {length: f"sub-{p.subject}" for p, length in zip(people, lengths, strict=True)}
            told = " and ".join(f"{n} volumes of {who[n]}" for n in (min(lengths), max(lengths)))
            raise InputError(f"Film {name} must be of one length in all people; got {told}.")
        reference = people[0].film_times[of_film[0]]
        kept, places = np.ones(len(reference), dtype=bool), []
        for person, found in zip(people, of_film, strict=True):
            distance = np.abs(person.film_times[found][None] - reference[:, None])
            kept &= distance.min(axis=1) <= tolerance
            places.append(found[distance.argmin(axis=1)])
        for person_rows, found in zip(rows, places, strict=True):
            person_rows.append(found[kept])
        films.append(np.full(int(kept.sum()), number))
    return Bunch(
        rows=[np.concatenate(parts) for parts in rows],
        films=np.concatenate(films),
        film_names=names,
    )


def _rows_of_film(person, name):
    rows = np.flatnonzero(person.films == person.film_names.index(name))
    n_shown = len(np.unique(person.presentations[rows]))
    if n_shown != 1:
        raise InputError(
            f"Film {name} must be there once for each person (`average_repeats`); got {n_shown} "
            f"presentations for sub-{person.subject}."
        )
    return rows


def inter_subject_correlation(
    bold,
    *,
    t_r,
    rows=None,
    films=None,
    block_duration=None,
    n_permutations=1000,
    random_state=None,
    voxels_per_batch=256,
):
    """Correlate the responses of people to the same films.

    Parameters
    ----------
    bold : list of arrays of shape (n_samples, n_voxels)
        One per person, in a common space. Arrays that are mapped from files
        (``numpy.load(path, mmap_mode="r")``) are read in batches of voxels.
    t_r : float
        Repetition time, s.
    rows : list of int arrays of shape (n_matched,), default=None
        For each person the samples that match, as :func:`match_films` finds them. None: row by row
        the same moment of the same film.
    films : array of int of shape (n_matched,), default=None
        Film label of each matching sample; the mean of each film is removed. None is one film.
    block_duration : float or None, default=None
        As in :func:`brainnrds.encoding.explainable_variance_significance`.
    n_permutations : int, default=1000
        0 makes no test.
    random_state : int, RandomState or None, default=None
    voxels_per_batch : int, default=256

    Returns
    -------
    shared : Bunch
        ``leave_one_out`` (n_people, n_voxels), correlation of each person with the mean of the
        others; ``shared_variance`` (n_voxels,), mean correlation over pairs: the share of one
        person's variance that is common to all; ``ceiling`` (n_people, n_voxels), the same for
        each person, in units of R2 (from 3 people on, else NaN); ``group_ceiling`` (n_voxels,),
        in units of R2, for the people's average response; ``p_values``, ``q_values`` (n_voxels,)
        or None, one-sided; ``reason``, why there are none, or None; ``n_people``, ``n_blocks``,
        ``block_duration`` (s).

    Raises
    ------
    InputError
        Fewer than two people, different shapes, or values that are not finite.

    Notes
    -----
    These are ceilings of what people *share* in the common space: what is a person's own in the
    response, or lies elsewhere in that person's brain, is missing from them, while artefacts that
    the film causes in all (motion at a fright) count. The ceiling from repeats holds what is a
    person's own, too; the two are not to be mixed.

    If people share one response, correlations of pairs are products,
    :math:`r_{ij} = a_i a_j`, and person i's shared variance is Spearman's ratio of triads
    :math:`a_i^2 = \\sum_{j \\neq k} r_{ij} r_{ik} / \\sum_{j \\neq k} r_{jk}` over the others j, k
    [3]_, NaN where the others share less than .05.
    The ceiling of the average is the Spearman-Brown formula
    (:func:`brainnrds.encoding.noise_ceiling`). Correlation with the mean of the others without
    this correction [1]_ is `leave_one_out`, the lower of the usual bounds [2]_. The test permutes
    blocks in time, within films.

    References
    ----------
    .. [1] Nastase SA, Gazzola V, Hasson U, Keysers C (2019). Measuring shared responses across
       subjects using intersubject correlation. Social Cognitive and Affective Neuroscience 14,
       667-685.
    .. [2] Nili H, et al. (2014). A toolbox for representational similarity analysis. PLoS
       Computational Biology 10, e1003553.
    .. [3] Spearman C (1927). The abilities of man. Macmillan, London.
    """
    n_people = len(bold)
    rows, n_samples, n_voxels = _check_people(bold, rows)
    films = check_labels(films, n_samples, name="films")
    of_films = [np.flatnonzero(films == film) for film in np.unique(films)]
    test, parts = None, []
    for start in range(0, n_voxels, voxels_per_batch):
        batch = slice(start, start + voxels_per_batch)
        z = _standardize([b[:, batch][r] for b, r in zip(bold, rows, strict=True)], of_films)
        part = _shared(z)
        if n_permutations:
            test = explainable_variance_significance(
                [z[:, of_film] for of_film in of_films],
                t_r=t_r,
                block_duration=block_duration if test is None else test.block_duration,
                n_permutations=n_permutations,
                random_state=random_state,
            )
            part.p_values = test.p_values
        parts.append(part)
    shared = Bunch(
        **{
            name: np.concatenate([part[name] for part in parts], axis=-1)
            for name in ("leave_one_out", "shared_variance", "ceiling")
        },
        p_values=None,
        q_values=None,
        reason="no test was asked for" if test is None else test.reason,
        n_people=n_people,
        n_blocks=None if test is None else test.n_blocks,
        block_duration=None if test is None else test.block_duration,
    )
    shared.group_ceiling = noise_ceiling(shared.shared_variance, n_people)
    if shared.reason is None:
        shared.p_values = np.concatenate([part.p_values for part in parts])
        shared.q_values = benjamini_hochberg(shared.p_values)
    return shared


def _check_people(bold, rows):
    """Rows of each person, and how many matching samples and voxels there are."""
    if len(bold) < 2:
        raise InputError(f"`bold` must hold at least two people; got {len(bold)}.")
    rows = [slice(None)] * len(bold) if rows is None else rows
    # of one voxel, as arrays may lie in files
    sizes = {(len(b[:, :1][r]), np.shape(b)[1]) for b, r in zip(bold, rows, strict=True)}
    if len(sizes) > 1:
        raise InputError(f"`bold` must be arrays of one shape; got (n_matched, n_voxels) {sizes}.")
    return rows, *sizes.pop()


def _standardize(bold, of_films):
    """Responses (n_people, n_samples, n_voxels), centred within films, of variance 1."""
    z = np.stack(bold).astype(np.float64)
    if not np.isfinite(z).all():
        raise InputError("`bold` must be finite; got values that are not.")
    for of_film in of_films:
        z[:, of_film] -= z[:, of_film].mean(axis=1, keepdims=True)
    size = np.sqrt(np.mean(z**2, axis=1, keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        # a voxel that is constant in one person has no value
        z *= np.where((size > 1e-12).all(axis=0), 1 / size, 0)
    return z


def _shared(z):
    """Correlations and shared variance of standardised responses."""
    n_people, n_samples, _ = z.shape
    z = z.transpose(2, 0, 1)
    pairs = z @ z.swapaxes(1, 2) / n_samples  # [voxel, person, person]
    usable = np.diagonal(pairs, axis1=1, axis2=2).all(axis=1)
    pairs -= np.eye(n_people) * pairs
    with_others = pairs.sum(axis=2)
    total = with_others.sum(axis=1)
    # correlations of the others with each other, over all ordered pairs
    among_others = total[:, None] - 2 * with_others
    leave_one_out = with_others / np.sqrt(np.maximum(n_people - 1 + among_others, 1e-12))
    shared_variance = total / (n_people * (n_people - 1))
    ceiling = np.full_like(with_others, np.nan)
    if n_people > 2:
        triads = with_others**2 - np.sum(pairs**2, axis=2)
        least = _SMALLEST_SHARED * (n_people - 1) * (n_people - 2)
        ceiling = np.clip(triads / np.where(among_others > least, among_others, np.nan), 0, 1)
    return Bunch(
        leave_one_out=np.where(usable, leave_one_out.T, np.nan),
        shared_variance=np.where(usable, shared_variance, np.nan),
        ceiling=np.where(usable, ceiling.T, np.nan),
    )
