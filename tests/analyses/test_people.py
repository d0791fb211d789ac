"""Results of several people: what lies next to what, and whose are found."""

import nibabel as nib
import numpy as np

from brainnrds.analyses.people import map_neighbours
from brainnrds.io import CiftiMasker


def test_grayordinates_have_neighbours_where_their_mesh_is_known():
    axis = nib.cifti2.BrainModelAxis
    mask = np.ones((3, 3, 3))
    voxels = axis.from_mask(mask, name="thalamus_left", affine=np.eye(4))
    vertices = axis.from_surface(np.arange(10242), 10242, name="CIFTI_STRUCTURE_CORTEX_LEFT")
    neighbours, reason = map_neighbours(CiftiMasker(vertices + voxels))
    assert neighbours.shape == (10269, 10269) and reason is None
    assert neighbours.sum() == 2 * (3 * (10242 - 2) + 54)  # Euler's formula; 54 faces of voxels
    neighbours, reason = map_neighbours(CiftiMasker(voxels))
    assert neighbours.sum() == 2 * 54
    few = axis.from_surface(np.arange(7), 7, name="CIFTI_STRUCTURE_CORTEX_LEFT")
    neighbours, reason = map_neighbours(CiftiMasker(few + voxels))
    assert neighbours is None and "mesh of this surface is not known" in reason
