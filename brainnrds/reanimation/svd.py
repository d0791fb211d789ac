"""Stable Video Diffusion as arrays in, arrays out: components, sampler, batches, stock renderer.

The sampler and the conditioning follow the public code of Stable Video Diffusion and DragNUWA
(Blattmann et al. 2023, arXiv 2311.15127; Karras et al. 2022, arXiv 2206.00364).
"""

import contextlib
import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from brainnrds._checks import InputError, check_device
from brainnrds._files import hash_file
from brainnrds._tensors import read_state_dict
from brainnrds.flow import resize_flow
from brainnrds.reanimation import _weights
from brainnrds.reanimation.warp import check_frames_and_flow, clip_flow

__all__ = [
    "ImageToVideoRenderer",
    "Sampling",
    "VideoModel",
    "load_video_model",
    "sample_video_latents",
]

RHO = 7.0
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224
MULTIPLE = 64  # the autoencoder halves three times, the UNet three times
SVD_LICENCE = (
    "weights derived from Stable Video Diffusion: the licence on the base model's page applies "
    "(Stability AI Community Licence, or the non-commercial one for some versions); "
    "accept it there before use"
)
_DTYPES = ("float32", "float16", "bfloat16")
# activations per clip, latent pixel and byte of a number, from the memory that stock Stable Video
# Diffusion takes on a GPU: 10.1 GiB at 14 x 40 x 72 and 23.0 GiB at 14 x 72 x 128, in float16
_BYTES_PER_LATENT = 8e4


def karras_sigmas(num_steps, sigma_min, sigma_max):
    """Noise levels of Karras et al. 2022, eq. 5 (rho = 7), with the final 0 appended."""
    ramp = np.linspace(0, 1, num_steps)
    low, high = sigma_min ** (1 / RHO), sigma_max ** (1 / RHO)
    return [*((high + ramp * (low - high)) ** RHO).tolist(), 0.0]


@torch.no_grad()
def sample_video_latents(
    unet,
    image_latents,
    image_embedding,
    added_time_ids,
    flow,
    *,
    num_steps=25,
    min_guidance=1.0,
    max_guidance=2.5,
    sigma_min=0.002,
    sigma_max=700.0,
    initial_noise,
    guidance_sigmas=None,
    cache_steps=1,
    start_step=0,
    after_step=None,
):
    """Sample video latents: Euler steps of the preconditioned v-prediction.

    With ``c_skip = 1/(s^2+1)``, ``c_out = -s/sqrt(s^2+1)``, ``c_in = 1/sqrt(s^2+1)`` and
    ``c_noise = 0.25 ln s`` (Karras et al. 2022; Salimans and Ho 2022), the denoised video is
    ``c_skip x + c_out unet(c_in x, c_noise)``, once with and once without the image; guidance
    ``u + w (c - u)`` has a weight w that rises linearly over the frames. Motion is the same in
    both halves: guidance does not act on it.

    Parameters
    ----------
    unet : FlowUNet or callable of the same signature
        See `load_flow_unet`. With `cache_steps` above 1 its result has `deep`, which it is given
        back.
    image_latents : tensor of shape (n_videos, 4, h, w)
        Latents of the initial frame, not scaled. The unconditional half gets zeros.
    image_embedding : tensor of shape (n_videos, 1, d)
        The unconditional half gets zeros.
    added_time_ids : tensor of shape (n_videos, 3)
        fps_id, motion_bucket_id, cond_aug.
    flow : tensor of shape (n_videos, n_frames, 2 or 3, 8h, 8w), or None
        In pixels; None for a UNet without flow branch.
    num_steps : int, default=25
    min_guidance, max_guidance : float, default=1.0, 2.5
        Guidance weight of the first and of the last frame.
    sigma_min, sigma_max : float, default=0.002, 700
    initial_noise : tensor of shape (n_videos, n_frames, 4, h, w)
        Of unit variance; it is scaled here.
    guidance_sigmas : (low, high) or None, default=None
        Guide only at noise levels within these bounds, and run the conditional half alone
        elsewhere (Kynkäänniemi et al. 2024, arXiv 2404.07724): up to twice as fast, but no
        longer the original's sampler. None guides everywhere.
    cache_steps : int, default=1
        Compute the whole network at every so many steps, and its outermost layers alone in
        between, on what the last whole call found deeper (Ma et al. 2024, arXiv 2312.00858): no
        longer the original's sampler either. 1 computes everything at every step.
    start_step : int, default=0
        Start at this step; `initial_noise` then already holds the noisy latents of its level.
    after_step : callable or None
        ``after_step(step, latents, next_sigma)`` returns the latents to go on with.

    Returns
    -------
    latents : tensor of shape (n_videos, n_frames, 4, h, w)
        float32, to be divided by the autoencoder's scale before decoding.
    """
    check_cache_steps(cache_steps)
    if initial_noise.ndim != 5:
        raise InputError(
            "`initial_noise` must have shape (n_videos, n_frames, 4, h, w); "
            f"got {tuple(initial_noise.shape)}."
        )
    n_videos, n_frames = initial_noise.shape[:2]
    expected = (n_videos, *initial_noise.shape[2:])
    if tuple(image_latents.shape) != expected:
        raise InputError(
            f"`image_latents` must have shape {expected}; got {tuple(image_latents.shape)}."
        )
    device, kind = initial_noise.device, initial_noise.dtype
    kind = torch.promote_types(kind, torch.float32)
    sigmas = karras_sigmas(num_steps, sigma_min, sigma_max)

    image = image_latents.to(kind)[:, None].expand_as(initial_noise)
    image = torch.cat([torch.zeros_like(image), image])
    embedding = torch.cat([torch.zeros_like(image_embedding), image_embedding])
    ids = torch.cat([added_time_ids, added_time_ids])
    if hasattr(unet, "encode_flow") and flow is not None:
        flow = both_flows = unet.encode_flow(flow)
    else:
        both_flows = None if flow is None else torch.cat([flow, flow])
    weight = torch.linspace(min_guidance, max_guidance, n_frames, device=device, dtype=kind)
    weight = weight[:, None, None, None]
    unguided = min_guidance == max_guidance == 1
    deep = None

    latents = initial_noise.to(kind)
    if start_step == 0:
        latents = latents * math.sqrt(1 + sigma_max**2)
    for step in range(start_step, num_steps):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        scale = 1 / math.sqrt(sigma**2 + 1)
        guide = not unguided and (
            guidance_sigmas is None or guidance_sigmas[0] <= sigma <= guidance_sigmas[1]
        )
        halves = slice(None if guide else n_videos, None)
        noisy = torch.cat([latents, latents])[halves]
        noise_level = torch.full((len(noisy),), 0.25 * math.log(sigma), device=device).to(kind)
        if (step - start_step) % cache_steps == 0 or len(deep) != len(noisy) * n_frames:
            deep = None
        found = unet(
            torch.cat([noisy * scale, image[halves]], dim=2),
            noise_level,
            encoder_hidden_states=embedding[halves],
            added_time_ids=ids[halves],
            flow=both_flows if guide else flow,
            **({} if deep is None else {"deep": deep}),
        )
        denoised = noisy * scale**2 - sigma * scale * found.sample.to(kind)
        deep = found.deep if cache_steps > 1 else None
        del found  # deep features would last until the next call has its own
        if guide:
            without, given = denoised.chunk(2)
            denoised = without + weight * (given - without)
        latents = latents + (next_sigma - sigma) * (latents - denoised) / sigma
        if after_step is not None:
            latents = after_step(step, latents, next_sigma)
    return latents


class VideoModel:
    """The networks of a video generator, on their device.

    Parameters
    ----------
    unet : FlowUNet
    vae : diffusers.AutoencoderKLTemporalDecoder
    image_encoder : transformers.CLIPVisionModelWithProjection
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}, default="cpu"
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Of the UNet, the image encoder and the decoder. Flow branch and image encoding to latents
        run in float32 always.
    compile : bool, default=False
        ``torch.compile`` with static shapes; the first batch takes minutes. Batches are then
        filled up to one size.
    offload : bool, default=False
        Keep every network on the CPU but for the time of its use.
    sources : dict or None, default=None
        Where the weights came from, for provenance.
    """

    licence = SVD_LICENCE

    def __init__(
        self,
        unet,
        vae,
        image_encoder,
        *,
        device="cpu",
        dtype="float32",
        compile=False,
        offload=False,
        sources=None,
    ):
        if dtype not in _DTYPES:
            raise InputError(f"`dtype` must be one of {_DTYPES}; got {dtype!r}.")
        self.unet = unet
        self.vae = vae
        self.image_encoder = image_encoder
        self.device = check_device(device)
        self.dtype = dtype
        self.compile = compile
        self.offload = offload
        self.sources = {} if sources is None else dict(sources)
        self._prepare()

    def __sklearn_clone__(self):
        return self  # an estimator's clone shares the networks: they hold no fitted state

    def _prepare(self):
        kind = getattr(torch, self.dtype)
        self.unet.set_precision(kind)
        self.image_encoder.to(kind)
        self.vae.float()
        self.vae.decoder.to(kind)
        if self.device.startswith("cuda"):
            self.unet.fuse_projections().use_channels_last()
        if not self.offload:
            for network in (self.unet, self.vae, self.image_encoder):
                network.to(self.device)
        if self.compile:
            if self.device.startswith("cuda"):
                _use_channels_last(self.vae.decoder)
            self.unet.compile(dynamic=False)
            self.vae.decoder.compile(dynamic=False)

    @contextlib.contextmanager
    def _in_use(self, network):
        if not self.offload:
            yield network
            return
        network.to(self.device)
        try:
            yield network
        finally:
            network.to("cpu")
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()

    @torch.no_grad()
    def encode(self, frames, noise, noise_level):
        """Encode frames (n, 3, h, w) in [-1, 1], h and w multiples of 64.

        Returns
        -------
        embedding : tensor of shape (n, 1, d)
            Of the clean frame.
        latents : tensor of shape (n, 4, h / 8, w / 8)
            Mode of the latents of frame + noise_level * noise; not scaled.
        """
        with self._in_use(self.image_encoder) as encoder:
            pixels = (_shrink_for_clip(frames) + 1) / 2
            mean = torch.tensor(CLIP_MEAN, device=frames.device)[:, None, None]
            std = torch.tensor(CLIP_STD, device=frames.device)[:, None, None]
            pixels = ((pixels - mean) / std).to(encoder.dtype)
            embedding = encoder(pixels).image_embeds[:, None]
        with self._in_use(self.vae) as vae:
            latents = vae.encode(frames + noise_level * noise).latent_dist.mode()
        return embedding.float(), latents

    def encode_clips(self, clips):
        """Encode clips (n, n_frames, 3, h, w) in [-1, 1] to scaled latents, frame by frame."""
        with torch.no_grad(), self._in_use(self.vae) as vae:
            frames = clips.flatten(0, 1).split(16)
            latents = torch.cat([vae.encode(part).latent_dist.mode() for part in frames])
        return vae.config.scaling_factor * latents.unflatten(0, clips.shape[:2])

    @torch.no_grad()
    def decode(self, latents, *, decode_frames=1, decode_batch=28):
        """Decode latents (n, n_frames, 4, h, w) to clips (n, n_frames, 3, 8h, 8w) in [0, 1].

        Parameters
        ----------
        latents : tensor
        decode_frames : int, default=1
            Frames that the temporal decoder sees together. 1 is DragNUWA's way; more (up to all)
            flickers less and takes more memory.
        decode_batch : int, default=28
            Frames per pass, in whole such groups; changes speed and memory only.
        """
        n_clips, n_frames = latents.shape[:2]
        starts = range(0, n_frames, decode_frames)
        decoded = [None] * len(starts)
        with self._in_use(self.vae) as vae:
            latents = (latents / vae.config.scaling_factor).to(vae.decoder.conv_in.weight.dtype)
            groups = [latents[:, s : s + decode_frames] for s in starts]
            by_length = {}
            for position, group in enumerate(groups):
                by_length.setdefault(group.shape[1], []).append(position)
            for length, positions in by_length.items():
                stacked = torch.cat([groups[p] for p in positions])
                parts = [
                    vae.decode(part.flatten(0, 1), num_frames=length).sample.float()
                    for part in stacked.split(max(1, decode_batch // length))
                ]
                parts = torch.cat(parts).unflatten(0, (len(positions), n_clips, length))
                for position, part in zip(positions, parts, strict=True):
                    decoded[position] = part
        return (torch.cat(decoded, dim=1) / 2 + 0.5).clamp_(0, 1)

    def guess_batch_size(self, n_frames, size):
        """Clips per batch that should fit the free memory; 1 on the CPU."""
        if not self.device.startswith("cuda"):
            return 1
        free, _ = torch.cuda.mem_get_info(self.device)
        bytes_each = 4 if self.dtype == "float32" else 2
        latents = n_frames * size[0] * size[1] / 64
        return int(min(16, max(1, 0.8 * free // (_BYTES_PER_LATENT * latents * bytes_each / 2))))

    def save(self, folder):
        """Write the networks in the hub's layout, LoRA folded; `load_video_model` reads them.

        ``parts.json`` holds the SHA-256 of each file: parts of another model are refused.

        Parameters
        ----------
        folder : path
        """
        import safetensors.torch

        folder = Path(folder)
        unet = folder / "unet"
        unet.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "FlowUNet", **self.unet.config}
        (unet / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.unet.unfused_state_dict().items()
        }
        partial = unet / "partial.safetensors"
        safetensors.torch.save_file(tensors, partial)
        partial.replace(unet / "diffusion_pytorch_model.safetensors")
        self.vae.save_pretrained(folder / "vae")
        self.image_encoder.save_pretrained(folder / "image_encoder")
        _weights.seal_parts(folder)


def _use_channels_last(network):
    """Lay out a network's convolutions for channels_last: faster once it is compiled."""
    for parameter in network.parameters():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def load_video_model(
    base,
    *,
    checkpoint=None,
    input_channels=2,
    variant=None,
    download=False,
    device="cpu",
    dtype="float32",
    compile=False,
    offload=False,
):
    """Load a video generator from local weights, strictly.

    Parameters
    ----------
    base : str or path
        Stable Video Diffusion in the hub's layout (``unet/``, ``vae/``, ``image_encoder/``), or
        what `VideoModel.save` wrote: a folder, or a hub id in the local cache.
    checkpoint : path or None, default=None
        DragNUWA's or MotionPro-Dense's checkpoint, whose UNet takes the place of the base's.
    input_channels : {2, 3}, default=2
        What the checkpoint's flow branch reads: flow (DragNUWA), or flow and visibility
        (MotionPro-Dense).
    variant : str or None, default=None
        Such as "fp16", part of the base's file names.
    download : bool, default=False
        Fetch from the hub what is not in the local cache.
    device, dtype, compile, offload
        See `VideoModel`.

    Returns
    -------
    model : VideoModel
    """
    if input_channels not in (2, 3):
        raise InputError(f"`input_channels` must be 2 or 3; got {input_channels!r}.")
    folder = _weights.find_folder(base, download=download)
    _weights.check_parts(folder)
    sources = {"base": str(base)}
    if checkpoint is None:
        unet = _weights.read_unet_folder(folder, variant=variant)
    else:
        unet = _weights.flow_unet_from_original(
            read_state_dict(checkpoint), config=_weights.read_unet_config(folder)
        )
        if unet.flow_channels != input_channels:
            raise InputError(
                f"{Path(checkpoint).name} reads {unet.flow_channels} flow channels, and "
                f"`input_channels` is {input_channels}: is it the right model?"
            )
        sources["checkpoint"] = Path(checkpoint).name
        sources["checkpoint_sha256"] = hash_file(checkpoint)
    vae = _weights.load_vae(folder, variant=variant)
    image_encoder = _weights.load_image_encoder(folder, variant=variant)
    _check_fit(folder, unet, vae, image_encoder)
    return VideoModel(
        unet,
        vae,
        image_encoder,
        device=device,
        dtype=dtype,
        compile=compile,
        offload=offload,
        sources=sources,
    )


def _check_fit(folder, unet, vae, image_encoder):
    """Refuse networks that do not read what the others make."""
    channels = vae.config.latent_channels
    width = image_encoder.config.projection_dim
    made = {
        f"latents of {channels} channels and the frame's": (
            unet.config["in_channels"],
            2 * channels,
        ),
        f"latents of {channels} channels": (unet.config["out_channels"], channels),
        f"image embeddings of {width} channels": (unet.config["cross_attention_dim"][0], width),
    }
    for what, (got, expected) in made.items():
        if got != expected:
            raise InputError(
                f"The networks in {folder} must be of one model: {what} need {expected} channels "
                f"of the UNet; got {got}."
            )


def _shrink_for_clip(frames):
    """Gaussian blur by how much the frame shrinks, then bicubic, as the original conditioning."""
    for axis in (0, 1):
        sigma = max((frames.shape[2 + axis] / CLIP_SIZE - 1) / 2, 0.001)
        n_taps = int(max(4 * sigma, 3)) | 1
        offset = torch.arange(n_taps, device=frames.device, dtype=torch.float32) - n_taps // 2
        kernel = torch.exp(-(offset**2) / (2 * sigma**2))
        shape = (1, 1, n_taps, 1) if axis == 0 else (1, 1, 1, n_taps)
        kernel = (kernel / kernel.sum()).view(shape).expand(3, 1, *shape[2:])
        half = n_taps // 2
        pad = (0, 0, half, half) if axis == 0 else (half, half, 0, 0)
        frames = F.conv2d(F.pad(frames, pad, mode="reflect"), kernel, groups=3)
    return F.interpolate(frames, (CLIP_SIZE, CLIP_SIZE), mode="bicubic", align_corners=True)


class Geometry:
    """How frames and flow of any size come to the size that the network runs at, and back.

    size None: the nearest multiples of `multiple`, and the clip goes back to the frame's size.
    Otherwise the frame is scaled to cover `size` and cropped at its centre, and so is the clip.
    """

    def __init__(self, frame_size, size, multiple=MULTIPLE):
        self.frame_size = tuple(frame_size)
        if size is None:
            self.size = tuple(
                max(multiple, round(side / multiple) * multiple) for side in frame_size
            )
            self.covering = self.size
            if self.size != self.frame_size:
                warnings.warn(
                    f"Frames of {self.frame_size} are resized to {self.size}, multiples of "
                    f"{multiple}, with the flow rescaled, and the clips are resized back.",
                    stacklevel=4,
                )
        else:
            if any(side % multiple or side < multiple for side in size):
                raise InputError(f"`size` must be multiples of {multiple}; got {size!r}.")
            self.size = tuple(size)
            scale = max(new / old for new, old in zip(size, frame_size, strict=True))
            self.covering = tuple(
                max(new, round(old * scale)) for new, old in zip(size, frame_size, strict=True)
            )
        self.resizes_back = size is None and self.size != self.frame_size

    def _crop(self, array):
        top, left = ((c - s) // 2 for c, s in zip(self.covering, self.size, strict=True))
        return array[..., top : top + self.size[0], left : left + self.size[1]]

    def frames_in(self, frames):
        frames = _resize_images(torch.from_numpy(np.ascontiguousarray(frames)), self.covering)
        return self._crop(frames) * 2 - 1

    def flow_in(self, flow):
        return torch.from_numpy(self._crop(resize_flow(flow, self.covering)).copy())

    def clips_out(self, clips):
        if not self.resizes_back:
            return clips
        return _resize_images(clips.flatten(0, 1), self.frame_size).unflatten(0, clips.shape[:2])


def _resize_images(images, size):
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    resized = F.interpolate(images, size, mode="bilinear", antialias=True)
    return resized.clamp_(0, 1)


def make_noise(seeds, n_frames, latent_size, image_size):
    """Noise of each clip from its own seed, whatever batch it is in: latents, then image."""
    latents, images = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(int(seed))
        latents.append(torch.randn(n_frames, 4, *latent_size, generator=generator))
        images.append(torch.randn(3, *image_size, generator=generator))
    return torch.stack(latents), torch.stack(images)


def check_seeds(seeds, n_clips, random_state):
    """One int seed per clip; None counts up from `random_state`."""
    if seeds is None:
        return np.arange(n_clips, dtype=np.int64) + int(random_state)
    seeds = np.asarray(seeds)
    if seeds.shape != (n_clips,) or seeds.dtype.kind not in "iu":
        raise InputError(
            f"`seeds` must hold one int per clip, shape ({n_clips},); got {seeds.dtype} "
            f"{seeds.shape}."
        )
    return seeds


def check_cache_steps(cache_steps):
    """Refuse what is no number of steps."""
    if type(cache_steps) is not int or cache_steps < 1:
        raise InputError(f"`cache_steps` must be an int of 1 or more; got {cache_steps!r}.")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a clip is sampled: what all diffusion renderers have in common.

    Each renderer takes these fields as keywords, and names those whose default is its own.

    Parameters
    ----------
    n_frames : int or None, default=None
        Frames of a clip. None: as many as the network was trained for.
    duration : float, default=2.0
        Seconds that a clip lasts, and its flow: frame k is shown at ``k / n_frames`` of it. Stock
        Stable Video Diffusion is told the frame rate that follows.
    size : (height, width) or None, default=None
        Size to run at, multiples of 64. The frame is scaled to cover it and cropped at the centre.
        None: the frame's own size, brought to multiples of 64 and back.
    num_steps : int, default=25
        Denoising steps.
    min_guidance, max_guidance : float, default=1.0, 3.0
        Guidance by the image, linear over the frames. It does not act on motion.
    guidance_sigmas : (low, high) or None, default=None
        Noise levels that are guided; see `sample_video_latents`. None: all, as the original.
    cache_steps : int, default=1
        Steps for which what the network finds deep inside is used; see `sample_video_latents`.
        1: computed at every step, as the original.
    noise_level : float, default=0.02
        Noise added to the frame before it is encoded, and told to the model.
    decode_frames : int or None, default=None
        Frames decoded together. None: all.
    batch_size : int or None, default=None
        Clips at a time. None: by free memory.
    random_state : int, default=0
        Seed of the first clip; the next have the next ints.
    """

    n_frames: int | None = None
    duration: float = 2.0
    size: tuple[int, int] | None = None
    num_steps: int = 25
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    guidance_sigmas: tuple[float, float] | None = None
    cache_steps: int = 1
    noise_level: float = 0.02
    decode_frames: int | None = None
    batch_size: int | None = None
    random_state: int = 0

    def __post_init__(self):
        if self.n_frames is not None and self.n_frames < 2:
            raise InputError(f"`n_frames` must be at least 2; got {self.n_frames!r}.")
        if not self.duration > 0:
            raise InputError(f"`duration` must be positive, in s; got {self.duration!r}.")
        check_cache_steps(self.cache_steps)


class ModelRenderer:
    """A renderer that generates with the network `model`: what all such have in common."""

    stochastic = True

    def __repr__(self):
        shown = (f"{name}={value!r}" for name, value in vars(self).items() if name != "model")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_clone__(self):
        return self  # nothing is fitted, and copies of the networks would only cost memory

    @property
    def licence(self):
        """Terms of the weights."""
        return self.model.licence


class DiffusionRenderer(ModelRenderer):
    """A network and how it is sampled; a renderer says how flow steers it (`_sample`)."""

    _own = Sampling()

    def __init__(self, model, **sampling):
        self.model = model
        self.sampling = replace(self._own, **sampling)

    @property
    def batch_size(self):
        """Clips at a time; None: by free memory."""
        return self.sampling.batch_size

    def __call__(self, initial_frames, flow, *, seeds=None):
        """Generate clips.

        Parameters
        ----------
        initial_frames : array of shape (n_clips, 3, height, width)
            In [0, 1].
        flow : array of shape (n_clips, n_steps, 2, h, w)
            Pixels of its own grid per step; any grid, any number of steps that span the clip.
        seeds : array of int of shape (n_clips,) or None, default=None
            One per clip; a clip's noise depends on its seed alone.

        Returns
        -------
        clips : array of float32 of shape (n_clips, n_frames, 3, height, width)
            In [0, 1]; of `size` where that is given.
        """
        initial_frames, flow = check_frames_and_flow(initial_frames, flow)
        self._check()
        n_frames = self.sampling.n_frames or self.model.unet.config["num_frames"]
        return _generate_clips(
            self.model,
            initial_frames,
            flow,
            self._sample,
            sampling=replace(self.sampling, n_frames=n_frames),
            seeds=check_seeds(seeds, len(flow), self.sampling.random_state),
        )

    def _check(self):
        """Refuse a model or options that do not fit: here, a network that expects flow."""
        if self.model.unet.flow_channels:
            raise InputError("`model` must be stock Stable Video Diffusion; it has a flow branch.")

    def _sample(self, frames, flow, embedding, latents, noise):
        """Return latents.

        Parameters
        ----------
        frames : tensor of shape (n, 3, h, w)
            In [-1, 1].
        flow : tensor of shape (n, n_frames - 1, 2, h, w)
            Pixels of (h, w) from frame to frame.
        embedding, latents : tensors
            Of the frames, as `VideoModel.encode` returns them.
        noise : tensor of shape (n, n_frames, 4, h / 8, w / 8)
        """
        raise NotImplementedError

    def _added_time_ids(self, noise, motion_bucket_id):
        """What the stock network is told: frame rate - 1, motion bucket, noise of the image."""
        n_clips, n_frames = noise.shape[:2]
        told = (n_frames / self.sampling.duration - 1, motion_bucket_id, self.sampling.noise_level)
        return torch.tensor([told], device=noise.device).expand(n_clips, -1)

    def _denoise(self, latents, embedding, added_time_ids, flow, noise, **options):
        sampling = self.sampling
        return sample_video_latents(
            self.model.unet,
            latents,
            embedding,
            added_time_ids,
            flow,
            num_steps=sampling.num_steps,
            min_guidance=sampling.min_guidance,
            max_guidance=sampling.max_guidance,
            guidance_sigmas=sampling.guidance_sigmas,
            cache_steps=sampling.cache_steps,
            initial_noise=noise,
            **options,
        )


def _generate_clips(model, initial_frames, flow, sample, *, sampling, seeds):
    """Run a generator over clips in batches, in less memory where there is too little."""
    n_frames = sampling.n_frames
    geometry = Geometry(initial_frames.shape[2:], sampling.size)
    batch_size = sampling.batch_size or model.guess_batch_size(n_frames, geometry.size)
    decode_frames = sampling.decode_frames or n_frames
    clips = []
    start = 0
    decode_batch = 2 * n_frames  # two clips: as fast as more
    while start < len(initial_frames):
        part = slice(start, start + batch_size)
        arrays = initial_frames[part], flow[part], np.asarray(seeds[part])
        n_real = len(arrays[0])
        if model.compile and n_real < batch_size and len(clips):
            # one static shape: repeat the last clip instead of compiling again
            arrays = [np.concatenate([a, a[-1:].repeat(batch_size - n_real, 0)]) for a in arrays]
        try:
            frames = geometry.frames_in(arrays[0]).to(model.device)
            fields = geometry.flow_in(clip_flow(arrays[1], n_frames)).to(model.device)
            latent_size = tuple(side // 8 for side in geometry.size)
            noise, image_noise = make_noise(arrays[2], n_frames, latent_size, geometry.size)
            embedding, latents = model.encode(
                frames, image_noise.to(model.device), sampling.noise_level
            )
            with model._in_use(model.unet):
                latents = sample(frames, fields, embedding, latents, noise.to(model.device))
            video = model.decode(latents, decode_frames=decode_frames, decode_batch=decode_batch)
            clips.append(geometry.clips_out(video)[:n_real].cpu().numpy())
        except torch.cuda.OutOfMemoryError:
            frames = fields = noise = image_noise = embedding = latents = video = None
            torch.cuda.empty_cache()
            if batch_size > 1:
                batch_size = batch_size // 2
                warnings.warn(f"GPU memory is short: batches of {batch_size} now.", stacklevel=3)
            elif not model.offload:
                model.offload = True
                for network in (model.unet, model.vae, model.image_encoder):
                    network.to("cpu")
                torch.cuda.empty_cache()
                decode_batch = 1
                warnings.warn(
                    "GPU memory is short: networks wait on the CPU until they are used.",
                    stacklevel=3,
                )
            else:
                raise
            continue
        start += n_real
    return np.concatenate(clips)


class ImageToVideoRenderer(DiffusionRenderer):
    """Stock Stable Video Diffusion: what the generator makes of the frame with no brain at all.

    The flow is not used: this is the row "stock generator" of the controls.

    Parameters
    ----------
    model : VideoModel
        See `load_video_model`; without flow branch.
    motion_bucket_id : float, default=127
    **sampling
        See `Sampling`.
    """

    def __init__(self, model, *, motion_bucket_id=127, **sampling):
        super().__init__(model, **sampling)
        self.motion_bucket_id = motion_bucket_id

    def _sample(self, frames, flow, embedding, latents, noise):
        ids = self._added_time_ids(noise, self.motion_bucket_id)
        return self._denoise(latents, embedding, ids, None, noise)
