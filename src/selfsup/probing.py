"""What the vectors of a frozen model tell: probes, and what to hold beside their accuracy.

A probe is a small classifier that learns a label from one vector. That it succeeds may be the vector's merit, the
probe's, or the word's own: hence the control task, the baselines that see no vector, and the description length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .corpora.tinyworld.tasks import Example
from .models.encoder import Encoder
from .models.pretrained import find
from .tokenization import load_tokenizer

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast


@torch.no_grad()
def word_vectors(encoder: Encoder, ids: Tensor, attention_mask: Tensor, batch_size: int = 100) -> Tensor:
    """(layers + 1, words, width): all words of all texts in a row, after the embeddings and after each block.

    ids, attention_mask: (texts, time) long, with [CLS] first and [SEP] last in each text, which nobody asks about.
    """
    inside = torch.arange(ids.shape[1]) < attention_mask.sum(1, keepdim=True) - 1
    inside[:, 0] = False
    rows = zip(*(part.split(batch_size) for part in (ids, attention_mask, inside)))
    return torch.cat([encoder(some, mask, all_layers=True)[:, words] for some, mask, words in rows], 1)


class Standardise(nn.Module):
    """Vectors with the mean 0 and the standard deviation 1 of those that a probe learns from."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.register_buffer("mean", vectors.mean(0))
        deviation = vectors.std(0, correction=0)
        self.register_buffer("deviation", deviation.where(deviation > 1e-6, 1.0))  # what never changes stays as it is

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (n, width) -> (n, width)."""
        return (vectors - self.mean) / self.deviation


def fit_probe(vectors: Tensor, labels: Tensor, classes: int, *, hidden: int = 0, penalty: float = 1.0,
              steps: int = 200, seed: int = 0) -> nn.Module:
    """A classifier of vectors, (n, width) -> logits (n, classes), learned from all of them at once by L-BFGS.

    labels: (n,) long, from 0 to classes - 1. hidden: units of one hidden layer, 0 for a linear probe. penalty: half of
    it times the squared length of all weights, biases left out, is added to the sum of the cross-entropies (nats); it
    is 1 / C in scikit-learn. Raises ValueError when there are no vectors, or a label for each is missing.
    """
    if not len(vectors) == len(labels) > 0:
        raise ValueError(f"{len(vectors)} vectors and {len(labels)} labels came: give one vector or more, a label each")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} came for {classes} classes: number them from 0")
    width = vectors.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        between = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        probe = nn.Sequential(Standardise(vectors), *between, nn.Linear(hidden or width, classes)).to(vectors)
    weights = [p for p in probe.parameters() if p.ndim == 2]
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        length = sum(w.square().sum() for w in weights)
        mean = F.cross_entropy(probe(vectors), labels) + penalty / 2 * length / len(labels)
        mean.backward()
        return mean

    optimizer.step(loss)
    return probe.requires_grad_(False)


def right(probe: nn.Module, vectors: Tensor, labels: Tensor) -> np.ndarray:
    """(n,) bool: which labels the probe tells."""
    return (probe(vectors).argmax(-1) == labels).cpu().numpy()


def told_by_layer(seen: Tensor, labels: Tensor, other: Tensor, gold: Tensor, classes: int,
                  **options: Any) -> list[np.ndarray]:
    """For the embeddings and each block (n,) bool: whether a linear probe of their vectors tells the `gold` labels.

    seen, other: (layers + 1, n, width), the vectors that a probe learns from, with `labels`, and those it is asked
    about. options: of `fit_probe`.
    """
    return [right(fit_probe(a, labels, classes, **options), b, gold) for a, b in zip(seen, other)]


def control_labels(words: Tensor, labels: Tensor, vocabulary: int, seed: int = 0) -> Tensor:
    """(n,) long: labels without any meaning, to be learned by heart (Hewitt and Liang 2019, section 2).

    Every word of the vocabulary has one label of its own, drawn as often as `labels` has it; words: (n,) ids. A probe's
    accuracy minus its accuracy on these is its *selectivity*.
    """
    drawn = np.random.default_rng(seed).choice(labels.numpy(), vocabulary)
    return torch.from_numpy(drawn)[words]


def word_baseline(words: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """(m,) long: for each word in `asked`, the label that it had most often; for a new word the commonest of all."""
    counts = torch.zeros(int(max(words.max(), asked.max())) + 1, int(labels.max()) + 1)
    counts.index_put_((words, labels), torch.ones(len(words)), accumulate=True)
    usual = counts.argmax(1).where(counts.sum(1) > 0, labels.bincount().argmax())
    return usual[asked]


PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def description_length(vectors: Tensor, labels: Tensor, classes: int, **options: Any) -> tuple[float, float]:
    """(bits, compression): what it costs to tell all labels to someone who has the vectors (Voita and Titov 2020).

    The online code: labels come in portions, in their order here, and each is told by a probe that learned from those
    before it; the first costs log2 of classes a label. compression: how many times shorter that is than to tell all
    labels so. options: of `fit_probe`. Few bits need vectors from which the label is learned quickly, not only well.
    """
    ends = sorted({max(1, round(share * len(labels))) for share in PORTIONS})
    bits = ends[0] * np.log2(classes)
    for known, end in zip(ends, ends[1:]):
        probe = fit_probe(vectors[:known], labels[:known], classes, **options)
        losses = F.cross_entropy(probe(vectors[known:end]), labels[known:end], reduction="sum")
        bits += float(losses) / np.log(2)
    return float(bits), float(len(labels) * np.log2(classes) / bits)


def interval(found: np.ndarray, texts: np.ndarray, level: float = 0.95, draws: int = 2000,
             seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval of a mean over words, drawn by text, since the words of one text are alike.

    found: (n,) a number or a truth for each word; texts: (n,) the number of the text that it is in.
    """
    _, texts = np.unique(texts, return_inverse=True)
    sums, counts = np.bincount(texts, found), np.bincount(texts)
    chosen = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a checkpoint, best first


def load_encoder(name: str | Path) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """The encoder in `transformers`, as float32 and in evaluation mode, and the tokenizer of the BERT called `name`.

    name: as of `models.load`, whose errors it raises; ValueError too when the folder holds no whole BERT. Some models
    of the hub have pytorch_model.bin alone, of which `transformers` reads the tensors and runs no code.
    """
    import transformers

    folder = find(name, WEIGHTS)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "bert":
            raise ValueError(f"it holds a model of type {config.model_type!r}")
        # The class that wrote the weights has a place for each of them, so that it warns of none.
        kind = getattr(transformers, (config.architectures or ["BertModel"])[0])
        model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # whatever damaged files do to the libraries that read them
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"{folder} cannot be read as a BERT: {why}") from None
    if report["missing_keys"]:
        raise ValueError(f"{folder} lacks weights, such as {min(report['missing_keys'])}: get it again")
    return model.base_model.float().eval(), load_tokenizer(folder)


def _beginning(words: Sequence[str]) -> str:
    """A sentence's first words, to find it by."""
    return " ".join(words[:6]) + (" …" if len(words) > 6 else "")


@torch.no_grad()
def piece_vectors(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, sentences: Sequence[Sequence[str]],
                  batch_size: int = 32) -> Tensor:
    """(layers + 1, words, width) float32 on the CPU: as `word_vectors`, of each word the vector of its first piece.

    encoder: in evaluation mode, on any device; tokenizer: a fast one; sentences: their words. Raises ValueError for a
    sentence of more pieces than the encoder has positions, and for a word of which the tokenizer leaves nothing.
    """
    longest, found = encoder.config.max_position_embeddings, []
    for start in range(0, len(sentences), batch_size):
        some = [list(words) for words in sentences[start : start + batch_size]]
        coded = tokenizer(some, is_split_into_words=True, padding=True, return_tensors="pt")
        ids, attention_mask = coded["input_ids"], coded["attention_mask"]
        firsts = torch.zeros_like(ids, dtype=torch.bool)
        for row, words in enumerate(some):
            if attention_mask[row].sum() > longest:
                raise ValueError(f"the sentence {_beginning(words)!r} has {attention_mask[row].sum()} pieces, and the "
                                 f"model reads {longest}: leave it out")
            of = coded.word_ids(row)  # of each piece the number of its word; None for [CLS], [SEP] and [PAD]
            if lost := set(range(len(words))) - set(of):
                raise ValueError(f"nothing is left of {words[min(lost)]!r} when it is cut into pieces: leave the "
                                 f"sentence {_beginning(words)!r} out")
            firsts[row, [of.index(word) for word in range(len(words))]] = True
        asked = ids.to(encoder.device), attention_mask.to(encoder.device)
        layers = encoder(*asked, output_hidden_states=True).hidden_states
        found.append(torch.stack(layers)[:, firsts.to(encoder.device)].float().cpu())
    return torch.cat(found, 1)


def scores(found: np.ndarray, by_heart: np.ndarray, texts: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """The accuracy, that on the control labels, and the selectivity: each with the ends of its `interval`.

    found, by_heart: (n,) bool, whether the label and the control label of each word were told; texts: as of `interval`.
    """
    kinds = {"accuracy": found, "control": by_heart, "selectivity": found.astype(float) - by_heart}
    return {kind: (float(told.mean()), *interval(told, texts)) for kind, told in kinds.items()}


def probe_checkpoints(names: Sequence[str | Path], learned: Sequence[Example], judged: Sequence[Example], *,
                      layers: Sequence[int] | None = None, seed: int = 0, device: str = "cpu",
                      **options: Any) -> Iterator[dict]:
    """How well a linear probe tells a word's tag from the vectors of BERTs: `scores` of each checkpoint and layer.

    names: as of `models.load`, found before any work begins. learned, judged: sentences with a tag a word, as
    `corpora.annotated` reads them. layers: from 0 for the embeddings; None for all. seed: of the control labels and of
    the last checkpoint, "random weights", which is the first one's architecture untrained. "commonest tag" and "usual
    tag" see no vector. Words are told apart in lower case, as most BERTs see them. device: where vectors are made and
    probes fitted. options: of `fit_probe`. Raises what `load_encoder` and `piece_vectors` raise, and ValueError when
    a part is empty or there is no such layer.
    """
    if not (names and learned and judged):
        raise ValueError("give one checkpoint or more, sentences to learn from and sentences to judge by")
    for name in names:
        find(name, WEIGHTS)
    every = [*learned, *judged]
    known = sum(len(one.first) for one in learned)
    texts = np.repeat(np.arange(len(judged)), [len(one.first) for one in judged])
    words, labels = (torch.from_numpy(np.unique(column, return_inverse=True)[1]) for column in (
        [word.lower() for one in every for word in one.first], [tag for one in every for tag in one.gold]))
    both = labels, control_labels(words, labels, int(words.max()) + 1, seed)

    for baseline, seen in ("commonest tag", torch.zeros_like(words)), ("usual tag", words):
        told = [word_baseline(seen[:known], gold[:known], seen[known:]) == gold[known:] for gold in both]
        yield {"checkpoint": baseline, "layer": None, **scores(*(one.numpy() for one in told), texts)}
    for number, name in enumerate((*names, "random weights")):
        encoder, tokenizer = load_encoder(names[number % len(names)])
        if number == len(names):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                encoder = type(encoder)(encoder.config).eval()
        vectors = piece_vectors(encoder.to(device), tokenizer, [one.first for one in every])
        if layers is not None and not set(layers) <= set(range(len(vectors))):
            raise ValueError(f"the layers {list(layers)} were asked for, and {name} has 0 to {len(vectors) - 1}")
        for layer in range(len(vectors)) if layers is None else layers:
            here = vectors[layer].to(device)
            told = []
            for gold in (gold.to(device) for gold in both):
                probe = fit_probe(here[:known], gold[:known], int(labels.max()) + 1, **options)
                told.append(right(probe, here[known:], gold[known:]))
            yield {"checkpoint": str(name), "layer": layer, **scores(*told, texts)}
