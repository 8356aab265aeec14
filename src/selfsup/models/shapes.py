"""The shapes of Transformers: how many blocks, how wide, with how many heads."""

from __future__ import annotations

from dataclasses import dataclass, fields

# The shapes that the course names. A vocabulary belongs to a corpus, so it is not part of a shape.
SHAPES: dict[str, dict[str, int | float]] = {
    "village-bert": dict(layers=2, width=64, heads=4, feed_forward=256, max_positions=128),
    "tinyworld-bert": dict(layers=3, width=128, heads=4, feed_forward=512, max_positions=128),
    "storybook-bert": dict(layers=4, width=192, heads=6, feed_forward=768, max_positions=128),
    "tinyworld-gpt": dict(layers=3, width=128, heads=4, feed_forward=512, max_positions=128, segments=0, norm_eps=1e-5),
    "tinyworld-seq2seq": dict(
        layers=2, width=128, heads=4, feed_forward=512, max_positions=128, segments=0, norm_eps=1e-5
    ),
    "bert-base": dict(layers=12, width=768, heads=12, feed_forward=3072, max_positions=512),
    "bert-large": dict(layers=24, width=1024, heads=16, feed_forward=4096, max_positions=512),
    "gpt2": dict(
        layers=12, width=768, heads=12, feed_forward=3072, max_positions=1024, segments=0, norm_eps=1e-5
    ),
    "bart-base": dict(
        layers=6, width=768, heads=12, feed_forward=3072, max_positions=1024, segments=0, norm_eps=1e-5
    ),
}


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer: `vocab_size` to `segments` are counts, `dropout` is a probability.

    layers: blocks of the encoder, of the decoder, or of each of the two. segments: kinds of tokens, 0 where a model
    knows none.

    Raises ValueError for a shape that cannot be.
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    max_positions: int = 128
    segments: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12
    init_std: float = 0.02

    @classmethod
    def named(cls, shape: str, vocab_size: int, **changes) -> TransformerConfig:
        """The shape that the course calls `shape` (a key of SHAPES), with some values changed."""
        if shape not in SHAPES:
            raise ValueError(f"there is no shape called {shape!r}: choose one of {', '.join(SHAPES)}")
        return cls(vocab_size=vocab_size, **{**SHAPES[shape], **changes})

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "segments" else 1
            if field.type == "int" and (not isinstance(value, int) or value < least):
                raise ValueError(f"{field.name} is {value!r}, but must be a whole number of at least {least}")
            if field.type == "float" and not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"{field.name} is {value!r}, but must be a number of at least 0")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads: change one of them")
        if self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}, but must be below 1")
