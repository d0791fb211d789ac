"""Whole analyses, from a BIDS data set to maps, tables and a report; each step can be resumed.

Names are imported on first use: options are known without loading what the analyses need.
"""

from brainnrds._lazy import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "brainnrds.analyses.decode": ("decode_participant",),
        "brainnrds.analyses.decode_group": ("decode_group",),
        "brainnrds.analyses.encode": ("encode_participant",),
        "brainnrds.analyses.encode_group": ("encode_group",),
        "brainnrds.analyses.export": ("export_features",),
        "brainnrds.analyses.extract": (
            "extract_features",
            "movie_features",
        ),
        "brainnrds.analyses.options": (
            "DecodeOptions",
            "EncodeGroupOptions",
            "EncodeOptions",
            "GroupOptions",
            "PredictOptions",
            "ReanimateOptions",
            "Selection",
            "TransferOptions",
        ),
        "brainnrds.analyses.predict": ("predict_films",),
        "brainnrds.analyses.reanimate": ("reanimate_participant",),
        "brainnrds.analyses.reanimate_group": ("reanimate_group",),
        "brainnrds.analyses.transfer": ("transfer_participant",),
        "brainnrds.analyses.transfer_group": ("transfer_group",),
        "brainnrds.analyses.validate": ("validate_dataset",),
    },
)
