"""Fixtures and the rules of all tests: no network, no user config, shared data optional."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# pycortex writes a config file on import, nilearn a data folder on a failed fetch
_scratch = tempfile.mkdtemp(prefix="brainnrds-tests-")
os.environ["XDG_CONFIG_HOME"] = _scratch
os.environ["NILEARN_DATA"] = _scratch

import pytest  # noqa: E402
from torchvision_operators import make_torchvision_importable  # noqa: E402

make_torchvision_importable()

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config, items):
    import torch

    skip_gpu = pytest.mark.skip(reason="no CUDA device")
    skip_shared = pytest.mark.skip(reason=f"no shared data at {SHARED_DATA.name}/ beside the clone")
    skip_prove = pytest.mark.skip(reason="a full proof: run by `make prove` (pytest -m prove)")
    prove = "prove" in (config.getoption("-m") or "")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip_gpu)
        if "shared_data" in item.keywords and not SHARED_DATA.is_dir():
            item.add_marker(skip_shared)
        if "prove" in item.keywords and not prove:
            item.add_marker(skip_prove)


def _sample_data(name, tmp_path_factory, **arguments):
    """Sample data that are made once, whichever test process asks first."""
    from filelock import FileLock

    from brainnrds.datasets import make_movie_dataset

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with FileLock(folder / f"{name}.lock"):
        # what is there already is read back
        return make_movie_dataset(folder / name / "bids", **arguments)


@pytest.fixture(scope="session")
def short_movies(tmp_path_factory):
    """One subject, four films of 40 s on fsaverage5; not to be written to."""
    return _sample_data(
        "short_movies",
        tmp_path_factory,
        n_runs=3,
        n_films_per_run=1,
        n_repeats=2,
        n_test_films=1,
        n_test_repeats=2,
        film_duration=40,
        snr=1.0,
    )


@pytest.fixture(scope="session")
def planted_movies(tmp_path_factory):
    """Two subjects, four films of 80 s on fsaverage5, strong responses; not to be written to."""
    return _sample_data(
        "planted_movies",
        tmp_path_factory,
        n_subjects=2,
        n_runs=3,
        n_films_per_run=1,
        n_repeats=2,
        n_test_films=1,
        n_test_repeats=2,
        film_duration=80,
        snr=3.0,
        random_state=0,
    )


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real data that is not shipped; use with ``@pytest.mark.shared_data``."""
    return SHARED_DATA
