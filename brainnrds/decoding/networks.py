"""The decoder's network: a window of BOLD and frame features -> class logits per cell and step."""

import math

import torch
from torch import nn

from brainnrds.flow import resampling_matrix

__all__ = ["MotionNetwork"]


def _position_features(height, width, n_frequencies):
    """Cosines of the cells' positions, (height * width, n_frequencies**2 - 1), unit mean square."""
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    features = []
    for i in range(n_frequencies):
        for j in range(n_frequencies):
            if i == j == 0:
                continue
            wave = torch.outer(torch.cos(math.pi * i * rows), torch.cos(math.pi * j * columns))
            features.append(wave.flatten() * 2 ** (((i > 0) + (j > 0)) / 2))
    return torch.stack(features, dim=1).float()


class _ResidualBlock(nn.Module):
    """x + two 1x1 convolutions of the normalised x, each one linear map for every cell."""

    def __init__(self, n_channels, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(n_channels)
        self.conv1 = nn.Linear(n_channels, n_channels)
        self.conv2 = nn.Linear(n_channels, n_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.conv2(self.dropout(nn.functional.gelu(self.conv1(self.norm(x)))))


class MotionNetwork(nn.Module):
    """Window of BOLD -> MLP -> broadcast; with frame features -> residual 1x1 blocks -> logits.

    The first 1x1 convolution acts on the concatenation of brain, image and position channels. It is
    linear, so it is applied to each part before that part is broadcast or interpolated: the result
    is the same, and interpolated feature maps of hundreds of channels never exist.

    Parameters
    ----------
    n_inputs : list of int
        Length of the BOLD window (delays x voxels) of each subject.
    n_image_channels : int
        0 = no image.
    grid : tuple (height, width)
        Of the flow.
    n_steps, n_codes : int
    n_bold_channels, n_channels, n_blocks : int
    dropout : float
    n_frequencies : int, default=4
        Cosine frequencies per axis that tell a cell where it is; 0 or 1 = none.
    """

    def __init__(
        self,
        n_inputs,
        n_image_channels,
        grid,
        n_steps,
        n_codes,
        *,
        n_bold_channels,
        n_channels,
        n_blocks,
        dropout,
        n_frequencies=4,
    ):
        super().__init__()
        self.grid = tuple(grid)
        self.n_steps = n_steps
        self.n_codes = n_codes
        self.dropout = nn.Dropout(dropout)
        self.read_in = nn.ModuleList(nn.Linear(n, n_bold_channels) for n in n_inputs)
        self.bold_mlp = nn.Linear(n_bold_channels, n_bold_channels)
        self.bold_to_cells = nn.Linear(n_bold_channels, n_channels)
        self.image_to_cells = (
            nn.Linear(n_image_channels, n_channels, bias=False) if n_image_channels else None
        )
        self.position_to_cells = None
        if n_frequencies > 1:
            position = _position_features(*grid, n_frequencies)
            self.register_buffer("position", position, persistent=False)
            self.position_to_cells = nn.Linear(position.shape[1], n_channels, bias=False)
        self.blocks = nn.ModuleList(_ResidualBlock(n_channels, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(n_channels)
        self.to_logits = nn.Linear(n_channels, n_steps * n_codes)

    def take_trunk(self, network):
        """Take everything but the read-in layers from a network, to be trained no more."""
        state = network.state_dict().items()
        trunk = {name: value for name, value in state if not name.startswith("read_in.")}
        self.load_state_dict(trunk, strict=False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("read_in."))

    def encode_bold(self, window, subject=0):
        """Window (n_clips, n_inputs) -> (n_clips, n_channels), the brain's share of every cell."""
        hidden = nn.functional.gelu(self.read_in[subject](self.dropout(window)))
        hidden = nn.functional.gelu(self.bold_mlp(self.dropout(hidden)))
        return self.bold_to_cells(self.dropout(hidden))

    def encode_image(self, features):
        """Frame features (n_clips, channels, rows, columns) -> (n_clips, cells, n_channels).

        Bilinear between patch centres where the flow grid is finer, area mean where it is coarser.
        """
        height, width = self.grid
        projected = self.image_to_cells(features.permute(0, 2, 3, 1))  # [clips, rows, cols, ch]
        rows = self._resampling(height, features.shape[2], projected)
        columns = self._resampling(width, features.shape[3], projected)
        # matrix products, not interpolate(): its CUDA backward is not reproducible
        cells = torch.einsum("hr,nrsc->nhsc", rows, projected)
        cells = torch.einsum("ws,nhsc->nhwc", columns, cells)
        return cells.flatten(1, 2)

    @staticmethod
    def _resampling(n_new, n_old, like):
        return torch.from_numpy(resampling_matrix(n_new, n_old)).to(like.device, like.dtype)

    def decode_cells(self, bold, image):
        """Shares of brain (n_clips, n_channels) and image (n_clips, cells, n_channels) or None ->
        logits (n_clips, cells, n_steps, n_codes).
        """
        height, width = self.grid
        x = bold[:, None, :]
        if image is not None:
            x = x + image
        if self.position_to_cells is not None:
            x = x + self.position_to_cells(self.position)
        x = x.expand(len(bold), height * width, -1)
        for block in self.blocks:
            x = block(x)
        return self.to_logits(self.norm(x)).unflatten(2, (self.n_steps, self.n_codes))

    def forward(self, window, features=None, subject=0):
        """Return logits (n_clips, n_steps, n_codes, height, width)."""
        image = None if features is None else self.encode_image(features)
        logits = self.decode_cells(self.encode_bold(window, subject), image)
        return logits.permute(0, 2, 3, 1).unflatten(3, self.grid)
