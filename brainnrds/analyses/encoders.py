"""Which encoder predicts best: extractors from their names, one table and chart of all of them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds.analyses.named_spaces import encoder_spaces, spaces_of
from brainnrds.analyses.sides import voxel_sides
from brainnrds.encoding import parcel_table
from brainnrds.features import FrameOrder
from brainnrds.io import FeatureFiles, InputError, WordEmbeddings, WordRate
from brainnrds.plotting import plot_grouped_bars

__all__ = [
    "compare_encoders",
    "encoder_group",
    "frame_control",
    "make_extractors",
    "save_encoders",
    "save_parcels",
]

# networks that were trained for robots see single frames, and are a group of their own in the paper
_EMBODIED_FAMILIES = ("vc1",)
_GROUPS = ("video", "image", "embodied", "other", "control")

# R2; voxels above are responsive
SMALLEST_CEILING = 0.1
RESPONSIVE = (
    "responsive voxels: explainable variance with q < .05, or, where blocks are too few for a "
    f"test, a noise ceiling above {SMALLEST_CEILING} (R2)"
)
_WITH_CEILING = f"voxels with a noise ceiling above {SMALLEST_CEILING} (R2)"
_DRAWN_PARCELS = 10
_ABOUT_ENCODERS = (
    "Mean held-out correlation of encoders, each fitted alone to the same training films and "
    "tested in the same folds; 95 % intervals by block bootstrap of the tested samples, none from "
    "fewer than 12 blocks."
)
ENCODER_COLUMNS = {
    "encoder": {
        "Description": "As it was given; 'half a film late', of trials 'another clip', is the "
        "control: the same predictions against the response then"
    },
    "group": {
        "Description": "video, image, embodied (trained for robots, on frames), other (predictions "
        "of another model) or control"
    },
    "n_features": {"Description": "Columns of its feature space, before delays and projection"},
    "mean_all": {"Description": "Mean r over all voxels with data"},
    "mean_responsive": {"Description": f"Mean r over {_WITH_CEILING}, with or without a test"},
    **{
        f"{end}_{region}": {"Description": f"{text} end of the 95 % interval of mean_{region}"}
        for end, text in (("low", "Lower"), ("high", "Upper"))
        for region in ("all", "responsive")
    },
    "ceiling_all": {"Description": "Mean r that a perfect model could reach, all voxels"},
    "ceiling_responsive": {"Description": "The same over the voxels of mean_responsive"},
}
_PARCEL_COLUMNS = {
    "parcel": "Number of the parcel in the atlas",
    "name": "Its name, where the atlas says",
    "n_voxels": "Voxels with data",
    "side": "Hemisphere of most of its voxels, L or R; q-values are over the parcels of a side",
    "difference": "Mean over its voxels of r, video minus image",
    "ceiling": "Mean over its voxels of the r that a perfect model could reach",
}


#: Extractors without weights, by the name that the command line takes: (module of features, class).
WITHOUT_WEIGHTS = {
    "motion-energy": "MotionEnergy",
    "static-energy": "StaticEnergy",
    "luminance": "Luminance",
    "cuts": "CutScores",
    "loudness": "Loudness",
    "spectrum": "Spectrum",
}
_ENCODERS = {
    "video": "VideoEncoder",
    "image": "ImageEncoder",
    "sound": "SoundEncoder",
    "text": "WordEncoder",
}
_TAKEN = re.compile(
    r"(video|image)\d*|video(Frozen|Shuffled)|joint|controlsalone|difference|shifted|without.*"
)


def make_extractors(options, device):
    """Make the extractors of an encoding analysis.

    Parameters
    ----------
    options : EncodeOptions
        Its `video_encoders` and `image_encoders` are names of `WITHOUT_WEIGHTS`, or what
        `VideoEncoder` and `ImageEncoder` take as a name, with a layer after a colon if it is not
        the default: "videomae-large:11". Several layers, "videomae-large:3,7,11", are an encoder
        each. Its `feature_spaces` and `control_spaces` are "NAME=EXTRACTOR".
    device : str

    Returns
    -------
    extractors : dict of str to transformer
        By feature space: "video", "video2", ..., "image", "image2", ..., then those with names.
    names : dict of str to str
        By feature space: the name that was given, of a folder its last part.

    Raises
    ------
    InputError
        An unknown or repeated name, missing or damaged files, with the option's name.
    """
    extractors, given = {}, {}
    encoders = {kind: encoder_spaces(kind, options) for kind in ("video", "image")}
    for kind, listed in encoders.items():
        if len(set(listed.values())) < len(listed):
            raise InputError(
                f"--{kind}-encoder must name each encoder once; got {', '.join(listed.values())}."
            )
        for space, name in listed.items():
            extractors[space] = _make_extractor(name, kind, device, f"--{kind}-encoder")
            given[space] = name
    twice = set(encoders["video"].values()) & set(encoders["image"].values())
    if twice:
        raise InputError(
            f"--video-encoder and --image-encoder must differ; got {', '.join(sorted(twice))} in "
            "both."
        )
    for option, listed in (
        ("--feature-space", options.feature_spaces),
        ("--control-space", options.control_spaces),
    ):
        for space, name in spaces_of(option, listed).items():
            if _TAKEN.fullmatch(space) or space in extractors:
                raise InputError(f"{option} must have a name of its own; got {space!r}.")
            if name in given.values():
                raise InputError(f"{option} {space}={name}: {name} is a feature space already.")
            extractors[space] = _make_space(name, options, device, option)
            given[space] = name
    if options.video_control is not None:
        space = frame_control(options)
        extractors[space] = FrameOrder(extractors["video"], order=options.video_control)
        given[space] = f"{given['video']}, {options.video_control}"
    read = any(isinstance(e, (WordRate, WordEmbeddings)) for e in extractors.values())
    if options.transcript is not None and not Path(options.transcript).is_dir():
        raise InputError(f"--transcript: no such folder: {options.transcript}.")
    if options.transcript is not None and not read:
        raise InputError(
            "--transcript must come with a space of word-rate or of a text network; got "
            f"--transcript {options.transcript} without."
        )
    return extractors, _short_names(given)


def frame_control(options):
    """Name the feature space of the video encoder that sees no motion, or None."""
    order = options.video_control
    return None if order is None else f"video{order.capitalize()}"


def _short_names(given):
    """What encoders are called: of a folder its last part, where that tells them apart."""
    names = {}
    for space, name in given.items():
        network, _ = _split_layer(name)
        is_folder = Path(network).is_dir()
        names[space] = name.removeprefix(str(Path(network).parent) + "/") if is_folder else name
    return names if len(set(names.values())) == len(names) else given


def _make_space(name, options, device, option):
    """Make what a further space is of: an extractor, a folder of features, or words."""
    from brainnrds.features.encoders import encoder_kind

    if name == "word-rate":
        if options.transcript is None:
            raise InputError(f"{option} word-rate needs --transcript, a folder of transcripts.")
        return WordRate(str(options.transcript))
    if name in WITHOUT_WEIGHTS:
        return _make_extractor(name, None, device, option)
    if Path(name).is_dir():
        return FeatureFiles(name)
    kind = encoder_kind(_split_layer(name)[0])
    if kind is None:
        raise InputError(
            f"{option} must name one of {', '.join(WITHOUT_WEIGHTS)}, word-rate, an encoder of "
            "features.list_encoders(), a network's folder with a layer, or a folder of feature "
            f"files; got {name!r}."
        )
    if kind != "text":
        return _make_extractor(name, kind, device, option)
    if options.transcript is None:
        raise InputError(f"{option} {name} needs --transcript, a folder of transcripts.")
    return WordEmbeddings(str(options.transcript), _make_extractor(name, kind, device, option))


def _make_extractor(name, kind, device, option):
    from brainnrds import features

    if name in WITHOUT_WEIGHTS:
        return getattr(features, WITHOUT_WEIGHTS[name])()
    encoder = getattr(features, _ENCODERS[kind])
    network, layer = _split_layer(name)
    try:
        return encoder(network, layers=layer, device=device).fit()
    except (ValueError, OSError) as error:
        raise InputError(f"{option} {name}: {error}") from error


def _split_layer(name):
    """Split "name:layer"; a folder may have a colon in its own name."""
    network, colon, layer = name.rpartition(":")
    if not colon or Path(name).is_dir():
        return name, None
    return network, int(layer) if re.fullmatch(r"-?\d+", layer) else layer


def encoder_group(space, description):
    """Say in which of the paper's groups an encoder belongs.

    Parameters
    ----------
    space : str
        Feature space, as `make_extractors` calls it.
    description : dict or None
        From `describe_extractor`; None of another's predictions.

    Returns
    -------
    group : {"video", "image", "embodied", "other", "control"}
    """
    if description is None:
        return "other"
    if description.get("class") == "FrameOrder":
        return "control"
    if description.get("family") in _EMBODIED_FAMILIES:
        return "embodied"
    return space.rstrip("0123456789")


def compare_encoders(
    data,
    predictions,
    folds,
    names,
    groups,
    *,
    labels,
    ceiling=None,
    smallest_ceiling=0.0,
    parcels=None,
    parcel_names=None,
    controls=None,
    random_state=None,
):
    """Average the scores of encoders over voxels and parcels, beside the noise ceiling.

    Parameters
    ----------
    data : MovieData
    predictions : dict of str to array of shape (n_samples, n_voxels)
        Held-out predictions by feature space: of models that were fitted to this space alone, in
        the same folds.
    folds : array of int of shape (n_samples,)
        Fold in which a sample was predicted, or -1.
    names, groups : dict of str to str
        Name and group (`encoder_group`) of the encoder of each feature space.
    labels : dict
        ``t_r``, ``runs``, ``films`` and ``block_duration`` (s), by which all is scored, and drawn
        again in blocks.
    ceiling : array of shape (n_voxels,) or None, default=None
        Largest correlation that a perfect model could reach.
    smallest_ceiling : float, default=0.0
        Voxels above it are responsive.
    parcels, parcel_names
        As :func:`brainnrds.io.load_atlas` returns them, or None.
    controls : dict of str to array of shape (n_voxels,) or None, default=None
        Scores of controls by name: they get no interval.
    random_state : int or None, default=None

    Returns
    -------
    result : Bunch
        ``overall``: a DataFrame with a row per encoder, in the order of the groups and in each the
        best first: ``encoder``, ``group``, and over all and over responsive voxels the mean
        held-out r, its interval (95 %, block bootstrap) and the mean ceiling; controls last.
        ``parcels``: a DataFrame with a row per parcel, or None.
    """
    controls = controls or {}
    names = {**names, **{name: name for name in controls}}
    groups = {**groups, **dict.fromkeys(controls, "control")}
    spaces = [*predictions, *controls]

    def average(regions, region_names=None, sides=None):
        table = parcel_table(
            data.bold,
            predictions,
            regions,
            names=region_names,
            sides=sides,
            **labels,
            folds=folds,
            random_state=random_state,
        )
        for name, scores in controls.items():
            table[name] = [_mean(scores[regions == label]) for label in table["parcel"]]
        if ceiling is not None:
            table["ceiling"] = [_mean(ceiling[regions == label]) for label in table["parcel"]]
        return table

    regions = {"all": data.voxels}
    if ceiling is not None:
        # NaN compares as not responsive
        regions["responsive"] = data.voxels & (ceiling > smallest_ceiling)
    columns = {}
    for region, chosen in regions.items():
        if not chosen.any():
            continue
        row = average(chosen.astype(int)).iloc[0]
        columns[f"mean_{region}"] = [row[space] for space in spaces]
        for end in ("low", "high"):
            columns[f"{end}_{region}"] = [row.get(f"{space}_{end}") for space in spaces]
        if ceiling is not None:
            columns[f"ceiling_{region}"] = row["ceiling"]
    overall = pd.DataFrame(
        {
            "encoder": [names[space] for space in spaces],
            "group": [groups[space] for space in spaces],
            **columns,
        },
        index=spaces,
    )
    rank = overall["group"].map(_GROUPS.index)
    overall = overall.iloc[np.lexsort([-overall["mean_all"], rank])]
    by_parcel = None
    if parcels is not None:
        table = average(parcels, parcel_names, voxel_sides(data.masker, data.space))
        kept = [name for name in ("parcel", "name", "n_voxels", "side") if name in table]
        ends = ("", "_low", "_high", "_p", "_q")
        scores = {f"{s}{end}": f"{names[s]}{end}" for s in overall.index for end in ends}
        kept += [*(s for s in scores if s in table), *(["ceiling"] if ceiling is not None else [])]
        by_parcel = table[kept].rename(columns=scores)
    return Bunch(overall=overall.reset_index(drop=True), parcels=by_parcel)


def _mean(values):
    """Mean of the finite values; NaN, without a warning, where there are none."""
    finite = values[np.isfinite(values)]
    return finite.mean() if finite.size else np.nan


def save_parcels(record, table):
    """Write the table per parcel of an encoding analysis.

    Parameters
    ----------
    record : Record
    table : DataFrame
        Of :func:`brainnrds.encoding.parcel_table`.
    """
    record.save_table(
        table,
        columns=_describe_parcels(table),
        description="Mean held-out r per parcel; 95 % intervals, p- and q-values by block "
        "bootstrap, none from fewer than 12 blocks.",
        seg="atlas",
    )


def _describe_parcels(table):
    """Descriptions of the columns, most of which are a predictor's score and interval."""
    ends = {
        "": "Mean over its voxels of held-out r, {}",
        "_low": "Lower end of the 95 % interval of {}",
        "_high": "Upper end of the 95 % interval of {}",
        "_p": "p-value of {}, uncorrected",
        "_q": "q-value of {}: false discovery rate over parcels, of one side where it is known",
    }
    described = {}
    for name in reversed(list(table)):  # a score comes before its ends, and names them last
        described |= {f"{name}{end}": text.format(name) for end, text in ends.items()}
    return {name: _PARCEL_COLUMNS.get(name, described[name]) for name in table}


def save_encoders(record, compared, spaces):
    """Write the table of encoders, that per parcel, and the chart of both.

    Parameters
    ----------
    record : Record
    compared : Bunch
        Of `compare_encoders`.
    spaces : dict
        Feature space -> its description, with ``extractor`` and ``n_features``.
    """
    sizes = {about["extractor"]: about["n_features"] for about in spaces.values()}
    overall = compared.overall
    encoders = list(overall["encoder"])
    overall.insert(2, "n_features", overall["encoder"].map(sizes).astype("Int64"))
    record.save_table(
        overall,
        columns={name: about for name, about in ENCODER_COLUMNS.items() if name in overall},
        description=_ABOUT_ENCODERS,
        desc="encodeEncoders",
    )
    scores, intervals, ceilings, description = {}, {}, {}, ""
    panels = {
        "all": "all voxels",
        "responsive": _WITH_CEILING,
    }
    for region, title in panels.items():
        if f"mean_{region}" in overall:
            scores[title] = dict(zip(encoders, overall[f"mean_{region}"], strict=True))
            ends = zip(overall[f"low_{region}"], overall[f"high_{region}"], strict=True)
            intervals[title] = dict(zip(encoders, ends, strict=True))
        if f"ceiling_{region}" in overall:
            ceilings[title] = overall[f"ceiling_{region}"].iloc[0]
    if compared.parcels is not None:
        record.save_table(
            compared.parcels,
            columns=_describe_parcels(compared.parcels),
            description=f"{_ABOUT_ENCODERS} One row per parcel.",
            desc="encodeEncoders",
            seg="atlas",
        )
        # what chooses the parcels must not favour an encoder
        by = compared.parcels.get("ceiling", compared.parcels[encoders].mean(axis=1))
        shown = compared.parcels.loc[by.sort_values(ascending=False).index[:_DRAWN_PARCELS]]
        description = (
            f"Parcels: the {len(shown)} of {len(compared.parcels)} with the highest "
            f"{'noise ceiling' if ceilings else 'mean score of all encoders'}."
        )
        for _, row in shown.iterrows():
            title = f"{row['name']} ({row['n_voxels']:,} voxels)"
            scores[title] = {name: row[name] for name in encoders}
            intervals[title] = {
                name: (row[f"{name}_low"], row[f"{name}_high"])
                for name in encoders
                if f"{name}_low" in row
            }
            if "ceiling" in row:
                ceilings[title] = row["ceiling"]
    figure = plot_grouped_bars(
        scores,
        groups=dict(zip(encoders, overall["group"], strict=True)),
        intervals=intervals,
        ceilings=ceilings,
        label="mean held-out r",
    )
    record.save_figure(figure, "bar", desc="encodeEncoders", description=description)
