"""Every notebook from its set-up cell on, in an environment like Colab's: make test-colab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import adopt
import nbformat
import pytest
from conftest import ROOT
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

PYTHON = ROOT / ".venv-colab" / "bin" / "python"
INSTALLED_BY_SETUP = ("selfsup", "anywidget", "psygnal")

pytestmark = pytest.mark.colab


def pip(*arguments: str) -> str:
    done = subprocess.run([PYTHON, "-m", "pip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def versions() -> dict[str, str]:
    return {one["name"]: one["version"] for one in json.loads(pip("list", "--format", "json"))}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What Colab would fetch: the files of the repository, without what was built here."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


@pytest.mark.parametrize("path", adopt.notebooks(ROOT), ids=lambda path: path.stem)
def test_runs_on_colab(path, source, tmp_path, monkeypatch):
    assert PYTHON.is_file(), "there is no environment like Colab's: `make test-colab` makes it"
    pip("uninstall", "--yes", "--quiet", *INSTALLED_BY_SETUP)
    before = versions()
    assert "selfsup" not in before

    monkeypatch.setenv("SELFSUP_SOURCE", str(source))
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}")
    manager = KernelManager()
    manager.kernel_spec.argv = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(notebook.cells[0].source, id="set-up-again"))
    client = NotebookClient(notebook, km=manager, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    after = versions()
    assert {name: after.get(name) for name in before} == before, "the set-up changed what Colab came with"
    assert set(after) - set(before) <= set(INSTALLED_BY_SETUP), "the set-up installed more than Colab lacks"
    assert after["ipywidgets"].startswith("7.")
