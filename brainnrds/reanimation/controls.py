"""What did the brain add? The same renderer, fed with flow from the brain and from elsewhere."""

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError, check_clips
from brainnrds.blocks import (
    FEWEST_BLOCKS,
    block_bootstrap_interval,
    block_sign_flip_test,
    permute_clips,
)
from brainnrds.features import OpticalFlow
from brainnrds.metrics import (
    embedding_cosine,
    end_point_error,
    flicker,
    flow_cosine,
    identification_accuracy,
    pairwise_end_point_error,
    structural_similarity,
)

__all__ = ["compare_renderings", "rendering_flows", "score_clips"]

_LOWER_IS_BETTER = ("flow_error_px", "flicker")


def rendering_flows(
    decoder,
    X,
    *,
    blocks,
    samples=None,
    image_features=None,
    runs=None,
    others=None,
    random_state=None,
):
    """Decode flow, and the flow of its controls: what a renderer is fed with.

    Each control takes away one thing more. Against `others` without brain, decoded flow says what
    the brain added; against "permuted", that it belongs to this moment; against "flow of another
    clip", that brain and frame together do, which a decoder without brain shows as well; against
    "zero", that there is motion of the right kind.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted.
    X : array of shape (n_samples, n_voxels)
        BOLD of one subject.
    blocks : int array of shape (n_rendered,)
        Neighbouring clips with one label (40 s or more) change places together.
    samples : int or bool array, default=None
        Which samples are rendered; all of X serves the windows of BOLD. None: all.
    image_features : array of shape (n_samples, n_channels, rows, columns), default=None
        Of the frames that are rendered, if the decoder was fitted with such.
    runs : array of int or str of shape (n_samples,), default=None
    others : dict of str to MotionDecoder or None, default=None
        Controls that were fitted on their own, such as ``{"image_only": fit_image_only(...)}``.
    random_state : int, RandomState or None, default=None
        Of the block that lends its BOLD, or its flow.

    Returns
    -------
    flows : dict of str to array of shape (n_rendered, n_steps, 2, height, width)
        In the order of all tables: "decoded"; `others`, as they are given; "permuted": this clip's
        frame with another time's BOLD; "flow of another clip": as a whole, decoded with that clip's
        frame; "zero".
    """
    samples = np.arange(len(X)) if samples is None else np.asarray(samples)
    samples = np.flatnonzero(samples) if samples.dtype == bool else samples
    if len(blocks) != len(samples):
        raise InputError(
            f"`blocks` must have one label per rendered clip ({len(samples)}); got {len(blocks)}."
        )
    order = permute_clips(blocks, random_state=random_state)
    told = {"image_features": image_features, "runs": runs}
    decoded = decoder.predict(X, **told)[samples]
    swaps = np.stack([samples[order], samples], axis=1)
    return {
        "decoded": decoded,
        **{name: other.predict(X, **told)[samples] for name, other in (others or {}).items()},
        "permuted": np.concatenate([*decoder.predict_swapped(X, swaps, **told)]),
        "flow of another clip": decoded[order],
        "zero": np.zeros_like(decoded),
    }


def score_clips(
    clips, true_clips, *, optical_flow=None, frame_encoder=None, video_encoder=None, n_way=10
):
    """Score rendered clips against those that were shown, clip by clip.

    Parameters
    ----------
    clips, true_clips : iterable of arrays of shape (n_frames, 3, height, width)
        In [0, 1], of one size; an array (n_clips, n_frames, 3, height, width) is one. They are
        read once, one pair at a time.
    optical_flow : OpticalFlow or None, default=None
        Estimates the flow of both. None: DIS on a grid of 32 x 32, in 3 steps.
    frame_encoder, video_encoder : callable or None, default=None
        Clips -> embeddings, (n_clips, n_features): ``transform`` of an image encoder, given
        clips of one frame each, and of a video encoder.
    n_way : int, default=10
        Clips to choose from in the identification (all of them, where there are fewer).

    Returns
    -------
    scores : Bunch of arrays (n_clips,)
        ``ssim``: mean over the frames after the first, which the renderer was given.
        ``flow_error_px``: end-point error of the clip's flow, pixels of the estimator's grid per
        step, over all cells. ``flow_cosine``: over cells that truly move. ``flicker``: mean change
        between frames (a frozen picture scores 0). ``identification_flow``: probability that
        the clip's flow picks out the shown clip among `n_way`. With encoders also ``clip_cosine``
        (mean over frames after the first), ``video_cosine`` and their ``identification_``.
    """
    optical_flow = OpticalFlow() if optical_flow is None else optical_flow
    ssim, flickers, flow, flow_true = [], [], [], []
    frames, frames_true, videos, videos_true = [], [], [], []
    for clip, shown in zip(clips, true_clips, strict=True):
        clip = check_clips(np.asarray(clip)[None])
        shown = check_clips(np.asarray(shown)[None], name="true_clips")
        if clip.shape != shown.shape:
            raise InputError(
                f"`clips` must have the shape of `true_clips`; got {clip.shape[1:]} beside "
                f"{shown.shape[1:]}."
            )
        if clip.shape[1] < 2:
            raise InputError(f"`clips` must have at least two frames; got {clip.shape[1:]}.")
        ssim.append(structural_similarity(clip[0, 1:], shown[0, 1:]).mean())
        flickers.append(flicker(clip)[0])
        flow.append(optical_flow.transform(clip)[0])
        flow_true.append(optical_flow.transform(shown)[0])
        if frame_encoder is not None:
            frames.append(np.asarray(frame_encoder(clip[0, 1:, None])))
            frames_true.append(np.asarray(frame_encoder(shown[0, 1:, None])))
        if video_encoder is not None:
            videos.append(np.asarray(video_encoder(clip))[0])
            videos_true.append(np.asarray(video_encoder(shown))[0])
    if not ssim:
        raise InputError("`clips` must hold at least one clip; got none.")

    flow, flow_true = np.stack(flow), np.stack(flow_true)
    n_way = min(n_way, len(ssim))
    scores = Bunch(
        ssim=np.array(ssim, dtype=np.float64),
        flow_error_px=end_point_error(flow, flow_true, average="none"),
        flow_cosine=flow_cosine(flow, flow_true, average="none", min_motion=0.1),
        flicker=np.array(flickers),
    )
    if n_way > 1:
        scores.identification_flow = identification_accuracy(
            -pairwise_end_point_error(flow, flow_true).astype(np.float64), n_way=n_way
        )
    if frames:
        frames, frames_true = np.stack(frames), np.stack(frames_true)
        scores.clip_cosine = embedding_cosine(frames, frames_true).mean(axis=1)
        if n_way > 1:
            scores.identification_clip = _identify(
                frames.mean(axis=1), frames_true.mean(axis=1), n_way
            )
    if videos:
        videos, videos_true = np.stack(videos), np.stack(videos_true)
        scores.video_cosine = embedding_cosine(videos, videos_true)
        if n_way > 1:
            scores.identification_video = _identify(videos, videos_true, n_way)
    return scores


def _identify(ours, theirs, n_way):
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    pairs = np.broadcast_arrays(ours[:, None], theirs[None])
    similarity = embedding_cosine(*pairs)
    return identification_accuracy(np.nan_to_num(similarity), n_way=n_way)


def compare_renderings(
    scores,
    *,
    blocks,
    ours="decoded",
    n_resamples=2000,
    confidence=0.95,
    random_state=None,
):
    """Make one table of all sources of flow, and test ours against each.

    Parameters
    ----------
    scores : dict of str to Bunch
        Source of flow (those of `rendering_flows`, "true", "stock generator") to what `score_clips`
        returned for it, on the same clips.
    blocks : int array of shape (n_clips,)
        Neighbouring clips that are resampled and flipped together (40 s or more).
    ours : str, default="decoded"
    n_resamples : int, default=2000
    confidence : float, default=0.95
    random_state : int or None, default=None

    Returns
    -------
    table : DataFrame
        One row per score and source: ``score``, ``flow``, ``mean``, ``low``, ``high`` (block
        bootstrap), ``gain`` of ours over this source (positive: ours is better), ``gain_low``,
        ``gain_high``, ``p`` (one-sided, paired, flipping the signs of blocks). With fewer than 12
        blocks intervals and p-values are NaN.
    """
    if ours not in scores:
        raise InputError(f"`scores` must hold {ours!r}; got {sorted(scores)}.")
    options = {"confidence": confidence, "n_resamples": n_resamples, "random_state": random_state}
    enough = len(np.unique(blocks)) >= FEWEST_BLOCKS

    def interval(values):
        if not enough:
            return np.nan, np.nan
        return block_bootstrap_interval(values, blocks, **options)

    rows = []
    for score, reference in scores[ours].items():
        sign = -1 if score in _LOWER_IS_BETTER else 1
        for source, values in scores.items():
            if score not in values:
                continue
            low, high = interval(values[score])
            row = {
                "score": score,
                "flow": source,
                "mean": np.nanmean(values[score]),
                "low": low,
                "high": high,
            }
            if source != ours:
                gain = sign * (reference - values[score])
                low, high = interval(gain)
                row |= {
                    "gain": np.nanmean(gain),
                    "gain_low": low,
                    "gain_high": high,
                    "p": block_sign_flip_test(gain, blocks, random_state=random_state)
                    if enough
                    else np.nan,
                }
            rows.append(row)
    return pd.DataFrame(rows)
