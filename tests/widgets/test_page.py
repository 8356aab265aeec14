"""The playground in a real browser: alive on a static page, answered by the kernel in a notebook."""

from __future__ import annotations

import json

import pytest

from selfsup.widgets import MaskPlayground

ANSWERED = "(count) => models[0].get('answered') > count"
STRANGE = ["", "   ", "x" * 10_000, "the dog " * 1_250, "🙂👩‍👩‍👧‍👦", "台灣大學", "שלום עולם"]
STRANGE += ["zebra [MASK] .", "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>"]
BROKEN = [
    "#w=mask&m=../../evil&s=x&t=1m",
    "#w=mask&m=tinyworld-bert&s=x&t=1q",
    f"#w=mask&m=tinyworld-bert&s={'x' * 2000}",
    "#w=mask&m=tinyworld-bert&s=a&t=1w%25E0%25A4",
    "#w=mask&m=tinyworld-bert&s=a&t=0r99999",
]
LOW_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const low = [];
  for (const node of document.querySelectorAll(".selfsup *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.offsetParent || getComputedStyle(node).visibility === "hidden") continue;
    let behind = node;
    while (rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    const ink = light(rgba(getComputedStyle(node).color));
    const paper = light(rgba(getComputedStyle(behind).backgroundColor));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) low.push([node.textContent, ratio]);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory, checkpoints, make_site, serve):
    from _pytest.monkeypatch import MonkeyPatch

    from selfsup.models import pretrained

    with MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "CHECKPOINTS", checkpoints["tinyworld-bert"].folder.parent)
        widget = MaskPlayground()
    return serve(make_site(tmp_path_factory.mktemp("site") / "pages", widget))


def trait(page, name):
    return page.evaluate("(name) => models[0].get(name)", name)


def after(page, act):
    """Do something and wait for the answer to it."""
    count = trait(page, "answered")
    act()
    page.wait_for_function(ANSWERED, arg=count)


def word(page, position):
    return page.locator(".ss-words button").nth(position)


def test_the_first_answer_is_there_before_any_weights_are_fetched(open_page, address):
    page = open_page()
    assert page.locator(".ss-card").count() == 1
    assert page.locator(".ss-truth-text").count() > 3
    assert not [url for url in page.fetched if "/assets/" in url], "fetched before the first touch"


def test_a_click_masks_a_word_and_the_model_and_the_truth_answer(open_page, address):
    page = open_page()
    after(page, lambda: word(page, 1).click())
    assert word(page, 1).get_attribute("aria-pressed") == "true"
    assert page.locator(".ss-card").count() == 2
    entry, exact = trait(page, "predictions")[0], trait(page, "truth")[0]
    assert entry["position"] == exact["position"] == 1 and trait(page, "note") == ""
    assert all(url.startswith(address) or url.startswith("blob:") for url in page.fetched), "another origin"
    after(page, lambda: word(page, 1).click())
    assert word(page, 1).get_attribute("aria-pressed") == "false" and page.locator(".ss-card").count() == 1


def test_without_workers_the_page_itself_answers(open_page):
    page = open_page("?noworker")
    after(page, lambda: word(page, 1).click())
    assert trait(page, "predictions")[0]["position"] == 1 and trait(page, "note") == ""


def test_the_model_runs_beside_the_page_not_in_it(open_page):
    page = open_page()
    after(page, lambda: word(page, 1).click())
    assert len(page.workers) == 1
    own = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
    assert not [url for url in own if "safetensors" in url or "engine" in url]


def test_random_and_unchanged_words_are_chosen_and_the_reader_is_told(open_page):
    page = open_page()
    page.get_by_role("radio", name="random word").check()
    after(page, lambda: word(page, 0).click())
    page.get_by_role("radio", name="unchanged").check()
    after(page, lambda: word(page, 1).click())
    kinds = [one["kind"] for one in trait(page, "touched")]
    assert kinds[:2] == ["random", "unchanged"]
    words = trait(page, "words")
    assert words[0]["seen"] != words[0]["pieces"] and words[1]["seen"] == words[1]["pieces"]
    assert page.get_by_text("at an unchanged word it can do better").is_visible()


def test_mask_some_reset_and_another_sentence(open_page):
    page = open_page()
    first = trait(page, "sentence")
    after(page, lambda: page.get_by_role("button", name="Another sentence").click())
    assert trait(page, "sentence") != first
    after(page, lambda: page.get_by_role("button", name="Mask 15%").click())
    assert len(trait(page, "touched")) >= 1 and {one["kind"] for one in trait(page, "touched")} == {"mask"}
    after(page, lambda: page.get_by_role("button", name="Reset").click())
    assert trait(page, "sentence") == first


def test_a_link_restores_the_very_state(open_page, address):
    page = open_page()
    page.get_by_role("radio", name="random word").check()
    after(page, lambda: word(page, 2).click())
    after(page, lambda: page.get_by_label("Your own sentence").fill("The dog & the cat = 100% #1 [MASK] ."))
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("location.hash.length > 1")
    state = {name: trait(page, name) for name in ("sentence", "touched", "model_name", "predictions")}
    fragment = page.evaluate("location.hash")
    other = open_page(fragment)
    other.wait_for_function(ANSWERED, arg=1)
    restored = {name: trait(other, name) for name in state}
    assert {**restored, "predictions": None} == {**state, "predictions": None}
    assert json.dumps(restored["predictions"]) == json.dumps(state["predictions"])


def test_a_broken_link_is_said_to_be_broken_and_others_are_left_alone(open_page):
    page = open_page()
    note = page.locator(".ss-note")
    for fragment in BROKEN:
        page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
        page.get_by_text("could not be read").wait_for()
        assert page.locator(".ss-card").count() == 1, "the page shows its own state"
        after(page, lambda: word(page, 1).click())
        after(page, lambda: word(page, 1).click())
        assert note.is_hidden()
    for fragment in ("#a-heading", "#w=other&s=x", "#%E0%A4%A", "#"):
        page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
        page.wait_for_timeout(50)
        assert note.is_hidden()


def test_strange_text_gets_an_answer_or_a_sentence_and_is_never_run(open_page):
    page = open_page(width=375)
    field = page.get_by_label("Your own sentence")
    for text in STRANGE:
        after(page, lambda text=text: field.fill(text))
        if page.locator(".ss-words button").count():
            after(page, lambda: word(page, 0).click())
        assert trait(page, "note") or trait(page, "predictions"), text[:20]
        assert page.evaluate("window.hacked") is None, text[:20]
        assert page.locator(".selfsup img, .selfsup script").count() == 0, text[:20]
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, text[:20]


def test_storybooks_read_any_sentence_in_pieces(open_page):
    page = open_page()
    after(page, lambda: page.get_by_role("radio", name="Storybooks").check())
    assert trait(page, "truth") == [] and page.get_by_text("exact truth", exact=True).is_hidden()
    after(page, lambda: page.get_by_label("Your own sentence").fill("the captain kingdaughters"))
    pieces = trait(page, "words")[2]["pieces"]
    assert len(pieces) > 1 and " ".join(pieces) in word(page, 2).inner_text()
    after(page, lambda: word(page, 2).click())
    assert page.locator(".ss-card").count() == len(pieces)


def test_keyboard_alone_is_enough_and_the_answer_is_said(open_page):
    page = open_page()
    word(page, 1).focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true", "the focus stays"
    page.keyboard.press("Tab")
    assert word(page, 2).evaluate("(node) => node === document.activeElement")
    assert word(page, 2).evaluate("(node) => getComputedStyle(node).outlineWidth") == "3px"
    said = page.locator("[aria-live=polite]")
    page.wait_for_function(
        "document.querySelector('[aria-live=polite]').textContent.includes('the model says')"
    )
    assert "%" in said.inner_text()


@pytest.mark.parametrize("width", [375, 1280])
def test_everything_to_touch_is_large_enough_and_has_a_name(open_page, width):
    page = open_page(width=width)
    for node in page.locator(".selfsup button, .selfsup input:not([type=radio]), .ss-options label").all():
        box = node.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44, node.inner_text()
    assert page.locator(".selfsup fieldset legend").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(open_page, theme):
    page = open_page(f"?theme={theme}")
    after(page, lambda: word(page, 1).click())
    low = page.evaluate(LOW_CONTRAST)
    assert low == []


def test_dark_mode_follows_the_theme_and_else_the_system(open_page):
    paper = "getComputedStyle(document.querySelector('.selfsup')).backgroundColor"
    dark = open_page("?theme=dark").evaluate(paper)
    light = open_page("?theme=light", color_scheme="dark").evaluate(paper)
    assert dark != light
    assert open_page(color_scheme="dark").evaluate(paper) == dark
    assert open_page(color_scheme="light").evaluate(paper) == light


def test_a_click_moves_no_other_word(open_page):
    page = open_page(width=375)
    boxes = "[...document.querySelectorAll('.ss-word')].map((b) => JSON.stringify(b.getBoundingClientRect()))"
    before = page.evaluate(boxes)
    after(page, lambda: word(page, 0).click())
    assert page.evaluate(boxes) == before


def test_missing_files_are_said_and_may_be_tried_again(open_page):
    page = open_page()
    page.route("**/*.safetensors", lambda route: route.fulfill(status=200, body="not weights"))
    page.context.route("**/*.safetensors", lambda route: route.fulfill(status=200, body="not weights"))
    after(page, lambda: word(page, 1).click())
    assert "cannot answer" in trait(page, "note")
    page.unroute("**/*.safetensors")
    page.context.unroute("**/*.safetensors")
    after(page, lambda: word(page, 2).click())
    assert trait(page, "note") == "" and len(trait(page, "predictions")) == 3


@pytest.mark.parametrize("worker", ["", "?noworker"])
@pytest.mark.parametrize("file", ["manifest.json", "worker.mjs", "engine.mjs", "tinyworld.mjs", "world.json"])
def test_without_a_connection_it_says_what_did_not_come_and_can_be_asked_again(browser, address, file, worker):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address + worker)
    page.wait_for_function("window.ready")
    page.wait_for_timeout(100)
    context.route(f"**/{file}", lambda route: route.abort("internetdisconnected"))
    after(page, lambda: word(page, 1).click())
    said = f"could not fetch /assets/{file} (no connection); check the connection and try again."
    assert trait(page, "note") == f"The model cannot answer: {said}"
    context.unroute(f"**/{file}")
    after(page, lambda: word(page, 2).click())
    assert trait(page, "note") == "" and len(trait(page, "predictions")) == 3
    context.close()


@pytest.mark.parametrize("worker", ["", "?noworker"])
@pytest.mark.parametrize("file", ["worker.mjs", "engine.mjs", "tinyworld.mjs"])
def test_a_module_that_came_and_fails_is_not_called_a_lost_connection(browser, address, file, worker):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address + worker)
    page.wait_for_function("window.ready")
    context.route(f"**/{file}", lambda route: route.fulfill(status=404))
    after(page, lambda: word(page, 1).click())
    said = f"could not fetch /assets/{file} (404); check the connection and try again."
    assert trait(page, "note") == f"The model cannot answer: {said}"
    context.route(f"**/{file}", lambda route: route.fulfill(body="null.x;", content_type="text/javascript"))
    after(page, lambda: word(page, 2).click())
    said = f"could not run /assets/{file} (Cannot read properties of null (reading 'x'))."
    assert trait(page, "note") == f"The model cannot answer: {said}"
    context.close()


def test_a_model_that_is_not_shipped_is_a_figure_without_controls(
    open_page, tmp_path, checkpoints, make_site, serve
):
    found = checkpoints["storybook-bert"]
    widget = MaskPlayground(model=found.model, tokenizer=found.tokenizer)
    page = open_page(at=serve(make_site(tmp_path, widget)))
    assert page.locator(".ss-card").count() == 1
    assert page.locator(".selfsup button, .selfsup input").count() == 0


@pytest.fixture
def notebook(open_notebook, shipped):
    """(page, widget): a page as a notebook shows it, where the widget in the kernel answers."""
    widget = MaskPlayground()
    return open_notebook(widget), widget


def test_in_a_notebook_the_kernel_answers(notebook):
    page, widget = notebook
    after(page, lambda: word(page, 1).click())
    assert widget.touched[0] == {"position": 1, "kind": "mask"}
    assert page.locator(".ss-card").count() == 2
    assert page.get_by_role("button", name="Copy link").count() == 0
    assert not [url for url in page.fetched if "/assets/" in url]
    assert page.evaluate("document.querySelector('.ss-cards').getAttribute('aria-busy')") is None
    after(page, lambda: page.get_by_label("Your own sentence").fill("the zebra ."))
    assert page.get_by_text("zebra").first.is_visible() and "Impossible" in widget.note


def test_in_a_notebook_a_question_that_stays_the_same_waits_for_no_answer(notebook):
    page, _ = notebook
    busy = "document.querySelector('.ss-cards').getAttribute('aria-busy')"
    reset, some = (page.get_by_role("button", name=name) for name in ("Reset", "Mask 15%"))
    reset.click()
    assert page.evaluate(busy) is None, "nothing has changed, so the kernel has nothing to answer"
    page.evaluate("Math.random = () => 0.5")
    after(page, some.click)
    some.click()
    assert page.evaluate(busy) is None, "the same words are masked again, and the kernel has nothing to answer"
    after(page, reset.click)


def test_the_tiny_world_needs_few_bytes_and_storybooks_few_more(open_page):
    page = open_page()
    responses = []
    page.context.on("response", lambda response: responses.append(response))  # its body is not there yet
    after(page, lambda: word(page, 1).click())
    tiny = sum(len(response.body()) for response in responses)
    assert 1_000_000 < tiny < 2_500_000
    after(page, lambda: page.get_by_role("radio", name="Storybooks").check())
    assert sum(len(response.body()) for response in responses) - tiny < 6_500_000


def test_widgets_of_one_page_share_one_worker(
    open_page, tmp_path, checkpoints, language, make_site, serve, shipped
):
    page = open_page(at=serve(make_site(tmp_path, MaskPlayground(), MaskPlayground(anchor="second"))))
    page.locator(".selfsup").nth(1).locator(".ss-words button").nth(2).click()
    page.wait_for_function("models[1].get('answered') > 1")
    after(page, lambda: word(page, 1).click())
    assert len(page.workers) == 1 and len(page.evaluate("models[1].get('touched')")) == 2


def test_taking_the_widget_away_stops_it(open_page):
    page = open_page()
    page.evaluate("cleanups.forEach((cleanup) => cleanup())")
    count = trait(page, "answered")
    page.evaluate("models[0].set('touched', [])")
    page.wait_for_timeout(200)
    assert trait(page, "answered") == count
