"""Gains of new people with decoders of others, together."""

import numpy as np
import pandas as pd
import pytest
from written_people import measured

from brainnrds.analyses.transfer_group import transfer_group
from brainnrds.io import InputError, derivative_path, load_json, load_table, save_json, save_table


def write(output_dir, n_people, kinds=("from scratch", "adapted"), tested=True):
    rng = np.random.default_rng(0)
    for i in range(n_people):
        entities = {"subject": f"{i + 1:02d}", "space": f"T{i}", "desc": "transfer"}
        record = {
            "Analysis": "transfer",
            "Parameters": {"grid": [32, 32]},
            "Versions": {"brainnrds": "0"},
        }
        save_json(derivative_path(output_dir, "provenance", entities), record)
        gain, low, high, p = measured(0.5, len(kinds), rng, 0.1)
        table = {"minutes": 10.0, "kind": kinds, "gain_px": gain, "low": low, "high": high, "p": p}
        table |= {} if tested else {"p": np.nan}
        save_table(derivative_path(output_dir, "table", entities), pd.DataFrame(table))


def test_gains_are_combined_for_each_kind_and_number_of_minutes(tmp_path):
    write(tmp_path, 3)
    result = transfer_group(tmp_path)
    assert "of these and of no others" in result.note
    [path] = (tmp_path / "group").glob("*desc-transfer_table.tsv")
    table = load_table(path)
    assert len(table) == 2 * 4
    for _, rows in table.groupby(["minutes", "kind"]):
        together = rows.iloc[3]
        assert together["gain"] == pytest.approx(rows["gain"][:3].mean(), rel=1e-4)
    report = (tmp_path / "group.html").read_text()
    assert "desc-transfer" in report and "combined as fixed effects" in report
    assert "Of minutes 10, kind adapted." in report


def test_without_p_values_nothing_tells_of_a_test(tmp_path):
    write(tmp_path, 1, tested=False)
    result = transfer_group(tmp_path)
    assert "the mean of 1 participant, " in result.note and "No p-values" in result.note
    record = load_json(tmp_path / "group/group_desc-transfer_provenance.json")
    assert record["Parameters"]["group_test"] is None
    assert "combined as fixed effects" not in (tmp_path / "group.html").read_text()


def test_nobody_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold the results of transfer"):
        transfer_group(tmp_path)
