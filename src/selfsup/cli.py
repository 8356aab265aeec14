"""The command line, `selfsup COMMAND …`. Thin: what a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models.shapes import TransformerConfig
    from .training import Recipe

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def main(arguments: list[str] | None = None) -> int:
    """Run `selfsup` with these arguments and return its exit status, which is 0 only on success.

    What goes wrong is said in one line on standard error: bad input and full disks with status 1, wrong usage
    with 2, Ctrl-C with 130.
    """
    parser = argparse.ArgumentParser(prog="selfsup", description="Self-supervised learning you can run.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return _fail(f"stopped{options.if_stopped(options)}", 130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except ValueError as error:
        return _fail(str(error), 1)
    except RuntimeError as error:
        if "memory" not in str(error).lower():
            raise
        reason = str(error).splitlines()[0]
        return _fail(f"too little memory for this model and batch ({reason}): choose a smaller --batch-size", 1)


def _fail(sentence: str, status: int) -> int:
    print(f"selfsup: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _pair(text: str) -> tuple[str, Any]:
    """NAME=VALUE as on the command line, the value read as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _add_pretrain(commands: Any) -> None:
    about = (
        "Pre-train a model from scratch and write it as a Hugging Face folder, with its recipe and its log."
    )
    parser = commands.add_parser("pretrain", help=about, description=about)
    parser.set_defaults(run=_pretrain, if_stopped=_kept)
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--recipe", metavar="NAME", help="the recipe of a shipped checkpoint, or a JSON file")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in DIR, if any")
    parser.add_argument("--half", action="store_true", help="store the weights in two bytes each")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, … (default: a GPU if there is one)")
    changes = parser.add_argument_group("changes to the recipe")
    for name, kind, meaning in _CHANGES:
        more = {"type": _pair, "nargs": "+", "metavar": "NAME=VALUE"} if kind is dict else {"type": kind}
        changes.add_argument(f"--{name}", help=meaning, **{"metavar": kind.__name__.upper(), **more})


_CHANGES = (
    ("objective", str, "how x is split: masking, pairs, nsp, sop, next_token or denoising"),
    ("objective-options", dict, "its rates, such as rate=0.3 whole_word=true"),
    ("phases", dict, 'how they change, such as \'0={"rate": 0.1}\' 0.5={}: from which share of the steps on, and what'),
    ("corpus", str, "what to learn from: tinyworld, village or books"),
    ("corpus-options", dict, "such as seed=1 n=100000"),
    ("model", dict, "such as layers=4, on top of the recipe's shape"),
    ("steps", int, "how many batches to learn from"),
    ("batch-size", int, "sequences in a batch"),
    ("average", str, "batch or token: whether every batch weighs the same in training, or every token"),
    ("learning-rate", float, "of embeddings, head, norms and biases"),
    ("matrix-learning-rate", float, "of the blocks' matrices, by Muon; 0: AdamW for them too"),
    ("schedule", str, "trapezoid or one-cycle"),
    ("warmup", float, "share of the steps in which the rates rise"),
    ("decay", float, "share of the steps in which they fall at the end"),
    ("weight-decay", float, "how much of each matrix is lost a step, times the learning rate"),
    ("clip", float, "the largest norm of the gradient"),
    ("precision", str, "float32 or bfloat16"),
    ("seed", int, "of everything random"),
    ("log-every", int, "steps from one line of the log to the next"),
    ("evaluate-every", int, "steps from one held-out score to the next"),
    ("evaluation-texts", int, "how many held-out texts are scored (default: all)"),
    ("checkpoint-every", int, "steps from one checkpoint to the next"),
    ("snapshots", int, "how many times the weights are kept, at steps ever farther apart (default: only the last)"),
)


def _kept(options: argparse.Namespace) -> str:
    """What a run that was stopped has left to go on from."""
    from .training import CHECKPOINT

    if (Path(options.output) / CHECKPOINT).exists():
        return ": --resume goes on from the last checkpoint"
    return ": there was no checkpoint yet, so --resume begins anew (--checkpoint-every says how often one is kept)"


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that was named, or that of the run to resume, with the changes that were asked for."""
    from .training import Recipe

    recipe, begun = Recipe(), Path(options.output) / "recipe.json"
    if options.recipe:
        path = CHECKPOINTS / options.recipe / "recipe.json"
        path = path if path.is_file() else Path(options.recipe)
        if not path.is_file():
            names = sorted(path.parent.name for path in CHECKPOINTS.glob("*/recipe.json"))
            choice = f"a JSON file or one of {', '.join(names)}" if names else "a JSON file"
            raise ValueError(f"there is no recipe {options.recipe!r}: give {choice}")
        try:
            recipe = Recipe.from_json(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text in UTF-8: give a recipe in JSON") from None
    elif options.resume and begun.is_file():
        recipe = Recipe.from_json(begun.read_text(encoding="utf-8"))
    fields = json.loads(recipe.to_json())
    for name, kind, _ in _CHANGES:
        name = name.replace("-", "_")
        given = getattr(options, name)
        if given is not None:
            fields[name] = {**fields[name], **dict(given)} if kind is dict else given
    return Recipe(**fields)


def _shape(sizes: dict[str, Any], vocab_size: int) -> TransformerConfig:
    """The shape that a recipe's `model` describes."""
    from .models.shapes import SHAPES, TransformerConfig

    sizes = dict(sizes)
    shape = sizes.pop("shape", None)
    try:
        if shape is None:
            return TransformerConfig(vocab_size=vocab_size, **sizes)
        return TransformerConfig.named(shape, vocab_size, **sizes)
    except TypeError as error:
        why = str(error).replace("TransformerConfig.__init__() ", "")
        raise ValueError(
            f"the model has no shape ({why}): give shape={'|'.join(SHAPES)} or its numbers"
        ) from None


def _pretrain(options: argparse.Namespace) -> int:
    recipe, folder = _recipe(options), Path(options.output)
    import torch

    from .corpora import load_corpus
    from .models.bert import MaskedLanguageModel, SentencePairModel
    from .models.decoder import LanguageModel
    from .models.encoder_decoder import EncoderDecoder
    from .models.pretrained import save_pretrained
    from .objectives import load_objective
    from .training import CHECKPOINT, Processes, Recipe, as_launched, refuse_used, train

    here = Processes.join(options.device)
    if not options.resume:
        refuse_used(folder)
    if (folder / "model.safetensors").exists() and not (folder / CHECKPOINT).exists():
        made = folder / "recipe.json"
        if not made.is_file() or Recipe.from_json(made.read_text(encoding="utf-8")) != as_launched(recipe, here):
            raise ValueError(f"{folder} holds a model that this recipe did not make: choose another folder")
        print(f"{folder} is complete: nothing to do")
        return 0
    corpus = load_corpus(recipe.corpus, **recipe.corpus_options)
    objective = load_objective(recipe.objective, corpus.tokenizer, corpus.group, **recipe.objective_options)
    if here.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(recipe.seed)
    kinds = dict(nsp=SentencePairModel, sop=SentencePairModel, next_token=LanguageModel, denoising=EncoderDecoder)
    model = kinds.get(recipe.objective, MaskedLanguageModel)(_shape(recipe.model, len(corpus.tokenizer)))
    # Whatever rates a model learns with, it is judged at those of the paper; but another damage is another task.
    standard = recipe.objective_options if recipe.objective == "denoising" else {}
    judge = load_objective(recipe.objective, corpus.tokenizer, corpus.group, **standard)
    told = [] if options.quiet or not here.first or sys.stderr.isatty() else [_tell]
    history = train(
        model,
        objective,
        corpus,
        recipe,
        folder,
        resume=options.resume,
        progress=not options.quiet,
        callbacks=told,
        device=here.device,
        judge=judge,
    )
    if here.first:
        save_pretrained(model, corpus.tokenizer, folder, half=options.half)
        (folder / CHECKPOINT).unlink()
        if not told:
            _tell(model, history.records[-1])
    here.leave()
    return 0


def _tell(_: Any, record: dict[str, float]) -> None:
    speed = record["tokens"] / record["seconds"]
    line = f"step {record['step']}: loss {record['loss']:.4f}, {speed:,.0f} tokens/s"
    if "held_out" in record:
        line += f", held out {record['held_out']:.4f} ± {record['standard_error']:.4f} nats"
        line += f", accuracy {record['accuracy']:.1%}"
    if "pair_accuracy" in record:
        line += f", of pairs {record['pair_accuracy']:.1%}"
    if "floor" in record:
        line += f", {record['held_out'] - record['floor']:+.4f} from the floor"
    print(line, flush=True)


def _add_probe(commands: Any) -> None:
    about = "Ask frozen models what their vectors tell: questions of Tinyworld, or the tags of a treebank."
    parser = commands.add_parser("probe", help=about, description=about)
    parser.set_defaults(run=_probe, if_stopped=lambda _: "")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a shipped checkpoint, a folder, or a hub's name")
    parser.add_argument("--step", type=int, help="of a run with snapshots: the weights after so many steps")
    which = 'such as sense "part of speech" (default: all nine)'
    parser.add_argument("--questions", nargs="+", metavar="NAME", help=which)
    parser.add_argument("--learned", type=int, help="examples that a probe learns from (1200)")
    parser.add_argument("--asked", type=int, help="other examples that judge it (800)")
    parser.add_argument("--treebank", nargs=2, metavar="FILE", help="instead: two CoNLL-U files, to learn and to judge")
    parser.add_argument("--seed", type=int, default=0, help="of the examples, or of the control labels")


def _probe(options: argparse.Namespace) -> int:
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}: give a whole number from 0")
    return _probe_treebank(options) if options.treebank else _probe_tinyworld(options)


def _probe_treebank(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .corpora.annotated import read_conllu
    from .models.pretrained import find
    from .probing import WEIGHTS, probe_checkpoints

    others = {"--step": options.step, "--questions": options.questions, "--learned": options.learned,
              "--asked": options.asked}
    if given := [name for name, value in others.items() if value is not None]:
        raise ValueError(f"--treebank asks the last weights for the tags of its files: leave {given[0]} out")
    learned, judged = map(read_conllu, options.treebank)
    for name in options.models:
        find(name, WEIGHTS)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of what is only read; a download has shown its own
    try:
        for row in probe_checkpoints(options.models, learned, judged, seed=options.seed):
            middle, low, high = (f"{100 * value:.1f}" for value in row["accuracy"])
            layer = "" if row["layer"] is None else f", layer {row['layer']}"
            print(f"{row['checkpoint']}{layer}: {middle}% ({low} to {high}), selectivity "
                  f"{100 * row['selectivity'][0]:.1f}", flush=True)
    finally:
        if shown:
            logging.enable_progress_bar()
    return 0


def _probe_tinyworld(options: argparse.Namespace) -> int:
    from .abilities import PROBES, counting, vectors
    from .corpora import tinyworld
    from .corpora.tinyworld.corpus import HELD_OUT_SEED
    from .models.bert import MaskedLanguageModel
    from .models.pretrained import load, load_snapshot
    from .probing import told_by_layer

    language, names = tinyworld.load("world"), options.questions or list(PROBES)
    if unknown := [name for name in names if name not in PROBES]:
        raise ValueError(f"there is no question {unknown[0]!r}: choose from {', '.join(PROBES)}")
    numbers = [usual if n is None else n for n, usual in ((options.learned, 1200), (options.asked, 800))]
    if min(numbers) < 1:
        raise ValueError("give at least one example to learn from and one to judge by")
    models = {}
    for name in options.models:
        model, tokenizer = load(name)
        if not isinstance(model, MaskedLanguageModel):
            raise ValueError(f"{name} is no encoder that fills in blanks, and the questions are for such: see --help")
        if tokenizer.get_vocab() != language.tokenizer.get_vocab():
            raise ValueError(f"{name} was not trained on Tinyworld, whose questions it cannot read: see --treebank")
        models[name] = model if options.step is None else load_snapshot(name, options.step)
    for name in names:
        learned, asked = (PROBES[name](language, n, HELD_OUT_SEED + 2 * options.seed + part)
                          for part, n in enumerate(numbers, 1))
        guess = (asked.labels == learned.labels.bincount().argmax()).double().mean()
        beside = f"guessing {100 * guess:.0f}, counting words {100 * counting(learned, asked).mean():.0f}"
        best = "" if asked.best is None else f", exact rules {100 * asked.best.mean():.0f}"
        print(f"{name}, percent right: {beside}{best}")
        for title, model in models.items():
            seen, other = vectors(model.encoder, learned), vectors(model.encoder, asked)
            found = told_by_layer(seen, learned.labels, other, asked.labels, len(asked.classes))
            layers = (f"{100 * told.mean():.0f}" for told in found)
            print(f"  {title}, embeddings and blocks: {' '.join(layers)}", flush=True)
    return 0


def _add_bench(commands: Any) -> None:
    about = "Measure what the course promises, and print ratios with their spread beside each target."
    parser = commands.add_parser("bench", help=about, description=about)
    parser.set_defaults(run=_bench, if_stopped=lambda _: ": what was measured so far is in the output file")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="pretraining, widget, posterior, book"
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each comparison (5)")
    parser.add_argument("--learning-rounds", type=int, default=3, help="rounds of the runs to equal loss (3)")
    parser.add_argument("--steps", type=int, default=300, help="length of the runs to equal loss (300)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--course", type=Path, metavar="DIR", help="the repository (default: where this is)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="(default: _build/bench.json in the course)")


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    course = options.course or bench.COURSE
    plan = bench.Plan(options.rounds, options.learning_rounds, options.steps, options.quick, course)
    output = options.output or course / "_build" / "bench.json"
    bench.run(plan, options.only, output)
    print(f"All of it is in {output}")
    return 0


COMMANDS = [_add_pretrain, _add_probe, _add_bench]  # a new command is one more function that adds its parser


if __name__ == "__main__":
    sys.exit(main())
