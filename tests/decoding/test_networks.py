"""The network and its loss against a direct computation in NumPy."""

import math

import numpy as np
import torch
from scipy.special import erf, log_softmax

from brainnrds.decoding import MotionNetwork


def _network(seed=0, **changed):
    torch.manual_seed(seed)
    settings = dict(n_bold_channels=6, n_channels=5, n_blocks=2, n_frequencies=3, dropout=0.3)
    return MotionNetwork([8], 4, (6, 7), 2, 3, **{**settings, **changed}).eval()


def _gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _layer_norm(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def _direct(network, window, features):
    """Concatenate broadcast BOLD, interpolated features and positions; then 1x1 convolutions."""
    p = {k: v.detach().double().numpy() for k, v in network.state_dict().items()}
    height, width = network.grid

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)

    hidden = _gelu(linear(window, "read_in.0"))
    hidden = _gelu(linear(hidden, "bold_mlp"))
    cells = np.broadcast_to(hidden[:, None, None, :], (len(window), height, width, hidden.shape[1]))
    interpolated = torch.nn.functional.interpolate(
        torch.from_numpy(features), (height, width), mode="bilinear", align_corners=False
    ).numpy()
    interpolated = np.moveaxis(interpolated, 1, -1)
    position = []
    for i in range(3):
        for j in range(3):
            if (i, j) != (0, 0):
                row = np.cos(math.pi * i * (np.arange(height) + 0.5) / height)
                column = np.cos(math.pi * j * (np.arange(width) + 0.5) / width)
                norm = (math.sqrt(2) if i else 1) * (math.sqrt(2) if j else 1)
                position.append(np.outer(row, column) * norm)
    position = np.broadcast_to(np.stack(position, -1), (len(window), height, width, 8))
    joined = np.concatenate([cells, interpolated, position], axis=-1)
    weight = np.concatenate(
        [
            p["bold_to_cells.weight"],
            p["image_to_cells.weight"],
            p["position_to_cells.weight"],
        ],
        axis=1,
    )
    x = joined @ weight.T + p["bold_to_cells.bias"]
    for block in range(2):
        name = f"blocks.{block}"
        y = _layer_norm(x, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])
        x = x + linear(_gelu(linear(y, f"{name}.conv1")), f"{name}.conv2")
    logits = linear(_layer_norm(x, p["norm.weight"], p["norm.bias"]), "to_logits")
    logits = logits.reshape(len(window), height, width, 2, 3)
    return np.moveaxis(logits, (3, 4), (1, 2))


def test_logits_and_loss_equal_the_direct_computation():
    network = _network()
    random = np.random.default_rng(1)
    window = random.normal(size=(3, 8))
    features = random.normal(size=(3, 4, 3, 3))
    with torch.inference_mode():
        logits = network(
            torch.from_numpy(window).float(), torch.from_numpy(features).float()
        ).numpy()
    expected = _direct(network, window, features)
    assert logits.shape == (3, 2, 3, 6, 7)
    np.testing.assert_allclose(logits, expected, atol=1e-5)

    labels = random.integers(3, size=(3, 2, 6, 7))
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).permute(0, 1, 3, 4, 2).flatten(0, 3),
        torch.from_numpy(labels).flatten(),
    )
    log_p = np.take_along_axis(log_softmax(expected, axis=2), labels[:, :, None], axis=2)
    np.testing.assert_allclose(float(loss), -log_p.mean(), atol=1e-5)


def test_finer_features_than_the_grid_are_averaged():
    network = _network()
    features = torch.randn(2, 4, 12, 14)
    image = network.encode_image(features)
    pooled = torch.nn.functional.interpolate(features, (6, 7), mode="area")
    torch.testing.assert_close(image, network.encode_image(pooled), atol=1e-5, rtol=1e-5)


def test_cells_without_image_and_position_are_alike():
    torch.manual_seed(0)
    network = MotionNetwork(
        [8], 0, (4, 4), 1, 3,
        n_bold_channels=6, n_channels=5, n_blocks=1, n_frequencies=0, dropout=0.0,
    )  # fmt: skip
    logits = network(torch.randn(2, 8))
    torch.testing.assert_close(logits, logits[..., :1, :1].expand_as(logits))


def test_dropout_acts_in_training_only():
    network = _network()
    window, features = torch.randn(2, 8), torch.randn(2, 4, 3, 3)
    assert torch.equal(network(window, features), network(window, features))
    network.train()
    assert not torch.equal(network(window, features), network(window, features))
