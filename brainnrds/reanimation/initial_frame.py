"""The initial frame out of BOLD: linear, without anybody else's reconstruction."""

import cv2
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_bold, check_clips, check_labels
from brainnrds.features.delays import delay

__all__ = ["InitialFrameDecoder"]

_ENCODE_BATCH = 16


class InitialFrameDecoder(BaseEstimator):
    """Decode the initial frame of each clip from BOLD by ridge regression.

    The targets are the latents of a frozen image autoencoder, or, without any weights, the
    coordinates of the frames in a basis of their principal components, learnt from the training
    frames. The basis gives blurry frames: colours and layout, no detail. It is ours from
    BOLD to pixel, though, and needs nothing that is not in the data.

    Parameters
    ----------
    autoencoder : diffusers autoencoder or None, default=None
        Any with ``encode(...).latent_dist.mode()`` and ``decode(...).sample``, such as
        ``AutoencoderKL.from_pretrained(folder)``; it is used where it is, in its own type.
        None: principal components.
    delays : sequence of int, default=(-4, -3, -2, -1, 0)
        The window of BOLD, in volumes; negative = BOLD after the clip's onset.
    size : (height, width), default=(64, 64)
        Frames are shrunk to this for the regression (a multiple of the autoencoder's factor,
        usually 8; 256 x 256 suits most), and predictions are grown back.
    n_components : int, default=100
        Principal components at most.
    alphas : sequence of float, default=(1e1, ..., 1e7)
        Candidate penalties, chosen by efficient leave-one-out.
    random_state : int, RandomState or None, default=None

    Attributes
    ----------
    ridge_ : sklearn.linear_model.RidgeCV
    basis_ : sklearn.decomposition.PCA
        Only without autoencoder.
    frame_shape_ : tuple
        (3, height, width) of the frames in training and in predictions.
    n_features_in_ : int
        Columns of X.
    """

    def __init__(
        self,
        autoencoder=None,
        *,
        delays=(-4, -3, -2, -1, 0),
        size=(64, 64),
        n_components=100,
        alphas=(1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7),
        random_state=None,
    ):
        self.autoencoder = autoencoder
        self.delays = delays
        self.size = size
        self.n_components = n_components
        self.alphas = alphas
        self.random_state = random_state

    def __sklearn_clone__(self):
        # the frozen autoencoder is shared: copying its weights would only cost memory
        parameters = {
            name: value if name == "autoencoder" else clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
        }
        return type(self)(**parameters)

    def fit(self, X, y, *, runs=None, films=None):
        """Fit the regression.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD.
        y : array of shape (n_samples, 3, height, width)
            Initial frame of the clip at each sample, in [0, 1].
        runs : int array of shape (n_samples,), default=None
            No window crosses a run border.
        films : int array of shape (n_samples,), default=None
            Samples with -1 show nothing: they only lend BOLD to windows.

        Returns
        -------
        self : InitialFrameDecoder
        """
        X = check_bold(X, name="X")
        y = check_clips(y, name="y", n_dim=4)
        if len(y) != len(X):
            raise InputError(f"`y` must have one frame per sample of X ({len(X)}); got {len(y)}.")
        shown = check_labels(films, len(X), name="films") != -1
        if shown.sum() < 3:
            raise InputError(f"`films` must show a film in at least 3 samples; got {shown.sum()}.")
        self.n_features_in_ = X.shape[1]
        self.frame_shape_ = y.shape[1:]
        small = np.stack([_resize(frame, self.size) for frame in y[shown]])
        if self.autoencoder is None:
            n_components = min(self.n_components, len(small) - 1)
            self.basis_ = PCA(n_components, random_state=self.random_state)
            targets = self.basis_.fit_transform(small.reshape(len(small), -1))
        else:
            latents = self._encode(small)
            self.latent_shape_ = latents.shape[1:]
            targets = latents.reshape(len(latents), -1)
        # in float64: weak penalties on many voxels are ill-conditioned
        windows = delay(X, self.delays, runs=runs)[shown].astype(np.float64)
        alphas = np.asarray(self.alphas, dtype=np.float64)
        self.ridge_ = RidgeCV(alphas=alphas).fit(windows, targets)
        return self

    def predict(self, X, *, runs=None):
        """Decode initial frames.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
        runs : int array of shape (n_samples,), default=None

        Returns
        -------
        frames : array of float32 of shape (n_samples, 3, height, width)
            In [0, 1].
        """
        check_is_fitted(self)
        X = check_bold(X, name="X")
        if X.shape[1] != self.n_features_in_:
            raise InputError(
                f"`X` must have {self.n_features_in_} voxels, as in fit; got {X.shape[1]}."
            )
        codes = self.ridge_.predict(delay(X, self.delays, runs=runs).astype(np.float64))
        if self.autoencoder is None:
            small = self.basis_.inverse_transform(codes).reshape(-1, 3, *self.size)
        else:
            small = self._decode(codes.reshape(-1, *self.latent_shape_))
        small = np.clip(small, 0, 1).astype(np.float32)
        return np.stack([_resize(frame, self.frame_shape_[1:]) for frame in small])

    def _encode(self, frames):
        import torch

        device, dtype = _home(self.autoencoder)
        latents = []
        with torch.no_grad():
            for start in range(0, len(frames), _ENCODE_BATCH):
                part = torch.from_numpy(frames[start : start + _ENCODE_BATCH])
                part = (part * 2 - 1).to(device, dtype)
                mode = self.autoencoder.encode(part).latent_dist.mode()
                latents.append(mode.float().cpu().numpy())
        return np.concatenate(latents)

    def _decode(self, latents):
        import inspect

        import torch

        device, dtype = _home(self.autoencoder)
        # the temporal decoder of video autoencoders asks how many frames belong together
        video = "num_frames" in inspect.signature(self.autoencoder.decode).parameters
        extra = {"num_frames": 1} if video else {}
        frames = []
        with torch.no_grad():
            for start in range(0, len(latents), _ENCODE_BATCH):
                part = torch.from_numpy(latents[start : start + _ENCODE_BATCH])
                part = part.to(device, dtype)
                decoded = self.autoencoder.decode(part, **extra).sample
                frames.append((decoded.float() / 2 + 0.5).cpu().numpy())
        return np.concatenate(frames)


def _home(network):
    parameter = next(network.parameters())
    return parameter.device, parameter.dtype


def _resize(frame, size):
    if frame.shape[1:] == tuple(size):
        return frame
    shrinks = size[0] * size[1] < frame.shape[1] * frame.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    image = np.ascontiguousarray(frame.transpose(1, 2, 0))
    image = cv2.resize(image, (size[1], size[0]), interpolation=how)
    return np.clip(image.transpose(2, 0, 1), 0, 1)
