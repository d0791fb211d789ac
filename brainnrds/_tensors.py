"""Weights of networks in: read without running any code of theirs (safetensors, or
``torch.load(weights_only=True)``), refused in one line where they are damaged.
"""

import pickle
from pathlib import Path

from brainnrds._checks import InputError
from brainnrds._files import check_file, load_json

__all__ = ["read_safetensors", "read_shards", "read_state_dict"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
# under these, training frameworks store what they trained
_WRAPPERS = ("module", "state_dict", "model")


def read_state_dict(path):
    """Read a checkpoint without running any code from it.

    Parameters
    ----------
    path : str or Path
        ``.safetensors``; or ``.pth``, ``.pt``, ``.ckpt``, ``.bin`` as torch writes them, read with
        ``weights_only=True``. A dict under ``module``, ``state_dict`` or ``model`` and a prefix
        ``module.`` (as training frameworks add them) are unwrapped.

    Returns
    -------
    state_dict : dict of str to tensor
        On the CPU, as stored.

    Raises
    ------
    FileNotFoundError
        There is none.
    InputError
        It is no plain file of these kinds, damaged, truncated, or holds anything but tensors.
    """
    import torch

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such checkpoint: {path}.")
    path = check_file(path, "Checkpoint")
    if path.suffix not in _SUFFIXES:
        raise InputError(f"A checkpoint must be one of {', '.join(_SUFFIXES)}; got {path.name}.")
    if path.suffix == ".safetensors":
        content = read_safetensors(path)
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} holds pickled objects or is damaged, and is refused: only plain tensors "
                "are read. Convert it to safetensors where you trust it."
            ) from error
        # whatever a damaged zip or pickle makes its readers stumble over
        except Exception as error:
            raise InputError(f"{path} is truncated or is no torch checkpoint.") from error
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a dict of tensors; got {type(content).__name__}.")
    if content and all(str(key).startswith("module.") for key in content):
        content = {str(key).removeprefix("module."): value for key, value in content.items()}
    other = next((k for k, v in content.items() if not isinstance(v, torch.Tensor)), None)
    if other is not None:
        raise InputError(
            f"{path} must hold a dict of tensors; {str(other)[:80]!r} is "
            f"{type(content[other]).__name__}."
        )
    return content


def read_safetensors(path):
    """Read a safetensors file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    state_dict : dict of str to tensor

    Raises
    ------
    ImportError
        safetensors is not installed.
    InputError
        It is missing, damaged or truncated.
    """
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "Reading weights needs safetensors: pip install 'brainnrds[diffusion]'."
        ) from error
    path = check_file(path, "Checkpoint")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is truncated or is no safetensors file: {error}") from error


def read_shards(index):
    """Return the files that an index of weights names; they lie beside it.

    Parameters
    ----------
    index : Path
        JSON with a ``weight_map`` of parameter -> file name.

    Returns
    -------
    paths : list of Path
        They need not exist.

    Raises
    ------
    InputError
        It names no files, or files elsewhere.
    """
    shards = load_json(index).get("weight_map")
    shards = set(shards.values()) if isinstance(shards, dict) else {None}
    if not all(isinstance(s, str) and s and Path(s).name == s for s in shards):
        raise InputError(f"{index} must say in which files the weights are.")
    return [index.parent / shard for shard in sorted(shards)]
