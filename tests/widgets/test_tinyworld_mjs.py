"""The page's Tinyworld gives the answers of Python's, to 1e-6, and the same refusals."""

import numpy as np
import pytest

from selfsup.corpora import tinyworld

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
