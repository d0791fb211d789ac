"""The tables of the pages on proofs and benchmarks, made from whatever JSON the scripts wrote."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("sphinx")

DOC = Path(__file__).resolve().parents[2] / "doc"
spec = importlib.util.spec_from_file_location("results", DOC / "_ext" / "results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def texts(node):
    return [[entry.astext() for entry in row.children] for row in node.findall(results.nodes.row)]


def test_lists_and_dicts_of_records_become_tables():
    content = {
        "versions": {"numpy": "2.4", "torch": "2.13"},
        "passed": True,
        "rows": [{"n": 1000, "seconds": 1.23456}, {"n": 2000, "peak_gb": 3}],
        "by_rho": {"0.3": {"rate": 0.05}, "0.9": {"rate": 0.061, "bound": [0.03, 0.07]}},
        "n_runs": 3,
        "aucs": list(range(20)),
        "data_sets": [{"seed": seed} for seed in range(70)],
    }
    tables = dict(results.tables_of(content, "all"))
    assert texts(tables["rows"]) == [
        ["n", "seconds", "peak gb"],
        ["1,000", "1.235", ""],
        ["2,000", "", "3"],
    ]
    assert texts(tables["by_rho"]) == [
        ["", "rate", "bound"],
        ["0.3", "0.05", ""],
        ["0.9", "0.061", "0.03, 0.07"],
    ]
    plain = dict(texts(tables["all"]))
    assert plain["passed"] == "yes" and plain["aucs"] == "20 values: median 10, 0 to 19"
    assert plain["data sets"] == "70 rows, in the file" and "data_sets" not in tables
    assert plain["number of runs"] == "3"
    # provenance comes last
    assert list(plain)[-1] == "versions" and plain["versions"] == "numpy 2.4; torch 2.13"


@pytest.mark.parametrize(
    "files", ({}, {"a.json": "{half", ".hidden.json": "{}"}, {"b_c.json": '[{"x": 1}]'})
)
def test_absent_and_unfinished_files_do_not_stop_the_build(tmp_path, files):
    sphinx = pytest.importorskip("sphinx.application")
    source = tmp_path / "source"
    (source / "proofs").mkdir(parents=True)
    for name, text in files.items():
        (source / "proofs" / name).write_text(text)
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(DOC / '_ext')!r}); extensions = ['results']"
    )
    (source / "index.rst").write_text("Title\n=====\n\n.. results:: proofs\n")
    app = sphinx.Sphinx(
        source, source, tmp_path / "out", tmp_path / "trees", "html", status=None,
        warningiserror=True,
    )  # fmt: skip
    app.build()
    html = (tmp_path / "out" / "index.html").read_text()
    if "b_c.json" in files:
        assert "b c" in html and "Nothing has been measured" not in html
    else:
        assert "Nothing has been measured with this version yet." in html


def test_one_number_is_read_by_its_keys(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"device": "card", "rows": [{"n": 1}, {"peak bytes": 3 * 2**30, "s": 90}]})
    )
    assert results.measured(tmp_path, "a | device | text") == "card"
    assert results.measured(tmp_path, "a | rows | 1 | peak bytes | GiB .1f") == "3.0"
    assert results.measured(tmp_path, "a | rows | 1 | s | min .2f") == "1.50"
    with pytest.raises(LookupError):
        results.measured(tmp_path, "a | rows | 1 | m | .0f")


def test_committed_results_are_objects():
    for folder in ("proofs", "benchmarks"):
        for path in (DOC / folder).glob("*.json"):
            assert results.tables_of(json.loads(path.read_text()), path.stem)


def test_options_can_be_copied_from_a_table():
    cells = ["--recipe friends --space fsaverage5", "1--2, give --film-groups.", ""]
    found = results.table([], [cells])
    options = ["--recipe", "--space", "--film-groups"]
    assert [node.astext() for node in found.findall(results.nodes.literal)] == options
    assert [entry.astext() for entry in found.findall(results.nodes.entry)] == cells


def test_public_data_sets_say_what_came_of_them():
    content = json.loads((DOC / "proofs" / "data_sets.json").read_text())
    rows = list(results.rows_of_data_sets(content))
    assert len(rows) >= 15 and all(all(row[:4]) for row in rows)
    now = [row[2] for row in rows]
    assert now.count("to its report") == content["n_analysed"] >= 12
    assert all("must be filled in" in text for text in now if text != "to its report")
