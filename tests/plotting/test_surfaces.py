"""Meshes: those at hand, those of a pycortex store, and which vertex has which value."""

import nibabel
import numpy as np
import pytest
from nilearn.datasets import load_fsaverage
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from pycortex_store import N_VERTICES, make_meshes, write_pycortex_subject
from scipy import sparse

from brainnrds.plotting import image_to_vertices, load_pycortex_subject, plot_flatmap, surfaces

TEMPLATES = {"fsaverage5": surfaces.load_fsaverage5, "fsLR": surfaces.load_fs_lr}


def test_the_first_vertices_of_a_denser_fsaverage_are_those_of_the_sparser():
    """What is at hand shows the rule: the first quarter of fsaverage5 is a sphere of its own.

    All others lie between two of them. Dividing goes on in the same way to fsaverage6 and fsaverage
    (FreeSurfer's ic6 and ic7: their first 10,242 vertices equal these to 1e-7 of the radius).
    """
    for mesh in load_fsaverage("fsaverage5")["sphere"].parts.values():
        xyz = mesh.coordinates / np.linalg.norm(mesh.coordinates, axis=1, keepdims=True)
        edges = np.sort(np.concatenate([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)]), axis=1)
        edges = np.unique(edges, axis=0)
        assert not (edges < 2562).all(axis=1).any()
        between = edges[(edges[:, 0] < 2562) & (edges[:, 1] >= 2562)]
        between = between[np.argsort(between[:, 1], kind="stable")]
        assert (between[::2, 1] == np.arange(2562, 10242)).all()
        middle = xyz[between[::2, 0]] + xyz[between[1::2, 0]]
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        np.testing.assert_allclose(middle, xyz[2562:], atol=2e-4)


@pytest.mark.parametrize("half", [40962, 163842])
def test_maps_of_a_denser_fsaverage_are_drawn_at_the_vertices_that_fsaverage5_has(half):
    values = np.r_[np.arange(half), 1e6 + np.arange(half)]
    drawn, template = surfaces.load_map(values)
    np.testing.assert_array_equal(drawn, np.r_[np.arange(10242), 1e6 + np.arange(10242)])
    assert template is surfaces.load_fsaverage5()


def test_a_pycortex_subject_is_read_as_it_was_written(tmp_path):
    folder, written = write_pycortex_subject(tmp_path / "store" / "S1")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = load_pycortex_subject(str(folder))
    assert found.n_vertices == N_VERTICES
    for name, sides in written.items():
        for side, (xyz, faces) in sides.items():
            np.testing.assert_allclose(found.meshes[name][side][0], xyz, atol=1e-4)
            np.testing.assert_array_equal(found.meshes[name][side][1], faces)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_volume_is_sampled_where_the_subjects_surfaces_lie(tmp_path):
    """Linear interpolation of what is linear in space is exact: a vertex has the depth's mean."""
    folder, written = write_pycortex_subject(tmp_path / "S1")
    affine = nibabel.affines.from_matvec(np.diag([-4.0, 4, 4]), [82, -40, -40])
    places = nibabel.affines.apply_affine(affine, np.indices((41, 21, 21)).reshape(3, -1).T)
    slope = np.array([1.0, -2.0, 3.0])
    data = (1000 + places @ slope).reshape(41, 21, 21)
    values = image_to_vertices(nibabel.Nifti1Image(data, affine), folder)
    middle = [
        (written["pial"][side][0] + written["white"][side][0]) / 2 for side in ("left", "right")
    ]
    np.testing.assert_allclose(values, 1000 + np.concatenate(middle) @ slope, rtol=1e-4)


def test_grayordinates_of_any_mesh_lie_on_the_subjects_surfaces(tmp_path):
    folder, _ = write_pycortex_subject(tmp_path / "S1")
    axis = nibabel.cifti2.BrainModelAxis.from_surface
    models = axis([5, 1025], 1026, "CortexLeft") + axis([257], 258, "CortexRight")
    names = nibabel.cifti2.ScalarAxis(["map"])
    image = nibabel.Cifti2Image(np.array([[1.0, 2, 3]]), (names, models))
    values = image_to_vertices(image, folder)
    expected = np.full(1284, np.nan)
    expected[[5, 1025, 1026 + 257]] = 1, 2, 3
    np.testing.assert_array_equal(values, expected)
    with pytest.raises(ValueError, match=r"fs_LR 32k \(32492 vertices a hemisphere\); got 1026"):
        image_to_vertices(image)


def test_pycortex_subjects_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="must be a folder of a pycortex store.*; got none"):
        load_pycortex_subject(str(tmp_path / "S0"))
    folder, _ = write_pycortex_subject(tmp_path / "S1")
    with pytest.raises(
        ValueError, match=r"shape \(1284,\) for pycortex .*S1; got float64 \(20484,\)"
    ):
        plot_flatmap(np.zeros(20484), pycortex_subject=folder)
    folder, _ = write_pycortex_subject(tmp_path / "S3")
    (folder / "surfaces" / "wm_rh.gii").write_bytes(
        (folder / "surfaces" / "wm_lh.gii").read_bytes()
    )
    with pytest.raises(
        ValueError, match=r"wm must have the vertices of pia, \[1026, 258\].*1026, 1026"
    ):
        load_pycortex_subject(str(folder))
    (folder / "surfaces" / "pia_lh.gii").write_bytes(b"<GIFTI")
    with pytest.raises(ValueError, match=r"pia_lh.gii must be a GIFTI mesh"):
        load_pycortex_subject(str(folder))
    folder, _ = write_pycortex_subject(tmp_path / "S2", make_meshes(flat=False))
    with pytest.raises(ValueError, match="needs surfaces/flat_lh.gii and flat_rh.gii; S2"):
        plot_flatmap(np.zeros(1284), pycortex_subject=folder)


@pytest.mark.parametrize("space", TEMPLATES)
def test_curvature_of_a_subject_is_that_of_the_template(space):
    """Computed from the mesh alone, against what FreeSurfer and HCP computed."""
    template = TEMPLATES[space]()
    for side in ("left", "right"):
        found = surfaces._curvature(*template.meshes["white"][side])
        assert np.corrcoef(found, template.curvature[side])[0, 1] > 0.5
        mirrored = template.meshes["white"][side][0] * (-1, 1, 1), template.meshes["white"][side][1]
        np.testing.assert_allclose(surfaces._curvature(*mirrored), found, atol=1e-3)


@pytest.mark.parametrize("space", TEMPLATES)
def test_curvature_is_positive_on_gyri(space):
    """Gyri stand out of the smoothed surface: an oracle that uses the geometry alone."""
    template = TEMPLATES[space]()
    for side in ("left", "right"):
        xyz, faces = template.meshes["pial"][side]
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.concatenate([edges, edges[:, ::-1]])
        mean = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(len(xyz),) * 2).tocsr()
        mean = sparse.diags(1 / np.asarray(mean.sum(axis=1)).ravel()) @ mean
        smooth = xyz
        for _ in range(60):
            smooth = mean @ smooth
        center = smooth.mean(axis=0)
        height = np.linalg.norm(xyz - center, axis=1) - np.linalg.norm(smooth - center, axis=1)
        assert np.corrcoef(height, template.curvature[side])[0, 1] > 0.5


def test_cifti_images_are_spread_by_their_own_vertex_table():
    rng = np.random.default_rng(0)
    tables, expected, columns = [], np.full(64984, np.nan), []
    for start, name in (
        (32492, "CIFTI_STRUCTURE_CORTEX_RIGHT"),
        (0, "CIFTI_STRUCTURE_CORTEX_LEFT"),
    ):
        vertices = np.sort(rng.choice(32492, size=500, replace=False))
        tables.append(nibabel.cifti2.BrainModelAxis.from_surface(vertices, 32492, name))
        columns.append(rng.normal(size=500))
        expected[start + vertices] = columns[-1]
    axes = (nibabel.cifti2.ScalarAxis(["score"]), tables[0] + tables[1])
    image = nibabel.Cifti2Image(np.concatenate(columns)[None], axes)
    np.testing.assert_array_equal(image_to_vertices(image), expected)
    two = nibabel.Cifti2Image(np.ones((2, 1000)), (nibabel.cifti2.ScalarAxis(["a", "b"]), axes[1]))
    with pytest.raises(ValueError, match="one map"):
        image_to_vertices(two)


def test_surface_images_keep_left_before_right():
    template = surfaces.load_fsaverage5()
    mesh = PolyMesh(
        **{side: InMemoryMesh(*template.meshes["pial"][side]) for side in ("left", "right")}
    )
    image = SurfaceImage(
        mesh, {"left": np.ones(10242), "right": np.r_[np.zeros(42), np.full(10200, 2.0)]}
    )
    values = image_to_vertices(image)
    np.testing.assert_array_equal(values[:10242], 1)
    assert np.isnan(values[10242 : 10242 + 42]).all()
    np.testing.assert_array_equal(values[10242 + 42 :], 2)


def test_voxels_without_value_do_not_blank_their_neighbours():
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    full = np.full((37, 44, 37), 2.0, dtype=np.float32)
    holes = full.copy()
    holes[np.random.default_rng(0).random(full.shape) < 0.3] = np.nan
    whole = image_to_vertices(nibabel.Nifti1Image(full, affine))
    kept = image_to_vertices(nibabel.Nifti1Image(holes, affine))
    assert np.isfinite(kept).sum() > 0.95 * np.isfinite(whole).sum()
    np.testing.assert_allclose(kept[np.isfinite(kept)], 2, rtol=1e-5)


@pytest.mark.parametrize("corner", [(-30.0, -60.0, -10.0), (-50.5, -81.25, 1.5)])
def test_nothing_is_extrapolated_beyond_a_volume(corner):
    """Every vertex has a mean of voxels, also where a small image ends inside the cortex."""
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = corner
    data = np.random.default_rng(0).uniform(0.2, 0.9, size=(9, 8, 7)).astype(np.float32)
    data[::2, ::3] = 0
    values = image_to_vertices(nibabel.Nifti1Image(data, affine))
    values = values[np.isfinite(values)]
    assert len(values) > 50
    assert values.min() > 0.2 - 1e-5 and values.max() < 0.9 + 1e-5
