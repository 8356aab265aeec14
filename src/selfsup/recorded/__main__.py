"""Make a record again. Each takes minutes on one core, and the chapters say that what they show is recorded.

village    the run of chapter 2 with three seeds, and without the phase that asks for repeated words
rates      mask rates from 5% to 80% at equal compute, three seeds each
fates      what chosen words become: 80/10/10, 80/20/0, 80/0/20, all [MASK], all random; three seeds each
pieces     whole words against pieces of words, three seeds each
labels     20 to 200 labels: with self-supervision before, alone, and counted words; three draws each
pairs      chapter 3: words in pairs of sentences, with NSP, SOP or no question; three seeds each
tuning     chapter 4: four tasks, four ways to learn each, five learning rates; the best is used below
curves     the four tasks and ways from 16 to 4,096 labels, three seeds each
why        the tasks with every word renamed; the loss around what was learned; three seeds each
adapters   the shipped adapters of the four tasks: writes their files too
real-rates three tasks of real text, NLTK's data: three learning rates, of which the best is used below
embryology chapter 5: probes, fine-tuning, and covered words, at every snapshot of three training runs
frequencies chapter 5: when words are learned whose frequencies are natural, equal and exchanged; three seeds each
damages    chapter 6: what models are good for that undid one damage, or none; T5's, with equal work; three seeds each
predecessors chapter 7: n-grams, a recurrent network with three seeds, and the exact rules
scaling    chapter 7: eight sizes of Transformer, and one after 125 to 4,000 steps; more than an hour of one core
real       the three tasks from a random start and from a pre-trained one, and without a network; three seeds each
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..adapters import START
from ..corpora import Corpus, Texts, load_corpus, tinyworld
from ..corpora.tinyworld.automaton import SPECIAL
from ..corpora.tinyworld.floors import Estimate, corrupt, exact_losses
from ..finetuning import Classifier, accuracy, fine_tune, pad, word_counting_accuracy
from ..models.bert import MaskedLanguageModel
from ..models.pretrained import CHECKPOINTS, load
from ..models.shapes import TransformerConfig
from ..objectives.masking import BERTS_RATES, Masking
from ..tokenization import train_wordpiece, write_atomically
from ..training import Recipe, train
from . import HERE, PAIRS, VILLAGE
from .embryology import EMBRYO, SPELLED, embryology, frequencies
from .fine_tuning import adapters, curves, random_encoder, tuning, why
from .looking_back import looking_back
from .next_words import WORDS, predecessors, scaling
from .real_text import MODEL, real, real_rates
from .restoring import RESTORING, damages
from .sentence_pairs import sentence_pairs

SEEDS = (0, 1, 2)


def pretrain(corpus: Corpus, recipe: Recipe, seed: int, **changes: Any) -> tuple[MaskedLanguageModel, list[dict]]:
    """A model trained from scratch as `recipe` says, its objective changed by `changes`, and its log."""
    recipe = dataclasses.replace(recipe, seed=seed, objective_options=recipe.objective_options | changes)
    torch.manual_seed(seed)
    shape = dict(recipe.model)
    model = MaskedLanguageModel(TransformerConfig.named(shape.pop("shape"), len(corpus.tokenizer), **shape))
    objective = Masking(corpus.tokenizer, **recipe.objective_options)
    judge = Masking(corpus.tokenizer)
    log = train(model, objective, corpus, recipe, progress=False, device="cpu", judge=judge).records
    return model.eval(), [{k: round(v, 5) for k, v in record.items() if k != "seconds"} for record in log]


@torch.no_grad()
def against_truth(model: MaskedLanguageModel, corpus: Corpus, n: int = 300, **rates: float) -> dict[str, float]:
    """Loss and exact floor (nats) under one corruption of n held-out texts, and the error of their difference."""
    language, rng, ours, exact, text = tinyworld.load("village"), np.random.default_rng(0), [], [], []
    for i in range(n):
        ids, targets = corrupt(corpus.held_out[i], rng, len(language.words), **rates)
        places = np.flatnonzero(targets >= 0)
        if len(places):
            logits = model(pad([ids], corpus.tokenizer)[0])[0, 1 + places].double()
            real = torch.from_numpy(targets[places]).long()
            ours.append(F.cross_entropy(logits, real, reduction="none").numpy())
            exact.append(exact_losses(language, ids, targets, **rates))
            text += [i] * len(places)
    ours, exact = np.concatenate(ours), np.concatenate(exact)
    error = Estimate.of(ours - exact, text).error
    return {"loss": float(ours.mean()), "floor": float(exact.mean()), "error": error}


@torch.no_grad()
def keeps_what_it_sees(model: MaskedLanguageModel, corpus: Corpus, n: int = 300) -> float:
    """How often the head's first choice at an untouched word is that word, in texts with 15% [MASK]."""
    rng, right, total = np.random.default_rng(1), 0, 0
    for i in range(n):
        ids, targets = corrupt(corpus.held_out[i], rng, 1, rate=0.15, mask=1.0, random=0.0)
        seen = np.flatnonzero(targets < 0)
        answers = model(pad([ids], corpus.tokenizer)[0])[0].argmax(-1).numpy()[1 + seen]
        right, total = right + int((answers == ids[seen]).sum()), total + len(seen)
    return right / total


def village(recipe: Recipe) -> Iterator[dict]:
    corpus = load_corpus("village")
    for phases in (recipe.phases, {}):
        for seed in SEEDS:
            model, log = pretrain(corpus, dataclasses.replace(recipe, phases=phases), seed)
            yield {"phases": bool(phases), "seed": seed, "log": log, **against_truth(model, corpus, **BERTS_RATES),
                   "looking_back": looking_back(model, corpus)}


def rates(recipe: Recipe) -> Iterator[dict]:
    corpus = load_corpus("village")
    for rate in (0.05, 0.15, 0.4, 0.8):
        for seed in SEEDS:
            model, _ = pretrain(corpus, recipe, seed, rate=rate)
            own = against_truth(model, corpus, **{**BERTS_RATES, "rate": rate})
            at_15 = against_truth(model, corpus, rate=0.15, mask=1.0, random=0.0)
            yield {"rate": rate, "seed": seed, **own, "at_15": at_15}


def fates(recipe: Recipe) -> Iterator[dict]:
    corpus = load_corpus("village")
    kinds = {"80/10/10": (0.8, 0.1), "80/20/0": (0.8, 0.2), "80/0/20": (0.8, 0.0)}
    for name, (mask, random) in {**kinds, "all [MASK]": (1.0, 0.0), "all random": (0.0, 1.0)}.items():
        for seed in SEEDS:
            model, _ = pretrain(corpus, recipe, seed, mask=mask, random=random)
            at_15 = against_truth(model, corpus, rate=0.15, mask=1.0, random=0.0)
            yield {"name": name, "seed": seed, "at_15": at_15, "keeps": keeps_what_it_sees(model, corpus)}


def pieces(recipe: Recipe) -> Iterator[dict]:
    plain = load_corpus("village")
    words = plain.tokenizer.convert_ids_to_tokens(list(range(len(plain.tokenizer))))
    tokenizer = train_wordpiece([" ".join(words[t] for t in plain.train[i]) for i in range(2000)], 100)
    spelled = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]

    def cut(texts: Texts) -> Texts:
        return Texts.from_list([[piece for word in texts[i] for piece in spelled[word]] for i in range(len(texts))])

    corpus = Corpus("village in pieces", tokenizer, cut(plain.train), cut(plain.held_out))
    for whole in (False, True):
        for seed in SEEDS:
            model, log = pretrain(corpus, recipe, seed, whole_word=whole)
            asked = hidden_words(model, tokenizer, spelled, plain.held_out)
            yield {"whole_word": whole, "seed": seed, "training_loss": log[-1]["loss"], **asked}


@torch.no_grad()
def hidden_words(model: MaskedLanguageModel, tokenizer: Any, spelled: list, texts: Texts, n: int = 1000) -> dict:
    """Ask for words of two pieces or more: how often all pieces are right when all are hidden, and one when one is."""
    rng, right, asked = np.random.default_rng(2), {"word_right": 0, "piece_right": 0}, 0
    for i in range(n):
        starts = np.cumsum([1] + [len(spelled[word]) for word in texts[i]])
        long = [k for k, word in enumerate(texts[i]) if len(spelled[word]) > 1]
        if not long:
            continue
        k = int(rng.choice(long))
        ids, _ = pad([[piece for word in texts[i] for piece in spelled[word]]], tokenizer)
        places = torch.arange(int(starts[k]), int(starts[k + 1]))
        for kind, at in (("word_right", places), ("piece_right", places[[int(rng.integers(len(places)))]])):
            covered = ids.clone()
            covered[0, at] = tokenizer.mask_token_id
            right[kind] += int((model(covered)[0, at].argmax(-1) == ids[0, at]).all())
        asked += 1
    return {kind: count / asked for kind, count in right.items()} | {"asked": asked}


def topics(n: int, seed: int) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """n stories of the world as (ids, attention_mask), and the number of each one's topic."""
    language = tinyworld.load("world")
    documents, names = language.documents(n, seed), [name for name, _ in language.data["topics"]]
    ids = [[SPECIAL + language.index[token] for token in document.tokens] for document in documents]
    return pad(ids, language.tokenizer), torch.tensor([names.index(document.topic) for document in documents])


def labels(_: None) -> Iterator[dict]:
    model, _ = load("tinyworld-bert")
    classes = len(tinyworld.load("world").data["topics"])
    test, validation = topics(400, 20_000), topics(200, 25_000)
    for count in (20, 60, 200):
        for seed in SEEDS:
            batch, told = topics(count, 30_000 + seed)
            run = {"labels": count, "seed": seed}
            yield {**run, "start": "counting words", "accuracy": word_counting_accuracy(batch, told, *test)}
            for start in ("self-supervised", "random"):
                for rate in (1e-3, 3e-3):
                    torch.manual_seed(seed)
                    blank = random_encoder(model.config)
                    classifier = Classifier(blank if start == "random" else copy.deepcopy(model.encoder), classes)
                    fine_tune(classifier, batch, told, steps=60, learning_rate=rate, seed=seed)
                    scores = {"validation": accuracy(classifier, *validation), "accuracy": accuracy(classifier, *test)}
                    yield {**run, "start": start, "learning_rate": rate, **scores}


def pairs(recipe: Recipe, kept: Path | None = None) -> Iterator[dict]:
    yield from sentence_pairs(recipe, SEEDS, kept)


def births(recipe: Recipe, kept: Path | None = None) -> Iterator[dict]:
    yield from embryology(recipe, SEEDS, kept)


WHOLE = Recipe(**VILLAGE)
# Half the steps, no phases, and no held-out scores on the way: for comparisons of many runs.
HALF = dataclasses.replace(
    WHOLE, steps=WHOLE.steps // 2, phases={}, evaluate_every=WHOLE.steps, evaluation_texts=100
)
LONG = dataclasses.replace(HALF, model={**HALF.model, "max_positions": 512})  # words in pieces make long texts
RECORDS: dict[str, tuple[Callable[[Any], Iterator[dict]], Recipe | None]] = {
    "village": (village, WHOLE),
    "rates": (rates, HALF),
    "fates": (fates, HALF),
    "pieces": (pieces, LONG),
    "labels": (labels, None),
    "pairs": (pairs, Recipe(**PAIRS)),
    "tuning": (tuning, None),
    "curves": (curves, None),
    "why": (why, None),
    "adapters": (adapters, None),
    "embryology": (births, Recipe.from_json((CHECKPOINTS / EMBRYO / "recipe.json").read_text(encoding="utf-8"))),
    "frequencies": (frequencies, SPELLED),
    "damages": (damages, RESTORING),
    "predecessors": (predecessors, WORDS),
    "scaling": (scaling, WORDS),
    "real-rates": (real_rates, None),
    "real": (real, None),
}
KEEPING = ("pairs", "embryology")  # records whose trained models can be kept
# The shipped checkpoint that a record begins with, if it is another than tinyworld-bert.
MODELS = {"real-rates": MODEL, "real": MODEL, **dict.fromkeys(("tuning", "curves", "why", "adapters"), START)}


def weights_digest(name: str) -> str:
    """The SHA-256 of a shipped checkpoint's weights, in hexadecimal digits: a record of what it does is of it alone."""
    return hashlib.sha256((CHECKPOINTS / name / "model.safetensors").read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Make one record and write it."""
    parser = argparse.ArgumentParser(prog="python -m selfsup.recorded", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RECORDS])
    parser.add_argument("--steps", type=int, help="a shorter run, to try it out")
    parser.add_argument("--output", type=Path, help="the file to write (default: the record that the chapters read)")
    parser.add_argument("--models", type=Path,
                        help=f"of {' and '.join(KEEPING)}: a folder to keep trained models in, and to take them from")
    options = parser.parse_args(arguments)
    if options.models and options.name not in KEEPING:
        parser.error(f"--models keeps the models of {' and '.join(KEEPING)}, not of {options.name}")
    if options.output and options.name == "adapters":
        parser.error("adapters writes over the shipped adapters wherever its record goes: leave --output out")
    make, recipe = RECORDS[options.name]
    if options.steps is not None and not recipe:
        parser.error(f"--steps shortens the recipe of a record, and {options.name} has none: leave it out")
    command = f"python -m selfsup.recorded {options.name}"
    about = {"weights": weights_digest(MODELS.get(options.name, "tinyworld-bert"))}
    if recipe:
        try:
            recipe = dataclasses.replace(recipe, steps=recipe.steps if options.steps is None else options.steps)
        except ValueError as error:
            parser.error(str(error))
        command += "" if options.steps is None else f" --steps {recipe.steps}"
        about = {"recipe": json.loads(recipe.to_json())}
    runs = []
    for run in make(recipe, options.models) if options.models else make(recipe):
        runs.append(run)
        print(json.dumps({key: value for key, value in run.items() if key != "log"}), flush=True)
    record = {"command": command, **about, "runs": runs}
    text = json.dumps(record, separators=(",", ":")).replace('{"', '\n{"').strip() + "\n"
    write_atomically(options.output or HERE / f"{options.name}.json", text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
