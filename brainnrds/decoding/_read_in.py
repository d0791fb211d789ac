"""The layer that reads a person's voxels: what it gives for a motion, and its fit to a target."""

import numpy as np
from sklearn.utils.extmath import randomized_svd

_N_COMPONENTS = 10  # of flow, as in the selection of voxels
# ridge predicts less spread than there is, and the trunk knows the spread of others' layers
_SPREADS = (1.0, 1.5, 2.0, 3.0)
_PENALTIES = np.logspace(-2, 5, 22)  # times the mean square of a window


class ReadInOfFlow:
    """What the read-in layers of several people give, on average, where the motion is this.

    Least squares of the layers' output on the first principal components of the flow: what people
    have in common, whatever films they saw.
    """

    def __init__(self, flow, output, seed):
        flow = flow.reshape(len(flow), -1)
        self.mean = flow.mean(axis=0)
        n_components = min(_N_COMPONENTS, *flow.shape)
        _, sizes, components = randomized_svd(
            flow - self.mean, n_components, random_state=seed, n_iter=4
        )
        self.components = components[sizes > 1e-3 * sizes[0]]
        self.weights = np.linalg.lstsq(self._project(flow), output, rcond=None)[0]

    def _project(self, flow):
        projected = (flow - self.mean) @ self.components.T
        return np.concatenate([projected, np.ones((len(flow), 1), projected.dtype)], axis=1)

    def __call__(self, flow):
        """Flow (n_clips, n_steps, 2, height, width) -> (n_clips, n_bold_channels)."""
        return self._project(flow.reshape(len(flow), -1)) @ self.weights


def ridge_read_ins(windows, target, train, validation):
    """Fit linear layers from windows of BOLD to a target; penalty by the validation rows.

    Parameters
    ----------
    windows : array of shape (n_samples, n_inputs)
        Standardised.
    target : array of shape (n_samples, n_bold_channels)
        Rows with NaN have none.
    train, validation : int arrays
        Row numbers. Without validation rows the penalty is that of a leave-one-out.

    Returns
    -------
    layers : list of (weight, bias)
        Of float32, (n_bold_channels, n_inputs) and (n_bold_channels,): ridge regression, then the
        same with its output spread around the mean by larger factors. None where fewer than two
        training rows have a target.
    """
    known = np.isfinite(target).all(axis=1)
    train, validation = train[known[train]], validation[known[validation]]
    if len(train) < 2:
        return []
    X, y = windows[train].astype(np.float64), target[train].astype(np.float64)
    x_mean, y_mean = X.mean(axis=0), y.mean(axis=0)
    X, y = X - x_mean, y - y_mean
    left, sizes, right = _singular_vectors(X)
    projected = left.T @ y
    apart = (windows[validation] - x_mean) @ right.T
    penalties = _PENALTIES * np.mean(X**2) * len(X)
    errors = []
    for penalty in penalties:
        if len(validation):
            predicted = apart @ (projected * (sizes / (sizes**2 + penalty))[:, None]) + y_mean
            errors.append(np.sum((target[validation] - predicted) ** 2))
        else:
            shrunk = sizes**2 / (sizes**2 + penalty)
            leverage = np.sum(left**2 * shrunk, axis=1) + 1 / len(X)
            away = (y - left @ (projected * shrunk[:, None])) / (1 - leverage)[:, None]
            errors.append(np.sum(away**2))
    penalty = penalties[int(np.argmin(errors))]
    weight = (projected * (sizes / (sizes**2 + penalty))[:, None]).T @ right
    return [
        ((f * weight).astype(np.float32), (y_mean - f * weight @ x_mean).astype(np.float32))
        for f in _SPREADS
    ]


def _singular_vectors(X):
    """Thin SVD by the smaller of both Gram matrices: windows may be far longer than samples."""
    if len(X) > X.shape[1]:
        left, sizes, right = _singular_vectors(X.T)
        return right.T, sizes, left.T
    power, left = np.linalg.eigh(X @ X.T)
    kept = power > 1e-10 * max(power[-1], 1e-300)
    sizes, left = np.sqrt(power[kept]), left[:, kept]
    return left, sizes, left.T @ X / sizes[:, None]
