"""Data sets: made, fetched, converted."""

from brainnrds.datasets.flow_samples import make_flow_samples
from brainnrds.datasets.movie import make_movie_dataset
from brainnrds.datasets.wen2018 import (
    fetch_wen2018,
    wen2018_splits,
    wen2018_timing,
    wen2018_to_bids,
)

__all__ = [
    "fetch_wen2018",
    "make_flow_samples",
    "make_movie_dataset",
    "wen2018_splits",
    "wen2018_timing",
    "wen2018_to_bids",
]
