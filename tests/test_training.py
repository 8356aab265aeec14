"""Training: batches, optimizers, the loop, its log, and that nothing which was saved is ever lost."""

import copy
import dataclasses
import io
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_training import alphabet, small_model
from safetensors.torch import load_file

from selfsup import training
from selfsup.corpora import Corpus, Texts
from selfsup.models import LanguageModel, TransformerConfig
from selfsup.models.hugging_face import BERT
from selfsup.objectives.masking import Masking
from selfsup.objectives.next_token import NextToken
from selfsup.training import (
    CHECKPOINT,
    LOG,
    Batches,
    History,
    Muon,
    Recipe,
    evaluate,
    learning_rate_share,
    make_optimizers,
    orthogonalise,
    snapshot_steps,
    train,
    update,
)

CORPUS = alphabet()
TOKENIZER = CORPUS.tokenizer
PAD, CLS, SEP = TOKENIZER.pad_token_id, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
SHORT = Recipe(steps=12, batch_size=8, log_every=4, evaluate_every=6, checkpoint_every=5)


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are fastest on one thread, and other threads may add them up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(model=None, recipe=SHORT, folder=None, objective=None, **options):
    """A short run; returns the model and the history."""
    model, objective = model or small_model(), objective or Masking(TOKENIZER)
    return model, train(model, objective, CORPUS, recipe, folder, progress=False, **options)


def assert_same_weights(model, other, why):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{why}: {name} differs"


# Recipes


def test_recipe_survives_json():
    recipe = Recipe(
        steps=7, model={"layers": 2, "dropout": 0.1}, objective_options={"rate": 0.4}, evaluation_texts=5
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"steps": 0}, "steps = 0"),
        ({"steps": 1.5}, "steps = 1.5"),
        ({"steps": True}, "steps = True"),
        ({"learning_rate": -1}, "learning_rate = -1"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast'"),
        ({"clip": float("nan")}, "clip = nan"),
        ({"schedule": "zigzag"}, "choose trapezoid or one-cycle"),
        ({"precision": "float8"}, "choose float32 or bfloat16"),
        ({"model": 3}, "model = 3"),
        ({"seed": -1}, "seed = -1"),
        ({"corpus": None}, "corpus = None"),
        ({"evaluation_texts": 0}, "evaluation_texts = 0"),
        ({"warmup": 0.6, "decay": 0.6}, "sum to at most 1"),
        ({"phases": {"1": {}}}, "a share of the steps from 0 to below 1"),
        ({"phases": {"half": {}}}, "a share of the steps from 0 to below 1"),
        ({"phases": {"0.5": 3}}, "the options of the objective"),
        ({"snapshots": 1}, "snapshots is 1: a run of 1000 steps has 2 to 1001"),
        ({"phases": {"0.5": {"weight_decay": -1}}}, "weight_decay = -1, but it takes a number from 0"),
        ({"stepps": 3}, "stepps, none of its fields"),
    ],
)
def test_bad_recipes_are_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        Recipe.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "{", "3", "[1]", '"words"', "null"])
def test_recipes_that_are_no_json_object_are_refused(text):
    with pytest.raises(ValueError, match="the recipe is"):
        Recipe.from_json(text)


# The learning rate


@given(
    st.sampled_from(["trapezoid", "one-cycle"]),
    st.integers(1, 300),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
@settings(deadline=None)
def test_learning_rate_stays_between_nothing_and_all(schedule, steps, warmup, decay):
    recipe = Recipe(schedule=schedule, steps=steps, warmup=warmup, decay=decay)
    shares = [learning_rate_share(step, recipe) for step in range(steps)]
    assert all(0 <= share <= 1 for share in shares), "the learning rate left its range"
    turn = int(np.argmax(shares))
    assert all(a <= b + 1e-12 for a, b in zip(shares[:turn], shares[1:turn], strict=False)), (
        "it fell too early"
    )
    assert all(a >= b - 1e-12 for a, b in zip(shares[turn:], shares[turn + 1 :], strict=False)), (
        "it rose again"
    )


def test_one_cycle_falls_along_half_a_cosine_to_zero():
    recipe = Recipe(schedule="one-cycle", steps=100, warmup=0.6, decay=0.5)  # decay is the trapezoid's
    shares = [learning_rate_share(step, recipe) for step in range(100)]
    assert shares[:60] == pytest.approx([(step + 1) / 60 for step in range(60)])
    assert shares[60:] == pytest.approx([(1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)])


def test_trapezoid_rises_holds_and_falls_to_zero():
    recipe = Recipe(schedule="trapezoid", steps=100, warmup=0.1, decay=0.4)
    shares = [learning_rate_share(step, recipe) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == 1, "the rise should take the first tenth"
    assert all(share == 1 for share in shares[10:60]), "it should hold until the fall begins"
    assert shares[80] == pytest.approx(0.5) and shares[99] == pytest.approx(0.025), "it should fall to zero"


# Batches


def texts_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Texts.from_list([rng.integers(5, 17, length) for length in lengths])


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(0, 99),
    st.booleans(),
)
@settings(deadline=None)
def test_batches_hold_each_text_once_and_whole(lengths, size, seed, shuffled):
    texts = texts_of(lengths)
    batches = Batches(texts, TOKENIZER, size, seed if shuffled else None)
    seen = []
    for step in range(len(batches)):
        ids, attention_mask = batches[step]
        assert ids.shape == attention_mask.shape and ids.shape[1] == attention_mask.sum(1).max()
        assert batches.num_tokens(step) == int(attention_mask.sum()) - 2 * len(ids), "special tokens are not words"
        for row, mask in zip(ids.tolist(), attention_mask.sum(1).tolist(), strict=True):
            assert row[0] == CLS and row[mask - 1] == SEP and set(row[mask:]) <= {PAD}, (
                f"not [CLS] … [SEP]: {row}"
            )
            seen.append(tuple(row[1 : mask - 1]))
    expected = sorted(tuple(texts[i].tolist()) for i in range(len(texts)))
    if shuffled and len(texts) % batches.size:
        assert len(seen) == len(batches) * batches.size and not set(seen) - set(expected)
    else:
        assert sorted(seen) == expected, "an epoch must hold every text once"


def test_batches_can_be_asked_for_in_any_order():
    texts = texts_of(range(1, 60))
    forwards, jumping = (Batches(texts, TOKENIZER, 4, seed=3) for _ in range(2))
    ids = [forwards[step][0] for step in range(40)]
    for step in (33, 2, 17, 39, 0):
        assert torch.equal(jumping[step][0], ids[step]), "a batch depends on those that were asked for before"


def test_every_epoch_and_seed_has_its_own_order():
    texts = texts_of([5] * 64)
    batches, other = Batches(texts, TOKENIZER, 8, seed=0), Batches(texts, TOKENIZER, 8, seed=1)
    assert not torch.equal(batches[0][0], batches[len(batches)][0]), "two epochs began with the same batch"
    assert not torch.equal(batches[0][0], other[0][0]), "two seeds began with the same batch"


def test_texts_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(5, 60, 4000)
    batches = Batches(texts_of(lengths), TOKENIZER, 32, seed=0)
    real = sum(int(batches[step][1].sum()) for step in range(len(batches)))
    places = sum(batches[step][0].numel() for step in range(len(batches)))
    assert real / places > 0.97, f"{1 - real / places:.0%} of the places are padding"
    longest = [batches[step][0].shape[1] for step in range(len(batches))]
    assert longest != sorted(longest), "long texts must not come last in every epoch"


def test_weights_make_the_mean_over_batches_one_over_tokens():
    lengths = np.random.default_rng(0).integers(1, 60, 400)
    batches = Batches(texts_of(lengths), TOKENIZER, 16, seed=0)
    sums, counts, weights = [], [], []
    for step in range(len(batches)):
        ids, mask = batches[step]
        ends = mask.sum(1) - 1  # of each text its tokens and [SEP]; as if each cost its place in the text
        sums.append(float((ends * (ends + 1) / 2).sum()))
        counts.append(float(ends.sum()))
        weights.append(batches.weight(step))
    per_batch = [weight * total / count for weight, total, count in zip(weights, sums, counts)]
    assert np.mean(weights) == pytest.approx(1) and np.mean(per_batch) == pytest.approx(sum(sums) / sum(counts))


def test_who_weighs_every_token_alike_learns_when_a_text_ends():
    """After each token a text ends with chance 0.1. Batches of like length hide that, where each weighs the same."""
    lengths = np.random.default_rng(0).geometric(0.1, 3000).clip(max=60)
    corpus = Corpus("a", TOKENIZER, *(Texts.from_list([[5] * n for n in part]) for part in (lengths, lengths[:50])))
    chances = {}
    for average in ("batch", "token"):
        recipe = Recipe(steps=150, batch_size=32, average=average, learning_rate=0.02, evaluate_every=150, warmup=0.1)
        torch.manual_seed(0)
        shape = dict(layers=1, width=8, heads=1, feed_forward=8, segments=0, dropout=0.0)
        model = LanguageModel(TransformerConfig(len(TOKENIZER), **shape))
        train(model, NextToken(TOKENIZER), corpus, recipe, progress=False)
        with torch.no_grad():
            told = model.eval()(torch.tensor([[CLS, *[5] * 10]]))[0, 1:].softmax(-1)
        chances[average] = float(told[:, SEP].mean())
    assert abs(chances["token"] - 0.1) < 0.02 < 0.05 < chances["batch"] - 0.1, chances


def test_no_texts_no_batches():
    with pytest.raises(ValueError, match="no texts"):
        Batches(texts_of([]), TOKENIZER, 4)


# Optimizers


def test_orthogonalise_brings_singular_values_near_one():
    for shape in [(3, 16, 16), (2, 8, 32), (2, 32, 8)]:
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.tensor(100.0)
        values = torch.linalg.svdvals(orthogonalise(matrices))
        assert values.max() < 1.3 and values.median() > 0.6, f"singular values of {shape}: {values}"
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        cosine = torch.cosine_similarity((u @ v).flatten(1), orthogonalise(matrices).flatten(1))
        assert (cosine > 0.95).all(), "the result is not near the nearest orthogonal matrix"


def test_orthogonalise_takes_a_gradient_of_zero():
    assert not orthogonalise(torch.zeros(1, 4, 4)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_muon_equals_that_of_torch():
    def matrices():
        generator = torch.Generator().manual_seed(0)
        shapes = [(8, 8), (8, 24), (24, 8), (8, 8)]
        return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]

    ours, theirs = matrices(), matrices()
    optimizer = Muon(ours, lr=0.1, momentum=0.9, weight_decay=0.05)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.05, adjust_lr_fn="original")
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=0.02), (
            "Muon moved elsewhere than torch's, which computes in bfloat16"
        )


def test_each_parameter_has_one_optimizer():
    model = small_model()
    optimizers = make_optimizers(model, Recipe())
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters())), (
        "a parameter has no optimizer, or two"
    )
    muon = {p for group in optimizers[1].param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if p in muon}
    assert names == {name for name, p in model.named_parameters() if ".blocks." in name and p.ndim == 2}, (
        "Muon is for the matrices inside the blocks, and for them alone"
    )
    assert len(make_optimizers(model, Recipe(matrix_learning_rate=0))) == 1, "without Muon, AdamW takes all"


def test_frozen_matrices_stay_as_they_are():
    model = small_model()
    model.encoder.requires_grad_(False)
    before = copy.deepcopy(model)
    run(model, dataclasses.replace(SHORT, weight_decay=0.5))
    assert_same_weights(model.encoder, before.encoder, "a frozen matrix moved")
    assert not torch.equal(model.head.transform.weight, before.head.transform.weight)


def test_large_gradients_are_clipped():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([30.0, 40.0])
    optimizer = torch.optim.SGD([weight], lr=1.0)
    optimizer.param_groups[0] |= {"full_lr": 1.0, "decays": False}
    update([optimizer], [weight], share=0.5, clip=1.0, weight_decay=0.0)
    assert torch.allclose(weight.data, torch.tensor([-0.3, -0.4])), "half a step along a gradient of length one"


@pytest.mark.parametrize("matrix_learning_rate", [0.02, 0])
def test_weight_decay_is_for_linear_layers_alone(matrix_learning_rate):
    model = small_model()
    optimizers = make_optimizers(model, Recipe(weight_decay=0.1, matrix_learning_rate=matrix_learning_rate))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    decayed = {p for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if p in decayed}
    linear = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert names == linear, "norms, biases and embeddings are not to be pulled towards zero"


# Evaluation


def test_evaluation_is_the_mean_loss():
    model, objective = small_model(), Masking(TOKENIZER, rate=0.5)
    model.train()
    score = evaluate(model, objective, CORPUS.held_out, TOKENIZER, batch_size=len(CORPUS.held_out))
    assert model.training, "evaluation must leave the model in training mode"
    split = objective.split(
        *Batches(CORPUS.held_out, TOKENIZER, len(CORPUS.held_out))[0],
        torch.Generator().manual_seed(training._seed(0, 0)),
    )
    losses = objective.losses(model.eval(), split)
    assert score.loss == pytest.approx(losses.mean().item(), abs=1e-5), "dropout was on, or targets were lost"
    assert score.standard_error == pytest.approx(losses.std().item() / len(losses) ** 0.5, rel=0.02)
    right = (objective.logits(model, split).argmax(-1) == split.labels).float().mean()
    assert score.accuracy == pytest.approx(right.item()) and score.targets == len(losses)


def test_evaluation_repeats_its_corruption():
    model, objective = small_model(), Masking(TOKENIZER)
    scores = [evaluate(model, objective, CORPUS.held_out, TOKENIZER, seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1], "the same seed gave another score"
    assert scores[0] != scores[2], "another seed gave the same corruption"


def test_evaluation_without_targets_says_so():
    with pytest.raises(ValueError, match="no target"):
        evaluate(small_model(), Masking(TOKENIZER, rate=0), CORPUS.held_out, TOKENIZER)


# The loop


def test_it_learns():
    corpus, model = alphabet(2000), small_model(width=32, dropout=0.0)
    recipe = Recipe(steps=250, batch_size=32, evaluate_every=125)
    history = train(model, Masking(corpus.tokenizer), corpus, recipe, progress=False)
    _, held_out = history["held_out"]
    assert held_out[-1] < 0.6 < math.log(12), f"the alphabet was not learned: {held_out[-1]:.2f} nats"


def test_same_recipe_same_weights():
    assert_same_weights(run()[0], run()[0], "the same recipe gave other weights")
    a, b = run(recipe=SHORT)[0], run(recipe=dataclasses.replace(SHORT, seed=1))[0]
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True)), (
        "another seed gave the same weights"
    )


def test_global_random_numbers_are_left_alone():
    model = small_model()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(model)
    assert torch.equal(torch.rand(3), expected), "training changed torch's global random numbers"


def test_runs_with_different_rates_are_scored_alike_by_one_judge():
    """The floor belongs to the standard rates, so it is told only where those are the ones that are scored."""
    harder, standard = Masking(TOKENIZER, rate=0.5), Masking(TOKENIZER)
    _, alone = run(objective=harder)
    assert "floor" not in alone.records[-1], "the floor of 15% was set beside a score at 50%"
    model, judged = run(objective=harder, judge=standard)
    assert judged.records[-1]["held_out"] == evaluate(model, standard, CORPUS.held_out, TOKENIZER).loss
    assert judged.records[-1]["floor"] == CORPUS.floors["masking"]


def test_phases_change_the_objective_at_their_steps():
    rates = []

    class Noted(Masking):
        def split(self, ids, attention_mask, generator):
            rates.append(self.rates["rate"])
            return super().split(ids, attention_mask, generator)

    recipe = dataclasses.replace(SHORT, objective_options={"random": 0.0})
    replaced, _ = run(recipe=dataclasses.replace(recipe, phases={"0": {"rate": 0.3}}), judge=Masking(TOKENIZER))
    whole, _ = run(recipe=recipe, objective=Masking(TOKENIZER, rate=0.3, random=0.0), judge=Masking(TOKENIZER))
    assert_same_weights(replaced, whole, "a phase from step 0 on is not the objective that it describes")
    second = dataclasses.replace(recipe, phases={"0.5": {"rate": 0.3}})
    run(recipe=second, objective=Noted(TOKENIZER, rate=0.9), judge=Masking(TOKENIZER))
    assert rates == [0.9] * 6, "the objective given was not trained for exactly the first half"


def test_phases_change_the_weight_decay_of_linear_layers():
    recipe = dataclasses.replace(SHORT, weight_decay=0.2)
    replaced, _ = run(recipe=dataclasses.replace(SHORT, phases={"0": {"weight_decay": 0.2}}))
    whole, plain = run(recipe=recipe)[0], run()[0]
    assert_same_weights(replaced, whole, "a phase from step 0 on has not its own weight decay")
    half, _ = run(recipe=dataclasses.replace(recipe, phases={"0.5": {"weight_decay": 0}}))
    lengths = [model.encoder.blocks[0].feed_forward[0].weight.norm().item() for model in (whole, half, plain)]
    assert lengths == sorted(lengths) and len(set(lengths)) == 3, "a weight decay of half the steps decays half"


@given(st.integers(1, 30_000), st.data())
def test_snapshots_are_taken_ever_farther_apart(steps, data):
    count = data.draw(st.integers(2, min(steps + 1, 60)))
    found = snapshot_steps(Recipe(steps=steps, snapshots=count))
    assert len(found) == count and found[0] == 0 and found[-1] == steps
    apart = np.diff(found)
    assert (apart > 0).all() and (np.diff(apart[1:]) >= -1).all(), "but for rounding"


def test_snapshots_hold_the_weights_of_their_steps(tmp_path):
    recipe = dataclasses.replace(SHORT, snapshots=4)
    begun = small_model()
    first = {BERT.name(name): tensor.half() for name, tensor in begun.state_dict().items()}
    model, _ = run(begun, recipe, tmp_path / "whole")
    files = sorted((tmp_path / "whole" / "snapshots").iterdir())
    assert [int(file.stem) for file in files] == snapshot_steps(recipe) == [0, 1, 3, 12]
    last = {BERT.name(name): tensor.half() for name, tensor in model.state_dict().items()}
    for file, expected in ((files[0], first), (files[-1], last)):
        found = load_file(file)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    run(folder=tmp_path / "other")
    assert not (tmp_path / "other" / "snapshots").exists(), "none was asked for"


def test_snapshots_of_a_run_that_was_given_up_are_not_those_of_the_next(tmp_path):
    with pytest.raises(Stop):
        run(recipe=dataclasses.replace(SHORT, snapshots=7), folder=tmp_path, callbacks=[stop_after(4)])
    run(recipe=dataclasses.replace(SHORT, snapshots=2), folder=tmp_path, resume=True)
    assert sorted(file.name for file in (tmp_path / "snapshots").iterdir()) == [
        "000000.safetensors", "000012.safetensors",
    ]  # fmt: skip


def test_log_and_history(tmp_path):
    heard = []
    model, history = run(folder=tmp_path, callbacks=[lambda model, record: heard.append(record)])
    assert [record["step"] for record in history.records] == [4, 6, 8, 12]
    assert [record["step"] for record in history.records if "held_out" in record] == [6, 12]
    assert heard == history.records == History.read(tmp_path / LOG).records
    steps, losses = history["loss"]
    assert steps.tolist() == [4, 6, 8, 12] and all(np.isfinite(losses))
    score = evaluate(model, Masking(TOKENIZER), CORPUS.held_out, TOKENIZER)
    assert history.records[-1]["held_out"] == score.loss and history.records[-1]["floor"] == 0.0
    batches = Batches(CORPUS.train, TOKENIZER, 8, seed=0)
    assert history.records[-1]["tokens"] == sum(batches.num_tokens(step) for step in range(12))
    assert Recipe.from_json((tmp_path / "recipe.json").read_text()) == SHORT


@pytest.mark.parametrize("average", ["batch", "token"])
def test_logged_loss_is_the_mean_since_the_last_record(average):
    """Of batches, or of tokens: a batch with more of them weighs more in the log, as it does in training."""
    every = run(recipe=dataclasses.replace(SHORT, average=average, log_every=1))[1]
    some = run(recipe=dataclasses.replace(SHORT, average=average, log_every=6))[1]
    batches = Batches(CORPUS.train, TOKENIZER, SHORT.batch_size, SHORT.seed)
    tokens = [int(batches[step][1].sum()) - SHORT.batch_size for step in range(SHORT.steps)]  # [CLS] is not asked
    for i, record in enumerate(some.records):
        losses, weights = [record["loss"] for record in every.records[6 * i : 6 * i + 6]], tokens[6 * i : 6 * i + 6]
        by_batch, by_token = np.mean(losses), np.average(losses, weights=weights)
        assert abs(by_batch - by_token) > 1e-3, "the batches are too alike to tell"
        assert record["loss"] == pytest.approx(by_token if average == "token" else by_batch, rel=1e-5)


def test_bfloat16_learns_nearly_the_same():
    exact, rough = run()[1], run(recipe=dataclasses.replace(SHORT, precision="bfloat16"))[1]
    assert rough.records[-1]["loss"] == pytest.approx(exact.records[-1]["loss"], abs=0.05)
    assert rough.records[-1]["loss"] != exact.records[-1]["loss"], "autocast was not on"


def test_batches_without_a_target_are_harmless():
    model, _ = run(recipe=dataclasses.replace(SHORT, batch_size=1, steps=6, evaluate_every=6))
    assert all(torch.isfinite(p).all() for p in model.parameters()), (
        "a batch without targets gave not-a-number"
    )


def test_diverging_run_says_so():
    with pytest.raises(ValueError, match="smaller learning rates"):
        run(recipe=dataclasses.replace(SHORT, learning_rate=1e30, warmup=0.0))


# Interruptions


class Stop(Exception):
    pass


def stop_after(step):
    def callback(model, record):
        if record["step"] >= step:
            raise Stop

    return callback


def without_time(path):
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_resumed_run_is_bit_identical(tmp_path):
    recipe = dataclasses.replace(SHORT, log_every=2, checkpoint_every=3)
    whole, _ = run(recipe=recipe, folder=tmp_path / "whole")
    with pytest.raises(Stop):
        run(recipe=recipe, folder=tmp_path / "parts", callbacks=[stop_after(8)])
    resumed, history = run(small_model(seed=9), recipe, tmp_path / "parts", resume=True)
    assert_same_weights(whole, resumed, "a resumed run ended elsewhere")
    logs = [without_time(tmp_path / name / LOG) for name in ("whole", "parts")]
    assert logs[0] == logs[1], "the log of a resumed run differs"
    seconds = [record["seconds"] for record in history.records]
    assert seconds == sorted(seconds), "the clock of a resumed run went back"


def test_torn_last_line_of_the_log_is_mended(tmp_path):
    with pytest.raises(Stop):
        run(folder=tmp_path, callbacks=[stop_after(8)])
    with open(tmp_path / LOG, "a") as file:
        file.write('{"step": 9, "lo')
    run(folder=tmp_path, resume=True)
    assert [record["step"] for record in without_time(tmp_path / LOG)] == [4, 6, 8, 12]


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path):
    _, history = run(folder=tmp_path, resume=True)
    assert history.records[-1]["step"] == SHORT.steps


def test_checkpoint_of_another_recipe_is_refused(tmp_path):
    run(folder=tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        run(recipe=dataclasses.replace(SHORT, steps=20), folder=tmp_path, resume=True)


def test_a_checkpoint_from_before_a_field_was_known_goes_on(tmp_path):
    """Neither the recipe's `average` nor the weight of the batches since the last record was known once."""
    whole, _ = run(folder=tmp_path / "whole")
    with pytest.raises(Stop):
        run(folder=tmp_path / "parts", callbacks=[stop_after(8)])
    path = tmp_path / "parts" / CHECKPOINT
    state = torch.load(path, weights_only=True)
    older = json.loads(state["recipe"])
    assert older.pop("average") == SHORT.average
    state |= {"recipe": json.dumps(older), "recorded": state["step"] - int(state.pop("weight"))}
    torch.save(state, path)
    resumed, _ = run(small_model(seed=9), folder=tmp_path / "parts", resume=True)
    assert_same_weights(whole, resumed, "a missing field was not taken for its default")
    assert without_time(tmp_path / "whole" / LOG) == without_time(tmp_path / "parts" / LOG)


@pytest.mark.parametrize("line", ["7", "null", "[1]", '{"a": 1}'])
def test_a_line_of_the_log_that_is_no_record_ends_it(tmp_path, line):
    (tmp_path / LOG).write_text('{"step": 1, "loss": 2.0}\n' + line + "\n")
    assert History.read(tmp_path / LOG).records == [{"step": 1, "loss": 2.0}]


def flipped(data):
    """One byte of the weights is another one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        begins = data.index(archive.read(largest))
    return data[: begins + 40] + bytes([data[begins + 40] ^ 1]) + data[begins + 41 :]


def a_tensor(_):
    buffer = io.BytesIO()
    torch.save(torch.zeros(3), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 99, flipped, a_tensor]
)
def test_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    run(folder=tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="cannot go on from the checkpoint") as caught:
        run(folder=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_checkpoint_holds_no_code(tmp_path):
    import pickle

    run(folder=tmp_path)
    path = tmp_path / CHECKPOINT
    state = torch.load(path, weights_only=True)

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save(state | {"loss": Harm()}, path)
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        run(folder=tmp_path, resume=True)
    assert not (tmp_path / "harm").exists(), "reading a checkpoint ran its code"


@pytest.mark.parametrize("average", ["batch", "token"])
def test_a_resumed_run_keeps_its_checkpoint_before_the_first_record(tmp_path, average):
    """Killed twice between two lines of the log, it still goes on, and reports the loss of an unbroken run."""
    recipe = dataclasses.replace(SHORT, average=average, log_every=12, evaluate_every=12, checkpoint_every=2)
    for steps in (5, 3):
        with pytest.raises(Stop):
            run(recipe=recipe, folder=tmp_path, resume=True, objective=StopsAfter(steps))
        assert (tmp_path / CHECKPOINT).exists(), "a resumed run threw away the checkpoint that it went on from"
    model, history = run(recipe=recipe, folder=tmp_path, resume=True)
    whole, expected = run(recipe=recipe)
    assert_same_weights(model, whole, "the twice killed run is not the unbroken one")
    assert history.records[-1]["loss"] == expected.records[-1]["loss"]


class StopsAfter(Masking):
    """Masking that is interrupted after so many batches."""

    def __init__(self, batches):
        super().__init__(TOKENIZER)
        self.left = batches

    def split(self, *batch):
        if not self.left:
            raise Stop
        self.left -= 1
        return super().split(*batch)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    run(folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="already holds a run"):
        run(folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        run(folder=tmp_path, callbacks=[stop_after(6)])
    earlier = (tmp_path / CHECKPOINT).read_bytes()
    fsync = os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_size > 10_000:  # the checkpoint, not the log
            raise OSError(28, "No space left on device")
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(folder=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == earlier, "the earlier checkpoint was damaged"
    assert not list(tmp_path.glob(".*")), "a half-written file was left behind"
    monkeypatch.undo()
    assert_same_weights(
        run(folder=tmp_path, resume=True)[0], run()[0], "the run did not recover from a full disk"
    )


HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def test_killed_at_any_moment_it_resumes_bit_identically(tmp_path):
    finish(start(HERE / "run_training.py", tmp_path / "whole"))
    killed, log = 0, tmp_path / "killed" / LOG
    while True:
        process = start(HERE / "run_training.py", tmp_path / "killed")
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        while killed < 2 and process.poll() is None:
            time.sleep(0.005)
            if log.exists() and len(log.read_text().splitlines()) > lines + 5:
                time.sleep(random.random() * 0.2)
                process.kill()
                killed += 1
                break
        process.wait()
        if process.returncode != -signal.SIGKILL:
            finish(process)
            break
    assert killed, "the run ended before it could be killed"
    whole, resumed = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "killed")
    )
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), f"after {killed} kills, {name} differs"
    assert without_time(tmp_path / "whole" / LOG) == without_time(log), (
        "the log has torn, lost or doubled lines"
    )
    assert sorted(path.name for path in log.parent.iterdir()) == [CHECKPOINT, LOG, "recipe.json"]


@pytest.mark.parametrize("precision, average, log_every", [("no", "token", 3), ("bf16", "batch", 1)])
def test_several_processes_train_as_one(tmp_path, precision, average, log_every):
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --dynamo_backend no"
    )
    options = ["--main_process_port", port, "--mixed_precision", precision]
    script = [HERE / "run_training.py", tmp_path / "two", "dropout=0.0", "steps=20"]
    script += [f'average="{average}"', f"log_every={log_every}"]
    finish(start(*launch.split(), *options, *script))
    recipe = Recipe(steps=20, batch_size=8, log_every=log_every, average=average, evaluate_every=10, checkpoint_every=1)
    recipe = dataclasses.replace(recipe, precision="bfloat16" if precision == "bf16" else "float32")
    model, history = run(small_model(dropout=0.0), recipe)
    two = History.read(tmp_path / "two" / LOG)
    tolerance = 1e-4 if precision == "no" else 0.02
    for ours, theirs in zip(history.records, two.records, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=tolerance), (
            f"at step {ours['step']} the loss is not that of the whole batch"
        )
    together = torch.load(tmp_path / "two" / CHECKPOINT, weights_only=True)
    assert json.loads(together["recipe"])["precision"] == recipe.precision
    if precision == "no":
        for name, tensor in model.state_dict().items():
            assert torch.allclose(tensor, together["model"][name], atol=1e-3), (
                f"{name} differs after 20 steps"
            )


# The progress line in a notebook


def test_notebook_keeps_one_line_and_no_bar(tmp_path):
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from run_training import *
corpus = alphabet()
history = train(small_model(), Masking(corpus.tokenizer), corpus, Recipe(steps=5, batch_size=4))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for output in notebook.cells[0].outputs if output.output_type != "stream"]
    shown = "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    assert shown.startswith("5 of 5 steps") and "from the floor" in shown and "words/s" in shown
    assert not any("|" in line for line in [shown]) and len(outputs) == 1, (
        "a progress bar was left on the page"
    )
