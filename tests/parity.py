"""What tests of parity with `transformers` share."""

import torch
from hypothesis import strategies as st

from selfsup.models import TransformerConfig

TOLERANCE = 1e-5


def randomise(model, seed):
    """Fill every tensor, norms and biases too, so that none can be forgotten unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.1 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            noise = spread * torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.dim() == 1 and bool((parameter == 1).all())
            parameter.copy_(noise + is_norm_weight)
    return model.eval()


@st.composite
def shapes(draw, most_layers=3):
    """The shape of a small GPT-2 or BART: no segments, and their norms' epsilon."""
    heads = draw(st.integers(1, 4))
    return TransformerConfig(
        vocab_size=draw(st.integers(6, 60)),
        layers=draw(st.integers(1, most_layers)),
        width=heads * draw(st.integers(2, 8)) * 4,  # a norm over a few numbers multiplies rounding errors
        heads=heads,
        feed_forward=draw(st.integers(3, 40)),
        max_positions=draw(st.integers(12, 20)),
        segments=0,
        norm_eps=1e-5,
    )
