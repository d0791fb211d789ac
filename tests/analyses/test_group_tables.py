"""Tables of the group level, from tables that were written by hand."""

import numpy as np
import pytest
from scipy import stats
from written_people import OPTIONS, make_masker, write_maps, write_parcels

from brainnrds.analyses.encode_group import encode_group
from brainnrds.group import sign_flip_test
from brainnrds.io import load_json, load_table


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("brainnrds.analyses.encode_group.draw_map", lambda *_, **__: None)


@pytest.mark.parametrize("n_people", [3, 7])
def test_parcels_are_tested_over_people(tmp_path, n_people):
    write_maps(tmp_path, make_masker(), n_people)
    scores = write_parcels(tmp_path, n_people)
    encode_group(tmp_path, OPTIONS)
    path = next(tmp_path.glob("group/*seg-atlas_desc-encode_table.tsv"))
    table = load_table(path).set_index("parcel").loc[[3, 5, 8]]
    assert table["n_participants"].tolist() == [n_people, n_people, n_people - 1]
    np.testing.assert_allclose(table["video"][:2], scores.mean(axis=0)[:2], rtol=1e-5)
    if n_people == 3:
        z = scores[:, :2].sum(axis=0) / (0.1 / 1.0) / np.sqrt(3)
        expected = {"video": stats.norm.sf(z), "difference": 2 * stats.norm.sf(np.abs(z))}
    else:
        expected = {
            name: sign_flip_test(scores[:, :2], two_sided=name == "difference").p_values
            for name in ("video", "difference")
        }
    for name, values in expected.items():
        np.testing.assert_allclose(table[f"{name}_p"][:2], values, rtol=2e-3)
        assert np.isnan(table[f"{name}_p"][8])
        assert table[f"{name}_q"][3] == pytest.approx(2 * table[f"{name}_p"][3], rel=1e-3)
    assert set(load_table(path)) <= set(load_json(path.with_suffix(".json")))
