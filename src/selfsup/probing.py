"""What the vectors of a frozen model tell: probes, and what to hold beside their accuracy.

A probe is a small classifier that learns a label from one vector. That it succeeds may be the vector's merit, the
probe's, or the word's own: hence the control task, the baselines that see no vector, and the description length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models.encoder import Encoder


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
    return (probe(vectors).argmax(-1) == labels).numpy()


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

    found: (n,) a number or a truth for each word; texts: (n,) which text it is in, from 0.
    """
    sums, counts = np.bincount(texts, found), np.bincount(texts)
    chosen = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
