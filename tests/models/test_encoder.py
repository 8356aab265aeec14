"""The encoder: what it looks at, what it refuses, how large its named shapes are."""

import pytest
import torch

from selfsup.models import SHAPES, Encoder, MaskedLanguageModel, TransformerConfig, attention_weights


def small(**changes):
    shape = dict(vocab_size=20, layers=2, width=16, heads=4, feed_forward=24, max_positions=10)
    return TransformerConfig(**{**shape, **changes})


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(small(init_std=0.3)).eval()


def test_sees_both_sides(encoder):
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    for changed in (1, 3):
        other = ids.clone()
        other[0, changed] = 9
        moved = (encoder(ids) - encoder(other)).abs().amax(-1)[0] > 1e-6
        assert moved.all(), f"an encoder is not causal: a change at {changed} must be seen everywhere"


def test_sees_itself(encoder):
    with attention_weights(encoder) as weights:
        encoder(torch.tensor([[2, 5, 6, 7, 3]]))
    assert len(weights) == 2, "one set of weights a layer"
    diagonals = [layer.diagonal(dim1=-2, dim2=-1) for layer in weights]
    assert all((own > 0).all() for own in diagonals), "BERT attends to its own position too"


def test_padding_changes_nothing(encoder):
    ids = torch.tensor([[2, 5, 6, 3]])
    padded = torch.tensor([[2, 5, 6, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    same = torch.allclose(encoder(ids), encoder(padded, mask)[:, :4], atol=1e-6)
    assert same, "the text looks at its padding"


def test_only_position_embeddings_know_the_order(encoder):
    ids, order = torch.tensor([[2, 5, 6, 7, 3]]), [3, 0, 4, 1, 2]
    assert not torch.allclose(encoder(ids)[:, order], encoder(ids[:, order]), atol=1e-3), "order is ignored"
    encoder.embeddings.position.weight.data.zero_()
    same = torch.allclose(encoder(ids)[:, order], encoder(ids[:, order]), atol=1e-5)
    assert same, "something other than the position embeddings knows the order"


def test_segments_default_to_the_first(encoder):
    ids = torch.tensor([[2, 5, 3]])
    first, second = (encoder(ids, token_type_ids=torch.full_like(ids, segment)) for segment in (0, 1))
    assert torch.equal(encoder(ids), first)
    assert not torch.equal(encoder(ids), second), "segments are ignored"


def test_all_layers(encoder):
    ids = torch.tensor([[2, 5, 6, 3]])
    states = encoder(ids, all_layers=True)
    assert states.shape == (3, 1, 4, 16), "one state after the embeddings and one after each block"
    assert torch.equal(states[0], encoder.embeddings(ids))
    assert torch.equal(states[-1], encoder(ids))


def test_too_long_text_is_refused(encoder):
    with pytest.raises(ValueError, match="11 tokens, but the model takes 10"):
        encoder(torch.zeros(1, 11, dtype=torch.long))


def test_initial_weights_follow_the_configuration():
    torch.manual_seed(0)
    encoder = Encoder(small(width=64, init_std=0.1, vocab_size=500))
    assert encoder.embeddings.token.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert encoder.blocks[1].feed_forward[0].weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert not encoder.blocks[0].attention.query.bias.any(), "biases start at zero"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "no multiple of 3 heads"),
        ({"layers": 0}, "layers is 0"),
        ({"vocab_size": 2.5}, "vocab_size is 2.5"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": None}, "dropout is None"),
        ({"norm_eps": -1}, "norm_eps is -1"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_unknown_shape_lists_the_known_ones():
    with pytest.raises(ValueError, match="tinyworld-bert"):
        TransformerConfig.named("tinyworld-brt", vocab_size=100)


@pytest.mark.parametrize(
    ("shape", "vocab_size", "at_most"),
    [
        ("tinyworld-bert", 1000, 800_000),
        ("storybook-bert", 6000, 3_200_000),
        ("bert-base", 30_522, 110_000_000),
    ],
)
def test_named_shapes_keep_their_size(shape, vocab_size, at_most):
    with torch.device("meta"):
        model = MaskedLanguageModel(TransformerConfig.named(shape, vocab_size))
    assert 0.9 * at_most < sum(p.numel() for p in model.parameters()) <= at_most


def test_named_shapes_can_be_changed():
    assert TransformerConfig.named("village-bert", 100, dropout=0.0).dropout == 0
    assert TransformerConfig.named("village-bert", 100, layers=7).layers == 7
    assert all(TransformerConfig.named(shape, 100) for shape in SHAPES)
