"""Data sets: made, fetched, converted."""

from brainnrds.datasets.flow_samples import make_flow_samples
from brainnrds.datasets.movie import make_movie_dataset

__all__ = ["make_flow_samples", "make_movie_dataset"]
