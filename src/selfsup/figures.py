"""The course's figures: one style, five colours with fixed meanings, readable on light and dark pages.

A figure becomes SVG inside the page: its ink takes the colour of the page's text, and its words stay text.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, one meaning each. Never colour alone: hidden is dashed, truth hatched, outside dotted.
SEEN = "#0072B2"  # x′, what the model sees
HIDDEN = "#D55E00"  # x″, what is hidden from it
MODEL = "#CC79A7"  # what the model predicts
TRUTH = "#009E73"  # the exact truth
OUTSIDE = "#8A8F96"  # papers, baselines, people
INK = "#010203"  # stands for the colour of the page's text until the figure is placed

STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "selfsup",
    **{name: INK for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")},
}


def canvas(width: float = 5.6, height: float = 3.0, **subplots: Any) -> tuple[Figure, Any]:
    """A new figure and its axes, in the course's style, which holds from now on for all that is drawn.

    width, height: inches; subplots: options of `Figure.subplots`. Nothing shows the figure but `picture`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)  # words and legends take their colours from it when they are added
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(**subplots)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A drawing board: a figure whose coordinates are inches, without axes."""
    figure, axes = canvas(width, height)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


@dataclass(frozen=True)
class Picture:
    """A figure as SVG for a page, with the sentence that stands for it where it cannot be seen."""

    svg: str
    alt: str

    def _repr_html_(self) -> str:
        label = html.escape(self.alt, quote=True)
        svg = self.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        wide = re.search(r'\bwidth="([\d.]+pt)"', svg)[1]  # a small screen scrolls rather than shrink it much
        return f'<div class="figure" style="--wide: {wide}">{svg}</div>'

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"


def picture(figure: Figure, alt: str) -> Picture:
    """The figure, ready to be placed on a light or a dark page.

    alt: what the figure shows, in a sentence or two. Raises ValueError when there is none.
    """
    if not alt.strip():
        raise ValueError("a figure came without a text for readers who cannot see it: say in alt what it shows")
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's own fonts have it
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Picture(_for_page(file.getvalue()), alt)


def _for_page(svg: str) -> str:
    """What matplotlib wrote, as a part of a page: no prolog, no identifiers of others, the page's ink and fonts."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\s*xmlns:(?!xlink)\w+="[^"]*"', "", svg)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    mark = hashlib.sha256(svg.encode()).hexdigest()[:6]  # two figures of one page share no identifier

    def name(match: re.Match) -> str:
        return f' id="{mark}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\s+id="([^"]+)"', name, svg)
    svg = re.sub(r'(href="|url\()#([^")]+)', rf"\1#{mark}-\2", svg)
    svg = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor").replace(INK.upper(), "currentColor").strip()


_BOX = {  # fill, its opacity, edge, line style, width of the line
    "plain": ("none", 0.0, OUTSIDE, "solid", 1.0),
    "seen": (SEEN, 0.14, SEEN, "solid", 1.2),
    "covered": (SEEN, 0.14, SEEN, "solid", 2.2),
    "hidden": (HIDDEN, 0.12, HIDDEN, (0, (3, 2)), 1.6),
    "model": (MODEL, 0.20, MODEL, "solid", 1.6),
    "truth": (TRUTH, 0.16, TRUTH, "solid", 1.6),
    "outside": (OUTSIDE, 0.12, OUTSIDE, (0, (1, 1.5)), 1.6),
}
BOX_HEIGHT = 0.30


def box(
    axes: Axes, text: str, x: float, y: float, kind: str = "plain", width: float | None = None, **font: Any
) -> float:
    """Draw `text` in a box whose left edge is at (x, y), in inches, and return its right edge.

    kind: plain, seen, covered, hidden, model, truth or outside. Raises ValueError for another.
    """
    from matplotlib.patches import FancyBboxPatch

    if kind not in _BOX:
        raise ValueError(f"there is no box of kind {kind!r}: choose one of {', '.join(_BOX)}")
    fill, opacity, edge, line, thick = _BOX[kind]
    width = token_width(text) if width is None else width
    shape = FancyBboxPatch((x, y - BOX_HEIGHT / 2), width, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.06")
    shape.set(facecolor=(fill, opacity) if opacity else "none", edgecolor=edge, linestyle=line, linewidth=thick)
    axes.add_patch(shape)
    axes.text(x + width / 2, y - 0.01, text, ha="center", va="center", **{"fontsize": 10, **font})
    return x + width


def token_width(text: str) -> float:
    """Inches that a box with `text` takes; Chinese characters are twice as wide as Latin ones."""
    return 0.16 + 0.082 * sum(2 if ord(character) > 0x2E80 else 1 for character in text)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", color: str = INK) -> None:
    """Draw an arrow from `start` to `end`, in inches, with `text` beside its middle."""
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=style)
    if text:
        level = abs(end[1] - start[1]) < abs(end[0] - start[0])
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x + (0 if level else 0.08), y + (0.07 if level else 0), text, fontsize=10,
                  ha="center" if level else "left", va="bottom" if level else "center")


def draw_split(x: Sequence[str], seen: Sequence[str], hidden: Mapping[int, str], gap: float = 0.08) -> Figure:
    """x → (x′, x″): the text, what the model sees of it, and below the places of x″ what is hidden from it.

    x, seen: tokens of equal number; hidden: the hidden token by its place. Raises ValueError when they differ.
    """
    if len(x) != len(seen):
        raise ValueError(f"x has {len(x)} tokens and x′ has {len(seen)}: give as many of each")
    widths = [max(token_width(a), token_width(b)) for a, b in zip(x, seen)]
    left = 0.5
    figure, axes = blank(max(5.2, left + sum(widths) + gap * len(x)), 2.35)
    for y, label in ((2.1, "x"), (1.3, "x′"), (0.25, "x″")):
        axes.text(0.05, y, label, va="center", fontsize=13, style="italic")
    place = left
    for i, width in enumerate(widths):
        box(axes, x[i], place, 2.1, "hidden" if i in hidden else "plain", width)
        box(axes, seen[i], place, 1.3, "covered" if seen[i] != x[i] else "seen", width)
        if i in hidden:
            middle = place + width / 2
            box(axes, hidden[i], place, 0.25, "hidden", width)
            arrow(axes, (middle, 1.12), (middle, 0.42))
        place += width + gap
    first = min(hidden, default=0)
    middle = left + sum(widths[:first]) + gap * first + widths[first] / 2
    axes.text(middle + 0.1, 0.78, "the model must answer", fontsize=10, va="center")
    arrow(axes, (left + 0.15, 1.92), (left + 0.15, 1.48), "split")
    return figure


def curve(axes: Axes, steps: Sequence[float], losses: Sequence[float], floor: float | None = None,
          label: str = "the model, held-out texts", unit: str = "nats per predicted word") -> None:
    """A learning curve, with the exact floor under it where it is known."""
    axes.plot(steps, losses, color=MODEL, marker="o", markersize=4, label=label)
    if floor is not None:
        axes.axhline(floor, color=TRUTH, linestyle="dashed", label="the exact floor")
    axes.set(xlabel="step", ylabel=unit)
    axes.set_ylim(bottom=0)
    axes.legend()


def bars(axes: Axes, words: Sequence[str], model: Sequence[float], truth: Sequence[float] | None = None,
         real: str | None = None) -> None:
    """Probabilities of words, the model's above the exact ones, the first word on top; ▸ marks the real one."""
    import numpy as np

    place, height = np.arange(len(words)), 0.38 if truth is not None else 0.6
    axes.barh(place - (height / 2 if truth is not None else 0), model, height, color=MODEL, label="model")
    if truth is not None:
        axes.barh(place + height / 2, truth, height, color=TRUTH, hatch="///", edgecolor="white", label="exact truth")
    axes.set_yticks(place, [f"▸ {word}" if word == real else word for word in words])
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table for a notebook: columns of numbers stand at the right, and what has words in it at the left."""
    from IPython.display import Markdown

    words = [any(re.match(r"[^\W\d_]|`", str(cell)) for cell in column) for column in zip(*rows)]
    lines = [header, [":--" if one else "--:" for one in words], *rows]
    return Markdown("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))
