"""From a still frame and flow to video: renderers, and the estimator that joins them to a decoder.

`SplatRenderer` needs no weights. The diffusion renderers need weights that the user obtains.
"""

from brainnrds.reanimation.controls import compare_renderings, rendering_flows, score_clips
from brainnrds.reanimation.dragnuwa import DragNUWARenderer, load_flow_unet, sparse_flow
from brainnrds.reanimation.initial_frame import InitialFrameDecoder
from brainnrds.reanimation.reanimator import Reanimator
from brainnrds.reanimation.svd import (
    ImageToVideoRenderer,
    Sampling,
    VideoModel,
    load_video_model,
    sample_video_latents,
)
from brainnrds.reanimation.time_to_move import TimeToMoveRenderer
from brainnrds.reanimation.wan_vace import WanVACEModel, WanVACERenderer, load_wan_vace
from brainnrds.reanimation.warp import SplatRenderer

__all__ = [
    "DragNUWARenderer",
    "ImageToVideoRenderer",
    "InitialFrameDecoder",
    "Reanimator",
    "Sampling",
    "SplatRenderer",
    "TimeToMoveRenderer",
    "VideoModel",
    "WanVACEModel",
    "WanVACERenderer",
    "compare_renderings",
    "load_flow_unet",
    "load_video_model",
    "load_wan_vace",
    "rendering_flows",
    "sample_video_latents",
    "score_clips",
    "sparse_flow",
]
