"""Controls of the decoder: what remains without brain, without image, without motion.

A decoded flow means little by itself: the initial frame predicts motion, and so does the average
film. `compare_to_controls` puts every number beside what predictors without brain get on the same
clips, in three steps that are useful alone: `control_flows`, `score_flows`, `brain_gain`.
"""

import math
import os
import warnings

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from brainnrds._checks import (
    InputError,
    check_bold,
    check_cuts,
    check_flow,
    check_labels,
    check_mask,
)
from brainnrds.blocks import (
    SHORTEST_BLOCK,
    block_bootstrap_interval,
    exchange_between_films,
    neighbour_blocks,
    permutation_blocks,
    permute_blocks,
    permute_within_scenes,
)
from brainnrds.decoding.gain import ERRORS, brain_gain, nanmean
from brainnrds.flow import motion_masks
from brainnrds.metrics import (
    direction_accuracy,
    end_point_error,
    flow_cosine,
    identification_accuracy,
    pairwise_end_point_error,
)

__all__ = [
    "compare_to_controls",
    "control_flows",
    "fit_image_only",
    "fit_on_unrelated_bold",
    "mean_flow",
    "score_flows",
]


def fit_image_only(decoder, X, y, *, image_features=None, runs=None, films=None, has_cut=None):
    """Train the image-only control: the decoder's class, data and seed, without brain.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted; its parameters and the seed of its fit are taken over.
    X, y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`; X decides about nothing but shapes.

    Returns
    -------
    image_only : MotionDecoder
        With ``use_bold=False``, fitted.
    """
    control = unfitted(decoder, "image_only").set_params(use_bold=False)
    return control.fit(X, y, image_features=image_features, runs=runs, films=films, has_cut=has_cut)


def fit_on_unrelated_bold(
    decoder,
    X,
    y,
    *,
    block_length,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    seed=None,
    name="unrelated_bold",
    random_state=None,
):
    """Train the decoder on BOLD that cannot know the film: that of other films.

    The control in the same state: the same network, clips, codebook, validation films, seed and
    rule to stop. What it has learnt when it stops, it has not learnt from the brain.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted; its parameters are taken over.
    X, y, image_features, runs, films, has_cut
        As in `MotionDecoder.fit`.
    block_length : int
        Volumes, see `brainnrds.blocks.exchange_between_films`.
    seed : int, default=None
        Of the training; None = the seed of the decoder's fit.
    name : str, default="unrelated_bold"
        Added to the name of the decoder's checkpoint.
    random_state : int, RandomState or None, default=None
        Of the exchange.

    Returns
    -------
    control : MotionDecoder
        Fitted. It is to be tested with BOLD of other films, too (`MotionDecoder.predict_swapped`).
    """
    labels = {"runs": runs, "films": films, "has_cut": has_cut, "subjects": None}
    order = exchange_between_films(
        check_labels(runs, len(X)),
        check_labels(films, len(X), name="films"),
        block_length,
        random_state=random_state,
    )
    control = unfitted(decoder, name, seed)
    return control._fit(X, y, image_features, labels, window_order=order)


def unfitted(decoder, name, seed=None):
    """The decoder before its fit, with the seed that its fit used (or another)."""
    check_is_fitted(decoder, "network_")
    control = clone(decoder).set_params(random_state=decoder.seed_ if seed is None else seed)
    if control.checkpoint_path is not None:
        control.set_params(checkpoint_path=f"{os.fspath(control.checkpoint_path)}.{name}")
    return control


def mean_flow(y, *, films=None, has_cut=None):
    """Return the mean flow of the training clips, cell by cell and step by step.

    Parameters
    ----------
    y : array of shape (n_samples, n_steps, 2, height, width)
    films : array of int or str of shape (n_samples,), default=None
        Samples with -1 do not count.
    has_cut : bool array of shape (n_samples,), default=None
        Nor do clips with a cut.

    Returns
    -------
    flow : array of float32 of shape (n_steps, 2, height, width)
    """
    y = check_flow(y, name="y")
    shown = (check_labels(films, len(y), name="films") != -1) & ~check_cuts(has_cut, len(y))
    return y[shown].mean(axis=0, dtype=np.float64).astype(np.float32)


def control_flows(
    decoder,
    X,
    y,
    *,
    test,
    block_length,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    scenes=None,
    n_seeds=2,
    n_draws=4,
    verbose=0,
    random_state=None,
):
    """Decode the test clips by the decoder, and by predictors that lack something.

    ======================  ====================================================================
    decoder                 BOLD and the initial frame
    unrelated_bold          the same network, trained and tested with BOLD of other films
    image_only              the same network, trained without BOLD
    permuted_bold           the decoder, fed with BOLD of other films
    permuted_within_scene   the decoder, fed with BOLD of other moments of the scene
    mean_flow               the mean flow of the training clips
    zero_flow               no motion
    ======================  ====================================================================

    ``n_seeds - 1 + n_draws + 1`` networks are trained, each at the cost of the decoder's own fit.

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted on the samples that are not `test`.
    X, y, test, image_features, runs, films, has_cut, scenes, n_seeds, n_draws, verbose, \
random_state
        As in `compare_to_controls`.
    block_length : int
        Volumes: BOLD moves to other films in stretches of this length and more.

    Returns
    -------
    controls : Bunch
        ``flow`` : dict of predictor -> array (n_test, n_steps, 2, height, width), or with several
        trainings or draws (n_draws, n_test, ...). ``window`` : dict of predictor -> int array
        (n_draws, n_test), the sample of X whose BOLD each test clip was decoded from.
        ``fitted`` : dict of predictor -> list of fitted decoders.
    """
    X, y, labels, _, test = check_samples(decoder, X, y, test, runs, films, has_cut)
    for name, number in (("n_seeds", n_seeds), ("n_draws", n_draws)):
        if number != int(number) or number < 1:
            raise InputError(f"`{name}` must be an int of at least 1; got {number!r}.")
    if n_draws % n_seeds:
        raise InputError(
            "`n_draws` must be a multiple of `n_seeds`, so that every seed has as many controls; "
            f"got {n_draws} and {n_seeds}."
        )
    random = check_random_state(random_state)
    train = {"runs": runs, "films": films, "has_cut": has_cut, "image_features": image_features}
    train = {name: rows_of(array, ~test) for name, array in train.items()}
    tested = {"image_features": rows_of(image_features, test), "runs": labels["runs"][test]}
    # parts of X are copies: each is made once
    X_train, y_train, X_test = X[~test], y[~test], X[test]
    rows, films_test = np.flatnonzero(test), labels["films"][test]
    seeds = [decoder.seed_, *(int(s) for s in random.randint(2**31 - 1, size=n_seeds - 1))]
    orders = [
        exchange_between_films(tested["runs"], films_test, block_length, random_state=random)
        for _ in range(n_draws)
    ]

    def decode(network, order):
        swaps = np.stack([order, np.arange(len(order))], axis=1)
        return np.concatenate(list(network.predict_swapped(X_test, swaps, **tested)))

    steps = tqdm(total=n_seeds + n_draws, desc="controls", disable=not verbose)
    fitted = {"decoder": [decoder]}
    for i, seed in enumerate(seeds[1:], start=1):
        other = unfitted(decoder, f"seed-{i}", seed)
        fitted["decoder"].append(other.fit(X_train, y_train, **train))
        steps.update()
    fitted["unrelated_bold"] = []
    for i in range(n_draws):
        control = fit_on_unrelated_bold(
            decoder,
            X_train,
            y_train,
            block_length=block_length,
            seed=seeds[i % n_seeds],
            name=f"unrelated_bold-{i}",
            random_state=random,
            **train,
        )
        fitted["unrelated_bold"].append(control)
        steps.update()
    fitted["image_only"] = [fit_image_only(decoder, X_train, y_train, **train)]
    steps.update()
    steps.close()

    flow = {
        "decoder": np.stack([network.predict(X_test, **tested) for network in fitted["decoder"]]),
        "unrelated_bold": np.stack(
            [
                decode(network, o)
                for network, o in zip(fitted["unrelated_bold"], orders, strict=True)
            ]
        ),
        "image_only": fitted["image_only"][0].predict(X_test, **tested),
        "permuted_bold": np.stack([decode(decoder, order) for order in orders]),
    }
    window = {"unrelated_bold": rows[orders], "permuted_bold": rows[orders]}
    if scenes is not None:
        scenes = check_labels(scenes, len(X), name="scenes")[test]
        orders = permute_within_scenes(
            np.where(films_test == -1, -1, scenes), n_draws, random_state=random
        )
        flow["permuted_within_scene"] = np.stack([decode(decoder, order) for order in orders])
        window["permuted_within_scene"] = rows[orders]
    mean = mean_flow(y_train, films=train["films"], has_cut=train["has_cut"])
    flow["mean_flow"] = np.broadcast_to(mean, flow["image_only"].shape)
    flow["zero_flow"] = np.zeros_like(flow["image_only"])
    return Bunch(flow=flow, window=window, fitted=fitted)


def rows_of(array, rows):
    return None if array is None else np.asarray(array)[rows]


def check_samples(decoder, X, y, test, runs, films, has_cut):
    """Arrays, labels as ints, which samples count in scores, and the test samples."""
    check_is_fitted(decoder, "network_")
    X, y = check_bold(X, name="X"), check_flow(y, name="y")
    labels = {
        "runs": check_labels(runs, len(X)),
        "films": check_labels(films, len(X), name="films"),
        "has_cut": check_cuts(has_cut, len(X)),
    }
    test = check_mask(test, (len(X),), name="test")
    for name in ("runs", "films"):
        both = np.intersect1d(labels[name][test], labels[name][~test])
        both = both[both != -1] if name == "films" else both
        if len(both):
            raise InputError(
                f"`test` must not split a {name[:-1]}; {name} {both[:5].tolist()} are on both "
                "sides."
            )
    if test.all():
        raise InputError("`test` must leave samples to train the controls on; got all True.")
    # by the labels as they were given: numbers of text differ from call to call
    named = labels["films"] if films is None else np.asarray(films)
    seen = np.intersect1d(decoder.films_, named[test & (labels["films"] != -1)])
    if len(seen):
        raise InputError(
            f"`decoder` must not have seen the test films; it was fitted on {seen[:5].tolist()}."
        )
    counted = (labels["films"] != -1) & ~labels["has_cut"] & test
    if not counted.any():
        raise InputError("no test clip is left: none shows a film without a cut.")
    return X, y, labels, counted, test


def score_flows(flow, y, *, mask=None, min_motion=0.1, source_size=None, n_way=10):
    """Score flows of the same clips, clip by clip.

    Parameters
    ----------
    flow : dict of str -> array of shape (n_clips, n_steps, 2, height, width)
        Or (n_draws, n_clips, ...): several trainings or draws, scored one by one.
    y : array of shape (n_clips, n_steps, 2, height, width)
        True flow, px of this grid per step.
    mask : bool array of shape (n_clips, n_steps, height, width), default=None
        Cells that count in the masked scores, the same for every flow; None = where the *true* flow
        moves against its dominant motion (`brainnrds.flow.motion_masks`).
    min_motion : float, default=0.1
        "Thresholded": cells whose true motion is at least this, px of the grid per step. Cosine and
        direction accuracy are thresholded too.
    source_size : tuple (height, width), default=None
        Of the film's frames, for errors in their pixels; None = the grid's.
    n_way : int, default=10
        For identification: the true clip among this many; the mean flow over clips is subtracted
        from either side first.

    Returns
    -------
    scores : dict of str -> dict of score -> array of shape (n_draws, n_clips)
        NaN where a clip has no cell that counts.
    """
    y = check_flow(y, name="y")
    grid = y.shape[3:]
    source_size = grid if source_size is None else tuple(source_size)
    scale = np.array([source_size[1] / grid[1], source_size[0] / grid[0]], dtype=np.float32)
    scale = scale[:, None, None]
    shape = (len(y), y.shape[1], *grid)
    mask = motion_masks(y) if mask is None else np.asarray(mask)
    if mask.dtype != bool or mask.shape != shape:
        raise InputError(f"`mask` must be bool with shape {shape}; got {mask.dtype} {mask.shape}.")
    n_way = min(n_way, len(y))
    nan = np.full(len(y), np.nan)
    moving = {"average": "none", "min_motion": min_motion}

    def of_one(flow):
        masked = mask.any()
        return {
            "end_point_error_px": end_point_error(flow, y, average="none"),
            "end_point_error_source_px": end_point_error(flow * scale, y * scale, average="none"),
            "masked_error_px": (
                end_point_error(flow, y, average="none", mask=mask) if masked else nan
            ),
            "thresholded_error_px": end_point_error(flow, y, **moving),
            "masked_thresholded_error_px": (
                end_point_error(flow, y, mask=mask, **moving) if masked else nan
            ),
            "flow_cosine": flow_cosine(flow, y, **moving),
            "direction_accuracy": direction_accuracy(flow, y, **moving),
            f"identification_{n_way}_way": _identification(flow, y, n_way) if n_way > 1 else nan,
        }

    scores = {}
    for name, some in flow.items():
        draws = [check_flow(f, name=name) for f in (some if np.ndim(some) == 6 else [some])]
        for draw in draws:
            if draw.shape != y.shape:
                raise InputError(
                    f"`{name}` must have the shape of the true flow, {y.shape}; got {draw.shape}: "
                    "`brainnrds.flow.resize_flow` brings flow to another grid."
                )
        parts = [of_one(draw) for draw in draws]
        scores[name] = {score: np.stack([part[score] for part in parts]) for score in parts[0]}
    return scores


def _identification(flow, y, n_way):
    """Probability that each prediction picks out its own clip among `n_way`."""
    flow, y = flow - flow.mean(axis=0), y - y.mean(axis=0)
    similarity = -pairwise_end_point_error(flow, y).astype(np.float64)
    return identification_accuracy(similarity, n_way=n_way)


def _permuted_errors(decoders, X, orders, counted, y, mask, tested):
    """Mean error of the decoders under each order of the windows: dict of (n_orders,).

    Only distinct pairs of window and clip are decoded: aligned blocks have few.
    """
    clips = np.flatnonzero(counted)
    keys = orders[:, clips].astype(np.int64) + clips * len(X)
    distinct, place = np.unique(keys, return_inverse=True)
    place = place.reshape(keys.shape)
    swaps = np.stack([distinct % len(X), distinct // len(X)], axis=1)
    errors = {score: np.zeros(len(swaps)) for score in ERRORS.values()}
    for decoder in decoders:
        start = 0
        for flow in decoder.predict_swapped(X, swaps, **tested):
            part = slice(start, start + len(flow))
            start += len(flow)
            true, cells = y[swaps[part, 1]], mask[swaps[part, 1]]
            errors["end_point_error_px"][part] += end_point_error(flow, true, average="none")
            errors["masked_error_px"][part] += (
                end_point_error(flow, true, average="none", mask=cells) if cells.any() else np.nan
            )
    means = {}
    for score, error in errors.items():
        drawn = error[place] / len(decoders)
        finite = np.isfinite(drawn)
        means[score] = np.where(finite, drawn, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return means


def _convergence(fitted):
    """True, or which networks had not ended their training."""
    networks = [network for networks in fitted.values() for network in networks]
    if not any(np.isfinite(network.history_["validation_error"]).any() for network in networks):
        return "without validation films nobody knows whether training had ended"
    learning = {
        name: sum(not network.converged_ for network in networks)
        for name, networks in fitted.items()
    }
    learning = [f"{name} ({n} of {len(fitted[name])})" for name, n in learning.items() if n]
    if not learning:
        return True
    return f"training had not ended, raise `n_epochs` (--n-epochs): {', '.join(learning)}"


def compare_to_controls(
    decoder,
    X,
    y,
    *,
    test,
    t_r,
    image_features=None,
    runs=None,
    films=None,
    has_cut=None,
    mask=None,
    scenes=None,
    permute_within=None,
    other_flow=None,
    source_size=None,
    block_duration=SHORTEST_BLOCK,
    n_seeds=2,
    n_draws=4,
    n_permutations=1000,
    verbose=0,
    random_state=None,
):
    """Put the decoder's scores beside those of predictors without brain, on the same test clips.

    The **brain gain** is the error of the same network, trained and tested with BOLD of other
    films, minus the decoder's: see `brain_gain` for interval and p-values, `control_flows` for the
    rows. The image-only control says what the frame alone gives. All networks train until their own
    validation error stops falling; where one had not, nothing is claimed (a warning, `supported`
    and `note` say so).

    Parameters
    ----------
    decoder : MotionDecoder
        Fitted on the samples that are not `test`.
    X : array of shape (n_samples, n_voxels)
        BOLD of one subject, training and test.
    y : array of shape (n_samples, n_steps, 2, height, width)
        True flow, px of this grid per step.
    test : bool array of shape (n_samples,)
        True = test. No run and no film on both sides.
    t_r : float
        Repetition time, s.
    image_features : array of shape (n_samples, n_channels, rows, columns), default=None
    runs, films : array of int or str of shape (n_samples,), default=None
        As in `MotionDecoder.fit`.
    has_cut : bool array of shape (n_samples,), default=None
        Clips with a cut, left out of training and scores.
    mask : bool array of shape (n_samples, n_steps, height, width), default=None
        Cells that count in the masked scores, see `score_flows`.
    scenes : int array of shape (n_samples,), default=None
        Scene of each sample, -1 = none: adds a row with BOLD permuted within scene.
    permute_within : int array of shape (n_samples,), default=None
        Which test blocks may change places, see `permutation_blocks`; None = within run.
    other_flow : dict of str -> array, default=None
        (n_test, n_steps, 2, height, width): flow of somebody else's reconstructions of the test
        samples, in their order. (n_draws, n_test, ...): draws of a stochastic generator, of which
        the best one of each clip counts, by end-point error.
    source_size : tuple (height, width), default=None
        Of the film's frames, for errors in their pixels; None = the grid's.
    block_duration : float, default=40.0
        Least duration of a block, s.
    n_seeds : int, default=2
        Trainings of the decoder, the given one among them.
    n_draws : int, default=4
        Trainings of the control, a multiple of `n_seeds`: each with another exchange of BOLD
        between films, the seeds are the decoder's in turn. With the image-only control ``n_seeds +
        n_draws`` networks are trained here, each at the cost of `decoder.fit`: more of them narrow
        the interval (``n_draws - 1`` degrees of freedom). With one draw there is none.
    n_permutations : int, default=1000
    verbose : int, default=0
    random_state : int, RandomState or None, default=None

    Returns
    -------
    comparison : Bunch
        ``table`` : DataFrame, one row per predictor, each score the mean over clips (and trainings)
        of the clip's mean, with ``_low`` and ``_high`` of the end-point errors (95 %, over clips);
        ``gain_px``: the error of the control with unrelated BOLD minus the row's. ``gain`` :
        DataFrame of `brain_gain`. ``per_clip`` : dict of predictor -> dict of score -> array over
        counted test clips. ``null_gain`` : array (n_permutations,), gain over all cells under
        permutation. ``flow`` : dict of predictor -> flow of the test samples, of the first training
        or draw; ``window`` : dict of predictor -> int array (n_test,), the sample of X whose BOLD
        that flow was decoded from, for rows with BOLD of elsewhere. ``test``, ``counted`` : bool
        arrays (n_samples,); ``blocks`` : int array over counted clips; ``fitted`` : dict of
        predictor -> list of decoders.
    """
    X, y, labels, counted, test = check_samples(decoder, X, y, test, runs, films, has_cut)
    shape = (len(X), y.shape[1], *y.shape[3:])
    if mask is not None:
        mask = check_mask(mask, shape)
    other_flow = {
        name: _best_draw(name, other, y[test], counted[test])
        for name, other in (other_flow or {}).items()
    }
    block_length = max(1, math.ceil(block_duration / t_r - 1e-9))
    random = check_random_state(random_state)
    controls = control_flows(
        decoder,
        X,
        y,
        test=test,
        block_length=block_length,
        image_features=image_features,
        runs=runs,
        films=films,
        has_cut=has_cut,
        scenes=scenes,
        n_seeds=n_seeds,
        n_draws=n_draws,
        verbose=verbose,
        random_state=random,
    )
    flow = controls.flow | dict(other_flow.values())
    inner = counted[test]
    full_mask = np.zeros(shape, dtype=bool)
    full_mask[counted] = motion_masks(y[counted]) if mask is None else mask[counted]
    scores = score_flows(
        {name: some[..., inner, :, :, :, :] for name, some in flow.items()},
        y[counted],
        mask=full_mask[counted],
        source_size=source_size,
    )

    tested = {"image_features": rows_of(image_features, test), "runs": labels["runs"][test]}
    blocks = permutation_blocks(
        tested["runs"],
        labels["films"][test],
        block_length,
        permute_within=rows_of(permute_within, test),
    )
    orders = permute_blocks(blocks, n_permutations, random_state=random)
    null = _permuted_errors(
        controls.fitted["decoder"], X[test], orders, inner, y[test], full_mask[test], tested
    )
    per_block = neighbour_blocks(tested["runs"], inner, block_length)
    converged = _convergence(controls.fitted)
    if converged is not True:
        warnings.warn(f"the brain gain is not supported: {converged}", stacklevel=2)
    return Bunch(
        table=_control_table(scores, per_block, random),
        gain=brain_gain(
            scores,
            null | {"n_blocks": blocks.n_movable, "n_orders": blocks.n_orders},
            per_block,
            converged=converged,
        ),
        per_clip={
            name: {score: values.mean(axis=0) for score, values in some.items()}
            for name, some in scores.items()
        },
        null_gain=np.nanmean(scores["unrelated_bold"]["end_point_error_px"])
        - null["end_point_error_px"],
        flow={name: some[0] if some.ndim == 6 else some for name, some in flow.items()},
        window={name: windows[0] for name, windows in controls.window.items()},
        test=test,
        counted=counted,
        blocks=per_block,
        fitted=controls.fitted,
    )


def _best_draw(name, flow, y, counted):
    """(Name of the row, flow): of several draws the best one of each clip."""
    draws = [check_flow(f, name=name) for f in (flow if np.ndim(flow) == 6 else [flow])]
    for draw in draws:
        if draw.shape != y.shape:
            raise InputError(
                f"`{name}` must have the shape of the test samples' flow, {y.shape}; got "
                f"{draw.shape}: `brainnrds.flow.resize_flow` brings flow to another grid."
            )
    if np.ndim(flow) != 6:
        return name, draws[0]
    best = np.stack([end_point_error(draw, y, average="none") for draw in draws]).argmin(axis=0)
    return f"best_of_{len(draws)}_{name}", np.stack(draws)[best, np.arange(len(best))]


def _control_table(scores, blocks, random):
    order = ["decoder", "unrelated_bold", "image_only", "permuted_bold", "permuted_within_scene"]
    order = [name for name in order if name in scores]
    order += [name for name in scores if name not in order]
    reference = nanmean(scores["unrelated_bold"]["end_point_error_px"])
    rows = []
    for name in order:
        row = {"predictor": name}
        for score, values in scores[name].items():
            row[score] = nanmean(values)
            if score in ERRORS.values() and np.isfinite(values).any():
                row[f"{score}_low"], row[f"{score}_high"] = block_bootstrap_interval(
                    values.mean(axis=0), blocks, random_state=random
                )
        row["gain_px"] = reference - row["end_point_error_px"]
        rows.append(row)
    return pd.DataFrame(rows).set_index("predictor")
