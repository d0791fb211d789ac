"""Seconds a clip of the diffusion renderers, frame to decoded pixels, with random weights.

    python benchmarks/bench_reanimation.py                # full size, on a CUDA device
    python benchmarks/bench_reanimation.py --rows stock,dragnuwa-b1,dragnuwa-b8-compiled
    python benchmarks/bench_reanimation.py --profile      # kernels of one call of the network, too
    python benchmarks/bench_reanimation.py --tiny         # a minute on a CPU: does the script run?
    python benchmarks/bench_reanimation.py --splat        # the renderer without weights, any CPU

14 frames of 320 x 576, 25 steps with guidance. "stock" is diffusers' own pipeline on the same
device in the same run. Every row gives seconds per clip (best of the repetitions), where they
go, compile time apart, peak GPU memory, and the cosine of the latents with float32 in the
same steps. Results go to doc/benchmarks/reanimation_<device>.json, row by row.
"""

import argparse
import gc
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from brainnrds.reanimation import DragNUWARenderer, SplatRenderer, VideoModel
from brainnrds.reanimation._unet_flow import FlowUNet

FULL = {"frames": 14, "size": (320, 576), "steps": 25}
TINY = {"frames": 3, "size": (64, 64), "steps": 2}
TINY_CONFIG = {
    "block_out_channels": (32, 32, 64, 64),
    "num_attention_heads": (1, 1, 2, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 16,
}
# multiply-adds as 2, counted for the stock network at full size with guidance (a batch of 2)
TERAFLOP_PER_STEP = 24.3
ROWS = {
    "stock": {},
    "dragnuwa-b1": {"batch": 1},
    "dragnuwa-b1-compiled": {"batch": 1, "compile": True},
    "dragnuwa-b8": {"batch": 8},
    "dragnuwa-b8-plain-layout": {"batch": 8, "plain": True},
    "dragnuwa-b8-compiled": {"batch": 8, "compile": True},
    "dragnuwa-b8-compiled-bfloat16": {"batch": 8, "compile": True, "dtype": "bfloat16"},
    "dragnuwa-b16-compiled": {"batch": 16, "compile": True},
    # not the original's sampler any more: the inside of the network at every second step,
    # guidance only where the image is decided
    "dragnuwa-b1-compiled-cached": {"batch": 1, "compile": True, "cache_steps": 2},
    "dragnuwa-b8-compiled-cached": {"batch": 8, "compile": True, "cache_steps": 2},
    "dragnuwa-b8-compiled-interval": {"batch": 8, "compile": True, "sigmas": (0.1, 20.0)},
    "dragnuwa-b8-compiled-unguided": {"batch": 8, "compile": True, "sigmas": (0.0, 0.0)},
}


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random_weights(network, seed=0):
    """Fill a network on the meta device with weights of a sane scale."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    network = network.to_empty(device=DEVICE)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(generator=generator).mul_(fan_in**-0.5)
            elif name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.zero_()
    return network.requires_grad_(False).eval()


def build_unet(tiny):
    with torch.device("meta"):
        unet = FlowUNet(TINY_CONFIG if tiny else None)
    return random_weights(unet)


def build_vae(tiny):
    from diffusers import AutoencoderKLTemporalDecoder

    widths = (32, 32, 32, 32) if tiny else (128, 256, 512, 512)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=widths,
            layers_per_block=1 if tiny else 2,
        ).eval()


def build_image_encoder(tiny):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        image_size=224,
        patch_size=112 if tiny else 14,
        hidden_size=16 if tiny else 1280,
        intermediate_size=16 if tiny else 5120,
        num_attention_heads=2 if tiny else 16,
        num_hidden_layers=1 if tiny else 32,
        projection_dim=32 if tiny else 1024,
        hidden_act="gelu",
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return CLIPVisionModelWithProjection(config).eval()


def inputs(n_clips, size):
    """The same first clip whatever their number."""
    draws = [np.random.default_rng(i) for i in range(n_clips)]
    frames = np.stack([draw.random((3, *size), dtype=np.float32) for draw in draws])
    flow = np.stack([draw.normal(size=(3, 2, 32, 32)) for draw in draws])
    return frames, flow.astype(np.float32)


class Stopwatch:
    """Seconds of the methods of a model, by name, synchronised."""

    def __init__(self, model):
        self.seconds = {}
        for name in ("encode", "decode"):
            setattr(model, name, self._timed(name, getattr(model, name)))

    def _timed(self, name, call):
        def timed(*args, **kwargs):
            synchronise()
            start = time.perf_counter()
            result = call(*args, **kwargs)
            synchronise()
            self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
            return result

        return timed


def synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_memory():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib():
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")


def run_dragnuwa(options, setting, device, repeats):
    """Time a row; returns its figures and the latents of the first clip."""
    dtype = options.get("dtype", "float16" if device == "cuda" else "float32")
    model = VideoModel(
        build_unet(setting["tiny"]),
        build_vae(setting["tiny"]),
        build_image_encoder(setting["tiny"]),
        device=device,
        dtype=dtype,
        compile=options.get("compile", False),
    )
    if options.get("plain"):
        for parameter in model.unet.parameters():
            parameter.data = parameter.data.contiguous()
    batch = options["batch"]
    renderer = DragNUWARenderer(
        model,
        n_frames=setting["frames"],
        num_steps=setting["steps"],
        guidance_sigmas=options.get("sigmas"),
        cache_steps=options.get("cache_steps", 1),
        batch_size=batch,
    )
    kept = []
    decode = model.decode
    model.decode = lambda latents, **how: kept.append(latents[:1].cpu()) or decode(latents, **how)
    frames, flow = inputs(batch, setting["size"])
    start = time.perf_counter()
    renderer(frames, flow)  # warm-up; compiles where asked
    synchronise()
    first = time.perf_counter() - start
    if not repeats:
        return None, kept[0].double().flatten()
    reset_memory()
    watch = Stopwatch(model)
    best, parts = np.inf, {}
    for _ in range(repeats):
        watch.seconds.clear()
        start = time.perf_counter()
        renderer(frames, flow)
        synchronise()
        seconds = time.perf_counter() - start
        if seconds < best:
            best, parts = seconds, dict(watch.seconds)
    sampling = best - sum(parts.values())
    figures = {
        "seconds_per_clip": best / batch,
        "encode": parts["encode"] / batch,
        "sampling": sampling / batch,
        "decode": parts["decode"] / batch,
        "first_call_seconds": first,
        "peak_gib": peak_gib(),
        "dtype": dtype,
    }
    if not setting["tiny"] and not {"sigmas", "cache_steps"} & set(options):
        work = TERAFLOP_PER_STEP * setting["steps"] * batch
        figures["teraflop_per_second"] = work / sampling
    return figures, kept[0].double().flatten()


def run_stock(setting, device, repeats):
    """Diffusers' own pipeline, one clip, half precision on CUDA."""
    from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline
    from diffusers import UNetSpatioTemporalConditionModel as Unet
    from PIL import Image
    from transformers import CLIPImageProcessor

    config = dict(num_attention_heads=(5, 10, 20, 20))
    if setting["tiny"]:
        config = {**TINY_CONFIG, "projection_class_embeddings_input_dim": 48}
    dtype = torch.float16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        unet = Unet(**config)
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        steps_offset=1,
    )
    pipeline = StableVideoDiffusionPipeline(
        build_vae(setting["tiny"]).to(dtype),
        build_image_encoder(setting["tiny"]).to(dtype),
        random_weights(unet).to(dtype),
        scheduler,
        CLIPImageProcessor(),
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    height, width = setting["size"]
    image = Image.fromarray((inputs(1, (width, height))[0][0] * 255).astype(np.uint8).T)
    image = image.resize((width, height))
    best = np.inf
    for _ in range(repeats + 1):
        reset_memory()
        start = time.perf_counter()
        pipeline(
            image,
            height=height,
            width=width,
            num_frames=setting["frames"],
            num_inference_steps=setting["steps"],
            output_type="pt",
        )
        synchronise()
        best = min(best, time.perf_counter() - start)
    return {"seconds_per_clip": best, "peak_gib": peak_gib(), "dtype": str(dtype)[6:]}


def kind_of_kernel(name):
    """What a kernel of the compiled network does, by its name."""
    kinds = (
        ("GELU", ("gelu",)),
        ("normalisation and what is fused with it", ("norm",)),
        ("copies, sums and products by element", ("triton", "elementwise", "memcpy", "memset")),
        ("attention", ("sdpa", "flash", "fmha")),
        ("convolutions", ("fprop", "conv")),
        ("matrix products", ("nvjet", "gemm", "cutlass")),
    )
    return next((kind for kind, parts in kinds if any(p in name.lower() for p in parts)), "other")


def profile_network(batch=8):
    """Milliseconds of the kernels of one compiled call for `batch` clips with guidance, by kind."""
    from torch.profiler import ProfilerActivity, profile

    unet = build_unet(tiny=False)
    unet.set_precision(torch.float16).fuse_projections().use_channels_last()
    n_frames, (height, width) = FULL["frames"], (side // 8 for side in FULL["size"])
    with torch.no_grad():
        flow = torch.randn(batch, n_frames, 2, 8 * height, 8 * width, device=DEVICE)
        arguments = (
            torch.randn(2 * batch, n_frames, 8, height, width, device=DEVICE),
            torch.full((2 * batch,), 0.3, device=DEVICE),
            torch.randn(2 * batch, 1, 1024, device=DEVICE),
            torch.tensor([[4.0, 4.0, 0.02]], device=DEVICE).expand(2 * batch, -1),
            unet.encode_flow(flow),
        )
        unet.compile(dynamic=False)
        for _ in range(3):
            unet(*arguments)
        synchronise()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            unet(*arguments)
            synchronise()
    spent = {}
    for kernel in seen.key_averages():
        kind = kind_of_kernel(kernel.key)
        spent[kind] = spent.get(kind, 0) + kernel.self_device_time_total / 1e3
    in_order = sorted(spent.items(), key=lambda pair: -pair[1])
    return {kind: round(ms, 1) for kind, ms in [*in_order, ("all", sum(spent.values()))]}


def run_splat(repeats):
    frames, flow = inputs(1, FULL["size"])
    renderer = SplatRenderer(FULL["frames"])
    renderer(frames, flow)
    wall, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        renderer(frames, flow)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"seconds_per_clip": min(wall), "processor_seconds": min(processor)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them, by commas")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, compiled rows take minutes")
    parser.add_argument("--splat", action="store_true", help="the renderer without weights")
    parser.add_argument("--profile", action="store_true", help="kernels of a call, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = DEVICE
    if device == "cpu" and not (options.tiny or options.splat):
        parser.error("full size needs a CUDA device; --tiny or --splat run on a CPU")
    on_gpu = device == "cuda" and not options.splat
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    print(f"device: {name}; torch {torch.__version__}")
    setting = {**(TINY if options.tiny else FULL), "tiny": options.tiny}
    kind = "splat" if options.splat else ("tiny" if options.tiny else device)
    output = options.output or Path(f"doc/benchmarks/reanimation_{kind}.json")
    result = {"device": name, "torch": torch.__version__, **setting, "rows": {}}

    def keep(row, figures, table=result["rows"]):
        table[row] = figures
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
        print(row.ljust(34), "  ".join(f"{k} {_short(v)}" for k, v in figures.items()), flush=True)

    if options.splat:
        keep("splat", {**run_splat(options.repeats), "threads": torch.get_num_threads()})
        return
    exact = None
    for row in options.rows.split(","):
        torch.compiler.reset()
        reset_memory()
        if row == "stock":
            keep(row, run_stock(setting, device, options.repeats))
            continue
        if exact is None:
            full = {"batch": 1, "dtype": "float32"}
            _, exact = run_dragnuwa(full, setting, device, repeats=0)
            reset_memory()
        try:
            figures, latents = run_dragnuwa(ROWS[row], setting, device, options.repeats)
        except Exception as error:  # a row that fails must not lose the others
            keep(row, {"failed": f"{type(error).__name__}: {error}"[:300]})
            continue
        cosine = torch.nn.functional.cosine_similarity(latents, exact, dim=0)
        keep(row, {**figures, "latent_cosine_to_float32": float(cosine)})
    if options.profile and on_gpu:
        torch.compiler.reset()
        reset_memory()
        keep("milliseconds_of_a_call_for_8_clips", profile_network(), table=result)


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
