"""What tests share: the repository, the built site on a server, and one real browser."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "tests")]

from browser import ADVICE, FLAGS, find_chromium  # noqa: E402


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium for all tests: without one they fail, and say how to get it."""
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        pytest.fail(ADVICE)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built site: _build/html, or the one that the environment variable SITE names."""
    folder = Path(os.environ.get("SITE", ROOT / "_build" / "html"))
    if not (folder / "index.html").is_file():
        pytest.fail(f"there is no site in {folder}: build it with `make html`")
    return folder


@pytest.fixture(scope="session")
def site(built, tmp_path_factory) -> str:
    """The address of the site, served from a sub-folder as GitHub Pages does."""
    from serve import server

    served = tmp_path_factory.mktemp("served")
    shutil.copytree(built, served / "fork")
    with server(served) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/fork/"
        running.shutdown()
