"""Held-out predictions of every model of an encoding analysis, and of models from elsewhere."""

from dataclasses import replace

import numpy as np
from sklearn.utils import Bunch

from brainnrds.analyses.design import choose_delays
from brainnrds.analyses.encoders import frame_control
from brainnrds.analyses.extract import movie_features
from brainnrds.analyses.fit import fit_training_films, make_model, make_projection
from brainnrds.analyses.named_spaces import encoder_spaces, layers_compared, named_spaces
from brainnrds.analyses.partition import CONTROLS_ALONE
from brainnrds.analyses.predicted import read_predicted
from brainnrds.encoding import (
    correlation_shares,
    held_out_predictions,
    models_of,
    select_feature_spaces,
)
from brainnrds.encoding._tested import Sharing
from brainnrds.io import average_repeats

__all__ = [
    "average_held_out",
    "features_of_films",
    "models_to_fit",
    "predict_held_out",
    "predict_model",
    "shares_of_joint",
]


def features_of_films(record, data, extractors):
    """Features of every sample and the columns of each space, as `movie_features` gives them."""
    return movie_features(
        data,
        extractors,
        store_dir=record.work_dir / "features",
        n_jobs=record.options.n_processes,
        progress=bool(record.verbose),
        film_reader=record.options.film_reader,
    )


def predict_held_out(record, data, splits, extractors, names, others, device):
    """Held-out predictions of all models, the data that they are of, and the fit that is kept.

    With named test films, data and predictions are those of the runs that show them.
    """
    options = record.options
    delays = choose_delays(data, options.delays_seconds)
    X, spaces = features_of_films(record, data, extractors)
    compared, encoders, controls = models_to_fit(options)
    layers = layers_compared(options)
    of_layers = {space for spaces in layers.values() for space in spaces}
    how = (X, spaces, data, splits, delays, device)
    fit, fitted = None, {}
    if options.keep_model and splits.test_units is not None:
        fit = fitted["joint"] = fit_training_films(record, compared["joint"], *how)
    held_out = {
        model: predict_model(
            record,
            model,
            used,
            *how,
            names,
            fitted=fitted.get(model),
            training_scores=model in of_layers,
        )
        for model, used in {**encoders, **compared, **controls}.items()
    }
    if options.keep_model and fit is None:
        fit = fit_training_films(record, compared["joint"], *how)
    rows = _rows_of_tested_runs(data, splits)
    data = data if isinstance(rows, slice) else data[rows]
    for name, files in others.items():
        folds = held_out["joint"].folds
        held_out[name] = read_predicted(name, files, data, folds, lag=options.predicted_lag)
    return Bunch(
        held_out=held_out,
        data=data,
        fit=fit,
        delays=delays,
        spaces={name: len(range(*spaces[name].indices(X.shape[1]))) for name in extractors},
        joint=compared["joint"],
        layers=layers,
        compared=[*compared, *others],
        # of a single space each, and what others predicted
        encoders=[*encoders, *others],
    )


def models_to_fit(options):
    """Say which models an encoding analysis fits.

    Parameters
    ----------
    options : EncodeOptions

    Returns
    -------
    compared, encoders, controls : dicts of str to list of str
        Feature spaces of the models that are compared, of each encoder alone, and of the control
        spaces alone, where there are any.
    """
    named, spaces = named_spaces(options)
    compared = models_of(["video", "image", *named, *spaces], control_spaces=spaces)
    alone = [space for kind in ("video", "image") for space in encoder_spaces(kind, options)]
    if options.video_control is not None:
        alone.append(frame_control(options))
    encoders = {name: [name, *spaces] for name in alone}
    return compared, encoders, {CONTROLS_ALONE: spaces} if spaces else {}


def predict_model(
    record,
    name,
    used,
    X,
    spaces,
    data,
    splits,
    delays,
    device,
    encoder_names,
    *,
    fitted=None,
    training_scores=False,
):
    """Held-out predictions and fold labels of one model: a step of the work folder.

    Of the samples of runs in which something is tested.
    """
    options = record.options
    rows = _rows_of_tested_runs(data, splits)

    def compute():
        features, columns = select_feature_spaces(X, spaces, used)
        if fitted is not None:
            return _predict_by(fitted, features[rows], data.runs[rows], splits.units[rows], splits)
        result = held_out_predictions(
            make_model(options, columns, delays, device),
            features,
            data.bold,
            runs=data.runs,
            films=splits.units,
            n_folds=splits.n_folds,
            test_films=splits.test_units,
            projection=make_projection(options),
            by_feature_space=name == "joint",
            training_scores=training_scores,
            verbose=int(bool(record.verbose)),
        )
        found = {"predictions": result.predictions[rows], "folds": result.folds[rows]}
        if result.by_feature_space is not None:
            found["parts"] = result.by_feature_space[:, rows]
        if result.training_scores is not None:
            found["training_scores"] = result.training_scores
        return found

    title = f"{name} ({encoder_names[name]})" if name in encoder_names else name
    doing = "fitting the model" if fitted is None else "predicting by the model"
    return Bunch(**record.step(name, compute, title=f"{doing}: {title}"))


def _predict_by(fitted, X, runs, units, splits):
    """Arrays of a step, as :func:`held_out_predictions` finds them with the only fold's model."""
    if fitted.projection_ is not None:
        X = fitted.projection_.transform(X)
    parts = fitted.predict(X, runs=runs, by_feature_space=True)
    predictions = parts.sum(0) + fitted.intercept_
    folds = np.where(np.isin(units, splits.test_units), 0, -1)
    for values in (predictions, *parts):
        values[folds < 0] = np.nan
    return {"predictions": predictions, "folds": folds, "parts": parts}


def _rows_of_tested_runs(data, splits):
    """What is looked at when films are predicted: whole runs, so that their time has no holes."""
    if splits.test_units is None or data.design == "trials":
        return slice(None)
    rows = np.isin(data.runs, data.runs[np.isin(splits.units, splits.test_units)])
    return slice(None) if rows.all() else rows


def average_held_out(data, held_out):
    """Average responses and predictions over the repeats of a film."""
    averaged = average_repeats(data, context=False)

    def average(values):
        return average_repeats(replace(data, bold=values), context=False).bold

    merged = {}
    for name, result in held_out.items():
        folds = result.folds[:, None].astype(np.float32)
        merged[name] = Bunch(
            predictions=average(np.nan_to_num(result.predictions)),
            # the repeats of a film are in one fold
            folds=np.round(average(folds)[:, 0]).astype(int),
        )
        if "training_scores" in result:
            merged[name].training_scores = result.training_scores
        if "parts" in result:
            merged[name].parts = [average(np.nan_to_num(part)) for part in result.parts]
        merged[name].folds[averaged.films < 0] = -1
    return averaged, merged


def shares_of_joint(data, joint, spaces, n_jobs=1):
    """Each space's share of the joint model's correlation: dict of arrays that sum to it."""
    folds = np.where(data.films >= 0, joint.folds, -1)

    def of_batch(batch):
        parts = [part[:, batch] for part in joint.parts]
        return correlation_shares(data.bold[:, batch], parts, runs=data.runs, folds=folds)

    share = Sharing(len(data.voxels), len(data.bold), n_jobs, "cpu")
    shares = np.where(data.voxels, np.concatenate(share(of_batch), axis=1), np.nan)
    return dict(zip(spaces, shares, strict=True))
