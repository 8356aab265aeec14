"""Ours and `transformers`' GPT-2 are the same function, with a cache and with padding, and nothing looks ahead."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, randomise, shapes
from transformers import GPT2Config, GPT2LMHeadModel

from selfsup.models import (
    Cache,
    LanguageModel,
    TransformerConfig,
    attention_weights,
    causal_mask,
    from_transformers,
    load_pretrained,
    save_pretrained,
    to_transformers,
)
from selfsup.tokenization import word_level


@st.composite
def cases(draw):
    """(shape, ids, mask, seed): a small GPT-2 and a batch with padding on the left, on the right, or none."""
    shape = draw(shapes())
    batch, time, seed = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(shape.vocab_size, (batch, time), generator=generator)
    lengths = torch.randint(1, time + 1, (batch, 1), generator=generator)
    left, right = torch.arange(time) >= time - lengths, torch.arange(time) < lengths
    mask = {"left": left.long(), "right": right.long(), "none": None}[draw(st.sampled_from(["left", "right", "none"]))]
    return shape, ids, mask, seed


def gpt2_config(config):
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        n_inner=config.feed_forward,
        n_positions=config.max_positions,
    )


def theirs_at(model, ids, mask):
    """Their logits; the place of a token is the number of tokens before it, padding not counted."""
    places = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    return model(input_ids=ids, attention_mask=mask, position_ids=places).logits


def difference(a, b, mask):
    """The largest difference where a token stands."""
    seen = torch.ones(a.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    return (a - b)[seen].abs().max().item()


@given(cases())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_theirs_into_ours(case):
    config, ids, mask, seed = case
    theirs = randomise(GPT2LMHeadModel(gpt2_config(config)), seed)
    ours = from_transformers(theirs)
    assert ours.config.layers == config.layers and not ours.training
    assert difference(ours(ids, mask), theirs_at(theirs, ids, mask), mask) < TOLERANCE


@given(cases())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_ours_into_theirs(case):
    config, ids, mask, seed = case
    ours = randomise(LanguageModel(config), seed)
    assert difference(ours(ids, mask), theirs_at(to_transformers(ours), ids, mask), mask) < TOLERANCE


@given(cases(), st.data())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_a_cache_changes_nothing(case, data):
    """A text read in pieces of any size gets the logits of the text read at once, ours and theirs."""
    config, ids, mask, seed = case
    model, time = randomise(LanguageModel(config), seed), ids.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, time - 1)), max_size=4)))
    cache, told = Cache(), []
    for start, end in zip([0, *cuts], [*cuts, time]):
        told.append(model(ids[:, start:end], None if mask is None else mask[:, :end], cache=cache))
        assert len(cache) == end, "the cache does not count its tokens"
    told = torch.cat(told, 1)
    assert difference(told, model(ids, mask), mask) < TOLERANCE
    assert difference(told, theirs_at(to_transformers(model), ids, mask), mask) < TOLERANCE


@given(cases(), st.data())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_no_earlier_logit_knows_a_later_token(case, data):
    config, ids, mask, seed = case
    model, place = randomise(LanguageModel(config), seed), data.draw(st.integers(0, ids.shape[1] - 1))
    changed = ids.clone()
    changed[:, place:] = (changed[:, place:] + 1) % config.vocab_size
    before, after = model(ids)[:, :place], model(changed)[:, :place]
    assert torch.equal(before, after), f"a token from {place} on changed a logit before it: is the mask causal?"


def test_the_mask_shows_the_past():
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert torch.equal(causal_mask(5, 5), torch.ones(5, 5).tril().bool())


@torch.no_grad()
def test_attention_weights_are_zero_ahead():
    config = TransformerConfig(9, layers=2, width=8, heads=2, feed_forward=8, segments=0)
    model = LanguageModel(config).eval()
    with attention_weights(model) as weights:
        model(torch.randint(9, (2, 6)))
    assert len(weights) == 2 and all((one.triu(1) == 0).all() for one in weights)


@torch.no_grad()
def test_positions_asked_for_alone():
    config = TransformerConfig(9, layers=1, width=8, heads=2, feed_forward=8, segments=0)
    model, ids = LanguageModel(config).eval(), torch.randint(9, (2, 6))
    asked = torch.rand(2, 6) < 0.5
    torch.testing.assert_close(model(ids, positions=asked), model(ids)[asked])


def test_too_long_a_text_is_refused_with_a_cache_too():
    config = TransformerConfig(9, layers=1, width=8, heads=2, feed_forward=8, max_positions=4, segments=0)
    model, cache = LanguageModel(config), Cache()
    model(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="5 tokens, but the model takes 4"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=cache)


@torch.no_grad()
def test_a_folder_that_transformers_opens(tmp_path):
    tokenizer = word_level(["the", "cat", "sat"])
    config = TransformerConfig(len(tokenizer), layers=2, width=8, heads=2, feed_forward=12, segments=0, norm_eps=1e-5)
    model = randomise(LanguageModel(config), 1)
    folder = save_pretrained(model, tokenizer, tmp_path / "gpt")
    theirs, (ours, _) = GPT2LMHeadModel.from_pretrained(folder).eval(), load_pretrained(folder)
    ids = torch.randint(len(tokenizer), (2, 5))
    assert (theirs(ids).logits - ours(ids)).abs().max() < TOLERANCE
    assert torch.equal(ours(ids), model(ids)) and ours.config == config
    theirs.transformer.save_pretrained(tmp_path / "bare")  # as the first GPT-2s are stored: no prefix, no head
    tokenizer.save_pretrained(tmp_path / "bare")
    bare, _ = load_pretrained(tmp_path / "bare")
    assert torch.equal(bare(ids), model(ids))
