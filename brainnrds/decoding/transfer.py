"""A new person from few minutes: the decoder of others stays, a read-in layer is learnt."""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_cuts, check_labels
from brainnrds.blocks import block_bootstrap_interval, exchange_between_films, neighbour_blocks
from brainnrds.metrics import end_point_error

__all__ = ["adapt_decoder", "transfer_curve"]


def adapt_decoder(
    decoder,
    X,
    y,
    *,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    n_epochs=None,
    learning_rate=None,
    random_state=None,
):
    """Fit a read-in layer for a new person; all else stays as others trained it.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted, best on several people (``fit(..., subjects=...)``).
    X : array of shape (n_samples, n_voxels)
        BOLD of the new person, in any number of voxels.
    y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`: the same grid, steps and features as of the decoder.
    n_epochs : int, default=None
        None: as many as the decoder's.
    learning_rate : float, default=None
        None: the decoder's.
    random_state : int, default=None
        None: the seed of the decoder's fit.

    Returns
    -------
    adapted : MotionDecoder
        Of the new person alone.

    Raises
    ------
    InputError
        Flow or features of another shape than the decoder's.
    """
    labels = {"runs": runs, "films": films, "has_cut": has_cut, "subjects": None}
    changed = {"n_epochs": n_epochs, "learning_rate": learning_rate, "random_state": random_state}
    changed = {name: value for name, value in changed.items() if value is not None}
    return _train(decoder, X, y, image_features, labels, decoder, **changed)


def transfer_curve(
    decoder,
    X,
    y,
    *,
    test,
    minutes,
    t_r,
    block_length,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    random_state=None,
):
    """Measure the brain gain of a new person's decoder against the minutes that it had.

    For each number of minutes a decoder is trained from scratch, and one is adapted
    (:func:`adapt_decoder`). The gain of each is the error of the same, trained and tested with BOLD
    of other films, minus its own.

    Parameters
    ----------
    decoder : MotionDecoder
        Of other people, fitted. Decoders from scratch have its parameters.
    X, y, image_features, runs, films, has_cut
        All of the new person, as in `MotionDecoder.fit`.
    test : bool array of shape (n_samples,)
        Whole films for testing. The others, in their order, are the minutes.
    minutes : sequence of float
    t_r : float
        Repetition time, s.
    block_length : int
        Volumes of a block, see :func:`brainnrds.blocks.exchange_between_films`.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    curve : pandas.DataFrame
        One row per ``minutes`` (those that were there) and ``kind``, "from scratch" or "adapted":
        ``error_px``, ``unrelated_error_px``, ``gain_px`` and the ends ``low``, ``high`` of its
        95 % interval over blocks of test clips (of one training each: how trainings differ is not
        in it).

    Raises
    ------
    InputError
        Test films in the training minutes, or fewer than two clips for training.
    """
    random = check_random_state(random_state)
    n_samples = len(X)
    test = np.asarray(test, dtype=bool)
    numbers = check_labels(runs, n_samples), check_labels(films, n_samples, name="films")
    shown = (numbers[1] != -1) & ~check_cuts(has_cut, n_samples)
    _check_test(test, numbers[1], shown)

    def take(rows):
        some = {"runs": runs, "films": films, "has_cut": has_cut}
        some = {name: v if v is None else np.asarray(v)[rows] for name, v in some.items()}
        features = None if image_features is None else np.asarray(image_features)[rows]
        return X[rows], y[rows], features, {**some, "subjects": None}

    def exchange(rows):
        return exchange_between_films(
            *(labels[rows] for labels in numbers), block_length, random_state=random
        )

    tested = np.flatnonzero(test)
    bold, flow, features, labels = take(tested)
    how = {"image_features": features, "runs": labels["runs"]}
    counted = shown[tested]
    order = exchange(tested)
    blocks = neighbour_blocks(numbers[0][tested], counted, block_length)
    training = np.flatnonzero(~test)
    table = []
    for wanted in minutes:
        rows = training[: max(2, round(60 * wanted / t_r))]
        data, exchanged = take(rows), exchange(rows)
        for kind, trunk in (("from scratch", None), ("adapted", decoder)):
            own = _train(decoder, *data, trunk)
            control = _train(decoder, *data, trunk, window_order=exchanged)
            swaps = np.stack([order, np.arange(len(tested))], axis=1)
            unrelated = np.concatenate(list(control.predict_swapped(bold, swaps, **how)))
            errors = [
                end_point_error(predicted[counted], flow[counted], average="none")
                for predicted in (own.predict(bold, **how), unrelated)
            ]
            gain = errors[1] - errors[0]
            low, high = block_bootstrap_interval(gain, blocks, random_state=random)
            means = (values.mean() for values in (*errors, gain))
            table.append([len(rows) * t_r / 60, kind, *means, low, high])
    names = ["error_px", "unrelated_error_px", "gain_px", "low", "high"]
    return pd.DataFrame(table, columns=["minutes", "kind", *names])


def _check_test(test, films, shown):
    shared = np.intersect1d(films[test & shown], films[~test & shown])
    if len(shared) or not (test & shown).any() or (~test & shown).sum() < 2:
        raise InputError(
            "`test` must mark whole films, and leave others to train on; got "
            f"{len(shared)} films on both sides and {(test & shown).sum()} test clips."
        )


def _train(decoder, X, y, image_features, labels, trunk, *, window_order=None, **changed):
    """Train with a decoder's parameters: from scratch, or with the trunk of a fitted one."""
    check_is_fitted(decoder, "network_")
    if np.shape(y)[1:] != decoder.flow_shape_:
        raise InputError(
            f"`y` must be flow of shape {decoder.flow_shape_}, as of the decoder; got "
            f"{np.shape(y)[1:]}."
        )
    expected = None if decoder.feature_mean_ is None else len(decoder.feature_mean_)
    got = None if image_features is None else np.shape(image_features)[1]
    if expected != got:
        raise InputError(
            f"`image_features` must have {expected} channels, as of the decoder; got {got}."
        )
    # the decoder's checkpoint is of another training
    changed = {"random_state": decoder.seed_, "checkpoint_path": None, **changed}
    trained = clone(decoder).set_params(**changed)
    return trained._fit(X, y, image_features, labels, window_order=window_order, trunk=trunk)
