"""OpticalFlow: dense motion of clips, from OpenCV's DIS or from RAFT."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise

import cv2
import numpy as np

from brainnrds._checks import InputError, check_clips, check_device
from brainnrds._files import hash_file
from brainnrds._tensors import read_state_dict
from brainnrds.features._extractor import Extractor
from brainnrds.features._networks import misfit
from brainnrds.flow import resize_flow, step_shares

__all__ = ["OpticalFlow", "convert_raft_names"]

_METHODS = ("dis", "raft", "raft-small")
#: RAFT's coarsest correlation level needs at least this many pixels per side.
_RAFT_SIDE = 128

#: The names of the original RAFT code -> those of torchvision, part by part.
_RAFT_PARTS = (
    ("fnet.", "feature_encoder."),
    ("cnet.", "context_encoder."),
    ("update_block.encoder.", "update_block.motion_encoder."),
    ("update_block.gru.", "update_block.recurrent_block."),
    ("update_block.mask.", "mask_predictor."),
)


class OpticalFlow(Extractor):
    """Estimate the flow of clips on a grid, in equal steps.

    Flow is estimated between frames at most `max_gap` apart, because estimators fail on long ways,
    composed along each step (`brainnrds.flow.compose_flow`) and brought to the grid
    (`brainnrds.flow.resize_flow`), so that a vector is in pixels *of the grid* per step.

    The steps are equal parts of the clip's duration, the time after its last frame included: frame
    k of n is taken as shown at ``k / n`` of it (`frame_times`). A step that begins or ends between
    two frames takes its share of their motion, and after the last frame motion goes on as it was.

    Parameters
    ----------
    grid : tuple (height, width), default=(32, 32)
        Of the result.
    n_steps : int, default=3
        Flow fields per clip.
    method : {"dis", "raft", "raft-small"}, default="dis"
        "dis": dense inverse search [1]_ of OpenCV, medium preset; no weights. "raft": RAFT [2]_ of
        torchvision, "raft-small" its small model; they need ``pip install
        'brainnrds[pretrained]'``.
    weights : path-like, default=None
        RAFT's weights: a file of a state dict in torchvision's or in the original's names. None =
        torchvision's own, which must be in the local cache of ``torch.hub`` or are downloaded to it
        by torchvision.
    max_gap : int, default=2
        Frames from the first to the second image of a pair, at most; fewer where a step has fewer.
    n_updates : int, default=12
        Refinements of RAFT.
    size : tuple (height, width) or int, default=256
        Of the clips that this extractor wants to see (an int: the shorter side); clips of any size
        are taken as they are.
    fps : float, default=8.0
        Frame rate of the clips that it wants, frames/s, as nearly as whole frames allow: they are
        spread evenly over the clip (`frame_times`).
    batch_size : int, default=16
        Frame pairs that RAFT sees at once; a batch is filled across clips.
    device : {"cpu", "cuda", "cuda:0", ..., "auto"}, default="cpu"
        Of RAFT. DIS runs on the CPU.

    References
    ----------
    .. [1] Kroeger, Timofte, Dai & Van Gool 2016, Fast optical flow using dense inverse search,
       arXiv:1603.03590.
    .. [2] Teed & Deng 2020, RAFT: Recurrent all-pairs field transforms for optical flow,
       arXiv:2003.12039.

    Examples
    --------
    >>> import numpy as np
    >>> from brainnrds.features import OpticalFlow
    >>> clips = np.zeros((2, 16, 3, 64, 64), "float32")
    >>> OpticalFlow(grid=(8, 8)).transform(clips).shape
    (2, 3, 2, 8, 8)
    """

    def __init__(
        self,
        grid=(32, 32),
        n_steps=3,
        *,
        method="dis",
        weights=None,
        max_gap=2,
        n_updates=12,
        size=256,
        fps=8.0,
        batch_size=16,
        device="cpu",
    ):
        self.grid = grid
        self.n_steps = n_steps
        self.method = method
        self.weights = weights
        self.max_gap = max_gap
        self.n_updates = n_updates
        self.size = size
        self.fps = fps
        self.batch_size = batch_size
        self.device = device

    def frame_times(self, duration):
        """Return the times of the frames that a clip should have.

        Parameters
        ----------
        duration : float
            Of the clip, s.

        Returns
        -------
        times : array of shape (n_frames,)
            Seconds from the clip's onset: ``round(duration * fps)`` frames, at least two, each as
            far from the next as the last from the end of the clip.
        """
        n_frames = max(2, round(duration * self.fps))
        return np.arange(n_frames) * (duration / n_frames)

    def describe(self):
        """Say everything that determines the flow, weights by their content.

        Returns
        -------
        description : dict
        """
        parameters = self.get_params()
        left_out = ("batch_size", "device", "weights")
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "parameters": {k: v for k, v in parameters.items() if k not in left_out},
            "weights_sha256": None if self.weights is None else hash_file(self.weights),
            "clock": "steps span the clip",
        }

    def transform(self, clips):
        """Estimate the flow of every clip.

        Parameters
        ----------
        clips : iterable of arrays of shape (n_frames, 3, height, width)
            In [0, 1], at least two frames each; a generator is read clip by clip, in a thread of
            its own.

        Returns
        -------
        flow : array of float32 of shape (n_clips, n_steps, 2, height, width)
            In pixels of `grid` per step; a step lasts an `n_steps`-th of the clip.
        """
        self._check_parameters()
        estimate = self._dis() if self.method == "dis" else self._raft()
        batches = _batches(self._pairs(clips), self.batch_size)
        flows, pairs = [], []
        # while one batch is estimated, the next is read
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                images, starts, finished = batch
                pairs += estimate(images, starts)
                for frames in finished:
                    n_pairs = len(frames) - 1
                    flows.append(self._flow_of(frames, pairs[:n_pairs]))
                    del pairs[:n_pairs]
        if not flows:
            raise InputError("`clips` must hold at least one clip; got none.")
        return np.stack(flows)

    def estimate_pairs(self, first, second):
        """Estimate the flow from images to other images, on the images' own grid.

        Parameters
        ----------
        first, second : array of shape (n_images, 3, height, width)
            In [0, 1].

        Returns
        -------
        flow : array of float32 of shape (n_images, 2, height, width)
            Pixels.
        """
        self._check_parameters()
        first = check_clips(first, name="first", n_dim=4)
        second = check_clips(second, name="second", n_dim=4)
        if first.shape != second.shape:
            raise InputError(
                f"`first` and `second` must have one shape; got {first.shape} and {second.shape}."
            )
        estimate = self._dis() if self.method == "dis" else self._raft()
        pairs = ((*pair, None) for pair in zip(first, second, strict=True))
        batches = _batches(pairs, self.batch_size)
        return np.concatenate([estimate(*batch[:2]).cpu().numpy() for batch in batches])

    def _check_parameters(self):
        if self.method not in _METHODS:
            raise InputError(f"`method` must be one of {_METHODS}; got {self.method!r}.")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise InputError(f"`grid` must be (height, width), both positive; got {self.grid!r}.")
        if int(self.n_steps) != self.n_steps or self.n_steps < 1:
            raise InputError(f"`n_steps` must be a positive int; got {self.n_steps!r}.")
        if int(self.max_gap) != self.max_gap or self.max_gap < 1:
            raise InputError(f"`max_gap` must be a positive int; got {self.max_gap!r}.")
        if int(self.batch_size) != self.batch_size or self.batch_size < 1:
            raise InputError(f"`batch_size` must be a positive int; got {self.batch_size!r}.")

    def _pairs(self, clips):
        """Yield first and second image of every pair, and the clip's frames with its last one."""
        for clip in clips:
            clip = check_clips(np.asarray(clip)[None], name="clip")[0]
            if len(clip) < 2:
                raise InputError(f"each clip must have at least two frames; got {len(clip)}.")
            images = list(clip)
            last = len(clip) - 1
            gap = min(int(self.max_gap), max(1, last // int(self.n_steps)))
            frames = [*range(0, last, gap), last]
            for first, second in pairwise(frames):
                yield images[first], images[second], frames if second == last else None

    def _flow_of(self, frames, pairs):
        """Compose the flow of a clip's pairs along every step, and bring it to the grid.

        The pairs lead from each of `frames` to the next.
        """
        import torch

        # the clip ends one frame after its last; until then the last pair's motion goes on
        gap = frames[-1] - frames[-2]
        pairs = [*pairs[:-1], pairs[-1] * ((gap + 1) / gap)]
        steps = [
            reduce(_compose, (pairs[pair] * share for pair, share in shares))
            for shares in step_shares([*frames[:-1], frames[-1] + 1], int(self.n_steps))
        ]
        # one copy from the device per clip, of its steps alone
        return resize_flow(torch.stack(steps).cpu().numpy()[None], tuple(self.grid))[0]

    def _dis(self):
        import torch

        def estimate(images, starts):
            flow = [_dis_flow(images[start], images[start + 1]) for start in starts]
            return torch.from_numpy(np.stack(flow))

        return estimate

    def _raft(self):
        import torch

        device = check_device(self.device)
        key = (self.method, os.fspath(self.weights) if self.weights is not None else None, device)
        if getattr(self, "_loaded", (None,))[0] != key:
            self._loaded = key, _load_raft(self.method == "raft-small", self.weights).to(device)
        network = self._loaded[1]

        def estimate(images, starts):
            height, width = images.shape[2:]
            # multiples of 8, large enough for four levels of correlation
            padded = [max(_RAFT_SIDE, -(-side // 8) * 8) for side in (height, width)]
            down, right = padded[0] - height, padded[1] - width
            pad = (right // 2, right - right // 2, down // 2, down - down // 2)
            images = torch.from_numpy(images).to(device) * 2 - 1
            images = torch.nn.functional.pad(images, pad, "replicate")
            starts = torch.from_numpy(starts).to(device)
            with torch.inference_mode():
                flow = network(images[starts], images[starts + 1], num_flow_updates=self.n_updates)
            return flow[-1][:, :, pad[2] : pad[2] + height, pad[0] : pad[0] + width]

        return estimate

    def __getstate__(self):
        # weights are found again by name or path
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}


def _batches(pairs, batch_size):
    """Yield pairs of one image size, stacked `batch_size` at a time whatever clip they are from."""
    batch = []
    for pair in pairs:
        if batch and (len(batch) == batch_size or pair[0].shape != batch[0][0].shape):
            yield _stack(batch)
            batch = []
        batch.append(pair)
    if batch:
        yield _stack(batch)


def _stack(batch):
    """Return images, where each pair starts in them, and the frames of the clips that end here.

    A pair is an image and the next one, so that pairs that meet in an image share it.
    """
    images, starts = [], []
    for first, second, _ in batch:
        if not images or images[-1] is not first:
            images.append(first)
        starts.append(len(images) - 1)
        images.append(second)
    finished = [frames for *_, frames in batch if frames is not None]
    return np.stack(images), np.array(starts), finished


def _compose(first, second):
    """Chain two flows as `brainnrds.flow.compose_flow` does, on the device where they lie.

    Copied to the CPU at full size and composed there, flow takes about as long as its estimation
    on a GPU.
    """
    import torch

    _, height, width = first.shape
    x = torch.arange(width, device=first.device) + first[0]
    y = torch.arange(height, device=first.device)[:, None] + first[1]
    # grid_sample counts from -1 to 1 between the centres of the outermost pixels
    where = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    moved = torch.nn.functional.grid_sample(
        second[None], where[None], padding_mode="border", align_corners=True
    )
    return first + moved[0]


def _dis_flow(first, second):
    grey = [
        cv2.cvtColor(np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        for image in (np.clip(first, 0, 1), np.clip(second, 0, 1))
    ]
    height, width = grey[0].shape
    # DIS matches patches of 8 px over several scales: repeat the border of small images
    down, right = max(0, 32 - height), max(0, 32 - width)
    if down or right:
        grey = [np.pad(image, ((0, down), (0, right)), mode="edge") for image in grey]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = estimator.calc(grey[0], grey[1], None)
    return flow[:height, :width].transpose(2, 0, 1).astype(np.float32)


def _load_raft(small, weights):
    """RAFT in evaluation mode, weights loaded strictly."""
    try:
        from torchvision.models import optical_flow
    except ImportError as error:
        raise ImportError("RAFT needs torchvision: pip install 'brainnrds[pretrained]'") from error
    except RuntimeError as error:
        raise misfit(error) from error
    build = optical_flow.raft_small if small else optical_flow.raft_large
    if weights is None:
        kind = optical_flow.Raft_Small_Weights if small else optical_flow.Raft_Large_Weights
        return build(weights=kind.DEFAULT, progress=False).eval()
    if not os.path.isfile(weights):
        raise InputError(f"`weights` must be a file of a state dict; got {os.fspath(weights)}.")
    network = build(weights=None)
    state = convert_raft_names(read_state_dict(weights))
    expected = network.state_dict()
    wrong = sorted(set(state) ^ set(expected)) + [
        name for name in state if name in expected and state[name].shape != expected[name].shape
    ]
    if wrong:
        raise InputError(
            f"`weights` must fit torchvision's {'small' if small else 'large'} RAFT; "
            f"{len(wrong)} names or shapes differ: {', '.join(wrong[:8])}."
        )
    network.load_state_dict(state, strict=True)
    return network.eval()


def convert_raft_names(state_dict):
    """Rename the parameters of an original RAFT checkpoint to torchvision's names.

    Parameters
    ----------
    state_dict : dict of str -> tensor
        In either naming; a leading ``module.`` is dropped.

    Returns
    -------
    state_dict : dict of str -> tensor
        In torchvision's naming; names that no rule knows stay as they are, so that a strict load
        reports them.
    """
    names = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if any(name.startswith("feature_encoder.") for name in names):
        return names
    return {_torchvision_name(name): value for name, value in names.items()}


def _torchvision_name(name):
    for old, new in _RAFT_PARTS:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    part, *path, kind = name.split(".")
    if part in ("feature_encoder", "context_encoder"):
        if path[0] in ("conv1", "norm1"):  # the stem: convolution, then norm
            path[0] = f"convnormrelu.{0 if path[0] == 'conv1' else 1}"
        elif path[0] == "conv2":
            path[0] = "conv"
        elif path[0].startswith("layer") and len(path) > 2 and path[2][:-1] in ("conv", "norm"):
            layer, number = path[2][:-1], path[2][-1]
            if path[2] == "norm3":  # the same module as downsample.1, listed twice
                path[2:] = ["downsample", "1"]
            else:
                path[2] = f"convnormrelu{number}.{0 if layer == 'conv' else 1}"
    elif part == "mask_predictor":
        path[0] = {"0": "convrelu.0", "2": "conv"}.get(path[0], path[0])
    elif part == "update_block" and path[0] == "motion_encoder":
        path[1] = {
            "convc1": "convcorr1.0",
            "convc2": "convcorr2.0",
            "convf1": "convflow1.0",
            "convf2": "convflow2.0",
            "conv": "conv.0",
        }.get(path[1], path[1])
    elif part == "update_block" and path[0] == "recurrent_block":
        gate = path[1]
        unit = f"convgru{gate[-1]}" if gate[-1] in "12" else "convgru1"
        path[1] = f"{unit}.{gate.rstrip('12')}"
    return ".".join([part, *path, kind])
