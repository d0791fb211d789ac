"""The encoding model: delayed feature spaces and banded ridge."""

import re
import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from brainnrds._checks import (
    InputError,
    check_device,
    check_labels,
    refuse_weights,
    warn_of_missing_labels,
)
from brainnrds.encoding import _himalaya, _saving
from brainnrds.encoding._memory import free_memory
from brainnrds.encoding.scores import correlation_score, correlation_shares
from brainnrds.features.delays import check_delays, delay
from brainnrds.films import block_folds, film_folds, film_groups

__all__ = ["VideoEncodingModel"]

#: With fewer film groups in training than this, inner folds are parts of films.
FEWEST_FILM_GROUPS = 8
#: More inner folds cost time and choose alike.
MOST_INNER_FOLDS = 20
# of weights, and of what they are computed from, that are held at a time
_BATCH_BYTES = 2**28
_SOLVERS = ("auto", "exact", "himalaya", "hyper_gradient")


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
        In volumes: `d` takes the features `d` volumes earlier in the same run. The default covers
        the response at a repetition time of 2 s; at others give `MovieData.delays` or
        :func:`brainnrds.features.response_delays`.
    alphas : sequence of float, default=(1, 3.16, 10, ..., 100000)
        Penalties to try. Each space's kernel is divided by its number of delayed columns, so that
        a penalty means the same for small and large spaces: a kernel's mean diagonal is about 1,
        and the best penalty about the ratio of unexplained to explained variance.
    n_iter : int, default=20
        Number of mixtures of feature spaces to try, of
        :func:`brainnrds.encoding.sample_mixtures`: of two spaces an even grid from one to the
        other. With one space there is one mixture.
    mixture_prior : "pooled", None or array of shape (n_mixtures,), default="pooled"
        Inner folds are few, and the best of many mixtures in one voxel is partly chance. "pooled"
        learns from the voxels together how common each mixture is, and each voxel departs from
        that as far as its own scores tell; None: each voxel takes its best score, as in himalaya.
        Of the exact solver; see :func:`brainnrds.encoding.solve_banded_ridge`.
    cv : int, "films", splitter, or list of (train, test), default=None
        The inner cross-validation. None leaves one film group out where there are at least eight,
        and spreads more than 20 over 20 folds; fewer than eight would choose penalties well and
        mixtures badly, and ten contiguous parts of the training films are left out instead, with
        max(`delays`) volumes dropped on both sides
        (:func:`brainnrds.films.block_folds`). "films" leaves one film group out whatever their
        number, an int spreads the film groups over so many folds; if all runs are one film group,
        films are the folds and volumes are dropped at their borders in the same way. Splitters
        and lists index the samples that show a film, in order.
    solver : {"auto", "exact", "himalaya", "hyper_gradient"}, default="auto"
        "auto" is "exact", :func:`brainnrds.encoding.solve_banded_ridge`; "himalaya" is himalaya's
        random search [2]_, which finds the same more slowly, in the primal where there are fewer
        delayed columns than samples; "hyper_gradient" its gradient descent over mixtures.
    standardize : bool, default=True
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
    mixture_prior_ : array of shape (n_mixtures,) or None
        How common each mixture was taken to be.
    labels_in_fit_ : list of str
        Which of "runs" and "films" `fit` was given.
    n_voxels_ : int
    n_features_in_ : int
    projection_ : FeatureProjection or None
        Of a model that was loaded: what made the components that it was fitted to, if that was set
        when it was saved. `predict` takes components.
    metadata_ : dict
        Of a model that was loaded: what :meth:`save` was told.

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
        mixture_prior="pooled",
        cv=None,
        solver="auto",
        standardize=True,
        device="cpu",
        verbose=0,
        random_state=None,
    ):
        self.feature_spaces = feature_spaces
        self.delays = delays
        self.alphas = alphas
        self.n_iter = n_iter
        self.mixture_prior = mixture_prior
        self.cv = cv
        self.solver = solver
        self.standardize = standardize
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

    # what scikit-learn hands on without being asked: labels belong to samples
    __metadata_request__fit = {"runs": True, "films": True}
    __metadata_request__predict = {"runs": True}
    __metadata_request__score = {"runs": True, "films": True, "sample_weight": True}

    def fit(self, X, y, *, runs=None, films=None):
        """Find the penalties and the weights.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Features of each volume, not yet delayed or standardised.
        y : array of shape (n_samples, n_voxels) or (n_samples,)
            BOLD, z-scored per run.
        runs : array of int or str of shape (n_samples,), default=None
            Run label of each sample; None is one run.
        films : array of int or str of shape (n_samples,), default=None
            Film label of each sample, -1 (or "") where no film is shown. None: every run is a film.
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
        # torch loads when it is needed: fitted models are read without it
        from brainnrds.encoding._inputs import check_alphas
        from brainnrds.encoding.solvers import sample_mixtures

        delays = check_delays(self.delays)
        if self.n_iter < 1:
            raise InputError(f"`n_iter` must be at least 1; got {self.n_iter}.")
        if self.solver not in _SOLVERS:
            raise InputError(f"`solver` must be one of {_SOLVERS}; got {self.solver!r}.")
        alphas = np.unique(check_alphas(self.alphas))
        device = check_device(self.device) if self.device != "cpu" else "cpu"
        self.feature_spaces_ = _check_feature_spaces(self.feature_spaces, X.shape[1])
        labels = {"runs": runs, "films": films}
        self.labels_in_fit_ = [name for name, label in labels.items() if label is not None]
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
            X[shown], self.feature_spaces_, self.standardize
        )
        self._X_train = (X - self.feature_mean_) / self.feature_scale_
        self._runs_train, self._shown_train = runs, shown
        delayed = self._delayed_spaces(self._X_train, runs)
        self._offsets = [space[shown].mean(0) for space in delayed]
        Zs = [space[shown] - offset for space, offset in zip(delayed, self._offsets, strict=True)]
        del delayed

        n_mixtures = 1 if len(Zs) == 1 else self.n_iter
        mixtures = sample_mixtures(n_mixtures, len(Zs), random_state=self.random_state)
        self.solver_ = "exact" if self.solver == "auto" else self.solver
        exact = self.solver_ == "exact"
        solve = {
            "exact": _exact_search,
            "himalaya": _himalaya.random_search,
            "hyper_gradient": _himalaya.hyper_gradient,
        }[self.solver_]
        in_primal = sum(Z.shape[1] for Z in Zs) < len(Y) and self.solver_ != "hyper_gradient"
        found = solve(
            None if in_primal else _kernels(Zs),
            Y,
            Xs=[_scaled(Z) for Z in Zs] if in_primal else None,
            mixtures=mixtures,
            alphas=alphas,
            folds=folds,
            device=device,
            verbose=bool(self.verbose),
            **({"mixture_prior": self.mixture_prior} if exact else {}),
        )
        self.mixture_prior_ = found.pop() if exact else None
        self.mixtures_, self.alphas_, self.cv_scores_, self.dual_coef_, weights = found
        self.primal_coef_ = None
        if in_primal:
            self.primal_coef_ = _unscaled(Zs, weights)
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
        start = 0
        for i_space, (name, Z) in enumerate(zip(self.feature_spaces_, Zs, strict=True)):
            Z = Z - self._offsets[i_space]
            out = predictions[i_space] if by_feature_space else predictions
            if self.primal_coef_ is not None:
                weights = self.primal_coef_[start : start + Z.shape[1]]
                _add_product(out, Z, weights, None, device)
                start += Z.shape[1]
            else:
                kernel = Z @ self._training_space(name).T / Z.shape[1]
                _add_product(out, kernel, self.dual_coef_, self.mixtures_[i_space], device)
        return predictions[..., 0] if self._y_is_1d else predictions

    def score(self, X, y, *, runs=None, films=None, sample_weight=None):
        """Return the mean correlation of prediction and response over voxels.

        Parameters
        ----------
        X, y, runs, films
            As in :meth:`fit`.
        sample_weight : None
            For scikit-learn's pipelines, which pass it; weights are refused.

        Returns
        -------
        score : float
            Mean of :meth:`score_map`; voxels with a constant response are left out.

        Warns
        -----
        UserWarning
            If labels that `fit` was given are missing here.
        """
        check_is_fitted(self, "mixtures_")
        refuse_weights(sample_weight)
        warn_of_missing_labels(self, runs=runs, films=films)
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

    def weights(self, feature_space=None, *, voxels=None):
        """Return the weights of the standardised features at each delay.

        Parameters
        ----------
        feature_space : str, default=None
            Name of the feature space; may be left out if there is only one.
        voxels : slice, bool or int array, default=None
            Some voxels; None is all.

        Returns
        -------
        weights : array of shape (n_delays, n_features_of_the_space, n_voxels)
            BOLD per standard deviation of a feature, `delays` in their order.
        """
        check_is_fitted(self, "mixtures_")
        return self._weights_of(feature_space)(slice(None) if voxels is None else voxels)

    def _weights_in_batches(self, feature_space, voxels):
        """Yield indices of some of the voxels and their weights, until all had their turn."""
        weights_of = self._weights_of(feature_space)
        n_rows = len(self.dual_coef_ if self.primal_coef_ is None else self.primal_coef_)
        n_columns = sum(map(len, self._offsets))
        size = max(1, _BATCH_BYTES // (4 * (n_rows + n_columns)))
        for start in range(0, len(voxels), size):
            some = voxels[start : start + size]
            yield some, weights_of(some)

    def _weights_of(self, feature_space):
        """Return the weights as a function of voxels, so that training samples are delayed once."""
        names = list(self.feature_spaces_)
        if feature_space is None and len(names) == 1:
            feature_space = names[0]
        if feature_space not in names:
            raise InputError(f"`feature_space` must be one of {names}; got {feature_space!r}.")
        i_space = names.index(feature_space)
        sizes = [len(offset) for offset in self._offsets]
        shape = (len(self.delays), sizes[i_space] // len(self.delays), -1)
        if self.primal_coef_ is not None:
            start = sum(sizes[:i_space])
            primal = self.primal_coef_[start : start + sizes[i_space]]
            return lambda voxels: primal[:, voxels].reshape(shape)
        Z, device = self._training_space(feature_space), _device_at_hand(self.device)

        def weights_of(voxels):
            dual = self.dual_coef_[:, voxels]
            flat = np.zeros((Z.shape[1], dual.shape[1]), dtype=np.float32)
            _add_product(flat, Z.T, dual, self.mixtures_[i_space, voxels] / Z.shape[1], device)
            return flat.reshape(shape)

        return weights_of

    def save(self, path, *, dtype="float32", metadata=None):
        """Write the fitted model as one HDF5 file, which no code of a pickle is needed to read.

        The file holds what predicts (weights of the training samples with their features, or of
        the columns where these are fewer; the standardisation) and what was chosen (penalties,
        mixtures, scores), and, if it was set as `projection_`, what made the components of its
        features. A splitter given as `cv`, or a generator as `random_state`, is not kept.

        Parameters
        ----------
        path : path-like
            Ends in .h5.
        dtype : {"float32", "float16"}, default="float32"
            Of the weights. float32 predicts what the model did; float16 takes half the room and
            differs by less than a thousandth of a prediction's standard deviation.
        metadata : dict or None, default=None
            What else to know of the model, in JSON's types.

        Returns
        -------
        path : Path
        """
        check_is_fitted(self, "mixtures_")
        return _saving.write_model(self, path, dtype=dtype, metadata=metadata)

    @classmethod
    def load(cls, path):
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        model : VideoEncodingModel
            Fitted, with `metadata_`.

        Raises
        ------
        InputError
            The file is missing or damaged, holds something else, or has another format.
        """
        return _saving.read_model(cls, path)

    def _delayed_spaces(self, standardised, runs):
        delays = check_delays(self.delays)
        return [
            delay(standardised[:, columns], delays, runs=runs)
            for columns in self.feature_spaces_.values()
        ]

    def _training_space(self, name):
        columns, i_space = self.feature_spaces_[name], list(self.feature_spaces_).index(name)
        space = delay(self._X_train[:, columns], check_delays(self.delays), runs=self._runs_train)
        return space[self._shown_train] - self._offsets[i_space]

    def _inner_folds(self, runs, films, shown, delays):
        """Folds as indices into the samples that show a film."""
        if not shown.any():
            raise InputError("`films` must show a film in some samples; got -1 in all of them.")
        gap = max(abs(d) for d in delays)
        if isinstance(self.cv, str) and self.cv != "films":
            raise InputError(f"`cv` must be 'films', folds, a number or None; got {self.cv!r}.")
        if self.cv is None or isinstance(self.cv, (int, np.integer, str)):
            n_groups = len(np.unique(film_groups(runs, films)[shown]))
            is_one_film = n_groups == 1 and len(np.unique(films[shown])) == 1
            if self.cv is None and (n_groups < FEWEST_FILM_GROUPS or is_one_film):
                folds = block_folds(runs, films, gap=gap)
            else:
                n_folds = None if isinstance(self.cv, str) else self.cv
                if self.cv is None and n_groups > MOST_INNER_FOLDS:
                    n_folds = MOST_INNER_FOLDS
                folds = film_folds(runs, films, n_folds=n_folds, gap=gap)
            position = np.cumsum(shown) - 1
            return [(position[train], position[test]) for train, test in folds]
        n_shown = int(shown.sum())
        splits = self.cv.split(np.zeros((n_shown, 1))) if hasattr(self.cv, "split") else self.cv
        folds = [(np.asarray(train), np.asarray(test)) for train, test in splits]
        if len(folds) == 0 or min(min(len(a), len(b)) for a, b in folds) == 0:
            raise InputError("`cv` must give folds that are not empty; got an empty one.")
        return folds


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


def _training_statistics(X, feature_spaces, standardize):
    mean = X.mean(0, dtype=np.float64)
    scale = X.std(0, dtype=np.float64)
    constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    for name, columns in feature_spaces.items():
        if constant[columns].all():
            raise InputError(
                f"feature space {name!r} must vary over the training samples; got "
                f"{constant[columns].sum()} constant columns of {constant[columns].size}."
            )
        if not standardize:
            scale[columns] = np.where(
                constant[columns], scale[columns], np.sqrt(np.mean(scale[columns] ** 2))
            )
    # a constant column says nothing and must not become noise: it stays 0
    scale[constant] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


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


def _exact_search(Ks, Y, *, Xs, mixtures, alphas, folds, device, verbose, mixture_prior):
    """As :func:`brainnrds.encoding._himalaya.random_search`, by our exact search."""
    from brainnrds.encoding.solvers import solve_banded_ridge

    with warnings.catch_warnings():
        # penalties that are small against the kernel are handled, and nothing is to be done
        warnings.filterwarnings("ignore", message="The smallest alpha is")
        found = solve_banded_ridge(
            Ks,
            Y,
            Xs=Xs,
            mixtures=mixtures.astype(np.float32),
            alphas=alphas.astype(np.float32),
            cv=folds,
            mixture_prior=mixture_prior if len(mixtures) > 1 else None,
            return_weights="dual" if Xs is None else "primal",
            device=device,
        )
    shares = mixtures[found.mixture_index].T.astype(np.float32)
    weights = found.dual_weights, found.primal_weights
    return [shares, found.alpha, found.cv_scores, *weights, found.mixture_prior]


def _device_at_hand(device):
    """The device, or the CPU where a model that was fitted on a GPU is used without one."""
    if device == "cpu":
        return device
    import torch

    return check_device(device) if torch.cuda.is_available() else "cpu"


def _add_product(out, left, right, column_scale, device):
    """Add ``left @ (right * column_scale)`` to `out`, in batches of columns."""
    n_columns = right.shape[1]
    budget = free_memory(device) / 8
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
