"""
From BIDS to a flatmap in seven lines
=====================================

A data set of someone watching films, features of the films, a model, and a map of how well it
predicts a film that it has not seen.
"""

import tempfile
from pathlib import Path

from brainnrds import VideoEncodingModel, load_runs, movie_features
from brainnrds.datasets import make_movie_dataset
from brainnrds.features import MotionEnergy
from brainnrds.plotting import plot_flatmap

# %%
# The sample data are simulated responses to real footage, in BIDS with derivatives as fMRIPrep
# names them: four training films, seen twice, and two test films, seen four times, of one minute
# each. There is less noise than in real data (`snr`), so that minutes suffice.

sample = make_movie_dataset(
    Path(tempfile.gettempdir()) / "brainnrds-sample",
    n_runs=2,
    n_films_per_run=2,
    n_test_films=2,
    n_test_repeats=4,
    film_duration=60,
    snr=1.0,
)
bids_dir = sample.bids_dir
work_dir = Path(tempfile.gettempdir()) / "brainnrds-features"

# %%
# The seven lines. BOLD comes cleaned, z-scored per run, averaged over repeats and cut to films.
# Motion energy is computed once for every clip that a volume needs, and kept in a folder. The model
# delays the features, chooses its penalties in the training films, and is scored on the others.

data = load_runs(bids_dir, subject="01")
X, spaces = movie_features(data, {"motion": MotionEnergy()}, store_dir=work_dir)
test = data.shows("test01", "test02")
model = VideoEncodingModel(spaces, delays=data.delays)
model.fit(X[~test], data.bold[~test], **data[~test].labels)
score = model.score_map(X[test], data.bold[test], **data[test].labels)
plot_flatmap(data.to_image(score), label="held-out Pearson r", title="Motion energy")

# %%
# What was planted is known: voxels that answer to motion, to what stands still, to both, or to
# nothing. The last are the control.

planted = sample.truth["01"].label
for name in ("motion", "flow", "static", "mixed", "none"):
    voxels = planted == name
    print(f"{name:>6}: mean r {score[voxels].mean():+.2f} in {voxels.sum()} voxels")
