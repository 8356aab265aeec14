"""Next token prediction: every beginning of a text is x′, the token after it x″ (Radford et al. 2018, section 3.1)."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from . import IGNORE, OfTokens, Split


def shift_by_one(ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """What a decoder reads, and what it must say at each place: the token that follows.

    ids, attention_mask: (batch, time) long, padded on the right. Returns two of (batch, time - 1) long; the second has
    IGNORE where no token follows.
    """
    return ids[:, :-1], ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, IGNORE)


class NextToken(OfTokens):
    """The objective of GPT. A text of n tokens asks n + 1 questions at once, the last one whether it is over."""

    floor = "next_token"

    def __init__(self, tokenizer: Any):
        """tokenizer: there to be made as other objectives are; it is not asked."""

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None = None) -> Split:
        """Nothing is drawn: there is one way to split. ids, attention_mask: (batch, time) long, [CLS] text [SEP]."""
        seen, targets = shift_by_one(ids, attention_mask)
        return Split({"input_ids": seen}, targets)  # padding comes last, and no token looks ahead: no mask is needed
