"""The shipped language: its size, its gold annotation, and its exact answers on real documents."""

import itertools
import json
import re
import tomllib
from collections import Counter

import numpy as np
import pytest

from selfsup.corpora import load_corpus, tinyworld
from selfsup.corpora.tinyworld.corpus import FLOORS
from selfsup.corpora.tinyworld.floors import corrupt, exact_losses
from selfsup.corpora.tinyworld.grammar import HERE
from selfsup.corpora.tinyworld.language import SHIPPED, phrases, render

LEXICON = tomllib.loads((HERE / "lexicon.toml").read_text(encoding="utf-8"))
GRAMMAR = (HERE / "grammar.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def world():
    return tinyworld.load("world")


@pytest.fixture(scope="module")
def documents(world):
    return world.documents(400, seed=5)


def test_the_shipped_file_is_the_compiled_grammar_and_small():
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == json.loads(
        json.dumps(tinyworld.compile_language("world"))
    ), "world.json is stale: run python -m selfsup.corpora.tinyworld"
    assert SHIPPED.stat().st_size <= 400_000


def test_the_language_is_as_rich_as_promised(world):
    schemas = [
        line
        for line in GRAMMAR.splitlines()
        if line.strip() and not re.match(r"\s*(#|\$\w+ = |topic |stage )", line)
    ]
    assert len(world.words) >= 500 and len(schemas) >= 40
    assert len(world.data["topics"]) >= 12
    assert len(LEXICON["ambiguous"]) >= 8
    tables = [register["rows"] for register in LEXICON["registers"].values() if "rows" in register]
    facts = sum(len(row) - 1 for table in tables for row in table)  # paris is the capital of france
    assert facts >= 60


def test_each_sense_of_an_ambiguous_word_occurs(world):
    drawn = Counter(
        (token, sense)
        for document in world.documents(3000, seed=1)
        for token, sense in zip(document.tokens, document.sense, strict=True)
        if sense
    )
    for word, senses in LEXICON["ambiguous"].items():
        for sense in senses:
            assert any(key[1] == sense and key[0].startswith(word) for key in drawn), (
                f"{word}#{sense} never occurs"
            )


def test_documents_have_five_to_nine_sentences_in_order(documents):
    for document in documents:
        assert 5 <= len(document.sentences) <= 9
        assert list(document.order) == sorted(set(document.order)), "stages are told in order, each once"
        assert [first for first, _ in document.sentences] == [0] + [
            last for _, last in document.sentences[:-1]
        ]


def test_gold_annotation_is_consistent(documents):
    for document in documents:
        assert {len(document.tokens)} == {
            len(x) for x in (document.pos, document.phrase, document.sense, document.coref, document.agrees)
        }
        for i, (before, controller) in enumerate(zip(document.coref, document.agrees, strict=True)):
            if before is not None and before >= 0:
                assert before < i and document.coref[before] is not None, "a mention refers back to a mention"
            if controller is not None:
                assert document.pos[i] in ("VERB", "AUX"), (document.tokens[i], document.pos[i])
                assert document.pos[controller] in ("NAME", "NOUN", "PRON"), document.tokens[controller]
        for tag, before in zip(document.phrase[1:], document.phrase, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:], "I- continues a phrase of its own kind"


def test_agreement_crosses_a_phrase_in_between(documents):
    distances = [i - c for d in documents for i, c in enumerate(d.agrees) if c is not None]
    assert max(distances) >= 4


def test_every_pronoun_has_the_gender_and_number_of_its_referent(world, documents):
    registers = {register["name"]: register for register in world.data["registers"]}
    group = {
        value: c
        for name in ("hero", "friend")
        for value, c in zip(registers[name]["values"], registers[name]["classes"], strict=True)
    }
    forms = {"she": {"she", "her", "i"}, "he": {"he", "him", "his", "i"}, "they": {"they", "them", "their", "we"}}
    checked = 0
    for document in documents:
        for i, token in enumerate(document.tokens):
            first = i
            while document.coref[first] is not None and document.coref[first] >= 0:
                first = document.coref[first]
            if (
                document.pos[i] == "PRON"
                and document.coref[i] is not None
                and document.tokens[first] in group
            ):
                assert token in forms[group[document.tokens[first]]], world.render(document.tokens)
                checked += 1
    assert checked > 50


def test_posteriors_are_distributions_and_know_the_evidence(world, documents):
    rng = np.random.default_rng(0)
    for document in documents[:40]:
        masked = sorted(rng.choice(len(document.tokens), 8, replace=False).tolist())
        answer = world.posterior(document.tokens, masked)
        assert answer.shape == (8, len(world.tokenizer)) and np.allclose(answer.sum(1), 1)
        assert (answer[:, :5] == 0).all(), "a special token is never the answer"
        for row, t in enumerate(masked):
            assert answer[row, world.index[document.tokens[t]] + 5] > 0, "what was drawn is possible"


def test_posteriors_come_in_the_order_asked_for(world, documents):
    tokens = documents[0].tokens
    first, second = world.posterior(tokens, [2, 5])
    assert np.array_equal(world.posterior(tokens, [5, 2, 5]), [second, first, second])
    assert world.posterior(tokens, []).shape == (0, len(world.tokenizer))


def test_the_chain_rule_holds(world, documents):
    """log P(text) is the sum of log P(next word | prefix), the end included: three ways through the same automaton."""
    for tokens in [document.tokens for document in documents[:3]]:
        steps = [world.next_word(tokens[:t])[world.index[tokens[t]] + 5] for t in range(len(tokens))]
        steps.append(world.next_word(tokens)[3])
        assert np.log(steps).sum() == pytest.approx(world.log_prob(tokens), abs=1e-8)
        assert world.surprisals(tokens) == pytest.approx(-np.log(steps), abs=1e-8)


def test_runs_of_whole_sentences_from_anywhere_are_possible(world, documents):
    for document in documents[:30]:
        for first, last in document.sentences:
            assert np.isfinite(world.log_prob(document.tokens[first:last]))


def test_every_dialect_speaks_the_same_vocabulary_with_other_names_and_facts(world):
    other = tinyworld.load("world", dialect=3)
    assert other.words == world.words
    names = [
        {register["name"]: register["values"] for register in language.data["registers"]}
        for language in (world, other)
    ]
    assert set(names[0]["hero"]) != set(names[1]["hero"])
    assert (
        other.data["views"] != world.data["views"]
        or other.data["distributions"] != world.data["distributions"]
    )
    assert tinyworld.load("world", dialect=3).texts(5, 0).tokens.tolist() == other.texts(5, 0).tokens.tolist()


def test_the_village_is_small():
    village = tinyworld.load("village")
    assert 90 <= len(village.words) <= 140 and 2 <= len(village.data["topics"]) <= 3


def test_the_recorded_floors_hold_on_fresh_texts():
    recorded = json.loads(FLOORS.read_text())
    for size in ("world", "village"):
        language = tinyworld.load(size)
        fresh = tinyworld.masking_floor(language, language.texts(150, seed=77), seed=3)
        old = recorded[size]["masking"]
        assert abs(fresh.value - old["value"]) < 4 * np.hypot(fresh.error, old["error"]), (size, fresh, old)


def test_the_topic_of_a_whole_document_is_clear_and_of_a_neutral_sentence_is_not(world, documents):
    names = [name for name, _ in world.data["topics"]]
    for document in documents[:40]:
        chance = world.topic(document.tokens, whole=True)
        assert chance.sum() == pytest.approx(1) and chance[names.index(document.topic)] > 0
    unsure = [max(world.topic(d.tokens[a:b])) for d in documents[:60] for a, b in d.sentences]
    assert min(unsure) < 0.5, "some sentence could stand in several topics"
    with pytest.raises(tinyworld.Impossible):
        world.topic(documents[0].tokens[:-1])


def test_dropping_improbable_places_changes_no_loss(world):
    texts, rng = world.texts(8, seed=99), np.random.default_rng(1)
    for i in range(len(texts)):
        case = corrupt(texts[i], rng, len(world.words), rate=0.15, mask=0.8, random=0.1)
        assert np.allclose(exact_losses(world, *case), exact_losses(world, *case, prune=1e-13), atol=1e-5, rtol=0)


def test_a_corpus_is_the_same_for_the_same_seed_and_holds_out_the_same_texts():
    a, b, c = (load_corpus("village", seed=seed, n=50) for seed in (0, 0, 1))
    assert a.train.tokens.tolist() == b.train.tokens.tolist() != c.train.tokens.tolist()
    assert a.held_out.tokens.tolist() == c.held_out.tokens.tolist()


@pytest.mark.parametrize("name", ["tinyworld", "village", "books"])
def test_an_option_that_no_corpus_takes_is_named(name):
    with pytest.raises(ValueError, match=f"'{name}' does not take these options.*moons"):
        load_corpus(name, moons=2)


def test_a_mistake_inside_a_loader_is_not_called_a_wrong_option(monkeypatch):
    def broken(size, *, seed=0):
        return len(seed)

    monkeypatch.setattr(tinyworld, "load_corpus", broken)
    with pytest.raises(TypeError, match="has no len"):
        load_corpus("village", seed=3)


def test_unknown_sizes_and_bad_positions_are_refused(world):
    with pytest.raises(ValueError, match="world.*village"):
        tinyworld.compile_language("city")
    with pytest.raises(ValueError, match="position 9"):
        world.posterior(["anna", "."], [9])
    for ask in (world.log_prob, world.topic, lambda tokens: world.posterior(tokens, [])):
        with pytest.raises(ValueError, match="the text is empty"):
            ask([])
    with pytest.raises(tinyworld.Impossible, match="not one of its words"):
        world.log_prob("<script> alert .".split())


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("topic a\nstage s\n  anna went", "ends in"),
        ("topic a\nstage s\n  <nolist> .", "no list"),
        ("topic a\nstage s\n  {nobody} .", "no register"),
        ("topic a\nstage s\n  $nothing .", "before it is defined"),
        ("topic a\nstage s\n  {hero=she} yes .", "no branch is left"),
        ("topic a\nstage s\n  zzzz .", "no part of speech"),
        ("topic a\nstage s\n", "no schema"),
        ("topic a\nstage s\n  <moment> .", "different tags"),
    ],
)
def test_mistakes_in_the_grammar_are_named(grammar, message):
    with pytest.raises(tinyworld.GrammarError, match=message):
        tinyworld.compile_language(grammar=grammar)


def test_text_is_rendered_as_english():
    assert render(["anna", "saw", "ben", "."], {"anna", "ben"}) == "Anna saw Ben."
    assert render('" come here ! " said ben .'.split(), {"ben"}) == '"Come here!" said Ben.'


def test_phrases_follow_the_parts_of_speech():
    assert phrases(["DET", "ADJ", "NOUN", "PREP", "DET", "NOUN", "AUX", "ADJ", "PUNCT"]) == [
        "B-NP",
        "I-NP",
        "I-NP",
        "B-PP",
        "B-NP",
        "I-NP",
        "B-VP",
        "B-ADJP",
        "O",
    ]


@pytest.mark.parametrize("size", ["world", "village"])
def test_from_every_state_the_ways_on_sum_to_one_whatever_the_registers_hold(size):
    automaton = tinyworld.load(size).document_automaton
    for state in range(automaton.size + 1):
        edges = range(automaton.pointer[state], automaton.pointer[state + 1])
        tests = [automaton.guards[automaton.guard[e]] if automaton.guard[e] >= 0 else () for e in edges]
        registers = sorted({register for test in tests for register, _ in test})
        for values in itertools.product(*(range(len(automaton.prior[r])) for r in registers)):
            held = dict(zip(registers, values, strict=True))
            ways = sum(
                automaton.edge_weight[e]
                for e, test in zip(edges, tests, strict=True)
                if all(mask >> held[r] & 1 for r, mask in test)
            )
            assert ways + automaton.final[state] == pytest.approx(1, abs=1e-9), (state, held)
