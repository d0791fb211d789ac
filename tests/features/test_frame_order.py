"""The control without motion: the same extractor on the same pictures."""

import numpy as np
import pytest

from brainnrds.analyses.extract import describe_extractor, extract_features
from brainnrds.features import FrameOrder, Luminance, MotionEnergy, StaticEnergy
from brainnrds.io import InputError, write_clip

RNG = np.random.default_rng(0)


def textures(n_clips, n_frames=12):
    """A texture that drifts to the right by 2 px a frame, another one in each clip."""
    wide = RNG.random((n_clips, 3, 48, 64 + 2 * n_frames)).astype(np.float32)
    steps = [wide[..., 2 * i : 2 * i + 64] for i in range(n_frames)]
    return np.stack(steps[::-1], axis=1)


class LastFrames:
    """The last three frames as they are."""

    fps, size = 10, None

    def transform(self, clips):
        return np.stack([clip[-3:].ravel() for clip in clips])


def test_frozen_is_the_first_frame_repeated():
    clips = textures(4)
    still = np.repeat(clips[:, :1], clips.shape[1], axis=1)
    energy = MotionEnergy()
    expected = energy.transform(still)
    found = FrameOrder(energy, order="frozen").transform(clips)
    np.testing.assert_array_equal(found, expected)
    # all but the first frame are noise: nothing changes; the first is: it does
    noisy = clips.copy()
    noisy[:, 1:] = RNG.random(noisy[:, 1:].shape)
    np.testing.assert_array_equal(FrameOrder(energy).transform(noisy), expected)
    noisy = clips.copy()
    noisy[:, 0] = RNG.random(noisy[:, 0].shape)
    assert np.abs(FrameOrder(energy).transform(noisy) - expected).max() > 0.001


def test_shuffled_has_the_same_pictures_in_another_order():
    clips = textures(6)
    shuffled = [FrameOrder(LastFrames(), order="shuffled")._rearranged(clip) for clip in clips]
    orders = [[int(np.flatnonzero((c == f).all((1, 2, 3)))[0]) for f in s]
              for c, s in zip(clips, shuffled, strict=True)]  # fmt: skip
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    # what does not ask for the order does not change
    light = Luminance()
    mean = light.transform(clips)[:, 0]
    np.testing.assert_allclose(
        FrameOrder(light, order="shuffled").transform(clips)[:, 0], mean, rtol=1e-5
    )


def test_a_clip_has_the_same_order_wherever_it_stands():
    clips = textures(5)
    control = FrameOrder(LastFrames(), order="shuffled")
    together = control.transform(clips)
    np.testing.assert_array_equal(together[2:3], control.transform(clips[2:3]))
    other = FrameOrder(LastFrames(), order="shuffled", random_state=1).transform(clips)
    assert (other != together).any()


def test_motion_is_lost_and_pictures_are_not():
    # which way does it go? by motion energy, linearly, with and without motion
    right = textures(40)
    clips = np.concatenate([right, right[:, ::-1]])
    direction = np.repeat([1.0, -1.0], 40)

    def told(extractor):
        X = extractor.transform(clips)
        X = (X - X.mean(0)) / (X.std(0) + 1e-9)
        train = np.arange(80) % 2 == 0
        kernel = X @ X[train].T
        alpha = np.linalg.solve(kernel[train] + 10 * np.eye(40), direction[train])
        return np.mean(np.sign(kernel[~train] @ alpha) == direction[~train])

    assert told(MotionEnergy()) == 1
    assert 0.2 < told(FrameOrder(MotionEnergy())) < 0.8
    assert 0.2 < told(FrameOrder(MotionEnergy(), order="shuffled")) < 0.8


def test_it_is_extracted_as_its_extractor_is(tmp_path):
    write_clip(tmp_path / "film.mp4", textures(1, 40)[0], fps=10)
    control = FrameOrder(MotionEnergy(fps=10), order="shuffled", random_state=3)
    described = describe_extractor(control)
    assert described["order"] == "shuffled" and described["random_state"] == 3
    assert described["of"] == describe_extractor(MotionEnergy(fps=10))
    found = extract_features(
        [(tmp_path / "film.mp4", np.array([0.0, 1.0, 2.0]), 1.0)],
        {"motion": MotionEnergy(fps=10), "control": control},
        store_dir=tmp_path / "store",
        progress=False,
    )
    assert found["control"][0].shape == found["motion"][0].shape
    assert np.abs(found["control"][0] - found["motion"][0]).max() > 0.001


def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match="`order` must be 'frozen' or 'shuffled'; got 'still'"):
        FrameOrder(StaticEnergy(), order="still").transform(textures(1))
