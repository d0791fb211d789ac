"""Which places of a map are neighbours: on meshes, in volumes and among grayordinates."""

import numpy as np
from scipy.sparse import block_diag, csr_array

from brainnrds._checks import InputError

__all__ = ["grayordinate_neighbours", "mesh_neighbours", "volume_neighbours"]


def mesh_neighbours(*faces, n_vertices):
    """Neighbours on the meshes of hemispheres, one after the other.

    Parameters
    ----------
    *faces : arrays of int of shape (n_faces, 3)
        Triangles of each hemisphere.
    n_vertices : sequence of int
        Of each hemisphere.

    Returns
    -------
    neighbours : csr_array of bool of shape (n_voxels, n_voxels)
        Symmetric. Vertices that share an edge are neighbours.
    """
    if len(faces) != len(n_vertices):
        raise InputError(
            f"`n_vertices` must have one number for each of {len(faces)} meshes; got {n_vertices}."
        )
    parts = []
    for triangles, n in zip(faces, n_vertices, strict=True):
        triangles = np.asarray(triangles)
        if triangles.size and not 0 <= triangles.min() <= triangles.max() < n:
            raise InputError(f"`faces` must name vertices below {n}; got {triangles.max()}.")
        edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        parts.append(_symmetric(edges[:, 0], edges[:, 1], n))
    return csr_array(block_diag(parts, format="csr"))


def volume_neighbours(mask):
    """Neighbours among the voxels of a mask: those that share a face.

    Parameters
    ----------
    mask : array of bool of shape (n_x, n_y, n_z)

    Returns
    -------
    neighbours : csr_array of bool of shape (n_voxels, n_voxels)
        Symmetric; voxels in the order of ``values[mask]``.
    """
    mask = np.asarray(mask) > 0
    if mask.ndim != 3:
        raise InputError(f"`mask` must have three dimensions; got shape {mask.shape}.")
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    first, second = [], []
    for axis in range(3):
        here = np.moveaxis(number, axis, 0)
        both = (here[:-1] >= 0) & (here[1:] >= 0)
        first.append(here[:-1][both])
        second.append(here[1:][both])
    return _symmetric(np.concatenate(first), np.concatenate(second), int(mask.sum()))


def grayordinate_neighbours(brain_models, faces):
    """Neighbours among grayordinates: on each cortex by edges, in each nucleus by faces of voxels.

    Parameters
    ----------
    brain_models : nibabel.cifti2.BrainModelAxis
    faces : dict of str to array of int of shape (n_faces, 3)
        Triangles of each cortex that `brain_models` holds, by its CIFTI name, such as
        "CIFTI_STRUCTURE_CORTEX_LEFT".

    Returns
    -------
    neighbours : csr_array of bool of shape (n_voxels, n_voxels)
        Symmetric. Parts of different structures are no neighbours.
    """
    parts = []
    for name, _, part in brain_models.iter_structures():
        if name in part.nvertices:
            if name not in faces:
                raise InputError(f"`faces` must hold {name}; got {', '.join(faces) or 'none'}.")
            whole = mesh_neighbours(faces[name], n_vertices=[part.nvertices[name]])
            parts.append(whole[part.vertex][:, part.vertex])
            continue
        inside = np.zeros(part.volume_shape, dtype=bool)
        inside[tuple(part.voxel.T)] = True
        # where each grayordinate stands among the voxels of the mask
        place = (np.cumsum(inside.ravel()) - 1).reshape(inside.shape)[tuple(part.voxel.T)]
        parts.append(volume_neighbours(inside)[place][:, place])
    return csr_array(block_diag(parts, format="csr"))


def _symmetric(first, second, n):
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    neighbours = csr_array((np.ones(2 * len(first), dtype=bool), ends), shape=(n, n))
    neighbours.sum_duplicates()
    return neighbours
