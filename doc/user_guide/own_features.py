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
def features_of(data, extractor, store_dir):
    """Features of each row of `data.bold`, for `data` from load_runs."""
    from brainnrds.analyses import extract_features
    from brainnrds.features import distinct_clips, place_features

    times, index = distinct_clips(
        data.films, data.film_times, clip_duration=data.t_r, film_durations=data.film_durations
    )
    films = [(path, t, data.t_r) for path, t in zip(data.stim_files, times, strict=True)]
    features = extract_features(films, {"own": extractor}, store_dir=store_dir)
    return place_features(features["own"], index)
