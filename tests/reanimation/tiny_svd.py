"""Stable Video Diffusion and DragNUWA with tiny random networks, in the hub's layout."""

import numpy as np
import pytest
import torch
from video_unet_reference import diffusers_config, original_state_dict

from brainnrds.reanimation import load_video_model

WIDTHS, HEADS = (32, 32, 32, 32), (1, 1, 1, 1)
CONTEXT, ID_DIM = 16, 8
ORIGINAL = {"widths": WIDTHS, "heads": HEADS, "context": CONTEXT, "id_dim": ID_DIM}
CONFIG = {**diffusers_config(**ORIGINAL), "num_frames": 3}


def tiny_vae():
    from diffusers import AutoencoderKLTemporalDecoder

    torch.manual_seed(0)
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
    )


def tiny_image_encoder():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        image_size=224,
        patch_size=112,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        projection_dim=CONTEXT,
    )
    return CLIPVisionModelWithProjection(config)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A stock model in the hub's layout, as diffusers itself writes it, and two checkpoints."""
    import safetensors.torch
    from diffusers import UNetSpatioTemporalConditionModel

    base = tmp_path_factory.mktemp("svd")
    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(**CONFIG).save_pretrained(base / "unet")
    tiny_vae().save_pretrained(base / "vae")
    tiny_image_encoder().save_pretrained(base / "image_encoder")
    dragnuwa = base / "dragnuwa.safetensors"
    safetensors.torch.save_file(original_state_dict(**ORIGINAL, lora=2), dragnuwa)
    motionpro = base / "motionpro.pth"
    weights = original_state_dict(**ORIGINAL, lora=2, flow_channels=3, seed=1)
    torch.save({"module": {f"module.{k}": v for k, v in weights.items()}}, motionpro)
    return base, dragnuwa, motionpro


@pytest.fixture(scope="module")
def dragnuwa(folders):
    return load_video_model(folders[0], checkpoint=folders[1])


@pytest.fixture(scope="module")
def stock(folders):
    return load_video_model(folders[0])


def make_input(n_clips=2, size=(64, 64), scale=3.0):
    random = np.random.default_rng(0)
    frames = random.random((n_clips, 3, *size), dtype=np.float32)
    return frames, (scale * random.normal(size=(n_clips, 2, 2, 8, 8))).astype(np.float32)
