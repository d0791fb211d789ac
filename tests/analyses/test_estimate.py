"""What an encoding will cost: sizes counted by hand.

Against runs that were measured: tests/prove/prove_data_sets.py.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from brainnrds.analyses import EncodeOptions
from brainnrds.analyses.estimate import estimate_encode, seconds_of_footage
from brainnrds.io.bids import Presentation


def a_run(*films):
    """A run of 200 volumes, 2 s apart, on 100 vertices a side."""
    shown = tuple(
        Presentation(name, Path(name), onset, duration, start)
        for name, onset, duration, start in films
    )
    return SimpleNamespace(
        films=shown, n_volumes=200, t_r=2.0, start_time=1.0, grid=("surface", 100, 100, "")
    )


def test_sizes_are_those_that_were_shown():
    # 100 s and its tail of 16 s; a film that the next one ends; the same film once more
    runs = [
        a_run(("a", 10, 100, 0), ("b", 200, 60, 0)),
        a_run(("a", 10, 100, 0), ("c", 110, 50, 0)),
    ]
    found = estimate_encode(runs, EncodeOptions())
    # volumes at 1, 3, 5 ... s: of a 58 (50 in the second run, where c follows at once), b 38, c 33
    assert (found.n_samples, found.n_voxels, found.n_clips) == (58 + 38 + 33, 200, 105)
    both = estimate_encode(runs, EncodeOptions(repeats="concatenate"))
    assert both.n_samples == 58 + 38 + 50 + 33
    assert seconds_of_footage([a_run(("a", 0, 60, 0), ("a", 100, 60, 40))]) == 100


def test_what_makes_it_dearer():
    runs = [a_run(("a", 10, 100, 0), ("b", 200, 60, 0))]
    plain = estimate_encode(runs, EncodeOptions())
    mixtures = estimate_encode(runs, EncodeOptions(n_iter=100))
    assert mixtures.seconds > plain.seconds and mixtures.disk == plain.disk
    spaces = estimate_encode(runs, EncodeOptions(feature_spaces=("sound=loudness",)))
    assert spaces.disk > plain.disk and spaces.memory > plain.memory
    large = estimate_encode(runs, EncodeOptions(), n_voxels=100_000)
    assert large.memory > plain.memory and large.seconds > plain.seconds
    network = estimate_encode(runs, EncodeOptions(video_encoders=("videomae-large",)))
    assert network.seconds is None and "time is not known" in str(network)
    assert replace(plain, seconds=7200.0).seconds == 7200 and "2.0 h" in str(
        replace(plain, seconds=7200.0)
    )
