"""The exact banded-ridge search against himalaya's random search in float64, and its own promises.

himalaya's backend is process-global: it is set and restored around every call.
"""

import itertools
import warnings
from contextlib import ExitStack, nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from himalaya.backend import get_backend, set_backend
from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, ShuffleSplit
from threadpoolctl import ThreadpoolController

from brainnrds.encoding import _fold_errors, _inputs, solvers
from brainnrds.encoding._arrays import one_blas_thread
from brainnrds.encoding.solvers import (
    sample_mixtures,
    solve_banded_ridge,
)

# himalaya adds 1e-10 log(alpha) to the scores to break ties
TIE_SLOPE = 1e-10


def make_problem(
    n_samples=60, n_features=(25, 15), n_targets=90, *, decay=0.0, centred=True, seed=0
):
    """Features with a power-law spectrum, unit-variance targets that mix signal and noise."""
    rng = np.random.default_rng(seed)
    Xs = [
        rng.standard_normal((n_samples, size)) * np.arange(1.0, size + 1) ** -decay
        for size in n_features
    ]
    if centred:
        Xs = [X - X.mean(0) for X in Xs]
    share = rng.uniform(0, 1, n_targets)
    Y = rng.standard_normal((n_samples, n_targets))
    for X, part in zip(Xs, (share, 1 - share), strict=False):
        signal = X @ rng.standard_normal((X.shape[1], n_targets))
        Y += part * signal / signal.std(0)
    Y -= Y.mean(0)
    Y /= Y.std(0)
    Ks = np.stack([X @ X.T for X in Xs])
    return Xs, Ks, Y


def search_with_himalaya(Ks, Y, *, mixtures, alphas, cv, fit_intercept=False, local_alpha=True):
    """Return scores without the slope, alpha, weights in our scale and intercept."""
    previous = get_backend()
    try:
        set_backend("numpy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = solve_multiple_kernel_ridge_random_search(
                Ks.astype(np.float64),
                Y.astype(np.float64),
                n_iter=np.asarray(mixtures, dtype=np.float64),
                alphas=np.asarray(alphas, dtype=np.float64),
                cv=cv,
                fit_intercept=fit_intercept,
                local_alpha=local_alpha,
                return_weights="dual",
                return_alphas=True,
                progress_bar=False,
            )
    finally:
        set_backend(previous)
    deltas, dual_weights, scores, alpha = found[:4]
    mixture = np.exp(deltas).T * alpha[:, None]
    return scores, alpha, mixture, dual_weights / alpha, found[4] if fit_intercept else None


def assert_same_search(result, oracle, mixtures, alphas, *, score_bound):
    """Scores within the bound; the same selection, but for targets where it is a tie."""
    scores, alpha, mixture, dual_weights, intercept = oracle
    slack = score_bound + TIE_SLOPE * np.abs(np.log(alphas)).max()
    np.testing.assert_allclose(result.cv_scores, scores, rtol=0, atol=slack)
    chosen = np.asarray(mixtures)[result.mixture_index]
    same = np.isclose(chosen, mixture, rtol=1e-4, atol=1e-6).all(1)
    same &= np.isclose(result.alpha, alpha, rtol=1e-4)
    ordered = np.sort(scores, axis=0)
    clear = np.full(scores.shape[1], True)
    if len(scores) > 1:
        clear = ordered[-1] - ordered[-2] > 2 * slack
    # an alpha may tie within a mixture, too: it then scores the same
    best = np.take_along_axis(result.cv_scores, result.mixture_index[None], 0)[0]
    np.testing.assert_allclose(best, ordered[-1], rtol=0, atol=2 * slack)
    assert np.isclose(chosen, mixture, rtol=1e-4, atol=1e-6).all(1)[clear].all()
    return same


FOLDS = {
    "5": 5,
    "2": 2,
    "films": [np.arange(0, 7), np.arange(7, 30), np.arange(30, 34), np.arange(34, 60)],
    "shuffled": KFold(4, shuffle=True, random_state=0),
    "pairs": [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(20, 60))],
    "leave one out": 60,
}


@pytest.fixture(params=itertools.product(["eigenvectors", "turned", "inverses"], [1, 8]))
def way(request, monkeypatch):
    """All ways to the fold blocks, on a CPU, without and with padding."""
    name, alignment = request.param
    monkeypatch.setattr(_fold_errors, "_MOST_TURNED", np.inf if name == "turned" else 0)
    if name == "turned":  # mixtures together in float64 as well, with all of their forms
        monkeypatch.setitem(_fold_errors._SPAN_TOLERANCE, "float64", None)
    monkeypatch.setitem(_fold_errors.WAY, "cpu", name.replace("turned", "eigenvectors"))
    monkeypatch.setitem(_fold_errors.ALIGNMENT, "cpu", alignment)


def test_blas_has_its_threads_back_when_the_last_block_ends():
    pools = ThreadpoolController()

    def n_threads():
        return {pool["num_threads"] for pool in pools.info() if pool["user_api"] == "blas"}

    with pools.limit(limits=2, user_api="blas"):
        first, second = one_blas_thread(), one_blas_thread()
        with ExitStack() as stack:
            stack.enter_context(first)
            second.__enter__()
            assert n_threads() == {1}
        assert n_threads() == {1}  # the second goes on
        second.__exit__(None, None, None)
        assert n_threads() == {2}


@pytest.mark.parametrize("cv", FOLDS.values(), ids=FOLDS.keys())
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_targets", [12, 90])
@pytest.mark.usefixtures("way")
def test_search_equals_himalaya(cv, fit_intercept, n_targets):
    _, Ks, Y = make_problem(n_targets=n_targets, centred=not fit_intercept)
    Y = Y + 3 * fit_intercept
    mixtures = sample_mixtures(5, 2)
    alphas = np.logspace(-3, 3, 7) * np.linalg.eigvalsh(Ks[0])[-1]
    result = solve_banded_ridge(
        Ks, Y, mixtures=mixtures, alphas=alphas, cv=cv, fit_intercept=fit_intercept
    )
    splits = _inputs._splits(cv, len(Y))
    oracle = search_with_himalaya(
        Ks, Y, mixtures=mixtures, alphas=alphas, cv=splits, fit_intercept=fit_intercept
    )
    same = assert_same_search(result, oracle, mixtures, alphas, score_bound=1e-9)
    assert same.all()
    np.testing.assert_allclose(result.dual_weights, oracle[3], rtol=1e-6, atol=1e-9)
    if fit_intercept:
        np.testing.assert_allclose(result.intercept, oracle[4], rtol=0, atol=1e-8)


@pytest.mark.usefixtures("way")
def test_closed_form_equals_fitted_folds():
    """Independent of himalaya: train every fold with numpy.linalg.solve."""
    _, Ks, Y = make_problem(n_targets=4)
    mixture, alpha, folds = np.array([0.3, 0.7]), 2.5, FOLDS["films"]
    K = np.tensordot(mixture, Ks, 1)
    errors = []
    for test in folds:
        train = np.setdiff1d(np.arange(len(Y)), test)
        penalised = K[np.ix_(train, train)] + alpha * np.eye(len(train))
        predicted = K[np.ix_(test, train)] @ np.linalg.solve(penalised, Y[train])
        errors.append(((Y[test] - predicted) ** 2).mean(0))
    result = solve_banded_ridge(Ks, Y, mixtures=mixture[None], alphas=[alpha], cv=folds)
    np.testing.assert_allclose(result.cv_scores[0], -np.mean(errors, axis=0), atol=1e-12)


@pytest.mark.parametrize("shape", [(70, 300, 200), (640, 610, 128), (64, 5, 64), (300, 1, 300)])
def test_numpy_products_are_as_precise_as_float32(shape, monkeypatch):
    n_rows, n_inner, n_columns = shape
    random = torch.Generator().manual_seed(0)
    a = torch.randn(n_rows, n_inner, generator=random)
    b = torch.randn(n_columns, n_inner, generator=random)
    exact = a.double() @ b.double().T
    bound = 4 * torch.finfo(torch.float32).eps * a.abs().double() @ b.abs().double().T
    # rows or columns that follow each other in memory, and pieces of larger arrays
    padded = torch.zeros(2 * n_rows, n_inner + 3)
    padded[::2, 3:] = a
    for left in (a, a.T.contiguous().T, padded[::2, 3:]):
        for right in (b.T, b.T.contiguous()):
            used = mock.Mock(side_effect=_fold_errors._numpy_product)
            monkeypatch.setattr(_fold_errors, "_numpy_product", used)
            monkeypatch.setattr(_fold_errors, "_is_intel", lambda: False)
            monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
            found = _fold_errors.product(left, right)
            monkeypatch.undo()
            assert used.call_count == 1
            assert (found - exact).abs().le(bound).all()
            monkeypatch.setattr(_fold_errors, "_is_intel", lambda: True)
            assert torch.equal(_fold_errors.product(left, right), left @ right)
            monkeypatch.undo()


def test_three_tf32_products_are_as_precise_as_float32():
    rng = np.random.default_rng(0)
    a, b = (torch.as_tensor(rng.standard_normal((2, 40, 40)), dtype=torch.float32) for _ in "ab")
    (high, rest), (b_high, b_rest) = _fold_errors.split_tf32(a), _fold_errors.split_tf32(b)
    assert torch.equal(high + rest, a)
    assert not (high.view(torch.int32) & 0x1FFF).any()
    exact = a.double() @ b.double()
    parts = high.double() @ b_high.double() + high.double() @ b_rest.double()
    parts += rest.double() @ b_high.double()
    assert (parts - exact).abs().max() < 2 * (a @ b - exact).abs().max() + 1e-6


@pytest.mark.parametrize("n_targets", [8, 90])
@pytest.mark.parametrize("products, bound", [("float32", 1e-4), ("tf32", 5e-4), ("bf16", 2e-3)])
@pytest.mark.usefixtures("way")
def test_float32_scores_stay_within_bounds(n_targets, products, bound, monkeypatch):
    """A CPU has no TF32: the operands are rounded to its ten bits instead."""
    exact = _fold_errors.product

    def rounded(array):
        bits = array.contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)

    def product(a, b, precision="float32"):
        if precision == "float32" or a.dtype != torch.float32:
            return exact(a, b)
        if precision == "tf32":
            return exact(rounded(a), rounded(b))
        assert precision == "tf32x3"
        (a, a_rest), (b, b_rest) = _fold_errors.split_tf32(a), _fold_errors.split_tf32(b)
        rests = exact(a, rounded(b_rest)) + exact(rounded(a_rest), b)
        return exact(rounded(a), rounded(b)) + rests

    monkeypatch.setattr(_fold_errors, "product", product)
    for decay in (0.0, 0.7):
        _, Ks, Y = make_problem(120, (70, 60), n_targets * 3, decay=decay)
        Ks, Y = Ks.astype(np.float32), Y.astype(np.float32)
        mixtures = sample_mixtures(4, 2)
        alphas = np.logspace(-6, 1, 8) * np.linalg.eigvalsh(Ks.astype(float))[:, -1].max()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = solve_banded_ridge(
                Ks, Y, mixtures=mixtures, alphas=alphas, cv=5, products=products
            )
        oracle = search_with_himalaya(Ks, Y, mixtures=mixtures, alphas=alphas, cv=5)
        assert_same_search(result, oracle, mixtures, alphas, score_bound=bound)
        assert result.dual_weights.dtype == np.float32


@pytest.mark.parametrize(
    "n_features, decay, smallest",
    # as many features as training samples: at tiny alphas errors are large
    [((70, 60), 0.0, 1e-3), ((70, 60), 1.5, 1e-3), ((48, 48), 0.0, 1e-8), ((48, 48), 1.0, 1e-8)],
)
@pytest.mark.usefixtures("way")
@pytest.mark.filterwarnings("ignore:The smallest alpha")
def test_fewer_forms_than_alphas_change_scores_by_rounding_alone(
    n_features, decay, smallest, monkeypatch
):
    _, Ks, Y = make_problem(120, n_features, 300, decay=decay)
    largest = np.linalg.eigvalsh(Ks)[:, -1].max()
    alphas = np.geomspace(smallest, 1e2, 20) * largest
    options = dict(mixtures=sample_mixtures(4, 2), alphas=alphas)
    exact = solve_banded_ridge(Ks, Y, **options)
    shapes = []
    span = _fold_errors.DualErrors._span

    def spied(self, n_mixtures, *forms):
        diagonals, coefficients, *parts = span(self, n_mixtures, *forms)
        shapes.append(None if coefficients is None else coefficients.shape)
        return [diagonals, coefficients, *parts]

    monkeypatch.setattr(_fold_errors.DualErrors, "_span", spied)
    single = solve_banded_ridge(Ks.astype(np.float32), Y.astype(np.float32), **options)
    # in the basis of the samples, the forms of all four mixtures together
    together = 80 if np.isinf(_fold_errors._MOST_TURNED) else 20
    assert all(n == together and n_forms <= 0.9 * n for n, n_forms in filter(None, shapes))
    assert any(shapes)
    monkeypatch.setattr(_fold_errors, "_SPAN_TOLERANCE", {})
    plain = solve_banded_ridge(Ks.astype(np.float32), Y.astype(np.float32), **options)
    assert shapes[-1] is None
    rounding = np.abs(plain.cv_scores - exact.cv_scores).max()
    assert np.abs(single.cv_scores - exact.cv_scores).max() < 2 * rounding + 2e-6


def test_mixtures_that_are_searched_together_keep_their_precision(monkeypatch):
    """The more mixtures there are, the more their forms have in common: that must hide nothing."""
    _, Ks, Y = make_problem(100, (90, 60, 120), 1200, decay=0.5)
    alphas = np.geomspace(1e-4, 1e1, 11) * np.linalg.eigvalsh(Ks)[:, -1].max()
    options = dict(mixtures=sample_mixtures(33, 3, random_state=0), alphas=alphas)
    exact = solve_banded_ridge(Ks, Y, **options).cv_scores
    Ks, Y = Ks.astype(np.float32), Y.astype(np.float32)
    groups, errors = [], []
    span = _fold_errors.DualErrors._span
    monkeypatch.setattr(
        _fold_errors.DualErrors, "_span", lambda self, n, *p: groups.append(n) or span(self, n, *p)
    )
    for n_forms in (11, 128):
        monkeypatch.setattr(_fold_errors, "_MOST_FORMS", n_forms)
        scores = solve_banded_ridge(Ks, Y, **options, factors="float64").cv_scores
        errors.append(np.abs(scores - exact).max())
    assert groups == [1] * 33 + [11] * 3
    assert errors[1] < 2 * errors[0] + 2e-6


@given(
    n_samples=st.integers(8, 40),
    n_features=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    n_targets=st.integers(1, 60),
    n_folds=st.integers(2, 6),
    exponents=st.lists(st.floats(-6, 3), min_size=1, max_size=4, unique=True),
    fit_intercept=st.booleans(),
    local_alpha=st.booleans(),
    decay=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_search_equals_himalaya_whatever_the_sizes(
    n_samples, n_features, n_targets, n_folds, exponents, fit_intercept, local_alpha, decay, seed
):
    """Random folds, kernels of any rank, alphas from 1e-6 of the largest eigenvalue."""
    Xs, Ks, Y = make_problem(n_samples, n_features, n_targets, decay=decay, seed=seed)
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_folds), rng.integers(n_folds, size=n_samples - n_folds)])
    labels = rng.permutation(labels)
    folds = [np.flatnonzero(labels == k) for k in range(n_folds)]
    mixtures = sample_mixtures(3, len(n_features), random_state=seed)
    largest = np.linalg.eigvalsh(Ks)[:, -1].max()
    alphas = 10.0 ** np.array(exponents) * largest
    choices = dict(fit_intercept=fit_intercept, local_alpha=local_alpha)
    oracle = search_with_himalaya(
        Ks,
        Y,
        mixtures=mixtures,
        alphas=alphas,
        cv=_inputs._splits(folds, n_samples),
        **choices,
    )
    for form, way in (("dual", "eigenvectors"), ("dual", "inverses"), ("primal", "")):
        with mock.patch.dict(_fold_errors.WAY, cpu=way) if way else nullcontext():
            result = solve_banded_ridge(
                Ks, Y, mixtures=mixtures, alphas=alphas, cv=folds, Xs=Xs, form=form, **choices
            )
        assert result.form == form
        # where himalaya's own float64 cannot resolve an alpha it scores -1e5
        valid = (oracle[0] > -1e4).all(0)
        slack = 1e-9 + TIE_SLOPE * np.abs(np.log(alphas)).max()
        difference = np.abs(result.cv_scores - oracle[0])[:, valid]
        scale = 1 + np.abs(oracle[0][:, valid])
        assert (difference <= slack * scale).all(), difference.max()


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_features", [(5, 3), (20, 9), (30, 40)])
def test_primal_form_equals_dual_form(fit_intercept, n_features):
    Xs, Ks, Y = make_problem(n_features=n_features, centred=not fit_intercept)
    Y = Y + 2 * fit_intercept
    options = dict(
        mixtures=sample_mixtures(4, 2),
        alphas=np.logspace(-1, 3, 6),
        cv=FOLDS["films"],
        Xs=Xs,
        fit_intercept=fit_intercept,
    )
    dual = solve_banded_ridge(Ks, Y, form="dual", **options)
    primal = solve_banded_ridge(None, Y, form="primal", **options)
    np.testing.assert_allclose(primal.cv_scores, dual.cv_scores, rtol=0, atol=1e-10)
    assert (primal.mixture_index == dual.mixture_index).all()
    assert (primal.alpha == dual.alpha).all()
    np.testing.assert_allclose(primal.dual_weights, dual.dual_weights, rtol=1e-6, atol=1e-9)
    weights = [
        solve_banded_ridge(Ks, Y, form=form, return_weights="primal", **options)
        for form in ("dual", "primal")
    ]
    np.testing.assert_allclose(weights[0].primal_weights, weights[1].primal_weights, atol=1e-9)
    # both kinds of weights predict the same
    chosen = options["mixtures"][dual.mixture_index]
    by_kernels = np.einsum("vs,snm,mv->nv", chosen, Ks, dual.dual_weights)
    by_features = np.concatenate(Xs, 1) @ weights[1].primal_weights
    if fit_intercept:
        by_kernels += dual.intercept
        by_features += weights[1].intercept
    np.testing.assert_allclose(by_features, by_kernels, atol=1e-9)


def test_form_is_chosen_by_the_number_of_features():
    few, many = make_problem(n_features=(4, 3)), make_problem(n_features=(50, 40))
    for (Xs, Ks, Y), form in ((few, "primal"), (many, "dual")):
        options = dict(mixtures=[[0.5, 0.5]], alphas=[1.0])
        assert solve_banded_ridge(Ks, Y, Xs=Xs, **options).form == form
        assert solve_banded_ridge(None, Y, Xs=Xs, **options).form == form
    assert solve_banded_ridge(few[1], few[2], **options).form == "dual"


@pytest.mark.usefixtures("way")
def test_tiny_alphas_follow_the_closed_form():
    """Below 1e-6 of the largest eigenvalue himalaya gives up; a rank-deficient kernel does not."""
    Xs, Ks, Y = make_problem(60, (10, 8), 20)
    alpha = 1e-12 * np.linalg.eigvalsh(Ks.sum(0))[-1]
    result = solve_banded_ridge(Ks, Y, mixtures=[[1.0, 1.0]], alphas=[alpha], cv=5)
    X = np.concatenate(Xs, 1)
    errors = []
    for train, test in KFold(5).split(X):
        gram = X[train].T @ X[train] + alpha * np.eye(X.shape[1])
        weights = np.linalg.solve(gram, X[train].T @ Y[train])
        errors.append(((Y[test] - X[test] @ weights) ** 2).mean(0))
    np.testing.assert_allclose(result.cv_scores[0], -np.mean(errors, axis=0), rtol=1e-3)


@pytest.mark.usefixtures("way")
def test_singular_fold_block_is_said_once_and_searched():
    said = []
    for decay in np.linspace(2, 4, 9):  # rounding decides which of them are, and so the machine
        _, Ks, Y = make_problem(40, (90, 90), 60, decay=decay)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = solve_banded_ridge(
                Ks.astype(np.float32),
                Y.astype(np.float32),
                mixtures=sample_mixtures(3, 2),
                alphas=np.array([1e-19, 1e-18, 1.0]),
                factors="float32",
            )
        assert len(caught) <= 1
        assert np.isfinite(result.cv_scores).all() and np.isfinite(result.dual_weights).all()
        said += [str(warning.message) for warning in caught]
    assert said and all("singular" in text for text in said)


@pytest.mark.usefixtures("way")
def test_ill_conditioned_float32_kernels_get_float64_factors():
    _, Ks, Y = make_problem(decay=1.0)
    Ks, Y = Ks.astype(np.float32), Y.astype(np.float32)
    alphas = np.logspace(-5, 0, 6) * np.linalg.eigvalsh(Ks[0])[-1]
    options = dict(mixtures=sample_mixtures(3, 2), alphas=alphas)
    with pytest.warns(UserWarning, match="float64") as caught:
        result = solve_banded_ridge(Ks, Y, **options)
    assert len(caught) == 1
    wide = solve_banded_ridge(Ks.astype(float), Y.astype(float), **options)
    np.testing.assert_allclose(result.cv_scores, wide.cv_scores, atol=5e-5)
    np.testing.assert_allclose(result.alpha, wide.alpha, rtol=1e-5)


def test_failed_eigendecomposition_is_repeated_in_float64(monkeypatch):
    _, Ks, Y = make_problem()
    Ks, Y = Ks.astype(np.float32), Y.astype(np.float32)
    options = dict(mixtures=sample_mixtures(3, 2), alphas=[30.0, 300.0], factors="float32")
    expected = solve_banded_ridge(Ks, Y, **options)
    eigh = torch.linalg.eigh

    def fail_in_float32(matrix):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", fail_in_float32)
    with pytest.warns(UserWarning, match="failed") as caught:
        result = solve_banded_ridge(Ks, Y, **options)
    assert len(caught) == 1
    np.testing.assert_allclose(result.cv_scores, expected.cv_scores, atol=1e-5)


@pytest.mark.parametrize("products", [12, 300])
def test_blocks_inverted_by_products_equal_lapack(products):
    rng = np.random.default_rng(0)
    root = torch.as_tensor(rng.standard_normal((2, 3, 45, 60)))
    blocks = root @ root.mT
    said = _fold_errors.Once()
    inverses = _fold_errors.invert_(blocks.clone(), said, leaf_size=products)
    torch.testing.assert_close(inverses, torch.linalg.inv(blocks), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("local_alpha", [True, False])
@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.usefixtures("way")
def test_batches_and_devices_change_nothing(local_alpha, form):
    Xs, Ks, Y = make_problem()
    options = dict(
        mixtures=sample_mixtures(5, 2),
        alphas=np.logspace(-1, 4, 7),
        local_alpha=local_alpha,
        Xs=Xs,
        form=form,
        fit_intercept=True,
    )
    expected = solve_banded_ridge(Ks, Y, **options)
    for changed in (
        dict(n_targets_batch=7),
        dict(n_alphas_batch=2, n_targets_batch=50),
        dict(device=["cpu", "cpu"]),
        dict(device=["cpu", "cpu", "cpu"], n_alphas_batch=3),
    ):
        result = solve_banded_ridge(Ks, Y, **options, **changed)
        np.testing.assert_allclose(result.cv_scores, expected.cv_scores, atol=1e-12)
        np.testing.assert_allclose(result.dual_weights, expected.dual_weights, atol=1e-12)
        assert (result.mixture_index == expected.mixture_index).all()
        assert (result.alpha == expected.alpha).all()


@pytest.mark.usefixtures("way")
def test_memory_that_runs_out_halves_the_batches(monkeypatch):
    _, Ks, Y = make_problem()
    options = dict(mixtures=sample_mixtures(3, 2), alphas=np.logspace(-1, 3, 6))
    expected = solve_banded_ridge(Ks, Y, **options)
    exact, exact_forms = _fold_errors.DualErrors.errors, _fold_errors.DualErrors._forms

    def errors(self, item, Y):
        if Y.shape[1] > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return exact(self, item, Y)

    def forms(self, rows):
        if len(rows) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return exact_forms(self, rows)

    monkeypatch.setattr(_fold_errors.DualErrors, "errors", errors)
    monkeypatch.setattr(_fold_errors.DualErrors, "_forms", forms)
    with pytest.warns(UserWarning, match="Memory ran out") as caught:
        result = solve_banded_ridge(Ks, Y, **options)
    assert len(caught) == 2
    np.testing.assert_allclose(result.cv_scores, expected.cv_scores, atol=1e-12)
    np.testing.assert_allclose(result.dual_weights, expected.dual_weights, atol=1e-12)

    def other(self, item, Y):
        raise RuntimeError("something else")

    monkeypatch.setattr(_fold_errors.DualErrors, "errors", other)
    with pytest.raises(RuntimeError, match="something else"):
        solve_banded_ridge(Ks, Y, **options, n_alphas_batch=2)


@pytest.mark.usefixtures("way")
def test_torch_in_torch_out():
    _, Ks, Y = make_problem()
    options = dict(mixtures=sample_mixtures(3, 2), alphas=np.logspace(-1, 3, 4))
    expected = solve_banded_ridge(Ks, Y, **options)
    result = solve_banded_ridge(torch.as_tensor(Ks), torch.as_tensor(Y), **options)
    for name in ("mixtures", "cv_scores", "mixture_index", "alpha", "dual_weights"):
        assert isinstance(getattr(result, name), torch.Tensor)
        assert isinstance(getattr(expected, name), np.ndarray)
        np.testing.assert_array_equal(getattr(result, name).numpy(), getattr(expected, name))
    assert result.primal_weights is None and result.intercept is None


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.usefixtures("way")
def test_constant_targets_get_no_weight_and_are_counted(form, fit_intercept):
    Xs, Ks, Y = make_problem(n_targets=30)
    Y[:, 3] = 0
    Y[:, 5] = 2.5
    options = dict(mixtures=sample_mixtures(3, 2), alphas=np.logspace(-1, 3, 4))
    options |= dict(fit_intercept=fit_intercept, Xs=Xs)
    result = solve_banded_ridge(Ks, Y, form=form, **options)
    assert result.n_constant_targets == 2
    assert (result.dual_weights[:, [3, 5]] == 0).all()
    assert (np.delete(result.dual_weights, [3, 5], axis=1) != 0).any(0).all()
    assert np.isfinite(result.cv_scores).all()
    if fit_intercept:
        assert result.intercept[3] == 0 and result.intercept[5] == 2.5


@pytest.mark.parametrize("n_spaces, n_mixtures", itertools.product((1, 2, 3, 6), (1, 2, 33)))
def test_mixtures_fill_the_simplex(n_spaces, n_mixtures):
    mixtures = sample_mixtures(n_mixtures, n_spaces, random_state=0)
    assert mixtures.shape == (n_mixtures, n_spaces)
    assert (mixtures >= 0).all()
    np.testing.assert_allclose(mixtures.sum(1), 1)
    if n_mixtures == 33:
        np.testing.assert_allclose(mixtures.mean(0), 1 / n_spaces, atol=0.05)
    if n_spaces > 2:
        np.testing.assert_allclose(mixtures[0], 1 / n_spaces)
        sparse = sample_mixtures(33, n_spaces, concentration=0.1, random_state=0)
        assert (sparse[1:].max(1) > 0.8).mean() > (mixtures.max(1) > 0.8).mean()


@pytest.mark.parametrize("n_mixtures", [2, 7, 20])
def test_mixtures_of_two_spaces_are_an_even_grid(n_mixtures):
    """Drawn at random, seven held one pure space twice and nothing between .68 and 1."""
    mixtures = sample_mixtures(n_mixtures, 2, random_state=0)
    np.testing.assert_allclose(np.sort(mixtures[:, 0]), np.arange(n_mixtures) / (n_mixtures - 1))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("form", ["dual", "primal"])
def test_pooled_prior_and_own_evidence_choose_the_mixture(form):
    Xs, Ks, Y = make_problem()
    Y[:, 5] = 0
    options = dict(mixtures=sample_mixtures(6, 2), alphas=np.logspace(-1, 3, 5), Xs=Xs, form=form)
    own = solve_banded_ridge(Ks, Y, **options)
    found = solve_banded_ridge(Ks, Y, mixture_prior="pooled", **options)
    np.testing.assert_array_equal(found.cv_scores, own.cv_scores)
    # likelihood of 60 samples, two of which count as one
    likelihood = (own.cv_scores.max(0) / np.where(own.cv_scores, own.cv_scores, 1)) ** 15
    likelihood[:, 5] = 1
    prior = found.mixture_prior[:, None]
    posterior = likelihood * prior / (likelihood * prior).sum(0)
    np.testing.assert_allclose(posterior.mean(1), prior[:, 0], atol=0.01)  # where EM comes to rest
    share = options["mixtures"][:, 0]
    index = np.abs(share[:, None] - share @ posterior).argmin(0)
    np.testing.assert_array_equal(found.mixture_index, index)
    assert 3 < np.sum(index != own.mixture_index) < 85
    # weights and alphas are those of the chosen mixture, as if it were the only one
    for k in np.unique(index):
        one = solve_banded_ridge(Ks, Y, **options | dict(mixtures=options["mixtures"][[k]]))
        where = index == k
        np.testing.assert_allclose(found.alpha[where], one.alpha[where])
        np.testing.assert_allclose(
            found.dual_weights[:, where], one.dual_weights[:, where], atol=1e-9
        )
    # handed on, the prior gives parts of the targets the same choice
    part = solve_banded_ridge(Ks, Y[:, :9], mixture_prior=found.mixture_prior, **options)
    np.testing.assert_array_equal(part.mixture_index, index[:9])
    for bad in ([0.5, 0.5], [0, 1, 1, 1, 1, 1], "shared"):
        with pytest.raises(ValueError, match="`mixture_prior` must be"):
            solve_banded_ridge(Ks, Y, mixture_prior=bad, **options)


OTHER_FOLDS = {
    "gaps": [
        (np.arange(25, 60), np.arange(20)),
        (np.r_[:15, 45:60], np.arange(20, 40)),
        (np.arange(35), np.arange(40, 60)),
    ],
    "unequal gaps": [(np.arange(21, 60), np.arange(20)), (np.arange(8), np.arange(20, 60))],
    "overlap": ShuffleSplit(3, random_state=0),
    "one fold": [(np.arange(40), np.arange(45, 60))],
}


@pytest.mark.parametrize("cv", OTHER_FOLDS.values(), ids=OTHER_FOLDS.keys())
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("form, n_targets", [("dual", 12), ("dual", 90), ("primal", 12)])
@pytest.mark.usefixtures("way")
def test_folds_that_do_not_partition_equal_himalaya(cv, fit_intercept, form, n_targets):
    Xs, Ks, Y = make_problem(n_features=(8, 4), n_targets=n_targets, centred=not fit_intercept)
    choices = dict(mixtures=sample_mixtures(3, 2), alphas=np.logspace(-1, 3, 4))
    choices |= dict(fit_intercept=fit_intercept, cv=cv)
    result = solve_banded_ridge(Ks, Y, Xs=Xs, form=form, **choices)
    oracle = search_with_himalaya(Ks, Y, **choices)
    same = assert_same_search(
        result, oracle, choices["mixtures"], choices["alphas"], score_bound=1e-8
    )
    np.testing.assert_allclose(result.dual_weights[:, same], oracle[3][:, same], atol=1e-7)


GOOD = dict(mixtures=[[0.5, 0.5]], alphas=[1.0], cv=5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(cv=1), "2 to 60 folds"),
        (dict(cv=[np.arange(60)]), "training"),
        (dict(cv=[np.arange(30), np.arange(0)]), "at least one sample"),
        (dict(cv=[np.arange(30), np.arange(30, 61)]), "0..59"),
        (dict(cv=[(np.arange(60), np.arange(10)), (np.arange(5), np.arange(10, 60))]), "train"),
        (dict(alphas=[1.0, 0.0]), "above 0"),
        (dict(alphas=[-1.0]), "above 0"),
        (dict(alphas=[np.nan]), "above 0"),
        (dict(alphas=[]), "n_alphas"),
        (dict(mixtures=[[0.5, 0.25, 0.25]]), "n_mixtures, 2"),
        (dict(mixtures=[[1.5, -0.5]]), "at least 0"),
        (dict(mixtures=[[0.5, 0.5], [0.0, 0.0]]), "weight above 0"),
        (dict(form="fast"), "form"),
        (dict(products="int8"), "products"),
        (dict(factors="bf16"), "factors"),
        (dict(return_weights="both"), "return_weights"),
        (dict(form="primal"), "Xs"),
        (dict(return_weights="primal"), "Xs"),
        (dict(device="tpu"), "device"),
    ],
    ids=lambda value: str(list(value))[2:-2] if isinstance(value, dict) else "",
)
def test_bad_options_are_refused(change, message):
    _, Ks, Y = make_problem(n_targets=5)
    with pytest.raises(ValueError, match=message):
        solve_banded_ridge(Ks, Y, **GOOD | change)


def test_bad_arrays_are_refused():
    Xs, Ks, Y = make_problem(n_targets=5)
    skewed, holed, indefinite, gap = Ks.copy(), Ks.copy(), -Ks, Y.copy()
    skewed[1, 3, 4] += 1
    holed[0, 2, 2] = np.nan
    gap[4, 4] = np.inf
    for bad, message in (
        ((skewed, Y), "symmetric.*kernel 1"),
        ((holed, Y), "finite.*kernel 0"),
        ((indefinite, Y), "positive semi-definite"),
        ((Ks, gap), "`Y` must be finite"),
        ((Ks[:, :50, :50], Y), "shape"),
        ((Ks[0], Y), "shape"),
        ((Ks, Y[:, 0]), "shape"),
        ((Ks.astype(np.float32), Y), "share kind, dtype and device"),
        ((torch.as_tensor(Ks), Y), "share kind, dtype and device"),
        ((Ks.astype(int), Y), "float32 or float64"),
        ((Ks.tolist(), Y), "NumPy array or torch tensor"),
        ((None, Y), "`Ks` or `Xs`"),
    ):
        with pytest.raises(ValueError, match=message):
            solve_banded_ridge(*bad, **GOOD)
    with pytest.raises(ValueError, match="`Xs\\[1\\]`"):
        solve_banded_ridge(Ks, Y, Xs=[Xs[0], Xs[1][:10]], **GOOD)
    with pytest.raises(ValueError, match="`Ks\\[1\\]` must be the kernel of `Xs\\[1\\]`"):
        solve_banded_ridge(Ks, Y, Xs=[Xs[0], 2 * Xs[1]], **GOOD)
    with pytest.raises(ValueError, match="n_mixtures"):
        sample_mixtures(0, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize(
    "dtype, products, bound",
    [
        (np.float64, "auto", 1e-9),
        (np.float32, "float32", 1e-4),
        (np.float32, "tf32", 5e-4),
        (np.float32, "bf16", 2e-3),
    ],
)
def test_cuda_equals_himalaya_in_float64(fit_intercept, form, dtype, products, bound):
    Xs, Ks, Y = make_problem(300, (80, 60), 900, centred=not fit_intercept)
    Xs, Ks, Y = [X.astype(dtype) for X in Xs], Ks.astype(dtype), Y.astype(dtype)
    choices = dict(mixtures=sample_mixtures(4, 2), alphas=np.logspace(0, 4, 6), cv=5)
    choices |= dict(fit_intercept=fit_intercept)
    before = torch.backends.cuda.matmul.allow_tf32
    result = solve_banded_ridge(
        Ks, Y, Xs=Xs, form=form, products=products, device="cuda", **choices
    )
    assert torch.backends.cuda.matmul.allow_tf32 == before
    oracle = search_with_himalaya(Ks, Y, **choices)
    assert_same_search(result, oracle, choices["mixtures"], choices["alphas"], score_bound=bound)
    scale = np.abs(oracle[3]).max()
    if bound < 1e-8:
        np.testing.assert_allclose(result.dual_weights, oracle[3], atol=1e-8 * scale)


@pytest.mark.gpu
def test_cuda_targets_stay_on_the_host_when_they_do_not_fit(monkeypatch):
    _, Ks, Y = make_problem(200, (80, 60), 3000)
    choices = dict(mixtures=sample_mixtures(4, 2), alphas=np.logspace(0, 4, 6))
    expected = solve_banded_ridge(Ks, Y, **choices)
    monkeypatch.setattr(solvers, "free_memory", lambda device: 2**22)
    result = solve_banded_ridge(Ks, Y, device="cuda", **choices)
    np.testing.assert_allclose(result.cv_scores, expected.cv_scores, atol=1e-10)
    np.testing.assert_allclose(result.dual_weights, expected.dual_weights, atol=1e-10)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("dtype, products", [(np.float64, "auto"), (np.float32, "tf32")])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_several_gpus_agree_with_one(dtype, products, fit_intercept):
    _, Ks, Y = make_problem(500, (80, 60), 3000)
    Ks, Y = Ks.astype(dtype), Y.astype(dtype)
    choices = dict(mixtures=sample_mixtures(7, 2), alphas=np.logspace(0, 4, 6))
    choices |= dict(products=products, fit_intercept=fit_intercept)
    one = solve_banded_ridge(Ks, Y, device="cuda:0", **choices)
    several = solve_banded_ridge(Ks, Y, device="auto", **choices)
    np.testing.assert_array_equal(several.cv_scores, one.cv_scores)
    np.testing.assert_array_equal(several.mixture_index, one.mixture_index)
    np.testing.assert_allclose(several.dual_weights, one.dual_weights, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(7, 300_000), (3000, 11), (0, 5)])
def test_cuda_arrays_come_to_the_host_as_they_are(shape):
    array = torch.randn(shape, device="cuda")
    torch.testing.assert_close(_fold_errors.to_host(array), array.cpu(), rtol=0, atol=0)


@pytest.mark.gpu
def test_cuda_product_of_split_operands_is_as_precise_as_float32():
    generator = torch.Generator("cuda").manual_seed(0)
    a = torch.randn(500, 2000, device="cuda", generator=generator)
    b = torch.randn(2000, 300, device="cuda", generator=generator)
    exact = a.double() @ b.double()
    error = (_fold_errors.product(a, b, "tf32x3") - exact).abs().max()
    assert error < 4 * (_fold_errors.product(a, b) - exact).abs().max()


@pytest.mark.gpu
def test_cuda_inverses_by_split_products_are_nearly_as_precise_as_float32():
    """Tensor cores round sums towards zero, which adds up in long ones."""
    generator = torch.Generator("cuda").manual_seed(0)
    root = torch.randn(3, 2504, 2600, device="cuda", generator=generator)
    matrices = root @ root.mT / 2600 + torch.eye(2504, device="cuda")
    exact = torch.linalg.inv(matrices.double())
    split, plain, tf32 = (
        (_fold_errors.invert_(matrices.clone(), _fold_errors.Once(), precision) - exact).abs().max()
        for precision in ("tf32x3", "float32", "tf32")
    )
    assert split < 16 * plain
    assert split < tf32 / 16
    exact = root.double() @ root.double().mT
    split, plain = (
        (_fold_errors.gram(root.mT, precision) - exact).abs().max()
        for precision in ("tf32x3", "float32")
    )
    assert split < 16 * plain


@pytest.mark.gpu
def test_cuda_search_over_many_samples_with_alphas_that_need_float64():
    _, Ks, Y = make_problem(1100, (400, 300), 1500)
    largest = np.linalg.eigvalsh(Ks)[:, -1].max()
    choices = dict(mixtures=sample_mixtures(2, 2), alphas=np.array([1e-6, 1e-2, 1]) * largest)
    exact = solve_banded_ridge(Ks, Y, device="cuda", **choices)
    with pytest.warns(UserWarning, match="computed in float64"):
        single = solve_banded_ridge(
            Ks.astype(np.float32), Y.astype(np.float32), device="cuda", **choices
        )
    np.testing.assert_allclose(single.cv_scores, exact.cv_scores, atol=5e-4)


def test_threads_share_targets_and_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    Xs = [rng.standard_normal((60, n)) for n in (80, 90)]
    Ks, Y = np.stack([X @ X.T / X.shape[1] for X in Xs]), rng.standard_normal((60, 131))
    before, found = torch.get_num_threads(), []
    how = {"mixtures": np.array([[0.2, 0.8], [1, 0]]), "alphas": [0.1, 10], "n_targets_batch": 20}
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            shared = mock.Mock(side_effect=solvers._share)
            monkeypatch.setattr(solvers, "_share", shared)
            found.append(solve_banded_ridge(Ks, Y, **how))
            monkeypatch.undo()
            assert shared.called == (n_threads > 1)
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for name in ("cv_scores", "alpha", "mixture_index", "dual_weights"):
        np.testing.assert_allclose(getattr(found[1], name), getattr(found[0], name), rtol=1e-9)
