"""The widget of chapter 6: a damaged text, and a model that restores it word by word."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import traitlets as t

from ..corpora import tinyworld
from ..generation import forbid, generate
from ..objectives.denoising import KINDS, RATES, Denoising, Marks
from . import HERE, Asked, BadQuestion, _quote, checked_text, front_end

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

# The page's damage.mjs and worker.mjs have the same: both sides give the same answers.
MEAN, LONGEST = 3.0, 20  # words of a span, on average and at most
TOP, EXTRA = 5, 10  # choices a word; words more than x″ has, after which the model is stopped


def die(seed: int, place: int) -> float:
    """A number in [0, 1) that a seed and a place decide (one round of mulberry32), as in sampling.mjs."""
    z = ((seed + 1) * 0x9E3779B1 + (place + 1) * 0x6D2B79F5) % 2**32
    z = (z ^ z >> 15) * (z | 1) % 2**32
    z ^= (z + (z ^ z >> 7) * (z | 61)) % 2**32
    return (z ^ z >> 14) / 2**32


def chosen(n: int, share: float, seed: int) -> list[int]:
    """Which of n places the dice choose: each with probability `share`, and one at least."""
    return [at for at in range(n) if die(seed, at) < share] or [int(die(seed, n) * n)]


def poisson(number: float, mean: float) -> int:
    """The count that a number in [0, 1) picks from the Poisson distribution."""
    count, chance = 0, math.exp(-mean)
    while number >= chance and count < LONGEST:
        number, count = number - chance, count + 1
        chance *= mean / count
    return count


def spans(n: int, rate: float, least: int, seed: int) -> list[tuple[int, int]]:
    """(first, end) of spans of n words, one at least: what `random_spans` of denoising.py draws.

    Since spans meet, the share covered is about 1 - exp(-rate), a little less than `rate`; in a short text, more.
    """
    found: list[tuple[int, int]] = []
    for at in chosen(n, rate / MEAN, seed):
        end = min(n, at + least + poisson(die(seed, n + 1 + at), MEAN - least))
        if found and at < found[-1][1]:  # inside another, which becomes longer
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((at, end))
    return found


def sentences(text: Sequence[int], marks: Marks) -> list[list[int]]:
    """A text cut after each full stop that is not inside quotation marks."""
    found, quoted, over = [], False, True
    for word in text:
        if over:
            found.append([])
        found[-1].append(word)
        quoted ^= word == marks.quote
        over = word in marks.full_stops and not quoted
    return found


def damage(text: Sequence[int], kind: str, rate: float, seed: int, marks: Marks) -> tuple[list[int], list[int], int]:
    """x′, x″, and how many words stand before those that x″ gives back; all without [CLS] and [SEP].

    text: token ids, one at least. What it makes is one of the things that `Denoising` makes with the same rate: the
    dice of a seed decide which. Something is always done, but where words or sentences repeat the text may read as
    before; and one word cannot be rotated, one sentence not be permuted.
    """
    text, n = list(text), len(text)
    if kind == "masking":
        at = chosen(n, rate, seed)
        return [marks.mask if i in at else word for i, word in enumerate(text)], text, 0
    if kind == "deletion":
        at = chosen(n, rate, seed)
        return [word for i, word in enumerate(text) if i not in at], text, 0
    if kind == "permutation":
        parts = sentences(text, marks)
        order = sorted(range(len(parts)), key=lambda i: die(seed, i))
        if order == sorted(order):
            order = order[1:] + order[:1]
        return [word for i in order for word in parts[i]], text, 0
    if kind == "rotation":
        start = 1 + int(die(seed, 0) * (n - 1))
        return text[start:] + text[:start], text, 0
    if kind == "mass":
        size = max(1, round(n * rate))
        start = int(die(seed, 0) * (n - size + 1))
        end = start + size
        return text[:start] + [marks.mask] * size + text[end:], text[start:end], start
    seen, written, before = [], [], 0
    found = spans(n, rate, int(kind == "spans"), seed)
    if kind == "spans":
        found = found[: len(marks.sentinels) - 1]
    for number, (first, end) in enumerate(found):
        mark = marks.sentinels[number] if kind == "spans" else marks.mask
        seen += [*text[before:first], mark]
        written += [mark, *text[first:end]]
        before = end
    seen += text[before:]
    return (seen, [*written, marks.sentinels[len(found)]], 0) if kind == "spans" else (seen, text, 0)


def places(written: Sequence[int], target: Sequence[int]) -> list[int]:
    """For each word written, which word of the target it should be.

    What is written before it is held against all beginnings of the target: the one that the fewest insertions,
    deletions and replacements make of it has come as far. Of equals, the one whose length is nearest.
    """
    found, distances = [], list(range(len(target) + 1))
    for i, word in enumerate(written):
        found.append(min(range(len(distances)), key=lambda j: (distances[j], abs(j - i))))
        longer = [i + 1]
        for j, true in enumerate(target):
            longer.append(min(distances[j] + (word != true), distances[j + 1] + 1, longer[j] + 1))
        distances = longer
    return found


def restore(text: str, kind: str, rate: float, seed: int, look: str, model: torch.nn.Module,
            tokenizer: PreTrainedTokenizerFast) -> dict:
    """A text damaged and restored: {"words", "seen", "target", "steps", "note"}, see `Restore`."""
    import torch

    from ..models.transformer import attention_weights

    marks, names = Marks.of(tokenizer), tokenizer.convert_ids_to_tokens
    unknown, end = tokenizer.unk_token_id, tokenizer.sep_token_id
    coded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    ids, notes = [i for i in coded.ids if i not in marks.special], []
    room = (model.config.max_positions - EXTRA - 2) // 2  # a text of [MASK]s alone has two for each word at most
    if len(ids) > room:
        notes.append(f"The model reads the first {room} of {len(ids)} words.")
        ids = ids[:room]
    if strange := [text[slice(*at)] for at, one in zip(coded.offsets, coded.ids) if one == unknown]:
        notes.append(f"The model does not know {_quote(list(dict.fromkeys(strange)))}: it reads [UNK] there.")
    if marks.mask in ids:
        notes.append("A [MASK] of your own has no true word.")
    if kind == "permutation" and len(sentences(ids, marks)) == 1:
        notes.append("A permutation needs two sentences: write one more.")
    if kind == "rotation" and len(ids) == 1:
        notes.append("A rotation needs two words: write one more.")
    found = {"words": names(ids), "seen": [], "target": [], "steps": []}
    if not ids:
        return found | {"note": " ".join([*notes, "There is no text to damage yet: write one."])}

    seen, target, before = damage(ids, kind, rate, seed, marks)
    seen, prompt = [tokenizer.cls_token_id, *seen, end], [tokenizer.cls_token_id] + [marks.mask] * before
    most = len(target) if kind == "mass" else len(target) + EXTRA  # [MASK]s say how much is missing
    target = target if kind == "mass" else [*target, end]
    never = {tokenizer.pad_token_id, unknown, tokenizer.cls_token_id, marks.mask}
    layer, _, head = look.partition(".")
    training, device = model.training, next(model.parameters()).device
    try:
        with torch.inference_mode():
            writer = model.eval().reading(torch.tensor([seen], device=device))
            written = generate(writer, torch.tensor([prompt], device=device), max_new_tokens=most, temperature=0.0,
                               stop_ids=[end], forbidden_ids=never)[0].tolist()
            with attention_weights(model.decoder) as looks:  # of each block, to its own words and to the memory
                logits = writer(torch.tensor([prompt + written[:-1]], device=device))[0, len(prompt) - 1 :].cpu()
    finally:
        model.train(training)
    chances = forbid(logits.double(), never).softmax(-1)
    heads = looks[2 * int(layer) - 1][0, :, len(prompt) - 1 :].cpu()
    shares = (heads[int(head) - 1] if head else heads.mean(0)).tolist()
    where = range(len(written)) if kind == "mass" else places(written, target)  # MASS is told where its words stand
    for word, place, row, share in zip(written, where, chances, shares):
        true = target[place] if place < len(target) else None
        best = (-row).argsort(stable=True)[:TOP].tolist()
        if true is not None and true not in best:
            best[-1] = true
        found["steps"].append({"word": names(word), "true": true if true is None else names(true),
                               "chances": [[names(i), float(row[i])] for i in best],
                               "look": [round(one, 4) for one in share]})
    if kind != "mass" and written[-1] != end:
        notes.append(f"The model finds no end: it was stopped after {len(written)} words.")
    return found | {"seen": names(seen), "target": names(target), "note": " ".join(notes)}


class Restore(Asked):
    """A text that the reader damages, and a model that restores it word by word.

    What is asked (set these, observe them, link them):
      text   str, x
      kind   str, one of `kinds`: what is done to the text
      rate   float between 0 and 1, the share that is damaged; None: the usual one, of `rates`
      seed   int, of the dice that decide where
      look   str, one of `looks`: the block, and the head after a dot, whose attention is shown; without one, the mean
      shown  int, how many words are written so far on the page
    What is answered (observe these):
      words     list of str, x as the model reads it
      seen      list of str, x′ as the encoder reads it, [CLS] … [SEP]
      target    list of str, x″: what must be written
      steps     list of {"word", "true", "chances", "look"}, one for each word that the model writes: the word; the one
                that x″ has there, None after its end; [[word, probability], …], the best and the true one; and the
                share of the decoder's attention that each of `seen` gets
      note      str, when something about the question stands in the way
      answered  int, counts the answers: changes last
    What is fixed:
      kinds     list of str, those that the model was trained on where its recipe says so; rates: {kind: float}
      looks     list of str; examples: list of str; model_name; anchor: the widget's name in links

    model: the name of an encoder–decoder that `selfsup.load` takes, or one with its `tokenizer`. Raises ValueError.
    """

    _esm = front_end("restore.mjs")
    _css = HERE / "widgets.css"

    text = t.Unicode().tag(sync=True)
    kind = t.Unicode("infilling").tag(sync=True)
    rate = t.Float(None, allow_none=True).tag(sync=True)
    seed = t.Int(0).tag(sync=True)
    look = t.Unicode().tag(sync=True)
    shown = t.Int(0, min=0).tag(sync=True)
    words = t.List().tag(sync=True)
    seen = t.List().tag(sync=True)
    target = t.List().tag(sync=True)
    steps = t.List().tag(sync=True)
    kinds = t.List().tag(sync=True)
    rates = t.Dict().tag(sync=True)
    looks = t.List().tag(sync=True)
    examples = t.List().tag(sync=True)
    model_name = t.Unicode().tag(sync=True)
    anchor = t.Unicode("restore").tag(sync=True)

    QUESTION = ("text", "kind", "rate", "seed", "look")
    ASKED = (*QUESTION, "shown")

    def __init__(self, text: str | None = None, *, model: str | torch.nn.Module = "tinyworld-seq2seq",
                 tokenizer: PreTrainedTokenizerFast | None = None, **traits):
        import selfsup

        from ..models.encoder_decoder import EncoderDecoder
        from ..models.pretrained import find

        self._asked_for, name, folder = None, "this model", None
        if isinstance(model, str):
            name, folder = model, find(model)
            model, tokenizer = selfsup.load(name)
        if not isinstance(model, EncoderDecoder) or tokenizer is None:
            raise ValueError(f"{name!r} restores no text: give an EncoderDecoder with its tokenizer, as selfsup.load "
                             "returns them")
        self._parts, config = (model, tokenizer), model.config
        if config.max_positions < EXTRA + 4:
            raise ValueError(f"{name!r} has {config.max_positions} positions, and to restore one word takes "
                             f"{EXTRA + 4}: give a model with more")
        kinds = traits.get("kinds") or _trained_on(folder, tokenizer)
        if not kinds:
            raise ValueError(f"{name!r} learned no damage that Restore shows: give kinds, of {', '.join(KINDS)}")
        if strange := [kind for kind in Denoising(tokenizer, kinds).kinds if kind not in KINDS]:
            raise ValueError(f"Restore does not show {strange[0]!r}: give one or more of {', '.join(KINDS)}")
        heads = ["", *(f".{head + 1}" for head in range(config.heads))]
        looks = [f"{layer + 1}{head}" for layer in range(config.layers) for head in heads]
        given = {"kinds": kinds, "rates": RATES, "looks": looks, "look": str(config.layers), "model_name": name,
                 "kind": "infilling" if "infilling" in kinds else kinds[0], "examples": list(openings())} | traits
        super().__init__(text=given["examples"][0] if text is None else text, **given)
        self._answer()

    @t.validate("text")
    def _check_text(self, proposal) -> str:
        return checked_text(proposal["value"])

    @t.validate("kind", "look")
    def _check_choice(self, proposal) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (choices := getattr(self, f"{name}s")):
            raise BadQuestion(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        return value

    @t.validate("rate", "seed")
    def _check_number(self, proposal) -> float | None:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "rate" and value is not None and not 0 < value < 1:
            raise BadQuestion(f"rate is {value}: choose a share between 0 and 1, or None for the paper's")
        if name == "seed" and not 0 <= value < 2**16:
            raise BadQuestion(f"seed is {value}: choose 0 to {2**16 - 1}")
        return value

    @t.observe(*QUESTION)
    def _asked(self, change) -> None:
        if self._asked_for is not None:
            self._answer()

    def _answer(self) -> None:
        question = tuple(getattr(self, name) for name in self.QUESTION)
        if question == self._asked_for:  # several traits that change together are one question
            return
        self._asked_for = question
        text, kind, rate, seed, look = question
        found = restore(text, kind, rate or self.rates.get(kind, 0.0), seed, look, *self._parts)
        self.tell(found)


def _trained_on(folder: Path | None, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The kinds of damage in the recipe of the model in `folder`; all that can be where there is none."""
    if folder and (recipe := folder / "recipe.json").is_file():
        trained = Denoising(tokenizer, **json.loads(recipe.read_text(encoding="utf-8"))["objective_options"]).kinds
        return [kind for kind in KINDS if kind in trained]
    return [kind for kind in KINDS if kind != "spans" or len(Marks.of(tokenizer).sentinels) > 1]


@lru_cache(maxsize=1)
def openings(n: int = 4) -> tuple[str, ...]:
    """The first three sentences of n documents of Tinyworld, where these have 20 to 27 words."""
    language = tinyworld.load("world")
    beginnings = (document.tokens[: document.sentences[2][1]] for document in language.documents(8 * n, seed=10))
    return tuple(islice((language.render(words) for words in beginnings if 20 <= len(words) <= 27), n))
