"""Restoring: what the dice damage is what the objective can damage, the page answers as the kernel does, and the widget
is used as a reader uses it, in a real browser."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import randomise

from selfsup.corpora import load_corpus
from selfsup.models import EncoderDecoder, TransformerConfig, pretrained
from selfsup.models.pretrained import save_pretrained
from selfsup.objectives import IGNORE
from selfsup.objectives.denoising import KINDS, RATES, Denoising, Marks, fragment
from selfsup.objectives.sentence_pairs import sentence_ends
from selfsup.tokenization import with_sentinels, word_level
from selfsup.training import Recipe
from selfsup.widgets import BadQuestion
from selfsup.widgets.restore import MEAN, Restore, damage, die, openings, places, poisson, restore

TOKENIZER = with_sentinels(word_level([".", "?", '"', *"abcdefgh"]), 4)
MARKS = Marks.of(TOKENIZER)
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
TEXTS = st.lists(st.integers(5, 15), min_size=1, max_size=30)
SEEDS, SHARES = st.integers(0, 65535), st.integers(1, 18).map(lambda n: n / 20)  # those of the slider
STRANGE = ["", "  ", "anna saw a zebra .", "🙂 👩‍👩‍👧‍👦", "<b onclick='x'>", "the " * 90]
STRANGE += ["[MASK] [SEP] <extra_id_3> the [CLS] end", 'he said " hi . " she left ! is it ? yes .', "duck"]


def by_the_objective(text, kind, rate, seed):
    """x′, what the decoder reads, and the targets, when the objective's dice fall as the widget's do."""
    n, spread = len(text), kind in ("infilling", "spans")
    share = rate / MEAN if spread else rate
    dice = [die(seed, at) for at in range(n)]
    if kind in ("masking", "deletion") or spread:
        if min(dice) >= share:
            dice[int(die(seed, n) * n)] = 0.0
        dice = [1.0, *dice, 1.0]
    elif kind == "permutation":
        if dice[: sentences_in(text)] == sorted(dice[: sentences_in(text)]):
            dice[0] = 1.0  # else the text would stay as it was
        dice += [1.0, 1.0]
    else:
        dice = [(1 + int(dice[0] * (n - 1)) + 0.5) / n % 1] if kind == "rotation" else dice[:1]
    counts = [poisson(die(seed, n + at), MEAN - (kind == "spans")) for at in range(n + 2)]  # n + 1 + at, after [CLS]
    ids = torch.tensor([[CLS, *text, SEP]])
    with (patch.object(torch, "rand", lambda *_, **__: torch.tensor([dice], dtype=torch.float64)),
          patch.object(torch, "poisson", lambda *_, **__: torch.tensor([counts]))):
        split = Denoising(TOKENIZER, kind, rate).split(ids, torch.ones_like(ids), None)
    return (*(split.inputs[name][0].tolist() for name in ("input_ids", "decoder_input_ids")), split.targets[0].tolist())


def sentences_in(text) -> int:
    ends = sentence_ends(torch.tensor([text]), torch.tensor(MARKS.full_stops), MARKS.quote)
    return 1 + int(ends[0, :-1].sum())


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, SHARES, SEEDS)
def test_what_is_damaged_is_what_the_objective_damages(kind, text, rate, seed):
    """With the same dice the same tokens; and the decoder begins, and is asked, as it was trained."""
    seen, target, before = damage(text, kind, rate, seed, MARKS)
    damaged, read, targets = by_the_objective(text, kind, rate, seed)
    assert [CLS, *seen, SEP] == damaged
    assert read[: before + 1] == [CLS] + [MARKS.mask] * before, "the decoder does not begin as it learned to"
    asked = [token for token in targets if token != IGNORE]
    assert asked == (target if kind == "mass" else [*target, SEP]) and targets.index(asked[0]) == before


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, SHARES, SEEDS)
def test_what_was_taken_out_can_be_put_back(kind, text, rate, seed):
    seen, target, before = damage(text, kind, rate, seed, MARKS)
    if kind == "spans":
        parts = {}
        for token in target:
            if token in MARKS.sentinels:
                parts[token] = []
            else:
                parts[[*parts][-1]].append(token)
        assert [token for one in seen for token in parts.get(one, [one])] == text
        assert [*parts] == list(MARKS.sentinels[: len(parts)]), "the sentinels are out of their order"
    elif kind == "mass":
        assert seen[:before] + target + seen[before + len(target) :] == text
        assert seen[before : before + len(target)] == [MARKS.mask] * len(target)
    else:
        assert target == text and before == 0


@given(TEXTS, SHARES, SEEDS)
def test_each_dice_damages_something(text, rate, seed):
    for kind in KINDS:
        seen, _, _ = damage(text, kind, rate, seed, MARKS)
        alike = kind == "rotation" and len({*text}) < len(text) or kind == "permutation"  # may read as before
        assert seen != text or alike or len(text) == 1


def test_the_dice_cover_the_share():
    """Of 60 words, on average over seeds; spans of 3 words cover a little less, since some meet."""
    text = [7] * 60
    for rate in (0.15, 0.5):
        masked = np.mean([damage(text, "masking", rate, seed, MARKS)[0].count(MARKS.mask) for seed in range(400)]) / 60
        assert abs(masked - rate) < 0.015, masked
        left = np.mean([damage(text, "infilling", rate, seed, MARKS)[0].count(7) for seed in range(400)]) / 60
        assert 0.75 * rate < 1 - left < 1.02 * rate, left
    lengths = [poisson(die(seed, 0), 3.0) for seed in range(5000)]
    assert abs(np.mean(lengths) - 3) < 0.1 and abs(np.var(lengths) - 3) < 0.2


@given(st.lists(st.integers(0, 3), max_size=7), st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_a_place_is_the_nearest_beginning(written, target):
    @cache
    def distance(i, j):  # between the first i words written and the first j of the target
        if not i or not j:
            return i + j
        same = distance(i - 1, j - 1) + (written[i - 1] != target[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    for i, place in enumerate(places(written, target)):
        least = min(distance(i, j) for j in range(len(target) + 1))
        assert distance(i, place) == least
        assert all(abs(j - i) >= abs(place - i) for j in range(len(target) + 1) if distance(i, j) == least)


def test_places_after_a_word_too_many_and_one_too_few():
    assert places([1, 2, 3], [1, 2, 3]) == [0, 1, 2]
    assert places([1, 9, 3, 4], [1, 2, 3, 4]) == [0, 1, 2, 3], "one wrong word makes the next ones wrong"
    assert places([1, 9, 2, 3, 4, 5], [1, 2, 3, 4, 5])[-1] == 4, "after a word too many it does not find back"
    assert places([1, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])[-1] == 5, "after a word too few it does not find back"


RULES = """
const { damage, places } = await import(WIDGETS + "damage.mjs");
const { die } = await import(WIDGETS + "sampling.mjs");
console.log(JSON.stringify([
  data.damages.map(([text, kind, rate, seed]) => {
    const { seen, target, before } = damage(text, kind, rate, seed, data.marks);
    return [seen, target, before];
  }),
  data.pairs.map(([written, target]) => places(written, target)),
  data.dice.map(([seed, place]) => die(seed, place)),
]));
"""


def test_the_page_has_the_same_rules(run_node):
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 16, rng.integers(1, 41)).tolist() for _ in range(60)]
    shares = [n / 20 for n in range(1, 19)]
    damages = [(text, kind, shares[(i + k) % 18], 997 * i)
               for i, text in enumerate(texts) for k, kind in enumerate(KINDS)]
    pairs = [(rng.integers(0, 4, rng.integers(0, 12)).tolist(), rng.integers(0, 4, 8).tolist()) for _ in range(100)]
    dice = [(seed, place) for seed in (0, 1, 999, 65535) for place in range(60)]
    marks = {"mask": MARKS.mask, "sentinels": MARKS.sentinels, "fullStops": MARKS.full_stops, "quote": MARKS.quote}
    found = run_node(RULES, {"damages": damages, "pairs": pairs, "dice": dice, "marks": marks})
    for how, page in zip(damages, found[0], strict=True):
        assert page == list(damage(*how, MARKS)), how
    assert found[1] == [places(*pair) for pair in pairs] and found[2] == [die(*one) for one in dice]


def test_a_fragment_has_as_many_words_everywhere(run_node):
    """Also where the share of a text is half a word, or is not for a float only."""
    shares = sorted({share for n in range(1, 20) for share in (n / 20, n * 0.05)})
    text = torch.arange(202) <= torch.arange(1, 201)[:, None]
    text[:, 0] = False
    sizes = [size for share in shares for size in fragment(text, share, None).sum(1).tolist()]
    damages = [([7] * n, "mass", share, 0) for share in shares for n in range(1, 201)]
    assert [len(damage(*how, MARKS)[1]) for how in damages] == sizes
    page = run_node(RULES, {"damages": damages, "pairs": [], "dice": [], "marks": {"mask": MARKS.mask}})[0]
    assert [len(target) for _, target, _ in page] == sizes


@pytest.fixture(scope="module")
def tokenizer():
    return load_corpus("tinyworld", n=1, sentinels=16).tokenizer


@pytest.fixture(scope="module")
def seq2seq(tokenizer, tmp_path_factory):
    """A random encoder–decoder in a folder of the shipped one's name: (folder, model)."""
    folder = tmp_path_factory.mktemp("models") / "tinyworld-seq2seq"
    config = TransformerConfig.named("tinyworld-seq2seq", len(tokenizer), width=32, feed_forward=64)
    model = randomise(EncoderDecoder(config), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    save_pretrained(model, tokenizer, folder, half=True)
    return folder, model


@pytest.fixture
def widget(seq2seq, tokenizer):
    return Restore(model=seq2seq[1], tokenizer=tokenizer)


ANSWERS = """
const { restore } = await import(WIDGETS + "worker.mjs");
const code = await import(WIDGETS + "engine.mjs");
const parts = { code, softmax: code.softmax,
  model: code.modelOf(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors")),
  tokenizer: new code.Tokenizer(json(data.folder + "/tokenizer.json")) };
const asked = ([damaged, kind, rate, seed, look]) => restore({ damaged, kind, rate, seed, look }, parts);
console.log(JSON.stringify(data.cases.map(asked)));
"""


def test_the_page_answers_as_the_kernel_does(run_node, seq2seq, tokenizer):
    looks = ["1", "2", "1.1", "2.4"]
    cases = [(text, kind, RATES.get(kind, 0.0), i, looks[i % 4]) for i, text in enumerate(openings()) for kind in KINDS]
    cases += [(text, kind, 0.5, 3, "2") for text in STRANGE for kind in KINDS]
    found = run_node(ANSWERS, {"folder": str(seq2seq[0]), "cases": cases})
    for case, page in zip(cases, found, strict=True):
        kernel = restore(*case, seq2seq[1], tokenizer)
        if case[1] == "mass":  # its decoder is told where its words stand: they are compared place by place
            assert [step["true"] for step in kernel["steps"]] == kernel["target"][: len(kernel["steps"])]
        for name in ("words", "seen", "target", "note"):
            assert page[name] == kernel[name], (name, case)
        for one, other in zip(page["steps"], kernel["steps"], strict=True):
            assert (one["word"], one["true"]) == (other["word"], other["true"]), case
            assert dict(one["chances"]).keys() == dict(other["chances"]).keys()
            assert all(abs(p - dict(other["chances"])[token]) < 1e-3 for token, p in one["chances"])
            assert np.allclose(one["look"], other["look"], atol=1e-3) and abs(sum(one["look"]) - 1) < 0.01


def test_what_the_kernel_says(widget, tokenizer):
    assert widget.seen[0] == "[CLS]" and widget.seen[-1] == "[SEP]" and widget.target[:-1] == widget.words
    before, first = widget.answered, widget.seen
    widget.seed = 1
    assert widget.answered == before + 1 and widget.seen != first
    for step in widget.steps:
        assert len(step["chances"]) == 5 and len(step["look"]) == len(widget.seen)
        assert step["true"] is None or step["true"] in dict(step["chances"])
        assert step["word"] == step["chances"][0][0], "the word written is not the likeliest"
    widget.kind = "mass"
    assert len(widget.steps) == len(widget.target) == round(len(widget.words) / 2), "[MASK]s say how much is missing"
    widget.rate = 0.2
    assert len(widget.target) == round(len(widget.words) / 5)
    widget.text = "The duck saw a zebra."
    widget.kind = "permutation"
    assert "does not know “zebra”" in widget.note and "needs two sentences" in widget.note
    for kind in ("rotation", "permutation"):
        widget.kind, widget.text = kind, "The duck."
        assert ("needs two" in widget.note) == (kind == "permutation")
    widget.kind, widget.text = "rotation", "duck"
    assert "A rotation needs two words" in widget.note and widget.seen == ["[CLS]", "duck", "[SEP]"]
    widget.text = ""
    assert "no text to damage" in widget.note and widget.steps == []
    widget.kind, widget.text = "masking", "the [MASK] duck [SEP] <extra_id_1> laughed"
    assert widget.words == ["the", "[MASK]", "duck", "laughed"] and "of your own" in widget.note
    widget.text = "the " * 90
    assert "reads the first 58 of 90 words" in widget.note


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was(seq2seq, tokenizer, training):
    """Also one that is being trained: no dropout while it answers, and dropout again after."""
    model = copy.deepcopy(seq2seq[1]).train(training)
    restore("the duck laughed .", "masking", 0.5, 0, "2", model, tokenizer)
    assert {part.training for part in model.modules()} == {training}


def test_the_attention_of_a_head_and_of_all(widget):
    widget.look = "1"
    whole = np.array([step["look"] for step in widget.steps])
    heads = []
    for head in range(1, 5):
        widget.look = f"1.{head}"
        heads.append([step["look"] for step in widget.steps])
    assert np.allclose(np.mean(heads, 0), whole, atol=1e-3) and not np.allclose(heads[0], whole, atol=1e-2)


@pytest.mark.parametrize(
    ("trait", "value"), [("kind", "shuffling"), ("rate", 1.0), ("seed", -1), ("look", "9"), ("text", "x" * 10_001)]
)
def test_what_cannot_be_asked(widget, trait, value):
    old = getattr(widget, trait)
    with pytest.raises(BadQuestion):
        setattr(widget, trait, value)
    widget.set_state({trait: value, "steps": []})
    assert getattr(widget, trait) == old and widget.note and widget.steps, "the page may not write answers"


def test_models_that_restore_nothing():
    with pytest.raises(ValueError, match="'tinyworld-bert' restores no text"):
        Restore(model="tinyworld-bert")
    small = dict(layers=1, width=8, heads=2, feed_forward=8, segments=0)
    with pytest.raises(ValueError, match="give an EncoderDecoder with its tokenizer"):
        Restore(model=EncoderDecoder(TransformerConfig(8, **small)))
    plain = word_level(["the", "cat", "."])
    short, enough = (EncoderDecoder(TransformerConfig(len(plain), **small, max_positions=n)) for n in (13, 14))
    with pytest.raises(ValueError, match="'this model' has 13 positions, and to restore one word takes 14"):
        Restore("the cat.", model=short, tokenizer=plain)
    assert Restore("the cat.", model=enough, tokenizer=plain).words == ["the"]


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (["scrambling"], "there is no damage called 'scrambling'"),
        (["masking", "spans"], "spans need sentinels"),
        (["masking", "permutation+deletion"], "Restore does not show 'permutation[+]deletion': give one or more"),
        (["drop"], "Restore does not show 'drop'"),
    ],
)
def test_kinds_that_cannot_be(kinds, sentence):
    plain = word_level(["the", "cat", "."])
    model = EncoderDecoder(TransformerConfig(len(plain), layers=1, width=8, heads=2, feed_forward=8, segments=0))
    with pytest.raises(ValueError, match=sentence):
        Restore("the cat.", model=model, tokenizer=plain, kinds=kinds)


def test_the_kinds_are_those_that_the_model_learned(seq2seq, tokenizer, tmp_path, monkeypatch):
    """Of a model in a folder, shipped or not, its recipe tells them; without sentinels there are no spans."""
    folder = tmp_path / "tinyworld-seq2seq"
    shutil.copytree(seq2seq[0], folder)
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path)
    assert Restore().kinds == list(KINDS)
    options = {"kinds": ["rotation", "permutation+deletion", "spans"]}
    (folder / "recipe.json").write_text(Recipe(objective="denoising", objective_options=options).to_json())
    widget = Restore()
    assert widget.kinds == ["rotation", "spans"] and widget.kind == "rotation" and widget.model_name == folder.name
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path / "none")
    assert Restore(model=str(folder)).kinds == widget.kinds
    plain = word_level(["the", "cat", "."])
    small = TransformerConfig(len(plain), layers=1, width=8, heads=2, feed_forward=8, segments=0)
    assert "spans" not in Restore("the cat.", model=EncoderDecoder(small), tokenizer=plain).kinds


def test_links_come_back(run_node):
    code = """
    const { lookName, readLink, writeLink } = await import(WIDGETS + "restore.mjs");
    const { state, bad } = data, kinds = ["masking", "spans"], looks = ["1", "1.1", "2"];
    const read = (link) => readLink(link, "restore", kinds, looks);
    const told = (link) => { try { return read(link); } catch (error) { return error.message; } };
    const [back, { rate }] = [state, { ...state, rate: 0.3 }].map((one) => told(writeLink("restore", one)));
    const older = told(writeLink("restore", state).replace("&l=1.1", ""));
    console.log(JSON.stringify([back, rate, older, told("#w=mask"), bad.map(told), ["2", "1.3"].map(lookName)]));
    """
    given = {"text": "The duck & the <b>", "kind": "spans", "rate": None, "seed": 7, "look": "1.1"}
    bad = ["k=masks&r=&d=1", "k=spans&r=2&d=1", "k=spans&r=&d=-1", "s=x"]
    bad += [f"k=spans&r=&d=1&l={look}" for look in ("", "3", "1.2", "1.1.1", "01")]
    back, rate, older, other, bad, looks = run_node(code, {"state": given, "bad": [f"#w=restore&{one}" for one in bad]})
    assert back == given and rate == 0.3 and other is None
    assert older == {name: given[name] for name in ("text", "kind", "rate", "seed")}, "an older link has no look"
    assert all("could not be read" in one for one in bad) and looks == ["block 2, all heads", "block 1, head 3"]


TRAITS = ("text", "kind", "rate", "seed", "look", "shown", "words", "seen", "target", "steps", "note", "answered")


def test_state_is_json(widget):
    json.dumps({name: getattr(widget, name) for name in TRAITS})


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve, seq2seq, tokenizer):
    widget = Restore(model=seq2seq[1], tokenizer=tokenizer, model_name="tinyworld-seq2seq")
    folder = make_site(tmp_path_factory.mktemp("restore") / "pages", widget)
    manifest = json.loads((folder / "assets" / "manifest.json").read_text())
    files = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    manifest["tinyworld-seq2seq"] = {part: f"seq2seq-{file}" for part, file in files.items()}
    for file in files.values():
        shutil.copy(seq2seq[0] / file, folder / "assets" / f"seq2seq-{file}")
    (folder / "assets" / "manifest.json").write_text(json.dumps(manifest))
    return serve(folder)


def state(page) -> dict:
    return page.evaluate("(names) => Object.fromEntries(names.map((n) => [n, models[0].get(n)]))", TRAITS)


def settled(page, act) -> dict:
    count = state(page)["answered"]
    act()
    page.wait_for_function("(count) => models[0].get('answered') > count", arg=count)
    return state(page)


def press(page, label: str) -> dict:
    page.get_by_role("button", name=label, exact=True).click()
    return state(page)


def pick(page, kind: str) -> dict:
    return settled(page, lambda: page.get_by_role("radio", name=kind).check(force=True))


def words_written(page) -> list[str]:
    return [word.strip() for word in page.locator(".ss-written li:visible .ss-seen").all_inner_texts()]


def test_damaging(open_page, seq2seq, tokenizer):
    """Each kind and each throw of the dice, as the kernel would have it; nothing is fetched before a touch."""
    page = open_page()
    first = state(page)
    assert not [url for url in page.fetched if "assets" in url], "fetched before a touch"
    again = settled(page, lambda: press(page, "Damage again"))
    assert again["seed"] == first["seed"] + 1 and again["seen"] != first["seen"]
    for kind, name in {"spans": "Spans (T5)", "mass": "MASS", "rotation": "Rotation", "masking": "Masking"}.items():
        found = pick(page, name)
        kernel = restore(found["text"], kind, RATES.get(kind, 0.0), found["seed"], found["look"], seq2seq[1], tokenizer)
        assert found["kind"] == kind and found["seen"] == kernel["seen"] and found["target"] == kernel["target"]
        assert page.locator(".ss-target li").count() == (len(found["target"]) if kind in ("spans", "mass") else 0)
        assert page.locator(".ss-looked li").count() == len(found["seen"])
        assert page.get_by_role("slider").is_disabled() == (kind == "rotation")
        if kind in RATES:
            assert page.get_by_role("slider").input_value() == f"{100 * RATES[kind]:.0f}", "the slider stays behind"
    page.get_by_role("slider").focus()
    stronger = settled(page, lambda: page.get_by_role("slider").press("End"))
    assert stronger["rate"] == 0.9 and stronger["seen"].count("[MASK]") > found["seen"].count("[MASK]")
    assert page.get_by_text("90% of the words").is_visible()
    gone, words = stronger["seen"].count("[MASK]"), len(stronger["seen"]) - 2
    assert page.get_by_text(f"{gone} of {words} words are gone").is_visible()
    assert settled(page, lambda: press(page, "Reset"))["kind"] == first["kind"] and state(page)["rate"] is None
    fetched = {url.rpartition("/")[2] for url in page.fetched if "assets" in url}
    assert "seq2seq-model.safetensors" in fetched, "what the worker fetches is not seen here"
    assert not fetched & {"world.json", "tinyworld.mjs"}, "fetched a truth that it does not show"
    here = page.url.split("#")[0]
    assert not [url for url in page.fetched if not url.startswith((here, f"blob:{here}"))], "another origin was asked"


def test_it_writes_word_by_word(open_page):
    page = open_page()
    begin = state(page)
    assert words_written(page) == ["…"]
    page.evaluate("""() => new MutationObserver((changes) => { drawn += changes.length; })
        .observe(document.querySelector(".ss-title"), { childList: true })""")
    for label, shown in (("One word", 1), ("Start again", 0), ("Start again", 0), ("One word", 1)):
        page.evaluate("window.drawn = 0")
        assert press(page, label)["shown"] == shown and page.evaluate("drawn") == 1, f"{label} draws more than once"
    shape = page.locator(".ss-restore").bounding_box()["height"]
    press(page, "Play")
    page.wait_for_function("models[0].get('shown') >= 3")
    count = press(page, "Pause")["shown"]
    page.wait_for_timeout(800)
    assert state(page)["shown"] == count, "it goes on after Pause"
    steps = state(page)["steps"]
    assert words_written(page) == [*(one["word"] for one in steps[:count]), "…"]
    assert press(page, "To the end")["shown"] == len(steps) == len(words_written(page))
    assert page.locator(".ss-wrong, .ss-right").count() == len(steps)
    assert page.locator(".ss-restore").bounding_box()["height"] == shape, "the page moves while it writes"
    assert press(page, "Start again")["shown"] == 0
    assert state(page)["answered"] == begin["answered"], "playing asked the model"


def test_a_written_word_shows_its_choices_and_its_attention(open_page):
    """By touch and by keyboard, and in a screen reader's words."""
    page = open_page()
    steps = press(page, "To the end")["steps"]
    page.locator(".ss-written button").nth(2).click()
    for at in (2, 3):
        rows = page.locator(".ss-restore .ss-bars th").all_inner_texts()
        assert [text.removeprefix("▸ ") for text in rows] == [token for token, _ in steps[at]["chances"]]
        assert page.locator(".ss-bars .ss-real").inner_text().startswith(f"▸ {steps[at]['true']}")
        found = [int(text.strip("%") or 0) for text in page.locator(".ss-looked .ss-under").all_inner_texts()]
        assert np.allclose(found, 100 * np.array(steps[at]["look"]), atol=1)
        assert page.locator(".ss-written button").nth(at).get_attribute("aria-pressed") == "true"
        assert page.get_by_text(f"looks for word {at + 1}").is_visible()
        page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.ss-restore [aria-live]').textContent.includes('decoder looks at')")
    before = page.locator(".ss-looked .ss-under").all_inner_texts()
    other = settled(page, lambda: page.get_by_label("Attention of").select_option("1.2"))
    assert other["look"] == "1.2" and other["shown"] == len(steps), "another head begins the writing anew"
    assert page.locator(".ss-looked .ss-under").all_inner_texts() != before


def test_texts(open_page):
    page = open_page()
    other = settled(page, lambda: page.get_by_label("A text of Tinyworld").select_option("1"))
    assert other["text"] == page.get_by_role("textbox").input_value() != ""
    own = settled(page, lambda: page.get_by_role("textbox").fill("The duck swam. Anna laughed."))
    assert own["words"] == "the duck [UNK] . anna laughed .".split() and "does not know “swam”" in own["note"]
    assert page.get_by_label("A text of Tinyworld").input_value() == ""


@pytest.mark.parametrize("text", ["", "zebra crossing", "<img src=x onerror=alert(1)>", "🙂", "the " * 300])
def test_strange_text(open_page, text):
    page = open_page()
    settled(page, lambda: page.get_by_role("textbox").fill(text))
    found = press(page, "To the end") if text else state(page)
    assert found["text"] == text and found["note"] and page.locator("img").count() == 0
    assert page.locator(".ss-note").is_visible() and len(found["steps"]) == found["shown"]


def test_a_link_leads_to_the_same_damage(open_page):
    page = open_page("#w=restore&s=Anna+laughed.+The+duck+swam.&k=deletion&r=0.4&d=12&l=1.3")
    page.wait_for_function("models[0].get('answered') > 1")
    found = state(page)
    assert (found["kind"], found["rate"], found["seed"]) == ("deletion", 0.4, 12) and found["words"][0] == "anna"
    assert found["look"] == page.get_by_label("Attention of").input_value() == "1.3"
    assert page.get_by_role("slider").input_value() == "40"
    settled(page, lambda: page.get_by_label("Attention of").select_option("2.4"))
    press(page, "Copy link")
    page.wait_for_function("location.hash.endsWith('&l=2.4')")
    press(page, "Reset")
    page.evaluate("window.dispatchEvent(new Event('hashchange'))")
    assert state(page)["look"] == "2.4"
    broken = open_page("#w=restore&s=Anna+laughed.&k=deletion&r=&d=12&l=9")
    assert broken.get_by_text("The link's state could not be read").is_visible() and state(broken)["look"] == "2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open_page, scheme):
    page = open_page(width=375, color_scheme=scheme, has_touch=True)
    pick(page, "MASS")
    page.get_by_role("button", name="To the end").tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    small = page.evaluate("""[...document.querySelectorAll('.selfsup :is(button, textarea, input, select)')]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)""")
    assert not small, f"too small to touch: {small[:2]}"
    assert page.locator(".ss-restore [aria-live=polite]").count() == 1


def test_another_damage_is_written_from_its_first_word(open_page):
    """Also while another is still played; another head goes on where the writing is."""
    page = open_page()
    press(page, "Play")
    page.wait_for_function("models[0].get('shown') >= 2")
    pick(page, "Deletion")
    assert page.get_by_role("button", name="Play", exact=True).is_visible(), "it plays on"
    page.wait_for_timeout(800)
    assert state(page)["shown"] == 0 and words_written(page) == ["…"]
    press(page, "To the end")
    page.locator(".ss-written button").nth(1).click()
    for other in (lambda: press(page, "Damage again"), lambda: page.get_by_role("textbox").fill("Anna laughed.")):
        settled(page, other)
        assert page.get_by_text("looks for word 1:").is_visible() and state(page)["shown"] == 0
        press(page, "To the end")
        page.locator(".ss-written button").nth(1).click()


def test_a_late_answer_to_an_old_question_is_not_shown(open_page):
    """While the model loads, playing waits, and only the last question is answered."""
    page, held = open_page(), []
    page.route("**/seq2seq-model.safetensors", lambda route: held.append(route))
    before = state(page)["answered"]
    press(page, "Play")
    page.get_by_label("Attention of").select_option("1.2")
    count = state(page)["shown"]
    page.wait_for_timeout(1300)
    assert state(page)["shown"] == count, "it plays on over the attention of another head"
    press(page, "Damage again")
    page.get_by_role("radio", name="MASS").check(force=True)
    found = settled(page, lambda: held[0].continue_())
    page.wait_for_timeout(300)
    assert state(page)["answered"] == before + 1 and found["seen"].count("[MASK]") == len(found["target"]) > 1


def test_in_a_notebook_the_kernel_answers(open_notebook, widget):
    page = open_notebook(widget)
    assert page.get_by_role("button", name="Copy link").count() == 0
    found = pick(page, "MASS")
    assert (widget.kind, widget.rate) == ("mass", None) and found["steps"] == widget.steps != []
    assert page.locator(".ss-looked .ss-seen").all_inner_texts() == widget.seen
    assert page.locator("[aria-busy=true]").count() == 0, "it waits on"
    settled(page, lambda: page.get_by_role("slider").press("End"))
    assert widget.rate == 0.9 and len(widget.target) > len(found["target"])
    settled(page, lambda: page.get_by_label("Attention of").select_option("1.2"))
    settled(page, lambda: press(page, "Damage again"))
    settled(page, lambda: page.get_by_role("textbox").fill("The zebra laughed."))
    assert (widget.look, widget.seed, widget.text) == ("1.2", 1, "The zebra laughed.")
    assert page.get_by_text("does not know “zebra”").is_visible()
    press(page, "To the end")
    page.wait_for_function("models[0].get('shown') === models[0].get('steps').length")
    assert words_written(page) == [step["word"] for step in widget.steps]
    assert not [url for url in page.fetched if "/assets/" in url], "the page's engine was asked"


def test_a_failed_fetch_is_said_and_tried_again(open_page):
    page = open_page()
    page.route("**/seq2seq-model.safetensors", lambda route: route.abort())
    said = settled(page, lambda: press(page, "Damage again"))
    assert "The model cannot answer" in said["note"] and said["steps"] == []
    page.unroute("**/seq2seq-model.safetensors")
    assert settled(page, lambda: press(page, "Damage again"))["steps"]
