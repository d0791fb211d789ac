"""The encoding model: delayed feature spaces and banded ridge."""

import re
import warnings
from contextlib import contextmanager

import numpy as np
import psutil
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from brainnrds._checks import InputError, check_device, check_labels
from brainnrds.features.delays import check_delays, delay
from brainnrds.films import blocks_of_one_film, film_folds, film_groups, folds_partition

__all__ = ["VideoEncodingModel", "correlation_score", "correlation_shares", "r2_score"]

_SOLVERS = ("auto", "exact", "himalaya", "hyper_gradient")
_SMALLEST_SHARE = 1e-5
_VOXELS_PER_BATCH = 1024


class VideoEncodingModel(RegressorMixin, BaseEstimator):
    """Predict BOLD from features of the film by banded ridge on delayed feature spaces.

    Features are standardised, delayed within runs and weighted by ridge regression; each feature
    space has its own penalty in each voxel ("banded ridge" [1]_ [2]_), found by a search over
    mixtures of the spaces' kernels and over penalties, by cross-validation over film groups.

    Parameters
    ----------
    feature_spaces : dict of str to slice, default=None
        Names of groups of columns of X, together covering them once. Names become labels in file
        names, so they are alphanumeric. None is one space, named "features".
    delays : sequence of int, default=(1, 2, 3, 4)
        In volumes: `d` takes the features `d` volumes earlier in the same run.
    alphas : sequence of float, default=(1, 3.16, 10, ..., 100000)
        Penalties to try. Each space's kernel is divided by its number of delayed columns, so that
        a penalty means the same for small and large spaces: a kernel's mean diagonal is about 1,
        and the best penalty about the ratio of unexplained to explained variance.
    n_iter : int, default=20
        Number of mixtures of feature spaces to try. The first weights all spaces equally, the
        next give (nearly) all weight to one space, the rest are drawn from Dirichlet
        distributions. With one space there is one mixture.
    cv : int, splitter, or list of (train, test), default=None
        The inner cross-validation. None leaves one film group out, an int spreads the film groups
        over so many folds. Splitters and lists index the samples that show a film, in order.
        If all runs are one film group, films are the folds and max(`delays`) volumes are dropped
        at their borders; a single film is cut into parts in the same way.
    solver : {"auto", "exact", "himalaya", "hyper_gradient"}, default="auto"
        "exact" is :func:`brainnrds.encoding.solve_banded_ridge`, which needs folds that partition
        the samples; "himalaya" its random search [2]_, in the primal where there are fewer delayed
        columns than samples; "hyper_gradient" its gradient descent over mixtures. "auto" is
        "exact" where it applies, else "himalaya".
    standardise : bool, default=True
        Give every column unit variance. False gives it to the columns of a feature space on
        average, so that principal components keep their ratios: see
        :class:`brainnrds.features.FeatureProjection`.
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}, default="cpu"
        Where to compute. Inputs and outputs are NumPy arrays on the host.
    verbose : int, default=0
        With 1, himalaya shows its progress.
    random_state : int, RandomState or None, default=None
        Of the drawn mixtures.

    Attributes
    ----------
    feature_spaces_ : dict of str to slice
        The feature spaces, with None resolved.
    mixtures_ : array of shape (n_spaces, n_voxels)
        The selected weight of each space's kernel.
    alphas_ : array of shape (n_voxels,)
        The selected penalties.
    cv_scores_ : array of shape (n_mixtures, n_voxels) or (n_steps, n_voxels)
        Minus the mean squared error over the inner folds, of each mixture at its best penalty.
    dual_coef_ : array of shape (n_samples_shown, n_voxels)
        Weights of the training samples: the prediction of a space is its mixture weight times
        its kernel between new and training samples times these. None where the primal was solved.
    primal_coef_ : array of shape (n_delays * n_features, n_voxels)
        Weights of the standardised delayed columns, space by space, each in blocks per delay.
        None where kernels were solved.
    intercept_ : array of shape (n_voxels,)
        Mean of y over the training samples.
    feature_mean_, feature_scale_ : arrays of shape (n_features,)
        Training statistics that standardise X.
    solver_ : str
        The solver that was used.
    n_voxels_ : int
    n_features_in_ : int

    See Also
    --------
    brainnrds.encoding.held_out_predictions : predictions of films outside the training set.

    Notes
    -----
    Samples with ``films == -1`` give the delays their context and are left out of the fit and of
    scores. Delays of a run's first volumes that reach before the run take 0, which is the mean of
    the standardised features.

    References
    ----------
    .. [1] Nunez-Elizalde AO, Huth AG, Gallant JL (2019). Voxelwise encoding models with
       non-spherical multivariate normal priors. NeuroImage 197, 482-492.
    .. [2] Dupre la Tour T, Eickenberg M, Nunez-Elizalde AO, Gallant JL (2022). Feature-space
       selection with banded ridge regression. NeuroImage 264, 119728.
    """

    def __init__(
        self,
        feature_spaces=None,
        *,
        delays=(1, 2, 3, 4),
        alphas=tuple(10.0 ** (i / 2) for i in range(11)),
        n_iter=20,
        cv=None,
        solver="auto",
        standardise=True,
        device="cpu",
        verbose=0,
        random_state=None,
    ):
        self.feature_spaces = feature_spaces
        self.delays = delays
        self.alphas = alphas
        self.n_iter = n_iter
        self.cv = cv
        self.solver = solver
        self.standardise = standardise
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        # a score on data without temporal structure says nothing about a model with delays
        tags.regressor_tags.poor_score = True
        return tags

    def fit(self, X, y, *, runs=None, films=None):
        """Find the penalties and the weights.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Features of each volume, not yet delayed or standardised.
        y : array of shape (n_samples, n_voxels) or (n_samples,)
            BOLD, z-scored per run.
        runs : array of int of shape (n_samples,), default=None
            Run label of each sample; None is one run.
        films : array of int of shape (n_samples,), default=None
            Film label of each sample, -1 where no film is shown. None: every run is a film.

        Returns
        -------
        self : VideoEncodingModel

        Raises
        ------
        ValueError
            If a run is not longer than the delays, a feature space is constant, its names are not
            alphanumeric or do not cover the columns, or there are fewer film groups than folds.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float32, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        delays = check_delays(self.delays)
        if self.solver not in _SOLVERS:
            raise InputError(f"`solver` must be one of {_SOLVERS}; got {self.solver!r}.")
        alphas = _check_alphas(self.alphas)
        device = check_device(self.device) if self.device != "cpu" else "cpu"
        self.feature_spaces_ = _check_feature_spaces(self.feature_spaces, X.shape[1])
        runs = check_labels(runs, len(X))
        films = runs.copy() if films is None else check_labels(films, len(X), name="films")
        if films.min() < -1:
            raise InputError(f"`films` must be labels from 0 on, or -1; got {films.min()}.")
        _check_run_lengths(runs, delays)
        shown = films >= 0
        folds = self._inner_folds(runs, films, shown, delays)

        self._y_is_1d = y.ndim == 1
        Y = y.reshape(len(y), -1)[shown].astype(np.float32, copy=False)
        self.intercept_ = Y.mean(0, dtype=np.float64).astype(np.float32)
        Y -= self.intercept_
        self.n_voxels_ = Y.shape[1]

        self.feature_mean_, self.feature_scale_ = _training_statistics(
            X[shown], self.feature_spaces_, self.standardise
        )
        self._X_train = (X - self.feature_mean_) / self.feature_scale_
        self._runs_train, self._shown_train = runs, shown
        delayed = self._delayed_spaces(self._X_train, runs)
        self._offsets = [space[shown].mean(0) for space in delayed]
        Zs = [space[shown] - offset for space, offset in zip(delayed, self._offsets, strict=True)]
        del delayed

        mixtures = _draw_mixtures(len(Zs), self.n_iter, check_random_state(self.random_state))
        self.solver_ = self._choose_solver(folds, len(Y))
        solve = {
            "exact": _solve_exact,
            "himalaya": _solve_himalaya,
            "hyper_gradient": _solve_hyper_gradient,
        }[self.solver_]
        solution = solve(Zs, Y, mixtures, alphas, folds, device=device, verbose=bool(self.verbose))
        self.mixtures_, self.alphas_, self.cv_scores_ = solution[:3]
        self.dual_coef_, self.primal_coef_ = solution[3:]
        if self.primal_coef_ is not None:
            # predictions need the training samples only where the weights are dual
            self._X_train = self._runs_train = self._shown_train = None
        return self

    def predict(self, X, *, runs=None, by_feature_space=False):
        """Predict BOLD.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        runs : array of int of shape (n_samples,), default=None
            Run label of each sample; None is one run.
        by_feature_space : bool, default=False
            Return the part that each feature space adds. The parts sum to the prediction minus
            `intercept_`.

        Returns
        -------
        predictions : array of shape (n_samples, n_voxels) or (n_samples,)
            With ``by_feature_space=True`` one more axis in front, in the order of
            `feature_spaces_`. Computed in float32, returned in the type of X.
        """
        check_is_fitted(self, "mixtures_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        dtype, X = X.dtype, X.astype(np.float32, copy=False)
        runs = check_labels(runs, len(X))
        device = _device_at_hand(self.device)
        Zs = self._delayed_spaces((X - self.feature_mean_) / self.feature_scale_, runs)
        shape = (len(Zs), len(X), self.n_voxels_) if by_feature_space else (len(X), self.n_voxels_)
        predictions = np.zeros(shape, dtype=dtype)
        if not by_feature_space:
            predictions += self.intercept_
        trained = self._training_spaces()
        start = 0
        for i_space, (Z, offset) in enumerate(zip(Zs, self._offsets, strict=True)):
            Z = Z - offset
            out = predictions[i_space] if by_feature_space else predictions
            if trained is None:
                weights = self.primal_coef_[start : start + Z.shape[1]]
                _add_product(out, Z, weights, None, device)
                start += Z.shape[1]
            else:
                kernel = Z @ trained[i_space].T / Z.shape[1]
                _add_product(out, kernel, self.dual_coef_, self.mixtures_[i_space], device)
        return predictions[..., 0] if self._y_is_1d else predictions

    def score(self, X, y, *, runs=None, films=None):
        """Return the mean correlation of prediction and response over voxels.

        Parameters
        ----------
        X, y, runs, films
            As in :meth:`fit`.

        Returns
        -------
        score : float
            Mean of :meth:`score_map`; voxels with a constant response are left out.
        """
        scores = self.score_map(X, y, runs=runs, films=films)
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def score_map(self, X, y, *, runs=None, films=None, by_feature_space=False):
        """Return the correlation of prediction and response in each voxel.

        Parameters
        ----------
        X, y, runs, films
            As in :meth:`fit`. Samples with ``films == -1`` are left out.
        by_feature_space : bool, default=False
            Return each feature space's share of the correlation: the covariance of its part of
            the prediction with the response, over the standard deviations of the response and of
            the whole prediction. The shares sum to the correlation.

        Returns
        -------
        scores : array of shape (n_voxels,) or (n_spaces, n_voxels)
            As :func:`correlation_score`: centred within runs; 0 for a constant prediction, NaN
            for a constant response.
        """
        check_is_fitted(self, "mixtures_")
        X, y = validate_data(
            self, X, y, dtype=np.float32, multi_output=True, y_numeric=True, reset=False
        )
        runs = check_labels(runs, len(X))
        films = runs if films is None else check_labels(films, len(X), name="films")
        # left out by their fold, not by an index: that would copy y and the predictions
        folds = np.where(films >= 0, 0, -1)
        y = y.reshape(len(y), -1)
        if not by_feature_space:
            predictions = self.predict(X, runs=runs).reshape(len(X), -1)
            return correlation_score(y, predictions, runs=runs, folds=folds)
        parts = self.predict(X, runs=runs, by_feature_space=True)
        return correlation_shares(y, parts.reshape(len(parts), *y.shape), runs=runs, folds=folds)

    def weights(self, feature_space=None):
        """Return the weights of the standardised features at each delay.

        Parameters
        ----------
        feature_space : str, default=None
            Name of the feature space; may be left out if there is only one.

        Returns
        -------
        weights : array of shape (n_delays, n_features_of_the_space, n_voxels)
            BOLD per standard deviation of a feature, `delays` in their order.
        """
        check_is_fitted(self, "mixtures_")
        names = list(self.feature_spaces_)
        if feature_space is None and len(names) == 1:
            feature_space = names[0]
        if feature_space not in names:
            raise InputError(f"`feature_space` must be one of {names}; got {feature_space!r}.")
        i_space = names.index(feature_space)
        sizes = [len(offset) for offset in self._offsets]
        if self.primal_coef_ is not None:
            start = sum(sizes[:i_space])
            flat = self.primal_coef_[start : start + sizes[i_space]]
        else:
            Z = self._training_spaces()[i_space]
            flat = (Z.T @ self.dual_coef_) * (self.mixtures_[i_space] / Z.shape[1])
        return flat.reshape(len(self.delays), -1, self.n_voxels_)

    def _delayed_spaces(self, standardised, runs):
        delays = check_delays(self.delays)
        return [
            delay(standardised[:, columns], delays, runs=runs)
            for columns in self.feature_spaces_.values()
        ]

    def _training_spaces(self):
        if self._X_train is None:
            return None
        delayed = self._delayed_spaces(self._X_train, self._runs_train)
        return [
            space[self._shown_train] - offset
            for space, offset in zip(delayed, self._offsets, strict=True)
        ]

    def _inner_folds(self, runs, films, shown, delays):
        """Folds as indices into the samples that show a film."""
        if not shown.any():
            raise InputError("`films` must show a film in some samples; got -1 in all of them.")
        gap = max(abs(d) for d in delays)
        if self.cv is None or isinstance(self.cv, (int, np.integer)):
            groups = film_groups(runs, films)[shown]
            if len(np.unique(groups)) == 1 and len(np.unique(films[shown])) == 1:
                if self.cv is not None and self.cv > 1 and len(np.unique(runs)) > 1:
                    raise InputError(
                        "the number of folds must be at most the number of film groups, 1; got "
                        f"{self.cv}."
                    )
                folds = blocks_of_one_film(runs, films, gap=gap)
            else:
                folds = film_folds(runs, films, n_folds=self.cv, gap=gap)
            position = np.cumsum(shown) - 1
            return [(position[train], position[test]) for train, test in folds]
        n_shown = int(shown.sum())
        splits = self.cv.split(np.zeros((n_shown, 1))) if hasattr(self.cv, "split") else self.cv
        folds = [(np.asarray(train), np.asarray(test)) for train, test in splits]
        if len(folds) == 0 or min(min(len(a), len(b)) for a, b in folds) == 0:
            raise InputError("`cv` must give folds that are not empty; got an empty one.")
        return folds

    def _choose_solver(self, folds, n_samples):
        if self.solver in ("himalaya", "hyper_gradient"):
            return self.solver
        if folds_partition(folds, n_samples):
            return "exact"
        if self.solver == "exact":
            raise InputError(
                "`solver='exact'` needs folds that partition the samples, with all others in "
                "training; got folds with gaps or overlap. Use solver='auto' or 'himalaya'."
            )
        return "himalaya"


def correlation_score(y, predictions, *, runs=None, folds=None):
    """Correlate predictions and responses in each voxel.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions : array of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,), default=None
        Both series are centred within each run, so that no score comes from differences between
        the means of runs.
    folds : array of int of shape (n_samples,), default=None
        Predictions of different folds come from different models, with their own penalty and so
        their own scale: they are scaled to unit variance within each fold. Samples with fold -1
        are left out.

    Returns
    -------
    scores : array of float64 of shape (n_voxels,)
        0 for a constant prediction, NaN for a constant response.
    """
    return _correlations(y, [predictions], runs, folds, scale_by_sum=False)[0]


def correlation_shares(y, parts, *, runs=None, folds=None):
    """Split the correlation of response and prediction among the parts of the prediction.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
    parts : array of shape (n_spaces, n_samples, n_voxels)
        They sum to the prediction, up to a constant.
    runs, folds : as in :func:`correlation_score`

    Returns
    -------
    shares : array of float64 of shape (n_spaces, n_voxels)
        They sum to :func:`correlation_score` of the whole prediction.
    """
    return _correlations(y, parts, runs, folds, scale_by_sum=True)


def _correlations(y, predictions, runs, folds, *, scale_by_sum):
    """Correlate series (n_samples, n_voxels), in batches of voxels: float64 copies are large."""
    y = np.asarray(y)
    predictions = [np.asarray(prediction) for prediction in predictions]
    for prediction in predictions:
        if prediction.shape != y.shape:
            raise InputError(
                f"`predictions` must have the shape of `y`, {y.shape}; got {prediction.shape}."
            )
    scores = np.empty((len(predictions), y.shape[1]))
    for start in range(0, y.shape[1], _VOXELS_PER_BATCH):
        batch = slice(start, start + _VOXELS_PER_BATCH)
        centred, scaled = standardised_series(
            y[:, batch],
            [prediction[:, batch] for prediction in predictions],
            runs=runs,
            folds=folds,
            scale_by_sum=scale_by_sum,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(np.einsum("tv,tv->v", centred, centred) * len(centred))
            for row, prediction in zip(scores, scaled, strict=True):
                row[batch] = np.einsum("tv,tv->v", centred, prediction) / scale
    return scores


def standardised_series(y, predictions, *, runs=None, folds=None, scale_by_sum=False):
    """Centre responses and predictions within runs, and scale predictions within folds.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
    predictions : sequence of arrays of shape (n_samples, n_voxels)
    runs, folds : as in :func:`correlation_score`
    scale_by_sum : bool, default=False
        Scale all predictions by the standard deviation of their sum, not each by its own.

    Returns
    -------
    y : array of float64 of shape (n_counted_samples, n_voxels)
    predictions : list of arrays of the same shape
        Their variance is 1 in each fold, or 0 where a prediction is constant.
    """
    y = np.asarray(y)
    n_samples = len(y)
    runs = check_labels(runs, n_samples)
    folds = check_labels(folds, n_samples, name="folds")
    for prediction in predictions:
        if np.shape(prediction) != y.shape:
            raise InputError(
                f"`predictions` must have the shape of `y`, {y.shape}; got {np.shape(prediction)}."
            )
    counted = folds >= 0
    runs, folds = runs[counted], folds[counted]
    series = [np.array(array[counted], dtype=np.float64) for array in (y, *predictions)]
    for run in np.unique(runs):
        rows = runs == run
        for array in series:
            array[rows] -= array[rows].mean(0)
    y, *predictions = series
    tiny = np.finfo(np.float32).tiny
    for fold in np.unique(folds):
        rows = folds == fold
        total = sum(prediction[rows] for prediction in predictions) if scale_by_sum else None
        for prediction in predictions:
            scale = np.sqrt(np.mean((prediction[rows] if total is None else total) ** 2, axis=0))
            prediction[rows] /= np.where(scale > tiny, scale, np.inf)
    constant = np.einsum("tv,tv->v", y, y) <= 1e-12 * len(y)
    y[:, constant] = 0
    return y, predictions


def r2_score(y, predictions, *, runs=None, folds=None):
    """Return the share of the response's variance that is predicted, in each voxel.

    Parameters
    ----------
    y, predictions : arrays of shape (n_samples, n_voxels)
    runs : array of int of shape (n_samples,), default=None
        Both series are centred within each run.
    folds : array of int of shape (n_samples,), default=None
        Samples with fold -1 are left out.

    Returns
    -------
    scores : array of float64 of shape (n_voxels,)
        1 - (sum of squared errors) / (sum of squares of y); negative where the prediction is worse
        than the mean, NaN for a constant response.
    """
    n_samples = len(y)
    runs = check_labels(runs, n_samples)
    counted = check_labels(folds, n_samples, name="folds") >= 0
    errors, total = 0.0, 0.0
    for run in np.unique(runs[counted]):
        rows = counted & (runs == run)
        y_run = np.asarray(y[rows], dtype=np.float64)
        y_run = y_run - y_run.mean(0)
        p_run = np.asarray(predictions[rows], dtype=np.float64)
        errors = errors + np.sum((y_run - p_run + p_run.mean(0)) ** 2, axis=0)
        total = total + np.sum(y_run**2, axis=0)
    total = np.where(total > 1e-12 * counted.sum(), total, np.nan)
    return 1 - errors / total


def _check_alphas(alphas):
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all() or values.min() <= 0:
        raise InputError(f"`alphas` must be positive and finite; got {alphas!r}.")
    return np.unique(values)


def _check_feature_spaces(feature_spaces, n_features):
    if feature_spaces is None:
        return {"features": slice(0, n_features)}
    if not isinstance(feature_spaces, dict) or not feature_spaces:
        raise InputError(
            "`feature_spaces` must be a dict of name -> slice of the columns of X; got "
            f"{feature_spaces!r}."
        )
    times_covered = np.zeros(n_features, dtype=np.int64)
    spaces = {}
    for name, columns in feature_spaces.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9]+", name):
            raise InputError(
                f"names in `feature_spaces` must be alphanumeric (they become labels in file "
                f"names); got {name!r}."
            )
        if not isinstance(columns, slice):
            raise InputError(f"`feature_spaces[{name!r}]` must be a slice; got {columns!r}.")
        start, stop, step = columns.indices(n_features)
        if (columns.stop is not None and columns.stop > n_features) or start >= stop:
            raise InputError(
                f"`feature_spaces[{name!r}]` must select some of the {n_features} columns of X; "
                f"got {columns}."
            )
        times_covered[start:stop:step] += 1
        spaces[name] = slice(start, stop, step)
    if not (times_covered == 1).all():
        raise InputError(
            f"`feature_spaces` must cover each of the {n_features} columns of X once; got "
            f"{int((times_covered == 0).sum())} columns uncovered and "
            f"{int((times_covered > 1).sum())} covered more than once."
        )
    return spaces


def _check_run_lengths(runs, delays):
    longest = max(abs(d) for d in delays)
    labels, lengths = np.unique(runs, return_counts=True)
    if lengths.min() <= longest:
        run = labels[np.argmin(lengths)]
        raise InputError(
            f"`delays` must be shorter than every run; got a delay of {longest} volumes and "
            f"run {run} of {lengths.min()} volumes (n_samples = {lengths.min()})."
        )


def _training_statistics(X, feature_spaces, standardise):
    mean = X.mean(0, dtype=np.float64)
    scale = X.std(0, dtype=np.float64)
    constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    for name, columns in feature_spaces.items():
        if constant[columns].all():
            raise InputError(
                f"feature space {name!r} must vary over the training samples; got "
                f"{constant[columns].sum()} constant columns of {constant[columns].size}."
            )
        if not standardise:
            scale[columns] = np.where(
                constant[columns], scale[columns], np.sqrt(np.mean(scale[columns] ** 2))
            )
    # a constant column says nothing and must not become noise: it stays 0
    scale[constant] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


def _draw_mixtures(n_spaces, n_iter, random_state):
    """Kernel weights to try: equal, each space alone, then Dirichlet draws."""
    if n_iter < 1:
        raise InputError(f"`n_iter` must be at least 1; got {n_iter}.")
    if n_spaces == 1:
        return np.ones((1, 1))
    fixed = np.concatenate([np.full((1, n_spaces), 1 / n_spaces), np.eye(n_spaces)])[:n_iter]
    # alternate between sparse and even mixtures, as himalaya does by default
    drawn = [
        random_state.dirichlet(np.full(n_spaces, (0.1, 1.0)[i % 2]))
        for i in range(n_iter - len(fixed))
    ]
    mixtures = np.concatenate([fixed, *[m[None] for m in drawn]])
    # himalaya divides by the weights: none may vanish in float32
    mixtures = np.maximum(mixtures, _SMALLEST_SHARE)
    return mixtures / mixtures.sum(1, keepdims=True)


def _kernels(Zs):
    """Linear kernels (n_spaces, n_samples, n_samples), per column."""
    return np.stack([Z @ Z.T / Z.shape[1] for Z in Zs])


def _scaled(Z):
    """Columns whose linear kernel is that of :func:`_kernels`."""
    return Z / np.float32(np.sqrt(Z.shape[1]))


def _unscaled(Zs, weights):
    """Weights of the columns of `Zs` from those of the scaled columns."""
    scale = np.concatenate([np.full(Z.shape[1], 1 / np.sqrt(Z.shape[1])) for Z in Zs])
    return weights * scale[:, None].astype(np.float32)


def _solve_exact(Zs, Y, mixtures, alphas, folds, *, device, verbose):
    """As :func:`_solve_himalaya`, by our exact search."""
    from brainnrds.encoding.solvers import solve_banded_ridge

    in_primal = sum(Z.shape[1] for Z in Zs) < len(Y)
    with warnings.catch_warnings():
        # penalties that are small against the kernel are handled, and nothing is to be done
        warnings.filterwarnings("ignore", message="The smallest alpha is")
        found = solve_banded_ridge(
            None if in_primal else _kernels(Zs),
            Y,
            Xs=[_scaled(Z) for Z in Zs] if in_primal else None,
            mixtures=mixtures.astype(np.float32),
            alphas=alphas.astype(np.float32),
            cv=[test for _, test in folds],
            return_weights="primal" if in_primal else "dual",
            device=device,
        )
    return (
        mixtures[found.mixture_index].T.astype(np.float32),
        np.asarray(found.alpha, dtype=np.float32),
        np.asarray(found.cv_scores),
        None if in_primal else np.asarray(found.dual_weights),
        _unscaled(Zs, np.asarray(found.primal_weights)) if in_primal else None,
    )


def _solve_himalaya(Zs, Y, mixtures, alphas, folds, *, device, verbose):
    """Return mixtures, alphas, cv_scores, dual_coef, primal_coef of himalaya's random search."""
    n_samples, n_columns = len(Y), sum(Z.shape[1] for Z in Zs)
    in_primal = n_columns < n_samples
    sizes = {
        "progress_bar": verbose,
        **_batch_sizes(n_samples, min(n_samples, n_columns), Y.shape[1], folds, alphas, device),
    }

    def search(dtype):
        with himalaya_backend(device) as backend:
            arguments = {
                "n_iter": backend.asarray(mixtures.astype(dtype)),
                "alphas": backend.asarray(alphas.astype(dtype)),
                "cv": folds,
                **sizes,
            }
            if in_primal:
                from himalaya.ridge import solve_group_ridge_random_search

                found = solve_group_ridge_random_search(
                    [backend.asarray(_scaled(Z).astype(dtype)) for Z in Zs],
                    backend.asarray(Y.astype(dtype)),
                    return_weights=True,
                    warn=False,
                    **arguments,
                )
                deltas, weights, cv_scores = found
            else:
                from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

                found = solve_multiple_kernel_ridge_random_search(
                    backend.asarray(_kernels(Zs).astype(dtype)),
                    backend.asarray(Y.astype(dtype)),
                    return_weights="dual",
                    **arguments,
                )
                deltas, weights, cv_scores = found
            return tuple(
                np.asarray(backend.to_numpy(part), dtype=np.float32)
                for part in (deltas, weights, cv_scores)
            )

    deltas, weights, cv_scores = _in_single_or_double(search)
    shares, penalties = _from_deltas(deltas)
    if in_primal:
        return shares, penalties, cv_scores, None, _unscaled(Zs, weights)
    return shares, penalties, cv_scores, weights / penalties, None


def _solve_hyper_gradient(Zs, Y, mixtures, alphas, folds, *, device, verbose):
    """As :func:`_solve_himalaya`, with himalaya's gradient descent; `mixtures` are not used."""
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_hyper_gradient

    sizes = _batch_sizes(len(Y), len(Y), Y.shape[1], folds, alphas, device)

    def search(dtype):
        with himalaya_backend(device) as backend:
            found = solve_multiple_kernel_ridge_hyper_gradient(
                backend.asarray(_kernels(Zs).astype(dtype)),
                backend.asarray(Y.astype(dtype)),
                cv=folds,
                return_weights="dual",
                n_targets_batch=sizes["n_targets_batch"],
                progress_bar=verbose,
            )
            return tuple(np.asarray(backend.to_numpy(part), dtype=np.float32) for part in found[:3])

    deltas, weights, cv_scores = _in_single_or_double(search)
    shares, penalties = _from_deltas(deltas)
    return shares, penalties, cv_scores, weights / penalties, None


def _from_deltas(deltas):
    """Mixture weights that sum to 1, and penalties, from himalaya's log(weight / penalty)."""
    weights = np.exp(deltas.astype(np.float64))
    total = weights.sum(0)
    return (weights / total).astype(np.float32), (1 / total).astype(np.float32)


def _in_single_or_double(search):
    """Run a search in float32, and in float64 where a factorisation fails."""
    try:
        found = search(np.float32)
        if all(np.isfinite(part).all() for part in found[1:]):
            return found
        problem = "gave non-finite weights"
    except (np.linalg.LinAlgError, RuntimeError) as error:
        if "out of memory" in str(error):
            raise
        problem = f"failed ({error})"
    warnings.warn(
        f"the float32 factorisation {problem}: repeating in float64.", RuntimeWarning, stacklevel=3
    )
    return search(np.float64)


@contextmanager
def himalaya_backend(device):
    """Switch himalaya's process-wide backend to a device, and back again.

    Parameters
    ----------
    device : str
        "cpu" takes its NumPy backend, "cuda" and "cuda:<n>" its torch_cuda backend.

    Yields
    ------
    backend : module
    """
    from himalaya.backend import get_backend, set_backend

    before = get_backend()
    try:
        if device == "cpu":
            yield set_backend("numpy")
        else:
            import torch

            with torch.cuda.device(device if ":" in device else torch.cuda.current_device()):
                yield set_backend("torch_cuda")
    finally:
        set_backend(before)


def _device_at_hand(device):
    """The device, or the CPU where a model that was fitted on a GPU is used without one."""
    if device == "cpu":
        return device
    import torch

    return check_device(device) if torch.cuda.is_available() else "cpu"


def _free_bytes(device):
    if device == "cpu":
        return psutil.virtual_memory().available
    import torch

    return torch.cuda.mem_get_info(device)[0]


def _batch_sizes(n_samples, n_rank, n_targets, folds, alphas, device):
    """Targets and penalties per batch that keep himalaya's intermediates in a quarter of memory.

    It holds one (n_alphas, n_rank, n_train) resolution matrix and several arrays of predictions
    (n_alphas, n_test, n_targets).
    """
    budget = _free_bytes(device) / 4
    if device == "cpu":
        budget = min(budget, 2e9)
    n_test = max(len(test) for _, test in folds)
    per_alpha = 4 * n_samples * max(n_rank, n_test)
    n_alphas_batch = int(np.clip(budget / 2 / per_alpha, 1, len(alphas)))
    per_target = 4 * 4 * n_alphas_batch * max(n_test, 1)
    n_targets_batch = int(np.clip(budget / 2 / per_target, 1, n_targets))
    per_target_refit = 4 * 3 * n_samples * n_alphas_batch
    return {
        "n_alphas_batch": n_alphas_batch,
        "n_targets_batch": n_targets_batch,
        "n_targets_batch_refit": int(np.clip(budget / 2 / per_target_refit, 1, n_targets)),
    }


def _add_product(out, left, right, column_scale, device):
    """Add ``left @ (right * column_scale)`` to `out`, in batches of columns."""
    n_columns = right.shape[1]
    budget = _free_bytes(device) / 8
    if device == "cpu":
        budget = min(budget, 2**26)  # a product of all columns would be as large as `out`
    size = int(np.clip(budget / (4 * (len(left) + len(right))), 1, n_columns))
    if device != "cpu":
        import torch

        on_device = torch.as_tensor(left, device=device)
    for start in range(0, n_columns, size):
        batch = slice(start, start + size)
        if device == "cpu":
            product = left @ right[:, batch]
        else:
            part = torch.as_tensor(np.ascontiguousarray(right[:, batch]), device=device)
            product = (on_device @ part).cpu().numpy()
        if column_scale is not None:
            product *= column_scale[batch]
        out[:, batch] += product
