"""A run that is stopped at random moments ends, begun again, in the results of a calm one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from disturbed import broken, differences, final_files, left_over, orphans

from brainnrds.io import save_arrays, save_json, save_table

# a whole App, again and again: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.prove
def test_runs_that_are_killed_end_in_the_results_of_a_calm_one(tmp_path):
    """One round of SIGKILLs; prove_kills.py sends a hundred signals to the three analyses.

    test_encode.py has a single kill, which every run of the tests does.
    """
    script = Path(__file__).with_name("disturbed.py")
    command = [sys.executable, str(script), str(tmp_path), "1", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome = json.loads(done.stdout)
    assert outcome["calm"][0] == 0
    (killed,) = outcome["rounds"]
    assert set(killed["codes"]) == {-9} and killed["last_code"] == 0
    assert killed["different"] == killed["broken"] == []
    assert killed["orphans"] == killed["tracebacks"] == killed["slow"] == 0


def test_what_differs_or_is_broken_is_seen(tmp_path):
    """The comparison itself can fail: another value, a file that is gone, one that is cut."""
    calm = tmp_path / "calm"
    save_arrays(calm / "a.h5", {"x": np.arange(4.0)})
    save_table(calm / "sub" / "b.tsv", {"y": [1.0, np.nan]})
    save_json(calm / "c.json", {"Seconds": 1, "Value": [1, {"Seconds": 2, "deep": 3}]})
    (calm / ".tmp-1-c.json").write_text("{")
    other = shutil.copytree(calm, tmp_path / "other")
    save_json(other / "c.json", {"Seconds": 9, "Value": [1, {"Seconds": 8, "deep": 3}]})
    assert differences(calm, other) == [] and broken(other) == []
    assert [path.name for path in left_over(other) if path.is_relative_to(other)] == [
        ".tmp-1-c.json"
    ]
    assert len(final_files(other)) == 4
    save_arrays(other / "a.h5", {"x": np.array([0, 1, 2, 3 + 1e-15])})
    save_json(other / "c.json", {"Value": [1, {"deep": 4}]})
    (other / "sub" / "b.tsv").unlink()
    assert len(differences(calm, other)) == 3
    (other / "a.h5").write_bytes((calm / "a.h5").read_bytes()[:300])
    assert [line.split(":")[0] for line in broken(other)] == ["a.h5"]


def test_processes_that_go_on_are_seen():
    marker = f"test-{os.getpid()}"
    sleeper = subprocess.Popen(
        ["sleep", "60"], env={"PATH": os.environ["PATH"], "BRAINNRDS_DISTURBED": marker}
    )
    try:
        deadline = time.monotonic() + 20  # its environment is empty for a moment after it began
        while not (found := orphans(marker, 0)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found == [sleeper.pid]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert orphans(marker, 0) == []
