"""Does the App find motion in the BOLD of the sample data, and nothing in that of other runs?

`make_movie_dataset` writes a BIDS data set with planted responses to motion; the App's decode and
reanimate analyses run on it as a user would run them, with their default settings:

* planted: the decoder beats every control (brain gain with p < .05). Clips rendered with decoded
  flow beat those of permuted flow in flow error and in SSIM, and those of zero flow in flow error
  (p < .05). In SSIM zero flow is right where nothing moves, and it blurs nothing: it must be beaten
  in the faster half of the clips, by the motion that was planted.
* null: the films have changed places, so that each goes with the BOLD of another run. Whatever
  the decoder makes of it must gain nothing: no brain gain, no better clips than by permuted flow.

    python tests/prove/prove_sample.py --output doc/proofs/sample.json [--small] [--n-seeds N]
        [--device cuda]

What is finished is kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import os
import platform
import shutil
from pathlib import Path

import numpy as np
import torch

import brainnrds
from brainnrds.analyses.decode import decode_participant
from brainnrds.analyses.options import DecodeOptions, ReanimateOptions
from brainnrds.analyses.reanimate import reanimate_participant
from brainnrds.datasets import make_movie_dataset
from brainnrds.datasets.footage import CLIP_DURATION
from brainnrds.io import load_flow, load_json, load_table, read_clip, save_json
from brainnrds.reanimation import Reanimator, SplatRenderer, compare_renderings, score_clips

# repeats count once, and a film of 120 s holds two whole blocks: twelve are what a p-value needs
DATA = {"n_test_films": 6}
SIZES = {
    "default": {"data": DATA, "decode": {}, "reanimate": {}},
    # minutes on one core, with the same data
    "small": {
        "data": DATA,
        "decode": {"grid": (12, 12), "n_steps": 1, "n_epochs": 30},
        "reanimate": {"n_frames": 8, "size": (72, 96)},
    },
    # too few blocks for a p-value: only says that everything runs
    "quick": {
        "data": {
            "n_runs": 3,
            "n_films_per_run": 1,
            "n_repeats": 2,
            "n_test_repeats": 2,
            "film_duration": 80,
        },
        "decode": {"grid": (8, 8), "n_steps": 1, "n_codes": 8, "n_epochs": 2},
        "reanimate": {"n_frames": 4, "size": (48, 64)},
    },
}
CASES = ("planted", "null")
BLOCK_SECONDS = 40.0
SHOWN_SCORES = ("flow_error_px", "ssim")
BEATEN = ("permuted", "zero")


def exchange_films(bids_dir, null_dir):
    """Copy a data set in which every film has the name, and so the BOLD, of one of another run."""
    shutil.rmtree(null_dir, ignore_errors=True)
    shutil.copytree(bids_dir, null_dir, copy_function=os.link)
    films = sorted((bids_dir / "stimuli").glob("*.mp4"))
    settings = json.loads((bids_dir / "sourcedata" / "truth" / "settings.json").read_text())
    n_per_run = max(settings["n_films_per_run"], settings["n_test_films"])
    for film, other in zip(films, films[n_per_run:] + films[:n_per_run], strict=True):
        path = null_dir / "stimuli" / film.name
        path.unlink()
        os.link(other, path)


def analyse(case, seed, folder, sizes, device="cpu"):
    """Decode and reanimate one data set; return both tables."""
    dataset = make_movie_dataset(folder / "planted" / "bids", random_state=seed, **sizes["data"])
    bids_dir = dataset.bids_dir
    if case == "null":
        exchange_films(bids_dir, folder / case / "bids")
        bids_dir = folder / case / "bids"
    output_dir = folder / case / "out"
    # the films are the same: their features serve both cases
    common = {"device": device, "random_state": seed, **sizes["decode"]}
    where = {"work_dir": folder / "work", "verbose": 0}
    options = DecodeOptions(**common)
    decoding = decode_participant(bids_dir, output_dir, "01", options, **where)
    options = ReanimateOptions(**common, **sizes["reanimate"])
    rendered = reanimate_participant(bids_dir, output_dir, "01", options, **where)
    tables = {}
    if case == "planted":
        tables["reanimate, faster half"] = rows_of(
            compare_where_it_moves(dataset, output_dir, seed)
        )
    (gain_path,) = output_dir.rglob("*_feat-gain_desc-decode_table.tsv")
    return {
        "case": case,
        "seed": seed,
        "decode": rows_of(decoding.table),
        "gain": rows_of(load_table(gain_path)),
        "reanimate": rows_of(rendered.table),
        **tables,
        "seconds": {
            load_json(path)["Analysis"]: load_json(path)["Seconds"]
            for path in output_dir.rglob("*_provenance.json")
        },
    }


def compare_where_it_moves(dataset, output_dir, seed):
    """Render and score again, as the analysis does, the half of the clips that moves most."""
    (flow_path,) = output_dir.rglob("*_desc-decode_flow.h5")
    (record_path,) = output_dir.rglob("*_desc-reanimate_provenance.json")
    parameters = load_json(record_path)["Parameters"]
    flow, arrays, metadata = load_flow(flow_path)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in arrays["film"]]
    times = np.asarray(arrays["film_time"])
    planted = [
        dataset.films[name].flow[int(t // CLIP_DURATION)]
        for name, t in zip(names, times, strict=True)
    ]
    speed = np.linalg.norm(planted, axis=2).mean(axis=(1, 2, 3))
    film = np.unique(names, return_inverse=True)[1]
    blocks = np.unique(
        np.stack([film, times // BLOCK_SECONDS], axis=1), axis=0, return_inverse=True
    )[1].ravel()
    sources = {
        "decoded": flow,
        "permuted": arrays["permuted_bold"],
        "zero": np.zeros_like(flow),
        "true": arrays["true"],
    }
    fast = np.flatnonzero(speed >= np.median(speed))
    t_r, n_frames = float(metadata["t_r"]), parameters["n_frames"]
    shown = np.stack(
        [
            read_clip(
                dataset.bids_dir / "stimuli" / names[i],
                start=times[i],
                duration=t_r,
                fps=n_frames / t_r,
                size=tuple(parameters["size"]),
            )
            for i in fast
        ]
    )
    reanimator = Reanimator(renderer=SplatRenderer(n_frames))
    scores = {
        name: score_clips(reanimator.predict(source[fast], initial_frames=shown[:, 0]), shown)
        for name, source in sources.items()
    }
    return compare_renderings(scores, blocks=blocks[fast], random_state=seed)


def rows_of(table):
    """Rows as objects; what is not a number is left out."""
    rows = json.loads(table.to_json(orient="records"))
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def summarise(case, sets):
    """Figures of all seeds, bounds, and whether they are met; and the gains of the clips."""
    gain = [next(row for row in one["gain"] if row["cells"] == "all") for one in sets]
    errors = [
        {row["predictor"]: row["end_point_error_px"] for row in one["decode"]} for one in sets
    ]
    compared = {
        f"{score}, {clips}, over {source}": [
            next(row for row in one[table] if (row["score"], row["flow"]) == (score, source))
            for one in sets
        ]
        for clips, table in (("all", "reanimate"), ("faster half", "reanimate, faster half"))
        if table in sets[0]
        for score in SHOWN_SCORES
        for source in BEATEN
    }
    beats_all = [min(error, key=error.get) == "decoder" for error in errors]
    p_gain = [row.get("p", 1.0) for row in gain]
    entry = {
        "n_data_sets": len(sets),
        "brain_gain_px": [row["gain_px"] for row in gain],
        "brain_gain_p": p_gain,
        "n_decoder_beats_every_control": sum(beats_all),
    }
    clips = [
        {
            "case": case,
            "clips": name,
            **{key: [row.get(key) for row in rows] for key in ("gain", "p")},
        }
        for name, rows in compared.items()
    ]
    p_clips = {name: [row.get("p", 1.0) for row in rows] for name, rows in compared.items()}
    if case == "planted":
        entry["bounds"] = {
            "brain_gain_p": "< .05 in all",
            "decoder": "beats every control",
            "gain of clips": "p < .05 in all, but for SSIM, all, over zero",
        }
        del p_clips["ssim, all, over zero"]
        entry["passed"] = bool(
            max(p_gain) < 0.05 and all(beats_all) and max(map(max, p_clips.values())) < 0.05
        )
    else:
        entry["bounds"] = {
            "brain_gain_p": "at most one in 20 below .05, and one",
            "gain of clips over permuted": "likewise",
        }
        allowed = 1 + len(sets) // 20
        tests = [p_gain] + [p_clips[f"{score}, all, over permuted"] for score in SHOWN_SCORES]
        entry["passed"] = all(sum(p < 0.05 for p in test) <= allowed for test in tests)
    return entry, clips


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny data: runs, proves nothing")
    size.add_argument("--small", action="store_true", help="coarse flow, small clips, few epochs")
    parser.add_argument("--n-seeds", type=int, default=3, metavar="N", help="data sets per case")
    parser.add_argument("--device", default="cpu", help="of networks (cpu)")
    parser.add_argument(
        "--work-dir", type=Path, help="data sets and reports (default: beside the output)"
    )
    arguments = parser.parse_args()
    size = "quick" if arguments.quick else "small" if arguments.small else "default"
    n_seeds = 1 if arguments.quick else arguments.n_seeds
    work = arguments.work_dir or arguments.output.with_suffix(".work")
    results = []
    for seed in range(n_seeds):
        for case in CASES:
            path = work / f"{size}-{case}-{seed}.json"
            if not path.exists():
                folder = work / f"{size}-{seed}"
                save_json(path, analyse(case, seed, folder, SIZES[size], arguments.device))
            results.append(json.loads(path.read_text()))
            print(case, seed, json.dumps(summarise(case, results[-1:])), flush=True)
    cases, clips = {}, []
    for case in CASES:
        cases[case], gains = summarise(case, [one for one in results if one["case"] == case])
        clips += gains
    record = {
        "description": __doc__.splitlines()[0],
        "passed": all(entry["passed"] for entry in cases.values()),
        "quick": arguments.quick,
        "settings": {
            "size": size,
            "other than the defaults": json.dumps(SIZES[size]),
            "n_seeds": n_seeds,
        },
        "cases": cases,
        "gain of decoded flow in the clips": clips,
        # the control tables of one data set as the App shows them; the cases sum up all
        **{
            f"{one['case']}, seed 0: {table}": one[table]
            for one in results[: len(CASES)]
            for table in ("decode", "gain", "reanimate", "reanimate, faster half")
            if table in one
        },
        "seconds": sum(sum(one["seconds"].values()) for one in results),
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
        "device": f"{arguments.device}, {torch.get_num_threads()} CPU thread(s)",
    }
    save_json(arguments.output, record)
    if arguments.work_dir is None:
        shutil.rmtree(work)
    for case, entry in cases.items():
        print(case, "passed" if entry["passed"] else "FAILED")
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
