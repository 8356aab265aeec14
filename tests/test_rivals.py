"""The baselines that count: by hand, and against the scores that the networks get."""

from __future__ import annotations

import pytest
import torch

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS, Example, classes_of
from selfsup.finetuning import AnswerFinder, Tagger, answer_scores, as_batch, tag_scores
from selfsup.models.encoder import Encoder
from selfsup.models.shapes import TransformerConfig
from selfsup.recorded import rivals

GOOD, BAD = Example(("good",), (), 1), Example(("bad",), (), 0)
ENTAILED, NEUTRAL, CONTRADICTED = range(3)


def statement(text, said, gold):
    return Example(tuple(text.split()), tuple(said.split()), gold)


def test_majority_and_counted_words():
    assert rivals.majority([GOOD, GOOD, BAD], [GOOD, BAD]) == [1, 1]
    assert rivals.counted_words([GOOD, BAD], [BAD, GOOD]) == [0, 1]


def test_shared_words():
    follows, not_so = statement("a boat came", "a boat", 1), statement("a boat", "tom ran", 0)
    assert rivals.shared_words([follows, not_so] * 10, [follows, not_so]) == [1, 0]


def test_usual_tags():
    one, two = Example(("a", "run"), (), ("DT", "NN")), Example(("I", "run"), (), ("PRP", "VBP"))
    assert rivals.usual_tags([one, one, two], [Example(("a", "run", "ran"), (), ())]) == [("DT", "NN", "DT")]


def test_said_word_looks_for_the_word_and_for_its_like():
    learned = [
        statement("they saw a kite .", "the present is a kite .", ENTAILED),
        statement("they saw a drum .", "the present is a kite .", CONTRADICTED),
        statement("it was late .", "the present is a drum .", NEUTRAL),
        statement("it was late .", "they planted peas .", NEUTRAL),
    ]
    asked = [
        statement("a drum came .", "the present is a drum .", None),
        statement("a kite came .", "the present is a hat .", None),
        statement("nothing came .", "the present is a hat .", None),
        statement("they like corn .", "they planted corn .", None),  # as with presents: the text has the word
    ]
    assert rivals.said_word(learned, asked) == [ENTAILED, CONTRADICTED, NEUTRAL, ENTAILED]


def test_known_answers_are_the_longest_that_the_text_has():
    who, what = ("who", "?"), ("what", "?")
    learned = [Example(who, ("old", "tom", "met", "ann"), ((0, 2), (3, 4))), Example(who, ("it", "rained"), ())]
    learned.append(Example(who, ("tom", "ran"), ((0, 1),)))
    wanted = [(who, "old tom sat"), (who, "tomorrow"), (what, "tom"), (who, "ann sat")]
    asked = [Example(question, tuple(text.split()), ()) for question, text in wanted]
    assert rivals.known_answers(learned, asked) == [("old", "tom"), (), (), ()]


@pytest.fixture(scope="module")
def world():
    return tinyworld.load("world")


def encoder(world):
    torch.manual_seed(0)
    return Encoder(TransformerConfig(len(world.tokenizer), layers=1, width=16, heads=2, feed_forward=16))


def test_rivals_and_networks_are_scored_alike(world):
    """What a model tells, given to the rivals' scores, has the score that the model gets."""
    from selfsup.finetuning import predict

    examples, classes = TASKS["tags"](world, 20, 3, longest=40), classes_of("tags", world)
    batch, gold = as_batch(examples, world.tokenizer, classes)
    model = Tagger(encoder(world), len(classes))
    told = [tuple(classes[c] for c in row[1 : 1 + len(one.gold)]) for row, one in zip(predict(model, batch), examples)]
    assert rivals.mean_tag_f1(told, examples) == pytest.approx(tag_scores(model, batch, gold, classes)["macro"])
    every, same = [tag for tags in told for tag in tags], [tag for one in examples for tag in one.gold]
    assert rivals.right(told, examples) == sum(a == b for a, b in zip(every, same)) / len(same)

    examples = TASKS["questions"](world, 20, 3, longest=40)
    batch, _ = as_batch(examples, world.tokenizer)
    model, told = AnswerFinder(encoder(world)), []
    for (start, end), one in zip(predict(model, batch).tolist(), examples):
        shift = len(one.first) + 2
        told.append(one.second[start - shift : end + 1 - shift] if start else ())
    assert rivals.mean_word_f1(told, examples) == pytest.approx(answer_scores(model, batch, examples)["f1"])


def test_every_statement_of_the_world_is_understood(world):
    examples = TASKS["entailment"](world, 300, 5, longest=40)
    assert rivals.right(rivals.said_word(examples[:200], examples[200:]), examples[200:]) > 0.5
