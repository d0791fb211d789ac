"""The initial frame out of BOLD: linear, without anybody else's reconstruction."""

import cv2
import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from brainnrds._checks import InputError, check_bold, check_clips, check_labels
from brainnrds.features.delays import check_delays, delay
from brainnrds.films import block_folds, film_folds, film_groups

__all__ = ["InitialFrameDecoder"]

_ENCODE_BATCH = 16
_MOST_FOLDS = 5  # that choose the penalty
_VOXELS_AT_A_TIME = 2048


class InitialFrameDecoder(BaseEstimator):
    """Decode the initial frame of each clip from BOLD by ridge regression.

    The targets are the latents of a frozen image autoencoder, or, without any weights, the
    coordinates of the frames in a basis of their principal components, learnt from the training
    frames. The basis gives blurry frames: colours and layout, no detail. It is ours from
    BOLD to pixel, though, and needs nothing that is not in the data.

    The regression is solved in the dual, from products of samples over blocks of voxels: in memory
    it takes samples x samples and samples x targets, beside the BOLD, which is kept as it is given.

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
        Candidate penalties, positive. The one with the least squared error in films that were left
        out is taken; film groups are spread over at most five folds. A single film is cut into
        contiguous parts, with gaps.
    random_state : int, RandomState or None, default=None

    Attributes
    ----------
    alpha_ : float
        The penalty.
    cv_errors_ : array of shape (n_alphas,)
        Squared error in films that were left out, over that of the mean frame of the others: 1 is
        no better than it. None with one candidate.
    dual_coef_ : array of shape (n_shown, n_targets)
        Weight of every training sample that shows a film.
    intercept_ : array of shape (n_targets,)
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

    # what scikit-learn hands on without being asked: labels belong to samples
    __metadata_request__fit = {"runs": True, "films": True}
    __metadata_request__predict = {"runs": True}

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
        runs : array of int or str of shape (n_samples,), default=None
            No window crosses a run border.
        films : array of int or str of shape (n_samples,), default=None
            Samples with -1 (of text: "" or "n/a") show nothing: they only lend BOLD to windows.

        Returns
        -------
        self : InitialFrameDecoder
        """
        X = check_bold(X, name="X")
        y = check_clips(y, name="y", n_dim=4)
        if len(y) != len(X):
            raise InputError(f"`y` must have one frame per sample of X ({len(X)}); got {len(y)}.")
        runs = check_labels(runs, len(X))
        films = check_labels(films, len(X), name="films")
        shown = films != -1
        if shown.sum() < 3:
            raise InputError(f"`films` must show a film in at least 3 samples; got {shown.sum()}.")
        self.n_features_in_ = X.shape[1]
        self.frame_shape_ = y.shape[1:]
        small = np.stack([resize_frame(frame, self.size) for frame in y[shown]])
        if self.autoencoder is None:
            n_components = min(self.n_components, len(small) - 1)
            self.basis_ = PCA(n_components, random_state=self.random_state)
            targets = self.basis_.fit_transform(small.reshape(len(small), -1))
        else:
            latents = self._encode(small)
            self.latent_shape_ = latents.shape[1:]
            targets = latents.reshape(len(latents), -1)
        targets = targets.astype(np.float64)
        self.X_fit_ = X
        self.windows_fit_ = self._windows(runs, len(X))[shown]
        kernel = self._kernel(X, self.windows_fit_)
        self.alpha_, self.cv_errors_ = self._choose_alpha(kernel, targets, runs, films, shown)
        self.dual_coef_, self.intercept_ = _dual_ridge(kernel, targets, self.alpha_)
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
        kernel = self._kernel(X, self._windows(runs, len(X)))
        codes = kernel @ self.dual_coef_ + self.intercept_
        if self.autoencoder is None:
            small = self.basis_.inverse_transform(codes).reshape(-1, 3, *self.size)
        else:
            small = self._decode(codes.reshape(-1, *self.latent_shape_))
        small = np.clip(small, 0, 1).astype(np.float32)
        return np.stack([resize_frame(frame, self.frame_shape_[1:]) for frame in small])

    def _windows(self, runs, n_samples):
        """Rows of each sample's window, (n_samples, n_delays); -1 = outside its run."""
        rows = np.arange(1, n_samples + 1)[:, None]
        return delay(rows, check_delays(self.delays), runs=runs) - 1

    def _kernel(self, X, windows):
        """Products of windows of X with those of training, (n_windows, n_shown), in float64.

        Weak penalties on many voxels are ill-conditioned.
        """
        # one row and column more: what -1 points to, zeros
        products = np.zeros((len(X) + 1, len(self.X_fit_) + 1))
        for start in range(0, X.shape[1], _VOXELS_AT_A_TIME):
            voxels = slice(start, start + _VOXELS_AT_A_TIME)
            part = X[:, voxels].astype(np.float64)
            theirs = part if X is self.X_fit_ else self.X_fit_[:, voxels].astype(np.float64)
            products[:-1, :-1] += part @ theirs.T
        kernel = np.zeros((len(windows), len(self.windows_fit_)))
        for rows, columns in zip(windows.T, self.windows_fit_.T, strict=True):
            kernel += products[np.ix_(rows, columns)]
        return kernel

    def _choose_alpha(self, kernel, targets, runs, films, shown):
        """The penalty with the least error in left-out films, and the errors of all."""
        alphas = np.atleast_1d(np.asarray(self.alphas, dtype=np.float64))
        if alphas.ndim != 1 or not len(alphas) or not (alphas > 0).all():
            raise InputError(f"`alphas` must be positive; got {self.alphas!r}.")
        if len(alphas) == 1:
            return float(alphas[0]), None
        delays = check_delays(self.delays)
        folds = _folds(runs, films, shown, gap=max(delays) - min(delays))
        errors, error_of_mean = np.zeros(len(alphas)), 0.0
        for train, test in folds:
            error_of_mean += ((targets[test] - targets[train].mean(axis=0)) ** 2).sum()
            for i, alpha in enumerate(alphas):
                coef, intercept = _dual_ridge(kernel[np.ix_(train, train)], targets[train], alpha)
                predicted = kernel[np.ix_(test, train)] @ coef + intercept
                errors[i] += ((targets[test] - predicted) ** 2).sum()
        return float(alphas[np.argmin(errors)]), errors / (error_of_mean or 1.0)

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


def _folds(runs, films, shown, gap):
    """Folds over films, as indices into the samples that show one."""
    groups = film_groups(runs, films)
    units = groups if len(np.unique(groups[shown])) > 1 else films
    n_units = len(np.unique(units[shown]))
    if n_units > 1:
        folds = film_folds(runs, films, n_folds=min(n_units, _MOST_FOLDS), gap=gap)
    else:
        folds = block_folds(runs, films, n_folds=5, gap=gap)
    position = np.cumsum(shown) - 1
    return [(position[train], position[test]) for train, test in folds]


def _dual_ridge(kernel, targets, alpha):
    """Ridge regression in the dual (Saunders et al. 1998), the intercept not penalised.

    Returns
    -------
    coef : array of shape (n_samples, n_targets)
    intercept : array of shape (n_targets,)
        Predictions are ``kernel @ coef + intercept``: columns of `coef` sum to 0, so that the
        kernel need not be centred.
    """
    mean, rows = targets.mean(axis=0), kernel.mean(axis=0)
    centred = kernel - rows
    centred -= rows[:, None] - rows.mean()
    centred[np.diag_indices_from(centred)] += alpha
    coef = scipy.linalg.solve(
        centred, targets - mean, assume_a="pos", overwrite_a=True, check_finite=False
    )
    return coef, mean - rows @ coef


def _home(network):
    parameter = next(network.parameters())
    return parameter.device, parameter.dtype


def resize_frame(frame, size):
    """Bring a frame (3, height, width) to another size: by area where it shrinks, else bicubic."""
    if frame.shape[1:] == tuple(size):
        return frame
    shrinks = size[0] * size[1] < frame.shape[1] * frame.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    image = np.ascontiguousarray(frame.transpose(1, 2, 0))
    image = cv2.resize(image, (size[1], size[0]), interpolation=how)
    return np.clip(image.transpose(2, 0, 1), 0, 1)
