"""The table of what is refused, handled and noted is held to by the tests that it names."""

import re

import pandas as pd
import pytest
from named_tests import ROOT, source_of

TABLE = pd.read_csv(ROOT / "doc/user_guide/bad_input.tsv", sep="\t", dtype=str)
# what a test of each outcome does
DOES = {
    "refused": r"refused\(|pytest\.raises\(.*Error|except (io\.)?InputError|== cli\.EXIT_BAD_INPUT",
    "handled": r"assert|unnoted\(",
    "noted": r"noted\(|pytest\.warns\(|remarks",
}


@pytest.mark.parametrize("row", TABLE.itertuples(index=False), ids=TABLE["test"].tolist())
def test_rows_are_tested(row):
    assert re.search(DOES[row.outcome], source_of(row.test))
    assert row.answer.endswith(".")


def test_the_table_is_read_alike_with_and_without_quotes():
    # docutils takes a cell that begins with a quotation mark for a quoted one
    plain = pd.read_csv(ROOT / "doc/user_guide/bad_input.tsv", sep="\t", dtype=str, quoting=3)
    pd.testing.assert_frame_equal(plain, TABLE)


def test_rows_are_told_once():
    assert not TABLE.isna().any(axis=None)
    assert not TABLE["what"].duplicated().any()
