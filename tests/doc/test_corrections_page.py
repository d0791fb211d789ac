"""Every line of the table of corrected results names a test that holds it."""

import re

import pandas as pd
import pytest
from named_tests import ROOT, source_of

TABLE = pd.read_csv(ROOT / "doc/user_guide/corrections.tsv", sep="\t", dtype=str, quoting=3)


@pytest.mark.parametrize("test", TABLE["test"])
def test_rows_are_tested(test):
    assert re.search(r"\bassert|pytest\.(raises|warns)\(", source_of(test))


def test_rows_are_told_once():
    assert not TABLE.isna().any(axis=None)
    assert not TABLE["what"].duplicated().any()
    # docutils takes a cell that begins with a quotation mark for a quoted one
    assert not any(cell.startswith('"') for cell in TABLE.to_numpy().ravel())
