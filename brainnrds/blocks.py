"""How samples may be rearranged: blocks that are long against the dependence in time.

BOLD and films are autocorrelated: single samples are not exchangeable, long blocks nearly are.
Tests permute whole blocks or flip their signs, intervals draw whole blocks again.
"""

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm
from scipy.stats import t as student_t
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError, check_labels

__all__ = [
    "FEWEST_BLOCKS",
    "SHORTEST_BLOCK",
    "block_bootstrap_interval",
    "block_labels",
    "block_sign_flip_test",
    "block_sums",
    "bootstrap_tails",
    "exchange_between_films",
    "neighbour_blocks",
    "permutation_blocks",
    "permute_blocks",
    "permute_clips",
    "permute_within_scenes",
]

#: Seconds: the least length of a block.
SHORTEST_BLOCK = 40.0
#: With fewer blocks than this there are no p-values and no intervals.
FEWEST_BLOCKS = 12


def block_labels(runs, films, block_length):
    """Cut samples into blocks for tests and intervals.

    Parameters
    ----------
    runs : array of int of shape (n_samples,)
    films : array of int of shape (n_samples,)
        Samples with -1 are in no block.
    block_length : int
        The shortest block, in volumes.

    Returns
    -------
    blocks : array of int of shape (n_samples,)
        0, 1, ..., or -1. Each film of a run is cut into as many blocks as fit, of equal length to
        within 1 volume. Films shorter than that are joined with the next of their run; what
        remains too short at a run's end is a block of its own if it has half the length, else
        joins the last block.
    """
    runs, films = np.asarray(runs), np.asarray(films)
    blocks = np.full(len(runs), -1, dtype=np.int64)
    n_blocks = 0
    for run in np.unique(runs):
        rows = np.flatnonzero((runs == run) & (films >= 0))
        if len(rows) == 0:
            continue
        borders = np.flatnonzero(np.diff(films[rows])) + 1
        waiting, first_of_run = [], n_blocks
        for segment in np.split(rows, borders):
            if len(waiting) + len(segment) < block_length:
                waiting.extend(segment)
                continue
            joined = np.concatenate([np.array(waiting, dtype=np.int64), segment])
            waiting = []
            for block in np.array_split(joined, len(joined) // block_length):
                blocks[block] = n_blocks
                n_blocks += 1
        if waiting and (n_blocks == first_of_run or 2 * len(waiting) >= block_length):
            blocks[waiting] = n_blocks
            n_blocks += 1
        elif waiting:
            blocks[waiting] = n_blocks - 1
    return blocks


def block_sums(series, blocks, n_blocks):
    """Sum series over the samples of each block.

    Parameters
    ----------
    series : array of shape (n_samples, n_voxels)
    blocks : array of int of shape (n_samples,)
        Of :func:`block_labels`; samples with -1 are left out.
    n_blocks : int

    Returns
    -------
    sums : array of shape (n_blocks, n_voxels)
    """
    rows = np.flatnonzero(blocks >= 0)
    summation = csr_array((np.ones(len(rows)), (blocks[rows], rows)), shape=(n_blocks, len(blocks)))
    return summation @ series


def permutation_blocks(runs, films, block_length, *, permute_within=None):
    """Cut the runs into equal blocks of neighbouring samples that may change places.

    BOLD is autocorrelated, and so are films: single windows are not exchangeable, long blocks
    nearly are. Each run is cut from its first sample with a film on. All blocks that may change
    places have one length: at least `block_length`, with the most blocks, then the fewest samples
    left over. Samples left over at the ends stay where they are in every permutation, which keeps
    the test valid.

    Parameters
    ----------
    runs, films : int array of shape (n_samples,)
        Samples without a film (-1) are in no block.
    block_length : int
        Least number of samples in a block: 40 s or more.
    permute_within : int array of shape (n_samples,), default=None
        Blocks with the same label may change places; None = `runs`. Runs shorter than two blocks
        need a wider label, such as the subject: valid if their BOLD is scaled alike, as by
        z-scores.

    Returns
    -------
    blocks : Bunch
        ``label`` : int array (n_samples,), block of each sample, -1 = in none. ``offset`` : int
        array (n_samples,), place in the block. ``groups`` : list of int arrays, labels of the
        blocks that may change places; at least two each. ``n_movable`` : int, blocks in all groups.
        ``n_orders`` : float, number of different permutations.
    """
    runs = np.asarray(runs)
    runs = check_labels(runs, len(runs))
    films = check_labels(films, len(runs), name="films")
    within = (
        runs
        if permute_within is None
        else check_labels(permute_within, len(runs), name="permute_within")
    )
    if int(block_length) != block_length or block_length < 1:
        raise InputError(f"`block_length` must be a positive int; got {block_length!r}.")
    label, offset = np.full(len(runs), -1), np.full(len(runs), -1)
    groups, n_blocks = [], 0
    for name in np.unique(within[films != -1]):
        rows_of_runs = [
            np.flatnonzero((runs == run) & (films != -1) & (within == name))
            for run in np.unique(runs[(within == name) & (films != -1)])
        ]
        lengths = np.array([len(rows) for rows in rows_of_runs])
        choices = np.arange(block_length, max(2 * block_length, block_length + 1))
        counts = (lengths[:, None] // choices).sum(axis=0)
        left_over = (lengths[:, None] % choices).sum(axis=0)
        best = np.lexsort((choices, left_over, -counts))[0]
        length = int(choices[best])
        members = []
        for rows in rows_of_runs:
            for i in range(len(rows) // length):
                block = rows[i * length : (i + 1) * length]
                label[block] = n_blocks
                offset[block] = np.arange(length)
                members.append(n_blocks)
                n_blocks += 1
        if len(members) > 1:
            groups.append(np.array(members))
    n_orders = math.exp(min(sum(math.lgamma(len(g) + 1) for g in groups), 700.0))
    return Bunch(
        label=label,
        offset=offset,
        groups=groups,
        n_movable=int(sum(len(g) for g in groups)),
        n_orders=n_orders,
    )


def permute_blocks(blocks, n_permutations, *, random_state=None):
    """Draw permutations of whole blocks.

    Parameters
    ----------
    blocks : Bunch
        Of `permutation_blocks`.
    n_permutations : int
    random_state : int, RandomState or None, default=None

    Returns
    -------
    orders : int array of shape (n_permutations, n_samples)
        ``orders[p, i]`` is the sample whose window sample i gets. Samples in no movable block
        keep theirs.
    """
    random = check_random_state(random_state)
    n_samples = len(blocks.label)
    orders = np.tile(np.arange(n_samples), (n_permutations, 1))
    rows = {b: np.flatnonzero(blocks.label == b) for group in blocks.groups for b in group.tolist()}
    for order in orders:
        for group in blocks.groups:
            for target, source in zip(
                group.tolist(), random.permutation(group).tolist(), strict=True
            ):
                order[rows[target]] = rows[source]
    return orders


def exchange_between_films(runs, films, block_length, *, random_state=None):
    """Draw an order in which every sample has the window of another film.

    The runs stand in a circle in random order and turn by a random number of samples: windows stay
    with their neighbours, each is used once, and no sample is left out. Of 50 such orders the one
    is taken in which the fewest samples meet their own film; with a single film all do, at least
    `block_length` samples away.

    Parameters
    ----------
    runs, films : int array of shape (n_samples,)
        Samples without a film (-1) keep their own windows.
    block_length : int
        Samples. The circle turns by at least this many, or by half of what there is.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    order : int array of shape (n_samples,)
        ``order[i]`` is the sample whose window sample i gets.
    """
    random = check_random_state(random_state)
    runs, films = np.asarray(runs), np.asarray(films)
    names = np.unique(runs[films != -1])
    rows = {run: np.flatnonzero((runs == run) & (films != -1)) for run in names.tolist()}
    n_shown = int((films != -1).sum())
    if n_shown < 2:
        raise InputError(f"`films` must show a film in two samples or more; got {n_shown}.")
    least = min(int(block_length), n_shown // 2)
    best, fewest = None, np.inf
    for _ in range(50):
        circle = np.concatenate([rows[run] for run in random.permutation(names).tolist()])
        turned = np.roll(circle, random.randint(least, n_shown - least + 1))
        n_own = (films[circle] == films[turned]).sum()
        if n_own < fewest:
            best, fewest = np.arange(len(runs)), n_own
            best[circle] = turned
    return best


def permute_within_scenes(scenes, n_permutations, *, random_state=None):
    """Draw circular shifts of the samples inside each scene.

    The BOLD of another moment of the same scene: what is lost is the moment's own motion; what
    remains is what the whole scene shares, such as its place and its camera.

    Parameters
    ----------
    scenes : int array of shape (n_samples,)
        Scene of each sample, -1 = in none.
    n_permutations : int
    random_state : int, RandomState or None, default=None

    Returns
    -------
    orders : int array of shape (n_permutations, n_samples)
        As in `permute_blocks`. No sample of a scene with at least two keeps its own window.
    """
    random = check_random_state(random_state)
    scenes = np.asarray(scenes)
    orders = np.tile(np.arange(len(scenes)), (n_permutations, 1))
    for scene in np.unique(scenes[scenes != -1]):
        rows = np.flatnonzero(scenes == scene)
        if len(rows) < 2:
            continue
        for order in orders:
            order[rows] = np.roll(rows, random.randint(1, len(rows)))
    return orders


def neighbour_blocks(runs, counted, block_length):
    """Block of each counted clip: neighbours in a run, shorter blocks at its end joined."""
    label = np.empty(len(runs), dtype=int)
    n_blocks = 0
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        n = max(1, len(rows) // block_length)
        label[rows] = n_blocks + np.minimum(np.arange(len(rows)) // block_length, n - 1)
        n_blocks += n
    return label[counted]


def permute_clips(blocks, *, random_state=None):
    """Give every clip the flow of another time: whole blocks change places, none stays.

    Parameters
    ----------
    blocks : int array of shape (n_clips,)
        Neighbouring clips with one label (40 s or more) move together.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    order : int array of shape (n_clips,)
        ``flow[order]`` is the control.
    """
    blocks = np.asarray(blocks)
    labels = np.unique(check_labels(blocks, len(blocks), name="blocks"))
    if len(labels) < 2:
        raise InputError(f"`blocks` must hold at least two blocks; got {len(labels)}.")
    random = check_random_state(random_state)
    shuffled = random.permutation(labels)
    order = np.empty(len(blocks), dtype=np.int64)
    for target, source in zip(shuffled, np.roll(shuffled, 1), strict=True):
        to, origin = np.flatnonzero(blocks == target), np.flatnonzero(blocks == source)
        order[to] = origin[np.arange(len(to)) % len(origin)]
    return order


def bootstrap_tails(n_blocks, confidence=0.95):
    """Say which quantiles of bootstrapped means enclose the true mean with a confidence.

    Percentiles of few blocks are too narrow: the bootstrap's variance lacks the factor
    :math:`n / (n - 1)`, and its tails are the normal distribution's instead of Student's. The
    expanded percentile interval [1]_ makes up for both.

    Parameters
    ----------
    n_blocks : int
        Independent blocks that are drawn again, at least 2.
    confidence : float, default=0.95

    Returns
    -------
    tails : array of shape (2,)
        The lower and the upper quantile, in [0, 1].

    References
    ----------
    .. [1] Hesterberg TC (2015). What teachers should know about the bootstrap. The American
       Statistician 69, 371-386.
    """
    reach = student_t.ppf((1 + confidence) / 2, n_blocks - 1)
    reach *= np.sqrt(n_blocks / (n_blocks - 1))
    return norm.cdf([-reach, reach])


def block_bootstrap_interval(
    values, blocks, *, confidence=0.95, n_resamples=2000, random_state=None
):
    """Interval of a mean over clips, resampling blocks of neighbouring clips.

    The quantiles are those of `bootstrap_tails`.

    Parameters
    ----------
    values : array of shape (n_clips,)
        One value per clip; NaN is left out.
    blocks : int array of shape (n_clips,)
        Block of each clip: neighbours in time share slow noise and camera motion and are not
        independent.
    confidence : float, default=0.95
    n_resamples : int, default=2000
    random_state : int, RandomState or None, default=None

    Returns
    -------
    low, high : float
        NaN with fewer than two blocks.
    """
    if not 0 < confidence < 1:
        raise InputError(f"`confidence` must lie between 0 and 1; got {confidence!r}.")
    sums, counts = _sums_and_counts(values, blocks)
    if len(sums) < 2:
        return float("nan"), float("nan")
    random = check_random_state(random_state)
    chosen = random.randint(len(sums), size=(n_resamples, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, bootstrap_tails(len(sums), confidence))
    return float(low), float(high)


def block_sign_flip_test(differences, blocks, *, n_flips=10000, random_state=None):
    """One-sided p that a paired difference is above zero, flipping the signs of whole blocks.

    Parameters
    ----------
    differences : array of shape (n_clips,)
        Paired difference per clip (for example a control's error minus ours); NaN is left out.
    blocks : int array of shape (n_clips,)
        Block of each clip.
    n_flips : int, default=10000
        Sign patterns drawn; up to 13 blocks all patterns are enumerated.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    p : float
        The identity counts as one pattern, so p > 0; with b blocks no p below ``2**-b`` exists.
    """
    sums, _ = _sums_and_counts(differences, blocks)
    n_blocks = len(sums)
    if n_blocks <= 13:
        signs = 1 - 2 * ((np.arange(2**n_blocks)[:, None] >> np.arange(n_blocks)) & 1)
        n_extra = 0
    else:
        random = check_random_state(random_state)
        signs = 1 - 2 * random.randint(2, size=(n_flips, n_blocks))
        n_extra = 1
    slack = 1e-12 * np.abs(sums).sum()
    as_large = (signs @ sums >= sums.sum() - slack).sum()
    return float((as_large + n_extra) / (len(signs) + n_extra))


def _sums_and_counts(values, blocks):
    values = np.asarray(values, dtype=np.float64)
    blocks = np.asarray(blocks)
    if values.ndim != 1 or blocks.shape != values.shape:
        raise InputError(
            "`values` and `blocks` must have one shape (n_clips,); got "
            f"{values.shape} and {blocks.shape}."
        )
    counted = np.isfinite(values)
    if not counted.any():
        raise InputError("`values` must hold a finite value; got none.")
    names, index = np.unique(blocks[counted], return_inverse=True)
    sums = np.bincount(index, weights=values[counted], minlength=len(names))
    return sums, np.bincount(index, minlength=len(names)).astype(np.float64)
