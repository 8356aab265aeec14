"""The notebooks as they are committed, and as the book executed them."""

from __future__ import annotations

import json
import re
import sqlite3

import adopt
import nbformat
import pytest
from conftest import ROOT

CHAPTERS = adopt.notebooks(ROOT)
SETS = adopt.exercises(ROOT)


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_there_are_chapters():
    """The landing page numbers all chapters, links those that are there, and says which are to come."""
    rows = re.findall(r"^\| (\d) \| (.+?) \|", (ROOT / "book" / "index.md").read_text(encoding="utf-8"), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert all(("](../notebooks/" in title) != ("*to come*" in title) for _, title in rows)
    linked = [(number, re.search(r"notebooks/(\w+)\.ipynb", title)[1]) for number, title in rows if "](" in title]
    assert [(path.stem[:2].lstrip("0"), path.stem) for path in CHAPTERS] == linked


def test_is_valid(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cells have no ids before format 4.5"


def test_is_committed_without_outputs(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, f"cell {cell.id} has outputs: clear them"
    assert "widgets" not in notebook.metadata


def test_ids_are_unique(path):
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf8"))["cells"]]
    assert all(ids) and len(set(ids)) == len(ids)


def test_begins_with_the_set_up_cell(notebook):
    first = notebook.cells[0]
    assert first.source == adopt.SETUP.format(url=adopt.read_url(ROOT)), "run `make adopt` to give it its set-up cell"
    assert "remove-cell" in first.metadata.tags
    assert sum('find_spec("selfsup")' in cell.source for cell in notebook.cells) == 1


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_has_the_set_up_cell_after_its_settings(notebook):
    settings, setup = notebook.cells[:2]
    assert settings.cell_type == "raw"
    assert setup.source == adopt.SETUP.format(url=adopt.read_url(ROOT)), "run `make adopt` to give it its set-up cell"
    assert sum('find_spec("selfsup")' in cell.source for cell in notebook.cells) == 1


def test_has_one_title(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    outside_code = "".join(text.split("```")[::2])
    assert sum(line.startswith("# ") for line in outside_code.splitlines()) == 1


def test_the_book_executed_it(path, built):
    """Every code cell of the chapter ran without an error when the book was built, and the book is of this chapter."""
    source = built / "_sources" / "notebooks" / path.name
    assert source.read_text(encoding="utf8") == path.read_text(encoding="utf8"), "the site is older: run `make html`"
    caches = sorted((built.parent / ".jupyter_cache").glob("*/global.db"), key=lambda p: p.stat().st_mtime)
    with sqlite3.connect(caches[-1]) as database:
        (folder,) = [
            key
            for uri, key in database.execute("select uri, hashkey from nbcache order by pk")
            if uri.endswith(f"/{path.name}")
        ][-1:]
    (executed,) = (caches[-1].parent / "executed" / folder).glob("*.ipynb")
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip()), "a cell was not executed"
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
