"""Time to peak and width: closed forms, and a planted delay that the fit finds."""

import numpy as np
import pytest
from scipy.stats import gamma

from brainnrds.encoding import VideoEncodingModel, impulse_response, response_times
from brainnrds.io import InputError


def given(weights, delays):
    """Stand for a model with these weights (n_delays, n_features, n_voxels)."""
    model = VideoEncodingModel(delays=delays)
    model.n_voxels_, model.mixtures_ = weights.shape[2], None
    model.feature_spaces_ = {"video": slice(0, weights.shape[1])}
    model.primal_coef_ = weights.reshape(-1, weights.shape[2])
    model._offsets = [np.zeros(len(model.primal_coef_))]
    return model


def test_one_response_of_all_features_is_found_whatever_its_sign():
    rng = np.random.default_rng(0)
    response = gamma.pdf(np.arange(2, 12, 2), 6)[:, None] * [1, -1, 2]
    features = rng.normal(size=(30, 3))
    weights = response[:, None] * features
    weights[:, :, 2] = 0
    found, separable = impulse_response(weights)
    expected = response[:, 0] / np.linalg.norm(response[:, 0])
    np.testing.assert_allclose(found[:, :2], np.stack([expected, expected], axis=1), atol=1e-7)
    np.testing.assert_allclose(separable[:2], 1)
    assert np.isnan(found[:, 2]).all() and np.isnan(separable[2])
    # the first singular pair, as NumPy finds it
    mixed = rng.normal(size=(5, 30, 1))
    (left, powers, _) = np.linalg.svd(mixed[:, :, 0], full_matrices=False)
    found, separable = impulse_response(mixed)
    assert abs(found[:, 0] @ left[:, 0]) == pytest.approx(1)
    assert separable[0] == pytest.approx(powers[0] ** 2 / (powers**2).sum())


@pytest.mark.parametrize("step", [0.25, 1.0, 2.0])
def test_peak_and_width_are_those_of_the_curve(step):
    """A gamma density of shape k peaks at k - 1; its half height is found on a fine grid."""
    delays = np.arange(1, round(24 / step))
    shapes = np.array([4.0, 6.0, 8.0])
    curve = gamma.pdf(delays[:, None] * step, shapes)
    times = response_times(given(curve[:, None], delays))
    fine = np.arange(0, 24, 1e-3)
    above = gamma.pdf(fine[:, None], shapes) > gamma.pdf(shapes - 1, shapes) / 2
    tolerance = {0.25: 0.02, 1.0: 0.15, 2.0: 0.5}[step]
    np.testing.assert_allclose(times.peak * step, shapes - 1, atol=tolerance)
    np.testing.assert_allclose(times.width * step, above.sum(0) * 1e-3, atol=2 * tolerance)
    assert not times.at_last.any()


def test_a_response_that_goes_on_has_no_width_and_is_told():
    curve = np.array([[0.1, 0.5], [0.3, 1.0], [0.9, 0.8], [1.0, 0.7]])
    times = response_times(given(curve[:, None], (2, 3, 4, 5)))
    assert times.at_last.tolist() == [True, False]
    assert times.peak[0] == 5 and 3 < times.peak[1] < 4
    assert np.isnan(times.width).all()
    # the order of the delays is nothing to the response
    other = response_times(given(curve[::-1][:, None], (5, 4, 3, 2)))
    np.testing.assert_array_equal(other.peak, times.peak)


def test_a_planted_delay_is_found_by_the_fit_in_each_space():
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(5), 100)
    X = rng.normal(size=(500, 30))
    spaces = {"fast": slice(0, 15), "slow": slice(15, 30)}
    y = np.zeros((500, 40))
    for columns, late in ((spaces["fast"], 0), (spaces["slow"], 2)):
        drive = X[:, columns] @ rng.normal(size=(15, 40))
        for run in range(5):
            rows = runs == run
            response = gamma.pdf(np.arange(12) - late, 5)
            y[rows] += np.array([np.convolve(d, response)[:100] for d in drive[rows].T]).T
    y += 0.3 * y.std() * rng.normal(size=y.shape)
    model = VideoEncodingModel(spaces, delays=range(1, 11), n_iter=3).fit(X, y, runs=runs)
    fast, slow = (response_times(model, name).peak for name in spaces)
    assert np.nanmedian(fast) == pytest.approx(4, abs=0.3)
    assert np.nanmedian(slow - fast) == pytest.approx(2, abs=0.2)
    # noise in place of the responses: the peaks are anywhere
    model.fit(X, rng.normal(size=y.shape), runs=runs)
    assert np.nanstd(response_times(model, "fast").peak) > 4 * np.nanstd(fast)


def test_voxels_that_are_not_looked_at_have_no_times(monkeypatch):
    """The others have those of all voxels, however many are computed at a time."""
    rng = np.random.default_rng(0)
    spaces = {"first": slice(0, 20), "second": slice(20, 30)}
    X, y = rng.normal(size=(60, 30)), rng.normal(size=(60, 40))
    model = VideoEncodingModel(spaces, delays=(3, 1, 2), n_iter=3, cv=2)
    model.fit(X, y, runs=np.repeat(np.arange(3), 20))
    assert model.primal_coef_ is None
    voxels = rng.random(40) < 0.6
    everywhere = response_times(model, "second")
    expected, separable = impulse_response(model.weights("second")[[1, 2, 0]])
    np.testing.assert_array_equal(everywhere.at_last, expected.argmax(0) == 2)
    np.testing.assert_allclose(everywhere.separable, separable, rtol=1e-5)
    monkeypatch.setattr("brainnrds.encoding.model._BATCH_BYTES", 4 * 7 * (60 + 90))
    batches = model._weights_in_batches("second", np.flatnonzero(voxels))
    assert max(len(some) for some, _ in batches) == 7
    times = response_times(model, "second", voxels=voxels)
    for name, values in times.items():
        np.testing.assert_allclose(values[voxels], everywhere[name][voxels], rtol=1e-4)
        assert not values[~voxels].any() if name == "at_last" else np.isnan(values[~voxels]).all()
    nothing = response_times(model, "second", voxels=np.zeros(40, dtype=bool))
    assert np.isnan(nothing.peak).all() and not nothing.at_last.any()


def test_what_has_no_time_course_is_refused():
    with pytest.raises(InputError, match="at least three delays; got"):
        response_times(given(np.ones((2, 1, 4)), (1, 2)))
    for wrong in (np.arange(4), np.ones(3, dtype=bool)):
        with pytest.raises(InputError, match=r"^`voxels` must be bool of shape \(4,\); got .*$"):
            response_times(given(np.ones((3, 1, 4)), (1, 2, 3)), voxels=wrong)
    with pytest.raises(InputError, match="must have shape"):
        impulse_response(np.ones((3, 4)))
