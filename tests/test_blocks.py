import numpy as np

from brainnrds.blocks import block_labels


def test_blocks_stay_inside_films():
    runs = np.repeat([0, 1], [50, 40])
    films = np.array([0] * 25 + [1] * 22 + [-1] * 3 + [0] * 33 + [-1] * 7)
    blocks = block_labels(runs, films, 10)
    assert (blocks[films < 0] == -1).all()
    assert blocks.max() + 1 == 2 + 2 + 3
    for block in range(blocks.max() + 1):
        rows = np.flatnonzero(blocks == block)
        assert len(rows) >= 10
        assert len(np.unique(films[rows])) == len(np.unique(runs[rows])) == 1
        assert (np.diff(rows) == 1).all()


def test_short_films_share_a_block_inside_their_run():
    runs = np.repeat([0, 1], 12)
    films = np.repeat(np.arange(8), 3)
    assert block_labels(runs, films, 6).tolist() == np.repeat([0, 1, 2, 3], 6).tolist()
    # what is left at the end of a run: half a block stands alone, less joins the last
    assert block_labels(runs[:9], films[:9], 6).tolist() == [0] * 6 + [1] * 3
    assert block_labels(runs[:8], films[:8], 6).tolist() == [0] * 8
