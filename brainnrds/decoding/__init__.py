"""Dense motion out of BOLD, and the controls that show what the brain put there."""

from brainnrds.decoding.codebook import FlowCodebook
from brainnrds.decoding.controls import (
    compare_to_controls,
    control_flows,
    fit_image_only,
    fit_on_unrelated_bold,
    mean_flow,
    score_flows,
)
from brainnrds.decoding.decoder import MotionDecoder
from brainnrds.decoding.gain import brain_gain
from brainnrds.decoding.lesions import compare_lesions
from brainnrds.decoding.networks import MotionNetwork
from brainnrds.decoding.transfer import adapt_decoder, read_in_template, transfer_curve
from brainnrds.decoding.voxels import select_voxels

__all__ = [
    "FlowCodebook",
    "MotionDecoder",
    "MotionNetwork",
    "adapt_decoder",
    "brain_gain",
    "compare_lesions",
    "compare_to_controls",
    "control_flows",
    "fit_image_only",
    "fit_on_unrelated_bold",
    "mean_flow",
    "read_in_template",
    "score_flows",
    "select_voxels",
    "transfer_curve",
]
