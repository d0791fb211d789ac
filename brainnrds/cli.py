"""The BIDS App: ``brainnrds <bids_dir> <output_dir> {participant,group} --analysis encode``.

This module parses, calls `brainnrds.analyses` and tells how it went; the options themselves stand
in `brainnrds.analyses.options`. Heavy imports wait until the arguments are known to be good.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
import textwrap
import traceback
import warnings
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import brainnrds
from brainnrds import _environment

for line in _environment.settle():  # before libraries are imported
    print(f"brainnrds: {line}", file=sys.stderr)

from brainnrds._checks import InputError  # noqa: E402
from brainnrds.analyses.options import (  # noqa: E402
    DecodeOptions,
    EncodeGroupOptions,
    EncodeOptions,
    GroupOptions,
    PredictOptions,
    Preparation,
    ReanimateOptions,
    Selection,
    TransferOptions,
    add_arguments,
    deciding_values,
    flags,
    label,
    read_arguments,
)

__all__ = ["main", "main_features", "main_predict", "main_validate"]

EXIT_OK, EXIT_CRASH, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
#: Fields of a selection that say what runs show: they matter once runs are looked into.
_OF_RUNS = ("films", "stimuli", "film_groups", "strict")
#: Options of `encode` that say what its features are.
_OF_FEATURES = (
    "video_encoders",
    "image_encoders",
    "feature_spaces",
    "control_spaces",
    "video_control",
    "transcript",
    "film_reader",
    "mask",
    "repeats",
    "trim_onset",
    "device",
    "n_jobs",
)
#: Options of each analysis, whose functions are `<analysis>_participant` and `<analysis>_group`.
OPTIONS = {
    "encode": EncodeOptions,
    "decode": DecodeOptions,
    "transfer": TransferOptions,
    "reanimate": ReanimateOptions,
}
GROUP_OPTIONS = {**dict.fromkeys(OPTIONS, GroupOptions), "encode": EncodeGroupOptions}


class _Parser(argparse.ArgumentParser):
    """Bad arguments are bad input: one line."""

    def error(self, message):
        raise InputError(f"{message} (see {self.prog} --help)")


def make_parser(analysis):
    """Make the parser of one analysis.

    Parameters
    ----------
    analysis : {"encode", "decode", "transfer", "reanimate"}

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    parser = _Parser(
        prog="brainnrds",
        allow_abbrev=False,
        description="Predict brain activity from video, decode motion from BOLD, reanimate still "
        f"frames: for any BIDS data set of people watching video. Options of {analysis}:",
        epilog="Options of another analysis: brainnrds --analysis "
        f"{{{','.join(name for name in OPTIONS if name != analysis)}}} --help",
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS data set with the raw events and stimuli")
    parser.add_argument("output_dir", type=Path, help="where the derivatives go")
    parser.add_argument("analysis_level", choices=["participant", "group"])
    parser.add_argument("--analysis", choices=list(OPTIONS), default="encode", help="(encode)")
    _add_participants(add_arguments(parser, Selection)[0])
    _add_recipe(parser)
    add_arguments(parser, OPTIONS[analysis], GROUP_OPTIONS[analysis])
    group = parser.add_argument_group("the App")
    _add_work_dir(group)
    group.add_argument(
        "--dask-scheduler",
        metavar="ADDRESS",
        help="share films, voxels and participants between the workers of this Dask cluster (needs "
        "brainnrds[distributed])",
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="do not go on with the next participant"
    )
    group.add_argument(
        "--reports-only", action="store_true", help="make the reports again from finished results"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="say what would be used, run by run, and stop"
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    group.add_argument("--version", action="version", version=f"brainnrds {brainnrds.__version__}")
    return parser


def _add_recipe(parser):
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="options and film table of a public data set, where they are not given; names: "
        "brainnrds.datasets.list_recipes()",
    )


def _follow_recipe(parser, parsed):
    """Fill in the options that were left at their defaults from a recipe."""
    if parsed.recipe is None:
        return
    from brainnrds.datasets import load_recipe

    recipe = load_recipe(parsed.recipe, parsed.bids_dir)
    # results are all that the group level reads
    read = flags(Selection) if getattr(parsed, "analysis_level", None) == "group" else vars(parsed)
    for name, value in recipe.options.items():
        if name in read and getattr(parsed, name) == parser.get_default(name):
            setattr(parsed, name, value)


def _add_participants(group):
    group.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        type=label("sub"),
        metavar="LABEL",
        help="participants to analyse (all)",
    )


def _analysis(argv):
    """Which analysis is asked for: the options follow from it."""
    first = _Parser(prog="brainnrds", add_help=False, allow_abbrev=False)
    first.add_argument("--analysis", choices=list(OPTIONS), default="encode")
    return first.parse_known_args(argv)[0].analysis


def parse(argv):
    """Read the command line.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    parsed : argparse.Namespace
    options : dataclass of the analysis, or of its group level
    selection : Selection

    Raises
    ------
    InputError
        An argument that is wrong, unknown, or of another analysis or level.
    """
    analysis = _analysis(argv)
    parser = make_parser(analysis)
    parsed, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("-"):
            raise InputError(f"one value too many: {' '.join(unknown)} (see brainnrds --help).")
        homes = [other for other, kind in OPTIONS.items() if name in flags(kind).values()]
        told = " and ".join(filter(None, [", ".join(homes[:-1]), *homes[-1:]]))
        reason = f"an option of --analysis {told}, not of {analysis}"
        if not homes:
            known = [flag for action in parser._actions for flag in action.option_strings]
            nearest = difflib.get_close_matches(name, known, n=1)
            reason = "no option" + "".join(f"; did you mean {flag}?" for flag in nearest)
        raise InputError(f"{name} is {reason} (see brainnrds --help).")
    _follow_recipe(parser, parsed)
    selection = read_arguments(Selection, parsed, bids_dir=parsed.bids_dir)
    kind, of_group = OPTIONS[analysis], GROUP_OPTIONS[analysis]
    if parsed.analysis_level == "participant":
        for name in flags(of_group).keys() - flags(kind).keys():
            if getattr(parsed, name) != getattr(of_group(), name):
                raise InputError(f"{flags(of_group)[name]} is an option of the group level.")
        return parsed, read_arguments(kind, parsed), selection
    chosen, default = deciding_values(read_arguments(kind, parsed)), deciding_values(kind())
    for name in chosen:  # how to run, which decides nothing, is harmless here
        if name not in flags(of_group) and chosen[name] != default[name]:
            raise InputError(f"{flags(kind)[name]} is no option of the group level.")
    for name in flags(of_group):  # the levels have defaults of their own
        if name in chosen and chosen[name] == default[name]:
            setattr(parsed, name, getattr(of_group(), name))
    return parsed, read_arguments(of_group, parsed), selection


def main(argv=None):
    """Run the BIDS App.

    Parameters
    ----------
    argv : list of str or None, default=None
        None: the command line.

    Returns
    -------
    code : int
        0 done; 1 a crash, with a crash file under ``<output_dir>/logs``; 2 bad input, one line on
        stderr and nothing written; 130 interrupted.
    """
    parsed = None
    as_before, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        argv = sys.argv[1:] if argv is None else argv
        _check_text(argv)
        parsed, options, selection = parse(argv)
        _check_places(parsed, selection)
        if parsed.dry_run:
            return _dry_run(parsed, selection, options)
        if parsed.reports_only:
            return _reports_only(parsed)
        with _cluster(parsed.dask_scheduler):
            if parsed.analysis_level == "group":
                return _group(parsed, options, selection)
            return _participants(parsed, options, selection)
    except InputError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("brainnrds: interrupted; finished steps are kept in the work folder", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our lines has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 : closed with the process
        print("brainnrds: standard output was closed; finished steps are kept", file=sys.stderr)
        return EXIT_CRASH
    except Exception as error:
        return _fail(parsed, None, error, traceback.format_exc())
    finally:
        warnings.formatwarning = as_before


def _check_text(argv):
    """Refuse names that are not UTF-8: records and reports hold them."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"Arguments must be UTF-8 (in a locale of ASCII alone, set PYTHONUTF8=1); got "
                f"{word[:80]!a}."
            ) from None


def _check_places(parsed, selection):
    """Nothing is written into the data set or the preprocessed data, and all can be written."""
    from brainnrds._files import check_writable
    from brainnrds.io import check_output_dir

    places = {
        "": None if parsed.dry_run else parsed.output_dir,
        "--work-dir: ": parsed.work_dir,
        "--bids-database-dir: ": selection.database_path,
    }
    for option, path in places.items():
        if path is None:
            continue
        try:
            check_output_dir(path, selection.bids_dir, derivatives=selection.derivatives)
            if not parsed.dry_run:
                check_writable(path)
        except InputError as error:
            raise InputError(f"{option}{error}") from error


def _function(analysis, level):
    module = f"brainnrds.analyses.{analysis}{'_group' if level == 'group' else ''}"
    return getattr(importlib.import_module(module), f"{analysis}_{level}")


def _group(parsed, options, selection):
    result = _function(parsed.analysis, "group")(
        parsed.output_dir,
        options,
        subjects=parsed.participant_label,
        space=selection.space,
        selection=selection,
        work_dir=parsed.work_dir,
    )
    _announce(result, "group")
    return EXIT_OK


def _participants(parsed, options, selection):
    """Analyse one participant after the other; a crash of one does not stop the others."""
    from brainnrds.io import list_subjects

    looked_for = selection.keywords()
    for name in _OF_RUNS:
        del looked_for[name]
    subjects = parsed.participant_label or list_subjects(parsed.bids_dir, **looked_for)
    worst = EXIT_OK
    outcomes = _outcomes(parsed, options, selection, subjects)
    for subject, (result, error, details) in zip(subjects, outcomes, strict=True):
        if error is None:
            _announce(result, f"sub-{subject}")
            continue
        is_refused = isinstance(error, InputError)
        worst = max(worst, _refuse(error) if is_refused else _fail(parsed, subject, error, details))
        if parsed.stop_on_first_crash:
            break
    return worst


def _outcomes(parsed, options, selection, subjects):
    """Yield what `_attempt` returns for each participant, on a cluster of several at once.

    On a cluster the first goes alone, with its films and voxels shared between the workers: the
    others then find the features of the films that all have seen. They go one to a worker, unless
    there are fewer of them than workers.
    """
    if parsed.dask_scheduler is None:
        yield from (_attempt(parsed, options, selection, subject) for subject in subjects)
        return
    import joblib

    first, *others = subjects
    yield _attempt(parsed, options, selection, first)
    if len(others) < joblib.effective_n_jobs():
        yield from (_attempt(parsed, options, selection, subject) for subject in others)
        return
    # a worker may run elsewhere
    parsed, selection = _absolute(parsed), _absolute(selection)
    run = joblib.Parallel(return_as="generator")
    task = joblib.delayed(_attempt_on_a_worker)
    yield from run(task(parsed, options, selection, subject) for subject in others)


def _absolute(values):
    return type(values)(
        **{k: v.resolve() if isinstance(v, Path) else v for k, v in vars(values).items()}
    )


def _attempt_on_a_worker(parsed, options, selection, subject):
    """As `_attempt`, with nothing handed on to other workers."""
    import joblib

    with joblib.parallel_config("sequential"):
        result, error, details = _attempt(parsed, options, selection, subject)
    # not every exception can be sent: one that could not would end the other participants' work
    if error is not None and type(error).__module__.split(".")[0] not in ("builtins", "brainnrds"):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return result, error, details


def _attempt(parsed, options, selection, subject):
    """Analyse a participant: (result, None, None), or (None, error, traceback as text)."""
    try:
        result = _function(parsed.analysis, "participant")(
            selection, parsed.output_dir, subject, options, work_dir=parsed.work_dir
        )
        return result, None, None
    except BrokenPipeError:  # nobody reads what is done
        raise
    except Exception as error:
        return None, error, traceback.format_exc()


def _format_warning(message, category, filename, lineno, line=None):
    """Our own warnings in a line, without the place in the code."""
    if "brainnrds" in Path(filename).parts:
        return f"brainnrds: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _announce(result, name):
    """Print the tables, or what fits on a terminal of them, and where the report is."""
    print(f"\n{name}")
    for i, table in enumerate(result.told):
        if i > 0:
            print()
        counts = {
            column: lambda n: "" if n != n else f"{n:.0f}"
            for column in table.columns
            if str(column).startswith("n_")
        }
        print(
            table.astype(dict.fromkeys(counts, float)).to_string(
                index=False, formatters=counts, float_format=lambda x: f"{x:.3f}", na_rep=""
            )
        )
    if result.note:
        print(textwrap.fill(result.note, 100))
    print(f"report: {result.report}", flush=True)


def _refuse(error):
    line = " ".join(str(error).split())
    for parameter, option in flags(Selection).items():
        if "_" in parameter:  # readers say `film_groups`, which is typed --film-groups
            line = line.replace(f"`{parameter}`", option)
    print(f"brainnrds: {line}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _fail(parsed, subject, error, details):
    """Tell what the user can mend, such as a full disk, from a crash."""
    mendable = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        if error.errno in mendable or said.startswith("Cannot write "):  # of atomic_path
            return _refuse(said)
    if isinstance(error, ImportError) and "pip install" in str(error):
        return _refuse(error)
    # torch's of a GPU has this name
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _refuse(f"Not enough memory: {error}")
    return _crash(parsed, subject, error, details)


def _crash(parsed, subject, error, details):
    """Write a crash file and say in one line where it is."""
    from brainnrds.io import atomic_path, derivative_path

    name = "the group" if subject is None else f"sub-{subject}"
    report = "".join(
        [
            f"brainnrds {brainnrds.__version__}, Python {sys.version}\n",
            f"{datetime.now().isoformat(timespec='seconds')}\n",
            f"arguments: {parsed and vars(parsed)}\n\n",
            details,
        ]
    )
    place = "above: it could not be written"
    # whatever goes wrong here must not hide what went wrong before
    with suppress(Exception):
        stem = f"{parsed.analysis}{datetime.now():%Y%m%dT%H%M%S}"
        path = derivative_path(parsed.output_dir, "crash", {"subject": subject, "desc": stem})
        with atomic_path(path) as temporary:
            temporary.write_text(report, encoding="utf-8")
        place = path
    if not isinstance(place, Path) or parsed.verbose:
        print(report, file=sys.stderr)
    line = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"brainnrds: {name} crashed: {line} (crash file: {place})", file=sys.stderr)
    return EXIT_CRASH


def _reports_only(parsed):
    from brainnrds.reporting import write_report

    if parsed.analysis_level == "group":
        print(f"report: {write_report(parsed.output_dir)}")
        return EXIT_OK
    subjects = parsed.participant_label or sorted(
        path.name.removeprefix("sub-") for path in parsed.output_dir.glob("sub-*") if path.is_dir()
    )
    if not subjects:
        raise InputError(f"No outputs to report: expected folders sub-* in {parsed.output_dir}.")
    for subject in subjects:
        print(f"report: {write_report(parsed.output_dir, subject)}")
    return EXIT_OK


def _dry_run(parsed, selection, options, *, read=True):
    """Say what would be used; `read` confounds and masks as the run would."""
    from brainnrds._checks import check_device
    from brainnrds.analyses.encoders import make_extractors
    from brainnrds.analyses.validate import validate_dataset

    keywords = selection.keywords()
    if isinstance(options, Preparation):
        keywords |= {"mask": options.mask, "options": options}
        keywords |= {"confounds": options.confounds} if read else {}
    if isinstance(options, EncodeOptions):
        make_extractors(options, check_device(options.device))
        if options.atlas not in (None, "hcp-mmp") and not Path(options.atlas).is_file():
            raise InputError(f"--atlas must be a file; got {options.atlas}.")
    print(
        validate_dataset(selection.bids_dir, subject=parsed.participant_label, **keywords),
        flush=True,
    )
    return EXIT_OK


def _draft_films(parsed):
    from brainnrds.io import atomic_path, draft_film_table

    if parsed.write_films.exists():
        raise InputError(f"--write-films must name a new file; {parsed.write_films} is there.")
    keywords = read_arguments(Selection, parsed, bids_dir=parsed.bids_dir).keywords()
    for name in _OF_RUNS:
        del keywords[name]
    films = draft_film_table(parsed.bids_dir, subject=parsed.participant_label, **keywords)
    with atomic_path(parsed.write_films) as temporary:
        films.to_csv(temporary, sep="\t", index=False)
    print(
        f"{parsed.write_films}: {len(films)} rows. Fill in what is empty, remove what is no film, "
        f"and give --films {parsed.write_films}."
    )
    return EXIT_OK


@contextmanager
def _cluster(address):
    """Joblib's backend for the time of the analysis."""
    if address is None:
        yield
        return
    import joblib

    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ImportError("needs dask: pip install 'brainnrds[distributed]'") from error
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask-scheduler must be the address of a running scheduler; got {address}: {error}."
        ) from error
    with client, joblib.parallel_config("dask"):
        yield


def main_validate(argv=None):
    """Say what the App would use of a data set, run by run (``brainnrds-validate``).

    Parameters
    ----------
    argv : list of str or None, default=None

    Returns
    -------
    code : int
        0 usable; 2 not, with the reason in one line.
    """
    parser = _Parser(
        prog="brainnrds-validate",
        allow_abbrev=False,
        description="Say what brainnrds would use, run by run.",
    )
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument(
        "--analysis",
        choices=list(OPTIONS),
        default="encode",
        help="which is asked for, with its options (encode)",
    )
    parser.add_argument(
        "--write-films",
        type=Path,
        metavar="FILE",
        help="write a draft of a film table, to be filled in, and stop",
    )
    _add_participants(add_arguments(parser, Selection)[0])
    _add_recipe(parser)
    try:
        kind = OPTIONS[_analysis(sys.argv[1:] if argv is None else argv)]
        add_arguments(parser, kind)
        # confounds that nobody asked for are no reason to refuse
        parser.set_defaults(confounds=None)
        parsed = parser.parse_args(argv)
        _follow_recipe(parser, parsed)
        if parsed.write_films is not None:
            return _draft_films(parsed)
        read = parsed.confounds is not None
        parsed.confounds = parsed.confounds if read else kind().confounds
        selection = read_arguments(Selection, parsed, bids_dir=parsed.bids_dir)
        return _dry_run(parsed, selection, read_arguments(kind, parsed), read=read)
    except InputError as error:
        return _refuse(error)


def main_predict(argv=None):
    """Predict the BOLD of new films with a model that the App kept (``brainnrds-predict``).

    Parameters
    ----------
    argv : list of str or None, default=None

    Returns
    -------
    code : int
        0 done; 2 bad input, one line on stderr.
    """
    parser = _Parser(
        prog="brainnrds-predict",
        allow_abbrev=False,
        description="Predict the BOLD of people who watch new films, each alone, with a model that "
        "`brainnrds --analysis encode` kept.",
    )
    parser.add_argument("model", type=Path, help="..._feat-joint_desc-encode_model.h5")
    parser.add_argument("output_dir", type=Path, help="where the images of time series go")
    parser.add_argument("films", type=Path, nargs="+", help="films")
    add_arguments(parser, PredictOptions)
    _add_work_dir(parser)
    try:
        parsed = parser.parse_args(argv)
        from brainnrds.analyses.predict import predict_films

        predicted = predict_films(
            parsed.model,
            parsed.films,
            parsed.output_dir,
            read_arguments(PredictOptions, parsed),
            work_dir=parsed.work_dir,
        )
    except InputError as error:
        return _refuse(error)
    for result in predicted:
        print(f"{result.film}: {', '.join(map(str, result.files))}")
    return EXIT_OK


def main_features(argv=None):
    """Write the features of an encoding analysis as files (``brainnrds-features``).

    Parameters
    ----------
    argv : list of str or None, default=None

    Returns
    -------
    code : int
        0 done; 2 bad input, one line on stderr.
    """
    parser = _Parser(
        prog="brainnrds-features",
        allow_abbrev=False,
        description="Write the feature spaces that `brainnrds --analysis encode` would use with "
        "the same options: a folder for each, with a file for each film, which `--feature-space "
        "NAME=FOLDER` and other programs read.",
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS data set")
    parser.add_argument("output_dir", type=Path, help="where the folders go")
    _add_participants(add_arguments(parser, Selection)[0])
    add_arguments(parser, EncodeOptions, only=_OF_FEATURES)
    parser.add_argument(
        "--format", choices=("h5", "npy", "tsv", "parquet"), default="h5", help="of the files (h5)"
    )
    _add_work_dir(parser)
    try:
        parsed = parser.parse_args(argv)
        from brainnrds.analyses.export import export_features
        from brainnrds.io import list_subjects

        selection = read_arguments(Selection, parsed, bids_dir=parsed.bids_dir)
        looked_for = {k: v for k, v in selection.keywords().items() if k not in _OF_RUNS}
        paths = export_features(
            selection,
            parsed.output_dir,
            parsed.participant_label or list_subjects(parsed.bids_dir, **looked_for),
            read_arguments(EncodeOptions, parsed),
            kind=parsed.format,
            work_dir=parsed.work_dir,
        )
    except InputError as error:
        return _refuse(error)
    for path in paths:
        print(path)
    return EXIT_OK


def _add_work_dir(parser):
    parser.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        default=Path("work"),
        metavar="DIR",
        help="intermediate results; what is finished there is not done again (work)",
    )


if __name__ == "__main__":
    sys.exit(main())
