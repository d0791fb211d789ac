"""Films in and clips out, through PyAV: streaming, in seconds from the film's first frame."""

import os
import re
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError, check_clips
from brainnrds._files import atomic_path, check_file

__all__ = [
    "Video",
    "check_clip_times",
    "decoded_frames",
    "film_stream",
    "iter_clips",
    "iter_frames",
    "probe_video",
    "read_clip",
    "resize_image",
    "write_clip",
]

# a film whose frames end this much earlier than its container says is truncated
_MISSING_END_SECONDS = 0.5
# a request that starts later than this is reached by seeking to the key frame before it
_SEEK_BEYOND_SECONDS = 10.0
_MOST_TIMESTAMPS = 10_000
_FRAMES_AT_ONCE = 32
_MOST_REORDERED = 32
_DURATION_TAG = re.compile(r"([0-9]{1,5}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]*)?)$")


@dataclass(frozen=True)
class Video:
    """What a film's container and its first and last frames say.

    Attributes
    ----------
    path : Path
    duration : float
        Seconds from the first frame to the end of the last one.
    n_frames : int
        As the container says, or estimated from duration and rate where it does not.
    fps : float
        Mean frame rate, Hz.
    height, width : int
        As displayed, in pixels: after rotation and with square pixels.
    variable_rate : bool
        Frames do not follow each other at equal intervals (in the first 10,000).
    """

    path: Path
    duration: float
    n_frames: int
    fps: float
    height: int
    width: int
    variable_rate: bool


@contextmanager
def _open(path):
    """Yield (container, stream, path); every way of failing becomes one InputError line."""
    import av
    from av.error import FFmpegError  # by its name: a film may stay open until Python ends

    path = check_file(path, "Film")
    try:
        # titles may be in any encoding
        with av.open(str(path), metadata_errors="replace") as container:
            stream = film_stream(container)
            if stream is None:
                raise InputError(f"Film {path} must hold a video stream; got none.")
            if stream.codec_context is None:
                raise InputError(f"Film {path} must be of a known video codec; got none.")
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = _n_threads()
            yield container, stream, path
    except FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"Film {path} cannot be decoded (damaged or truncated): {reason}."
        ) from error


def film_stream(container):
    """Return the first video stream that is no cover picture or thumbnail; None without one."""
    from av.stream import Disposition

    picture = Disposition.attached_pic | Disposition.timed_thumbnails
    films = (stream for stream in container.streams.video if not stream.disposition & picture)
    return next(films, None)


def _packets(container, stream):
    """Yield the packets of a stream, and an empty one that asks the decoder for what it holds.

    Where other streams begin later, as in broadcasts, PyAV goes on to flush these: an IndexError.
    """
    for packet in container.demux(stream):
        yield packet
        if packet.dts is None and not packet.size:
            return


def decoded_frames(container, stream):
    """Yield the frames of a stream of pictures or sound."""
    for packet in _packets(container, stream):
        yield from packet.decode()


def _n_threads():
    """Threads that OMP_NUM_THREADS leaves to this process; 0, one per core, where it is not set.

    Joblib's and Dask's workers set it, so that together they take no more cores than there are.
    """
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() else 0


def _frame_rate(stream):
    """Mean frame rate in Hz, or None where the stream does not know it."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else None


def _header_duration(container, stream):
    """Seconds of video that the container promises, or None where it promises nothing."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # its duration is guessed from the file's length when the index at the end is missing
        return float(stream.frames / stream.average_rate)
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # the others count to the end of the film, from a zero that may precede the first frame
    begin = float((stream.start_time or 0) * stream.time_base)
    # Matroska: hours:minutes:seconds per stream; anybody can write anything there
    tag = _DURATION_TAG.match(stream.metadata.get("DURATION", ""))
    if tag is not None:
        hours, minutes, seconds = map(float, tag.groups())
        return hours * 3600 + minutes * 60 + seconds - begin
    # the container lasts as long as its longest stream, which may be sound
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000 - begin
    return None


def _decode(container, stream, path, start=0.0):
    """Yield (seconds from the film's first frame, frame), from the key frame before `start` on."""
    frames = _timed(container, stream, path)
    origin, frame = next(frames, (None, None))
    if frame is None:
        raise InputError(f"Film {path} must hold frames; got none (damaged or truncated).")
    if start > _SEEK_BEYOND_SECONDS and frame.pts is not None:
        # not every index is exact: half a second of margin, and back to the start if that fails
        target = frame.pts + int((start - 0.5) / frame.time_base)
        container.seek(target, stream=stream, backward=True)
        frames = _timed(container, stream, path)
        found, later_frame = next(frames, (None, None))
        if later_frame is not None and origin <= found <= origin + start:
            yield found - origin, later_frame
        else:
            container.seek(frame.pts, stream=stream, backward=True)
            frames = _timed(container, stream, path)
    else:
        yield 0.0, frame
    for seconds, later_frame in frames:
        yield seconds - origin, later_frame


def _timed(container, stream, path):
    """Yield (seconds on the container's clock, frame)."""
    rate = _frame_rate(stream)
    previous = None
    for frame in decoded_frames(container, stream):
        if frame.pts is not None:
            seconds = float(frame.pts * frame.time_base)
        elif rate is None:
            raise InputError(f"Film {path} must have timestamps or a frame rate; got neither.")
        else:
            seconds = 0.0 if previous is None else previous + 1 / rate
        if previous is not None and seconds < previous:
            raise InputError(
                f"Film {path} must have ascending timestamps; got {seconds:g} s after "
                f"{previous:g} s."
            )
        previous = seconds
        yield seconds, frame


def _display_size(stream, rotation):
    """Height and width in square pixels, after rotation."""
    height, width = stream.codec_context.height, stream.codec_context.width
    aspect = stream.sample_aspect_ratio
    if aspect:
        width = max(1, round(width * aspect))
    return (width, height) if rotation % 180 else (height, width)


def _rotation(frame, path):
    if frame.rotation % 90:
        raise InputError(
            f"Film {path} must be rotated by a multiple of 90 degrees; got {frame.rotation}."
        )
    return frame.rotation


def _target_size(height, width, size):
    if size is None:
        return height, width
    if isinstance(size, (int, np.integer)):
        scale = size / min(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    return int(size[0]), int(size[1])


def _image_maker(stream, path, size):
    """Return a function of a decoded frame and its time: uint8 (height, width, 3), as displayed.

    One conversion to RGB is set up for the whole film, on one thread. A frame's own `to_ndarray`
    sets it up anew, and with a thread per core: that takes longer than decoding a small frame.
    """
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    sizes = set()

    def to_image(frame, seconds):
        if frame.is_corrupt:
            raise InputError(f"Film {path} is damaged: frame at {seconds:g} s cannot be decoded.")
        sizes.add((frame.height, frame.width))
        if len(sizes) > 1:
            raise InputError(
                f"Film {path} must have frames of one size; at {seconds:g} s it changes: "
                f"{sorted(sizes)} px."
            )
        image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        rotation = _rotation(frame, path)
        if rotation:
            # the display matrix turns counter-clockwise, and so does rot90
            image = np.rot90(image, k=rotation // 90)
        return resize_image(image, _target_size(*_display_size(stream, rotation), size))

    return to_image


def _to_clip(images):
    """Return images as a clip: float32 (n_frames, 3, height, width) in [0, 1].

    Frames stay bytes until their clip is whole: each new array of floats costs more than decoding.
    """
    clip = np.stack(images).transpose(0, 3, 1, 2)
    return np.divide(clip, 255, dtype=np.float32, order="C")


def resize_image(image, size):
    """Resize an image as `iter_clips` does: by area where it shrinks, else bilinearly.

    Parameters
    ----------
    image : array of uint8 of shape (height, width, 3)
    size : int, (height, width) or None
        int: length of the shorter side in px; None: no change.

    Returns
    -------
    image : array of uint8 of shape (height, width, 3)
    """
    import cv2

    height, width = _target_size(*image.shape[:2], size)
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=how)


def _last_frame(container, stream, path):
    """Return (seconds, frame) of the last frame; decodes the last group of pictures only."""
    promised = _header_duration(container, stream)
    start = promised - 1.0 if promised is not None else 0.0
    return deque(_decode(container, stream, path, start), maxlen=1).pop()


def _frame_seconds(frame, rate):
    """How long one frame is shown, in s."""
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return 1 / rate if rate else 0.0


def _check_end(path, end, container, stream):
    promised = _header_duration(container, stream)
    if promised is not None and promised - end > _MISSING_END_SECONDS:
        raise InputError(
            f"Film {path} is truncated: its header says {promised:.2f} s, its frames end at "
            f"{end:.2f} s."
        )


class _Film:
    """A film that is open at a frame, which is on screen from `seconds` to `following`."""

    def __init__(self, path, start):
        with ExitStack() as closing:
            self._container, self.stream, self.path = closing.enter_context(_open(path))
            state = os.stat(self.path)
            self.content = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
            self._frames = _decode(self._container, self.stream, self.path, start)
            self.following, self._next = next(self._frames)
            self.advance()
            self.closing = closing.pop_all()

    def advance(self):
        self.seconds, self.frame = self.following, self._next
        if self.frame is not None:
            self.following, self._next = next(self._frames, (np.inf, None))

    @property
    def is_last(self):
        return self._next is None

    def end(self):
        """Return when the film ends (s) once that is known; refuse one that is not whole."""
        if not self.is_last:
            return np.inf
        end = self.seconds + _frame_seconds(self.frame, _frame_rate(self.stream))
        _check_end(self.path, end, self._container, self.stream)
        return end


# the film that a process left in the middle; a fork may not touch its parent's decoder
_left_open = {}


@contextmanager
def _film_at(path, start):
    """Yield a film open at a frame not after `start` (s): a key frame, or where it was left.

    A film with few key frames is so decoded once, however many parts it is read in.
    """
    film, left = _Film(path, start), _left_open.pop(os.getpid(), None)
    if left is not None:
        if left.content == film.content and film.seconds < left.seconds <= start:
            film, left = left, film
        left.closing.close()
    with film.closing as closing:
        yield film
        if film.frame is not None and not film.is_last:
            film.closing = closing.pop_all()
            _left_open[os.getpid()] = film


def probe_video(path):
    """Say how long and how large a film is, and make sure that it is whole.

    The first frame and the last group of pictures are decoded, so that a truncated file is found
    without decoding the film.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    video : Video
        `duration` (s), `n_frames`, `fps` (Hz), `height`, `width`, `variable_rate`.

    Raises
    ------
    InputError
        The film is missing, unreadable, truncated, or has no video stream.
    """
    with _open(path) as (container, stream, path):
        rate = _frame_rate(stream)
        seconds, frame = _last_frame(container, stream, path)
        end = seconds + _frame_seconds(frame, rate)
        _check_end(path, end, container, stream)
        height, width = _display_size(stream, _rotation(frame, path))
        n_frames = stream.frames or max(1, round(end * (rate or 1)))
        fps = n_frames / end if end > 0 else rate or 0.0
    return Video(path, end, n_frames, fps, height, width, _has_variable_rate(path))


def _has_variable_rate(path):
    """Compare the intervals between timestamps, which needs no decoding."""
    with _open(path) as (container, stream, path):
        index = stream.index_entries
        if stream.frames and len(index) == stream.frames:
            # the container lists every frame; to ask for packets takes ten times as long
            ticks = [entry.timestamp for entry in islice(index, _MOST_TIMESTAMPS)]
        else:
            packets = islice(_packets(container, stream), _MOST_TIMESTAMPS)
            ticks = [packet.pts for packet in packets if packet.pts is not None]
    ticks = np.sort(ticks)
    intervals = np.diff(ticks)
    if len(intervals) < 2:
        return False
    # the cut between read and unread packets may lie between frames shown in another order
    intervals = intervals[:-_MOST_REORDERED] if len(ticks) > _MOST_REORDERED * 2 else intervals
    # rounding to the container's ticks makes unequal intervals of equal ones
    return bool(np.ptp(intervals) > max(2, 0.1 * np.median(intervals)))


def check_clip_times(times, duration):
    """Return the onsets of clips as an array; refuse what makes no clips.

    Parameters
    ----------
    times : array-like of shape (n_clips,)
        Seconds from the film's first frame, ascending.
    duration : float
        Of a clip, s.

    Returns
    -------
    times : array of float of shape (n_clips,)

    Raises
    ------
    ValueError
        Times that are not finite, not ascending or negative; a duration that is not positive.
    """
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        got = np.array2string(times, threshold=6, precision=4)
        raise ValueError(f"`times` must be finite, ascending and of shape (n_clips,); got {got}.")
    if times.size and times[0] < -1e-3:
        raise ValueError(f"`times` must not be negative; got {times[0]:g} s.")
    if not duration > 0:
        raise ValueError(f"`duration` must be positive; got {duration}.")
    return times


def iter_clips(path, times, duration, *, fps, size=None):
    """Yield one clip per time, reading the film once and holding no more than the open clips.

    A clip at time t shows [t, t + duration): its frame k is the one on screen at t + k / fps,
    whatever the film's own rate. Past the end of the film its last frame stays.

    Parameters
    ----------
    path : path-like
    times : array-like of shape (n_clips,)
        Seconds from the film's first frame, ascending.
    duration : float
        Length of a clip in s.
    fps : float
        Frames per second of the clips; a clip has ``max(1, round(duration * fps))`` frames.
    size : int, (height, width) or None, default=None
        int: length of the shorter side in px; None: the film's own size.

    Yields
    ------
    clip : array of float32 of shape (n_frames, 3, height, width)
        In [0, 1].

    Raises
    ------
    InputError
        The film is missing, unreadable, truncated, or ends before a clip begins.
    """
    times = check_clip_times(times, duration)
    if not fps > 0:
        raise ValueError(f"`fps` must be positive; got {fps}.")
    if times.size == 0:
        return
    offsets = np.arange(max(1, round(duration * fps))) / fps
    with _film_at(path, max(times[0], 0.0)) as film:
        to_image = _image_maker(film.stream, film.path, size)
        tolerance = _tolerance(film.stream)
        waiting = 0  # index of the first clip that has not begun
        open_clips = []  # [instants, frames so far]
        while film.frame is not None:
            image = None
            end = film.end()
            # the frame is on screen until the next one; what comes before the first shows the first
            while waiting < len(times) and times[waiting] + tolerance < film.following:
                if times[waiting] > end + tolerance:
                    raise InputError(
                        f"Film {path} lasts {end:.2f} s; a clip at {times[waiting]:.2f} s was "
                        "asked for."
                    )
                open_clips.append((times[waiting] + offsets, []))
                waiting += 1
            for instants, clip in open_clips:
                while (
                    len(clip) < len(instants) and instants[len(clip)] + tolerance < film.following
                ):
                    if image is None:
                        image = to_image(film.frame, film.seconds)
                    clip.append(image)
            while open_clips and len(open_clips[0][1]) == len(offsets):
                yield _to_clip(open_clips.pop(0)[1])
            if waiting == len(times) and not open_clips:
                return
            film.advance()


def iter_frames(path, times, *, decoder="pyav"):
    """Yield the frame on screen at each time, reading the film once and holding one frame.

    Parameters
    ----------
    path : path-like
    times : array-like of shape (n_frames,)
        Seconds from the film's first frame, ascending. Past the end of the film its last frame
        stays.
    decoder : {"pyav", "torchcodec"}, default="pyav"
        "torchcodec" decodes on the GPU (NVDEC) where there is one. Films with a rotation flag or
        pixels that are not square are left to PyAV.

    Yields
    ------
    image : array of uint8 of shape (height, width, 3)
        As displayed, in the film's own size. The same object again while the frame stays.

    Raises
    ------
    InputError
        The film is missing, unreadable or truncated.
    """
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError("`times` must be finite, ascending and of shape (n_frames,).")
    if times.size == 0:
        return
    if times[0] < -1e-3:
        raise ValueError(f"`times` must not be negative; got {times[0]:g} s.")
    if decoder not in ("pyav", "torchcodec"):
        raise ValueError(f"`decoder` must be 'pyav' or 'torchcodec'; got {decoder!r}.")
    if decoder == "torchcodec" and _is_shown_as_stored(path):
        yield from _iter_frames_by_torchcodec(path, times)
        return
    with _film_at(path, max(times[0], 0.0)) as film:
        to_image = _image_maker(film.stream, film.path, None)
        tolerance = _tolerance(film.stream)
        waiting = 0
        while film.frame is not None:
            image = None
            film.end()
            while waiting < len(times) and times[waiting] + tolerance < film.following:
                if image is None:
                    image = to_image(film.frame, film.seconds)
                yield image
                waiting += 1
            if waiting == len(times):
                return
            film.advance()


def _is_shown_as_stored(path):
    with _open(path) as (container, stream, path):
        _, frame = next(_decode(container, stream, path))
        return not _rotation(frame, path) and (stream.sample_aspect_ratio or 1) == 1


def _iter_frames_by_torchcodec(path, times):
    """As `iter_frames`, a few frames at a time: they wait in the GPU's memory."""
    with _open(path) as (_, stream, path):
        times = times + _tolerance(stream)
    decoder = _open_by_torchcodec(str(path), path.stat().st_mtime_ns)
    begin = decoder.metadata.begin_stream_seconds
    # a decoder refuses what is not strictly before the end
    seconds = np.minimum(begin + times, np.nextafter(decoder.metadata.end_stream_seconds, begin))
    shown, image = None, None
    for start in range(0, len(seconds), _FRAMES_AT_ONCE):
        try:
            batch = decoder.get_frames_played_at(seconds[start : start + _FRAMES_AT_ONCE].tolist())
        except (RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"Film {path} cannot be decoded by torchcodec: {reason}") from error
        frames = batch.data.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        for frame, onset in zip(frames, batch.pts_seconds.tolist(), strict=True):
            if onset != shown:
                shown, image = onset, frame
            yield image


@lru_cache(maxsize=1)
def _open_by_torchcodec(path, modified):
    """Opening reads the whole file's index: once for all chunks of a film."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # it may find no FFmpeg, or no CUDA
        reason = str(error).strip().splitlines()[0]
        raise ImportError(
            f"decoder 'torchcodec' needs `pip install torchcodec` and FFmpeg's libraries: {reason}"
        ) from error
    import torch

    try:
        return VideoDecoder(path, device="cuda" if torch.cuda.is_available() else "cpu")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Film {path} cannot be decoded by torchcodec: {reason}") from error


def _tolerance(stream):
    """Seconds by which a timestamp may be late through rounding to the container's ticks."""
    rate = _frame_rate(stream)
    tick = float(stream.time_base) if stream.time_base else 0.0
    tolerance = max(tick, 1e-3)
    return min(tolerance, 0.25 / rate) if rate else tolerance


def read_clip(path, *, start=0.0, duration=None, fps=None, size=None):
    """Read a part of a film into memory.

    Parameters
    ----------
    path : path-like
    start : float, default=0.0
        Seconds from the film's first frame.
    duration : float or None, default=None
        Seconds; None reads to the end.
    fps : float or None, default=None
        Frames per second; None gives the film's own frames, as many as there are.
    size : int, (height, width) or None, default=None
        int: length of the shorter side in px; None: the film's own size.

    Returns
    -------
    clip : array of float32 of shape (n_frames, 3, height, width)
        In [0, 1].

    Raises
    ------
    InputError
        The film is missing, unreadable, truncated or shorter than `start`.
    """
    if fps is not None:
        if duration is None:
            duration = probe_video(path).duration - start
            if duration <= 0:
                raise InputError(f"Film {path} ends before `start` = {start:g} s.")
        return next(iter_clips(path, [start], duration, fps=fps, size=size))
    stop = np.inf if duration is None else start + duration
    images = []
    with _open(path) as (container, stream, path):
        to_image = _image_maker(stream, path, size)
        tolerance = _tolerance(stream)
        end = 0.0
        for seconds, frame in _decode(container, stream, path, start):
            if seconds + tolerance >= stop:
                break
            end = seconds + _frame_seconds(frame, _frame_rate(stream))
            if seconds + tolerance >= start:
                images.append(to_image(frame, seconds))
        else:
            _check_end(path, end, container, stream)
    if not images:
        raise InputError(f"Film {path} lasts {end:.2f} s; frames from {start:g} s were asked for.")
    return _to_clip(images)


def write_clip(path, clip, *, fps):
    """Write a clip as H.264 video or as an animated GIF, atomically.

    Parameters
    ----------
    path : path-like
        Ends in .mp4 or .gif.
    clip : array of shape (n_frames, 3, height, width)
        In [0, 1]. H.264 needs even sizes: an odd one is padded by repeating its last row or
        column.
    fps : float
        Frames per second.

    Returns
    -------
    path : Path
    """
    path = Path(path)
    if np.ndim(clip) != 4:
        raise ValueError(
            f"`clip` must have shape (n_frames, 3, height, width); got {np.shape(clip)}."
        )
    if not fps > 0:
        raise ValueError(f"`fps` must be positive; got {fps}.")
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise ValueError(f"`path` must end in .mp4 or .gif; got {path.name}.")
    clip = np.clip(check_clips(clip, name="clip", n_dim=4), 0, 1)
    images = np.round(clip * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    with atomic_path(path) as temporary:
        writers[path.suffix](temporary, images, fps)
    return path


def _write_mp4(path, images, fps):
    import av

    n_rows, n_columns = images.shape[1:3]
    images = np.pad(images, ((0, 0), (0, n_rows % 2), (0, n_columns % 2), (0, 0)), mode="edge")
    # "faststart" puts the index first: browsers play while they load
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        # with its look-ahead ("mbtree") x264 writes a short clip now so, now so
        options = {"crf": "18", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_gif(path, images, fps):
    from PIL import Image

    frames = [Image.fromarray(np.ascontiguousarray(image)) for image in images]
    # GIF counts in hundredths of a second; rounding the end times keeps the total length
    ends = np.round(np.arange(1, len(frames) + 1) / fps * 100).astype(int) * 10
    durations = np.diff(ends, prepend=0).tolist()
    frames[0].save(
        path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
