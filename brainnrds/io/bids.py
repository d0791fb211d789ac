"""BIDS data sets of people watching films: which runs there are, and their BOLD as arrays."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["MovieData", "Presentation", "Run"]


@dataclass(frozen=True)
class Presentation:
    """One film shown once.

    Attributes
    ----------
    film : str
        `stim_file` as events.tsv has it: relative to stimuli/, with "/" and its extension.
    stim_file : Path
    onset, duration : float
        In s from the start of the run.
    """

    film: str
    stim_file: Path
    onset: float
    duration: float


@dataclass(frozen=True)
class Run:
    """One scanner run: its files, timing and films.

    Attributes
    ----------
    subject, session, task, run, space : str or None
        Labels without their prefix.
    bold : tuple of Path
        One NIfTI or CIFTI file, or the left and the right GIFTI.
    events, confounds, mask : Path or None
    t_r : float
        Repetition time in s.
    start_time : float
        Time in s that volume 0 stands for (slice-timing reference).
    n_volumes : int
    films : tuple of Presentation
        In order of onset.
    """

    subject: str
    session: str | None
    task: str
    run: str | None
    space: str | None
    bold: tuple[Path, ...]
    events: Path
    confounds: Path | None
    mask: Path | None
    t_r: float
    start_time: float
    n_volumes: int
    films: tuple[Presentation, ...]


@dataclass(eq=False)
class MovieData:
    """BOLD of one subject, cut to films.

    Attributes
    ----------
    bold : array of float32 of shape (n_samples, n_voxels)
        Detrended, confounds removed, z-scored per scanner run.
    runs : array of int of shape (n_samples,)
        Label of the contiguous segment: one presentation of a film, or the average of them.
    films : array of int of shape (n_samples,)
        Index into `film_names`; -1 for volumes after the film's end.
    film_times : array of float of shape (n_samples,)
        s from the film's onset to the volume's time.
    n_repeats : array of int of shape (n_samples,)
        Presentations behind the sample; 0 where all were scrubbed (`bold` is 0 there).
    film_names : list of str
    stim_files : list of Path
    film_durations : list of float
        In s, as events.tsv says.
    t_r : float
        In s.
    masker : fitted masker
        ``inverse_transform`` gives images.
    voxels : array of bool of shape (n_voxels,)
        False where a voxel was constant or not finite in any run; `bold` is 0 there.
    subject, space : str or None
    sources : list of str
        BOLD files, relative to the derivatives folder.
    counts : dict
        What was handled, for sidecars.
    """

    bold: np.ndarray
    runs: np.ndarray
    films: np.ndarray
    film_times: np.ndarray
    n_repeats: np.ndarray
    film_names: list
    stim_files: list
    film_durations: list
    t_r: float
    masker: object
    voxels: np.ndarray
    subject: str
    space: str | None
    sources: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)
