"""Predictions of several presentations become one, and parts of the joint model its score."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds import load_runs
from brainnrds.analyses.held_out import average_held_out, shares_of_joint
from brainnrds.encoding import correlation_score


@pytest.fixture(scope="module")
def data(short_movies):
    return load_runs(short_movies.bids_dir, subject="01", repeats="concatenate", verbose=0)


def test_predictions_folds_and_parts_are_averaged_as_responses_are(data):
    folds = np.where(data.films >= 0, data.films % 2, -1)
    predictions = np.where(folds[:, None] < 0, np.nan, data.bold).astype(np.float32)
    parts = np.stack([predictions / 4, 3 * predictions / 4])
    held_out = {"joint": Bunch(predictions=predictions, folds=folds, parts=parts)}
    averaged, merged = average_held_out(data, held_out)
    counted = averaged.films >= 0
    assert counted.sum() < (data.films >= 0).sum()
    joint = merged["joint"]
    np.testing.assert_allclose(joint.predictions[counted], averaged.bold[counted], atol=1e-5)
    np.testing.assert_array_equal(joint.folds[counted], averaged.films[counted] % 2)
    assert (joint.folds[~counted] == -1).all()
    np.testing.assert_allclose(sum(joint.parts), joint.predictions, atol=1e-5)


def test_shares_divide_the_joint_score(data):
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, *data.bold.shape)).astype(np.float32)
    parts[0] += data.bold
    folds = np.where(data.films >= 0, data.films, -1)
    shares = shares_of_joint(data, Bunch(parts=parts, folds=folds), ["video", "noise"])
    expected = correlation_score(data.bold, parts.sum(0), runs=data.runs, folds=folds)
    used = data.voxels
    np.testing.assert_allclose((shares["video"] + shares["noise"])[used], expected[used], atol=1e-5)
    assert np.isnan(shares["video"][~used]).all()
    assert abs(np.nanmean(shares["noise"])) < 0.01 < np.nanmean(shares["video"])
