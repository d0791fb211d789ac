"""What somebody else's model predicted: BOLD in time with the volumes, or flow of the clips."""

import warnings
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from brainnrds.analyses.extract import extract_features
from brainnrds.analyses.named_spaces import names_of, split_name
from brainnrds.io import FeatureFiles, InputError, read_feature_file

__all__ = ["find_predicted", "others_of", "read_predicted", "read_predicted_flow"]

_RESERVED = ("difference", "joint", "shifted", "videoMinusImage")


def others_of(options):
    """Names of the models whose predictions `EncodeOptions` name."""
    return names_of(options.predicted)


def find_predicted(options, taken, kind=FeatureFiles):
    """Find the folders of predictions.

    Parameters
    ----------
    options : EncodeOptions or DecodeOptions
    taken : iterable of str
        Names of feature spaces, or of other rows.
    kind : {FeatureFiles, FlowFiles}
        What the folders hold.

    Returns
    -------
    folders : dict of str to FeatureFiles or FlowFiles

    Raises
    ------
    InputError
        A name that is not alphanumeric or used already, a folder that is none.
    """
    folders = {}
    for part in options.predicted:
        name, folder = split_name("--predicted", part, "FOLDER")
        if name in (*_RESERVED, *taken, *folders) or name.startswith("without"):
            raise InputError(f"--predicted must have a name of its own; got {name!r}.")
        if not Path(folder).is_dir():
            raise InputError(f"--predicted {name}: no such folder: {folder}.")
        folders[name] = kind(folder)
    return folders


def read_predicted(name, files, data, folds, *, lag=0.0):
    """Read the predictions of a model for the tested volumes.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    files : FeatureFiles
        A file per film, as :func:`brainnrds.io.read_feature_file` takes it: a column for each voxel
        of the data, and the times of the predicted volumes, in s from the film's first frame.
    data : MovieData
    folds : array of int of shape (n_samples,)
        -1: not tested.
    lag : float, default=0.0
        Added to the files' times, in s.

    Returns
    -------
    held_out : Bunch
        ``predictions``, array of float32 of shape (n_samples, n_voxels), straight lines between the
        files' times, 0 where a sample is not tested; ``folds``.

    Raises
    ------
    InputError
        A file is missing, has another number of columns, or does not cover the tested volumes of
        its film.

    Warns
    -----
    UserWarning
        If volumes after a film's end have no prediction: they get the film's mean, which says
        nothing.
    """
    predictions = np.zeros(data.bold.shape, dtype=np.float32)
    n_filled = 0
    for film in np.unique(data.films[folds >= 0]):
        rows = np.flatnonzero((folds >= 0) & (data.films == film))
        path = files.find(data.stim_files[film])
        clock, values = read_feature_file(path)
        if values.shape[1] != data.bold.shape[1]:
            raise InputError(
                f"--predicted {name}: {path} must have a column for each of the "
                f"{data.bold.shape[1]:,} voxels of the data; got {values.shape[1]:,}."
            )
        clock, times = clock + lag, data.film_times[rows]
        shown = times < data.film_starts[film] + data.film_durations[film]
        needed = times[shown] if shown.any() else times
        if needed.min() < clock[0] - 1e-3 or needed.max() > clock[-1] + 1e-3:
            raise InputError(
                f"--predicted {name}: {path} must cover the tested volumes from "
                f"{needed.min():g} to {needed.max():g} s of the film; got {clock[0]:g} to "
                f"{clock[-1]:g} s."
            )
        after = np.searchsorted(clock, times).clip(1, len(clock) - 1)
        share = ((times - clock[after - 1]) / (clock[after] - clock[after - 1])).clip(0, 1)
        share = share[:, None].astype(np.float32)
        predictions[rows] = (1 - share) * values[after - 1] + share * values[after]
        uncovered = times > clock[-1] + 1e-3
        predictions[rows[uncovered]] = values.mean(0)
        n_filled += int(uncovered.sum())
    if n_filled:
        warnings.warn(
            f"--predicted {name}: {n_filled} of {int((folds >= 0).sum())} tested volumes lie after "
            "the last prediction of their film, at rest: they get its mean.",
            stacklevel=2,
        )
    return Bunch(predictions=predictions, folds=folds)


def read_predicted_flow(name, files, samples, onsets, wanted, shape, extractor, **options):
    """Read the flow of another system's reconstructions.

    Parameters
    ----------
    name : str
        Of the system, for messages.
    files : FlowFiles
    samples : MovieData
    onsets : array of shape (n_samples,)
        Of each clip, s from its film's first frame.
    wanted : bool array of shape (n_samples,)
        Which clips are scored.
    shape : tuple (n_steps, 2, height, width)
        Of a clip's flow.
    extractor : OpticalFlow
        Measures the flow of videos, as that of the films was measured.
    **options
        Of `extract_features`.

    Returns
    -------
    flow : array of float32 of shape (n_samples, n_steps, 2, height, width)
        0 where it is not wanted.

    Raises
    ------
    InputError
        A film's file is missing, damaged or too short, or lacks a wanted clip.
    """
    flow = np.zeros((len(wanted), *shape), dtype=np.float32)
    for film in np.unique(samples.films[wanted]):
        rows = np.flatnonzero(wanted & (samples.films == film))
        times, index = np.unique(onsets[rows], return_inverse=True)
        try:
            path = files.find(samples.stim_files[film])
            if path.suffix == ".h5":
                found = files.flow_of(samples.stim_files[film], times, shape)
            else:
                clips = [(path, times, samples.t_r)]
                (found,) = extract_features(clips, {name: extractor}, **options)[name]
        except InputError as error:
            raise InputError(f"--predicted {name}: {error}") from error
        flow[rows] = found[index]
    return flow
