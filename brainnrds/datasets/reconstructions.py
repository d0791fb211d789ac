"""Frames and clips that other decoders published, as arrays.

MindVideo, NeuroClips and Mind-Animator publish one video (or one folder of frames) per test clip.
Their names differ, but each holds the index of the clip.
"""

import re
from pathlib import Path

import cv2
import numpy as np
from sklearn.utils import Bunch

from brainnrds.io import InputError, read_clip

__all__ = ["load_reconstructions"]

# name -> the pattern of one item; {index} is the clip's number
_PATTERNS = {
    "mindvideo": "test{index}.gif",
    "neuroclips": "{index}.mp4",
    "mind-animator": "test_{index}.gif",
    "frames": "{index}/*.png",
}
_VIDEO = (".mp4", ".gif", ".avi", ".mov", ".mkv", ".webm")
_IMAGE = (".png", ".jpg", ".jpeg", ".bmp")


def load_reconstructions(
    folder, *, n_clips, pattern="{index}.gif", first_index=None, fps=None, size=None
):
    """Load published reconstructions, in the order of the test clips.

    Parameters
    ----------
    folder : path-like
    n_clips : int
        Number of test clips: every one must have its reconstruction, none may be left over.
    pattern : str, default="{index}.gif"
        Name of an item below `folder`, with ``{index}`` for the clip's number (with or without
        leading zeros) and ``*`` for anything: one video per clip (``"test{index}.gif"``), one
        image (``"{index}_0.png"``), or a folder of frames (``"{index}/*.png"``, frames in the
        order of the numbers in their names). "mindvideo", "neuroclips", "mind-animator" and
        "frames" stand for the names that these projects have used; check them against your copy.
    first_index : int or None, default=None
        Number of the first clip; None: 0 if there is a 0, else 1.
    fps : float or None, default=None
        Frame rate to sample videos at; None: every frame. GIFs may need it: equal frames in a
        row are stored as one.
    size : int, (int, int) or None, default=None
        Shorter side, or height and width, in pixels; None: as published (all alike).

    Returns
    -------
    reconstructions : Bunch
        ``clips`` : float32 (n_clips, n_frames, 3, height, width) in [0, 1];
        ``initial_frames`` : (n_clips, 3, height, width), for :class:`brainnrds.Reanimator`;
        ``paths`` : list of list of Path.

    Raises
    ------
    InputError
        No match; a clip without a reconstruction, or with two; more than `n_clips`; numbers of
        frames or sizes that differ; files that cannot be read.

    Examples
    --------
    Their flow as a row of the control table:

    >>> theirs = load_reconstructions("mindvideo/sub1", n_clips=1200, pattern="mindvideo",
    ...                               size=(256, 256))  # doctest: +SKIP
    >>> flow = OpticalFlow().transform(theirs.clips)  # doctest: +SKIP
    >>> compare_to_controls(..., other_flow={"MindVideo": flow})  # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"No such directory: {folder}.")
    if n_clips < 1:
        raise InputError(f"`n_clips` must be at least 1; got {n_clips}.")
    pattern = _PATTERNS.get(pattern, pattern)
    if pattern.count("{index}") != 1:
        raise InputError(f"`pattern` must hold {{index}} once; got {pattern!r}.")
    items = _find_items(folder, pattern)
    if first_index is None:
        first_index = 0 if 0 in items else 1
    wanted = range(first_index, first_index + n_clips)
    missing = [index for index in wanted if index not in items]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        raise InputError(
            f"{folder} must have a reconstruction ({pattern}) of each of {n_clips} clips; "
            f"{len(missing)} are missing: {shown}."
        )
    extra = sorted(set(items) - set(wanted))
    if extra:
        raise InputError(
            f"{folder} must have {n_clips} reconstructions from {first_index} on; there are "
            f"{len(extra)} more, the first is {extra[0]}: other clips, or another `first_index`?"
        )
    clips, paths = [], []
    for index in wanted:
        clip = _load_item(items[index], fps, size)
        if clips and clip.shape != clips[0].shape:
            raise InputError(
                f"{items[index][0]} must have the shape of the first, {clips[0].shape}; got "
                f"{clip.shape}: give `fps` and `size`."
            )
        clips.append(clip)
        paths.append(items[index])
    clips = np.stack(clips)
    return Bunch(clips=clips, initial_frames=clips[:, 0], paths=paths)


def _find_items(folder, pattern):
    """Dict of index -> list of paths: one video or image, or the frames of a folder."""
    regex = re.escape(pattern)
    regex = regex.replace(re.escape("{index}"), r"(?P<index>\d+)").replace(r"\*", "[^/]*")
    regex = re.compile(regex)
    many = "*" in pattern and "/" in pattern
    items = {}
    for path in sorted(folder.rglob("*")):
        match = regex.fullmatch(path.relative_to(folder).as_posix())
        if match and path.is_file():
            items.setdefault(int(match["index"]), []).append(path)
    if not items:
        names = [path.name for path in sorted(folder.iterdir())][:3]
        raise InputError(
            f"{folder} must hold files named {pattern}; it has {', '.join(names) or 'nothing'}."
        )
    for index, paths in items.items():
        if len(paths) > 1 and not many:
            raise InputError(
                f"{folder} must have one reconstruction of clip {index}; got {paths[0].name} and "
                f"{paths[1].name}."
            )
        paths.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    return items


def _load_item(paths, fps, size):
    """One clip, (n_frames, 3, height, width)."""
    suffix = paths[0].suffix.lower()
    if suffix in _VIDEO:
        return read_clip(paths[0], fps=fps, size=size)
    if suffix not in _IMAGE:
        raise InputError(f"{paths[0]} must be a video or an image; got {suffix}.")
    frames = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{path} cannot be read (damaged or truncated).")
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if size is not None:
            height, width = image.shape[:2]
            if np.ndim(size) == 0:
                factor = size / min(height, width)
                target = (round(height * factor), round(width * factor))
            else:
                target = tuple(size)
            shrinks = target[0] < height
            image = cv2.resize(
                image,
                (target[1], target[0]),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            )
        frames.append(image.transpose(2, 0, 1).astype(np.float32) / 255)
    if len({frame.shape for frame in frames}) != 1:
        raise InputError(f"Frames in {paths[0].parent} must have one size; give `size`.")
    return np.stack(frames)
