"""The released optimizer: AdamW with two groups of weights, linear warm-up and half a cosine down."""

from __future__ import annotations

import math

import torch
from torch import nn

from rarkit.training.settings import TrainSettings

NO_DECAY = ("ln", "bias", "embed", "norm", "gamma", "mask_token", "latent_tokens")
"""A weight whose name contains one of these takes no weight decay (as in the released training code)."""


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step (the first is step 0): linear from 0 to the highest, then half a cosine to the last."""
    base, end, warmup = settings.learning_rate, settings.end_learning_rate, settings.warmup_steps
    if step < warmup:
        return base * step / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    return end + 0.5 * (base - end) * (1.0 + math.cos(math.pi * min(1.0, progress)))


def takes_decay(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight takes weight decay: matrices do, unless their name says otherwise."""
    return weight.ndim >= 2 and not any(word in name for word in NO_DECAY)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the model's weights; the learning rate is set at each step."""
    named = list(model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named if takes_decay(name, weight)], "weight_decay": settings.weight_decay},
        {"params": [weight for name, weight in named if not takes_decay(name, weight)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)
