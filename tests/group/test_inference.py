from itertools import product

import numpy as np
import pytest
from scipy import stats
from test_cluster_enhancement import chain, slow_tfce

from brainnrds._checks import InputError
from brainnrds.group import (
    conjunction,
    count_significant,
    fixed_effects,
    mesh_neighbours,
    one_sided_p,
    prevalence,
    sign_flip_test,
)

# -- many people -----------------------------------------------------------------------------------


def test_fewer_than_6_participants_have_no_group_p_values():
    test = sign_flip_test(np.random.default_rng(0).standard_normal((5, 10)) + 3)
    assert test.p_values is None and test.p_max is None
    assert "5 participants have 32 sign flips" in test.reason


@pytest.mark.parametrize("two_sided", [True, False])
def test_it_equals_enumeration_by_hand(two_sided):
    n_voxels = 12
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((6, n_voxels)) + np.linspace(-1, 2, n_voxels)
    neighbours = mesh_neighbours(chain(n_voxels), n_vertices=[n_voxels])
    dense = neighbours.toarray()
    test = sign_flip_test(scores, neighbours=neighbours, two_sided=two_sided)
    assert test.n_permutations == 64
    assert test.smallest_p == (2 if two_sided else 1) / 64
    size = np.abs if two_sided else np.asarray
    t, enhanced = [], []
    for signs in product([1, -1], repeat=6):
        result = stats.ttest_1samp(scores * np.array(signs)[:, None], 0)
        z = np.sign(result.statistic) * stats.norm.isf(result.pvalue / 2)
        t.append(result.statistic)
        enhanced.append(slow_tfce(z, dense, 0.1))
        if two_sided:
            enhanced[-1] += slow_tfce(-z, dense, 0.1)
    np.testing.assert_allclose(test.t, t[0])
    t, enhanced = size(t), np.array(enhanced)
    np.testing.assert_allclose(test.p_values, np.mean(t >= t[0] - 1e-9, axis=0))
    for values, p_values in ((t, test.p_max), (enhanced, test.p_tfce)):
        largest = values.max(axis=1)
        expected = [np.mean(largest >= value - 1e-9) for value in values[0]]
        np.testing.assert_allclose(p_values, expected)
    assert len(np.unique(test.p_tfce)) > 2


def test_an_effect_with_extent_is_found_by_enhancement():
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((15, 200))
    scores[:, 50:90] += 0.8
    neighbours = mesh_neighbours(chain(200), n_vertices=[200])
    test = sign_flip_test(scores, neighbours=neighbours, n_permutations=400, random_state=0)
    found = test.p_tfce < 0.05
    assert test.n_permutations == 400
    assert found[50:90].sum() > 2 * (test.p_max < 0.05)[50:90].sum() and found[:40].sum() == 0
    alone = sign_flip_test(scores, n_permutations=400, random_state=0)
    assert alone.p_tfce is None
    np.testing.assert_array_equal(alone.p_max, test.p_max)


def test_p_values_do_not_depend_on_batches_or_processes(monkeypatch):
    scores = np.random.default_rng(0).standard_normal((7, 60)) + 0.5
    scores[:, 3] *= 1e6
    scores[:, 8] = 1 + 1e-9 * scores[:, 8]  # t of 1e9
    neighbours = mesh_neighbours(chain(60), n_vertices=[60])
    expected = sign_flip_test(scores, neighbours=neighbours)
    monkeypatch.setattr("brainnrds.group.inference._VALUES_PER_BATCH", 300)
    monkeypatch.setattr("brainnrds.group.inference._VOXELS_PER_BATCH", 7)
    for n_jobs in (None, 2):
        found = sign_flip_test(scores, neighbours=neighbours, n_jobs=n_jobs)
        for name in ("t", "p_values", "p_max", "p_tfce"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_voxels_that_a_participant_lacks_are_not_tested():
    scores = np.random.default_rng(0).standard_normal((7, 5)) + 1
    scores[2, 1] = np.nan
    scores[:, 4] = 0.5
    test = sign_flip_test(scores, neighbours=mesh_neighbours(chain(5), n_vertices=[5]))
    for name in ("t", "p_values", "q_values", "p_max", "p_tfce"):
        assert np.isnan(test[name]).tolist() == [False, True, False, False, True]
    others = sign_flip_test(scores[:, [0, 2, 3]])
    np.testing.assert_allclose(test.p_max[[0, 2, 3]], others.p_max)


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(InputError, match=r"shape \(n_subjects, n_voxels\)"):
        sign_flip_test(np.zeros(6))
    with pytest.raises(InputError, match="values of all participants; got none"):
        sign_flip_test(np.full((6, 2), np.nan))
    neighbours = mesh_neighbours(chain(4), n_vertices=[4])
    with pytest.raises(InputError, match=r"shape \(3, 3\), as `scores` have 3 voxels"):
        sign_flip_test(np.random.default_rng(0).random((6, 3)), neighbours=neighbours)


# -- few people ------------------------------------------------------------------------------------


def test_fixed_effects_are_stouffers_z():
    p = np.random.default_rng(0).uniform(0.001, 0.9, (3, 6))
    expected = [stats.combine_pvalues(column, method="stouffer") for column in p.T]
    test = fixed_effects(p, two_sided=False)
    np.testing.assert_allclose(test.z, [result.statistic for result in expected])
    np.testing.assert_allclose(test.p_values, [result.pvalue for result in expected])
    np.testing.assert_allclose(
        test.q_values, stats.false_discovery_control(test.p_values, method="bh")
    )
    both = fixed_effects(p)
    np.testing.assert_allclose(both.p_values, 2 * np.minimum(test.p_values, 1 - test.p_values))
    np.testing.assert_allclose(fixed_effects(1 - p).z, -both.z)


@pytest.mark.parametrize("two_sided", [True, False])
def test_fixed_effects_without_an_effect_are_uniform(two_sided):
    p = np.random.default_rng(0).random((3, 20000))
    found = fixed_effects(p, two_sided=two_sided).p_values
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(found < 0.001) == pytest.approx(0.001, abs=0.0007)


def test_two_sided_p_values_of_one_person_come_back():
    scores = np.random.default_rng(0).standard_normal((1, 9))
    p = 2 * stats.norm.sf(np.abs(scores))
    np.testing.assert_allclose(fixed_effects(one_sided_p(p, scores)).p_values, p[0])
    np.testing.assert_allclose(fixed_effects(one_sided_p(p, scores)).z, scores[0])


def test_a_p_value_of_1_does_not_outweigh_the_others():
    p = np.array([[1.0, np.nan], [1e-6, 0.1], [1e-6, 0.1]])
    test = fixed_effects(p, two_sided=False)
    assert test.p_values[0] < 0.001 and np.isnan(test.p_values[1])


def test_conjunction_is_uniform_where_one_person_lacks_the_effect():
    rng = np.random.default_rng(0)
    p = rng.random((3, 5000)) * [[1], [1e-6], [1e-6]]
    test = conjunction(p)
    assert stats.kstest(test.p_values, "uniform").pvalue > 0.01
    assert not (test.q_values < 0.05).any()
    assert (conjunction(1e-3 * p).q_values < 0.05).all()


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_prevalence_is_that_of_a_posterior_on_a_grid(level):
    n = 5
    p = np.where(np.arange(n)[:, None] < np.arange(n + 1), level / 2, 0.9)
    found = prevalence(p, level=level, bound=0.9)
    assert found.n_significant.tolist() == list(range(n + 1))
    share = np.linspace(0, 1, 200001)
    rate = level + (1 - level) * share
    for k in range(n + 1):
        posterior = rate**k * (1 - rate) ** (n - k)
        above = np.cumsum(posterior[::-1])[::-1] / posterior.sum()
        assert found.estimate[k] == pytest.approx(share[posterior.argmax()], abs=1e-4)
        assert found.lower[k] == pytest.approx(share[np.sum(above >= 0.9)], abs=1e-4)


def test_prevalence_counts_those_who_have_a_value():
    p = np.array([[0.01, np.nan], [0.01, np.nan], [np.nan, np.nan]])
    found = prevalence(p)
    assert found.estimate[0] == 1 and np.isnan(found.estimate[1]) and np.isnan(found.lower[1])
    assert found.lower[0] == pytest.approx(prevalence(p[:2, :1]).lower[0])
    with pytest.raises(InputError, match="between 0 and 1; got 1, 0.95"):
        prevalence(p, level=1)


def test_replications_are_counted_by_sign():
    scores = np.array([[1.0, -1, 1], [2, -2, -1], [1, 1, np.nan]])
    q_values = np.array([[0.01, 0.01, 0.2], [0.04, 0.03, 0.01], [0.06, 0.01, np.nan]])
    positive, negative = count_significant(scores, q_values)
    assert positive.tolist() == [2, 1, 0] and negative.tolist() == [0, 2, 1]
    with pytest.raises(InputError, match=r"shape of `scores`, \(3, 3\); got \(3, 2\)"):
        count_significant(scores, q_values[:, :2])
