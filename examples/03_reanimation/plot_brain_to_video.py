"""
From BOLD to video, with no one else's output
=============================================

A motion decoder says what moved where, an initial-frame decoder says what was there, and the
splatting renderer makes video of both: no pretrained network takes part. The BOLD is simulated from
real footage, so the truth is known, and the question is the one that matters: **what did the brain
add** to what the renderer does by itself?
"""

# sphinx_gallery_thumbnail_number = 1
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from brainnrds import MotionDecoder, Reanimator
from brainnrds.decoding import fit_image_only
from brainnrds.io import read_clip, write_clip
from brainnrds.plotting import plot_clip_strips, side_by_side
from brainnrds.reanimation import (
    InitialFrameDecoder,
    SplatRenderer,
    compare_renderings,
    rendering_flows,
    score_clips,
)

random = np.random.default_rng(0)
n_films, n_clips, n_frames, side = 10, 20, 7, 48

# %%
# Clips of 2 s: a window that pans over frames of two films, in a direction that changes from clip
# to clip. The scene moves against the window, so the true flow is minus the pan.

footage = [
    read_clip(files("brainnrds.datasets") / "data" / name, duration=4.0, fps=3, size=112)
    for name in ("bunny.mp4", "pedestrians.mp4")
]
clips = np.empty((n_films * n_clips, n_frames, 3, side, side), dtype=np.float32)
pans = random.choice([-2, -1, 1, 2], size=(len(clips), 2))
for clip, (dx, dy) in zip(clips, pans, strict=True):
    film = footage[random.integers(2)]
    picture = film[random.integers(len(film))]
    reach = (n_frames - 1) * 2
    x = random.integers(reach, picture.shape[2] - side - reach)
    y = random.integers(reach, picture.shape[1] - side - reach)
    for t in range(n_frames):
        left, top = x + dx * t, y + dy * t
        clip[t] = picture[:, top : top + side, left : left + side]

n_steps, grid = 3, 8
per_step = -pans * n_frames / n_steps * grid / side  # the steps span the clip
flow = np.zeros((len(clips), n_steps, 2, grid, grid), dtype=np.float32) + per_step[
    :, None, :, None, None
].astype(np.float32)

# %%
# BOLD: voxels that mix the pan with coarse colours of the initial frame, in noise.

coarse = clips[:, 0].reshape(len(clips), 3, 6, 8, 6, 8).mean(axis=(3, 5)).reshape(len(clips), -1)
coarse = (coarse - coarse.mean(axis=0)) / coarse.std(axis=0)
signals = np.hstack([4 * pans, coarse])
bold = signals @ random.normal(size=(signals.shape[1], 300)) / 8
bold = (bold + random.normal(size=bold.shape)).astype(np.float32)

films = np.repeat(np.arange(n_films), n_clips)
train, test = films < 8, films >= 8

# %%
# One estimator joins the three parts.

reanimator = Reanimator(
    MotionDecoder(16, delays=(0,), n_epochs=20, n_bold_channels=64, n_channels=32, random_state=0),
    renderer=SplatRenderer(n_frames),
    frame_decoder=InitialFrameDecoder(delays=(0,), size=(48, 48), random_state=0),
)
reanimator.fit(
    bold[train],
    flow[train],
    initial_frames=clips[train, 0],
    runs=films[train],
    films=films[train],
)
all_brain = reanimator.predict(bold[test], runs=films[test])

# %%
# With the film's own initial frames, the same renderer is fed with decoded flow and with controls.

frames, renderer = clips[test, 0], reanimator.renderer
blocks = np.arange(test.sum()) // 4
decoder = reanimator.decoder_
no_brain = fit_image_only(decoder, bold[train], flow[train], runs=films[train], films=films[train])
sources = rendering_flows(
    decoder,
    bold[test],
    blocks=blocks,
    runs=films[test],
    others={"image_only": no_brain},
    random_state=0,
)
sources["true"] = flow[test]
rendered = {name: renderer(frames, source) for name, source in sources.items()}

i = 5
clips_of = {
    "film": clips[test][i],
    "decoded flow": rendered["decoded"][i],
    "no flow": rendered["zero"][i],
    "permuted BOLD": rendered["permuted"][i],
    "all from BOLD": all_brain[i],
}
plot_clip_strips(clips_of)

# %%
# The same clips, moving.

enlarged = {name: clip.repeat(3, axis=2).repeat(3, axis=3) for name, clip in clips_of.items()}
movie = write_clip(Path(tempfile.mkdtemp()) / "reanimated.gif", side_by_side(enlarged), fps=4)

# %%
# The table. ``gain`` is how much better decoded flow scores than the row's; p flips the signs of
# blocks of neighbouring clips.

scores = {name: score_clips(clip, clips[test]) for name, clip in rendered.items()}
table = compare_renderings(scores, blocks=blocks, random_state=0)
print(table[table.score.isin(["ssim", "flow_error_px"])].round(3).to_string(index=False))
