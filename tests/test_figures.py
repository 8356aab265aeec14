"""Figures: placed as text-carrying SVG, in the page's own ink, never without words for those who cannot see them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from selfsup import figures


@pytest.fixture
def drawn():
    figure, axes = figures.canvas()
    figures.curve(axes, [0, 100, 200], [4.0, 2.0, 1.0], floor=0.5)
    return figures.picture(figure, 'a "curve" & a floor')


def test_is_well_formed(drawn):
    ElementTree.fromstring(drawn._repr_html_())


def test_has_a_role_and_a_text(drawn):
    image = ElementTree.fromstring(drawn._repr_html_()).find(".//{*}svg")
    assert image.get("role") == "img" and image.get("aria-label") == 'a "curve" & a floor'


def test_without_a_text_there_is_no_picture():
    figure, _ = figures.canvas()
    with pytest.raises(ValueError, match="alt"):
        figures.picture(figure, " ")


def test_ink_is_the_colour_of_the_page(drawn):
    assert "currentColor" in drawn.svg and figures.INK not in drawn.svg
    assert not re.search(r"fill: ?#(000000|ffffff)|stroke: ?#000000", drawn.svg), "a part is black or white on any page"


def test_words_stay_words(drawn):
    text = " ".join(ElementTree.fromstring(drawn.svg).itertext())
    assert "the exact floor" in text and "nats per predicted word" in text


def test_nothing_points_elsewhere(drawn):
    assert not re.search(r"https?://(?!www\.w3\.org/)", drawn.svg)


def test_two_figures_share_no_identifier(drawn):
    figure, axes = figures.canvas()
    figures.bars(axes, ["ate", "sold"], [0.7, 0.3], [0.6, 0.4], real="ate")
    other = figures.picture(figure, "bars").svg
    one = set(re.findall(r' id="([^"]+)"', drawn.svg))
    assert one and not one & set(re.findall(r' id="([^"]+)"', other))
    for svg in (drawn.svg, other):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(re.findall(r' id="([^"]+)"', svg))


def test_equal_figures_are_equal():
    def draw():
        return figures.picture(figures.draw_split(["a", "b"], ["a", "[MASK]"], {1: "b"}), "a split").svg

    assert draw() == draw()


def test_chinese_needs_no_font_and_no_warning(recwarn):
    figures.picture(figures.draw_split(list("台灣大學"), ["台", "[MASK]", "大", "學"], {1: "灣"}), "a split")
    assert not recwarn.list


def test_split_shows_all_three_rows():
    svg = figures.picture(figures.draw_split(["the", "cat"], ["the", "[MASK]"], {1: "cat"}), "a split").svg
    words = [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]
    assert words.count("cat") == 2 and words.count("[MASK]") == 1 and {"x", "x′", "x″"} <= set(words)


def test_split_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="as many of each"):
        figures.draw_split(["a", "b"], ["a"], {})


def test_unknown_box_is_refused():
    _, axes = figures.blank(2, 1)
    with pytest.raises(ValueError, match="choose one of"):
        figures.box(axes, "word", 0, 0, "purple")


def test_table_is_markdown():
    table = figures.table(["a", "b", "c"], [["x", 1, "`y z`"], ["x", "–", 2]])
    assert table.data.splitlines() == ["| a | b | c |", "| :-- | --: | :-- |", "| x | 1 | `y z` |", "| x | – | 2 |"]
