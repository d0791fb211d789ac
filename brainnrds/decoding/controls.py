"""Controls of the decoder: what remains without brain, without image, without motion.

A decoded flow means little by itself: the initial frame predicts motion, and so does the average
film. `compare_to_controls` puts every number beside what predictors without brain get on the same
clips.
"""

import math
import os

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from brainnrds._checks import (
    InputError,
    check_bold,
    check_cuts,
    check_flow,
    check_labels,
    check_mask,
)
from brainnrds.blocks import (
    FEWEST_BLOCKS,
    block_bootstrap_interval,
    block_sign_flip_test,
    exchange_every_block,
    neighbour_blocks,
    permutation_blocks,
    permute_blocks,
    permute_within_scenes,
)
from brainnrds.flow import motion_masks
from brainnrds.metrics import (
    direction_accuracy,
    end_point_error,
    flow_cosine,
    identification_accuracy,
    pairwise_end_point_error,
)

__all__ = [
    "compare_lesions",
    "compare_to_controls",
    "fit_image_only",
    "fit_on_permuted_bold",
    "mean_flow",
]


def fit_image_only(decoder, X, y, *, image_features=None, runs=None, films=None, has_cut=None):
    """Train the image-only control: the decoder's class, data and budget, without brain.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted or not; its parameters and random state are taken over.
    X, y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`; X decides about nothing but shapes.

    Returns
    -------
    image_only : MotionDecoder
        With ``use_bold=False``, fitted.
    """
    control = _without_shared_checkpoint(decoder, "image-only").set_params(use_bold=False)
    return control.fit(X, y, image_features=image_features, runs=runs, films=films, has_cut=has_cut)


def fit_on_permuted_bold(
    decoder,
    X,
    y,
    *,
    block_length,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    permute_within=None,
    random_state=None,
):
    """Train the decoder on windows of BOLD that belong to other times.

    What it gains over the image-only control is not brain: it is the price, or the luck, of the
    larger network.

    No block keeps its own BOLD, and samples that cannot change places (left over at a run's end)
    are left out. Runs shorter than two blocks exchange blocks with each other.

    Parameters
    ----------
    decoder : MotionDecoder
        Its parameters are taken over.
    X, y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`.
    block_length : int
        Samples in a block, see `permutation_blocks`.
    permute_within : int array of shape (n_samples,), default=None
        See `permutation_blocks`.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    control : MotionDecoder
        Fitted.
    """
    runs = check_labels(runs, len(X))
    films = check_labels(films, len(X), name="films")
    blocks = permutation_blocks(runs, films, block_length, permute_within=permute_within)
    if not blocks.groups:
        blocks = permutation_blocks(runs, films, block_length, permute_within=np.zeros_like(runs))
    order = exchange_every_block(blocks, random_state)
    # what keeps its own BOLD would teach it
    films = np.where(order == np.arange(len(order)), -1, films)
    control = _without_shared_checkpoint(decoder, "permuted-bold")
    labels = {"runs": runs, "films": films, "has_cut": has_cut, "subjects": None}
    return control._fit(X, y, image_features, labels, window_order=order)


def _without_shared_checkpoint(decoder, name):
    control = clone(decoder).set_params(random_state=decoder.seed_)
    if control.checkpoint_path is not None:
        control.set_params(checkpoint_path=f"{os.fspath(control.checkpoint_path)}.{name}")
    return control


def mean_flow(y, *, films=None, has_cut=None):
    """Return the mean flow of the training clips, cell by cell and step by step.

    Parameters
    ----------
    y : array of shape (n_samples, n_steps, 2, height, width)
    films : int array of shape (n_samples,), default=None
        Samples with -1 do not count.
    has_cut : bool array of shape (n_samples,), default=None
        Nor do clips with a cut.

    Returns
    -------
    flow : array of float32 of shape (n_steps, 2, height, width)
    """
    y = check_flow(y, name="y")
    shown = (check_labels(films, len(y), name="films") != -1) & ~check_cuts(has_cut, len(y))
    return y[shown].mean(axis=0, dtype=np.float64).astype(np.float32)


def _score_clips(flow, y, mask, min_motion, source_scale):
    """Every score of every clip: dict of arrays (n_clips,)."""
    moving = {"average": "none", "min_motion": min_motion}
    masked = mask if mask.any() else None
    nan = np.full(len(y), np.nan)
    scale = np.asarray(source_scale, dtype=np.float32)[:, None, None]
    return {
        "end_point_error_px": end_point_error(flow, y, average="none"),
        "end_point_error_source_px": end_point_error(flow * scale, y * scale, average="none"),
        "masked_error_px": (
            nan if masked is None else end_point_error(flow, y, average="none", mask=masked)
        ),
        "thresholded_error_px": end_point_error(flow, y, **moving),
        "masked_thresholded_error_px": (
            nan if masked is None else end_point_error(flow, y, mask=masked, **moving)
        ),
        "flow_cosine": flow_cosine(flow, y, **moving),
        "direction_accuracy": direction_accuracy(flow, y, **moving),
    }


def _identification(flow, y, n_way):
    """Probability that each prediction picks out its own clip among `n_way`."""
    flow, y = flow - flow.mean(axis=0), y - y.mean(axis=0)
    similarity = -pairwise_end_point_error(flow, y).astype(np.float64)
    return identification_accuracy(similarity, n_way=n_way)


def _score_orders(decoder, X, orders, counted, y, score, same):
    """Mean over permutations of each clip's scores, and each permutation's mean scores.

    Only distinct pairs of window and clip are decoded: aligned blocks have few.
    """
    n_samples = len(X)
    clips = np.flatnonzero(counted)
    keys = orders[:, clips].astype(np.int64) + clips * n_samples
    distinct, place = np.unique(keys, return_inverse=True)
    place = place.reshape(keys.shape)
    swaps = np.stack([distinct % n_samples, distinct // n_samples], axis=1)
    parts, start = [], 0
    for flow in decoder.predict_swapped(X, swaps, **same):
        parts.append(score(flow, swaps[start : start + len(flow), 1]))
        start += len(flow)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    per_clip = {name: value[place].mean(axis=0) for name, value in values.items()}
    per_order = {}
    for name, value in values.items():
        drawn = value[place]
        finite = np.isfinite(drawn)
        total = np.where(finite, drawn, 0).sum(axis=1)
        per_order[name] = total / np.maximum(finite.sum(axis=1), 1)
    return per_clip, per_order


def compare_to_controls(
    decoder,
    X,
    y,
    *,
    test,
    t_r,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    mask=None,
    scenes=None,
    permute_within=None,
    image_only=None,
    retrain_permuted=True,
    other_flow=None,
    sampled_flow=None,
    min_motion=0.1,
    source_size=None,
    n_way=10,
    block_seconds=40.0,
    n_permutations=1000,
    n_resamples=2000,
    confidence=0.95,
    verbose=0,
    random_state=None,
):
    """Put the decoder's scores beside those of predictors without brain, on the same test clips.

    The **brain gain** is the image-only control's end-point error minus the decoder's: positive
    where BOLD told something that the initial frame did not. Its p-value: the fitted decoder is
    kept, the test windows are permuted in blocks, and the share of permutations that gain as much
    is counted. The image-only error is the same in all of them, so p says whether the *decoder
    uses* the brain; whether that makes it better than no brain is said by the gain's interval.
    Claim a gain only with both.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted on the samples that are not `test`.
    X : array of shape (n_samples, n_voxels)
        BOLD of one subject, training and test.
    y : array of shape (n_samples, n_steps, 2, height, width)
        True flow, px of this grid per step.
    test : bool array of shape (n_samples,)
        True = test. No run and no film on both sides.
    t_r : float
        Repetition time, s.
    image_features : array of shape (n_samples, n_channels, rows, columns), default=None
    runs, films : int array of shape (n_samples,), default=None
        As in `MotionDecoder.fit`.
    has_cut : bool array of shape (n_samples,), default=None
        Clips with a cut, left out of training and scores.
    mask : bool array of shape (n_samples, n_steps, height, width), default=None
        Cells that count in the masked scores, the same for every row; None = where the *true* flow
        moves against its dominant motion (`brainnrds.flow.motion_masks`).
    scenes : int array of shape (n_samples,), default=None
        Scene of each sample, -1 = none: adds a row with BOLD permuted within scene.
    permute_within : int array of shape (n_samples,), default=None
        Which blocks may change places, see `permutation_blocks`; None = within run.
    image_only : MotionDecoder, default=None
        A fitted image-only control; None = trained here.
    retrain_permuted : bool, default=True
        Add the decoder trained on permuted BOLD, if there are two blocks of training samples.
    other_flow : dict of str -> array of shape (n_test, n_steps, 2, height, width), default=None
        Flow of somebody else's reconstructions of the test samples, in their order.
    sampled_flow : dict of str -> array, default=None
        (n_draws, n_test, n_steps, 2, height, width). Draws of a stochastic generator; the best draw
        of each clip counts, by end-point error.
    min_motion : float, default=0.1
        "Thresholded": cells whose true motion is at least this, px of the grid per step. Cosine and
        direction accuracy are thresholded too.
    source_size : tuple (height, width), default=None
        Of the film's frames, for errors in their pixels; None = the grid's.
    n_way : int, default=10
        For identification: the true clip among this many; the mean flow over test clips is
        subtracted from either side first.
    block_seconds : float, default=40.0
        Least duration of a block.
    n_permutations : int, default=1000
    n_resamples : int, default=2000
        Of the block bootstrap.
    confidence : float, default=0.95
    verbose : int, default=0
    random_state : int, RandomState or None, default=None

    Returns
    -------
    comparison : Bunch
        ``table`` : DataFrame, one row per predictor, each score the mean over clips of the clip's
        mean, with ``_low`` and ``_high`` of the end-point errors; ``gain_px``: the image-only
        control's end-point error minus the row's. ``gain`` : DataFrame, the brain gain over all
        cells and over masked ones: ``gain_px``, ``low``, ``high``, ``p`` (permuted BOLD),
        ``p_paired`` (sign flips of whole blocks: decoder against image-only), ``n_blocks``,
        ``smallest_p``, ``note`` (why there is no p). ``per_clip`` : dict of predictor -> dict of
        score -> array over counted test clips. ``null_gain`` : array (n_permutations,), gain over
        all cells under permutation. ``flow`` : dict of predictor -> flow of the test samples.
        ``test``, ``counted`` : bool arrays (n_samples,); ``blocks`` : int array over counted clips;
        ``image_only`` : the fitted control.
    """
    check_is_fitted(decoder, "network_")
    X = check_bold(X, name="X")
    y = check_flow(y, name="y")
    n_samples = len(X)
    runs = check_labels(runs, n_samples)
    films = check_labels(films, n_samples, name="films")
    test = _check_test(test, runs, films, decoder)
    has_cut = check_cuts(has_cut, n_samples)
    counted = (films != -1) & ~has_cut & test
    if not counted.any():
        raise InputError("no test clip is left: none shows a film without a cut.")
    block_length = max(1, math.ceil(block_seconds / t_r - 1e-9))
    random = check_random_state(random_state)
    grid = y.shape[3:]
    source_size = grid if source_size is None else tuple(source_size)
    source_scale = np.array([source_size[1] / grid[1], source_size[0] / grid[0]])
    if mask is None:
        full_mask = np.zeros((n_samples, y.shape[1], *grid), dtype=bool)
        full_mask[counted] = motion_masks(y[counted])
    else:
        full_mask = check_mask(mask, (n_samples, y.shape[1], *grid))

    def part(array, rows):
        return None if array is None else array[rows]

    train = {
        "image_features": part(image_features, ~test),
        "runs": runs[~test],
        "films": films[~test],
        "has_cut": has_cut[~test],
    }
    tested = {"image_features": part(image_features, test), "runs": runs[test]}
    steps = tqdm(total=3 + bool(retrain_permuted), desc="controls", disable=not verbose)

    flow = {"decoder": decoder.predict(X[test], **tested)}
    if image_only is None:
        image_only = fit_image_only(decoder, X[~test], y[~test], **train)
    steps.update()
    flow["image_only"] = image_only.predict(X[test], **tested)
    flow["mean_flow"] = np.broadcast_to(
        mean_flow(y[~test], films=films[~test], has_cut=has_cut[~test]), flow["decoder"].shape
    )
    flow["zero_flow"] = np.zeros_like(flow["decoder"])
    everywhere = np.zeros(int((~test).sum()), dtype=int)
    retrain_permuted = retrain_permuted and bool(
        permutation_blocks(
            runs[~test], films[~test], block_length, permute_within=everywhere
        ).groups
    )
    if retrain_permuted:
        control = fit_on_permuted_bold(
            decoder,
            X[~test],
            y[~test],
            block_length=block_length,
            permute_within=part(permute_within, ~test),
            random_state=random.randint(2**31 - 1),
            **train,
        )
        flow["retrained_on_permuted_bold"] = control.predict(X[test], **tested)
        steps.update()
    for name, other in (other_flow or {}).items():
        flow[name] = _check_other(other, flow["decoder"].shape, name)

    inner = counted[test]
    y_test, mask_test = y[test], full_mask[test]

    def score(some_flow, clips):
        return _score_clips(some_flow, y_test[clips], mask_test[clips], min_motion, source_scale)

    clips = np.flatnonzero(inner)
    for name, draws in (sampled_flow or {}).items():
        draws = [_check_other(draw, flow["decoder"].shape, name) for draw in draws]
        errors = np.stack([end_point_error(draw, y_test, average="none") for draw in draws])
        best = errors.argmin(axis=0)
        flow[f"best_of_{len(draws)}_{name}"] = np.stack(draws)[best, np.arange(len(best))]
    per_clip = {name: score(some[clips], clips) for name, some in flow.items()}
    n_way = min(n_way, len(clips))
    for name, some in flow.items():
        per_clip[name]["identification"] = (
            _identification(some[clips], y_test[clips], n_way)
            if n_way > 1
            else np.full(len(clips), np.nan)
        )

    blocks = permutation_blocks(
        runs[test], films[test], block_length, permute_within=part(permute_within, test)
    )
    orders = permute_blocks(blocks, n_permutations, random_state=random)
    permuted, per_order = _score_orders(decoder, X[test], orders, inner, y_test, score, tested)
    per_clip["permuted_bold"] = permuted
    steps.update()
    if scenes is not None:
        scene_labels = check_labels(scenes, n_samples, name="scenes")[test]
        scene_orders = permute_within_scenes(
            np.where(films[test] == -1, -1, scene_labels), 20, random_state=random
        )
        per_clip["permuted_within_scene"], _ = _score_orders(
            decoder, X[test], scene_orders, inner, y_test, score, tested
        )
    steps.update()
    steps.close()

    labels = neighbour_blocks(runs[test], inner, block_length)
    resampling = {"confidence": confidence, "n_resamples": n_resamples}
    table = _control_table(per_clip, labels, resampling, n_way, random)
    gain = _gain_table(per_clip, per_order, blocks, labels, resampling, random)
    return Bunch(
        table=table,
        gain=gain,
        per_clip=per_clip,
        null_gain=np.mean(per_clip["image_only"]["end_point_error_px"])
        - per_order["end_point_error_px"],
        flow=flow,
        test=test,
        counted=counted,
        blocks=labels,
        image_only=image_only,
    )


def _check_test(test, runs, films, decoder):
    test = check_mask(test, (len(runs),), name="test")
    for name, labels in (("run", runs), ("film", films)):
        both = np.intersect1d(labels[test], labels[~test])
        both = both[both != -1] if name == "film" else both
        if len(both):
            raise InputError(
                f"`test` must not split a {name}; {name}s {both[:5].tolist()} are on both sides."
            )
    if test.all():
        raise InputError("`test` must leave samples to train the controls on; got all True.")
    seen = np.intersect1d(decoder.films_, films[test & (films != -1)])
    if len(seen):
        raise InputError(
            f"`decoder` must not have seen the test films; it was fitted on {seen[:5].tolist()}."
        )
    return test


def _check_other(flow, shape, name):
    flow = check_flow(flow, name=name)
    if flow.shape != shape:
        raise InputError(
            f"`{name}` must have the shape of the test samples' flow, {shape}; got {flow.shape}: "
            "`brainnrds.flow.resize_flow` brings flow to another grid."
        )
    return flow


def _nanmean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _control_table(per_clip, labels, resampling, n_way, random):
    rows = []
    reference = per_clip["image_only"]["end_point_error_px"]
    order = ["decoder", "image_only", "permuted_bold", "permuted_within_scene"]
    order = [name for name in order if name in per_clip]
    order += [name for name in per_clip if name not in order]
    for name in order:
        scores = per_clip[name]
        row = {"predictor": name}
        for score, values in scores.items():
            label = f"identification_{n_way}_way" if score == "identification" else score
            row[label] = _nanmean(values)
            if score in ("end_point_error_px", "masked_error_px") and np.isfinite(values).any():
                row[f"{label}_low"], row[f"{label}_high"] = block_bootstrap_interval(
                    values, labels, random_state=random, **resampling
                )
        row["gain_px"] = _nanmean(reference - scores["end_point_error_px"])
        rows.append(row)
    return pd.DataFrame(rows).set_index("predictor")


def _gain_table(per_clip, per_order, blocks, labels, resampling, random):
    rows = []
    n_permutations = len(next(iter(per_order.values())))
    for cells, score in (("all", "end_point_error_px"), ("masked", "masked_error_px")):
        ours, control = per_clip["decoder"][score], per_clip["image_only"][score]
        difference = control - ours
        if not np.isfinite(difference).any():
            continue
        low, high = block_bootstrap_interval(difference, labels, random_state=random, **resampling)
        p = p_paired = smallest = float("nan")
        note = ""
        if blocks.n_movable < FEWEST_BLOCKS:
            note = (
                f"no p-value: {blocks.n_movable} blocks can change places, "
                f"{FEWEST_BLOCKS} are needed"
            )
        else:
            # the control's error is the same in every permutation: less error is more gain
            slack = 1e-7 * _nanmean(ours)
            as_good = int((per_order[score] <= _nanmean(ours) + slack).sum())
            p = (1 + as_good) / (1 + n_permutations)
            smallest = max(1 / (1 + n_permutations), 1 / blocks.n_orders)
        if len(np.unique(labels[np.isfinite(difference)])) >= FEWEST_BLOCKS:
            p_paired = block_sign_flip_test(difference, labels, random_state=random)
        rows.append(
            {
                "cells": cells,
                "gain_px": _nanmean(difference),
                "low": low,
                "high": high,
                "p": p,
                "p_paired": p_paired,
                "n_blocks": blocks.n_movable,
                "n_permutations": n_permutations,
                "smallest_p": smallest,
                "note": note,
            }
        )
    return pd.DataFrame(rows).set_index("cells")


def compare_lesions(
    decoder,
    X,
    y,
    *,
    test,
    rois,
    t_r,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    refit=False,
    block_seconds=40.0,
    n_resamples=2000,
    confidence=0.95,
    verbose=0,
    random_state=None,
):
    """Decode without, and only with, the voxels of each region.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted on the samples that are not `test`.
    X, y, test, t_r, image_features, runs, films, has_cut
        As in `compare_to_controls`.
    rois : dict of str -> bool array of shape (n_voxels,)
        Region name -> its voxels.
    refit : bool, default=False
        False: the fitted decoder's input from the region is set to its mean ("lesion"): what the
        decoder *uses*. True: the decoder is trained anew without the region, and only with it: what
        the other voxels, and the region, *carry*. Two trainings per region.
    block_seconds, n_resamples, confidence, verbose, random_state
        As in `compare_to_controls`.

    Returns
    -------
    table : DataFrame
        One row per region: ``n_voxels``, ``error_px`` (intact), ``error_without_px``,
        ``error_only_px`` (end-point errors, mean over clips, px of the grid per step), ``loss_px``
        (without minus intact) with ``low``, ``high`` and ``p`` (sign flips of whole blocks; NaN
        with fewer than 12 blocks).
    """
    check_is_fitted(decoder, "network_")
    X = check_bold(X, name="X")
    y = check_flow(y, name="y")
    runs = check_labels(runs, len(X))
    films = check_labels(films, len(X), name="films")
    test = _check_test(test, runs, films, decoder)
    has_cut = check_cuts(has_cut, len(X))
    inner = ((films != -1) & ~has_cut)[test]
    if not rois:
        raise InputError("`rois` must name at least one region; got none.")
    rois = {
        name: check_mask(roi, (X.shape[1],), name=f"rois[{name!r}]") for name, roi in rois.items()
    }
    random = check_random_state(random_state)
    labels = neighbour_blocks(runs[test], inner, max(1, math.ceil(block_seconds / t_r - 1e-9)))
    mean = X[~test].mean(axis=0)

    def errors(kept):
        chosen = np.where(kept, X, mean)
        fitted = decoder
        features = image_features
        if refit:
            name = f"lesion-{np.packbits(kept).tobytes().hex()[:16]}"
            fitted = _without_shared_checkpoint(decoder, name).fit(
                chosen[~test],
                y[~test],
                image_features=None if features is None else features[~test],
                runs=runs[~test],
                films=films[~test],
                has_cut=has_cut[~test],
            )
        flow = fitted.predict(
            chosen[test],
            image_features=None if features is None else features[test],
            runs=runs[test],
        )
        return end_point_error(flow[inner], y[test][inner], average="none")

    flow = decoder.predict(
        X[test],
        image_features=None if image_features is None else image_features[test],
        runs=runs[test],
    )
    intact = end_point_error(flow[inner], y[test][inner], average="none")
    rows = []
    for name, roi in tqdm(rois.items(), desc="lesions", disable=not verbose):
        without, only = errors(~roi), errors(roi)
        low, high = block_bootstrap_interval(
            without - intact,
            labels,
            confidence=confidence,
            n_resamples=n_resamples,
            random_state=random,
        )
        enough = len(np.unique(labels)) >= FEWEST_BLOCKS
        rows.append(
            {
                "roi": name,
                "n_voxels": int(roi.sum()),
                "error_px": intact.mean(),
                "error_without_px": without.mean(),
                "error_only_px": only.mean(),
                "loss_px": (without - intact).mean(),
                "low": low,
                "high": high,
                "p": (
                    block_sign_flip_test(without - intact, labels, random_state=random)
                    if enough
                    else float("nan")
                ),
            }
        )
    return pd.DataFrame(rows).set_index("roi")
