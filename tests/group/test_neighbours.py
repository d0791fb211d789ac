from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_fsaverage

from brainnrds._checks import InputError
from brainnrds.group import grayordinate_neighbours, mesh_neighbours, volume_neighbours

TETRAHEDRON = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])


def pairs(neighbours):
    """Pairs of places that are neighbours, each once; symmetric and without places themselves."""
    dense = neighbours.toarray()
    assert (dense == dense.T).all() and not dense.diagonal().any()
    return {(i, j) for i, j in np.argwhere(dense).tolist() if i < j}


def next_to_each_other(voxels):
    """Pairs of voxels that share a face, by their distance."""
    return {
        (i, j)
        for i, j in combinations(range(len(voxels)), 2)
        if np.abs(np.subtract(voxels[i], voxels[j])).sum() == 1
    }


def test_hemispheres_are_no_neighbours():
    both = mesh_neighbours(TETRAHEDRON, TETRAHEDRON[:1], n_vertices=(4, 3))
    right = {(4, 5), (4, 6), (5, 6)}
    assert pairs(both) == set(combinations(range(4), 2)) | right


def test_an_icosahedral_mesh_has_twelve_vertices_of_five_neighbours():
    faces = load_fsaverage("fsaverage5")["pial"].parts["left"].faces
    counts = mesh_neighbours(faces, n_vertices=[10242]).sum(axis=1)
    assert np.sum(counts == 5) == 12 and np.sum(counts == 6) == 10242 - 12


def test_voxels_that_share_a_face_are_neighbours():
    mask = np.random.default_rng(0).random((4, 3, 5)) > 0.4
    assert pairs(volume_neighbours(mask)) == next_to_each_other(np.argwhere(mask))


def test_grayordinates_are_neighbours_within_their_structure():
    mask = np.zeros((4, 4, 4))
    mask[:2], mask[2:] = 1, 2
    kept = [0, 1, 3]  # vertex 2 is medial wall
    axes = [
        nib.cifti2.BrainModelAxis.from_surface(kept, 4, name="CIFTI_STRUCTURE_CORTEX_LEFT"),
        nib.cifti2.BrainModelAxis.from_mask(mask == 1, name="thalamus_left", affine=np.eye(4)),
        nib.cifti2.BrainModelAxis.from_mask(mask == 2, name="thalamus_right", affine=np.eye(4)),
    ]
    models = axes[0] + axes[1] + axes[2]
    # in any order of the voxels of a structure
    order = np.r_[0:3, 3 + np.random.default_rng(0).permutation(32), 35:67]
    models = models[order]
    found = grayordinate_neighbours(models, {"CIFTI_STRUCTURE_CORTEX_LEFT": TETRAHEDRON})
    expected = {(0, 1), (0, 2), (1, 2)}
    for start, stop in ((3, 35), (35, 67)):
        voxels = models.voxel[start:stop]
        expected |= {(start + i, start + j) for i, j in next_to_each_other(voxels)}
    assert pairs(found) == expected


def test_what_is_no_mesh_or_mask_is_refused():
    with pytest.raises(InputError, match="vertices below 3; got 3"):
        mesh_neighbours(TETRAHEDRON, n_vertices=[3])
    with pytest.raises(InputError, match="one number for each of 1 meshes"):
        mesh_neighbours(TETRAHEDRON, n_vertices=[4, 4])
    with pytest.raises(InputError, match="three dimensions"):
        volume_neighbours(np.ones((3, 3)))
    models = nib.cifti2.BrainModelAxis.from_surface([0], 4, name="CIFTI_STRUCTURE_CORTEX_RIGHT")
    with pytest.raises(InputError, match="must hold CIFTI_STRUCTURE_CORTEX_RIGHT; got none"):
        grayordinate_neighbours(models, {})
