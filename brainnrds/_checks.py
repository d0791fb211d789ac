"""Checks of the arrays that pass between the parts: one place, one wording."""

import warnings

import numpy as np

__all__ = [
    "InputError",
    "check_bold",
    "check_clips",
    "check_cuts",
    "check_device",
    "check_flow",
    "check_labels",
    "check_mask",
    "check_voxels",
    "refuse_weights",
    "scored_clips",
    "warn_of_missing_labels",
]


class InputError(ValueError):
    """A data set or file that cannot be used: the message says what, expected and got.

    The command line prints it as one line and leaves with exit code 2.
    """


def _as_array(array, name, n_dim, layout, dtype):
    array = np.asarray(array)
    if array.dtype == object or array.dtype.kind not in "fiub":
        raise InputError(f"`{name}` must be numeric with shape {layout}; got dtype {array.dtype}.")
    if array.ndim != n_dim:
        raise InputError(f"`{name}` must have shape {layout}; got {array.shape}.")
    if 0 in array.shape:
        raise InputError(f"`{name}` must not be empty; got shape {array.shape}.")
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        n_bad = int(array.size - np.isfinite(array).sum())
        raise InputError(
            f"`{name}` must be finite; got {n_bad} non-finite values in shape {array.shape}."
        )
    return array


def check_bold(bold, *, name="bold", dtype=np.float32):
    """Return BOLD as a finite float array.

    Parameters
    ----------
    bold : array of shape (n_volumes, n_voxels)
    name : str
        Name of the argument in the error message.
    dtype : dtype or None, default=numpy.float32
        None keeps the type.

    Returns
    -------
    bold : array of shape (n_volumes, n_voxels)
    """
    return _as_array(bold, name, 2, "(n_volumes, n_voxels)", dtype)


def check_clips(clips, *, name="clips", n_dim=5):
    """Return clips (or frames) as float32 in [0, 1].

    Parameters
    ----------
    clips : array of shape (n_clips, n_frames, 3, height, width)
        With ``n_dim=4``: initial frames, (n_clips, 3, height, width).
        Integers are refused: what 255 means must be decided by the caller.
    name : str
        Name of the argument in the error message.
    n_dim : {4, 5}, default=5

    Returns
    -------
    clips : array of float32, same shape
    """
    layout = (
        "(n_clips, n_frames, 3, height, width)" if n_dim == 5 else "(n_clips, 3, height, width)"
    )
    clips = np.asarray(clips)
    if clips.dtype.kind in "iu":
        raise InputError(
            f"`{name}` must be float in [0, 1]; got {clips.dtype} values up to "
            f"{clips.max() if clips.size else 0}: divide 8-bit images by 255."
        )
    clips = _as_array(clips, name, n_dim, layout, np.float32)
    if clips.shape[-3] != 3:
        raise InputError(f"`{name}` must have shape {layout}; got {clips.shape}.")
    low, high = float(clips.min()), float(clips.max())
    if low < -1e-3 or high > 1 + 1e-3:
        hint = ": divide 8-bit images by 255" if high > 2 else ""
        raise InputError(f"`{name}` must lie in [0, 1]; got values in [{low:g}, {high:g}]{hint}.")
    return clips


def check_flow(flow, *, name="flow"):
    """Return optical flow as finite float32.

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, height, width)
        Channel 0 is dx (right), channel 1 is dy (down), in pixels of this grid per step.
    name : str
        Name of the argument in the error message.

    Returns
    -------
    flow : array of float32, same shape
    """
    layout = "(n_clips, n_steps, 2, height, width)"
    flow = _as_array(flow, name, 5, layout, np.float32)
    if flow.shape[2] != 2:
        raise InputError(f"`{name}` must have shape {layout}; got {flow.shape}.")
    return flow


def check_mask(mask, shape, *, name="mask"):
    """Return a boolean mask that counts at least one cell.

    Parameters
    ----------
    mask : bool array
        True = counted.
    shape : tuple of int
        The expected shape, usually (n_clips, n_steps, height, width).
    name : str
        Name of the argument in the error message.

    Returns
    -------
    mask : bool array of the expected shape
    """
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != tuple(shape):
        raise InputError(
            f"`{name}` must be bool with shape {tuple(shape)}; got {mask.dtype} {mask.shape}."
        )
    if not mask.any():
        raise InputError(
            f"`{name}` must count at least one cell; got an empty mask of {mask.shape}."
        )
    return mask


def check_voxels(voxels, n_voxels):
    """Return the indices of the voxels that are looked at; None means all.

    Parameters
    ----------
    voxels : bool array of shape (n_voxels,) or None
    n_voxels : int

    Returns
    -------
    voxels : array of int
        Empty where the mask is False everywhere: a feature space may predict nothing.
    """
    if voxels is None:
        return np.arange(n_voxels)
    voxels = np.asarray(voxels)
    if voxels.dtype != bool or voxels.shape != (n_voxels,):
        raise InputError(
            f"`voxels` must be bool of shape ({n_voxels},); got {voxels.dtype} {voxels.shape}."
        )
    return np.flatnonzero(voxels)


def check_labels(labels, n_samples, *, name="runs"):
    """Return one int label per sample; None means a single label 0.

    Parameters
    ----------
    labels : array of shape (n_samples,) or None
        For example `runs` or `films`. Ints stay as they are; text is numbered in sorted order, and
        "" or "n/a" become -1, no film.
    n_samples : int
    name : str
        Name of the argument in the error message.

    Returns
    -------
    labels : array of int64 of shape (n_samples,)
    """
    if labels is None:
        return np.zeros(n_samples, dtype=np.int64)
    labels = np.asarray(labels)
    if labels.shape != (n_samples,):
        raise InputError(f"`{name}` must have shape ({n_samples},); got {labels.shape}.")
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "U":
        is_named = ~np.isin(labels, ["", "n/a"])
        numbers = np.full(n_samples, -1, dtype=np.int64)
        numbers[is_named] = np.unique(labels[is_named], return_inverse=True)[1].reshape(-1)
        return numbers
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"`{name}` must hold one int or text label per sample; got dtype {labels.dtype}."
        )
    return labels.astype(np.int64, copy=False)


def check_cuts(has_cut, n_samples):
    """Return `has_cut` as a bool array of shape (n_samples,); None = no clip has a cut."""
    if has_cut is None:
        return np.zeros(n_samples, dtype=bool)
    has_cut = np.asarray(has_cut)
    if has_cut.dtype != bool or has_cut.shape != (n_samples,):
        raise InputError(
            f"`has_cut` must be bool with shape ({n_samples},); got {has_cut.dtype} "
            f"{has_cut.shape}."
        )
    return has_cut


def scored_clips(films, has_cut, n_samples):
    """Return which clips are scored, bool of shape (n_samples,): those of a film without a cut."""
    shown = (check_labels(films, n_samples, name="films") != -1) & ~check_cuts(has_cut, n_samples)
    if not shown.any():
        raise InputError("no clip is left to score: none shows a film without a cut.")
    return shown


def refuse_weights(sample_weight):
    """Refuse `sample_weight`, which scikit-learn's pipelines pass on as None."""
    if sample_weight is not None:
        raise InputError("`sample_weight` must be None: every sample counts alike.")


def warn_of_missing_labels(estimator, **labels):
    """Warn where an estimator is scored without a label that its `fit` was given."""
    fitted = getattr(estimator, "labels_in_fit_", ())
    missing = [name for name, label in labels.items() if label is None and name in fitted]
    if missing:
        warnings.warn(
            f"fitted with {', '.join(missing)}, scored without: samples count that have no film or "
            "a cut, or what looks at neighbours in time crosses run borders. In cross-validation "
            "`sklearn.set_config(enable_metadata_routing=True)` hands labels on.",
            stacklevel=3,
        )


def check_device(device):
    """Return the device's name, with "auto" resolved.

    Parameters
    ----------
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}
        "auto" is CUDA where it is available, else the CPU.

    Returns
    -------
    device : str
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InputError(f"`device` must be 'cpu', 'cuda', 'cuda:<n>' or 'auto'; got {device!r}.")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        seen = f"CUDA devices 0 to {torch.cuda.device_count() - 1}"
        seen = seen if torch.cuda.is_available() else "no CUDA device"
        raise InputError(f"`device` must exist; got {device!r} and torch sees {seen}.")
    return str(device)
