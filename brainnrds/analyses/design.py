"""What every analysis decides before it computes: delays, units of splits, test films."""

import warnings

import numpy as np

from brainnrds.films import film_groups
from brainnrds.io import InputError

__all__ = ["find_test_films", "group_of_film", "round_delays"]


def round_delays(seconds, t_r, defaults):
    """Round delays to volumes; warn when one that was asked for is off by over a quarter volume.

    Parameters
    ----------
    seconds : sequence of float
        In s.
    t_r : float
        Repetition time in s.
    defaults : dataclass of options
        Whose `delays_seconds` are rounded without a warning.

    Returns
    -------
    delays : list of int
        In volumes, ascending, each once.
    """
    wanted = np.asarray(seconds, dtype=float)
    delays = np.round(wanted / t_r).astype(int)
    off = np.abs(delays * t_r - wanted).max()
    if tuple(seconds) != defaults.delays_seconds and off > t_r / 4:
        warnings.warn(
            f"delays of {wanted.tolist()} s are rounded to volumes of {t_r:g} s: up to {off:.2g} s "
            "off.",
            stacklevel=3,
        )
    return sorted(set(delays.tolist()))


def group_of_film(runs, film_names):
    """Give the film group of each film: films of one scanner run belong together.

    So they do where their averages are segments of their own. If everything hangs together, films
    are the units, and gaps at their borders keep them apart.

    Parameters
    ----------
    runs : list of Run
    film_names : list of str

    Returns
    -------
    groups : array of int of shape (n_films,)
    """
    index = {name: i for i, name in enumerate(film_names)}
    pairs = np.array([(i, index[p.film]) for i, run in enumerate(runs) for p in run.films])
    groups = np.arange(len(film_names))
    groups[pairs[:, 1]] = film_groups(pairs[:, 0], pairs[:, 1])
    return groups if len(np.unique(groups)) > 1 else np.arange(len(film_names))


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
    found = set()
    for name in names:
        matches = [i for i, f in enumerate(film_names) if name in (f, f.rsplit(".", 1)[0])]
        if not matches:
            raise InputError(
                f"--test-films must name films of the data; got {name!r}, expected some of "
                f"{', '.join(film_names)}."
            )
        found.update(matches)
    if len(found) == len(film_names):
        raise InputError("--test-films must leave films for training; got all of them.")
    return sorted(found)
