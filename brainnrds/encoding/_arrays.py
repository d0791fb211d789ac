"""NumPy's arrays and torch's tensors on a device, for what is computed alike with both."""

import sys
import threading
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import numpy as np
from threadpoolctl import ThreadpoolController

__all__ = [
    "as_slice",
    "like",
    "namespace",
    "one_blas_thread",
    "own_stream",
    "place",
    "rows_of",
    "stream_of",
    "to_float64",
    "to_numpy",
]


_of_thread = threading.local()
_limit = SimpleNamespace(lock=threading.Lock(), n_blocks=0, limiter=None)


def namespace(array):
    """Return the module whose functions take `array`: torch or numpy."""
    torch = sys.modules.get("torch")  # before it is loaded there are no tensors
    return torch if torch is not None and isinstance(array, torch.Tensor) else np


def place(array, device):
    """Give a NumPy array to a device; "cpu" leaves it to NumPy."""
    if device == "cpu":
        return array
    import torch

    return torch.as_tensor(np.ascontiguousarray(array), device=device)


def stream_of(device):
    """Return where a GPU does this thread's work; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.current_stream(device)


@contextmanager
def own_stream(device, after):
    """Let a GPU do this thread's work before that of others, and all of it by the block's end.

    Parameters
    ----------
    device : str
        A CPU is left as it is.
    after : torch.cuda.Stream or None
        Where arrays come from that are used here.
    """
    if after is None:
        yield
        return
    import torch

    # one for each thread: memory that is free is kept for the stream that had it
    streams = _of_thread.__dict__
    if device not in streams:
        streams[device] = torch.cuda.Stream(device, priority=-1)
    stream = streams[device]
    stream.wait_stream(after)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def like(array, other):
    """Bring a NumPy array to where `other` is, in its own dtype."""
    xp = namespace(other)
    return array if xp is np else xp.as_tensor(array, device=other.device)


def rows_of(mask, other):
    """Rows of `other` that a mask takes: where they are neighbours a slice, without a copy."""
    rows = as_slice(np.flatnonzero(mask))
    return rows if isinstance(rows, slice) else like(mask, other)


def as_slice(rows):
    """Rows that follow each other as a slice: nothing is copied."""
    follow = len(rows) and (np.diff(rows) == 1).all()
    return slice(rows[0], rows[-1] + 1) if follow else rows


@contextmanager
def one_blas_thread():
    """Let NumPy's products start no threads of their own in the block: for work in threads."""
    with _limit.lock:
        if not _limit.n_blocks:
            _limit.limiter = _thread_pools().limit(limits=1, user_api="blas")
        _limit.n_blocks += 1
    try:
        yield
    finally:
        with _limit.lock:  # blocks of several threads end in any order: the last one lifts it
            _limit.n_blocks -= 1
            if not _limit.n_blocks:
                _limit.limiter.restore_original_limits()


@cache
def _thread_pools():
    return ThreadpoolController()  # to look for the libraries takes as long as a small product


def to_numpy(array):
    """Bring an array or tensor to NumPy."""
    return array if namespace(array) is np else array.cpu().numpy()


def to_float64(array):
    """Return a copy in float64."""
    return np.array(array, dtype=np.float64) if namespace(array) is np else array.double().clone()
