"""Every number stands in the area of its own spaces."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from brainnrds.io import InputError
from brainnrds.plotting import plot_variance_partition


@pytest.mark.parametrize("spaces", [("a", "b"), ("a", "b", "c")])
def test_numbers_stand_where_only_their_spaces_are(spaces):
    subsets = [s for size in range(1, len(spaces) + 1) for s in combinations(spaces, size)]
    areas = {subset: 0.1 + i / 100 for i, subset in enumerate(subsets)}
    areas[subsets[-1]] = -0.05
    figure = plot_variance_partition(areas, names={"a": "motion"}, title="planted")
    axes = figure.axes[0]
    circles = [patch for patch in axes.patches if isinstance(patch, plt.Circle)]
    texts = {text.get_text(): np.array(text.get_position()) for text in axes.texts}
    assert {"motion", "b"} <= set(texts) and "a" not in texts
    (image,) = axes.images
    for subset, value in areas.items():
        at = texts[f"{value:.3f}"]
        held = [np.linalg.norm(at - np.array(circle.center)) < 1 for circle in circles]
        assert held == [space in subset for space in spaces]
        column, row = np.round((at + 2) * 100).astype(int)
        assert image.get_array()[row, column] == pytest.approx(value)
    plt.close(figure)


def test_areas_that_are_missing_are_refused():
    for areas in ({("a",): 1.0, ("b",): 1.0}, {("a",): 1.0}, {}):
        with pytest.raises(InputError, match="each combination of two or three spaces"):
            plot_variance_partition(areas)
