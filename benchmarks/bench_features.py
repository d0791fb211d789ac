"""Clips and images per second of the encoders, against the network alone in the same run.

    python benchmarks/bench_features.py --device cuda --n-jobs 16     # the GPU rows
    python benchmarks/bench_features.py                               # small networks on the CPU

Three rates per network: stock transformers on pixels that lie on the device already; the encoder on
prepared frames in the host's memory; the whole extraction from mp4 files, with the rate at which
the decoding processes alone deliver frames in the network's size beside it. Weights are random, in
the published sizes: nothing is downloaded. Peak GPU memory with few and with many films says
whether it is flat. Results go to doc/benchmarks/features_<device>.json.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
import transformers

from brainnrds.analyses import extract
from brainnrds.analyses.looks import Clips, view_of
from brainnrds.features import ImageEncoder, VideoEncoder

CHUNK_SIZE = 16  # clips


def save_network(folder, name, small):
    """Save a network with random weights, and its processor, in the hub's layout."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name == "VideoMAE-Large":
        large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        config = transformers.VideoMAEConfig(
            **(sizes | {"intermediate_size": 128} if small else large | {"intermediate_size": 4096})
        )
        model = transformers.VideoMAEModel(config)
        frames = {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
    else:
        base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        config = transformers.Dinov2Config(**(sizes if small else base), image_size=518)
        model = transformers.Dinov2Model(config)
        side = 224 if small else 448
        frames = {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
    model.save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil(**frames).save_pretrained(folder)
    return model.eval()


def wait_for(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def stock_rate(model, pixels, seconds):
    """Inputs per second of stock transformers, pixels already on the device."""
    device = str(pixels.device)
    with torch.inference_mode():
        for _ in range(3):
            model(pixel_values=pixels)
        wait_for(device)
        n_batches, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            model(pixel_values=pixels)
            wait_for(device)
            n_batches += 1
    return n_batches * len(pixels) / (time.perf_counter() - started)


def memory_rate(encoder, prepared, n_inputs):
    """Inputs per second of the encoder, frames already resized in the host's memory."""
    encoder.encode(prepared)
    started = time.perf_counter()
    encoder.encode(prepared[i % len(prepared)] for i in range(n_inputs))
    return n_inputs / (time.perf_counter() - started)


def make_films(folder, n_films, seconds, height):
    """Write one film frame by frame, and copies that differ in a byte that no decoder reads."""
    width = height * 16 // 9
    rng = np.random.default_rng(0)
    texture = np.kron(rng.uniform(size=(height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    texture = np.ascontiguousarray(255 * texture).astype(np.uint8)
    first = folder / "0.mp4"
    with av.open(str(first), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = *texture.shape[:2], "yuv420p"
        for i in range(seconds * 24):
            image = np.ascontiguousarray(np.roll(texture, (i, 2 * i), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    films = [first]
    for i in range(1, n_films):
        films.append(folder / f"{i}.mp4")
        films[-1].write_bytes(first.read_bytes() + bytes([i]))
    return films


def decoder_rate(encoder, films, times, n_jobs):
    """Clips per second that the decoding processes deliver when nobody encodes them."""
    view = view_of(encoder, 2.0)
    chunks = np.split(times, range(CHUNK_SIZE, len(times), CHUNK_SIZE))
    jobs = [
        (Clips(film, chunk, 2.0, "pyav"), {"network": encoder}, {"network": view})
        for film in films
        for chunk in chunks
    ]
    started = time.perf_counter()
    for _ in extract._decode_in_processes(jobs, n_jobs):
        pass
    return len(films) * len(times) / (time.perf_counter() - started)


def film_rates(encoder, films, times, n_jobs, folder):
    """Clips per second from files: everything, and the decoding processes alone; GPU memory.

    The rate is that of further films: a call with few films tells what every call spends on loading
    the network and on filling the line from the decoder to the store.
    """
    clips = [(film, times, 2.0) for film in films]
    few, half = len(clips) // 4, len(clips) // 2
    is_gpu = encoder.device.startswith("cuda")
    options = {"n_jobs": n_jobs, "progress": False, "chunk_size": CHUNK_SIZE}
    results, seconds = {}, {}
    # a first call starts the processes and imports what is needed
    parts = {"warm-up": clips[:few], "few": clips[:few], "many": clips[few:]}
    for label, some in parts.items():
        if is_gpu:
            torch.cuda.reset_peak_memory_stats(encoder.device)
        started = time.perf_counter()
        extract.extract_features(some, {"network": encoder}, store_dir=folder / label, **options)
        seconds[label] = time.perf_counter() - started
        if is_gpu:
            results[f"peak_{label}"] = torch.cuda.max_memory_allocated(encoder.device)
    n_further = (len(parts["many"]) - few) * len(times)
    results["film"] = n_further / (seconds["many"] - seconds["few"])
    results["start"] = seconds["few"] - few * len(times) / results["film"]
    results["decoder"] = decoder_rate(encoder, films[half:], times, n_jobs)
    return results


def bench(name, options, films, folder):
    device, small = options.device, options.device == "cpu"
    precision = "bfloat16" if device.startswith("cuda") else "float32"
    batch_size = options.batch_size or (4 if small else 32 if "VideoMAE" in name else 64)
    model = save_network(folder / "network", name, small)
    model = model.to(device, getattr(torch, precision))
    if "VideoMAE" in name:
        encoder = VideoEncoder(folder / "network", device=device, batch_size=batch_size)
        shape, unit = (16, 3, 224, 224), "clips/s"
    else:
        encoder = ImageEncoder(folder / "network", device=device, batch_size=batch_size, fps=8)
        side = 224 if small else 448
        shape, unit = (3, side, side), "images/s"
    pixels = torch.randn(batch_size, *shape, device=device, dtype=next(model.parameters()).dtype)
    stock = stock_rate(model, pixels, options.seconds)
    del model, pixels
    rng = np.random.default_rng(0)
    prepared = rng.integers(0, 256, (4 * batch_size, *shape), dtype=np.uint8)
    per_clip = 16
    if "VideoMAE" not in name:
        prepared = prepared[:, None]  # clips of one frame
    memory = memory_rate(encoder, prepared, max(len(prepared), int(stock * options.seconds)))
    times = np.arange(0, options.film_seconds - 2, 2.0)
    rates = film_rates(encoder, films, times, options.n_jobs, folder)
    factor = 1 if "VideoMAE" in name else per_clip  # images of a clip of 2 s at 8 per second
    return {
        "network": name + (" (small stand-in)" if small else ""),
        "unit": unit,
        "precision": precision,
        "batch_size": batch_size,
        "stock": stock,
        "from_memory": memory,
        "from_memory_share": memory / stock,
        "from_films": rates["film"] * factor,
        "from_films_share": rates["film"] * factor / stock,
        "decoder_alone": rates["decoder"] * factor,
        "decoder_share": rates["film"] / rates["decoder"],
        "seconds_to_start": rates["start"],
        "peak_gpu_bytes_few_films": rates.get("peak_few"),
        "peak_gpu_bytes_many_films": rates.get("peak_many"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-jobs", type=int, default=min(16, os.cpu_count()))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seconds", type=float, default=10.0, help="per rate")
    parser.add_argument("--n-films", type=int, default=128, help="a quarter of them to warm up")
    parser.add_argument("--film-seconds", type=int, default=60)
    parser.add_argument("--height", type=int, default=360, help="of the films, px")
    parser.add_argument("--output", type=Path, default=Path("doc/benchmarks"))
    options = parser.parse_args()
    is_gpu = options.device.startswith("cuda")
    card = torch.cuda.get_device_name(options.device) if is_gpu else platform.machine()
    print(f"{card}, {os.cpu_count()} cores, {options.n_jobs} decoding processes")
    print(f"{'network':<34}{'unit':<10}{'stock':>9}{'memory':>9}{'films':>9}{'decoder':>9}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        films = make_films(Path(folder), options.n_films, options.film_seconds, options.height)
        for name in ("VideoMAE-Large", "DINOv2-Base 448 px"):
            own = Path(folder) / name.replace(" ", "-")
            own.mkdir()
            rows.append(bench(name, options, films, own))
            row = rows[-1]
            print(
                f"{row['network']:<34}{row['unit']:<10}{row['stock']:>9.1f}"
                f"{row['from_memory']:>9.1f}{row['from_films']:>9.1f}{row['decoder_alone']:>9.1f}",
                flush=True,
            )
    result = {
        "device": card,
        "n_cores": os.cpu_count(),
        "n_jobs": options.n_jobs,
        "films": f"{options.n_films} x {options.film_seconds} s, {options.height} px high, 24 Hz",
        "rows": rows,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"features_{'cuda' if is_gpu else 'cpu'}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
