"""The BIDS App: ``brainnrds <bids_dir> <output_dir> {participant,group} --analysis encode``.

This module only parses, calls `brainnrds.analyses` and reports; heavy imports wait until the
arguments are known to be good.
"""

import argparse
import errno
import json
import os
import sys
import textwrap
import traceback
import warnings
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import brainnrds

__all__ = ["main", "main_validate"]

EXIT_OK, EXIT_CRASH, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def _label(prefix):
    """Labels are accepted with and without their BIDS prefix: ``01`` or ``sub-01``."""

    def strip(text):
        return text.removeprefix(f"{prefix}-")

    strip.__name__ = f"{prefix} label"  # named so in argparse's error message
    return strip


def _add_data_options(parser):
    group = parser.add_argument_group("which data")
    group.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        type=_label("sub"),
        metavar="LABEL",
        help="participants to analyse (default: all)",
    )
    group.add_argument(
        "--session-label", nargs="+", type=_label("ses"), metavar="LABEL", help="sessions to use"
    )
    group.add_argument("--task-id", type=_label("task"), metavar="TASK", help="the task to use")
    group.add_argument(
        "--space",
        metavar="SPACE",
        help="space of the BOLD files, e.g. fsaverage5, fsLR, MNI152NLin2009cAsym "
        "(default: the only one there is)",
    )
    group.add_argument(
        "--derivatives",
        type=Path,
        metavar="DIR",
        help="fMRIPrep-style derivatives (default: derivatives/fmriprep, or the only one)",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON with further entity filters of the BOLD files, e.g. {"bold": {"run": [1, 2]}}',
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="pybids database, made there when absent: indexing a large data set once is enough",
    )


def _add_run_options(parser):
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--device", default="auto", metavar="DEVICE", help="cpu, cuda, cuda:<n> or auto (default)"
    )
    group.add_argument(
        "--n-cpus", type=int, default=os.cpu_count(), metavar="N", help="processes for decoding"
    )
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        default=Path("work"),
        metavar="DIR",
        help="intermediate results; what is finished there is not done again (default: work)",
    )
    group.add_argument(
        "--dask-scheduler",
        metavar="ADDRESS",
        help="share films, voxels and participants between the workers of this Dask cluster (needs "
        "brainnrds[distributed])",
    )
    group.add_argument(
        "--n-permutations",
        type=int,
        metavar="N",
        help="at least 100 (default: encode 5000, decode 1000)",
    )
    group.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
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


def _add_preparation_options(parser):
    group = parser.add_argument_group("how BOLD is prepared")
    group.add_argument(
        "--confounds",
        nargs="*",
        default=["motion", "high_pass", "wm_csf"],
        metavar="STRATEGY",
        help="strategies of nilearn's load_confounds; none given: no confounds "
        "(default: motion high_pass wm_csf)",
    )
    group.add_argument(
        "--mask",
        metavar="FILE",
        help="brain mask for volumes, or 'intersection' of the runs' own (default: the runs' own, "
        "which must be equal)",
    )
    group.add_argument(
        "--repeats",
        choices=["average", "concatenate"],
        default="average",
        help="training repeats of a film; test repeats are always averaged (default: average)",
    )
    group.add_argument(
        "--delays-seconds",
        nargs="+",
        type=float,
        metavar="S",
        help="delays of the features before BOLD, rounded to volumes (default: encode 2 4 6 8; "
        "decode -8 -6 -4 -2 0, that is BOLD after the clip)",
    )
    group.add_argument(
        "--image-encoder",
        nargs="+",
        metavar="NAME",
        help="what describes single frames: a name of features.list_encoders(), a hub id or a "
        "local folder (default, no weights: encode static-energy, decode frame-grid); encode takes "
        "several, see --video-encoder",
    )
    group.add_argument(
        "--test-films",
        nargs="+",
        metavar="FILM",
        help="films for testing alone (default: every film group is held out in turn)",
    )


def _add_encode_options(parser):
    group = parser.add_argument_group("encode")
    group.add_argument(
        "--video-encoder",
        nargs="+",
        metavar="NAME",
        help="motion-energy (no weights; default) or a name of features.list_encoders(), for "
        "encode with a layer if wished (videomae-large:11); the first of several, against the "
        "first --image-encoder, makes the maps, all are compared in a table and a chart",
    )
    group.add_argument(
        "--atlas",
        metavar="FILE",
        help="label file in the space of the data (or 'hcp-mmp' on fsLR): a table per parcel; on a "
        "surface the left one of two files named alike, with hemi-L and hemi-R, lh. and rh., or "
        ".L. and .R.",
    )
    group.add_argument(
        "--solver",
        choices=["auto", "exact", "himalaya", "hyper_gradient"],
        default="auto",
        help="of the banded ridge (auto)",
    )
    group.add_argument(
        "--n-folds", type=int, metavar="N", help="outer folds (default: at most 5 film groups)"
    )
    group.add_argument(
        "--n-iter", type=int, default=7, metavar="N", help="mixtures of the joint model (7)"
    )
    group.add_argument(
        "--n-components",
        type=int,
        metavar="N",
        help="project every feature space onto N columns, fitted to the training films of each "
        "outer fold (default: no projection)",
    )
    group.add_argument(
        "--decoder",
        choices=["pyav", "torchcodec"],
        default="pyav",
        help="of films; torchcodec uses the GPU's own decoder and must be installed (pyav)",
    )
    group.add_argument(
        "--projection",
        choices=["pca", "sparse"],
        default="pca",
        help="principal components, or sparse random projection (pca)",
    )


def _add_decode_options(parser):
    group = parser.add_argument_group("decode")
    group.add_argument(
        "--flow-method", choices=["dis", "raft"], default="dis", help="estimator of true flow"
    )
    group.add_argument(
        "--flow-weights", metavar="FILE", help="checkpoint of the flow estimator raft"
    )
    group.add_argument(
        "--grid", type=int, nargs=2, default=[32, 32], metavar=("H", "W"), help="of flow (32 32)"
    )
    group.add_argument("--n-steps", type=int, default=3, metavar="N", help="flow fields a clip (3)")
    group.add_argument("--n-codes", type=int, default=40, metavar="K", help="flow codes (40)")
    group.add_argument(
        "--n-voxels", type=int, default=2000, metavar="N", help="voxels for decoding (2000)"
    )
    group.add_argument("--n-epochs", type=int, default=50, metavar="N", help="epochs (50)")
    group.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="of training"
    )


def _add_reanimate_options(parser):
    group = parser.add_argument_group("reanimate")
    group.add_argument(
        "--renderer",
        choices=["splat", "dragnuwa", "motionpro", "time-to-move", "image-to-video"],
        default="splat",
        help="splat needs no weights (default)",
    )
    group.add_argument(
        "--video-model", metavar="DIR", help="folder or hub id of Stable Video Diffusion"
    )
    group.add_argument(
        "--checkpoint", metavar="FILE", help="weights of the motion-conditioned network"
    )
    group.add_argument(
        "--stock-model",
        metavar="DIR",
        help="folder or hub id of stock Stable Video Diffusion: the control without any flow",
    )
    group.add_argument(
        "--initial-frames",
        default="stimulus",
        metavar="WHICH",
        help="stimulus (default), decoded (from BOLD), or an HDF5 file of reconstructions",
    )
    group.add_argument("--n-frames", type=int, default=14, metavar="N", help="frames a clip (14)")
    group.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of frames and clips, in pixels"
    )
    group.add_argument("--num-steps", type=int, metavar="N", help="denoising steps")
    group.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of weights"
    )
    group.add_argument("--compile", action="store_true", help="compile the network first")
    group.add_argument("--offload", action="store_true", help="keep idle weights on the host")
    group.add_argument("--batch-size", type=int, metavar="N", help="clips at once (from memory)")
    group.add_argument("--max-clips", type=int, metavar="N", help="render only the first N clips")
    group.add_argument(
        "--devices", nargs="+", metavar="DEVICE", help="share the clips between these devices"
    )


def _parser():
    parser = argparse.ArgumentParser(
        prog="brainnrds",
        description="Predict brain activity from video, decode motion from BOLD, reanimate still "
        "frames: for any BIDS data set of people watching video.",
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS data set with the raw events and stimuli")
    parser.add_argument("output_dir", type=Path, help="where the derivatives go")
    parser.add_argument("analysis_level", choices=["participant", "group"])
    parser.add_argument("--analysis", choices=["encode", "decode", "reanimate"], default="encode")
    _add_data_options(parser)
    _add_run_options(parser)
    _add_preparation_options(parser)
    _add_encode_options(parser)
    _add_decode_options(parser)
    _add_reanimate_options(parser)
    return parser


def _read_filter(path):
    from brainnrds.io import InputError

    if path is None:
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"--bids-filter-file must be a readable JSON file; got {path}: {error}."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("bold", {}), dict):
        raise InputError(f'--bids-filter-file must hold {{"bold": {{entity: value}}}}; got {path}.')
    return content.get("bold", {})


def _encode(options, subject):
    from brainnrds.analyses.encode import encode_participant

    return encode_participant(
        options.bids_dir,
        options.output_dir,
        subject,
        **_data(options),
        **_preparation(options),
        video_encoders=options.video_encoder or ["motion-energy"],
        image_encoders=options.image_encoder or ["static-energy"],
        n_folds=options.n_folds,
        n_iter=options.n_iter,
        solver=options.solver,
        n_components=options.n_components,
        projection=options.projection,
        decoder=options.decoder,
        atlas=options.atlas,
        n_permutations=options.n_permutations or 5000,
        **_running(options),
    )


def _decode(options, subject):
    from brainnrds.analyses.decode import decode_participant

    return decode_participant(
        options.bids_dir,
        options.output_dir,
        subject,
        **_data(options),
        **_preparation(options),
        image_encoder=_only(options.image_encoder, "--image-encoder") or "frame-grid",
        flow_method=options.flow_method,
        flow_weights=options.flow_weights,
        grid=tuple(options.grid),
        n_steps=options.n_steps,
        n_codes=options.n_codes,
        n_voxels=options.n_voxels,
        n_epochs=options.n_epochs,
        precision=options.precision,
        n_permutations=options.n_permutations or 1000,
        **_running(options),
    )


def _reanimate(options, subject):
    from brainnrds.analyses.reanimate import reanimate_participant

    return reanimate_participant(
        options.bids_dir,
        options.output_dir,
        subject,
        **_data(options),
        **_preparation(options),
        initial_frames=options.initial_frames,
        renderer=options.renderer,
        video_model=options.video_model,
        checkpoint=options.checkpoint,
        stock_model=options.stock_model,
        n_frames=options.n_frames,
        size=tuple(options.size) if options.size else None,
        num_steps=options.num_steps,
        dtype=options.dtype,
        compile=options.compile,
        offload=options.offload,
        batch_size=options.batch_size,
        image_encoder=_only(options.image_encoder, "--image-encoder"),
        video_encoder=_only(options.video_encoder, "--video-encoder"),
        max_clips=options.max_clips,
        devices=options.devices,
        **_running(options),
    )


def _encode_group(options):
    from brainnrds.analyses.encode import encode_group

    return encode_group(
        options.output_dir,
        subjects=options.participant_label,
        space=options.space,
        random_state=options.random_state,
    )


_PARTICIPANT = {"encode": _encode, "decode": _decode, "reanimate": _reanimate}
_GROUP = {"encode": _encode_group}


def _only(names, option):
    from brainnrds.io import InputError

    if names is not None and len(names) > 1:
        raise InputError(
            f"{option} must be one name, of several only encode makes use; got {', '.join(names)}."
        )
    return names[0] if names else None


def _data(options):
    return {
        "derivatives": options.derivatives,
        "session": options.session_label,
        "task": options.task_id,
        "space": options.space,
        "bids_filter": _read_filter(options.bids_filter_file),
        "database_path": options.bids_database_dir,
    }


def _preparation(options):
    return {
        "confounds": tuple(options.confounds),
        "mask": options.mask,
        "repeats": options.repeats,
        "test_films": options.test_films,
        "delays_seconds": options.delays_seconds,
    }


def _running(options):
    return {
        "device": options.device,
        "n_jobs": options.n_cpus,
        "random_state": options.random_state,
        "work_dir": options.work_dir,
    }


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
    options = _parser().parse_args(argv)
    from brainnrds.io import InputError

    as_before, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        if options.dry_run:
            return _dry_run(options)
        if options.reports_only:
            return _reports_only(options)
        with _cluster(options.dask_scheduler):
            if options.analysis_level == "group":
                if options.analysis not in _GROUP:
                    raise InputError(
                        f"--analysis {options.analysis} has no group level: expected encode."
                    )
                _announce(_GROUP[options.analysis](options), "group")
                return EXIT_OK
            return _participants(options)
    except InputError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("brainnrds: interrupted; finished steps are kept in the work folder", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _fail(options, None, error, traceback.format_exc())
    finally:
        warnings.formatwarning = as_before


def _participants(options):
    """Analyse one participant after the other; a crash of one does not stop the others."""
    from brainnrds.io import InputError, check_output_dir, list_subjects

    check_output_dir(options.output_dir, options.bids_dir, derivatives=options.derivatives)
    subjects = options.participant_label or list_subjects(
        options.bids_dir, derivatives=options.derivatives
    )
    worst = EXIT_OK
    for subject, outcome in zip(subjects, _outcomes(options, subjects), strict=True):
        result, error, details = outcome
        if error is None:
            _announce(result, f"sub-{subject}")
            continue
        is_refused = isinstance(error, InputError)
        worst = max(
            worst, _refuse(error) if is_refused else _fail(options, subject, error, details)
        )
        if options.stop_on_first_crash:
            break
    return worst


def _outcomes(options, subjects):
    """Yield what `_attempt` returns for each participant, on a cluster of several at once.

    On a cluster the first goes alone, with its films and voxels shared between the workers: the
    others then find the features of the films that all have seen. They go one to a worker, unless
    there are fewer of them than workers.
    """
    if options.dask_scheduler is None:
        yield from (_attempt(options, subject) for subject in subjects)
        return
    import joblib

    first, *others = subjects
    yield _attempt(options, first)
    if len(others) < joblib.effective_n_jobs():
        yield from (_attempt(options, subject) for subject in others)
        return
    # a worker may run elsewhere
    absolute = {k: v.resolve() if isinstance(v, Path) else v for k, v in vars(options).items()}
    run = joblib.Parallel(return_as="generator")
    task = joblib.delayed(_attempt_on_a_worker)
    yield from run(task(argparse.Namespace(**absolute), subject) for subject in others)


def _attempt_on_a_worker(options, subject):
    """As `_attempt`, with nothing handed on to other workers."""
    import joblib

    with joblib.parallel_config("sequential"):
        result, error, details = _attempt(options, subject)
    # not every exception can be sent: one that could not would end the other participants' work
    if error is not None and type(error).__module__.split(".")[0] not in ("builtins", "brainnrds"):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return result, error, details


def _attempt(options, subject):
    """Analyse a participant: (result, None, None), or (None, error, traceback as text)."""
    try:
        return _PARTICIPANT[options.analysis](options, subject), None, None
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
    for i, table in enumerate(result.get("told", [result.table])):
        if i > 0:
            print()
        counts = {
            column: lambda n: "" if n != n else f"{n:.0f}"
            for column in table.columns
            if str(column).startswith("n_")
        }
        print(
            table.to_string(
                index=False, formatters=counts, float_format=lambda x: f"{x:.3f}", na_rep=""
            )
        )
    if result.get("note"):
        print(textwrap.fill(result.note, 100))
    print(f"report: {result.report}", flush=True)


def _refuse(error):
    print(f"brainnrds: {' '.join(str(error).split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _fail(options, subject, error, details):
    """Tell a full disk, which the user can mend, from a crash."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _refuse(error.strerror or error)
    return _crash(options, subject, error, details)


def _crash(options, subject, error, details):
    """Write a crash file and say in one line where it is."""
    from brainnrds.io import atomic_path, derivative_path

    name = "the group" if subject is None else f"sub-{subject}"
    report = "".join(
        [
            f"brainnrds {brainnrds.__version__}, Python {sys.version}\n",
            f"{datetime.now().isoformat(timespec='seconds')}\n",
            f"arguments: {vars(options)}\n\n",
            details,
        ]
    )
    path = derivative_path(
        options.output_dir,
        "crash",
        {"subject": subject, "desc": f"{options.analysis}{datetime.now():%Y%m%dT%H%M%S}"},
    )
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(report)
    except OSError:
        print(report, file=sys.stderr)
        path = "above: it could not be written"
    if options.verbose:
        print(report, file=sys.stderr)
    line = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"brainnrds: {name} crashed: {line} (crash file: {path})", file=sys.stderr)
    return EXIT_CRASH


def _reports_only(options):
    from brainnrds.io import check_output_dir
    from brainnrds.reporting import write_report

    check_output_dir(options.output_dir, options.bids_dir, derivatives=options.derivatives)
    if options.analysis_level == "group":
        print(f"report: {write_report(options.output_dir)}")
        return EXIT_OK
    subjects = options.participant_label or sorted(
        path.name.removeprefix("sub-") for path in options.output_dir.glob("sub-*") if path.is_dir()
    )
    for subject in subjects:
        print(f"report: {write_report(options.output_dir, subject)}")
    return EXIT_OK


def _dry_run(options):
    from brainnrds.analyses.validate import validate_dataset

    print(
        validate_dataset(options.bids_dir, subject=options.participant_label, **_data(options)),
        flush=True,
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
    from brainnrds.io import InputError

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
    parser = argparse.ArgumentParser(
        prog="brainnrds-validate", description="Say what brainnrds would use, run by run."
    )
    parser.add_argument("bids_dir", type=Path)
    _add_data_options(parser)
    options = parser.parse_args(argv)
    from brainnrds.io import InputError

    try:
        return _dry_run(options)
    except InputError as error:
        return _refuse(error)


if __name__ == "__main__":
    sys.exit(main())
