"""Show on a page the code that the page runs."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """Source code and where it stands; in a notebook it is Markdown and takes the colours of the page."""

    path: str
    code: str

    def __repr__(self) -> str:
        return f"# {self.path}\n{self.code.rstrip()}"

    def _repr_markdown_(self) -> str:
        fence = "```" if "```" not in self.code else "````"
        return f"`{self.path}`\n\n{fence}python\n{self.code}{fence}\n"


def show(*objects: Any) -> None:
    """Display the source of functions, classes or modules, as it stands in the package.

    Raises ValueError when one has no Python source.
    """
    try:
        from IPython.display import display
    except ImportError:
        display = print
    for each in objects:
        display(source(each))


def source(of: Any) -> Source:
    """The source of a function, class or module; raises ValueError when it has none."""
    try:
        target = inspect.unwrap(of) if callable(of) else of
        code = textwrap.dedent(inspect.getsource(target)).rstrip() + "\n"
        file = Path(inspect.getsourcefile(target))
    except (TypeError, OSError):
        raise ValueError(f"{of!r} has no source to show: give a Python function, class or module") from None
    if file.is_relative_to(_PACKAGE):
        return Source("src/selfsup/" + file.relative_to(_PACKAGE).as_posix(), code)
    return Source(file.name, code)
