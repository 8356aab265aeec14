"""Sentences with one word left out, which any reader of children's classics fills in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Cloze:
    """A sentence with one [MASK], the words that fit it, and what one must know to find them."""

    category: str
    sentence: str
    answers: tuple[str, ...]


def cloze() -> tuple[Cloze, ...]:
    """The sentences of cloze.csv, written for this course."""
    with open(Path(__file__).with_name("cloze.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Cloze(row["category"], row["sentence"], tuple(row["answers"].split("|"))) for row in rows)


def cloze_accuracy(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """How a masked language model fills in the sentences: one row a category, and "all" as the last row.

    Keys: category, n (sentences), top1 and top5 (the share with an accepted answer among the first 1 and 5),
    probability (the mean that the accepted answers get together). Answers that the tokenizer splits do not
    count; raises ValueError when a sentence is left without any.
    """
    import torch

    vocab = tokenizer.get_vocab()
    scores: dict[str, list[tuple[bool, bool, float]]] = {}
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        for item in cloze():
            answers = [vocab[answer] for answer in item.answers if answer in vocab]
            if not answers:
                raise ValueError(f"no token of this tokenizer answers {item.sentence!r}: use an English one")
            ids = torch.tensor([tokenizer(item.sentence)["input_ids"]], device=device)
            with torch.inference_mode():
                output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            logits = getattr(output, "logits", output)[ids == tokenizer.mask_token_id][0].float()
            best = logits.topk(5).indices.tolist()
            probability = float(logits.softmax(-1)[answers].sum())
            scores.setdefault(item.category, []).append(
                (best[0] in answers, not set(best).isdisjoint(answers), probability)
            )
    finally:
        model.train(training)
    scores["all"] = [score for found in scores.values() for score in found]
    rows = []
    for category, found in scores.items():
        top1, top5, probability = (sum(column) / len(found) for column in zip(*found, strict=True))
        rows.append(
            {"category": category, "n": len(found), "top1": top1, "top5": top5, "probability": probability}
        )
    return rows
