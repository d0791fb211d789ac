"""What is a decoder of other people worth to a new person with few minutes of data?

Simulated people see films, in voxels that hold the same motion in mixtures of their own. A decoder
is trained on some of them. For a new person decoders of more and more minutes are trained from
scratch, adapted from that of the others, and adapted where the new person has seen the others'
films. And once more with the person's BOLD of other films, where nothing must be gained.

    python tests/prove/prove_transfer.py --output doc/proofs/transfer.json [--quick] [--n-jobs N]

Finished people are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from finished import read_finished, run_and_keep

sys.path.insert(0, str(Path(__file__).parents[1] / "decoding"))
from planted import plant_motion

import brainnrds
from brainnrds.blocks import exchange_between_films
from brainnrds.decoding import MotionDecoder, read_in_template, transfer_curve

N_OTHERS = 4
N_RUNS, N_PER_RUN, T_R = 19, 48, 2.0  # 30 minutes of each person
N_TEST_RUNS = 12
N_VOXELS = 50
MINUTES = (2.5, 5, 10, 30)
FEW, MANY = 10, 30  # adapted with few, at least as good as from scratch with many
BLOCK_LENGTH = 20
LARGEST_NULL_GAIN = 0.02  # px
DECODER = {
    "n_codes": 16,
    "n_bold_channels": 32,
    "n_channels": 24,
    "n_blocks": 2,
    "n_epochs": 40,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "random_state": 0,
}


def see(films, person, *, n_runs=N_RUNS):
    """BOLD, flow, frame features and runs of a person who sees films."""
    return plant_motion(films, n_runs=n_runs, n_per_run=N_PER_RUN, n_voxels=N_VOXELS, person=person)


def make_trunk(seed):
    """Train a decoder of people who saw the same films; return it, their BOLD and labels."""
    people = [see(seed, 1000 * (seed + 1) + i) for i in range(N_OTHERS)]
    X, y, features = (np.concatenate([p[i] for p in people]) for i in range(3))
    films = np.concatenate([p[3] for p in people])
    subjects = np.repeat(np.arange(N_OTHERS), len(people[0][0]))
    runs = 100 * subjects + films
    decoder = MotionDecoder(**DECODER).fit(
        X, y, image_features=features, runs=runs, films=films, subjects=subjects
    )
    moments = np.tile(np.arange(len(people[0][0])), N_OTHERS)
    return decoder, {"X": X, "moments": moments, "runs": runs, "subjects": subjects}


def follow_person(seed):
    """Curves of one new person, of the right BOLD and of that of other films."""
    trunk, others = make_trunk(seed)
    person = 10**6 + seed
    parts = [see(seed, person), see(10**5 + seed, person, n_runs=N_TEST_RUNS)]
    X, y, features = (np.concatenate([part[i] for part in parts]) for i in range(3))
    runs = np.concatenate([parts[0][3], N_RUNS + parts[1][3]])
    test = runs >= N_RUNS
    template = read_in_template(trunk, wanted=np.where(test, -1, np.arange(len(X))), **others)
    labels = {"image_features": features, "runs": runs, "films": runs, "template": template}
    how = {"t_r": T_R, "block_length": BLOCK_LENGTH, "random_state": seed, "test": test, **labels}
    other = exchange_between_films(runs, runs, BLOCK_LENGTH, random_state=seed)
    return {
        "seed": seed,
        "curve": transfer_curve(trunk, X, y, minutes=MINUTES, **how).to_dict("records"),
        "other_bold": transfer_curve(trunk, X[other], y, minutes=[FEW], **how).to_dict("records"),
    }


def summarize(people):
    """Means over people, with standard errors; and of how many each statement holds."""

    def means(name):
        rows = pd.concat(
            [pd.DataFrame(p[name]).assign(seed=p["seed"]) for p in people], ignore_index=True
        )
        rows["minutes"] = rows["minutes"].round(1)
        found = rows.groupby(["minutes", "kind"], sort=False)["gain_px"].agg(["mean", "sem"])
        return rows, found.rename(columns={"mean": "gain_px", "sem": "standard_error"})

    rows, curve = means("curve")
    other, null = means("other_bold")
    above = (other["low"] > 0).groupby([other["minutes"], other["kind"]], sort=False).sum()
    null["n_above_0"] = above
    wide = rows.pivot(index="seed", columns=["kind", "minutes"], values="gain_px")
    few = min(rows["minutes"].unique(), key=lambda m: abs(m - FEW))
    many = min(rows["minutes"].unique(), key=lambda m: abs(m - MANY))
    scratch = wide["from scratch", many]
    ahead = {kind: wide[kind, few] - scratch for kind in ("adapted", "adapted + aligned")}
    return curve.reset_index(), null.reset_index(), ahead


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="2 people")
    parser.add_argument("--n-people", type=int, default=16, help="new ones (16)")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="people at a time")
    options = parser.parse_args()
    start = time.perf_counter()
    wanted = range(2 if options.quick else options.n_people)
    partial = options.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {result["seed"] for result in results}
    jobs = (joblib.delayed(follow_person)(seed) for seed in wanted if seed not in done)
    results += run_and_keep(partial, jobs, options.n_jobs)
    curve, null, ahead = summarize([r for r in results if r["seed"] in set(wanted)])
    report = {
        "proof": "a new person's decoder needs few minutes where others taught it the rest",
        "passed": bool(
            all(values.mean() >= 0 for values in ahead.values())
            and (null["gain_px"].abs() < LARGEST_NULL_GAIN).all()
        ),
        "quick": options.quick,
        "n_people": len(list(wanted)),
        "curve": curve.to_dict("records"),
        "other_bold": null.to_dict("records"),
        "few_minutes": FEW,
        "many_minutes": MANY,
        "ahead_px": {kind: float(values.mean()) for kind, values in ahead.items()},
        "n_ahead": {kind: int((values >= 0).sum()) for kind, values in ahead.items()},
        "largest_null_gain_px": LARGEST_NULL_GAIN,
        "design": {
            "n_others": N_OTHERS,
            "n_voxels": N_VOXELS,
            "minutes_of_others": N_RUNS * N_PER_RUN * T_R / 60,
            "test_minutes": N_TEST_RUNS * N_PER_RUN * T_R / 60,
            "decoder": DECODER,
        },
        "device": f"{joblib.cpu_count()} cores",
        # of a run that went on from another nobody knows
        "seconds": None if done else round(time.perf_counter() - start, 1),
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(curve.to_string(), null.to_string(), report["ahead_px"], report["n_ahead"], sep="\n")


if __name__ == "__main__":
    main()
