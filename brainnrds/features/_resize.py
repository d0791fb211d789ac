"""Resizing frames to the bit as PIL does, and only the part that is wanted, in half the time.

Networks were trained on frames that PIL resized. It weights pixels in fixed point along one axis,
rounds to bytes, and goes along the other one; sums of whole numbers are the same in any order, so
that products with sparse matrices give the same bytes. Which axis comes first depends on the sizes
and on PIL's version: that is tried out, and where nothing here gives its bytes, PIL does the work.
"""

import math
from functools import lru_cache

import cv2
import numpy as np
from scipy import sparse

__all__ = ["goes_as_pil", "resize_as_pil", "resize_on_device"]

# of the weights
_BITS = 22
# below, both orders can happen to give the same bytes
_FEWEST_PIXELS = 1000


def _box(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def _bilinear(x):
    return np.maximum(1 - np.abs(x), 0)


def _hamming(x):
    # PIL has these two in single precision
    low, high = float(np.float32(0.54)), float(np.float32(0.46))
    return np.where(np.abs(x) < 1, np.sinc(x) * (low + high * np.cos(np.pi * x)), 0)


def _bicubic(x, a=-0.5):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x):
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# name: (function of the distance, largest distance), in pixels of the smaller image
_FILTERS = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


def resize_as_pil(image, size, *, rows, columns, resample):
    """Resize an image and crop it.

    Parameters
    ----------
    image : array of uint8 of shape (height, width, 3)
    size : (height, width)
        Of the whole resized image in px.
    rows, columns : (first, last)
        The part of it that is wanted.
    resample : str
        Name of a filter of PIL's.

    Returns
    -------
    image : array of uint8 of shape (n_rows, n_columns, 3)
        ``PIL.Image.resize(size, resample)`` and its crop.
    """
    if not goes_as_pil(image.shape[:2], size, resample):
        return _by_pil(image, size, resample)[slice(*rows), slice(*columns)]
    down_first = _goes_down_first(image.shape[:2], tuple(size), resample)
    return _resize(image, size, rows, columns, resample, down_first)


def goes_as_pil(shape, size, resample):
    """Say whether what is done here gives PIL's bytes for frames of this shape."""
    if resample not in _FILTERS or math.prod(size) < _FEWEST_PIXELS:
        return False
    return _goes_down_first(tuple(shape), tuple(size), resample) is not None


def resize_on_device(pixels, size, *, rows, columns, resample):
    """Resize frames on their device to the bytes of `resize_as_pil`, where these are found here.

    Parameters
    ----------
    pixels : tensor of uint8 of shape (..., height, width, 3)
    size, rows, columns, resample
        As in `resize_as_pil`.

    Returns
    -------
    pixels : tensor of uint8 of shape (..., n_rows, n_columns, 3)
    """
    shape = tuple(pixels.shape[-3:-1])
    passes = [(-3, shape[0], size[0], *rows), (-2, shape[1], size[1], *columns)]
    if not _goes_down_first(shape, tuple(size), resample):
        passes.reverse()
    for axis, n_pixels, n_resized, first, last in passes:
        needed, taps = _taps(n_pixels, n_resized, first, last, resample, str(pixels.device))
        if taps is None:
            pixels = pixels.narrow(axis, needed.start, needed.stop - needed.start)
        else:
            pixels = _weighted_on_device(pixels, axis, *taps)
    return pixels


def _by_pil(image, size, resample):
    from PIL import Image

    resample = Image.Resampling[resample.upper()]
    return np.asarray(Image.fromarray(image).resize(size[::-1], resample=resample))


@lru_cache(maxsize=64)
def _goes_down_first(shape, size, resample):
    """Say whether PIL weights columns before rows; None where neither order gives its bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = _by_pil(noise, size, resample)
    for down_first in (False, True):
        found = _resize(noise, size, (0, size[0]), (0, size[1]), resample, down_first)
        if np.array_equal(found, expected):
            return down_first
    return None


def _resize(image, size, rows, columns, resample, down_first):
    needed_rows, down = _weights(image.shape[0], size[0], *rows, resample)
    needed_columns, across = _weights(image.shape[1], size[1], *columns, resample)
    image = image[needed_rows, needed_columns]
    if down is not None and down_first:
        image = _weighted(down, image)
    if across is not None:
        image = cv2.transpose(_weighted(across, cv2.transpose(image)))
    if down is not None and not down_first:
        image = _weighted(down, image)
    return image


def _weighted(weights, image):
    """Weighted sums of the rows of an image, rounded."""
    pixels = image.reshape(len(image), -1).astype(np.int32)
    sums = weights @ pixels
    sums += 1 << (_BITS - 1)
    sums >>= _BITS
    return sums.clip(0, 255, out=sums).astype(np.uint8).reshape(len(sums), *image.shape[1:])


def _weighted_on_device(pixels, axis, places, numbers):
    """Weighted sums along an axis, rounded: one tap of all pixels after the other."""
    shape = list(pixels.shape)
    shape[axis] = places.shape[1]
    sums = pixels.new_full(shape, 1 << (_BITS - 1), dtype=numbers.dtype)
    for place, number in zip(places, numbers, strict=True):
        along = number.view(-1, *[1] * (-axis - 1))
        sums.addcmul_(pixels.index_select(axis % pixels.ndim, place).to(sums.dtype), along)
    return (sums >> _BITS).clamp_(0, 255).to(pixels.dtype)


@lru_cache(maxsize=64)
def _taps(n_pixels, n_resized, first, last, resample, device):
    """As `_weights`, as tensors: taps of every pixel that is wanted, and their weights.

    Returns
    -------
    needed : slice
    taps : (places, numbers) or None
        Tensors of shape (n_taps, last - first); pixels with fewer taps have weights of 0.
    """
    import torch

    needed, weights = _weights(n_pixels, n_resized, first, last, resample)
    if weights is None:
        return needed, None
    n_taps = np.diff(weights.indptr)
    row = np.repeat(np.arange(len(n_taps)), n_taps)
    tap = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], n_taps)
    places = np.zeros((n_taps.max(), len(n_taps)), dtype=np.int64)
    numbers = np.zeros(places.shape, dtype=np.int32)
    places[tap, row], numbers[tap, row] = weights.indices + needed.start, weights.data
    with torch.inference_mode(False):
        return needed, tuple(torch.as_tensor(table, device=device) for table in (places, numbers))


@lru_cache(maxsize=64)
def _weights(n_pixels, n_resized, first, last, resample):
    """Which pixels of a line are needed, and the weights of each for those that are wanted.

    Returns
    -------
    needed : slice
    weights : sparse array of int32 of shape (last - first, n_needed) or None
        None: they are wanted as they are.
    """
    if n_pixels == n_resized:
        return slice(first, last), None
    function, reach = _FILTERS[resample]
    step = n_pixels / n_resized
    scale = max(step, 1.0)
    reach = reach * scale
    numbers, places, starts = [], [], [0]
    for k in range(first, last):
        center = (k + 0.5) * step
        near = np.arange(
            max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), n_pixels)
        )
        weights = function((near - center + 0.5) * (1 / scale))
        # summed one after the other: rounding is part of what is to be equal
        weights = weights / np.cumsum(weights)[-1] * (1 << _BITS)
        numbers += [math.trunc(w + math.copysign(0.5, w)) for w in weights.tolist()]
        places += near.tolist()
        starts.append(len(places))
    needed = slice(min(places), max(places) + 1)
    places = np.array(places) - needed.start
    shape = last - first, needed.stop - needed.start
    return needed, sparse.csr_array((np.array(numbers, dtype=np.int32), places, starts), shape)
