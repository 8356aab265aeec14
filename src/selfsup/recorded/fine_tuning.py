"""Chapter 4's records: four tasks from few labels to many, from a random start and from a pre-trained one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters import START, add_adapters, save_adapter
from ..corpora import tinyworld
from ..corpora.tinyworld.tasks import TASKS, classes_of
from ..finetuning import as_batch, fine_tune, score, with_head
from ..models.encoder import Encoder
from ..models.pretrained import CHECKPOINTS, load
from ..models.shapes import TransformerConfig
from ..objectives import IGNORE
from .rivals import counted_words, known_answers, mean_tag_f1, mean_word_f1, right, said_word, usual_tags

LABELS = (16, 64, 256, 1024, 4096)
STEPS = {16: 200, 64: 200, 256: 300, 1024: 500, 4096: 1000}
# Where learning starts and what of it learns, with the learning rate that is best at 256 labels (record "tuning"). But
# adapters have the next one: 0.01, the best, is so near to too much that it failed at 4,096.
WAYS = {"random": 1e-3, "full": 3e-3, "adapter": 3e-3, "frozen": 3e-2}
LONG_FULL = 1e-3  # of all weights above 256 labels: at 4,096, a seed of sentiment failed with 0.003
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
RIVALS = {  # who needs no network, and how the answers are scored
    "sentiment": (counted_words, right),
    "tags": (usual_tags, mean_tag_f1),
    "entailment": (said_word, right),
    "questions": (known_answers, mean_word_f1),
}
LONGEST = 40  # words of a text
RANK = 8  # of the adapters
TEST_SEED, TUNING_SEED, VALIDATION_SEED = 50_000, 100, 70_000


@cache
def task_examples(task: str, n: int, seed: int) -> list:
    """n examples of a task of the world."""
    return TASKS[task](tinyworld.load("world"), n, seed, longest=LONGEST)


def rate(way: str, labels: int) -> float:
    """The learning rate of a way to learn from so many labels."""
    return LONG_FULL if way == "full" and labels > 256 else WAYS[way]


def random_encoder(config: TransformerConfig) -> Encoder:
    """An encoder of this shape with random weights as small as BERT's at its start, which drops nothing out."""
    return Encoder(dataclasses.replace(config, dropout=0.0, init_std=0.02))


def start(way: str, task: str, seed: int) -> nn.Module:
    """A model for the task before its first step: what will learn requires a gradient.

    Raises ValueError for a way that is none of WAYS.
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r} to learn: choose one of {', '.join(WAYS)}")
    with torch.random.fork_rng(devices=[]):
        pretrained, _ = load(START)
        torch.manual_seed(seed)  # of the new weights
        encoder = random_encoder(pretrained.config) if way == "random" else pretrained.encoder
        model = with_head(encoder, task, classes_of(task, tinyworld.load("world")))
        if way == "frozen":
            model.encoder.requires_grad_(False)
        if way == "adapter":
            add_adapters(model.encoder, RANK)
    return model


def prepared(task: str, n: int, seed: int, alphabet: int | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
    """n labelled texts as a model takes them; alphabet: every word stands for another one (see `renamed`)."""
    language = tinyworld.load("world")
    batch, gold = as_batch(task_examples(task, n, seed), language.tokenizer, classes_of(task, language))
    if alphabet is not None:
        batch = (renamed(batch[0], language.tokenizer.all_special_ids, len(language.tokenizer), alphabet), *batch[1:])
    return batch, gold


def renamed(ids: Tensor, special_ids: list[int], words: int, seed: int = 0) -> Tensor:
    """The same texts in another alphabet: every word stands for another one, always the same; (batch, time) long."""
    table = torch.arange(words)
    ordinary = torch.tensor(sorted(set(range(words)) - set(special_ids)))
    table[ordinary] = ordinary[torch.randperm(len(ordinary), generator=torch.Generator().manual_seed(seed))]
    return table[ids]


def learn(model: nn.Module, task: str, labels: int, seed: int, learning_rate: float,
          alphabet: int | None = None) -> None:
    """Fine-tune the model, in place."""
    batch, gold = prepared(task, labels, seed, alphabet)
    fine_tune(model, batch, gold, steps=STEPS[labels], batch_size=16, learning_rate=learning_rate, seed=seed)


def judge(model: nn.Module, task: str, alphabet: int | None = None, seed: int = TEST_SEED, n: int = 1000) -> float:
    """The model's score on n texts that it has not learned from."""
    classes = classes_of(task, tinyworld.load("world"))
    return round(score(model, *prepared(task, n, seed, alphabet), task_examples(task, n, seed), classes), 4)


def one_score(kind: tuple[str, str, int, int, float]) -> dict[str, Any]:
    """Learn one task in one way, from so many labels, at one rate."""
    task, way, seed, labels, learning_rate = kind
    if way == "rival":
        return one_rival(task, seed, labels)
    torch.set_num_threads(1)
    model = start(way, task, seed)
    learn(model, task, labels, seed, learning_rate)
    judged = judge(model, task, seed=VALIDATION_SEED if seed == TUNING_SEED else TEST_SEED)
    return {"task": task, "way": way, "seed": seed, "labels": labels, "learning_rate": learning_rate, "score": judged}


def one_rival(task: str, seed: int, labels: int, n: int = 1000) -> dict[str, Any]:
    """Learn one task by counting, from the same labels and judged by the same texts."""
    (rival, scored), asked = RIVALS[task], task_examples(task, n, TEST_SEED)
    told = rival(task_examples(task, labels, seed), asked)
    return {"task": task, "way": "rival", "seed": seed, "labels": labels, "score": round(scored(told, asked), 4)}


def side_by_side(work: Any, kinds: list, together: int = 1) -> Iterator[dict]:
    """As many pieces of work at a time as there are cores; so many in a row share a process, and its examples."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(work, kinds, chunksize=together)


def tuning(_: None) -> Iterator[dict]:
    """Each way to learn at five learning rates, from 256 labels and judged by texts that no other record uses."""
    yield from side_by_side(one_score, [*product(TASKS, WAYS, [TUNING_SEED], [256], RATES)], len(RATES))


def curves(_: None) -> Iterator[dict]:
    """Every task and way, and who needs no network, with three seeds, from each number of labels."""
    ways = [*WAYS, "rival"]
    kinds = [(task, way, seed, n, rate(way, n) if way in WAYS else 0.0)  # who counts has no rate
             for task, seed, way, n in product(TASKS, range(3), ways, LABELS)]
    yield from side_by_side(one_score, kinds, len(ways) * len(LABELS))


def another_alphabet(kind: tuple[str, str, int]) -> dict[str, Any]:
    """Learn a task whose words are all renamed, so that nothing which was learned about a word is of use."""
    task, way, seed = kind
    torch.set_num_threads(1)
    model = start(way, task, seed)
    learn(model, task, 256, seed, rate(way, 256), alphabet=seed)
    return {"kind": "alphabet", "task": task, "way": way, "seed": seed, "labels": 256,
            "score": judge(model, task, alphabet=seed)}


@torch.no_grad()
def loss_of(model: nn.Module, batch: tuple[Tensor, ...], labels: Tensor) -> float:
    """Mean cross-entropy in nats of a fine-tuned model."""
    return float(F.cross_entropy(model(*batch).flatten(0, -2), labels.flatten(), ignore_index=IGNORE))


def along(weights: list[Tensor], seed: int) -> list[Tensor]:
    """A random direction in which each row of a matrix is as long as that row of the weights (Li et al. 2018, 4).

    Biases and gains stay as they are, as there.
    """
    generator, direction = torch.Generator().manual_seed(seed), []
    for w in weights:
        d = torch.randn(w.shape, generator=generator)
        direction.append(d * (w.norm(dim=-1, keepdim=True) / d.norm(dim=-1, keepdim=True)) * (w.ndim > 1))
    return direction


def length(weights: list[Tensor]) -> float:
    """The Euclidean length of many tensors taken as one vector."""
    return float(sum(w.square().sum() for w in weights).sqrt())


def landscape(kind: tuple[str, str, int]) -> dict[str, Any]:
    """Loss on the 256 texts that were learned from, and on others: around the weights, and from the start to them.

    moved, from the start to the end: the distance, of all weights, and the share of their own length by which the
    matrices inside the blocks have changed. path: [place on the line, loss, loss on other texts] a row. around: the
    same after random steps, by the share of the matrices' length; around_length: by the step's own length.
    """
    task, way, seed = kind
    torch.set_num_threads(1)
    model, learned = start(way, task, seed).eval(), prepared(task, 256, seed)
    parameters = [*model.parameters()]
    matrix = [name.startswith("encoder.blocks") and p.ndim > 1 for name, p in model.named_parameters()]
    begun = [p.detach().clone() for p in parameters]
    learn(model, task, 256, seed, WAYS[way])
    unseen = prepared(task, 300, TEST_SEED)
    ended = [p.detach().clone() for p in parameters]

    def losses(step: float, direction: list[Tensor], where: list[Tensor]) -> tuple[float, float]:
        with torch.no_grad():
            for p, w, d in zip(parameters, where, direction):
                p.copy_(w + step * d)
        return loss_of(model, *learned), loss_of(model, *unseen)

    line, directions = [end - begin for begin, end in zip(begun, ended)], [along(ended, number) for number in range(5)]

    def after(step: float) -> list[float]:
        return np.mean([losses(sign * step, way, ended) for way in directions for sign in (-1, 1)], 0).tolist()

    inside = [length([w for w, kept in zip(part, matrix) if kept]) for part in (line, begun)]
    return {"kind": "landscape", "task": task, "way": way, "seed": seed,
            "moved": {"distance": length(line), "share of the blocks' matrices": inside[0] / inside[1]},
            "path": [[float(t), *losses(t, line, begun)] for t in np.linspace(-0.5, 2, 11)],
            "around": [[step, *after(step)] for step in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)],
            "around_length": [[step, *after(step / length(directions[0]))] for step in (0.0, 2.0, 5.0, 10.0, 20.0)]}


def why(_: None) -> Iterator[dict]:
    """Two pieces of evidence that take minutes: renamed words, and the loss around what was learned."""
    yield from side_by_side(another_alphabet, [*product(TASKS, ("random", "full"), range(3))], 6)
    yield from side_by_side(landscape, [*product(("sentiment", "questions"), ("random", "full"), range(3))], 6)


def adapters(_: None) -> Iterator[dict]:
    """Learn the four adapters that are shipped beside the model, and write them."""
    yield from side_by_side(one_adapter, list(TASKS))


def one_adapter(task: str, labels: int = 4096, seed: int = 0) -> dict[str, Any]:
    """Learn one task's adapter and write its file."""
    torch.set_num_threads(1)
    model = start("adapter", task, seed)
    learn(model, task, labels, seed, WAYS["adapter"])
    about = {"task": task, "rank": RANK, "classes": classes_of(task, tinyworld.load("world")), "labels": labels}
    save_adapter(model, CHECKPOINTS / START / "adapters" / f"{task}.safetensors", **about)
    return {"task": task, "seed": seed, "labels": labels, "score": judge(model, task)}
