"""Encoding, motion decoding and reanimation of fMRI recorded while people watch video.

Its names are imported on first use, so that ``import brainnrds`` stays fast:
it loads neither torch nor pycortex.
"""

from brainnrds._lazy import lazily

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "brainnrds.analyses": ("movie_features",),
        "brainnrds.decoding": ("MotionDecoder",),
        "brainnrds.encoding": ("VideoEncodingModel",),
        "brainnrds.io": ("load_runs",),
        "brainnrds.reanimation": ("Reanimator",),
    },
    at_once=("__version__",),
)
