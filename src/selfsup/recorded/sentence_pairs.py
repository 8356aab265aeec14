"""Chapter 3's record: models that learned words in pairs of sentences, alone or with a question about the pair."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..corpora import Corpus, load_corpus, tinyworld
from ..corpora.tinyworld.corpus import HELD_OUT_SEED
from ..corpora.tinyworld.pairs import DrawnPairs, group_of
from ..corpora.tinyworld.tasks import TASKS, classes_of
from ..finetuning import as_batch, fine_tune, pad, score, with_head
from ..models.bert import MaskedLanguageModel, SentencePairModel
from ..models.encoder import Encoder
from ..models.pretrained import load_pretrained, save_pretrained
from ..models.shapes import TransformerConfig
from ..objectives.sentence_pairs import SentencePairs
from ..training import Recipe, evaluate, train

# What a model is asked about pairs while it learns, and where NSP's negatives come from. "nsp" takes them from the
# same place of another story, "anywhere" and "topic" from where their names say.
QUESTIONS = {"none": None, "nsp": "nsp", "sop": "sop", "anywhere": "nsp", "topic": "nsp"}
ASKED = ("nsp", "sop", "anywhere", "topic")
LONGEST = 24
WORDS_ALONE = {"rate": 0.15, "mask": 1.0, "random": 0.0}  # as the exact answer is asked


def group(question: str, *drawn: DrawnPairs):
    """`SentencePairs`' group for a question: where its negatives come from; None for one that has none."""
    return group_of("place" if question == "nsp" else question, *drawn) if QUESTIONS[question] == "nsp" else None


def questions(question: str, drawn: DrawnPairs, tokenizer, seed: int) -> tuple[dict, Tensor]:
    """One question about each pair, (inputs, answers): 0 as it was, 1 changed. A pair without a negative stays."""
    objective = SentencePairs(tokenizer, QUESTIONS[question], group=group(question, drawn))
    generator, batches = torch.Generator().manual_seed(seed), []
    for start in range(0, len(drawn.texts), 500):
        ids, mask = pad([drawn.texts[i] for i in range(start, min(start + 500, len(drawn.texts)))], tokenizer)
        batches.append(objective.arrange(ids, mask, generator))
    longest = max(inputs["input_ids"].shape[1] for inputs, _ in batches)

    def joined(name: str) -> Tensor:
        parts = (inputs[name] for inputs, _ in batches)
        return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])

    return {name: joined(name) for name in batches[0][0]}, torch.cat([answers for _, answers in batches])


@torch.no_grad()
def judged(model: SentencePairModel, inputs: dict, answers: Tensor) -> float:
    """How often the model's own head is right."""
    parts = ({name: part[rows] for name, part in inputs.items()} for rows in torch.arange(len(answers)).split(200))
    return float((torch.cat([model(**part, pair=True)[1].argmax(-1) for part in parts]) == answers).float().mean())


@torch.no_grad()
def vectors(model: MaskedLanguageModel, inputs: dict) -> np.ndarray:
    """What the frozen encoder knows of each pair, (pairs, 2 * width): its vector of [CLS], and the mean of all."""
    rows = []
    for part in torch.arange(len(inputs["input_ids"])).split(200):
        hidden = model.encoder(*(inputs[name][part] for name in ("input_ids", "attention_mask", "token_type_ids")))
        seen = inputs["attention_mask"][part].unsqueeze(-1)
        rows.append(torch.cat([hidden[:, 0], (hidden * seen).sum(1) / seen.sum(1)], 1))
    return torch.cat(rows).numpy()


def probed(model: MaskedLanguageModel, learn: tuple[dict, Tensor], test: tuple[dict, Tensor]) -> float:
    """How often a linear probe on the frozen vectors is right on `test`, when it learned from `learn`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(vectors(model, learn[0]), learn[1].numpy())
    return float(probe.score(vectors(model, test[0]), test[1].numpy()))


@cache
def examples(task: str, n: int, seed: int) -> list:
    """n examples of a task of the world, of texts that are as short as the pairs: other places were never learned."""
    return TASKS[task](tinyworld.load("world"), n, seed, longest=LONGEST)


def downstream(encoder: Encoder, seed: int, labels: int = 1024, steps: int = 300) -> dict[str, float]:
    """The scores of the encoder's copies, each fine-tuned on one of the four tasks of chapter 4."""
    language, scores = tinyworld.load("world"), {}
    for task in TASKS:
        torch.manual_seed(seed)
        classes = classes_of(task, language)
        model = with_head(copy.deepcopy(encoder), task, classes)
        learned = as_batch(examples(task, labels, 40_000 + seed), language.tokenizer, classes)
        fine_tune(model, *learned, steps=steps, batch_size=32, seed=seed)
        asked = examples(task, 1000, 50_000)
        scores[task] = score(model, *as_batch(asked, language.tokenizer, classes), asked, classes)
    return scores


def trained(question: str, seed: int, recipe: Recipe, config: TransformerConfig, corpus: Corpus, group,
            kept: Path | None) -> MaskedLanguageModel:
    """The model that `recipe` makes with this question and seed, taken from the folder `kept` where it is there."""
    folder = None if kept is None else kept / f"{question}-{seed}"
    if folder is not None and (folder / "model.safetensors").is_file():
        return load_pretrained(folder)[0]
    recipe = dataclasses.replace(recipe, seed=seed)
    torch.manual_seed(seed)
    model = (MaskedLanguageModel if QUESTIONS[question] is None else SentencePairModel)(config)
    objective = SentencePairs(corpus.tokenizer, QUESTIONS[question], **recipe.objective_options, group=group)
    train(model, objective, corpus, recipe, progress=False, device="cpu")
    if folder is not None:
        save_pretrained(model, corpus.tokenizer, folder)
    return model.eval()


def sentence_pairs(recipe: Recipe, seeds: tuple[int, ...], kept: Path | None = None) -> Iterator[dict]:
    """For each question and seed: how often words, and each question about pairs, are answered rightly."""
    corpus = load_corpus(recipe.corpus, **recipe.corpus_options)
    pairs, shape = tinyworld.Pairs(tinyworld.load("world")), dict(recipe.model)
    config = TransformerConfig.named(shape.pop("shape"), len(corpus.tokenizer), **shape)
    drawn = pairs.draw(len(corpus.train), 0), pairs.draw(len(corpus.held_out), HELD_OUT_SEED)  # as the corpus drew them
    probed_on = pairs.draw(4000, HELD_OUT_SEED + 1)
    test = {q: questions(q, drawn[1], corpus.tokenizer, 1) for q in ASKED}
    learn = {q: questions(q, probed_on, corpus.tokenizer, 2) for q in ASKED}
    for seed in seeds:
        for question in (*QUESTIONS, "random"):
            if question == "random":
                torch.manual_seed(seed)
                model = MaskedLanguageModel(dataclasses.replace(config, init_std=0.02)).eval()
            else:
                model = trained(question, seed, recipe, config, corpus, group(question, *drawn), kept)
            objective = SentencePairs(corpus.tokenizer, None, **WORDS_ALONE)
            words = evaluate(model, objective, corpus.held_out, corpus.tokenizer)
            run = {"question": question, "seed": seed, "words": words.accuracy}
            if isinstance(model, SentencePairModel):
                run["heads"] = {q: judged(model, *test[q]) for q in ASKED}
            run["probes"] = {q: probed(model, learn[q], test[q]) for q in ASKED}
            yield run | {"downstream": downstream(model.encoder, seed)}
