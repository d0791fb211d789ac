"""The sound of a film, in time with its frames."""

from pathlib import Path

import numpy as np

from brainnrds._checks import InputError
from brainnrds.io.video import film_stream, probe_video

__all__ = ["read_sound"]


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
        the track begins later or ends earlier than the pictures.

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
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            place = None
            for frame in container.decode(sound):
                if place is None:
                    # timestamps say where the track begins; from there on it has no holes
                    place = round((float(frame.time or 0.0) - begin) * rate)
                for part in resampler.resample(frame):
                    place = _put(wave, part.to_ndarray().reshape(-1), place)
            for part in resampler.resample(None):
                place = _put(wave, part.to_ndarray().reshape(-1), place or 0)
    except av.FFmpegError as error:
        raise InputError(f"The sound of {path} cannot be decoded: {error}.") from error
    return np.clip(wave, -1, 1)


def _put(wave, part, place):
    """Write a part of the sound where it belongs, cut to the film; return the place after it."""
    first, last = max(place, 0), min(place + len(part), len(wave))
    if last > first:
        wave[first:last] = part[first - place : last - place]
    return place + len(part)
