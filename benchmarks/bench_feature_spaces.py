"""Seconds of the exact search over four feature spaces against that over two, in the same run.

    python benchmarks/bench_feature_spaces.py                  # small, on the CPU
    python benchmarks/bench_feature_spaces.py --device cuda    # a whole brain on a GPU

Spaces of 1,000 features each, at the size of bench_banded_ridge.py. More spaces get more mixtures:
rows say how many, among them the App's defaults. The searches take turns, and the fastest
repetition of each counts. Results go to doc/benchmarks/feature_spaces_<device>.json.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from bench_banded_ridge import SIZES, Meter, make_data, name_of, profile_ours, run_ours
from threadpoolctl import threadpool_limits

from brainnrds.encoding.solvers import sample_mixtures

N_FEATURES = 1000
# spaces, mixtures: the App's defaults, as many for both, and twice as many for twice the spaces
SEARCHES = ((2, 7), (4, 20), (2, 20), (4, 40))


def name_search(n_spaces, n_mixtures):
    return f"{n_spaces} spaces, {n_mixtures} mixtures"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads on a CPU")
    parser.add_argument("--n-alphas", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    size = SIZES[device] | {"n_features": N_FEATURES}
    setting = dict(alphas=np.logspace(1, 6, options.n_alphas), cv=5)

    rows, steps = {}, {}
    data = {n: make_data(**size, device=device, n_spaces=n)[1:] for n in (2, 4)}
    searches = {}
    for n_spaces, n_mixtures in SEARCHES:
        mixtures = sample_mixtures(n_mixtures, n_spaces, random_state=0)
        searches[n_spaces, n_mixtures] = (*data[n_spaces], setting | dict(mixtures=mixtures))
    Ks, Y, first = searches[SEARCHES[0]]  # warms up
    run_ours(Ks, Y, first | dict(mixtures=first["mixtures"][:1]), device, "auto")
    for repetition in range(options.repetitions):
        for key, search in searches.items():
            with Meter(device) as meter:
                run_ours(*search, device, "auto")
            row = rows.setdefault(name_search(*key), dict(repetitions=[], gigabytes=0.0))
            row["repetitions"].append(meter.seconds)
            row["seconds"] = min(row["repetitions"])
            row["gigabytes"] = max(row["gigabytes"], meter.gigabytes)
            print(
                f"repetition {repetition}, {name_search(*key)}: {meter.seconds:.2f} s", flush=True
            )
    for key, search in searches.items():
        steps[name_search(*key)] = profile_ours(*search, device, "auto")

    def ratio(four, two):
        return rows[name_search(*four)]["seconds"] / rows[name_search(*two)]["seconds"]

    report = dict(
        device=name_of(device),
        size=size | dict(n_alphas=options.n_alphas, n_folds=setting["cv"]),
        rows=rows,
        ratios={
            "defaults": ratio((4, 20), (2, 7)),
            "as many mixtures": ratio((4, 20), (2, 20)),
            "twice the mixtures": ratio((4, 40), (2, 20)),
        },
        seconds_by_step=steps,
        load_average=os.getloadavg(),
        n_cores=os.cpu_count(),
        versions=dict(torch=torch.__version__, numpy=np.__version__),
    )
    folder = Path(__file__).resolve().parents[1] / "doc" / "benchmarks"
    output = options.output or folder / f"feature_spaces_{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
