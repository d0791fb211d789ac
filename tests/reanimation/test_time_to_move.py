"""TimeToMove, and the stock generator that it steers, with tiny random networks."""

import numpy as np
import pytest
from tiny_svd import make_input

from brainnrds.reanimation import (
    ImageToVideoRenderer,
    TimeToMoveRenderer,
)

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_stock_generator_and_time_to_move(stock):
    frames, flow = make_input(1)
    plain = ImageToVideoRenderer(stock, num_steps=3)(frames, flow)
    assert plain.shape == (1, 3, 3, 64, 64)
    np.testing.assert_array_equal(ImageToVideoRenderer(stock, num_steps=3)(frames, -flow), plain)
    steered = TimeToMoveRenderer(stock, num_steps=3, weak_step=1, strong_step=2)
    one, other = steered(frames, flow), steered(frames, -flow)
    assert one.shape == (1, 3, 3, 64, 64)
    assert np.abs(one - other).max() > 1e-3


def test_time_to_move_keeps_the_guide_where_motion_is_prescribed(stock):
    """With both clocks at the last step, the prescribed region is the guide at that noise."""
    from brainnrds.reanimation.time_to_move import _prescribed

    fields = np.zeros((1, 2, 2, 64, 64), np.float32)
    fields[0, :, 0, 16:32, 8:24] = 8
    mask = _prescribed(fields, 1.0, (8, 8))
    assert mask.shape == (1, 3, 1, 8, 8)
    assert (mask[0, 0, 0, 2:4, 1:3] == 1).all() and mask[0, 0, 0].sum() == 4
    assert (mask[0, -1, 0, 2:4, 1:4] == 1).all() and mask[0, -1, 0, :, 6:].sum() == 0
    pan = np.full((1, 2, 2, 64, 64), 4, np.float32)
    assert (_prescribed(pan, 1.0, (8, 8)) == 1).all()
