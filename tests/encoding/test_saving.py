"""A saved model predicts what it did, and what is no saved model is refused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from brainnrds.encoding import VideoEncodingModel
from brainnrds.features import FeatureProjection
from brainnrds.io import InputError, load_arrays, save_arrays

SPACES = {"motion": slice(0, 12), "static": slice(12, 20)}


def fitted(delays=(1, 2), **parameters):
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(4), 40)
    X = rng.normal(2, 3, size=(160, 20))
    y = np.roll(X, 1, axis=0)[:, :7] + rng.normal(size=(160, 7))
    model = VideoEncodingModel(SPACES, delays=delays, n_iter=3, **parameters)
    return model.fit(X, y, runs=runs), X, runs


def test_a_loaded_model_is_the_model(tmp_path):
    for delays in ((1, 2), tuple(range(1, 16))):  # the primal form and the dual
        model, X, runs = fitted(delays)
        assert (model.primal_coef_ is None) == (len(delays) > 2)
        path = model.save(tmp_path / "model.h5", metadata={"space": "fsaverage5"})
        loaded = VideoEncodingModel.load(path)
        expected = model.predict(X, runs=runs)
        np.testing.assert_allclose(loaded.predict(X, runs=runs), expected, atol=1e-6)
        parts = model.predict(X, runs=runs, by_feature_space=True)
        np.testing.assert_array_equal(loaded.predict(X, runs=runs, by_feature_space=True), parts)
        for name in SPACES:
            np.testing.assert_array_equal(loaded.weights(name), model.weights(name))
        for name in ("mixtures_", "alphas_", "cv_scores_", "mixture_prior_", "intercept_"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
        assert loaded.metadata_ == {"space": "fsaverage5"}
        assert loaded.feature_spaces_ == model.feature_spaces_
        # it can be fitted again, with the same outcome
        y = model.predict(X, runs=runs)
        again = [m.fit(X, y, runs=runs).predict(X, runs=runs) for m in (loaded, model)]
        np.testing.assert_array_equal(*again)


@pytest.mark.parametrize("method", ["pca", "sparse"])
def test_what_made_the_components_comes_back(tmp_path, method):
    rng = np.random.default_rng(0)
    X = rng.normal(3, 2, size=(160, 40)).astype(np.float32)
    X[:, 5] = 1  # a constant column
    spaces = {"motion": slice(0, 30), "static": slice(30, 40)}
    made = FeatureProjection(12, method=method, feature_spaces=spaces, random_state=0).fit(X[:80])
    y = np.roll(X, 1, axis=0)[:, :7] + rng.normal(size=(160, 7)).astype(np.float32)
    model = VideoEncodingModel(
        made.feature_spaces_, delays=(1, 2), n_iter=3, standardize=False
    ).fit(made.transform(X), y)
    model.projection_ = made
    loaded = VideoEncodingModel.load(model.save(tmp_path / "model.h5"))
    again = loaded.projection_.transform(X)
    np.testing.assert_allclose(again, made.transform(X), atol=1e-5)
    np.testing.assert_allclose(loaded.predict(again), model.predict(made.transform(X)), atol=1e-5)
    assert loaded.projection_.feature_spaces == spaces
    # and once more, from what was loaded
    twice = VideoEncodingModel.load(loaded.save(tmp_path / "again.h5"))
    np.testing.assert_array_equal(twice.projection_.transform(X), again)


def test_half_precision_is_half_the_size_and_close(tmp_path):
    model, X, runs = fitted(tuple(range(1, 16)), alphas=[1e5])  # weights of 1e-5
    whole = model.save(tmp_path / "whole.h5")
    half = model.save(tmp_path / "half.h5", dtype="float16")
    stored = [load_arrays(path)[0]["dual_coef"].nbytes for path in (whole, half)]
    assert stored[0] == 2 * stored[1]
    expected = model.predict(X, runs=runs)
    error = VideoEncodingModel.load(half).predict(X, runs=runs) - expected
    assert 0 < np.abs(error).max() < 1e-3 * expected.std()


def test_what_has_no_words_in_json_is_left_out_and_the_rest_comes_back(tmp_path):
    _, X, runs = fitted()
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(20)])
    model = VideoEncodingModel(
        delays=np.arange(1, 3), cv=KFold(2), random_state=np.random.RandomState(0)
    ).fit(frame, X[:, 0], runs=runs)
    loaded = VideoEncodingModel.load(model.save(tmp_path / "model.h5"))
    assert loaded.cv is None and loaded.random_state is None and loaded.feature_spaces is None
    expected = model.predict(frame, runs=runs)
    assert expected.shape == (160,)  # as it was fitted to one voxel
    np.testing.assert_array_equal(loaded.predict(frame, runs=runs), expected)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"column 0": "other"}), runs=runs)


def test_loading_needs_no_torch(tmp_path):
    model, X, runs = fitted(tuple(range(1, 16)))
    model.save(tmp_path / "model.h5")
    np.savez(tmp_path / "X.npz", X=X, runs=runs, predictions=model.predict(X, runs=runs))
    code = """if True:
        import sys
        import numpy as np
        from brainnrds.encoding import VideoEncodingModel
        data = np.load(sys.argv[1] + "/X.npz")
        model = VideoEncodingModel.load(sys.argv[1] + "/model.h5")
        np.testing.assert_allclose(
            model.predict(data["X"], runs=data["runs"]), data["predictions"], atol=1e-6
        )
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_what_is_no_saved_model_is_refused(tmp_path):
    model, _, _ = fitted()
    path = model.save(tmp_path / "model.h5")
    arrays, about = load_arrays(path)
    save_arrays(tmp_path / "later.h5", arrays, metadata={**about, "Format": 2})
    save_arrays(tmp_path / "other.h5", {"a": np.arange(3)})
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-100])
    for name, match in (
        ("later", "must have format 1 of saved models; got 2, of brainnrds"),
        ("other", "must hold a VideoEncodingModel; got other arrays"),
        ("cut", "must be a whole HDF5 file"),
        ("missing", "not found"),
    ):
        with pytest.raises(InputError, match=match):
            VideoEncodingModel.load(tmp_path / f"{name}.h5")
    with pytest.raises(InputError, match="'float16' or 'float32'; got 'int8'"):
        model.save(tmp_path / "new.h5", dtype="int8")
    with pytest.raises(ValueError, match="not fitted"):
        VideoEncodingModel().save(tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


def projected():
    """A model of components, with what made them."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(160, 40)).astype(np.float32)
    spaces = {"motion": slice(0, 30), "static": slice(30, 40)}
    made = FeatureProjection(12, feature_spaces=spaces).fit(X[:80])
    y = rng.normal(size=(160, 7)).astype(np.float32)
    model = VideoEncodingModel(made.feature_spaces_, delays=(1, 2), n_iter=3, standardize=False)
    model.fit(made.transform(X), y).projection_ = made
    return model


@pytest.mark.parametrize("kind", ["primal", "dual", "projected"])
def test_every_array_is_of_the_model_that_its_description_is_of(tmp_path, kind):
    """Each array in turn is missing, of another size, of another type, or not finite."""
    delays = tuple(range(1, 16)) if kind == "dual" else (1, 2)
    model = projected() if kind == "projected" else fitted(delays)[0]
    path = model.save(tmp_path / "model.h5")
    whole, about = load_arrays(path)
    assert {"primal": "primal_coef", "dual": "X_train", "projected": "projection_matrix0"}[
        kind
    ] in whole
    wrong = [({**whole, "dual_coefs": np.zeros(3)}, "got dual_coefs as well")]
    for name, array in whole.items():
        others = {key: value for key, value in whole.items() if key != name}
        if name not in ("mixture_prior", "projection_matrix1", "projection_offset1"):
            wrong.append((others, "got none|got ..."))
            longer = np.concatenate([array, array[:1]])
            if name != "cv_scores":
                wrong.append(({**others, name: longer}, f"{name} of shape|got \\("))
        wrong.append(({**others, name: array[..., np.newaxis]}, "parts of two models"))
        wrong.append(({**others, name: ["a"] * len(array)}, name))
        if array.dtype.kind == "f" and name not in ("cv_scores", "mixture_prior"):
            for value in (np.nan, np.inf):
                broken = array.copy()
                broken.flat[-1] = value
                if name != "projection_scale":
                    wrong.append(({**others, name: broken}, f"finite {name}; got NaN or inf"))
    assert len(wrong) > 50
    for arrays, match in wrong:
        save_arrays(path, arrays, metadata=about)
        with pytest.raises(InputError, match=match) as refused:
            VideoEncodingModel.load(path)
        assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_a_description_of_another_model_is_refused(tmp_path):
    """Delays, feature spaces, names and sizes say what the coefficients are."""
    path = fitted()[0].save(tmp_path / "model.h5")
    arrays, about = load_arrays(path)
    others = {
        "delays": {"Parameters": {**about["Parameters"], "delays": [1, 2, 3]}},
        "delays twice": {"Parameters": {**about["Parameters"], "delays": [1, 1]}},
        "parameters": {"Parameters": {**about["Parameters"], "surprise": 1}},
        "spaces": {"FeatureSpaces": [["motion", 0, 11, 1], ["static", 11, 20, 1]]},
        "a hole": {"FeatureSpaces": [["motion", 0, 11, 1], ["static", 12, 20, 1]]},
        "one space": {"FeatureSpaces": [["motion", 0, 20, 1]]},
        "spaces in words": {"FeatureSpaces": "motion"},
        "features": {"NumberOfFeatures": 21},
        "voxels": {"NumberOfVoxels": 8},
        "voxels in words": {"NumberOfVoxels": "many"},
        "projection": {"Projection": load_arrays(projected().save(path))[1]["Projection"]},
    }
    for key in set(about) - {"GeneratedBy"}:
        others[f"no {key}"] = {key: None}
    for what, other in others.items():
        described = {k: v for k, v in {**about, **other}.items() if v is not None}
        save_arrays(path, arrays, metadata=described)
        with pytest.raises(InputError) as refused:
            VideoEncodingModel.load(path)
        assert "\n" not in str(refused.value), what


def test_weights_of_another_model_are_refused_though_they_fit(tmp_path):
    """What the file's checksum is for: shapes are equal, and every number is possible."""
    h5py = pytest.importorskip("h5py")
    first, other = fitted()[0], fitted(random_state=1, alphas=[1e3])[0]
    path = first.save(tmp_path / "model.h5")
    for name in ("primal_coef", "offset0", "mixtures", "intercept", "feature_mean"):
        first.save(path)
        with h5py.File(path, "r+") as file:
            value = file[name][()]
            file[name][...] = getattr(other, f"{name}_", value) + np.float32(1e-3)
        with pytest.raises(InputError, match="does not fit its checksum"):
            VideoEncodingModel.load(path)
