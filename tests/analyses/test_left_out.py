"""Participants from a model of the others, on data that were made by hand."""

from importlib.util import find_spec
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from misaligned import PARCELS, T_R, see_films
from written_people import OPTIONS, make_masker, read, write_maps

from brainnrds.analyses import left_out, shared_ceiling
from brainnrds.analyses.encode_group import encode_group
from brainnrds.analyses.options import EncodeGroupOptions
from brainnrds.encoding import VideoEncodingModel
from brainnrds.group import FunctionalAlignment, predict_left_out_people
from brainnrds.io import InputError, MovieData, load_json, load_table

needs_fmralign = pytest.mark.skipif(find_spec("fmralign") is None, reason="needs fmralign")
MASK = np.ones((3, 3, 5), dtype=np.uint8)
COLUMNS = {"video": slice(0, 6), "image": slice(6, 10)}


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """Features, BOLD, films and records of four participants, and a file of parcels."""
    X, people, films = see_films(0, shuffled=True)
    n_films, n = 6, 150
    masker = make_masker(MASK)
    found = {
        f"{i:02d}": MovieData(
            bold=bold,
            runs=films,
            presentations=films,
            films=films,
            on_screen=films,
            film_times=T_R * np.tile(np.arange(n), n_films),
            n_repeats=np.ones(len(X), dtype=int),
            film_names=[f"film{film}.mp4" for film in range(n_films)],
            stim_files=[],
            film_starts=[0.0] * n_films,
            film_durations=[T_R * n] * n_films,
            film_groups=np.arange(n_films),
            t_r=T_R,
            masker=masker,
            voxels=np.ones(45, dtype=bool),
            subject=f"{i:02d}",
            space="T1w",
            repeats="average",
            sources=[],
            counts={},
        )
        for i, bold in enumerate(people, start=1)
    }
    monkeypatch.setattr(shared_ceiling, "find_runs", lambda _, subject, **__: subject)
    monkeypatch.setattr(shared_ceiling, "choose_design", lambda *_: ("continuous", None))
    monkeypatch.setattr(shared_ceiling, "load_runs", lambda label, **_: found[label])
    monkeypatch.setattr(left_out, "make_extractors", lambda *_: ({}, {}))
    monkeypatch.setattr(left_out, "movie_features", lambda *_, **__: (X, COLUMNS))
    monkeypatch.setattr(left_out, "_VOXELS_PER_BATCH", 20)
    atlas = tmp_path / "atlas.nii.gz"
    image = masker.inverse_transform(PARCELS.astype(np.float32))
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.int16), image.affine), atlas)
    made = {"test_films": ["film4", "film5"], "n_iter": 2, "device": "cpu"}
    records = {label: {"Options": made, "Parameters": {"delays": [1, 2]}} for label in found}
    return X, people, films, records, masker, atlas


def compare(seen, tmp_path, align, alignment):
    X, people, films, records, masker, atlas = seen
    options = EncodeGroupOptions(align=align, atlas=str(atlas), minutes=(99, 5, 50), device="cpu")
    found = left_out.left_out_people(tmp_path, records, masker, options, work_dir=tmp_path / "work")
    model = VideoEncodingModel(COLUMNS, delays=[1, 2], n_iter=2, random_state=0)
    expected = predict_left_out_people(
        model, X, people, t_r=T_R, films=films, test_films=[4, 5], alignment=alignment,
        minutes=(5, 99),
    )  # fmt: skip
    assert found.test_films == ["film4.mp4", "film5.mp4"] and found.minutes == [5, 20]
    for name in ("anatomical", "own", *(["aligned"] if alignment else [])):
        # where two penalties do alike, rounding in a batch decides: that is a voxel here and there
        assert np.mean(np.abs(found[name] - expected[name]) > 0.01) < 0.02
    assert not list((tmp_path / "work").iterdir())
    return found


def test_by_place_it_is_the_model_of_the_others(seen, tmp_path):
    found = compare(seen, tmp_path, "anatomical", None)
    assert found.aligned is None and abs(found.anatomical.mean()) < 0.15


@needs_fmralign
def test_parcels_are_aligned_whole(seen, tmp_path):
    found = compare(seen, tmp_path, "procrustes", FunctionalAlignment(parcels=PARCELS))
    assert found.aligned[-1].mean() > found.anatomical.mean() + 0.3


def test_batches_hold_every_voxel_once_and_parcels_whole(monkeypatch):
    monkeypatch.setattr(left_out, "_VOXELS_PER_BATCH", 8)
    parcels = np.array([3, 0, 3, 1, 1, 3, 7, 7, 7, 7, 0, 1])
    batches = left_out._batches(12, parcels)
    assert sorted(np.concatenate(batches)) == list(range(12)) and len(batches) > 1
    of_parcel = [set(parcels[batch]) for batch in batches]
    assert sum(map(len, of_parcel)) == 4
    assert [len(batch) for batch in left_out._batches(12, None)] == [6, 6]


def test_no_part_of_a_tested_film_is_trained_on():
    person = SimpleNamespace(film_names=list("abcdef"), film_groups=np.array([7, 5, 5, 2, 2, 9]))
    assert left_out._find_tested(["b"], person, list("bcaf")) == [0, 1]
    assert left_out._find_tested(None, person, list("fedcba")) == [1, 2]
    with pytest.raises(InputError, match="got b, c, all for testing"):
        left_out._find_tested(["b"], person, list("bc"))


def test_who_cannot_be_left_out_is_refused(seen, tmp_path):
    *_, records, masker, atlas = seen
    call = (tmp_path, records, masker)
    work = {"work_dir": tmp_path / "work"}
    with pytest.raises(InputError, match="--align ridge needs --atlas"):
        left_out.left_out_people(*call, EncodeGroupOptions(align="ridge"), **work)
    options = EncodeGroupOptions(align="anatomical")
    two = {label: records[label] for label in ("01", "02")}
    with pytest.raises(InputError, match="at least three people; got 2"):
        left_out.left_out_people(tmp_path, two, masker, options, **work)
    for record in records.values():
        record["Options"] = {**record["Options"], "n_components": 5}
    with pytest.raises(InputError, match="participants have --n-components"):
        left_out.left_out_people(*call, options, **work)


def test_the_group_level_writes_maps_table_and_chart(tmp_path, monkeypatch):
    masker = make_masker()
    write_maps(tmp_path, masker, 3, with_p=False)
    rng = np.random.default_rng(0)
    n_voxels = int(masker.mask_img_.get_fdata().sum())
    scores = left_out.Bunch(
        anatomical=rng.random((3, n_voxels)),
        aligned=rng.random((2, 3, n_voxels)),
        own=rng.random((2, 3, n_voxels)),
        minutes=[5.0, 10.0],
        test_films=["a.mp4"],
    )
    module = "brainnrds.analyses.encode_group"
    monkeypatch.setattr(f"{module}.left_out_people", lambda *_, **__: scores)
    monkeypatch.setattr(f"{module}.draw_map", lambda *_, **__: None)
    options = EncodeGroupOptions(align="procrustes", atlas="x", n_jobs=1)
    result = encode_group(tmp_path, options, selection=tmp_path)
    for stat, values in (("leftOut", scores.anatomical), ("leftOutAligned", scores.aligned[1])):
        np.testing.assert_allclose(
            read(tmp_path, masker, "joint", stat), values.mean(axis=0), rtol=1e-5
        )
    path = next(tmp_path.glob("group/*feat-leftOut_desc-encode_table.tsv"))
    table = load_table(path)
    assert set(table) <= set(load_json(path.with_suffix(".json"))) and len(table) == 3 * 5
    row = table[(table["model"] == "own") & (table["minutes"] == 10)].iloc[2]
    assert row["participant"] == "sub-03"
    assert row["mean_r"] == pytest.approx(scores.own[1, 2].mean(), rel=1e-4)
    assert "feat-leftOut" in (tmp_path / "group.html").read_text()
    means = result.told[1].set_index(["model", "minutes"])["mean_r"]
    assert len(means) == 5
    assert means["aligned", 5] == pytest.approx(scores.aligned[0].mean(), rel=1e-4)
    assert OPTIONS.align is None
