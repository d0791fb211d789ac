"""Features of the film: from clips to feature spaces, and from film time to volumes.

Names are imported on first use, so that none of them loads torch or transformers for the others.
"""

from brainnrds._lazy import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "brainnrds.features.delays": (
            "Delayer",
            "delay",
            "response_delays",
        ),
        "brainnrds.features.encoders": (
            "ImageEncoder",
            "VideoEncoder",
            "list_encoders",
            "release_networks",
        ),
        "brainnrds.features.frame_grid": ("FrameGrid",),
        "brainnrds.features.frame_order": ("FrameOrder",),
        "brainnrds.features.light": (
            "CutScores",
            "Luminance",
        ),
        "brainnrds.features.motion_energy": (
            "MotionEnergy",
            "StaticEnergy",
        ),
        "brainnrds.features.optical_flow": ("OpticalFlow",),
        "brainnrds.features.projection": ("FeatureProjection",),
        "brainnrds.features.sampling": (
            "distinct_clips",
            "frames_to_volumes",
            "place_features",
        ),
        "brainnrds.features.sound": (
            "Loudness",
            "Spectrum",
        ),
        "brainnrds.features.sound_encoder": ("SoundEncoder",),
        "brainnrds.features.store": ("FeatureStore",),
        "brainnrds.features.word_encoder": ("WordEncoder",),
    },
)
