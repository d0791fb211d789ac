"""What every analysis decides before it computes: design, delays, test films and test labels."""

import math
import warnings

import numpy as np
from sklearn.utils import Bunch

from brainnrds._checks import InputError
from brainnrds.blocks import SHORTEST_BLOCK
from brainnrds.encoding.dependence import integrated_autocorrelation_time
from brainnrds.encoding.scores import runs_by_fold, standardized_series
from brainnrds.films import film_groups
from brainnrds.io import find_design, load_runs, load_trials
from brainnrds.io.bold import plan_shown
from brainnrds.io.film_parts import groups_of_films
from brainnrds.io.samples import find_films
from brainnrds.io.trials import clip_seconds, plan_trials, trials_of

__all__ = [
    "announce_design",
    "check_can_hold_out",
    "check_folds",
    "check_test_films",
    "choose_delays",
    "choose_design",
    "choose_folds",
    "count_units",
    "decoding_block",
    "describe_design",
    "find_test_films",
    "labels_for_tests",
    "load_samples",
    "plan_samples_of",
    "round_delays",
    "seconds_of_clips",
    "trial_block",
]

# by default, over the film groups
_MOST_FOLDS = 5
# voxels in which dependence between trials is measured
_SOME_VOXELS = 512
# of a unit that changes places: with more, tables of all pairs would fill the memory
_MOST_BLOCKS = 100
# what only one design can do: field -> its words
_OF_CONTINUOUS = {
    "delays_seconds": "--delays-seconds",
    "trim_onset": "--trim-onset",
    "predicted": "--predicted",
}
_OF_TRIALS = {"trial_model": "--trial-model", "hrf_model": "--hrf-model"}


def choose_design(runs, options):
    """Say whether samples are volumes or trials, and refuse what does not fit that.

    Parameters
    ----------
    runs : list of Run
    options : Preparation

    Returns
    -------
    design : {"continuous", "trials"}
    line : str or None
        What to tell, where the design was not asked for and is not the usual one.

    Raises
    ------
    InputError
        An option of the other design.
    """
    found, seconds = find_design(runs)
    design = options.design or found
    other = _OF_CONTINUOUS if design == "trials" else _OF_TRIALS
    default = type(options)()
    for field, flag in other.items():
        if getattr(options, field, None) != getattr(default, field, None):
            raise InputError(
                f"{flag} is for a {'continuous' if design == 'trials' else 'trial'} design; this "
                f"is {'one of trials' if design == 'trials' else 'a continuous one'} (films are "
                f"shown for {seconds:.3g} s on average; --design says otherwise)."
            )
    if options.design is not None or design == "continuous":
        return design, None
    return design, (
        f"films are shown for {seconds:.3g} s on average: a trial design, one response to each "
        "clip (--design continuous: volume by volume)"
    )


def announce_design(record, options):
    """Say which design was found, in a line, where that was not asked for.

    Parameters
    ----------
    record : Record
    options : Preparation

    Raises
    ------
    InputError
        As `choose_design`.
    """
    _, line = choose_design(record.runs, options)
    if line is not None:
        record.say(line)


def load_samples(runs, options, *, repeats="average", verbose=0):
    """Load volumes or trials, as the design is.

    Parameters
    ----------
    runs : list of Run
    options : Preparation
    repeats : {"average", "concatenate"}, default="average"
    verbose : int, default=0

    Returns
    -------
    data : MovieData
    """
    if choose_design(runs, options)[0] == "trials":
        return load_trials(runs, repeats=repeats, verbose=verbose, **options.trial_keywords())
    return load_runs(runs, repeats=repeats, verbose=verbose, **options.keywords())


def seconds_of_clips(runs, options):
    """Say how long what a sample is a response to lasts, in s, before BOLD is read.

    Parameters
    ----------
    runs : list of Run
    options : Preparation

    Returns
    -------
    seconds : float
    """
    is_trials = choose_design(runs, options)[0] == "trials"
    return clip_seconds(runs) if is_trials else runs[0].t_r


def describe_design(data, options):
    """Say what samples are, for sidecars, the record and the methods text.

    Parameters
    ----------
    data : MovieData
    options : Preparation

    Returns
    -------
    described : dict
    """
    described = {"design": data.design, "clip_duration": data.clip_duration}
    if data.design == "trials":
        described |= {
            "trial_model": options.trial_model,
            "hrf_model": options.hrf_model,
            "trial_spacing": data.spacing,
            # runs, or stretches of them, whose clips are of one unit; else each clip alone
            "held_out_together": "runs" if data.runs.any() else "clips",
        }
    return described


def choose_delays(data, seconds):
    """Return delays in volumes: those asked for, or what covers the response; of trials, 0.

    Parameters
    ----------
    data : MovieData
    seconds : sequence of float or None

    Returns
    -------
    delays : list of int
    """
    return data.delays if seconds is None else round_delays(seconds, data.t_r)


def trial_block(series, runs):
    """Say how many neighbouring trials are one block, for tests and intervals.

    Volumes are blocks of 40 s and more because BOLD and films go on. Trials come in an order that
    was drawn: a trial, or a clip with all of its repeats, changes places alone, unless what is
    tested is correlated between neighbours.

    Parameters
    ----------
    series : array of shape (n_trials, n_voxels)
        What is summed in blocks, in the order of the trials.
    runs : array of int of shape (n_trials,)

    Returns
    -------
    length : int
        Four times what the integrated autocorrelation time exceeds one trial, at least 1; more
        where a run would have over 100 blocks.
    """
    time = integrated_autocorrelation_time(series, runs=runs)
    longest = np.unique(runs, return_counts=True)[1].max()
    return max(1, math.ceil(4 * (time - 1) - 0.5), math.ceil(longest / _MOST_BLOCKS))


def labels_for_tests(data, predictions, folds):
    """Labels and block length by which held-out predictions are scored and tested.

    Parameters
    ----------
    data : MovieData
        Averaged over repeats.
    predictions : list of arrays of shape (n_samples, n_voxels)
        In whose match with the response dependence between trials is measured.
    folds : array of int of shape (n_samples,)

    Returns
    -------
    labels : dict
        ``t_r``, ``runs``, ``films`` and ``block_duration``, as the tests take them. Of trials, all
        that one fold predicted of a unit may change places.
    """
    if data.design == "continuous":
        labels = {"t_r": data.t_r, "runs": data.runs, "films": data.films}
        return {**labels, "block_duration": None}
    runs = runs_by_fold(data.runs, folds)
    some = np.unique(np.linspace(0, data.bold.shape[1] - 1, _SOME_VOXELS).astype(int))
    tested = folds >= 0
    lengths = []
    for prediction in predictions:
        y, (p,) = standardized_series(
            data.bold[:, some], [np.asarray(prediction)[:, some]], runs=data.runs, folds=folds
        )
        lengths.append(trial_block(y * p, runs[tested]))
    block = max(lengths) * data.spacing
    return {"t_r": data.spacing, "runs": runs, "films": runs, "block_duration": block}


def check_test_films(runs, options):
    """Refuse test films that are not there, and an analysis that could hold out none.

    Parameters
    ----------
    runs : list of Run
        Of one participant.
    options : Preparation

    Raises
    ------
    InputError
    """
    films = list(dict.fromkeys(film.film for run in runs for film in run.films))
    find_test_films(options.test_films, films)
    if options.test_films:
        return
    if choose_design(runs, options)[0] == "continuous":
        groups = groups_of_films(runs, films)
    else:
        groups = plan_trials(trials_of(runs)).units
    check_can_hold_out(groups, films)


def check_can_hold_out(groups, film_names):
    """Refuse an analysis where no film can be held out.

    Parameters
    ----------
    groups : int array of shape (n_films,)
        What no split may separate has the same label.
    film_names : list of str

    Raises
    ------
    InputError
        All films are one group.
    """
    if len(np.unique(groups)) < 2:
        more = f" and {len(film_names) - 1} more" if len(film_names) > 1 else ""
        raise InputError(
            "A film must be held out for tests, so at least two that no split must keep together "
            f"are needed; got one film group ({film_names[0]}{more})."
        )


def check_folds(runs, options):
    """Refuse more folds than can be held out, before BOLD is read.

    Parameters
    ----------
    runs : list of Run
        Of one participant.
    options : EncodeOptions

    Raises
    ------
    InputError
        As `choose_folds`, and as `plan_samples_of`.
    """
    if options.n_folds is not None and not options.test_films:
        choose_folds(options.n_folds, plan_samples_of(runs, options).n_units)


def choose_folds(n_folds, n_units):
    """Return over how many folds film groups are spread, or refuse more than there are.

    Parameters
    ----------
    n_folds : int or None
        As asked for; None: a fold for each, but five at most.
    n_units : int
        Of `count_units`.

    Returns
    -------
    n_folds : int

    Raises
    ------
    InputError
    """
    n_folds = min(_MOST_FOLDS, n_units) if n_folds is None else n_folds
    if not 2 <= n_folds <= n_units:
        raise InputError(
            f"--n-folds must be between 2 and the number of film groups, {n_units}; got {n_folds}."
        )
    return n_folds


def plan_samples_of(runs, options):
    """Say which samples there will be by what is shown alone: no file of the runs is read.

    As if no volume was scrubbed and every trial could be estimated.

    Parameters
    ----------
    runs : list of Run
        Of one participant.
    options : Preparation

    Returns
    -------
    plan : Bunch
        ``film_names``; ``films`` and ``runs`` of shape (n_samples,), as of `MovieData`; and
        ``n_units``, of `count_units`.

    Raises
    ------
    InputError
        As `plan_shown` and `plan_trials`.
    """
    if choose_design(runs, options)[0] == "trials":
        shown = trials_of(runs)
        trials = plan_trials(shown)
        films = np.arange(len(trials.names))
        if options.repeats == "concatenate":
            index = {name: i for i, name in enumerate(trials.names)}
            films = np.array([index[film.film] for _, film in shown])
        n_units = len(np.unique(trials.units))
        # of trials all are predicted: no run is left out
        return Bunch(
            film_names=trials.names, films=films, runs=np.zeros_like(films), n_units=n_units
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading says it
        data = plan_shown(runs, repeats=options.repeats, trim_onset=options.trim_onset).data
    return Bunch(
        film_names=data.film_names, films=data.films, runs=data.runs, n_units=count_units(data)
    )


def count_units(data):
    """Count the units of every split: film groups, as far as runs do not tie them.

    Parameters
    ----------
    data : MovieData
        With or without BOLD.

    Returns
    -------
    n_units : int
    """
    counted = data.films >= 0
    n_units = len(np.unique(film_groups(data.runs, data.groups)[counted]))
    return n_units if n_units > 1 else len(np.unique(data.groups[counted]))


def decoding_block(data, test):
    """Seconds of neighbouring samples that are one block in tests of decoded motion.

    Parameters
    ----------
    data : MovieData
    test : bool array of shape (n_samples,)

    Returns
    -------
    seconds : float
    """
    if data.design == "continuous":
        return SHORTEST_BLOCK
    some = np.unique(np.linspace(0, data.bold.shape[1] - 1, _SOME_VOXELS).astype(int))
    bold = data.bold[test][:, some]
    return trial_block(bold - bold.mean(axis=0), data.runs[test]) * data.spacing


def round_delays(seconds, t_r):
    """Round delays to volumes; warn when one is off by over a quarter volume.

    Parameters
    ----------
    seconds : sequence of float
        In s.
    t_r : float
        Repetition time in s.

    Returns
    -------
    delays : list of int
        In volumes, ascending, each once.
    """
    wanted = np.asarray(seconds, dtype=float)
    delays = np.round(wanted / t_r).astype(int)
    off = np.abs(delays * t_r - wanted).max()
    if off > t_r / 4:
        warnings.warn(
            f"delays of {wanted.tolist()} s are rounded to volumes of {t_r:g} s: up to {off:.2g} s "
            "off.",
            stacklevel=3,
        )
    return sorted(set(delays.tolist()))


def find_test_films(names, film_names):
    """Find the films for testing by their names, with or without extension.

    Parameters
    ----------
    names : list of str or None
    film_names : list of str

    Returns
    -------
    films : list of int or None
        Indices into `film_names`; None where no names are given.

    Raises
    ------
    InputError
        An unknown film, or no film left for training.
    """
    if not names:
        return None
    found = find_films(names, film_names)
    if len(found) == len(film_names):
        raise InputError("--test-films must leave films for training; got all of them.")
    return found
