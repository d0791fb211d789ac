"""DragNUWA and MotionPro with tiny random networks."""

import numpy as np
import pytest
import torch
from tiny_svd import make_input

from brainnrds.reanimation import (
    DragNUWARenderer,
    load_video_model,
)

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_dragnuwa_follows_the_flow_and_only_its_own_seed(dragnuwa):
    frames, flow = make_input()
    renderer = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=2)
    clips = renderer(frames, flow)
    assert clips.shape == (2, 3, 3, 64, 64) and clips.dtype == np.float32
    assert 0 <= clips.min() and clips.max() <= 1 and np.ptp(clips) > 0.05
    alone = renderer(frames[1:], flow[1:], seeds=np.array([1]))
    np.testing.assert_allclose(alone[0], clips[1], atol=2e-3)
    other = renderer(frames, -flow)
    assert np.abs(other - clips).max() > 1e-3
    assert "licence" in renderer.licence


def test_motionpro_loads_through_the_same_code(folders):
    model = load_video_model(folders[0], checkpoint=folders[2], input_channels=3)
    frames, flow = make_input(1)
    # cells of 8 pixels per step, two steps of two and a half frames
    flow[:] = 2.5 * np.array([0.25, -0.125])[:, None, None]
    seen = []
    encode = model.unet.encode_flow
    model.unet.encode_flow = lambda flow: seen.append(flow) or encode(flow)
    DragNUWARenderer(model, n_frames=5, num_steps=1, reference="first")(frames, flow)
    (given,) = seen
    assert given.shape == (1, 5, 3, 64, 64)
    moved = torch.arange(5.0)[:, None, None] * torch.ones(64, 64)
    torch.testing.assert_close(given[0, :, 0], 2 * moved)
    torch.testing.assert_close(given[0, :, 1], -1 * moved)
    column, row = torch.arange(64.0), torch.arange(64.0)[:, None]
    inside = (column + 2 * moved <= 63) & (row - moved >= 0)
    torch.testing.assert_close(given[0, :, 2], inside.float())
    with pytest.raises(ValueError, match="`input_channels` is 2"):
        load_video_model(folders[0], checkpoint=folders[2])


def test_what_dragnuwa_is_fed_with(dragnuwa):
    """Consecutive pixels of the model's grid behind a slice of zeros."""
    seen, ids = [], []
    encode, forward = dragnuwa.unet.encode_flow, dragnuwa.unet.forward
    dragnuwa.unet.encode_flow = lambda flow: seen.append(flow) or encode(flow)

    def spy(*args, **kwargs):
        ids.append(kwargs["added_time_ids"])
        return forward(*args, **kwargs)

    dragnuwa.unet.forward = spy
    flow = np.zeros((1, 3, 2, 8, 8), np.float32)  # one step per frame
    flow[:, :, 0], flow[:, :, 1] = 0.5, -1
    try:
        DragNUWARenderer(dragnuwa, n_frames=3, num_steps=1)(make_input(1, (64, 128))[0], flow)
    finally:
        dragnuwa.unet.encode_flow, dragnuwa.unet.forward = encode, forward
    (given,) = seen
    assert given.shape == (1, 3, 2, 64, 128)
    assert (given[:, 0] == 0).all()
    torch.testing.assert_close(given[:, 1:, 0], torch.full((1, 2, 64, 128), 0.5 * 16))
    torch.testing.assert_close(given[:, 1:, 1], torch.full((1, 2, 64, 128), -1.0 * 8))
    bucket = float(np.hypot(8, 8))
    torch.testing.assert_close(ids[0], torch.tensor([[4.0, bucket, 0.02]] * 2))


def test_sparse_mode_samples_tracks(dragnuwa):
    renderer = DragNUWARenderer(dragnuwa, n_frames=3, flow_mode="sparse")
    fields = torch.zeros(1, 2, 2, 192, 192)
    fields[:, :, 0] = 3
    flow = renderer._condition(fields)
    # tracks start 40 pixels from the corner, 80 apart; the second field is written 3 further
    # and a neighbour 80 = 4 sigma away adds exp(-8)
    assert flow[0, 1, 0, 40, 40] == pytest.approx(3, abs=0.01)
    assert flow[0, 2, 0, 40, 43] == pytest.approx(3, abs=0.01)
    assert flow[0, 1, 0, 80, 80] < 2
    assert (flow[:, 0] == 0).all()
