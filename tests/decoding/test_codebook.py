"""The codebook against brute force."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from brainnrds.decoding import FlowCodebook


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(size=(6, 2, 2, 5, 4)).astype(np.float32)


def test_labels_and_expected_flow_equal_brute_force(flow):
    codebook = FlowCodebook(7, random_state=0).fit(flow)
    labels = codebook.encode(flow)
    assert labels.shape == (6, 2, 5, 4)
    for clip, step, row, column in [(0, 0, 0, 0), (3, 1, 2, 3), (5, 1, 4, 0)]:
        vector = flow[clip, step, :, row, column]
        nearest = np.linalg.norm(codebook.codes_ - vector, axis=1).argmin()
        assert labels[clip, step, row, column] == nearest
    probabilities = np.random.default_rng(1).dirichlet(np.ones(7), size=(6, 2, 5, 4))
    expected = np.zeros_like(flow)
    for index in np.ndindex(6, 2, 5, 4):
        expected[index[0], index[1], :, index[2], index[3]] = probabilities[index] @ codebook.codes_
    decoded = codebook.decode(np.moveaxis(probabilities, -1, 2))
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


def test_codes_are_kmeans_centres_in_order(flow):
    codebook = FlowCodebook(5, random_state=3).fit(flow)
    lengths = np.linalg.norm(codebook.codes_, axis=1)
    assert (np.diff(lengths) > -1e-6).all()
    vectors = np.moveaxis(flow, 2, -1).reshape(-1, 2)
    distances = np.linalg.norm(vectors[:, None] - codebook.codes_, axis=2)
    owner = distances.argmin(axis=1)
    means = np.stack([vectors[owner == k].mean(axis=0) for k in range(5)])
    np.testing.assert_allclose(codebook.codes_, means, atol=0.02)  # a fixed point of Lloyd's step
    best = KMeans(5, n_init=10, random_state=0).fit(vectors).inertia_
    assert (distances.min(axis=1) ** 2).sum() < 1.1 * best


def test_planted_codes_are_found():
    codes = np.array([[0, 0], [1, 0], [0, 2], [-3, 1]], np.float32)
    flow = codes[np.random.default_rng(4).integers(4, size=(10, 1, 4, 4))]
    codebook = FlowCodebook(4, random_state=0).fit(np.moveaxis(flow, -1, 2))
    np.testing.assert_array_equal(codebook.codes_, codes)


def test_more_codes_than_vectors_is_refused_and_than_distinct_ones_reduced(flow):
    with pytest.raises(ValueError, match="`n_codes` must not exceed"):
        FlowCodebook(41).fit(flow[:1, :, :, :, :])
    with pytest.warns(UserWarning, match="1 distinct vector"):
        assert len(FlowCodebook(3).fit(np.zeros((4, 1, 2, 3, 3))).codes_) == 1


def test_a_large_sample_is_thinned_reproducibly(flow):
    a = FlowCodebook(4, max_vectors=100, random_state=0).fit(flow).codes_
    b = FlowCodebook(4, max_vectors=100, random_state=0).fit(flow).codes_
    np.testing.assert_array_equal(a, b)


def test_decode_refuses_another_number_of_codes(flow):
    codebook = FlowCodebook(4, random_state=0).fit(flow)
    with pytest.raises(ValueError, match="n_codes = 4"):
        codebook.decode(np.ones((1, 1, 5, 2, 2)))
