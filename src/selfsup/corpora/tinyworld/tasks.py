"""Four tasks with gold answers, one of each kind that BERT is fine-tuned for (Devlin et al. 2019, figure 4).

Texts are runs of whole sentences, as `Language.texts` draws them. What a text says about its story is decided by the
exact posterior of the language's registers, never by a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from numbers import Integral
from typing import Any

import numpy as np

from .language import Document, Language

SENTIMENTS = ("bad", "good")
RELATIONS = ("entailment", "neutral", "contradiction")

# What can be said and asked about a story: of each register, or a column of its facts, a statement and a question.
STATEMENTS = {
    "hero": "the story is about {} .",
    "friend": "{} came too .",
    "mood": "the end is {} .",
    "time": "it was {} .",
    "fruit": "they wanted {} .",
    "crop": "they planted {} .",
    "gift": "the present is a {} .",
    "boat": "there was a {} in the water .",
    "vehicle": "they went by {} .",
    "project": "they build a {} .",
    "pet": "the name of the dog is {} .",
    "spot": "the dog was near the {} .",
    "country": "they travel to {} .",
    "country.capital": "the capital is {} .",
    "animal": "the mother is a {} .",
    "animal.home": "its home is a {} .",
    "animal.young": "the baby is a {} .",
    "word": "the teacher asked about {} .",
    "word.opposite": "the opposite is {} .",
}
QUESTIONS = {
    "hero": "who is the story about ?",
    "friend": "who came too ?",
    "time": "when was it ?",
    "fruit": "what was in the basket ?",
    "crop": "what did they plant ?",
    "gift": "what is the present ?",
    "boat": "what was in the water ?",
    "vehicle": "what did they travel in ?",
    "project": "what will they build ?",
    "pet": "what is the name of the dog ?",
    "spot": "where was the dog ?",
    "country": "where did they travel to ?",
    "country.capital": "what is the capital ?",
    "animal": "who was the mother ?",
    "animal.home": "where is its home ?",
    "animal.young": "who was the baby ?",
    "word": "what is it the opposite of ?",
    "word.opposite": "what is the opposite ?",
}
WORDS = {"mood": {"good": "happy", "bad": "sad"}}  # where the value itself is not what a statement says


@dataclass(frozen=True)
class Example:
    """One labelled text, or two, and the gold answer.

    first, second: words; gold: of `sentiment` and `entailment` the number of the class, of `tags` one tag a word, of
    `questions` every right answer in `second` as (first word, last word + 1), and none when it does not say.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: Any


def sentiment(language: Language, n: int, seed: int, longest: int | None = None, sure: float = 0.95) -> list[Example]:
    """n texts that tell how their story ends, badly (0) or well (1): the exact rules are at least `sure` of it.

    longest: words of a text at most, here and below. Raises ValueError for an n below 1, a `sure` outside 0.5 to 1, or
    a `longest` that hardly any text keeps.
    """
    _check(n)
    if not 0.5 <= sure <= 1:
        raise ValueError(f"sure is {sure!r}, but must be from 0.5, a guess, to 1, no doubt at all")
    good, found = SENTIMENTS.index("good"), []
    values = language.data["registers"][_number(language, "mood")]["values"]
    for document in _stories(language, seed, longest):
        chance = language.register(document.tokens, "mood")[values.index("good")]
        if max(chance, 1 - chance) >= sure:
            found.append(Example(document.tokens, (), good if chance > 0.5 else 1 - good))
        if len(found) == n:
            return found


def tags(language: Language, n: int, seed: int, longest: int | None = None) -> list[Example]:
    """n texts with the part of speech of every word."""
    _check(n)
    return [Example(d.tokens, (), d.pos) for d in islice(_stories(language, seed, longest), n)]


def entailment(language: Language, n: int, seed: int, longest: int | None = None) -> list[Example]:
    """n texts, each with a statement that must be true of its story, may be, or cannot be: `RELATIONS`, by number.

    Of each kind of statement all three are equally frequent (to within one), so the statement alone tells nothing.
    """
    _check(n)
    rng, counts, found = np.random.default_rng([seed, 1]), Counter(), []
    for document in _stories(language, seed, longest):
        kind = str(rng.choice(kinds_of(language, document.topic, STATEMENTS)))
        relation = min(range(3), key=lambda r: (counts[kind, r], rng.random()))
        fitting = statements(language, document, kind)[relation]
        if not fitting:
            continue
        counts[kind, relation] += 1
        found.append(Example(document.tokens, tuple(str(rng.choice(fitting)).split()), relation))
        if len(found) == n:
            return found


def statements(language: Language, document: Document, kind: str) -> list[list[str]]:
    """The statements of one kind that must be true of a text's story, that may be, and that cannot be."""
    register, words = _words(language, kind)
    chance = Counter()
    for word, p in zip(words, language.register(document.tokens, register)):
        chance[word] += float(p)
    limits = (1 - 1e-9, 2), (1e-9, 1 - 1e-6), (-1, 0)
    return [
        [STATEMENTS[kind].format(_said(language, kind, word)) for word in sorted(chance) if low < chance[word] <= high]
        for low, high in limits
    ]


@cache
def forms(language: Language) -> list[dict]:
    """Every statement of `entailment`: {"name": the register, "topics", "form", "words"}.

    topics: the numbers of those whose stories may tell it; words: what each value of the register puts into the form.
    """
    found, reads = [], _topic_registers(language).values()
    for kind, form in STATEMENTS.items():
        register, words = _words(language, kind)
        topics = [topic for topic, read in enumerate(reads) if _number(language, register) in read]
        said = [_said(language, kind, word) for word in words]
        found.append({"name": register, "topics": topics, "form": form, "words": said})
    return found


def questions(
    language: Language, n: int, seed: int, longest: int | None = None, unanswerable: float = 0.3
) -> list[Example]:
    """n questions and the texts that answer them, a share `unanswerable` of them not.

    An answer is the phrase around a word, wherever the text says it, as in SQuAD 2.0 (Rajpurkar et al. 2018). Raises
    ValueError for a share that is not from 0 to 1.
    """
    _check(n)
    if not 0 <= unanswerable <= 1:
        raise ValueError(f"unanswerable is {unanswerable!r}, but is a share of the questions: give 0 to 1")
    rng, found = np.random.default_rng([seed, 2]), []
    wanted = [bool(rng.random() >= unanswerable) for _ in range(n)]
    for document in _stories(language, seed, longest):
        kind = str(rng.choice(kinds_of(language, document.topic, QUESTIONS)))
        spans = answer_spans(language, document, kind)
        if bool(spans) == wanted[len(found)]:
            found.append(Example(tuple(QUESTIONS[kind].split()), document.tokens, spans))
        if len(found) == n:
            return found


TASKS = {"sentiment": sentiment, "tags": tags, "entailment": entailment, "questions": questions}


def classes_of(task: str, language: Language) -> tuple[str, ...]:
    """What the numbers of a task's labels stand for; nothing for `questions`, whose labels are places.

    Raises ValueError for a task that is none of TASKS.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}: choose one of {', '.join(TASKS)}")
    tags = tuple(sorted(set(language.data["pos"]) | {"PART"}))
    return {"sentiment": SENTIMENTS, "tags": tags, "entailment": RELATIONS, "questions": ()}[task]


def _stories(language: Language, seed: int, longest: int | None) -> Iterator[Document]:
    """Runs of sentences, as many as are asked for, of at most `longest` words.

    Raises ValueError when none of the first 2,000 is so short.
    """
    found = False
    for chunk in count():
        for document in language.documents(500, [seed, chunk], whole=False):
            if longest is None or len(document.tokens) <= longest:
                found = True
                yield document
        if chunk == 3 and not found:
            raise ValueError(f"none of 2,000 texts has at most {longest} words: allow longer ones")


def _check(n: int) -> None:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n is {n!r}, but must be a whole number of at least 1: it counts the examples")


def _number(language: Language, register: str) -> int:
    return [one["name"] for one in language.data["registers"]].index(register)


@cache
def _topic_registers(language: Language) -> dict[str, set[int]]:
    """For each topic, by name, the numbers of the registers that its sentences read."""
    registers = {name: set() for name, _ in language.data["topics"]}
    states, names = language.data["states"], [*registers]
    for topic, view in zip(states["topic"], states["view"]):
        if view >= 0:
            registers[names[topic]].add(language.data["views"][view][0])
    return registers


def kinds_of(language: Language, topic: str, about: dict[str, str]) -> list[str]:
    """What of `about`, `STATEMENTS` or `QUESTIONS`, a story of this topic may tell: the kinds, in their order there."""
    read = _topic_registers(language)[topic]
    return [kind for kind in about if _number(language, kind.split(".")[0]) in read]


def _words(language: Language, kind: str) -> tuple[str, list[str]]:
    """The register, and for each of its values the word that says it."""
    register, _, column = kind.partition(".")
    entry = language.data["registers"][_number(language, register)]
    values = entry["columns"][column] if column else entry["values"]
    return register, [WORDS.get(register, {}).get(value, value) for value in values]


def _said(language: Language, kind: str, word: str) -> str:
    return f"the {word}" if kind == "hero" and word not in language.names else word  # the twins


def answer_spans(language: Language, document: Document, kind: str) -> tuple[tuple[int, int], ...]:
    """Every right answer to the question of a kind: the phrases that hold the word, as (first word, last word + 1)."""
    register, words = _words(language, kind)
    spans = []
    for i, word in enumerate(document.tokens):
        if document.reads[i] == register and word in words:
            first, last = i, i + 1
            while document.phrase[first].startswith("I-"):
                first -= 1
            while last < len(document.tokens) and document.phrase[last].startswith("I-"):
                last += 1
            spans.append((first, last))
    return tuple(spans)
