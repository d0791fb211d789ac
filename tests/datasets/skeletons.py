"""Public data sets by their names and texts, with small images and films made for the test.

The names are in folders beside the clone (``shared/skeletons``), which are not shipped.
"""

import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from brainnrds.io import write_clip

ROOT = Path(__file__).resolve().parents[3] / "shared" / "skeletons"
MNI = "_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
SECONDS = 1640.0  # of every scan
FILMS = (".mp4", ".mkv", ".m4v")


def sections(skeleton):
    """Paths of the data set, of its derivatives and of its films: lists by "raw", ..."""
    found, current = {"raw": [], "derivatives": [], "stimuli": []}, "raw"
    for line in (ROOT / skeleton / "tree.txt").read_text().splitlines():
        heading = re.match(r"# (raw|derivatives|stimuli): ", line)
        if heading:
            current = heading.group(1)
        elif line and not line.startswith("#"):
            found[current].append(line)
    return found


@functools.cache
def film_content(number, seconds):
    """Bytes of a film of so many seconds, of a frame a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        brightness = (np.arange(seconds) * (number + 1) % 97) / 97
        frames = np.broadcast_to(brightness[:, None, None, None], (seconds, 3, 16, 16))
        write_clip(path, frames, fps=1)
        return path.read_bytes()


def write_image(path, t_r):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.zeros((1, 1, 2, int(SECONDS / t_r)), np.uint8), np.eye(4))
    image.header.set_zooms((1, 1, 1, t_r))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def make(root, skeleton, *, t_r, films, events=None, fmriprep=()):
    """Write a data set with the names of a skeleton.

    Parameters
    ----------
    root : Path
    skeleton : str
    t_r : float
        Repetition time in s.
    films : dict of str to int
        Films of the user's folder and their lengths in s.
    events : callable or None, default=None
        Name of an events file -> its rows, where no licence allows to copy them.
    fmriprep : tuple of str, default=()
        Tasks of which preprocessed BOLD is made, as fMRIPrep would.

    Returns
    -------
    places : dict of str to Path
        "bids", "derivatives" and "films".
    """
    bids, derivatives = root / "bids", root / "derivatives"
    paths, files = sections(skeleton), ROOT / skeleton / "files"
    bids.mkdir(parents=True)
    if files.is_dir():
        shutil.copytree(files, bids, dirs_exist_ok=True)
    for path in bids.glob("derivatives/*-fmriprep"):
        shutil.move(path, derivatives)
    derivatives.mkdir(exist_ok=True)
    if not (bids / "dataset_description.json").exists():
        about = {"Name": skeleton, "BIDSVersion": "1.8.0"}
        (bids / "dataset_description.json").write_text(json.dumps(about))
    if not any(bids.rglob("*_bold.json")):
        (bids / "bold.json").write_text(json.dumps({"RepetitionTime": t_r}))
    for name in paths["raw"]:
        if name.endswith("_events.tsv") and events is not None:
            (bids / name).parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(events(Path(name).name)).to_csv(
                bids / name, sep="\t", index=False, na_rep="n/a"
            )
        elif name.startswith("derivatives/") and name.endswith("_bold.nii.gz"):
            write_image(bids / name, t_r)
        elif any(f"task-{task}" in name for task in fmriprep) and name.endswith("_bold.nii.gz"):
            write_image(derivatives / name.replace("_bold.nii.gz", MNI), t_r)
    for name in paths["derivatives"]:
        if name.endswith(("_bold.nii.gz", "_boldref.nii.gz")):
            write_image(derivatives / name, t_r)
    for number, (name, seconds) in enumerate(films.items()):
        path = root / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film_content(number, seconds))
    return {"bids": bids, "derivatives": derivatives, "films": root / "films"}


def films_of_events(skeleton, seconds):
    """Films that the events of a skeleton name."""
    names = {}
    for path in sorted((ROOT / skeleton / "files").rglob("*_events.tsv")):
        table = pd.read_csv(path, sep="\t", dtype=str)
        for name in table.get("stim_file", pd.Series(dtype=str)).dropna():
            if name.endswith(FILMS):
                names[name] = seconds
    return names
