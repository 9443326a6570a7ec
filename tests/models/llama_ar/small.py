"""A small model in which nothing is degenerate."""

from __future__ import annotations

import torch

from rarkit.models import LlamaAR, LlamaARConfig

TINY = LlamaARConfig(
    hidden_size=32, depth=2, num_heads=2, mlp_hidden_size=48, grid=(3, 4), seq_len=12, codebook_size=20, num_classes=5
)


def lively(config: LlamaARConfig = TINY, seed: int = 0, *, scale: float = 0.2, attention=None) -> LlamaAR:
    model = LlamaAR(config, attention, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)
    return model.eval()
