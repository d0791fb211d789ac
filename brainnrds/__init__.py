"""Encoding, motion decoding and reanimation of fMRI recorded while people watch video.

Its names are imported on first use, so that ``import brainnrds`` stays fast:
it loads neither torch nor pycortex.
"""

from importlib import import_module

__version__ = "0.1.0"

__all__ = [
    "MotionDecoder",
    "Reanimator",
    "VideoEncodingModel",
    "__version__",
    "load_runs",
    "movie_features",
]

_HOMES = {
    "MotionDecoder": "brainnrds.decoding",
    "Reanimator": "brainnrds.reanimation",
    "VideoEncodingModel": "brainnrds.encoding",
    "load_runs": "brainnrds.io",
    "movie_features": "brainnrds.analyses",
}


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'brainnrds' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
