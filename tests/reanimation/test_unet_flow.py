"""The UNet against the original's steps, against diffusers, and its strict loading."""

import numpy as np
import pytest
import torch
from video_unet_reference import diffusers_config, original_state_dict, video_unet

from brainnrds.reanimation import _unet_flow, load_flow_unet, sample_video_latents, sparse_flow
from brainnrds.reanimation._weights import original_names, unet_from_named

WIDTHS, HEADS, CONTEXT, ID_DIM = (32, 64, 96, 96), (1, 2, 3, 3), 24, 16
SIZES = {"widths": WIDTHS, "context": CONTEXT, "id_dim": ID_DIM, "heads": HEADS}
CONFIG = diffusers_config(**SIZES)


def make_weights(**changes):
    return original_state_dict(**{**SIZES, **changes})


def make_inputs(n_videos=2, n_frames=3, flow_channels=2, height=8, width=16, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    flow = 6 * randn(n_videos, n_frames, flow_channels, 8 * height, 8 * width)
    flow[:, 0] = 0
    return {
        "sample": randn(n_videos, n_frames, 8, height, width),
        "timestep": torch.tensor([1.3, -0.7])[:n_videos],
        "encoder_hidden_states": randn(n_videos, 1, CONTEXT),
        "added_time_ids": torch.tensor([[4.0, 30.0, 0.02], [7.0, 5.5, 0.1]])[:n_videos],
        "flow": flow,
    }


def reference(weights, inputs):
    return video_unet(
        weights,
        inputs["sample"],
        inputs["timestep"],
        inputs["encoder_hidden_states"],
        inputs["added_time_ids"],
        inputs["flow"],
        heads=HEADS,
        id_dim=ID_DIM,
    )


@pytest.fixture(scope="module")
def weights():
    return make_weights(lora=4)


@pytest.fixture(scope="module")
def unet(weights):
    return load_flow_unet(weights, config=CONFIG)


def test_agrees_with_the_original_step_by_step(unet, weights):
    inputs = make_inputs()
    expected = reference(weights, inputs)
    got = unet(**inputs).sample
    assert got.shape == (2, 3, 4, 8, 16)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 2e-5


def test_folded_weights_load_alike(unet, weights):
    prefix = "model.diffusion_model."
    folded = {}
    for key, tensor in weights.items():
        if ".lora_" in key:
            continue
        if key.endswith(".linear.weight"):
            stem = key[: -len(".linear.weight")]
            low = weights[f"{stem}.lora_up.weight"].double() @ (
                weights[f"{stem}.lora_down.weight"].double()
            )
            folded[f"{stem}.weight"] = (tensor.double() + low).float()
        else:
            folded[key.replace(".linear.bias", ".bias")] = tensor
    assert not any("lora" in k or ".linear." in k for k in folded)
    other = load_flow_unet(folded, config=CONFIG)
    inputs = make_inputs()
    assert (unet(**inputs).sample - other(**inputs).sample).abs().max() < 2e-5
    assert all(key.startswith(prefix) for key in folded)


def test_other_groups_of_the_checkpoint_are_ignored(weights):
    more = {
        **weights,
        "first_stage_model.decoder.conv_in.weight": torch.zeros(1),
        "conditioner.embedders.0.open_clip.model.logit_scale": torch.zeros(1),
        "guassian_filter.weight": torch.zeros(2, 1, 199, 199),
    }
    load_flow_unet(more, config=CONFIG)


def test_motionpro_reads_a_third_channel():
    weights = make_weights(flow_channels=3, seed=3)
    inputs = make_inputs(flow_channels=3)
    unet = load_flow_unet(weights, config=CONFIG)
    assert unet.flow_channels == 3
    assert (unet(**inputs).sample - reference(weights, inputs)).abs().max() < 2e-5


def test_parts_left_out_of_the_config_are_those_of_svd():
    widths, heads = (64, 64, 64, 64), (1, 1, 1, 1)
    weights = make_weights(widths=widths, heads=heads, context=1024, id_dim=256)
    unet = load_flow_unet(
        weights, config={"block_out_channels": widths, "num_attention_heads": heads}
    )
    assert unet.config["projection_class_embeddings_input_dim"] == 768
    assert unet.config["cross_attention_dim"] == (1024,) * 4


def test_names_agree_with_diffusers_at_full_width():
    diffusers = pytest.importorskip("diffusers")
    from brainnrds.reanimation._unet_flow import FlowUNet

    with torch.device("meta"):
        theirs = diffusers.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))
        ours = FlowUNet(flow_channels=0)
        with_flow = FlowUNet()
    shapes = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == shapes
    assert sum(p.numel() for p in ours.parameters()) == 1_524_623_082
    assert len(shapes) == 1428
    added = sum(p.numel() for p in with_flow.parameters()) - 1_524_623_082
    assert round(added / 1e6, 2) == 114.69
    assert len(with_flow.state_dict()) == 1548


def test_agrees_with_diffusers_once_its_epsilon_is_the_originals():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.UNetSpatioTemporalConditionModel(**CONFIG).eval()
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.GroupNorm) and "attentions" not in name:
            module.eps = 1e-5
    ours = unet_from_named(theirs.state_dict(), config=dict(theirs.config))
    inputs = make_inputs()
    inputs.pop("flow")
    with torch.no_grad():
        expected = theirs(**inputs).sample
    assert (ours(**inputs).sample - expected).abs().max() < 2e-5


def test_flow_is_encoded_once_for_both_halves(unet):
    inputs = make_inputs()
    flow = inputs.pop("flow")
    doubled = {key: torch.cat([value, value]) for key, value in inputs.items()}
    once = unet(**doubled, flow=unet.encode_flow(flow)).sample
    each = unet(**doubled, flow=torch.cat([flow, flow])).sample
    assert (once - each).abs().max() < 1e-5


def test_layout_and_fused_projections_keep_the_numbers(weights, unet):
    inputs = make_inputs()
    expected = unet(**inputs).sample
    other = load_flow_unet(weights, config=CONFIG).fuse_projections().use_channels_last()
    assert (other(**inputs).sample - expected).abs().max() < 1e-5
    again = unet_from_named(other.unfused_state_dict(), config=CONFIG)
    assert (again(**inputs).sample - expected).abs().max() < 1e-5


@pytest.mark.parametrize("n", [1, 7, 40])  # no sequence beside it; a prime number; packs of 8
def test_sequences_of_a_pack_do_not_see_each_other(n):
    generator = torch.Generator().manual_seed(n)
    q, k, v = torch.randn(3, n, 2, 14, 8, generator=generator)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
    torch.testing.assert_close(_unet_flow._attend_in_packs(q, k, v), expected)


def test_swapped_or_shifted_flow_shows(unet):
    inputs = make_inputs()
    right = unet(**inputs).sample
    for wrong in (inputs["flow"].flip(2), inputs["flow"].roll(1, 1), inputs["flow"] / 320):
        assert (unet(**{**inputs, "flow": wrong}).sample - right).abs().max() > 1e-2


def test_half_precision_stays_close(weights, unet):
    inputs = make_inputs()
    expected = unet(**inputs).sample
    half = load_flow_unet(weights, config=CONFIG).set_precision(torch.bfloat16)
    assert half.flow_blocks[0][0].weight.dtype == torch.float32
    got = half(**inputs).sample.float()
    cosine = torch.nn.functional.cosine_similarity(got.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.999


def test_every_wrong_key_is_listed(weights):
    prefix = "model.diffusion_model."
    wrong = dict(weights)
    gone = [
        f"{prefix}out.2.weight",
        f"{prefix}input_blocks.1.0.flow_beta_temporal.bias",
        f"{prefix}middle_block.1.time_stack.0.attn1.to_q.lora_up.weight",
    ]
    for key in gone:
        del wrong[key]
    wrong[f"{prefix}input_blocks.1.0.surprise"] = torch.zeros(1)
    wrong[f"{prefix}label_emb.0.0.weight"] = torch.zeros(2, 2)
    wrong[f"{prefix}flow_blocks.1.2.weight"] = torch.zeros(3, 3)
    wrong[f"{prefix}out.0.weight"] = torch.full((32,), torch.nan)
    with pytest.raises(ValueError) as error:
        load_flow_unet(wrong, config=CONFIG)
    message = str(error.value)
    for key in gone:
        assert f"missing: {key}" in message
    assert f"unknown: {prefix}input_blocks.1.0.surprise" in message
    assert f"unknown: {prefix}label_emb.0.0.linear.weight" in message
    assert f"mis-sized: {prefix}flow_blocks.1.2.weight" in message
    assert f"not finite: {prefix}out.0.weight" in message


def test_wrong_model_is_refused(weights):
    with pytest.raises(ValueError, match="mis-sized"):
        load_flow_unet(weights, config={**CONFIG, "cross_attention_dim": 32})
    with pytest.raises(ValueError, match="must hold keys that start with"):
        load_flow_unet({"conv_in.weight": torch.zeros(1)}, config=CONFIG)
    with pytest.raises(ValueError, match="unknown"):
        load_flow_unet(weights, config={**CONFIG, "widths": 3})
    stock = {k: v for k, v in weights.items() if "flow" not in k}
    with pytest.raises(ValueError, match=r"missing: model\.diffusion_model\.flow_blocks\.0\.0"):
        load_flow_unet(stock, config=CONFIG)


def test_inputs_are_checked(unet):
    inputs = make_inputs()
    with pytest.raises(ValueError, match="`flow` must have shape"):
        unet(**{**inputs, "flow": inputs["flow"][:, :-1]})
    with pytest.raises(ValueError, match="multiples of 8"):
        unet(**{**inputs, "sample": inputs["sample"][..., :12]})
    with pytest.raises(ValueError, match="`encoder_hidden_states` must have shape"):
        unet(**{**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][:, 0]})


def test_every_name_maps_to_one_name():
    from brainnrds.reanimation._unet_flow import complete_config

    names = original_names(complete_config())
    values = list(names.values())
    assert len(set(values)) == len(values)


def reference_sampler(call, image_latents, image_embedding, ids, flow, noise, *, steps, weights):
    """The rules of the sampler, in float64 and in another order of operations."""
    n_videos, n_frames = noise.shape[:2]
    low, high = 0.002 ** (1 / 7), 700.0 ** (1 / 7)
    sigmas = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    x = noise.double() * np.sqrt(1 + 700.0**2)
    guide = [weights[0] + (weights[1] - weights[0]) * i / (n_frames - 1) for i in range(n_frames)]
    guide = torch.tensor(guide, dtype=torch.float64).view(1, -1, 1, 1, 1)
    for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = []
        for given in (0.0, 1.0):
            latents = image_latents[:, None].repeat(1, n_frames, 1, 1, 1) * given
            network_in = torch.cat([(x / np.sqrt(now**2 + 1)).float(), latents], dim=2)
            level = torch.full((n_videos,), 0.25 * np.log(now), dtype=torch.float32)
            v = call(network_in, level, image_embedding * given, ids, flow).double()
            denoised.append(x / (now**2 + 1) - now / np.sqrt(now**2 + 1) * v)
        mean = denoised[0] + guide * (denoised[1] - denoised[0])
        x = x + (x - mean) / now * (after - now)
    return x.float()


def test_sampler_agrees_with_the_rules(unet, weights):
    inputs = make_inputs(n_frames=3, height=8, width=8)
    generator = torch.Generator().manual_seed(5)
    image_latents = torch.randn(2, 4, 8, 8, generator=generator)
    noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    arguments = (image_latents, inputs["encoder_hidden_states"], inputs["added_time_ids"])

    def call(sample, timestep, context, ids, flow):
        return video_unet(weights, sample, timestep, context, ids, flow, heads=HEADS, id_dim=ID_DIM)

    expected = reference_sampler(
        call, *arguments, inputs["flow"], noise, steps=5, weights=(1.0, 2.5)
    )
    got = sample_video_latents(
        unet,
        *arguments,
        inputs["flow"],
        num_steps=5,
        min_guidance=1.0,
        max_guidance=2.5,
        sigma_min=0.002,
        sigma_max=700.0,
        initial_noise=noise,
    )
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-4


def test_sampler_calls_halves_in_order_and_guides_where_asked():
    calls = []

    class Output:
        def __init__(self, sample):
            self.sample = sample

    def network(sample, timestep, encoder_hidden_states, added_time_ids, flow):
        calls.append((sample, timestep, encoder_hidden_states, added_time_ids, flow))
        return Output(torch.zeros_like(sample[:, :, :4]))

    arguments = (
        torch.ones(1, 4, 8, 8),
        torch.ones(1, 1, 6),
        torch.tensor([[4.0, 10.0, 0.02]]),
        torch.ones(1, 3, 2, 64, 64),
    )
    noise = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sample_video_latents(network, *arguments, num_steps=4, initial_noise=noise)
    sample, timestep, context, ids, flow = calls[0]
    assert sample.shape[0] == 2 and flow.shape[0] == 2 and ids.shape == (2, 3)
    assert (sample[0, :, 4:] == 0).all() and (sample[1, :, 4:] == 1).all()
    assert (context[0] == 0).all() and (context[1] == 1).all()
    torch.testing.assert_close(timestep, torch.full((2,), 0.25 * np.log(700.0)).float())
    torch.testing.assert_close(sample[1, :, :4], noise[0])  # sqrt(1 + s^2) and c_in cancel

    calls.clear()
    sample_video_latents(
        network, *arguments, num_steps=4, initial_noise=noise, guidance_sigmas=(0.0, 10.0)
    )
    n_batch = [call[0].shape[0] for call in calls]
    assert n_batch == [1, 1, 2, 2] or n_batch == [1, 2, 2, 2]


def test_outermost_layers_run_alone_on_deep_features_of_another_call(unet):
    """The oracle is the whole network whose deep features are replaced on their way."""
    then, now = make_inputs(), make_inputs(seed=2)
    now["flow"] = then["flow"]
    deep = unet(**then).deep
    torch.testing.assert_close(unet(**then, deep=deep).sample, unet(**then).sample)

    def replace(_, arguments):
        x, *others = arguments
        return torch.cat([deep, x[:, deep.shape[1] :]], dim=1), *others

    hook = unet.up_blocks[-1].resnets[-2].register_forward_pre_hook(replace)
    expected = unet(**now).sample
    hook.remove()
    got = unet(**now, deep=deep)
    torch.testing.assert_close(got.sample, expected)
    assert got.deep is deep
    assert (expected - unet(**now).sample).abs().max() > 1e-3  # it is not what all layers find


def test_sampler_computes_deep_features_where_asked(unet):
    """At every other step, and again where guidance changes how many halves there are."""
    inputs = make_inputs(n_frames=3, height=8, width=8)
    noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    arguments = (noise[:, 0], inputs["encoder_hidden_states"], inputs["added_time_ids"])

    def sample(network=unet, **options):
        return sample_video_latents(
            network, *arguments, inputs["flow"], num_steps=5, initial_noise=noise, **options
        )

    calls = []

    def network(sample, *others, deep=None, **options):
        # what is cached costs nothing where it is given
        calls.append((deep is None, len(sample)))
        return unet(sample, *others, deep=deep, **options)

    every = sample()
    sample(network, cache_steps=2)
    assert [whole for whole, _ in calls] == [True, False, True, False, True]
    calls.clear()
    sample(network, cache_steps=2, start_step=1)
    assert [whole for whole, _ in calls] == [True, False, True, False]
    calls.clear()
    sample(network, cache_steps=5, guidance_sigmas=(0.0, 10.0))
    assert calls[0] == (True, 2) and calls[-1] == (False, 4)
    assert [number for whole, number in calls if whole] == [2, 4]
    # noise level after noise level differs more: fewer whole calls, farther away
    far = [(sample(cache_steps=n) - every).abs().mean() for n in (2, 5)]
    assert 0 < far[0] < far[1] < every.abs().mean()
    with pytest.raises(ValueError, match="`cache_steps` must be an int of 1 or more"):
        sample(cache_steps=0)


def test_sparse_flow_is_the_full_kernel():
    generator = torch.Generator().manual_seed(0)
    displacement = torch.zeros(1, 2, 2, 16, 24)
    places = torch.rand(displacement.shape, generator=generator) < 0.05
    displacement[places] = 5 * torch.randn(int(places.sum()), generator=generator)
    got = sparse_flow(displacement)
    offset = torch.arange(199, dtype=torch.float64) - 99
    kernel = torch.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 20.0**2))
    kernel = kernel.expand(2, 1, 199, 199)
    expected = torch.nn.functional.conv2d(
        displacement.flatten(0, 1).double(), kernel, padding=99, groups=2
    ).view(displacement.shape)
    assert got.shape == (1, 3, 2, 16, 24)
    assert (got[:, 0] == 0).all()
    assert (got[:, 1:] - expected).abs().max() < 1e-5

    lone = torch.zeros(1, 1, 2, 160, 256)
    lone[0, 0, :, 100, 200] = torch.tensor([3.0, -2.0])
    torch.testing.assert_close(sparse_flow(lone)[0, 1, :, 100, 200], torch.tensor([3.0, -2.0]))


def test_sparse_flow_refuses_other_layouts():
    with pytest.raises(ValueError, match="must have shape"):
        sparse_flow(torch.zeros(1, 2, 40, 56, 2))
    with pytest.raises(ValueError, match="torch tensor"):
        sparse_flow(np.zeros((1, 2, 2, 40, 56)))
