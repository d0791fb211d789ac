"""The estimator that joins the parts, and what scikit-learn does with it."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_validate

from brainnrds.decoding import MotionDecoder
from brainnrds.reanimation import (
    InitialFrameDecoder,
    Reanimator,
    SplatRenderer,
)


def planted(n_samples=60, n_voxels=40, seed=0):
    """BOLD that carries four colours of frames and a flow, linearly."""
    random = np.random.default_rng(seed)
    codes = random.normal(size=(n_samples, 4)).astype(np.float32)
    pictures = random.normal(size=(4, 3 * 16 * 16)).astype(np.float32)
    frames = np.clip(0.5 + 0.05 * codes @ pictures, 0, 1).reshape(-1, 3, 16, 16)
    flow = np.zeros((n_samples, 2, 2, 4, 4), np.float32) + codes[:, :2, None, None][:, None]
    bold = codes @ random.normal(size=(4, n_voxels)).astype(np.float32)
    return bold.astype(np.float32), frames, flow


class Lookup(BaseEstimator):
    """A decoder whose answer is known."""

    def fit(self, X, y, **labels):
        self.coef_ = np.linalg.lstsq(X, y.reshape(len(y), -1), rcond=None)[0]
        self.shape_ = y.shape[1:]
        return self

    def predict(self, X, *, image_features=None, runs=None):
        return (X @ self.coef_).reshape(-1, *self.shape_).astype(np.float32)


def test_reanimator_is_decoder_then_renderer():
    bold, frames, flow = planted()
    renderer = SplatRenderer(n_frames=3)
    reanimator = Reanimator(Lookup(), renderer=renderer).fit(bold, flow)
    decoded = reanimator.predict_flow(bold)
    np.testing.assert_allclose(decoded, flow, atol=1e-3)
    clips = reanimator.predict(bold, initial_frames=frames, samples=np.arange(3))
    np.testing.assert_array_equal(clips, renderer(frames[:3], decoded[:3]))

    # a fitted decoder needs no fit, and true flow needs no decoder
    fitted = Reanimator(Lookup().fit(bold, flow), renderer=renderer)
    again = fitted.predict(bold, initial_frames=frames, samples=np.arange(3))
    np.testing.assert_array_equal(again, clips)
    true = Reanimator(renderer=renderer).predict(flow[:3], initial_frames=frames[:3])
    np.testing.assert_array_equal(true, renderer(frames[:3], flow[:3]))


def test_reanimator_end_to_end_out_of_bold_alone():
    bold, frames, flow = planted()
    reanimator = Reanimator(
        MotionDecoder(4, delays=(0,), n_epochs=2, n_bold_channels=8, n_channels=8, random_state=0),
        renderer=SplatRenderer(n_frames=3),
        frame_decoder=InitialFrameDecoder(delays=(0,), size=(16, 16)),
    )
    reanimator = clone(reanimator).fit(bold, flow, initial_frames=frames)
    clips = reanimator.predict(bold[:4])
    assert clips.shape == (4, 3, 3, 16, 16)
    np.testing.assert_array_equal(clips[:, 0], reanimator.predict_initial_frames(bold[:4]))


def test_reanimator_refuses():
    bold, frames, flow = planted()
    with pytest.raises(ValueError, match="`decoder` must be given to fit"):
        Reanimator().fit(bold, flow)
    with pytest.raises(ValueError, match="no `frame_decoder`"):
        Reanimator(Lookup().fit(bold, flow)).predict(bold)
    features = np.zeros((60, 2, 4, 4), np.float32)  # of whose frames?
    with pytest.raises(ValueError, match="must be given with `image_features`"):
        tiny_reanimator().fit(bold, flow, initial_frames=frames).predict(
            bold, image_features=features
        )
    with pytest.raises(ValueError, match="one frame per sample"):
        Reanimator().predict(flow, initial_frames=frames[:3])
    with pytest.raises(ValueError, match="`initial_frames` must be given"):
        Reanimator(Lookup(), frame_decoder=InitialFrameDecoder()).fit(bold, flow)


def shown_in_runs(text):
    """Six runs of one film each; the last two samples of a run show none. Labels as int or text."""
    bold, frames, flow = planted(72)
    runs = np.repeat(np.arange(6), 12)
    films = np.where(np.tile(np.arange(12) < 10, 6), runs, -1)
    flow[films == -1] = 9  # what stands there must not matter
    has_cut = np.arange(72) % 11 == 0
    if text:
        runs = np.array([f"run-{label}" for label in runs])
        films = np.where(films == -1, "n/a", np.char.add("film-", films.astype(str)))
    folds = [np.nonzero(np.isin(np.arange(72) // 12, some)) for some in ([0, 1], [2, 3], [4, 5])]
    folds = [(np.setdiff1d(np.arange(72), test), test) for (test,) in folds]
    return bold, frames, flow, {"runs": runs, "films": films, "has_cut": has_cut}, folds


def tiny_reanimator():
    decoder = MotionDecoder(
        4, delays=(-1, 0), n_epochs=2, n_bold_channels=8, n_channels=8, random_state=0
    )
    return Reanimator(decoder, frame_decoder=InitialFrameDecoder(delays=(0,), size=(16, 16)))


@pytest.mark.parametrize("text", [False, True])
def test_cross_validation_scores_are_those_by_hand(text):
    bold, frames, flow, labels, folds = shown_in_runs(text)
    reanimator = tiny_reanimator()
    by_hand = []
    for train, test in folds:
        told = {name: label[train] for name, label in labels.items()}
        fitted = clone(reanimator).fit(
            bold[train], flow[train], initial_frames=frames[train], **told
        )
        told = {name: label[test] for name, label in labels.items()}
        by_hand.append(fitted.score(bold[test], flow[test], **told))
        decoded = fitted.predict_flow(bold[test], runs=told["runs"])
        counted = (test % 12 < 10) & ~told["has_cut"]
        distance = np.linalg.norm(decoded[counted] - flow[test][counted], axis=2)
        assert by_hand[-1] == pytest.approx(-distance.mean(), rel=1e-6)
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(
            reanimator, bold, flow, cv=folds, params={**labels, "initial_frames": frames}
        )["test_score"]
    assert scores.tolist() == by_hand


def test_grid_search_finds_the_parameters_of_the_parts():
    bold, frames, flow, labels, folds = shown_in_runs(False)
    grid = {"decoder__n_codes": [2, 6]}
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(tiny_reanimator(), grid, cv=folds)
        search.fit(bold, flow, initial_frames=frames, **labels)
        means = [
            cross_validate(
                clone(tiny_reanimator()).set_params(decoder__n_codes=n),
                bold,
                flow,
                cv=folds,
                params={**labels, "initial_frames": frames},
            )["test_score"].mean()
            for n in (2, 6)
        ]
    assert search.cv_results_["mean_test_score"].tolist() == means
    assert search.best_estimator_.decoder_.n_codes == (2, 6)[int(np.argmax(means))]


def test_a_score_without_the_labels_of_fit_warns():
    bold, frames, flow, labels, _ = shown_in_runs(False)
    fitted = tiny_reanimator().fit(bold, flow, initial_frames=frames, **labels)
    with pytest.warns(UserWarning, match="fitted with runs, films, has_cut, scored without"):
        fitted.score(bold, flow)
    with pytest.raises(ValueError, match="`sample_weight` must be None"):
        fitted.score(bold, flow, **labels, sample_weight=np.ones(72))
    with pytest.raises(ValueError, match="no clip is left to score"):
        fitted.score(bold, flow, **{**labels, "films": np.full(72, -1)})
