"""Tests that tables of the documentation name."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def source_of(test):
    """Source of ``folder/test_file.py::test_name``, below ``tests/``."""
    path, name = test.split("::")
    text = (ROOT / "tests" / path).read_text()
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    [function] = [node for node in functions if node.name == name]
    return ast.get_source_segment(text, function)
