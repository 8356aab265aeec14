"""Chapter 4's records: the four tasks from few labels to many, from a random start and from a pre-trained one."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from torch import nn

from ..adapters import add_adapters, save_adapter
from ..corpora import tinyworld
from ..corpora.tinyworld.tasks import TASKS, classes_of
from ..finetuning import as_batch, fine_tune, score, with_head
from ..models.encoder import Encoder
from ..models.pretrained import CHECKPOINTS, load

LABELS = (16, 64, 256, 1024, 4096)
STEPS = {16: 300, 64: 300, 256: 300, 1024: 600, 4096: 1200}
# Where learning starts and what of it learns, and the learning rate, the best of three for 256 labels.
WAYS = {"random": 1e-3, "full": 1e-3, "adapter": 5e-3, "frozen": 1e-2}
LONGEST = 40  # words of a text
RANK = 8  # of the adapters
TEST_SEED = 50_000


@cache
def task_examples(task: str, n: int, seed: int) -> list:
    """n examples of a task of the world; the first ones of a seed are the same whatever n."""
    return TASKS[task](tinyworld.load("world"), n, seed, longest=LONGEST)


def start(way: str, task: str, seed: int) -> nn.Module:
    """A model for the task before its first step: what will learn requires a gradient."""
    pretrained, _ = load("tinyworld-bert")
    torch.manual_seed(seed)
    encoder = pretrained.encoder
    if way == "random":
        encoder = Encoder(dataclasses.replace(pretrained.config, dropout=0.0, init_std=0.02))  # as BERT begins
    model = with_head(copy.deepcopy(encoder), task, classes_of(task, tinyworld.load("world")))
    if way == "frozen":
        model.encoder.requires_grad_(False)
    if way == "adapter":
        add_adapters(model.encoder, RANK)
    return model


def learn(model: nn.Module, task: str, labels: int, seed: int, learning_rate: float, **changes: Any) -> None:
    """Fine-tune the model, in place, on so many labelled texts."""
    language = tinyworld.load("world")
    learned = as_batch(task_examples(task, labels, seed), language.tokenizer, classes_of(task, language))
    fine_tune(model, *learned, **{"steps": STEPS[labels], "batch_size": 16, "learning_rate": learning_rate,
                                  "seed": seed} | changes)


def judge(model: nn.Module, task: str, n: int = 1000) -> float:
    """The model's score on n texts that no seed has learned from."""
    language, asked = tinyworld.load("world"), task_examples(task, n, TEST_SEED)
    return score(model, *as_batch(asked, language.tokenizer, classes_of(task, language)), asked,
                 classes_of(task, language))


def one_curve(kind: tuple[str, str, int], labels: tuple[int, ...] = LABELS) -> list[dict]:
    """The scores of one task, one start and one seed, at each number of labels."""
    task, way, seed = kind
    torch.set_num_threads(1)
    runs = []
    for n in labels:
        model = start(way, task, seed)
        learn(model, task, n, seed, WAYS[way])
        runs.append({"task": task, "way": way, "seed": seed, "labels": n, "score": round(judge(model, task), 4)})
    return runs


def curves(seeds: tuple[int, ...], steps: int | None = None) -> Iterator[dict]:
    """Every task, start, seed and number of labels, as many side by side as there are cores."""
    kinds = list(product(TASKS, WAYS, seeds))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for runs in pool.map(partial(one_curve), kinds):
            yield from runs


def adapters(labels: int = 4096, seed: int = 0) -> Iterator[dict]:
    """Learn the four adapters that are shipped beside tinyworld-bert, and write them."""
    for task in TASKS:
        model = start("adapter", task, seed)
        learn(model, task, labels, seed, WAYS["adapter"])
        about = {"task": task, "rank": RANK, "classes": classes_of(task, tinyworld.load("world")), "labels": labels}
        save_adapter(model, CHECKPOINTS / "tinyworld-bert" / "adapters" / f"{task}.safetensors", **about)
        yield {"task": task, "labels": labels, "score": round(judge(model, task), 4)}
