"""The page on outputs names every kind of file, and every column, that the main analysis writes."""

import re
from pathlib import Path

import pytest

from brainnrds.cli import main
from brainnrds.encoding import significance
from brainnrds.io import load_json, load_table

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

PAGE = (Path(__file__).resolve().parents[2] / "doc" / "user_guide" / "outputs.rst").read_text()


@pytest.fixture(scope="module")
def output_dir(short_movies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    call = [str(short_movies.bids_dir), str(folder / "out")]
    work = ["-w", str(folder / "work")]
    quick = ["--n-cpus", "1", "--n-permutations", "100", "--n-folds", "2", "--n-iter", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "FEWEST_BLOCKS", 2)  # p-values, short as the films are
        assert main([*call, "participant", *work, *quick]) == 0
        assert main([*call, "group", *work]) == 0
    return folder / "out"


def kinds(output_dir):
    """What the names of results are made of: entities with their labels, and suffixes."""
    found = set()
    for path in output_dir.rglob("*_*.*"):
        *pairs, suffix = path.name.split(".")[0].split("_")
        found |= {
            tuple(pair.split("-")) for pair in pairs if pair.startswith(("feat", "stat", "desc"))
        }
        found.add(("suffix", suffix))
    return found


def test_every_kind_of_file_is_named(output_dir):
    found = kinds(output_dir)
    assert {
        ("stat", "q"),
        ("stat", "ceiling"),
        ("suffix", "surface"),
        ("suffix", "viewer"),
    } <= found
    missing = {
        (key, label)
        for key, label in found
        if f"`{label}`" not in PAGE and not re.search(rf"(?:_|{key}-){label}(?![0-9A-Za-z])", PAGE)
    }
    assert not missing
    top = {path.name for path in output_dir.iterdir() if path.is_file()} - {"sub-01.html"}
    assert "group.html" in top and all(f"`{name}`" in PAGE for name in top)


def test_every_column_is_described_in_the_sidecar_or_on_the_page(output_dir):
    paths = sorted(output_dir.rglob("*_table.tsv"))
    assert len(paths) == 3
    for path in paths:
        sidecar = load_json(path.with_suffix(".json"))
        for column in load_table(path):
            assert column in sidecar or f"`{column}`" in PAGE, (path.name, column)
