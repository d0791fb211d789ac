"""What extractors look at: frames of clips, decoded once for all of them.

Processes that decode films begin with this module. It loads little: their start is waited for.
"""

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from brainnrds.io.video import iter_frames, resize_image

__all__ = ["Clips", "View", "is_network", "look", "look_into_files", "read_files", "view_of"]


@dataclass(frozen=True)
class Clips:
    """Some clips of one film: `times` and `duration` in s."""

    path: Path
    times: np.ndarray
    duration: float
    film_reader: str


@dataclass(frozen=True)
class View:
    """What an extractor looks at: moments of a clip (s from its onset) and a way to resize."""

    moments: tuple[float, ...]
    prepare: object
    is_network: bool


@dataclass(frozen=True)
class _Resize:
    size: object

    def __call__(self, image):
        return np.ascontiguousarray(resize_image(image, self.size).transpose(2, 0, 1))


def is_network(extractor):
    """Say whether a pretrained network does the work: it runs where its weights are."""
    return hasattr(extractor, "frame_preparation")


def view_of(extractor, duration):
    """Return the `View` of an extractor of frames, for clips of `duration` s."""
    if hasattr(extractor, "frame_times"):
        moments = tuple(extractor.frame_times(duration))
    else:
        moments = tuple(np.arange(max(1, round(duration * extractor.fps))) / extractor.fps)
    if is_network(extractor):
        prepare = getattr(extractor, "light_preparation", extractor.frame_preparation)
        return View(moments, prepare(), True)
    size = extractor.size
    size = size if size is None or isinstance(size, (int, np.integer)) else tuple(size)
    return View(moments, _Resize(size), False)


def _decode(clips, views, empty):
    """Decode some clips once for all views: dict of view to what it makes of each frame."""
    looks = [
        (time + moment, i_view, i_clip, i_frame)
        for i_view, view in enumerate(views)
        for i_clip, time in enumerate(clips.times)
        for i_frame, moment in enumerate(sorted(view.moments))
    ]
    looks.sort()
    images = [None] * len(views)
    frames = iter_frames(clips.path, [look[0] for look in looks], decoder=clips.film_reader)
    shown, prepared = None, {}
    for (_, i_view, i_clip, i_frame), frame in zip(looks, frames, strict=True):
        if frame is not shown:
            shown, prepared = frame, {}
        if i_view not in prepared:
            prepared[i_view] = views[i_view].prepare(frame)
        if images[i_view] is None:
            # one array from the start: small ones that stay between large ones that go leave holes
            # which no later frame fits into, and memory grows by gigabytes
            shape = len(clips.times), len(views[i_view].moments), *prepared[i_view].shape
            make = empty if views[i_view].is_network else np.empty
            images[i_view] = make(shape, dtype=np.uint8)
        images[i_view][i_clip, i_frame] = prepared[i_view]
    return dict(zip(views, images, strict=True))


def look(clips, extractors, views, empty=np.empty):
    """Decode some clips, and run the extractors that are no networks.

    Parameters
    ----------
    clips : Clips
    extractors : dict of str to transformer
        Those that are no networks, at least.
    views : dict of str to View
        Of all extractors.
    empty : callable, default=np.empty
        Makes the array of a network's view, of a shape and dtype.

    Returns
    -------
    features : dict of str to array of shape (n_clips, ...)
    frames : dict of View to array of uint8 of shape (n_clips, n_frames, 3, height, width)
        For the networks: what the view's `prepare` makes of each frame.
    """
    images = _decode(clips, list(dict.fromkeys(views.values())), empty)
    features = {}
    for name, view in views.items():
        if not view.is_network:
            scaled = (clip.astype(np.float32) / 255 for clip in images[view])
            features[name] = np.asarray(extractors[name].transform(scaled), dtype=np.float32)
    return features, {view: frames for view, frames in images.items() if view.is_network}


def look_into_files(job, folder, index):
    """As `look`, frames as files: pickling them through a pipe would take as long as decoding."""
    names = (os.path.join(folder, f"{index}-{i_view}.npy") for i_view in count())

    def empty(shape, dtype):
        return np.lib.format.open_memmap(next(names), "w+", dtype, shape)

    features, frames = look(*job, empty=empty)
    return features, {view: array.filename for view, array in frames.items()}


def read_files(files):
    """Return the frames of `look_into_files`, mapped from the files, which go."""
    frames = {}
    for view, path in files.items():
        frames[view] = np.load(path, mmap_mode="r")
        os.unlink(path)  # the memory map stays readable
    return frames
