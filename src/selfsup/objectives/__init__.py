"""The one idea of the course: take x apart into an input x′ and a target x″, and learn to get x″ from x′."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Generator, Tensor
from torch.nn import functional as F

IGNORE = -100  # the target of a position that is not predicted; the default `ignore_index` of torch


@dataclass(frozen=True)
class Split:
    """A batch taken apart: x′ is what the model sees, x″ is what it must say.

    inputs: the model's keyword arguments, each with the batch as its first axis; targets: (batch, time) long
    token ids, or IGNORE where nothing is predicted.
    """

    inputs: dict[str, Tensor]
    targets: Tensor

    @property
    def labels(self) -> Tensor:
        """(n,) the targets that count, row by row."""
        return self.targets[self.targets != IGNORE]

    def rows(self, which: slice) -> Split:
        """The part of the batch in the rows `which`."""
        inputs = {name: tensor[which] for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, targets=self.targets[which])


class Objective(Protocol):
    """What every method of the course is: a way to split x, and the cost of a wrong answer.

    floor: the name of its least loss among `Corpus.floors`, or None where none belongs to the way in which it splits x.
    """

    floor: str | None

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> Split:
        """x → (x′, x″). ids, attention_mask: (batch, time) long. Pure: equal generators, equal splits."""

    def logits(self, model: Any, split: Split) -> Tensor:
        """(n, classes): what the model says at the n targets of `split.labels`."""

    def losses(self, model: Any, split: Split) -> Tensor:
        """(n,) cross-entropy in nats, one for each target."""


class OfTokens:
    """What objectives share whose targets are tokens: the model scores every token of the vocabulary at each."""

    def logits(self, model: Any, split: Split) -> Tensor:
        """(n, vocab), at the targets alone: at a rate of 15%, a seventh of the work."""
        return model(**split.inputs, positions=split.targets != IGNORE)

    def losses(self, model: Any, split: Split) -> Tensor:
        """(n,) nats: minus the log-probability of each hidden token."""
        return F.cross_entropy(self.logits(model, split).float(), split.labels, reduction="none")


OBJECTIVES = ("masking", "pairs", "nsp", "sop", "next_token", "denoising")


def load_objective(name: str, tokenizer: Any, group: Any = None, **options: Any) -> Objective:
    """The objective called `name` for the ids of `tokenizer`; `options` are its rates.

    "pairs" is masking in pairs of sentences; "nsp" and "sop" ask a question about the pair, too. group: where
    negatives of "nsp" come from, see `SentencePairs`; others need none. Raises ValueError for a name, an option or a
    rate that does not exist.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"there is no objective called {name!r}: choose one of {', '.join(OBJECTIVES)}")
    from .denoising import Denoising
    from .masking import Masking
    from .next_token import NextToken
    from .sentence_pairs import SentencePairs

    try:
        alone = {"masking": Masking, "next_token": NextToken, "denoising": Denoising}
        if name in alone:
            return alone[name](tokenizer, **options)
        return SentencePairs(tokenizer, None if name == "pairs" else name, group=group, **options)
    except TypeError as error:
        raise ValueError(f"the objective {name!r} cannot take the options {options}: {error}") from None
