"""From decoded flow to clips, a table and a report: controls, resuming, refusals."""

import numpy as np
import pytest

from brainnrds.analyses import reanimate as reanimate_module
from brainnrds.analyses.options import DecodeOptions, ReanimateOptions
from brainnrds.analyses.reanimate import reanimate_participant
from brainnrds.analyses.record import Record
from brainnrds.features import OpticalFlow
from brainnrds.io import find_runs, read_clip
from brainnrds.reanimation import SplatRenderer

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
    record.open({"t_r": 2.0})
    arrays = {"true": true, "image_only": 0.3 * true, "film": names, "film_time": np.array(times)}
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
    assert set(result.table.flow) == {"decoded", "permuted", "zero", "image_only", "true"}
    error = table.loc["flow_error_px"]["mean"]
    assert max(error["true"], error["decoded"]) < min(error["zero"], error["permuted"])
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
    assert not list(work.rglob(".tmp-*"))
    before = [path.stat().st_mtime_ns for path in kept]

    rendered.clear()
    Renderer.fails_after = None
    run(dataset, output_dir, tmp_path, size=(64, 82))
    assert len(rendered) == 2 + 4 * 6
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_initial_frames_out_of_bold(dataset, output_dir, tmp_path, monkeypatch):
    (flow,) = output_dir.rglob("*_flow.h5")
    monkeypatch.setattr(reanimate_module, "_decode_first", lambda record, options: flow)
    result = run(dataset, output_dir, tmp_path, initial_frames="decoded", confounds=())
    table = result.table.set_index(["score", "flow"])
    assert 0 < table.loc[("ssim", "decoded"), "mean"] < 1
