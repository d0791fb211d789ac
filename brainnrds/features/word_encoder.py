"""Frozen pretrained networks of text: what each word means after the words before it."""

import numpy as np

from brainnrds._checks import InputError
from brainnrds.features import _networks
from brainnrds.features.encoders import PretrainedNetwork, label_of

__all__ = ["WordEncoder"]


class WordEncoder(PretrainedNetwork):
    """Contextual embeddings of words from a frozen pretrained network of text.

    Parameters
    ----------
    name : str, default="gpt2"
        A name of `list_encoders`, a hub id ("owner/name") or a folder in the hub's layout with its
        ``tokenizer.json``, of a supported family (causal: GPT-2, Llama; BERT-like: BERT, RoBERTa).
    layers : int, str, sequence of them, or None, default=None
        Block number (from 0; negative from the end), "output" (the last hidden state) or the name
        of a module. None is the table's default. Several layers give several feature spaces, side
        by side.
    context : int, default=32
        Words before a word that the network reads with it.
    revision : str or None, default=None
        Commit, tag or branch on the hub; None is the table's.
    download : bool, default=False
        Fetch what the local cache lacks. Accept the model's licence on its page first.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:<n>" or "auto".
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto" is bfloat16 on CUDA and float32 on the CPU.
    batch_size : int, default=32
        Words at once.

    Notes
    -----
    For each word the network reads the `context` words before it and the word, and nothing that is
    said later, also where it could look ahead (BERT). The embedding is the mean over the tokens of
    the word. This is the sliding context of [1]_ and [2]_.

    References
    ----------
    .. [1] Jain S, Huth AG (2018). Incorporating context into language encoding models for fMRI.
       NeurIPS 31.
    .. [2] Toneva M, Wehbe L (2019). Interpreting and improving natural-language processing (in
       machines) with natural language-processing (in the brain). NeurIPS 32.

    Examples
    --------
    >>> from brainnrds.features import WordEncoder
    >>> encoder = WordEncoder("gpt2", layers=8, context=32)
    >>> embeddings = encoder.transform("the dog runs to the river".split())  # doctest: +SKIP
    """

    _kind = "text"

    def __init__(
        self,
        name="gpt2",
        *,
        layers=None,
        context=32,
        revision=None,
        download=False,
        device="cpu",
        precision="auto",
        batch_size=32,
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
        """Say everything that determines the embeddings: for the store's key and for sidecars.

        Returns
        -------
        description : dict
            Hub id, commit, SHA-256 of weights, configuration and tokenizer, layers, context and
            precision.
        """
        if int(self.context) != self.context or self.context < 0:
            raise InputError(f"`context` must be a number of words, 0 or more; got {self.context}.")
        _networks.read_tokenizer(self._find()[0])
        return {**self._describe_network(), "context": int(self.context)}

    def transform(self, words, which=None):
        """Return the embeddings of words.

        Parameters
        ----------
        words : sequence of str
            In the order in which they are said.
        which : array of int or None, default=None
            The words whose embeddings are wanted; None: all.

        Returns
        -------
        embeddings : array of float32 of shape (n_words, n_features)
            Layers side by side, see `feature_spaces`. Zeros for what has no token.
        """
        import torch

        words = [str(word) for word in words]
        which = np.arange(len(words)) if which is None else np.asarray(which, dtype=int)
        network, family, device, entry = self._load()
        layers = self._layers(entry)
        inputs = self._read(words, which, network)
        found = np.zeros((len(which), len(layers), network.config.hidden_size), dtype=np.float32)
        # inputs of one length go together: padding would change the last digits
        for rows in self._batches(inputs):
            tokens = torch.tensor([inputs[row][0] for row in rows], device=device)
            with torch.inference_mode():
                outputs = _networks.run_network(network, family, {"input_ids": tokens}, layers)
            for i_layer, layer in enumerate(layers):
                for output, row in zip(outputs[layer].float(), rows, strict=True):
                    own = inputs[row][1]
                    if own:
                        found[row, i_layer] = output[own].mean(0).cpu().numpy()
        return found.reshape(len(which), len(layers) * network.config.hidden_size)

    def feature_spaces(self):
        """Say which columns of the embeddings come from which layer.

        Returns
        -------
        feature_spaces : dict of str to slice
            BIDS-safe label of the layer to its columns.
        """
        network, _, _, entry = self._load()
        width = network.config.hidden_size
        return self._slices({label_of(layer): width for layer in self._layers(entry)})

    def _read(self, words, which, network):
        """Tokens of each word with those before it, and the places of its own: list of both."""
        tokenizer = _networks.read_tokenizer(self._find()[0])
        most = network.config.max_position_embeddings - 2  # RoBERTa's begin at 2
        inputs = []
        for last in which:
            before = " ".join(words[max(0, last - self.context) : last])
            text = f"{before} {words[last]}" if before else words[last]
            read = tokenizer(text, return_offsets_mapping=True)
            begin = len(text) - len(words[last])
            tokens, offsets = read["input_ids"], read["offset_mapping"]
            own = [i for i, (first, end) in enumerate(offsets) if end > max(begin, first)]
            if len(tokens) > most:
                raise InputError(
                    f"`context` must be shorter: {self.context} words before {words[last]!r:.40} "
                    f"are {len(tokens)} tokens, more than the {most} that {self.name} reads."
                )
            inputs.append((tokens, own))
        return inputs

    def _batches(self, inputs):
        """Rows of inputs of equal length, `batch_size` at a time."""
        by_length = {}
        for row, (tokens, _) in enumerate(inputs):
            if tokens:
                by_length.setdefault(len(tokens), []).append(row)
        for rows in by_length.values():
            for first in range(0, len(rows), self.batch_size):
                yield rows[first : first + self.batch_size]
