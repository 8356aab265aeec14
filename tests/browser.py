"""Find a Chromium for the browser tests, or install one: python tests/browser.py prints its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
ADVICE = (
    "no Chromium for the browser tests: install Debian's (apt-get install chromium), or Playwright's "
    f"({sys.executable} -m playwright install chromium), or name one in the environment variable CHROMIUM"
)


def find_chromium() -> str | None:
    """The path of a Chromium: the one that CHROMIUM names, one on the PATH, or Playwright's own."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or playwright_chromium()


def playwright_chromium() -> str | None:
    """The path of the Chromium that Playwright installed for this user."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def install_chromium() -> None:
    """Install one: Debian's package as root, else Playwright's own, which needs no rights."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]):
            if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                break
        else:
            return
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip


def main() -> int:
    path = find_chromium()
    if path is None:
        print("Looking for a Chromium to install.", file=sys.stderr)
        install_chromium()
        path = find_chromium()
    print(path or ADVICE, file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    raise SystemExit(main())
