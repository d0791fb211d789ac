"""Luminance and cuts: closed forms on made-up frames."""

import numpy as np
import pytest

from brainnrds.features import CutScores, Luminance
from brainnrds.flow import cut_scores


def test_luminance_of_flat_colours_and_a_flicker():
    red = np.zeros((4, 3, 8, 8), np.float32)
    red[:, 0] = 1
    flicker = np.zeros((4, 3, 8, 8), np.float32)
    flicker[::2] = 1
    halves = np.zeros((4, 3, 8, 8), np.float32)
    halves[..., :4] = 1
    features = Luminance().transform([red, flicker, halves])
    expected = [[0.2126, 0, 0, 0], [0.5, 0, 1, 0], [0.5, 0.5, 0, 0]]
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert Luminance().transform([red[:1]])[0, 2:].tolist() == [0, 0]


def test_cut_scores_are_the_largest_of_each_clip():
    rng = np.random.default_rng(0)
    clips = rng.random((3, 5, 3, 32, 32)).astype(np.float32)
    clips[0] = clips[0, :1]
    scores = CutScores().transform(clips)
    assert scores.shape == (3, 1) and scores[0, 0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(scores[:, 0], cut_scores(clips).max(axis=1))
