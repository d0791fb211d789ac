"""
Which voxels carry the motion?
==============================

Two questions that are easily mixed up. What does the decoder *use*? Silence a region in the fitted
decoder, or map the derivative of the decoded flow. What does a region *carry*? Train anew with
that region alone, or without it.
"""

# sphinx_gallery_thumbnail_number = 1
import matplotlib.pyplot as plt
import numpy as np

from brainnrds import MotionDecoder
from brainnrds.datasets import make_flow_samples
from brainnrds.decoding import compare_lesions
from brainnrds.plotting import plot_bars

# %%
# A third of the voxels answers to patches of motion, a third to the camera, a third to nothing.

samples = make_flow_samples(n_films=12, random_state=0)
test = samples.films >= 8
rois = {name: samples.regions == name for name in ("patches", "camera", "none")}
decoder = MotionDecoder(
    16,
    n_bold_channels=64,
    n_channels=32,
    n_epochs=10,
    batch_size=32,
    learning_rate=3e-3,
    random_state=0,
).fit(
    samples.bold[~test],
    samples.flow[~test],
    image_features=samples.image_features[~test],
    runs=samples.films[~test],
    films=samples.films[~test],
)

# %%
# What the decoder uses: the error that silencing each region adds.

data = {
    "test": test,
    "t_r": samples.t_r,
    "image_features": samples.image_features,
    "runs": samples.films,
    "films": samples.films,
    "random_state": 0,
}
silenced = compare_lesions(decoder, samples.bold, samples.flow, rois=rois, **data)
print(silenced.round(4).to_string())
plot_bars(silenced["loss_px"].to_dict(), label="added error (grid px per step)", chance=0.0)

# %%
# What a region carries: trained without it, and with it alone. Trainings differ in error, so each
# network is trained twice, and the interval holds their spread; with more trainings it narrows.

refitted = compare_lesions(
    decoder,
    samples.bold,
    samples.flow,
    rois={"camera": rois["camera"]},
    refit=True,
    n_seeds=2,
    **data,
)
print(refitted.round(4).to_string())

# %%
# The map of what the decoder uses, voxel by voxel. With real data `masker.inverse_transform` and
# `plot_flatmap` put it on the cortex.

importance = decoder.voxel_importance(
    samples.bold[test],
    image_features=samples.image_features[test],
    runs=samples.films[test],
    random_state=0,
)
figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
for name, voxels in rois.items():
    axes.plot(np.flatnonzero(voxels), importance[voxels], ".", label=name)
axes.set(xlabel="voxel", ylabel="px per standard deviation")
axes.legend(frameon=False)
