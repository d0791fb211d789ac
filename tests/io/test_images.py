"""Images: values as they were written, or one line; never more than the header announces."""

import base64
import gzip
import os
import pickle
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bids import SHAPE, T_R, brain_models, n_voxels, write_bold

import brainnrds.io as io
from brainnrds.io import _cifti
from brainnrds.io.images import (
    CiftiMasker,
    make_masker,
    read_bold,
    read_header,
    read_mask,
    read_recorded,
    same_grid,
)

SPACES = {"volume": "MNI152NLin2009cAsym", "surface": "fsaverage5", "cifti": "fsLR"}
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write(folder, kind, n_volumes=12):
    space = SPACES[kind]
    values = np.random.default_rng(0).normal(1000, 10, (n_volumes, n_voxels(space)))
    return write_bold(folder, "x", space, values), values.astype(np.float32)


def read(paths):
    """What `load_runs` does with the image of a run."""
    paths = tuple(paths)
    n_volumes, grid, t_r = read_header(paths)
    mask = None
    if grid[0] == "volume":
        inside = np.ones(grid[1], np.uint8)
        inside[0, 0] = 0
        mask = nib.Nifti1Image(inside, np.reshape(grid[2], (4, 4)))
    values = read_bold(paths, make_masker(paths, mask))
    assert len(values) == n_volumes
    return values


def refused(paths, match):
    with pytest.raises(io.InputError, match=match) as error:
        read(paths)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", SPACES)
def test_values_come_back(tmp_path, kind):
    paths, values = write(tmp_path, kind)
    np.testing.assert_array_equal(read(paths), values)


@pytest.mark.parametrize("kind", SPACES)
def test_what_is_no_plain_file_is_not_opened(tmp_path, kind):
    paths, _ = write(tmp_path, kind)
    for make, match in (
        (os.mkfifo, "FIFO"),
        (lambda path: path.symlink_to("/dev/zero"), "device"),
        (lambda path: path.symlink_to(path.name), "cannot be opened"),
        (lambda path: path.symlink_to(".git/annex/objects/x"), "datalad get"),
        (lambda path: path.write_bytes(b""), "cannot be read|truncated"),
        (lambda path: path.write_text("no image" * 99), "cannot be read|truncated"),
        (lambda path: path.mkdir(), "got a folder"),
    ):
        paths[0].unlink()
        make(paths[0])
        refused(paths, match)
    assert paths[0].is_dir()


def patched(path, offset, form, *values):
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize(
    ("offset", "form", "values", "match"),
    [
        (42, "<h", (-4,), "cannot be read|empty"),
        (42, "<hhhh", (32767,) * 4, "do not fit in it|truncated"),
        (48, "<h", (0,), "must not be empty"),
        (48, "<h", (32767,), "truncated"),
        (280, "<f", (np.nan,), "finite affine|cannot be read"),
        (70, "<h", (0,), "cannot be read"),
        (70, "<h", (9999,), "cannot be read"),
        (108, "<f", (1e9,), "cannot be read|truncated"),
        (108, "<f", (-1,), "cannot be read"),
        (108, "<f", (np.nan,), "cannot be read"),
        (112, "<f", (np.inf,), "finite scl_slope; got inf"),
        (116, "<f", (-np.inf,), "finite scl_inter; got -inf|cannot be read"),
    ],
)
def test_headers_that_lie(tmp_path, offset, form, values, match):
    paths, _ = write(tmp_path, "volume")
    patched(paths[0], offset, form, *values)
    refused(paths, match)


def test_data_in_the_place_of_the_extensions(tmp_path):
    paths, values = write(tmp_path, "volume")
    data = nib.load(paths[0]).get_fdata(dtype=np.float32)
    patched(paths[0], 348, "<b", 1)
    refused(paths, "extensions of its header are announced, but its data begin at byte 352")
    image = nib.Nifti1Image(data, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of 16 bytes"))
    nib.save(image, paths[0])
    np.testing.assert_array_equal(read(paths), values)


@pytest.mark.parametrize(
    ("dtype", "value", "match"),
    [
        (np.complex64, 1j, "real numbers"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], 0, "real numbers"),
        (np.float32, 3e38, "values below 1e\\+15"),
        (np.float32, -1e30, "values below 1e\\+15"),
    ],
)
def test_values_that_no_scanner_gives(tmp_path, dtype, value, match):
    paths, _ = write(tmp_path, "volume")
    data = np.zeros((*SHAPE, 3), dtype)
    data[1, 1, 1, 1] = value
    nib.save(nib.Nifti1Image(data, AFFINE), paths[0])
    refused(paths, match)


@pytest.mark.parametrize("kind", ["surface", "cifti"])
def test_one_value_of_1e30(tmp_path, kind):
    _, values = write(tmp_path, kind)
    values[3, 4] = 1e30
    refused(write_bold(tmp_path, "x", SPACES[kind], values), r"values below 1e\+15; got 1e\+30")


def test_missing_values_are_left_to_the_mask(tmp_path):
    _, values = write(tmp_path, "volume")
    values[3, 4], values[2, 1] = np.nan, np.inf
    paths = write_bold(tmp_path, "x", SPACES["volume"], values)
    np.testing.assert_array_equal(read(paths), values)


def test_more_than_the_header_announces(tmp_path):
    paths, values = write(tmp_path, "volume")
    content = gzip.decompress(paths[0].read_bytes())
    paths[0].write_bytes(gzip.compress(content + bytes(1000)))
    np.testing.assert_array_equal(read(paths), values)  # some writers pad
    paths[0].write_bytes(gzip.compress(content + bytes(2**21), compresslevel=1))
    refused(paths, "much longer than its header says")


def test_another_image_under_the_name(tmp_path):
    paths, _ = write(tmp_path, "cifti")
    nib.save(nib.Nifti2Image(np.zeros((3, 3, 3, 5), np.float32), AFFINE), paths[0])
    refused(paths, "must be a CIFTI-2 file")
    series = nib.cifti2.SeriesAxis(0, T_R, 5)
    swapped = nib.Cifti2Image(np.zeros((55, 5), np.float32), header=(brain_models(), series))
    nib.save(swapped, paths[0])
    refused(paths, "must be a CIFTI dense time series")


def edited(path, old, new, count=-1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))


LAUGHS = b"<!DOCTYPE GIFTI [<!ENTITY a0 'haha'>" + b"".join(
    b"<!ENTITY a%d '%s'>" % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'Dim0="30"', b'Dim0="29"'),
        (b'Dim0="30"', b'Dim0="31"'),
        (b'Dim0="30"', b'Dim0="1000000000000"'),
        (b'Dim0="30"', b'Dim0="' + b"9" * 5000 + b'"'),
        (b'Dim0="30"', b""),
        (b'NumberOfDataArrays="12"', b'NumberOfDataArrays="5"'),
        (b"GZipBase64Binary", b"ASCII"),
        (b"NIFTI_TYPE_FLOAT32", b"NIFTI_TYPE_UINT8"),
        (b"LittleEndian", b"MiddleEndian"),
        (b"</GIFTI>", b""),
        (b"<MetaData", LAUGHS + b"]><MetaData"),
    ],
)
def test_gifti_that_lies(tmp_path, old, new):
    paths, _ = write(tmp_path, "surface")
    edited(paths[0], old, new)
    refused(paths, "x_hemi-L")


def test_gifti_that_names_another_file(tmp_path):
    paths, _ = write(tmp_path, "surface")
    (tmp_path / "b").write_bytes(bytes(120))
    edited(paths[0], b"GZipBase64Binary", b"ExternalFileBinary")
    edited(paths[0], b'ExternalFileName=""', b'ExternalFileName="b"')
    edited(paths[0], b'ExternalFileOffset="0"', b'ExternalFileOffset="4"')
    refused(paths, "must hold its data itself|cannot be read")


def test_arrays_of_different_length(tmp_path):
    paths, _ = write(tmp_path, "surface")
    edited(paths[0], b'Dimensionality="1"', b'Dimensionality="2"', 1)
    edited(paths[0], b'Dim0="30"', b'Dim0="15" Dim1="2"', 1)
    refused(paths, "arrays of one length|same number of volumes")
    bomb = base64.b64encode(zlib.compress(bytes(2**24), 9))
    paths, _ = write(tmp_path, "surface")
    content = paths[0].read_bytes()
    begin, end = content.index(b"<Data>") + 6, content.index(b"</Data>")
    paths[0].write_bytes(content[:begin] + bomb + content[end:])
    refused(paths, "x_hemi-L")


def test_grids_agree_up_to_rounding(tmp_path):
    paths, _ = write(tmp_path, "volume")
    _, grid, _ = read_header(tuple(paths))
    for shift, same in ((1e-5, True), (0.015, True), (0.03, False)):
        affine = AFFINE.copy()
        affine[0, 3] += shift
        nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), affine), paths[0])
        assert same_grid(read_header(tuple(paths))[1], grid) == same
    # a small rotation moves the far corner most: of 4 voxels by little, of 400 by much
    turned = AFFINE.copy()
    turned[0, 1] = 0.005
    for n, same in ((3, True), (400, False)):
        grids = [("volume", (n, n, n), tuple(affine.ravel())) for affine in (AFFINE, turned)]
        assert same_grid(*grids) == same


def test_equal_grayordinates_are_parsed_once(tmp_path):
    """Runs differ in length, and programs note when they were run; what is large is alike."""
    _cifti._parse_grayordinates.cache_clear()
    models, paths = brain_models(), []
    for i, n_volumes in enumerate((5, 5, 7, 5)):
        values = np.full((n_volumes, len(models)), i, dtype=np.float32)
        image = nib.Cifti2Image(values, (nib.cifti2.SeriesAxis(0, T_R, n_volumes), models))
        image.header.matrix.metadata = nib.cifti2.Cifti2MetaData({"Provenance": f"at {i}"})
        paths.append(tmp_path / f"{i}.dtseries.nii")
        nib.save(image, paths[-1])
    masker = make_masker(paths[:1])
    for i, path in enumerate(paths):
        assert read_header((path,))[0] == (5, 5, 7, 5)[i]
        np.testing.assert_array_equal(read_bold((path,), masker), nib.load(path).get_fdata())
    assert _cifti._parse_grayordinates.cache_info().misses == 1


@pytest.mark.parametrize("seed", range(3))
def test_headers_are_read_as_nibabel_reads_them(seed):
    """Whole or damaged: the same axes, or a refusal where nibabel refuses."""
    models = brain_models()
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, T_R, 5), models))
    whole, random = header.to_xml(), np.random.default_rng(seed)

    def read(parse, xml):
        try:
            found = parse(xml)
            return [found.get_axis(i) for i in range(2)]
        except Exception:
            return None

    def by_nibabel(xml):
        parser = nib.cifti2.parse_cifti2.Cifti2Parser()
        parser.parse(string=xml)
        return parser.header

    assert read(_cifti._parse, whole) == [nib.cifti2.SeriesAxis(0, T_R, 5), models]
    n_read = 0
    for _ in range(150):
        place = random.integers(len(whole))
        xml = whole[:place] + bytes([random.integers(32, 127)]) + whole[place + 1 :]
        ours, theirs = read(_cifti._parse, xml), read(by_nibabel, xml)
        assert ours == theirs
        n_read += ours is not None
    assert 10 < n_read < 140


def test_made_cifti_images_are_nibabels_and_their_header_is_made_once(tmp_path, monkeypatch):
    voxel = {"voxel": [[0, 1, 2]], "affine": AFFINE, "volume_shape": (5, 4, 3)}
    models = brain_models() + nib.cifti2.BrainModelAxis("BRAIN_STEM", **voxel)
    masker = CiftiMasker(models)
    values = np.random.default_rng(0).normal(size=(3, len(models))).astype(np.float32)
    axes = nib.cifti2.ScalarAxis(["map 0"]), nib.cifti2.SeriesAxis(0, T_R, 3)
    expected = [
        nib.Cifti2Image(some, (axis, models))
        for some, axis in zip((values[:1], values), axes, strict=True)
    ]
    made = []
    original = nib.cifti2.BrainModelAxis.to_mapping
    monkeypatch.setattr(
        nib.cifti2.BrainModelAxis, "to_mapping", lambda *a: made.append(1) or original(*a)
    )
    found = [masker.inverse_transform(values[0]), masker.make_series(values, T_R)]
    for image in (*expected, *found):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.nii"
        nib.save(image, path)
    assert len(made) == 1
    assert [(tmp_path / f"{i}.nii").read_bytes() for i in (0, 1)] == [
        (tmp_path / f"{i}.nii").read_bytes() for i in (2, 3)
    ]
    np.testing.assert_array_equal(masker.transform(found[1]), values)


def test_places_of_grayordinates_count_and_not_how_voxels_are_numbered(tmp_path):
    """The same voxels in mm, counted from the left or from the right."""
    shape = (5, 4, 3)
    voxels = np.argwhere(np.ones(shape))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = shape[0] - 1
    mirrored = voxels * [-1, 1, 1] + [shape[0] - 1, 0, 0]
    models = [
        brain_models()
        + nib.cifti2.BrainModelAxis("BRAIN_STEM", voxel=v, affine=a, volume_shape=shape)
        for v, a in ((voxels, AFFINE), (mirrored, AFFINE @ flip), (mirrored, AFFINE))
    ]
    grids, images = [], []
    for i, axis in enumerate(models):
        series = nib.cifti2.SeriesAxis(0, T_R, 2)
        data = np.arange(2 * len(axis), dtype=np.float32).reshape(2, -1)
        path = tmp_path / f"{i}.dtseries.nii"
        nib.save(nib.Cifti2Image(data, header=(series, axis)), path)
        grids.append(read_header((path,))[1])
        images.append((path,))
    assert same_grid(grids[0], grids[1])
    assert not same_grid(grids[0], grids[2])
    masker = make_masker(images[0])
    np.testing.assert_array_equal(read_bold(images[1], masker), read_bold(images[0], masker))
    with pytest.raises(io.InputError, match="grayordinates of the data"):
        read_bold(images[2], masker)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.zeros(SHAPE, np.uint8), "voxels inside; got none"),
        (np.full(SHAPE, np.nan, np.float32), "voxels inside; got none"),
        (np.full(SHAPE, -1, np.int16), "voxels inside; got none"),
        (np.ones((*SHAPE, 2), np.uint8), "grid of the data"),
        (np.ones((9, 9, 9), np.uint8), "grid of the data"),
        (np.ones(SHAPE, np.complex64), "real numbers"),
        (np.full(SHAPE, 1e-3, np.float32), "whole numbers, 0 outside; got fractions"),
    ],
)
def test_masks_that_are_none(tmp_path, data, match):
    paths, _ = write(tmp_path, "volume")
    _, grid, _ = read_header(tuple(paths))
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "mask.nii.gz")
    with pytest.raises(io.InputError, match=match):
        read_mask(tmp_path / "mask.nii.gz", grid)


def test_raw_images(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6, 7), np.int16), AFFINE)
    image.header.set_zooms((2, 2, 2, 1500))
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, tmp_path / "raw.nii.gz")
    found = read_recorded(tmp_path / "raw.nii.gz")
    assert (found.n_volumes, found.shape, found.t_r) == (7, (4, 5, 6), 1.5)
    assert read_recorded(tmp_path / "none.nii.gz") is None
    os.mkfifo(tmp_path / "fifo.nii.gz")
    assert read_recorded(tmp_path / "fifo.nii.gz") is None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return {kind: write(tmp_path_factory.mktemp(kind), kind) for kind in SPACES}


@settings(derandomize=True, max_examples=120, deadline=None, database=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing_where_there_is_a_checksum(
    images, place, bit, data
):
    """.nii.gz and GIFTI carry checksums of their data; CIFTI and plain NIfTI carry none."""
    kind = data.draw(st.sampled_from(["volume", "surface"]))
    paths, values = images[kind]
    content = paths[0].read_bytes()
    # GIFTI: the base64, from the first array on
    first = content.index(b"<Data>") if kind == "surface" else 0
    where = first + int(place * (len(content) - first))
    try:
        paths[0].write_bytes(
            content[:where] + bytes([content[where] ^ 1 << bit]) + content[where + 1 :]
        )
        got = read(paths)
    except io.InputError as error:
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(got, values)
    finally:
        paths[0].write_bytes(content)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_damaged_images_are_read_or_refused(images, data):
    kind = data.draw(st.sampled_from(sorted(SPACES)))
    paths, _ = images[kind]
    content = paths[0].read_bytes()
    size = len(content) if data.draw(st.booleans()) else min(len(content), 600)
    where = data.draw(st.integers(0, size - 1))
    new = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4]))
    end = where + data.draw(st.sampled_from([0, len(new), len(content)]))
    try:
        paths[0].write_bytes(content[:where] + new + content[end:])
        got = read(paths)
    except io.InputError as error:
        assert "\n" not in str(error)
    else:
        assert got.dtype == np.float32
        assert got.ndim == 2
        assert not (np.abs(got) > 1e15)[np.isfinite(got)].any()
    finally:
        paths[0].write_bytes(content)


def test_threads_describe_grayordinates_once_and_none_of_it_is_pickled(tmp_path, monkeypatch):
    """What nibabel makes of them changes while a map is written: it broke jobs on their way."""
    masker = CiftiMasker(brain_models())
    values = np.arange(len(masker.brain_models), dtype=np.float32)
    made = []
    original = nib.cifti2.BrainModelAxis.to_mapping

    def slowly(*arguments):
        made.append(1)
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(nib.cifti2.BrainModelAxis, "to_mapping", slowly)
    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(masker.inverse_transform, [values] * 8))
    assert len(made) == 1
    nib.save(images[0], tmp_path / "map.nii")
    before = pickle.dumps(CiftiMasker(masker.brain_models))
    assert pickle.dumps(masker) == before
    again = pickle.loads(before).inverse_transform(values)  # noqa: S301 : our own
    np.testing.assert_array_equal(again.get_fdata(), images[0].get_fdata())
