"""Encoding models: features of the film to BOLD, with held-out scores, ceilings and tests.

Names are imported on first use: himalaya, torch and SciPy's statistics load when needed.
"""

from importlib import import_module

# at once: the function has its module's name, which would stand in its place once that is imported
from brainnrds.encoding.noise_ceiling import (
    explainable_variance,
    noise_ceiling,
    normalised_score,
    stack_repeats,
)

__all__ = [
    "BandedRidgeResult",
    "VideoEncodingModel",
    "benjamini_hochberg",
    "correlation_score",
    "correlation_shares",
    "difference_significance",
    "explainable_variance",
    "group_maps",
    "held_out_predictions",
    "noise_ceiling",
    "normalised_score",
    "parcel_table",
    "prediction_significance",
    "r2_score",
    "refit_banded_ridge",
    "sample_mixtures",
    "solve_banded_ridge",
    "solve_banded_ridge_himalaya",
    "stack_repeats",
    "unique_variance",
]

_HOMES = {
    "brainnrds.encoding.comparison": (
        "benjamini_hochberg",
        "difference_significance",
        "group_maps",
        "parcel_table",
        "prediction_significance",
        "unique_variance",
    ),
    "brainnrds.encoding.held_out": ("held_out_predictions",),
    "brainnrds.encoding.model": (
        "VideoEncodingModel",
        "correlation_score",
        "correlation_shares",
        "r2_score",
    ),
    "brainnrds.encoding.solvers": (
        "BandedRidgeResult",
        "refit_banded_ridge",
        "sample_mixtures",
        "solve_banded_ridge",
        "solve_banded_ridge_himalaya",
    ),
}


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'brainnrds.encoding' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
