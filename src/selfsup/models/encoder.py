"""The Transformer encoder of BERT (Devlin et al. 2019): every position may look at every other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .shapes import TransformerConfig
from .transformer import Block


class Embeddings(nn.Module):
    """Which token, where, in which segment: a sum of three vectors (Devlin et al. 2019, figure 2).

    Without segments in the configuration, of two. norm: whether the sum is normed.
    """

    def __init__(self, config: TransformerConfig, norm: bool = True):
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.max_positions, config.width)
        self.segment = nn.Embedding(config.segments, config.width) if config.segments else None
        self.norm = nn.LayerNorm(config.width, config.norm_eps) if norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """input_ids, token_type_ids: (batch, time) -> (batch, time, width).

        places: (batch, time) long, where each token stands; by default 0, 1, 2, … in each row.
        """
        time, longest = input_ids.size(1), self.position.num_embeddings
        last = time if places is None or not places.numel() else int(places.max()) + 1
        if last > longest:
            raise ValueError(f"the input has {last} tokens, but the model takes {longest}: shorten the text")
        x = self.token(input_ids) + (self.position.weight[:time] if places is None else self.position(places))
        if self.segment is not None:
            x = x + (self.segment.weight[0] if token_type_ids is None else self.segment(token_type_ids))
        return self.dropout(self.norm(x))


def initialise(module: nn.Module, std: float) -> None:
    """Weights from a normal distribution, biases zero, norms the identity, as BERT and GPT-2."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Embeddings, then blocks: each position gets a vector that has seen the whole text."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.feed_forward, config.dropout, config.norm_eps)
            for _ in range(config.layers)
        )
        self.apply(partial(initialise, std=config.init_std))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        all_layers: bool = False,
        positions: Tensor | None = None,
    ) -> Tensor:
        """input_ids, token_type_ids: (batch, time) ids; attention_mask: (batch, time), 0 at padding.

        Returns the last hidden states (batch, time, width), or with `all_layers` those after the embeddings
        and after each block (layers + 1, batch, time, width), or (n, width), the last ones of n `positions`. Raises
        ValueError when both are asked for.
        """
        if all_layers and positions is not None:
            raise ValueError("all layers are told at all positions: leave out `all_layers` or `positions`")
        mask = None
        if attention_mask is not None:  # for every head and every query: nobody looks at padding
            mask = attention_mask.bool()[:, None, None, :]  # (batch, 1, 1, time)
        x = self.embeddings(input_ids, token_type_ids)  # (batch, time, width)
        states = [x]
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, mask, positions=positions if number == len(self.blocks) else None)
            states.append(x)
        return torch.stack(states) if all_layers else x
