"""Ours and `transformers`' masked language model are the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, randomise
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

from selfsup.models import (
    MaskedLanguageModel,
    SentencePairModel,
    TransformerConfig,
    attention_weights,
    from_transformers,
    to_transformers,
)


@st.composite
def cases(draw):
    """(shape, inputs): a small BERT and a batch with padding and two segments."""
    heads = draw(st.integers(1, 4))
    shape = dict(
        vocab_size=draw(st.integers(6, 60)),
        layers=draw(st.integers(1, 3)),
        width=heads * draw(st.integers(2, 8)) * 4,  # a norm over a few numbers multiplies rounding errors
        heads=heads,
        feed_forward=draw(st.integers(3, 40)),
        max_positions=draw(st.integers(12, 20)),
        segments=draw(st.integers(1, 3)),
        norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
    )
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (batch, 1), generator=generator)
    inputs = {
        "input_ids": torch.randint(shape["vocab_size"], (batch, time), generator=generator),
        "attention_mask": (torch.arange(time) < lengths).long(),
        "token_type_ids": torch.randint(shape["segments"], (batch, time), generator=generator),
    }
    for optional in ("attention_mask", "token_type_ids"):
        if draw(st.booleans()):
            del inputs[optional]
    return TransformerConfig(**shape), inputs, seed


def bert_config(config):
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        max_position_embeddings=config.max_positions,
        type_vocab_size=config.segments,
        layer_norm_eps=config.norm_eps,
    )


@given(cases())
@settings(max_examples=25, deadline=None)
def test_theirs_into_ours(case):
    config, inputs, seed = case
    theirs = randomise(BertForMaskedLM(bert_config(config)), seed)
    ours = from_transformers(theirs)
    assert ours.config == config, "the shape was read wrongly"
    with torch.no_grad():
        difference = (theirs(**inputs).logits - ours(**inputs)).abs().max()
    assert difference <= TOLERANCE, "a BERT of transformers gives other logits in ours"


@given(cases())
@settings(max_examples=25, deadline=None)
def test_ours_into_theirs(case):
    config, inputs, seed = case
    ours = randomise(MaskedLanguageModel(config), seed)
    theirs = to_transformers(ours)
    with torch.no_grad():
        difference = (theirs(**inputs).logits - ours(**inputs)).abs().max()
    assert difference <= TOLERANCE, "our model gives other logits in transformers"


@given(cases())
@settings(max_examples=15, deadline=None)
def test_both_heads_judge_pairs_alike_in_both_directions(case):
    config, inputs, seed = case
    theirs = randomise(BertForPreTraining(bert_config(config)), seed)
    ours = from_transformers(theirs)
    assert type(ours) is SentencePairModel
    with torch.no_grad():
        words, pairs = ours(**inputs, pair=True)
        for model in (theirs, to_transformers(ours)):
            expected = model(**inputs)
            assert (expected.prediction_logits - words).abs().max() <= TOLERANCE
            assert (expected.seq_relationship_logits - pairs).abs().max() <= TOLERANCE
        assert torch.equal(ours(**inputs), words), "without `pair` it is a masked language model"


@pytest.fixture
def model():
    return randomise(MaskedLanguageModel(TransformerConfig(30, layers=3, width=16, heads=4, feed_forward=24)), 0)


@pytest.fixture
def inputs():
    ids = torch.tensor([[2, 7, 9, 4, 3, 0], [2, 8, 4, 11, 12, 3]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def test_hidden_states_equal_those_of_transformers(model, inputs):
    theirs = to_transformers(model)(**inputs, output_hidden_states=True).hidden_states
    ours = model.encoder(**inputs, all_layers=True)
    assert len(theirs) == len(ours) == 4
    assert all(torch.allclose(a, b, atol=TOLERANCE) for a, b in zip(theirs, ours, strict=True))


def test_attention_weights_equal_those_of_transformers(model, inputs):
    theirs = to_transformers(model)
    if hasattr(theirs, "set_attn_implementation"):  # before 4.54 they turn to it by themselves
        theirs.set_attn_implementation("eager")
    expected = theirs(**inputs, output_attentions=True).attentions
    with attention_weights(model) as weights:
        model(**inputs)
    assert all(torch.allclose(a, b, atol=TOLERANCE) for a, b in zip(expected, weights, strict=True))


def test_gradients_equal_those_of_transformers(model, inputs):
    theirs = to_transformers(model)
    model(**inputs).logsumexp(-1).sum().backward()
    theirs(**inputs).logits.logsumexp(-1).sum().backward()
    ours, expected = model.encoder.embeddings.token.weight.grad, theirs.get_input_embeddings().weight.grad
    # Theirs keeps the embedding of [PAD] from learning at the input, where nobody looks at it anyway.
    assert torch.allclose(ours[1:], expected[1:], atol=1e-4), "embeddings learn from both ends of the model"


def test_conversion_does_not_share_memory(model, inputs):
    before = model(**inputs)
    theirs = to_transformers(model)
    torch.nn.init.zeros_(theirs.get_input_embeddings().weight)
    assert torch.equal(before, model(**inputs)), "changing the copy changed the original"


def test_positions_are_a_choice_of_all_logits(model, inputs):
    wanted = inputs["input_ids"] == 4
    everywhere = model(**inputs)
    at_targets = model(**inputs, positions=wanted)
    assert at_targets.shape == (2, 30)
    assert torch.allclose(at_targets, everywhere[wanted], atol=1e-6)
    indices = wanted.flatten().nonzero().squeeze(1)
    assert torch.equal(model(**inputs, positions=indices), at_targets), "indices and booleans must agree"


def test_gradients_at_positions_are_those_of_all_logits(model, inputs):
    wanted = inputs["input_ids"] == 4
    model(**inputs)[wanted].logsumexp(-1).sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model(**inputs, positions=wanted).logsumexp(-1).sum().backward()
    for (name, parameter), gradient in zip(model.named_parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5), name


def test_the_last_block_works_at_positions_alone(model, inputs):
    worked = []
    for block in model.encoder.blocks:
        block.feed_forward.register_forward_hook(lambda _, __, output: worked.append(tuple(output.shape)))
    model(**inputs, positions=inputs["input_ids"] == 4)
    assert worked == [(2, 6, 16), (2, 6, 16), (2, 16)]


def test_pairs_are_judged_alike_where_few_words_are_asked(inputs):
    model = randomise(SentencePairModel(TransformerConfig(30, layers=2, width=16, heads=4, feed_forward=24)), 0)
    wanted = inputs["input_ids"] == 4
    everywhere, pairs = model(**inputs, pair=True)
    at_targets, same = model(**inputs, positions=wanted, pair=True)
    assert torch.equal(same, pairs) and torch.allclose(at_targets, everywhere[wanted], atol=1e-6)


def test_all_layers_are_told_at_all_positions(model, inputs):
    with pytest.raises(ValueError, match="leave out"):
        model.encoder(**inputs, all_layers=True, positions=inputs["input_ids"] == 4)


def test_no_positions_give_no_logits(model, inputs):
    nowhere = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    assert model(**inputs, positions=nowhere).shape == (0, 30)


def test_head_shares_the_token_embeddings(model, inputs):
    assert not any(p.shape == (30, 16) for p in model.head.parameters()), "the head has a matrix of its own"
    before = model(**inputs)[0, 0]
    model.encoder.embeddings.token.weight.data[29] += 1  # a token that is not in the text
    changed = (model(**inputs)[0, 0] != before).nonzero().squeeze(1).tolist()
    assert changed == [29], "an output embedding is the input embedding of the same token"


def test_dropout_is_where_transformers_has_it():
    config = TransformerConfig(30, layers=1, width=16, heads=4, feed_forward=24, dropout=0.25)
    ours, theirs = MaskedLanguageModel(config), to_transformers(MaskedLanguageModel(config))
    rates = [m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(rates) == {0.25}
    own = [m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)]
    own.append(ours.encoder.blocks[0].attention.dropout)
    assert set(own) == {0.25}, "one rate for embeddings, attention weights and both sums"
    ids = torch.arange(12)[None]
    assert not torch.equal(ours.train()(ids), ours(ids)), "in training, dropout must be on"
    assert torch.equal(ours.eval()(ids), ours(ids)), "in evaluation, dropout must be off"


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    config = TransformerConfig(30, layers=2, width=32, heads=4, feed_forward=64, dropout=0.0, init_std=0.1)
    model = MaskedLanguageModel(config)
    ids = torch.randint(5, 30, (8, 10))
    corrupted, wanted = ids.clone(), torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, 4] = True
    corrupted[wanted] = 4
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(model(corrupted, positions=wanted), ids[wanted])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1, f"the model cannot learn eight texts by heart: {loss:.2f}"
