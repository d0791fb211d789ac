import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_bids import N_VOLUMES, T_R, make_tree, write_bold, write_events

import brainnrds.io as io
from brainnrds.io import bold
from brainnrds.io.film_parts import groups_of_films

SPACES = ["MNI152NLin2009cAsym", "fsaverage5", "fsLR"]
# 24 motion parameters are too many for 45 volumes
LABELS = ("runs", "presentations", "films", "on_screen", "film_times", "n_repeats")
BASIC = {"motion": "basic"}
MOTION = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
CONFOUNDS = [*MOTION, "cosine00", "cosine01", "csf", "white_matter"]


def cleaned(values, confounds, keep):
    """Residuals of one least-squares fit, z-scored over `keep`: no nilearn."""
    n = len(values)
    design = np.column_stack([np.ones(n), np.arange(n), confounds])[keep]
    raw = values[keep].astype(float)
    coefficients = np.linalg.lstsq(design, raw, rcond=None)[0]
    residuals = raw - design @ coefficients
    full = np.zeros(values.shape)
    full[keep] = residuals / residuals.std(axis=0)
    return full


def load(tree, **kwargs):
    kwargs = {"confound_options": BASIC, **kwargs}
    return io.load_runs(tree.bids_dir, **kwargs)


def every_volume(tree, run="1"):
    return cleaned(
        tree.values["01", run],
        tree.confounds["01", run][CONFOUNDS].to_numpy(),
        np.arange(N_VOLUMES),
    )


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path)


@pytest.mark.parametrize("space", SPACES)
def test_cleaning_equals_least_squares(tmp_path, space):
    tree = make_tree(tmp_path, space)
    data = load(tree, repeats="concatenate")
    # film a from 6 s on: volumes 3 to 12, then 16 s of tail, cut by film b at 40 s
    assert data.on_screen[data.presentations == 0].tolist() == [0] * 10 + [-1] * 7
    assert data.on_screen[data.presentations == 1].tolist() == [1] * 10 + [-1] * 8
    # rest counts as a sample of the film before it: the response goes on
    assert data.films[data.runs == 0].tolist() == [0] * 17 + [1] * 18
    assert data.film_names == ["a.mp4", "b.mp4", "clips/c.mp4"]
    first = every_volume(tree, "1")
    np.testing.assert_allclose(data.bold[data.runs == 0], first[3:38], atol=2e-4)
    np.testing.assert_allclose(data.film_times[data.presentations == 0], np.arange(17) * T_R)
    assert data.bold.dtype == np.float32
    assert data.voxels.all()
    assert data.film_durations == pytest.approx([20.0] * 3, abs=0.01)
    image = data.masker.inverse_transform(data.bold[0])
    [*paths] = io.save_map(
        tmp_path / "out", data.bold[0], data.masker, {"subject": "01", "space": space, "stat": "x"}
    )
    assert image is not None
    np.testing.assert_array_equal(io.load_map(paths, data.masker), data.bold[0])


def test_averages(tree):
    data = load(tree)
    single = load(tree, repeats="concatenate")
    first, second = every_volume(tree, "1"), every_volume(tree, "2")
    np.testing.assert_allclose(
        data.bold[data.runs == 0], (first[3:20] + second[3:20]) / 2, atol=2e-4
    )
    assert data.n_repeats[data.runs == 0].tolist() == [2] * 17
    assert data.n_repeats[data.runs == 1].tolist() == [1] * 18
    again = io.average_repeats(single)
    for name in ("bold", *LABELS):
        np.testing.assert_allclose(getattr(again, name), getattr(data, name), atol=1e-6)
    assert again.repeats == "average"
    assert single.repeats == "concatenate"
    with pytest.raises(ValueError, match="repeats='concatenate'"):
        io.average_repeats(data)


@pytest.mark.parametrize("space", SPACES)
def test_processes_do_not_change_the_samples(tmp_path, space, monkeypatch):
    tree = make_tree(tmp_path, space)
    alone = load(tree)
    monkeypatch.setattr(bold, "_BYTES_A_PROCESS", 1)  # worth it at any size
    monkeypatch.setattr(bold, "read_bold", None)  # this process reads nothing
    together = load(tree, n_jobs=2)
    for name in ("bold", "voxels", *LABELS):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    assert together.counts == alone.counts
    assert together.sources == alone.sources


def test_same_film_twice_in_a_run(tree):
    write_events(tree.events("1"), [(6.0, 20.0, "a.mp4"), (40.0, 20.0, "a.mp4")])
    data = load(tree, run="1")
    first = every_volume(tree, "1")
    np.testing.assert_allclose(data.bold[:10], (first[3:13] + first[20:30]) / 2, atol=2e-4)
    # a second film cuts the first tail: 7 volumes are common to both presentations
    assert data.on_screen.tolist() == [0] * 10 + [-1] * 7
    assert set(data.n_repeats) == {2}


def test_films_without_a_gap(tree):
    write_events(tree.events("1"), [(6.0, 20.0, "a.mp4"), (26.0, 20.0, "b.mp4")])
    data = load(tree, run="1", repeats="concatenate")
    assert data.on_screen.tolist() == [0] * 10 + [1] * 10 + [-1] * 8
    assert data.presentations.tolist() == [0] * 10 + [1] * 18
    # delays of film b look back at film a
    assert set(data.runs) == {0}


def test_start_time_moves_film_times(tmp_path):
    tree = make_tree(tmp_path, start_time=0.75)
    data = load(tree, repeats="concatenate")
    first = data.presentations == 0
    np.testing.assert_allclose(data.film_times[first], 0.75 + np.arange(17) * T_R)
    assert data.on_screen[first].tolist() == [0] * 10 + [-1] * 7


def test_offsets_within_a_volume_are_matched(tree):
    # 1.8 s and 0.2 s after a volume are 0.4 s apart, not 1.6 s
    write_events(tree.events("1"), [(6.2, 20.0, "a.mp4")])
    write_events(tree.events("2"), [(5.8, 20.0, "a.mp4")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tree)
    first, second = every_volume(tree, "1"), every_volume(tree, "2")
    # volume 3 at 6 s is 0.2 s into the film in run 2, and just before it in run 1
    np.testing.assert_allclose(data.bold[0], second[3], atol=2e-4)
    np.testing.assert_allclose(data.bold[1:10], (first[4:13] + second[4:13]) / 2, atol=2e-4)
    np.testing.assert_allclose(data.film_times[1:10], np.arange(1, 10) * T_R, atol=1e-6)
    assert data.n_repeats[:10].tolist() == [1] + [2] * 9


def test_offsets_too_far_apart_warn_once(tree):
    write_events(tree.events("1"), [(6.0, 20.0, "a.mp4")])
    write_events(tree.events("2"), [(7.1, 20.0, "a.mp4")])
    with pytest.warns(UserWarning, match=r"up to 0\.90 s apart") as caught:
        load(tree)
    assert len(caught) == 1


def write_confounds(tree, run, table):
    path = tree.func(f"*run-{run}_desc-confounds_timeseries.tsv")
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def test_non_steady_state_volumes_are_cut(tree):
    write_events(tree.events("1"), [(0.0, 20.0, "a.mp4")])
    table = tree.confounds["01", "1"].copy()
    for i in range(3):
        table[f"non_steady_state_outlier{i:02d}"] = np.eye(N_VOLUMES)[i]
    write_confounds(tree, "1", table)
    with pytest.warns(UserWarning, match="3 non-steady-state volumes cut"):
        data = load(tree, run="1")
    expected = cleaned(tree.values["01", "1"], table[CONFOUNDS].to_numpy(), np.arange(3, N_VOLUMES))
    np.testing.assert_allclose(data.bold[:7], expected[3:10], atol=2e-4)
    assert data.film_times[0] == 3 * T_R
    assert data.counts["non_steady_state_volumes"] == 3
    # without confounds they are cut as well
    with pytest.warns(UserWarning, match="3 non-steady-state"):
        data = load(tree, run="1", confounds=())
    expected = cleaned(tree.values["01", "1"], np.zeros((N_VOLUMES, 0)), np.arange(3, N_VOLUMES))
    np.testing.assert_allclose(data.bold[:7], expected[3:10], atol=2e-4)


def test_scrubbed_volumes_take_no_part(tree):
    table = tree.confounds["01", "1"].copy()
    table.loc[[5, 8], "framewise_displacement"] = 3.0
    write_confounds(tree, "1", table)
    options = {"motion": "basic", "scrub": 0, "fd_threshold": 0.5, "std_dvars_threshold": 2}
    strategy = ("motion", "high_pass", "wm_csf", "scrub")
    with pytest.warns(UserWarning, match="2 volumes scrubbed"):
        data = load(tree, confounds=strategy, confound_options=options)
    keep = np.setdiff1d(np.arange(N_VOLUMES), [5, 8])
    first = cleaned(tree.values["01", "1"], table[CONFOUNDS].to_numpy(), keep)
    second = every_volume(tree, "2")
    expected = (first + second) / 2
    expected[[5, 8]] = second[[5, 8]]
    np.testing.assert_allclose(data.bold[:10], expected[3:13], atol=2e-4)
    assert data.n_repeats[:10].tolist() == [2, 2, 1, 2, 2, 1, 2, 2, 2, 2]
    assert data.counts["scrubbed_volumes"] == 2
    with pytest.warns(UserWarning):
        alone = load(tree, run="1", confounds=strategy, confound_options=options)
    assert alone.n_repeats[:6].tolist() == [1, 1, 0, 1, 1, 0]
    assert not alone.bold[alone.n_repeats == 0].any()
    assert alone.counts["samples_without_bold"] == 2


def test_leading_nan_is_filled_and_counted(tree):
    with pytest.warns(UserWarning, match="12 confounds with leading NaN filled"):
        data = load(tree, confound_options={"motion": "derivatives"})
    assert np.isfinite(data.bold).all()
    assert data.counts["leading_nan_confounds"] == 12
    table = tree.confounds["01", "1"].copy()
    table.loc[:3, "csf"] = np.nan
    write_confounds(tree, "1", table)
    with pytest.warns(UserWarning, match="1 confounds with leading NaN"):
        load(tree)
    table.loc[20, "csf"] = np.nan
    write_confounds(tree, "1", table)
    with pytest.raises(io.InputError, match="must be finite after its first rows; csf is not"):
        load(tree)


@pytest.mark.parametrize("space", SPACES)
def test_constant_and_non_finite_voxels(tmp_path, space):
    tree = make_tree(tmp_path, space)
    values = tree.values["01", "1"].copy()
    values[:, 3] = 7.0
    values[10, 5] = np.nan
    values[:, 6] = np.nan
    values[2, 7] = np.inf
    # a ramp is nothing but trend
    values[:, 8] = np.arange(N_VOLUMES)
    folder = tree.derivatives / "sub-01" / "func"
    write_bold(folder, "sub-01_task-movie_run-1", space, values)
    with pytest.warns(UserWarning, match="5 constant or non-finite voxels masked"):
        data = load(tree)
    bad = [3, 5, 6, 7, 8]
    assert np.flatnonzero(~data.voxels).tolist() == bad
    # one mask for all: the film that only run 2 shows has them at 0 too
    assert not data.bold[:, bad].any()
    assert data.bold[:, data.voxels].std(axis=0).min() > 0.5
    assert data.counts["masked_voxels"] == 5
    assert data.counts["constant_voxels"] == 1
    assert data.counts["non_finite_voxels"] == 3


def test_no_voxel_left(tree):
    for run in ("1", "2"):
        folder = tree.derivatives / "sub-01" / "func"
        write_bold(folder, f"sub-01_task-movie_run-{run}", tree.space, np.ones((N_VOLUMES, 55)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(io.InputError, match="No voxel of sub-01"):
            load(tree)


def test_high_pass_made_here(tree):
    # fMRIPrep's cosines for 90 s and 1/128 s: one regressor; nilearn makes the same
    data = load(tree, confounds=("motion",), high_pass=1 / 60, repeats="concatenate")
    n = np.arange(N_VOLUMES)
    order = int(np.floor(2 * N_VOLUMES * T_R / 60))
    drifts = [np.cos(np.pi / N_VOLUMES * (n + 0.5) * (k + 1)) for k in range(order)]
    confounds = np.column_stack([tree.confounds["01", "1"][MOTION], *drifts])
    expected = cleaned(tree.values["01", "1"], confounds, n)
    np.testing.assert_allclose(data.bold[:10], expected[3:13], atol=2e-4)
    with pytest.raises(ValueError, match="exclude each other"):
        load(tree, high_pass=0.01)


def test_confounds_that_cannot_be_used(tree):
    with pytest.raises(io.InputError, match=r"cannot be used: .*power2") as error:
        io.load_runs(tree.bids_dir)  # 24 motion parameters: their powers are not in the table
    assert "\n" not in str(error.value)
    with pytest.raises(io.InputError, match="cannot be used"):
        load(tree, confounds=("nonsense",))
    with pytest.raises(io.InputError, match="cannot be used"):
        load(tree, confound_options={"nonsense": 1})
    wide = tree.confounds["01", "1"].copy()
    for i in range(40):
        wide[f"cosine{i + 2:02d}"] = np.random.default_rng(i).normal(size=N_VOLUMES)
    write_confounds(tree, "1", wide)
    with pytest.raises(io.InputError, match="confounds leave nothing of 45 volumes"):
        load(tree)
    write_confounds(tree, "1", tree.confounds["01", "1"].iloc[:-1])
    with pytest.raises(io.InputError, match="one row per volume: 45; got 44"):
        load(tree)
    tree.func("*run-1_desc-confounds_timeseries.tsv").unlink()
    with pytest.raises(io.InputError, match="No confounds file"):
        load(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tree, confounds=())


def test_films_of_variable_rate_are_counted(tree):
    runs = io.find_runs(tree.bids_dir)
    uneven = replace(runs[0].films[0], variable_rate=True)
    runs[0] = replace(runs[0], films=(uneven, *runs[0].films[1:]))
    with pytest.warns(UserWarning, match="1 films of variable frame rate"):
        data = io.load_runs(runs, confound_options=BASIC)
    assert data.counts["variable_rate_films"] == 1


def test_options(tree):
    with pytest.raises(ValueError, match="`repeats` must be"):
        load(tree, repeats="median")
    with pytest.raises(io.InputError, match="`mask` is for volumes"):
        load(tree, mask="intersection")
    short = load(tree, tail=0.0)
    # 9 s of rest stay, as context of the next film, and do not count
    assert short.films[short.presentations == 0].tolist() == [0] * 10 + [-1] * 5
    assert (load(tree, tail=4.0).films == -1).sum() == 9


def test_one_subject(tmp_path):
    tree = make_tree(tmp_path, subjects=("01", "02"))
    with pytest.raises(io.InputError, match="`subject` must name one subject; there are 01, 02"):
        load(tree)
    assert load(tree, subject="02").subject == "02"


def test_damage_that_the_header_does_not_show(tmp_path):
    tree = make_tree(tmp_path, "MNI152NLin2009cAsym")
    path = tree.func("*run-2*_bold.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    content[len(content) // 2 + 1] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(io.InputError, match=r"run-2.*damaged"):
        load(tree)


def test_memory_holds_the_result_and_one_run(tmp_path):
    tree = make_tree(tmp_path, "fsLR")
    n_wide, n_runs = 20000, 8
    models = nib.cifti2.BrainModelAxis.from_mask(np.ones(n_wide, bool), name="CortexLeft")
    series = nib.cifti2.SeriesAxis(0, T_R, N_VOLUMES)
    folder = tree.derivatives / "sub-01" / "func"
    table = tree.confounds["01", "1"]
    random = np.random.default_rng(0)
    values = random.normal(size=(N_VOLUMES, n_wide)).astype(np.float32)
    for run in range(1, n_runs + 1):
        stem = f"sub-01_task-movie_run-{run}"
        path = folder / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii"
        nib.save(nib.Cifti2Image(values, header=(series, models)), path)
        path = folder / f"{stem}_desc-confounds_timeseries.tsv"
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
        (folder / f"{stem}_desc-confounds_timeseries.json").write_text("{}")
        (folder / f"{stem}_space-fsLR_den-91k_bold.json").write_text('{"StartTime": 0}')
        write_events(tree.events(str(run)), [(6.0, 20.0, "a.mp4")])
    runs = io.find_runs(tree.bids_dir)
    load_runs = {"confounds": ("motion",), "confound_options": BASIC}
    io.load_runs(runs[:1], **load_runs)  # what is imported and cached counts once
    tracemalloc.start()
    data = io.load_runs(runs, **load_runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(data.n_repeats) == {n_runs}
    # the averages, one run, and one block of voxels in double precision several times
    one_run, block = values.nbytes, N_VOLUMES * 4096 * 8
    assert peak < data.bold.nbytes + 2.5 * one_run + 8 * block


class Shown:
    """A run of which only the films matter."""

    def __init__(self, *films):
        self.films = [io.Presentation(film, Path(film), 0.0, 20.0) for film in films]


def test_films_of_one_scanner_run_are_never_apart():
    runs = [Shown("a", "b"), Shown("c"), Shown("b", "a"), Shown("d", "c")]
    groups = groups_of_films(runs, ["a", "b", "c", "d"])
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_films_are_the_units_where_everything_hangs_together():
    groups = groups_of_films([Shown("a", "b"), Shown("b", "c")], ["a", "b", "c"])
    assert len(np.unique(groups)) == 3


def test_rows_of_data(tree):
    data = load(tree, repeats="concatenate")
    shown = data.shows("b")
    assert shown.tolist() == (data.films == 1).tolist()
    part = data[~shown]
    assert set(part.films) == {0, 2}
    np.testing.assert_array_equal(part.bold, data.bold[~shown])
    np.testing.assert_array_equal(part.labels["films"], data.groups[~shown])
    # a hole ends a run: no delay reaches over it
    holed = data[np.r_[0:4, 6:10]]
    assert holed.runs.tolist() == [0] * 4 + [1] * 4
    assert data[2:5].runs.tolist() == [0] * 3
    with pytest.raises(io.InputError, match="must be named"):
        data.shows("z.mp4")


def test_images_are_nan_without_data(tree):
    data = load(tree)
    data.voxels[3] = False
    image = data.to_image(np.arange(len(data.voxels)))
    back = np.concatenate([part.ravel() for part in image.data.parts.values()])
    assert np.isnan(back).nonzero()[0].tolist() == [3]
    assert data.to_image(data.bold[:2]).shape[1] == 2
