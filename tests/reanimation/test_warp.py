"""The splatting renderer against planted motion."""

import numpy as np
import pytest

from brainnrds.flow import warp
from brainnrds.metrics import structural_similarity
from brainnrds.reanimation import SplatRenderer


def texture(height=48, width=64, seed=0):
    """A smooth random picture."""
    import cv2

    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    image = (image - image.min()) / (image.max() - image.min())
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def constant_flow(dx, dy, n_steps=5, height=48, width=64):
    flow = np.zeros((1, n_steps, 2, height, width), dtype=np.float32)
    flow[:, :, 0], flow[:, :, 1] = dx, dy
    return flow


@pytest.mark.parametrize("dx, dy", [(2, 1), (-3, 0), (0, -2)])
def test_constant_flow_shifts_exactly(dx, dy):
    frame = np.random.default_rng(0).random((1, 3, 48, 64), dtype=np.float32)
    clips = SplatRenderer(n_frames=5)(frame, constant_flow(dx, dy))
    for t in range(5):
        x, y = dx * t, dy * t
        source = frame[0, :, max(0, -y) : 48 - max(0, y), max(0, -x) : 64 - max(0, x)]
        target = clips[0, t, :, max(0, y) : 48 + min(0, y), max(0, x) : 64 + min(0, x)]
        np.testing.assert_allclose(target, source, atol=1e-5)


def test_borders_that_come_into_view_repeat_the_edge():
    frame = np.random.default_rng(0).random((1, 3, 48, 64), dtype=np.float32)
    last = SplatRenderer(n_frames=5)(frame, constant_flow(2, 0))[0, -1]
    np.testing.assert_allclose(last[:, :, :8], frame[0, :, :, :1].repeat(8, axis=2), atol=1e-5)


def test_first_frame_and_repeats_are_equal_to_the_bit():
    frame = texture()[None]
    flow = np.random.default_rng(1).normal(size=(1, 3, 2, 8, 8)).astype(np.float32)
    renderer = SplatRenderer(n_frames=6)
    clips = renderer(frame, flow)
    assert np.array_equal(clips[0, 0], frame[0])
    assert np.array_equal(clips, renderer(frame, flow))
    assert clips.dtype == np.float32
    assert 0 <= clips.min() and clips.max() <= 1


def test_clips_do_not_depend_on_their_company():
    frames = np.stack([texture(seed=s) for s in range(3)])
    flow = np.random.default_rng(1).normal(size=(3, 3, 2, 8, 8)).astype(np.float32)
    renderer = SplatRenderer(n_frames=4)
    assert np.array_equal(renderer(frames, flow)[1:2], renderer(frames[1:2], flow[1:2]))


def test_zero_flow_repeats_the_frame():
    frame = texture()[None]
    clips = SplatRenderer(n_frames=4)(frame, np.zeros((1, 3, 2, 8, 8), dtype=np.float32))
    np.testing.assert_allclose(clips[0], frame.repeat(4, axis=0), atol=1e-6)


@pytest.mark.parametrize("n_frames", [2, 7, 14])
@pytest.mark.parametrize("n_steps", [1, 3, 5, 14])
def test_a_clip_moves_at_the_speed_of_the_film(n_frames, n_steps):
    """Frame k is shown at k / n_frames of the clip; the steps span it."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32) / 128, (1, 3, 48, 64))
    over_the_clip = 21.0
    flow = constant_flow(over_the_clip / n_steps, 0, n_steps=n_steps)
    clips = SplatRenderer(n_frames)(ramp, flow)
    moved = 32 - clips[0, :, 0, 24, 32] * 128
    np.testing.assert_allclose(moved, np.arange(n_frames) / n_frames * over_the_clip, atol=1e-3)


def test_grid_and_number_of_steps_do_not_change_the_motion():
    frame = texture()[None]
    fine = SplatRenderer(n_frames=5)(frame, constant_flow(2, 1))
    coarse = constant_flow(2 * 5 / 2 * 8 / 64, 1 * 5 / 2 * 6 / 48, n_steps=2, height=6, width=8)
    np.testing.assert_allclose(SplatRenderer(n_frames=5)(frame, coarse), fine, atol=1e-4)


@pytest.mark.parametrize("zoom", [1.5, 4.0])
def test_inverts_a_smooth_displacement(zoom):
    """Expansion: every frame is the true zoom of the first, without cracks."""
    frame = texture(64, 64)
    y, x = np.mgrid[:64, :64].astype(np.float32) - 31.5
    n_frames = 6
    scale = zoom ** (1 / (n_frames - 1))
    flow = np.stack([x, y])[None, None].repeat(n_frames, axis=1) * (scale - 1)
    clips = SplatRenderer(n_frames)(frame[None], flow)
    back = np.stack([x, y])[None] * (1 / zoom - 1)
    expected = warp(frame[None], back)[0]
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert np.abs(clips[0, -1][inner] - expected[inner]).max() < 0.05


def test_depth_is_the_motion_against_the_camera_over_its_largest():
    """Three places that land on one pixel are mixed by exp(sharpness * z), z in [0, 1]."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32) / 64, (1, 3, 16, 64))
    flow = np.zeros((1, 2, 2, 16, 64), dtype=np.float32)
    flow[:, :, 0, :, 8:12], flow[:, :, 0, :, 38:42] = 20, -10  # the rest stands still
    for sharpness in (0.0, 1.0, 2.0):
        weights = np.exp(sharpness * np.array([1, 0.5, 0]))
        # coordinates are splatted, not colours: the mean of where they come from is read
        column = weights @ np.array([8, 38, 28]) / weights.sum()
        clip = SplatRenderer(2, sharpness=sharpness)(ramp, flow)
        assert clip[0, 1, 0, 8, 28] * 64 == pytest.approx(column, abs=0.01)


def test_what_moves_against_the_camera_lies_in_front():
    """A red square slides over a blue bar that shares the background's motion."""
    frame = np.full((1, 3, 64, 64), 0.5, dtype=np.float32)
    frame[0, :, :, 40:46] = np.array([0, 0, 1])[:, None, None]
    frame[0, :, 24:40, 8:24] = np.array([1, 0, 0])[:, None, None]
    flow = np.zeros((1, 5, 2, 64, 64), dtype=np.float32)
    # the square moves by 24 pixels, and so its flow is written where it is at each step
    for step in range(4):
        flow[0, step, 0, 24:40, 8 + 6 * step : 24 + 6 * step] = 6
    last = SplatRenderer(n_frames=5)(frame, flow)[0, -1]
    np.testing.assert_allclose(last[0, 27:37, 41:45], 1, atol=0.05)
    np.testing.assert_allclose(last[2, 27:37, 41:45], 0, atol=0.05)
    # what it uncovers is painted from its surroundings, not black and not red
    np.testing.assert_allclose(last[:, 26:38, 10:22], 0.5, atol=0.05)
    # and elsewhere nothing moves
    np.testing.assert_allclose(last[:, :20], frame[0, :, :20], atol=1e-4)


@pytest.mark.shared_data
@pytest.mark.parametrize("film, start", [("bigbuckbunny.mp4", 0.5), ("carphone_pristine.mp4", 0.5)])
def test_true_flow_beats_a_frozen_frame_on_real_footage(shared_data, film, start):
    from brainnrds.features import OpticalFlow
    from brainnrds.io import read_clip
    from brainnrds.reanimation import score_clips

    clip = read_clip(shared_data / "videos" / film, start=start, duration=2.0, fps=7, size=96)
    flow = OpticalFlow(grid=clip.shape[2:], n_steps=14).transform(clip[None])
    moved = SplatRenderer()(clip[:1], flow)
    frozen = clip[None, :1].repeat(14, axis=1)
    ours, still = score_clips(moved, clip[None]), score_clips(frozen, clip[None])
    assert ours.ssim[0] > still.ssim[0] + 0.05
    assert ours.flow_error_px[0] < 0.7 * still.flow_error_px[0]
    expected = np.mean([structural_similarity(clip[:1], f[None]).mean() for f in clip[1:]])
    assert still.ssim[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "frames, flow, message",
    [
        (np.full((1, 3, 8, 8), 200.0), np.zeros((1, 2, 2, 4, 4)), "divide 8-bit images by 255"),
        (np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 2, 2, 4, 4)), "divide 8-bit images by 255"),
        (np.zeros((1, 3, 8, 8)), np.full((1, 2, 2, 4, 4), np.nan), "`flow` must be finite"),
        (np.zeros((2, 3, 8, 8)), np.zeros((1, 2, 2, 4, 4)), "one clip per initial frame"),
        (np.zeros((1, 3, 8, 8)), np.zeros((1, 2, 4, 4, 2)), "`flow` must have shape"),
    ],
)
def test_bad_input_is_refused(frames, flow, message):
    with pytest.raises(ValueError, match=message):
        SplatRenderer()(frames, flow)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    frame = texture()[None]
    flow = np.random.default_rng(1).normal(size=(1, 3, 2, 8, 8)).astype(np.float32)
    cpu, cuda = (SplatRenderer(device=device)(frame, flow) for device in ("cpu", "cuda"))
    assert np.abs(cpu - cuda).mean() < 1e-3
