"""Flow as classes: a codebook of flow vectors, labels of cells, and the expected flow."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from brainnrds._checks import InputError, check_flow

__all__ = ["FlowCodebook"]


class FlowCodebook(BaseEstimator):
    """Quantise flow vectors with k-means, so that flow can be predicted by classification.

    A regression to the mean of several plausible motions is a motion that nobody sees; a
    distribution over codes can hold several at once (Walker, Gupta & Hebert 2015,
    arXiv:1505.00295).

    Parameters
    ----------
    n_codes : int, default=40
        Number of flow vectors.
    max_vectors : int, default=100000
        k-means sees at most this many vectors, drawn at random.
    random_state : int, RandomState or None, default=None

    Attributes
    ----------
    codes_ : array of float32 of shape (n_codes, 2)
        Flow vectors (dx, dy) in pixels of the grid per step, shortest first. Fewer than asked for
        if the flow has fewer distinct vectors.
    """

    def __init__(self, n_codes=40, *, max_vectors=100_000, random_state=None):
        self.n_codes = n_codes
        self.max_vectors = max_vectors
        self.random_state = random_state

    def fit(self, flow):
        """Find the codes.

        Parameters
        ----------
        flow : array of shape (n_clips, n_steps, 2, height, width)

        Returns
        -------
        self : FlowCodebook
        """
        vectors = np.moveaxis(check_flow(flow), 2, -1).reshape(-1, 2)
        if int(self.n_codes) != self.n_codes or self.n_codes < 1:
            raise InputError(f"`n_codes` must be a positive int; got {self.n_codes!r}.")
        if self.n_codes > len(vectors):
            raise InputError(
                f"`n_codes` must not exceed the number of flow vectors, {len(vectors)}; "
                f"got {self.n_codes}."
            )
        random = check_random_state(self.random_state)
        if len(vectors) > self.max_vectors:
            vectors = vectors[np.sort(random.permutation(len(vectors))[: self.max_vectors])]
        vectors = vectors.astype(np.float64)
        distinct = np.unique(vectors, axis=0)
        if len(distinct) <= self.n_codes:
            if len(distinct) < self.n_codes:
                warnings.warn(
                    f"the flow has {len(distinct)} distinct vectors: the codebook keeps these "
                    f"instead of {self.n_codes}.",
                    stacklevel=2,
                )
            codes = distinct
        else:
            # one thread: sums of vectors in another order could move a code
            with threadpool_limits(limits=1):
                codes = (
                    KMeans(self.n_codes, n_init=1, random_state=random)
                    .fit(vectors)
                    .cluster_centers_
                )
        angle = np.arctan2(codes[:, 1], codes[:, 0])
        order = np.lexsort((angle, np.linalg.norm(codes, axis=1).round(9)))
        self.codes_ = codes[order].astype(np.float32)
        return self

    def encode(self, flow):
        """Label every cell with its nearest code.

        Parameters
        ----------
        flow : array of shape (n_clips, n_steps, 2, height, width)

        Returns
        -------
        labels : array of int16 of shape (n_clips, n_steps, height, width)
        """
        check_is_fitted(self, "codes_")
        flow = check_flow(flow)
        labels = np.empty(np.delete(flow.shape, 2), dtype=np.int16)
        half_squares = 0.5 * (self.codes_**2).sum(axis=1)
        for i, clip in enumerate(flow):
            nearness = np.moveaxis(clip, 1, -1) @ self.codes_.T - half_squares
            labels[i] = nearness.argmax(axis=-1)
        return labels

    def decode(self, probabilities):
        """Return the expected flow: the codes, weighted by their probabilities.

        Parameters
        ----------
        probabilities : array of shape (n_clips, n_steps, n_codes, height, width)

        Returns
        -------
        flow : array of float32 of shape (n_clips, n_steps, 2, height, width)
        """
        check_is_fitted(self, "codes_")
        probabilities = np.asarray(probabilities, dtype=np.float32)
        if probabilities.ndim != 5 or probabilities.shape[2] != len(self.codes_):
            raise InputError(
                "`probabilities` must have shape (n_clips, n_steps, "
                f"n_codes = {len(self.codes_)}, height, width); got {probabilities.shape}."
            )
        return np.einsum("ntkhw,kc->ntchw", probabilities, self.codes_, optimize=True)
