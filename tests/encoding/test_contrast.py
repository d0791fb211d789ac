import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds.encoding import (
    VideoEncodingModel,
    compare_feature_spaces,
    correlation_score,
    difference_significance,
    held_out_predictions,
    models_of,
    select_feature_spaces,
    unique_variance,
    unique_variance_significance,
)

SPACES = {"video": slice(0, 6), "image": slice(6, 10), "audio": slice(10, 13)}


def test_models_follow_from_the_spaces():
    assert models_of(["video"]) == {"video": ["video"]}
    assert models_of(SPACES) == {
        "video": ["video"],
        "image": ["image"],
        "audio": ["audio"],
        "joint": ["video", "image", "audio"],
        "withoutvideo": ["image", "audio"],
        "withoutimage": ["video", "audio"],
        "withoutaudio": ["video", "image"],
    }
    assert models_of(SPACES, control_spaces=["audio"]) == {
        "video": ["video", "audio"],
        "image": ["image", "audio"],
        "joint": ["video", "image", "audio"],
    }
    with pytest.raises(ValueError, match="`control_spaces` must be among"):
        models_of(SPACES, control_spaces=["luminance"])


def test_a_voxel_of_sound_is_video_above_image_without_the_control_and_not_with_it():
    """Sound goes with motion: where only sound is heard, motion predicts, until sound is held."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(8), 150)
    motion, static, sound = rng.standard_normal((3, 1200, 8))
    sound = 0.8 * motion @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 0.6 * sound
    X = np.hstack([motion, static, sound]).astype(np.float32)
    spaces = {"video": slice(0, 8), "image": slice(8, 16), "sound": slice(16, 24)}
    heard = np.repeat(["sound", "video"], 30)
    y = 2 * rng.standard_normal((1200, 60))
    for name, columns in spaces.items():
        signal = X[:, columns] @ rng.normal(size=(8, 60))
        y += (heard == name) * np.roll(signal / signal.std(0), 1, axis=0)

    def wins(controls):
        models = models_of([*spaces] if controls else ["video", "image"], control_spaces=controls)
        held_out = {}
        for name in ("video", "image"):
            chosen, columns = select_feature_spaces(X, spaces, models[name])
            model = VideoEncodingModel(columns, delays=(1,), n_iter=5)
            held_out[name] = held_out_predictions(model, chosen, y, runs=runs, n_folds=4)
        test = difference_significance(
            y, held_out["video"], held_out["image"], t_r=2.0, runs=runs, random_state=0,
            n_permutations=1000,
        )  # fmt: skip
        return (test.p_values < 0.05) & (test.score > 0)

    assert wins([])[heard == "sound"].mean() > 0.9
    beyond = wins(["sound"])
    assert beyond[heard == "sound"].mean() <= 0.1
    assert beyond[heard == "video"].mean() > 0.9


def planted(n_voxels=24):
    """Voxels of video, of image, of both and of nothing, six each."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(4), 120)
    X = rng.standard_normal((480, 13)).astype(np.float32)
    signal = {
        name: X[:, c] @ rng.standard_normal((len(range(13)[c]), n_voxels))
        for name, c in SPACES.items()
    }
    hears = {"video": [1, 0, 1, 0], "image": [0, 1, 1, 0], "audio": [0, 0, 0, 0]}
    y = rng.standard_normal((480, n_voxels)) * 2
    for name, share in hears.items():
        y += np.repeat(share, 6) * signal[name] / signal[name].std(0)
    return X, y.astype(np.float32), runs


def predict(X, y, runs, models):
    held_out = {}
    for name, spaces in models.items():
        columns = np.concatenate([np.arange(13)[SPACES[s]] for s in spaces])
        stops = np.cumsum([len(range(13)[SPACES[s]]) for s in spaces]).tolist()
        starts = [0, *stops[:-1]]
        slices = {s: slice(a, b) for s, a, b in zip(spaces, starts, stops, strict=True)}
        model = VideoEncodingModel(slices, delays=(0,), n_iter=5, random_state=0)
        held_out[name] = held_out_predictions(model, X[:, columns], y, runs=runs)
    return held_out


@pytest.mark.parametrize("names", [["video", "image"], ["video", "image", "audio"]])
def test_comparison_is_made_of_the_public_parts_and_finds_the_planted_spaces(names):
    X, y, runs = planted()
    held_out = predict(X, y, runs, models_of(names))
    options = {"t_r": 2.0, "runs": runs, "random_state": 0, "n_permutations": 1000}
    found = compare_feature_spaces(y, held_out, ceiling=np.full(24, 0.5), **options)
    folds = held_out["video"].folds
    for name, result in held_out.items():
        expected = correlation_score(y, result.predictions, runs=runs, folds=folds)
        np.testing.assert_allclose(found.scores[name], expected)
        np.testing.assert_allclose(found.normalized[name], expected / np.sqrt(0.5))
    difference = difference_significance(y, held_out["video"], held_out["image"], **options)
    np.testing.assert_array_equal(found.tests["difference"].p_values, difference.p_values)
    rest = {"video": "image"} if len(names) == 2 else {"video": "withoutvideo"}
    for space, without in rest.items():
        pair = held_out["joint"], held_out[without]
        expected = unique_variance(y, *(p.predictions for p in pair), runs=runs, folds=folds)
        np.testing.assert_allclose(found.unique[space], expected)
        test = unique_variance_significance(y, *pair, **options)
        np.testing.assert_array_equal(found.unique_tests[space].p_values, test.p_values)
    assert set(found.unique) == set(names)
    significant = {space: test.q_values < 0.05 for space, test in found.unique_tests.items()}
    assert significant["video"][:6].all() and significant["video"][12:18].all()
    assert significant["image"][6:18].all()
    assert significant["image"][:6].sum() + significant["video"][6:12].sum() <= 1
    assert significant.get("audio", np.zeros(24)).sum() <= 1
    # half a film late, the same predictions say nothing
    assert found.scores["video"][:6].min() > 0.2 > np.abs(found.scores["shifted"]).max()


def test_bad_comparisons_are_refused():
    y = np.random.default_rng(0).standard_normal((100, 3))
    held_out = {name: Bunch(predictions=y, folds=np.zeros(100, int)) for name in SPACES}
    with pytest.raises(ValueError, match="`contrast` must be two of the models"):
        compare_feature_spaces(y, held_out, t_r=2.0, contrast=("video", "sound"))
    held_out["joint"] = held_out["video"]
    with pytest.raises(ValueError, match="none without video, image, audio"):
        compare_feature_spaces(y, held_out, t_r=2.0)
    with pytest.raises(ValueError, match="`folds` must say"):
        compare_feature_spaces(y, {"video": y, "image": y}, t_r=2.0)
