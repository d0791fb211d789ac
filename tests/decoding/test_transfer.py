"""A decoder of others for a new person: what stays, what is learnt, and what that is worth."""

import copy

import numpy as np
import pytest
from planted import plant_motion

from brainnrds._checks import InputError
from brainnrds.blocks import exchange_between_films
from brainnrds.decoding import MotionDecoder, adapt_decoder, transfer_curve

T_R = 2.0
HOW = {"t_r": T_R, "block_length": 12, "random_state": 0}


@pytest.fixture(scope="module")
def trunk():
    """Of two people, whose voxels say the same things in other mixtures; seconds to train."""
    parts = [plant_motion(seed, n_runs=10) for seed in (1, 2)]
    X, y, features = (np.concatenate([part[i] for part in parts]) for i in range(3))
    runs = np.concatenate([100 * i + part[3] for i, part in enumerate(parts)])
    decoder = MotionDecoder(
        n_codes=8, n_bold_channels=32, n_channels=24, n_blocks=2, n_epochs=20, batch_size=32,
        learning_rate=3e-3, random_state=0,
    )  # fmt: skip
    labels = {"runs": runs, "films": runs, "subjects": np.repeat([1, 2], 480)}
    return decoder.fit(X, y, image_features=features, **labels)


@pytest.fixture(scope="module")
def person():
    X, y, features, runs = plant_motion(9, n_runs=8, n_voxels=50)
    return X, y, {"image_features": features, "runs": runs, "films": runs}


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
    longer = adapt_decoder(trunk, X, y, **labels, n_epochs=10)
    assert longer.history_["validation_error"][-1] < adapted.history_["validation_error"][0]


def test_few_minutes_are_enough_where_others_taught_the_rest(trunk, person):
    X, y, labels = person
    test = labels["runs"] >= 4
    curve = transfer_curve(trunk, X, y, test=test, minutes=(3, 99), **HOW, **labels)
    assert curve["minutes"].tolist() == [3, 3, 6.4, 6.4]
    assert curve["kind"].tolist() == ["from scratch", "adapted"] * 2
    np.testing.assert_allclose(
        curve["gain_px"], curve["unrelated_error_px"] - curve["error_px"], rtol=1e-5
    )
    few = curve.iloc[:2].set_index("kind")
    assert few.loc["adapted", "low"] > 0
    assert few.loc["adapted", "gain_px"] > few.loc["from scratch", "gain_px"]


def test_bold_of_other_films_gains_nothing(trunk, person):
    X, y, labels = person
    other = exchange_between_films(labels["runs"], labels["films"], 12, random_state=1)
    test = labels["runs"] >= 4
    curve = transfer_curve(trunk, X[other], y, test=test, minutes=(99,), **HOW, **labels)
    assert (np.abs(curve["gain_px"]) < 0.03).all() and (curve["low"] < 0.01).all()


def test_what_does_not_fit_the_decoder_is_refused(trunk, person):
    X, y, labels = person
    with pytest.raises(InputError, match=r"flow of shape \(1, 2, 4, 4\), as of the decoder; got"):
        adapt_decoder(trunk, X, y[..., :2], **labels)
    with pytest.raises(InputError, match="must have 2 channels, as of the decoder; got None"):
        adapt_decoder(trunk, X, y, runs=labels["runs"])
    test = np.arange(len(X)) % 2 == 0
    with pytest.raises(InputError, match="got 8 films on both sides"):
        transfer_curve(trunk, X, y, test=test, minutes=(5,), **HOW, **labels)
    with pytest.raises(InputError, match="0 films on both sides and 0 test clips"):
        transfer_curve(trunk, X, y, test=test & False, minutes=(5,), **HOW, **labels)
