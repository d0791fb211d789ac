"""FrameOrder: the control of motion inside one network, which sees the same frames without it."""

import zlib

import numpy as np
from sklearn.utils.metaestimators import available_if

from brainnrds._checks import InputError
from brainnrds.features._extractor import Extractor

__all__ = ["FrameOrder"]


def _has(name):
    return available_if(lambda self: hasattr(self.extractor, name))


class FrameOrder(Extractor):
    """Let an extractor see clips that stand still, or run in a random order.

    A video network differs from an image network in more than motion: in its architecture, size and
    training. The same network on the first frame of each clip, repeated, differs in motion alone.

    Parameters
    ----------
    extractor : transformer
        What looks at the clips, such as `MotionEnergy` or `VideoEncoder`.
    order : {"frozen", "shuffled"}, default="frozen"
        "frozen" repeats a clip's first frame; "shuffled" shows its frames in an order that is drawn
        for each clip: the same pictures, without their motion.
    random_state : int, default=0
        Of the orders. A clip has the same order wherever in a film it stands.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import FrameOrder, MotionEnergy
    >>> clip = np.random.default_rng(0).random((10, 3, 48, 64), dtype=np.float32)
    >>> still = np.repeat(clip[:1], 10, axis=0)
    >>> energy = MotionEnergy()
    >>> bool(np.allclose(FrameOrder(energy).transform([clip]), energy.transform([still])))
    True
    """

    def __init__(self, extractor, *, order="frozen", random_state=0):
        self.extractor = extractor
        self.order = order
        self.random_state = random_state

    @property
    def fps(self):
        """Frames/s, as the extractor wants them."""
        return self.extractor.fps

    @property
    def size(self):
        """Size of frames, as the extractor wants it."""
        return self.extractor.size

    @property
    @_has("device")
    def device(self):
        return self.extractor.device

    def transform(self, clips):
        """Return the extractor's features of the rearranged clips.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)

        Returns
        -------
        features : array of float32 of shape (n_clips, ...)
        """
        self._check()
        return self.extractor.transform(self._rearranged(clip) for clip in clips)

    @_has("frame_times")
    def frame_times(self, duration):
        """Return when the extractor looks at a clip of `duration` s."""
        return self.extractor.frame_times(duration)

    @_has("frame_preparation")
    def frame_preparation(self):
        """Return what resizes and crops a frame for the extractor's network."""
        return self.extractor.frame_preparation()

    @_has("encode")
    def encode(self, clips):
        """As `transform`, of clips that were prepared already."""
        self._check()
        return self.extractor.encode(self._rearranged(clip) for clip in clips)

    def _check(self):
        if self.order not in ("frozen", "shuffled"):
            raise InputError(f"`order` must be 'frozen' or 'shuffled'; got {self.order!r}.")

    def _rearranged(self, clip):
        clip = np.asarray(clip)
        if self.order == "frozen":
            return np.repeat(clip[:1], len(clip), axis=0)
        # from the clip itself, not from its number: features must not depend on how films are cut
        seed = zlib.crc32(np.ascontiguousarray(clip))
        return clip[np.random.default_rng([self.random_state, seed]).permutation(len(clip))]
