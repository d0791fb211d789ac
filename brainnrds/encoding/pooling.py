"""Tables over parcels: what many voxels say together."""

import numpy as np
import pandas as pd
from scipy.stats import t as student_t
from sklearn.utils import check_random_state

from brainnrds._checks import InputError, check_labels
from brainnrds.blocks import (
    FEWEST_BLOCKS,
    SHORTEST_BLOCK,
    block_labels,
    block_sums,
    bootstrap_tails,
)
from brainnrds.encoding._tested import (
    check_shown_once,
    check_tested,
    predictions_and_folds,
    tested_labels,
)
from brainnrds.encoding.dependence import (
    border_inflation,
    integrated_autocorrelation_time,
    null_inflation,
)
from brainnrds.encoding.scores import standardized_series
from brainnrds.encoding.significance import (
    benjamini_hochberg,
)

__all__ = ["parcel_table"]

_VOXELS_PER_BATCH = 512


def parcel_table(
    y,
    predictions,
    parcels,
    *,
    t_r,
    names=None,
    sides=None,
    difference=None,
    runs=None,
    films=None,
    folds=None,
    block_duration=SHORTEST_BLOCK,
    n_resamples=1000,
    confidence=0.95,
    random_state=None,
):
    """Average scores over parcels, with intervals from a block bootstrap.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD.
    predictions : dict of str to array of shape (n_samples, n_voxels) or Bunch
        Held-out predictions by name.
    parcels : array of int of shape (n_voxels,)
        Parcel label of each voxel; 0 is no parcel.
    t_r : float
        Repetition time, s.
    names : dict of int to str, default=None
        Names of the parcels.
    sides : array of str of shape (n_voxels,), default=None
        Hemisphere of each voxel, such as "L", "R" and "" for none. Then q-values are over the
        parcels of a hemisphere, and ``side`` says which: that of most of the parcel's voxels.
    difference : tuple of two str, default=None
        Names of the predictions to subtract; None takes the first two, if there are two.
    runs, films, folds
        As in :func:`prediction_significance`.
    block_duration : float, default=40.0
        Seconds.
    n_resamples : int, default=1000
    confidence : float, default=0.95
    random_state : int, RandomState or None, default=None

    Returns
    -------
    table : pandas.DataFrame
        One row per parcel: ``parcel``, ``name``, ``n_voxels``, and for each prediction
        ``<name>``, ``<name>_low``, ``<name>_high`` (mean correlation over voxels and its
        interval, see :func:`brainnrds.blocks.bootstrap_tails`, widened by the square root of
        :func:`brainnrds.encoding.dependence.null_inflation`, of
        :func:`brainnrds.encoding.dependence.border_inflation` and of
        :func:`centring_inflation`), ``<name>_p`` and ``<name>_q``: p-value by the same standard
        error and Student's t, one-sided, and its false discovery rate over parcels (of the side);
        ``difference`` and its columns likewise, two-sided. With fewer than 12 blocks, as in the
        tests, ends of intervals and p-values are NaN. Constant voxels are left out.
    """
    y = np.asarray(y)
    n_samples, n_voxels = y.shape
    parcels = check_labels(np.asarray(parcels), n_voxels, name="parcels")
    predictions = dict(predictions)
    arrays, folds = predictions_and_folds(list(predictions.values()), folds)
    predictions = dict(zip(predictions, arrays, strict=True))
    runs, films, folds = tested_labels(n_samples, runs, films, folds)
    kept = folds >= 0
    check_tested(y, arrays, kept)
    check_shown_once(runs, films, kept)
    block_length = max(1, round(block_duration / t_r))
    blocks = block_labels(runs[kept], films[kept], block_length)
    n_blocks = int(blocks.max()) + 1
    rng = check_random_state(random_state)
    # the first row counts every block once: the measured score
    counts = np.ones((n_resamples + 1, n_blocks))
    for row in counts[1:]:
        row[:] = np.bincount(rng.randint(n_blocks, size=n_blocks), minlength=n_blocks)

    some = np.unique(np.linspace(0, n_voxels - 1, _VOXELS_PER_BATCH).astype(int))
    centred, scaled = standardized_series(
        y[:, some], [array[:, some] for array in arrays], runs=runs, folds=folds
    )
    inflation = max(_block_inflation(centred, p, runs[kept], block_length) for p in scaled)
    del centred, scaled
    numbers = np.setdiff1d(parcels, [0])
    keys = list(predictions)
    sums = {key: np.zeros((n_resamples + 1, len(numbers))) for key in keys}
    n_counted = np.zeros(len(numbers))
    voxels_of_parcels = np.flatnonzero(parcels != 0)
    for start in range(0, len(voxels_of_parcels), _VOXELS_PER_BATCH):
        voxels = voxels_of_parcels[start : start + _VOXELS_PER_BATCH]
        y_batch, scaled = standardized_series(
            y[:, voxels],
            [np.asarray(predictions[key])[:, voxels] for key in keys],
            runs=runs,
            folds=folds,
        )
        usable = y_batch.any(0)
        member = (parcels[voxels][usable, None] == numbers).astype(np.float64)
        n_counted += member.sum(0)
        power = counts @ block_sums(y_batch[:, usable] ** 2, blocks, n_blocks)
        for key, prediction in zip(keys, scaled, strict=True):
            prediction = prediction[:, usable]
            match = counts @ block_sums(y_batch[:, usable] * prediction, blocks, n_blocks)
            size = counts @ block_sums(prediction**2, blocks, n_blocks)
            scale = np.sqrt(power * size)
            sums[key] += np.where(scale > 0, match / np.where(scale > 0, scale, 1), 0) @ member

    table = pd.DataFrame(
        {
            "parcel": numbers,
            "name": [(names or {}).get(int(number), str(number)) for number in numbers],
            "n_voxels": n_counted.astype(int),
        }
    )
    groups = None
    if sides is not None:
        groups = _sides_of_parcels(parcels, numbers, np.asarray(sides))
        table["side"] = groups
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {key: sums[key] / n_counted for key in keys}
    if difference is None and len(keys) >= 2:
        difference = tuple(keys[:2])
    if difference is not None:
        means["difference"] = means[difference[0]] - means[difference[1]]
    ends = dict.fromkeys(means, (np.nan, np.nan))
    p_values = dict.fromkeys(means, np.full(len(numbers), np.nan))
    if n_blocks >= FEWEST_BLOCKS:
        tails = bootstrap_tails(n_blocks, confidence)
        # folds that train each other share chance matches: scores vary more than blocks show
        widening = np.sqrt(null_inflation(folds) * inflation)
        ends = {
            key: values[0] + widening * (np.quantile(values[1:], tails, axis=0) - values[0])
            for key, values in means.items()
        }
        small = n_blocks / (n_blocks - 1)  # what the bootstrap's variance lacks
        for key, values in means.items():
            error = widening * np.sqrt(small * values[1:].var(0))
            with np.errstate(invalid="ignore", divide="ignore"):
                t = values[0] / np.where(error > 0, error, np.nan)
            p_values[key] = student_t.sf(t, n_blocks - 1)
            if key == "difference":
                p_values[key] = 2 * student_t.sf(np.abs(t), n_blocks - 1)
    for key, values in means.items():
        low, high = ends[key]
        table[key], table[f"{key}_low"], table[f"{key}_high"] = values[0], low, high
        table[f"{key}_p"] = p_values[key]
        table[f"{key}_q"] = q_values_by_side(p_values[key], groups)
    return table


def _sides_of_parcels(parcels, numbers, sides):
    """The side of most voxels of each parcel."""
    if sides.shape != parcels.shape:
        raise InputError(f"`sides` must have shape {parcels.shape}; got {sides.shape}.")
    names, of_voxels = np.unique(sides, return_inverse=True)
    counts = np.zeros((len(numbers), len(names)))
    inside = parcels != 0
    np.add.at(counts, (np.searchsorted(numbers, parcels[inside]), of_voxels[inside]), 1)
    return names[counts.argmax(axis=1)]


def q_values_by_side(p_values, sides):
    """Control the false discovery rate in each hemisphere by itself.

    Parameters
    ----------
    p_values : array of shape (n_parcels,)
        NaN was not tested.
    sides : array of str of shape (n_parcels,), or None
        None: all parcels together.

    Returns
    -------
    q_values : array of shape (n_parcels,)
    """
    if sides is None:
        return benjamini_hochberg(p_values)
    q_values = np.empty(len(p_values))
    for side in np.unique(sides):
        q_values[sides == side] = benjamini_hochberg(np.asarray(p_values)[sides == side])
    return q_values


def centring_inflation(times, run_length, block_length):
    """Return by how much removing each run's mean hides variance of a mean of products.

    The mean that is removed ties the blocks of a run to each other: products of blocks vary less
    than the product of the run. With the integrated autocorrelation times of both series and of
    their product, blocks of L samples in runs of n lack the share
    (1 - L / n) tau_1 tau_2 / (n tau_12).

    Parameters
    ----------
    times : tuple of three float
        Of both series and of their product, in samples.
    run_length, block_length : float
        In samples.

    Returns
    -------
    inflation : float
        At most 2.
    """
    first, second, product = times
    lost = max(1 - block_length / run_length, 0) * first * second / (run_length * product)
    return 1 / (1 - min(lost, 0.5))


def _block_inflation(y, prediction, runs, block_length):
    """By how much blocks drawn independently understate the variance of a mean product."""
    times = [
        integrated_autocorrelation_time(series, runs=runs)
        for series in (y, prediction, y * prediction)
    ]
    length = len(runs) / len(np.unique(runs))
    return border_inflation(times[2], block_length) * centring_inflation(
        times, length, block_length
    )
