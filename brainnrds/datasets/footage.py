"""Films with known motion, cut from the real footage that ships with the package.

A film is a sequence of clips of 2 s. A few clips in a row form a shot: one window of the footage,
in which a camera pans, zooms or rests, the playback runs at some speed, and often a round patch of
other footage moves across the picture. Camera, speed and patch change from clip to clip, the place
only with the shot, so that what moves is not told by what is seen. All motion is known exactly
(but for what the filmed people and animals do themselves).
"""

import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files

import cv2
import numpy as np

from brainnrds._checks import InputError

__all__ = [
    "CLIP_DURATION",
    "FILM_FPS",
    "FILM_SIZE",
    "Clip",
    "Window",
    "flow_at",
    "iter_film",
    "plan_film",
    "plan_windows",
    "render_clip",
    "write_film",
]

CLIP_DURATION = 2.0  # s
FILM_FPS = 15  # frames per second
FILM_SIZE = (96, 128)  # height, width in pixels
_ASPECT = FILM_SIZE[0] / FILM_SIZE[1]
_MAX_FILMS = 60
_one_at_a_time = threading.Lock()

# name -> frames/s, number of frames, tiles across and down, their width and height in pixels.
# The lower third of the pedestrians' picture is bare lawn and is left out.
_SOURCES = {
    "pedestrians": (10, 795, 2, 1, 192, 192),
    "bunny": (25, 132, 3, 2, 170, 144),
}


@dataclass(frozen=True)
class Window:
    """A box of footage: frames [start, stop), columns [left, right), rows [top, bottom)."""

    source: str
    start: int
    stop: int
    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other):
        """Whether the two windows share a pixel of a frame."""
        return (
            self.source == other.source
            and self.start < other.stop
            and other.start < self.stop
            and self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Clip:
    """Two seconds of a film with constant motion.

    Lengths are in widths of the film's frame, x to the right and y down, from the frame's centre;
    velocities per second. A point at (x, y) of the background moves with ``pan + zoom * (x, y)``.

    Attributes
    ----------
    window : Window
        The footage shown.
    shot : int
        Index of the shot; a cut lies between clips of different shots.
    centre : tuple of float
        Middle of the camera's crop in pixels of the footage, at the clip's start.
    width : float
        Width of the crop in pixels of the footage, at the clip's start.
    mirror : tuple of {-1, 1}
        Whether the footage is mirrored left-right and top-bottom.
    gain : float
        Contrast relative to the footage.
    pan : tuple of float
        Velocity of the background.
    zoom : float
        Rate of expansion, 1/s.
    phase, speed : float
        Position in the window's frames at the start, in s of footage, and playback speed.
    patch_window : Window or None
        Footage inside the moving patch; None: no patch.
    patch_source : tuple of float
        Middle of the patch in pixels of its footage.
    patch_radius : float
    patch_centre, patch_velocity : tuple of float
        Place at the clip's start, and velocity.
    """

    window: Window
    shot: int
    centre: tuple
    width: float
    mirror: tuple
    gain: float
    pan: tuple
    zoom: float
    phase: float
    speed: float
    patch_window: Window | None
    patch_source: tuple
    patch_radius: float
    patch_centre: tuple
    patch_velocity: tuple

    def crop(self, time):
        """Centre (x, y) and width of the camera's crop, in pixels of the footage, `time` s in."""
        width = self.width * np.exp(-self.zoom * time)
        # the camera goes against the background, integral of the width over time
        path = self.width * time if self.zoom == 0 else (self.width - width) / self.zoom
        return (
            self.centre[0] - self.mirror[0] * self.pan[0] * path,
            self.centre[1] - self.mirror[1] * self.pan[1] * path,
            width,
        )

    def patch(self, time):
        """Place (x, y) of the patch's centre `time` s into the clip."""
        return (
            self.patch_centre[0] + self.patch_velocity[0] * time,
            self.patch_centre[1] + self.patch_velocity[1] * time,
        )


def plan_windows(n_films, rng):
    """Share the footage out: no two films get a common source window.

    Parameters
    ----------
    n_films : int
        At most 60.
    rng : numpy.random.Generator

    Returns
    -------
    windows : list of n_films lists of Window
        Every film gets two windows of each of the two sources of footage.
    """
    if not 1 <= n_films <= _MAX_FILMS:
        raise InputError(f"`n_films` must be between 1 and {_MAX_FILMS}; got {n_films}.")
    windows = [[] for _ in range(n_films)]
    for source, (_, n_frames, n_across, n_down, width, height) in _SOURCES.items():
        tiles = [(column, row) for row in range(n_down) for column in range(n_across)]
        n_slots = -(-2 * n_films // len(tiles))
        edges = np.linspace(0, n_frames, n_slots + 1).astype(int)
        places = [(tile, slot) for slot in range(n_slots) for tile in tiles]
        for draw, index in enumerate(rng.permutation(len(places))[: 2 * n_films]):
            (column, row), slot = places[index]
            left, top = column * width, row * height
            window = Window(
                source,
                int(edges[slot]),
                int(edges[slot + 1]),
                left,
                top,
                left + width,
                top + height,
            )
            windows[draw % n_films].append(window)
    return windows


def _inside(window, clip):
    for time in (0.0, CLIP_DURATION):
        x, y, width = clip.crop(time)
        half_x, half_y = width / 2, width * _ASPECT / 2
        if (
            x - half_x < window.left
            or x + half_x > window.right
            or y - half_y < window.top
            or y + half_y > window.bottom
            or width < 60
        ):
            return False
    return True


def _draw_motion(rng):
    """Camera pan (x, y), zoom and playback speed of one clip."""
    angle = rng.uniform(0, 2 * np.pi)
    rate = rng.choice((0.06, 0.12, 0.18, 0.24))
    pan = (float(rate * np.cos(angle)), float(rate * np.sin(angle)))
    zoom = float(rng.choice((-0.2, -0.1, 0.1, 0.2)))
    kind = rng.choice(("rest", "pan", "zoom", "both"), p=(0.3, 0.45, 0.1, 0.15))
    speed = float(rng.choice((0.0, 0.5, 1.0, 2.0)))
    return (
        pan if kind in ("pan", "both") else (0.0, 0.0),
        zoom if kind in ("zoom", "both") else 0.0,
        speed,
    )


def _draw_patch_velocity(rng, place):
    """Velocity of the patch such that its centre stays in the picture."""
    for _ in range(100):
        angle, rate = rng.uniform(0, 2 * np.pi), rng.choice((0.0, 0.1, 0.2, 0.3))
        velocity = (float(rate * np.cos(angle)), float(rate * np.sin(angle)))
        end = (place[0] + velocity[0] * CLIP_DURATION, place[1] + velocity[1] * CLIP_DURATION)
        if abs(end[0]) < 0.45 and abs(end[1]) < 0.45 * _ASPECT:
            return velocity
    return (0.0, 0.0)


def _place_in(window, margin_x, margin_y, rng):
    return (
        float(rng.uniform(window.left + margin_x, window.right - margin_x)),
        float(rng.uniform(window.top + margin_y, window.bottom - margin_y)),
    )


def plan_film(windows, n_clips, rng):
    """Draw the shots and the motion of one film.

    Parameters
    ----------
    windows : list of Window
        The footage that this film may show.
    n_clips : int
    rng : numpy.random.Generator

    Returns
    -------
    clips : list of n_clips Clip
    """
    clips, shot = [], -1
    while len(clips) < n_clips:
        shot += 1
        window = windows[rng.integers(len(windows))]
        width = float(rng.uniform(84, 124))
        centre = _place_in(window, width / 2, width * _ASPECT / 2, rng)
        mirror = tuple(int(sign) for sign in rng.choice((-1, 1), size=2))
        gain = float(rng.uniform(0.7, 1.2))
        phase = float(rng.uniform(0, 100))
        patch_window, patch_source, radius, place = None, (0.0, 0.0), 0.0, (0.0, 0.0)
        if rng.random() < 0.65:
            patch_window = windows[rng.integers(len(windows))]
            patch_source = _place_in(patch_window, 40, 40, rng)
            radius = float(rng.uniform(0.1, 0.2))
            place = (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.3, 0.3)))
        for _ in range(rng.integers(1, 4)):
            velocity = _draw_patch_velocity(rng, place) if patch_window else (0.0, 0.0)
            for _ in range(200):
                pan, zoom, speed = _draw_motion(rng)
                clip = Clip(
                    window,
                    shot,
                    centre,
                    width,
                    mirror,
                    gain,
                    pan,
                    zoom,
                    phase,
                    speed,
                    patch_window,
                    patch_source,
                    radius,
                    place,
                    velocity,
                )
                if _inside(window, clip):
                    break
            clips.append(clip)
            x, y, width = clip.crop(CLIP_DURATION)
            centre = (float(x), float(y))
            width = float(width)
            phase += speed * CLIP_DURATION
            place = clip.patch(CLIP_DURATION)
    return clips[:n_clips]


def flow_at(clip, x, y, time):
    """Known velocity of the picture at points of the frame.

    Parameters
    ----------
    clip : Clip
    x, y : array of any one shape
        Points, in widths of the frame from its centre (right, down).
    time : float
        Seconds from the clip's start.

    Returns
    -------
    velocity : array of shape (2,) + shape of `x`
        Rightward and downward, in widths of the frame per second.
    """
    velocity = np.stack([clip.pan[0] + clip.zoom * x, clip.pan[1] + clip.zoom * y])
    if clip.patch_window is not None:
        place = clip.patch(time)
        inside = (x - place[0]) ** 2 + (y - place[1]) ** 2 < clip.patch_radius**2
        velocity = np.where(
            inside, np.reshape(clip.patch_velocity, (2,) + (1,) * np.ndim(x)), velocity
        )
    return velocity


def _load_source(source, gray):
    """Frames of a footage file: (n_frames, height, width[, 3]) uint8; gray ones at half size."""
    with _one_at_a_time:  # threads that write films shall not decode it twice
        return _decode_source(source, gray)


@lru_cache(maxsize=4)
def _decode_source(source, gray):
    import av

    if gray:
        frames = _decode_source(source, False)
        size = (frames.shape[2] // 2, frames.shape[1] // 2)
        return np.stack(
            [
                cv2.cvtColor(
                    cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
                )
                for frame in frames
            ]
        )
    with (files("brainnrds.datasets") / "data" / f"{source}.mp4").open("rb") as stream:
        with av.open(stream) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def _frame_of(window, phase):
    """Index of the footage's frame at `phase` s, running to and fro inside the window."""
    n_frames = window.stop - window.start
    position = int(phase * _SOURCES[window.source][0]) % max(2 * n_frames - 2, 1)
    return window.start + min(position, 2 * n_frames - 2 - position)


def render_clip(clip, *, fps=FILM_FPS, size=FILM_SIZE, gray=False):
    """Draw the frames of a clip.

    Parameters
    ----------
    clip : Clip
    fps : float, default=15
    size : (int, int), default=(96, 128)
        Height and width in pixels, with the aspect of 3 : 4.
    gray : bool, default=False
        Draw from a half-size gray copy: quick, for small pictures.

    Returns
    -------
    frames : uint8 array of shape (n_frames, height, width, 3) or (n_frames, height, width)
    """
    height, width = size
    n_frames = round(CLIP_DURATION * fps)
    scale = 0.5 if gray else 1.0
    out = np.empty((n_frames, height, width) + (() if gray else (3,)), dtype=np.uint8)
    footage = _load_source(clip.window.source, gray)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    at_rest = clip.pan == (0.0, 0.0) and clip.zoom == 0 and clip.speed == 0
    for index in range(n_frames):
        time = index / fps
        if index and at_rest:
            out[index] = out[0]
            continue
        x, y, crop = clip.crop(time)
        step = scale * crop / width  # footage pixels per film pixel
        step_x, step_y = clip.mirror[0] * step, clip.mirror[1] * step
        out[index] = _warp(
            footage[_frame_of(clip.window, clip.phase + clip.speed * time)],
            (step_x, scale * x - step_x * middle_x),
            (step_y, scale * y - step_y * middle_y),
            (width, height),
        )
    if clip.patch_window is not None:
        picture = _load_source(clip.patch_window.source, gray)[clip.patch_window.start]
        step = scale * 100 / width  # the patch is always drawn at one scale
        reach = int(np.ceil(clip.patch_radius * width)) + 1
        for index in range(n_frames):
            place = clip.patch(index / fps)
            centre_x, centre_y = place[0] * width + middle_x, place[1] * width + middle_y
            left, right = max(int(centre_x) - reach, 0), min(int(centre_x) + reach + 2, width)
            top, bottom = max(int(centre_y) - reach, 0), min(int(centre_y) + reach + 2, height)
            if left >= right or top >= bottom:
                continue
            patch = _warp(
                picture,
                (step, scale * clip.patch_source[0] + step * (left - centre_x)),
                (step, scale * clip.patch_source[1] + step * (top - centre_y)),
                (right - left, bottom - top),
            )
            dx = np.arange(left, right, dtype=np.float32) - centre_x
            dy = np.arange(top, bottom, dtype=np.float32) - centre_y
            distance = np.sqrt(dx**2 + (dy**2)[:, None])
            # a soft edge, or the patch would jump from pixel to pixel
            alpha = np.clip((clip.patch_radius * width - distance) / 2 + 0.5, 0, 1)
            alpha = alpha.astype(np.float32)
            under = np.ascontiguousarray(out[index, top:bottom, left:right])
            out[index, top:bottom, left:right] = cv2.blendLinear(under, patch, 1 - alpha, alpha)
    # about middle gray
    table = np.clip(110 + clip.gain * (np.arange(256) - 110.0), 0, 255).round().astype(np.uint8)
    return table[out]


def _warp(image, across, down, size):
    """Sample `image` at step * pixel + start, (step, start) per axis; size is (width, height)."""
    matrix = np.array([[across[0], 0, across[1]], [0, down[0], down[1]]])
    return cv2.warpAffine(
        image,
        matrix,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def iter_film(clips, *, fps=FILM_FPS, size=FILM_SIZE):
    """Yield the frames of a film one by one, uint8 (height, width, 3)."""
    for clip in clips:
        yield from render_clip(clip, fps=fps, size=size)


def write_film(path, clips, *, wave=None, rate=16000, fps=FILM_FPS, size=FILM_SIZE):
    """Encode a film as H.264 mp4, frame by frame, and its sound as AAC.

    Parameters
    ----------
    path : path-like
    clips : list of Clip
    wave : array of float32 of shape (n_samples,) or None, default=None
        The sound from the film's first frame on, one channel in [-1, 1]; None: a silent film.
    rate : int, default=16000
        Samples of the sound per second.
    fps : int, default=15
    size : (int, int), default=(96, 128)
        Height and width in pixels.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        sound = None
        if wave is not None:
            sound = container.add_stream("aac", rate=rate, layout="mono")
            sound.bit_rate = 32000
        for index, image in enumerate(iter_film(clips, fps=fps, size=size)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
            if sound is not None:
                first, end = index * rate // fps, (index + 1) * rate // fps
                part = np.ascontiguousarray(wave[None, first:end], dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
                container.mux(sound.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
