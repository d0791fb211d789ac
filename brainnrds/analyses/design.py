"""What every analysis decides before it computes: delays and test films."""

import warnings

import numpy as np

from brainnrds.io import InputError
from brainnrds.io.samples import find_films

__all__ = ["find_test_films", "round_delays"]


def round_delays(seconds, t_r):
    """Round delays to volumes; warn when one is off by over a quarter volume.

    Parameters
    ----------
    seconds : sequence of float
        In s.
    t_r : float
        Repetition time in s.

    Returns
    -------
    delays : list of int
        In volumes, ascending, each once.
    """
    wanted = np.asarray(seconds, dtype=float)
    delays = np.round(wanted / t_r).astype(int)
    off = np.abs(delays * t_r - wanted).max()
    if off > t_r / 4:
        warnings.warn(
            f"delays of {wanted.tolist()} s are rounded to volumes of {t_r:g} s: up to {off:.2g} s "
            "off.",
            stacklevel=3,
        )
    return sorted(set(delays.tolist()))


def find_test_films(names, film_names):
    """Find the films for testing by their names, with or without extension.

    Parameters
    ----------
    names : list of str or None
    film_names : list of str

    Returns
    -------
    films : list of int or None
        Indices into `film_names`; None where no names are given.

    Raises
    ------
    InputError
        An unknown film, or no film left for training.
    """
    if not names:
        return None
    found = find_films(names, film_names)
    if len(found) == len(film_names):
        raise InputError("--test-films must leave films for training; got all of them.")
    return found
