"""What a proof has finished so far, one line of JSON each: an interrupted proof goes on there."""

import itertools
import json
import time

import joblib
import numpy as np
import threadpoolctl
import torch


def read_finished(path):
    """Return the results of a file that may not exist, or may end in half a line."""
    results = []
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return results
    for line in path.read_text().splitlines():
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while it wrote this line
    path.write_text("".join(json.dumps(result) + "\n" for result in results))
    return results


def add_finished(path, result):
    """Append a result."""
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")


def run_and_keep(path, jobs, n_jobs, most_seconds=None):
    """Run joblib's delayed calls on one thread each; append and yield results as they come.

    After `most_seconds` none is begun.
    """
    end = np.inf if most_seconds is None else time.monotonic() + most_seconds
    begun = itertools.takewhile(lambda _: time.monotonic() < end, jobs)
    threadpoolctl.threadpool_limits(1)
    torch.set_num_threads(1)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        # no call waits in a queue: the end is looked at before each
        parallel = joblib.Parallel(
            n_jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1
        )
    for result in parallel(begun):
        add_finished(path, result)
        yield result
