"""Flow arithmetic against closed forms and torch's own resampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainnrds.flow import (
    accumulate_flow,
    compose_flow,
    cut_scores,
    detect_cuts,
    dominant_motion,
    in_frame,
    motion_masks,
    resize_flow,
    step_shares,
    warp,
)


def _affine_flow(matrix, shift, height=24, width=32):
    """Flow of x -> A x + b about the image's centre, (1, 2, height, width)."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - x.mean(), y - y.mean()
    moved = np.tensordot(np.asarray(matrix) - np.eye(2), np.stack([x, y]), axes=1)
    return (moved + np.asarray(shift)[:, None, None])[None].astype(np.float32)


def test_warp_reads_where_the_flow_points():
    images = np.random.default_rng(0).random((2, 3, 8, 9)).astype(np.float32)
    flow = np.zeros((2, 2, 8, 9), np.float32)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = warp(images, flow)
    np.testing.assert_array_equal(warped[:, :, 1:, :-2], images[:, :, :-1, 2:])
    np.testing.assert_array_equal(warped[:, :, 1:, -1], images[:, :, :-1, -1])  # border repeats


def test_warp_equals_grid_sample():
    random = np.random.default_rng(1)
    images = random.random((2, 4, 11, 7)).astype(np.float32)
    flow = random.normal(scale=3, size=(2, 2, 11, 7)).astype(np.float32)
    y, x = np.mgrid[:11, :7]
    grid = np.stack([(x + flow[:, 0]) / 3 - 1, (y + flow[:, 1]) / 5 - 1], axis=-1)
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(images),
        torch.from_numpy(grid.astype(np.float32)),
        padding_mode="border",
        align_corners=True,
    )
    np.testing.assert_allclose(warp(images, flow), expected.numpy(), atol=2e-6)


def test_in_frame_marks_motion_out_of_the_image():
    flow = np.zeros((1, 2, 4, 5), np.float32)
    flow[:, 0] = 1.5
    np.testing.assert_array_equal(in_frame(flow)[0], np.arange(5) <= 2 + np.zeros((4, 1)))


def test_compose_affine_maps():
    a, b = [[1.05, 0.02], [-0.03, 0.97]], [[0.96, -0.01], [0.04, 1.02]]
    first, second = _affine_flow(a, (0.5, -0.2)), _affine_flow(b, (-0.4, 0.3))
    expected = _affine_flow(np.matmul(b, a), np.matmul(b, (0.5, -0.2)) + (-0.4, 0.3))
    composed = compose_flow(first, second)
    inside = in_frame(first)[0]
    np.testing.assert_allclose(composed[0][:, inside], expected[0][:, inside], atol=1e-5)


def test_accumulate_constant_flow_grows_linearly():
    flow = np.full((2, 4, 2, 6, 6), 0.75, np.float32)
    displacement = accumulate_flow(flow)
    np.testing.assert_allclose(displacement[:, :, 0, 0, 0], [[0.75, 1.5, 2.25, 3.0]] * 2)


def test_accumulated_flow_tracks_the_image():
    y, x = np.mgrid[:32, :32].astype(float)
    frames = [np.sin((x - 0.6 * t) / 3) + np.cos((y + 0.4 * t) / 4) for t in range(4)]
    flow = np.zeros((1, 3, 2, 32, 32), np.float32)
    flow[:, :, 0], flow[:, :, 1] = 0.6, -0.4
    last = np.asarray(frames[3], np.float32)[None, None]
    back = warp(last, accumulate_flow(flow)[:, 2])
    error = np.abs(back[0, 0] - frames[0])[4:-4, 4:-4]
    assert error.max() < 0.02


@pytest.mark.parametrize("size", [(8, 8), (4, 16), (32, 64)])
def test_resize_rescales_vectors(size):
    flow = np.ones((1, 2, 2, 16, 32), np.float32)
    resized = resize_flow(flow, size)
    assert resized.shape == (1, 2, 2, *size)
    np.testing.assert_allclose(resized[:, :, 0], size[1] / 32, rtol=1e-6)
    np.testing.assert_allclose(resized[:, :, 1], size[0] / 16, rtol=1e-6)


def test_resize_grid_equals_torch():
    flow = np.random.default_rng(3).normal(size=(2, 3, 2, 12, 20)).astype(np.float32)
    tensor = torch.from_numpy(flow).flatten(0, 1)
    area = torch.nn.functional.interpolate(tensor, (4, 5), mode="area").reshape(2, 3, 2, 4, 5)
    expected = area.numpy() * np.array([5 / 20, 4 / 12])[:, None, None]
    np.testing.assert_allclose(resize_flow(flow, (4, 5)), expected, atol=1e-6)
    grown = torch.nn.functional.interpolate(tensor, (30, 33), mode="bilinear", align_corners=False)
    expected = grown.reshape(2, 3, 2, 30, 33).numpy() * np.array([33 / 20, 30 / 12])[:, None, None]
    np.testing.assert_allclose(resize_flow(flow, (30, 33)), expected, atol=3e-5)


def test_resize_down_by_a_fraction_keeps_the_mean():
    flow = np.random.default_rng(4).normal(size=(1, 1, 2, 10, 14)).astype(np.float32)
    resized = resize_flow(flow, (7, 9))
    expected = flow.mean(axis=(3, 4)) * [9 / 14, 7 / 10]
    np.testing.assert_allclose(resized.mean(axis=(3, 4)), expected, atol=1e-6)


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=9), st.integers(1, 12))
def test_steps_share_out_all_of_the_time(lengths, n_steps):
    """Shares of every stretch sum to 1, and every step gets as much time as the others."""
    borders = np.cumsum([2.0, *lengths])
    total, seconds = np.zeros(len(lengths)), np.zeros(n_steps)
    order = []
    for step, shares in enumerate(step_shares(borders, n_steps)):
        for stretch, share in shares:
            total[stretch] += share
            seconds[step] += share * lengths[stretch]
            order.append(stretch)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_allclose(seconds, sum(lengths) / n_steps, atol=1e-6)
    assert order == sorted(order)


@pytest.mark.parametrize("n_steps", [1, 2, 4, 6, 13])
def test_resize_steps_keeps_the_way(n_steps):
    flow = np.zeros((1, 4, 2, 5, 5), np.float32)
    flow[0, :, 0] = np.array([1.0, 2.0, -0.5, 0.25])[:, None, None]
    resized = resize_flow(flow, n_steps=n_steps)
    assert resized.shape[1] == n_steps
    np.testing.assert_allclose(resized.sum(axis=1), flow.sum(axis=1), atol=1e-5)


def test_resize_steps_composes_along_the_path():
    flow = np.stack([_affine_flow(np.eye(2) * 1.02, (0.3, 0)), _affine_flow(np.eye(2), (0, 1))])
    flow = flow.swapaxes(0, 1)
    expected = compose_flow(flow[:, 0], flow[:, 1])
    np.testing.assert_array_equal(resize_flow(flow, n_steps=1)[:, 0], expected)


@pytest.mark.parametrize("bad", [dict(size=(0, 4)), dict(size=(4,)), dict(n_steps=0)])
def test_resize_refuses(bad):
    with pytest.raises(ValueError, match="must be"):
        resize_flow(np.zeros((1, 1, 2, 4, 4)), **bad)


def _texture(seed, height=96, width=128):
    random = np.random.default_rng(seed)
    coarse = random.random((3, 8, 10))
    image = np.stack([np.kron(c, np.ones((height // 8 + 1, width // 10 + 1))) for c in coarse])
    tint = random.random((3, 1, 1))
    return np.clip(0.6 * image[:, :height, :width] * tint + 0.3 * tint, 0, 1).astype(np.float32)


def test_cuts_are_found_and_pans_flashes_are_not():
    scene, other = _texture(0, width=160), _texture(1, width=160)
    pan = np.stack([scene[:, :, 3 * i : 3 * i + 96] for i in range(6)])
    cut = pan.copy()
    cut[3:] = other[:, :, :96]
    flash = pan.copy()
    flash[2] = np.clip(flash[2] * 1.4 + 0.1, 0, 1)
    has_cut = detect_cuts(np.stack([pan, cut, flash]))
    np.testing.assert_array_equal(has_cut, [False, True, False])
    scores = cut_scores(np.stack([cut]))
    assert scores.shape == (1, 5)
    assert scores[0].argmax() == 2


@pytest.mark.shared_data
def test_cuts_in_real_footage(shared_data):
    import av

    def frames(name, n=24):
        with av.open(str(shared_data / "videos" / name)) as container:
            decoded = [
                f.to_ndarray(format="rgb24", width=128, height=96)
                for f, _ in zip(container.decode(video=0), range(n), strict=False)
            ]
        return np.stack(decoded).astype(np.float32).transpose(0, 3, 1, 2) / 255

    names = ["vtest.avi", "tree.avi", "bigbuckbunny.mp4", "carphone_pristine.mp4"]
    films = [frames(name) for name in names]
    assert not detect_cuts(np.stack(films)).any()
    spliced = [np.concatenate([a[:12], b[:12]]) for a in films for b in films if a is not b]
    assert detect_cuts(np.stack(spliced)).all()


def test_dominant_motion_ignores_the_object():
    camera = _affine_flow([[1.01, 0.005], [-0.005, 1.01]], (0.8, -0.3))[None]
    flow = camera.copy()
    flow[..., 6:14, 8:18] += np.array([-1.0, 0.6])[:, None, None]
    fitted = dominant_motion(flow)
    np.testing.assert_allclose(fitted, camera, atol=1e-3)
    expected = np.zeros((1, 1, 24, 32), bool)
    expected[..., 6:14, 8:18] = True
    np.testing.assert_array_equal(motion_masks(flow), expected)


def test_dominant_translation_is_one_vector():
    flow = np.random.default_rng(5).normal(scale=0.05, size=(2, 3, 2, 16, 16)).astype(np.float32)
    flow[:, :, 0] += 1
    fitted = dominant_motion(flow, model="translation")
    assert np.ptp(fitted, axis=(3, 4)).max() < 1e-6
    np.testing.assert_allclose(fitted[:, :, 0], 1, atol=0.02)


def test_noise_and_stillness_are_no_objects():
    noise = np.random.default_rng(6).normal(scale=0.3, size=(4, 1, 2, 32, 32)).astype(np.float32)
    assert motion_masks(noise).mean() < 0.02
    assert not motion_masks(np.zeros((1, 1, 2, 8, 8))).any()


def test_flow_of_wrong_layout_is_refused():
    with pytest.raises(ValueError, match=r"`flow` must have shape \(n_clips, n_steps, 2"):
        resize_flow(np.zeros((1, 1, 8, 8, 2)), (4, 4))
    with pytest.raises(ValueError, match="finite"):
        accumulate_flow(np.full((1, 1, 2, 4, 4), np.nan))
