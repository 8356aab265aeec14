"""Where x comes from: texts as token ids, and where the exact truth about them is known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Texts:
    """Many token sequences of different lengths in one array, without special tokens.

    tokens: (total,) int32 token ids; offsets: (n + 1,) int64, text i is tokens[offsets[i]:offsets[i + 1]].
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_list(cls, sequences: Sequence[Sequence[int]]) -> Texts:
        """Pack a list of id lists."""
        lengths = [len(sequence) for sequence in sequences]
        tokens = np.fromiter((token for sequence in sequences for token in sequence), np.int32, sum(lengths))
        return cls(tokens, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of tokens of each text."""
        return np.diff(self.offsets)

    def select(self, indices: Sequence[int]) -> Texts:
        """The texts at `indices`, in that order."""
        return Texts.from_list([self[index] for index in indices])


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from and texts held out, with the tokenizer that their ids belong to.

    floors: by objective the exact nats per predicted token, of its standard split, where the truth is known. group: of
    pairs of sentences, where negatives come from: tells a number for each row of ids (batch, time).
    """

    name: str
    tokenizer: Any
    train: Texts
    held_out: Texts
    floors: Mapping[str, float] = field(default_factory=dict)
    group: Callable[[Any], Sequence[int]] | None = None


CORPORA = ("tinyworld", "village", "books")


def load_corpus(name: str, **options: Any) -> Corpus:
    """The corpus called `name`, with the options of its loader: see `tinyworld.load_corpus` and `books.load_books`.

    Raises ValueError when there is no such corpus or no such option.
    """
    if name not in CORPORA:
        raise ValueError(f"there is no corpus called {name!r}: choose one of {', '.join(CORPORA)}")
    if name == "books":
        from .books import load_books as loader
    else:
        from . import tinyworld

        loader = partial(tinyworld.load_corpus, "village" if name == "village" else "world")
    try:
        inspect.signature(loader).bind(**options)
    except TypeError as error:
        raise ValueError(f"the corpus {name!r} does not take these options: {error}") from None
    return loader(**options)
