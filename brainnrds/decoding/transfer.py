"""A new person from few minutes: the decoder of others stays, a read-in layer is learnt."""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_cuts, check_labels
from brainnrds.blocks import exchange_between_films, neighbour_blocks
from brainnrds.decoding.gain import paired_gain
from brainnrds.metrics import end_point_error

__all__ = ["adapt_decoder", "read_in_template", "transfer_curve"]


def adapt_decoder(
    decoder,
    X,
    y,
    *,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    template=None,
    n_epochs=None,
    learning_rate=None,
    random_state=None,
):
    """Fit a read-in layer for a new person; all else stays as others trained it.

    The layer begins as a ridge regression of the person's BOLD on what the layers of the decoder's
    people give: at the same moments of the same films (`template`), or for such motion, whatever
    film it was in (of decoders of several people). From there it is trained; it is kept as it
    began where that did better on validation films.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted, best on several people (``fit(..., subjects=...)``).
    X : array of shape (n_samples, n_voxels)
        BOLD of the new person, in any number of voxels.
    y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`: the same grid, steps and features as of the decoder.
    template : array of shape (n_samples, n_bold_channels), default=None
        Of :func:`read_in_template`; NaN where the others have not seen the moment.
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
        Flow, features or a template of another shape than the decoder's.
    """
    labels = {"runs": runs, "films": films, "has_cut": has_cut, "subjects": None}
    changed = {"n_epochs": n_epochs, "learning_rate": learning_rate, "random_state": random_state}
    changed = {name: value for name, value in changed.items() if value is not None}
    return _train(decoder, X, y, image_features, labels, decoder, template, **changed)


def read_in_template(decoder, X, moments, *, wanted, runs=None, subjects=None):
    """Average what the read-in layers of a decoder's people give at the same moments of films.

    This is functional alignment in the space that the people of a decoder share: a new person's
    layer is fitted to it with :func:`adapt_decoder`.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted on several people.
    X, runs, subjects
        As in `MotionDecoder.predict`: BOLD of the decoder's people.
    moments : array of int of shape (n_samples,)
        Number of the moment that each sample shows; -1: none that counts.
    wanted : array of int of shape (n_wanted,)
        Moments of the new person's samples; -1: none.

    Returns
    -------
    template : array of float32 of shape (n_wanted, n_bold_channels)
        NaN for moments that nobody saw.
    """
    moments, wanted = (np.asarray(numbers) for numbers in (moments, wanted))
    if moments.shape != (len(X),) or moments.dtype.kind not in "iu":
        raise InputError(
            f"`moments` must be int of shape ({len(X)},); got {moments.dtype} {moments.shape}."
        )
    output = decoder.read_in(X, runs=runs, subjects=subjects)
    template = np.full((len(wanted), output.shape[1]), np.nan, dtype=np.float32)
    seen, place = np.unique(moments, return_inverse=True)
    counts = np.bincount(place, minlength=len(seen))
    sums = np.zeros((len(seen), output.shape[1]))
    np.add.at(sums, place, output)
    known = (wanted >= 0) & np.isin(wanted, seen)
    rows = np.searchsorted(seen, wanted[known])
    template[known] = sums[rows] / counts[rows, None]
    return template


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
    template=None,
    n_draws=4,
    random_state=None,
):
    """Measure the brain gain of a new person's decoder against the minutes that it had.

    For each number of minutes a decoder is trained from scratch, one is adapted
    (:func:`adapt_decoder`), and with a template one is adapted to that. The gain of each is the
    error of the same, trained and tested with BOLD of other films, minus its own.

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
    template : array of shape (n_samples, n_bold_channels), default=None
        As in :func:`adapt_decoder`; of test films nothing is used.
    n_draws : int, default=4
        Trainings of each control, with other exchanges of BOLD: at least two, as a training on
        few clips ends well or badly by chance.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    curve : pandas.DataFrame
        One row per ``minutes`` (those that were there) and ``kind``, "from scratch", "adapted" or
        "adapted + aligned": ``error_px``, ``unrelated_error_px``, ``gain_px`` and the ends
        ``low``, ``high`` of its 95 % interval over blocks of test clips and trainings; ``p``,
        one-sided, by the same error, NaN with fewer than 12 blocks.

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

    template = None if template is None else np.asarray(template)
    tested = np.flatnonzero(test)
    bold, flow, features, labels = take(tested)
    how = {"image_features": features, "runs": labels["runs"]}
    counted = shown[tested]
    orders = [exchange(tested) for _ in range(n_draws)]
    blocks = neighbour_blocks(numbers[0][tested], counted, block_length)
    training = np.flatnonzero(~test)

    def error_of(predicted):
        return end_point_error(predicted[counted], flow[counted], average="none")

    table = []
    for wanted in minutes:
        rows = training[: max(2, round(60 * wanted / t_r))]
        data, draws = take(rows), [exchange(rows) for _ in orders]
        kinds = {"from scratch": (None, None), "adapted": (decoder, None)}
        if template is not None and np.isfinite(template[rows]).all(axis=1).any():
            kinds["adapted + aligned"] = decoder, template[rows]
        for kind, others in kinds.items():
            own = error_of(_train(decoder, *data, *others).predict(bold, **how))
            unrelated = []
            for order, exchanged in zip(orders, draws, strict=True):
                control = _train(decoder, *data, *others, window_order=exchanged)
                swaps = np.stack([order, np.arange(len(tested))], axis=1)
                flows = control.predict_swapped(bold, swaps, **how)
                unrelated.append(error_of(np.concatenate(list(flows))))
            gain = paired_gain(own[None], np.array(unrelated), blocks)
            ends = (gain[name] for name in ("gain_px", "low", "high", "p_paired"))
            table.append([len(rows) * t_r / 60, kind, own.mean(), np.mean(unrelated), *ends])
    names = ["error_px", "unrelated_error_px", "gain_px", "low", "high", "p"]
    return pd.DataFrame(table, columns=["minutes", "kind", *names])


def _check_test(test, films, shown):
    shared = np.intersect1d(films[test & shown], films[~test & shown])
    if len(shared) or not (test & shown).any() or (~test & shown).sum() < 2:
        raise InputError(
            "`test` must mark whole films, and leave others to train on; got "
            f"{len(shared)} films on both sides and {(test & shown).sum()} test clips."
        )


def _train(
    decoder, X, y, image_features, labels, trunk, template=None, *, window_order=None, **changed
):
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
    if template is not None:
        template = np.asarray(template)
        shape = (len(X), decoder.n_bold_channels)
        if template.shape != shape or not np.isfinite(template).all(axis=1).any():
            raise InputError(
                f"`template` must have shape {shape} and a row without NaN; got {template.shape}."
            )
    # the decoder's checkpoint is of another training
    changed = {"random_state": decoder.seed_, "checkpoint_path": None, **changed}
    trained = clone(decoder).set_params(**changed)
    return trained._fit(
        X, y, image_features, labels, window_order=window_order, trunk=trunk, template=template
    )
