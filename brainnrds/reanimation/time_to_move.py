"""Motion control of stock Stable Video Diffusion without training: Time-to-Move.

Written from the description in Singer et al. 2025, "Time-to-Move: Training-free motion controlled
video generation via dual-clock denoising" (arXiv 2511.08633).
"""

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from brainnrds._checks import InputError
from brainnrds.flow import accumulate_flow, dominant_motion
from brainnrds.reanimation.svd import DiffusionRenderer, Sampling, karras_sigmas
from brainnrds.reanimation.warp import splat_clips

__all__ = ["TimeToMoveRenderer"]

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0


class TimeToMoveRenderer(DiffusionRenderer):
    """Reanimate with stock Stable Video Diffusion, steered by a splatted guide.

    The splatted clip is a crude but motion-true guide. Sampling starts from it, noised to the
    level of step `weak_step`. Until `strong_step`, the latents where motion is prescribed are
    replaced after every step by the guide at that step's noise; elsewhere, and from then on,
    they are denoised freely. No weights beyond the base model's, no extra cost per step.

    Prescribed is what moves against the dominant motion, where it was and where it goes; with
    a moving camera (dominant motion above `min_motion`), everything.

    Parameters
    ----------
    model : VideoModel
        Stock Stable Video Diffusion; see `load_video_model`.
    weak_step, strong_step : int, default=16, 21
        The two clocks, in steps: 0 is pure noise; later is closer to the guide.
    min_motion : float, default=1.0
        Pixels, over the clip, that count as motion.
    motion_bucket_id : float, default=127
    **sampling
        See `Sampling`; here `num_steps` is 50.
    """

    _own = Sampling(num_steps=50)

    def __init__(
        self,
        model,
        *,
        weak_step=16,
        strong_step=21,
        min_motion=1.0,
        motion_bucket_id=127,
        **sampling,
    ):
        super().__init__(model, **sampling)
        self.weak_step = weak_step
        self.strong_step = strong_step
        self.min_motion = min_motion
        self.motion_bucket_id = motion_bucket_id

    def _check(self):
        super()._check()
        num_steps = self.sampling.num_steps
        if not 0 <= self.weak_step <= self.strong_step < num_steps:
            raise InputError(
                "`weak_step` <= `strong_step` < `num_steps` must hold; got "
                f"{self.weak_step}, {self.strong_step} and {num_steps}."
            )

    def _sample(self, frames, flow, embedding, latents, noise):
        fields = flow.cpu().numpy()
        guide = splat_clips((frames.cpu().numpy() + 1) / 2, fields)
        guide = torch.from_numpy(guide).to(frames) * 2 - 1
        guide = self.model.encode_clips(guide)
        prescribed = _prescribed(fields, self.min_motion, guide.shape[3:]).to(guide)
        sigmas = karras_sigmas(self.sampling.num_steps, SIGMA_MIN, SIGMA_MAX)

        def after_step(step, current, next_sigma):
            if step >= self.strong_step:
                return current
            return torch.lerp(current, guide + next_sigma * noise, prescribed)

        return self._denoise(
            latents,
            embedding,
            self._added_time_ids(noise, self.motion_bucket_id),
            None,
            guide + sigmas[self.weak_step] * noise,
            sigma_min=SIGMA_MIN,
            sigma_max=SIGMA_MAX,
            start_step=self.weak_step,
            after_step=after_step,
        )


def _prescribed(fields, min_motion, latent_size):
    """Where motion is prescribed, in [0, 1]: (n, n_frames, 1, h / 8, w / 8)."""
    n_clips, n_steps, _, height, width = fields.shape
    masks = np.zeros((n_clips, n_steps + 1, height, width), dtype=np.float32)
    for mask, moved in zip(masks, accumulate_flow(fields), strict=True):
        dominant = dominant_motion(moved[None, -1:, :, ::8, ::8])[0, 0]
        if np.median(np.linalg.norm(dominant, axis=0)) > min_motion:
            mask[:] = 1
            continue
        size = (width, height)
        dominant = np.stack([cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in dominant])
        mover = np.linalg.norm(moved[-1] - dominant, axis=0) > min_motion
        mask[:] = mover
        rows, columns = np.nonzero(mover)
        for frame, displacement in zip(mask[1:], moved, strict=True):
            x = np.rint(columns + displacement[0, rows, columns]).astype(int)
            y = np.rint(rows + displacement[1, rows, columns]).astype(int)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            frame[y[inside], x[inside]] = 1
    masks = torch.from_numpy(masks)
    return F.adaptive_max_pool2d(masks, latent_size)[:, :, None]
