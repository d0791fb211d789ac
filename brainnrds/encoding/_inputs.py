"""Checks of what a banded-ridge search is given: arrays, mixtures, penalties, folds, devices."""

import numpy as np
import torch
from sklearn.model_selection import KFold

from brainnrds._checks import InputError, check_device


def check_choice(name, value, choices):
    if value not in choices:
        raise InputError(f"`{name}` must be one of {choices}; got {value!r}.")


def check_arrays(Ks, Xs, Y):
    """Return tensors of one kind, dtype and device, checked."""
    if Ks is None and Xs is None:
        raise InputError("`Ks` or `Xs` must be given; got None for both.")
    given = {"Ks": Ks, "Y": Y} | {f"Xs[{i}]": X for i, X in enumerate(Xs or ())}
    given = {name: array for name, array in given.items() if array is not None}
    kinds = set()
    for name, array in given.items():
        if not isinstance(array, (np.ndarray, torch.Tensor)):
            raise InputError(f"`{name}` must be a NumPy array or torch tensor; got {type(array)}.")
        tensor = torch.as_tensor(array)
        if tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(f"`{name}` must be float32 or float64; got {array.dtype}.")
        kinds.add((isinstance(array, np.ndarray), tensor.dtype, tensor.device))
    if len(kinds) > 1:
        found = ", ".join(
            f"{name}: {type(array).__name__} {array.dtype} on {getattr(array, 'device', 'cpu')}"
            for name, array in given.items()
        )
        raise InputError(f"`Ks`, `Xs` and `Y` must share kind, dtype and device; got {found}.")
    Y = torch.as_tensor(Y).detach()
    if Y.ndim != 2 or 0 in Y.shape:
        raise InputError(f"`Y` must have shape (n_samples, n_targets); got {tuple(Y.shape)}.")
    if Xs is not None:
        Xs = [torch.as_tensor(X).detach() for X in Xs]
        for i, X in enumerate(Xs):
            if X.ndim != 2 or len(X) != len(Y) or 0 in X.shape:
                raise InputError(
                    f"`Xs[{i}]` must have shape ({len(Y)}, n_features); got {tuple(X.shape)}."
                )
            if not torch.isfinite(X).all():
                raise InputError(f"`Xs[{i}]` must be finite; got non-finite values.")
    if Ks is not None:
        Ks = torch.as_tensor(Ks).detach()
        if Ks.ndim != 3 or len(Ks) == 0 or Ks.shape[1:] != (len(Y), len(Y)):
            raise InputError(
                f"`Ks` must have shape (n_spaces, {len(Y)}, {len(Y)}) for the {len(Y)} samples of "
                f"`Y`; got {tuple(Ks.shape)}."
            )
        if Xs is not None and len(Xs) != len(Ks):
            raise InputError(f"`Xs` must have one array per kernel ({len(Ks)}); got {len(Xs)}.")
    return Ks, Xs, Y


def check_symmetric(Ks):
    tolerance = 1e-4 if Ks.dtype == torch.float32 else 1e-6
    for i, K in enumerate(Ks):
        size = float(K.abs().max())
        if not np.isfinite(size):
            raise InputError(f"`Ks` must be finite; got non-finite values in kernel {i}.")
        difference = float((K - K.T).abs().max())
        if difference > tolerance * size:
            raise InputError(
                f"`Ks` must be symmetric; got a difference of {difference:.3g} between kernel {i} "
                f"and its transpose, whose largest value is {size:.3g}."
            )


def check_kernels_of(Xs, Ks):
    for i, (X, K) in enumerate(zip(Xs, Ks, strict=True)):
        expected, diagonal = X.square().sum(1), K.diagonal().to(X.device)
        if not torch.allclose(diagonal, expected, rtol=1e-3, atol=1e-3 * float(expected.max())):
            raise InputError(
                f"`Ks[{i}]` must be the kernel of `Xs[{i}]`, X X'; got another diagonal."
            )


def check_targets(Y):
    """Refuse targets that are not finite; tell which are constant."""
    low, high = Y.amin(0), Y.amax(0)  # several times as fast as aminmax() on a CPU
    finite = torch.isfinite(low) & torch.isfinite(high)
    if not finite.all():
        raise InputError(
            f"`Y` must be finite; got non-finite values in {int((~finite).sum())} of "
            f"{Y.shape[1]} targets."
        )
    return low == high


def check_mixtures(mixtures, n_spaces):
    mixtures = torch.as_tensor(np.asarray(torch.as_tensor(mixtures).cpu(), dtype=np.float64))
    if mixtures.ndim != 2 or len(mixtures) == 0 or mixtures.shape[1] != n_spaces:
        raise InputError(
            f"`mixtures` must have shape (n_mixtures, {n_spaces}); got {tuple(mixtures.shape)}."
        )
    if not (torch.isfinite(mixtures).all() and (mixtures >= 0).all()):
        raise InputError("`mixtures` must be finite and at least 0; got other values.")
    if (mixtures.sum(1) == 0).any():
        raise InputError("`mixtures` must have a weight above 0 each; got one of zeros.")
    return mixtures


def check_alphas(alphas):
    """Return penalties as float64, (n_alphas,)."""
    alphas = np.atleast_1d(np.asarray(torch.as_tensor(alphas).cpu(), dtype=np.float64))
    if alphas.ndim != 1 or len(alphas) == 0:
        raise InputError(f"`alphas` must have shape (n_alphas,); got {alphas.shape}.")
    if not (np.isfinite(alphas).all() and alphas.min() > 0):
        raise InputError(f"`alphas` must be finite and above 0; got {alphas.min():g}.")
    return alphas


def check_devices(device, home):
    if device is None:
        return [str(home)]
    if device == "auto" and torch.cuda.is_available():
        return [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    names = [device] if isinstance(device, (str, torch.device)) else list(device)
    return [check_device(str(name)) for name in names]


def _splits(cv, n_samples):
    """Return the folds of `cv` as (train, test) index pairs."""
    everything = np.arange(n_samples)
    if isinstance(cv, (int, np.integer)):
        if not 2 <= cv <= n_samples:
            raise InputError(f"`cv` must be 2 to {n_samples} folds; got {cv}.")
        cv = KFold(int(cv))
    splits = []
    for fold in cv.split(np.zeros((n_samples, 1))) if hasattr(cv, "split") else cv:
        if isinstance(fold, tuple) and len(fold) == 2 and np.ndim(fold[0]) == 1:
            train, test = (_check_index(part, n_samples) for part in fold)
        else:
            test = _check_index(fold, n_samples)
            train = np.setdiff1d(everything, test)
            if len(train) == 0:
                raise InputError("Every fold of `cv` must leave training samples; got all tested.")
        if len(np.intersect1d(train, test)):
            raise InputError("`cv` must not train on test samples; got a fold that does.")
        splits.append((train, test))
    return splits


def _check_index(index, n_samples):
    index = np.asarray(index)
    if index.dtype == bool and index.shape == (n_samples,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or index.dtype.kind not in "iu" or len(index) == 0:
        raise InputError(
            f"Every fold of `cv` must hold at least one sample index; got {index.dtype} of shape "
            f"{index.shape}."
        )
    if index.min() < 0 or index.max() >= n_samples or len(np.unique(index)) != len(index):
        raise InputError(
            f"The indices of a fold of `cv` must be unique and in 0..{n_samples - 1}; got "
            f"{index.min()}..{index.max()}, {len(np.unique(index))} unique of {len(index)}."
        )
    return index.astype(np.int64)


def check_folds(cv, n_samples):
    """Return the samples that each fold tests, and those that it neither tests nor trains on."""
    folds = []
    for train, test in _splits(cv, n_samples):
        gap = np.setdiff1d(np.arange(n_samples), np.concatenate([train, test]))
        folds.append((torch.as_tensor(test), torch.as_tensor(gap)))
    return folds
