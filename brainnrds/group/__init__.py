"""Several people: what they share, and what holds for them together.

Names are imported on first use.
"""

from importlib import import_module

__all__ = [
    "inter_subject_correlation",
    "match_films",
]

_HOMES = {
    "brainnrds.group.inter_subject": ("inter_subject_correlation", "match_films"),
}


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'brainnrds.group' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
