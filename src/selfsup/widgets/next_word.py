"""The widget of chapter 7: a beginning, and what may come next."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING

import traitlets as t
from scipy.stats import entropy

from ..corpora import tinyworld
from . import HERE, IMPOSSIBLE, Asked, BadQuestion, _impossible, _quote, _same_words, checked_text, front_end

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

WIDTH, DEPTH, LEAST = 3, 3, 0.01  # of the tree of alternatives, and of a branch; worker.mjs has the same


def next_word(text: str, growing: bool, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast,
              language=None) -> dict:
    """What may follow a text: {"words", "logits", "truth", "tree", "note"}, see `NextWord`."""
    import torch

    coded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    ids, room, notes = list(coded.ids), model.config.max_positions - 1 - DEPTH, []
    words = tokenizer.convert_ids_to_tokens(ids)
    found = {"words": words, "logits": [], "truth": [], "tree": [], "note": ""}
    if len(ids) > room:
        return found | {"words": words[:room], "note": f"The text has {len(ids)} words, and the model reads at most "
                        f"{room}: take some back."}
    if strange := [text[slice(*at)] for at, one in zip(coded.offsets, ids) if one == tokenizer.unk_token_id]:
        notes.append(f"The model does not know {_quote(list(dict.fromkeys(strange)))}: it reads [UNK] there.")
    device = next(model.parameters()).device
    exact, offered = None, sorted({tokenizer.sep_token_id, *range(len(tokenizer))} - _never(tokenizer))
    if language is not None:
        if strange:
            notes.append(f"{IMPOSSIBLE} that language has no such word.")
        else:
            try:
                exact = language.next_word(words)
            except tinyworld.Impossible as error:
                notes.append(_impossible(error.position, [(word, []) for word in words]))

    def logits_of(prefixes: list[list[int]]) -> torch.Tensor:
        training = model.training
        try:
            with torch.inference_mode():
                return model.eval()(torch.tensor(prefixes, device=device))[:, -1].double().cpu()
        finally:
            model.train(training)

    def branches(prefixes: list[list[int]], depth: int) -> list[list[dict]]:
        """For each prefix, all of one length, its likeliest continuations, each with its own."""
        chances = torch.full((len(prefixes), len(tokenizer)), 0.0, dtype=torch.float64)
        chances[:, offered] = logits_of(prefixes)[:, offered].softmax(-1)
        grown = []
        for prefix, row in zip(prefixes, chances):
            best = [i for n, i in enumerate((-row).argsort(stable=True)[:WIDTH].tolist()) if not n or row[i] >= LEAST]
            truth = None
            if language is not None:
                with contextlib.suppress(tinyworld.Impossible):
                    truth = language.next_word(tokenizer.convert_ids_to_tokens(prefix[1:]))
            grown.append([{"id": i, "p": float(row[i]), "exact": None if truth is None else float(truth[i]), "next": []}
                          for i in best])
        if depth > 1:
            on = [(prefix, one) for prefix, many in zip(prefixes, grown) for one in many
                  if one["id"] != tokenizer.sep_token_id]
            for (_, one), more in zip(on, branches([[*prefix, one["id"]] for prefix, one in on], depth - 1)):
                one["next"] = more
        return grown

    whole = [tokenizer.cls_token_id, *ids]
    found["logits"] = [round(value, 4) for value in logits_of([whole])[0].tolist()]
    found["truth"] = [] if exact is None else [float(value) for value in exact]
    found["tree"] = branches([whole], DEPTH)[0] if growing else []
    return found | {"note": " ".join(notes)}


def _never(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Token ids that are not offered: special ones, but the end of a text."""
    return set(tokenizer.all_special_ids) - {tokenizer.sep_token_id}


class NextWord(Asked):
    """A beginning that the reader writes and goes on with, word by word, beside the exact chances.

    What is asked (set these, observe them, link them):
      text         str, the text so far
      growing      bool, whether the tree of alternatives is asked for
      temperature  float from 0, the best word alone, to 2; top_k int, 0 for all; top_p float: how the page draws a word
      seed         int, of the page's dice
    What is answered (observe these):
      words     list of str, the text as the model reads it
      logits    list of float, one for each of `vocabulary`; empty where the model cannot go on
      truth     list of float, the exact chances; empty where there is none
      tree      list of {"id", "p", "exact", "next"}: the likeliest next tokens, and after each the same again
      note      str, when something about the question stands in the way
      answered  int, counts the answers: changes last
    What is fixed:
      vocabulary  list of str; end: int, the id that ends a text; never: list of int, ids that are not offered
      names       list of str, words that are written with a capital
      examples    list of str; model_name; anchor: the widget's name in links

    model: the name of a language model that `selfsup.load` takes, or one with its `tokenizer` (and `language`, where
    there is a truth). Raises ValueError.
    """

    _esm = front_end("next_word.mjs")
    _css = HERE / "widgets.css"

    text = t.Unicode().tag(sync=True)
    growing = t.Bool(False).tag(sync=True)
    temperature = t.Float(1.0).tag(sync=True)
    top_k = t.Int(0).tag(sync=True)
    top_p = t.Float(1.0).tag(sync=True)
    seed = t.Int(0).tag(sync=True)
    words = t.List().tag(sync=True)
    logits = t.List().tag(sync=True)
    truth = t.List().tag(sync=True)
    tree = t.List().tag(sync=True)
    vocabulary = t.List().tag(sync=True)
    end = t.Int().tag(sync=True)
    never = t.List().tag(sync=True)
    names = t.List().tag(sync=True)
    examples = t.List().tag(sync=True)
    model_name = t.Unicode().tag(sync=True)
    anchor = t.Unicode("next").tag(sync=True)

    QUESTION = ("text", "growing")
    SETTINGS = {"temperature": (0, 2), "top_k": (0, 1000), "top_p": (0.01, 1), "seed": (0, 2**16 - 1)}
    ASKED = (*QUESTION, *SETTINGS)

    def __init__(self, text: str | None = None, *, model: str | torch.nn.Module = "tinyworld-gpt",
                 tokenizer: PreTrainedTokenizerFast | None = None, language=None, **traits):
        import selfsup

        from ..models.decoder import LanguageModel

        self._asked_for, name = None, model if isinstance(model, str) else "this model"
        if isinstance(model, str):
            model, tokenizer = selfsup.load(name)
            language = tinyworld.load("world") if name.startswith("tinyworld-") else None  # as shared.mjs has it
        if not isinstance(model, LanguageModel) or tokenizer is None:
            raise ValueError(f"{name!r} gives no next word: give a LanguageModel with its tokenizer, as selfsup.load "
                             "returns them")
        self._parts = model, tokenizer, _same_words(tokenizer, language)
        examples = list(beginnings(language)) if language else []
        given = {"vocabulary": tokenizer.convert_ids_to_tokens(range(len(tokenizer))), "end": tokenizer.sep_token_id,
                 "never": sorted(_never(tokenizer)), "names": sorted(language.names) if language else [],
                 "examples": examples, "model_name": name} | traits
        super().__init__(text=(examples or [""])[0] if text is None else text, **given)
        self._answer()

    @t.validate("text")
    def _check_text(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.validate(*SETTINGS)
    def _check_setting(self, proposal) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = self.SETTINGS[name]
        if not low <= value <= high:
            raise BadQuestion(f"{name} is {value}: choose {low} to {high}")
        return value

    @t.observe(*QUESTION)
    def _asked(self, change) -> None:
        if self._asked_for is not None:
            self._answer()

    def _answer(self) -> None:
        question = self.text, self.growing
        if question == self._asked_for:  # two traits that change together are one question
            return
        self._asked_for = question
        found = next_word(*question, *self._parts)
        self.tell(found)


@lru_cache(maxsize=2)
def beginnings(language, n: int = 4) -> tuple[str, ...]:
    """The first sentence of n documents and some words of the second, up to where most is open."""
    found = []
    for document in language.documents(4 * n, seed=3):
        (_, first), (_, second) = document.sentences[:2]
        if 6 <= first <= 14 and second - first >= 6 and len(found) < n:
            chances = {cut: language.next_word(document.tokens[:cut]) for cut in range(first + 1, first + 5)}
            cut = max(chances, key=lambda cut: entropy(chances[cut]))
            found.append(language.render(document.tokens[:cut]))
    return tuple(found)
