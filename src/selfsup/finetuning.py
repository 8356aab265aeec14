"""What one does with a pre-trained encoder: put a small head on it, and learn a task from a few labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models.encoder import Encoder


class Classifier(nn.Module):
    """Which of `classes` kinds of text is this? The mean of the encoder's vectors, then one linear layer."""

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask: (batch, time) -> logits (batch, classes)."""
        return self.head(mean_vectors(self.encoder, input_ids, attention_mask))


def pad(texts: Sequence[Sequence[int]], tokenizer) -> tuple[Tensor, Tensor]:
    """(ids, attention_mask), both (batch, time) long, of token id lists: [CLS] text [SEP], then [PAD]."""
    rows = [torch.tensor([tokenizer.cls_token_id, *map(int, text), tokenizer.sep_token_id]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def mean_vectors(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of the encoder's vectors of each text, (batch, width): padding counts for nothing.

    input_ids, attention_mask: (batch, time).
    """
    seen = attention_mask.unsqueeze(-1)  # (batch, time, 1)
    return (encoder(input_ids, attention_mask) * seen).sum(1) / seen.sum(1)


def fine_tune(model: nn.Module, batch: tuple[Tensor, Tensor], labels: Tensor, *, steps: int = 60,
              batch_size: int = 20, learning_rate: float = 1e-3, seed: int = 0) -> None:
    """Train all of `model` in place on a few labelled texts, by AdamW at a rate that falls to zero.

    batch: (ids, attention_mask), both (texts, time); labels: (texts,) long.
    """
    training = model.training
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    order = torch.empty(0, dtype=torch.long)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the order, and of dropout, which has no generator of its own
        for _ in range(steps):
            while len(order) < min(batch_size, len(labels)):  # an epoch ends: shuffle anew
                order = torch.cat([order, torch.randperm(len(labels))])
            rows, order = order[:batch_size], order[batch_size:]
            loss = F.cross_entropy(model(*(part[rows] for part in batch)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.train(training)


@torch.no_grad()
def accuracy(model: nn.Module, batch: tuple[Tensor, Tensor], labels: Tensor) -> float:
    """The share of texts whose label `model` tells. batch: (ids, attention_mask); labels: (texts,) long."""
    training = model.training
    model.eval()
    ids, mask = batch
    parts = zip(ids.split(100), mask.split(100), labels.split(100))
    right = sum(int((model(i, m).argmax(-1) == y).sum()) for i, m, y in parts)
    model.train(training)
    return right / len(labels)


def word_counting_accuracy(batch: tuple[Tensor, Tensor], labels: Tensor, test: tuple[Tensor, Tensor],
                           answers: Tensor, smoothing: float = 0.1) -> float:
    """The accuracy on `test` of naive Bayes learned from `batch`: the rival that has no network and reads no order.

    batch, test: (ids, attention_mask), both (texts, time); labels, answers: (texts,) long.
    """
    from sklearn.naive_bayes import MultinomialNB

    size = int(max(batch[0].max(), test[0].max())) + 1
    seen, asked = (torch.zeros(len(i), size).scatter_add_(1, i, m.float()).numpy() for i, m in (batch, test))
    return float(MultinomialNB(alpha=smoothing).fit(seen, labels.numpy()).score(asked, answers.numpy()))
