"""Single-trial betas against nilearn's own models, planted responses, and noise in their place."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, make_first_level_design_matrix, run_glm
from tiny_bids import N_VOLUMES, make_tree, write_bold
from trial_sets import SHAPE, make_trial_set

from brainnrds.io import InputError, find_design, find_runs, load_trials
from brainnrds.io.trials import clip_seconds, plan_trials, single_trial_betas

CONFOUNDS = ("high_pass", "wm_csf")


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    return make_trial_set(tmp_path_factory.mktemp("moments"), "bold-moments")


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return make_trial_set(tmp_path_factory.mktemp("animals"), "animal-clips")


def runs_of(made):
    return find_runs(made.bids_dir, derivatives=made.derivatives)


def planted_r(made, data):
    """Mean correlation with the planted amplitudes, voxels that respond and others."""
    truth = np.array([made.amplitude[data.film_names[film]] for film in data.films])
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    truth[:, ~made.moves] = noise[:, ~made.moves]
    r = np.array([np.corrcoef(t, b)[0, 1] for t, b in zip(truth.T, data.bold.T, strict=True)])
    return r[made.moves].mean(), r[~made.moves].mean()


@pytest.mark.parametrize("model", ["lss", "lsa"])
def test_betas_are_those_of_nilearns_models(model):
    """One of nilearn's fits for each trial (or one for all), each with its own design."""
    rng = np.random.default_rng(0)
    times, onsets = 1 + 2.0 * np.arange(80), 5 + 4.3 * np.arange(30)
    nuisance = rng.standard_normal((80, 3)).cumsum(axis=0)
    bold = rng.standard_normal((80, 6)).cumsum(axis=0)

    def design(names):
        events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": names})
        return make_first_level_design_matrix(times, events, high_pass=0.01, add_regs=nuisance)

    names = [f"t{i:02d}" for i in range(30)]
    whole = design(names)
    betas = single_trial_betas(
        bold, whole[names].to_numpy(), whole.drop(columns=names).to_numpy(), model=model
    )
    for i in (0, 7, 29):
        own = whole if model == "lsa" else design(np.where(np.arange(30) == i, "one", "rest"))
        column = list(own.columns).index(names[i] if model == "lsa" else "one")
        labels, results = run_glm(bold, own.to_numpy(), noise_model="ols")
        expected = results[labels[0]].theta[column]
        np.testing.assert_allclose(betas[i], expected, rtol=1e-4, atol=1e-5)


def test_betas_that_cannot_be_had():
    trials = np.eye(20)[:, :15]
    constant = np.ones((20, 1))
    bold = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(InputError, match="more volumes than the lsa model of 20 trials"):
        single_trial_betas(bold, np.eye(20), constant, model="lsa")
    with pytest.raises(InputError, match="trials must differ"):
        single_trial_betas(bold, trials[:, [0, 1, 1]], constant, model="lsa")
    with pytest.raises(InputError, match="one that is all others"):
        single_trial_betas(bold, trials[:, [1, 1]], constant)
    with pytest.raises(InputError, match="must be 'lss' or 'lsa'; got 'ols'"):
        single_trial_betas(bold, trials, constant, model="ols")


def test_one_run_equals_nilearns_first_level_model(moments):
    """From files: nilearn reads image, events and mask by itself, one model for one trial."""
    run = runs_of(moments)[0]
    with pytest.warns(UserWarning, match="too few to be held out in stretches"):
        data = load_trials([run], confounds=(), repeats="concatenate")
    events = moments.events[0]
    shown = np.flatnonzero(events["stim_file"].notna())
    betas = []
    for trial in shown[:4]:
        kind = np.where(events["stim_file"].isna(), "oddball", "rest").astype(object)
        kind[trial] = "one"
        own = FirstLevelModel(
            t_r=run.t_r,
            slice_time_ref=0.5,
            drift_model="polynomial",
            noise_model="ols",
            signal_scaling=False,
            mask_img=str(run.mask),
        ).fit(str(run.bold[0]), events=events[["onset", "duration"]].assign(trial_type=kind))
        image = own.compute_contrast("one", output_type="effect_size")
        betas.append(own.masker_.transform(image).ravel())
    kept = [moments.events[0]["stim_file"][trial] for trial in shown[:4]]
    assert [data.film_names[film] for film in data.films[:4]] == kept
    # ours are z-scored: differences between trials are the same up to one scale a voxel
    ours, theirs = np.diff(data.bold[:4], axis=0), np.diff(betas, axis=0)
    scale = (ours * theirs).sum(0) / (theirs**2).sum(0)
    np.testing.assert_allclose(ours, theirs * scale, atol=2e-3)
    assert (scale > 0).all()


@pytest.mark.parametrize("model", ["lss", "lsa"])
def test_planted_responses_come_back_and_noise_does_not(animals, model, tmp_path):
    runs = runs_of(animals)
    single = load_trials(runs, model=model, confounds=CONFOUNDS, repeats="concatenate")
    averaged = load_trials(runs, model=model, confounds=CONFOUNDS)
    assert single.bold.shape == (144, np.prod(SHAPE)) and len(averaged.bold) == 24
    assert (averaged.n_repeats == 6).all() and averaged.delays == [0]
    responds, others = planted_r(animals, single)
    assert responds > (0.6 if model == "lss" else 0.5) and abs(others) < 0.05
    assert planted_r(animals, averaged)[0] > 0.85
    # the same images with their volumes in another order are noise of the same kind
    random = np.random.default_rng(0)
    swapped = []
    for run in runs:
        image = nib.load(run.bold[0])
        order = random.permutation(run.n_volumes)
        path = tmp_path / run.bold[0].name
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., order], image.affine), path)
        swapped.append(replace(run, bold=(path,)))
    noise = load_trials(swapped, model=model, confounds=CONFOUNDS, repeats="concatenate")
    assert abs(planted_r(animals, noise)[0]) < 0.06


def test_confounds_that_explain_everything_leave_nothing(animals, tmp_path):
    """A confound for each planted response: the betas that are left know nothing of it."""
    runs = runs_of(animals)
    changed = []
    for run in runs:
        table = pd.read_csv(run.confounds, sep="\t", na_values="n/a")
        values = np.asarray(nib.load(run.bold[0]).dataobj).reshape(-1, run.n_volumes)
        # two dimensions of tuning and the mean response
        series = np.linalg.svd(values - values.mean(axis=1, keepdims=True))[2][:3]
        table["csf"], table["white_matter"], table["trans_x"] = series
        path = tmp_path / run.confounds.name
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
        changed.append(replace(run, confounds=path))
    how = {"confounds": ("motion", "wm_csf"), "confound_options": {"motion": "basic"}}
    before = planted_r(animals, load_trials(runs, **how))[0]
    after = planted_r(animals, load_trials(changed, **how))[0]
    assert before > 0.85 and abs(after) < 0.3 * before
    # a voxel that is a confound has no data
    table["csf"] = values[0]
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    with pytest.warns(UserWarning, match="1 constant or non-finite voxels masked"):
        data = load_trials([*runs[:-1], changed[-1]], **how)
    assert np.flatnonzero(~data.voxels).tolist() == [0] and (data.bold[:, 0] == 0).all()


def test_oddballs_are_modelled_and_rest_is_not(moments):
    runs = runs_of(moments)
    trials = load_trials(runs, confounds=CONFOUNDS, repeats="concatenate")
    assert not any("oddball" in name for name in trials.film_names)
    # what an oddball evokes does not reach its neighbours' betas
    from brainnrds.io.trials import _make_design

    design = _make_design(runs[0], None, np.ones(runs[0].n_volumes, bool), None, "glover")
    times = runs[0].start_time + runs[0].t_r * np.arange(runs[0].n_volumes)
    odd = moments.events[0].query("trial_type == 'oddball'")[["onset", "duration"]]
    evoked = make_first_level_design_matrix(times, odd.assign(trial_type="odd"), drift_model=None)[
        ["odd"]
    ].to_numpy()
    betas = single_trial_betas(100 * evoked, design.trials, design.nuisance)
    np.testing.assert_allclose(betas, 0, atol=1e-3)
    without = replace(runs[0], events=None)
    design = _make_design(without, None, np.ones(runs[0].n_volumes, bool), None, "glover")
    assert np.abs(single_trial_betas(100 * evoked, design.trials, design.nuisance)).max() > 1


def test_units_and_labels(moments, animals):
    data = load_trials(runs_of(animals), confounds=CONFOUNDS, repeats="concatenate")
    # all clips are in all runs, in other orders: each is a unit
    assert (data.runs == 0).all() and len(np.unique(data.film_groups)) == 24
    assert (np.bincount(data.scanner_runs) == 24).all()
    assert data.clip_duration == 2.0 and data.spacing == 4.0 and data.design == "trials"
    data = load_trials(runs_of(moments), confounds=CONFOUNDS, repeats="concatenate")
    # a training run has clips of its own, the test runs share theirs
    assert len(np.unique(data.film_groups)) == 5
    test = np.array([data.film_names[film].startswith("test/") for film in data.films])
    assert len(np.unique(data.runs[test])) == 1 and len(np.unique(data.runs[~test])) == 4
    assert data.shows("test/*").tolist() == test.tolist()
    plan = plan_trials([(0, film) for film in runs_of(moments)[4].films])
    assert (plan.kind, plan.spacing) == ("clips", 4.0)
    assert clip_seconds(runs_of(moments)) == 3.0


def test_trials_whose_response_was_not_scanned_are_left_out(animals, tmp_path):
    run = runs_of(animals)[0]
    image = nib.load(run.bold[0])
    n_volumes = int((run.films[-2].onset + 4) / run.t_r)
    path = tmp_path / run.bold[0].name
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :n_volumes], image.affine), path)
    table = pd.read_csv(run.confounds, sep="\t", na_values="n/a")[:n_volumes]
    confounds = tmp_path / run.confounds.name
    table.to_csv(confounds, sep="\t", index=False, na_rep="n/a")
    cut = replace(run, bold=(path,), n_volumes=n_volumes, confounds=confounds)
    with pytest.warns(UserWarning, match="2 trials left out"):
        data = load_trials([cut, *runs_of(animals)[1:]], confounds=CONFOUNDS, repeats="concatenate")
    assert len(data.bold) == 142 and data.counts["trials_left_out"] == 2


def test_surfaces_and_grayordinates_have_the_betas_of_volumes(tmp_path):
    films = {"1": [(4.0 + 4 * i, 2.0, f"{i}.mp4") for i in range(18)]}
    betas = {}
    values = np.random.default_rng(0).standard_normal((N_VOLUMES, 57)).cumsum(0) + 1000
    for space in ("fsaverage5", "fsLR", "MNI152NLin2009cAsym"):
        tree = make_tree(tmp_path / space, space, runs=films, start_time=1.0)
        n = tree.values["01", "1"].shape[1]
        folder = tree.derivatives / "sub-01" / "func"
        write_bold(folder, "sub-01_task-movie_run-1", space, values[:, :n])
        betas[space] = load_trials(find_runs(tree.bids_dir), confounds=()).bold
    n = min(some.shape[1] for some in betas.values())
    first, *others = (some[:, :n] for some in betas.values())
    for other in others:
        np.testing.assert_allclose(other, first, atol=2e-3)


def test_designs_are_told_apart_by_length(animals, tmp_path):
    assert find_design(runs_of(animals)) == ("trials", pytest.approx(2.0))
    assert find_design(find_runs(make_tree(tmp_path).bids_dir)) == ("continuous", 20.0)


def test_bad_input(animals):
    runs = runs_of(animals)
    with pytest.raises(ValueError, match="`repeats`"):
        load_trials(runs, repeats="sum")
    with pytest.raises(InputError, match="`hrf_model` must be 'glover' or 'spm'; got 'fir'"):
        load_trials(runs, hrf_model="fir")
    with pytest.raises(ValueError, match="exclude each other"):
        load_trials(runs, high_pass=0.01)
    with pytest.raises(InputError, match="of one subject"):
        load_trials([runs[0], replace(runs[1], subject="02")])
    late = replace(runs[0], films=tuple(replace(f, onset=f.onset + 500) for f in runs[0].films))
    with pytest.raises(InputError, match="No trial of sub-01 can be estimated"):
        load_trials([late], confounds=CONFOUNDS)
    with pytest.raises(InputError, match=f"{runs[0].bold[0].name}: trials must differ"):
        crowded = replace(
            runs[0],
            films=tuple(
                replace(f, onset=12 + 0.5 * i + 48 * k, duration=0.4, film=f"{k}{f.film}")
                for k in range(2)
                for i, f in enumerate(runs[0].films)
            ),
        )
        load_trials([crowded, *runs[1:]], confounds=CONFOUNDS, model="lsa")
