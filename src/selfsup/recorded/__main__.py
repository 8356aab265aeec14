"""Make a record again. Each takes minutes on one core, and the chapters say that what they show is recorded.

village    the run of chapter 2 with three seeds
rates      mask rates from 5% to 80% at equal compute, three seeds each
fates      what chosen words become: 80/10/10, all [MASK], all random; three seeds each
pieces     whole words against pieces of words, three seeds each
labels     20 to 200 labels with and without self-supervision before, three seeds each
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..corpora import Corpus, Texts, load_corpus, tinyworld
from ..corpora.tinyworld.floors import corrupt, exact_losses
from ..finetuning import Classifier, accuracy, fine_tune, pad
from ..models.bert import MaskedLanguageModel
from ..models.encoder import Encoder, EncoderConfig
from ..models.pretrained import load
from ..objectives.masking import BERTS_RATES, Masking
from ..tokenization import train_wordpiece, write_atomically
from ..training import Recipe, train
from . import HERE, VILLAGE

SEEDS = (0, 1, 2)


def pretrain(corpus: Corpus, recipe: Recipe, seed: int, **changes: Any) -> tuple[MaskedLanguageModel, list[dict]]:
    """A model trained from scratch as `recipe` says, its objective changed by `changes`, and its log."""
    recipe = dataclasses.replace(recipe, seed=seed)
    torch.manual_seed(seed)
    shape = dict(recipe.model)
    model = MaskedLanguageModel(EncoderConfig.named(shape.pop("shape"), len(corpus.tokenizer), **shape))
    objective = Masking(corpus.tokenizer, **{**recipe.objective_options, **changes})
    judge = Masking(corpus.tokenizer)
    log = train(model, objective, corpus, recipe, progress=False, device="cpu", judge=judge).records
    return model.eval(), [{k: round(v, 5) for k, v in record.items() if k != "seconds"} for record in log]


@torch.no_grad()
def against_truth(model: MaskedLanguageModel, corpus: Corpus, n: int = 300, **rates: float) -> dict[str, float]:
    """Loss and exact floor (nats) under one corruption of n held-out texts, and the error of their difference."""
    language, rng, ours, exact = tinyworld.load("village"), np.random.default_rng(0), [], []
    for i in range(n):
        ids, targets = corrupt(corpus.held_out[i], rng, len(language.words), **rates)
        places = np.flatnonzero(targets >= 0)
        if len(places):
            logits = model(pad([ids], corpus.tokenizer)[0])[0, 1 + places].double()
            real = torch.from_numpy(targets[places]).long()
            ours.append(F.cross_entropy(logits, real, reduction="none").numpy())
            exact.append(exact_losses(language, ids, targets, **rates))
    ours, exact = np.concatenate(ours), np.concatenate(exact)
    error = (ours - exact).std() / len(ours) ** 0.5
    return {"loss": float(ours.mean()), "floor": float(exact.mean()), "error": float(error)}


def stories(language: tinyworld.Language, n: int, seed: int) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """n documents as (ids, attention_mask), and whether each goes well (1) or badly (0)."""
    documents = language.documents(n, seed)
    ids = [[5 + language.index[token] for token in document.tokens] for document in documents]
    labels = torch.tensor([int(document.sentiment == "good") for document in documents])
    return pad(ids, language.tokenizer), labels


@torch.no_grad()
def frozen(model: MaskedLanguageModel, labels: int = 200, ridge: float = 1.0) -> float:
    """Accuracy of a linear classifier (ridge regression) of moods on the mean vectors of the encoder as it is."""
    found = []
    for n, seed in ((labels, 10_000), (500, 20_000)):
        (ids, mask), moods = stories(tinyworld.load("village"), n, seed)
        hidden = model.encoder(ids, mask) * mask.unsqueeze(-1)
        found.append(((hidden.sum(1) / mask.sum(1, keepdim=True)).double(), moods.double() * 2 - 1))
    (x, y), (test, answers) = found
    mean, scale = x.mean(0), x.std(0)
    x, test = (x - mean) / scale, (test - mean) / scale
    weights = torch.linalg.solve(x.T @ x + ridge * labels * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return float(((test @ weights > 0) == (answers > 0)).double().mean())


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
    for seed in SEEDS:
        model, log = pretrain(corpus, recipe, seed)
        yield {"seed": seed, "log": log, **against_truth(model, corpus, **BERTS_RATES)}


def rates(recipe: Recipe) -> Iterator[dict]:
    corpus, recipe = load_corpus("village"), briefly(recipe)
    for rate in (0.05, 0.15, 0.4, 0.8):
        for seed in SEEDS:
            model, _ = pretrain(corpus, recipe, seed, rate=rate)
            own = against_truth(model, corpus, **{**BERTS_RATES, "rate": rate})
            at_15 = against_truth(model, corpus, rate=0.15, mask=1.0, random=0.0)
            yield {"rate": rate, "seed": seed, **own, "at_15": at_15, "frozen": frozen(model)}


def fates(recipe: Recipe) -> Iterator[dict]:
    corpus, recipe = load_corpus("village"), briefly(recipe)
    for name, mask, random in (("80/10/10", 0.8, 0.1), ("all [MASK]", 1.0, 0.0), ("all random", 0.0, 1.0)):
        for seed in SEEDS:
            model, _ = pretrain(corpus, recipe, seed, mask=mask, random=random)
            at_15 = against_truth(model, corpus, rate=0.15, mask=1.0, random=0.0)
            keeps = keeps_what_it_sees(model, corpus)
            yield {"name": name, "seed": seed, "at_15": at_15, "keeps": keeps, "frozen": frozen(model)}


def pieces(recipe: Recipe) -> Iterator[dict]:
    plain, recipe = load_corpus("village"), briefly(recipe)
    words = plain.tokenizer.convert_ids_to_tokens(list(range(len(plain.tokenizer))))
    tokenizer = train_wordpiece([" ".join(words[t] for t in plain.train[i]) for i in range(2000)], 100)
    spelled = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]

    def cut(texts: Texts) -> Texts:
        return Texts.from_list([[piece for word in texts[i] for piece in spelled[word]] for i in range(len(texts))])

    corpus = Corpus("village in pieces", tokenizer, cut(plain.train), cut(plain.held_out))
    recipe = dataclasses.replace(recipe, model={**recipe.model, "max_positions": 512})
    for whole in (False, True):
        for seed in SEEDS:
            model, log = pretrain(corpus, recipe, seed, whole_word=whole)
            asked = hidden_words(model, tokenizer, spelled, plain.held_out)
            yield {"whole_word": whole, "seed": seed, "own_loss": log[-1]["loss"], **asked}


@torch.no_grad()
def hidden_words(model: MaskedLanguageModel, tokenizer: Any, spelled: list, texts: Texts, n: int = 400) -> dict:
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
    ids = [[5 + language.index[token] for token in document.tokens] for document in documents]
    return pad(ids, language.tokenizer), torch.tensor([names.index(document.topic) for document in documents])


def labels(recipe: Recipe) -> Iterator[dict]:
    model, _ = load("tinyworld-bert")
    test, answers = topics(400, 20_000)
    for count in (20, 60, 200):
        for seed in SEEDS:
            batch, told = topics(count, 30_000 + seed)
            for start in ("self-supervised", "random"):
                for rate in (3e-4, 1e-3):
                    torch.manual_seed(seed)
                    blank = Encoder(dataclasses.replace(model.config, dropout=0.0))
                    encoder = blank if start == "random" else copy.deepcopy(model.encoder)
                    classifier = Classifier(encoder, 13)
                    fine_tune(classifier, batch, told, steps=40, learning_rate=rate, seed=seed)
                    score = accuracy(classifier, test, answers)
                    yield {"labels": count, "start": start, "learning_rate": rate, "seed": seed, "accuracy": score}


def briefly(recipe: Recipe) -> Recipe:
    """Half the steps, and no held-out scores on the way: for comparisons of many runs."""
    return dataclasses.replace(recipe, steps=recipe.steps // 2, evaluate_every=recipe.steps, evaluation_texts=100)


RECORDS = {"village": village, "rates": rates, "fates": fates, "pieces": pieces, "labels": labels}


def main(arguments: list[str] | None = None) -> int:
    """Make one record and write it."""
    parser = argparse.ArgumentParser(prog="python -m selfsup.recorded", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RECORDS])
    parser.add_argument("--steps", type=int, default=VILLAGE["steps"], help="a shorter run, to try it out")
    parser.add_argument("--output", type=Path, help="the file to write (default: the record that the chapters read)")
    options = parser.parse_args(arguments)
    recipe, runs = Recipe(**{**VILLAGE, "steps": options.steps}), []
    for run in RECORDS[options.name](recipe):
        runs.append(run)
        print(json.dumps({key: value for key, value in run.items() if key != "log"}), flush=True)
    shorter = "" if options.steps == VILLAGE["steps"] else f" --steps {options.steps}"
    command = f"python -m selfsup.recorded {options.name}{shorter}"
    record = {"command": command, "recipe": json.loads(recipe.to_json()), "runs": runs}
    text = json.dumps(record, separators=(",", ":")).replace('{"', '\n{"').strip() + "\n"
    write_atomically(options.output or HERE / f"{options.name}.json", text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
