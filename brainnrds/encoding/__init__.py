"""Encoding models: features of the film to BOLD, with held-out scores, ceilings and tests.

Names are imported on first use: himalaya, torch and SciPy's statistics load when needed.
"""

from brainnrds._lazy import lazily

# at once: the function has its module's name, which would stand in its place once that is imported
from brainnrds.encoding.noise_ceiling import (  # noqa: F401 : public, as said below
    explainable_variance,
    noise_ceiling,
    normalized_score,
    stack_repeats,
    stack_trials,
)

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "brainnrds.encoding.components": ("weight_components",),
        "brainnrds.encoding.contrast": (
            "compare_feature_spaces",
            "models_of",
            "select_feature_spaces",
        ),
        "brainnrds.encoding.held_out": ("held_out_predictions",),
        "brainnrds.encoding.impulse": (
            "impulse_response",
            "response_times",
        ),
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
    },
    at_once=(
        "explainable_variance",
        "noise_ceiling",
        "normalized_score",
        "stack_repeats",
        "stack_trials",
    ),
)
