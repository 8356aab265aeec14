"""What a model of Tinyworld is asked: gold labels, exact answers, and vectors and answers against a slow loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from selfsup.abilities import (
    CLOZES,
    FACTS,
    PROBES,
    VERBS,
    Probed,
    _verbs,
    answers,
    counting,
    crossing,
    vectors,
)
from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld import Impossible
from selfsup.corpora.tinyworld.automaton import SPECIAL
from selfsup.corpora.tinyworld.floors import MASK_ID
from selfsup.corpora.tinyworld.spellings import FREQUENCIES, FUNCTION, Spellings
from selfsup.models.bert import MaskedLanguageModel
from selfsup.models.pretrained import load
from selfsup.models.shapes import TransformerConfig
from selfsup.probing import control_labels, fit_probe, right


@pytest.fixture(scope="module")
def world():
    return tinyworld.load("world")


@pytest.fixture(scope="module")
def model(world):
    torch.manual_seed(0)
    shape = dict(layers=2, width=16, heads=2, feed_forward=32, dropout=0.0, init_std=0.2)
    config = TransformerConfig(len(world.tokenizer), **shape)
    return MaskedLanguageModel(config).eval()


def words_of(world, asked, i) -> list[str]:
    """The words of the text that example i is in, [MASK] where one is covered."""
    ids = asked.ids[asked.text[i], 1 : int(asked.attention_mask[asked.text[i]].sum()) - 1]
    return world.tokenizer.convert_ids_to_tokens(ids.tolist())


@pytest.mark.parametrize("name", PROBES)
def test_a_question_has_labels_places_and_seeds(world, name):
    asked, again, other = (PROBES[name](world, 30, seed) for seed in (1, 1, 2))
    assert len(asked.text) == len(asked.labels) == len(asked.spans) == len(asked.counted) == 30
    assert torch.equal(asked.ids, again.ids) and torch.equal(asked.labels, again.labels), "equal seeds, equal questions"
    assert asked.ids.shape != other.ids.shape or not torch.equal(asked.ids, other.ids)
    assert int(asked.labels.min()) >= 0 and int(asked.labels.max()) < len(asked.classes)
    for runs in (asked.spans, asked.counted):
        lengths = asked.attention_mask[asked.text].sum(1)[:, None]
        assert (runs[..., 0] >= 1).all() and (runs[..., 0] < runs[..., 1]).all(), "[CLS] is never asked"
        assert (runs[..., 1] < lengths).all(), "nor is [SEP]"
    if asked.best is not None:
        assert asked.best.shape == (30,) and asked.best.dtype == bool


@pytest.mark.parametrize("name", [*PROBES, *CLOZES])
@pytest.mark.parametrize("n", [0, -5, 2.5])
def test_a_question_asks_for_one_example_or_more(world, name, n):
    """Some would look for texts for ever."""
    with pytest.raises(ValueError, match=f"n is {n}: give a whole number from 1"):
        (PROBES | CLOZES)[name](world, n, 1)


def test_what_a_question_cannot_ask_is_said(world):
    with pytest.raises(ValueError, match="n is 7: give a multiple of 5, so that there are as many of each"):
        CLOZES["facts"](world, 7, 1)
    with pytest.raises(ValueError, match="no word of 1 texts is covered: ask for more texts"):
        for seed in range(60):
            CLOZES["words"](world, 1, seed)


@pytest.mark.parametrize("name", ["part of speech", "order", "topic"])
def test_vectors_are_the_means_that_a_slow_loop_finds(world, model, name):
    asked = PROBES[name](world, 40, 3)
    found = vectors(model.encoder, asked, batch_size=7)
    assert found.shape == (3, 40, 16 * asked.spans.shape[1])
    for i in range(40):
        text = asked.ids[asked.text[i] : asked.text[i] + 1, : int(asked.attention_mask[asked.text[i]].sum())]
        with torch.no_grad():
            alone = model.encoder(text, all_layers=True)[:, 0]  # (layers + 1, time, width)
        slow = torch.cat([alone[:, first:last].mean(1) for first, last in asked.spans[i].tolist()], -1)
        assert (found[:, i] - slow).abs().max() < 1e-5


@pytest.mark.parametrize("name", CLOZES)
def test_answers_are_those_of_a_slow_loop(world, model, name):
    asked = CLOZES[name](world, 25, 3)
    right_here, loss = answers(model, asked, batch_size=7)
    for i in range(len(asked.real)):
        text = asked.ids[asked.text[i] : asked.text[i] + 1, : int(asked.attention_mask[asked.text[i]].sum())]
        with torch.no_grad():
            logits = model(text)[0, asked.place[i]]
        rival = int(asked.rival[i])
        best = logits.argmax() == asked.real[i] if rival < 0 else logits[asked.real[i]] > logits[rival]
        assert bool(best) == right_here[i] and abs(float(-logits.log_softmax(-1)[asked.real[i]]) - loss[i]) < 1e-4
        assert text[0, asked.place[i]] == MASK_ID, "what is asked for is covered"


GOLD = {  # what the annotation of a document says of a place in it
    "part of speech": lambda document, place: document.pos[place],
    "phrase": lambda document, place: document.phrase[place],
    "topic": lambda document, place: document.topic,
    "mood": lambda document, place: document.sentiment,
}


@pytest.mark.parametrize("name", GOLD)
def test_labels_are_those_of_the_annotation(world, name):
    """The same texts drawn again: each label is that of the place that the probe gets."""
    asked, documents = PROBES[name](world, 40, 4), world.documents(500, [4, 0], whole=False)
    for i in range(40):
        document, place = documents[int(asked.text[i])], int(asked.spans[i, 0, 0]) - 1
        assert words_of(world, asked, i) == list(document.tokens), "not the same texts"
        assert asked.classes[asked.labels[i]] == GOLD[name](document, place)


def test_senses_are_those_of_the_annotation(world):
    asked, documents = PROBES["sense"](world, 40, 4), world.documents(500, [4, 0], whole=False)
    ambiguous = [document for document in documents if any(document.sense)]
    for i in range(40):
        document, place = ambiguous[int(asked.text[i])], int(asked.spans[i, 0, 0]) - 1
        assert words_of(world, asked, i) == list(document.tokens), "not the same texts"
        assert asked.classes[asked.labels[i]] == f"{document.tokens[place]}#{document.sense[place]}"


def test_the_number_is_that_of_the_covered_verb(world):
    """The same verbs, asked in two ways: their label, and the word that was covered."""
    asked, verbs = PROBES["agreement"](world, 60, 4), CLOZES["minimal pairs"](world, 60, 4)
    assert torch.equal(asked.ids, verbs.ids)
    told = {}
    for label, real in zip(asked.labels.tolist(), world.tokenizer.convert_ids_to_tokens(verbs.real.tolist())):
        told.setdefault(real, set()).add(asked.classes[label])
    assert told["was"] == {"one"} and told["were"] == {"many"}
    assert all(len(numbers) == 1 for numbers in told.values()), "a form has two numbers"


def test_who_knows_the_order_is_right_where_the_exact_rules_are(world):
    asked, pairs = PROBES["order"](world, 60, 4), tinyworld.Pairs(world)
    decided = 0
    for i in range(60):
        words = words_of(world, asked, i)
        a, b = (words[first - 1 : last - 1] for first, last in asked.spans[i].tolist())
        chance, kept = pairs.in_order(a, b), asked.classes[asked.labels[i]] == "in order"
        if chance != 0.5:
            decided += 1
            assert asked.best[i] == ((chance > 0.5) == kept)
    assert decided > 40 and not PROBES["covered part of speech"](world, 300, 4).best.all()


def test_the_exact_rules_take_no_side_in_a_tie(world):
    """Of words that are equally likely they take one by chance, whatever its number in the vocabulary."""
    asked = CLOZES["words"](world, 150, 5)
    tied = 0
    for i in range(len(asked.real)):
        tokens = words_of(world, asked, i)
        covered = [place for place, token in enumerate(tokens) if token == "[MASK]"]
        exact = world.posterior(tokens, covered)[covered.index(int(asked.place[i]) - 1)]
        likeliest = [word for word in range(len(exact)) if exact[word] > exact.max() - 1e-9]
        tied += len(likeliest) > 1
        assert asked.best[i] == pytest.approx((int(asked.real[i]) in likeliest) / len(likeliest))
    assert tied > 3, "no tie was met, so nothing was tested"


@pytest.mark.parametrize("name", CLOZES)
def test_a_good_model_stands_a_little_above_the_exact_rules(world, name):
    """Which it cannot if these do not see what it sees, or see more."""
    asked = CLOZES[name](world, 150, 5)
    told, loss = answers(load("tinyworld-bert")[0], asked)
    easy = asked.group != "thing.colour"  # which it never learned
    assert asked.floor.mean() < loss.mean() and loss[easy].mean() < asked.floor[easy].mean() + 0.1
    assert abs(told[easy].mean() - asked.best[easy].mean()) < 0.06
    assert (asked.floor > -1e-9).all() and (asked.real >= SPECIAL).all()


@pytest.mark.parametrize("name", ["covered part of speech", "agreement", "sense", "topic", "mood", "order"])
def test_who_is_sure_is_right(world, name):
    """Where the exact rules leave one label it is the gold one, and counting words is no better than they are."""
    learned, asked = (PROBES[name](world, n, seed) for n, seed in ((300, 8), (200, 9)))
    assert asked.best.mean() + 0.03 > counting(learned, asked).mean()
    if name == "covered part of speech":
        for i in range(200):
            place = int(asked.spans[i, 0, 0]) - 1
            exact = world.posterior(words_of(world, asked, i), [place])[0]
            assert asked.best[i] or exact.max() < 1 - 1e-9, "one word is possible, so its kind is known"


def test_minimal_pairs_differ_in_one_word_and_one_is_impossible(world):
    asked = CLOZES["minimal pairs"](world, 120, 4)
    both = VERBS | {many: one for one, many in VERBS.items()}
    names = world.tokenizer.convert_ids_to_tokens
    for i in range(120):
        tokens, place = words_of(world, asked, i), int(asked.place[i]) - 1
        assert tokens.count("[MASK]") == 1 and tokens[place] == "[MASK]"
        real, rival = names([int(asked.real[i]), int(asked.rival[i])])
        assert both[real] == rival, "the same verb in its other number"
        world.log_prob([*tokens[:place], real, *tokens[place + 1 :]])
        with pytest.raises(Impossible):
            world.log_prob([*tokens[:place], rival, *tokens[place + 1 :]])
    assert {"no noun", "same number", "other number"} == set(asked.group)
    assert asked.best.all(), "who knows the rules takes the possible one"


def test_what_stands_between_subject_and_verb(world):
    """Against a table of nouns, written by hand."""
    plural = {"stones", "tents", "gloves", "cakes", "leaves", "potatoes", "carrots", "tools", "boats", "pumpkins",
              "peas", "lemons", "leeks", "coins", "books", "tomatoes", "palaces", "pears", "onions", "grapes", "apples",
              "turnips", "plums", "cherries", "melons", "peaches"}
    seen = set()
    for verb in islice(_verbs(world, 6), 300):
        words, tags = verb.document.tokens, verb.document.pos
        nouns = [words[i] for i in range(verb.subject + 1, verb.place) if tags[i] == "NOUN"]
        many = words[verb.place] in VERBS.values()
        other = [noun for noun in nouns if (noun in plural) != many]
        assert verb.between == ("other number" if other else "same number" if nouns else "no noun"), (nouns, many)
        assert other_number(words[verb.place]) == verb.other
        seen.add(verb.between)
    assert len(seen) == 3


def other_number(verb):
    return (VERBS | {many: one for one, many in VERBS.items()})[verb]


def test_facts_stand_nowhere_else_in_the_text(world):
    asked, known = CLOZES["facts"](world, 150, 4), {}
    assert all((asked.group == fact).sum() == 30 for fact in FACTS), "as many of each"
    for fact in FACTS:
        name, column = fact.split(".")
        entry = next(one for one in world.data["registers"] if one["name"] == name)
        known[fact] = dict(zip(entry["values"], entry["columns"][column]))
    for i in range(150):
        tokens, real = words_of(world, asked, i), world.tokenizer.convert_ids_to_tokens([int(asked.real[i])])[0]
        assert real not in tokens, "the answer is covered everywhere"
        assert any(known[asked.group[i]].get(token) == real for token in tokens), "what it is a fact about is visible"
    assert asked.best.mean() > 0.99


def test_the_label_of_a_pronoun_is_the_hero_it_means(world):
    asked = PROBES["coreference"](world, 100, 4)
    for i in range(100):
        place, name = int(asked.spans[i, 0, 0]) - 1, asked.classes[asked.labels[i]]
        tokens = words_of(world, asked, i)
        assert tokens[place] in {"he", "she", "they", "him", "her", "his", "them", "their", "i", "we"}
        assert name in tokens[:place], "and he, she or they are named before"


def test_exchanged_sentences_are_what_the_exact_rules_know(world):
    asked = PROBES["order"](world, 300, 4)
    kept = asked.labels == asked.classes.index("in order")
    assert 0.4 < kept.float().mean() < 0.6 and asked.best.mean() > 0.9


class Reader(torch.nn.Module):
    """An encoder whose first layer is words as they are, and whose second one is nothing."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, ids, mask, all_layers):
        words = torch.nn.functional.one_hot(ids, self.vocabulary).float()
        return torch.stack([words, torch.zeros_like(words)])


def test_a_planted_ability_is_found_and_its_absence_is_not(world):
    learned, asked = (PROBES["part of speech"](world, n, seed) for n, seed in ((600, 1), (400, 2)))
    encoder = Reader(len(world.tokenizer))
    told = [right(fit_probe(seen, learned.labels, 13, steps=50), other, asked.labels).mean()
            for seen, other in zip(vectors(encoder, learned), vectors(encoder, asked))]
    usual = counting(learned, asked).mean()
    assert abs(told[0] - usual) < 0.05, "words as they are: as good as counting them"
    assert told[1] < 0.25, "nothing: as good as guessing"


def test_a_control_task_is_learned_by_heart_from_words_and_chance_where_the_word_is_covered(world, model):
    learned, asked = (PROBES["part of speech"](world, n, seed) for n, seed in ((600, 1), (300, 2)))
    words = [one.ids[one.text, one.spans[:, 0, 0]] for one in (learned, asked)]
    told, gold = (control_labels(w, learned.labels, len(world.tokenizer)) for w in words)
    commonest = float(gold.bincount().max() / len(gold))
    rows = [*zip(vectors(Reader(len(world.tokenizer)), learned), vectors(Reader(len(world.tokenizer)), asked))]
    by_heart, nothing = (right(fit_probe(seen, told, 13, steps=50), other, gold).mean() for seen, other in rows)
    assert by_heart > commonest + 0.3 and nothing < commonest + 0.05
    covered = [replace(one, ids=one.ids.index_put((one.text, one.spans[:, 0, 0]), torch.tensor(MASK_ID)))
               for one in (learned, asked)]
    for seen, other in zip(*(vectors(model.encoder, one) for one in covered)):
        assert right(fit_probe(seen, told, 13, penalty=50.0), other, gold).mean() < commonest + 0.1


def test_who_counts_sees_the_words_of_its_runs_only():
    ids = torch.tensor([[2, 10 + k % 2, 20 + (k // 2) % 2, 3] for k in range(80)])
    runs = torch.tensor([[[1, 2]]] * 80)
    one = Probed(ids, torch.ones_like(ids), torch.arange(80), runs, runs, ids[:, 1] - 10, ("even", "odd"))
    assert counting(one, one).all()
    other = torch.tensor([[[2, 3]]] * 80)
    blind = Probed(ids, torch.ones_like(ids), torch.arange(80), runs, other, ids[:, 1] - 10, ("even", "odd"))
    assert counting(blind, blind).mean() == 0.5


@pytest.mark.parametrize("kind", FREQUENCIES)
def test_spellings_are_no_more_frequent_than_asked_and_say_the_same_words(world, kind):
    spelled = Spellings(world, kind)
    texts = world.texts(3000, 9)
    ids = spelled.spell(texts.tokens, 1)
    assert (spelled.word_of[torch.from_numpy(ids)].numpy() == texts.tokens).all(), "the word can be read again"
    assert len(spelled.tokenizer) == len(spelled.word_of) == SPECIAL + spelled.ways.sum()
    most = np.where(np.isin(world.data["pos"], FUNCTION), *FREQUENCIES[kind])
    assert (spelled.share / spelled.ways <= most).all()
    if kind == "natural":
        assert (ids == texts.tokens).all()
    else:
        the = world.index["the"]
        written = ids[texts.tokens == SPECIAL + the] - SPECIAL - spelled.first[the]
        ways = np.bincount(written, minlength=spelled.ways[the])
        assert len(ways) == spelled.ways[the] > 50 and ways.min() > 0
        assert 0.7 < ways.var() / ways.mean() < 1.4, "each way as often as any other, as chance has it"
    assert (spelled.spell([[0, MASK_ID, 3]], 0) == [[0, MASK_ID, 3]]).all(), "special tokens stay"


def test_spellings_of_a_word_count_together(world):
    spelled = Spellings(world, "equal")
    logits = torch.randn(3, len(spelled.tokenizer), generator=torch.Generator().manual_seed(0))
    words = spelled.by_word(logits).exp()
    assert torch.allclose(words.sum(1), torch.ones(3).double()) and words.shape == (3, len(world.tokenizer))
    the = SPECIAL + world.index["the"]
    assert torch.allclose(words[:, the], logits.double().softmax(-1)[:, spelled.word_of == the].sum(1))
    with pytest.raises(ValueError, match="there are no 'odd' frequencies: choose one of natural, equal, exchanged"):
        Spellings(world, "odd")


@pytest.mark.parametrize("scores, step", [
    ([0.1, 0.6, 0.4, 0.7, 0.8], 40),
    ([0.6, 0.7, 0.5, 0.9, 0.5], 0),
    ([0.1, 0.6, 0.7, 0.8, 0.4], None),
    ([0.1, 0.2, 0.3, 0.4, 0.5], 80),
    ([0.1, 0.2, 0.3, 0.4, 0.45], None),
])  # fmt: skip
def test_an_ability_is_there_when_it_is_lost_no_more(scores, step):
    assert crossing([0, 10, 20, 40, 80], scores, 0.5) == step
