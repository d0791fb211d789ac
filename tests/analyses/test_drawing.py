"""Which figure a space gets: flatmap, slices, or none; and what it is given to draw."""

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker, SurfaceMasker
from nilearn.surface import PolyMesh, SurfaceImage

from brainnrds.analyses import drawing


def surface_masker(n_vertices):
    """A masker of two meshes without faces that matter."""
    coordinates = np.random.default_rng(0).normal(size=(n_vertices, 3)).astype(np.float32)
    mesh = {"coordinates": coordinates, "faces": np.array([[0, 1, 2]])}
    from nilearn.surface import InMemoryMesh

    half = InMemoryMesh(**mesh)
    image = SurfaceImage(
        PolyMesh(left=half, right=half),
        {part: np.ones(n_vertices, np.float32) for part in ("left", "right")},
    )
    return SurfaceMasker(mask_img=image).fit()


def volume_masker():
    mask = nib.Nifti1Image(np.ones((6, 7, 5), np.int8), np.diag([30.0, 30.0, 30.0, 1.0]))
    return NiftiMasker(mask_img=mask).fit()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_an_own_volume_becomes_slices_and_has_no_surface():
    masker = volume_masker()
    values = np.linspace(-1, 1, 6 * 7 * 5)
    suffix, _ = drawing.draw_map(masker, values, "T1w", title="", label="r", signed=True, vmax=1)
    assert suffix == "image"
    assert drawing.draw_surface(masker, values, "T1w", title="") is None
    parcels = np.full(values.size, 2.0), {2: "MT"}
    (suffix, page), *others = drawing.draw_viewers(
        masker, {"r": values}, "T1w", q_values={"r": values}, signed={"r"}, parcels=parcels
    )
    assert suffix == "slices" and not others
    assert '"shape": [6, 7, 5]' in page and '"parcelNames": ["MT"]' in page


def test_a_volume_without_cortex_becomes_slices():
    """A mask below the brain: no vertex has a value, and an MNI volume is drawn all the same."""
    affine = nib.affines.from_matvec(10 * np.eye(3), [0, 0, -150])
    masker = NiftiMasker(mask_img=nib.Nifti1Image(np.ones((2, 2, 2), np.int8), affine)).fit()
    values, space = np.linspace(-1, 1, 8), "MNI152NLin2009cAsym"
    suffix, _ = drawing.draw_map(masker, values, space, title="", label="r", signed=True, vmax=1)
    assert suffix == "image"
    assert drawing.draw_surface(masker, values, space, title="") is None
    pages = drawing.draw_viewers(
        masker, {"r": values}, space, q_values={"r": np.ones(8)}, signed={"r"}
    )
    assert [suffix for suffix, _ in pages] == ["slices"]


def test_a_mesh_that_has_no_drawing_has_none():
    masker = surface_masker(50)
    values = np.arange(100.0)
    assert drawing.draw_map(masker, values, "mine", title="", label="r") is None
    assert drawing.draw_surface(masker, values, "mine", title="") is None
    assert drawing.draw_viewers(masker, {"r": values}, "mine", q_values={}, signed=set()) == []


class Grayordinates:
    """A masker of CIFTI on a mesh that is not fs_LR 32k."""

    def __init__(self, n_vertices):
        axis = nib.cifti2.BrainModelAxis.from_mask
        mask = np.ones(n_vertices, bool)
        self.models = axis(mask, name="CortexLeft") + axis(mask, name="CortexRight")

    def inverse_transform(self, values):
        scalars = nib.cifti2.ScalarAxis(["map"])
        return nib.Cifti2Image(np.atleast_2d(values), header=(scalars, self.models))


def test_grayordinates_of_another_mesh_have_no_drawing():
    masker, values = Grayordinates(59), np.arange(118.0)
    assert drawing.draw_map(masker, values, "fsLR", title="", label="r") is None
    assert drawing.draw_surface(masker, values, "fsLR", title="") is None
    assert drawing.draw_viewers(masker, {"r": values}, "fsLR", q_values={}, signed=set()) == []


def test_a_volume_of_the_template_has_a_brain_to_turn_and_slices():
    masker = volume_masker()
    values = np.linspace(0.1, 1, 6 * 7 * 5)
    q_values = np.where(values > 0.5, 0.01, np.nan)
    pages = drawing.draw_viewers(
        masker,
        {"r": values, "nothing": np.zeros(values.size)},
        "MNI152NLin6Asym",
        q_values={"r": q_values, "nothing": q_values},
        signed=set(),
    )
    assert [suffix for suffix, _ in pages] == ["viewer", "slices"]
    assert '"name": "nothing"' not in pages[0][1], "nothing on the cortex"


def test_flatmaps_get_values_and_significance_of_the_same_vertices(monkeypatch):
    masker = surface_masker(10242)
    values = np.random.default_rng(1).normal(size=20484).astype(np.float32)
    p_values = np.where(values > 0, 0.01, np.nan)
    drawn = {}
    monkeypatch.setattr(
        drawing,
        "plot_difference_map",
        lambda difference, p, **options: drawn.update(difference=difference, p=p, **options),
    )
    suffix, _ = drawing.draw_map(
        masker, values, "fsaverage5", title="t", label="r", p_values=p_values, signed=True, vmax=2
    )
    assert suffix == "flatmap" and drawn["vmax"] == 2
    np.testing.assert_array_equal(drawn["difference"], values)
    assert "positive" not in drawn  # video against image, as plot_difference_map says by itself
    # a voxel that was not tested is drawn as not significant
    np.testing.assert_allclose(drawn["p"], np.where(values > 0, 0.01, 1.0))


def test_unique_variance_is_no_contest():
    masker = surface_masker(10242)
    values = np.random.default_rng(1).normal(size=20484).astype(np.float32)
    told = []
    for contest in (True, False):
        _, figure = drawing.draw_map(
            masker,
            values,
            "fsaverage5",
            title="",
            label="unique R2",
            p_values=np.full(20484, 0.01),
            signed=True,
            contest=contest,
        )
        told.append(" ".join(axes.get_xlabel() for axes in figure.axes))
    assert "image better" in told[0] and "video better" in told[0]
    assert "unique R2" in told[1] and "better" not in told[1]
