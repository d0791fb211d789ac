"""Results out: where a file goes, and writing it whole or not at all.

Names come from ``bids_specs/derivatives.json``; no standard covers encoding maps or flow yet, so
they are provisional. Nothing here pickles: maps are NIfTI, GIFTI or CIFTI, arrays HDF5, tables
TSV, and each has a JSON sidecar.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from importlib import resources
from pathlib import Path

import numpy as np

import brainnrds
from brainnrds._checks import InputError, check_bold
from brainnrds._files import atomic_path, load_json, provenance
from brainnrds._hdf5 import load_arrays, save_arrays
from brainnrds.io._texts import save_json, sidecar_path
from brainnrds.io.images import make_masker, on_grid, open_image, read_maps

__all__ = [
    "check_output_dir",
    "derivative_path",
    "find_results",
    "load_clips",
    "load_flow",
    "load_group_maps",
    "load_map",
    "save_clips",
    "save_flow",
    "save_map",
    "save_series",
    "to_label",
    "write_dataset_description",
]

_BIDS_VERSION = "1.10.0"
_LABEL = re.compile(r"[0-9a-zA-Z+]+")
_HEMISPHERES = {"L": ("left", "CortexLeft"), "R": ("right", "CortexRight")}


def specification():
    """Queries, path patterns and provisional names as ``bids_specs/derivatives.json`` has them."""
    text = resources.files("brainnrds.bids_specs").joinpath("derivatives.json").read_text()
    return json.loads(text)


def check_output_dir(output_dir, bids_dir, *, derivatives=None):
    """Refuse an output folder in which results could overwrite or pollute the input.

    Parameters
    ----------
    output_dir : path-like
        Need not exist.
    bids_dir : path-like
    derivatives : path-like or None, default=None
        Folder of the preprocessed data that are read.

    Returns
    -------
    output_dir : Path
        Absolute, links resolved.

    Raises
    ------
    InputError
        It is the input, or lies inside it anywhere but in ``derivatives/``, or inside the
        derivatives that are read, or it is a file, or it is or lies inside the data set of another
        program; no folder can have its name.
    """
    output, bids = _resolved(output_dir, "Output directory"), _resolved(bids_dir, "Data set")
    allowed = bids / "derivatives"
    if output.exists() and not output.is_dir():
        raise InputError(f"Output directory must be a folder; got a file: {output_dir}.")
    if output == bids or output == allowed:
        raise InputError(
            f"Output directory must not be the input; got {output_dir}: use for example "
            f"{Path(bids_dir) / 'derivatives' / 'brainnrds'}."
        )
    if output.is_relative_to(bids) and not output.is_relative_to(allowed):
        raise InputError(
            f"Output directory must lie outside the input or in its derivatives/; got {output_dir}."
        )
    if derivatives is not None and output.is_relative_to(Path(derivatives).resolve()):
        raise InputError(
            f"Output directory must not be or lie inside the derivatives that are read "
            f"({derivatives}); got {output_dir}."
        )
    _check_own(output)
    for folder in output.parents:
        if folder != allowed and folder.is_relative_to(allowed):
            _check_own(folder)
    return output


def _resolved(path, what):
    try:
        path = Path(path).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
        return path
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
        reason = getattr(error, "strerror", None) or str(error).split(" from ")[0]
        raise InputError(f"{what} {str(path)[:200]!r} cannot be used: {reason}.") from error


def _check_own(output_dir):
    """Refuse a folder that holds the data set of another program."""
    path = Path(output_dir) / "dataset_description.json"
    if path.exists() or path.is_symlink():
        content = load_json(path)
        programs = [str(program.get("Name")) for program in _programs(content)]
        if "brainnrds" not in programs:
            raise InputError(
                f"Output directory must be empty or brainnrds' own; {path} is of "
                f"{', '.join(programs) or content.get('Name', 'another program')}."
            )


def _programs(description):
    """GeneratedBy of a dataset_description.json, which others fill in as they like."""
    programs = description.get("GeneratedBy")
    programs = programs if isinstance(programs, list) else [programs]
    return [program for program in programs if isinstance(program, dict)]


def to_label(text):
    """Turn any name into a BIDS label: letters and digits only.

    Parameters
    ----------
    text : str

    Returns
    -------
    label : str
        Where letters of other alphabets are lost, eight digits of a hash tell names apart.

    Raises
    ------
    InputError
        An empty name.

    Examples
    --------
    >>> to_label("clips/big-bunny_01")
    'clipsbigbunny01'
    >>> to_label("фильм1")
    '1a283e4b9'
    """
    text = str(text)
    label = re.sub(r"[^0-9a-zA-Z]+", "", text)
    if not text.strip():
        raise InputError(f"A BIDS label needs letters or digits; got {text!r}.")
    if not label or not text.isascii():
        label += hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return label


def derivative_path(output_dir, name, entities):
    """Say where a result goes; touches no file.

    Parameters
    ----------
    output_dir : path-like
    name : str
        A pattern of ``bids_specs/derivatives.json``: "map", "table", "flow", "figure", ...
    entities : dict
        Entity -> label, for example ``dict(subject="01", task="movie", feat="video",
        stat="r", space="fsaverage5", hemi="L", extension=".func.gii")``. None leaves an optional
        entity out. Without a subject the result is the group's.

    Returns
    -------
    path : Path
        Inside `output_dir`.

    Raises
    ------
    ValueError
        Unknown name or entity, a label that is not alphanumeric, or a missing entity.
    """
    from bids.layout.writing import build_path

    patterns = specification()["patterns"]
    if name not in patterns:
        raise InputError(f"`name` must be one of {sorted(patterns)}; got {name!r}.")
    entities = {key: str(value) for key, value in entities.items() if value is not None}
    for key, value in entities.items():
        if key != "extension" and not _LABEL.fullmatch(value):
            raise InputError(
                f"Entity {key!r} must have a label of letters and digits; got {value!r}."
            )
    # the group's patterns have no subject, so that strict matching never mixes the two up
    path = build_path(entities, patterns[name], strict=True)
    if path is None:
        raise InputError(
            f"No pattern of {name!r} fits the entities {entities}; the patterns are "
            f"{patterns[name]}."
        )
    return Path(output_dir) / path


def find_results(output_dir, entities, desc):
    """Find what an analysis wrote.

    Parameters
    ----------
    output_dir : path-like
    entities : dict
        "subject", and "task" and "space" or None; without a subject the group's results.
    desc : str
        Of the analysis; files whose ``desc`` begins with it and goes on in capitals are its own.

    Returns
    -------
    paths : list of Path
    """
    subject = entities.get("subject")
    folder = Path(output_dir) / (f"sub-{subject}" if subject else "group")
    own = re.compile(rf"{desc}([A-Z]\w*)?")
    found = []
    # hidden files are another process' that are not whole yet
    for path in sorted(folder.rglob("[!.]*")):
        labels = dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)
        same = all(labels.get(key) == entities.get(key) for key in ("task", "space"))
        if path.is_file() and same and own.fullmatch(labels.get("desc", "")):
            found.append(path)
    return found


def write_dataset_description(output_dir, bids_dir, *, name="brainnrds", derivatives=None):
    """Describe the output folder as a BIDS derivative data set.

    Parameters
    ----------
    output_dir, bids_dir : path-like
    name : str, default="brainnrds"
        Name of the data set.
    derivatives : path-like or None, default=None
        The preprocessed data that were read; named in SourceDatasets too.

    Returns
    -------
    path : Path
        Of dataset_description.json. ``.bidsignore`` beside it lists the provisional names.

    Raises
    ------
    InputError
        The folder holds the data set of another program.
    """
    output_dir = Path(output_dir)
    path = output_dir / "dataset_description.json"
    _check_own(output_dir)
    generated = {"Name": "brainnrds", "Version": brainnrds.__version__}
    container = _container()
    if container:
        generated["Container"] = container
    sources = [folder for folder in (bids_dir, derivatives) if folder is not None]
    content = {
        "Name": name,
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "see the source data",
        "GeneratedBy": [generated],
        "SourceDatasets": [_source(output_dir, Path(folder)) for folder in sources],
        "HowToAcknowledge": "Cite the papers listed in the report's methods section.",
    }
    save_json(path, content)
    with atomic_path(output_dir / ".bidsignore") as temporary:
        temporary.write_text("\n".join(specification()["provisional"]) + "\n")
    return path


def _container():
    for variable in ("APPTAINER_NAME", "SINGULARITY_NAME"):
        if variable in os.environ:
            return {"Type": "singularity", "Tag": os.environ[variable]}
    return {"Type": "docker"} if Path("/.dockerenv").exists() else None


def _source(output_dir, folder):
    """Name a source by what its own description says, and where it lies relative to the output."""
    source = {"URL": Path(os.path.relpath(folder.resolve(), output_dir.resolve())).as_posix()}
    description = folder / "dataset_description.json"
    if description.exists():
        content = load_json(description)
        if content.get("DatasetDOI"):
            source["DOI"] = content["DatasetDOI"]
        version = next((program.get("Version") for program in _programs(content)), None)
        if version:
            source["Version"] = version
    return source


def save_map(output_dir, values, masker, entities, *, metadata=None, name="map"):
    """Write one value (or several) per voxel in the space of the data, with its sidecar.

    Parameters
    ----------
    output_dir : path-like
    values : array of shape (n_voxels,) or (n_maps, n_voxels)
        Several maps become one 4-D image; NaN says "no value here".
    masker : fitted masker
        nilearn's NiftiMasker or SurfaceMasker, or `CiftiMasker`: what `load_runs` returned.
    entities : dict
        As `derivative_path` takes them, with `space` and `stat`; `hemi` and `extension` are set
        here.
    metadata : dict or None, default=None
        For the sidecar.
    name : str, default="map"

    Returns
    -------
    paths : tuple of Path
        One NIfTI (.nii.gz) or CIFTI (.dscalar.nii), or the left and the right GIFTI (.func.gii).
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim not in (1, 2):
        raise InputError(
            f"`values` must have shape (n_voxels,) or (n_maps, n_voxels); got {values.shape}."
        )
    return _save_image(output_dir, masker.inverse_transform(values), entities, metadata, name)


def save_series(output_dir, values, masker, entities, *, t_r, metadata=None):
    """Write predicted BOLD as an image of time series, with its sidecar.

    Parameters
    ----------
    output_dir : path-like
    values : array of shape (n_volumes, n_voxels)
    masker : fitted masker
    entities : dict
        As `derivative_path` takes them, with `space`; `hemi` and `extension` are set here.
    t_r : float
        Repetition time in s.
    metadata : dict or None, default=None
        For the sidecar.

    Returns
    -------
    paths : tuple of Path
        One NIfTI (.nii.gz) or CIFTI (.dtseries.nii), or the left and the right GIFTI (.func.gii).
    """
    import nibabel as nib

    image = masker.inverse_transform(check_bold(values, name="values"))
    if isinstance(image, nib.Cifti2Image):
        image = masker.make_series(image.dataobj, t_r)
    elif isinstance(image, nib.spatialimages.SpatialImage):
        image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
        image.header.set_xyzt_units("mm", "sec")
    metadata = {"RepetitionTime": t_r, **(metadata or {})}
    return _save_image(output_dir, image, entities, metadata, "predictions")


def _save_image(output_dir, image, entities, metadata, name):
    """Write an image as one file, or as one for each hemisphere, with sidecars."""
    import nibabel as nib

    if isinstance(image, nib.Cifti2Image):
        is_series = isinstance(image.header.get_axis(0), nib.cifti2.SeriesAxis)
        parts = {None: (".dtseries.nii" if is_series else ".dscalar.nii", image)}
    elif isinstance(image, nib.spatialimages.SpatialImage):
        image.set_data_dtype(np.float32)
        parts = {None: (".nii.gz", image)}
    else:
        parts = {
            hemi: (".func.gii", _gifti(image.data.parts[side], structure))
            for hemi, (side, structure) in _HEMISPHERES.items()
        }
    paths = []
    for hemi, (extension, part) in parts.items():
        path = derivative_path(output_dir, name, {**entities, "hemi": hemi, "extension": extension})
        with atomic_path(path) as temporary:
            nib.save(part, temporary)
        save_json(sidecar_path(path), provenance(metadata))
        paths.append(path)
    return tuple(paths)


def _gifti(values, structure):
    import nibabel as nib

    values = np.asarray(values, dtype=np.float32)
    if values.ndim == 1:
        values = values[:, np.newaxis]
    arrays = [
        nib.gifti.GiftiDataArray(
            np.ascontiguousarray(column),
            intent="NIFTI_INTENT_NONE",
            datatype="NIFTI_TYPE_FLOAT32",
        )
        for column in values.T
    ]
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": structure})
    return nib.gifti.GiftiImage(darrays=arrays, meta=meta)


def load_map(paths, masker):
    """Read what `save_map` wrote, as an array.

    Parameters
    ----------
    paths : path-like or (left, right)
    masker : fitted masker
        Of the same space.

    Returns
    -------
    values : array of float32 of shape (n_voxels,) or (n_maps, n_voxels)
    """
    paths = (paths,) if isinstance(paths, (str, Path)) else paths
    values = read_maps(tuple(Path(path) for path in paths), masker)
    return values[0] if len(values) == 1 else values


def load_group_maps(paths, *, masker=None):
    """Read one map of several participants, as they were written by `save_map`.

    Parameters
    ----------
    paths : list of (tuple of path-like)
        For each participant one file, or the left and the right GIFTI.
    masker : fitted masker or None, default=None
        Of another map of these participants, to have the same voxels. None: all that there are; in
        volumes those that any of them has.

    Returns
    -------
    values : array of float32 of shape (n_participants, n_voxels)
        NaN where a participant has no value.
    masker : fitted masker

    Raises
    ------
    InputError
        A file is missing or damaged, or the grids differ.
    """
    import nibabel as nib

    paths = [tuple(Path(path) for path in files) for files in paths]
    mask = None
    is_volume = paths[0][0].name.endswith((".nii.gz", ".nii")) and "dscalar" not in paths[0][0].name
    if is_volume and masker is None:
        # outside a participant's mask a map is 0; inside, "no value" is NaN
        for files in paths:
            with open_image(files[0]) as image:
                first = image if mask is None else mask
                if not on_grid(image, first):
                    raise InputError(
                        f"Maps must share a grid: {paths[0][0]} has {first.shape[:3]} voxels, "
                        f"{files[0]} has {image.shape[:3]}, or they lie elsewhere."
                    )
                inside = np.asarray(image.dataobj) != 0
            if mask is not None:
                inside |= np.asarray(mask.dataobj) > 0
            mask = nib.Nifti1Image(inside.astype(np.uint8), first.affine)
    if masker is None:
        masker = make_masker(paths[0], mask)
    values = np.concatenate([read_maps(files, masker) for files in paths])
    if is_volume:
        values[values == 0] = np.nan
    return values, masker


def save_flow(path, flow, *, arrays=None, metadata=None):
    """Write flow as HDF5 (dataset "flow", one chunk per clip), with a JSON sidecar.

    Opens with any HDF5 reader, for example ``h5py.File(path)["flow"][3]``.

    Parameters
    ----------
    path : path-like
        Ends in .h5.
    flow : array of shape (n_clips, n_steps, 2, height, width)
        Channel 0 = dx right, 1 = dy down; pixels of this grid per step.
    arrays : dict or None, default=None
        More arrays for the same file, e.g. ``mask``, ``films``, ``times`` (s).
    metadata : dict or None, default=None

    Returns
    -------
    path : Path
    """
    if np.ndim(flow) != 5 or np.shape(flow)[2] != 2:
        raise InputError(
            f"`flow` must have shape (n_clips, n_steps, 2, height, width); got {np.shape(flow)}."
        )
    described = {
        "Description": "Optical flow, float32",
        "Axes": ["clip", "step", "channel (0: dx right, 1: dy down)", "row", "column"],
        "Units": "pixels of this grid per step",
        **(metadata or {}),
    }
    flow = np.asarray(flow, dtype=np.float32)
    path = save_arrays(path, {"flow": flow, **(arrays or {})}, metadata=described)
    save_json(sidecar_path(path), provenance(described))
    return path


def load_flow(path):
    """Read what `save_flow` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    flow : array of float32 of shape (n_clips, n_steps, 2, height, width)
    arrays : dict
        The other arrays of the file.
    metadata : dict
    """
    arrays, metadata = load_arrays(path)
    if "flow" not in arrays:
        raise InputError(f"{path} must hold flow; got {sorted(arrays)}.")
    return arrays.pop("flow"), arrays, metadata


def save_clips(path, clips, *, fps, arrays=None, metadata=None):
    """Write clips as 8-bit HDF5 (dataset "clips", one chunk per clip), with a JSON sidecar.

    Lossless to 1/255, so that scores computed after a resume are the same; `write_clip` makes
    videos to look at.

    Parameters
    ----------
    path : path-like
        Ends in .h5.
    clips : array of shape (n_clips, n_frames, 3, height, width)
        In [0, 1].
    fps : float
        Frames per second.
    arrays : dict or None, default=None
        More arrays for the same file.
    metadata : dict or None, default=None

    Returns
    -------
    path : Path
    """
    if np.ndim(clips) != 5 or np.shape(clips)[2] != 3:
        raise InputError(
            f"`clips` must have shape (n_clips, n_frames, 3, height, width); got {np.shape(clips)}."
        )
    described = {
        "Description": "Clips, 8 bit: divide by 255",
        "Axes": ["clip", "frame", "channel (red, green, blue)", "row", "column"],
        "FrameRate": float(fps),
        **(metadata or {}),
    }
    images = np.round(np.clip(clips, 0, 1) * 255).astype(np.uint8)
    path = save_arrays(path, {"clips": images, **(arrays or {})}, metadata=described)
    save_json(sidecar_path(path), provenance(described))
    return path


def load_clips(path):
    """Read what `save_clips` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    clips : array of float32 of shape (n_clips, n_frames, 3, height, width)
        In [0, 1].
    arrays : dict
        The other arrays of the file.
    metadata : dict
        `FrameRate` in Hz among it.
    """
    arrays, metadata = load_arrays(path)
    if "clips" not in arrays:
        raise InputError(f"{path} must hold clips; got {sorted(arrays)}.")
    return arrays.pop("clips").astype(np.float32) / 255, arrays, metadata
