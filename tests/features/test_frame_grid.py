"""Patch features of a frame against closed forms."""

import numpy as np
import pytest

from brainnrds.features import FrameGrid


def test_colour_and_contrast_are_patch_statistics():
    frame = np.random.default_rng(0).random((3, 16, 24)).astype(np.float32)
    features = FrameGrid(grid=(4, 4)).transform([frame[None]])
    assert features.shape == (1, 8, 4, 4)
    patch = frame[:, 4:8, 6:12]
    luminance = np.tensordot([0.299, 0.587, 0.114], patch, axes=1)
    np.testing.assert_allclose(features[0, :3, 1, 1], patch.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(features[0, 3, 1, 1], luminance.std(), atol=1e-4)


def test_edges_are_told_apart_by_orientation():
    x = np.linspace(0, 1, 32, dtype=np.float32)
    rightward = np.broadcast_to(x, (3, 32, 32))
    downward = np.broadcast_to(x[:, None], (3, 32, 32))
    features = FrameGrid(grid=(2, 2)).transform([rightward[None], downward[None]])[:, 4:]
    assert (features[0].argmax(axis=0) == 0).all()
    assert (features[1].argmax(axis=0) == 2).all()


def test_only_the_first_frame_counts():
    clip = np.random.default_rng(1).random((4, 3, 16, 16)).astype(np.float32)
    extractor = FrameGrid(grid=(2, 2))
    np.testing.assert_array_equal(extractor.transform([clip]), extractor.transform([clip[:1]]))
    with pytest.raises(ValueError, match="at least one clip"):
        extractor.transform([])
