"""The Transformer once, and what is built from it; reads and writes Hugging Face folders."""

from .bert import MaskedLanguageModel, SentencePairModel
from .encoder import SHAPES, Encoder, EncoderConfig
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
from .transformer import Block, MultiHeadAttention, attention, attention_weights

__all__ = [
    "SHAPES",
    "Block",
    "Encoder",
    "EncoderConfig",
    "MaskedLMHead",
    "MaskedLanguageModel",
    "ModelUnavailable",
    "MultiHeadAttention",
    "PairHead",
    "SentencePairModel",
    "attention",
    "attention_weights",
    "from_transformers",
    "load",
    "load_pretrained",
    "load_snapshot",
    "save_pretrained",
    "shipped",
    "snapshots",
    "to_transformers",
]
