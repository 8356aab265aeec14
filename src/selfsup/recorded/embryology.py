"""Chapter 5's records: what a model can do on its way through training, and what word frequency has to do with it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..abilities import CLOZES, PROBES, Cloze, Probed, answers, counting, vectors
from ..corpora import Corpus, load_corpus, tinyworld
from ..corpora.tinyworld.automaton import SPECIAL
from ..corpora.tinyworld.corpus import HELD_OUT_SEED
from ..corpora.tinyworld.spellings import FREQUENCIES, Spellings
from ..corpora.tinyworld.tasks import classes_of
from ..finetuning import with_head
from ..models.bert import MaskedLanguageModel
from ..models.pretrained import load_snapshot, save_pretrained, snapshots
from ..models.shapes import TransformerConfig
from ..objectives.masking import Masking
from ..probing import control_labels, description_length, fit_probe, interval, right, told_by_layer
from ..training import Recipe, train
from .fine_tuning import VALIDATION_SEED, judge, learn, side_by_side

EMBRYO = "tinyworld-bert"  # its recipe is that of all seeds
LEARNED, ASKED = 1200, 800  # examples that a probe learns from, and that judge it
CLOZE = {"words": 1500, "minimal pairs": 600, "facts": 1000}  # of "words": texts
FOR_CONTROL = ("part of speech", "phrase")  # questions whose label a word mostly has by itself
HIDDEN, PROBE_STEPS = 64, 100
FINE_TUNED = ("tags", 64), ("questions", 256)  # a task, and from how many labels
RATES = (1e-3, 3e-3)  # the best for a random start and for a trained one: texts of their own choose
EVERY = 6  # of the snapshots is fine-tuned, counted from the last one, and the first


@cache
def questions(name: str) -> tuple[Probed, Probed]:
    """What a probe learns from, and what judges it: texts drawn for this (a few short ones are trained on, too)."""
    language = tinyworld.load("world")
    return PROBES[name](language, LEARNED, HELD_OUT_SEED + 1), PROBES[name](language, ASKED, HELD_OUT_SEED + 2)


@cache
def cloze(name: str) -> Cloze:
    """What a model's own head is asked."""
    return CLOZES[name](tinyworld.load("world"), CLOZE[name], HELD_OUT_SEED + 3)


def by_group(asked: Cloze, *measures: np.ndarray) -> dict[str, list[float]]:
    """The means of some measures for each group of covered words."""
    return {str(group): [round(float(m[asked.group == group].mean()), 4) for m in measures]
            for group in np.unique(asked.group)}


def word_counts(asked: Cloze) -> np.ndarray:
    """(n,) nats: the loss of who knows how frequent each word is, and reads nothing."""
    share = Spellings(tinyworld.load("world"), "natural").share
    return -np.log(np.maximum(share[asked.real.numpy() - SPECIAL], 1e-6))


def baselines() -> Iterator[dict]:
    """What is reached without the model: by who guesses, who counts words, and who knows the exact rules."""
    for name in PROBES:
        learned, asked = questions(name)
        commonest = int(learned.labels.bincount().argmax())
        yield {"kind": "probe", "question": name, "classes": len(asked.classes),
               "guess": float((asked.labels == commonest).double().mean()),
               "counting": float(counting(learned, asked).mean()),
               "best": None if asked.best is None else float(asked.best.mean())}
    for name in CLOZES:
        asked = cloze(name)
        number = {str(group): int((asked.group == group).sum()) for group in np.unique(asked.group)}
        exact = by_group(asked, asked.best, asked.floor, word_counts(asked))
        yield {"kind": "cloze", "question": name, "groups": {group: [n, *exact[group]] for group, n in number.items()}}


def one_probe(name: str, encoder: Any, seed: int) -> dict[str, list]:
    """A question's probes: accuracy by layer, with intervals; on meaningless labels; the last layer's code."""
    learned, asked = questions(name)
    seen, other, classes = vectors(encoder, learned), vectors(encoder, asked), len(asked.classes)
    told = told_by_layer(seen, learned.labels, other, asked.labels, classes, steps=PROBE_STEPS)
    found = {"linear": [float(one.mean()) for one in told],
             "interval": [interval(one, asked.text.numpy(), draws=500) for one in told]}
    deep = fit_probe(seen[-1], learned.labels, classes, hidden=HIDDEN, steps=PROBE_STEPS, seed=seed)
    found["hidden"] = float(right(deep, other[-1], asked.labels).mean())
    found["compression"] = description_length(seen[-1], learned.labels, classes, steps=PROBE_STEPS)[1]
    if name in FOR_CONTROL:
        words = [one.ids[one.text, one.spans[:, 0, 0]] for one in (learned, asked)]
        without, gold = (control_labels(w, learned.labels, encoder.config.vocab_size, seed) for w in words)
        told = told_by_layer(seen, without, other, gold, classes, steps=PROBE_STEPS)
        found["control"] = [float(one.mean()) for one in told]
    return found


def one_snapshot(job: tuple[str, int, int]) -> dict[str, Any]:
    """Everything asked of one model at one step."""
    folder, seed, step = job
    torch.set_num_threads(1)
    model = load_snapshot(folder, step)
    probes = {name: one_probe(name, model.encoder, seed) for name in PROBES}
    told = {name: by_group(cloze(name), *answers(model, cloze(name))) for name in CLOZES}
    return _rounded({"kind": "snapshot", "seed": seed, "step": step, "probes": probes, "cloze": told})


def one_specialist(job: tuple[str, int, int, str, int]) -> dict[str, Any]:
    """A task of chapter 4, learned from few labels by a model that was trained for so many steps."""
    folder, seed, step, task, labels = job
    torch.set_num_threads(1)
    found = []
    for learning_rate in RATES:
        encoder = load_snapshot(folder, step).encoder
        torch.manual_seed(seed)
        model = with_head(encoder, task, classes_of(task, tinyworld.load("world")))
        learn(model, task, labels, seed, learning_rate)
        found.append((judge(model, task, seed=VALIDATION_SEED, n=300), learning_rate, judge(model, task)))
    _, learning_rate, score = max(found)
    return {"kind": "specialist", "seed": seed, "step": step, "task": task, "labels": labels,
            "chosen_rate": learning_rate, "score": score}


def fine_tuned(steps: list[int]) -> list[int]:
    """Which snapshots are fine-tuned."""
    return sorted({0, *steps[::-EVERY]})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def embryology(recipe: Recipe, seeds: tuple[int, ...], kept: Path | None = None) -> Iterator[dict]:
    """All questions to all snapshots of one run a seed; kept: a folder that keeps trained models."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [(kept or Path(temporary)) / str(seed) for seed in seeds]
        corpus = None
        for seed, folder in zip(seeds, folders):
            mine, made = dataclasses.replace(recipe, seed=seed), folder / "recipe.json"
            if made.is_file() and Recipe.from_json(made.read_text(encoding="utf-8")) != mine:
                raise ValueError(f"{folder} holds a run of another recipe: choose another folder")
            if not (folder / "model.safetensors").is_file():
                corpus = corpus or load_corpus(recipe.corpus, **recipe.corpus_options)
                pretrained(corpus, mine, folder)
        yield from baselines()
        steps = {folder: [*snapshots(folder)] for folder in folders}
        jobs = [(str(folder), seed, step) for seed, folder in zip(seeds, folders) for step in steps[folder]]
        yield from side_by_side(one_snapshot, jobs, len(jobs) // (2 * len(seeds)) or 1)
        few = [(*job, *task) for task in FINE_TUNED for job in jobs if job[2] in fine_tuned(steps[Path(job[0])])]
        yield from side_by_side(one_specialist, few, 6)


def pretrained(corpus: Corpus, recipe: Recipe, folder: Path) -> None:
    """Train a model as `recipe` says, and keep its snapshots in `folder`, with what `load_snapshot` needs."""
    torch.manual_seed(recipe.seed)
    shape = dict(recipe.model)
    model = MaskedLanguageModel(TransformerConfig.named(shape.pop("shape"), len(corpus.tokenizer), **shape))
    objective = Masking(corpus.tokenizer, **recipe.objective_options)
    train(model, objective, corpus, recipe, folder, resume=folder.is_dir(), progress=False, device="cpu")
    save_pretrained(model.eval(), corpus.tokenizer, folder, half=True)


# Two thirds of tinyworld-bert's layers, half of its width, and no phases, since words told twice are not the question.
SPELLED = Recipe(
    objective_options={"rate": 0.3, "mask": 1.0, "random": 0.0},
    corpus_options={"n": 200_000},
    model={"shape": "village-bert", "dropout": 0.0, "init_std": 0.08},
    steps=2000,
    batch_size=64,
    learning_rate=3e-3,
    matrix_learning_rate=0.02,
    weight_decay=0.3,
    warmup=0.02,
    decay=0.5,
    evaluate_every=2000,
    evaluation_texts=200,
    snapshots=20,
)


def one_run_spelled(job: tuple[str, int, Recipe]) -> list[dict]:
    """A model of one kind of frequencies and one seed: its answers after each snapshot."""
    frequencies, seed, recipe = job
    torch.set_num_threads(1)
    spelled, asked = Spellings(tinyworld.load("world"), frequencies), cloze("words")
    corpus = spelled.corpus(load_corpus("tinyworld", **recipe.corpus_options))
    ids = torch.from_numpy(spelled.spell(asked.ids.numpy(), 7))
    asked, found = dataclasses.replace(asked, ids=ids), []
    with tempfile.TemporaryDirectory() as folder:
        pretrained(corpus, dataclasses.replace(recipe, seed=seed), Path(folder))
        for step in snapshots(folder):
            told = by_group(asked, *answers(load_snapshot(folder, step), asked, spelled.by_word))
            found.append({"kind": "snapshot", "frequencies": frequencies, "seed": seed, "step": step, "groups": told})
    return found


def frequencies(recipe: Recipe, seeds: tuple[int, ...] = (0, 1, 2)) -> Iterator[dict]:
    """When words of each part of speech are learned, with natural, equal and exchanged frequencies."""
    language, asked = tinyworld.load("world"), cloze("words")
    for kind in FREQUENCIES:
        spelled = Spellings(language, kind)
        share = (spelled.share / spelled.ways)[asked.real.numpy() - SPECIAL]
        median = {str(group): float(np.median(share[asked.group == group])) for group in np.unique(asked.group)}
        yield {"kind": "spellings", "frequencies": kind, "spellings": int(spelled.ways.sum()), "median": median}
    yield {"kind": "exact", "groups": by_group(asked, asked.best, asked.floor, word_counts(asked))}
    jobs = [(kind, seed, recipe) for seed, kind in product(seeds, FREQUENCIES)]
    for runs in side_by_side(one_run_spelled, jobs):
        yield from runs
