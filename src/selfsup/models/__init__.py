"""The Transformer once, and what is built from it; reads and writes Hugging Face folders."""

from .bert import MaskedLanguageModel, SentencePairModel
from .decoder import Decoder, LanguageModel
from .encoder import Encoder
from .encoder_decoder import EncoderDecoder
from .heads import MaskedLMHead, PairHead
from .pretrained import (
    ModelUnavailable,
    from_transformers,
    load,
    load_pretrained,
    load_snapshot,
    save_pretrained,
    shipped,
    snapshots,
    to_transformers,
)
from .shapes import SHAPES, TransformerConfig
from .transformer import Block, Cache, MultiHeadAttention, attention, attention_weights, causal_mask

__all__ = [
    "SHAPES",
    "Block",
    "Cache",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "LanguageModel",
    "TransformerConfig",
    "MaskedLMHead",
    "MaskedLanguageModel",
    "ModelUnavailable",
    "MultiHeadAttention",
    "PairHead",
    "SentencePairModel",
    "attention",
    "attention_weights",
    "causal_mask",
    "from_transformers",
    "load",
    "load_pretrained",
    "load_snapshot",
    "save_pretrained",
    "shipped",
    "snapshots",
    "to_transformers",
]
