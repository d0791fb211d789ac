"""What the decoder's network is given: windows of BOLD and image features, batch by batch."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from brainnrds._checks import InputError, check_labels
from brainnrds.films import block_folds, film_folds, film_groups


def check_image_features(features, n_samples):
    if features is None:
        return None
    features = np.asarray(features)
    layout = "(n_clips, n_channels, rows, columns)"
    if features.ndim != 4 or 0 in features.shape or features.dtype.kind != "f":
        raise InputError(
            f"`image_features` must be float with shape {layout}; got {features.dtype} "
            f"{features.shape}."
        )
    if len(features) != n_samples:
        raise InputError(
            f"`image_features` must have shape {layout} with n_clips = {n_samples}; "
            f"got {features.shape}."
        )
    for part in np.array_split(features, -(-n_samples // 256)):
        if not np.isfinite(part).all():
            raise InputError("`image_features` must be finite; got NaN or infinity.")
    return features


def check_subjects(subjects, runs):
    """Subject of each sample, as it was given: text stays text."""
    numbers = check_labels(subjects, len(runs), name="subjects")
    pairs = np.unique(np.stack([runs, numbers]), axis=1)
    if len(np.unique(pairs[0])) != pairs.shape[1]:
        raise InputError("`runs` must belong to one subject each; got a run shared by several.")
    return numbers if subjects is None else np.asarray(subjects)


def split_groups(runs, films, shown, validation_share, random, *, gap):
    """Row numbers for training and for validation; no film group on both sides.

    With a single group they are apart by `gap` volumes: films of a run, or parts of a film, which
    must be long enough.
    """
    rows, groups = np.flatnonzero(shown), film_groups(runs, films)
    names = np.unique(groups[rows])
    units = groups if len(names) > 1 else films
    names = np.unique(units[rows])
    if validation_share == 0 or (len(names) < 2 and len(rows) < 8 * (gap + 1)):
        return rows, rows[:0]
    if len(names) > 1:
        n_held_out = min(max(1, round(validation_share * len(names))), len(names) - 1)
        held_out = random.permutation(names)[:n_held_out]
        is_held_out = np.isin(units, held_out)
        train = np.flatnonzero(~is_held_out)
        if units is films:
            [(train, _)] = film_folds(runs, films, test_films=held_out, gap=gap)
    else:
        folds = block_folds(runs, films, n_folds=max(2, round(1 / validation_share)), gap=gap)
        train, test = folds[random.randint(len(folds))]
        is_held_out = np.isin(np.arange(len(runs)), test)
    train = train[shown[train]]
    # short films in one run, whose gaps leave little
    if units is films and len(train) < len(rows) / 2:
        return rows, rows[:0]
    return train, np.flatnonzero(is_held_out & shown)


def warn_of_foreign_unit(flow):
    median = float(np.median(np.linalg.norm(flow, axis=2)))
    if median > max(flow.shape[3:]):
        warnings.warn(
            f"half of the flow vectors are longer than the grid of {flow.shape[3]} x "
            f"{flow.shape[4]} cells (median {median:.1f} px per step): is this flow in pixels of "
            "another grid? `brainnrds.flow.resize_flow` rescales vectors.",
            stacklevel=3,
        )


def channel_statistics(features, rows):
    """Mean and standard deviation of every channel over some clips; infinite where constant."""
    count, total, squares = 0, 0.0, 0.0
    for part_rows in np.array_split(rows, -(-len(rows) // 256)):
        part = features[part_rows].astype(np.float64)
        count += part.size / part.shape[1]
        total = total + part.sum(axis=(0, 2, 3))
        squares = squares + (part**2).sum(axis=(0, 2, 3))
    mean = total / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # a constant channel stays at 0
    scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, np.inf)
    return mean.astype(np.float32), scale.astype(np.float32)


def standardized_features(features, mean, scale, *, device, precision):
    """Standardised features as a tensor, on the device if they fit there; None stays None."""
    if features is None:
        return None
    scaled = np.empty(features.shape, dtype=np.float32)
    np.subtract(features, mean[:, None, None], out=scaled)
    scaled /= scale[:, None, None]
    tensor = torch.from_numpy(scaled)
    if torch.device(device).type == "cuda":
        if precision == "bfloat16":
            tensor = tensor.to(torch.bfloat16)
        free, _ = torch.cuda.mem_get_info(device)
        if tensor.numel() * tensor.element_size() < 0.4 * free:
            return tensor.to(device)
        return tensor.pin_memory()
    return tensor


@dataclass
class Windows:
    """BOLD of each subject, and which rows make each sample's window (the last row is zero)."""

    bold: list
    index: np.ndarray
    subject: np.ndarray
    device: str

    def gather(self, batch):
        """Return [(windows (n, n_inputs), (subject, places in the batch)), ...] per subject."""
        parts = []
        for subject in np.unique(self.subject[batch]):
            places = np.flatnonzero(self.subject[batch] == subject)
            rows = torch.from_numpy(self.index[batch[places]]).to(self.device)
            window = self.bold[subject][rows].flatten(1)
            parts.append((window, (int(subject), places)))
        return parts


def _take(features, batch, device):
    if features is None:
        return None
    rows = torch.from_numpy(np.asarray(batch)).to(features.device)
    return features[rows].to(device, non_blocking=True)


def encode_bold(network, windows, batch):
    """The brain's share of the cells of a batch whose samples may come from several subjects."""
    parts = windows.gather(batch)
    encoded = [network.encode_bold(window, subject) for window, (subject, _) in parts]
    if len(parts) == 1:
        return encoded[0]
    order = np.argsort(np.concatenate([places for _, (_, places) in parts]))
    joined = torch.cat(encoded)
    return joined[torch.from_numpy(order).to(joined.device)]


def image_share(network, features, batch, device):
    """The image's share of the cells of a batch; None without an image."""
    image = _take(features, batch, device)
    return None if image is None else network.encode_image(image)


def class_logits(network, windows, features, batch, device):
    """Class logits (n, cells, n_steps, n_codes) of a batch."""
    image = image_share(network, features, batch, device)
    return network.decode_cells(encode_bold(network, windows, batch), image)


def autocast(precision, device):
    return torch.autocast(
        torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16"
    )


def cuda_devices(device):
    device = torch.device(device)
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
