"""The widget of chapter 4: what a start is worth, from few labels to many."""

from __future__ import annotations

from numbers import Real

import anywidget
import traitlets as t

from .. import recorded
from . import HERE, BadQuestion, front_end

WAYS = ("rival", "random", "full", "adapter", "frozen")  # labels.mjs has the same


class LabelSlider(anywidget.AnyWidget):
    """Learning curves of one task from different starts, and what each has with the chosen number of labels.

    task, labels (one of the numbers in runs) and ways (the starts that are shown, and "rival", who counts) are what the
    reader chooses. runs are given once: {"task", "way", "seed", "labels", "score"} each, those of the record "curves"
    unless others come. baselines: task -> {"label", "score"}, such as chance; best: task -> the best score possible.
    No model is needed, so it is the same with and without a kernel. Raises BadQuestion, a ValueError.
    """

    _esm = front_end("labels.mjs")
    _css = HERE / "widgets.css"

    task = t.Unicode().tag(sync=True)
    labels = t.Int().tag(sync=True)
    ways = t.List(["random", "full"]).tag(sync=True)
    runs = t.List().tag(sync=True)
    baselines = t.Dict().tag(sync=True)
    best = t.Dict().tag(sync=True)

    CHOSEN = ("task", "labels", "ways")

    def __init__(self, runs: list[dict] | None = None, **traits):
        self._ready = False
        runs = checked(recorded.read("curves")["runs"] if runs is None else runs)
        numbers = sorted({run["labels"] for run in runs})
        middle = numbers[len(numbers) // 2]
        super().__init__(runs=runs, **{"task": runs[0]["task"], "labels": middle} | traits)
        self._ready = True

    def set_state(self, sync_data: dict) -> None:
        """Take a choice from the page, or give the old one back where it cannot be shown."""
        chosen = {name: value for name, value in sync_data.items() if name in self.CHOSEN}
        try:
            super().set_state(chosen)
        except t.TraitError:
            self.send_state(list(chosen))

    @t.validate("runs")
    def _check_runs(self, proposal) -> list[dict]:
        if self._ready:
            raise BadQuestion("the runs are given once: make another LabelSlider for others")
        return proposal["value"]

    @t.validate("task", "labels", "ways")
    def _check_choice(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        known = WAYS if name == "ways" else sorted({run[name] for run in self.runs})
        for one in value if name == "ways" else [value]:
            if one not in known:
                raise BadQuestion(f"{name} has {one!r}: choose from {', '.join(map(str, known))}")
        return value

    @t.validate("baselines", "best")
    def _check_lines(self, proposal) -> dict:
        name, lines = proposal["trait"].name, proposal["value"]
        for task, line in lines.items():
            if task not in {run["task"] for run in self.runs}:
                raise BadQuestion(f"{name} has the task {task!r}, of which there are no runs")
            good, form = is_score(line), "a score from 0 to 1"
            if name == "baselines":
                good = isinstance(line, dict) and isinstance(line.get("label"), str) and is_score(line.get("score"))
                form = "a label, and a score from 0 to 1"
            if not good:
                raise BadQuestion(f"{name} has {line!r} for {task}: give {form}")
        if name == "best":
            return {task: float(score) for task, score in lines.items()}
        return {task: line | {"score": float(line["score"])} for task, line in lines.items()}


def is_score(value) -> bool:
    """Whether it is a number from 0 to 1, of any kind: NumPy's, too, which a page can read as floats of Python."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1


def checked(runs: list[dict]) -> list[dict]:
    """The runs, if curves can be drawn of them."""
    if not runs:
        raise BadQuestion("there are no runs: give at least one")
    for run in runs:
        if not isinstance(run, dict) or not run.keys() >= {"task", "way", "seed", "labels", "score"}:
            raise BadQuestion(f"{run!r} is no run: give its task, way, seed, labels and score")
        if not isinstance(run["task"], str) or run["way"] not in WAYS:
            raise BadQuestion(f"{run!r} needs a task's name, and one way of {', '.join(WAYS)}")
        if type(run["labels"]) is not int or run["labels"] < 1 or not is_score(run["score"]):
            raise BadQuestion(f"{run!r} needs a whole number of labels from 1, and a score from 0 to 1")
    if len({(run["task"], run["way"], run["seed"], run["labels"]) for run in runs}) < len(runs):
        raise BadQuestion("a run comes twice: give one score for each task, way, seed and number of labels")
    return [run | {"score": float(run["score"])} for run in runs]
