import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class MeanColour(TransformerMixin, BaseEstimator):
    """Mean red, green and blue of each clip."""

    def __init__(self, fps=4, size=(48, 64)):
        self.fps = fps  # frames per second that it wants to see
        self.size = size  # (height, width) of these frames; None: as the film has them

    def fit(self, X=None, y=None):
        return self

    def transform(self, clips):  # each (n_frames, 3, height, width), float in [0, 1]
        return np.stack([clip.mean(axis=(0, 2, 3)) for clip in clips])


# use
def features_of(data, store_dir):
    """Features of each row of `data.bold`, for `data` from load_runs, and their columns."""
    from brainnrds.analyses import movie_features

    return movie_features(data, {"colour": MeanColour()}, store_dir=store_dir)
