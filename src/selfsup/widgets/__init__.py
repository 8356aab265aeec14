"""Widgets that a reader touches: live on a static page, answered by the kernel where there is one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import numpy as np
import traitlets as t

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
KINDS = ("mask", "random", "unchanged")
LABELS = {"tinyworld-bert": "A tiny world", "storybook-bert": "Storybooks"}
STORIES = (  # each with the word that is masked first
    ("Once upon a time there was a king who had three daughters.", 7),
    ("The old woman lived alone in a little house in the forest.", 8),
    ("The captain shouted, and the sailors ran to the side of the ship.", 13),
    ("She opened the door and looked out into the dark garden.", 3),
)
# The page's worker.mjs has the same three: both sides give the same answers.
MOST_WORDS = 64
SEED_STEP, PIECE_STEP = 7919, 104729
LONGEST_SENTENCE = 10_000
IMPOSSIBLE = "Impossible in Tinyworld:"


def front_end(name: str) -> str:
    """The module `name` with the modules that it imports before it, since a page runs a widget from one text."""
    own = (HERE / name).read_text(encoding="utf-8")
    parts = [(HERE / other).read_text(encoding="utf-8") for other in re.findall(r'from "\./(\w+\.mjs)";', own)]
    return "\n".join([*parts, re.sub(r'import \{[^}]*\} from "\./\w+\.mjs";\n', "", own)])


class BadQuestion(t.TraitError, ValueError):
    """What a widget was asked to show and cannot."""


def answer(
    sentence: str,
    touched: Sequence[dict],
    top: int,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    language=None,
) -> dict:
    """What a masked language model predicts for the touched words of `sentence`, beside the exact truth.

    touched: {"position": index of a word, "kind": "mask", "random" or "unchanged", and for "random" either
    "seed": int or "word": str}; top: predictions a position. The result: the answer of `MaskPlayground`.
    Losses are in nats. Raises BadQuestion when a replacement does not fit its word.
    """
    import torch

    backend = tokenizer.backend_tokenizer
    special = set(tokenizer.all_special_ids)
    ordinary = [index for index in range(len(tokenizer)) if index not in special]
    unknown, mask = tokenizer.unk_token_id, tokenizer.mask_token_id
    names = tokenizer.convert_ids_to_tokens
    notes = []

    def words_of(text: str) -> list[tuple[str, list[int]]]:
        encoding = backend.encode(text, add_special_tokens=False)
        words: list[tuple[str, list[int]]] = []
        before, end = None, 0
        for index, word, (start, stop) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
            if words and word is not None and word == before and start >= end:
                words[-1] = (words[-1][0] + text[end:stop], [*words[-1][1], index])
            else:
                words.append((text[start:stop], [index]))
            before, end = word, stop
        return words

    everything = words_of(sentence)
    config = model.config
    room = getattr(config, "max_positions", None) or config.max_position_embeddings
    room -= 2
    words: list[tuple[str, list[int]]] = []
    for word in everything[:MOST_WORDS]:
        room -= len(word[1])
        if room < 0:
            break
        words.append(word)
    if len(words) < len(everything):
        notes.append(f"The model reads the first {len(words)} of {len(everything)} words.")
    if not words:
        notes.append("There is no word to mask yet: type a sentence.")

    chosen = {one["position"]: one for one in touched if one["position"] < len(words)}
    chosen |= {i: {"kind": "mask", "given": True} for i, (_, real) in enumerate(words) if real[0] == mask}
    ids, asked, shown = [tokenizer.cls_token_id], [], []
    for position, (text, real) in enumerate(words):
        one = chosen.get(position)
        seen = real
        if one and one["kind"] == "mask":
            seen = [mask] * len(real)
        elif one and one["kind"] == "random":
            seen = _replacement(real, one, text, words_of, ordinary)
        for piece, index in enumerate(seen):
            if one:
                known = not one.get("given") and real[piece] != unknown
                asked.append((len(ids), position, piece, real[piece] if known else None))
            ids.append(index)
        kind, given = (one["kind"], bool(one.get("given"))) if one else ("", False)
        shown.append({"text": text, "pieces": names(real), "seen": names(seen), "kind": kind, "given": given})
    ids.append(tokenizer.sep_token_id)

    strangers = list(dict.fromkeys(text for text, real in words if real[0] == unknown))
    if strangers:
        notes.append(f"The model does not know {_quote(strangers)}: it reads [UNK] there.")
    exact, hidden = None, sorted(chosen)
    if language is not None and words:
        if any(real[0] == unknown and i not in chosen for i, (_, real) in enumerate(words)):
            notes.append(f"{IMPOSSIBLE} that language has no such word.")
        elif hidden:
            try:
                exact = language.posterior([names(real[:1])[0] for _, real in words], hidden)
            except ValueError as error:
                if not hasattr(error, "position"):
                    raise
                notes.append(_impossible(error.position, words))

    predictions, truth = [], []
    if asked:
        training = model.training
        try:
            with torch.inference_mode():
                device = next(model.parameters()).device
                output = model.eval()(torch.tensor([ids], device=device))
        finally:
            model.train(training)
        logits = getattr(output, "logits", output)[0, [at for at, *_ in asked]]
        rows = logits.float().cpu().double().softmax(-1).numpy()
        for row, (_, position, piece, real) in zip(rows, asked, strict=True):
            exactly = None if exact is None else exact[hidden.index(position)]
            candidates = {int(index) for index in row.argsort()[::-1][:top]}
            if exactly is not None:
                candidates |= {
                    int(index) for index in (-exactly).argsort(kind="stable")[:top] if exactly[index]
                }
            if real is not None:
                candidates.add(real)
            for p, entries in ((row, predictions), (exactly, truth)):
                if p is None:
                    continue
                order = sorted(candidates, key=lambda index: (-p[index], index))
                loss = None if real is None or not p[real] > 0 else -math.log(p[real])
                entries.append(
                    {
                        "position": position,
                        "piece": piece,
                        "real": None if real is None else names([real])[0],
                        "loss": loss,
                        "top": [[names([index])[0], float(p[index])] for index in order],
                    }
                )
    never = [entry for entry in truth if entry["real"] is not None and entry["loss"] is None]
    if never:
        notes.append(_impossible(never[0]["position"], words))
    return {
        "words": shown,
        "predictions": predictions,
        "truth": truth,
        "cross_entropy": _mean_loss(predictions),
        "floor": None if never else _mean_loss(truth),
        "note": " ".join(notes),
    }


def _replacement(real: list[int], one: dict, text: str, words_of, ordinary: list[int]) -> list[int]:
    if "word" in one:
        ids = [index for _, pieces in words_of(one["word"]) for index in pieces]
        if len(ids) != len(real):
            raise BadQuestion(
                f"the replacement {one['word']!r} has {len(ids)} pieces and {text!r} has {len(real)}: "
                "choose a word of as many pieces"
            )
        return ids
    ids = []
    for piece, index in enumerate(real):
        place = one.get("seed", 0) * SEED_STEP + piece * PIECE_STEP
        token = ordinary[place % len(ordinary)]
        ids.append(ordinary[(place + 1) % len(ordinary)] if token == index else token)
    return ids


def _mean_loss(entries: list[dict]) -> float | None:
    losses = [entry["loss"] for entry in entries if entry["loss"] is not None]
    return sum(losses) / len(losses) if losses else None


def _clip(word: str) -> str:
    return word if len(word) <= 24 else word[:24] + "…"


def _quote(words: list[str]) -> str:
    quoted = ", ".join(f"“{_clip(word)}”" for word in words[:3])
    return quoted if len(words) <= 3 else f"{quoted} and {len(words) - 3} more"


def _impossible(position: int, words: list[tuple[str, list[int]]]) -> str:
    if position >= len(words):
        return f"{IMPOSSIBLE} the text stops where no sentence can end."
    cannot = "follow the words before it" if position else "begin a text"
    return f"{IMPOSSIBLE} “{_clip(words[position][0])}” (word {position + 1}) cannot {cannot}."


def checked_text(text: str) -> str:
    """The text, if a widget can take it."""
    if len(text) > LONGEST_SENTENCE:
        raise BadQuestion(f"the text has {len(text)} characters: give at most {LONGEST_SENTENCE}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadQuestion("the text has half of a character that takes two: type that character again")
    return text


class Asked(anywidget.AnyWidget):
    """What the widgets share that answer questions: the page may set the traits in ASKED, and no others."""

    ASKED: tuple[str, ...] = ()

    anchor = t.Unicode().tag(sync=True)
    note = t.Unicode().tag(sync=True)
    answered = t.Int(0).tag(sync=True)

    def set_state(self, sync_data: dict) -> None:
        """Take a question from the page, or give the old one back and say in `note` what cannot be asked."""
        asked = {name: value for name, value in sync_data.items() if name in self.ASKED}
        try:
            super().set_state(asked)
        except (t.TraitError, ValueError, OSError) as error:
            self.send_state(list(asked))
            self.note = str(error)
            self.answered += 1

    def tell(self, found: dict) -> None:
        """Set the traits of an answer and count it; the page is sent all of it at once."""
        with self.hold_sync():
            for name, value in found.items():
                setattr(self, name, value)
            self.answered += 1

    @t.validate("anchor")
    def _check_anchor(self, proposal) -> str:
        if not proposal["value"].isidentifier():
            raise BadQuestion(f"the anchor {proposal['value']!r} is not a plain name such as mask_2")
        return proposal["value"]


class MaskPlayground(Asked):
    """A sentence whose words the reader masks, with what a model predicts for them beside the exact truth.

    What is asked (set these, observe them, link them):
      sentence    str
      touched     list of {"position": int, "kind": "mask" | "random" | "unchanged"}; "random" also takes
                  "word": str or "seed": int; a bare int means mask
      model_name  str, one of the names in `choices`
      top         int, how many predictions a position
    What is answered (observe these):
      words          list of {"text", "pieces", "seen", "kind", "given"}; "seen": what the model gets
      predictions    list of {"position", "piece", "real", "loss", "top": [[token, probability], ...]}
      truth          the same from the exact posterior, which is told which words were touched; or empty
      cross_entropy  mean -log p(real token) of the model over the touched tokens, in nats, or None
      floor          the same for the truth: the least that any model can have on average
      note           str, one or more sentences when something about the question stands in the way
      answered       int, counts the answers: changes last, when the rest is in place

    model: a name that `selfsup.load` takes, or a model with its `tokenizer` (and `language`, where there is a
    truth). anchor: the widget's name in links. Raises ValueError.
    """

    _esm = front_end("mask_playground.mjs")
    _css = HERE / "widgets.css"

    sentence = t.Unicode().tag(sync=True)
    touched = t.List().tag(sync=True)
    model_name = t.Unicode().tag(sync=True)
    top = t.Int(5).tag(sync=True)
    choices = t.List().tag(sync=True)
    examples = t.Dict().tag(sync=True)
    anchor = t.Unicode("mask").tag(sync=True)
    words = t.List().tag(sync=True)
    predictions = t.List().tag(sync=True)
    truth = t.List().tag(sync=True)
    cross_entropy = t.Float(None, allow_none=True).tag(sync=True)
    floor = t.Float(None, allow_none=True).tag(sync=True)

    QUESTION = ("sentence", "touched", "model_name", "top")
    ASKED = QUESTION

    def __init__(
        self,
        sentence: str | None = None,
        touched: Sequence[int | dict] | None = None,
        *,
        model: str | torch.nn.Module = "tinyworld-bert",
        tokenizer: PreTrainedTokenizerFast | None = None,
        language=None,
        **traits,
    ):
        if not isinstance(model, str) and tokenizer is None:
            raise ValueError("a model came without its tokenizer: give both, as selfsup.load returns them")
        self._parts: dict[str, tuple] = {}
        self._answered, self._question = None, {}
        if isinstance(model, str):
            name, names = model, [model]
            if name in LABELS:
                from ..models import shipped

                names += [other for other in LABELS if other in shipped() and other != name]
        else:
            name = "this model"
            names = [name]
            self._parts[name] = (_fills_blanks(model, name), tokenizer, _same_words(tokenizer, language))
        self._language = language
        examples = {name: list(STORIES) for name in names}
        for each in names:
            spoken = self._language_of(each)
            if spoken is not None:
                examples[each] = list(_tiny_examples(spoken)) or examples[each]
        choices = [{"name": n, "label": LABELS.get(n, n), "shipped": n in LABELS} for n in names]
        if sentence is None:
            sentence, place = examples[name][0]
            touched = (place,) if touched is None else touched
        super().__init__(
            sentence=sentence,
            touched=list(touched or ()),
            model_name=name,
            choices=choices,
            examples=examples,
            **traits,
        )
        self._answer()

    def mask_at_random(self, rate: float = 0.15, seed: int = 0) -> None:
        """Mask each word with probability `rate`, and at least one."""
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}: choose more than 0 and at most 1")
        rng = np.random.default_rng(seed)
        free = [i for i, word in enumerate(self.words) if not word["given"]]
        chosen = [i for i in free if rng.random() < rate] or ([int(rng.choice(free))] if free else [])
        self.touched = [{"position": i, "kind": "mask"} for i in chosen]

    @t.validate("sentence")
    def _check_sentence(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.validate("touched")
    def _check_touched(self, proposal) -> list[dict]:
        checked = {}
        for one in proposal["value"]:
            one = {"position": one, "kind": "mask"} if isinstance(one, int) else one
            if not isinstance(one, dict):
                raise BadQuestion(f"touched holds {one!r}: give positions, or dictionaries that have one")
            position, kind = one.get("position"), one.get("kind", "mask")
            if type(position) is not int or not 0 <= position < LONGEST_SENTENCE:
                raise BadQuestion(f"the position {position!r} is no index of a word: the first word is 0")
            if kind not in KINDS:
                raise BadQuestion(f"the kind {kind!r} is not one of {', '.join(KINDS)}")
            entry = {"position": position, "kind": kind}
            if kind == "random" and "word" in one:
                if not isinstance(one["word"], str) or not 0 < len(one["word"]) <= 100:
                    raise BadQuestion("a replacement is one word of at most 100 characters")
                entry["word"] = one["word"]
            elif kind == "random":
                seed = one.get("seed", 0)
                if type(seed) is not int or not 0 <= seed < 2**16:
                    raise BadQuestion(f"the seed {seed!r} is not an integer from 0 to 65535")
                entry["seed"] = seed
            checked[position] = entry
        return [checked[position] for position in sorted(checked)]

    @t.validate("model_name")
    def _check_model_name(self, proposal) -> str:
        names = [choice["name"] for choice in self.choices]
        if names and proposal["value"] not in names:
            raise BadQuestion(f"the model {proposal['value']!r} is not one of {', '.join(names)}")
        return proposal["value"]

    @t.validate("top")
    def _check_top(self, proposal) -> int:
        if not 1 <= proposal["value"] <= 20:
            raise BadQuestion(f"top is {proposal['value']}: choose 1 to 20")
        return proposal["value"]

    @t.observe(*QUESTION)
    def _asked(self, change) -> None:
        if self._answered is not None:
            self._answer()

    def _answer(self) -> None:
        question = (self.sentence, repr(self.touched), self.model_name, self.top)
        if question == self._answered:  # several traits that change together are one question
            return
        try:
            found = answer(self.sentence, self.touched, self.top, *self._load(self.model_name))
        except (ValueError, OSError):
            with self.hold_trait_notifications():
                for name, value in self._question.items():
                    setattr(self, name, value)
            raise
        self._question, self._answered = {name: getattr(self, name) for name in self.QUESTION}, question
        self.tell(found)

    def _language_of(self, name: str):
        if name == "tinyworld-bert" and self._language is None:
            from ..corpora import tinyworld

            return tinyworld.load("world")
        return self._language

    def _load(self, name: str) -> tuple:
        if name not in self._parts:
            import selfsup

            model, tokenizer = selfsup.load(name)
            self._parts[name] = (_fills_blanks(model, name), tokenizer, _same_words(tokenizer, self._language_of(name)))
        return self._parts[name]


def _fills_blanks(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """The model, if it is an encoder with a head for words."""
    if hasattr(model, "decoder"):
        raise ValueError(f"{name!r} writes from left to right and fills in no blanks: see NextWord")
    return model


def _same_words(tokenizer: PreTrainedTokenizerFast, language):
    """The language, whose posterior is by token id and so needs the tokenizer's very words."""
    if language is not None:
        special = set(tokenizer.all_special_tokens)
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        if tuple(token for token in tokens if token not in special) != language.words:
            raise ValueError(
                "the tokenizer's words are not the language's: give a model trained on this language"
            )
    return language


@lru_cache(maxsize=4)
def _tiny_examples(language) -> list[tuple[str, int]]:
    """A few openings of documents, whole sentences, each with the place where the truth is most worth a guess."""
    examples = []
    for document in language.documents(12, seed=1):
        tokens = document.tokens[: max((last for _, last in document.sentences if last <= 20), default=0)]
        words = [
            i for i, tag in enumerate(document.pos[: len(tokens)]) if tag in ("NOUN", "VERB", "ADJ", "PRON")
        ]
        if len(tokens) < 10 or not words:
            continue
        exact = [language.posterior(tokens, [i])[0] for i in words]
        entropy = [-float((p[p > 0] * np.log(p[p > 0])).sum()) for p in exact]
        best = min(range(len(words)), key=lambda i: abs(entropy[i] - 1.0))
        examples.append((language.render(tokens), words[best]))
    return examples[:4]
