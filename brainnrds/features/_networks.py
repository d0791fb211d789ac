"""The families of pretrained networks: how each is found, loaded and read out.

A family says how the tokens of its layers lie, so that everything above sees one layout: patches
(n_inputs, n_times, rows, columns, n_channels) and, where there is one, the class token.
"""

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from brainnrds._checks import InputError
from brainnrds._files import hash_file, load_json
from brainnrds._tensors import read_shards, read_state_dict
from brainnrds.features._frames import (
    FramePreparation,
    read_timm_preparation,
    read_transformers_preparation,
)

__all__ = [
    "FAMILIES",
    "Family",
    "find_family",
    "find_folder",
    "find_weights",
    "load_network",
    "misfit",
    "read_n_frames",
    "read_preparation",
    "read_sound_preparation",
    "read_tokenizer",
    "run_network",
    "sound_steps",
    "to_patches",
]


@dataclass(frozen=True)
class Family:
    """What distinguishes one family.

    Attributes
    ----------
    kind : {"video", "image", "sound", "text"}
    model_class : str
        Class of transformers; "" where timm builds the network.
    blocks : tuple of str
        Where the list of blocks (or stages) may be, by library version.
    tokens : str
        Layout of a block's output: "time-space", "class-space-time", "frames", "prefix-space",
        "maps", "rerolled", or "time" (sound and text).
    options : tuple of (str, bool)
        Keyword arguments of the model's constructor.
    resizes : bool
        True where the position embedding can be interpolated to another input size.
    """

    kind: str
    model_class: str
    blocks: tuple[str, ...]
    tokens: str
    options: tuple[tuple[str, bool], ...] = ()
    resizes: bool = False


_VIT_BLOCKS = ("encoder.layer", "layers", "encoder.layers")
_CLIP_BLOCKS = ("vision_model.encoder.layers", "encoder.layers")
_STAGES = ("encoder.stages",)
_NO_POOLER = (("add_pooling_layer", False),)

FAMILIES = {
    "videomae": Family("video", "VideoMAEModel", _VIT_BLOCKS, "time-space"),
    "timesformer": Family("video", "TimesformerModel", _VIT_BLOCKS, "class-space-time"),
    "xclip": Family("video", "XCLIPModel", _CLIP_BLOCKS, "frames"),
    "vjepa2": Family("video", "VJEPA2Model", _VIT_BLOCKS, "time-space"),
    "dinov2": Family("image", "Dinov2Model", _VIT_BLOCKS, "prefix-space", resizes=True),
    "dinov2_with_registers": Family(
        "image", "Dinov2WithRegistersModel", _VIT_BLOCKS, "prefix-space", resizes=True
    ),
    "clip": Family(
        "image", "CLIPVisionModelWithProjection", _CLIP_BLOCKS, "prefix-space", resizes=True
    ),
    "siglip": Family("image", "SiglipVisionModel", _CLIP_BLOCKS, "prefix-space", resizes=True),
    "vit": Family("image", "ViTModel", _VIT_BLOCKS, "prefix-space", _NO_POOLER, resizes=True),
    "hiera": Family("image", "HieraModel", _STAGES, "rerolled", _NO_POOLER),
    "convnext": Family("image", "ConvNextModel", _STAGES, "maps", resizes=True),
    "convnextv2": Family("image", "ConvNextV2Model", _STAGES, "maps", resizes=True),
    "resnet": Family("image", "ResNetModel", _STAGES, "maps", resizes=True),
    "timm": Family("image", "", ("blocks", "stages"), "maps or prefix-space"),
    "vc1": Family("image", "", ("blocks",), "maps or prefix-space"),
    "whisper": Family("sound", "WhisperModel", ("encoder.layers",), "time"),
    "wav2vec2": Family("sound", "Wav2Vec2Model", ("encoder.layers",), "time"),
    "hubert": Family("sound", "HubertModel", ("encoder.layers",), "time"),
    "bert": Family("text", "BertModel", ("encoder.layer",), "time", _NO_POOLER),
    "roberta": Family("text", "RobertaModel", ("encoder.layer",), "time", _NO_POOLER),
    "gpt2": Family("text", "GPT2Model", ("h",), "time"),
    "llama": Family("text", "LlamaModel", ("layers",), "time"),
}
# `model_type` in config.json where it is not the family's own name
_MODEL_TYPES = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
# Majumdar et al. (2023): the class token of a ViT from MAE, frames 256 px (bicubic) cropped to 224
_VC1_PREPARATION = FramePreparation(
    resize=256,
    crop=(224, 224),
    resample="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    rounds_crop=True,
)
_VC1_ARCHITECTURES = {768: "vit_base_patch16_224", 1024: "vit_large_patch16_224"}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MOST_FRAMES = 1024
_SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# only what is read here is fetched: no copies for other frameworks
_FETCHED = ["*.json", "*.safetensors"]
_FETCHED_WITHOUT_SAFETENSORS = ["*.json", "pytorch_model*.bin", "*.pth"]


def _import_hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "Pretrained encoders need transformers: pip install 'brainnrds[pretrained]'."
        ) from error
    return huggingface_hub


def _import_transformers():
    try:
        import transformers
        import transformers.image_utils  # fails here, not later, where torchvision does not fit
    except ImportError as error:
        raise ImportError(
            "Pretrained encoders need transformers: pip install 'brainnrds[pretrained]'."
        ) from error
    except RuntimeError as error:
        raise misfit(error) from error
    return transformers


def _import_timm():
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "This encoder needs timm: pip install 'brainnrds[pretrained]'."
        ) from error
    except RuntimeError as error:
        raise misfit(error) from error
    return timm


def misfit(error):
    """The error to raise where torchvision is there, and its import fails otherwise."""
    vision, torch = (f"{name} {version(name)}" for name in ("torchvision", "torch"))
    return ImportError(
        f"The installed {vision} does not fit the installed {torch} (a CUDA build beside a CPU "
        f"build?): {error}. `pip install` both from the same index."
    )


def find_folder(name, hub_id, revision, download):
    """Return the folder of an encoder in the hub's layout and the revision it holds.

    Parameters
    ----------
    name : str
        What the user asked for: in messages.
    hub_id : str or path-like
        A folder, or "owner/name".
    revision : str or None
        Commit, tag or branch; None is "main".
    download : bool
        Fetch what the local cache lacks.

    Returns
    -------
    folder : Path
    revision : str or None
        The commit; None for a local folder.
    """
    folder = Path(hub_id).expanduser()
    if folder.is_dir():
        return folder, None
    hub = _import_hub()
    options = {"revision": revision, "allow_patterns": _FETCHED}
    try:
        folder = hub.snapshot_download(hub_id, local_files_only=not download, **options)
        if download and not _weights_in(Path(folder)):
            options["allow_patterns"] = _FETCHED_WITHOUT_SAFETENSORS
            folder = hub.snapshot_download(hub_id, **options)
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(_not_cached(hub, name, hub_id, revision, download)) from error
    return Path(folder), Path(folder).name


def _fetch_command(hub_id, revision):
    return f"hf download {hub_id}" + (f" --revision {revision}" if revision else "")


def _not_cached(hub, name, hub_id, revision, download):
    wanted = f"revision {revision}" if revision else "revision main"
    snapshots = Path(hub.constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
    snapshots = snapshots / "snapshots"
    cached = sorted(p.name for p in snapshots.iterdir()) if snapshots.is_dir() else []
    state = f"the cache holds {', '.join(cached)}" if cached else "the cache holds nothing of it"
    if download:
        return f"Encoder {name!r}: {wanted} of {hub_id} could not be fetched, and {state}."
    return (
        f"Encoder {name!r}: {_WEIGHTS[0]} of {hub_id} ({wanted}) is not in the local hub cache "
        f"({state}). Fetch it, in Python with download=True, or in a shell: "
        f"{_fetch_command(hub_id, revision)}"
    )


def _weights_in(folder):
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
    for name in _SHARDS:
        if (folder / name).is_file():
            return read_shards(folder / name)
    return sorted(folder.glob("*.pth"))


@contextmanager
def _reading(folder):
    """One line where files beside the weights lack what is read of them, or hold other types."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise InputError(
            f"{folder} must describe a network and its frames: {type(error).__name__}: {error}."
        ) from error


def find_weights(folder, hub_id, revision):
    """Return the SHA-256 of every file with weights, after comparing it with the hub's own.

    Parameters
    ----------
    folder : Path
    hub_id, revision : str
        For the message where files are missing.

    Returns
    -------
    hashes : dict of str to str
        File name to hexadecimal digest.

    Raises
    ------
    FileNotFoundError
        Weights are missing.
    ValueError
        A cached file is not what the hub sent.
    """
    files = _weights_in(folder)
    missing = [path.name for path in files if not path.is_file()] or (
        [] if files else [_WEIGHTS[0]]
    )
    if missing:
        fetch = (
            "" if Path(hub_id).is_dir() else f" Fetch it with: {_fetch_command(hub_id, revision)}"
        )
        raise FileNotFoundError(
            f"The model folder {folder} is incomplete: {', '.join(missing)} is missing.{fetch}"
        )
    hashes = {}
    for path in files:
        hashes[path.name] = hash_file(path)
        # the hub's cache names a large file by its SHA-256
        expected = Path(os.path.realpath(path)).name
        if len(expected) == 64 and expected != hashes[path.name]:
            raise InputError(
                f"The weights {path} are damaged: SHA-256 {hashes[path.name][:12]}..., expected "
                f"{expected[:12]}... Remove the file and fetch it again with: "
                f"{_fetch_command(hub_id, revision)} --force-download"
            )
    return hashes


def find_family(folder):
    """Return the name of the family of a model folder, from its ``config.json``."""
    path = folder / "config.json"
    config = load_json(path) if path.is_file() else {}
    if "architecture" in config:
        return "timm"
    kind = str(config.get("model_type", ""))
    kind = _MODEL_TYPES.get(kind, kind)
    if kind in FAMILIES:
        return kind
    if any(folder.glob("vc1_*.pth")):
        return "vc1"
    if not config:
        raise FileNotFoundError(f"The model folder is incomplete: {path} is missing.")
    raise InputError(
        f"{path} must describe one of the families {', '.join(FAMILIES)}; got {kind or config!r}."
    )


def read_preparation(folder, family):
    """Return how the network wants its frames."""
    if family == "vc1":
        return _VC1_PREPARATION
    with _reading(folder):
        if family == "timm":
            return read_timm_preparation(load_json(folder / "config.json")["pretrained_cfg"])
        return read_transformers_preparation(folder, family)


def read_n_frames(folder, family):
    """Return how many frames a video network takes; 1 for an image network."""
    if FAMILIES[family].kind != "video":
        return 1
    path = folder / "config.json"
    config = load_json(path)
    with _reading(folder):
        if family == "xclip":
            n_frames = config["vision_config"].get("num_frames", 8)
        elif family == "vjepa2":
            n_frames = config.get("frames_per_clip", 64)
        else:
            n_frames = config.get("num_frames", 16 if family == "videomae" else 8)
    if type(n_frames) is not int or not 1 <= n_frames <= _MOST_FRAMES:
        raise InputError(f"{path} must name 1 to {_MOST_FRAMES} frames; got {n_frames!r}.")
    return n_frames


def read_sound_preparation(folder, rate):
    """Return what turns waves into a sound network's input.

    Parameters
    ----------
    folder : Path
    rate : int
        Samples per second that the waves have.

    Returns
    -------
    prepare : transformers.SequenceFeatureExtractor
    """
    transformers = _import_transformers()
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"The model folder is incomplete: {path} is missing.")
    with _reading(folder), _quietly(transformers):
        prepare = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    if getattr(prepare, "sampling_rate", None) != rate:
        got = getattr(prepare, "sampling_rate", None)
        raise InputError(f"{path} must want sound of {rate} samples per s; got {got}.")
    return prepare


@lru_cache(maxsize=8)
def read_tokenizer(folder):
    """Return what turns text into a text network's input, from ``tokenizer.json``."""
    transformers = _import_transformers()
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"The model folder is incomplete: {path} is missing.")
    load_json(path)
    with _reading(folder), _quietly(transformers):
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def sound_steps(network, family, n_steps):
    """Return the middle of each step of a sound network, in samples of its input."""
    import numpy as np

    if family == "whisper":  # spectra around every 160th sample, every second one of them
        return 320 * np.arange(n_steps)
    field, stride = 1, 1
    for kernel, step in zip(network.config.conv_kernel, network.config.conv_stride, strict=True):
        field, stride = field + (kernel - 1) * stride, stride * step
    return stride * np.arange(n_steps) + field / 2


# threads share networks
one_at_a_time = threading.Lock()


@lru_cache(maxsize=8)
def load_network(folder, family, device, precision, stamp):
    """Load a network once per process.

    Parameters
    ----------
    folder : Path
    family : str
    device : str
    precision : {"float32", "bfloat16"}
    stamp : str
        Hash of the weights: a changed file is loaded anew.

    Returns
    -------
    network : torch.nn.Module
        Frozen, in evaluation mode.
    """
    import torch

    builders = {"timm": _build_timm, "vc1": _build_vc1}
    transformers = _import_transformers()

    try:
        if family in builders:
            network = builders[family](folder)
        else:
            network = _build_transformers(transformers, folder, FAMILIES[family])
    except (ImportError, InputError):
        raise
    except Exception as error:  # what others' files hold, other libraries refuse in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"The weights in {folder} are damaged or do not fit {family}: {reason}"
        ) from error
    broken = [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise InputError(f"The weights in {folder} are damaged: {broken[0]} is not finite.")
    network = network.to(device=device, dtype=getattr(torch, precision))
    _move_constants(network, device)
    return network.requires_grad_(False).eval()


def _move_constants(network, device):
    """Move tensors that are no buffers, such as VideoMAE's positions, to the network's device.

    Copied from the host for every batch, they make it wait for the device.
    """
    import torch

    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                setattr(module, name, value.to(device))


def _build_transformers(transformers, folder, family):
    import torch

    model_class = getattr(transformers, family.model_class)
    with _quietly(transformers):
        network, info = model_class.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line
            **dict(family.options),
        )
    # positions are counted; masks are for training
    unused = ("position_ids", "masked_spec_embed")
    missing = sorted(k for k in info["missing_keys"] if not k.endswith(unused))
    if missing or info.get("mismatched_keys"):
        wrong = missing or [str(key) for key in info["mismatched_keys"]]
        raise RuntimeError(f"{len(wrong)} parameters are missing or mis-sized, such as {wrong[0]}")
    return network


@contextmanager
def _quietly(transformers):
    """Silence transformers' loading report and bar: heads left out on purpose fill it."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _build_timm(folder):
    timm = _import_timm()
    config = load_json(folder / "config.json")
    network = timm.create_model(
        config["architecture"],
        pretrained=False,
        num_classes=config.get("num_classes", config["pretrained_cfg"].get("num_classes", 0)),
        **config.get("model_args", {}),
    )
    network.load_state_dict(read_state_dict(_weights_in(folder)[0]), strict=True)
    return network


def _build_vc1(folder):
    timm = _import_timm()
    state = read_state_dict(_weights_in(folder)[0])
    # the decoder and the mask token belong to the training of the masked autoencoder
    state = {k: v for k, v in state.items() if not k.startswith(("decoder_", "mask_token"))}
    width = state["pos_embed"].shape[-1] if "pos_embed" in state else None
    if width not in _VC1_ARCHITECTURES:
        raise RuntimeError(f"expected a position embedding of width 768 or 1024; got {width}")
    network = timm.create_model(
        _VC1_ARCHITECTURES[width], pretrained=False, num_classes=0, global_pool="token"
    )
    network.load_state_dict(state, strict=True)
    return network


def find_blocks(network, family):
    """Return the list of blocks (or stages) of a network."""
    for path in FAMILIES[family].blocks:
        try:
            return list(network.get_submodule(path))
        except AttributeError:
            continue
    stages = [getattr(network, f"layer{i}", None) for i in range(1, 5)]  # timm's ResNets
    if all(stage is not None for stage in stages):
        return stages
    raise InputError(
        f"The blocks of {type(network).__name__} are not known: name a module instead."
    )


def run_network(network, family, pixels, layers):
    """Run a network and return the raw output of every layer.

    Parameters
    ----------
    network : torch.nn.Module
    family : str
    pixels : tensor of shape (n_inputs, 3, height, width), video: (n_inputs, n_frames, 3, ...)
        Of sound and text a dict of the network's arguments.
    layers : sequence of int or str
        Block number, "output" (last hidden state), "embedding" (pooled or projected) or the name
        of a module.

    Returns
    -------
    outputs : dict of layer to tensor
    """
    outputs, hooks = {}, []

    def keep(layer):
        def hook(module, inputs, output):
            outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    with one_at_a_time:  # a hook sees whatever passes through its module
        try:
            for layer in layers:
                if layer in ("output", "embedding") or (
                    family == "hiera" and isinstance(layer, int)
                ):
                    continue
                module = _find_module(network, family, layer)
                hooks.append(module.register_forward_hook(keep(layer)))
            final = _forward(network, family, pixels, "embedding" in layers)
        finally:
            for hook in hooks:
                hook.remove()
    for layer in layers:
        if layer in ("output", "embedding"):
            outputs[layer] = final[layer]
        elif layer not in outputs:
            outputs[layer] = final["stages"][layer]
    return outputs


def _find_module(network, family, layer):
    if not isinstance(layer, str):
        blocks = find_blocks(network, family)
        if not -len(blocks) <= layer < len(blocks):
            raise InputError(
                f"`layers` must be block numbers from 0 to {len(blocks) - 1} (or negative, from "
                f"the end); got {layer}."
            )
        return blocks[layer]
    try:
        return network.get_submodule(layer)
    except AttributeError as error:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError(
            f"`layers` must name 'output', 'embedding' or a module of the network; got {layer!r}. "
            f"Its parts: {children}."
        ) from error


def _forward(network, family, pixels, embeds):
    """Return a dict with "output", where asked "embedding", and for Hiera "stages"."""
    final = {}
    if FAMILIES[family].kind in ("sound", "text"):
        part = network.encoder if family == "whisper" else network
        final["output"] = part(**pixels).last_hidden_state
    elif family in ("timm", "vc1"):
        final["output"] = network.forward_features(pixels)
        if embeds:
            final["embedding"] = network.forward_head(final["output"])
    elif family == "xclip":
        frames = pixels.flatten(0, 1)
        output = network.vision_model(pixel_values=frames)
        final["output"] = output.last_hidden_state
        if embeds:
            projected = network.visual_projection(output.pooler_output)
            projected = projected.view(*pixels.shape[:2], -1)
            final["embedding"] = network.mit(projected).pooler_output
    elif family == "vjepa2":
        output = network(pixel_values_videos=pixels, skip_predictor=True)
        final["output"] = output.last_hidden_state
    elif family == "hiera":
        output = network(pixel_values=pixels, output_hidden_states=True)
        # the first entry is the patch embedding; a stage has a token per cell of its grid
        final["stages"] = output.reshaped_hidden_states[1:]
        final["output"] = final["stages"][-1]
    else:
        options = {}
        if family in ("clip", "siglip", "vit"):
            options["interpolate_pos_encoding"] = True
        output = network(pixel_values=pixels, **options)
        final["output"] = output.last_hidden_state
        if family == "clip":
            final["embedding"] = output.image_embeds
        elif getattr(output, "pooler_output", None) is not None:
            final["embedding"] = output.pooler_output.flatten(1)
    if embeds and "embedding" not in final:
        raise InputError(f"`layers`: {family} has no 'embedding'; use 'output' or a block number.")
    return final


def to_patches(output, network, family, pixels):
    """Bring a layer's raw output into one layout.

    Parameters
    ----------
    output : tensor
    network : torch.nn.Module
    family : str
    pixels : tensor
        The network's input: its shape tells the grid.

    Returns
    -------
    patches : tensor of shape (n_inputs, n_times, rows, columns, n_channels)
    class_token : tensor of shape (n_inputs, n_channels) or None
    """
    layout = FAMILIES[family].tokens
    if layout == "maps or prefix-space":
        layout = "prefix-space" if hasattr(network, "num_prefix_tokens") else "maps"
        if output.ndim == 4 and family == "timm" and _is_channels_last(network):
            return output[:, None], None
    if layout == "maps" and output.ndim == 4:
        return output.permute(0, 2, 3, 1)[:, None], None
    if layout == "rerolled":
        return output[:, None], None
    if output.ndim == 2:
        return output[:, None, None, None], None
    n_inputs = len(pixels)
    if layout == "frames":  # (n_inputs * n_times, 1 + rows * columns, n_channels)
        output = output.unflatten(0, (n_inputs, -1))
        rows, columns = _grid(network, family, pixels)
        return output[:, :, 1:].unflatten(2, (rows, columns)), output[:, :, 0].mean(1)
    rows, columns = _grid(network, family, pixels)
    if layout == "time-space":
        return output.unflatten(1, (-1, rows, columns)), None
    if layout == "class-space-time":
        patches = output[:, 1:].unflatten(1, (rows, columns, -1))
        return patches.permute(0, 3, 1, 2, 4), output[:, 0]
    n_prefix = output.shape[1] - rows * columns
    if n_prefix < 0:
        raise InputError(
            f"A layer of {family} gave {output.shape[1]} tokens for a grid of {rows} x {columns}: "
            "it does not hold patches."
        )
    patches = output[:, n_prefix:].unflatten(1, (rows, columns))[:, None]
    return patches, output[:, 0] if n_prefix else None


def _is_channels_last(network):
    return getattr(network, "output_fmt", "NCHW") == "NHWC"


def _grid(network, family, pixels):
    """Return rows and columns of patches of the network's input."""
    if family in ("timm", "vc1"):
        patch = network.patch_embed.patch_size
    else:
        config = network.config
        patch = getattr(config, "vision_config", config).patch_size
    patch = patch if isinstance(patch, (tuple, list)) else (patch, patch)
    return pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1]
