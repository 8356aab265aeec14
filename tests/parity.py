"""What tests of parity with `transformers` share."""

import torch

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
