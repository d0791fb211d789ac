"""What the participant level writes of several people, by hand: maps, tables of parcels, gains."""

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.maskers import NiftiMasker
from scipy import stats

from brainnrds.analyses.options import EncodeGroupOptions
from brainnrds.cli import main
from brainnrds.io import (
    derivative_path,
    load_json,
    load_map,
    load_table,
    save_json,
    save_map,
    save_table,
)

OPTIONS = EncodeGroupOptions(n_jobs=1)
MAPS = {  # name of scores -> name of their p-values
    ("video", "r"): "video",
    ("image", "r"): "image",
    ("joint", "r"): "joint",
    ("videoMinusImage", "difference"): "videoMinusImage",
    ("video", "uniqueR2"): "videoUnique",
}
MASK = np.ones((4, 5, 4), dtype=np.uint8)
MASK[0, 0] = 0


def make_masker(mask=MASK):
    image = nib.Nifti1Image(mask, np.diag([2.0, 2, 2, 1]))
    return NiftiMasker(image, standardize=None).fit()


def write_maps(output_dir, masker, n_people, *, with_p=True, changed=None):
    """Write what the participant level would have; return scores and p-values by name."""
    rng, n_voxels = np.random.default_rng(0), int(MASK.sum())
    written = {}
    for i in range(n_people):
        label = f"{i + 1:02d}"
        entities = {"subject": label, "space": "T1w", "desc": "encode"}
        if i == n_people - 1:
            entities |= {"space": (changed or {}).get("space", "T1w")}
        saved = {}
        for (feat, stat), tested in MAPS.items():
            scores = 0.1 * rng.standard_normal(n_voxels).astype(np.float32)
            scores[:20] += 0.15
            p_values = stats.norm.sf(10 * scores)
            if stat == "difference":
                p_values = 2 * stats.norm.sf(np.abs(10 * scores))
            parts = {f"{feat}_{stat}": scores}
            if with_p:
                parts |= {f"{tested}_p": p_values, f"{tested}_q": p_values}
            for name, values in parts.items():
                name_feat, name_stat = name.split("_")
                paths = save_map(
                    output_dir, values, masker, {**entities, "feat": name_feat, "stat": name_stat}
                )
                saved[name] = [path.relative_to(output_dir).as_posix() for path in paths]
                written.setdefault(name, []).append(values)
        models = ["video", "image", "joint", "video - image"]
        table = pd.DataFrame({"model": models, "mean_all": 0.1, "n_significant": 3})
        save_table(derivative_path(output_dir, "table", entities), table)
        record = {
            "Analysis": "encode",
            "Parameters": {"space": "T1w", "delays_seconds": [2, 4], "confounds": []},
            "Versions": {"brainnrds": "0"},
            "Options": {"confounds": [], "trim_onset": 0.0, "mask": None},
            "Maps": saved,
        }
        if changed is not None and i == n_people - 1:
            record["Parameters"] |= changed
        save_json(derivative_path(output_dir, "provenance", entities), record)
    return {name: np.array(values, dtype=np.float64) for name, values in written.items()}


def read(output_dir, masker, feat, stat):
    entities = {"space": "T1w", "desc": "encode", "feat": feat, "stat": stat}
    path = derivative_path(output_dir, "map", {**entities, "extension": ".nii.gz"})
    return load_map(path, masker)


def write_parcels(output_dir, n_people):
    """Tables of three parcels, of which the last person lacks one."""
    rng = np.random.default_rng(0)
    scores = rng.normal([0.3, 0.0, 0.1], 0.05, (n_people, 3))
    for i in range(n_people):
        entities = {"subject": f"{i + 1:02d}", "space": "T1w", "desc": "encode", "seg": "atlas"}
        table = pd.DataFrame({"parcel": [3, 5, 8], "name": ["a", "b", "c"], "n_voxels": 9})
        for name in ("video", "difference"):
            table[name] = scores[i]
            table[f"{name}_low"], table[f"{name}_high"] = scores[i] - 0.196, scores[i] + 0.196
        if i == n_people - 1:
            table = table.iloc[:2]
        save_table(derivative_path(output_dir, "table", entities), table.iloc[::-1])
    return scores


def measured(true, n_people, rng, error=1.0):
    """Gains with intervals and one-sided p-values of a known error."""
    gain = true + error * rng.standard_normal(n_people)
    half = error * stats.norm.isf(0.025)
    return gain, gain - half, gain + half, stats.norm.sf(gain / error)


def write_gains(output_dir, analysis, n_people):
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


def check_gains(folder, analysis, keys, capsys):
    """The group level of the App on gains of three people."""
    (folder / "bids").mkdir()
    write_gains(folder / "out", analysis, 3)
    call = [str(folder / "bids"), str(folder / "out"), "group", "--analysis", analysis]
    call += ["-w", str(folder / "work")]
    assert main(call) == 0
    assert "of these and of no others" in " ".join(capsys.readouterr().out.split())
    [path] = (folder / "out/group").glob(f"*desc-{analysis}_table.tsv")
    table = load_table(path)
    assert set(table) <= set(load_json(path.with_suffix(".json")))
    assert len(table) == 4 * 2
    for _, rows in table.groupby(keys):
        people, together = rows.iloc[:3], rows.iloc[3]
        assert people["participant"].tolist() == ["sub-01", "sub-02", "sub-03"]
        assert together["participant"] == "together"
        np.testing.assert_allclose(together["gain"], people["gain"].mean(), rtol=1e-4)
        assert together["n_participants"] == 3 and together["p"] < 0.001
    report = (folder / "out/group.html").read_text()
    assert "stat-gain" in report and "None" not in report
    assert main([*call, "--participant-label", "09"]) == 2
    assert "must hold the results of" in capsys.readouterr().err
