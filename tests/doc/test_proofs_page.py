"""The page on proofs: results become claims, with the figures of the file and a command."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

pytest.importorskip("sphinx")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "doc" / "proofs").glob("*.json"))


@pytest.fixture(scope="module")
def proofs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "doc" / "_ext"))
        spec = importlib.util.spec_from_file_location("proofs", ROOT / "doc" / "_ext" / "proofs.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "proofs", module)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_result_has_sentences_and_a_chart(path, proofs):
    result = json.loads(path.read_text())
    proof = proofs.PROOFS[path.stem](result)
    assert proof.found and all(re.search(r"\d", sentence) for sentence in proof.found)
    if proof.script:
        script = (ROOT / "tests" / "prove" / proof.script).read_text()
        assert all(f'"{flag}"' in script for flag in re.findall(r"--[a-z-]+", proof.options))
    figure = plt.figure()
    proof.draw(figure)
    assert all(axes.has_data() for axes in figure.axes)
    plt.close(figure)


def test_a_proof_that_failed_says_so(proofs):
    result = json.loads((ROOT / "doc" / "proofs" / "scale.json").read_text())
    text = proofs.text_of(proofs.scale(result), "scale", result)
    assert "Not reached" not in text and "quick run" not in text
    result |= {"passed": False, "quick": True}
    text = proofs.text_of(proofs.scale(result), "scale", result)
    assert "Not reached" in text and "quick run" in text


def test_figures_are_those_of_the_file(proofs):
    result = json.loads((ROOT / "doc" / "proofs" / "null.json").read_text())
    for row in result["tests"]:
        row |= {"rate_below_05": 0.2, "share_any_discovery": 0.3, "share_any_family_wise": 0.4}
    result["tests"][4] |= {
        "rate_below_05": 0.6, "share_any_discovery": 0.7, "share_any_family_wise": 0.8,
    }  # fmt: skip
    found = proofs.null(result).found
    rates, maps = found[0], found[-1]
    assert re.findall(r"[\d.]+ %", rates)[:2] == ["20.0 %", "60.0 %"]
    assert re.findall(r"[\d.]+ %", maps)[:2] == ["70.0 %", "80.0 %"]
    assert proofs.minus("-0.5 to 2, AR(1)-like, 2e-05, (-1)") == (
        "−0.5 to 2, AR(1)-like, 2e-05, (−1)"
    )


def test_the_table_of_family_wise_errors_is_that_of_the_file(proofs):
    result = json.loads((ROOT / "doc" / "proofs" / "group.json").read_text())
    shares = [0.011 + 0.01 * i for i in range(len(result["errors"]))]
    for row, share in zip(result["errors"], shares, strict=True):
        row["family_wise_error"] = share
    text = proofs.text_of(proofs.group(result), "group", result)
    assert "\n   * - people\n     - test\n" in text
    rows = text.split("\n   * - ")[2:]
    assert len(rows) == len(shares) / 2
    shown = [share for row in rows for share in re.findall(r"([\d.]+) % ±", row)]
    assert shown == [f"{100 * share:.1f}" for share in shares]
