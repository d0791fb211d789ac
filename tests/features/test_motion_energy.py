import sys

import numpy as np
import pytest
from sklearn.base import clone

from brainnrds.features import MotionEnergy, StaticEnergy


def drifting_grating(direction, frequency=4, speed=2.0, fps=12, n_frames=24, size=(48, 64)):
    """A clip of a sine grating that moves towards `direction` (degrees, 90 = up)."""
    v, h = np.meshgrid(*(np.arange(n) / size[0] for n in size), indexing="ij")
    angle = np.deg2rad(direction)
    along = h * np.cos(angle) - v * np.sin(angle)
    time = np.arange(n_frames)[:, None, None] / fps
    grey = 0.5 + 0.4 * np.sin(2 * np.pi * (frequency * along - speed * time))
    return np.repeat(grey[:, None], 3, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "extractor",
    [
        MotionEnergy(blind_to_still=False, offset=1e-5),
        StaticEnergy(offset=1e-5),
        MotionEnergy(
            fps=15,
            spatial_frequencies=(0, 2, 4, 8),
            filter_spacing=3.5,
            blind_to_still=False,
            offset=1e-5,
        ),
    ],
)
def test_equals_pymoten(extractor):
    from moten.colorspace import rgb2lab
    from moten.pyramids import MotionEnergyPyramid

    rng = np.random.default_rng(0)
    clips = rng.random((2, 26, 3, 48, 64)).astype(np.float32)
    features = extractor.transform(clips)
    pyramid = MotionEnergyPyramid(
        stimulus_vhsize=(48, 64),
        stimulus_fps=extractor.fps,
        temporal_frequencies=getattr(extractor, "temporal_frequencies", [0]),
        spatial_frequencies=list(extractor.spatial_frequencies),
        filter_spacing=extractor.filter_spacing,
    )
    width = int(extractor.fps * 2 / 3)
    first = width // 2
    for clip, row in zip(clips, features, strict=True):
        luminance = np.stack(
            [rgb2lab(frame.transpose(1, 2, 0).astype(np.float64))[..., 0] for frame in clip]
        )
        expected = np.asarray(pyramid.project_stimulus(luminance))
        expected = expected[first : first + len(clip) - width + 1].mean(0)
        # pymoten's luminance uses 7.787 * Y + 4 / 29 near black, ours the same line as 903.3 * Y
        np.testing.assert_allclose(row, expected, atol=2e-4)


def test_the_two_spaces_share_no_filter():
    assert (MotionEnergy().filter_parameters()["temporal_freq"] > 0).all()
    assert (StaticEnergy().filter_parameters()["temporal_freq"] == 0).all()
    names = [set(e.get_feature_names_out()) for e in (MotionEnergy(), StaticEnergy())]
    assert [len(n) for n in names] == [1134, 315]
    assert not names[0] & names[1]


@pytest.mark.parametrize("direction", [0, 90, 180, 270])
def test_a_grating_drives_the_filters_of_its_direction(direction):
    extractor = MotionEnergy()
    (row,) = extractor.transform(drifting_grating(direction)[None])
    p = extractor.filter_parameters()
    matching = (p["spatial_freq"] == 4) & (p["temporal_freq"] == 2)
    mean = {d: row[matching & (p["direction"] == d)].mean() for d in np.unique(p["direction"])}
    assert max(mean, key=mean.get) == direction
    assert mean[direction] > mean[(direction + 180) % 360] + 1


def test_static_energy_ignores_direction_and_motion_energy_does_not():
    left, right = (drifting_grating(d) for d in (180, 0))
    static = StaticEnergy().transform(np.stack([left, right]))
    motion = MotionEnergy().transform(np.stack([left, right]))
    assert np.abs(static[0] - static[1]).mean() < 0.3
    assert np.abs(motion[0] - motion[1]).mean() > 0.5


def test_what_stands_still_has_no_motion_energy():
    still = drifting_grating(0, speed=0)
    np.testing.assert_allclose(MotionEnergy().transform(still[None]), 0, atol=0.05)
    assert MotionEnergy(blind_to_still=False).transform(still[None]).max() > 3
    assert StaticEnergy().transform(still[None]).max() > 3


def test_a_moment_without_change_is_no_outlier():
    moving = drifting_grating(0)
    stopping = np.concatenate([moving[:12], np.repeat(moving[11:12], 12, axis=0)])
    extractor = MotionEnergy()
    full, part = extractor.transform(np.stack([moving, stopping]))
    p = extractor.filter_parameters()
    driven = (p["spatial_freq"] == 4) & (p["temporal_freq"] == 2) & (p["direction"] == 0)
    assert part.min() >= -0.01
    assert (part[driven] > 0.3 * full[driven]).all()
    assert (part[driven] < full[driven]).all()


def test_clips_may_be_a_generator_of_any_size():
    clips = np.stack([drifting_grating(d) for d in (0, 45)])
    expected = StaticEnergy().transform(clips)
    np.testing.assert_array_equal(StaticEnergy().transform(c for c in clips), expected)
    large = np.repeat(np.repeat(clips, 3, axis=-1), 3, axis=-2)
    np.testing.assert_allclose(StaticEnergy().transform(large), expected, atol=0.05)
    assert StaticEnergy().transform(iter(())).shape == (0, 315)


def test_needs_no_fit_and_can_be_cloned():
    extractor = clone(MotionEnergy(fps=15))
    assert extractor.fps == 15
    assert extractor.fit() is extractor


@pytest.mark.parametrize(
    ("extractor", "clips", "match"),
    [
        (MotionEnergy(), np.zeros((1, 7, 3, 48, 64)), "at least 8 frames .* got 7"),
        (MotionEnergy(), np.full((1, 24, 3, 48, 64), 255.0), r"lie in \[0, 1\]"),
        (MotionEnergy(), np.zeros((1, 24, 48, 64)), "shape .n_frames, 3, height, width"),
        (MotionEnergy(temporal_frequencies=(0, 2)), np.zeros((1, 24, 3, 48, 64)), "above 0"),
        (MotionEnergy(temporal_frequencies=(8,)), np.zeros((1, 24, 3, 48, 64)), "at most"),
        (StaticEnergy(fps=12.5), np.zeros((1, 24, 3, 48, 64)), "whole number"),
        (StaticEnergy(offset=0), np.zeros((1, 24, 3, 48, 64)), "`offset` must be positive; got 0"),
        (StaticEnergy(filter_spacing=0), np.zeros((1, 24, 3, 48, 64)), "`filter_spacing` must"),
        (StaticEnergy(size=(4, 4)), np.zeros((1, 24, 3, 48, 64)), "at least 8 pixels"),
    ],
)
def test_bad_input_is_refused(extractor, clips, match):
    with pytest.raises(ValueError, match=match):
        extractor.transform(clips)


def test_importing_features_loads_no_networks():
    import subprocess

    code = "import brainnrds.features, sys; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
