"""Trial designs in the layouts of three public data sets, with planted responses and tiny films.

Names are of the form that the Human Action Dataset (ds004488), the clips of behaving animals
(ds000233) and BOLD Moments (ds005165) publish; what they name is made here. Every clip is a texture
that drifts: the first frame does not say where to.
"""

import functools
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter
from tiny_bids import write_json

from brainnrds.io import write_clip

SHAPE = (4, 5, 3)
SPACE = "MNI152NLin2009cAsym"
FPS, HEIGHT, WIDTH = 8, 48, 64


@functools.cache
def drifting_film(seed, seconds):
    """Bytes of a film, and the velocity of its texture in px per frame, (x, y)."""
    random = np.random.default_rng([7, seed])
    angle, speed = random.uniform(0, 2 * np.pi), random.uniform(1.0, 2.5)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    texture = gaussian_filter(random.standard_normal((HEIGHT, WIDTH)), 2.5, mode="wrap")
    spectrum = np.fft.fft2(0.5 + 0.2 * texture / texture.std())
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)
    frames = [
        np.fft.ifft2(
            spectrum * np.exp(-2j * np.pi * i * (velocity[0] * columns + velocity[1] * rows))
        ).real
        for i in range(round(seconds * FPS))
    ]
    frames = np.broadcast_to(
        np.clip(frames, 0, 1)[:, None], (len(frames), 3, HEIGHT, WIDTH)
    ).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_clip(path, frames, fps=FPS)
        return path.read_bytes(), velocity


@dataclass
class TrialSet:
    """Where the files are, and what was planted."""

    bids_dir: Path
    derivatives: Path
    velocity: dict  # of each film, (x, y) in px per frame
    amplitude: dict  # of each film, (n_voxels,)
    moves: np.ndarray  # voxels that follow the motion
    bold: list = field(default_factory=list)  # images, in the order of the runs
    events: list = field(default_factory=list)  # a table for each run

    def options(self, recipe=None):
        """Arguments that name the data."""
        named = ["--derivatives", str(self.derivatives)] if recipe is None else ["--recipe", recipe]
        return [*named, "--space", SPACE]


def _action_runs(random):
    """Clips of the Human Action Dataset: each is shown once."""
    actions = ["Drum corps", "Making a cake", "Ice fishing", "Doing nails", "Playing violin"]
    for run in range(1, 7):
        names = [
            f"{action}/v_{action}_id_{run}x{i}_start_{i}.5_label_1.mp4"
            for action, i in product(actions, range(4))
        ]
        names = random.permutation(names)
        onsets = 0.11 + 4 * np.arange(len(names)) + random.uniform(0, 0.02, len(names))
        table = {"onset": onsets, "duration": 2.0 + random.uniform(0.005, 0.02, len(names))}
        yield (
            {"ses": "action01", "task": "action", "run": f"{run:02d}"},
            {
                **table,
                "trial_type": 15.0,
                "response_time": 2.9,
                "stim_file": names,
            },
        )


def _animal_runs(random):
    """Clips of behaving animals: all of them in every run, some events are fixation."""
    animals, behaviours = (
        ("bird", "insect", "primate", "reptile"),
        ("eating", "running", "fighting"),
    )
    names = [f"{a}_{b}_{i}.mp4" for a, b, i in product(animals, behaviours, (1, 2))]
    for task, run in product(("beh", "tax"), (1, 2, 3)):
        shown = random.permutation(names)
        onsets = 12.0 + 4 * np.arange(len(shown)) + 4 * (np.arange(len(shown)) > 9)
        yield (
            {"task": task, "run": str(run)},
            {
                "onset": onsets,
                "duration": 2.0,
                "trial_type": [name.rsplit("_", 1)[0] for name in shown],
                "mirror": "no",
                "stim_file": shown,
            },
        )


def _moment_runs(random):
    """Clips of BOLD Moments: many for training, few for testing, oddballs among them."""
    training = [f"train/{i:04d}.mp4" for i in range(1, 49)]
    testing = [f"test/{i:04d}.mp4" for i in range(1001, 1017)]
    order = random.permutation(training)
    for task, run in product(("test", "train"), (1, 2, 3, 4)):
        names = testing if task == "test" else order[12 * (run - 1) : 12 * run]
        shown = random.permutation([*names, *names] if task == "train" else [*names])
        shown = np.insert(shown.astype(object), [5, 11], None)
        yield (
            {"ses": "02", "task": task, "run": str(run)},
            {
                "onset": 4.002 + 4.001 * np.arange(len(shown)),
                "duration": 3.0,
                "stim_file": shown,
                "trial_type": ["oddball" if name is None else task for name in shown],
            },
        )


LAYOUTS = {
    "had": (_action_runs, 2.0, 2.0, "derivatives/fmriprep"),
    "animal-clips": (_animal_runs, 2.0, 2.0, "derivatives/fmriprep"),
    "bold-moments": (_moment_runs, 1.75, 3.0, "derivatives/versionB/fmriprep"),
}
TITLES = {
    "had": "A large-scale fMRI dataset for human action recognition",
    "animal-clips": "Neural responses to naturalistic clips of behaving animals in two different "
    "task contexts",
    "bold-moments": "Modeling short visual events through the BOLD Moments video fMRI dataset and "
    "metadata.",
}


def make_trial_set(root, layout, *, signal=1.0, noise=1.0, seed=0):
    """Write a data set of one person.

    Half of the voxels respond to the velocity of each clip, the others to nothing; `signal` and
    `noise` are the standard deviation over clips of the response's amplitude, and of AR(1) noise.
    """
    runs_of, t_r, seconds, derivatives = LAYOUTS[layout]
    random = np.random.default_rng([11, seed])
    runs = list(runs_of(random))
    bids, folder = Path(root), Path(root) / derivatives
    about = {"Name": TITLES[layout], "BIDSVersion": "1.8.0"}
    write_json(bids / "dataset_description.json", about)
    generated = [{"Name": "fMRIPrep", "Version": "23.2.0"}]
    write_json(
        folder / "dataset_description.json",
        {**about, "DatasetType": "derivative", "GeneratedBy": generated},
    )
    names = sorted({n for _, rows in runs for n in rows["stim_file"] if n is not None})
    velocity = {}
    for i, name in enumerate(names):
        path = bids / "stimuli" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content, velocity[name] = drifting_film(i, seconds)
        path.write_bytes(content)
    n_voxels = int(np.prod(SHAPE))
    moves = np.arange(n_voxels) < n_voxels // 2
    angles = random.uniform(0, 2 * np.pi, n_voxels)
    tuning = np.stack([np.cos(angles), np.sin(angles)]) * moves
    drift = np.array([velocity[name] for name in names])
    amplitude = signal * (drift / np.sqrt(np.mean(drift**2))) @ tuning
    made = TrialSet(bids, folder, velocity, dict(zip(names, amplitude, strict=True)), moves)
    for labels, rows in runs:
        _write_run(made, labels, pd.DataFrame(rows), t_r, noise, random)
    return made


def _write_run(made, labels, events, t_r, noise, random):
    n_volumes = int(np.ceil((events["onset"].max() + 14) / t_r))
    times = t_r / 2 + t_r * np.arange(n_volumes)
    shown = events["stim_file"].notna().to_numpy()
    table = events[["onset", "duration"]].assign(
        trial_type=[f"t{i:03d}" for i in range(len(events))]
    )
    design = make_first_level_design_matrix(times, table, drift_model=None).iloc[:, : len(events)]
    peak = design.to_numpy().max()
    planted = [made.amplitude[name] for name in events["stim_file"][shown]]
    bold = design.to_numpy()[:, shown] / peak @ (3.0 + np.array(planted))
    innovations = random.standard_normal((n_volumes, bold.shape[1]))
    bold += noise * lfilter([1], [1, -0.3], innovations, axis=0)
    confounds = pd.DataFrame(
        random.standard_normal((n_volumes, 8)).cumsum(axis=0) / 10,
        columns=[*(f"{k}_{a}" for k in ("trans", "rot") for a in "xyz"), "csf", "white_matter"],
    )
    for name in confounds.columns[:6]:
        confounds[f"{name}_derivative1"] = confounds[name].diff()
    confounds["cosine00"] = np.cos(np.pi * (np.arange(n_volumes) + 0.5) / n_volumes)
    bold += confounds[["trans_x"]].to_numpy() + 100
    session = f"ses-{labels['ses']}" if "ses" in labels else ""
    stem = "_".join(["sub-01", *(f"{key}-{value}" for key, value in labels.items())])
    raw = made.bids_dir / "sub-01" / session / "func"
    out = made.derivatives / "sub-01" / session / "func"
    raw.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    events.to_csv(raw / f"{stem}_events.tsv", sep="\t", index=False, na_rep="n/a")
    write_json(raw / f"{stem}_bold.json", {"RepetitionTime": t_r, "TaskName": labels["task"]})
    path = out / f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz"
    write_json(out / path.name.replace(".nii.gz", ".json"), {"StartTime": t_r / 2})
    confounds.to_csv(
        out / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a"
    )
    write_json(out / f"{stem}_desc-confounds_timeseries.json", {})
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = nib.Nifti1Image(bold.T.reshape(*SHAPE, n_volumes).astype(np.float32), affine)
    image.header.set_zooms((2, 2, 2, t_r))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    mask = out / f"{stem}_space-{SPACE}_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine), mask)
    made.bold.append(path)
    made.events.append(events)
