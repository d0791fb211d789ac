"""Encoders against the plain forward of transformers and timm, on tiny random models."""

import json
import shutil

import numpy as np
import pytest
import torch

from brainnrds._checks import InputError
from brainnrds.features import ImageEncoder, VideoEncoder, list_encoders, release_networks
from brainnrds.features._frames import LightPreparation
from brainnrds.features.encoders import label_of

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
VIDEO_FRAMES = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def _videomae():
    config = transformers.VideoMAEConfig(**SMALL, image_size=32, patch_size=16, num_frames=4)
    processor = transformers.VideoMAEImageProcessorPil(**VIDEO_FRAMES, **IMAGENET)
    return transformers.VideoMAEModel(config), processor


def _timesformer():
    config = transformers.TimesformerConfig(**SMALL, image_size=32, patch_size=16, num_frames=4)
    processor = transformers.VideoMAEImageProcessorPil(
        **VIDEO_FRAMES, image_mean=[0.45] * 3, image_std=[0.225] * 3
    )
    return transformers.TimesformerModel(config), processor


def _xclip():
    mit = {f"mit_{key}": value for key, value in SMALL.items()}
    config = transformers.XCLIPConfig(
        vision_config={**SMALL, **mit, "image_size": 32, "patch_size": 16, "num_frames": 4},
        text_config={**SMALL, "vocab_size": 99},
        projection_dim=32,
    )
    processor = transformers.VideoMAEImageProcessorPil(**VIDEO_FRAMES, **IMAGENET)
    return transformers.XCLIPModel(config), processor


def _vjepa2():
    config = transformers.VJEPA2Config(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        crop_size=32,
        patch_size=16,
        frames_per_clip=4,
        pred_hidden_size=48,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return transformers.VJEPA2Model(config), transformers.VJEPA2VideoProcessor(crop_size=32)


def _bit():
    return transformers.BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, resample=3, **IMAGENET
    )


def _dinov2():
    sizes = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    return transformers.Dinov2Model(config), _bit()


def _dinov2_with_registers():
    sizes = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = transformers.Dinov2WithRegistersConfig(**sizes, image_size=28, patch_size=14)
    return transformers.Dinov2WithRegistersModel(config), _bit()


def _clip():
    config = transformers.CLIPVisionConfig(**SMALL, image_size=32, patch_size=16, projection_dim=8)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return transformers.CLIPVisionModelWithProjection(config), processor


def _siglip():
    config = transformers.SiglipVisionConfig(**SMALL, image_size=32, patch_size=16)
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return transformers.SiglipVisionModel(config), processor


def _vit():
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=16)
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, **IMAGENET)
    return transformers.ViTModel(config, add_pooling_layer=False), processor


def _hiera():
    config = transformers.HieraConfig(
        embed_dim=16, image_size=[64, 64], depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]
    )
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}, resample=3, **IMAGENET
    )
    return transformers.HieraModel(config, add_pooling_layer=False), processor


def _convnext():
    config = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16])
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64}, **IMAGENET)
    return transformers.ConvNextModel(config), processor


def _resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1]
    )
    processor = transformers.ConvNextImageProcessorPil(
        size={"shortest_edge": 64}, crop_pct=0.9, **IMAGENET
    )
    return transformers.ResNetModel(config), processor


VIDEO = {"videomae": _videomae, "timesformer": _timesformer, "xclip": _xclip, "vjepa2": _vjepa2}
IMAGE = {
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2_with_registers,
    "clip": _clip,
    "siglip": _siglip,
    "vit": _vit,
    "hiera": _hiera,
    "convnext": _convnext,
    "resnet": _resnet,
}
TIMM = {
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 24]}),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 48}),
    "resnet": ("resnet10t", {}),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The same thread count on both sides, and no loaded networks left behind."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)
    release_networks()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a function family -> (folder, plain model, processor), built once."""
    made = {}

    def make(family):
        if family not in made:
            torch.manual_seed(0)
            model, processor = (VIDEO | IMAGE)[family]()
            model = model.eval()
            folder = tmp_path_factory.mktemp(family)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[family] = folder, model, processor
        return made[family]

    return make


@pytest.fixture(scope="module")
def tiny_timm(tmp_path_factory):
    """Return a function name -> (folder, plain model, transform) in the hub's layout of timm."""
    from safetensors.torch import save_file

    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            architecture, options = TIMM[name]
            model = timm.create_model(architecture, pretrained=False, num_classes=7, **options)
            model = model.eval()
            side = 32 if name == "vit" else 64
            pretrained = {
                "input_size": [3, side, side],
                "crop_pct": 0.9,
                "crop_mode": "center",
                "interpolation": "bicubic",
                "mean": [0.48, 0.46, 0.41],
                "std": [0.27, 0.26, 0.28],
                "num_classes": 7,
            }
            folder = tmp_path_factory.mktemp(f"timm-{name}")
            config = {
                "architecture": architecture,
                "num_classes": 7,
                "model_args": options,
                "pretrained_cfg": pretrained,
            }
            (folder / "config.json").write_text(json.dumps(config))
            save_file(model.state_dict(), folder / "model.safetensors")
            transform = timm.data.create_transform(
                **timm.data.resolve_data_config(pretrained_cfg=pretrained), is_training=False
            )
            made[name] = folder, model, transform
        return made[name]

    return make


@pytest.fixture(scope="module")
def clips():
    """Smooth 8-bit clips, wider than high, with odd sizes: margins that do not split evenly."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(size=(12, 3, 11, 15))
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size=(75, 101), mode="bicubic", align_corners=False
    )
    frames = (smooth.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return frames.reshape(3, 4, 3, 75, 101)


def _plain_pixels(processor, clip):
    frames = [frame.transpose(1, 2, 0) for frame in clip]
    return processor(frames, return_tensors="pt")


def _plain_video(family, model, processor, clip):
    """Return pixel values and the model's output, in the words of each model's documentation."""
    inputs = _plain_pixels(processor, clip)
    if family == "vjepa2":
        return inputs["pixel_values_videos"], model(
            **inputs, skip_predictor=True, output_hidden_states=True
        )
    pixels = inputs["pixel_values"]
    if family == "xclip":
        return pixels, model.vision_model(pixels.flatten(0, 1), output_hidden_states=True)
    return pixels, model(pixel_values=pixels, output_hidden_states=True)


def _plain_mean(family, hidden):
    """Return the mean over patches of one clip's hidden states, without class tokens."""
    if family == "xclip":
        return hidden[:, 1:].mean((0, 1))
    if family == "timesformer":
        return hidden[0, 1:].mean(0)
    return hidden[0].mean(0)


@pytest.mark.parametrize("family", VIDEO)
def test_video_encoder_equals_the_plain_forward(family, tiny, clips):
    folder, model, processor = tiny(family)
    features = VideoEncoder(folder, layers=["output", 1], batch_size=2).transform(clips / 255.0)
    expected = []
    for clip in clips:
        with torch.inference_mode():
            _, output = _plain_video(family, model, processor, clip)
        hidden = output.last_hidden_state, output.hidden_states[2]
        expected.append(torch.cat([_plain_mean(family, h) for h in hidden]).numpy())
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", IMAGE)
def test_image_encoder_equals_the_plain_forward(family, tiny, clips):
    folder, model, processor = tiny(family)
    features = ImageEncoder(folder, layers=["output", 1], batch_size=5).transform(clips)
    expected = []
    for clip in clips:
        pixels = _plain_pixels(processor, clip)["pixel_values"]
        with torch.inference_mode():
            output = model(pixel_values=pixels, output_hidden_states=True)
        for hidden in (output.last_hidden_state, output.hidden_states[2]):
            if hidden.ndim == 4:
                mean = hidden.mean((2, 3))
            else:
                n_prefix = {"siglip": 0, "hiera": 0, "dinov2_with_registers": 5}.get(family, 1)
                mean = hidden[:, n_prefix:].mean(1)
            expected.append(mean.mean(0).numpy())
    expected = [np.concatenate(pair) for pair in zip(expected[::2], expected[1::2], strict=True)]
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", VIDEO | IMAGE)
def test_frames_equal_those_of_the_processor(family, tiny, clips):
    folder, _, processor = tiny(family)
    encoder = (VideoEncoder if family in VIDEO else ImageEncoder)(folder)
    preparation = encoder.frame_preparation()
    for size in ((75, 101), (101, 75), (40, 41), (20, 33)):
        clip = torch.nn.functional.interpolate(torch.from_numpy(clips[0]), size=size).numpy()
        plain = _plain_pixels(processor, clip)
        plain = plain.get("pixel_values", plain.get("pixel_values_videos"))
        ours = np.stack([preparation(frame.transpose(1, 2, 0)) for frame in clip])
        ours = preparation.normalise(torch.from_numpy(ours))
        torch.testing.assert_close(ours, plain.reshape(ours.shape), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "family, part", [("videomae", "video_processor"), ("dinov2", "image_processor")]
)
def test_processors_may_stand_in_one_file(family, part, tiny, tmp_path):
    encoder = VideoEncoder if family in VIDEO else ImageEncoder
    folder, _, _ = tiny(family)
    together = tmp_path / "together"
    shutil.copytree(folder, together)
    (alone,) = together.glob("*preprocessor_config.json")
    processors = {part: json.loads(alone.read_text()), "tokenizer": {"size": 1}}
    (together / "processor_config.json").write_text(json.dumps(processors))
    alone.unlink()
    assert encoder(together).frame_preparation() == encoder(folder).frame_preparation()
    (together / "processor_config.json").write_text(json.dumps({"tokenizer": {"size": 1}}))
    with pytest.raises(FileNotFoundError, match="preprocessor_config.json is missing"):
        encoder(together).frame_preparation()


@pytest.mark.parametrize("name", TIMM)
def test_timm_equals_the_plain_forward_and_transform(name, tiny_timm, clips):
    from PIL import Image

    folder, model, transform = tiny_timm(name)
    encoder = ImageEncoder(folder, layers=["output", "embedding"])
    features = encoder.transform(clips)
    for i_clip, clip in enumerate(clips):
        frames = [transform(Image.fromarray(frame.transpose(1, 2, 0))) for frame in clip]
        with torch.inference_mode():
            output = model.forward_features(torch.stack(frames))
            logits = model(torch.stack(frames)).mean(0)
        mean = output[:, 1:].mean((0, 1)) if name == "vit" else output.mean((0, 2, 3))
        expected = torch.cat([mean, logits]).numpy()
        np.testing.assert_allclose(features[i_clip], expected, atol=1e-5, rtol=0)


def test_vc1_is_the_class_token_of_a_vit(tmp_path, clips, monkeypatch):
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", num_classes=0, depth=1).eval()
    state = {
        **model.state_dict(),
        "mask_token": torch.zeros(1),
        "decoder_embed.weight": torch.eye(2),
    }
    torch.save({"model": state}, tmp_path / "vc1_vitb.pth")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: create(name, depth=1, **kw))
    encoder = ImageEncoder(tmp_path, layers="embedding", sampling="first")
    features = encoder.transform(clips[:1])
    preparation = encoder.frame_preparation()
    pixels = preparation.normalise(torch.from_numpy(preparation(clips[0, 0].transpose(1, 2, 0))))
    with torch.inference_mode():
        expected = model.forward_features(pixels[None])[:, 0]
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5, rtol=0)


def test_embeddings_equal_the_plain_projections(tiny, clips):
    folder, model, processor = tiny("clip")
    pixels = _plain_pixels(processor, clips[0])["pixel_values"]
    with torch.inference_mode():
        expected = model(pixel_values=pixels).image_embeds.mean(0).numpy()
    features = ImageEncoder(folder, layers="embedding").transform(clips[:1])
    np.testing.assert_allclose(features[0], expected, atol=1e-5, rtol=0)

    folder, model, processor = tiny("xclip")
    pixels = _plain_pixels(processor, clips[0])["pixel_values"]
    with torch.inference_mode():
        expected = model.get_video_features(pixel_values=pixels).pooler_output.numpy()
    features = VideoEncoder(folder, layers="embedding").transform(clips[:1])
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)


def test_pooling_of_a_class_token(tiny, clips):
    folder, model, processor = tiny("dinov2")
    pixels = _plain_pixels(processor, clips[0, :1])["pixel_values"]
    with torch.inference_mode():
        hidden = model(pixel_values=pixels).last_hidden_state
    features = ImageEncoder(folder, pooling="cls", sampling="first").transform(clips[:1])
    np.testing.assert_allclose(features, hidden[:, 0].numpy(), atol=1e-5, rtol=0)
    folder, _, _ = tiny("videomae")
    with pytest.raises(ValueError, match="videomae has no class token"):
        VideoEncoder(folder, pooling="cls").transform(clips)


@pytest.mark.parametrize("family", VIDEO | IMAGE)
def test_grid_has_the_mean_of_the_patches_and_their_places(family, tiny, clips):
    folder, _, _ = tiny(family)
    encoder = (VideoEncoder if family in VIDEO else ImageEncoder)(folder, framing="whole")
    mean = encoder.transform(clips)
    grid = encoder.set_params(pooling="grid").transform(clips)
    assert grid.ndim == 4 and grid.shape[:2] == mean.shape
    np.testing.assert_allclose(grid.mean((2, 3)), mean, atol=1e-5)


@pytest.mark.parametrize("family", VIDEO | IMAGE)
def test_grid_cells_lie_where_their_patches_are(family, tiny):
    """What changes most is the cell of the patch that changed: neither mirrored nor transposed."""
    folder, _, _ = tiny(family)
    encoder = (VideoEncoder if family in VIDEO else ImageEncoder)(
        folder, framing="whole", pooling="grid", layers=0
    )
    side = {"dinov2": 28, "dinov2_with_registers": 28, "hiera": 64, "convnext": 64, "resnet": 64}
    side = side.get(family, 32)
    rng = np.random.default_rng(0)
    clip = np.repeat(rng.integers(0, 256, (1, 1, 3, side, side), dtype=np.uint8), 4, axis=1)
    changed = clip.copy()
    changed[..., : side // 2, side // 2 :] ^= 255
    difference = np.abs(encoder.transform(changed) - encoder.transform(clip)).mean((0, 1))
    rows, columns = np.array(difference.shape) // 2
    upper_right = difference[:rows, columns:].mean()
    others = (difference.sum() - difference[:rows, columns:].sum()) / (3 * rows * columns)
    assert upper_right > 2 * others


def test_uniform_sampling_pads_short_clips_and_all_covers_long_ones(tiny, clips):
    folder, _, _ = tiny("videomae")
    encoder = VideoEncoder(folder)
    short = encoder.transform(clips[:, :2])
    np.testing.assert_array_equal(short, encoder.transform(clips[:, [0, 0, 1, 1]]))
    single = encoder.transform(clips[:, :1])
    np.testing.assert_array_equal(single, encoder.transform(clips[:, [0, 0, 0, 0]]))
    long = np.concatenate([clips[:1], clips[1:2], clips[2:]], axis=1)  # one clip of 12 frames
    windows = encoder.transform(clips)
    average = encoder.set_params(sampling="all").transform(long)
    np.testing.assert_allclose(average[0], windows.mean(0), atol=1e-6)
    # ten frames: the last window ends with the clip
    average = encoder.transform(long[:, :10])
    expected = encoder.transform(np.concatenate([long[:, :4], long[:, 4:8], long[:, 6:10]]))
    np.testing.assert_allclose(average[0], expected.mean(0), atol=1e-6)


def test_image_sampling_takes_the_frames_it_says(tiny, clips):
    folder, _, _ = tiny("dinov2")
    encoder = ImageEncoder(folder)
    frames = encoder.transform(clips.reshape(12, 1, 3, 75, 101)).reshape(3, 4, -1)
    np.testing.assert_allclose(encoder.transform(clips), frames.mean(1), atol=1e-6)
    first = encoder.set_params(sampling="first").transform(clips)
    np.testing.assert_allclose(first, frames[:, 0], atol=1e-6)
    middle = encoder.set_params(sampling="middle").transform(clips)
    np.testing.assert_allclose(middle, frames[:, 2], atol=1e-6)


def test_frame_times_are_within_the_clip(tiny):
    folder, _, _ = tiny("videomae")
    np.testing.assert_allclose(VideoEncoder(folder).frame_times(2.0), [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(VideoEncoder(folder, fps=2).frame_times(2.0), [0, 0.5, 1, 1.5])
    folder, _, _ = tiny("dinov2")
    np.testing.assert_allclose(ImageEncoder(folder).frame_times(1.0), [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(ImageEncoder(folder, sampling="middle").frame_times(2.0), [1])


def test_image_size_gives_the_decoder_a_finer_grid(tiny, clips):
    folder, _, _ = tiny("dinov2")
    encoder = ImageEncoder(
        folder, image_size=14 * 8, framing="whole", pooling="grid", sampling="first"
    )
    assert encoder.transform(clips).shape == (3, 32, 8, 8)
    folder, _, _ = tiny("hiera")
    with pytest.raises(ValueError, match="hiera takes its own size only"):
        ImageEncoder(folder, image_size=128).transform(clips)


def test_layers_become_feature_spaces(tiny, clips):
    folder, _, _ = tiny("videomae")
    encoder = VideoEncoder(folder, layers=[0, "output", "encoder.layer.1"])
    spaces = encoder.feature_spaces()
    assert spaces == {
        "block0": slice(0, 32),
        "output": slice(32, 64),
        "encoderlayer1": slice(64, 96),
    }
    features = encoder.transform(clips)
    alone = VideoEncoder(folder, layers=1).transform(clips)
    np.testing.assert_array_equal(features[:, spaces["encoderlayer1"]], alone)
    assert label_of(-2) == "blockminus2"


def test_batches_do_not_change_the_features(tiny, clips):
    folder, _, _ = tiny("videomae")
    one = VideoEncoder(folder, batch_size=1).transform(clips)
    many = VideoEncoder(folder, batch_size=64).transform(iter(clips))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_description_follows_content_not_place(tiny, tmp_path):
    folder, _, _ = tiny("videomae")
    shutil.copytree(folder, tmp_path / "copy")
    first = VideoEncoder(folder, device="cpu", batch_size=2).describe()
    second = VideoEncoder(tmp_path / "copy", batch_size=4).describe()
    assert first == second
    assert (
        first["precision"] == "float32" and len(first["weights_sha256"]["model.safetensors"]) == 64
    )
    assert VideoEncoder(folder, layers=0).describe() != first
    json.dumps(first)


# --- input that is refused


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(ValueError, match="Did you mean videomae-large"):
        VideoEncoder("videomae-lrge").transform([])


def test_a_video_network_is_no_image_encoder(tiny):
    folder, _, _ = tiny("videomae")
    with pytest.raises(ValueError, match="use VideoEncoder"):
        ImageEncoder(folder).transform([])
    with pytest.raises(ValueError, match="use ImageEncoder"):  # before weights are asked for
        VideoEncoder("dinov2-base").fit()
    with pytest.raises(ValueError, match="`kind` must be"):
        list_encoders("videos")


def test_missing_weights_say_which_file_and_how_to_fetch_it(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        VideoEncoder("videomae-large").describe()
    message = str(error.value)
    assert "model.safetensors of MCG-NJU/videomae-large" in message
    assert "hf download MCG-NJU/videomae-large" in message and "\n" not in message


def _cache(tmp_path, folder, commit):
    """Lay a model folder out as the hub's cache does."""
    from brainnrds._files import hash_file

    repository = tmp_path / "models--lab--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            blob = repository / "blobs" / hash_file(path)
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(blob)
        else:
            shutil.copy(path, snapshot / path.name)
    return snapshot


def test_hub_cache_revisions_and_damage(tiny, tmp_path, monkeypatch, clips):
    import huggingface_hub

    folder, _, _ = tiny("videomae")
    commit = "a" * 40
    snapshot = _cache(tmp_path, folder, commit)
    for module in (huggingface_hub.constants, huggingface_hub._snapshot_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path))
    encoder = VideoEncoder("lab/tiny")
    assert encoder.describe()["revision"] == commit
    np.testing.assert_array_equal(encoder.transform(clips), VideoEncoder(folder).transform(clips))
    with pytest.raises(FileNotFoundError, match=f"revision {'b' * 40}.*the cache holds {commit}"):
        VideoEncoder("lab/tiny", revision="b" * 40).describe()
    blob = (snapshot / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ValueError, match="are damaged: SHA-256 .* --force-download"):
        VideoEncoder("lab/tiny").describe()


def test_truncated_missing_and_foreign_weights(tiny, tmp_path, clips):
    folder, _, _ = tiny("videomae")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    content = (folder / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="are damaged or do not fit videomae"):
        VideoEncoder(broken).transform(clips)
    (broken / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        VideoEncoder(broken).transform(clips)
    other, _, _ = tiny("dinov2")
    shutil.copy(other / "model.safetensors", broken / "model.safetensors")
    with pytest.raises(ValueError, match="missing or mis-sized"):
        VideoEncoder(broken).transform(clips)
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="preprocessor_config.json is missing"):
        VideoEncoder(broken).transform(clips)
    config = {"model_type": "t5"}
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="must describe one of the families"):
        VideoEncoder(broken).transform(clips)


DEEP = "[" * 100_000 + "]" * 100_000
NETWORK = "vit"


def _with(text, **changes):
    return json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda text: "[]", "must hold a JSON object; got list"),
        ("config.json", lambda text: DEEP, "must be a readable JSON file"),
        ("config.json", lambda text: "\x00", "must be a readable JSON file"),
        ("config.json", lambda text: _with(text, patch_size=0), "damaged or do not fit"),
        ("config.json", lambda text: _with(text, patch_size=-8), "damaged or do not fit"),
        ("config.json", lambda text: _with(text, hidden_size="big"), "damaged or do not fit"),
        ("config.json", lambda text: _with(text, model_type=["vit"]), "one of the families"),
        ("config.json", lambda text: '{"architecture": "vit_tiny"}', "must describe a network"),
        ("preprocessor_config.json", lambda text: "[1]", "must hold a JSON object; got list"),
        (
            "preprocessor_config.json",
            lambda text: _with(text, size={"height": 10**6, "width": 10**6}),
            "cropped to 1 to 8192 px",
        ),
        ("preprocessor_config.json", lambda text: _with(text, size={}), "must describe a network"),
        ("preprocessor_config.json", lambda text: _with(text, size="x"), "must describe a network"),
        ("preprocessor_config.json", lambda text: _with(text, resample=99), "must describe a netw"),
        (
            "preprocessor_config.json",
            lambda text: _with(text, image_std=[0, 1, 1]),
            "must be scaled by finite numbers",
        ),
        (
            "preprocessor_config.json",
            lambda text: _with(text, image_mean=["a", 1, 1]),
            "must describe a network",
        ),
    ],
)
def test_files_beside_the_weights_that_make_no_sense(tiny, tmp_path, clips, name, change, message):
    folder, _, _ = tiny(NETWORK)
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / name).write_text(change((broken / name).read_text()))
    with pytest.raises(InputError, match=message) as error:
        ImageEncoder(broken).transform(clips)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("index", [{}, {"weight_map": [1]}, {"weight_map": {"a": 1, "b": "x"}}])
def test_an_index_that_names_no_files(tiny, tmp_path, clips, index):
    folder, _, _ = tiny(NETWORK)
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must say in which files the weights are"):
        ImageEncoder(broken).transform(clips)
    away = {"weight_map": {"a": "../secret.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(away))
    with pytest.raises(InputError, match="must say in which files the weights are"):
        ImageEncoder(broken).transform(clips)


@pytest.mark.parametrize("config", ["timm", "vc1"])
def test_weights_that_are_no_parameters(tiny_timm, tmp_path, clips, config):
    if config == "timm":
        folder = shutil.copytree(tiny_timm("vit")[0], tmp_path / "broken")
        (folder / "model.safetensors").unlink()
        torch.save([1], folder / "pytorch_model.bin")
    else:
        folder = tmp_path / "broken"
        folder.mkdir()
        torch.save([1], folder / "vc1_vitb.pth")
    with pytest.raises(InputError, match="are damaged or do not fit|must hold a dict of tensors"):
        ImageEncoder(folder).transform(clips)


def test_bad_clips_and_options(tiny, clips):
    folder, _, _ = tiny("videomae")
    with pytest.raises(ValueError, match="must lie in \\[0, 1\\]"):
        VideoEncoder(folder).transform(clips.astype(np.float32))
    with pytest.raises(ValueError, match="at least one clip"):
        VideoEncoder(folder).transform([])
    with pytest.raises(ValueError, match="block numbers from 0 to 2"):
        VideoEncoder(folder, layers=9).transform(clips)
    with pytest.raises(ValueError, match="Its parts: embeddings, encoder"):
        VideoEncoder(folder, layers="nowhere").transform(clips)
    with pytest.raises(ValueError, match="videomae takes 4 frames"):
        VideoEncoder(folder, n_frames=8).transform(clips)
    for option in ("pooling", "sampling", "framing", "precision"):
        with pytest.raises(ValueError, match=f"`{option}` must be"):
            VideoEncoder(folder, **{option: "odd"}).transform(clips)


def test_table_is_complete():
    from brainnrds.features._networks import FAMILIES

    table = list_encoders()
    assert {"videomae-large", "clip-convnext-base", "dinov2-base", "vc1-large"} <= set(table.index)
    for _, row in table.iterrows():
        assert row["kind"] == FAMILIES[row["family"]].kind
        assert row["hub_id"].count("/") == 1
        if row["kind"] in ("video", "image"):
            assert len(row["mean"]) == len(row["std"]) == 3
        # a pinned revision is a full commit: never a guess
        assert row["revision"] is None or len(row["revision"]) == 40
    assert set(list_encoders("video")["kind"]) == {"video"}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("family", ["videomae", "dinov2"])
def test_frames_that_a_gpu_resizes_give_the_same_features(family, device, tiny):
    folder, _, _ = tiny(family)
    kind = VideoEncoder if family in VIDEO else ImageEncoder
    encoder = kind(folder, precision="float32", device=device)
    light = encoder.light_preparation()
    assert (light == encoder.frame_preparation()) == (device == "cpu")
    light = LightPreparation(encoder.frame_preparation())
    frames = np.random.default_rng(0).integers(0, 256, (16, 50, 60, 3), dtype=np.uint8)
    whole = np.stack([light(frame) for frame in frames])
    np.testing.assert_array_equal(whole, frames)
    expected = encoder.transform([frames.transpose(0, 3, 1, 2)])
    np.testing.assert_array_equal(encoder.encode([whole]), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["videomae", "dinov2"])
def test_gpu_agrees_with_the_cpu(family, tiny, clips):
    folder, _, _ = tiny(family)
    encoder = (VideoEncoder if family in VIDEO else ImageEncoder)(folder, precision="float32")
    expected = encoder.transform(clips)
    exact = encoder.set_params(device="cuda", batch_size=1).transform(clips)
    np.testing.assert_allclose(exact, expected, atol=1e-3)
    half = encoder.set_params(precision="bfloat16").transform(clips)
    assert np.corrcoef(half.ravel(), expected.ravel())[0, 1] > 0.999
