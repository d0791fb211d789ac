"""
Reanimate with video diffusion
==============================

Needs weights that you obtain yourself, a GPU, and ``pip install 'brainnrds[diffusion]'``. Read the
licence on each model's page first. This script is not run when the documentation is built.

    python run_diffusion_renderers.py --base stabilityai/stable-video-diffusion-img2vid \
        --checkpoint drag_nuwa_svd.pth --wan Wan-AI/Wan2.1-VACE-1.3B-diffusers --film film.mp4
"""

# the frame: Big Buck Bunny, (c) Blender Foundation, CC BY 3.0
# sphinx_gallery_thumbnail_path = "images/flow_on_frame.png"
import argparse
from pathlib import Path

import numpy as np

from brainnrds.features import OpticalFlow
from brainnrds.io import read_clip, write_clip
from brainnrds.plotting import side_by_side
from brainnrds.reanimation import (
    DragNUWARenderer,
    ImageToVideoRenderer,
    SplatRenderer,
    TimeToMoveRenderer,
    WanVACERenderer,
    load_video_model,
    load_wan_vace,
    score_clips,
)

parser = argparse.ArgumentParser()
parser.add_argument("--base", required=True, help="Stable Video Diffusion: folder or hub id")
parser.add_argument("--checkpoint", help="DragNUWA's weights")
parser.add_argument("--wan", help="Wan 2.1 VACE: folder or hub id")
parser.add_argument("--film", type=Path, required=True)
parser.add_argument("--start", type=float, default=0.0, help="s")
parser.add_argument("--device", default="cuda")
parser.add_argument("--dtype", default="float16")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--output", type=Path, default=Path("reanimated.mp4"))
options = parser.parse_args()

size = (320, 576)
clip = read_clip(options.film, start=options.start, duration=2.0, fps=7, size=size)
flow = OpticalFlow().transform(clip[None])
frames = clip[:1]
settings = {"device": options.device, "dtype": options.dtype, "compile": options.compile}

rows = {"film": clip, "splatting": SplatRenderer(len(clip))(frames, flow)[0]}

stock = load_video_model(options.base, **settings)
print(stock.licence)
rows["stock"] = ImageToVideoRenderer(stock, n_frames=len(clip))(frames, flow)[0]
rows["Time-to-Move"] = TimeToMoveRenderer(stock, n_frames=len(clip))(frames, flow)[0]
del stock

if options.checkpoint:
    model = load_video_model(options.base, checkpoint=options.checkpoint, **settings)
    renderer = DragNUWARenderer(model)
    rows["DragNUWA"] = renderer(frames, flow)[0]
    # the control that every such clip needs: the same generator, told that nothing moves
    rows["DragNUWA, zero flow"] = renderer(frames, np.zeros_like(flow))[0]

if options.wan:
    model = load_wan_vace(options.wan, device=options.device, dtype="bfloat16")
    print(model.licence)
    # which speed has full colour? the one whose clip moves most like the film
    errors = {}
    for max_motion in (0.1, 0.2, 0.4, 0.8):
        renderer = WanVACERenderer(model, n_frames=len(clip), max_motion=max_motion)
        rows[f"Wan VACE, {max_motion:g}"] = clips = renderer(frames, flow)[0]
        errors[max_motion] = score_clips(clips[None], clip[None]).flow_error_px[0]
    print("flow error (px of a grid of 32 x 32 per third of the clip) by max_motion:", errors)

write_clip(options.output, side_by_side(rows, n_columns=3), fps=7)
print(options.output)
