"""A real local Dask cluster of separate processes that loses a worker: the result is the same."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import joblib
import nibabel as nib
import numpy as np
import pytest

from brainnrds.cli import main
from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import VideoEncodingModel, held_out_predictions
from brainnrds.features import FeatureProjection

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@contextmanager
def cluster_that_loses_a_worker(should_kill):
    """Yield a client and a dict; one of two workers is killed at work, once `should_kill()`."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    state = {}
    with cluster, distributed.Client(cluster) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2 and os.getpid() not in pids.values()

        def kill_at_work():
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and "stop" not in state:
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                if should_kill() and busy:
                    os.kill(pids[busy[0]], signal.SIGKILL)
                    state["killed"] = pids[busy[0]]
                    return
                time.sleep(0.02)

        killer = threading.Thread(target=kill_at_work, daemon=True)
        killer.start()
        yield client, state
        state["stop"] = True
        killer.join(timeout=30)
        assert state["killed"] not in client.run(os.getpid).values()


def test_voxel_blocks_go_to_workers():
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(4), 100)
    X = rng.normal(size=(400, 60)).astype(np.float32)
    y = X @ rng.normal(size=(60, 2500)) + 8 * rng.normal(size=(400, 2500))
    y = y.astype(np.float32)
    model = VideoEncodingModel(
        {"a": slice(0, 30), "b": slice(30, 60)}, delays=(0, 1), n_iter=5, random_state=0
    )
    options = {"runs": runs, "by_feature_space": True, "projection": FeatureProjection(20)}
    expected = held_out_predictions(model, X, y, **options)
    with cluster_that_loses_a_worker(lambda: True), joblib.parallel_config("dask"):
        found = held_out_predictions(model, X, y, **options)
    for name in ("predictions", "by_feature_space"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    np.testing.assert_array_equal(found.folds, expected.folds)


def test_participants_go_to_workers(tmp_path, capsys):
    dataset = make_movie_dataset(
        tmp_path / "bids",
        n_subjects=4,
        n_runs=3,
        n_films_per_run=1,
        n_test_films=0,
        film_duration=80,
        n_repeats=1,
        space="MNI152NLin2009cAsym",
        random_state=0,
    )
    # its BOLD is not there: this one fails on a worker, the others do not
    for path in dataset.derivatives_dir.glob("sub-03/**/*_bold.nii.gz"):
        path.write_bytes(b"not an image")
    fast = ["--n-iter", "1", "--n-folds", "2", "--n-permutations", "100", "--n-cpus", "1"]

    def run(out, *more):
        arguments = [str(dataset.bids_dir), str(tmp_path / out), "participant"]
        return main([*arguments, "-w", str(tmp_path / out / "work"), *fast, *more])

    def difference(out, subject):
        [path] = (tmp_path / out).glob(
            f"sub-{subject}/func/*videoMinusImage_stat-difference*.nii.gz"
        )
        return nib.load(path).get_fdata()

    assert run("alone", "--participant-label", "04") == 0
    first_report = tmp_path / "out" / "sub-01.html"
    with cluster_that_loses_a_worker(first_report.exists) as (client, _):
        capsys.readouterr()
        code = run("out", "--dask-scheduler", client.scheduler.address)
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.startswith("brainnrds: ")]
    assert code == 2 and len(lines) == 1 and "sub-03" in lines[0], lines
    assert [f"sub-0{i}\n" in output.out for i in (1, 2, 3, 4)] == [True, True, False, True]
    np.testing.assert_allclose(difference("out", "04"), difference("alone", "04"), atol=1e-4)


def test_a_scheduler_that_does_not_answer(tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    arguments = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant"]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main([*arguments, "--dask-scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "--dask-scheduler must be the address" in capsys.readouterr().err
