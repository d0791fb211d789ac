"""Motion control of stock Stable Video Diffusion without training: Time-to-Move.

Written from the description in Singer et al. 2025, "Time-to-Move: Training-free motion controlled
video generation via dual-clock denoising" (arXiv 2511.08633).
"""

import cv2
import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch.nn import functional as F

from brainnrds._checks import InputError
from brainnrds.flow import accumulate_flow, dominant_motion
from brainnrds.reanimation.svd import (
    check_seeds,
    generate_clips,
    karras_sigmas,
    sample_video_latents,
)
from brainnrds.reanimation.warp import SplatRenderer, check_frames_and_flow

__all__ = ["TimeToMoveRenderer"]

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0


class TimeToMoveRenderer(BaseEstimator):
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
    n_frames : int or None, default=None
        None: as many as the UNet was trained for.
    size : (height, width) or None, default=None
        Size to run at; see `ImageToVideoRenderer`.
    num_steps : int, default=50
    weak_step, strong_step : int, default=16, 21
        The two clocks, in steps: 0 is pure noise; later is closer to the guide.
    min_motion : float, default=1.0
        Pixels, over the clip, that count as motion.
    min_guidance, max_guidance : float, default=1.0, 3.0
    fps : int, default=7
    motion_bucket_id : float, default=127
    noise_level : float, default=0.02
    decode_frames : int or None, default=None
        Frames decoded together; None: all.
    batch_size : int or None, default=None
        Clips at a time; None: by free memory.
    random_state : int, default=0
        Seed of the first clip; the next have the next ints.
    """

    stochastic = True

    def __init__(
        self,
        model,
        *,
        n_frames=None,
        size=None,
        num_steps=50,
        weak_step=16,
        strong_step=21,
        min_motion=1.0,
        min_guidance=1.0,
        max_guidance=3.0,
        fps=7,
        motion_bucket_id=127,
        noise_level=0.02,
        decode_frames=None,
        batch_size=None,
        random_state=0,
    ):
        self.model = model
        self.n_frames = n_frames
        self.size = size
        self.num_steps = num_steps
        self.weak_step = weak_step
        self.strong_step = strong_step
        self.min_motion = min_motion
        self.min_guidance = min_guidance
        self.max_guidance = max_guidance
        self.fps = fps
        self.motion_bucket_id = motion_bucket_id
        self.noise_level = noise_level
        self.decode_frames = decode_frames
        self.batch_size = batch_size
        self.random_state = random_state

    @property
    def licence(self):
        """Terms of the weights."""
        return self.model.licence

    def __call__(self, initial_frames, flow, *, seeds=None):
        """Generate clips.

        Parameters
        ----------
        initial_frames : array of shape (n_clips, 3, height, width)
            In [0, 1].
        flow : array of shape (n_clips, n_steps, 2, h, w)
            Pixels of its own grid per step; any grid and number of steps.
        seeds : array of int of shape (n_clips,) or None, default=None
            One per clip; a clip's noise depends on its seed alone.

        Returns
        -------
        clips : array of float32 of shape (n_clips, n_frames, 3, height, width)
            In [0, 1]; of `size` where that is given.
        """
        initial_frames, flow = check_frames_and_flow(initial_frames, flow)
        if self.model.unet.flow_channels:
            raise InputError("`model` must be stock Stable Video Diffusion; it has a flow branch.")
        if not 0 <= self.weak_step <= self.strong_step < self.num_steps:
            raise InputError(
                "`weak_step` <= `strong_step` < `num_steps` must hold; got "
                f"{self.weak_step}, {self.strong_step} and {self.num_steps}."
            )
        n_frames = self.n_frames or self.model.unet.config["num_frames"]
        splat = SplatRenderer(n_frames)
        sigmas = karras_sigmas(self.num_steps, SIGMA_MIN, SIGMA_MAX)

        def sample(frames, fields, embedding, latents, noise):
            fields = fields.cpu().numpy()
            guide = splat((frames.cpu().numpy() + 1) / 2, fields)
            guide = torch.from_numpy(guide).to(frames) * 2 - 1
            guide = self.model.encode_clips(guide)
            prescribed = _prescribed(fields, self.min_motion, guide.shape[3:]).to(guide)
            ids = torch.tensor(
                [[self.fps - 1, self.motion_bucket_id, self.noise_level]], device=noise.device
            )

            def after_step(step, current, next_sigma):
                if step >= self.strong_step:
                    return current
                return torch.lerp(current, guide + next_sigma * noise, prescribed)

            return sample_video_latents(
                self.model.unet,
                latents,
                embedding,
                ids.expand(len(noise), -1),
                None,
                num_steps=self.num_steps,
                min_guidance=self.min_guidance,
                max_guidance=self.max_guidance,
                sigma_min=SIGMA_MIN,
                sigma_max=SIGMA_MAX,
                initial_noise=guide + sigmas[self.weak_step] * noise,
                start_step=self.weak_step,
                after_step=after_step,
            )

        return generate_clips(
            self.model,
            initial_frames,
            flow,
            sample,
            n_frames=n_frames,
            size=self.size,
            seeds=check_seeds(seeds, len(flow), self.random_state),
            noise_level=self.noise_level,
            batch_size=self.batch_size,
            decode_frames=self.decode_frames or n_frames,
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
