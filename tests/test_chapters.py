"""The chapters' form: every section that a chapter must have, in order, for every reader."""

from __future__ import annotations

import re

import adopt
import nbformat
import pytest
from conftest import ROOT

CHAPTERS = adopt.notebooks(ROOT)
SECTIONS = ["Play first", "The split", "The code", "The experiment", "What the papers found", "Checked at every build",
            "What people get wrong", "Self-check", "Exercises", "Go further", "References"]


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture
def prose(chapter):
    return "\n\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")


def test_has_every_section_in_order(prose):
    headings = re.findall(r"^## (.+)$", prose, re.M)
    found = [next((i for i, h in enumerate(headings) if h.startswith(s)), None) for s in SECTIONS]
    missing = [s for s, i in zip(SECTIONS, found, strict=True) if i is None]
    assert not missing, f"the chapter has no section {missing}"
    assert found == sorted(found), f"the sections stand in another order: {headings}"


def test_says_what_it_asks_of_the_reader(prose):
    beginning = prose.split("## Play first")[0]
    for words in ("**The question.**", "you can", "to read", "to run", "You need"):
        assert words in beginning, f"the beginning does not say {words!r}"


def test_every_figure_has_a_text_for_those_who_cannot_see_it(chapter):
    code = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "code")
    assert code.count("figures.picture(") == code.count("alt=") > 0
    assert "plt." not in code, "a figure of pyplot has no alternative text: use figures.canvas and figures.picture"


def test_checks_are_there_and_collapsed(chapter):
    (checks,) = [cell for cell in chapter.cells if cell.id == "checked"]
    assert "hide-cell" in checks.metadata.tags
    assert checks.source.count("assert ") >= 8


def test_self_check_answers_back_without_scripts(prose):
    part = prose.split("## Self-check")[1].split("## Exercises")[0]
    questions = re.findall(r'<ul class="self-check">(.*?)</ul>', part, re.S)
    assert 3 <= len(questions) <= 5
    for question in questions:
        answers = re.findall(r"<details.*?<summary.*?</summary><p><em>(.*?)</em> (.+?)</p></details>", question)
        assert len(answers) >= 3 and all(why for _, why in answers), "each answer must say why"
        assert sum(verdict.startswith("✓") for verdict, _ in answers) == 1, "exactly one answer is right"
    assert "<script" not in prose and "onclick" not in prose


def test_exercises_have_hints_that_open_one_at_a_time(prose):
    part = prose.split("## Exercises")[1].split("## Go further")[0]
    exercises = re.split(r"^\*\*\d+\. ", part, flags=re.M)[1:]
    assert 4 <= len(exercises) <= 6
    for exercise in exercises:
        assert exercise.count("<details>") >= 2, "give at least two hints"
        end = re.search(r"(</details>)+\s*$", exercise)[0].count("</details>")
        assert exercise.count("</details>") == end, "each hint must lie inside the one before it"


def test_page_shows_no_solution(chapter, prose):
    for cell in chapter.cells:
        assert "SOLUTION" not in cell.source and "BEGIN TEST" not in cell.source


@pytest.mark.parametrize("word", ["simply", "obviously", "trivial", "powerful", "revolution"])
def test_no_hype(prose, word):
    assert not re.search(rf"\b{word}", prose, re.I), f"the prose says {word!r}"


def test_chapter_5_shows_every_step_from_step_0_on(monkeypatch):
    """The cells that draw scores over time, with made-up scores for the live ones: each point lies inside its axes."""
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / "notebooks" / "05_embryology.ipynb", 4).cells}
    shown = []
    monkeypatch.setattr("selfsup.figures.picture", lambda figure, alt: shown.append(figure))
    live = {step: {"no noun": 0.7} for step in (0, 11, 33)}
    space = {"BETWEEN": {"no noun": "none"}, "live": live, "usual": live[0]}
    for name in ("data", "live-figure", "words-figure", "frequency-data", "probes-figure", "tuned-figure"):
        exec(cells[name], space)
    assert len(shown) == 5
    for figure in shown:
        figure.canvas.draw()
        for axes in figure.axes:
            curves = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) > 2]  # a level has two points
            assert curves and all(min(steps) == 0 for steps in curves), "step 0 is not among the points"
            left, right = axes.get_xlim()
            assert left < 0 and all(max(steps) < right for steps in curves), "the axis leaves steps out"
