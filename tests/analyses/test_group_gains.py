"""Gains over people: tables that were written by hand, and what follows from them alone."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainnrds.analyses.decode_group import decode_group
from brainnrds.analyses.group_gains import combine_gains
from brainnrds.analyses.options import GroupOptions
from brainnrds.cli import main
from brainnrds.io import InputError, derivative_path, load_json, load_table, save_json, save_table

OPTIONS = GroupOptions()


def measured(true, n_people, rng, error=1.0):
    """Gains with intervals and one-sided p-values of a known error."""
    gain = true + error * rng.standard_normal(n_people)
    half = error * stats.norm.isf(0.025)
    return gain, gain - half, gain + half, stats.norm.sf(gain / error)


def test_few_people_are_combined_by_their_intervals():
    gain, low, high, p = measured(1.0, 3, np.random.default_rng(0))
    row = combine_gains(gain, low, high, p, OPTIONS)
    z = gain.sum() / np.sqrt(3)
    half = stats.norm.isf(0.025) / np.sqrt(3)
    assert row["gain"] == pytest.approx(gain.mean())
    np.testing.assert_allclose([row["low"], row["high"]], gain.mean() + np.array([-half, half]))
    assert row["p"] == pytest.approx(stats.norm.sf(z))
    assert row["p_every"] == pytest.approx(p.max())
    assert row["n_significant"] == np.sum(p < 0.05)


def test_many_people_are_a_sample():
    gain, low, high, p = measured(1.0, 8, np.random.default_rng(0))
    row = combine_gains(gain, low, high, p, OPTIONS)
    interval = stats.ttest_1samp(gain, 0).confidence_interval()
    np.testing.assert_allclose([row["low"], row["high"]], interval)
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    assert row["p"] == pytest.approx(np.mean(signs @ gain >= gain.sum() - 1e-9))
    assert "p_every" not in row


@pytest.mark.parametrize(("n_people", "spread"), [(3, 0.0), (8, 0.0), (8, 1.0)])
def test_intervals_hold_the_truth_and_p_values_are_honest(n_people, spread):
    """Few people: the mean of these people. Many: the mean of all, who differ."""
    rng = np.random.default_rng(n_people)
    covered, below = [], []
    for _ in range(400):
        own = spread * rng.standard_normal(n_people)
        row = combine_gains(*measured(own, n_people, rng), OPTIONS)
        covered.append(row["low"] <= 0 <= row["high"])
        below.append(row["p"] < 0.05)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.033)
    assert np.mean(below) == pytest.approx(0.05, abs=0.033)


def test_without_p_values_there_is_a_mean_alone():
    gain = np.array([0.1, np.nan, 0.3])
    row = combine_gains(gain, gain, gain, np.full(3, np.nan), OPTIONS)
    assert row["gain"] == pytest.approx(0.2) and row["n_participants"] == 2
    assert "p" not in row and "prevalence" not in row and np.isnan(row["low"])
    many = np.r_[np.nan, np.arange(6.0)]
    assert set(combine_gains(many, many, many, many, OPTIONS)) == {"gain", "n_participants"}


def write_people(output_dir, analysis, n_people):
    rng = np.random.default_rng(0)
    for i in range(n_people):
        # each in a space of their own
        entities = {"subject": f"{i + 1:02d}", "space": f"T{i}", "desc": analysis}
        record = {
            "Analysis": analysis,
            "Parameters": {"grid": [32, 32], "renderer": "splat"},
            "Versions": {"brainnrds": "0"},
        }
        save_json(derivative_path(output_dir, "provenance", entities), record)
        if analysis == "decode":
            gain, low, high, p = measured(0.5, 2, rng, 0.1)
            table = {"cells": ["all", "masked"], "gain_px": gain, "low": low, "high": high}
            table |= {"p": 0.01, "p_paired": p, "supported": True}
            path = derivative_path(output_dir, "table", entities | {"feat": "gain"})
        else:
            gain, low, high, p = measured(0.5, 3, rng, 0.1)
            table = {"score": ["flow_error"] * 3, "flow": ["decoded", "zero", "permuted"]}
            table |= {"gain": gain, "gain_low": low, "gain_high": high, "p": p}
            path = derivative_path(output_dir, "table", entities)
        table = pd.DataFrame(table)
        if analysis == "reanimate":
            table.loc[0, ["gain", "gain_low", "gain_high", "p"]] = np.nan  # of itself
        save_table(path, table)


@pytest.mark.parametrize("analysis", ["decode", "reanimate"])
def test_the_app_combines_what_participants_wrote(tmp_path, analysis, capsys):
    (tmp_path / "bids").mkdir()
    write_people(tmp_path / "out", analysis, 3)
    call = [str(tmp_path / "bids"), str(tmp_path / "out"), "group", "--analysis", analysis]
    assert main([*call, "-w", str(tmp_path / "work")]) == 0
    assert "of these and of no others" in " ".join(capsys.readouterr().out.split())
    [path] = (tmp_path / "out/group").glob(f"*desc-{analysis}_table.tsv")
    table = load_table(path)
    assert set(table) <= set(load_json(path.with_suffix(".json")))
    keys = ["cells"] if analysis == "decode" else ["score", "flow"]
    n_kinds = 2
    assert len(table) == 4 * n_kinds
    for _, rows in table.groupby(keys):
        people, together = rows.iloc[:3], rows.iloc[3]
        assert people["participant"].tolist() == ["sub-01", "sub-02", "sub-03"]
        assert together["participant"] == "together"
        assert together["gain"] == pytest.approx(people["gain"].mean(), rel=1e-4)
        assert together["n_participants"] == 3 and together["p"] < 0.001
    report = (tmp_path / "out/group.html").read_text()
    assert "stat-gain" in report and "None" not in report
    assert main([*call, "--participant-label", "09", "-w", str(tmp_path / "work")]) == 2
    assert "must hold the results of" in capsys.readouterr().err


def test_decoders_of_different_grids_are_refused(tmp_path):
    write_people(tmp_path / "out", "decode", 2)
    path = next((tmp_path / "out/sub-02").glob("*_provenance.json"))
    record = load_json(path)
    record["Parameters"]["grid"] = [16, 16]
    save_json(path, record)
    with pytest.raises(InputError, match="grid of sub-02 and sub-01 differ"):
        decode_group(tmp_path / "out")
    assert not (tmp_path / "out/group").exists()
