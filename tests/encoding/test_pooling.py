import numpy as np
import pytest

from brainnrds._checks import InputError
from brainnrds.encoding import correlation_score, parcel_table
from brainnrds.encoding.pooling import centring_inflation


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


def test_parcels_average_the_reported_scores():
    y, a, b, runs = signal_data()
    parcels = np.repeat([0, 3, 7], 10)
    table = parcel_table(
        y, {"video": a, "image": b}, parcels, t_r=2.0, names={3: "MT"}, runs=runs, folds=runs
    )
    assert table["name"].tolist() == ["MT", "7"] and table["n_voxels"].tolist() == [10, 10]
    video, image = (correlation_score(y, p, runs=runs, folds=runs) for p in (a, b))
    np.testing.assert_allclose(table["video"], [video[10:20].mean(), video[20:].mean()], rtol=1e-6)
    np.testing.assert_allclose(table["difference"][0], (video - image)[10:20].mean(), rtol=1e-6)
    assert table["difference_low"][0] > 0.3
    assert (table["difference_low"] <= table["difference"]).all()
    assert (table["difference"] <= table["difference_high"]).all()


def test_parcel_intervals_cover_the_truth():
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y = rng.standard_normal((600, 1))
        prediction = 0.5 * y + rng.standard_normal((600, 1))
        truth = 0.5 / np.sqrt(1.25)
        row = parcel_table(
            y,
            {"video": prediction},
            np.ones(1, int),
            t_r=2.0,
            folds=np.zeros(600, int),
            n_resamples=300,
            random_state=seed,
        ).iloc[0]
        covered.append(row["video_low"] < truth < row["video_high"])
    assert 0.87 < np.mean(covered)


def test_p_values_of_parcels_are_uniform_without_an_effect():
    counted = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        y, a, b = rng.standard_normal((3, 600, 24))
        table = parcel_table(
            y,
            {"a": a, "b": b},
            np.repeat(np.arange(1, 9), 3),
            t_r=2.0,
            folds=np.zeros(600, int),
            n_resamples=300,
            random_state=seed,
        )
        counted.append([(table[f"{key}_p"] < 0.05).mean() for key in ("a", "b", "difference")])
        assert (table["difference_q"] >= table["difference_p"] - 1e-12).all()
    rates = np.mean(counted, axis=0)
    errors = 3 * np.std(counted, axis=0) / np.sqrt(len(counted))
    assert (np.abs(rates - 0.05) < errors).all()


def test_p_values_of_parcels_find_what_is_there():
    y, a, b, runs = signal_data()
    table = parcel_table(
        y,
        {"a": a, "b": b},
        np.repeat([1, 2, 3], 10),
        t_r=2.0,
        runs=runs,
        folds=np.zeros(len(y), int),
    ).set_index("parcel")
    # first both, then only `a`, then none
    assert (table["a_q"] < 0.01).tolist() == [True, True, False]
    assert (table["b_q"] < 0.01).tolist() == [True, False, False]
    assert (table["difference_q"] < 0.01).tolist() == [False, True, False]
    # a p of .05, two-sided, and an interval that ends at 0 say the same
    outside = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    assert (outside == (table["difference_p"] < 0.05)).all()


def test_intervals_know_that_folds_train_each_other():
    y, a, _, runs = signal_data()
    options = {"t_r": 2.0, "runs": runs, "random_state": 0}
    one, six = (
        parcel_table(y, {"a": a}, np.ones(y.shape[1], int), folds=folds, **options).iloc[0]
        for folds in (np.zeros(len(y), int), runs)
    )
    assert six["a_high"] - six["a_low"] == pytest.approx(
        np.sqrt(2) * (one["a_high"] - one["a_low"]), rel=0.05
    )


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.5), (0.4, 0.7), (0.4, 0.9), (0.7, 0.8)])
def test_removing_the_mean_of_runs_hides_variance_from_blocks(first, second):
    n, length = 320, 20
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    centre = np.eye(n) - 1 / n
    # exact: products of two independent series, with and without their means
    covariances = [rho**lags for rho in (first, second)]
    shares = []
    for matrices in (covariances, [centre @ matrix @ centre for matrix in covariances]):
        product = matrices[0] * matrices[1]
        in_blocks = product.reshape(n // length, length, n // length, length)
        shares.append(product.sum() / np.einsum("aiaj->", in_blocks))
    times = [(1 + rho) / (1 - rho) for rho in (first, second, first * second)]
    found = centring_inflation(times, n, length)
    assert found - 1 == pytest.approx(shares[1] / shares[0] - 1, rel=0.75)
    assert found >= shares[1] / shares[0]


def test_parcels_have_no_intervals_from_few_blocks():
    y, a, _, runs = signal_data()
    rows = runs == 0
    table = parcel_table(
        y[rows],
        {"a": a[rows]},
        np.ones(y.shape[1], int),
        t_r=2.0,
        runs=runs[rows],
        folds=runs[rows],
    )
    assert np.isfinite(table["a"]).all()
    assert table[["a_low", "a_high", "a_p", "a_q"]].isna().all(axis=None)


def test_q_values_are_those_of_a_hemisphere():
    y, a, b, runs = signal_data()
    parcels = np.repeat(np.arange(1, 7), 5)
    sides = np.repeat(["L", "R"], 15)
    sides[10] = "R"  # one voxel over the midline does not move a parcel
    options = {"t_r": 2.0, "runs": runs, "folds": np.zeros(len(y), int), "random_state": 0}
    table = parcel_table(y, {"a": a, "b": b}, parcels, sides=sides, **options)
    together = parcel_table(y, {"a": a, "b": b}, parcels, **options)
    assert table["side"].tolist() == ["L"] * 3 + ["R"] * 3 and "side" not in together
    for rows in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(table["a_p"][rows], together["a_p"][rows])
        np.testing.assert_allclose(
            table["a_q"][rows], np.minimum(_q(table["a_p"][rows]), 1), rtol=1e-6
        )
    with pytest.raises(InputError, match=r"`sides` must have shape \(30,\); got \(2,\)"):
        parcel_table(y, {"a": a}, parcels, sides=["L", "R"], **options)


def _q(p_values):
    """Benjamini and Hochberg's procedure by its definition."""
    p = np.asarray(p_values)
    q = [min(len(p) * x / np.sum(p <= x) for x in p if x >= value) for value in p]
    return np.array(q)
