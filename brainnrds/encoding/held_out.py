"""Splits by film, and predictions of films that the model has not seen."""

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch
from tqdm.auto import tqdm

from brainnrds._checks import InputError, check_labels
from brainnrds.films import film_folds, film_groups, shared_films

__all__ = [
    "held_out_predictions",
]

# every block repeats the work on the features: with fewer voxels that would be most of it
_FEWEST_VOXELS_PER_BLOCK = 1000
# of the responses in training: a fit holds them three times
_BLOCK_BYTES = 2**29
_POOLED_VOXELS = 1024
# by default: data sets of many short clips have a film group for each
_MOST_FITS = 50


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
    training_scores=False,
    projection=None,
    verbose=0,
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
        Folds over the film groups; None leaves one film group out at a time, up to 50.
    test_films : sequence of int, default=None
        The data set's own test films: they alone are predicted, all other films train.
    by_feature_space : bool, default=False
        Whether to return the part of each feature space as well.
    training_scores : bool, default=False
        Whether to return how well the training films predicted each other.
    projection : FeatureProjection, default=None
        Makes fewer columns of every feature space of the model. It is cloned and fitted in each
        fold, to training samples only; the model is fitted with ``standardize=False``. With all
        components the predictions are those without a projection.
    verbose : int, default=0
        1 = progress bar over folds.

    Returns
    -------
    held_out : Bunch
        With ``predictions`` (n_samples, n_voxels), ``by_feature_space`` (n_spaces, n_samples,
        n_voxels) or None, ``training_scores`` (n_folds, n_voxels) the best score of the inner
        cross-validation (minus the mean squared error) or None, ``folds`` (n_samples,) the number
        of the fold in which a sample was predicted, and ``trained_on`` (n_folds, n_films) bool
        with ``films`` (n_films,) the labels of its columns. Samples that are not predicted have
        NaN and fold -1.

    Raises
    ------
    InputError
        With over 50 films to leave out and neither `n_folds` nor `test_films`.

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
        raise InputError(f"`y` must have shape ({n_samples}, n_voxels) as `X` has; got {y.shape}.")
    runs = check_labels(runs, n_samples)
    films = runs.copy() if films is None else check_labels(films, n_samples, name="films")
    gap = max(abs(d) for d in model.delays)
    if test_films is None and len(np.unique(film_groups(runs, films)[films >= 0])) == 1:
        shared = shared_films(runs, films)
        if shared and len(shared) < len(np.unique(films[films >= 0])) and n_folds is None:
            test_films = shared
    splits = film_folds(runs, films, n_folds=n_folds, test_films=test_films, gap=gap)
    if n_folds is None and len(splits) > _MOST_FITS:
        raise InputError(
            f"`n_folds` (such as 10) or `test_films` must be given with over {_MOST_FITS} films; "
            f"got {len(splits)}, which would be left out in a fit each."
        )

    labels, asked = {"runs": runs, "films": films}, (by_feature_space, training_scores)
    film_labels = np.unique(films[films >= 0])
    folds = np.full(n_samples, -1, dtype=np.int64)
    trained_on = np.zeros((len(splits), len(film_labels)), dtype=bool)
    for i_fold, (train, test) in enumerate(splits):
        if len(train) == 0:
            raise InputError(f"fold {i_fold} must have training samples; got none.")
        folds[test] = i_fold
        trained_on[i_fold] = np.isin(film_labels, films[train])
    # not filled yet: memory is taken as folds are predicted
    predictions, parts, scores = np.empty(y.shape, dtype=np.float32), None, []
    predictions[folds < 0] = np.nan
    for train, test in tqdm(splits, desc="folds", unit="fold", disable=not verbose):
        tested = np.sort(test)
        predicted = _predict_fold(model, X, y, train, test, projection, asked, **labels)
        if training_scores:
            scores.append(np.concatenate([score for *_, score in predicted]))
        for block, prediction, part, _ in predicted:
            predictions[tested, block] = prediction
            if by_feature_space:
                if parts is None:
                    parts = np.empty((len(part), *y.shape), dtype=np.float32)
                    parts[:, folds < 0] = np.nan
                parts[:, tested, block] = part
    return Bunch(
        predictions=predictions,
        by_feature_space=parts,
        training_scores=np.stack(scores) if training_scores else None,
        folds=folds,
        trained_on=trained_on,
        films=film_labels,
    )


def _predict_fold(model, X, y, train, test, projection, asked, *, runs, films):
    """Fit and predict one fold: a list of (voxels, predictions, parts or None, scores or None)."""
    rows = np.flatnonzero(np.isin(runs, runs[test]))
    is_test = np.isin(rows, test)
    if projection is not None:
        projection = clone(projection).set_params(feature_spaces=model.feature_spaces)
        X = projection.fit(X[train]).transform(X)
        # components keep their ratios: standardised, the last would count as much as the first
        model = clone(model).set_params(
            feature_spaces=projection.feature_spaces_, standardize=False
        )
    testing = (X[rows], runs[rows], is_test)
    blocks = _voxel_blocks(len(train), y.shape[1])

    def training_of(voxels):
        X_in, y_in, *labels = training_set(X, y[:, voxels], train, runs=runs, films=films)
        # inside tuples: arrays of their own would be kept by one Dask worker and die with it
        return (X_in, *labels), (y_in,)

    prior = getattr(model, "mixture_prior", None)
    if len(blocks) > 1 and isinstance(prior, str) and len(model.feature_spaces or ()) > 1:
        # what voxels tell together is found once, whatever the number of workers
        some = np.unique(np.linspace(0, y.shape[1] - 1, _POOLED_VOXELS).astype(int))
        (X_in, runs_in, films_in), (y_in,) = training_of(some)
        pooled = clone(model).fit(X_in, y_in, runs=runs_in, films=films_in)
        model = clone(model).set_params(mixture_prior=pooled.mixture_prior_)
    # a block's responses are copied when it is its turn
    predicted = joblib.Parallel()(
        joblib.delayed(_fit_and_predict)(model, *training_of(block), testing, *asked)
        for block in blocks
    )
    return [(block, *found) for block, found in zip(blocks, predicted, strict=True)]


def training_set(X, y, train, *, runs, films):
    """Take the runs with training samples; their other samples are context of the delays alone.

    Parameters
    ----------
    X, y : arrays of shape (n_samples, ...)
    train : array of int
        Training samples.
    runs, films : arrays of int of shape (n_samples,)

    Returns
    -------
    X, y, runs, films : arrays of shape (n_samples_of_these_runs, ...)
        `films` is -1 where a sample is not in training.
    """
    seen = np.where(np.isin(np.arange(len(X)), train), films, -1)
    rows = np.isin(runs, runs[train])
    return X[rows], y[rows], runs[rows], seen[rows]


def _voxel_blocks(n_training, n_voxels):
    """Slices of voxels: one for each of joblib's workers, or more where they would be large."""
    largest = max(_FEWEST_VOXELS_PER_BLOCK, _BLOCK_BYTES // (4 * max(1, n_training)))
    # None: as many as joblib.Parallel() takes, one where no backend was asked for
    n_blocks = max(joblib.effective_n_jobs(None), -(-n_voxels // largest))
    n_blocks = max(1, min(n_blocks, n_voxels // _FEWEST_VOXELS_PER_BLOCK))
    borders = np.linspace(0, n_voxels, n_blocks + 1).astype(int).tolist()
    return [slice(a, b) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def _fit_and_predict(model, training, responses, testing, by_feature_space, training_scores):
    """Return predictions of the tested samples, each space's part or None, and training scores."""
    X, runs, films = training
    (y,) = responses
    fitted = clone(model).fit(X, y, runs=runs, films=films)
    X, runs, is_test = testing
    scores = fitted.cv_scores_.max(0) if training_scores else None
    if not by_feature_space:
        return fitted.predict(X, runs=runs)[is_test], None, scores
    parts = fitted.predict(X, runs=runs, by_feature_space=True)[:, is_test]
    return parts.sum(0) + fitted.intercept_, parts, scores
