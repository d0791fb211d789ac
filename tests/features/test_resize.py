import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brainnrds.features import _resize
from brainnrds.features._resize import resize_as_pil

FILTERS = [*_resize._FILTERS]


def by_pil(image, size, rows, columns, resample):
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling[resample.upper()])
    return np.asarray(resized)[slice(*rows), slice(*columns)]


def an_image(seed, height, width):
    """Noise, and black and white edges, where bicubic and Lanczos overshoot."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[random.random((height, width)) < 0.5] = random.choice([0, 255])
    return image


LENGTH = st.integers(1, 90)
RESAMPLE = st.sampled_from([*FILTERS, "nearest"])


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 1000),
    LENGTH,
    LENGTH,
    LENGTH,
    LENGTH,
    st.sampled_from([*FILTERS, "nearest"]),
    st.data(),
)
def test_every_byte_is_pils(seed, height, width, new_height, new_width, resample, data):
    def part(length):
        first = data.draw(st.integers(0, length - 1))
        return first, data.draw(st.integers(first + 1, length))

    image = an_image(seed, height, width)
    size, rows, columns = (new_height, new_width), part(new_height), part(new_width)
    found = resize_as_pil(image, size, rows=rows, columns=columns, resample=resample)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_pil(image, size, rows, columns, resample))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("shape", [(360, 480), (1080, 1920), (202, 360)])
def test_films_for_a_network(shape, resample):
    image = an_image(0, *shape)
    size = 224, int(224 * shape[1] / shape[0])
    margin = (size[1] - 224) // 2
    rows, columns = (0, 224), (margin, margin + 224)
    for pixels in (image, image[:, ::-1], np.asfortranarray(image)):
        np.testing.assert_array_equal(
            resize_as_pil(pixels, size, rows=rows, columns=columns, resample=resample),
            by_pil(np.ascontiguousarray(pixels), size, rows, columns, resample),
        )


@pytest.mark.parametrize("shape", [(360, 480), (640, 90), (90, 640), (480, 360)])
def test_pil_does_little_of_the_work(shape, monkeypatch):
    """And what a PIL that rounds otherwise gives is what there is."""
    image, crop = an_image(1, *shape), ((0, 60), (3, 50))
    find = {"rows": crop[0], "columns": crop[1], "resample": "bicubic"}
    expected = by_pil(image, (60, 80), *crop, "bicubic")
    _resize._goes_down_first.cache_clear()
    np.testing.assert_array_equal(resize_as_pil(image, (60, 80), **find), expected)
    assert _resize._goes_down_first(shape, (60, 80), "bicubic") is not None
    original = _resize._by_pil
    monkeypatch.setattr(_resize, "_by_pil", None)  # not needed any more
    np.testing.assert_array_equal(resize_as_pil(image, (60, 80), **find), expected)
    monkeypatch.setattr(_resize, "_by_pil", lambda *how: original(*how) // 2)
    _resize._goes_down_first.cache_clear()
    np.testing.assert_array_equal(resize_as_pil(image, (60, 80), **find), expected // 2)
    _resize._goes_down_first.cache_clear()
