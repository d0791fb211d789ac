"""Networks of text against the plain forward of transformers, on tiny random models."""

import shutil

import numpy as np
import pytest
import torch

from brainnrds._checks import InputError
from brainnrds.features import SoundEncoder, WordEncoder, list_encoders

transformers = pytest.importorskip("transformers")
from tiny_sequences import TEXT, save_tiny  # noqa: E402

WORDS = "the dog run to the river open gather horse the the house".split()
BERT_LIKE = ("bert", "roberta")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = {}

    def make(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = folder, save_tiny(family, folder)
        return made[family]

    return make


def plain(folder, network, family, words):
    """Mean over the last word's tokens of block 0 and of the last state, each word for itself."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = [words[0], *(f" {word}" for word in words[1:])]
    pieces = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in text]
    tokens = [token for piece in pieces for token in piece]
    if tokenizer.convert_ids_to_tokens(pieces[-1][0]) == "\u0120":  # a space alone is no word
        pieces[-1] = pieces[-1][1:]
    first = len(tokens) - len(pieces[-1])
    if family in BERT_LIKE:
        tokens, first = [2, *tokens, 3], first + 1
    part = getattr(network, network.base_model_prefix, network)
    with torch.inference_mode():
        found = part(torch.tensor([tokens]), output_hidden_states=True)
    own = slice(first, first + len(pieces[-1]))
    states = (found.hidden_states[1], found.last_hidden_state)
    return np.concatenate([s[0, own].mean(0).numpy() for s in states])


@pytest.mark.parametrize("family", TEXT)
def test_equals_the_plain_forward_of_the_words_before(family, tiny):
    folder, network = tiny(family)
    encoder = WordEncoder(folder, layers=[0, "output"], context=3, batch_size=2)
    found = encoder.transform(WORDS)
    expected = [
        plain(folder, network, family, WORDS[max(0, i - 3) : i + 1]) for i in range(len(WORDS))
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert encoder.feature_spaces() == {"block0": slice(0, 16), "output": slice(16, 32)}
    np.testing.assert_allclose(encoder.transform(WORDS, [4, 1]), found[[4, 1]], rtol=1e-5)


@pytest.mark.parametrize("family", TEXT)
def test_words_outside_the_context_change_nothing(family, tiny):
    """Neither those that come later, nor those too long ago; those between do."""
    encoder = WordEncoder(tiny(family)[0], context=3)
    before = encoder.transform(WORDS)
    for place in (2, 8):
        changed = [*WORDS]
        changed[place] = "house"
        moved = np.abs(encoder.transform(changed) - before).max(axis=1) > 1e-7
        np.testing.assert_array_equal(np.flatnonzero(moved), np.arange(place, place + 4))


def test_context_tells_the_same_word_apart(tiny):
    folder, _ = tiny("gpt2")
    alone = WordEncoder(folder, context=0).transform(WORDS[1:])
    after = WordEncoder(folder, context=3).transform(WORDS)
    the = [i for i, word in enumerate(WORDS) if word == "the"]
    assert np.ptp(alone[[i - 1 for i in the[1:]]], axis=0).max() < 1e-6
    assert np.ptp(after[the[1:]], axis=0).max() > 1e-3


def test_what_cannot_be_is_refused(tiny, tmp_path):
    folder, _ = tiny("gpt2")
    for encoder, message in (
        (WordEncoder(folder, context=-1), "`context` must be a number of words"),
        (WordEncoder("whisper-base"), "is a network for sound: use SoundEncoder"),
        (SoundEncoder(folder), "is a network for text: use WordEncoder"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.describe()
    with pytest.raises(InputError, match="must be shorter: 59 words before"):
        WordEncoder(folder, context=59).transform(WORDS * 5)
    with pytest.raises(InputError, match="has no 'embedding'"):
        WordEncoder(folder, layers="embedding").transform(WORDS)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        WordEncoder(other).describe()


def test_no_words_are_no_rows_and_the_table_has_networks(tiny):
    assert WordEncoder(tiny("gpt2")[0]).transform([]).shape == (0, 16)
    assert {"gpt2", "bert-base"} <= set(list_encoders("text").index)
