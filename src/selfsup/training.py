"""One training loop for every objective and every model.

All that is random at step s follows from (seed, s) alone. So a run that was killed goes on as if it had not
been, bit for bit, and a run on several processes sees the batches of a run on one, corrupted in the same way.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from .corpora import Corpus, Texts
from .models.pretrained import packed_weights
from .objectives import IGNORE, Objective, load_objective
from .objectives.sentence_pairs import PairSplit
from .tokenization import begins_word, write_atomically


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns; equal recipes give equal weights on equal machines.

    objective, corpus: names, with `…_options` for their loaders. phases: what changes of the objective's options or of
    weight_decay, and from which share of the steps on: {"0": {"rate": 0.1}, "0.5": {}} covers less in the first half.
    model: the encoder's shape, by a name that the course knows or in numbers (layers, width, heads, feed_forward, …).
    batch_size: sequences a step, over all processes. average: "batch", every batch weighs the same, so that a token of
    a short text, which shares its batch with short ones, weighs more than one of a long text; or "token", every token
    weighs the same where all are asked, which a model needs that is to say where a text ends. learning_rate: of
    embeddings, head, norms and biases (AdamW). matrix_learning_rate: of the matrices inside the blocks (Muon); 0 gives
    them to AdamW too. schedule: "trapezoid" (rise over `warmup`, hold, fall to 0 over `decay`) or "one-cycle" (rise
    over `warmup`, then fall to 0 along a cosine); both are shares of `steps`. clip: the largest norm of the gradient.
    precision: "float32" or "bfloat16" (autocast). evaluation_texts: how many held-out texts are scored each time (None:
    all). The intervals `*_every` count steps. snapshots: how many times the weights are kept (None: only the last
    ones), before the first step, after the last, and between them evenly on a log scale. Raises ValueError for values
    that make no sense.
    """

    objective: str = "masking"
    objective_options: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    corpus: str = "tinyworld"
    corpus_options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=lambda: {"shape": "tinyworld-bert", "dropout": 0.0})
    steps: int = 1000
    batch_size: int = 32
    average: str = "batch"
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 0.02
    schedule: str = "trapezoid"
    warmup: float = 0.05
    decay: float = 0.5
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: str = "float32"
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 500
    evaluation_texts: int | None = None
    checkpoint_every: int = 1000
    snapshots: int | None = None

    def __post_init__(self) -> None:
        for name, annotation in type(self).__annotations__.items():
            value, kind = getattr(self, name), annotation.split("[")[0].split(" ")[0]
            fits = {
                "str": isinstance(value, str),
                "dict": isinstance(value, dict),
                "float": type(value) in (int, float) and 0 <= value < math.inf,
                "int": type(value) is int and value >= (0 if name == "seed" else 1),
            }[kind]
            if not fits and not (value is None and annotation.endswith("None")):
                raise ValueError(f"the recipe says {name} = {value!r}, but it takes {_KINDS[kind]}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"the recipe says {name} = {getattr(self, name)!r}: choose {' or '.join(choices)}"
                )
        for share, options in self.phases.items():
            if not re.fullmatch(r"0|0?\.\d+", share) or not isinstance(options, dict):
                raise ValueError(
                    f"the recipe's phases say {share!r}: {options!r}, but a phase is a share of the steps from 0 to "
                    'below 1 and the options of the objective that change then, such as "0.5": {"rate": 0.4}'
                )
            if not (type(decay := options.get("weight_decay", 0)) in (int, float) and 0 <= decay < math.inf):
                raise ValueError(f"the recipe's phases say weight_decay = {decay!r}, but it takes {_KINDS['float']}")
        if self.snapshots is not None and not 2 <= self.snapshots <= self.steps + 1:
            raise ValueError(f"snapshots is {self.snapshots}: a run of {self.steps} steps has 2 to {self.steps + 1}")
        if self.schedule == "trapezoid" and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup is {self.warmup} and decay {self.decay}, but these shares of a run sum to at most 1"
            )

    def to_json(self) -> str:
        """The recipe as JSON, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote; fields that are missing take their defaults."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the recipe is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"the recipe is a JSON {type(fields).__name__}, not an object with fields")
        known = cls.__annotations__
        if strange := sorted(set(fields) - set(known)):
            raise ValueError(f"the recipe has {', '.join(strange)}, none of its fields: {', '.join(known)}")
        return cls(**fields)


_KINDS = {"str": "text", "dict": "a JSON object", "float": "a number from 0", "int": "a whole number from 1"}
_CHOICES = {"schedule": ("trapezoid", "one-cycle"), "precision": ("float32", "bfloat16"), "average": ("batch", "token")}


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """The share of the full learning rate at `step`, between 0 and 1."""
    done = step / recipe.steps
    rise = (step + 1) / max(1.0, recipe.warmup * recipe.steps)
    if recipe.schedule == "trapezoid":
        return min(1.0, rise, (1 - done) / max(recipe.decay, 1 / recipe.steps))
    turn = max(0.0, done - recipe.warmup) / max(1 - recipe.warmup, 1 / recipe.steps)
    return min(1.0, rise) * (1 + math.cos(math.pi * turn)) / 2


def snapshot_steps(recipe: Recipe) -> list[int]:
    """After which steps the weights are kept: 0, the last one, and in between evenly on a log scale, each once."""
    if recipe.snapshots is None:
        return []
    steps = [0, 1]
    for left in range(recipe.snapshots - 2, 0, -1):
        last = steps[-1]
        even = round(last * (recipe.steps / last) ** (1 / left))
        steps.append(min(max(even, last + 1), recipe.steps - left + 1))
    return steps if recipe.snapshots > 2 else [0, recipe.steps]


class Batches:
    """Texts as a model reads them: [CLS] text [SEP], padded with [PAD] to the longest of the batch.

    `batches[step]` is (ids, attention_mask), both (size, time) long. With a seed, each epoch is a new shuffle
    in which texts of like length share a batch, and any step can be asked for. Without, each text comes once,
    the shortest first. Everything lives on `device` and is gathered there.
    """

    POOL = 50  # batches that are sorted by length together: little padding, and still a random mixture

    def __init__(self, texts: Texts, tokenizer: Any, size: int, seed: int | None = None, device: Any = "cpu"):
        if not len(texts):
            raise ValueError("there are no texts to make batches of")
        self.size, self.seed, self.epoch, self.device = min(size, len(texts)), seed, None, device
        self.special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self.lengths = np.diff(texts.offsets)
        self.tokens = torch.as_tensor(np.append(texts.tokens, texts.tokens.dtype.type(0)), device=self.device)
        self.starts = torch.as_tensor(texts.offsets[:-1], device=self.device)
        self.ends = torch.as_tensor(texts.offsets[1:], device=self.device)

    def __len__(self) -> int:
        """The number of batches in an epoch; with a seed, the texts left over are left out of this epoch."""
        return len(self.lengths) // self.size if self.seed is not None else -(-len(self.lengths) // self.size)

    def _start(self, epoch: int) -> None:
        order = np.argsort(self.lengths, kind="stable")
        if self.seed is not None:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(len(self.lengths))[: len(self) * self.size]
            pool = np.arange(len(order)) // (self.POOL * self.size)
            order = order[np.lexsort((self.lengths[order], pool))].reshape(len(self), self.size)
            order = random.permutation(order).ravel()
        self.epoch, self.order = epoch, torch.as_tensor(order, device=self.device)
        per_batch = np.split(self.lengths[order], np.arange(self.size, len(order), self.size))
        self.longest = [int(lengths.max()) for lengths in per_batch]
        self.sizes = [int(lengths.sum()) for lengths in per_batch]

    def _locate(self, step: int) -> int:
        epoch, batch = divmod(step, len(self))
        if epoch != self.epoch:
            self._start(epoch)
        return batch

    def num_tokens(self, step: int) -> int:
        """The number of tokens in batch `step`, special ones not counted."""
        batch = self._locate(step)
        return self.sizes[batch]

    def weight(self, step: int) -> float:
        """How many tokens batch `step` has, the ends of its texts counted, for each of a batch of mean length."""
        return float((self.num_tokens(step) + self.size) / (self.size * (self.lengths.mean() + 1)))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        batch = self._locate(step)
        texts = self.order[batch * self.size : (batch + 1) * self.size]
        column = torch.arange(self.longest[batch] + 2, device=self.device)
        place = self.starts[texts, None] + column - 1  # (size, time): where each column's token is among all
        end = self.ends[texts, None]
        cls, sep, pad = self.special
        ids = self.tokens[place.clamp(0, len(self.tokens) - 1)].long()
        ids = ids.masked_fill(place == end, sep).masked_fill(place > end, pad).masked_fill(column == 0, cls)
        return ids, (place <= end).long()


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values of each matrix near 1 (0.7 to 1.2), by Newton and Schulz's iteration.

    matrices: (n, rows, columns), each with a scale of its own; dtype: what to compute in. From Jordan et al. 2024,
    "Muon", which shows that bfloat16 will do.
    """
    x = matrices.to(dtype)
    x = x.mT if x.shape[-2] > x.shape[-1] else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):  # s → 3.4445 s - 4.775 s³ + 2.0315 s⁵ for every singular value s
        gram = x @ x.mT
        quintic = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, quintic, x, beta=3.4445)
    return (x.mT if matrices.shape[-2] > matrices.shape[-1] else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix learns at the same speed (Jordan et al. 2024).

    For the matrices inside blocks. Matrices of one shape are updated together, in a few kernels.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.dtype = dtype
        groups = [{"params": same} for same in shapes.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every matrix by about `lr` in each direction of its gradient's momentum."""
        for group in self.param_groups:
            matrices, lr = group["params"], group["lr"]
            gradient = torch.stack([torch.zeros_like(m) if m.grad is None else m.grad for m in matrices])
            state = self.state[matrices[0]]  # one stack holds the momentum of the whole group
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = orthogonalise(
                gradient.lerp(momentum, group["momentum"]), dtype=self.dtype
            )  # looks ahead
            rows, columns = gradient.shape[1:]
            torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
            torch._foreach_add_(matrices, list(update.unbind()), alpha=-lr * max(1, rows / columns) ** 0.5)


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the model's blocks, AdamW for everything else; weight decay for linear layers."""
    blocks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    matrices = {p: None for block in blocks for p in block.parameters() if p.ndim == 2 and p.requires_grad}
    if not recipe.matrix_learning_rate:
        matrices = {}
    rest = [p for p in model.parameters() if p not in matrices and p.requires_grad]
    # Decay would pull the embeddings of rare words, and all that tells one name from another, towards zero.
    decayed = {layer.weight: None for layer in model.modules() if isinstance(layer, nn.Linear)}
    groups = [
        {"params": [p for p in rest if p in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p not in decayed], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)
    optimizers = [torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.98), fused=fused)]
    if matrices:
        rate, dtype = recipe.matrix_learning_rate, getattr(torch, recipe.precision)
        optimizers.append(Muon(matrices, rate, weight_decay=recipe.weight_decay, dtype=dtype))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"], group["decays"] = group["lr"], any(p in decayed for p in group["params"])
    return optimizers


@dataclass(frozen=True)
class Evaluation:
    """How well what was hidden is told: mean cross-entropy in nats with its standard error, and accuracy.

    pair_accuracy: of the question about pairs of sentences, where the objective asks one.
    """

    loss: float
    standard_error: float
    accuracy: float
    targets: int
    pair_accuracy: float | None = None


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    texts: Texts,
    tokenizer: Any,
    *,
    seed: int = 0,
    batch_size: int = 128,
) -> Evaluation:
    """Score `model` at every target of `texts`, in float32, under the same corruption for the same `seed`.

    Raises ValueError when the objective chose no target at all.
    """
    device = next(model.parameters(), torch.empty(0)).device  # who only counts has none
    batches = Batches(texts, tokenizer, batch_size, device=device)
    training = model.training
    model.eval()
    total = torch.zeros(4, dtype=torch.float64)  # targets, losses, their squares, right answers
    pairs = torch.zeros(2)  # asked, right
    for step in range(len(batches)):
        split = objective.split(*batches[step], torch.Generator(device).manual_seed(_seed(seed, step)))
        logits = objective.logits(model, split)
        losses = nn.functional.cross_entropy(logits, split.labels, reduction="none").cpu().double()
        right = (logits.argmax(-1) == split.labels).sum().item()
        total += torch.tensor([len(losses), losses.sum(), losses.square().sum(), right], dtype=torch.float64)
        if isinstance(split, PairSplit) and (asked := split.pair != IGNORE).any():
            verdicts = objective.pair_logits(model, split).argmax(-1)
            pairs += torch.tensor([asked.sum(), (verdicts == split.pair)[asked].sum()])
    model.train(training)
    n, loss, square, right = total.tolist()
    if not n:
        raise ValueError("the objective chose no target in these texts: give more texts or a higher rate")
    mean = loss / n
    pair_accuracy = float(pairs[1] / pairs[0]) if pairs[0] else None
    return Evaluation(mean, math.sqrt(max(0.0, square / n - mean**2) / n), right / n, int(n), pair_accuracy)


def _seed(*parts: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Multiply matrices in `precision`."""
    with ExitStack() as stack:
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
            if device.type == "cpu":  # whose fused attention takes four times as long in bfloat16
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as `accelerate launch` or `torchrun` started them, or this one alone."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: Any = None) -> Processes:
        """Meet the other processes of this launch, if there are any. device: this process's own, if given."""
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device is None:
            cuda = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true"
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu"
        try:
            device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"cannot compute on the device {device!r}: {reason}") from None
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(rank, count, device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def leave(self) -> None:
        """Leave the other processes, if there are any."""
        if self.count > 1:
            torch.distributed.destroy_process_group()

    def share(self, n: int) -> slice:
        """This process's part of n rows."""
        return slice(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            torch.distributed.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast(self, model: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.count > 1:
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


@dataclass
class History:
    """What a run wrote down: records, one a line of its log.

    A record has step, tokens (seen so far), seconds, loss (nats, mean since the last record, in which batches weigh as
    the recipe's `average` says) and, where the model was evaluated, held_out (nats), standard_error, accuracy, where it
    is known floor (nats), and where pairs are judged pair_accuracy.
    """

    records: list[dict[str, float]] = field(default_factory=list)
    path: Path | None = None

    @classmethod
    def read(cls, path: str | Path, until: float = math.inf) -> History:
        """The records of a log file up to step `until`; a last line that was torn by a kill is left out."""
        records = []
        for line in Path(path).read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(record, dict) or "step" not in record:
                break
            records.append(record)
        return cls([record for record in records if record["step"] <= until])

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of the records that hold `name`, such as "loss" or "held_out"."""
        pairs = [(record["step"], record[name]) for record in self.records if name in record]
        return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs])

    def write_to(self, path: Path) -> None:
        """Put the records into a file, and every later one too."""
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        write_atomically(path, lines.encode())
        self.path = path

    def add(self, record: dict[str, float]) -> None:
        """Keep a record, in the file too when there is one."""
        self.records.append(record)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")


CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


def _save(folder: Path, recipe: Recipe, model: nn.Module, optimizers: list, now: dict[str, Any]) -> None:
    state = {"recipe": recipe.to_json(), "model": model.state_dict(), **now}
    state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
    buffer = io.BytesIO()  # torch itself would report a full disk as something else
    torch.save(state, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getvalue())


def _keep(folder: Path, model: nn.Module, step: int) -> None:
    """Write a snapshot of the weights, in two bytes each."""
    file = folder / "snapshots" / f"{step:06}.safetensors"
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, packed_weights(model, half=True))


_DAMAGED = (
    RuntimeError, OSError, EOFError, LookupError, AttributeError, TypeError, ValueError,
    pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def _restore(folder: Path, recipe: Recipe, model: nn.Module, optimizers: list) -> dict[str, Any]:
    path, device = folder / CHECKPOINT, next(model.parameters()).device
    data = path.read_bytes()
    try:
        if torn := zipfile.ZipFile(io.BytesIO(data)).testzip():  # torch itself does not look at the checksums
            raise ValueError(f"its part {torn} is damaged")
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}, not the state of a run")
        if Recipe.from_json(state["recipe"]) != recipe:
            raise ValueError("it belongs to another recipe; resume with that one, or choose another folder")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if "weight" not in state:  # from before batches were weighed in the log
            state["weight"] = float(state["step"] - state["recorded"])
        return {name: state[name] for name in ("step", "tokens", "seconds", "loss", "weight")}
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot go on from the checkpoint {path}: {reason}") from None


def batch_loss(
    model: nn.Module,
    objective: Objective,
    batch: tuple[Tensor, Tensor],
    generator: torch.Generator,
    here: Processes,
) -> Tensor:
    """() nats, the mean over the targets of a batch (ids, attention_mask), which is taken apart here.

    With several processes, this one's part of that mean.
    """
    split = objective.split(*batch, generator)
    losses = objective.losses(model, split.rows(here.share(len(split.targets))))
    return losses.sum() / (split.targets != IGNORE).sum().clamp(min=1)


def update(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Sequence[Tensor],
    share: float,
    clip: float,
    weight_decay: float,
) -> None:
    """Move the parameters against their gradients, at `share` of the full learning rates."""
    nn.utils.clip_grad_norm_(parameters, clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * share
            group["weight_decay"] = weight_decay * group["decays"]
        optimizer.step()
        optimizer.zero_grad()


def train(
    model: nn.Module,
    objective: Objective,
    corpus: Corpus,
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Iterable[Callable[[nn.Module, dict[str, float]], None]] = (),
    device: Any = None,
    judge: Objective | None = None,
) -> History:
    """Train `model` in place to get x″ from x′ on `corpus`, as `recipe` says.

    judge: the objective by which held-out texts are scored, when runs with different ones are to be compared.

    With a folder, the recipe (recipe.json), the log (log.jsonl) and checkpoints are written there, and
    `resume` goes on from the last checkpoint; without it a folder that holds a run raises ValueError. Each
    callback is given the model and each record. Under `accelerate launch` the processes share every batch,
    and its mixed precision, if any, is used.
    """
    here = Processes.join(device)
    recipe = as_launched(recipe, here)
    if folder and here.first and not resume:  # the others might see what the first one has begun to write
        refuse_used(folder)
    model.to(here.device).train()
    here.broadcast(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizers = make_optimizers(model, recipe)
    batches = Batches(corpus.train, corpus.tokenizer, recipe.batch_size, recipe.seed, here.device)
    corruption = torch.Generator(here.device)
    now = {"step": 0, "tokens": 0, "seconds": 0.0, "loss": torch.zeros((), device=here.device), "weight": 0.0}
    history, folder, judge = History(), folder and Path(folder), judge or objective
    floor, phases = corpus.floors.get(judge.floor), _phases(objective, corpus, recipe)
    if folder and resume and (folder / CHECKPOINT).exists():
        now = _restore(folder, recipe, model, optimizers)
        if not here.first:
            now["loss"].zero_()  # the first process has the sum of all
        history = History.read(folder / LOG, until=now["step"])
    if folder and here.first:
        _prepare(folder, recipe, history, begins=now["step"] == 0)
    started = time.perf_counter() - now["seconds"]
    outside = torch.random.fork_rng([here.device] if here.device.type == "cuda" else [])
    kept = set(snapshot_steps(recipe)) if folder and here.first else set()
    if now["step"] in kept:
        _keep(folder, model, now["step"])
    with outside, Progress(recipe, now["step"], corpus, floor, progress and here.first) as bar:
        for step in range(now["step"], recipe.steps):
            torch.manual_seed(_seed(recipe.seed, step, here.rank + 1))  # dropout has no generator of its own
            with _autocast(here.device, recipe.precision):
                corruption.manual_seed(_seed(recipe.seed, step))
                now_trained, weight_decay = next(phase for start, *phase in phases if step >= start)
                loss = batch_loss(model, now_trained, batches[step], corruption, here)
            weight = batches.weight(step) if recipe.average == "token" else 1.0
            loss = loss * weight
            loss.backward()
            here.all_reduce([p.grad for p in parameters if p.grad is not None])
            update(optimizers, parameters, learning_rate_share(step, recipe), recipe.clip, weight_decay)

            now["loss"] += loss.detach()  # stays on the device: to ask for its value would stop the queue
            now["weight"] += weight
            now["tokens"] += batches.num_tokens(step)
            now["seconds"] = time.perf_counter() - started
            now["step"] = step + 1
            bar.advance(batches.num_tokens(step))
            if _due(recipe, now["step"], recipe.log_every, recipe.evaluate_every):
                here.all_reduce([now["loss"]])
                record = {"step": now["step"], "tokens": now["tokens"], "loss": _mean_since(now)}
                record["seconds"] = round(time.perf_counter() - started, 3)
                if here.first and _due(recipe, now["step"], recipe.evaluate_every):
                    record |= _held_out(model, judge, corpus, recipe)
                    record |= {} if floor is None else {"floor": floor}
                history.add(record)
                bar.tell(record)
                for callback in callbacks:
                    callback(model, record)
            if now["step"] in kept:
                _keep(folder, model, now["step"])
            if folder and _due(recipe, now["step"], recipe.checkpoint_every):
                here.all_reduce([now["loss"]])
                if here.first:
                    _save(folder, recipe, model, optimizers, now)
                else:
                    now["loss"].zero_()
    return history


def _due(recipe: Recipe, step: int, *intervals: int) -> bool:
    return step == recipe.steps or any(step % interval == 0 for interval in intervals)


def _phases(objective: Objective, corpus: Corpus, recipe: Recipe) -> list[tuple[float, Objective, float]]:
    """From which step on which objective is trained, with which weight decay; the last first."""
    phases = [(-1.0, objective, recipe.weight_decay)]
    for share, changes in recipe.phases.items():
        options = recipe.objective_options | changes
        weight_decay = options.pop("weight_decay", recipe.weight_decay)
        changed = load_objective(recipe.objective, corpus.tokenizer, corpus.group, **options)
        phases.append((float(share) * recipe.steps, changed, weight_decay))
    return sorted(phases, key=lambda phase: -phase[0])


def as_launched(recipe: Recipe, here: Processes) -> Recipe:
    """The recipe, with the mixed precision that `accelerate launch` was asked for."""
    if recipe.batch_size < here.count:
        raise ValueError(f"a batch of {recipe.batch_size} cannot be shared by {here.count} processes")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise ValueError(f"accelerate was asked for mixed precision {precision!r}: choose no or bf16")
    return dataclasses.replace(recipe, precision="bfloat16") if precision == "bf16" else recipe


def refuse_used(folder: str | Path) -> None:
    """Raise ValueError if `folder` holds a run, which a new one would overwrite."""
    if any((Path(folder) / name).exists() for name in (LOG, CHECKPOINT)):
        raise ValueError(f"{folder} already holds a run: resume it, or choose another folder")


def _prepare(folder: Path, recipe: Recipe, history: History, begins: bool) -> None:
    """Make a folder ready for a run that begins, or goes on after `history`."""
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(f".{CHECKPOINT}.*"):  # what a kill left behind
        torn.unlink()
    if begins:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        for older in (folder / "snapshots").glob("*.safetensors"):  # of a run that left no checkpoint
            older.unlink()
    write_atomically(folder / "recipe.json", recipe.to_json().encode())
    history.write_to(folder / LOG)


def _mean_since(now: dict[str, Any]) -> float:
    """The mean loss since the last record, over batches as they weigh in training; its sums start anew."""
    mean = now["loss"].item() / now["weight"]
    now["loss"].zero_()
    now["weight"] = 0.0
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} at step {now['step']}: choose smaller learning rates")
    return mean


def _held_out(model: nn.Module, objective: Objective, corpus: Corpus, recipe: Recipe) -> dict[str, float]:
    """The part of a record that says how the model does on the texts held out."""
    texts = corpus.held_out
    if recipe.evaluation_texts is not None:
        texts = texts.select(range(min(recipe.evaluation_texts, len(texts))))
    score = evaluate(model, objective, texts, corpus.tokenizer)
    record = {"held_out": score.loss, "standard_error": score.standard_error, "accuracy": score.accuracy}
    return record if score.pair_accuracy is None else record | {"pair_accuracy": score.pair_accuracy}


class Progress:
    """One line that says how a run goes. A terminal forgets it in the end, a notebook keeps its figures."""

    def __init__(self, recipe: Recipe, done: int, corpus: Corpus, floor: float | None, shown: bool):
        self.line = _NotebookLine() if shown and _in_notebook() else None
        self.bar = tqdm(
            total=recipe.steps,
            initial=done,
            disable=not shown or (self.line is None and not sys.stderr.isatty()),
            leave=False,
            file=self.line or sys.stderr,
            bar_format="{percentage:3.0f}% |{bar:20}| step {n_fmt} of {total_fmt}{postfix}, {remaining} left",
            ncols=110,
        )
        self.floor, self.tokens, self.started, self.said = floor, 0, time.perf_counter(), ""
        self.words = begins_word(corpus.tokenizer)[corpus.train.tokens].mean()  # for each token

    def advance(self, tokens: int) -> None:
        """One step more, over so many tokens."""
        self.tokens += tokens
        self.bar.update()

    def tell(self, record: dict[str, float]) -> None:
        """Say the newest loss, how far it is from the floor, and the speed."""
        loss = record.get("held_out", record["loss"])
        above = "" if self.floor is None else f" ({loss - self.floor:+.3f} from the floor)"
        speed = self.tokens * self.words / (time.perf_counter() - self.started)
        self.said = f"loss {loss:.3f} nats{above}, {speed:,.0f} words/s"
        self.bar.set_postfix_str(self.said, refresh=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()
        if self.line:
            elapsed = time.perf_counter() - self.started
            self.line.write(f"{self.bar.n} of {self.bar.total} steps in {elapsed:.0f} s: {self.said}")


class _NotebookLine:
    """A file that shows in a notebook's output the last line written to it."""

    def __init__(self) -> None:
        from IPython.display import display

        self.output = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.output.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Everything written is shown at once."""


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
