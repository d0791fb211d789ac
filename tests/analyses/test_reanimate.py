"""From decoded flow to clips, a table and a report: controls, resuming, refusals."""

import numpy as np
import pandas as pd
import pytest

from brainnrds._checks import InputError
from brainnrds.analyses import reanimate as reanimate_module
from brainnrds.analyses.decode import decode_from_frames, decode_participant, open_decoding
from brainnrds.analyses.options import DecodeOptions, ReanimateOptions
from brainnrds.analyses.reanimate import reanimate_participant
from brainnrds.analyses.record import Record
from brainnrds.decoding._training import Training
from brainnrds.features import OpticalFlow
from brainnrds.io import find_runs, load_flow, read_clip, save_clips, save_flow
from brainnrds.reanimation import InitialFrameDecoder, SplatRenderer

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def dataset(short_movies):
    return short_movies


@pytest.fixture(scope="module")
def output_dir(dataset, tmp_path_factory):
    """Decoded flow as the decoding analysis writes it: the truth, with noise."""
    output = tmp_path_factory.mktemp("out")
    runs = find_runs(dataset.bids_dir, derivatives=dataset.derivatives_dir, subject="01")
    films = {p.film: p.stim_file for run in runs for p in run.films}
    names, times, clips = [], [], []
    for name in sorted(films)[:2]:
        for t in (2.0, 10.0, 20.0):
            names.append(name)
            times.append(t)
            clips.append(read_clip(films[name], start=t, duration=2.0, fps=8, size=96))
    true = np.concatenate([OpticalFlow().transform(c[None]) for c in clips])
    noise = np.random.default_rng(0).normal(size=true.shape).astype(np.float32)
    record = Record.of_participant("decode", dataset.bids_dir, output, "01")
    record.settle(DecodeOptions())
    record.open({"t_r": 2.0, "clip_duration": 2.0})
    arrays = {
        "true": true,
        "image_only": 0.3 * true,
        "unrelated_bold": 0.2 * true,
        "permuted_bold": 0.3 * true,
        "film": names,
        "film_time": np.array(times),
        "block": np.repeat([0, 1], 3),
    }
    record.save_flow(true + 0.05 * noise, arrays=arrays, contents="planted")
    record.close({}, random_state=0)
    return output


def run(dataset, output_dir, work_dir, **changes):
    options = ReanimateOptions(**{"n_frames": 4, "size": (64, 80), "device": "cpu", **changes})
    return reanimate_participant(
        dataset.bids_dir, output_dir, "01", options, work_dir=work_dir, verbose=0
    )


def test_table_clips_and_report(dataset, output_dir, tmp_path):
    result = run(dataset, output_dir, tmp_path)
    table = result.table.set_index(["score", "flow"])
    controls = ["unrelated_bold", "image_only", "permuted", "flow of another clip", "zero"]
    assert list(table.loc["ssim"].index) == ["decoded", *controls, "true"]
    error = table.loc["flow_error_px"]["mean"]
    assert max(error["true"], error["decoded"]) < error[controls].min()
    assert table.loc[("flow_error_px", "zero"), "gain"] > 0
    report = result.report.read_text()
    for path in output_dir.glob("sub-01/figures/*reanimate*.gif"):
        assert path.name in report, "every strip stands in the report"
    videos = sorted(output_dir.glob("sub-01/clips/*.mp4"))
    assert len(videos) == 6
    assert len(sorted(output_dir.glob("sub-01/figures/*reanimate*.gif"))) == 3
    assert "blocks of clips are too few" in report  # and not a p-value that says nothing

    # a finished analysis is reported, not run again
    again = run(dataset, output_dir, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    np.testing.assert_allclose(again.table["mean"].astype(float), result.table["mean"], rtol=1e-6)


def test_a_stored_clip_is_whole_or_refused(tmp_path):
    stored = reanimate_module._StoredClips(tmp_path, 3)
    clip = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.float32) / 255
    assert stored.missing() == [0, 1, 2]
    stored.store(1, clip)
    np.testing.assert_allclose(stored[1], clip)
    assert stored.missing() == [0, 2]
    stored.paths[1].write_bytes(stored.paths[1].read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged or gone: run again"):
        stored[1]
    stored.paths[0].mkdir()
    with pytest.raises(InputError, match="must be a file; got a folder"):
        stored.missing()


def test_goes_on_with_the_clip_at_which_it_stopped(dataset, output_dir, tmp_path, monkeypatch):
    rendered = []

    class Renderer(SplatRenderer):
        batch_size = 1
        fails_after = 4

        def __call__(self, frames, flow):
            if len(rendered) == self.fails_after:
                raise OSError(28, "No space left on device")
            rendered.append(float(flow.sum()))
            return super().__call__(frames, flow)

    monkeypatch.setattr(reanimate_module, "make_renderer", lambda *a, **k: Renderer(4))
    with pytest.raises(OSError, match="No space"):
        run(dataset, output_dir, tmp_path, size=(64, 82))
    (work,) = (tmp_path / "sub-01").glob("reanimate-*")
    kept = sorted((work / "decoded").glob("clip-*.npy"))
    assert len(kept) == 4
    assert all(np.load(path).shape == (4, 3, 64, 82) for path in kept)
    kept[1].write_bytes(kept[0].read_bytes()[:-1])  # damaged: rendered again
    flipped = bytearray(kept[2].read_bytes())
    flipped[500] ^= 1
    kept[2].write_bytes(flipped)
    assert not list(work.rglob(".tmp-*"))
    before = [path.stat().st_mtime_ns for path in kept]

    rendered.clear()
    Renderer.fails_after = None
    run(dataset, output_dir, tmp_path, size=(64, 82))
    assert len(rendered) == 2 + 2 + 6 * 6
    after = [path.stat().st_mtime_ns for path in kept]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False, True]


@pytest.fixture(scope="module")
def decoded_frames(dataset, tmp_path_factory):
    """Clips from the film's frames, from frames decoded from BOLD, and from noise instead."""
    folder = tmp_path_factory.mktemp("decoded")
    small = {
        "grid": (8, 8),
        "n_steps": 1,
        "n_codes": 8,
        "n_epochs": 2,
        "n_voxels": 200,
        "n_permutations": 100,
        "n_seeds": 1,
        "n_draws": 1,
        "confounds": (),
        "delays_seconds": (-6.0, -4.0, 0.0),
    }
    learnt = []

    class Spy(InitialFrameDecoder):
        def fit(self, X, y, **labels):
            learnt.append((list(self.delays), y.shape[2:]))
            return super().fit(X, y, **labels)

    noise = np.random.default_rng(0).random((500, 1, 3, 64, 80)).astype(np.float32)
    save_clips(folder / "noise.h5", noise, fps=1)
    sources = {"stimulus": "stimulus", "decoded": "decoded", "noise": str(folder / "noise.h5")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reanimate_module, "InitialFrameDecoder", Spy)
        tables = {
            source: run(
                dataset, folder / "out", folder / "work", initial_frames=path, **small
            ).table
            for source, path in sources.items()
        }
    # the window of the flow, and frames no larger than they are learnt, whatever is rendered
    assert learnt == [([-3, -2, 0], (64, 64))]
    return {source: table.set_index(["score", "flow"])["mean"] for source, table in tables.items()}


def test_flow_is_decoded_from_the_frames_that_are_rendered(decoded_frames):
    """The film's own frame is an oracle: where others are rendered it is a row of its own."""
    assert "true frame" not in decoded_frames["stimulus"].loc["ssim"].index
    for source in ("decoded", "noise"):
        error = decoded_frames[source].loc["flow_error_px"]
        assert "true frame" in error.index
        # the decoder saw the rendered frame, not the film's: its clips move otherwise
        assert abs(error["decoded"] - error["true frame"]) > 1e-4
        assert list(error.index)[:4] == ["decoded", "unrelated_bold", "image_only", "permuted"]


def test_frames_that_are_none_are_refused_before_the_decoding(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(reanimate_module, "_decode_first", None)
    (tmp_path / "no.h5").write_text("no HDF5")
    for name in ("no.h5", "none.h5"):
        with pytest.raises(InputError, match=name):
            run(dataset, tmp_path / "out", tmp_path, initial_frames=str(tmp_path / name))


def test_noise_in_place_of_the_frames_shows_in_the_clips(decoded_frames):
    ssim = {source: means.loc["ssim"] for source, means in decoded_frames.items()}
    assert ssim["stimulus"]["zero"] > ssim["decoded"]["zero"] > ssim["noise"]["zero"]


def test_p_over_the_other_network_counts_what_training_does():
    table = pd.DataFrame(
        {"flow": ["decoded", "unrelated_bold", "zero"], "p": [np.nan, 0.001, 0.002]}
    )
    np.testing.assert_array_equal(
        reanimate_module._count_training(table, 0.4)["p"], [np.nan, 0.4, 0.002]
    )
    np.testing.assert_array_equal(
        reanimate_module._count_training(table, np.nan)["p"], [np.nan, np.nan, 0.002]
    )
    pd.testing.assert_frame_equal(reanimate_module._count_training(table, 0.0), table)


def test_flow_without_blocks_is_refused(dataset, output_dir, tmp_path, monkeypatch):
    def load(path):
        flow, arrays, metadata = load_flow(path)
        return flow, {name: array for name, array in arrays.items() if name != "block"}, metadata

    monkeypatch.setattr(reanimate_module, "load_flow", load)
    with pytest.raises(InputError, match="decode into a new output folder"):
        run(dataset, output_dir, tmp_path)


def test_other_frames_train_nothing_anew(dataset, tmp_path, monkeypatch):
    """The networks are those of the decoding: what decides is the frame alone."""
    chosen = DecodeOptions(
        grid=(8, 8), n_steps=1, n_codes=8, n_epochs=1, n_voxels=100, n_permutations=100, n_seeds=1,
        n_draws=1, device="cpu",
    )  # fmt: skip
    where = {"work_dir": tmp_path / "work", "verbose": 0}
    decode_participant(dataset.bids_dir, tmp_path / "out", "01", chosen, **where)
    record, extractors, device = open_decoding(
        dataset.bids_dir, tmp_path / "out", "01", chosen, **where
    )
    (path,) = (tmp_path / "out").rglob("*_flow.h5")
    flow, arrays, _ = load_flow(path)
    films = {p.film: p.stim_file for one in record.runs for p in one.films}
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in arrays["film"]]
    frames = np.stack(
        [
            read_clip(films[name], start=t, duration=0.1, fps=10)[0]
            for name, t in zip(names, arrays["film_time"], strict=True)
        ]
    )
    monkeypatch.delattr(Training, "_step")  # no step is trained any more
    again = decode_from_frames(record, extractors, device, frames)
    # the film's own frames give the flow of the decoding, and that of its controls
    np.testing.assert_allclose(again["decoder"], flow, atol=1e-4)
    for name in ("image_only", "unrelated_bold", "permuted_bold"):
        np.testing.assert_allclose(again[name], arrays[name], atol=1e-4)
    few = decode_from_frames(record, extractors, device, np.zeros_like(frames[:5]))
    assert len(few["decoder"]) == 5 and np.abs(few["decoder"] - flow[:5]).max() > 1e-3


@pytest.mark.parametrize("missing", ["block", "clip_duration"])
def test_flow_of_an_earlier_version_is_refused(tmp_path, missing):
    arrays = {"film": ["a.mp4"], "film_time": np.zeros(1), "block": np.zeros(1, int)}
    metadata = {"clip_duration": 2.0}
    (arrays if missing == "block" else metadata).pop(missing)
    path = tmp_path / "flow.h5"
    save_flow(path, np.zeros((1, 2, 2, 4, 4), np.float32), arrays=arrays, metadata=metadata)
    with pytest.raises(InputError, match="an earlier version"):
        reanimate_module._read_decoded(path, [], None)
