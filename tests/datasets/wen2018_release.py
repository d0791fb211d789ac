"""A small copy of the tree of the Dynamic Natural Vision release: right names, few voxels."""

from pathlib import Path

import cv2
import nibabel as nib
import numpy as np

from brainnrds.datasets.footage import plan_film, plan_windows, render_clip
from brainnrds.io import write_clip

N_VERTICES = 30  # on each side
SHAPE = (5, 6, 4)


def _axis():
    """Brain models of a small CIFTI: cortex on both sides, then a few subcortical voxels."""
    left, right = (
        nib.cifti2.BrainModelAxis.from_surface(
            np.arange(N_VERTICES) * 7, 32492, name=f"CIFTI_STRUCTURE_CORTEX_{side}"
        )
        for side in ("LEFT", "RIGHT")
    )
    thalamus = nib.cifti2.BrainModelAxis(
        "CIFTI_STRUCTURE_THALAMUS_LEFT",
        voxel=np.array([[40, 50, 40], [41, 50, 40]]),
        affine=np.diag([-2.0, 2, 2, 1]),
        volume_shape=(91, 109, 91),
    )
    return left + right + thalamus


def write_film(path, *, seconds=480.0, fps=2, seed=0):
    """A film of 8 min with motion, few frames and few pixels."""
    rng = np.random.default_rng(seed)
    clips = plan_film(plan_windows(30, rng)[seed % 30], int(seconds // 2), rng)
    frames = np.concatenate([render_clip(clip, fps=fps, size=(36, 48)) for clip in clips])
    frames = np.stack([cv2.resize(frame, (48, 36)) for frame in frames])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames.transpose(0, 3, 1, 2).astype(np.float32) / 255, fps=fps)


def scan_start(n_volumes):
    """Seconds from the film's onset to volume 0, as the release's authors describe it."""
    return {245: 2, 246: 0}[n_volumes]


def run_course(n_volumes, response, rng, noise=1.0):
    """BOLD of all voxels: `response(t)`, t the film time of a volume's middle in s, plus noise."""
    times = scan_start(n_volumes) + 2.0 * np.arange(n_volumes) + 1.0
    course = np.stack([response(time) for time in times])  # (n_volumes, n)
    return course + noise * rng.standard_normal(course.shape)


def write_run(root, subject, film, repeat, course, *, kinds=("cifti", "mni"), dot_mni=False):
    """Write one run as CIFTI and MNI volume; the headers' repetition time is wrong on purpose."""
    n_volumes = len(course)
    axis = _axis()
    for kind in kinds:
        folder = Path(root) / f"subject{subject}" / "fmri" / film / kind
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "cifti":
            data = np.resize(course, (len(axis), n_volumes)) if course.ndim == 1 else course
            data = 1000 + np.tile(data, (1, -(-len(axis) // data.shape[1])))[:, : len(axis)]
            series = nib.cifti2.SeriesAxis(0, 1.0, n_volumes)
            image = nib.Cifti2Image(data.astype(np.float32), header=(series, axis))
            nib.save(image, folder / f"{film}_{repeat}_Atlas.dtseries.nii")
        else:
            n_voxels = int(np.prod(SHAPE))
            data = 1000 + np.tile(course, (1, -(-n_voxels // course.shape[1])))[:, :n_voxels]
            volume = data.T.reshape(*SHAPE, n_volumes).astype(np.float32)
            volume[0] = 0  # outside the brain
            image = nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1]))
            image.header.set_zooms((2, 2, 2, 1.0))
            name = f"{film}_{repeat}.mni.nii.gz" if dot_mni else f"{film}_{repeat}_mni.nii.gz"
            nib.save(image, folder / name)


def make_release(root, *, films, subjects=(1,), kinds=("cifti", "mni"), response=None, seed=0):
    """Write runs and films of a release that holds only `films` (e.g. seg1, test1, test2)."""
    root = Path(root) / "video_fmri_dataset"
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(12)
    if response is None:

        def response(time):
            return np.sin(2 * np.pi * time / 37) * weights

    for index, film in enumerate(films):
        write_film(root / "stimuli" / f"{film}.mp4", seed=index)
        n_volumes = 246 if film in ("test2", "test3", "test4", "test5") else 245
        for subject in subjects:
            for repeat in range(1, (2 if film.startswith("seg") else 10) + 1):
                course = run_course(n_volumes, response, rng)
                write_run(root, subject, film, repeat, course, kinds=kinds, dot_mni=film == "test1")
    return root
