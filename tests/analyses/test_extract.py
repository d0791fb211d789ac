"""Extraction of features of films: what comes out, what is kept, what survives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import joblib
import numpy as np
import pytest
import torch
from killing import small_extractors, small_films
from sklearn.base import clone

from brainnrds.analyses import extract, looks
from brainnrds.analyses.extract import describe_extractor, extract_features, movie_features
from brainnrds.features import ImageEncoder, OpticalFlow, VideoEncoder
from brainnrds.io import InputError
from brainnrds.io.video import iter_clips, read_clip, write_clip

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return small_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Return a tiny video and a tiny image network, saved in the hub's layout."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    video = transformers.VideoMAEConfig(
        **sizes, intermediate_size=64, image_size=32, patch_size=16, num_frames=4
    )
    image = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    for name, model, side in (
        ("video", transformers.VideoMAEModel(video), 32),
        ("image", transformers.Dinov2Model(image), 28),
    ):
        model.save_pretrained(folder / name)
        transformers.VideoMAEImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ).save_pretrained(folder / name)
    return {
        "video": VideoEncoder(folder / "video"),
        "image": ImageEncoder(folder / "image", fps=3.0, layers=["output", 0]),
    }


def _same(first, second, *, exact=True):
    for name in first:
        for a, b in zip(first[name], second[name], strict=True):
            if exact:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, atol=1e-5)


def test_extractors_without_network_get_the_clips_of_iter_clips(films, tmp_path):
    extractors = small_extractors()
    features = extract_features(films, extractors, store_dir=tmp_path, chunk_size=3)
    for i_film, (path, times, duration) in enumerate(films):
        for name, extractor in extractors.items():
            clips = iter_clips(path, times, duration, fps=extractor.fps, size=extractor.size)
            expected = extractor.transform(clips)
            np.testing.assert_array_equal(features[name][i_film], expected)


def test_features_of_a_participants_samples(films, tmp_path):
    """Films without a usable volume are left out; every clip is computed once.

    A repetition time of .8 s has clips of 1 s around the same middle, none before the film.
    """
    (path, _, _), (other, _, _) = films[:2]
    data = SimpleNamespace(
        on_screen=np.array([0, 0, -1, 2, 2, 0]),
        film_times=np.array([0.0, 0.8, 1.6, 0.0, 0.8, 0.8]),
        film_starts=[0.0] * 3,
        film_durations=[2.0, 2.0, 2.0],
        stim_files=[path, tmp_path / "not read.mp4", other],
        design="continuous",
        clip_duration=0.8,
    )
    extractors = small_extractors()
    X, spaces = movie_features(data, extractors, store_dir=tmp_path, progress=False)
    for name, extractor in extractors.items():
        clips = {
            i: list(iter_clips(film, [0.0, 0.7], 1.0, fps=extractor.fps, size=extractor.size))
            for i, film in ((0, path), (2, other))
        }
        first, second = (extractor.transform(clips[i]) for i in (0, 2))
        rows = np.stack([first[0], first[1], first[1] * 0, second[0], second[1], first[1]])
        rows[2] = np.concatenate([first, second]).mean(0)
        np.testing.assert_allclose(X[:, spaces[name]], rows, rtol=1e-6)
    assert X.dtype == np.float32
    assert sum(len(range(*s.indices(X.shape[1]))) for s in spaces.values()) == X.shape[1]


@pytest.mark.parametrize("t_r", [0.72, 0.8, 1.0, 1.5, 2.0])
def test_flow_of_a_film_is_in_its_pixels_per_second(tmp_path, t_r):
    """A film that pans by 24 px/s: a step of a clip lasts a third of the repetition time."""
    picture = np.random.default_rng(0).random((96, 600, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), 3)
    picture = (picture - picture.min()) / np.ptp(picture)
    film = np.stack([picture[:, 300 - k : 428 - k] for k in range(0, 150)]).transpose(0, 3, 1, 2)
    write_clip(tmp_path / "pan.mp4", film, fps=24)
    times = np.arange(0, 4, t_r)
    flow = extract_features(
        [(tmp_path / "pan.mp4", times, t_r)],
        {"flow": OpticalFlow(grid=(12, 16), size=None)},
        store_dir=tmp_path / "store",
        progress=False,
    )["flow"][0]
    per_second = flow[:, :, 0, 3:-3, 6:-3].mean(axis=(2, 3)) * 8 / (t_r / 3)
    # a frame stays on screen until the next: each is up to 1/24 s older than its moment
    assert per_second.mean() == pytest.approx(24, rel=0.03)


def test_networks_get_the_frames_of_the_film(films, networks, tmp_path):
    features = extract_features(films, networks, store_dir=tmp_path, chunk_size=3, progress=False)
    path, times, duration = films[0]
    frames = np.stack([read_clip(path, start=t, duration=duration, fps=4) for t in times])
    expected = networks["video"].transform(frames)
    np.testing.assert_allclose(features["video"][0], expected, atol=1e-5)
    frames = np.stack([read_clip(path, start=t, duration=duration, fps=3) for t in times])
    expected = networks["image"].transform(frames)
    np.testing.assert_allclose(features["image"][0], expected, atol=1e-5)
    assert features["image"][1].shape == (len(films[1][1]), 64)


def test_a_chunk_is_decoded_once_and_a_finished_film_never(films, networks, tmp_path, monkeypatch):
    n_decodings = 0
    original = looks.iter_frames

    def counting(*args, **options):
        nonlocal n_decodings
        n_decodings += 1
        return original(*args, **options)

    monkeypatch.setattr(looks, "iter_frames", counting)
    extractors = {**small_extractors(), **networks}
    first = extract_features(films, extractors, store_dir=tmp_path, chunk_size=4, progress=False)
    assert n_decodings == 2 + 2  # chunks of the two films
    # the same film under another name, as another participant's data set may hold it
    path, times, duration = films[0]
    copy = shutil.copy(path, tmp_path / "copy.mp4")
    again = extract_features(
        [(copy, times, duration)], extractors, store_dir=tmp_path, chunk_size=4, progress=False
    )
    assert n_decodings == 4
    _same({name: values[:1] for name, values in first.items()}, again)


def test_torchcodec_gives_the_same_features_under_another_key(
    films, networks, tmp_path, monkeypatch
):
    asked = []
    original = looks.iter_frames

    def through_pyav(path, times, *, decoder):
        asked.append(decoder)
        return original(path, times)

    monkeypatch.setattr(looks, "iter_frames", through_pyav)
    options = {"store_dir": tmp_path, "progress": False, "n_jobs": 2, "chunk_size": 1}
    first = extract_features(films, networks, **options)
    asked.clear()
    second = extract_features(films, networks, film_reader="torchcodec", **options)
    # computed anew, in this process whatever n_jobs
    assert asked == ["torchcodec"] * sum(len(times) for _, times, _ in films)
    assert len(list(tmp_path.glob("*.h5"))) == 2 * len(films) * len(networks)
    _same(first, second, exact=False)


def test_clips_and_extractors_that_make_no_sense_are_refused(films, tmp_path):
    (path, times, duration), motion = films[0], small_extractors()
    for bad, message in (
        ((path, times[::-1] + 1, duration), "ascending"),
        ((path, [np.nan], duration), "finite"),
        ((path, times, 0), "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            extract_features([bad], motion, store_dir=tmp_path, progress=False)
    with pytest.raises(TypeError, match="got 'videomae-base'"):
        extract_features(films, {"a": "videomae-base"}, store_dir=tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_film_that_is_listed_twice_is_computed_once(films, tmp_path, monkeypatch):
    kept = []
    original = extract.FeatureStore.entry

    def spying(self, *args, **kwargs):
        entry = original(self, *args, **kwargs)
        write = entry.write_chunk
        entry.write_chunk = lambda chunk, values: (kept.append(chunk), write(chunk, values))
        return entry

    monkeypatch.setattr(extract.FeatureStore, "entry", spying)
    motion = {"motion": small_extractors()["motion"]}
    features = extract_features([films[0]] * 2, motion, store_dir=tmp_path, progress=False)
    assert kept == [0]
    np.testing.assert_array_equal(*features["motion"])


def test_processes_and_devices_do_not_change_the_features(films, networks, tmp_path):
    extractors = {**small_extractors(), **networks}
    options = {"chunk_size": 1, "progress": False}  # enough chunks for two processes
    one = extract_features(films, extractors, store_dir=tmp_path / "one", **options)
    many = extract_features(
        films, extractors, store_dir=tmp_path / "two", n_jobs=2, devices=["cpu", "cpu"], **options
    )
    _same(one, many, exact=False)
    _same({"motion": one["motion"]}, {"motion": many["motion"]})


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_several_gpus_share_the_work(films, networks, tmp_path, monkeypatch):
    used = []
    original = extract._moved
    monkeypatch.setattr(
        extract, "_moved", lambda e, device: (used.append(device), original(e, device))[1]
    )
    networks = {name: clone(e).set_params(precision="float32") for name, e in networks.items()}
    options = {"chunk_size": 1, "progress": False}
    cpu = extract_features(films, networks, store_dir=tmp_path / "cpu", **options)
    networks = {name: clone(e).set_params(device="auto") for name, e in networks.items()}
    gpus = extract_features(films, networks, store_dir=tmp_path / "gpus", **options)
    first, second = (used.count(f"cuda:{i}") for i in range(2))
    assert first - len(networks) >= second >= first - 2 * len(networks) > 0
    for name in networks:
        for ours, theirs in zip(gpus[name], cpu[name], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_kills_at_random_moments_and_two_at_once(tmp_path):
    """The short version of prove_extraction: the result is that of an uninterrupted run."""
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "5", "0"], check=True, capture_output=True, text=True
    )
    outcome = json.loads(done.stdout)
    assert len(outcome["kills"]) == 5
    assert outcome["identical_to_uninterrupted"] == outcome["finished_after_kills"] >= 1
    assert outcome["two_at_once"] == {"statuses": [0, 0], "identical": True}, done.stderr


def test_dask_cluster_that_loses_a_worker(films, tmp_path):
    """The short version of prove_extraction: separate processes, one of them killed mid-way."""
    distributed = pytest.importorskip("distributed")
    extractors = small_extractors()
    options = {"chunk_size": 1, "progress": False}
    expected = extract_features(films, extractors, store_dir=tmp_path / "alone", **options)
    store_dir = tmp_path / "cluster"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        assert len(set(pids)) == 2 and os.getpid() not in pids
        state = {}

        def kill_midway():
            while not list(store_dir.glob("*.parts/*.h5")):
                time.sleep(0.02)
            state["n_chunks"] = len(list(store_dir.glob("*.parts/*.h5")))
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_midway, daemon=True)
        killer.start()
        with joblib.parallel_config("dask"):
            features = extract_features(films, extractors, store_dir=store_dir, **options)
        killer.join(timeout=30)
        pids_afterwards = list(client.run(os.getpid).values())
    n_chunks = len(extractors) * sum(len(times) for _, times, _ in films)
    assert 0 < state["n_chunks"] < n_chunks  # killed with work left
    assert pids[0] not in pids_afterwards
    _same(expected, features, exact=False)


def test_bad_films_and_networks_are_refused_in_one_line(films, networks, tmp_path):
    motion = {"motion": small_extractors()["motion"]}
    path, times, duration = films[0]
    cases = [
        ([(tmp_path / "none.mp4", times, duration)], motion, "Film not found"),
        ([(path, times + 3, duration)], motion, "lasts 8.00 s; a clip at 9.00 s was asked for"),
        (films, {"video": VideoEncoder("videomae-larg")}, "Did you mean videomae-large"),
        (films, {"video": VideoEncoder(tmp_path)}, "config.json is missing"),
    ]
    damaged = shutil.copytree(networks["video"].name, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    cases.append((films, {"video": VideoEncoder(damaged)}, "damaged or do not fit videomae"))
    cases.append((films, {"video": VideoEncoder(networks["video"].name, layers=9)}, "got 9"))
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(path.read_bytes()[:5000])
    cases.append(([(truncated, times, duration)], motion, "truncated"))
    for bad_films, extractors, message in cases:
        with pytest.raises(InputError, match=message) as error:
            extract_features(bad_films, extractors, store_dir=tmp_path, progress=False)
        assert "\n" not in str(error.value)


def _write_film(path, times, size, *, rate=90000):
    """Write grey frames, brighter and brighter, at given times (ticks of 1 / rate s)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = "yuv444p", Fraction(1, rate)
        stream.codec_context.time_base = stream.time_base
        for i, pts in enumerate(times):
            grey = np.full((*size, 3), 20 + 10 * i, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = pts, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("case", ["variable rate", "odd size", "one frame"])
def test_difficult_films_give_the_clips_of_iter_clips(case, networks, tmp_path):
    seconds, size, starts = {
        "variable rate": ([0, 0.1, 0.2, 0.7, 0.75, 1.4, 2.0, 2.1], (32, 48), [0.0, 0.6, 1.2]),
        "odd size": (np.arange(0, 2, 0.125), (33, 47), [0.0, 0.5, 1.0]),
        "one frame": ([0.0], (32, 48), [0.0]),
    }[case]
    path = _write_film(tmp_path / "film.mp4", [round(s * 90000) for s in seconds], size)
    video = {"video": networks["video"]}
    features = extract_features([(path, starts, 0.8)], video, store_dir=tmp_path, progress=False)
    clips = list(iter_clips(path, starts, 0.8, fps=5))
    np.testing.assert_allclose(features["video"][0], networks["video"].transform(clips), atol=1e-5)


def test_a_film_without_a_video_stream_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    motion = {"motion": small_extractors()["motion"]}
    with pytest.raises(InputError, match="must hold a video stream; got none"):
        extract_features([(path, [0.0], 0.5)], motion, store_dir=tmp_path, progress=False)


def test_descriptions_leave_out_how_and_keep_what(networks):
    motion = small_extractors()["motion"]
    assert describe_extractor(motion)["parameters"]["fps"] == 12
    assert describe_extractor(networks["video"])["family"] == "videomae"


def test_a_process_gets_its_next_chunk_before_others_are_encoded(monkeypatch):
    """They waited for the GPU until all that was there was encoded, and then it waited for them."""
    begun = []

    def decode(job, folder, index):
        begun.append(index)
        return {}, {}

    monkeypatch.setattr(extract, "look_into_files", decode)
    jobs, deadline = [(None, {}, {})] * 8, time.monotonic() + 60
    with ThreadPoolExecutor(8) as threads:
        monkeypatch.setattr(extract, "start_processes", lambda n: threads)
        decoded = extract._decode_in_processes(jobs, 2)
        taken = [next(decoded)[0]]
        for n_begun in (4, 5, 6, 7):
            while len(begun) < n_begun:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            taken.append(next(decoded)[0])
        taken += [index for index, _ in decoded]
    assert sorted(taken) == sorted(begun) == list(range(8))


def test_networks_are_loaded_beside_and_let_go(monkeypatch):
    loaded, released = [], []

    class Network:
        frame_preparation = None

        def __init__(self, name):
            self.name = name

        def load(self):
            loaded.append((self.name, threading.current_thread() is threading.main_thread()))
            raise InputError("damaged")  # told when its turn comes

    class Other:  # that has something else of this name
        def load(self):
            raise AssertionError

    monkeypatch.setattr(extract, "release_networks", lambda: released.append(len(loaded)))
    with pytest.raises(KeyError), extract.loading_networks([Network("a"), Other(), Network("b")]):
        while len(loaded) < 2:
            time.sleep(0.01)
        raise KeyError
    assert loaded == [("a", False), ("b", False)] and released == [2]
    with extract.loading_networks([Other()]):
        assert len(loaded) == 2


def test_large_frames_on_their_way_need_room_in_memory(films, networks, tmp_path, monkeypatch):
    asked = []
    original = extract.passing_folder
    monkeypatch.setattr(
        extract, "passing_folder", lambda n_bytes: asked.append(n_bytes) or original(n_bytes)
    )
    monkeypatch.setattr(extract, "_LEAST_CHUNKS", 1)
    encoder = networks["image"]
    times = np.arange(4) / 4
    extract_features(
        [(films[0][0], times, 1.0)],
        {"image": encoder},
        store_dir=tmp_path,
        n_jobs=2,
        chunk_size=2,
        progress=False,
    )
    frame = encoder.frame_preparation()(np.zeros((64, 64, 3), dtype=np.uint8))
    n_frames = len(encoder.frame_times(1.0))
    assert asked == [(2 + 2 + 2 * 4) * 2 * n_frames * frame.nbytes]
