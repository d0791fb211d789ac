"""The planted brain: what each voxel of the sample data answers to, and where it lies.

Voxels that see answer to the films' pictures, voxels that hear to their sound tracks or to the
words in them; no voxel does both. Nothing here comes from :mod:`brainnrds.features`: the responses
are built from Gabor energies at places, frequencies and orientations of their own, from the known
motion of the films, and from what their sound tracks were made of. A model that fits them well has
found the signal, not its own formula.
"""

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from scipy.stats import gamma
from sklearn.utils import Bunch

from brainnrds.datasets.footage import CLIP_DURATION, flow_at, plan_film, plan_windows, render_clip
from brainnrds.datasets.soundtrack import CATEGORIES, NOISE_BANDS, TONES, plan_sound

__all__ = [
    "HEARING_REGIONS",
    "REGIONS",
    "clip_responses",
    "haemodynamic_design",
    "hearing_responses",
    "measure_hearing",
    "measure_population",
    "plant_hearing_voxels",
    "plant_voxels",
    "sound_responses",
    "voxel_responses",
]

# name, label, coordinate of the right hemisphere in MNI space in mm (x is mirrored for the left),
# radius in mm. Approximate centres from the literature: hMT+ (Dumoulin et al. 2000; Amano et al.
# 2009), V3A and LO1 (Wang et al. 2015), V6 (Pitzalis et al. 2006), CSv (Wall & Smith 2008), VIP
# (Bremmer et al. 2001), V1, V2/V3 and V4 (Wang et al. 2015). The radii are generous: as in people
# who watch films, about a tenth of the cortex answers, and a tenth is what tests corrected for
# 20,000 voxels need to find something in a quarter of an hour.
REGIONS = (
    ("V1", "static", (9, -92, 0), 20),
    ("V3v", "static", (17, -82, -12), 13),
    ("V3d", "static", (23, -95, 13), 12),
    ("LO1", "mixed", (34, -89, 2), 13),
    ("V4", "mixed", (29, -76, -15), 14),
    ("hMT", "motion", (46, -68, 4), 22),
    ("V3A", "motion", (20, -86, 28), 15),
    ("V6", "flow", (14, -76, 40), 16),
    ("VIP", "flow", (25, -60, 56), 16),
    ("CSv", "flow", (12, -26, 42), 13),
)
# Heschl's gyrus (Da Costa et al. 2011), the voice area of the superior temporal gyrus (Pernet et
# al. 2015), language in the posterior superior temporal sulcus and the inferior frontal gyrus
# (Fedorenko et al. 2010)
HEARING_REGIONS = (
    ("A1", "sound", (45, -22, 9), 15),
    ("STG", "sound", (61, -16, 0), 13),
    ("STS", "words", (56, -40, 6), 15),
    ("IFG", "words", (50, 22, 14), 14),
)

_VIEW = (27, 36)  # height, width in pixels of the picture that the planted Gabors see
_VIEW_FPS = 10
_COLUMNS, _ROWS = (-0.36, -0.12, 0.12, 0.36), (-0.24, 0.0, 0.24)  # widths of the frame
_N_DIRECTIONS = 8
_DIRECTIONS = np.arange(_N_DIRECTIONS) * 2 * np.pi / _N_DIRECTIONS
# off the grid of the fitted features: 0, 2, 4, ... cycles per image, 0, 2, 4 Hz, 0, 45, 90, 135 deg
_SPATIAL_FREQUENCIES = (3.1, 6.3)  # cycles per width of the frame
_TEMPORAL_FREQUENCIES = (1.3, 2.7)  # Hz
_ORIENTATIONS = np.deg2rad([20, 65, 110, 155])
_POPULATION_FILMS = 12
_N_SOUND_CHANNELS = len(TONES) + len(NOISE_BANDS) + 2


def _gabors():
    """Complex spatial Gabors: (n_pixels, n_places, n_frequencies, n_orientations)."""
    height, width = _VIEW
    x = (np.arange(width) + 0.5) / width - 0.5
    y = ((np.arange(height) + 0.5) - height / 2) / width
    bank = []
    for row in _ROWS:
        for column in _COLUMNS:
            for frequency in _SPATIAL_FREQUENCIES:
                sigma = 0.4 / frequency
                for angle in _ORIENTATIONS:
                    dx, dy = x[None, :] - column, y[:, None] - row
                    envelope = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
                    wave = np.exp(
                        2j * np.pi * frequency * (dx * np.cos(angle) + dy * np.sin(angle))
                    )
                    wave = wave - (wave * envelope).sum() / envelope.sum()  # blind to luminance
                    bank.append((envelope * wave / np.sqrt((envelope**2).sum())).ravel())
    n_places = len(_ROWS) * len(_COLUMNS)
    return (
        np.stack(bank, axis=1)
        .astype(np.complex64)
        .reshape(height * width, n_places, len(_SPATIAL_FREQUENCIES), len(_ORIENTATIONS))
    )


def _temporal_filters():
    """Filters over the frames of a clip: list of (n_windows, n_frames), 0 Hz first, then +-."""
    n_frames = round(CLIP_DURATION * _VIEW_FPS)
    length = _VIEW_FPS  # windows of 1 s, every 0.5 s
    window = np.hanning(length + 2)[1:-1]
    window /= window.sum()
    time = np.arange(length) / _VIEW_FPS
    filters = []
    for frequency in (0.0, *_TEMPORAL_FREQUENCIES, *(-f for f in _TEMPORAL_FREQUENCIES)):
        wave = np.exp(-2j * np.pi * frequency * time)
        if frequency:
            wave = wave - (window * wave).sum()  # blind to what stands still
        wave = window * wave
        starts = range(0, n_frames - length + 1, length // 2)
        bank = np.zeros((len(starts), n_frames), dtype=np.complex64)
        for row, start in enumerate(starts):
            bank[row, start : start + length] = wave
        filters.append(bank)
    return filters


@lru_cache(maxsize=1)
def _banks():
    return _gabors(), _temporal_filters()


def clip_responses(clips):
    """Answers of the planted feature channels to clips.

    Parameters
    ----------
    clips : list of Clip

    Returns
    -------
    responses : Bunch of float32 arrays, first axis n_clips
        ``static`` (n_clips, 12 places, 2 spatial frequencies, 4 orientations): amplitude at 0 Hz.
        ``motion`` (n_clips, 12, 2, 4, 4): amplitude at 1.3 and 2.7 Hz along, then against, the
        Gabor's direction.
        ``flow`` (n_clips, 12, 8): known local motion in eight directions, rectified, saturating.
        ``pan`` (n_clips, 10): the camera's motion in eight directions, expansion, contraction.
    """
    gabors, filters = _banks()
    shape = gabors.shape[1:]
    flat = gabors.reshape(gabors.shape[0], -1)
    real = np.concatenate([flat.real, flat.imag], axis=1)
    static = np.empty((len(clips), *shape), dtype=np.float32)
    motion = np.empty((len(clips), *shape, len(filters) - 1), dtype=np.float32)
    flow = np.empty((len(clips), shape[0], _N_DIRECTIONS), dtype=np.float32)
    pan = np.empty((len(clips), _N_DIRECTIONS + 2), dtype=np.float32)
    # the receptive field of a place is read at five points
    spread = 0.08 * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    centres = np.array([(column, row) for row in _ROWS for column in _COLUMNS])
    points = centres[:, None] + spread[None]
    units = np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)])
    times = (0.2, 0.6, 1.0, 1.4, 1.8)  # s from the clip's start
    stacked, splits = np.concatenate(filters), np.cumsum([len(bank) for bank in filters])[:-1]
    for index, clip in enumerate(clips):
        frames = render_clip(clip, fps=_VIEW_FPS, size=_VIEW, gray=True)
        signal = frames.reshape(len(frames), -1).astype(np.float32) / 255 @ real
        signal = signal[:, : flat.shape[1]] + 1j * signal[:, flat.shape[1] :]
        amplitudes = np.split(np.abs(stacked @ signal), splits)
        amplitudes = [amplitude.mean(axis=0).reshape(shape) for amplitude in amplitudes]
        static[index] = amplitudes[0]
        motion[index] = np.stack(amplitudes[1:], axis=-1)
        # velocity at the points of every receptive field: (n_times, 2, n_places, 5)
        velocity = np.stack([flow_at(clip, points[..., 0], points[..., 1], time) for time in times])
        speed = np.sqrt((velocity**2).sum(axis=1))
        along = np.maximum(np.einsum("tcpq,cd->tpqd", velocity, units), 0)
        flow[index] = (along / (speed + 0.08)[..., None]).mean(axis=(0, 2))
        speed = np.hypot(*clip.pan)
        pan[index, :-2] = np.maximum(np.array(clip.pan) @ units, 0) / (speed + 0.08)
        pan[index, -2:] = max(clip.zoom, 0), max(-clip.zoom, 0)
    return Bunch(static=static, motion=motion, flow=flow, pan=pan)


def _flatten(responses):
    """The two planted spaces side by side: (n_clips, n_motion), (n_clips, n_static)."""
    n_clips = len(responses.static)
    motion = np.concatenate(
        [responses[name].reshape(n_clips, -1) for name in ("motion", "flow", "pan")], axis=1
    )
    return motion, responses.static.reshape(n_clips, -1)


def measure_population(n_films, *, n_clips=60, seed=20240):
    """Mean and covariance of the planted channels over films that belong to no data set.

    The covariance is that of the haemodynamic responses, each film about its own mean, as BOLD is
    z-scored per run. The figures of 800 films of 2 min (48,000 clips) ship with the package, in
    ``data/population.npz``; ``python -m brainnrds.datasets.planted`` makes them anew.

    Parameters
    ----------
    n_films : int
    n_clips : int, default=60
        Clips per film.
    seed : int

    Returns
    -------
    mean, sd : array of shape (n_channels,)
        Of the answers to single clips; motion channels first, then the static ones.
    covariance : array of shape (n_channels, n_channels)
    """
    rng = np.random.default_rng(seed)
    onsets = np.arange(n_clips) * CLIP_DURATION
    design = haemodynamic_design(onsets, onsets)
    total = square = outer = 0.0
    for film in range(n_films):
        if film % _POPULATION_FILMS == 0:
            windows = plan_windows(_POPULATION_FILMS, rng)
        clips = plan_film(windows[film % _POPULATION_FILMS], n_clips, rng)
        channels = np.concatenate(_flatten(clip_responses(clips)), axis=1).astype(float)
        total = total + channels.sum(axis=0)
        square = square + (channels**2).sum(axis=0)
        # a constant answer has no course of its own, but an onset and an end
        if film == 0:
            start = channels.mean(axis=0)
        bold = design @ (channels - start)
        bold -= bold.mean(axis=0)
        outer = outer + bold.T @ bold
    n_samples = n_films * n_clips
    mean = total / n_samples
    sd = np.sqrt(np.maximum(square / n_samples - mean**2, 0))
    return mean, sd, outer / n_samples


def sound_responses(clips):
    """Answers of the planted channels to what is heard.

    Parameters
    ----------
    clips : list of ClipSound

    Returns
    -------
    channels : array of float of shape (n_clips, 12 + 3)
        Of the sound: the level of each tone and of each band of noise, compressed as in hearing
        (binary logarithm of 1 + level / .01), a voice, and its syllables per s; then the words of
        each category per s.
    """
    rows = []
    for clip in clips:
        levels = np.log2(1 + np.array(clip.tones + clip.noise) / 0.01)
        n_syllables = len(clip.syllables)
        voice = [float(n_syllables > 0), n_syllables / CLIP_DURATION]
        rows.append(np.concatenate([levels, voice, clip.count_words() / CLIP_DURATION]))
    return np.array(rows)


def measure_hearing(n_films, *, n_clips=60, seed=20241):
    """Mean and covariance of what is heard, as `measure_population` gives those of what is seen.

    The figures of 1,000 films of 2 min ship in ``data/hearing.npz``.

    Parameters
    ----------
    n_films, n_clips, seed
        As in `measure_population`.

    Returns
    -------
    mean, sd, covariance
        As from `measure_population`; channels as in `sound_responses`.
    """
    rng = np.random.default_rng(seed)
    channels = np.stack([sound_responses(plan_sound(n_clips, rng)) for _ in range(n_films)])
    onsets = np.arange(n_clips) * CLIP_DURATION
    bold = haemodynamic_design(onsets, onsets) @ (channels - channels.mean(axis=(0, 1)))
    bold -= bold.mean(axis=1, keepdims=True)
    flat = bold.reshape(-1, bold.shape[2])
    return channels.mean(axis=(0, 1)), channels.std(axis=(0, 1)), flat.T @ flat / len(flat)


@lru_cache(maxsize=2)
def _population(name="population"):
    """The shipped figures: mean, sd, covariance."""
    with (files("brainnrds.datasets") / "data" / f"{name}.npz").open("rb") as stream:
        with np.load(stream, allow_pickle=False) as archive:
            mean, sd, upper = (archive[key].astype(float) for key in ("mean", "sd", "upper"))
    covariance = np.zeros((len(mean), len(mean)))
    covariance[np.triu_indices(len(mean))] = upper
    return mean, sd, covariance + np.triu(covariance, 1).T


def _haemodynamic_cdf(time):
    """Integral of the double-gamma response (peak near 5 s, undershoot near 15 s; Glover 1999)."""
    return (gamma.cdf(time, 6) - gamma.cdf(time, 16) / 6) / (1 - 1 / 6)


def haemodynamic_design(volume_times, clip_onsets):
    """Weight of every clip in every volume.

    The response to a clip is constant during the clip and convolved with the double-gamma
    haemodynamic response; the integral is exact, at any time and not only on a grid.

    Parameters
    ----------
    volume_times : array of shape (n_volumes,)
        Seconds.
    clip_onsets : array of shape (n_clips,)
        Seconds on the same clock.

    Returns
    -------
    design : array of shape (n_volumes, n_clips)
    """
    lag = np.subtract.outer(np.asarray(volume_times, float), np.asarray(clip_onsets, float))
    return _haemodynamic_cdf(lag) - _haemodynamic_cdf(lag - CLIP_DURATION)


def _to_unit_variance(weights, covariance):
    """Scale tuning weights (n_channels, n_voxels) so that the responses have unit variance."""
    variance = np.einsum("cv,cv->v", weights, covariance @ weights)
    return weights / np.sqrt(np.maximum(variance, 1e-24))


def _unexplained(weights, covariance, other):
    """Share of each response's variance that the channels `other` do not explain linearly."""
    explained = covariance[np.ix_(other, other)].copy()
    explained[np.diag_indices_from(explained)] *= 1 + 1e-9
    shared = covariance[other] @ weights  # (n_other, n_voxels)
    part = np.einsum("cv,cv->v", shared, np.linalg.solve(explained, shared))
    total = np.einsum("cv,cv->v", weights, covariance @ weights)
    share = 1 - part / total
    # what is left of a response inside the other space is rounding
    return np.where(share < 1e-3, 0, share)


def plant_voxels(region, *, snr, rng):
    """Draw the tuning of voxels and compute the truth about them.

    Parameters
    ----------
    region : int array of shape (n_voxels,)
        Index into `REGIONS`; -1 for voxels that answer to nothing.
    snr : float
        Median, over responsive voxels, of the variance of the response over that of the noise.
    rng : numpy.random.Generator

    Returns
    -------
    tuning : Bunch
        ``voxels`` (n_responsive,) indices; ``motion`` (n_motion_channels, n_responsive) and
        ``static`` (n_static_channels, n_responsive) weights such that the haemodynamic response
        has the voxel's snr as variance; ``motion_mean`` and ``static_mean`` of the channels.
    truth : Bunch
        Arrays over all voxels, see :func:`brainnrds.datasets.make_movie_dataset`.
    """
    mean, sd, covariance = _population()
    n_motion = len(mean) - len(_ROWS) * len(_COLUMNS) * len(_SPATIAL_FREQUENCIES) * len(
        _ORIENTATIONS
    )
    voxels = np.flatnonzero(region >= 0)
    n_voxels, n_responsive = len(region), len(voxels)
    labels = np.array([REGIONS[index][1] for index in region[voxels]])
    names = np.array([REGIONS[index][0] for index in region[voxels]])

    centres = np.array([(column, row) for row in _ROWS for column in _COLUMNS])
    field = np.stack(
        [rng.uniform(-0.4, 0.4, n_responsive), rng.uniform(-0.27, 0.27, n_responsive)], axis=1
    )
    distance = ((field[:, None] - centres[None]) ** 2).sum(-1)  # (n_responsive, 12)
    direction = rng.uniform(0, 2 * np.pi, n_responsive)

    n_places, n_frequencies, n_orientations = len(centres), 2, len(_ORIENTATIONS)
    motion_weights, static_weights = [], []
    share = np.select(
        [labels == "static", labels == "mixed"], [0.0, rng.uniform(0.2, 0.8, n_responsive)], 1.0
    )
    for voxel in range(n_responsive):
        near = np.exp(-distance[voxel] / (2 * 0.13**2))
        wide = np.exp(-distance[voxel] / (2 * 0.30**2))
        static = np.zeros((n_places, n_frequencies, n_orientations))
        energy = np.zeros((n_places, n_frequencies, n_orientations, 4))
        flow = np.zeros((n_places, _N_DIRECTIONS))
        pan = np.zeros(_N_DIRECTIONS + 2)
        preferred = rng.uniform(0, np.pi)
        if labels[voxel] in ("static", "mixed"):
            tuned = 1 + 0.6 * np.cos(2 * (_ORIENTATIONS - preferred))
            coarse = rng.uniform(0.2, 0.8)
            static += near[:, None, None] * np.array([coarse, 1 - coarse])[:, None] * tuned
        if labels[voxel] in ("motion", "mixed"):
            slow = rng.uniform(0.2, 0.8)
            signs = np.concatenate([_ORIENTATIONS, _ORIENTATIONS + np.pi])
            tuned = (1 + 0.4 * np.cos(signs - direction[voxel])).reshape(2, n_orientations).T
            for tf, weight in enumerate((slow, 1 - slow)):
                energy[..., tf] += wide[:, None, None] * weight * tuned[:, 0]
                energy[..., tf + 2] += wide[:, None, None] * weight * tuned[:, 1]
            pan[:_N_DIRECTIONS] += 0.3
            flow += 0.15 * wide[:, None]
        if labels[voxel] == "flow":
            tuned = np.maximum(np.cos(_DIRECTIONS - direction[voxel]), 0) ** 2
            if names[voxel] == "CSv":
                pan[:_N_DIRECTIONS] = tuned
                pan[_N_DIRECTIONS + (voxel % 2)] = 0.5
            else:
                flow = near[:, None] * tuned
        motion_weights.append(np.concatenate([energy.ravel(), flow.ravel(), pan]))
        static_weights.append(static.ravel())
    scale = np.maximum(sd, 1e-9)[:, None]
    motion_weights = _to_unit_variance(
        np.stack(motion_weights, axis=1) / scale[:n_motion], covariance[:n_motion, :n_motion]
    )
    static_weights = _to_unit_variance(
        np.stack(static_weights, axis=1) / scale[n_motion:], covariance[n_motion:, n_motion:]
    )
    # the two parts of a mixed voxel covary, so the sum is scaled once more
    weights = _to_unit_variance(
        np.concatenate([motion_weights * np.sqrt(share), static_weights * np.sqrt(1 - share)]),
        covariance,
    )
    channels = np.arange(len(mean))
    unique_motion = _unexplained(weights, covariance, channels[n_motion:])
    unique_static = _unexplained(weights, covariance, channels[:n_motion])

    voxel_snr = snr * np.exp(rng.normal(0, 0.4, n_responsive))
    voxel_snr *= snr / np.median(voxel_snr)
    weights = (weights * np.sqrt(voxel_snr)).astype(np.float32)

    def spread(values, fill):
        out = np.full(n_voxels, fill, dtype=np.asarray(values).dtype)
        out[voxels] = values
        return out

    label = np.full(n_voxels, "none", dtype="<U6")
    label[voxels] = labels
    area = np.full(n_voxels, "", dtype="<U4")
    area[voxels] = names
    local = (labels == "flow") & (names != "CSv")
    truth = Bunch(
        label=label,
        region=area,
        unique_motion=spread(unique_motion, 0.0),
        unique_static=spread(unique_static, 0.0),
        explainable_variance=spread(voxel_snr / (1 + voxel_snr), 0.0),
        field_x=spread(np.where(local, field[:, 0], np.nan), np.nan),
        field_y=spread(np.where(local, field[:, 1], np.nan), np.nan),
        direction=spread(np.where(labels == "flow", direction, np.nan), np.nan),
    )
    tuning = Bunch(
        voxels=voxels,
        motion=weights[:n_motion],
        static=weights[n_motion:],
        motion_mean=mean[:n_motion],
        static_mean=mean[n_motion:],
    )
    return tuning, truth


def voxel_responses(tuning, clips):
    """Answers of the planted voxels to clips, before the haemodynamic response.

    Parameters
    ----------
    tuning : Bunch
        From :func:`plant_voxels`.
    clips : list of Clip

    Returns
    -------
    responses : float32 array of shape (n_clips, n_responsive)
    """
    motion, static = _flatten(clip_responses(clips))
    motion = (motion - tuning.motion_mean) @ tuning.motion
    static = (static - tuning.static_mean) @ tuning.static
    return (motion + static).astype(np.float32)


def plant_hearing_voxels(region, *, snr, rng):
    """Draw the tuning of voxels that hear, and compute the truth about them.

    Parameters
    ----------
    region : int array of shape (n_voxels,)
        Index into `HEARING_REGIONS`; -1 for voxels that do not hear.
    snr, rng
        As in `plant_voxels`.

    Returns
    -------
    tuning : Bunch
        ``voxels`` (n_hearing,) indices; ``weights`` (n_channels, n_hearing) such that the
        haemodynamic response has the voxel's snr as variance; ``mean`` of the channels.
    truth : Bunch
        Arrays over the hearing voxels: ``label``, ``region``, ``unique_sound``, ``unique_words``,
        ``explainable_variance``.
    """
    mean, sd, covariance = _population("hearing")
    voxels = np.flatnonzero(region >= 0)
    names = np.array([HEARING_REGIONS[index][0] for index in region[voxels]], dtype="<U4")
    labels = np.array([HEARING_REGIONS[index][1] for index in region[voxels]], dtype="<U6")
    # tones and bands have a place on one scale of pitch; a voxel prefers a part of it
    pitch = np.log2([*TONES, *(np.sqrt(low * high) for low, high in NOISE_BANDS)])
    preferred = rng.uniform(pitch.min(), pitch.max(), len(voxels))
    weights = np.zeros((len(mean), len(voxels)))
    tuned = 0.2 + np.exp(-((pitch[:, None] - preferred) ** 2) / (2 * 0.7**2))
    weights[: len(pitch)] = tuned * rng.uniform(0.7, 1.3, tuned.shape)
    likes_voice = np.where(names == "STG", 1.5, 0.5)
    weights[len(pitch) : _N_SOUND_CHANNELS] = likes_voice * rng.uniform(0.5, 1.5, (2, len(voxels)))
    weights[_N_SOUND_CHANNELS:] = rng.uniform(0.5, 1.5, (len(CATEGORIES), len(voxels)))
    weights[:_N_SOUND_CHANNELS, labels != "sound"] = 0
    weights[_N_SOUND_CHANNELS:, labels != "words"] = 0
    weights = _to_unit_variance(weights / np.maximum(sd, 1e-9)[:, None], covariance)
    channels = np.arange(len(mean))
    truth = Bunch(
        label=labels,
        region=names,
        unique_sound=_unexplained(weights, covariance, channels[_N_SOUND_CHANNELS:]),
        unique_words=_unexplained(weights, covariance, channels[:_N_SOUND_CHANNELS]),
    )
    voxel_snr = snr * np.exp(rng.normal(0, 0.4, len(voxels)))
    voxel_snr *= snr / np.median(voxel_snr) if len(voxels) else 1.0
    truth.explainable_variance = voxel_snr / (1 + voxel_snr)
    weights = (weights * np.sqrt(voxel_snr)).astype(np.float32)
    return Bunch(voxels=voxels, weights=weights, mean=mean), truth


def hearing_responses(tuning, clips):
    """Answers of the hearing voxels to clips, before the haemodynamic response.

    Parameters
    ----------
    tuning : Bunch
        From :func:`plant_hearing_voxels`.
    clips : list of ClipSound

    Returns
    -------
    responses : float32 array of shape (n_clips, n_hearing)
    """
    return ((sound_responses(clips) - tuning.mean) @ tuning.weights).astype(np.float32)


def _save_population(name, mean, sd, covariance):
    np.savez_compressed(
        Path(__file__).parent / "data" / f"{name}.npz",
        mean=mean.astype(np.float32),
        sd=sd.astype(np.float32),
        upper=covariance[np.triu_indices(len(mean))].astype(np.float32),
    )


if __name__ == "__main__":
    _save_population("population", *measure_population(800))
    _save_population("hearing", *measure_hearing(1000))
