"""Tasks with gold answers: the gold is what the language says, and no shortcut gives it away."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld import tasks
from selfsup.corpora.tinyworld.tasks import (
    QUESTIONS,
    RELATIONS,
    SENTIMENTS,
    STATEMENTS,
    TASKS,
    answer_spans,
    classes_of,
    entailment,
    kinds_of,
    questions,
    sentiment,
    statements,
)


@pytest.fixture(scope="module")
def world():
    return tinyworld.load("world")


@pytest.fixture(scope="module")
def claims(world):
    return entailment(world, 600, seed=3)


def test_every_word_of_every_statement_and_question_is_one_of_the_language(world):
    for text in [*STATEMENTS.values(), *QUESTIONS.values()]:
        assert [w for w in text.replace("{}", "").split() if w not in world.index] == [], text


@pytest.mark.parametrize("name", TASKS)
def test_equal_seeds_give_equal_examples_and_other_seeds_others(world, name):
    one, same, other = (TASKS[name](world, 40, seed) for seed in (1, 1, 2))
    assert one == same != other and len(one) == 40


def test_a_statement_alone_tells_nothing(claims):
    """Of each kind of statement, every relation is equally frequent; so the best guess from it is right in a third."""
    counts = Counter(one.gold for one in claims)
    assert max(counts.values()) - min(counts.values()) <= len(STATEMENTS)
    said = Counter((one.second, one.gold) for one in claims)
    best = sum(max(said[s, g] for g in range(3)) for s in {one.second for one in claims if one.second[1] == "end"})
    asked = sum(one.second[1] == "end" for one in claims)
    assert best / asked < 0.5, "the words of “the end is …” must not tell the relation"


def values_of(language, kind):
    """What a kind is about: the register's name, and the word of each of its values as the world's file has it."""
    register, _, column = kind.partition(".")
    entry = next(r for r in language.data["registers"] if r["name"] == register)
    return register, entry["columns"][column] if column else entry["values"]


def parsed(statement):
    """The kind of a statement and the word that it says, read from its form."""
    found = [(kind, match[2]) for kind, form in STATEMENTS.items()
             if (match := re.fullmatch(re.escape(form).replace(r"\{\}", r"(the )?(\w+)"), statement))]
    assert len(found) == 1, f"{statement!r} is a statement of {len(found)} kinds"
    return found[0]


def chance_that(language, text, statement):
    """P(a statement is true of the text's story), from what the language says of the register."""
    kind, word = parsed(statement)
    register, values = values_of(language, kind)
    word = {"happy": "good", "sad": "bad"}[word] if kind == "mood" else word
    assert word in values, (statement, kind)
    return sum(float(p) for value, p in zip(values, language.register(text, register)) if value == word)


def has_relation(chance, relation):
    limits = {"entailment": (1 - 1e-9, 2), "neutral": (1e-9, 1 - 1e-6), "contradiction": (-1, 0)}
    low, high = limits[relation]
    return low < chance <= high


def test_statements_must_may_or_cannot_be_true(world, claims):
    """Every kind is asked, and its gold is what the language's register of that kind says."""
    kinds = set()
    for one in claims:
        statement = " ".join(one.second)
        chance = chance_that(world, one.first, statement)
        assert has_relation(chance, RELATIONS[one.gold]), (one, chance)
        kinds.add(parsed(statement)[0])
    assert kinds == set(STATEMENTS)


def test_statements_are_all_that_can_be_said(world):
    """Of a text, every word of a kind is where its chance belongs, and only what is nearly sure is left out."""
    seen = set()
    for document in world.documents(60, seed=21, whole=False):
        for kind in kinds_of(world, document.topic, STATEMENTS):
            seen.add(kind)
            told = statements(world, document, kind)
            for relation, some in zip(RELATIONS, told):
                for statement in some:
                    assert parsed(statement)[0] == kind
                    assert has_relation(chance_that(world, document.tokens, statement), relation), (document, statement)
            said = [text for some in told for text in some]
            words = set(values_of(world, kind)[1])
            assert len(said) == len(set(said)) and len(words) - 1 <= len(said) <= len(words), (kind, said)
    assert seen == set(STATEMENTS)


def test_what_a_statement_must_say_is_what_the_document_holds(world):
    """The gold of a document is never contradicted, and what must be true is its gold."""
    registers = {r["name"]: r["values"] for r in world.data["registers"]}
    for document in world.documents(150, seed=11, whole=False):
        hero = world.register(document.tokens, "hero")
        assert hero[registers["hero"].index(document.hero)] > 0
        if hero.max() > 1 - 1e-9:
            assert registers["hero"][hero.argmax()] == document.hero
        mood = world.register(document.tokens, "mood")
        assert mood[registers["mood"].index(document.sentiment)] > 0


def test_the_chance_of_a_register_is_calibrated(world):
    documents = world.documents(600, seed=12, whole=False)
    told = [world.register(d.tokens, "mood")[SENTIMENTS[::-1].index(d.sentiment)] for d in documents]
    likely = [max(p, 1 - p) for p in told]
    right = sum(p > 0.5 for p in told) + 0.5 * sum(p == 0.5 for p in told)
    assert abs(right - sum(likely)) < 4 * (600 * 0.25) ** 0.5
    with pytest.raises(ValueError, match="each sentence"):
        world.register(documents[0].tokens, "thing")


def test_answers_stand_in_the_text_and_nothing_unanswerable_is_answered(world):
    asked = questions(world, 500, seed=5)
    assert 0.2 < sum(not one.gold for one in asked) / 500 < 0.4
    kinds = {tuple(text.split()): kind for kind, text in QUESTIONS.items()}
    for one in asked:
        kind = kinds[one.first]
        register, _, column = kind.partition(".")
        entry = next(r for r in world.data["registers"] if r["name"] == register)
        words = set(entry["columns"][column] if column else entry["values"])
        for first, last in one.gold:
            assert 0 <= first < last <= len(one.second) and words & set(one.second[first:last]), one
            assert "." not in one.second[first:last]
        if register in ("hero", "pet", "crop", "fruit") and not one.gold:  # words that nothing else says
            assert not words & set(one.second), one


def test_what_is_nearly_sure_is_neither_sure_nor_open(world, monkeypatch):
    good, bad = ["the end is happy ."], ["the end is sad ."]
    values = world.data["registers"][2]["values"]
    for chance, expected in ((1.0, [good, [], bad]), (1 - 1e-4, [[], bad + good, []]), (1 - 1e-7, [[], bad, []])):
        chances = [chance if value == "good" else 1 - chance for value in values]
        monkeypatch.setattr(world, "register", lambda *_, told=chances: told)
        assert [sorted(some) for some in statements(world, world.documents(1, 0)[0], "mood")] == [
            sorted(some) for some in expected]


def test_an_answer_is_as_long_as_its_phrase(world):
    said, phrase = values_of(world, "gift")[1][0], ("O", "B-NP", "I-NP", "I-NP", "I-NP", "I-NP", "B-NP")
    document = replace(world.documents(1, 0)[0], tokens=("saw", "a", "big", said, "big", "big", "tom"), phrase=phrase,
                       reads=(None, None, None, "gift", None, None, None))
    assert answer_spans(world, document, "gift") == ((1, 6),)


def test_answers_are_the_phrases_where_the_document_says_the_word(world):
    """Every kind of question: each place where the story's own word stands is in an answer, and nothing else is one."""
    answered = set()
    for document in world.documents(200, seed=22, whole=False):
        for kind in kinds_of(world, document.topic, QUESTIONS):
            register, values = values_of(world, kind)
            places = [i for i, word in enumerate(document.tokens) if document.reads[i] == register and word in values]
            spans = answer_spans(world, document, kind)
            assert len(spans) == len(places), (document, kind)
            for place, (first, last) in zip(places, spans):
                assert first <= place < last
                opens = [not tag.startswith("I-") for tag in (*document.phrase, "O")]
                assert opens[first] and opens[last] and not any(opens[first + 1 : last]), "an answer is a whole phrase"
                chances = zip(values, world.register(document.tokens, register))
                assert sum(p for value, p in chances if value == document.tokens[place]) > 0, (document, kind)
                answered.add(kind)
    assert answered == set(QUESTIONS)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_as_many_questions_have_no_answer_as_are_asked_for(world, share):
    """Within four standard deviations of a drawn share."""
    found = sum(not one.gold for one in questions(world, 150, 6, longest=40, unanswerable=share)) / 150
    assert abs(found - share) <= 4 * (share * (1 - share) / 150) ** 0.5


@pytest.mark.parametrize("name", ["entailment", "questions"])
def test_the_seed_draws_what_is_asked_about_a_text(world, name, monkeypatch):
    documents = world.documents(200, 0, whole=False)
    monkeypatch.setattr(tasks, "_stories", lambda *_: iter(documents))  # the same, whatever the seed
    one, same, other = ([(e.first, e.second) for e in TASKS[name](world, 30, seed)] for seed in (1, 1, 2))
    assert one == same != other


def test_sentiment_is_of_texts_that_tell(world):
    moods = world.data["registers"][2]["values"]

    def chances(examples):
        return [world.register(one.first, "mood")[moods.index(SENTIMENTS[one.gold])] for one in examples]

    told = sentiment(world, 80, 4, longest=30)
    assert min(chances(told)) >= 0.95 and {one.gold for one in told} == {0, 1}
    assert max(len(one.first) for one in told) <= 30
    guessed = chances(sentiment(world, 80, 4, longest=30, sure=0.5))
    assert 0.5 - 1e-9 < min(guessed) < 0.95, "who asks for less has texts that tell less"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_as_many_examples_as_a_whole_number_says(world, name, n):
    with pytest.raises(ValueError, match="n is .* whole number of at least 1"):
        TASKS[name](world, n, 1)


@pytest.mark.parametrize("name", TASKS)
def test_texts_that_are_too_short_to_be_found_are_refused(world, name):
    assert len(TASKS[name](world, np.int64(2), 1, longest=5)) == 2
    with pytest.raises(ValueError, match="none of 2,000 texts has at most 1 words: allow longer ones"):
        TASKS[name](world, 3, 1, longest=1)


@pytest.mark.parametrize("value", [1.5, -1, float("nan")])
def test_what_is_no_share_is_refused(world, value):
    with pytest.raises(ValueError, match="sure is .* from 0.5"):
        sentiment(world, 3, 1, sure=value)
    with pytest.raises(ValueError, match="sure is 0.4"):
        sentiment(world, 3, 1, sure=0.4)
    with pytest.raises(ValueError, match="unanswerable is .* give 0 to 1"):
        questions(world, 3, 1, unanswerable=value)


def test_classes_of_an_unknown_task_are_refused(world):
    with pytest.raises(ValueError, match="no task 'tagging': choose one of sentiment, tags, entailment, questions"):
        classes_of("tagging", world)
