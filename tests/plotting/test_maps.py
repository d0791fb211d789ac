"""Where a patch of cortex lands in the drawn pixels, against its coordinates in the template."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from pycortex_store import write_pycortex_subject

from brainnrds.plotting import (
    image_to_vertices,
    maps,
    plot_difference_map,
    plot_flatmap,
    plot_rgb_map,
    plot_surface_views,
    plot_volume_map,
    significance_to_opacity,
    surfaces,
)

TEMPLATES = {"fsaverage5": surfaces.load_fsaverage5, "fsLR": surfaces.load_fs_lr}
ENGINES = ("pycortex", "matplotlib")

# landmarks by their coordinates (x right, y anterior, z superior; mm), not by the flat mesh:
# lateral convexity, so that the cuts of the flat mesh do not split the patches
LANDMARKS = {
    "occipital": (30, -88, 8),  # middle occipital gyrus
    "frontal": (36, 42, 20),  # middle frontal gyrus
    "dorsal": (30, -25, 65),  # hand area
    "ventral": (50, -45, -20),  # inferior temporal gyrus
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pial(template):
    return [template.meshes["pial"][side][0] for side in ("left", "right")]


def patch(template, side, landmark, radius=12.0):
    """Values 1 around a landmark of one hemisphere, NaN elsewhere."""
    left, right = pial(template)
    place = np.array(LANDMARKS[landmark]) * (-1 if side == "left" else 1, 1, 1)
    values = np.full(len(left) + len(right), np.nan)
    start = 0 if side == "left" else len(left)
    xyz = left if side == "left" else right
    near = np.linalg.norm(xyz - place, axis=1) < radius
    assert near.sum() > 20
    values[start : start + len(xyz)][near] = 1.0
    return values


def colored_center(figure, axes=None, half=None):
    """Centre (x, y) of the colourful pixels of an axes, in [0, 1] from left and bottom."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float) / 255
    axes = axes or next(a for a in figure.axes if a.get_label() == "flatmap")
    box = axes.get_position()
    height, width = pixels.shape[:2]
    top, bottom = round((1 - box.y1) * height), round((1 - box.y0) * height)
    left, right = round(box.x0 * width), round(box.x1 * width)
    colorful = np.ptp(pixels[top:bottom, left:right], axis=2) > 0.4
    middle = colorful.shape[1] // 2
    if half is not None:
        colorful[:, slice(middle, None) if half == "left" else slice(None, middle)] = False
    rows, columns = np.nonzero(colorful)
    if len(rows) < 20:
        return None
    return columns.mean() / colorful.shape[1], 1 - rows.mean() / colorful.shape[0]


def patches(template, left, right):
    """One patch in each hemisphere."""
    return np.fmax(patch(template, "left", left), patch(template, "right", right))


PAIRS = (("occipital", "frontal"), ("frontal", "occipital"), ("dorsal", "ventral"))


@pytest.mark.parametrize(
    ("space", "engine"),
    [("fsaverage5", "pycortex"), ("fsaverage5", "matplotlib"), ("fsLR", "pycortex")],
)
def test_flatmap_is_not_mirrored_or_upside_down(space, engine):
    template = TEMPLATES[space]()
    centers = {}
    for pair in PAIRS:
        figure = plot_flatmap(patches(template, *pair), cmap="autumn", engine=engine)
        for half, landmark in zip(("left", "right"), pair, strict=True):
            centers[half, landmark] = colored_center(figure, half=half)
    # the left hemisphere is drawn left; the occipital lobes lie towards the middle; dorsal is up
    assert centers["left", "frontal"][0] < 0.25 < 0.33 < centers["left", "occipital"][0] < 0.5
    assert 0.5 < centers["right", "occipital"][0] < 0.67 < 0.75 < centers["right", "frontal"][0]
    assert centers["left", "dorsal"][1] > 0.6 and centers["right", "ventral"][1] < 0.5


@pytest.mark.parametrize("space", TEMPLATES)
def test_both_engines_put_a_patch_at_the_same_place(space):
    pairs = (("left", "frontal"), ("right", "ventral"))
    for side, landmark in pairs if space == "fsaverage5" else pairs[:1]:
        values = patch(TEMPLATES[space](), side, landmark)
        centers = [
            colored_center(plot_flatmap(values, cmap="autumn", engine=engine)) for engine in ENGINES
        ]
        np.testing.assert_allclose(*centers, atol=0.02)


def test_flatmaps_of_a_subjects_own_surfaces_show_its_places(tmp_path):
    """The front above, which is outside and up on its flat surface, whoever draws."""
    folder, meshes = write_pycortex_subject(tmp_path / "S1")
    places = np.concatenate([meshes["pial"][side][0] for side in ("left", "right")])
    values = np.where((places[:, 1] > 12) & (places[:, 2] > 12), 1.0, np.nan)
    for engine in ENGINES:
        how = {"cmap": "autumn", "engine": engine, "pycortex_subject": folder}
        figure = plot_flatmap(values, **how)
        left, right = (colored_center(figure, half=half) for half in ("left", "right"))
        assert left[0] < 0.2 and right[0] > 0.8 and min(left[1], right[1]) > 0.6
        figure = plot_difference_map(
            values, np.full(1284, 0.01), engine=engine, **{"pycortex_subject": folder}
        )
        assert colored_center(figure, half="left")[0] < 0.2
        figure = plot_rgb_map([values] * 3, engine=engine, pycortex_subject=folder)
        assert figure.axes
    figure = plot_surface_views(values, cmap="autumn", pycortex_subject=folder)
    view = next(axes for axes in figure.axes if axes.get_title() == "left, lateral")
    center = colored_center(figure, view)
    assert center[0] < 0.5 < center[1]


def test_surface_views_are_not_mirrored_or_upside_down():
    template = surfaces.load_fsaverage5()
    centers = {}
    for pair in PAIRS:
        figure = plot_surface_views(patches(template, *pair), cmap="autumn")
        views = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
        for side, landmark in zip(("left", "right"), pair, strict=True):
            centers[side, landmark] = colored_center(figure, views[f"{side}, lateral"])
    # seen from the left, the front is on the left; seen from the right, on the right
    assert centers["left", "frontal"][0] < 0.5 < centers["left", "occipital"][0]
    assert centers["right", "frontal"][0] > 0.5 > centers["right", "occipital"][0]
    assert centers["left", "dorsal"][1] > 0.6 and centers["right", "ventral"][1] < 0.5


@pytest.mark.parametrize("engine", ENGINES)
def test_difference_is_red_where_video_wins_and_gray_where_not_significant(engine):
    template = surfaces.load_fsaverage5()
    left = patch(template, "left", "frontal")
    right = patch(template, "right", "frontal")
    difference = np.nan_to_num(left) - np.nan_to_num(right)
    p_values = np.where(difference != 0, 0.001, 1.0)

    def mean_color(half, p):
        figure = plot_difference_map(difference, p, vmax=1.3, engine=engine)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float) / 255
        pixels = pixels[: round(0.8 * len(pixels))]  # above the colour bar
        middle = pixels.shape[1] // 2
        pixels = pixels[:, :middle] if half == "left" else pixels[:, middle:]
        colorful = np.ptp(pixels, axis=2) > 0.3
        return np.median(pixels[colorful], axis=0) if colorful.sum() > 50 else None

    expected = plt.get_cmap("RdBu_r")
    np.testing.assert_allclose(
        mean_color("left", p_values), expected(0.5 + 0.5 / 1.3)[:3], atol=0.08
    )
    np.testing.assert_allclose(
        mean_color("right", p_values), expected(0.5 - 0.5 / 1.3)[:3], atol=0.08
    )
    assert mean_color("left", np.ones_like(p_values)) is None
    # without p-values everything is opaque, and the colour bar promises nothing else
    np.testing.assert_allclose(mean_color("right", None), mean_color("right", p_values), atol=0.02)
    bar = plot_difference_map(difference, engine=engine).axes[1]
    assert not bar.get_yticks().size


@pytest.mark.parametrize("engine", ENGINES)
def test_three_maps_are_red_green_and_blue(engine):
    template = surfaces.load_fsaverage5()
    left = np.isfinite(patch(template, "left", "frontal"))
    right = np.isfinite(patch(template, "right", "frontal"))
    three = np.where(left | right, [left, right, 0 * left], np.nan)

    def mean_colors(three):
        figure = plot_rgb_map(three, labels=["a", "b (7 %)", "c"], engine=engine)
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.axes[1].texts]
        assert texts == ["red: a", "green: b (7 %)", "blue: c"]
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float) / 255
        halves = np.array_split(pixels[: round(0.8 * len(pixels))], 2, axis=1)
        return [np.median(half[np.ptp(half, axis=2) > 0.3], axis=0) for half in halves]

    np.testing.assert_allclose(mean_colors(three), [(1, 0, 0), (0, 1, 0)], atol=0.1)
    np.testing.assert_allclose(mean_colors(three[[2, 1, 0]]), [(0, 0, 1), (0, 1, 0)], atol=0.1)
    with pytest.raises(ValueError, match="must be three each; got 2 and 3"):
        plot_rgb_map(three[:2])


def test_opacity_follows_the_logarithm_of_p():
    p_values = np.array([0.0, 0.001, 0.05, np.sqrt(0.05 * 0.5), 0.5, 1.0, np.nan])
    np.testing.assert_allclose(
        significance_to_opacity(p_values), [1, 1, 1, 0.5, 0, 0, 0], atol=1e-12
    )
    with pytest.raises(ValueError, match=r"\[0, 1\]; got values in \[-1, 0.5\]"):
        significance_to_opacity([-1, 0.5])
    with pytest.raises(ValueError, match="alpha < fade"):
        significance_to_opacity([0.5], alpha=0.6)


def pixels_of(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


@pytest.mark.parametrize("kind", ("surface", "cifti", "volume"))
def test_figures_draw_an_image_as_its_values(kind):
    rng = np.random.default_rng(1)
    maps_and_p = []
    for low in (-1, 0.01):  # a difference, and p-values
        if kind == "surface":
            template = surfaces.load_fsaverage5()
            mesh = PolyMesh(
                **{s: InMemoryMesh(*template.meshes["pial"][s]) for s in ("left", "right")}
            )
            parts = {side: rng.uniform(low, 1, 10242) for side in ("left", "right")}
            maps_and_p.append(SurfaceImage(mesh, parts))
        elif kind == "cifti":
            tables = [
                nibabel.cifti2.BrainModelAxis.from_surface(np.arange(32492), 32492, name)
                for name in ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
            ]
            axes = (nibabel.cifti2.ScalarAxis(["score"]), tables[0] + tables[1])
            maps_and_p.append(nibabel.Cifti2Image(rng.uniform(low, 1, (1, 64984)), axes))
        else:
            affine = np.diag([10.0, 10, 10, 1])
            affine[:3, 3] = (-90, -126, -72)
            data = rng.uniform(low, 1, (19, 23, 19)).astype(np.float32)
            maps_and_p.append(nibabel.Nifti1Image(data, affine))
    values = [image_to_vertices(image) for image in maps_and_p]
    np.testing.assert_array_equal(
        pixels_of(plot_difference_map(*maps_and_p)), pixels_of(plot_difference_map(*values))
    )
    np.testing.assert_array_equal(
        pixels_of(plot_flatmap(maps_and_p[0])), pixels_of(plot_flatmap(values[0]))
    )


@pytest.mark.parametrize("x", (-45, 45))
def test_volumes_in_mni_space_land_on_the_right_hemisphere(x):
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = (-78, -112, -70)
    voxels = np.indices((53, 64, 52)).reshape(3, -1).T
    world = nibabel.affines.apply_affine(affine, voxels)
    data = np.exp(-(np.linalg.norm(world - [x, -70, 2], axis=1) ** 2) / 2 / 12**2)
    image = nibabel.Nifti1Image(data.reshape(53, 64, 52).astype(np.float32), affine)
    values = image_to_vertices(image)
    assert values.shape == (20484,)
    found = np.concatenate(pial(surfaces.load_fsaverage5()))[np.nanargmax(values)]
    assert np.linalg.norm(found - [x, -70, 2]) < 10
    assert plot_volume_map(image, label="Pearson r").axes


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_without_any_value_are_drawn(engine):
    empty = np.full(20484, np.nan)
    assert colored_center(plot_flatmap(empty, engine=engine)) is None
    assert colored_center(plot_difference_map(empty, empty, engine=engine)) is None


def test_color_bar_says_what_and_how_far():
    values = np.linspace(-1, 3, 20484)
    figure = plot_flatmap(values, label="Pearson r", title="A map", vmax=2.0, engine="matplotlib")
    bar = next(a for a in figure.axes if a.get_label() == "colorbar")
    assert bar.get_xlabel() == "Pearson r"
    assert bar.get_xlim() == (0.0, 2.0)
    assert figure.get_suptitle() == "A map"
    assert np.allclose(maps._limits(values, None, None, symmetric=True), (-2.92, 2.92), atol=0.02)
    assert maps._limits(-np.ones(9), None, None, symmetric=False)[0] == 0.0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"`image` .*\(20484,\).*\(64984,\).*got float64 \(100,\)"):
        plot_flatmap(np.zeros(100))
    with pytest.raises(ValueError, match=r"`p_values` must lie .* \(20484,\); got \(64984,\)"):
        plot_difference_map(np.zeros(20484), np.zeros(64984))
    with pytest.raises(ValueError, match="SurfaceImage.*got str"):
        plot_flatmap("map.nii.gz")
    with pytest.raises(ValueError, match="`vmin` must be below `vmax`; got vmin=1, vmax=0"):
        plot_flatmap(np.zeros(20484), vmin=1, vmax=0)
    with pytest.raises(ValueError, match="`engine` must be"):
        plot_flatmap(np.zeros(20484), engine="freesurfer")


def test_without_pycortex_matplotlib_draws(monkeypatch):
    find_spec = maps.importlib.util.find_spec
    monkeypatch.setattr(
        maps.importlib.util, "find_spec", lambda name: None if name == "cortex" else find_spec(name)
    )
    values = patch(surfaces.load_fsaverage5(), "left", "frontal")
    assert colored_center(plot_flatmap(values, cmap="autumn"))[0] < 0.5
    with pytest.raises(ImportError, match=r"brainnrds\[flatmap\]"):
        plot_flatmap(values, engine="pycortex")


DRAW = """
import numpy as np
from brainnrds.plotting import plot_difference_map
plot_difference_map(np.linspace(-1, 1, 20484), np.full(20484, .01), engine="pycortex")
import cortex
assert not cortex.db.filestore.startswith(__import__("tempfile").gettempdir() + "/brainnrds"), (
    cortex.db.filestore)
assert "brainnrds" not in str(cortex.options.config.get("basic", "cache", fallback=""))
"""


@pytest.mark.parametrize("stale", (False, True))
def test_the_users_pycortex_is_left_alone_and_silent(tmp_path, stale):
    config = tmp_path / ".config" / "pycortex" / "options.cfg"
    text = "[basic]\nfilestore = /gone/db\n[webgl]\ncolormaps = /gone/colormaps\n"
    if stale:  # written by an environment that is no more
        config.parent.mkdir(parents=True)
        config.write_text(text)
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_CONFIG_HOME", "DISPLAY")}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRAW],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    # nilearn, nibabel and matplotlib may say what they like; pycortex says nothing
    said = result.stdout + result.stderr
    assert "nkscape" not in said and "flatmap cache" not in said and result.stdout == ""
    if stale:
        assert config.read_text() == text
    else:
        assert not config.parent.exists()
    assert not list(tmp_path.glob("brainnrds-*")), "the store is removed at exit"


def test_a_mask_under_slices_is_grey_on_white():
    """Half of the brain has a value: the other half must be seen, and nothing beside the brain."""
    affine = nibabel.affines.from_matvec(6 * np.eye(3), [-57, -57, -57])
    x, y, z = nibabel.affines.apply_affine(affine, np.indices((20, 20, 20)).T).T
    mask = x**2 + y**2 + z**2 < 50**2
    values = np.where(mask & (x < 0), 1.0, 0).astype(np.float32)
    images = [nibabel.Nifti1Image(a.astype(np.float32), affine) for a in (values, mask)]
    pixels = pixels_of(plot_volume_map(images[0], cmap="autumn", background=images[1]))[..., :3]
    axial = pixels[round(0.1 * len(pixels)) : round(0.46 * len(pixels))].reshape(-1, 3).astype(int)
    is_gray = (np.ptp(axial, axis=1) < 5) & (abs(axial[:, 0] - 255 * maps._GYRUS) < 5)
    is_colored = np.ptp(axial, axis=1) > 100
    assert is_colored.sum() > 2000
    assert 0.7 < is_gray.sum() / is_colored.sum() < 1.3
    assert (axial.min(axis=1) == 255).mean() > 0.3, "beside the brain"
