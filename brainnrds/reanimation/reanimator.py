"""A decoder plus a renderer: from BOLD and initial frames to video."""

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import (
    InputError,
    check_clips,
    check_flow,
    refuse_weights,
    scored_clips,
    warn_of_missing_labels,
)
from brainnrds.metrics import end_point_error
from brainnrds.reanimation.warp import SplatRenderer

__all__ = ["Reanimator"]


class Reanimator(BaseEstimator):
    """Move still frames the way the brain saw them move.

    The decoder says what moved where; the renderer makes a clip of it. Both can be exchanged:
    whatever the renderer is, score it against the controls through the same renderer
    (`rendering_flows`), since a generator brings much that no brain told it.

    In `cross_validate` and `GridSearchCV` labels reach every fold's `fit` and `score` with
    ``sklearn.set_config(enable_metadata_routing=True)`` and ``params={"runs": runs, ...}``.

    Parameters
    ----------
    decoder : MotionDecoder or None, default=None
        BOLD -> flow. A fitted decoder may be used without `fit`. None: X is flow already (true
        flow, or decoded elsewhere).
    renderer : callable or None, default=None
        ``renderer(initial_frames, flow)`` -> clips. None: `SplatRenderer`, which needs no weights.
    frame_decoder : InitialFrameDecoder or None, default=None
        BOLD -> initial frames, for `predict` without `initial_frames`.

    Attributes
    ----------
    decoder_ : MotionDecoder
    frame_decoder_ : InitialFrameDecoder
        If there is one.
    labels_in_fit_ : list of str
        Those of `runs`, `films` and `has_cut` that `fit` was given.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.reanimation import Reanimator, SplatRenderer
    >>> frames = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    >>> flow = np.ones((2, 3, 2, 8, 8), dtype=np.float32)
    >>> clips = Reanimator(renderer=SplatRenderer(n_frames=4)).predict(flow, initial_frames=frames)
    >>> clips.shape
    (2, 4, 3, 32, 32)
    """

    def __init__(self, decoder=None, *, renderer=None, frame_decoder=None):
        self.decoder = decoder
        self.renderer = renderer
        self.frame_decoder = frame_decoder

    # what scikit-learn hands on without being asked: labels belong to samples
    __metadata_request__fit = dict.fromkeys(
        ("initial_frames", "image_features", "runs", "films", "has_cut", "film_times"), True
    )
    __metadata_request__predict = dict.fromkeys(("initial_frames", "image_features", "runs"), True)
    __metadata_request__score = dict.fromkeys(
        ("image_features", "runs", "films", "has_cut", "sample_weight"), True
    )

    def fit(
        self,
        X,
        y,
        *,
        initial_frames=None,
        image_features=None,
        runs=None,
        films=None,
        has_cut=None,
        film_times=None,
    ):
        """Fit the decoders on copies; the renderer has nothing to learn.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD.
        y : array of shape (n_samples, n_steps, 2, height, width)
            Flow.
        initial_frames : array of shape (n_samples, 3, height, width), default=None
            In [0, 1]; what `frame_decoder` learns from.
        image_features : array of shape (n_samples, n_channels, rows, columns), default=None
        runs, films : array of int or str of shape (n_samples,), default=None
        has_cut : bool array of shape (n_samples,), default=None
        film_times : array of shape (n_samples,), default=None
            All as in the decoder's `fit`, which gets those that are given.

        Returns
        -------
        self : Reanimator
        """
        if self.decoder is None:
            raise InputError("`decoder` must be given to fit; without one, X is flow: predict.")
        if self.frame_decoder is not None and initial_frames is None:
            raise InputError("`initial_frames` must be given: `frame_decoder` learns from them.")
        labels = {"runs": runs, "films": films, "has_cut": has_cut}
        self.labels_in_fit_ = [name for name, given in labels.items() if given is not None]
        told = {**labels, "image_features": image_features, "film_times": film_times}
        told = {name: given for name, given in told.items() if given is not None}
        self.decoder_ = clone(self.decoder).fit(X, y, **told)
        if self.frame_decoder is not None:
            self.frame_decoder_ = clone(self.frame_decoder).fit(
                X, initial_frames, runs=runs, films=films
            )
        return self

    def predict_flow(self, X, *, image_features=None, runs=None):
        """Decode flow.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD; with ``decoder=None`` the flow itself, which is checked and returned.
        image_features : array of shape (n_samples, n_channels, rows, columns), default=None
        runs : int array of shape (n_samples,), default=None

        Returns
        -------
        flow : array of float32 of shape (n_samples, n_steps, 2, height, width)
        """
        if self.decoder is None:
            return check_flow(X, name="X")
        decoder = getattr(self, "decoder_", self.decoder)
        check_is_fitted(decoder)
        return decoder.predict(X, image_features=image_features, runs=runs)

    def predict_initial_frames(self, X, *, runs=None):
        """Decode the initial frames with `frame_decoder`.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD.
        runs : int array of shape (n_samples,), default=None

        Returns
        -------
        initial_frames : array of float32 of shape (n_samples, 3, height, width)
        """
        if self.frame_decoder is None:
            raise InputError(
                "`initial_frames` must be given: there is no `frame_decoder` to decode them."
            )
        if self.decoder is None:
            raise InputError("`initial_frames` must be given: with `decoder=None` X is no BOLD.")
        frame_decoder = getattr(self, "frame_decoder_", self.frame_decoder)
        check_is_fitted(frame_decoder)
        return frame_decoder.predict(X, runs=runs)

    def predict(self, X, *, initial_frames=None, image_features=None, runs=None, samples=None):
        """Reanimate.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD; with ``decoder=None`` flow.
        initial_frames : array of shape (n_samples, 3, height, width), default=None
            In [0, 1]: from the stimulus, from any reconstruction, or None for `frame_decoder`'s.
        image_features : array of shape (n_samples, n_channels, rows, columns), default=None
            What the decoder was fitted with, of these initial frames: those of the film's own
            would tell the decoder what the brain did not.
        runs : int array of shape (n_samples,), default=None
        samples : int or bool array, default=None
            Which samples to render. All of X serves the windows of BOLD.

        Returns
        -------
        clips : array of float32 of shape (n_rendered, n_frames, 3, height, width)
            In [0, 1].
        """
        if initial_frames is None and image_features is not None:
            raise InputError(
                "`initial_frames` must be given with `image_features`, which must be of the frames "
                "that are rendered: compute them from `predict_initial_frames`, and pass both."
            )
        flow = self.predict_flow(X, image_features=image_features, runs=runs)
        if initial_frames is None:
            initial_frames = self.predict_initial_frames(X, runs=runs)
        initial_frames = check_clips(initial_frames, name="initial_frames", n_dim=4)
        if len(initial_frames) != len(flow):
            raise InputError(
                f"`initial_frames` must have one frame per sample ({len(flow)}); "
                f"got {len(initial_frames)}."
            )
        if samples is not None:
            samples = np.asarray(samples)
            flow, initial_frames = flow[samples], initial_frames[samples]
        renderer = SplatRenderer() if self.renderer is None else self.renderer
        return renderer(initial_frames, flow)

    def score(
        self,
        X,
        y,
        *,
        image_features=None,
        runs=None,
        films=None,
        has_cut=None,
        sample_weight=None,
    ):
        """Return minus the mean end-point error of the decoded flow, so that larger is better.

        Nothing is rendered: the score does not depend on the renderer, nor on the initial frames.
        For the clips themselves see `score_clips`.

        Parameters
        ----------
        X, y, image_features, runs, films, has_cut
            As in `fit`; samples without a film or with a cut do not count.
        sample_weight : None
            For scikit-learn's pipelines, which pass it; weights are refused.

        Returns
        -------
        score : float
            Minus the end-point error over all cells of all counted clips, px of the grid per step.

        Warns
        -----
        UserWarning
            If labels that `fit` was given are missing here.
        """
        refuse_weights(sample_weight)
        warn_of_missing_labels(self, runs=runs, films=films, has_cut=has_cut)
        y = check_flow(y, name="y")
        shown = scored_clips(films, has_cut, len(y))
        flow = self.predict_flow(X, image_features=image_features, runs=runs)
        return -end_point_error(flow[shown], y[shown], average="cells")
