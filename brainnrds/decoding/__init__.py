"""Dense motion out of BOLD, and the controls that show what the brain put there."""

from brainnrds.decoding.codebook import FlowCodebook
from brainnrds.decoding.decoder import MotionDecoder, select_voxels
from brainnrds.decoding.networks import MotionNetwork

__all__ = ["FlowCodebook", "MotionDecoder", "MotionNetwork", "select_voxels"]
