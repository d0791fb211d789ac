"""Does decoded flow make better video where BOLD carries motion, and only there?

Clips of the sample data's footage (pans, zooms, moving patches, all known), BOLD that carries
coarse motion 2 and 3 volumes late in AR(1) noise, a fitted `MotionDecoder`, and a `Reanimator` with
the splatting renderer. The same renderer is given decoded flow, that of the same network with BOLD
of other films, permuted, zero and true flow (null: the first three).

* planted: the clips of decoded flow have less flow error than those of permuted flow and, in the
  clips where motion was planted, than those of zero flow, each with p < .05 in every data set
  (paired, flipping the signs of blocks of 40 s).
* null: the BOLD of other runs. No gain over permuted flow.
* resume: the reanimation analysis on 1,200 clips, killed (SIGKILL) at random moments. After every
  kill the finished clips are those of an undisturbed run, and so is the result in the end.

    python tests/prove/prove_reanimation.py --output doc/proofs/reanimation.json [--quick]
        [--n-jobs N] [--most-seconds S] [--cases CASE ...]

Finished parts are kept beside the output, so that an interrupted run continues. With ``--strip
FILE.png`` the first planted data set also leaves a picture of clips side by side.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import joblib
import numpy as np
import torch
from finished import add_finished, read_finished, run_and_keep

import brainnrds
import brainnrds.io as io
from brainnrds.analyses.options import DecodeOptions, ReanimateOptions
from brainnrds.analyses.reanimate import reanimate_participant
from brainnrds.analyses.record import Record
from brainnrds.blocks import exchange_between_films
from brainnrds.datasets import make_movie_dataset
from brainnrds.datasets.footage import (
    CLIP_DURATION,
    flow_at,
    plan_film,
    plan_windows,
    render_clip,
)
from brainnrds.decoding import MotionDecoder, fit_on_unrelated_bold
from brainnrds.flow import resize_flow
from brainnrds.plotting import plot_clip_strips
from brainnrds.reanimation import (
    Reanimator,
    SplatRenderer,
    compare_renderings,
    rendering_flows,
    score_clips,
)

for folder in ("analyses", "decoding"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
from killing import run_in_child  # noqa: E402
from planted import autocorrelated  # noqa: E402

N_FILMS, N_TEST_FILMS, N_CLIPS = 22, 6, 40
N_FRAMES, FPS, SIZE = 6, 3, (48, 64)
N_STEPS, GRID = 3, (12, 16)
COARSE = (3, 4)  # what voxels answer to
N_VOXELS, SNR = 150, 1.0
CLIPS_PER_BLOCK = round(40 / CLIP_DURATION)
N_DATA_SETS = {"planted": 4, "null": 20}
N_RESUMED, N_KILLS = 240, 10
SCORES = ("flow_error_px", "ssim")
# x264 encodes the same pictures with other bytes now and then (widths that 16 does not divide)
MOST_CODING_NOISE = 1.0


def make_samples(random):
    """Clips (n, n_frames, 3, height, width), their flow, and whether anything was made to move."""
    height, width = GRID
    x, y = np.meshgrid(
        (np.arange(width) + 0.5) / width - 0.5, ((np.arange(height) + 0.5) - height / 2) / width
    )
    # widths of the frame per s -> pixels of the grid per step
    step = CLIP_DURATION / N_STEPS
    times = step * (np.arange(N_STEPS) + 0.5)
    clips, flow, moving = [], [], []
    for windows in plan_windows(N_FILMS, random):
        for clip in plan_film(windows, N_CLIPS, random):
            frames = render_clip(clip, fps=FPS, size=SIZE).transpose(0, 3, 1, 2)
            clips.append(frames.astype(np.float32) / 255)
            flow.append(np.stack([width * step * flow_at(clip, x, y, t) for t in times]))
            moving.append(np.abs(flow[-1]).max() > 0)
    return np.stack(clips), np.stack(flow).astype(np.float32), np.array(moving)


def plant_bold(flow, films, random):
    """BOLD that answers 2 and 3 volumes later to the flow of coarse cells."""
    coarse = resize_flow(flow, COARSE).mean(axis=1).reshape(len(flow), -1)
    coarse = (coarse - coarse.mean(axis=0)) / coarse.std(axis=0)
    weights = random.normal(size=(coarse.shape[1], N_VOXELS))
    drive = coarse @ (weights / np.sqrt(len(weights)))
    bold = []
    for film in np.unique(films):
        response = np.zeros((N_CLIPS, N_VOXELS))
        for lag in (2, 3):
            response[lag:] += 0.7 * drive[films == film][:-lag]
        bold.append(SNR * response + autocorrelated(random, N_CLIPS, N_VOXELS, 0.5))
    return np.concatenate(bold).astype(np.float32)


def analyse(case, seed, strip):
    """Fit, render and score one data set."""
    cv2.setNumThreads(1)
    start = time.perf_counter()
    random = np.random.default_rng([2027, seed])
    clips, flow, moving = make_samples(random)
    films = np.repeat(np.arange(N_FILMS), N_CLIPS)
    bold = plant_bold(flow, films, random)
    test = films >= N_FILMS - N_TEST_FILMS
    if case == "null":  # every run gets the BOLD of the next one, training and test apart
        for part in (~test, test):
            bold[part] = np.roll(bold[part], N_CLIPS, axis=0)
    decoder = MotionDecoder(
        24, n_bold_channels=64, n_channels=32, n_blocks=2, n_epochs=15, random_state=seed
    )
    reanimator = Reanimator(decoder, renderer=SplatRenderer(N_FRAMES))
    reanimator.fit(bold[~test], flow[~test], runs=films[~test], films=films[~test])

    blocks = np.arange(test.sum()) // CLIPS_PER_BLOCK
    sources = rendering_flows(
        reanimator.decoder_, bold[test], blocks=blocks, runs=films[test], random_state=seed
    )
    control = fit_on_unrelated_bold(
        reanimator.decoder_,
        bold[~test],
        flow[~test],
        block_length=CLIPS_PER_BLOCK,
        runs=films[~test],
        films=films[~test],
        random_state=seed,
    )
    order = exchange_between_films(films[test], films[test], CLIPS_PER_BLOCK, random_state=seed)
    swaps = np.stack([order, np.arange(len(order))], axis=1)
    unrelated = control.predict_swapped(bold[test], swaps, runs=films[test])
    sources |= {"unrelated_bold": np.concatenate(list(unrelated)), "true": flow[test]}
    # the decoder sees no frames: BOLD of another time is the flow of another clip
    del sources["flow of another clip"]
    if case == "null":  # the question is what decoded flow gains over permuted flow
        sources = {name: sources[name] for name in ("decoded", "permuted", "unrelated_bold")}
    renderer, shown = Reanimator(renderer=SplatRenderer(N_FRAMES)), clips[test]
    rendered = {
        name: renderer.predict(source, initial_frames=shown[:, 0])
        for name, source in sources.items()
    }
    if strip is not None and (case, seed) == ("planted", 0):
        save_strip(strip, shown, rendered, flow[test])
    scores = {name: score_clips(some, shown) for name, some in rendered.items()}
    # zero flow is right where nothing moves: it is compared where motion was planted
    moving = moving[test]
    masked = {
        name: {score: values[score][moving] for score in SCORES} for name, values in scores.items()
    }
    tables = {
        "all": compare_renderings(scores, blocks=blocks, random_state=seed),
        "moving": compare_renderings(masked, blocks=blocks[moving], random_state=seed),
    }
    return {
        "case": case,
        "seed": seed,
        "n_clips": int(test.sum()),
        "n_moving": int(moving.sum()),
        "n_blocks": len(np.unique(blocks)),
        "tables": {
            name: [
                {key: value for key, value in row.items() if value == value}  # p of ours is NaN
                for row in table[table.score.isin(SCORES)].to_dict("records")
            ]
            for name, table in tables.items()
        },
        "seconds": time.perf_counter() - start,
    }


def save_strip(path, shown, rendered, flow):
    """Three clips that move much, each as the film and by every source of flow."""
    speed = np.abs(flow).mean(axis=(1, 2, 3, 4))
    rows = {}
    for rank, i in enumerate(np.argsort(speed)[[-1, -20, -60]]):
        rows |= {f"{rank + 1}: film": shown[i]}
        rows |= {f"{rank + 1}: {name}": some[i] for name, some in rendered.items()}
    plot_clip_strips(rows, fps=FPS).savefig(path, dpi=70)


def find(result, clips, score, source):
    rows = result["tables"][clips]
    return next(row for row in rows if (row["score"], row["flow"]) == (score, source))


def summarise(case, results):
    """Means over data sets, the p-values, the bounds and whether they are met."""
    sources = ["decoded", "permuted", "unrelated_bold"]
    sources += ["zero", "true"] if case == "planted" else []
    means = {
        clips: {
            score: {
                source: float(np.mean([find(r, clips, score, source)["mean"] for r in results]))
                for source in sources
            }
            for score in SCORES
        }
        for clips in ("all", "moving")
    }
    compared = {
        f"{score}, {clips} clips, over {source}": {
            key: [find(r, clips, score, source)[key] for r in results] for key in ("gain", "p")
        }
        for score in SCORES
        for clips in ("all", "moving")
        for source in sources[1:4]
    }
    over_permuted = compared["flow_error_px, all clips, over permuted"]
    gain = np.array(over_permuted["gain"])
    if case == "planted":
        over_zero = compared["flow_error_px, moving clips, over zero"]
        bounds = {"flow_error_px": "gain > 0, p < .05 in all, over permuted and (moving) over zero"}
        passed = all(
            min(one["gain"]) > 0 and max(one["p"]) < 0.05 for one in (over_permuted, over_zero)
        )
    else:
        n_below, n_allowed = sum(p < 0.05 for p in over_permuted["p"]), max(1, len(results) // 5)
        margin = 2 * gain.std(ddof=1) / np.sqrt(len(results))
        bounds = {
            "mean gain over permuted": f"<= {margin:.4g} px (two standard errors)",
            "p < .05": f"in at most {n_allowed} of {len(results)}; found {n_below}",
        }
        passed = bool(gain.mean() <= margin and n_below <= n_allowed)
    return {
        "n_data_sets": len(results),
        **{key: [result[key] for result in results] for key in ("n_clips", "n_moving", "n_blocks")},
        "means": means,
        "gains": compared,
        "mean_gain_over_permuted_px": float(gain.mean()),
        "bounds": bounds,
        "passed": passed,
    }


def prepare(folder, n_clips):
    """A small data set, and decoded flow of its films as the decoding analysis leaves it."""
    dataset = make_movie_dataset(
        folder / "bids",
        n_runs=3,
        n_films_per_run=1,
        n_repeats=1,
        n_test_films=1,
        n_test_repeats=1,
        film_duration=90.0,
    )
    record = Record.of_participant("decode", dataset.bids_dir, folder / "calm", "01")
    films = sorted({p.film for run in record.runs for p in run.films})
    random = np.random.default_rng(0)
    true = random.normal(size=(n_clips, 3, 2, 4, 4)).astype(np.float32)
    n_each = n_clips // len(films)
    record.settle(DecodeOptions())
    record.open({"t_r": 2.0, "clip_duration": 2.0})
    record.save_flow(
        true + random.normal(size=true.shape).astype(np.float32),
        arrays={
            "true": true,
            "film": np.repeat(films, n_each).tolist(),
            "film_time": np.tile(np.linspace(0, 88, n_each), len(films)),
            "block": np.arange(n_clips) * 6 // n_clips,
        },
        contents="planted",
    )
    record.close({}, random_state=0)
    shutil.copytree(folder / "calm", folder / "killed", dirs_exist_ok=True)


def reanimate(folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reanimate_participant(
            folder / "bids",
            folder / name,
            "01",
            ReanimateOptions(n_frames=3, size=(32, 40), device="cpu"),
            work_dir=folder / f"{name}-work",
            verbose=0,
        )


def in_child(function, *arguments):
    status = os.waitpid(run_in_child(function, *arguments), 0)[1]
    if status:
        raise RuntimeError(f"{function.__name__} failed in a child: status {status}.")


def contents(folder):
    """Bytes of every finished file, but for those that tell the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".tmp-")
        and "provenance" not in path.name
        and path.suffix != ".html"
    }


def difference(*paths):
    """Mean absolute difference of two videos in gray levels; infinite if one cannot be read."""
    try:
        first, second = (io.read_clip(path) for path in paths)
        return float(255 * np.abs(first - second).mean())
    except Exception:  # whatever a truncated file raises counts
        return float("inf")


def kill_at_random(n_clips, n_kills, seed=0):
    """Kill the analysis until `n_kills` have hit, then let it finish."""
    start = time.perf_counter()
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_child(prepare, folder, n_clips)
        started = time.monotonic()
        in_child(reanimate, folder, "calm")
        longest = time.monotonic() - started
        expected = {part: contents(folder / part) for part in ("calm", "calm-work")}
        n_mp4 = 0
        for path in (folder / "calm" / "sub-01" / "clips").glob("*.mp4"):
            n_mp4 += len(io.read_clip(path)) == 3
        kills, broken, n_restarts = [], [], 0
        while len(kills) < n_kills:
            pid = run_in_child(reanimate, folder, "killed")
            moment = random.uniform(0, 1.8 * longest / n_kills)
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
                # through before the kill: once more, so that every kill hits work
                n_restarts += 1
                shutil.rmtree(folder / "killed-work")
                for path in (folder / "killed").rglob("*"):
                    if path.is_file() and "desc-decode" not in path.name:
                        path.unlink()
                continue
            # a clip of the work folder or of the output is finished once it has its name
            finished = {
                part: {
                    key: value
                    for key, value in contents(folder / part).items()
                    if key.endswith((".npy", ".mp4"))
                }
                for part in ("killed", "killed-work")
            }
            for part, files in finished.items():
                calm = part.replace("killed", "calm")
                for key, value in files.items():
                    if expected[calm].get(key) == value:
                        continue
                    paths = (folder / calm / key, folder / part / key)
                    if key.endswith(".npy") or difference(*paths) >= MOST_CODING_NOISE:
                        broken.append(key)
            kills.append(
                {
                    "seconds": round(moment, 2),
                    "clips_rendered": len(finished["killed-work"]),
                    "videos_written": len(finished["killed"]),
                }
            )
        kept = {
            path: path.stat().st_mtime_ns for path in (folder / "killed-work").rglob("clip-*.npy")
        }
        in_child(reanimate, folder, "killed")
        n_kept = sum(path.stat().st_mtime_ns == time_ for path, time_ in kept.items())
        differing, other_bytes = [], []
        for part, files in expected.items():
            found = contents(folder / part.replace("calm", "killed"))
            for key in sorted(files.keys() | found):
                if files.get(key) == found.get(key):
                    continue
                paths = [folder / name / key for name in (part, part.replace("calm", "killed"))]
                if key.endswith(".mp4") and all(path.exists() for path in paths):
                    other_bytes.append(difference(*paths))
                    if other_bytes[-1] < MOST_CODING_NOISE:
                        continue
                differing.append(key)
    return {
        "n_clips": n_clips,
        "n_clips_rendered": sum(key.endswith(".npy") for key in expected["calm-work"]),
        "n_videos": n_mp4,
        "seconds_uninterrupted": longest,
        "kills": kills,
        "n_restarts": n_restarts,
        "broken_after_a_kill": broken[:10],
        "n_files_compared": sum(map(len, expected.values())),
        "differing_at_the_end": differing[:10],
        "videos_with_other_bytes": len(other_bytes),
        "their_largest_mean_difference_gray_levels": max(other_bytes, default=0.0),
        "n_finished_before_the_last_run": len(kept),
        "n_of_these_not_rendered_again": n_kept,
        "seed": seed,
        "bounds": {
            "broken_after_a_kill": "none",
            "differing_at_the_end": "none; videos by their pixels, mean difference below "
            f"{MOST_CODING_NOISE:g} gray levels",
            "n_of_these_not_rendered_again": "all",
        },
        "passed": not broken and not differing and n_kept == len(kept) and n_mp4 == n_clips,
        "seconds": time.perf_counter() - start,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="2 data sets per case, 120 clips")
    parser.add_argument("--strip", type=Path, help="picture of clips side by side")
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="data sets at a time, one thread each"
    )
    parser.add_argument(
        "--most-seconds", type=float, metavar="S", help="begin no data set later; the next run does"
    )
    parser.add_argument("--cases", nargs="+", choices=(*N_DATA_SETS, "resume"), metavar="CASE")
    arguments = parser.parse_args()
    cases = arguments.cases or (*N_DATA_SETS, "resume")
    cv2.setNumThreads(1)
    quick = arguments.quick
    partial = arguments.output.with_suffix(".quick.jsonl" if quick else ".partial.jsonl")
    results = read_finished(partial)
    done = {(result["case"], result.get("seed")) for result in results}

    def keep(result):
        results.append(result)
        add_finished(partial, result)

    # first, while no thread runs in this process: it forks
    if "resume" in cases and ("resume", 0) not in done:
        keep({"case": "resume", **kill_at_random(*((120, 3) if quick else (N_RESUMED, N_KILLS)))})
        print("resume", json.dumps(results[-1]), flush=True)
    jobs = (
        joblib.delayed(analyse)(case, seed, arguments.strip)
        for case, n_data_sets in N_DATA_SETS.items()
        for seed in range(2 if quick else n_data_sets)
        if case in cases and (case, seed) not in done
    )
    for result in run_and_keep(partial, jobs, arguments.n_jobs, arguments.most_seconds):
        results.append(result)
        row = find(result, "all", "flow_error_px", "permuted")
        name = f"{result['case']} {result['seed']}"
        print(f"{name}: {row['gain']:.4f} px, p {row['p']:.4f}", flush=True)
    results.sort(key=lambda result: (result["case"], result.get("seed")))
    if len(results) < 1 + sum(2 if quick else n for n in N_DATA_SETS.values()):
        print("not all are finished: run again")
        return 1
    of_case = {
        case: [result for result in results if result["case"] == case]
        for case in (*N_DATA_SETS, "resume")
    }
    summary = {case: summarise(case, of_case[case]) for case in N_DATA_SETS}
    summary["resume"] = of_case["resume"][0]
    record = {
        "description": __doc__.splitlines()[0],
        "quick": quick,
        "passed": all(entry["passed"] for entry in summary.values()),
        **summary,
        "control_tables": [
            {"case": case, "seed": result["seed"], "clips": clips, **row}
            for case in N_DATA_SETS
            for result in of_case[case]
            for clips, rows in result["tables"].items()
            for row in rows
        ],
        "versions": {
            "brainnrds": brainnrds.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "opencv": cv2.__version__,
        },
        "device": f"CPU, {arguments.n_jobs} data sets at a time, one thread each",
    }
    io.save_json(arguments.output, record)
    partial.unlink()
    for case, entry in summary.items():
        print(case, "passed" if entry["passed"] else "FAILED")
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
