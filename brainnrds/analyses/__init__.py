"""Whole analyses, from a BIDS data set to maps, tables and a report; each step can be resumed.

Names are imported on first use: options are known without loading what the analyses need.
"""

from importlib import import_module

_HOMES = {
    "DecodeOptions": "options",
    "EncodeGroupOptions": "options",
    "EncodeOptions": "options",
    "GroupOptions": "options",
    "PredictOptions": "options",
    "ReanimateOptions": "options",
    "Selection": "options",
    "TransferOptions": "options",
    "decode_group": "decode_group",
    "decode_participant": "decode",
    "encode_group": "encode_group",
    "encode_participant": "encode",
    "export_features": "export",
    "extract_features": "extract",
    "movie_features": "extract",
    "predict_films": "predict",
    "reanimate_group": "reanimate_group",
    "reanimate_participant": "reanimate",
    "transfer_group": "transfer_group",
    "transfer_participant": "transfer",
    "validate_dataset": "validate",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(f"brainnrds.analyses.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'brainnrds.analyses' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
