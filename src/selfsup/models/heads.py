"""What turns hidden states into answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .shapes import TransformerConfig


class MaskedLMHead(nn.Module):
    """Which token stood here? A score for each one in the vocabulary (Devlin et al. 2019, section 3.1).

    The scores are products with the token embeddings themselves: the two share weights (Press and Wolf 2017).
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.transform = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.transform.weight, std=config.init_std)
        nn.init.zeros_(self.transform.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """hidden: (..., width), embedding: (vocab, width) -> logits (..., vocab)."""
        return F.linear(self.norm(F.gelu(self.transform(hidden))), embedding, self.bias)


class PairHead(nn.Module):
    """As it was, or changed? Two scores for a pair of sentences, from the vector of [CLS] (Devlin et al. 2019)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.pooler = nn.Linear(config.width, config.width)
        self.relation = nn.Linear(config.width, 2)
        for layer in (self.pooler, self.relation):
            nn.init.normal_(layer.weight, std=config.init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (batch, time, width) -> logits (batch, 2)."""
        return self.relation(self.pooler(hidden[:, 0]).tanh())
