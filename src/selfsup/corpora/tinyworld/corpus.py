"""Tinyworld as a corpus to train on."""

from __future__ import annotations

import json
from pathlib import Path

from .. import Corpus
from .language import load

FLOORS = Path(__file__).parent / "floors.json"
SIZES = {"world": (200_000, 2_000), "village": (20_000, 2_000)}  # texts to train on, texts held out
HELD_OUT_SEED = 1_000_003


def load_corpus(size: str = "world", *, seed: int = 0, n: int | None = None, dialect: int = 0) -> Corpus:
    """`n` training texts drawn with `seed`, and held-out texts that are the same for every seed.

    floor: the recorded exact floor of BERT's corruption on the held-out texts (dialect 0), nats per predicted token.
    """
    language = load(size, dialect)
    train, held_out = SIZES[size]
    floors = json.loads(FLOORS.read_text(encoding="utf-8")) if FLOORS.exists() and not dialect else {}
    return Corpus(
        language.name,
        language.tokenizer,
        language.texts(n or train, seed),
        language.texts(held_out, HELD_OUT_SEED),
        floors.get(size, {}).get("masking", {}).get("value"),
    )
