"""The four fine-tuned models: the page answers as the kernel does, and every control works in a real browser."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from selfsup import adapters
from selfsup.corpora.tinyworld.tasks import STATEMENTS, TASKS, classes_of, forms, kinds_of, statements
from selfsup.finetuning import with_head
from selfsup.models import pretrained
from selfsup.widgets import BadQuestion
from selfsup.widgets import specialists as module
from selfsup.widgets.specialists import Specialists, consult, example_texts

TRAITS = ("text", "statement", "query", "example", "words", "sentiment", "tags", "entailment", "found", "note")
TRAITS += ("answered",)
ANSWERS = """
const { consult } = await import(WIDGETS + "worker.mjs");
const { Bert, Tokenizer, readMetadata, readSafetensors, softmax } = await import(WIDGETS + "engine.mjs");
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const bert = new Bert(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors"));
const specialists = Object.fromEntries(data.tasks.map((task) => {
  const file = bytes(`${data.folder}/adapters/${task}.safetensors`);
  return [task, { model: bert.adapted(readSafetensors(file)), classes: readMetadata(file).classes }];
}));
const parts = { specialists, softmax, tokenizer: new Tokenizer(json(data.folder + "/tokenizer.json")),
  language: loadLanguage(data.language) };
console.log(JSON.stringify(data.cases.map(([text, statement, query]) =>
  consult({ text, statement, query, forms: data.forms }, parts))));
"""
REGISTERS = """
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const language = loadLanguage(data.language);
console.log(JSON.stringify([data.texts.map((tokens) => language.topic(tokens)),
  data.cases.map(([tokens, name]) => language.register(tokens, name))]));
"""
CUT = """
const { cut } = await import(WIDGETS + "specialists.mjs");
console.log(JSON.stringify(data.map(([text, words, span]) => cut(text, words, span))));
"""
STRANGE = ["", "  ", "zebra", "She saw a zebra.", "the " * 200, "🙂 👩‍👩‍👧‍👦"]
STRANGE += ["台灣大學", "<img src=x onerror='hacked=1'>"]
STRANGE += ["[MASK] [SEP] x", "She [MASK] home.", "she was", "a\u200db \u0301 ﬁ é"]
SETTLED = "(count) => models[0].get('answered') > count"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoints, language):
    """A random encoder with random adapters, in the place of those that are shipped."""
    folder = tmp_path_factory.mktemp("adapted") / "tinyworld-start"
    shutil.copytree(checkpoints["tinyworld-bert"].folder, folder)
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        classes = classes_of(task, language)
        model = with_head(pretrained.load(folder)[0].encoder, task, classes)
        adapters.add_adapters(model.encoder, rank=3)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(".up"):
                    weight.normal_(0, 0.1)
        adapters.save_adapter(model, folder / "adapters" / f"{task}.safetensors", task=task, rank=3, classes=classes)
    with pytest.MonkeyPatch.context() as patch:
        for place in (adapters, pretrained):
            patch.setattr(place, "CHECKPOINTS", folder.parent)
        patch.setattr(module, "_specialist", adapters.specialist)
        yield folder


def asked(page: list[dict], kernel: list[dict]) -> None:
    for here, there in zip(page, kernel, strict=True):
        assert (here["words"], here["note"]) == (there["words"], there["note"])
        assert [tag for tag, _ in here["tags"]] == [tag for tag, _ in there["tags"]]
        assert [p for _, p in here["tags"]] == pytest.approx([p for _, p in there["tags"]], abs=1e-3)
        for name in ("sentiment", "entailment"):
            ours, theirs = here[name], there[name]
            assert (ours is None) == (theirs is None)
            if ours:
                assert ours["classes"] == theirs["classes"]
                assert ours["model"] == pytest.approx(theirs["model"], abs=1e-3)
                for exact in ("exact", "chance"):
                    true = theirs.get(exact)
                    assert ours.get(exact) == (None if true is None else pytest.approx(true, abs=1e-6))
        assert (here["found"] or {}).get("span") == (there["found"] or {}).get("span")
        assert (here["found"] or {"p": 0})["p"] == pytest.approx((there["found"] or {"p": 0})["p"], abs=1e-3)


def test_the_page_answers_as_the_kernel_does(run_node, folder, language):
    cases = [(one["text"], *pair) for one in example_texts() for pair in zip(one["statements"], one["queries"])]
    others = zip(example_texts(), example_texts()[1:])
    cases += [(one["text"], said, "") for one, other in others for said in other["statements"]]
    cases += [("It was a bad day.", f"They {said}.", "") for said in ("planted peas", "build a desk")]
    cases += [(text, "She was sad.", "Who came too?") for text in STRANGE]
    cases += [(example_texts()[0]["text"], text, text) for text in STRANGE] + [(text, text, text) for text in STRANGE]
    question = {"folder": str(folder), "tasks": [*TASKS], "language": language.data, "forms": forms(language)}
    found = run_node(ANSWERS, {**question, "cases": cases})
    specialists = {task: adapters.specialist(task) for task in TASKS}
    kernel = [consult(*case, specialists, language) for case in cases]
    asked(found, kernel)
    assert any(one["found"] and one["found"]["span"] for one in kernel)
    assert len({tag for one in kernel for tag, _ in one["tags"]}) > 2, "the models answer the same everywhere"


def test_topics_and_registers_equal_python(run_node, language):
    texts = [list(one.tokens) for one in language.documents(12, seed=4, whole=False)]
    names = [one["name"] for one in language.data["registers"] if one["scope"] == "document"]
    cases = [(tokens, name) for tokens in texts for name in names]
    texts.append(["it", "was", "a", "bad", "day", "."])  # of many topics
    topics, found = run_node(REGISTERS, {"language": language.data, "texts": texts, "cases": cases})
    for tokens, shares in zip(texts, topics, strict=True):
        exact = language.topic(tokens)
        assert np.abs(np.array(shares) - exact).max() < 1e-6 and (np.array(shares) > 0).tolist() == (exact > 0).tolist()
    for (tokens, name), values in zip(cases, found, strict=True):
        assert np.abs(np.array(values) - language.register(tokens, name)).max() < 1e-6, (tokens, name)


def test_an_adapter_changes_what_it_names_and_shares_the_rest(run_node, folder):
    code = """
    const { Bert, readSafetensors } = await import(WIDGETS + "engine.mjs");
    const bert = new Bert(json(data + "/config.json"), bytes(data + "/model.safetensors"));
    const before = bert.logits([2, 9, 10, 3], [1])[0][7];
    const other = bert.adapted(readSafetensors(bytes(data + "/adapters/tags.safetensors")));
    let message;
    const file = readSafetensors(bytes(data + "/adapters/tags.safetensors"));
    file["bert.encoder.layer.0.output.dense.lora_A.weight"].shape[1] += 1;
    try { bert.adapted(file); } catch (error) { message = error.message; }
    let missing;
    delete file["bert.encoder.layer.1.attention.self.key.lora_B.weight"];
    file["bert.encoder.layer.0.output.dense.lora_A.weight"].shape[1] -= 1;
    try { bert.adapted(file); } catch (error) { missing = error.message; }
    console.log(JSON.stringify([other.words === bert.words, other.layers[0].norm === bert.layers[0].norm,
      other.layers[0].query.weight !== bert.layers[0].query.weight, bert.head === undefined,
      bert.logits([2, 9, 10, 3], [1])[0][7] === before, message, missing]));
    """
    *same, message, missing = run_node(code, str(folder))
    assert same == [True] * 5 and message == "the adapter is not of this model"
    assert missing.endswith("bert.encoder.layer.1.attention.self.key.lora_B.weight is missing")


def test_the_span_is_cut_out_of_the_text(run_node):
    text, words = "The dog saw the dog, at last.", ["The", "dog", "saw", "the", "dog", ",", "at", "last", "."]
    assert run_node(CUT, [[text, words, [3, 5]], [text, words, [0, 9]]]) == [
        ["The dog saw ", "the dog", ", at last."], ["", text, ""]]


def test_examples_show_every_kind_of_answer(language):
    examples = example_texts()
    assert len(examples) == 6 and len({one["text"] for one in examples}) == 6
    for one in examples:
        tokens = language.tokenize(one["text"])
        assert 15 <= len(tokens) <= 40
        chances = {module._chance(" ".join(language.tokenize(s)), language, tokens) for s in one["statements"]}
        assert min(chances) == 0 and max(chances) == pytest.approx(1) and any(0.01 < p < 0.9 for p in chances)
        assert len(one["queries"]) >= 3


def test_every_statement_is_of_a_form(language):
    document, *others = language.documents(8, seed=2, whole=False)
    for one in (document, *others):
        for kind in kinds_of(language, one.topic, STATEMENTS):
            told = [said for fitting in statements(language, one, kind) for said in fitting[:1]]
            assert all(module._chance(said, language, list(one.tokens)) is not None for said in told), kind
    assert module._chance("the story is about the zebra .", language, list(document.tokens)) is None


def test_a_statement_of_other_topics_only_has_no_exact_chance(language):
    boat, day = "the canoe floated happily down the river .".split(), "it was a bad day .".split()
    assert module._chance("there was a canoe in the water .", language, boat) == pytest.approx(1)
    assert module._chance("they planted peas .", language, boat) is None
    assert module._chance("the end is happy .", language, boat) is not None, "every story has an end"
    assert module._chance("they planted peas .", language, day) is None, "no garden's story says that of its day"
    assert 0 < module._chance("they build a desk .", language, day) < 0.5, "a workshop's story may"


def test_the_kernel_takes_questions_and_refuses_what_it_cannot_answer(folder):
    widget = Specialists()
    answered = widget.answered
    assert max(widget.sentiment["exact"]) > 0.95 and widget.entailment["exact"] == [1, 0, 0]
    widget.set_state({"text": "She was sad.", "sentiment": {}, "forms": []})
    assert widget.answered > answered and widget.words == ["She", "was", "sad", "."]
    assert widget.sentiment["model"] and widget.forms
    widget.set_state({"text": "x" * 20_000})
    assert "20000 characters" in widget.note and widget.text == "She was sad."
    widget.set_state({"text": "", "statement": "", "query": ""})
    assert "There is no text yet" in widget.note and widget.sentiment is widget.entailment is widget.found is None


def test_traits_that_change_together_are_one_question(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "consult", lambda *question: asked.append(question[:3]) or consult(*question))
    widget, other = Specialists(), example_texts()[1]
    assert widget.answered == len(asked) == 1
    question = {"text": other["text"], "statement": other["statements"][0], "query": other["queries"][0]}
    widget.set_state(question | {"example": 1})
    assert widget.answered == len(asked) == 2 and asked[1] == tuple(question.values())
    widget.set_state({"example": 0} | question)
    assert widget.answered == len(asked) == 2, "another list of ready statements is no question"
    with widget.hold_trait_notifications():
        widget.text, widget.query = "She was sad.", "Who came too?"
    assert widget.answered == len(asked) == 3
    widget.statement = "They planted peas."
    assert widget.answered == len(asked) == 4


@pytest.mark.parametrize(
    "state",
    [{"text": "x" * 20_000}, {"text": "a \ud83d b"}, {"query": 3}, {"example": 6}, {"example": -1}, {"example": True}],
)
def test_a_refused_question_gives_the_old_one_back(folder, monkeypatch, state):
    widget, sent = Specialists(), []
    before = widget.get_state(widget.QUESTION)
    monkeypatch.setattr(widget, "send_state", lambda key: sent.append(widget.get_state(key)))
    widget.set_state({"statement": "They planted peas."} | state)
    assert widget.get_state(widget.QUESTION) == before, "a question is taken whole or not at all"
    assert sent[0] == {name: before[name] for name in ("statement", *state)}, "the page hears first what stands"
    assert [*sent[-1]] == ["answered"] and len(sent) == 3
    assert widget.note and widget.answered == 2


def test_an_answer_that_fails_gives_the_old_question_back_and_may_be_asked_again(folder, monkeypatch):
    widget, broken = Specialists(), [True]
    before = widget.get_state(("text", "words"))

    def consult_or_fail(*question):
        if broken:
            raise ValueError("the file is damaged")
        return consult(*question)

    monkeypatch.setattr(module, "consult", consult_or_fail)
    widget.set_state({"text": "She was sad."})
    assert widget.note == "the file is damaged" and widget.get_state(("text", "words")) == before
    broken.clear()
    widget.set_state({"text": "She was sad."})
    assert widget.words == ["She", "was", "sad", "."] and not widget.note


@pytest.mark.parametrize(
    "examples",
    [[], [3], [{"text": "x"}], [{"text": "x", "statements": [], "queries": ["y"]}],
     [{"text": "x", "statements": "yes", "queries": ["y"]}], [{"text": 3, "statements": ["x"], "queries": ["y"]}],
     [{"text": "x", "statements": ["x"], "queries": [None]}]],
)  # fmt: skip
def test_examples_that_cannot_be_offered_are_refused(folder, examples):
    with pytest.raises(BadQuestion, match="give|needs"):
        Specialists(examples=examples)


def test_other_examples_may_come(folder):
    widget = Specialists(examples=example_texts()[:3], example=2)
    assert widget.text == example_texts()[2]["text"] and widget.entailment["exact"] == [1, 0, 0]
    for name, bad in (("example", 3), ("examples", example_texts()[:2]), ("examples", [{}])):
        with pytest.raises(BadQuestion):
            setattr(widget, name, bad)
    assert widget.example == 2 and len(widget.examples) == 3
    with pytest.raises(ValueError, match="choose 0 to 5"):
        Specialists(example=6)


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve, folder):
    site = make_site(tmp_path_factory.mktemp("specialists") / "pages", Specialists())
    manifest = json.loads((site / "assets" / "manifest.json").read_text())
    files = {task: f"{task}.safetensors" for task in TASKS}
    manifest["tinyworld-start"] = manifest["tinyworld-bert"] | {"adapters": files}
    shutil.copytree(folder / "adapters", site / "assets", dirs_exist_ok=True)
    (site / "assets" / "manifest.json").write_text(json.dumps(manifest))
    return serve(site)


def state(page) -> dict:
    return page.evaluate("(names) => Object.fromEntries(names.map((n) => [n, models[0].get(n)]))", TRAITS)


def settled(page, act) -> dict:
    count = state(page)["answered"]
    act()
    page.wait_for_function(SETTLED, arg=count)
    return state(page)


def test_a_late_answer_of_the_kernel_is_not_shown_at_another_text(open_page):
    page = open_page("notebook.html")
    page.get_by_label("Your text").fill("She was sad.")
    page.wait_for_function("models[0].get('text') === 'She was sad.'")
    page.get_by_label("Your text").fill("On the farm there was a turtle.")
    page.wait_for_function("models[0].get('text').startsWith('On')")
    late = {"words": ["She", "was", "sad", "."], "tags": [["PRON", 1.0]] * 4, "found": {"span": [0, 1], "p": 0.9},
            "answered": 9}  # fmt: skip
    give = "(traits) => { for (const [name, value] of Object.entries(traits)) models[0].set(name, value); }"
    shown = page.locator(".ss-passage").inner_text()
    page.evaluate(give, late)
    assert page.locator(".ss-passage").inner_text() == shown and page.locator("[aria-busy=true]").count() == 1
    words = ["On", "the", "farm", "there", "was", "a", "turtle", "."]
    own = {"words": words, "tags": [["NOUN", 1.0]] * 8, "found": {"span": [5, 7], "p": 0.9}, "answered": 10}
    page.evaluate(give, own)
    assert page.locator("mark").inner_text() == "a turtle" and page.locator("[aria-busy=true]").count() == 0


def test_typing_choosing_and_buttons(open_page):
    page = open_page()
    begin = state(page)
    assert not [url for url in page.fetched if "assets" in url], "fetched before a touch"
    assert page.get_by_role("region").count() == 5 and page.get_by_role("table").count() == 2
    statement = begin["statement"]
    chosen = settled(page, lambda: page.get_by_label("A ready statement").select_option(index=3))
    assert chosen["statement"] != statement and chosen["entailment"]["exact"] == [0, 0, 1]
    assert chosen["sentiment"]["model"] == pytest.approx(begin["sentiment"]["model"], abs=1e-3)
    assert page.get_by_label("Your own statement").input_value() == chosen["statement"]
    own = settled(page, lambda: page.get_by_label("Your own statement").fill("It rained."))
    assert own["entailment"]["chance"] is None and page.get_by_text("No exact answer").is_visible()
    assert page.get_by_label("A ready statement").input_value() == ""
    query = settled(page, lambda: page.get_by_label("A ready question").select_option(index=2))
    assert query["query"] != begin["query"]
    typed = settled(page, lambda: page.get_by_label("Your text").fill("She was sad."))
    assert typed["words"] == ["She", "was", "sad", "."] and page.locator(".ss-tags li").count() == 4
    other = settled(page, lambda: page.get_by_role("button", name="Another text").click())
    assert other["example"] == 1 and other["text"] == example_texts()[1]["text"]
    back = settled(page, lambda: page.get_by_role("button", name="Reset").click())
    assert {**back, "answered": 0, "tags": 0, "found": 0}.items() >= {
        name: begin[name] for name in ("text", "statement", "query", "example", "words", "note")}.items()
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('The statement: ')")


def test_a_button_wins_over_what_is_still_being_typed(open_page):
    page = open_page()
    field = page.get_by_label("Your text")
    settled(page, lambda: field.fill("She was sad."))
    page.evaluate("""() => {
      const [text] = document.querySelectorAll("textarea");
      text.focus();
      text.value += " He sang.";
      text.dispatchEvent(new Event("input"));
      [...document.querySelectorAll("button")].find((one) => one.textContent === "Another text").click();
    }""")
    page.wait_for_timeout(400)
    assert state(page)["text"] == field.input_value() == example_texts()[1]["text"]


def test_the_keyboard_reaches_every_control(open_page):
    page = open_page()
    page.get_by_label("Your text").focus()
    names = []
    for _ in range(8):
        names.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert names[1:] == ["Another text", "Reset", "Copy link", "A ready statement", "Your own statement",
                         "A ready question", "Your own question"]  # fmt: skip


@pytest.mark.parametrize("noworker", ["", "?noworker"])
def test_strange_text_on_a_narrow_page(open_page, noworker):
    page = open_page(noworker, width=375)
    for text in STRANGE:
        settled(page, lambda text=text: page.get_by_label("Your text").fill(text))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{text!r} scrolls sideways"
    for label in ("Your own statement", "Your own question"):
        for text in ("x" * 500, "<img src=x onerror='hacked=1'>", ""):
            settled(page, lambda text=text, label=label: page.get_by_label(label).fill(text))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{text!r} scrolls sideways"
    assert page.evaluate("window.hacked") is None
    assert page.get_by_text("Choose a statement, or type one.").is_visible()
    settled(page, lambda: page.get_by_label("Your text").fill(""))
    assert page.get_by_text("Type a text first.").count() == 2


@pytest.mark.parametrize("fragment", ["#w=specialists&query=x", f"#w=specialists&text={'x' * 2000}"])
def test_a_broken_link_is_refused_in_a_sentence(open_page, fragment):
    assert open_page(fragment).get_by_text("The link's state could not be read").is_visible()


def test_a_link_brings_its_state(open_page):
    page = open_page()
    settled(page, lambda: page.get_by_label("Your text").fill("She was sad."))
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("location.hash.length > 1")
    other = open_page(page.evaluate("location.hash"))
    other.wait_for_function(SETTLED, arg=1)
    names = ("text", "statement", "query", "words")
    assert [state(other)[name] for name in names] == [state(page)[name] for name in names]


def test_a_missing_model_is_told_in_a_sentence(open_page):
    page = open_page()
    page.route("**/tags.safetensors", lambda route: route.fulfill(body="short"))
    found = settled(page, lambda: page.get_by_label("Your text").fill("She was sad."))
    assert "The models cannot answer: the weights file is damaged" in found["note"]
