"""Tiny random networks of sound and text, saved as the hub lays them out."""

import tokenizers
import torch
import transformers

WORDS = ["dog", "horse", "house", "river", "run", "open", "the", "to", "gather"]
_SOUND = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_TEXT = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
}


def _whisper():
    config = transformers.WhisperConfig(
        vocab_size=60, num_mel_bins=20, d_model=16, encoder_layers=3, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_source_positions=200, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return (
        transformers.WhisperForConditionalGeneration(config),
        transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=4),
    )


def _wav2vec2():
    config = transformers.Wav2Vec2Config(**_SOUND, vocab_size=32)
    return transformers.Wav2Vec2ForCTC(config), transformers.Wav2Vec2FeatureExtractor()


def _hubert():
    config = transformers.HubertConfig(**_SOUND)
    return transformers.HubertModel(config), transformers.Wav2Vec2FeatureExtractor()


def _word_pieces():
    """Whole words, and pieces of what is in none."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS[:-1], "gath", "##er"]
    vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def _byte_pairs():
    """Bytes and a few pairs; a word's space belongs to its first token."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _bert():
    return transformers.BertForMaskedLM(transformers.BertConfig(**_TEXT)), _word_pieces()


def _roberta():
    config = transformers.RobertaConfig(**_TEXT, type_vocab_size=1, pad_token_id=0)
    return transformers.RobertaModel(config, add_pooling_layer=False), _word_pieces()


def _gpt2():
    config = transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=3, n_head=2, n_positions=66)
    return transformers.GPT2LMHeadModel(config), _byte_pairs()


def _llama():
    config = transformers.LlamaConfig(**_TEXT, num_key_value_heads=1)
    return transformers.LlamaForCausalLM(config), _byte_pairs()


SOUND = {"whisper": _whisper, "wav2vec2": _wav2vec2, "hubert": _hubert}
TEXT = {"bert": _bert, "roberta": _roberta, "gpt2": _gpt2, "llama": _llama}


def save_tiny(family, folder):
    """Save a network of the family with what prepares its input; return the network."""
    torch.manual_seed(0)
    network, preparation = {**SOUND, **TEXT}[family]()
    network = network.eval()
    network.save_pretrained(folder)
    preparation.save_pretrained(folder)
    return network
