"""
Features of a film from pretrained networks
===========================================

Frozen networks look at a film, layer by layer. This page has no network connection and builds tiny
networks with random weights; with yours, only the names change: ``VideoEncoder("videomae-large")``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers

from brainnrds.analyses import extract_features
from brainnrds.features import FeatureProjection, ImageEncoder, VideoEncoder, list_encoders
from brainnrds.io import iter_clips, write_clip

print(list_encoders()[["kind", "hub_id", "licence"]].to_string())

# %%
# Two tiny networks
# -----------------
# Any folder in the hub's layout will do: a configuration, weights, and the processor that says how
# frames are resized and normalised.

folder = Path(tempfile.mkdtemp())
torch.manual_seed(0)
sizes = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
networks = {
    "video": transformers.VideoMAEModel(
        transformers.VideoMAEConfig(
            **sizes, intermediate_size=96, image_size=64, patch_size=16, num_frames=8
        )
    ),
    "image": transformers.Dinov2Model(
        transformers.Dinov2Config(**sizes, image_size=64, patch_size=16)
    ),
}
for name, network in networks.items():
    network.save_pretrained(folder / name)
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    ).save_pretrained(folder / name)

# %%
# A film
# ------
# A texture drifts to the right, rests, and drifts to the left.

rng = np.random.default_rng(0)
texture = np.kron(rng.uniform(size=(3, 12, 20)), np.ones((8, 8)))
speed = np.repeat([2, 0, -2], 12 * 8)  # px per frame, 12 frames per second
frames = [np.roll(texture, shift, axis=2) for shift in np.cumsum(speed)]
film = write_clip(folder / "film.mp4", np.stack(frames).astype(np.float32), fps=12)
times, duration = np.arange(0, 23.0), 1.0

# %%
# Every frame is decoded once, for all encoders
# ---------------------------------------------

extractors = {
    "video": VideoEncoder(folder / "video", layers=[0, 1, 2, 3]),
    "image": ImageEncoder(folder / "image", layers=[0, 1, 2, 3], fps=4),
}
films = [(film, times, duration)]
features = extract_features(films, extractors, store_dir=folder / "store", progress=False)
for name, (X,) in features.items():
    print(f"{name}: {X.shape}, layers in columns {extractors[name].feature_spaces()}")

# %%
# A second call only reads the store, also for a copy of the film under another name.

print([path.name for path in sorted((folder / "store").iterdir())])

# %%
# What the features tell apart
# ----------------------------
# Correlations between clips: three parts of the film for both, one of them at rest.

figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for axis, (name, (X,)) in zip(axes, features.items(), strict=True):
    X = X - X.mean(0)
    image = axis.imshow(np.corrcoef(X), vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set(title=f"{name} network", xlabel="clip (s)", ylabel="clip (s)")
figure.colorbar(image, ax=axes, label="correlation of features")

# %%
# A grid for the motion decoder
# -----------------------------
# `MotionDecoder` wants to know what is where in the initial frame: the grid of patches over the
# whole frame. Shown is how much the patches of one frame differ from their mean.

encoder = ImageEncoder(
    folder / "image", pooling="grid", sampling="first", image_size=128, framing="whole"
)
clip = next(iter_clips(film, [0.0], duration, fps=4))
grid = encoder.transform([clip])[0]  # (n_channels, rows, columns)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
axes[0].imshow(clip[0].transpose(1, 2, 0))
axes[0].set(title="initial frame", xticks=[], yticks=[])
axes[1].imshow(np.linalg.norm(grid - grid.mean((1, 2), keepdims=True), axis=0))
axes[1].set(title=f"grid of {grid.shape[1]} x {grid.shape[2]} patches", xticks=[], yticks=[])

# %%
# Fewer columns, learnt from training clips only
# ----------------------------------------------

train, test = np.arange(16), np.arange(16, 23)
projection = FeatureProjection(5, feature_spaces=extractors["video"].feature_spaces())
X = features["video"][0]
print(projection.fit(X[train]).transform(X[test]).shape, projection.feature_spaces_)
