"""Chapter 4's records of real text: `corpora.annotated` from a random start and from a pre-trained one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..corpora.annotated import JUDGED, TASKS, classes_of, mixed, read
from ..corpora.tinyworld.tasks import Example
from ..finetuning import Batch, Classifier, Tagger, accuracy, fine_tune
from ..models.pretrained import load
from ..objectives import IGNORE
from . import rivals
from .fine_tuning import random_encoder

MODEL = "storybook-bert"
LABELS = 1000  # texts to learn from
STEPS = {"polarity": 160, "rte": 120, "treebank": 160}
RATES = (3e-4, 1e-3, 3e-3)
# The best of RATES for each task and start, from other labels and judged by other texts (record "real-rates").
WAYS = {
    "polarity": {"random": 1e-3, "full": 1e-3},
    "rte": {"random": 3e-4, "full": 1e-3},
    "treebank": {"random": 3e-3, "full": 1e-3},
}
TUNING_SEED = 100


def in_pieces(examples: Sequence[Example], tokenizer: Any, classes: Sequence[Any] = ()) -> tuple[Batch, Tensor]:
    """Examples for a tokenizer that cuts words, and labels: as `as_batch`, a word's tag at its first piece alone.

    What is longer than 128 pieces loses its end, of two texts the longer one.
    """
    second = [list(one.second) for one in examples] if examples[0].second else None
    coded = tokenizer([list(one.first) for one in examples], second, is_split_into_words=True, padding=True,
                      truncation=True, max_length=128, return_tensors="pt")  # fmt: skip
    batch = (coded["input_ids"], coded["attention_mask"], coded["token_type_ids"])
    if isinstance(examples[0].gold, int):
        return batch, torch.tensor([one.gold for one in examples])
    numbers = {tag: number for number, tag in enumerate(classes)}
    labels = torch.full_like(batch[0], IGNORE)
    for row, one in enumerate(examples):
        words = coded.word_ids(row)  # of each piece the number of its word; None for [CLS], [SEP] and [PAD]
        for place, word in enumerate(words):
            if word is not None and word != words[place - 1]:
                labels[row, place] = numbers[one.gold[word]]
    return batch, labels


def learn(task: str, way: str, examples: Sequence[Example], seed: int, steps: int, learning_rate: float) -> nn.Module:
    """A model that has learned the task from `examples`, its encoder from a random start or a pre-trained one."""
    pretrained, tokenizer = load(MODEL)
    torch.manual_seed(seed)
    encoder = pretrained.encoder
    if way == "random":
        encoder = random_encoder(pretrained.config)
    classes = classes_of(task)
    model = (Tagger if task == "treebank" else Classifier)(encoder, len(classes))
    batch, labels = in_pieces(examples, tokenizer, classes)
    fine_tune(model, batch, labels, steps=steps, batch_size=16, learning_rate=learning_rate, seed=seed)
    return model


def judge(model: nn.Module, task: str, examples: Sequence[Example]) -> float:
    """The share of texts, or of words, that the model labels rightly."""
    return round(accuracy(model, *in_pieces(examples, load(MODEL)[1], classes_of(task))), 4)


# For each task, who needs no network.
RIVALS = {
    "polarity": {"majority": rivals.majority, "counted words": rivals.counted_words},
    "rte": {"majority": rivals.majority, "word overlap": rivals.shared_words},
    "treebank": {"usual tags": rivals.usual_tags},
}


def real(_: None, seeds: Iterable[int] = range(3)) -> Iterator[dict]:
    """Every task with three draws of labels, from both starts, and its rivals."""
    for task, seed in product(TASKS, seeds):
        pool, asked = read(task)
        learned = mixed(pool, seed)[:LABELS]
        about = {"task": task, "seed": seed, "labels": len(learned), "judged": len(asked)}
        for way, rival in RIVALS[task].items():
            yield {**about, "way": way, "score": round(rivals.right(rival(learned, asked), asked), 4)}
        for way, rate in WAYS[task].items():
            model = learn(task, way, learned, seed, STEPS[task], rate)
            yield {**about, "way": way, "learning_rate": rate, "score": judge(model, task, asked)}


def real_rates(_: None) -> Iterator[dict]:
    """Every task and start at three learning rates, judged by texts that are neither learned from nor tested on."""
    for task, way, rate in product(TASKS, ("random", "full"), RATES):
        every = mixed(read(task)[0], TUNING_SEED)
        learned, asked = every[:LABELS], every[LABELS:][:JUDGED]
        model = learn(task, way, learned, TUNING_SEED, STEPS[task], rate)
        yield {"task": task, "way": way, "seed": TUNING_SEED, "labels": len(learned), "learning_rate": rate,
               "score": judge(model, task, asked)}
