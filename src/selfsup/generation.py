"""How a language model writes: it is asked for the next token, one is chosen, and it is asked again.

The model gives logits; everything here is about how to choose. The model may be a `LanguageModel`, what
`EncoderDecoder.reading` returns, or any function of (ids, attention_mask, cache) that gives logits (batch, time, vocab)
of the token after each one. A model should be in evaluation mode: dropout would have its say, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .models.transformer import Cache

Model = Callable[..., Tensor]  # (ids, attention_mask=None, cache=None) -> logits (batch, time, vocab)


def top_k(logits: Tensor, k: int) -> Tensor:
    """-inf at all but the k most probable tokens, and those as probable as the last of them (Fan et al. 2018).

    logits: (batch, vocab) -> the same shape. Raises ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"top_k is {k}, but must be a whole number of at least 1")
    last = logits.topk(min(k, logits.size(-1))).values[:, -1:]  # (batch, 1)
    return logits.masked_fill(logits < last, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """-inf at all but the nucleus, the fewest tokens whose probabilities sum to p or more (Holtzman et al. 2020, 3.1).

    logits: (batch, vocab) -> the same shape. Raises ValueError for p outside of (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p is {p}, but must be above 0 and at most 1")
    ascending, order = logits.sort()  # from the least probable on, because small numbers add up more exactly
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p  # what is left still sums to p
    removed[:, -1] = False  # the most probable token stays, whatever rounding says
    return logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def min_p(logits: Tensor, share: float) -> Tensor:
    """-inf where a token has less than `share` of the most probable one's probability (Nguyen et al. 2025).

    logits: (batch, vocab) -> the same shape. Raises ValueError for a share outside of [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"min_p is {share}, but must be a share from 0 to 1")
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), -torch.inf)


TRUNCATIONS = (top_k, top_p, min_p)  # in the order in which `transformers` applies them


def repetition_penalty(logits: Tensor, ids: Tensor, penalty: float, attention_mask: Tensor | None = None) -> Tensor:
    """Make tokens that the text holds less likely: divide their logits by `penalty` (Keskar et al. 2019, 4.1).

    Logits below 0, where dividing would do the opposite, are multiplied. logits: (batch, vocab) -> the same shape; ids:
    (batch, time), the text; attention_mask: (batch, time), 0 at padding, which counts for nothing. Raises ValueError
    for a penalty that is not above 0.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"repetition_penalty is {penalty}, but must be a number above 0; 1 changes nothing")
    weight = torch.ones_like(ids) if attention_mask is None else attention_mask
    held = torch.zeros_like(logits).scatter_add(-1, ids, weight.to(logits.dtype)) > 0  # (batch, vocab)
    return torch.where(held, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


_penalised = repetition_penalty  # what `generate` calls it, where this name is a number


def forbid(logits: Tensor, ids: Collection[int]) -> Tensor:
    """-inf at the tokens `ids`.

    logits: (batch, vocab) -> the same shape. Raises ValueError for all tokens, or one that is not in the vocabulary.
    """
    vocab, ids = logits.size(-1), sorted(set(ids))
    if len(ids) >= vocab or ids and not 0 <= ids[0] <= ids[-1] < vocab:
        raise ValueError(f"forbidden_ids are {ids}, but must be from 0 to {vocab - 1}, and not all of these")
    return logits.index_fill(-1, torch.tensor(ids, dtype=torch.long, device=logits.device), -torch.inf)


def distribution(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
                 min_p: float | None = None) -> Tensor:
    """The probabilities (batch, vocab) to draw the next token by: logits over temperature, truncated, softmax.

    temperature: at 0 the most probable token has it all. top_k, top_p, min_p: see the functions of these names; each
    reads what the one before left. Raises ValueError for a value that cannot be.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}, but must be a number of at least 0")
    greedy = temperature < torch.finfo(logits.dtype).tiny  # 0, or what torch would round to it
    if not greedy:  # the highest logit becomes 0: a low temperature makes nothing overflow
        logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    for truncate, amount in zip(TRUNCATIONS, (top_k, top_p, min_p)):
        if amount is not None:
            logits = truncate(logits, amount)
    return F.one_hot(logits.argmax(-1), logits.size(-1)).to(logits.dtype) if greedy else logits.softmax(-1)


@torch.no_grad()
def generate(model: Model, input_ids: Tensor, attention_mask: Tensor | None = None, *, max_new_tokens: int,
             temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None,
             repetition_penalty: float = 1.0, stop_ids: Collection[int] = (), pad_id: int = 0,
             forbidden_ids: Collection[int] = (), generator: Generator | None = None, use_cache: bool = True) -> Tensor:
    """Write on from prompts, token by token: the new tokens (batch, new) long, `pad_id` after one of `stop_ids`.

    input_ids, attention_mask: (batch, time), prompts padded on the left. It ends when all rows have stopped, and after
    max_new_tokens at the latest. temperature to min_p: see `distribution`; at temperature 0 nothing is drawn.
    generator: on the device of input_ids. Raises ValueError for prompts or values that cannot be.
    """
    text, mask = input_ids, _mask(input_ids, attention_mask, max_new_tokens)
    cache, new = Cache() if use_cache else None, []
    running = torch.ones(len(text), dtype=torch.bool, device=text.device)
    for _ in range(max_new_tokens):
        logits = _penalised(_next_logits(model, text, mask, cache), text, repetition_penalty, mask)  # (batch, vocab)
        chances = distribution(forbid(logits, forbidden_ids), temperature, top_k, top_p, min_p)
        chosen = chances.argmax(-1) if temperature == 0 else chances.multinomial(1, generator=generator)[:, 0]
        new.append(chosen.where(running, pad_id))
        running = running & ~_in(chosen, stop_ids)
        if not running.any():
            break
        text = torch.cat([text, chosen[:, None]], 1)
        mask = torch.cat([mask, running[:, None].to(mask)], 1)  # what comes after a stop takes no place
    return torch.stack(new, 1)


@torch.no_grad()
def beam_search(model: Model, input_ids: Tensor, attention_mask: Tensor | None = None, *, beams: int,
                max_new_tokens: int, stop_ids: Collection[int] = (), length_penalty: float = 1.0,
                pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """The best ending found when the `beams` best beginnings are kept at each length (Sutskever et al. 2014, 3.2).

    input_ids, attention_mask: (batch, time), prompts padded on the left. Returns the new tokens, (batch, new) long,
    `pad_id` after one of `stop_ids`, and their scores (batch,): log-probability (nats) / length ** length_penalty.
    A search goes on until no beam can become better than the best ending, which is "never" for early_stopping in
    `transformers`. Raises ValueError for prompts or values that cannot be.
    """
    text, mask = input_ids, _mask(input_ids, attention_mask, max_new_tokens)
    batch, cache = len(text), Cache()
    totals = torch.zeros(batch, 1, device=text.device)  # log-probability of each beam; at first one, the prompt
    best, scores = [text[0, :0]] * batch, torch.full((batch,), -torch.inf, device=text.device)
    for length in range(1, max_new_tokens + 1):
        logits = _next_logits(model, text, mask, cache)  # (batch * beams, vocab)
        vocab = logits.size(-1)
        if not 1 <= beams <= vocab:
            raise ValueError(f"beams is {beams}, but must be from 1 to {vocab}, the size of the vocabulary")
        totals = (totals.view(-1, 1) + logits.log_softmax(-1)).view(batch, -1)  # (batch, beams * vocab)
        enough = beams * (1 + len(set(stop_ids)))  # so many that `beams` go on even when each beam stops in every way
        totals, places = totals.topk(min(enough, totals.size(1)))  # (batch, candidates), the best first
        rows = places // vocab + torch.arange(0, len(text), len(text) // batch, device=text.device)[:, None]
        texts = torch.cat([text[rows], (places % vocab)[..., None]], -1)  # (batch, candidates, time)
        over = _in(texts[..., -1], stop_ids) | (length == max_new_tokens)

        ended, which = (totals / length**length_penalty).masked_fill(~over, -torch.inf)[:, :beams].max(1)
        for row in (ended > scores).nonzero().flatten().tolist():
            best[row] = texts[row, which[row], -length:]
        scores = scores.maximum(ended)

        totals, going = totals.masked_fill(over, -torch.inf).topk(beams)  # (batch, beams)
        kindest = max_new_tokens if length_penalty > 0 else length  # the length at which a total scores most
        hopeful = totals[:, 0] / kindest**length_penalty > scores  # totals only fall: others cannot become better
        if not hopeful.any():
            break
        rows = rows.gather(1, going).flatten()  # (batch * beams,)
        text = texts.take_along_dim(going[..., None], 1).flatten(0, 1)  # (batch * beams, time)
        mask = torch.cat([mask[rows], hopeful.repeat_interleave(beams)[:, None].to(mask)], 1)
        cache.select(rows)
    return pad_sequence(best, batch_first=True, padding_value=pad_id), scores


def _next_logits(model: Model, text: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
    """The logits (batch, vocab) of the token after a text; what the cache holds of it is not read again."""
    unread = text if cache is None else text[:, len(cache) :]
    return model(unread, attention_mask=mask, cache=cache)[:, -1].float()


def _in(ids: Tensor, some: Collection[int]) -> Tensor:
    """Which of the ids are among some: bool, in their shape."""
    return torch.isin(ids, torch.tensor(list(some), dtype=torch.long, device=ids.device))


def _mask(input_ids: Tensor, attention_mask: Tensor | None, max_new_tokens: int) -> Tensor:
    """The attention mask (batch, time) of prompts; raises ValueError where nothing can be written on from them."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, but must be a whole number of at least 1")
    if input_ids.dim() != 2 or not input_ids.numel():
        raise ValueError(f"the prompts have shape {tuple(input_ids.shape)}, but must be (batch, time), neither 0")
    if attention_mask is None:
        return torch.ones_like(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(f"the attention mask has shape {tuple(attention_mask.shape)}, but the prompts have "
                         f"{tuple(input_ids.shape)}: give one number a token")
    if not (ends := attention_mask[:, -1].bool()).all():
        raise ValueError(f"prompt {int(ends.int().argmin())} ends in padding, or has no token at all: give each prompt "
                         "one token or more, and pad on the left")
    return attention_mask
