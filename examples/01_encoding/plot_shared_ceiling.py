"""
A ceiling without repeats
=========================

Where films were shown once, other people take the place of repeats: what several share of their
responses can be predicted. Here the test films were shown four times to each of three people, so
that both ceilings can be seen beside each other.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from brainnrds.datasets import make_movie_dataset
from brainnrds.encoding import explainable_variance, noise_ceiling, stack_repeats
from brainnrds.group import inter_subject_correlation, match_films
from brainnrds.io import load_runs
from brainnrds.plotting import plot_flatmap, plot_score_histograms

sample = make_movie_dataset(
    Path(tempfile.gettempdir()) / "brainnrds-sample-people",
    n_subjects=3,
    n_runs=1,
    n_films_per_run=1,
    n_repeats=1,
    n_test_films=2,
    n_test_repeats=4,
    film_duration=60,
    snr=1.0,
)

# %%
# From repeats: what comes back in the four presentations of the first person, and how much of their
# average could be predicted.

data = load_runs(sample.bids_dir, subject="01", repeats="concatenate")
repeats = stack_repeats(
    data.bold,
    runs=data.presentations,
    films=data.films,
    film_times=data.film_times,
    tolerance=data.t_r / 2,
)
repeat_ceiling = noise_ceiling(explainable_variance(repeats), n_repeats=4)

# %%
# From other people: the averages of the same films, and what the first person's has in common with
# those of the others.

people = [load_runs(sample.bids_dir, subject=label) for label in sample.participants]
matched = match_films(people)
tested = np.isin(np.array(matched.film_names)[matched.films], sample.test_films)
shared = inter_subject_correlation(
    [person.bold for person in people],
    t_r=data.t_r,
    rows=[rows[tested] for rows in matched.rows],
    films=matched.films[tested],
    n_permutations=0,
)
shared_ceiling = shared.ceiling[0]

# %%
# The same places in both maps. What is this person's own is missing from the second.

ceilings = {"from repeats": repeat_ceiling, "from other people": shared_ceiling}
for name, ceiling in ceilings.items():
    plot_flatmap(
        data.to_image(np.where(ceiling > 0.1, ceiling, np.nan)),
        label="ceiling (R²) where it exceeds 0.1",
        title=f"The ceiling {name}",
        cmap="viridis",
        vmax=1.0,
    )
plt.show()

# %%
# Where a response was planted. Where the others share less than .05 there is no ceiling from them:
# these voxels are counted in the legend, and are not in the median.

responsive = sample.truth["01"].label != "none"
plot_score_histograms(
    {name: ceiling[responsive] for name, ceiling in ceilings.items()},
    label="ceiling (R²) of responsive voxels",
)
plt.show()
for name, ceiling in ceilings.items():
    print(f"{name}: median {np.nanmedian(ceiling[responsive]):.2f}")
