"""A small copy of the tree of the 7 T movies of the Human Connectome Project: names, few voxels.

The times of the clips are made up: the project's own are in its table.
"""

import nibabel as nib
import numpy as np
import pandas as pd
from skeletons import film_content

RUNS = ("tfMRI_MOVIE1_7T_AP", "tfMRI_MOVIE2_7T_PA", "tfMRI_MOVIE3_7T_PA", "tfMRI_MOVIE4_7T_AP")
FILMS = ("7T_MOVIE1_CC1", "7T_MOVIE2_HO1", "7T_MOVIE3_CC2", "7T_MOVIE4_HO2")
# two clips and the one that all four films end with, 20 s of rest before each
CLIPS = pd.DataFrame(
    {
        "movie": np.repeat([1, 2, 3, 4], 3),
        "clip": ["a", "b", "end", "c", "d", "end", "e", "f", "end", "g", "h", "end"],
        "onset": [20, 160, 300, 20, 150, 280, 20, 170, 310, 20, 160, 290],
        "duration": [120, 120, 80, 110, 110, 82, 130, 120, 81, 120, 110, 83],
    }
)
VOLUMES = (400, 380, 410, 390)
N_VERTICES = 40


def _axis():
    sides = [
        nib.cifti2.BrainModelAxis.from_surface(
            np.arange(N_VERTICES) * 7, 32492, name=f"CIFTI_STRUCTURE_CORTEX_{side}"
        )
        for side in ("LEFT", "RIGHT")
    ]
    return sides[0] + sides[1]


def make_release(root, *, subjects=("100610", "102311"), meshes=("_1.6mm", "")):
    """Write runs of both meshes, and both versions of the films."""
    for i, name in enumerate(FILMS):
        for j, (folder, version) in enumerate((("Pre", ""), ("Post", "_v2"))):
            path = root / "films" / f"{folder}_20140821_version" / f"{name}{version}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(film_content(2 * i + j, 395))
    rng = np.random.default_rng(0)
    for subject in subjects:
        for run, n_volumes in zip(RUNS, VOLUMES, strict=True):
            folder = root / subject / "MNINonLinear" / "Results" / run
            folder.mkdir(parents=True)
            for mesh in meshes:
                data = rng.normal(1000, 10, (n_volumes, 2 * N_VERTICES)).astype(np.float32)
                header = (nib.cifti2.SeriesAxis(0, 1.0, n_volumes), _axis())
                name = f"{run}_Atlas{mesh}_MSMAll_hp2000_clean.dtseries.nii"
                nib.save(nib.Cifti2Image(data, header=header), folder / name)
