"""Scores of clips, the flows of all controls, and their table."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds.blocks import permute_clips
from brainnrds.decoding import MotionDecoder
from brainnrds.reanimation import compare_renderings, rendering_flows, score_clips


def fitted(delays=(0,), frames=True, **parameters):
    """A decoder of BOLD and frame features, its data, and the blocks of the rendered clips."""
    random = np.random.default_rng(0)
    bold = random.normal(size=(48, 6)).astype(np.float32)
    features = random.normal(size=(48, 2, 2, 2)).astype(np.float32) if frames else None
    flow = np.zeros((48, 1, 2, 4, 4), np.float32) + bold[:, :2, None, None][:, None]
    runs = np.repeat([0, 1], 24)
    options = {"n_epochs": 5, "n_bold_channels": 8, "n_channels": 8, "random_state": 0}
    decoder = MotionDecoder(6, delays=delays, **{**options, **parameters})
    decoder.fit(bold, flow, image_features=features, runs=runs)
    told = {"image_features": features, "runs": runs, "blocks": np.arange(24) // 6}
    return decoder, bold, {**told, "samples": runs == 1, "random_state": 0}


def test_permuted_is_this_clips_frame_with_another_times_bold():
    decoder, bold, told = fitted()
    flows = rendering_flows(decoder, bold, **told)
    assert list(flows) == ["decoded", "permuted", "flow of another clip", "zero"]
    features, order = told["image_features"][24:], permute_clips(told["blocks"], random_state=0)
    expected = decoder.predict(bold[24:], image_features=features)
    np.testing.assert_allclose(flows["decoded"], expected, atol=1e-6)
    np.testing.assert_allclose(flows["flow of another clip"], expected[order], atol=1e-6)
    swapped = decoder.predict(bold[24:][order], image_features=features)
    np.testing.assert_allclose(flows["permuted"], swapped, atol=1e-5)
    assert np.abs(flows["permuted"] - flows["flow of another clip"]).max() > 0.01
    assert not flows["zero"].any()
    rows = rendering_flows(decoder, bold, **{**told, "samples": np.arange(24, 48)})
    np.testing.assert_array_equal(rows["permuted"], flows["permuted"])


def test_a_decoder_without_brain_gains_nothing_over_permuted_bold():
    """It did, with p = .0001, over the flow of another clip: that lacks the frame as well."""
    decoder, bold, told = fitted(use_bold=False)
    flows = rendering_flows(decoder, bold, **told)
    np.testing.assert_array_equal(flows["permuted"], flows["decoded"])
    assert np.abs(flows["flow of another clip"] - flows["decoded"]).max() > 0.01
    noise = np.random.default_rng(1).normal(size=bold.shape).astype(np.float32)
    again = rendering_flows(decoder, noise, **told)
    np.testing.assert_array_equal(again["decoded"], flows["decoded"])


def test_without_frames_both_controls_are_one():
    """Windows move as wholes, over the borders of their blocks."""
    decoder, bold, told = fitted(delays=(-2, 0), frames=False)
    other, *_ = fitted(use_bold=False, frames=False)
    flows = rendering_flows(decoder, bold, others={"image_only": other}, **told)
    assert list(flows)[:3] == ["decoded", "image_only", "permuted"]
    np.testing.assert_allclose(flows["permuted"], flows["flow of another clip"], atol=1e-5)
    expected = other.predict(bold, runs=told["runs"])[24:]
    np.testing.assert_array_equal(flows["image_only"], expected)
    with pytest.raises(ValueError, match=r"one label per rendered clip \(24\); got 5"):
        rendering_flows(decoder, bold, **{**told, "blocks": np.arange(5)})


def test_permuted_clips_all_come_from_another_block():
    blocks = np.array([0, 0, 0, 1, 1, 1, 2, 2, 7, 7, 7])
    for seed in range(10):
        order = permute_clips(blocks, random_state=seed)
        assert (blocks[order] != blocks).all()
    with pytest.raises(ValueError, match="at least two blocks"):
        permute_clips(np.zeros(5, dtype=int))


def test_scores_of_a_perfect_and_a_frozen_clip():
    import cv2

    noise = np.random.default_rng(0).random((48, 90, 3), dtype=np.float32)
    wide = cv2.GaussianBlur(noise, (0, 0), 2).transpose(2, 0, 1)
    wide = (wide - wide.min()) / np.ptp(wide)
    shown = np.stack(
        [
            np.stack([wide[:, :, s * t + o : s * t + o + 48] for t in range(5)])
            for s, o in ((2, 0), (-2, 30), (1, 10))
        ]
    )
    perfect = score_clips(shown, shown)
    frozen = score_clips(iter(shown[:, :1].repeat(5, axis=1)), shown)
    np.testing.assert_allclose(perfect.ssim, 1)
    np.testing.assert_allclose(perfect.flow_error_px, 0)
    np.testing.assert_allclose(perfect.identification_flow, 1)
    assert (frozen.ssim < 0.9).all() and (frozen.flicker == 0).all()
    assert (frozen.flow_error_px > 0.3).all()

    # embeddings: the mean colour of each frame, and of the clip
    encoders = {
        "frame_encoder": lambda clips: clips.mean(axis=(1, 3, 4)),
        "video_encoder": lambda clips: clips.mean(axis=(1, 3, 4)),
    }
    embedded = score_clips(shown, shown, **encoders)
    np.testing.assert_allclose(embedded.clip_cosine, 1, rtol=1e-6)
    np.testing.assert_allclose(embedded.video_cosine, 1, rtol=1e-6)
    with pytest.raises(ValueError, match="must have the shape of `true_clips`"):
        score_clips(shown, shown[:, :4])

    # twelve blocks of which each speaks for us: one of 2^12 sign patterns is as good
    scores = {
        name: Bunch(**{key: np.tile(values, 4) for key, values in score.items()})
        for name, score in {"decoded": perfect, "zero": frozen}.items()
    }
    table = compare_renderings(scores, blocks=np.arange(12), random_state=0)
    table = table.set_index(["score", "flow"])
    expected = np.mean(frozen.flow_error_px)
    assert table.loc[("flow_error_px", "zero"), "gain"] == pytest.approx(expected)
    assert table.loc[("flow_error_px", "zero"), "p"] <= 0.001
    gain = table.loc[("ssim", "zero"), "gain"]
    assert gain == pytest.approx(np.mean(perfect.ssim - frozen.ssim))
    assert table.loc[("ssim", "zero"), "gain_low"] <= gain
    few = compare_renderings(scores, blocks=np.arange(12) // 2, random_state=0)
    assert few["p"].isna().all() and few[["low", "gain_low"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="must hold 'decoded'"):
        compare_renderings({"zero": frozen}, blocks=np.arange(3))
