"""Denoising: x′ is a damaged text, x″ what must be written to mend it (BART, T5 and MASS).

Every damage here is decided token by token or span by span for a whole batch at once. The texts stand as
[CLS] text [SEP], padded on the right; special tokens are never touched, and so no damage reaches past its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Generator, Tensor

from ..tokenization import SENTINEL
from . import IGNORE, OfTokens, Split
from .sentence_pairs import sentence_ends

KINDS = ("masking", "deletion", "infilling", "permutation", "rotation", "spans", "mass")
T5_KINDS = ("prefix", "shuffling", "drop")  # with which T5's authors compared their spans
ALONE = {"spans", "mass", "prefix", "drop"}  # of these only what is missing is written, of others the whole text
RATES = {"masking": 0.15, "deletion": 0.15, "infilling": 0.3, "spans": 0.15, "mass": 0.5, "drop": 0.15}  # as is usual


def packed(tokens: Tensor, keep: Tensor, pad: int) -> Tensor:
    """The tokens to keep of each row, moved together to the left; tokens, keep: (batch, time) -> (batch, longest)."""
    order = (~keep).long().argsort(dim=1, stable=True)
    lengths = keep.sum(1, keepdim=True)
    column = torch.arange(int(lengths.max()), device=tokens.device)
    return tokens.gather(1, order)[:, : len(column)].masked_fill(column >= lengths, pad)


def between(before: Tensor, tokens: Tensor) -> Tensor:
    """Row by row, before[0] tokens[0] before[1] tokens[1] …; both (batch, time) -> (batch, 2 time)."""
    return torch.stack([before, tokens], dim=2).flatten(1)


def random_spans(text: Tensor, rate: float, mean: float, least: int,
                 generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Spans of random lengths (Lewis et al. 2020, section 2.2).

    text: (batch, time) bool, True at tokens that may be covered. At each of them a span begins with probability
    rate / mean; its length is `least` and a Poisson number, `mean` on average. One that begins inside another makes
    that longer, so that in a long text the share covered is about 1 - exp(-rate), a little less than `rate`. Where
    `least` is not 0 a text has one span at least: without any, x′ would be a whole text, which in the other damages is
    one to copy or to bring into order. Returns (batch, time) bool: where a span begins, and what is covered; a span of
    length 0 begins and covers nothing.
    """
    dice = torch.rand(text.shape, generator=generator, device=text.device).masked_fill(~text, 1)
    begins = text & (dice < rate / mean)
    if least:
        begins |= text & (dice == dice.amin(1, keepdim=True))
    drawn = torch.poisson(torch.full(text.shape, mean - least, device=text.device), generator=generator).long()
    column = torch.arange(text.shape[1], device=text.device)
    reach = torch.where(begins, column + least + drawn, 0).cummax(1).values  # the first column that is not covered
    before = torch.nn.functional.pad(reach[:, :-1], (1, 0))  # the same, by spans that began earlier
    return begins & (before <= column), text & (reach > column)


def mask_some(ids: Tensor, text: Tensor, rate: float, mask_id: int, generator: Generator | None) -> Tensor:
    """Each token of the text becomes [MASK] with probability `rate`. ids, text: (batch, time)."""
    chosen = text & (torch.rand(ids.shape, generator=generator, device=ids.device) < rate)
    return ids.masked_fill(chosen, mask_id)


def delete(ids: Tensor, text: Tensor, rate: float, pad: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Each token of the text is taken out with probability `rate`, and nothing says where; also what was taken out."""
    return split_off(ids, text, torch.rand(ids.shape, generator=generator, device=ids.device) < rate, pad)


def split_off(ids: Tensor, text: Tensor, gone: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Each text without the tokens that are `gone` (batch, time) bool, and these alone; both [CLS] … [SEP]."""
    kept = ids != pad
    return packed(ids, ~(text & gone) & kept, pad), packed(ids, (~text | gone) & kept, pad)


def cut_in_two(ids: Tensor, text: Tensor, pad: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Each text cut in two between two tokens, at random (Raffel et al. 2020, 3.3.1: prefix language modeling).

    A text of one token is read whole, and nothing but its end is to be written.
    """
    length, column = text.sum(1, keepdim=True), torch.arange(ids.shape[1], device=ids.device)
    place = torch.rand(len(ids), 1, generator=generator, device=ids.device)
    return split_off(ids, text, column > 1 + (place * (length - 1)).long(), pad)


def infill(ids: Tensor, text: Tensor, rate: float, mask_id: int, pad: int, generator: Generator | None,
           mean: float = 3.0) -> Tensor:
    """One [MASK] in the place of each span, whatever its length; one of length 0 puts a [MASK] between two tokens."""
    begins, covered = random_spans(text, rate, mean, 0, generator)
    tokens = between(torch.full_like(ids, mask_id), ids)
    return packed(tokens, between(begins, ~covered & (ids != pad)), pad)


def permute(ids: Tensor, text: Tensor, ends: Tensor, generator: Generator | None) -> Tensor:
    """The sentences of each text in a random order. ends: (batch, time) bool, True at the last token of each."""
    number = (ends & text).long().cumsum(1) - (ends & text).long()  # of each token's sentence
    place = torch.rand(ids.shape, generator=generator, device=ids.device).gather(1, number) + 1
    place = place.masked_fill(~text, 3)
    place[:, 0] = 0  # [CLS] stays first; [SEP] and padding, in their order, come last
    return ids.gather(1, place.argsort(dim=1, stable=True))


def rotate(ids: Tensor, text: Tensor, generator: Generator | None) -> Tensor:
    """Each text begins at a random token, and what was before it comes at the end."""
    column, length = torch.arange(ids.shape[1], device=ids.device), text.sum(1, keepdim=True)
    start = (torch.rand(len(ids), 1, generator=generator, device=ids.device) * length).long()
    source = torch.where(text, (column - 1 + start) % length.clamp(min=1) + 1, column)
    return ids.gather(1, source)


def span_corruption(ids: Tensor, text: Tensor, rate: float, sentinels: Sequence[int], pad: int,
                    generator: Generator | None, mean: float = 3.0) -> tuple[Tensor, Tensor]:
    """A sentinel of its own for each span; to be written is each sentinel with its span (Raffel et al. 2020, 3.1.4).

    sentinels: their ids, first to last. The one after the last span closes what is written, so at most
    len(sentinels) - 1 spans are taken out. Returns both, [CLS] … [SEP] and padded, (batch, time) each.
    """
    begins, covered = random_spans(text, rate, mean, 1, generator)
    number = begins.cumsum(1)  # of the last span that has begun
    begins, covered = begins & (number < len(sentinels)), covered & (number < len(sentinels))
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    last = (ids != pad) & (ids != pad).flip(1).cumsum(1).flip(1).eq(1)  # [SEP]
    marks = torch.tensor(sentinels, device=ids.device)
    mark = marks[begins.cumsum(1) - begins.long()]
    damaged = packed(between(mark, ids), between(begins, ~covered & (ids != pad)), pad)
    written = packed(between(mark, ids), between(begins | last, covered | first | last), pad)
    return damaged, written


def fragment(text: Tensor, share: float, generator: Generator | None) -> Tensor:
    """(batch, time) bool: a stretch of this share of each text, at a random place (Song et al. 2019, section 3.2)."""
    length, column = text.sum(1, keepdim=True), torch.arange(text.shape[1], device=text.device)
    size = (length.double() * share).round().long().clamp(min=1)  # a float32 rounds otherwise than the page
    place = torch.rand(len(text), 1, generator=generator, device=text.device)
    start = 1 + (place * (length - size + 1)).long()
    return text & (column >= start) & (column < start + size)


@dataclass(frozen=True)
class Marks:
    """What a denoising objective must know of a vocabulary: token ids. special: those that no damage touches."""

    mask: int
    pad: int
    special: tuple[int, ...]
    full_stops: tuple[int, ...]
    quote: int | None
    sentinels: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Marks:
        """Those of a tokenizer; raises ValueError when it has no mask token."""
        if tokenizer.mask_token_id is None:
            raise ValueError("denoising needs a tokenizer with a mask token, and this one has none")
        vocabulary = tokenizer.get_vocab()
        sentinels = sorted(i for token, i in vocabulary.items() if token.startswith(SENTINEL))
        special = {*tokenizer.all_special_ids, *sentinels} - {tokenizer.mask_token_id, tokenizer.unk_token_id}
        return cls(tokenizer.mask_token_id, tokenizer.pad_token_id, tuple(special),
                   tuple(vocabulary[mark] for mark in ".!?" if mark in vocabulary), vocabulary.get('"'),
                   tuple(sentinels))


class Denoising(OfTokens):
    """The objective of BART, T5 and MASS: an encoder reads the damaged text, a decoder writes.

    kinds: what is done to a text, each a name of KINDS or T5_KINDS or several joined by "+", done one after another;
    with more than one, each batch draws its own. Those of ALONE cannot be joined, since of them only what is missing is
    written (where nothing is, the end alone); of the others, the whole text. rate: the share that is damaged, by
    default the usual one; permutation, rotation, shuffling and prefix have none and ignore it. Raises ValueError for a
    kind or a rate that cannot be.
    """

    def __init__(self, tokenizer: Any, kinds: str | Sequence[str] = "infilling", rate: float | None = None):
        self.marks = Marks.of(tokenizer)
        self.kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        self.rate, self.floor = rate, None
        names = [name for kind in self.kinds for name in kind.split("+")]
        if strange := [name for name in names if name not in KINDS + T5_KINDS]:
            raise ValueError(f"there is no damage called {strange[0]!r}: choose from {', '.join(KINDS + T5_KINDS)}")
        if alone := [kind for kind in self.kinds if "+" in kind and ALONE & set(kind.split("+"))]:
            raise ValueError(f"{alone[0]!r} joins what stands alone: {', '.join(sorted(ALONE))} write only a part")
        if not names or (rate is not None and not (isinstance(rate, Real) and 0 < rate < 1)):
            raise ValueError(f"kinds is {kinds!r}, rate {rate!r}: give at least one kind, and a rate between 0 and 1")
        if "spans" in names and len(self.marks.sentinels) < 2:
            raise ValueError('spans need sentinels in the vocabulary: load the corpus with the option "sentinels": 16')

    def damage(self, name: str, ids: Tensor, generator: Generator | None) -> Tensor:
        """The damaged text; ids: (batch, time), [CLS] text [SEP] and padding."""
        text, rate = self.text(ids), self.rate or RATES.get(name)
        if name == "masking":
            return mask_some(ids, text, rate, self.marks.mask, generator)
        if name == "deletion":
            return delete(ids, text, rate, self.marks.pad, generator)[0]
        if name == "infilling":
            return infill(ids, text, rate, self.marks.mask, self.marks.pad, generator)
        if name == "shuffling":
            return permute(ids, text, text, generator)  # as if each token were a sentence
        if name == "permutation":
            stops = torch.tensor(self.marks.full_stops, device=ids.device)
            return permute(ids, text, sentence_ends(ids, stops, self.marks.quote), generator)
        if name == "rotation":
            return rotate(ids, text, generator)
        raise ValueError(f"{name!r} is no damage of a whole text: `split` does it")

    def text(self, ids: Tensor) -> Tensor:
        """(batch, time) bool: which tokens may be damaged; [MASK] and [UNK] count as words of the text."""
        return ~torch.isin(ids, torch.tensor(self.marks.special, device=ids.device))

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> Split:
        """Damage a batch. ids, attention_mask: (batch, time) long, [CLS] text [SEP] and padding."""
        drawn = torch.randint(len(self.kinds), (), generator=generator, device=ids.device)
        kind, pad, damaged, written = self.kinds[int(drawn)], self.marks.pad, ids, ids
        text, rate = self.text(ids), self.rate or RATES.get(kind)
        if kind == "spans":
            damaged, written = span_corruption(ids, text, rate, self.marks.sentinels, pad, generator)
        elif kind == "prefix":
            damaged, written = cut_in_two(ids, text, pad, generator)
        elif kind == "drop":
            damaged, written = delete(ids, text, rate, pad, generator)
        elif kind == "mass":
            asked = fragment(text, rate, generator)
            damaged = ids.masked_fill(asked, self.marks.mask)
            targets = ids.masked_fill(~asked, IGNORE)[:, 1:]
            written = ids.masked_fill(text & ~asked, self.marks.mask)  # the decoder sees what it must not ask
        else:
            for name in kind.split("+"):
                damaged = self.damage(name, damaged, generator)
        if kind != "mass":
            targets = written[:, 1:].masked_fill(written[:, 1:] == pad, IGNORE)
        inputs = {"input_ids": damaged, "attention_mask": (damaged != pad).long(), "decoder_input_ids": written[:, :-1]}
        return Split(inputs, targets)
