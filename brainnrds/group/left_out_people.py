"""Predict a person from a model of the others, with none or some minutes of their own data."""

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch

from brainnrds._checks import InputError, check_labels
from brainnrds.encoding.scores import correlation_score

__all__ = ["predict_left_out_people"]


def predict_left_out_people(
    model, X, bold, *, t_r, films, test_films, alignment=None, minutes=(5, 10, 30)
):
    """Score models of all other people, and models of a person's own few minutes, in test films.

    For each person a model is fitted on the mean response of the others to the training films,
    and predicts the test films. With an alignment the others are first brought to a template, and
    predictions go from there to the person by a transform that is fitted on the first minutes of
    training films. Nothing but scores is computed from test films.

    Parameters
    ----------
    model : VideoEncodingModel
        Not fitted.
    X : array of shape (n_samples, n_features)
        Features of the samples that all people have, in one order
        (:func:`brainnrds.group.match_films`).
    bold : list of arrays of shape (n_samples, n_voxels)
        One per person, in a common space.
    t_r : float
        Repetition time, s.
    films : array of int of shape (n_samples,)
        Film label of each sample. A film is a run: no delay crosses its border.
    test_films : sequence of int
        Labels of the films to predict.
    alignment : FunctionalAlignment or None, default=None
        Not fitted. None: anatomical correspondence alone.
    minutes : sequence of float, default=(5, 10, 30)
        Of the person's own data. What is more than there is means all that there is. A last piece
        of film that is no longer than the longest delay serves alignment, and no fit.

    Returns
    -------
    scores : Bunch
        Held-out correlations: ``anatomical`` (n_people, n_voxels), the model of the others as it
        is; ``aligned`` (n_minutes, n_people, n_voxels), or None; ``own`` (n_minutes, n_people,
        n_voxels), a model of these minutes alone; ``minutes``, those that were there.

    Raises
    ------
    InputError
        Fewer than three people, other lengths, or test films that leave nothing to train on.
    """
    if len(bold) < 3:
        raise InputError(f"`bold` must hold at least three people; got {len(bold)}.")
    shapes = list(dict.fromkeys(np.shape(person) for person in bold))
    if len(shapes) > 1 or len(X) != shapes[0][0]:
        raise InputError(
            f"`bold` must be arrays of one shape, as long as `X`, {len(X)}; got {shapes}."
        )
    films = check_labels(films, len(X), name="films")
    test = np.isin(films, test_films)
    if not test.any() or test.all():
        raise InputError(
            f"`test_films` must be some of the films {np.unique(films).tolist()}; got "
            f"{list(test_films)}."
        )
    train = np.flatnonzero(~test)
    counts = [min(len(train), max(1, round(60 * m / t_r))) for m in minutes]

    def predict(rows, y):
        fitted = clone(model).fit(X[rows], y, runs=films[rows], films=films[rows])
        return fitted.predict(X[test], runs=films[test])

    def score(person, predictions):
        return correlation_score(person[test], predictions, runs=films[test])

    rows = {"anatomical": [], "aligned": [], "own": []}
    for i, person in enumerate(bold):
        others = [np.asarray(other)[train] for j, other in enumerate(bold) if j != i]
        rows["anatomical"].append(score(person, predict(train, np.mean(others, axis=0))))
        own = [_without_short_end(train[:n], films, max(model.delays)) for n in counts]
        rows["own"].append([score(person, predict(kept, person[kept])) for kept in own])
        if alignment is not None:
            template = clone(alignment).fit(others)
            predictions = predict(train, template.template_)
            ways = [template.to_person(person[train[:n]], rows=np.arange(n)) for n in counts]
            rows["aligned"].append([score(person, way(predictions)) for way in ways])
    return Bunch(
        anatomical=np.array(rows["anatomical"]),
        aligned=None if alignment is None else np.array(rows["aligned"]).swapaxes(0, 1),
        own=np.array(rows["own"]).swapaxes(0, 1),
        minutes=[n * t_r / 60 for n in counts],
    )


def _without_short_end(rows, films, longest):
    """Rows without those of the last film, where these are too few for the longest delay."""
    last = films[rows] == films[rows[-1]]
    return rows if last.sum() > longest or last.all() else rows[~last]
