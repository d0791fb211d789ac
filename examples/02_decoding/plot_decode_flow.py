"""
Decode what moved where
=======================

BOLD and the initial frame of each clip go in, dense optical flow comes out. The data are made here
and their truth is known: patches of motion and camera pans that only the brain knows, and a part
of the motion that the frame gives away.
"""

# sphinx_gallery_thumbnail_number = 2
import numpy as np

from brainnrds import MotionDecoder
from brainnrds.datasets import make_flow_samples
from brainnrds.metrics import end_point_error, flow_cosine
from brainnrds.plotting import plot_flow_strips, plot_flow_wheel, plot_learning_curve

# %%
# Twelve films of 60 clips, one volume each: BOLD (n_volumes, n_voxels), flow (n_clips, n_steps, 2,
# height, width) in pixels of its grid per step, and image features of each clip's initial frame.

samples = make_flow_samples(n_films=12, random_state=0)
test = samples.films >= 8
print(samples.bold.shape, samples.flow.shape, samples.image_features.shape)

# %%
# The window of BOLD holds the volumes 0 to 8 s after the clip: delays are negative, because the
# response comes later than the clip. Two of the training films are held out to stop early.

decoder = MotionDecoder(
    16,
    delays=(-4, -3, -2, -1, 0),
    n_bold_channels=64,
    n_channels=32,
    n_epochs=15,
    batch_size=32,
    learning_rate=3e-3,
    validation_share=0.2,
    random_state=0,
)
decoder.fit(
    samples.bold[~test],
    samples.flow[~test],
    image_features=samples.image_features[~test],
    runs=samples.films[~test],
    films=samples.films[~test],
)
plot_learning_curve(decoder.history_, best_epoch=decoder.best_epoch_)

# %%
# Flow of films that it has never seen. One number alone says little: the next example puts
# controls beside it.

seen = {"image_features": samples.image_features[test], "runs": samples.films[test]}
flow = decoder.predict(samples.bold[test], **seen)
true = samples.flow[test]
print(f"end-point error {end_point_error(flow, true, average='clips'):.3f} px of the grid per step")
print(f"without motion  {end_point_error(0 * flow, true, average='clips'):.3f}")
print(f"flow cosine     {flow_cosine(flow, true, average='clips'):.3f}")

error = end_point_error(flow, true, average="none") / np.linalg.norm(true, axis=2).mean((1, 2, 3))
order = np.argsort(error)
chosen = order[[0, len(order) // 2, -1]]
plot_flow_strips(
    {"truth": true[chosen], "decoded": flow[chosen], "zero": 0 * flow[chosen]},
    row_labels=["best", "median", "worst"],
)

# %%
# Hue is direction, saturation is speed.

plot_flow_wheel()

# %%
# Every cell holds a distribution over the codes of the flow codebook. Its spread is an uncertainty,
# in pixels.

uncertainty = decoder.predict_uncertainty(samples.bold[test], **seen)
print(
    f"spread {uncertainty.mean():.3f} px, from {uncertainty.min():.3f} to {uncertainty.max():.3f}"
)
