"""Flow as a picture that controls a video diffusion transformer: Wan 2.1 VACE.

Jiang et al. 2025, "VACE: All-in-one video creation and editing" (arXiv 2503.07598), through the
pipeline of diffusers. The weights are not part of this package.
"""

from pathlib import Path

import numpy as np
import torch

from brainnrds._checks import InputError, check_device
from brainnrds.flow import flow_to_colors, resize_flow
from brainnrds.reanimation import _weights
from brainnrds.reanimation.svd import Geometry, ModelRenderer, check_seeds
from brainnrds.reanimation.warp import check_frames_and_flow

__all__ = ["WanVACEModel", "WanVACERenderer", "load_wan_vace"]

PROMPT = "A scene of a film, natural motion, natural light."
NEGATIVE_PROMPT = "static, blurred, low quality, distorted, subtitles, watermark"
FRAME_RATE = 16  # of the clips that Wan 2.1 was trained on, frames/s
MULTIPLE = 16  # the autoencoder halves three times, patches are two latents wide
_N_TOKENS = 512
_DTYPES = ("float32", "float16", "bfloat16")
_SCHEDULERS = ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler")


class WanVACEModel:
    """The networks of Wan VACE on their device, and its prompt, encoded once.

    Parameters
    ----------
    transformer : diffusers.WanVACETransformer3DModel
        In its own type.
    vae : diffusers.AutoencoderKLWan
        In float32.
    scheduler : diffusers scheduler
    prompts : tensor of shape (2, n_tokens, n_channels)
        Embeddings of the prompt and of the negative prompt.
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}, default="cpu"
    compile : bool, default=False
        ``torch.compile`` of the transformer; the first clip takes minutes.
    sources : dict or None, default=None
        Where the weights came from, for provenance.
    """

    licence = "Wan 2.1 VACE: Apache-2.0, as its page says; read it there before use"

    def __init__(
        self, transformer, vae, scheduler, prompts, *, device="cpu", compile=False, sources=None
    ):
        from diffusers import WanVACEPipeline

        self.device = check_device(device)
        self.prompts = prompts.to(self.device)
        self.sources = {} if sources is None else dict(sources)
        self.pipeline = WanVACEPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=vae.to(self.device),
            scheduler=scheduler,
            transformer=transformer.to(self.device),
        )
        self.pipeline.set_progress_bar_config(disable=True)
        if compile:
            transformer.compile()

    def save(self, folder):
        """Write the networks and the encoded prompts: `load_wan_vace` needs no text encoder then.

        ``parts.json`` holds the SHA-256 of each file: parts of another model are refused.

        Parameters
        ----------
        folder : path
        """
        import safetensors.torch

        folder = Path(folder)
        self.pipeline.transformer.save_pretrained(folder / "transformer")
        self.pipeline.vae.save_pretrained(folder / "vae")
        self.pipeline.scheduler.save_pretrained(folder / "scheduler")
        told = {name: str(self.sources.get(name, "")) for name in ("prompt", "negative_prompt")}
        safetensors.torch.save_file(
            {"prompts": self.prompts.cpu().contiguous()}, folder / "prompts.safetensors", told
        )
        _weights.seal_parts(folder)


def load_wan_vace(
    base,
    *,
    prompt=PROMPT,
    negative_prompt=NEGATIVE_PROMPT,
    download=False,
    device="cpu",
    dtype="float32",
    compile=False,
):
    """Load Wan VACE from local weights, strictly.

    The text encoder (11 GB in the hub's layout) encodes the two prompts on the CPU and is let go.

    Parameters
    ----------
    base : str or path
        Wan 2.1 VACE in the hub's layout (such as "Wan-AI/Wan2.1-VACE-1.3B-diffusers"), or what
        `WanVACEModel.save` wrote, with its prompts: a folder, or a hub id in the local cache.
    prompt, negative_prompt : str
        The same for every clip, so that nothing but frame and flow tells clips apart.
    download : bool, default=False
        Fetch from the hub what is not in the local cache.
    device, compile
        See `WanVACEModel`.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Of the transformer, but for the parts that its authors keep in float32.

    Returns
    -------
    model : WanVACEModel
    """
    with _weights.needing("diffusers"):
        import diffusers
    if dtype not in _DTYPES:
        raise InputError(f"`dtype` must be one of {_DTYPES}; got {dtype!r}.")
    folder = _weights.find_folder(base, download=download)
    _weights.check_parts(folder)
    transformer = _weights.load_component(
        folder / "transformer", diffusers.WanVACETransformer3DModel, dtype=getattr(torch, dtype)
    )
    vae = _weights.load_component(folder / "vae", diffusers.AutoencoderKLWan)
    path = folder / "scheduler" / "scheduler_config.json"
    name = _weights.read_json(path).get("_class_name")
    if name not in _SCHEDULERS:
        raise InputError(f"{path} must describe one of {_SCHEDULERS}; got {name!r}.")
    with _weights.refusing(path):
        scheduler = getattr(diffusers, name).from_pretrained(path.parent, local_files_only=True)
    sources = {"base": str(base), "prompt": prompt, "negative_prompt": negative_prompt}
    stored = folder / "prompts.safetensors"
    if stored.is_file():
        prompts, told = _weights.read_prompts(stored)
        for what, given, usual in (
            ("prompt", prompt, PROMPT),
            ("negative_prompt", negative_prompt, NEGATIVE_PROMPT),
        ):
            if given not in (usual, told.get(what)):
                raise InputError(
                    f"`{what}` must be the one that {stored} was made of, {told.get(what)!r}; got "
                    f"{given!r}."
                )
        sources |= told
    else:
        prompts = _encode_prompts(folder, [prompt, negative_prompt])
    _check_fit(folder, transformer.config, vae.config.z_dim, prompts.shape[2])
    return WanVACEModel(
        transformer, vae, scheduler, prompts, device=device, compile=compile, sources=sources
    )


def _check_fit(folder, config, z_dim, text_dim):
    """Refuse networks and prompts that do not go together."""
    for what, got, expected in (
        ("latents", config.in_channels, z_dim),
        ("prompts", config.text_dim, text_dim),
    ):
        if got != expected:
            raise InputError(
                f"The networks in {folder} must be of one model: {what} have {expected} channels, "
                f"and the transformer reads {got}."
            )


@torch.no_grad()
def _encode_prompts(folder, prompts):
    """Embeddings as the pipeline makes them: padding is 0. (n_prompts, n_tokens, n_channels)"""
    from transformers import AutoTokenizer, UMT5EncoderModel

    encoder = _weights.load_component(folder / "text_encoder", UMT5EncoderModel, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    tokens = tokenizer(
        prompts, padding="max_length", max_length=_N_TOKENS, truncation=True, return_tensors="pt"
    )
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state.float()
    return hidden * tokens.attention_mask[..., None]


class WanVACERenderer(ModelRenderer):
    """Reanimate with Wan VACE: the frame is kept, flow is drawn, the rest is generated.

    The first frame of the control video is the initial frame (mask black: keep); each further one
    is the flow from the frame before, as a picture on the colour wheel (mask white: generate).
    VACE's own flow pictures are normalised field by field, so that speed is lost and the noise of a
    still clip becomes full colour. Here one speed has full saturation in all clips (`max_motion`):
    what moves half as fast is half as saturated. Which speed suits the weights must be measured, by
    the flow error of clips of true flow (`score_clips`).

    The network makes 4 k + 1 frames at about 16 a second. They are generated at a whole multiple of
    the clip's frame rate, as near to that as can be, and every so-manieth is returned.

    Parameters
    ----------
    model : WanVACEModel
        See `load_wan_vace`.
    n_frames : int, default=14
        Frames of a clip.
    duration : float, default=2.0
        Seconds that a clip lasts, and its flow: frame k is shown at ``k / n_frames`` of it.
    size : (height, width) or None, default=None
        Size to run at, multiples of 16; 480 x 832 is its own. The frame is scaled to cover it and
        cropped at the centre. None: the frame's own size, brought to multiples of 16 and back.
    max_motion : float, default=0.2
        Speed of full saturation, in widths of the frame per second. What is faster is drawn darker.
    num_steps : int, default=50
    guidance : float, default=5.0
        By the prompt. 1 halves the cost.
    control : float, default=1.0
        Weight of frame and flow pictures in the network.
    random_state : int, default=0
        Seed of the first clip; the next have the next ints.
    """

    def __init__(
        self,
        model,
        *,
        n_frames=14,
        duration=2.0,
        size=None,
        max_motion=0.2,
        num_steps=50,
        guidance=5.0,
        control=1.0,
        random_state=0,
    ):
        for name, value in (("duration", duration), ("max_motion", max_motion)):
            if not value > 0:
                raise InputError(f"`{name}` must be positive; got {value!r}.")
        if n_frames < 2:
            raise InputError(f"`n_frames` must be at least 2; got {n_frames!r}.")
        self.model = model
        self.n_frames = n_frames
        self.duration = duration
        self.size = size
        self.max_motion = max_motion
        self.num_steps = num_steps
        self.guidance = guidance
        self.control = control
        self.random_state = random_state

    def __call__(self, initial_frames, flow, *, seeds=None):
        """Generate clips, one after the other.

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
        seeds = check_seeds(seeds, len(flow), self.random_state)
        geometry = Geometry(initial_frames.shape[2:], self.size, MULTIPLE)
        clips = []
        for frame, fields, seed in zip(initial_frames, flow, seeds, strict=True):
            video, mask, every = self._control_video(frame[None], fields[None], geometry)
            height, width = geometry.size
            generated = self.model.pipeline(
                video=video,
                mask=mask,
                prompt_embeds=self.model.prompts[:1],
                negative_prompt_embeds=self.model.prompts[1:],
                conditioning_scale=self.control,
                height=height,
                width=width,
                num_frames=video.shape[1],
                num_inference_steps=self.num_steps,
                guidance_scale=self.guidance,
                generator=torch.Generator().manual_seed(int(seed)),
                output_type="pt",
            ).frames
            clip = generated[:, ::every][:, : self.n_frames].float().cpu()
            clips.append(geometry.clips_out(clip).numpy())
        return np.concatenate(clips)

    def _control_video(self, frame, flow, geometry):
        """The initial frame and pictures of the flow, what is to be generated, and how often.

        Returns
        -------
        video, mask : tensor of shape (1, n_generated, 3, h, w)
            In [0, 1]; mask 0 is kept.
        every : int
            Generated frames per frame of the clip.
        """
        every = max(1, round(FRAME_RATE * self.duration / self.n_frames))
        n_needed = (self.n_frames - 1) * every + 1
        n_generated = -(-(n_needed - 1) // 4) * 4 + 1
        fields = resize_flow(flow, n_steps=self.n_frames * every)[:, : n_generated - 1]
        # what is generated after the clip's end goes on as it was, and is not seen
        missing = n_generated - 1 - fields.shape[1]
        fields = np.concatenate([fields, fields[:, -1:].repeat(max(missing, 0), axis=1)], axis=1)
        fields = geometry.flow_in(fields)[0].numpy()
        seconds = self.duration / (self.n_frames * every)
        full = self.max_motion * geometry.covering[1] * seconds
        pictures = flow_to_colors(fields, max_motion=full).transpose(0, 3, 1, 2)
        still = (geometry.frames_in(frame) + 1) / 2
        video = torch.cat([still, torch.from_numpy(pictures).to(still)])[None]
        mask = torch.ones_like(video)
        mask[:, 0] = 0
        return video, mask, every
