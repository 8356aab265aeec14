"""Masked language modelling (Devlin et al. 2019, section 3.1): hide some words, say what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from . import IGNORE, OfTokens, Split


def mask_tokens(
    ids: Tensor,
    generator: Generator | None,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    rate: float | Tensor = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
    word_start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose tokens with probability `rate`; of those, hide `mask`, replace `random`, and keep the rest.

    ids: (batch, time) long, on the device of `generator`. rate: one for all tokens, or (batch, time). word_start:
    (batch, time) bool, True where a word begins; given, whole words are chosen, not tokens. Special tokens are
    never chosen and never inserted. Returns the corrupted ids and the targets, (batch, time) long, IGNORE where
    a token was not chosen. Raises ValueError when a rate is not a probability.
    """
    check_rates(rate, mask, random)
    special_ids = sorted(set(special_ids))
    chance, fate = torch.rand(2, *ids.shape, generator=generator, device=ids.device)
    if word_start is not None:  # every piece shares the chance of its word's first piece
        column = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        chance = chance.gather(1, (column * word_start).cummax(1).values)
    chosen = chance < rate
    word = torch.randint(vocab_size - len(special_ids), ids.shape, generator=generator, device=ids.device)
    for special in special_ids:
        chosen &= ids != special
        word += word >= special  # numbers the ordinary words past the special ones, all equally likely
    corrupted = ids.where(~(chosen & (fate < mask + random)), word)
    corrupted = corrupted.masked_fill(chosen & (fate < mask), mask_id)
    return corrupted, ids.masked_fill(~chosen, IGNORE)


def rare_repeats(ids: Tensor, attention_mask: Tensor, rare: float) -> Tensor:
    """Which tokens occur again in their own text and are at most the share `rare` of the batch: names, above all.

    ids, attention_mask: (batch, time) long. Returns (batch, time) bool.
    """
    again = (ids[:, :, None] == ids[:, None, :]).sum(-1) > 1  # (batch, time)
    return again & rare_tokens(ids, attention_mask, rare)


def rare_tokens(ids: Tensor, attention_mask: Tensor, rare: float) -> Tensor:
    """Which tokens are at most the share `rare` of their batch; shapes as in `rare_repeats`."""
    return (ids.flatten().bincount() / attention_mask.sum())[ids] <= rare


BERTS_RATES = {"rate": 0.15, "mask": 0.8, "random": 0.1}


class Masking(OfTokens):
    """The objective of BERT: x′ is the text with some words hidden, x″ is those words.

    tokenizer: a transformers tokenizer with a mask token. repeated: a rate of their own for words that the text
    says twice and that are at most the share `rare` of a batch. Raises ValueError for rates that are not
    probabilities, for `repeated` with whole words, or for a tokenizer without a mask token.
    """

    def __init__(
        self,
        tokenizer: Any,
        rate: float = 0.15,
        mask: float = 0.8,
        random: float = 0.1,
        whole_word: bool = False,
        repeated: float | None = None,
        rare: float = 0.01,
    ):
        check_rates(rate, mask, random)
        check_rates(0 if repeated is None else repeated, mask, random)
        if not (isinstance(rare, int | float) and 0 <= rare <= 1):
            raise ValueError(f"rare is {rare!r}, but it is a share of a batch: give a number from 0 to 1")
        if not isinstance(whole_word, bool):
            raise ValueError(f"whole_word is {whole_word!r}: give true or false")
        if whole_word and repeated is not None:
            raise ValueError("whole words cannot have a rate of their own where they repeat: drop one of the two")
        if tokenizer.mask_token_id is None:
            raise ValueError("masking needs a tokenizer with a mask token, and this one has none")
        self.rates = {"rate": rate, "mask": mask, "random": random}
        self.repeated, self.rare = repeated, rare
        standard = self.rates == BERTS_RATES and not whole_word and repeated is None
        self.floor = "masking" if standard else None
        self.vocabulary = {
            "mask_id": tokenizer.mask_token_id,
            "vocab_size": len(tokenizer),
            "special_ids": sorted(tokenizer.all_special_ids),
        }
        self.word_start = None
        if whole_word:
            tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
            self.word_start = torch.tensor([not token.startswith("##") for token in tokens])

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> Split:
        """Corrupt a batch. ids, attention_mask: (batch, time) long, with [CLS], [SEP] and [PAD] in place."""
        word_start = None
        if self.word_start is not None:
            self.word_start = self.word_start.to(ids.device)
            word_start = self.word_start[ids]
        rates = dict(self.rates)
        if self.repeated is not None:
            again = rare_repeats(ids, attention_mask, self.rare)
            rates["rate"] = torch.where(again, self.repeated, self.rates["rate"])
        corrupted, targets = mask_tokens(ids, generator, **self.vocabulary, **rates, word_start=word_start)
        return Split({"input_ids": corrupted, "attention_mask": attention_mask}, targets)


def check_rates(rate: float | Tensor, mask: float, random: float) -> None:
    """Raise ValueError unless these can be the rates of `mask_tokens`."""
    rates = {"rate": rate, "mask": mask, "random": random}
    for name, value in rates.items():
        if isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, but it is a probability: give a number from 0 to 1")
        if not torch.as_tensor((value >= 0) & (value <= 1)).all():
            raise ValueError(f"{name} is {value}, but it is a probability: give a number from 0 to 1")
    if mask + random > 1 + 1e-9:
        raise ValueError(
            f"mask + random is {mask + random:g}, but both are shares of the chosen tokens: at most 1"
        )
