"""Options: each field decides the result unless marked, files by their content."""

import dataclasses
from pathlib import Path

import pytest

import brainnrds
from brainnrds.analyses.options import (
    DecodeOptions,
    EncodeGroupOptions,
    EncodeOptions,
    GroupOptions,
    ReanimateOptions,
    Selection,
    deciding_values,
    flags,
)
from brainnrds.io import InputError

KINDS = (EncodeOptions, DecodeOptions, ReanimateOptions, GroupOptions, EncodeGroupOptions)
CASES = [(kind, about) for kind in KINDS for about in dataclasses.fields(kind)]


def another(about):
    """A value other than the default."""
    metadata, default = about.metadata, about.default
    if metadata["choices"] is not None:
        choices = metadata["choices"]
        choices = choices() if callable(choices) else choices
        if metadata["many"]:
            return tuple(choices)
        return next(choice for choice in choices if choice != default)
    if isinstance(default, bool):
        return not default
    value = {int: 123, float: 1.25, str: "other"}[metadata["of"]]
    if metadata["many"]:
        return (value,) * (metadata["many"] if type(metadata["many"]) is int else 1)
    return value


@pytest.mark.parametrize(
    ("kind", "about"), CASES, ids=[f"{kind.__name__}-{about.name}" for kind, about in CASES]
)
def test_a_changed_option_is_another_run_unless_marked(kind, about):
    changed = kind(**{about.name: another(about)})
    same = deciding_values(changed) == deciding_values(kind())
    assert same == (not about.metadata["in_key"])


def test_what_does_not_decide_is_named_here():
    """A reader of this list must agree that none of these changes a number."""
    marked = {about.name for _, about in CASES if not about.metadata["in_key"]}
    figures = {"pycortex_subject"}  # drawn again all the same: see the tests of the record
    assert marked == {"device", "n_jobs", "offload", "batch_size", "devices"} | figures


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, about.name) for kind, about in CASES if about.metadata["content"]],
)
def test_files_decide_by_their_content(kind, name, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_bytes(b"content")
    values = deciding_values(kind(**{name: str(first)}))
    assert values == deciding_values(kind(**{name: str(second)}))
    first.write_bytes(b"Content")  # the same name and size
    assert values != deciding_values(kind(**{name: str(first)}))


def test_folders_decide_by_what_they_hold(tmp_path):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    weights = tmp_path / "model" / "unet" / "weights"
    weights.write_bytes(b"1")
    options = ReanimateOptions(video_model=str(tmp_path / "model"))
    before = deciding_values(options)
    assert deciding_values(options) == before
    weights.write_bytes(b"2")
    assert deciding_values(options) != before


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (EncodeOptions, {"n_permutations": 99}, "--n-permutations must be at least 100; got 99"),
        (EncodeOptions, {"delays_seconds": ()}, "--delays-seconds must name at least one"),
        (EncodeOptions, {"delays_seconds": (float("inf"),)}, "--delays-seconds must be finite"),
        (EncodeOptions, {"n_folds": 2.5}, "--n-folds must be whole"),
        (EncodeOptions, {"n_iter": True}, "--n-iter must be a number"),
        (EncodeOptions, {"n_iter": "7"}, "--n-iter must be a number; got '7'"),
        (EncodeOptions, {"video_encoders": "motion-energy"}, "--video-encoder must be several"),
        (DecodeOptions, {"grid": (8,)}, "--grid must have 2 values; got 1"),
        (ReanimateOptions, {"renderer": "svd"}, "--renderer must be one of splat"),
    ],
)
def test_wrong_values_are_refused_by_the_name_of_their_option(kind, values, expected):
    with pytest.raises(InputError, match=expected):
        kind(**values)


def test_lists_become_tuples_and_options_do_not_change():
    options = EncodeOptions(delays_seconds=[2.0, 4.0])
    assert options.delays_seconds == (2.0, 4.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.n_iter = 3


def test_names_on_the_command_line_are_used_once():
    for kind in KINDS:
        names = [*flags(kind).values(), *flags(Selection).values()]
        assert len(set(names)) == len(names)


def test_an_option_stands_in_one_place():
    """Its field makes its argument, its help and its place in the key; the analysis uses it."""
    package = Path(brainnrds.__file__).parent
    writing = [path.name for path in package.rglob("*.py") if "n_codes:" in path.read_text()]
    assert writing.count("options.py") == 1
    assert "n_codes" not in (package / "cli.py").read_text()
    assert "n_codes" not in (package / "analyses" / "record.py").read_text()
