"""Next token prediction: every beginning of a text is x′, the token after it x″ (Radford et al. 2018, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from . import IGNORE, OfTokens, Split
from .masking import rare_tokens


def shift_by_one(ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """What a decoder reads, and what it must say at each place: the token that follows.

    ids, attention_mask: (batch, time) long, padded on the right. Returns two of (batch, time - 1) long; the second has
    IGNORE where no token follows.
    """
    return ids[:, :-1], ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, IGNORE)


class NextToken(OfTokens):
    """The objective of GPT. A text of n tokens asks n + 1 questions at once, the last one whether it is over.

    Asked are all questions whose answer the text has said already and that is at most the share `rare` of the batch,
    such as a name, and of the others the share `rate`, drawn at random; at 1, the standard, all are asked and `rare`
    is not read. Raises ValueError for shares that are none.
    """

    def __init__(self, tokenizer: Any, rate: float = 1.0, rare: float = 0.01):
        """tokenizer: there to be made as other objectives are; it is not asked."""
        for name, share in (("rate", rate), ("rare", rare)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, but it is a share: give a number from 0 to 1")
        self.rate, self.rare = rate, rare
        self.floor = "next_token" if rate == 1 else None

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None = None) -> Split:
        """At rate = 1 nothing is drawn: there is one way to split. ids, attention_mask: (batch, time) long."""
        seen, targets = shift_by_one(ids, attention_mask)
        if self.rate < 1:
            before = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)  # (batch, time): said before this place
            again = (before & rare_tokens(ids, attention_mask, self.rare))[:, 1:]
            drawn = torch.rand(targets.shape, generator=generator, device=ids.device) < self.rate
            targets = targets.masked_fill(~(again | drawn), IGNORE)
        return Split({"input_ids": seen}, targets)  # padding comes last, and no token looks ahead: no mask is needed
