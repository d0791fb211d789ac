"""The diffusion renderers end to end with tiny random networks: saved, loaded, refused."""

import numpy as np
import pytest
import torch
from tiny_svd import CONFIG, ORIGINAL, make_input, tiny_image_encoder, tiny_vae
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
from brainnrds.reanimation.warp import splat_clips

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_saved_models_load_and_render_alike(dragnuwa, tmp_path):
    frames, flow = make_input(1)
    dragnuwa.save(tmp_path / "ours")
    again = load_video_model(tmp_path / "ours")
    assert again.unet.flow_channels == 2
    first = DragNUWARenderer(dragnuwa, n_frames=3, num_steps=2)(frames, flow)
    second = DragNUWARenderer(again, n_frames=3, num_steps=2)(frames, flow)
    np.testing.assert_allclose(second, first, atol=1e-5)


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
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="`cache_steps` must be an int of 1 or more"):
            ImageToVideoRenderer(stock, cache_steps=wrong)


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
