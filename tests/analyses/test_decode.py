"""From a BIDS data set to flow, controls, figures and a report; resumed, and refused."""

import json

import h5py
import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds.analyses.decode import (
    _choose_test_films,
    choose_clips,
    decode_participant,
    window_of,
)
from brainnrds.analyses.options import DecodeOptions
from brainnrds.io import (
    InputError,
    load_flow,
    load_json,
    load_table,
    probe_video,
    read_clip,
    write_clip,
)

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

SMALL = dict(
    grid=(8, 8),
    n_steps=1,
    n_codes=8,
    n_epochs=2,
    n_seeds=1,
    n_draws=2,
    n_voxels=200,
    n_permutations=100,
    device="cpu",
)


@pytest.fixture(scope="module")
def sample(short_movies):
    return short_movies


def run(sample, folder, **changes):
    options = DecodeOptions(**{**SMALL, **changes})
    return decode_participant(
        sample.bids_dir, folder / "out", "01", options, work_dir=folder / "work", verbose=0
    )


@pytest.fixture(scope="module")
def systems(sample, tmp_path_factory):
    """Three other systems: one shows the very films, one other films, one stills."""
    folder = tmp_path_factory.mktemp("systems")
    films = sorted((sample.bids_dir / "stimuli").glob("*.mp4"))
    for name in ("perfect", "wrong", "still"):
        (folder / name).mkdir()
    for film, other in zip(films, films[1:] + films[:1], strict=True):
        (folder / "perfect" / film.name).symlink_to(film)
        (folder / "wrong" / film.name).symlink_to(other)
        first = read_clip(film, start=0.0, duration=0.5, fps=2)
        still = np.repeat(first, 2 * round(probe_video(film).duration), axis=0)
        write_clip(folder / "still" / film.name, still, fps=2)
    return tuple(f"{path.name}={path}" for path in sorted(folder.iterdir()))


@pytest.fixture(scope="module")
def decoded(sample, systems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    result = run(sample, folder, predicted=systems)
    return folder, result


def test_other_systems_are_rows_by_the_same_measure(decoded):
    """The film itself is without error, a still is as no motion, another film is worse."""
    table = decoded[1].table.set_index("predictor")
    error = table["end_point_error_px"]
    assert error["perfect"] == 0 and table.loc["perfect", "flow_cosine"] > 0.999
    assert error["still"] == pytest.approx(error["zero_flow"], rel=0.02)
    assert error["wrong"] > error["still"]
    assert table.loc["wrong", "identification_10_way"] < 0.5
    gains = error["unrelated_bold"] - error
    np.testing.assert_allclose(table["gain_px"], gains, atol=1e-6)
    assert np.isfinite(table.loc["wrong", ["end_point_error_px_low"]].astype(float)).all()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("theirs", "must be NAME=FOLDER"),
        ("decoder={}", "must have a name of its own; got 'decoder'"),
        ("theirs={}/nothing", "no such folder"),
        ("theirs={}", "must hold files that end in .h5, .mp4"),
    ],
)
def test_systems_that_cannot_be_write_nothing(sample, tmp_path, given, match):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=match):
        run(sample, tmp_path, predicted=(given.format(tmp_path / "empty"),))
    assert not (tmp_path / "out").exists()


def test_a_system_that_lacks_a_tested_film_is_refused_before_training(sample, tmp_path):
    film = sorted((sample.bids_dir / "stimuli").glob("*.mp4"))[0]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "another.mp4").symlink_to(film)
    with pytest.raises(InputError, match=r"--predicted one: .* must hold one file .*; got none"):
        run(sample, tmp_path, predicted=(f"one={tmp_path / 'one'}",))
    assert not list(tmp_path.rglob("*.pt")) and not (tmp_path / "out").exists()


def test_outputs_open_and_say_what_they_are(decoded):
    folder, result = decoded
    (path,) = (folder / "out").rglob("*_flow.h5")
    flow, arrays, metadata = load_flow(path)
    for name in ("true", "image_only", "unrelated_bold", "permuted_bold"):
        assert flow.shape == arrays[name].shape
    same_moment = (arrays["bold_film"] == arrays["film"]) & (
        arrays["bold_film_time"] == arrays["film_time"]
    )
    assert not same_moment.any()
    assert len(arrays["block"]) == len(flow) and (np.diff(arrays["block"]) >= 0).all()
    assert flow.shape[1:] == (1, 2, 8, 8) and np.isfinite(flow).all()
    assert metadata["Units"] == "pixels of this grid per step"
    with h5py.File(path) as file:  # and without this package
        assert file["flow"].chunks == (1, 1, 2, 8, 8)
    assert {"decoder", "image_only", "permuted_bold", "zero_flow"} <= set(result.table["predictor"])
    assert list((folder / "out").rglob("*stat-importance*statmap*"))
    for table in (folder / "out").rglob("*_table.tsv"):
        assert set(load_table(table)) <= set(load_json(table.with_suffix(".json"))), table.name
    figures = {path.name.split("_", 1)[1] for path in (folder / "out").rglob("figures/*.png")}
    for kind in ("bar", "histogram", "curve", "strip", "flow", "flatmap"):
        assert any(name.endswith(f"{kind}.png") for name in figures), kind
    assert "brain" in result.report.read_text()


@pytest.mark.parametrize("t_r", [0.7, 1.0, 2.0])
def test_the_window_reaches_nine_seconds_after_the_clip(t_r):
    window = np.array(window_of(DecodeOptions(), Bunch(design="continuous", t_r=t_r)))
    assert window[-1] == 0 and (np.diff(window) == 1).all()
    assert 9 - t_r < -window[0] * t_r <= 9


@pytest.mark.parametrize(
    "n_films, seconds, trimmed, tail, apart, expected",
    [
        (40, 120, 0, 0, True, 4),  # three blocks each
        (40, 120, 10, 0, True, 6),  # two, and 30 s are none
        (40, 120, 0, 12, True, 4),  # nothing moves in the tail
        (90, 20, 0, 0, False, 36),  # a run of three shows one block
        (100, 20, 0, 0, False, 30),  # five show two: six runs, where 20 s alone are none
    ],
)
def test_films_are_held_out_until_they_fill_twelve_blocks(
    n_films, seconds, trimmed, tail, apart, expected
):
    n_groups = n_films if apart else {90: 30, 100: 20}[n_films]
    groups = np.arange(n_films) * n_groups // n_films
    t_r = 2.0
    n_volumes, n_left, n_tail = int(seconds / t_r), int(trimmed / t_r), int(tail / t_r)
    on_screen = np.tile(np.r_[np.zeros(n_volumes), -np.ones(n_tail)], n_films) >= 0
    film = np.repeat(np.arange(n_films), n_volumes + n_tail)
    counted = np.tile(np.arange(n_volumes + n_tail) >= n_left, n_films)
    data = Bunch(
        film_names=[f"{i}.mp4" for i in range(n_films)],
        film_groups=groups,
        design="continuous",
        spacing=t_r,
        films=np.where(counted, film, -1),
        on_screen=np.where(on_screen, film, -1),
        runs=groups[film],
    )
    assert len(_choose_test_films(data, None, 0)) == expected


def test_few_blocks_are_said_to_be_few(decoded):
    folder, result = decoded
    assert "no p-value" in result.note
    assert result.note.startswith("The decoder and its controls")
    assert "not supported: training had not ended" in result.note  # two epochs
    (told,) = result.told
    assert max(map(len, told.to_string(index=False).splitlines())) < 110
    (path,) = (folder / "out").rglob("*feat-gain*_table.tsv")
    assert "no p-value" in path.read_text()
    (record,) = (folder / "out").rglob("*_provenance.json")
    content = json.loads(record.read_text())
    assert content["Parameters"]["n_clips"]["test"] > 0
    supported = content["Summary"]["brain gain, supported"]
    assert supported.startswith("no: training had not ended") and "no p-value" in supported


def test_finished_work_is_not_done_again(sample, systems, decoded):
    folder, first = decoded
    files = [path for path in sorted((folder / "out").rglob("*")) if path.suffix != ".html"]
    before = [path.stat().st_mtime_ns for path in files]
    again = run(sample, folder, predicted=systems)
    assert [path.stat().st_mtime_ns for path in files] == before
    shown = again.table.set_index("predictor")["end_point_error_px"]
    expected = first.table.set_index("predictor")["end_point_error_px"]
    np.testing.assert_allclose(shown[expected.index], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(test_films=["nothing"]), "must be named"),
        (dict(repeats="some"), "--repeats must be one of average, concatenate"),
        (dict(image_encoder="no-such-network"), "--image-encoder"),
    ],
)
def test_bad_options_write_nothing(sample, tmp_path, options, match):
    with pytest.raises(InputError, match=match):
        run(sample, tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_clips_are_chosen_by_the_stated_rules():
    random = np.random.default_rng(0)
    y = random.normal(size=(20, 1, 2, 8, 8)).astype(np.float32)
    y[3] = 2.0  # one motion all over
    y[7] *= 2
    y[5] *= 3
    y[11] *= 0.01
    flow, unrelated, image_only = y * 0.5, y * 0.4, y * 0.4
    flow[7], unrelated[7] = y[7], -y[7]  # decoded as it is, without brain the other way round
    flow[5] = -y[5]
    image_only[11] = 1.0
    clips = choose_clips(y, flow, unrelated, image_only)
    # errors relative to the speed: 0 in clip 7, 2 in clip 5, .5 in all others
    assert (clips["best"], clips["worst"]) == (7, 5)
    assert clips["median"] not in (5, 7, 11)
    assert clips["largest gain"] == 7
    assert clips["camera motion"] == 3
    assert clips["static objects"] == 11
