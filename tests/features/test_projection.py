"""Projection of feature spaces: against scikit-learn's full PCA, and blind to test films."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainnrds.features import FeatureProjection


@pytest.fixture
def low_rank():
    """200 samples in two feature spaces of rank 4 and a little noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 90)) * 3
    return X + 0.01 * rng.normal(size=X.shape)


def test_pca_keeps_what_full_pca_keeps(low_rank):
    spaces = {"video": slice(0, 60), "image": slice(60, 90)}
    projection = FeatureProjection(4, feature_spaces=spaces, batch_size=50).fit(low_rank)
    projected = projection.transform(low_rank)
    assert projection.feature_spaces_ == {"video": slice(0, 4), "image": slice(4, 8)}
    for name, columns in spaces.items():
        ours = projected[:, projection.feature_spaces_[name]]
        full = PCA(4).fit_transform(StandardScaler().fit_transform(low_rank[:, columns]))
        # distances between samples do not depend on the signs of components
        np.testing.assert_allclose(
            ours @ ours.T, full @ full.T, atol=1e-2 * np.abs(full).max() ** 2
        )


def test_projection_is_blind_to_what_it_was_not_fitted_on(low_rank):
    first = FeatureProjection(3).fit(low_rank[:100])
    changed = low_rank.copy()
    changed[100:] = 7
    second = FeatureProjection(3).fit(changed[:100])
    np.testing.assert_array_equal(first.transform(low_rank), second.transform(low_rank))


def test_sparse_projection_keeps_distances():
    X = np.random.default_rng(0).normal(size=(20, 5000))
    projected = FeatureProjection(1500, method="sparse", random_state=0).fit_transform(X)
    X = StandardScaler().fit_transform(X)
    before = np.linalg.norm(X[:, None] - X[None], axis=-1)[np.triu_indices(20, 1)]
    after = np.linalg.norm(projected[:, None] - projected[None], axis=-1)[np.triu_indices(20, 1)]
    assert np.abs(after / before - 1).max() < 0.15


def test_small_spaces_are_only_standardised(low_rank):
    low_rank[:, 3] = 5.0  # constant: it becomes 0, not noise
    np.testing.assert_allclose(
        FeatureProjection(90).fit_transform(low_rank),
        StandardScaler().fit_transform(low_rank),
        atol=1e-9,
    )
    assert FeatureProjection(50).fit_transform(low_rank[:20]).shape == (20, 20)


def test_bad_options(low_rank):
    with pytest.raises(ValueError, match="`method` must be one of"):
        FeatureProjection(method="ica").fit(low_rank)
    with pytest.raises(ValueError, match="`n_components` must be a positive int"):
        FeatureProjection(0).fit(low_rank)


@parametrize_with_checks([FeatureProjection(2)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
