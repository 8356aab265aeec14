"""Recorded runs: what takes longer than a page may. `python -m selfsup.recorded NAME` makes each again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# The recipe of the model that a chapter trains before the reader's eyes: fields of `selfsup.training.Recipe`.
# Little but a name needs that name, so attention turns away from names, and most runs never find out that they come
# again. The phase from 20% to 32% of the steps asks mostly for words that the text says twice, and brings it back.
VILLAGE: dict[str, Any] = {
    "objective_options": {"rate": 0.4},
    "phases": {"0.2": {"rate": 0.05, "repeated": 0.5}, "0.32": {}},
    "corpus": "village",
    "model": {"shape": "village-bert", "dropout": 0.0, "init_std": 0.1},
    "steps": 1100,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "matrix_learning_rate": 0.03,
    "weight_decay": 0.3,
    "decay": 0.6,
    "log_every": 50,
    "evaluate_every": 100,
    "evaluation_texts": 400,
}

# The recipe of chapter 3's models: pairs of sentences of the world, and one question about each pair or none.
PAIRS: dict[str, Any] = {
    "objective_options": {"rate": 0.3},
    "corpus_options": {"n": 400_000, "pairs": "place"},
    "model": {"shape": "village-bert", "dropout": 0.0, "init_std": 0.08},
    "steps": 2000,
    "batch_size": 256,
    "learning_rate": 3e-3,
    "matrix_learning_rate": 0.02,
    "weight_decay": 0.3,
    "warmup": 0.02,
    "decay": 0.5,
    "evaluate_every": 500,
    "evaluation_texts": 2000,
}


def read(name: str) -> dict[str, Any]:
    """The record called `name`: the command that makes it, the recipe, and one entry in `runs` for each run.

    Raises ValueError when there is no such record.
    """
    path = HERE / f"{name}.json"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in HERE.glob("*.json"))) or "none, as nothing is recorded yet"
        raise ValueError(f"there is no record {name!r}: choose one of {names}")
    return json.loads(path.read_text(encoding="utf-8"))
