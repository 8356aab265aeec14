"""Tinyworld as a corpus to train on."""

from __future__ import annotations

import json
from pathlib import Path

from ...tokenization import with_sentinels
from .. import Corpus
from .language import load
from .pairs import Pairs, group_of

FLOORS = Path(__file__).parent / "floors.json"
SIZES = {"world": (200_000, 2_000), "village": (20_000, 2_000)}  # texts to train on, texts held out
HELD_OUT_SEED = 1_000_003


def load_corpus(
    size: str = "world", *, seed: int = 0, n: int | None = None, dialect: int = 0, pairs: str | None = None,
    sentinels: int = 0,
) -> Corpus:
    """`n` training texts drawn with `seed`, and held-out texts that are the same for every seed.

    pairs: each text is two neighbouring sentences of a document, and negatives of next sentence prediction are of
    the same "place" or "topic", or from "anywhere" (see `Pairs`).

    floors (dialect 0): the mean exact loss on the held-out texts, of "masking" under one draw of BERT's corruption and
    of "next_token", nats per predicted token; floors.json has their standard errors. Raises ValueError for an n, a
    seed or a number of sentinels that is no count.
    """
    language = load(size, dialect)
    if not (isinstance(sentinels, int) and 0 <= sentinels <= 1000):
        raise ValueError(f"sentinels is {sentinels!r}: give a whole number from 0 to 1000")
    tokenizer = with_sentinels(language.tokenizer, sentinels) if sentinels else language.tokenizer
    train, held_out = SIZES[size]
    n = train if n is None else n
    if not (isinstance(n, int) and n > 0 and isinstance(seed, int) and seed >= 0):
        raise ValueError(f"n is {n!r} and seed {seed!r}: give a whole number of texts from 1, and a seed from 0")
    if pairs is not None:
        drawn = [Pairs(language).draw(*how) for how in ((n, seed), (held_out, HELD_OUT_SEED))]
        texts = [one.texts for one in drawn]
        return Corpus(f"pairs of {language.name}", tokenizer, *texts, group=group_of(pairs, *drawn))
    floors = json.loads(FLOORS.read_text(encoding="utf-8")) if FLOORS.exists() and not dialect else {}
    return Corpus(
        language.name,
        tokenizer,
        language.texts(n, seed),
        language.texts(held_out, HELD_OUT_SEED),
        {name: floors[size][name]["value"] for name in ("masking", "next_token")} if floors else {},
    )
