"""A grid as text makes the images that the data's own masker makes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import brainnrds.io as io
from brainnrds.io.images import make_masker, make_surface_masker

INSIDE = np.random.default_rng(0).random((7, 6, 5)) > 0.5


def volume_masker():
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = -10, 5, 2
    mask = nib.Nifti1Image(INSIDE.astype(np.uint8), affine)
    return make_masker((Path("bold.nii.gz"),), mask)


def cifti_masker():
    surface = nib.cifti2.BrainModelAxis.from_surface([1, 4, 7], 10, name="CortexLeft")
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1, 2, 1:3] = True
    volume = nib.cifti2.BrainModelAxis.from_mask(mask, "ThalamusLeft", affine=np.eye(4))
    return io.CiftiMasker(surface + volume)


@pytest.mark.parametrize("kind", ["volume", "surface", "grayordinates"])
def test_a_described_grid_makes_the_same_images(kind, tmp_path):
    masker, n_voxels = {
        "volume": lambda: (volume_masker(), int(INSIDE.sum())),
        "surface": lambda: (make_surface_masker(12, 9), 21),
        "grayordinates": lambda: (cifti_masker(), 5),
    }[kind]()
    grid = json.loads(json.dumps(io.describe_grid(masker)))
    again = io.masker_of(grid)
    series = np.random.default_rng(1).normal(size=(3, n_voxels)).astype(np.float32)
    for i, one in enumerate((masker, again)):
        paths = io.save_series(
            tmp_path / str(i),
            series,
            one,
            {"subject": "01", "space": "x", "desc": "encode"},
            t_r=1.5,
        )
        read = io.load_map(paths, masker)
        np.testing.assert_array_equal(read, series)
        about = io.load_json(paths[0].with_name(paths[0].name.split(".")[0] + ".json"))
        assert about["RepetitionTime"] == 1.5
        if kind == "volume":
            assert nib.load(paths[0]).header.get_zooms()[3] == 1.5
        if kind == "grayordinates":
            assert nib.load(paths[0]).header.get_axis(0).step == 1.5


@pytest.mark.parametrize(
    "grid",
    [{}, {"kind": "volume", "shape": [2, 2, 2], "affine": [], "mask": "x"}, {"kind": "surface"}],
)
def test_what_describes_no_grid_is_refused(grid):
    with pytest.raises(io.InputError, match="must describe where voxels lie"):
        io.masker_of(grid)
