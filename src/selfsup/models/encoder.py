"""The Transformer encoder of BERT (Devlin et al. 2019): every position may look at every other."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .transformer import Block

# The shapes that the course names. A vocabulary belongs to a corpus, so it is not part of a shape.
SHAPES: dict[str, dict[str, int]] = {
    "village-bert": dict(layers=2, width=64, heads=4, feed_forward=256, max_positions=128),
    "tinyworld-bert": dict(layers=3, width=128, heads=4, feed_forward=512, max_positions=128),
    "storybook-bert": dict(layers=4, width=192, heads=6, feed_forward=768, max_positions=128),
    "bert-base": dict(layers=12, width=768, heads=12, feed_forward=3072, max_positions=512),
    "bert-large": dict(layers=24, width=1024, heads=16, feed_forward=4096, max_positions=512),
}


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder: `vocab_size` to `segments` are counts, `dropout` is a probability.

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
    def named(cls, shape: str, vocab_size: int, **changes) -> EncoderConfig:
        """The shape that the course calls `shape` (a key of SHAPES), with some values changed."""
        if shape not in SHAPES:
            raise ValueError(f"there is no shape called {shape!r}: choose one of {', '.join(SHAPES)}")
        return cls(vocab_size=vocab_size, **{**SHAPES[shape], **changes})

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} is {value!r}, but must be a whole number of at least 1")
            if field.type == "float" and not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"{field.name} is {value!r}, but must be a number of at least 0")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads: change one of them")
        if self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}, but must be below 1")


class Embeddings(nn.Module):
    """Which token, where, in which segment: a sum of three vectors (Devlin et al. 2019, figure 2)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.max_positions, config.width)
        self.segment = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """input_ids, token_type_ids: (batch, time) -> (batch, time, width)."""
        time, longest = input_ids.size(1), self.position.num_embeddings
        if time > longest:
            raise ValueError(f"the input has {time} tokens, but the model takes {longest}: shorten the text")
        segment = self.segment.weight[0] if token_type_ids is None else self.segment(token_type_ids)
        return self.dropout(self.norm(self.token(input_ids) + self.position.weight[:time] + segment))


class Encoder(nn.Module):
    """Embeddings, then blocks: each position gets a vector that has seen the whole text."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.feed_forward, config.dropout, config.norm_eps)
            for _ in range(config.layers)
        )
        self.apply(self.initialise)

    def initialise(self, module: nn.Module) -> None:
        """Weights from a normal distribution, biases zero, norms the identity, as BERT."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        all_layers: bool = False,
    ) -> Tensor:
        """input_ids, token_type_ids: (batch, time) ids; attention_mask: (batch, time), 0 at padding.

        Returns the last hidden states (batch, time, width), or with `all_layers` those after the embeddings
        and after each block (layers + 1, batch, time, width).
        """
        mask = None
        if attention_mask is not None:  # for every head and every query: nobody looks at padding
            mask = attention_mask.bool()[:, None, None, :]  # (batch, 1, 1, time)
        x = self.embeddings(input_ids, token_type_ids)  # (batch, time, width)
        states = [x]
        for block in self.blocks:
            x = block(x, mask)
            states.append(x)
        return torch.stack(states) if all_layers else x
