"""What is typed for each public data set beside its recipe, and what comes of it.

Names and texts are those of `skeletons`; images and films are small and made.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import hcp7t_release
import nibabel as nib
import numpy as np
import skeletons

from brainnrds.datasets import hcp7t_to_bids, load_recipe
from brainnrds.io.film_table import read_film_table

_ELSEWHERE = ("--derivatives", "{derivatives}", "--space", "MNI152NLin2009cAsym")
_FREE = (*_ELSEWHERE, "--stimuli", "{films}")
#: What makes a run of the App on these small images quick; nothing of it is about the data set.
QUICK = (
    "--n-permutations", "100", "--n-iter", "2", "--n-components", "20", "--n-cpus", "1",
    "--device", "cpu",
)  # fmt: skip
_FEW_DELAYS = ("--delays-seconds", "4", "6")


@dataclass(frozen=True)
class PublicSet:
    """How a data set is made and read.

    Attributes
    ----------
    skeleton : str
    t_r : float
        In s.
    films : dict, or float
        Film -> its length in s; a number: of all films that the events name.
    typed : tuple of str
        Beside ``--recipe``, with places in braces.
    refused : str or None
        What `brainnrds-validate` says, where it refuses.
    trials : bool
        Clips of a few seconds, which a design of trials is for.
    more : dict
        Of `skeletons.make`.
    """

    skeleton: str
    t_r: float
    films: dict | float
    typed: tuple
    refused: str | None = None
    trials: bool = False
    more: dict = field(default_factory=dict)

    @property
    def quick(self):
        """`QUICK`, and fewer delays where there are any."""
        return QUICK if self.trials else (*QUICK, *_FEW_DELAYS)


def _friends(name):
    task = re.search(r"task-(s\d+)(e\d+[ab])", name)
    film = f"{task[1]}/friends_{task[1]}{task[2]}.mkv"
    return {"onset": [0], "duration": [600.0], "stim_file": [film]}


def _movie10(name):
    task = re.search(r"task-([a-z]+)(\d+)", name)
    return {"onset": [0], "duration": [600.0], "stim_file": [f"{task[1]}/{task[1]}{task[2]}.mkv"]}


def _sherlock_merlin(name):
    film = {"SherlockMovie": "Sherlock.m4v", "MerlinMovie": "Merlin.mp4"}
    film = next((f for task, f in film.items() if task in name), "talk.wav")
    return {"onset": [25.5], "duration": [1415.5], "stim_file": [film]}


def _sherlock(name):
    return {"onset": [0], "duration": [1200]}


def _titles(recipe, seconds=1550):
    table = read_film_table(load_recipe(recipe).options["films"])
    return dict.fromkeys(table.rows["stim_file"], seconds)


SETS = {
    "friends": PublicSet("cneuromod-friends", 1.49, 620, _FREE, more={"events": _friends}),
    "movie10": PublicSet("cneuromod-movie10", 1.49, 620, _FREE, more={"events": _movie10}),
    "bold-moments": PublicSet(
        "ds005165", 1.75, 4, ("--space", "MNI152NLin2009cAsym", "--stimuli", "{films}"),
        trials=True,
    ),
    "had": PublicSet(
        "ds004488", 2.0, 3, ("--stimuli", "{films}", "--mask", "{mask}"), trials=True
    ),
    "animal-clips": PublicSet("ds000233", 2.0, 3, _FREE, trials=True),
    "budapest": PublicSet(
        "ds003017", 1.0, {"budapest.mkv": 2900}, _FREE, more={"fmriprep": ("movie",)}
    ),
    "partly-cloudy": PublicSet("ds000228", 2.0, {"partly_cloudy.mp4": 340}, _FREE),
    "sherlock": PublicSet(
        "ds001132", 1.5, _titles("sherlock"), _FREE,
        more={"events": _sherlock, "fmriprep": ("sherlock",)},
    ),
    "sherlock-merlin": PublicSet(
        "ds001110", 1.5, {"Sherlock.m4v": 1450, "Merlin.mp4": 1510},
        ("--derivatives", "{derivatives}/fmriprep", "--stimuli", "{films}"),
        more={"events": _sherlock_merlin},
    ),
    "song": PublicSet(
        "ds004592", 1.0, _titles("song"), _FREE, more={"fmriprep": ("sitcomep", "documentary")}
    ),
    "film-festival": PublicSet(
        "ds004042", 1.5, _titles("film-festival", 500), _FREE, more={"fmriprep": ("movie",)}
    ),
    "emo-film": PublicSet(
        "ds004892", 1.3, _titles("emo-film", 1100),
        ("--stimuli", "{films}", "--mask", "{mask}"),
    ),
    "studyforrest": PublicSet(
        "ds000113", 2.0, {"forrest_gump.mkv": 7100},
        ("--derivatives", "{derivatives}/fmriprep", "--stimuli", "{films}"),
    ),
    "nndb": PublicSet(
        "ds002837", 1.0, {}, _ELSEWHERE, refused="must be filled in: onset, film_start",
        more={"fmriprep": ("500",)},
    ),
    "ibc": PublicSet(
        "ds002685", 2.0, {}, _ELSEWHERE, refused="must be filled in: onset, film_start, stim_file",
        more={"fmriprep": ("Clips", "Raiders")},
    ),
    "hcp-7t": PublicSet("", 1.0, {}, ()),
    "spacetop": PublicSet("ds005256", 0.46, 400, _FREE),
}  # fmt: skip


#: What came of each before there were film tables, parts of films, trials and recipes.
BEFORE = {
    "friends": "read",
    "movie10": "read, where no scan was aborted",
    "bold-moments": "films not found",
    "had": "refused: names of derivatives",
    "animal-clips": "read, not fitted",
    "budapest": "refused: no stim_file",
    "partly-cloudy": "refused: no events.tsv",
    "sherlock": "refused: no stim_file",
    "sherlock-merlin": "read, nothing to hold out",
    "song": "refused: no stim_file",
    "film-festival": "refused: no stim_file",
    "emo-film": "refused: mriqc, desc, no stim_file",
    "studyforrest": "refused: no stim_file",
    "nndb": "refused: no events.tsv",
    "hcp-7t": "not BIDS",
    "ibc": "refused: no events.tsv",
    "spacetop": "read, where no scan was aborted",
}


def lay_out(name, root):
    """Write a data set; return what is typed for it."""
    public = SETS[name]
    if name == "hcp-7t":
        hcp7t_release.make_release(root / "release", subjects=("100610",))
        how = {"films": root / "release" / "films", "clips": hcp7t_release.CLIPS, "version": 2}
        hcp7t_to_bids(root / "release", root / "bids", mesh="32k", verbose=0, **how)
        return [str(root / "bids"), "--recipe", name]
    films, more = public.films, public.more
    if not isinstance(films, dict):
        films = _films_of_events(public, films)
    places = skeletons.make(root, public.skeleton, t_r=public.t_r, films=films, **more)
    places["mask"] = root / "mask.nii.gz"
    mask = np.ones(skeletons.SHAPE, np.uint8)
    nib.save(nib.Nifti1Image(mask, skeletons.AFFINE), places["mask"])
    typed = [str(places["bids"]), "--recipe", name]
    return typed + [word.format(**places) for word in public.typed]


def _films_of_events(public, seconds):
    """Films that the events name: those of the skeleton, or those that are made."""
    if "events" not in public.more:
        return skeletons.films_of_events(public.skeleton, seconds)
    names = [Path(path).name for path in skeletons.sections(public.skeleton)["raw"]]
    events = [public.more["events"](name) for name in names if name.endswith("_events.tsv")]
    return {rows["stim_file"][0]: seconds for rows in events}
