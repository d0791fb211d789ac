"""Sound: the measures against closed forms and an independent filter bank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds.features import Loudness, Spectrum
from brainnrds.features.sound import mel_weights
from brainnrds.io import InputError

RATE = 16000
TIME = np.arange(2 * RATE) / RATE


def tone(hertz, amplitude=0.5, modulated=0.0):
    envelope = 1 + 0.9 * np.sin(2 * np.pi * modulated * TIME) if modulated else 1.0
    return (amplitude * envelope * np.sin(2 * np.pi * hertz * TIME))[None].astype(np.float32)


@settings(derandomize=True, max_examples=20, deadline=None)
@given(amplitude=st.floats(1e-3, 1.0), gain=st.floats(0.1, 1.0))
def test_loudness_is_the_level_of_a_tone_in_decibels(amplitude, gain):
    level = Loudness().transform(tone(1000, amplitude))[0, 0]
    assert level == pytest.approx(20 * np.log10(amplitude / np.sqrt(2)), abs=0.05)
    softer = Loudness().transform(tone(1000, amplitude) * np.float32(gain))[0, 0]
    if amplitude * gain > 1e-3:
        assert softer - level == pytest.approx(20 * np.log10(gain), abs=0.01)


def test_steady_sound_does_not_change_and_silence_is_the_floor():
    mean, deviation, change = Loudness().transform(np.zeros((1, RATE), np.float32))[0]
    assert (mean, deviation, change) == (-80, 0, 0)
    steady = Loudness().transform(tone(1000))[0]
    moving = Loudness().transform(tone(1000, modulated=3.0))[0]
    assert steady[1:].max() < 0.05 and moving[1:].min() > 0.5


def test_the_filter_bank_equals_that_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils")
    expected = audio.mel_filter_bank(
        num_frequency_bins=201,
        num_mel_filters=20,
        min_frequency=0.0,
        max_frequency=RATE / 2,
        sampling_rate=RATE,
        norm=None,
        mel_scale="htk",
    )
    np.testing.assert_allclose(mel_weights(20, 400, RATE), expected.T, atol=1e-6)


@pytest.mark.parametrize("hertz", [300, 1000, 3000])
def test_a_tone_is_found_in_its_band(hertz):
    features = Spectrum(24, modulations=()).transform(tone(hertz))[0]
    peaks = mel_weights(24, 400, RATE) @ (np.abs(np.fft.rfftfreq(400, 1 / RATE) - hertz) < 21)
    assert abs(int(features.argmax()) - int(peaks.argmax())) <= 1


@pytest.mark.parametrize(("hertz", "band"), [(1.5, 0), (3.0, 1), (6.0, 2), (12.0, 3)])
def test_a_modulation_is_found_in_its_band(hertz, band):
    spectrum = Spectrum(16)
    features = spectrum.transform(tone(1000, modulated=hertz)).reshape(5, 16)
    loudest = features[0].argmax()
    assert features[1:, loudest].argmax() == band


@pytest.mark.parametrize("extractor", [Loudness(), Spectrum()])
@pytest.mark.parametrize(
    "waves", [np.zeros(10), np.zeros((2, 0)), np.zeros((1, 9), int), np.full((1, 9), np.nan)]
)
def test_what_is_no_sound_is_refused(extractor, waves):
    with pytest.raises(InputError, match="`waves` must be"):
        extractor.transform(waves)
