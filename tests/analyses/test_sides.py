"""Hemispheres of voxels in each kind of space."""

import nibabel as nib
import numpy as np
from nilearn.maskers import NiftiMasker

from brainnrds.analyses.sides import voxel_sides
from brainnrds.io import CiftiMasker
from brainnrds.io.images import make_surface_masker


def test_volumes_have_sides_in_mni_space_alone():
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -4  # x from -4 to 4
    mask = nib.Nifti1Image(np.ones((5, 2, 1), np.uint8), affine)
    masker = NiftiMasker(mask, standardize=None).fit()
    sides = voxel_sides(masker, "MNI152NLin2009cAsym")
    image = masker.inverse_transform((sides == "R").astype(np.float32)).get_fdata()
    np.testing.assert_array_equal(image[:, 0, 0], [0, 0, 0, 1, 1])
    assert (sides == "").sum() == 2 and (sides == "L").sum() == 4
    assert voxel_sides(masker, "T1w") is None
    # stored from right to left, it is the same side
    turned = nib.Nifti1Image(np.ones((5, 2, 1), np.uint8), affine * [[-1], [1], [1], [1]])
    other = voxel_sides(NiftiMasker(turned, standardize=None).fit(), "MNI152NLin6Asym")
    assert other[0] == "R" and other[-1] == "L"


def test_grayordinates_and_surfaces_have_them():
    models = nib.cifti2.BrainModelAxis.from_mask(np.ones(3), "CORTEX_LEFT")
    models += nib.cifti2.BrainModelAxis.from_mask(np.ones(2), "CORTEX_RIGHT")
    models += nib.cifti2.BrainModelAxis.from_mask(
        np.ones((1, 1, 2)), "BRAIN_STEM", affine=np.eye(4)
    )
    sides = voxel_sides(CiftiMasker(models), "fsLR")
    assert sides.tolist() == ["L"] * 3 + ["R"] * 2 + [""] * 2
    masker = make_surface_masker(4, 5)
    assert voxel_sides(masker, "fsnative").tolist() == ["L"] * 4 + ["R"] * 5
