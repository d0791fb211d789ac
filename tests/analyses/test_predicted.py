"""Another model's predictions: the same samples, the same tests, and what is refused."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from brainnrds import load_runs
from brainnrds.analyses import encode
from brainnrds.analyses.options import EncodeOptions
from brainnrds.analyses.predicted import find_predicted, read_predicted
from brainnrds.io import FeatureFiles, InputError, load_table

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

QUICK = {"n_iter": 1, "n_folds": 2, "n_permutations": 100, "n_jobs": 1, "keep": ()}
T_R = 2.0


def small_data():
    """Two films of 20 s with 8 s of rest after each, 3 voxels."""
    times = np.tile(np.arange(0, 28, T_R), 2)
    return Bunch(
        bold=np.zeros((28, 3)),
        films=np.repeat([0, 1], 14),
        film_times=times,
        film_starts=[0.0, 0.0],
        film_durations=[20.0, 20.0],
        stim_files=["a.mp4", "b.mp4"],
    )


def write(folder, times, values):
    folder.mkdir(exist_ok=True)
    for film in "ab":
        np.save(folder / f"{film}.npy", values)
        np.save(folder / f"{film}_times.npy", times)
    return FeatureFiles(folder)


def test_predictions_stand_at_their_times(tmp_path):
    data, folds = small_data(), np.repeat([0, 1], 14)
    folds[3] = -1
    times = np.arange(-2, 30, 0.5)
    values = np.stack([times, times**2, np.ones(len(times))], axis=1)
    read = read_predicted("x", write(tmp_path / "x", times, values), data, folds)
    expected = np.stack([data.film_times, data.film_times**2, np.ones(28)], axis=1)
    expected[3] = 0
    np.testing.assert_allclose(read.predictions, expected, atol=1e-4)
    assert read.folds is folds
    # a model that says when the film was, with its own lag
    late = read_predicted("x", write(tmp_path / "y", times - 5, values), data, folds, lag=5.0)
    np.testing.assert_allclose(late.predictions, read.predictions, atol=1e-4)
    # between times
    coarse = write(tmp_path / "z", np.array([0.0, 27.0]), np.array([[0.0] * 3, [27.0] * 3]))
    np.testing.assert_allclose(
        read_predicted("x", coarse, data, folds).predictions[4], data.film_times[4], atol=1e-5
    )


def test_rest_after_the_last_prediction_gets_the_mean_and_is_told(tmp_path):
    data, folds = small_data(), np.zeros(28, dtype=int)
    values = np.random.default_rng(0).normal(size=(10, 3))
    files = write(tmp_path / "x", np.arange(0, 20, T_R), values)
    with pytest.warns(UserWarning, match="8 of 28 tested volumes lie after the last prediction"):
        read = read_predicted("x", files, data, folds)
    np.testing.assert_allclose(read.predictions[:10], values, atol=1e-6)
    np.testing.assert_allclose(read.predictions[10:14], [values.mean(0)] * 4, atol=1e-6)


def test_predictions_that_do_not_fit_are_refused(tmp_path):
    data, folds = small_data(), np.zeros(28, dtype=int)
    times = np.arange(0, 30, T_R)
    two = write(tmp_path / "two", times, np.ones((15, 2)))
    with pytest.raises(InputError, match="a column for each of the 3 voxels .* got 2"):
        read_predicted("x", two, data, folds)
    late = write(tmp_path / "late", times + 4, np.ones((15, 3)))
    with pytest.raises(InputError, match="must cover the tested volumes from 0 to 18 s"):
        read_predicted("x", late, data, folds)
    whole = write(tmp_path / "whole", times, np.ones((15, 3)))
    (tmp_path / "whole/b.npy").unlink()
    with pytest.raises(InputError, match="b\\.mp4"):
        read_predicted("x", whole, data, folds)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("tribe", "must be NAME=FOLDER"),
        ("a_b={}", "with a name of letters and digits"),
        ("video={}", "must have a name of its own; got 'video'"),
        ("joint={}", "must have a name of its own; got 'joint'"),
        ("withoutvideo={}", "must have a name of its own"),
        ("tribe={}/nothing", "no such folder"),
    ],
)
def test_names_and_folders_that_cannot_be_are_refused(tmp_path, given, match):
    options = EncodeOptions(predicted=(given.format(tmp_path),))
    with pytest.raises(InputError, match=match):
        find_predicted(options, ["video", "image"])


def test_our_own_predictions_come_back_with_their_scores_and_noise_with_none(
    short_movies, tmp_path
):
    """What went out of one run comes back into another as somebody else's model."""
    how = {"work_dir": tmp_path / "work", "verbose": 0}
    first = EncodeOptions(**{**QUICK, "keep": ("predictions",)})
    encode.encode_participant(short_movies.bids_dir, tmp_path / "one", "01", first, **how)
    (path,) = (tmp_path / "work").rglob("joint.predictions.npy")
    predictions = np.load(path)
    folds = np.load(path.with_name("joint.folds.npy"))
    data = load_runs(short_movies.bids_dir, subject="01", verbose=0)
    rng = np.random.default_rng(0)
    for i, film in enumerate(data.stim_files):
        rows = (data.films == i) & (folds >= 0)
        times, index = np.unique(data.film_times[rows], return_index=True)
        for name, values in (
            ("ours", predictions[rows][index]),
            ("bold", data.bold[rows][index]),
            ("noise", rng.normal(size=(len(times), predictions.shape[1]))),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{film.stem}.npy", values.astype(np.float32))
            np.save(tmp_path / name / f"{film.stem}_times.npy", times - 3)
    given = tuple(f"{name}={tmp_path / name}" for name in ("ours", "bold", "noise"))
    second = EncodeOptions(**QUICK, predicted=given, predicted_lag=3.0)
    result = encode.encode_participant(short_movies.bids_dir, tmp_path / "two", "01", second, **how)
    table = result.table.set_index("model")
    numbers = ["mean_all", "mean_responsive", "median_normalised"]
    # repeats of a film that were averaged with another film before them are one series here
    pd.testing.assert_series_equal(
        table.loc["ours", numbers], table.loc["joint", numbers], check_names=False, atol=2e-3
    )
    assert table.loc["bold", "mean_responsive"] > 0.9 > 0.02 > abs(table.loc["noise", "mean_all"])
    maps = [
        np.array(
            nib.load(next((tmp_path / "two").rglob(f"*hemi-L*feat-{name}_stat-r_*.gii"))).agg_data()
        )
        for name in ("ours", "joint")
    ]
    assert np.nanmedian(np.abs(maps[0] - maps[1])) < 1e-3 < np.nanstd(maps[1])
    assert table.loc["ours", "kind"] == "another's model (r)"
    assert not any("unique to ours" in name for name in table.index)
    encoders = load_table(next((tmp_path / "two").rglob("*encodeEncoders_table.tsv")))
    assert set(encoders.loc[encoders["group"] == "other", "encoder"]) == {"ours", "bold", "noise"}
    assert list((tmp_path / "two").rglob("*feat-ours_stat-r*statmap*"))
