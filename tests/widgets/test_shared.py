"""What all widgets share on a page: how they wait for an answer, and their links."""

from __future__ import annotations

import pytest
import torch

from selfsup.corpora import tinyworld
from selfsup.models.decoder import LanguageModel
from selfsup.models.encoder_decoder import EncoderDecoder
from selfsup.models.shapes import TransformerConfig
from selfsup.widgets import MaskPlayground
from selfsup.widgets.next_word import NextWord
from selfsup.widgets.pairs import PairPlayground
from selfsup.widgets.restore import Restore
from selfsup.widgets.specialists import Specialists
from selfsup.widgets.training_time import TrainingTime

SHAPE = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8, "segments": 0}
HELD = """globalThis[Symbol.for("selfsup.engine")] = () => new Promise((_, reject) => { globalThis.fail = reject; });"""


def next_word() -> NextWord:
    world = tinyworld.load("world")
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(len(world.tokenizer), max_positions=96, **SHAPE)).eval()
    return NextWord(model=model, tokenizer=world.tokenizer, language=world)


def restore() -> Restore:
    tokenizer = tinyworld.load("world").tokenizer
    torch.manual_seed(0)
    return Restore(model=EncoderDecoder(TransformerConfig(len(tokenizer), **SHAPE)).eval(), tokenizer=tokenizer)


WAITING = [MaskPlayground, PairPlayground, Specialists, TrainingTime, next_word, restore]
each_widget = pytest.mark.parametrize("number", range(len(WAITING)), ids=lambda number: WAITING[number].__name__)


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve):
    return serve(make_site(tmp_path_factory.mktemp("shared") / "pages", *(make() for make in WAITING)))


@pytest.fixture
def page(browser, address):
    """All widgets on one page, whose engine gives no answer before it is told to fail."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(HELD)
    page.goto(address)
    page.wait_for_function("window.ready")
    yield page
    context.close()


def opacity(widget) -> str:
    # The answer, but not the reader's own fields.
    answer = widget.locator(":is(.ss-cards, div.ss-answer, .ss-sides):not(.ss-four), .ss-four .ss-card > div").first
    return answer.evaluate("(answer) => getComputedStyle(answer).opacity")


@each_widget
def test_what_takes_long_is_seen_and_heard_and_a_moment_is_not(page, number):
    page.clock.install(time="2030-01-01T00:00:00")
    page.clock.pause_at("2030-01-01T01:00:00")
    widget = page.locator(".selfsup").nth(number)
    status = widget.locator("[role=status]:not(.ss-note)")
    height = widget.bounding_box()["height"]
    widget.get_by_role("textbox").first.fill("She was sad.")
    page.clock.run_for(160)  # typing is over, and the question is asked
    if WAITING[number] is TrainingTime:  # whose old answer is of weights that are not here
        assert status.inner_text() == "fetching step 0…"
    else:
        page.clock.run_for(270)
        assert status.inner_text() == "" and opacity(widget) == "1", "a moment is too short to be told of"
        page.clock.run_for(40)
        assert status.inner_text() == "answering…" and widget.bounding_box()["height"] == height, "the page moves"
    assert opacity(widget) == "0.4" and widget.locator("[aria-busy=true]").count() == 1
    assert widget.locator("[aria-busy=true] [role=status]").count() == 0, "screen readers are silent on what is busy"
    page.clock.run_for(500)
    page.evaluate("fail(new Error('it is gone'))")
    widget.get_by_text("it is gone.").wait_for()
    assert widget.get_by_text("answering…").count() == 0 and widget.locator("[aria-busy=true]").count() == 0


@each_widget
def test_a_silent_kernel_is_told_of_until_it_answers(browser, address, number):
    page = browser.new_page()
    page.goto(address + "notebook.html")
    page.wait_for_function("window.ready")
    page.clock.install(time="2030-01-01T00:00:00")
    page.clock.pause_at("2030-01-01T01:00:00")
    widget = page.locator(".selfsup").nth(number)
    silent = widget.get_by_text("The kernel has not answered: is it busy, or was it restarted? Run the cell again.")
    widget.get_by_role("textbox").first.fill("She was sad.")
    page.clock.run_for(5100)  # 150 of them while the reader types
    assert silent.count() == 0
    page.clock.run_for(100)
    assert silent.is_visible()
    if WAITING[number] not in (Specialists, TrainingTime):  # which show no answer to another question
        page.evaluate(f"models[{number}].set('answered', 9)")
        assert silent.count() == 0 and widget.locator("[aria-busy=true]").count() == 0
    page.close()


@each_widget
def test_a_text_is_in_a_link_whole_or_there_is_no_link(page, number):
    widget = page.locator(".selfsup").nth(number)
    field, name = widget.get_by_role("textbox").first, {1: "a", 2: "text", 4: "text", 5: "text"}.get(number, "sentence")
    for text, fits in (("🙂" * 1000, True), ("🙂" * 1001, False)):
        field.fill(text)
        page.wait_for_function(f"([text, number]) => models[number].get('{name}') === text", arg=[text, number])
        page.evaluate("history.replaceState(null, '', '#')")
        widget.get_by_role("button", name="Copy link").click()
        if fits:
            page.wait_for_function("location.hash.length > 1")
            fields = page.evaluate("[...new URLSearchParams(location.hash.slice(1)).values()]")
            assert text in fields, "the link holds another text"
            page.evaluate(f"models[{number}].set('{name}', 'She was sad.')")
            page.evaluate("window.dispatchEvent(new Event('hashchange'))")
            assert page.evaluate(f"models[{number}].get('{name}')") == text, "the link cannot be read"
        else:
            widget.get_by_text("There is no link to so long a text: a link has room for 1000 characters.").wait_for()
            assert page.evaluate("location.hash") == ""
