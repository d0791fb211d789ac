"""Which figure a space gets: flatmap, slices, or none; and what it is given to draw."""

import warnings

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker
from pycortex_store import make_meshes, write_pycortex_subject

from brainnrds.analyses import drawing
from brainnrds.io import CiftiMasker
from brainnrds.io.images import make_surface_masker


def surface_masker(n_vertices):
    return make_surface_masker(n_vertices, n_vertices)


def cifti_masker(n_left, n_right):
    axis = nib.cifti2.BrainModelAxis.from_mask
    return CiftiMasker(
        axis(np.ones(n_left, bool), name="CortexLeft")
        + axis(np.ones(n_right, bool), name="CortexRight")
    )


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


def noted(*arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawing.note_on_figures(*arguments)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("masker", "space", "expected"),
    [
        (cifti_masker(59, 59), "fsLR", "no mesh of 59 and 59 vertices is at hand; --pycortex-sub"),
        (surface_masker(59), "fsnative", "no mesh of 59 and 59 vertices is at hand"),
        # fs_LR of 164k is not fsaverage, though it has as many vertices
        (surface_masker(163842), "fsLR", "no mesh of 163842 and 163842 vertices is at hand"),
    ],
    ids=["cifti", "fsnative", "fsLR164k"],
)
def test_meshes_that_are_not_at_hand_have_no_drawing_and_the_report_says_why(
    masker, space, expected
):
    n = 2 * 59 if expected.count("59") else 2 * 163842
    values = np.arange(1.0, n + 1)
    assert drawing.draw_map(masker, values, space, title="", label="r") is None
    assert drawing.draw_surface(masker, values, space, title="") is None
    assert drawing.draw_components(masker, [values] * 3, space, title="", labels="abc") is None
    assert drawing.draw_viewers(masker, {"r": values}, space, q_values={}, signed=set()) == []
    (line,) = noted(masker, space, None)
    assert expected in line and "\n" not in line


@pytest.mark.parametrize(("half", "space"), [(40962, "fsaverage6"), (163842, "fsaverage")])
def test_a_denser_fsaverage_is_drawn_on_the_sparser_and_the_report_says_so(half, space):
    masker = surface_masker(half)
    values = np.linspace(0.1, 1, 2 * half)
    labels = np.repeat([1.0, 2.0], half), {1: "left one", 2: "right one"}
    suffix, _ = drawing.draw_map(masker, values, space, title="", label="r")
    assert suffix == "flatmap"
    q_values = {"r": np.full(2 * half, 0.01)}
    ((suffix, page),) = drawing.draw_viewers(
        masker, {"r": values}, space, q_values=q_values, signed=set(), parcels=labels
    )
    assert suffix == "viewer" and '"nLeft": 10242' in page and "right one" in page
    (line,) = noted(masker, space, None)
    assert line.startswith(f"Figures of {space} show the vertices that fsaverage5 has, 10242 of")


@pytest.mark.parametrize(
    ("masker", "space"),
    [
        (surface_masker(10242), "fsaverage5"),
        (cifti_masker(32492, 32492), "fsLR"),
        (volume_masker(), "T1w"),
        (volume_masker(), "MNI152NLin6Asym"),
    ],
    ids=["fsaverage5", "fsLR", "T1w", "MNI"],
)
def test_of_what_is_drawn_as_ever_nothing_is_said(masker, space):
    assert noted(masker, space, None) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_pycortex_subject(folder / "sub-01")
    write_pycortex_subject(folder / "uncut", make_meshes(flat=False))
    return folder


def native_masker(x=-82.0):
    """A box of 4 mm around both hemispheres of the store's subject, or beside them."""
    affine = nib.affines.from_matvec(4 * np.eye(3), [x, -40, -40])
    mask = nib.Nifti1Image(np.ones((42, 21, 21), np.int8), affine)
    return NiftiMasker(mask_img=mask).fit()


@pytest.mark.parametrize("kind", ["volume", "surface", "cifti"])
def test_native_data_are_drawn_on_the_participants_own_surfaces(store, kind):
    masker, space, pages = {
        "volume": (native_masker(), "T1w", ["viewer", "slices"]),
        "surface": (make_surface_masker(1026, 258), "fsnative", ["viewer"]),
        "cifti": (cifti_masker(1026, 258), "fsLR", ["viewer"]),
    }[kind]
    folder = drawing.find_pycortex_subject(f"{store}/sub-{{subject}}", "01", masker, space)
    assert folder == f"{store}/sub-01"
    values = np.linspace(0.1, 1, 42 * 21 * 21 if kind == "volume" else 1284)
    surfaces = {"pycortex_subject": folder}
    for signed in (False, True):
        suffix, _ = drawing.draw_map(
            masker, values, space, title="", label="r", p_values=values, signed=signed, **surfaces
        )
        assert suffix == "flatmap"
    assert drawing.draw_surface(masker, values, space, title="", **surfaces)[0] == "surface"
    three = [values, values[::-1], values**2]
    drawn = drawing.draw_components(masker, three, space, title="", labels="abc", **surfaces)
    assert drawn[0] == "flatmap"
    made = drawing.draw_viewers(
        masker, {"r": values}, space, q_values={"r": values}, signed=set(), **surfaces
    )
    assert [suffix for suffix, _ in made] == pages
    assert '"nLeft": 1026' in made[0][1]
    assert noted(masker, space, folder) == []


def test_a_cortex_that_nobody_cut_is_turned_but_not_flat(store):
    masker, folder = native_masker(), f"{store}/uncut"
    values = np.linspace(0.1, 1, 42 * 21 * 21)
    surfaces = {"pycortex_subject": folder}
    suffix, _ = drawing.draw_map(masker, values, "T1w", title="", label="r", **surfaces)
    assert suffix == "image"
    made = drawing.draw_viewers(masker, {"r": values}, "T1w", q_values={}, signed=set(), **surfaces)
    assert [suffix for suffix, _ in made] == ["viewer", "slices"]
    (line,) = noted(masker, "T1w", folder)
    assert line.startswith("No flatmaps: ")


@pytest.mark.parametrize(
    ("masker", "space", "name", "expected"),
    [
        (native_masker(), "T1w", "nobody", "pycortex subject .*nobody must be a folder of a pycor"),
        (native_masker(), "MNI152NLin6Asym", "sub-01", "own space; the data are volumes in MNI152"),
        (native_masker(x=900), "T1w", "sub-01", "must lie where the data are, in mm; no vertex"),
        (surface_masker(1026), "fsnative", "sub-01", "data, 1026 and 1026 .*; got 1026 and 258 in"),
    ],
    ids=["missing", "template", "elsewhere", "another mesh"],
)
def test_surfaces_that_are_not_those_of_the_data_are_refused(store, masker, space, name, expected):
    with pytest.raises(ValueError, match=f"--pycortex-subject.*{expected}"):
        drawing.find_pycortex_subject(f"{store}/{name}", "01", masker, space)


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
