"""Processes that are started once and share the cores; arrays pass between them as files."""

import fcntl
import mmap
import os
import pickle
import shutil
import tempfile
import threading
import time
import warnings
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import joblib
import psutil
from joblib.executor import get_memmapping_executor
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from brainnrds._checks import InputError

__all__ = ["fit_processes", "map_in_processes", "passing_folder", "start_processes"]

# how long processes wait for the next call: to start them takes seconds
_IDLE_SECONDS = 60
# the processes are many: the one that feeds the GPU goes first
_NICENESS = 5
_FOLDER_PREFIX = "brainnrds-frames-"
# what a process needs before it has done anything
_BYTES_OF_A_PROCESS = 400 * 2**20
_ALIGNMENT = 64
# memory that must be free at least for arrays to pass through it
_ROOM = 2**33


def start_processes(n_processes):
    """Return an executor of processes that share the cores; the last call's where they still wait.

    Parameters
    ----------
    n_processes : int

    Returns
    -------
    executor : concurrent.futures.Executor
    """
    # joblib's own: it would take loky's plain one for its own, and stumble
    return get_memmapping_executor(n_processes, max_nbytes=None, **_how_to_start(n_processes))


def _how_to_start(n_processes):
    n_threads = max(1, joblib.cpu_count() // n_processes)
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "timeout": _IDLE_SECONDS,
        "env": dict.fromkeys(variables, str(n_threads)),
        "initializer": _start_process,
        "initargs": (n_threads, os.getpid()),
    }


def _start_process(n_threads, parent):
    import cv2

    cv2.setNumThreads(n_threads)
    os.nice(_NICENESS)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    """End this process once its parent is gone: a killed one cannot say so itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def fit_processes(n_processes, n_bytes, *, what):
    """Return how many processes the free memory allows, with a warning where these are fewer.

    Parameters
    ----------
    n_processes : int
        How many there may be.
    n_bytes : int
        What each needs for its work.
    what : str
        What they do, for the warning.

    Returns
    -------
    n_processes : int
        At least 1.
    """
    free = psutil.virtual_memory().available
    n_possible = max(1, int(free // (n_bytes + _BYTES_OF_A_PROCESS)))
    if n_possible < n_processes:
        warnings.warn(
            f"{what}: {n_possible} of {n_processes} processes, as {free / 2**30:.1f} GiB of memory "
            f"are free and each needs {n_bytes / 2**30:.1f}.",
            stacklevel=3,
        )
    return min(n_processes, n_possible)


def map_in_processes(function, jobs, n_processes, *, name):
    """Yield the result of a function for each job, in order; computed in processes.

    They are started for this call and end with it: films may be decoded meanwhile. No more jobs
    than processes are running or waiting to be taken. Warnings are passed on. When a process dies,
    the jobs that were running are done again, once, one after the other.

    Parameters
    ----------
    function : callable
    jobs : list of tuple
        Its arguments.
    n_processes : int
        1 works in this process.
    name : callable
        Of a job's arguments: what the error calls the job.

    Yields
    ------
    result : object

    Raises
    ------
    InputError
        A process died twice with the same job.
    """
    if n_processes == 1:
        for job in jobs:
            yield function(*job)
        return
    waiting, running, seen = deque(jobs), deque(), {}
    executor = _own_processes(n_processes)
    with passing_folder() as folder:
        try:
            while waiting or running:
                try:
                    while waiting and len(running) < n_processes:
                        future = executor.submit(_call, function, waiting[0], folder)
                        running.append((waiting.popleft(), future))
                    results = [running[0][1].result()]
                    running.popleft()
                except BrokenProcessPool:
                    # which one died is not known; it may have died without any work
                    again = [job for job, _ in running] or [waiting.popleft()]
                    running.clear()
                    executor.shutdown()
                    executor = _own_processes(n_processes)
                    results = (_run_alone(function, job, folder, name) for job in again)
                for passed in results:
                    yield _take(passed, seen)
        finally:
            for _, future in running:
                future.cancel()
            executor.shutdown()  # nobody writes while the folder is removed


def _own_processes(n_processes):
    return ProcessPoolExecutor(n_processes, **_how_to_start(n_processes))


def _run_alone(function, job, folder, name):
    try:
        with _own_processes(1) as executor:
            return executor.submit(_call, function, job, folder).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"{name(*job)} cannot be read: the process that reads it was killed twice (out of "
            "memory?)."
        ) from error


def _call(function, job, folder):
    """Return a pickled result, the file of its arrays and their places, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*job)
    buffers, places = [], []
    content = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    # through a pipe, arrays would take as long as the work
    handle, path = tempfile.mkstemp(dir=folder)
    with open(handle, "wb") as stream:
        for buffer in buffers:
            stream.write(bytes(-stream.tell() % _ALIGNMENT))
            places.append((stream.tell(), buffer.raw().nbytes))
            stream.write(buffer.raw())
        stream.write(b"\0")  # what is empty cannot be mapped
    told = [(w.message, w.category, w.filename, w.lineno) for w in caught]
    return content, path, places, told


def _take(passed, seen):
    """Return the result, its arrays mapped from the file, which goes; pass warnings on."""
    content, path, places, told = passed
    for message, category, filename, line in told:
        warnings.warn_explicit(message, category, filename, line, registry=seen)
    with open(path, "rb") as stream:
        memory = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
    os.unlink(path)  # the memory map stays readable
    buffers = [memory[start : start + size] for start, size in places]
    return pickle.loads(content, buffers=buffers)  # noqa: S301 : of a process started here


@contextmanager
def passing_folder(n_bytes=0):
    """Yield a folder for arrays on their way, in memory where there is room.

    Its owner holds a lock in it, which ends with the process: what a killed process left behind is
    removed by the next one.

    Parameters
    ----------
    n_bytes : int, default=0
        What may be on its way at once; room is at least 8 GiB.

    Yields
    ------
    folder : str
    """
    memory = "/dev/shm"
    if not os.path.isdir(memory) or shutil.disk_usage(memory).free < max(_ROOM, n_bytes):
        memory = tempfile.gettempdir()
    for left_behind in Path(memory).glob(f"{_FOLDER_PREFIX}*"):
        try:
            with open(left_behind / "lock", "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left_behind, ignore_errors=True)
        except OSError:
            continue  # in use
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=memory) as folder:
        with open(os.path.join(folder, "new"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(lock.name, os.path.join(folder, "lock"))
            yield folder
