"""The label slider: what it says of recorded runs is what the runs say, and a reader can choose in a real browser."""

from __future__ import annotations

import json
import math
import re
import statistics

import numpy as np
import pytest

from selfsup import recorded
from selfsup.widgets import BadQuestion
from selfsup.widgets.labels import WAYS, LabelSlider

NUMBERS = (16, 64, 256, 1024, 4096)
FLOORS = {"sentiment": 0.5, "tags": 0.1, "entailment": 0.33, "questions": 0.2}
AHEAD = {"rival": -0.5, "random": 0, "full": 2, "adapter": 1.5, "frozen": 1}  # in numbers of labels
OUTSIDE = """() => {
  const plot = document.querySelector(".ss-plot");
  const inside = ({ x, width }) => x >= 0 && x + width <= plot.clientWidth;
  return [...plot.querySelectorAll("text")].filter((node) => !inside(node.getBBox())).map((node) => node.textContent);
}"""
HOSTILE = "<img src=x onerror='window.hacked = 1'>"


def run_of(task, way, seed, step):
    score = FLOORS[task] + 0.1 * (step + AHEAD[way]) * (1 - FLOORS[task]) + 0.02 * (seed - 1) / (1 + step)
    return {"task": task, "way": way, "seed": seed, "labels": NUMBERS[step], "score": round(min(score, 1), 4)}


RUNS = [run_of(task, way, seed, step) for task in FLOORS for way in WAYS for seed in range(3) for step in range(5)]
ONE = RUNS[0]


def scores(task, way, labels, runs=RUNS):
    return [run["score"] for run in runs if (run["task"], run["way"], run["labels"]) == (task, way, labels)]


def test_the_kernel_takes_choices_and_refuses_others_in_a_sentence():
    widget = LabelSlider(RUNS, baselines={"tags": {"label": "counting", "score": 0.2}}, best={"tags": 0.9})
    assert (widget.task, widget.labels, widget.ways) == ("sentiment", 256, ["random", "full"])
    for name, bad, about in [
        ("task", "translation", "'translation'"), ("labels", 100, "100"), ("ways", ["full", "half"], "'half'"),
        ("best", {"tags": 1.5}, "1.5"), ("best", {"nothing": 0.5}, "'nothing'"),
        ("baselines", {"tags": 0.5}, "a label"), ("baselines", {"tags": {"label": "x", "score": True}}, "True"),
        ("runs", RUNS[:3], "given once"),
    ]:  # fmt: skip
        before = getattr(widget, name)
        with pytest.raises(BadQuestion, match=about):
            setattr(widget, name, bad)
        assert getattr(widget, name) == before
    with pytest.raises(ValueError, match="'translation'"):
        LabelSlider(RUNS, task="translation")


def test_scores_are_numbers_of_any_kind():
    half = np.float32(0.5)
    widget = LabelSlider([one | {"score": half} for one in RUNS], best={"tags": half},
                         baselines={"tags": {"label": "counting", "score": half}})  # fmt: skip
    assert json.dumps([widget.runs[0]["score"], widget.best, widget.baselines]) == (
        '[0.5, {"tags": 0.5}, {"tags": {"label": "counting", "score": 0.5}}]')  # fmt: skip
    with pytest.raises(BadQuestion, match="nan"):
        widget.best = {"tags": np.float32("nan")}


def test_the_page_may_choose_and_nothing_else():
    widget = LabelSlider(RUNS)
    widget.set_state({"task": "tags", "labels": 16, "ways": [], "runs": [], "best": {"tags": 2}})
    assert (widget.task, widget.labels, widget.ways, widget.runs) == ("tags", 16, [], RUNS) and widget.best == {}
    widget.set_state({"labels": 17})
    assert widget.labels == 16


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [3],
        [{"task": "tags", "way": "full"}],
        [ONE | {"way": "half"}],
        [ONE | {"task": 3}],
        [ONE | {"labels": 0}],
        [ONE | {"labels": 16.0}],
        [ONE | {"score": math.nan}],
        [ONE | {"score": 1.01}],
        [ONE, ONE | {"score": 0.2}],
    ],
)
def test_runs_of_which_no_curve_can_be_drawn_are_refused(runs):
    with pytest.raises(BadQuestion):
        LabelSlider(runs)


def test_without_runs_the_record_is_shown(monkeypatch):
    monkeypatch.setattr(recorded, "read", lambda name: {"curves": {"runs": RUNS}}[name])
    assert LabelSlider(task="questions").runs == RUNS


def test_means_and_needed_labels_are_those_of_the_runs(run_node):
    code = """
    const { summary, needed, numbersOf } = await import(WIDGETS + "labels.mjs");
    console.log(JSON.stringify([numbersOf(data.runs), data.cells.map((cell) =>
      [summary(data.runs, ...cell), needed(data.runs, ...cell)])]));
    """
    cells = [(task, way, labels) for task in FLOORS for way in WAYS for labels in NUMBERS]
    numbers, found = run_node(code, {"runs": RUNS[::-1], "cells": cells})
    assert numbers == list(NUMBERS)
    for (task, way, labels), (summary, needed) in zip(cells, found, strict=True):
        own = scores(task, way, labels)
        mean = statistics.mean(own)
        assert summary == {"mean": pytest.approx(mean), "low": min(own), "high": max(own), "seeds": 3}
        later = [n for n in NUMBERS if n >= labels]
        enough = [n for n in later if f"{statistics.mean(scores(task, 'random', n)):.3f}" >= f"{mean:.3f}"]
        too_few = [n for n in later if not enough or n < enough[0]]
        assert needed == {"reached": min(enough, default=None), "below": max(too_few, default=None)}


def test_the_sentence_compares_means_at_numbers_that_were_tried(run_node):
    def runs(random, full, numbers=NUMBERS):
        pairs = zip(numbers, random), zip(numbers, full)
        return [{"task": "tags", "way": way, "seed": 0, "labels": n, "score": score}
                for way, pair in zip(("random", "full"), pairs) for n, score in pair if score]  # fmt: skip

    both = ["random", "full"]
    cases = [
        (runs([0.1, 0.2, 0.3, 0.8, 0.9], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 256),
        (runs([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 256),
        (runs([0.1, 0.2, 0.3, 0.4, 0.9], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 4096),
        (runs([0.1, 0.9, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 256),  # 64 were luck
        (runs([0.1, 0.2, 0.3, 0.4, 0.5], [0.5]), both, 256),
        (runs([0.1], [0.5, 0.6, 0.7]), both, 256),
        (RUNS, ["random"], 16),
        (RUNS, [], 16),
        (runs([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 4096),
        (runs([0.1, 0.2, 0.3, 0.4, 0.95], [0.5, 0.6, 0.7, 0.8, 0.9]), both, 4096),
        (runs([0.1, 0.2, 0.3, 0.4, 0.8998], [0.5, 0.6, 0.7, 0.8, 0.9002]), both, 4096),
        (runs([0.1, 0.2, 0.3, 0.6996, 0.9], [0.5, 0.6, 0.7, 0.8, 0.9]), ["full"], 256),
        (runs([0.1, 0.5], [0.5, 0.6], (1, 4)), both, 1),
        (runs([0.1, None, 0.8], [0.5, 0.6]), both, 64),
        (runs([0.1, 0.2], [0.5]), ["full"], 64),
        ([*runs([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]),
          *({**run, "seed": 1} for run in runs([0.1, 0.2, 0.3, 0.8, 0.9], [0.5, 0.6, 0.7, 0.6, 0.9]))], both, 1024),
        ([*runs([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), {**ONE, "task": "tags", "way": "rival", "score": 0.55}],
         ["rival", *both], 16),
    ]
    code = """
    const { told } = await import(WIDGETS + "labels.mjs");
    console.log(JSON.stringify(data.map(([runs, ways, labels]) => told(runs, "tags", ways, labels))));
    """
    most = "With 4,096 labels, the pre-trained start has 0.900, the random start "
    begin = "With 256 labels, the pre-trained start has 0.700, the random start 0.300. The random start "
    assert run_node(code, cases) == [
        begin + "needs 1,024 labels for that; 256 are too few.",
        begin + "does not get there with 4,096; more were not tried.",
        most + "0.900. The random start is as good already.",
        begin + "does not get there with 4,096; more were not tried.",
        "With 256 labels, the random start has 0.300.",
        "With 256 labels, the pre-trained start has 0.700.",
        "With 16 labels, the random start has 0.100.",
        "No start is shown: choose one.",
        most + "0.500. The random start does not get there with 4,096; more were not tried.",
        most + "0.950. The random start is better already.",
        most + "0.900. The random start is as good already.",  # to three decimals, as the reader sees them
        begin + "needs 1,024 labels for that; 256 are too few.",
        "With 1 label, the pre-trained start has 0.500, the random start 0.100. "
        "The random start needs 4 labels for that; 1 is too few.",
        "With 64 labels, the pre-trained start has 0.600.",
        "No start that is shown has runs with that number.",
        "With 1,024 labels, the pre-trained start has 0.700, the random start 0.600. "
        "No clear difference: the ranges of the seeds overlap.",
        "With 16 labels, the pre-trained start has 0.500, the random start 0.100. The random start does not get "
        "there with 256; more were not tried. "
        "Counting, without a network, has 0.550.",
    ]


def test_the_axes_are_logarithmic_and_begin_below_the_baseline(run_node):
    code = """
    const { across, lowest } = await import(WIDGETS + "labels.mjs");
    console.log(JSON.stringify([data.numbers.map((n) => across(n, data.numbers, 10, 90)), across(16, [16], 10, 90),
      lowest(data.runs, "sentiment"), lowest(data.runs, "sentiment", { score: 0.5 }),
      lowest(data.runs, "sentiment", { score: 0.25 }), lowest([], "sentiment", { score: 1 })]));
    """
    found = run_node(code, {"numbers": NUMBERS, "runs": RUNS})
    assert found == [pytest.approx([10, 30, 50, 70, 90]), 50, 0, 0.4, 0.2, 0.9]


@pytest.fixture(scope="module")
def address(tmp_path_factory, make_site, serve):
    widget = LabelSlider(RUNS, baselines={"sentiment": {"label": HOSTILE, "score": 0.5}}, best={"sentiment": 0.98})
    strange = [run | {"task": task} for run in RUNS[:60] for task in (HOSTILE, "constructor", "x" * 300)]
    return serve(make_site(tmp_path_factory.mktemp("labels") / "pages", widget, LabelSlider(strange)))


@pytest.fixture
def open_page(browser, address):
    """open_page(width, query): a page with two sliders; its console must stay silent."""
    contexts, complaints = [], []

    def start(width: int = 1280, query: str = ""):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + query)
        page.wait_for_function("window.ready")
        return page

    yield start
    for context in contexts:
        context.close()
    assert not complaints, "the page complained"


def first(page):
    return page.get_by_role("region").first


def test_keys_move_the_slider_and_the_sentence_follows(open_page):
    page = open_page()
    slider, said = first(page).get_by_role("slider", name="Number of labels"), first(page).locator("[aria-live=polite]")
    assert slider.get_attribute("aria-valuetext") == "256 labels" and said.inner_text().startswith("With 256 labels")
    line = first(page).locator(".ss-chosen")
    before = float(line.get_attribute("x1"))
    slider.focus()
    assert slider.evaluate("(node) => getComputedStyle(node).outlineWidth") == "3px"
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "1,024 labels" and "With 1,024 labels" in said.inner_text()
    assert page.evaluate("models[0].get('labels')") == 1024 and float(line.get_attribute("x1")) > before
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert "does not get there with 4,096" in said.inner_text()
    assert "over 4,096" in first(page).get_by_role("row", name="pre-trained, all weights").inner_text()
    page.keyboard.press("Home")
    assert said.inner_text().endswith("needs 256 labels for that; 64 are too few.")
    page.evaluate("models[0].set('labels', 64)")
    assert slider.input_value() == "1", "the kernel moves it too"


def test_points_and_whiskers_stand_where_the_scores_are(open_page):
    """Measured against the grid's own lines: a higher score is higher up, and no two starts share a place."""
    widget = first(open_page())
    texts = widget.locator("text").evaluate_all("(nodes) => nodes.map((n) => [n.textContent, +n.getAttribute('y')])")
    ticks = [(float(text), y - 4) for text, y in texts if re.fullmatch(r"[01]\.\d", text)]
    (low, low_y), (high, high_y) = min(ticks), max(ticks)
    assert low < high and low_y > high_y, "the axis goes up"
    height = lambda score: low_y + (score - low) / (high - low) * (high_y - low_y)  # noqa: E731
    best = float(widget.locator(".ss-best").get_attribute("y1"))
    assert best == pytest.approx(height(0.98), abs=0.5)
    places = []
    for way, curve in zip(("random", "full"), widget.locator("svg[role=img] .ss-curve").all()):
        pairs = curve.locator("polyline").get_attribute("points").split()
        xs, ys = zip(*([float(n) for n in pair.split(",")] for pair in pairs))
        whiskers = curve.locator("path").evaluate_all("(nodes) => nodes.map((n) => n.getAttribute('d'))")
        for labels, y, whisker in zip(NUMBERS, ys, whiskers):
            found = scores("sentiment", way, labels)
            assert y == pytest.approx(height(statistics.mean(found)), abs=0.5)
            numbers = [float(n) for n in re.findall(r"[-\d.]+", whisker)]
            assert [numbers[1], numbers[5]] == pytest.approx([height(min(found)), height(max(found))], abs=0.5)
        places.append(xs)
    assert all(abs(a - b) > 3 for a, b in zip(*places)), "one start's whiskers hide the other's"


def test_the_line_stands_above_the_sliders_thumb(open_page):
    for width in (375, 1280):
        page = open_page(width)
        slider = first(page).get_by_role("slider")
        for key, at in (("Home", 0), ("End", 1)):
            slider.press(key)
            box, line = slider.bounding_box(), first(page).locator(".ss-chosen").bounding_box()
            thumb = box["x"] + 8 + at * (box["width"] - 16)
            assert abs(line["x"] + line["width"] / 2 - thumb) < 1.5


def test_another_task_has_its_own_curves_and_numbers(open_page):
    page = open_page()
    widget = first(page)
    before = widget.locator("polyline").last.get_attribute("points")
    widget.get_by_role("radio", name="Questions").check()
    assert page.evaluate("models[0].get('task')") == "questions"
    assert widget.locator("polyline").last.get_attribute("points") != before
    assert "Questions" in widget.get_by_role("img").get_attribute("aria-label")
    row = widget.get_by_role("row", name="pre-trained, all weights").inner_text()
    own = scores("questions", "full", 256)
    assert f"{statistics.mean(own):.3f}" in row and f"{min(own):.3f}–{max(own):.3f}" in row and "4,096" in row
    assert widget.locator(".ss-baseline, .ss-best").count() == 0


def test_a_box_shows_and_hides_a_start(open_page):
    page = open_page()
    widget = first(page)
    names = ["random start", "pre-trained, all weights", "pre-trained, adapters", "pre-trained, frozen"]
    assert [widget.get_by_role("checkbox", name=name).is_checked() for name in names] == [True, True, False, False]
    assert widget.locator("polyline").count() == 2 and widget.locator("tbody tr").count() == 2
    widget.get_by_role("checkbox", name="frozen").press("Space")
    widget.get_by_role("checkbox", name="all weights").uncheck()
    assert page.evaluate("models[0].get('ways')") == ["random", "frozen"]
    assert widget.locator("polyline").count() == 2
    assert "the frozen pre-trained start has" in widget.locator("[aria-live=polite]").inner_text()
    assert widget.locator("polyline").last.get_attribute("stroke-dasharray") != "none", "not by colour alone"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 1280])
def test_it_fits_the_page_and_can_be_touched(open_page, width, theme):
    page = open_page(width, f"?theme={theme}")
    for box in page.get_by_role("checkbox").all():
        box.check()
    for node in page.locator("input[type=range], .ss-ways label, .ss-options label").all():
        assert node.bounding_box()["height"] >= 44
    slider = first(page).get_by_role("slider")
    for step in range(len(NUMBERS)):
        slider.fill(str(step))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, NUMBERS[step]
        edge, table = (first(page).locator(name).bounding_box() for name in (".ss-plot", ".ss-scores"))
        assert table["width"] <= edge["width"], NUMBERS[step]
        outside = page.evaluate(OUTSIDE)
        assert outside == [], NUMBERS[step]


def test_strange_names_are_shown_as_text(open_page):
    page = open_page(375)
    strange = page.get_by_role("region").nth(1)
    assert strange.get_by_role("radio").count() == 3
    for radio in strange.get_by_role("radio").all():
        radio.check()
        assert strange.locator("polyline").count() == 2
    assert page.evaluate("window.hacked") is None and page.locator(".selfsup img").count() == 0
    assert page.get_by_text("<img src=x onerror").count() >= 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_taking_the_widget_away_stops_it(open_page):
    page = open_page()
    page.evaluate("cleanups.forEach((cleanup) => cleanup())")
    before = first(page).locator("[aria-live=polite]").inner_text()
    page.evaluate("models[0].set('labels', 16)")
    assert first(page).locator("[aria-live=polite]").inner_text() == before
