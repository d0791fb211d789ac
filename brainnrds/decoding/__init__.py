"""Dense motion out of BOLD, and the controls that show what the brain put there."""

from brainnrds.decoding.codebook import FlowCodebook
from brainnrds.decoding.controls import (
    compare_lesions,
    compare_to_controls,
    fit_image_only,
    fit_on_permuted_bold,
    mean_flow,
)
from brainnrds.decoding.decoder import MotionDecoder
from brainnrds.decoding.networks import MotionNetwork
from brainnrds.decoding.voxels import select_voxels

__all__ = [
    "FlowCodebook",
    "MotionDecoder",
    "MotionNetwork",
    "compare_lesions",
    "compare_to_controls",
    "fit_image_only",
    "fit_on_permuted_bold",
    "mean_flow",
    "select_voxels",
]
