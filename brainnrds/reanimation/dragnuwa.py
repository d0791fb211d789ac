"""Motion-conditioned Stable Video Diffusion: DragNUWA 1.5, and MotionPro-Dense through it.

Yin et al. 2023, "DragNUWA: Fine-grained control in video generation by integrating text, image, and
trajectory" (arXiv 2308.08089); Zhang et al. 2025, "MotionPro" (arXiv 2505.20287). The weights are
derived from Stable Video Diffusion and are not part of this package.
"""

import numpy as np
import torch
from torch.nn import functional as F

from brainnrds._checks import InputError
from brainnrds.flow import accumulate_flow, in_frame
from brainnrds.reanimation import _weights
from brainnrds.reanimation.svd import DiffusionRenderer, Sampling

__all__ = ["DragNUWARenderer", "load_flow_unet", "sparse_flow"]

SPARSE_KERNEL = 199
SPARSE_SIGMA = 20.0
# the filter is not normalised: tracks closer than two of its sigmas would add up
TRACK_SPACING = 80


def load_flow_unet(state_dict, *, config=None):
    """Build the flow-conditioned UNet from a state dict in the original checkpoint's naming.

    Parameters
    ----------
    state_dict : dict of str to tensor
        Keys under ``model.diffusion_model.``, with LoRA unfolded (``X.linear.weight``,
        ``X.lora_down.weight``, ``X.lora_up.weight``; folded here in float32 with scale 1) or
        folded (``X.weight``). Other groups (``first_stage_model``, ``conditioner``,
        ``guassian_filter``) are ignored. The number of flow channels is read from
        ``flow_blocks.0.0.weight``.
    config : dict or None, default=None
        In the names of diffusers' ``UNetSpatioTemporalConditionModel``; keys that are left out
        take the full-width values of Stable Video Diffusion.

    Returns
    -------
    unet : FlowUNet
        On the CPU in float32 (float64 where the weights have it), ready for inference. Call it
        with

        - `sample` (n_videos, n_frames, 8, h, w): scaled noisy latents, then the frame's latents;
        - `timestep` (n_videos,): 0.25 ln sigma;
        - `encoder_hidden_states` (n_videos, 1, d);
        - `added_time_ids` (n_videos, 3): fps_id, motion_bucket_id, cond_aug;
        - `flow` (n_videos, n_frames, 2, 8h, 8w): pixels, slice 0 zero, slice i + 1 the motion
          from frame i to i + 1;

        and read ``.sample``, (n_videos, n_frames, 4, h, w), from the result.

    Raises
    ------
    ValueError
        If any key under ``model.diffusion_model.`` is unknown, missing, mis-sized or not finite;
        the message lists all of them.
    """
    return _weights.flow_unet_from_original(state_dict, config=config)


def sparse_flow(displacement):
    """Spread tracks into the flow map that DragNUWA was last trained on.

    Each component is convolved with ``exp(-r^2 / (2 20^2))`` on 199 x 199 pixels, zero outside
    the image. The filter is not normalised: a lone point keeps its displacement, neighbours
    within about 40 pixels add up, and dense flow would grow 2,500-fold.

    Parameters
    ----------
    displacement : tensor of shape (n_videos, n_frames - 1, 2, height, width)
        Pixels per frame, zero except at tracked points.

    Returns
    -------
    flow : tensor of shape (n_videos, n_frames, 2, height, width)
        The filtered map behind a slice of zeros.
    """
    if not isinstance(displacement, torch.Tensor):
        raise InputError(
            f"`displacement` must be a torch tensor; got {type(displacement).__name__}."
        )
    if displacement.ndim != 5 or displacement.shape[2] != 2:
        raise InputError(
            "`displacement` must have shape (n_videos, n_frames - 1, 2, height, width); "
            f"got {tuple(displacement.shape)}."
        )
    # in float64: the sums run over up to 39,601 products
    fields = displacement.flatten(0, 2).unsqueeze(1).double()
    half = SPARSE_KERNEL // 2
    offset = torch.arange(-half, half + 1, dtype=torch.float64)
    kernel = torch.exp(-(offset**2) / (2 * SPARSE_SIGMA**2)).to(fields)
    # the Gaussian is separable: 199 + 199 products per pixel instead of 199 x 199
    fields = F.conv2d(fields, kernel.view(1, 1, -1, 1), padding=(half, 0))
    fields = F.conv2d(fields, kernel.view(1, 1, 1, -1), padding=(0, half))
    kind = torch.promote_types(displacement.dtype, torch.float32)
    fields = fields.view(displacement.shape).to(kind)
    return torch.cat([torch.zeros_like(fields[:, :1]), fields], dim=1)


def _follow_tracks(fields, spacing):
    """Sample tracks from dense flow, (n, n_frames - 1, 2, h, w), zero off the tracks.

    Points start on a grid of `spacing` pixels and are followed; at each time their
    displacement is written where they are.
    """
    n_clips, n_steps, _, height, width = fields.shape
    rows = np.arange(spacing // 2, height, spacing)
    columns = np.arange(spacing // 2, width, spacing)
    y, x = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    sparse = torch.zeros_like(fields)
    for clip, tracked in zip(fields, sparse, strict=True):
        position = torch.tensor(np.stack([x, y]), dtype=torch.float32, device=fields.device)
        alive = torch.ones(len(x), dtype=torch.bool, device=fields.device)
        for field, out in zip(clip, tracked, strict=True):
            column, row = position.long()  # truncated, as the original does
            alive &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
            step = field[:, row, column]
            out[:, row[alive], column[alive]] = step[:, alive]
            position = position + step
    return sparse


class DragNUWARenderer(DiffusionRenderer):
    """Reanimate with a video diffusion model that obeys dense flow.

    DragNUWA 1.5 is what the published BrainNRDS used. With ``reference="first"`` and
    a model whose flow branch reads three channels, this is MotionPro-Dense.

    Parameters
    ----------
    model : VideoModel
        With flow branch: ``load_video_model(base, checkpoint=...)``.
    reference : {"consecutive", "first"}, default="consecutive"
        What a slice of flow says: the motion since the last frame, written where the point was
        (DragNUWA), or the displacement since the first frame, written at its place there
        (MotionPro-Dense).
    flow_mode : {"dense", "sparse"}, default="dense"
        Dense: the flow as it is. Sparse: tracks sampled from it, spread by `sparse_flow`. The
        original saw dense flow first in training and tracks last; which suits decoded flow
        better has to be measured with the weights.
    fps_id : int, default=4
        As the original, whatever `duration`: what its frames and flow last was not published.
    motion_bucket_id : float or None, default=None
        None: the mean length of the flow in pixels of `size`, within [1, 100], for each clip;
        an assumption, from MotionPro's training code.
    **sampling
        See `Sampling`; here `n_frames` is 14 (give 16 to MotionPro-Dense), `max_guidance` 2.5 and
        `decode_frames` 1, as the original. Its own `size` is 320 x 576.
    """

    _own = Sampling(n_frames=14, max_guidance=2.5, decode_frames=1)

    def __init__(
        self,
        model,
        *,
        reference="consecutive",
        flow_mode="dense",
        fps_id=4,
        motion_bucket_id=None,
        **sampling,
    ):
        super().__init__(model, **sampling)
        self.reference = reference
        self.flow_mode = flow_mode
        self.fps_id = fps_id
        self.motion_bucket_id = motion_bucket_id

    def _sample(self, frames, flow, embedding, latents, noise):
        ids = torch.tensor(
            [[self.fps_id, self._bucket(f), self.sampling.noise_level] for f in flow],
            device=noise.device,
        )
        return self._denoise(latents, embedding, ids, self._condition(flow), noise)

    def _check(self):
        if self.reference not in ("consecutive", "first"):
            raise InputError(
                f"`reference` must be 'consecutive' or 'first'; got {self.reference!r}."
            )
        if self.flow_mode not in ("dense", "sparse"):
            raise InputError(f"`flow_mode` must be 'dense' or 'sparse'; got {self.flow_mode!r}.")
        if self.flow_mode == "sparse" and self.reference == "first":
            raise InputError("`flow_mode='sparse'` needs `reference='consecutive'`.")
        if not self.model.unet.flow_channels:
            raise InputError("`model` must have a flow branch: pass `checkpoint` when loading it.")

    def _bucket(self, fields):
        if self.motion_bucket_id is not None:
            return float(self.motion_bucket_id)
        return float(fields.norm(dim=1).mean().clamp(1, 100))

    def _condition(self, fields):
        """Flow as the UNet reads it, (n, n_frames, 2 or 3, h, w), from fields in pixels."""
        if self.flow_mode == "sparse":
            flow = sparse_flow(_follow_tracks(fields, TRACK_SPACING))
        elif self.reference == "first":
            moved = accumulate_flow(fields.cpu().numpy())
            flow = F.pad(torch.from_numpy(moved).to(fields), (0, 0) * 3 + (1, 0))
        else:
            flow = F.pad(fields, (0, 0) * 3 + (1, 0))
        if self.model.unet.flow_channels == 2:
            return flow
        visible = _visibility(flow, self.reference).to(flow)
        return torch.cat([flow, visible], dim=2)


def _visibility(flow, reference):
    """1 where a point of the first frame is still in the image, (n, n_frames, 1, h, w)."""
    flow = flow.cpu().numpy()
    if reference == "consecutive":
        flow = accumulate_flow(flow)
    inside = np.stack([in_frame(clip) for clip in flow])
    return torch.from_numpy(inside.astype(np.float32))[:, :, None]
