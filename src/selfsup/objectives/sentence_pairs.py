"""Questions about two sentences: next sentence prediction (Devlin et al. 2019, section 3.1) and sentence order
prediction (Lan et al. 2020, section 3.1), each beside masked words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from . import IGNORE, Split
from .masking import Masking

AS_IT_WAS, CHANGED = 0, 1  # the two answers, numbered as in `transformers`


@dataclass(frozen=True)
class PairSplit(Split):
    """A batch of sentence pairs taken apart: the hidden words, and whether each pair was changed.

    pair: (batch,) long, AS_IT_WAS, CHANGED, or IGNORE for a text without two parts. weight: () how many words one
    pair counts for, so that in the mean over the words of a batch both questions weigh the same.
    """

    pair: Tensor
    weight: Tensor

    def rows(self, which: slice) -> PairSplit:
        """The part of the batch in the rows `which`."""
        return replace(super().rows(which), pair=self.pair[which])


@dataclass(frozen=True)
class Parts:
    """A piece of one row of a batch for each pair: tokens start to start + length - 1 of `row`; all (batch,) long."""

    row: Tensor
    start: Tensor
    length: Tensor

    def where(self, condition: Tensor, other: Parts) -> Parts:
        """These pieces where the condition (batch,) holds, the others elsewhere."""
        return Parts(*(torch.where(condition, a, b) for a, b in zip(vars(self).values(), vars(other).values())))


def sentence_ends(ids: Tensor, marks: Tensor, quote: int | None) -> Tensor:
    """Where a sentence ends: at one of `marks` that is not inside quotation marks. (batch, time) bool.

    ids: (batch, time) long; marks: ids of . ! ?; quote: the id of ", which opens and closes.
    """
    ends = torch.isin(ids, marks)
    return ends if quote is None else ends & ((ids == quote).cumsum(1) % 2 == 0)


def cut_in_two(ends: Tensor, attention_mask: Tensor, generator: Generator | None) -> tuple[Parts, Parts]:
    """Cut [CLS] text [SEP] after one of its sentences but the last, each equally likely.

    ends: (batch, time) bool, where a sentence ends; attention_mask: (batch, time) long. A text of one sentence has
    an empty second part.
    """
    rows, column = torch.arange(len(ends), device=ends.device), torch.arange(ends.shape[1], device=ends.device)
    last = attention_mask.sum(1) - 2  # the text's last token, before [SEP]
    inner = ends & (column < last[:, None]) & (column > 0)
    chance = torch.rand(ends.shape, generator=generator, device=ends.device).masked_fill(~inner, -1)
    cut = torch.where(inner.any(1), chance.argmax(1), last)
    return Parts(rows, torch.ones_like(cut), cut), Parts(rows, cut + 1, last - cut)


def elsewhere(ids: Tensor, second: Parts, groups: Tensor, generator: Generator | None) -> tuple[Parts, Tensor]:
    """For each pair the second part of another one in its group, chosen at random, that reads otherwise.

    ids: (batch, time) long; groups: (batch,) long. Returns the parts, and (batch,) bool: whether there is any.
    """
    column = torch.arange(ids.shape[1], device=ids.device)
    texts = ids.gather(1, (second.start[:, None] + column).clamp(max=ids.shape[1] - 1))
    texts = texts.masked_fill(column >= second.length[:, None], -1)
    same = (texts[:, None] == texts[None]).all(-1)  # (batch, batch): the true next sentence is no negative
    allowed = ~same & (groups[:, None] == groups) & (second.length > 0)
    chance = torch.rand(allowed.shape, generator=generator, device=ids.device).masked_fill(~allowed, -1)
    other = chance.argmax(1)
    return Parts(other, second.start[other], second.length[other]), allowed.any(1)


def truncated(a: Parts, b: Parts, room: int) -> tuple[Parts, Parts]:
    """Both parts, cut at their ends until they fit into `room` tokens: the longer one loses tokens first.

    An odd token is given as the tokenizers of `transformers` give it ("longest_first").
    """
    half = room // 2 + (room % 2) * (a.length > b.length)
    first = a.length.minimum((room - b.length).maximum(half))
    return replace(a, length=first), replace(b, length=b.length.minimum(room - first))


def join_pairs(ids: Tensor, a: Parts, b: Parts, cls: int, sep: int, pad: int) -> dict[str, Tensor]:
    """[CLS] a [SEP] b [SEP], padded: input_ids, attention_mask and token_type_ids, each (batch, time) long.

    The token types (segments) are 0 up to the first [SEP] and 1 after it. An empty b adds nothing to [CLS] a [SEP].
    """
    middle = a.length + 1  # the column of the first [SEP]
    end = middle + b.length + (b.length > 0)
    column = torch.arange(int(end.max()) + 1, device=ids.device)
    second = column > middle[:, None]  # (batch, time)
    row = torch.where(second, b.row[:, None], a.row[:, None])
    place = column - torch.where(second, middle[:, None], 0) - 1
    place = place + torch.where(second, b.start[:, None], a.start[:, None])
    joined = ids[row, place.clamp(0, ids.shape[1] - 1)]
    joined = joined.masked_fill((column == middle[:, None]) | (column == end[:, None]), sep)
    joined = joined.masked_fill(column == 0, cls).masked_fill(column > end[:, None], pad)
    seen = column <= end[:, None]
    return {"input_ids": joined, "attention_mask": seen.long(), "token_type_ids": (second & seen).long()}


class SentencePairs:
    """x is two sentences in a row; x′ shows them, changed or not and with words hidden; x″ is what was done.

    question: "nsp" puts, in half of the pairs, the second sentence of another text in the place of the true one;
    "sop" exchanges the two; None changes nothing and asks for words alone. group: tells the groups, (batch,) numbers,
    of ids (batch, time), when negatives shall come from the same group. longest: tokens of a pair, special ones
    counted. The rest is as in `Masking`. A text of more sentences is cut in two at a random one.
    """

    def __init__(
        self,
        tokenizer: Any,
        question: str | None,
        *,
        longest: int = 128,
        group: Callable[[Tensor], Sequence[int]] | None = None,
        **rates: float,
    ):
        if question not in (None, "nsp", "sop"):
            raise ValueError(f"the question about a pair is {question!r}: choose nsp, sop or None")
        if longest < 5:
            raise ValueError(f"longest is {longest}, but two words with [CLS] and twice [SEP] need 5")
        self.masking = Masking(tokenizer, **rates)
        self.question, self.longest, self.group, self.floor = question, longest, group, None
        vocabulary = tokenizer.get_vocab()
        self.marks = torch.tensor([vocabulary[mark] for mark in ".!?" if mark in vocabulary])
        self.quote = vocabulary.get('"')
        self.special = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id}

    def arrange(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> tuple[dict, Tensor]:
        """The pairs as a model reads them, no word hidden yet, and (batch,) what was done to each."""
        self.marks = self.marks.to(ids.device)
        a, b = cut_in_two(sentence_ends(ids, self.marks, self.quote), attention_mask, generator)
        paired = b.length > 0
        changed = paired & (torch.rand(len(ids), generator=generator, device=ids.device) < 0.5)
        if self.question == "sop":
            a, b = b.where(changed, a), a.where(changed, b)
        elif self.question == "nsp":
            groups = torch.as_tensor(self.group(ids) if self.group else [0] * len(ids), device=ids.device)
            other, found = elsewhere(ids, b, groups, generator)
            changed &= found
            b = other.where(changed, b)
        pair = changed.long().masked_fill(~paired if self.question else torch.ones_like(paired), IGNORE)
        return join_pairs(ids, *truncated(a, b, self.longest - 3), **self.special), pair

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> PairSplit:
        """Arrange a batch in pairs and hide words. ids, attention_mask: (batch, time) long, [CLS] text [SEP]."""
        inputs, pair = self.arrange(ids, attention_mask, generator)
        words = self.masking.split(inputs["input_ids"], inputs["attention_mask"], generator)
        asked = (pair != IGNORE).sum().clamp(min=1)
        weight = (words.targets != IGNORE).sum() / asked
        return PairSplit(inputs | {"input_ids": words.inputs["input_ids"]}, words.targets, pair, weight)

    def logits(self, model: Any, split: Split) -> Tensor:
        """(n, vocab), for the hidden words alone."""
        return self.masking.logits(model, split)

    def pair_logits(self, model: Any, split: PairSplit) -> Tensor:
        """(batch, 2) for each pair: as it was, changed."""
        return model(**split.inputs, positions=torch.zeros_like(split.targets, dtype=torch.bool), pair=True)[1]

    def losses(self, model: Any, split: PairSplit) -> Tensor:
        """(n + pairs,) nats: of each hidden word, and of each pair times its weight."""
        if self.question is None:
            return self.masking.losses(model, split)
        words, pairs = model(**split.inputs, positions=split.targets != IGNORE, pair=True)
        asked = split.pair != IGNORE
        pair_losses = F.cross_entropy(pairs[asked].float(), split.pair[asked], reduction="none")
        return torch.cat([F.cross_entropy(words.float(), split.labels, reduction="none"), split.weight * pair_losses])
