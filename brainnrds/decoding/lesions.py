"""Regions of the brain: what the decoder uses of each, and what each carries."""

import math

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from tqdm.auto import tqdm

from brainnrds._checks import InputError, check_mask
from brainnrds.blocks import (
    FEWEST_BLOCKS,
    SHORTEST_BLOCK,
    block_bootstrap_interval,
    block_sign_flip_test,
    neighbour_blocks,
)
from brainnrds.decoding.controls import check_samples, rows_of, unfitted
from brainnrds.decoding.gain import paired_gain
from brainnrds.metrics import end_point_error

__all__ = ["compare_lesions"]


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
    block_duration=SHORTEST_BLOCK,
    n_seeds=3,
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
        the other voxels, and the region, *carry*.
    block_duration, verbose, random_state
        As in `compare_to_controls`.
    n_seeds : int, default=3
        With `refit`: trainings of each network. ``n_seeds - 1`` of the intact decoder and
        ``2 * n_seeds`` per region are added.

    Returns
    -------
    table : DataFrame
        One row per region: ``n_voxels``, ``error_px`` (intact), ``error_without_px``,
        ``error_only_px`` (end-point errors, mean over clips and trainings, px of the grid per
        step), ``loss_px`` (without minus intact) with 95 % interval ``low``, ``high`` and ``p``
        (NaN with fewer than 12 blocks): over blocks of clips (bootstrap, sign flips) or, with
        `refit`, over blocks and trainings as in `brain_gain`. ``converged``: whether all its
        networks had ended their training; where not, the loss may be one of training time.
    """
    X, y, labels, counted, test = check_samples(decoder, X, y, test, runs, films, has_cut)
    if not rois:
        raise InputError("`rois` must name at least one region; got none.")
    rois = {
        name: check_mask(roi, (X.shape[1],), name=f"rois[{name!r}]") for name, roi in rois.items()
    }
    random = check_random_state(random_state)
    inner = counted[test]
    block_length = max(1, math.ceil(block_duration / t_r - 1e-9))
    blocks = neighbour_blocks(labels["runs"][test], inner, block_length)
    mean = X[~test].mean(axis=0)
    train = {"runs": runs, "films": films, "has_cut": has_cut, "image_features": image_features}
    train = {name: rows_of(array, ~test) for name, array in train.items()}
    tested = {"image_features": rows_of(image_features, test), "runs": labels["runs"][test]}
    seeds = [decoder.seed_]
    seeds += random.randint(2**31 - 1, size=n_seeds - 1).tolist() if refit else []

    def errors(kept):
        """End-point errors (n_seeds, n_clips), and whether the trainings had ended."""
        chosen = X if kept.all() else np.where(kept, X, mean)
        name = f"lesion-{np.packbits(kept).tobytes().hex()[:16]}"
        fitted = [
            decoder
            if not refit or (kept.all() and seed == decoder.seed_)
            else unfitted(decoder, f"{name}-{i}", seed).fit(chosen[~test], y[~test], **train)
            for i, seed in enumerate(seeds)
        ]
        flows = (network.predict(chosen[test], **tested)[inner] for network in fitted)
        found = [end_point_error(flow, y[counted], average="none") for flow in flows]
        return np.stack(found), all(network.converged_ for network in fitted)

    intact, intact_converged = errors(np.ones(X.shape[1], dtype=bool))
    rows = []
    for name, roi in tqdm(rois.items(), desc="lesions", disable=not verbose):
        (without, converged), (only, _) = errors(~roi), errors(roi)
        loss = paired_gain(intact, without, blocks)
        if not refit:
            difference = (without - intact)[0]
            loss["low"], loss["high"] = block_bootstrap_interval(
                difference, blocks, random_state=random
            )
            if len(np.unique(blocks)) >= FEWEST_BLOCKS:
                loss["p_paired"] = block_sign_flip_test(difference, blocks, random_state=random)
        rows.append(
            {
                "roi": name,
                "n_voxels": int(roi.sum()),
                "error_px": intact.mean(),
                "error_without_px": without.mean(),
                "error_only_px": only.mean(),
                "loss_px": loss["gain_px"],
                "low": loss["low"],
                "high": loss["high"],
                "p": loss["p_paired"],
                "converged": intact_converged and converged,
            }
        )
    return pd.DataFrame(rows).set_index("roi")
