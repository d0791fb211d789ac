"""Confounds: the table that belongs to the run, read as it is or refused in one line."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bids import make_confounds

from brainnrds.io import InputError
from brainnrds.io._confounds import read_confounds

N = 20


@pytest.fixture
def run(tmp_path):
    table = make_confounds(np.random.default_rng(0), N)
    path = tmp_path / "sub-01_task-x_acq-y_part-mag_desc-confounds_timeseries.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    path.with_suffix(".json").write_text("{}")
    return SimpleNamespace(
        confounds=path, n_volumes=N, bold=(Path("x_space-y_desc-z_bold.nii"),), table=table
    )


def write(run, **columns):
    table = run.table.assign(**columns)
    table.to_csv(run.confounds, sep="\t", index=False, na_rep="n/a")


def refused(run, match, strategy=("wm_csf",)):
    with pytest.raises(InputError, match=match) as error:
        read_confounds(run, strategy, {})
    assert "\n" not in str(error.value)


def test_columns_of_the_strategy(run):
    values, keep, counts = read_confounds(run, ("wm_csf",), {})
    np.testing.assert_allclose(values, run.table[["csf", "white_matter"]].to_numpy())
    assert keep.all()
    assert not any(counts.values())
    values, keep, counts = read_confounds(run, ("motion", "high_pass"), {"motion": "derivatives"})
    assert values.shape == (N, 12 + 2)
    assert counts["leading_nan_confounds"] == 6
    assert read_confounds(run, (), {})[0] is None


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("abc", "text"),
        (np.inf, "must be finite after its first rows; csf is not"),
        (np.nan, "must be finite after its first rows; csf is not"),
        (1e308, "csf is not, or beyond 1e"),
        (-1e200, "csf is not, or beyond 1e"),
    ],
)
def test_values_that_cannot_be_used(run, value, match):
    column = run.table["csf"].astype(object)
    column[10] = value
    write(run, csf=column)
    refused(run, match)


def test_non_steady_state_volumes(run):
    flags = {f"non_steady_state_outlier{i:02d}": np.eye(N, dtype=int)[i] for i in range(N)}
    write(run, **dict(list(flags.items())[:2]))
    _, keep, counts = read_confounds(run, ("wm_csf",), {})
    assert keep.tolist() == [False] * 2 + [True] * (N - 2)
    assert counts["non_steady_state_volumes"] == 2
    for strategy in (("wm_csf",), ()):
        write(run, **flags)
        refused(run, "must leave volumes; all are non-steady-state", strategy)
        write(run, non_steady_state_outlier00=flags[f"non_steady_state_outlier{N - 1:02d}"])
        refused(run, "must leave volumes", strategy)
        write(run, non_steady_state_outlier00=["no"] * N)
        refused(run, "flag non-steady-state volumes by 0 and 1", strategy)


def test_tables_of_another_length_or_kind(run):
    content = run.confounds.read_bytes()
    for spoilt, match in (
        (content[: content.rindex(b"\n", 0, -1) + 1], f"one row per volume: {N}; got {N - 1}"),
        (b"", "empty file"),
        (b"\x00garbage\xff" * 99, "must be"),
        (content.decode().encode("utf-16"), "must be UTF-8"),
        (content.replace(b"\n", b"\t\n")[content.index(b"\n") :], "must|twice"),
    ):
        run.confounds.write_bytes(spoilt)
        refused(run, match)
    run.confounds.write_bytes(b"")
    assert read_confounds(run, (), {})[0] is None  # nothing was asked of it
    run.confounds.unlink()
    os.mkfifo(run.confounds)
    refused(run, "FIFO")
    run.confounds.unlink()
    run.confounds.symlink_to("/dev/zero")
    refused(run, "device", ())


@pytest.mark.parametrize("strategy", ["brainwash", "scrub", "compcor", "tedana", "ica_aroma"])
def test_strategies_that_the_table_does_not_serve(run, strategy):
    run.table = run.table.drop(columns=["framewise_displacement", "std_dvars"])
    write(run)
    refused(run, "cannot be used", (strategy, "high_pass"))
    run.confounds.with_suffix(".json").write_text("{")
    refused(run, "readable JSON", ("high_pass", strategy))


def test_without_a_table(run):
    run.confounds = None
    refused(run, "No confounds file")
    assert read_confounds(run, (), {})[1].all()


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_damaged_tables_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "x_desc-confounds_timeseries.tsv"
    table = pd.DataFrame({"csf": np.arange(N) % 7, "white_matter": np.arange(N) % 5 / 4})
    content = table.to_csv(sep="\t", index=False).encode()
    where = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.binary(max_size=4) | st.sampled_from([b"\t", b"\n", b"e9", b"inf", b"-"]))
    end = where + data.draw(st.sampled_from([0, len(new), len(content)]))
    path.write_bytes(content[:where] + new + content[end:])
    run = SimpleNamespace(confounds=path, n_volumes=N, bold=(Path("x_bold.nii.gz"),))
    try:
        values, keep, _ = read_confounds(run, ("wm_csf",), {})
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert values.shape == (N, 2)
        assert keep.all()
        assert (np.abs(values) < 1e15).all()
