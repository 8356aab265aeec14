"""The shipped models keep what the course says of them, measured against the exact truth and on unseen words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from selfsup import recorded
from selfsup.adapters import specialist
from selfsup.corpora import load_corpus, tinyworld
from selfsup.corpora.books import cloze_accuracy
from selfsup.corpora.tinyworld.corpus import HELD_OUT_SEED
from selfsup.corpora.tinyworld.floors import Estimate, corrupt, exact_losses
from selfsup.corpora.tinyworld.pairs import Pairs
from selfsup.corpora.tinyworld.tasks import TASKS
from selfsup.finetuning import as_batch, pad, score
from selfsup.models.pretrained import CHECKPOINTS, load, load_snapshot, snapshots
from selfsup.objectives.denoising import Denoising
from selfsup.objectives.masking import BERTS_RATES
from selfsup.objectives.next_token import NextToken
from selfsup.recorded.sentence_pairs import judged, questions
from selfsup.training import evaluate

# Nats. The aim is 0.03, which the second one reaches on 500 texts: these bounds leave room for which texts are drawn.
GAPS = {"tinyworld-bert": 0.05, "tinyworld-start": 0.1}


@pytest.mark.parametrize("name", GAPS)
def test_a_model_of_tinyworld_is_near_the_exact_truth(name):
    """On held-out texts, the same corruption for both: mean loss minus mean exact loss, in nats per chosen word."""
    model, tokenizer = load(name)
    language, corpus = tinyworld.load("world"), load_corpus("tinyworld", n=1)
    rng, excess, text = np.random.default_rng(0), [], []
    for i in range(400):
        ids, targets = corrupt(corpus.held_out[i], rng, len(language.words), **BERTS_RATES)
        places = np.flatnonzero(targets >= 0)
        if len(places):
            with torch.no_grad():
                logits = model.eval()(pad([ids], tokenizer)[0])[0, 1 + places].double()
            ours = F.cross_entropy(logits, torch.from_numpy(targets[places]).long(), reduction="none").numpy()
            excess.append(ours - exact_losses(language, ids, targets, **BERTS_RATES))
            text += [i] * len(places)
    gap = Estimate.of(np.concatenate(excess), text)
    assert gap.value < GAPS[name], f"{name} stands {gap} nats above the exact answer"


def test_the_gpt_of_tinyworld_is_near_the_entropy_rate():
    """On all held-out texts, nats per token. The aim is 0.03."""
    (model, tokenizer), corpus = load("tinyworld-gpt"), load_corpus("tinyworld", n=1)
    score = evaluate(model, NextToken(tokenizer), corpus.held_out, tokenizer)
    gap = score.loss - corpus.floors["next_token"]
    assert 0 < gap < 0.03, f"tinyworld-gpt stands {gap:.4f} nats above the entropy rate"


def test_the_encoder_decoder_of_tinyworld_restores_masked_texts_at_nearly_the_exact_cost():
    """-log P(x | x′) of 100 held-out texts, 15% of their words masked: what the rules pay is P(x′) / P(x)."""
    (model, tokenizer), language = load("tinyworld-seq2seq"), tinyworld.load("world")
    texts = load_corpus("tinyworld", n=1, sentinels=16).held_out.select(range(100))
    objective, generator = Denoising(tokenizer, "masking"), torch.Generator().manual_seed(0)
    exact, ours, written = 0.0, 0.0, 0
    for i in range(len(texts)):
        split = objective.split(*pad([texts[i]], tokenizer), generator)
        with torch.no_grad():
            logits = model.eval()(**split.inputs)
        ours += float(F.cross_entropy(logits[0].double(), split.targets[0], reduction="sum"))
        damaged = tokenizer.convert_ids_to_tokens(split.inputs["input_ids"][0, 1:-1].tolist())
        exact += language.log_prob(damaged) - language.log_prob(tokenizer.convert_ids_to_tokens(texts[i].tolist()))
        written += split.targets.numel()
    gap = (ours - exact) / written
    assert 0 < gap < 0.06, f"tinyworld-seq2seq stands {gap:.4f} nats per written token above the exact answer"


def test_storybook_bert_fills_in_what_a_reader_would_ask():
    model, tokenizer = load("storybook-bert")
    whole = cloze_accuracy(model, tokenizer)[-1]
    assert whole["n"] >= 60 and whole["top1"] > 0.3 and whole["top5"] > 0.5, whole
    ids = tokenizer("once upon a [MASK] there was a king", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances = model.eval()(ids)[ids == tokenizer.mask_token_id].softmax(-1)[0]
    assert chances[tokenizer.convert_tokens_to_ids("time")] > 0.5


def test_weights_are_small_enough_for_a_page():
    small = {f"tinyworld-{kind}": 0.4e6 for kind in ("nsp", "sop", "pairs")} | {"tinyworld-seq2seq": 2.2e6}
    for name, most in {**dict.fromkeys([*GAPS, "tinyworld-gpt"], 1.6e6), "storybook-bert": 6.5e6, **small}.items():
        size = (CHECKPOINTS / name / "model.safetensors").stat().st_size
        assert size <= most, f"{name} takes {size:,} bytes"


def test_snapshots_end_with_the_model_itself():
    kept, (model, _) = snapshots("tinyworld-bert"), load("tinyworld-bert")
    assert min(kept) == 0 and max(kept) == 12_000
    last = load_snapshot("tinyworld-bert", 12_000).state_dict()
    assert all(torch.equal(weight, last[name]) for name, weight in model.state_dict().items())


def test_pairs_are_judged_better_by_the_model_that_was_asked():
    """Each head at its own question, on held-out pairs; at the other's it stays far below."""
    drawn, tokenizer = Pairs(tinyworld.load("world")).draw(600, HELD_OUT_SEED), load("tinyworld-nsp")[1]
    right = {}
    for kind in ("nsp", "sop"):
        asked = questions(kind, drawn, tokenizer, seed=1)
        for name in ("nsp", "sop"):
            right[name, kind] = judged(load(f"tinyworld-{name}")[0].eval(), *asked)
    assert right["nsp", "nsp"] > 0.75 and right["sop", "sop"] > 0.94, right
    assert right["nsp", "sop"] < 0.7 and right["sop", "nsp"] < 0.7, right


@pytest.mark.parametrize("task", TASKS)
def test_adapters_keep_what_was_recorded_of_them(task):
    """On fresh texts, within what 300 of them can say."""
    model, tokenizer, classes = specialist(task)
    asked = TASKS[task](tinyworld.load("world"), 300, 60_000, longest=40)
    kept = next(run["score"] for run in recorded.read("adapters")["runs"] if run["task"] == task)
    assert abs(score(model, *as_batch(asked, tokenizer, classes), asked, classes) - kept) < 0.08
