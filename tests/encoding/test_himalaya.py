"""himalaya's searches through the model: the same result as the exact one, its backend restored."""

import numpy as np
import pytest
from himalaya.backend import get_backend, set_backend

from brainnrds.encoding import VideoEncodingModel
from brainnrds.encoding._himalaya import himalaya_backend


def test_backend_is_restored_even_after_an_error():
    before = set_backend("torch")
    try:
        X, y = np.random.default_rng(0).standard_normal((2, 60, 3))
        VideoEncodingModel(solver="himalaya").fit(X, y, runs=np.repeat([0, 1, 2], 20))
        assert get_backend() is before
        with pytest.raises(RuntimeError, match="planted"), himalaya_backend("cpu"):
            assert get_backend().name == "numpy"
            raise RuntimeError("planted")
        assert get_backend() is before
    finally:
        set_backend("numpy")
