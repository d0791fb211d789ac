"""Tables of the group level, from tables that were written by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_people import OPTIONS, make_masker, write_maps, write_parcels

from brainnrds.analyses.encode_group import encode_group
from brainnrds.encoding.significance import benjamini_hochberg
from brainnrds.group import laterality, sign_flip_test
from brainnrds.io import derivative_path, load_json, load_table, save_table


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


def test_hemispheres_have_q_values_and_sides_of_their_own(tmp_path):
    write_maps(tmp_path, make_masker(), 7)
    names = ["L_MT", "R_MT", "L_V1", "R_V1"]
    rng = np.random.default_rng(0)
    scores = rng.normal([0.4, 0.2, 0.1, 0.1], 0.03, (7, 4))
    for i, values in enumerate(scores):
        entities = {"subject": f"{i + 1:02d}", "space": "T1w", "desc": "encode", "seg": "atlas"}
        columns = {"parcel": [1, 2, 3, 4], "name": names, "side": ["L", "R", "L", "R"]}
        for name in ("video", "difference"):
            ends = {f"{name}_low": values - 0.1, f"{name}_high": values + 0.1}
            columns |= {name: values, **ends}
        save_table(derivative_path(tmp_path, "table", entities), pd.DataFrame(columns))
    encode_group(tmp_path, OPTIONS)
    path = next(tmp_path.glob("group/*seg-atlas_desc-encode_table.tsv"))
    table = load_table(path)
    p = sign_flip_test(scores, two_sided=True).p_values
    for side in (slice(0, 4, 2), slice(1, 4, 2)):
        np.testing.assert_allclose(
            table["difference_q"][side], benjamini_hochberg(p[side]), rtol=1e-4
        )
    path = next(tmp_path.glob("group/*seg-atlas_feat-laterality_desc-encode_table.tsv"))
    sides = load_table(path)
    assert sides["parcel"].tolist() == ["MT", "V1"] * 2
    assert set(sides) <= set(load_json(path.with_suffix(".json")))
    expected = laterality(scores[:, [0, 2]], scores[:, [1, 3]])
    np.testing.assert_allclose(sides["index"][:2], expected.index, rtol=1e-4)
    np.testing.assert_allclose(sides["p_values"][:2], expected.p_values, rtol=1e-4)
    assert sides["index_low"][0] > 0.2 and sides["q_values"][0] < 0.05
    assert sides["index_low"][1] < 0 < sides["index_high"][1]
