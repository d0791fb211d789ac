"""Which hemisphere each voxel of a map lies in, where the space says so."""

import nibabel as nib
import numpy as np

from brainnrds.io import CiftiMasker

__all__ = ["voxel_sides"]


def voxel_sides(masker, space):
    """Hemisphere of each voxel: "L", "R", or "" for what lies on the midline or has no side.

    Parameters
    ----------
    masker : fitted masker
    space : str or None
        Volumes have sides in MNI spaces alone, where x is 0 between the hemispheres.

    Returns
    -------
    sides : array of str of shape (n_voxels,), or None
        None where the space does not tell sides.
    """
    if isinstance(masker, CiftiMasker):
        models = masker.brain_models
        sides = np.full(len(models), "", dtype="<U1")
        for name, where, _ in models.iter_structures():
            for end, side in (("_LEFT", "L"), ("_RIGHT", "R")):
                if name.endswith(end):
                    sides[where] = side
        return sides
    if hasattr(masker.mask_img_, "mesh"):
        parts = masker.mask_img_.data.parts
        return np.repeat(["L", "R"], [len(parts[side]) for side in ("left", "right")])
    if not str(space).startswith("MNI"):
        return None
    inside = np.argwhere(np.asarray(masker.mask_img_.dataobj) > 0)
    x = nib.affines.apply_affine(masker.mask_img_.affine, inside)[:, 0]
    half = np.linalg.norm(masker.mask_img_.affine[:3, 0]) / 4
    return np.where(x < -half, "L", np.where(x > half, "R", ""))
