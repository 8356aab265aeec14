"""Adapters: they begin as no change, they alone learn, and they come back from their file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from selfsup import adapters
from selfsup.adapters import LowRank, add_adapters, save_adapter
from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS, classes_of
from selfsup.finetuning import as_batch, fine_tune, with_head
from selfsup.models import pretrained
from selfsup.models.encoder import Encoder
from selfsup.models.shapes import TransformerConfig


@pytest.fixture(scope="module")
def village():
    return tinyworld.load("village")


@pytest.mark.parametrize("task", TASKS)
def test_adapters_begin_as_no_change_and_alone_learn(task, village):
    classes = classes_of(task, village)
    examples = TASKS[task](village, 24, 3)
    (texts, labels) = as_batch(examples, village.tokenizer, classes)
    torch.manual_seed(0)
    encoder = Encoder(TransformerConfig(200, layers=2, width=16, heads=2, feed_forward=32, dropout=0.0))
    model = with_head(encoder, task, classes)
    before = model(*texts)
    add_adapters(model.encoder, rank=2)
    assert torch.equal(model(*texts), before), "an adapter begins as no change at all"
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    learning = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in learning} == {"down", "up", "weight", "bias"}
    assert all(name.startswith("head.") for name in learning if name.endswith(("weight", "bias")))
    assert sum(name.endswith(".up") for name in learning) == 2 * 6  # two blocks of six linear layers
    fine_tune(model, texts, labels, steps=3, batch_size=8)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in frozen.items()), "a frozen weight has changed"
    assert all(not torch.equal(after[name], p) for name, p in learning.items()), "an adapter or the head did not learn"


def test_an_adapter_is_the_merged_matrix():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 3), torch.randn(4, 5)
    adapter = LowRank(layer, 2)
    torch.nn.init.normal_(adapter.up)
    merged = layer.weight + adapter.up @ adapter.down
    assert torch.allclose(adapter(x), x @ merged.T + layer.bias, atol=1e-5)


def encoder():
    torch.manual_seed(0)
    return Encoder(TransformerConfig(50, layers=1, width=16, heads=2, feed_forward=32))


@pytest.mark.parametrize("rank", [0, -1, 2.5, "8"])
def test_an_adapter_needs_a_rank(rank):
    untouched = encoder()
    with pytest.raises(ValueError, match="rank is .* at least 1"):
        add_adapters(untouched, rank)
    assert all(p.requires_grad for p in untouched.parameters()), "what is refused is left as it was"


def test_adapters_go_once_into_an_encoder():
    model = with_head(encoder(), "tags", ["a", "b"])
    with pytest.raises(ValueError, match="a Tagger came.*give the model's .encoder"):
        add_adapters(model)
    assert all(p.requires_grad for p in model.parameters())
    add_adapters(model.encoder)
    with pytest.raises(ValueError, match="adapters already"):
        add_adapters(model.encoder)


def test_an_adapter_is_where_its_layer_is_and_begins_alike_everywhere():
    adapters = []
    for kind in ({}, {"dtype": torch.bfloat16}, {"device": "meta"}):
        layer = torch.nn.Linear(5, 3).to(**kind)
        torch.manual_seed(0)
        adapters.append(LowRank(layer, 2))
        for matrix in (adapters[-1].up, adapters[-1].down):
            assert (matrix.dtype, matrix.device) == (layer.weight.dtype, layer.weight.device) and matrix.is_leaf
    assert torch.equal(adapters[1].down, adapters[0].down.bfloat16())
    torch.manual_seed(0)
    assert torch.equal(adapters[0].down, torch.randn(2, 5) / 5**0.5)


def test_what_was_not_learned_or_is_not_finite_is_not_saved(tmp_path):
    model = with_head(encoder(), "tags", ["a", "b"])
    with pytest.raises(ValueError, match="nothing in the model requires a gradient"):
        save_adapter(model.requires_grad_(False), tmp_path / "tags.safetensors")
    add_adapters(model.encoder)
    model.head.requires_grad_(True)
    torch.nn.init.constant_(model.head.bias, 1e6)  # finite, but not in float16
    with pytest.raises(ValueError, match="head.bias holds numbers that are not finite in float16"):
        save_adapter(model, tmp_path / "tags.safetensors")
    assert not [*tmp_path.iterdir()]
    torch.nn.init.zeros_(model.head.bias)
    save_adapter(model, str(tmp_path / "tags.safetensors"), rank=np.int64(8))
    with safe_open(tmp_path / "tags.safetensors", "pt") as opened:
        assert opened.metadata() == {"rank": "8"}


@pytest.fixture
def saved(tmp_path, monkeypatch, village):
    """(model, file) of a random adapter for tags, which `specialist` finds."""
    shutil.copytree(pretrained.CHECKPOINTS / "tinyworld-nsp", tmp_path / "tinyworld-nsp")
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(adapters, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="choose one of none"):
        adapters.specialist("tags", "tinyworld-nsp")
    loaded, _ = pretrained.load("tinyworld-nsp")
    classes = classes_of("tags", village)
    model = with_head(loaded.encoder, "tags", classes)
    adapters.add_adapters(model.encoder, 3)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p)
    file = tmp_path / "tinyworld-nsp" / "adapters" / "tags.safetensors"
    save_adapter(model, file, rank=3, classes=classes)
    return model, file


def test_an_adapter_is_written_and_read(saved, village):
    model, file = saved
    again, _, told = adapters.specialist("tags", "tinyworld-nsp")
    assert told == classes_of("tags", village)
    learned = {name: p.half().float() for name, p in model.named_parameters() if p.requires_grad}
    read = dict(again.named_parameters())
    assert all(torch.equal(read[name], p) for name, p in learned.items())
    assert {"head.weight", "head.bias"} == set(learned) & set(load_file(file)), "the head has one name everywhere"
    layer = "bert.encoder.layer.0.intermediate.dense.lora_A.weight"
    assert torch.equal(load_file(file)[layer].float(), read["encoder.blocks.0.feed_forward.0.down"])
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        adapters.specialist("tags", "tinyworld-nsp")


@pytest.mark.parametrize(
    ("about", "tensors", "message"),
    [
        (None, {}, "rank None and classes None: give save_adapter"),
        ({"rank": None}, {}, "rank None"),
        ({"classes": None}, {}, "classes None"),
        ({"rank": "0"}, {}, "rank 0"),
        ({"rank": '"3"'}, {}, "rank '3'"),
        ({"rank": "three", "classes": "[]"}, {}, "damaged or cut short"),
        ({"rank": "4"}, {}, r"with rank 4 \(bert.* is \(3, 64\), not \(4, 64\)\): train it anew"),
        ({"classes": '["NOUN"]'}, {}, r"head.bias is \(13,\), not \(1,\)"),
        ({}, {"head.bias": None}, r"head.bias is missing, not \(13,\)"),
        ({}, {"head.weight": torch.zeros(13, 32)}, r"head.weight is \(13, 32\), not \(13, 64\)"),
        ({}, {"bert.encoder.layer.9.output.dense.lora_A.weight": torch.zeros(3, 256)}, "9.* not expected"),
        ({}, {"head.bias": torch.full((13,), torch.nan)}, "head.bias that are not finite"),
        ({"task": '"sentiment"'}, {}, "is an adapter for 'sentiment', not for 'tags'"),
        ({"classes": json.dumps(["NOUN"] * 13)}, {}, "each needs a name of its own"),
        ({"classes": json.dumps([*range(13)])}, {}, "each needs a name of its own"),
    ],
)
def test_a_file_that_is_no_adapter_of_the_model_is_refused(saved, village, about, tensors, message):
    _, file = saved
    said = {"rank": "3", "classes": json.dumps(classes_of("tags", village))} | (about or {})
    said, kept = ({key: value for key, value in those.items() if value is not None} for those in
                  (said, load_file(file) | tensors))
    save_file(kept, file, None if about is None else said)
    with pytest.raises(ValueError, match=message) as refused:
        adapters.specialist("tags", "tinyworld-nsp")
    assert str(file) in str(refused.value)
