"""Regions of the sample data, against where the literature has them."""

import numpy as np

from brainnrds.datasets.brain_spaces import load_space, map_regions
from brainnrds.datasets.planted import HEARING_REGIONS, REGIONS


def test_regions_lie_where_they_should(movie_datasets):
    """hMT+ is lateral, V1 medial and posterior, hearing temporal; the same in three spaces."""
    for dataset in movie_datasets.values():
        brain = load_space(dataset.space)
        truth = dataset.truth["01"]
        for region, low, high in (
            ("hMT", (30, -85, -15), (60, -50, 22)),
            ("V1", (0, -108, -16), (24, -75, 18)),
            ("A1", (30, -40, -6), (62, -5, 24)),
            ("STS", (40, -60, -14), (70, -22, 26)),
        ):
            for sign in (-1, 1):
                chosen = (truth.region == region) & (np.sign(brain.coordinates[:, 0]) == sign)
                centre = brain.coordinates[chosen].mean(axis=0) * (sign, 1, 1)
                assert chosen.sum() >= 10
                assert (centre > low).all() and (centre < high).all(), (region, centre)


def test_every_region_is_there_on_both_sides():
    brain = load_space("fsaverage5")
    for regions in (REGIONS, HEARING_REGIONS):
        found = map_regions(brain, regions, np.random.default_rng(0))
        for half in (found[: brain.n_left], found[brain.n_left :]):
            assert set(half) == {-1, *range(len(regions))}
