"""Does the extraction of features survive what happens to long jobs, in fixed memory?

1. Kills: 20 SIGKILLs at random moments; the store opens after each, and the finished features are
   those of an uninterrupted run, bit by bit. Two processes at once on one store.
2. Cluster: a local Dask cluster of separate processes loses a worker mid-way (SIGKILL); features
   with and without networks are those of one process.
3. Memory: a film of two hours at 1080p, two processes; the peak of all processes together, every
   page counted once, frames on their way included.

    python tests/prove/prove_extraction.py --output doc/proofs/extraction.json [--quick]

Finished parts are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import joblib
import numpy as np
import psutil
import torch

import brainnrds
from brainnrds.analyses.extract import extract_features
from brainnrds.features import ImageEncoder, StaticEnergy, VideoEncoder

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "analyses")]
from killing import small_extractors, small_films  # noqa: E402
from torchvision_operators import make_torchvision_importable  # noqa: E402

make_torchvision_importable()
import transformers  # noqa: E402

MEMORY_LIMIT = 4 * 2**30


def save_networks(folder):
    """Save a small video and a small image network with random weights, at real input sizes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    models = {
        "video": transformers.VideoMAEModel(
            transformers.VideoMAEConfig(**sizes, intermediate_size=128)
        ),
        "image": transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=224)),
    }
    processor = transformers.VideoMAEImageProcessorPil()
    for name, model in models.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return {"video": VideoEncoder(folder / "video"), "image": ImageEncoder(folder / "image")}


def prove_kills(folder, quick):
    n_kills = 5 if quick else 20
    script = Path(__file__).resolve().parents[1] / "analyses" / "killing.py"
    command = [sys.executable, script, folder, str(n_kills), "1"]
    outcome = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    outcome["passed"] = (
        len(outcome["kills"]) == n_kills
        and outcome["identical_to_uninterrupted"] == outcome["finished_after_kills"] >= 1
        and outcome["two_at_once"] == {"statuses": [0, 0], "identical": True}
    )
    return outcome


def prepare_worker(tests):
    """Let another process import torchvision, too."""
    sys.path.insert(0, tests)
    import torchvision_operators

    torchvision_operators.make_torchvision_importable()


def prove_cluster(folder, quick):
    from distributed import Client, LocalCluster

    films = small_films(folder)[: 1 if quick else 2]
    extractors = small_extractors() | ({} if quick else save_networks(folder))
    options = {"chunk_size": 1, "progress": False}
    expected = extract_features(films, extractors, store_dir=folder / "alone", **options)
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        client.run(prepare_worker, str(TESTS))
        pids = list(client.run(os.getpid).values())
        killed_at = []

        def kill_midway():
            while not list((folder / "cluster").glob("*.parts/*.h5")):
                time.sleep(0.02)
            killed_at.append(len(list((folder / "cluster").glob("*.parts/*.h5"))))
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_midway, daemon=True)
        killer.start()
        with joblib.parallel_config("dask"):
            features = extract_features(films, extractors, store_dir=folder / "cluster", **options)
        killer.join()
        survived = pids[0] in client.run(os.getpid).values()
    difference = max(
        float(np.abs(a - b).max())
        for name in expected
        for a, b in zip(expected[name], features[name], strict=True)
    )
    n_chunks = sum(len(film[1]) for film in films) * len(extractors)
    return {
        "workers": len(set(pids)),
        "chunks": n_chunks,
        "chunks_done_at_the_kill": killed_at[0],
        "largest_difference": difference,
        "bound": 1e-5,
        "passed": bool(difference <= 1e-5 and not survived and killed_at[0] < n_chunks),
    }


def make_long_film(folder, seconds):
    """Loop two seconds of 1080p: packets are copied, so that two hours take seconds."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (54, 96, 3), dtype=np.uint8), np.ones((20, 20, 1)))
    texture = texture.astype(np.uint8)
    short, long = folder / "short.mp4", folder / "long.mp4"
    with av.open(str(short), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "32"})
        stream.height, stream.width, stream.pix_fmt = 1080, 1920, "yuv420p"
        for i in range(48):
            image = np.ascontiguousarray(np.roll(texture, (7 * i, 11 * i), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(short)) as source, av.open(str(long), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        stored = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.duration) for p in packets]
        length = sum(duration for *_, duration in stored)
        for loop in range(round(seconds / 2)):
            for content, pts, dts, is_keyframe, duration in stored:
                packet = av.Packet(content)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts = pts + loop * length, dts + loop * length
                packet.duration, packet.is_keyframe = duration, is_keyframe
                target.mux(packet)
    short.unlink()
    return long


def peak_memory(pid, frames_folder, stop, peaks):
    """Watch the memory of a process and its children: proportional set size plus frames' files."""
    process = psutil.Process(pid)
    while not stop.wait(0.5):
        total = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        for path in Path(frames_folder).glob("brainnrds-frames-*/*.npy"):
            try:
                total += path.stat().st_size
            except OSError:
                continue
        peaks.append(total)


def prove_memory(folder, quick):
    seconds = 120 if quick else 7200
    film = make_long_film(folder, seconds)
    extractors = save_networks(folder) | {"static": StaticEnergy()}
    stop, peaks = threading.Event(), []
    watcher = threading.Thread(target=peak_memory, args=(os.getpid(), "/dev/shm", stop, peaks))
    watcher.start()
    started = time.perf_counter()
    times = np.arange(0, seconds - 2, 2.0)
    try:
        features = extract_features(
            [(film, times, 2.0)], extractors, store_dir=folder / "store", n_jobs=2
        )
    finally:
        stop.set()
        watcher.join()
    elapsed = time.perf_counter() - started
    half = len(peaks) // 2
    return {
        "film": f"{seconds} s of 1920 x 1080 at 24 Hz, H.264, {film.stat().st_size} bytes",
        "clips": len(times),
        "n_jobs": 2,
        "seconds": elapsed,
        "film_seconds_per_second": seconds / elapsed,
        "peak_bytes": max(peaks),
        "peak_bytes_first_half": max(peaks[:half]),
        "peak_bytes_second_half": max(peaks[half:]),
        "bound_bytes": MEMORY_LIMIT,
        "shapes": {name: list(values[0].shape) for name, values in features.items()},
        "note": "small networks at real input sizes: a large one adds the size of its weights",
        "passed": max(peaks) < MEMORY_LIMIT,
    }


PARTS = {"kills": prove_kills, "cluster": prove_cluster, "memory": prove_memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few kills, a film of two minutes")
    options = parser.parse_args()
    partial = options.output.with_suffix(".partial.json")
    parts = json.loads(partial.read_text()) if partial.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, prove in PARTS.items():
        if parts.get(name, {}).get("quick") == options.quick:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            parts[name] = prove(Path(folder), options.quick)
        parts[name] |= {"quick": options.quick, "wall_seconds": time.perf_counter() - started}
        partial.write_text(json.dumps(parts, indent=1))
        print(f"{name}: {'passed' if parts[name]['passed'] else 'FAILED'}", flush=True)
    result = {
        "passed": all(part["passed"] for part in parts.values()),
        "parts": parts,
        "seed": 1,
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "av": av.__version__,
        },
        "device": f"cpu, {os.cpu_count()} cores, {platform.machine()}",
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    partial.unlink()
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
