"""Options of the analyses: each stands here once, with its default, help and choices.

The command line, its help, the page that lists the options, and the key that tells a finished run
from another are made from these fields. A field decides the result unless it says ``in_key=False``;
one that names a file or folder (``content=True``) decides by its content, not by its name.
"""

import math
import numbers
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from brainnrds._checks import InputError
from brainnrds._files import hash_file

__all__ = [
    "DecodeOptions",
    "EncodeGroupOptions",
    "EncodeOptions",
    "GroupOptions",
    "PredictOptions",
    "ReanimateOptions",
    "Selection",
    "TransferOptions",
    "add_arguments",
    "deciding_values",
    "flags",
    "label",
    "read_arguments",
]


_LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


def option(
    default,
    help,
    *,
    name=None,
    of=str,
    many=False,
    metavar=None,
    choices=None,
    least=None,
    most=None,
    in_key=True,
    content=False,
):
    """Field of a dataclass of options.

    Parameters
    ----------
    default : object
        An immutable value; True and False make a switch.
    help : str
        One line; the default is added to it.
    name : str or None, default=None
        On the command line, without "--"; None: the field's name with hyphens.
    of : callable, default=str
        Makes a value from text.
    many : bool or int, default=False
        Whether, or how many, values are taken.
    metavar, choices
        As in argparse. `choices` may be a function that gives them.
    least, most : number or None, default=None
        The smallest and the largest value.
    in_key : bool, default=True
        Whether it decides the result.
    content : bool, default=False
        Whether a value that names a file or folder decides by what that holds.
    """
    about = {"help": help, "name": name, "of": of, "many": many, "metavar": metavar,
             "choices": choices, "least": least, "most": most, "in_key": in_key,
             "content": content}  # fmt: skip
    return field(default=default, metadata=about)


def label(prefix, *, patterns=False):
    """Labels are accepted with and without their BIDS prefix: ``01`` or ``sub-01``."""

    def strip(text):
        label = text.removeprefix(f"{prefix}-")
        plain = label.replace("*", "x").replace("?", "x") if patterns else label
        if not plain.isascii() or not plain.isalnum():
            raise ValueError(label)
        return label

    strip.__name__ = f"{prefix} label (letters and digits)"  # as argparse's error says it
    return strip


class _Checked:
    """Values are checked where options are made, by hand or from the command line."""

    def __post_init__(self):
        for about in _options(self):
            value = getattr(self, about.name)
            if isinstance(value, list):
                object.__setattr__(self, about.name, value := tuple(value))
            if value is not None or about.default is not None:
                _check(about, value)


def _check(about, value):
    """Refuse a value that an option cannot have, by the option's name."""
    option, told = flag(about), about.metadata
    choices = choices_of(about)
    if choices and not set(value if told["many"] else (value,)) <= set(choices):
        raise InputError(f"{option} must be one of {', '.join(choices)}; got {value!r}.")
    if told["many"]:
        if not isinstance(value, tuple):
            raise InputError(f"{option} must be several values, in a tuple; got {value!r}.")
        if told["many"] is True and not value:
            raise InputError(f"{option} must name at least one; got none.")
        if type(told["many"]) is int and len(value) != told["many"]:
            raise InputError(f"{option} must have {told['many']} values; got {len(value)}.")
    if told["of"] not in (int, float):
        return
    for number in value if told["many"] else (value,):
        if isinstance(number, bool) or not isinstance(number, numbers.Real):
            raise InputError(f"{option} must be a number; got {number!r}.")
        if not math.isfinite(number):
            raise InputError(f"{option} must be finite; got {number!r}.")
        if told["of"] is int and number != int(number):
            raise InputError(f"{option} must be whole; got {number!r}.")
        if told["least"] is not None and number < told["least"]:
            raise InputError(f"{option} must be at least {told['least']}; got {number!r}.")
        if told["most"] is not None and number > told["most"]:
            raise InputError(f"{option} must be at most {told['most']}; got {number!r}.")


@dataclass(frozen=True, kw_only=True)
class Selection(_Checked):
    """Which data: see :func:`brainnrds.io.find_runs`."""

    title = "which data"
    bids_dir: Path = None
    session: tuple | None = option(
        None, "sessions to use", name="session-label", of=label("ses"), many=True, metavar="LABEL"
    )
    task: tuple | None = option(
        None,
        "tasks to use, which may be patterns such as 's01*'",
        name="task-id",
        of=label("task", patterns=True),
        many=True,
        metavar="TASK",
    )
    space: str | None = option(
        None,
        "space of the BOLD files, e.g. fsaverage5, fsLR, MNI152NLin2009cAsym (the only one there "
        "is)",
        metavar="SPACE",
    )
    derivatives: Path | None = option(
        None,
        "fMRIPrep-style derivatives (derivatives/fmriprep, or the only one)",
        of=Path,
        metavar="DIR",
    )
    bids_filter: Path | dict | None = option(
        None,
        'JSON with further entity filters of the BOLD files, e.g. {"bold": {"run": [1, 2]}}',
        name="bids-filter-file",
        of=Path,
        metavar="FILE",
    )
    derivatives_pattern: str | None = option(
        None,
        "path pattern of BOLD below the derivatives, as pybids has them, where names are not "
        "BIDS: 'sub-{subject}/sub-{subject}_task-{task}[_run-{run}]_bold.nii.gz'",
        metavar="PATTERN",
    )
    database_path: Path | None = option(
        None,
        "lists of the files of the data set, made there when absent: looking once is enough",
        name="bids-database-dir",
        of=Path,
        metavar="DIR",
        in_key=False,
    )

    films: object = option(
        None,
        "film table (TSV): which films were shown when, beside events.tsv or over it",
        of=Path,
        metavar="FILE",
    )
    stimuli: Path | None = option(
        None,
        "folder of the films; links in it may lead anywhere (stimuli/ of the data set)",
        of=Path,
        metavar="DIR",
    )

    film_groups: str = option(
        "film",
        "what no split may separate: film (the film table's film_group, where it has the column), "
        "or a regular expression whose match in a film's name is the label, such as 's\\d+e\\d+'",
        metavar="GROUPS",
    )
    strict: bool = option(
        False, "refuse films that the scan does not cover, instead of cutting them to it"
    )

    def keywords(self):
        """Keywords of :func:`brainnrds.io.find_runs`, the filter file read."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "bids_dir"}
        values["bids_filter"] = _read_filter(self.bids_filter)
        return values


def _read_filter(given):
    if given is None or isinstance(given, dict):
        return given
    from brainnrds.io import load_json

    try:
        content = load_json(given)
    except InputError as error:
        raise InputError(f"--bids-filter-file must be readable: {error}") from error
    if set(content) != {"bold"} or not isinstance(content["bold"], dict):
        raise InputError(
            f'--bids-filter-file must hold {{"bold": {{entity: value}}}}; got {given}.'
        )
    return content["bold"]


@dataclass(frozen=True, kw_only=True)
class Machine(_Checked):
    """Where to compute."""

    title = "where to compute"
    device: str = option("auto", "cpu, cuda, cuda:<n> or auto", metavar="DEVICE", in_key=False)
    n_jobs: int = option(
        -1,
        "processes for loading runs and decoding films; -1: one a core",
        name="n-cpus",
        of=int,
        least=-1,
        metavar="N",
        in_key=False,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_jobs == 0:
            raise InputError("--n-cpus must be -1 (one process a core) or at least 1; got 0.")

    @property
    def n_processes(self):
        """`n_jobs`, with -1 resolved."""
        return os.cpu_count() if self.n_jobs < 1 else self.n_jobs


@dataclass(frozen=True, kw_only=True)
class Running(Machine):
    """How to run."""

    title = "how to run"
    random_state: int = option(0, "seed", of=int, least=0, most=_LARGEST_SEED, metavar="SEED")
    pycortex_subject: str | None = option(
        None,
        "folder of a subject in a pycortex store, on whose surfaces maps are drawn; {subject} in "
        "it is the participant's label (templates)",
        metavar="DIR",
        in_key=False,
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Machine):
    """What a kept model predicts for new films: `brainnrds-predict`."""

    title = "predict"
    first_volume: float = option(
        0.0, "from a film's onset to its first volume", of=float, least=0, metavar="S"
    )
    feature_files: tuple = option(
        (),
        "NAME=FOLDER: files of the new films, for each space of the model that came from files",
        name="feature-files",
        many="*",
        metavar="SPACE",
    )
    transcript: str | None = option(
        None, "folder of the new films' transcripts, for a space of words", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class Preparation(Running):
    """How BOLD is prepared: see :func:`brainnrds.io.load_runs`."""

    title = "how BOLD is prepared"
    confounds: tuple = option(
        ("motion", "high_pass", "wm_csf"),
        "strategies of nilearn's load_confounds; none given: no confounds",
        many="*",
        metavar="STRATEGY",
    )
    mask: str | None = option(
        None,
        "brain mask for volumes, or 'intersection' of the runs' own (the runs' own, which must be "
        "equal)",
        metavar="FILE",
        content=True,
    )
    repeats: str = option(
        "average",
        "training repeats of a film; test repeats are always averaged",
        choices=("average", "concatenate"),
    )
    trim_onset: float = option(
        10.0,
        "after the onset of a film that do not count in ceilings, fits and scores; nothing is left "
        "out of films shorter than six times this",
        of=float,
        least=0,
        metavar="S",
    )
    test_films: tuple | None = option(
        None,
        "films for testing alone, which may be patterns such as 'test/*' (film groups are held "
        "out)",
        many=True,
        metavar="FILM",
    )
    design: str | None = option(
        None,
        "samples are volumes, or trials: one response to each clip, by a general linear model "
        "(trials where films are shown for less than 12 s on average)",
        choices=("continuous", "trials"),
    )
    trial_model: str = option(
        "lss",
        "of trials: a model for each trial (lss), or one with all of them (lsa), which is noisy "
        "where responses overlap",
        choices=("lss", "lsa"),
    )
    hrf_model: str = option(
        "glover", "of trials: haemodynamic response, as nilearn calls it", choices=("glover", "spm")
    )

    def keywords(self):
        """Keywords of :func:`brainnrds.io.load_runs`, without `repeats`."""
        names = ("confounds", "mask", "trim_onset")
        return {name: getattr(self, name) for name in names} | {"n_jobs": self.n_processes}

    def trial_keywords(self):
        """Keywords of :func:`brainnrds.io.load_trials`, without `repeats`."""
        keywords = {"model": self.trial_model, "hrf_model": self.hrf_model, **self.keywords()}
        del keywords["trim_onset"]
        return keywords


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(Preparation):
    """Where video features beat image features."""

    title = "encode"
    video_encoders: tuple = option(
        ("motion-energy",),
        "motion-energy (no weights) or a name of features.list_encoders(), a hub id or a local "
        "folder, with a layer if wished (videomae-large:11), or layers, which count as an encoder "
        "each (videomae-large:3,7,11); the first of several, against the first --image-encoder, "
        "makes the maps, all are compared in a table and a chart",
        name="video-encoder",
        many=True,
        metavar="NAME",
    )
    image_encoders: tuple = option(
        ("static-energy",),
        "what describes single frames, likewise; static-energy needs no weights",
        name="image-encoder",
        many=True,
        metavar="NAME",
    )
    feature_spaces: tuple = option(
        (),
        "NAME=EXTRACTOR: a further space of the joint model, such as sound=spectrum; extractors: "
        "luminance, cuts, loudness, spectrum, word-rate, motion-energy, static-energy, an encoder "
        "by name, or a folder with a file of features for each film; deep=videomae-large:3,7,11 "
        "makes a space of each layer: deep3, deep7, deep11",
        name="feature-space",
        many="*",
        metavar="SPACE",
    )
    control_spaces: tuple = option(
        (),
        "NAME=EXTRACTOR: likewise, in every model: differences and unique variance are beyond it",
        name="control-space",
        many="*",
        metavar="SPACE",
    )
    video_control: str | None = option(
        None,
        "the first video encoder once more, on clips that stand still (frozen: the first frame, "
        "repeated) or run in a random order (shuffled): motion's share, with network and training "
        "held fixed",
        choices=("frozen", "shuffled"),
    )
    transcript: str | None = option(
        None,
        "folder of the films' transcripts for word-rate and networks of text: TSV with onset, "
        "duration and word, SRT or WebVTT, named as the films",
        metavar="DIR",
        content=True,
    )
    predicted: tuple = option(
        (),
        "NAME=FOLDER: held-out predictions of another model, a file for each film with a time and "
        "a column for each voxel; scored and tested on the same samples",
        many="*",
        metavar="MODEL",
    )
    predicted_lag: float = option(0.0, "added to the times of --predicted", of=float, metavar="S")
    delays_seconds: tuple | None = option(
        None,
        "from the beginning of a clip to BOLD, rounded to volumes (every volume from 1 to 9 s)",
        of=float,
        many=True,
        metavar="S",
    )
    n_folds: int | None = option(
        None, "outer folds (at most 5 film groups)", of=int, least=2, metavar="N"
    )
    n_iter: int | None = option(
        None,
        "mixtures of the joint model (7 of two feature spaces, 20 of more)",
        of=int,
        least=1,
        metavar="N",
    )
    solver: str = option(
        "auto", "of the banded ridge", choices=("auto", "exact", "himalaya", "hyper_gradient")
    )
    n_components: int | None = option(
        None,
        "project every feature space onto N columns, fitted to the training films of each outer "
        "fold (no projection)",
        of=int,
        least=1,
        metavar="N",
    )
    projection: str = option(
        "pca", "principal components, or sparse random projection", choices=("pca", "sparse")
    )
    atlas: str | None = option(
        None,
        "label file in the space of the data (or 'hcp-mmp' on fsLR): a table per parcel; on a "
        "surface the left one of two files named alike, with hemi-L and hemi-R, lh. and rh., or "
        ".L. and .R.",
        metavar="FILE",
        content=True,
    )
    n_permutations: int = option(5000, "at least 100", of=int, least=100, metavar="N")
    keep: tuple = option(
        ("model",),
        "what is written of the fit: model, the joint model of the training films with its maps; "
        "predictions, those of the held-out films, for each model as large as the BOLD; none "
        "given: neither",
        many="*",
        choices=("model", "predictions"),
    )
    film_reader: str = option(
        "pyav",
        "torchcodec uses the GPU's own decoder and must be installed",
        choices=("pyav", "torchcodec"),
    )

    @property
    def keep_model(self):
        """Whether the joint model of the training films is fitted and written."""
        return "model" in self.keep

    @property
    def keep_predictions(self):
        """Whether held-out predictions are written."""
        return "predictions" in self.keep


@dataclass(frozen=True, kw_only=True)
class Decoder(Preparation):
    """What decodes motion from BOLD and the first frame."""

    title = "decoder"
    image_encoder: str = option(
        "frame-grid",
        "what describes the first frame: frame-grid (no weights), a name of "
        "features.list_encoders(), a hub id or a local folder",
        metavar="NAME",
    )
    delays_seconds: tuple | None = option(
        None,
        "the window; negative: BOLD after the clip; rounded to volumes (every volume from -9 to "
        "0 s)",
        of=float,
        many=True,
        metavar="S",
    )
    flow_method: str = option("dis", "estimator of true flow", choices=("dis", "raft"))
    flow_weights: str | None = option(
        None, "checkpoint of the flow estimator raft", metavar="FILE", content=True
    )
    grid: tuple = option((32, 32), "of flow", of=int, least=2, most=256, many=2, metavar=("H", "W"))
    n_steps: int = option(3, "flow fields a clip", of=int, least=1, most=256, metavar="N")
    n_codes: int = option(40, "flow codes", of=int, least=2, metavar="K")
    voxel_selection: str = option("best", "how voxels are chosen", choices=("best", "reliability"))
    n_voxels: int = option(2000, "voxels for decoding", of=int, least=1, metavar="N")
    n_epochs: int = option(50, "epochs at most", of=int, least=1, metavar="N")
    training_batch: int = option(64, "clips a step of training", of=int, least=1, metavar="N")
    precision: str = option("float32", "of training", choices=("float32", "bfloat16"))


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(Decoder):
    """Motion from BOLD and the first frame, beside every control."""

    title = "decode"
    predicted: tuple = option(
        (),
        "NAME=FOLDER: what another system reconstructed, for each tested film a video of its name, "
        "or an HDF5 file with flow and times; a row beside the controls",
        many="*",
        metavar="SYSTEM",
    )
    n_seeds: int = option(2, "trainings of the decoder", of=int, least=1, metavar="N")
    n_draws: int = option(
        4,
        "trainings of its control with BOLD of other films; a multiple of --n-seeds",
        of=int,
        least=1,
        metavar="N",
    )
    n_permutations: int = option(1000, "at least 100", of=int, least=100, metavar="N")


def _minutes(whose):
    return option((5.0, 10.0, 30.0), whose, of=float, many=True, least=0.1, metavar="MINUTES")


@dataclass(frozen=True, kw_only=True)
class TransferOptions(Decoder):
    """A decoder of others for a new person, against the minutes of the person's own data."""

    title = "transfer"
    others: tuple | None = option(
        None,
        "participants on whom the decoder is trained (all others)",
        of=label("sub"),
        many=True,
        metavar="LABEL",
    )
    minutes: tuple = _minutes("of the new participant's training films")
    n_draws: int = option(
        4,
        "trainings of each control with BOLD of other films",
        of=int,
        least=2,
        metavar="N",
    )


def _renderers():
    from brainnrds.analyses.renderers import RENDERERS

    return tuple(RENDERERS)


@dataclass(frozen=True, kw_only=True)
class ReanimateOptions(DecodeOptions):
    """Clips from decoded motion; without decoded flow, `decode` runs first, with its options."""

    title = "reanimate"
    initial_frames: str = option(
        "stimulus",
        "stimulus, decoded (from BOLD), or an HDF5 file of reconstructions",
        metavar="WHICH",
        content=True,
    )
    renderer: str = option("splat", "splat needs no weights", choices=_renderers)
    video_model: str | None = option(
        None, "folder or hub id of Stable Video Diffusion", metavar="DIR", content=True
    )
    checkpoint: str | None = option(
        None, "weights of the motion-conditioned network", metavar="FILE", content=True
    )
    stock_model: str | None = option(
        None,
        "folder or hub id of stock Stable Video Diffusion: the control without any flow",
        metavar="DIR",
        content=True,
    )
    n_frames: int = option(14, "frames a clip", of=int, least=2, metavar="N")
    size: tuple | None = option(
        None,
        "of frames and clips, in pixels",
        of=int,
        least=16,
        most=4096,
        many=2,
        metavar=("H", "W"),
    )
    num_steps: int | None = option(None, "denoising steps", of=int, least=1, metavar="N")
    cache_steps: int = option(
        1,
        "denoising steps that share what the network finds deep inside: faster, not the original's",
        of=int,
        least=1,
        metavar="N",
    )
    dtype: str = option("float32", "of weights", choices=("float32", "float16", "bfloat16"))
    compile: bool = option(False, "compile the network first")
    offload: bool = option(False, "keep idle weights on the host", in_key=False)
    batch_size: int | None = option(
        None, "clips at once (from memory)", of=int, least=1, metavar="N", in_key=False
    )
    score_image_encoder: str | None = option(
        None,
        "scores clips by image embeddings: a name of features.list_encoders(), hub id or folder",
        metavar="NAME",
        content=True,
    )
    score_video_encoder: str | None = option(
        None, "scores clips by video embeddings, likewise", metavar="NAME", content=True
    )
    max_clips: int | None = option(
        None, "render only the first N clips", of=int, least=1, metavar="N"
    )
    devices: tuple | None = option(
        None, "share the clips between these devices", many=True, metavar="DEVICE", in_key=False
    )


def _alignments():
    from brainnrds.group.alignment import ALIGNMENTS

    return ("anatomical", *ALIGNMENTS)


@dataclass(frozen=True, kw_only=True)
class GroupOptions(Running):
    """The group level."""

    title = "group"
    n_permutations: int = option(5000, "at least 100", of=int, least=100, metavar="N")


@dataclass(frozen=True, kw_only=True)
class EncodeGroupOptions(GroupOptions):
    """The group level of encode."""

    title = "group of encode"
    inter_subject: bool = option(
        False,
        "read BOLD again for a ceiling from what participants share of their responses to the "
        "same films",
        name="inter-subject-ceiling",
    )
    align: str | None = option(
        None,
        "predict each participant from a model of all others: by place (anatomical), or aligned "
        "by function inside the parcels of --atlas",
        choices=_alignments,
    )
    minutes: tuple = _minutes("of a participant's own data")
    atlas: str | None = option(None, "label file, for --align", metavar="FILE", content=True)


def flag(about):
    """Return the name of a field on the command line."""
    return "--" + (about.metadata["name"] or about.name.replace("_", "-"))


def flags(kind):
    """Return the names on the command line of a dataclass of options, by field."""
    return {about.name: flag(about) for about in _options(kind)}


def choices_of(about):
    """Return the values that a field may have, or None where any will do."""
    choices = about.metadata["choices"]
    return choices() if callable(choices) else choices


def _options(kind):
    return [about for about in fields(kind) if "help" in about.metadata]


def add_arguments(parser, *kinds, only=None):
    """Add the fields of dataclasses to a parser, each once, with a group for each class.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    *kinds : dataclass types
    only : sequence of str or None, default=None
        Names of the fields to add; None adds all.

    Returns
    -------
    groups : list of argument groups
    """
    groups, seen = [], set()
    for kind in kinds:
        for owner in reversed([k for k in kind.__mro__ if hasattr(k, "title")]):
            own = [f for f in _options(kind) if f.name in owner.__dict__.get("__annotations__", {})]
            own = [f for f in own if f.name not in seen and (only is None or f.name in only)]
            seen |= {f.name for f in own}
            if own:
                group = parser.add_argument_group(owner.title)
                groups.append(group)
                for about in own:
                    # a default that a subclass changed is the subclass's
                    group.add_argument(flag(about), dest=about.name, **_argument(about))
    return groups


def shown_default(about):
    """Return a field's default as text, or None where there is none to show."""
    default = about.default
    if isinstance(default, tuple):
        return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in default)
    return None if default is None or isinstance(default, bool) else str(default)


def _argument(about):
    """Return what argparse is told about a field."""
    told = about.metadata
    if isinstance(about.default, bool):
        return {"action": "store_true", "help": told["help"]}
    choices, shown = choices_of(about), shown_default(about)
    argument = {
        "type": told["of"],
        "default": about.default,
        "help": told["help"] + ("" if shown is None else f" ({shown})"),
        "choices": choices,
        "metavar": None if choices else told["metavar"],
    }
    if told["many"]:
        argument["nargs"] = "+" if told["many"] is True else told["many"]
    return argument


def read_arguments(kind, parsed, **more):
    """Make options from parsed arguments.

    Parameters
    ----------
    kind : dataclass type
    parsed : argparse.Namespace
    **more
        Further fields.

    Returns
    -------
    options : instance of `kind`
    """
    given = [about.name for about in _options(kind) if hasattr(parsed, about.name)]
    values = {name: getattr(parsed, name) for name in given}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**values, **more)


def deciding_values(options):
    """Return what decides the result: values, and of files and folders their content.

    Parameters
    ----------
    options : instance of a dataclass of options

    Returns
    -------
    values : dict
        By field, in JSON's types.
    """
    values = {}
    for about in _options(options):
        if about.metadata["in_key"]:
            value = getattr(options, about.name)
            values[about.name] = _content(value) if about.metadata["content"] else value
    return values


def _content(value):
    path = None if value is None else Path(value)
    if path is None or not path.exists():
        return value
    if path.is_file():
        return {"sha256": hash_file(path)}
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path).as_posix(): hash_file(p) for p in inside}
