"""Small sample data sets, made once for the tests of this folder."""

import pytest
from small_movies import SMALL

from brainnrds.datasets import make_movie_dataset


@pytest.fixture(scope="session")
def movie_datasets(tmp_path_factory):
    """Data sets by space."""
    root = tmp_path_factory.mktemp("movies")
    return {
        space: make_movie_dataset(root / space, space=space, **SMALL)
        for space in ("fsaverage5", "MNI152NLin2009cAsym", "fsLR")
    }


@pytest.fixture(scope="session")
def repeated_volumes(tmp_path_factory):
    """Volumes with enough repeats to measure explainable variance."""
    return make_movie_dataset(
        tmp_path_factory.mktemp("repeats") / "bids",
        n_runs=3,
        n_films_per_run=2,
        n_repeats=4,
        n_test_films=0,
        film_duration=80,
        space="MNI152NLin2009cAsym",
        random_state=3,
    )
