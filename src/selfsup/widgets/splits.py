"""The widget of chapter 1: one text, and the ways to take it apart."""

from __future__ import annotations

import anywidget
import traitlets as t

from . import HERE, front_end

TEXT = (  # one of Tinyworld's
    "Suddenly a little bark came from the shed. Behind the shed lay Coco with a stolen sausage. "
    "Anna hugged Coco and laughed."
)


class SplitPlayground(anywidget.AnyWidget):
    """A text taken apart into x′, what a model sees, and x″, what it must say, in the way the reader chooses.

    text, objective (one of OBJECTIVES) and seed are asked; the page answers in seen (list of str), hidden
    (list of str) and targets (int, the answers that this text gives). No model is needed, so it is the same with
    and without a kernel.
    """

    OBJECTIVES = ("label", "masking", "next", "order", "rotation", "span")

    _esm = front_end("splits.mjs")
    _css = HERE / "widgets.css"

    text = t.Unicode(TEXT).tag(sync=True)
    objective = t.Enum(OBJECTIVES, default_value="masking").tag(sync=True)
    seed = t.Int(1, min=0).tag(sync=True)
    seen = t.List(t.Unicode()).tag(sync=True)
    hidden = t.List(t.Unicode()).tag(sync=True)
    targets = t.Int(0).tag(sync=True)
