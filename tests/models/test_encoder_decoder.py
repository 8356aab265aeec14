"""Ours and `transformers`' BART are the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, randomise, shapes
from transformers import BartConfig, BartForConditionalGeneration

from selfsup.models import (
    Cache,
    EncoderDecoder,
    TransformerConfig,
    from_transformers,
    load_pretrained,
    save_pretrained,
    to_transformers,
)
from selfsup.tokenization import word_level


@st.composite
def cases(draw):
    """(shape, what the encoder reads, its mask, what the decoder has written, seed)."""
    shape = draw(shapes(most_layers=2))
    batch, seed = draw(st.integers(1, 4)), draw(st.integers(0, 10_000))
    read, written = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(shape.vocab_size, (batch, read), generator=generator)
    lengths = torch.randint(1, read + 1, (batch, 1), generator=generator)
    mask = (torch.arange(read) < lengths).long() if draw(st.booleans()) else None
    return shape, ids, mask, torch.randint(shape.vocab_size, (batch, written), generator=generator), seed


def bart_config(config):
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", config.layers), ("attention_heads", config.heads),
                            ("ffn_dim", config.feed_forward))
    }
    return BartConfig(vocab_size=config.vocab_size, d_model=config.width,
                      max_position_embeddings=config.max_positions, pad_token_id=0, **sides)


def theirs_at(model, ids, mask, written):
    return model(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits


@given(cases())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_theirs_into_ours(case):
    config, ids, mask, written, seed = case
    theirs = randomise(BartForConditionalGeneration(bart_config(config)), seed)
    theirs.final_logits_bias.copy_(torch.randn(theirs.final_logits_bias.shape))
    ours = from_transformers(theirs)
    assert (ours(ids, written, mask) - theirs_at(theirs, ids, mask, written)).abs().max() < TOLERANCE


@given(cases())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_ours_into_theirs(case):
    config, ids, mask, written, seed = case
    ours = randomise(EncoderDecoder(config), seed)
    assert (ours(ids, written, mask) - theirs_at(to_transformers(ours), ids, mask, written)).abs().max() < TOLERANCE


@given(cases(), st.data())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_a_cache_changes_nothing(case, data):
    config, ids, mask, written, seed = case
    model, time = randomise(EncoderDecoder(config), seed), written.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, time - 1)), max_size=4)))
    writer, cache = model.reading(ids, mask), Cache()
    told = [writer(written[:, start:end], cache=cache) for start, end in zip([0, *cuts], [*cuts, time])]
    assert (torch.cat(told, 1) - model(ids, written, mask)).abs().max() < TOLERANCE


@given(cases())
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_several_texts_about_each_one_that_is_read(case):
    """Rows that stand one after another share what is read, as the beams of a search do."""
    config, ids, mask, written, seed = case
    model, rows = randomise(EncoderDecoder(config), seed), 3
    several = torch.cat([written, written.flip(1), written]).unflatten(0, (rows, -1)).transpose(0, 1)
    told = model.reading(ids, mask)(several.flatten(0, 1)).unflatten(0, (-1, rows))
    for row in range(rows):
        assert (told[:, row] - model(ids, several[:, row], mask)).abs().max() < TOLERANCE


@given(cases(), st.data())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_the_decoder_sees_the_whole_text_and_its_own_past(case, data):
    """A later token of its own changes no earlier logit; any token that it reads does."""
    config, ids, _, written, seed = case
    model, place = randomise(EncoderDecoder(config), seed), data.draw(st.integers(0, written.shape[1] - 1))
    changed = written.clone()
    changed[:, place:] = (changed[:, place:] + 1) % config.vocab_size
    before, after = model(ids, written), model(ids, changed)
    assert torch.equal(before[:, :place], after[:, :place])
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % config.vocab_size
    assert not torch.equal(model(other, written)[:, 0], before[:, 0]), "the decoder did not look at the text's end"


@torch.no_grad()
def test_a_folder_that_transformers_opens(tmp_path):
    tokenizer = word_level(["the", "cat", "sat"])
    config = TransformerConfig(len(tokenizer), layers=2, width=8, heads=2, feed_forward=12, segments=0, norm_eps=1e-5)
    model = randomise(EncoderDecoder(config), 1)
    folder = save_pretrained(model, tokenizer, tmp_path / "seq2seq")
    theirs, (ours, _) = BartForConditionalGeneration.from_pretrained(folder).eval(), load_pretrained(folder)
    ids, written = torch.randint(len(tokenizer), (2, 5)), torch.randint(len(tokenizer), (2, 4))
    assert (theirs_at(theirs, ids, None, written) - ours(ids, written)).abs().max() < TOLERANCE
    assert torch.equal(ours(ids, written), model(ids, written)) and ours.config == config
    assert ours.decoder.embeddings.token is ours.encoder.embeddings.token, "the two tables are one"


def test_shapes_that_bart_cannot_have_are_refused(tmp_path):
    shape = dict(layers=1, width=8, heads=2, feed_forward=8)
    with pytest.raises(ValueError, match="segments is 2"):
        EncoderDecoder(TransformerConfig(8, **shape))
    model = EncoderDecoder(TransformerConfig(8, **shape, segments=0, norm_eps=1e-12))
    with pytest.raises(ValueError, match="norm_eps is 1e-12"):
        save_pretrained(model, word_level(["the"]), tmp_path)
    theirs = BartForConditionalGeneration(BartConfig(vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=2,
                                                     encoder_attention_heads=2, decoder_attention_heads=2))
    with pytest.raises(ValueError, match="encoder_layers and decoder_layers differ"):
        from_transformers(theirs)
