"""What an analysis will cost, from the sizes of the data and what was measured.

An estimate is right to a factor of a few, as machines and data differ: enough to tell minutes from
days, and a laptop from a cluster. What it rests on stands beside each constant.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from brainnrds.analyses.design import (
    choose_design,
    choose_folds,
    find_test_films,
    plan_samples_of,
)
from brainnrds.analyses.fit import number_of_mixtures
from brainnrds.analyses.held_out import models_to_fit
from brainnrds.analyses.options import EncodeOptions, ReanimateOptions
from brainnrds.io.trials import trials_of

__all__ = ["Estimate", "estimate", "estimate_decode", "estimate_encode", "seconds_of_footage"]

# what runs without a network, and its columns
_COLUMNS = {"motion-energy": 1134, "static-energy": 315}
_COLUMNS_OF_A_NETWORK = 1024

# Python with its packages, figures included
_BASE_BYTES = 0.9 * 2**30
# doc/benchmarks/banded_ridge_cpu.json: one search on two threads
_SEARCH_SECONDS, _SEARCH_SAMPLES, _SEARCH_VOXELS, _SEARCH_MIXTURES = 16.0, 1000, 5000, 20
# what does not grow with the voxels: eigenvectors, as the time of so many voxels at 1,000 samples
_VOXELS_OF_EIGENVECTORS = 1500
# motion and static energy of clips of a second or two, decoded from small films, on one core
_CLIPS_PER_SECOND = 60.0
# starting, tests of few voxels, figures and report
_FIXED_SECONDS = 25.0
_TAIL_SECONDS = 16.0  # of `load_runs`
# a film's features, in a file of each network, beyond the numbers: HDF5's own; most of what short
# clips take (disk in doc/proofs/data_sets.json rests on it)
_FEATURE_FILE_BYTES = 8.2e3

# doc/proofs/memory.json: decode and reanimate beyond the packages, times the BOLD
_DECODING_TIMES_BOLD = 2.75
# weights of one network of the default width and 2,000 voxels, as they are kept
_NETWORK_BYTES = 44.3e6
# doc/benchmarks/decoding_epochs.json: a clip in one epoch, on one core, by places of flow
_EPOCH_SECONDS, _EPOCH_PLACES, _EPOCH_POWER = 23.8e-3, 32 * 32 * 3, 1.09
_CORES = 1.7  # what two cores do to it
_TRAINING_SHARE = 2 / 3  # of the clips; at least half
# first frames of a clip: colours on a grid, or patches of a network
_FRAME_COLUMNS, _FRAME_COLUMNS_OF_A_NETWORK = 768, 768 * 16 * 16
# doc/benchmarks/reanimation_splat.json: a clip of 14 frames of 320 x 576 px, on two threads
_SPLAT_SECONDS, _SPLAT_PIXELS = 0.44, 14 * 320 * 576
_FRAME_PIXELS = 240 * 320  # of films whose frames are rendered in their own size
_N_SOURCES = 6  # of flow: decoded, permuted, another clip's, image alone, zero, true


@dataclass(frozen=True)
class Estimate:
    """What an analysis of one participant will cost.

    Attributes
    ----------
    analysis : str
    n_samples, n_voxels, n_clips : int
    memory, disk : float
        Peak of the process, and what the work folder will hold; bytes.
    seconds : float or None
        None: networks are to be run, whose speed on this machine is not known. Trainings are
        counted as if none ended before its last epoch.
    """

    analysis: str
    n_samples: int
    n_voxels: int
    n_clips: int
    memory: float
    disk: float
    seconds: float | None

    def __str__(self):
        time = (
            "time is not known, as networks are to be run (doc: what it costs)"
            if self.seconds is None
            else f"{_words(self.seconds)} on two cores"
        )
        return (
            f"estimate for {self.analysis}, good to a factor of 4: {self.memory / 2**30:.1f} GiB "
            f"of memory, {self.disk / 2**30:.2g} GiB in the work folder; {time}. It rests on "
            f"{self.n_samples:,} samples x {self.n_voxels:,} voxels, {self.n_clips:,} clips, and "
            "on what the page of costs has measured"
        )


def _words(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate_encode(runs, options, *, n_voxels=None):
    """Estimate what an encoding of one participant will cost.

    Parameters
    ----------
    runs : list of Run
        Of one participant, as `find_runs` found them.
    options : EncodeOptions
    n_voxels : int or None, default=None
        Voxels of the brain mask; None: all of the grid.

    Returns
    -------
    estimate : Estimate
    """
    n_voxels = n_voxels or _size(runs[0].grid)
    once, shown, n_clips = _count(runs, options)
    n_shown = sum(shown.values())
    has_repeats = n_shown > sum(once.values())
    plan = plan_samples_of(runs, options)
    n_samples = len(plan.films)
    n_folds, n_training, n_predicted = _split(plan, options)
    compared, encoders, controls = models_to_fit(options)
    models = {**encoders, **compared, **controls}
    # predictions of each model, and the joint model's parts
    n_arrays = len(models) + len(compared["joint"])
    spaces = set().union(*models.values())
    columns = sum(
        _COLUMNS.get(name, _COLUMNS_OF_A_NETWORK)
        for name in (*options.video_encoders, *options.image_encoders)
    )
    projected = min(columns, (options.n_components or columns) * len(spaces))
    bold = 4.0 * n_samples * n_voxels
    n_delays = len(options.delays_seconds or ()) or max(1, int(8 / runs[0].t_r) + 1)
    if choose_design(runs, options)[0] == "trials":
        n_delays = 1
    n_films = len({film.film for run in runs for film in run.films})
    kernel = 8.0 * n_samples**2 * len(spaces)
    disk = n_arrays * 4.0 * n_predicted * n_voxels + 4.0 * n_clips * columns
    disk += _FEATURE_FILE_BYTES * n_films * len(spaces)
    if options.keep_model:
        disk += 4.0 * n_voxels * min(n_samples, projected * n_delays)
    memory = _BASE_BYTES + (1 + n_arrays) * bold + 4.0 * n_shown * n_voxels * has_repeats
    memory += 2 * kernel + 8.0 * n_samples * projected * n_delays
    seconds = None
    if set((*options.video_encoders, *options.image_encoders)) <= set(_COLUMNS):
        searched, share = _count_mixtures(models, options, n_folds), n_training / _SEARCH_SAMPLES
        one = (share**2) * (n_voxels + _VOXELS_OF_EIGENVECTORS * share) / _SEARCH_VOXELS
        seconds = _FIXED_SECONDS + n_clips / _CLIPS_PER_SECOND
        seconds += searched * one * _SEARCH_SECONDS / _SEARCH_MIXTURES
    return Estimate("encode", n_samples, n_voxels, n_clips, memory, disk, seconds)


def _split(plan, options):
    """Folds, or None of named test films; samples a fit is trained on; those that are predicted."""
    counted = plan.films >= 0
    tested = find_test_films(options.test_films, plan.film_names)
    if tested is None:
        n_folds = choose_folds(options.n_folds, plan.n_units)
        return n_folds, counted.sum() * (n_folds - 1) / n_folds, len(plan.films)
    is_tested = np.isin(plan.films, tested)
    # runs as they are after averaging: a film that several showed may be one of its own
    beside = np.isin(plan.runs, plan.runs[is_tested])
    return None, int((counted & ~is_tested).sum()), int(beside.sum())


def _count_mixtures(models, options, n_folds):
    """Mixtures of feature spaces that are tried in all fits of an encoding together."""
    tried = {
        name: number_of_mixtures(options, used) if len(used) > 1 else 1
        for name, used in models.items()
    }
    if n_folds is None:  # one fit each, and the joint model's is the one that is kept
        return sum(tried.values())
    return n_folds * sum(tried.values()) + tried["joint"] * options.keep_model


def estimate_decode(runs, options, *, n_voxels=None):
    """Estimate what decoding the motion that one participant saw will cost, and reanimating it.

    Parameters
    ----------
    runs : list of Run
        Of one participant, as `find_runs` found them.
    options : DecodeOptions or ReanimateOptions
    n_voxels : int or None, default=None
        Voxels of the brain mask; None: all of the grid.

    Returns
    -------
    estimate : Estimate
    """
    n_voxels = n_voxels or _size(runs[0].grid)
    once, shown, n_clips = _count(runs, options)
    n_samples, n_shown = sum(once.values()), sum(shown.values())
    n_trained = _TRAINING_SHARE * n_clips
    if options.repeats == "concatenate":
        n_trained *= n_shown / n_samples
        n_samples = n_shown
    # fitted to presentations one by one, which are in memory before they are averaged
    memory = _BASE_BYTES + _DECODING_TIMES_BOLD * 4.0 * n_shown * n_voxels
    places = options.n_steps * options.grid[0] * options.grid[1]
    own_frames = options.image_encoder == "frame-grid"
    columns = _FRAME_COLUMNS if own_frames else _FRAME_COLUMNS_OF_A_NETWORK
    n_networks = options.n_seeds + options.n_draws + 1  # image alone
    disk = n_networks * _NETWORK_BYTES + 4.0 * n_clips * (2 * places + columns)
    memory += n_networks * _NETWORK_BYTES + 4.0 * n_samples * (2 * places + columns)
    seconds = None
    if own_frames and options.flow_method == "dis":
        of_clip = _EPOCH_SECONDS * (places / _EPOCH_PLACES) ** _EPOCH_POWER
        seconds = _FIXED_SECONDS + n_clips / _CLIPS_PER_SECOND
        seconds += n_networks * options.n_epochs * n_trained * of_clip / _CORES
    if not isinstance(options, ReanimateOptions):
        return Estimate("decode", n_samples, n_voxels, n_clips, memory, disk, seconds)
    n_rendered = min(n_clips, options.max_clips or n_clips)
    pixels = options.n_frames * int(np.prod(options.size or (_FRAME_PIXELS,)))
    if seconds is not None and options.renderer == "splat":
        seconds += _N_SOURCES * n_rendered * _SPLAT_SECONDS * pixels / _SPLAT_PIXELS
    else:
        seconds = None
    return Estimate("reanimate", n_samples, n_voxels, n_clips, memory, disk, seconds)


def estimate(runs, options, *, n_voxels=None):
    """Estimate what an analysis will cost by its options; see `estimate_encode`."""
    what = estimate_encode if isinstance(options, EncodeOptions) else estimate_decode
    return what(runs, options, n_voxels=n_voxels)


def _size(grid):
    """Voxels, vertices or grayordinates of a grid."""
    if grid[0] == "volume":
        return int(np.prod(grid[1]))
    return int(grid[1] + grid[2]) if grid[0] == "surface" else int(grid[1])


def _count(runs, options):
    """Samples of each film with repeats averaged, and without; clips whose features are computed.

    Samples are volumes on a film and in its tail, or trials, each a clip of its own.
    """
    if choose_design(runs, options)[0] == "trials":
        shown = Counter(film.film for _, film in trials_of(runs))
        return dict.fromkeys(shown, 1), shown, len(shown)
    once, shown = {}, Counter()
    for run in runs:
        times = run.start_time + run.t_r * np.arange(run.n_volumes)
        ends = [film.onset for film in run.films[1:]] + [np.inf]
        for film, end in zip(run.films, ends, strict=True):
            last = min(film.onset + film.duration + _TAIL_SECONDS, end)
            n = int(((times >= film.onset) & (times < last)).sum())
            once[film.film] = max(once.get(film.film, 0), n)
            shown[film.film] += n
    return once, shown, int(seconds_of_footage(runs) / runs[0].t_r)


def seconds_of_footage(runs):
    """Seconds of what is shown of all films, each moment once.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    seconds : float
    """
    stretches = sorted((str(f.stim_file), *f.footage) for run in runs for f in run.films)
    seconds, last, end = 0.0, None, 0.0
    for path, start, until in stretches:
        end = end if path == last else 0.0
        seconds += max(0.0, until - max(start, end))
        last, end = path, max(end, until)
    return seconds
