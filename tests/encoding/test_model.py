import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainnrds.encoding import VideoEncodingModel
from brainnrds.films import block_folds, film_folds

EXPECTED_FAILURES = {
    "check_methods_subset_invariance": "a delayed sample depends on the samples before it",
    "check_methods_sample_order_invariance": "the order of samples is time",
}
SPACES = {"motion": slice(0, 12), "static": slice(12, 20)}


@parametrize_with_checks([VideoEncodingModel()], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def planted(noise=1.0, n_runs=4, length=70, tail=4, n_voxels=6, seed=0):
    """Responses to delayed features, with known weights (n_delays, n_features, n_voxels)."""
    rng = np.random.default_rng(seed)
    n_samples = n_runs * length
    runs = np.repeat(np.arange(n_runs), length)
    films = np.where(np.arange(n_samples) % length < length - tail, runs, -1)
    X = rng.standard_normal((n_samples, 20)) * rng.uniform(0.1, 10, 20) + rng.normal(size=20)
    weights = np.zeros((3, 20, n_voxels))
    weights[1, :12, : n_voxels // 2] = rng.standard_normal((12, n_voxels // 2))
    weights[2, 12:, n_voxels // 2 :] = rng.standard_normal((8, n_voxels - n_voxels // 2))
    Z = (X - X[films >= 0].mean(0)) / X[films >= 0].std(0)
    y = np.zeros((n_samples, n_voxels))
    for run in range(n_runs):
        rows = np.flatnonzero(runs == run)
        for i_delay, d in enumerate((1, 2, 3)):
            y[rows[d:]] += Z[rows[:-d]] @ weights[i_delay]
    y += noise * rng.standard_normal(y.shape)
    return X, y, runs, films, weights


def test_finds_the_planted_weights():
    X, y, runs, films, weights = planted(noise=0.05)
    model = VideoEncodingModel(SPACES, delays=(1, 2, 3), alphas=np.logspace(-4, 2, 7), n_iter=6)
    model.fit(X, y, runs=runs, films=films)
    found = np.concatenate([model.weights(name) for name in SPACES], axis=1)
    np.testing.assert_allclose(found, weights, atol=0.05)
    assert model.score(X, y, runs=runs, films=films) > 0.99
    # each half of the voxels hears one space only
    assert (model.mixtures_[0, :3] > 0.5).all() and (model.mixtures_[1, 3:] > 0.5).all()


@pytest.mark.parametrize("n_delays", [2, 16])
@pytest.mark.parametrize("solver", ["auto", "himalaya"])
def test_equals_himalaya_called_directly(solver, n_delays):
    # same kernels, same folds, same mixtures and penalties, in float64
    X, y, runs, films, _ = planted()
    delays = tuple(range(1, n_delays + 1))
    model = VideoEncodingModel(
        SPACES, delays=delays, solver=solver, n_iter=5, cv="films", mixture_prior=None
    )
    model.fit(X, y, runs=runs, films=films)
    in_primal = n_delays * 20 < np.sum(films >= 0)
    assert (model.primal_coef_ is not None) == in_primal
    assert model.solver_ == {"auto": "exact"}.get(solver, solver)

    shown = films >= 0
    Z = (X - X[shown].mean(0)) / X[shown].std(0)
    delayed = np.zeros((2, len(X), 0)).tolist()
    kernels = []
    for i_space, columns in enumerate(SPACES.values()):
        parts = []
        for d in delays:
            part = np.zeros((len(X), Z[:, columns].shape[1]))
            for run in np.unique(runs):
                rows = np.flatnonzero(runs == run)
                part[rows[d:]] = Z[rows[: len(rows) - d]][:, columns]
            parts.append(part)
        delayed[i_space] = np.concatenate(parts, axis=1)
        delayed[i_space] -= delayed[i_space][shown].mean(0)
        kernels.append(delayed[i_space] @ delayed[i_space].T / delayed[i_space].shape[1])
    kernels = np.array(kernels)
    share = np.linspace(0, 1, 5)
    mixtures = np.maximum(np.stack([share, 1 - share], axis=1), 1e-5)
    mixtures /= mixtures.sum(1, keepdims=True)
    position = np.cumsum(shown) - 1
    folds = [(position[a], position[b]) for a, b in film_folds(runs, films)]
    offset = y[shown].mean(0)
    deltas, dual, cv_scores = solve_multiple_kernel_ridge_random_search(
        kernels[:, shown][:, :, shown],
        y[shown] - offset,
        n_iter=mixtures,
        alphas=np.asarray(VideoEncodingModel().alphas),
        cv=folds,
        return_weights="dual",
        progress_bar=False,
    )
    expected = np.einsum("kts,kv,sv->tv", kernels[:, :, shown], np.exp(deltas), dual) + offset
    scale = y.std()
    np.testing.assert_allclose(model.predict(X, runs=runs), expected, atol=1e-4 * scale)
    np.testing.assert_allclose(model.cv_scores_, cv_scores, rtol=1e-4)
    np.testing.assert_allclose(
        model.mixtures_ / model.alphas_, np.exp(deltas), atol=2e-5, rtol=1e-3
    )


@pytest.mark.parametrize("delays", [(1, 2), tuple(range(1, 16))])
def test_parts_sum_to_the_prediction(delays):
    X, y, runs, films, _ = planted()
    model = VideoEncodingModel(SPACES, delays=delays, n_iter=4).fit(X, y, runs=runs, films=films)
    parts = model.predict(X, runs=runs, by_feature_space=True)
    assert parts.shape == (2, *y.shape)
    np.testing.assert_allclose(
        parts.sum(0) + model.intercept_, model.predict(X, runs=runs), atol=1e-5
    )
    shares = model.score_map(X, y, runs=runs, films=films, by_feature_space=True)
    np.testing.assert_allclose(
        shares.sum(0), model.score_map(X, y, runs=runs, films=films), atol=1e-5
    )
    # weights per delay give the same prediction
    Z = (X - model.feature_mean_) / model.feature_scale_
    by_hand = np.zeros_like(y)
    for name, columns in SPACES.items():
        for d, weights in zip(delays, model.weights(name), strict=True):
            for run in np.unique(runs):
                rows = np.flatnonzero(runs == run)
                by_hand[rows[d:]] += Z[rows[: len(rows) - d]][:, columns] @ weights
    by_hand += (model.predict(X, runs=runs) - by_hand).mean(0)
    np.testing.assert_allclose(by_hand, model.predict(X, runs=runs), atol=1e-4)


def test_tail_volumes_are_left_out_but_give_context():
    X, y, runs, films, _ = planted()
    tail = films < 0
    model = VideoEncodingModel(n_iter=1)
    reference = model.fit(X, y, runs=runs, films=films).predict(X, runs=runs)
    y_changed, X_changed = y.copy(), X.copy()
    y_changed[tail] = 1e3
    changed = clone(model).fit(X, y_changed, runs=runs, films=films)
    np.testing.assert_array_equal(changed.predict(X, runs=runs), reference)
    assert model.score(X, y, runs=runs, films=films) == changed.score(
        X, y_changed, runs=runs, films=films
    )
    X_changed[tail] = 1e3
    # the tails end their runs: no shown volume looks back at them
    changed = clone(model).fit(X_changed, y, runs=runs, films=films)
    shown = films >= 0
    np.testing.assert_allclose(
        changed.predict(X_changed, runs=runs)[shown], reference[shown], atol=1e-5
    )


@pytest.mark.parametrize("delays", [(1, 2), tuple(range(1, 16))])
def test_pickles_load_without_torch(delays, tmp_path):
    X, y, runs, films, _ = planted()
    model = VideoEncodingModel(SPACES, delays=delays, n_iter=3).fit(X, y, runs=runs, films=films)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.savez(tmp_path / "X.npz", X=X, runs=runs, predictions=model.predict(X, runs=runs))
    code = """if True:
        import pickle, sys
        import numpy as np
        model = pickle.load(open(sys.argv[1] + "/model.pkl", "rb"))
        data = np.load(sys.argv[1] + "/X.npz")
        predictions = model.predict(data["X"], runs=data["runs"])
        np.testing.assert_allclose(predictions, data["predictions"], atol=1e-6)
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_model_from_a_gpu_predicts_without_one():
    X, y, runs, films, _ = planted()
    model = VideoEncodingModel(SPACES, n_iter=2).fit(X, y, runs=runs, films=films)
    expected = model.predict(X, runs=runs)
    model.set_params(device="cuda")
    np.testing.assert_array_equal(model.predict(X, runs=runs), expected)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        model.fit(X, y, runs=runs, films=films)


def test_cross_validate_grid_search_and_pipeline_score_as_by_hand():
    X, y, runs, films, _ = planted()
    films[5::7] = -1  # samples that must be left out of scores, inside runs as well
    labels = {"runs": np.array([f"run {run}" for run in runs]), "films": films}
    splits = list(GroupKFold(4).split(X, groups=runs))

    def by_hand(n_iter):
        model = VideoEncodingModel(SPACES, delays=(1, 2, 3), n_iter=n_iter)
        for train, test in splits:
            model.fit(X[train], y[train], runs=runs[train], films=films[train])
            yield model.score(X[test], y[test], runs=runs[test], films=films[test])

    expected = {n_iter: list(by_hand(n_iter)) for n_iter in (3, 5)}
    model = VideoEncodingModel(SPACES, delays=(1, 2, 3), n_iter=3)
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(model, X, y, cv=splits, params=labels)["test_score"]
        pipeline = make_pipeline(FunctionTransformer(), model)
        in_pipeline = cross_validate(pipeline, X, y, cv=splits, params=labels)["test_score"]
        search = GridSearchCV(pipeline, {"videoencodingmodel__n_iter": [3, 5]}, cv=splits)
        search.fit(X, y, **labels)
    np.testing.assert_array_equal(scores, expected[3])
    np.testing.assert_array_equal(in_pipeline, expected[3])
    for i_fold in range(4):
        found = search.cv_results_[f"split{i_fold}_test_score"]
        np.testing.assert_array_equal(found, [expected[3][i_fold], expected[5][i_fold]])


def test_a_score_without_the_labels_of_the_fit_warns():
    X, y, runs, films, _ = planted()
    model = VideoEncodingModel().fit(X, y, runs=runs, films=films)
    with pytest.warns(UserWarning, match="fitted with films, scored without"):
        model.score(X, y, runs=runs)
    with pytest.raises(ValueError, match="`sample_weight` must be None"):
        model.score(X, y, runs=runs, films=films, sample_weight=np.ones(len(X)))


def test_few_film_groups_are_cut_into_parts():
    X, y, runs, films, _ = planted()
    options = dict(delays=(1, 2), n_iter=2)
    default = VideoEncodingModel(SPACES, **options).fit(X, y, runs=runs, films=films)
    position = np.cumsum(films >= 0) - 1
    for cv, folds in ((None, block_folds(runs, films, gap=2)), ("films", film_folds(runs, films))):
        folds = [(position[train], position[test]) for train, test in folds]
        assert len(folds) == (10 if cv is None else 4)
        model = VideoEncodingModel(SPACES, cv=cv, **options).fit(X, y, runs=runs, films=films)
        by_hand = VideoEncodingModel(SPACES, cv=folds, **options).fit(X, y, runs=runs, films=films)
        np.testing.assert_array_equal(model.cv_scores_, by_hand.cv_scores_)
        assert (cv is None) == np.array_equal(model.cv_scores_, default.cv_scores_)
    halves = np.repeat(np.arange(8), len(X) // 8 + 1)[: len(X)]  # eight films, eight runs
    many = VideoEncodingModel(SPACES, **options).fit(X, y, runs=halves)
    by_film = VideoEncodingModel(SPACES, cv="films", **options).fit(X, y, runs=halves)
    np.testing.assert_array_equal(many.cv_scores_, by_film.cv_scores_)
    clips = np.arange(len(X)) // 10
    many = VideoEncodingModel(SPACES, **options).fit(X, y, runs=clips)
    in_twenty = VideoEncodingModel(SPACES, cv=20, **options).fit(X, y, runs=clips)
    np.testing.assert_array_equal(many.cv_scores_, in_twenty.cv_scores_)


@pytest.mark.parametrize("cv", [2, GroupKFold(2), [(np.arange(140), np.arange(140, 264))]])
def test_inner_cross_validations(cv):
    X, y, runs, films, _ = planted()
    if isinstance(cv, GroupKFold):
        cv = list(cv.split(X[films >= 0], groups=runs[films >= 0]))
    model = VideoEncodingModel(SPACES, cv=cv, n_iter=2).fit(X, y, runs=runs, films=films)
    assert model.solver_ == "exact"
    assert model.score(X, y, runs=runs, films=films) > 0.5


def test_one_film_group_is_split_at_film_borders_with_gaps():
    X, y, _, _, _ = planted(length=60, tail=0)
    runs, films = np.zeros(len(X), int), np.repeat([0, 1, 2], 80)
    delays = (1, 2, 3)
    model = VideoEncodingModel(delays=delays, cv="films").fit(X, y, runs=runs, films=films)
    by_hand = film_folds(runs, films, gap=3)
    assert sum(len(train) + len(test) for train, test in by_hand) == 3 * len(X) - 4 * 3
    same = VideoEncodingModel(delays=delays, cv=by_hand).fit(X, y, runs=runs, films=films)
    np.testing.assert_array_equal(model.cv_scores_, same.cv_scores_)


def test_hyper_gradient_agrees_roughly():
    X, y, runs, films, _ = planted()
    scores = {
        solver: VideoEncodingModel(SPACES, delays=(1, 2, 3), solver=solver, random_state=0)
        .fit(X, y, runs=runs, films=films)
        .score_map(X, y, runs=runs, films=films)
        for solver in ("auto", "hyper_gradient")
    }
    np.testing.assert_allclose(scores["hyper_gradient"], scores["auto"], atol=0.05)


def test_constant_voxels_and_columns_are_handled():
    X, y, runs, films, _ = planted()
    y[:, 2] = 1.5
    X[:, 3] = 7
    model = VideoEncodingModel(SPACES, n_iter=3).fit(X, y, runs=runs, films=films)
    np.testing.assert_allclose(model.predict(X, runs=runs)[:, 2], 1.5, atol=1e-5)
    assert np.isnan(model.score_map(X, y, runs=runs, films=films)[2])
    assert np.isfinite(model.score(X, y, runs=runs, films=films))
    np.testing.assert_allclose(model.weights("motion")[:, 3], 0, atol=1e-10)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"feature_spaces": {"a_b": slice(0, 20)}}, "must be alphanumeric.*'a_b'"),
        ({"feature_spaces": {"a": slice(0, 10)}}, "cover each of the 20 columns"),
        ({"feature_spaces": {"a": slice(0, 12), "b": slice(10, 20)}}, "2 covered more than once"),
        ({"feature_spaces": {"a": slice(0, 25)}}, "must select some of the 20 columns"),
        ({"feature_spaces": {"a": [1, 2]}}, "must be a slice"),
        ({"feature_spaces": ["a"]}, "must be a dict"),
        ({"delays": (1, 70)}, "shorter than every run.*70 volumes"),
        ({"delays": (0.5,)}, "`delays` must be"),
        ({"cv": 5}, "between 2 and the number of film groups, 4; got 5"),
        ({"cv": []}, "not empty"),
        ({"cv": "runs"}, "`cv` must be 'films'"),
        ({"alphas": [0, 1]}, "`alphas` must be finite and above 0"),
        ({"n_iter": 0, "feature_spaces": SPACES}, "`n_iter` must be at least 1"),
        ({"solver": "magic"}, "`solver` must be one of"),
        ({"device": "abacus"}, "`device` must be"),
    ],
)
def test_bad_parameters_are_refused(parameters, match):
    X, y, runs, films, _ = planted()
    with pytest.raises(ValueError, match=match):
        VideoEncodingModel(**parameters).fit(X, y, runs=runs, films=films)


def test_bad_data_are_refused():
    X, y, runs, films, _ = planted()
    constant = X.copy()
    constant[:, 12:] = 3.0
    with pytest.raises(ValueError, match="feature space 'static' must vary"):
        VideoEncodingModel(SPACES).fit(constant, y, runs=runs, films=films)
    with pytest.raises(ValueError, match="must show a film"):
        VideoEncodingModel().fit(X, y, runs=runs, films=np.full(len(X), -1))
    with pytest.raises(ValueError, match="`runs` must have shape"):
        VideoEncodingModel().fit(X, y, runs=runs[:-1])
    with pytest.raises(ValueError, match="`films` must be labels from 0"):
        VideoEncodingModel().fit(X, y, runs=runs, films=films - 1)
    model = VideoEncodingModel(SPACES, n_iter=1).fit(X, y, runs=runs)
    with pytest.raises(ValueError, match="`feature_space` must be one of"):
        model.weights()


@pytest.mark.gpu
@pytest.mark.parametrize("delays", [(1, 2), tuple(range(1, 16))])
@pytest.mark.parametrize("solver", ["auto", "himalaya"])
def test_cuda_equals_cpu(solver, delays):
    X, y, runs, films, _ = planted()
    options = {"delays": delays, "solver": solver, "n_iter": 5, "random_state": 0}
    fitted = [
        VideoEncodingModel(SPACES, device=device, **options).fit(X, y, runs=runs, films=films)
        for device in ("cpu", "cuda")
    ]
    scores = [model.score_map(X, y, runs=runs, films=films) for model in fitted]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    assert isinstance(fitted[1].predict(X, runs=runs), np.ndarray)
