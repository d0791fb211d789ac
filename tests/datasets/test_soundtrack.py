"""Sound tracks of the sample data: what is heard is what was planned, when it was planned."""

import numpy as np
import pytest

from brainnrds.datasets.soundtrack import (
    CATEGORIES,
    LEVELS,
    NOISE_BANDS,
    SOUND_RATE,
    TONES,
    ClipSound,
    plan_sound,
    render_sound,
    transcribe,
)

N = 2 * SOUND_RATE
SILENT = {"tones": (0.0,) * len(TONES), "noise": (0.0,) * len(NOISE_BANDS)}


def rng(seed=0):
    return np.random.default_rng(seed)


def one(**changes):
    return ClipSound(**{**SILENT, "syllables": (), "words": (), **changes})


@pytest.mark.parametrize("index", range(len(TONES)))
def test_a_tone_has_its_pitch_and_level(index):
    levels = tuple(0.1 * (i == index) for i in range(len(TONES)))
    wave = render_sound([one(tones=levels)], rng())
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) / 2 == pytest.approx(TONES[index], abs=0.5)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("index", range(len(NOISE_BANDS)))
def test_noise_stays_in_its_band(index):
    levels = tuple(0.1 * (i == index) for i in range(len(NOISE_BANDS)))
    power = np.abs(np.fft.rfft(render_sound([one(noise=levels)], rng()))) ** 2
    hertz = np.fft.rfftfreq(N, 1 / SOUND_RATE)
    low, high = NOISE_BANDS[index]
    assert power[(hertz >= low) & (hertz < high)].sum() > 0.99 * power.sum()


def test_a_clip_of_nothing_is_nearly_silent():
    wave = render_sound([one()], rng())
    assert wave.shape == (N,) and wave.dtype == np.float32
    assert np.sqrt(np.mean(wave**2)) < 0.15 * min(LEVELS)


def test_syllables_and_words_are_where_the_transcript_says():
    clips = plan_sound(200, rng(3))
    words = transcribe(clips)
    onsets = np.array([onset for onset, _, _ in words])
    assert (np.diff(onsets) > 0).all() and len(words) > 100
    known = [word for own in CATEGORIES.values() for word in own]
    assert {word for _, _, word in words} == set(known)
    counted = np.bincount((onsets // 2).astype(int), minlength=200)
    np.testing.assert_array_equal(counted, [clip.count_words().sum() for clip in clips])
    voice = [one(syllables=clip.syllables, words=clip.words) for clip in clips]
    wave = render_sound(voice, rng())
    power = np.convolve(wave**2, np.ones(80) / 80, "same")
    for onset, duration, _ in words[1:]:
        first, last = round(onset * SOUND_RATE), round((onset + duration) * SOUND_RATE)
        assert power[first:last].max() > 100 * power[first - 400 : first - 80].mean()


def test_words_cannot_be_told_from_the_sound():
    """Speech and babble have the same syllables: their number, length and pitch."""
    clips = plan_sound(4000, rng(1))
    spoken = [clip for clip in clips if clip.words]
    babbled = [clip for clip in clips if clip.syllables and not clip.words]
    assert 0.3 < len(spoken) / 4000 < 0.5 and 0.1 < len(babbled) / 4000 < 0.3
    for what in (lambda c: len(c.syllables), lambda c: c.syllables[0][2]):
        ours, theirs = ([what(clip) for clip in some] for some in (spoken, babbled))
        assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.08)


def test_the_same_seed_gives_the_same_sound():
    first, again = (render_sound(plan_sound(5, rng(2)), rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
