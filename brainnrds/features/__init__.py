"""Features of the film: from clips to feature spaces, and from film time to volumes.

Names are imported on first use, so that none of them loads torch or transformers for the others.
"""

from importlib import import_module

_HOMES = {
    "brainnrds.features.delays": ("Delayer", "delay", "response_delays"),
    "brainnrds.features.encoders": (
        "ImageEncoder",
        "VideoEncoder",
        "list_encoders",
        "release_networks",
    ),
    "brainnrds.features.frame_grid": ("FrameGrid",),
    "brainnrds.features.frame_order": ("FrameOrder",),
    "brainnrds.features.light": ("CutScores", "Luminance"),
    "brainnrds.features.motion_energy": ("MotionEnergy", "StaticEnergy"),
    "brainnrds.features.optical_flow": ("OpticalFlow",),
    "brainnrds.features.projection": ("FeatureProjection",),
    "brainnrds.features.sampling": ("distinct_clips", "frames_to_volumes", "place_features"),
    "brainnrds.features.sound": ("Loudness", "Spectrum"),
    "brainnrds.features.sound_encoder": ("SoundEncoder",),
    "brainnrds.features.store": ("FeatureStore",),
    "brainnrds.features.word_encoder": ("WordEncoder",),
}

__all__ = [
    "CutScores",
    "Delayer",
    "FeatureProjection",
    "FeatureStore",
    "FrameGrid",
    "FrameOrder",
    "ImageEncoder",
    "Loudness",
    "Luminance",
    "MotionEnergy",
    "OpticalFlow",
    "SoundEncoder",
    "Spectrum",
    "StaticEnergy",
    "VideoEncoder",
    "WordEncoder",
    "delay",
    "distinct_clips",
    "frames_to_volumes",
    "list_encoders",
    "place_features",
    "release_networks",
    "response_delays",
]


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'brainnrds.features' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
