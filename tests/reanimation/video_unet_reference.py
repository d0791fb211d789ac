"""The original video UNet, executed step by step from a state dict in the original naming.

Written from the rules of the public Stable Video Diffusion / DragNUWA architecture, as plain
functions: no module of the package and none of diffusers takes part. LoRA stays unfolded,
cross-attention is computed in full, the flow branch runs in every call and both halves.
"""

import math

import torch
from torch.nn import functional as F


class View:
    """A state dict seen from a prefix."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix

    def __call__(self, name):
        return View(self.tensors, f"{self.prefix}{name}.")

    def get(self, name):
        return self.tensors.get(self.prefix + name)

    def has(self, name):
        return any(k.startswith(f"{self.prefix}{name}.") for k in self.tensors)


def linear(p, x):
    if p.get("weight") is not None:
        return F.linear(x, p.get("weight"), p.get("bias"))
    out = F.linear(x, p.get("linear.weight"), p.get("linear.bias"))
    low = F.linear(x, p.get("lora_down.weight"))
    return out + F.linear(low, p.get("lora_up.weight"))


def group_norm(p, x, groups=32, eps=1e-5):
    return F.group_norm(x, groups, p.get("weight"), p.get("bias"), eps)


def layer_norm(p, x):
    return F.layer_norm(x, x.shape[-1:], p.get("weight"), p.get("bias"), 1e-5)


def conv(p, x, stride=1, padding=1):
    return F.conv2d(x, p.get("weight"), p.get("bias"), stride=stride, padding=padding)


def sinusoid(values, dim):
    half = dim // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    args = values[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def flow_temporal_conv(p, x, frames):
    bf, c, h, w = x.shape
    b = bf // frames
    x = x.reshape(b, frames, c, h, w).permute(0, 3, 4, 2, 1).reshape(b * h * w, c, frames)
    x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    x = F.conv1d(x, p.get("weight"), p.get("bias"))
    x = x.reshape(b, h, w, -1, frames).permute(0, 4, 3, 1, 2)
    return x.reshape(bf, -1, h, w)


def flow_features(p, flow):
    b, frames = flow.shape[:2]
    x = flow.reshape(b * frames, *flow.shape[2:])
    s = p("flow_blocks.0")
    x = flow_temporal_conv(s("1"), conv(s("0"), x, stride=2), frames)
    x = F.silu(group_norm(s("2"), x, groups=8))
    x = flow_temporal_conv(s("5"), conv(s("4"), x, stride=2), frames)
    x = F.silu(group_norm(s("6"), x, groups=8))
    x = flow_temporal_conv(s("9"), conv(s("8"), x, stride=2), frames)
    out = [x]
    level = 1
    while p.has(f"flow_blocks.{level}"):
        s = p(f"flow_blocks.{level}")
        x = F.silu(group_norm(s("0"), x, groups=8))
        x = flow_temporal_conv(s("3"), conv(s("2"), x), frames)
        x = conv(s("4.op"), x, stride=2)
        out.append(x)
        level += 1
    return out


def resnet(p, x, emb, frames, features=None):
    h = conv(p("in_layers.2"), F.silu(group_norm(p("in_layers.0"), x)))
    if p.has("flow_cond_norm"):
        gamma = flow_temporal_conv(
            p("flow_gamma_temporal"), conv(p("flow_gamma_spatial"), features), frames
        )
        beta = flow_temporal_conv(
            p("flow_beta_temporal"), conv(p("flow_beta_spatial"), features), frames
        )
        h = h + group_norm(p("flow_cond_norm"), h) * gamma + beta
    h = h + linear(p("emb_layers.1"), F.silu(emb))[..., None, None]
    h = conv(p("out_layers.3"), F.silu(group_norm(p("out_layers.0"), h)))
    if p.has("skip_connection"):
        x = conv(p("skip_connection"), x, padding=0)
    x = x + h

    bt, c, hh, ww = x.shape
    video = x.reshape(-1, frames, c, hh, ww).permute(0, 2, 1, 3, 4)
    t = p("time_stack")
    pad = (1, 0, 0)
    w = t("in_layers.2")
    h = F.conv3d(
        F.silu(group_norm(t("in_layers.0"), video)), w.get("weight"), w.get("bias"), padding=pad
    )
    shift = linear(t("emb_layers.1"), F.silu(emb)).reshape(-1, frames, c).permute(0, 2, 1)
    h = h + shift[..., None, None]
    w = t("out_layers.3")
    h = F.conv3d(
        F.silu(group_norm(t("out_layers.0"), h)), w.get("weight"), w.get("bias"), padding=pad
    )
    alpha = torch.sigmoid(p.get("time_mixer.mix_factor"))
    mixed = alpha * video + (1 - alpha) * (video + h)
    return mixed.permute(0, 2, 1, 3, 4).reshape(bt, c, hh, ww)


def attention(p, x, context, heads):
    context = x if context is None else context
    q, k, v = linear(p("to_q"), x), linear(p("to_k"), context), linear(p("to_v"), context)

    def split(y):
        return y.reshape(y.shape[0], y.shape[1], heads, -1).permute(0, 2, 1, 3)

    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    out = torch.softmax(scores, dim=-1) @ v
    out = out.permute(0, 2, 1, 3).reshape(x.shape)
    return linear(p("to_out.0"), out)


def feed_forward(p, x):
    x, gate = linear(p("net.0.proj"), x).chunk(2, dim=-1)
    return linear(p("net.2"), x * F.gelu(gate))


def transformer(p, x, context, frames, heads):
    bt, c, hh, ww = x.shape
    b = bt // frames
    tokens = group_norm(p("norm"), x, eps=1e-6)
    tokens = linear(p("proj_in"), tokens.reshape(bt, c, hh * ww).permute(0, 2, 1))
    # the first frame's context of each batch item, for each of its positions
    time_context = context[::frames].repeat_interleave(hh * ww, dim=0)
    pos = sinusoid(torch.arange(frames).repeat(b), c)
    pos = linear(p("time_pos_embed.2"), F.silu(linear(p("time_pos_embed.0"), pos)))[:, None]
    alpha = torch.sigmoid(p.get("time_mixer.mix_factor"))
    depth = 0
    while p.has(f"transformer_blocks.{depth}"):
        s = p(f"transformer_blocks.{depth}")
        tokens = tokens + attention(s("attn1"), layer_norm(s("norm1"), tokens), None, heads)
        tokens = tokens + attention(s("attn2"), layer_norm(s("norm2"), tokens), context, heads)
        tokens = tokens + feed_forward(s("ff"), layer_norm(s("norm3"), tokens))
        t = p(f"time_stack.{depth}")
        y = tokens + pos
        y = y.reshape(b, frames, hh * ww, c).permute(0, 2, 1, 3).reshape(b * hh * ww, frames, c)
        y = y + feed_forward(t("ff_in"), layer_norm(t("norm_in"), y))
        y = y + attention(t("attn1"), layer_norm(t("norm1"), y), None, heads)
        y = y + attention(t("attn2"), layer_norm(t("norm2"), y), time_context, heads)
        y = y + feed_forward(t("ff"), layer_norm(t("norm3"), y))
        y = y.reshape(b, hh * ww, frames, c).permute(0, 2, 1, 3).reshape(bt, hh * ww, c)
        tokens = alpha * tokens + (1 - alpha) * y
        depth += 1
    tokens = linear(p("proj_out"), tokens)
    return tokens.permute(0, 2, 1).reshape(bt, c, hh, ww) + x


def video_unet(state_dict, sample, timestep, context, ids, flow, *, heads, id_dim, layers=2):
    """heads: one number per level; ids: (b, 3); the rest as FlowUNet.forward."""
    p = View(state_dict, "model.diffusion_model.")
    b, frames = sample.shape[:2]
    n_levels = len(heads)
    width = p.get("input_blocks.0.0.weight").shape[0]
    emb = sinusoid(timestep, width)
    emb = linear(p("time_embed.2"), F.silu(linear(p("time_embed.0"), emb)))
    vector = torch.cat([sinusoid(ids[:, i], id_dim) for i in range(ids.shape[1])], dim=-1)
    emb = emb + linear(p("label_emb.0.2"), F.silu(linear(p("label_emb.0.0"), vector)))
    emb = emb.repeat_interleave(frames, dim=0)
    context = context.repeat_interleave(frames, dim=0)
    features = flow_features(p, flow) if p.has("flow_blocks") else [None] * n_levels

    x = conv(p("input_blocks.0.0"), sample.reshape(b * frames, *sample.shape[2:]))
    stack = [x]
    index = 1
    for level in range(n_levels):
        for _ in range(layers):
            q = p(f"input_blocks.{index}")
            x = resnet(q("0"), x, emb, frames, features[level])
            if q.has("1"):
                x = transformer(q("1"), x, context, frames, heads[level])
            stack.append(x)
            index += 1
        if level < n_levels - 1:
            x = conv(p(f"input_blocks.{index}.0.op"), x, stride=2)
            stack.append(x)
            index += 1
    x = resnet(p("middle_block.0"), x, emb, frames)
    x = transformer(p("middle_block.1"), x, context, frames, heads[-1])
    x = resnet(p("middle_block.2"), x, emb, frames)
    index = 0
    for level in reversed(range(n_levels)):
        for _ in range(layers + 1):
            q = p(f"output_blocks.{index}")
            x = resnet(q("0"), torch.cat([x, stack.pop()], 1), emb, frames, features[level])
            slot = 1
            if q.has("1.transformer_blocks"):
                x = transformer(q("1"), x, context, frames, heads[level])
                slot = 2
            if q.has(f"{slot}.conv"):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = conv(q(f"{slot}.conv"), x)
            index += 1
    x = conv(p("out.2"), F.silu(group_norm(p("out.0"), x)))
    return x.reshape(b, frames, *x.shape[1:])


def diffusers_config(*, widths, context, id_dim, heads):
    """The same sizes in diffusers' words."""
    return {
        "block_out_channels": widths,
        "num_attention_heads": heads,
        "cross_attention_dim": context,
        "addition_time_embed_dim": id_dim,
        "projection_class_embeddings_input_dim": 3 * id_dim,
    }


def original_state_dict(*, widths, context, id_dim, heads, flow_channels=2, lora=None, seed=0):
    """Random weights in the original naming and layout; `lora` is the rank, None for folded."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}

    def randn(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    def dense(name, n_out, n_in, *kernel, bias=True):
        fan_in = n_in * math.prod(kernel) if kernel else n_in
        tensors[f"{name}.weight"] = randn(n_out, n_in, *kernel, scale=fan_in**-0.5)
        if bias:
            tensors[f"{name}.bias"] = randn(n_out, scale=0.1)

    def lin(name, n_out, n_in, bias=True):
        if lora is None:
            dense(name, n_out, n_in, bias=bias)
            return
        rank = min(lora, n_in, n_out)
        dense(f"{name}.linear", n_out, n_in, bias=bias)
        tensors[f"{name}.lora_down.weight"] = randn(rank, n_in, scale=n_in**-0.5)
        tensors[f"{name}.lora_up.weight"] = randn(n_out, rank, scale=0.3 * rank**-0.5)

    def norm(name, n):
        tensors[f"{name}.weight"] = 1 + randn(n, scale=0.2)
        tensors[f"{name}.bias"] = randn(n, scale=0.2)

    def res(name, n_in, n_out, modulated=False):
        norm(f"{name}.in_layers.0", n_in)
        dense(f"{name}.in_layers.2", n_out, n_in, 3, 3)
        lin(f"{name}.emb_layers.1", n_out, 4 * widths[0])
        norm(f"{name}.out_layers.0", n_out)
        dense(f"{name}.out_layers.3", n_out, n_out, 3, 3)
        if n_in != n_out:
            dense(f"{name}.skip_connection", n_out, n_in, 1, 1)
        t = f"{name}.time_stack"
        norm(f"{t}.in_layers.0", n_out)
        dense(f"{t}.in_layers.2", n_out, n_out, 3, 1, 1)
        lin(f"{t}.emb_layers.1", n_out, 4 * widths[0])
        norm(f"{t}.out_layers.0", n_out)
        dense(f"{t}.out_layers.3", n_out, n_out, 3, 1, 1)
        tensors[f"{name}.time_mixer.mix_factor"] = randn(1)
        if modulated and flow_channels:
            norm(f"{name}.flow_cond_norm", n_out)
            for kind in ("gamma", "beta"):
                dense(f"{name}.flow_{kind}_spatial", n_out // 4, n_out, 3, 3)
                dense(f"{name}.flow_{kind}_temporal", n_out, n_out // 4, 3)

    def attn(name, c, n_context):
        lin(f"{name}.to_q", c, c, bias=False)
        lin(f"{name}.to_k", c, n_context, bias=False)
        lin(f"{name}.to_v", c, n_context, bias=False)
        lin(f"{name}.to_out.0", c, c)

    def ff(name, c):
        lin(f"{name}.net.0.proj", 8 * c, c)
        lin(f"{name}.net.2", c, 4 * c)

    def trans(name, c):
        norm(f"{name}.norm", c)
        lin(f"{name}.proj_in", c, c)
        for stack in ("transformer_blocks.0", "time_stack.0"):
            block = f"{name}.{stack}"
            if stack.startswith("time"):
                norm(f"{block}.norm_in", c)
                ff(f"{block}.ff_in", c)
            for i in (1, 2, 3):
                norm(f"{block}.norm{i}", c)
            attn(f"{block}.attn1", c, c)
            attn(f"{block}.attn2", c, context)
            ff(f"{block}.ff", c)
        lin(f"{name}.time_pos_embed.0", 4 * c, c)
        lin(f"{name}.time_pos_embed.2", c, 4 * c)
        tensors[f"{name}.time_mixer.mix_factor"] = randn(1)
        lin(f"{name}.proj_out", c, c)

    n_levels = len(widths)
    n_time = 4 * widths[0]
    dense("input_blocks.0.0", widths[0], 8, 3, 3)
    lin("time_embed.0", n_time, widths[0])
    lin("time_embed.2", n_time, n_time)
    lin("label_emb.0.0", n_time, 3 * id_dim)
    lin("label_emb.0.2", n_time, n_time)
    skips, index, n_in = [widths[0]], 1, widths[0]
    for level, c in enumerate(widths):
        for layer in range(2):
            res(f"input_blocks.{index}.0", n_in, c, modulated=layer == 0)
            if level < n_levels - 1:
                trans(f"input_blocks.{index}.1", c)
            n_in = c
            skips.append(c)
            index += 1
        if level < n_levels - 1:
            dense(f"input_blocks.{index}.0.op", c, c, 3, 3)
            skips.append(c)
            index += 1
    res("middle_block.0", n_in, n_in)
    trans("middle_block.1", n_in)
    res("middle_block.2", n_in, n_in)
    index = 0
    for level in reversed(range(n_levels)):
        c = widths[level]
        for layer in range(3):
            res(f"output_blocks.{index}.0", n_in + skips.pop(), c, modulated=layer == 0)
            n_in = c
            slot = 1
            if level < n_levels - 1:
                trans(f"output_blocks.{index}.1", c)
                slot = 2
            if layer == 2 and level > 0:
                dense(f"output_blocks.{index}.{slot}.conv", c, c, 3, 3)
            index += 1
    norm("out.0", widths[0])
    dense("out.2", 4, widths[0], 3, 3)
    if flow_channels:
        first = widths[0]
        steps = (flow_channels, first // 4, first // 2, first)
        for k in range(3):
            n_in, n_out = steps[k], steps[k + 1]
            dense(f"flow_blocks.0.{4 * k}", n_out, n_in, 3, 3)
            dense(f"flow_blocks.0.{4 * k + 1}", n_out, n_out, 3)
            if k < 2:
                norm(f"flow_blocks.0.{4 * k + 2}", n_out)
        for level in range(1, n_levels):
            n_in, n_out = widths[level - 1], widths[level]
            norm(f"flow_blocks.{level}.0", n_in)
            dense(f"flow_blocks.{level}.2", n_out, n_in, 3, 3)
            dense(f"flow_blocks.{level}.3", n_out, n_out, 3)
            dense(f"flow_blocks.{level}.4.op", n_out, n_out, 3, 3)
    return {f"model.diffusion_model.{k}": v for k, v in tensors.items()}
