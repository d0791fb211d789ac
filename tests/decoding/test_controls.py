"""Controls: permutations are what they say, gains are found where planted and only there."""

import math

import numpy as np
import pytest
from planted import plant_motion
from sklearn.base import clone

from brainnrds.blocks import permutation_blocks, permute_blocks, permute_within_scenes
from brainnrds.decoding import MotionDecoder, compare_lesions, compare_to_controls, mean_flow
from brainnrds.metrics import end_point_error

SMALL = dict(
    n_codes=10, n_bold_channels=32, n_channels=24, n_blocks=2, n_frequencies=2, n_epochs=12,
    batch_size=32, learning_rate=3e-3, random_state=0,
)  # fmt: skip


def _fit(X, y, features, runs, test):
    return MotionDecoder(**SMALL).fit(
        X[~test], y[~test], image_features=features[~test], runs=runs[~test], films=runs[~test]
    )


@pytest.fixture(scope="module")
def planted():
    X, y, features, runs = plant_motion(11, n_runs=9, n_per_run=60)
    return X, y, features, runs, runs >= 5


@pytest.fixture(scope="module")
def decoder(planted):
    return _fit(*planted)


@pytest.fixture(scope="module")
def comparison(planted, decoder):
    X, y, features, runs, test = planted
    return compare_to_controls(
        decoder, X, y, test=test, t_r=2.0, image_features=features, runs=runs, films=runs,
        scenes=np.arange(len(X)) // 5, n_permutations=150, source_size=(120, 160), random_state=0,
        sampled_flow={"noise": np.random.default_rng(0).normal(size=(5, 240, 1, 2, 4, 4))},
        other_flow={"half_truth": 0.5 * y[test]},
    )  # fmt: skip


def test_blocks_are_long_and_stay_in_their_run():
    runs = np.repeat([0, 1], [50, 37])
    films = np.where(np.arange(87) % 50 < 45, runs, -1)
    blocks = permutation_blocks(runs, films, 10)
    # 45 and 37 samples: 4 blocks of 11 with 1 left over, 3 of 12 with 1 left over
    for run, (n, length) in enumerate([(4, 11), (3, 12)]):
        labels = blocks.label[(runs == run) & (blocks.label >= 0)]
        np.testing.assert_array_equal(np.unique(labels, return_counts=True)[1], [length] * n)
    assert blocks.n_movable == 7
    assert blocks.n_orders == pytest.approx(math.factorial(4) * math.factorial(3))
    for order in permute_blocks(blocks, 20, random_state=0):
        np.testing.assert_array_equal(np.sort(order), np.arange(87))
        np.testing.assert_array_equal(runs[order], runs)
        inside = blocks.label >= 0
        np.testing.assert_array_equal(order[~inside], np.flatnonzero(~inside))
        np.testing.assert_array_equal(blocks.offset[order], blocks.offset)


def test_short_runs_share_blocks_only_if_told():
    runs = np.repeat(np.arange(6), 12)
    assert permutation_blocks(runs, runs, 10).n_movable == 0
    assert permutation_blocks(runs, runs, 10, permute_within=np.zeros(72, int)).n_movable == 6


def test_permutations_of_blocks_are_uniform():
    runs = np.zeros(30, int)
    orders = permute_blocks(permutation_blocks(runs, runs, 10), 3000, random_state=0)
    _, counts = np.unique(orders[:, ::10], axis=0, return_counts=True)
    assert len(counts) == 6
    assert (np.abs(counts - 500) < 100).all()


def test_no_block_keeps_its_bold_when_retraining():
    from brainnrds.blocks import exchange_every_block

    runs = np.repeat([0, 1, 2], 31)
    blocks = permutation_blocks(runs, runs, 10)
    for seed in range(10):
        order = exchange_every_block(blocks, seed)
        moved = blocks.label >= 0
        assert (order[moved] != np.arange(93)[moved]).all()
        np.testing.assert_array_equal(np.sort(order), np.arange(93))
        np.testing.assert_array_equal(runs[order], runs)


def test_scenes_keep_their_samples():
    scenes = np.array([0, 0, 0, 1, 1, -1, 2])
    for order in permute_within_scenes(scenes, 20, random_state=0):
        np.testing.assert_array_equal(scenes[order], scenes)
        assert (order[:5] != np.arange(5)).all()
        np.testing.assert_array_equal(order[5:], [5, 6])


def test_gain_is_found_and_every_control_beaten(comparison):
    table, gain = comparison.table, comparison.gain
    controls = table.drop(index=["decoder", "half_truth"])
    assert (table.loc["decoder", "end_point_error_px"] < controls["end_point_error_px"]).all()
    assert gain.loc["all", "gain_px"] > 0 and gain.loc["all", "low"] > 0
    assert gain.loc["all", "p"] < 0.01
    assert gain.loc["all", "n_blocks"] == 12
    assert table.loc["zero_flow", "flow_cosine"] == 0
    assert table.loc["retrained_on_permuted_bold", "gain_px"] < 0.02
    assert table.loc["permuted_bold", "gain_px"] < table.loc["permuted_within_scene", "gain_px"]


def test_table_equals_a_direct_computation(planted, comparison, decoder):
    X, y, features, runs, test = planted
    flow = decoder.predict(X[test], image_features=features[test], runs=runs[test])
    row = comparison.table.loc["decoder"]
    assert row["end_point_error_px"] == pytest.approx(
        end_point_error(flow, y[test], average="clips"), rel=1e-6
    )
    scaled = np.array([160 / 4, 120 / 4])[:, None, None]
    assert row["end_point_error_source_px"] == pytest.approx(
        end_point_error(flow * scaled, y[test] * scaled, average="clips"), rel=1e-5
    )
    image_only = end_point_error(comparison.flow["image_only"], y[test], average="clips")
    assert row["gain_px"] == pytest.approx(image_only - row["end_point_error_px"], abs=1e-6)
    np.testing.assert_allclose(comparison.flow["mean_flow"][0], y[~test].mean(axis=0), atol=1e-6)
    best = comparison.per_clip["best_of_5_noise"]["end_point_error_px"]
    draws = np.random.default_rng(0).normal(size=(5, 240, 1, 2, 4, 4))
    errors = np.linalg.norm(draws - y[test], axis=3).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(best, errors.min(axis=0), rtol=1e-5)


def test_null_is_what_permuted_windows_give(planted, comparison, decoder):
    """One permutation, carried out by hand."""
    X, y, features, runs, test = planted
    blocks = permutation_blocks(runs[test], runs[test], 20)
    order = permute_blocks(blocks, 1, random_state=3)[0]
    from brainnrds.features.delays import delay

    windows = delay(X[test], list(decoder.delays), runs=runs[test])[order]
    # a decoder without delays that reads ready-made windows
    plain = clone(decoder).set_params(delays=(0,))
    plain.__dict__.update({k: v for k, v in vars(decoder).items() if k.endswith("_")})
    n_delays = len(decoder.delays)
    plain.voxels_ = {0: np.arange(windows.shape[1])}
    plain.bold_mean_ = {0: np.tile(decoder.bold_mean_[0], n_delays)}
    plain.bold_scale_ = {0: np.tile(decoder.bold_scale_[0], n_delays)}
    plain.n_features_in_ = windows.shape[1]
    lost = delay(np.ones((test.sum(), 1)), list(decoder.delays), runs=runs[test])[order] == 0
    columns = np.repeat(lost, X.shape[1], axis=1)
    windows[columns] = np.broadcast_to(plain.bold_mean_[0], windows.shape)[columns]
    flow = plain.predict(windows, image_features=features[test])
    swapped = np.concatenate(
        list(
            decoder.predict_swapped(
                X[test],
                np.stack([order, np.arange(test.sum())], axis=1),
                image_features=features[test],
                runs=runs[test],
            )
        )
    )
    np.testing.assert_allclose(swapped, flow, atol=1e-5)


def test_unrelated_bold_has_no_gain(planted):
    X, y, features, runs, test = planted
    X = X.copy()
    for part in (test, ~test):
        X[part] = np.roll(X[part], 60, axis=0)
    comparison = compare_to_controls(
        _fit(X, y, features, runs, test), X, y, test=test, t_r=2.0, image_features=features,
        runs=runs, films=runs, n_permutations=100, retrain_permuted=False, random_state=0,
    )  # fmt: skip
    assert comparison.gain.loc["all", "p"] > 0.01
    assert comparison.gain.loc["all", "low"] < 0


def test_image_only_wins_where_the_frame_tells():
    X, y, features, runs = plant_motion(12, n_runs=8, n_per_run=60, snr=0.05, predictable=1.5)
    test = runs >= 5
    comparison = compare_to_controls(
        _fit(X, y, features, runs, test), X, y, test=test, t_r=2.0, image_features=features,
        runs=runs, films=runs, n_permutations=50, retrain_permuted=False, random_state=0,
    )  # fmt: skip
    errors = comparison.table["end_point_error_px"]
    assert errors["image_only"] < 0.9 * errors["zero_flow"]
    assert errors["image_only"] <= errors["decoder"]


def test_few_blocks_give_no_p(planted, decoder):
    X, y, features, runs, test = planted
    rows = runs < 7  # two test runs: 6 blocks
    comparison = compare_to_controls(
        decoder, X[rows], y[rows], test=test[rows], t_r=2.0, image_features=features[rows],
        runs=runs[rows], films=runs[rows], n_permutations=20, retrain_permuted=False,
    )  # fmt: skip
    assert np.isnan(comparison.gain["p"]).all()
    assert comparison.gain.loc["all", "note"].startswith("no p-value: 6 blocks")


def test_lesions_hurt_where_the_signal_is(planted, decoder):
    X, y, features, runs, test = planted
    noise = np.random.default_rng(0).normal(size=(len(X), 20)).astype(np.float32)
    wide = np.concatenate([X, noise], axis=1)
    rois = {"signal": np.arange(80) < 60, "noise": np.arange(80) >= 60}
    call = dict(test=test, t_r=2.0, image_features=features, runs=runs, films=runs, random_state=0)
    fitted = _fit(wide, y, features, runs, test)
    table = compare_lesions(fitted, wide, y, rois=rois, **call)
    assert table.loc["signal", "loss_px"] > 0.05 and table.loc["signal", "p"] < 0.01
    assert table.loc["noise", "loss_px"] < 0.02
    assert table.loc["noise", "error_only_px"] > table.loc["signal", "error_only_px"]
    only = {"signal": rois["signal"]}
    refitted = compare_lesions(fitted, wide, y, rois=only, refit=True, **call)
    assert refitted.loc["signal", "loss_px"] > 0.05
    assert refitted.loc["signal", "error_only_px"] < refitted.loc["signal", "error_without_px"]


def test_mean_flow_leaves_out_cuts_and_silence():
    y = np.arange(4.0).reshape(4, 1, 1, 1, 1) + np.zeros((4, 1, 2, 2, 2))
    mean = mean_flow(y, films=np.array([0, 0, -1, 0]), has_cut=np.array([0, 1, 0, 0], bool))
    np.testing.assert_array_equal(mean, 1.5)


def test_bad_input_is_refused(planted, decoder):
    X, y, features, runs, test = planted
    call = dict(t_r=2.0, image_features=features, runs=runs, films=runs, n_permutations=2)
    with pytest.raises(ValueError, match="must not split a run"):
        compare_to_controls(decoder, X, y, test=np.arange(len(X)) > 400, **call)
    with pytest.raises(ValueError, match="must not split a film"):
        compare_to_controls(decoder, X, y, test=test, **{**call, "films": runs % 3})
    with pytest.raises(ValueError, match="must not have seen"):
        compare_to_controls(decoder, X, y, test=runs < 5, **call)
    with pytest.raises(ValueError, match="empty mask"):
        compare_to_controls(
            decoder, X, y, test=test, mask=np.zeros((len(X), 1, 4, 4), bool), **call
        )
    with pytest.raises(ValueError, match="no test clip is left"):
        compare_to_controls(decoder, X, y, test=test, has_cut=np.ones(len(X), bool), **call)
    with pytest.raises(ValueError, match="shape of the test samples"):
        compare_to_controls(decoder, X, y, test=test, other_flow={"svd": y[:5]}, **call)
    with pytest.raises(ValueError, match="empty mask"):
        del call["n_permutations"]
        compare_lesions(decoder, X, y, test=test, rois={"V1": np.zeros(60, bool)}, **call)
