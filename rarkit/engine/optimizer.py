"""The optimizer of the released training: AdamW with two groups of weights, linear warm-up and cosine decay."""

from __future__ import annotations

import math

import torch
from torch import nn

from rarkit.engine.settings import TrainSettings
from rarkit.registry.inputs import whole

NO_DECAY = ("ln", "bias", "embed", "norm", "gamma", "mask_token", "latent_tokens")
"""Weights whose names contain one of these have no weight decay, as in the released training code."""


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step, counted from 0: linear from 0 to ``learning_rate``, then half a cosine to the end rate.

    Raises:
        UserError: the step is not a whole number from 0.
    """
    whole("the step", step)
    base, end, warmup = settings.learning_rate, settings.end_learning_rate, settings.warmup_steps
    if step < warmup:
        return base * step / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    return end + 0.5 * (base - end) * (1.0 + math.cos(math.pi * min(1.0, progress)))


def takes_decay(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight has weight decay: matrices do, unless excluded by name (``NO_DECAY``)."""
    return weight.ndim >= 2 and not any(word in name for word in NO_DECAY)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the weights of any module; the caller sets the learning rate of its groups at each step.

    Matrices have the settings' weight decay, unless ``NO_DECAY`` excludes them by name, which it does for embeddings, positions,
    norms and biases.
    """
    named = list(model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named if takes_decay(name, weight)], "weight_decay": settings.weight_decay},
        {"params": [weight for name, weight in named if not takes_decay(name, weight)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)
