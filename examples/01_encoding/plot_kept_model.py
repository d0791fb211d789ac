"""
A kept model predicts another film
==================================

A fit is saved without pickle, read again, and asked two things: what would BOLD be in a film that
it has not seen, and when do voxels respond?
"""

# sphinx_gallery_thumbnail_number = 1
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from brainnrds import VideoEncodingModel, load_runs, movie_features
from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import response_times
from brainnrds.features import MotionEnergy, StaticEnergy
from brainnrds.plotting import plot_flatmap

sample = make_movie_dataset(
    Path(tempfile.gettempdir()) / "brainnrds-sample",
    n_runs=2,
    n_films_per_run=2,
    n_test_films=2,
    n_test_repeats=4,
    film_duration=60,
    snr=1.0,
)
data = load_runs(sample.bids_dir, subject="01")
folder = Path(tempfile.gettempdir()) / "brainnrds-features"
extractors = {"video": MotionEnergy(), "image": StaticEnergy()}
X, spaces = movie_features(data, extractors, store_dir=folder, progress=False)

# %%
# Fitted, saved, read
# -------------------
# The test films, which share scanner runs, are left out. The file holds what predicts and what was
# chosen; `metadata` is yours.

left_out = [name for name in data.film_names if name.startswith("test")]
test = data.shows(*left_out)
truth = sample.truth["01"].label
voxels = np.flatnonzero(truth != "none")
train = data[~test]
model = VideoEncodingModel(spaces, delays=data.delays, n_iter=8, random_state=0)
model.fit(X[~test], train.bold[:, voxels], **train.labels)

path = model.save(Path(tempfile.mkdtemp()) / "model.h5", metadata={"left out": left_out})
again = VideoEncodingModel.load(path)
print(f"{path.stat().st_size / 2**20:.1f} MiB, left out: {again.metadata_['left out']}")

# %%
# Another film
# ------------
# Predicted and measured, averaged over the voxels that answer to motion. The mean over four
# presentations still has noise, which no model predicts.

unseen = data[test]
predicted = again.predict(X[test], runs=unseen.runs)
motion = truth[voxels] == "motion"
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for series, label, color in (
    (unseen.bold[:, voxels][:, motion].mean(1), "measured", "0.5"),
    (predicted[:, motion].mean(1), "predicted", "#c23b22"),
):
    shown = unseen.presentations == unseen.presentations[0]
    axes.plot(unseen.film_times[shown], series[shown], label=label, color=color)
axes.set(xlabel="s from the film's onset", ylabel="BOLD (SD)", title="Voxels of motion")
axes.legend(frameon=False)
plt.show()

r = again.score_map(X[test], unseen.bold[:, voxels], **unseen.labels)
print(f"mean r in voxels of motion: {np.nanmean(r[motion]):.2f}")

# %%
# When do voxels respond?
# -----------------------
# The weights of all features at four delays are close to one time course times one weight for each
# feature. Planted was a peak 6 s after the beginning of a clip. Weights of minutes of film are
# noisy: what counts is the middle of many voxels.

times = response_times(again, "video")
peak = np.where(r > 0.2, times.peak * data.t_r, np.nan)
print(f"median time to peak: {np.nanmedian(peak):.1f} s")
print(f"highest at the last delay: {times.at_last[r > 0.2].mean():.0%} of voxels")
everywhere = np.full(data.bold.shape[1], np.nan, dtype=np.float32)
everywhere[voxels] = peak
plot_flatmap(
    data.to_image(everywhere), label="time to peak (s)", cmap="viridis", vmin=2, vmax=8,
    title="When motion energy is answered",
)  # fmt: skip
plt.show()

# %%
# In the App, ``--keep model`` (the default) writes such a file for every participant, with these
# maps, and ``brainnrds-predict model.h5 output_dir new.mp4`` predicts the BOLD of new films.
