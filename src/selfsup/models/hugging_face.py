"""What `transformers` calls our models, their shapes and their tensors: BERT, GPT-2 and BART."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .bert import MaskedLanguageModel, SentencePairModel
from .decoder import LanguageModel
from .encoder_decoder import EncoderDecoder
from .shapes import TransformerConfig

Tensors = dict[str, Tensor]
OUR_EPS = 1e-5  # of the norms of a BART, whose configuration does not say it


@dataclass(frozen=True)
class Family:
    """One model type of `transformers`.

    architectures: their class -> ours. shape: our name of each value of a shape -> theirs, one or several. given: what
    else a config.json says. only: values that a model must have to be ours; a missing one has them. tensors: patterns
    of our tensors' names -> theirs. tied: tensors that are another one again. blocks: how the names inside blocks
    begin. pack, unpack: from our tensors under their names to theirs, and back.
    """

    architectures: Mapping[str, type[nn.Module]]
    shape: Mapping[str, tuple[str, ...]]
    given: Mapping[str, Any]
    only: Mapping[str, Any]
    tensors: Mapping[str, str]
    tied: Mapping[str, str]
    blocks: str
    config_class: str
    pack: Callable[[Tensors], Tensors] = field(default=dict)
    unpack: Callable[[Tensors], Tensors] = field(default=dict)

    def name(self, ours: str) -> str:
        """Their name of our tensor."""
        for pattern, theirs in self.tensors.items():
            ours = re.sub(pattern, theirs, ours)
        return ours


def _unpack_bert(theirs: Tensors) -> Tensors:
    """Checkpoints of 2018 call the norms' weight and bias gamma and beta."""
    return {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name)): t for name, t in theirs.items()}


BERT = Family(
    architectures={"BertForMaskedLM": MaskedLanguageModel, "BertForPreTraining": SentencePairModel},
    shape={
        "vocab_size": ("vocab_size",),
        "layers": ("num_hidden_layers",),
        "width": ("hidden_size",),
        "heads": ("num_attention_heads",),
        "feed_forward": ("intermediate_size",),
        "max_positions": ("max_position_embeddings",),
        "segments": ("type_vocab_size",),
        "dropout": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        "norm_eps": ("layer_norm_eps",),
        "init_std": ("initializer_range",),
    },
    given={"hidden_act": "gelu", "pad_token_id": 0, "tie_word_embeddings": True},
    only={"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False},
    tensors={
        r"^encoder\.embeddings\.token\.": "bert.embeddings.word_embeddings.",
        r"^encoder\.embeddings\.position\.": "bert.embeddings.position_embeddings.",
        r"^encoder\.embeddings\.segment\.": "bert.embeddings.token_type_embeddings.",
        r"^encoder\.embeddings\.norm\.": "bert.embeddings.LayerNorm.",
        r"^encoder\.blocks\.": "bert.encoder.layer.",
        r"\.attention\.(query|key|value)\.": r".attention.self.\1.",
        r"\.attention\.output\.": ".attention.output.dense.",
        r"\.attention_norm\.": ".attention.output.LayerNorm.",
        r"\.feed_forward\.0\.": ".intermediate.dense.",
        r"\.feed_forward\.2\.": ".output.dense.",
        r"\.feed_forward_norm\.": ".output.LayerNorm.",
        r"^head\.transform\.": "cls.predictions.transform.dense.",
        r"^head\.norm\.": "cls.predictions.transform.LayerNorm.",
        r"^head\.bias$": "cls.predictions.bias",
        r"^pair_head\.pooler\.": "bert.pooler.dense.",
        r"^pair_head\.relation\.": "cls.seq_relationship.",
    },
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    blocks="bert.encoder.",
    config_class="BertConfig",
    unpack=_unpack_bert,
)

_TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # GPT-2 stores these matrices (inputs, outputs)


def _pack_gpt2(tensors: Tensors) -> Tensors:
    """Queries, keys and values, for us three matrices, are one in GPT-2."""
    theirs = {}
    for name, tensor in tensors.items():
        if ".c_attn." in name:
            if ".c_attn.0." not in name:
                continue
            parts = [tensors[name.replace(".c_attn.0.", f".c_attn.{part}.")] for part in range(3)]
            name, tensor = name.replace(".c_attn.0.", ".c_attn."), torch.cat(parts)
        theirs[name] = tensor.T.contiguous() if _TRANSPOSED.search(name) else tensor
    return theirs


def _unpack_gpt2(theirs: Tensors) -> Tensors:
    """The first GPT-2s on the hub are stored without the prefix, and with each block's mask."""
    tensors = {}
    for name, tensor in theirs.items():
        if re.search(r"\.attn\.(masked_)?bias$", name):
            continue
        name = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        tensor = tensor.T if _TRANSPOSED.search(name) and tensor.ndim == 2 else tensor
        if ".c_attn." in name:
            for part, piece in enumerate(tensor.tensor_split(3)):
                tensors[name.replace(".c_attn.", f".c_attn.{part}.")] = piece
        else:
            tensors[name] = tensor
    return tensors


GPT2 = Family(
    architectures={"GPT2LMHeadModel": LanguageModel},
    shape={
        "vocab_size": ("vocab_size",),
        "layers": ("n_layer",),
        "width": ("n_embd",),
        "heads": ("n_head",),
        "feed_forward": ("n_inner",),
        "max_positions": ("n_positions",),
        "dropout": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        "norm_eps": ("layer_norm_epsilon",),
        "init_std": ("initializer_range",),
    },
    given={"activation_function": "gelu_new", "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
           "tie_word_embeddings": True},
    only={"activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
          "add_cross_attention": False},
    tensors={
        r"^decoder\.embeddings\.token\.": "transformer.wte.",
        r"^decoder\.embeddings\.position\.": "transformer.wpe.",
        r"^decoder\.blocks\.": "transformer.h.",
        r"^decoder\.norm\.": "transformer.ln_f.",
        r"\.attention\.query\.": ".attn.c_attn.0.",
        r"\.attention\.key\.": ".attn.c_attn.1.",
        r"\.attention\.value\.": ".attn.c_attn.2.",
        r"\.attention\.output\.": ".attn.c_proj.",
        r"\.attention_norm\.": ".ln_1.",
        r"\.feed_forward\.0\.": ".mlp.c_fc.",
        r"\.feed_forward\.2\.": ".mlp.c_proj.",
        r"\.feed_forward_norm\.": ".ln_2.",
    },
    tied={"lm_head.weight": "transformer.wte.weight"},
    blocks="transformer.h.",
    config_class="GPT2Config",
    pack=_pack_gpt2,
    unpack=_unpack_gpt2,
)


def _pack_bart(tensors: Tensors) -> Tensors:
    """BART leaves the first two places empty."""
    theirs = dict(tensors)
    for name in tensors:
        if name.endswith("embed_positions.weight"):
            theirs[name] = torch.cat([torch.zeros_like(tensors[name][:2]), tensors[name]])
    return theirs | {"final_logits_bias": tensors["final_logits_bias"][None]}


def _unpack_bart(theirs: Tensors) -> Tensors:
    tensors = {name: t[2:] if name.endswith("embed_positions.weight") else t for name, t in theirs.items()}
    shared = next((tensors[name] for name in ("model.shared.weight", *BART.tied) if name in tensors), None)
    bias = tensors.get("final_logits_bias")
    if shared is not None:
        tensors["model.shared.weight"] = shared
        tensors["final_logits_bias"] = torch.zeros(len(shared)) if bias is None else bias.flatten()
    return tensors


BART = Family(
    architectures={"BartForConditionalGeneration": EncoderDecoder},
    shape={
        "vocab_size": ("vocab_size",),
        "layers": ("encoder_layers", "decoder_layers"),
        "width": ("d_model",),
        "heads": ("encoder_attention_heads", "decoder_attention_heads"),
        "feed_forward": ("encoder_ffn_dim", "decoder_ffn_dim"),
        "max_positions": ("max_position_embeddings",),
        "dropout": ("dropout", "attention_dropout"),
        "init_std": ("init_std",),
    },
    given={"activation_function": "gelu", "activation_dropout": 0.0, "scale_embedding": False, "pad_token_id": 0,
           "bos_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 3, "forced_eos_token_id": None,
           "tie_word_embeddings": True},
    only={"activation_function": "gelu", "scale_embedding": False},
    tensors={
        r"^(encoder|decoder)\.embeddings\.token\.": "model.shared.",
        r"^(encoder|decoder)\.embeddings\.position\.": r"model.\1.embed_positions.",
        r"^(encoder|decoder)\.embeddings\.norm\.": r"model.\1.layernorm_embedding.",
        r"^(encoder|decoder)\.blocks\.": r"model.\1.layers.",
        r"\.attention\.(query|key|value)\.": r".self_attn.\1.",
        r"\.attention\.output\.": ".self_attn.out_proj.",
        r"\.attention_norm\.": ".self_attn_layer_norm.",
        r"\.cross\.(query|key|value)\.": r".encoder_attn.\1.",
        r"\.cross\.output\.": ".encoder_attn.out_proj.",
        r"\.cross_norm\.": ".encoder_attn_layer_norm.",
        r"_attn\.(q|k|v)(uery|ey|alue)\.": r"_attn.\1_proj.",
        r"\.feed_forward\.0\.": ".fc1.",
        r"\.feed_forward\.2\.": ".fc2.",
        r"\.feed_forward_norm\.": ".final_layer_norm.",
        r"^bias$": "final_logits_bias",
    },
    tied={name: "model.shared.weight"
          for name in ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")},
    blocks="model.encoder.layers.",
    config_class="BartConfig",
    pack=_pack_bart,
    unpack=_unpack_bart,
)

FAMILIES = {"bert": BERT, "gpt2": GPT2, "bart": BART}


def family_of(model: nn.Module) -> tuple[str, Family, str]:
    """Their model type, family and class of our model."""
    return next(
        (model_type, family, architecture)
        for model_type, family in FAMILIES.items()
        for architecture, ours in family.architectures.items()
        if type(model) is ours
    )


def config_of(model: nn.Module) -> dict[str, Any]:
    """The config.json of our model; raises ValueError for a shape that theirs cannot have."""
    model_type, family, architecture = family_of(model)
    shape = {name: getattr(model.config, ours) for ours, theirs in family.shape.items() for name in theirs}
    if model_type == "bart" and model.config.norm_eps != OUR_EPS:
        raise ValueError(f"norm_eps is {model.config.norm_eps}, but the norms of a BART have {OUR_EPS}")
    return {"architectures": [architecture], "model_type": model_type, **shape, **family.given, "dtype": "float32"}


def read_config(config: dict[str, Any]) -> tuple[Family, type[nn.Module], TransformerConfig]:
    """The family, our class and the shape that a config.json describes; raises ValueError for a model that ours is not.

    The first BERTs on the hub have neither a model_type nor a layer_norm_eps, which was 1e-12 in all of them.
    """
    config = dict(config) if isinstance(config, dict) else {}
    named = config.get("architectures") or ()
    if "model_type" not in config:
        if not {"hidden_size", "num_hidden_layers"} <= config.keys() or not all(n.startswith("Bert") for n in named):
            raise ValueError("the configuration does not say what model it is of")
        config["model_type"] = "bert"
    if config["model_type"] not in FAMILIES:
        readable = ", ".join(FAMILIES)
        raise ValueError(f"it holds a model of type {config['model_type']!r}: only {readable} can be read")
    family = FAMILIES[config["model_type"]]
    for name, value in family.only.items():
        if config.get(name, value) != value:
            raise ValueError(f"its {name} is {config[name]!r}: only {value!r} can be read")
    config.setdefault("layer_norm_eps", 1e-12)
    if config.get("n_inner") is None and "n_embd" in config:
        config["n_inner"] = 4 * config["n_embd"]
    if missing := [theirs[0] for theirs in family.shape.values() if theirs[0] not in config]:
        raise ValueError(f"the configuration does not say {', '.join(missing)}")
    for ours, theirs in family.shape.items():
        if ours != "dropout" and (other := {config[name] for name in theirs if name in config}) and len(other) > 1:
            raise ValueError(f"its {' and '.join(theirs)} differ: only models with equal ones can be read")
    shape = {ours: config[theirs[0]] for ours, theirs in family.shape.items()}
    if family is not BERT:
        shape = {"segments": 0, "norm_eps": OUR_EPS, **shape}
    first = next(iter(family.architectures))
    ours = family.architectures.get(named[0] if named else first, family.architectures[first])
    return family, ours, TransformerConfig(**shape)


def their_tensors(model: nn.Module) -> Tensors:
    """Our model's tensors as theirs, those that are tied once."""
    family = family_of(model)[1]
    return family.pack({family.name(name): tensor.detach() for name, tensor in model.state_dict().items()})


def fill(model: nn.Module, theirs: Tensors) -> nn.Module:
    """Copy their tensors into our model, as float32; raises ValueError unless they fit."""
    family = family_of(model)[1]
    tensors, own = family.unpack(theirs), model.state_dict()
    names = {ours: family.name(ours) for ours in own}
    if missing := [name for name in names.values() if name not in tensors]:
        raise ValueError(f"the weights lack {len(missing)} of {len(names)} tensors, first {missing[0]}")
    if unknown := {name for name in tensors if name.startswith(family.blocks)} - set(names.values()):
        raise ValueError(f"the weights hold {min(unknown)}, for which the configuration has no place")
    for ours, name in names.items():
        found, expected = tuple(tensors[name].shape), tuple(own[ours].shape)
        if found != expected:
            raise ValueError(f"{name} has shape {found}, but the configuration says {expected}")
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{name} holds values that are not finite")
    model.load_state_dict({ours: tensors[name].float() for ours, name in names.items()})
    return model
