"""
Maps from arrays
================

A map is one value per vertex, left hemisphere first. Nothing here needs data: the values are
distances on the template.
"""

import matplotlib.pyplot as plt
import numpy as np
from nilearn.datasets import load_fsaverage

from brainnrds.plotting import plot_difference_map, plot_flatmap, plot_surface_views

pial = load_fsaverage("fsaverage5")["pial"]
xyz = np.concatenate([pial.parts[side].coordinates for side in ("left", "right")])
lateral = np.abs(xyz)[:, 0], xyz[:, 1], xyz[:, 2]


def bump(center, width):
    """A smooth patch around a place (mm) in both hemispheres."""
    return np.exp(-sum((a - c) ** 2 for a, c in zip(lateral, center, strict=True)) / 2 / width**2)


video = 0.4 * bump((45, -70, 5), 14) + 0.15 * bump((10, -92, 2), 18)
image = 0.1 * bump((45, -70, 5), 14) + 0.35 * bump((10, -92, 2), 18)

# %%
# One map. Vertices without a value show the folds: light gyri, dark sulci.

plot_flatmap(np.where(video > 0.02, video, np.nan), label="Pearson r", title="Video features")
plt.show()

# %%
# A difference, its significance as opacity: what is not significant fades into the folds.

difference = video - image
p_values = np.exp(-np.abs(difference) / 0.02)
plot_difference_map(difference, p_values, label="difference of Pearson r", title="Video > Image")
plt.show()

# %%
# The same values on the inflated cortex.

plot_surface_views(video, label="Pearson r", title="Video features", threshold=0.02)
plt.show()

# %%
# Without pycortex, matplotlib draws the flat mesh itself.

plot_difference_map(
    difference,
    p_values,
    label="difference of Pearson r",
    title="By matplotlib",
    engine="matplotlib",
)
plt.show()
