"""The shared response model: few time courses that several people have in common."""

import numpy as np

from brainnrds._checks import InputError

__all__ = ["fit_basis", "shared_response"]


def shared_response(bold, n_features, *, n_iter=10):
    """Split responses of people into shared time courses and a basis for each person.

    Minimises the sum over people of :math:`\\|X_i - S W_i^\\top\\|^2` with orthonormal columns in
    each :math:`W_i`, by solving for one while the other stands: the deterministic form of [1]_. It
    begins with the leading left singular vectors of all responses side by side, so that nothing is
    random.

    Parameters
    ----------
    bold : list of arrays of shape (n_samples, n_voxels)
        Of people, row by row the same moment of the same film. Numbers of voxels may differ.
    n_features : int
        Time courses: at most as many as samples, and as voxels of any person.
    n_iter : int, default=10

    Returns
    -------
    shared : array of shape (n_samples, n_features)
        S.
    bases : list of arrays of shape (n_voxels, n_features)
        W of each person.

    References
    ----------
    .. [1] Chen PH, et al. (2015). A reduced-dimension fMRI shared response model. Advances in
       Neural Information Processing Systems 28, 460-468.
    """
    most = min([len(bold[0]), *(person.shape[1] for person in bold)])
    if not 1 <= n_features <= most:
        raise InputError(f"`n_features` must lie between 1 and {most}; got {n_features}.")
    together = np.concatenate(bold, axis=1)
    shared = np.linalg.svd(together, full_matrices=False)[0][:, :n_features]
    for _ in range(n_iter):
        bases = [fit_basis(person, shared) for person in bold]
        shared = np.mean([p @ w for p, w in zip(bold, bases, strict=True)], axis=0)
    return shared, bases


def fit_basis(bold, shared):
    """Find the basis with orthonormal columns that best leads from shared time courses to a person.

    Parameters
    ----------
    bold : array of shape (n_samples, n_voxels)
    shared : array of shape (n_samples, n_features)

    Returns
    -------
    basis : array of shape (n_voxels, n_features)
        The solution of the orthogonal Procrustes problem [1]_.

    References
    ----------
    .. [1] Schönemann PH (1966). A generalized solution of the orthogonal Procrustes problem.
       Psychometrika 31, 1-10.
    """
    left, _, right = np.linalg.svd(bold.T @ shared, full_matrices=False)
    return left @ right
