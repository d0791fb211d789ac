"""Banded ridge by kernels: an exact K-fold search from one eigendecomposition per mixture.

With ``K`` the kernel of a mixture of feature spaces, ``G = (K + alpha I)^-1`` on all samples and
``f`` the samples of one fold, the residual of the fold under the model trained on all the others is

    y_f - prediction_f = [G_ff]^-1 (G y)_f

so no fold is ever trained. It follows from the inverse of a partitioned matrix and is the block
form of the leave-one-out residual ``(G y)_i / G_ii`` [1]_ [2]_. With an intercept that is not
penalised, ``M = G - G 1 1' G / (1' G 1)``, the upper left block of the inverse of
``[[K + alpha I, 1], [1', 0]]``, takes the place of ``G`` [3]_.

References
----------
.. [1] Wahba G (1990). Spline models for observational data. SIAM. Chapter 4.
.. [2] Rifkin RM, Lippert RA (2007). Notes on regularized least squares. MIT-CSAIL-TR-2007-025.
.. [3] Cawley GC, Talbot NLC (2004). Fast exact leave-one-out cross-validation of sparse
   least-squares support vector machines. Neural Networks 17(10).
"""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["BandedRidgeResult", "solve_banded_ridge"]

# equal scores go to the larger alpha, as in himalaya's `_select_best_alphas`
_TIE_SLOPE = 1e-10


@dataclass(frozen=True)
class BandedRidgeResult:
    """What a banded-ridge search found. Arrays are of the inputs' kind (NumPy or torch).

    Attributes
    ----------
    mixtures : array of shape (n_mixtures, n_spaces)
        The mixtures that were offered.
    cv_scores : array of shape (n_mixtures, n_targets)
        Minus the mean squared error, averaged over folds, at each target's best alpha.
        NaN for mixtures that were not searched because the search stopped early.
    mixture_index : int array of shape (n_targets,)
        The row of `mixtures` that scored best.
    alpha : array of shape (n_targets,)
    dual_weights : array of shape (n_samples, n_targets) or None
        The prediction is ``sum_i mixture[i] * K_i(test, train) @ dual_weights + intercept``.
    primal_weights : array of shape (n_features, n_targets) or None
        The prediction is ``concatenate(Xs, 1) @ primal_weights + intercept``.
    intercept : array of shape (n_targets,) or None
        None without `fit_intercept`.
    n_constant_targets : int
        Targets without variance: their weights are 0.
    n_searched : int
        Number of mixtures that were searched.
    """

    mixtures: object
    cv_scores: object
    mixture_index: object
    alpha: object
    dual_weights: object
    primal_weights: object
    intercept: object
    n_constant_targets: int
    n_searched: int


def solve_banded_ridge(
    Ks,
    Y,
    *,
    mixtures,
    alphas,
    cv=5,
    fit_intercept=False,
    local_alpha=True,
    Xs=None,
    return_weights="dual",
    device=None,
):
    """Choose a mixture of feature spaces and an alpha per target by exact cross-validation.

    Parameters
    ----------
    Ks : array of shape (n_spaces, n_samples, n_samples)
        One kernel per feature space, symmetric, float32 or float64; NumPy or torch.
    Y : array of shape (n_samples, n_targets)
        Targets, of the same kind, dtype and device.
    mixtures : array of shape (n_mixtures, n_spaces)
        Weights of the kernels, at least 0; `sum_i mixture[i] * Ks[i]` is the kernel of a mixture.
    alphas : array of shape (n_alphas,)
        Ridge penalties, above 0.
    cv : int, list of index arrays, list of (train, test) pairs or splitter, default=5
        The folds. An int cuts the samples into that many contiguous folds; a list of index arrays
        names the test samples of each fold.
    fit_intercept : bool, default=False
        Without it, kernels and targets are taken to be centred.
    local_alpha : bool, default=True
        An alpha (and a mixture) per target; False: one for all targets.
    Xs : list of arrays of shape (n_samples, n_features_i), optional
        The features behind the kernels, for primal weights.
    return_weights : {"dual", "primal", None}, default="dual"
    device : str, optional
        Where to compute; by default where the inputs are.

    Returns
    -------
    result : BandedRidgeResult
    """
    is_numpy = isinstance(Ks, np.ndarray)
    home = torch.device("cpu") if is_numpy else Ks.device
    device = home if device is None else torch.device(device)
    Ks = torch.as_tensor(Ks).to(device)
    Y = torch.as_tensor(Y).to(device)
    mixtures = torch.as_tensor(np.asarray(mixtures)).to(Ks)
    alphas = torch.as_tensor(np.asarray(alphas)).to(Ks).reshape(-1)
    folds = [torch.as_tensor(test).to(device) for test in _test_folds(cv, len(Y))]

    n_samples, n_targets = Y.shape
    cv_scores = Y.new_empty(len(mixtures), n_targets)
    best = Y.new_full((n_targets,), -np.inf)
    mixture_index = torch.zeros(n_targets, dtype=torch.int64, device=device)
    alpha = Y.new_full((n_targets,), float(alphas.max()))
    tolerance = torch.finfo(Y.dtype).eps
    for i, mixture in enumerate(mixtures):
        eigenvalues, vectors = torch.linalg.eigh(torch.tensordot(mixture, Ks, 1))
        eigenvalues = eigenvalues.clamp_min(0)
        projected = vectors.T @ Y
        scores = torch.stack(
            [
                -_mean_squared_error(eigenvalues, vectors, projected, a, folds, fit_intercept)
                for a in alphas
            ]
        )
        slope = (_TIE_SLOPE * alphas.double().log())[:, None]
        ranked = scores.double() + slope
        if local_alpha:
            choice = ranked.argmax(0)
        else:
            choice = ranked.mean(1).argmax().expand(n_targets)
        cv_scores[i] = scores.gather(0, choice[None])[0]
        if local_alpha:
            better = cv_scores[i] > best + tolerance
        else:
            better = (cv_scores[i].mean() > best.mean() + tolerance).expand(n_targets)
        best = torch.where(better, cv_scores[i], best)
        mixture_index[better] = i
        alpha = torch.where(better, alphas[choice], alpha)

    constant = (Y == Y[:1]).all(0)
    dual_weights, intercept = _refit(Ks, Y, mixtures, mixture_index, alpha, fit_intercept)
    dual_weights[:, constant] = 0
    if intercept is not None:
        intercept[constant] = Y[0, constant]
    primal_weights = None
    if return_weights == "primal":
        weighted = mixtures[mixture_index].T
        primal_weights = torch.cat(
            [
                weight * (torch.as_tensor(X).to(Y).T @ dual_weights)
                for weight, X in zip(weighted, Xs, strict=True)
            ]
        )

    def export(tensor):
        if tensor is None:
            return None
        return tensor.cpu().numpy() if is_numpy else tensor.to(home)

    return BandedRidgeResult(
        mixtures=export(mixtures),
        cv_scores=export(cv_scores),
        mixture_index=export(mixture_index),
        alpha=export(alpha),
        dual_weights=export(dual_weights) if return_weights == "dual" else None,
        primal_weights=export(primal_weights),
        intercept=export(intercept),
        n_constant_targets=int(constant.sum()),
        n_searched=len(mixtures),
    )


def _test_folds(cv, n_samples):
    if isinstance(cv, (int, np.integer)):
        return np.array_split(np.arange(n_samples), cv)
    splits = list(cv.split(np.zeros((n_samples, 1)))) if hasattr(cv, "split") else list(cv)
    return [
        np.asarray(split[1] if isinstance(split, tuple) and len(split) == 2 else split)
        for split in splits
    ]


def _mean_squared_error(eigenvalues, vectors, projected, alpha, folds, fit_intercept):
    shrinkage = alpha / (eigenvalues + alpha)
    error = 0
    ones = vectors.sum(0)
    for test in folds:
        left = vectors[test] * shrinkage
        block = left @ vectors[test].T
        if fit_intercept:
            row = shrinkage * ones
            column = left @ ones
            total = row @ ones
            left = left - torch.outer(column, row) / total
            block = block - torch.outer(column, column) / total
        residual = torch.linalg.solve(block, left @ projected)
        error = error + residual.square().mean(0)
    return error / len(folds)


def _refit(Ks, Y, mixtures, mixture_index, alpha, fit_intercept):
    dual_weights = torch.zeros_like(Y)
    intercept = torch.zeros_like(Y[0]) if fit_intercept else None
    for i in torch.unique(mixture_index).tolist():
        chosen = (mixture_index == i).nonzero()[:, 0]
        eigenvalues, vectors = torch.linalg.eigh(torch.tensordot(mixtures[i], Ks, 1))
        gain = 1 / (eigenvalues.clamp_min(0)[:, None] + alpha[chosen])
        projected = vectors.T @ Y[:, chosen]
        if fit_intercept:
            ones = vectors.sum(0)[:, None]
            shift = (ones * gain * projected).sum(0) / (ones**2 * gain).sum(0)
            projected = projected - ones * shift
            intercept[chosen] = shift
        dual_weights[:, chosen] = vectors @ (gain * projected)
    return dual_weights, intercept
