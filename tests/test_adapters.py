"""Adapters: they begin as no change, they alone learn, and they come back from their file."""

from __future__ import annotations

import shutil

import pytest
import torch

from selfsup import adapters
from selfsup.adapters import LowRank, add_adapters
from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS, classes_of
from selfsup.finetuning import as_batch, fine_tune, with_head
from selfsup.models import pretrained
from selfsup.models.encoder import Encoder, EncoderConfig


@pytest.fixture(scope="module")
def village():
    return tinyworld.load("village")


@pytest.mark.parametrize("task", TASKS)
def test_adapters_begin_as_no_change_and_alone_learn(task, village):
    classes = classes_of(task, village)
    examples = TASKS[task](village, 24, 3)
    (texts, labels) = as_batch(examples, village.tokenizer, classes)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(200, layers=2, width=16, heads=2, feed_forward=32, dropout=0.0))
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


def test_an_adapter_is_written_and_read(tmp_path, monkeypatch, village):
    shutil.copytree(pretrained.CHECKPOINTS / "tinyworld-nsp", tmp_path / "tinyworld-nsp")
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(adapters, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="choose one of none"):
        adapters.specialist("tags", "tinyworld-nsp")
    loaded, tokenizer = pretrained.load("tinyworld-nsp")
    classes = classes_of("tags", village)
    model = with_head(loaded.encoder, "tags", classes)
    adapters.add_adapters(model.encoder, 3)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p)
    file = tmp_path / "tinyworld-nsp" / "adapters" / "tags.safetensors"
    adapters.save_adapter(model, file, rank=3, classes=classes)
    again, _, told = adapters.specialist("tags", "tinyworld-nsp")
    assert told == classes
    learned = {name: p.half().float() for name, p in model.named_parameters() if p.requires_grad}
    read = dict(again.named_parameters())
    assert all(torch.equal(read[name], p) for name, p in learned.items())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        adapters.specialist("tags", "tinyworld-nsp")
