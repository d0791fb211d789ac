"""Names that options give: NAME=WHAT, encoders one by one, and the layers of a network."""

import re
from pathlib import Path

from brainnrds._checks import InputError

__all__ = [
    "encoder_spaces",
    "layers_compared",
    "listed_encoders",
    "named_spaces",
    "names_of",
    "spaces_of",
    "split_layers",
    "split_name",
]


def split_name(option, part, what):
    """Split "NAME=WHAT"; the name becomes a label in file names.

    Parameters
    ----------
    option : str
        Its name on the command line.
    part : str
    what : str
        What stands behind the "=", for the message.

    Returns
    -------
    name, value : str

    Raises
    ------
    InputError
        There is no "=", or the name is not of letters and digits.
    """
    name, _, value = part.partition("=")
    if not value or not (name.isascii() and name.isalnum()):
        raise InputError(
            f"{option} must be NAME={what}, with a name of letters and digits; got {part!r}."
        )
    return name, value


def names_of(parts):
    """Return the names of "NAME=WHAT", in their order."""
    return tuple(part.partition("=")[0] for part in parts)


def split_layers(encoder):
    """Split an encoder of several layers, "NETWORK:LAYER,LAYER", into encoders of one.

    Parameters
    ----------
    encoder : str
        A folder may have colons and commas in its own name.

    Returns
    -------
    encoders : dict of str to str
        By the layer's label, of letters and digits: "NETWORK:LAYER". Without several layers:
        {"": encoder}.

    Raises
    ------
    InputError
        A layer is missing, or named twice.

    Examples
    --------
    >>> from brainnrds.analyses.named_spaces import split_layers
    >>> split_layers("videomae-large:3,-1")
    {'3': 'videomae-large:3', 'Minus1': 'videomae-large:-1'}
    """
    network, _, listed = encoder.rpartition(":")
    if not network or "," not in listed or Path(encoder).is_dir():
        return {"": encoder}
    layers = listed.split(",")
    labels = [re.sub("[^A-Za-z0-9]", "", re.sub("^-", "Minus", layer)) for layer in layers]
    labels = [label[:1].upper() + label[1:] for label in labels]
    if len(set(labels)) < len(labels) or not all(labels):
        raise InputError(f"layers must be given once each, as in {network}:3,7; got {encoder}.")
    return {label: f"{network}:{layer}" for label, layer in zip(labels, layers, strict=True)}


def spaces_of(option, parts):
    """Return the feature spaces that "NAME=EXTRACTOR" name: each layer is a space of its own.

    Parameters
    ----------
    option : str
        Its name on the command line.
    parts : sequence of str

    Returns
    -------
    spaces : dict of str to str
        Name to extractor; of several layers the name has the layer's label at its end.

    Raises
    ------
    InputError
        As `split_name` and `split_layers`; a name that is given twice.

    Examples
    --------
    >>> from brainnrds.analyses.named_spaces import spaces_of
    >>> spaces_of("--feature-space", ["sound=spectrum", "deep=videomae-large:3,7"])
    {'sound': 'spectrum', 'deep3': 'videomae-large:3', 'deep7': 'videomae-large:7'}
    """
    spaces = {}
    for part in parts:
        name, extractor = split_name(option, part, "EXTRACTOR")
        for label, encoder in split_layers(extractor).items():
            if name + label in spaces:
                raise InputError(f"{option} must have a name of its own; got {name + label!r}.")
            spaces[name + label] = encoder
    return spaces


def listed_encoders(kind, options):
    """Return the encoders of a kind, "video" or "image", each layer for itself."""
    given = getattr(options, f"{kind}_encoders")
    return [encoder for text in given for encoder in split_layers(text).values()]


def encoder_spaces(kind, options):
    """Return the encoders of a kind by feature space: "video", "video2", ..., each layer one."""
    listed = listed_encoders(kind, options)
    return {f"{kind}{i}" if i > 1 else kind: name for i, name in enumerate(listed, start=1)}


def named_spaces(options):
    """Return the names of the further feature spaces and of the control spaces: two lists."""
    return (
        list(spaces_of("--feature-space", options.feature_spaces)),
        list(spaces_of("--control-space", options.control_spaces)),
    )


def layers_compared(options):
    """Return which feature spaces are layers of one network.

    Parameters
    ----------
    options : EncodeOptions

    Returns
    -------
    networks : dict of str to dict of str to str
        Of each network that was given several layers: feature space to "NETWORK:LAYER", in the
        order given. A network among the encoders is called by its first layer's space, one of
        `feature_spaces` by its name.
    """
    networks = {}
    for kind in ("video", "image"):
        n_before = 0
        for text in getattr(options, f"{kind}_encoders"):
            layers = list(split_layers(text).values())
            numbers = range(n_before + 1, n_before + len(layers) + 1)
            spaces = [kind if i == 1 else f"{kind}{i}" for i in numbers]
            n_before += len(layers)
            if len(layers) > 1:
                networks[spaces[0]] = dict(zip(spaces, layers, strict=True))
    for part in options.feature_spaces:
        spaces = spaces_of("--feature-space", [part])
        if len(spaces) > 1:
            networks[part.partition("=")[0]] = spaces
    return networks
