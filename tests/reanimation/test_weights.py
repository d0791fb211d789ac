"""Checkpoints and folders of weights that are damaged, hostile or incomplete."""

import json
import pickle

import pytest
import torch

from brainnrds._tensors import read_state_dict
from brainnrds.reanimation import (
    load_video_model,
)

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


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
    import shutil

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
