"""What a pretrained network's own processor does to a frame before the network sees it.

Read from the files beside the weights (transformers: ``preprocessor_config.json``, timm:
``config.json``): any checkpoint of a supported family gets the preprocessing it was trained with.
A frame stays 8-bit until it is on the network's device: all these processors resize and crop bytes
and only then scale and normalise.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from brainnrds._checks import InputError
from brainnrds._files import load_json
from brainnrds.features._resize import goes_as_pil, resize_as_pil, resize_on_device

__all__ = [
    "FramePreparation",
    "LightPreparation",
    "read_timm_preparation",
    "read_transformers_preparation",
]

# the codes of PIL.Image.Resampling, as transformers stores them
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# families whose processors read a bare `size` of n as n x n; the others as the shorter side
_SQUARE = {"vit", "siglip", "hiera"}
# families with the processor of ConvNext, which has no separate crop
_CONVOLUTIONAL = {"convnext", "convnextv2", "resnet"}
# no network sees larger frames; what a file says beyond would take all memory
_LARGEST_SIDE = 8192
# a GPU gets frames as they are up to so many times the size of those that its network takes
_LARGEST_AS_IT_IS = 4


@dataclass(frozen=True)
class FramePreparation:
    """Resize, crop, scale and normalise frames as one network's processor does.

    Attributes
    ----------
    resize : int, (height, width) or None
        int: length of the shorter side in px; None: no resizing.
    crop : (height, width) or None
        Central crop in px.
    resample : str
        Name of PIL's filter.
    uses_torch : bool
        True for processors that exist for torchvision alone: they resize bytes with torch's
        kernels, which differ from PIL's by one grey level in places.
    rounds_crop : bool
        Where an odd margin leaves half a pixel: True rounds half to even (torchvision), False
        rounds down (transformers).
    mean, std : tuple of 3 floats
        Of the scaled frame.
    scale : float
        Factor from bytes to the network's range.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255
    uses_torch: bool = False
    rounds_crop: bool = False

    def __post_init__(self):
        for size in (self.resize, self.crop):
            sides = () if size is None else (size,) if isinstance(size, int) else size
            if not all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides):
                raise InputError(
                    f"Frames must be resized and cropped to 1 to {_LARGEST_SIDE} px; got {size}."
                )
        mean, std, scale = self.mean, self.std, self.scale
        if not (
            len(mean) == len(std) == 3 and np.isfinite((*mean, *std, scale)).all() and all(std)
        ):
            raise InputError(
                f"Frames must be scaled by finite numbers, mean and deviation by channel; got "
                f"{mean}, {std} and {scale}."
            )

    def __call__(self, image):
        """Resize and crop one frame.

        Parameters
        ----------
        image : array of uint8 of shape (height, width, 3)

        Returns
        -------
        prepared : array of uint8 of shape (3, height, width)
            In the network's size; not yet scaled or normalised.
        """
        height, width = self._target(*image.shape[:2])
        rows, columns = self._window(height, width)
        if image.shape[:2] == (height, width):
            image = image[slice(*rows), slice(*columns)]
        elif self.uses_torch:
            image = self._resized_by_torch(image, (height, width))[slice(*rows), slice(*columns)]
        else:
            image = resize_as_pil(
                image, (height, width), rows=rows, columns=columns, resample=self.resample
            )
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def finish(self, pixels):
        """Resize and crop on their device what `LightPreparation` left: the same bytes.

        Parameters
        ----------
        pixels : tensor of uint8 of shape (..., height, width, 3), or prepared frames

        Returns
        -------
        pixels : tensor of uint8 of shape (..., 3, network's height, network's width)
        """
        if pixels.shape[-1] != 3:
            return pixels
        size = self._target(*pixels.shape[-3:-1])
        rows, columns = self._window(*size)
        how = {"rows": rows, "columns": columns, "resample": self.resample}
        return resize_on_device(pixels, size, **how).movedim(-1, -3).contiguous()

    def _target(self, height, width):
        """Size of the resized frame."""
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        short, long = min(height, width), max(height, width)
        long = int(self.resize * long / short)
        return (long, self.resize) if width <= height else (self.resize, long)

    def _window(self, height, width):
        """First and last row, and first and last column, of the crop of a resized frame."""
        if self.crop is None:
            return (0, height), (0, width)
        window = []
        for available, wanted in zip((height, width), self.crop, strict=True):
            if available < wanted:
                raise ValueError(
                    f"A frame resized to {height} x {width} px cannot be cropped to "
                    f"{self.crop[0]} x {self.crop[1]} px."
                )
            margin = available - wanted
            start = int(round(margin / 2)) if self.rounds_crop else margin // 2
            window.append((start, start + wanted))
        return tuple(window)

    def _resized_by_torch(self, image, size):
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        pixels = torch.nn.functional.interpolate(
            pixels, size=size, mode=self.resample, antialias=True
        )
        return pixels[0].permute(1, 2, 0).numpy()

    def normalise(self, pixels):
        """Scale and normalise prepared frames.

        Parameters
        ----------
        pixels : tensor of uint8 of shape (..., 3, height, width)

        Returns
        -------
        pixels : tensor of float32, same shape and device
        """
        mean, std = (_per_channel(values, pixels.device) for values in (self.mean, self.std))
        return (pixels.float() * self.scale - mean) / std

    def with_size(self, size):
        """Return the preparation for another size of the network's input, px (square)."""
        if self.crop is None:
            return replace(self, resize=(size, size))
        factor = size / min(self.crop)
        if isinstance(self.resize, int):
            resize = max(size, round(self.resize * factor))
        else:
            resize = tuple(max(size, round(side * factor)) for side in self.resize)
        return replace(self, resize=resize, crop=(size, size))

    def without_crop(self):
        """Return the preparation that squeezes the whole frame into the network's input."""
        if self.crop is None:
            side = self.resize
            size = (side, side) if isinstance(side, int) else side
        else:
            size = self.crop
        return replace(self, resize=size, crop=None)


@dataclass(frozen=True)
class LightPreparation:
    """Leave frames whole where `FramePreparation.finish` resizes them on a GPU, else prepare them.

    A frame that is many times larger than what the network takes would cost more on its way than
    to resize it.

    Attributes
    ----------
    preparation : FramePreparation
    """

    preparation: FramePreparation

    def __call__(self, image):
        """Return one frame, uint8 (height, width, 3), as it is or prepared."""
        preparation, shape = self.preparation, image.shape[:2]
        size = preparation._target(*shape)
        n_wanted = math.prod(last - first for first, last in preparation._window(*size))
        if (
            preparation.uses_torch
            or math.prod(shape) > _LARGEST_AS_IT_IS * n_wanted
            or not goes_as_pil(shape, size, preparation.resample)
        ):
            return preparation(image)
        return np.ascontiguousarray(image)


@lru_cache
def _per_channel(values, device):
    # made once: a copy to the GPU waits for all that was launched before
    import torch

    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)


def _read_size(size, square):
    """Return (shorter side, or (height, width)) from any of transformers' spellings."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return int(size["height"]), int(size["width"])
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return (int(size), int(size)) if square else int(size)


def read_transformers_preparation(folder, family):
    """Read the preparation from a folder's own file.

    That is ``video_preprocessor_config.json``, ``preprocessor_config.json`` or a part of
    ``processor_config.json``, the first that is there.

    Parameters
    ----------
    folder : Path
    family : str
        For the meaning of a bare size, and the defaults of files that leave things out.

    Returns
    -------
    preparation : FramePreparation
    """
    config = _read_preparation(folder)
    resize = None
    if config.get("do_resize", True):
        resize = _read_size(config["size"], family in _SQUARE)
    crop = None
    if config.get("do_center_crop", family not in _SQUARE | _CONVOLUTIONAL):
        crop = _read_size(config.get("crop_size", config.get("size")), square=True)
        crop = (crop, crop) if isinstance(crop, int) else crop
    if family in _CONVOLUTIONAL and isinstance(resize, int):
        # ConvNext's processor: crops below 384 px, squeezes from 384 px on
        side = resize
        if side < 384:
            resize, crop = int(side / config.get("crop_pct", 224 / 256)), (side, side)
        else:
            resize, crop = (side, side), None
    normalises = config.get("do_normalize", True)
    return FramePreparation(
        resize=resize,
        crop=crop,
        resample=_RESAMPLING[config.get("resample", 2)],
        mean=tuple(config["image_mean"]) if normalises else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if normalises else (1.0, 1.0, 1.0),
        scale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        uses_torch=family == "vjepa2",
    )


def _read_preparation(folder):
    """Return a folder's settings for videos, or else for images."""
    names = ("video_preprocessor_config.json", "preprocessor_config.json")
    for name in names:
        if (folder / name).is_file():
            return load_json(folder / name)
    # transformers 5 saves the processors of one model in one file
    if (folder / "processor_config.json").is_file():
        processors = load_json(folder / "processor_config.json")
        for part in ("video_processor", "image_processor"):
            if part in processors:
                return processors[part]
    raise FileNotFoundError(
        f"The model folder is incomplete: {folder / names[1]} is missing (it says how the "
        "network wants its frames)."
    )


def read_timm_preparation(pretrained):
    """Return timm's evaluation transform for a ``pretrained_cfg``.

    Parameters
    ----------
    pretrained : dict
        With `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`.

    Returns
    -------
    preparation : FramePreparation
    """
    height, width = pretrained["input_size"][-2:]
    crop_pct = pretrained.get("crop_pct") or 0.875
    scaled = math.floor(height / crop_pct), math.floor(width / crop_pct)
    mode = pretrained.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(f"timm's crop mode must be 'center' or 'squash'; got {mode!r}.")
    keeps_ratio = mode == "center" and scaled[0] == scaled[1]
    return FramePreparation(
        resize=scaled[0] if keeps_ratio else scaled,
        crop=(height, width),
        resample=pretrained.get("interpolation") or "bilinear",
        mean=tuple(pretrained["mean"]),
        std=tuple(pretrained["std"]),
        rounds_crop=True,
    )
