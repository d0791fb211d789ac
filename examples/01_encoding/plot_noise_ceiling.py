"""
How well could any model do?
============================

What does not repeat cannot be predicted. Films that were shown more than once say how much does.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import explainable_variance, noise_ceiling, stack_repeats
from brainnrds.io import load_runs
from brainnrds.plotting import plot_flatmap, plot_score_histograms

sample = make_movie_dataset(
    Path(tempfile.gettempdir()) / "brainnrds-sample",
    n_runs=2,
    n_films_per_run=2,
    n_test_films=2,
    n_test_repeats=4,
    film_duration=60,
    snr=1.0,
)

# %%
# Every presentation is kept; volumes at the same place of the same film are
# repeats of each other.

data = load_runs(sample.bids_dir, subject="01", repeats="concatenate")
repeats = stack_repeats(
    data.bold,
    runs=data.presentations,
    films=data.films,
    film_times=data.film_times,
    tolerance=data.t_r / 2,
)
for name, film in zip(data.film_names, repeats, strict=True):
    print(f"{name}: {film.shape[0]} presentations of {film.shape[1]} volumes")

# %%
# The explainable variance is the share of one presentation's variance that repeats. It is an
# estimate without bias: where nothing repeats it scatters around zero, below it as well.

variance = explainable_variance(repeats)
truth = sample.truth["01"]
plot_score_histograms(
    {
        "planted responses": np.where(truth.label != "none", variance, np.nan),
        "no response": np.where(truth.label == "none", variance, np.nan),
    },
    controls=["no response"],
    label="explainable variance of one presentation",
)
plt.yscale("log")
plt.show()

# %%
# Against what was planted. The estimate is lower, because removing confounds from runs as short as
# these removes response as well: what counts is what is left in the data that models are fitted to.

responsive = truth.label != "none"
r = np.corrcoef(variance[responsive], truth.explainable_variance[responsive])[0, 1]
print(f"correlation with the planted explainable variance: {r:.2f}")
print(f"median: {np.median(variance[responsive]):.2f}, "
      f"planted {np.median(truth.explainable_variance[responsive]):.2f}")  # fmt: skip

# %%
# Averaging over repeats raises the ceiling. For the test films, with four presentations:

ceiling = noise_ceiling(variance, n_repeats=4)
plot_flatmap(
    data.to_image(np.where(ceiling > 0.1, ceiling, np.nan)),
    label="noise ceiling (R²) where it exceeds 0.1",
    title="What a perfect model would explain",
    cmap="viridis",
    vmax=1.0,
)
plt.show()
