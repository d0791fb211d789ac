"""Results of several people: what lies next to what, and whose are found."""

import nibabel as nib
import numpy as np
import pytest

from brainnrds.analyses.people import find_records, map_neighbours, without_results
from brainnrds.io import CiftiMasker, derivative_path, save_json


def test_grayordinates_have_neighbours_where_their_mesh_is_known():
    axis = nib.cifti2.BrainModelAxis
    mask = np.ones((3, 3, 3))
    voxels = axis.from_mask(mask, name="thalamus_left", affine=np.eye(4))
    vertices = axis.from_surface(np.arange(10242), 10242, name="CIFTI_STRUCTURE_CORTEX_LEFT")
    neighbours, reason = map_neighbours(CiftiMasker(vertices + voxels))
    assert neighbours.shape == (10269, 10269) and reason is None
    assert neighbours.sum() == 2 * (3 * (10242 - 2) + 54)  # Euler's formula; 54 faces of voxels
    neighbours, reason = map_neighbours(CiftiMasker(voxels))
    assert neighbours.sum() == 2 * 54
    few = axis.from_surface(np.arange(7), 7, name="CIFTI_STRUCTURE_CORTEX_LEFT")
    neighbours, reason = map_neighbours(CiftiMasker(few + voxels))
    assert neighbours is None and "mesh of this surface is not known" in reason


def test_participants_without_results_are_named(tmp_path):
    for label, analysis in (("01", "encode"), ("02", "decode"), ("03", "encode")):
        record = {"Parameters": {}, "Versions": {"brainnrds": "0"}}
        entities = {"subject": label, "space": "T1w", "desc": analysis}
        save_json(derivative_path(tmp_path, "provenance", entities), record)
    (tmp_path / "sub-04").mkdir()
    records = find_records(tmp_path, "encode")
    assert list(records) == ["01", "03"]
    assert records["01"]["Entities"] == {"task": None, "space": "T1w"}
    (tmp_path / "bids/sub-05").mkdir(parents=True)
    (tmp_path / "sub-06.html").write_text("")
    with pytest.warns(UserWarning, match="3 of 5 participants .* sub-02, sub-04, sub-05$"):
        missing = without_results("encode", tmp_path, records, selection=tmp_path / "bids")
    assert missing == ["sub-02", "sub-04", "sub-05"]
    assert without_results("encode", tmp_path, records, subjects=["01"]) == []
