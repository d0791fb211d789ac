"""
Video > Image, with its significance
====================================

Where do features of the moving video predict better than features of still frames? Two
comparisons, one test, and the planted truth beside them.
"""

# sphinx_gallery_thumbnail_number = 2
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from brainnrds import VideoEncodingModel, load_runs, movie_features
from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import (
    compare_feature_spaces,
    held_out_predictions,
    models_of,
    select_feature_spaces,
)
from brainnrds.features import MotionEnergy, StaticEnergy
from brainnrds.plotting import plot_difference_map, plot_score_comparison

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

# %%
# Two disjoint feature spaces
# ---------------------------
# Gabor filters that move, and Gabor filters that do not.

folder = Path(tempfile.gettempdir()) / "brainnrds-features"
extractors = {"video": MotionEnergy(), "image": StaticEnergy()}
X, spaces = movie_features(data, extractors, store_dir=folder, progress=False)

# %%
# Held-out predictions
# --------------------
# Every film is predicted from models that were fitted without it, and without the film that was
# shown in the same scanner runs. To keep this page quick, only voxels that answer to something are
# fitted, and some that answer to nothing.

truth = sample.truth["01"].label
rng = np.random.default_rng(0)
some_none = rng.choice(np.flatnonzero(truth == "none"), size=1500, replace=False)
voxels = np.sort(np.concatenate([np.flatnonzero(truth != "none"), some_none]))
y, truth = data.bold[:, voxels], truth[voxels]


def predict(names):
    """Held-out predictions of a model on some of the feature spaces."""
    used, columns = select_feature_spaces(X, spaces, names)
    model = VideoEncodingModel(columns, delays=data.delays, n_iter=8, random_state=0)
    return held_out_predictions(model, used, y, **data.labels)


held_out = {name: predict(names) for name, names in models_of(spaces).items()}

# %%
# The difference of two models
# ----------------------------
# Signs of the differences are flipped block-wise: volumes are not independent of each other.

comparison = compare_feature_spaces(
    y,
    held_out,
    t_r=data.t_r,
    runs=data.presentations,
    films=data.films,
    block_duration=20.0,  # minutes of film have few blocks; the default is 40 s or longer
    n_permutations=1000,
    random_state=0,
)
scores, test = comparison.scores, comparison.tests["difference"]
print(f"{test.n_blocks} blocks, smallest p that could be reached: {test.smallest_p:.1e}")
print(f"smallest q after correction over voxels: {np.nanmin(test.q_values):.2f}")

# %%
# Six minutes of film say something about many voxels together, and too little about any single one
# to survive a correction over voxels. Below, "significant" is p < .05 without correction, and the
# control is how often that happens where nothing was planted. With real data, which have hours, use
# `test.q_values`.

significant = test.p_values < 0.05
plot_score_comparison(
    scores["image"], scores["video"], significant=significant, title="One point per voxel"
)
plt.show()

# %%
# Red: video is better. Blue: image is better. Opaque where p is below .05, grey above .5.


def on_surface(values):
    """An image; NaN where no voxel was fitted."""
    everywhere = np.full(data.bold.shape[1], np.nan, dtype=np.float32)
    everywhere[voxels] = values
    return data.to_image(everywhere)


plot_difference_map(
    on_surface(test.score),
    on_surface(test.p_values),
    label="difference of held-out Pearson r",
    title="Video > Image",
)
plt.show()

# %%
# Unique variance
# ---------------
# What each space adds to the other in one joint model. In voxels that answer to both, the
# difference says little, while both spaces add something.

unique = comparison.unique
print(f"{'planted':>8} {'n':>5} {'video r':>8} {'image r':>8} {'V > I':>6} {'I > V':>6} "
      f"{'unique video':>13} {'unique image':>13}")  # fmt: skip
for name in ("motion", "static", "mixed", "none"):
    rows = truth == name
    r_video, r_image = (scores[space][rows].mean() for space in ("video", "image"))
    wins, loses = (significant & (sign * test.score > 0) & rows for sign in (1, -1))
    print(
        f"{name:>8} {rows.sum():5d} {r_video:8.3f} {r_image:8.3f} "
        f"{wins.sum():6d} {loses.sum():6d} {unique['video'][rows].mean():13.3f} "
        f"{unique['image'][rows].mean():13.3f}"
    )
