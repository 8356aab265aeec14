"""Tinyworld with other word frequencies: frequent words are written in many ways, one of them at random each time.

Which words a text has, and how sure one can be of a covered word, stays as it is. What changes is how often a spelling
is met, as a covered word and as one that stands around it. Train with all chosen words covered: random words would be
drawn by spelling, and make just the words with many spellings suspect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...tokenization import word_level
from .. import Corpus, Texts
from .automaton import SPECIAL
from .language import Language

FUNCTION = ("DET", "PREP", "CONJ", "PART", "AUX", "PRON", "PUNCT")  # parts of speech that hold sentences together
# How frequent a spelling is at most, as a share of all words: of function words, and of the others.
FREQUENCIES: dict[str, tuple[float, float]] = {"natural": (1, 1), "equal": (5e-4, 5e-4), "exchanged": (1e-4, 1)}


class Spellings:
    """How many ways each word is written in, so that no spelling is more frequent than `FREQUENCIES[kind]` says.

    share: (words,) how frequent each word is; ways: (words,); first: (words,) the index of each word's first spelling;
    word_of: (vocab,) the id that the word of each spelling has in the language's own tokenizer, whose
    special tokens stay; tokenizer: of spellings. Raises ValueError for a kind that is none of FREQUENCIES.
    """

    def __init__(self, language: Language, kind: str, n: int = 20_000):
        if kind not in FREQUENCIES:
            raise ValueError(f"there are no {kind!r} frequencies: choose one of {', '.join(FREQUENCIES)}")
        words = len(language.words)
        counted = np.bincount(language.texts(n, seed=0).tokens, minlength=SPECIAL + words)[SPECIAL:]
        self.share = counted / counted.sum()
        of_function, of_others = FREQUENCIES[kind]
        most = np.where(np.isin(language.data["pos"], FUNCTION), of_function, of_others)
        self.ways = np.maximum(1, np.ceil(self.share / most)).astype(int)
        self.first = np.concatenate([[0], np.cumsum(self.ways)[:-1]])
        self.word_of = torch.from_numpy(np.concatenate([np.arange(SPECIAL), SPECIAL + np.repeat(np.arange(words),
                                                                                                self.ways)]))
        self.tokenizer = word_level([f"w{i}" for i in range(self.ways.sum())])

    def spell(self, ids: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
        """Each word in one of its spellings; ids of any shape, in which special tokens stay."""
        ids = np.asarray(ids)
        word = np.maximum(ids - SPECIAL, 0)
        chosen = self.first[word] + np.random.default_rng(seed).integers(self.ways[word])
        return np.where(ids < SPECIAL, ids, SPECIAL + chosen)

    def texts(self, texts: Texts, seed: int) -> Texts:
        """Whole texts, spelled."""
        return Texts(self.spell(texts.tokens, seed).astype(np.int32), texts.offsets)

    def corpus(self, corpus: Corpus, seed: int = 0) -> Corpus:
        """A corpus of Tinyworld, spelled."""
        train, held_out = self.texts(corpus.train, seed), self.texts(corpus.held_out, seed + 1)
        return Corpus(f"{corpus.name}, spelled", self.tokenizer, train, held_out)

    def by_word(self, logits: Tensor) -> Tensor:
        """(n, vocab) logits of spellings -> (n, 5 + words) log-probabilities of words, spellings taken together."""
        chance = logits.double().softmax(-1)
        total = chance.new_zeros(len(logits), SPECIAL + len(self.ways)).index_add_(1, self.word_of, chance)
        return total.clamp(min=1e-30).log()
