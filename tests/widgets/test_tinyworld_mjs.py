"""The page's Tinyworld gives the answers of Python's, to 1e-6, and the same refusals."""

import numpy as np
import pytest

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.pairs import NEGATIVES

ANSWERS = """
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const language = loadLanguage(data.language);
const asked = (question) => {
  try { return question(); } catch (error) { return { name: error.name, position: error.position, word: error.word }; }
};
console.log(JSON.stringify(data.cases.map(({ tokens, masked }) => ({
  posterior: asked(() => language.posterior(tokens, masked).map((row) => Array.from(row))),
  next: asked(() => Array.from(language.nextWord(tokens.slice(0, masked[0])))),
  logProb: asked(() => language.logProb(tokens)),
}))));
"""


def cases(language, n):
    rng = np.random.default_rng(7)
    for document in language.documents(n, seed=9, whole=False):
        many = int(rng.integers(1, 1 + min(12, len(document.tokens))))
        yield list(document.tokens), sorted(rng.choice(len(document.tokens), many, replace=False).tolist())
        first, last = document.sentences[0]
        yield list(document.tokens), list(range(first, last))


@pytest.mark.parametrize(("size", "dialect"), [("world", 0), ("world", 5), ("village", 0)])
def test_answers_equal_python(run_node, size, dialect):
    language = tinyworld.load(size, dialect)
    asked = list(cases(language, 12))
    found = run_node(
        ANSWERS, {"language": language.data, "cases": [{"tokens": t, "masked": m} for t, m in asked]}
    )
    for (tokens, masked), answer in zip(asked, found, strict=True):
        assert np.abs(np.array(answer["posterior"]) - language.posterior(tokens, masked)).max() < 1e-6
        assert np.abs(np.array(answer["next"]) - language.next_word(tokens[: masked[0]])).max() < 1e-6
        assert answer["logProb"] == pytest.approx(language.log_prob(tokens), abs=1e-6)


MANY = """
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const rows = loadLanguage(data.language).posterior(data.tokens, [...data.tokens.keys()]);
console.log(JSON.stringify(rows.map((row) => Array.from(row))));
"""


def test_a_text_of_masks_alone_is_answered_within_the_memory_of_a_phone(run_node, monkeypatch):
    """Such a text may be anything, so it has the most ways through the grammar."""
    monkeypatch.setenv("NODE_OPTIONS", "--max-old-space-size=600")  # MB
    language, tokens = tinyworld.load("world"), ["[MASK]"] * 64
    found = run_node(MANY, {"language": language.data, "tokens": tokens})
    assert np.abs(np.array(found) - language.posterior(tokens, range(64))).max() < 1e-6


def test_refusals_equal_python(run_node):
    language = tinyworld.load("village")
    tokens = list(language.documents(1, seed=3)[0].tokens)
    texts = [
        ["zebra", "."],
        [*tokens[:3], tokens[2], *tokens[3:]],
        tokens[:-1],
        tokens[::-1],
        ["[MASK]", "."],
        [".", "."],
    ]
    found = run_node(
        ANSWERS, {"language": language.data, "cases": [{"tokens": t, "masked": [0]} for t in texts]}
    )
    for text, answer in zip(texts, found, strict=True):
        try:
            language.posterior(text, [0])
        except tinyworld.Impossible as error:
            assert answer["posterior"] == {
                "name": "Impossible",
                "position": error.position,
                "word": error.word,
            }, text
        else:
            assert isinstance(answer["posterior"], list), text


PAIRS = """
const { Pairs } = await import(WIDGETS + "tinyworld.mjs");
const pairs = new Pairs(data.language);
console.log(JSON.stringify(data.cases.map(([a, b]) => ({
  row: pairs.inARow(a, b), order: pairs.inOrder(a, b),
  next: ["place", "topic", "anywhere"].map((kind) => pairs.isNext(a, b, kind)),
  apart: ["place", "topic", "anywhere"].map((kind) => pairs.apart(a, b, kind)),
}))));
"""


@pytest.mark.parametrize(("size", "dialect"), [("world", 0), ("world", 3), ("village", 0)])
def test_pairs_equal_python(run_node, size, dialect):
    """True pairs, exchanged ones, second sentences from elsewhere, and what is no sentence."""
    language = tinyworld.load(size, dialect)
    pairs = tinyworld.Pairs(language)
    first, second = pairs.sentences(pairs.draw(24, seed=4))
    asked = [*zip(first, second), *zip(second, first), *zip(first, second[1:]), *zip(first, first)]
    asked += [(first[0][:-1], second[0]), (first[0], second[0][1:]), (first[0] + second[0], second[0])]
    asked += [(("zebra", "."), second[0])]
    found = run_node(PAIRS, {"language": language.data, "cases": asked})
    for (a, b), answer in zip(asked, found, strict=True):
        assert answer["row"] == pytest.approx(pairs.in_a_row(a, b), rel=1e-6, abs=1e-15), (a, b)
        assert answer["order"] == pytest.approx(pairs.in_order(a, b), abs=1e-6), (a, b)
        for kind, next_, apart in zip(NEGATIVES, answer["next"], answer["apart"], strict=True):
            assert apart == pytest.approx(pairs.apart(a, b, kind), rel=1e-6, abs=1e-15), (a, b, kind)
            assert next_ == pytest.approx(pairs.is_next(a, b, kind), abs=1e-6), (a, b, kind)
