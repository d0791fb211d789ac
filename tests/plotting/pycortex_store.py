"""A subject of a pycortex store, small and round, written by pycortex itself."""

import numpy as np

NAMES = {"pial": "pia", "white": "wm", "inflated": "inflated", "flat": "flat"}
N_VERTICES = (1026, 258)
_RADII = {"pial": 30.0, "white": 27.0, "inflated": 33.0}
_CENTER = 40.0  # mm from the midline
_CUT = np.deg2rad(125)  # from the middle of the lateral side: what lies behind it is not flat


def sphere(n_divisions):
    """Unit vectors and faces, which look outwards, of a divided octahedron."""
    xyz = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
    faces = [(i, 2 + j, 4 + k)[:: (-1) ** (i + j + k)] for i, j, k in np.ndindex(2, 2, 2)]
    xyz = [np.array(vertex, float) for vertex in xyz]
    for _ in range(n_divisions):
        between, divided = {}, []

        def middle(*ends, between=between):
            if frozenset(ends) not in between:
                place = xyz[ends[0]] + xyz[ends[1]]
                between[frozenset(ends)] = len(xyz)
                xyz.append(place / np.linalg.norm(place))
            return between[frozenset(ends)]

        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            divided += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = divided
    return np.array(xyz), np.array(faces)


def make_meshes(*, flat=True):
    """Meshes by name and side: two spheres of other sizes in number."""
    meshes = {name: {} for name in NAMES if flat or name != "flat"}
    for side, outwards, n_divisions in (("left", -1, 4), ("right", 1, 3)):
        xyz, faces = sphere(n_divisions)
        for name, radius in _RADII.items():
            meshes[name][side] = radius * xyz + (outwards * _CENTER, 0, 0), faces
        if flat:
            angle = np.arccos(np.clip(outwards * xyz[:, 0], -1, 1))
            # seen from outside, the front is on the left of the left hemisphere
            plane = xyz[:, 1:] * (outwards, 1)
            plane /= np.maximum(np.linalg.norm(plane, axis=1, keepdims=True), 1e-9)
            spread = np.column_stack([40 * angle[:, None] * plane, np.zeros(len(xyz))])
            meshes["flat"][side] = spread, faces[(angle[faces] < _CUT).all(axis=1)]
    return meshes


def write_pycortex_subject(folder, meshes=None):
    """Write a subject into a store; return its folder and what its meshes are."""
    from cortex.formats import write_gii

    meshes = meshes or make_meshes()
    (folder / "surfaces").mkdir(parents=True)
    for name, sides in meshes.items():
        for side, (xyz, faces) in sides.items():
            path = folder / "surfaces" / f"{NAMES[name]}_{side[0]}h.gii"
            write_gii(str(path), pts=xyz.astype(np.float32), polys=faces.astype(np.int32))
    return folder, meshes
