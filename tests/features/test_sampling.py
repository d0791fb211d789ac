import numpy as np
import pytest

from brainnrds.features import distinct_clips, frames_to_volumes, place_features


def test_repeated_films_are_computed_once():
    films = np.array([1, 1, 1, -1, 0, 0, 1, 1, 1, -1])
    film_times = np.array([0, 1.5, 3, 4.5, 0, 1.5, 0.001, 1.501, 3.001, 4.5])
    times, index = distinct_clips(films, film_times, clip_duration=1.5, film_durations=[9, 4.5])
    assert [t.tolist() for t in times] == [[0, 1.5], [0, 1.5, 3]]
    assert index.tolist() == [2, 3, 4, -1, 0, 1, 2, 3, 4, -1]


def test_rows_show_what_the_volume_shows():
    # the feature of a clip is its film and onset: the placed rows must say where they come from
    rng = np.random.default_rng(0)
    films = rng.integers(-1, 3, 200)
    film_times = rng.integers(0, 50, 200) * 0.8
    times, index = distinct_clips(films, film_times, clip_duration=0.8, film_durations=[40.0] * 3)
    features = [np.column_stack([np.full(len(t), i), t]) for i, t in enumerate(times)]
    X = place_features(features, index)
    shown = films >= 0
    np.testing.assert_allclose(X[shown], np.column_stack([films, film_times])[shown], atol=5e-3)
    assert len(np.unique(X[~shown], axis=0)) == 1


def test_clips_stay_inside_their_film():
    times, index = distinct_clips(
        np.zeros(4, int), np.array([-0.7, 0.3, 1.3, 2.3]), clip_duration=1.0, film_durations=[3.0]
    )
    assert times[0].tolist() == [0.0, 0.3, 1.3, 2.0]
    assert index.tolist() == [0, 1, 2, 3]


def test_films_that_are_not_shown_have_no_clips():
    times, index = distinct_clips(
        np.array([2, 2]), np.array([0.0, 1.0]), clip_duration=1.0, film_durations=[5.0, 0.1, 5.0]
    )
    assert [len(t) for t in times] == [0, 0, 2]
    X = place_features([np.empty((0, 0)), np.empty((0, 0)), np.array([[1.0], [2.0]])], index)
    assert X.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("film_times", "duration", "match"),
    [
        ([0.0, 5.0], 4.0, "must lie within its 4 s"),
        ([-2.0, 0.0], 4.0, "must lie within"),
        ([0.0, 0.0], 0.5, "at least as long as a clip"),
    ],
)
def test_volumes_outside_the_film_are_refused(film_times, duration, match):
    with pytest.raises(ValueError, match=match):
        distinct_clips(
            np.zeros(2, int), np.array(film_times), clip_duration=1.0, film_durations=[duration]
        )


def test_average_over_frames_is_the_integral():
    # a frame counts by the time it is seen: compare with a sum over fine time steps
    rng = np.random.default_rng(1)
    frame_times = np.cumsum(rng.uniform(0.02, 0.2, 60))
    features = rng.standard_normal((60, 2))
    end = 2 * frame_times[-1] - frame_times[-2]
    volume_times = np.array([frame_times[0], 0.731, 1.5, 3.2])
    averaged = frames_to_volumes(features, frame_times, volume_times, duration=0.9)
    for row, t in zip(averaged, volume_times, strict=True):
        fine = np.linspace(t, t + 0.9, 200_001)[:-1] + 0.9 / 400_000
        fine = fine[(fine >= frame_times[0]) & (fine < end)]
        seen = features[np.searchsorted(frame_times, fine, side="right") - 1]
        np.testing.assert_allclose(row, seen.mean(0), atol=1e-4)


def test_volumes_without_a_frame_are_nan():
    averaged = frames_to_volumes(
        np.ones((3, 1)), np.array([1.0, 2.0, 3.0]), np.array([-5.0, 1.0, 50.0]), duration=2.0
    )
    np.testing.assert_array_equal(averaged[:, 0], [np.nan, 1, np.nan])


def test_frame_times_must_ascend():
    with pytest.raises(ValueError, match="must ascend"):
        frames_to_volumes(np.ones((3, 1)), np.array([0.0, 2.0, 1.0]), np.zeros(1), duration=1.0)
