"""Checkpoints and folders of weights that are damaged, hostile or incomplete."""

import json
import pickle
import shutil
import sys

import pytest
import torch
from tiny_svd import tiny_image_encoder, tiny_vae

from brainnrds._checks import InputError
from brainnrds._tensors import read_safetensors, read_state_dict
from brainnrds.reanimation import (
    _weights,
    load_video_model,
)

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_torchvision_that_does_not_fit_torch_is_named(folders, tmp_path, monkeypatch):
    """A CUDA build beside a CPU build: diffusers and transformers only say what they lack."""
    broken = tmp_path / "torchvision"
    broken.mkdir()
    said = "operator torchvision::nms does not exist"
    (broken / "__init__.py").write_text(f"raise RuntimeError('{said}')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"torchvision \S+ does not fit .* torch \d.*nms"):
        load_video_model(folders[0])


def test_other_errors_of_a_package_are_not_laid_on_torchvision():
    with pytest.raises(RuntimeError, match="^a fault of its own$"), _weights.needing("diffusers"):
        raise RuntimeError("a fault of its own")
    with pytest.raises(ImportError, match="needs diffusers: pip install"):
        with _weights.needing("diffusers"):
            raise ImportError("no such package")


def test_damaged_checkpoints_are_refused(folders, tmp_path):
    whole = folders[1].read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_state_dict(cut)
    short = tmp_path / "cut.pth"
    short.write_bytes(folders[2].read_bytes()[:4000])
    with pytest.raises(ValueError, match="truncated|refused"):
        read_state_dict(short)

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    evil = tmp_path / "evil.ckpt"
    torch.save({"state_dict": Payload()}, evil)
    with pytest.raises(ValueError, match="refused"):
        read_state_dict(evil)
    evil.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="refused|truncated"):
        read_state_dict(evil)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="must be one of"):
        read_state_dict(folders[0] / "unet" / "config.json")


def test_incomplete_folders_are_refused(folders, tmp_path):
    base = tmp_path / "svd"
    shutil.copytree(folders[0], base)
    (base / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_video_model(base)
    shutil.copytree(folders[0], base, dirs_exist_ok=True)
    config = json.loads((base / "vae" / "config.json").read_text())
    (base / "vae" / "config.json").write_text(
        json.dumps({**config, "_class_name": "AutoencoderKL"})
    )
    with pytest.raises(ValueError, match="must describe AutoencoderKLTemporalDecoder"):
        load_video_model(base)
    with pytest.raises(FileNotFoundError, match="No such model folder"):
        load_video_model(tmp_path / "nothing" / "here")
    with pytest.raises(FileNotFoundError, match="neither a local folder nor in the local hub"):
        load_video_model("nobody/no-such-video-model")


def refused(folder, match, **options):
    with pytest.raises(InputError, match=match) as error:
        load_video_model(folder, **options)
    return str(error.value)


def test_parts_of_two_saved_models_are_not_mixed(dragnuwa, stock, tmp_path):
    """Every network has the right shapes, and is another's."""
    one, other = tmp_path / "one", tmp_path / "other"
    dragnuwa.save(one)
    stock.save(other)
    with torch.no_grad():
        for network, name in ((tiny_vae(), "vae"), (tiny_image_encoder(), "image_encoder")):
            next(network.parameters()).add_(0.1)
            network.save_pretrained(other / name)
    parts = [path.relative_to(one) for path in one.rglob("*/*.*")]
    assert len(parts) == 6
    for part in parts:
        whole = (one / part).read_bytes()
        if (other / part).read_bytes() != whole:
            shutil.copy(other / part, one / part)
            assert str(one / part) in refused(one, "saved with the others .* got .*another model")
        (one / part).unlink()
        refused(one, f"it lacks {part}")
        (one / part).write_bytes(whole)
        extra = (one / part).with_name(f"more{part.suffix}")
        extra.write_bytes(whole)
        refused(one, f"it also holds .*{extra.name}")
        extra.unlink()
    load_video_model(one)
    other_unet = (other / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert other_unet != (one / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    (one / "parts.json").write_text("{}")
    refused(one, "must hold the SHA256 of each part; got None")
    dragnuwa.save(one)  # over it: all is anew
    load_video_model(one)


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
def test_arrays_that_are_not_of_their_network_are_refused(folders, part, tmp_path):
    """In a folder of the hub, which says nothing of its files: by name, shape and value."""
    import safetensors.torch

    base = tmp_path / "svd"
    shutil.copytree(folders[0], base)
    (path,) = (base / part).glob("*.safetensors")
    whole = read_safetensors(path)
    name = min(key for key in whole if key.endswith("weight") and whole[key].ndim > 1)
    others = {key: value for key, value in whole.items() if key != name}
    for tensors in (
        others,
        {**whole, "surprise.weight": torch.ones(2)},
        {**whole, name: whole[name][:-1]},
        {**whole, name: whole[name][..., None]},
        {**whole, name: torch.full_like(whole[name], torch.nan)},
        {},
    ):
        safetensors.torch.save_file(tensors, path, {"format": "pt"})
        message = refused(base, "fit|finite|not of")
        assert str(base / part) in message
    safetensors.torch.save_file(whole, path, {"format": "pt"})
    load_video_model(base)


def test_networks_that_do_not_go_together_are_refused(folders, tmp_path):
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionModelWithProjection

    base = tmp_path / "svd"
    shutil.copytree(folders[0], base)
    config = {**tiny_image_encoder().config.to_dict(), "projection_dim": 24}
    encoder = CLIPVisionModelWithProjection(tiny_image_encoder().config.from_dict(config))
    encoder.save_pretrained(base / "image_encoder")
    refused(base, "image embeddings of 24 channels need 24 channels of the UNet; got 16")
    shutil.copytree(folders[0], base, dirs_exist_ok=True)
    AutoencoderKLTemporalDecoder.from_config(tiny_vae().config, latent_channels=6).save_pretrained(
        base / "vae"
    )
    refused(base, "latents of 6 channels .* need 12 channels of the UNet; got 8")
    shutil.copytree(folders[0], base, dirs_exist_ok=True)
    path = base / "unet" / "config.json"
    for wrong in (
        {"block_out_channels": 3},
        {"num_frames": 3, "surprise": 1},
        {"in_channels": "x"},
    ):
        path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
        refused(base, "unet")
        shutil.copytree(folders[0], base, dirs_exist_ok=True)
