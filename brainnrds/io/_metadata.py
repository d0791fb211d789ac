"""When volumes were acquired: what sidecars and headers say, checked against what they describe."""

import math
from dataclasses import dataclass

import numpy as np

from brainnrds._checks import InputError

__all__ = ["Recorded", "Timing", "read_timing"]

_LONGEST_T_R = 60.0  # s
_ROUNDING = 1e-3  # s: clocks are noted to milliseconds
# shares of a repetition time by which headers round it
_HEADER_TOLERANCE = 0.01


@dataclass(frozen=True)
class Recorded:
    """What the header of the raw image says; None where there is no raw image.

    Attributes
    ----------
    name : str
    n_volumes : int
    shape : tuple of int
        Voxels along i, j and k.
    t_r : float or None
        In s.
    """

    name: str
    n_volumes: int
    shape: tuple
    t_r: float | None


@dataclass(frozen=True)
class Timing:
    """When the volumes of a run were acquired.

    Attributes
    ----------
    t_r : float
        In s.
    begin : float
        Start of volume 0, in s from the start of the run.
    start_time : float
        s from the start of the run that volume 0 stands for.
    is_known : bool
        False where no sidecar says when slices were taken.
    remarks : tuple of (str, str)
        (kind, what was found): runs of one kind are said together.
    """

    t_r: float
    begin: float
    start_time: float
    is_known: bool
    remarks: tuple = ()


def _number(value):
    """The value as a finite float, or None: True, text, NaN and huge integers are no numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _numbers(value):
    """A list of finite numbers as an array, or None."""
    if not isinstance(value, list) or not value:
        return None
    numbers = [_number(item) for item in value]
    return None if None in numbers else np.array(numbers)


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_timing(name, n_volumes, header_t_r, raw, preprocessed, recorded=None):
    """Say when the volumes of a preprocessed run were acquired.

    Parameters
    ----------
    name : str
        Of the preprocessed image, for messages.
    n_volumes : int
    header_t_r : float or None
        Repetition time in s by the header of the preprocessed image.
    raw, preprocessed : dict
        Metadata of both by BIDS' inheritance. Derivatives know what was done to the image, the
        raw data how it was recorded.
    recorded : Recorded or None, default=None

    Returns
    -------
    timing : Timing

    Raises
    ------
    InputError
        A value is no number or lies where it cannot; the numbers of volumes contradict each other.
    """
    metadata = {**raw, **preprocessed}
    t_r, first = _repetition_time(name, metadata, header_t_r, recorded, n_volumes)
    n_dropped, remarks = _dropped(name, n_volumes, raw, preprocessed, recorded)
    begin = first + n_dropped * t_r
    acquisition = _acquisition(name, metadata, t_r)
    remarks += _against_headers(t_r, metadata, header_t_r, recorded)
    slices = None
    try:
        slices = _slice_times(name, metadata, acquisition, recorded)
    except InputError as error:
        if "StartTime" not in metadata:
            raise
        remarks += (("SliceTiming", str(error)),)
    if "StartTime" in metadata:
        start = _number(metadata["StartTime"])
        low, high = n_dropped * t_r, (n_dropped + 1) * t_r
        if start is not None and n_dropped and -_ROUNDING <= start < low:
            start += low  # counted from the first volume that is left
        if start is None or not low - _ROUNDING <= start <= high + _ROUNDING:
            raise InputError(
                f"StartTime of {name} must be a number of s in [{low:g}, {high:g}], within volume "
                f"{n_dropped} of the run; got {_short(metadata['StartTime'])}."
            )
        return Timing(t_r, begin, start, True, remarks)
    if slices is not None and not metadata.get("SliceTimingCorrected"):
        return Timing(t_r, begin, begin + float(slices.mean()), True, remarks)
    return Timing(t_r, begin, begin + acquisition / 2, False, remarks)


def _repetition_time(name, metadata, header_t_r, recorded, n_volumes):
    """Repetition time, and the start of the first volume that was recorded, in s."""
    if "VolumeTiming" in metadata:
        starts = _numbers(metadata["VolumeTiming"])
        steps = None if starts is None or len(starts) < 2 else np.diff(starts)
        if steps is None or np.ptp(steps) > _ROUNDING or not 0 < steps.mean() < _LONGEST_T_R:
            raise InputError(
                f"VolumeTiming of {name} must list numbers of s at equal intervals; got "
                f"{_short(metadata['VolumeTiming'])}."
            )
        n_expected = recorded.n_volumes if recorded else n_volumes
        if len(starts) != n_expected:
            raise InputError(
                f"VolumeTiming of {name} must have one value per volume: {n_expected}; got "
                f"{len(starts)}."
            )
        t_r = _number(metadata.get("RepetitionTime", float(steps.mean())))
        if t_r is None or abs(t_r - steps.mean()) > _ROUNDING:
            raise InputError(
                f"RepetitionTime of {name} must agree with VolumeTiming, {steps.mean():g} s; got "
                f"{_short(metadata['RepetitionTime'])}."
            )
        return float(steps.mean()), float(starts[0])
    given = metadata.get("RepetitionTime", header_t_r)
    t_r = _number(given)
    if t_r is None or not _ROUNDING <= t_r < _LONGEST_T_R:
        in_ms = t_r is not None and _LONGEST_T_R <= t_r <= 1e3 * _LONGEST_T_R
        raise InputError(
            f"RepetitionTime of {name} must be a number of s in its sidecar, in "
            f"[{_ROUNDING:g}, {_LONGEST_T_R:g}); got {_short(given)}"
            f"{' (in ms?)' if in_ms else ''}."
        )
    return t_r, 0.0


def _dropped(name, n_volumes, raw, preprocessed, recorded):
    """How many first volumes of the recording the preprocessed image lacks, and a remark."""
    key = "NumberOfVolumesDiscardedByUser"
    # in the raw sidecar it counts what no file has: events are timed from the first volume there
    said = preprocessed.get(key, 0)
    n_said = _number(said)
    if n_said is None or n_said < 0 or n_said != int(n_said):
        raise InputError(f"{key} of {name} must be a number of volumes; got {_short(said)}.")
    # a derivative may repeat what its raw sidecar says
    n_said = 0 if raw.get(key) == said else int(n_said)
    if recorded is not None and n_volumes + n_said != recorded.n_volumes:
        raise InputError(
            f"{name} must have the {recorded.n_volumes} volumes of {recorded.name}; got "
            f"{n_volumes}. Where the first ones were dropped, its sidecar must say how many as "
            f"{key}{f' (it says {n_said})' if n_said else ''}."
        )
    if not n_said:
        return 0, ()
    return n_said, (("dropped", f"{n_said} volumes at the beginning of {name}"),)


def _acquisition(name, metadata, t_r):
    """Seconds of a repetition in which slices are taken."""
    if "DelayTime" in metadata:
        delay = _number(metadata["DelayTime"])
        if delay is None or not 0 <= delay < t_r:
            raise InputError(
                f"DelayTime of {name} must be a number of s in [0, {t_r:g}); got "
                f"{_short(metadata['DelayTime'])}."
            )
        return t_r - delay
    if "AcquisitionDuration" in metadata:
        duration = _number(metadata["AcquisitionDuration"])
        if duration is None or not 0 < duration <= t_r + _ROUNDING:
            raise InputError(
                f"AcquisitionDuration of {name} must be a number of s in (0, {t_r:g}]; got "
                f"{_short(metadata['AcquisitionDuration'])}."
            )
        return duration
    return t_r


def _slice_times(name, metadata, acquisition, recorded):
    """SliceTiming in s, or None."""
    if "SliceTiming" not in metadata:
        return None
    given = metadata["SliceTiming"]
    times = _numbers(given)
    if times is None:
        raise InputError(f"SliceTiming of {name} must list numbers of s; got {_short(given)}.")
    if times.min() < -_ROUNDING or times.max() > acquisition + _ROUNDING:
        in_ms = " (in ms?)" if times.max() > _LONGEST_T_R else ""
        raise InputError(
            f"SliceTiming of {name} must lie in [0, {acquisition:g}] s, the time of one volume; "
            f"got {times.min():g} to {times.max():g}{in_ms}."
        )
    if recorded is not None:
        direction = str(metadata.get("SliceEncodingDirection", "k")).rstrip("-")
        n_slices = dict(zip("ijk", recorded.shape, strict=True)).get(direction, len(times))
        if len(times) != n_slices:
            raise InputError(
                f"SliceTiming of {name} must have one value for each of the {n_slices} slices of "
                f"{recorded.name}; got {len(times)}."
            )
    return times


def _against_headers(t_r, metadata, header_t_r, recorded):
    """Remark where a header says another repetition time than the sidecar, which is used."""
    if "RepetitionTime" not in metadata:
        return ()
    headers = {"preprocessed": header_t_r, "raw": recorded.t_r if recorded else None}
    other = [
        f"{value:g} s in the {kind} image's header"
        for kind, value in headers.items()
        if value and abs(value - t_r) > _HEADER_TOLERANCE * t_r
    ]
    if not other:
        return ()
    return (("RepetitionTime", f"{t_r:g} s in the sidecar, {' and '.join(other)}"),)
