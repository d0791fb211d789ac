"""Recipes for public data sets: which options and film table they need, and what is left to do.

A recipe is a folder in ``recipes/``: ``recipe.json``, and ``films.tsv`` where events name no films.
Figures are those of the data sets or their publications, with the source; cells of what is stated
nowhere are empty, and are to be filled in.
"""

from importlib.resources import files
from pathlib import Path

import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.io import load_json

__all__ = ["list_recipes", "load_recipe"]

_FOLDER = Path(str(files("brainnrds.datasets") / "recipes"))


def list_recipes():
    """List the public data sets that there are recipes for.

    Returns
    -------
    recipes : DataFrame
        Indexed by name: ``title``, ``accession``, ``licence``, ``design`` ("films", "one film",
        which is cut into parts, or "trials" of a few seconds) and ``by_hand``, what no recipe can
        do.
    """
    found = {}
    for path in sorted(_FOLDER.glob("*/recipe.json")):
        about = load_json(path)
        found[path.parent.name] = {
            **{key: about[key] for key in ("title", "accession", "licence", "design")},
            "by_hand": " ".join(about["by_hand"]),
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("name")


def load_recipe(name, bids_dir=None):
    """Read a recipe.

    Parameters
    ----------
    name : str
        As in `list_recipes`.
    bids_dir : path-like or None, default=None
        The data set, to which paths become relative.

    Returns
    -------
    recipe : Bunch
        ``options``, a dict from field of :class:`brainnrds.analyses.Selection` (or `confounds`) to
        its value, with ``films``, the path of the film table, where there is one; ``title``,
        ``accession``, ``licence``, ``design``; ``download``, ``by_hand`` and ``sources``, lists of
        str.

    Raises
    ------
    InputError
        An unknown name; `bids_dir` is another data set by its dataset_description.json.

    Examples
    --------
    >>> from brainnrds.datasets import load_recipe
    >>> load_recipe("budapest").options["task"]
    ('movie',)
    """
    names = sorted(path.parent.name for path in _FOLDER.glob("*/recipe.json"))
    if name not in names:
        raise InputError(f"A recipe must be one of {', '.join(names)}; got {name!r:.80}.")
    about = load_json(_FOLDER / name / "recipe.json")
    if bids_dir is not None:
        _check_data_set(name, about, Path(bids_dir))
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about["options"].items()
    }
    if "bids_filter" in options:
        options["bids_filter"] = options["bids_filter"]["bold"]
    if "derivatives" in options:
        options["derivatives"] = Path(bids_dir or ".") / options["derivatives"]
    table = _FOLDER / name / "films.tsv"
    if table.exists():
        options["films"] = table
    return Bunch(**{**about, "options": options})


def _check_data_set(name, about, bids_dir):
    path = bids_dir / "dataset_description.json"
    if not path.exists() or not about["names"]:
        return  # whoever reads the data set says so; or it has no name that is known
    description = load_json(path)
    known = [str(description.get("Name")), str(description.get("DatasetDOI"))]
    if known[0] not in about["names"] and about["accession"] not in known[1]:
        raise InputError(
            f"Recipe {name} is for {about['accession']}, {about['title']}; {bids_dir} is "
            f"{known[0]!r:.80}."
        )
