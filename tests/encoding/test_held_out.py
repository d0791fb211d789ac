import tracemalloc
from unittest import mock

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from brainnrds.encoding import (
    VideoEncodingModel,
    correlation_score,
    held_out,
    held_out_predictions,
)
from brainnrds.features import FeatureProjection
from brainnrds.films import film_folds


def labels(*runs):
    """Run and film labels from lists of (film, n_volumes), one list per run."""
    run_labels, film_labels = [], []
    for run, segments in enumerate(runs):
        for film, n_volumes in segments:
            run_labels += [run] * n_volumes
            film_labels += [film] * n_volumes
    return np.array(run_labels), np.array(film_labels)


def data(runs, n_features=6, n_voxels=4, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((len(runs), n_features))
    y = X @ rng.standard_normal((n_features, n_voxels))
    return X, y + noise * rng.standard_normal(y.shape) * np.sqrt(n_features)


def test_predictions_are_those_of_separate_fits():
    runs, films = labels([(0, 40), (-1, 3)], [(1, 40), (-1, 3)], [(2, 50)], [(0, 40)])
    X, y = data(runs)
    model = VideoEncodingModel(delays=(0, 1))
    held_out = held_out_predictions(model, X, y, runs=runs, films=films, by_feature_space=True)
    for fold, test_films in enumerate(([0], [1], [2])):
        test = np.isin(films, test_films)
        test_runs = np.isin(runs, runs[test])
        fitted = VideoEncodingModel(delays=(0, 1)).fit(
            X[~test_runs], y[~test_runs], runs=runs[~test_runs], films=films[~test_runs]
        )
        expected = fitted.predict(X, runs=runs)[test]
        np.testing.assert_allclose(held_out.predictions[test], expected, atol=1e-5)
        assert (held_out.folds[test] == fold).all()
        seen = dict(zip(held_out.films, held_out.trained_on[fold], strict=True))
        assert seen == {film: film not in test_films for film in (0, 1, 2)}
    nowhere = films < 0
    assert np.isnan(held_out.predictions[nowhere]).all()
    assert (held_out.folds[nowhere] == -1).all()
    assert held_out.by_feature_space.shape == (1, *y.shape)
    assert not hasattr(model, "mixtures_")


@pytest.mark.parametrize("method", ["pca", "sparse"])
def test_projection_is_fitted_to_the_training_films_of_each_fold(method):
    runs, films = labels([(0, 40), (-1, 3)], [(1, 40), (-1, 3)], [(2, 50)])
    X, y = data(runs)
    spaces = {"a": slice(0, 4), "b": slice(4, X.shape[1])}
    options = {"delays": (0, 1), "n_iter": 2, "random_state": 0}
    projection = FeatureProjection(3, method=method, random_state=0)
    held_out = held_out_predictions(
        VideoEncodingModel(spaces, **options),
        X,
        y,
        runs=runs,
        films=films,
        by_feature_space=True,
        projection=projection,
    )
    assert held_out.by_feature_space.shape == (2, *y.shape)
    assert not hasattr(projection, "projections_")
    for film in (0, 1, 2):
        # volumes after a film train nothing, but they are context: projected all the same
        fitted = FeatureProjection(3, method=method, feature_spaces=spaces, random_state=0).fit(
            X[(films >= 0) & (films != film)]
        )
        train = runs != film
        model = VideoEncodingModel(fitted.feature_spaces_, standardize=False, **options).fit(
            fitted.transform(X[train]), y[train], runs=runs[train], films=films[train]
        )
        expected = model.predict(fitted.transform(X[runs == film]), runs=runs[runs == film])
        tested = films == film
        np.testing.assert_allclose(
            held_out.predictions[tested], expected[tested[runs == film]], atol=1e-4
        )


def test_all_components_change_nothing():
    runs, films = labels([(0, 40), (-1, 3)], [(1, 40), (-1, 3)], [(2, 50)])
    X, y = data(runs, n_features=150)
    X *= np.geomspace(0.1, 10, 150)
    spaces = {"a": slice(0, 140), "b": slice(140, 150)}
    model = VideoEncodingModel(spaces, delays=(0, 1), n_iter=3, random_state=0)
    # fewer samples than columns: as many components as samples, and the small space as it is
    options = {"runs": runs, "films": films}
    plain = held_out_predictions(model, X, y, **options)
    projected = held_out_predictions(model, X, y, projection=FeatureProjection(140), **options)
    np.testing.assert_allclose(projected.predictions, plain.predictions, atol=1e-3)


def test_a_validation_film_in_every_run_is_the_test_set():
    runs, films = labels(*[[(run, 30), (9, 20)] for run in range(4)])
    X, y = data(runs)
    held_out = held_out_predictions(VideoEncodingModel(), X, y, runs=runs, films=films)
    assert (held_out.folds == np.where(films == 9, 0, -1)).all()
    assert held_out.trained_on.tolist() == [[True] * 4 + [False]]


def test_several_films_in_one_run_are_folds_of_their_own():
    runs, films = labels([(0, 40), (1, 40), (2, 40), (-1, 5)])
    X, y = data(runs)
    held_out = held_out_predictions(VideoEncodingModel(), X, y, runs=runs, films=films)
    assert (held_out.folds == films).all()


def test_voxels_are_shared_between_workers_that_were_asked_for_alone(monkeypatch):
    """On 16 cores without a backend, every fold did its work on the features 16 times."""
    monkeypatch.setattr(joblib.parallel, "cpu_count", lambda: 16)
    runs, films = labels(*[[(i, 20)] for i in range(3)])
    X, y = data(runs, n_voxels=4000)
    model = VideoEncodingModel(delays=(1,), alphas=(1.0,))
    fits = mock.Mock(side_effect=held_out._fit_and_predict)
    monkeypatch.setattr(held_out, "_fit_and_predict", fits)
    alone = held_out_predictions(model, X, y, runs=runs, films=films)
    assert fits.call_count == 3
    with joblib.parallel_config("threading", n_jobs=2):
        shared = held_out_predictions(model, X, y, runs=runs, films=films)
    assert fits.call_count == 3 + 3 * 2
    np.testing.assert_allclose(shared.predictions, alone.predictions, atol=1e-5)


class MeanModel(BaseEstimator):
    """Predicts the mean; makes no copies."""

    def __init__(self, feature_spaces=None):
        self.feature_spaces = feature_spaces

    delays = (0,)

    def fit(self, X, y, *, runs, films):
        self.mean_ = y.mean(0)
        return self

    def predict(self, X, *, runs):
        return np.tile(self.mean_, (len(X), 1))


def test_memory_holds_the_predictions_and_little_more(monkeypatch):
    """Training responses are copied by blocks of voxels, and are gone with their fold."""
    runs = np.repeat(np.arange(5), 100)
    y = np.random.default_rng(0).standard_normal((500, 16000), dtype=np.float32)
    X = np.zeros((500, 2), dtype=np.float32)
    monkeypatch.setattr(held_out, "_BLOCK_BYTES", 4 * 400 * 2000)
    tracemalloc.start()
    try:
        found = held_out_predictions(MeanModel(), X, y, runs=runs, films=runs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.6 * y.nbytes  # with all of the training responses at once it is over 2
    for run in range(5):
        expected = y[runs != run].mean(0)
        np.testing.assert_allclose(found.predictions[runs == run][0], expected, atol=1e-6)


def test_blocks_of_voxels_change_no_prediction(monkeypatch):
    runs = np.repeat(np.arange(3), 40)
    X, y = data(runs, n_voxels=12)
    model = VideoEncodingModel(delays=(0, 1), alphas=(1.0, 100.0))
    whole = held_out_predictions(model, X, y, runs=runs)
    monkeypatch.setattr(held_out, "_BLOCK_BYTES", 0)
    monkeypatch.setattr(held_out, "_FEWEST_VOXELS_PER_BLOCK", 5)
    fits = mock.Mock(side_effect=held_out._fit_and_predict)
    monkeypatch.setattr(held_out, "_fit_and_predict", fits)
    in_blocks = held_out_predictions(model, X, y, runs=runs)
    assert fits.call_count == 3 * 2
    np.testing.assert_allclose(in_blocks.predictions, whole.predictions, atol=1e-5)


def test_folds_are_counted_on_one_line(capsys):
    runs = np.repeat(np.arange(3), 20)
    X, y = data(runs)
    held_out_predictions(MeanModel(), X, y, runs=runs)
    assert capsys.readouterr().err == ""
    held_out_predictions(MeanModel(), X, y, runs=runs, verbose=1)
    told = capsys.readouterr().err
    assert "3/3" in told and "folds" in told and told.count("\n") <= 1


def test_a_fit_for_each_of_many_clips_is_not_begun():
    """Clips of BOLD Moments, each in several runs: it was 1,102 fits by default."""
    runs, films = labels(*[[(i, 6), (i + 1, 6), (i + 2, 6)] for i in range(0, 153, 3)])
    X, y = data(runs)
    model = VideoEncodingModel(delays=(1,), alphas=(1.0,))
    with pytest.raises(ValueError, match=r"`n_folds` \(such as 10\).*over 50 films; got 51,"):
        held_out_predictions(model, X, y, runs=runs, films=films)
    held_out = held_out_predictions(model, X, y, runs=runs, films=films, n_folds=3)
    assert np.unique(held_out.folds).tolist() == [0, 1, 2]


# -- leaks ------------------------------------------------------------------------------------


def changes_with_tested_data(pipeline, X, y, runs, films):
    """Say whether a pipeline's predictions of a film depend on the response to that film.

    Responses to one film are replaced by noise, and so is the second half of the film's features:
    neither may change the predictions of the film's first half.
    """
    rng = np.random.default_rng(1)
    reference = pipeline(X, y, runs, films)
    for film in np.unique(films):
        tested = np.flatnonzero(films == film)
        first_halves = np.concatenate(
            [
                rows[: len(rows) // 2]
                for rows in (tested[runs[tested] == r] for r in np.unique(runs))
            ]
        )
        rest = np.setdiff1d(tested, first_halves)
        for change_y, change_X in ((True, False), (False, True)):
            X_new, y_new = X.copy(), y.copy()
            if change_y:
                y_new[tested] = 10 * rng.standard_normal(y_new[tested].shape)
            if change_X:
                X_new[rest] = 10 * rng.standard_normal(X_new[rest].shape)
            changed = pipeline(X_new, y_new, runs, films)
            if not np.allclose(reference[first_halves], changed[first_halves], atol=1e-5):
                return True
    return False


def honest(X, y, runs, films):
    model = VideoEncodingModel(
        {"a": slice(0, 4), "b": slice(4, 6)}, delays=(0, 1), n_iter=4, random_state=0
    )
    return held_out_predictions(model, X, y, runs=runs, films=films).predictions


def honest_pca(X, y, runs, films):
    model = VideoEncodingModel(
        {"a": slice(0, 4), "b": slice(4, 6)}, delays=(0, 1), n_iter=4, random_state=0
    )
    return held_out_predictions(
        model, X, y, runs=runs, films=films, projection=FeatureProjection(2)
    ).predictions


def leak_in_outer_split(X, y, runs, films):
    """Runs are held out although another run shows the same film."""
    return held_out_predictions(
        VideoEncodingModel(delays=(0, 1)), X, y, runs=runs, films=runs
    ).predictions


def leak_in_penalties(X, y, runs, films):
    """Penalties and mixtures are found on all films, weights on training films."""
    spaces = {"a": slice(0, 4), "b": slice(4, 6)}
    model = VideoEncodingModel(spaces, delays=(0, 1), n_iter=4, random_state=0)
    model.fit(X, y, runs=runs, films=films)
    predictions = np.empty(y.shape)
    for voxel in range(y.shape[1]):
        scaled = X * np.repeat(np.sqrt(model.mixtures_[:, voxel]), (4, 2))
        for train, test in film_folds(runs, films):
            mean, std = scaled[train].mean(0), X[train].std(0)
            Z, Zt = (scaled[train] - mean) / std, (scaled[test] - mean) / std
            gram = Z.T @ Z / 6 + model.alphas_[voxel] * np.eye(6)
            weights = np.linalg.solve(gram, Z.T @ y[train, voxel] / 6)
            predictions[test, voxel] = Zt @ weights
    return predictions


def leak_in_projection(X, y, runs, films):
    """Features are projected on the directions that predict all films."""
    directions = np.linalg.svd(X.T @ y)[0][:, :3]
    return held_out_predictions(
        VideoEncodingModel(delays=(0, 1)), X @ directions, y, runs=runs, films=films
    ).predictions


def leak_in_pca(X, y, runs, films):
    """The projection is fitted to all films, before the split."""
    X = FeatureProjection(2).fit_transform(X)
    return held_out_predictions(
        VideoEncodingModel(delays=(0, 1)), X, y, runs=runs, films=films
    ).predictions


def leak_in_standardisation(X, y, runs, films):
    """Features are whitened with the statistics of all films."""
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(X.T)))
    return held_out_predictions(
        VideoEncodingModel(delays=(0, 1)), X @ whitening.T, y, runs=runs, films=films
    ).predictions


def leak_in_voxel_selection(X, y, runs, films):
    """Voxels are kept by their score on the tested films."""
    predictions = honest(X, y, runs, films)
    scores = correlation_score(y, predictions, runs=runs)
    return np.where(scores >= np.sort(scores)[-2], predictions, 0)


LEAKS = [
    leak_in_outer_split,
    leak_in_pca,
    leak_in_penalties,
    leak_in_projection,
    leak_in_standardisation,
    leak_in_voxel_selection,
]


def leak_data():
    runs, films = labels([(0, 40)], [(1, 40)], [(2, 40)], [(0, 40)])
    X, y = data(runs, noise=2.0, seed=3)
    return X, y, runs, films


@pytest.mark.parametrize("pipeline", [honest, honest_pca])
def test_held_out_predictions_do_not_depend_on_the_tested_films(pipeline):
    assert not changes_with_tested_data(pipeline, *leak_data())


@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_caught(leak):
    assert changes_with_tested_data(leak, *leak_data())
