"""Strips and clips side by side."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from brainnrds.plotting import plot_clip_strips, side_by_side


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def named():
    random = np.random.default_rng(0)
    return {
        "film": random.random((6, 3, 16, 24), dtype=np.float32),
        "decoded": random.random((4, 3, 16, 24), dtype=np.float32),
    }


def test_strips_show_the_named_frames_in_order():
    clips = named()
    figure = plot_clip_strips(clips, n_columns=3, fps=7)
    assert len(figure.axes) == 6
    assert plt.get_fignums() == [figure.number]  # notebooks and the gallery show it
    shown = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_array_equal(shown[0], clips["film"][0].transpose(1, 2, 0))
    np.testing.assert_array_equal(shown[2], clips["film"][5].transpose(1, 2, 0))
    np.testing.assert_array_equal(shown[5], clips["decoded"][3].transpose(1, 2, 0))
    assert figure.axes[3].get_ylabel() == "decoded"
    assert figure.axes[2].get_title() == "0.71 s"


def test_side_by_side_keeps_pixels_and_holds_the_last_frame():
    clips = named()
    joined = side_by_side(clips, gap=2)
    assert joined.shape[0] == 6 and joined.shape[2] % 2 == 0 and joined.shape[3] % 2 == 0
    film = clips["film"][0]
    label = next(i for i in range(24) if np.array_equal(joined[0, :, i : i + 16, :24], film))
    np.testing.assert_array_equal(joined[3, :, label : label + 16, 26:50], clips["decoded"][3])
    np.testing.assert_array_equal(joined[5, :, label : label + 16, 26:50], clips["decoded"][3])
    assert joined.min() >= 0 and joined.max() <= 1
    two_rows = side_by_side(clips, n_columns=1, gap=2)
    assert two_rows.shape[3] == 26


def test_bad_clips_are_refused():
    with pytest.raises(ValueError, match="at least one clip"):
        side_by_side({})
    with pytest.raises(ValueError, match="one size"):
        plot_clip_strips({"a": np.zeros((2, 3, 8, 8)), "b": np.zeros((2, 3, 8, 9))})
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        plot_clip_strips({"a": np.full((2, 3, 8, 8), 255, np.uint8)})
