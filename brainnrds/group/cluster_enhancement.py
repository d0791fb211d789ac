"""Threshold-free cluster enhancement: support from neighbours, without a threshold to choose."""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from brainnrds._checks import InputError

__all__ = ["tfce"]


def tfce(maps, neighbours, *, step=0.1, extent_power=0.5, height_power=2.0, two_sided=True):
    """Enhance values that have support in their neighbourhood.

    .. math:: TFCE(v) = \\int_0^{x(v)} e(h)^E h^H dh

    with e(h) the number of voxels in the cluster above h that holds v [1]_, by the midpoint rule.
    Negative values are enhanced likewise and keep their sign.

    Parameters
    ----------
    maps : array of shape (n_maps, n_voxels)
        Statistics such as t.
    neighbours : sparse array of shape (n_voxels, n_voxels)
        Symmetric, as from `mesh_neighbours`, `volume_neighbours` and `grayordinate_neighbours`.
    step : float, default=0.1
        dh, in units of the statistic.
    extent_power : float, default=0.5
        E. On surfaces 1 is common, too.
    height_power : float, default=2.0
        H.
    two_sided : bool, default=True
        False: what is below 0 becomes 0.

    Returns
    -------
    enhanced : array of float64 of shape (n_maps, n_voxels)

    References
    ----------
    .. [1] Smith SM, Nichols TE (2009). Threshold-free cluster enhancement: addressing problems of
       smoothing, threshold dependence and localisation in cluster inference. NeuroImage 44, 83-98.
    """
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 2 or neighbours.shape != (maps.shape[1],) * 2:
        raise InputError(
            "`maps` (n_maps, n_voxels) and `neighbours` (n_voxels, n_voxels) must go together; got "
            f"{maps.shape} and {neighbours.shape}."
        )
    if not np.isfinite(maps).all():
        raise InputError("`maps` must be finite; got values that are not.")
    if not step > 0:
        raise InputError(f"`step` must be above 0; got {step}.")
    edges = neighbours.tocoo()
    upper = edges.row < edges.col
    edges = edges.row[upper], edges.col[upper]
    how = step, extent_power, height_power
    enhanced = _enhance(maps, edges, *how)
    return enhanced - _enhance(-maps, edges, *how) if two_sided else enhanced


def _enhance(maps, edges, step, extent_power, height_power):
    """Enhance what is above 0, all maps at once: as one graph, a part for each map."""
    n_maps, n_voxels = maps.shape
    values = maps.ravel()
    shift = n_voxels * np.arange(n_maps)[:, None]
    first, second = ((ends + shift).ravel() for ends in edges)
    low = np.minimum(values[first], values[second])
    some = low > 0
    order = np.argsort(-low[some])
    first, second, low = first[some][order], second[some][order], low[some][order]
    nodes = np.argsort(-values)
    heights = values[nodes]
    place = np.empty(len(values), dtype=np.int64)
    place[nodes] = np.arange(len(values))
    # the nodes above any height are now the first ones
    first, second = place[first], place[second]
    enhanced = np.zeros(len(values))
    for height in np.arange(step / 2, heights[0], step):
        n_nodes = np.searchsorted(-heights, -height)
        n_edges = np.searchsorted(-low, -height)
        ends = first[:n_edges], second[:n_edges]
        graph = csr_array((np.ones(n_edges, dtype=bool), ends), shape=(n_nodes, n_nodes))
        labels = connected_components(graph, directed=False)[1]
        extent = np.bincount(labels)[labels]
        enhanced[:n_nodes] += extent**extent_power * height**height_power * step
    result = np.empty(len(values))
    result[nodes] = enhanced
    return result.reshape(maps.shape)
