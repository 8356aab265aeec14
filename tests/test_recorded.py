"""Recorded runs: what the chapters read was made by the command that it names, with the recipe that is current."""

from __future__ import annotations

import json

import pytest
import torch

from selfsup import recorded
from selfsup.recorded import __main__ as runs
from selfsup.recorded import fine_tuning, real_text
from selfsup.training import Recipe

NAMES = sorted(runs.RECORDS)
CONDITION = (
    *("phases", "rate", "name", "whole_word", "labels", "start", "learning_rate", "question"),
    *("kind", "task", "way"),
)
ONE_SEED = {  # choices, and weights that are shipped
    "tuning": {fine_tuning.TUNING_SEED},
    "adapters": {0},
    "real-rates": {real_text.TUNING_SEED},
}


def test_unknown_record_lists_what_there_is():
    with pytest.raises(ValueError, match="choose one of"):
        recorded.read("nothing")


@pytest.mark.parametrize("name", NAMES)
def test_record_says_how_it_was_made(name):
    record, (_, recipe) = recorded.read(name), runs.RECORDS[name]
    assert record["command"] == f"python -m selfsup.recorded {name}"
    if recipe:
        assert Recipe(**record["recipe"]) == recipe, "the recipe has changed: make the record again"
    else:
        digest = runs.weights_digest(runs.MODELS.get(name, "tinyworld-bert"))
        assert record["weights"] == digest, "the model has changed: make the record again"


@pytest.mark.parametrize("name", NAMES)
def test_record_has_three_seeds_of_each(name):
    conditions: dict[str, set[int]] = {}
    for run in recorded.read(name)["runs"]:
        kept = {k: v for k, v in run.items() if k in CONDITION}
        conditions.setdefault(json.dumps(kept), set()).add(run["seed"])
    assert all(seeds == ONE_SEED.get(name, set(runs.SEEDS)) for seeds in conditions.values())


def test_a_record_can_be_made_again(tmp_path):
    """In two steps a run: the form, not the figures."""
    assert runs.main(["village", "--steps", "2", "--output", str(tmp_path / "made.json")]) == 0
    made, kept = json.loads((tmp_path / "made.json").read_text()), recorded.read("village")
    assert [set(run) for run in made["runs"]] == [set(run) for run in kept["runs"]]


@pytest.mark.parametrize("arguments, why", [
    (["nothing"], "invalid choice"),
    (["rates", "--steps", "0"], "steps = 0"),
    (["curves", "--steps", "2"], "curves has none: leave it out"),
    (["adapters", "--output", "elsewhere.json"], "writes over the shipped adapters"),
])  # fmt: skip
def test_bad_arguments_are_refused_in_one_line(capsys, arguments, why, monkeypatch):
    records = {name: (lambda _: 1 / 0, recipe) for name, (_, recipe) in runs.RECORDS.items()}
    monkeypatch.setattr(runs, "RECORDS", records)  # nothing is made
    with pytest.raises(SystemExit) as stop:
        runs.main(arguments)
    assert stop.value.code == 2 and why in capsys.readouterr().err


def test_renamed_texts_keep_their_form():
    """Another alphabet is a permutation of the words that leaves the special tokens alone."""
    ids = torch.arange(30).reshape(2, 15)
    other = fine_tuning.renamed(ids, [0, 3, 7], 30)
    assert sorted(other.flatten().tolist()) == list(range(30))
    assert other.flatten()[[0, 3, 7]].tolist() == [0, 3, 7] and not torch.equal(other, ids)


def test_a_random_direction_is_as_long_as_each_matrix_row_by_row_and_leaves_vectors():
    matrix, vector = fine_tuning.along(weights := [torch.randn(4, 6), torch.randn(5)], 0)
    assert torch.allclose(weights[0].norm(dim=-1), matrix.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(weights[0], matrix) and not vector.any()
    assert fine_tuning.length(weights) == pytest.approx(torch.cat([w.flatten() for w in weights]).norm().item())


def test_a_curve_can_be_made_again(monkeypatch):
    """One of its points, within what another processor may round otherwise."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of this process
    kept = next(run for run in recorded.read("curves")["runs"] if (run["task"], run["way"]) == ("tags", "frozen"))
    kind = [kept[name] for name in ("task", "way", "seed", "labels", "learning_rate")]
    assert abs(fine_tuning.one_score(tuple(kind))["score"] - kept["score"]) < 0.03
