"""The fit that is kept: the joint model of the training films, what its weights say, its files."""

import warnings
from functools import partial

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch

from brainnrds.analyses.drawing import draw_components, draw_map
from brainnrds.analyses.named_spaces import listed_encoders
from brainnrds.encoding import (
    VideoEncodingModel,
    response_times,
    select_feature_spaces,
    weight_components,
)
from brainnrds.encoding.held_out import training_set
from brainnrds.features import FeatureProjection
from brainnrds.films import film_folds
from brainnrds.io import InputError, describe_grid

__all__ = [
    "describe_fit",
    "fit_training_films",
    "make_model",
    "make_projection",
    "number_of_mixtures",
    "save_fit",
    "save_predictions",
]

# where nothing was tested: r of the space's own model from which its weights are looked at
_SMALLEST_SCORE = 0.1
# drawn as red, green and blue
_N_COMPONENTS = 3
_ABOUT_TESTED = "Grey: what these features predict is not significant (q of .05 and above)."
_ABOUT_UNTESTED = (
    "Nothing was tested, as blocks are too few: coloured is where the features' r is above .1, and "
    "chance reaches that, too."
)
# of the voxels that are looked at; with weak responses some are there by chance
_MANY_AT_THE_END = 0.25


def number_of_mixtures(options, spaces):
    """Mixtures of feature spaces to try: two spaces lie on a line, more need a denser net."""
    if options.n_iter is not None:
        return options.n_iter
    return 7 if len(spaces) < 3 else 20


def make_model(options, spaces, delays, device):
    """Make the model of an encoding analysis, not fitted."""
    return VideoEncodingModel(
        spaces,
        delays=delays,
        n_iter=number_of_mixtures(options, spaces),
        solver=options.solver,
        device=device,
        random_state=options.random_state,
    )


def make_projection(options):
    """Make the projection of an encoding analysis, not fitted, or None."""
    if not options.n_components:
        return None
    return FeatureProjection(
        options.n_components, method=options.projection, random_state=options.random_state
    )


def fit_training_films(record, used, X, spaces, data, splits, delays, device):
    """Fit the joint model to all films, or to all that are not held out by name.

    With named test films it is the model that made their held-out predictions.

    Parameters
    ----------
    record : Record
        Its work folder keeps the fit.
    used : list of str
        Feature spaces of the joint model.
    X, spaces
        Of `movie_features`.
    data : MovieData
    splits : Bunch
        ``units``, the film group of each sample, and ``test_units``.
    delays : list of int
    device : str

    Returns
    -------
    model : VideoEncodingModel
    """
    path = record.work / "model.h5"
    try:
        return VideoEncodingModel.load(path)
    except InputError:  # not there, or of a run that was killed
        record.say("fitting the model: joint, to all training films")
    X, columns = select_feature_spaces(X, spaces, used)
    model = make_model(record.options, columns, delays, device)
    train = np.flatnonzero(splits.units >= 0)
    if splits.test_units is not None:
        gap = max(abs(d) for d in delays)
        [(train, _)] = film_folds(data.runs, splits.units, test_films=splits.test_units, gap=gap)
    projection = make_projection(record.options)
    if projection is not None:
        projection = clone(projection).set_params(feature_spaces=columns)
        X = projection.fit(X[train]).transform(X)
        model.set_params(feature_spaces=projection.feature_spaces_, standardize=False)
    model.projection_ = projection
    X, y, runs, films = training_set(X, data.bold, train, runs=data.runs, films=splits.units)
    model.fit(X, y, runs=runs, films=films)
    model.save(path)
    return model


def describe_fit(model, results, t_r):
    """Say what the kept weights tell: times to peak, penalties, and what lies at an edge.

    Parameters
    ----------
    model : VideoEncodingModel
        The joint model.
    results : Bunch
        Scores and tests of all models.
    t_r : float
        In s.

    Returns
    -------
    fitted : Bunch
        ``peak`` and ``width`` : dicts of feature space to array (n_voxels,) in s, NaN where the
        space predicts nothing or the model has fewer than three delays. ``components`` : dict of
        feature space to what :func:`brainnrds.encoding.weight_components` finds in the voxels that
        it predicts, where these are enough. ``penalty`` : array, log10; ``penalty_edge`` : -1 where
        it is the smallest, 1 where it is the largest, 0 between. ``edges`` : dict for the record,
        shares of the voxels that a space predicts. ``about`` : which voxels these are, for
        captions.

    Warns
    -----
    UserWarning
        If the responses of many voxels peak at the last delay.
    """
    lowest, highest = np.log10(np.min(model.alphas)), np.log10(np.max(model.alphas))
    penalty = np.log10(model.alphas_)
    joint = _predicted(results, "joint")
    is_tested = results.tests["joint"].q_values is not None
    edges = {
        "smallest_penalty": _share(penalty[joint] < lowest + 0.01),
        "largest_penalty": _share(penalty[joint] > highest - 0.01),
        "last_delay": {},
    }
    at_edge = (penalty > highest - 0.01) * 1.0 - (penalty < lowest + 0.01) * 1.0
    components = {}
    for name, columns in model.feature_spaces_.items():
        voxels = _predicted(results, name if name in results.scores else "joint")
        if min(columns.stop - columns.start, voxels.sum() - 1) >= _N_COMPONENTS:
            components[name] = weight_components(
                model, name, voxels=voxels, n_components=_N_COMPONENTS
            )
    peak, width = {}, {}
    for name in model.feature_spaces_ if len(model.delays) > 2 else ():
        voxels = _predicted(results, name if name in results.scores else "joint")
        times = response_times(model, name, voxels=voxels)
        peak[name], width[name] = times.peak * t_r, times.width * t_r
        at_last = edges["last_delay"][name] = _share(times.at_last[voxels])
        if at_last is not None and at_last > _MANY_AT_THE_END:
            warnings.warn(
                f"{at_last:.0%} of the {voxels.sum():,} voxels that {name} predicts "
                f"({'q < .05' if is_tested else 'r above .1, not tested'}) respond most at the "
                f"last delay, {max(model.delays) * t_r:g} s: later delays may be missing "
                "(--delays-seconds).",
                stacklevel=2,
            )
    return Bunch(
        peak=peak,
        width=width,
        components=components,
        penalty=penalty,
        penalty_edge=at_edge,
        edges=edges,
        about=_ABOUT_TESTED if is_tested else _ABOUT_UNTESTED,
    )


def _predicted(results, name):
    """Voxels that a model predicts: significantly, or, without a test, with r above .1."""
    test, scores = results.tests[name], np.nan_to_num(results.scores[name])
    if test.q_values is None:
        return results.voxels & (scores > _SMALLEST_SCORE)
    return results.voxels & (test.q_values < 0.05) & (scores > 0)


def _share(flags):
    return round(float(flags.mean()), 4) if len(flags) else None


def _maps_to_save(fitted):
    """Yield (feat, stat, values, description, unit)."""
    about = "Selected penalty of the joint model"
    yield "joint", "penalty", fitted.penalty, about, "log10"
    about = "-1 where the penalty is the smallest of the grid, 1 where it is the largest"
    yield "joint", "penaltyEdge", fitted.penalty_edge, about, "sign"
    for name, found in fitted.components.items():
        for i, (values, share) in enumerate(zip(found.scores, found.explained, strict=True), 1):
            about = f"Component {i} of the weights of {name}, {share:.0%} of variance"
            yield name, f"component{i}", values, about, "arbitrary"
    for name in fitted.peak:
        about = (
            f"Time to peak of the response to {name}, s after the beginning of a clip; where the"
        )
        yield name, "peak", fitted.peak[name], f"{about} space predicts", "s"
        about = f"Full width at half maximum of it, {name}"
        yield name, "width", fitted.width[name], about, "s"


def save_fit(record, model, fitted, data, described):
    """Write the model, the maps of its weights, and their figures.

    Parameters
    ----------
    record : Record
    model : VideoEncodingModel
    fitted : Bunch
        Of `describe_fit`.
    data : MovieData
    described : dict of str to dict
        What each feature space is of.
    """
    options = record.options
    metadata = {
        "Subject": record.subject,
        "Space": data.space,
        "RepetitionTime": data.t_r,
        "Design": data.design,
        "Grid": describe_grid(data.masker),
        "Extractors": {name: described[name] for name in model.feature_spaces_},
        # of several encoders the first of a kind is in the joint model
        "Options": {
            "video_encoders": listed_encoders("video", options)[:1],
            "image_encoders": listed_encoders("image", options)[:1],
            "feature_spaces": options.feature_spaces,
            "control_spaces": options.control_spaces,
        },
        "NumberOfComponents": options.n_components,
    }
    record.save_model(
        model,
        metadata,
        feat="joint",
        description="The joint model, fitted to all training films: read it with "
        "brainnrds.VideoEncodingModel.load",
    )
    record.save_maps(_maps_to_save(fitted), data.masker, data.voxels)
    where = f"sub-{record.subject}"
    for name, values in fitted.peak.items():
        if np.isfinite(values).any():
            job = partial(
                draw_map,
                data.masker,
                values,
                data.space,
                title=f"{where}: time to peak, {name}",
                label="s after the beginning of a clip",
                vmax=max(model.delays) * data.t_r,
                pycortex_subject=record.pycortex_subject,
            )
            record.draw(job, feat=name, stat="peak", description=fitted.about)
    for name, found in fitted.components.items():
        job = partial(
            draw_components,
            data.masker,
            np.where(data.voxels, found.scores, np.nan),
            data.space,
            title=f"{where}: components of the weights, {name}",
            labels=[f"component {i} ({e:.0%})" for i, e in enumerate(found.explained, 1)],
            pycortex_subject=record.pycortex_subject,
        )
        record.draw(job, feat=name, stat="components", description=fitted.about)


def save_predictions(record, held_out, data):
    """Write held-out predictions as images of time series: the tested volumes, film after film.

    Parameters
    ----------
    record : Record
    held_out : dict of str to Bunch
        ``predictions`` (n_samples, n_voxels) and ``folds`` of each model, averaged over repeats.
    data : MovieData
        Likewise.
    """
    for name, result in held_out.items():
        tested = np.flatnonzero(result.folds >= 0)
        record.save_series(
            np.asarray(result.predictions)[tested],
            data.masker,
            t_r=data.t_r,
            feat=name,
            metadata={
                "Description": f"Held-out predictions of the {name} model, averaged over the "
                "repeats of a film; a volume for each entry of Film",
                "Units": "standard deviations of a run",
                "Film": [data.film_names[film] for film in data.films[tested]],
                "FilmTime": np.round(data.film_times[tested], 4),
                "Fold": result.folds[tested],
            },
        )
