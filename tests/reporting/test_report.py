"""Reports: self-contained, complete, escaped, and never stopped by one broken file."""

import base64
import json
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from chromium import CHROMIUM, Chromium
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainnrds.io import InputError, derivative_path, save_json, write_clip
from brainnrds.plotting import view_maps
from brainnrds.reporting import report, write_report


class Page(HTMLParser):
    """Tags with their attributes, ids, links and the visible text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


@pytest.fixture
def output(tmp_path):
    """What an analysis leaves behind: figures, clips, a table, a provenance record."""
    entities = {"subject": "01", "task": "movie", "space": "fsaverage5"}

    def figure(**more):
        path = derivative_path(tmp_path, "figure", entities | more)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    fig, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1])
    fig.savefig(figure(stat="difference", desc="encode", suffix="flatmap"))
    fig.savefig(figure(feat="video", stat="r", desc="encode", suffix="flatmap"))
    fig.savefig(figure(desc="somethingelse", suffix="curve"))
    plt.close(fig)
    save_json(
        figure(stat="difference", desc="encode", suffix="flatmap").with_suffix(".json"),
        {"Description": "12 of 34 voxels at q < .05."},
    )
    clip = np.zeros((6, 3, 32, 32), np.float32)
    write_clip(
        figure(stat="decoded", desc="reanimate", suffix="clip", extension=".mp4"), clip, fps=6
    )
    write_clip(figure(stat="zero", desc="reanimate", suffix="clip", extension=".gif"), clip, fps=6)
    table = derivative_path(tmp_path, "table", entities | {"seg": "HCP", "desc": "encode"})
    table.parent.mkdir(parents=True)
    table.write_text(
        "parcel\tn_voxels\tdifference\nMT\t12345\t0.123456\n<script>alert(1)</script>\t3\tn/a\n"
    )
    save_json(table.with_suffix(".json"), {"difference": {"Units": "Pearson r"}})
    record = {
        "Analysis": "encode",
        "Summary": {"voxels": 20484, "median r": 0.123456},
        "Parameters": {"space": "fsaverage5", "delays": [1, 2], "n_permutations": 1000},
        "Command": "brainnrds in out participant --analysis encode",
        "Seeds": {"random_state": 7},
        "Versions": {"numpy": "2.4.6"},
        "Warnings": {"constant voxels masked": 12, "once": 1},
    }
    save_json(derivative_path(tmp_path, "provenance", entities | {"desc": "encode"}), record)
    return tmp_path


def test_report_is_one_file_that_needs_nothing_else(output):
    path = write_report(output, "01")
    assert path == output / "sub-01.html"
    page = Page(path)
    sources = page.values("src")
    assert len(sources) == 5 and all(source.startswith("data:") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    # links lead inside the page or to the papers
    ids = set(page.values("id"))
    assert len(page.values("id")) == len(ids)
    for link in page.values("href"):
        assert link[1:] in ids if link.startswith("#") else link.startswith("https://")
    assert "@import" not in path.read_text() and "url(" not in path.read_text()


def test_every_figure_is_embedded_as_it_is(output):
    page = Page(write_report(output, "01"))
    embedded = {base64.b64decode(source.split(",", 1)[1]) for source in page.values("src")}
    figures = [p for p in (output / "sub-01" / "figures").iterdir() if p.suffix != ".json"]
    assert embedded == {path.read_bytes() for path in figures}
    kinds = {source[5:14] for source in page.values("src")}
    assert kinds == {"image/png", "image/gif", "video/mp4"}
    video = next(attrs for tag, attrs in page.tags if tag == "video")
    assert "controls" in video


def test_captions_tables_and_records_are_shown(output):
    text = Page(write_report(output, "01")).text
    assert "Video > Image" in text and "12 of 34 voxels at q < .05." in text
    assert text.index("Video > Image") < text.index("Score video r")
    assert "12,345" in text and "0.1235" in text and "Pearson r" in text
    assert "20,484" in text and "constant voxels masked (12 times)" in text
    assert "--analysis encode" in text and "2.4.6" in text and "random_state" in text
    assert "Other figures" in text and "desc-somethingelse" in text
    assert "delayed by 1, 2 volumes" in text and "Incomplete" not in text


@pytest.mark.parametrize("suffix", ["viewer", "slices"])
def test_a_viewer_is_shown_in_a_sandbox(output, suffix):
    viewer = '<p title="a &amp; b">maps</p><script>parent.document.title = "taken"</script>'
    path = output / "sub-01" / "figures" / f"sub-01_task-movie_desc-encode_{suffix}.html"
    path.write_text(viewer)
    page = Page(write_report(output, "01"))
    (frame,) = (attrs for tag, attrs in page.tags if tag == "iframe")
    assert frame["srcdoc"] == viewer
    assert (
        frame["sandbox"] == "allow-scripts"
    )  # not "allow-same-origin": it cannot reach the report
    assert "script" not in {tag for tag, _ in page.tags}
    assert path.relative_to(output).as_posix() in page.values("href")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_folder_that_was_moved_still_opens(output):
    """Every figure and clip is seen, the brain is drawn, and links lead to files that are there."""
    name = "sub-01/figures/sub-01_task-movie_desc-encode_viewer.html"
    (output / name).write_text(view_maps({"r": np.ones(20484)}, signed=["r"]))
    write_report(output, "01", max_video_mb=1e-6)  # the clip is not embedded
    moved = output.rename(output.with_name("moved & 100 % größer #1"))
    page = Page(moved / "sub-01.html")
    links = [link for link in page.values("href") if not link.startswith(("#", "https:"))]
    assert links == [name]
    with Chromium(900, 800) as browser:
        browser.open(moved / "sub-01.html", ready="document.readyState === 'complete'")
        assert browser.run("[...document.images].map(image => image.naturalWidth > 0)") == [
            True
        ] * (len(page.values("src")) - 1)
        assert browser.run(_PLAYS) > 0.5  # s
        at_home = [url.startswith(f"{moved.as_uri()}/sub-01/figures/") for url in browser.requests]
        assert at_home and all(at_home)
        browser.run("document.querySelector('iframe').scrollIntoView()")
        screenshot = moved / "seen.png"
        for _ in range(100):
            browser.save_screenshot(screenshot)
            red, green, blue = np.moveaxis(plt.imread(screenshot)[..., :3], 2, 0)
            n_red = int((red > np.maximum(green, blue) + 0.25).sum())
            if n_red > 10000:
                break
        assert n_red > 10000, "the brain is in the page"
        browser.open(moved / name)
        assert browser.requests == []


_PLAYS = """new Promise(done => {
  const video = document.querySelector('video')
  video.onloadedmetadata = video.onerror = () => done(video.duration)
  video.load()
})"""


def test_text_from_files_is_escaped(output):
    html = write_report(output, "01", title="<b>bold</b> title").read_text()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "<b>bold</b>" not in html


def test_long_clips_are_linked_beside_the_report(output):
    page = Page(write_report(output, "01", max_video_mb=1e-6))
    video = next(attrs for tag, attrs in page.tags if tag == "video")
    assert (output / video["src"]).is_file()


def test_broken_files_are_named_and_do_not_stop_the_report(output):
    (output / "sub-01" / "sub-01_desc-decode_provenance.json").write_text('{"Analysis": ')
    figures = output / "sub-01" / "figures"
    (figures / "not a BIDS <name>.png").write_bytes(b"")
    (figures / ".tmp-abc-sub-01_desc-encode_flatmap.png").write_bytes(b"half")
    record = output / "sub-01" / "sub-01_desc-other_provenance.json"
    record.write_text(json.dumps({"Analysis": "other", "Methods": "As in [@nobody2030]."}))
    text = Page(write_report(output, "01")).text
    assert "sub-01_desc-decode_provenance.json could not be read" in text
    assert "not a BIDS <name>.png is empty" in text
    assert "[@nobody2030], which is not known" in text
    assert ".tmp-abc" not in text


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", '{"a": ' + "9" * 5000 + "}", "\x00"])
@pytest.mark.parametrize("kind", ["*_provenance.json", "figures/*_flatmap.json", "*_table.json"])
def test_json_that_is_none_is_named(output, kind, content):
    path = next(output.rglob(kind))
    path.write_text(content)
    text = Page(write_report(output, "01")).text
    assert f"{path.name} could not be read: " in text
    assert str(output) not in text  # who reads a report elsewhere has another folder


def test_numbers_of_any_length_are_shown(output):
    assert report._format_number("12345") == "12,345"
    for text in ("9" * 5000, "0" * 5000, "-" + "1" * 5000, "1e999", "\u0661\u0662", "1_0", "nan"):
        assert report._format_number(text)
    (table,) = output.rglob("*_table.tsv")
    table.write_text(f"name\tn\na\t{'9' * 5000}\n")
    assert "9" * 5000 in Page(write_report(output, "01")).text


def test_group_reports_and_missing_subjects(output):
    with pytest.raises(InputError, match=r"No outputs of group .*expected the folder"):
        write_report(output)
    with pytest.raises(InputError, match="No outputs of sub-02"):
        write_report(output, "02")
    (output / "group" / "figures").mkdir(parents=True)
    page = Page(write_report(output))
    assert "No figures or tables were found." in page.text
    assert (output / "group.html").is_file()
    assert write_report(output, "sub-01") == output / "sub-01.html"


def test_group_files_stand_in_their_sections(tmp_path):
    group = {"space": "fsaverage5", "desc": "encode"}
    figure = derivative_path(
        tmp_path, "figure", group | {"stat": "difference", "suffix": "flatmap"}
    )
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"png")
    derivative_path(tmp_path, "table", group).write_text("participant\tvideo\nsub-07\t0.25\n")
    text = Page(write_report(tmp_path)).text
    assert "Encoding: video and image features" in text and "Other figures" not in text
    assert "sub-07" in text and "Video > Image" in text


def test_own_specification_and_a_broken_one(output, tmp_path):
    spec = tmp_path / "spec.yml"
    section = {"id": "x", "title": "Only maps", "items": [{"entities": {"suffix": "flatmap"}}]}
    spec.write_text(yaml.safe_dump({"sections": [section]}))
    assert "Only maps" in Page(write_report(output, "01", spec=spec)).text
    spec.write_text("sections: [{id: x}]")
    with pytest.raises(InputError, match="must be YAML with sections"):
        write_report(output, "01", spec=spec)


def test_long_tables_are_cut_and_say_so(output):
    rows = "".join(f"p{i}\t{i}\n" for i in range(700))
    path = output / "sub-01" / "func" / "sub-01_desc-encodeParcels_table.tsv"
    path.write_text("parcel\tn\n" + rows)
    text = Page(write_report(output, "01")).text
    assert "The first 500 of 700 rows" in text


def test_links_out_of_the_folder_are_not_followed(output, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.svg"
    elsewhere.write_text("<svg><text>secret of another folder</text></svg>")
    inside = next(output.rglob("*desc-somethingelse_curve.*"))
    link = inside.with_name(f"sub-01_desc-linked_curve{elsewhere.suffix}")
    link.symlink_to(elsewhere)
    assert {file.path for file in report._find_files(output)} >= {inside}
    assert link not in {file.path for file in report._find_files(output)}


_HOSTILE = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "{{ 7*7 }}{% for x in y %}",
            "[@a](javascript:alert(1))",
            "\"' onload=alert(1) x='",
            "<img src=x onerror=alert(1)>",
            "../../../etc/passwd",
        ]
    ),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
)
_JSON = st.recursive(
    _HOSTILE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=8), st.sampled_from(["Description", "Units", "Levels"])),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
_RECORD = st.sampled_from(
    ["Analysis", "Summary", "Parameters", "Seeds", "Versions", "Warnings", "Methods", "Seconds"]
)


@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    record=st.one_of(_JSON, st.dictionaries(_RECORD, _JSON, max_size=4)),
    sidecar=_JSON,
    cells=st.lists(st.lists(_HOSTILE.map(str), min_size=2, max_size=3), max_size=3),
    figure=st.one_of(st.binary(max_size=60), st.just(None)),
)
def test_whatever_lies_beside_results_the_page_is_whole_and_runs_nothing(
    output, record, sidecar, cells, figure
):
    (described,), (table,) = output.rglob("*_provenance.json"), output.rglob("*_table.tsv")
    described.write_text(json.dumps(record), encoding="utf-8")
    table.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
    rows = ["\t".join(row).encode("utf-8", "replace") for row in cells]
    table.write_bytes(b"\n".join([b"parcel\tn", *rows]) + b"\n")
    for path in output.rglob("*_flatmap.png"):
        if figure is not None:
            path.write_bytes(figure)
    written = write_report(output, "01")
    assert written.read_text(encoding="utf-8").rstrip().endswith("</html>")
    page = Page(written)
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.lower().startswith("on")]
        for value in attributes.values():
            assert not str(value or "").strip().lower().startswith("javascript:")
