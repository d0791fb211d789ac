"""The group level on maps that were written by hand: what it says follows from them alone."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from written_people import MAPS, MASK, OPTIONS, make_masker, read, write_maps, write_parcels

from brainnrds.analyses.encode_group import encode_group
from brainnrds.group import (
    conjunction,
    fixed_effects,
    one_sided_p,
    prevalence,
    sign_flip_test,
    volume_neighbours,
)
from brainnrds.io import (
    InputError,
    load_json,
)


@pytest.fixture
def masker():
    return make_masker()


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """Figures take most of the time: they are drawn once."""
    if "seven_people" not in request.node.name:
        monkeypatch.setattr("brainnrds.analyses.encode_group.draw_map", lambda *_, **__: None)


def test_seven_people_stand_for_a_population(tmp_path, masker):
    written = write_maps(tmp_path, masker, 7)
    result = encode_group(tmp_path, OPTIONS)
    assert result.note is None
    for (feat, stat), tested in MAPS.items():
        scores = written[f"{feat}_{stat}"]
        np.testing.assert_allclose(
            read(tmp_path, masker, feat, stat), scores.mean(axis=0), rtol=1e-5
        )
        expected = sign_flip_test(
            scores, neighbours=volume_neighbours(MASK), two_sided=stat == "difference"
        )
        for name, key in (("p", "p_values"), ("q", "q_values"), ("pmax",) * 2, ("ptfce",) * 2):
            key = {"pmax": "p_max", "ptfce": "p_tfce"}.get(key, key)
            found = read(tmp_path, masker, tested, name)
            np.testing.assert_allclose(found, expected[key], rtol=1e-5, err_msg=f"{tested} {name}")
    assert (read(tmp_path, masker, "videoMinusImage", "ptfce")[:20] < 0.05).mean() > 0.5
    assert not list(tmp_path.glob("group/*Fixed*"))
    report = (tmp_path / "group.html").read_text()
    assert "after threshold-free cluster enhancement" in report
    titles = re.findall("<h3>(Video &gt; Image.*)</h3>", report)
    people = [f"Video &gt; Image, sub-{i + 1:02d}" for i in range(7)]
    assert titles == ["Video &gt; Image", *people]
    slices = next(tmp_path.glob("group/figures/*_slices.html")).read_text()
    maps = re.findall(r'"name": "(.*?)"', slices)
    assert maps == ["mean of the participants", *(f"sub-{i + 1:02d}" for i in range(7))]
    summary = load_json(next(tmp_path.glob("group/*_provenance.json")))["Summary"]
    assert summary["voxels where video beats image (p < .05, cluster enhancement)"] >= 10


def test_three_people_stand_for_themselves(tmp_path, masker):
    written = write_maps(tmp_path, masker, 3)
    result = encode_group(tmp_path, OPTIONS)
    assert "at least 6 participants" in result.note and "nor fixed" not in result.note
    assert not [p for p in tmp_path.glob("group/*") if "_stat-p" in p.name and "prev" not in p.name]
    for (feat, stat), tested in MAPS.items():
        p_values, two_sided = written[f"{tested}_p"].astype(np.float32), stat == "difference"
        if two_sided:
            p_values = one_sided_p(p_values, written[f"{feat}_{stat}"])
        fixed = fixed_effects(p_values, two_sided=two_sided)
        shares = prevalence(p_values)
        expected = {
            "zFixed": fixed.z,
            "qFixed": fixed.q_values,
            "qConjunction": conjunction(p_values).q_values,
            "prevalence": shares.estimate,
            "prevalenceLow": shares.lower,
        }
        for name, values in expected.items():
            found = np.nan_to_num(read(tmp_path, masker, tested, name))
            np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-6, err_msg=name)
    texts = [path.read_text() for path in tmp_path.glob("group/**/*.json")]
    assert all("population" not in text for text in texts)
    assert "none of these tests a population" in (tmp_path / "group.html").read_text()


def test_without_p_values_only_means_and_counts_of_people_remain(tmp_path, masker):
    write_maps(tmp_path, masker, 2, with_p=False)
    result = encode_group(tmp_path, OPTIONS)
    assert "nor fixed effects and prevalence" in result.note
    written = {
        p.name.split("_stat-")[1].split("_")[0] for p in tmp_path.glob("group/*statmap.nii.gz")
    }
    assert written == {"r", "difference", "uniqueR2"}


def test_a_voxel_that_nobody_has_in_one_map_is_there_in_others(tmp_path, masker):
    write_maps(tmp_path, masker, 2)
    for path in tmp_path.glob("sub-*/func/*feat-video_stat-q*.nii.gz"):
        image = nib.load(path)
        values = image.get_fdata(dtype=np.float32)
        values[2, 2, 2] = 0
        nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    encode_group(tmp_path, OPTIONS)
    assert read(tmp_path, masker, "video", "r").shape == (MASK.sum(),)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"delays_seconds": [3]}, "delays_seconds of sub-02 and sub-01 differ"),
        ({"feature_spaces": {"video": {}}}, "feature_spaces of sub-02 and sub-01 differ"),
        ({"space": "MNI"}, "share one space, .* got T1w of sub-01; MNI of sub-02"),
    ],
)
def test_people_who_were_analysed_differently_are_refused(tmp_path, masker, changed, reason):
    write_maps(tmp_path, masker, 2, with_p=False, changed=changed)
    with pytest.raises(InputError, match=reason):
        encode_group(tmp_path, OPTIONS)
    assert not (tmp_path / "group").exists()
    assert encode_group(tmp_path, OPTIONS, subjects=["01"]).table.shape[0] == 2


@pytest.mark.parametrize("damaged", ["table", "parcels", "record"])
def test_nothing_is_written_where_a_participant_lacks_a_file(tmp_path, masker, damaged):
    write_maps(tmp_path, masker, 3)
    write_parcels(tmp_path, 3)
    kind = {"parcels": "_seg-atlas_desc-encode_table.tsv", "record": "_provenance.json"}
    path = next(
        tmp_path.glob(f"sub-02/**/*{kind.get(damaged, '_space-T1w_desc-encode_table.tsv')}")
    )
    path.write_text("{}" if damaged == "record" else "")
    with pytest.raises(InputError, match=path.name):
        encode_group(tmp_path, OPTIONS)
    assert not (tmp_path / "group").exists()


def test_another_version_is_refused(tmp_path, masker):
    write_maps(tmp_path, masker, 2, with_p=False)
    path = next(tmp_path.glob("sub-02/*_provenance.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Versions": {"brainnrds": "1"}}))
    with pytest.raises(InputError, match="version of sub-02 and sub-01 differ"):
        encode_group(tmp_path, OPTIONS)
