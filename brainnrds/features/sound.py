"""What a film sounds like, without a network: how loud, and in which pitches.

A sound extractor has ``modality = "sound"`` and a `rate` (Hz), and gets waves in place of clips:
arrays (n_clips, n_samples), each the sound of one clip, from its onset to its end and nothing after
it; with a `context` (s) from so long before the onset.
"""

import numpy as np

from brainnrds._checks import InputError
from brainnrds.features._extractor import Extractor

__all__ = ["Loudness", "Spectrum", "mel_weights"]

# silence: -80 dB below full scale, about the noise floor of a film's sound track
_FLOOR = 1e-4


def check_waves(waves):
    """Return waves that are float, finite and of shape (n_clips, n_samples)."""
    waves = np.asarray(waves)
    if waves.ndim != 2 or 0 in waves.shape or waves.dtype.kind != "f":
        raise InputError(
            "`waves` must be float with shape (n_clips, n_samples), not empty; got "
            f"{waves.dtype} {waves.shape}."
        )
    if not np.isfinite(waves).all():
        raise InputError("`waves` must be finite; got NaN or infinity.")
    return waves


def _windows(waves, n):
    """Cut waves into windows of n samples, half overlapping: (n_clips, n_windows, n)."""
    n = min(n, waves.shape[1])
    return np.lib.stride_tricks.sliding_window_view(waves, n, axis=1)[:, :: max(1, n // 2)]


class Loudness(Extractor):
    """How loud each clip is, and how much that changes within it.

    Parameters
    ----------
    rate : int, default=16000
        Samples per second that it wants.
    window : float, default=0.05
        Seconds over which the root mean square is taken.

    Notes
    -----
    Columns: mean and standard deviation over windows of the root mean square in decibels below
    full scale, and the mean absolute difference of neighbouring windows. Silence counts as -80 dB.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import Loudness
    >>> loud, soft = np.ones((1, 16000), "float32"), np.full((1, 16000), 0.1, "float32")
    >>> Loudness().transform(np.concatenate([loud, soft]))[:, 0].round().tolist()
    [0.0, -20.0]
    """

    modality = "sound"

    def __init__(self, *, rate=16000, window=0.05):
        self.rate = rate
        self.window = window

    def transform(self, waves):
        """Measure the loudness of clips.

        Parameters
        ----------
        waves : array of shape (n_clips, n_samples)

        Returns
        -------
        features : array of float32 of shape (n_clips, 3)
        """
        windows = _windows(check_waves(waves), max(1, round(self.window * self.rate)))
        power = np.sqrt(np.mean(windows.astype(np.float64) ** 2, axis=2))
        decibel = 20 * np.log10(np.maximum(power, _FLOOR))
        change = np.abs(np.diff(decibel, axis=1))
        steps = change.mean(axis=1) if change.shape[1] else np.zeros(len(windows))
        features = [decibel.mean(axis=1), decibel.std(axis=1), steps]
        return np.stack(features, axis=1).astype(np.float32)


class Spectrum(Extractor):
    """Power in bands of pitch, and how fast each band is modulated.

    Parameters
    ----------
    n_bands : int, default=32
        Triangular bands, equally spaced on the mel scale.
    modulations : tuple of float, default=(2.0, 4.0, 8.0, 16.0)
        Upper ends of the bands of temporal modulation, in Hz; speech has most power at 4 to 8 Hz.
        Empty: no modulations.
    rate : int, default=16000
        Samples per second that it wants; half of it is the highest pitch.
    window : float, default=0.025
        Seconds of the short-time spectrum; neighbours overlap by half.

    Notes
    -----
    Per band of pitch: the mean over the clip of the logarithm of power, then for each band of
    modulation the logarithm of the power of its envelope's fluctuations (a coarse form of the
    modulation spectra of [1]_).

    References
    ----------
    .. [1] Santoro R, et al. (2014). Encoding of natural sounds at multiple spectral and temporal
       resolutions in the human auditory cortex. PLoS Computational Biology 10, e1003412.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import Spectrum
    >>> t = np.arange(16000) / 16000
    >>> tone = np.sin(2 * np.pi * 440 * t)[None].astype("float32")
    >>> Spectrum(n_bands=8, modulations=()).transform(tone).argmax()
    np.int64(1)
    """

    modality = "sound"

    def __init__(self, n_bands=32, *, modulations=(2.0, 4.0, 8.0, 16.0), rate=16000, window=0.025):
        self.n_bands = n_bands
        self.modulations = modulations
        self.rate = rate
        self.window = window

    def transform(self, waves):
        """Describe the spectrum of clips.

        Parameters
        ----------
        waves : array of shape (n_clips, n_samples)

        Returns
        -------
        features : array of float32 of shape (n_clips, n_bands * (1 + n_modulations))
        """
        waves = check_waves(waves)
        windows = _windows(waves, max(2, round(self.window * self.rate)))
        n = windows.shape[2]
        shape = np.hanning(n + 2)[1:-1]
        spectra = np.abs(np.fft.rfft(windows * shape, axis=2)) ** 2 / np.sum(shape**2)
        bands = spectra @ mel_weights(self.n_bands, n, self.rate).T
        levels = np.log10(np.maximum(bands, _FLOOR**2))
        features = [levels.mean(axis=1)]
        if len(self.modulations):
            interval = max(1, n // 2) / self.rate
            envelopes = np.abs(np.fft.rfft(levels - levels.mean(1, keepdims=True), axis=1)) ** 2
            hertz = np.fft.rfftfreq(levels.shape[1], interval)
            lower = 0.0
            for upper in self.modulations:
                inside = (hertz > lower) & (hertz <= upper)
                power = envelopes[:, inside].sum(axis=1) / levels.shape[1] ** 2
                features.append(np.log10(power + _FLOOR))
                lower = upper
        return np.concatenate(features, axis=1).astype(np.float32)


def mel_weights(n_bands, n_samples, rate):
    """Triangular bands, equally spaced on the mel scale of O'Shaughnessy (2595 log10(1 + f/700)).

    Parameters
    ----------
    n_bands : int
    n_samples : int
        Of the window whose spectrum is weighted.
    rate : int
        Samples per second.

    Returns
    -------
    weights : array of shape (n_bands, n_samples // 2 + 1)
        Rows have their peak at 1.
    """
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, n_bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(n_samples, 1 / rate)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (hertz - low) / (peak - low), (high - hertz) / (high - peak)
    return np.clip(np.minimum(rising, falling), 0, None)
