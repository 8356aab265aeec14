"""Text to token ids and back: one id a word, or pieces of words (WordPiece, Schuster and Nakajima 2012)."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
_ROLES = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}  # pad_token: [PAD], ...
_CONTINUES = "##"
SENTINEL = "<extra_id_"  # how the names of sentinels begin, as T5 calls them


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a reader, a kill or a full disk never meets half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (what was there is unchanged)", str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def word_level(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one id for each of `words`, in their order, after the special tokens.

    Text is lower-cased and split at blanks and punctuation, as BERT does; other words become [UNK].
    Raises ValueError when a word comes twice or is not one lower-case word to this splitting.
    """
    from tokenizers.models import WordLevel

    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *words])}
    if len(vocab) < len(SPECIAL_TOKENS) + len(words):
        twice = next(word for word, count in Counter([*SPECIAL_TOKENS, *words]).items() if count > 1)
        raise ValueError(f"the word {twice!r} comes more than once: give each word one place")
    tokenizer = _bert_style(WordLevel(vocab, unk_token="[UNK]"))
    for word in words:
        if _split(tokenizer, word) != [word]:
            raise ValueError(f"{word!r} is not one lower-case word: it is read as {_split(tokenizer, word)}")
    return fast_tokenizer(tokenizer)


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2, alphabet_size: int = 200
) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer learned from `texts`; equal texts give equal tokenizers.

    Text is lower-cased, freed of accents and split at blanks and punctuation, as BERT does.
    vocab_size: number of tokens, the five special ones included (fewer come out of small texts);
    min_frequency: how often a pair must occur to become one piece; alphabet_size: how many characters are
    kept, the most frequent ones. Raises ValueError when the vocabulary cannot hold the characters.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer

    splitter = _bert_style(WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    words = Counter(word for text in texts for word in _split(splitter, text))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    alphabet = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:alphabet_size])
    inside = sorted({_CONTINUES + c for c in set().union(*(word[1:] for word in words)) & set(alphabet)})
    base = [*SPECIAL_TOKENS, *alphabet, *inside]
    if vocab_size < len(base):
        raise ValueError(f"vocab_size {vocab_size} cannot hold {len(base)} special tokens and characters")
    # The trainer breaks ties by id and numbers the inner characters in no fixed order: put them first.
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
        special_tokens=base,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        continuing_subword_prefix=_CONTINUES,
    )
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = splitter.pre_tokenizer
    learner.train_from_iterator((" ".join([word] * count) for word, count in sorted(words.items())), trainer)
    pieces = WordPiece(learner.get_vocab(), unk_token="[UNK]", continuing_subword_prefix=_CONTINUES)
    return fast_tokenizer(_bert_style(pieces))


def _bert_style(model: Model) -> Tokenizer:
    """A tokenizer that prepares text as lower-cased BERT does and puts it between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # strips accents too
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES)
    return tokenizer


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """`tokenizer` as `transformers` takes it, with the special tokens in their roles."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **_ROLES,
    )


def with_sentinels(tokenizer: PreTrainedTokenizerFast, n: int) -> PreTrainedTokenizerFast:
    """A copy with n tokens more at the end of the vocabulary, <extra_id_0> and so on, which mark spans of a text."""
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(f"{SENTINEL}{i}>", special=True) for i in range(n)], special_tokens=True)
    return tokenizer


def _split(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of `text`, before they become pieces."""
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def begins_word(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """(vocab,) bool: True for tokens that begin a word, False for special tokens and pieces inside a word."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_ids)
    return np.array([i not in special and not t.startswith(_CONTINUES) for i, t in enumerate(tokens)])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `AutoTokenizer.from_pretrained(folder)` reads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{role: getattr(tokenizer, role) for role in _ROLES},
    }
    write_atomically(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=True).encode())
    write_atomically(folder / "tokenizer_config.json", (json.dumps(config, indent=2) + "\n").encode())


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a Hugging Face folder; raises ValueError when there is none or it is damaged."""
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ValueError(f"{folder} holds no tokenizer.json: give a folder with a saved tokenizer")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise ValueError(f"the tokenizer in {folder} is damaged ({error}): get it again") from None
