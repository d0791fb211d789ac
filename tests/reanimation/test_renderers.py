"""The diffusion renderers end to end with tiny random networks: saved, loaded, refused."""

import json
import pickle

import numpy as np
import pytest
import torch
from video_unet_reference import original_state_dict

from brainnrds.reanimation import (
    DragNUWARenderer,
    ImageToVideoRenderer,
    TimeToMoveRenderer,
    VideoModel,
    load_flow_unet,
    load_video_model,
)
from brainnrds.reanimation import svd as svd_module
from brainnrds.reanimation._weights import read_state_dict
from brainnrds.reanimation.warp import splat_clips

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

WIDTHS, HEADS = (32, 32, 32, 32), (1, 1, 1, 1)
CONTEXT, ID_DIM = 16, 8
CONFIG = {
    "block_out_channels": WIDTHS,
    "num_attention_heads": HEADS,
    "cross_attention_dim": CONTEXT,
    "addition_time_embed_dim": ID_DIM,
    "projection_class_embeddings_input_dim": 3 * ID_DIM,
    "num_frames": 3,
}
ORIGINAL = {"widths": WIDTHS, "heads": HEADS, "context": CONTEXT, "id_dim": ID_DIM}


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
    from diffusers import UNetSpatioTemporalConditionModel

    base = tmp_path_factory.mktemp("svd")
    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(**CONFIG).save_pretrained(base / "unet")
    tiny_vae().save_pretrained(base / "vae")
    tiny_image_encoder().save_pretrained(base / "image_encoder")
    dragnuwa = base / "dragnuwa.safetensors"
    safetensors_torch.save_file(original_state_dict(**ORIGINAL, lora=2), dragnuwa)
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


def test_dragnuwa_follows_the_flow_and_only_its_own_seed(dragnuwa):
    frames, flow = make_input()
    renderer = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=2)
    clips = renderer(frames, flow)
    assert clips.shape == (2, 3, 3, 64, 64) and clips.dtype == np.float32
    assert 0 <= clips.min() and clips.max() <= 1 and np.ptp(clips) > 0.05
    alone = renderer(frames[1:], flow[1:], seeds=np.array([1]))
    np.testing.assert_allclose(alone[0], clips[1], atol=2e-3)
    other = renderer(frames, -flow)
    assert np.abs(other - clips).max() > 1e-3
    assert "licence" in renderer.licence


def test_motionpro_loads_through_the_same_code(folders):
    model = load_video_model(folders[0], checkpoint=folders[2], input_channels=3)
    frames, flow = make_input(1)
    # cells of 8 pixels per step, two steps of two and a half frames
    flow[:] = 2.5 * np.array([0.25, -0.125])[:, None, None]
    seen = []
    encode = model.unet.encode_flow
    model.unet.encode_flow = lambda flow: seen.append(flow) or encode(flow)
    DragNUWARenderer(model, n_frames=5, num_steps=1, reference="first")(frames, flow)
    (given,) = seen
    assert given.shape == (1, 5, 3, 64, 64)
    moved = torch.arange(5.0)[:, None, None] * torch.ones(64, 64)
    torch.testing.assert_close(given[0, :, 0], 2 * moved)
    torch.testing.assert_close(given[0, :, 1], -1 * moved)
    column, row = torch.arange(64.0), torch.arange(64.0)[:, None]
    inside = (column + 2 * moved <= 63) & (row - moved >= 0)
    torch.testing.assert_close(given[0, :, 2], inside.float())
    with pytest.raises(ValueError, match="`input_channels` is 2"):
        load_video_model(folders[0], checkpoint=folders[2])


def test_what_dragnuwa_is_fed_with(dragnuwa):
    """Consecutive pixels of the model's grid behind a slice of zeros."""
    seen, ids = [], []
    encode, forward = dragnuwa.unet.encode_flow, dragnuwa.unet.forward
    dragnuwa.unet.encode_flow = lambda flow: seen.append(flow) or encode(flow)

    def spy(*args, **kwargs):
        ids.append(kwargs["added_time_ids"])
        return forward(*args, **kwargs)

    dragnuwa.unet.forward = spy
    flow = np.zeros((1, 3, 2, 8, 8), np.float32)  # one step per frame
    flow[:, :, 0], flow[:, :, 1] = 0.5, -1
    try:
        DragNUWARenderer(dragnuwa, n_frames=3, num_steps=1)(make_input(1, (64, 128))[0], flow)
    finally:
        dragnuwa.unet.encode_flow, dragnuwa.unet.forward = encode, forward
    (given,) = seen
    assert given.shape == (1, 3, 2, 64, 128)
    assert (given[:, 0] == 0).all()
    torch.testing.assert_close(given[:, 1:, 0], torch.full((1, 2, 64, 128), 0.5 * 16))
    torch.testing.assert_close(given[:, 1:, 1], torch.full((1, 2, 64, 128), -1.0 * 8))
    bucket = float(np.hypot(8, 8))
    torch.testing.assert_close(ids[0], torch.tensor([[4.0, bucket, 0.02]] * 2))


def test_sparse_mode_samples_tracks(dragnuwa):
    renderer = DragNUWARenderer(dragnuwa, n_frames=3, flow_mode="sparse")
    fields = torch.zeros(1, 2, 2, 192, 192)
    fields[:, :, 0] = 3
    flow = renderer._condition(fields)
    # tracks start 40 pixels from the corner, 80 apart; the second field is written 3 further
    # and a neighbour 80 = 4 sigma away adds exp(-8)
    assert flow[0, 1, 0, 40, 40] == pytest.approx(3, abs=0.01)
    assert flow[0, 2, 0, 40, 43] == pytest.approx(3, abs=0.01)
    assert flow[0, 1, 0, 80, 80] < 2
    assert (flow[:, 0] == 0).all()


def test_saved_models_load_and_render_alike(dragnuwa, tmp_path):
    frames, flow = make_input(1)
    dragnuwa.save(tmp_path / "ours")
    again = load_video_model(tmp_path / "ours")
    assert again.unet.flow_channels == 2
    first = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=2)(frames, flow)
    second = DragNUWARenderer(again, n_frames=3, num_steps=2)(frames, flow)
    np.testing.assert_allclose(second, first, atol=1e-5)


def test_stock_generator_and_time_to_move(stock):
    frames, flow = make_input(1)
    plain = ImageToVideoRenderer(stock, num_steps=3)(frames, flow)
    assert plain.shape == (1, 3, 3, 64, 64)
    np.testing.assert_array_equal(ImageToVideoRenderer(stock, num_steps=3)(frames, -flow), plain)
    steered = TimeToMoveRenderer(stock, num_steps=3, weak_step=1, strong_step=2)
    one, other = steered(frames, flow), steered(frames, -flow)
    assert one.shape == (1, 3, 3, 64, 64)
    assert np.abs(one - other).max() > 1e-3


def test_time_to_move_keeps_the_guide_where_motion_is_prescribed(stock):
    """With both clocks at the last step, the prescribed region is the guide at that noise."""
    from brainnrds.reanimation.time_to_move import _prescribed

    fields = np.zeros((1, 2, 2, 64, 64), np.float32)
    fields[0, :, 0, 16:32, 8:24] = 8
    mask = _prescribed(fields, 1.0, (8, 8))
    assert mask.shape == (1, 3, 1, 8, 8)
    assert (mask[0, 0, 0, 2:4, 1:3] == 1).all() and mask[0, 0, 0].sum() == 4
    assert (mask[0, -1, 0, 2:4, 1:4] == 1).all() and mask[0, -1, 0, :, 6:].sum() == 0
    pan = np.full((1, 2, 2, 64, 64), 4, np.float32)
    assert (_prescribed(pan, 1.0, (8, 8)) == 1).all()


def test_stock_path_agrees_with_diffusers_pipeline(folders, stock):
    """Conditioning, order, guidance, schedule and decoding, against the published pipeline."""
    from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline
    from diffusers import UNetSpatioTemporalConditionModel as Unet
    from PIL import Image
    from transformers import CLIPImageProcessor

    unet = Unet.from_pretrained(folders[0] / "unet").eval()
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.GroupNorm) and "attentions" not in name:
            module.eps = 1e-5
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        steps_offset=1,
        interpolation_type="linear",
    )
    pipeline = StableVideoDiffusionPipeline(
        stock.vae, stock.image_encoder, unet, scheduler, CLIPImageProcessor()
    )
    pipeline.set_progress_bar_config(disable=True)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    noise, _ = svd_module.make_noise([0], 3, (8, 8), (64, 64))
    expected = pipeline(
        Image.fromarray(image),
        height=64,
        width=64,
        num_frames=3,
        num_inference_steps=3,
        fps=7,
        motion_bucket_id=127,
        noise_aug_strength=0.0,
        latents=noise,
        output_type="pt",
    ).frames
    # three frames at the 7 frames per second that the pipeline is told
    renderer = ImageToVideoRenderer(stock, num_steps=3, noise_level=0.0, duration=3 / 7)
    frame = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    got = renderer(frame, np.zeros((1, 2, 2, 8, 8), np.float32), seeds=np.array([0]))
    np.testing.assert_allclose(got, expected.numpy(), atol=2e-4)


def test_clip_image_is_shrunk_as_in_the_published_pipeline():
    from diffusers.pipelines.stable_video_diffusion import (
        pipeline_stable_video_diffusion as published,
    )

    frames = torch.rand(2, 3, 320, 576) * 2 - 1
    expected = published._resize_with_antialiasing(frames, (224, 224))
    torch.testing.assert_close(svd_module._shrink_for_clip(frames), expected)


def test_other_frame_sizes_are_resized_and_flow_rescaled(dragnuwa):
    frames, flow = make_input(1, (60, 70))
    with pytest.warns(UserWarning, match=r"resized to \(64, 64\)"):
        clips = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=1)(frames, flow)
    assert clips.shape == (1, 3, 3, 60, 70)
    covered = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=1, size=(64, 128))(frames, flow)
    assert covered.shape == (1, 3, 3, 64, 128)
    with pytest.raises(ValueError, match="multiples of 64"):
        DragNUWARenderer(dragnuwa, size=(60, 64))(frames, flow)


def test_short_memory_halves_the_batch_then_offloads(dragnuwa, monkeypatch):
    frames, flow = make_input(2)
    renderer = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=1, batch_size=2)
    expected = renderer(frames, flow)
    failures = iter([True, True, False, False, False, False])
    decode = dragnuwa.decode

    def short(*args, **kwargs):
        if next(failures):
            raise torch.cuda.OutOfMemoryError("planted")
        return decode(*args, **kwargs)

    monkeypatch.setattr(dragnuwa, "decode", short)
    monkeypatch.setattr(dragnuwa, "offload", False)
    with pytest.warns(UserWarning) as caught:
        clips = renderer(frames, flow)
    assert [str(w.message).split(":")[1][:15] for w in caught] == [
        " batches of 1 n",
        " networks wait ",
    ]
    np.testing.assert_allclose(clips, expected, atol=2e-3)  # other batches, other summation


def test_wrong_models_for_a_renderer_are_refused(dragnuwa, stock):
    frames, flow = make_input(1)
    with pytest.raises(ValueError, match="must have a flow branch"):
        DragNUWARenderer(stock)(frames, flow)
    with pytest.raises(ValueError, match="must be stock"):
        ImageToVideoRenderer(dragnuwa)(frames, flow)
    with pytest.raises(ValueError, match="must be stock"):
        TimeToMoveRenderer(dragnuwa)(frames, flow)
    with pytest.raises(ValueError, match="`reference` must be"):
        DragNUWARenderer(dragnuwa, reference="last")(frames, flow)
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        DragNUWARenderer(dragnuwa)(frames * 255, flow)


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


def test_renderers_say_how_they_sample_and_are_shared(dragnuwa, stock):
    from sklearn.base import clone

    from brainnrds.reanimation import Reanimator

    renderer = DragNUWARenderer(dragnuwa, num_steps=3)
    assert clone(Reanimator(renderer=renderer)).renderer is renderer
    assert renderer.sampling.num_steps == 3 and renderer.sampling.max_guidance == 2.5
    assert TimeToMoveRenderer(stock).sampling.num_steps == 50
    assert "num_steps=3" in repr(renderer) and "reference='consecutive'" in repr(renderer)
    with pytest.raises(TypeError, match="n_step"):
        DragNUWARenderer(dragnuwa, n_step=3)
    with pytest.raises(ValueError, match="`duration` must be positive"):
        ImageToVideoRenderer(stock, duration=0)
    with pytest.raises(ValueError, match="`n_frames` must be at least 2"):
        ImageToVideoRenderer(stock, n_frames=1)


@pytest.mark.parametrize("duration", [0.72, 1.0, 2.0])
def test_every_renderer_moves_at_the_speed_of_the_film(dragnuwa, stock, monkeypatch, duration):
    """What the networks, or the splatted guide, are given for a pan of known px/s."""
    n_frames, n_steps, speed = 4, 3, 24.0
    flow = np.zeros((1, n_steps, 2, 8, 8), np.float32)
    flow[:, :, 0] = speed * duration / n_steps / 8  # cells of 8 px
    frames = make_input(1)[0]
    conditions, guides, told = [], [], []
    encode_flow, encode_clips = dragnuwa.unet.encode_flow, stock.encode_clips
    monkeypatch.setattr(
        dragnuwa.unet, "encode_flow", lambda f: conditions.append(f) or encode_flow(f)
    )
    monkeypatch.setattr(stock, "encode_clips", lambda c: guides.append(c) or encode_clips(c))
    sample = svd_module.sample_video_latents
    monkeypatch.setattr(
        svd_module,
        "sample_video_latents",
        lambda *a, **k: told.append(float(a[3][0, 0])) or sample(*a, **k),
    )
    options = {"n_frames": n_frames, "duration": duration, "num_steps": 2}
    DragNUWARenderer(dragnuwa, **options)(frames, flow)
    TimeToMoveRenderer(stock, weak_step=0, strong_step=1, **options)(frames, flow)
    ImageToVideoRenderer(stock, **options)(frames, flow)
    per_frame = speed * duration / n_frames
    torch.testing.assert_close(conditions[0][0, 1:, 0], torch.full((3, 64, 64), per_frame))
    expected = splat_clips(frames, np.full((1, 3, 2, 8, 8), [[[per_frame / 8]], [[0.0]]], "f4"))
    np.testing.assert_allclose(guides[0].numpy() / 2 + 0.5, expected, atol=1e-4)
    assert told == pytest.approx([4, n_frames / duration - 1, n_frames / duration - 1])


@pytest.mark.gpu
def test_half_precision_on_cuda_agrees_with_float32_on_the_cpu():
    weights = original_state_dict(**ORIGINAL)
    frames, flow = make_input(1)
    clips = []
    for device, dtype in (("cpu", "float32"), ("cuda", "float16")):
        unet = load_flow_unet(weights, config=CONFIG)
        model = VideoModel(unet, tiny_vae(), tiny_image_encoder(), device=device, dtype=dtype)
        clips.append(DragNUWARenderer(model, n_frames=3, num_steps=2)(frames, flow).ravel())
    assert np.corrcoef(*clips)[0, 1] > 0.999
