import numpy as np
import pytest

from brainnrds.encoding import (
    explainable_variance,
    noise_ceiling,
    normalized_score,
    stack_repeats,
    stack_trials,
)


def repeats_of(share, n_repeats, n_samples, n_voxels, rng):
    """Unit-variance responses of which `share` is the same in all repeats."""
    signal = rng.standard_normal((n_samples, n_voxels))
    noise = rng.standard_normal((n_repeats, n_samples, n_voxels))
    return np.sqrt(share) * signal + np.sqrt(1 - share) * noise


@pytest.mark.parametrize("share", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("n_repeats", [2, 5, 10])
def test_explainable_variance_is_unbiased(share, n_repeats):
    rng = np.random.default_rng(n_repeats)
    estimate = explainable_variance(repeats_of(share, n_repeats, 60, 4000, rng))
    # the ratio of two estimates is unbiased up to 1 / n_samples
    assert abs(estimate.mean() - share) < 4 * estimate.std() / np.sqrt(4000) + 0.01
    if share == 0:
        assert (estimate < 0).any()  # not clipped


def test_two_repeats_equal_the_correlation_of_repeats():
    # with two repeats of equal variance the estimate is their correlation
    rng = np.random.default_rng(0)
    repeats = repeats_of(0.4, 2, 500, 6, rng)
    repeats = (repeats - repeats.mean(1, keepdims=True)) / repeats.std(1, keepdims=True)
    correlation = [np.corrcoef(*repeats[:, :, v])[0, 1] for v in range(6)]
    np.testing.assert_allclose(explainable_variance(repeats), correlation, atol=1e-12)


def test_films_are_pooled():
    rng = np.random.default_rng(0)
    films = [repeats_of(0.3, 2, 200, 500, rng), repeats_of(0.3, 8, 100, 500, rng)]
    pooled = explainable_variance(films)
    assert abs(pooled.mean() - 0.3) < 0.01
    assert pooled.std() < min(explainable_variance(film).std() for film in films)


@pytest.mark.parametrize("n_repeats", [1, 4, 10])
def test_ceiling_is_the_r2_of_the_truth(n_repeats):
    rng = np.random.default_rng(0)
    share = 0.2
    repeats = repeats_of(share, n_repeats, 20000, 3, rng)
    signal_variance = share
    average = repeats.mean(0)
    expected = signal_variance / average.var(0)
    np.testing.assert_allclose(noise_ceiling(np.full(3, share), n_repeats), expected, rtol=0.03)


def test_ceiling_of_unequal_numbers_of_repeats():
    # half the samples are averages of 4: noise variance is the mean of 1 and 1 / 4
    ceiling = noise_ceiling(np.array([0.5]), np.repeat([1, 4], 10))
    np.testing.assert_allclose(ceiling, 0.5 / (0.5 + 0.5 * 0.625))
    np.testing.assert_array_equal(noise_ceiling(np.array([-0.2, 0.0, 1.0]), 3), [0, 0, 1])


def test_normalized_scores_only_above_the_smallest_ceiling():
    with pytest.warns(RuntimeWarning, match="1 of 2 normalised scores exceed 1"):
        normalised = normalized_score(
            np.array([0.3, 0.3, 0.6, 0.1]), np.array([0.1, 0.36, 0.25, np.nan])
        )
    np.testing.assert_allclose(normalised, [np.nan, 0.5, 1.2, np.nan])
    np.testing.assert_allclose(
        normalized_score(np.array([0.09]), np.array([0.36]), metric="r2"), [0.25]
    )


def test_repeats_are_gathered_by_film_and_position():
    # film 0 in runs 0 and 2 (one volume later), film 1 once; one volume of run 2 is missing
    runs = np.repeat([0, 1, 2], [6, 5, 6])
    films = np.array([0] * 5 + [-1] + [1] * 5 + [-1] + [0] * 4 + [-1])
    film_times = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, -1, 0.01, 1.01, 3.01, 4.01, 5.01])
    bold = (films * 100 + film_times.round())[:, None] + np.array([0, 0.5])
    (repeats,) = stack_repeats(bold, runs=runs, films=films, film_times=film_times)
    assert repeats.shape == (2, 4, 2)
    assert repeats[:, :, 0].tolist() == [[0, 1, 3, 4]] * 2
    assert (
        stack_repeats(bold[:11], runs=runs[:11], films=films[:11], film_times=film_times[:11]) == []
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: explainable_variance(np.ones((1, 5, 2))), "at least 2 repeats"),
        (lambda: explainable_variance(np.ones((5, 2))), "must have shape"),
        (lambda: explainable_variance([]), "at least twice; got none"),
        (lambda: noise_ceiling(np.ones(2), 0), "at least 1"),
        (lambda: noise_ceiling(np.ones(2), 1.5), "must be ints"),
        (lambda: normalized_score(np.ones(2), np.ones(3)), "shape of `score`"),
        (lambda: normalized_score(np.ones(2), np.ones(2), metric="R"), "'r' or 'r2'"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_trials_of_a_run_are_one_repeat():
    bold = np.arange(9.0)[:, None] ** 2
    runs = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    films = np.array([5, 2, 2, 2, 5, 3, -1, 3, 4])
    [repeats] = stack_trials(bold, runs=runs, films=films)
    # clips 5, 2 and 3 were shown in two runs, in this order; 4 in one
    expected = [[0, (1 + 4) / 2, 25], [16, 9, 49]]
    np.testing.assert_allclose(repeats[..., 0], expected)
    assert stack_trials(bold, runs=np.zeros(9, int), films=films) == []


def test_explainable_variance_of_trials_is_the_planted_share():
    rng = np.random.default_rng(0)
    n_runs, n_clips, n_voxels = 4, 80, 200
    films = np.concatenate([rng.permutation(n_clips) for _ in range(n_runs)])
    signal = rng.standard_normal((n_clips, n_voxels))
    bold = np.sqrt(0.4) * signal[films] + np.sqrt(0.6) * rng.standard_normal((len(films), n_voxels))
    stacked = stack_trials(bold, runs=np.repeat(np.arange(n_runs), n_clips), films=films)
    assert abs(explainable_variance(stacked).mean() - 0.4) < 0.02
    shuffled = stack_trials(
        bold, runs=np.repeat(np.arange(n_runs), n_clips), films=rng.permutation(films)
    )
    assert abs(np.mean([explainable_variance(s).mean() for s in shuffled])) < 0.02
