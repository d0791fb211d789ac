"""Reanimation without weights: the initial frame is moved along the flow."""

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np
import torch

from brainnrds._checks import InputError, check_clips, check_device, check_flow
from brainnrds.flow import accumulate_flow, dominant_motion, resize_flow

__all__ = ["SplatRenderer", "check_frames_and_flow", "clip_flow", "splat_clips"]

_BACKGROUND_GRID = 48  # cells of the shorter side on which the dominant motion is fitted
_INPAINT_GRID = 240  # pixels of the shorter side at which the background plate is painted
_LEAST_COVERAGE = 0.3  # a target pixel that got less is empty
_INVERSION_STEPS = 12
_RELAXATION = 0.4  # converges for expansions up to fivefold
_INVERSION_ERROR = 0.5  # squared pixels


def check_frames_and_flow(initial_frames, flow):
    """Check what every renderer is given: frames (n, 3, H, W) and flow (n, n_steps, 2, h, w)."""
    initial_frames = check_clips(initial_frames, name="initial_frames", n_dim=4)
    flow = check_flow(flow)
    if len(flow) != len(initial_frames):
        raise InputError(
            f"`flow` must have one clip per initial frame ({len(initial_frames)}); got {len(flow)}."
        )
    return initial_frames, flow


def clip_flow(flow, n_frames):
    """Return the motion from each frame of a clip to the next, on the flow's own grid.

    The clock of all renderers: the steps of flow span the clip, and frame k is shown at
    ``k / n_frames`` of it, as `brainnrds.io.iter_clips` reads it. The last frame thus comes one
    interval before the end of the clip, and what moves after it is not seen.

    Parameters
    ----------
    flow : array of shape (n_clips, n_steps, 2, h, w)
    n_frames : int

    Returns
    -------
    flow : array of float32 of shape (n_clips, n_frames - 1, 2, h, w)
    """
    return resize_flow(flow, n_steps=n_frames)[:, : n_frames - 1]


@dataclass(frozen=True)
class SplatRenderer:
    """Move the initial frame by softmax splatting, over one inpainted background.

    Every frame is made from the initial frame directly (chained warps blur and drift): the
    displacements from it are accumulated along the moving points and splatted forward
    with weight ``exp(sharpness * z)`` (Niklaus and Liu 2020, arXiv 2003.05534), where z in [0, 1]
    is the motion against the dominant motion: what moves against the camera lies in front. It is
    the coordinates that are splatted; colours are then read from the initial frame, which keeps
    them sharp (Niklaus et al. 2023, doi:10.1109/WACV56688.2023.00078). What
    nothing reaches is filled from one background plate (movers painted over once, then moved by
    the dominant motion), so that uncovered ground does not flicker.

    Needs no weights and no GPU. It cannot invent: no articulation, no new content at the borders
    (they are repeated), no change of light.

    Parameters
    ----------
    n_frames : int, default=14
        Frames of a clip, the initial frame included.
    sharpness : float, default=20.0
        How decisively the front wins where two places land on one pixel. 0 averages them.
    device : {"cpu", "cuda", ..., "auto"}, default="cpu"
        On the CPU the result is the same to the bit every time; CUDA adds in no fixed order.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.reanimation import SplatRenderer
    >>> frames = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    >>> flow = np.zeros((1, 3, 2, 8, 8), dtype=np.float32)
    >>> SplatRenderer(n_frames=5)(frames, flow).shape
    (1, 5, 3, 32, 32)
    """

    n_frames: int = 14
    _: KW_ONLY
    sharpness: float = 20.0
    device: str = "cpu"

    licence = "none needed: the renderer has no weights"

    def __post_init__(self):
        if self.n_frames < 2:
            raise InputError(f"`n_frames` must be at least 2; got {self.n_frames!r}.")
        if self.sharpness < 0:
            raise InputError(f"`sharpness` must not be negative; got {self.sharpness!r}.")

    def __call__(self, initial_frames, flow):
        """Render clips.

        Parameters
        ----------
        initial_frames : array of shape (n_clips, 3, height, width)
            In [0, 1].
        flow : array of shape (n_clips, n_steps, 2, h, w)
            Pixels of its own grid per step; any grid that covers the frame, any number of steps
            that span the clip. Frame k is shown at ``k / n_frames`` of it.

        Returns
        -------
        clips : array of float32 of shape (n_clips, n_frames, 3, height, width)
            In [0, 1]; frame 0 is the initial frame.
        """
        initial_frames, flow = check_frames_and_flow(initial_frames, flow)
        flow = clip_flow(flow, self.n_frames)
        return splat_clips(initial_frames, flow, sharpness=self.sharpness, device=self.device)


def splat_clips(initial_frames, flow, *, sharpness=20.0, device="cpu"):
    """Move initial frames by flow from frame to frame; see `SplatRenderer`.

    Parameters
    ----------
    initial_frames : array of shape (n_clips, 3, height, width)
    flow : array of shape (n_clips, n_frames - 1, 2, h, w)
        Pixels of its own grid from frame to frame.
    sharpness : float, default=20.0
    device : str, default="cpu"

    Returns
    -------
    clips : array of float32 of shape (n_clips, n_frames, 3, height, width)
    """
    device = torch.device(check_device(device))
    clips = np.empty(
        (len(flow), flow.shape[1] + 1, *initial_frames.shape[1:]), dtype=initial_frames.dtype
    )
    for clip, frame, fields in zip(clips, initial_frames, flow, strict=True):
        clip[0] = frame
        clip[1:] = _splat_clip(frame, fields, sharpness, device)
    return clips


def _splat_clip(frame, fields, sharpness, device):
    displacement, background = _displacements(frame, fields)
    against = np.linalg.norm(displacement - background, axis=1)  # (n_frames - 1, H, W)
    against = against.max(axis=0)
    plate = torch.from_numpy(_background_plate(frame, against)).to(device)
    depth = torch.from_numpy(against / max(against.max(), 1.0)).to(device)

    frame = torch.from_numpy(np.ascontiguousarray(frame)).to(device)
    weight = torch.exp(sharpness * (depth - depth.max()))
    height, width = weight.shape
    pixel = torch.arange(height * width, device=device)
    row, column = (pixel // width).float(), (pixel % width).float()
    out = []
    for moved, ground in zip(displacement, background, strict=True):
        moved = torch.from_numpy(moved).to(device)
        ground = torch.from_numpy(ground).to(device).view(2, -1)
        offset, hole = _source_offsets(moved, weight, row, column)
        image = _read(frame, column + offset[0], row + offset[1])
        image[:, hole] = _read(plate, column[hole] - ground[0, hole], row[hole] - ground[1, hole])
        out.append(image.view(3, height, width))
    return torch.stack(out).clamp_(0, 1).cpu().numpy()


def _displacements(frame, fields):
    """Displacements from the initial frame, and their dominant part; (n_frames - 1, 2, H, W).

    Pixels of the frame.
    """
    size = frame.shape[1:]
    steps = accumulate_flow(fields[None])
    shorter = min(steps.shape[3:])
    grid = tuple(max(1, round(side * _BACKGROUND_GRID / shorter)) for side in steps.shape[3:])
    coarse = resize_flow(steps, grid) if shorter > _BACKGROUND_GRID else steps
    background = resize_flow(dominant_motion(coarse), size)[0]
    return resize_flow(steps, size)[0], background


def _read(image, x, y):
    """Read image (c, h, w) at the points x, y (n,), bilinear; outside, the border is repeated."""
    height, width = image.shape[1:]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp_(max=max(width - 2, 0)), y.floor().clamp_(max=max(height - 2, 0))
    fx, fy = x - left, y - top
    first = (top * width + left).long()
    step_x, step_y = int(width > 1), width * int(height > 1)
    pixels = image.reshape(len(image), -1)

    def corner(shift):
        return pixels.index_select(1, first + shift)

    upper = corner(0) * (1 - fx) + corner(step_x) * fx
    lower = corner(step_y) * (1 - fx) + corner(step_y + step_x) * fx
    return upper * (1 - fy) + lower * fy


def _source_offsets(moved, weight, row, column):
    """Tell where every target pixel comes from.

    Parameters
    ----------
    moved : tensor of shape (2, h, w)
        Displacement of every source pixel.
    weight : tensor of shape (h, w)
        Of the sources: the front is heavier.
    row, column : tensor of shape (h * w,)

    Returns
    -------
    offset : tensor of shape (2, h * w)
        From the target back to its source.
    hole : tensor of int
        Targets that have no source: ground that a mover uncovers, and what enters the image.
    """
    height, width = weight.shape
    offset, coverage = _splat(moved, weight, row, column)
    empty = coverage < _LEAST_COVERAGE
    if not empty.any():
        return offset, empty.nonzero()[:, 0]
    closed = ~_dilate(~_dilate(~empty.view(height, width)))
    pending = empty.nonzero()[:, 0]
    start = _window_means(offset, ~empty, (height, width), pending)
    # Where a surface expands, splats leave gaps between them. The inverse b = -d(x + b) of its
    # displacement d exists there; where ground is uncovered, it does not.
    x, y, back = column[pending], row[pending], start
    for _ in range(_INVERSION_STEPS):
        back = back - _RELAXATION * (back + _read(moved, x + back[0], y + back[1]))
    error = (back + _read(moved, x + back[0], y + back[1])).square().sum(dim=0)
    solved = error < _INVERSION_ERROR
    for position, side in ((x + back[0], width), (y + back[1], height)):
        solved &= (position >= -0.5) & (position <= side - 0.5)
    offset[:, pending] = torch.where(solved, back, start)
    return offset, pending[~solved & ~closed.view(-1)[pending]]


def _dilate(mask):
    """Grow a bool map by a window of 5 x 5 pixels."""
    for axis in (0, 1):
        grown = mask.clone()
        for shift in range(1, min(3, mask.shape[axis])):
            rest = mask.shape[axis] - shift
            grown.narrow(axis, shift, rest).logical_or_(mask.narrow(axis, 0, rest))
            grown.narrow(axis, 0, rest).logical_or_(mask.narrow(axis, shift, rest))
        mask = grown
    return mask


def _splat(moved, weight, row, column):
    """Splat source coordinates, bilinear.

    Returns
    -------
    offset : tensor of shape (2, h * w)
        Weighted mean of the way back to the sources.
    coverage : tensor of shape (h * w,)
        How much of a pixel each target got, all sources being equal.
    """
    height, width = weight.shape
    weight = weight.view(-1)
    x, y = column + moved[0].view(-1), row + moved[1].view(-1)
    left, top = x.floor(), y.floor()
    fx, fy = x - left, y - top
    index, shares, parts = [], [], []
    for dy in (0, 1):
        for dx in (0, 1):
            to_column, to_row = left + dx, top + dy
            share = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            inside = (to_column >= 0) & (to_column < width) & (to_row >= 0) & (to_row < height)
            share = torch.where(inside, share, 0)
            index.append(torch.where(inside, to_row * width + to_column, 0).long())
            shares.append(share)
            heavy = share * weight
            back_x, back_y = column - to_column, row - to_row
            parts.append((heavy, heavy * back_x, heavy * back_y))
    index = torch.cat(index)
    n_pixels = height * width

    def add(values):
        out = torch.zeros(n_pixels, dtype=torch.float32, device=weight.device)
        return out.scatter_add_(0, index, torch.cat(values))

    coverage = add(shares)
    norm, back_x, back_y = (add(part) for part in zip(*parts, strict=True))
    norm = norm.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.stack([back_x, back_y]) / norm, coverage


def _window_means(values, known, size, pixel, radius=8):
    """Mean of values (c, h * w) over the known pixels around each pixel of `pixel`; 0 if none."""
    height, width = size
    maps = torch.cat([values * known, known[None].float()]).view(-1, height, width).double()
    maps = torch.nn.functional.pad(maps.cumsum(1).cumsum(2), (1, 0, 1, 0))
    row, column = pixel // width, pixel % width
    top, bottom = (row - radius).clamp(min=0), (row + radius + 1).clamp(max=height)
    left, right = (column - radius).clamp(min=0), (column + radius + 1).clamp(max=width)
    sums = maps[:, bottom, right] - maps[:, top, right] - maps[:, bottom, left] + maps[:, top, left]
    return (sums[:-1] / sums[-1:].clamp(min=1)).float()


def _background_plate(frame, against):
    """Paint over what moves against the dominant motion, once per clip."""
    threshold = max(1.0, 3 * 1.4826 * float(np.median(against)))
    mover = (against > threshold).astype(np.uint8)
    if not mover.any() or mover.mean() > 0.6:
        return np.ascontiguousarray(frame)
    mover = cv2.dilate(mover, np.ones((7, 7), np.uint8))  # flow edges are not colour edges
    height, width = mover.shape
    scale = min(1.0, _INPAINT_GRID / min(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = (frame.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    hole = (cv2.resize(mover, small, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    painted = cv2.inpaint(image, hole, 3, cv2.INPAINT_TELEA)
    painted = cv2.resize(painted, (width, height), interpolation=cv2.INTER_LINEAR)
    painted = painted.reshape(height, width, 3).transpose(2, 0, 1).astype(np.float32) / 255
    return np.where(mover[None] > 0, painted, frame)
