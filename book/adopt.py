"""Say once where this copy of the course lives online: python adopt.py https://github.com/you/fork

The address goes into _config.yml, every notebook's set-up cell, the README and pyproject.toml. Without an address the
one in _config.yml is carried again, which also gives a new notebook its set-up cell. `--check` changes nothing and
fails when a file disagrees.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
URL_LINE = re.compile(r'(^repository:\n\s+url: )"(.*)"$', re.M)
BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.S)
PROJECT_URLS = re.compile(r"\n\[project\.urls\]\n.*?(?=\n\[|\Z)", re.S)

SETUP = '''\
# Set-up: on Colab this installs the course; where the course is installed already, it does nothing.
import importlib.util
import os

if importlib.util.find_spec("selfsup") is None:
    repository = "{url}"  # set by `make adopt`
    source = os.environ.get("SELFSUP_SOURCE") or repository and f"git+{{repository}}"
    assert source, "this copy of the course has no address online yet: see `make adopt` in its README"
    # --no-deps keeps this machine's own torch, numpy, transformers and ipywidgets as they are.
    %pip install --quiet --no-deps "{{source}}" anywidget psygnal'''


def read_url(root: Path) -> str:
    """The address in _config.yml: empty when the course has not been adopted."""
    return URL_LINE.search((root / "_config.yml").read_text(encoding="utf8"))[2]


def notebooks(root: Path) -> list[Path]:
    """Every chapter, in order."""
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def exercises(root: Path) -> list[Path]:
    """Every chapter's assignable set, in order."""
    return sorted((root / "notebooks" / "exercises").glob("[0-9]*.ipynb"))


def with_setup_cell(text: str, url: str) -> str:
    """A notebook's JSON with the set-up cell for `url` before all other code; unchanged when it is there."""
    notebook = json.loads(text)
    source = SETUP.format(url=url)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != "set-up"]
    place = 1 if cells and cells[0]["cell_type"] == "raw" else 0  # an exercise set begins with the grader's settings
    there = notebook["cells"][place] if place < len(notebook["cells"]) else {}
    if there.get("id") == "set-up" and "".join(there["source"]) == source:
        return text
    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": "set-up",
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    notebook["cells"] = [*cells[:place], setup, *cells[place:]]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def badges(url: str, chapters: list[Path]) -> str:
    """The README's links to Colab, one a chapter; before adoption, what is missing."""
    if not url:
        return "Not adopted yet: `make adopt REPO=https://github.com/you/fork` puts Colab links here.\n"
    place = url.removeprefix("https://github.com/")
    lines = [
        f"- Chapter {int(path.stem[:2])}: [open in Colab]"
        f"(https://colab.research.google.com/github/{place}/blob/main/notebooks/{path.name})"
        for path in chapters
    ]
    return "\n".join(lines) + "\n"


def adopted(root: Path, url: str) -> dict[Path, str]:
    """What every file that carries the address should say."""
    config, readme, project = (root / name for name in ("_config.yml", "README.md", "pyproject.toml"))
    cells = [*notebooks(root), *exercises(root)]
    texts = {path: path.read_text(encoding="utf8") for path in (config, readme, project, *cells)}
    texts[config] = URL_LINE.sub(lambda m: f'{m[1]}"{url}"', texts[config])
    texts[readme] = BADGES.sub(lambda m: m[1] + badges(url, notebooks(root)) + m[2], texts[readme])
    table = f'\n[project.urls]\nRepository = "{url}"\n' if url else ""
    bare = PROJECT_URLS.sub("", texts[project])
    texts[project] = bare.replace("\n[project.scripts]", f"{table}\n[project.scripts]")
    for path in cells:
        texts[path] = with_setup_cell(texts[path], url)
    return texts


def disagreements(root: Path) -> list[str]:
    """The files that do not carry the address of _config.yml."""
    wanted = adopted(root, read_url(root))
    return [str(path.relative_to(root)) for path, text in wanted.items() if path.read_text(encoding="utf8") != text]


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments == ["--check"]:
        wrong = disagreements(root)
        if wrong:
            print(f"not in agreement with _config.yml: {', '.join(wrong)}; run make adopt again", file=sys.stderr)
        return bool(wrong)
    url = arguments[0].removesuffix("/").removesuffix(".git") if arguments else read_url(root)
    if arguments and not ADDRESS.fullmatch(url):
        print(f"{arguments[0]!r} is no GitHub repository: expected https://github.com/you/fork", file=sys.stderr)
        return 2
    for path, text in adopted(root, url).items():
        if path.read_text(encoding="utf8") != text:
            path.write_text(text, encoding="utf8")
            print(path.relative_to(root))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
