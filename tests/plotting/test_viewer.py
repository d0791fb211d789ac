"""The brain to turn: what the page holds, and what a browser makes of it."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from brainnrds.plotting import maps, view_maps

TEMPLATES = {"fsaverage5": maps._load_fsaverage5, "fsLR": maps._load_fs_lr}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def content(page):
    return json.loads(re.search(r"^const brain = (.*)$", page, re.M).group(1))


def decode(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


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
    np.testing.assert_array_equal(decode(first["values"], "<f4"), difference.astype("f4"))
    np.testing.assert_array_equal(decode(first["p"], "<f4"), q_values.astype("f4"))
    assert second["p"] is None
    assert first["vmin"] == -first["vmax"] and second["vmin"] == 0
    # 0 is white where colours have a sign
    assert decode(first["colors"], "u1").reshape(256, 3)[127:129].min() > 240
    start = decode(brain["parcels"], "<i4")
    assert [brain["parcelNames"][i] if i >= 0 else "" for i in start] == parcels.tolist()
    ends = []
    for side in ("left", "right"):
        xyz, faces = template.surfaces["inflated"][side]
        found = decode(brain["meshes"][side]["xyz"], "<f4").reshape(-1, 3)
        np.testing.assert_allclose(found[:, 1:], xyz[:, 1:], rtol=1e-6)
        np.testing.assert_allclose(np.diff(found[:, 0]), np.diff(xyz[:, 0]), atol=1e-4)
        np.testing.assert_array_equal(decode(brain["meshes"][side]["faces"], "<i4"), faces.ravel())
        ends.append((found[:, 0].min(), found[:, 0].max()))
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


# what a reader does, and what is then on the canvas: the number of pixels that are red
READER = """<script>
function red () {
  return new Promise(resolve => Plotly.toImage('brain', {width: 400, height: 300}).then(url => {
    const image = new Image()
    image.onload = () => {
      const canvas = document.createElement('canvas')
      ;[canvas.width, canvas.height] = [400, 300]
      const context = canvas.getContext('2d')
      context.drawImage(image, 0, 0)
      const p = context.getImageData(0, 0, 400, 300).data
      let count = 0
      for (let i = 0; i < p.length; i += 4) count += p[i] > p[i + 1] + 60 && p[i + 3] > 0
      resolve(count)
    }
    image.src = url
  }))
}
async function read () {
  const found = {}
  await new Promise(resolve => setTimeout(resolve, 500))
  found.all = await red()
  get('alpha').value = 0.05
  await draw()
  found.significant = await red()
  get('view').value = 'right'
  await look()
  found.right = await red()
  get('view').value = 'left medial'
  await look()
  found.medial = await red()
  get('brain').emit('plotly_hover', {points: [{curveNumber: 1, pointNumber: 7}]})
  found.hover = get('hover').textContent
  found.requests = performance.getEntriesByType('resource').map(entry => entry.name)
    .filter(name => !/^(data|blob):/.test(name))
  const report = document.createElement('pre')
  report.id = 'found'
  report.textContent = JSON.stringify(found)
  document.body.append(report)
}
addEventListener('load', () => setTimeout(read, 100))
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_draws_it_hides_what_is_not_significant_and_reads_values(tmp_path):
    values = np.ones(20484)
    values[10242 + 7] = 0.125
    q_values = np.where(np.arange(20484) < 10242, 1.0, 0.01)  # the right hemisphere is significant
    parcels = np.full(20484, "", dtype="U9")
    parcels[10242 + 7] = "MT & MST"
    page = view_maps(
        {"difference": values, "r": 2 * values},
        p_values={"difference": q_values},
        signed=["difference"],
        parcels=parcels,
        significance="q",
    )
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", READER + "</body>"))
    options = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--ignore-gpu-blocklist"]
    options += ["--enable-unsafe-swiftshader", "--virtual-time-budget=20000", "--dump-dom"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    match = re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.S)
    assert match, result.stderr[-2000:]
    found = json.loads(match.group(1).replace("&amp;", "&"))
    assert found["all"] > 5000
    # from the left only the hidden hemisphere is seen, but for its rim
    assert found["significant"] < 0.2 * found["all"]
    assert found["right"] > 0.8 * found["all"]
    assert found["medial"] == 0, "the other hemisphere is out of the way"
    assert found["hover"] == (
        "right hemisphere, vertex 7, MT & MST\ndifference: 0.125 (q = 0.0100)   r: 0.250"
    )
    assert found["requests"] == []
