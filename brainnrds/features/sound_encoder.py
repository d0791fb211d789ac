"""Frozen pretrained networks of sound: Whisper's encoder, wav2vec 2.0, HuBERT."""

import numpy as np

from brainnrds._checks import InputError
from brainnrds.features import _networks
from brainnrds.features.encoders import PretrainedNetwork, label_of
from brainnrds.features.sound import check_waves

__all__ = ["SoundEncoder"]


class SoundEncoder(PretrainedNetwork):
    """Features of sound from a frozen pretrained network.

    Parameters
    ----------
    name : str, default="whisper-base"
        A name of `list_encoders`, a hub id ("owner/name") or a folder in the hub's layout, of a
        supported family (the encoder of Whisper, wav2vec 2.0, HuBERT).
    layers : int, str, sequence of them, or None, default=None
        Block number (from 0; negative from the end), "output" (the last hidden state) or the name
        of a module. None is the table's default. Several layers give several feature spaces, side
        by side.
    context : float, default=8.0
        Seconds of sound before a clip that the network hears besides. With the clip they must not
        be longer than what the network takes: 30 s for Whisper.
    revision : str or None, default=None
        Commit, tag or branch on the hub; None is the table's.
    download : bool, default=False
        Fetch what the local cache lacks. Accept the model's licence on its page first.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:<n>" or "auto".
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto" is bfloat16 on CUDA and float32 on the CPU.
    batch_size : int, default=8
        Clips at once.

    Notes
    -----
    These networks look ahead as far as they hear. Here they hear from `context` before a clip's
    onset to the clip's end, and nothing after it (windows that slide and end with what is described
    are those of [1]_); before a film begins there is silence. A clip's features are the mean over
    the network's steps of 20 ms whose middle lies in the clip.

    References
    ----------
    .. [1] Vaidya AR, Jain S, Huth AG (2022). Self-supervised models of audio effectively explain
       human cortical responses to speech. ICML, PMLR 162, 21927-21944.

    Examples
    --------
    >>> from brainnrds.features import SoundEncoder
    >>> encoder = SoundEncoder("whisper-base", layers=[2, 5])
    >>> features = encoder.transform(waves)  # doctest: +SKIP
    """

    modality = "sound"
    rate = 16000  # Hz, of all families
    _kind = "sound"

    def __init__(
        self,
        name="whisper-base",
        *,
        layers=None,
        context=8.0,
        revision=None,
        download=False,
        device="cpu",
        precision="auto",
        batch_size=8,
    ):
        self.name = name
        self.layers = layers
        self.context = context
        self.revision = revision
        self.download = download
        self.device = device
        self.precision = precision
        self.batch_size = batch_size

    def describe(self):
        """Say everything that determines the features: for the store's key and for sidecars.

        Returns
        -------
        description : dict
            Hub id, commit, SHA-256 of weights and configuration, layers, context and precision.
        """
        if not 0 <= self.context < np.inf:
            raise InputError(f"`context` must be at least 0 s; got {self.context!r}.")
        _networks.read_sound_preparation(self._find()[0], self.rate)
        return {**self._describe_network(), "context": float(self.context)}

    def transform(self, waves):
        """Return the features of clips of sound.

        Parameters
        ----------
        waves : array of shape (n_clips, n_samples)
            At `rate`: each from `context` before the clip's onset to its end.

        Returns
        -------
        features : array of float32 of shape (n_clips, n_features)
            Layers side by side, see `feature_spaces`.
        """
        return np.concatenate(list(self._run(waves).values()), axis=1)

    def feature_spaces(self):
        """Say which columns of the features come from which layer.

        Returns
        -------
        feature_spaces : dict of str to slice
            BIDS-safe label of the layer to its columns.
        """
        silence = np.zeros((1, round((self.context + 1) * self.rate)), dtype=np.float32)
        return self._slices({k: v.shape[1] for k, v in self._run(silence).items()})

    def _run(self, waves):
        """Features of each layer, by its label."""
        import torch

        waves = check_waves(waves)
        n_before = round(self.context * self.rate)
        if waves.shape[1] <= n_before:
            raise InputError(
                f"`waves` must hold the {self.context:g} s before each clip and the clip; got "
                f"{waves.shape[1] / self.rate:g} s."
            )
        network, family, device, entry = self._load()
        prepare = _networks.read_sound_preparation(self._find()[0], self.rate)
        longest = getattr(prepare, "n_samples", np.inf)
        if waves.shape[1] > longest:
            raise InputError(
                f"`context` must leave room for clips: {family} takes {longest / self.rate:g} s; "
                f"got {waves.shape[1] / self.rate:g} s with the clip."
            )
        (key,) = prepare.model_input_names[:1]
        layers = self._layers(entry)
        parts = {label_of(layer): [] for layer in layers}
        for first in range(0, len(waves), self.batch_size):
            batch = list(waves[first : first + self.batch_size])
            values = prepare(batch, sampling_rate=self.rate, return_tensors="pt")[key]
            values = values.to(device, dtype=next(network.parameters()).dtype)
            with torch.inference_mode():
                outputs = _networks.run_network(network, family, {key: values}, layers)
            for layer in layers:
                steps = outputs[layer].float()
                middle = _networks.sound_steps(network, family, steps.shape[1])
                inside = (middle >= n_before) & (middle < waves.shape[1])
                if not inside.any():
                    raise InputError(
                        f"Clips must be longer than a step of {family}; got "
                        f"{(waves.shape[1] - n_before) / self.rate:g} s."
                    )
                parts[label_of(layer)].append(steps[:, torch.from_numpy(inside)].mean(1).cpu())
        return {label: torch.cat(some).numpy() for label, some in parts.items()}
