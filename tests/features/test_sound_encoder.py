"""Networks of sound against the plain forward of transformers, on tiny random models."""

import json
import shutil

import numpy as np
import pytest
import torch

from brainnrds._checks import InputError
from brainnrds.features import SoundEncoder, VideoEncoder, list_encoders

transformers = pytest.importorskip("transformers")
from tiny_sequences import SOUND, save_tiny  # noqa: E402

RATE = 16000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = {}

    def make(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = folder, save_tiny(family, folder)
        return made[family]

    return make


@pytest.fixture(scope="module")
def waves():
    """Three times 1 s of context and 1 s of clip."""
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((3, 2 * RATE))).astype(np.float32)


def plain(folder, network, wave):
    """All hidden states, (n_layers, n_steps, n_channels), by transformers alone."""
    prepare = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = prepare(wave, sampling_rate=RATE, return_tensors="pt")
    part = network.model.encoder if hasattr(network, "model") else network
    part = getattr(part, "wav2vec2", part)
    with torch.inference_mode():
        found = part(inputs[prepare.model_input_names[0]], output_hidden_states=True)
    return [states[0].numpy() for states in found.hidden_states], found.last_hidden_state[0].numpy()


@pytest.mark.parametrize("family", SOUND)
def test_equals_the_plain_forward(family, tiny, waves):
    """A step of 20 ms counts in the clip that holds its middle: closed form by hand."""
    folder, network = tiny(family)
    encoder = SoundEncoder(folder, layers=[0, "output"], context=1.0, batch_size=2)
    features = encoder.transform(waves)
    middle = 320 * np.arange(400) + (0 if family == "whisper" else 200)
    for wave, found in zip(waves, features, strict=True):
        states, last = plain(folder, network, wave)
        # a block's output is the next entry; a last normalisation comes after the last block
        inside = (middle >= RATE) & (middle < 2 * RATE)
        expected = [s[inside[: len(s)]].mean(0) for s in (states[1], last)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5, atol=1e-6)
    assert encoder.feature_spaces() == {"block0": slice(0, 16), "output": slice(16, 32)}


@pytest.mark.parametrize("family", SOUND)
def test_sound_in_the_window_counts_and_batches_do_not(family, tiny, waves):
    encoder = SoundEncoder(tiny(family)[0], context=1.0, batch_size=2)
    before = encoder.transform(waves)
    other = SoundEncoder(tiny(family)[0], context=1.0, batch_size=1).transform(waves[::-1])
    np.testing.assert_allclose(other[::-1], before, rtol=1e-5, atol=1e-6)
    tone = 0.3 * np.sin(2 * np.pi * 600 * np.arange(RATE) / RATE)
    for part in (slice(0, RATE), slice(RATE, None)):  # the context; the clip
        changed = waves.copy()
        changed[:, part] = tone
        assert np.abs(encoder.transform(changed) - before).max() > 1e-4
    silent = encoder.transform(np.zeros_like(waves))
    assert np.isfinite(silent).all() and np.ptp(silent, axis=0).max() < 1e-6


def test_description_has_what_decides(tiny):
    folder, _ = tiny("whisper")
    about = SoundEncoder(folder, context=2.0).describe()
    assert about["family"] == "whisper" and about["context"] == 2.0 and about["hub_id"] is None
    assert set(about["config_sha256"]) >= {"config.json", "preprocessor_config.json"}
    assert SoundEncoder(folder, context=3.0).describe() != about


def test_what_cannot_be_is_refused(tiny, waves, tmp_path):
    folder, _ = tiny("whisper")
    for encoder, message in (
        (SoundEncoder(folder, context=-1.0), "`context` must be at least 0 s"),
        (SoundEncoder("gpt2"), "is a network for text: use WordEncoder"),
        (SoundEncoder("videomae-base"), "use VideoEncoder"),
        (VideoEncoder("whisper-base"), "is a network for sound: use SoundEncoder"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.describe()
    for encoder, given, message in (
        (SoundEncoder(folder, context=2.0), waves, "must hold the 2 s before each clip"),
        (SoundEncoder(folder, context=5.0), np.tile(waves, 3), "takes 4 s; got 6 s"),
        (SoundEncoder(folder, context=1.0, batch_size=0), waves, "`batch_size` must be"),
        (SoundEncoder(folder, context=1.0), waves * np.nan, "`waves` must be finite"),
        (SoundEncoder(folder, context=1.0, layers="embedding"), waves, "has no 'embedding'"),
        (SoundEncoder(folder, context=1.0, layers=7), waves, "block numbers from 0 to 2"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.transform(given)
    other = shutil.copytree(folder, tmp_path / "other")
    about = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**about, "sampling_rate": 8000}))
    with pytest.raises(InputError, match="must want sound of 16000 samples per s; got 8000"):
        SoundEncoder(other).describe()
    (other / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json is missing"):
        SoundEncoder(other).describe()


def test_the_table_has_them():
    assert {"whisper-base", "wav2vec2-base", "hubert-base"} <= set(list_encoders("sound").index)
