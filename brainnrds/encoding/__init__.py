"""Encoding models: features of the film to BOLD, with held-out scores, ceilings and tests.

Names are imported on first use: himalaya, torch and SciPy's statistics load when needed.
"""

from importlib import import_module

# at once: the function has its module's name, which would stand in its place once that is imported
from brainnrds.encoding.noise_ceiling import (
    explainable_variance,
    noise_ceiling,
    normalized_score,
    stack_repeats,
    stack_trials,
)

__all__ = [
    "BandedRidgeResult",
    "VideoEncodingModel",
    "benjamini_hochberg",
    "compare_feature_spaces",
    "correlation_score",
    "correlation_shares",
    "difference_significance",
    "explainable_variance",
    "explainable_variance_significance",
    "held_out_predictions",
    "impulse_response",
    "models_of",
    "noise_ceiling",
    "normalized_score",
    "parcel_table",
    "partition_variance",
    "prediction_significance",
    "preferred_space",
    "r2_score",
    "response_times",
    "sample_mixtures",
    "select_feature_spaces",
    "solve_banded_ridge",
    "stack_repeats",
    "stack_trials",
    "unique_variance",
    "unique_variance_significance",
    "weight_components",
]

_HOMES = {
    "brainnrds.encoding.components": ("weight_components",),
    "brainnrds.encoding.contrast": ("compare_feature_spaces", "models_of", "select_feature_spaces"),
    "brainnrds.encoding.held_out": ("held_out_predictions",),
    "brainnrds.encoding.impulse": ("impulse_response", "response_times"),
    "brainnrds.encoding.model": ("VideoEncodingModel",),
    "brainnrds.encoding.partition": ("partition_variance",),
    "brainnrds.encoding.pooling": ("parcel_table",),
    "brainnrds.encoding.preference": ("preferred_space",),
    "brainnrds.encoding.scores": (
        "correlation_score",
        "correlation_shares",
        "r2_score",
        "unique_variance",
    ),
    "brainnrds.encoding.significance": (
        "benjamini_hochberg",
        "difference_significance",
        "explainable_variance_significance",
        "prediction_significance",
        "unique_variance_significance",
    ),
    "brainnrds.encoding.solvers": (
        "BandedRidgeResult",
        "sample_mixtures",
        "solve_banded_ridge",
    ),
}


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'brainnrds.encoding' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
