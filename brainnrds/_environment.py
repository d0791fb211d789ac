"""What libraries read of the environment while they are imported, for programs of a terminal."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["settle"]

_THREADS = ("OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS")


def settle():
    """Change what would end in a crash: a backend, a home or numbers of threads that cannot be.

    Figures go to files. A home that cannot be looked into is none.

    Returns
    -------
    wrong : list of str
        Lines on numbers that are none.
    """
    wrong = []
    os.environ["MPLBACKEND"] = "agg"
    home = None
    with suppress(RuntimeError):  # nobody knows the user
        home = Path.home()
    if home is None or not os.access(home, os.R_OK | os.X_OK):
        os.environ["HOME"] = "/nonexistent"
    for name in _THREADS:
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdecimal() and int(value)):
            del os.environ[name]
            wrong.append(f"{name} must be a number of threads; got {value!a}, which is ignored.")
    return wrong
