"""Charts: what stands in them, checked through the artists that were drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from brainnrds.plotting import (
    plot_bars,
    plot_grouped_bars,
    plot_noise_ceiling,
    plot_score_comparison,
    plot_score_histograms,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_histograms_count_every_voxel_and_name_the_missing():
    rng = np.random.default_rng(0)
    video = rng.normal(size=1000)
    video[:7] = np.nan
    figure = plot_score_histograms(
        {"video": video, "permuted": rng.normal(size=1000)}, controls=["permuted"]
    )
    axes = figure.axes[0]
    counts = [patch.get_xy()[:, 1] for patch in axes.patches]
    # a step outline goes up and down each bin: every height stands twice
    assert sorted(int(c.sum() // 2) for c in counts) == [993, 1000]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("video" in t and "7 without value" in t for t in labels)
    assert len({patch.get_linestyle() for patch in axes.patches}) == 2  # the control is dashed
    assert axes.get_xlabel() == "held-out Pearson r" and axes.get_ylabel() == "voxels"


def test_comparison_puts_video_up_and_image_right():
    image, video = np.array([0.1, 0.5, 0.2]), np.array([0.4, 0.2, 0.2])
    figure = plot_score_comparison(image, video, significant=np.array([True, True, False]))
    axes = figure.axes[0]
    assert axes.get_xlabel().startswith("image") and axes.get_ylabel().startswith("video")
    points = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections[1:]}
    np.testing.assert_allclose(points["video better: 1"], [[0.1, 0.4]])
    np.testing.assert_allclose(points["image better: 1"], [[0.5, 0.2]])
    assert axes.get_xlim() == axes.get_ylim()


def test_noise_ceiling_counts_voxels_above_the_threshold():
    ceiling = np.array([0.05, 0.2, 0.3, np.nan])
    figure = plot_noise_ceiling(ceiling, np.array([0.0, 0.1, 0.35, 0.1]))
    assert figure.axes[0].get_title() == "2 of 4 voxels above 0.1"


def test_bars_show_values_intervals_and_controls():
    values = {"video": 0.3, "zero": -0.02}
    figure = plot_bars(
        values, intervals={"video": (0.2, 0.4)}, controls=["zero"], label="Pearson r"
    )
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.3, -0.02])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["video", "zero"]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.2, 0.4])
    # the first name stands on top
    assert axes.yaxis_inverted()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"`scores` must hold arrays of one shape"):
        plot_score_histograms({"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(ValueError, match=r"`image_scores` and `video_scores`.*\(3,\) and \(4,\)"):
        plot_score_comparison(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="`significant` must be bool"):
        plot_score_comparison(np.zeros(3), np.zeros(3), significant=np.zeros(3))
    with pytest.raises(ValueError, match="must name keys of `values`"):
        plot_bars({"a": 1.0}, intervals={"b": (0, 1)})
    with pytest.raises(ValueError, match="not empty"):
        plot_bars({})


def test_grouped_bars_show_every_region_with_its_ceiling():
    groups = {"a": "video", "b": "video", "c": "image", "late": "control"}
    figure = plot_grouped_bars(
        {"all": {"a": 0.3, "b": 0.2, "c": 0.1, "late": 0.0}, "V1": {"a": 0.4, "c": 0.5}},
        groups=groups,
        intervals={"V1": {"a": (0.35, 0.45)}},
        ceilings={"V1": 0.6},
        label="r",
    )
    first, second = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in first.patches], [0.3, 0.2, 0.1, 0.0])
    np.testing.assert_allclose([bar.get_width() for bar in second.patches], [0.4, 0.5])
    colors = [bar.get_facecolor() for bar in first.patches]
    assert colors[0] == colors[1] and len(set(colors)) == 3
    # a bar stands at the place of its name
    places = dict(zip([t.get_text() for t in first.get_yticklabels()], first.get_yticks()))  # noqa: B905
    assert [bar.get_y() + bar.get_height() / 2 for bar in second.patches] == [
        pytest.approx(places["a"]),
        pytest.approx(places["c"]),
    ]
    assert any(np.allclose(line.get_xdata(), [0.35, 0.45]) for line in second.lines)
    assert any(np.allclose(line.get_xdata(), 0.6) for line in second.lines)
    assert not any(np.allclose(line.get_xdata(), 0.6) for line in first.lines)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["video", "image", "control", "noise ceiling"]
    with pytest.raises(ValueError, match="must hold values of names of `groups`"):
        plot_grouped_bars({"all": {"z": 1.0}}, groups=groups)
