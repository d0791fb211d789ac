from importlib.util import find_spec

import numpy as np
import pytest
from misaligned import PARCELS, see_films

from brainnrds._checks import InputError
from brainnrds.group import FunctionalAlignment
from brainnrds.group.alignment import ALIGNMENTS

needs_fmralign = pytest.mark.skipif(find_spec("fmralign") is None, reason="needs fmralign")
METHODS = [m if ours is None else pytest.param(m, marks=needs_fmralign)
           for m, ours in ALIGNMENTS.items()]  # fmt: skip


def mean_correlation(first, second):
    first, second = ((a - a.mean(0)) / a.std(0) for a in (first, second))
    return np.mean(first * second)


@pytest.mark.parametrize(
    "method", [p for p in METHODS if p != "srm" and p.values[0] != "optimal-transport"] + ["srm"]
)
def test_people_become_alike_in_films_that_were_not_seen(method):
    _, people, films = see_films(0, shuffled=True)
    train, test = films < 4, films >= 4
    alignment = FunctionalAlignment(method, parcels=PARCELS).fit([p[train] for p in people])
    aligned = alignment.transform([p[test] for p in people])
    before = mean_correlation(people[0][test], people[1][test])
    after = mean_correlation(aligned[0], aligned[1])
    assert abs(before) < 0.1
    assert after > 0.3


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")
@pytest.mark.parametrize("method", METHODS)
def test_a_new_person_whose_voxels_are_shuffled_is_reached(method):
    _, people, films = see_films(0, shuffled=False, noise=0.5)
    train, test = films < 4, films >= 4
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(np.flatnonzero(PARCELS == p)) for p in (1, 2, 3)])
    person, others = people[0][:, order], people[1:]
    alignment = FunctionalAlignment(method, parcels=PARCELS).fit([p[train] for p in others])
    template = np.mean(alignment.transform([p[test] for p in others]), axis=0)
    way = alignment.to_person(person[train])
    as_they_are = np.mean([p[test] for p in others], axis=0)
    assert mean_correlation(as_they_are, person[test]) < 0.3
    assert mean_correlation(way(template), person[test]) > 0.6


@needs_fmralign
def test_a_rotation_without_noise_is_found():
    _, people, films = see_films(1, shuffled=True, noise=0.01)
    train, test = films < 4, films >= 4
    alignment = FunctionalAlignment(parcels=PARCELS).fit([p[train] for p in people[1:]])
    way = alignment.to_person(people[0][train])
    template = np.mean(alignment.transform([p[test] for p in people[1:]]), axis=0)
    assert mean_correlation(way(template), people[0][test]) > 0.98


@needs_fmralign
def test_voxels_outside_of_parcels_stay_as_they_are():
    _, people, _ = see_films(0, shuffled=True)
    parcels = np.where(PARCELS == 2, 0, PARCELS)
    alignment = FunctionalAlignment(parcels=parcels).fit(people)
    aligned = alignment.transform(people)
    np.testing.assert_allclose(aligned[0][:, PARCELS == 2], people[0][:, PARCELS == 2])
    np.testing.assert_allclose(
        alignment.template_[:, PARCELS == 2], np.mean(people, axis=0)[:, PARCELS == 2], atol=1e-6
    )
    assert not np.allclose(aligned[0][:, PARCELS == 1], people[0][:, PARCELS == 1])


@pytest.mark.parametrize(
    ("bold", "options", "reason"),
    [
        ([np.zeros((9, 2))], {}, "two people or more"),
        ([np.zeros((9, 2)), np.zeros((8, 2))], {}, "of one shape"),
        ([np.zeros((9, 2)), np.full((9, 2), np.nan)], {}, "finite"),
        ([np.zeros((9, 2))] * 2, {"method": "magic"}, "one of procrustes, ridge, optimal"),
        ([np.zeros((9, 2))] * 2, {"parcels": [1]}, r"shape \(2,\); got \(1,\)"),
        ([np.zeros((9, 3000))] * 2, {}, "at most 2000 voxels each; got 3000"),
    ],
)
def test_people_that_cannot_be_aligned_are_refused(bold, options, reason):
    with pytest.raises(InputError, match=reason):
        FunctionalAlignment(**options).fit(bold)
