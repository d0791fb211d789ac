"""Sphinx: builds offline, without warnings; everything under generated/ and auto_examples/ is made.

The API pages follow each subpackage's ``__all__``, the pages of proofs, benchmarks and costs the
JSON files in proofs/ and benchmarks/.
"""

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

DOC = Path(__file__).resolve().parent
sys.path.insert(0, str(DOC / "_ext"))

# examples leave nothing behind, read no user configuration and need no network
scratch = tempfile.mkdtemp(prefix="brainnrds-doc-")
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
os.environ.update(
    TMPDIR=scratch,
    XDG_CONFIG_HOME=scratch,
    NILEARN_DATA=scratch,
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    MPLBACKEND="Agg",
    TQDM_DISABLE="1",
)
tempfile.tempdir = scratch
# what examples warn about stands on their pages: without this machine's paths
warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}\n"

sys.path.insert(0, str(DOC.parent / "tests"))

from torchvision_operators import make_torchvision_importable  # noqa: E402

import brainnrds  # noqa: E402

make_torchvision_importable()  # examples with networks, where torchvision is a CUDA build

project = "brainnrds"
author = "the brainnrds developers"
copyright = author
version = release = brainnrds.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "results",
    "proofs",
    "gallery",
    "command_line",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
default_role = "literal"
nitpicky = False

autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "brainnrds"
html_static_path = ["_static"]
html_css_files = ["brainnrds.css"]
html_show_sourcelink = False
html_copy_source = False
# a left column only where there are pages to choose from
PLAIN = ("index", "install", "glossary", "proofs", "benchmarks", "changelog", "contributing")
html_sidebars = {name: [] for name in PLAIN}
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "logo": {"text": "brainnrds"},
}

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    # plot_*.py run here; run_*.py (real data, weights, a GPU) are shown as they are
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "plot_gallery": "True",
    "show_memory": False,
    "image_scrapers": ("matplotlib", "gallery.show_gifs"),
    "capture_repr": (),  # figures are shown, not named
    "copyfile_regex": "",
}


# pages of the API ----------------------------------------------------------------------------

MODULES = (
    "brainnrds.encoding",
    "brainnrds.decoding",
    "brainnrds.reanimation",
    "brainnrds.group",
    "brainnrds.features",
    "brainnrds.flow",
    "brainnrds.metrics",
    "brainnrds.films",
    "brainnrds.blocks",
    "brainnrds.io",
    "brainnrds.datasets",
    "brainnrds.plotting",
    "brainnrds.reporting",
    "brainnrds.analyses",
)


def write_api_page(name, folder):
    """One page per module, with what its ``__all__`` names; return the names of all its pages."""
    module = import_module(name)
    public = module.__all__
    kinds = {"Classes": [], "Functions": [], "Data": []}
    for key in public:
        value = getattr(module, key)
        kind = "Classes" if isinstance(value, type) else "Functions" if callable(value) else "Data"
        kinds[kind].append(key)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    lines += [f".. currentmodule:: {name}", ""]
    for kind, keys in kinds.items():
        if keys:
            lines += [f".. rubric:: {kind}", "", ".. autosummary::", "   :toctree: .", ""]
            lines += [f"   {key}" for key in keys] + [""]
    text = "\n".join(lines)
    path = folder / f"{name}.rst"
    if not path.exists() or path.read_text() != text:  # unchanged pages are not read again
        path.write_text(text)
    return {name, *(f"{name}.{key}" for key in public)}


api = DOC / "generated"
api.mkdir(exist_ok=True)
pages = set().union(*(write_api_page(name, api) for name in MODULES))
for path in api.glob("*.rst"):
    if path.stem not in pages:  # of a name that is no longer public
        path.unlink()


# by name: pages that are new in this build are found, too
autosummary_generate = [f"generated/{name}" for name in MODULES]


def skip_metadata_requests(app, what, name, obj, skip, options):
    """scikit-learn adds set_<method>_request to estimators: their text links into its own pages."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    app.connect("autodoc-skip-member", skip_metadata_requests)
