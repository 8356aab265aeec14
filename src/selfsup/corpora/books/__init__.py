"""Children's classics in the public domain: real English, held out by book.

63 books, 4.7 million words, found in a folder or fetched once from Project Gutenberg (see `gutenberg`).
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup.corpora import Corpus, Texts
from selfsup.corpora.books.cloze import cloze, cloze_accuracy
from selfsup.corpora.books.gutenberg import ADDRESSES, BOOKS, Book, BooksUnavailable, find_books
from selfsup.corpora.books.prose import paragraphs, sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["BOOKS", "Book", "BooksUnavailable", "Sentences", "cloze", "cloze_accuracy", "load_books"]
__all__ += ["mixture", "prepare", "save_prepared"]

MAX_PIECES = 62  # with [CLS] and [SEP] an input has at most 64
VOCAB_SIZE = 6000


@dataclass(frozen=True)
class Sentences:
    """Every sentence of some books in reading order, as ids: what examples are cut from.

    tokens: (total,) uint16 token ids (uint32 where a vocabulary needs it); lengths: (n,) uint8 pieces of each
    sentence, at most MAX_PIECES; counts: (books,) int64 sentences of each book; numbers: (books,) int64
    Project Gutenberg numbers; held_out: (books,) bool.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray
    held_out: np.ndarray


def load_books(
    folder: str | Path | None = None,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    prepared: str | Path | None = None,
    books: Sequence[Book] = BOOKS,
    vocab_size: int = VOCAB_SIZE,
    seed: int = 0,
    passes: int = 4,
    addresses: Sequence[str] = ADDRESSES,
) -> Corpus:
    """The books as a corpus: blocks of sentences, single sentences and passages, at most 62 pieces each.

    folder: where the texts lie as plain text; otherwise the folder that the environment variable
    SELFSUP_BOOKS names, otherwise the cache, which is filled once from Project Gutenberg. prepared: a file
    that `save_prepared` wrote, read in seconds; SELFSUP_BOOKS may name it too. tokenizer: used instead of a
    WordPiece tokenizer trained on the training books. passes: how many times the training books are cut anew
    into examples; the held-out books are cut once. addresses: where missing books are fetched, () for nowhere.
    Raises BooksUnavailable, a ValueError, when a book is neither found nor fetched.
    """
    named = os.environ.get("SELFSUP_BOOKS", "")
    if prepared is None and folder is None and named.endswith(".npz"):
        prepared = named
    if prepared is not None:
        parts, own = _load_prepared(prepared)
        if tokenizer is not None and tokenizer.get_vocab() != own.get_vocab():
            raise ValueError(f"{prepared} was prepared with another tokenizer: leave out one of the two")
        tokenizer = own
    else:
        parts, tokenizer = prepare(
            folder, tokenizer=tokenizer, books=books, vocab_size=vocab_size, addresses=addresses
        )
    generator = np.random.default_rng(seed)
    train = [_examples(parts, tokenizer, generator, held_out=False) for _ in range(passes)]
    held_out = _examples(parts, tokenizer, np.random.default_rng(0), held_out=True)
    return Corpus("books", tokenizer, _join(train), held_out)


def prepare(
    folder: str | Path | None = None,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    books: Sequence[Book] = BOOKS,
    vocab_size: int = VOCAB_SIZE,
    addresses: Sequence[str] = ADDRESSES,
) -> tuple[Sentences, PreTrainedTokenizerFast]:
    """Find (or fetch), clean, cut and tokenize the books; the tokenizer learns from training books only."""
    from selfsup.tokenization import train_wordpiece

    texts = find_books(books, folder, addresses=addresses)
    split = [[s for p in paragraphs(text) for s in sentences(p)] for text in texts]
    if tokenizer is None:
        seen = (s for book, found in zip(books, split, strict=True) if not book.held_out for s in found)
        tokenizer = train_wordpiece(seen, vocab_size)
    ids, counts = [], []
    marks = [_id(tokenizer, mark) for mark in (";", ":", "\u2014", ",")]
    for found in split:
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(found, add_special_tokens=False)
        pieces = [part for sentence in encoded for part in _cut(sentence.ids, marks) if part]
        ids.extend(pieces)
        counts.append(len(pieces))
    texts = Texts.from_list(ids)
    return Sentences(
        texts.tokens.astype(np.min_scalar_type(max(len(tokenizer) - 1, 256))),
        texts.lengths.astype(np.uint8),
        np.array(counts, np.int64),
        np.array([book.number for book in books], np.int64),
        np.array([book.held_out for book in books], bool),
    ), tokenizer


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a token, or -1 when the vocabulary lacks it."""
    return tokenizer.get_vocab().get(token, -1)


def _cut(ids: list[int], marks: Sequence[int]) -> Iterable[list[int]]:
    """A sentence in parts of at most MAX_PIECES, cut after a semicolon, colon, dash or comma if one fits."""
    while len(ids) > MAX_PIECES:
        half = MAX_PIECES // 2
        ends = (max((i + 1 for i in range(half, MAX_PIECES) if ids[i] == mark), default=0) for mark in marks)
        end = next((end for end in ends if end), MAX_PIECES)
        yield ids[:end]
        ids = ids[end:]
    yield ids


def mixture(
    lengths: np.ndarray, generator: np.random.Generator, *, shares: Sequence[float] = (0.35, 0.4, 0.25)
) -> np.ndarray:
    """Cut one book into (n, 2) examples [first sentence, last sentence + 1) that cover it once, in order.

    Each example is, with probabilities `shares`, a block of as many whole sentences as fit into MAX_PIECES,
    a single sentence (with the next while it is shorter than 5 pieces), or a passage of 2 or 3 sentences.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
    chances = [*shares[:2], shares[2] / 2, shares[2] / 2]
    kinds = iter(generator.choice(4, size=len(lengths), p=chances).tolist())
    found, first = [], 0
    while first < len(lengths):
        fits = bisect_right(offsets, offsets[first] + MAX_PIECES) - 1
        kind = next(kinds)
        if kind == 0:
            last = fits
        elif kind == 1:
            last = first + 1
            while last < fits and offsets[last] - offsets[first] < 5:
                last += 1
        else:
            last = min(first + kind, fits)
        found.append((first, last))
        first = last
    return np.array(found, np.int64).reshape(-1, 2)


def _examples(
    parts: Sentences, tokenizer: PreTrainedTokenizerFast, generator: np.random.Generator, *, held_out: bool
) -> Texts:
    """The mixture of every training (or held-out) book, as ids.

    A quotation mark that opens or closes nothing goes from the ends of an example, and one example in five
    loses its full stop, because readers leave both out when they type a sentence.
    """
    starts = np.concatenate([[0], np.cumsum(parts.counts)])
    spans = [
        starts[book] + mixture(parts.lengths[starts[book] : starts[book + 1]], generator)
        for book in np.flatnonzero(parts.held_out == held_out)
    ]
    spans = np.concatenate([*spans, np.empty((0, 2), np.int64)])
    offsets = np.concatenate([[0], np.cumsum(parts.lengths, dtype=np.int64)])
    first, last = offsets[spans].T.copy()
    quote = _id(tokenizer, '"')
    quotes = np.concatenate([[0], np.cumsum(parts.tokens == quote)])
    odd = (quotes[last] - quotes[first]) % 2 == 1
    long_enough = last - first > 2
    opens = odd & long_enough & (parts.tokens[first] == quote)
    closes = odd & long_enough & ~opens & (parts.tokens[last - 1] == quote)
    first, last = first + opens, last - closes
    bare = long_enough & (parts.tokens[last - 1] == _id(tokenizer, ".")) & (generator.random(len(last)) < 0.2)
    return _gather(parts.tokens, first, last - bare)


def _gather(tokens: np.ndarray, first: np.ndarray, last: np.ndarray) -> Texts:
    """The slices [first, last) of `tokens`, one after another."""
    lengths = last - first
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    where = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    return Texts(tokens[where].astype(np.int32), offsets)


def _join(parts: Sequence[Texts]) -> Texts:
    lengths = np.concatenate([part.lengths for part in parts])
    tokens = np.concatenate([part.tokens for part in parts])
    return Texts(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def save_prepared(path: str | Path, parts: Sentences, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokenized books and their tokenizer to one file, for a machine without the books."""
    from selfsup.tokenization import write_atomically

    file = io.BytesIO()
    vocabulary = np.frombuffer(tokenizer.backend_tokenizer.to_str().encode(), np.uint8)
    np.savez_compressed(file, **vars(parts), tokenizer=vocabulary)
    write_atomically(Path(path), file.getvalue())


def _load_prepared(path: str | Path) -> tuple[Sentences, PreTrainedTokenizerFast]:
    from tokenizers import Tokenizer

    from selfsup.tokenization import fast_tokenizer

    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = Sentences(**{name: arrays[name] for name in Sentences.__dataclass_fields__})
            tokenizer = fast_tokenizer(Tokenizer.from_str(arrays["tokenizer"].tobytes().decode()))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: give one that save_prepared wrote") from None
    except Exception as error:  # zipfile, numpy and tokenizers each raise their own kinds
        raise ValueError(f"{path} is not a whole file of prepared books ({error}): write it again") from None
    return parts, tokenizer
