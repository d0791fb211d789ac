"""Controls: permutations are what they say, gains are found where planted and only there."""

import math

import numpy as np
import pytest
from planted import plant_motion
from sklearn.base import clone

from brainnrds.blocks import (
    exchange_between_films,
    permutation_blocks,
    permute_blocks,
    permute_within_scenes,
)
from brainnrds.decoding import (
    MotionDecoder,
    compare_to_controls,
    fit_on_unrelated_bold,
    mean_flow,
    score_flows,
)
from brainnrds.metrics import end_point_error

SMALL = dict(
    n_codes=10, n_bold_channels=32, n_channels=24, n_blocks=2, n_epochs=40,
    batch_size=32, learning_rate=3e-3, patience=5, random_state=0,
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
        other_flow={
            "half_truth": 0.5 * y[test],
            "noise": np.random.default_rng(0).normal(size=(5, 240, 1, 2, 4, 4)),
        },
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


def test_every_sample_gets_the_bold_of_another_film():
    runs = np.repeat([0, 1, 2, 3], [30, 41, 25, 30])
    films = np.repeat([0, 1, 2, 0], [30, 41, 25, 30])  # film 0 is shown twice
    films[[5, 40, 125]] = -1
    orders = [exchange_between_films(runs, films, 10, random_state=seed) for seed in range(10)]
    shown = films != -1
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(126))
        np.testing.assert_array_equal(order[~shown], np.flatnonzero(~shown))
        assert (films[order] != films)[shown].mean() > 0.9
        # neighbours stay neighbours, but where a run ends
        places = order[shown]
        assert (np.diff(places) <= 2).mean() > 0.9 and (np.diff(places) > 0).mean() > 0.9
    assert len({tuple(order) for order in orders}) > 5
    alone = exchange_between_films(np.zeros(40, int), np.zeros(40, int), 15, random_state=0)
    moved = np.abs(alone - np.arange(40))
    assert np.minimum(moved, 40 - moved).min() >= 15
    distinct = exchange_between_films(runs, runs, 10, random_state=0)
    assert (runs[distinct] != runs).all()


def test_scenes_keep_their_samples():
    scenes = np.array([0, 0, 0, 1, 1, -1, 2])
    for order in permute_within_scenes(scenes, 20, random_state=0):
        np.testing.assert_array_equal(scenes[order], scenes)
        assert (order[:5] != np.arange(5)).all()
        np.testing.assert_array_equal(order[5:], [5, 6])


def test_gain_is_found_and_every_control_beaten(comparison):
    table, gain = comparison.table, comparison.gain.loc["all"]
    controls = table.drop(index=["decoder", "half_truth"])
    assert (table.loc["decoder", "end_point_error_px"] < controls["end_point_error_px"]).all()
    assert gain["gain_px"] > 0 and gain["low"] > 0
    assert gain["p"] < 0.01 and gain["p_paired"] < 0.01
    assert gain["n_blocks"] == 12 and gain["n_seeds"] == 2 and gain["n_draws"] == 4
    assert gain["converged"] and gain["supported"] and not gain["note"]
    assert table.loc["zero_flow", "flow_cosine"] == 0
    assert table.loc["unrelated_bold", "gain_px"] == 0
    assert table.loc["permuted_bold", "gain_px"] < table.loc["permuted_within_scene", "gain_px"]


def test_rows_say_which_bold_they_were_decoded_from(planted, comparison, decoder):
    X, y, features, runs, test = planted
    rows = np.flatnonzero(test)
    for name, network in (
        ("permuted_bold", decoder),
        ("unrelated_bold", comparison.fitted["unrelated_bold"][0]),
    ):
        window = comparison.window[name]
        assert (runs[window] != runs[rows]).all() and np.isin(window, rows).all()
        for i in (0, 100, 239):
            own = features.copy()
            own[window[i]] = features[rows[i]]
            flow = network.predict(X, image_features=own, runs=runs)[window[i]]
            np.testing.assert_allclose(comparison.flow[name][i], flow, atol=1e-5)
    seeds = [network.seed_ for network in comparison.fitted["decoder"]]
    assert 2 * seeds == [network.seed_ for network in comparison.fitted["unrelated_bold"]]
    assert seeds[0] == decoder.seed_ and seeds[1] != seeds[0]


def test_the_control_is_the_decoder_given_other_windows(planted, decoder):
    """A training set whose rows were exchanged before is the same control."""
    X, y, features, runs, test = planted
    plain = clone(decoder).set_params(delays=(0,), n_epochs=2, voxel_selection="best", n_voxels=20)
    data = dict(image_features=features[~test], runs=runs[~test], films=runs[~test])
    plain.fit(X[~test], y[~test], **data)
    control = fit_on_unrelated_bold(
        plain, X[~test], y[~test], block_length=20, random_state=5, **data
    )
    order = exchange_between_films(runs[~test], runs[~test], 20, random_state=5)
    expected = clone(plain)
    # mean and scale are those of the training films' own volumes
    expected.fit(X[~test][order], y[~test], **data)
    assert set(control.voxels_[0]) == set(expected.voxels_[0])
    np.testing.assert_allclose(
        control.history_["train_loss"], expected.history_["train_loss"], rtol=0.02
    )


def test_table_equals_a_direct_computation(planted, comparison, decoder):
    X, y, features, runs, test = planted
    flow = decoder.predict(X[test], image_features=features[test], runs=runs[test])
    row = score_flows({"decoder": flow}, y[test], source_size=(120, 160))["decoder"]
    row = {name: values.mean() for name, values in row.items()}
    assert row["end_point_error_px"] == pytest.approx(
        end_point_error(flow, y[test], average="clips"), rel=1e-6
    )
    scaled = np.array([160 / 4, 120 / 4])[:, None, None]
    assert row["end_point_error_source_px"] == pytest.approx(
        end_point_error(flow * scaled, y[test] * scaled, average="clips"), rel=1e-5
    )
    errors = {
        name: np.mean(
            [
                end_point_error(
                    network.predict(X[test], image_features=features[test], runs=runs[test]),
                    y[test],
                    average="clips",
                )
                for network in comparison.fitted[name]
            ]
        )
        for name in ("decoder", "image_only")
    }
    for name, error in errors.items():
        assert comparison.table.loc[name, "end_point_error_px"] == pytest.approx(error, rel=1e-6)
    control = comparison.table.loc["unrelated_bold", "end_point_error_px"]
    gain = comparison.gain.loc["all", "gain_px"]
    assert gain == pytest.approx(control - errors["decoder"], abs=1e-6)
    assert comparison.table.loc["decoder", "gain_px"] == pytest.approx(gain, abs=1e-6)
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
        runs=runs, films=runs, n_permutations=100, n_seeds=1, n_draws=3,
        random_state=0,
    )  # fmt: skip
    assert comparison.gain.loc["all", "p"] > 0.01
    assert comparison.gain.loc["all", "low"] < 0
    assert not comparison.gain["supported"].any()


def test_a_gain_of_training_time_is_not_supported(planted):
    X, y, features, runs, test = planted
    short = MotionDecoder(**{**SMALL, "n_epochs": 3}).fit(
        X[~test], y[~test], image_features=features[~test], runs=runs[~test], films=runs[~test]
    )
    assert not short.converged_
    with pytest.warns(UserWarning, match="brain gain is not supported: training had not ended"):
        comparison = compare_to_controls(
            short, X, y, test=test, t_r=2.0, image_features=features, runs=runs, films=runs,
            n_permutations=100, n_seeds=1, n_draws=2, random_state=0,
        )  # fmt: skip
    gain = comparison.gain.loc["all"]
    assert gain["p"] < 0.05 and not gain["converged"] and not gain["supported"]
    told = "not supported: training had not ended, raise `n_epochs` (--n-epochs): decoder"
    assert gain["note"].startswith(told)


def test_text_labels_and_half_precision_give_the_same_comparison(planted):
    X, y, features, runs, test = planted
    names = np.array([f"film-{run}" for run in runs])
    gains = {}
    for kind, labels, precision in (
        ("numbers", runs, "float32"), ("text", names, "float32"), ("half", runs, "bfloat16"),
    ):  # fmt: skip
        decoder = MotionDecoder(**{**SMALL, "n_epochs": 2}, precision=precision).fit(
            X[~test], y[~test], image_features=features[~test], runs=labels[~test],
            films=labels[~test],
        )  # fmt: skip
        call = dict(t_r=2.0, image_features=features, runs=labels, films=labels, random_state=0)
        call.update(n_permutations=5, n_seeds=1, n_draws=1)
        with pytest.warns(UserWarning, match="not supported"):
            gains[kind] = compare_to_controls(decoder, X, y, test=test, **call).gain["gain_px"]
        with pytest.raises(ValueError, match="must not have seen"):
            compare_to_controls(decoder, X, y, test=~test, **call)
    np.testing.assert_array_equal(gains["numbers"], gains["text"])
    np.testing.assert_allclose(gains["half"], gains["numbers"], atol=0.02)


def test_image_only_wins_where_the_frame_tells():
    X, y, features, runs = plant_motion(12, n_runs=8, n_per_run=60, snr=0.05, predictable=1.5)
    test = runs >= 5
    comparison = compare_to_controls(
        _fit(X, y, features, runs, test), X, y, test=test, t_r=2.0, image_features=features,
        runs=runs, films=runs, n_permutations=50, n_seeds=1, n_draws=1,
        random_state=0,
    )  # fmt: skip
    errors = comparison.table["end_point_error_px"]
    assert errors["image_only"] < 0.9 * errors["zero_flow"]
    assert errors["image_only"] <= errors["decoder"]


def test_few_blocks_give_no_p(planted, decoder):
    X, y, features, runs, test = planted
    rows = runs < 7  # two test runs: 6 blocks
    comparison = compare_to_controls(
        decoder, X[rows], y[rows], test=test[rows], t_r=2.0, image_features=features[rows],
        runs=runs[rows], films=runs[rows], n_permutations=20, n_seeds=1, n_draws=1,
    )  # fmt: skip
    assert np.isnan(comparison.gain["p"]).all()
    assert "no p-value: 6 blocks" in comparison.gain.loc["all", "note"]
    assert np.isnan(comparison.gain["low"]).all()  # one training on each side has no spread


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
    with pytest.raises(ValueError, match="`n_draws` must be an int of at least 1"):
        compare_to_controls(decoder, X, y, test=test, n_draws=0, **call)
