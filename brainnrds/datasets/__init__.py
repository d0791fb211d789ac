"""Data sets: made, fetched, converted."""

from brainnrds.datasets.movie import make_movie_dataset

__all__ = ["make_movie_dataset"]
