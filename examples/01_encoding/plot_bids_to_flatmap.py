"""
From BIDS to a flatmap in twelve lines
======================================

A data set of someone watching films, features of the films, a model, and a map of how well it
predicts a film that it has not seen.
"""

import tempfile
from pathlib import Path

from brainnrds import VideoEncodingModel
from brainnrds.datasets import make_movie_dataset
from brainnrds.features import MotionEnergy, distinct_clips, place_features
from brainnrds.io import iter_clips, load_runs
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

# %%
# The twelve lines. BOLD comes cleaned, z-scored per run, averaged over repeats and cut to films.
# Motion energy is computed once for every clip that a volume needs. The first two films are the
# test films; the model delays the features, chooses its penalties in the training films, and is
# scored.

data = load_runs(bids_dir, subject="01")
timing = {"clip_duration": data.t_r, "film_durations": data.film_durations}
times, index = distinct_clips(data.films, data.film_times, **timing)
films = zip(data.stim_files, times, strict=True)
clips = [iter_clips(path, t, data.t_r, fps=12, size=(48, 64)) for path, t in films]
X = place_features([MotionEnergy(fps=12, size=(48, 64)).transform(c) for c in clips], index)
test = data.runs < 2
labels = {"runs": data.runs[~test], "films": data.films[~test]}
model = VideoEncodingModel(delays=(1, 2, 3, 4)).fit(X[~test], data.bold[~test], **labels)
score = model.score_map(X[test], data.bold[test], runs=data.runs[test], films=data.films[test])
image = data.masker.inverse_transform(score)
plot_flatmap(image, label="held-out Pearson r", title="Motion energy")

# %%
# What was planted is known: voxels that answer to motion, to what stands still, to both, or to
# nothing. The last are the control.

planted = sample.truth["01"].label
for name in ("motion", "static", "mixed", "none"):
    voxels = planted == name
    print(f"{name:>6}: mean r {score[voxels].mean():+.2f} in {voxels.sum()} voxels")
