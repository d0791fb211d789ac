"""The simplest things that a film shows: how bright, how contrasty, and where it was cut."""

import numpy as np

from brainnrds.features._extractor import Extractor
from brainnrds.flow import cut_scores

__all__ = ["CutScores", "Luminance"]

# ITU-R BT.709: how much red, green and blue add to luminance
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


class Luminance(Extractor):
    """Mean luminance, contrast, and how much both change within a clip.

    Parameters
    ----------
    fps : float, default=8.0
        Frames/s that it wants to see.
    size : int, default=64
        Shorter side of the frames, px.

    Notes
    -----
    Columns: mean and standard deviation over the picture (both averaged over frames), and their
    mean absolute change from frame to frame. Luminance is the weighted sum of ITU-R BT.709.
    """

    def __init__(self, *, fps=8.0, size=64):
        self.fps = fps
        self.size = size

    def transform(self, clips):
        """Measure the light of clips.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)
            In [0, 1].

        Returns
        -------
        features : array of float32 of shape (n_clips, 4)
        """
        rows = []
        for clip in clips:
            light = np.einsum("fchw,c->fhw", np.asarray(clip, dtype=np.float32), _LUMINANCE)
            pair = np.stack([light.mean(axis=(1, 2)), light.std(axis=(1, 2))])
            change = np.abs(np.diff(pair, axis=1))
            steps = change.mean(axis=1) if change.shape[1] else np.zeros(2)
            rows.append(np.concatenate([pair.mean(axis=1), steps]))
        return np.array(rows, dtype=np.float32)


class CutScores(Extractor):
    """Largest score of a cut between two frames of each clip (:func:`brainnrds.flow.cut_scores`).

    Parameters
    ----------
    fps : float, default=8.0
        Frames/s that it wants to see.
    size : int, default=64
        Shorter side of the frames, px.
    """

    def __init__(self, *, fps=8.0, size=64):
        self.fps = fps
        self.size = size

    def transform(self, clips):
        """Score the cuts of clips.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)
            In [0, 1].

        Returns
        -------
        scores : array of float32 of shape (n_clips, 1)
        """
        return np.stack([cut_scores(np.asarray(clip)[None]).max(axis=1) for clip in clips])
