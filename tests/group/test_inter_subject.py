from types import SimpleNamespace

import numpy as np
import pytest

from brainnrds._checks import InputError
from brainnrds.group import inter_subject_correlation, match_films


def people(shares, *, n_samples=4000, n_voxels=20, seed=0):
    """Responses of which a share of variance is common; the rest is each person's own."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n_samples, n_voxels))
    return [
        np.sqrt(share) * common + np.sqrt(1 - share) * rng.standard_normal((n_samples, n_voxels))
        for share in shares
    ]


def test_leave_one_out_is_the_correlation_with_the_mean_of_the_others():
    bold = people([0.5, 0.3, 0.2, 0.4], n_samples=300, n_voxels=5)
    films = np.repeat([0, 1, 2], 100)
    shared = inter_subject_correlation(
        bold, t_r=2.0, films=films, n_permutations=0, voxels_per_batch=2
    )
    centred = []
    for b in bold:
        b = np.concatenate([b[films == f] - b[films == f].mean(0) for f in range(3)])
        centred.append(b / b.std(0))
    for i, own in enumerate(centred):
        others = np.mean([b for j, b in enumerate(centred) if j != i], axis=0)
        expected = [np.corrcoef(own[:, v], others[:, v])[0, 1] for v in range(5)]
        np.testing.assert_allclose(shared.leave_one_out[i], expected, rtol=1e-9)
    pairs = [
        [np.corrcoef(centred[i][:, v], centred[j][:, v])[0, 1] for v in range(5)]
        for i in range(4)
        for j in range(i)
    ]
    np.testing.assert_allclose(shared.shared_variance, np.mean(pairs, axis=0), rtol=1e-9)


@pytest.mark.parametrize("n_people", [3, 6, 12])
def test_ceilings_are_those_planted(n_people):
    shares = np.linspace(0.2, 0.6, n_people)
    shared = inter_subject_correlation(people(shares), t_r=2.0, n_permutations=0)
    np.testing.assert_allclose(shared.ceiling.mean(axis=1), shares, atol=0.02)
    roots = np.sqrt(shares)
    pairs = (roots.sum() ** 2 - shares.sum()) / (n_people * (n_people - 1))
    assert shared.shared_variance.mean() == pytest.approx(pairs, abs=0.02)
    expected = pairs / (pairs + (1 - pairs) / n_people)
    assert shared.group_ceiling.mean() == pytest.approx(expected, abs=0.02)


def test_a_persons_own_response_is_not_shared():
    bold = people([0.4] * 5)
    with_own = inter_subject_correlation(bold, t_r=2.0, n_permutations=0)
    noise = np.random.default_rng(1).standard_normal(bold[0].shape)
    without = inter_subject_correlation([noise, *bold[1:]], t_r=2.0, n_permutations=0)
    assert with_own.ceiling[0].mean() > 0.35 and without.ceiling[0].mean() < 0.01
    np.testing.assert_allclose(without.ceiling[1:].mean(), 0.4, atol=0.02)


def autoregressive(n_samples, n_voxels, rng, rho=0.5):
    noise = rng.standard_normal((n_samples, n_voxels))
    for i in range(1, n_samples):
        noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return noise


def test_unrelated_responses_have_uniform_p_values():
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(12):
        bold = [autoregressive(600, 40, rng) for _ in range(4)]
        films = np.repeat([0, 1, 2], 200)
        shared = inter_subject_correlation(
            bold, t_r=2.0, films=films, n_permutations=200, random_state=seed
        )
        p_values.append(shared.p_values)
    rate = np.mean(np.concatenate(p_values) < 0.05)
    assert 0.02 < rate < 0.08


def test_a_shared_response_is_significant_and_noise_is_not():
    bold = people([0.2] * 4, n_samples=600, n_voxels=10)
    noise = np.random.default_rng(1).standard_normal((4, 600, 10))
    bold = [np.hstack(pair) for pair in zip(bold, noise, strict=True)]
    shared = inter_subject_correlation(bold, t_r=2.0, n_permutations=500, random_state=0)
    assert shared.reason is None and shared.n_blocks >= 12
    assert (shared.q_values[:10] < 0.05).all() and (shared.q_values[10:] > 0.05).mean() > 0.8


def test_constant_voxels_have_no_value():
    bold = people([0.5] * 3, n_samples=200, n_voxels=4)
    bold[1][:, 2] = 1.0
    shared = inter_subject_correlation(bold, t_r=2.0, n_permutations=0)
    assert np.isnan(shared.shared_variance).tolist() == [False, False, True, False]
    assert np.isnan(shared.leave_one_out[:, 2]).all()


def test_few_blocks_give_no_p_values():
    shared = inter_subject_correlation(people([0.5] * 3, n_samples=100), t_r=2.0)
    assert shared.p_values is None and "block" in shared.reason


@pytest.mark.parametrize(
    ("bold", "reason"),
    [
        ([np.zeros((9, 2))], "at least two people; got 1"),
        ([np.zeros((9, 2)), np.zeros((8, 2))], "one shape"),
        ([np.zeros((9, 2)), np.full((9, 2), np.nan)], "finite"),
    ],
)
def test_people_that_cannot_be_compared_are_refused(bold, reason):
    with pytest.raises(InputError, match=reason):
        inter_subject_correlation(bold, t_r=2.0)


def person(names, lengths, **more):
    films = np.repeat(np.arange(len(names)), lengths)
    times = np.concatenate([2.0 * np.arange(n) for n in lengths])
    about = {"t_r": 2.0, "space": "x", "subject": "01", "film_names": names}
    about |= {"films": films, "presentations": films, "film_times": times}
    return SimpleNamespace(**(about | more))


def test_films_are_matched_by_name_and_time():
    first, second = person(["a", "b"], [10, 20]), person(["c", "b", "a"], [5, 20, 11])
    matched = match_films([first, second])
    assert matched.film_names == ["a", "b"] and len(matched.films) == 30
    for one, row, other in zip(matched.rows[0], range(30), matched.rows[1], strict=True):
        name = matched.film_names[matched.films[row]]
        assert first.film_names[first.films[one]] == second.film_names[second.films[other]] == name
        assert first.film_times[one] == second.film_times[other]


@pytest.mark.parametrize(
    ("people", "reason"),
    [
        ([person(["a"], [9])], "at least two; got 1"),
        (
            [person(["a"], [9]), person(["b"], [9], subject="02")],
            "none: first sub-01 saw a; sub-02 saw b",
        ),
        ([person(["a"], [9]), person(["a"], [9], space="y")], "one space; got x, y"),
        ([person(["a"], [9]), person(["a"], [9], t_r=1.0)], "one t_r"),
        ([person(["a"], [9]), person(["a"], [30])], "got 9 volumes of sub-01 and 30 volumes of"),
        (
            [person(["a"], [9]), person(["a"], [9], presentations=np.arange(9))],
            "once for each person",
        ),
    ],
)
def test_people_without_a_common_film_are_refused(people, reason):
    with pytest.raises(InputError, match=reason):
        match_films(people)
