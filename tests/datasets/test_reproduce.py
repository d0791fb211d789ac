"""The reproduce command, end to end, on a small copy of the release's tree."""

import importlib.util
from pathlib import Path

import pytest
from wen2018_release import make_release

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "run_reproduce_paper.py"


@pytest.mark.filterwarnings("ignore")
def test_all_three_analyses_and_one_page(tmp_path):
    spec = importlib.util.spec_from_file_location("run_reproduce_paper", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    release = make_release(tmp_path / "release", films=("seg1", "seg2", "test1"), kinds=("mni",))
    page = script.main(
        [
            str(tmp_path / "out"),
            *("--archive-dir", str(release), "--subjects", "1", "--kind", "mni"),
            *("--missing", "skip", "--embedded", "--device", "cpu"),
            *("--grid", "8", "--n-epochs", "2", "--n-permutations", "100", "--max-clips", "44"),
        ]
    )
    text = page.read_text()
    assert "0.285" in text and "0.543" in text and "0.769" in text
    assert text.count("Subject 1, here") == 3
    assert "video - image" in text
    assert "What the paper leaves open" in text and "test2_9" in text
    assert "the 2000 that share most variance with the flow" in text
    assert "Flow is estimated with DIS (RAFT there), on 8 x 8 cells" in text
