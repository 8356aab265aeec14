"""What people used before: counting the last few words, and a network that reads one word after another."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .shapes import TransformerConfig


class NGram(nn.Module):
    """P(next token | the n - 1 tokens before it), counted; shorter pasts fill the gaps (Ney et al. 1994).

    From each count `discount` is taken, and what that frees is spread as the model of the next shorter past says;
    below the shortest, all tokens are equally likely. Its forward is that of `LanguageModel`.
    """

    def __init__(self, vocab_size: int, n: int, discount: float = 0.75):
        super().__init__()
        if n < 1 or not 0 < discount < 1:
            raise ValueError(f"n is {n} and discount {discount}: give n from 1 and a discount between 0 and 1")
        if vocab_size**n >= 2**63:
            raise ValueError(f"{n} tokens of {vocab_size} kinds make more numbers than fit: choose a smaller n")
        self.vocab_size, self.n, self.discount = vocab_size, n, discount
        self.counts: list[tuple[Tensor, Tensor]] = []  # for n = 1, 2, …: numbers of n-grams in order, how often each

    @property
    def parameters_counted(self) -> int:
        """How many different n-grams of all lengths it has counted."""
        return sum(len(numbers) for numbers, _ in self.counts)

    def fit(self, ids: Tensor, attention_mask: Tensor) -> NGram:
        """Count; ids, attention_mask: (texts, time), [CLS] text [SEP], padded on the right. Returns itself."""
        self.counts = []
        for n in range(1, self.n + 1):
            grams, whole = self.grams(ids, n), attention_mask[:, 1:].bool()
            self.counts.append(torch.unique(grams[whole], return_counts=True))
        return self

    def grams(self, ids: Tensor, n: int) -> Tensor:
        """(texts, time - 1) one number for each token but the first and the n - 1 before it; [CLS] fills up."""
        padded = F.pad(ids, (n - 2, 0), value=int(ids[0, 0])) if n > 1 else ids[:, 1:]
        place = self.vocab_size ** torch.arange(n - 1, -1, -1)
        return (padded.unfold(1, n, 1) * place).sum(-1)

    def forward(self, input_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Log-probabilities of the token after each one: (batch, time, vocab), or (m, vocab) at `positions` (bool)."""
        asked = torch.ones_like(input_ids, dtype=torch.bool) if positions is None else positions
        chance = torch.full((int(asked.sum()), self.vocab_size), 1 / self.vocab_size, dtype=torch.float64)
        for n, (numbers, counts) in enumerate(self.counts, 1):
            past = self._past(input_ids, n)[asked] * self.vocab_size  # the first n-gram that could go on from there
            first, end = torch.searchsorted(numbers, past), torch.searchsorted(numbers, past + self.vocab_size)
            kinds = end - first
            row = torch.arange(len(past)).repeat_interleave(kinds)
            at = torch.arange(len(row)) - (kinds.cumsum(0) - kinds)[row] + first[row]
            seen = torch.zeros_like(chance)
            seen[row, numbers[at] % self.vocab_size] = (counts[at] - self.discount).double()
            total = torch.zeros(len(past), dtype=torch.float64).index_add(0, row, counts[at].double())[:, None]
            mixed = (seen + self.discount * kinds[:, None] * chance) / total.clamp(min=1)
            chance = torch.where(total > 0, mixed, chance)
        logits = chance.log()
        return logits if positions is not None else logits.view(*input_ids.shape, -1)

    def _past(self, ids: Tensor, n: int) -> Tensor:
        """(batch, time) one number for the last n - 1 tokens up to each one."""
        if n == 1:
            return torch.zeros_like(ids)
        padded = F.pad(ids, (n - 2, 0), value=int(ids[0, 0]))
        return (padded.unfold(1, n - 1, 1) * self.vocab_size ** torch.arange(n - 2, -1, -1)).sum(-1)


class RecurrentLanguageModel(nn.Module):
    """The tokens so far in one vector, renewed token by token (Mikolov et al. 2010), as an LSTM of torch's."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.lstm = nn.LSTM(config.width, config.width, config.layers, batch_first=True)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        nn.init.normal_(self.token.weight, std=config.init_std)

    def forward(self, input_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits of the token after each one, as in `LanguageModel`."""
        hidden = self.norm(self.lstm(self.token(input_ids))[0])
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions.flatten()]
        return F.linear(hidden, self.token.weight)
