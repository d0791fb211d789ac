"""Reanimate: from decoded flow to clips, their controls, a table, players and a report.

Every rendered clip is a file in the work folder, written when it is finished: an interrupted
analysis goes on with the clip at which it stopped.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from tqdm import tqdm

from brainnrds._checks import InputError, check_device
from brainnrds._files import hash_file, read_sealed, write_sealed
from brainnrds.analyses.decode import (
    decode_from_frames,
    decode_participant,
    open_decoding,
    window_of,
)
from brainnrds.analyses.design import announce_design, load_samples, seconds_of_clips
from brainnrds.analyses.options import DecodeOptions, ReanimateOptions, deciding_values
from brainnrds.analyses.record import Record, read_record
from brainnrds.analyses.renderers import make_renderer
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK, permute_clips
from brainnrds.features import ImageEncoder, VideoEncoder
from brainnrds.io import (
    iter_clips,
    load_clips,
    load_flow,
    load_json,
    load_table,
    probe_video,
    to_label,
)
from brainnrds.plotting import plot_clip_strips, side_by_side
from brainnrds.reanimation import InitialFrameDecoder, compare_renderings, score_clips
from brainnrds.reanimation.initial_frame import resize_frame

__all__ = ["reanimate_participant"]

_SPLAT_SHORTER_SIDE = 160  # pixels
_DIFFUSION_SIZE = (320, 576)
_PX = "px of a grid of 32 x 32 per third of a clip"
_SCORES = {
    "ssim": "Structural similarity to the film, mean over the frames after the first",
    "flow_error_px": f"End-point error of the clip's own flow against the film's, in {_PX}, "
    "all cells; lower is better",
    "flow_cosine": "Cosine between the clip's flow and the film's, cells with true motion",
    "flicker": "Mean absolute change between frames; a frozen picture has none, so lower is not "
    "simply better",
    "identification_flow": "Probability that the clip's flow picks out its film clip among ten (of "
    "fewer clips among all); chance .1",
    "clip_cosine": "Cosine of image embeddings, mean over the frames after the first",
    "identification_clip": "The same probability, by image embeddings",
    "video_cosine": "Cosine of video embeddings",
    "identification_video": "The same probability, by video embeddings",
}
_GAINS = {
    "unrelated_bold": "unrelated_bold, the same network with BOLD of other films",
    "permuted": "permuted, another time's BOLD",
    "zero": "zero flow",
}
_CONTROLS = ("unrelated_bold", "image_only", "permuted_bold")
_FLOWS = {
    "decoded": "Of the decoder, from BOLD and the frame that is rendered",
    "unrelated_bold": "Of the same network, trained and tested with BOLD of other films: what the "
    "brain added is what decoded flow gains over it",
    "image_only": "Of the network that was trained without BOLD: what the frame alone gives",
    "permuted": "Of the decoder, from this clip's frame with another time's BOLD",
    "flow of another clip": "Decoded for another time, with that clip's frame",
    "zero": "None",
    "true frame": "Of the decoder, which has seen the film's own frame: an oracle, where other "
    "frames are rendered",
    "true": "The film's own: what the renderer could do at best",
    "stock generator": "None; Stable Video Diffusion as it is",
}
_COLUMNS = {
    "score": {"Description": "What is scored", "Levels": _SCORES},
    "flow": {"Description": "Whose flow the renderer was given", "Levels": _FLOWS},
    "mean": "Mean over test clips",
    "low": "Lower end of the 95 % block-bootstrap interval",
    "high": "Its upper end",
    "gain": "How much better decoded flow scores than this (positive: better; of flicker: less of "
    "it, which is no merit by itself)",
    "gain_low": "Lower end of the gain's 95 % interval, over clips alone: it does not know how "
    "much trainings differ",
    "gain_high": "Its upper end",
    "p": "One-sided, paired, flipping the signs of blocks of clips; over unrelated_bold at least "
    "p_paired of the decoding, which knows how much trainings differ",
}


def reanimate_participant(
    selection, output_dir, subject, options=None, *, work_dir="work", verbose=1
):
    """Reanimate the test clips of one participant, beside every control.

    Decoded flow is what ``--analysis decode`` wrote for the participant from the same data, if its
    options are those given here or none are given here; else that analysis runs first.

    Parameters
    ----------
    selection : Selection or path-like
        Which data; a path is the BIDS folder.
    output_dir : path-like
    subject : str
        Label without "sub-".
    options : ReanimateOptions or None, default=None
        None: the defaults. `initial_frames` are the film's ("stimulus"); decoded from BOLD
        ("decoded": `InitialFrameDecoder`, principal components); or another decoder's
        reconstructions: an HDF5 file as `brainnrds.io.save_clips` writes it, in the order of the
        decoded flow, of whose clips the first frames are taken. Without `size` clips have a shorter
        side of 160 px with the splatting renderer, 320 x 576 with the others.
    work_dir : path-like, default="work"
        Steps that are finished there are not done again.
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    result : Bunch
        With ``report`` (Path), ``table`` (DataFrame), ``told`` and ``note``.

    Raises
    ------
    InputError
        With one line that says what is wrong.
    """
    options = options or ReanimateOptions()
    record = Record.of_participant(
        "reanimate",
        selection,
        output_dir,
        subject,
        work_dir=work_dir,
        n_jobs=options.n_processes,
        verbose=verbose,
    )
    devices = [check_device(d) for d in (options.devices or [options.device])]
    # weights and frames are looked at before hours of decoding
    announce_design(record, options)
    if options.initial_frames not in ("stimulus", "decoded"):
        load_clips(options.initial_frames)
    renderers, stock = _make_renderers(options, devices, seconds_of_clips(record.runs, options))
    licence = getattr(renderers[0], "licence", "unknown")
    record.say(f"renderer {options.renderer}; licence: {licence}")
    flow_path, decode_options = _decode_first(record, options)
    decoded = _read_decoded(flow_path, record.runs, options.max_clips)
    size = options.size or _choose_size(options.renderer, decoded.films[0])
    sources = getattr(getattr(renderers[0], "model", None), "sources", None)
    record.settle(options, flow=hash_file(flow_path), sources=sources, size=size)
    if record.is_finished:
        return _result(record)

    with record.watching():
        true_clips = _cut_films(record.work / "film", decoded, options.n_frames, size)
        frames = _initial_frames(options, decode_options, decoded, true_clips, record.runs, size)
        flows = _flows(record, decode_options, decoded, frames)
        sets = _render_all(record, flows, frames, renderers, stock)
        encoders = _encoders(options, devices[0])
        scores = {
            name: score_clips(clips, true_clips, **encoders)
            for name, clips in tqdm(sets.items(), desc="scoring", disable=not verbose)
        }
        table = compare_renderings(scores, blocks=decoded.blocks, random_state=options.random_state)
        p_paired = _gain_of_decoding(record, "p_paired", float("nan"))
        table = _count_training(table, p_paired)

    record.open(
        {
            "renderer": options.renderer,
            "licence": licence,
            "weights": sources,
            "initial_frames": options.initial_frames,
            "n_frames": options.n_frames,
            "fps": options.n_frames / decoded.clip_duration,
            "size": list(size),
            "n_clips": len(decoded.flow),
            "n_blocks": len(np.unique(decoded.blocks)),
            "block_duration": SHORTEST_BLOCK,
            "image_encoder": options.score_image_encoder,
            "video_encoder": options.score_video_encoder,
        }
    )
    note = _decoding_note(record)
    _save_clips(record, decoded, true_clips, sets, options.n_frames)
    _save_figures(record, decoded, true_clips, sets, scores, options.n_frames)
    record.save_table(
        table,
        columns=_COLUMNS,
        description=f"What did the brain add? Renderer: {options.renderer}. {note}".strip(),
    )
    record.close(
        _headline(table, len(np.unique(decoded.blocks)), note),
        random_state=options.random_state,
        device=devices[0],
    )
    return _result(record)


def _make_renderers(options, devices, duration):
    """One renderer a device, and the stock generator, or none, likewise."""
    make = partial(make_renderer, duration=duration)
    renderers = [make(options.renderer, options, device=device) for device in devices]
    if options.stock_model is None:
        return renderers, []
    unsteered = replace(options, video_model=options.stock_model)
    return renderers, [make("image-to-video", unsteered, device=device) for device in devices]


def _result(record):
    path = record.path("table")
    table, note = load_table(path), load_json(path.with_suffix(".json"))["Description"]
    return Bunch(report=record.report(), table=table, told=[table], note=note)


def _decode_first(record, options):
    """Path of the decoded flow and the options that made it.

    It is decoded unless that was done with these options, or with any where none are asked for.
    """
    chosen = {about.name: getattr(options, about.name) for about in fields(DecodeOptions)}
    chosen = DecodeOptions(**chosen)
    done = read_record(record.path("provenance", desc="decode"), record.output_dir)
    is_usable = done is not None and done.get("Data") == record.data_key
    if is_usable and deciding_values(chosen) == deciding_values(DecodeOptions()):
        chosen = DecodeOptions(**{**done["Options"], "device": options.device})
    else:
        decode_participant(
            record.selection,
            record.output_dir,
            record.subject,
            chosen,
            work_dir=record.work_dir,
            verbose=record.verbose,
        )
    return record.path("flow", desc="decode"), chosen


def _flows(record, decode_options, decoded, frames):
    """Flow of the decoder and its controls, from the frames that are rendered."""
    options = record.options
    flows = {"decoder": decoded.flow, **decoded.controls}
    if options.initial_frames != "stimulus":
        opened = open_decoding(
            record.selection,
            record.output_dir,
            record.subject,
            decode_options,
            work_dir=record.work_dir,
            verbose=record.verbose,
        )
        flows = decode_from_frames(*opened, frames)
    order = permute_clips(decoded.blocks, random_state=options.random_state)
    chosen = {
        "decoded": flows["decoder"],
        "unrelated_bold": flows.get("unrelated_bold"),
        "image_only": flows.get("image_only"),
        "permuted": flows.get("permuted_bold"),
        "flow of another clip": flows["decoder"][order],
        "zero": np.zeros_like(decoded.flow),
        "true frame": decoded.flow if options.initial_frames != "stimulus" else None,
        "true": decoded.true,
    }
    return {name: flow for name, flow in chosen.items() if flow is not None}


def _gain_of_decoding(record, column, otherwise):
    """What the decoding says of its brain gain over all cells."""
    path = record.path("table", feat="gain", desc="decode")
    value = load_table(path)[column].iloc[0] if path.exists() else otherwise
    return otherwise if pd.isna(value) else value


def _count_training(table, p_paired):
    """Let no p over the network with other BOLD be below that of the decoding.

    One training of each is rendered, and of two one is better in all clips, whatever it knows.
    """
    table = table.copy()
    rows = table["flow"] == "unrelated_bold"
    table.loc[rows, "p"] = np.maximum(table.loc[rows, "p"], p_paired)
    return table


def _decoding_note(record):
    """Why the decoding claims nothing, or nothing to say."""
    note = _gain_of_decoding(record, "note", "")
    return f"The decoding claims no brain gain, so nor do the clips: {note}." if note else ""


def _render_all(record, flows, frames, renderers, stock):
    """Clips of every source of flow, by its name."""
    seed = record.options.random_state

    def render(name, flow, by):
        folder = record.work / to_label(name)
        return _render(folder, by, frames, flow, seed, name, record.verbose)

    sets = {name: render(name, flow, renderers) for name, flow in flows.items()}
    if stock:
        sets["stock generator"] = render("stock generator", flows["zero"], stock)
    return sets


def _read_decoded(path, runs, max_clips):
    """Decoded flow of the test clips, where each is in which film, and its block."""
    flow, arrays, metadata = load_flow(path)
    if "block" not in arrays or "clip_duration" not in metadata:
        raise InputError(
            f"{path.name} does not say how long its clips are and which form a block, as an "
            "earlier version wrote it: decode into a new output folder."
        )
    clip_duration = float(metadata["clip_duration"])
    stim_files = {p.film: p.stim_file for run in runs for p in run.films}
    keep = slice(None, max_clips)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in arrays["film"]]
    test_films, names = sorted(set(names)), names[keep]
    missing = sorted(set(names) - set(stim_files))
    if missing:
        raise InputError(f"{path.name} holds flow of films that the data lack: {missing}.")
    times = np.asarray(arrays["film_time"])[keep]
    blocks = np.asarray(arrays["block"])[keep]
    if len(np.unique(blocks)) < 2:
        raise InputError(
            f"The test clips must fill at least two blocks of {SHORTEST_BLOCK:g} s; "
            f"got {len(times)} clips in one."
        )
    return Bunch(
        flow=flow[keep],
        true=arrays["true"][keep],
        controls={name: arrays[name][keep] for name in _CONTROLS if name in arrays},
        films=[stim_files[name] for name in names],
        names=names,
        test_films=test_films,
        times=times,
        blocks=blocks,
        clip_duration=clip_duration,
    )


def _choose_size(renderer, film):
    if renderer != "splat":
        return _DIFFUSION_SIZE
    video = probe_video(film)
    scale = min(1.0, _SPLAT_SHORTER_SIDE / min(video.height, video.width))
    return tuple(max(2, round(side * scale / 2) * 2) for side in (video.height, video.width))


class _StoredClips:
    """Clips in a folder, one sealed file each, read when they are asked for."""

    def __init__(self, folder, n_clips):
        self.paths = [folder / f"clip-{i:05d}.npy" for i in range(n_clips)]

    def __len__(self):
        return len(self.paths)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i):
        content = read_sealed(self.paths[i])
        if content is None:
            raise InputError(f"{self.paths[i]} is damaged or gone: run again, it is made anew.")
        return np.load(BytesIO(content), allow_pickle=False).astype(np.float32) / 255

    def store(self, i, clip):
        content = BytesIO()
        np.save(content, np.round(clip * 255).astype(np.uint8), allow_pickle=False)
        write_sealed(self.paths[i], content.getvalue())

    def missing(self):
        return [i for i, path in enumerate(self.paths) if read_sealed(path) is None]


def _cut_films(folder, decoded, n_frames, size):
    """The film's own clips, as they were shown."""
    stored = _StoredClips(folder, len(decoded.times))
    missing = stored.missing()
    for film in sorted({decoded.films[i] for i in missing}):
        rows = np.array([i for i in missing if decoded.films[i] == film])
        rows = rows[np.argsort(decoded.times[rows], kind="stable")]
        last = max(0.0, probe_video(film).duration - decoded.clip_duration)
        times = np.clip(decoded.times[rows], 0, last)
        fps = n_frames / decoded.clip_duration
        clips = iter_clips(film, times, decoded.clip_duration, fps=fps, size=size)
        for row, clip in zip(rows, clips, strict=True):
            stored.store(row, clip)
    return stored


def _initial_frames(options, decode_options, decoded, true_clips, runs, size):
    """Initial frames of the test clips, (n_clips, 3, height, width)."""
    source = options.initial_frames
    if source == "stimulus":
        return np.stack([clip[0] for clip in true_clips])
    if source == "decoded":
        frames = _decode_frames(options, decode_options, decoded, runs)
        return np.stack([resize_frame(frame, size) for frame in frames])
    clips, _, _ = load_clips(source)
    if len(clips) < len(decoded.times):
        raise InputError(
            f"{source} must hold a reconstruction for each of {len(decoded.times)} test clips; "
            f"got {len(clips)}."
        )
    first = np.asarray(clips[: len(decoded.times), 0], dtype=np.float32)
    return np.stack([resize_frame(frame, size) for frame in first])


def _decode_frames(options, decode_options, decoded, runs):
    """Initial frames from BOLD, learnt from films that no test clip belongs to; as small as they
    are learnt.
    """
    data = load_samples(runs, options)
    if data.design == "trials":
        data = replace(data, runs=data.presentations)
    test = data.shows(*decoded.test_films)
    train, test = data[~test], data[test]
    window = window_of(decode_options, data)
    del data
    decoder = InitialFrameDecoder(delays=window, random_state=0)
    shown = np.where(train.on_screen >= 0, train.films, -1)  # at rest there is no frame
    frames = np.zeros((len(shown), 3, *decoder.size), dtype=np.float32)
    for film in np.unique(shown[shown >= 0]):
        path = train.stim_files[film]
        rows = np.flatnonzero(shown == film)
        rows = rows[np.argsort(train.film_times[rows], kind="stable")]
        video = probe_video(path)
        times = np.clip(train.film_times[rows], 0, video.duration - 1 / video.fps)
        clips = iter_clips(path, times, 1 / video.fps, fps=video.fps, size=decoder.size)
        for row, clip in zip(rows, clips, strict=True):
            frames[row] = clip[0]
    decoder.fit(train.bold, frames, runs=train.runs, films=shown)
    predicted = decoder.predict(test.bold, runs=test.runs)
    positions = {
        (test.film_names[film], round(float(t), 2)): row
        for row, (film, t) in enumerate(zip(test.films, test.film_times, strict=True))
        if film >= 0
    }
    try:
        rows = [
            positions[name, round(float(t), 2)]
            for name, t in zip(decoded.names, decoded.times, strict=True)
        ]
    except KeyError as error:
        raise InputError(f"The decoded flow holds a clip that the BOLD lacks: {error}.") from error
    return predicted[rows]


def _render(folder, renderers, frames, flow, random_state, name, verbose):
    """Render what is not finished yet, batch by batch, on all devices."""
    stored = _StoredClips(folder, len(flow))
    missing = stored.missing()
    batch = getattr(renderers[0], "batch_size", None) or 8
    batches = [missing[i : i + batch] for i in range(0, len(missing), batch)]
    free = SimpleQueue()
    for renderer in renderers:
        free.put(renderer)

    def work(rows):
        renderer = free.get()
        try:
            options = {}
            if getattr(renderer, "stochastic", False):
                # one noise per clip, the same for every source of flow: what differs is the flow
                options["seeds"] = np.asarray(rows) + random_state
            clips = renderer(frames[rows], flow[rows], **options)
        finally:
            free.put(renderer)
        for row, clip in zip(rows, clips, strict=True):
            stored.store(row, clip)
        return len(rows)

    bar = tqdm(
        total=len(flow),
        initial=len(flow) - len(missing),
        desc=name,
        unit="clip",
        disable=not verbose,
    )
    with bar, ThreadPoolExecutor(len(renderers)) as pool:
        for n_done in pool.map(work, batches):
            bar.update(n_done)
    return stored


def _encoders(options, device):
    """Embeddings that clips are scored by, as keywords of `score_clips`."""
    encoders = {}
    try:
        if options.score_image_encoder is not None:
            encoder = ImageEncoder(options.score_image_encoder, layers="embedding", device=device)
            encoders["frame_encoder"] = encoder.fit().transform
        if options.score_video_encoder is not None:
            encoder = VideoEncoder(options.score_video_encoder, device=device)
            encoders["video_encoder"] = encoder.fit().transform
    except OSError as error:
        raise InputError(f"--score-image-encoder or --score-video-encoder: {error}") from error
    return encoders


def _rows_of(true_clips, sets, i):
    return {"film": true_clips[i], **{name: clips[i] for name, clips in sets.items()}}


def _save_clips(record, decoded, true_clips, sets, n_frames):
    """Film | ours | controls of every test clip, as video."""
    fps = n_frames / decoded.clip_duration
    for i, (name, t) in enumerate(zip(decoded.names, decoded.times, strict=True)):
        path = record.path("clip", film=to_label(Path(name).stem), clip=f"{i:05d}")
        metadata = {"Film": name, "FilmTime": float(t), **record.parameters}
        record.save_clip(
            path, side_by_side(_rows_of(true_clips, sets, i)), fps=fps, metadata=metadata
        )


def _save_figures(record, decoded, true_clips, sets, scores, n_frames):
    """Best, median and worst clip by what decoded flow gained over none."""
    gain = scores["zero"].flow_error_px - scores["decoded"].flow_error_px
    ranked = np.argsort(np.nan_to_num(gain, nan=-np.inf), kind="stable")
    chosen = {"Best": ranked[-1], "Median": ranked[len(ranked) // 2], "Worst": ranked[0]}
    fps = n_frames / decoded.clip_duration
    for label, i in chosen.items():
        rows = _rows_of(true_clips, sets, i)
        described = (
            f"{label} test clip of {len(gain)} by how much closer decoded flow brings the clip's "
            f"motion to the film's than no flow: {gain[i]:+.3f} {_PX}. "
            f"{decoded.names[i]} at {decoded.times[i]:.1f} s."
        )
        for extension in (".mp4", ".gif"):
            path = record.path(
                "figure", suffix="clip", desc=f"reanimate{label}", extension=extension
            )
            clip = side_by_side(rows, n_columns=3)
            record.save_clip(path, clip, fps=fps, metadata={"Description": described})
        figure = plot_clip_strips(rows, fps=fps)
        record.save_figure(
            figure, "strip", description=described, dpi=110, desc=f"reanimate{label}"
        )


def _headline(table, n_blocks, note):
    def p(source):
        value = float(flow.loc[source, "p"])
        # compare_renderings leaves it out where the signs of few blocks cannot tell
        if np.isfinite(value):
            return value
        if n_blocks >= FEWEST_BLOCKS:
            return "none: the decoding has none that counts its trainings"
        return f"none: {n_blocks} blocks of clips are too few, a test needs {FEWEST_BLOCKS}"

    flow = table[table.score == "flow_error_px"].set_index("flow")
    ssim = table[table.score == "ssim"].set_index("flow")
    summary = {
        f"Flow error of clips, {source} ({_PX})": float(flow.loc[source, "mean"])
        for source in ("decoded", *_GAINS)
        if source in flow.index
    }
    for source, words in _GAINS.items():
        if source in flow.index:
            summary[f"Gain over {words} ({_PX})"] = float(flow.loc[source, "gain"])
            summary[f"p of the gain over {words}"] = p(source)
    for source in ("decoded", *_GAINS):
        if source in ssim.index:
            summary[f"SSIM, {source}"] = float(ssim.loc[source, "mean"])
    return summary | ({"decoding": note} if note else {})
