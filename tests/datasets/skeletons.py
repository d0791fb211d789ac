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
SHAPE, VOXEL = (3, 4, 3), 45.0  # mm: few voxels that hold the head
AFFINE = nib.affines.from_matvec(VOXEL * np.eye(3), [-45, -85, -40])
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
        rng = np.random.default_rng(number)
        frames = np.repeat(rng.random((seconds, 1, 16, 16), np.float32), 3, axis=1)
        write_clip(path, frames, fps=1)
        return path.read_bytes()


def write_bold(path, t_r, *, with_confounds=True, with_mask=True):
    """Write noise as BOLD, with the confounds table and the mask that fMRIPrep puts beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_volumes = int(SECONDS / t_r)
    rng = np.random.default_rng(list(path.name.encode()))
    data = rng.normal(1000, 20, (*SHAPE, n_volumes)).astype(np.int16)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_zooms((*[VOXEL] * 3, t_r))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    if with_mask:
        mask = path.name.replace("_desc-preproc", "").replace("_bold.", "_desc-brain_mask.")
        nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), path.parent / mask)
    if with_confounds:
        recording = re.sub("_(space|res|desc)-.*", "", path.name)
        table = path.parent / f"{recording}_desc-confounds_timeseries.tsv"
        table.write_text(confounds(n_volumes))
        table.with_suffix(".json").write_text("{}")


@functools.cache
def confounds(n_volumes):
    """Text of a confounds table."""
    rng = np.random.default_rng(0)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    names = [
        name + what
        for name in names
        for what in ("", "_derivative1", "_power2", "_derivative1_power2")
    ]
    names += ["csf", "white_matter", "cosine00", "cosine01"]
    table = pd.DataFrame(rng.normal(size=(n_volumes, len(names))), columns=names)
    return table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.3f")


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

    def has(what):
        """Whether derivatives inside the data set come with something."""
        inside = [name for name in paths["raw"] if name.startswith("derivatives/")]
        return any(f"_desc-{what}_" in name or f"brain_{what}." in name for name in inside)

    for name in paths["raw"]:
        if name.endswith("_events.tsv") and events is not None:
            (bids / name).parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(events(Path(name).name)).to_csv(
                bids / name, sep="\t", index=False, na_rep="n/a"
            )
        elif name.startswith("derivatives/") and name.endswith("_bold.nii.gz"):
            write_bold(bids / name, t_r, with_confounds=has("confounds"), with_mask=has("mask"))
        elif any(f"task-{task}" in name for task in fmriprep) and name.endswith("_bold.nii.gz"):
            write_bold(derivatives / name.replace("_bold.nii.gz", MNI), t_r)
    for name in paths["derivatives"]:
        if name.endswith("_bold.nii.gz"):
            write_bold(derivatives / name, t_r)
        elif name.endswith("_boldref.nii.gz"):
            (derivatives / name).parent.mkdir(parents=True, exist_ok=True)
            (derivatives / name).touch()
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
