"""Fewer columns per feature space, learnt from training films only and in fixed memory."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import IncrementalPCA
from sklearn.random_projection import SparseRandomProjection
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from brainnrds._checks import InputError

__all__ = ["FeatureProjection"]

_METHODS = ("pca", "sparse")


class FeatureProjection(TransformerMixin, BaseEstimator):
    """Standardise the columns of every feature space and project them onto fewer.

    A model that is fitted to components should not standardise them again, or the last component
    would count as much as the first: ``VideoEncodingModel(standardize=False)``.

    A projection that has seen the test films leaks them into the scores: fit it on the training
    samples of each fold, inside the cross-validation (see Examples).

    Parameters
    ----------
    n_components : int, default=1000
        Columns per feature space; a space that has no more than these is only standardised.
    method : {"pca", "sparse"}, default="pca"
        "pca" is incremental principal component analysis [1]_, whose memory is that of
        `batch_size` samples and the components; "sparse" is a sparse random projection [2]_, which
        learns nothing but the number of columns and keeps distances approximately.
    feature_spaces : dict of str to slice, or None, default=None
        Name of each feature space to its columns, as `VideoEncodingModel` takes them; None is one
        space.
    batch_size : int or None, default=None
        Samples at once for "pca"; None is five times `n_components`.
    random_state : int, RandomState or None, default=None
        For "sparse".

    Attributes
    ----------
    feature_spaces_ : dict of str to slice
        Columns of each space after projection: what `VideoEncodingModel` needs then. With
        ``feature_spaces=None`` the one space is called "features".
    projections_ : dict of str to (offset, matrix), or None
        Of each space: what is taken off the standardised columns, (n_columns,), and what they are
        multiplied by, (n_columns, n_components), an array or sparse. None where they stay.
    mean_, scale_ : arrays of shape (n_features,)
        Of the training samples. A constant column has an infinite scale and becomes 0.
    n_features_in_ : int

    References
    ----------
    .. [1] Ross DA, Lim J, Lin RS, Yang MH (2008). Incremental learning for robust visual tracking.
       International Journal of Computer Vision 77, 125-141.
    .. [2] Li P, Hastie TJ, Church KW (2006). Very sparse random projections. Proceedings of the
       12th ACM SIGKDD Conference, 287-296.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import FeatureProjection
    >>> X = np.random.default_rng(0).normal(size=(60, 50))
    >>> train, test = np.arange(40), np.arange(40, 60)
    >>> projection = FeatureProjection(
    ...     5, feature_spaces={"video": slice(0, 30), "image": slice(30, 50)}
    ... ).fit(X[train])
    >>> projection.feature_spaces_
    {'video': slice(0, 5, None), 'image': slice(5, 10, None)}
    >>> projection.transform(X[test]).shape
    (20, 10)
    """

    def __init__(
        self,
        n_components=1000,
        *,
        method="pca",
        feature_spaces=None,
        batch_size=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.method = method
        self.feature_spaces = feature_spaces
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y=None):
        """Learn the projection of every feature space.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Training samples only.
        y : ignored

        Returns
        -------
        self : FeatureProjection
        """
        X = validate_data(self, X, dtype=[np.float32, np.float64])
        if self.method not in _METHODS:
            raise InputError(f"`method` must be one of {_METHODS}; got {self.method!r}.")
        if not isinstance(self.n_components, (int, np.integer)) or self.n_components < 1:
            raise InputError(f"`n_components` must be a positive int; got {self.n_components!r}.")
        self.mean_, self.scale_ = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
        self.scale_[self.scale_ <= 1e-6 * np.maximum(np.abs(self.mean_), 1e-6)] = np.inf
        self.projections_, self.feature_spaces_, start = {}, {}, 0
        for name, columns in self._spaces().items():
            n_columns = X[:1, columns].shape[1]
            width = min(n_columns, self.n_components)
            if self.method == "pca":
                width = min(width, len(X))
            self.projections_[name] = (
                None if width == n_columns else self._fit_projection(X, columns, width)
            )
            self.feature_spaces_[name] = slice(start, start + width)
            start += width
        return self

    def _spaces(self):
        if self.feature_spaces is None:
            return {"features": slice(0, self.n_features_in_)}
        return self.feature_spaces

    def _standardised(self, X, columns):
        block = (X[:, columns] - self.mean_[columns]) / self.scale_[columns]
        return block.astype(X.dtype, copy=False)

    def _fit_projection(self, X, columns, width):
        if self.method == "sparse":
            drawn = SparseRandomProjection(width, random_state=self.random_state)
            matrix = drawn.fit(X[:, columns]).components_.T.astype(X.dtype)
            return np.zeros(matrix.shape[0], X.dtype), matrix
        projection = IncrementalPCA(width)
        for rows in gen_batches(len(X), self.batch_size or 5 * width, min_batch_size=width):
            projection.partial_fit(self._standardised(X[rows], columns))
        return projection.mean_.astype(X.dtype), projection.components_.T.astype(X.dtype)

    def transform(self, X):
        """Project samples.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)

        Returns
        -------
        projected : array of shape (n_samples, n_components of all spaces)
        """
        check_is_fitted(self, "projections_")
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        projected = np.empty((len(X), max(s.stop for s in self.feature_spaces_.values())), X.dtype)
        for name, columns in self._spaces().items():
            block = self._standardised(X, columns)
            if self.projections_[name] is not None:
                offset, matrix = self.projections_[name]
                block = (block - offset) @ matrix
            projected[:, self.feature_spaces_[name]] = block
        return projected
