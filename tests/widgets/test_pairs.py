"""The pair playground: the page answers as the kernel does, and every button does what it says in a real browser."""

from __future__ import annotations

import json
import shutil

import pytest

import selfsup
from selfsup.models.pretrained import CHECKPOINTS
from selfsup.widgets.pairs import MODELS, PairPlayground, example_pairs, judge, world_pairs

TRAITS = ("a", "b", "follows", "ordered", "note", "answered")
ANSWERS = """
const { judge } = await import(WIDGETS + "worker.mjs");
const { Bert, Tokenizer, softmax } = await import(WIDGETS + "engine.mjs");
const { Pairs } = await import(WIDGETS + "tinyworld.mjs");
const pairs = new Pairs(data.language);
const parts = Object.fromEntries(Object.entries(data.folders).map(([about, folder]) => [about, { pairs, softmax,
  model: new Bert(json(folder + "/config.json"), bytes(folder + "/model.safetensors")),
  tokenizer: new Tokenizer(json(folder + "/tokenizer.json")) }]));
console.log(JSON.stringify(data.cases.map(([a, b, about]) => judge({ a, b, about }, parts[about]))));
"""
DONE = """
const { done } = await import(WIDGETS + "pairs.mjs");
console.log(JSON.stringify(data.states.map((state) => done(state, data.examples))));
"""
STRANGE = ["", "  ", "zebra", "she saw a zebra .", "the " * 60]
STRANGE += ["🙂 👩‍👩‍👧‍👦", "台灣大學", "<b onclick='x'>", "[MASK] [SEP] x"]
SETTLED = "(count) => models[0].get('answered') > count"


def test_the_page_answers_as_the_kernel_does(run_node, language):
    examples = example_pairs()
    texts = [(one["a"], one["b"]) for one in examples]
    texts += [(b, a) for a, b in texts] + [(a, texts[i - 1][1]) for i, (a, _) in enumerate(texts)]
    texts += [(a, b) for a in STRANGE for b in ("She was happy.", a)] + [("She was happy. It was late.", "He sang.")]
    cases = [(a, b, about) for a, b in texts for about in MODELS]
    folders = {about: str(CHECKPOINTS / name) for about, name in MODELS.items()}
    found = run_node(ANSWERS, {"language": language.data, "folders": folders, "cases": cases})
    models = {about: selfsup.load(name) for about, name in MODELS.items()}
    for (a, b, about), page in zip(cases, found, strict=True):
        kernel = judge(a, b, about, *models[about], world_pairs())
        assert page["note"] == kernel["note"], (a, b)
        assert page["model"] == pytest.approx(kernel["model"], abs=1e-3), (a, b)
        assert page["exact"] == pytest.approx(kernel["exact"], abs=1e-6) if kernel["exact"] else page["exact"] is None


def test_examples_are_true_pairs_with_rivals_near_and_far():
    examples = example_pairs()
    topics = [one["topic"] for one in examples]
    assert len(examples) == 12 and all(topics.count(topic) == 3 for topic in topics)
    language, pairs = world_pairs().language, world_pairs()
    for one in examples:
        assert pairs.in_a_row(*(language.tokenize(one[side]) for side in "ab")) > 0


def test_what_was_done_is_said(run_node):
    states = [
        dict(first=0, second=0, swapped=False, typed=False),
        dict(first=0, second=0, swapped=True, typed=False),
        dict(first=0, second=1, swapped=False, typed=False),
        dict(first=0, second=4, swapped=True, typed=False),
        dict(first=0, second=0, swapped=True, typed=True),
    ]
    found = run_node(DONE, {"states": states, "examples": example_pairs()})
    assert [text.split(":")[0].split(",")[0] for text in found] == [
        "Nothing was changed",
        "The two are exchanged",
        "B comes from another text.",
        "A comes from another text of the same topic",
        "You wrote this pair",
    ]


def test_the_kernel_takes_questions_and_refuses_what_it_cannot_answer(monkeypatch):
    widget = PairPlayground()
    before, answered = widget.follows, widget.answered
    assert before["model"] > 0.5 and before["exact"]["place"] > 0.9
    widget.set_state({"a": widget.b, "b": widget.a, "follows": {"model": 2.0}})
    assert widget.answered == answered + 1 and widget.ordered["exact"]["order"] < 0.1, "two traits, one question"
    sent = []
    monkeypatch.setattr(widget, "send_state", lambda key: sent.append(widget.get_state(key)))
    standing = {"a": widget.a, "b": widget.b}
    widget.set_state({"a": "Tom ran.", "b": "x" * 20_000})
    assert "20000 characters" in widget.note and widget.answered == answered + 2
    assert sent[0] == standing == {"a": widget.a, "b": widget.b}, "the page hears what stands"
    widget.a = ""
    assert widget.follows is None and "Two sentences" in widget.note


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve):
    folder = make_site(tmp_path_factory.mktemp("pairs") / "pages", PairPlayground())
    manifest = json.loads((folder / "assets" / "manifest.json").read_text())
    for name in MODELS.values():
        files = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
        manifest[name] = {part: f"{name}-{file}" for part, file in files.items()}
        for file in files.values():
            shutil.copy(CHECKPOINTS / name / file, folder / "assets" / f"{name}-{file}")
    (folder / "assets" / "manifest.json").write_text(json.dumps(manifest))
    return serve(folder)


def state(page) -> dict:
    return page.evaluate("(names) => Object.fromEntries(names.map((n) => [n, models[0].get(n)]))", TRAITS)


def press(page, label: str) -> dict:
    count = state(page)["answered"]
    page.get_by_role("button", name=label, exact=True).click()
    page.wait_for_function(SETTLED, arg=count)
    return state(page)


def test_buttons_exchange_and_replace(open_page):
    page = open_page()
    begin = state(page)
    assert not [url for url in page.fetched if "assets" in url], "fetched before a touch"
    swapped = press(page, "Swap A and B")
    assert (swapped["a"], swapped["b"]) == (begin["b"], begin["a"])
    assert swapped["ordered"]["exact"]["order"] < 0.1 and swapped["ordered"]["model"] < 0.5
    assert page.get_by_text("The two are exchanged").is_visible()
    back = press(page, "Swap A and B")
    assert back["follows"]["model"] == pytest.approx(begin["follows"]["model"], abs=1e-3)
    far = press(page, "B from elsewhere")
    assert far["a"] == begin["a"] and far["b"] != begin["b"]
    assert page.get_by_text("B comes from another text.").is_visible()
    assert far["follows"]["exact"]["anywhere"] < 0.1 and far["follows"]["exact"]["topic"] is None
    near = press(page, "B from the same topic")
    assert page.get_by_text("of the same topic.", exact=False).first.is_visible() and near["b"] != far["b"]
    other = press(page, "Another pair")
    assert other["a"] != begin["a"]
    reset = press(page, "Reset")
    assert (reset["a"], reset["b"]) == (begin["a"], begin["b"])
    assert page.get_by_role("region").count() == 1 and page.get_by_role("table").count() == 2


def test_typing_and_strange_text(open_page):
    page = open_page(width=375)
    field = page.get_by_label("Sentence B")
    for text in STRANGE:
        count = state(page)["answered"]
        field.fill(text)
        page.wait_for_function(SETTLED, arg=count)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert page.get_by_text("You wrote this pair").is_visible()


@pytest.mark.parametrize("fragment", ["#w=pairs&a=x", "#w=pairs&b=x", f"#w=pairs&a={'x' * 2000}&b=y"])
def test_a_broken_link_is_refused_in_a_sentence(open_page, fragment):
    page = open_page(fragment)
    assert page.get_by_text("The link's state could not be read").is_visible()


def test_a_link_brings_its_pair(open_page):
    page = open_page("#w=pairs&a=She+was+sad.&b=He+sang.")
    page.wait_for_function(SETTLED, arg=1)
    found = state(page)
    assert (found["a"], found["b"]) == ("She was sad.", "He sang.") and found["follows"]["model"] is not None
