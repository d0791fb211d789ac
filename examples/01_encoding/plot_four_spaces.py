"""
Four spaces on sample data: motion, single frames, sound, words
===============================================================

The sample films talk. Some planted voxels see motion, some see what stands still, some hear, some
follow the words. What does each feature space explain that no other does, and what do sound and
words share?
"""

# sphinx_gallery_thumbnail_number = 2
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from brainnrds import VideoEncodingModel, load_runs, movie_features
from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import (
    compare_feature_spaces,
    held_out_predictions,
    models_of,
    partition_variance,
    select_feature_spaces,
)
from brainnrds.features import MotionEnergy, Spectrum, StaticEnergy
from brainnrds.io import WordRate
from brainnrds.plotting import plot_grouped_bars, plot_variance_partition

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
# Four feature spaces
# -------------------
# Sound comes from the films' own tracks. Beside each film lies its transcript, from which words are
# counted; some of the voice in these films babbles, which sounds alike and has no words.

extractors = {
    "video": MotionEnergy(),
    "image": StaticEnergy(),
    "sound": Spectrum(16, modulations=()),
    "words": WordRate(sample.bids_dir / "stimuli"),
}
folder = Path(tempfile.gettempdir()) / "brainnrds-features"
X, spaces = movie_features(data, extractors, store_dir=folder, progress=False)

# %%
# To keep this page quick, 80 voxels of each kind are fitted.

label = sample.truth["01"].label
kinds = ("motion", "static", "sound", "words", "none")
rng = np.random.default_rng(0)
voxels = np.concatenate([rng.choice(np.flatnonzero(label == kind), 80, False) for kind in kinds])
y, label = data.bold[:, voxels], label[voxels]


def predict(names):
    """Held-out predictions of a model on some of the feature spaces."""
    features, columns = select_feature_spaces(X, spaces, names)
    model = VideoEncodingModel(columns, delays=data.delays, n_iter=12, random_state=0)
    return held_out_predictions(model, features, y, **data.labels)


held_out = {name: predict(names) for name, names in models_of(spaces).items()}
found = compare_feature_spaces(
    y,
    held_out,
    t_r=data.t_r,
    runs=data.presentations,
    films=data.films,
    block_duration=20.0,  # minutes of film have few blocks; the default is 40 s or longer
    n_permutations=1000,
    random_state=0,
)

# %%
# The table
# ---------
# Rows: what a voxel answers to. Columns: variance that only this space explains. The control is the
# last row, where nothing was planted.

table = pd.DataFrame(
    {
        space: [found.unique_tests[space].score[label == kind].mean() for kind in kinds]
        for space in spaces
    },
    index=[f"voxels of {kind}" for kind in kinds],
)
print(table.round(3).to_string())
names = {"video": "motion", "image": "single frames", "sound": "sound", "words": "words"}
plot_grouped_bars(
    {names[space]: dict(values) for space, values in table.items()},
    groups={row: row for row in table.index},
    label="unique variance, mean R²",
)
plt.show()

# %%
# Single voxels, p < .05 without correction: six minutes are too short for one over all voxels.

for kind in kinds:
    shares = {
        names[space]: f"{np.mean(test.p_values[label == kind] < 0.05):.0%}"
        for space, test in found.unique_tests.items()
    }
    print(f"voxels of {kind}: {shares}")

# %%
# What sound and words share
# --------------------------
# Who speaks is heard: where a voxel follows the words, the sound could have explained some of it.
# Motion and single frames are in every model, so that all areas are beyond them.

seen = predict(["video", "image"])
models = {
    (): seen,
    ("sound",): held_out["withoutwords"],
    ("words",): held_out["withoutsound"],
    ("sound", "words"): held_out["joint"],
}
areas = partition_variance(
    y,
    {used: result.predictions for used, result in models.items()},
    runs=data.presentations,
    folds=seen.folds,
)
for kind in ("words", "sound"):
    plot_variance_partition(
        {used: values[label == kind].mean() for used, values in areas.items()},
        label="mean R² beyond what is seen",
        title=f"Voxels of {kind}",
    )
    plt.show()

# %%
# In the App: ``--feature-space sound=spectrum words=word-rate --transcript bids_dir/stimuli``
# (:doc:`/user_guide/beyond`). With a network in place of either: ``sound=whisper-base:3``,
# ``words=gpt2:8`` (:doc:`/user_guide/features`).
