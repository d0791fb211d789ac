import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainnrds.features import Delayer, delay, response_delays

EXPECTED_FAILURES = {
    "check_methods_subset_invariance": "a delayed sample depends on the samples before it",
    "check_methods_sample_order_invariance": "the order of samples is time",
}


@parametrize_with_checks([Delayer()], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def shifted_one_by_one(array, delays, runs):
    """Independent implementation: look every source sample up."""
    blocks = []
    for d in delays:
        block = np.zeros_like(array)
        for i in range(len(array)):
            same = [j for j in range(len(array)) if runs[j] == runs[i]]
            position = same.index(i) - d
            if 0 <= position < len(same):
                block[i] = array[same[position]]
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("delays", [(1,), (0, 2), (-1, 3), (5, -5, 0), (20,)])
def test_equals_looking_up_every_source(delays):
    rng = np.random.default_rng(0)
    array = rng.standard_normal((17, 3))
    for runs in (np.zeros(17, int), np.repeat([4, 2, 9], [6, 7, 4]), rng.integers(0, 3, 17)):
        np.testing.assert_array_equal(
            delay(array, delays, runs=runs), shifted_one_by_one(array, delays, runs)
        )


def test_a_run_does_not_see_another():
    array = np.arange(10.0)[:, None]
    runs = np.repeat([0, 1], 5)
    changed = array.copy()
    changed[:5] = 100
    one, other = (Delayer((1, 2)).fit(a).transform(a, runs=runs) for a in (array, changed))
    np.testing.assert_array_equal(one[5:], other[5:])
    np.testing.assert_array_equal(one[5], 0)


@pytest.mark.parametrize("delays", [(), (1, 1), (0.5,), 3, "12", None])
def test_bad_delays_are_refused(delays):
    with pytest.raises(ValueError, match="`delays` must"):
        Delayer(delays).fit(np.ones((5, 1)))


def test_runs_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"`runs` must have shape \(5,\); got \(4,\)"):
        Delayer().fit(np.ones((5, 1))).transform(np.ones((5, 1)), runs=np.zeros(4, int))


@pytest.mark.parametrize(
    ("t_r", "first", "last"),
    [(0.4, 3, 22), (0.7, 2, 12), (0.72, 2, 12), (1.0, 1, 9), (1.5, 1, 6), (2.0, 1, 4), (3.0, 1, 3)],
)
def test_the_response_is_covered_without_holes(t_r, first, last):
    assert response_delays(t_r) == list(range(first, last + 1))
    assert response_delays(t_r, earliest=0.0)[0] == 0
    assert first * t_r < 1.0 + t_r and last * t_r > 9.0 - t_r


def test_there_is_always_a_delay():
    assert response_delays(12.0) == [1]
    with pytest.raises(ValueError, match="`latest` must not be before"):
        response_delays(2.0, earliest=5.0, latest=4.0)
    with pytest.raises(ValueError, match="`t_r` must be positive"):
        response_delays(0.0)


@pytest.mark.parametrize("t_r", [0.7, 1.0])
def test_holes_between_delays_lose_what_changes_quickly(t_r):
    """White features, a response of 1 to 9 s: every volume explains it, every 2 s about half."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 1))
    lags = response_delays(t_r)
    y = delay(x, lags) @ np.exp(-(((np.array(lags) * t_r - 5) / 2) ** 2))

    def explained(delays):
        X = delay(x, delays)
        return 1 - np.var(y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) / np.var(y)

    assert explained(lags) > 0.999
    assert explained([round(s / t_r) for s in (2, 4, 6, 8)]) < 0.6
