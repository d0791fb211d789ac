"""What the gallery adds to sphinx-gallery: moving pictures, and a check that pages keep a promise.

`show_gifs` shows every GIF that a block of an example has written. `check` stops a build in which a
page that ran shows no picture, an example that does not run has no thumbnail of its own, or the
numbers that the README quotes are not those that its example printed.
"""

import re
import shutil
from pathlib import Path

from sphinx.util import logging
from sphinx_gallery.scrapers import figure_rst

PICTURE = re.compile(r"^ *\.\. image(-sg)?:: ", re.M)
THUMBNAIL = re.compile(r"^# sphinx_gallery_thumbnail_path = ['\"](.+)['\"]$", re.M)


def show_gifs(block, block_vars, gallery_conf):
    """Scraper: GIFs that variables of the example hold the path of, each once."""
    shown = block_vars.setdefault("gifs_shown", set())
    paths = [
        value
        for value in block_vars["example_globals"].values()
        if isinstance(value, Path) and value.suffix == ".gif" and value not in shown
    ]
    text = ""
    for path, target in zip(paths, block_vars["image_path_iterator"], strict=False):
        copy = Path(target).with_suffix(".gif")
        shutil.copy(path, copy)
        shown.add(path)
        text += figure_rst([copy], gallery_conf["src_dir"], path.stem.replace("_", " "))
    return text


def missing_pictures(examples, pages):
    """Names of the examples that do not show what they should.

    Parameters
    ----------
    examples : Path
        Folder of the examples' sources; ``plot_*.py`` run, ``run_*.py`` do not.
    pages : Path
        Folder of the pages made of them, in the same tree.
    """
    missing = []
    for source in sorted(examples.rglob("*.py")):
        name = source.relative_to(examples)
        if source.name.startswith("plot_"):
            page = pages / name.with_suffix(".rst")
            if not page.exists() or not PICTURE.search(page.read_text(encoding="utf-8")):
                missing.append(f"{name} shows no picture")
        elif not THUMBNAIL.search(source.read_text(encoding="utf-8")):
            missing.append(f"{name} does not run and names no picture (thumbnail_path)")
    return missing


def lines_not_printed(readme, page):
    """Lines of the README's result that the page of its example has not printed."""
    block = readme.split(".. code-block:: text\n\n")[1].split("\n\n")[0]
    printed = {line.strip() for line in page.splitlines()}
    return [line.strip() for line in block.splitlines() if line.strip() not in printed]


def check(app):
    if app.builder.name != "html":
        return
    root, pages = Path(app.srcdir).parent, Path(app.srcdir) / "auto_examples"
    page = (pages / "01_encoding" / "plot_bids_to_flatmap.rst").read_text(encoding="utf-8")
    readme = (root / "README.rst").read_text(encoding="utf-8")
    wrong = [f"examples/{line}" for line in missing_pictures(root / "examples", pages)]
    wrong += [
        f"README.rst quotes {line!r}, which plot_bids_to_flatmap.py did not print"
        for line in lines_not_printed(readme, page)
    ]
    for line in wrong:
        logging.getLogger(__name__).warning(line)


def setup(app):
    app.connect("builder-inited", check, priority=900)  # after the gallery has run
    return {"parallel_read_safe": True, "version": "1"}
