"""Components of the weights over voxels: along which features do responses differ most?"""

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_voxels

__all__ = ["weight_components"]


def weight_components(models, feature_space=None, *, voxels=None, n_components=3):
    """Find the principal components of the weights over voxels, as in Huth et al. [1]_ [2]_.

    A voxel's weights, summed over delays, say which features it responds to. Scaled to length 1,
    so that it does not count how strongly, they differ between voxels along few directions: the
    first components. Three of them are drawn as red, green and blue
    (:func:`brainnrds.plotting.plot_rgb_map`): voxels of one colour respond to the same features.

    Parameters
    ----------
    models : VideoEncodingModel, or sequence of them
        Fitted. Several, of people who saw films in the same feature space, get common components:
        of the mean of their covariances, so that everybody counts alike.
    feature_space : str or None, default=None
        May be left out if there is only one.
    voxels : bool array of shape (n_voxels,), or sequence of them, default=None
        Voxels that the components are found in and that get a value, for each model: those that
        the space predicts. The weights of others are noise. None is all.
    n_components : int, default=3

    Returns
    -------
    found : Bunch
        ``components`` : array of shape (n_components, n_features), of length 1, those with most
        variance first. The sign is that of the larger loadings: the sum of their third powers is
        positive. ``scores`` : array of shape (n_components, n_voxels), or list of them, of each
        voxel on the components, NaN elsewhere. ``explained`` : array of shape (n_components,),
        share of the variance over voxels.

    Raises
    ------
    InputError
        There are fewer features, or fewer voxels with weights, than components; models differ in
        their features.

    References
    ----------
    .. [1] Huth AG, Nishimoto S, Vu AT, Gallant JL (2012). A continuous semantic space describes the
       representation of thousands of object and action categories across the human brain. Neuron
       76(6), 1210-1224.
    .. [2] Huth AG, de Heer WA, Griffiths TL, Theunissen FE, Gallant JL (2016). Natural speech
       reveals the semantic maps that tile human cerebral cortex. Nature 532, 453-458.
    """
    alone = hasattr(models, "predict")
    models = [models] if alone else list(models)
    given = [voxels] if alone else [None] * len(models) if voxels is None else list(voxels)
    chosen = []
    for i, model in enumerate(models):
        check_is_fitted(model, "mixtures_")
        chosen.append(check_voxels(given[i], model.n_voxels_))
    moments = [
        _moments(model, feature_space, some) for model, some in zip(models, chosen, strict=True)
    ]
    sizes = {covariance.shape[0] for _, covariance in moments}
    fewest = min(len(some) for some in chosen)
    if len(sizes) > 1 or min(*sizes, fewest - 1) < n_components:
        raise InputError(
            f"`models` must have the same features, at least {n_components}, and more voxels with "
            f"weights; got {sorted(sizes)} features and {fewest} voxels."
        )
    mean = np.mean([m for m, _ in moments], axis=0)
    # about the common mean, as that is taken off the scores of all
    about = [c + np.outer(m - mean, m - mean) for m, c in moments]
    variances, vectors = np.linalg.eigh(np.mean(about, axis=0))
    components = vectors[:, ::-1][:, :n_components].T
    signs = np.sign(np.sum(components**3, axis=1, keepdims=True))
    components = components * np.where(signs == 0, 1, signs)
    total = variances.clip(min=0).sum()
    scores = [
        _scores(model, feature_space, some, components, mean)
        for model, some in zip(models, chosen, strict=True)
    ]
    return Bunch(
        components=components,
        scores=scores[0] if alone else scores,
        explained=variances[::-1][:n_components] / (total if total > 0 else 1.0),
    )


def _directions(model, feature_space, voxels):
    """Yield some of the voxels and their weights, (n_features, n_voxels), of length 1."""
    for some, weights in model._weights_in_batches(feature_space, voxels):
        weights = weights.sum(0, dtype=np.float64)
        length = np.linalg.norm(weights, axis=0)
        yield some, weights / np.where(length > 0, length, 1)


def _moments(model, feature_space, voxels):
    """Mean and covariance of the voxels' directions."""
    total, products = 0.0, 0.0
    for _, directions in _directions(model, feature_space, voxels):
        total = total + directions.sum(1)
        products = products + directions @ directions.T
    mean = total / max(len(voxels), 1)
    return mean, products / max(len(voxels), 1) - np.outer(mean, mean)


def _scores(model, feature_space, voxels, components, mean):
    scores = np.full((len(components), model.n_voxels_), np.nan)
    for some, directions in _directions(model, feature_space, voxels):
        scores[:, some] = components @ (directions - mean[:, None])
    return scores
