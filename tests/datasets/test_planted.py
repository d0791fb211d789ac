"""The planted responses, against independent computations."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gamma
from sklearn.linear_model import LinearRegression

from brainnrds.datasets import footage, planted, soundtrack


def test_the_generator_does_not_know_the_fitted_features():
    for module in (planted, footage, soundtrack):
        tree = ast.parse(Path(module.__file__).read_text())
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any("features" in name or "moten" in name for name in names)


def test_haemodynamic_design_is_a_convolution():
    step = 0.01
    time = np.arange(0, 60, step)
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    response /= response.sum() * step
    onsets = np.array([3.0, 11.0])
    volumes = np.arange(0, 40, 1.7)
    design = planted.haemodynamic_design(volumes, onsets)
    for column, onset in enumerate(onsets):
        boxcar = ((time >= onset) & (time < onset + 2)).astype(float)
        course = np.convolve(boxcar, response)[: len(time)] * step
        np.testing.assert_allclose(design[:, column], np.interp(volumes, time, course), atol=2e-3)


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(5)
    region = np.repeat(np.arange(-1, len(planted.REGIONS)), 20)
    tuning, truth = planted.plant_voxels(region, snr=0.2, rng=rng)
    return region, tuning, truth


def test_labels_follow_regions(population):
    region, tuning, truth = population
    np.testing.assert_array_equal(tuning.voxels, np.flatnonzero(region >= 0))
    assert set(truth.label[region < 0]) == {"none"}
    assert not truth.unique_motion[region < 0].any()
    for index, (name, label, _, _) in enumerate(planted.REGIONS):
        assert set(truth.label[region == index]) == {label}
        assert set(truth.region[region == index]) == {name}
    flow = truth.label == "flow"
    np.testing.assert_array_equal(np.isfinite(truth.direction), flow)
    np.testing.assert_array_equal(np.isfinite(truth.field_x), flow & (truth.region != "CSv"))


def test_pure_voxels_have_no_share_of_the_other_space(population):
    truth = population[2]
    motion = np.isin(truth.label, ["motion", "flow"])
    assert (truth.unique_static[motion] == 0).all()
    assert (truth.unique_motion[truth.label == "static"] == 0).all()
    assert np.median(truth.unique_motion[motion]) > 0.7
    assert np.median(truth.unique_static[truth.label == "static"]) > 0.35
    mixed = truth.label == "mixed"
    assert (truth.unique_motion[mixed] > 0.03).all()
    assert np.median(truth.unique_static[mixed]) > 0.1


def test_unique_shares_hold_on_clips_never_used(population):
    """Another draw of films, the other space regressed out by scikit-learn."""
    _, tuning, truth = population
    rng = np.random.default_rng(77)
    windows = footage.plan_windows(4, rng)
    onsets = 2.0 * np.arange(50)
    design = planted.haemodynamic_design(onsets, onsets)
    static, bold = [], []
    for index in range(20):
        clips = footage.plan_film(windows[index % 4], 50, rng)
        channels = planted.clip_responses(clips)
        for out, response in (
            (static, channels.static.reshape(50, -1) - tuning.static_mean),
            (bold, planted.voxel_responses(tuning, clips)),
        ):
            course = design @ response
            out.append(course - course.mean(axis=0))
    halves = [(np.concatenate(static[half::2]), np.concatenate(bold[half::2])) for half in (0, 1)]
    fits = [LinearRegression(fit_intercept=False).fit(*half) for half in halves]

    def share_left(fit, half):
        rest = half[1] - fit.predict(half[0])
        return (rest**2).sum(axis=0) / (half[1] ** 2).sum(axis=0)

    # a fit explains too much of the films that it was fitted to, too little of others
    low = np.mean([share_left(fits[half], halves[half]) for half in (0, 1)], axis=0)
    high = np.mean([share_left(fits[1 - half], halves[half]) for half in (0, 1)], axis=0)
    expected = truth.unique_motion[tuning.voxels]
    labels = truth.label[tuning.voxels]
    assert np.corrcoef(low, expected)[0, 1] > 0.95
    for label in ("static", "mixed", "motion", "flow"):
        chosen = labels == label
        assert np.median(low[chosen] - expected[chosen]) < 0.02
        assert np.median(high[chosen] - expected[chosen]) > -0.02
    bold = np.concatenate([half[1] for half in halves])
    # and the variance of the response is the one that the explainable variance states
    snr = truth.explainable_variance / (1 - truth.explainable_variance)
    ratio = bold.var(axis=0) / snr[tuning.voxels]
    assert 0.75 < np.median(ratio) < 1.3
    assert np.median(snr[tuning.voxels]) == pytest.approx(0.2)


def test_flow_voxels_prefer_their_direction_and_place(population):
    """A response to motion the preferred way at the place, none to the opposite way."""
    _, tuning, truth = population
    clip = footage.plan_film(
        footage.plan_windows(2, np.random.default_rng(0))[0], 1, np.random.default_rng(1)
    )[0]
    plain = {**vars(clip), "zoom": 0.0, "speed": 0.0, "patch_window": None}
    responses = []
    angles = np.arange(8) * np.pi / 4
    for angle in angles:
        pan = (0.1 * np.cos(angle), 0.1 * np.sin(angle))
        responses.append(
            planted.voxel_responses(tuning, [footage.Clip(**{**plain, "pan": pan})])[0]
        )
    best = angles[np.argmax(responses, axis=0)]
    flow = truth.label[tuning.voxels] == "flow"
    miss = np.angle(np.exp(1j * (best - truth.direction[tuning.voxels])))[flow]
    assert np.abs(miss).max() <= np.pi / 8 + 1e-6


@pytest.fixture(scope="module")
def hearing():
    region = np.repeat(np.arange(-1, len(planted.HEARING_REGIONS)), 40)
    return region, *planted.plant_hearing_voxels(region, snr=0.2, rng=np.random.default_rng(6))


def test_hearing_voxels_answer_to_sound_or_to_words(hearing):
    region, tuning, truth = hearing
    np.testing.assert_array_equal(tuning.voxels, np.flatnonzero(region >= 0))
    names, labels = np.array([(n, label) for n, label, _, _ in planted.HEARING_REGIONS]).T
    np.testing.assert_array_equal(truth.region, names[region[region >= 0]])
    np.testing.assert_array_equal(truth.label, labels[region[region >= 0]])
    sound, words = truth.label == "sound", truth.label == "words"
    assert not truth.unique_words[sound].any() and not truth.unique_sound[words].any()
    assert (truth.unique_sound[sound] > 0.5).all() and (truth.unique_words[words] > 0.4).all()


def test_noise_for_the_sound_or_the_words_changes_those_voxels_alone(hearing):
    """Other tones leave voxels of words as they are; other words those of sound."""
    _, tuning, truth = hearing
    clips = soundtrack.plan_sound(40, np.random.default_rng(1))
    others = soundtrack.plan_sound(40, np.random.default_rng(2))
    pairs = list(zip(clips, others, strict=True))
    before = planted.hearing_responses(tuning, clips)
    for changed, label in (
        (
            [replace(a, tones=b.tones, noise=b.noise) for a, b in zip(clips, others, strict=True)],
            "sound",
        ),
        ([replace(a, words=b.words) for a, b in pairs], "words"),
    ):
        moved = np.abs(planted.hearing_responses(tuning, changed) - before).max(axis=0) > 1e-6
        np.testing.assert_array_equal(moved, truth.label == label)


def test_shares_of_hearing_hold_on_films_never_used(hearing):
    """Another draw of sound tracks, the other space regressed out by scikit-learn."""
    _, tuning, truth = hearing
    rng = np.random.default_rng(78)
    onsets = 2.0 * np.arange(60)
    design = planted.haemodynamic_design(onsets, onsets)
    channels, bold = [], []
    for _ in range(60):
        clips = soundtrack.plan_sound(60, rng)
        channels.append(design @ (planted.sound_responses(clips) - tuning.mean))
        bold.append(design @ planted.hearing_responses(tuning, clips))
    channels, bold = (np.concatenate([c - c.mean(0) for c in parts]) for parts in (channels, bold))
    n_sound = planted._N_SOUND_CHANNELS
    for share, other in (
        (truth.unique_sound, channels[:, n_sound:]),
        (truth.unique_words, channels[:, :n_sound]),
    ):
        rest = bold - LinearRegression().fit(other, bold).predict(other)
        np.testing.assert_allclose((rest**2).sum(0) / (bold**2).sum(0), share, atol=0.08)
    snr = truth.explainable_variance / (1 - truth.explainable_variance)
    assert np.median(bold.var(axis=0) / snr) == pytest.approx(1, abs=0.15)
    assert np.median(snr) == pytest.approx(0.2)
