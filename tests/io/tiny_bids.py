"""A BIDS data set of a few voxels, in any space, with every value known."""

import functools
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from brainnrds.io import write_clip

T_R = 2.0
N_VOLUMES = 45
FILM_SECONDS = 20.0
FPS = 5
SHAPE = (4, 5, 3)
N_LEFT, N_RIGHT = 30, 25


def moving_bar(n_frames, *, seed=0, height=24, width=32):
    """Frames (n_frames, 3, height, width) of a bar that moves; every frame differs."""
    columns = np.arange(width)[None, :]
    position = (seed * 7 + np.arange(n_frames))[:, None] % width
    bar = np.exp(-0.5 * ((columns - position) / 3) ** 2)
    return np.broadcast_to(bar[:, None, None, :], (n_frames, 3, height, width))


@functools.cache
def film_content(seed):
    """Bytes of an mp4 file of 20 s."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_clip(path, moving_bar(round(FILM_SECONDS * FPS), seed=seed), fps=FPS)
        return path.read_bytes()


@dataclass
class Tree:
    """Where the files of the data set are."""

    bids_dir: Path
    derivatives: Path
    space: str
    values: dict = field(default_factory=dict)  # (subject, run) -> (n_volumes, n_voxels)
    confounds: dict = field(default_factory=dict)  # (subject, run) -> DataFrame

    def func(self, pattern):
        [path] = self.derivatives.glob(f"sub-*/func/{pattern}")
        return path

    def events(self, run, subject="01"):
        return self.bids_dir / f"sub-{subject}/func/sub-{subject}_task-movie_run-{run}_events.tsv"


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_events(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["onset", "duration", "stim_file"]).to_csv(
        path, sep="\t", index=False, na_rep="n/a"
    )


def brain_mask():
    mask = np.ones(SHAPE, np.uint8)
    mask[0, 0] = 0
    return mask


def write_bold(folder, stem, space, values):
    """Write (n_volumes, n_voxels) as `space` wants it; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    if space.startswith("MNI"):
        mask = brain_mask() > 0
        data = np.zeros((*SHAPE, len(values)), np.float32)
        data[mask] = values.T
        image = nib.Nifti1Image(data, affine)
        image.header.set_zooms((2, 2, 2, T_R))
        image.header.set_xyzt_units("mm", "sec")
        path = folder / f"{stem}_space-{space}_desc-preproc_bold.nii.gz"
        nib.save(image, path)
        nib.save(
            nib.Nifti1Image(brain_mask(), affine),
            folder / f"{stem}_space-{space}_desc-brain_mask.nii.gz",
        )
        return [path]
    if space == "fsLR":
        models = brain_models()
        series = nib.cifti2.SeriesAxis(0, T_R, len(values))
        path = folder / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii"
        nib.save(nib.Cifti2Image(values.astype(np.float32), header=(series, models)), path)
        return [path]
    paths = []
    for hemi, part in (("L", values[:, :N_LEFT]), ("R", values[:, N_LEFT:])):
        arrays = [nib.gifti.GiftiDataArray(row.astype(np.float32)) for row in part]
        path = folder / f"{stem}_hemi-{hemi}_space-{space}_bold.func.gii"
        nib.save(nib.gifti.GiftiImage(darrays=arrays), path)
        paths.append(path)
    return paths


def brain_models():
    return nib.cifti2.BrainModelAxis.from_mask(
        np.ones(N_LEFT, bool), name="CortexLeft"
    ) + nib.cifti2.BrainModelAxis.from_mask(np.ones(N_RIGHT, bool), name="CortexRight")


def n_voxels(space):
    return int(brain_mask().sum()) if space.startswith("MNI") else N_LEFT + N_RIGHT


def make_confounds(random, n_volumes=N_VOLUMES):
    """A confounds table as fMRIPrep writes it: derivatives begin with NaN."""
    table = {}
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"):
        column = random.normal(size=n_volumes)
        table[name] = column
        table[f"{name}_derivative1"] = np.r_[np.nan, np.diff(column)]
    for name in ("csf", "white_matter"):
        table[name] = random.normal(size=n_volumes) + 100
    table["framewise_displacement"] = np.r_[np.nan, np.full(n_volumes - 1, 0.1)]
    table["std_dvars"] = np.r_[np.nan, np.ones(n_volumes - 1)]
    for i in range(2):
        phase = np.pi * (i + 1) * (np.arange(n_volumes) + 0.5) / n_volumes
        table[f"cosine{i:02d}"] = np.cos(phase)
    return pd.DataFrame(table)


DEFAULT_RUNS = {
    "1": [(6.0, FILM_SECONDS, "a.mp4"), (40.0, FILM_SECONDS, "b.mp4")],
    "2": [(6.0, FILM_SECONDS, "a.mp4"), (40.0, FILM_SECONDS, "clips/c.mp4")],
}


def make_tree(root, space="fsaverage5", *, runs=None, subjects=("01",), start_time=0.0, seed=0):
    """Write the data set; `runs`: label -> rows (onset, duration, stim_file) of events.tsv."""
    runs = DEFAULT_RUNS if runs is None else runs
    random = np.random.default_rng(seed)
    tree = Tree(root / "bids", root / "bids" / "derivatives" / "fmriprep", space)
    write_json(
        tree.bids_dir / "dataset_description.json", {"Name": "tiny", "BIDSVersion": "1.10.0"}
    )
    write_json(
        tree.derivatives / "dataset_description.json",
        {
            "Name": "fMRIPrep",
            "BIDSVersion": "1.4.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.0"}],
        },
    )
    # inherited by all runs
    write_json(tree.bids_dir / "task-movie_bold.json", {"TaskName": "movie", "RepetitionTime": T_R})
    films = {row[2] for rows in runs.values() for row in rows if row[2] is not None}
    for i, film in enumerate(sorted(films)):
        path = tree.bids_dir / "stimuli" / film
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film_content(i))
    for subject in subjects:
        for run, rows in runs.items():
            write_events(tree.events(run, subject), rows)
            stem = f"sub-{subject}_task-movie_run-{run}"
            folder = tree.derivatives / f"sub-{subject}" / "func"
            values = random.normal(size=(N_VOLUMES, n_voxels(space))) * 3 + 1000
            values += np.linspace(0, 20, N_VOLUMES)[:, None]
            confounds = make_confounds(random)
            values += confounds["trans_x"].to_numpy()[:, None] * 5
            for path in write_bold(folder, stem, space, values):
                sidecar = path.name.split(".")[0] + ".json"
                write_json(folder / sidecar, {"StartTime": start_time})
            confounds.to_csv(
                folder / f"{stem}_desc-confounds_timeseries.tsv",
                sep="\t",
                index=False,
                na_rep="n/a",
            )
            write_json(folder / f"{stem}_desc-confounds_timeseries.json", {})
            tree.values[subject, run] = values.astype(np.float32)
            tree.confounds[subject, run] = confounds
    return tree
