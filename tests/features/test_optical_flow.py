"""Flow estimators against ground truth: Middlebury pairs and rendered shifts."""

import os
import pickle
import sys
import types
from functools import reduce

import numpy as np
import pytest
import torch
from sklearn.base import clone

from brainnrds._checks import InputError
from brainnrds.features import OpticalFlow
from brainnrds.features.optical_flow import _compose, convert_raft_names
from brainnrds.flow import compose_flow, resize_flow, warp

#: What others measured with DIS (medium) and RAFT-small (12 updates), px.
MIDDLEBURY = {
    "Dimetrodon": (0.156, 0.253),
    "Grove2": (0.319, 0.355),
    "Hydrangea": (0.253, 0.314),
    "RubberWhale": (0.225, 0.320),
}


@pytest.fixture(scope="module")
def torchvision():
    """torchvision, also where its compiled part is for another build of torch."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    return torchvision


def _read_pair(folder, name):
    import cv2

    images = [
        cv2.imread(str(folder / "other-data" / name / f"frame{i}.png"))[:, :, ::-1] / 255
        for i in (10, 11)
    ]
    images = [image.transpose(2, 0, 1)[None].astype(np.float32) for image in images]
    raw = (folder / "other-gt-flow" / name / "flow10.flo").read_bytes()
    width, height = np.frombuffer(raw, np.int32, 2, offset=4)
    true = np.frombuffer(raw, np.float32, offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    return *images, true


def _error(flow, true):
    known = (np.abs(true) < 1e8).all(axis=0)
    return np.linalg.norm(flow - true, axis=0)[known].mean()


@pytest.mark.shared_data
@pytest.mark.parametrize("name", MIDDLEBURY)
def test_dis_reaches_its_known_error(shared_data, name):
    first, second, true = _read_pair(shared_data / "middlebury-flow", name)
    flow = OpticalFlow().estimate_pairs(first, second)
    assert flow.shape == (1, *true.shape)
    assert _error(flow[0], true) == pytest.approx(MIDDLEBURY[name][0], abs=0.02)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["RubberWhale"])
def test_raft_small_with_original_weights(shared_data, torchvision, name):
    weights = shared_data / "weights-raft-small" / "raft-small.pth"
    first, second, true = _read_pair(shared_data / "middlebury-flow", name)
    estimator = OpticalFlow(method="raft-small", weights=weights)
    error = _error(estimator.estimate_pairs(first, second)[0], true)
    assert error == pytest.approx(MIDDLEBURY[name][1], abs=0.01)
    again = pickle.loads(pickle.dumps(estimator))  # noqa: S301
    assert "_loaded" not in vars(again)


def _original_name(name):
    """torchvision's name -> the original's, written apart from the code under test."""
    for new, old in [
        ("feature_encoder.conv.", "fnet.conv2."),
        ("context_encoder.conv.", "cnet.conv2."),
        ("feature_encoder.convnormrelu.0.", "fnet.conv1."),
        ("context_encoder.convnormrelu.0.", "cnet.conv1."),
        ("context_encoder.convnormrelu.1.", "cnet.norm1."),
        ("feature_encoder.", "fnet."),
        ("context_encoder.", "cnet."),
        ("update_block.motion_encoder.convcorr1.0.", "update_block.encoder.convc1."),
        ("update_block.motion_encoder.convcorr2.0.", "update_block.encoder.convc2."),
        ("update_block.motion_encoder.convflow1.0.", "update_block.encoder.convf1."),
        ("update_block.motion_encoder.convflow2.0.", "update_block.encoder.convf2."),
        ("update_block.motion_encoder.conv.0.", "update_block.encoder.conv."),
        ("mask_predictor.convrelu.0.", "update_block.mask.0."),
        ("mask_predictor.conv.", "update_block.mask.2."),
    ]:
        name = name.replace(new, old)
    for number in "123":
        name = name.replace(f".convnormrelu{number}.0.", f".conv{number}.")
        name = name.replace(f".convnormrelu{number}.1.", f".norm{number}.")
    for gate in "zrq":
        name = name.replace(f"recurrent_block.convgru1.conv{gate}.", f"gru.conv{gate}1.")
        name = name.replace(f"recurrent_block.convgru2.conv{gate}.", f"gru.conv{gate}2.")
    return f"module.{name}"


def test_names_of_the_large_model_convert_both_ways(torchvision):
    expected = torchvision.models.optical_flow.raft_large(weights=None).state_dict()
    original = {_original_name(name): value for name, value in expected.items()}
    assert "module.cnet.layer2.0.downsample.1.running_mean" in original
    assert "module.update_block.gru.convq2.bias" in original
    # the original lists this module a second time
    original["module.cnet.layer2.0.norm3.weight"] = expected[
        "context_encoder.layer2.0.downsample.1.weight"
    ]
    converted = convert_raft_names(original)
    assert set(converted) == set(expected)
    assert all(torch.equal(converted[name], expected[name]) for name in expected)
    assert convert_raft_names(expected) == expected


def test_wrong_weights_are_refused(torchvision, tmp_path):
    state = torchvision.models.optical_flow.raft_small(weights=None).state_dict()
    del state["feature_encoder.conv.bias"]
    state["surplus"] = torch.zeros(1)
    torch.save(state, tmp_path / "raft.pth")
    pair = np.zeros((1, 3, 128, 128), np.float32)
    with pytest.raises(ValueError, match=r"feature_encoder\.conv\.bias, surplus"):
        OpticalFlow(method="raft-small", weights=tmp_path / "raft.pth").estimate_pairs(pair, pair)
    with pytest.raises(ValueError, match="must be a file"):
        OpticalFlow(method="raft", weights=os.fspath(tmp_path / "no.pth")).estimate_pairs(
            pair, pair
        )
    (tmp_path / "garbage.pth").write_bytes(b"\x00\x95" * 500)
    with pytest.raises(InputError, match=r"garbage\.pth (is truncated|holds pickled)"):
        OpticalFlow(method="raft", weights=tmp_path / "garbage.pth").estimate_pairs(pair, pair)


def test_torchvision_that_does_not_fit_torch_is_named_with_it(monkeypatch, tmp_path):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision.models", Broken("torchvision.models"))
    pair = np.zeros((1, 3, 128, 128), np.float32)
    with pytest.raises(ImportError, match=r"torchvision \S+ does not fit .* torch \d.*nms"):
        OpticalFlow(method="raft", weights=tmp_path / "w.pth").estimate_pairs(pair, pair)


def _moving_clip(n_frames=17, speed=(1.0, -0.5), size=(96, 128)):
    """A textured clip that moves by `speed` px per frame, exactly."""
    random = np.random.default_rng(0)
    texture = sum(
        np.kron(random.random((3, -(-size[0] // k), -(-size[1] // k))), np.ones((k, k)))[
            :, : size[0], : size[1]
        ]
        for k in (4, 8, 16)
    )
    texture = (texture / texture.max()).astype(np.float32)[None]
    frames = []
    for t in range(n_frames):
        back = np.empty((1, 2, *size), np.float32)
        back[:, 0], back[:, 1] = -speed[0] * t, -speed[1] * t
        frames.append(warp(texture, back)[0])
    return np.stack(frames)


def test_flow_is_in_grid_pixels_per_step():
    clip = _moving_clip()
    flow = OpticalFlow(grid=(24, 32), n_steps=2).transform([clip])
    assert flow.shape == (1, 2, 2, 24, 32)
    # 17 frames of 1 px each, in 2 steps, on a quarter of the grid
    inner = flow[0, :, :, 6:-6, 8:-8]
    np.testing.assert_allclose(inner[:, 0].mean(axis=(1, 2)), 17 / 2 / 4, rtol=0.05)
    np.testing.assert_allclose(inner[:, 1].mean(axis=(1, 2)), -0.5 * 17 / 2 / 4, rtol=0.05)


@pytest.mark.parametrize("t_r", [0.72, 0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("n_steps", [1, 3, 5])
def test_steps_last_what_they_say_at_every_repetition_time(monkeypatch, t_r, n_steps):
    """A pan of known px/s, seen by an exact estimator: a step is t_r / n_steps seconds of it."""

    def exact(first, second):
        flow = np.zeros((2, *first.shape[1:]), np.float32)
        flow[0] = (second - first)[0] * 100  # the picture says where it is
        return flow

    monkeypatch.setattr("brainnrds.features.optical_flow._dis_flow", exact)
    extractor = OpticalFlow(grid=(8, 8), n_steps=n_steps)
    times = extractor.frame_times(t_r)
    assert len(times) == round(8 * t_r)
    borders = np.arange(n_steps + 1) * (t_r / n_steps)
    for acceleration in (0.0, 10.0):

        def where(t, acceleration=acceleration):
            return 9.0 * t + acceleration * t**2 / 2

        clip = np.zeros((len(times), 3, 32, 32)) + where(times)[:, None, None, None] / 100
        found = extractor.transform([clip])[0, :, 0].mean(axis=(1, 2)) * 4  # px of the frames
        # motion is taken as even between two frames, two at most apart, and after the last
        slack = acceleration * 1.5 * (t_r / len(times)) ** 2
        np.testing.assert_allclose(found, np.diff(where(borders)), atol=1e-4 + slack)


def test_long_ways_are_composed_of_short_ones():
    clip = _moving_clip(speed=(3.0, 1.0))  # 51 px from the first to the last frame
    errors = {}
    for max_gap in (2, 16):
        flow = OpticalFlow(grid=(24, 32), n_steps=1, max_gap=max_gap).transform([clip])
        inner = flow[0, 0, :, 3:12, 3:12]
        errors[max_gap] = np.abs(4 * inner[0] - 3 * 17).mean()  # px of the frames
    assert errors[2] < 0.1
    assert errors[16] > 40


def test_more_steps_than_frames_and_small_frames():
    clip = _moving_clip(3, (0.5, 0.0), size=(24, 20))
    flow = OpticalFlow(grid=(6, 5), n_steps=4).transform(iter([clip]))
    assert flow.shape == (1, 4, 2, 6, 5)
    np.testing.assert_allclose(flow[0, :, 0, 2:4, 2:4].mean(), 1.5 / 4 / 4, rtol=0.25)


def test_still_clips_do_not_move():
    clip = np.repeat(_moving_clip(1), 5, axis=0)
    assert np.abs(OpticalFlow(grid=(8, 8)).transform(clip[None])).max() < 1e-3


@pytest.mark.parametrize(
    ("parameters", "clips", "match"),
    [
        (dict(method="farneback"), None, "`method` must be one of"),
        (dict(grid=(8,)), None, "`grid` must be"),
        (dict(n_steps=0), None, "`n_steps` must be"),
        (dict(max_gap=0), None, "`max_gap` must be"),
        (dict(batch_size=0), None, "`batch_size` must be"),
        ({}, np.zeros((1, 1, 3, 64, 64)), "at least two frames"),
        ({}, np.full((1, 4, 3, 64, 64), 200.0), "divide 8-bit images by 255"),
        ({}, np.empty((0, 4, 3, 64, 64)), "at least one clip"),
    ],
)
def test_bad_input_is_refused(parameters, clips, match):
    clips = np.zeros((1, 4, 3, 64, 64)) if clips is None else clips
    with pytest.raises(ValueError, match=match):
        OpticalFlow(**parameters).transform(clips)


class _StandIn(torch.nn.Module):
    """In RAFT's place: flow that depends on both images, and how many pairs came at once."""

    def __init__(self):
        super().__init__()
        self.n_pairs = []

    def forward(self, first, second, num_flow_updates):
        self.n_pairs.append(len(first))
        return [torch.nn.functional.avg_pool2d(20 * (first - second)[:, :2], 9, 1, 4)]


@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_batches_fill_across_clips(monkeypatch, batch_size):
    network = _StandIn()
    monkeypatch.setattr("brainnrds.features.optical_flow._load_raft", lambda *_: network)
    clips = [_moving_clip(16, (speed, 0.5), size=(128, 136)) for speed in (0.5, 1, 2, -1, 3)]
    n_read = 0

    def read():
        nonlocal n_read
        for clip in clips:
            n_read += 1
            yield clip
            # beyond the pairs that are estimated: two batches under way, and one clip more
            assert n_read <= -(-(sum(network.n_pairs) + 2 * batch_size) // 8) + 1

    extractor = OpticalFlow(grid=(8, 9), n_steps=3, method="raft", batch_size=batch_size)
    flow = extractor.transform(read())
    full, rest = divmod(8 * len(clips), batch_size)  # 16 frames: 7 pairs of every other, and one
    assert network.n_pairs == [batch_size] * full + [rest] * (rest > 0)
    for clip, found in zip(clips, flow, strict=True):
        images = [torch.from_numpy(2 * image[None] - 1) for image in clip]

        def way(first, second, share, images=images):
            return network(images[first], images[second], 12)[0].numpy() * np.float32(share)

        # a step is 16 / 3 frames; after the last frame motion goes on for one more
        chains = (
            [(0, 2, 1), (2, 4, 1), (4, 6, 2 / 3)],
            [(4, 6, 1 / 3), (6, 8, 1), (8, 10, 1), (10, 12, 1 / 3)],
            [(10, 12, 2 / 3), (12, 14, 1), (14, 15, 2)],
        )
        fields = [reduce(compose_flow, (way(*part) for part in chain))[0] for chain in chains]
        expected = resize_flow(np.stack(fields)[None], (8, 9))[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_clips_of_other_sizes_begin_other_batches(monkeypatch):
    network = _StandIn()
    monkeypatch.setattr("brainnrds.features.optical_flow._load_raft", lambda *_: network)
    clips = [_moving_clip(3, size=size) for size in ((128, 128), (128, 136), (128, 136))]
    extractor = OpticalFlow(grid=(8, 8), n_steps=2, method="raft")
    flow = extractor.transform(clips)
    assert network.n_pairs == [2, 4]
    for clip, found in zip(clips, flow, strict=True):
        np.testing.assert_array_equal(extractor.transform([clip])[0], found)


@pytest.mark.parametrize("size", [(11, 7), (1, 6), (5, 1)])
def test_flow_is_composed_on_the_device_as_elsewhere(size):
    random = np.random.default_rng(2)
    first, second = random.normal(scale=3, size=(2, 2, *size)).astype(np.float32)
    composed = _compose(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(composed, compose_flow(first[None], second[None])[0], atol=1e-5)


def test_an_error_while_reading_is_passed_on():
    def read():
        yield _moving_clip(4)
        raise OSError("the film ends here")

    with pytest.raises(OSError, match="the film ends here"):
        OpticalFlow(grid=(8, 8), batch_size=1).transform(read())


def test_clone_keeps_parameters():
    extractor = clone(OpticalFlow(grid=(8, 9), n_steps=2))
    assert extractor.get_params()["grid"] == (8, 9)


@pytest.mark.gpu
@pytest.mark.shared_data
def test_raft_on_cuda_agrees(shared_data, torchvision):
    weights = shared_data / "weights-raft-small" / "raft-small.pth"
    first, second, _ = _read_pair(shared_data / "middlebury-flow", "RubberWhale")
    flows = [
        OpticalFlow(method="raft-small", weights=weights, device=device).estimate_pairs(
            first, second
        )
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*flows, atol=0.05)
