"""Chapter 7's records: how its runs are scored and compared."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from selfsup.corpora import tinyworld
from selfsup.models import LanguageModel, TransformerConfig
from selfsup.models.predecessors import NGram
from selfsup.objectives import IGNORE
from selfsup.objectives.next_token import NextToken
from selfsup.recorded import next_words
from selfsup.recorded.next_words import BY_SCHEME, WORDS, ExactRules, corpus_of, one_run, scores
from selfsup.training import Batches

FEW = replace(WORDS, corpus_options={"n": 300}, steps=2, batch_size=8, evaluate_every=2, evaluation_texts=30)


def test_the_exact_rules_pay_the_entropy_rate_and_their_part_of_it_at_words_said_before():
    corpus, world = corpus_of(300), tinyworld.load("world")
    found, asked = scores(ExactRules(world), corpus, FEW), corpus.held_out.select(range(30))
    exact = tinyworld.next_token_floor(world, asked)
    assert found["all"]["loss"] == pytest.approx(exact.value) and found["all"]["targets"] == exact.n
    ids, mask = Batches(asked, corpus.tokenizer, 30)[0]
    targets = NextToken(corpus.tokenizer, rate=0.0).split(ids, mask).targets
    paid = []
    for row, told in zip(ids.tolist(), targets):
        words = [world.words[i - 5] for i in row if i > 4]
        paid += [world.surprisals(words)[t] for t in (told != IGNORE).nonzero().flatten().tolist()]
    assert found["said_before"]["targets"] == len(paid) > 20
    assert found["said_before"]["loss"] == pytest.approx(sum(paid) / len(paid))


def test_a_model_is_scored_at_the_same_words_as_the_rules():
    corpus = corpus_of(300)
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(len(corpus.tokenizer), **WORDS.model))
    ours, rules = scores(model, corpus, FEW), scores(ExactRules(tinyworld.load("world")), corpus, FEW)
    for part in ("all", "said_before"):
        assert ours[part]["targets"] == rules[part]["targets"]
        assert ours[part]["loss"] > rules[part]["loss"] + 1  # it has learned nothing


@pytest.fixture
def few(monkeypatch):
    """Records of two sizes, one of them at three numbers of steps, in this process."""
    monkeypatch.setattr(next_words, "side_by_side", lambda work, jobs: map(work, jobs))
    small = {"LONGEST_PAST": 2, "SIZES": ((1, 16), (1, 32)), "STEPS": (1, 4), "STEPPED": (1, 16), "REPEATED": 48}
    for name, value in small.items():
        monkeypatch.setattr(next_words, name, value)


def test_the_predecessors_can_be_made_again(few):
    runs = list(next_words.predecessors(FEW))
    assert [run["model"] for run in runs] == ["n-gram", "n-gram", "exact rules", *["recurrent"] * 3]
    assert runs[2]["all"]["loss"] == min(run["all"]["loss"] for run in runs)
    assert [run["seed"] for run in runs[3:]] == [0, 1, 2]


def test_counts_and_networks_read_the_same_texts(few, monkeypatch):
    """Where a run reads each text of its corpus once, so does who counts, and both say how many tokens that is."""
    recipe, train, fit = replace(FEW, corpus_options={"n": FEW.steps * FEW.batch_size}), next_words.train, NGram.fit
    counted, learned = [], []

    def texts(ids, mask):
        return [tuple(row[: int(kept.sum())].tolist()) for row, kept in zip(ids, mask)]

    def spy_on_counts(model, ids, mask):
        counted.append(sorted(texts(ids, mask)))
        return fit(model, ids, mask)

    def spy_on_training(model, objective, corpus, recipe, **options):
        batches = Batches(corpus.train, corpus.tokenizer, recipe.batch_size, recipe.seed)
        learned.append(sorted(text for step in range(recipe.steps) for text in texts(*batches[step])))
        return train(model, objective, corpus, recipe, **options)

    monkeypatch.setattr(NGram, "fit", spy_on_counts)
    monkeypatch.setattr(next_words, "train", spy_on_training)
    runs = [run for run in next_words.predecessors(recipe) if "tokens" in run]
    assert len(counted) == 2 and len(learned) == 3 and all(read == counted[0] for read in counted + learned)
    assert [run["tokens"] for run in runs] == [sum(len(text) - 2 for text in counted[0])] * 5


@pytest.mark.parametrize("kind", BY_SCHEME)
def test_a_seed_decides_the_first_weights(kind, monkeypatch):
    train, begun = next_words.train, []

    def spy(model, *args, **options):
        begun.append(parameters_to_vector(model.parameters()).detach())
        return train(model, *args, **options)

    monkeypatch.setattr(next_words, "train", spy)
    runs = [one_run((kind, replace(FEW, seed=seed))) for seed in (0, 0, 1)]
    assert torch.equal(begun[0], begun[1]) and not torch.equal(begun[0], begun[2])
    assert runs[0] == runs[1] and runs[0]["all"]["loss"] != runs[2]["all"]["loss"]


def test_the_sizes_can_be_made_again_and_only_short_runs_have_three_seeds(few):
    runs, seeds = list(next_words.scaling(FEW)), {}
    for run in runs:
        seeds.setdefault((run["width"], run["steps"]), []).append(run["seed"])
    assert seeds == {(16, 2): [0, 1, 2], (32, 2): [0], (16, 1): [0, 1, 2], (16, 4): [0]}
    small, large = (next(run for run in runs if run["width"] == width) for width in (16, 32))
    assert small["without_embeddings"] < large["without_embeddings"] < large["weights"]
    assert next(run for run in runs if run["steps"] == 1)["tokens"] < small["tokens"]
