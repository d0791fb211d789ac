"""FrameGrid: what a frame looks like, patch by patch, without a network."""

import numpy as np

from brainnrds._checks import InputError, check_clips
from brainnrds.features._extractor import Extractor
from brainnrds.flow import resampling_matrix

__all__ = ["FrameGrid"]


class FrameGrid(Extractor):
    """Colour, contrast and edges of the initial frame on a grid of patches.

    The image features of `MotionDecoder` when no pretrained encoder is at hand: per patch the mean
    of red, green and blue, the standard deviation of the luminance, and the length of the luminance
    gradient by its orientation.

    Parameters
    ----------
    grid : tuple (rows, columns), default=(8, 8)
    n_orientations : int, default=4
        From 0 to 180 degrees.
    size : tuple (height, width) or int, default=64
        Of the clips that this extractor wants to see (an int: the shorter side).
    fps : float, default=0.5
        Frames/s; only the first frame of a clip is looked at.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import FrameGrid
    >>> FrameGrid(grid=(4, 4)).transform(np.zeros((2, 3, 3, 32, 32), "float32")).shape
    (2, 8, 4, 4)
    """

    def __init__(self, grid=(8, 8), *, n_orientations=4, size=64, fps=0.5):
        self.grid = grid
        self.n_orientations = n_orientations
        self.size = size
        self.fps = fps

    def transform(self, clips):
        """Describe the initial frame of every clip.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)
            In [0, 1].

        Returns
        -------
        features : array of float32 of shape (n_clips, 4 + n_orientations, rows, columns)
        """
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise InputError(f"`grid` must be (rows, columns), both positive; got {self.grid!r}.")
        frames = [check_clips(np.asarray(clip)[:1], name="clip", n_dim=4)[0] for clip in clips]
        if not frames:
            raise InputError("`clips` must hold at least one clip; got none.")
        return np.stack([self._describe(frame) for frame in frames])

    def _describe(self, frame):
        height, width = frame.shape[1:]
        rows, columns = (
            resampling_matrix(new, old) for new, old in zip(self.grid, (height, width), strict=True)
        )
        luminance = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), frame, axes=1)
        dy, dx = np.gradient(luminance)
        length = np.hypot(dx, dy)
        # an edge of either polarity has the same orientation
        doubled = 2 * np.arctan2(dy, dx)
        edges = [
            length * np.maximum(np.cos(doubled - 2 * np.pi * i / self.n_orientations), 0)
            for i in range(self.n_orientations)
        ]
        maps = np.stack([*frame, luminance, luminance**2, *edges]).astype(np.float32)
        means = rows @ maps @ columns.T
        contrast = np.sqrt(np.maximum(means[4] - means[3] ** 2, 0))
        return np.concatenate([means[:3], contrast[None], means[5:]])
