"""What the weights of a fitted model say of time: the shape of the response, its peak and width."""

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_voxels
from brainnrds.features.delays import check_delays

__all__ = ["impulse_response", "response_times"]

# their weights at all delays stay in the cache while they are multiplied with each other
_VOXELS_AT_A_TIME = 128


def impulse_response(weights):
    """Find the one time course that the weights of all features share, in each voxel.

    Weights of many features at several delays are close to one response in time, times one weight
    per feature: the product that is nearest to them is their first singular pair.

    Parameters
    ----------
    weights : array of shape (n_delays, n_features, n_voxels)
        Of standardised features, :meth:`brainnrds.encoding.VideoEncodingModel.weights`.

    Returns
    -------
    response : array of float64 of shape (n_delays, n_voxels)
        Of length 1, its largest value positive: the sign belongs to the features. NaN where all
        weights are 0.
    separable : array of float64 of shape (n_voxels,)
        Share of the weights' sum of squares that the product has: 1 where all features have this
        time course.
    """
    weights = np.asarray(weights)
    if weights.ndim != 3:
        raise InputError(
            f"`weights` must have shape (n_delays, n_features, n_voxels); got {weights.shape}."
        )
    return _shared_response(_products(weights))


def _shared_response(products):
    """As :func:`impulse_response`, of the weights' products."""
    powers, vectors = np.linalg.eigh(products)
    total = powers.sum(1)
    response = vectors[:, :, -1].T
    largest = np.take_along_axis(response, np.abs(response).argmax(0)[None], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        separable = np.where(total > 0, powers[:, -1] / total, np.nan)
    return np.where(total > 0, response * np.sign(largest), np.nan), separable


def _products(weights):
    """Products of all pairs of delays, summed over features, (n_voxels, n_delays, n_delays)."""
    n_delays, _, n_voxels = weights.shape
    products = np.empty((n_voxels, n_delays, n_delays))
    for start in range(0, n_voxels, _VOXELS_AT_A_TIME):
        some = slice(start, start + _VOXELS_AT_A_TIME)
        part = weights[:, :, some].astype(np.float64)
        for d in range(n_delays):
            for e in range(d + 1):
                products[some, d, e] = products[some, e, d] = np.einsum(
                    "fv,fv->v", part[d], part[e]
                )
    return products


def response_times(model, feature_space=None, *, voxels=None):
    """Say when the response to a feature space peaks, and how long it lasts.

    Parameters
    ----------
    model : VideoEncodingModel
        Fitted, with at least three delays.
    feature_space : str or None, default=None
        May be left out if there is only one.
    voxels : bool array of shape (n_voxels,), default=None
        Voxels that are looked at: those that the space predicts. The weights of others are noise.
        None is all.

    Returns
    -------
    times : Bunch
        Arrays of shape (n_voxels,), in volumes, NaN where all weights are 0 and in voxels that are
        not looked at. ``peak`` : time to peak of :func:`impulse_response`, between delays by the
        parabola through the highest value and its neighbours. ``width`` : full width at half of the
        highest value, by straight lines between delays and, where delays begin after 0, from 0 at a
        delay of 0; NaN where the response has not fallen to half at the last delay (or the first
        one, if it is not after 0). ``at_last`` : bool, whether the last delay has the highest
        value: the response may go on; False in voxels that are not looked at.
        ``separable`` : as of :func:`impulse_response`.

    Notes
    -----
    Ridge shares the weight of a moment among moments that look alike. Where features change slowly
    against the delays, the response is blurred: wider, and its peak nearer to the middle of the
    delays.
    """
    check_is_fitted(model, "mixtures_")
    delays = check_delays(model.delays)
    if len(delays) < 3:
        raise InputError(f"a time to peak needs at least three delays; got {delays}.")
    order = np.argsort(delays)
    at = np.asarray(delays, dtype=np.float64)[order]
    voxels = check_voxels(voxels, model.n_voxels_)
    peak, width, separable = np.full((3, model.n_voxels_), np.nan)
    at_last = np.zeros(model.n_voxels_, dtype=bool)
    for some, weights in model._weights_in_batches(feature_space, voxels):
        products = _products(weights)[:, order[:, None], order]
        response, separable[some] = _shared_response(products)
        peak[some], width[some] = _peak(at, response), _width(at, response)
        at_last[some] = _is_last(response)
    return Bunch(peak=peak, width=width, at_last=at_last, separable=separable)


def _is_last(response):
    return np.nan_to_num(response).argmax(0) == len(response) - 1


def _peak(at, response):
    """Vertex of the parabola through the highest value and its neighbours; ends stay ends."""
    highest = np.nan_to_num(response).argmax(0)
    inside = np.clip(highest, 1, len(at) - 2)
    before, middle, after = (
        np.take_along_axis(response, (inside + step)[None], axis=0)[0] for step in (-1, 0, 1)
    )
    left, right = at[inside] - at[inside - 1], at[inside + 1] - at[inside]
    rise, fall = (middle - before) / left, (after - middle) / right
    with np.errstate(invalid="ignore", divide="ignore"):
        vertex = at[inside] + (rise * right + fall * left) / (2 * (rise - fall))
    vertex = np.where(highest == inside, vertex, at[highest])
    return np.where(np.isfinite(middle), vertex, np.nan)


def _width(at, response):
    """Time between the crossings of half of the highest value, nearest to it on both sides."""
    if at[0] > 0:
        at = np.r_[0.0, at]
        response = np.concatenate([np.zeros((1, response.shape[1])), response])
    half = response.max(0) / 2
    highest = np.nan_to_num(response).argmax(0)
    ends = []
    for step in (-1, 1):
        end, i, going = np.full(len(half), np.nan), highest.copy(), np.isfinite(half)
        while going.any():
            following = i + step
            going &= (following >= 0) & (following < len(at))
            j = np.clip(following, 0, len(at) - 1)
            here, there = (np.take_along_axis(response, k[None], axis=0)[0] for k in (i, j))
            crosses = going & (there <= half)
            share = (here - half)[crosses] / (here - there)[crosses]
            end[crosses] = at[i[crosses]] + share * (at[j] - at[i])[crosses]
            going &= ~crosses
            i = np.where(going, j, i)
        ends.append(end)
    return ends[1] - ends[0]
