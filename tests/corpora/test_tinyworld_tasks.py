"""Tasks with gold answers: the gold is what the language says, and no shortcut gives it away."""

from collections import Counter

import pytest

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import (
    QUESTIONS,
    RELATIONS,
    SENTIMENTS,
    STATEMENTS,
    TASKS,
    entailment,
    questions,
    sentiment,
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


def test_statements_must_may_or_cannot_be_true(world, claims):
    """Checked by what stories hold: among those that begin with the same text, by drawing their endings."""
    mood = [one for one in claims if one.second[:3] == ("the", "end", "is")]
    assert len(mood) > 60
    for one in mood:
        value = ("bad", "good")[one.second[3] == "happy"]
        values = world.data["registers"][2]["values"]
        chance = world.register(one.first, "mood")[values.index(value)]
        expected = RELATIONS[one.gold]
        assert (chance > 1 - 1e-6) == (expected == "entailment"), (one, chance)
        assert (chance == 0) == (expected == "contradiction"), (one, chance)


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


def test_sentiment_is_what_the_story_holds(world):
    moods = world.data["registers"][2]["values"]
    for one in sentiment(world, 80, 4, longest=30):
        chance = world.register(one.first, "mood")[moods.index(SENTIMENTS[one.gold])]
        assert chance > 0 and len(one.first) <= 30
