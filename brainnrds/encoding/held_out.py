"""Splits by film, and predictions of films that the model has not seen."""

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch

from brainnrds._checks import check_labels

__all__ = [
    "blocks_of_one_film",
    "film_folds",
    "film_groups",
    "held_out_predictions",
    "shared_films",
]

_N_BLOCKS_OF_ONE_FILM = 5
# every block repeats the work on the features: with fewer voxels that would be most of it
_FEWEST_VOXELS_PER_BLOCK = 1000


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
    ValueError
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
        raise ValueError("`films` must show a film in some samples; got -1 in all of them.")
    if test_films is not None:
        test_films = np.asarray(test_films)
        missing = np.setdiff1d(test_films, films[shown])
        if len(test_films) == 0 or len(missing):
            raise ValueError(
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
        raise ValueError(
            "a split by film needs at least 2 films; got 1 film in "
            f"{len(np.unique(runs[shown]))} run(s)."
        )
    if n_folds is None:
        n_folds = len(unit_labels)
    if not 2 <= n_folds <= len(unit_labels):
        raise ValueError(
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


def blocks_of_one_film(runs, films, *, gap=0):
    """Split the samples of a single film into contiguous parts.

    For the choice of hyperparameters only, where nothing better is to be had: parts of one film
    resemble each other. Presentations of the film are cut at the same positions.

    Parameters
    ----------
    runs, films : arrays of int of shape (n_samples,)
    gap : int, default=0
        Volumes dropped from training on both sides of a tested part.

    Returns
    -------
    folds : list of (train, test) arrays of int
    """
    shown = films >= 0
    position = np.zeros(len(runs), dtype=np.int64)
    length = 0
    for run in np.unique(runs[shown]):
        rows = np.flatnonzero((runs == run) & shown)
        position[rows] = np.arange(len(rows))
        length = max(length, len(rows))
    n_blocks = int(np.clip(length // (2 * (gap + 1)), 2, _N_BLOCKS_OF_ONE_FILM))
    block = np.where(shown, position * n_blocks // length, -1)
    folds = [_train_and_test(runs, block == i, shown, gap) for i in range(n_blocks)]
    if min(min(len(train), len(test)) for train, test in folds) == 0:
        raise ValueError(
            "the inner cross-validation needs training samples in every fold; got "
            f"{length} volumes of one film and {gap} volumes dropped on each side of a test part."
        )
    return folds


def held_out_predictions(
    model,
    X,
    y,
    *,
    runs=None,
    films=None,
    n_folds=None,
    test_films=None,
    by_feature_space=False,
    projection=None,
):
    """Predict every film from a model that was fitted without its film group.

    Everything that looks at the responses (the ridge penalties, the mixture of feature spaces,
    the standardisation of the features) happens inside `model.fit`, which sees training films
    only.

    Parameters
    ----------
    model : VideoEncodingModel
        It is cloned for each fold and not changed.
    X : array of shape (n_samples, n_features)
        Features, not yet delayed.
    y : array of shape (n_samples, n_voxels)
        BOLD, z-scored per run; with one voxel, (n_samples, 1).
    runs : array of int of shape (n_samples,), default=None
        Run label of each sample; None is one run.
    films : array of int of shape (n_samples,), default=None
        Film label of each sample, -1 where no film is shown. None: every run is a film.
    n_folds : int, default=None
        Folds over the film groups; None leaves one film group out at a time.
    test_films : sequence of int, default=None
        The data set's own test films: they alone are predicted, all other films train.
    by_feature_space : bool, default=False
        Whether to return the part of each feature space as well.
    projection : FeatureProjection, default=None
        Makes fewer columns of every feature space of the model. It is cloned and fitted in each
        fold, to training samples only; the model is fitted with ``standardise=False``. With all
        components the predictions are those without a projection.

    Returns
    -------
    held_out : Bunch
        With ``predictions`` (n_samples, n_voxels), ``by_feature_space`` (n_spaces, n_samples,
        n_voxels) or None, ``folds`` (n_samples,) the number of the fold in which a sample was
        predicted, and ``trained_on`` (n_folds, n_films) bool with ``films`` (n_films,) the
        labels of its columns. Samples that are not predicted have NaN and fold -1.

    Notes
    -----
    If all runs form one film group: films shown in more than one run are the test films, as in
    data sets with a validation film in every run; without such films each film is a fold. Then
    max(`delays`) volumes are dropped from training at each border to a tested film.

    With several workers as joblib's backend (``joblib.parallel_config("dask")``, or ``"loky"`` with
    ``n_jobs``), the voxels of a fold are shared between them in as many blocks, of at least a
    thousand voxels: every voxel has a fit of its own. The work of a Dask worker that dies is done
    by the others.
    """
    X, y = np.asarray(X), np.asarray(y)
    n_samples = len(X)
    if y.ndim != 2 or len(y) != n_samples:
        raise ValueError(f"`y` must have shape ({n_samples}, n_voxels) as `X` has; got {y.shape}.")
    runs = check_labels(runs, n_samples)
    films = runs.copy() if films is None else check_labels(films, n_samples, name="films")
    gap = max(abs(d) for d in model.delays)
    if test_films is None and len(np.unique(film_groups(runs, films)[films >= 0])) == 1:
        shared = shared_films(runs, films)
        if shared and len(shared) < len(np.unique(films[films >= 0])) and n_folds is None:
            test_films = shared
    splits = film_folds(runs, films, n_folds=n_folds, test_films=test_films, gap=gap)

    predictions = np.full(y.shape, np.nan, dtype=np.float32)
    parts = None
    folds = np.full(n_samples, -1, dtype=np.int64)
    film_labels = np.unique(films[films >= 0])
    trained_on = np.zeros((len(splits), len(film_labels)), dtype=bool)
    for i_fold, (train, test) in enumerate(splits):
        if len(train) == 0:
            raise ValueError(f"fold {i_fold} must have training samples; got none.")
        # runs in training keep their other samples as context of the delays, marked as not shown
        in_training = np.isin(runs, runs[train])
        films_seen = np.where(np.isin(np.arange(n_samples), train), films, -1)[in_training]
        rows = np.flatnonzero(np.isin(runs, runs[test]))
        is_test = np.isin(rows, test)
        fold_model, X_fold = model, X
        if projection is not None:
            fold_projection = clone(projection).set_params(feature_spaces=model.feature_spaces)
            X_fold = fold_projection.fit(X[train]).transform(X)
            # components keep their ratios: standardised, the last would count as much as the first
            fold_model = clone(model).set_params(
                feature_spaces=fold_projection.feature_spaces_, standardise=False
            )
        training = (X_fold[in_training], runs[in_training], films_seen)
        testing = (X_fold[rows], runs[rows], is_test)
        y_training = y[in_training]
        blocks = _voxel_blocks(y.shape[1])
        # inside tuples: arrays of their own would be kept by one Dask worker and die with it
        predicted = joblib.Parallel()(
            joblib.delayed(_fit_and_predict)(
                fold_model, training, (y_training[:, block],), testing, by_feature_space
            )
            for block in blocks
        )
        for block, (prediction, part) in zip(blocks, predicted, strict=True):
            predictions[rows[is_test], block] = prediction
            if by_feature_space:
                if parts is None:
                    parts = np.full((len(part), *y.shape), np.nan, dtype=np.float32)
                parts[:, rows[is_test], block] = part
        folds[test] = i_fold
        trained_on[i_fold] = np.isin(film_labels, films[train])
    return Bunch(
        predictions=predictions,
        by_feature_space=parts,
        folds=folds,
        trained_on=trained_on,
        films=film_labels,
    )


def _voxel_blocks(n_voxels):
    """Slices of voxels, one for each of joblib's workers."""
    n_blocks = max(1, min(joblib.effective_n_jobs(), n_voxels // _FEWEST_VOXELS_PER_BLOCK))
    borders = np.linspace(0, n_voxels, n_blocks + 1).astype(int).tolist()
    return [slice(a, b) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def _fit_and_predict(model, training, responses, testing, by_feature_space):
    """Return the predictions of the tested samples, and the part of each feature space or None."""
    X, runs, films = training
    (y,) = responses
    fitted = clone(model).fit(X, y, runs=runs, films=films)
    X, runs, is_test = testing
    if not by_feature_space:
        return fitted.predict(X, runs=runs)[is_test], None
    parts = fitted.predict(X, runs=runs, by_feature_space=True)[:, is_test]
    return parts.sum(0) + fitted.intercept_, parts
