from importlib.util import find_spec

import numpy as np
import pytest
from misaligned import PARCELS, T_R, see_films
from sklearn.base import clone

from brainnrds._checks import InputError
from brainnrds.encoding import VideoEncodingModel, correlation_score
from brainnrds.group import FunctionalAlignment, predict_left_out_people

MODEL = VideoEncodingModel(delays=(1, 2), alphas=(1.0, 100.0, 1e4))
TEST = [4, 5]
needs_fmralign = pytest.mark.skipif(find_spec("fmralign") is None, reason="needs fmralign")


def score(X, people, films, **options):
    options = {"alignment": FunctionalAlignment(parcels=PARCELS), "minutes": (2, 10, 99), **options}
    return predict_left_out_people(
        MODEL, X, people, t_r=T_R, films=films, test_films=TEST, **options
    )


@needs_fmralign
def test_alignment_helps_where_topographies_differ():
    scores = score(*see_films(0, shuffled=True))
    assert scores.anatomical.shape == (4, 45) and scores.aligned.shape == (3, 4, 45)
    assert scores.minutes == [2, 10, 20]
    anatomical, aligned = scores.anatomical.mean(), scores.aligned.mean(axis=(1, 2))
    assert abs(anatomical) < 0.15
    assert (np.diff(aligned) > 0).all() and aligned[1] > anatomical + 0.3
    # a person's own minutes, and the more of them
    assert (np.diff(scores.own.mean(axis=(1, 2))) > 0).all()


@needs_fmralign
def test_alignment_helps_not_where_topographies_are_equal():
    scores = score(*see_films(0, shuffled=False))
    assert scores.anatomical.mean() > 0.5
    assert scores.aligned[-1].mean() < scores.anatomical.mean() + 0.02
    alone = score(*see_films(0, shuffled=False), alignment=None)
    assert alone.aligned is None
    np.testing.assert_allclose(alone.anatomical, scores.anatomical)


@needs_fmralign
def test_test_films_are_used_for_scores_alone():
    X, people, films = see_films(2, shuffled=True)
    expected = score(X, people, films)
    test = np.isin(films, TEST)
    rng = np.random.default_rng(0)
    changed = [person.copy() for person in people]
    for other in changed[1:]:
        other[test] = rng.standard_normal(other[test].shape)
    found = score(X, changed, films)
    # nothing that others did in test films reaches the first person
    for name in ("anatomical", "aligned", "own"):
        np.testing.assert_array_equal(found[name][..., 0, :], expected[name][..., 0, :])


@needs_fmralign
def test_noise_is_not_predicted_unless_test_films_are_in_the_alignment():
    """The leak that would be: noise of test films, carried from person to person."""
    X, people, films = see_films(3, shuffled=True)
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal(person.shape) for person in people]
    test = np.isin(films, TEST)
    assert abs(score(X, noise, films).aligned.mean()) < 0.03
    for fitted_on, holds in ((~test, True), (np.ones(len(X), bool), False)):
        template = FunctionalAlignment(parcels=PARCELS).fit([p[fitted_on] for p in noise[1:]])
        moved = np.mean(template.transform([p[test] for p in noise[1:]]), axis=0)
        moved = template.to_person(noise[0][fitted_on])(moved)
        r = np.mean(
            [np.corrcoef(a, b)[0, 1] for a, b in zip(moved.T, noise[0][test].T, strict=True)]
        )
        assert (abs(r) < 0.03) == holds


def test_anatomical_correspondence_needs_no_alignment():
    X, people, films = see_films(0, shuffled=False)
    scores = score(X, people, films, alignment=None, minutes=(99,))
    test = np.isin(films, TEST)
    model = clone(MODEL).fit(
        X[~test],
        np.mean([p[~test] for p in people[1:]], axis=0),
        runs=films[~test],
        films=films[~test],
    )
    predicted = model.predict(X[test], runs=films[test])
    expected = correlation_score(people[0][test], predicted, runs=films[test])
    np.testing.assert_allclose(scores.anatomical[0], expected)
    assert scores.anatomical.mean() > scores.own[0].mean() > 0.4  # three people have less noise
    shuffled = score(*see_films(0, shuffled=True), alignment=None, minutes=(99,))
    assert shuffled.anatomical.mean() < 0.15 < shuffled.own[0].mean()


def test_minutes_may_end_shortly_after_a_film_began():
    X, people, films = see_films(0, shuffled=False)
    minutes = [n * T_R / 60 for n in (150, 152, 153)]
    scores = score(X, people, films, alignment=None, minutes=minutes)
    assert scores.minutes == minutes
    np.testing.assert_array_equal(scores.own[1], scores.own[0])
    assert not np.array_equal(scores.own[2], scores.own[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bold": 2}, "at least three people; got 2"),
        ({"test_films": [9]}, "must be some of the films"),
        ({"test_films": range(6)}, "must be some of the films"),
        ({"X": 10}, "as long as `X`, 10"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change, reason):
    X, people, films = see_films(0, shuffled=False, length=20)
    call = {"films": films[: change.get("X", len(X))], "test_films": change.get("test_films", TEST)}
    with pytest.raises(InputError, match=reason):
        predict_left_out_people(
            MODEL, X[: change.get("X", len(X))], people[: change.get("bold", 4)], t_r=T_R, **call
        )
