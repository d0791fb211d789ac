"""BOLD Moments: the real tables, and betas against nilearn and a planted truth."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix

from brainnrds import MotionDecoder, VideoEncodingModel
from brainnrds.datasets import bold_moments as module
from brainnrds.datasets.bold_moments import (
    bold_moments_betas,
    bold_moments_trials,
    estimate_betas,
    fetch_bold_moments,
    load_betas,
    load_nuisance,
)
from brainnrds.encoding import correlation_score, held_out_predictions
from brainnrds.io import InputError


@pytest.mark.shared_data
@pytest.mark.parametrize("subject", ["01", "sub-03"])
def test_real_trials(shared_data, subject):
    trials = bold_moments_trials(shared_data / "bold-moments-ds005165", subject)
    assert set(trials["t_r"]) == {1.75}
    assert (trials["duration"] == 3).all()
    runs = trials.groupby(["task", "run"])
    assert len(runs) == 4
    for (task, _), run in runs:
        assert run["stim_file"].str.fullmatch(task + r"/\d{4}\.mp4").all()
        assert (np.diff(run["onset"]) >= 3.0).all()
    # 100 and 113 rows a run, oddballs among them
    assert len(trials) + len(trials.attrs["oddballs"]) == 2 * 100 + 2 * 113
    assert (trials.attrs["oddballs"]["trial_type"] == "oddball").all()
    assert trials.groupby("stim_file")["repeat"].max().max() >= 1
    first = trials.iloc[trials.index[trials["task"] == "train"][0]]
    if subject == "01":
        assert (first["onset"], first["stim_file"]) == (4.023, "train/0444.mp4")


@pytest.mark.shared_data
def test_real_confounds(shared_data):
    folder = shared_data / "bold-moments-ds005165/derivatives/versionB/fmriprep"
    tables = sorted(folder.rglob("*_desc-confounds_timeseries.tsv"))
    assert len(tables) == 8
    for path in tables:
        values = load_nuisance(path)
        assert values.shape[1] == 8 and np.isfinite(values).all()
        assert len(load_nuisance(path, ("framewise_displacement",))) == len(values)
        assert load_nuisance(path, ("framewise_displacement",))[0] == 0  # n/a in the table


@pytest.mark.shared_data
def test_real_trials_fit_into_their_runs(shared_data):
    """Every clip ends before its run does, by the number of rows of the confounds table."""
    root = shared_data / "bold-moments-ds005165"
    trials = bold_moments_trials(root, "01")
    for (ses, task, run), rows in trials.groupby(["session", "task", "run"]):
        table = (
            root
            / f"derivatives/versionB/fmriprep/sub-01/ses-{ses}/func"
            / f"sub-01_ses-{ses}_task-{task}_run-{run}_desc-confounds_timeseries.tsv"
        )
        assert rows["onset"].max() + 3 < 1.75 * len(load_nuisance(table))


def _events(n_trials, rng, gap=4.0):
    onsets = 6 + gap * np.arange(n_trials) + rng.uniform(0, 0.5, n_trials)
    return pd.DataFrame(
        {
            "onset": onsets,
            "duration": 3.0,
            "trial_type": "train",
            "stim_file": [
                None if index % 9 == 4 else f"train/{index:04d}.mp4" for index in range(n_trials)
            ],
        }
    )


def _full_design(events, n_volumes, t_r, label):
    table = events[["onset", "duration"]].copy()
    table["trial_type"] = label
    times = t_r / 2 + t_r * np.arange(n_volumes)
    return make_first_level_design_matrix(
        times, table, hrf_model="glover", drift_model="cosine", high_pass=1 / 128
    )


@pytest.mark.parametrize("model", ["lss", "lsa"])
def test_betas_equal_the_plain_regressions(model):
    """Our shared projection equals fitting each full design by itself."""
    rng = np.random.default_rng(0)
    events = _events(20, rng)
    bold = rng.standard_normal((70, 5)).cumsum(axis=0)
    betas = estimate_betas(bold, events, t_r=1.75, model=model)
    clips = np.flatnonzero(events["stim_file"].notna())
    assert betas.shape == (len(clips), 5)
    for row, trial in enumerate(clips):
        label = np.where(events["stim_file"].isna(), "oddball", "other").astype(object)
        if model == "lss":
            label[trial] = "one"
        else:
            label[clips] = [f"t{index}" for index in clips]
        design = _full_design(events, 70, 1.75, label)
        name = "one" if model == "lss" else f"t{trial}"
        expected = np.linalg.lstsq(design.to_numpy(), bold, rcond=None)[0]
        np.testing.assert_allclose(
            betas[row], expected[list(design.columns).index(name)], rtol=1e-3, atol=1e-3
        )


def _write_run(root, run, events, bold, mask):
    stem = f"sub-01_ses-02_task-train_run-{run}"
    raw = root / "sub-01/ses-02/func"
    out = root / "derivatives/versionB/fmriprep/sub-01/ses-02/func"
    raw.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    events.to_csv(raw / f"{stem}_events.tsv", sep="\t", index=False, na_rep="n/a")
    (raw / f"{stem}_bold.json").write_text('{"RepetitionTime": 1.75}')
    volume = np.zeros((*mask.shape, len(bold)), dtype=np.float32)
    volume[mask] = bold.T
    nib.save(nib.Nifti1Image(volume, np.eye(4)), out / f"{stem}_space-T_desc-preproc_bold.nii.gz")
    nib.save(
        nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)),
        out / f"{stem}_space-T_desc-brain_mask.nii.gz",
    )
    nuisance = np.random.default_rng(run).standard_normal((len(bold), 8)).cumsum(axis=0)
    table = pd.DataFrame(nuisance, columns=list(module._NUISANCE))
    table.to_csv(out / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")


def test_planted_responses_come_back_beside_their_clips(tmp_path):
    rng = np.random.default_rng(1)
    mask = np.zeros((4, 4, 3), dtype=bool)
    mask[1:3, 1:3] = True
    weights = {}
    for run in range(1, 11):  # 10 comes after 9
        events = _events(30, rng, gap=6.0)
        truth = rng.standard_normal((30, 12))
        design = _full_design(events, 115, 1.75, [f"t{index:02d}" for index in range(30)])
        bold = design.iloc[:, :30].to_numpy() @ truth * 10
        bold += 1000 + 0.5 * rng.standard_normal(bold.shape)
        _write_run(tmp_path, run, events, bold, mask)
        weights[str(run)] = truth[events["stim_file"].notna()]
    found = bold_moments_betas(tmp_path, "01", space="T")
    assert found.bold.shape == (10 * 27, 12)
    assert list(dict.fromkeys(found.trials["run"])) == [str(run) for run in range(1, 11)]
    truth = np.concatenate([weights[run] for run in dict.fromkeys(found.trials["run"])])
    for label in range(10):
        rows = found.runs == label
        assert (
            np.corrcoef(found.bold[rows].ravel(), truth[rows].ravel())[0, 1] > 0.7
        )  # another order: about 0
    # the same clip in another run is a repeat and shares its film label
    same = found.trials["stim_file"] == found.trials["stim_file"].iloc[0]
    assert len(set(found.films[same])) == 1
    np.testing.assert_array_equal(found.trials["repeat"][same], np.arange(1, 11))
    with pytest.raises(InputError, match="Not found: .*space-X"):
        bold_moments_betas(tmp_path, "01", space="X")


def test_released_betas(tmp_path):
    trials = pd.DataFrame({"stim_file": ["a.mp4", "b.mp4", "c.mp4"]})
    betas = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "b.npy", betas)
    np.testing.assert_array_equal(load_betas(tmp_path / "b.npy", trials), betas)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["betasmd"] = betas.T
    np.testing.assert_array_equal(load_betas(tmp_path / "b.h5", trials), betas)
    np.save(tmp_path / "short.npy", betas[:2])
    with pytest.raises(InputError, match=r"must have shape \(3, n_voxels\).*got \(2, 4\)"):
        load_betas(tmp_path / "short.npy", trials)
    with pytest.raises(InputError, match="is a pickle, which can run code"):
        load_betas(tmp_path / "b.pkl", trials)


def test_no_events(tmp_path):
    with pytest.raises(InputError, match="No events of subject 07"):
        bold_moments_trials(tmp_path, "07")


FILES = {
    "dataset_description.json": b"{}",
    "README": b"read",
    "sub-01/ses-02/func/sub-01_ses-02_task-train_run-1_events.tsv": b"onset\n",
    "sub-01/ses-02/func/sub-01_ses-02_task-train_run-1_bold.json": b"{}",
    "sub-01/ses-02/func/sub-01_ses-02_task-train_run-1_bold.nii.gz": b"big",
}


class _Bucket(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urlparse(self.path)
        query = parse_qs(url.query)
        if "list-type" in query:
            prefix = query["prefix"][0].removeprefix("ds005165/")
            names = sorted(name for name in FILES if name.startswith(prefix))
            page = int(query.get("continuation-token", ["0"])[0])  # one name a page
            body = "<ListBucketResult xmlns='urn:x'>"
            for name in names[page : page + 1]:
                size = len(FILES[name])
                body += f"<Contents><Key>ds005165/{name}</Key><Size>{size}</Size></Contents>"
            if page + 1 < len(names):
                body += f"<NextContinuationToken>{page + 1}</NextContinuationToken>"
            body = (body + "</ListBucketResult>").encode()
        else:
            body = FILES.get(url.path.removeprefix("/ds005165/"))
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


def test_fetch(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        options = {"what": ("events",), "server": address, "verbose": 0, "n_retries": 0}
        listed = fetch_bold_moments(tmp_path, dry_run=True, **options)
        assert len(listed.files) == 4 and not listed.bids_dir.exists()
        found = fetch_bold_moments(tmp_path, **options)
        for name in listed.files["path"]:
            assert (found.bids_dir / name).read_bytes() == FILES[name]
        with pytest.raises(InputError, match="has no derivatives/versionB"):
            fetch_bold_moments(tmp_path, **{**options, "what": ("betas",)})
        server.shutdown()
    with pytest.raises(ValueError, match="`what` must be among"):
        fetch_bold_moments(tmp_path, what=("films",))


def test_trials_feed_both_estimators_without_delays():
    rng = np.random.default_rng(3)
    films = np.concatenate([rng.permutation(60) for _ in range(3)])  # three runs of the same clips
    runs = np.repeat(np.arange(3), 60)
    features = rng.standard_normal((60, 8)).astype(np.float32)
    bold = features[films] @ rng.standard_normal((8, 6)) + rng.standard_normal((180, 6))
    bold = bold.astype(np.float32)
    model = VideoEncodingModel(delays=(0,), cv=4)
    held_out = held_out_predictions(model, features[films], bold, runs=runs, films=films, n_folds=4)
    score = correlation_score(bold, held_out.predictions, runs=runs, folds=held_out.folds)
    assert score.min() > 0.7
    for fold in range(4):  # the repeats of a clip are never apart
        assert not set(films[held_out.folds == fold]) & set(films[held_out.folds != fold])

    flow = np.zeros((180, 1, 2, 4, 4), dtype=np.float32)
    flow[:, :, 0] = np.sign(features[films, 0])[:, None, None, None]
    decoder = MotionDecoder(2, delays=(0,), n_epochs=60, random_state=0)
    decoder.fit(bold, flow, runs=runs, films=films)
    right = np.sign(decoder.predict(bold, runs=runs)[:, 0, 0].mean((1, 2)))
    assert np.mean(right == np.sign(features[films, 0])) > 0.75
