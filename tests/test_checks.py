"""Arrays that pass come out as they went in; the others are refused in one line that names them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainnrds._checks import (
    InputError,
    check_bold,
    check_clips,
    check_cuts,
    check_device,
    check_flow,
    check_labels,
    check_mask,
    refuse_weights,
    scored_clips,
    warn_of_missing_labels,
)


@pytest.mark.parametrize(
    ("check", "shape"),
    [(check_bold, (3, 4)), (check_flow, (2, 3, 2, 4, 5)), (check_clips, (2, 3, 3, 4, 5))],
)
def test_right_arrays_come_back_unchanged(check, shape):
    array = np.linspace(0, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    assert check(array) is array
    assert check(array.astype(np.float64)).dtype == np.float32


@pytest.mark.parametrize(
    ("check", "array", "reason"),
    [
        (check_bold, np.zeros(3), r"`x` must have shape \(n_volumes, n_voxels\); got \(3,\)"),
        (check_bold, np.zeros((0, 3)), "`x` must not be empty"),
        (check_bold, np.array([["a"]]), "`x` must be numeric"),
        (check_bold, np.array([[None]]), "`x` must be numeric"),
        (check_bold, np.ones((2, 2)) * 1j, "`x` must be numeric"),
        (check_bold, np.array([[np.nan, np.inf, 1]]), "`x` must be finite; got 2 non-finite"),
        (check_bold, np.array([[1e300]]), "`x` must be finite"),
        (check_flow, np.zeros((1, 1, 3, 4, 4)), "`x` must have shape"),
        (check_clips, np.zeros((1, 1, 4, 4, 4)), "`x` must have shape"),
        (check_clips, np.full((1, 1, 3, 2, 2), 255, np.uint8), "divide 8-bit images by 255"),
        (check_clips, np.full((1, 1, 3, 2, 2), 200.0), r"got values in \[200, 200\]: divide"),
        (check_clips, np.full((1, 1, 3, 2, 2), -0.5), r"must lie in \[0, 1\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_arrays_are_named(check, array, reason):
    with pytest.raises(InputError, match=reason):
        check(array, name="x")


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=3),
    )
)
def test_any_array_is_finite_bold_or_refused(array):
    try:
        bold = check_bold(array)
    except InputError as error:
        assert str(error).startswith("`bold` must") and "\n" not in str(error)
    else:
        assert bold.ndim == 2 and bold.dtype == np.float32 and np.isfinite(bold).all()


def test_masks_have_the_expected_shape_and_count_something():
    mask = np.array([[True, False]])
    assert check_mask(mask, (1, 2)) is mask
    for wrong in (mask.astype(int), mask[0], ~mask & mask):
        with pytest.raises(InputError, match="`mask` must"):
            check_mask(wrong, (1, 2))


def test_labels_are_numbered_and_no_film_is_minus_1():
    assert check_labels(None, 3).tolist() == [0, 0, 0]
    assert check_labels(np.array([4, -1, 4]), 3).tolist() == [4, -1, 4]
    for labels in (np.array(["b", "a", "n/a", ""]), np.array(["b", "a", "n/a", ""], dtype=object)):
        assert check_labels(labels, 4).tolist() == [1, 0, -1, -1]
    for wrong in (np.zeros(2, int), np.zeros(3), np.array([1, None, "a"], dtype=object)):
        with pytest.raises(InputError, match="`runs` must"):
            check_labels(wrong, 3)


def test_clips_with_a_cut_or_without_a_film_are_not_scored():
    assert check_cuts(None, 2).tolist() == [False, False]
    films, has_cut = np.array([0, -1, 1]), np.array([False, False, True])
    assert scored_clips(films, has_cut, 3).tolist() == [True, False, False]
    with pytest.raises(InputError, match="no clip is left"):
        scored_clips(np.array([-1, -1, 1]), has_cut, 3)
    with pytest.raises(InputError, match="`has_cut` must be bool"):
        check_cuts(np.array([0, 1]), 2)


def test_weights_of_samples_are_refused():
    refuse_weights(None)
    with pytest.raises(InputError, match="`sample_weight` must be None"):
        refuse_weights(np.ones(3))


def test_scoring_without_the_labels_of_the_fit_warns():
    class Estimator:
        labels_in_fit_ = ("runs", "films")

    with pytest.warns(UserWarning, match="fitted with films, scored without"):
        warn_of_missing_labels(Estimator(), runs=np.zeros(2), films=None, has_cut=None)


def test_devices_exist_or_are_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_device("auto") == check_device("cpu") == "cpu"
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        check_device("cuda:0")
    for wrong in ("gpu", "meta", "mps", "cpu:x", None):
        with pytest.raises(InputError, match="`device` must be 'cpu'"):
            check_device(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("auto") == "cuda" and check_device("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="got 'cuda:2' and torch sees CUDA devices 0 to 1"):
        check_device("cuda:2")
