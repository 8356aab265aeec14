"""Fine-tuning that leaves the encoder as it is: a few weights beside each layer learn the task (Hu et al. 2021)."""

from __future__ import annotations

import json
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .finetuning import with_head
from .models.encoder import Encoder
from .models.hugging_face import BERT
from .models.pretrained import CHECKPOINTS, load
from .tokenization import write_atomically

START = "tinyworld-start"  # the shipped encoder that chapter 4 fine-tunes, with adapters beside it


class LowRank(nn.Module):
    """A linear layer that stays as it is, plus a product of two thin matrices that learns (Hu et al. 2021, 4.1)."""

    def __init__(self, layer: nn.Linear, rank: int):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        down = torch.randn(rank, layer.in_features) / layer.in_features**0.5
        self.down = nn.Parameter(down.to(layer.weight))  # where the layer is, and as it is
        self.up = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))  # it begins as no change at all

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs) -> (..., outputs)."""
        return self.layer(x) + x @ self.down.T @ self.up.T


def add_adapters(encoder: Encoder, rank: int = 8) -> None:
    """Freeze the encoder, in place, and put a `LowRank` around every linear layer of its blocks.

    Raises ValueError for what is no encoder or has adapters already, and for a rank below 1.
    """
    _check(encoder, rank)
    encoder.requires_grad_(False)
    for block in encoder.blocks:
        for name in ("query", "key", "value", "output"):
            setattr(block.attention, name, LowRank(getattr(block.attention, name), rank))
        for place in (0, 2):
            block.feed_forward[place] = LowRank(block.feed_forward[place], rank)


def _check(encoder: Encoder, rank: int) -> None:
    if not isinstance(encoder, Encoder):
        raise ValueError(f"a {type(encoder).__name__} came, but adapters go into an encoder: give the model's .encoder")
    if any(isinstance(part, LowRank) for part in encoder.modules()):
        raise ValueError("the encoder has adapters already: load it anew to give it others")
    if not isinstance(rank, Integral) or rank < 1:
        raise ValueError(f"rank is {rank!r}, but must be a whole number of at least 1: 8 is usual")


def save_adapter(model: nn.Module, file: str | Path, **about: Any) -> None:
    """Write what was learned beside a frozen encoder, adapters and head, as float16; about: said in the file.

    Raises ValueError for a model in which nothing learns, and for numbers that are not finite in float16.
    """
    file = Path(file)
    learned = {_name(ours): p.detach() for ours, p in model.named_parameters() if p.requires_grad}
    if not learned:
        raise ValueError("nothing in the model requires a gradient, so nothing was learned: call add_adapters before")
    tensors = {key: tensor.to("cpu", torch.float16).contiguous() for key, tensor in learned.items()}
    if broken := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{broken[0]} holds numbers that are not finite in float16, so nothing was saved: train anew")
    # A number of numpy's becomes one of Python's.
    metadata = {key: json.dumps(value, default=lambda number: number.item()) for key, value in about.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save(tensors, metadata=metadata))


def specialist(task: str, name: str = START) -> tuple[nn.Module, Any, tuple[str, ...]]:
    """A shipped encoder fine-tuned by adapters for a task, in evaluation mode, its tokenizer, and the classes.

    Raises ValueError when there is none, or its file is damaged, says no rank or classes, or is of another model or
    task.
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
    if about.get("task", task) != task:
        raise ValueError(f"{file} is an adapter for {about['task']!r}, not for {task!r}: give it its own name")
    if not all(isinstance(one, str) for one in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"{file} has classes {classes!r}, but each needs a name of its own: save it anew")
    model = with_head(pretrained.encoder, task, classes)
    add_adapters(model.encoder, rank)
    learned = {_name(ours): p for ours, p in model.named_parameters() if p.requires_grad}
    found, expected = ({key: tuple(t.shape) for key, t in those.items()} for those in (tensors, learned))
    if wrong := sorted(key for key in found | expected if found.get(key) != expected.get(key)):
        shapes = f"{wrong[0]} is {found.get(wrong[0], 'missing')}, not {expected.get(wrong[0], 'expected')}"
        raise ValueError(f"{file} is no adapter of {name} for {task!r} with rank {rank} ({shapes}): train it anew")
    if broken := sorted(key for key, tensor in tensors.items() if not tensor.isfinite().all()):
        raise ValueError(f"{file} holds numbers in {broken[0]} that are not finite: get it again or train it anew")
    with torch.no_grad():
        for key, parameter in learned.items():
            parameter.copy_(tensors[key])
    return model.eval(), tokenizer, tuple(classes)


def _name(ours: str) -> str:
    """The name of a tensor in an adapter's file: a Hugging Face BERT's, with lora_A and lora_B as `peft` has them."""
    name = ours if ours.startswith("head.") else BERT.name(ours)
    return name.replace(".down", ".lora_A.weight").replace(".up", ".lora_B.weight")
