"""Chapter 2: whether a model finds a covered name where the text says it again."""

from __future__ import annotations

from typing import Any

import torch

from ..corpora import Corpus, tinyworld
from ..finetuning import pad
from ..models.bert import MaskedLanguageModel
from ..models.transformer import attention_weights


@torch.no_grad()
def looking_back(model: MaskedLanguageModel, corpus: Corpus, n: int = 1000) -> dict[str, Any]:
    """Cover one name in each of the first n held-out texts of the village that say it again, and watch the model.

    Returns texts (how many there are), layers (for each the share of attention that its best head gives to the other
    mentions), evenly (what they would get if all places got alike) and right (the share of the names that are told).
    """
    tokenizer = corpus.tokenizer
    names = set(tokenizer.convert_tokens_to_ids(sorted(tinyworld.load("village").names)))
    asked = []  # (text with one name covered, its place, the name)
    for text in map(corpus.held_out.__getitem__, range(n)):
        for place, word in enumerate(text):
            if int(word) in names and (text == word).sum() > 1:
                covered = text.copy()
                covered[place] = tokenizer.mask_token_id
                asked.append((covered, place + 1, int(word)))
                break
    ids, mask = pad([text for text, _, _ in asked], tokenizer)
    rows, places = torch.arange(len(ids)), torch.tensor([place for _, place, _ in asked])
    real = torch.tensor([word for _, _, word in asked])
    again = ids == real[:, None]  # (texts, time)
    with attention_weights(model.eval()) as weights:
        right = (model(ids, mask)[rows, places].argmax(-1) == real).float().mean().item()
    layers = [(layer[rows, :, places] * again[:, None]).sum(-1).mean(0).max().item() for layer in weights]
    return {"texts": len(asked), "layers": layers, "evenly": (again.sum(1) / mask.sum(1)).mean().item(), "right": right}
