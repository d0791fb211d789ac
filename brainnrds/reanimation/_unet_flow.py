"""The video UNet of Stable Video Diffusion with DragNUWA's flow branch, in plain torch.

One file for one foreign architecture. Written from the published descriptions:

- Blattmann et al. 2023, "Stable Video Diffusion" (arXiv 2311.15127): the spatio-temporal UNet;
- Yin et al. 2023, "DragNUWA" (arXiv 2308.08089; code MIT): flow encoder and modulation;
- Zhang et al. 2025, "MotionPro" (arXiv 2505.20287; code Apache-2.0): the same modules with a
  visibility channel.

The weights are not part of this package and have licences of their own (see the user guide).
Parameters carry the names of diffusers' ``UNetSpatioTemporalConditionModel``; the flow branch
adds ``flow_blocks`` and one ``flow`` module in the first spatial resnet of every level.

Where it departs from a literal transcription, the numbers stay the same:

- a context of one token has an attention weight of exactly 1, so cross-attention is
  ``to_out(to_v(context))``: neither queries nor keys are computed;
- temporal convolutions run as 2-D convolutions over (time, height x width), which is a view,
  not a copy, of activations in channels_last;
- mixing weight a of a spatial s and a temporal s + f gives s + (1 - a) f;
- on a GPU, attention over the few frames runs for several pixels at a time, each blind to the
  others: its kernels work on 128 tokens, however few there are;
- the flow branch depends neither on the noise level nor on the guidance half: `encode_flow`
  runs once a video.

One thing is not the original's, and is done only where it is asked for: the outermost layers run
alone on deep features of an earlier call (Ma et al. 2024, "DeepCache", arXiv 2312.00858).
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["FlowUNet", "UNetOutput", "complete_config"]

# GroupNorm in all resnets and in the output head, as in the original code. (diffusers has 1e-6
# in some of its resnets.) The transformers' own GroupNorm has 1e-6 in both.
RESNET_EPS = 1e-5
TRANSFORMER_EPS = 1e-6
FLOW_GROUPS = 8
# layers at the end of the way up that read the input and the first layer of the way down
N_OUTERMOST = 2

SVD_CONFIG = {
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": (
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
    ),
    "up_block_types": (
        "UpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
    ),
    "block_out_channels": (320, 640, 1280, 1280),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
    "num_attention_heads": (5, 10, 20, 20),
    "num_frames": 14,
    "sample_size": None,
}


class UNetOutput(NamedTuple):
    """What the UNet returns: `sample`, (n_videos, n_frames, 4, h, w), and its deep features.

    `deep`, (n_videos * n_frames, c, h, w), is what comes from below the outermost layers.
    """

    sample: torch.Tensor
    deep: torch.Tensor


def complete_config(config=None):
    """Fill a configuration in diffusers' names with the values of Stable Video Diffusion.

    Parameters
    ----------
    config : dict or None
        Keys of ``UNetSpatioTemporalConditionModel``; keys that start with "_" are ignored.
        ``projection_class_embeddings_input_dim`` follows ``addition_time_embed_dim`` (three ids)
        when it is left out.

    Returns
    -------
    config : dict
        Complete; the per-level entries are tuples with one value per level.
    """
    given = {} if config is None else {k: v for k, v in config.items() if not k.startswith("_")}
    unknown = sorted(set(given) - set(SVD_CONFIG))
    if unknown:
        raise ValueError(
            f"`config` must have keys of diffusers' UNetSpatioTemporalConditionModel; "
            f"got unknown {unknown}."
        )
    full = {**SVD_CONFIG, **given}
    if "projection_class_embeddings_input_dim" not in given:
        full["projection_class_embeddings_input_dim"] = 3 * full["addition_time_embed_dim"]

    n_levels = len(full["block_out_channels"])
    for key in (
        "layers_per_block",
        "cross_attention_dim",
        "transformer_layers_per_block",
        "num_attention_heads",
    ):
        value = full[key]
        full[key] = (value,) * n_levels if isinstance(value, int) else tuple(value)
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        full[key] = tuple(full[key])
    for key, value in full.items():
        if isinstance(value, tuple) and len(value) != n_levels:
            raise ValueError(
                f"`config[{key!r}]` must have one entry per level "
                f"({n_levels}, as block_out_channels); got {value}."
            )
    for key, known in (("down_block_types", "Down"), ("up_block_types", "Up")):
        kinds = {f"{known}BlockSpatioTemporal", f"CrossAttn{known}BlockSpatioTemporal"}
        if not set(full[key]) <= kinds:
            raise ValueError(f"`config[{key!r}]` must hold {sorted(kinds)}; got {full[key]}.")
    for width, heads in zip(full["block_out_channels"], full["num_attention_heads"], strict=True):
        if width % 32:
            raise ValueError(
                f"`config['block_out_channels']` must be multiples of 32 (GroupNorm's groups); "
                f"got {full['block_out_channels']}."
            )
        if width % heads:
            raise ValueError(
                "`config['num_attention_heads']` must divide block_out_channels; "
                f"got {full['num_attention_heads']} and {full['block_out_channels']}."
            )
    return full


def _sinusoid(values, n_channels):
    """Embed scalars (n,) as (n, n_channels): cosines, then sines, of period up to 10,000."""
    half = n_channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=values.device) / half
    phase = values.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def _to_time(x, n_frames):
    """View frames (b*t, c, h, w) as (b, c, t, h*w): one image per video, time going down."""
    return x.unflatten(0, (-1, n_frames)).transpose(1, 2).flatten(3)


def _from_time(x, height):
    """Undo `_to_time`: (b, c, t, h*w) to (b*t, c, h, w)."""
    return x.unflatten(3, (height, -1)).transpose(1, 2).flatten(0, 1)


class _TemporalConv3d(nn.Module):
    """A (3, 1, 1) convolution with zero padding, on (b, c, t, h*w)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, 3, 1, 1))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x):
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class _FlowTemporalConv(nn.Module):
    """A convolution of 3 over time at every pixel of (b*t, c, h, w), edge frames repeated."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, 3))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x, n_frames):
        height = x.shape[-2]
        x = F.pad(_to_time(x, n_frames), (0, 0, 1, 1), mode="replicate")
        return _from_time(F.conv2d(x, self.weight[..., None], self.bias), height)


class _FlowDownsample(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.op = nn.Conv2d(n_channels, n_channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


def _flow_stages(n_inputs, widths):
    first = widths[0]
    steps = (n_inputs, first // 4, first // 2, first)
    stem = []
    for n_in, n_out in zip(steps[:-1], steps[1:], strict=True):
        stem += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), _FlowTemporalConv(n_out, n_out)]
        if n_out != first:
            stem += [nn.GroupNorm(FLOW_GROUPS, n_out, eps=RESNET_EPS), nn.SiLU()]
    stages = [nn.ModuleList(stem)]
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        stages.append(
            nn.ModuleList(
                [
                    nn.GroupNorm(FLOW_GROUPS, n_in, eps=RESNET_EPS),
                    nn.SiLU(),
                    nn.Conv2d(n_in, n_out, 3, padding=1),
                    _FlowTemporalConv(n_out, n_out),
                    _FlowDownsample(n_out),
                ]
            )
        )
    return nn.ModuleList(stages)


class _FlowModulator(nn.Module):
    """Feature-wise modulation of activations h by flow features: h + norm(h) gamma + beta."""

    def __init__(self, n_channels):
        super().__init__()
        quarter = n_channels // 4
        self.norm = nn.GroupNorm(32, n_channels, eps=RESNET_EPS)
        self.gamma_spatial = nn.Conv2d(n_channels, quarter, 3, padding=1)
        self.gamma_temporal = _FlowTemporalConv(quarter, n_channels)
        self.beta_spatial = nn.Conv2d(n_channels, quarter, 3, padding=1)
        self.beta_temporal = _FlowTemporalConv(quarter, n_channels)

    def encode(self, features, n_frames):
        gamma = self.gamma_temporal(self.gamma_spatial(features), n_frames)
        beta = self.beta_temporal(self.beta_spatial(features), n_frames)
        return gamma, beta

    def forward(self, h, gamma, beta):
        # h may hold several halves (guidance) of the videos that gamma and beta are for
        split = (h.shape[0] // gamma.shape[0], gamma.shape[0])
        normed = self.norm(h).unflatten(0, split)
        return torch.addcmul(h.unflatten(0, split) + beta, normed, gamma).flatten(0, 1)


class _SpatialResnet(nn.Module):
    def __init__(self, n_in, n_out, n_time, modulated):
        super().__init__()
        self.norm1 = nn.GroupNorm(32, n_in, eps=RESNET_EPS)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.flow = _FlowModulator(n_out) if modulated else None
        self.time_emb_proj = nn.Linear(n_time, n_out)
        self.norm2 = nn.GroupNorm(32, n_out, eps=RESNET_EPS)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else None

    def forward(self, x, time_embedding, modulation):
        h = self.conv1(F.silu(self.norm1(x)))
        if self.flow is not None:
            h = self.flow(h, *modulation)
        h = h + self.time_emb_proj(time_embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class _TemporalResnet(nn.Module):
    """The residual f of the temporal block, without its skip connection; on (b, c, t, h*w)."""

    def __init__(self, n_channels, n_time):
        super().__init__()
        self.norm1 = nn.GroupNorm(32, n_channels, eps=RESNET_EPS)
        self.conv1 = _TemporalConv3d(n_channels, n_channels)
        self.time_emb_proj = nn.Linear(n_time, n_channels)
        self.norm2 = nn.GroupNorm(32, n_channels, eps=RESNET_EPS)
        self.conv2 = _TemporalConv3d(n_channels, n_channels)

    def forward(self, x, time_embedding):
        h = self.conv1(F.silu(self.norm1(x)))
        shift = self.time_emb_proj(time_embedding).unflatten(0, (-1, x.shape[2]))
        h = h + shift.transpose(1, 2)[..., None]
        return self.conv2(F.silu(self.norm2(h)))


class _TimeMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix_factor = nn.Parameter(torch.empty(1))

    def temporal_weight(self, dtype):
        return (1 - torch.sigmoid(self.mix_factor)).to(dtype)


class _Resnet(nn.Module):
    def __init__(self, n_in, n_out, n_time, *, modulated=False):
        super().__init__()
        self.spatial_res_block = _SpatialResnet(n_in, n_out, n_time, modulated)
        self.temporal_res_block = _TemporalResnet(n_out, n_time)
        self.time_mixer = _TimeMixer()

    def forward(self, x, time_embedding, n_frames, modulation=None):
        # time_embedding: (b*t, n_time), SiLU already applied
        x = self.spatial_res_block(x, time_embedding, modulation)
        residual = self.temporal_res_block(_to_time(x, n_frames), time_embedding)
        weight = self.time_mixer.temporal_weight(x.dtype)
        return torch.addcmul(x, weight, _from_time(residual, x.shape[-2]))


# tokens that a GPU's attention works on at a time
ATTENTION_TILE = 128


def _attend_in_packs(q, k, v):
    """Attention of many short sequences (n, heads, length, d), as many at a time as fill a tile.

    A mask keeps the sequences of a pack apart. On an H100, 46,080 sequences of 14 tokens take a
    quarter of the time.
    """
    n, _, length, _ = q.shape
    size = max(s for s in range(1, max(1, ATTENTION_TILE // length) + 1) if n % s == 0)
    pack = torch.arange(size * length, device=q.device) // length
    apart = torch.where(pack[:, None] == pack, 0.0, -math.inf).to(q.dtype)
    q, k, v = (x.transpose(1, 2).unflatten(0, (-1, size)).flatten(1, 2) for x in (q, k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (n / size, heads, size * length, d)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=apart).transpose(1, 2)
    return out.unflatten(1, (size, length)).flatten(0, 1).transpose(1, 2)


class _SelfAttention(nn.Module):
    def __init__(self, n_channels, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.to_q = nn.Linear(n_channels, n_channels, bias=False)
        self.to_k = nn.Linear(n_channels, n_channels, bias=False)
        self.to_v = nn.Linear(n_channels, n_channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(n_channels, n_channels)])
        self.to_qkv = None

    def fuse(self):
        """Replace the three input projections by one of the same numbers."""
        with torch.no_grad():
            weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        self.to_qkv = nn.Linear(
            weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype
        )
        self.to_qkv.weight = nn.Parameter(weight, requires_grad=False)
        self.to_q = self.to_k = self.to_v = None

    def forward(self, x):
        if self.to_qkv is None:
            projections = [self.to_q(x), self.to_k(x), self.to_v(x)]
        else:
            projections = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = (p.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for p in projections)
        few = x.is_cuda and 2 * x.shape[1] <= ATTENTION_TILE
        out = (_attend_in_packs if few else F.scaled_dot_product_attention)(q, k, v)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class _SingleTokenAttention(nn.Module):
    """Cross-attention to one token: its weight is 1 whatever the query and the key."""

    def __init__(self, n_channels, n_context):
        super().__init__()
        self.to_q = nn.Linear(n_channels, n_channels, bias=False)  # part of every checkpoint
        self.to_k = nn.Linear(n_context, n_channels, bias=False)
        self.to_v = nn.Linear(n_context, n_channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(n_channels, n_channels)])

    def forward(self, context):
        return self.to_out[0](self.to_v(context))


class _GEGLU(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.proj = nn.Linear(n_in, 2 * n_out)

    def forward(self, x):
        # two products instead of one that is cut in two: what follows reads contiguous memory
        (w, w_gate), (b, b_gate) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return F.linear(x, w, b) * F.gelu(F.linear(x, w_gate, b_gate))


class _FeedForward(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.net = nn.ModuleList(
            [
                _GEGLU(n_channels, 4 * n_channels),
                nn.Identity(),
                nn.Linear(4 * n_channels, n_channels),
            ]
        )

    def forward(self, x):
        return self.net[2](self.net[0](x))


class _TransformerBlock(nn.Module):
    def __init__(self, n_channels, n_heads, n_context, *, temporal):
        super().__init__()
        if temporal:
            self.norm_in = nn.LayerNorm(n_channels)
            self.ff_in = _FeedForward(n_channels)
        self.temporal = temporal
        self.norm1 = nn.LayerNorm(n_channels)
        self.attn1 = _SelfAttention(n_channels, n_heads)
        self.norm2 = nn.LayerNorm(n_channels)  # of the queries, which a single token leaves unused
        self.attn2 = _SingleTokenAttention(n_channels, n_context)
        self.norm3 = nn.LayerNorm(n_channels)
        self.ff = _FeedForward(n_channels)

    def forward(self, x, from_context):
        """Tokens x: (n, length, c). from_context: the value of attn2, broadcastable to x."""
        if self.temporal:
            x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x))
        x = x + from_context
        return x + self.ff(self.norm3(x))


class _Transformer(nn.Module):
    def __init__(self, n_channels, n_heads, n_context, n_layers):
        super().__init__()
        self.norm = nn.GroupNorm(32, n_channels, eps=TRANSFORMER_EPS)
        self.proj_in = nn.Linear(n_channels, n_channels)
        self.transformer_blocks = nn.ModuleList(
            _TransformerBlock(n_channels, n_heads, n_context, temporal=False)
            for _ in range(n_layers)
        )
        self.temporal_transformer_blocks = nn.ModuleList(
            _TransformerBlock(n_channels, n_heads, n_context, temporal=True)
            for _ in range(n_layers)
        )
        self.time_pos_embed = _Embedding(n_channels, 4 * n_channels, n_channels)
        self.time_mixer = _TimeMixer()
        self.proj_out = nn.Linear(n_channels, n_channels)

    def forward(self, x, context, n_frames):
        """Frames x: (b*t, c, h, w); context: (b, 1, d), one token per video."""
        height, n_channels = x.shape[-2], x.shape[1]
        n_videos = x.shape[0] // n_frames
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))  # (b*t, h*w, c)

        frame = torch.arange(n_frames, device=x.device)
        position = self.time_pos_embed(_sinusoid(frame, n_channels).to(x.dtype))
        weight = self.time_mixer.temporal_weight(x.dtype)
        for spatial, temporal in zip(
            self.transformer_blocks, self.temporal_transformer_blocks, strict=True
        ):
            value = spatial.attn2(context).repeat_interleave(n_frames, dim=0)
            tokens = spatial(tokens, value)
            mixed = tokens.unflatten(0, (n_videos, n_frames)) + position[:, None]
            mixed = mixed.transpose(1, 2)  # (b, h*w, t, c)
            n_tokens = mixed.shape[1]
            value = temporal.attn2(context).repeat_interleave(n_tokens, dim=0)
            mixed = temporal(mixed.flatten(0, 1), value)
            mixed = mixed.unflatten(0, (n_videos, n_tokens)).transpose(1, 2).flatten(0, 1)
            tokens = torch.lerp(tokens, mixed, weight)

        out = self.proj_out(tokens).unflatten(1, (height, -1)).permute(0, 3, 1, 2)
        return out + x


class _Embedding(nn.Module):
    def __init__(self, n_in, n_hidden, n_out):
        super().__init__()
        self.linear_1 = nn.Linear(n_in, n_hidden)
        self.linear_2 = nn.Linear(n_hidden, n_out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class _Downsample(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, n_channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x)


class _Upsample(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, n_channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Block(nn.Module):
    """One level, going down or up, or the middle."""

    def __init__(self, resnets, attentions, downsampler=None, upsampler=None):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([] if downsampler is None else [downsampler])
        self.upsamplers = nn.ModuleList([] if upsampler is None else [upsampler])


class FlowUNet(nn.Module):
    """Spatio-temporal UNet of Stable Video Diffusion, with or without the flow branch.

    Parameters
    ----------
    config : dict or None
        Names of diffusers' ``UNetSpatioTemporalConditionModel``; what is left out takes the
        values of Stable Video Diffusion.
    flow_channels : {0, 2, 3}, default=2
        2: flow (DragNUWA); 3: flow and visibility (MotionPro-Dense); 0: stock Stable Video
        Diffusion.

    Notes
    -----
    Parameters are uninitialised: load a state dict.
    """

    def __init__(self, config=None, *, flow_channels=2):
        super().__init__()
        if flow_channels not in (0, 2, 3):
            raise ValueError(f"`flow_channels` must be 0, 2 or 3; got {flow_channels!r}.")
        self.config = config = complete_config(config)
        self.flow_channels = flow_channels
        modulated = flow_channels > 0
        widths = config["block_out_channels"]
        heads = config["num_attention_heads"]
        contexts = config["cross_attention_dim"]
        depths = config["transformer_layers_per_block"]
        layers = config["layers_per_block"]
        n_levels = len(widths)
        n_time = 4 * widths[0]

        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = _Embedding(widths[0], n_time, n_time)
        self.add_embedding = _Embedding(
            config["projection_class_embeddings_input_dim"], n_time, n_time
        )

        def attention(level):
            return _Transformer(widths[level], heads[level], contexts[level], depths[level])

        skips = [widths[0]]
        n_in = widths[0]
        down_blocks = []
        for level, width in enumerate(widths):
            attends = config["down_block_types"][level].startswith("CrossAttn")
            resnets = []
            for layer in range(layers[level]):
                resnets.append(_Resnet(n_in, width, n_time, modulated=modulated and layer == 0))
                n_in = width
                skips.append(width)
            last = level == n_levels - 1
            if not last:
                skips.append(width)
            down_blocks.append(
                _Block(
                    resnets,
                    [attention(level) for _ in resnets] if attends else [],
                    downsampler=None if last else _Downsample(width),
                )
            )
        self.down_blocks = nn.ModuleList(down_blocks)

        self.mid_block = _Block(
            [_Resnet(widths[-1], widths[-1], n_time) for _ in range(2)], [attention(n_levels - 1)]
        )

        up_blocks = []
        for step, level in enumerate(reversed(range(n_levels))):
            width = widths[level]
            attends = config["up_block_types"][step].startswith("CrossAttn")
            resnets = []
            for layer in range(layers[level] + 1):
                resnets.append(
                    _Resnet(n_in + skips.pop(), width, n_time, modulated=modulated and layer == 0)
                )
                n_in = width
            up_blocks.append(
                _Block(
                    resnets,
                    [attention(level) for _ in resnets] if attends else [],
                    upsampler=None if level == 0 else _Upsample(width),
                )
            )
        self.up_blocks = nn.ModuleList(up_blocks)

        self.conv_norm_out = nn.GroupNorm(32, widths[0], eps=RESNET_EPS)
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)
        if modulated:
            self.flow_blocks = _flow_stages(flow_channels, widths)

    @property
    def dtype(self):
        """Type of the weights (the flow branch may stay in float32)."""
        return self.conv_in.weight.dtype

    def modulators(self):
        """Return the flow modulators in the order in which the forward pass meets them."""
        blocks = [*self.down_blocks, *self.up_blocks]
        return [block.resnets[0].spatial_res_block.flow for block in blocks]

    def set_precision(self, dtype):
        """Cast the UNet to `dtype`, but keep the flow branch, run once a video, in float32."""
        self.to(dtype)
        if self.flow_channels:
            self.flow_blocks.float()
            for modulator in self.modulators():
                for name, module in modulator.named_children():
                    if name != "norm":
                        module.float()
        return self

    def fuse_projections(self):
        """Merge the query, key and value projections of every self-attention into one."""
        for module in list(self.modules()):
            if isinstance(module, _SelfAttention) and module.to_qkv is None:
                module.fuse()
        return self

    def unfused_state_dict(self):
        """State dict with the projections apart, as `load_state_dict` of a new UNet wants it."""
        tensors = {}
        for name, tensor in self.state_dict().items():
            if name.endswith("to_qkv.weight"):
                stem = name[: -len("to_qkv.weight")]
                for part, weight in zip("qkv", tensor.chunk(3), strict=True):
                    tensors[f"{stem}to_{part}.weight"] = weight
            else:
                tensors[name] = tensor
        return tensors

    def use_channels_last(self):
        """Lay out the convolutions' weights for channels_last, those over time included."""
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
            elif parameter.ndim == 5:
                plane = parameter.data.squeeze(-1).contiguous(memory_format=torch.channels_last)
                parameter.data = plane.unsqueeze(-1)
        return self

    def encode_flow(self, flow):
        """Compute what the flow adds to the UNet: once a video, for all steps and both halves.

        Parameters
        ----------
        flow : tensor of shape (n_videos, n_frames, 2 or 3, height, width)
            Pixels of this grid; height and width are 8 times those of the latents.

        Returns
        -------
        modulation : tuple of (gamma, beta)
            One pair per modulated resnet, (n_videos * n_frames, c, h, w) each; can stand for
            `flow` in the forward pass.
        """
        if not self.flow_channels:
            raise ValueError("This UNet has no flow branch (`flow_channels` is 0).")
        if flow.ndim != 5 or flow.shape[2] != self.flow_channels:
            raise ValueError(
                f"`flow` must have shape (n_videos, n_frames, {self.flow_channels}, height, "
                f"width); got {tuple(flow.shape)}."
            )
        n_frames = flow.shape[1]
        x = flow.flatten(0, 1).to(self.flow_blocks[0][0].weight.dtype)
        features = []
        for stage in self.flow_blocks:
            for layer in stage:
                x = layer(x, n_frames) if isinstance(layer, _FlowTemporalConv) else layer(x)
            features.append(x)
        modulators = self.modulators()
        features = [*features, *reversed(features)]
        layout = self._layout()
        return tuple(
            tuple(
                m.to(self.dtype).contiguous(memory_format=layout)
                for m in modulator.encode(feature, n_frames)
            )
            for modulator, feature in zip(modulators, features, strict=True)
        )

    def forward(
        self, sample, timestep, encoder_hidden_states, added_time_ids, flow=None, deep=None
    ):
        """Predict v for noisy latents.

        Parameters
        ----------
        sample : tensor of shape (n_videos, n_frames, 8, h, w)
            Noisy latents, already scaled, followed by the latents of the frame.
            h and w are multiples of 8.
        timestep : tensor of shape (n_videos,)
            0.25 ln sigma.
        encoder_hidden_states : tensor of shape (n_videos, 1, d)
            Embedding of the frame.
        added_time_ids : tensor of shape (n_videos, 3)
            fps_id, motion_bucket_id, cond_aug.
        flow : tensor of shape (n_videos, n_frames, 2 or 3, 8h, 8w), or `encode_flow`'s result
            Pixels; for consecutive flow, slice 0 is zero and slice i + 1 holds the motion from
            frame i to i + 1.
        deep : tensor or None, default=None
            `UNetOutput.deep` of an earlier call for the same videos: then only the first layer
            and the last two, which read its output and the input, are computed.

        Returns
        -------
        output : UNetOutput
            ``output.sample``, (n_videos, n_frames, 4, h, w), and ``output.deep``.
        """
        if sample.ndim != 5 or sample.shape[2] != self.config["in_channels"]:
            raise ValueError(
                f"`sample` must have shape (n_videos, n_frames, {self.config['in_channels']}, h, "
                f"w); got {tuple(sample.shape)}."
            )
        n_videos, n_frames, _, height, width = sample.shape
        factor = 2 ** (len(self.down_blocks) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"`sample` must have h and w that are multiples of {factor}; "
                f"got {height} and {width}."
            )
        if encoder_hidden_states.ndim != 3 or encoder_hidden_states.shape[:2] != (n_videos, 1):
            raise ValueError(
                f"`encoder_hidden_states` must have shape ({n_videos}, 1, d); "
                f"got {tuple(encoder_hidden_states.shape)}."
            )
        modulation = self._check_modulation(flow, n_videos, n_frames, height, width)

        dtype = self.dtype
        timestep = torch.as_tensor(timestep, device=sample.device).expand(n_videos)
        widths = self.config["block_out_channels"]
        embedding = self.time_embedding(_sinusoid(timestep, widths[0]).to(dtype))
        ids = _sinusoid(added_time_ids.flatten(), self.config["addition_time_embed_dim"])
        embedding = embedding + self.add_embedding(ids.reshape(n_videos, -1).to(dtype))
        # every resnet, spatial and temporal, begins its use of the embedding with a SiLU
        embedding = F.silu(embedding).repeat_interleave(n_frames, dim=0)
        context = encoder_hidden_states.to(dtype)

        x = sample.flatten(0, 1).to(dtype).contiguous(memory_format=self._layout())
        skips = [self.conv_in(x)]

        def run(block, layer, x, level):
            x = block.resnets[layer](x, embedding, n_frames, modulation[level])
            return block.attentions[layer](x, context, n_frames) if block.attentions else x

        n_levels = len(self.down_blocks)
        last = self.up_blocks[-1]
        outermost = range(len(last.resnets) - N_OUTERMOST, len(last.resnets))
        if deep is None:
            x = skips[0]
            for level, block in enumerate(self.down_blocks):
                for layer in range(len(block.resnets)):
                    x = run(block, layer, x, level)
                    skips.append(x)
                for downsampler in block.downsamplers:
                    x = downsampler(x)
                    skips.append(x)

            x = self.mid_block.resnets[0](x, embedding, n_frames)
            x = self.mid_block.attentions[0](x, context, n_frames)
            x = self.mid_block.resnets[1](x, embedding, n_frames)

            for step, block in enumerate(self.up_blocks, start=n_levels):
                inner = outermost.start if block is last else len(block.resnets)
                for layer in range(inner):
                    x = run(block, layer, torch.cat([x, skips.pop()], dim=1), step)
                for upsampler in block.upsamplers:
                    x = upsampler(x)
            deep = x
        else:
            skips.append(run(self.down_blocks[0], 0, skips[0], 0))

        x = deep
        for layer in outermost:
            x = run(last, layer, torch.cat([x, skips.pop()], dim=1), 2 * n_levels - 1)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        return UNetOutput(x.unflatten(0, (n_videos, n_frames)), deep)

    def _layout(self):
        weight = self.conv_in.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
        return torch.contiguous_format

    def _check_modulation(self, flow, n_videos, n_frames, height, width):
        if not self.flow_channels:
            if flow is not None:
                raise ValueError("This UNet has no flow branch: `flow` must be None.")
            return (None,) * (2 * len(self.down_blocks))
        if flow is None:
            raise ValueError("`flow` must be given: this UNet has a flow branch.")
        if isinstance(flow, torch.Tensor):
            expected = (n_videos, n_frames, self.flow_channels, 8 * height, 8 * width)
            if tuple(flow.shape) != expected:
                raise ValueError(f"`flow` must have shape {expected}; got {tuple(flow.shape)}.")
            return self.encode_flow(flow)
        gamma = flow[0][0]
        if gamma.shape[-2:] != (height, width) or (n_videos * n_frames) % gamma.shape[0]:
            raise ValueError(
                f"`flow` was encoded for {gamma.shape[0]} frames of {tuple(gamma.shape[-2:])} "
                f"latents; got a sample of {n_videos * n_frames} frames of {(height, width)}."
            )
        return flow
