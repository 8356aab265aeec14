"""Attention and the Transformer block (Vaswani et al. 2017), as in BERT: a norm after each sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
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

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """x: (batch, time, width) -> the same shape; mask: bool, broadcast to (batch, heads, time, keys)."""
        memory = x if memory is None else memory  # (batch, keys, width)
        query, key, value = (self.split(y) for y in (self.query(x), self.key(memory), self.value(memory)))
        if self.record is None:  # the same as `attention`, in one kernel that keeps no weights
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        else:
            mixed, weights = attention(query, key, value, mask)  # mixed: (batch, heads, time, width / heads)
            self.record.append(weights)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (batch, time, width)


class Block(nn.Module):
    """One Transformer block: attention mixes the positions, the feed-forward network works on each alone."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0, norm_eps: float = 1e-12):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, norm_eps)
        self.feed_forward = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.feed_forward_norm = nn.LayerNorm(width, norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (batch, time, width) -> the same shape; mask: bool, broadcast to (batch, heads, time, time)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


@contextmanager
def attention_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights of every call of `model` made inside the `with` statement.

    Yields a list that receives one (batch, heads, queries, keys) tensor a layer, first layer first.
    Attention dropout is off meanwhile.
    """
    modules = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    weights: list[Tensor] = []
    try:
        for module in modules:
            module.record = weights
        yield weights
    finally:
        for module in modules:
            module.record = None
