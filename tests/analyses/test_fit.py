"""The fit that the App keeps: a model that predicts what it predicted, and maps of its own."""

import nibabel as nib
import numpy as np
import pytest

from brainnrds import VideoEncodingModel, load_runs
from brainnrds.analyses import encode, movie_features
from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.fit import describe_fit, make_model
from brainnrds.analyses.options import EncodeOptions
from brainnrds.encoding import held_out_predictions, response_times, weight_components
from brainnrds.io import InputError, load_json, masker_of

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

QUICK = {"n_iter": 2, "n_permutations": 100, "n_jobs": 1}


@pytest.fixture(scope="module")
def finished(short_movies, tmp_path_factory):
    """A run with a named test film: the kept model made its held-out predictions."""
    folder = tmp_path_factory.mktemp("fit")
    film = load_runs(short_movies.bids_dir, subject="01", verbose=0).film_names[0]
    options = EncodeOptions(test_films=(film,), keep=("model", "predictions"), **QUICK)
    with pytest.warns(UserWarning):
        encode.encode_participant(
            short_movies.bids_dir,
            folder / "out",
            "01",
            options,
            work_dir=folder / "work",
            verbose=0,
        )
    return folder


def _read(folder, name):
    paths = [
        next((folder / "out/sub-01/func").glob(f"*hemi-{hemi}_*_{name}.func.gii")) for hemi in "LR"
    ]
    return np.concatenate([np.array(nib.load(path).agg_data()).T for path in paths]).T, paths[0]


def _kept(folder):
    (path,) = (folder / "out/sub-01/func").glob("*feat-joint_desc-encode_model.h5")
    return VideoEncodingModel.load(path)


def test_the_kept_model_made_the_kept_predictions(short_movies, finished):
    predicted, path = _read(finished, "feat-joint_desc-encode_predictions")
    about = load_json(path.with_name(path.name.replace(".func.gii", ".json")))
    data = load_runs(short_movies.bids_dir, subject="01", verbose=0)
    extractors, _ = make_extractors(EncodeOptions(), "cpu")
    X, _ = movie_features(
        data, extractors, store_dir=finished / "work" / "features", progress=False
    )
    model = _kept(finished)
    expected = model.predict(X, runs=data.runs)
    (film,) = set(about["Film"])
    rows = np.flatnonzero(data.films == data.film_names.index(film))
    assert about["RepetitionTime"] == data.t_r
    np.testing.assert_allclose(about["FilmTime"], data.film_times[rows], atol=1e-4)
    np.testing.assert_allclose(predicted, expected[rows], atol=1e-5)
    assert predicted.std() > 0.01
    # the same as of a fold of its own
    fresh = make_model(EncodeOptions(**QUICK), model.feature_spaces_, model.delays, "cpu")
    alone = held_out_predictions(
        fresh, X, data.bold, runs=data.runs, films=data.groups, test_films=[data.groups[rows[0]]]
    )
    np.testing.assert_allclose(predicted, alone.predictions[rows], atol=1e-5)


def test_shares_sum_to_the_joint_score(finished):
    joint, _ = _read(finished, "feat-joint_stat-r_desc-encode_statmap")
    shares = [
        _read(finished, f"feat-{name}_stat-share_desc-encode_statmap")[0]
        for name in ("video", "image")
    ]
    assert np.isfinite(joint).any()
    # predictions are float32 about their intercept, of which the parts have none
    np.testing.assert_allclose(np.sum(shares, axis=0), joint, atol=1e-3)


def test_maps_of_the_weights_are_the_models(finished):
    model = _kept(finished)
    t_r = model.metadata_["RepetitionTime"]
    for name in model.feature_spaces_:
        score, _ = _read(finished, f"feat-{name}_stat-r_desc-encode_statmap")
        times = response_times(model, name)
        for what in ("peak", "width"):
            shown, _ = _read(finished, f"feat-{name}_stat-{what}_desc-encode_statmap")
            # two blocks give no p-value: voxels are told by their score
            expected = np.where(score > 0.1, times[what] * t_r, np.nan)
            np.testing.assert_allclose(shown, expected, rtol=1e-5)
            assert what == "width" or np.isfinite(shown).any()
        found = weight_components(model, name, voxels=score > 0.1)
        for i, values in enumerate(found.scores, 1):
            shown, _ = _read(finished, f"feat-{name}_stat-component{i}_desc-encode_statmap")
            np.testing.assert_allclose(shown, np.where(values == 0, 0, values), atol=1e-5)
    penalty, _ = _read(finished, "feat-joint_stat-penalty_desc-encode_statmap")
    edge, _ = _read(finished, "feat-joint_stat-penaltyEdge_desc-encode_statmap")
    ends = [model.alphas_ == max(model.alphas), model.alphas_ == min(model.alphas)]
    np.testing.assert_array_equal(np.nan_to_num(edge), 1.0 * ends[0] - 1.0 * ends[1])
    known = np.isfinite(penalty)
    np.testing.assert_allclose(penalty[known], np.log10(model.alphas_)[known], rtol=1e-5)
    image = masker_of(model.metadata_["Grid"]).inverse_transform(score)
    assert sum(len(part) for part in image.data.parts.values()) == model.n_voxels_
    report = (finished / "out/sub-01.html").read_text()
    assert "time to peak" in report.lower() and "Components of the weights, video" in report


def test_nothing_is_kept_where_nothing_is_to_be(short_movies, tmp_path):
    with pytest.raises(InputError, match="--keep must be one of model, predictions; got"):
        EncodeOptions(keep=("weights",))
    options = EncodeOptions(n_folds=2, keep=(), **QUICK)
    with pytest.warns(UserWarning):
        encode.encode_participant(
            short_movies.bids_dir, tmp_path / "out", "01", options, work_dir=tmp_path, verbose=0
        )
    names = " ".join(path.name for path in (tmp_path / "out").rglob("*"))
    assert "stat-share" in names
    assert not any(part in names for part in ("_model", "predictions", "peak", "penalty"))


def test_responses_at_the_last_delay_are_told():
    rng = np.random.default_rng(0)
    runs, X = np.repeat(np.arange(4), 60), rng.normal(size=(240, 5))
    y = np.zeros((240, 30))
    weights = rng.normal(size=(5, 30))
    for run in range(4):
        rows = np.flatnonzero(runs == run)
        y[rows[3:]] = X[rows[:-3]] @ weights
    model = VideoEncodingModel({"video": slice(0, 5)}, delays=(1, 2, 3)).fit(X, y, runs=runs)
    test = type("Test", (), {"q_values": None})
    results = type(
        "Results",
        (),
        {
            "tests": {"video": test, "joint": test},
            "scores": dict.fromkeys(("video", "joint"), np.full(30, 0.5)),
            "voxels": np.ones(30, dtype=bool),
        },
    )
    with pytest.warns(
        UserWarning, match="30 voxels that video predicts .r above .1, not tested.* 6 s"
    ):
        fitted = describe_fit(model, results, 2.0)
    assert fitted.edges["last_delay"] == {"video": 1.0}
    assert fitted.about.startswith("Nothing was tested")
    assert (fitted.peak["video"] == 6).all() and np.isnan(fitted.width["video"]).all()


def test_more_than_two_spaces_get_a_denser_net_of_mixtures():
    """Seven of three spaces hold three beside the corners: their predictions are worse."""
    rng = np.random.default_rng(1)
    n_films, n, width = 6, 100, 10
    films = np.repeat(np.arange(n_films), n)
    X = rng.normal(size=(n_films * n, 3 * width))
    shares = rng.dirichlet([0.5] * 3, size=150)
    weights = rng.normal(size=(3, width, 150)) * np.sqrt(shares.T)[:, None]
    y = X @ weights.reshape(-1, 150) + 8 * rng.normal(size=(len(X), 150))
    spaces = {name: slice(i * width, (i + 1) * width) for i, name in enumerate("abc")}
    train = films < 3
    scores = {}
    for n_iter in (None, 7):
        model = make_model(EncodeOptions(n_iter=n_iter), spaces, [0], "cpu")
        model.fit(X[train], y[train], runs=films[train], films=films[train])
        scores[model.n_iter] = model.score(X[~train], y[~train], runs=films[~train])
    assert list(scores) == [20, 7]
    assert scores[20] > scores[7] + 0.002
    assert make_model(EncodeOptions(), {"a": slice(0, 5), "b": slice(5, 9)}, [0], "cpu").n_iter == 7
