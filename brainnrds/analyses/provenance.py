"""What a run was: parameters, seeds, versions, command, device; for the record and the report."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import brainnrds

__all__ = ["run_record"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "nilearn", "nibabel", "pybids", "himalaya", "torch")


def run_record(analysis, *, parameters, summary, seeds, device, seconds, warned):
    """Describe a finished analysis, in the words that `brainnrds.reporting` reads.

    Parameters
    ----------
    analysis : str
        "encode", "decode" or "reanimate".
    parameters : dict
        Everything that was chosen or found.
    summary : dict
        The main results: name -> number or text.
    seeds : dict
    device : str
    seconds : float
        Wall-clock time.
    warned : dict of str to int
        Warnings and how often each was met.

    Returns
    -------
    record : dict
    """
    versions = {"Python": platform.python_version(), "brainnrds": brainnrds.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "Analysis": analysis,
        "Summary": summary,
        "Parameters": parameters,
        "Command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "Seeds": seeds,
        "Device": device_name(device),
        "Seconds": round(seconds, 1),
        "Versions": versions,
        "Warnings": dict(warned),
    }


def device_name(device):
    """Name the hardware behind a device string.

    Parameters
    ----------
    device : str

    Returns
    -------
    name : str
    """
    if device.startswith("cuda"):
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {_n_cores()} cores)"


def _n_cores():
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
