"""Frozen pretrained networks by name: what a film looks like to a video or an image network.

The known encoders are data (``encoders.json``, shown by `list_encoders`); any other hub id or local
folder of a supported family works too. Nothing is downloaded unless asked for.
"""

import difflib
import json
import re
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np

from brainnrds._checks import InputError, check_clips, check_device
from brainnrds._files import hash_file
from brainnrds.features import _networks
from brainnrds.features._extractor import Extractor
from brainnrds.features._frames import LightPreparation

__all__ = [
    "ImageEncoder",
    "VideoEncoder",
    "encode_layers",
    "encoder_kind",
    "list_encoders",
    "release_networks",
]

_POOLINGS = ("mean", "cls", "grid")
_USE = {
    "video": "videos: use VideoEncoder (--video-encoder)",
    "image": "images: use ImageEncoder (--image-encoder)",
    "sound": "sound: use SoundEncoder (--feature-space, --control-space)",
    "text": "text: use WordEncoder (--feature-space, --control-space, with --transcript)",
}


def _read_table():
    text = files("brainnrds.features").joinpath("encoders.json").read_text(encoding="utf-8")
    return json.loads(text)["encoders"]


def list_encoders(kind=None):
    """Return the table of known encoders.

    Parameters
    ----------
    kind : {"video", "image", "sound", "text"} or None, default=None
        None lists all.

    Returns
    -------
    encoders : pandas.DataFrame
        One row per name: kind, family, hub id, revision (None: the hub's current main; the commit
        that was used is recorded), frames per clip, input size (px), mean and standard deviation of
        the normalisation (None for sound and text), default layer, licence as far as known, and
        whether the paper used it.

    Examples
    --------
    >>> from brainnrds.features import list_encoders
    >>> list_encoders("video").loc["videomae-large", "hub_id"]
    'MCG-NJU/videomae-large'
    """
    import pandas as pd

    if kind not in (*_USE, None):
        raise InputError(f"`kind` must be one of {', '.join(_USE)}, or None; got {kind!r}.")
    table = pd.DataFrame.from_dict(_read_table(), orient="index", dtype=object)
    table.index.name = "name"
    return table if kind is None else table[table["kind"] == kind]


def encoder_kind(name):
    """Say what a network looks at.

    Parameters
    ----------
    name : str or path-like
        A name of `list_encoders`, or a folder in the hub's layout.

    Returns
    -------
    kind : str or None
        As in `list_encoders`; None of what is neither.

    Raises
    ------
    InputError
        The folder's ``config.json`` describes no known family.
    """
    entry = _read_table().get(str(name))
    if entry is not None:
        return entry["kind"]
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        return None
    return _networks.FAMILIES[_networks.find_family(folder)].kind


def release_networks():
    """Forget the loaded networks, so that their memory (also on the GPU) is free again."""
    import torch

    _networks.load_network.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _find_entry(name, revision):
    """Return (hub id or folder, revision, table entry or {}) of what the user asked for."""
    table = _read_table()
    text = str(name)
    if text in table:
        entry = table[text]
        return entry["hub_id"], revision or entry["revision"], entry
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser()), None, {}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith("."):
        return text, revision, {}
    nearest = difflib.get_close_matches(text, table, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
    raise InputError(
        f"Unknown encoder {text!r}: it must be a name of list_encoders(), a hub id (owner/name) or "
        f"a folder.{hint}"
    )


class PretrainedNetwork(Extractor):
    """What all networks share: finding, checking and loading."""

    def fit(self, clips=None, y=None):
        """Check that the network's files are there; nothing is learnt.

        Parameters
        ----------
        clips : ignored
        y : ignored

        Returns
        -------
        self : encoder
        """
        self.describe()
        return self

    def _find(self):
        """Return (folder, revision, family, SHA-256 of the weights, table entry)."""
        hub_id, revision, entry = _find_entry(self.name, self.revision)
        if entry:  # known before the weights are there
            self._check_kind(entry["kind"])
        folder, commit = _networks.find_folder(self.name, hub_id, revision, self.download)
        family = entry.get("family") or _networks.find_family(folder)
        self._check_kind(_networks.FAMILIES[family].kind)
        hashes = _networks.find_weights(folder, hub_id, commit)
        return folder, commit, family, hashes, entry

    def _check_kind(self, kind):
        if kind != self._kind:
            raise InputError(f"{self.name} is a network for {_USE[kind]}.")

    def _layers(self, entry):
        layers = self.layers
        if layers is None:
            layers = entry.get("layer", "output")
        if isinstance(layers, (str, int, np.integer)):
            layers = [layers]
        layers = [layer if isinstance(layer, str) else int(layer) for layer in layers]
        if not layers or len(set(layers)) != len(layers):
            raise InputError(f"`layers` must be distinct, at least one; got {self.layers!r}.")
        return layers

    def _precision(self, device):
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(
                f"`precision` must be 'auto', 'float32' or 'bfloat16'; got {self.precision!r}."
            )
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if device.startswith("cuda") else "float32"

    def load(self):
        """Load the network now rather than with the first clips.

        Returns
        -------
        self
        """
        self._load()
        return self

    def _load(self):
        """Return the network, its family, its device and its table entry."""
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"`batch_size` must be positive; got {self.batch_size}.")
        folder, _, family, hashes, entry = self._find()
        device = check_device(self.device)
        stamp = "".join(hashes.values())
        with _networks.one_at_a_time:
            network = _networks.load_network(folder, family, device, self._precision(device), stamp)
        return network, family, device, entry

    def _describe_network(self):
        folder, commit, family, hashes, entry = self._find()
        configs = sorted(folder.glob("*config.json")) + sorted(folder.glob("tokenizer.json"))
        return {
            "class": type(self).__name__,
            "hub_id": entry.get("hub_id") or (None if commit is None else str(self.name)),
            "revision": commit,
            "family": family,
            "weights_sha256": hashes,
            "config_sha256": {path.name: hash_file(path) for path in configs},
            "layers": self._layers(entry),
            "precision": self._precision(check_device(self.device)),
        }

    @staticmethod
    def _slices(widths):
        """Columns of each layer, by its label, side by side."""
        slices, start = {}, 0
        for label, width in widths.items():
            slices[label] = slice(start, start + width)
            start += width
        return slices


class _Encoder(PretrainedNetwork):
    """What video and image encoders share: preparing frames, running and pooling."""

    @property
    def size(self):
        """None: frames are wanted in the film's own size, the network's processor resizes them."""
        return None

    def _check_common(self):
        if self.pooling not in _POOLINGS:
            raise InputError(f"`pooling` must be one of {_POOLINGS}; got {self.pooling!r}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"`batch_size` must be positive; got {self.batch_size}.")
        if self.fps is not None and not self.fps > 0:
            raise InputError(f"`fps` must be positive; got {self.fps}.")

    def frame_preparation(self):
        """Return what resizes and crops a frame for this network.

        Returns
        -------
        preparation : callable
            uint8 (height, width, 3) -> uint8 (3, network's height, network's width); small and
            picklable, so that decoding processes need not load the network.
        """
        folder, _, family, _, _ = self._find()
        return self._preparation(folder, family)

    def light_preparation(self):
        """As `frame_preparation`; for a network on a GPU, which resizes, most frames stay whole.

        Returns
        -------
        preparation : callable
            uint8 (height, width, 3) -> what `encode` takes.
        """
        preparation = self.frame_preparation()
        on_gpu = check_device(self.device).startswith("cuda")
        return LightPreparation(preparation) if on_gpu else preparation

    def _preparation(self, folder, family):
        return _networks.read_preparation(folder, family)

    def describe(self):
        """Say everything that determines the features: for the store's key and for sidecars.

        Returns
        -------
        description : dict
            Hub id, commit, SHA-256 of weights and configuration, layers, pooling, sampling,
            preparation and precision. A folder's place on the disk is left out.
        """
        self._check_common()
        folder, _, family, _, _ = self._find()
        preparation = self._preparation(folder, family)
        return {
            **self._describe_network(),
            "pooling": self.pooling,
            "preparation": {
                name: getattr(preparation, name) for name in preparation.__dataclass_fields__
            },
            **self._describe_sampling(folder, family),
        }

    def transform(self, clips):
        """Return the features of clips.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)
            float in [0, 1] or uint8, of any size: the network's own processor resizes them.

        Returns
        -------
        features : array of float32 of shape (n_clips, n_features)
            Layers side by side, see `feature_spaces`. With ``pooling="grid"``:
            (n_clips, n_channels, rows, columns).
        """
        preparation = self.frame_preparation()
        return self.encode(_prepare_clip(clip, preparation) for clip in clips)

    def encode(self, clips):
        """Return the features of clips that were prepared already.

        Parameters
        ----------
        clips : iterable of arrays of uint8 of shape (n_frames, 3, height, width)
            Frames that `frame_preparation` has resized and cropped, or what `light_preparation`
            made of them.

        Returns
        -------
        features : array of float32
            As `transform` returns it.
        """
        pooled, _ = self._run(clips, self._own_layers())
        return pooled

    def feature_spaces(self):
        """Say which columns of the features come from which layer.

        Returns
        -------
        feature_spaces : dict of str to slice
            BIDS-safe label of the layer to its columns, as `VideoEncodingModel` takes them.
        """
        preparation = self.frame_preparation()
        folder, _, family, _, _ = self._find()
        n_frames = self._n_frames(folder, family)
        frame = preparation(np.zeros((256, 256, 3), dtype=np.uint8))
        clip = np.broadcast_to(frame, (n_frames, *frame.shape))
        _, columns = self._run([clip], self._own_layers())
        return {label_of(layer): where for layer, where in columns.items()}

    def _own_layers(self):
        return self._layers(self._find()[-1])

    def _run(self, clips, layers):
        """Return the features of layers side by side, and a dict layer -> its columns."""
        self._check_common()
        folder = self._find()[0]
        network, family, device, _ = self._load()
        preparation = self._preparation(folder, family)
        n_frames = self._n_frames(folder, family)
        owners, parts = [], []

        def inputs():
            for i_clip, clip in enumerate(clips):
                for network_input in self._inputs(clip, n_frames):
                    owners.append(i_clip)
                    yield network_input

        widths = {}
        batch_size = self.batch_size or self._BATCH_SIZES[device.split(":")[0]]
        for batch in _on_device(_batches(inputs(), batch_size), device):
            features = self._forward(network, family, preparation, batch, layers, widths)
            parts.append(_to_host(features))
            if len(parts) > 1:
                # one batch late, so that the device has work while the next batch is stacked
                parts[-2] = _arrived_features(*parts[-2])
        if not parts:
            raise InputError("`clips` must hold at least one clip; got none.")
        parts[-1] = _arrived_features(*parts[-1])
        features = np.concatenate(parts)
        stops = np.cumsum(list(widths.values())).tolist()
        columns = {
            layer: slice(stop - widths[layer], stop)
            for layer, stop in zip(widths, stops, strict=True)
        }
        return _mean_by_clip(features, np.array(owners)), columns

    def _forward(self, network, family, preparation, batch, layers, widths):
        """Return the pooled features of one batch; halves it where the GPU's memory is short."""
        import torch

        try:
            with torch.inference_mode():
                pixels = preparation.normalise(preparation.finish(batch))
                pixels = pixels.to(next(network.parameters()).dtype)
                outputs = _networks.run_network(network, family, pixels, layers)
                return self._pool(outputs, network, family, pixels, layers, widths)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        halves = batch.split((len(batch) + 1) // 2)
        arguments = (layers, widths)
        return torch.cat(
            [self._forward(network, family, preparation, half, *arguments) for half in halves]
        )

    def _pool(self, outputs, network, family, pixels, layers, widths):
        import torch

        pooled = []
        for layer in layers:
            if layer == "embedding":
                features = outputs[layer].float()
                if self.pooling == "grid":
                    raise InputError("`pooling` must not be 'grid' for the layer 'embedding'.")
            else:
                patches, token = _networks.to_patches(outputs[layer], network, family, pixels)
                features = self._pool_patches(patches.float(), token, family)
            widths[layer] = features.shape[1]
            pooled.append(features)
        if len({features.shape[2:] for features in pooled}) > 1:
            shapes = [tuple(features.shape[2:]) for features in pooled]
            raise InputError(f"`layers` must have the same grid to be put together; got {shapes}.")
        return torch.cat(pooled, dim=1)

    def _pool_patches(self, patches, token, family):
        if self.pooling == "mean":
            return patches.mean((1, 2, 3))
        if self.pooling == "grid":
            return patches.mean(1).permute(0, 3, 1, 2)
        if token is None:
            raise InputError(f"`pooling`: {family} has no class token; use 'mean' or 'grid'.")
        return token.float()


def encode_layers(encoders, clips):
    """Encode prepared clips with encoders that differ in their layers alone: one pass for all.

    Parameters
    ----------
    encoders : sequence of VideoEncoder or of ImageEncoder
    clips : iterable of arrays of uint8 of shape (n_frames, 3, height, width)
        As for ``encode``.

    Returns
    -------
    features : list of arrays of float32
        What ``encode`` of each returns.
    """
    first = encoders[0]
    wanted = [encoder._own_layers() for encoder in encoders]
    together = list(dict.fromkeys(layer for layers in wanted for layer in layers))
    features, columns = first._run(clips, together)
    return [
        np.concatenate([features[:, columns[layer]] for layer in layers], axis=1)
        for layers in wanted
    ]


class VideoEncoder(_Encoder):
    """Features of clips from a frozen pretrained video network.

    Parameters
    ----------
    name : str, default="videomae-base"
        A name of `list_encoders`, a hub id ("owner/name") or a folder in the hub's layout, of a
        supported family (VideoMAE, TimeSformer, X-CLIP, V-JEPA 2).
    layers : int, str, sequence of them, or None, default=None
        Block number (from 0; negative from the end), "output" (the last hidden state, after the
        network's last normalisation where it has one), "embedding" (pooled or projected, where the
        family has one) or the name of a module. None is the table's default. Several layers give
        several feature spaces, side by side.
    pooling : {"mean", "cls", "grid"}, default="mean"
        Mean over patches and time, class token, or the grid of patches averaged over time.
    sampling : {"uniform", "all"}, default="uniform"
        "uniform" spreads the network's number of frames over the clip; "all" runs the network over
        consecutive windows that cover all frames (the last one ends with the clip) and averages.
        A clip with fewer frames than the network takes repeats frames, evenly spread.
    fps : float or None, default=None
        Frames per second to decode. None: the network's number of frames per clip.
    n_frames : int or None, default=None
        Frames per network input, where the network allows another number than its own (V-JEPA 2).
    framing : {"crop", "whole"}, default="crop"
        "crop" takes the centre, as the network's processor does; "whole" squeezes the whole frame
        into the input, so that the grid covers what the participant saw.
    revision : str or None, default=None
        Commit, tag or branch on the hub; None is the table's.
    download : bool, default=False
        Fetch what the local cache lacks. Accept the model's licence on its page first.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:<n>" or "auto".
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto" is bfloat16 on CUDA and float32 on the CPU.
    batch_size : int or None, default=None
        Network inputs at once; halved where the GPU's memory is short. None: 8 on a CPU, 32 on a
        GPU, which waits for the host between smaller ones.

    Examples
    --------
    >>> from brainnrds.features import VideoEncoder
    >>> encoder = VideoEncoder("videomae-large", layers=[11, 23], device="auto")
    >>> features = encoder.transform(clips)  # doctest: +SKIP
    """

    _kind = "video"

    _BATCH_SIZES = {"cpu": 8, "cuda": 32}

    def __init__(
        self,
        name="videomae-base",
        *,
        layers=None,
        pooling="mean",
        sampling="uniform",
        fps=None,
        n_frames=None,
        framing="crop",
        revision=None,
        download=False,
        device="cpu",
        precision="auto",
        batch_size=None,
    ):
        self.name = name
        self.layers = layers
        self.pooling = pooling
        self.sampling = sampling
        self.fps = fps
        self.n_frames = n_frames
        self.framing = framing
        self.revision = revision
        self.download = download
        self.device = device
        self.precision = precision
        self.batch_size = batch_size

    def frame_times(self, duration):
        """Return when to look at a clip.

        Parameters
        ----------
        duration : float
            Of a clip, s.

        Returns
        -------
        times : array of shape (n_frames,)
            Seconds from the clip's onset.
        """
        if self.fps is not None:
            return np.arange(max(1, round(duration * self.fps))) / self.fps
        folder, _, family, _, _ = self._find()
        n_frames = self._n_frames(folder, family)
        return np.arange(n_frames) * duration / n_frames

    def _n_frames(self, folder, family):
        own = _networks.read_n_frames(folder, family)
        if self.n_frames is None or self.n_frames == own:
            return own
        if family != "vjepa2":
            raise InputError(f"`n_frames`: {family} takes {own} frames; got {self.n_frames}.")
        if self.n_frames < 2 or self.n_frames % 2:
            raise InputError(f"`n_frames` must be even (tubelets of 2); got {self.n_frames}.")
        return self.n_frames

    def _preparation(self, folder, family):
        preparation = _networks.read_preparation(folder, family)
        if self.framing not in ("crop", "whole"):
            raise InputError(f"`framing` must be 'crop' or 'whole'; got {self.framing!r}.")
        return preparation.without_crop() if self.framing == "whole" else preparation

    def _describe_sampling(self, folder, family):
        n_frames = self._n_frames(folder, family)
        return {"sampling": self.sampling, "fps": self.fps, "n_frames": n_frames}

    def _inputs(self, clip, n_frames):
        """Yield the network inputs of one clip: (n_frames, 3, height, width)."""
        if self.sampling not in ("uniform", "all"):
            raise InputError(f"`sampling` must be 'uniform' or 'all'; got {self.sampling!r}.")
        n_available = len(clip)
        if self.sampling == "uniform" or n_available <= n_frames:
            # the middle of n_frames equal parts; repeats frames where there are too few
            which = ((np.arange(n_frames) + 0.5) * n_available / n_frames).astype(int)
            yield clip if n_available == n_frames else clip[which]
            return
        for start in range(0, n_available, n_frames):
            start = min(start, n_available - n_frames)
            yield clip[start : start + n_frames]


class ImageEncoder(_Encoder):
    """Features of clips or frames from a frozen pretrained image network.

    Parameters
    ----------
    name : str, default="dinov2-base"
        A name of `list_encoders`, a hub id ("owner/name") or a folder in the hub's layout, of a
        supported family (DINOv2 with and without registers, CLIP, SigLIP, ViT such as DINO, Hiera,
        ConvNeXt, ResNet, any convolutional or ViT model of timm, VC-1).
    layers : int, str, sequence of them, or None, default=None
        Block or stage number (from 0; negative from the end), "output" (last hidden state),
        "embedding" (pooled or projected: CLIP's image embedding) or the name of a module. None is
        the table's default. Several layers give several feature spaces, side by side.
    pooling : {"mean", "cls", "grid"}, default="mean"
        Mean over patches, class token, or the grid of patches (for `MotionDecoder`).
    sampling : {"all", "first", "middle"}, default="all"
        Which frames of a clip: the mean of the features of all frames (the paper's "AF"), the
        initial frame, or the frame in the middle.
    fps : float or None, default=4.0
        Frames per second to decode with ``sampling="all"``.
    image_size : int or None, default=None
        Side of the network's input in px, where its position embedding can be interpolated; None
        is the network's own.
    framing : {"crop", "whole"}, default="crop"
        "crop" takes the centre, as the network's processor does; "whole" squeezes the whole frame
        into the input, so that the grid covers what the participant saw.
    revision : str or None, default=None
        Commit, tag or branch on the hub; None is the table's.
    download : bool, default=False
        Fetch what the local cache lacks. Accept the model's licence on its page first.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:<n>" or "auto".
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto" is bfloat16 on CUDA and float32 on the CPU.
    batch_size : int or None, default=None
        Frames at once; halved where the GPU's memory is short. None: 32 on a CPU, 64 on a GPU.

    Examples
    --------
    Image features for `MotionDecoder`: a 32 x 32 grid over the whole initial frame.

    >>> from brainnrds.features import ImageEncoder
    >>> encoder = ImageEncoder(
    ...     "dinov2-base", pooling="grid", sampling="first", image_size=448, framing="whole"
    ... )
    >>> image_features = encoder.transform(clips)  # doctest: +SKIP
    """

    _kind = "image"

    _BATCH_SIZES = {"cpu": 32, "cuda": 64}

    def __init__(
        self,
        name="dinov2-base",
        *,
        layers=None,
        pooling="mean",
        sampling="all",
        fps=4.0,
        image_size=None,
        framing="crop",
        revision=None,
        download=False,
        device="cpu",
        precision="auto",
        batch_size=None,
    ):
        self.name = name
        self.layers = layers
        self.pooling = pooling
        self.sampling = sampling
        self.fps = fps
        self.image_size = image_size
        self.framing = framing
        self.revision = revision
        self.download = download
        self.device = device
        self.precision = precision
        self.batch_size = batch_size

    def frame_times(self, duration):
        """Return when to look at a clip.

        Parameters
        ----------
        duration : float
            Of a clip, s.

        Returns
        -------
        times : array of shape (n_frames,)
            Seconds from the clip's onset.
        """
        self._check_sampling()
        if self.sampling == "first":
            return np.zeros(1)
        if self.sampling == "middle":
            return np.array([duration / 2])
        return np.arange(max(1, round(duration * self.fps))) / self.fps

    def _check_sampling(self):
        if self.sampling not in ("all", "first", "middle"):
            raise InputError(
                f"`sampling` must be 'all', 'first' or 'middle'; got {self.sampling!r}."
            )
        if self.sampling == "all" and self.fps is None:
            raise InputError("`fps` must be given for sampling='all'; got None.")

    def _n_frames(self, folder, family):
        return 1

    def _preparation(self, folder, family):
        preparation = _networks.read_preparation(folder, family)
        if self.framing not in ("crop", "whole"):
            raise InputError(f"`framing` must be 'crop' or 'whole'; got {self.framing!r}.")
        if self.image_size is not None:
            if not _networks.FAMILIES[family].resizes:
                raise InputError(f"`image_size`: {family} takes its own size only.")
            preparation = preparation.with_size(self.image_size)
        return preparation.without_crop() if self.framing == "whole" else preparation

    def _describe_sampling(self, folder, family):
        self._check_sampling()
        fps = self.fps if self.sampling == "all" else None
        return {"sampling": self.sampling, "fps": fps}

    def _inputs(self, clip, n_frames):
        """Yield the network inputs of one clip: (3, height, width)."""
        self._check_sampling()
        if self.sampling == "all":
            yield from clip
        else:
            yield clip[0 if self.sampling == "first" else len(clip) // 2]


def label_of(layer):
    """Return a layer's name as a BIDS label: letters and digits only."""
    if isinstance(layer, str):
        return re.sub(r"[^A-Za-z0-9]", "", layer)
    return f"block{layer}" if layer >= 0 else f"blockminus{-layer}"


def _prepare_clip(clip, preparation):
    clip = np.asarray(clip)
    if clip.dtype != np.uint8:
        clip = np.rint(check_clips(clip, name="clips", n_dim=4) * 255).clip(0, 255).astype(np.uint8)
    if clip.ndim != 4 or clip.shape[1] != 3 or len(clip) == 0:
        raise InputError(f"A clip must have shape (n_frames, 3, height, width); got {clip.shape}.")
    return np.stack([preparation(frame.transpose(1, 2, 0)) for frame in clip])


def _batches(inputs, batch_size):
    """Yield lists of inputs."""
    inputs = iter(inputs)
    while batch := list(islice(inputs, batch_size)):
        yield batch


def _on_device(batches, device):
    """Yield batches as tensors on the device; on CUDA the next one is copied meanwhile."""
    import torch

    if not device.startswith("cuda"):
        for batch in batches:
            yield torch.from_numpy(np.stack(batch)).to(device)
        return
    copies = torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        # pinned memory is used again, whereas new memory costs more than filling it
        staged = torch.empty((len(batch), *batch[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(batch, out=staged.numpy())
        with torch.cuda.stream(copies):
            pixels = staged.to(device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(copies)
        if waiting is not None:
            yield _arrived(*waiting, device)
        waiting = pixels, copied
    if waiting is not None:
        yield _arrived(*waiting, device)


def _arrived(pixels, copied, device):
    import torch

    stream = torch.cuda.current_stream(device)
    stream.wait_event(copied)
    pixels.record_stream(stream)  # the allocator must not reuse it while this stream reads it
    return pixels


def _to_host(features):
    """Start a copy to the host behind what the device has to do; tell what to wait for."""
    import torch

    if not features.is_cuda:
        return features, None
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    host.copy_(features, non_blocking=True)
    return host, torch.cuda.current_stream(features.device).record_event()


def _arrived_features(host, copied):
    if copied is None:
        return host.numpy()
    copied.synchronize()
    return host.numpy().copy()  # pinned memory goes back to the next batches


def _mean_by_clip(features, owners):
    """Average the features of the inputs that belong to one clip."""
    n_clips = owners[-1] + 1
    counts = np.bincount(owners, minlength=n_clips)
    if (counts == 1).all():
        return features
    sums = np.zeros((n_clips, *features.shape[1:]), dtype=np.float64)
    np.add.at(sums, owners, features)
    return (sums / counts.reshape(-1, *[1] * (features.ndim - 1))).astype(np.float32)
