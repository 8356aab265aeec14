"""Fine-tuning that leaves the encoder as it is: a few weights beside each layer learn the task (Hu et al. 2021)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .finetuning import with_head
from .models.encoder import Encoder
from .models.pretrained import CHECKPOINTS, hugging_face_name, load
from .tokenization import write_atomically


class LowRank(nn.Module):
    """A linear layer that stays as it is, plus a product of two thin matrices that learns (Hu et al. 2021, 4.1)."""

    def __init__(self, layer: nn.Linear, rank: int):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))  # so that it begins as no change at all

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs) -> (..., outputs)."""
        return self.layer(x) + x @ self.down.T @ self.up.T


def add_adapters(encoder: Encoder, rank: int = 8) -> None:
    """Freeze the encoder, in place, and put a `LowRank` around every linear layer of its blocks."""
    encoder.requires_grad_(False)
    for block in encoder.blocks:
        for name in ("query", "key", "value", "output"):
            setattr(block.attention, name, LowRank(getattr(block.attention, name), rank))
        for place in (0, 2):
            block.feed_forward[place] = LowRank(block.feed_forward[place], rank)


def save_adapter(model: nn.Module, file: Path, **about: Any) -> None:
    """Write what was learned beside a frozen encoder, adapters and head, as float16; about: said in the file."""
    tensors = {_name(ours): p.detach().half().contiguous() for ours, p in model.named_parameters() if p.requires_grad}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save(tensors, metadata={key: json.dumps(value) for key, value in about.items()}))


def specialist(task: str, name: str = "tinyworld-bert") -> tuple[nn.Module, Any, tuple[str, ...]]:
    """A shipped encoder fine-tuned by adapters for a task, in evaluation mode, its tokenizer, and the classes.

    Raises ValueError when there is none, or its file is damaged, says no rank or classes, or is of another model.
    """
    folder = CHECKPOINTS / name / "adapters"
    file = folder / f"{task}.safetensors"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
        raise ValueError(f"there is no adapter of {name} for {task!r}: choose one of {there}")
    pretrained, tokenizer = load(name)
    try:
        with safe_open(file, "pt") as opened:
            about = {key: json.loads(value) for key, value in (opened.metadata() or {}).items()}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is damaged or cut short ({error}): get it again") from None
    rank, classes = about.get("rank"), about.get("classes")
    if type(rank) is not int or rank < 1 or not isinstance(classes, list):
        raise ValueError(f"{file} has rank {rank!r} and classes {classes!r}: give save_adapter a number and a list")
    model = with_head(pretrained.encoder, task, classes)
    add_adapters(model.encoder, rank)
    learned = {_name(ours): p for ours, p in model.named_parameters() if p.requires_grad}
    found, expected = ({key: tuple(t.shape) for key, t in those.items()} for those in (tensors, learned))
    if wrong := sorted(key for key in found | expected if found.get(key) != expected.get(key)):
        shapes = f"{wrong[0]} is {found.get(wrong[0], 'missing')}, not {expected.get(wrong[0], 'expected')}"
        raise ValueError(f"{file} is no adapter of {name} for {task!r} with rank {rank} ({shapes}): train it anew")
    with torch.no_grad():
        for key, parameter in learned.items():
            parameter.copy_(tensors[key])
    return model.eval(), tokenizer, tuple(classes)


def _name(ours: str) -> str:
    """The name of a tensor in an adapter's file: a Hugging Face BERT's, with lora_A and lora_B as `peft` has them."""
    name = ours if ours.startswith("head.") else hugging_face_name(ours)
    return name.replace(".down", ".lora_A.weight").replace(".up", ".lora_B.weight")
