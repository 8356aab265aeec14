"""Chapter 4's records: the four tasks from few labels to many, from a random start and from a pre-trained one."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from multiprocessing import get_context

import numpy as np
import torch
from torch import nn

from ..adapters import add_adapters, save_adapter
from ..corpora import tinyworld
from ..corpora.tinyworld.tasks import TASKS, Example, classes_of
from ..finetuning import as_batch, fine_tune, score, with_head
from ..models.encoder import Encoder
from ..models.pretrained import CHECKPOINTS, load

LABELS = (16, 64, 256, 1024, 4096)
STEPS = {16: 150, 64: 200, 256: 300, 1024: 400, 4096: 600}
# Where learning starts and what of it learns, with the learning rates that `tuning` tries: the first is used.
WAYS = {"random": (1e-3, 3e-4, 3e-3), "full": (3e-3, 1e-3, 1e-2), "adapter": (5e-3, 2e-3, 1e-2),
        "frozen": (3e-2, 1e-2, 1e-1)}
LONGEST = 40  # words of a text
RANK = 8  # of the adapters
TEST_SEED = 50_000


@cache
def task_examples(task: str, n: int, seed: int, alphabet: bool = False) -> list:
    """n examples of a task of the world. alphabet: every word is exchanged for one that has nothing to do with it."""
    language = tinyworld.load("world")
    examples = TASKS[task](language, n, seed, longest=LONGEST)
    if not alphabet:
        return examples
    other = dict(zip(language.words, np.random.default_rng(0).permutation(language.words).tolist()))
    return [Example(tuple(other[w] for w in e.first), tuple(other[w] for w in e.second), e.gold) for e in examples]


def start(way: str, task: str, seed: int) -> nn.Module:
    """A model for the task before its first step: what will learn requires a gradient."""
    pretrained, _ = load("tinyworld-bert")
    torch.manual_seed(seed)
    encoder = copy.deepcopy(pretrained.encoder)
    if way == "random":
        encoder = Encoder(dataclasses.replace(pretrained.config, dropout=0.0, init_std=0.02))  # as BERT begins
    if way == "shuffled":
        with torch.no_grad():
            for p in encoder.parameters():  # the same numbers in each matrix, at other places
                p.copy_(p.flatten()[torch.randperm(p.numel())].view_as(p))
    model = with_head(encoder, task, classes_of(task, tinyworld.load("world")))
    if way == "frozen":
        model.encoder.requires_grad_(False)
    if way == "adapter":
        add_adapters(model.encoder, RANK)
    return model


def learn(model: nn.Module, task: str, labels: int, seed: int, learning_rate: float, alphabet: bool = False,
          of: int = max(LABELS)) -> None:
    """Fine-tune the model, in place, on the first `labels` of so many labelled texts."""
    language, examples = tinyworld.load("world"), task_examples(task, of, seed, alphabet)[:labels]
    learned = as_batch(examples, language.tokenizer, classes_of(task, language))
    fine_tune(model, *learned, steps=STEPS[labels], batch_size=16, learning_rate=learning_rate, seed=seed)


def judge(model: nn.Module, task: str, alphabet: bool = False, n: int = 1000) -> float:
    """The model's score on n texts that no seed has learned from."""
    language, asked = tinyworld.load("world"), task_examples(task, n, TEST_SEED, alphabet)
    classes = classes_of(task, language)
    return score(model, *as_batch(asked, language.tokenizer, classes), asked, classes)


def one(task: str, way: str, seed: int, labels: int, learning_rate: float) -> dict:
    """One task learned from one start, on one core, and its score. The way "alphabet" is "full" in other words."""
    torch.set_num_threads(1)
    alphabet = way == "alphabet"
    model = start("full" if alphabet else way, task, seed)
    learn(model, task, labels, seed, learning_rate, alphabet)
    kind = {"task": task, "way": way, "seed": seed, "labels": labels, "learning_rate": learning_rate}
    return kind | {"score": round(judge(model, task, alphabet), 4)}


def side_by_side(kinds: list[tuple]) -> Iterator[dict]:
    """What `one` finds for each of `kinds`, in their order, as many at a time as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        yield from pool.map(one, *zip(*kinds))


def tuning(seed: int = 100, labels: int = 256) -> Iterator[dict]:
    """Every task and start with three learning rates, on texts that `curves` does not learn from."""
    yield from side_by_side([(t, way, seed, labels, rate) for t, way in product(TASKS, WAYS) for rate in WAYS[way]])


def curves(seeds: tuple[int, ...]) -> Iterator[dict]:
    """Every task, start, seed and number of labels."""
    kinds = product(TASKS, seeds, WAYS, LABELS)
    yield from side_by_side([(task, way, seed, n, WAYS[way][0]) for task, seed, way, n in kinds])


def why(seeds: tuple[int, ...]) -> Iterator[dict]:
    """What a pre-trained start is worth when it is of other words, and when its numbers stand at other places."""
    kinds = product(TASKS, ("alphabet", "shuffled"), seeds, (64, 1024))
    yield from side_by_side([(task, way, seed, n, WAYS["full"][0]) for task, way, seed, n in kinds])


def adapters(labels: int = 4096, seed: int = 0) -> Iterator[dict]:
    """Learn the four adapters that are shipped beside tinyworld-bert, and write them."""
    for task in TASKS:
        model = start("adapter", task, seed)
        learn(model, task, labels, seed, WAYS["adapter"][0])
        about = {"task": task, "rank": RANK, "classes": classes_of(task, tinyworld.load("world")), "labels": labels}
        save_adapter(model, CHECKPOINTS / "tinyworld-bert" / "adapters" / f"{task}.safetensors", **about)
        yield {"task": task, "labels": labels, "score": round(judge(model, task), 4)}
