"""Wan VACE end to end with tiny random networks: what it is fed with, saved, loaded, refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from brainnrds._checks import InputError
from brainnrds.flow import flow_to_colors
from brainnrds.reanimation import WanVACERenderer, load_wan_vace
from brainnrds.reanimation.wan_vace import NEGATIVE_PROMPT, PROMPT

safetensors_torch = pytest.importorskip("safetensors.torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "vace_layers": [0],
    "vace_in_channels": 96,
}
VAE = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model in the hub's layout, as diffusers and transformers write it."""
    folder = tmp_path_factory.mktemp("wan")
    torch.manual_seed(0)
    diffusers.WanVACETransformer3DModel(**TRANSFORMER).save_pretrained(folder / "transformer")
    diffusers.AutoencoderKLWan(**VAE).save_pretrained(folder / "vae")
    diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ).save_pretrained(folder / "scheduler")
    words = sorted({word for word in f"{PROMPT} {NEGATIVE_PROMPT}".replace(",", " ,").split()})
    model = tokenizers.models.WordLevel(
        {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}, unk_token="<unk>"
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    config = transformers.UMT5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_wan_vace(folder)


def make_input(n_clips=1, size=(32, 48)):
    random = np.random.default_rng(0)
    flow = random.normal(size=(n_clips, 3, 2, 4, 6)).astype(np.float32)
    return random.random((n_clips, 3, *size), dtype=np.float32), flow


def test_clips_follow_the_flow_and_only_their_own_seed(model):
    frames, flow = make_input(2)
    renderer = WanVACERenderer(model, n_frames=5, num_steps=2)
    clips = renderer(frames, flow)
    assert clips.shape == (2, 5, 3, 32, 48) and clips.dtype == np.float32
    assert 0 <= clips.min() and clips.max() <= 1
    alone = renderer(frames[1:], flow[1:], seeds=np.array([1]))
    np.testing.assert_allclose(alone[0], clips[1], atol=1e-5)
    assert np.abs(renderer(frames, -flow) - clips).max() > 1e-4
    assert "Apache-2.0" in renderer.licence and "num_steps=2" in repr(renderer)


@pytest.mark.parametrize("duration, n_frames", [(2.0, 14), (0.72, 7), (1.5, 2), (1.0, 33)])
def test_frame_is_kept_and_flow_is_drawn_at_its_speed(model, monkeypatch, duration, n_frames):
    """A pan of a tenth of the width per second: half as saturated as full speed, at any rate."""
    seen = {}
    generate = type(model.pipeline).__call__

    def spy(pipeline, **options):
        seen.update(options)
        return generate(pipeline, **options)

    monkeypatch.setattr(type(model.pipeline), "__call__", spy)
    frames, flow = make_input()
    flow[:, :, 0], flow[:, :, 1] = 0.1 * 6 * duration / 3, 0
    renderer = WanVACERenderer(
        model, n_frames=n_frames, duration=duration, num_steps=1, max_motion=0.2, guidance=1.0
    )
    clips = renderer(frames, flow)
    assert clips.shape == (1, n_frames, 3, 32, 48)
    video, mask = seen["video"][0].numpy(), seen["mask"][0].numpy()
    assert len(video) % 4 == 1
    assert len(video) >= min(n_frames, 16 * duration * (n_frames - 1) / n_frames)
    np.testing.assert_allclose(video[0], frames[0], atol=1e-6)
    assert (mask[0] == 0).all() and (mask[1:] == 1).all()
    red = flow_to_colors(np.array([[[1.0]], [[0.0]]]), max_motion=2.0)[0, 0]
    expected = np.broadcast_to(red[:, None, None], video[1:].shape)
    np.testing.assert_allclose(video[1:], expected, atol=1e-5)


def test_zero_flow_is_white(model):
    renderer = WanVACERenderer(model, n_frames=5)
    from brainnrds.reanimation.svd import Geometry

    frames, flow = make_input()
    video, _, every = renderer._control_video(frames, 0 * flow, Geometry((32, 48), None, 16))
    assert every == 6 and video.shape == (1, 25, 3, 32, 48)
    assert (video[0, 1:] == 1).all()


def test_prompts_are_encoded_as_in_the_published_pipeline(folder, model, monkeypatch):
    from diffusers.pipelines.wan import pipeline_wan_vace as published

    monkeypatch.setattr(published, "prompt_clean", lambda text: text)  # ftfy may be missing
    pipeline = published.WanVACEPipeline(
        transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval(),
        model.pipeline.vae,
        model.pipeline.scheduler,
        model.pipeline.transformer,
    )
    with torch.no_grad():
        expected = pipeline.encode_prompt(PROMPT, NEGATIVE_PROMPT, max_sequence_length=512)
    torch.testing.assert_close(model.prompts, torch.cat(expected))


def test_saved_models_load_without_a_text_encoder_and_render_alike(model, tmp_path):
    frames, flow = make_input()
    model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "text_encoder").exists()
    again = load_wan_vace(tmp_path / "saved")
    assert again.sources["prompt"] == PROMPT
    first, second = (
        WanVACERenderer(m, n_frames=5, num_steps=2)(frames, flow) for m in (model, again)
    )
    np.testing.assert_allclose(second, first, atol=1e-6)


def test_half_precision_is_close(folder, model):
    frames, flow = make_input()
    half = load_wan_vace(folder, dtype="bfloat16")
    transformer = half.pipeline.transformer
    assert transformer.patch_embedding.weight.dtype == torch.bfloat16
    assert transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    clips = [WanVACERenderer(m, n_frames=5, num_steps=2)(frames, flow) for m in (model, half)]
    assert np.corrcoef(clips[0].ravel(), clips[1].ravel())[0, 1] > 0.95


def test_other_sizes_are_resized_and_back(model):
    frames, flow = make_input(size=(30, 50))
    with pytest.warns(UserWarning, match=r"resized to \(32, 48\)"):
        clips = WanVACERenderer(model, n_frames=2, num_steps=1, guidance=1.0)(frames, flow)
    assert clips.shape == (1, 2, 3, 30, 50)
    covered = WanVACERenderer(model, n_frames=2, num_steps=1, guidance=1.0, size=(32, 32))
    assert covered(frames, flow).shape == (1, 2, 3, 32, 32)


def test_wrong_options_and_folders_are_refused(folder, model, tmp_path):
    frames, flow = make_input()
    for wrong, message in (
        ({"n_frames": 1}, "`n_frames` must be at least 2"),
        ({"duration": 0}, "`duration` must be positive"),
        ({"max_motion": -1}, "`max_motion` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            WanVACERenderer(model, **wrong)
    with pytest.raises(ValueError, match="multiples of 16"):
        WanVACERenderer(model, size=(30, 48))(frames, flow)
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        load_wan_vace(folder, dtype="float8")
    damaged = tmp_path / "wan"
    shutil.copytree(folder, damaged)
    (damaged / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_wan_vace(damaged)
    shutil.copytree(folder, damaged, dirs_exist_ok=True)
    path = damaged / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "DDIMScheduler"}))
    with pytest.raises(ValueError, match="must describe one of"):
        load_wan_vace(damaged)
    shutil.copytree(folder, damaged, dirs_exist_ok=True)
    path = damaged / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ffn_dim": 64}))
    with pytest.raises(InputError, match="transformer is damaged, or its weights do not fit"):
        load_wan_vace(damaged)


def test_parts_of_two_saved_models_are_not_mixed(folder, model, tmp_path):
    saved, other = tmp_path / "saved", tmp_path / "other"
    model.save(saved)
    load_wan_vace(folder, prompt="a").save(other)
    shutil.copy(other / "prompts.safetensors", saved)
    with pytest.raises(InputError, match=r"prompts.safetensors must be the file that was saved"):
        load_wan_vace(saved)
    model.save(saved)
    with pytest.raises(InputError, match=r"`prompt` must be the one .*; got 'a dog'"):
        load_wan_vace(saved, prompt="a dog")
    assert load_wan_vace(other).sources["prompt"] == "a"
    # of another file, as any folder of the hub may have it
    (saved / "parts.json").unlink()
    path = saved / "prompts.safetensors"
    for prompts, match in (
        (torch.zeros(2, 7, 31), "prompts have 31 channels, and the transformer reads 32"),
        (torch.zeros(7, 32), r"of shape \(2, n_tokens, n_channels\); got \(7, 32\)"),
        (torch.full((2, 7, 32), torch.nan), "must hold finite prompts"),
    ):
        safetensors_torch.save_file({"prompts": prompts}, path)
        with pytest.raises(InputError, match=match):
            load_wan_vace(saved)
    safetensors_torch.save_file({"other": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="under 'prompts'; got none"):
        load_wan_vace(saved)
    model.save(saved)
    (saved / "parts.json").unlink()
    diffusers.AutoencoderKLWan(**VAE, z_dim=8).save_pretrained(saved / "vae")
    with pytest.raises(InputError, match="latents have 8 channels, and the transformer reads 16"):
        load_wan_vace(saved)
