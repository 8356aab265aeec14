"""The next word: the page answers as the kernel does, its dice are those of `generation`, and the widget is used as a
reader uses it, in a real browser."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from parity import randomise

from selfsup import cli
from selfsup.corpora import tinyworld
from selfsup.generation import distribution
from selfsup.models import LanguageModel, TransformerConfig
from selfsup.models.pretrained import save_pretrained
from selfsup.tokenization import word_level
from selfsup.widgets import BadQuestion, MaskPlayground
from selfsup.widgets.next_word import NextWord, beginnings, next_word

ANSWERS = """
const { nextWord } = await import(WIDGETS + "worker.mjs");
const code = await import(WIDGETS + "engine.mjs");
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const parts = { code, softmax: code.softmax, language: loadLanguage(data.language),
  model: code.modelOf(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors")),
  tokenizer: new code.Tokenizer(json(data.folder + "/tokenizer.json")) };
console.log(JSON.stringify(data.cases.map(([beginning, growing]) => nextWord({ beginning, growing }, parts))));
"""
STRANGE = ["", "  ", "zebra", "the the the", "anna saw a zebra .", "🙂 👩‍👩‍👧‍👦", "台灣大學"]
STRANGE += ["<b onclick='x'>", "[MASK] [SEP] x", "the " * 200]


@pytest.fixture(scope="module")
def world():
    return tinyworld.load("world")


@pytest.fixture(scope="module")
def gpt(world, tmp_path_factory):
    """A random language model of the world in a folder of the shipped one's name: (folder, model)."""
    folder = tmp_path_factory.mktemp("models") / "tinyworld-gpt"
    config = TransformerConfig.named("tinyworld-gpt", len(world.tokenizer), layers=2, width=32, feed_forward=64)
    model = randomise(LanguageModel(config), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    save_pretrained(model, world.tokenizer, folder, half=True)
    return folder, model


@pytest.fixture
def widget(gpt, world):
    return NextWord(model=gpt[1], tokenizer=world.tokenizer, language=world)


def test_the_page_answers_as_the_kernel_does(run_node, gpt, world):
    """In any order of texts: what the page remembers of the last one changes no answer."""
    texts = list(beginnings(world))
    texts += [text[: len(text) // 2] for text in texts] + [text + " the" for text in texts] + STRANGE
    cases = [(text, bool(i % 3 == 0)) for i, text in enumerate(texts + texts[::-1])]
    found = run_node(ANSWERS, {"folder": str(gpt[0]), "language": world.data, "cases": cases})
    for (text, growing), page in zip(cases, found, strict=True):
        kernel = next_word(text, growing, gpt[1], world.tokenizer, world)
        assert page["words"] == kernel["words"] and page["note"] == kernel["note"], text
        for name in ("logits", "truth"):
            assert len(page[name]) == len(kernel[name])
            assert np.allclose(page[name], kernel[name], atol=2e-3), f"other {name} after {text!r}"
        assert paths(page["tree"]).keys() == paths(kernel["tree"]).keys()
        for path, (p, exact) in paths(kernel["tree"]).items():
            there = paths(page["tree"])[path]
            assert abs(there[0] - p) < 1e-3 and (exact is None) == (there[1] is None)
            assert exact is None or abs(there[1] - exact) < 1e-6


def paths(branches, before=()):
    """Each path of the tree, with its last chance and the exact one."""
    found = {}
    for one in branches:
        path = (*before, one["id"])
        found |= {path: (one["p"], one["exact"])} | paths(one["next"], path)
    return found


def test_the_tree_is_of_the_likeliest(widget, world, gpt):
    widget.growing = True
    assert len(paths(widget.tree)) <= 3 + 9 + 27 and min(map(len, paths(widget.tree))) == 1
    first = [one["id"] for one in widget.tree]
    allowed = np.array(widget.logits)
    allowed[widget.never] = -np.inf
    chances = np.exp(allowed) / np.exp(allowed).sum()
    best = np.argsort(-allowed, kind="stable")[:3]
    assert first == [*best[:1], *(i for i in best[1:] if chances[i] >= 0.01)], "not the likeliest, or an unlikely one"
    text = widget.text
    second = widget.tree[0]["next"]
    widget.text = f"{text} {world.tokenizer.convert_ids_to_tokens([first[0]])[0]}"
    assert [one["id"] for one in widget.tree] == [one["id"] for one in second], "the second level is of another text"


SETTINGS = [{"temperature": t, "top_k": k, "top_p": p}
            for t in (0, 0.5, 1, 2) for k in (0, 1, 5) for p in (0.3, 0.9, 1)]


def test_the_dice_are_those_of_generation(run_node):
    code = """
    const { distribution } = await import(WIDGETS + "sampling.mjs");
    console.log(JSON.stringify(data.settings.map(({ temperature, top_k, top_p }) =>
      Array.from(distribution(data.logits, { temperature, topK: top_k || null, topP: top_p })))));
    """
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    found = run_node(code, {"logits": logits.tolist(), "settings": SETTINGS})
    for how, page in zip(SETTINGS, found, strict=True):
        ours = distribution(logits[None], how["temperature"], how["top_k"] or None, how["top_p"])[0]
        assert np.allclose(page, ours, atol=1e-9), how


def test_a_die_is_fair_and_a_pick_follows_the_chances(run_node):
    code = """
    const { die, pick, entropy } = await import(WIDGETS + "sampling.mjs");
    const chances = [0, 0.5, 0, 0.3, 0.2, 0];
    const counts = chances.map(() => 0);
    for (let seed = 0; seed < 200; seed++) {
      for (let place = 0; place < 50; place++) counts[pick(chances, die(seed, place))] += 1;
    }
    console.log(JSON.stringify([counts, pick(chances, 0.9999999999), entropy([0.5, 0.5, 0])]));
    """
    counts, last, two = run_node(code, None)
    expected = 10_000 * np.array([0.5, 0.3, 0.2])
    assert counts[0] == counts[2] == counts[5] == 0 and last == 4 and abs(two - np.log(2)) < 1e-12
    assert (((np.array(counts)[[1, 3, 4]] - expected) ** 2) / expected).sum() < 20, counts


def test_links_come_back(run_node):
    code = """
    const { readLink, writeLink } = await import(WIDGETS + "next_word.mjs");
    const state = { text: "The duck near & the <b>", temperature: 0.7, top_k: 5, top_p: 0.9 };
    const bad = ["#w=next&s=x&t=9&k=0&p=1", "#w=next&s=x&t=1&k=-1&p=1", "#w=next&s=x&t=1&k=1&p=0", "#w=next&s=x"];
    const told = (link) => { try { return readLink(link, "next"); } catch (error) { return error.message; } };
    const back = readLink(writeLink("next", state), "next");
    console.log(JSON.stringify([back, readLink("#w=mask", "next"), bad.map(told)]));
    """
    state, other, bad = run_node(code, None)
    assert state == {"text": "The duck near & the <b>", "temperature": 0.7, "top_k": 5, "top_p": 0.9} and other is None
    assert all("could not be read" in one for one in bad)


def test_a_text_is_written_as_a_reader_expects(run_node, world):
    """Word after word, as `Language.render` writes the whole."""
    documents = world.documents(200, seed=4)
    code = """
    const { joined } = await import(WIDGETS + "next_word.mjs");
    const write = (words) => words.reduce((text, word) => joined(text, word, data.names), "");
    console.log(JSON.stringify(data.texts.map(write)));
    """
    found = run_node(code, {"texts": [document.tokens for document in documents], "names": sorted(world.names)})
    assert found == [world.render(document.tokens) for document in documents]
    assert any('"' in text for text in found)


def test_what_the_kernel_says(widget, world):
    assert len(widget.logits) == len(widget.vocabulary) == len(widget.truth) and abs(sum(widget.truth) - 1) < 1e-6
    before = widget.answered
    widget.text = "The duck near the boats"
    assert widget.answered == before + 1 and widget.words == "the duck near the boats".split()
    assert widget.vocabulary[int(np.argmax(widget.truth))] in ("was", "were")
    widget.text = "Anna saw a zebra."
    assert "does not know “zebra”" in widget.note and widget.truth == [] and widget.logits
    widget.text = "the " * 200
    assert "take some back" in widget.note and widget.logits == []


@pytest.mark.parametrize(
    ("trait", "value"), [("temperature", 3.0), ("top_k", -1), ("top_p", 0.0), ("text", "x" * 10_001)]
)
def test_what_cannot_be_asked(widget, trait, value):
    old = getattr(widget, trait)
    with pytest.raises(BadQuestion):
        setattr(widget, trait, value)
    widget.set_state({trait: value, "logits": [1.0]})
    assert getattr(widget, trait) == old and widget.note and len(widget.logits) > 1, "the page may not write answers"


def test_a_model_that_writes_is_no_model_that_fills_blanks(gpt, world, capsys):
    with pytest.raises(ValueError, match="fills in no blanks: see NextWord"):
        MaskPlayground(model=gpt[1], tokenizer=world.tokenizer)
    assert cli.main(["probe", str(gpt[0])]) == 1 and "no encoder that fills in blanks" in capsys.readouterr().err


def test_models_that_give_no_next_word():
    with pytest.raises(ValueError, match="'tinyworld-bert' gives no next word"):
        NextWord(model="tinyworld-bert")
    with pytest.raises(ValueError, match="give a LanguageModel with its tokenizer"):
        NextWord(model=LanguageModel(TransformerConfig(8, layers=1, width=8, heads=2, feed_forward=8, segments=0)))
    with pytest.raises(ValueError, match="words are not the language's"):
        NextWord(model=LanguageModel(TransformerConfig(8, layers=1, width=8, heads=2, feed_forward=8, segments=0)),
                 tokenizer=word_level(["a", "b", "c"]), language=tinyworld.load("world"))


def test_state_is_json(widget):
    json.dumps({name: getattr(widget, name) for name in (*widget.QUESTION, "logits", "truth", "tree", "vocabulary")})


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve, gpt, world):
    widget = NextWord(model=gpt[1], tokenizer=world.tokenizer, language=world, model_name="tinyworld-gpt")
    folder = make_site(tmp_path_factory.mktemp("next") / "pages", widget)
    manifest = json.loads((folder / "assets" / "manifest.json").read_text())
    files = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    manifest["tinyworld-gpt"] = {part: f"gpt-{file}" for part, file in files.items()}
    for file in files.values():
        shutil.copy(gpt[0] / file, folder / "assets" / f"gpt-{file}")
    (folder / "assets" / "manifest.json").write_text(json.dumps(manifest))
    return serve(folder)


TRAITS = ("text", "words", "note", "temperature", "top_k", "top_p", "answered", "tree", "logits")
SETTLED = "(count) => models[0].get('answered') > count"


def state(page) -> dict:
    return page.evaluate("(names) => Object.fromEntries(names.map((n) => [n, models[0].get(n)]))", TRAITS)


def settled(page, act) -> dict:
    count = state(page)["answered"]
    act()
    page.wait_for_function(SETTLED, arg=count)
    return state(page)


def press(page, label: str) -> dict:
    return settled(page, lambda: page.get_by_role("button", name=label, exact=True).click())


def slide(page, label: str, key: str, times: int = 1) -> None:
    slider = page.get_by_role("slider", name=label)
    slider.focus()
    for _ in range(times):
        slider.press(key)


def model_bars(page) -> list[str]:
    return page.locator(".ss-next .ss-number.ss-model-text").all_inner_texts()


def test_a_row_goes_on_and_back_takes_it_away(open_page):
    page = open_page()
    begin = state(page)
    assert not [url for url in page.fetched if "assets" in url], "fetched before a touch"
    row = page.locator(".ss-next tbody tr").nth(1)
    word = row.locator("button").inner_text()
    on = settled(page, lambda: row.locator("button").click())
    assert on["words"] == [*begin["words"], word], "the word that was touched comes next"
    back = press(page, "Take one back")
    assert back["words"] == begin["words"]
    other = press(page, "Another beginning")
    assert other["text"] != begin["text"] and press(page, "Reset")["text"] == begin["text"]
    here = page.url.split("#")[0]
    assert not [url for url in page.fetched if not url.startswith((here, f"blob:{here}"))], "another origin was asked"


def test_sliders_move_the_bars_and_ask_nobody(open_page):
    page = open_page()
    press(page, "Another beginning")
    count, before = state(page)["answered"], model_bars(page)
    slide(page, "Temperature", "Home")
    assert state(page)["temperature"] == 0 and model_bars(page)[0].split() == ["model", "100%"]
    assert page.get_by_text("1 word can be drawn", exact=False).is_visible()
    slide(page, "Temperature", "End")
    assert model_bars(page) != before and state(page)["temperature"] == 2
    slide(page, "Top-k", "Home")
    assert state(page)["top_k"] == 1 and page.locator(".ss-next .ss-out").count() >= 5
    slide(page, "Top-k", "End")
    slide(page, "Top-p", "Home")
    assert state(page)["top_k"] == 0 and state(page)["top_p"] == pytest.approx(0.05)
    assert state(page)["answered"] == count, "a slider asked the model"


def test_continue_draws_until_it_ends_or_is_stopped(open_page):
    page = open_page()
    press(page, "One word")
    words = len(state(page)["words"])
    slide(page, "Temperature", "Home")
    page.get_by_role("button", name="Continue", exact=True).click()
    page.wait_for_function("() => models[0].get('words').length > 8 || !models[0].get('logits').length")
    if page.get_by_role("button", name="Stop", exact=True).count():
        page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()
    assert len(state(page)["words"]) > words or "ends here" in state(page)["note"]


def test_the_tree_is_walked(open_page):
    page = open_page()
    begin = state(page)
    grown = settled(page, lambda: page.get_by_text("The tree of alternatives").click())
    assert 1 <= len(grown["tree"]) <= 3 and page.locator(".ss-tree li").count() == len(paths(grown["tree"]))
    path = next(path for path in paths(grown["tree"]) if len(path) == 3)
    at = list(paths(grown["tree"])).index(path)
    walked = settled(page, lambda: page.locator(".ss-tree li > button").nth(at).click())
    assert len(walked["words"]) == len(begin["words"]) + 3


@pytest.mark.parametrize("text", ["", "zebra crossing", "<img src=x onerror=alert(1)>", "🙂", "the " * 300])
def test_strange_text(open_page, text):
    page = open_page()
    settled(page, lambda: page.get_by_role("textbox").fill(text))
    page.wait_for_timeout(50)
    found = state(page)
    assert found["text"] == text and (found["note"] or text == "")
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open_page, scheme):
    page = open_page(width=375, color_scheme=scheme, has_touch=True)
    settled(page, lambda: page.get_by_text("The tree of alternatives").tap())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    small = page.evaluate("""[...document.querySelectorAll('.selfsup :is(button, textarea, input, summary)')]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)""")
    assert not small, f"too small to touch: {small[:2]}"
    assert page.locator(".ss-next-word [aria-live=polite]").count() == 1


def test_a_failed_fetch_is_said_and_tried_again(open_page):
    page = open_page()
    page.route("**/gpt-model.safetensors", lambda route: route.abort())
    said = press(page, "Another beginning")
    assert "The model cannot answer" in said["note"] and said["logits"] == []
    page.unroute("**/gpt-model.safetensors")
    assert press(page, "Another beginning")["logits"]


def test_after_a_failed_fetch_a_worker_answers_again(browser, address):
    """Else one hiccup of the network would put the model on the page's own thread for good."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("window.ready")
    context.route("**/worker.mjs", lambda route: route.abort())  # of which the console may complain
    assert "The model cannot answer" in press(page, "Another beginning")["note"] and not page.workers
    context.unroute("**/worker.mjs")
    assert press(page, "Another beginning")["logits"] and page.workers
    context.close()
