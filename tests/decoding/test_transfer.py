"""A decoder of others for a new person: what stays, what is learnt, and what that is worth."""

import copy

import numpy as np
import pytest
from planted import plant_motion

from brainnrds._checks import InputError
from brainnrds.blocks import exchange_between_films
from brainnrds.decoding import MotionDecoder, adapt_decoder, read_in_template, transfer_curve
from brainnrds.decoding._read_in import ReadInOfFlow, ridge_read_ins

T_R = 2.0
HOW = {"t_r": T_R, "block_length": 12, "n_draws": 3, "random_state": 0}


N_RUNS, PER_RUN = 6, 48  # 9.6 minutes


@pytest.fixture(scope="module")
def others():
    """Two people who see the same films, with voxels that say the same in other mixtures."""
    parts = [plant_motion(1, n_runs=N_RUNS, n_voxels=50, person=10 + i) for i in range(2)]
    X, y, features = (np.concatenate([part[i] for part in parts]) for i in range(3))
    films = np.concatenate([part[3] for part in parts])
    subjects = np.repeat([1, 2], N_RUNS * PER_RUN)
    return X, y, features, films, subjects


@pytest.fixture(scope="module")
def trunk(others):
    X, y, features, films, subjects = others
    decoder = MotionDecoder(
        n_codes=8, n_bold_channels=32, n_channels=16, n_blocks=1, n_epochs=30, batch_size=72,
        learning_rate=1e-2, patience=5, random_state=0,
    )  # fmt: skip
    labels = {"runs": 100 * subjects + films, "films": films, "subjects": subjects}
    return decoder.fit(X, y, image_features=features, **labels)


@pytest.fixture(scope="module")
def person():
    """Half of the films are those of the others."""
    parts = [plant_motion(seed, n_runs=N_RUNS, n_voxels=50, person=9) for seed in (1, 2)]
    parts[1] = *parts[1][:3], parts[1][3] + N_RUNS
    X, y, features, runs = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return X, y, {"image_features": features, "runs": runs, "films": runs}


@pytest.fixture(scope="module")
def template(trunk, others, person):
    X, _, _, films, subjects = others
    n = N_RUNS * PER_RUN
    moments = np.tile(np.arange(n), 2)
    wanted = np.concatenate([np.arange(n), np.full(n, -1)])
    return read_in_template(
        trunk, X, moments, wanted=wanted, runs=100 * subjects + films, subjects=subjects
    )


def test_only_the_read_in_is_learnt(trunk, person):
    X, y, labels = person
    before = copy.deepcopy(trunk.network_.state_dict())
    adapted = adapt_decoder(trunk, X, y, **labels, n_epochs=2)
    after = adapted.network_.state_dict()
    for name, value in before.items():
        assert (trunk.network_.state_dict()[name] == value).all()
        if not name.startswith("read_in."):
            assert (after[name] == value).all(), name
    assert after["read_in.0.weight"].shape == (32, 5 * 50) and "read_in.1.weight" not in after
    assert adapted.codebook_ is trunk.codebook_
    same = {"image_features": labels["image_features"], "runs": labels["runs"]}
    assert adapted.predict(X, **same).shape == y.shape
    # kept as it began, or better
    begun = adapt_decoder(trunk, X, y, **labels, n_epochs=1, learning_rate=1e-9)
    as_begun = begun.history_["validation_error"][0]
    assert adapted.best_epoch_ < 2
    if adapted.best_epoch_ >= 0:
        assert adapted.history_["validation_error"][adapted.best_epoch_] < as_begun + 1e-6


def test_the_layer_begins_with_what_the_layers_of_others_give(trunk, others, person):
    X, y, features, films, subjects = others
    assert trunk.read_in_of_flow_ is not None
    given = trunk.read_in(X, runs=100 * subjects + films, subjects=subjects)
    expected = trunk.read_in_of_flow_(y)
    # flow is not all that BOLD says, but it is what they have in common
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(given.T, expected.T, strict=True)]
    assert np.median(r) > 0.4
    own, _, labels = person
    few = labels["runs"] < 3
    how = {name: values[few] for name, values in labels.items()}
    begun = adapt_decoder(trunk, own[few], person[1][few], **how, n_epochs=1, learning_rate=1e-9)
    assert begun.best_epoch_ in (-1, 0)
    new = begun.read_in(own, runs=labels["runs"])
    new, expected = new[~few], trunk.read_in_of_flow_(person[1][~few])
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(new.T, expected.T, strict=True)]
    assert np.median(r) > 0.4


def test_a_template_is_the_mean_of_the_others_at_the_same_moments(trunk, others, template):
    X, _, _, films, subjects = others
    given = trunk.read_in(X, runs=100 * subjects + films, subjects=subjects)
    n = N_RUNS * PER_RUN
    np.testing.assert_allclose(template[:n], (given[:n] + given[n:]) / 2, atol=1e-5)
    assert np.isnan(template[n:]).all()


def test_ridge_with_a_penalty_that_held_out_rows_choose():
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((2, 300, 80))
    true = rng.standard_normal((4, 80))
    target = X @ true.T + 20 * noise[:, :4]
    target[5] = np.nan
    train, validation = np.arange(200), np.arange(200, 300)
    for held_out in (validation, validation[:0]):
        (weight, bias), *spread = ridge_read_ins(X, target, train, held_out)
        kept = train[train != 5]
        centred = X[kept] - X[kept].mean(axis=0)

        def solve(penalty, centred=centred, kept=kept):
            gram = centred.T @ centred + penalty * np.eye(80)
            return np.linalg.solve(gram, centred.T @ target[kept]).T

        def error(w, kept=kept):
            b = target[kept].mean(axis=0) - w @ X[kept].mean(axis=0)
            return np.sum((target[validation] - X[validation] @ w.T - b) ** 2)

        best = min(error(solve(penalty)) for penalty in np.logspace(-1, 6, 60))
        assert error(weight) < best * (1.01 if len(held_out) else 1.03)
        np.testing.assert_allclose(
            bias, target[kept].mean(axis=0) - weight @ X[kept].mean(axis=0), rtol=1e-3, atol=1e-4
        )
        given, wider = (X[kept] @ w.T + b for w, b in ((weight, bias), spread[1]))
        np.testing.assert_allclose(given.mean(axis=0), wider.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(2 * given.std(axis=0), wider.std(axis=0), rtol=1e-3)
    # more inputs than samples: the same by the other Gram matrix
    wide = np.hstack([X, X])
    weight, _ = ridge_read_ins(wide[:60], target[:60], np.arange(60), np.arange(0))[0]
    np.testing.assert_allclose(weight[:, :80], weight[:, 80:], atol=1e-5)


def test_what_layers_give_is_least_squares_on_components_of_flow():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((200, 3))
    flow = (hidden @ rng.standard_normal((3, 32))).reshape(200, 1, 2, 4, 4).astype(np.float32)
    output = hidden @ rng.standard_normal((3, 5)) + 2 + rng.standard_normal((200, 5))
    design = np.c_[hidden, np.ones(200)]
    expected = design @ np.linalg.lstsq(design, output, rcond=None)[0]
    np.testing.assert_allclose(ReadInOfFlow(flow, output, 0)(flow), expected, atol=1e-3)


def test_few_minutes_are_enough_where_others_taught_the_rest(trunk, person, template):
    X, y, labels = person
    test = labels["runs"] >= N_RUNS
    curve = transfer_curve(
        trunk, X, y, test=test, minutes=(5, 99), template=template, **HOW, **labels
    )
    assert curve["minutes"].round(1).tolist() == [5.0] * 3 + [9.6] * 3
    kinds = ["from scratch", "adapted", "adapted + aligned"]
    assert curve["kind"].tolist() == kinds * 2
    np.testing.assert_allclose(
        curve["gain_px"], curve["unrelated_error_px"] - curve["error_px"], rtol=1e-5
    )
    assert (curve["low"] < curve["gain_px"]).all() and (curve["p"].iloc[[4, 5]] < 0.05).all()
    few = curve.iloc[:3].set_index("kind")
    for kind in kinds[1:]:
        # the control of a decoder from scratch has learnt noise: errors compare better than gains
        assert few.loc[kind, "error_px"] < few.loc["from scratch", "error_px"] - 0.01
        assert few.loc[kind, "gain_px"] > 0.03


@pytest.mark.parametrize("noise", ["other films", "white"])
def test_bold_of_other_films_gains_nothing(trunk, person, template, noise):
    X, y, labels = person
    other = exchange_between_films(labels["runs"], labels["films"], 12, random_state=1)
    rng = np.random.default_rng(0)
    X = X[other] if noise == "other films" else rng.standard_normal(X.shape).astype(np.float32)
    test = labels["runs"] >= N_RUNS
    curve = transfer_curve(
        trunk, X, y, test=test, minutes=(99,), template=template, **HOW, **labels
    )
    assert (np.abs(curve["gain_px"]) < 0.05).all() and (curve["low"] < 0.01).all()


def test_test_films_reach_nothing_but_scores(trunk, person, template):
    X, y, labels = person
    test = labels["runs"] >= N_RUNS
    how = {"test": test, "minutes": (3,), **HOW, **labels}
    expected = transfer_curve(trunk, X, y, template=template, **how)
    changed = np.where(test[:, None], np.float32(7), template)
    found = transfer_curve(trunk, X, y, template=changed, **how)
    np.testing.assert_array_equal(found["error_px"], expected["error_px"])


def test_what_does_not_fit_the_decoder_is_refused(trunk, person):
    X, y, labels = person
    with pytest.raises(InputError, match=r"flow of shape \(1, 2, 4, 4\), as of the decoder; got"):
        adapt_decoder(trunk, X, y[..., :2], **labels)
    with pytest.raises(InputError, match="must have 2 channels, as of the decoder; got None"):
        adapt_decoder(trunk, X, y, runs=labels["runs"])
    with pytest.raises(InputError, match=r"`template` must have shape \(576, 32\) and a row"):
        adapt_decoder(trunk, X, y, **labels, template=np.full((576, 32), np.nan))
    with pytest.raises(InputError, match=r"`moments` must be int of shape \(576,\)"):
        read_in_template(trunk, X, np.zeros(576), wanted=[0])
    test = np.arange(len(X)) % 2 == 0
    with pytest.raises(InputError, match="got 12 films on both sides"):
        transfer_curve(trunk, X, y, test=test, minutes=(5,), **HOW, **labels)
    with pytest.raises(InputError, match="0 films on both sides and 0 test clips"):
        transfer_curve(trunk, X, y, test=test & False, minutes=(5,), **HOW, **labels)
