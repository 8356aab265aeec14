"""Trained models: read and written as Hugging Face folders, found by name."""

from __future__ import annotations

import difflib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..tokenization import load_tokenizer, save_tokenizer, write_atomically
from .bert import MaskedLanguageModel
from .decoder import LanguageModel
from .encoder_decoder import EncoderDecoder
from .hugging_face import config_of, family_of, fill, read_config, their_tensors
from .shapes import TransformerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"

Model = MaskedLanguageModel | LanguageModel | EncoderDecoder


class ModelUnavailable(ValueError):
    """A model that is neither shipped, nor in a folder, nor to be had from the hub."""


def from_transformers(model: PreTrainedModel) -> Model:
    """Our model with the weights of theirs; the logits are the same."""
    _, kind, config = read_config(model.config.to_dict() | {"architectures": [type(model).__name__]})
    return fill(kind(config), model.state_dict()).to(model.device).train(model.training)


def to_transformers(model: Model) -> PreTrainedModel:
    """The model in `transformers` with the weights of ours; the logits are the same."""
    import transformers

    _, family, architecture = family_of(model)
    theirs = getattr(transformers, architecture)(getattr(transformers, family.config_class)(**config_of(model)))
    tensors = their_tensors(model)
    theirs.load_state_dict(tensors | {name: tensors[other] for name, other in family.tied.items()})
    return theirs.to(next(model.parameters()).device).train(model.training)


def save_pretrained(
    model: Model, tokenizer: PreTrainedTokenizerFast, folder: str | Path, half: bool = False
) -> Path:
    """Write a Hugging Face folder, which `transformers` opens too: configuration, weights and tokenizer.

    With `half`, the weights take two bytes each on disk. Each file is written whole or not at all. Raises
    ValueError when a weight is not finite or the tokenizer is another model's, OSError when the disk refuses.
    """
    folder = Path(folder)
    weights = packed_weights(model, half)
    _check_vocabulary(tokenizer, model.config)
    save_tokenizer(tokenizer, folder)
    config = json.dumps(config_of(model), indent=2) + "\n"
    write_atomically(folder / "config.json", config.encode())
    write_atomically(folder / "model.safetensors", weights)
    return folder


def packed_weights(model: Model, half: bool = False) -> bytes:
    """The weights as a safetensors file under Hugging Face's names, in two bytes each with `half`.

    Raises ValueError when a weight is not finite.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: tensor.to("cpu", dtype) for name, tensor in their_tensors(model).items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds values that are not finite as {dtype}: the model was not saved")
    return save(tensors, metadata={"format": "pt"})


def load_pretrained(folder: str | Path) -> tuple[Model, PreTrainedTokenizerFast]:
    """The model, as float32 and in evaluation mode, and the tokenizer in a folder of a BERT, GPT-2 or BART.

    Raises ValueError when a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    model = _read(folder, folder / "model.safetensors")
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, model.config)
    return model, tokenizer


def _read(folder: Path, weights_file: Path) -> Model:
    """The model, in evaluation mode, that the folder's configuration describes, with the weights of the file."""
    config_file = folder / "config.json"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise ValueError(f"there is no file {file}: give a folder with a model saved as safetensors")
    try:
        described = json.loads(config_file.read_text(encoding="utf-8"))
        _, kind, config = read_config(described)
        return fill(kind(config), load_file(weights_file)).eval()
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is damaged or cut short ({error}): get it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{config_file} is damaged ({error}): get it again") from None
    except ValueError as error:
        raise ValueError(f"{folder} cannot be used: {error}") from None


def _check_vocabulary(tokenizer: PreTrainedTokenizerFast, config: TransformerConfig) -> None:
    if len(tokenizer) > config.vocab_size:
        sizes = f"the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}"
        raise ValueError(f"{sizes}: they do not belong together")


def shipped() -> tuple[str, ...]:
    """The names of the checkpoints that come with the package."""
    return tuple(sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json")))


def load(name: str | Path) -> tuple[Model, PreTrainedTokenizerFast]:
    """The model, in evaluation mode, and the tokenizer called `name`.

    name: a shipped checkpoint; else a folder on this machine; else a BERT, GPT-2 or BART of the Hugging Face hub,
    from its cache or from the network. Raises ValueError when files are damaged; ModelUnavailable, which says what
    to use instead, when there is no such model. The hub is asked once a process, and for 3 s at most.
    """
    return load_pretrained(find(name))


def find(name: str | Path, weights: Sequence[str] = ("model.safetensors",)) -> Path:
    """The folder of the model called `name`, as `load` looks for it.

    weights: the files that will do, best first, for a model of the hub. Raises ModelUnavailable as `load` does.
    """
    folder = _local(name)
    return folder if os.path.isdir(folder) else _hub_folder(str(name), weights)


def _local(name: str | Path) -> Path:
    """Where the shipped checkpoint, or else the folder, called `name` lies."""
    return CHECKPOINTS / name if str(name) in shipped() else Path(os.path.expanduser(name))


def snapshots(name: str | Path) -> dict[int, Path]:
    """The weights that the run `name`, a shipped checkpoint or a folder, kept on its way: step -> file, in order.

    Raises ValueError when it kept none.
    """
    folder = _local(name)
    found = {int(file.stem): file for file in (folder / "snapshots").glob("*.safetensors") if file.stem.isdecimal()}
    if not found:
        raise ValueError(f"there are no snapshots of {str(name)!r}: give the folder of a run with --snapshots")
    return dict(sorted(found.items()))


def load_snapshot(name: str | Path, step: int) -> Model:
    """The model, as float32 and in evaluation mode, as it was after `step` steps of the run `name`.

    Raises ValueError when no snapshot was kept there, or a file is damaged.
    """
    kept = snapshots(name)
    if step not in kept:
        raise ValueError(f"there is no snapshot of step {step}: choose from {', '.join(map(str, kept))}")
    return _read(_local(name), kept[step])


def _instead(name: str) -> str:
    """What to use when the model `name` cannot be had: the shipped ones, the most similar name first."""
    names = sorted(shipped(), key=lambda each: -difflib.SequenceMatcher(None, name, each).ratio())
    return f"load one that comes with the course instead ({', '.join(names) or 'none is in this copy'})"


_PATIENCE = 2.0  # seconds after which the hub counts as out of reach
_refused: dict[str, str] = {}  # why a model or, under "", the whole hub could not be had


def _hub_folder(name: str, weights: Sequence[str]) -> Path:
    """The folder in the Hugging Face cache that holds the model `name`, downloaded first if it must be."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except ValueError:
        raise ModelUnavailable(f"there is no model and no folder {name!r}: {_instead(name)}") from None

    def cached(*files: str) -> list[str]:
        return [path for file in files if isinstance(path := try_to_load_from_cache(name, file), str)]

    ours = cached(*weights)
    if ours and cached("config.json") and cached("tokenizer.json", "vocab.txt"):
        return Path(ours[0]).parent
    files = " ".join((name, *weights))  # a model that lacks one kind of weights may have another
    if _refused.keys().isdisjoint(("", name, files)):
        refusal = _ask(name)
        if refusal is None:
            try:
                return _download(name, weights)
            except Exception as error:  # whatever networks and disks can do
                refusal = files, f"where it failed ({(str(error).strip() or repr(error)).splitlines()[0]})"
                if type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                    kinds = "safetensors weights" if len(weights) == 1 else " and no ".join(weights)
                    refusal = files, f"which has no {kinds} of it"
        _refused.update([refusal])
    reason = next(_refused[key] for key in ("", name, files) if key in _refused)
    raise ModelUnavailable(f"could not get {name!r} from the Hugging Face hub, {reason}: {_instead(name)}")


def _ask(name: str) -> tuple[str, str] | None:
    """Ask the hub once for the model `name`: None if it has it, else whom that concerns and why not."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    if constants.HF_HUB_OFFLINE:
        return "", "which HF_HUB_OFFLINE forbids to ask"
    answers: list[int | Exception] = []

    def ask() -> None:
        try:  # by hand, since the library's own functions try again and again
            url, headers = hf_hub_url(name, "config.json"), build_hf_headers()
            answers.append(get_session().head(url, headers=headers, timeout=2 * _PATIENCE).status_code)
        except Exception as error:
            answers.append(error)

    # In a thread, since no time-out limits how long it takes to look up an address.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    match answers:
        case []:
            return "", f"which did not answer within {_PATIENCE:.0f} s at {constants.ENDPOINT}"
        case [401 | 403 | 404]:
            return name, "which has no open model of that name"
        case [int(status)] if status >= 400:
            return "", f"which answered with status {status} at {constants.ENDPOINT}"
        case [Exception()]:
            return "", f"which is out of reach at {constants.ENDPOINT}"
    return None


def _download(name: str, weights: Sequence[str]) -> Path:
    """Get the files of the hub model `name` into the cache and return their folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    # The configuration first: can the model be read at all? The large file last, when nothing else is missing.
    read_config(json.loads(Path(hf_hub_download(name, "config.json")).read_text(encoding="utf-8")))
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        try:
            hf_hub_download(name, file)
        except LocalEntryNotFoundError:  # what the library calls a network that fails
            raise
        except EntryNotFoundError:
            continue  # old models have vocab.txt alone, new ones tokenizer.json alone
    for file in weights[:-1]:
        try:
            return Path(hf_hub_download(name, file)).parent
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(name, weights[-1])).parent
