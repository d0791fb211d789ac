"""The extractor that the page on troubleshooting shows works as it says."""

import importlib.util
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from brainnrds.io import read_clip

PAGE = Path(__file__).resolve().parents[2] / "doc" / "user_guide" / "own_features.py"


def test_own_features_stand_in_the_rows_of_their_volumes(tmp_path):
    spec = importlib.util.spec_from_file_location("own_features", PAGE)
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    film = files("brainnrds.datasets") / "data" / "bunny.mp4"
    data = SimpleNamespace(
        on_screen=np.array([0, 0, -1, 0]), film_times=np.array([0.0, 1.0, 3.0, 0.0]), t_r=1.0,
        clip_duration=1.0, design="continuous",
        film_starts=[0.0], film_durations=[2.0], stim_files=[film],
    )  # fmt: skip
    X, spaces = own.features_of(data, tmp_path)
    expected = [
        read_clip(film, start=start, duration=1.0, fps=4, size=(48, 64)).mean(axis=(0, 2, 3))
        for start in (0.0, 1.0)
    ]
    np.testing.assert_allclose(X[[0, 1, 3]], [*expected, expected[0]], atol=1e-5)
    assert spaces == {"colour": slice(0, 3)} and X.shape == (4, 3) and np.isfinite(X).all()
