"""Are p-values of trial designs honest, where BOLD is noise?

BOLD of AR(1) noise goes through the general linear model of every run, separate models for each
trial and one for all; its betas through two feature spaces of 100 and 20 columns, banded ridge,
held-out predictions and tests, as the App does it. Clips of 2 s follow each other every 4 s. The
designs:

- clips that are shown once: runs are held out as wholes;
- clips that are shown once in three runs, which are too few: they are cut into stretches. Features
  resemble those of the clip before;
- clips that are shown in every run, each time in another order: clips are held out with all of
  their trials;
- the same clips in one order in every run, with such features: neighbours are held out together.

    python tests/prove/prove_trials.py --output doc/proofs/trials.json [--quick] [--n-jobs N]

Finished data sets are kept beside the output, so that an interrupted run continues.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import prove_null
from nilearn.glm.first_level import make_first_level_design_matrix

from brainnrds.analyses.design import labels_for_tests
from brainnrds.encoding import (
    VideoEncodingModel,
    compare_feature_spaces,
    held_out_predictions,
    models_of,
    select_feature_spaces,
)
from brainnrds.films import trial_units
from brainnrds.io import MovieData, average_repeats
from brainnrds.io.trials import single_trial_betas

SPACING, T_R, SECONDS = 4.0, 2.0, 2.0
N_FOLDS = 5


@dataclass(frozen=True)
class TrialDesign:
    """What is shown, and how betas are estimated."""

    model: str
    n_runs: int
    n_clips: int  # of a run
    repeated: bool = False  # the same clips in every run
    in_order: bool = False  # one order, in which features are AR(1) of 0.7
    rho: float = 0.6  # of the noise, from volume to volume
    bounds: tuple = prove_null.RATE_BOUNDS


def _of_models(name, **options):
    return {f"{name}, {model}": TrialDesign(model, **options) for model in ("lss", "lsa")}


DESIGNS = {
    **_of_models("shown once", n_runs=8, n_clips=50),
    **_of_models("shown once, three runs", n_runs=3, n_clips=80, in_order=True),
    **_of_models("shown in every run", n_runs=6, n_clips=60, repeated=True),
    **_of_models("in one order", n_runs=6, n_clips=60, repeated=True, in_order=True),
}


def regressors(n_clips):
    """Trials and nuisance of a run: (n_volumes, n_clips) and (n_volumes, n_nuisance)."""
    onsets = 6.0 + SPACING * np.arange(n_clips)
    names = [f"t{i:04d}" for i in range(n_clips)]
    events = pd.DataFrame({"onset": onsets, "duration": SECONDS, "trial_type": names})
    times = T_R / 2 + T_R * np.arange(int((onsets[-1] + 16) / T_R))
    design = make_first_level_design_matrix(times, events, high_pass=1 / 128)
    return design[names].to_numpy(), design.drop(columns=names).to_numpy()


def null_trials(name, seed, *, n_voxels=prove_null.N_VOXELS):
    """Features of clips, and betas of noise: X (n_clips, n_features) and MovieData of trials."""
    design = DESIGNS[name]
    rng = np.random.default_rng([2027, list(DESIGNS).index(name), seed])
    n_clips = design.n_clips if design.repeated else design.n_clips * design.n_runs
    n_columns = max(columns.stop for columns in prove_null.SPACES.values())
    rho = prove_null.FEATURE_RHO if design.in_order else 0.0
    X = prove_null.autoregressive(rng, n_clips, n_columns, rho)
    trials, nuisance = regressors(design.n_clips)
    parts, films = [], []
    for run in range(design.n_runs):
        shown = np.arange(design.n_clips) + (0 if design.repeated else run * design.n_clips)
        films.append(shown if design.in_order else rng.permutation(shown))
        noise = prove_null.autoregressive(rng, len(trials), n_voxels, design.rho)
        betas = single_trial_betas(noise, trials, nuisance, model=design.model)
        parts.append((betas - betas.mean(0)) / betas.std(0))
    films, runs = np.concatenate(films), np.repeat(np.arange(design.n_runs), design.n_clips)
    units, kept, kind = trial_units(runs, films, spacing=SPACING)
    films, runs, betas = films[kept], runs[kept], np.concatenate(parts)[kept]
    return X.astype(np.float32), MovieData(
        bold=betas,
        runs=np.zeros_like(runs) if kind == "clips" else units[films],
        presentations=np.arange(len(films)),
        films=films,
        on_screen=films,
        film_times=np.zeros(len(films)),
        n_repeats=np.ones(len(films), dtype=int),
        film_names=[f"{i}.mp4" for i in range(n_clips)],
        stim_files=[],
        film_starts=[0.0] * n_clips,
        film_durations=[SECONDS] * n_clips,
        film_groups=units,
        t_r=T_R,
        masker=None,
        voxels=np.ones(n_voxels, dtype=bool),
        subject=None,
        space=None,
        repeats="concatenate",
        design="trials",
        clip_duration=SECONDS,
        spacing=SPACING,
        scanner_runs=runs,
    )


def analyse(name, seed, *, n_voxels=prove_null.N_VOXELS, n_permutations=prove_null.N_PERMUTATIONS):
    """Run all tests on one data set of a design; numbers of false positives per test."""
    start = time.perf_counter()
    X, single = null_trials(name, seed, n_voxels=n_voxels)
    data = average_repeats(single)
    held_out, n_folds = {}, min(N_FOLDS, len(np.unique(data.groups)))
    for model, used in models_of(prove_null.SPACES).items():
        columns, spaces = select_feature_spaces(X[data.films], prove_null.SPACES, used)
        encoder = VideoEncodingModel(
            spaces, delays=data.delays, alphas=prove_null.ALPHAS, n_iter=prove_null.N_MIXTURES
        )
        held_out[model] = held_out_predictions(
            encoder, columns, data.bold, runs=data.runs, films=data.groups, n_folds=n_folds
        )
    folds = held_out["joint"].folds
    compared = compare_feature_spaces(
        data.bold,
        {model: result.predictions for model, result in held_out.items()},
        **labels_for_tests(data, [result.predictions for result in held_out.values()], folds),
        folds=folds,
        n_permutations=n_permutations,
        random_state=seed,
    )
    tests = {**compared.tests, **{f"unique {s}": t for s, t in compared.unique_tests.items()}}
    result = {"design": name, "seed": seed, "n_voxels": n_voxels}
    result |= {test: prove_null.false_positives(tests[test]) for test in prove_null.TESTS}
    result["seconds"] = time.perf_counter() - start
    return result


if __name__ == "__main__":
    about = {
        "proof": "false positives of trial designs where BOLD is noise",
        "spacing": SPACING,
        "t_r": T_R,
    }
    prove_null.prove(__doc__, about, analyse, DESIGNS)
