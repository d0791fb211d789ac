"""A decoder of others for a new person, from a BIDS data set to curve, table and report."""

from dataclasses import replace

import numpy as np
import pytest

from brainnrds.analyses import transfer
from brainnrds.analyses.options import TransferOptions
from brainnrds.analyses.transfer import transfer_participant
from brainnrds.cli import main
from brainnrds.datasets import make_movie_dataset
from brainnrds.io import InputError, load_json

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

SMALL = {
    "grid": (4, 4),
    "n_steps": 1,
    "n_codes": 4,
    "n_epochs": 1,
    "n_voxels": 100,
    "minutes": (0.5, 99.0),
    "n_draws": 2,
    "device": "cpu",
    "n_jobs": 1,
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_movie_dataset(
        tmp_path_factory.mktemp("people") / "bids",
        n_subjects=3,
        n_runs=2,
        n_films_per_run=1,
        n_repeats=1,
        n_test_films=1,
        n_test_repeats=1,
        film_duration=40,
        space="MNI152NLin2009cAsym",
        random_state=0,
    )


@pytest.fixture(scope="module")
def transferred(sample, tmp_path_factory):
    """Result, folder, and the data of each other person that the decoder was trained on."""
    folder, seen = tmp_path_factory.mktemp("out"), {}
    original = transfer._load_other

    def watch(other, *args):
        person = seen[other.subject] = original(other, *args)
        return person

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_load_other", watch)
        result = run(sample, folder)
    return result, folder, seen


def run(sample, folder, *, work_dir=None, **changes):
    options = TransferOptions(**{**SMALL, **changes})
    work_dir = work_dir or folder / "work"
    return transfer_participant(
        sample.bids_dir, folder / "out", "02", options, work_dir=work_dir, verbose=0
    )


def test_table_curve_and_report(transferred):
    result, folder, _ = transferred
    table = result.table
    kinds = ["from scratch", "adapted", "adapted + aligned"]
    assert table["kind"].tolist() == kinds * 2
    assert table["minutes"][0] == pytest.approx(0.5) and table["minutes"].iloc[-1] < 2
    np.testing.assert_allclose(
        table["gain_px"], table["unrelated_error_px"] - table["error_px"], atol=1e-5
    )
    [path] = (folder / "out").rglob("*desc-transfer_table.tsv")
    described = load_json(path.with_suffix(".json"))
    assert set(table) <= set(described) and described["others"] == ["01", "03"]
    # the new person's voxels are chosen, in their own minutes
    assert described["decoder"]["voxel_selection"] == "best"
    assert list((folder / "out").rglob("figures/*stat-gain_desc-transfer_curve.png"))
    report = result.report.read_text()
    assert "Brain gain against minutes" in report and "2 other participants" in report


def test_nobody_has_seen_the_test_films(transferred, sample):
    result, folder, seen = transferred
    [path] = (folder / "out").rglob("*desc-transfer_table.tsv")
    tested = set(load_json(path.with_suffix(".json"))["test_films"])
    assert tested and set(seen) == {"01", "03"}
    for person in seen.values():
        names = person.data.film_names
        shown = {names[film] for film in np.unique(person.data.on_screen) if film >= 0}
        assert shown and not shown & tested
        assert person.bold.shape[1] == 100


def test_a_finished_analysis_is_not_done_again(transferred, sample, monkeypatch):
    result, folder, _ = transferred
    monkeypatch.setattr(transfer, "transfer_curve", lambda *_, **__: pytest.fail("done again"))
    again = run(sample, folder)
    np.testing.assert_allclose(again.table["gain_px"], result.table["gain_px"])


def test_moments_of_films_are_those_of_the_same_film_and_time(monkeypatch):
    """Template rows: mean over people of samples that are nearest in film time, by name."""
    data = {
        "film_names": ["a.mp4", "b.mp4"],
        "films": np.array([-1, 0, 0, 1, 1, 0, 0]),  # film a is seen twice
        "film_times": np.array([0.0, 0, 2, 0, 2, 0, 2]),
        "t_r": 2.0,
    }
    samples = transfer.Bunch(**data)
    other = {"film_names": ["b.mp4", "c.mp4", "a.mp4"], "films": np.array([2, 2, 0, 1, -1])}
    other |= {"film_times": np.array([0.4, 2.4, 1.8, 0.0, 0.0]), "runs": np.zeros(5, int)}
    person = transfer.Bunch(data=transfer.Bunch(**other), bold=np.zeros((5, 3)), subject="01")
    given = {}

    def note(trunk, X, moments, *, wanted, runs, subjects):
        given.update(moments=moments, wanted=wanted)
        return np.zeros((7, 1))

    monkeypatch.setattr(transfer, "read_in_template", note)
    transfer._template(None, [person], samples)
    wanted = given["wanted"]
    assert wanted[0] == -1 and wanted[1] == wanted[5] and wanted[2] == wanted[6]
    assert len(set(wanted[1:5])) == 4
    np.testing.assert_array_equal(given["moments"], [wanted[1], wanted[2], wanted[4], -1, -1])


def test_what_cannot_be_transferred_is_one_line(sample, tmp_path, capsys):
    with pytest.raises(InputError, match="two other participants at least; got 01"):
        run(sample, tmp_path, others=("01",))
    with pytest.raises(InputError, match="--others must be participants of the data set"):
        run(sample, tmp_path, others=("01", "77"))
    call = [str(sample.bids_dir), str(tmp_path / "out"), "participant", "--analysis", "transfer"]
    assert main([*call, "--participant-label", "02", "--minutes", "0"]) == 2
    assert "--minutes must be at least 0.1" in capsys.readouterr().err
    assert main([*call, "--participant-label", "02", "--n-seeds", "2"]) == 2
    assert "--n-seeds" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("sub-*"))


def test_people_of_another_repetition_time_are_refused(sample, transferred, tmp_path, monkeypatch):
    _, folder, _ = transferred  # where the features are
    original = transfer.load_runs

    def slower(*args, **options):
        return replace(original(*args, **options), t_r=3.0)

    monkeypatch.setattr(transfer, "load_runs", slower)
    with pytest.raises(InputError, match="one repetition time; got 2 s of sub-02 and 3 s of sub-0"):
        run(sample, tmp_path, work_dir=folder / "work")
