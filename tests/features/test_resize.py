import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from brainnrds.features import _resize
from brainnrds.features._frames import FramePreparation, LightPreparation
from brainnrds.features._resize import goes_as_pil, resize_as_pil, resize_on_device

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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), LENGTH, LENGTH, LENGTH, LENGTH, st.sampled_from(FILTERS), st.data())
def test_a_device_gives_the_same_bytes(seed, height, width, new_height, new_width, resample, data):
    torch = pytest.importorskip("torch")
    size = new_height, new_width
    rows, columns = (sorted(data.draw(st.integers(0, n)) for _ in "ab") for n in size)
    assume(rows[0] < rows[1] and columns[0] < columns[1])
    assume(goes_as_pil((height, width), size, resample))
    images = np.stack([an_image(seed + i, height, width) for i in range(3)])
    how = {"rows": rows, "columns": columns, "resample": resample}
    found = resize_on_device(torch.from_numpy(images), size, **how)
    assert found.dtype == torch.uint8
    expected = np.stack([resize_as_pil(image, size, **how) for image in images])
    np.testing.assert_array_equal(found.numpy(), expected)


PREPARATIONS = [
    FramePreparation(resize=36, crop=(36, 36), resample="bilinear", mean=(0.5,) * 3, std=(1,) * 3),
    FramePreparation(resize=(48, 40), crop=None, resample="bicubic", mean=(0,) * 3, std=(1,) * 3),
    FramePreparation(resize=None, crop=(48, 50), resample="box", mean=(0,) * 3, std=(1,) * 3),
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_frames_that_are_left_whole_are_prepared_later(preparation, device):
    torch = pytest.importorskip("torch")
    clip = np.stack([an_image(seed, 60, 80) for seed in range(4)])
    light = LightPreparation(preparation)
    whole = np.stack([light(image) for image in clip])
    np.testing.assert_array_equal(whole, clip)
    expected = np.stack([preparation(image) for image in clip])
    found = preparation.finish(torch.from_numpy(whole[np.newaxis]).to(device))
    np.testing.assert_array_equal(found.cpu().numpy()[0], expected)
    np.testing.assert_array_equal(preparation.finish(torch.from_numpy(expected)), expected)
    # views are told apart, and found again behind a process, by what they are
    assert pickle.loads(pickle.dumps(light)) == light  # noqa: S301 : our own


@pytest.mark.parametrize(
    ("shape", "change"),
    [((70, 80), {}), ((60, 80), {"uses_torch": True}), ((60, 80), {"resample": "nearest"})],
)
def test_what_a_device_should_not_resize_is_prepared(shape, change):
    preparation = replace(PREPARATIONS[0], **change)
    image = an_image(0, *shape)
    np.testing.assert_array_equal(LightPreparation(preparation)(image), preparation(image))


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
