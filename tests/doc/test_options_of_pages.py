"""Every option that a page names exists: in the App, or in a script of the repository."""

import re
from pathlib import Path

from brainnrds.cli import OPTIONS, make_parser

ROOT = Path(__file__).resolve().parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
FOREIGN = {"--shm-size", "--nworkers", "--nthreads"}  # docker's, Dask's


def known_options():
    known = set(FOREIGN)
    for analysis in OPTIONS:
        known |= set(OPTION.findall(make_parser(analysis).format_help()))
    for folder in ("examples", "benchmarks", "tests/prove"):
        for script in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r'"(--[a-z0-9-]+)"', script.read_text()))
    return known


def test_every_option_on_a_page_exists():
    pages = [ROOT / "README.rst", *(ROOT / "doc").glob("*.rst")]
    pages += (ROOT / "doc" / "user_guide").glob("*.rst")
    known = known_options()
    unknown = {
        f"{page.relative_to(ROOT)}: {option}"
        for page in pages
        for option in OPTION.findall(page.read_text())
        if option not in known
    }
    assert not unknown
