"""Sound tracks with known content: tones, bands of noise, and a voice that speaks or babbles.

A sound track is a sequence of clips of 2 s, as a film is (:mod:`brainnrds.datasets.footage`), drawn
on its own: what is heard says nothing about what moves. Speech and babble are made of the same
syllables, so that words are told by the transcript and not by the sound.
"""

from dataclasses import dataclass

import numpy as np

from brainnrds.datasets.footage import CLIP_DURATION

__all__ = ["CATEGORIES", "SOUND_RATE", "ClipSound", "plan_sound", "render_sound", "transcribe"]

SOUND_RATE = 16000  # Hz
TONES = (220.0, 330.0, 495.0, 742.0, 1114.0, 1670.0)  # Hz
NOISE_BANDS = ((250.0, 500.0), (500.0, 1000.0), (1000.0, 2000.0), (2000.0, 4000.0))  # Hz
LEVELS = (0.02, 0.05, 0.12)  # root mean square, of full scale
#: The words that are spoken, by what they mean.
CATEGORIES = {
    "animals": ("dog", "horse", "spider", "rabbit", "fish", "eagle"),
    "places": ("house", "garden", "river", "market", "road", "castle"),
    "actions": ("run", "carry", "open", "follow", "jump", "gather"),
}
_AMBIENCE = 0.002
_VOICE = 0.1
_HARMONICS = 14
_VOICE_STATES, _STATE_SHARES = ("silent", "speaks", "babbles"), (0.4, 0.4, 0.2)


@dataclass(frozen=True)
class ClipSound:
    """What is heard in two seconds.

    Attributes
    ----------
    tones : tuple of float
        Root mean square of the tone at each of `TONES`.
    noise : tuple of float
        Of the noise in each of `NOISE_BANDS`.
    syllables : tuple of (float, float, float)
        Onset (s from the clip's start), duration (s) and fundamental frequency (Hz).
    words : tuple of (int, str)
        The syllable with which a word begins, and the word; none where the voice babbles.
    """

    tones: tuple
    noise: tuple
    syllables: tuple
    words: tuple

    def count_words(self):
        """Number of words of each category: array of shape (n_categories,)."""
        spoken = [word for _, word in self.words]
        return np.array([sum(word in own for word in spoken) for own in CATEGORIES.values()])


def _draw_levels(n, rng):
    """One of n sources sounds, or none."""
    levels = np.zeros(n)
    if rng.random() < 0.6:
        levels[rng.integers(n)] = rng.choice(LEVELS)
    return tuple(levels.tolist())


def _draw_speech(n_syllables, speaks, rng):
    """Syllables that follow each other evenly, and the words that they make up."""
    step = CLIP_DURATION / n_syllables
    pitch = rng.uniform(100, 220)
    syllables = tuple(
        (i * step, float(rng.uniform(0.6, 0.9) * step), float(pitch * rng.uniform(0.9, 1.15)))
        for i in range(n_syllables)
    )
    # babble is divided in the same way, so that both draw alike
    words, first, vocabulary = [], 0, [*CATEGORIES.values()]
    while first < n_syllables:
        word = str(rng.choice(vocabulary[rng.integers(len(vocabulary))]))
        words.append((first, word))
        first += int(rng.integers(1, 3))
    return syllables, tuple(words) if speaks else ()


def plan_sound(n_clips, rng):
    """Draw the sound track of one film.

    Parameters
    ----------
    n_clips : int
    rng : numpy.random.Generator

    Returns
    -------
    clips : list of n_clips ClipSound
        Tone, noise and voice each keep their state for one to three clips.
    """
    states = {"tones": (), "noise": (), "voice": ("silent", 0)}
    until = dict.fromkeys(states, 0)
    clips = []
    for index in range(n_clips):
        for source in states:
            if until[source] > index:
                continue
            until[source] = index + int(rng.integers(1, 4))
            if source == "voice":
                state = str(rng.choice(_VOICE_STATES, p=_STATE_SHARES))
                states[source] = state, int(rng.integers(3, 10))
            else:
                states[source] = _draw_levels(len(TONES if source == "tones" else NOISE_BANDS), rng)
        state, n_syllables = states["voice"]
        speech = (), ()
        if state != "silent":
            speech = _draw_speech(n_syllables, state == "speaks", rng)
        clips.append(ClipSound(states["tones"], states["noise"], *speech))
    return clips


def _noise_in(band, n, rng):
    """Noise of unit root mean square between two frequencies."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / SOUND_RATE)
    spectrum[(hertz < band[0]) | (hertz >= band[1])] = 0
    wave = np.fft.irfft(spectrum, n)
    return wave / np.sqrt(np.mean(wave**2))


def _syllable(n, pitch):
    """A voiced sound with two formants, that swells and fades."""
    time = np.arange(n) / SOUND_RATE
    hertz = pitch * np.arange(1, _HARMONICS + 1)
    formants = np.exp(-(((hertz - 550) / 250) ** 2)) + 0.6 * np.exp(-(((hertz - 1500) / 350) ** 2))
    wave = (formants + 0.03) @ np.sin(2 * np.pi * hertz[:, None] * time)
    wave *= np.hanning(n + 2)[1:-1]
    return wave / np.sqrt(np.mean(wave**2))


def render_sound(clips, rng):
    """Make the wave of a sound track.

    Parameters
    ----------
    clips : list of ClipSound
    rng : numpy.random.Generator
        For the noise.

    Returns
    -------
    wave : array of float32 of shape (n_samples,)
        One channel at `SOUND_RATE`, within [-1, 1].
    """
    n = round(CLIP_DURATION * SOUND_RATE)
    wave = _AMBIENCE * rng.standard_normal(len(clips) * n)
    bands = [_noise_in(band, n, rng) for band in NOISE_BANDS]
    time = np.arange(n) / SOUND_RATE
    # 10 ms at either end, or clips would click
    edges = np.clip(np.minimum(time, time[::-1]) / 0.01, 0, 1)
    tones = [np.sqrt(2) * np.sin(2 * np.pi * hertz * time) for hertz in TONES]
    for index, clip in enumerate(clips):
        part = wave[index * n : (index + 1) * n]
        for level, source in zip(clip.tones + clip.noise, tones + bands, strict=True):
            if level:
                part += level * edges * source
        for onset, duration, pitch in clip.syllables:
            first, length = round(onset * SOUND_RATE), round(duration * SOUND_RATE)
            part[first : first + length] += _VOICE * _syllable(length, pitch)
    return np.clip(wave, -1, 1).astype(np.float32)


def transcribe(clips):
    """When which words are spoken.

    Parameters
    ----------
    clips : list of ClipSound

    Returns
    -------
    words : list of (float, float, str)
        Onset and duration in s from the film's first frame, and the word, in order.
    """
    rows = []
    for index, clip in enumerate(clips):
        # a word ends where the next begins, the last one with the voice
        ends = [first for first, _ in clip.words[1:]] + [len(clip.syllables)]
        for (first, word), end in zip(clip.words, ends, strict=False):
            onset = clip.syllables[first][0]
            last = clip.syllables[end - 1]
            begin = index * CLIP_DURATION + onset
            rows.append((begin, last[0] + last[1] - onset, word))
    return rows
