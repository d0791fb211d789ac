"""BOLD that a kept model predicts for new films."""

import json
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import check_device
from brainnrds._files import plain
from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.extract import describe_extractor, movie_features
from brainnrds.analyses.named_spaces import split_name
from brainnrds.analyses.options import EncodeOptions, PredictOptions
from brainnrds.encoding import VideoEncodingModel
from brainnrds.io import (
    InputError,
    check_output_dir,
    masker_of,
    probe_video,
    save_series,
    to_label,
    write_dataset_description,
)

__all__ = ["predict_films"]

_NEEDED = ("Extractors", "Grid", "Options", "RepetitionTime", "Space", "Subject")


def predict_films(
    model,
    films,
    output_dir=None,
    options=None,
    *,
    work_dir="work",
    verbose=1,
):
    """Predict the BOLD of people who watch films that nobody has seen in the scanner.

    Parameters
    ----------
    model : path-like
        ``..._feat-joint_desc-encode_model.h5`` that `encode_participant` wrote.
    films : sequence of path-like
        Each is shown alone, after rest.
    output_dir : path-like or None, default=None
        Where to write an image of time series for each film; None: nowhere.
    options : PredictOptions or None, default=None
        None: the defaults, by which the first volume is at the film's onset; each next one is a
        repetition time later.
    work_dir : path-like, default="work"
        Features of films are found there, and kept.
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    predicted : list of Bunch
        For each film: ``film`` (Path); ``predictions``, array of float32 (n_volumes, n_voxels), in
        standard deviations of a run; ``times``, array (n_volumes,), s from the film's onset; and
        ``files``, what was written. Volumes go on after the film until its last delay.

    Raises
    ------
    InputError
        Before anything is written: no model of an encoding analysis, one of trials, an extractor
        that is not the model's, a film that cannot be read.
    """
    options = options or PredictOptions()
    films = [Path(film) for film in films]
    labels = [to_label(film.stem) for film in films]
    if not films or len(set(labels)) < len(labels):
        raise InputError(f"`films` must have names of their own, at least one; got {films}.")
    model = _load(Path(model))
    about = model.metadata_
    t_r = about["RepetitionTime"]
    if options.first_volume >= t_r:
        raise InputError(
            f"--first-volume must be less than the repetition time, {t_r:g} s; got "
            f"{options.first_volume:g}."
        )
    if output_dir is not None:
        for film in films:
            check_output_dir(output_dir, film)
    device = check_device(options.device)
    extractors = _extractors(model, options, device)
    samples = _volumes(films, t_r, options.first_volume, max(0, *model.delays))
    X, spaces = movie_features(
        samples,
        extractors,
        store_dir=Path(work_dir) / "features",
        n_jobs=options.n_processes,
        progress=bool(verbose),
        may_be_constant=True,
    )
    projection = model.projection_
    wanted = model.feature_spaces_ if projection is None else projection.feature_spaces
    if spaces != {n: slice(s.start, s.stop) for n, s in wanted.items()}:
        raise InputError(
            f"the films must have the features that the model was fitted to, {_sizes(wanted)}; got "
            f"{_sizes(spaces)}."
        )
    X = X if projection is None else projection.transform(X)
    # at rest: what says nothing to the model
    X[samples.on_screen < 0] = model.feature_mean_
    predictions = model.set_params(device=device).predict(X, runs=samples.runs)
    predicted = [
        Bunch(
            film=film,
            predictions=predictions[samples.runs == i],
            times=samples.film_times[samples.runs == i],
            files=(),
        )
        for i, film in enumerate(films)
    ]
    if output_dir is not None:
        _write(predicted, labels, about, output_dir)
    return predicted


def _load(path):
    model = VideoEncodingModel.load(path)
    missing = [name for name in _NEEDED if name not in model.metadata_]
    if missing:
        raise InputError(
            f"{path} must be a model that `brainnrds --analysis encode` kept; got one without "
            f"{', '.join(missing)}."
        )
    if model.metadata_.get("Design") == "trials":
        raise InputError(
            f"{path} was fitted to trials: it predicts responses to clips, not a time series."
        )
    if model.metadata_.get("NumberOfComponents") and model.projection_ is None:
        raise InputError(f"{path} was fitted to components (--n-components), and lacks them.")
    return model


def _extractors(model, options, device):
    """Extractors of the model's spaces, as they were when it was fitted."""
    given = {name: tuple(listed) for name, listed in model.metadata_["Options"].items()}
    folders = dict(split_name("--feature-files", p, "FOLDER") for p in options.feature_files)
    unknown = set(folders) - set(model.feature_spaces_)
    if unknown:
        raise InputError(
            f"--feature-files must name spaces of the model, {', '.join(model.feature_spaces_)}; "
            f"got {', '.join(sorted(unknown))}."
        )
    for kind in ("feature_spaces", "control_spaces"):
        parts = [split_name("spaces", part, "EXTRACTOR") for part in given[kind]]
        given[kind] = tuple(f"{n}={folders.get(n, what)}" for n, what in parts)
    given = EncodeOptions(**given, transcript=options.transcript)
    extractors, _ = make_extractors(given, device)
    for name, extractor in extractors.items():
        fitted = model.metadata_["Extractors"][name]
        if getattr(extractor, "modality", None) == "file":
            continue  # of other films
        if "precision" in fitted:  # "auto" differs between devices
            own = [key for key in extractor.get_params() if key.endswith("precision")]
            extractor.set_params(**dict.fromkeys(own, fitted["precision"]))
        found = json.loads(json.dumps(plain(describe_extractor(extractor))))
        if found != fitted:
            keys = sorted(k for k in {*found, *fitted} if found.get(k) != fitted.get(k))
            raise InputError(
                f"feature space {name} must be that of the model; got another {', '.join(keys)}."
            )
    return {name: extractors[name] for name in model.feature_spaces_}


def _volumes(films, t_r, first_volume, latest):
    """Volumes of films that are shown one by one, each with rest after it."""
    durations = [probe_video(film).duration for film in films]
    times = [
        first_volume + t_r * np.arange(max(1, np.ceil((d - first_volume) / t_r)) + latest)
        for d in durations
    ]
    runs = np.repeat(np.arange(len(films)), [len(part) for part in times])
    film_times = np.concatenate(times)
    ended = film_times >= np.array(durations)[runs] - 1e-6
    return Bunch(
        design="continuous",
        clip_duration=t_r,
        runs=runs,
        film_times=film_times,
        on_screen=np.where(ended, -1, runs),
        stim_files=films,
        film_starts=[0.0] * len(films),
        film_durations=durations,
    )


def _sizes(spaces):
    return ", ".join(f"{name} of {s.stop - s.start} columns" for name, s in spaces.items())


def _write(predicted, labels, about, output_dir):
    write_dataset_description(output_dir, Path(predicted[0].film).parent)
    masker = masker_of(about["Grid"])
    for result, label in zip(predicted, labels, strict=True):
        result.files = save_series(
            output_dir,
            result.predictions,
            masker,
            {
                "subject": about["Subject"],
                "space": about["Space"],
                "film": label,
                "feat": "joint",
                "desc": "predict",
            },
            t_r=about["RepetitionTime"],
            metadata={
                "Description": "BOLD that the joint model predicts for a film that is shown alone",
                "Units": "standard deviations of a run",
                "Film": result.film.name,
                "FilmTime": np.round(result.times, 4),
            },
        )
