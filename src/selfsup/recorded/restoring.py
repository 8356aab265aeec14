"""Chapter 6's record: which damage to a text teaches what (after Lewis et al. 2020, table 1; Raffel et al. 2020)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..corpora import Corpus, load_corpus, tinyworld
from ..corpora.tinyworld.tasks import TASKS, classes_of
from ..finetuning import as_batch, fine_tune, pad, score, with_head, word_f1
from ..generation import generate
from ..models.encoder_decoder import EncoderDecoder
from ..models.shapes import TransformerConfig
from ..objectives import IGNORE
from ..objectives.denoising import T5_KINDS, Denoising
from ..training import Batches, Recipe, evaluate, train
from .fine_tuning import side_by_side

DAMAGES: dict[str, dict[str, Any]] = {  # the options of `Denoising`
    "copying": {"kinds": "masking", "rate": 1e-12},  # not a word is masked: the text is written as it is read
    **{kind: {"kinds": kind} for kind in ("masking", "deletion", "infilling", "rotation", "permutation",
                                          "permutation+infilling", "spans", "mass")},
    "masking of half": {"kinds": "masking", "rate": 0.5},  # as much as MASS hides
}
T5 = {  # and those of T5's tables, each with as much work as masking takes, with which they are compared
    **{kind: {"kinds": kind} for kind in T5_KINDS},
    **{f"spans of {rate:.0%}": {"kinds": "spans", "rate": rate} for rate in (0.1, 0.15, 0.25, 0.5)},
}
RESTORING = Recipe(
    objective="denoising",
    corpus_options={"n": 200_000, "sentinels": 16},
    model={"layers": 2, "width": 64, "heads": 4, "feed_forward": 256, "segments": 0, "dropout": 0.0,
           "norm_eps": 1e-5, "init_std": 0.08},
    steps=1000,
    batch_size=64,
    average="token",
    warmup=0.02,
    weight_decay=0.1,
    evaluate_every=1000,
    evaluation_texts=500,
)
READ = {"tags": 64, "questions": 256}  # what the encoder alone is fine-tuned for, and from how many labels
WRITTEN = 256, 2048  # questions whose answers encoder and decoder learn to write; the second of these and of LONGER
WRITTEN_FROM_MANY = "copying", "masking", "spans", "mass", *T5, None
RENEWED = {"encoder": ("decoder",), "decoder": ("encoder",), "tokens": ("encoder", "decoder")}  # by what is kept
PARTS = "spans", "mass"  # what is written is a part of the text: of these, halves are renewed
LONGER = {"times": 4, "damages": ("masking", "permutation", "spans")}  # times the steps of the recipe; one seed
FINE_TUNED = {"read": 300, "written": 500}  # steps, whatever was trained before
ASKED, TEST_SEED = 500, 50_000
LONGEST = 40  # words of a text


@cache
def corpus_of(n: int, sentinels: int) -> Corpus:
    """The world in n texts, drawn once for all runs of a process."""
    return load_corpus("tinyworld", n=n, sentinels=sentinels)


def written_answers(examples: list, tokenizer: Any) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Questions with their texts as an encoder–decoder takes them, and the first answer as what it must write.

    Returns (input_ids, decoder_input_ids, attention_mask) and targets, each (questions, time) long.
    """
    (ids, mask, _), _ = as_batch(examples, tokenizer)
    words = [tokenizer.convert_tokens_to_ids(list(one.second[slice(*one.gold[0])])) for one in examples]
    written, kept = pad(words, tokenizer)
    return (ids, written[:, :-1], mask), written[:, 1:].masked_fill(kept[:, 1:] == 0, IGNORE)


def answers_written(model: EncoderDecoder, seed: int, tokenizer: Any, labels: int) -> dict[str, float]:
    """Fine-tune encoder and decoder to write answers: how many are exact, and the F1 of their words."""
    model, language = copy.deepcopy(model), tinyworld.load("world")
    learned = TASKS["questions"](language, labels, 40_000 + seed, longest=LONGEST, unanswerable=0.0)
    asked = TASKS["questions"](language, ASKED, TEST_SEED, longest=LONGEST, unanswerable=0.0)
    fine_tune(model, *written_answers(learned, tokenizer), steps=FINE_TUNED["written"], batch_size=32,
              learning_rate=1e-3, seed=seed)
    (ids, _, mask), _ = written_answers(asked, tokenizer)
    exact, f1 = 0, 0.0
    begin, end = torch.full((len(ids), 1), tokenizer.cls_token_id), tokenizer.sep_token_id
    with torch.no_grad():
        writer = model.eval().reading(ids, mask)
    told_rows = generate(writer, begin, max_new_tokens=8, temperature=0.0, stop_ids=[end])
    for one, row in zip(asked, told_rows.tolist()):
        row = row[: row.index(end)] if end in row else row
        told = tuple(tokenizer.convert_ids_to_tokens(row))
        right = {one.second[slice(*span)] for span in one.gold}
        exact, f1 = exact + (told in right), f1 + max(word_f1(told, answer) for answer in right)
    return {"exact": exact / len(asked), "f1": f1 / len(asked)}


def read(model: EncoderDecoder, seed: int) -> dict[str, float]:
    """The scores of the encoder alone, each time fine-tuned anew, on tasks of chapter 4."""
    language, scores = tinyworld.load("world"), {}
    for task, labels in READ.items():
        torch.manual_seed(seed)
        classes = classes_of(task, language)
        reader = with_head(copy.deepcopy(model.encoder), task, classes)
        learned = TASKS[task](language, labels, 40_000 + seed, longest=LONGEST)
        fine_tune(reader, *as_batch(learned, language.tokenizer, classes), steps=FINE_TUNED["read"], batch_size=32,
                  seed=seed)
        asked = TASKS[task](language, ASKED, TEST_SEED, longest=LONGEST)
        scores[task] = score(reader, *as_batch(asked, language.tokenizer, classes), asked, classes)
    return scores


def renewed(model: EncoderDecoder, halves: Sequence[str], seed: int) -> EncoderDecoder:
    """A copy with random weights in its encoder, its decoder, or both; the table of tokens that they share stays."""
    torch.manual_seed(seed)
    fresh, mixed = EncoderDecoder(model.config), copy.deepcopy(model)
    for half in halves:
        weights = getattr(fresh, half).state_dict()
        weights.pop("embeddings.token.weight")
        getattr(mixed, half).load_state_dict(weights, strict=False)
    return mixed


def mean_cosines(model: EncoderDecoder, tokenizer: Any) -> dict[str, float]:
    """The mean cosine between the vectors of two different names, and of any two words, of the world's documents."""
    documents = tinyworld.load("world").documents(400, seed=TEST_SEED)
    said = {(word, tag) for document in documents for word, tag in zip(document.tokens, document.pos)}
    words = sorted({word for word, _ in said})
    is_name = torch.tensor([(word, "NAME") in said for word in words])
    vectors = model.encoder.embeddings.token.weight[tokenizer.convert_tokens_to_ids(words)].detach()
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    cosines = vectors @ vectors.T
    two = ~torch.eye(len(words), dtype=torch.bool)
    return {"names": cosines[two & is_name & is_name[:, None]].mean().item(), "words": cosines[two].mean().item()}


def one_damage(job: tuple[str | None, Recipe, Sequence[int], bool]) -> dict[str, Any]:
    """A model that mends one damage (None: one that has learned nothing), and what it is good for.

    A job has the damage, the recipe, from how many labels each the model learns to write answers, and whether it
    learns that, from the most labels, also with halves that are renewed.
    """
    damage, recipe, labels, halves = job
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    corpus = corpus_of(**recipe.corpus_options)
    model = EncoderDecoder(TransformerConfig(len(corpus.tokenizer), **recipe.model))
    found = {"damage": damage, "steps": recipe.steps if damage else 0, "seed": recipe.seed}
    if damage is not None:
        objective = Denoising(corpus.tokenizer, **(DAMAGES | T5)[damage])
        train(model, objective, corpus, recipe, progress=False, device="cpu")
        asked = corpus.held_out.select(range(recipe.evaluation_texts))
        own = evaluate(model.eval(), objective, asked, corpus.tokenizer)
        found |= {"loss": own.loss, "accuracy": own.accuracy, "targets": own.targets}
    if damage in (*T5, "masking", "permutation"):
        found["cosines"] = mean_cosines(model, corpus.tokenizer)
    written = {n: answers_written(model, recipe.seed, corpus.tokenizer, n) for n in labels}
    if halves:
        found["kept"] = {
            kept: answers_written(renewed(model, parts, recipe.seed), recipe.seed, corpus.tokenizer, max(labels))
            for kept, parts in RENEWED.items()
        }
    return found | {"read": read(model, recipe.seed), "written": written}


def multiplications(damage: str, recipe: Recipe, texts: int = 500) -> float:
    """How many multiplications by weights it takes to read and to write one text, on average, in a forward pass.

    One text at a time: padding is not counted, and neither are attention and the optimiser.
    """
    corpus = corpus_of(**recipe.corpus_options)
    model = EncoderDecoder(TransformerConfig(len(corpus.tokenizer), **recipe.model)).eval()
    objective, generator = Denoising(corpus.tokenizer, **(DAMAGES | T5)[damage]), torch.Generator().manual_seed(0)
    one_by_one = Batches(corpus.train, corpus.tokenizer, 1, seed=0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for text in range(texts):
            objective.losses(model, objective.split(*one_by_one[text], generator))
    return counter.get_total_flops() / 2 / texts


def damages(recipe: Recipe) -> Iterator[dict]:
    """Each damage, copying and random weights: the same model, steps and texts. Then T5's, and some for longer.

    Three seeds of each, but one of those for longer. Those of T5 are trained until their weights have multiplied as
    often as those of masking.
    """
    corpus_of(**recipe.corpus_options)  # before the processes part, so that they share it
    work = {damage: multiplications(damage, recipe) for damage in DAMAGES | T5}
    steps = {damage: recipe.steps for damage in (*DAMAGES, None)}
    steps |= {damage: round(recipe.steps * work["masking"] / work[damage]) for damage in T5}
    jobs = [(damage, dataclasses.replace(recipe, seed=seed, steps=n, evaluate_every=n),
             WRITTEN if damage in WRITTEN_FROM_MANY else WRITTEN[:1], damage in PARTS)
            for seed in range(3) for damage, n in steps.items()]
    longer = dataclasses.replace(recipe, steps=LONGER["times"] * recipe.steps)
    jobs += [(damage, longer, WRITTEN, False) for damage in LONGER["damages"]]
    for run in side_by_side(one_damage, jobs):
        yield run | ({"multiplications": work[run["damage"]]} if run["damage"] else {})
