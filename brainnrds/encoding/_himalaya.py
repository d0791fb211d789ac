"""himalaya's searches over mixtures of kernels, beside our exact one."""

import warnings
from contextlib import contextmanager

import numpy as np

from brainnrds.encoding._memory import free_memory

# himalaya divides by the weights of a mixture: none may vanish in float32
_SMALLEST_SHARE = 1e-5


def random_search(Ks, Y, *, Xs, mixtures, alphas, folds, device, verbose):
    """Search given mixtures and penalties.

    Parameters
    ----------
    Ks : array of shape (n_spaces, n_samples, n_samples) or None
        Kernels; None to work with the columns `Xs`.
    Y : array of shape (n_samples, n_targets)
    Xs : list of arrays of shape (n_samples, n_columns) or None
    mixtures : array of shape (n_mixtures, n_spaces)
    alphas : array of shape (n_alphas,)
    folds : list of (train, test) arrays of int
    device : str
    verbose : bool

    Returns
    -------
    shares : array of shape (n_spaces, n_targets)
        The chosen mixture of each target.
    alphas : array of shape (n_targets,)
    cv_scores : array of shape (n_mixtures, n_targets)
    dual_weights : array of shape (n_samples, n_targets) or None
    primal_weights : array of shape (n_columns, n_targets) or None
    """
    n_samples = len(Y)
    n_rank = n_samples if Xs is None else min(n_samples, sum(X.shape[1] for X in Xs))
    mixtures = np.maximum(mixtures, _SMALLEST_SHARE)
    mixtures = mixtures / mixtures.sum(1, keepdims=True)

    def search(dtype):
        with himalaya_backend(device) as backend:
            options = {
                "n_iter": backend.asarray(mixtures.astype(dtype)),
                "alphas": backend.asarray(alphas.astype(dtype)),
                "cv": folds,
                "progress_bar": verbose,
                **_batch_sizes(n_samples, n_rank, Y.shape[1], folds, alphas, device),
            }
            targets = backend.asarray(Y.astype(dtype))
            if Xs is not None:
                from himalaya.ridge import solve_group_ridge_random_search

                columns = [backend.asarray(X.astype(dtype)) for X in Xs]
                found = solve_group_ridge_random_search(
                    columns, targets, return_weights=True, warn=False, **options
                )
            else:
                from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

                kernels = backend.asarray(Ks.astype(dtype))
                found = solve_multiple_kernel_ridge_random_search(
                    kernels, targets, return_weights="dual", **options
                )
            return _to_host(backend, found[:3])

    deltas, weights, cv_scores = _in_single_or_double(search)
    shares, penalties = _from_deltas(deltas)
    if Xs is not None:
        return shares, penalties, cv_scores, None, weights
    return shares, penalties, cv_scores, weights / penalties, None


def hyper_gradient(Ks, Y, *, Xs, mixtures, alphas, folds, device, verbose):
    """As :func:`random_search`, by gradient descent: `Xs`, `mixtures` and `alphas` are not used."""
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_hyper_gradient

    sizes = _batch_sizes(len(Y), len(Y), Y.shape[1], folds, alphas, device)

    def search(dtype):
        with himalaya_backend(device) as backend:
            found = solve_multiple_kernel_ridge_hyper_gradient(
                backend.asarray(Ks.astype(dtype)),
                backend.asarray(Y.astype(dtype)),
                cv=folds,
                return_weights="dual",
                n_targets_batch=sizes["n_targets_batch"],
                progress_bar=verbose,
            )
            return _to_host(backend, found[:3])

    deltas, weights, cv_scores = _in_single_or_double(search)
    shares, penalties = _from_deltas(deltas)
    return shares, penalties, cv_scores, weights / penalties, None


def _to_host(backend, parts):
    return tuple(np.asarray(backend.to_numpy(part), dtype=np.float32) for part in parts)


def _from_deltas(deltas):
    """Mixture weights that sum to 1, and penalties, from himalaya's log(weight / penalty)."""
    weights = np.exp(deltas.astype(np.float64))
    total = weights.sum(0)
    return (weights / total).astype(np.float32), (1 / total).astype(np.float32)


def _in_single_or_double(search):
    """Run a search in float32, and in float64 where a factorisation fails."""
    try:
        found = search(np.float32)
        if all(np.isfinite(part).all() for part in found[1:]):
            return found
        problem = "gave non-finite weights"
    except (np.linalg.LinAlgError, RuntimeError) as error:
        if "out of memory" in str(error):
            raise
        problem = f"failed ({error})"
    warnings.warn(
        f"the float32 factorisation {problem}: repeating in float64.", RuntimeWarning, stacklevel=3
    )
    return search(np.float64)


@contextmanager
def himalaya_backend(device):
    """Switch himalaya's process-wide backend to a device, and back again.

    Parameters
    ----------
    device : str
        "cpu" takes its NumPy backend, "cuda" and "cuda:<n>" its torch_cuda backend.

    Yields
    ------
    backend : module
    """
    from himalaya.backend import get_backend, set_backend

    before = get_backend()
    try:
        if device == "cpu":
            yield set_backend("numpy")
        else:
            import torch

            with torch.cuda.device(device if ":" in device else torch.cuda.current_device()):
                yield set_backend("torch_cuda")
    finally:
        set_backend(before)


def _batch_sizes(n_samples, n_rank, n_targets, folds, alphas, device):
    """Targets and penalties per batch that keep himalaya's intermediates in a quarter of memory.

    It holds one (n_alphas, n_rank, n_train) resolution matrix and several arrays of predictions
    (n_alphas, n_test, n_targets).
    """
    budget = free_memory(device) / 4
    if device == "cpu":
        budget = min(budget, 2e9)
    n_test = max(len(test) for _, test in folds)
    per_alpha = 4 * n_samples * max(n_rank, n_test)
    n_alphas_batch = int(np.clip(budget / 2 / per_alpha, 1, len(alphas)))
    per_target = 4 * 4 * n_alphas_batch * max(n_test, 1)
    n_targets_batch = int(np.clip(budget / 2 / per_target, 1, n_targets))
    per_target_refit = 4 * 3 * n_samples * n_alphas_batch
    return {
        "n_alphas_batch": n_alphas_batch,
        "n_targets_batch": n_targets_batch,
        "n_targets_batch_refit": int(np.clip(budget / 2 / per_target_refit, 1, n_targets)),
    }
