"""What a build of the gallery is refused for: pages without pictures, numbers nobody printed."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sphinx_gallery")

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("gallery", ROOT / "doc" / "_ext" / "gallery.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def test_pages_without_pictures_are_named(tmp_path):
    examples, pages = tmp_path / "examples" / "01", tmp_path / "pages" / "01"
    examples.mkdir(parents=True)
    pages.mkdir(parents=True)
    for name in ("plot_map", "plot_words", "plot_unbuilt"):
        (examples / f"{name}.py").write_text('"""Title"""\n')
    (pages / "plot_map.rst").write_text("Title\n\n.. image-sg:: /images/a.png\n")
    (pages / "plot_words.rst").write_text("Title\n\nAn image is worth words.\n")
    (examples / "run_far.py").write_text('"""Title"""\n')
    (examples / "run_near.py").write_text(
        '"""Title"""\n\n# sphinx_gallery_thumbnail_path = "images/a.png"\n'
    )
    missing = gallery.missing_pictures(tmp_path / "examples", tmp_path / "pages")
    assert [line.split()[0] for line in missing] == [
        "01/plot_unbuilt.py", "01/plot_words.py", "01/run_far.py"
    ]  # fmt: skip


def test_thumbnails_are_there():
    for source in (ROOT / "examples").rglob("run_*.py"):
        (path,) = gallery.THUMBNAIL.findall(source.read_text())
        assert (ROOT / "doc" / path).stat().st_size < 250_000


def test_numbers_of_the_readme_are_those_that_were_printed():
    readme = "It prints:\n\n.. code-block:: text\n\n   a: 1.0\n   b: 2.0\n\nEnd\n---\n"
    assert gallery.lines_not_printed(readme, "Out:\n\n    a: 1.0\n    b: 2.0\n") == []
    assert gallery.lines_not_printed(readme, "Out:\n\n    a: 1.0\n    b: 2.1\n") == ["b: 2.0"]


def test_gifs_are_shown_once(tmp_path):
    movie = tmp_path / "a_film.gif"
    movie.write_bytes(b"GIF89a")
    targets = iter(str(tmp_path / f"target_{i}.png") for i in range(5))
    variables = {"example_globals": {"movie": movie, "n": 3}, "image_path_iterator": targets}
    text = gallery.show_gifs(None, variables, {"src_dir": str(tmp_path)})
    assert "target_0.gif" in text and (tmp_path / "target_0.gif").read_bytes() == b"GIF89a"
    assert gallery.show_gifs(None, variables, {"src_dir": str(tmp_path)}) == ""
