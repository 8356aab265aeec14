"""The widget of chapter 3: two sentences, and what can be asked about them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import traitlets as t

from ..corpora import tinyworld
from ..corpora.tinyworld.corpus import HELD_OUT_SEED
from ..corpora.tinyworld.pairs import NEGATIVES, Pairs
from . import HERE, IMPOSSIBLE, Asked, _quote, checked_text, front_end

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

MODELS = {"next": "tinyworld-nsp", "order": "tinyworld-sop"}
MOST_OF_A_SENTENCE = 40  # words; worker.mjs has the same


def judge(a: str, b: str, about: str, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast,
          pairs: Pairs | None) -> dict:
    """What a model says of two sentences, and what is true: {"model", "exact", "note"}, see `PairPlayground`.

    about: "next", whether b follows a, or "order", whether a came first.
    """
    import torch

    texts = [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False) for text in (a, b)]
    first, second = (
        [token for token, word in zip(text.ids, text.word_ids) if word < MOST_OF_A_SENTENCE] for text in texts
    )
    if not first or not second:
        return {"model": None, "exact": None, "note": "Two sentences are needed: type one more."}
    notes = []
    if any(text.word_ids[-1] >= MOST_OF_A_SENTENCE for text in texts):
        notes.append(f"The model reads the first {MOST_OF_A_SENTENCE} words of each.")
    ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id, *second, tokenizer.sep_token_id]
    segments = [int(t > len(first) + 1) for t in range(len(ids))]
    training = model.training
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([ids]), token_type_ids=torch.tensor([segments]), pair=True)[1]
    model.train(training)
    offsets = [text.offsets[i] for text, kept in zip(texts, (first, second)) for i in range(len(kept))]
    written = [a[slice(*at)] for at in offsets[: len(first)]] + [b[slice(*at)] for at in offsets[len(first) :]]
    strangers = [text for text, token in zip(written, [*first, *second]) if token == tokenizer.unk_token_id]
    if strangers:
        notes.append(f"The model does not know {_quote(list(dict.fromkeys(strangers)))}: it reads [UNK] there.")
    exact = None
    if pairs is not None:
        one, two = (tokenizer.convert_ids_to_tokens(part) for part in (first, second))
        if not pairs.says(one) or not pairs.says(two):
            notes.append(f"{IMPOSSIBLE} {'B' if pairs.says(one) else 'A'} is no sentence of that language.")
        elif about == "next" and (pairs.in_a_row(one, two) or pairs.apart(one, two, "anywhere")):
            asked = [kind for kind in NEGATIVES if pairs.in_a_row(one, two) or pairs.apart(one, two, kind)]
            exact = {kind: pairs.is_next(one, two, kind) if kind in asked else None for kind in NEGATIVES}
        elif about == "order" and (pairs.in_a_row(one, two) or pairs.in_a_row(two, one)):
            exact = {"order": pairs.in_order(one, two)}
    return {"model": float(logits[0].double().softmax(-1)[0]), "exact": exact, "note": " ".join(notes)}


class PairPlayground(Asked):
    """Two sentences that the reader exchanges, replaces or writes, and what two models and the exact rules say.

    What is asked (set these, observe them): a, b: str, the sentences.
    What is answered:
      follows   of "does b follow a?": {"model": P(yes) of tinyworld-nsp, "exact": the same by where b's rivals come
                from, "place", "topic" or "anywhere", each None where neither b nor its rivals can be asked about, or
                None}; None where there is no answer
      ordered   of "did a come first?": {"model": P(yes) of tinyworld-sop, "exact": {"order": P(yes)} or None}
      note      str, when something about the question stands in the way
      answered  int, counts the answers: changes last
    examples: list of {"a", "b", "topic"}, true pairs; first and second say which of them give the two sentences,
    swapped whether they are exchanged, typed whether the reader wrote them. anchor: the widget's name in links.
    """

    _esm = front_end("pairs.mjs")
    _css = HERE / "widgets.css"

    a = t.Unicode().tag(sync=True)
    b = t.Unicode().tag(sync=True)
    examples = t.List().tag(sync=True)
    models = t.Dict(MODELS).tag(sync=True)
    first = t.Int(0).tag(sync=True)
    second = t.Int(0).tag(sync=True)
    swapped = t.Bool(False).tag(sync=True)
    typed = t.Bool(False).tag(sync=True)
    anchor = t.Unicode("pairs").tag(sync=True)
    follows = t.Dict(None, allow_none=True).tag(sync=True)
    ordered = t.Dict(None, allow_none=True).tag(sync=True)

    ASKED = ("a", "b", "first", "second", "swapped", "typed")

    def __init__(self, a: str | None = None, b: str | None = None, **traits):
        self._answered = None
        examples = example_pairs()
        typed = a is not None or b is not None
        a, b = (examples[0][side] if text is None else text for side, text in (("a", a), ("b", b)))
        super().__init__(a=a, b=b, examples=examples, typed=typed, **traits)
        self._answer()

    @t.validate("a", "b")
    def _check_sentence(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.observe("a", "b")
    def _asked(self, change) -> None:
        if self._answered is not None:
            self._answer()

    def _answer(self) -> None:
        import selfsup

        question = self.a, self.b
        if question == self._answered:  # two traits that change together are one question
            return
        self._answered = question
        found = {about: judge(self.a, self.b, about, *selfsup.load(name), world_pairs())
                 for about, name in self.models.items()}
        told = {"note": found["next"]["note"]}
        for trait, about in (("follows", "next"), ("ordered", "order")):
            model, exact = found[about]["model"], found[about]["exact"]
            told[trait] = None if model is None else {"model": model, "exact": exact}
        self.tell(told)


@lru_cache(maxsize=1)
def world_pairs() -> Pairs:
    """The pairs of the world."""
    return Pairs(tinyworld.load("world"))


@lru_cache(maxsize=1)
def example_pairs(topics: int = 4, each: int = 3) -> list[dict]:
    """Held-out pairs, `each` of so many topics, at different places of their stories; the topics take turns."""
    pairs = world_pairs()
    drawn = pairs.draw(2000, HELD_OUT_SEED)
    first, second = pairs.sentences(drawn)
    names, chosen = [name for name, _ in pairs.language.data["topics"]], {}
    for i, (topic, place) in enumerate(zip(drawn.topics.tolist(), drawn.places.tolist())):
        lengths = len(first[i]), len(second[i])
        places = chosen.setdefault(topic, {})
        short = min(lengths) >= 5 and max(lengths) <= 14
        if short and place not in places and pairs.is_next(first[i], second[i]) > 0.9:
            places[place] = i
    full = [list(places.values())[:each] for places in chosen.values() if len(places) >= each][:topics]
    render = pairs.language.render
    return [
        {"a": render(first[i]), "b": render(second[i]), "topic": names[drawn.topics[i]]}
        for turn in zip(*full) for i in turn
    ]

