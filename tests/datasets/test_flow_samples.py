"""The simulated flow and BOLD are what the docstring says."""

import numpy as np
import pytest

from brainnrds.datasets import make_flow_samples


def test_responses_come_late_from_the_right_source():
    samples = make_flow_samples(n_films=20, snr=2.0, frame_share=0.0, random_state=0)
    assert samples.flow.shape == (1200, 1, 2, 8, 8)
    camera = samples.flow[:, 0].mean(axis=(2, 3))
    corner = samples.flow[:, 0, :, 0, 0]
    for name, source in (("camera", camera), ("patches", corner), ("none", corner)):
        bold = samples.bold[:, samples.regions == name].reshape(20, 60, -1)
        best = []
        for lag in range(6):
            late = bold[:, lag:].reshape(-1, bold.shape[2])
            early = source.reshape(20, 60, 2)[:, : 60 - lag].reshape(-1, 2)
            r = np.corrcoef(late.T, early.T)[: late.shape[1], late.shape[1] :]
            best.append((r**2).sum(axis=1).mean())
        if name == "none":
            assert max(best) < 0.02
        else:
            assert np.argmax(best) in (2, 3) and max(best) > 0.1


def test_frame_features_hold_their_share():
    samples = make_flow_samples(n_films=10, frame_share=2.0, random_state=1)
    truth = np.kron(samples.image_features, np.ones((4, 4)))
    assert np.corrcoef(truth.ravel(), samples.flow.ravel())[0, 1] > 0.9
    again = make_flow_samples(n_films=10, frame_share=2.0, random_state=1)
    np.testing.assert_array_equal(samples.bold, again.bold)
    with pytest.raises(ValueError, match="multiples of 3 patches"):
        make_flow_samples(n_patches=3)
