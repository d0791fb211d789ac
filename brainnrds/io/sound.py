"""The sound of a film, in time with its frames."""

from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds.io.video import decoded_frames, film_stream, probe_video

__all__ = ["read_sound"]

_HOLE = 0.02  # s; less is rounding of timestamps


def read_sound(path, *, rate=16000):
    """Read the whole sound track of a film, as one channel.

    Parameters
    ----------
    path : path-like
    rate : int, default=16000
        Samples per second of the result.

    Returns
    -------
    wave : array of float32 of shape (n_samples,)
        From the film's first frame to its end, the mean over channels, in [-1, 1]; silence where
        the track begins later or ends earlier than the pictures, or has a hole.

    Raises
    ------
    InputError
        The film is missing, cannot be read, or has no sound.
    """
    import av

    path = Path(path)
    video = probe_video(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"Film {path} has no sound.")
            pictures, sound = film_stream(container), container.streams.audio[0]
            begin = float((pictures.start_time or 0) * pictures.time_base)
            wave = np.zeros(int(np.ceil(video.duration * rate)), dtype=np.float32)
            resampler, place, end = None, 0, begin
            for frame in decoded_frames(container, sound):
                # timestamps say where the track begins, and where it goes on after a hole
                time = end if frame.time is None else float(frame.time)
                if resampler is None or abs(time - end) > _HOLE:
                    _flush(resampler, wave, place)
                    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
                    place, end = round((time - begin) * rate), time
                end += frame.samples / frame.sample_rate
                frame.pts = None
                for part in resampler.resample(frame):
                    place = _put(wave, part.to_ndarray().reshape(-1), place)
            _flush(resampler, wave, place)
    except InputError:
        raise
    except (av.FFmpegError, ValueError) as error:  # channels that change are a ValueError
        raise InputError(f"The sound of {path} cannot be decoded: {error}.") from error
    return np.clip(wave, -1, 1)


def _flush(resampler, wave, place):
    """Write what a resampler still holds."""
    for part in resampler.resample(None) if resampler else ():
        place = _put(wave, part.to_ndarray().reshape(-1), place)


def _put(wave, part, place):
    """Write a part of the sound where it belongs, cut to the film; return the place after it."""
    first, last = max(place, 0), min(place + len(part), len(wave))
    if last > first:
        wave[first:last] = part[first - place : last - place]
    return place + len(part)
