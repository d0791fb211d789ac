"""Metrics against closed forms, scikit-image and brute force."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from brainnrds.blocks import block_bootstrap_interval, block_sign_flip_test
from brainnrds.metrics import (
    direction_accuracy,
    embedding_cosine,
    end_point_error,
    flicker,
    flow_cosine,
    identification_accuracy,
    pairwise_end_point_error,
    structural_similarity,
)


@pytest.fixture
def flows():
    random = np.random.default_rng(0)
    return random.normal(size=(2, 5, 3, 2, 6, 7)).astype(np.float32)


def test_end_point_error_three_four_five():
    flow = np.zeros((2, 1, 2, 4, 4), np.float32)
    true = flow.copy()
    true[0, :, 0], true[0, :, 1] = 3, 4
    assert end_point_error(flow, true, average="cells") == 2.5
    np.testing.assert_array_equal(end_point_error(flow, true, average="none"), [5, 0])


def test_averages_differ_where_masks_do(flows):
    flow, true = flows
    mask = np.zeros((5, 3, 6, 7), bool)
    mask[0], mask[1, 0, 0, 0] = True, True
    error = np.sqrt(((flow - true) ** 2).sum(axis=2))
    cells = end_point_error(flow, true, average="cells", mask=mask)
    clips = end_point_error(flow, true, average="clips", mask=mask)
    np.testing.assert_allclose(cells, error[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(clips, (error[0].mean() + error[1, 0, 0, 0]) / 2, rtol=1e-6)
    each = end_point_error(flow, true, average="none", mask=mask)
    assert np.isnan(each[2:]).all()


def test_threshold_looks_at_the_true_flow(flows):
    flow, true = flows
    fast = np.linalg.norm(true, axis=2) >= 1.5
    error = np.linalg.norm(flow - true, axis=2)
    result = end_point_error(flow, true, average="cells", min_motion=1.5)
    np.testing.assert_allclose(result, error[fast].mean(), rtol=1e-6)


def test_flow_cosine_and_direction_of_rotated_flow(flows):
    true = flows[1]
    for degrees, sector_right in ((0, 1), (10, None), (50, 0), (180, 0)):
        angle = np.deg2rad(degrees)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = 2.5 * np.einsum("ij,abjhw->abihw", rotation, true)
        cosine = flow_cosine(turned, true, average="cells")
        np.testing.assert_allclose(cosine, np.cos(angle), atol=1e-6)
        share = direction_accuracy(turned, true, average="cells")
        if sector_right is not None:
            assert share == sector_right
        else:  # 10 of 45 degrees cross the border
            assert 0.68 < share < 0.87


def test_zero_prediction_has_no_direction(flows):
    true = flows[1]
    zero = np.zeros_like(true)
    assert flow_cosine(zero, true, average="clips") == 0
    assert direction_accuracy(zero, true, average="clips") == 0
    assert np.isnan(flow_cosine(true, zero, average="cells"))


def test_pairwise_error_has_the_paired_one_on_its_diagonal(flows):
    flow, true = flows
    errors = pairwise_end_point_error(flow, true)
    np.testing.assert_allclose(
        np.diag(errors), end_point_error(flow, true, average="none"), rtol=1e-5
    )
    np.testing.assert_allclose(
        errors[1, 3], end_point_error(flow[1:2], true[3:4], average="cells"), rtol=1e-5
    )
    mask = np.random.default_rng(1).random((5, 3, 6, 7)) < 0.3
    masked = pairwise_end_point_error(flow, true, mask=mask)
    expected = end_point_error(flow[2:3], true[4:5], average="cells", mask=mask[2:3])
    np.testing.assert_allclose(masked[2, 4], expected, rtol=1e-5)


def test_identification_equals_brute_force():
    random = np.random.default_rng(2)
    similarity = random.integers(0, 4, size=(7, 7)).astype(float)  # with ties
    for n_way in (2, 3, 5, 7):
        accuracy = identification_accuracy(similarity, n_way=n_way)
        for i in range(7):
            others = [j for j in range(7) if j != i]
            wins = []
            for drawn in itertools.combinations(others, n_way - 1):
                rivals = similarity[i, list(drawn)]
                best = max(rivals.max(), similarity[i, i])
                tied = (rivals == best).sum() + 1
                wins.append((similarity[i, i] == best) / tied)
            np.testing.assert_allclose(accuracy[i], np.mean(wins), atol=1e-10)


def test_identification_chance_and_candidates():
    similarity = np.random.default_rng(3).normal(size=(300, 300))
    for n_way in (2, 10):
        assert abs(identification_accuracy(similarity, n_way=n_way).mean() - 1 / n_way) < 0.06
    np.testing.assert_allclose(
        identification_accuracy(np.zeros((6, 6)), n_way=3), 1 / 3, atol=1e-12
    )
    candidates = np.zeros((4, 4), bool)
    candidates[0, 1:3] = True
    similarity = np.array([[1, 0, 2, 9.0]] + [[0, 1, 2, 3.0]] * 3)
    accuracy = identification_accuracy(similarity, n_way=2, candidates=candidates)
    assert accuracy[0] == 0.5
    assert np.isnan(accuracy[1:]).all()


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_equals_skimage(data_range):
    from skimage.metrics import structural_similarity as reference

    random = np.random.default_rng(4)
    images = random.random((2, 3, 20, 33))
    other = np.clip(images + random.normal(scale=0.1, size=images.shape), 0, 1)
    images, other = images * data_range, other * data_range
    ours = structural_similarity(images, other, data_range=data_range)
    theirs = [
        reference(a, b, data_range=data_range, channel_axis=0)
        for a, b in zip(images, other, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert structural_similarity(images[0], images[0], data_range=data_range) == 1


def test_embedding_cosine():
    a = np.array([[1.0, 0], [1, 1], [0, 0]])
    b = np.array([[0, 2.0], [3, 3], [1, 0]])
    np.testing.assert_allclose(embedding_cosine(a, b), [0, 1, 0])


def test_flicker_is_what_motion_does_not_explain():
    y, x = np.mgrid[:24, :32]
    frames = np.stack([0.5 + 0.4 * np.sin((x - 2 * t) / 3.0) for t in range(4)])
    clip = np.repeat(frames[:, None], 3, axis=1)[None].astype(np.float32)
    flow = np.zeros((1, 3, 2, 24, 32), np.float32)
    flow[:, :, 0] = 2
    assert flicker(clip)[0] > 0.1
    assert flicker(clip, flow=flow)[0] < 1e-6
    bright = clip * np.array([1, 0.9, 1, 0.9], np.float32)[:, None, None, None]
    assert flicker(bright, flow=flow)[0] > 0.04


@pytest.mark.parametrize("n_blocks", [6, 40])
def test_bootstrap_interval_covers_the_mean(n_blocks):
    random = np.random.default_rng(5)
    covered = 0
    blocks = np.arange(5 * n_blocks) // 5
    for seed in range(400):
        values = random.normal(size=n_blocks)[blocks]  # blocks of equal values
        low, high = block_bootstrap_interval(values, blocks, n_resamples=1000, random_state=seed)
        covered += low <= 0 <= high
    assert binomtest(covered, 400, 0.95).pvalue > 1e-3  # plain percentiles of 6: 85 %


def test_sign_flip_is_exact_for_few_blocks():
    values = np.array([1.0, 2, 3, -1])
    p = block_sign_flip_test(values, np.arange(4))
    sums = [np.dot(s, values) for s in itertools.product([1, -1], repeat=4)]
    assert p == np.mean(np.array(sums) >= values.sum())
    assert block_sign_flip_test(np.ones(30), np.arange(30) // 3) == 2**-10


def test_sign_flip_is_uniform_under_the_null():
    random = np.random.default_rng(6)
    p = [
        block_sign_flip_test(
            np.repeat(random.normal(size=20), 3), np.arange(60) // 3, n_flips=500, random_state=i
        )
        for i in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f: end_point_error(f, f[:, :1], average="cells"), "shape of `flow_true`"),
        (lambda f: end_point_error(f, f, average="mean"), "`average` must be one of"),
        (lambda f: end_point_error(f * np.nan, f, average="cells"), "finite"),
        (
            lambda f: end_point_error(f, f, average="cells", mask=np.zeros((5, 3, 6, 7), bool)),
            "empty mask",
        ),
        (lambda f: identification_accuracy(np.eye(3), n_way=4), "`n_way` must be"),
        (lambda f: structural_similarity(np.ones((3, 5, 5)), np.ones((3, 5, 5))), "window"),
    ],
)
def test_bad_input_is_refused(flows, call, match):
    with pytest.raises(ValueError, match=match):
        call(flows[0])
