from functools import partial
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from sklearn.utils import Bunch

from brainnrds.encoding import (
    _tested,
    benjamini_hochberg,
    correlation_score,
    explainable_variance,
    parcel_table,
    significance,
    unique_variance,
)
from brainnrds.encoding.significance import _p_values


def with_one_fold(test):
    """The test, with all samples predicted by one model where nothing else is said."""
    return lambda y, *predictions, **options: test(
        y, *predictions, **({"folds": np.zeros(len(y), int)} | options)
    )


prediction_significance = with_one_fold(significance.prediction_significance)
difference_significance = with_one_fold(significance.difference_significance)


def autocorrelated(rng, n_samples, rho):
    """AR(1) noise of unit variance, with one rho for each voxel."""
    noise = rng.standard_normal((n_samples, len(rho)))
    for i in range(1, n_samples):
        noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return noise


def signal_data(n_voxels=30, n_runs=6, length=120, seed=0):
    """First third: both predictions match; second: only the first does; last: none does."""
    rng = np.random.default_rng(seed)
    n_samples = n_runs * length
    runs = np.repeat(np.arange(n_runs), length)
    y, a, b = rng.standard_normal((3, n_samples, n_voxels))
    third = n_voxels // 3
    a[:, : 2 * third] += 0.6 * y[:, : 2 * third]
    b[:, :third] += 0.6 * y[:, :third]
    return y, a, b, runs


# -- blocks ------------------------------------------------------------------------------------


def test_default_blocks_follow_the_autocorrelation():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.standard_normal((75, 20)), 20, axis=0)
    y, prediction = slow + 0.1 * rng.standard_normal(slow.shape), slow
    white = prediction_significance(*rng.standard_normal((2, 1500, 20)), t_r=2.0, random_state=0)
    assert white.block_duration == 40
    smooth = prediction_significance(y, prediction, t_r=2.0, random_state=0)
    assert smooth.block_duration > 100


# -- tests -------------------------------------------------------------------------------------


def test_scores_are_the_reported_ones():
    y, a, b, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "folds": runs, "n_permutations": 200}
    score_a, score_b = (correlation_score(y, p, runs=runs, folds=runs) for p in (a, b))
    np.testing.assert_allclose(prediction_significance(y, a, **options).score, score_a)
    np.testing.assert_allclose(difference_significance(y, a, b, **options).score, score_a - score_b)


def test_differences_are_antisymmetric():
    y, a, b, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "folds": runs, "random_state": 0}
    one, other = (
        difference_significance(y, a, b, **options),
        difference_significance(y, b, a, **options),
    )
    np.testing.assert_allclose(one.score, -other.score)
    np.testing.assert_allclose(one.p_values, other.p_values, rtol=1e-6)


def test_planted_effects_are_found_and_no_others():
    y, a, b, runs = signal_data(n_voxels=60)
    options = {"t_r": 2.0, "runs": runs, "folds": runs, "random_state": 0}
    single = prediction_significance(y, a, **options)
    difference = difference_significance(y, a, b, **options)
    assert (single.q_values[:40] < 0.01).all() and (single.p_max[:40] < 0.05).all()
    assert (difference.q_values[20:40] < 0.01).all()
    assert (difference.score[20:40] > 0).all()
    assert (single.q_values[40:] < 0.05).mean() < 0.1
    assert (difference.q_values[:20] < 0.05).mean() < 0.1
    assert single.reason is None and single.n_blocks == 36


def test_difference_equals_exact_sign_flips():
    # 12 blocks in one fold: all 4096 sign patterns, by hand
    y, a, b, runs = signal_data(n_runs=3, length=80, n_voxels=12, seed=4)
    test = difference_significance(
        y, a, b, t_r=2.0, runs=runs, block_duration=40, n_permutations=20000, random_state=0
    )
    assert test.n_blocks == 12 and test.null_inflation == 1
    centred = [
        np.concatenate([s[runs == r] - s[runs == r].mean(0) for r in range(3)]) for s in (y, a, b)
    ]
    y_c, a_c, b_c = centred[0], centred[1] / centred[1].std(0), centred[2] / centred[2].std(0)
    sums = (y_c * (a_c - b_c)).reshape(12, 20, 12).sum(1)
    signs = np.array(list(product([1, -1], repeat=12)))
    null = signs @ sums
    exact = np.mean(np.abs(null) >= np.abs(sums.sum(0)) - 1e-9, axis=0)
    large = exact > 0.01
    np.testing.assert_allclose(
        test.p_values[large], exact[large], atol=4 * np.sqrt(0.25 / 20000), rtol=0.1
    )
    assert (test.p_values[~large] < 0.015).all()


def test_one_model_equals_exact_block_permutations():
    # 3 films of 4 blocks: all 24^3 orders, by hand
    rng = np.random.default_rng(0)
    y, prediction = rng.standard_normal((2, 120, 8))
    prediction += 0.2 * y
    runs = np.repeat([0, 1, 2], 40)
    test = prediction_significance(
        y, prediction, t_r=4.0, runs=runs, block_duration=40, n_permutations=20000, random_state=0
    )
    assert test.n_blocks == 12
    y_c, p_c = (
        np.concatenate([s[runs == r] - s[runs == r].mean(0) for r in range(3)])
        for s in (y, prediction)
    )
    orders = np.array(list(permutations(range(4))))
    per_film = []
    for r in range(3):
        y_b, p_b = (s[runs == r].reshape(4, 10, 8) for s in (y_c, p_c))
        per_film.append(np.array([np.sum(y_b[o] * p_b, axis=(0, 1)) for o in orders]))
    null = sum(
        film.reshape([-1 if i == r else 1 for i in range(3)] + [8])
        for r, film in enumerate(per_film)
    ).reshape(-1, 8)
    exact = np.mean(null >= null[0] - 1e-9, axis=0)
    np.testing.assert_allclose(test.p_values, exact, atol=4 * np.sqrt(0.25 / 20000), rtol=0.1)


def test_fewer_than_12_blocks_have_no_p_values():
    y, a, b, runs = signal_data(n_runs=2, length=110)
    for test in (
        prediction_significance(y, a, t_r=2.0, runs=runs),
        difference_significance(y, a, b, t_r=2.0, runs=runs),
    ):
        assert test.p_values is None and test.q_values is None and test.p_max is None
        assert test.reason == "no p-values: 10 blocks of 40 s, and a test needs at least 12"
        assert np.isfinite(test.score).all()


def test_voxels_share_nothing_but_the_estimate_of_dependence():
    y, a, b, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "folds": runs, "block_duration": 40, "random_state": 0}
    all_voxels = difference_significance(y, a, b, **options)
    few = difference_significance(y[:, 5:9], a[:, 5:9], b[:, 5:9], **options)
    np.testing.assert_allclose(few.z, all_voxels.z[5:9], rtol=0.05)
    assert few.dependence_inflation != all_voxels.dependence_inflation


def test_constant_voxels_and_predictions():
    y, a, b, runs = signal_data()
    y[:, 0], a[:, 1], b[:, 1] = 2.0, 0.0, 0.0
    single = prediction_significance(y, a, t_r=2.0, runs=runs)
    difference = difference_significance(y, a, b, t_r=2.0, runs=runs)
    for test in (single, difference):
        assert np.isnan(test.p_values[0]) and np.isnan(test.q_values[0]) and np.isnan(test.p_max[0])
        assert np.isfinite(test.p_values[1:]).all()
        assert test.p_values[1] > 0.4


@pytest.mark.parametrize("length", [20, 40])
def test_short_films_take_part_with_random_signs(length):
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(16), length)
    y, prediction = rng.standard_normal((2, len(runs), 200))
    options = {"t_r": 2.0, "runs": runs, "random_state": 0}
    test = prediction_significance(y, prediction, **options)
    assert test.n_blocks == 16 * length // 20
    assert 0.02 < np.mean(test.p_values < 0.05) < 0.09
    found = prediction_significance(y, y + prediction, **options)
    assert (found.p_values < 0.001).all()
    # and where folds that train each other double the variance under the null hypothesis
    found = prediction_significance(y, y + prediction, **options, folds=runs)
    assert (found.p_values < 0.01).all() and (found.q_values < 0.01).all()


def test_twelve_blocks_are_enough():
    rates = []
    for seed in range(10):
        rng = np.random.default_rng([21, seed])
        films = np.repeat(np.arange(3), 80)
        y, a, b = (
            np.concatenate([autocorrelated(rng, 80, np.full(300, rho)) for _ in range(3)])
            for rho in (0.4, 0.7, 0.7)
        )
        options = {"t_r": 2.0, "runs": films, "n_permutations": 1000, "random_state": seed}
        tests = (
            prediction_significance(y, a, **options),
            difference_significance(y, a, b, **options),
        )
        assert tests[0].n_blocks == 12
        rates.append([np.mean(test.p_values < 0.05) for test in tests])
    assert (0.035 < np.mean(rates, 0)).all() and (np.mean(rates, 0) < 0.065).all()


def test_slow_voxels_among_fast_ones():
    """One number for all voxels left slow ones with a variance of z of 1.3 to 1.5."""
    squares = {"slow": [], "fast": []}
    for seed in range(12):
        rng = np.random.default_rng([12, seed])
        films = np.repeat(np.arange(6), 240)
        rho = np.repeat([0.95, 0.3], [20, 180])
        y, a, b = (
            np.concatenate([autocorrelated(rng, 240, slow) for _ in range(6)])
            for slow in (rho, np.full(200, 0.95), np.full(200, 0.95))
        )
        options = {"t_r": 2.0, "runs": films, "n_permutations": 200, "random_state": seed}
        for test in (
            prediction_significance(y, a, **options),
            difference_significance(y, a, b, **options),
        ):
            squares["slow"].append(test.z[:20] ** 2)
            squares["fast"].append(test.z[20:] ** 2)
    assert 0.8 < np.mean(squares["slow"]) < 1.2
    assert 0.8 < np.mean(squares["fast"]) < 1.1


@pytest.mark.parametrize(("length", "rho"), [(5, 0.9), (10, 0.6), (40, 0.9)])
def test_short_films_of_one_run_are_not_independent(length, rho):
    """One sign each broke what ties them: the variance of z was 1.3, 1.16 and 1.19."""
    z = []
    for seed in range(20):
        rng = np.random.default_rng([6, seed, length])
        runs = np.repeat(np.arange(6), 160)
        films = np.arange(960) // length
        y, prediction = (
            np.concatenate([autocorrelated(rng, 160, np.full(200, slow)) for _ in range(6)])
            for slow in (rho, 0.9)
        )
        test = prediction_significance(
            y, prediction, t_r=2.0, runs=runs, films=films, folds=runs * 0, n_permutations=200,
            random_state=seed,
        )  # fmt: skip
        z.append(test.z)
    assert 0.9 < np.mean(np.square(z)) < 1.1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"t_r": 0}, "`t_r` must be positive"),
        ({"n_permutations": 10}, "at least 100"),
        ({"runs": np.zeros(3, int)}, "`runs` must have shape"),
        ({"folds": np.full(720, -1)}, "got none"),
    ],
)
def test_bad_input_is_refused(change, match):
    y, a, _, runs = signal_data()
    with pytest.raises(ValueError, match=match):
        prediction_significance(y, a, **({"t_r": 2.0, "runs": runs} | change))
    with pytest.raises(ValueError, match="must have the shape of `y`"):
        prediction_significance(y, a[:, :3], t_r=2.0, runs=runs)


# -- the null distribution ---------------------------------------------------------------------


def test_refined_p_values_equal_many_permutations():
    # tail of a sum of 30 signed blocks: 2000 sign flips with the fit against 4 million without
    rng = np.random.default_rng(0)
    sums = rng.standard_normal(30)
    scale = np.sqrt(np.sum(sums**2))
    many = np.concatenate(
        [rng.choice([-1.0, 1.0], size=(200_000, 30)) @ sums / scale for _ in range(20)]
    )
    for z in (3.0, 3.5, 4.0):
        expected = np.mean(np.abs(many) >= z)
        fitted = []
        for _ in range(20):
            few = np.abs(rng.choice([-1.0, 1.0], size=(2000, 30)) @ sums / scale)[:, None]
            few[0] = z
            fitted.append(_p_values(few)[0])
        # close above 1e-4, and beyond too large rather than too small
        assert expected / 2 < np.median(fitted) < 4 * expected + 3e-5, z


def test_refinement_leaves_large_p_values_alone():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1000, 50))
    counted = np.mean(z >= z[0], axis=0)
    refined = _p_values(z)
    np.testing.assert_allclose(refined[counted >= 0.01], counted[counted >= 0.01])
    assert (refined > 0).all()


def test_smallest_p_is_stated():
    y, a, b, runs = signal_data()
    perfect = prediction_significance(y, y, t_r=2.0, runs=runs, n_permutations=500)
    assert perfect.smallest_p == 1e-3 / 500
    assert perfect.p_values.min() >= perfect.smallest_p
    # films of two blocks have two orders and two signs each
    films = np.repeat(np.arange(6), 40)
    y = np.random.default_rng(0).standard_normal((240, 3))
    pairs = prediction_significance(y, y, t_r=2.0, runs=films, films=films, n_permutations=500)
    assert pairs.n_blocks == 12
    assert pairs.smallest_p == pytest.approx(4.0**-6)
    assert pairs.p_values.min() >= pairs.smallest_p


def test_false_discovery_rates_by_hand():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5])
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


# -- variance, parcels, groups -----------------------------------------------------------------


# -- what must not pass silently ---------------------------------------------------------------


def test_folds_come_with_the_predictions_or_are_asked_for():
    y, a, b, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "random_state": 0}
    for test in (significance.prediction_significance, parcels_of_all):
        with pytest.raises(ValueError, match="`folds` must say"):
            test(y, a, **options)
    held_out = [Bunch(predictions=p, folds=runs) for p in (a, b)]
    carried = significance.difference_significance(y, *held_out, **options)
    given = significance.difference_significance(y, a, b, folds=runs, **options)
    assert carried.null_inflation == given.null_inflation == pytest.approx(2)
    np.testing.assert_array_equal(carried.p_values, given.p_values)
    held_out[1].folds = runs[::-1]
    with pytest.raises(ValueError, match="the same `folds`"):
        significance.difference_significance(y, *held_out, **options)


def parcels_of_all(y, predictions, *, random_state, **options):
    return parcel_table(y, {"a": predictions}, np.ones(y.shape[1], int), **options)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_voxels_with_holes_are_refused_by_number(hole):
    y, a, _, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "folds": np.where(np.arange(len(y)) < 5, -1, 0)}
    y[2, 3] = a[2, 4] = hole  # not tested: no harm
    assert np.isfinite(significance.prediction_significance(y, a, **options).p_values).all()
    for array in (y, a):
        kept = array[100, 7]
        array[100, 7] = hole
        for test in (significance.prediction_significance, parcels_of_all):
            with pytest.raises(ValueError, match="in 1 of 30 voxels, the first 7"):
                test(y, a, **options | {"random_state": 0})
        array[100, 7] = kept


def test_films_that_are_tested_twice_are_refused():
    y, a, b, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "folds": np.zeros(len(y), int), "random_state": 0}
    twice = {"films": runs // 2}
    for test in (significance.prediction_significance, parcels_of_all):
        with pytest.raises(ValueError, match="2 presentations of film 0.*average them first"):
            test(y, a, **options | twice)
    in_one_run = {"films": np.repeat([0, 1, 0, 1, 2, 3], 120), "runs": np.zeros(len(y), int)}
    with pytest.raises(ValueError, match="2 presentations of film 0"):
        significance.difference_significance(y, a, b, **options | in_one_run)
    # the second showing is not tested, or a film has a gap
    films = np.where(runs == 1, 0, runs)
    once = {"films": films, "folds": np.where(runs == 1, -1, 0)}
    significance.prediction_significance(y, a, **options | once)


# -- what one space adds, what repeats share ---------------------------------------------------


def test_unique_variance_is_significant_where_a_space_adds_something():
    y, a, b, runs = signal_data(n_voxels=60)
    options = {"t_r": 2.0, "runs": runs, "folds": np.zeros(len(y), int), "random_state": 0}
    # b knows the first third; joint adds a, which knows the first two thirds
    without = 0.5 * b
    test = significance.unique_variance_significance(y, without + 0.3 * a, without, **options)
    np.testing.assert_allclose(
        test.score, unique_variance(y, without + 0.3 * a, without, runs=runs)
    )
    assert (test.q_values[20:40] < 0.01).all()
    noise = np.random.default_rng(1).standard_normal(y.shape)
    worse = significance.unique_variance_significance(y, without + noise, without, **options)
    assert (worse.score < 0).all()
    assert 0.01 < np.mean(worse.p_values < 0.1) < 0.25


def test_unique_variance_equals_exact_sign_flips():
    y, a, b, runs = signal_data(n_runs=3, length=80, n_voxels=12, seed=4)
    options = {"t_r": 2.0, "runs": runs, "folds": np.zeros(len(y), int), "random_state": 0}
    options |= {"block_duration": 40, "n_permutations": 20000}
    test = significance.unique_variance_significance(y, a, b, **options)
    y_c, a_c, b_c = (
        np.concatenate([s[runs == r] - s[runs == r].mean(0) for r in range(3)]) for s in (y, a, b)
    )
    beyond = a_c - b_c * np.sum(a_c * b_c, axis=0) / np.sum(b_c**2, axis=0)
    sums = (y_c * beyond).reshape(12, 20, 12).sum(1)
    pair = np.linalg.lstsq(np.stack([a_c[:, 0], b_c[:, 0]], axis=1), y_c[:, 0])[0]
    np.testing.assert_allclose(sums[:, 0].sum() / np.sum(beyond[:, 0] ** 2), pair[0])
    null = np.array(list(product([1, -1], repeat=12))) @ sums
    exact = np.mean(null >= sums.sum(0) - 1e-9, axis=0)
    if test.dependence_inflation == 1:
        np.testing.assert_allclose(test.p_values, exact, atol=0.02)


def test_repeats_that_share_nothing_are_not_responsive():
    rng = np.random.default_rng(0)
    below, n_sets = [], 12
    for _ in range(n_sets):
        slow = lfilter([1], [1, -0.5], rng.standard_normal((3, 240, 100)), axis=1)
        short = lfilter([1], [1, -0.5], rng.standard_normal((2, 130, 100)), axis=1)
        test = significance.explainable_variance_significance(
            [slow, short], t_r=2.0, n_permutations=500, random_state=0
        )
        below.append(np.mean(test.p_values < 0.05))
    assert test.n_blocks == 18
    assert 0.03 < np.mean(below) < 0.07
    slow[:, :, :50] += 0.8 * rng.standard_normal((240, 50))
    test = significance.explainable_variance_significance([slow, short], t_r=2.0, random_state=0)
    np.testing.assert_array_equal(test.score, explainable_variance([slow, short]))
    assert np.mean(test.q_values[:50] < 0.05) > 0.95
    assert np.mean(test.q_values[50:] < 0.05) < 0.1


def all_tests():
    """Each of the tests, of data where some voxels respond: dict of callables."""
    y, a, b, runs = signal_data()
    repeats = a[:240].reshape(2, 120, -1) + np.random.default_rng(1).standard_normal(
        (3, 2, 120, 30)
    )
    how = {"t_r": 2.0, "n_permutations": 300, "random_state": 0, "block_duration": 40}
    return {
        "match": partial(prediction_significance, y, a, runs=runs, **how),
        "difference": partial(difference_significance, y, a, b, runs=runs, **how),
        "unique": partial(
            significance.unique_variance_significance, y, a, b, runs=runs, folds=runs, **how
        ),
        "repeats": partial(
            significance.explainable_variance_significance, list(repeats.swapaxes(0, 1)), **how
        ),
    }


@pytest.mark.parametrize("device", ["tensors", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tensors_give_the_p_values_of_arrays(device, monkeypatch):
    tests = all_tests()
    expected = {name: test() for name, test in tests.items()}
    if device != "cuda":
        monkeypatch.setattr(
            significance, "place", lambda array, on: array if on == "cpu" else torch.tensor(array)
        )
    for density in (significance._LEAST_DENSITY, 2):
        monkeypatch.setattr(significance, "_LEAST_DENSITY", density)
        for name, test in tests.items():
            found = test(device=device)
            assert found.p_values.min() < 0.01, "a voxel that responds, from the fitted tail"
            for key in ("score", "z", "p_values", "q_values", "p_max"):
                np.testing.assert_allclose(
                    found[key], expected[name][key], rtol=1e-6, atol=1e-9, err_msg=f"{name}: {key}"
                )


def test_threads_and_zeros_in_products_change_nothing(monkeypatch):
    monkeypatch.setattr(_tested, "_VOXELS_PER_BATCH", 7)
    for name, test in all_tests().items():
        alone, shared = test(), test(n_jobs=3)
        with monkeypatch.context() as patched:
            patched.setattr(significance, "_LEAST_DENSITY", 2)
            sparse = test()
        for key in ("score", "z", "p_values", "p_max"):
            np.testing.assert_array_equal(shared[key], alone[key], err_msg=name)
            np.testing.assert_allclose(sparse[key], alone[key], rtol=1e-9, err_msg=name)
