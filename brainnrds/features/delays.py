"""Delayed copies of the columns of an array, never across a run border."""

import math

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from brainnrds._checks import InputError, check_labels

__all__ = ["Delayer", "delay", "response_delays"]

#: Seconds: BOLD answers to a film from about 1 s to 9 s later.
EARLIEST_RESPONSE = 1.0
LATEST_RESPONSE = 9.0


def response_delays(t_r, *, earliest=EARLIEST_RESPONSE, latest=LATEST_RESPONSE):
    """List the delays that cover the response in every volume, at any repetition time.

    A delay is the time from the beginning of a clip to the volume's time. From the middle of the
    clip to the middle of the volume's acquisition it is half a repetition time less: at 2 s, delays
    of 2, 4, 6 and 8 s are 1, 3, 5 and 7 s from middle to middle.

    Parameters
    ----------
    t_r : float
        Repetition time in s.
    earliest, latest : float, default=1.0, 9.0
        In s.

    Returns
    -------
    delays : list of int
        In volumes, without a gap: with gaps, features that change quickly would lose against slow
        ones. At least one.

    Examples
    --------
    >>> from brainnrds.features import response_delays
    >>> response_delays(2.0), response_delays(1.5)
    ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6])
    """
    if not 0 <= earliest <= latest:
        raise InputError(f"`latest` must not be before `earliest`; got {earliest} and {latest}.")
    if not t_r > 0:
        raise InputError(f"`t_r` must be positive, in s; got {t_r}.")
    first = math.ceil(earliest / t_r - 1e-6)
    return list(range(first, max(first, math.floor(latest / t_r + 1e-6)) + 1))


def delay(array, delays, *, runs=None):
    """Put delayed copies of an array side by side.

    Parameters
    ----------
    array : array of shape (n_samples, n_features)
        Samples in the order of acquisition within each run.
    delays : sequence of int
        In volumes: `d` takes the sample `d` volumes *earlier* in the same run. Negative delays
        look ahead.
    runs : array of int of shape (n_samples,), default=None
        Run label of each sample; None is one run. The samples of a run need not be contiguous in
        `array`, but they must be in order.

    Returns
    -------
    delayed : array of shape (n_samples, n_delays * n_features)
        One block of columns per delay, in the order of `delays`. Samples whose source lies
        outside their run are 0.
    """
    array = np.asarray(array)
    n_samples, n_features = array.shape
    runs = check_labels(runs, n_samples)
    delayed = np.zeros((n_samples, len(delays) * n_features), dtype=array.dtype)
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        for i_delay, d in enumerate(delays):
            columns = slice(i_delay * n_features, (i_delay + 1) * n_features)
            if abs(d) >= len(rows):
                continue
            if d >= 0:
                delayed[rows[d:], columns] = array[rows[: len(rows) - d]]
            else:
                delayed[rows[:d], columns] = array[rows[-d:]]
    return delayed


class Delayer(TransformerMixin, BaseEstimator):
    """Give every sample the columns of earlier (or later) samples of its run.

    A linear model on delayed features fits a finite impulse response: the haemodynamic response
    is estimated for each feature and voxel [1]_.

    Parameters
    ----------
    delays : sequence of int, default=(1, 2, 3, 4)
        Delays in volumes (multiples of the repetition time): `d` takes the sample `d` volumes
        earlier; negative delays look ahead (BOLD after the clip, for decoding).

    Attributes
    ----------
    n_features_in_ : int
        Number of columns before delaying.

    References
    ----------
    .. [1] Nishimoto S, et al. (2011). Reconstructing visual experiences from brain activity
       evoked by natural movies. Current Biology 21, 1641-1646.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import Delayer
    >>> Delayer((0, 1)).fit_transform(np.array([[1.0], [2.0], [3.0]]))
    array([[1., 0.],
           [2., 1.],
           [3., 2.]])
    """

    def __init__(self, delays=(1, 2, 3, 4)):
        self.delays = delays

    def fit(self, X, y=None):
        """Check the delays and the number of columns; nothing is learnt.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self : Delayer
        """
        check_delays(self.delays)
        validate_data(self, X, dtype=[np.float64, np.float32])
        return self

    def transform(self, X, runs=None):
        """Return the delayed copies.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        runs : array of int of shape (n_samples,), default=None
            Run label of each sample; None is one run.

        Returns
        -------
        delayed : array of shape (n_samples, n_delays * n_features)
            One block of columns per delay; samples with no source in their run are 0.
        """
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return delay(X, check_delays(self.delays), runs=runs)


def check_delays(delays):
    """Return delays as a list of distinct ints.

    Parameters
    ----------
    delays : sequence of int
        In volumes.

    Returns
    -------
    delays : list of int
    """
    values = np.asarray(delays)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu":
        raise InputError(
            f"`delays` must be a non-empty sequence of ints, in volumes; got {delays!r}."
        )
    if len(np.unique(values)) != len(values):
        raise InputError(f"`delays` must be distinct; got {delays!r}.")
    return [int(d) for d in values]
