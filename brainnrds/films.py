"""How samples may be split: film groups, and folds that never separate a film from itself."""

import warnings

import numpy as np

from brainnrds._checks import InputError, check_labels

__all__ = [
    "BORDER_SECONDS",
    "block_folds",
    "film_folds",
    "film_groups",
    "shared_films",
    "trial_units",
]

# scanner runs of trials are held out as wholes where they make so many units without a common clip
_FEWEST_RUN_UNITS = 5
#: Seconds that do not count after a border inside a run between what splits keep apart, volumes or
#: trials: twice the 9 s in which BOLD answers, once for what was shown before, once for the delays.
BORDER_SECONDS = 18.0
# trials of one order: s of a stretch at least, and how many there should be
_SHORTEST_STRETCH, _MANY_STRETCHES = 60.0, 10


def film_groups(runs, films):
    """Label the connected sets of runs that share a film.

    Two runs that show the same film are never separated by a split: otherwise the model would be
    tested on a film it was trained on.

    Parameters
    ----------
    runs : array of int of shape (n_samples,)
        Run label of each sample.
    films : array of int of shape (n_samples,)
        Film label of each sample, -1 where no film is shown.

    Returns
    -------
    groups : array of int of shape (n_samples,)
        0, 1, ... in the order of first appearance. Samples without a film have the group of their
        run.
    """
    runs = np.asarray(runs)
    runs = check_labels(runs, len(runs))
    films = check_labels(films, len(runs), name="films")
    group_of_run = {run: run for run in np.unique(runs).tolist()}

    def root(run):
        while group_of_run[run] != run:
            run = group_of_run[run]
        return run

    for film in np.unique(films[films >= 0]):
        first, *others = np.unique(runs[films == film]).tolist()
        for run in others:
            group_of_run[root(run)] = root(first)
    roots = np.array([root(run) for run in runs.tolist()])
    _, first_seen, groups = np.unique(roots, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first_seen))
    return order[groups.reshape(-1)]


def film_folds(runs, films, *, n_folds=None, test_films=None, gap=0):
    """Split samples by film group.

    Parameters
    ----------
    runs : array of int of shape (n_samples,)
        Run label of each sample.
    films : array of int of shape (n_samples,)
        Film label of each sample; samples with -1 are in no fold, neither to train nor to test.
    n_folds : int, default=None
        Number of folds, over which film groups are spread evenly by their number of samples.
        None leaves one film group out at a time.
    test_films : sequence of int, default=None
        Films to test on, in a single fold; all others train.
    gap : int, default=0
        Volumes dropped from the training samples on both sides of a border to a tested film in
        the same run. Film groups have no such borders; it matters when films of one group are
        split.

    Returns
    -------
    folds : list of (train, test) arrays of int
        Indices of samples.

    Raises
    ------
    InputError
        With fewer film groups than folds, or a single film.

    Notes
    -----
    When every run is connected to every other (a validation film in every run, or several films
    in one run), there is one film group only. Then films are the folds, and `gap` volumes are
    dropped at their borders inside a run.
    """
    runs = np.asarray(runs)
    runs = check_labels(runs, len(runs))
    films = check_labels(films, len(runs), name="films")
    shown = films >= 0
    if not shown.any():
        raise InputError("`films` must show a film in some samples; got -1 in all of them.")
    if test_films is not None:
        test_films = np.asarray(test_films)
        missing = np.setdiff1d(test_films, films[shown])
        if len(test_films) == 0 or len(missing):
            raise InputError(
                f"`test_films` must be films of the data, {np.unique(films[shown]).tolist()}; "
                f"got {test_films.tolist()}."
            )
        return [_train_and_test(runs, np.isin(films, test_films), shown, gap)]

    units = film_groups(runs, films)
    kind = "film groups"
    if len(np.unique(units[shown])) == 1:
        units, kind = films, "films (all runs are one film group)"
    unit_labels, unit_sizes = np.unique(units[shown], return_counts=True)
    if len(unit_labels) < 2:
        raise InputError(
            "a split by film needs at least 2 films; got 1 film in "
            f"{len(np.unique(runs[shown]))} run(s)."
        )
    if n_folds is None:
        n_folds = len(unit_labels)
    if not 2 <= n_folds <= len(unit_labels):
        raise InputError(
            f"the number of folds must be between 2 and the number of {kind}, "
            f"{len(unit_labels)}; got {n_folds}."
        )
    fold_of_unit = _spread(unit_labels, unit_sizes, n_folds)
    folds = np.array([fold_of_unit.get(unit, -1) for unit in units.tolist()])
    folds[~shown] = -1
    return [_train_and_test(runs, folds == fold, shown, gap) for fold in range(n_folds)]


def shared_films(runs, films):
    """Return the films that are shown in more than one run.

    Parameters
    ----------
    runs, films : arrays of int of shape (n_samples,)

    Returns
    -------
    shared : list of int
    """
    runs, films = np.asarray(runs), np.asarray(films)
    return [
        int(film)
        for film in np.unique(films[films >= 0])
        if len(np.unique(runs[films == film])) > 1
    ]


def trial_units(runs, films, *, spacing, groups=None):
    """Say which trials no split may separate.

    Trials of one run are not independent: neighbours overlap in BOLD, and noise lasts longer. It
    does no harm where clips come in another order in every run, but where clips that resemble each
    other are neighbours, a clip must not be tested on a model that was trained on its neighbour.

    - Runs that share clips are one unit; with five such units and more, they are held out.
    - Else, if runs show the clips in different orders, clips are the units.
    - Else runs are cut into stretches of 60 s and more, and trials less than 18 s after the border
      of two stretches are left out.

    Parameters
    ----------
    runs : array of int of shape (n_trials,)
        Scanner run, trials in order.
    films : array of int of shape (n_trials,)
        Clip, 0, 1, ...
    spacing : float
        From trial to trial, s.
    groups : array of int of shape (n_films,), default=None
        Clips of one label belong together. None: each is its own.

    Returns
    -------
    units : array of int of shape (n_films,)
    kept : array of bool of shape (n_trials,)
    kind : {"runs", "clips", "stretches"}

    Warns
    -----
    UserWarning
        If clips in one order are too few for stretches; then clips are the units.
    """
    runs, films = np.asarray(runs), np.asarray(films)
    groups = np.arange(films.max() + 1) if groups is None else np.asarray(groups)
    kept = np.ones(len(films), dtype=bool)

    def united(ties):
        units = np.full(len(groups), -1)
        units[films] = film_groups(ties, groups[films])
        return units

    units = united(runs)
    n_units = len(np.unique(units[films]))
    if n_units >= _FEWEST_RUN_UNITS:
        return units, kept, "runs"
    if _orders_differ(runs, films):
        return groups, kept, "clips"
    stretches, kept = _cut_runs(runs, spacing, n_parts=-(-_MANY_STRETCHES // n_units))
    units = united(stretches)
    if len(np.unique(units[films])) < 2:
        warnings.warn(
            "Clips follow each other in one order, and are too few to be held out in stretches of "
            f"{_SHORTEST_STRETCH:g} s: neighbours of a tested clip are in training, and p-values "
            "are too small where neighbours resemble each other.",
            stacklevel=2,
        )
        return groups, np.ones_like(kept), "clips"
    return units, kept, "stretches"


def _orders_differ(runs, films):
    """Whether the neighbours of a clip are others from run to run: under half are the same."""
    shown, neighbours = [], []
    for run in np.unique(runs):
        order = films[runs == run].tolist()
        shown.append(set(order))
        neighbours.append({frozenset(pair) for pair in zip(order, order[1:], strict=False)})
    same = []
    for i, one in enumerate(neighbours):
        for j in range(i + 1, len(neighbours)):
            common = shown[i] & shown[j]
            pairs = [pair for pair in one if pair <= common]
            if len(common) > 2 and pairs:
                same.append(np.mean([pair in neighbours[j] for pair in pairs]))
    return bool(same) and np.mean(same) < 0.5


def _cut_runs(runs, spacing, n_parts):
    """Cut runs into parts: each trial's, and whether it is far enough from the part before."""
    stretches, kept = np.empty(len(runs), dtype=int), np.ones(len(runs), dtype=bool)
    n_border, n_before = int(np.ceil(BORDER_SECONDS / spacing)), 0
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        n = max(1, min(n_parts, int(len(rows) * spacing // _SHORTEST_STRETCH)))
        for i, part in enumerate(np.array_split(rows, n)):
            stretches[part] = n_before + i
            kept[part[:n_border]] = i == 0
        n_before += n
    return stretches, kept


def block_folds(runs, films, *, n_folds=10, gap=0):
    """Split the samples of all films into contiguous parts of equal length.

    For the choice of hyperparameters inside training films only: parts of one film resemble each
    other, so that a score of such folds is no test. Films are laid end to end and cut; all
    presentations of a film are cut at the same positions, so that no part is trained on itself.

    Parameters
    ----------
    runs, films : arrays of int of shape (n_samples,)
    n_folds : int, default=10
        Parts; fewer where they would be shorter than two gaps.
    gap : int, default=0
        Volumes dropped from training on both sides of a tested part.

    Returns
    -------
    folds : list of (train, test) arrays of int

    Raises
    ------
    InputError
        If a fold has no sample left to train on.
    """
    shown = films >= 0
    position = np.zeros(len(runs), dtype=np.int64)
    length = 0
    for film in np.unique(films[shown]):
        longest = 0
        for run in np.unique(runs[films == film]):
            rows = np.flatnonzero((runs == run) & (films == film))
            for showing in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
                position[showing] = length + np.arange(len(showing))
                longest = max(longest, len(showing))
        length += longest
    n_folds = int(np.clip(length // (2 * (gap + 1)), 2, n_folds))
    part = np.where(shown, position * n_folds // length, -1)
    folds = [_train_and_test(runs, part == i, shown, gap) for i in range(n_folds)]
    if min(min(len(train), len(test)) for train, test in folds) == 0:
        raise InputError(
            "the inner cross-validation needs training samples in every fold; got "
            f"{length} volumes of film and {gap} volumes dropped on each side of a test part."
        )
    return folds


def _spread(labels, sizes, n_folds):
    """Give units to folds, largest first, each to the fold that is smallest so far."""
    n_samples = np.zeros(n_folds, dtype=np.int64)
    fold_of_unit = {}
    for i_unit in np.argsort(-sizes, kind="stable"):
        fold = int(np.argmin(n_samples))
        n_samples[fold] += sizes[i_unit]
        fold_of_unit[int(labels[i_unit])] = fold
    # folds are numbered by their first unit, so that leave-one-out keeps the order of the units
    order = {}
    for label in labels.tolist():
        order.setdefault(fold_of_unit[label], len(order))
    return {label: order[fold] for label, fold in fold_of_unit.items()}


def _train_and_test(runs, is_test, shown, gap):
    near_test = is_test.copy()
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        for step in range(1, min(gap, len(rows) - 1) + 1):
            near_test[rows[step:]] |= is_test[rows[:-step]]
            near_test[rows[:-step]] |= is_test[rows[step:]]
    return np.flatnonzero(shown & ~near_test), np.flatnonzero(is_test & shown)
