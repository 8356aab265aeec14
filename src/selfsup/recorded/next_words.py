"""Chapter 7's records: who came before the Transformer, and what more weights and more text buy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..corpora import Corpus, load_corpus, tinyworld
from ..corpora.tinyworld.automaton import SEP, SPECIAL
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
    average="token",
    warmup=0.02,
    weight_decay=0.1,
    evaluate_every=500,
    evaluation_texts=500,
)
PAD = 0
LONGEST_PAST = 6  # tokens of an n-gram
SIZES = (1, 16), (1, 32), (2, 32), (2, 48), (2, 64), (3, 64), (3, 96), (3, 128)  # layers, width
STEPS = 125, 250, 500, 1000, 2000, 4000  # of the model of STEPPED
STEPPED = 3, 64
REPEATED = 96 * 2000  # width times steps
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
    return {"model": kind, "seed": recipe.seed, "layers": recipe.model["layers"], "width": recipe.model["width"],
            "steps": recipe.steps, "tokens": log[-1]["tokens"], **weights(model), **scores(model, corpus, recipe),
            "log": [[record["step"], round(record["held_out"], 5)] for record in log if "held_out" in record]}


def scores(model: nn.Module, corpus: Corpus, recipe: Recipe) -> dict[str, Any]:
    """Mean nats per held-out token, and of those tokens alone that their text has said before and that are rare.

    Rare is at most 1% of a batch, of 128 texts of like length: names, and the people and things of a story. Whoever
    cannot bring them back pays there.
    """
    asked, found = corpus.held_out.select(range(recipe.evaluation_texts)), {}
    for name, rate in (("all", 1.0), ("said_before", 0.0)):
        score = evaluate(model, NextToken(corpus.tokenizer, rate=rate), asked, corpus.tokenizer)
        found |= {name: {"loss": score.loss, "targets": score.targets}}
    return found


class ExactRules(nn.Module):
    """Gives each token that comes the probability that the rules of Tinyworld give it, and the rest to [PAD]."""

    def __init__(self, language: tinyworld.Language):
        super().__init__()
        self.language = language

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Log-probabilities (m, vocab) at `positions`, bool like input_ids (batch, time): [CLS] and whole texts."""
        rows = torch.full((*input_ids.shape, len(self.language.tokenizer)), -torch.inf, dtype=torch.float64)
        for row, ids in zip(rows, input_ids.tolist()):
            ids = [token for token in ids[1:] if token not in (PAD, SEP)]
            chances = -torch.from_numpy(self.language.surprisals([self.language.words[i - SPECIAL] for i in ids]))
            at = torch.arange(len(ids) + 1)
            row[at, torch.tensor([*ids, SEP])] = chances
            row[at, PAD] = (-chances.expm1()).clamp(min=1e-300).log()
        return rows[positions]


def weights(model: nn.Module) -> dict[str, int]:
    """How many weights a model has, and how many of them are no embeddings, as scaling laws count (Kaplan 2020)."""
    tables = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    every = sum(parameter.numel() for parameter in model.parameters())
    return {"weights": every, "without_embeddings": every - tables}


def predecessors(recipe: Recipe) -> Iterator[dict]:
    """N-grams and a recurrent network, from as many texts as a run reads, judged by the same held-out ones.

    N-grams count the first texts of the corpus; a network's seed decides which ones it reads. `tokens` are those of the
    texts that were read, [CLS] and [SEP] not counted.
    """
    corpus = corpus_of(recipe.corpus_options["n"])
    texts = corpus.train.select(range(recipe.steps * recipe.batch_size))
    ids, mask = pad([texts[i] for i in range(len(texts))], corpus.tokenizer)
    for n in range(1, LONGEST_PAST + 1):
        model = NGram(len(corpus.tokenizer), n).fit(ids, mask)
        yield {"model": "n-gram", "n": n, "weights": model.parameters_counted, "tokens": int(texts.lengths.sum()),
               **scores(model, corpus, recipe)}
    yield {"model": "exact rules", **scores(ExactRules(tinyworld.load("world")), corpus, recipe)}
    yield from side_by_side(one_run, [("recurrent", dataclasses.replace(recipe, seed=seed)) for seed in range(3)])


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
