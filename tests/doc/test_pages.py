"""What pages name exists: options of the App or of a script, names that are imported, files."""

import ast
import re
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from brainnrds.cli import OPTIONS, main_features, main_predict, main_validate, make_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.rst", *(ROOT / "doc").glob("*.rst"), *(ROOT / "doc").glob("user_guide/*")]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
PYTHON = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.M)
FOREIGN = {"--shm-size", "--nworkers", "--nthreads"}  # docker's, Dask's


def test_every_option_on_a_page_exists(capsys):
    known = set(FOREIGN)
    for analysis in OPTIONS:
        known |= set(OPTION.findall(make_parser(analysis).format_help()))
    for command in (main_features, main_predict, main_validate):
        with pytest.raises(SystemExit, match="0"):
            command(["--help"])
        known |= set(OPTION.findall(capsys.readouterr().out))
    for folder in ("examples", "benchmarks", "tests/prove"):
        for script in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r'"(--[a-z0-9-]+)"', script.read_text()))
    unknown = {
        f"{page.relative_to(ROOT)}: {option}"
        for page in PAGES
        for option in OPTION.findall(page.read_text())
        if option not in known
    }
    assert not unknown


def blocks():
    for page in PAGES:
        for number, match in enumerate(PYTHON.finditer(page.read_text())):
            code = textwrap.dedent(match.group(2))
            yield pytest.param(code, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("code", blocks())
def test_code_on_pages_is_python_and_its_imports_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "brainnrds":
            module = import_module(node.module)
            assert not [name.name for name in node.names if not hasattr(module, name.name)]


def test_places_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.rst").read_text()
    places = text.split("Where to change what\n")[1].split("\nRules\n")[0]
    named = {name for name in re.findall(r"``([^`]+)``", places) if "/" in name or ".py" in name}
    named |= set(re.findall(r"^ +([\w/]+(?:\.py|/)) ", text.split("Imports point down")[0], re.M))
    assert len(named) > 25
    missing = [
        name
        for name in named
        if not [*ROOT.glob(name), *(ROOT / "brainnrds").rglob(name.rstrip("/"))]
    ]
    assert not missing
