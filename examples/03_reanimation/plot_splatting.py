"""
Move a still frame along flow
=============================

The default renderer needs no weights: it moves the pixels of the initial frame along the flow, lets
what moves against the camera lie in front, and paints over what it uncovers once. Here the flow is
the true one, brought down to the grid on which a brain decoder works.
"""

# sphinx_gallery_thumbnail_number = 1
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from brainnrds.features import OpticalFlow
from brainnrds.io import read_clip, write_clip
from brainnrds.plotting import plot_clip_strips, side_by_side
from brainnrds.reanimation import SplatRenderer, score_clips

# %%
# Two seconds of film, at the 14 frames of the published work, and its flow: 32 x 32 cells in three
# steps, in pixels of that grid per step.

film = files("brainnrds.datasets") / "data" / "bunny.mp4"
clip = read_clip(film, start=0.5, duration=2.0, fps=7)
flow = OpticalFlow().transform(clip[None])
print(clip.shape, flow.shape)

# %%
# The renderer takes initial frames and flow on any grid, in any number of steps.

renderer = SplatRenderer(n_frames=len(clip))
initial_frame = clip[:1]
moved = renderer(initial_frame, flow)
frozen = renderer(initial_frame, np.zeros_like(flow))
backward = renderer(initial_frame, -flow)

clips_of = {"film": clip, "true flow": moved[0], "no flow": frozen[0], "reversed": backward[0]}
plot_clip_strips(clips_of, fps=7)

# %%
# The same clips, moving.

small = {name: clip[..., ::2, ::2] for name, clip in clips_of.items()}
movie = write_clip(Path(tempfile.mkdtemp()) / "moved.gif", side_by_side(small), fps=7)

# %%
# A number for each. Flow error is the difference between the clip's own motion and the film's, in
# pixels of a grid of 32 x 32; structural similarity leaves out the first frame, which was given.

for name, clips in (("true flow", moved), ("no flow", frozen), ("reversed", backward)):
    scores = score_clips(clips, clip[None])
    print(f"{name:10s} SSIM {scores.ssim[0]:.3f}   flow error {scores.flow_error_px[0]:.2f} px")
