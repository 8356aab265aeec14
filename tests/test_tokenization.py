"""Tokenizers: one id a word, WordPiece, and both read back by `transformers`."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from selfsup.tokenization import (
    SPECIAL_TOKENS,
    begins_word,
    load_tokenizer,
    save_tokenizer,
    train_wordpiece,
    word_level,
)

WORDS = ["the", "cat", "sat", "on", "mat", ".", ",", '"', "?", "!", "anna"]
STORY = [
    "Once upon a time there was a king, and the king was thinking of the sea.",
    "The queen was singing; the cats were sleeping and the dogs were barking.",
    "“Naïve Björn!” said the queen. Thinking and singing and sleeping!",
] * 3


@pytest.fixture(scope="module")
def words():
    return word_level(WORDS)


@pytest.fixture(scope="module")
def pieces():
    return train_wordpiece(STORY, 90)


@pytest.mark.parametrize("which", ["words", "pieces"])
def test_special_tokens_come_first(which, request):
    tokenizer = request.getfixturevalue(which)
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    roles = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id]
    assert [*roles, tokenizer.sep_token_id, tokenizer.mask_token_id] == [0, 1, 2, 3, 4]


def test_words_keep_their_order(words):
    assert words.convert_ids_to_tokens(range(5, len(words))) == WORDS, "word i has id i + 5"


def test_words_are_lower_cased_and_punctuation_stands_alone(words):
    assert words.tokenize('Anna: "The CAT sat."') == ["anna", "[UNK]", '"', "the", "cat", "sat", ".", '"']


def test_mask_in_text_stays_one_token(words):
    assert words.tokenize("the [MASK] sat.") == ["the", "[MASK]", "sat", "."]


@pytest.mark.parametrize("which", ["words", "pieces"])
def test_one_text_and_two_texts(which, request):
    tokenizer = request.getfixturevalue(which)
    one, two = tokenizer("the cat"), tokenizer("the cat", "the")
    assert one["input_ids"][0] == 2 and one["input_ids"][-1] == 3, "[CLS] text [SEP]"
    assert set(one["token_type_ids"]) == {0}
    second = len(tokenizer("the")["input_ids"]) - 1
    assert two["input_ids"].count(3) == 2, "[CLS] A [SEP] B [SEP]"
    assert two["token_type_ids"] == [0] * len(one["input_ids"]) + [1] * second, "B [SEP] is segment 1"


def test_batches_are_padded_and_masked(words):
    batch = words(["the cat sat", "anna"], padding=True)
    assert batch["input_ids"][1] == [2, 15, 3, 0, 0]
    assert batch["attention_mask"][1] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("word", ["Paris", "don't", "ice cream", "well-known", "", "café"])
def test_words_that_text_cannot_reach_are_refused(word):
    with pytest.raises(ValueError, match="not one lower-case word"):
        word_level(["the", word])


@pytest.mark.parametrize("words", [["cat", "cat"], ["[MASK]"]])
def test_words_that_come_twice_are_refused(words):
    with pytest.raises(ValueError, match="more than once"):
        word_level(words)


def test_pieces_split_and_join(pieces):
    assert pieces.tokenize("Thinking") == pieces.tokenize("thinking"), "pieces are lower-cased"
    tokens = pieces.tokenize("kingdogs")
    assert len(tokens) > 1 and all(token.startswith("##") for token in tokens[1:]), "inner pieces have ##"
    text = "the singing queen"
    assert pieces.decode(pieces(text)["input_ids"], skip_special_tokens=True) == text


def test_pieces_drop_accents(pieces):
    assert pieces.tokenize("Naïve Björn") == pieces.tokenize("naive bjorn")


def test_pieces_know_every_letter_of_their_texts(pieces):
    ids = [token for text in STORY for token in pieces(text)["input_ids"]]
    assert pieces.unk_token_id not in ids, "a text of the training set has unknown words"


def test_pieces_of_unknown_letters(pieces):
    assert pieces.tokenize("the 灣 🙂") == ["the", "[UNK]", "[UNK]"]


@pytest.mark.parametrize("size", [70, 90])
def test_vocabulary_has_the_size_asked_for(size):
    tokenizer = train_wordpiece(STORY, size)
    assert len(tokenizer) == size
    assert sorted(tokenizer.get_vocab().values()) == list(range(size)), "ids without gaps"


def test_vocabulary_too_small_for_the_letters():
    with pytest.raises(ValueError, match="vocab_size 20 cannot hold"):
        train_wordpiece(STORY, 20)


def test_alphabet_keeps_the_most_frequent_letters():
    tokenizer = train_wordpiece(["aaa bbb abab z"], 50, alphabet_size=2)
    assert {token for token in tokenizer.get_vocab() if len(token) == 1} == {"a", "b"}


def test_training_reads_an_iterator_once():
    assert train_wordpiece(iter(STORY), 90).get_vocab() == train_wordpiece(STORY, 90).get_vocab()


def test_equal_texts_give_equal_tokenizers():
    # Hash seeds differ between processes, so an order that depends on them shows only there.
    learn = f"train_wordpiece({STORY!r}, 90).backend_tokenizer.to_str()"
    code = f"from selfsup.tokenization import train_wordpiece; print({learn})"
    printed = [subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)]
    assert printed == [train_wordpiece(STORY, 90).backend_tokenizer.to_str()] * 2


def test_begins_word(words, pieces):
    starts = begins_word(pieces)
    assert starts.shape == (len(pieces),) and starts.dtype == bool
    tokens = np.array(pieces.convert_ids_to_tokens(range(len(pieces))))
    assert not starts[:5].any(), "special tokens begin no word"
    assert [t for t, start in zip(tokens[5:], starts[5:], strict=True) if start == t.startswith("##")] == []
    assert begins_word(words)[5:].all(), "at word level every token is a word"


def test_words_of_a_text_are_found_by_begins_word(pieces):
    text = "kingdogs singing, thinking"
    ids = pieces(text, add_special_tokens=False)["input_ids"]
    assert begins_word(pieces)[ids].sum() == 4, "three words and a comma"


@pytest.mark.parametrize("which", ["words", "pieces"])
def test_saved_tokenizer_opens_here_and_in_transformers(which, request, tmp_path):
    tokenizer = request.getfixturevalue(which)
    save_tokenizer(tokenizer, tmp_path)
    text = 'Anna was thinking, "the CAT [MASK]!" naïve 灣'
    for opened in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))):
        assert dict(opened(text, "the cat")) == dict(tokenizer(text, "the cat"))
        assert opened.get_vocab() == tokenizer.get_vocab()
        assert opened.mask_token_id == 4 and opened.pad_token_id == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_read(text):
    tokenizer = word_level(WORDS)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 2 and ids[-1] == 3 and max(ids) < len(tokenizer)


def test_missing_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}', "[]"])
def test_damaged_tokenizer(words, tmp_path, content):
    save_tokenizer(words, tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
