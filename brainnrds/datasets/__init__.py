"""Data sets: made, fetched, converted."""

from brainnrds.datasets.bold_moments import (
    bold_moments_betas,
    bold_moments_trials,
    estimate_betas,
    fetch_bold_moments,
    load_betas,
    load_nuisance,
)
from brainnrds.datasets.flow_samples import make_flow_samples
from brainnrds.datasets.hcp7t import hcp7t_to_bids
from brainnrds.datasets.movie import make_movie_dataset
from brainnrds.datasets.recipes import list_recipes, load_recipe
from brainnrds.datasets.reconstructions import load_reconstructions
from brainnrds.datasets.wen2018 import (
    fetch_wen2018,
    wen2018_splits,
    wen2018_timing,
    wen2018_to_bids,
)

__all__ = [
    "bold_moments_betas",
    "bold_moments_trials",
    "estimate_betas",
    "fetch_bold_moments",
    "fetch_wen2018",
    "hcp7t_to_bids",
    "list_recipes",
    "load_betas",
    "load_nuisance",
    "load_recipe",
    "load_reconstructions",
    "make_flow_samples",
    "make_movie_dataset",
    "wen2018_splits",
    "wen2018_timing",
    "wen2018_to_bids",
]
