"""The shared response model against planted time courses and against its own minimum."""

import numpy as np
import pytest
from scipy.optimize import minimize

from brainnrds._checks import InputError
from brainnrds.group import shared_response
from brainnrds.group.shared_response import fit_basis


def planted(seed, *, noise, sizes=(30, 40, 25), n=200, k=4):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, k)) * [4, 3, 2, 1.5][:k]
    bases = [np.linalg.qr(rng.standard_normal((size, k)))[0] for size in sizes]
    bold = [shared @ w.T + noise * rng.standard_normal((n, len(w))) for w in bases]
    return shared, bases, bold


def error(bold, shared, bases):
    return sum(np.sum((x - shared @ w.T) ** 2) for x, w in zip(bold, bases, strict=True))


def test_what_people_share_is_found():
    truth, _, bold = planted(0, noise=0.0)
    shared, bases = shared_response(bold, 4)
    assert error(bold, shared, bases) < 1e-8 * error(bold, 0 * shared, bases)
    # the same time courses but for a rotation
    turn = np.linalg.lstsq(shared, truth, rcond=None)[0]
    np.testing.assert_allclose(shared @ turn, truth, atol=1e-6)
    np.testing.assert_allclose(turn @ turn.T, np.eye(4), atol=1e-6)


def test_it_is_a_minimum_that_no_other_descent_betters():
    _, _, bold = planted(1, noise=1.0, sizes=(6, 7), n=40, k=2)
    shared, bases = shared_response(bold, 2, n_iter=200)
    for basis in bases:
        np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-10)
    found = error(bold, shared, bases)

    def loss(x):
        # independent: bases by QR of free matrices, the best shared courses given them
        parts = np.split(x, np.cumsum([2 * b.shape[1] for b in bold])[:-1])
        free = [np.linalg.qr(p.reshape(-1, 2))[0] for p in parts]
        mean = np.mean([b @ w for b, w in zip(bold, free, strict=True)], axis=0)
        return error(bold, mean, free)

    rng = np.random.default_rng(0)
    size = 2 * sum(b.shape[1] for b in bold)
    others = [minimize(loss, rng.standard_normal(size)).fun for _ in range(3)]
    assert found <= min(others) * (1 + 1e-3)


def test_a_new_person_is_reached_from_few_minutes():
    truth, bases, bold = planted(2, noise=1.0)
    shared, _ = shared_response(bold[:2], 4)
    new = fit_basis(bold[2][:100], shared[:100])
    predicted = shared[100:] @ new.T
    clean = truth[100:] @ bases[2].T
    assert np.corrcoef(predicted.ravel(), clean.ravel())[0, 1] > 0.9
    # noise in the place of the person's responses reaches nothing
    noise = np.random.default_rng(3).standard_normal((100, 25))
    wrong = shared[100:] @ fit_basis(noise, shared[:100]).T
    assert abs(np.corrcoef(wrong.ravel(), clean.ravel())[0, 1]) < 0.3


def test_too_many_time_courses_are_refused():
    _, _, bold = planted(0, noise=1.0)
    with pytest.raises(InputError, match="between 1 and 25; got 26"):
        shared_response(bold, 26)
