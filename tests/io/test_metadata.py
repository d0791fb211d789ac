"""Timing of volumes from sidecars and headers: right, or one line that says what is wrong."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds.io import InputError
from brainnrds.io._metadata import Recorded, read_timing

RAW = Recorded("raw_bold.nii.gz", n_volumes=100, shape=(64, 64, 3), t_r=2.0)


def timing(raw=None, preprocessed=None, *, header=2.0, n_volumes=100, recorded=RAW):
    raw = {"RepetitionTime": 2.0} if raw is None else raw
    return read_timing("bold.nii.gz", n_volumes, header, raw, preprocessed or {}, recorded)


def test_volumes_stand_for_start_time_or_mean_slice_or_middle():
    assert timing(preprocessed={"StartTime": 0.9}).start_time == 0.9
    slices = {"RepetitionTime": 2.0, "SliceTiming": [0.0, 1.2, 0.6]}
    assert timing(slices).start_time == pytest.approx(0.6)
    assert timing(slices, {"StartTime": 0.9}).start_time == 0.9
    middle = timing()
    assert (middle.start_time, middle.is_known) == (1.0, False)
    # sparse sampling: slices are taken in the first 0.5 s of 2 s
    for sparse in ({"DelayTime": 1.5}, {"AcquisitionDuration": 0.5}):
        assert timing({"RepetitionTime": 2.0, **sparse}).start_time == 0.25
    # aligned slices without a StartTime: the middle, not the mean of times that hold no more
    assert timing(slices, {"SliceTimingCorrected": True}).start_time == 1.0


def test_volume_timing_stands_for_repetition_time():
    volumes = (3.0 + 2.0 * np.arange(100)).tolist()
    found = timing({"VolumeTiming": volumes})
    assert (found.t_r, found.begin, found.start_time) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize("value", [[0.0, 2.0], [0, 2, 5], ["0", "2"], 2.0, None, [2, 0] * 50])
def test_volume_timing_that_cannot_be(value):
    with pytest.raises(InputError, match="VolumeTiming of bold.nii.gz"):
        timing({"VolumeTiming": value})


def test_volume_timing_against_repetition_time():
    volumes = (2.0 * np.arange(100)).tolist()
    with pytest.raises(InputError, match="agree with VolumeTiming, 2 s; got 1.5"):
        timing({"VolumeTiming": volumes, "RepetitionTime": 1.5})


BAD_NUMBERS = ["2", True, None, float("nan"), float("inf"), [2], {"a": 2}, 10**400, -1]


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 0, 1e-300, 60])
def test_repetition_time_that_cannot_be(value):
    with pytest.raises(InputError, match="RepetitionTime of bold.nii.gz") as error:
        timing({"RepetitionTime": value})
    assert len(str(error.value)) < 300


def test_milliseconds_are_guessed_and_refused():
    with pytest.raises(InputError, match=r"got 2000 \(in ms\?\)"):
        timing({"RepetitionTime": 2000})
    with pytest.raises(InputError, match=r"got 0 to 1500 \(in ms\?\)"):
        timing({"RepetitionTime": 2.0, "SliceTiming": [0, 1500, 750]})


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 30, 500, 1e308, 2.1])
def test_start_time_outside_the_first_volume(value):
    with pytest.raises(InputError, match="StartTime of bold.nii.gz"):
        timing(preprocessed={"StartTime": value})


@pytest.mark.parametrize(
    "value",
    ["fast", ["a"], [float("nan"), 1, 1], {"a": 1}, [[1], [1, 2]], 1, [], [0, 20, 40], [-9, -3, 0]],
)
def test_slice_times_that_cannot_be(value):
    given = {"RepetitionTime": 2.0, "SliceTiming": value}
    with pytest.raises(InputError, match="SliceTiming of bold.nii.gz"):
        timing(given)
    # not needed where StartTime says it, but said
    found = timing(given, {"StartTime": 1.0})
    assert found.start_time == 1.0
    assert [kind for kind, _ in found.remarks] == ["SliceTiming"]


def test_slice_times_of_several_volumes():
    # the clock of the scanner goes on with the next volume
    times = [0.0, 0.6, 6.96, 7.56, 13.9, 14.5]
    with pytest.raises(InputError, match=r"must lie in \[0, 2\] s.* got 0 to 14.5\."):
        timing({"RepetitionTime": 2.0, "SliceTiming": times}, recorded=None)


def test_one_time_for_each_slice():
    given = {"RepetitionTime": 2.0, "SliceTiming": [0.0, 1.0]}
    with pytest.raises(InputError, match="each of the 3 slices of raw_bold.nii.gz; got 2"):
        timing(given)
    with pytest.raises(InputError, match="each of the 64 slices"):
        timing({**given, "SliceEncodingDirection": "j-"})
    assert timing(given, recorded=None).start_time == 0.5


def test_headers_that_contradict_the_sidecar_are_told():
    found = timing({"RepetitionTime": 2.4})
    assert found.t_r == 2.4
    assert found.remarks == (
        (
            "RepetitionTime",
            "2.4 s in the sidecar, 2 s in the preprocessed image's header and 2 s in the raw "
            "image's header",
        ),
    )
    assert timing({"RepetitionTime": 2.001}).remarks == ()
    assert timing({}, header=2.0).t_r == 2.0


def test_dropped_volumes():
    match = "must have the 100 volumes of raw_bold.nii.gz; got 98.*NumberOfVolumesDiscardedByUser"
    with pytest.raises(InputError, match=match):
        timing(n_volumes=98)
    with pytest.raises(InputError, match="got 102"):
        timing(n_volumes=102)
    key = "NumberOfVolumesDiscardedByUser"
    found = timing(preprocessed={key: 2}, n_volumes=98)
    assert (found.begin, found.start_time) == (4.0, 5.0)
    assert [kind for kind, _ in found.remarks] == ["dropped"]
    # StartTime may count from the first volume that is left, or from the first of the run
    for start in (0.5, 4.5):
        given = {key: 2, "StartTime": start}
        assert timing(preprocessed=given, n_volumes=98).start_time == 4.5
    with pytest.raises(InputError, match=r"it says 1\)"):
        timing(preprocessed={key: 1}, n_volumes=98)
    # what the raw sidecar says is of volumes that no file has, also where it was copied
    raw = {"RepetitionTime": 2.0, key: 4}
    assert timing(raw).start_time == timing(raw, {key: 4}).start_time == 1.0
    for value in ("2", -1, 1.5, True):
        with pytest.raises(InputError, match=key):
            timing(preprocessed={key: value})


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(10**400), 10**400),
    st.booleans(),
    st.text(max_size=3),
    st.none(),
    st.sampled_from([0, 0.5, 1, 2, 2.0, 3000]),
)
VALUES = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=4), st.dictionaries(st.text(), NUMBERS))
KEYS = ["RepetitionTime", "StartTime", "SliceTiming", "SliceTimingCorrected", "VolumeTiming"]
KEYS += ["DelayTime", "AcquisitionDuration", "SliceEncodingDirection"]
KEYS += ["NumberOfVolumesDiscardedByUser"]
SIDECARS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(raw=SIDECARS, preprocessed=SIDECARS, header=st.one_of(st.none(), st.just(2.0)))
def test_any_sidecar_gives_times_within_the_volume_or_one_line(raw, preprocessed, header):
    try:
        found = read_timing("bold.nii.gz", 4, header, raw, preprocessed)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert 0 < found.t_r < 60
    assert found.begin - 1e-3 <= found.start_time <= found.begin + found.t_r + 1e-3
    json.dumps([found.t_r, found.begin, found.start_time], allow_nan=False)
