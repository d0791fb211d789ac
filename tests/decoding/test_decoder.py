"""MotionDecoder: planted truth, scikit-learn's rules, determinism, memory, resume, bad input."""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from planted import plant_motion
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from brainnrds._checks import InputError
from brainnrds.decoding import MotionDecoder, fit_image_only
from brainnrds.films import film_groups
from brainnrds.metrics import end_point_error

SMALL = dict(
    n_codes=8, n_bold_channels=32, n_channels=24, n_blocks=2, n_epochs=6,
    batch_size=32, learning_rate=3e-3, random_state=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    return plant_motion(0)


@pytest.fixture(scope="module")
def fitted(planted):
    X, y, features, runs = planted
    train = runs < 8
    return MotionDecoder(**{**SMALL, "n_epochs": 20}).fit(
        X[train], y[train], image_features=features[train], runs=runs[train], films=runs[train]
    )


class _ScalarDecoder(MotionDecoder):
    """scikit-learn's checks pass a 1-D y: lift it to flow of one cell."""

    @staticmethod
    def _lift(y):
        y = np.asarray(y)
        if 1 <= y.ndim <= 2 and len(y):
            y = y.reshape(len(y), -1)[:, :1]
            try:
                y = y.astype(float)
            except (TypeError, ValueError) as error:
                raise ValueError(f"Unknown label type: {error}") from error
            return np.stack([y, np.zeros_like(y)], axis=2)[..., None, None]
        return y

    def fit(self, X, y, *, runs=None):
        y = None if y is None else self._lift(y)
        return super().fit(X, y, runs=runs)

    def predict(self, X, *, runs=None):
        return super().predict(X, runs=runs)[:, 0, 0, 0, 0]

    def score(self, X, y, *, runs=None):
        flow = MotionDecoder.predict(self, X, runs=runs)
        return -end_point_error(flow, self._lift(y).astype(np.float32), average="cells")


@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks():
    reason = "a window of volumes depends on the samples' order and neighbours"
    check_estimator(
        _ScalarDecoder(n_codes=4, delays=(-1, 0), n_bold_channels=8, n_channels=8, n_blocks=1,
                       n_epochs=2, random_state=0),
        expected_failed_checks={
            "check_methods_subset_invariance": reason,
            "check_methods_sample_order_invariance": reason,
        },
    )  # fmt: skip


def test_planted_motion_is_decoded_in_held_out_films(planted, fitted):
    X, y, features, runs = planted
    test = runs >= 8
    same = dict(image_features=features[test], runs=runs[test])
    flow = fitted.predict(X[test], **same)
    same["films"] = runs[test]
    ours = end_point_error(flow, y[test], average="cells")
    zero = end_point_error(np.zeros_like(flow), y[test], average="cells")
    assert ours < 0.9 * zero
    assert fitted.score(X[test], y[test], **same) == pytest.approx(-ours, rel=1e-6)
    for history in fitted.history_.values():
        assert len(history) == len(fitted.history_["train_loss"])
    errors = fitted.history_["validation_error"]
    assert errors[fitted.best_epoch_] == min(errors)


def test_probabilities_expectation_and_uncertainty_agree(planted, fitted):
    X, _, features, runs = (array[:48] for array in planted)
    same = dict(image_features=features, runs=runs)
    probabilities = fitted.predict_proba(X, **same)
    assert probabilities.shape == (48, 1, 8, 4, 4)
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, atol=1e-5)
    flow = fitted.predict(X, **same)
    np.testing.assert_allclose(fitted.codebook_.decode(probabilities), flow, atol=1e-5)
    codes = fitted.codebook_.codes_
    away = ((codes[:, :, None, None] - flow[:, :, None]) ** 2).sum(axis=3)
    expected = np.sqrt((probabilities * away).sum(axis=2))
    np.testing.assert_allclose(fitted.predict_uncertainty(X, **same), expected, atol=1e-3)


def test_swapped_windows_are_other_samples_windows(planted, fitted):
    X, _, features, runs = (array[:48] for array in planted)
    swaps = np.array([[5, 7], [7, 7], [0, 1], [40, 7], [3, 3]])
    swapped = np.concatenate(
        list(fitted.predict_swapped(X, swaps, image_features=features, runs=runs))
    )
    for (window, clip), flow in zip(swaps, swapped, strict=True):
        other = features.copy()
        other[window] = features[clip]
        expected = fitted.predict(X, image_features=other, runs=runs)[window]
        np.testing.assert_allclose(flow, expected, atol=1e-6)


def test_swaps_are_checked(planted, fitted):
    X, _, features, runs = (array[:48] for array in planted)
    with pytest.raises(ValueError, match=r"`swaps` must be int of shape \(n_swaps, 2\)"):
        next(fitted.predict_swapped(X, np.arange(48), image_features=features, runs=runs))


def test_windows_stay_in_their_run(planted, fitted):
    X, _, features, runs = (array[:96] for array in planted)
    same = dict(image_features=features, runs=runs)
    changed = X.copy()
    changed[48:] += 5
    before, after = fitted.predict(X, **same), fitted.predict(changed, **same)
    np.testing.assert_array_equal(before[:48], after[:48])
    assert np.abs(before[48:] - after[48:]).max() > 0


def test_samples_without_film_lend_bold_only(planted):
    X, y, features, runs = (array[:192] for array in planted)
    films = runs.copy()
    films[np.arange(192) % 48 >= 44] = -1
    other = y.copy()
    other[films == -1] = 1e3
    fits = [
        MotionDecoder(**{**SMALL, "n_epochs": 2}).fit(
            X, flow, image_features=features, runs=runs, films=films
        )
        for flow in (y, other)
    ]
    a, b = (fit.predict(X, image_features=features, runs=runs) for fit in fits)
    np.testing.assert_array_equal(a, b)
    changed = X.copy()
    changed[films == -1] += 1
    c = fits[0].predict(changed, image_features=features, runs=runs)
    assert np.abs(c - a)[films != -1].max() > 0


def test_held_out_films_are_whole_film_groups(planted):
    X, y, features, runs = planted
    films = runs % 5  # every film in two runs
    decoder = MotionDecoder(**{**SMALL, "n_epochs": 1, "validation_share": 0.4})
    decoder.fit(X, y, runs=runs, films=films)
    assert len(decoder.validation_films_) == 2
    np.testing.assert_array_equal(decoder.films_, np.arange(5))
    # a run that shows two films joins them
    groups = film_groups(np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 1, 2, 3, -1]))
    assert len(set(groups[:4])) == 1
    assert len({groups[0], groups[4], groups[5]}) == 3


def test_clone_and_pickle(planted, fitted):
    X, y, features, runs = (array[:48] for array in planted)
    copied = clone(fitted).set_params(n_epochs=1)
    assert copied.n_epochs == 1 and not hasattr(copied, "network_")
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    same = dict(image_features=features, runs=runs)
    np.testing.assert_array_equal(again.predict(X, **same), fitted.predict(X, **same))


@pytest.fixture(scope="module")
def labelled():
    """Samples whose labels matter: rest, cuts, and films named by text."""
    X, y, features, runs = plant_motion(5, n_runs=4, n_per_run=40)
    films = np.array(["bunny", "city", "dog", "sea"])[runs]
    films[np.arange(160) % 40 >= 34] = "n/a"
    y[films == "n/a"] = 50.0
    has_cut = np.arange(160) % 9 == 0
    y[has_cut] = -50.0
    metadata = dict(image_features=features, runs=films_of(runs), films=films, has_cut=has_cut)
    return X, y, metadata, runs


def films_of(runs):
    return np.array([f"run-{run}" for run in runs])


FEW = {**SMALL, "n_epochs": 2, "validation_share": 0.4}


@pytest.fixture(scope="module")
def scores_by_hand(labelled):
    X, y, metadata, runs = labelled
    scores = []
    for train, test in GroupKFold(2).split(X, groups=runs):
        decoder = MotionDecoder(**FEW)
        decoder.fit(X[train], y[train], **{name: m[train] for name, m in metadata.items()})
        scores.append(decoder.score(X[test], y[test], **{k: m[test] for k, m in metadata.items()}))
    return scores


def test_cross_validate_grid_search_and_pipeline_score_as_by_hand(labelled, scores_by_hand):
    X, y, metadata, runs = labelled
    call = dict(cv=GroupKFold(2), error_score="raise")
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(
            MotionDecoder(**FEW), X, y, params=dict(metadata, groups=runs), **call
        )["test_score"]
        np.testing.assert_array_equal(scores, scores_by_hand)
        pipeline = make_pipeline(FunctionTransformer(), MotionDecoder(**FEW))
        for estimator, grid in (
            (MotionDecoder(**FEW), {"n_codes": [8]}),
            (pipeline, {"motiondecoder__n_codes": [8]}),
        ):
            search = GridSearchCV(estimator, grid, refit=False, **call)
            results = search.fit(X, y, groups=runs, **metadata).cv_results_
            found = [results[f"split{i}_test_score"][0] for i in range(2)]
            np.testing.assert_array_equal(found, scores_by_hand)


def test_scores_without_the_labels_of_fit_warn(labelled):
    X, y, metadata, runs = labelled
    decoder = MotionDecoder(**FEW).fit(X, y, **metadata)
    features = metadata["image_features"]
    with pytest.warns(UserWarning, match="fitted with runs, films, has_cut, scored without"):
        decoder.score(X, y, image_features=features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder.score(X, y, **metadata)


def test_text_labels_mean_what_numbers_mean(labelled):
    X, y, metadata, runs = labelled
    named = MotionDecoder(**FEW).fit(X, y, subjects=np.full(160, "anna"), **metadata)
    numbers = np.where(metadata["films"] == "n/a", -1, runs)
    decoder = MotionDecoder(**FEW).fit(X, y, **{**metadata, "runs": runs, "films": numbers})
    assert named.history_ == decoder.history_
    np.testing.assert_array_equal(named.films_, ["bunny", "city", "dog", "sea"])
    np.testing.assert_array_equal(named.films_[decoder.validation_films_], named.validation_films_)
    assert list(named.voxels_) == ["anna"]
    same = dict(image_features=metadata["image_features"], runs=metadata["runs"])
    flow = named.predict(X, subjects=np.full(160, "anna"), **same)
    np.testing.assert_array_equal(flow, decoder.predict(X, **same))
    with pytest.raises(ValueError, match="among the fitted"):
        named.predict(X, subjects=np.full(160, "bert"), **same)


@pytest.mark.parametrize("random_state", [3, None, np.random.RandomState(0)])
def test_a_control_starts_where_its_decoder_started(labelled, random_state):
    X, y, metadata, _ = labelled
    decoder = MotionDecoder(**{**FEW, "n_epochs": 1, "random_state": random_state})
    decoder.fit(X, y, **metadata)
    control = fit_image_only(decoder, X, y, **metadata)
    assert control.seed_ == decoder.seed_
    np.testing.assert_array_equal(control.validation_films_, decoder.validation_films_)
    np.testing.assert_array_equal(control.codebook_.codes_, decoder.codebook_.codes_)
    again = clone(decoder).set_params(random_state=decoder.seed_).fit(X, y, **metadata)
    assert again.history_ == decoder.history_


def test_converged_is_an_error_that_had_stopped_falling(planted):
    X, y, features, runs = planted
    same = dict(image_features=features, runs=runs, films=runs)
    short = MotionDecoder(**{**SMALL, "n_epochs": 2}).fit(X, y, **same)
    assert short.best_epoch_ == 1 and not short.converged_
    noise = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    overfitted = MotionDecoder(**{**SMALL, "patience": 2, "n_epochs": 20}).fit(X, noise, **same)
    assert overfitted.best_epoch_ == len(overfitted.history_["train_loss"]) - 3
    assert overfitted.converged_
    # without validation films nobody knows
    no_validation = {**SMALL, "n_epochs": 1, "validation_share": 0}
    assert not MotionDecoder(**no_validation).fit(X, y).converged_


def test_one_film_is_enough_to_know_when_to_stop(planted):
    X, _, features, runs = planted
    noise = np.random.default_rng(0).normal(size=planted[1].shape).astype(np.float32)
    same = dict(image_features=features, runs=runs, films=np.zeros_like(runs))
    decoder = MotionDecoder(**{**SMALL, "patience": 2, "n_epochs": 20}).fit(X, noise, **same)
    assert decoder.validation_films_.tolist() == [0] and decoder.converged_
    assert decoder.best_epoch_ < 17


def test_same_seed_same_bits_and_global_state_untouched(planted):
    X, y, features, runs = (array[:144] for array in planted)
    fits = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        state = torch.get_rng_state()
        decoder = MotionDecoder(**SMALL).fit(X, y, image_features=features, runs=runs, films=runs)
        assert torch.equal(state, torch.get_rng_state())
        fits.append(decoder.predict(X, image_features=features, runs=runs))
    np.testing.assert_array_equal(*fits)
    other = MotionDecoder(**{**SMALL, "random_state": 1})
    other.fit(X, y, image_features=features, runs=runs, films=runs)
    assert np.abs(other.predict(X, image_features=features, runs=runs) - fits[0]).max() > 1e-3


def test_thread_counts_agree(planted):
    X, y, features, runs = (array[:144] for array in planted)
    n_threads = torch.get_num_threads()
    flows = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            decoder = MotionDecoder(**SMALL)
            decoder.fit(X, y, image_features=features, runs=runs, films=runs)
            flows.append(decoder.predict(X, image_features=features, runs=runs))
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_allclose(flows[0], flows[1], atol=1e-5)


def test_interrupted_training_resumes_to_the_same_bits(planted, tmp_path, monkeypatch):
    X, y, features, runs = (array[:144] for array in planted)
    same = dict(image_features=features, runs=runs, films=runs)
    whole = MotionDecoder(**SMALL).fit(X, y, **same)

    from brainnrds.decoding import _training

    monkeypatch.setattr(_training, "CHECKPOINT_EPOCHS", 2)
    decoder = MotionDecoder(**SMALL, checkpoint_path=tmp_path / "fit.pt")
    evaluate, calls = _training.Training._evaluate, []

    def fail_in_the_fourth_epoch(self, rows):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(_training.Training, "_evaluate", fail_in_the_fourth_epoch)
        with pytest.raises(KeyboardInterrupt):
            decoder.fit(X, y, **same)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pt"]
    decoder.fit(X, y, **same)
    assert decoder.history_ == whole.history_
    np.testing.assert_array_equal(
        decoder.predict(X, image_features=features, runs=runs),
        whole.predict(X, image_features=features, runs=runs),
    )
    with pytest.raises(ValueError, match="other data or parameters"):
        decoder.fit(X, y + 1, **same)


def test_a_damaged_checkpoint_is_not_used(planted, tmp_path):
    X, y, features, runs = (array[:72] for array in planted)
    path = tmp_path / "fit.pt"
    decoder = MotionDecoder(**{**SMALL, "n_epochs": 2}, checkpoint_path=path)
    whole = decoder.fit(X, y, image_features=features, runs=runs, films=runs).history_
    content = path.read_bytes()
    torch.save({"fingerprint": "x"}, tmp_path / "unsealed.pt")
    flipped = content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]
    for bad in (b"", b"x" * 99, content[:-1], flipped, (tmp_path / "unsealed.pt").read_bytes()):
        path.write_bytes(bad)
        with pytest.warns(UserWarning, match="fit.pt is damaged: training begins anew"):
            decoder.fit(X, y, image_features=features, runs=runs, films=runs)
        assert decoder.history_ == whole
        assert len(path.read_bytes()) == len(content)  # and a whole one stands in its place
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="must be a file; got a folder"):
        decoder.fit(X, y, image_features=features, runs=runs, films=runs)


def test_without_memory_the_batch_is_split(planted, monkeypatch):
    X, y, features, runs = (array[:144] for array in planted)
    same = dict(image_features=features, runs=runs, films=runs)
    settings = {**SMALL, "dropout": 0.0, "n_epochs": 2}
    whole = MotionDecoder(**settings).fit(X, y, **same)

    from brainnrds.decoding import _training as module

    logits = module.class_logits

    def small_card(network, windows, features, batch, device):
        if network.training and len(batch) > 10:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return logits(network, windows, features, batch, device)

    monkeypatch.setattr(module, "class_logits", small_card)
    with pytest.warns(UserWarning, match="not enough memory"):
        split = MotionDecoder(**settings).fit(X, y, **same)
    np.testing.assert_allclose(
        split.history_["train_loss"], whole.history_["train_loss"], rtol=1e-4
    )


def test_several_subjects_share_a_trunk():
    first = plant_motion(1, n_runs=5)
    second = plant_motion(2, n_runs=5, n_voxels=40)
    X = np.zeros((480, 60), np.float32)
    X[:240], X[240:, :40] = first[0], second[0]
    y, features = (np.concatenate([a, b]) for a, b in zip(first[1:3], second[1:3], strict=True))
    runs = np.concatenate([first[3], 5 + second[3]])
    subjects = np.repeat([3, 8], 240)
    decoder = MotionDecoder(**{**SMALL, "n_epochs": 15})
    decoder.fit(X, y, image_features=features, runs=runs, films=runs, subjects=subjects)
    assert [len(decoder.voxels_[s]) for s in (3, 8)] == [60, 40]
    same = dict(image_features=features, runs=runs, subjects=subjects)
    flow = decoder.predict(X, **same)
    for subject in (3, 8):
        own = subjects == subject
        ours = end_point_error(flow[own], y[own], average="cells")
        assert ours < 0.9 * end_point_error(np.zeros_like(y[own]), y[own], average="cells")
        alone = decoder.predict(
            X[own], image_features=features[own], runs=runs[own], subjects=subjects[own]
        )
        np.testing.assert_allclose(alone, flow[own], atol=1e-5)
    with pytest.raises(ValueError, match="among the fitted"):
        decoder.predict(X, image_features=features, runs=runs, subjects=subjects + 1)
    with pytest.raises(ValueError, match="one subject each"):
        decoder.fit(X, y, runs=np.zeros(480, int), subjects=subjects)


def test_importance_finds_the_voxels_in_use(planted, fitted):
    X, _, features, runs = planted
    same = dict(image_features=features[:96], runs=runs[:96])
    importance = fitted.voxel_importance(X[:96], **same, n_projections=16, random_state=0)
    # against finite differences of every output
    step, expected = 0.05, []
    for voxel in (0, 17, 42):
        squares = 0
        index = np.arange(96)
        for delay in fitted.delays:
            # move the voxel in one delay's place of each window: volumes of one phase at a time
            for phase in range(5):
                targets = index[index % 5 == phase]
                source = targets - delay
                ok = (source < 96) & (source >= 0)
                targets, source = targets[ok], source[ok]
                ok = runs[source] == runs[targets]
                targets, source = targets[ok], source[ok]
                up, down = X[:96].copy(), X[:96].copy()
                scale = fitted.bold_scale_[0][voxel]
                up[source, voxel] += step * scale
                down[source, voxel] -= step * scale
                slope = (fitted.predict(up, **same) - fitted.predict(down, **same)) / (2 * step)
                squares += (slope[targets] ** 2).sum()
        expected.append(np.sqrt(squares / 96))
    np.testing.assert_allclose(importance[[0, 17, 42]], expected, rtol=0.2)


def test_image_only_ignores_bold(planted):
    X, y, features, runs = (array[:144] for array in planted)
    decoder = MotionDecoder(**SMALL, use_bold=False)
    decoder.fit(X, y, image_features=features, runs=runs)
    np.testing.assert_array_equal(
        decoder.predict(X, image_features=features, runs=runs),
        decoder.predict(-X[::-1], image_features=features, runs=runs),
    )


def test_bfloat16_is_close(planted, fitted):
    X, _, features, runs = (array[:96] for array in planted)
    same = dict(image_features=features, runs=runs)
    half = copy.deepcopy(fitted).set_params(precision="bfloat16")
    np.testing.assert_allclose(half.predict(X, **same), fitted.predict(X, **same), atol=0.05)
    swaps = np.stack([np.arange(96), np.arange(96)], axis=1)
    swapped = np.concatenate(list(half.predict_swapped(X, swaps, **same)))
    np.testing.assert_allclose(swapped, half.predict(X, **same), atol=0.02)


def test_constant_voxels_are_left_out(planted):
    X, y, _, runs = (array[:96] for array in planted)
    X = X.copy()
    X[:, 3] = 7
    decoder = MotionDecoder(**{**SMALL, "n_epochs": 1}).fit(X, y, runs=runs)
    assert 3 not in decoder.voxels_[0] and len(decoder.voxels_[0]) == 59


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda k: k.update(y=np.moveaxis(k["y"], 2, -1)), r"`y` must have shape \(n_clips, n_st"),
        (lambda k: k.update(y=k["y"][:, 0]), r"`y` must have shape"),
        (lambda k: k.update(y=k["y"][:-1]), "one length"),
        (lambda k: k["y"].__setitem__((0, 0, 0, 0, 0), np.nan), "finite"),
        (lambda k: k["X"].__setitem__((0, 0), np.inf), "infinity"),
        (lambda k: k.update(image_features=k["image_features"][1:]), "n_clips = 96"),
        (lambda k: k.update(runs=k["runs"][1:]), r"`runs` must have shape \(96,\)"),
        (lambda k: k.update(films=np.zeros(95, int)), r"`films` must have shape"),
        (lambda k: k.update(films=np.full(96, -1)), "no clip is left"),
        (lambda k: k.update(has_cut=np.ones(96, bool)), "no clip is left"),
        (lambda k: k.update(X=np.ones_like(k["X"])), "no voxel is left"),
        (lambda k: k.update(image_features=k["image_features"] * np.nan), "finite"),
    ],
)
def test_bad_input_is_refused(planted, change, match):
    X, y, features, runs = (array[:96].copy() for array in planted)
    call = dict(X=X, y=y, image_features=features, runs=runs)
    change(call)
    with pytest.raises(ValueError, match=match):
        MotionDecoder(**{**SMALL, "n_epochs": 1}).fit(call.pop("X"), call.pop("y"), **call)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        (dict(n_codes=5000), "`n_codes` must not exceed"),
        (dict(voxel_selection="best"), "`n_voxels` must be"),
        (dict(voxel_selection="anova"), "`voxel_selection` must be"),
        (dict(voxel_selection="reliability", n_voxels=3), "shown more than once"),
        (dict(precision="float16"), "`precision` must be"),
        (dict(delays=(0.5,)), "`delays` must be"),
        (dict(delays=(0, -96)), "a delay of 96 volumes and runs of at most"),
        (dict(validation_share=1.0), "`validation_share` must"),
        (dict(device="gpu"), "`device` must"),
    ],
)
def test_bad_parameters_are_refused(planted, parameters, match):
    X, y, _, runs = (array[:96] for array in planted)
    with pytest.raises(ValueError, match=match):
        MotionDecoder(**{**SMALL, **parameters}).fit(X, y, runs=runs, films=runs)


def test_predict_needs_the_features_of_fit(planted, fitted):
    X, _, features, runs = (array[:48] for array in planted)
    with pytest.raises(ValueError, match="must have 2 channels, as in fit; got None"):
        fitted.predict(X, runs=runs)


def test_flow_in_pixels_of_another_grid_is_warned_about(planted):
    X, y, _, runs = (array[:96] for array in planted)
    with pytest.warns(UserWarning, match="pixels of another grid"):
        MotionDecoder(**{**SMALL, "n_epochs": 1}).fit(X, y * 100, runs=runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MotionDecoder(**{**SMALL, "n_epochs": 1}).fit(X, y, runs=runs)


def test_import_of_the_package_stays_light():
    code = "import sys, brainnrds.flow, brainnrds.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(planted, fitted):
    X, y, features, runs = (array[:96] for array in planted)
    same = dict(image_features=features, runs=runs)
    on_gpu = copy.deepcopy(fitted).set_params(device="cuda")
    np.testing.assert_allclose(on_gpu.predict(X, **same), fitted.predict(X, **same), atol=1e-3)
    on_gpu.set_params(precision="bfloat16")
    swaps = np.stack([np.arange(96), np.arange(96)], axis=1)
    swapped = np.concatenate(list(on_gpu.predict_swapped(X, swaps, **same)))
    np.testing.assert_allclose(swapped, fitted.predict(X, **same), atol=0.05)
    decoder = MotionDecoder(**{**SMALL, "device": "cuda"})
    a = decoder.fit(X, y, **same, films=runs).predict(X, **same)
    b = decoder.fit(X, y, **same, films=runs).predict(X, **same)
    np.testing.assert_array_equal(a, b)
    assert not any(p.is_cuda for p in decoder.network_.parameters())
