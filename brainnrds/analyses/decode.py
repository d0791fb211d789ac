"""Decode motion: from a BIDS data set to flow, its controls, maps and a report.

The decoder and each trained control keep a checkpoint in the work folder, features are kept in the
feature store: an interrupted analysis goes on where it was, and a finished one is only reported.
"""

import hashlib
import json
import math
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Bunch, check_random_state

import brainnrds
from brainnrds._checks import check_device
from brainnrds.analyses.design import (
    find_test_films,
    fingerprint,
    group_of_film,
    round_delays,
)
from brainnrds.analyses.drawing import draw_map, save_figure
from brainnrds.analyses.extract import describe_extractor, extract_features
from brainnrds.analyses.provenance import run_record
from brainnrds.blocks import FEWEST_BLOCKS, permutation_blocks
from brainnrds.decoding import MotionDecoder, compare_to_controls
from brainnrds.features import FrameGrid, ImageEncoder, OpticalFlow, distinct_clips, place_features
from brainnrds.flow import cut_scores, dominant_motion
from brainnrds.io import (
    InputError,
    average_repeats,
    check_output_dir,
    derivative_path,
    find_runs,
    load_json,
    load_runs,
    load_table,
    probe_video,
    save_flow,
    save_json,
    save_map,
    save_table,
    write_dataset_description,
)
from brainnrds.io.derivatives import remove_results
from brainnrds.plotting import (
    plot_controls,
    plot_flow_strips,
    plot_flow_wheel,
    plot_learning_curve,
    plot_null_gain,
)
from brainnrds.reporting import write_report

__all__ = ["choose_clips", "decode_participant"]

_DEFAULT_DELAYS_SECONDS = (-8.0, -6.0, -4.0, -2.0, 0.0)
_BLOCK_SECONDS = 40.0
_CUT_THRESHOLD = 0.2
_FLOW_SIZE = 256  # px, shorter side of the frames between which flow is estimated
_PX = "px of the {0} x {1} grid per step, mean over each clip's cells, then over clips"
_SHOWN = ("decoder", "image_only", "zero_flow")
# the columns that fit on a terminal
_TOLD = (
    "predictor",
    "end_point_error_px",
    "gain_px",
    "masked_error_px",
    "flow_cosine",
    "identification_10_way",
)


class _CutScores(TransformerMixin, BaseEstimator):
    """Largest cut score of each clip: an extractor for the feature store."""

    def __init__(self, *, fps=8.0, size=64):
        self.fps = fps
        self.size = size

    def fit(self, X=None, y=None):
        return self

    def transform(self, clips):
        return np.stack([cut_scores(np.asarray(clip)[None]).max(axis=1) for clip in clips])


def decode_participant(
    bids_dir,
    output_dir,
    subject,
    *,
    derivatives=None,
    session=None,
    task=None,
    space=None,
    bids_filter=None,
    database_path=None,
    image_encoder="frame-grid",
    flow_method="dis",
    flow_weights=None,
    grid=(32, 32),
    n_steps=3,
    n_codes=40,
    confounds=("motion", "high_pass", "wm_csf"),
    mask=None,
    repeats="average",
    test_films=None,
    delays_seconds=None,
    voxel_selection="best",
    n_voxels=2000,
    n_epochs=50,
    batch_size=64,
    precision="float32",
    n_permutations=1000,
    device="auto",
    n_jobs=1,
    random_state=0,
    work_dir="work",
    progress=True,
):
    """Decode the motion that one participant saw, beside every control.

    Parameters
    ----------
    bids_dir, output_dir : path-like
    subject : str
        Label without "sub-".
    derivatives, session, task, space, bids_filter, database_path
        Which runs: see :func:`brainnrds.io.find_runs`.
    image_encoder : str, default="frame-grid"
        "frame-grid" needs no weights; or a name of :func:`brainnrds.features.list_encoders`, a hub
        id or a local folder.
    flow_method, flow_weights, grid, n_steps
        See :class:`brainnrds.features.OpticalFlow`.
    n_codes, voxel_selection, n_voxels, n_epochs, batch_size, precision
        See :class:`brainnrds.MotionDecoder`. With fewer voxels than `n_voxels` all are kept.
    confounds, mask
        See :func:`brainnrds.io.load_runs`.
    repeats : {"average", "concatenate"}, default="average"
        Training repeats; test repeats are averaged in any case.
    test_films : list of str or None, default=None
        Names of the films for testing alone. None: film groups drawn at random until they have
        12 blocks of 40 s, but at most half of them.
    delays_seconds : list of float or None, default=None
        The window in s, negative = BOLD after the clip, rounded to volumes. None: -8 ... 0.
    n_permutations : int, default=1000
    device : str, default="auto"
    n_jobs : int, default=1
        Processes that decode films.
    random_state : int, default=0
    work_dir : path-like, default="work"
    progress : bool, default=True

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
    start = time.perf_counter()
    check_output_dir(output_dir, bids_dir, derivatives=derivatives)
    device = check_device(device)
    runs = find_runs(
        bids_dir,
        derivatives=derivatives,
        subject=subject,
        session=session,
        task=task,
        space=space,
        bids_filter=bids_filter,
        database_path=database_path,
    )
    film = probe_video(runs[0].films[0].stim_file)
    extractors = {
        "flow": OpticalFlow(
            tuple(grid),
            n_steps,
            method=flow_method,
            weights=flow_weights,
            size=min(_FLOW_SIZE, film.height, film.width),  # no film is enlarged
            device=device,
        ),
        "image": _make_image_encoder(image_encoder, device),
        "cuts": _CutScores(),
    }
    delays, delays_seconds = round_delays(
        delays_seconds, runs[0].t_r, default=_DEFAULT_DELAYS_SECONDS
    )
    settings = {
        "subject": subject,
        "files": [fingerprint(run) for run in runs],
        "extractors": {name: describe_extractor(e) for name, e in extractors.items()},
        "confounds": list(confounds),
        "mask": str(mask) if mask is not None else None,
        "repeats": repeats,
        "test_films": test_films,
        "delays": delays,
        "decoder": [n_codes, voxel_selection, n_voxels, n_epochs, batch_size, precision],
        "n_permutations": n_permutations,
        "random_state": random_state,
        "version": brainnrds.__version__,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    tasks = {run.task for run in runs}
    entities = {
        "subject": subject,
        "task": tasks.pop() if len(tasks) == 1 else None,
        "space": runs[0].space,
    }
    record_path = derivative_path(output_dir, "provenance", {**entities, "desc": "decode"})
    table_path = derivative_path(output_dir, "table", {**entities, "desc": "decode"})
    if record_path.exists() and load_json(record_path).get("Key") == key:
        return _result(write_report(output_dir, subject), table_path)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        samples = _load_samples(runs, confounds, mask, repeats, test_films, random_state, progress)
        y, image_features, has_cut, frames = _stimuli(
            samples, extractors, work_dir, n_jobs, progress
        )
        decoder = MotionDecoder(
            n_codes,
            delays=delays,
            voxel_selection=voxel_selection if n_voxels < samples.bold.shape[1] else None,
            n_voxels=n_voxels,
            n_epochs=n_epochs,
            batch_size=batch_size,
            precision=precision,
            checkpoint_path=Path(work_dir) / f"sub-{subject}" / f"decode-{key[:16]}" / "decoder.pt",
            device=device,
            verbose=int(progress),
            random_state=random_state,
        )
        train = ~samples.test
        decoder.fit(
            samples.bold[train],
            y[train],
            image_features=image_features[train],
            runs=samples.runs[train],
            films=samples.films[train],
            has_cut=has_cut[train],
        )
        comparison = compare_to_controls(
            decoder,
            samples.bold,
            y,
            test=samples.test,
            t_r=samples.t_r,
            image_features=image_features,
            runs=samples.runs,
            films=samples.films,
            has_cut=has_cut,
            scenes=_scenes(samples, has_cut),
            permute_within=samples.permute_within,
            source_size=frames.size,
            block_seconds=_BLOCK_SECONDS,
            n_permutations=n_permutations,
            verbose=int(progress),
            random_state=random_state,
        )
        importance = decoder.voxel_importance(
            samples.bold[samples.test],
            image_features=image_features[samples.test],
            runs=samples.runs[samples.test],
            random_state=random_state,
        )
    for message in caught:
        warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)

    names = samples.film_names
    info = {
        "space": runs[0].space,
        "confounds": list(confounds),
        "n_runs": len(runs),
        "n_films": len(names),
        "t_r": samples.t_r,
        "repeats": repeats,
        "extractors": settings["extractors"],
        "grid": list(grid),
        "n_steps": n_steps,
        "flow_unit": "pixels of the grid per step",
        "step_seconds": samples.t_r / n_steps,
        "source_size": list(frames.size),
        "delays": delays,
        "delays_seconds": delays_seconds,
        "decoder": decoder.get_params() | {"checkpoint_path": None},
        "n_codes": len(decoder.codebook_.codes_),
        "n_voxels": len(decoder.voxels_[0]),
        "best_epoch": decoder.best_epoch_,
        "test_films": [names[i] for i in np.unique(samples.films[samples.test]) if i >= 0],
        "validation_films": [names[i] for i in decoder.validation_films_],
        "n_clips": {
            "training": int((train & (samples.films >= 0) & ~has_cut).sum()),
            "test": int(comparison.counted.sum()),
            "left out for a cut": int((has_cut & (samples.films >= 0)).sum()),
        },
        "block_seconds": _BLOCK_SECONDS,
        "blocks_change_places": samples.exchange,
        "handled": samples.counts,
        "sources": samples.sources,
    }
    table = comparison.table.reset_index()
    gain = comparison.gain.reset_index()
    write_dataset_description(output_dir, bids_dir, derivatives=derivatives)
    remove_results(output_dir, entities, "decode")
    _save_flow(output_dir, entities, samples, y, comparison, info)
    save_map(
        output_dir,
        np.where(samples.voxels, importance, np.nan),
        samples.masker,
        {**entities, "stat": "importance", "desc": "decode"},
        metadata={
            "Description": "Root mean square derivative of the decoded flow (all cells and steps) "
            "with respect to the voxel, over its delays and the test clips; 0: not in use",
            "Units": "pixels of the grid per step per standard deviation",
            **info,
        },
    )
    _save_figures(output_dir, entities, samples, y, comparison, decoder, importance, frames)
    unit = _PX.format(*grid)
    save_table(
        table_path,
        table,
        columns={
            "predictor": "What predicts the flow; all but the decoder are controls",
            "end_point_error_px": f"End-point error, {unit}",
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
            "identification_10_way": "Probability that the flow picks out its clip among ten; "
            "chance .1",
            "gain_px": "Error of the image-only control minus this one's",
        },
        metadata={"Description": _table_description(gain), **info},
    )
    save_table(
        derivative_path(output_dir, "table", {**entities, "feat": "gain", "desc": "decode"}),
        gain,
        columns={
            "cells": "all, or masked: those whose true flow moves against the dominant motion",
            "gain_px": f"Brain gain: error of the image-only control minus the decoder's, {unit}",
            "low": "Lower end of its 95 % interval (block bootstrap)",
            "high": "Its upper end",
            "p": "Permuted BOLD against the fitted decoder",
            "p_paired": "Sign flips of whole blocks: decoder against image-only control",
            "n_blocks": "Blocks of test clips that were permuted, flipped and resampled",
            "n_permutations": "Permutations of the BOLD",
            "smallest_p": "Smallest p that so many blocks and permutations can give",
            "note": "Why there is no p-value, if there is none",
        },
        metadata={"Description": "The brain gain, over all cells and over masked ones.", **info},
    )
    record = run_record(
        "decode",
        parameters=info,
        summary=_headline(gain, comparison),
        seeds={"random_state": random_state},
        device=device,
        seconds=time.perf_counter() - start,
        warned=Counter(str(w.message) for w in caught if "brainnrds" in Path(w.filename).parts),
    )
    # written last: a record says that everything before it is there
    save_json(record_path, {**record, "Key": key})
    return _result(write_report(output_dir, subject), table_path)


def _result(report, table_path):
    table = load_table(table_path)
    note = load_json(table_path.with_suffix(".json"))["Description"]
    told = table[[column for column in _TOLD if column in table]]
    return Bunch(report=report, table=table, told=[told], note=note)


def _make_image_encoder(name, device):
    if name == "frame-grid":
        return FrameGrid()
    try:
        return ImageEncoder(
            name, pooling="grid", sampling="first", framing="whole", device=device
        ).fit()
    except (ValueError, OSError) as error:
        raise InputError(f"--image-encoder {name}: {error}") from error


@dataclass
class _Samples:
    """Training and test samples of one participant, with labels."""

    bold: np.ndarray
    runs: np.ndarray
    films: np.ndarray
    film_times: np.ndarray
    test: np.ndarray
    permute_within: np.ndarray | None
    exchange: str
    film_names: list
    film_durations: list
    stim_files: list
    t_r: float
    masker: object
    voxels: np.ndarray
    counts: dict
    sources: list


def _load_samples(runs, confounds, mask, repeats, test_films, random_state, progress):
    """Training repeats as asked for, test repeats averaged."""
    if repeats not in ("average", "concatenate"):
        raise InputError(f"--repeats must be 'average' or 'concatenate'; got {repeats!r}.")
    single = load_runs(
        runs,
        confounds=tuple(confounds),
        mask=mask,
        repeats="concatenate",
        verbose=int(progress),
    )
    averaged = average_repeats(single)
    tested = _choose_test_films(runs, averaged, test_films, random_state)
    parts = [
        _rows(single if repeats == "concatenate" else averaged, tested, False, 0),
    ]
    parts.append(_rows(averaged, tested, True, 1 + int(parts[0][1].max())))
    bold, labels, films, times = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    test = np.arange(len(bold)) >= len(parts[0][0])
    block_length = math.ceil(_BLOCK_SECONDS / single.t_r - 1e-9)
    within, exchange = None, "within run"
    if permutation_blocks(labels[test], films[test], block_length).n_movable < FEWEST_BLOCKS:
        # short films: blocks of z-scored BOLD may change places between runs
        within, exchange = test.astype(int), "between test runs"
    return _Samples(
        bold=bold,
        runs=labels,
        films=films,
        film_times=times,
        test=test,
        permute_within=within,
        exchange=exchange,
        film_names=averaged.film_names,
        film_durations=averaged.film_durations,
        stim_files=averaged.stim_files,
        t_r=averaged.t_r,
        masker=averaged.masker,
        voxels=averaged.voxels,
        counts=averaged.counts,
        sources=averaged.sources,
    )


def _rows(data, tested, wanted, first_label):
    """BOLD, runs, films and film times of the segments that show tested films (or do not)."""
    films = np.where(data.n_repeats > 0, data.films, -1)  # scrubbed samples show nothing
    is_test = np.zeros(len(films), dtype=bool)
    for run in np.unique(data.runs):
        segment = data.runs == run
        is_test[segment] = np.isin(data.films[segment], tested).any()
    rows = is_test == wanted
    if not (films[rows] >= 0).any():
        raise InputError(
            "--test-films must leave films for training and hold out at least one; got "
            f"{len(tested)} of {len(data.film_names)} films."
        )
    return data.bold[rows], first_label + data.runs[rows], films[rows], data.film_times[rows]


def _choose_test_films(runs, data, names, random_state):
    """Indices of the test films."""
    if names:
        return find_test_films(names, data.film_names)
    group = group_of_film(runs, data.film_names)
    groups = np.unique(group)
    if len(groups) < 2:
        raise InputError(
            "Decoding must hold out a film, so at least two are needed; got one "
            f"({data.film_names[0]})."
        )
    chosen, n_blocks = [], 0
    for number in check_random_state(random_state).permutation(groups):
        if n_blocks >= FEWEST_BLOCKS or len(chosen) == len(groups) // 2:
            break
        chosen.append(number)
        films = np.flatnonzero(group == number)
        n_blocks += sum(int(data.film_durations[f] // _BLOCK_SECONDS) for f in films)
    return np.flatnonzero(np.isin(group, chosen)).tolist()


def _stimuli(samples, extractors, work_dir, n_jobs, progress):
    """Flow, image features and cuts of every sample, and where to find initial frames."""
    times, index = distinct_clips(
        samples.films,
        samples.film_times,
        clip_duration=samples.t_r,
        film_durations=samples.film_durations,
    )
    films = [
        (path, t, samples.t_r) for path, t in zip(samples.stim_files, times, strict=True) if len(t)
    ]
    features = extract_features(
        films, extractors, store_dir=Path(work_dir) / "features", n_jobs=n_jobs, progress=progress
    )
    placed = {name: place_features(per_film, index) for name, per_film in features.items()}
    has_cut = (placed["cuts"][:, 0] > _CUT_THRESHOLD) & (index >= 0)
    video = probe_video(films[0][0])
    frames = Bunch(
        size=(video.height, video.width),
        onset=np.concatenate(times)[np.maximum(index, 0)],
        path=[samples.stim_files[max(film, 0)] for film in samples.films],
    )
    return placed["flow"], placed["image"], has_cut, frames


def _scenes(samples, has_cut):
    """Label of each sample's scene: the stretch of a run between clips with a cut."""
    scenes = np.full(len(samples.runs), -1)
    n_scenes = 0
    for run in np.unique(samples.runs):
        rows = np.flatnonzero((samples.runs == run) & (samples.films >= 0))
        scenes[rows] = n_scenes + np.cumsum(has_cut[rows])
        n_scenes += len(rows) + 1
    scenes[has_cut] = -1
    return scenes


def choose_clips(y, flow, image_only_flow):
    """Choose the clips to show, by rules.

    Parameters
    ----------
    y, flow, image_only_flow : array of shape (n_clips, n_steps, 2, height, width)
        True, decoded, and the image-only control's.

    Returns
    -------
    clips : dict of str -> int
        "best", "median", "worst": by the decoder's end-point error relative to the clip's mean
        speed. "largest gain": the image-only error minus the decoder's is largest (one frame,
        several plausible actions). "camera motion": the dominant motion has the largest share of
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
        "largest gain": int((error(image_only_flow) - ours).argmax()),
        "camera motion": int(fast[camera.argmax()]),
        "static objects": int(moving[true_speed[moving].argmin()]),
    }


def _save_flow(output_dir, entities, samples, y, comparison, info):
    """Decoded, image-only and true flow of the test clips."""
    rows = np.flatnonzero(comparison.counted)
    inner = comparison.counted[comparison.test]
    arrays = {
        "true": y[rows],
        "image_only": comparison.flow["image_only"][inner],
        "film": [samples.film_names[i] for i in samples.films[rows]],
        "film_time": samples.film_times[rows].astype(np.float64),
    }
    save_flow(
        derivative_path(output_dir, "flow", {**entities, "desc": "decode"}),
        comparison.flow["decoder"][inner],
        arrays=arrays,
        metadata={
            "Contents": "flow: decoded; true: of the film; image_only: of the control without "
            "brain; film, film_time (s from the film's onset): which clip",
            **info,
        },
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


def _save_figures(output_dir, entities, samples, y, comparison, decoder, importance, frames):
    def draw(figure, suffix, desc="decode", stat=None, description=""):
        names = {**entities, "desc": desc, "stat": stat, "suffix": suffix}
        save_figure(figure, output_dir, names, description)

    table, gain = comparison.table, comparison.gain
    height, width = y.shape[3:]
    unit = f"{height} x {width} grid px per step"
    interval = "Lines: 95 % block-bootstrap intervals; dotted: image-only control."
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
        description="Error of the image-only control minus the decoder's, with the right BOLD and "
        f"with BOLD permuted in blocks of 40 s. {gain.loc['all', 'note']}",
    )  # fmt: skip
    draw(
        plot_learning_curve(
            decoder.history_, best_epoch=decoder.best_epoch_, control=comparison.image_only.history_
        ),
        "curve",
        description="Dotted: the epoch that was kept.",
    )
    rows = np.flatnonzero(comparison.counted)
    inner = np.flatnonzero(comparison.counted[comparison.test])
    flow = {"truth": y[rows]} | {name: comparison.flow[name][inner] for name in _SHOWN}
    clips = choose_clips(flow["truth"], flow["decoder"], flow["image_only"])
    for stat, names, description in (
        (
            "clips",
            ("best", "median", "worst"),
            "Best, median and worst clip by error over speed, among the faster half.",
        ),
        (
            "brain",
            ("largest gain", "camera motion", "static objects"),
            "With and without brain. Rows by rule: the clip with the largest gain; the clip whose "
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
        entities["space"],
        title="what the decoder uses",
        label="px per standard deviation",
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
    line = "The decoder and its controls on the same test clips. No decoder saw these films. "
    note = gain["note"].iloc[0]
    if note:
        return f"{line}The brain gain has {note}."
    row = gain.iloc[0]
    return (
        f"{line}Brain gain over all cells: {row['gain_px']:.4f} px (95 % {row['low']:.4f} to "
        f"{row['high']:.4f}), p = {row['p']:.3g} over {row['n_permutations']} permutations of "
        f"{row['n_blocks']} blocks (smallest attainable: {row['smallest_p']:.2g})."
    )


def _headline(gain, comparison):
    row = gain.iloc[0]
    table = comparison.table
    summary = {
        "test clips": int(comparison.counted.sum()),
        "end-point error, decoder (grid px per step)": round(
            float(table.loc["decoder", "end_point_error_px"]), 4
        ),
        "end-point error, image-only control": round(
            float(table.loc["image_only", "end_point_error_px"]), 4
        ),
        "brain gain": round(float(row["gain_px"]), 4),
        "brain gain, 95 % interval": f"{row['low']:.4f} to {row['high']:.4f}",
    }
    if row["note"]:
        summary["brain gain, p"] = row["note"]
    else:
        summary["brain gain, p"] = float(row["p"])
    return summary
