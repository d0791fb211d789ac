"""The colour wheel against the standard one; figures hold what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from brainnrds.plotting import (
    flow_to_colors,
    plot_controls,
    plot_flow_strips,
    plot_flow_wheel,
    plot_learning_curve,
    plot_null_gain,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _standard_color(dx, dy):
    """One pixel of the benchmark's colour code, as its C program computes it (speed <= 1)."""
    wheel = []
    for n, colour in ((15, "RY"), (6, "YG"), (4, "GC"), (11, "CB"), (13, "BM"), (6, "MR")):
        for i in range(n):
            up, down = int(255 * i / n), 255 - int(255 * i / n)
            wheel.append(
                {
                    "RY": (255, up, 0), "YG": (down, 255, 0), "GC": (0, 255, up),
                    "CB": (0, down, 255), "BM": (up, 0, 255), "MR": (255, 0, down),
                }[colour]
            )  # fmt: skip
    place = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = int(place)
    share, speed = place - low, np.hypot(dx, dy)
    low_colour, high_colour = wheel[low], wheel[(low + 1) % len(wheel)]
    mixed = [
        (1 - share) * a / 255 + share * b / 255
        for a, b in zip(low_colour, high_colour, strict=True)
    ]
    return [1 - speed * (1 - c) if speed <= 1 else 0.75 * c for c in mixed]


def test_wheel_is_the_standard_one():
    random = np.random.default_rng(0)
    flow = random.uniform(-1.2, 1.2, size=(2, 9, 11))
    colors = flow_to_colors(flow, max_motion=1.0)
    for row, column in np.ndindex(9, 11):
        expected = _standard_color(*flow[:, row, column])
        np.testing.assert_allclose(colors[row, column], expected, atol=1e-6)


def test_colors_equal_torchvision():
    pytest.importorskip("torchvision", exc_type=Exception)
    from torchvision.utils import flow_to_image

    flow = np.random.default_rng(1).normal(size=(3, 2, 16, 12)).astype(np.float32)
    ours = flow_to_colors(flow)
    theirs = np.moveaxis(flow_to_image(torch.from_numpy(flow)).numpy(), 1, 3)
    assert np.abs(ours * 255 - theirs).max() < 1.5  # theirs is cut to 8 bits


def test_still_is_white_and_unknown_is_black():
    flow = np.zeros((2, 2, 2))
    flow[:, 1, 1] = np.nan
    colors = flow_to_colors(flow)
    np.testing.assert_array_equal(colors[0, 0], 1)
    np.testing.assert_array_equal(colors[1, 1], 0)


def test_strips_show_every_predictor_and_step():
    random = np.random.default_rng(2)
    flow = {name: random.normal(size=(2, 3, 2, 8, 8)) for name in ("truth", "decoder", "zero")}
    figure = plot_flow_strips(
        flow, initial_frames=random.random((2, 3, 24, 24)), row_labels=["best", "worst"]
    )
    figure.canvas.draw()
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 2 * 4 + 1  # and the wheel
    with pytest.raises(ValueError, match="one shape"):
        plot_flow_strips({"a": flow["truth"], "b": flow["zero"][:1]})


def test_charts_show_their_values():
    table = pd.DataFrame(
        {
            "end_point_error_px": [0.6, 0.7],
            "end_point_error_px_low": [0.5, 0.65],
            "end_point_error_px_high": [0.7, 0.75],
        },
        index=["decoder", "unrelated_bold"],
    )
    axes = plot_controls(table).axes[0]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [0.6, 0.7]
    with pytest.raises(ValueError, match="column of `table`"):
        plot_controls(table, score="ssim")
    history = {"train_loss": [2, 1], "validation_loss": [2, 1.5], "validation_error": [1, 0.9]}
    figure = plot_learning_curve(history, best_epoch=1, control=history)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [2, 1])
    figure = plot_null_gain(np.zeros(10), 0.3, p=0.01)
    assert any("p = 0.01" in text.get_text() for text in figure.legends[0].get_texts())
    assert plot_flow_wheel(max_motion=2.5).axes[0].get_title().startswith("rim: 2.5")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (3, 8, 8)])
def test_wrong_layout_is_refused(shape):
    with pytest.raises(ValueError, match=r"`flow` must have shape \(..., 2, height, width\)"):
        flow_to_colors(np.zeros(shape))
