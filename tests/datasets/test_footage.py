"""Films cut from the shipped footage: disjoint sources, and motion that is what it says."""

import itertools
from importlib.resources import files

import cv2
import numpy as np
import pytest

from brainnrds.datasets.footage import (
    CLIP_DURATION,
    flow_at,
    plan_film,
    plan_windows,
    render_clip,
    write_film,
)
from brainnrds.io import read_clip, read_sound


def _films(n_films, n_clips=60, seed=0):
    rng = np.random.default_rng(seed)
    windows = plan_windows(n_films, rng)
    return windows, [plan_film(own, n_clips, rng) for own in windows]


def _used(clips):
    """Every box of footage that the clips show."""
    return {window for clip in clips for window in (clip.window, clip.patch_window) if window}


@pytest.mark.parametrize("n_films", [2, 12, 60])
def test_no_two_films_share_a_source_window(n_films):
    windows, films = _films(n_films, n_clips=20)
    for own, clips in zip(windows, films, strict=True):
        assert _used(clips) <= set(own)
        assert {window.source for window in own} == {"pedestrians", "bunny"}
    for first, second in itertools.combinations(films, 2):
        for one, other in itertools.product(_used(first), _used(second)):
            assert not one.overlaps(other)


def test_overlap_needs_time_and_crop():
    window = plan_windows(1, np.random.default_rng(0))[0][0]
    later = type(window)(**{**vars(window), "start": window.stop, "stop": window.stop + 9})
    beside = type(window)(**{**vars(window), "left": window.right, "right": window.right + 9})
    assert window.overlaps(window)
    assert not window.overlaps(later)
    assert not window.overlaps(beside)


def test_the_camera_never_leaves_its_window():
    for clips in _films(6)[1]:
        for clip in clips:
            for time in np.linspace(0, CLIP_DURATION, 5):
                x, y, width = clip.crop(time)
                height = width * 96 / 128
                assert clip.window.left <= x - width / 2 + 1e-9
                assert x + width / 2 <= clip.window.right + 1e-9
                assert clip.window.top <= y - height / 2 + 1e-9
                assert y + height / 2 <= clip.window.bottom + 1e-9


def test_clips_of_a_shot_join_without_a_jump():
    for before, after in itertools.pairwise(_films(4)[1][0]):
        if before.shot == after.shot:
            np.testing.assert_allclose(before.crop(CLIP_DURATION), after.crop(0), atol=1e-9)
            np.testing.assert_allclose(before.patch(CLIP_DURATION), after.patch(0), atol=1e-9)


def test_clips_are_distinct():
    pictures = [render_clip(clip, fps=2, gray=True).tobytes() for clip in _films(2)[1][0]]
    assert len(set(pictures)) >= 0.95 * len(pictures)


def test_known_flow_is_seen_by_an_optical_flow_method():
    """DIS knows nothing of the plan; frozen footage, so that nothing else moves."""
    y, x = np.mgrid[:96, :128]
    x, y = (x + 0.5) / 128 - 0.5, (y + 0.5 - 48) / 128
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors, sizes = [], []
    for clips in _films(6)[1]:
        for clip in clips:
            if clip.speed or not (clip.zoom or any(clip.pan)):
                continue
            first, second = (
                cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render_clip(clip)[10:12]
            )
            seen = method.calc(first, second, None).transpose(2, 0, 1)
            known = flow_at(clip, x, y, 10 / 15) * 128 / 15  # pixels per frame
            errors.append(np.median(np.linalg.norm(seen - known, axis=0)))
            sizes.append(np.median(np.linalg.norm(known, axis=0)))
    assert len(errors) > 20
    assert np.median(sizes) > 0.8
    assert np.median(errors) < 0.1
    assert np.percentile(errors, 90) < 0.5 * np.median(sizes)


def test_flow_inside_the_patch_is_the_patch_velocity():
    clips = [clip for film in _films(3)[1] for clip in film if clip.patch_window]
    for clip in clips[:10]:
        place = clip.patch(1.0)
        np.testing.assert_allclose(flow_at(clip, *place, 1.0), clip.patch_velocity)
        beyond = place[0] + 1.01 * clip.patch_radius
        expected = (clip.pan[0] + clip.zoom * beyond, clip.pan[1] + clip.zoom * place[1])
        np.testing.assert_allclose(flow_at(clip, beyond, place[1], 1.0), expected)


def test_too_many_films():
    with pytest.raises(ValueError, match=r"`n_films` must be between 1 and 60; got 61"):
        plan_windows(61, np.random.default_rng(0))


def test_footage_is_small_and_attributed():
    folder = files("brainnrds.datasets") / "data"
    films = [entry for entry in folder.iterdir() if entry.name.endswith(".mp4")]
    assert sum(len(film.read_bytes()) for film in films) < 2e6
    text = (folder / "ATTRIBUTION.rst").read_text()
    assert all(film.name in text for film in films)
    assert "Creative Commons Attribution 3.0" in text and "Apache-2.0" in text


def test_sound_does_not_change_the_pictures(tmp_path):
    """Also that the sound begins with the first frame, in spite of the encoder's own delay."""
    (clips,) = _films(1, n_clips=1)[1]
    wave = np.zeros(32000, np.float32)
    wave[16000:16800] = 0.5 * np.sin(2 * np.pi * 900 * np.arange(800) / 16000)
    for name, sound in (("silent", None), ("sound", wave)):
        write_film(tmp_path / f"{name}.mp4", clips, wave=sound)
    np.testing.assert_array_equal(*(read_clip(tmp_path / f"{n}.mp4") for n in ("silent", "sound")))
    heard = read_sound(tmp_path / "sound.mp4")
    assert np.argmax(np.abs(heard) > 0.2) / 16000 == pytest.approx(1.0, abs=0.01)
