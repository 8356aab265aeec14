"""Building the book: what is executed again and when, the assets, and where the course lives online."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import adopt
import course
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbformat.v4 import writes as write_notebook

IGNORE = shutil.ignore_patterns("node_modules", "__pycache__", "checkpoints")


@pytest.fixture
def tree(root, tmp_path):
    """A copy of the repository with a book of one small notebook."""
    for folder in ("book", "src"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=IGNORE)
    (tmp_path / "book" / "node_modules").symlink_to(root / "book" / "node_modules")
    shutil.copy(root / "_config.yml", tmp_path)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n", encoding="utf8")
    cells = [
        new_markdown_cell("# A page", id="title"),
        new_code_cell("from selfsup.probe_of_the_build import answer\n\nprint(answer())", id="ask"),
    ]
    (tmp_path / "page.ipynb").write_text(write_notebook(new_notebook(cells=cells)), encoding="utf8")
    return tmp_path


def build(tree) -> subprocess.CompletedProcess:
    command = [sys.executable, str(tree / "book" / "build.py"), str(tree)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_change_in_the_package_reaches_the_page(tree):
    function = tree / "src" / "selfsup" / "probe_of_the_build.py"
    function.write_text('def answer():\n    return "the answer is first"\n', encoding="utf8")
    done = build(tree)
    assert done.returncode == 0, done.stderr
    page = tree / "_build" / "html" / "index.html"
    assert "the answer is first" in page.read_text(encoding="utf8")

    written = page.stat().st_mtime_ns
    assert build(tree).returncode == 0
    assert page.stat().st_mtime_ns == written, "an unchanged book was built again"

    function.write_text('def answer():\n    return "the answer is second"\n', encoding="utf8")
    assert build(tree).returncode == 0
    assert "the answer is second" in page.read_text(encoding="utf8"), "the page shows what the old package did"


def test_a_failing_cell_fails_the_build_each_time(tree):
    function = tree / "src" / "selfsup" / "probe_of_the_build.py"
    function.write_text('def answer():\n    raise RuntimeError("on purpose")\n', encoding="utf8")
    for _ in range(2):
        done = build(tree)
        assert done.returncode != 0
        assert "on purpose" in done.stderr


def test_the_key_knows_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    weights = tmp_path / "checkpoints" / "model.safetensors"
    weights.write_bytes(b"one")
    before = course.environment_key(tmp_path)
    weights.write_bytes(b"two")
    assert course.environment_key(tmp_path) != before


def test_modules_find_each_other_under_their_hashed_names(tmp_path):
    widgets = tmp_path / "package" / "widgets"
    widgets.mkdir(parents=True)
    (widgets / "engine.mjs").write_text("export const one = 1;\n", encoding="utf8")
    (widgets / "a_worker.mjs").write_text('import { one } from "./engine.mjs";\n', encoding="utf8")
    manifest = course.write_assets(tmp_path / "package", tmp_path / "assets")
    worker = (tmp_path / "assets" / manifest["a_worker.mjs"]).read_text(encoding="utf8")
    assert f'"./{manifest["engine.mjs"]}"' in worker
    assert json.loads((tmp_path / "assets" / "manifest.json").read_text(encoding="utf8")) == manifest


def view(model_id: str) -> str:
    return f'<script type="application/vnd.jupyter.widget-view+json">{json.dumps({"model_id": model_id})}</script>'


def test_only_widgets_that_live_without_a_kernel_get_a_place():
    states = {
        "live": {"state": {"_esm": "export default {}", "_anywidget_id": "selfsup.widgets.MaskPlayground"}},
        "slider": {"state": {"_model_name": "IntSliderModel"}},
        "box": {"state": {"children": ["IPY_MODEL_slider", "IPY_MODEL_live"]}},
    }
    assert 'data-widget="MaskPlayground"' in course.place_widgets(view("live"), states)
    assert 'data-model-id="box"' in course.place_widgets(view("box"), states)
    assert course.place_widgets(view("slider"), states) == ""


def test_colab_button_before_and_after_adoption():
    assert "make adopt" in course.colab_button({"url": ""}, "notebooks/02_masking")
    button = course.colab_button({"url": "https://github.com/you/fork", "branch": "main"}, "notebooks/02_masking")
    assert "https://colab.research.google.com/github/you/fork/blob/main/notebooks/02_masking.ipynb" in button


@pytest.fixture
def copy(root, tmp_path):
    """The files that carry the address."""
    (tmp_path / "notebooks").mkdir()
    for path in [root / "_config.yml", root / "README.md", root / "pyproject.toml", *adopt.notebooks(root)]:
        shutil.copy(path, tmp_path / path.relative_to(root))
    return tmp_path


def test_every_file_says_the_same_address(root):
    assert not adopt.disagreements(root), "run `make adopt` again: these files and _config.yml disagree"


def test_adoption_reaches_every_file_and_can_be_repeated(copy):
    url = "https://github.com/some-one/a.fork"
    assert adopt.main([url + ".git"], copy) == 0
    assert adopt.read_url(copy) == url and not adopt.disagreements(copy)
    carriers = ["_config.yml", "README.md", "pyproject.toml", *(f"notebooks/{p.name}" for p in adopt.notebooks(copy))]
    for name in carriers:
        assert url.removeprefix("https://github.com/") in (copy / name).read_text(encoding="utf8"), name
    before = {name: (copy / name).read_text(encoding="utf8") for name in carriers}
    assert adopt.main([url], copy) == 0
    assert before == {name: (copy / name).read_text(encoding="utf8") for name in carriers}
    assert adopt.main(["https://github.com/other/place"], copy) == 0
    assert not any("some-one" in (copy / name).read_text(encoding="utf8") for name in carriers)


def test_a_file_that_disagrees_is_named(copy, capsys):
    path = adopt.notebooks(copy)[0]
    path.write_text(adopt.with_setup_cell(path.read_text(encoding="utf8"), "https://github.com/a/b"), encoding="utf8")
    assert adopt.main(["--check"], copy) == 1
    assert path.name in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["", "fork", "http://github.com/a/b", "https://github.com/a", "https://github.com/a/b/c",
                                   'https://github.com/a/b"'])  # fmt: skip
def test_what_is_no_repository_is_refused(copy, wrong, capsys):
    before = (copy / "_config.yml").read_text(encoding="utf8")
    assert adopt.main([wrong], copy) == 2
    assert (copy / "_config.yml").read_text(encoding="utf8") == before
    assert "expected https://github.com/you/fork" in capsys.readouterr().err
