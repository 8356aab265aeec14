"""Recorded runs: what the chapters read was made by the command that it names, with the recipe that is current."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
import torch

from selfsup import recorded
from selfsup.adapters import START
from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS, classes_of
from selfsup.finetuning import with_head
from selfsup.models.pretrained import load, load_snapshot
from selfsup.recorded import __main__ as runs
from selfsup.recorded import embryology, fine_tuning, next_words, real_text, restoring
from selfsup.training import Recipe

NAMES = sorted(runs.RECORDS)
CONDITION = (
    *("phases", "rate", "name", "whole_word", "labels", "start", "learning_rate", "question"),
    *("kind", "task", "way", "frequencies", "step"),
    *("model", "layers", "width", "steps", "damage"),
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
        if "seed" not in run:  # no model
            continue
        kept = {k: v for k, v in run.items() if k in CONDITION}
        long = name == "scaling" and run["width"] * run["steps"] > next_words.REPEATED
        long |= name == "damages" and run["steps"] == restoring.LONGER["times"] * restoring.RESTORING.steps
        conditions.setdefault((json.dumps(kept), long), set()).add(run["seed"])
    for (_, long), seeds in conditions.items():
        assert seeds == ({0} if long else ONE_SEED.get(name, set(runs.SEEDS)))


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


@pytest.mark.parametrize("task", ["tags", "questions"])
@pytest.mark.parametrize("way", fine_tuning.WAYS)
def test_what_learns_and_from_where(way, task):
    pretrained, _ = load(START)
    torch.manual_seed(1)
    model, after = fine_tuning.start(way, task, 3), torch.rand(1)
    torch.manual_seed(1)
    assert after == torch.rand(1), "the seed of a model is no one else's"
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    parts = {"full": "", "random": "", "frozen": "head.", "adapter": ("head.", "down", "up")}[way]
    expected = {name for name, _ in model.named_parameters()
                if name.startswith(parts) or way == "adapter" and name.rpartition(".")[2] in parts}
    assert learns == expected and {"head.weight", "head.bias"} <= learns
    names = {name.replace(".layer.", "."): p for name, p in model.encoder.named_parameters()}
    for name, weight in pretrained.encoder.named_parameters():
        if way != "random":
            assert torch.equal(names[name], weight), f"{name} is not as it was pre-trained"
        elif weight.ndim > 1:
            few = 5 / names[name].numel() ** 0.5  # standard errors
            assert names[name].std().item() == pytest.approx(0.02, rel=few), f"{name} is not as small as BERT's"


def test_new_weights_are_of_the_seed():
    config, classes = load(START)[0].config, classes_of("tags", tinyworld.load("world"))
    torch.manual_seed(3)
    expected = with_head(fine_tuning.random_encoder(config), "tags", classes).state_dict()
    drawn, other = (fine_tuning.start("random", "tags", seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(drawn[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(drawn["head.weight"], other["head.weight"])
    assert fine_tuning.random_encoder(replace(config, dropout=0.5)).config.dropout == 0.0


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="no way 'lora' to learn: choose one of random, full, adapter, frozen"):
        fine_tuning.start("lora", "tags", 0)


def test_curves_have_the_rate_of_their_way():
    for run in recorded.read("curves")["runs"]:
        if run["way"] != "rival":
            assert run["learning_rate"] == fine_tuning.rate(run["way"], run["labels"]), run


@pytest.mark.parametrize("record, learned_from, judged_by", [
    ("tuning", {fine_tuning.TUNING_SEED}, {fine_tuning.VALIDATION_SEED}),
    ("curves", {0, 1, 2}, {fine_tuning.TEST_SEED}),
])  # fmt: skip
def test_rates_are_chosen_by_texts_that_no_curve_is_judged_by(record, learned_from, judged_by, monkeypatch):
    """Which texts are drawn for learning and which for judging, without a network."""
    some, drawn, learning = {task: make(tinyworld.load("world"), 4, 1) for task, make in TASKS.items()}, [], []

    def examples(task, n, seed):
        drawn.append((n, seed))
        return some[task]

    monkeypatch.setattr(fine_tuning, "task_examples", examples)
    monkeypatch.setattr(fine_tuning, "start", lambda *_: None)
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda *_, **how: learning.append((how["seed"], len(drawn))))
    monkeypatch.setattr(fine_tuning, "score", lambda *_: 0.0)
    monkeypatch.setattr(fine_tuning, "side_by_side", lambda work, kinds, _: map(work, kinds))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of this process
    made = list(runs.RECORDS[record][0](None))
    assert {(run["task"], run["way"]) for run in made} >= {*product(TASKS, fine_tuning.WAYS)}
    assert {seed for n, seed in drawn if n in fine_tuning.LABELS} == {run["seed"] for run in made} == learned_from
    assert {seed for n, seed in drawn if n not in fine_tuning.LABELS} == judged_by
    assert all(drawn[at - 1][1] == seed for seed, at in learning), "a model learns from the texts of its seed"
    assert not learned_from & judged_by


def test_a_curve_can_be_made_again(monkeypatch):
    """One of its points, within what another processor may round otherwise."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of this process
    kept = next(run for run in recorded.read("curves")["runs"] if (run["task"], run["way"]) == ("tags", "frozen"))
    kind = [kept[name] for name in ("task", "way", "seed", "labels", "learning_rate")]
    assert abs(fine_tuning.one_score(tuple(kind))["score"] - kept["score"]) < 0.03


@pytest.fixture
def few(monkeypatch):
    """A handful of questions, one core, and a model that is trained for a moment."""
    monkeypatch.setattr(embryology, "side_by_side", lambda work, kinds, together=1: map(work, kinds))
    monkeypatch.setattr(embryology, "PROBE_STEPS", 2)
    monkeypatch.setattr(embryology, "LEARNED", 60)
    monkeypatch.setattr(embryology, "ASKED", 40)
    monkeypatch.setattr(embryology, "CLOZE", dict.fromkeys(embryology.CLOZE, 40))
    monkeypatch.setattr(embryology, "learn", lambda *_: None)
    monkeypatch.setattr(embryology, "judge", lambda *_, **how: 0.5)
    for cached in (embryology.questions, embryology.cloze):
        cached.cache_clear()
    yield replace(embryology.SPELLED, steps=4, snapshots=3, corpus_options={"n": 300}, evaluate_every=4)
    for cached in (embryology.questions, embryology.cloze):
        cached.cache_clear()


def shapes(runs):
    """What kinds of runs a record has, with the fields of each."""
    return {(run["kind"], run.get("question"), *run) for run in runs}


def test_the_embryology_can_be_made_again_and_takes_up_what_is_there(few, tmp_path):
    made = list(embryology.embryology(few, (0, 1), tmp_path))
    assert shapes(made) == shapes(recorded.read("embryology")["runs"])
    assert [run["step"] for run in made if run["kind"] == "snapshot"] == [0, 1, 4] * 2
    weights = (tmp_path / "1" / "snapshots" / "000004.safetensors").read_bytes()
    again = list(embryology.embryology(few, (0, 1), tmp_path))
    assert again == made and (tmp_path / "1" / "snapshots" / "000004.safetensors").read_bytes() == weights
    (first, second) = (run for run in made if run["kind"] == "snapshot" and run["step"] == 4)
    assert first["cloze"] != second["cloze"], "seeds differ"


def test_a_run_of_another_recipe_is_not_taken(few, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "recipe.json").write_text(replace(few, steps=5).to_json(), encoding="utf-8")
    with pytest.raises(ValueError, match="holds a run of another recipe: choose another folder"):
        list(embryology.embryology(few, (0,), tmp_path))


def test_a_specialist_of_a_snapshot_learns_with_the_rate_that_other_texts_choose(monkeypatch):
    tried, judged = [], iter([0.5, 0.1, 0.7, 0.2])
    monkeypatch.setattr(embryology, "learn", lambda model, task, labels, seed, rate: tried.append((task, labels, rate)))
    monkeypatch.setattr(embryology, "judge", lambda *_, **how: next(judged))
    run = embryology.one_specialist((embryology.EMBRYO, 1, 375, "tags", 16))
    assert tried == [("tags", 16, rate) for rate in embryology.RATES]
    assert run["score"] == 0.2 and run["chosen_rate"] == embryology.RATES[1]


def test_the_shipped_snapshots_are_those_of_the_record():
    last = {run["seed"]: run["cloze"] for run in recorded.read("embryology")["runs"] if run.get("step") == 12_000
            and run["kind"] == "snapshot"}
    told = embryology.answers(load_snapshot(embryology.EMBRYO, 12_000), embryology.cloze("minimal pairs"))
    for group, means in embryology.by_group(embryology.cloze("minimal pairs"), *told).items():
        assert means == pytest.approx(last[0]["minimal pairs"][group], abs=0.01)
    assert last[0] != last[1] != last[2] != last[0], "seeds differ"


def test_the_frequencies_can_be_made_again(few):
    made = list(embryology.frequencies(few, (0,)))
    kept = recorded.read("frequencies")["runs"]
    assert shapes(made) == shapes(kept)
    spellings = {run["frequencies"]: run["median"] for run in made if run["kind"] == "spellings"}
    assert spellings["natural"]["DET"] > 10 * spellings["natural"]["NOUN"]
    assert spellings["exchanged"]["DET"] < spellings["exchanged"]["NOUN"] / 5, "now determiners are rare"
    assert 0.2 < spellings["equal"]["DET"] / spellings["equal"]["NOUN"] < 5
