"""Attention and the Transformer block (Vaswani et al. 2017): what encoder and decoder are built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

    query: (..., queries, size); key, value: (..., keys, size); mask: bool, broadcast to (..., queries, keys),
    True where a query may look. Returns the output (..., queries, size) and the weights (..., queries, keys).
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (..., queries, keys)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)  # each query's weights sum to one
    return weights @ value, weights


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Where the last `queries` of `keys` tokens may look: at themselves and at what is before them.

    Returns (queries, keys) bool, True where they may.
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class Past:
    """The keys and values that an attention has made so far, so that no token is worked through twice.

    key, value: (batch, heads, tokens, size), or None before the first token.
    """

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of more tokens, and return those of all."""
        if self.key is not None:
            key, value = torch.cat([self.key, key], dim=2), torch.cat([self.value, value], dim=2)
        self.key, self.value = key, value
        return key, value


class Cache:
    """What a decoder keeps while it writes: the `Past` of each block's attention to itself and to the memory."""

    def __init__(self) -> None:
        self.own: dict[int, Past] = {}  # by number of block
        self.cross: dict[int, Past] = {}

    def of(self, block: int) -> tuple[Past, Past]:
        """The pasts of one block: of its own tokens, and of the memory."""
        return self.own.setdefault(block, Past()), self.cross.setdefault(block, Past())

    def __len__(self) -> int:
        """The number of tokens read so far."""
        return self.own[0].key.size(2) if self.own else 0

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, (new batch,) long: what beam search keeps of it."""
        for past in (*self.own.values(), *self.cross.values()):
            if past.key is not None:
                past.key, past.value = past.key[rows], past.value[rows]


class MultiHeadAttention(nn.Module):
    """Attention in `heads` subspaces at once (Vaswani et al. 2017, section 3.2.2).

    The queries come from x; the keys and values from x too, or from `memory` (cross-attention).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.record: list[Tensor] | None = None

    def split(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> (batch, heads, time, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None,
                past: Past | None = None) -> Tensor:
        """x: (batch, time, width) -> the same shape; mask: bool, broadcast to (batch, heads, time, keys).

        past: what was made of earlier tokens, or of this memory; what is made now is added to it.
        """
        query = self.split(self.query(x))  # (batch, heads, time, width / heads)
        if memory is not None and past is not None and past.key is not None:  # the memory stays as it is
            key, value = past.key, past.value
        else:
            source = x if memory is None else memory  # (batch, keys, width)
            key, value = self.split(self.key(source)), self.split(self.value(source))
            if past is not None:
                key, value = past.append(key, value)
        if self.record is None:  # the same as `attention`, in one kernel that keeps no weights
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        else:
            mixed, weights = attention(query, key, value, mask)  # mixed: (batch, heads, time, width / heads)
            self.record.append(weights)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (batch, time, width)


class Block(nn.Module):
    """One Transformer block: attention mixes the positions, the feed-forward network works on each alone.

    norm_first: norms what enters each part, as GPT-2 does, and not the sum after it. cross: a second attention, from
    each position to a `memory`, stands between the two.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0, norm_eps: float = 1e-12,
                 activation: str = "gelu", norm_first: bool = False, cross: bool = False):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, norm_eps)
        if cross:
            self.cross = MultiHeadAttention(width, heads, dropout)
            self.cross_norm = nn.LayerNorm(width, norm_eps)
        between = nn.GELU(approximate="tanh" if activation == "gelu_new" else "none")
        self.feed_forward = nn.Sequential(nn.Linear(width, inner), between, nn.Linear(inner, width))
        self.feed_forward_norm = nn.LayerNorm(width, norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None,
                memory_mask: Tensor | None = None, past: tuple[Past | None, Past | None] = (None, None),
                positions: Tensor | None = None) -> Tensor:
        """x: (batch, time, width) -> the same shape, or (n, width) for n `positions`; memory: (batch, keys, width).

        The masks are bool, broadcast to (batch, heads, time, time) and (batch, heads, time, keys). past: of the two
        attentions, to itself and to the memory. positions: (batch, time) bool or (n,) indices into batch * time.
        """
        x = self.add(x, self.attention_norm, lambda y: self.attention(y, mask, past=past[0]))
        if memory is not None:
            x = self.add(x, self.cross_norm, lambda y: self.cross(y, memory_mask, memory, past[1]))
        if positions is not None:  # from here on each is worked on alone: no other one is needed
            x = x.flatten(0, 1)[positions.flatten()]  # (n, width)
        return self.add(x, self.feed_forward_norm, self.feed_forward)

    def add(self, x: Tensor, norm: nn.LayerNorm, part: Callable[[Tensor], Tensor]) -> Tensor:
        """x and what a part makes of it, summed; all (..., width)."""
        if self.norm_first:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))


@contextmanager
def attention_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights of every call of `model` made inside the `with` statement.

    Yields a list that receives one (batch, heads, queries, keys) tensor a layer, first layer first.
    Attention dropout is off meanwhile.
    """
    modules = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    before = [module.record for module in modules]
    weights: list[Tensor] = []
    try:
        for module in modules:
            module.record = weights
        yield weights
    finally:
        for module, record in zip(modules, before, strict=True):
            module.record = record
