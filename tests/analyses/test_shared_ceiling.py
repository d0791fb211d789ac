"""The ceiling of what people share, from data that were made by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
from written_people import MASK, make_masker, read, write_maps

from brainnrds.analyses import shared_ceiling
from brainnrds.analyses.encode_group import encode_group
from brainnrds.analyses.options import EncodeGroupOptions
from brainnrds.group import inter_subject_correlation
from brainnrds.io import InputError, load_table


@pytest.fixture
def masker():
    return make_masker()


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("brainnrds.analyses.encode_group.draw_map", lambda *_, **__: None)


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
    fewer = make_masker(smaller)
    found["04"] = watch(fewer, "04", common[:, :, kept], [1, 0])
    monkeypatch.setattr(shared_ceiling, "find_runs", lambda _, subject, **__: subject)
    monkeypatch.setattr(shared_ceiling, "choose_design", lambda *_: ("continuous", None))
    monkeypatch.setattr(shared_ceiling, "load_runs", lambda label, **_: found[label])
    return found, kept


def test_what_people_share_is_their_ceiling(tmp_path, masker, people):
    data, kept = people
    written = write_maps(tmp_path / "out", masker, 4)
    options = EncodeGroupOptions(n_jobs=1, inter_subject=True)
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
    write_maps(tmp_path / "out", masker, 4, with_p=False)
    options = EncodeGroupOptions(n_jobs=1, inter_subject=True)
    call = {"selection": tmp_path, "work_dir": tmp_path / "work"}
    with pytest.raises(InputError, match="film in common"):
        encode_group(tmp_path / "out", options, **call)
    with pytest.raises(InputError, match="at least 2 participants .* got sub-01"):
        encode_group(tmp_path / "out", options, subjects=["01"], **call)
    with pytest.raises(InputError, match="where the BOLD is"):
        encode_group(tmp_path / "out", options)
    assert not (tmp_path / "out/group").exists() and not list((tmp_path / "work").iterdir())
