"""A small run for the tests: `python run_training.py FOLDER [FIELD=VALUE …]` resumes what FOLDER holds."""

import json
import sys

import numpy as np
import torch

from selfsup.corpora import Corpus, Texts
from selfsup.models.bert import MaskedLanguageModel
from selfsup.models.shapes import TransformerConfig
from selfsup.objectives.masking import Masking
from selfsup.tokenization import word_level
from selfsup.training import Processes, Recipe, train

ALPHABET = "abcdefghijkl"


def alphabet(n: int = 200) -> Corpus:
    """Runs of the alphabet, which begins anew after its end: whoever sees one letter knows them all."""
    rng = np.random.default_rng(0)

    def texts(n: int) -> Texts:
        starts, lengths = rng.integers(0, len(ALPHABET), n), rng.integers(3, 13, n)
        return Texts.from_list(
            [
                (start + np.arange(length)) % len(ALPHABET) + 5
                for start, length in zip(starts, lengths, strict=True)
            ]
        )

    return Corpus("alphabet", word_level(list(ALPHABET)), texts(n), texts(40), floors={"masking": 0.0})


def small_model(width: int = 16, dropout: float = 0.1, seed: int = 0) -> MaskedLanguageModel:
    """A BERT of two layers for the alphabet."""
    torch.manual_seed(seed)
    shape = dict(layers=2, width=width, heads=2, feed_forward=2 * width, max_positions=16, dropout=dropout)
    return MaskedLanguageModel(TransformerConfig(vocab_size=len(ALPHABET) + 5, **shape))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *changes = sys.argv[1:]
    fields = dict(steps=100, batch_size=8, log_every=1, evaluate_every=10, checkpoint_every=1)
    fields |= {name: json.loads(value) for name, value in (change.split("=") for change in changes)}
    model, corpus = small_model(dropout=fields.pop("dropout", 0.1)), alphabet()
    train(model, Masking(corpus.tokenizer), corpus, Recipe(**fields), folder, resume=True, progress=False)
    Processes.join().leave()
