"""The widget of chapter 4: a text, and four fine-tuned models that share one encoder."""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import zip_longest

import numpy as np
import torch
import traitlets as t

from ..adapters import specialist
from ..corpora import tinyworld
from ..corpora.tinyworld import Impossible, Language
from ..corpora.tinyworld.corpus import HELD_OUT_SEED
from ..corpora.tinyworld.tasks import QUESTIONS, STATEMENTS, TASKS, answer_spans, forms, kinds_of, statements
from ..finetuning import span_scores
from . import HERE, IMPOSSIBLE, MOST_WORDS, Asked, BadQuestion, _impossible, _quote, checked_text, front_end

MOST_OF_A_LINE = 20  # words of a statement or a question; worker.mjs has the same


def consult(text: str, statement: str, query: str, specialists: dict[str, tuple], language: Language | None) -> dict:
    """What four models say of a text, and what is true: the answer of `Specialists`.

    specialists: for each task what `selfsup.adapters.specialist` returns; words must be single tokens.
    """
    model, tokenizer, _ = specialists["tags"]
    names, unknown = tokenizer.convert_ids_to_tokens, tokenizer.unk_token_id
    longest = model.encoder.config.max_positions - MOST_OF_A_LINE - 3
    coded = [tokenizer.backend_tokenizer.encode(one, add_special_tokens=False) for one in (text, statement, query)]
    most = min(MOST_WORDS, longest), MOST_OF_A_LINE, MOST_OF_A_LINE
    read, said, asked = (one.ids[:n] for one, n in zip(coded, most))
    written = [[one[a:b] for a, b in code.offsets[:n]] for one, code, n in zip((text, statement, query), coded, most)]
    notes = []
    if len(read) < len(coded[0].ids):
        notes.append(f"The model reads the first {len(read)} of {len(coded[0].ids)} words.")
    if any(len(one.ids) > MOST_OF_A_LINE for one in coded[1:]):
        notes.append(f"The model reads the first {MOST_OF_A_LINE} words of a statement or a question.")
    if not read:
        notes.append("There is no text yet: type one.")
    everything = zip(sum(written, []), [*read, *said, *asked])
    if strangers := list(dict.fromkeys(word for word, token in everything if token == unknown)):
        notes.append(f"The model does not know {_quote(strangers)}: it reads [UNK] there.")

    mood = chance = relation = None
    if language is not None and read:
        try:
            if unknown in read:
                notes.append(f"{IMPOSSIBLE} that language has no such word.")
            else:
                values = next(one["values"] for one in language.data["registers"] if one["name"] == "mood")
                exact = language.register(names(read), "mood")
                mood = [float(exact[values.index(name)]) for name in specialists["sentiment"][2]]
                chance = _chance(" ".join(names(said)), language, names(read))
        except Impossible as error:
            notes.append(_impossible(error.position, [(word, []) for word in written[0]]))
    if chance is not None:
        relation = [float(yes) for yes in (chance > 1 - 1e-6, 1e-9 <= chance <= 1 - 1e-6, chance < 1e-9)]

    def logits(task: str, first: list[int], second: list[int] | None = None) -> torch.Tensor:
        ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id]
        ids += [*second, tokenizer.sep_token_id] if second else []
        segments = torch.tensor([[int(place > len(first) + 1) for place in range(len(ids))]])
        with torch.inference_mode():
            return specialists[task][0](torch.tensor([ids]), torch.ones(1, len(ids)).long(), segments)[0].double()

    def told(task: str, second: list[int] | None, exact: list[float] | None) -> dict:
        chances = logits(task, read, second).softmax(-1)
        return {"classes": list(specialists[task][2]), "model": chances.tolist(), "exact": exact}

    tags = []
    if read:
        chances, tops = logits("tags", read)[1:-1].softmax(-1).max(-1)
        tags = [[specialists["tags"][2][top], p] for top, p in zip(tops.tolist(), chances.tolist())]
    return {
        "words": written[0],
        "sentiment": told("sentiment", None, mood) if read else None,
        "tags": tags,
        "entailment": {**told("entailment", said, relation), "chance": chance} if read and said else None,
        "found": _find(logits("questions", asked, read), len(asked) + 2) if read and asked else None,
        "note": " ".join(notes),
    }


def _chance(said: str, language: Language, tokens: list[str]) -> float | None:
    """P(the statement is true | the text); None for one of no form, or that no topic the text may have tells of."""
    for one in forms(language):
        values = [value for value, word in enumerate(one["words"]) if one["form"].format(word) == said]
        if values:
            told = language.topic(tokens)[one["topics"]].any()
            return float(language.register(tokens, one["name"])[values].sum()) if told else None
    return None


def _find(logits: torch.Tensor, start: int) -> dict:
    """The likeliest span of words: {"span": [first, last + 1], or [] where the text does not say, "p"}."""
    time = logits.shape[-1]
    p, top = span_scores(logits[None], torch.arange(time)[None] >= start).flatten().softmax(0).max(0)
    first, last = divmod(int(top), time)
    return {"span": [first - start, last + 1 - start] if first else [], "p": float(p)}


class Specialists(Asked):
    """A text that the reader writes, and what four fine-tuned models of one encoder say of it.

    What is asked (set these, observe them): text, and about it a statement and a query, str.
    What is answered:
      words       the words of the text that the models read
      sentiment   how its story ends: {"classes", "model": P of each, "exact": the same from the exact rules, or None}
      tags        of each word [part of speech, its probability]
      entailment  whether the statement follows, as sentiment and with "chance": the exact P(it is true), or None for
                  a statement that is none of `selfsup.corpora.tinyworld.tasks.forms`, or is of other topics only
      found       where the text answers the query: {"span": [first word, last + 1], or [] where it does not say, "p"}
      note        str, when something about the question stands in the way
      answered    int, counts the answers: changes last
    Each of sentiment, entailment and found is None where nothing was asked. examples: list of {"text", "statements",
    "queries"}, those of `example_texts` unless others come; example: the number of the one whose statements and
    queries are offered. anchor: the widget's name in links. Raises BadQuestion, a ValueError.
    """

    _esm = front_end("specialists.mjs")
    _css = HERE / "widgets.css"

    text = t.Unicode().tag(sync=True)
    statement = t.Unicode().tag(sync=True)
    query = t.Unicode().tag(sync=True)
    examples = t.List().tag(sync=True)
    example = t.Int(0).tag(sync=True)
    forms = t.List().tag(sync=True)
    anchor = t.Unicode("specialists").tag(sync=True)
    words = t.List().tag(sync=True)
    sentiment = t.Dict(None, allow_none=True).tag(sync=True)
    tags = t.List().tag(sync=True)
    entailment = t.Dict(None, allow_none=True).tag(sync=True)
    found = t.Dict(None, allow_none=True).tag(sync=True)

    QUESTION = ("text", "statement", "query", "example")
    ASKED = QUESTION

    def __init__(
        self,
        text: str | None = None,
        statement: str | None = None,
        query: str | None = None,
        examples: list[dict] | None = None,
        example: int = 0,
        **traits,
    ):
        self._answered = None
        examples = checked(example_texts() if examples is None else examples)
        first = examples[chosen(example, examples)]
        super().__init__(
            text=first["text"] if text is None else text,
            statement=first["statements"][0] if statement is None else statement,
            query=first["queries"][0] if query is None else query,
            examples=examples,
            example=example,
            forms=forms(tinyworld.load("world")),
            **traits,
        )
        self._answer()

    @t.validate("text", "statement", "query")
    def _check_text(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.validate("examples")
    def _check_examples(self, proposal) -> list[dict]:
        if len(checked(proposal["value"])) <= self.example:
            raise BadQuestion(f"example is {self.example}: give at least {self.example + 1} examples")
        return proposal["value"]

    @t.validate("example")
    def _check_example(self, proposal) -> int:
        return chosen(proposal["value"], self.examples)

    @t.observe("text", "statement", "query")
    def _asked(self, change) -> None:
        if self._answered is not None:
            self._answer()

    def _answer(self) -> None:
        question = {name: getattr(self, name) for name in ("text", "statement", "query")}
        if question == self._answered:  # several traits that change together are one question
            return
        before, self._answered = self._answered, question
        try:
            specialists = {task: _specialist(task) for task in TASKS}
            told = consult(*question.values(), specialists, tinyworld.load("world"))
        except (ValueError, OSError):
            self._answered = before
            with self.hold_trait_notifications():
                for name, value in (before or {}).items():
                    setattr(self, name, value)
            raise
        self.tell(told)


def chosen(example: int, examples: list[dict]) -> int:
    """The number of an example, if there is one."""
    if type(example) is not int or not 0 <= example < len(examples):
        raise BadQuestion(f"example is {example!r}: choose 0 to {len(examples) - 1}")
    return example


def checked(examples: list[dict]) -> list[dict]:
    """The examples, if a reader can choose from them."""
    if not examples:
        raise BadQuestion("there are no examples: give at least one")
    for one in examples:
        lists = [one.get(name) for name in ("statements", "queries")] if isinstance(one, dict) else [None]
        if not all(isinstance(said, list) and said for said in lists):
            raise BadQuestion(f"{one!r} is no example: give its text, and lists of statements and of queries")
        if not all(isinstance(said, str) for said in (one.get("text"), *sum(lists, []))):
            raise BadQuestion(f"{one!r} needs a text, statements and queries that are strings")
    return examples


_specialist = cache(specialist)


@lru_cache(maxsize=1)
def example_texts(n: int = 6) -> list[dict]:
    """Held-out texts of different topics, each with statements that follow, may and cannot, and with questions."""
    language, rng, found = tinyworld.load("world"), np.random.default_rng(0), {}
    for document in language.documents(200, HELD_OUT_SEED, whole=False):
        if document.topic in found or not 20 <= len(document.tokens) <= 40:
            continue
        told_end = max(language.register(document.tokens, "mood")) > 0.95
        if not found and not (told_end and document.hero in document.tokens):  # begin with one that tells who and how
            continue
        kinds = kinds_of(language, document.topic, STATEMENTS)
        fitting = [statements(language, document, kind) for kind in rng.permutation(kinds)]
        said = [[str(rng.choice(one[relation])) for one in fitting if one[relation]][:2] for relation in range(3)]
        kinds = kinds_of(language, document.topic, QUESTIONS)
        told = [kind for kind in kinds if answer_spans(language, document, kind)]
        silent = [kind for kind in kinds if kind not in told]
        if all(said) and len(told) >= 2 and silent:
            found[document.topic] = {
                "text": language.render(document.tokens),
                "statements": [language.render(one.split()) for row in zip_longest(*said) for one in row if one],
                "queries": [language.render(QUESTIONS[kind].split()) for kind in (*told[:3], silent[0])],
            }
        if len(found) == n:
            return [*found.values()]
