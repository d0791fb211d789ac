"""Reconstructions of others: matched to clips by number, counted, in order."""

import cv2
import numpy as np
import pytest

from brainnrds.datasets import load_reconstructions
from brainnrds.io import InputError, write_clip


def _clip(index, n_frames=4):
    """Gray level tells the clip; a dot moves, since GIF merges frames that are equal."""
    clip = np.full((n_frames, 3, 32, 48), (index + 1) / 16, dtype=np.float32)
    for frame in range(n_frames):
        clip[frame, :, 4 * frame : 4 * frame + 4, :4] = 1
    return clip


@pytest.mark.parametrize(
    ("pattern", "name", "first"),
    [
        ("mindvideo", "test{}.gif", 1),
        ("neuroclips", "{}.mp4", 0),
        ("mind-animator", "test_{}.gif", 1),
        ("clip-{index}_*.mp4", "clip-{:04d}_best.mp4", 5),
    ],
)
def test_videos_in_the_order_of_their_numbers(tmp_path, pattern, name, first):
    for index in range(12):  # 10 and 11 come after 2 by number, before it by name
        write_clip(tmp_path / name.format(first + index), _clip(index), fps=4)
    found = load_reconstructions(
        tmp_path, n_clips=12, pattern=pattern, first_index=None if first < 2 else first
    )
    assert found.clips.shape == (12, 4, 3, 32, 48)
    levels = found.clips[..., 8:].mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(levels, (np.arange(12) + 1) / 16, atol=0.02)
    np.testing.assert_array_equal(found.initial_frames, found.clips[:, 0])


def test_folders_of_frames(tmp_path):
    for index in range(3):
        (tmp_path / f"{index:03d}").mkdir()
        for frame in range(11):
            image = np.full((20, 30, 3), 20 * frame + index, dtype=np.uint8)
            image[..., 0] = 255  # blue in OpenCV's order
            cv2.imwrite(str(tmp_path / f"{index:03d}" / f"frame{frame}.png"), image)
    found = load_reconstructions(tmp_path, n_clips=3, pattern="frames", size=(10, 15))
    assert found.clips.shape == (3, 11, 3, 10, 15)
    np.testing.assert_allclose(found.clips[2, :, 0, 5, 5] * 255, 20 * np.arange(11) + 2, atol=1)
    np.testing.assert_allclose(found.clips[:, :, 2], 1)


@pytest.mark.parametrize(
    ("numbers", "arguments", "message"),
    [
        ((0, 1, 3), {"n_clips": 4}, r"of each of 4 clips; 1 are missing: 2\."),
        ((0, 1, 2), {"n_clips": 2}, r"there are 1 more, the first is 2"),
        ((1, 2), {"n_clips": 2, "pattern": "x{index}.gif"}, r"must hold files named x\{index\}"),
    ],
)
def test_wrong_counts(tmp_path, numbers, arguments, message):
    for index in numbers:
        write_clip(tmp_path / f"{index}.gif", _clip(index), fps=4)
    with pytest.raises(InputError, match=message):
        load_reconstructions(tmp_path, **arguments)


def test_clips_that_differ(tmp_path):
    write_clip(tmp_path / "0.mp4", _clip(0), fps=4)
    write_clip(tmp_path / "1.mp4", _clip(1, n_frames=6), fps=4)
    with pytest.raises(InputError, match=r"must have the shape of the first"):
        load_reconstructions(tmp_path, n_clips=2, pattern="neuroclips")
    (tmp_path / "01.mp4").write_bytes((tmp_path / "1.mp4").read_bytes())
    with pytest.raises(InputError, match=r"one reconstruction of clip 1; got"):
        load_reconstructions(tmp_path, n_clips=2, pattern="neuroclips")


def test_damaged(tmp_path):
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0.png cannot be read"):
        load_reconstructions(tmp_path, n_clips=1, pattern="{index}.png")
    with pytest.raises(InputError, match="No such directory"):
        load_reconstructions(tmp_path / "none", n_clips=1)
    with pytest.raises(ValueError, match=r"`pattern` must hold \{index\} once"):
        load_reconstructions(tmp_path, n_clips=1, pattern="*.gif")
