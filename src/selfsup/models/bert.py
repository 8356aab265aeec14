"""BERT's first objective: an encoder and a head that says which words were hidden."""

from __future__ import annotations

from torch import Tensor, nn

from .encoder import Encoder
from .heads import MaskedLMHead, PairHead
from .shapes import TransformerConfig


class MaskedLanguageModel(nn.Module):
    """The masked language model of Devlin et al. 2019, equal to `BertForMaskedLM` in `transformers`."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = MaskedLMHead(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch, time, vocab), or (n, vocab) for the n positions asked for, in reading order.

        input_ids, token_type_ids: (batch, time) ids; attention_mask: (batch, time), 0 at padding;
        positions: (batch, time) bool, True where an answer is wanted, or (n,) indices into batch * time.
        """
        return self.words(self.encoder(input_ids, attention_mask, token_type_ids, positions=positions))

    def words(self, hidden: Tensor) -> Tensor:
        """The head's logits (..., vocab) of hidden states (..., width)."""
        return self.head(hidden, self.encoder.embeddings.token.weight)


class SentencePairModel(MaskedLanguageModel):
    """A masked language model that also judges pairs of sentences, equal to `BertForPreTraining` in `transformers`."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.pair_head = PairHead(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None,
                positions: Tensor | None = None, pair: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """As in `MaskedLanguageModel`; with `pair`, also the logits (batch, 2) of as it was, and changed."""
        if not pair:
            return super().forward(input_ids, attention_mask, token_type_ids, positions)
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)  # of [CLS] too, so of all
        asked = hidden if positions is None else hidden.flatten(0, 1)[positions.flatten()]
        return self.words(asked), self.pair_head(hidden)
