"""The one idea of the course: take x apart into an input x′ and a target x″, and learn to get x″ from x′."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Generator, Tensor

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

    standard: whether it splits x as its paper does, the case for which a corpus may know the floor.
    """

    standard: bool

    def split(self, ids: Tensor, attention_mask: Tensor, generator: Generator | None) -> Split:
        """x → (x′, x″). ids, attention_mask: (batch, time) long. Pure: equal generators, equal splits."""

    def logits(self, model: Any, split: Split) -> Tensor:
        """(n, classes): what the model says at the n targets of `split.labels`."""

    def losses(self, model: Any, split: Split) -> Tensor:
        """(n,) cross-entropy in nats, one for each target."""


OBJECTIVES = ("masking", "pairs", "nsp", "sop")


def load_objective(name: str, tokenizer: Any, group: Any = None, **options: Any) -> Objective:
    """The objective called `name` for the ids of `tokenizer`; `options` are its rates.

    "pairs" is masking in pairs of sentences; "nsp" and "sop" ask a question about the pair, too. group: where
    negatives of "nsp" come from, see `SentencePairs`; others need none. Raises ValueError for a name, an option or a
    rate that does not exist.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"there is no objective called {name!r}: choose one of {', '.join(OBJECTIVES)}")
    from .masking import Masking
    from .sentence_pairs import SentencePairs

    try:
        if name == "masking":
            return Masking(tokenizer, **options)
        return SentencePairs(tokenizer, None if name == "pairs" else name, group=group, **options)
    except TypeError as error:
        raise ValueError(f"the objective {name!r} cannot take the options {options}: {error}") from None
