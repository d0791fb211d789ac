"""Frames of clips, decoded once for all who look at them."""

import subprocess
import sys

import numpy as np
import pytest

from brainnrds.analyses.looks import Clips, look, look_into_files, read_files, view_of
from brainnrds.io import write_clip


class Levels:
    """Mean grey level of every frame, 5 a second."""

    fps, size = 5.0, None

    def transform(self, clips):
        return np.stack([clip.mean((1, 2, 3)) for clip in clips])


class Network(Levels):
    """Looks twice at a clip, and is run elsewhere."""

    def frame_times(self, duration):
        return [0.05, duration / 2]

    def frame_preparation(self):
        return corner


def corner(image):
    return image[:8, :10].transpose(2, 0, 1)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 frames at 10 Hz: levels of grey that survive compression."""
    levels = np.arange(40)[:, None, None, None] / 40
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_clip(path, np.broadcast_to(levels, (40, 3, 32, 48)), fps=10)


@pytest.fixture
def job(film):
    extractors = {"levels": Levels(), "first": Network(), "second": Network()}
    views = {name: view_of(extractor, 1.0) for name, extractor in extractors.items()}
    assert views["first"] == views["second"] != views["levels"]
    return Clips(film, np.array([0.0, 1.2]), 1.0, "pyav"), extractors, views


def test_each_gets_the_frames_of_its_moments(job):
    features, frames = look(*job)
    # of the frame that is on screen: 5 a second from the onset
    expected = np.array([[0, 2, 4, 6, 8], [12, 14, 16, 18, 20]])
    np.testing.assert_array_equal(np.round(features["levels"] * 40), expected)
    ((view, seen),) = frames.items()  # two that look alike share one array
    assert view == job[2]["first"] and seen.dtype == np.uint8 and seen.shape == (2, 2, 3, 8, 10)
    levels = np.round(seen.mean((2, 3, 4)) / 255 * 40)
    np.testing.assert_array_equal(levels, [[0, 5], [12, 17]])


def test_files_hold_the_same_and_go_when_they_are_read(job, tmp_path):
    features, frames = look(*job)
    passed, files = look_into_files(job, str(tmp_path), 3)
    np.testing.assert_array_equal(passed["levels"], features["levels"])
    assert len(list(tmp_path.iterdir())) == 1
    for view, read in read_files(files).items():
        np.testing.assert_array_equal(read, frames[view])
    assert not list(tmp_path.iterdir())


def test_a_process_that_decodes_loads_little():
    code = "import sys, brainnrds.analyses.looks; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"sklearn", "pandas", "nibabel", "torch", "bids"} & set(loaded.stdout.split())
