"""Packages whose names are imported on first use, so that none loads what others need."""

from importlib import import_module

__all__ = ["lazily"]


def lazily(package, homes, *, at_once=()):
    """Return what makes a package so: its ``__all__``, ``__getattr__`` and ``__dir__``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : dict of str to tuple of str
        Modules, and the names that come from each.
    at_once : sequence of str, default=()
        Public names that the package has already.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    public = sorted([*home_of, *at_once])

    def get(name):
        if name in home_of:
            return getattr(import_module(home_of[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return public, get, lambda: list(public)
