"""Attention and the block, one mechanism at a time."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.models import Block, MultiHeadAttention, attention, attention_weights


def test_attention_by_hand():
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[math.sqrt(2) * math.log(3), 5.0], [0.0, -7.0]])
    value = torch.tensor([[4.0], [8.0]])
    output, weights = attention(query, key, value)
    assert torch.allclose(weights, torch.tensor([[0.75, 0.25]])), "a softmax of q·k / sqrt(size)"
    assert torch.allclose(output, torch.tensor([[5.0]])), "the output is the mean value by weight"


@given(
    batch=st.integers(1, 3), heads=st.integers(1, 3), queries=st.integers(1, 6), keys=st.integers(1, 6),
    size=st.integers(1, 8), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_attention_equals_torch(batch, heads, queries, keys, size, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, queries, size, generator=generator)
    key, value = torch.randn(2, batch, heads, keys, size, generator=generator)
    mask = torch.rand(batch, 1, queries, keys, generator=generator) < 0.7
    mask[..., 0] = True
    output, weights = attention(query, key, value, mask)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    assert torch.allclose(output, expected, atol=1e-5), "attention differs from torch's own"
    assert torch.allclose(weights.sum(-1), torch.ones(())), "each query's weights must sum to one"
    assert not weights[~mask.expand_as(weights)].any(), "a masked key still gets weight"


def test_masked_value_has_no_influence():
    query, key, value = torch.randn(3, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    before, _ = attention(query, key, value, mask)
    value[3], key[3] = 99.0, -99.0
    after, _ = attention(query, key, value, mask)
    assert torch.equal(before[:3], after[:3]), "a masked position leaks into the output"


def test_query_without_any_key_is_finite():
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    output, _ = attention(torch.randn(2, 4), torch.randn(3, 4), torch.randn(3, 4), nothing)
    assert torch.isfinite(output).all(), "a row of padding alone makes nan"


def test_recorded_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(12, 3), torch.randn(2, 5, 12, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None]
    fused = layer(x, mask)
    (gradient,) = torch.autograd.grad(fused.square().sum(), x)
    with attention_weights(layer) as weights:
        shown = layer(x, mask)
    assert torch.allclose(fused, shown, atol=1e-6), "the page shows another attention"
    (shown_gradient,) = torch.autograd.grad(shown.square().sum(), x)
    assert torch.allclose(gradient, shown_gradient, atol=1e-5), "the two learn differently"
    assert [w.shape for w in weights] == [(2, 3, 5, 5)]
    assert layer.record is None, "recording must stop after the with statement"


def test_heads_work_in_separate_subspaces():
    layer, x = MultiHeadAttention(8, 2).eval(), torch.randn(1, 3, 8)
    layer.output.weight.data, layer.output.bias.data = torch.eye(8), torch.zeros(8)
    before = layer(x)
    layer.value.weight.data[4:] += 1
    assert torch.equal(before[..., :4], layer(x)[..., :4]), "the second head changed the first one's output"


def test_cross_attention_reads_the_memory():
    layer = MultiHeadAttention(8, 2)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 7, 8)
    with attention_weights(layer) as weights:
        assert layer(x, memory=memory).shape == (2, 3, 8)
    assert weights[0].shape == (2, 2, 3, 7), "queries come from x, keys from the memory"


def test_block_normalises_its_output():
    y = Block(16, 4, 32)(5 * torch.randn(2, 3, 16) + 7)
    assert torch.allclose(y.mean(-1), torch.zeros(2, 3), atol=1e-5), "BERT's block ends with a norm"
    assert torch.allclose(y.var(-1, unbiased=False), torch.ones(2, 3), atol=1e-4)


def test_block_adds_its_input_back():
    block, x = Block(16, 4, 32).eval(), torch.randn(1, 3, 16)
    for last in (block.attention.output, block.feed_forward[2]):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    expected = block.feed_forward_norm(block.attention_norm(x))
    assert torch.allclose(block(x), expected, atol=1e-5), "a residual connection is missing"


def test_feed_forward_does_not_mix_positions():
    block, x = Block(16, 4, 32).eval(), torch.randn(1, 3, 16)
    block.attention.output.weight.data.zero_()
    before = block(x)
    x[0, 2] += 1
    assert torch.equal(before[0, :2], block(x)[0, :2]), "only attention may mix the positions"


def test_attention_weights_are_dropped_only_in_training():
    attend, x = MultiHeadAttention(16, 4, dropout=0.5), torch.randn(1, 3, 16)
    assert not torch.equal(attend(x), attend(x)), "in training, dropout must be on"
    attend.eval()
    assert torch.equal(attend(x), attend(x)), "in evaluation, dropout must be off"


def test_weights_are_collected_by_each_of_two_nested_collections():
    block, x = Block(16, 4, 32).eval(), torch.randn(1, 3, 16)
    with attention_weights(block) as outer:
        with attention_weights(block) as inner:
            block(x)
        block(x)
    assert len(inner) == len(outer) == 1


def test_dropout_only_in_training():
    block, x = Block(16, 4, 32, dropout=0.5), torch.randn(1, 3, 16)
    assert not torch.equal(block(x), block(x)), "in training, dropout must be on"
    block.eval()
    assert torch.equal(block(x), block(x)), "in evaluation, dropout must be off"
