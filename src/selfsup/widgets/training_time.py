"""The widget of chapter 5: one hidden word, and what a model says of it at each step of its training."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import traitlets as t

from ..corpora import tinyworld
from ..models.pretrained import load_snapshot, snapshots
from ..tokenization import load_tokenizer
from ..training import LOG, History
from . import (
    HERE,
    LONGEST_SENTENCE,
    Asked,
    BadQuestion,
    _same_words,
    _tiny_examples,
    answer,
    checked_text,
    front_end,
)
from .labels import is_score

RUN = "tinyworld-bert"
MOST_CURVES = 6  # training_time.mjs has as many ways to draw one

_model = lru_cache(maxsize=4)(load_snapshot)


class TrainingTime(Asked):
    """One hidden word of a sentence, and what a model says of it at the step that the reader chooses.

    What is asked (set these, observe them, link them):
      sentence  str
      position  int, the index of the hidden word
      step      int, one of `steps`
      top       int, how many predictions
    What is answered (observe these): words, predictions, truth and note as in `MaskPlayground`;
      answer_to  dict, the question that they answer
      answered   int, counts the answers: changes last
    What is fixed:
      steps     list of int, the steps whose weights the run kept
      read      list of int, how many words it had read by each of them; empty where its log does not say
      examples  list of [sentence, position]
      curves    list of {"name", "values": a score from 0 to 1, or None, for each of `steps`, "best": the best score
                possible, or None}
      run       the name of the run, that of its folder
      anchor    the widget's name in links, a plain name such as training_2: another for each of a page

    run: a shipped checkpoint with snapshots, or the folder of a run with them. Raises BadQuestion, a ValueError and a
    TraitError, for what cannot be shown; TraitError for a value of another type; and ValueError for a run without
    snapshots or with damaged ones.
    """

    _esm = front_end("training_time.mjs")
    _css = HERE / "widgets.css"

    sentence = t.Unicode().tag(sync=True)
    position = t.Int().tag(sync=True)
    step = t.Int().tag(sync=True)
    top = t.Int(5).tag(sync=True)
    steps = t.List().tag(sync=True)
    read = t.List().tag(sync=True)
    examples = t.List().tag(sync=True)
    curves = t.List().tag(sync=True)
    run = t.Unicode().tag(sync=True)
    anchor = t.Unicode("training").tag(sync=True)
    words = t.List().tag(sync=True)
    predictions = t.List().tag(sync=True)
    truth = t.List().tag(sync=True)
    answer_to = t.Dict().tag(sync=True)

    QUESTION = ("sentence", "position", "step", "top")
    ASKED = QUESTION

    def __init__(
        self,
        sentence: str | None = None,
        position: int | None = None,
        step: int | None = None,
        *,
        top: int = 5,
        curves: list[dict] | tuple = (),
        run: str | Path = RUN,
        examples: list | None = None,
        anchor: str = "training",
    ):
        self._ready, self._question = False, None
        kept = snapshots(run)
        self._folder = next(iter(kept.values())).resolve().parents[1]
        name, steps = self._folder.name, list(kept)
        language = tinyworld.load("world") if name.startswith("tinyworld-") else None  # as shared.mjs has it
        self._tokenizer = load_tokenizer(self._folder)
        self._language = _same_words(self._tokenizer, language)
        if examples is None:
            examples = _tiny_examples(language) if language else []
        examples = checked_examples(examples)
        first, place = examples[0] if sentence is None and examples else (sentence or "", 0)
        super().__init__(
            sentence=first,
            position=place if position is None else position,
            step=steps[0] if step is None else step,
            top=top,
            run=name,
            steps=steps,
            read=words_read(self._folder, steps),
            examples=examples,
            curves=checked_curves(list(curves), steps),
            anchor=anchor,
        )
        self._ready = True
        self._answer()

    @t.validate("sentence")
    def _check_sentence(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.validate("position", "step", "top")
    def _check_number(self, proposal) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "step" and value not in self.steps:
            raise BadQuestion(f"there is no snapshot of step {value}: choose from {', '.join(map(str, self.steps))}")
        low, high = {"position": (0, LONGEST_SENTENCE - 1), "top": (1, 20)}.get(name, (self.steps[0], self.steps[-1]))
        if type(value) is not int or not low <= value <= high:
            raise BadQuestion(f"{name} is {value}: choose {low} to {high}")
        return value

    @t.validate("steps", "read", "examples", "curves", "run")
    def _check_fixed(self, proposal):
        if self._ready:
            raise BadQuestion(f"{proposal['trait'].name} is given once: make another TrainingTime for another")
        return proposal["value"]

    @t.observe(*QUESTION)
    def _asked(self, change) -> None:
        if self._ready:
            self._answer()

    def _answer(self) -> None:
        question = {name: getattr(self, name) for name in self.QUESTION}
        if question == self._question:  # several traits that change together are one question
            return
        before, self._question = self._question, question
        touched = [{"position": self.position, "kind": "mask"}]
        try:
            model = _model(str(self._folder), self.step)
            found = answer(self.sentence, touched, self.top, model, self._tokenizer, self._language)
        except (ValueError, OSError):
            self._question = before
            with self.hold_trait_notifications():
                for name, value in (before or {}).items():
                    setattr(self, name, value)
            raise
        told = {name: found[name] for name in ("words", "predictions", "truth", "note")}
        self.tell(told | {"answer_to": question})


def words_read(folder: Path, steps: list[int]) -> list[int]:
    """How many words a run had read by each step, evenly between the lines of its log; [] where it has none."""
    if not (folder / LOG).is_file():
        return []
    logged, words = History.read(folder / LOG)["tokens"]
    return np.interp(steps, [0, *logged], [0, *words]).round().astype(int).tolist()


def checked_examples(examples) -> list[list]:
    """The examples, if each is a sentence with the position of a word."""
    for one in examples:
        if not isinstance(one, list | tuple) or [type(part) for part in one] != [str, int] or one[1] < 0:
            raise BadQuestion(f"the example {one!r} needs a sentence and the position of a word")
    return [[checked_text(sentence), position] for sentence, position in examples]


def checked_curves(curves: list[dict], steps: list[int]) -> list[dict]:
    """The curves, if they can be drawn over these steps."""
    if len(curves) > MOST_CURVES:
        raise BadQuestion(f"there are {len(curves)} curves: give at most {MOST_CURVES}")
    checked = []
    for one in curves:
        if not isinstance(one, dict) or not {"name", "values"} <= one.keys() <= {"name", "values", "best"}:
            raise BadQuestion(f"{one!r} is no curve: give its name, its values and, where it is known, the best score")
        if not isinstance(one["name"], str) or not one["name"]:
            raise BadQuestion(f"a curve has the name {one['name']!r}: give a few words")
        if not isinstance(one["values"], list | tuple) or len(one["values"]) != len(steps):
            raise BadQuestion(f"the curve {one['name']!r} needs a list of {len(steps)} values, one for each step")
        scores = [*one["values"], one.get("best")]
        for value in scores:
            if value is not None and not is_score(value):
                raise BadQuestion(f"the curve {one['name']!r} has {value!r}: give scores from 0 to 1, or None")
        *values, best = (value if value is None else float(value) for value in scores)
        checked.append({"name": one["name"], "values": values, "best": best})
    if len({one["name"] for one in curves}) < len(curves):
        raise BadQuestion("two curves have one name: give each its own")
    return checked
