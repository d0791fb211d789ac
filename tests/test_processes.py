import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from brainnrds import _processes
from brainnrds._checks import InputError
from brainnrds._processes import fit_processes, map_in_processes, passing_folder


def double(value, seconds=0.0):
    time.sleep(seconds)
    if value == 3:
        warnings.warn("three", UserWarning, stacklevel=1)
    if value == 5:
        raise InputError("five")
    return np.full((value, 2), 2.0), np.zeros(0, dtype=bool), {"value": value}


def die(value, path, n_times):
    """End this process so many times, as for want of memory, when the value is 2."""
    if value == 2 and len(path.read_text()) < n_times:
        with open(path, "a") as file:
            file.write(".")
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def name(value, *_):
    return f"Run {value}"


def test_results_are_in_order_and_warnings_passed_on():
    # the first take longest
    jobs = [(value, 0.2 / (1 + value)) for value in (0, 1, 3, 2, 3)]
    with pytest.warns(UserWarning, match="three"):
        results = list(map_in_processes(double, jobs, 2, name=name))
    assert [about["value"] for *_, about in results] == [0, 1, 3, 2, 3]
    for (array, empty, _), (value, _) in zip(results, jobs, strict=True):
        np.testing.assert_array_equal(array, np.full((value, 2), 2.0))
        assert empty.shape == (0,)
        array += 1  # not read-only, though it lies in a file
    here = list(map_in_processes(double, [(4,)], 1, name=name))
    assert here[0][2] == {"value": 4}


def test_errors_come_as_they_are_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(_processes.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(_processes.os.path, "isdir", lambda path: False)
    with pytest.raises(InputError, match="^five$"):
        list(map_in_processes(double, [(5,), (1,), (2,)], 2, name=name))
    assert not list(tmp_path.iterdir())


def test_a_job_whose_process_dies_is_done_again_once_and_then_named(tmp_path):
    path = tmp_path / "deaths"
    path.touch()
    jobs = [(value, path, 1) for value in range(6)]
    assert list(map_in_processes(die, jobs, 2, name=name)) == list(range(6))
    assert path.read_text() == "."
    path.write_text("")
    jobs = [(value, path, 2) for value in range(6)]
    with pytest.raises(InputError, match=r"^Run 2 cannot be read: .* killed twice"):
        list(map_in_processes(die, jobs, 2, name=name))
    assert path.read_text() == ".."


def test_short_memory_makes_processes_fewer_and_is_said(monkeypatch):
    class Free:
        available = 4 * 2**30

    monkeypatch.setattr(_processes.psutil, "virtual_memory", lambda: Free)
    with pytest.warns(UserWarning, match=r"^BOLD: 2 of 8 processes, as 4\.0 GiB"):
        assert fit_processes(8, 3 * 2**29, what="BOLD") == 2
    with pytest.warns(UserWarning, match="1 of 8"):
        assert fit_processes(8, 2**40, what="BOLD") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_processes(2, 3 * 2**29, what="BOLD") == 2


def test_what_a_killed_process_left_behind_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(_processes.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(_processes.os.path, "isdir", lambda path: False)
    left_behind = tmp_path / f"{_processes._FOLDER_PREFIX}dead"
    left_behind.mkdir()
    (left_behind / "lock").touch()  # nobody holds it
    with passing_folder() as mine:
        assert not left_behind.exists()
        with passing_folder():
            assert os.path.exists(mine)  # in use: not removed
    assert not os.path.exists(mine)


def test_processes_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, time\n"
        "from brainnrds._processes import start_processes\n"
        "print(start_processes(2).submit(os.getpid).result(), flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(300):
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the decoding process outlived its parent by 30 s")


def test_joblib_works_beside_and_after():
    code = """
        import joblib
        from brainnrds._processes import start_processes
        for _ in range(2):
            assert start_processes(2).submit(pow, 2, 3).result() == 8
            assert joblib.Parallel(2)(joblib.delayed(pow)(2, i) for i in range(3)) == [1, 2, 4]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=300)
