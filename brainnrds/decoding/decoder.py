"""MotionDecoder: dense flow out of a window of BOLD and the initial frame."""

import copy
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from brainnrds._checks import (
    InputError,
    check_cuts,
    check_device,
    check_flow,
    check_labels,
    refuse_weights,
    scored_clips,
    warn_of_missing_labels,
)
from brainnrds.decoding._inputs import (
    Windows,
    autocast,
    channel_statistics,
    check_image_features,
    check_subjects,
    class_logits,
    cuda_devices,
    encode_bold,
    image_share,
    split_groups,
    standardized_features,
    warn_of_foreign_unit,
)
from brainnrds.decoding._read_in import ReadInOfFlow, ridge_read_ins
from brainnrds.decoding._training import Training, fingerprint_of
from brainnrds.decoding.codebook import FlowCodebook
from brainnrds.decoding.networks import MotionNetwork
from brainnrds.decoding.voxels import column_blocks, mean_and_scale, select_voxels
from brainnrds.features.delays import check_delays, delay
from brainnrds.films import film_groups
from brainnrds.metrics import end_point_error

__all__ = ["MotionDecoder"]

_METADATA = ("image_features", "runs", "films", "has_cut", "subjects")


class MotionDecoder(BaseEstimator):
    """Decode dense motion from BOLD and the initial frame of each clip.

    A window of BOLD volumes -> multilayer perceptron -> broadcast over the flow's grid; features of
    the initial frame, interpolated to that grid; residual blocks of 1x1 convolutions; for every
    cell and step a distribution over the vectors of a flow codebook. The prediction is the expected
    flow. Trained with cross-entropy [1]_ [2]_. What [1]_ leaves open (widths, dropout, optimiser,
    epochs, validation, voxels) is a parameter here.

    X holds one volume per row and y the flow of the clip shown at that volume. The controls that
    every score needs are the same class, given BOLD that cannot know the film, or none
    (``use_bold=False``): see `brainnrds.decoding.compare_to_controls`.

    Labels and image features are metadata that scikit-learn routes by default: with
    ``sklearn.set_config(enable_metadata_routing=True)`` and ``params={"runs": runs, ...}``,
    `cross_validate`, `GridSearchCV` and `Pipeline` hand them to `fit`, `predict` and `score`.

    Parameters
    ----------
    n_codes : int, default=40
        Size of the flow codebook.
    delays : sequence of int, default=(-4, -3, -2, -1, 0)
        The window, in volumes: d takes the volume d *earlier*; negative = BOLD after the clip. A
        window never crosses a run border.
    use_bold : bool, default=True
        False = image-only control: the same network, given zeros for BOLD.
    voxel_selection : {None, "reliability", "best"}, default=None
        Which voxels to keep, from training samples alone, see
        `brainnrds.decoding.select_voxels`. "reliability": the `n_voxels` largest correlations
        between repeats of the same film (needs repeats in X). "best": the `n_voxels` that share
        most variance with the principal components of the flow, over the window's delays. Constant
        voxels never count.
    n_voxels : int, default=None
        For ``voxel_selection``.
    n_bold_channels : int, default=256
        Width of the perceptron that reads the window.
    n_channels : int, default=128
        Width of the 1x1 convolutions.
    n_blocks : int, default=3
        Residual blocks.
    dropout : float, default=0.2
        Before every linear layer of the perceptron and inside every residual block.
    n_epochs : int, default=50
        At most; the learning rate falls along a half cosine over these.
    batch_size : int, default=64
        Clips.
    learning_rate : float, default=1e-3
        Of AdamW, at its peak.
    weight_decay : float, default=0.05
        Of AdamW.
    validation_share : float, default=0.1
        Share of the film groups (at least one) held out for early stopping: the kept network is
        that of the epoch with the lowest end-point error on them. With one film group: share of its
        films, or a stretch of its only film, a window apart from training. With 0, or few clips,
        the last epoch is kept.
    patience : int, default=10
        Stop after this many epochs without a lower validation error.
    precision : {"float32", "bfloat16"}, default="float32"
        bfloat16: autocast of matrix products.
    checkpoint_path : path-like, default=None
        Needs an int `random_state`. Written after every 5 epochs; `fit` continues
        from it if it belongs to the same data and parameters, with the same result as without the
        interruption.
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}, default="cpu"
    verbose : int, default=0
        1 = progress bar over epochs.
    random_state : int, RandomState or None, default=None

    Attributes
    ----------
    codebook_ : FlowCodebook
    network_ : MotionNetwork
        On the CPU, whatever the device.
    read_in_of_flow_ : callable or None
        Flow -> what the read-in layers of several people give for it, on average.
    seed_ : int
        Everything that is random in the fit follows from it: `random_state` if that is an int,
        else the number that was drawn from it.
    voxels_ : dict
        Subject label -> int array, columns of X in use.
    history_ : dict of list
        One entry per epoch: "train_loss" (nats per cell and step), "validation_loss",
        "validation_error" (end-point error, px of the grid per step), "learning_rate".
    best_epoch_ : int
        Index into `history_` of the epoch that was kept; -1: the adapted read-in layer as it began.
    converged_ : bool
        Whether the validation error had stopped falling: the epoch that was kept is not the last.
        False without validation films, where nobody knows. Before that, networks that learn at
        different rates differ for no other reason.
    films_ : array
        Labels of the films in training, validation films included, as they were given.
    validation_films_ : array
    subjects_ : array
    labels_in_fit_ : list of str
        Labels that `fit` was given: `score` warns where they are missing.
    flow_shape_ : tuple
        (n_steps, 2, height, width).
    n_features_in_ : int
        Columns of X.

    References
    ----------
    .. [1] Yeung et al. 2025, Reanimating Images using Neural Representations of Dynamic Stimuli,
       arXiv:2406.02659.
    .. [2] Walker, Gupta & Hebert 2015, Dense Optical Flow Prediction from a Static Image,
       arXiv:1505.00295.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.decoding import MotionDecoder
    >>> random = np.random.default_rng(0)
    >>> bold = random.normal(size=(60, 20)).astype("float32")
    >>> flow = np.zeros((60, 1, 2, 4, 4), "float32") + bold[:, :2].reshape(60, 1, 2, 1, 1)
    >>> decoder = MotionDecoder(8, delays=(0,), n_epochs=3, random_state=0).fit(bold, flow)
    >>> decoder.predict(bold).shape
    (60, 1, 2, 4, 4)
    """

    def __init__(
        self,
        n_codes=40,
        *,
        delays=(-4, -3, -2, -1, 0),
        use_bold=True,
        voxel_selection=None,
        n_voxels=None,
        n_bold_channels=256,
        n_channels=128,
        n_blocks=3,
        dropout=0.2,
        n_epochs=50,
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.05,
        validation_share=0.1,
        patience=10,
        precision="float32",
        checkpoint_path=None,
        device="cpu",
        verbose=0,
        random_state=None,
    ):
        self.n_codes = n_codes
        self.delays = delays
        self.use_bold = use_bold
        self.voxel_selection = voxel_selection
        self.n_voxels = n_voxels
        self.n_bold_channels = n_bold_channels
        self.n_channels = n_channels
        self.n_blocks = n_blocks
        self.dropout = dropout
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_share = validation_share
        self.patience = patience
        self.precision = precision
        self.checkpoint_path = checkpoint_path
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    # what scikit-learn hands on without being asked: labels belong to samples
    __metadata_request__fit = dict.fromkeys(_METADATA + ("film_times",), True)
    __metadata_request__predict = dict.fromkeys(("image_features", "runs", "subjects"), True)
    __metadata_request__predict_proba = __metadata_request__predict
    __metadata_request__score = dict.fromkeys(_METADATA + ("sample_weight",), True)

    def fit(
        self,
        X,
        y,
        *,
        image_features=None,
        runs=None,
        films=None,
        has_cut=None,
        subjects=None,
        film_times=None,
    ):
        """Train the decoder.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
            BOLD. With several subjects: the columns of the subject with most voxels; the others'
            surplus columns hold zeros.
        y : array of shape (n_samples, n_steps, 2, height, width)
            Flow of the clip shown at each sample, px of this grid per step.
        image_features : array of shape (n_samples, n_channels, rows, columns), default=None
            Features of each clip's initial frame on a patch grid. None: brain and position only.
        runs : array of int or str of shape (n_samples,), default=None
            No window crosses a run border.
        films : array of int or str of shape (n_samples,), default=None
            Film of each sample. Samples with -1 (of text: "" or "n/a") show nothing: they lend
            BOLD to other samples' windows and are left out themselves.
        has_cut : bool array of shape (n_samples,), default=None
            Clips with a cut, left out of training (`brainnrds.flow.detect_cuts`).
        subjects : array of int or str of shape (n_samples,), default=None
            Subject of each sample: a read-in layer each, one trunk for all. A run belongs to
            one subject.
        film_times : array of shape (n_samples,), default=None
            Seconds from the film's onset; used by ``voxel_selection="reliability"`` alone, to pair
            volumes of repeats.

        Returns
        -------
        self : MotionDecoder
        """
        labels = {"runs": runs, "films": films, "has_cut": has_cut, "subjects": subjects}
        return self._fit(X, y, image_features, labels, film_times=film_times)

    def _fit(
        self,
        X,
        y,
        image_features,
        labels,
        *,
        film_times=None,
        window_order=None,
        trunk=None,
        template=None,
    ):
        """`fit`, or the same with the windows of the samples in another order (a control).

        `trunk` is a fitted decoder of which everything but the read-in layers is taken over. The
        new layer begins where it gives what theirs give: `template`, or what they give for such a
        motion.
        """
        X, y = self._check_X_y(X, y)
        self.labels_in_fit_ = [name for name, given in labels.items() if given is not None]
        runs, films, has_cut, subjects = labels.values()
        n_samples = len(X)
        self._check_parameters()
        delays = check_delays(self.delays)
        runs = check_labels(runs, n_samples)
        longest, n_volumes = max(map(abs, delays)), np.unique(runs, return_counts=True)[1].max()
        if n_volumes <= longest:
            raise InputError(
                f"`delays` must be shorter than the runs; got a delay of {longest} volumes and "
                f"runs of at most {n_volumes}."
            )
        named_films = np.zeros(n_samples, dtype=int) if films is None else np.asarray(films)
        films = check_labels(films, n_samples, name="films")
        subjects = check_subjects(subjects, runs)
        features = check_image_features(image_features, n_samples)
        shown = (films != -1) & ~check_cuts(has_cut, n_samples)
        if not shown.any():
            raise InputError(
                f"no clip is left to train on: of {n_samples} samples {(films == -1).sum()} show "
                f"no film and {n_samples - (films == -1).sum()} others have a cut."
            )
        device = check_device(self.device)
        self.seed_ = (
            int(self.random_state)
            if isinstance(self.random_state, Integral)
            else int(check_random_state(self.random_state).randint(2**31 - 1))
        )
        random = check_random_state(self.seed_)
        seed = int(random.randint(2**31 - 1))
        warn_of_foreign_unit(y[shown])

        groups = film_groups(runs, films)
        gap = max(delays) - min(delays)
        train, validation = split_groups(runs, films, shown, self.validation_share, random, gap=gap)
        self.films_ = np.unique(named_films[films != -1])
        self.validation_films_ = np.unique(named_films[validation])
        self.flow_shape_ = y.shape[1:]
        if trunk is None:
            self.codebook_ = FlowCodebook(self.n_codes, random_state=seed).fit(y[train])
        else:
            self.codebook_ = trunk.codebook_
        self.subjects_ = np.unique(subjects)
        index = delay(np.arange(1, n_samples + 1)[:, None], delays, runs=runs) - 1
        index = index if window_order is None else index[window_order]
        # volumes of the training films' runs, those without a film included
        used = np.isin(groups, np.unique(groups[train]))
        counted = np.isin(np.arange(n_samples), train)
        selection = {"runs": runs, "films": films, "film_times": film_times}
        selection["window_order"] = window_order
        self._fit_bold(X, y, used, counted, subjects, selection)
        self.feature_mean_ = self.feature_scale_ = None
        if trunk is not None:
            self.feature_mean_, self.feature_scale_ = trunk.feature_mean_, trunk.feature_scale_
        elif features is not None:
            self.feature_mean_, self.feature_scale_ = channel_statistics(features, train)

        with torch.random.fork_rng(devices=cuda_devices(device)):
            torch.manual_seed(seed)
            network = MotionNetwork(
                [len(self.voxels_[s]) * len(delays) for s in self.subjects_.tolist()],
                0 if features is None else features.shape[1],
                self.flow_shape_[2:],
                self.flow_shape_[0],
                len(self.codebook_.codes_),
                n_bold_channels=self.n_bold_channels,
                n_channels=self.n_channels,
                n_blocks=self.n_blocks,
                dropout=self.dropout,
            ).to(device)
            if trunk is not None:
                network.take_trunk(trunk.network_)
            windows = self._windows(X, index, subjects, device)
            beginnings = self._beginnings(windows, y, train, validation, trunk, template)
            features = self._standardized(features, device)
            fingerprint = None
            if self.checkpoint_path is not None:
                arrays = [X, y, train, validation, windows.index]
                arrays += [] if image_features is None else [np.asarray(image_features)]
                fingerprint = fingerprint_of(self, arrays, seed)
            training = Training(self, network, windows, features, y, device, random)
            training.run(train, validation, fingerprint, beginnings=beginnings)
        self.history_, self.best_epoch_ = training.history, training.best_epoch
        n_epochs = len(self.history_["train_loss"])
        self.converged_ = bool(len(validation)) and self.best_epoch_ < n_epochs - 1
        self.read_in_of_flow_ = None
        if len(self.subjects_) > 1 and self.use_bold:
            output = self._read(network, windows, train)
            self.read_in_of_flow_ = ReadInOfFlow(y[train], output, seed)
        self.network_ = network.cpu().eval()
        return self

    def read_in(self, X, *, runs=None, subjects=None):
        """What the read-in layers make of BOLD: the space that people share.

        Parameters
        ----------
        X, runs, subjects
            As in `predict`.

        Returns
        -------
        output : array of float32 of shape (n_samples, n_bold_channels)
            Before the nonlinearity.
        """
        network, windows, _ = self._prepare_bold(X, runs, subjects)
        return self._read(network, windows, np.arange(len(X)))

    def _read(self, network, windows, rows):
        output = np.empty((len(rows), self.n_bold_channels), dtype=np.float32)
        with torch.inference_mode():
            for places in np.array_split(np.arange(len(rows)), -(-len(rows) // self.batch_size)):
                for window, (subject, of_subject) in windows.gather(rows[places]):
                    layer = network.read_in[subject]
                    output[places[of_subject]] = layer(window).cpu().numpy()
        return output

    def _beginnings(self, windows, y, train, validation, trunk, template):
        """Where a new read-in layer may begin: giving what those of others give, if they said."""
        if template is None and trunk is not None and trunk.read_in_of_flow_ is not None:
            template = trunk.read_in_of_flow_(y)
        if template is None:
            return []
        [(window, _)] = windows.gather(np.arange(len(y)))
        return ridge_read_ins(window.cpu().numpy(), template, train, validation)

    def predict(self, X, *, image_features=None, runs=None, subjects=None):
        """Decode the expected flow of every sample.

        Parameters
        ----------
        X : array of shape (n_samples, n_voxels)
        image_features : array of shape (n_samples, n_channels, rows, columns), default=None
            Needed if the decoder was fitted with them.
        runs : array of int or str of shape (n_samples,), default=None
        subjects : array of int or str of shape (n_samples,), default=None

        Returns
        -------
        flow : array of float32 of shape (n_samples, n_steps, 2, height, width)
            Px of the grid per step.
        """
        flow = [
            torch.einsum("nptk,kc->ntcp", probabilities, codes)
            for probabilities, codes in self._predict(X, image_features, runs, subjects)
        ]
        return torch.cat(flow).unflatten(3, self.flow_shape_[2:]).numpy()

    def predict_proba(self, X, *, image_features=None, runs=None, subjects=None):
        """Predict the distribution over the codebook for every cell and step.

        Parameters
        ----------
        X, image_features, runs, subjects
            As in `predict`.

        Returns
        -------
        probabilities : array of float32 of shape (n_samples, n_steps, n_codes, height, width)
            Sums to 1 over the codes.
        """
        parts = [p.permute(0, 2, 3, 1) for p, _ in self._predict(X, image_features, runs, subjects)]
        return torch.cat(parts).unflatten(3, self.flow_shape_[2:]).numpy()

    def predict_uncertainty(self, X, *, image_features=None, runs=None, subjects=None):
        """Predict how uncertain each cell's flow is: the spread of its distribution over the codes.

        Parameters
        ----------
        X, image_features, runs, subjects
            As in `predict`.

        Returns
        -------
        uncertainty : array of float32 of shape (n_samples, n_steps, height, width)
            Square root of the expected squared distance of the codes from the expected flow, px of
            the grid per step.
        """
        parts = []
        for probabilities, codes in self._predict(X, image_features, runs, subjects):
            mean = probabilities @ codes
            variance = probabilities @ (codes**2).sum(dim=1) - (mean**2).sum(dim=3)
            parts.append(variance.clamp_min(0).sqrt().permute(0, 2, 1))
        return torch.cat(parts).unflatten(2, self.flow_shape_[2:]).numpy()

    def score(
        self,
        X,
        y,
        *,
        image_features=None,
        runs=None,
        films=None,
        has_cut=None,
        subjects=None,
        sample_weight=None,
    ):
        """Return minus the mean end-point error, so that larger is better.

        Parameters
        ----------
        X, y, image_features, runs, films, has_cut, subjects
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
        check_is_fitted(self, "network_")
        refuse_weights(sample_weight)
        warn_of_missing_labels(self, runs=runs, films=films, has_cut=has_cut)
        y = check_flow(y, name="y")
        shown = scored_clips(films, has_cut, len(y))
        flow = self.predict(X, image_features=image_features, runs=runs, subjects=subjects)
        return -end_point_error(flow[shown], y[shown], average="cells")

    def voxel_importance(
        self,
        X,
        *,
        image_features=None,
        runs=None,
        subjects=None,
        n_projections=8,
        random_state=None,
    ):
        """Map how strongly the decoded flow depends on each voxel.

        The root mean square over clips of the norm of the decoded flow's derivative with respect to
        the voxel, over all delays, cells and steps; the norm is estimated from random projections
        of the flow with independent signs. It says what the decoder uses, not what the voxel knows:
        for that leave voxels out (`brainnrds.decoding.compare_lesions`).

        Parameters
        ----------
        X, image_features, runs, subjects
            As in `predict`; one subject at a time.
        n_projections : int, default=8
            The relative standard error of a map value falls with the root of this times clips.
        random_state : int, RandomState or None, default=None

        Returns
        -------
        importance : array of float32 of shape (n_voxels,)
            Px of the grid per standard deviation of the voxel; 0 for voxels not in use.
        """
        network, windows, features, codes, device = self._prepare(X, image_features, runs, subjects)
        if len(np.unique(windows.subject)) != 1:
            raise InputError("`subjects` must hold one subject at a time; got several.")
        label = self.subjects_.tolist()[windows.subject[0]]
        random = check_random_state(random_state)
        total = 0
        for batch in np.array_split(np.arange(len(X)), -(-len(X) // self.batch_size)):
            window, (place, _) = windows.gather(batch)[0]
            window.requires_grad_(True)
            with autocast(self.precision, device):
                image = image_share(network, features, batch, device)
                logits = network.decode_cells(network.encode_bold(window, place), image)
            flow = logits.float().softmax(dim=3) @ codes.to(device)
            for i in range(n_projections):
                signs = random.randint(2, size=flow.shape).astype(np.float32) * 2 - 1
                signs = torch.from_numpy(signs).to(device)
                (gradient,) = torch.autograd.grad(
                    (flow * signs).sum(), window, retain_graph=i + 1 < n_projections
                )
                total = total + (gradient.double() ** 2).sum(dim=0).cpu().numpy()
        per_voxel = total.reshape(-1, len(self.voxels_[label])).sum(axis=0)
        importance = np.zeros(X.shape[1], dtype=np.float32)
        importance[self.voxels_[label]] = np.sqrt(per_voxel / (n_projections * len(X)))
        return importance

    def _check_X_y(self, X, y):
        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        if y is None:
            raise InputError(
                "MotionDecoder requires y to be passed, but the target y is None: it is flow of "
                "shape (n_clips, n_steps, 2, height, width)."
            )
        y = check_array(y, allow_nd=True, ensure_2d=False, ensure_all_finite=False, input_name="y")
        y = check_flow(y, name="y")
        if len(X) != len(y):
            raise InputError(
                f"`X` and `y` must have one length; got {len(X)} volumes and {len(y)} clips: "
                "inconsistent numbers of samples."
            )
        return X, y

    def _check_parameters(self):
        if self.voxel_selection not in (None, "reliability", "best"):
            raise InputError(
                "`voxel_selection` must be None, 'reliability' or 'best'; "
                f"got {self.voxel_selection!r}."
            )
        if self.voxel_selection is not None and (self.n_voxels is None or self.n_voxels < 1):
            raise InputError(
                f"`n_voxels` must be a positive int with `voxel_selection`; got {self.n_voxels!r}."
            )
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(
                f"`precision` must be 'float32' or 'bfloat16'; got {self.precision!r}."
            )
        for name in ("n_epochs", "batch_size", "patience", "n_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` must be at least 1; got {getattr(self, name)!r}.")
        if not 0 <= self.validation_share < 1:
            raise InputError(
                f"`validation_share` must lie in [0, 1); got {self.validation_share!r}."
            )

    def _prepare_bold(self, X, runs, subjects):
        """Check BOLD that is to be read: network, windows, device."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        runs = check_labels(runs, len(X))
        subjects = check_subjects(subjects, runs)
        unknown = np.setdiff1d(subjects, self.subjects_)
        if len(unknown):
            raise InputError(
                f"`subjects` must be among the fitted {self.subjects_.tolist()}; "
                f"got {unknown.tolist()}."
            )
        device = check_device(self.device)
        network = copy.deepcopy(self.network_).to(device).eval()
        index = delay(np.arange(1, len(X) + 1)[:, None], check_delays(self.delays), runs=runs) - 1
        return network, self._windows(X, index, subjects, device), device

    def _prepare(self, X, image_features, runs, subjects):
        """Check what is to be decoded: network, windows, features and codes on the device."""
        network, windows, device = self._prepare_bold(X, runs, subjects)
        features = check_image_features(image_features, len(X))
        expected = None if self.feature_mean_ is None else len(self.feature_mean_)
        got = None if features is None else features.shape[1]
        if expected != got:
            raise InputError(
                f"`image_features` must have {expected} channels, as in fit; got {got}."
            )
        features = self._standardized(features, device)
        return network, windows, features, torch.from_numpy(self.codebook_.codes_), device

    def _fit_bold(self, X, y, used, counted, subjects, selection):
        self.voxels_, self.bold_mean_, self.bold_scale_ = {}, {}, {}
        for subject in self.subjects_.tolist():
            of_subject = subjects == subject
            rows = np.flatnonzero(of_subject & used)
            rows = rows if len(rows) else np.flatnonzero(of_subject)
            mean, scale = mean_and_scale(X, rows)
            voxels = np.flatnonzero(scale > 1e-6 * (1 + np.abs(mean)))
            if self.voxel_selection is not None and len(voxels):
                kept = select_voxels(
                    X,
                    y,
                    counted=counted & of_subject,
                    method=self.voxel_selection,
                    n_voxels=self.n_voxels,
                    delays=check_delays(self.delays),
                    mean=mean,
                    **selection,
                )
                voxels = np.intersect1d(kept, voxels)
            if not len(voxels):
                raise InputError(
                    f"no voxel is left for subject {subject}: of {X.shape[1]} all are constant or "
                    f"fail `voxel_selection`={self.voxel_selection!r}."
                )
            self.voxels_[subject] = voxels
            self.bold_mean_[subject] = mean[voxels].astype(np.float32)
            self.bold_scale_[subject] = scale[voxels].astype(np.float32)

    def _windows(self, X, index, subjects, device):
        bold, local_index = [], np.full(index.shape, -1)
        for subject in self.subjects_.tolist():
            rows = np.flatnonzero(subjects == subject)
            local = np.full(len(X) + 1, len(rows))  # the last row is zero: no source
            local[rows] = np.arange(len(rows))
            local_index[rows] = local[index[rows]]
            voxels = self.voxels_[subject]
            values = np.zeros((len(rows) + 1, len(voxels)), dtype=np.float32)
            if self.use_bold:
                for part in column_blocks(values):
                    values[:-1, part] = X[np.ix_(rows, voxels[part])]
                values[:-1] -= self.bold_mean_[subject]
                values[:-1] /= self.bold_scale_[subject]
            bold.append(torch.from_numpy(values).to(device))
        subject_index = np.searchsorted(self.subjects_, subjects)
        return Windows(bold, local_index, subject_index, device)

    def _standardized(self, features, device):
        return standardized_features(
            features,
            self.feature_mean_,
            self.feature_scale_,
            device=device,
            precision=self.precision,
        )

    def _predict(self, X, image_features, runs, subjects):
        """Yield (probabilities (n, cells, n_steps, n_codes), codes) batch by batch, on the CPU."""
        network, windows, features, codes, device = self._prepare(X, image_features, runs, subjects)
        for batch in np.array_split(np.arange(len(X)), -(-len(X) // self.batch_size)):
            with torch.inference_mode(), autocast(self.precision, device):
                logits = class_logits(network, windows, features, batch, device)
            yield logits.float().softmax(dim=3).cpu(), codes

    def predict_swapped(self, X, swaps, *, image_features=None, runs=None, subjects=None):
        """Decode clips from the BOLD of other samples, batch by batch.

        What a permutation test needs, and the control of a picture that was made from the flow:
        this clip's frame with another time's BOLD. Which BOLD that is, the caller says. Windows
        move as wholes, so each is encoded once, and only pairs of window and clip that occur are
        decoded.

        Parameters
        ----------
        X, image_features, runs, subjects
            As in `predict`.
        swaps : int array of shape (n_swaps, 2)
            Column 0: the sample whose BOLD window is read; column 1: the sample whose image is
            seen. Both of one subject. Orders with long blocks, as BOLD and films are
            autocorrelated, come from `brainnrds.blocks`.

        Yields
        ------
        flow : array of float32 of shape (batch, n_steps, 2, height, width)
            For the next swaps, in their order; px of the grid per step.

        Examples
        --------
        Every clip's frame with the BOLD of 20 volumes later:

        >>> import numpy as np
        >>> from brainnrds.decoding import MotionDecoder
        >>> random = np.random.default_rng(0)
        >>> bold = random.normal(size=(60, 20)).astype("float32")
        >>> flow = np.zeros((60, 1, 2, 4, 4), "float32") + bold[:, :2].reshape(60, 1, 2, 1, 1)
        >>> decoder = MotionDecoder(8, delays=(0,), n_epochs=3, random_state=0).fit(bold, flow)
        >>> swaps = np.stack([np.roll(np.arange(60), -20), np.arange(60)], axis=1)
        >>> np.concatenate(list(decoder.predict_swapped(bold, swaps))).shape
        (60, 1, 2, 4, 4)
        """
        network, windows, features, codes, device = self._prepare(X, image_features, runs, subjects)
        swaps = np.asarray(swaps)
        if swaps.ndim != 2 or swaps.shape[1] != 2 or swaps.dtype.kind not in "iu":
            raise InputError(
                f"`swaps` must be int of shape (n_swaps, 2); got {swaps.dtype} {swaps.shape}."
            )
        if (windows.subject[swaps[:, 0]] != windows.subject[swaps[:, 1]]).any():
            raise InputError("`swaps` must stay within a subject; got BOLD of another one.")
        codes = codes.to(device)
        with torch.inference_mode(), autocast(self.precision, device):
            bold = torch.cat(
                [
                    encode_bold(network, windows, batch)
                    for batch in np.array_split(np.arange(len(X)), -(-len(X) // self.batch_size))
                ]
            )
        for batch in np.array_split(swaps, -(-len(swaps) // self.batch_size)):
            clips, place = np.unique(batch[:, 1], return_inverse=True)
            with torch.inference_mode():
                with autocast(self.precision, device):
                    image = image_share(network, features, clips, device)
                    if image is not None:
                        image = image[torch.from_numpy(place.ravel()).to(device)]
                    share = bold[torch.from_numpy(batch[:, 0]).to(device)]
                    logits = network.decode_cells(share, image)
                # outside autocast, which would round the expected flow
                flow = (logits.float().softmax(dim=3) @ codes).permute(0, 2, 3, 1)
            yield flow.unflatten(3, self.flow_shape_[2:]).cpu().numpy()

    def __sklearn_tags__(self):
        # no RegressorMixin: scikit-learn's regressors have no predict_proba
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
