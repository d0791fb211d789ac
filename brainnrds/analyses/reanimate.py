"""Reanimate: from decoded flow to clips, their controls, a table, players and a report.

Every rendered clip is a file in the work folder, written when it is finished: an interrupted
analysis goes on with the clip at which it stopped.
"""

import hashlib
import json
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from sklearn.utils import Bunch
from tqdm import tqdm

import brainnrds
from brainnrds._checks import check_device
from brainnrds.analyses.decode import decode_participant
from brainnrds.analyses.design import fingerprint
from brainnrds.analyses.provenance import run_record
from brainnrds.analyses.renderers import make_renderer
from brainnrds.blocks import FEWEST_BLOCKS, permute_clips
from brainnrds.io import (
    InputError,
    atomic_path,
    check_output_dir,
    derivative_path,
    find_runs,
    iter_clips,
    load_clips,
    load_flow,
    load_json,
    load_runs,
    load_table,
    probe_video,
    save_json,
    save_table,
    to_label,
    write_clip,
    write_dataset_description,
)
from brainnrds.io.derivatives import remove_results
from brainnrds.plotting import plot_clip_strips, side_by_side
from brainnrds.reanimation import InitialFrameDecoder, compare_renderings, score_clips
from brainnrds.reporting import write_report

__all__ = ["reanimate_participant"]

_BLOCK_SECONDS = 40.0
_SPLAT_SHORTER_SIDE = 160  # pixels
_DIFFUSION_SIZE = (320, 576)
_SCORES = {
    "ssim": "Structural similarity to the film, mean over the frames after the first",
    "flow_error_px": "End-point error of the clip's own flow against the film's, in pixels of a "
    "grid of 32 x 32 per third of a clip, all cells; lower is better",
    "flow_cosine": "Cosine between the clip's flow and the film's, cells with true motion",
    "flicker": "Mean absolute change between frames; a frozen picture has none, so lower is not "
    "simply better",
    "identification_flow": "Probability that the clip's flow picks out its film clip",
    "clip_cosine": "Cosine of image embeddings, mean over the frames after the first",
    "identification_clip": "The same probability, by image embeddings",
    "video_cosine": "Cosine of video embeddings",
    "identification_video": "The same probability, by video embeddings",
}


def reanimate_participant(
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
    confounds=("motion", "high_pass", "wm_csf"),
    mask=None,
    repeats="average",
    test_films=None,
    delays_seconds=None,
    initial_frames="stimulus",
    renderer="splat",
    video_model=None,
    checkpoint=None,
    stock_model=None,
    n_frames=14,
    size=None,
    num_steps=None,
    dtype="float32",
    compile=False,
    offload=False,
    batch_size=None,
    image_encoder=None,
    video_encoder=None,
    max_clips=None,
    devices=None,
    device="auto",
    n_jobs=1,
    random_state=0,
    work_dir="work",
    progress=True,
):
    """Reanimate the test clips of one participant, beside every control.

    Decoded flow is what ``--analysis decode`` wrote for the participant; where there is none, that
    analysis runs first.

    Parameters
    ----------
    bids_dir, output_dir : path-like
    subject : str
        Label without "sub-".
    derivatives, session, task, space, bids_filter, database_path
        Which runs: see :func:`brainnrds.io.find_runs`.
    confounds, mask, repeats, test_films, delays_seconds
        See :func:`brainnrds.analyses.decode.decode_participant`.
    initial_frames : {"stimulus", "decoded"} or path-like, default="stimulus"
        The film's frames; frames decoded from BOLD (`InitialFrameDecoder`, principal components);
        or another decoder's reconstructions: an HDF5 file as `brainnrds.io.save_clips` writes
        it, in the order of the decoded flow, of whose clips the first frames are taken.
    renderer : str, default="splat"
        A key of `brainnrds.analyses.renderers.RENDERERS`.
    video_model, checkpoint : path, hub id or None
        Stable Video Diffusion, and the weights that "dragnuwa" and "motionpro" need.
    stock_model : path, hub id or None, default=None
        Stock Stable Video Diffusion for the control without any flow.
    n_frames : int, default=14
    size : (height, width) or None, default=None
        Of frames and clips, in pixels. None: a shorter side of 160 with the splatting renderer,
        320 x 576 with the others.
    num_steps, dtype, compile, offload, batch_size
        See `brainnrds.analyses.renderers.make_renderer`.
    image_encoder, video_encoder : str or None, default=None
        Names of :func:`brainnrds.features.list_encoders`, hub ids or folders, for the cosines of
        image and video embeddings.
    max_clips : int or None, default=None
        Render only the first so many test clips.
    devices : sequence of str or None, default=None
        Share the clips between these; None: `device` alone.
    device : str, default="auto"
    n_jobs : int, default=1
    random_state : int, default=0
    work_dir : path-like, default="work"
    progress : bool, default=True

    Returns
    -------
    result : Bunch
        With ``report`` (Path) and ``table`` (DataFrame).

    Raises
    ------
    InputError
        With one line that says what is wrong.
    """
    start = time.perf_counter()
    check_output_dir(output_dir, bids_dir, derivatives=derivatives)
    devices = [check_device(d) for d in (devices or [device])]
    selection = {
        "derivatives": derivatives,
        "session": session,
        "task": task,
        "space": space,
        "bids_filter": bids_filter,
        "database_path": database_path,
    }
    runs = find_runs(bids_dir, subject=subject, **selection)
    tasks = {run.task for run in runs}
    entities = {
        "subject": subject,
        "task": tasks.pop() if len(tasks) == 1 else None,
        "space": runs[0].space,
    }
    rendering = {
        "video_model": video_model,
        "checkpoint": checkpoint,
        "n_frames": n_frames,
        "num_steps": num_steps,
        "dtype": dtype,
        "compile": compile,
        "offload": offload,
        "batch_size": batch_size,
    }
    # weights are checked before hours of decoding
    made = {"duration": runs[0].t_r}
    renderers = [make_renderer(renderer, Bunch(**rendering), device=d, **made) for d in devices]
    unsteered = Bunch(**{**rendering, "video_model": stock_model})
    stock = [
        make_renderer("image-to-video", unsteered, device=d, **made)
        for d in (devices if stock_model is not None else ())
    ]

    licence = getattr(renderers[0], "licence", "unknown")
    if progress:
        tqdm.write(f"renderer {renderer}; licence: {licence}")

    flow_path = derivative_path(output_dir, "flow", {**entities, "desc": "decode"})
    if flow_path.exists():
        warnings.warn(
            f"decoded flow is read from {flow_path.name}, whatever options made it; remove the "
            "file to decode anew.",
            stacklevel=2,
        )
    else:
        decode_participant(
            bids_dir,
            output_dir,
            subject,
            **selection,
            confounds=confounds,
            mask=mask,
            repeats=repeats,
            test_films=test_films,
            delays_seconds=delays_seconds,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
            work_dir=work_dir,
            progress=progress,
        )
    decoded = _read_decoded(flow_path, runs, max_clips)
    if size is None:
        size = _choose_size(renderer, decoded.films[0])
    size = tuple(int(side) for side in size)
    settings = {
        "subject": subject,
        "files": [fingerprint(run) for run in runs],
        "flow": hashlib.sha256(flow_path.read_bytes()).hexdigest(),
        "n_clips": len(decoded.flow),
        "initial_frames": str(initial_frames),
        "confounds": list(confounds),
        "delays_seconds": delays_seconds,
        "renderer": renderer,
        "rendering": {k: v if v is None else str(v) for k, v in rendering.items()},
        "stock_model": None if stock_model is None else str(stock_model),
        "sources": getattr(getattr(renderers[0], "model", None), "sources", None),
        "size": size,
        "encoders": [image_encoder, video_encoder],
        "random_state": random_state,
        "version": brainnrds.__version__,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    record_path = derivative_path(output_dir, "provenance", {**entities, "desc": "reanimate"})
    table_path = derivative_path(output_dir, "table", {**entities, "desc": "reanimate"})
    if record_path.exists() and load_json(record_path).get("Key") == key:
        return Bunch(report=write_report(output_dir, subject), table=load_table(table_path))

    work = Path(work_dir) / f"sub-{subject}" / f"reanimate-{key[:16]}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        true_clips = _cut_films(work / "film", decoded, n_frames, size)
        frames = _initial_frames(initial_frames, decoded, true_clips, runs, confounds, mask, size)
        order = permute_clips(decoded.blocks, random_state=random_state)
        flows = {
            "decoded": decoded.flow,
            "permuted": decoded.flow[order],
            "zero": np.zeros_like(decoded.flow),
            "image-only": decoded.image_only,
            "true": decoded.true,
        }
        sets = {
            name: _render(
                work / to_label(name), renderers, frames, flow, random_state, name, progress
            )
            for name, flow in flows.items()
            if flow is not None
        }
        if stock:
            sets["stock generator"] = _render(
                work / "stock",
                stock,
                frames,
                flows["zero"],
                random_state,
                "stock generator",
                progress,
            )
        encoders = _encoders(image_encoder, video_encoder, devices[0], n_frames / decoded.t_r)
        scores = {
            name: score_clips(clips, true_clips, **encoders)
            for name, clips in tqdm(sets.items(), desc="scoring", disable=not progress)
        }
        table = compare_renderings(scores, blocks=decoded.blocks, random_state=random_state)
    for message in caught:
        warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)

    info = {
        "renderer": renderer,
        "licence": licence,
        "weights": settings["sources"],
        "initial_frames": str(initial_frames),
        "n_frames": n_frames,
        "fps": n_frames / decoded.t_r,
        "size": list(size),
        "n_clips": len(decoded.flow),
        "n_blocks": len(np.unique(decoded.blocks)),
        "block_seconds": _BLOCK_SECONDS,
        "image_encoder": image_encoder,
        "video_encoder": video_encoder,
    }
    write_dataset_description(output_dir, bids_dir, derivatives=derivatives)
    remove_results(output_dir, entities, "reanimate")
    _save_clips(output_dir, entities, decoded, true_clips, sets, n_frames, info)
    _save_figures(output_dir, entities, decoded, true_clips, sets, scores, n_frames)
    save_table(
        table_path,
        table,
        columns={
            "score": {"Description": "What is scored", "Levels": _SCORES},
            "flow": "Whose flow the renderer was given; all but 'decoded' are controls",
            "mean": "Mean over test clips",
            "low": "Lower end of the 95 % block-bootstrap interval",
            "high": "Its upper end",
            "gain": "How much better decoded flow scores than this (positive: better)",
            "gain_low": "Lower end of the gain's 95 % interval",
            "gain_high": "Its upper end",
            "p": "One-sided, paired, flipping the signs of blocks of clips",
        },
        metadata={"Description": f"What did the brain add? Renderer: {renderer}.", **info},
    )
    record = run_record(
        "reanimate",
        parameters=info,
        summary=_headline(table, info["n_blocks"]),
        seeds={"random_state": random_state},
        device=devices[0],
        seconds=time.perf_counter() - start,
        warned=Counter(str(w.message) for w in caught if "brainnrds" in Path(w.filename).parts),
    )
    # written last: a record says that everything before it is there
    save_json(record_path, {**record, "Key": key})
    return Bunch(report=write_report(output_dir, subject), table=table)


def _read_decoded(path, runs, max_clips):
    """Decoded flow of the test clips, where each is in which film, and its block."""
    flow, arrays, metadata = load_flow(path)
    t_r = float(metadata["t_r"])
    stim_files = {p.film: p.stim_file for run in runs for p in run.films}
    keep = slice(None, max_clips)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in arrays["film"]]
    names = names[keep]
    missing = sorted(set(names) - set(stim_files))
    if missing:
        raise InputError(f"{path.name} holds flow of films that the data lack: {missing}.")
    times = np.asarray(arrays["film_time"])[keep]
    # blocks never join two films
    film = np.unique(names, return_inverse=True)[1]
    block = (times // _BLOCK_SECONDS).astype(int)
    blocks = np.unique(np.stack([film, block], axis=1), axis=0, return_inverse=True)[1].ravel()
    if len(np.unique(blocks)) < 2:
        raise InputError(
            f"The test clips must fill at least two blocks of {_BLOCK_SECONDS:g} s; "
            f"got {len(times)} clips in one."
        )
    return Bunch(
        flow=flow[keep],
        true=arrays["true"][keep],
        image_only=arrays["image_only"][keep] if "image_only" in arrays else None,
        films=[stim_files[name] for name in names],
        names=names,
        times=times,
        blocks=blocks,
        t_r=t_r,
    )


def _choose_size(renderer, film):
    if renderer != "splat":
        return _DIFFUSION_SIZE
    video = probe_video(film)
    scale = min(1.0, _SPLAT_SHORTER_SIDE / min(video.height, video.width))
    return tuple(max(2, round(side * scale / 2) * 2) for side in (video.height, video.width))


class _StoredClips:
    """Clips in a folder, one file each, read when they are asked for."""

    def __init__(self, folder, n_clips):
        self.paths = [folder / f"clip-{i:05d}.npy" for i in range(n_clips)]

    def __len__(self):
        return len(self.paths)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i):
        return np.load(self.paths[i]).astype(np.float32) / 255

    def store(self, i, clip):
        with atomic_path(self.paths[i]) as temporary, open(temporary, "wb") as file:
            np.save(file, np.round(clip * 255).astype(np.uint8))

    def missing(self):
        return [i for i, path in enumerate(self.paths) if not path.exists()]


def _cut_films(folder, decoded, n_frames, size):
    """The film's own clips, as they were shown."""
    stored = _StoredClips(folder, len(decoded.times))
    missing = stored.missing()
    for film in sorted({decoded.films[i] for i in missing}):
        rows = np.array([i for i in missing if decoded.films[i] == film])
        rows = rows[np.argsort(decoded.times[rows], kind="stable")]
        last = max(0.0, probe_video(film).duration - decoded.t_r)
        times = np.clip(decoded.times[rows], 0, last)
        clips = iter_clips(film, times, decoded.t_r, fps=n_frames / decoded.t_r, size=size)
        for row, clip in zip(rows, clips, strict=True):
            stored.store(row, clip)
    return stored


def _initial_frames(source, decoded, true_clips, runs, confounds, mask, size):
    """Initial frames of the test clips, (n_clips, 3, height, width)."""
    if source == "stimulus":
        return np.stack([clip[0] for clip in true_clips])
    if source == "decoded":
        return _decode_frames(decoded, runs, confounds, mask, size)
    clips, _, _ = load_clips(source)
    if len(clips) < len(decoded.times):
        raise InputError(
            f"{source} must hold a reconstruction for each of {len(decoded.times)} test clips; "
            f"got {len(clips)}."
        )
    first = np.asarray(clips[: len(decoded.times), 0], dtype=np.float32)
    return np.stack([_fit_frame(frame, size) for frame in first])


def _fit_frame(frame, size):
    import cv2

    image = cv2.resize(
        np.ascontiguousarray(frame.transpose(1, 2, 0)), size[::-1], interpolation=cv2.INTER_AREA
    )
    return image.transpose(2, 0, 1).clip(0, 1)


def _decode_frames(decoded, runs, confounds, mask, size):
    """Initial frames from BOLD, learnt from films that no test clip belongs to."""
    data = load_runs(runs, confounds=tuple(confounds), mask=mask, repeats="average")
    tested = [i for i, name in enumerate(data.film_names) if name in set(decoded.names)]
    shown = np.where(data.n_repeats > 0, data.films, -1)
    test = np.isin(data.films, tested) | np.isin(
        data.runs, np.unique(data.runs[np.isin(data.films, tested)])
    )
    train = np.flatnonzero(~test)
    frames = np.zeros((len(train), 3, *size), dtype=np.float32)
    for film in np.unique(shown[train][shown[train] >= 0]):
        path = data.stim_files[film]
        rows = np.flatnonzero(shown[train] == film)
        rows = rows[np.argsort(data.film_times[train][rows], kind="stable")]
        video = probe_video(path)
        times = np.clip(data.film_times[train][rows], 0, video.duration - 1 / video.fps)
        clips = iter_clips(path, times, 1 / video.fps, fps=video.fps, size=size)
        for row, clip in zip(rows, clips, strict=True):
            frames[row] = clip[0]
    decoder = InitialFrameDecoder(random_state=0).fit(
        data.bold[train], frames, runs=data.runs[train], films=shown[train]
    )
    predicted = decoder.predict(data.bold[test], runs=data.runs[test])
    positions = {
        (data.film_names[film], round(float(t), 2)): row
        for row, (film, t) in enumerate(zip(data.films[test], data.film_times[test], strict=True))
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


def _render(folder, renderers, frames, flow, random_state, name, progress):
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
        disable=not progress,
    )
    with bar, ThreadPoolExecutor(len(renderers)) as pool:
        for n_done in pool.map(work, batches):
            bar.update(n_done)
    return stored


def _encoders(image_encoder, video_encoder, device, fps):
    encoders = {}
    try:
        if image_encoder is not None:
            from brainnrds.features import ImageEncoder

            encoder = ImageEncoder(image_encoder, layers="embedding", device=device).fit()
            encoders["frame_encoder"] = encoder.transform
        if video_encoder is not None:
            from brainnrds.features import VideoEncoder

            encoders["video_encoder"] = VideoEncoder(video_encoder, device=device).fit().transform
    except (ValueError, OSError) as error:
        raise InputError(f"--image-encoder or --video-encoder: {error}") from error
    return encoders


def _rows_of(true_clips, sets, i):
    return {"film": true_clips[i], **{name: clips[i] for name, clips in sets.items()}}


def _save_clips(output_dir, entities, decoded, true_clips, sets, n_frames, info):
    """Film | ours | controls of every test clip, as video."""
    fps = n_frames / decoded.t_r
    for i, (name, t) in enumerate(zip(decoded.names, decoded.times, strict=True)):
        path = derivative_path(
            output_dir,
            "clip",
            {
                **entities,
                "film": to_label(Path(name).stem),
                "clip": f"{i:05d}",
                "desc": "reanimate",
            },
        )
        write_clip(path, side_by_side(_rows_of(true_clips, sets, i)), fps=fps)
        save_json(path.with_suffix(".json"), {"Film": name, "FilmTime": float(t), **info})


def _save_figures(output_dir, entities, decoded, true_clips, sets, scores, n_frames):
    """Best, median and worst clip by what decoded flow gained over none."""
    import matplotlib.pyplot as plt

    gain = scores["zero"].flow_error_px - scores["decoded"].flow_error_px
    ranked = np.argsort(np.nan_to_num(gain, nan=-np.inf), kind="stable")
    chosen = {"Best": ranked[-1], "Median": ranked[len(ranked) // 2], "Worst": ranked[0]}
    fps = n_frames / decoded.t_r
    for label, i in chosen.items():
        rows = _rows_of(true_clips, sets, i)
        described = {
            "Description": f"{label} test clip of {len(gain)} by how much closer decoded flow "
            f"brings the clip's motion to the film's than no flow: {gain[i]:+.3f} px of a grid of "
            f"32 x 32 per step. {decoded.names[i]} at {decoded.times[i]:.1f} s."
        }
        name = {**entities, "desc": f"reanimate{label}"}
        for suffix, extension in (("clip", ".mp4"), ("clip", ".gif"), ("strip", ".png")):
            path = derivative_path(
                output_dir, "figure", {**name, "suffix": suffix, "extension": extension}
            )
            if suffix == "clip":
                write_clip(path, side_by_side(rows, n_columns=3), fps=fps)
            else:
                figure = plot_clip_strips(rows, fps=fps)
                with atomic_path(path) as temporary:
                    figure.savefig(temporary, dpi=110)
                plt.close(figure)
            save_json(path.with_suffix(".json"), described)


def _headline(table, n_blocks):
    def p(source):
        value = float(flow.loc[source, "p"])
        # compare_renderings leaves it out where the signs of few blocks cannot tell
        return (
            value
            if np.isfinite(value)
            else (f"none: {n_blocks} blocks of clips are too few, a test needs {FEWEST_BLOCKS}")
        )

    flow = table[table.score == "flow_error_px"].set_index("flow")
    ssim = table[table.score == "ssim"].set_index("flow")
    return {
        "SSIM, decoded flow": float(ssim.loc["decoded", "mean"]),
        "SSIM, zero flow": float(ssim.loc["zero", "mean"]),
        "Flow error of clips, decoded (px)": float(flow.loc["decoded", "mean"]),
        "Gain over permuted flow (px)": float(flow.loc["permuted", "gain"]),
        "p against permuted flow": p("permuted"),
        "Gain over zero flow (px)": float(flow.loc["zero", "gain"]),
        "p against zero flow": p("zero"),
    }
