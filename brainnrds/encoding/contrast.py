"""Feature spaces against each other: every model's score, what each space adds, one contrast."""

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.encoding._tested import Sharing, predictions_and_folds, tested_labels
from brainnrds.encoding.noise_ceiling import normalized_score
from brainnrds.encoding.scores import correlation_score
from brainnrds.encoding.significance import (
    difference_significance,
    prediction_significance,
    unique_variance_significance,
)

__all__ = ["compare_feature_spaces", "models_of", "select_feature_spaces"]


def models_of(feature_spaces, *, control_spaces=()):
    """List the models that a comparison of feature spaces needs.

    Parameters
    ----------
    feature_spaces : iterable of str
        Names of all feature spaces.
    control_spaces : iterable of str, default=()
        Those of them that enter every model and are not compared, such as luminance or loudness.

    Returns
    -------
    models : dict of str to list of str
        Names of the feature spaces of each model: every space alone (by its name), "joint" with
        all of them, and with more than two "without<space>" for every space.

    Examples
    --------
    >>> from brainnrds.encoding import models_of
    >>> models_of(["video", "image"])
    {'video': ['video'], 'image': ['image'], 'joint': ['video', 'image']}
    """
    names, controls = list(feature_spaces), list(control_spaces)
    missing = [name for name in controls if name not in names]
    if missing:
        raise InputError(f"`control_spaces` must be among {names}; got {missing}.")
    compared = [name for name in names if name not in controls]
    if not compared:
        raise InputError("`feature_spaces` must name a space that is no control; got none.")
    models = {name: [name, *controls] for name in compared}
    if len(compared) > 1:
        models["joint"] = [*compared, *controls]
    if len(compared) > 2:
        for name in compared:
            models[f"without{name}"] = [n for n in compared if n != name] + controls
    return models


def select_feature_spaces(X, feature_spaces, names):
    """Take some of the feature spaces, side by side.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    feature_spaces : dict of str to slice
        Columns of X.
    names : list of str

    Returns
    -------
    X : array of shape (n_samples, n_selected)
    feature_spaces : dict of str to slice
        Columns of the new X.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.encoding import select_feature_spaces
    >>> X, spaces = np.arange(4)[None], {"video": slice(0, 2), "image": slice(2, 4)}
    >>> select_feature_spaces(X, spaces, ["image"])
    (array([[2, 3]]), {'image': slice(0, 2, None)})
    """
    parts = [X[:, feature_spaces[name]] for name in names]
    stops = np.cumsum([part.shape[1] for part in parts]).tolist()
    starts = [0, *stops[:-1]]
    return np.hstack(parts), {n: slice(a, b) for n, a, b in zip(names, starts, stops, strict=True)}


def compare_feature_spaces(
    y,
    held_out,
    *,
    t_r,
    contrast=("video", "image"),
    runs=None,
    films=None,
    folds=None,
    ceiling=None,
    smallest_ceiling=0.1,
    others=(),
    block_duration=None,
    n_permutations=5000,
    random_state=None,
    n_jobs=1,
    device="cpu",
):
    """Compare feature spaces by the held-out predictions of their models.

    Parameters
    ----------
    y : array of shape (n_samples, n_voxels)
        BOLD. Repeats of a film are averaged first, as are their predictions.
    held_out : dict of str to Bunch or array of shape (n_samples, n_voxels)
        Of each model that :func:`models_of` names: the result of
        :func:`brainnrds.encoding.held_out_predictions`, or its predictions.
    t_r : float
        Repetition time, s.
    contrast : tuple of two str, default=("video", "image")
        Models to subtract, the first minus the second.
    runs, films, folds, block_duration
        As in :func:`brainnrds.encoding.prediction_significance`.
    ceiling : array of shape (n_voxels,), default=None
        Of the tested responses, in R2 (:func:`brainnrds.encoding.noise_ceiling`).
    smallest_ceiling : float, default=0.1
        As in :func:`brainnrds.encoding.normalized_score`.
    others : sequence of str, default=()
        Those of `held_out` that are no model of ours, such as predictions of a network that was
        fitted elsewhere: scored and tested, without unique variance.
    n_permutations : int, default=5000
    random_state : int, RandomState or None, default=None
    n_jobs : int, default=1
    device : str, default="cpu"
        As in :func:`brainnrds.encoding.prediction_significance`.

    Returns
    -------
    comparison : Bunch
        ``scores`` : dict of arrays (n_voxels,), the correlation of every model, "difference" of
        the contrast, and "shifted", the control without the right moment: the predictions of the
        contrast's first model against the response half a film later. ``tests`` : dict of the
        tests of every model and of "difference". ``unique`` and ``unique_tests`` : dicts by
        feature space, the R2 that it alone adds to the joint model
        (:func:`brainnrds.encoding.unique_variance`) and its test; empty for a single space.
        ``normalized`` : dict of scores over the square root of the ceiling, of every model and
        of "difference"; empty without a ceiling.
    """
    y = np.asarray(y)
    unknown = [name for name in contrast if name not in held_out]
    if len(contrast) != 2 or unknown:
        raise InputError(
            f"`contrast` must be two of the models {list(held_out)}; got {tuple(contrast)}."
        )
    arrays, folds = predictions_and_folds(list(held_out.values()), folds)
    predictions = dict(zip(held_out, arrays, strict=True))
    runs, films, folds = tested_labels(len(y), runs, films, folds)
    how = {
        "t_r": t_r,
        "runs": runs,
        "films": films,
        "folds": folds,
        "block_duration": block_duration,
        "n_permutations": n_permutations,
        "random_state": random_state,
        "n_jobs": n_jobs,
        "device": device,
    }
    tests = {name: prediction_significance(y, p, **how) for name, p in predictions.items()}
    tests["difference"] = difference_significance(y, *(predictions[n] for n in contrast), **how)
    scores = {name: test.score for name, test in tests.items()}
    scores["shifted"] = _score_half_a_film_later(
        y, predictions[contrast[0]], runs, films, folds, n_jobs
    )
    ours = [name for name in predictions if name not in others]
    unique_tests = {
        space: unique_variance_significance(y, predictions["joint"], predictions[rest], **how)
        for space, rest in _models_without(ours).items()
    }
    normalized = {}
    if ceiling is not None:
        for name in predictions:
            normalized[name] = normalized_score(
                scores[name],
                ceiling,
                smallest_ceiling=smallest_ceiling,
                name=f"scores of the {name} model",
            )
        normalized["difference"] = normalized[contrast[0]] - normalized[contrast[1]]
    return Bunch(
        scores=scores,
        tests=tests,
        unique={space: test.score for space, test in unique_tests.items()},
        unique_tests=unique_tests,
        normalized=normalized,
    )


def _models_without(models):
    """The model that lacks each feature space: of two spaces, the other one."""
    if "joint" not in models:
        return {}
    spaces = [name for name in models if name != "joint" and not _is_rest(name, models)]
    if len(spaces) == 2:
        return dict(zip(spaces, spaces[::-1], strict=True))
    missing = [name for name in spaces if f"without{name}" not in models]
    if missing:
        raise InputError(
            "`held_out` must hold the models that `models_of` names; got none without "
            f"{', '.join(missing)}."
        )
    return {name: f"without{name}" for name in spaces}


def _is_rest(name, models):
    return name.startswith("without") and name.removeprefix("without") in models


def _score_half_a_film_later(y, predictions, runs, films, folds, n_jobs):
    """Score against the response half a film later, in a circle within each film of a run."""
    order = np.arange(len(y))
    tested = np.flatnonzero(folds >= 0)
    for run, film in {*zip(runs[tested].tolist(), films[tested].tolist(), strict=True)}:
        rows = np.flatnonzero((folds >= 0) & (runs == run) & (films == film))
        order[rows] = np.roll(rows, -(len(rows) // 2))
    labels = {"runs": runs[tested], "folds": folds[tested]}

    def batch_score(batch):
        return correlation_score(y[order[tested], batch], predictions[tested, batch], **labels)

    return np.concatenate(Sharing(y.shape[1], len(tested), n_jobs, "cpu")(batch_score))
