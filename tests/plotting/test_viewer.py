"""The brain to turn: what the page holds, and what a browser makes of it."""

import base64
import json
import re

import nibabel as nib
import numpy as np
import pytest
from chromium import CHROMIUM, Chromium
from pycortex_store import write_pycortex_subject

from brainnrds.plotting import surfaces, view_maps, view_slices, viewer

TEMPLATES = {"fsaverage5": surfaces.load_fsaverage5, "fsLR": surfaces.load_fs_lr}


def content(page):
    return json.loads(re.search(r"^const brain = (.*)$", page, re.M).group(1))


def decode(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def unpack(content):
    """Faces of a page, byte by byte."""
    numbers, number, bits = [], 0, 0
    for byte in content.tolist():
        number |= (byte & 127) << bits
        bits += 7
        if byte < 128:
            numbers.append(number)
            number = bits = 0
    steps = np.array(numbers).reshape(-1, 3)
    first = np.cumsum(steps[:, :1], axis=0)
    return np.hstack([first, first + steps[:, 1:]])


def in_order(faces):
    """Faces in one order, each from its smallest corner, the way round kept."""
    return sorted(min((a, b, c), (b, c, a), (c, a, b)) for a, b, c in faces.tolist())


@pytest.mark.parametrize("space", TEMPLATES)
def test_page_holds_maps_meshes_and_parcels(space):
    template = TEMPLATES[space]()
    n = sum(template.n_vertices)
    rng = np.random.default_rng(0)
    difference, q_values = rng.normal(size=n), rng.uniform(0.001, 1, n)
    difference[5] = np.nan
    parcels = np.where(np.arange(n) % 2, "V1", "")
    page = view_maps(
        {"difference": difference, "r": np.abs(difference)},
        p_values={"difference": q_values},
        parcels=parcels,
        signed=["difference"],
    )
    assert len(page) < 15e6
    brain = content(page)
    first, second = brain["maps"]
    np.testing.assert_array_equal(decode(first["values"], "<f2"), difference.astype("f2"))
    found = decode(first["p"], "<f2").astype(float)
    # never below what it is, so that none passes a threshold by rounding
    assert (found >= q_values).all() and (found < 1.001 * q_values).all()
    assert second["p"] is None
    assert first["vmin"] == -first["vmax"] and second["vmin"] == 0
    # 0 is white where colours have a sign
    assert decode(first["colors"], "u1").reshape(256, 3)[127:129].min() > 240
    start = decode(brain["parcels"], "<i4")
    assert [brain["parcelNames"][i] if i >= 0 else "" for i in start] == parcels.tolist()
    places = 0.01 * decode(brain["xyz"], "<i2").reshape(-1, 3)
    faces = unpack(decode(brain["faces"], "u1"))
    gyri = np.unpackbits(decode(brain["gyri"], "u1"), count=n)
    np.testing.assert_array_equal(gyri, np.concatenate([*template.curvature.values()]) > 0)
    assert len(faces) == brain["nFaces"]
    half, half_faces = brain["nLeft"], brain["nLeftFaces"]
    ends = []
    for side, mine, triangles in (
        ("left", places[:half], faces[:half_faces]),
        ("right", places[half:], faces[half_faces:] - half),
    ):
        xyz, expected = template.meshes["inflated"][side]
        np.testing.assert_allclose(mine[:, 1:], xyz[:, 1:], atol=0.0051)
        np.testing.assert_allclose(np.diff(mine[:, 0]), np.diff(xyz[:, 0]), atol=0.0101)
        assert in_order(triangles) == in_order(expected)
        ends.append((mine[:, 0].min(), mine[:, 0].max()))
    assert ends[0][1] < 0 < ends[1][0], "hemispheres do not overlap"


def test_names_cannot_leave_their_place():
    evil = "</script><script>alert(1)</script>"
    page = view_maps({evil: np.zeros(20484)}, title=evil)
    assert "alert(1)" in page and evil not in page
    assert content(page)["maps"][0]["name"] == evil


def test_wrong_input_is_refused():
    values = np.zeros(20484)
    with pytest.raises(ValueError, match="one map at least"):
        view_maps({})
    with pytest.raises(ValueError, match=r"`p_values` must name maps .*got \['b'\]"):
        view_maps({"a": values}, p_values={"b": values})
    with pytest.raises(ValueError, match=r"`signed` must name maps .*got \['b'\]"):
        view_maps({"a": values}, signed=["b"])
    with pytest.raises(ValueError, match="one space; got .*fsaverage5.*fsLR"):
        view_maps({"a": values, "b": np.zeros(64984)})
    with pytest.raises(ValueError, match=r"`parcels` must have shape \(20484,\); got \(3,\)"):
        view_maps({"a": values}, parcels=["x", "y", "z"])


def test_maps_beyond_the_size_of_a_page_are_named_not_shown(monkeypatch):
    every = {f"map {i}": np.full(20484, float(i + 1)) for i in range(4)}
    whole = view_maps(every)
    monkeypatch.setattr(viewer, "_LARGEST_PAGE", len(whole) - 100000)
    page = view_maps(every)
    brain = content(page)
    assert [m["name"] for m in brain["maps"]] == ["map 0", "map 1"]
    assert brain["note"] == "\nLeft out, for the size of the page: map 2, map 3."
    assert len(page) < len(whole) - 2 * 54000


def test_slices_hold_the_voxels_that_have_a_value():
    affine = np.diag([2.0, 2, 3, 1])
    values = np.zeros((5, 6, 4), np.float32)
    values[1:4, 2:5, 1:3] = np.random.default_rng(0).normal(size=(3, 3, 2))
    values[2, 2, 1] = np.nan
    image = nib.Nifti1Image(values, affine)
    nothing = nib.Nifti1Image(np.zeros_like(values), affine)
    brain = content(view_slices({"r": image}, anatomy=nothing))
    assert brain["shape"] == [3, 3, 2] and brain["spacing"] == [2, 2, 3]
    np.testing.assert_array_equal(np.array(brain["affine"])[:, 3], [2, 4, 3])
    flat = np.full(18, np.nan)
    flat[decode(brain["voxels"], "<i4")] = decode(brain["maps"][0]["values"], "<f2")
    expected = values[1:4, 2:5, 1:3].astype("f2")
    np.testing.assert_array_equal(flat.reshape((3, 3, 2), order="F"), expected)
    with pytest.raises(ValueError, match=r"`images\['b'\]` must be one map on the grid of the fir"):
        view_slices({"a": image, "b": nib.Nifti1Image(values[:4], affine)}, anatomy=nothing)
    with pytest.raises(ValueError, match="a value somewhere; got zeros"):
        view_slices({"a": nothing}, anatomy=nothing)


# pixels of a canvas whose red (0), green or blue exceeds the others
COUNT = """function count (canvas, wanted) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height)
  const context = copy.getContext('2d')
  paint()
  context.drawImage(canvas, 0, 0)
  const p = context.getImageData(0, 0, copy.width, copy.height).data
  let found = 0
  for (let i = 0; i < p.length; i += 4) {
    const others = [0, 1, 2].filter(x => x !== wanted).map(x => p[i + x])
    found += p[i + wanted] > Math.max(...others) + 60
  }
  return found
}
// where they are: share of the width and of the height, from the upper left corner
function centroid (canvas, wanted) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height)
  const context = copy.getContext('2d')
  paint()
  context.drawImage(canvas, 0, 0)
  const p = context.getImageData(0, 0, copy.width, copy.height).data
  const sum = [0, 0, 0]
  for (let i = 0; i < p.length; i += 4) {
    const others = [0, 1, 2].filter(x => x !== wanted).map(x => p[i + x])
    if (p[i + wanted] <= Math.max(...others) + 60) continue
    sum[0] += i / 4 % copy.width / copy.width
    sum[1] += Math.floor(i / 4 / copy.width) / copy.height
    sum[2] += 1
  }
  return [sum[0] / sum[2], sum[1] / sum[2], sum[2]]
}
function choose (name, value) {
  get(name).value = value
  get(name).dispatchEvent(new Event('change'))
}
"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with Chromium(800, 600) as browser:
        yield browser


def show(browser, page, folder):
    path = folder / "page.html"
    path.write_text(page)
    browser.open(path)
    browser.run(COUNT)


def test_a_browser_turns_it_hides_what_is_not_significant_and_reads_values(browser, tmp_path):
    template = surfaces.load_fsaverage5()
    values = np.ones(20484)
    q_values = np.where(np.arange(20484) < 10242, 1.0, 0.01)  # the right hemisphere is significant
    # the vertex that is nearest to the eye, on the right, and straight under the pointer
    xyz, faces = template.meshes["inflated"]["right"]
    values[10242:] = np.arange(10242) / 8192
    parcels = np.char.add("parcel & ", (np.arange(20484) % 97).astype(str))
    page = view_maps(
        {"difference": values, "r": 2 * values},
        p_values={"difference": q_values},
        signed=["difference"],
        parcels=parcels,
        significance="q",
    )
    show(browser, page, tmp_path)
    red = "count(document.querySelector('#stage canvas'), 0)"
    everywhere = browser.run(red)
    assert everywhere > 20000
    browser.run("choose('alpha', 0.05)")
    # from the left only the hidden hemisphere is seen, but for its rim
    assert browser.run(red) < 0.1 * everywhere
    browser.run("choose('view', 'left medial')")
    assert browser.run(red) == 0, "the other hemisphere is out of the way"
    browser.run("choose('view', 'right')")
    assert browser.run(red) > 0.2 * everywhere
    box = browser.run(
        "(({x, y, width, height}) => [x, y, width, height])(canvas.getBoundingClientRect())"
    )
    browser.point(box[0] + box[2] / 2, box[1] + box[3] / 2)
    told = browser.run("get('hover').textContent")
    vertex = int(re.match(r"right hemisphere, vertex (\d+), parcel & (\d+)\n", told)[1])
    # the page's centre is that of both hemispheres; rays run along x
    shifted = 0.01 * decode(content(page)["xyz"], "<i2").reshape(-1, 3)
    middle = (shifted.min(axis=0) + shifted.max(axis=0)) / 2
    away = np.linalg.norm(xyz[:, 1:] - middle[1:], axis=1)
    outside = xyz[:, 0] > np.median(xyz[:, 0])
    assert away[vertex] <= 1.01 * away[outside].min() + 0.5 and outside[vertex]
    value = np.float16(vertex / 8192)
    assert told.split("\n")[1] == (
        f"difference: {significant(value)} (q = 0.0100)   r: {significant(2 * value)}"
    )
    browser.point(box[0] + 2, box[1] + 2)
    assert browser.run("get('hover').textContent") == told, "beside the brain nothing is told"
    assert browser.requests == []


def significant(value):
    """Three digits, as JavaScript writes them."""
    return f"{float(value):#.3g}"


def test_a_browser_cuts_slices_where_it_is_told(browser, tmp_path):
    """One voxel tells its place; the file runs from right to left, the picture does not."""
    shape = (12, 14, 10)
    affine = nib.affines.from_matvec(np.diag([-4.0, 4, 4]), [22, -30, -20])
    values = np.ones(shape, np.float32)
    values[2, 7, 5] = 8  # x = 22 - 8 = 14, y = -30 + 28 = -2, z = 0 mm
    values[:, 0] = 0  # no value
    q_values = np.where(np.arange(12)[:, None, None] < 6, 0.01, 1.0) * np.ones(shape)  # right
    labels = np.zeros(shape, np.int16)
    labels[2, 7, 5] = 3

    def image(array):
        return nib.Nifti1Image(array.astype(np.float32), affine)

    page = view_slices(
        {"difference": image(values), "r": image(values / 16)},
        p_values={"difference": image(q_values)},
        parcels=(image(labels), {3: "MT & MST"}),
        anatomy=image(np.ones(shape)),
        signed=["difference"],
        significance="q",
    )
    show(browser, page, tmp_path)
    # it opens where the first map is strongest
    assert browser.run("mm(cursor)") == [14, -2, 0]
    browser.run("move(0, cursor[0])")
    assert browser.run("get('hover').textContent") == (
        "x = 14.0, y = -2.0, z = 0.0 mm, MT & MST\ndifference: 8.00 (q = 0.0100)   r: 0.500"
    )
    axial = "canvases[2]"
    everywhere = browser.run(f"count({axial}, 0)")
    browser.run("choose('alpha', 0.05)")
    kept = browser.run(f"count({axial}, 0)")
    assert 0.4 * everywhere < kept < 0.6 * everywhere
    # what is significant is on the right of the picture
    x, y, width, height = browser.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])({axial}.getBoundingClientRect())"
    )
    browser.point(x + 0.125 * width, y + 0.25 * height, press=True)
    # second of 12 from the left, the fourth of 14 from the front
    assert browser.run("mm(cursor)") == [-18, 10, 0]
    assert browser.run("get('hover').textContent").startswith("x = -18.0, y = 10.0, z = 0.0 mm\n")
    browser.point(x + width / 2, y + height - 2)
    assert browser.run("get('hover').textContent").endswith(
        "difference: no value (q = no value)   r: no value"
    )
    assert browser.requests == []


def test_slices_have_the_head_above_the_front_and_the_right_on_the_right(browser, tmp_path):
    """By the pixels alone: where the pointer is could be wrong in the same way."""
    shape = (12, 14, 10)
    affine = nib.affines.from_matvec(np.diag([-4.0, 4, 4]), [22, -26, -18])
    places = nib.affines.apply_affine(affine, np.indices(shape).reshape(3, -1).T)
    is_there = (places > 4).all(1).reshape(shape)  # right, in front and above, in mm
    images = {"r": nib.Nifti1Image(is_there.astype(np.float32), affine)}
    anatomy = nib.Nifti1Image(np.ones(shape, np.float32), affine)
    show(browser, view_slices(images, anatomy=anatomy, signed=["r"]), tmp_path)
    for slice_ in range(3):  # the front is on the right of the first, above in the last
        across, down, n_pixels = browser.run(f"centroid(canvases[{slice_}], 0)")
        assert n_pixels > 100 and across > 0.6 and down < 0.4


def test_a_cortex_has_its_top_above_and_its_front_where_the_view_says(browser, tmp_path):
    template = surfaces.load_fsaverage5()
    places = [template.meshes["inflated"][side][0] for side in ("left", "right")]
    is_there = np.concatenate([(xyz[:, 1] > 20) & (xyz[:, 2] > 10) for xyz in places])
    show(browser, view_maps({"r": np.where(is_there, 1.0, np.nan)}, signed=["r"]), tmp_path)
    for view, is_on_the_left in (("left", True), ("right", False)):
        browser.run(f"choose('view', '{view}')")
        across, down, n_pixels = browser.run("centroid(canvas, 0)")
        assert (
            n_pixels > 1000 and down < 0.48 and (across < 0.45 if is_on_the_left else across > 0.55)
        )


def test_a_cortex_of_ones_own_is_turned(browser, tmp_path):
    folder, meshes = write_pycortex_subject(tmp_path / "S1")
    places = np.concatenate([meshes["pial"][side][0] for side in ("left", "right")])
    values = np.where((places[:, 1] > 0) & (places[:, 2] > 0), 2.0, np.nan)
    parcels = np.char.add("parcel ", np.arange(1284).astype(str))
    page = view_maps({"r": values}, signed=["r"], parcels=parcels, pycortex_subject=folder)
    assert content(page)["nLeft"] == 1026
    show(browser, page, tmp_path)
    browser.run("choose('view', 'left')")  # the front is on the left
    across, down, n_pixels = browser.run("centroid(canvas, 0)")
    assert n_pixels > 1000 and across < 0.5 and down < 0.5
    browser.point(
        *browser.run(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
            "(canvas.getBoundingClientRect())"
        )
    )
    told = browser.run("get('hover').textContent")
    vertex = int(re.match(r"left hemisphere, vertex (\d+), parcel (\d+)\n", told)[1])
    middle = meshes["inflated"]["left"][0][vertex] - (-40, 0, 0)
    assert np.linalg.norm(middle - (-33, 0, 0)) < 5, "the middle of its lateral side"
    assert browser.requests == []
