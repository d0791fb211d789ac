"""Decode motion: from a BIDS data set to flow, its controls, maps and a report.

The decoder and each trained control keep a checkpoint in the work folder, features are kept in the
feature store: an interrupted analysis goes on where it was, and a finished one is only reported.
"""

import math
from dataclasses import replace

import numpy as np
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError, check_device
from brainnrds.analyses.design import (
    announce_design,
    check_can_hold_out,
    check_test_films,
    decoding_block,
    describe_design,
    find_test_films,
    load_samples,
    round_delays,
)
from brainnrds.analyses.drawing import draw_map, note_on_figures
from brainnrds.analyses.extract import clip_features, describe_extractor, frame_features
from brainnrds.analyses.options import DecodeOptions
from brainnrds.analyses.predicted import find_predicted, read_predicted_flow
from brainnrds.analyses.record import Record
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK, permutation_blocks
from brainnrds.decoding import MotionDecoder, compare_to_controls, control_flows
from brainnrds.features import (
    CutScores,
    FrameGrid,
    ImageEncoder,
    OpticalFlow,
    place_features,
    response_delays,
)
from brainnrds.flow import dominant_motion
from brainnrds.io import FlowFiles, average_repeats, load_json, load_table, probe_video
from brainnrds.io.samples import join_samples
from brainnrds.plotting import (
    plot_controls,
    plot_flow_strips,
    plot_flow_wheel,
    plot_learning_curve,
    plot_null_gain,
)

__all__ = ["choose_clips", "decode_participant"]

_CUT_THRESHOLD = 0.2
_TEST_SHARE = 0.2  # of the clips of a trial design, at least
_FLOW_SIZE = 256  # px, shorter side of the frames between which flow is estimated
_PX = "px of the {0} x {1} grid per step, mean over each clip's cells, then over clips"
_SHOWN = ("decoder", "unrelated_bold", "image_only", "zero_flow")
# the columns that fit on a terminal
_TOLD = (
    "predictor",
    "end_point_error_px",
    "gain_px",
    "masked_error_px",
    "flow_cosine",
    "identification_10_way",
)


_COLUMNS = {
    "predictor": "What predicts the flow; all but the decoder are controls, or the systems that "
    "--predicted names",
    "end_point_error_px": "End-point error, {0}",
    "end_point_error_px_low": "Lower end of its 95 % interval (block bootstrap)",
    "end_point_error_px_high": "Its upper end",
    "end_point_error_source_px": "The same in pixels of the film per step",
    "masked_error_px": "End-point error over cells whose true flow moves against the "
    "dominant motion",
    "masked_error_px_low": "Lower end of its 95 % interval (block bootstrap)",
    "masked_error_px_high": "Its upper end",
    "thresholded_error_px": "End-point error over cells with true motion of .1 px and more",
    "masked_thresholded_error_px": "Both",
    "flow_cosine": "Cosine between flow and true flow, cells with true motion",
    "direction_accuracy": "Share of the right one of 8 directions, cells with true motion",
    "identification_10_way": "Probability that the flow picks out its clip among ten; chance .1",
    "gain_px": "Error of the same network with BOLD of other films (unrelated_bold) minus this "
    "one's",
}
_GAIN_COLUMNS = {
    "cells": "all, or masked: those whose true flow moves against the dominant motion",
    "gain_px": "Brain gain: error of the same network, trained and tested with BOLD of other "
    "films, minus the decoder's, {0}",
    "low": "Lower end of its 95 % interval (over blocks of clips and trainings)",
    "high": "Its upper end",
    "p": "Whether the decoder uses BOLD: share of permutations of the test BOLD with as small an "
    "error. It does not say whether the gain is above 0",
    "p_paired": "Whether the gain is above 0: one-sided, from the same variance as the interval",
    "sd_training_px": "Standard deviation of the error over trainings, {0}",
    "n_seeds": "Trainings of the decoder",
    "n_draws": "Trainings of the control, each with another exchange of BOLD between films",
    "n_blocks": "Blocks of test clips that can change places",
    "n_permutations": "Permutations of the BOLD",
    "smallest_p": "Smallest p that so many blocks and permutations can give",
    "converged": "Whether the validation error of every network had stopped falling",
    "supported": "Converged, interval above 0, and p < .05",
    "note": "Why the gain is not supported, or why there is no p-value",
}


def decode_participant(selection, output_dir, subject, options=None, *, work_dir="work", verbose=1):
    """Decode the motion that one participant saw, beside every control.

    Parameters
    ----------
    selection : Selection or path-like
        Which data; a path is the BIDS folder.
    output_dir : path-like
    subject : str
        Label without "sub-".
    options : DecodeOptions or None, default=None
        None: the defaults. With fewer voxels than its `n_voxels` all are kept. Without
        `test_films`, film groups are drawn at random until they have 12 blocks of 40 s, or a fifth
        of the clips of a trial design, but at most half of them. Test repeats are averaged in any
        case.
    work_dir : path-like, default="work"
        Steps that are finished there are not done again.
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    result : Bunch
        With ``report`` (Path), ``table`` (DataFrame), ``told`` (what a terminal shows of it) and
        ``note`` (str: the brain gain).

    Raises
    ------
    InputError
        Before anything is written to `output_dir`, with one line that says what is wrong.
    """
    options = options or DecodeOptions()
    record, extractors, device = open_decoding(
        selection, output_dir, subject, options, work_dir=work_dir, verbose=verbose
    )
    if record.is_finished:
        return _result(record)

    with record.watching():
        samples, test = decoding_samples(record.runs, options, verbose)
        note_on_figures(samples.masker, record.entities["space"], record.pycortex_subject)
        block = decoding_block(samples, test)
        permute_within, exchange = _exchange(samples, test, block)
        y, image_features, has_cut, frames = decoding_stimuli(
            samples, extractors, record.work_dir, options.n_processes, bool(verbose)
        )
        # what cannot be read is said before an hour of training
        counted = test & ~has_cut & (samples.films >= 0)
        others = _read_others(record, samples, counted, y, extractors["flow"], frames)
        decoder = _fit(record, samples, ~test, y, image_features, has_cut, device)
        comparison = compare_to_controls(
            decoder,
            samples.bold,
            y,
            test=test,
            t_r=samples.spacing,
            block_duration=block,
            image_features=image_features,
            runs=samples.runs,
            films=samples.films,
            has_cut=has_cut,
            scenes=None if samples.design == "trials" else _scenes(samples, has_cut),
            permute_within=permute_within,
            other_flow={name: flow[test] for name, flow in others.items()},
            source_size=frames.size,
            n_seeds=options.n_seeds,
            n_draws=options.n_draws,
            n_permutations=options.n_permutations,
            verbose=int(bool(verbose)),
            random_state=options.random_state,
        )
        importance = decoder.voxel_importance(
            samples.bold[test],
            image_features=image_features[test],
            runs=samples.runs[test],
            random_state=options.random_state,
        )

    record.open(_parameters(record, samples, decoder, comparison, has_cut, frames, exchange, block))
    gain = comparison.gain.reset_index()
    _save_flow(record, samples, y, comparison)
    record.save_map(
        np.where(samples.voxels, importance, np.nan),
        samples.masker,
        description="Root mean square derivative of the decoded flow (all cells and steps) with "
        "respect to the voxel, over its delays and the test clips; 0: not in use",
        unit="pixels of the grid per step per standard deviation",
        stat="importance",
    )
    _save_figures(record, samples, y, comparison, decoder, importance, frames)
    unit = _PX.format(*options.grid)
    record.save_table(
        comparison.table.reset_index(),
        columns={name: text.format(unit) for name, text in _COLUMNS.items()},
        description=_table_description(gain),
    )
    record.save_table(
        gain,
        columns={name: text.format(unit) for name, text in _GAIN_COLUMNS.items()},
        description=f"Over all cells and over masked ones. {_about_gain(gain)}",
        feat="gain",
    )
    record.close(_headline(gain, comparison), random_state=options.random_state, device=device)
    return _result(record)


def open_decoding(selection, output_dir, subject, options, *, work_dir, verbose):
    """Make the record of a decoding, settled, and the extractors that it needs.

    Parameters
    ----------
    selection, output_dir, subject, options, work_dir, verbose
        As of `decode_participant`.

    Returns
    -------
    record : Record
    extractors : dict of str to transformer
    device : str
    """
    record = Record.of_participant(
        "decode",
        selection,
        output_dir,
        subject,
        work_dir=work_dir,
        n_jobs=options.n_processes,
        verbose=verbose,
    )
    device = check_device(options.device)
    check_test_films(record.runs, options)
    announce_design(record, options)
    extractors = decoding_extractors(record.runs, options, device)
    described = {name: describe_extractor(extractor) for name, extractor in extractors.items()}
    others = find_predicted(options, ("decoder",), FlowFiles)
    by_content = {name: files.describe() for name, files in others.items()}
    record.settle(options, extractors=described, predicted=by_content)
    return record, extractors, device


def decode_from_frames(record, extractors, device, frames):
    """Decode the test clips anew, seen with other initial frames than the film's.

    The trained networks are those of the decoding, from its work folder.

    Parameters
    ----------
    record, extractors, device
        Of `open_decoding`.
    frames : array of shape (n_clips, 3, height, width)
        In [0, 1], of the first test clips, in the order of the decoded flow.

    Returns
    -------
    flows : dict of str to array of shape (n_clips, n_steps, 2, height, width)
        Of the decoder, "decoder", and of its controls, as
        :func:`brainnrds.decoding.control_flows` names them.
    """
    samples, test = decoding_samples(record.runs, record.options, 0)
    y, image_features, has_cut, _ = decoding_stimuli(
        samples, extractors, record.work_dir, record.options.n_processes, bool(record.verbose)
    )
    decoder = _fit(record, samples, ~test, y, image_features, has_cut, device)
    rows = np.flatnonzero((samples.films != -1) & ~has_cut & test)[: len(frames)]
    image_features = np.array(image_features)
    image_features[rows] = frame_features(extractors["image"], frames)
    controls = control_flows(
        decoder,
        samples.bold,
        y,
        test=test,
        block_length=_block_length(samples, decoding_block(samples, test)),
        image_features=image_features,
        runs=samples.runs,
        films=samples.films,
        has_cut=has_cut,
        n_seeds=record.options.n_seeds,
        n_draws=record.options.n_draws,
        random_state=record.options.random_state,
    )
    inner = np.searchsorted(np.flatnonzero(test), rows)
    return {
        name: (flow[0] if flow.ndim == 6 else flow)[inner] for name, flow in controls.flow.items()
    }


def _result(record):
    path = record.path("table")
    table, note = load_table(path), load_json(path.with_suffix(".json"))["Description"]
    told = table[[column for column in _TOLD if column in table]]
    return Bunch(report=record.report(), table=table, told=[told], note=note)


def decoding_extractors(runs, options, device):
    film = probe_video(runs[0].films[0].stim_file)
    return {
        "flow": OpticalFlow(
            tuple(options.grid),
            options.n_steps,
            method=options.flow_method,
            weights=options.flow_weights,
            size=min(_FLOW_SIZE, film.height, film.width),  # no film is enlarged
            device=device,
        ),
        "image": _make_image_encoder(options.image_encoder, device),
        "cuts": CutScores(),
    }


def window_of(options, data):
    """Volumes of BOLD that a clip is decoded from, as delays: of flow, and of initial frames."""
    if data.design == "trials":
        return data.delays
    if options.delays_seconds is not None:
        return round_delays(options.delays_seconds, data.t_r)
    return [-delay for delay in response_delays(data.t_r, earliest=0.0)[::-1]]


def make_decoder(options, data, n_voxels, *, checkpoint_path, device, verbose):
    """Make the decoder that options ask for, not fitted."""
    return MotionDecoder(
        options.n_codes,
        delays=window_of(options, data),
        voxel_selection=options.voxel_selection if options.n_voxels < n_voxels else None,
        n_voxels=options.n_voxels,
        n_epochs=options.n_epochs,
        batch_size=options.training_batch,
        precision=options.precision,
        checkpoint_path=checkpoint_path,
        device=device,
        verbose=int(bool(verbose)),
        random_state=options.random_state,
    )


def _fit(record, samples, train, y, image_features, has_cut, device):
    """Train the decoder; its checkpoint lies in the work folder."""
    decoder = make_decoder(
        record.options,
        samples,
        samples.bold.shape[1],
        checkpoint_path=record.work / "decoder.pt",
        device=device,
        verbose=record.verbose,
    )
    return decoder.fit(
        samples.bold[train],
        y[train],
        image_features=image_features[train],
        runs=samples.runs[train],
        films=samples.films[train],
        has_cut=has_cut[train],
        film_times=samples.film_times[train],
    )


def _parameters(record, samples, decoder, comparison, has_cut, frames, exchange, block):
    """What was chosen and found, for sidecars, the record and the methods text."""
    options, names, shown = record.options, samples.film_names, samples.films >= 0
    test = comparison.test
    return {
        "space": record.entities["space"],
        "confounds": list(options.confounds),
        "n_runs": len(record.runs),
        "n_films": len(names),
        "t_r": samples.t_r,
        **describe_design(samples, options),
        "repeats": options.repeats,
        "grid": list(options.grid),
        "n_steps": options.n_steps,
        "flow_unit": "pixels of the grid per step",
        "step_seconds": samples.clip_duration / options.n_steps,
        "source_size": list(frames.size),
        "delays": list(decoder.delays),
        "delays_seconds": [delay * samples.t_r for delay in decoder.delays],
        "decoder": decoder.get_params() | {"checkpoint_path": None},
        "n_codes": len(decoder.codebook_.codes_),
        "n_voxels": len(decoder.voxels_[0]),
        "best_epoch": decoder.best_epoch_,
        "test_films": [names[i] for i in np.unique(samples.films[test & shown])],
        "validation_films": [names[i] for i in decoder.validation_films_],
        "n_clips": {
            "training": int((~test & shown & ~has_cut).sum()),
            "test": int(comparison.counted.sum()),
            "left out for a cut": int((has_cut & shown).sum()),
        },
        "block_duration": block,
        "blocks_change_places": exchange,
        "no_p_value": bool(np.isnan(comparison.gain.loc["all", "p"])),
        "handled": samples.counts,
        "sources": samples.sources,
    }


def _make_image_encoder(name, device):
    if name == "frame-grid":
        return FrameGrid()
    try:
        return ImageEncoder(
            name, pooling="grid", sampling="first", framing="whole", device=device
        ).fit()
    except (ValueError, OSError) as error:
        raise InputError(f"--image-encoder {name}: {error}") from error


def decoding_samples(runs, options, verbose):
    """Samples with training repeats as asked for and test repeats averaged; which are tested."""
    single = load_samples(runs, options, repeats="concatenate", verbose=int(bool(verbose)))
    in_pieces = options.repeats == "concatenate"
    # in place where single presentations are not asked for: both would be twice the memory
    averaged = average_repeats(single, copy=in_pieces)
    tested = _choose_test_films(averaged, options.test_films, options.random_state)
    training = single if in_pieces else averaged
    training, testing = training[~training.shows(*tested)], averaged[averaged.shows(*tested)]
    n_films = len(averaged.film_names)
    del single, averaged
    for part in (training, testing):
        if not (part.groups >= 0).any():
            raise InputError(
                "--test-films must leave films for training and hold out at least one; got "
                f"{len(tested)} of {n_films} films."
            )
    data = join_samples(training, testing)
    # at rest there is no flow to decode
    data = replace(data, films=np.where(data.on_screen >= 0, data.films, -1))
    test = np.arange(len(data.runs)) >= len(training.runs)
    if data.design == "trials":  # in training nothing ties clips of one run, as no delay does
        of_test = data.presentations.max() + 1 + data.runs
        data = replace(data, runs=np.where(test, of_test, data.presentations))
    return data, test


def _block_length(data, seconds):
    return max(1, math.ceil(seconds / data.spacing - 1e-9))


def _exchange(data, test, seconds):
    """Where blocks of BOLD may change places: labels or None, and in words."""
    block_length = _block_length(data, seconds)
    blocks = permutation_blocks(data.runs[test], data.films[test], block_length)
    if blocks.n_movable < FEWEST_BLOCKS:
        # short films: blocks of z-scored BOLD may change places between runs
        return test.astype(int), "between test runs"
    return None, "within run"


def _count_blocks(data, films):
    """How many blocks the samples with flow of these films are, wherever they may change places."""
    rows = np.isin(data.films, films) & (data.on_screen >= 0)
    runs, films = data.runs[rows], data.films[rows]
    length = _block_length(data, SHORTEST_BLOCK)
    everywhere = np.zeros(len(runs), dtype=int)
    return permutation_blocks(runs, films, length, permute_within=everywhere).n_movable


def _choose_test_films(data, names, random_state):
    """Names of the test films."""
    if names:
        return [data.film_names[film] for film in find_test_films(names, data.film_names)]
    group = data.film_groups
    groups = np.unique(group)
    check_can_hold_out(group, data.film_names)
    chosen, n_blocks = [], 0
    is_trials = data.design == "trials"
    least = max(FEWEST_BLOCKS, _TEST_SHARE * len(group)) if is_trials else FEWEST_BLOCKS
    for number in check_random_state(random_state).permutation(groups):
        if n_blocks >= least or len(chosen) == len(groups) // 2:
            break
        chosen.append(number)
        films = np.flatnonzero(np.isin(group, chosen))
        n_blocks = len(films) if is_trials else _count_blocks(data, films)
    return [data.film_names[film] for film in np.flatnonzero(np.isin(group, chosen))]


def decoding_stimuli(samples, extractors, work_dir, n_jobs, progress):
    """Flow, image features and cuts of every sample, and where to find initial frames."""
    features, times, index = clip_features(
        samples,
        extractors,
        samples.clip_duration,
        store_dir=work_dir / "features",
        n_jobs=n_jobs,
        progress=progress,
    )
    placed = {name: place_features(per_film, index) for name, per_film in features.items()}
    has_cut = (placed["cuts"][:, 0] > _CUT_THRESHOLD) & (index >= 0)
    shown = next(path for path, t in zip(samples.stim_files, times, strict=True) if len(t))
    video = probe_video(shown)
    frames = Bunch(
        size=(video.height, video.width),
        onset=np.concatenate(times)[np.maximum(index, 0)],
        path=[samples.stim_files[max(film, 0)] for film in samples.on_screen],
    )
    return placed["flow"], placed["image"], has_cut, frames


def _read_others(record, samples, counted, y, extractor, frames):
    """Flow of other systems' reconstructions of the clips that are scored, by name."""
    others = find_predicted(record.options, ("decoder",), FlowFiles)
    options = {
        "store_dir": record.work_dir / "features",
        "n_jobs": record.options.n_processes,
        "progress": bool(record.verbose),
    }
    return {
        name: read_predicted_flow(
            name, files, samples, frames.onset, counted, y.shape[1:], extractor, **options
        )
        for name, files in others.items()
    }


def _scenes(samples, has_cut):
    """Label of each sample's scene: the stretch of a film between clips with a cut."""
    scenes = np.full(len(samples.runs), -1)
    n_scenes = 0
    for label in np.unique(samples.presentations):
        rows = np.flatnonzero((samples.presentations == label) & (samples.films >= 0))
        scenes[rows] = n_scenes + np.cumsum(has_cut[rows])
        n_scenes += len(rows) + 1
    scenes[has_cut] = -1
    return scenes


def choose_clips(y, flow, unrelated_flow, image_only_flow):
    """Choose the clips to show, by rules.

    Parameters
    ----------
    y, flow, unrelated_flow, image_only_flow : array of shape (n_clips, n_steps, 2, height, width)
        True, decoded, and the controls': with BOLD of other films, and without BOLD.

    Returns
    -------
    clips : dict of str -> int
        "best", "median", "worst": by the decoder's end-point error relative to the clip's mean
        speed. "largest gain": the error with BOLD of other films minus the decoder's, the clip's
        brain gain, is largest. "camera motion": the dominant motion has the largest share of
        the clip's speed, among the faster half. "static objects": the slowest true clip among those
        where the image-only control predicts more motion than half of all.
    """

    def error(prediction):
        return np.linalg.norm(prediction - y, axis=2).mean(axis=(1, 2, 3))

    def speed(field):
        return np.linalg.norm(field, axis=2).mean(axis=(1, 2, 3))

    ours, true_speed = error(flow), speed(y)
    fast = np.flatnonzero(true_speed >= np.median(true_speed))
    relative = ours[fast] / np.maximum(true_speed[fast], 1e-6)
    order = fast[np.argsort(relative, kind="stable")]
    camera = speed(dominant_motion(y[fast])) / np.maximum(
        true_speed[fast] + speed(y[fast] - dominant_motion(y[fast])), 1e-6
    )
    guessed = speed(image_only_flow)
    moving = np.flatnonzero(guessed >= np.median(guessed))
    return {
        "best": int(order[0]),
        "median": int(order[len(order) // 2]),
        "worst": int(order[-1]),
        "largest gain": int((error(unrelated_flow) - ours).argmax()),
        "camera motion": int(fast[camera.argmax()]),
        "static objects": int(moving[true_speed[moving].argmin()]),
    }


def _save_flow(record, samples, y, comparison):
    """Flow of the test clips: decoded, true, and of the controls that can be rendered."""
    rows = np.flatnonzero(comparison.counted)
    inner = comparison.counted[comparison.test]
    sources = comparison.window["permuted_bold"][inner]
    arrays = {
        "true": y[rows],
        "image_only": comparison.flow["image_only"][inner],
        "unrelated_bold": comparison.flow["unrelated_bold"][inner],
        "permuted_bold": comparison.flow["permuted_bold"][inner],
        "film": [samples.film_names[i] for i in samples.films[rows]],
        "film_time": samples.film_times[rows].astype(np.float64),
        "block": comparison.blocks,
        "bold_film": [samples.film_names[i] for i in samples.films[sources]],
        "bold_film_time": samples.film_times[sources].astype(np.float64),
    }
    record.save_flow(
        comparison.flow["decoder"][inner],
        arrays=arrays,
        contents="flow: decoded; true: of the film; image_only: of the control without brain; "
        "unrelated_bold: of the network that was trained and tested with BOLD of other films; "
        "permuted_bold: of the decoder with BOLD of another film; film, film_time (s from its "
        "first frame): which clip; block: neighbours, of 40 s and more where a run is as long; "
        "bold_film, bold_film_time: whose BOLD these two were given",
    )


def _first_frames(frames, rows):
    from brainnrds.io import read_clip

    images = []
    for row in rows:
        path = frames.path[row]
        fps = probe_video(path).fps
        images.append(
            read_clip(path, start=frames.onset[row], duration=1 / fps, fps=fps, size=96)[0]
        )
    return images


def _save_figures(record, samples, y, comparison, decoder, importance, frames):
    draw = record.save_figure
    table, gain = comparison.table, comparison.gain
    height, width = y.shape[3:]
    unit = f"{height} x {width} grid px per step"
    interval = (
        "Lines: 95 % block-bootstrap intervals; dotted: the same network, trained and tested with "
        "BOLD of other films."
    )
    for score, stat, what in (
        ("end_point_error_px", "error", "End-point error over all cells"),
        ("masked_error_px", "maskedError", "Over cells moving against the dominant motion"),
    ):
        if score in table:
            draw(
                plot_controls(table, score=score, label=f"end-point error ({unit})"),
                "bar",
                stat=stat,
                description=f"{what}, {unit}. {interval}",
            )
    draw(
        plot_null_gain(
            comparison.null_gain, gain.loc["all", "gain_px"], p=gain.loc["all", "p"],
            label=f"brain gain ({unit})",
        ),
        "histogram",
        stat="gain",
        description="Coloured: the brain gain, error of the same network, trained and tested with "
        "BOLD of other films, minus the decoder's. Grey: the same when the fitted decoders get "
        f"BOLD permuted in blocks of {record.parameters['block_duration']:g} s; p is the share of "
        "these that reach it, and says that the decoder uses BOLD, not that the gain is above 0. "
        f"{gain.loc['all', 'note']}".strip(),
    )  # fmt: skip
    draw(
        plot_learning_curve(
            decoder.history_,
            best_epoch=decoder.best_epoch_,
            control=comparison.fitted["unrelated_bold"][0].history_,
        ),
        "curve",
        description="One training of the decoder and of its control with BOLD of other films. Held "
        "out: validation films, none of which is tested. Dotted: the epoch that the decoder kept; "
        "the control keeps its own best.",
    )
    rows = np.flatnonzero(comparison.counted)
    inner = np.flatnonzero(comparison.counted[comparison.test])
    flow = {"truth": y[rows]} | {name: comparison.flow[name][inner] for name in _SHOWN}
    clips = choose_clips(
        *(flow[name] for name in ("truth", "decoder", "unrelated_bold", "image_only"))
    )
    for stat, names, description in (
        (
            "clips",
            ("best", "median", "worst"),
            "Best, median and worst clip by error over speed, among the faster half.",
        ),
        (
            "brain",
            ("largest gain", "camera motion", "static objects"),
            "With and without brain. Rows by rule: the clip with the largest brain gain (error of "
            "unrelated_bold minus the decoder's), chosen by it and so no evidence; the clip whose "
            "camera motion overrides the objects'; the stillest of those that the image-only "
            "control would move.",
        ),
    ):
        chosen = [clips[name] for name in names]
        images = _first_frames(frames, rows[chosen])
        same_size = len({image.shape for image in images}) == 1
        draw(
            plot_flow_strips(
                {name: array[chosen] for name, array in flow.items()},
                initial_frames=np.stack(images) if same_size else None,
                row_labels=list(names),
                unit=f"{height} x {width}\ngrid px per step",
            ),
            "strip",
            stat=stat,
            description=description,
        )
    scale = float(np.percentile(np.linalg.norm(y[rows], axis=2), 99))
    draw(
        plot_flow_wheel(max_motion=max(scale, 1e-6), unit=unit),
        "flow",
        stat="wheel",
        description="Colours of motion: hue is direction, saturation is speed, white is still.",
    )
    shown = np.where(samples.voxels, importance, np.nan)
    drawn = draw_map(
        samples.masker,
        shown,
        record.entities["space"],
        title="what the decoder uses",
        label="px per standard deviation",
        pycortex_subject=record.pycortex_subject,
    )
    if drawn is not None:
        suffix, figure = drawn
        draw(
            figure,
            suffix,
            stat="importance",
            description="Root mean square derivative of the decoded flow with respect to each "
            "voxel: what the decoder uses, not what the voxel knows.",
        )


def _table_description(gain):
    return (
        "The decoder and its controls on the same test clips. No decoder saw these films. "
        f"{_about_gain(gain)}"
    )


def _about_gain(gain):
    """What may be said of the gain over all cells, in sentences."""
    row = gain.iloc[0]
    told = (
        f"Brain gain over all cells, the error of unrelated_bold minus the decoder's: "
        f"{row['gain_px']:.4f} px"
    )
    if np.isfinite(row["low"]):
        told += (
            f" (95 % {row['low']:.4f} to {row['high']:.4f} over blocks and "
            f"{row['n_seeds'] + row['n_draws']} trainings"
        )
        told += f", p_paired = {row['p_paired']:.3g})" if np.isfinite(row["p_paired"]) else ")"
    if row["note"]:
        return f"{told}. Nothing is claimed of it: {row['note']}."
    return (
        f"{told}. It is supported: the decoder uses BOLD, p = {row['p']:.3g} over "
        f"{row['n_permutations']} permutations of {row['n_blocks']} blocks (smallest attainable: "
        f"{row['smallest_p']:.2g})."
    )


def _headline(gain, comparison):
    row = gain.iloc[0]
    unit = "grid px per step"
    summary = {"test clips": int(comparison.counted.sum())}
    for name, words in (
        ("decoder", "decoder"),
        ("unrelated_bold", "unrelated_bold, the same with BOLD of other films"),
        ("image_only", "image_only, the same without BOLD"),
    ):
        error = float(comparison.table.loc[name, "end_point_error_px"])
        summary[f"end-point error, {words} ({unit})"] = round(error, 4)
    summary[f"brain gain, unrelated_bold minus decoder ({unit})"] = round(float(row["gain_px"]), 4)
    interval = f"{row['low']:.4f} to {row['high']:.4f}" if np.isfinite(row["low"]) else "none"
    summary[f"brain gain, 95 % interval ({unit})"] = interval
    for column, words in (
        ("p_paired", "brain gain, p_paired: is it above 0?"),
        ("p", "brain gain, p: does the decoder use BOLD?"),
    ):
        summary[words] = float(row[column]) if np.isfinite(row[column]) else "none"
    reason = row["note"].removeprefix("not supported: ")
    summary["brain gain, supported"] = "yes" if row["supported"] else f"no: {reason}"
    return summary
