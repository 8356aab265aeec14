"""A model at each step of its training: the page answers as the kernel does, and fetches only what is asked for."""

from __future__ import annotations

import copy
import json
import re
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from traitlets import TraitError

from selfsup.models.pretrained import load_snapshot, packed_weights, save_pretrained, snapshots
from selfsup.widgets import BadQuestion, answer
from selfsup.widgets import training_time as module
from selfsup.widgets.training_time import RUN, TrainingTime, words_read

STEPS = [0, 1, 8, 128, 1024]
CURVES = [
    {"name": "nouns", "values": [0.1, 0.2, 0.6, 0.9, 0.95], "best": 0.97},
    {"name": "who it is about", "values": [None, 0.1, None, 0.4, 0.7]},
    {"name": "<img src=x onerror='hacked=1'>", "values": [0, 0, 0, 0.5, 1], "best": 1},
]
TRAITS = (*TrainingTime.QUESTION, "words", "predictions", "truth", "note", "answer_to", "answered")
ANSWERS = """
const fetched = [];
globalThis.fetch = async (url) => {
  fetched.push(url.split("/").at(-1));
  const path = new URL(url);
  return { ok: true, json: async () => json(path), arrayBuffer: async () => bytes(path) };
};
const { handle } = await import(WIDGETS + "worker.mjs");
const assets = { engine: WIDGETS + "engine.mjs", tinyworld: WIDGETS + "tinyworld.mjs", ...data.assets };
const answers = [];
for (const question of data.questions) {
  answers.push(await handle({ assets, question }).catch((error) => error.message));
}
console.log(JSON.stringify([answers, fetched]));
"""
PURE = """
const { readLink, rowsOf, namedSteps, stepName, writeLink } = await import(WIDGETS + "training_time.mjs");
const words = [0, 999, 2294, 93639, 312000, 21500000];
const question = { sentence: "A & b #1?", position: 2, step: 128 };
const [prediction, truth] = data;
console.log(JSON.stringify({
  names: [stepName(128), ...words.map((n) => stepName(1024, n))],
  link: readLink(writeLink("training", question), "training", [0, 128]),
  other: readLink("#w=mask&s=x", "training", [0]),
  rows: rowsOf(prediction, truth, 2), alone: rowsOf(prediction, undefined, 2),
  named: [namedSteps([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 10500], 240), namedSteps([7], 240)],
}));
"""
ANSWERED = "(count) => models[0].get('answered') > count"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoints, language):
    """A run with snapshots of other random weights at each step."""
    folder = tmp_path_factory.mktemp("runs") / "tinyworld-bert"
    model = copy.deepcopy(checkpoints["tinyworld-bert"].model)
    torch.manual_seed(1)
    save_pretrained(model, language.tokenizer, folder, half=True)
    (folder / "snapshots").mkdir()
    for step in STEPS:
        with torch.no_grad():
            model.encoder.embeddings.token.weight.mul_(1.1).add_(torch.randn(128) / 5)
        (folder / "snapshots" / f"{step:06}.safetensors").write_bytes(packed_weights(model, half=True))
    log = [{"step": step, "tokens": 2000 * step} for step in (100, 1024)]
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in log))
    return folder


@pytest.fixture
def widget(folder) -> TrainingTime:
    return TrainingTime(run=folder, curves=CURVES)


def near(found, expected) -> None:
    """The same tokens in any order of what is nearly equal, the same numbers to 1e-3."""
    for name in ("words", "note"):
        assert found[name] == expected[name]
    for name in ("predictions", "truth"):
        for ours, theirs in zip(found[name], expected[name], strict=True):
            assert (ours["position"], ours["real"]) == (theirs["position"], theirs["real"])
            assert dict(ours["top"]) == pytest.approx(dict(theirs["top"]), abs=1e-3)


def test_the_kernel_answers_with_the_weights_of_the_step(widget, folder, language):
    assert widget.steps == STEPS and widget.step == 0 and widget.read == [0, 2000, 16_000, 256_000, 2_048_000]
    assert [widget.sentence, widget.position] == widget.examples[0] and widget.answered == 1
    seen = []
    for step in STEPS[1:]:
        widget.step = step
        asked = {"sentence": widget.sentence, "touched": [{"position": widget.position}], "top": 5}
        asked["touched"][0]["kind"] = "mask"
        found = answer(**asked, model=load_snapshot(folder, step), tokenizer=language.tokenizer, language=language)
        assert {name: found[name] for name in ("words", "predictions", "truth", "note")} == widget.get_state(
            ("words", "predictions", "truth", "note"))
        assert widget.answer_to == widget.get_state(widget.QUESTION)
        seen.append(widget.predictions[0]["top"])
    assert widget.answered == len(STEPS) and len(widget.truth) == 1
    assert all(a != b for a, b in zip(seen, seen[1:])), "another step, other weights"


def test_traits_that_change_together_are_one_question(widget):
    widget.set_state({"sentence": "The dog ran home.", "position": 1, "step": 128, "words": [], "steps": [3]})
    assert widget.answered == 2 and widget.steps == STEPS and [word["kind"] for word in widget.words][1] == "mask"


@pytest.mark.parametrize(
    ("state", "message"),
    [({"step": 7}, "no snapshot of step 7: choose from 0, 1, 8, 128, 1024"), ({"step": True}, "step is True"),
     ({"position": -1}, "position is -1"), ({"top": 0}, "top is 0: choose 1 to 20"),
     ({"sentence": "x" * 20_000}, "20000 characters"), ({"position": 1.5}, "position")],
)  # fmt: skip
def test_a_refused_question_gives_the_old_one_back(widget, monkeypatch, state, message):
    sent, before = [], widget.get_state(widget.QUESTION)
    monkeypatch.setattr(widget, "send_state", lambda key: sent.append(widget.get_state(key)))
    widget.set_state({"sentence": "The dog ran home."} | state)
    assert widget.get_state(widget.QUESTION) == before, "a question is taken whole or not at all"
    assert sent[0] == {name: before[name] for name in {"sentence": 0} | state}
    assert message in widget.note and "\n" not in widget.note and widget.answered == 2


def test_a_damaged_snapshot_gives_the_old_question_back(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / "snapshots" / "000008.safetensors").write_bytes(b"short")
    widget = TrainingTime(run=copy)
    before = widget.get_state((*widget.QUESTION, "predictions"))
    widget.set_state({"step": 8})
    assert "000008.safetensors is damaged" in widget.note
    assert widget.get_state((*widget.QUESTION, "predictions")) == before
    widget.set_state({"step": 128})
    assert widget.step == 128 and not widget.note


@pytest.mark.parametrize(
    ("curves", "message"),
    [([3], "is no curve"), ([{"name": "a"}], "is no curve"), ([{"name": "a", "values": [0.5] * 4}], "list of 5"),
     ([{"name": "", "values": [0] * 5}], "a few words"), ([{"name": "a", "values": [0] * 5, "hue": 1}], "no curve"),
     ([{"name": "a", "values": [0, 1, 2, 0, 0]}], "from 0 to 1"), ([{"name": "a", "values": "01010"}], "5 values"),
     ([{"name": "a", "values": [0] * 5, "best": 97}], "scores from 0 to 1"),
     ([{"name": "a", "values": [0] * 5}] * 2, "one name"), ([CURVES[0]] * 7, "at most 6")],
)  # fmt: skip
def test_curves_that_cannot_be_drawn_are_refused(folder, curves, message):
    with pytest.raises(BadQuestion, match=message):
        TrainingTime(run=folder, curves=curves)


def test_scores_are_numbers_of_any_kind(folder):
    values = [None, np.float32(0.25), np.float64(0.5), Fraction(3, 4), np.int64(1)]
    [curve] = TrainingTime(run=folder, curves=[{"name": "a", "values": values, "best": np.float32(1)}]).curves
    assert json.dumps(curve) == '{"name": "a", "values": [null, 0.25, 0.5, 0.75, 1.0], "best": 1.0}'
    for value in (np.float32("nan"), np.float64("inf"), np.float32(1.5), True, np.True_, "0.5", 1j):
        with pytest.raises(BadQuestion, match="give scores from 0 to 1, or None"):
            TrainingTime(run=folder, curves=[{"name": "a", "values": [value] * 5}])


def test_errors_are_of_the_kinds_that_are_promised(folder, widget):
    assert issubclass(BadQuestion, ValueError) and issubclass(BadQuestion, TraitError)
    for name, value in (("position", 1.5), ("sentence", 3), ("step", "8"), ("anchor", 3)):
        with pytest.raises(TraitError, match=f"'{name}' trait of a TrainingTime instance expected"):
            TrainingTime(**{"run": folder, name: value})
        with pytest.raises(TraitError, match=f"'{name}' trait of a TrainingTime instance expected"):
            setattr(widget, name, value)
    with pytest.raises(TypeError, match="'stop'"):
        TrainingTime(run=folder, stop=8)
    made = TrainingTime("She was sad.", 2, 128, top=3, run=folder, anchor="second")
    assert [getattr(made, name) for name in (*made.QUESTION, "anchor")] == ["She was sad.", 2, 128, 3, "second"]


@pytest.mark.parametrize("examples", [[3], [["x"]], [[1, "x"]], [["x", -1]], [["x", 1.0]]])
def test_examples_that_cannot_be_offered_are_refused(folder, examples):
    with pytest.raises(BadQuestion, match="needs a sentence and the position"):
        TrainingTime(run=folder, examples=examples)


def test_what_is_fixed_stays(widget):
    for name in ("steps", "curves", "examples", "read", "run"):
        with pytest.raises(BadQuestion, match="is given once"):
            setattr(widget, name, "other" if name == "run" else [1])
    with pytest.raises(BadQuestion, match="no plain name|not a plain name"):
        widget.anchor = "a b"


def test_a_run_without_snapshots_or_log(folder, tmp_path, checkpoints):
    with pytest.raises(ValueError, match="there are no snapshots"):
        TrainingTime(run=checkpoints["tinyworld-bert"].folder)
    copy = shutil.copytree(folder, tmp_path / "tinyworld-other")
    (copy / "log.jsonl").unlink()
    assert words_read(copy, STEPS) == TrainingTime(run=copy).read == []


def test_the_shipped_run_is_small_enough_for_a_page():
    files = snapshots(RUN).values()
    assert 16 <= len(files) <= 30
    assert sum(file.stat().st_size for file in files) <= 26e6, "all snapshots together"
    widget = TrainingTime()
    assert widget.run == RUN and widget.truth and len(widget.read) == len(widget.steps) == len(files)


@pytest.fixture(scope="module")
def assets(folder, language, tmp_path_factory):
    world = tmp_path_factory.mktemp("world") / "world.json"
    world.write_text(json.dumps(language.data))
    parts = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    found = {part: (folder / name).as_uri() for part, name in parts.items()} | {"world": world.as_uri()}
    return found | {"snapshots": {step: file.as_uri() for step, file in snapshots(folder).items()}}


def test_page_and_kernel_give_the_same_answers_and_nothing_is_fetched_twice(run_node, folder, assets, language):
    texts = [*module._tiny_examples(language), ("The zebra ran.", 1), ("", 0), ("Home dog the.", 1), ("A [MASK].", 0)]
    asked = [{"sentence": text, "touched": [{"position": at, "kind": "mask"}], "top": 5} for text, at in texts]
    questions = [one | {"step": step} for one in asked for step in STEPS[1:]]
    data = {"assets": assets, "questions": [{"step": 1}, {"step": 3}, *questions]}
    (nothing, refused, *answers), fetched = run_node(ANSWERS, data)
    assert nothing is None and refused == "this site has no snapshot of step 3"
    wanted = ["config.json", "tokenizer.json", "world.json", *(f"{step:06}.safetensors" for step in STEPS[1:])]
    assert sorted(fetched) == sorted(wanted), "each file once, and none that no step asks for"
    for question, found in zip(questions, answers, strict=True):
        step = question.pop("step")
        model = load_snapshot(folder, step)
        near(found, answer(**question, model=model, tokenizer=language.tokenizer, language=language))


def test_names_links_rows_and_axis(run_node):
    prediction = {"real": "dog", "top": [["a", 0.4], ["b", 0.3], ["cat", 0.2], ["dog", 0.1]]}
    truth = {"top": [["cat", 0.9], ["dog", 0.1], ["a", 0], ["b", 0]]}
    found = run_node(PURE, [prediction, truth])
    assert found["names"] == ["step 128", *(f"step 1,024, {words} words" for words in (
        "0", "999", "2 thousand", "94 thousand", "0.3 million", "21.5 million"))]
    assert found["link"] == {"sentence": "A & b #1?", "position": 2, "step": 128} and found["other"] is None
    assert [row["token"] for row in found["rows"]] == ["cat", "dog", "a", "b", ""], "the truth's rows stand first"
    assert [row["token"] for row in found["alone"]] == ["dog", "a", "b", "cat", ""] and "q" not in found["alone"][0]
    named, single = found["named"]
    assert named[0] == 0 and named[-1] == 13 and 4 < len(named) < 14 and single == [0]


def publish(site, folder):
    manifest = json.loads((site / "assets" / "manifest.json").read_text())
    parts = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    entry = {part: f"embryo-{name}" for part, name in parts.items()}
    for name in parts.values():
        shutil.copy(folder / name, site / "assets" / f"embryo-{name}")
    entry["snapshots"] = {step: shutil.copy(file, site / "assets" / f"step-{step}.safetensors").name
                          for step, file in snapshots(folder).items()}  # fmt: skip
    (site / "assets" / "manifest.json").write_text(json.dumps(manifest | {folder.name: entry}))
    return site


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve, folder):
    site = make_site(tmp_path_factory.mktemp("training") / "pages", TrainingTime(run=folder, curves=CURVES))
    return serve(publish(site, folder))


def state(page) -> dict:
    return page.evaluate("(names) => Object.fromEntries(names.map((n) => [n, models[0].get(n)]))", TRAITS)


def settled(page, act) -> dict:
    count = state(page)["answered"]
    act()
    page.wait_for_function(ANSWERED, arg=count)
    return state(page)


def weights(page) -> list[str]:
    return sorted(url.split("/")[-1] for url in page.fetched if url.endswith(".safetensors"))


def slider(page):
    return page.get_by_role("slider", name="Training step")


def test_nothing_is_fetched_before_a_touch_and_only_what_is_asked_for_after(open_page):
    page = open_page()
    assert page.locator(".ss-bars tr").count() == 8 and page.locator(".ss-truth-text").count() > 3
    assert not [url for url in page.fetched if "/assets/" in url], "fetched before a touch"
    settled(page, lambda: page.locator(".ss-words button").nth(1).click())
    page.wait_for_timeout(300)
    assert weights(page) == ["step-0.safetensors"], "the reader has not touched the slider"
    settled(page, lambda: slider(page).press("ArrowRight"))
    page.wait_for_function("performance.getEntriesByType('resource').length")
    page.wait_for_timeout(300)
    assert weights(page) == [f"step-{step}.safetensors" for step in (0, 1, 8)], "one step, then its neighbours"
    settled(page, lambda: slider(page).press("ArrowRight"))
    page.wait_for_timeout(300)
    assert weights(page) == [f"step-{step}.safetensors" for step in (0, 1, 128, 8)], "nothing twice"


def test_the_slider_alone_fetches_no_other_step_first(open_page):
    page = open_page()
    settled(page, lambda: slider(page).press("End"))
    page.wait_for_timeout(300)
    assert weights(page) == ["step-1024.safetensors", "step-128.safetensors"]


def test_the_keyboard_moves_through_the_steps(open_page, folder):
    page = open_page()
    kernel = TrainingTime(run=folder)
    moves = [("End", 1024, "step 1,024, 2.0 million words"), ("ArrowLeft", 128, "step 128, 0.3 million words")]
    moves += [("Home", 0, "step 0, 0 words"), ("ArrowUp", 1, "step 1, 2 thousand words")]
    for key, step, name in moves:
        found = settled(page, lambda key=key: slider(page).press(key))
        kernel.step = step
        assert found["step"] == step and slider(page).get_attribute("aria-valuetext") == name
        near(found, kernel.get_state(("words", "note", "predictions", "truth")))
        assert page.locator(".ss-at").inner_text() == name
    rows = page.locator(".ss-scores tbody tr").all_inner_texts()
    scores = [re.split(r"\s*\t\s*", row.strip())[1:] for row in rows]
    assert scores == [["0.20", "0.97"], ["0.10", "–"], ["0.00", "1.00"]]
    assert page.evaluate("window.hacked") is None and page.locator(".selfsup img").count() == 0


def test_a_drag_past_many_steps_fetches_the_one_it_ends_at(open_page):
    page = open_page()
    drag = "for (const i of [1, 2, 3, 4]) { s.value = i; s.dispatchEvent(new Event('input')); }"
    settled(page, lambda: page.evaluate(f"const s = document.querySelector('input[type=range]'); {drag}"))
    page.wait_for_timeout(300)
    assert weights(page) == ["step-1024.safetensors", "step-128.safetensors"] and state(page)["answered"] == 2


def test_by_touch(open_page):
    page = open_page(width=375, has_touch=True, is_mobile=True)
    slider(page).scroll_into_view_if_needed()
    box = slider(page).bounding_box()
    found = settled(page, lambda: page.touchscreen.tap(box["x"] + box["width"] - 10, box["y"] + box["height"] / 2))
    assert found["step"] == 1024
    word = page.locator(".ss-words button").nth(4)
    found = settled(page, word.tap)
    assert found["position"] == 4 and word.get_attribute("aria-pressed") == "true"
    assert page.locator(".ss-words [aria-pressed=true]").count() == 1, "one word is hidden at a time"
    assert found["predictions"][0]["position"] == 4


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_play_and_pause(open_page, motion):
    page = open_page(reduced_motion=motion)
    page.wait_for_timeout(700)
    assert state(page)["answered"] == 1, "it plays only when asked"
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("models[0].get('step') >= 8")
    page.get_by_role("button", name="Pause").click()
    step = state(page)["step"]
    page.wait_for_timeout(700)
    assert state(page)["step"] == step, "it is paused"
    page.get_by_role("button", name="Play").click()
    stopped = "document.querySelector('.ss-play').textContent === 'Play'"
    page.wait_for_function(f"models[0].get('step') === 1024 && {stopped}")
    page.get_by_role("button", name="Play").click()
    assert state(page)["step"] == 0, "from the last step it begins anew"
    page.wait_for_function("models[0].get('step') === 1")
    slider(page).press("End")
    assert page.get_by_role("button", name="Play").is_visible(), "the reader's hand stops it"
    page.wait_for_function("models[0].get('answer_to').step === 1024")


def heights(page) -> list[float]:
    parts = page.locator(".ss-cards, input[type=range], .ss-scores")
    return parts.evaluate_all("(nodes) => nodes.map((node) => node.getBoundingClientRect().y + scrollY)")


def held_back(page, step) -> list:
    """The requests for the file of one step, which wait until they are continued."""
    routes = []
    page.route(f"**/step-{step}.safetensors", lambda route: routes.append(route))
    return routes


def test_old_bars_stay_dimmed_until_the_answer_and_a_late_one_overwrites_nothing(open_page):
    page = open_page(width=375)
    late = held_back(page, 1)
    bars, places = page.locator(".ss-bars").inner_text(), heights(page)
    slider(page).press("ArrowRight")
    page.get_by_text("fetching step 1…").wait_for()
    for _ in range(100):  # a busy machine asks later
        page.wait_for_timeout(100)
        if late:
            break
    assert page.locator(".ss-bars").inner_text() == bars and len(late) == 1
    assert heights(page) == places, "the note moves the page"
    assert page.evaluate("getComputedStyle(document.querySelector('.ss-cards')).opacity") == "0.4"
    assert page.evaluate("document.querySelector('.ss-cards').getAttribute('aria-busy')") == "true"
    found = settled(page, lambda: slider(page).press("End"))
    assert found["step"] == 1024 and page.get_by_text("fetching").count() == 0
    late[0].continue_()
    page.wait_for_timeout(400)
    assert state(page) == found, "the late answer of step 1 is not shown at step 1024"
    assert page.evaluate("getComputedStyle(document.querySelector('.ss-cards')).opacity") == "1"


def test_a_question_that_takes_long_is_told_to_be_answered(open_page):
    page = open_page()
    settled(page, lambda: page.locator(".ss-words button").nth(1).click())
    found = settled(page, lambda: (page.get_by_label("Your own sentence").fill("[MASK] " * 64),
                                   page.get_by_text("answering…").wait_for()))  # fmt: skip
    assert len(found["predictions"]) == len(found["truth"]) == 64
    assert page.get_by_text("answering…").count() == 0 and page.locator("[aria-busy], .ss-old").count() == 0


def test_a_failed_fetch_is_told_and_can_be_tried_again(open_page):
    page = open_page()
    page.route("**/step-1024.safetensors", lambda route: route.fulfill(body="short"))
    bars = page.locator(".ss-bars").inner_text()
    slider(page).press("End")
    places = heights(page)[:2]
    page.get_by_text("Step 1,024 cannot be shown: the weights file is damaged or incomplete").wait_for()
    assert heights(page)[:2] == places, "the slider moves"
    assert page.locator(".ss-bars").inner_text() == bars and page.get_by_text("fetching").count() == 0
    again = page.get_by_role("button", name="Try again")
    again.click()
    page.get_by_text("fetching step 1,024…").wait_for()
    again.wait_for()
    page.unroute("**/step-1024.safetensors")
    found = settled(page, again.click)
    assert found["answer_to"]["step"] == 1024 and again.is_hidden() and page.locator(".ss-note").is_hidden()


def test_without_a_connection(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.route("**/step-8.safetensors", lambda route: route.abort())
    page.wait_for_function("window.ready")
    page.get_by_role("button", name="Play").click()
    page.get_by_text("Step 8 cannot be shown: could not fetch /assets/step-8.safetensors (no connection); "
                     "check the connection and try again.").wait_for()
    assert page.get_by_role("button", name="Play").is_visible(), "it plays no further"
    page.close()


@pytest.mark.parametrize("worker", ["", "?noworker"])
@pytest.mark.parametrize("file", ["manifest.json", "worker.mjs", "engine.mjs"])
def test_what_is_needed_for_all_steps_can_be_fetched_later(browser, address, file, worker):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address + worker)
    page.wait_for_function("window.ready")
    context.route(f"**/{file}", lambda route: route.abort("internetdisconnected"))
    slider(page).press("End")
    said = f"could not fetch /assets/{file} (no connection); check the connection and try again."
    page.get_by_text(f"Step 1,024 cannot be shown: {said}").wait_for()
    context.unroute(f"**/{file}")
    assert settled(page, page.get_by_role("button", name="Try again").click)["answer_to"]["step"] == 1024
    context.close()


def test_writing_choosing_and_links(open_page):
    page = open_page()
    begin = state(page)
    typed = settled(page, lambda: page.get_by_label("Your own sentence").fill("She was sad."))
    assert [word["text"] for word in typed["words"]] == ["She", "was", "sad", "."] and len(typed["predictions"]) == 1
    assert page.get_by_label("A sentence").input_value() == ""
    chosen = settled(page, lambda: page.get_by_label("A sentence").select_option(index=2))
    assert page.get_by_label("Your own sentence").input_value() == chosen["sentence"] != begin["sentence"]
    settled(page, lambda: slider(page).press("End"))
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("location.hash.length > 1")
    other = open_page(page.evaluate("location.hash"))
    other.wait_for_function(ANSWERED, arg=1)
    assert all(state(other)[name] == state(page)[name] for name in TrainingTime.QUESTION)
    back = settled(page, lambda: page.get_by_role("button", name="Reset").click())
    assert all(back[name] == begin[name] for name in TrainingTime.QUESTION)
    broken = open_page("#w=training&s=x&p=1&t=77")
    assert broken.get_by_text("The link's state could not be read").is_visible()


def test_without_workers_the_page_itself_answers(open_page):
    page = open_page("?noworker")
    assert settled(page, lambda: slider(page).press("End"))["answer_to"]["step"] == 1024


LOOKS = [(width, theme) for width in (375, 1280) for theme in ("light", "dark")]


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_it_can_be_read_and_touched_and_nothing_moves(open_page, width, theme):
    from test_page import LOW_CONTRAST

    page = open_page(f"?theme={theme}", width)
    places = set()
    for _ in STEPS[1:]:
        settled(page, lambda: slider(page).press("ArrowRight"))
        places.add(slider(page).bounding_box()["y"])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(places) == 1, "the slider moves under the reader's finger"
    assert page.evaluate(LOW_CONTRAST) == []
    for node in page.locator(".selfsup :is(button:visible, input, select)").all():
        assert node.bounding_box()["height"] >= 44
    box, line = slider(page).bounding_box(), page.locator(".ss-chosen").bounding_box()
    assert abs(line["x"] + line["width"] / 2 - (box["x"] + box["width"] - 8)) < 1.5, "the line stands above the thumb"
    slider(page).focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for text in ("x" * 300, "", "zebra [MASK] .", "台灣大學 🙂"):
        settled(page, lambda text=text: page.get_by_label("Your own sentence").fill(text))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, text


CHART = """() => {
  const svg = document.querySelector(".ss-plot svg"), all = (query) => [...svg.querySelectorAll(query)];
  const number = (node, name) => Number(node.getAttribute(name));
  const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
  return {
    room: document.querySelector(".ss-plot").clientWidth, width: number(svg, "width"),
    grid: all(".ss-grid").map((line) => number(line, "y1")),
    labels: all("text").map((text) => [text.textContent, number(text, "x"), number(text, "y")]),
    cursor: all(".ss-chosen").map((line) => [number(line, "x1"), number(line, "x2")]),
    best: all(".ss-ceiling").map((line) => [number(line, "y1"), number(line, "y2")]),
    curves: all(".ss-curve").map((curve) => ({
      points: [...curve.firstChild.getAttribute("d").matchAll(/([ML])([\\d.]+) ([\\d.]+)h0/g)]
        .map((one) => one.slice(1)),
      marks: [...curve.children].slice(1).map((mark) => centre(mark.getBBox())),
    })),
  };
}"""


def test_the_chart_shows_the_scores_at_any_width(open_page):
    """Read as a reader does: a point's height between the lines that are named 0.00 and 1.00 is its score."""
    page = open_page()
    for width in (1280, 375, 800):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("document.querySelector('.ss-plot svg').getAttribute('width')"
                               " === String(document.querySelector('.ss-plot').clientWidth)")  # fmt: skip
        places = []
        for now, step in enumerate(STEPS):
            slider(page).evaluate("(s, now) => { s.value = now; s.dispatchEvent(new Event('input')); }", now)
            drawn = page.evaluate(CHART)
            lines = {text: y for text, _, y in drawn["labels"]}
            assert [lines[f"{score / 4:.2f}"] - 4 for score in range(5)] == drawn["grid"], "a line has another's name"
            bottom, _, _, _, top = drawn["grid"]
            assert drawn["best"] == [pytest.approx([bottom + (top - bottom) * best] * 2) for best in (0.97, 1)]
            [(x, also)] = drawn["cursor"]
            places.append(x)
            assert x == also and f"step {step:,}" in lines, "the line at the chosen step, and its name"
            for curve, given in zip(drawn["curves"], CURVES, strict=True):
                height = {at: bottom + (top - bottom) * value
                          for at, value in enumerate(given["values"]) if value is not None}  # fmt: skip
                begins = ["M" if at - 1 not in height else "L" for at in height]
                assert [kind for kind, _, _ in curve["points"]] == begins, "a step without a score is a gap"
                points = {float(x): float(y) for _, x, y in curve["points"]}
                assert [*points.values()] == pytest.approx([*height.values()])
                for x, y in curve["marks"]:
                    assert any(abs(x - at) < 1 and abs(y - there) < 1 for at, there in points.items()), "a mark beside"
                assert any(abs(x - places[-1]) < 1 for x, _ in curve["marks"]) == (now in height), "a mark at the step"
        assert drawn["width"] == drawn["room"] and min(width, 960) - 100 < drawn["room"] < width
        for curve, given in zip(drawn["curves"], CURVES, strict=True):
            known = [place for place, value in zip(places, given["values"], strict=True) if value is not None]
            assert [float(x) for _, x, _ in curve["points"]] == pytest.approx(known), "the cursor is beside the points"
        assert places == pytest.approx([places[0] + (places[-1] - places[0]) * i / 4 for i in range(5)])
        named = {text: x for text, x, _ in drawn["labels"]}
        assert {"0", "1,024"} <= set(named), "the first and the last step are named"
        assert all(named[f"{step:,}"] == x for step, x in zip(STEPS, places) if f"{step:,}" in named)
        page.wait_for_function("models[0].get('answer_to').step === 1024")  # an answer draws the chart anew, too


def test_a_late_answer_of_the_kernel_is_not_shown_at_another_step(browser, make_site, serve, folder, tmp_path):
    page = browser.new_page()
    page.goto(serve(make_site(tmp_path / "pages", TrainingTime(run=folder))) + "notebook.html")
    page.wait_for_function("window.ready")
    assert page.locator(".ss-plot, .ss-scores").evaluate_all("(nodes) => nodes.every((n) => n.hidden)"), "no curves"
    give = "(traits) => { for (const [name, value] of Object.entries(traits)) models[0].set(name, value); }"
    kernel, bars = TrainingTime(run=folder), page.locator(".ss-bars").inner_text()
    slider(page).press("ArrowRight")
    slider(page).press("End")
    for step, busy in ((1, 1), (1024, 0)):
        kernel.step = step
        page.evaluate(give, kernel.get_state(("words", "predictions", "truth", "note", "answer_to", "answered")))
        assert page.locator("[aria-busy=true]").count() == busy
        assert (page.locator(".ss-bars").inner_text() == bars) == bool(busy)
    page.close()


def test_taking_the_widget_away_stops_it(open_page):
    page = open_page()
    page.get_by_role("button", name="Play").click()
    page.evaluate("cleanups.forEach((cleanup) => cleanup())")
    page.wait_for_timeout(700)
    assert state(page)["answered"] == 1 and state(page)["step"] == 0
