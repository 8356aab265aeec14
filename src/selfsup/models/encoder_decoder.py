"""The whole Transformer: an encoder reads one text, a decoder writes another and looks back at the first."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import Decoder
from .encoder import Encoder
from .shapes import TransformerConfig
from .transformer import Cache


class EncoderDecoder(nn.Module):
    """From text to text, equal to BART (`BartForConditionalGeneration` in `transformers`; Lewis et al. 2020).

    Encoder, decoder and the scores share one table of token embeddings.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        if config.segments:
            raise ValueError(f"segments is {config.segments}, but an encoder–decoder knows none: make it 0")
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, cross=True)
        self.decoder.embeddings.token = self.encoder.embeddings.token
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor | None = None,
                decoder_attention_mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Logits of the token after each of the decoder's: (batch, time, vocab), or (n, vocab) at `positions` alone.

        input_ids, attention_mask: (batch, keys), what the encoder reads; decoder_input_ids, decoder_attention_mask:
        (batch, time), what is written so far; positions: (batch, time) bool.
        """
        memory = self.encoder(input_ids, attention_mask)
        return self.decode(decoder_input_ids, decoder_attention_mask, positions, None, memory, attention_mask)

    def decode(self, input_ids: Tensor, attention_mask: Tensor | None = None, positions: Tensor | None = None,
               cache: Cache | None = None, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """The decoder's logits, as `LanguageModel` gives them, for the hidden states `memory` of a text.

        There may be several rows of input_ids for each of memory, one after another, such as the beams of a search.
        """
        if memory is not None and (rows := input_ids.size(0) // memory.size(0)) > 1:
            memory = memory.repeat_interleave(rows, 0)
            memory_mask = memory_mask if memory_mask is None else memory_mask.repeat_interleave(rows, 0)
        hidden = self.decoder(input_ids, attention_mask, cache, memory, memory_mask)
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions.flatten()]  # (n, width)
        return F.linear(hidden, self.encoder.embeddings.token.weight, self.bias)

    def reading(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> partial:
        """The language model that writes about this text: what `generation` asks for the next token."""
        memory = self.encoder(input_ids, attention_mask)
        return partial(self.decode, memory=memory, memory_mask=attention_mask)
