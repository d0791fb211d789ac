"""The group level on maps that were written by hand: what it says follows from them alone."""

import json
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiMasker
from scipy import stats

from brainnrds.analyses import shared_ceiling
from brainnrds.analyses.encode_group import encode_group
from brainnrds.analyses.options import GroupOptions
from brainnrds.group import (
    conjunction,
    fixed_effects,
    inter_subject_correlation,
    one_sided_p,
    prevalence,
    sign_flip_test,
    volume_neighbours,
)
from brainnrds.io import (
    InputError,
    derivative_path,
    load_json,
    load_map,
    load_table,
    save_json,
    save_map,
    save_table,
)

OPTIONS = GroupOptions(n_jobs=1)
MAPS = {  # name of scores -> name of their p-values
    ("video", "r"): "video",
    ("image", "r"): "image",
    ("joint", "r"): "joint",
    ("videoMinusImage", "difference"): "videoMinusImage",
    ("video", "uniqueR2"): "videoUnique",
}
MASK = np.ones((4, 5, 4), dtype=np.uint8)
MASK[0, 0] = 0


@pytest.fixture
def masker():
    return NiftiMasker(nib.Nifti1Image(MASK, np.diag([2.0, 2, 2, 1])), standardize=None).fit()


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """Figures take most of the time: they are drawn once."""
    if "seven_people" not in request.node.name:
        monkeypatch.setattr("brainnrds.analyses.encode_group.draw_map", lambda *_, **__: None)


def write_people(output_dir, masker, n_people, *, with_p=True, changed=None):
    """Write what the participant level would have; return scores and p-values by name."""
    import pandas as pd

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


def test_seven_people_stand_for_a_population(tmp_path, masker):
    written = write_people(tmp_path, masker, 7)
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
    assert "after threshold-free cluster enhancement" in (tmp_path / "group.html").read_text()
    summary = load_json(next(tmp_path.glob("group/*_provenance.json")))["Summary"]
    assert summary["voxels where video beats image (p < .05, cluster enhancement)"] >= 10


def test_three_people_stand_for_themselves(tmp_path, masker):
    written = write_people(tmp_path, masker, 3)
    result = encode_group(tmp_path, OPTIONS)
    assert "at least 6 participants" in result.note
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
    write_people(tmp_path, masker, 2, with_p=False)
    encode_group(tmp_path, OPTIONS)
    written = {
        p.name.split("_stat-")[1].split("_")[0] for p in tmp_path.glob("group/*statmap.nii.gz")
    }
    assert written == {"r", "difference", "uniqueR2"}


def test_a_voxel_that_nobody_has_in_one_map_is_there_in_others(tmp_path, masker):
    write_people(tmp_path, masker, 2)
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
        ({"space": "MNI"}, "must share one space; got"),
    ],
)
def test_people_who_were_analysed_differently_are_refused(tmp_path, masker, changed, reason):
    write_people(tmp_path, masker, 2, with_p=False, changed=changed)
    with pytest.raises(InputError, match=reason):
        encode_group(tmp_path, OPTIONS)
    assert not (tmp_path / "group").exists()
    assert encode_group(tmp_path, OPTIONS, subjects=["01"]).table.shape[0] == 2


def test_another_version_is_refused(tmp_path, masker):
    write_people(tmp_path, masker, 2, with_p=False)
    path = next(tmp_path.glob("sub-02/*_provenance.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Versions": {"brainnrds": "1"}}))
    with pytest.raises(InputError, match="version of sub-02 and sub-01 differ"):
        encode_group(tmp_path, OPTIONS)


# -- inter-subject ceiling -------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """What is asked of a participant's data."""

    bold: np.ndarray
    films: np.ndarray
    film_times: np.ndarray
    film_names: list
    masker: object
    subject: str
    t_r: float = 2.0
    space: str = "T1w"

    @property
    def presentations(self):
        return self.films


def watch(masker, label, common, order):
    """A participant's responses to films of 150 volumes: half of the variance is common to all."""
    rng, n = np.random.default_rng(int(label)), common.shape[1]
    own = [np.sqrt(0.5) * (film + rng.standard_normal(film.shape)) for film in common[order]]
    return Watched(
        bold=np.concatenate(own).astype(np.float32),
        films=np.repeat([0, 1], n),
        film_times=2.0 * np.tile(np.arange(n), 2),
        film_names=[f"film{film}" for film in order],
        masker=masker,
        subject=label,
    )


@pytest.fixture
def people(masker, monkeypatch):
    """Four participants; the last saw the films in another order, and lacks voxels."""
    n_voxels = int(MASK.sum())
    common = np.random.default_rng(7).standard_normal((2, 150, n_voxels))
    found = {f"{i:02d}": watch(masker, f"{i:02d}", common, [0, 1]) for i in (1, 2, 3)}
    smaller = MASK.copy()
    smaller[3, 3] = 0
    kept = smaller[MASK > 0] > 0
    mask = nib.Nifti1Image(smaller, masker.mask_img_.affine)
    fewer = NiftiMasker(mask, standardize=None).fit()
    found["04"] = watch(fewer, "04", common[:, :, kept], [1, 0])
    monkeypatch.setattr(shared_ceiling, "find_runs", lambda _, subject, **__: subject)
    monkeypatch.setattr(shared_ceiling, "load_runs", lambda label, **_: found[label])
    return found, kept


def test_what_people_share_is_their_ceiling(tmp_path, masker, people):
    data, kept = people
    written = write_people(tmp_path / "out", masker, 4)
    options = GroupOptions(n_jobs=1, inter_subject=True)
    result = encode_group(tmp_path / "out", options, selection=tmp_path, work_dir=tmp_path / "work")
    last = np.concatenate([data["04"].bold[150:], data["04"].bold[:150]])
    bold = [data[label].bold[:, kept] for label in ("01", "02", "03")] + [last]
    expected = inter_subject_correlation(bold, t_r=2.0, films=np.repeat([0, 1], 150))
    relative = written["video_r"][:, kept] / np.sqrt(expected.ceiling)
    maps = {
        (None, "sharedVariance"): expected.shared_variance,
        (None, "leaveOneOut"): expected.leave_one_out.mean(axis=0),
        (None, "groupCeiling"): expected.group_ceiling,
        (None, "sharedCeiling"): expected.ceiling.mean(axis=0),
        ("video", "normalisedShared"): relative.mean(axis=0),
    }
    for (feat, stat), values in maps.items():
        found = read(tmp_path / "out", masker, feat, stat)
        np.testing.assert_allclose(found[kept], values, rtol=1e-4, atol=1e-5, err_msg=stat)
        assert np.isnan(found[~kept]).all()
    assert expected.ceiling.mean() == pytest.approx(0.5, abs=0.03)
    table = load_table(next((tmp_path / "out").glob("group/*_table.tsv")))
    np.testing.assert_allclose(
        table["shared_ceiling"][:4], expected.ceiling.mean(axis=1), rtol=1e-4
    )
    np.testing.assert_allclose(table["video_relative"][:4], np.median(relative, axis=1), rtol=1e-4)
    assert result.report.exists() and not list((tmp_path / "work").iterdir())


def test_a_ceiling_of_people_without_a_common_film_is_refused(tmp_path, masker, people):
    data, _ = people
    data["02"].film_names[:] = ["x", "y"]
    write_people(tmp_path / "out", masker, 4, with_p=False)
    options = GroupOptions(n_jobs=1, inter_subject=True)
    call = {"selection": tmp_path, "work_dir": tmp_path / "work"}
    with pytest.raises(InputError, match="film in common"):
        encode_group(tmp_path / "out", options, **call)
    with pytest.raises(InputError, match="at least two; got 1"):
        encode_group(tmp_path / "out", options, subjects=["01"], **call)
    with pytest.raises(InputError, match="where the BOLD is"):
        encode_group(tmp_path / "out", options)
    assert not (tmp_path / "out/group").exists() and not list((tmp_path / "work").iterdir())


# -- parcels ---------------------------------------------------------------------------------------


def write_parcels(output_dir, n_people):
    """Tables of three parcels, of which the last person lacks one."""
    import pandas as pd

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


@pytest.mark.parametrize("n_people", [3, 7])
def test_parcels_are_tested_over_people(tmp_path, masker, n_people):
    write_people(tmp_path, masker, n_people)
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
