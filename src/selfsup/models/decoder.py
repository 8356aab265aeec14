"""The Transformer decoder: no position may look at a later one, so it can be asked what comes next."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import Embeddings, initialise
from .shapes import TransformerConfig
from .transformer import Block, Cache, causal_mask


class Decoder(nn.Module):
    """Embeddings, then blocks whose attention goes back only.

    cross: each block also looks at a `memory`, such as what an encoder made of another text; the norms then stand
    after each sum (Vaswani et al. 2017), as in BART. Without, they stand before each part, as in GPT-2.
    """

    def __init__(self, config: TransformerConfig, cross: bool = False):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, norm=cross)
        activation = "gelu" if cross else "gelu_new"
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.feed_forward, config.dropout, config.norm_eps,
                  activation=activation, norm_first=not cross, cross=cross)
            for _ in range(config.layers)
        )
        self.norm = nn.Identity() if cross else nn.LayerNorm(config.width, config.norm_eps)
        self.apply(partial(initialise, std=config.init_std))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: Cache | None = None,
                memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """input_ids: (batch, time) -> hidden states (batch, time, width).

        attention_mask: (batch, tokens), 0 at padding, wherever it stands; it covers what the cache holds, too. cache:
        of the tokens before these, to which these are added. memory: (batch, keys, width); memory_mask: (batch, keys).
        """
        before = len(cache) if cache is not None else 0
        time = input_ids.size(1)
        mask = causal_mask(time, before + time, input_ids.device)  # (time, before + time)
        if attention_mask is None:
            places = before + torch.arange(time, device=input_ids.device).expand_as(input_ids)
        else:  # padding takes no place, and nobody looks at it
            mask = mask & attention_mask.bool()[:, None, None, :]  # (batch, 1, time, before + time)
            places = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        if memory_mask is not None:
            memory_mask = memory_mask.bool()[:, None, None, :]  # (batch, 1, 1, keys)
        x = self.embeddings(input_ids, places=places)
        for number, block in enumerate(self.blocks):
            past = cache.of(number) if cache is not None else (None, None)
            x = block(x, mask, memory, memory_mask, past)
        return self.norm(x)


class LanguageModel(nn.Module):
    """Which token comes next? The model of Radford et al. 2019, equal to `GPT2LMHeadModel` in `transformers`."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, positions: Tensor | None = None,
                cache: Cache | None = None) -> Tensor:
        """Logits of the token after each one: (batch, time, vocab), or (n, vocab) at `positions` alone.

        input_ids: (batch, time); attention_mask, cache: see `Decoder`; positions: (batch, time) bool, or (n,) indices
        into batch * time. The scores are products with the token embeddings.
        """
        hidden = self.decoder(input_ids, attention_mask, cache)
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions.flatten()]  # (n, width)
        return F.linear(hidden, self.decoder.embeddings.token.weight)
