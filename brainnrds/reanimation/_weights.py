"""Weights of the video generators: find them, map their names strictly.

Nothing here downloads unless asked to.
"""

import json
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from brainnrds._checks import InputError
from brainnrds._files import atomic_path, hash_file, load_json
from brainnrds._tensors import read_safetensors, read_shards
from brainnrds.features._networks import misfit
from brainnrds.reanimation._unet_flow import FlowUNet, complete_config

__all__ = [
    "check_parts",
    "find_folder",
    "flow_unet_from_original",
    "load_image_encoder",
    "load_vae",
    "needing",
    "original_names",
    "read_unet_config",
    "read_unet_folder",
    "refusing",
    "seal_parts",
    "unet_from_named",
]

# the SHA-256 of every file of a saved model; model folders of the hub have none
PARTS = "parts.json"
PREFIX = "model.diffusion_model."

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_FLOW = {
    "flow_cond_norm": "flow.norm",
    "flow_gamma_spatial": "flow.gamma_spatial",
    "flow_gamma_temporal": "flow.gamma_temporal",
    "flow_beta_spatial": "flow.beta_spatial",
    "flow_beta_temporal": "flow.beta_temporal",
}


def _resnet_names(original, ours):
    names = {
        f"{original}.time_mixer.": f"{ours}.time_mixer.",
        f"{original}.skip_connection.": f"{ours}.spatial_res_block.conv_shortcut.",
    }
    for theirs, name in _RESNET.items():
        names[f"{original}.{theirs}."] = f"{ours}.spatial_res_block.{name}."
        names[f"{original}.time_stack.{theirs}."] = f"{ours}.temporal_res_block.{name}."
    for theirs, name in _FLOW.items():
        names[f"{original}.{theirs}."] = f"{ours}.spatial_res_block.{name}."
    return names


def _transformer_names(original, ours):
    return {
        f"{original}.time_stack.": f"{ours}.temporal_transformer_blocks.",
        f"{original}.time_pos_embed.0.": f"{ours}.time_pos_embed.linear_1.",
        f"{original}.time_pos_embed.2.": f"{ours}.time_pos_embed.linear_2.",
        f"{original}.": f"{ours}.",
    }


def original_names(config):
    """Prefixes of the original checkpoint and what stands for them here.

    Parameters
    ----------
    config : dict
        Complete configuration, see `complete_config`.

    Returns
    -------
    names : dict of str to str
        Prefix in the original naming (without ``model.diffusion_model.``) to prefix of
        `FlowUNet`'s parameters. The longest matching prefix holds.
    """
    names = {
        "input_blocks.0.0.": "conv_in.",
        "time_embed.0.": "time_embedding.linear_1.",
        "time_embed.2.": "time_embedding.linear_2.",
        "label_emb.0.0.": "add_embedding.linear_1.",
        "label_emb.0.2.": "add_embedding.linear_2.",
        "out.0.": "conv_norm_out.",
        "out.2.": "conv_out.",
        "flow_blocks.": "flow_blocks.",
    }
    layers = config["layers_per_block"]
    n_levels = len(layers)
    index = 1
    for level, n_layers in enumerate(layers):
        for layer in range(n_layers):
            block = f"down_blocks.{level}"
            names |= _resnet_names(f"input_blocks.{index}.0", f"{block}.resnets.{layer}")
            if config["down_block_types"][level].startswith("CrossAttn"):
                names |= _transformer_names(
                    f"input_blocks.{index}.1", f"{block}.attentions.{layer}"
                )
            index += 1
        if level < n_levels - 1:
            names[f"input_blocks.{index}.0.op."] = f"down_blocks.{level}.downsamplers.0.conv."
            index += 1

    names |= _resnet_names("middle_block.0", "mid_block.resnets.0")
    names |= _transformer_names("middle_block.1", "mid_block.attentions.0")
    names |= _resnet_names("middle_block.2", "mid_block.resnets.1")

    index = 0
    for step, n_layers in enumerate(reversed(layers)):
        attends = config["up_block_types"][step].startswith("CrossAttn")
        for layer in range(n_layers + 1):
            block = f"up_blocks.{step}"
            names |= _resnet_names(f"output_blocks.{index}.0", f"{block}.resnets.{layer}")
            if attends:
                names |= _transformer_names(
                    f"output_blocks.{index}.1", f"{block}.attentions.{layer}"
                )
            if layer == n_layers and step < n_levels - 1:
                slot = 2 if attends else 1
                names[f"output_blocks.{index}.{slot}.conv."] = f"{block}.upsamplers.0.conv."
            index += 1
    return names


def _fold_lora(tensors):
    """Replace X.linear.*, X.lora_down, X.lora_up by X.*: linear + up @ down, in float32."""
    folded = {}
    problems = []
    for key, tensor in tensors.items():
        if key.endswith((".lora_down.weight", ".lora_up.weight")):
            base = key.rsplit(".lora_", 1)[0] + ".linear.weight"
            if base not in tensors:
                problems.append(f"missing: {PREFIX}{base} (for {key})")
            continue
        stem, dot, leaf = key.rpartition(".linear.")
        if not dot:
            folded[key] = tensor
            continue
        if f"{stem}.{leaf}" in tensors:
            problems.append(f"unknown: {PREFIX}{key} (there is {PREFIX}{stem}.{leaf} as well)")
            continue
        if leaf == "weight":
            pair = [tensors.get(f"{stem}.lora_{side}.weight") for side in ("down", "up")]
            absent = [
                f"missing: {PREFIX}{stem}.lora_{side}.weight"
                for side, part in zip(("down", "up"), pair, strict=True)
                if part is None
            ]
            problems += absent
            if not absent:
                down, up = pair
                fits = (
                    tensor.ndim == down.ndim == up.ndim == 2
                    and up.shape == (tensor.shape[0], down.shape[0])
                    and down.shape[1] == tensor.shape[1]
                )
                if fits:
                    kind = torch.promote_types(tensor.dtype, torch.float32)
                    tensor = tensor.to(kind) + up.to(kind) @ down.to(kind)
                else:
                    problems.append(
                        f"mis-sized: {PREFIX}{stem}.lora_up.weight {tuple(up.shape)} @ "
                        f"lora_down.weight {tuple(down.shape)} for linear.weight "
                        f"{tuple(tensor.shape)}"
                    )
        folded[f"{stem}.{leaf}"] = tensor
    return folded, problems


def _load_strictly(unet, tensors, labels, problems):
    """Give the UNet its tensors, or list every key that keeps it from loading."""
    expected = {name: tuple(p.shape) for name, p in unet.named_parameters()}
    for name, tensor in tensors.items():
        label = labels[name]
        if name not in expected:
            problems.append(f"unknown: {label}")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(
                f"mis-sized: {label} has shape {tuple(tensor.shape)}, expected {expected[name]}"
            )
        elif not tensor.is_floating_point():
            problems.append(f"wrong type: {label} is {tensor.dtype}, expected floating point")
        elif not torch.isfinite(tensor).all():
            problems.append(f"not finite: {label}")
    problems += [f"missing: {labels.get(n, n)}" for n in expected if n not in tensors]
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise InputError(
            f"The state dict does not fit this UNet; {len(problems)} keys are wrong "
            f"(is it the right model and `config`?):\n  {listing}"
        )
    unet.load_state_dict(tensors, strict=True, assign=True)
    return unet.requires_grad_(False).eval()


def _float_type(tensors):
    """float32, or float64 where the weights have it: half precision is a choice made later."""
    kind = torch.float32
    for tensor in tensors.values():
        if tensor.is_floating_point():
            kind = torch.promote_types(kind, tensor.dtype)
    return kind


def flow_unet_from_original(state_dict, *, config=None):
    """Build the UNet from a state dict in the original naming; see `load_flow_unet`."""
    config = complete_config(config)
    tensors = {
        key[len(PREFIX) :]: value for key, value in state_dict.items() if key.startswith(PREFIX)
    }
    if not tensors:
        raise InputError(
            f"`state_dict` must hold keys that start with {PREFIX!r}; got {len(state_dict)} keys"
            f", such as {sorted(map(str, state_dict))[:3]}."
        )
    not_tensors = sorted(k for k, v in tensors.items() if not isinstance(v, torch.Tensor))
    if not_tensors:
        raise InputError(f"`state_dict` must hold tensors; {not_tensors} are not.")

    folded, problems = _fold_lora(tensors)
    names = original_names(config)
    prefixes = sorted(names, key=len, reverse=True)
    by_head = {}
    for prefix in prefixes:
        by_head.setdefault(prefix.split(".", 1)[0], []).append(prefix)
    mapped, labels = {}, {}
    for key, tensor in folded.items():
        candidates = by_head.get(key.split(".", 1)[0], ())
        prefix = next((p for p in candidates if key.startswith(p)), None)
        if prefix is None:
            problems.append(f"unknown: {PREFIX}{key}")
            continue
        name = names[prefix] + key[len(prefix) :]
        if name in mapped:
            problems.append(f"unknown: {PREFIX}{key} (a second name of {labels[name]})")
            continue
        mapped[name] = tensor
        labels[name] = PREFIX + key

    stem = folded.get("flow_blocks.0.0.weight")
    flow_channels = 3 if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 else 2
    with torch.device("meta"):
        unet = FlowUNet(config, flow_channels=flow_channels)
    kind = _float_type(mapped)
    mapped = {n: t.to(kind) if t.is_floating_point() else t for n, t in mapped.items()}
    ours = {ours: theirs for theirs, ours in names.items()}
    for name, _ in unet.named_parameters():
        if name not in labels:
            labels[name] = _original_name(name, ours)
    return _load_strictly(unet, mapped, labels, problems)


def _original_name(name, ours):
    prefix = max((p for p in ours if name.startswith(p)), key=len)
    return PREFIX + ours[prefix] + name[len(prefix) :]


def unet_from_named(state_dict, *, config=None):
    """Build the UNet from a state dict in diffusers' naming (or saved by us), strictly."""
    stem = state_dict.get("flow_blocks.0.0.weight")
    with torch.device("meta"):
        unet = FlowUNet(config, flow_channels=0 if stem is None else stem.shape[1])
    kind = _float_type(state_dict)
    tensors = {n: t.to(kind) if t.is_floating_point() else t for n, t in state_dict.items()}
    return _load_strictly(unet, tensors, {name: name for name in tensors}, [])


def find_folder(name_or_path, *, download=False):
    """Find a model in the hub's layout: a local folder, or a hub id in the local cache.

    Parameters
    ----------
    name_or_path : str or Path
        Folder, or hub id such as "stabilityai/stable-video-diffusion-img2vid".
    download : bool, default=False
        Fetch what the cache lacks. Accept the model's licence on its page first.

    Returns
    -------
    folder : Path
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"The model must be a folder in the hub's layout; got the file {folder}.")
    name = str(name_or_path)
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise FileNotFoundError(f"No such model folder: {folder}.")
    hub = _import_hub()
    try:
        return Path(
            hub.snapshot_download(
                name,
                local_files_only=not download,
                allow_patterns=["*.json", "*.safetensors"],
            )
        )
    except hub.errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"The model {name!r} is neither a local folder nor in the local hub cache. Accept its "
            "licence on its page, then pass download=True or the folder's path."
        ) from error


def seal_parts(folder):
    """Write down the files of a saved model, so that parts of two models are not mixed."""
    hashes = {name: hash_file(folder / name) for name in _parts_of(folder)}
    with atomic_path(folder / PARTS) as temporary:
        temporary.write_text(json.dumps({"SHA256": hashes}, indent=2) + "\n")


def check_parts(folder):
    """Refuse a saved model that holds other files than it was saved with."""
    if not (folder / PARTS).is_file():
        return
    saved = load_json(folder / PARTS).get("SHA256")
    if not isinstance(saved, dict):
        raise InputError(f"{folder / PARTS} must hold the SHA256 of each part; got {saved!r}.")
    found = _parts_of(folder)
    if set(found) != set(saved):
        name = min(set(found) ^ set(saved))
        how = "lacks" if name in saved else "also holds"
        raise InputError(f"{folder} must hold the files that were saved; it {how} {name}.")
    for name in found:
        got = hash_file(folder / name)
        if got != saved[name]:
            raise InputError(
                f"{folder / name} must be the file that was saved with the others (SHA-256 "
                f"{str(saved[name])[:12]}...); got {got[:12]}...: it is damaged, or of another "
                "model."
            )


def _parts_of(folder):
    paths = (path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    return sorted(p.relative_to(folder).as_posix() for p in paths if p != folder / PARTS)


@contextmanager
def refusing(what):
    """One line that names the place, whatever is raised where files do not make a network."""
    try:
        yield
    except (ImportError, MemoryError, FileNotFoundError):
        raise
    except Exception as error:  # what others' files hold, other libraries refuse in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what} is damaged, or its weights do not fit it: {reason}") from error


def _import_hub():
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "Hub ids need huggingface_hub: pip install 'brainnrds[diffusion]'."
        ) from error
    return huggingface_hub


def read_prompts(path):
    """Read embeddings of prompts and what the prompts were, as `WanVACEModel.save` writes them."""
    from safetensors import safe_open

    prompts = read_safetensors(path).get("prompts")
    if prompts is None:
        raise InputError(f"{path} must hold embeddings of prompts under 'prompts'; got none.")
    if prompts.ndim != 3 or len(prompts) != 2 or not torch.isfinite(prompts).all():
        raise InputError(
            f"{path} must hold finite prompts of shape (2, n_tokens, n_channels); got "
            f"{tuple(prompts.shape)}."
        )
    with safe_open(path, framework="pt") as file:
        return prompts, file.metadata() or {}


def read_json(path):
    """Read a file of a model folder."""
    if not path.is_file():
        raise FileNotFoundError(f"The model folder is incomplete: {path} is missing.")
    return load_json(path)


def _find_weights(folder, stem, *, variant):
    """List the files that hold a component's weights: one, or shards named by an index."""
    infix = "" if variant is None else f".{variant}"
    single = folder / f"{stem}{infix}.safetensors"
    if single.is_file():
        return [single]
    index = folder / f"{stem}.safetensors.index{infix}.json"
    if index.is_file():
        shards = read_shards(index)
        missing = [path.name for path in shards if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"The model folder is incomplete: {folder} lacks {', '.join(missing)}."
            )
        return shards
    raise FileNotFoundError(
        f"The model folder is incomplete: {single} is missing (weights must be safetensors)."
    )


def read_unet_config(folder):
    """Read the UNet's configuration from a model folder; None where it has no ``unet/``."""
    folder = Path(folder) / "unet"
    return read_json(folder / "config.json") if folder.is_dir() else None


def read_unet_folder(folder, *, variant=None):
    """Read ``unet/`` of a model folder.

    Returns
    -------
    unet : FlowUNet
        In float32, without flow branch for stock Stable Video Diffusion.
    """
    folder = Path(folder) / "unet"
    config = read_json(folder / "config.json")
    state_dict = {}
    for path in _find_weights(folder, "diffusion_pytorch_model", variant=variant):
        state_dict |= read_safetensors(path)
    with refusing(folder):
        return unet_from_named(state_dict, config=config)


@contextmanager
def needing(package):
    """Say what to install where the imports of the block fail."""
    if find_spec("torchvision") is not None:
        try:
            import torchvision  # noqa: F401 : where it does not fit, the others do not say so
        except RuntimeError as error:
            raise misfit(error) from error
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"Video diffusion needs {package}: pip install 'brainnrds[diffusion]'."
        ) from error


def load_vae(folder, *, variant=None):
    """Load the video autoencoder in ``vae/`` of a model folder, in float32."""
    with needing("diffusers"):
        from diffusers import AutoencoderKLTemporalDecoder
    return load_component(Path(folder) / "vae", AutoencoderKLTemporalDecoder, variant=variant)


def load_image_encoder(folder, *, variant=None):
    """Load the CLIP image encoder in ``image_encoder/`` of a model folder, in float32."""
    with needing("transformers"):
        from transformers import CLIPVisionModelWithProjection
    folder = Path(folder) / "image_encoder"
    return load_component(folder, CLIPVisionModelWithProjection, variant=variant)


def load_component(folder, model_class, *, variant=None, dtype=torch.float32):
    """Load one network of a model folder; refuse weights that do not cover it exactly.

    Parameters
    ----------
    folder : path
        Such as ``vae/``, as diffusers or transformers write it.
    model_class : type
        Of diffusers or transformers; the folder must be of it.
    variant : str or None, default=None
    dtype : torch.dtype or "auto", default=torch.float32
        "auto" leaves weights as they are stored.

    Returns
    -------
    network : torch.nn.Module
        On the CPU, for inference.
    """
    folder = Path(folder)
    is_transformers = model_class.__module__.startswith("transformers.")
    if is_transformers:
        _check_class(folder, "architectures", [model_class.__name__])
    else:
        _check_class(folder, "_class_name", model_class.__name__)
    _find_weights(
        folder, "model" if is_transformers else "diffusion_pytorch_model", variant=variant
    )
    with refusing(folder):
        network, info = model_class.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            variant=variant,
            local_files_only=True,
            output_loading_info=True,
        )
    wrong = {key: sorted(map(str, info.get(key) or ())) for key in info}
    # position ids are a constant that older CLIP files store
    wrong["unexpected_keys"] = [
        key for key in wrong.get("unexpected_keys", ()) if not key.endswith("position_ids")
    ]
    wrong = {key: values for key, values in wrong.items() if values}
    if wrong:
        raise InputError(f"The weights in {folder} do not fit {model_class.__name__}: {wrong}.")
    broken = next((n for n, p in network.named_parameters() if not p.isfinite().all()), None)
    if broken is not None:
        raise InputError(f"The weights in {folder} must be finite; {broken} is not.")
    return network.requires_grad_(False).eval()


def _check_class(folder, key, expected):
    found = read_json(folder / "config.json").get(key)
    if found != expected:
        raise InputError(
            f"{folder / 'config.json'} must describe {expected}; got {found}: "
            "is this the right model, in the hub's layout?"
        )
