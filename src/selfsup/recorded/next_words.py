"""Chapter 7's records: who came before the Transformer, and what more weights and more text buy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn

from ..corpora import Corpus, load_corpus
from ..finetuning import pad
from ..models.decoder import LanguageModel
from ..models.predecessors import NGram, RecurrentLanguageModel
from ..models.shapes import TransformerConfig
from ..objectives.next_token import NextToken
from ..training import Recipe, evaluate, train
from .fine_tuning import side_by_side

WORDS = Recipe(
    objective="next_token",
    corpus_options={"n": 512_000},  # no run reads a text twice
    model={"layers": 2, "width": 64, "heads": 4, "feed_forward": 256, "segments": 0, "dropout": 0.0,
           "norm_eps": 1e-5, "init_std": 0.08},
    steps=2000,
    batch_size=64,
    warmup=0.02,
    weight_decay=0.1,
    evaluate_every=500,
    evaluation_texts=500,
)
LONGEST_PAST = 6  # tokens of an n-gram
SIZES = (1, 16), (1, 32), (2, 32), (2, 48), (2, 64), (3, 64), (3, 96), (3, 128), (4, 128)  # layers, width
STEPS = 125, 250, 500, 1000, 2000, 4000  # of the model of STEPPED
STEPPED = 3, 64
REPEATED = 64 * 2000  # width times steps
RECURRENT = {"layers": 2, "width": 64}
BY_SCHEME = {"Transformer": LanguageModel, "recurrent": RecurrentLanguageModel}


@cache
def corpus_of(n: int) -> Corpus:
    """The world in n texts, drawn once for all runs of a process."""
    return load_corpus("tinyworld", n=n)


def sized(recipe: Recipe, layers: int, width: int) -> Recipe:
    """The recipe with a model of this depth and width, whose heads are 16 wide."""
    shape = {"layers": layers, "width": width, "heads": width // 16, "feed_forward": 4 * width}
    return dataclasses.replace(recipe, model={**recipe.model, **shape})


def one_run(job: tuple[str, Recipe]) -> dict[str, Any]:
    """A model of one kind, trained as the recipe says: what it is, and what it pays for a held-out token."""
    kind, recipe = job
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    corpus = corpus_of(recipe.corpus_options["n"])
    model = BY_SCHEME[kind](TransformerConfig(len(corpus.tokenizer), **recipe.model))
    log = train(model, NextToken(corpus.tokenizer), corpus, recipe, progress=False, device="cpu").records
    end = log[-1]
    return {"model": kind, "seed": recipe.seed, "layers": recipe.model["layers"], "width": recipe.model["width"],
            "steps": recipe.steps, "tokens": end["tokens"], **weights(model), "loss": end["held_out"],
            "accuracy": end["accuracy"],
            "log": [[record["step"], round(record["held_out"], 5)] for record in log if "held_out" in record]}


def weights(model: nn.Module) -> dict[str, int]:
    """How many weights a model has, and how many of them are no embeddings, as scaling laws count (Kaplan 2020)."""
    tables = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    every = sum(parameter.numel() for parameter in model.parameters())
    return {"weights": every, "without_embeddings": every - tables}


def predecessors(recipe: Recipe) -> Iterator[dict]:
    """N-grams and a recurrent network, from as many texts as a run reads, judged by the same held-out ones."""
    corpus = corpus_of(recipe.corpus_options["n"])
    ids, mask = pad([corpus.train[i] for i in range(recipe.steps * recipe.batch_size)], corpus.tokenizer)
    asked = corpus.held_out.select(range(recipe.evaluation_texts))
    for n in range(1, LONGEST_PAST + 1):
        model = NGram(len(corpus.tokenizer), n).fit(ids, mask)
        score = evaluate(model, NextToken(corpus.tokenizer), asked, corpus.tokenizer)
        yield {"model": "n-gram", "n": n, "weights": model.parameters_counted, "tokens": int(mask.sum()) - len(mask),
               "loss": score.loss, "accuracy": score.accuracy}
    recurrent = dataclasses.replace(recipe, model={**recipe.model, **RECURRENT})
    yield from side_by_side(one_run, [("recurrent", dataclasses.replace(recurrent, seed=seed)) for seed in range(3)])


def scaling(recipe: Recipe) -> Iterator[dict]:
    """Transformers of many sizes at equal steps, and one size at many numbers of steps.

    Three seeds of each, but one of those that take longer than REPEATED.
    """
    corpus_of(recipe.corpus_options["n"])  # before the processes part, so that they share it
    runs = [sized(recipe, *size) for size in SIZES]
    runs += [dataclasses.replace(sized(recipe, *STEPPED), steps=steps, evaluate_every=min(steps, recipe.evaluate_every))
             for steps in STEPS if steps != recipe.steps]
    jobs = [("Transformer", dataclasses.replace(run, seed=seed)) for run in reversed(runs)
            for seed in range(3 if run.model["width"] * run.steps <= REPEATED else 1)]
    yield from side_by_side(one_run, jobs)
