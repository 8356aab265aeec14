"""What one does with a pre-trained encoder: put a small head on it, and learn a task from a few labels.

Whatever the task, labels are numbers of classes and a model gives logits with the classes last, so one line of loss
serves all: a class for a text, a class for each word, and for an answer the places where it starts and ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .corpora.tinyworld.tasks import TASKS
from .models.encoder import Encoder
from .objectives import IGNORE

Batch = tuple[Tensor, ...]  # ids, attention_mask, and for two texts token types; each (texts, time) long


class Classifier(nn.Module):
    """Which of `classes` kinds of text is this? The mean of the encoder's vectors, then one linear layer."""

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """input_ids, attention_mask, token_type_ids: (batch, time) -> logits (batch, classes)."""
        return self.head(mean_vectors(self.encoder, input_ids, attention_mask, token_type_ids))


class Tagger(nn.Module):
    """Which of `classes` kinds of word is this? One linear layer on the vector of each word."""

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """input_ids, attention_mask, token_type_ids: (batch, time) -> logits (batch, time, classes)."""
        return self.head(self.encoder(input_ids, attention_mask, token_type_ids))


class AnswerFinder(nn.Module):
    """Where does the answer start, and where does it end? Two numbers for each word (Devlin et al. 2019, 4.2).

    The place of [CLS] stands for "the text does not say" (4.3).
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """input_ids, attention_mask, token_type_ids: (batch, time) -> logits (batch, 2, time): of start, of end."""
        logits = self.head(self.encoder(input_ids, attention_mask, token_type_ids)).transpose(1, 2)
        return logits.masked_fill(attention_mask[:, None] == 0, -1e4)


def with_head(encoder: Encoder, task: str, classes: Sequence[str]) -> Classifier | Tagger | AnswerFinder:
    """The encoder with a new head for a task of `selfsup.corpora.tinyworld.tasks`, random as torch makes it.

    Raises ValueError for another task.
    """
    if task not in TASKS:
        raise ValueError(f"there is no head for the task {task!r}: choose one of {', '.join(TASKS)}")
    if task == "questions":
        return AnswerFinder(encoder)
    return (Tagger if task == "tags" else Classifier)(encoder, len(classes))


def pad(texts: Sequence[Sequence[int]], tokenizer) -> tuple[Tensor, Tensor]:
    """(ids, attention_mask), both (batch, time) long, of token id lists: [CLS] text [SEP], then [PAD]."""
    rows = [torch.tensor([tokenizer.cls_token_id, *map(int, text), tokenizer.sep_token_id]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def mean_vectors(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor,
                 token_type_ids: Tensor | None = None) -> Tensor:
    """The mean of the encoder's vectors of each text, (batch, width): padding counts for nothing.

    input_ids, attention_mask, token_type_ids: (batch, time).
    """
    seen = attention_mask.unsqueeze(-1)  # (batch, time, 1)
    return (encoder(input_ids, attention_mask, token_type_ids) * seen).sum(1) / seen.sum(1)


def as_batch(examples: Sequence[Any], tokenizer: Any, classes: Sequence[Any] = ()) -> tuple[Batch, Tensor]:
    """Examples (see `selfsup.corpora.tinyworld.tasks`) as a model takes them, and their gold answers as labels.

    Labels: (texts,) for a class of a text, (texts, time) for tags, IGNORE at what is no word, (texts, 2) for start and
    end of the first right answer, 0 where there is none. classes: the tags, in the order of their numbers. Raises
    ValueError for no examples, for a second text in some of them alone, for a tag that is none of the classes, a word
    without a tag, an answer outside of its text, and where tags or answers are asked and a word is not one token.
    """
    if not examples:
        raise ValueError("there are no examples: give at least one")
    if len({bool(one.second) for one in examples}) > 1:
        raise ValueError("some examples have a second text and some have none: give them in two batches")
    pairs = [" ".join(one.second) for one in examples] if examples[0].second else None
    coded = tokenizer([" ".join(one.first) for one in examples], pairs, padding=True, return_tensors="pt")
    batch = (coded["input_ids"], coded["attention_mask"], coded["token_type_ids"])
    if isinstance(examples[0].gold, Integral):
        return batch, torch.tensor([int(one.gold) for one in examples])
    for one, came in zip(examples, batch[1].sum(1).tolist()):
        words, special = len(one.first) + len(one.second), 2 if pairs is None else 3
        if came != words + special:
            raise ValueError(f"{words} words came as {came} tokens, not as {words} and {special} special ones: tags "
                             "and answers need one token a word, so give a word-level tokenizer, as a language's is")
    if pairs is not None:
        for one in examples:
            if wrong := [span for span in one.gold if not 0 <= span[0] < span[1] <= len(one.second)]:
                raise ValueError(f"an answer is at {tuple(wrong[0])} of a text of {len(one.second)} words: give its "
                                 "first word and its last one plus 1, from 0")
        starts = [len(one.first) + 2 for one in examples]  # after [CLS], the question and [SEP]
        spans = [(one.gold[0][0] + at, one.gold[0][1] - 1 + at) if one.gold else (0, 0)
                 for one, at in zip(examples, starts)]
        return batch, torch.tensor(spans)
    numbers = {tag: number for number, tag in enumerate(classes)}
    if strange := {tag for one in examples for tag in one.gold} - set(numbers):
        raise ValueError(f"{', '.join(sorted(strange))}: none of the classes {', '.join(map(str, classes))}")
    if uneven := [one for one in examples if len(one.gold) != len(one.first)]:
        raise ValueError(f"{len(uneven[0].gold)} tags came for {len(uneven[0].first)} words: give one tag a word")
    labels = torch.full_like(batch[0], IGNORE)
    for row, one in zip(labels, examples):
        row[1 : 1 + len(one.gold)] = torch.tensor([numbers[tag] for tag in one.gold])
    return batch, labels


def fine_tune(model: nn.Module, batch: Batch, labels: Tensor, *, steps: int = 60,
              batch_size: int = 20, learning_rate: float = 1e-3, seed: int = 0) -> None:
    """Train in place what of `model` requires a gradient, by AdamW at a rate that falls to zero.

    batch, labels: as from `as_batch`; or (vectors,), for a head alone. Raises ValueError unless each text has a label.
    """
    if not len(batch[0]) == len(labels) > 0 or batch_size < 1:
        raise ValueError(f"{len(batch[0])} texts, {len(labels)} labels and a batch size of {batch_size} came: give one "
                         "text or more, a label for each, and a batch size of at least 1")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    order = torch.empty(0, dtype=torch.long)
    with _mode(model, training=True), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the order, and of dropout, which has no generator of its own
        for _ in range(steps):
            while len(order) < min(batch_size, len(labels)):  # an epoch ends: shuffle anew
                order = torch.cat([order, torch.randperm(len(labels))])
            rows, order = order[:batch_size], order[batch_size:]
            parts, wanted = _take(batch, labels, rows)
            loss = F.cross_entropy(model(*parts).flatten(0, -2), wanted.flatten(), ignore_index=IGNORE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The model trains, or not, and afterwards does what it did before, even after an error."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _take(batch: Batch, labels: Tensor, rows: Tensor) -> tuple[Batch, Tensor]:
    """Some rows of a batch, without the columns in which they have padding alone."""
    if len(batch) == 1:
        return (batch[0][rows],), labels[rows]
    longest = int(batch[1][rows].sum(1).max())
    wanted = labels[rows, :longest] if labels.shape == batch[0].shape else labels[rows]
    return tuple(part[rows, :longest] for part in batch), wanted


@torch.no_grad()
def predict(model: nn.Module, batch: Batch) -> Tensor:
    """The likeliest class of each text, (texts,), of each word, (texts, time), or start and end, (texts, 2)."""
    answers = []
    with _mode(model, training=False):
        for parts in zip(*(part.split(100) for part in batch)):
            logits = model(*parts)
            answers.append(best_spans(logits, parts[2]) if isinstance(model, AnswerFinder) else logits.argmax(-1))
    return torch.cat(answers)


def span_scores(logits: Tensor, token_type_ids: Tensor, longest: int = 8) -> Tensor:
    """Start plus end of every span, (batch, start, end): -inf but inside the second text, or where both are [CLS], 0.

    logits: (batch, 2, time); token_type_ids: (batch, time); longest: words of an answer.
    """
    time = logits.shape[-1]
    scores = logits[:, 0, :, None] + logits[:, 1, None, :]  # (batch, start, end)
    text = token_type_ids.bool()
    text = text & F.pad(text[:, 1:], (0, 1))  # but its last [SEP]
    every = torch.ones(time, time, dtype=torch.bool, device=logits.device)
    allowed = every.triu() & ~every.triu(longest) & text[:, :, None] & text[:, None, :]
    allowed[:, 0, 0] = True
    return scores.masked_fill(~allowed, -torch.inf)


def best_spans(logits: Tensor, token_type_ids: Tensor, longest: int = 8) -> Tensor:
    """The likeliest start and end, (batch, 2), of `span_scores`; both 0 where the text does not say."""
    time = logits.shape[-1]
    best = span_scores(logits, token_type_ids, longest).flatten(1).argmax(1)
    return torch.stack([best // time, best % time], 1)


def accuracy(model: nn.Module, batch: Batch, labels: Tensor) -> float:
    """The share of texts, or of words, whose label `model` tells; labels: (texts,) or (texts, time) long."""
    asked = labels != IGNORE
    return float((predict(model, batch) == labels)[asked].float().mean())


def tag_scores(model: nn.Module, batch: Batch, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """F1 of each tag that occurs, and "macro", their mean; labels: (texts, time) long."""
    from sklearn.metrics import f1_score

    asked = labels != IGNORE
    gold, told = labels[asked].cpu().numpy(), predict(model, batch)[asked].cpu().numpy()
    present = sorted(set(gold.tolist()))
    scores = f1_score(gold, told, labels=present, average=None, zero_division=0.0)
    return {classes[c]: float(s) for c, s in zip(present, scores)} | {"macro": float(scores.mean())}


def score(model: nn.Module, batch: Batch, labels: Tensor, examples: Sequence[Any], classes: Sequence[str]) -> float:
    """One number from 0 to 1 for a task: accuracy of a class, mean F1 of the tags, F1 over words of an answer."""
    if isinstance(model, AnswerFinder):
        return answer_scores(model, batch, examples)["f1"]
    return tag_scores(model, batch, labels, classes)["macro"] if isinstance(model, Tagger) else accuracy(
        model, batch, labels)


def answer_scores(model: nn.Module, batch: Batch, examples: Sequence[Any]) -> dict[str, float]:
    """Exact match and F1 over words, as SQuAD scores them (Rajpurkar et al. 2016, 6.1; no answer: 2018, 4).

    Each is the best over the right answers of a question; articles and marks count for nothing.
    Raises ValueError for another number of examples than of texts in the batch.
    """
    exact, overlap = [], []
    for (start, end), one in zip(predict(model, batch).tolist(), examples, strict=True):
        shift = len(one.first) + 2
        told = one.second[start - shift : end + 1 - shift] if start else ()
        gold = [one.second[a:b] for a, b in one.gold] or [()]
        exact.append(max(_content(told) == _content(g) for g in gold))
        overlap.append(max(word_f1(told, g) for g in gold))
    return {"exact_match": sum(exact) / len(exact), "f1": sum(overlap) / len(overlap)}


def _content(words: Sequence[str]) -> list[str]:
    return [word for word in words if word.isalnum() and word not in ("a", "an", "the")]


def word_f1(told: Sequence[str], gold: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over the words of two answers; 1 when both are empty.

    It is SQuAD's F1 for words as Tinyworld writes them: in lower case, marks apart.
    """
    told, gold = _content(told), _content(gold)
    if not told or not gold:
        return float(told == gold)
    return 2 * sum((Counter(told) & Counter(gold)).values()) / (len(told) + len(gold))


def word_counting_accuracy(batch: Batch, labels: Tensor, test: Batch,
                           answers: Tensor, smoothing: float = 0.1) -> float:
    """The accuracy on `test` of naive Bayes learned from `batch`: the rival that has no network and reads no order.

    batch, test: (ids, attention_mask), both (texts, time); labels, answers: (texts,) long.
    """
    from sklearn.naive_bayes import MultinomialNB

    size = int(max(batch[0].max(), test[0].max())) + 1
    counts = [torch.zeros(len(i), size).scatter_add_(1, i.cpu(), m.cpu().float()).numpy() for i, m in (batch, test)]
    learned = MultinomialNB(alpha=smoothing).fit(counts[0], labels.cpu().numpy())
    return float(learned.score(counts[1], answers.cpu().numpy()))
