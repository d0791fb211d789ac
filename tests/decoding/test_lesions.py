"""Lesions: what a region carries is lost without it."""

import numpy as np
import pytest
from planted import plant_motion

from brainnrds.decoding import MotionDecoder, compare_lesions

SMALL = dict(
    n_codes=10, n_bold_channels=32, n_channels=24, n_blocks=2, n_epochs=12,
    batch_size=32, learning_rate=3e-3, random_state=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def wide():
    """60 voxels with signal, 20 without."""
    X, y, features, runs = plant_motion(11, n_runs=9, n_per_run=60)
    noise = np.random.default_rng(0).normal(size=(len(X), 20)).astype(np.float32)
    test = runs >= 5
    decoder = MotionDecoder(**SMALL).fit(
        np.hstack([X, noise])[~test],
        y[~test],
        image_features=features[~test],
        runs=runs[~test],
        films=runs[~test],
    )
    call = dict(test=test, t_r=2.0, image_features=features, runs=runs, films=runs, random_state=0)
    return decoder, np.hstack([X, noise]), y, call


ROIS = {"signal": np.arange(80) < 60, "noise": np.arange(80) >= 60}


def test_lesions_hurt_where_the_signal_is(wide):
    decoder, X, y, call = wide
    table = compare_lesions(decoder, X, y, rois=ROIS, **call)
    assert table.loc["signal", "loss_px"] > 0.05 and table.loc["signal", "p"] < 0.01
    assert table.loc["noise", "loss_px"] < 0.02
    assert table.loc["noise", "error_only_px"] > table.loc["signal", "error_only_px"]
    assert (table["converged"] == decoder.converged_).all()


def test_refitted_lesions_know_the_spread_of_trainings(wide):
    decoder, X, y, call = wide
    table = compare_lesions(decoder, X, y, rois=ROIS, refit=True, n_seeds=2, **call)
    signal, noise = table.loc["signal"], table.loc["noise"]
    assert signal["loss_px"] > 0.05 and signal["low"] > 0 and signal["p"] < 0.05
    assert signal["error_only_px"] < signal["error_without_px"]
    assert noise["low"] < 0 and noise["p"] > 0.05
    assert signal["error_px"] == noise["error_px"]


def test_an_empty_region_is_refused(wide):
    decoder, X, y, call = wide
    with pytest.raises(ValueError, match="empty mask"):
        compare_lesions(decoder, X, y, rois={"V1": np.zeros(80, bool)}, **call)
