"""Are group tests honest, and does enhancement find more where effects have extent?

Smooth maps of people without an effect go through the sign-flip test: how often is any voxel
significant? Maps with a planted patch tell what each correction finds. And three people, of whom
each is tested by blocks in time, are combined as fixed effects where nothing can be predicted.

    python tests/prove/prove_group.py --output doc/proofs/group.json [--quick] [--n-jobs N]

Finished groups are kept beside the output, so that an interrupted run continues.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import joblib
import numpy as np
from finished import read_finished, run_and_keep
from prove_null import autoregressive
from scipy.ndimage import gaussian_filter

import brainnrds
from brainnrds.encoding import difference_significance, prediction_significance
from brainnrds.group import (
    conjunction,
    fixed_effects,
    one_sided_p,
    sign_flip_test,
    volume_neighbours,
)

SHAPE = (16, 16, 1)  # voxels
SMOOTHNESS = 1.0  # standard deviation of the filter, voxels
N_PEOPLE = (6, 12, 30)
N_PERMUTATIONS = 1000  # from 13 people on
EFFECTS = {"extended": (3.5, 0.7), "one voxel": (0.5, 2.5)}  # radius in voxels, Cohen's d
PLANTED = tuple(product(EFFECTS, N_PEOPLE))
N_FEW = 3
FILM_LENGTH, N_FILMS, N_VOXELS = 200, 3, 60
T_R = 2.0  # s
LEVEL = 0.05
BOUNDS = (0.03, 0.07)


def smooth_maps(rng, n_people):
    """Maps (n_people, n_voxels) of standard deviation 1, people of different noise."""
    noise = gaussian_filter(rng.standard_normal((n_people, *SHAPE)), (0, SMOOTHNESS, SMOOTHNESS, 0))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    return noise.reshape(n_people, -1) * rng.uniform(0.7, 1.4, (n_people, 1))


def patch(radius):
    """Voxels within a distance of the middle."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    middle = np.array([7, 8, 0])[:, None, None, None]
    return (np.linalg.norm(places - middle, axis=0) <= radius).ravel()


def analyse_people(n_people, effect, seed):
    """Which voxels of one group are found, by the maximum and by enhancement."""
    rng = np.random.default_rng(
        [2029, n_people, list(EFFECTS).index(effect) + 1 if effect else 0, seed]
    )
    scores, inside = smooth_maps(rng, n_people), np.zeros(np.prod(SHAPE), dtype=bool)
    if effect:
        radius, size = EFFECTS[effect]
        inside = patch(radius)
        scores[:, inside] += size
    result = {"kind": "people", "n_people": n_people, "effect": effect, "seed": seed}
    for two_sided in (True, False):
        test = sign_flip_test(
            scores,
            neighbours=volume_neighbours(np.ones(SHAPE)),
            two_sided=two_sided,
            n_permutations=N_PERMUTATIONS,
            random_state=seed,
        )
        for name in ("p_max", "p_tfce"):
            found = test[name] < LEVEL
            outside = found & ~inside
            result[f"{name} {'two' if two_sided else 'one'}-sided"] = {
                "any": bool(found.any()),
                "share_inside": float(found[inside].mean()) if effect else None,
                "share_outside": float(outside.sum() / (~inside).sum()),
            }
    return result


def analyse_few(effect, seed):
    """p-values of three people taken together, where nothing can be predicted."""
    rng = np.random.default_rng([2030, seed])
    runs = np.repeat(np.arange(N_FILMS), FILM_LENGTH)
    p_values = {"one model": [], "difference": []}
    for person in range(N_FEW):
        y, first, second = (
            np.concatenate(
                [autoregressive(rng, FILM_LENGTH, N_VOXELS, 0.4) for _ in range(N_FILMS)]
            )
            for _ in range(3)
        )
        how = {
            "t_r": T_R,
            "runs": runs,
            "folds": np.zeros(len(y), dtype=int),
            "random_state": person,
        }
        how["n_permutations"] = N_PERMUTATIONS
        p_values["one model"].append(prediction_significance(y, first, **how).p_values)
        test = difference_significance(y, first, second, **how)
        p_values["difference"].append(one_sided_p(test.p_values, test.score))
    result = {"kind": "few", "n_people": N_FEW, "effect": effect, "seed": seed}
    for name, values in p_values.items():
        fixed = fixed_effects(np.array(values), two_sided=name == "difference")
        every = conjunction(np.array(values)).p_values
        result[name] = {
            "below_05": float(np.mean(fixed.p_values < 0.05)),
            "below_001": float(np.mean(fixed.p_values < 0.001)),
            "any_q": bool((fixed.q_values < LEVEL).any()),
            "conjunction_below_05": float(np.mean(every < 0.05)),
        }
    return result


def attainable(n_people, sides):
    """Largest p-value below the level that all patterns of signs have."""
    step = (2 if sides == "two-sided" else 1) / 2.0**n_people
    return float(step * (np.ceil(LEVEL / step) - 1))


def summarize(results, n_people=N_PEOPLE, power_of=PLANTED):
    """Family-wise errors, power, and errors of fixed effects."""
    errors, power = [], []
    people = [result for result in results if result["kind"] == "people"]
    for number, sides, name in product(n_people, ("two-sided", "one-sided"), ("p_max", "p_tfce")):
        groups = [r for r in people if r["n_people"] == number and not r["effect"]]
        rate = float(np.mean([group[f"{name} {sides}"]["any"] for group in groups]))
        level = attainable(number, sides)
        low, high = (level + bound - LEVEL for bound in BOUNDS)
        errors.append(
            {
                "n_people": number,
                "sides": sides,
                "correction": name,
                "n_groups": len(groups),
                "attainable_level": level,
                "family_wise_error": rate,
                "standard_error": float(np.sqrt(level * (1 - level) / len(groups))),
                "bounds": [low, high],
                "passed": low <= rate <= high,
            }
        )
    for effect, number in power_of:
        groups = [r for r in people if (r["n_people"], r["effect"]) == (number, effect)]
        row = {"n_people": number, "effect": effect, "n_groups": len(groups)}
        for name in ("p_max", "p_tfce"):
            tests = [group[f"{name} two-sided"] for group in groups]
            row[name] = float(np.mean([test["share_inside"] for test in tests]))
            row[f"{name}_outside"] = float(np.mean([test["share_outside"] for test in tests]))
        power.append(row)
    few = [result for result in results if result["kind"] == "few"]
    fixed = []
    for name in ("one model", "difference"):
        row = {"test": name, "n_people": N_FEW, "n_groups": len(few), "n_voxels": N_VOXELS}
        for key in few[0][name]:
            row[key] = float(np.mean([result[name][key] for result in few]))
        rates = [result[name]["below_05"] for result in few]
        row["standard_error"] = float(np.std(rates) / np.sqrt(len(rates)))
        row["passed"] = BOUNDS[0] <= row["below_05"] <= BOUNDS[1] and row["any_q"] <= BOUNDS[1]
        fixed.append(row)
    return errors, power, fixed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="40 groups of each kind")
    parser.add_argument("--n-groups", type=int, default=500, help="without an effect (500)")
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="groups at a time")
    options = parser.parse_args()
    start = time.perf_counter()
    n_null = 40 if options.quick else options.n_groups
    n_groups = {None: n_null, **dict.fromkeys(EFFECTS, max(10, n_null // 10))}
    partial = options.output.with_suffix(".partial.jsonl")
    results = read_finished(partial)
    done = {(r["kind"], r["n_people"], r["effect"], r["seed"]) for r in results}
    wanted = [
        ("people", n_people, effect, seed)
        for effect, number in n_groups.items()
        for seed in range(number)
        for n_people in N_PEOPLE
    ] + [("few", N_FEW, None, seed) for seed in range(n_null)]
    jobs = (
        joblib.delayed(analyse_people)(n_people, effect, seed)
        if kind == "people"
        else joblib.delayed(analyse_few)(effect, seed)
        for kind, n_people, effect, seed in wanted
        if (kind, n_people, effect, seed) not in done
    )
    results += run_and_keep(partial, jobs, options.n_jobs)
    wanted = set(wanted)
    errors, power, fixed = summarize(
        [r for r in results if (r["kind"], r["n_people"], r["effect"], r["seed"]) in wanted]
    )
    extended = [row for row in power if row["effect"] == "extended"]
    report = {
        "proof": "group tests are honest, and enhancement finds extended effects",
        "passed": all(row["passed"] for row in errors + fixed)
        and all(row["p_tfce"] > row["p_max"] for row in extended if row["p_max"] < 1),
        "quick": options.quick,
        "errors": errors,
        "power": power,
        "fixed_effects": fixed,
        "design": {
            "shape_voxels": SHAPE,
            "smoothness_voxels": SMOOTHNESS,
            "n_permutations_from_13_people": N_PERMUTATIONS,
            "effects_radius_voxels_and_d": EFFECTS,
            "t_r_s": T_R,
            "volumes": N_FILMS * FILM_LENGTH,
        },
        "device": f"{joblib.cpu_count()} cores",
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {"brainnrds": brainnrds.__version__, "numpy": np.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    for row in errors + power + fixed:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
